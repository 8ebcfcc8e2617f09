package admission

import (
	"math"
	"slices"
	"time"
)

// Signal is one kind of harm that cold reads may do to the real-time path.
type Signal uint8

// The signals. The first numLatencySignals are latencies; the others are one figure per tick.
const (
	SignalProduce Signal = iota // append until durable (with a flush interval: the append itself)
	SignalSync                  // one sync on the device
	SignalFetch                 // record readable until handed to the socket; never the wait for a record
	SignalDevice                // one cold read on the device, without the wait for its turn
	SignalSched                 // goroutine ready until it runs
	SignalCPU                   // share of time in which some task of the machine waits for a core
	SignalMiss                  // real-time reads that needed a device
	SignalEvicted               // pages of hot windows that were evicted and are wanted again
	NumSignals

	NumLatencySignals = int(SignalSched) + 1
)

var signalWords = []string{"produce", "sync", "fetch", "device", "sched", "cpu", "miss", "evicted"}

// String is the signal's word in metrics.
func (s Signal) String() string { return word(signalWords, int(s)) }

// Unit is what its figures count: seconds, ratio or per_second.
func (s Signal) Unit() string {
	switch {
	case int(s) < NumLatencySignals:
		return "seconds"
	case s == SignalCPU:
		return "ratio"
	}
	return "per_second"
}

// How windows are made and kept. A window gives one value of a signal (a p99, a mean, a rate); the undisturbed level is the
// median over windows, so that a hiccup of seconds does not move it and a lasting change does within half the ring.
const (
	windowSpan    = time.Second     // at least
	windowSamples = 100             // wanted for a p99
	windowMost    = 5 * time.Second // then fewer are enough
	windowFew     = 10
	windowRing    = 20
	creep         = 1.005 // a window: by how much a level may rise that was never seen undisturbed

	bodyOver  = 2 * time.Second
	bodyLeast = time.Millisecond // a tenth of less is nothing that anybody feels
)

// allowedShare is the part of all samples that may lie above the threshold: the threshold is about a p99.
const allowedShare = 0.01

// gauge follows one signal: its undisturbed level, what is too much, and for how long there has been too much.
//
// Harm is a sum and not a moment: every sample above the threshold adds to the score, every allowed one takes off (CUSUM).
// Grave harm is told in a tick or two, a p99 that is barely too high in a second or two, and a single bad sample never.
type gauge struct {
	signal    Signal
	target    time.Duration // protect_tail_p99, 0: derived from the undisturbed level
	tolerance float64       // by which a latency may rise, and the seconds by which it may in any case
	slack     float64
	quiet     levels      // values of windows without cold reads to speak of
	all       levels      // values of all windows
	peaks     levels      // highest scores of quiet windows: what happens undisturbed is no harm
	quietBody levels      // medians of windows without cold reads …
	allBody   levels      // … and of all windows
	lately    latencyMass // fades with a time constant of bodyOver

	window     latencyMass
	windowSum  float64 // of the figure × seconds
	windowAge  time.Duration
	windowLoud bool
	windowPeak float64

	recent  latencyMass   // fades with a half-life of about half a second
	level   float64       // the figure, faded likewise
	perSec  float64       // samples
	seenAt  time.Duration // controller time of the last sample, and of the first after a pause
	sinceAt time.Duration
	seen    bool

	lateBad   float64 // samples above the threshold, and all, of about the last quarter of a second
	lateAll   float64
	score     float64 // harm from need on
	need      float64 // 1, or more where undisturbed times reach as much
	base      float64 // seconds, share or count per second; valid with known
	threshold float64
	body      float64 // undisturbed median, seconds; 0: not known
	known     bool
}

// levels keeps the last windowRing values.
type levels struct {
	values [windowRing]float64
	n      int
}

func (r *levels) add(v float64) {
	r.values[r.n%windowRing] = v
	r.n++
}

