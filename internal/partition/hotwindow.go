package partition

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/cachectl"
)

// hotwindow.go keeps the newest bytes of the partitions that are read in real time in memory, and drops what all such readers
// have passed. One goroutine plans, and others do what was planned, one for each set of directories: neither appends nor fetches wait
// for a lock, a system call or a page here. Only the committer lets pins grow before it syncs.

// HotWindows configures what stays in the page cache.
type HotWindows struct {
	// Share of the memory that hot windows may take, 0 to 0.8. 0: nothing is kept and nothing is dropped.
	Share float64
	// Keep: what was appended since then is kept for readers that are on their way. 0 means 60 s.
	Keep time.Duration
	Drop DropBehind // "" means auto
	// WarmBytes is how much of the tails is read into the page cache after a start, at most; 0: nothing.
	WarmBytes int64
	// Memory tells what the process has; required with Share. Called once a second while there is something to do.
	Memory func() (cachectl.Memory, error)
}

func (h HotWindows) withDefaults() HotWindows {
	if h.Keep == 0 {
		h.Keep = time.Minute
	}
	if h.Drop == "" {
		h.Drop = DropAuto
	}
	return h
}

func (h HotWindows) validate() error {
	if h.WarmBytes < 0 || h.Share < 0 || h.Share > 0.8 || h.Share > 0 && h.Memory == nil || h.Keep < 0 {
		return fmt.Errorf("partition: hot windows: a share of %v of the memory (0 to 0.8), kept for %v, is not possible", h.Share, h.Keep)
	}
	return nil
}

const (
	hotEvery     = 250 * time.Millisecond // while records come in: a plan
	hotIdleEvery = time.Second            // while something is kept, and nothing comes in
	// hotLinger: a partition counts as read in real time for this long after its last such reader, and after it came to
	// be: a consumer that is being restarted, or starts behind its producer, finds its records.
	hotLinger = 5 * time.Minute
	hotMarks  = 128
	// pinStep: less than this waits for pinDelay. Steps of 64 KiB cost twice as much per byte as of 256 KiB
	// (measured, docs/decisions/0009).
	pinStep  = 256 << 10
	pinDelay = 50 * time.Millisecond // less than pinStep is pinned by a plan when so much time has passed, …
	pinPlan  = 320                   // … by each plan at most so often …
	pinLate  = time.Second           // … but for what has waited for so long;
	pinSmall = 640                   // and by so many syncs in hotEvery (2,560 a second, 5 % of a core), shared evenly by the logs that something comes in to, …
	pinBurst = 8                     // … each of which may be so many steps ahead of its share: syncs do not come evenly
	// smallWindow: windows below it end in steps of pinStep, larger ones in whole windows of the cache, which costs less.
	smallWindow = 16 << 20
	// pinUnseen is the most that is pinned without a look whether it is resident: what came in since the last time.
	pinUnseen = 16 << 20
	// dropStep bounds the bytes that one round drops; 1 GiB/s, 60 ms of a core (measured: 60 µs per MiB).
	dropStep  = 256 << 20
	dropTries = 8 // rounds in which dirty pages may become clean
)

// hotState is one log's part. The goroutine of the hot windows alone uses it, but for the atomics and pinning; while acting is set, the one that does
// what was planned.
type hotState struct {
	acting atomic.Bool  // what was planned is not done: its device has not answered
	pinned atomic.Int64 // bytes, by the last plan that was done

	known bool
	marks [hotMarks]struct { // ring of where the end was
		end int64
		at  time.Time
	}
	n       int       // marks written so far
	seen    time.Time // last time it had a real-time reader, or came to be
	dropped int64     // everything before has been dropped, or is not known to be there
	tries   int       // rounds in which dropping came to dirty pages
	evicted int64     // recently evicted pages at the last look, where nothing is pinned
	looked  time.Time

	ended   int64        // the end at the last plan, while it was wanted
	pinning sync.Mutex   // of the log's pins; the committer only tries
	share   time.Time    // up to when the log has used its share of pinSmall; guarded by pinning
	planned atomic.Int64 // one more than where the window begins, on the scale of Log.endPos; 0: no real-time reader, or no window

	found    atomic.Pointer[[]hotMark] // set before the first round
	refilled atomic.Int64              // a refill began here, before dropped; MaxInt64: none
	view     atomic.Pointer[HotView]

	shiftMu sync.Mutex
	shifts  []hotShift // of positions, that the goroutine has not taken in yet
}

