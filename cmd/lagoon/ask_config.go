package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) configCommand() *cobra.Command {
	return group(&cobra.Command{Use: "config", Short: "The configuration of the running daemon; lagoon check-config is about files"}, a.configReloadCommand())
}

func (a *app) configReloadCommand() *cobra.Command {
	var in admin.ConfigReloadBody
	c := &cobra.Command{
		Use: "reload", Short: "Have the daemon read its configuration again, as SIGHUP does", Args: args(),
		Long: `Have the daemon read its configuration again: the file, variables and flags that it was started with.

What can change at run time is taken, all of it or, when there is a fault anywhere, nothing: the log level, the caps of cold reads and
migrations, and the defaults of topic settings. What differs besides waits for a restart; lagoon status shows it until then.`,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodPost, "/api/v1/config/reload", nil, in)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printReload(body) })
		},
	}
	c.Flags().BoolVar(&in.DryRun, "dry-run", false, "only say what would be done")
	c.Flags().StringVar(&in.Reason, "reason", "", "for the audit line")
	return c
}

func (a *app) printReload(body []byte) error {
	r, err := decode[admin.ConfigReload](body)
	if err != nil {
		return err
	}
	line := func(what string, c admin.ConfigChange, was string) {
		fmt.Fprintf(a.stdout, "%s %s = %s (%s %s; %s)\n", what, clean(c.Key), clean(valueOrNone(c.To)), was, clean(valueOrNone(c.From)), clean(c.Source))
	}
	for _, c := range r.Changed {
		if r.Applied {
			line("changed", c, "was")
		} else {
			line("would change", c, "now")
		}
	}
	for _, c := range r.PendingRestart {
		line("needs a restart:", c, "now")
	}
	if len(r.Changed)+len(r.PendingRestart) == 0 {
		fmt.Fprintln(a.stdout, "nothing differs from what is in force")
	}
	return nil
}

// valueOrNone is a value as TOML.
func valueOrNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
