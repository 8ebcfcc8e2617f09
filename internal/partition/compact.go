package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lagoon/admission"
	"lagoon/internal/compaction"
	"lagoon/segment"
	"lagoon/tiering"
)

// Compaction options.
const (
	// offsetMapBytes is the memory for the newest offset of each key, a good million keys: with packing, unpacking and buffers compaction
	// stays below 64 MiB. Keys that do not fit wait for the next round.
	offsetMapBytes = 40 << 20
	// writeStep is how much of a new segment is written at a time at most, syncEvery how much between two syncs: no sync holds the device
	// for long.
	writeStep = 1 << 20
	syncEvery = 8 << 20
	// retryCompaction is the pause after a failure that may pass, such as a full disk; damage is looked at again less often.
	retryCompaction = time.Minute
	retryDamaged    = time.Hour
	// waitForMove is how long a compaction waits for a migration of what it comes to.
	waitForMove = time.Minute
)

// compactState is what a log's compaction remembers.
type compactState struct {
	// cleaned is the offset below which the log was compacted, by the checkpoint. Below it offsets have gaps.
	cleaned atomic.Int64

	settle func() error // of a swap that an error interrupted; guarded by Log.maintenance

	mu       sync.Mutex
	moving   map[movingKey]bool // copies of segments that a migration makes or has left
	from, to segment.Offset     // what is being rewritten
	changed  chan struct{}      // closed when moving shrinks
	last     CompactionResult
	retryAt  time.Time
}

type movingKey struct {
	base segment.Offset
	from string // directory
}

// compactor is the store's compaction: one log at a time.
type compactor struct {
	one sync.Mutex // one round at a time

	mu      sync.Mutex
	current *CompactionRun
}

// CompactionResult is how the last compaction of a partition ended. The zero value: there was none since the start.
type CompactionResult struct {
	At         time.Time
	Elapsed    time.Duration
	CleanedTo  segment.Offset // everything below is compacted
	BytesRead  int64
	BytesKept  int64
	Records    int64 // read
	Kept       int64
	WithoutKey int64 // dropped, because a compacted topic cannot hold them
	Malformed  int64 // batches that could not be read and were kept
	Err        error
}

// CompactionRun is a compaction under way.
type CompactionRun struct {
	Topic      string
	Partition  int32
	Started    time.Time
	Rewriting  bool // else the keys are being read
	DoneBytes  int64
	TotalBytes int64 // of both steps
}

// CompactionView is one compacted partition for people.
type CompactionView struct {
	Work compaction.Work
	Last CompactionResult
	Run  *CompactionRun // nil: not now
}

// Compactions lists the compacted partitions, the one that is due first in front.
func (s *Store) Compactions() []CompactionView {
	works := compaction.Plan(s.now().UnixMilli(), s.compactionStates())
	s.compactor.mu.Lock()
	var run *CompactionRun
	if s.compactor.current != nil {
		r := *s.compactor.current
		run = &r
	}
	s.compactor.mu.Unlock()
	out := make([]CompactionView, 0, len(works))
	for _, w := range works {
		v := CompactionView{Work: w}
		if l, ok := s.Log(w.Topic, w.Partition); ok {
			l.compact.mu.Lock()
			v.Last = l.compact.last
			l.compact.mu.Unlock()
		}
		if run != nil && run.Topic == w.Topic && run.Partition == w.Partition {
			v.Run = run
		}
		out = append(out, v)
	}
	return out
}

// compactLoop looks for work every CompactionInterval.
func (s *Store) compactLoop() {
	t := time.NewTicker(s.opt.CompactionInterval)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
			s.Compact(s.ctx)
		}
	}
}