// hotShift: what lay before end lies by bytes further on since a compaction.
type hotShift struct{ end, by int64 }

// shift says that positions before end have moved.
func (st *hotState) shift(end, by int64) {
	st.shiftMu.Lock()
	defer st.shiftMu.Unlock()
	if len(st.shifts) == maxShifts { // nobody takes them: hot windows are off
		st.shifts = st.shifts[:0]
	}
	st.shifts = append(st.shifts, hotShift{end, by})
}

// maxShifts is more swaps than come between two plans.
const maxShifts = 1024

// takeShifts corrects what the goroutine of the hot windows has noted.
func (st *hotState) takeShifts() {
	st.shiftMu.Lock()
	defer st.shiftMu.Unlock()
	for _, s := range st.shifts {
		for i := range st.marks {
			if st.marks[i].end < s.end {
				st.marks[i].end += s.by
			}
		}
		if st.dropped < s.end {
			st.dropped += s.by
		}
	}
	st.shifts = st.shifts[:0]
}

// HotView is one partition's hot window for people.
type HotView struct {
	From    int64         // bytes from the log's first one: the window is [From, end of the log)
	Bytes   int64         // kept
	Pinned  int64         // of them locked in memory
	Reach   time.Duration // how far back the pinned ones reach
	Readers int           // real-time readers
	Slowest int64         // bytes that the slowest of them has still to read
}

// HotSummary is all hot windows together.
type HotSummary struct {
	Budget, Wanted, Kept, Pinned int64
	Tail                         time.Duration // of tail for those among which memory is short; negative: nothing
	Memory                       cachectl.Memory
	Dropping                     bool
	Trouble                      string // why nothing is pinned, "" when it is
}

// hotWindows is the store's part.
type hotWindows struct {
	opt     HotWindows
	asleep  atomic.Bool
	wakeup  chan struct{}
	summary atomic.Pointer[HotSummary]
	warm    warmProgress
	metrics *hotMetrics

	memory   cachectl.Memory
	memoryAt time.Time
	pinned   int64
	room     atomic.Int64 // bytes by which all pins may grow until the next plan
	small    atomic.Int64 // of pinPlan, what is left of this plan's
	spacing  atomic.Int64 // between two small steps of a log's syncs, nanoseconds
	growth   int64        // left free by the next plan: four times the bytes that came in before the last one: plans come late on a busy machine

	// Scratch of a round: ten thousand partitions come by four times a second.
	logs  []*Log
	known []hotLog
	views []*HotView
	marks []hotMark
	acts  map[uint64][]hotAct // nil when some of the last round's are left behind
}

type hotMetrics struct {
	budget, wanted, kept, seconds, dropping prometheus.Gauge
	dropped, ineffective, refaulted         prometheus.Counter
}

func newHotMetrics(reg prometheus.Registerer) *hotMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_cache_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_cache_" + name, Help: help})
	}
	m := &hotMetrics{
		budget:      gauge("hot_window_budget_bytes", "Memory that hot windows may take now."),
		wanted:      gauge("hot_window_wanted_bytes", "Memory that hot windows would take if nothing were short."),
		kept:        gauge("hot_window_bytes", "Newest bytes of partitions with real-time readers that are kept in the page cache."),
		seconds:     gauge("hot_window_seconds", "Age up to which records are kept where memory is short, else hot_window_keep."),
		dropping:    gauge("dropbehind_active", "1 while pages that no real-time reader needs are dropped, 0 while there is memory for them."),
		dropped:     counter("dropbehind_bytes_total", "Bytes dropped from the page cache behind all real-time readers."),
		ineffective: counter("dropbehind_ineffective_bytes_total", "Bytes that were to be dropped behind all real-time readers and stayed."),
		refaulted:   counter("hot_window_lost_pages_total", "Pages (4 KiB) of hot windows that something took from the page cache, as far as looks have shown."),
	}
	if reg != nil {
		reg.MustRegister(m.budget, m.wanted, m.kept, m.seconds, m.dropping, m.dropped, m.ineffective, m.refaulted)
	}
	return m
}

