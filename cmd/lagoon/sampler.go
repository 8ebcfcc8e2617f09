package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
	"lagoon/internal/admin"
)

const (
	// samplerShare is the part of one core that looking at the page cache may take: 100,000 cells of a mebibyte take 40 ms with large
	// folios and a second or two with small ones (measured), so looking at everything all the time is not possible.
	samplerShare = 0.01
	// askShare is what of it questions may take, so that the metrics do not grow old because somebody looks at a map.
	askShare = samplerShare / 2
	// samplerBurst is what an idle sampler saves up, for the first look after a start and for questions that come rarely.
	samplerBurst = 200 * time.Millisecond
	// samplerDebt is what questions may overdraw; what is left then is shown as old as it is.
	samplerDebt = 200 * time.Millisecond
	// samplerFresh: a question does not look again at what was looked at so lately.
	samplerFresh = 250 * time.Millisecond
	// A sealed segment that looks as it did the last time is looked at half as often, down to samplerRest, or to samplerWatch
	// while somebody looks at its partition.
	samplerRest  = time.Minute
	samplerWatch = 5 * time.Second
	// watchTime is how long a question keeps its partitions in front.
	watchTime = 30 * time.Second
	// samplerWait is how long a look is waited for: a file that is not open is opened for it, and a device may not answer.
	samplerWait = time.Second
)

// segmentKey names one copy of a segment: after a migration it is another.
type segmentKey struct{ dir, file string }

// rowKey names one partition.
type rowKey struct {
	topic     string
	partition int32
}

// sampled is a segment to look at.
type sampled struct {
	key  segmentKey
	row  rowKey
	size int64
	busy bool // being appended, or a reader is in it: it changes
	stat func(pos, n int64) (cachectl.Residency, error)
}

// segmentSample is what the last look at a segment found.
type segmentSample struct {
	at     time.Time
	row    rowKey
	size   int64
	method string
	grid   grid
	wait   time.Duration // until the next look
	failed bool          // the kernel did not answer: nothing is known
}

// budget is a bucket of processor time that fills by a share of a core.
type budget struct {
	share  float64
	tokens time.Duration
	at     time.Time
}

func (b *budget) fill(now time.Time) time.Duration {
	if !b.at.IsZero() {
		b.tokens = min(samplerBurst, b.tokens+time.Duration(float64(now.Sub(b.at))*b.share))
	}
	b.at = now
	return b.tokens
}

// sampler looks at the residency of all segments within one percent of a core: partitions that somebody looks at and what changes
// often, what stays as it is seldom. Safe for concurrent use.
type sampler struct {
	list  func() []sampled
	every time.Duration
	now   func() time.Time

	mu      sync.Mutex
	budget  budget // of everything
	asked   budget // of questions
	spent   time.Duration
	method  string
	samples map[segmentKey]*segmentSample
	watched map[rowKey]time.Time // until when
	onWay   map[string]*onWay    // looks, by log directory
}

// onWay are looks at a log directory's segments that have not ended.
type onWay struct {
	n     int
	since time.Time // the first began, or one ended
}

func newSampler(list func() []sampled, every time.Duration, now func() time.Time) *sampler {
	return &sampler{list: list, every: every, now: now, method: "none",
		budget: budget{share: samplerShare, tokens: samplerBurst}, asked: budget{share: askShare, tokens: samplerBurst},
		samples: map[segmentKey]*segmentSample{}, watched: map[rowKey]time.Time{}, onWay: map[string]*onWay{}}
}

// register exports what the sampler costs and how old its oldest answer is.
func (s *sampler) register(reg prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "lagoon_cache_sampler_cpu_seconds_total",
			Help: "Time spent asking the kernel what is resident."}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.spent.Seconds()
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lagoon_cache_sample_age_seconds",
			Help: "Age of the oldest residency that is shown."}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			oldest := s.now()
			for _, one := range s.samples {
				if !one.at.IsZero() && one.at.Before(oldest) { // zero: forgotten, and looked at next
					oldest = one.at
				}
			}
			return s.now().Sub(oldest).Seconds()
		}),
	} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// run looks around until ctx ends, at most once an interval and only with budget.
