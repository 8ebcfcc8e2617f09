package admission

import (
	"math/bits"
	"time"
)

// latencyBuckets cover 1 µs to 67 s in sixteenths of an octave: a width of at most 6.25 %, finer than the 10 % by which a
// tail may suffer.
const (
	latencySubBits = 4
	latencySubs    = 1 << latencySubBits
	latencyOctaves = 22
	// NumLatencyBuckets is the length of Latencies.
	NumLatencyBuckets = latencySubs * (latencyOctaves + 1)
)

// Latencies counts durations by LatencyBucket.
type Latencies [NumLatencyBuckets]uint32

// LatencyBucket is the bucket of a duration. Allocates nothing.
func LatencyBucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < latencySubs {
		return int(us)
	}
	shift := bits.Len64(us) - latencySubBits - 1
	i := (shift+1)*latencySubs + int(us>>shift) - latencySubs
	return min(i, NumLatencyBuckets-1)
}

// LatencyBound is the exclusive upper bound of a bucket.
func LatencyBound(bucket int) time.Duration {
	if bucket < latencySubs {
		return time.Duration(bucket+1) * time.Microsecond
	}
	shift := bucket/latencySubs - 1
	return time.Duration(uint64(bucket%latencySubs+latencySubs+1)<<shift) * time.Microsecond
}

// Add counts n durations of d.
func (l *Latencies) Add(d time.Duration, n uint32) { l[LatencyBucket(d)] += n }

// Total is how many durations were counted.
func (l *Latencies) Total() (n int64) {
	for _, c := range l {
		n += int64(c)
	}
	return n
}

// above counts what lies in the buckets above that of d.
func (l *Latencies) above(d time.Duration) (n int64) {
	for _, c := range l[LatencyBucket(d)+1:] {
		n += int64(c)
	}
	return n
}

// latencyMass is a histogram that fades.
type latencyMass [NumLatencyBuckets]float32

func (m *latencyMass) fade(factor float32) {
	for i := range m {
		m[i] *= factor
	}
}

func (m *latencyMass) add(l *Latencies) {
	for i, n := range l {
		m[i] += float32(n)
	}
}

func (m *latencyMass) total() (sum float64) {
	for _, n := range m {
		sum += float64(n)
	}
	return sum
}

// quantile is the upper bound of the bucket that holds quantile q, 0 when nothing is in it.
func (m *latencyMass) quantile(q float64) time.Duration {
	total := m.total()
	if total <= 0 {
		return 0
	}
	rest := total * (1 - q)
	for i := NumLatencyBuckets - 1; i >= 0; i-- {
		if rest -= float64(m[i]); rest < 0 {
			return LatencyBound(i)
		}
	}
	return LatencyBound(0)
}

// median is the middle, within its bucket in proportion: a bucket's width is what a budget may move a median by. 0 when nothing is in it.
func (m *latencyMass) median() time.Duration {
	rest := m.total() / 2
	if rest <= 0 {
		return 0
	}
	for i, count := range m {
		n := float64(count)
		if rest > n {
			rest -= n
			continue
		}
		from := time.Duration(0)
		if i > 0 {
			from = LatencyBound(i - 1)
		}
		return from + time.Duration(rest/n*float64(LatencyBound(i)-from))
	}
	return LatencyBound(NumLatencyBuckets - 1)
}

// above is the share that lies above the bucket of d.
func (m *latencyMass) above(d time.Duration) float64 {
	total := m.total()
	if total <= 0 {
		return 0
	}
	var sum float64
	for _, n := range m[LatencyBucket(d)+1:] {
		sum += float64(n)
	}
	return sum / total
}
