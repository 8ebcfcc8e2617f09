package partition

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/compaction"
	"lagoon/segment"
)

// Compaction options.
const (
	// offsetMapBytes is the memory for the newest offset of each key, 1.3 million keys, outside Go's heap: with packing, unpacking, buffers and
	// garbage compaction stays below 64 MiB (BenchmarkCompactLarge: 56 at most). Keys that do not fit wait for the next round.
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
	untidy []*logDir    // where files of a compaction that failed could not be removed; of the compaction's goroutine

	mu       sync.Mutex
	moving   map[movingKey]bool // copies of segments that a migration makes or has left
	from, to segment.Offset     // what is being rewritten
	changed  chan struct{}      // closed when moving shrinks
	last     CompactionResult
	retryAt  time.Time
}

type movingKey struct {
	base segment.Offset
	from string // tier
}

// compactor is the store's compaction: one log at a time.
type compactor struct {
	look chan struct{}
	one  sync.Mutex // one round at a time

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

// compactLoop looks for work when a segment of a compacted topic was sealed, and every CompactionInterval.
func (s *Store) compactLoop() {
	t := time.NewTicker(s.opt.CompactionInterval)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		case <-s.compactor.look:
		}
		s.Compact(s.ctx)
	}
}

// mayCompactNow says that a log has more to compact.
func (s *Store) mayCompactNow(l *Log) {
	if !l.config().Compact {
		return
	}
	select {
	case s.compactor.look <- struct{}{}:
	default:
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
	if ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, errChanged) {
		return // the end of the store or of the log is no failure, nor is a move that came first: the log is due again at once
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
		Stable: min(l.Offsets().LastStable, l.filed.Load().offset), MinRatio: cfg.MinCleanableRatio, MinLagMs: cfg.MinCompactionLagMs, MaxLagMs: cfg.MaxCompactionLagMs}
	for i, s := range v.segs {
		m := s.r.Meta()
		next := min(v.next(i), segment.Offset(l.end.Load()))
		state := compaction.SegmentState{Base: s.base, Next: next, SizeBytes: m.SizeBytes, MaxTimestampMs: m.MaxTimestampMs, FirstMs: -1,
			Ready: m.Sealed && l.covered(next) && s.dir.fenced() == nil, Place: s.dir.index}
		if dirty := next > st.Cleaned && i+1 < len(v.segs); dirty && s.r.Acquire() {
			if st.MinLagMs > 0 { // asked only where it counts: it may open the files
				if ms, _, err := s.r.MaxTimestamp(); err == nil {
					state.MaxTimestampMs = ms
				}
			}
			if st.MaxLagMs < maxLag {
				if ms, err := s.r.FirstTimestamp(); err == nil {
					state.FirstMs = ms
				}
			}
			s.r.Release()
		}
		st.Segments = append(st.Segments, state)
	}
	return st
}

const maxLag = 1<<63 - 1 // max.compaction.lag.ms: no limit
