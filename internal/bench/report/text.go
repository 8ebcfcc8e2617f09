package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Text writes the tables of one run.
func (r *Isolation) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.title())
	fmt.Fprintf(&b, "live %s on %d partitions, slow %s on %d, old %s on %d; phases of %.0f s%s; %d cores, kernel %s\n",
		rate(r.Load.LiveBytesPerSec), r.Load.LivePartitions, rate(r.Load.SlowBytesPerSec), r.Load.SlowPartitions,
		size(r.Load.OldBytes), r.Load.OldPartitions, r.Load.PhaseSeconds, often(r.repeats()), r.Machine.CPUs, r.Machine.Kernel)
	if r.Device != nil {
		fmt.Fprintf(&b, "device: %.0f MB/s (sequential, 1 MiB, O_DIRECT)\n", r.Device.MBPerSec)
	}
	fmt.Fprintf(&b, "\nLatency from the scheduled time, ms (× base)%s\n", r.median())
	r.latencies(&b)
	if len(r.Medians) > 0 {
		b.WriteString("\nEach repetition: p99, p99.9 in ms (× its own base)\n")
		r.repetitions(&b)
	}
	fmt.Fprintf(&b, "\nBacklog, disk and broker%s\n", r.median())
	r.uses(&b)
	if r.hasRecovery() {
		fmt.Fprintf(&b, "\nSeconds until the first second as in base after the backlog stopped%s\n", r.median())
		r.recoveries(&b)
	}
	b.WriteString("\nEvery record checked\n")
	r.checks(&b)
	fmt.Fprintf(&b, "backlog: %s\n", r.backlogCell())
	if r.Groups != nil {
		fmt.Fprintf(&b, "groups: %s\n", r.Groups.cell())
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// median says in a heading what the figures below it are.
func (r *Isolation) median() string {
	if len(r.Medians) == 0 {
		return ""
	}
	return fmt.Sprintf("; medians of %d", r.repeats())
}

// repeats is how often the phases were run, at least in part.
func (r *Isolation) repeats() (n int) {
	for _, p := range r.Phases {
		n = max(n, p.Repeat)
	}
	return n
}

// shown are the phases of tables: the medians, if there are any.
func (r *Isolation) shown() []Phase {
	if len(r.Medians) > 0 {
		return r.Medians
	}
	return r.Phases
}

func (r *Isolation) title() string {
	name := r.Label
	if name == "" {
		name = strings.Join(r.Load.Brokers, ",")
	}
	state := ""
	if r.Interrupted {
		state = " (interrupted)"
	}
	return fmt.Sprintf("lagoon-bench isolation: %s, %s, %s%s", name, r.Load.readers(), r.Started.UTC().Format("2006-01-02 15:04 UTC"), state)
}

// readers says what kind of consumers the readers are.
func (l *Load) readers() string {
	if l.Groups {
		return "consumer groups"
	}
	return "plain consumers"
}

func (g *Groups) cell() string {
	if g == nil {
		return "-"
	}
	return fmt.Sprintf("%d, %d heartbeats, %d commits (slowest %s ms), %d refused, %d rebalances", g.Groups, g.Heartbeats, g.Commits, ms(g.SlowestMs),
		g.Refused, g.Rebalances)
}

// table lines up tab-separated rows.
func table(b *strings.Builder, rows [][]string) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a Builder takes everything
	text := b.String()
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	b.Reset()
	b.WriteString(strings.Join(lines, "\n"))
}

// roles are those that the run had, in order.
func (r *Isolation) roles() []string {
	var out []string
	for _, role := range Roles {
		if slices.ContainsFunc(r.Phases, func(p Phase) bool { _, ok := p.Latency[role]; return ok }) {
			out = append(out, role)
		}
	}
	return out
}

func (r *Isolation) latencies(b *strings.Builder) {
	rows := [][]string{{"phase", "role", "p50", "p99", "p99.9", "max", "records", "unfinished"}}
	for _, p := range r.shown() {
		for i, role := range r.roles() {
			l := p.Latency[role]
			name := ""
			if i == 0 {
				name = p.Name
			}
			var q Ratios
			if l.Ratio != nil {
				q = *l.Ratio
			}
			rows = append(rows, []string{name, role, cell(l, l.P50, q.P50), cell(l, l.P99, q.P99), cell(l, l.P999, q.P999), cell(l, l.Max, q.Max),
				fmt.Sprint(l.Count), blank(l.Unfinished)})
		}
	}
	table(b, rows)
}

// repetitions shows what the medians are made of.
func (r *Isolation) repetitions(b *strings.Builder) {
	head := []string{"phase", "figure"}
	for n := range r.repeats() {
		head = append(head, fmt.Sprintf("%d", n+1))
	}
	rows := [][]string{head}
	for _, m := range r.Medians {
		figures := append(slices.Clone(r.roles()), "backlog MB/s")
		for i, figure := range figures {
			name := ""
			if i == 0 {
				name = m.Name
			}
			row := []string{name, figure}
			for n := range r.repeats() {
				row = append(row, r.repetition(m.Name, n+1, figure))
			}
			if figure != "backlog MB/s" || m.Backlog != nil {
				rows = append(rows, row)
			}
		}
	}
	table(b, rows)
}

