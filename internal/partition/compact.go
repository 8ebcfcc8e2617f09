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
	// compactionHangs is how long a compaction that does not get on is waited for; then those that need none of its directories go on beside it.
	compactionHangs = 10 * time.Second
)

// compactState is what a log's compaction remembers.
type compactState struct {
	// cleaned is the offset below which the log was compacted, by the checkpoint. Below it offsets have gaps.
	cleaned atomic.Int64
	// begun: a compaction has begun to rewrite the log, now or in an earlier run, and came to its end or not: any sealed segment may have gaps.
	// The checkpoint tells by naming the log at all.
	begun atomic.Bool

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

// compactor is the store's compaction: one log at a time, but for those whose device does not answer.
type compactor struct {
	look chan struct{}
	one  sync.Mutex // one round at a time

	mu      sync.Mutex
	running map[*Log]*CompactionRun
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

	place      logPlace
	gotOn      time.Time // by the process's own clock: a step ended
	leftBehind bool      // nobody waits for it any more
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
	out := make([]CompactionView, 0, len(works))
	for _, w := range works {
		v := CompactionView{Work: w}
		if l, ok := s.Log(w.Topic, w.Partition); ok {
			l.compact.mu.Lock()
			v.Last = l.compact.last
			l.compact.mu.Unlock()
			s.compactor.mu.Lock()
			if run := s.compactor.running[l]; run != nil {
				r := *run
				v.Run = &r
			}
			s.compactor.mu.Unlock()
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

// Compact cleans the logs that are due, overdue ones first, then the dirtiest, until none is, or ctx ends. Each has its turn before one comes again: a log
// can be overdue whenever it is looked at. A compaction that does not get on is left behind, and with it the logs
// that need a directory of its. The background loop calls it; tests do, too.
func (s *Store) Compact(ctx context.Context) {
	s.compactor.one.Lock()
	defer s.compactor.one.Unlock()
	had := map[logKey]bool{}
	for ctx.Err() == nil {
		works := compaction.Plan(s.now().UnixMilli(), s.compactionStates())
		s.metrics.compactionDue(works)
		i := slices.IndexFunc(works, func(w compaction.Work) bool {
			return w.Due && !had[logKey{w.Topic, w.Partition}] && s.mayCompact(w)
		})
		if i < 0 && len(had) == 0 {
			return
		}
		if i < 0 {
			clear(had)
			continue
		}
		had[logKey{works[i].Topic, works[i].Partition}] = true
		if l, ok := s.Log(works[i].Topic, works[i].Partition); ok {
			s.compactBeside(ctx, l, works[i])
		}
	}
}

// compactBeside cleans one log on a goroutine of its own, and waits for that as long as it gets on.
func (s *Store) compactBeside(ctx context.Context, l *Log, w compaction.Work) {
	c := &s.compactor
	run := &CompactionRun{Topic: l.topic, Partition: l.partition, Started: s.now(), TotalBytes: w.Clean + 2*w.Dirty, place: s.placeOf(l), gotOn: time.Now()}
	c.mu.Lock()
	if c.running == nil {
		c.running = map[*Log]*CompactionRun{}
	}
	c.running[l] = run
	c.mu.Unlock()
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		s.compactOne(ctx, l, w, run)
		c.mu.Lock()
		left := run.leftBehind
		c.mu.Unlock()
		if left {
			s.mayCompactNow(l) // others may have waited for its directories
		}
	})
	timer := time.NewTimer(compactionHangs)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-timer.C:
		}
		c.mu.Lock()
		wait := compactionHangs - time.Since(run.gotOn)
		run.leftBehind = wait <= 0
		c.mu.Unlock()
		if wait <= 0 {
			return
		}
		timer.Reset(wait)
	}
}

// mayCompact: the last failure of the log is long enough ago, and no compaction is under way that needs the same directory.
func (s *Store) mayCompact(w compaction.Work) bool {
	l, ok := s.Log(w.Topic, w.Partition)
	if !ok {
		return false
	}
	place := s.placeOf(l)
	s.compactor.mu.Lock()
	for _, run := range s.compactor.running {
		if run.place.meets(place) {
			s.compactor.mu.Unlock()
			return false
		}
	}
	s.compactor.mu.Unlock()
	l.compact.mu.Lock()
	defer l.compact.mu.Unlock()
	return !s.now().Before(l.compact.retryAt)
}

// compactOne cleans one log and remembers how that ended.
func (s *Store) compactOne(ctx context.Context, l *Log, w compaction.Work, run *CompactionRun) {
	p := &compactPass{store: s, log: l, work: w, run: run}
	end, err := p.clean(ctx)
	now := s.now()
	s.compactor.mu.Lock()
	delete(s.compactor.running, l)
	s.compactor.mu.Unlock()
	st := p.filter.Stats
	r := CompactionResult{At: now, Elapsed: now.Sub(p.run.Started), CleanedTo: segment.Offset(l.compact.cleaned.Load()), BytesRead: st.BytesRead,
		BytesKept: st.BytesKept, Records: st.RecordsRead, Kept: st.RecordsKept, WithoutKey: st.RecordsWithoutKey, Malformed: st.Malformed, Err: err}
	if ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, errChanged) || errors.Is(err, errNotCompacted) {
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
	logs, q := s.Logs(), questions{}
	for _, l := range logs {
		if l.config().Compact && l.Err() == nil {
			l.askTimes(q)
		}
	}
	s.ask(q)
	for _, l := range logs {
		if l.config().Compact && l.Err() == nil {
			out = append(out, l.compactionState(l.view.Load()))
		}
	}
	return out
}

// askTimes asks for what compactionState lacks.
func (l *Log) askTimes(q questions) {
	cfg, v, cleaned := l.config(), l.view.Load(), segment.Offset(l.compact.cleaned.Load())
	if cfg.MinCompactionLagMs <= 0 && cfg.MaxCompactionLagMs == maxLag {
		return // they count nowhere
	}
	for i, s := range v.segs[:len(v.segs)-1] {
		_, _, first, newest := s.r.KnownTimestamps()
		if v.next(i) > cleaned && !(first && newest) {
			q[s.dir] = append(q[s.dir], s.learnTimes)
		}
	}
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
		if dirty := next > st.Cleaned && i+1 < len(v.segs); dirty {
			first, newest, firstKnown, newestKnown := s.r.KnownTimestamps()
			if st.MinLagMs > 0 {
				state.MaxTimestampMs, state.Ready = newest, state.Ready && newestKnown
			}
			if st.MaxLagMs < maxLag && firstKnown {
				state.FirstMs = first
			}
		}
		st.Segments = append(st.Segments, state)
	}
	return st
}

const maxLag = 1<<63 - 1 // max.compaction.lag.ms: no limit
