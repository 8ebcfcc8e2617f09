package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"lagoon/conf"
)

var outputs = []string{"table", "wide", "json", "ndjson"}

func (a *app) checkOutput() error {
	if !slices.Contains(outputs, a.output) {
		return usagef("-o %s is not one of %s", a.output, strings.Join(outputs, ", "))
	}
	return nil
}

// show prints an answer: as it came for programs, with list naming the array for ndjson, or as a table.
func (a *app) show(body []byte, list string, human func(wide bool) error) error {
	switch a.output {
	case "json":
		return a.printJSON(body)
	case "ndjson":
		return a.printLines(body, list)
	default:
		return human(a.output == "wide")
	}
}

// listQuery is what a list is asked with: programs get as much as there may be, people what they can read.
func (a *app) listQuery(sort string) url.Values {
	q := url.Values{"sort": {sort}}
	if a.output == "json" || a.output == "ndjson" {
		q.Set("limit", "10000")
	}
	return q
}

// leftOut says what a list without room for it does not hold. A table says so itself, and JSON has its total.
func (a *app) leftOut(body []byte, list string) {
	var answer map[string]json.RawMessage
	var total int
	var items []json.RawMessage
	if a.output != "ndjson" || json.Unmarshal(body, &answer) != nil || json.Unmarshal(answer["total"], &total) != nil || json.Unmarshal(answer[list], &items) != nil {
		return
	}
	if total > len(items) {
		fmt.Fprintf(a.stderr, "lagoon: %d more are left out\n", total-len(items))
	}
}

func (a *app) printJSON(body []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(body), "", "  "); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err := a.stdout.Write(out.Bytes())
	return err
}

// printLines prints one JSON object per line: the elements of the array called list, or the whole answer.
func (a *app) printLines(body []byte, list string) error {
	items := []json.RawMessage{body}
	if list != "" {
		var answer map[string]json.RawMessage
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("the answer is not JSON: %w", err)
		}
		if err := json.Unmarshal(answer[list], &items); err != nil {
			return fmt.Errorf("the answer has no list %s: %w", list, err)
		}
	}
	for _, item := range items {
		var out bytes.Buffer
		if err := json.Compact(&out, item); err != nil {
			return fmt.Errorf("the answer is not JSON: %w", err)
		}
		out.WriteByte('\n')
		if _, err := a.stdout.Write(out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// table collects rows and prints them aligned. A row's colour goes around the whole line, after the widths are known.
type table struct {
	app    *app
	rows   [][]string
	colors []string
}

const (
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	reset  = "\x1b[0m"
)

func (a *app) table(header ...string) *table {
	t := &table{app: a}
	if len(header) > 0 {
		t.add(bold, header...)
	}
	return t
}

func (t *table) add(color string, cells ...string) {
	t.rows, t.colors = append(t.rows, cells), append(t.colors, color)
}

func (t *table) print() error {
	var buf bytes.Buffer
	w := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i := range row {
			row[i] = clean(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, " ")
		if i < len(t.colors) && t.colors[i] != "" && t.app.color && !t.app.noColor {
			line = t.colors[i] + line + reset
		}
		if _, err := io.WriteString(t.app.stdout, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// clean keeps names that clients chose from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// classColor marks what needs a look.
func classColor(class string) string {
	switch class {
	case "lagging", "catching_up":
		return yellow
	case "stalled", "failed", "fenced", "missing", "full":
		return red
	default:
		return ""
	}
}

// size prints bytes for people: three digits and a 1024-based unit.
func size(n int64) string {
	switch {
	case n < 0:
		return "-"
	case n < 1<<10:
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	name := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
	if f < 10 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + name
	}
	return fmt.Sprintf("%.0f%s", f, name)
}

// limit prints a rate limit; 0 is none.
func limit(n int64) string {
	if n <= 0 {
		return "-"
	}
	return size(n) + "/s"
}

func speed(f float64) string {
	if f < 1 {
		return "-"
	}
	return size(int64(f)) + "/s"
}

// span prints seconds for people with at most two units: 12m32s, 3h5m, 9d.
func span(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
	case d < 24*time.Hour:
		d = d.Round(time.Minute)
	default:
		d = d.Round(time.Hour)
	}
	return conf.Duration(d).String()
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

var levels = []rune(" ▁▂▃▄▅▆▇█")

// bar draws one column per cell. Nothing but a full cell is a full block, nothing but an empty one is blank.
func bar(cells []byte) string {
	out := make([]rune, len(cells))
	for i, c := range cells {
		level := int(c) * (len(levels) - 1) / 255
		if c > 0 {
			level = max(level, 1)
		}
		out[i] = levels[level]
	}
	return "[" + string(out) + "]"
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
