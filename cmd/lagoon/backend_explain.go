package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/admin"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// explained is everything that is known about one read, from which the chain is told.
type explained struct {
	partition.Explanation
	query    admin.ExplainQuery
	err      error // why it cannot be read
	tier     tier
	dir      partition.DirView
	ladder   cachectl.Ladder
	rule     admission.Config
	mode     string // throttle.mode
	chunk    int64  // bytes of one cold read
	pool     cachectl.PoolStats
	flow     admission.Subject
	override bool // an operator's exception is in force for the flow
}

// ExplainFetch walks the decision for one read.
func (b *backend) ExplainFetch(_ context.Context, q admin.ExplainQuery) (admin.Explanation, error) {
	l, err := b.log(q.Topic, q.Partition)
	if err != nil {
		return admin.Explanation{}, err
	}
	if q.MaxBytes <= 0 {
		q.MaxBytes = 1 << 20
	}
	key := admission.ReaderKey{Group: q.Group, Client: q.Client, Topic: q.Topic, Partition: q.Partition}
	cfg := b.config.inForce.Load()
	x := explained{query: q, rule: readersConfig(cfg), mode: cfg.Throttle.Mode, chunk: int64(cfg.Readers.ChunkBytes), pool: b.pool.Stats(), flow: key.Flow()}
	x.Explanation, x.err = l.Explain(key, segment.Offset(q.Offset), q.MaxBytes)
	for _, d := range b.store.Dirs() {
		if d.Name == x.Device {
			x.dir, x.tier = d, b.tiers[d.Name]
		}
	}
	for _, la := range b.cache.Ladders() {
		if la.Device == x.tier.device {
			x.ladder = la
		}
	}
	for _, o := range b.store.Limits().Overrides {
		x.override = x.override || o.Subject() == x.flow
	}
	out := x.chain()
	out.Now = time.Now()
	return out, nil
}

// chain tells the decision link by link: position, segment, tier, residency, class, lane, method, budget, cost.
func (x explained) chain() admin.Explanation {
	out := admin.Explanation{Query: x.query}
	step := func(name, text string, facts map[string]any) {
		out.Steps = append(out.Steps, admin.ExplainStep{Step: name, Text: text, Facts: facts})
	}
	position := fmt.Sprintf("offset %d; the log starts at %d, is readable to %d and ends at %d", x.query.Offset, x.Offsets.LogStart, x.Offsets.HighWatermark, x.Offsets.End)
	facts := map[string]any{"offset": x.query.Offset, "start_offset": x.Offsets.LogStart, "high_watermark": x.Offsets.HighWatermark, "end_offset": x.Offsets.End}
	if x.Pos >= 0 {
		position += fmt.Sprintf("; %s behind the end", admission.Bytes(x.Behind))
		facts["behind_bytes"], facts["behind_records"] = x.Behind, int64(x.Offsets.End)-x.query.Offset
	}
	step("position", position, facts)
	if x.err != nil {
		out.Reason = x.err.Error()
		step("answer", "the read fails: "+x.err.Error(), nil)
		return out
	}
	if x.Pos < 0 {
		out.Reason = "at_end"
		step("answer", "nothing to read yet: the fetch waits for the next record, which will be resident", nil)
		return out
	}
	out.Lane, out.Reason, out.Bytes, out.WaitSec = x.Decision.Lane.String(), string(x.Decision.Reason), x.Bytes, x.Limit.Wait.Seconds()
	x.place(step)
	x.class(step)
	step("lane", x.Why, map[string]any{"lane": out.Lane, "reason": out.Reason})
	out.IOMode = x.method(step)
	if x.Decision.Lane != admission.Hot {
		x.budget(step)
	}
	out.Expect = x.cost()
	step("cost", out.Expect, map[string]any{"bytes": x.Bytes, "wait_seconds": out.WaitSec})
	return out
}

type stepFunc = func(name, text string, facts map[string]any)

func (x explained) place(step stepFunc) {
	kind := "sealed"
	if !x.Segment.Sealed {
		kind = "active"
	}
	step("segment", fmt.Sprintf("%s, %s, base offset %d, byte %d of %s", x.Segment.File, kind, x.Segment.Base, x.Pos, admission.Bytes(x.Segment.SizeBytes)),
		map[string]any{"file": x.Segment.File, "sealed": x.Segment.Sealed, "base_offset": x.Segment.Base, "position_bytes": x.Pos,
			"segment_bytes": x.Segment.SizeBytes, "read_bytes": x.Bytes})
	v := x.dir.Device
	step("tier", fmt.Sprintf("%s (%s) at %s; cold reads: %d of %d at most running, %d waiting", x.Segment.Tier, x.tier.class, x.dir.Path, v.InFlight, v.MaxInFlight, v.Queued),
		map[string]any{"tier": x.Segment.Tier, "class": x.tier.class, "path": x.dir.Path, "reads_running": v.InFlight, "reads_at_most": v.MaxInFlight, "reads_waiting": v.Queued})
	ratio := 0.0
	if x.Resident.Pages > 0 {
		ratio = float64(x.Resident.Resident) / float64(x.Resident.Pages)
	}
	text := fmt.Sprintf("%d of %d pages (%.0f %%) in the page cache, by %s", x.Resident.Resident, x.Resident.Pages, 100*ratio, x.Resident.Method)
	if x.Resident.RecentlyEvicted > 0 {
		text += fmt.Sprintf("; %d more were there until lately", x.Resident.RecentlyEvicted)
	}
	step("residency", text, map[string]any{"pages": x.Resident.Pages, "resident_pages": x.Resident.Resident, "resident_ratio": ratio,
		"dirty_pages": x.Resident.Dirty, "writeback_pages": x.Resident.Writeback, "recently_evicted_pages": x.Resident.RecentlyEvicted})
}