func newHotWindows(opt Options) *hotWindows {
	return &hotWindows{opt: opt.Hot.withDefaults(), wakeup: make(chan struct{}, 1), metrics: newHotMetrics(opt.Registerer)}
}

// poke wakes the goroutine if it sleeps: the log has new records. Called by the committer.
func (h *hotWindows) poke() {
	if h.asleep.Load() && h.asleep.CompareAndSwap(true, false) {
		select {
		case h.wakeup <- struct{}{}:
		default: // it is being woken
		}
	}
}

// hotLoop runs until the store closes, and lets all pins go then.
func (s *Store) hotLoop() {
	h := s.hot
	defer s.unpinAll()
	if h.opt.WarmBytes > 0 {
		s.warmTails()
	}
	timer := time.NewTimer(hotEvery)
	defer timer.Stop()
	for last := int64(-1); ; {
		end, busy := s.hotRound(s.now())
		switch {
		case end != last:
			timer.Reset(hotEvery)
		case busy: // or until something comes in
			timer.Reset(hotIdleEvery)
			h.asleep.Store(true)
		default:
			h.asleep.Store(true)
			timer.Stop()
		}
		last = end
		select {
		case <-timer.C:
		case <-h.wakeup:
		case <-s.ctx.Done():
			return
		}
		h.asleep.Store(false)
		select { // a poke that came as the timer ran out
		case <-h.wakeup:
		default:
		}
	}
}

// pinUnsynced makes the log's pins reach up to b, which a sync is about to make durable, or a write-back clean. Proactive reclaim judges
// regions of memory, and takes the pages of such a region as soon as they are clean, which they are from then on: pins that
// followed 25 ms later, or with the next sync but one, came too late for some (measured, docs/decisions/0009). Only what the last plan left room for is pinned, since
// locked memory cannot be taken back, and nothing is read or waited for. False: a plan is at the log's pins just now. Called by the
// committer.
func (l *Log) pinUnsynced(b *bound) bool {
	from := l.hot.planned.Load() - 1
	if from < 0 {
		return true
	}
	if !l.hot.pinning.TryLock() {
		return false
	}
	defer l.hot.pinning.Unlock()
	v := l.view.Load()
	i := v.find(b.base)
	if i < 0 || v.segs[i].base != b.base {
		return true
	}
	if i > 0 && v.segs[i].pin.pinned() == 0 { // it was rolled to: the one before has an end now
		if s := v.segs[i-1]; s.pin.pinned() > 0 {
			l.growPin(s, from, v.segs[i].before.Load()-s.before.Load())
		}
	}
	l.growPin(v.segs[i], from, b.pos)
	return true
}

// growPin lets a segment's pin reach up to to. l.hot.pinning is held.
func (l *Log) growPin(s *logSegment, from, to int64) {
	cache, h := l.store.opt.Cache, l.store.hot
	pin := s.pin.of(cache)
	if pin == nil {
		return
	}
	heldFrom, heldTo := pin.Held()
	if heldFrom == heldTo {
		if from > s.before.Load() { // the plan knows where to begin
			return
		}
		heldFrom, heldTo = 0, 0
	}
	grown, now := to-heldTo, l.store.now()
	if grown <= 0 || grown > pinUnseen || grown < pinStep && !l.hot.takeStep(now, time.Duration(h.spacing.Load())) {
		return
	}
	if h.room.Add(-grown) < 0 {
		h.room.Add(grown)
		return
	}
	if !s.r.Acquire() {
		return
	}
	defer s.r.Release()
	f, err := s.r.File()
	if err == nil {
		if r, e := cache.Residency(f, heldTo, grown); e != nil || r.Resident < r.Pages {
			return // the plan counts what is lost, and reads nothing in unasked
		}
		s.pin.last = now
		err = pin.Hold(f, heldFrom, to, int64(l.config().SegmentBytes))
	}
	if err != nil {
		l.log.Debug("hot window not pinned", "err", err)
	}
}

