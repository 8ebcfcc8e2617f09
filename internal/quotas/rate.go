package quotas

import (
	"math"
	"time"
)

const (
	// samples and window are Kafka's quota.window.num and quota.window.size.seconds.
	samples = 11
	window  = 1000 // ms
)

// sample is one window's sum.
type sample struct {
	startMs, lastMs int64
	sum             float64
}

// rate is Kafka's Rate over a SampledStat: up to samples windows and the one that overlaps the oldest. A window begins with what is
// recorded first in it, so pauses lie between windows.
type rate struct {
	ring    [samples + 1]sample
	used    int // of ring
	current int
}

func (r *rate) record(n float64, nowMs int64) {
	switch {
	case r.used == 0:
		r.used = 1
		r.ring[0] = sample{startMs: nowMs}
	case nowMs-r.ring[r.current].startMs >= window:
		r.current = (r.current + 1) % len(r.ring)
		r.used = max(r.used, r.current+1)
		r.ring[r.current] = sample{startMs: nowMs}
	}
	s := &r.ring[r.current]
	s.sum += n
	s.lastMs = nowMs
}

// measure is the rate per second and the time over which it was taken.
func (r *rate) measure(nowMs int64) (perSecond float64, spanMs int64) {
	sum, oldest := 0.0, nowMs
	for i := range r.used {
		s := &r.ring[i]
		if nowMs-s.lastMs >= samples*window {
			*s = sample{startMs: nowMs, lastMs: nowMs}
		}
		sum += s.sum
		oldest = min(oldest, s.startMs)
	}
	spanMs = nowMs - oldest
	if full := spanMs / window; full < samples-1 {
		spanMs += (samples - 1 - full) * window
	}
	return sum / float64(spanMs) * 1000, spanMs
}

// over is how long to wait until the rate is down to limit.
func (r *rate) over(limit float64, nowMs int64) time.Duration {
	perSecond, spanMs := r.measure(nowMs)
	if perSecond <= limit {
		return 0
	}
	ms := math.Round((perSecond - limit) / limit * float64(spanMs))
	return time.Duration(min(ms, math.MaxInt32)) * time.Millisecond
}

// idle reports whether nothing that was recorded counts any more.
func (r *rate) idle(nowMs int64) bool {
	return r.used == 0 || nowMs-r.ring[r.current].lastMs >= samples*window
}

// tokens is Kafka's TokenBucket (KIP-599): filled at the limit, holding as much as samples windows bring.
type tokens struct {
	level  float64
	lastMs int64
}

func (b *tokens) refill(limit float64, nowMs int64) {
	b.level = min(b.level+limit*float64(nowMs-b.lastMs)/1000, capacity(limit))
	b.lastMs = nowMs
}

func capacity(limit float64) float64 { return limit * samples * window / 1000 }

// debt is how long until the bucket is not below empty.
func (b *tokens) debt(limit float64) time.Duration {
	if b.level >= 0 {
		return 0
	}
	return time.Duration(min(math.Round(-b.level/limit*1000), math.MaxInt32)) * time.Millisecond
}

// pauseWindow is that of Kafka's mean throttle time: two samples of its default window.
const pauseWindow = 30_000 // ms

// pauses is the mean of the pauses that were asked for in the window that began at fromMs and in the one before.
type pauses struct {
	fromMs int64
	sum    [2]time.Duration
	n      [2]int64
}

func (p *pauses) roll(nowMs int64) {
	gone := (nowMs - p.fromMs) / pauseWindow
	switch {
	case gone == 1:
		p.sum, p.n = [2]time.Duration{0, p.sum[0]}, [2]int64{0, p.n[0]}
	case gone > 1:
		p.sum, p.n = [2]time.Duration{}, [2]int64{}
	}
	p.fromMs += gone * pauseWindow
}

func (p *pauses) record(d time.Duration, nowMs int64) {
	p.roll(nowMs)
	p.sum[0] += d
	p.n[0]++
}

// mean is 0 when there was none.
func (p *pauses) mean(nowMs int64) time.Duration {
	p.roll(nowMs)
	return (p.sum[0] + p.sum[1]) / time.Duration(max(1, p.n[0]+p.n[1]))
}