// Compact cleans the logs that are due, dirtiest first, until none is, or ctx ends. The background loop calls it; tests do, too.
func (s *Store) Compact(ctx context.Context) {
	s.compactor.one.Lock()
	defer s.compactor.one.Unlock()
	for ctx.Err() == nil {
		works := compaction.Plan(s.now().UnixMilli(), s.compactionStates())
		s.metrics.compactionDue(works)
		i := slices.IndexFunc(works, func(w compaction.Work) bool { return w.Due && s.mayCompact(w) })
		if i < 0 {
			return
		}
		if l, ok := s.Log(works[i].Topic, works[i].Partition); ok {
			s.compactOne(ctx, l, works[i])
		}
	}
}

// mayCompact: the last failure of the log is long enough ago.
func (s *Store) mayCompact(w compaction.Work) bool {
	l, ok := s.Log(w.Topic, w.Partition)
	if !ok {
		return false
	}
	l.compact.mu.Lock()
	defer l.compact.mu.Unlock()
	return !s.now().Before(l.compact.retryAt)
}

// compactOne cleans one log and remembers how that ended.
func (s *Store) compactOne(ctx context.Context, l *Log, w compaction.Work) {
	p := &compactPass{store: s, log: l, work: w, run: &CompactionRun{Topic: l.topic, Partition: l.partition, Started: s.now(), TotalBytes: w.Clean + 2*w.Dirty}}
	s.compactor.mu.Lock()
	s.compactor.current = p.run
	s.compactor.mu.Unlock()
	end, err := p.clean(ctx)
	now := s.now()
	s.compactor.mu.Lock()
	s.compactor.current = nil
	s.compactor.mu.Unlock()
	st := p.filter.Stats
	r := CompactionResult{At: now, Elapsed: now.Sub(p.run.Started), CleanedTo: segment.Offset(l.compact.cleaned.Load()), BytesRead: st.BytesRead,
		BytesKept: st.BytesKept, Records: st.RecordsRead, Kept: st.RecordsKept, WithoutKey: st.RecordsWithoutKey, Malformed: st.Malformed, Err: err}
	if ctx.Err() != nil || errors.Is(err, ErrClosed) {
		return // the end of the store or of the log is no failure
	}
	c := &l.compact
	c.mu.Lock()
	c.last = r
	switch {
	case isCorrupt(err):
		c.retryAt = now.Add(retryDamaged)
	case err != nil:
		c.retryAt = now.Add(retryCompaction)
	}
	c.mu.Unlock()
	s.metrics.compacted(r)
	if err != nil {
		l.log.Warn("log not compacted: nothing was lost, it is tried again later", "from", w.From, "to", w.To, "err", err)
		return
	}
	l.log.Info("log compacted", "from", w.From, "to", end, "records", st.RecordsRead, "kept", st.RecordsKept, "bytes", st.BytesRead, "bytes_kept", st.BytesKept,
		"without_key", st.RecordsWithoutKey, "elapsed", r.Elapsed)
	s.wakePlanner()
}

// compactionStates is what the planner looks at.
func (s *Store) compactionStates() (out []compaction.LogState) {
	for _, l := range s.Logs() {
		if l.config().Compact && l.Err() == nil {
			out = append(out, l.compactionState(l.view.Load()))
		}
	}
	return out
}

// compactionState describes the log by one view; segments as there.
func (l *Log) compactionState(v *view) compaction.LogState {
	cfg := l.config()
	st := compaction.LogState{Topic: l.topic, Partition: l.partition, Start: v.start, Cleaned: segment.Offset(l.compact.cleaned.Load()),
		Stable: min(l.Offsets().LastStable, l.durable.Load().offset), MinRatio: cfg.MinCleanableRatio, MinLagMs: cfg.MinCompactionLagMs, MaxLagMs: cfg.MaxCompactionLagMs}
	for i, s := range v.segs {
		m := s.r.Meta()
		next := min(v.next(i), segment.Offset(l.end.Load()))
		state := compaction.SegmentState{Base: s.base, Next: next, SizeBytes: m.SizeBytes, MaxTimestampMs: m.MaxTimestampMs, FirstMs: -1,
			Ready: m.Sealed && l.covered(next) && s.dir.fenced() == nil, Place: s.dir.index}
		if dirty := next > st.Cleaned && i+1 < len(v.segs); dirty && s.r.Acquire() {
			if ms, _, err := s.r.MaxTimestamp(); err == nil && st.MinLagMs > 0 {
				state.MaxTimestampMs = ms
			}
			if ms, err := s.r.FirstTimestamp(); err == nil && st.MaxLagMs < maxLag {
				state.FirstMs = ms
			}
			s.r.Release()
		}
		st.Segments = append(st.Segments, state)
	}
	return st
}