// quantile is 0 for an empty ring.
func (r *levels) quantile(q float64) float64 {
	n := min(r.n, windowRing)
	if n == 0 {
		return 0
	}
	var sorted [windowRing]float64
	copy(sorted[:], r.values[:n])
	slices.Sort(sorted[:n])
	return sorted[int(q*float64(n-1)+0.5)]
}

func (g *gauge) isLatency() bool { return int(g.signal) < NumLatencySignals }

// take adds one tick: counts of latencies (nil for the others) or a figure, which is negative when it is not known. stuck is
// how long something has been on its way that has not come to an end.
func (g *gauge) take(l *Latencies, stuck time.Duration, figure float64, quiet bool, at, dt time.Duration) {
	n := 0.0
	if l != nil {
		n = float64(l.Total())
	} else if figure >= 0 {
		n = 1
	}
	faded := float32(max(0, 1-1.4*dt.Seconds()))
	if g.isLatency() {
		g.recent.fade(faded)
		g.lately.fade(float32(math.Exp(-dt.Seconds() / bodyOver.Seconds())))
		if n > 0 {
			g.recent.add(l)
			g.lately.add(l)
			g.window.add(l)
		}
	} else if n > 0 {
		g.level += (figure - g.level) * min(1, 2*dt.Seconds())
		g.windowSum += figure * dt.Seconds()
	}
	g.perSec += (n/dt.Seconds() - g.perSec) * min(1, dt.Seconds())
	if n > 0 || stuck > 0 {
		if at-g.seenAt > windowMost || !g.seen {
			g.sinceAt = at
		}
		g.seenAt, g.seen = at, true
	}
	g.weigh(l, stuck, figure, n, dt)
	g.windowAge += dt
	g.windowLoud = g.windowLoud || !quiet
	g.windowPeak = max(g.windowPeak, g.score)
	g.closeWindow()
}

// weigh moves the score.
func (g *gauge) weigh(l *Latencies, stuck time.Duration, figure, n float64, dt time.Duration) {
	if n == 0 && stuck == 0 {
		g.score *= max(0, 1-dt.Seconds()) // whoever was hurt is not there any more
		return
	}
	if !g.known {
		return
	}
	excess, enough := 0.0, 1.0
	switch {
	case g.isLatency():
		limit := seconds(g.threshold)
		bad, far := 0.0, 0.0
		if l != nil {
			bad, far = float64(l.above(limit)), float64(l.above(farFactor*limit))
		}
		if stuck > limit {
			bad++
			n++
		}
		faded := max(0, 1-4*dt.Seconds())
		g.lateBad, g.lateAll = g.lateBad*faded+bad, g.lateAll*faded+n
		bad += 2 * far
		share, least := allowedShare, 10.0
		if g.signal == SignalDevice {
			share = 0.1
		}
		excess = bad - share*n
		enough = max(least, share*g.perSec)
	case g.signal == SignalCPU:
		excess, enough = (figure-g.threshold)*dt.Seconds(), 0.1
	default:
		excess, enough = (figure-g.threshold)*dt.Seconds(), 4
	}
	g.score = min(max(0, g.score+min(excess/enough, 0.7*g.need)), 10) // one bad tick is no harm, however bad
}

// closeWindow ends a window that has told enough.
func (g *gauge) closeWindow() {
	value, body := 0.0, 0.0
	if g.isLatency() {
		n := g.window.total()
		switch {
		case g.windowAge < windowSpan, n < windowSamples && g.windowAge < windowMost:
			return
		case n < windowFew:
			if g.windowAge < 6*windowMost {
				return
			}
		}
		value, body = g.window.quantile(0.99).Seconds(), g.window.median().Seconds()
		if g.signal == SignalDevice {
			value = g.window.quantile(0.5).Seconds()
		}
		if n < windowFew {
			value = 0
		}
	} else {
		if g.windowAge < windowSpan {
			return
		}
		value = g.windowSum / g.windowAge.Seconds()
	}
	if !g.isLatency() || value > 0 {
		g.all.add(value)
		g.allBody.add(body)
		if !g.windowLoud {
			g.quiet.add(value)
			g.quietBody.add(body)
			g.peaks.add(g.windowPeak)
			g.score = 0
		}
		g.judge()
	}
	g.window, g.windowSum, g.windowAge, g.windowLoud, g.windowPeak = latencyMass{}, 0, 0, false, g.score
}

