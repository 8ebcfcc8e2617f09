package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"lagoon/internal/admin"
)

// frameLine is one line of a frame; the colour goes around all of it.
type frameLine struct{ text, color string }

// column is one column of the readers' table. Columns with a higher rank go first when the terminal is narrow.
type column struct {
	head  string
	rank  int
	right bool
	value func(r admin.Reader) string
}

var topColumns = []column{
	{"READER", 0, false, func(r admin.Reader) string { return cmp.Or(r.Group, r.ClientID, r.ID) }},
	{"TOPIC", 0, false, func(r admin.Reader) string { return fmt.Sprintf("%s/%d", r.Topic, r.Partition) }},
	{"CLASS", 0, false, func(r admin.Reader) string { return r.Class }},
	{"RECORDS", 5, true, func(r admin.Reader) string { return fmt.Sprint(r.LagRecords) }},
	{"BEHIND", 0, true, func(r admin.Reader) string { return size(r.LagBytes) }},
	{"AGE", 2, true, func(r admin.Reader) string { return span(r.LagSeconds) }},
	{"ETA", 2, true, eta},
	{"RATE", 0, true, func(r admin.Reader) string { return speed(r.RateBytes) }},
	{"LANE", 1, false, func(r admin.Reader) string { return dash(r.Lane) }},
	{"TIER", 4, false, func(r admin.Reader) string { return dash(r.Tier) }},
	{"LIMITED BY", 3, false, func(r admin.Reader) string { return dash(r.Throttle.LimitedBy) }},
	{"WAIT", 4, true, func(r admin.Reader) string { return fmt.Sprintf("%.0f%%", 100*r.Throttle.WaitRatio) }},
	{"CLIENT", 6, false, func(r admin.Reader) string { return dash(r.ClientID) }},
}

// nameWidth bounds the two columns that other people fill.
const nameWidth = 24

// frame draws what top shows: health of the real-time path, who is behind, each device's budget, the readers. width is in columns;
// height is the number of lines at most, 0 for no limit.
func frame(d topData, width, height int) []frameLine {
	out := topHead(d)
	for i := range out {
		out[i].text = cut(out[i].text, width)
	}
	out = append(out, frameLine{})
	readers := d.Readers
	if height > 0 {
		room := max(0, height-len(out)-1)
		if len(readers) > room {
			readers = readers[:max(0, room-1)]
		}
	}
	out = append(out, readerLines(readers, width)...)
	if left := d.Total - len(readers); left > 0 {
		out = append(out, frameLine{cut(fmt.Sprintf("and %d more", left), width), ""})
	}
	if d.Total == 0 {
		out = append(out[:len(out)-1], frameLine{cut("no readers", width), ""})
	}
	return out
}

func topHead(d topData) []frameLine {
	s := d.Status
	head := frameLine{fmt.Sprintf("lagoon %s  up %s  %s  %s  %s of log  %s", s.State, span(s.UptimeSeconds), count(s.Topics, "topic"), count(s.Partitions, "partition"), size(s.LogBytes),
		d.Now.Format("15:04:05")), bold}
	if s.State != "ready" {
		head.color = red
	}
	out := []frameLine{head, realtimeLine(d)}
	behind := fmt.Sprintf("behind     %d lagging, %d catching up, %d stalled, %d stopped", s.Readers.Lagging, s.Readers.CatchingUp, s.Readers.Stalled, s.Readers.Stopped)
	longest, endless := -1.0, 0
	for _, r := range d.Readers {
		switch {
		case r.Class != "lagging" && r.Class != "catching_up" && r.Class != "stalled":
		case r.ETASeconds < 0:
			endless++
		default:
			longest = max(longest, r.ETASeconds)
		}
	}
	switch {
	case endless > 0:
		behind += fmt.Sprintf("; no end in sight for %d", endless)
	case longest >= 0:
		behind += "; done in " + span(longest)
	}
	out = append(out, frameLine{behind, ""})
	for _, dev := range d.Throttle.Devices {
		budget := "no limit"
		if dev.LimitBytes > 0 {
			budget = limit(dev.LimitBytes)
			if dev.State != "" {
				budget += " (" + dev.State + ")"
			}
		}
		line := fmt.Sprintf("%-10s cold %s of %s, %d running, %d waiting", dev.Tier, flow(dev.UsedBytes), budget, dev.InFlight, dev.Queued)
		for _, tier := range d.Tiers {
			if tier.Name == dev.Tier {
				line += fmt.Sprintf("; %s resident", size(tier.ResidentBytes))
				if tier.State != "ok" {
					line += "; " + strings.ToUpper(tier.State)
				}
			}
		}
		out = append(out, frameLine{line, ""})
	}
	for _, r := range soonest(racing(d.Readers)) {
		line := frameLine{fmt.Sprintf("race       %s keeps ahead of retention in %s", clean(cmp.Or(r.Group, r.ClientID, r.ID)), r.Topic), ""}
		if left := r.Retention.CountdownSeconds; left >= 0 {
			line = frameLine{fmt.Sprintf("race       %s until %s loses data of %s, %s at its present rate", span(left), clean(cmp.Or(r.Group, r.ClientID, r.ID)),
				r.Topic, size(r.Retention.LossBytes)), red}
		}
		out = append(out, line)
	}
	for _, c := range s.Checks {
		if c.Name == "hot-windows" {
			line := frameLine{"hot        " + c.Text, ""}
			if !c.OK {
				line.color = yellow
			}
			out = append(out, line)
		}
		if !c.OK && c.Severity == "error" {
			out = append(out, frameLine{"check      " + c.Name + ": " + c.Text, red})
		}
	}
	return out
}

