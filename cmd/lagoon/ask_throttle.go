package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/admin"
)

func (a *app) throttleCommand() *cobra.Command {
	return group(&cobra.Command{Use: "throttle", Short: "Budgets of cold reads and exceptions to them"},
		a.throttleListCommand(), a.throttleSetCommand(), a.throttleRemoveCommand())
}

func (a *app) throttleListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "Budgets, who uses them, and the exceptions in force", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/throttle", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "overrides", func(bool) error { return a.printThrottle(body) })
		},
	}
}

func (a *app) printThrottle(body []byte) error {
	th, err := decode[admin.Throttle](body)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "mode %s; all cold reads %s; each reader %s\n", th.Mode, limit(th.TotalBytes), limit(th.PerReaderBytes))
	devices := a.table("TIER", "LIMIT", "STATE", "USED", "GRANTED", "IN FLIGHT", "QUEUED", "WHY")
	for _, d := range th.Devices {
		devices.add("", d.Tier, limit(d.LimitBytes), dash(d.State), speed(d.UsedBytes), size(d.GrantedBytes), fmt.Sprint(d.InFlight), fmt.Sprint(d.Queued), dash(d.Reason))
	}
	flows := a.table("GROUP OR CLIENT", "WEIGHT", "RATE", "GRANTED", "WAITED", "QUEUED", "LIMITED BY")
	for _, f := range th.Flows {
		flows.add("", f.Name, fmt.Sprint(f.Weight), speed(f.RateBytes), size(f.GrantedBytes), span(f.WaitSeconds), fmt.Sprint(f.Queued), dash(f.LimitedBy))
	}
	caps := a.table("CONFIGURED", "NAME", "LIMIT", "WEIGHT")
	for _, c := range th.Caps {
		weight := "-"
		if c.Weight != 0 {
			weight = fmt.Sprint(c.Weight)
		}
		caps.add("", string(c.Kind), c.Name, limit(c.BytesPerSecond), weight)
	}
	overrides := a.table("EXCEPTION", "NAME", "LIMIT", "WEIGHT", "EXPIRES", "REASON")
	for _, o := range th.Overrides {
		expires, weight := "never", "-"
		if !o.Expires.IsZero() {
			expires = o.Expires.Format(time.RFC3339)
		}
		if o.Weight != 0 {
			weight = fmt.Sprint(o.Weight)
		}
		overrides.add("", string(o.Kind), o.Name, limit(o.BytesPerSecond), weight, expires, dash(o.Reason))
	}
	for _, t := range []*table{devices, flows, caps, overrides} {
		if len(t.rows) == 1 {
			continue
		}
		fmt.Fprintln(a.stdout)
		if err := t.print(); err != nil {
			return err
		}
	}
	return nil
}

var overrideKinds = []string{"group", "client", "topic"}

func overridePath(kind, name string) (string, error) {
	if !slices.Contains(overrideKinds, kind) {
		return "", usagef("--kind %s is not one of group, client, topic", kind)
	}
	if name == "" || name == "." || name == ".." {
		return "", usagef("%q is not a name", name)
	}
	return "/api/v1/throttle/overrides/" + kind + "/" + url.PathEscape(name), nil
}

func (a *app) throttleSetCommand() *cobra.Command {
	var (
		kind, ttl, reason string
		weight            float64
		dry               bool
	)
	c := &cobra.Command{
		Use: "set NAME RATE", Short: "Cap or weigh the cold reads of a group (or client, or topic)",
		Example: "  lagoon throttle set warehouse 20MiB/s --ttl 1h --reason \"night load\"\n  lagoon throttle set billing none --weight 4",
		Args:    args("NAME", "RATE"),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := overridePath(kind, args[0])
			if err != nil {
				return err
			}
			in := admin.OverrideBody{Weight: weight, Reason: reason, DryRun: dry}
			if args[1] != "none" {
				rate, err := conf.ParseRate(args[1])
				if err != nil {
					return usageError{err}
				}
				if rate <= 0 {
					return usagef("the rate must be more than nothing; to lift a cap use lagoon throttle rm %s", args[0])
				}
				in.BytesPerSecond = int64(rate)
			} else if weight == 0 {
				return usagef("without a rate give --weight")
			}
			if ttl != "" {
				d, err := conf.ParseDuration(ttl)
				if err != nil || d <= 0 {
					return usagef("--ttl %s is not a time like 1h", ttl)
				}
				in.TTLSeconds = d.Std().Seconds()
			}
			body, err := a.ask(c.Context(), http.MethodPut, path, nil, in)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printOverride(body) })
		},
	}
	f := c.Flags()
	f.StringVar(&kind, "kind", "group", "what NAME is: group, client or topic")
	f.StringVar(&ttl, "ttl", "", "how long it holds; for ever when left out")
	f.Float64Var(&weight, "weight", 0, "share against others, 1 is the standard")
	f.StringVar(&reason, "reason", "", "shown to others and in the audit line")
	f.BoolVar(&dry, "dry-run", false, "only say what would be done")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(overrideKinds, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) printOverride(body []byte) error {
	r, err := decode[admin.OverrideResult](body)
	if err != nil {
		return err
	}
	verb := "set"
	if !r.Applied {
		verb = "would set"
	}
	text := fmt.Sprintf("%s %s %s: limit %s", verb, r.Override.Kind, clean(r.Override.Name), limit(r.Override.BytesPerSecond))
	if r.Override.Weight != 0 {
		text += fmt.Sprintf(", weight %g", r.Override.Weight)
	}
	if !r.Override.Expires.IsZero() {
		text += ", until " + r.Override.Expires.Format(time.RFC3339)
	}
	fmt.Fprintln(a.stdout, text)
	return nil
}

func (a *app) throttleRemoveCommand() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "rm NAME", Short: "Remove an exception", Args: args("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := overridePath(kind, args[0])
			if err != nil {
				return err
			}
			body, err := a.ask(c.Context(), http.MethodDelete, path, nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error {
				fmt.Fprintf(a.stdout, "removed %s %s\n", kind, clean(args[0]))
				return nil
			})
		},
	}
	c.Flags().StringVar(&kind, "kind", "group", "what NAME is: group, client or topic")
	return c
}
