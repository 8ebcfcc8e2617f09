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
	syncing inProgress
	reading inProgress
}

// beginRead counts one read of the device until the function that it gives is called.
func (h *dirHarm) beginRead(now func() time.Time) (end func()) {
	began := now()
	h.reading.begin(began)
	return func() {
		ended := now()
		h.reading.end(ended)
		h.reads.observe(ended.Sub(began))
	}
}

// storeHarm is what the store as a whole shows.
type storeHarm struct {
	fetch   latencyCounter
	misses  atomic.Int64
	evicted atomic.Int64
	cached  atomic.Bool // since the last sample a cold read has left pages in the page cache, if only for a while
}

// RealtimeFetch counts one answer with records for a real-time reader: the time since the records were readable and asked for,
// whichever came last, until they were handed to the socket. The wait of a long poll is no part of it.
func (s *Store) RealtimeFetch(d time.Duration) { s.harm.fetch.observe(d) }

// EvictedHotPages counts pages of hot windows that were evicted and are wanted again.
func (s *Store) EvictedHotPages(n int64) { s.harm.evicted.Add(n) }