// takeStep tells whether a sync may make a small step now, and takes it from the log's share: one each spacing, pinBurst of them ahead.
// pinning is held.
func (st *hotState) takeStep(now time.Time, spacing time.Duration) bool {
	if now.Before(st.share.Add(-(pinBurst - 1) * spacing)) {
		return false
	}
	if st.share.Before(now) {
		st.share = now
	}
	st.share = st.share.Add(spacing)
	return true
}

// durableEnd is the durable bound in bytes, on the scale of Log.endPos.
func (l *Log) durableEnd() int64 {
	v, b := l.view.Load(), l.durable.Load()
	for i := len(v.segs) - 1; i >= 0; i-- {
		if v.segs[i].base == b.base {
			return v.segs[i].before.Load() + b.pos
		}
	}
	return v.segs[0].before.Load()
}

func (s *Store) unpinAll() {
	for _, l := range s.Logs() {
		l.unpin()
	}
}

// unpin lets everything go for good: the store closes, or the partition is offline until a restart.
func (l *Log) unpin() {
	for _, seg := range l.view.Load().segs {
		seg.pin.close()
	}
}

// hotRound looks at all logs once, plans, and does it. end is the sum of their ends; busy says that time alone changes
// something.
func (s *Store) hotRound(now time.Time) (end int64, busy bool) {
	h := s.hot
	reserve := s.opt.Pool.Stats().CapacityBytes + hotReserve
	if now.Sub(h.memoryAt) >= time.Second || h.memoryAt.IsZero() {
		m, err := h.opt.Memory()
		if err != nil {
			s.opt.Logger.Warn("memory of the process not known: hot windows keep the size they have", "err", err)
		} else {
			h.memory = m
			s.readersMu.Lock()
			s.readers.SetMaxBytes(hotMost(h.opt.Share, m, reserve) / 2) // half: nobody has it all
			s.readersMu.Unlock()
		}
		h.memoryAt = now
	}
	budget := hotBudget(h.opt.Share, h.memory, h.pinned, reserve)
	h.logs, h.known, h.views, h.marks = h.logs[:0], h.known[:0], h.views[:0], h.marks[:0]
	s.mu.RLock()
	for _, l := range s.logs {
		h.logs = append(h.logs, l)
	}
	s.mu.RUnlock()
	held := int64(0) // by logs that have no plan now
	h.logs = slices.DeleteFunc(h.logs, func(l *Log) bool {
		if l.hot.acting.Load() {
			held += l.hot.pinned.Load()
			return true
		}
		if l.Err() != nil {
			l.unpin()
			return true
		}
		return false
	})
	busyLogs, edges := 0, int64(0)
	for _, l := range h.logs {
		k, v := l.hotKnown(now)
		end += k.end
		if k.reader >= 0 && k.end > l.hot.ended {
			busyLogs++
		}
		if k.wanted { // its pin begins at a whole window, which may be before its hot window does
			edges += min(cachectl.WindowBytes, k.end-k.start)
		}
		h.known, h.views = append(h.known, k), append(h.views, v)
	}
	known := h.known
	budget = max(0, budget-held)
	lim := hotLimits{budget: budget - min(h.growth+edges, budget/4), keep: h.opt.Keep, drop: h.opt.Drop, memory: h.memory}
	p := planHot(lim, known)
	h.growth = 0
	h.pinned = held
	h.small.Store(pinPlan)
	h.spacing.Store(int64(busyLogs) * int64(hotEvery) / pinSmall)
	room := budget - p.kept
	if h.acts == nil {
		h.acts = map[uint64][]hotAct{}
	}
	for dirs, acts := range h.acts {
		h.acts[dirs] = acts[:0]
	}
	for i, l := range h.logs {
		k := p.logs[i]
		// Also what is not durable yet: once it is, its pages are clean and can be taken.
		end := known[i].end
		if more := l.endPos.Load() - end; k.from < end && more > 0 && more <= room {
			room -= more
			end += more
		}
		if known[i].wanted {
			if n := known[i].end - l.hot.ended; l.hot.ended > 0 && n > 0 {
				h.growth += 4 * n
			}
			l.hot.ended = known[i].end
		} else {
			l.hot.ended = 0
		}
		if known[i].reader >= 0 {
			l.hot.planned.Store(k.from + 1)
		} else { // whoever is still on his way finds what plans have pinned; growing with each sync is not worth its price for him
			l.hot.planned.Store(0)
		}
		v := h.views[i]
		v.From, v.Bytes = k.from-known[i].start, known[i].end-k.from
		from := min(k.from, known[i].end-l.hot.pinned.Load())
		if k.drop > l.hot.dropped {
			from = min(from, l.hot.dropped)
		}
		dirs := l.hotDirs(from)
		h.acts[dirs] = append(h.acts[dirs], hotAct{l, k, known[i].end, end, v})
	}
	busy, done := s.actAll(h.acts, now)
	if !done {
		h.acts = nil
	}
	for _, l := range h.logs {
		h.pinned += l.hot.pinned.Load()
	}
	h.room.Store(max(0, budget+held-h.pinned))
	sum := &HotSummary{Budget: budget + held, Wanted: p.wanted, Kept: p.kept, Pinned: h.pinned, Tail: max(0, p.seconds), Memory: h.memory,
		Dropping: p.dropping, Trouble: s.opt.Cache.PinTrouble()}
	h.summary.Store(sum)
	m := h.metrics
	m.budget.Set(float64(sum.Budget))
	m.wanted.Set(float64(sum.Wanted))
	m.kept.Set(float64(sum.Kept))
	m.seconds.Set(sum.Tail.Seconds())
	m.dropping.Set(0)
	if sum.Dropping {
		m.dropping.Set(1)
	}
	return end, busy || held > 0
}

