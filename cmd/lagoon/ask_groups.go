package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) groupsCommand() *cobra.Command {
	var sort, topic, state string
	c := &cobra.Command{
		Use: "groups [GROUP]", Short: "Consumer groups and how far behind their committed offsets are; one group by partition", Args: args("[GROUP]"),
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 1 {
				body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/groups/"+url.PathEscape(given[0]), nil, nil)
				if err != nil {
					return err
				}
				return a.show(body, "partitions", func(bool) error { return a.printGroup(body) })
			}
			q := a.listQuery(sort)
			if topic != "" {
				q.Set("topic", topic)
			}
			if state != "" {
				q.Set("state", state)
			}
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/groups", q, nil)
			if err != nil {
				return err
			}
			a.leftOut(body, "groups")
			return a.show(body, "groups", func(bool) error { return a.printGroups(body) })
		},
	}
	f := c.Flags()
	f.StringVar(&sort, "sort", "-lag_bytes", "group, lag_records, lag_bytes or lag_seconds; - in front for largest first")
	f.StringVar(&topic, "topic", "", "only groups that read this topic")
	f.StringVar(&state, "state", "", "only groups in this state, as Stable or Empty")
	return c
}

func (a *app) printGroups(body []byte) error {
	answer, err := decode[admin.GroupList](body)
	if err != nil {
		return err
	}
	if answer.Total == 0 {
		fmt.Fprintln(a.stdout, "no groups")
		return nil
	}
	t := a.table("GROUP", "TYPE", "STATE", "MEMBERS", "PARTITIONS", "LAG", "BYTES", "AGE", "ETA")
	for _, g := range answer.Groups {
		t.add("", clean(g.Group), g.Type, g.State, fmt.Sprint(g.Members), fmt.Sprint(len(g.Partitions)), fmt.Sprint(g.LagRecords), size(g.LagBytes),
			known(g.LagSeconds), known(g.ETASeconds))
	}
	if err := t.print(); err != nil {
		return err
	}
	if left := answer.Total - len(answer.Groups); left > 0 {
		fmt.Fprintf(a.stdout, "and %d more\n", left)
	}
	return nil
}

func (a *app) printGroup(body []byte) error {
	g, err := decode[admin.Group](body)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s: %s, %s, %d members, %d records behind (%s)\n", clean(g.Group), g.Type, g.State, g.Members, g.LagRecords, size(g.LagBytes))
	t := a.table("TOPIC", "COMMITTED", "END", "LAG", "BYTES", "AGE", "ETA", "CLIENT", "HOST")
	count := func(n int64) string {
		if n < 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	for _, p := range g.Partitions {
		bytes := "-"
		if p.LagBytes >= 0 {
			bytes = size(p.LagBytes)
		}
		t.add("", fmt.Sprintf("%s/%d", p.Topic, p.Partition), count(p.CommittedOffset), count(p.EndOffset), count(p.LagRecords), bytes, known(p.LagSeconds), known(p.ETASeconds),
			dash(clean(p.ClientID)), dash(p.Host))
	}
	return t.print()
}

// known is a time, "-" when it is negative.
func known(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	return span(seconds)
}