// repetition is a role's latencies, or what the backlog got, in one phase.
func (r *Isolation) repetition(phase string, repeat int, figure string) string {
	i := slices.IndexFunc(r.Phases, func(p Phase) bool { return p.Name == phase && p.Repeat == repeat })
	switch {
	case i < 0:
		return "-"
	case slices.Contains(Roles, figure):
		l := r.Phases[i].Latency[figure]
		var q Ratios
		if l.Ratio != nil {
			q = *l.Ratio
		}
		return cell(l, l.P99, q.P99) + ", " + cell(l, l.P999, q.P999)
	case r.Phases[i].Backlog == nil:
		return "-"
	}
	return fmt.Sprintf("%.0f", r.Phases[i].Backlog.MBPerSec)
}

// cell is a latency and its ratio. With records that never came it is a lower bound.
func cell(l Latency, v, ratio float64) string {
	if l.Count == 0 {
		return "-"
	}
	out := ms(v)
	if l.Unfinished > 0 {
		out = "≥ " + out
	}
	if ratio > 0 {
		out += fmt.Sprintf(" (%s)", times(ratio))
	}
	return out
}

// often says how often the phases ran.
func often(repeats int) string {
	if repeats < 2 {
		return ""
	}
	return fmt.Sprintf(", %d times", repeats)
}

func times(ratio float64) string {
	if ratio >= 100 {
		return fmt.Sprintf("%.0f", ratio)
	}
	return fmt.Sprintf("%.2f", ratio)
}

func ms(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func blank(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (r *Isolation) uses(b *strings.Builder) {
	rows := [][]string{{"phase", "MB/s", "of limit", "of rest", "each (spread)", "disk/served", "disk read", "rt from disk", "hot window", "broker cores", "anon", "generator cores", "late p99"}}
	for _, p := range r.shown() {
		rows = append(rows, append([]string{p.Name}, p.useCells()...))
	}
	table(b, rows)
}

// useCells is everything of a phase but latencies.
func (p *Phase) useCells() []string {
	out := []string{"-", "-", "-", "-"}
	if g := p.Backlog; g != nil {
		out[0] = fmt.Sprintf("%.0f", g.MBPerSec)
		out[1] = optional(g.OfLimit, "%.2f")
		out[2] = optional(g.OfLeft, "%.2f")
		out[3] = g.each()
	}
	u := &p.Use
	read := "-"
	if len(u.Devices) > 0 || u.ProcessRead != nil {
		n := int64(0)
		for _, d := range u.Devices {
			n += d.ReadBytes
		}
		if len(u.Devices) == 0 {
			n = *u.ProcessRead
		}
		read = size(n)
	}
	return append(out, optional(u.ReadPerServed, "%.3f"), read, realtime(u), windows(u.HotWindow),
		optional(u.BrokerCores, "%.2f"), optionalSize(u.AnonBytes), fmt.Sprintf("%.2f", u.GeneratorCores), ms(u.Late.P99)+" ms")
}

// realtime is what real-time readers took from disk, and which part of what they got that is.
func realtime(u *Use) string {
	if u.RealtimeShare == nil {
		return optionalSize(u.RealtimeRead)
	}
	return fmt.Sprintf("%s (%.3f%%)", size(*u.RealtimeRead), 100**u.RealtimeShare)
}

func (g *Backlog) each() string {
	switch n := len(g.EachMBPerS); {
	case n == 0:
		return "-"
	case n == 1:
		return fmt.Sprintf("%.0f", g.EachMBPerS[0])
	default:
		return fmt.Sprintf("%.0f-%.0f (%.2f)", slices.Min(g.EachMBPerS), slices.Max(g.EachMBPerS), g.Spread)
	}
}

// windows is the least resident share of the hot windows.
func windows(w map[string]float64) string {
	var out []string
	for _, topic := range []string{"live", "slow"} {
		if v, ok := w[topic]; ok {
			out = append(out, fmt.Sprintf("%s %.1f%%", topic, 100*v))
		}
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, " ")
}

func optional(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

func optionalSize(v *int64) string {
	if v == nil {
		return "-"
	}
	return size(*v)
}

// size is bytes in the largest unit that leaves a whole number before the point.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func rate(n int64) string { return size(n) + "/s" }

func (r *Isolation) hasRecovery() bool {
	return slices.ContainsFunc(r.shown(), func(p Phase) bool { return len(p.Recovery) > 0 })
}

func (r *Isolation) recoveries(b *strings.Builder) {
	roles := r.roles()
	rows := [][]string{append([]string{"phase"}, roles...)}
	for _, p := range r.shown() {
		if len(p.Recovery) == 0 {
			continue
		}
		row := []string{p.Name}
		for _, role := range roles {
			row = append(row, p.Recovery[role].cell())
		}
		rows = append(rows, row)
	}
	table(b, rows)
}

func (v *Recovery) cell() string {
	switch {
	case v == nil:
		return "-"
	case !v.Recovered:
		return fmt.Sprintf("> %.0f", v.Seconds)
	}
	return fmt.Sprintf("%.0f", v.Seconds)
}

func (r *Isolation) checks(b *strings.Builder) {
	rows := [][]string{{"role", "topic", "acknowledged", "read", "lost", "duplicates", "out of order", "corrupt", "refused", "not read"}}
	for _, c := range r.Checks {
		rows = append(rows, []string{c.Role, c.Topic, fmt.Sprint(c.Produced), fmt.Sprint(c.Read), fmt.Sprint(c.Lost), fmt.Sprint(c.Duplicates),
			fmt.Sprint(c.Reordered), fmt.Sprint(c.Corrupt), fmt.Sprint(c.Failed), fmt.Sprint(c.NotRead)})
	}
	table(b, rows)
}

func (r *Isolation) backlogCell() string {
	gaps, bad, checked := r.backlogCheck()
	return fmt.Sprintf("%d batches that did not follow the one before, %d with a wrong CRC in %d responses checked in full", gaps, bad, checked)
}