// hotAct is what a plan says of one log.
type hotAct struct {
	log        *Log
	keep       hotKeep
	known, end int64 // the log's end, by the plan, and that up to which pages are kept
	view       *HotView
}

// hotWait is how long a round waits until what it has planned is done. Looking at pages takes no device; writing them back does, and bringing in
// those that went a moment ago.
const hotWait = stallAfter

// hotDirs tells in which directories what the log has from byte from on lies: a bit for each, as in logPlace.
func (l *Log) hotDirs(from int64) (dirs uint64) {
	v := l.view.Load()
	for i := len(v.segs) - 1; i >= 0; i-- {
		if _, end := v.span(i, math.MaxInt64); end <= from {
			break
		}
		dirs |= v.segs[i].dir.bit()
	}
	return dirs
}

// actAll does what was planned, side by side for what lies in different directories. What a device does not answer is left behind, and its logs have
// no plan until it does; done is false then. busy says that time alone changes something.
func (s *Store) actAll(acts map[uint64][]hotAct, now time.Time) (busy, done bool) {
	drop, waits := &atomic.Int64{}, &atomic.Bool{}
	drop.Store(dropStep)
	var dones []chan struct{}
	for _, acts := range acts {
		if len(acts) == 0 {
			continue
		}
		for _, a := range acts {
			a.log.hot.acting.Store(true)
		}
		done := make(chan struct{})
		dones = append(dones, done)
		s.wg.Go(func() {
			defer close(done)
			for _, a := range acts {
				if a.log.actHot(a, drop, now) {
					waits.Store(true)
				}
				a.log.hot.acting.Store(false)
			}
		})
	}
	if !awaitAll(dones, hotWait) {
		return true, false
	}
	return waits.Load(), true
}