// judge derives the undisturbed level and the threshold.
//
// The level is the median of quiet windows. When there never was one it is a low quantile of all windows; and windows beside
// cold reads that were better than the level bring it down, because the load has changed since.
func (g *gauge) judge() {
	g.body = g.quietBody.quantile(0.5)
	if low := g.allBody.quantile(0.2); g.body == 0 && g.allBody.n >= 5 {
		g.body = low
	} else if better := g.allBody.quantile(0.5); g.allBody.n >= windowRing && better < 0.9*g.body {
		g.body = better
	}
	g.need = min(max(1, 1.25*g.peaks.quantile(0.9)), 4)
	switch {
	case g.signal == SignalDevice && g.all.n >= 5: // cold reads are never without cold reads
		g.base, g.known = g.all.quantile(0.2), true
	case g.quiet.n > 0:
		g.base, g.known = g.quiet.quantile(0.5), true
		if better := g.all.quantile(0.5); g.all.n >= windowRing && better < 0.9*g.base {
			g.base = better
		}
	case g.all.n >= 5:
		// Disturbed windows are among them: the level must not follow them up.
		if low := g.all.quantile(0.2); g.known {
			g.base = min(low, creep*g.base)
		} else {
			g.base, g.known = low, true
		}
	default:
		g.known = false
		return
	}
	switch g.signal {
	case SignalDevice:
		g.threshold = deviceFactor*g.base + deviceSlack.Seconds()
	case SignalCPU:
		g.threshold = g.base + cpuSlack
	case SignalMiss, SignalEvicted:
		g.threshold = 2*g.base + missSlack
	case SignalSched:
		g.threshold = g.base + max(g.base*tailTolerance, latencySlack.Seconds())
	default:
		g.threshold = max(g.target.Seconds(), g.base+max(g.base*g.tolerance, g.slack))
		if g.quiet.n >= 5 {
			g.threshold = max(g.threshold, g.quiet.quantile(spreadShare))
		}
	}
}

// strain is by how much the median of the last seconds lies above the undisturbed one, as a share of it; small steps of small
// latencies count for nothing.
//
// Cold reads shift all latencies of a device before anything can be proven about the worst hundredth: a p99 of one second differs
// by a half from the next with no cold read near, a median by a twentieth (measured on a cloud's SSD: at 50, 100, 200 and 400 MB/s of cold
// reads the median of an ack was 0.98, 1.08, 1.08 and 1.27 of undisturbed, the p99 of 20 s 0.89, 1.27, 1.06 and 1.68).
func (g *gauge) strain() float64 {
	if g.body <= 0 || g.lately.total() < windowFew {
		return 0
	}
	return (g.lately.median().Seconds() - g.body) / max(g.body, bodyLeast.Seconds())
}

// hurts tells whether the signal's harm is proven; grave, whether it is far beyond the threshold.
func (g *gauge) hurts() (hurt, grave bool) {
	if !g.known || g.score < g.need {
		return false, false
	}
	switch {
	case g.signal == SignalDevice:
		grave = g.recent.above(seconds(g.threshold)) > 0.5
	case g.isLatency():
		grave = g.recent.above(seconds(g.threshold)) > graveShare || g.lateBad > graveLately*g.lateAll
	case g.signal == SignalCPU:
		grave = g.level > g.threshold+graveCPU
	default:
		grave = g.level > 10*g.threshold
	}
	return true, grave
}

// measured is what the signal says now, in the unit of base.
func (g *gauge) measured() float64 {
	switch {
	case g.signal == SignalDevice:
		return g.recent.quantile(0.5).Seconds()
	case g.isLatency():
		return g.recent.quantile(0.99).Seconds()
	}
	return g.level
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
