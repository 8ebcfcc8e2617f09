package partition

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lagoon/segment"
)

// Delayed delivery (lagoon.delivery.delay.ms, decision 13): Log.readable stops at Log.due, which a timer moves. What is due when is
// delayMarks' word; here is what it needs: the appends, a clock that nobody sets (Store.steadyMs), and for what was in the log before the process
// a look into it.

// delivery is the delay of one log. Lock order: Log.mu, delivery.mu.
type delivery struct {
	mu      sync.Mutex
	on      bool // also guarded by Log.mu: changed under both
	looking bool // a look into the log is under way; whoever has it goes on afterwards
	floorMs int64
	marks   delayMarks
	timer   *time.Timer
}

// delayRetry is how long a look into the log that failed is put off.
const delayRetry = time.Second

// beginDelay brings the configured delay in force before the log is served: after a start, what is due is found in the log.
func (l *Log) beginDelay(ctx context.Context) error {
	cfg := l.config()
	if cfg.DeliveryDelayMs <= 0 {
		return nil
	}
	first := l.view.Load().segs[0]
	end := *l.endBound()
	d := &l.delivery
	d.mu.Lock()
	d.on, d.floorMs = true, cfg.DeliveredMs
	d.marks = delayMarks{delay: cfg.DeliveryDelayMs, seen: bound{offset: first.base, base: first.base}, rest: end, restCame: l.store.steadyMs(), tail: delayMark{end: end}}
	l.due.Store(&bound{offset: first.base, base: first.base})
	d.mu.Unlock()
	return l.deliver(ctx)
}

// delayChangedLocked obeys a changed configuration: a shorter delay shows records at once, a longer one takes nothing back. l.mu is held;
// delayChanged follows without it.
func (l *Log) delayChangedLocked(cfg *Config) {
	d := &l.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	end, nowMs := *l.endBound(), l.store.steadyMs()
	d.floorMs = cfg.DeliveredMs
	switch {
	case cfg.DeliveryDelayMs <= 0:
		d.on = false
		d.marks = delayMarks{}
		l.due.Store(nil)
	case !d.on:
		seen := *l.readable()
		d.on = true
		d.marks = delayMarks{delay: cfg.DeliveryDelayMs, seen: seen, tail: delayMark{end: end, lastMs: nowMs}, began: nowMs}
		l.due.Store(&seen)
	default:
		d.marks.delay, d.marks.restDue = cfg.DeliveryDelayMs, 0
	}
}

// delayChanged shows what a changed delay lets be seen.
func (l *Log) delayChanged() {
	if err := l.deliver(context.Background()); err != nil {
		l.log.Warn("delayed records not found, trying again", "err", err)
	}
	l.wakeReaders(l.readable().offset)
}

// delayAppendedLocked notes a batch appended at nowMs; l.mu is held.
func (l *Log) delayAppendedLocked(before *bound, nowMs int64) {
	d := &l.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks.appended(*before, *l.endBound(), nowMs)
	if d.timer == nil && !d.looking {
		l.armLocked(nowMs)
	}
}

// deliver moves what is seen to now and sets the timer for what is due next. An error is that of looking into the log; the timer is
// set all the same.
func (l *Log) deliver(ctx context.Context) error {
	d := &l.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on || d.looking {
		return nil
	}
	d.disarm()
	nowMs := l.store.steadyMs()
	var err error
	if d.marks.atRest(nowMs) {
		from, rest, cutoff := d.marks.seen, d.marks.rest, max(nowMs-d.marks.delay, d.floorMs)
		d.looking = true
		d.mu.Unlock()
		var first bound
		var ms int64
		first, ms, err = l.firstAfter(ctx, from, rest, cutoff)
		d.mu.Lock()
		d.looking = false
		nowMs = l.store.steadyMs()
		switch {
		case !d.on:
			return nil
		case err != nil:
			d.marks.restDue = nowMs + delayRetry.Milliseconds()
		default:
			d.marks.found(first, ms, nowMs)
		}
	}
	d.marks.advance(nowMs)
	seen := d.marks.seen
	l.due.Store(&seen)
	if l.Err() == nil {
		l.armLocked(nowMs)
	}
	return err
}

// armLocked sets the timer for what is due next; delivery.mu is held and no timer set.
func (l *Log) armLocked(nowMs int64) {
	d := &l.delivery
	ms, ok := d.marks.next()
	if !ok {
		return
	}
	d.timer = time.AfterFunc(max(time.Duration(ms-nowMs)*time.Millisecond, 0), func() {
		if err := l.deliver(context.Background()); err != nil && l.Err() == nil {
			l.log.Warn("delayed records not found, trying again", "err", err)
		}
		l.wakeReaders(l.readable().offset)
	})
}

func (d *delivery) disarm() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// endDelay stops the timer for good.
func (l *Log) endDelay() {
	d := &l.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on = false
	d.disarm()
}

// firstAfter finds the first batch from from on that came after cutoff, and when it came; rest when there is none below it. Batches without an append time are from before the topic had a delay. Where a segment is damaged, what follows in it is held
// until the whole segment is due.
func (l *Log) firstAfter(ctx context.Context, from, rest bound, cutoff int64) (first bound, ms int64, err error) {
	v := l.view.Load()
	for i, s := range v.segs {
		if v.next(i) <= from.offset || s.base >= rest.offset {
			continue
		}
		if !s.r.Acquire() {
			return first, 0, fmt.Errorf("look into %s: %w: segment is gone, ask again", l.dir, ErrClosed)
		}
		first, ms, err = l.firstInSegment(ctx, s, from.offset, rest.offset, cutoff)
		s.r.Release()
		if err != nil || ms > 0 {
			return first, ms, err
		}
	}
	return rest, 0, nil
}

// firstInSegment is firstAfter for one acquired segment; ms is 0 when it holds none.
func (l *Log) firstInSegment(ctx context.Context, s *logSegment, from, rest segment.Offset, cutoff int64) (first bound, ms int64, err error) {
	newest, _, err := s.r.MaxTimestamp()
	if err != nil || newest <= cutoff {
		return first, 0, err
	}
	at, _, err := s.r.FindTime(cutoff + 1)
	if err != nil {
		return first, 0, err
	}
	err = l.scan(ctx, s, at, func(h segment.BatchHeader, _ []byte) (bool, error) {
		switch {
		case h.BaseOffset >= rest:
			return false, nil
		case h.LogAppendTime() && h.MaxTimestamp > cutoff && h.LastOffset() >= from:
			first, ms = bound{offset: h.BaseOffset, base: s.base, pos: at}, h.MaxTimestamp
			return false, nil
		}
		at += h.SizeBytes()
		return true, nil
	})
	if isCorrupt(err) {
		return bound{offset: max(from, s.base), base: s.base, pos: at}, newest, nil
	}
	return first, ms, err
}
