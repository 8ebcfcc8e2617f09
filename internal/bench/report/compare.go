package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Compare writes runs side by side: every phase and figure that any of them has, none left out.
func Compare(w io.Writer, markdown bool, runs ...*Isolation) error {
	var b strings.Builder
	heading := func(text string) {
		if markdown {
			fmt.Fprintf(&b, "\n### %s\n\n", text)
		} else {
			fmt.Fprintf(&b, "\n%s\n", text)
		}
	}
	rows := func(rows [][]string) {
		if markdown {
			markdownTable(&b, rows)
		} else {
			table(&b, rows)
		}
	}
	names := columns(runs)
	heading("Runs")
	rows(conditions(runs, names))
	heading("Latency from the scheduled time, ms: p50 / p99 / p99.9 / max (p99 × base; of each repetition)")
	rows(latencyRows(runs, names))
	heading("Backlog, disk and broker")
	rows(useRows(runs, names))
	heading("Seconds until as in base after the backlog stopped")
	rows(recoveryRows(runs, names))
	heading("Records checked: acknowledged, lost / duplicates / out of order / corrupt / refused / not read")
	rows(checkRows(runs, names))
	for i, r := range runs {
		for _, n := range r.Notes {
			fmt.Fprintf(&b, "\n* %s: %s", names[i], n)
		}
	}
	_, err := io.WriteString(w, strings.TrimLeft(b.String(), "\n")+"\n")
	return err
}

// columns names the runs; equal labels get numbers.
func columns(runs []*Isolation) []string {
	out := make([]string, len(runs))
	for i, r := range runs {
		out[i] = r.Label
		if out[i] == "" {
			out[i] = strings.Join(r.Load.Brokers, ",")
		}
		if slices.Contains(out[:i], out[i]) {
			out[i] = fmt.Sprintf("%s (%d)", out[i], i+1)
		}
	}
	return out
}

// inCells keeps a label from ending its cell.
func inCells(row []string) []string {
	out := make([]string, len(row))
	for i, text := range row {
		out[i] = strings.ReplaceAll(text, "|", `\|`)
	}
	return out
}

