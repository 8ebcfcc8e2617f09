package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) readersCommand() *cobra.Command {
	var (
		lagging            bool
		sort, topic, group string
	)
	c := &cobra.Command{
		Use: "readers", Short: "Who reads what, how far behind, how each is served and what holds it back", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := a.listQuery(sort)
			if lagging {
				q.Set("class", "lagging,catching_up,stalled")
			}
			if topic != "" {
				q.Set("topic", topic)
			}
			if group != "" {
				q.Set("group", group)
			}
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/readers", q, nil)
			if err != nil {
				return err
			}
			a.leftOut(body, "readers")
			return a.show(body, "readers", func(wide bool) error { return a.printReaders(body, wide) })
		},
	}
	f := c.Flags()
	f.BoolVar(&lagging, "lagging", false, "only those behind: lagging, catching up, stalled")
	f.StringVar(&sort, "sort", "-lag_bytes", "lag_bytes, lag_records, lag_seconds, cold_bytes, rate, group or topic; - in front for largest first")
	f.StringVar(&topic, "topic", "", "only this topic")
	f.StringVar(&group, "group", "", "only this group")
	return c
}

func (a *app) printReaders(body []byte, wide bool) error {
	answer, err := decode[admin.ReaderList](body)
	if err != nil {
		return err
	}
	if answer.Total == 0 {
		fmt.Fprintln(a.stdout, "no readers")
		return nil
	}
	header := []string{"READER", "TOPIC", "CLASS", "LAG", "BYTES", "AGE", "ETA", "LANE", "TIER", "RATE", "LIMITED BY"}
	if wide {
		header = append(header, "WAIT", "CLIENT", "PEER", "SOURCES 1M", "WHY")
	}
	t := a.table(header...)
	for _, r := range answer.Readers {
		cells := []string{
			cmp.Or(r.Group, r.ClientID, r.ID), fmt.Sprintf("%s/%d", r.Topic, r.Partition), r.Class, fmt.Sprint(r.LagRecords), size(r.LagBytes), span(r.LagSeconds),
			eta(r), dash(r.Lane), dash(r.Tier), speed(r.RateBytes), dash(r.Throttle.LimitedBy),
		}
		if wide {
			cells = append(cells, fmt.Sprintf("%.0f%%", 100*r.Throttle.WaitRatio), dash(r.ClientID), r.Peer, sources(r.Sources), r.ClassReason)
		}
		t.add(classColor(r.Class), cells...)
	}
	if err := t.print(); err != nil {
		return err
	}
	a.printRaces(answer.Readers)
	if left := answer.Total - len(answer.Readers); left > 0 {
		fmt.Fprintf(a.stdout, "and %d more\n", left)
	}
	return nil
}

// printRaces says once per group and topic what retention is about to take.
func (a *app) printRaces(readers []admin.Reader) {
	for _, r := range racing(readers) {
		fmt.Fprintf(a.stdout, "retention: %s %s\n", clean(cmp.Or(r.Group, r.ClientID, r.ID)), clean(r.Retention.Text))
	}
}

// racing is one reader of each group or client and topic that retention is about to overtake.
func racing(readers []admin.Reader) (out []admin.Reader) {
	seen := map[[3]string]bool{}
	for _, r := range readers {
		k := [3]string{r.Group, r.ClientID, r.Topic}
		if r.Group != "" {
			k[1] = ""
		}
		if r.Retention != nil && !seen[k] {
			seen[k] = true
			out = append(out, r)
		}
	}
	return out
}

func eta(r admin.Reader) string {
	if r.Class == "realtime" || r.ETASeconds < 0 {
		return "-"
	}
	return span(r.ETASeconds)
}

func sources(s admin.SourceBytes) string {
	var out []string
	if s.PageCache > 0 {
		out = append(out, "cache "+size(s.PageCache))
	}
	for _, tier := range slices.Sorted(maps.Keys(s.Tiers)) {
		if n := s.Tiers[tier]; n > 0 {
			out = append(out, tier+" "+size(n))
		}
	}
	return dash(strings.Join(out, ", "))
}