func (x explained) class(step stepFunc) {
	who := "a reader that nobody knows"
	if x.Known {
		who = "reader r-" + itoa(int64(x.Reader.ID))
	}
	text := fmt.Sprintf("%s is %s: %s", who, x.Reader.Class.State, x.Reader.Class.Text)
	step("class", text, map[string]any{"known": x.Known, "state": x.Reader.Class.State.String(), "rule": string(x.Reader.Class.Reason),
		"behind_bytes": x.Reader.LagBytes, "behind_seconds": seconds(x.Reader.LagAge),
		"threshold_bytes": x.rule.MinBytes, "threshold_seconds": x.rule.MinAge.Seconds()})
}

// method tells how the bytes will travel, and for a device read why not by a rung further up the ladder.
func (x explained) method(step stepFunc) string {
	switch x.Decision.Lane {
	case admission.Hot:
		step("method", "from the page cache to the socket without a copy (small answers are copied)", map[string]any{"method": "sendfile"})
		return "sendfile"
	case admission.Fill:
		step("method", "buffered, so that the range becomes resident for the real-time readers that follow", map[string]any{"method": "buffered"})
		return "buffered"
	}
	var rungs []string
	for _, r := range x.ladder.Rungs {
		if r.Method == x.Method {
			break
		}
		why := r.Why
		if r.Usable {
			why = "needs a sealed segment"
		}
		rungs = append(rungs, fmt.Sprintf("not %s: %s", r.Method, why))
	}
	text := fmt.Sprintf("%s, the first rung of the ladder that works here", x.Method)
	if len(rungs) > 0 {
		text += " (" + strings.Join(rungs, "; ") + ")"
	}
	step("method", text, map[string]any{"method": string(x.Method), "chunk_bytes": x.chunk, "chunk_memory_bytes": x.pool.CapacityBytes, "chunk_memory_used_bytes": x.pool.InUseBytes})
	return string(x.Method)
}

func (x explained) budget(step stepFunc) {
	step("convoy", x.Convoy.String(), map[string]any{"members": x.Convoy.Members, "role": x.Convoy.Role, "left": string(x.Convoy.Left)})
	v := x.dir.Device
	device := "the device has no rate limit (throttle.mode " + x.mode + ")"
	if v.BytesPerSecond > 0 {
		device = fmt.Sprintf("the device may read %s/s for readers that are behind, %s left now", admission.Bytes(v.BytesPerSecond), admission.Bytes(v.TokensBytes))
	}
	share := fmt.Sprintf("%s reads nothing cold here now", x.flow)
	for _, f := range v.Flows {
		if f.Flow == x.flow && f.Kind == admission.KindRead {
			share = fmt.Sprintf("%s had %s/s in the last minute", x.flow, admission.Bytes(f.BytesPerSecond))
		}
	}
	limit := "nothing holds it back"
	if x.Limit.By != admission.LimitNone {
		limit = "held back by " + strings.TrimSpace(x.Limit.Describe())
	}
	step("budget", limit+"; "+device+"; "+share, map[string]any{"limited_by": x.Limit.String(), "limit_bytes_per_second": x.Limit.BytesPerSecond,
		"wait_seconds": x.Limit.Wait.Seconds(), "device_bytes_per_second": v.BytesPerSecond, "device_tokens_bytes": v.TokensBytes,
		"flow": x.flow.String(), "weight": float64(x.Weight) / admission.DefaultWeight, "override": x.override, "mode": x.mode})
	if c := x.Control; c != nil {
		rate := "unlimited"
		if n := c.Budget.BytesPerSecond; n > 0 {
			rate = admission.Bytes(n) + "/s"
		}
		step("control", fmt.Sprintf("adaptive budget of %s %s, %s: %s", x.Device, rate, c.Budget.State, c.Reason),
			map[string]any{"limit_bytes_per_second": c.Budget.BytesPerSecond, "state": c.Budget.State.String(), "signals": signals(c)})
	}
}

func (x explained) cost() string {
	switch x.Decision.Lane {
	case admission.Hot:
		return "no device read"
	case admission.Fill:
		return fmt.Sprintf("one buffered read of %s on %s, on a goroutine of its own; the other partitions of the fetch are answered at once", admission.Bytes(x.Bytes), x.Device)
	}
	read := fmt.Sprintf("one read of up to %s on %s, read ahead for the fetches that follow; no page stays", admission.Bytes(x.chunk), x.Device)
	switch rate := x.dir.Device.BytesPerSecond; {
	case x.Decision.Lane == admission.Defer && x.Limit.Wait > 0:
		return fmt.Sprintf("a wait of %s, while the other partitions are answered; then %s", x.Limit.Wait.Round(time.Millisecond), read)
	case x.Decision.Lane == admission.Defer:
		return "a wait, while the other partitions are answered; then " + read
	case rate > 0:
		return fmt.Sprintf("%s; %s of the device's budget", read, time.Duration(float64(x.chunk)/float64(rate)*float64(time.Second)).Round(time.Millisecond))
	}
	return read
}
