package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"lagoon/admission"
	"lagoon/internal/admin"
)

// demoView is what the broker says about the demo's readers and pages.
type demoView struct {
	at              time.Time
	read            int64 // bytes of history at that time
	rate            float64
	backfill        *admin.Reader // the one furthest behind, while there is one
	seenLanes       map[string]bool
	granted         int64 // cold bytes of all devices since the start; only the backfill reads any
	tailDevice      int64 // bytes since its clients began
	tailBefore      int64 // of them, before the phases that count
	tailWorst       float64
	rows            map[string]admin.CacheRow // by topic: the first partition
	historyResident int64
	historyBytes    int64
	budget          string // of the device that the backfill reads, with the reason
	fault           string
}

// tailCold is what the tail took from the device. Its first moments do not count, as nowhere else: until the broker knows that there is
// a real-time reader it lets the kernel have the pages.
func (v *demoView) tailCold() int64 { return max(0, v.tailDevice-v.tailBefore) }

func (v *demoView) lanes() []string { return slices.Sorted(maps.Keys(v.seenLanes)) }

// demoLane is the lane by which a reader got what it has; "" before it has anything. A reader that waits for its budget most of the
// time is seen in defer, which is waiting and not reading, whenever somebody looks.
func demoLane(r *admin.Reader) string {
	if r.Lane != "defer" {
		return r.Lane
	}
	var device int64
	for _, n := range r.Sources.Tiers {
		device += n
	}
	switch {
	case device > r.Sources.Refill:
		return "bypass"
	case device > 0:
		return "fill"
	}
	return ""
}

// ask looks at the broker as any other client of its admin API.
func (v *demoView) ask(ctx context.Context, d *demo) {
	var list admin.ReaderList
	if body, err := d.app.ask(ctx, http.MethodGet, "/api/v1/readers", nil, nil); err != nil || json.Unmarshal(body, &list) != nil {
		v.fault = "the admin API does not answer"
		return
	}
	v.fault = ""
	if v.seenLanes == nil {
		v.seenLanes = map[string]bool{}
	}
	v.backfill, v.tailDevice, v.tailWorst = nil, 0, 0
	for _, r := range list.Readers {
		switch r.Topic {
		case demoHistory:
			if r.Class == "stopped" || d.phase.Load() != demoDuring {
				continue
			}
			if v.backfill == nil || r.LagBytes > v.backfill.LagBytes {
				v.backfill = &r
			}
			if lane := demoLane(&r); lane != "" && r.Class != "realtime" {
				v.seenLanes[lane+" by "+r.IOMode] = true
			}
		case demoLive:
			v.tailDevice += r.ColdBytes
			v.tailWorst = max(v.tailWorst, r.LagSeconds)
		}
	}
	var th admin.Throttle
	if body, err := d.app.ask(ctx, http.MethodGet, "/api/v1/throttle", nil, nil); err == nil && json.Unmarshal(body, &th) == nil {
		v.budget, v.granted = "", 0
		for _, dev := range th.Devices {
			v.granted += dev.GrantedBytes
			if v.backfill != nil && dev.Tier == v.backfill.Tier && dev.LimitBytes > 0 {
				v.budget = strings.TrimSuffix(limit(dev.LimitBytes)+": "+dev.Reason, ": ")
			}
		}
	}
	now, read := time.Now(), d.read.Load()
	if !v.at.IsZero() {
		v.rate = float64(read-v.read) / now.Sub(v.at).Seconds()
	}
	v.at, v.read = now, read
	v.resident(ctx, d)
}

// resident looks at the pages of both topics.
func (v *demoView) resident(ctx context.Context, d *demo) {
	if v.rows == nil {
		v.rows = map[string]admin.CacheRow{}
	}
	for _, topic := range []string{demoHistory, demoLive} {
		var c admin.Cache
		body, err := d.app.ask(ctx, http.MethodGet, "/api/v1/cache", url.Values{"topic": {topic}, "cells": {"50"}}, nil)
		if err != nil || json.Unmarshal(body, &c) != nil || len(c.Rows) == 0 {
			continue
		}
		v.rows[topic] = c.Rows[0]
		if topic == demoHistory {
			v.historyResident, v.historyBytes = 0, 0
			for _, r := range c.Rows {
				v.historyResident += r.ResidentBytes
				v.historyBytes += r.Bytes
			}
		}
	}
}

// watch draws frames until the time is over. A client's fault ends it.
func (d *demo) watch(ctx context.Context, until time.Time) error {
	tick := time.NewTicker(demoFrame)
	defer tick.Stop()
	for n := 0; ; n++ {
		d.shown.ask(ctx, d)
		d.mu.Lock()
		lately := d.lately
		if n%4 == 3 { // two seconds
			d.lately = admission.Latencies{}
		}
		d.mu.Unlock()
		switch {
		case d.terminal:
			d.draw(d.frame(quantile(&lately, 0.99)))
		case n == 0 && d.phase.Load() != demoFilling:
			d.say("%s", d.doing())
		}
		if !time.Now().Before(until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.faults:
			return err
		case <-tick.C:
		}
	}
}

