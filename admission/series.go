package admission

import "time"

// A minute is kept as twelve buckets of five seconds: rates over about a minute for 100 bytes per series.
const (
	seriesBuckets = 12
	seriesStep    = 5 * time.Second
)

// seriesClock turns times into bucket numbers, counted from the first time it sees. Time never runs back.
type seriesClock struct{ epoch, latest time.Time }

func (c *seriesClock) ns(now time.Time) int64 {
	if c.epoch.IsZero() {
		c.epoch, c.latest = now, now
	}
	if now.After(c.latest) {
		c.latest = now
	}
	return int64(c.latest.Sub(c.epoch))
}

func (c *seriesClock) slot(now time.Time) int64 { return c.ns(now) / int64(seriesStep) }

// series is a sum per bucket over the last minute. The zero value is empty.
type series struct {
	buckets [seriesBuckets]int64
	at      int64 // slot of the newest bucket
	total   int64 // since the start
}

func (s *series) add(slot, n int64) {
	s.advance(slot)
	s.buckets[s.at%seriesBuckets] += n
	s.total += n
}

// sum is the sum over the buckets up to slot.
func (s *series) sum(slot int64) int64 {
	s.advance(slot)
	var sum int64
	for _, n := range s.buckets {
		sum += n
	}
	return sum
}

func (s *series) advance(slot int64) {
	if slot-s.at >= seriesBuckets {
		s.buckets, s.at = [seriesBuckets]int64{}, slot
	}
	for s.at < slot {
		s.at++
		s.buckets[s.at%seriesBuckets] = 0
	}
}

// seriesSpan is the time that the buckets cover for something that began at start: at most a minute, at least a second,
// so that the first bytes do not look like a huge rate.
func seriesSpan(c *seriesClock, start, now time.Time) time.Duration {
	covered := time.Duration(c.ns(now)%int64(seriesStep)) + (seriesBuckets-1)*seriesStep
	return max(min(covered, now.Sub(start)), time.Second)
}

func perSecond(n int64, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64(float64(n) / d.Seconds())
}

// trend follows a reader's distance to the end: one sample per bucket. The zero value has no samples.
type trend struct {
	atNs   [seriesBuckets]int64
	behind [seriesBuckets]int64
	n      int // samples taken; the newest is at (n-1)%seriesBuckets
	lastNs int64
	last   int64 // newest distance, may be newer than the newest sample
	gains  bool  // verdict of the last sample
}

func (t *trend) add(ns, behind int64) {
	t.lastNs, t.last = ns, behind
	if t.n > 0 && ns-t.atNs[(t.n-1)%seriesBuckets] < int64(seriesStep) {
		return
	}
	if since, ok := t.before(ns - int64(gainSpan)); ok {
		t.gains = behind < since
	}
	t.atNs[t.n%seriesBuckets], t.behind[t.n%seriesBuckets] = ns, behind
	t.n++
}

// gaining is judged once per bucket, so that it cannot flutter from fetch to fetch.
func (t *trend) gaining() bool { return t.gains }

// before is the newest sample that is at least as old as ns.
func (t *trend) before(ns int64) (behind int64, ok bool) {
	for i := t.n - 1; i >= max(0, t.n-seriesBuckets); i-- {
		if t.atNs[i%seriesBuckets] <= ns {
			return t.behind[i%seriesBuckets], true
		}
	}
	return 0, false
}

// closing is the speed in bytes per second at which the distance shrank over the samples of the last minute; 0 while it
// grows or is not known yet.
func (t *trend) closing() int64 {
	if t.n == 0 {
		return 0
	}
	oldest := max(0, t.n-seriesBuckets) % seriesBuckets
	span := time.Duration(t.lastNs - t.atNs[oldest])
	if span < 2*time.Second {
		return 0
	}
	return max(0, perSecond(t.behind[oldest]-t.last, span))
}