const maxLag = 1<<63 - 1 // max.compaction.lag.ms: no limit

// compactPass is one compaction of one log.
type compactPass struct {
	store  *Store
	log    *Log
	work   compaction.Work
	filter compaction.Filter
	run    *CompactionRun
}

// errChanged: the segments are not those that a step began with; it begins anew.
var errChanged = errors.New("partition: segments have changed")

// clean reads the keys of the dirty part, rewrites everything up to where the map reaches, and notes that.
func (p *compactPass) clean(ctx context.Context) (end segment.Offset, err error) {
	l := p.log
	if err := l.settleSwap(); err != nil {
		return 0, err
	}
	// What is rewritten has gaps, which recovery would take for a torn tail: it must know that all of this was durable.
	if err := p.store.writeMarks(l.home); err != nil {
		return 0, err
	}
	m, err := p.readKeys(ctx)
	if err != nil {
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
func (p *compactPass) readKeys(ctx context.Context) (*compaction.OffsetMap, error) {
	l, w := p.log, p.work
	v := l.view.Load()
	m := compaction.Mapper{Map: compaction.NewOffsetMap(offsetMapBytes, int64(w.To-w.From)), From: w.From, Txns: compaction.NewTransactions(), Unreadable: p.unreadable}
	full := false
	for i, s := range v.segs {
		if v.next(i) <= w.From || s.base >= w.To || full {
			continue
		}
		aborted, err := l.abortedFor(v, i)
		if err != nil {
			return nil, err
		}
		m.Txns.Expect(aborted)
		err = p.scan(ctx, s, func(h segment.BatchHeader, batch []byte) (bool, error) {
			var err error
			full, err = m.Add(h, batch)
			return !full, err
		})
		if err != nil {
			return nil, err
		}
		if !full {
			m.Advance(v.next(i))
		}
	}
	if m.Map.End() <= w.From {
		return nil, fmt.Errorf("compact %s: no key was read from offset %d on: %w", l.dir, w.From, errChanged)
	}
	return m.Map, nil
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
	return g.end, p.rewrite(ctx, g)
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
		return errors.Join(err, l.abandon(c))
	}
	if out.unchanged && len(g.segs) == 1 {
		return l.abandon(c)
	}
	if err := out.finish(ctx); err != nil {
		return errors.Join(err, l.abandon(c))
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
	gate := deviceGate{store: p.store, log: p.log, flow: compactionFlow, from: s.dir, to: s.dir}
	pace := func(ctx context.Context, pos, n int64) (func(), error) {
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
	return deviceGate{store: w.pass.store, log: w.pass.log, flow: compactionFlow, from: w.dir, to: w.dir}
}

func (w *cleanedWriter) write(ctx context.Context) error {
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
	if err := w.c.File().SyncData(); err != nil {
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

// createCleaned begins the new segment, unless the partition is deleted: its directory's name may be another topic's by now.
func (l *Log) createCleaned(d *logDir, base segment.Offset) (c *segment.Cleaned, err error) {
	err = ErrClosed
	l.onFiles(func() { c, err = segment.CreateCleaned(d.spec.FS, l.dir, base, l.config().segmentOptions()) })
	if err != nil && !errors.Is(err, ErrClosed) {
		err = d.compactionWriteFailed(err)
	}
	return c, err
}

func (l *Log) abandon(c *segment.Cleaned) (err error) {
	l.onFiles(func() { err = c.Abandon() })
	return err
}

// swapIn gives the new segment the place of the group: on disk, then for readers, then it takes the names.
func (l *Log) swapIn(g group, c *segment.Cleaned) error {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	d := g.dir()
	if l.isClosed() {
		return errors.Join(ErrClosed, c.Close()) // its directory is gone, or a start removes the file
	}
	if !l.holds(g) {
		return errors.Join(errChanged, l.abandon(c))
	}
	r, err := c.Commit(g.end, l.store.files)
	if err != nil {
		// Whether a restart would find the new segment is not known: nothing may be built on the old ones any more.
		d.fence("swap in compacted segment", err)
		return errors.Join(err, c.Close())
	}
	if err := l.publishCleaned(g, r); err != nil {
		return errors.Join(err, c.Close())
	}
	for _, s := range g.segs {
		size := s.r.Meta().SizeBytes
		s.pin.close()
		s.r.Supersede()
		s.r.Retire(func() { s.dir.used.Add(-size) })
	}
	bases := g.bases()
	l.compact.settle = func() error { return r.Settle(bases) }
	return errors.Join(l.settleSwapLocked(), c.Close())
}

// publishCleaned swaps the segments in the view.
func (l *Log) publishCleaned(g group, r *segment.Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		r.Retire(nil)
		return ErrClosed
	}
	v := l.view.Load()
	i := v.find(g.segs[0].base)
	// On the scale of distances it ends where the next one begins: readers in it are as far from the end as they were.
	size := r.Meta().SizeBytes
	s := &logSegment{r: r, dir: g.dir(), base: g.segs[0].base, before: max(g.segs[0].before, v.segs[i+len(g.segs)].before-size)}
	segs := slices.Concat(v.segs[:i], []*logSegment{s}, v.segs[i+len(g.segs):])
	l.setViewLocked(segs, v.start)
	s.dir.used.Add(size)
	return nil
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// settleSwap ends a swap that an error has interrupted.
func (l *Log) settleSwap() error {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if l.isClosed() {
		return ErrClosed
	}
	return l.settleSwapLocked()
}

// settleSwapLocked runs under maintenance. Until it has succeeded the log is not compacted, and its segments stay in their tiers.
func (l *Log) settleSwapLocked() (err error) {
	if l.compact.settle == nil {
		return nil
	}
	l.onFiles(func() { err = l.compact.settle() })
	if err == nil {
		l.compact.settle = nil
	}
	return err
}

// claim waits until no segment of the group has copies in several tiers, and keeps the migrator away from them until unclaim.
func (l *Log) claim(ctx context.Context, segs []*logSegment, end segment.Offset) error {
	c := &l.compact
	ctx, cancel := context.WithTimeout(ctx, waitForMove)
	defer cancel()
	for {
		c.mu.Lock()
		busy := false
		for k := range c.moving {
			busy = busy || k.base >= segs[0].base && k.base < end
		}
		if !busy {
			c.from, c.to = segs[0].base, end
			c.mu.Unlock()
			return nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("compact %s: segment %d is on its way to another tier: %w", l.dir, segs[0].base, ctx.Err())
		}
	}
}

// unclaim ends a claim, unless the swap it was for is not over: then segments have two copies for as long.
func (l *Log) unclaim() {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if l.compact.settle == nil {
		c := &l.compact
		c.mu.Lock()
		c.from, c.to = 0, 0
		c.mu.Unlock()
	}
}

// beginMove notes that a segment gets a second copy; false when it is being compacted.
func (l *Log) beginMove(base segment.Offset, from string) bool {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	if base >= c.from && base < c.to {
		return false
	}
	if c.moving == nil {
		c.moving = map[movingKey]bool{}
	}
	c.moving[movingKey{base, from}] = true
	return true
}

// endMove: the segment has one copy again.
func (l *Log) endMove(base segment.Offset, from string) {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.moving, movingKey{base, from})
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// claimed tells whether the segment at base is being compacted.
func (l *Log) claimed(base segment.Offset) bool {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	return base >= c.from && base < c.to
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