// doing is the phase in words.
func (d *demo) doing() string {
	switch d.phase.Load() {
	case demoBefore:
		return fmt.Sprintf("a producer writes %d records a second, a consumer reads them at once", demoRate)
	case demoDuring:
		return fmt.Sprintf("a backfill replays %s from the beginning as fast as it can", size(d.written.Load()))
	case demoAfter:
		return "the backfill has ended"
	}
	return "the clients connect"
}

// frame draws the state of things.
func (d *demo) frame(lately float64) []string {
	v := &d.shown
	elapsed := time.Since(d.started)
	before, during := d.phaseFigures(demoBefore), d.phaseFigures(demoDuring)
	lines := []string{
		fmt.Sprintf("Lagoon: a backfill beside a real-time consumer   %s of %s", span(elapsed.Truncate(time.Second).Seconds()), span(d.opt.length.Seconds())),
		"now: " + d.doing(),
		"",
		fmt.Sprintf("%-26s %12s %12s", "", "before", "with backfill"),
		fmt.Sprintf("%-26s %12s %12s", "producer: ack p99", milliseconds(before.AckP99), milliseconds(during.AckP99)),
		fmt.Sprintf("%-26s %12s %12s", "tail: latency p50", milliseconds(before.TailP50), milliseconds(during.TailP50)),
		fmt.Sprintf("%-26s %12s %12s   now %s", "tail: latency p99", milliseconds(before.TailP99), milliseconds(during.TailP99), milliseconds(lately)),
		fmt.Sprintf("%-26s %12s", "tail: read from a device", size(v.tailCold())),
		"",
	}
	backfill := "backfill   not yet"
	if d.phase.Load() == demoAfter {
		backfill = fmt.Sprintf("backfill   got %s; it has ended", size(d.read.Load()))
	}
	if r := v.backfill; r != nil && d.phase.Load() == demoDuring {
		backfill = fmt.Sprintf("backfill   %.0f MB/s, %s so far; %s, lane %s", v.rate/1e6, size(d.read.Load()), r.Class, dash(strings.Join(v.lanes(), ", ")))
	}
	lines = append(lines, backfill)
	if v.budget != "" && d.phase.Load() == demoDuring {
		lines = append(lines, "budget     "+v.budget)
	}
	lines = append(lines, fmt.Sprintf("           %s of the %s of old data are in the page cache", size(v.historyResident), size(v.historyBytes)), "")
	for _, topic := range []string{demoHistory, demoLive} {
		if r, ok := v.rows[topic]; ok {
			lines = append(lines, fmt.Sprintf("%-10s %s %4s resident", topic+"/0", bar(r.Cells), percent(r.ResidentBytes, r.Bytes)))
		}
	}
	lines = append(lines, "", "look at it yourself: "+d.url+" in a browser, or in another terminal:", "  export LAGOON_ADMIN="+d.url, "  lagoon top", "  lagoon cache show", "  lagoon explain fetch history/0@0 --client backfill",
		"  kcat -C -t live -o end -b "+d.kafka, "Ctrl-C ends it; nothing is left behind")
	if v.fault != "" {
		lines = append(lines, v.fault)
	}
	return lines
}

// draw puts a frame where the last one was.
func (d *demo) draw(lines []string) {
	width, height := 80, 24
	if f, ok := d.app.stdout.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 1 {
			width, height = w, h
		}
	}
	var out strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", d.drawn)
	}
	lines = lines[:min(len(lines), height-1)]
	for _, l := range lines {
		out.WriteString(cut(clean(l), width) + "\x1b[K\n")
	}
	out.WriteString("\x1b[J")
	d.drawn = len(lines)
	fmt.Fprint(d.app.stdout, out.String())
}

// milliseconds prints a latency.
func milliseconds(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", 1000*seconds)
}

// printDemo is the end of the story.
func (a *app) printDemo(s demoSummary) error {
	fmt.Fprintln(a.stdout)
	if !s.Complete {
		fmt.Fprintf(a.stdout, "stopped after %s, so this is not all of it\n", span(s.Seconds))
	}
	t := a.table("REAL-TIME PATH", "BEFORE", "WITH BACKFILL", "AFTER")
	row := func(name string, pick func(demoPhase) float64) {
		t.add("", name, milliseconds(pick(s.Before)), milliseconds(pick(s.During)), milliseconds(pick(s.After)))
	}
	row("ack p50", func(p demoPhase) float64 { return p.AckP50 })
	row("ack p99", func(p demoPhase) float64 { return p.AckP99 })
	row("tail p50", func(p demoPhase) float64 { return p.TailP50 })
	row("tail p99", func(p demoPhase) float64 { return p.TailP99 })
	if err := t.print(); err != nil {
		return err
	}
	if s.BackfillBytes > 0 {
		fmt.Fprintf(a.stdout, "The backfill got %s at %.0f MB/s (lane %s), %s of them from the device.\n", size(s.BackfillBytes), s.BackfillRate/1e6,
			dash(strings.Join(s.Lanes, ", ")), size(s.ColdBytes))
		fmt.Fprintf(a.stdout, "It left %s in the page cache: %s of the old data. The tail read %s from a device.\n", size(s.LeftBytes), percent1(s.LeftBytes, s.HistoryBytes), size(s.LiveDevice))
	}
	fmt.Fprintln(a.stdout, "Next: lagoon dev keeps a broker running on localhost:9092; README.md says how to point real clients at it.")
	return nil
}

func percent1(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
