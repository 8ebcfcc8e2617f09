package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/compaction"
	"lagoon/segment"
	"lagoon/tiering"
)

// compactPass is one compaction of one log.
type compactPass struct {
	store  *Store
	log    *Log
	work   compaction.Work
	filter compaction.Filter
	run    *CompactionRun
}

// errChanged: segments of the view that a step began with were deleted, or replaced by a migration or a compaction. It begins anew, with the
// next view.
var errChanged = errors.New("partition: segments have changed")

// errNotCompacted: cleanup.policy does not hold compact any more. What has not been swapped in stays as it is.
var errNotCompacted = errors.New("partition: the topic is not compacted any more")

// clean reads the keys of the dirty part, rewrites everything up to where the map reaches, and notes that.
func (p *compactPass) clean(ctx context.Context) (end segment.Offset, err error) {
	l := p.log
	if err := l.settleSwap(); err != nil {
		return 0, err
	}
	if err := l.tidy(); err != nil {
		return 0, err
	}
	// What is rewritten has gaps, which recovery would take for a torn tail and a migration for damage: they must know that all of this was
	// durable, and that there are gaps.
	l.compact.begun.Store(true)
	if err := p.store.writeMarks(l.home); err != nil {
		return 0, err
	}
	// Outside Go's heap, of which the collector lets as much again become garbage.
	mem, free, err := cachectl.MapMemory(compaction.OffsetMapBytes(offsetMapBytes, int64(p.work.To-p.work.From)))
	if err != nil {
		return 0, fmt.Errorf("compact %s: memory for the offset map: %w", l.dir, err)
	}
	defer func() { p.filter.Map = nil; free() }()
	m := compaction.NewOffsetMap(mem)
	if err := p.readKeys(ctx, m); err != nil {
		return 0, err
	}
	cfg := l.config()
	p.filter = compaction.Filter{Map: m, Txns: compaction.NewTransactions(), NowMs: p.store.now().UnixMilli(), DeleteRetentionMs: cfg.DeleteRetentionMs,
		Producers: l.activeProducers(), Unreadable: p.unreadable}
	p.store.compactor.mu.Lock()
	p.run.Rewriting = true
	p.store.compactor.mu.Unlock()
	for at := l.view.Load().start; at < m.End(); {
		next, err := p.rewriteGroup(ctx, at, m.End())
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil {
			return 0, err
		}
		at = next
	}
	l.compact.cleaned.Store(int64(m.End()))
	return m.End(), p.store.writeMarks(l.home)
}

// unreadable reports a batch whose checksum is right and whose records are not.
func (p *compactPass) unreadable(h segment.BatchHeader, err error) {
	p.log.log.Warn("compaction keeps a batch whose records cannot be read", "offset", h.BaseOffset, "err", err)
}

// readKeys maps the keys of the dirty part to their newest offsets, as far as there is room.
func (p *compactPass) readKeys(ctx context.Context, newest *compaction.OffsetMap) error {
	l, w := p.log, p.work
	v := l.view.Load()
	m := compaction.Mapper{Map: newest, From: w.From, Txns: compaction.NewTransactions(), Unreadable: p.unreadable}
	full := false
	for i, s := range v.segs {
		if v.next(i) <= w.From || s.base >= w.To || full {
			continue
		}
		aborted, err := l.abortedFor(v, i)
		if err != nil {
			return err
		}
		m.Txns.Expect(aborted)
		err = p.scan(ctx, s, func(h segment.BatchHeader, batch []byte) (bool, error) {
			var err error
			full, err = m.Add(h, batch)
			return !full, err
		})
		if err != nil {
			return err
		}
		if !full {
			m.Advance(v.next(i))
		}
	}
	if m.Map.End() <= w.From {
		return fmt.Errorf("compact %s: no key was read from offset %d on: %w", l.dir, w.From, errChanged)
	}
	return nil
}

// rewriteGroup rewrites the segments from the one that holds offset at on that fit into one, and gives the offset behind them.
func (p *compactPass) rewriteGroup(ctx context.Context, at, end segment.Offset) (segment.Offset, error) {
	l := p.log
	v := l.view.Load()
	cfg := l.config()
	interval := max(int64(cfg.IndexIntervalBytes), 1)
	states := l.compactionState(v).Segments
	groups := compaction.Groups(states, max(at, v.start), end, func(i int) int64 { return (states[i].SizeBytes/interval + 2) * 12 },
		compaction.Limits{SegmentBytes: int64(cfg.SegmentBytes), IndexBytes: int64(cfg.SegmentIndexBytes)})
	if len(groups) == 0 {
		return end, nil // deleted meanwhile
	}
	g := group{segs: v.segs[groups[0][0]:groups[0][1]], end: v.next(groups[0][1] - 1)}
	if err := l.claim(ctx, g.segs, g.end); err != nil {
		return 0, err
	}
	defer l.unclaim()
	if !l.holds(g) {
		return 0, errChanged
	}
	place := p.filter.Place()
	if err := p.rewrite(ctx, g); err != nil {
		p.filter.Return(place) // what it knows of transactions is of the group's end
		return 0, err
	}
	return g.end, nil
}

