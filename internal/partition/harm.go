package partition

import (
	"sync/atomic"
	"time"

	"lagoon/admission"
)

// harm.go measures what cold reads may do to the real-time path, where it happens; budget.go makes budgets of it.

// latencyCounter counts durations by bucket until they are drained. Counting is one atomic addition.
type latencyCounter struct {
	buckets [admission.NumLatencyBuckets]atomic.Uint32
}

func (c *latencyCounter) observe(d time.Duration) { c.buckets[admission.LatencyBucket(d)].Add(1) }

// drain adds what was counted since the last drain.
func (c *latencyCounter) drain(into *admission.Latencies) {
	for i := range c.buckets {
		if c.buckets[i].Load() != 0 { // most are empty, and looking does not take the cache line from others
			into[i] += c.buckets[i].Swap(0)
		}
	}
}

// inProgress tells whether a kind of work moves: how many are on their way, and since when none has come to an end. A
// latency is known when it is over, and a device that hangs ends nothing.
type inProgress struct {
	running atomic.Int64
	movedNs atomic.Int64 // on the store's clock
}

func (p *inProgress) begin(now time.Time) {
	if p.running.Add(1) == 1 {
		p.movedNs.Store(now.UnixNano())
	}
}

func (p *inProgress) end(now time.Time) {
	p.movedNs.Store(now.UnixNano())
	p.running.Add(-1)
}

// stuck is how long nothing has come to an end, 0 when nothing is on its way.
func (p *inProgress) stuck(now time.Time) time.Duration {
	if p.running.Load() == 0 {
		return 0
	}
	return max(0, time.Duration(now.UnixNano()-p.movedNs.Load()))
}

// dirHarm is what one log directory shows.
type dirHarm struct {
	produce latencyCounter // append until durable, the oldest append of each commit; with a flush interval each append
	syncs   latencyCounter // what acks wait for
	reads   latencyCounter // cold reads
	syncing inProgress     // what acks wait for
	reading inProgress     // cold reads
	readNs  atomic.Int64   // cold reads together

	flushing atomic.Int64 // syncs of segment files that are under way, whoever waits for them
}

// beginRead counts one read of the device until the function that it gives is called.
func (h *dirHarm) beginRead(now func() time.Time) (end func()) {
	began := now()
	h.reading.begin(began)
	return func() {
		ended := now()
		h.reading.end(ended)
		h.reads.observe(ended.Sub(began))
		h.readNs.Add(int64(max(0, ended.Sub(began))))
	}
}

// delayCause is what a device did beside a read that a real-time reader waited for. The first that holds counts.
type delayCause uint8

const (
	delayCatchup   delayCause = iota // cold reads
	delayMigration                   // migrations, compaction, tails that are warmed after a start
	delayWriteback                   // syncs
	delayUnknown                     // nothing that is known of
	numDelayCauses
)

func (c delayCause) String() string {
	return [...]string{"catchup_io", "migration", "writeback", "unknown"}[c]
}

// beside tells what the device of d does now, with all log directories on it.
func (s *Store) beside(d *logDir) delayCause {
	cause := delayUnknown
	for _, o := range s.dirs {
		if o != d && (d.device == 0 || o.device != d.device) {
			continue
		}
		switch reads, migrations := o.cold.atWork(); {
		case reads:
			cause = min(cause, delayCatchup)
		case migrations:
			cause = min(cause, delayMigration)
		case o.harm.syncing.running.Load() > 0 || o.harm.flushing.Load() > 0:
			cause = min(cause, delayWriteback)
		}
	}
	return cause
}

// storeHarm is what the store as a whole shows.
type storeHarm struct {
	fetch   latencyCounter
	misses  atomic.Int64
	evicted atomic.Int64
	told    atomic.Int64 // when a miss was last logged, on the store's clock
	untold  atomic.Int64 // misses since then
	cached  atomic.Bool  // since the last sample a cold read has left pages in the page cache, if only for a while
}

// missedEvery is how often a miss of a real-time reader is logged at most.
const missedEvery = 10 * time.Second

// missed counts a real-time read that needs the device for [pos, pos+n) of s, and says what is missing there: pages that the kernel took back, for
// want of memory or by age, have left a trace (evicted); others were dropped, or never read since the start.
func (l *Log) missed(c *cursor, s *logSegment, pos, n int64, now time.Time) {
	st := l.store
	st.metrics.tailColdReads.Inc()
	st.harm.misses.Add(1)
	untold := st.harm.untold.Add(1)
	told := st.harm.told.Load()
	if told != 0 && now.UnixNano()-told < int64(missedEvery) || !st.harm.told.CompareAndSwap(told, now.UnixNano()) {
		return
	}
	st.harm.untold.Add(-untold)
	f, err := s.r.File()
	if err != nil {
		return
	}
	r, err := st.opt.Cache.Residency(f, pos, n)
	if err != nil {
		return
	}
	from, to := s.pin.held()
	l.log.Info("a real-time reader needs the device", "client", c.key.Client, "group", c.key.Group, "offset", c.offset, "behind_bytes", c.behind,
		"segment", s.r.LogName(), "pos", pos, "pages", r.Pages, "resident", r.Resident, "evicted", r.Evicted, "pinned_from", from, "pinned_to", to, "misses", untold)
}

// RealtimeFetch counts one answer with records for a real-time reader: the time since the records were readable and asked for,
// whichever came last, until they were handed to the socket. The wait of a long poll is no part of it.
func (s *Store) RealtimeFetch(d time.Duration) { s.harm.fetch.observe(d) }

// EvictedHotPages counts pages of hot windows that were evicted and are wanted again.
func (s *Store) EvictedHotPages(n int64) { s.harm.evicted.Add(n) }