func markdownTable(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(inCells(row), " | "))
		if i == 0 {
			fmt.Fprintf(b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
}

// each makes a row from what one cell of every run is.
func each(runs []*Isolation, head []string, cell func(*Isolation) string) []string {
	row := slices.Clone(head)
	for _, r := range runs {
		row = append(row, cell(r))
	}
	return row
}

func conditions(runs []*Isolation, names []string) [][]string {
	rows := [][]string{append([]string{""}, names...)}
	add := func(name string, f func(*Isolation) string) { rows = append(rows, each(runs, []string{name}, f)) }
	add("started", func(r *Isolation) string { return r.Started.UTC().Format("2006-01-02 15:04") })
	add("live, slow", func(r *Isolation) string { return rate(r.Load.LiveBytesPerSec) + ", " + rate(r.Load.SlowBytesPerSec) })
	add("old, backlog range", func(r *Isolation) string { return size(r.Load.OldBytes) + ", " + r.Load.BacklogRange })
	add("readers", func(r *Isolation) string { return r.Load.readers() })
	add("phase, delayed reader behind", func(r *Isolation) string {
		return fmt.Sprintf("%.0f s%s, %.0f s", r.Load.PhaseSeconds, often(r.repeats()), r.Load.BehindSeconds)
	})
	add("device, sequential direct MB/s", func(r *Isolation) string {
		if r.Device == nil {
			return "-"
		}
		return fmt.Sprintf("%.0f", r.Device.MBPerSec)
	})
	add("whole run", func(r *Isolation) string {
		if r.Interrupted {
			return "interrupted"
		}
		return "yes"
	})
	return rows
}

// phaseNames are all phases, in the order of the first run that has them.
func phaseNames(runs []*Isolation) (out []string) {
	for _, r := range runs {
		for _, p := range r.shown() {
			if !slices.Contains(out, p.Name) {
				out = append(out, p.Name)
			}
		}
	}
	return out
}

func (r *Isolation) phase(name string) *Phase {
	phases := r.shown()
	i := slices.IndexFunc(phases, func(p Phase) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &phases[i]
}

// each is the ratios of the p99 of a role in the repetitions of a phase.
func (r *Isolation) each(phase, role string) string {
	var out []string
	for _, p := range r.Phases {
		if q := p.Latency[role].Ratio; p.Name == phase && p.Repeat > 0 && q != nil {
			out = append(out, times(q.P99))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "; " + strings.Join(out, " ")
}

func latencyRows(runs []*Isolation, names []string) [][]string {
	rows := [][]string{append([]string{"phase", "role"}, names...)}
	for _, name := range phaseNames(runs) {
		for _, role := range Roles {
			if !slices.ContainsFunc(runs, func(r *Isolation) bool { return slices.Contains(r.roles(), role) }) {
				continue
			}
			rows = append(rows, each(runs, []string{name, role}, func(r *Isolation) string {
				p := r.phase(name)
				if p == nil {
					return "-"
				}
				l := p.Latency[role]
				if l.Count == 0 {
					return "-"
				}
				out := fmt.Sprintf("%s / %s / %s / %s", ms(l.P50), ms(l.P99), ms(l.P999), ms(l.Max))
				if l.Unfinished > 0 {
					out = "≥ " + out
				}
				if l.Ratio != nil {
					out += fmt.Sprintf(" (%s%s)", times(l.Ratio.P99), r.each(name, role))
				}
				return out
			}))
		}
	}
	return rows
}

// useNames are the columns of useCells.
var useNames = []string{"backlog MB/s", "of device limit", "of what writes leave", "each (spread)", "disk bytes per byte served", "disk read", "real-time bytes from disk", "hot window resident", "broker cores", "anonymous memory", "generator cores", "generator late p99"}

func useRows(runs []*Isolation, names []string) [][]string {
	rows := [][]string{append([]string{"phase", "figure"}, names...)}
	for _, name := range phaseNames(runs) {
		for i, figure := range useNames {
			row := each(runs, []string{name, figure}, func(r *Isolation) string {
				if p := r.phase(name); p != nil {
					return p.useCells()[i]
				}
				return "-"
			})
			// A figure that no run has in this phase, such as the backlog's in base, is not one.
			if slices.ContainsFunc(row[2:], func(c string) bool { return c != "-" }) {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func recoveryRows(runs []*Isolation, names []string) [][]string {
	rows := [][]string{append([]string{"after", "role"}, names...)}
	for _, name := range phaseNames(runs) {
		for _, role := range Roles {
			row := each(runs, []string{name, role}, func(r *Isolation) string {
				if p := r.phase(name); p != nil {
					return p.Recovery[role].cell()
				}
				return "-"
			})
			if slices.ContainsFunc(row[2:], func(c string) bool { return c != "-" }) {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func checkRows(runs []*Isolation, names []string) [][]string {
	rows := [][]string{append([]string{"role"}, names...)}
	for _, role := range Roles {
		row := each(runs, []string{role}, func(r *Isolation) string {
			for _, c := range r.Checks {
				if c.Role == role {
					return fmt.Sprintf("%d, %d / %d / %d / %d / %d / %d", c.Produced, c.Lost, c.Duplicates, c.Reordered, c.Corrupt, c.Failed, c.NotRead)
				}
			}
			return "-"
		})
		if slices.ContainsFunc(row[1:], func(c string) bool { return c != "-" }) {
			rows = append(rows, row)
		}
	}
	rows = append(rows, each(runs, []string{"backlog"}, (*Isolation).backlogCell))
	if slices.ContainsFunc(runs, func(r *Isolation) bool { return r.Groups != nil }) {
		rows = append(rows, each(runs, []string{"groups"}, func(r *Isolation) string { return r.Groups.cell() }))
	}
	return rows
}
