package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/admin"
)

func (a *app) cacheCommand() *cobra.Command {
	return group(&cobra.Command{Use: "cache", Short: "What is in the page cache"}, a.cacheShowCommand(), a.cacheActCommand("evict"), a.cacheActCommand("warm"))
}

func (a *app) cacheShowCommand() *cobra.Command {
	cells := 64
	c := &cobra.Command{
		Use:   "show [TOPIC[/PARTITION]]",
		Short: "Residency of each partition, or of each segment of one partition, with the readers' places",
		Long: `Residency of each partition, or of each segment of one partition, with the readers' places.

The bar goes from the start of the log to its end; a full block is all in the page cache. Below it, with -o wide:
! pages that the kernel has evicted lately, w pages being written to the device, d pages not on the device yet.
▲rt is a real-time reader, ▼lag one that is behind, with the age of what it reads next.`,
		Args: args("[TOPIC[/PARTITION]]"),
		RunE: func(c *cobra.Command, args []string) error {
			if cells < 1 || cells > 512 {
				return usagef("--cells must be from 1 to 512")
			}
			q := url.Values{"cells": {strconv.Itoa(cells)}}
			if len(args) == 1 {
				topic, partition, found := strings.Cut(args[0], "/")
				q.Set("topic", topic)
				if found {
					q.Set("partition", partition)
				}
			}
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/cache", q, nil)
			if err != nil {
				return err
			}
			return a.show(body, "rows", func(wide bool) error { return a.printCache(body, wide) })
		},
	}
	c.Flags().IntVar(&cells, "cells", cells, "width of the bar")
	return c
}

func (a *app) printCache(body []byte, wide bool) error {
	answer, err := decode[admin.Cache](body)
	if err != nil {
		return err
	}
	if len(answer.Rows) == 0 {
		fmt.Fprintln(a.stdout, "no partitions yet")
		return nil
	}
	t := a.table()
	for _, r := range answer.Rows {
		if len(r.Segments) > 0 {
			addSegments(t, r, wide)
		} else {
			addPartition(t, r, wide)
		}
	}
	if err := t.print(); err != nil {
		return err
	}
	if wide {
		age := "not all looked at yet"
		if !answer.SampledAt.IsZero() {
			age = "sampled " + answer.SampledAt.Format("15:04:05")
		}
		fmt.Fprintf(a.stdout, "%s by %s\n", age, answer.Method)
	}
	return nil
}

func addPartition(t *table, r admin.CacheRow, wide bool) {
	var tiers []string
	for _, s := range r.Tiers {
		if !slices.Contains(tiers, s.Tier) {
			tiers = append(tiers, s.Tier)
		}
	}
	cells := []string{fmt.Sprintf("%s/%d", r.Topic, r.Partition), dash(strings.Join(tiers, ",")), size(r.Bytes), percent(r.ResidentBytes, r.Bytes), bar(r.Cells)}
	if wide {
		age := "not all looked at yet"
		if !r.SampledAt.IsZero() {
			age = "sampled " + r.SampledAt.Format("15:04:05")
		}
		cells = append(cells, fmt.Sprintf("offsets %d-%d", r.StartOffset, r.EndOffset), "dirty "+size(r.DirtyBytes), "writeback "+size(r.WritebackBytes),
			fmt.Sprintf("refaults %d", r.RefaultPages), age)
	}
	t.add("", append(cells, markers(r.Markers))...)
	if line := flagLine(r.Flags); wide && line != "" {
		t.add("", "", "", "", "", " "+line)
	}
}

// flagLine marks the cells that hold something to know; "" when none does.
func flagLine(flags []byte) string {
	out := make([]byte, len(flags))
	for i, f := range flags {
		switch {
		case f&admin.CellRefault != 0:
			out[i] = '!'
		case f&admin.CellWriteback != 0:
			out[i] = 'w'
		case f&admin.CellDirty != 0:
			out[i] = 'd'
		default:
			out[i] = ' '
		}
	}
	return strings.TrimRight(string(out), " ")
}

func addSegments(t *table, r admin.CacheRow, wide bool) {
	for _, s := range r.Segments {
		var here []admin.CacheMarker
		for _, m := range r.Markers {
			if slices.Contains(s.Markers, m.Reader) {
				here = append(here, m)
			}
		}
		cells := []string{fmt.Sprintf("%s/%d", r.Topic, r.Partition), s.File, s.Tier, size(s.Bytes), percent(s.ResidentBytes, s.Bytes), bar(s.Cells)}
		if wide {
			cells = append(cells, "resident "+size(s.ResidentBytes))
		}
		t.add("", append(cells, markers(here))...)
	}
}

