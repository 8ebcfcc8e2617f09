package partition

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stall.go tells of devices that do not answer. A latency is known when it is over, and a device that hangs ends nothing; so this looks
// at what is on its way. It takes no lock that is held across device I/O.

// stallAfter is for how long an I/O may be on its way before that is told: with a look each second, within 5 s.
const stallAfter = 4 * time.Second

// ioKind is what an I/O is for.
type ioKind uint8

const (
	ioAppend     ioKind = iota // a write at the end of a log, or its next segment
	ioCommit                   // write-out, sync and seal of a log; a round of the commit journal, and a piece that is written out for it
	ioRead                     // a read for a reader, around the page cache or through it
	ioOpen                     // descriptor and index of a segment
	ioBackground               // for migrations, compactions, retention, checkpoints and plans
	numIOKinds
)

func (k ioKind) String() string {
	return [...]string{"append", "commit", "read", "open", "background"}[k]
}

// onWay is the one I/O of a kind that a log can have on its way. The zero value: none is.
type onWay struct{ since atomic.Int64 } // ns since Store.opened, plus 1: a jump of the wall clock is no part of that

func (o *onWay) begin(uptime time.Duration) { o.since.Store(int64(uptime) + 1) }

func (o *onWay) end() { o.since.Store(0) }

func (o *onWay) age(uptime time.Duration) time.Duration {
	since := o.since.Load()
	if since == 0 {
		return 0
	}
	return max(0, uptime-time.Duration(since-1))
}

// manyOnWay are any number of I/Os of a kind. Safe for concurrent use; the zero value is ready.
type manyOnWay struct {
	mu    sync.Mutex
	since map[*time.Time]struct{}
}

// begin notes one until end is called.
func (m *manyOnWay) begin(now time.Time) (end func()) {
	since := &now
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since == nil {
		m.since = map[*time.Time]struct{}{}
	}
	m.since[since] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.since, since)
	}
}

// age is that of the oldest.
func (m *manyOnWay) age(now time.Time) (oldest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for since := range m.since {
		oldest = max(oldest, now.Sub(*since))
	}
	return oldest
}

// work notes background I/O of d until end is called.
func (s *Store) work(d *logDir) (end func()) { return d.workOnWay.begin(s.now()) }

// workIO is the background I/O of one goroutine, which goes from one directory to another. nil: nobody wants to know.
type workIO struct {
	store *Store
	end   func() // nil: none is on its way
}

// at notes that what follows is I/O of d; nil: none.
func (w *workIO) at(d *logDir) {
	if w == nil {
		return
	}
	if w.end != nil {
		w.end()
		w.end = nil
	}
	if d != nil {
		w.end = w.store.work(d)
	}
}

// oldestIO is for how long the oldest I/O of each directory and kind is on its way, 0 without one.
func (s *Store) oldestIO() [][numIOKinds]time.Duration {
	out, now := make([][numIOKinds]time.Duration, len(s.dirs)), s.now()
	uptime := now.Sub(s.opened)
	s.mu.RLock()
	for _, l := range s.logs {
		ages := &out[l.home.index]
		ages[ioAppend] = max(ages[ioAppend], l.appendOnWay.age(uptime))
		ages[ioCommit] = max(ages[ioCommit], l.commitOnWay.age(uptime))
	}
	s.mu.RUnlock()
	for i, d := range s.dirs {
		out[i][ioRead], out[i][ioOpen], out[i][ioBackground] = d.readsOnWay.age(now), d.opensOnWay.age(now), d.workOnWay.age(now)
		if j := d.journal; j != nil {
			out[i][ioCommit] = max(out[i][ioCommit], j.roundOnWay.age(uptime), j.pieceOnWay.age(uptime))
		}
	}
	return out
}

// Stall is a log directory whose device has not answered for some seconds.
type Stall struct {
	Dir, Tier, Path string
	IO              string        // append, commit, read, open, background
	For             time.Duration // the oldest is on its way
}

// Stalls lists I/O that does not come back, by directory and kind. Prompt whatever the devices do.
func (s *Store) Stalls() (out []Stall) {
	for i, ages := range s.oldestIO() {
		d := s.dirs[i]
		for kind, age := range ages {
			if age >= stallAfter {
				out = append(out, Stall{Dir: d.name, Tier: d.spec.Tier, Path: d.spec.FS.Root(), IO: ioKind(kind).String(), For: age})
			}
		}
	}
	return out
}

// watchStalls logs once when I/O of a directory does not come back, and once when it does again. One caller at a time.
func (s *Store) watchStalls(time.Time) {
	for i, ages := range s.oldestIO() {
		d := s.dirs[i]
		d.hangs.Store(slices.Max(ages[:]) >= stallAfter)
		for kind, age := range ages {
			stalled := age >= stallAfter
			if stalled == d.stalled[kind] {
				continue
			}
			d.stalled[kind] = stalled
			if stalled {
				d.log.Warn("device does not answer: I/O of the log directory has not come back",
					"tier", d.spec.Tier, "path", d.spec.FS.Root(), "io", ioKind(kind).String(), "elapsed", age.Round(time.Millisecond))
			} else {
				d.log.Info("device answers again", "tier", d.spec.Tier, "path", d.spec.FS.Root(), "io", ioKind(kind).String())
			}
		}
	}
}

// stallCollector exports the age of what is on its way at scrape time.
type stallCollector struct{ s *Store }

var oldestIODesc = prometheus.NewDesc("lagoon_tier_oldest_io_seconds",
	"For how long the oldest I/O is on its way that has not come back from the device; 0: none is.", []string{"tier", "io"}, nil)

// Describe implements prometheus.Collector.
func (c stallCollector) Describe(ch chan<- *prometheus.Desc) { ch <- oldestIODesc }

// Collect implements prometheus.Collector.
func (c stallCollector) Collect(ch chan<- prometheus.Metric) {
	for i, ages := range c.s.oldestIO() {
		for kind, age := range ages {
			ch <- prometheus.MustNewConstMetric(oldestIODesc, prometheus.GaugeValue, age.Seconds(), c.s.dirs[i].name, ioKind(kind).String())
		}
	}
}
