package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/admin"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "The daemon at a glance", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/status", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printStatus(body) })
		},
	}
}

func (a *app) printStatus(body []byte) error {
	s, err := decode[admin.Status](body)
	if err != nil {
		return err
	}
	var modes []string
	for _, tier := range slices.Sorted(maps.Keys(s.Kernel.ReadModes)) {
		modes = append(modes, tier+" "+s.Kernel.ReadModes[tier])
	}
	t := a.table()
	t.add("", "state", s.State)
	t.add("", "version", strings.TrimSpace(s.Version+" "+s.Commit)+", "+s.GoVersion+", pid "+fmt.Sprint(s.PID))
	t.add("", "up", span(s.UptimeSeconds)+", since "+s.StartedAt.Format(time.RFC3339))
	t.add("", "cluster", s.ClusterID+", node "+fmt.Sprint(s.NodeID))
	t.add("", "kafka", strings.Join(s.Listeners, ", ")+", clients are told "+strings.Join(s.Advertised, ", "))
	t.add("", "logs", fmt.Sprintf("%d topics, %d partitions, %s", s.Topics, s.Partitions, size(s.LogBytes)))
	t.add("", "readers", fmt.Sprintf("%d realtime, %d catching up, %d lagging, %d stalled, %d stopped",
		s.Readers.Realtime, s.Readers.CatchingUp, s.Readers.Lagging, s.Readers.Stalled, s.Readers.Stopped))
	t.add("", "cold reads", fmt.Sprintf("%s; memory %s of %s", strings.Join(modes, ", "), size(s.Pool.UsedBytes), size(s.Pool.TotalBytes)))
	t.add("", "kernel", s.Kernel.Release+", residency by "+s.Kernel.Residency)
	file := "no file"
	if s.ConfigFile != "" {
		file = s.ConfigFile
	}
	t.add("", "config", file+", digest "+s.ConfigDigest)
	if s.ConfigError != "" {
		t.add(red, "not reloaded", s.ConfigError)
	}
	if len(s.PendingRestart) > 0 {
		t.add(yellow, "needs restart", strings.Join(s.PendingRestart, ", "))
	}
	for _, c := range s.Checks {
		state, color := "ok", ""
		if !c.OK {
			state, color = c.Severity, red
			if c.Severity == "warn" {
				color = yellow
			}
		}
		t.add(color, "check "+c.Name, strings.TrimSpace(state+" "+c.Text)+progress(c.Progress))
	}
	return t.print()
}

func progress(p *admin.Progress) string {
	if p == nil {
		return ""
	}
	text := fmt.Sprintf(" (%d of %d %s", p.Done, p.Total, p.Unit)
	if p.ETASeconds > 0 {
		text += ", about " + span(p.ETASeconds) + " left"
	}
	return text + ")"
}

func (a *app) healthCommand() *cobra.Command {
	var wait string
	c := &cobra.Command{
		Use: "health", Short: "Is the daemon ready? Exit code 0 yes, 3 no", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if wait == "" {
				return a.health(c.Context(), true)
			}
			d, err := conf.ParseDuration(wait)
			if err != nil || d <= 0 {
				return usagef("--wait %s is not a time like 30s", wait)
			}
			return a.waitReady(c.Context(), d.Std())
		},
	}
	c.Flags().StringVar(&wait, "wait", "", "wait at most so long until it is ready, as in 30s")
	return c
}

// health prints the checks; not reachable and not ready are both a check that says no.
func (a *app) health(ctx context.Context, print bool) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, body, err := a.call(ctx, http.MethodGet, "/readyz", url.Values{"verbose": {""}}, nil)
	var (
		usage usageError
		local localError
	)
	if errors.As(err, &usage) || errors.As(err, &local) {
		return err
	}
	if err != nil {
		return checkError{err}
	}
	if print {
		for line := range strings.Lines(string(body)) {
			fmt.Fprintln(a.stdout, clean(strings.TrimSuffix(line, "\n")))
		}
	}
	if resp.StatusCode != http.StatusOK {
		return checkError{fmt.Errorf("%s is not ready (%s)", a.admin, resp.Status)}
	}
	return nil
}

// waitReady asks five times a second.
func (a *app) waitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.health(ctx, false)
		if err == nil {
			return a.health(context.WithoutCancel(ctx), true)
		}
		var check checkError
		if !errors.As(err, &check) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
