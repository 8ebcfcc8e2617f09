package partition

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
)

// syncGate has the syncs and the cold reads of one rotating device take turns: an admission.Gate with its lock and its clock.
// Nil where nothing is to be gained: a device that is not rotating, or that nobody appends to.
type syncGate struct {
	now    func() time.Time
	mu     *sync.Mutex // of the device's cold queues
	gate   *admission.Gate
	queues []*coldQueue

	writing barrier // of the files in a window: those that write out …
	syncing barrier // … and those that grow fast, until they are synced
}

// newGates gives the directories on each rotating device that takes appends a gate in common.
func (s *Store) newGates() {
	for _, d := range s.dirs {
		if !s.opt.SyncGate || d.commit == nil || !d.spec.Rotating || d.gate != nil {
			continue
		}
		g := &syncGate{now: s.opt.Now, mu: s.limitsMu, gate: &admission.Gate{}}
		for _, o := range s.dirs {
			if o == d || o.device == d.device && d.device != 0 {
				o.gate, g.queues = g, append(g.queues, o.cold)
				o.cold.sched.SetGate(g.gate)
			}
		}
	}
}

// begin is admission.Gate.BeginSync.
func (g *syncGate) begin(last uint64) (round uint64, wait time.Duration, ok bool) {
	if g == nil {
		return 0, 0, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.BeginSync(last, g.now())
}

// end ends a sync that has begun, and lets the reads on if it was the last one.
func (g *syncGate) end() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate.EndSync(g.now())
	for _, q := range g.queues {
		q.pumpLocked()
	}
}

// between waits until no file on the device is written out for a sync, or grows fast and syncs: for a sync that is not the committer's and may come whenever it likes,
// such as a checkpoint's. It has no turn of its own: cold reads would wait for it, too.
func (g *syncGate) between() {
	if g != nil {
		g.writing.wait()
		g.syncing.wait()
	}
}

// gateCollector exports the gates at scrape time.
type gateCollector struct{ s *Store }

var (
	gateLabels  = []string{"tier"}
	gateWindows = prometheus.NewDesc("lagoon_sync_windows_total", "Times that cold reads gave way to syncs on a rotating disk.", gateLabels, nil)
	gateSeconds = prometheus.NewDesc("lagoon_sync_windows_seconds_total", "Time of these windows.", gateLabels, nil)
	gateHeld    = prometheus.NewDesc("lagoon_sync_windows_held_seconds_total", "Time in which cold reads waited for the end of a window.", gateLabels, nil)
)

// Describe implements prometheus.Collector.
func (c gateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- gateWindows
	ch <- gateSeconds
	ch <- gateHeld
}

// Collect implements prometheus.Collector.
func (c gateCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range c.s.dirs {
		if d.gate == nil {
			continue
		}
		d.gate.mu.Lock()
		v := d.gate.gate.View()
		d.gate.mu.Unlock()
		ch <- prometheus.MustNewConstMetric(gateWindows, prometheus.CounterValue, float64(v.Windows), d.name)
		ch <- prometheus.MustNewConstMetric(gateSeconds, prometheus.CounterValue, v.Open.Seconds(), d.name)
		ch <- prometheus.MustNewConstMetric(gateHeld, prometheus.CounterValue, v.Held.Seconds(), d.name)
	}
}
