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
		Short: "Puts results of isolation side by side",
		Long: `Puts results of isolation (--json) side by side: every phase and figure that any of them has, "-" where one was not measured.
Latencies move from machine to machine: compare what was measured on one machine in one session.`,
		Example: "  lagoon-bench compare lagoon.json kafka.json --markdown --html both.html",
		Args:    cobra.ArbitraryArgs,
	}
	c.Flags().BoolVar(&markdown, "markdown", false, "Markdown tables")
	c.Flags().StringVar(&html, "html", "", "file for one page with all of them in the same charts")
	c.RunE = func(_ *cobra.Command, names []string) error {
		if len(names) == 0 {
			return usagef("compare needs one or more files that isolation --json wrote")
		}
		var runs []*report.Isolation
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			r, err := report.ParseIsolation(text)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			runs = append(runs, r)
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
