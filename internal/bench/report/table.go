package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Table is the result of a command that measures rows of figures: throughput, partitions.
type Table struct {
	Tool        string              `json:"tool"`
	Format      int                 `json:"format"`
	Label       string              `json:"label"`
	Started     time.Time           `json:"started"`
	Interrupted bool                `json:"interrupted"`
	Machine     Machine             `json:"machine"`
	Brokers     []string            `json:"brokers"`
	Keys        []string            `json:"keys"`    // the columns that say what a row is about
	Columns     []string            `json:"columns"` // keys of Rows, in the order of the table; units are in the names
	Rows        []map[string]string `json:"rows"`    // a column that was not measured is absent
	Notes       []string            `json:"notes,omitempty"`
}

// Text writes the table.
func (t *Table) Text(w io.Writer) error {
	var b strings.Builder
	rows := [][]string{t.Columns}
	for _, r := range t.Rows {
		row := make([]string, len(t.Columns))
		for i, c := range t.Columns {
			if row[i] = r[c]; row[i] == "" {
				row[i] = "-"
			}
		}
		rows = append(rows, row)
	}
	table(&b, rows)
	for _, n := range t.notes() {
		b.WriteString("note: " + n + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// notes are what is to be known beside the rows.
func (t *Table) notes() []string {
	if !t.Interrupted {
		return t.Notes
	}
	return append(slices.Clone(t.Notes), "interrupted: rows are missing")
}

// ParseTable reads a result back.
func ParseTable(data []byte) (*Table, error) {
	t := &Table{}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("no table of lagoon-bench: %w", err)
	}
	switch {
	case !strings.HasPrefix(t.Tool, "lagoon-bench ") || len(t.Columns) == 0:
		return nil, fmt.Errorf("no table of lagoon-bench: its tool is %q", t.Tool)
	case t.Format != Format:
		return nil, fmt.Errorf("a result of format %d; this lagoon-bench reads %d", t.Format, Format)
	}
	return t, nil
}

// key is what a row is about.
func (t *Table) key(row map[string]string) string {
	var out []string
	for _, k := range t.Keys {
		out = append(out, row[k])
	}
	return strings.Join(out, "\t")
}

// CompareTables writes tables of one command side by side: a row for each figure of each row that any of them has. With two or more,
// each is also shown as a multiple of the last.
func CompareTables(w io.Writer, markdown bool, tables ...*Table) error {
	var names, keys, figures []string
	rows := map[string][]map[string]string{} // by key, of each table
	for i, t := range tables {
		if t.Tool != tables[0].Tool {
			return fmt.Errorf("results of %s and %s do not stand beside each other", tables[0].Tool, t.Tool)
		}
		names = append(names, t.Label)
		for _, c := range t.Columns {
			if !slices.Contains(t.Keys, c) && !slices.Contains(figures, c) {
				figures = append(figures, c)
			}
		}
		for _, row := range t.Rows {
			k := t.key(row)
			if rows[k] == nil {
				keys, rows[k] = append(keys, k), make([]map[string]string, len(tables))
			}
			rows[k][i] = row
		}
	}
	out := [][]string{slices.Concat(tables[0].Keys, []string{"figure"}, names)}
	for _, k := range keys {
		for _, figure := range figures {
			line := append(strings.Split(k, "\t"), figure)
			if !slices.ContainsFunc(rows[k], func(row map[string]string) bool { return row[figure] != "" }) {
				continue
			}
			last := rows[k][len(tables)-1][figure]
			for i, row := range rows[k] {
				line = append(line, multiple(row[figure], last, i == len(tables)-1))
			}
			out = append(out, line)
		}
	}
	var b strings.Builder
	if markdown {
		markdownTable(&b, out)
	} else {
		table(&b, out)
	}
	for _, t := range tables {
		for _, n := range t.notes() {
			fmt.Fprintf(&b, "* %s: %s\n", t.Label, n)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// multiple is a figure, and how many times the last one's it is.
func multiple(figure, last string, isLast bool) string {
	if figure == "" {
		return "-"
	}
	a, err := strconv.ParseFloat(figure, 64)
	if err != nil || isLast {
		return figure
	}
	b, err := strconv.ParseFloat(last, 64)
	if err != nil || b == 0 {
		return figure
	}
	return fmt.Sprintf("%s (%.2f)", figure, a/b)
}
