package bench

import (
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
	seconds []*hdrhistogram.Histogram // nil: nothing yet
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
	if r.seconds[second] == nil {
		r.seconds[second] = hdrhistogram.New(1, maxLatency, 2)
	}
	_ = r.seconds[second].RecordValue(us)
}

// maxSeconds bounds the memory of a chart: 28 KiB a second and role. Longer runs have figures for every phase, but a chart of the beginning.
const maxSeconds = 7200

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

func summary(h *hdrhistogram.Histogram) report.Latency {
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return report.Latency{Count: h.TotalCount(), P50: ms(h.ValueAtQuantile(50)), P99: ms(h.ValueAtQuantile(99)), P999: ms(h.ValueAtQuantile(99.9)), Max: ms(h.Max())}
}

// second is one second's figures.
func (r *recorder) second(i int) (report.Point, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < 0 || i >= len(r.seconds) || r.seconds[i] == nil {
		return report.Point{}, false
	}
	l := summary(r.seconds[i])
	return report.Point{Second: i, Count: l.Count, P50: l.P50, P99: l.P99, Max: l.Max}, true
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