// actHot does what was planned for the log; of all logs together no more is dropped than drop says.
func (l *Log) actHot(a hotAct, drop *atomic.Int64, now time.Time) (busy bool) {
	pinned, err := l.keepHot(a.keep, a.end, now)
	if err != nil {
		l.log.Debug("hot window not pinned", "err", err)
	}
	l.hot.pinned.Store(pinned)
	if left := drop.Load(); a.keep.drop > l.hot.dropped && left > 0 {
		drop.Add(-l.dropHot(a.keep.drop, left))
	}
	v := a.view
	v.Pinned = pinned
	if pinned > 0 {
		v.Reach = l.hotAge(a.known-pinned, now)
	}
	l.hot.view.Store(v)
	return v.Bytes > 0 || a.keep.drop-l.hot.dropped >= cachectl.WindowBytes
}

// hotKnown is what the planner has to know of the log.
func (l *Log) hotKnown(now time.Time) (hotLog, *HotView) {
	st, v := &l.hot, l.view.Load()
	k := hotLog{start: v.segs[0].before.Load(), end: l.durableEnd(), reader: -1}
	st.takeShifts()
	if !st.known {
		st.known, st.seen = true, now
		st.refilled.Store(math.MaxInt64)
		st.dropped = v.segs[max(0, len(v.segs)-2)].before.Load()
		// What is younger than this run; what the readers of the last one may want, when that was looked up.
		marks := []hotMark{{l.endPos.Load() - l.bytesIn.Load(), 0}}
		if found := l.hot.found.Load(); found != nil {
			marks = *found
		}
		for _, m := range marks {
			st.marks[st.n].end, st.marks[st.n].at = m.end, now.Add(-m.age)
			st.n++
		}
	}
	if at := st.refilled.Swap(math.MaxInt64); at < st.dropped {
		st.dropped = at
	}
	st.dropped = max(st.dropped, k.start)
	st.mark(k.end, now, l.store.hot.opt.Keep)
	hv := &HotView{}
	limits := l.store.opt.Readers
	for _, c := range l.cursors.all() {
		at, realtime := c.place.Load(), c.realtime.Load()
		age := l.hotAge(at, now)
		// What it was when it last read; one that reads no more falls behind, and out of the window.
		if !realtime || k.end-at >= limits.MinBytes && age >= limits.MinAge {
			continue
		}
		if since := now.Sub(time.Unix(0, c.readNs.Load())); since > hotLinger {
			continue
		}
		hv.Readers++
		if at = min(at, k.end); k.reader < 0 || at < k.reader {
			k.reader = at
		}
	}
	if k.reader >= 0 {
		st.seen, hv.Slowest = now, k.end-k.reader
	}
	k.wanted = now.Sub(st.seen) < hotLinger
	k.marks = st.list(&l.store.hot.marks, now)
	return k, hv
}

// mark notes where the end is, often enough for keep.
func (st *hotState) mark(end int64, now time.Time, keep time.Duration) {
	if st.n > 0 {
		last := st.marks[(st.n-1)%hotMarks]
		if last.end == end || now.Sub(last.at) < max(hotEvery, keep/(hotMarks/2)) {
			return
		}
	}
	m := &st.marks[st.n%hotMarks]
	m.end, m.at = end, now
	st.n++
}

// list gives the marks, oldest first, in memory taken from the end of scratch.
func (st *hotState) list(scratch *[]hotMark, now time.Time) []hotMark {
	from := len(*scratch)
	for i := max(0, st.n-hotMarks); i < st.n; i++ {
		m := st.marks[i%hotMarks]
		*scratch = append(*scratch, hotMark{m.end, now.Sub(m.at)})
	}
	return (*scratch)[from:]
}

// hotAge is about how long ago the byte at pos was appended; from before the first mark, how long ago that was.
func (l *Log) hotAge(pos int64, now time.Time) time.Duration {
	st := &l.hot
	for i := st.n - 1; i >= max(0, st.n-hotMarks); i-- {
		if m := st.marks[i%hotMarks]; m.end <= pos || i == max(0, st.n-hotMarks) {
			return now.Sub(m.at)
		}
	}
	return 0
}

