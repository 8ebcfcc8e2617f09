package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/admin"
)

func (a *app) logLevelCommand() *cobra.Command {
	var ttl, reason string
	c := &cobra.Command{
		Use: "log-level [LEVEL]", Short: "How much the daemon logs; with a LEVEL, change it for a time or until the next start", Args: args("[LEVEL]"),
		Example: "  lagoon log-level debug --ttl 10m --reason \"slow fetches\"",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if ttl != "" || reason != "" {
					return usagef("--ttl and --reason go with a LEVEL")
				}
				body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/log-level", nil, nil)
				if err != nil {
					return err
				}
				return a.show(body, "", func(bool) error { return a.printLogLevel(body) })
			}
			in := admin.LogLevelBody{Level: args[0], Reason: reason}
			if ttl != "" {
				d, err := conf.ParseDuration(ttl)
				if err != nil || d <= 0 {
					return usagef("--ttl %s is not a time like 10m", ttl)
				}
				in.TTLSeconds = d.Std().Seconds()
			}
			body, err := a.ask(c.Context(), http.MethodPut, "/api/v1/log-level", nil, in)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printLogLevel(body) })
		},
		ValidArgsFunction: cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp),
	}
	c.Flags().StringVar(&ttl, "ttl", "", "how long it holds, then the configured level does again; until the next start when left out")
	c.Flags().StringVar(&reason, "reason", "", "shown to others and in the audit line")
	return c
}

func (a *app) printLogLevel(body []byte) error {
	l, err := decode[admin.LogLevel](body)
	if err != nil {
		return err
	}
	text := "log level " + l.Level
	switch {
	case !l.Until.IsZero():
		text += " until " + l.Until.Format(time.RFC3339) + ", then " + l.Configured + " as configured"
	case l.Level == l.Configured:
		text += ", as configured"
	default:
		text += " until the next start, configured is " + l.Configured
	}
	if l.Reason != "" {
		text += ": " + clean(l.Reason)
	}
	fmt.Fprintln(a.stdout, text)
	return nil
}