// soonest are the few races that end first; all are in `lagoon readers`.
func soonest(races []admin.Reader) []admin.Reader {
	const most = 3
	slices.SortStableFunc(races, func(a, b admin.Reader) int {
		left, right := a.Retention.CountdownSeconds, b.Retention.CountdownSeconds
		if (left < 0) != (right < 0) { // who keeps ahead comes last
			left, right = right, left
		}
		return cmp.Compare(left, right)
	})
	return races[:min(most, len(races))]
}

// realtimeLine is the promise: what the real-time readers got in the last minute came from the page cache.
func realtimeLine(d topData) frameLine {
	var n int
	var cache, device, rate float64
	late := 0.0
	readers := d.Readers
	if d.realtime != nil {
		readers = d.realtime
	}
	for _, r := range readers {
		if r.Class != "realtime" {
			continue
		}
		n++
		rate += r.RateBytes
		late = max(late, r.LagSeconds)
		cache += float64(r.Sources.PageCache)
		for _, b := range r.Sources.Tiers {
			device += float64(b)
		}
	}
	switch {
	case n == 0:
		return frameLine{"real-time  no reader", ""}
	case device > 0:
		return frameLine{fmt.Sprintf("real-time  %s, %s, %s behind at most; %s of %s in a minute from a device", count(n, "reader"), flow(rate), span(late),
			size(int64(device)), size(int64(cache+device))), yellow}
	}
	return frameLine{fmt.Sprintf("real-time  %s, %s, %s behind at most; all from the page cache", count(n, "reader"), flow(rate), span(late)), ""}
}

// flow is a rate of which nothing is 0 and not unknown.
func flow(f float64) string { return size(int64(f)) + "/s" }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// readerLines is the table, as many columns as fit.
func readerLines(readers []admin.Reader, width int) []frameLine {
	columns := slices.Clone(topColumns)
	for {
		lines, wide := readerTable(columns, readers, 2)
		if wide > width {
			lines, wide = readerTable(columns, readers, 1)
		}
		if wide <= width || len(columns) == 1 {
			for i := range lines {
				lines[i].text = cut(lines[i].text, width)
			}
			return lines
		}
		worst := 0
		for i, c := range columns {
			if c.rank > 0 && c.rank >= columns[worst].rank {
				worst = i
			}
		}
		if columns[worst].rank == 0 {
			worst = len(columns) - 1
		}
		columns = slices.Delete(columns, worst, worst+1)
	}
}

func readerTable(columns []column, readers []admin.Reader, gap int) (lines []frameLine, width int) {
	cells := make([][]string, len(readers)+1)
	widths := make([]int, len(columns))
	for i, c := range columns {
		cells[0] = append(cells[0], c.head)
		for k, r := range readers {
			cells[k+1] = append(cells[k+1], cut(clean(c.value(r)), nameWidth))
		}
		for _, row := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		width += widths[i] + gap
	}
	for k, row := range cells {
		var line strings.Builder
		for i, c := range columns {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(row[i]))
			if c.right {
				line.WriteString(pad + row[i])
			} else {
				line.WriteString(row[i] + pad)
			}
			line.WriteString(strings.Repeat(" ", gap))
		}
		color := bold
		if k > 0 {
			color = classColor(readers[k-1].Class)
		}
		lines = append(lines, frameLine{strings.TrimRight(line.String(), " "), color})
	}
	return lines, width - gap
}

// cut shortens a text to width columns.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width || width < 1 {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}