// segmentPin is a segment's pin. It ends with the segment: the pages of a file that is to be deleted must not be held.
type segmentPin struct {
	mu   sync.Mutex
	pin  *cachectl.Pin
	last time.Time // of the last growth; guarded by hotState.pinning
	gone bool
}

// of gives the pin, nil when the segment is on its way out.
func (p *segmentPin) of(c *cachectl.Cache) *cachectl.Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	if p.pin == nil {
		p.pin = c.NewPin()
	}
	return p.pin
}

// close lets the pages go for good.
func (p *segmentPin) close() {
	p.mu.Lock()
	pin := p.pin
	p.gone, p.pin = true, nil
	p.mu.Unlock()
	if pin != nil {
		_ = pin.Close() // munmap of an own mapping
	}
}

// held is the range of the segment's file that is pinned; both 0 when there is none.
func (p *segmentPin) held() (from, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pin == nil {
		return 0, 0
	}
	return p.pin.Held()
}

// pinned is what the segment holds.
func (p *segmentPin) pinned() int64 {
	from, end := p.held()
	return end - from
}

// keepHot makes the log's pins what was planned, and gives their sum.
func (l *Log) keepHot(k hotKeep, end int64, now time.Time) (pinned int64, err error) {
	v := l.view.Load()
	step := int64(pinStep)
	if end-k.from >= smallWindow {
		step = cachectl.WindowBytes
	}
	l.hot.pinning.Lock()
	defer l.hot.pinning.Unlock()
	for i, s := range v.segs {
		begin, segEnd := v.span(i, end)
		from, to := max(0, k.from-begin), segEnd-begin
		from -= from % step
		if k.from >= segEnd {
			from, to = 0, 0
		}
		if from == to && s.pin.pinned() == 0 {
			continue
		}
		if e := l.holdSegment(s, from, to, now); e != nil {
			err = e
		}
		pinned += s.pin.pinned()
	}
	if k.from < end && l.store.opt.Cache.PinTrouble() != "" {
		l.lookHot(v, k.from, end, now)
	}
	return pinned, err
}

// holdSegment pins [from, to) of one segment as far as it is resident: bringing in what is not would be a read of the device
// that nobody has given a turn.
func (l *Log) holdSegment(s *logSegment, from, to int64, now time.Time) error {
	pin := s.pin.of(l.store.opt.Cache)
	if pin == nil || !s.r.Acquire() {
		return nil
	}
	defer s.r.Release()
	f, err := s.r.File()
	if err != nil {
		return err
	}
	if from == to {
		return pin.Hold(f, 0, 0, 0)
	}
	cache := l.store.opt.Cache
	heldFrom, heldTo := pin.Held()
	to = max(to, heldTo) // a sync may have been ahead of the plan
	if heldFrom == heldTo || heldTo <= from || heldFrom >= to {
		heldFrom, heldTo = to, to // nothing in common: from the end on backwards
	} else if grown := to - heldTo; grown > 0 {
		if grown < pinStep && !l.store.hot.smallStep(now.Sub(s.pin.last)) {
			to = heldTo
		} else if r, err := cache.Residency(f, heldTo, grown); err == nil && r.Resident < r.Pages {
			l.store.lostHot(min(r.Pages-r.Resident, max(r.RecentlyEvicted, 0)))
			if grown > pinUnseen {
				to = heldTo
			}
		}
	}
	if to > heldTo || heldFrom == heldTo {
		s.pin.last = now
	}
	// Backwards while pages are there.
	first := max(from, heldFrom)
	for first > from {
		next := max(from, (first-1)/cachectl.WindowBytes*cachectl.WindowBytes)
		if there, err := cache.Resident(f, next, first-next); err != nil || !there {
			break
		}
		first = next
	}
	if first >= to {
		return nil
	}
	return pin.Hold(f, first, to, int64(l.config().SegmentBytes))
}

