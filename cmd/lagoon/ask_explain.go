package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) explainCommand() *cobra.Command {
	var client, groupName string
	fetch := &cobra.Command{
		Use: "fetch TOPIC/PARTITION@OFFSET", Short: "How a read from there would be served now, and why", Args: args("TOPIC/PARTITION@OFFSET"),
		RunE: func(c *cobra.Command, args []string) error {
			topic, partition, n, err := topicPartitionOffset(args[0])
			if err != nil {
				return err
			}
			in := admin.ExplainQuery{Topic: topic, Partition: partition, Offset: n, Client: client, Group: groupName}
			body, err := a.ask(c.Context(), http.MethodPost, "/api/v1/explain/fetch", nil, in)
			if err != nil {
				return err
			}
			return a.show(body, "steps", func(wide bool) error { return a.printExplanation(body, wide) })
		},
	}
	fetch.Flags().StringVar(&client, "client", "", "as this client id; a reader that nobody knows when left out")
	fetch.Flags().StringVar(&groupName, "group", "", "as this group")
	return group(&cobra.Command{Use: "explain", Short: "Why a read is served as it is"}, fetch)
}

func (a *app) printExplanation(body []byte, wide bool) error {
	e, err := decode[admin.Explanation](body)
	if err != nil {
		return err
	}
	t := a.table()
	for _, s := range e.Steps {
		cells := []string{s.Step, s.Text}
		if wide {
			cells = append(cells, facts(s.Facts))
		}
		t.add("", cells...)
	}
	if e.Lane != "" {
		t.add(bold, "outcome", e.Lane+", "+e.IOMode)
	}
	return t.print()
}

func facts(f map[string]any) string {
	var out []string
	for _, k := range sortedKeys(f) {
		v := f[k]
		if n, ok := v.(float64); ok {
			v = strconv.FormatFloat(n, 'f', -1, 64)
		}
		out = append(out, fmt.Sprintf("%s=%v", k, v))
	}
	return strings.Join(out, " ")
}

// topicPartitionOffset reads T/P@O.
func topicPartitionOffset(text string) (topic string, partition int32, offset int64, err error) {
	place, number, found := strings.Cut(text, "@")
	offset, err = strconv.ParseInt(number, 10, 64)
	if !found || err != nil || offset < 0 {
		return "", 0, 0, usagef("%q is not TOPIC/PARTITION@OFFSET, as in orders/3@41200000", text)
	}
	topic, partition, err = topicPartition(place)
	return topic, partition, offset, err
}
