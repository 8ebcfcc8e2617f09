package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"lagoon/internal/bench/report"
)

func (a *app) compareCommand() *cobra.Command {
	var (
		markdown bool
		html     string
	)
	c := &cobra.Command{
		Use:   "compare FILE...",
		Short: "Puts results of isolation or throughput side by side",
		Long: `Puts results of isolation, or of throughput or partitions, (--json) side by side: every phase and figure that any of them has, "-" where
one was not measured. Latencies move from machine to machine: compare what was measured on one machine in one session.`,
		Example: "  lagoon-bench compare lagoon.json kafka.json --markdown --html both.html",
		Args:    cobra.ArbitraryArgs,
	}
	c.Flags().BoolVar(&markdown, "markdown", false, "Markdown tables")
	c.Flags().StringVar(&html, "html", "", "file for one page with all of them in the same charts")
	c.RunE = func(_ *cobra.Command, names []string) error {
		if len(names) == 0 {
			return usagef("compare needs one or more files that isolation --json wrote")
		}
		runs, tables, err := readResults(names)
		if err != nil {
			return err
		}
		if len(tables) > 0 {
			if html != "" {
				return usagef("--html is for results of isolation")
			}
			return report.CompareTables(a.stdout, markdown, tables...)
		}
		if html != "" {
			if err := writeHTML(html, runs...); err != nil {
				return err
			}
		}
		return report.Compare(a.stdout, markdown, runs...)
	}
	return c
}

// readResults reads files of one kind: runs of isolation, or tables.
func readResults(names []string) (runs []*report.Isolation, tables []*report.Table, err error) {
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		r, notRun := report.ParseIsolation(text)
		if notRun == nil {
			runs = append(runs, r)
			continue
		}
		t, err := report.ParseTable(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w; and %w", name, notRun, err)
		}
		tables = append(tables, t)
	}
	if len(runs) > 0 && len(tables) > 0 {
		return nil, nil, usagef("results of isolation and of other commands do not stand beside each other")
	}
	return runs, tables, nil
}