// group are adjacent segments of one directory that become one.
type group struct {
	segs []*logSegment
	end  segment.Offset
}

func (g group) dir() *logDir { return g.segs[0].dir }

func (g group) bases() (out []segment.Offset) {
	for _, s := range g.segs {
		out = append(out, s.base)
	}
	return out
}

// holds tells whether the group is part of the log as it is now.
func (l *Log) holds(g group) bool {
	v := l.view.Load()
	i := v.find(g.segs[0].base)
	return i >= 0 && i+len(g.segs) < len(v.segs) && slices.Equal(v.segs[i:i+len(g.segs)], g.segs) && v.segs[i+len(g.segs)].base == g.end
}

// rewrite writes what stays of the group to a new segment and swaps that in.
func (p *compactPass) rewrite(ctx context.Context, g group) (err error) {
	l, d := p.log, g.dir()
	if d.full.Load() {
		return fmt.Errorf("%w: %s", ErrDiskFull, d.spec.FS.Root())
	}
	c, err := l.createCleaned(d, g.segs[0].base)
	if err != nil {
		return err
	}
	out := &cleanedWriter{pass: p, c: c, dir: d, keepCached: l.mostlyResident(g)}
	if err := p.filterInto(ctx, g, out); err != nil {
		return errors.Join(err, l.abandon(d, c))
	}
	if out.unchanged && len(g.segs) == 1 {
		return l.abandon(d, c)
	}
	if err := out.finish(ctx); err != nil {
		return errors.Join(err, l.abandon(d, c))
	}
	return l.swapIn(g, c)
}

// filterInto gives every batch of the group to the filter and writes what it keeps.
func (p *compactPass) filterInto(ctx context.Context, g group, out *cleanedWriter) error {
	l, v := p.log, p.log.view.Load()
	out.unchanged = true
	for _, s := range g.segs {
		aborted, err := l.abortedFor(v, v.find(s.base))
		if err != nil {
			return err
		}
		p.filter.Txns.Expect(aborted)
		err = p.scan(ctx, s, func(h segment.BatchHeader, batch []byte) (bool, error) {
			b, fate, err := p.filter.Next(h, batch, g.end)
			if err != nil {
				return false, err
			}
			if fate != compaction.Keep {
				out.unchanged = false
			}
			if fate == compaction.Drop {
				return true, nil
			}
			return true, out.add(ctx, b)
		})
		if err != nil {
			return err
		}
	}
	if kept := p.filter.Txns.Kept(); len(kept) > 0 || slices.ContainsFunc(g.segs, func(s *logSegment) bool { return s.r.MayHaveAborted() }) {
		out.c.SetAborted(kept)
	}
	if next := out.c.Next(); next < g.end { // the file says itself how far it reaches
		return out.add(ctx, compaction.Filler(next, g.end, max(l.epochs.EpochAt(next), out.epoch)))
	}
	return nil
}

// scan gives every batch of s to fn, reading within the device's budget and around the cache.
func (p *compactPass) scan(ctx context.Context, s *logSegment, fn func(h segment.BatchHeader, batch []byte) (bool, error)) error {
	if !s.r.Acquire() {
		return errChanged
	}
	defer s.r.Release()
	gate := deviceGate{store: p.store, log: p.log, flow: compactionFlow, from: s.dir, to: s.dir, io: &workIO{store: p.store}}
	pace := func(ctx context.Context, pos, n int64) (func(), error) {
		if !p.log.config().Compact {
			return nil, errNotCompacted
		}
		done, err := gate.Wait(ctx, tiering.Transfer{Tier: s.dir.name, Pos: pos, Bytes: n})
		if err == nil {
			p.store.metrics.compactionRead.Add(float64(n))
			p.advance(n)
		}
		return done, err
	}
	return p.log.scanPaced(ctx, s, 0, gate.Step, pace, fn)
}