// smallStep tells whether a step of less than pinStep may be made now, when the last one was so long ago.
func (h *hotWindows) smallStep(since time.Duration) bool {
	if since >= pinDelay && h.small.Add(-1) >= 0 {
		return true
	}
	return since >= pinLate
}

// lookHot counts what went of a window that cannot be pinned, once a second.
func (l *Log) lookHot(v *view, from, end int64, now time.Time) {
	st := &l.hot
	if now.Sub(st.looked) < time.Second {
		return
	}
	st.looked = now
	var evicted int64
	for i, s := range v.segs {
		begin, segEnd := v.span(i, end)
		if pos := max(from, begin) - begin; segEnd-begin > pos && s.r.Acquire() {
			if f, err := s.r.File(); err == nil {
				if r, err := l.store.opt.Cache.Residency(f, pos, segEnd-begin-pos); err == nil {
					evicted += r.RecentlyEvicted
				}
			}
			s.r.Release()
		}
	}
	l.store.lostHot(max(0, evicted-st.evicted))
	st.evicted = evicted
}

// lostHot counts pages that something took from hot windows, and tells those who set the budgets of cold reads.
func (s *Store) lostHot(pages int64) {
	if pages > 0 {
		s.hot.metrics.refaulted.Add(float64(pages))
		s.EvictedHotPages(pages)
	}
}

// refill says that a real-time reader brings in pages from pos on: what lies before the window now has pages again.
func (l *Log) refill(pos int64) {
	for at := l.hot.refilled.Load(); pos < at; at = l.hot.refilled.Load() {
		if l.hot.refilled.CompareAndSwap(at, pos) {
			return
		}
	}
}

// dropHot drops pages up to to, at most that many bytes, and gives how many it looked at.
func (l *Log) dropHot(to, most int64) (done int64) {
	st, v := &l.hot, l.view.Load()
	for i, s := range v.segs {
		begin, segEnd := v.span(i, to)
		pos, end := max(0, st.dropped-begin), segEnd-begin
		if whole := i+1 < len(v.segs) && end == s.bytes(); !whole { // whole windows only: a large folio that is only partly inside stays
			end -= end % cachectl.WindowBytes
		}
		if end <= pos {
			continue
		}
		end = min(end, pos-pos%cachectl.WindowBytes+most-done)
		if end <= pos || !s.r.Acquire() {
			return done
		}
		f, err := s.r.File()
		var e cachectl.Evicted
		if err == nil {
			e, err = l.store.opt.Cache.Evict(f, pos, end-pos)
		}
		s.r.Release()
		done += end - pos
		if err != nil {
			l.log.Debug("pages behind the readers not dropped", "err", err)
		}
		l.store.hot.metrics.dropped.Add(float64(e.DroppedPages * cachectl.PageSize))
		if e.DirtyPages > 0 && st.tries < dropTries { // write-back has begun
			st.tries++
			return done
		}
		st.tries = 0
		l.store.hot.metrics.ineffective.Add(float64(e.LeftPages * cachectl.PageSize))
		st.dropped = begin + end
		if done >= most {
			return done
		}
	}
	return done
}

// HotWindow is the partition's hot window as it was last planned; the zero value before that, and without hot windows.
func (l *Log) HotWindow() HotView {
	if v := l.hot.view.Load(); v != nil {
		return *v
	}
	return HotView{}
}

// HotWindows is all of them together; ok is false when they are off, or not planned yet.
func (s *Store) HotWindows() (HotSummary, bool) {
	if sum := s.hot.summary.Load(); sum != nil {
		return *sum, true
	}
	return HotSummary{}, false
}

// notePlace remembers, for the hot windows, where the reader is. at is on the scale of Log.endPos.
func (c *cursor) notePlace(at int64, now time.Time) {
	c.place.Store(at)
	c.readNs.Store(now.UnixNano())
	c.realtime.Store(c.class.State == admission.Realtime)
}
