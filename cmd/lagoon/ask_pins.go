package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) pinsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pins", Short: "Partitions that are pinned to a log directory (kafka-reassign-partitions with log_dirs), and how far they are", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/pins", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "pins", func(bool) error { return a.printPins(body) })
		},
	}
}

func (a *app) printPins(body []byte) error {
	answer, err := decode[admin.PinList](body)
	if err != nil {
		return err
	}
	if len(answer.Pins) == 0 {
		fmt.Fprintln(a.stdout, "no partition is pinned: policy decides where segments lie")
		return nil
	}
	t := a.table("PARTITION", "DIR", "STATE", "TO MOVE", "SEGMENTS", "PATH", "REASON")
	for _, p := range answer.Pins {
		t.add(classColor(p.State), fmt.Sprintf("%s/%d", p.Topic, p.Partition), p.Dir, p.State, size(p.Bytes), fmt.Sprint(p.Segments), dash(p.Path), clean(p.Reason))
	}
	return t.print()
}

func (a *app) unpinCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unpin TOPIC/PARTITION", Short: "Take a partition's pin off and tell where the policy puts its segments", Args: args("TOPIC/PARTITION"),
		RunE: func(c *cobra.Command, args []string) error {
			topic, partition, err := topicPartition(args[0])
			if err != nil {
				return err
			}
			body, err := a.ask(c.Context(), http.MethodDelete, fmt.Sprintf("/api/v1/pins/%s/%d", url.PathEscape(topic), partition), nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printUnpinned(body) })
		},
	}
}

func (a *app) printUnpinned(body []byte) error {
	u, err := decode[admin.Unpinned](body)
	if err != nil {
		return err
	}
	var places []string
	for _, tier := range slices.Sorted(maps.Keys(u.PolicyBytes)) {
		places = append(places, size(u.PolicyBytes[tier])+" in "+tier)
	}
	text := fmt.Sprintf("unpinned %s/%d from %s", u.Pin.Topic, u.Pin.Partition, clean(u.Pin.Dir))
	if len(places) > 0 {
		text += "; by policy its sealed segments lie as " + strings.Join(places, ", ")
	}
	fmt.Fprintln(a.stdout, text)
	return nil
}
