package report

import (
	"io"
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
	for _, n := range t.Notes {
		b.WriteString("note: " + n + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
