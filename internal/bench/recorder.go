package bench

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"lagoon/internal/bench/report"
)

// maxLatency is the longest that is told apart, in µs: an hour.
const maxLatency = int64(time.Hour / time.Microsecond)

// recorder keeps one role's latencies by the time at which records were due: a histogram per phase, good to 0.1 %, and one per
// second, good to 1 %. Safe for concurrent use.
type recorder struct {
	role  string
	start int64 // ns since 1970, where second 0 begins

	mu      sync.Mutex
	phases  []phaseHistogram
	seconds []distribution
}

type phaseHistogram struct {
	from, to   int64 // ns since 1970
	h          *hdrhistogram.Histogram
	unfinished int64
}

func newRecorder(role string, start time.Time) *recorder {
	return &recorder{role: role, start: start.UnixNano()}
}

// phase opens the next phase, which begins in the future.
func (r *recorder) phase(from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phases = append(r.phases, phaseHistogram{from: from.UnixNano(), to: to.UnixNano(), h: hdrhistogram.New(1, maxLatency, 3)})
}

// record adds one latency of a record that was due at a time, both in ns. Too early is 0.
func (r *recorder) record(due, latency int64) {
	r.mu.Lock()
	r.add(due, latency, 0)
	r.mu.Unlock()
}

// unfinished adds a record that never came, as late as it is at the end of the run.
func (r *recorder) unfinished(due, end int64) {
	r.mu.Lock()
	r.add(due, end-due, 1)
	r.mu.Unlock()
}

func (r *recorder) add(due, latency, unfinished int64) {
	us := min(max(latency/1000, 0), maxLatency)
	for i := len(r.phases) - 1; i >= 0; i-- {
		if p := &r.phases[i]; due >= p.from && due < p.to {
			_ = p.h.RecordValue(us) // within bounds
			p.unfinished += unfinished
			break
		}
	}
	second := int((due - r.start) / int64(time.Second))
	if due < r.start || second >= maxSeconds {
		return
	}
	for len(r.seconds) <= second {
		r.seconds = append(r.seconds, nil)
	}
	r.seconds[second].add(us)
}

// maxSeconds bounds the memory of a chart: 1 or 2 KiB a second and role. Longer runs have figures for every phase, but a chart of the beginning.
const maxSeconds = 7200

// distribution is a histogram as hdrhistogram's of two digits, but only of what occurs: the values of one second lie close together, and all
// the buckets of every second and role were a gigabyte after an hour. Sorted by bucket.
type distribution []bucketCount

type bucketCount struct{ bucket, count uint32 }

// bucketBits: values of up to 8 bits are told apart, larger ones by their first 8.
const bucketBits = 8

func (d *distribution) add(v int64) {
	shift := max(bits.Len64(uint64(v))-bucketBits, 0)
	b := uint32(shift)<<bucketBits | uint32(v>>shift)
	i, found := slices.BinarySearchFunc(*d, b, func(c bucketCount, b uint32) int { return cmp.Compare(c.bucket, b) })
	if !found {
		*d = slices.Insert(*d, i, bucketCount{bucket: b})
	}
	(*d)[i].count++
}

// largest is the largest value of a bucket.
func (c bucketCount) largest() int64 {
	shift, first := c.bucket>>bucketBits, int64(c.bucket&(1<<bucketBits-1))
	return (first+1)<<shift - 1
}

// figures are the number of values, two quantiles and the largest one.
func (d distribution) figures() (count, p50, p99, most int64) {
	for _, c := range d {
		count += int64(c.count)
	}
	at := func(share float64) int64 {
		seen := int64(0)
		for _, c := range d {
			if seen += int64(c.count); seen >= int64(share*float64(count)+0.5) {
				return c.largest()
			}
		}
		return 0
	}
	if count == 0 {
		return 0, 0, 0, 0
	}
	return count, at(0.5), at(0.99), d[len(d)-1].largest()
}

// latency is what the i-th phase came to.
func (r *recorder) latency(i int) report.Latency {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i >= len(r.phases) {
		return report.Latency{}
	}
	out := summary(r.phases[i].h)
	out.Unfinished = r.phases[i].unfinished
	return out
}

func ms(us int64) float64 { return float64(us) / 1000 }

func summary(h *hdrhistogram.Histogram) report.Latency {
	return report.Latency{Count: h.TotalCount(), P50: ms(h.ValueAtQuantile(50)), P99: ms(h.ValueAtQuantile(99)), P999: ms(h.ValueAtQuantile(99.9)), Max: ms(h.Max())}
}

// second is one second's figures.
func (r *recorder) second(i int) (report.Point, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < 0 || i >= len(r.seconds) || r.seconds[i] == nil {
		return report.Point{}, false
	}
	count, p50, p99, most := r.seconds[i].figures()
	return report.Point{Second: i, Count: count, P50: ms(p50), P99: ms(p99), Max: ms(most)}, true
}

// series is all of them.
func (r *recorder) series() report.Series {
	r.mu.Lock()
	n := len(r.seconds)
	r.mu.Unlock()
	out := report.Series{Role: r.role}
	for i := range n {
		if p, ok := r.second(i); ok {
			out.Points = append(out.Points, p)
		}
	}
	return out
}