func (s *sampler) run(ctx context.Context) {
	for {
		s.sweep(ctx)
		s.mu.Lock()
		short := -s.budget.fill(s.now())
		s.mu.Unlock()
		pause := time.NewTimer(max(s.every, time.Duration(float64(short)/samplerShare)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// sweep looks at what is due, most wanted first, until the budget is spent, and forgets what is gone.
func (s *sampler) sweep(ctx context.Context) {
	began := s.now()
	all := s.list()
	s.mu.Lock()
	here := make(map[segmentKey]bool, len(all))
	for _, c := range all {
		here[c.key] = true
	}
	for key := range s.samples {
		if !here[key] {
			delete(s.samples, key)
		}
	}
	for row, until := range s.watched {
		if began.After(until) {
			delete(s.watched, row)
		}
	}
	due := s.due(all, began)
	s.mu.Unlock()
	s.look(ctx, due, began, false)
}

// due are the segments whose time has come: those that somebody watches, those that change and the others in turns, so that none
// starves the rest; of each kind the one looked at longest ago first. Called with mu held.
func (s *sampler) due(all []sampled, now time.Time) []sampled {
	type candidate struct {
		sampled
		at time.Time // when it became due
	}
	var kinds [3][]candidate
	for _, c := range all {
		_, watched := s.watched[c.row]
		kind, at := 2, time.Time{}
		if c.busy {
			kind = 1
		}
		if watched {
			kind = 0
		}
		if one := s.samples[c.key]; one != nil {
			wait := one.wait
			if c.busy {
				wait = s.every
			}
			if watched {
				wait = min(wait, samplerWatch)
			}
			at = one.at.Add(wait)
		}
		if !at.After(now) {
			kinds[kind] = append(kinds[kind], candidate{c, at})
		}
	}
	var out []sampled
	for _, list := range kinds {
		slices.SortStableFunc(list, func(a, b candidate) int { return a.at.Compare(b.at) })
	}
	for i := 0; i < max(len(kinds[0]), len(kinds[1]), len(kinds[2])); i++ {
		for _, list := range kinds {
			if i < len(list) {
				out = append(out, list[i].sampled)
			}
		}
	}
	return out
}

// refresh looks again at the segments of a question that were not looked at just now, and keeps their partitions in front.
func (s *sampler) refresh(ctx context.Context, list []sampled) {
	began := s.now()
	s.mu.Lock()
	var old []sampled
	for _, c := range list {
		s.watched[c.row] = began.Add(watchTime)
		if one := s.samples[c.key]; one == nil || began.Sub(one.at) >= samplerFresh {
			old = append(old, c)
		}
	}
	at := func(c sampled) time.Time {
		if one := s.samples[c.key]; one != nil {
			return one.at
		}
		return time.Time{}
	}
	slices.SortStableFunc(old, func(a, b sampled) int { return at(a).Compare(at(b)) })
	s.mu.Unlock()
	s.look(ctx, old, began, true)
}

// look has lookAt look, and waits samplerWait for it.
func (s *sampler) look(ctx context.Context, list []sampled, began time.Time, question bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.lookAt(ctx, list, began, question)
	}()
	late := time.NewTimer(samplerWait)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}

// begin notes a look at a segment of dir; false while others there do not come back.
func (s *sampler) begin(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.onWay[dir]
	if w == nil {
		w = &onWay{since: s.now()}
		s.onWay[dir] = w
	}
	if s.now().Sub(w.since) >= samplerWait {
		return false
	}
	w.n++
	return true
}

// endLocked notes that a look has come back. Called with mu held.
func (s *sampler) endLocked(dir string) {
	w := s.onWay[dir]
	w.since = s.now()
	if w.n--; w.n == 0 {
		delete(s.onWay, dir)
	}
}

// lookAt asks the kernel about one segment after the other while there is budget, and pays for the time since began: what one of them waits for a
// device is no processor time.
func (s *sampler) lookAt(ctx context.Context, list []sampled, began time.Time, question bool) {
	pay := func() bool {
		now := s.now()
		s.mu.Lock()
		defer s.mu.Unlock()
		left, asked := s.budget.fill(now), s.asked.fill(now)
		took := min(now.Sub(began), samplerBurst)
		began = now
		s.spent += took
		s.budget.tokens -= took
		if question {
			s.asked.tokens -= took
			return asked-took+samplerDebt > 0
		}
		return left-took > 0
	}
	for _, c := range list {
		if !pay() || ctx.Err() != nil {
			return
		}
		if !s.begin(c.key.dir) {
			continue
		}
		g, method, err := look(c.size, c.stat)
		s.mu.Lock()
		s.endLocked(c.key.dir)
		s.keep(c, g, method, err != nil)
		s.mu.Unlock()
	}
	pay()
}

// keep stores a sample; one that is as it was waits longer for the next look. Called with mu held.
func (s *sampler) keep(c sampled, g grid, method string, failed bool) {
	next := &segmentSample{at: s.now(), row: c.row, size: c.size, method: method, grid: g, wait: s.every, failed: failed}
	if was := s.samples[c.key]; was != nil && !c.busy && was.size == c.size && was.failed == failed && was.grid.equal(g) {
		next.wait = min(samplerRest, 2*was.wait)
	}
	if method != "" {
		s.method = method
	}
	s.samples[c.key] = next
}

// forget makes a partition due: somebody changed what is resident.
func (s *sampler) forget(row rowKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.samples {
		if one.row == row {
			one.at, one.wait = time.Time{}, s.every
		}
	}
}

// of is the last look at a segment; the zero grid when there was none.
func (s *sampler) of(key segmentKey) (segmentSample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.samples[key]; one != nil && !one.failed {
		return *one, true
	}
	return segmentSample{}, false
}

// residentOn is what is resident of a log directory.
func (s *sampler) residentOn(dir string) (bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.samples {
		if key.dir == dir {
			bytes += one.grid.resident
		}
	}
	return bytes
}

// check fails while residency is asked in a slow way, or not told. Where there is nothing to look at nothing is known.
func (s *sampler) check() admin.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.method == "none" && len(s.samples) == 0 {
		return admin.Check{Name: "cachestat", OK: true, Severity: "warn", Text: "nothing to look at yet"}
	}
	return admin.Check{Name: "cachestat", OK: s.method != "mincore" && s.method != "none", Severity: "warn", Text: "residency by " + s.method}
}

func (s *sampler) lastMethod() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.method
}