// markers names at most this many readers per line; the rest are counted.
const maxMarkers = 6

func markers(list []admin.CacheMarker) string {
	var out []string
	for i, m := range list {
		if i == maxMarkers {
			out = append(out, fmt.Sprintf("+%d", len(list)-i))
			break
		}
		switch m.Class {
		case "realtime":
			out = append(out, "▲rt:"+m.Name)
		case "lagging", "catching_up":
			out = append(out, fmt.Sprintf("▼lag:%s(%s)", m.Name, span(m.LagSeconds)))
		default:
			out = append(out, fmt.Sprintf("■%s:%s", m.Class, m.Name))
		}
	}
	return strings.Join(out, "  ")
}

func (a *app) cacheActCommand(verb string) *cobra.Command {
	var (
		from, to int64
		last     string
		yes      bool
		reason   string
	)
	short := map[string]string{
		"evict": "Drop a partition's clean pages from the page cache, but for what real-time readers need",
		"warm":  "Read a partition into the page cache",
	}[verb]
	c := &cobra.Command{
		Use: verb + " TOPIC/PARTITION", Short: short + "; a dry run without --yes", Args: args("TOPIC/PARTITION"),
		RunE: func(c *cobra.Command, args []string) error {
			topic, partition, err := topicPartition(args[0])
			if err != nil {
				return err
			}
			dry := !yes
			in := admin.ActionBody{Topic: topic, Partition: partition, DryRun: &dry, Reason: reason}
			if c.Flags().Changed("from") {
				in.From = &from
			}
			if c.Flags().Changed("to") {
				in.To = &to
			}
			if last != "" {
				d, err := conf.ParseDuration(last)
				if err != nil || d <= 0 {
					return usagef("--last %s is not a time like 10m", last)
				}
				in.LastSeconds = d.Std().Seconds()
			}
			body, err := a.ask(c.Context(), http.MethodPost, "/api/v1/cache/"+verb, nil, in)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error { return a.printAction(body, verb) })
		},
	}
	f := c.Flags()
	f.Int64Var(&from, "from", 0, "first offset; the log start when left out")
	f.Int64Var(&to, "to", 0, "offset to stop before; the log end when left out")
	f.StringVar(&last, "last", "", "instead of --from: the records of the last 10m, 2h …")
	f.BoolVar(&yes, "yes", false, "do it; without, only say what would be done")
	f.StringVar(&reason, "reason", "", "goes into the audit line of the daemon's log")
	return c
}

func (a *app) printAction(body []byte, verb string) error {
	r, err := decode[admin.CacheActionResult](body)
	if err != nil {
		return err
	}
	for _, line := range r.WouldChange {
		fmt.Fprintln(a.stdout, clean(line))
	}
	if !r.Applied {
		kept := ""
		if r.KeptHot > 0 {
			kept = fmt.Sprintf("; %s of it kept for real-time readers", size(r.KeptHot))
		}
		fmt.Fprintf(a.stdout, "would %s %s in %d segment(s), %s of it resident now%s; repeat with --yes to do it\n", verb, size(r.Bytes), r.Segments, size(r.ResidentBefore), kept)
		return nil
	}
	fmt.Fprintf(a.stdout, "%s: %s in %d segment(s), resident %s before, %s now", verb, size(r.Bytes), r.Segments, size(r.ResidentBefore), size(r.ResidentAfter))
	if r.KeptHot > 0 {
		fmt.Fprintf(a.stdout, "; %s kept for real-time readers", size(r.KeptHot))
	}
	if r.DirtyBytes > 0 {
		fmt.Fprintf(a.stdout, "; %s not written back yet", size(r.DirtyBytes))
	}
	if r.Note != "" {
		fmt.Fprintf(a.stdout, "; %s", clean(r.Note))
	}
	fmt.Fprintln(a.stdout)
	return nil
}

// topicPartition reads T/P. Topic names have no slash.
func topicPartition(text string) (string, int32, error) {
	topic, number, found := strings.Cut(text, "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if !found || topic == "" || err != nil || n < 0 {
		return "", 0, usagef("%q is not TOPIC/PARTITION, as in orders/3", text)
	}
	return topic, int32(n), nil
}