func (p *compactPass) advance(n int64) {
	p.store.compactor.mu.Lock()
	p.run.DoneBytes += n
	p.run.gotOn = time.Now()
	p.store.compactor.mu.Unlock()
}

// compactionFlow is compaction's subject at the schedulers, as migrationFlow is that of migrations.
var compactionFlow = admission.Subject{Kind: admission.Client, Name: "lagoon-compaction"}

// cleanedWriter writes a new segment within the device's budget.
type cleanedWriter struct {
	pass       *compactPass
	c          *segment.Cleaned
	dir        *logDir
	keepCached bool // what it replaces was in the page cache
	unchanged  bool
	epoch      int32
	synced     int64
}

// add appends one batch and writes when enough has come together.
func (w *cleanedWriter) add(ctx context.Context, b []byte) error {
	h, err := segment.DecodeHeader(b)
	if err != nil {
		return err
	}
	w.epoch = h.LeaderEpoch
	if err := w.c.Append(b, h); err != nil {
		return err
	}
	gate := w.gate()
	if int64(w.c.Buffered()) < min(writeStep, gate.Step()) {
		return nil
	}
	return w.write(ctx)
}

func (w *cleanedWriter) gate() deviceGate {
	return deviceGate{store: w.pass.store, log: w.pass.log, flow: compactionFlow, from: w.dir, to: w.dir, io: &workIO{store: w.pass.store}}
}

// write writes what has come together, if anything: the last batch may have gone by itself.
func (w *cleanedWriter) write(ctx context.Context) error {
	if w.c.Buffered() == 0 {
		return nil
	}
	done, err := w.gate().Wait(ctx, tiering.Transfer{Tier: w.dir.name, Write: true, Pos: w.c.Size() - int64(w.c.Buffered()), Bytes: int64(w.c.Buffered())})
	if err != nil {
		return err
	}
	defer done()
	pos, n, err := w.c.Flush()
	if err != nil {
		return w.dir.compactionWriteFailed(err)
	}
	cache := w.pass.store.opt.Cache
	_ = cache.WriteBack(w.c.File(), pos, n) // advice
	w.pass.store.metrics.compactionWritten.Add(float64(n))
	if pos+n-w.synced >= syncEvery {
		return w.settle(pos + n)
	}
	return nil
}

// settle makes what was written durable, and takes it out of the page cache unless what it replaces was there. A failed sync is final
// for the new file alone: it is given up.
func (w *cleanedWriter) settle(to int64) error {
	end := w.pass.store.work(w.dir)
	err := w.c.File().SyncData()
	end()
	if err != nil {
		return fmt.Errorf("sync cleaned segment: %w", err)
	}
	if !w.keepCached {
		_, _ = w.pass.store.opt.Cache.Evict(w.c.File(), w.synced, to-w.synced) // advice
	}
	w.synced = to
	return nil
}

func (w *cleanedWriter) finish(ctx context.Context) error {
	if err := w.write(ctx); err != nil {
		return err
	}
	return w.settle(w.c.Size())
}

// compactionWriteFailed: a full disk passes. Anything else is the new file's trouble: it is given up, and what it was to replace stays.
func (d *logDir) compactionWriteFailed(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %s: write cleaned segment", ErrDiskFull, d.spec.FS.Root())
	}
	return err
}

// mostlyResident tells whether the newest of the group is in the page cache: then its successor had better be there, too.
func (l *Log) mostlyResident(g group) bool {
	s := g.segs[len(g.segs)-1]
	if !s.r.Acquire() {
		return false
	}
	defer s.r.Release()
	f, err := s.r.File()
	if err != nil {
		return false
	}
	r, err := l.store.opt.Cache.Residency(f, 0, s.r.Meta().SizeBytes)
	return err == nil && 2*r.Resident > r.Pages
}

// abortedFor lists the aborted transactions that have, or had, records or markers in segment i of v.
func (l *Log) abortedFor(v *view, i int) (out []segment.AbortedTxn, err error) {
	if !l.aborts.Load() {
		return nil, nil
	}
	upper := v.next(i)
	for j := i; j < len(v.segs); j++ {
		list, err := l.abortedOf(v, j)
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			if t.First < upper {
				out = append(out, t)
			}
		}
		if settledBy(list, upper) {
			break
		}
	}
	return out, nil
}

// activeProducers are the producers whose last batch must stay.
func (l *Log) activeProducers() map[int64]compaction.Producer {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[int64]compaction.Producer{}
	for _, p := range l.producers.Views() {
		out[p.ProducerID] = compaction.Producer{Epoch: p.Epoch, LastOffset: p.LastOffset}
	}
	return out
}
