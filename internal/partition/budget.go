package partition

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
)

// Adaptive has cold budgets found by the harm that cold reads do. DirSpec.Device.BytesPerSecond is then a directory's ceiling.
type Adaptive struct {
	// FloorBytes is the least budget of a device in bytes per second, 0: admission.DefaultFloor.
	FloorBytes int64
	// ProtectP99 fixes what the p99 of produce and real-time fetch may reach, 0: a little above their undisturbed level.
	ProtectP99 time.Duration
	// CPU tells of cores that are scarce; nil: not known.
	CPU CPU
}

// CPU is what a machine says about its cores.
type CPU interface {
	// Waited is for how long, since some fixed time, at least one task of the machine has waited for a core.
	Waited() (total time.Duration, ok bool)
	// SchedLatencies adds how long goroutines waited to run since the last call.
	SchedLatencies(into *admission.Latencies)
}

// budgetEvery is the step of the controllers while there are cold reads. Without them one a second is enough to know the
// undisturbed level.
const budgetEvery = 100 * time.Millisecond

// budgets runs one admission.Controller per log directory. Nil when budgets are fixed.
type budgets struct {
	store *Store
	cfg   Adaptive
	wake  chan struct{}
	awake atomic.Bool

	mu         sync.Mutex
	devices    []*deviceBudget // as Store.dirs
	last       time.Time
	waited     time.Duration // CPU.Waited of the last tick, valid with hadWaited
	hadWaited  bool
	fetch      admission.Latencies
	scheduling admission.Latencies
}

// deviceBudget is one directory's. Guarded by budgets.mu.
type deviceBudget struct {
	dir     *logDir
	control *admission.Controller
	granted int64 // bytes, at the last tick
	inForce admission.Budget
	produce admission.Latencies
	syncs   admission.Latencies
	reads   admission.Latencies
	sample  admission.Sample
}

func newBudgets(s *Store, cfg Adaptive) (*budgets, error) {
	b := &budgets{store: s, cfg: cfg, wake: make(chan struct{}, 1)}
	var errs []error
	for _, d := range s.dirs {
		dc := d.cold.sched.Config()
		c, err := admission.NewController(admission.ControllerConfig{Name: d.name, Slots: dc.MaxInFlight, Floor: cfg.FloorBytes,
			Ceiling: dc.BytesPerSecond, ProtectP99: cfg.ProtectP99, Rotating: d.spec.Rotating})
		errs = append(errs, err)
		b.devices = append(b.devices, &deviceBudget{dir: d, control: c})
		d.cold.onDemand = b.poke
	}
	return b, errors.Join(errs...)
}

// poke has the next tick made now; called with a cold read at hand, so it must cost nothing while the loop is awake anyway.
func (b *budgets) poke() {
	if b == nil || b.awake.Load() {
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// loop ticks while there are cold reads, and when poked.
func (b *budgets) loop() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-b.store.ctx.Done():
			return
		case <-b.wake:
		}
		b.awake.Store(true)
		for b.tick(b.store.now()) || b.sleep() {
			t.Reset(budgetEvery)
			select {
			case <-b.store.ctx.Done():
				return
			case <-t.C:
			}
		}
	}
}

// sleep lets the next poke through; true when a cold read came too early for that.
func (b *budgets) sleep() (again bool) {
	b.awake.Store(false)
	for _, d := range b.devices {
		if _, busy, _ := d.dir.cold.load(b.last); busy {
			b.awake.Store(true)
			return true
		}
	}
	return false
}

// tick takes one sample everywhere and brings the answers in force. True while there are cold reads on some device.
func (b *budgets) tick(now time.Time) (busy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	misses, evicted, cpu := b.gather(now)
	var all int64
	for _, d := range b.devices {
		granted, demand, held := d.dir.cold.load(b.last)
		d.sample.ColdBytes, d.granted = granted-d.granted, granted
		d.sample.Demand, d.sample.Held = demand, held
		all += d.sample.ColdBytes
		busy = busy || demand || d.sample.ColdBytes > 0
	}
	for _, d := range b.devices {
		b.fill(d, now)
		d.sample.Misses, d.sample.EvictedPages, d.sample.CPUWait, d.sample.AllColdBytes = misses, evicted, cpu, all
		if budget := d.control.Tick(now, &d.sample); budget != d.inForce {
			d.inForce = budget
			d.dir.cold.setBudget(budget)
		}
	}
	for _, d := range b.devices {
		d.produce, d.syncs, d.reads = admission.Latencies{}, admission.Latencies{}, admission.Latencies{}
	}
	b.last = now
	return busy
}

// gather drains what is counted since the last tick, per directory and for the machine.
func (b *budgets) gather(now time.Time) (misses, evicted int64, cpu float64) {
	b.fetch, b.scheduling = admission.Latencies{}, admission.Latencies{}
	h := &b.store.harm
	h.fetch.drain(&b.fetch)
	for _, d := range b.devices {
		d.dir.harm.produce.drain(&d.produce)
		d.dir.harm.syncs.drain(&d.syncs)
		d.dir.harm.reads.drain(&d.reads)
	}
	cpu = -1
	if b.cfg.CPU != nil {
		b.cfg.CPU.SchedLatencies(&b.scheduling)
		waited, ok := b.cfg.CPU.Waited()
		if dt := now.Sub(b.last); ok && b.hadWaited && dt > 0 {
			cpu = min(1, max(0, (waited-b.waited).Seconds()/dt.Seconds()))
		}
		b.waited, b.hadWaited = waited, ok
	}
	evicted = h.evicted.Swap(0)
	if !h.cached.Swap(false) { // no cold read has pushed a page out: this was somebody else, and a cut would not help
		evicted = 0
	}
	return h.misses.Swap(0), evicted, cpu
}

// fill gives a device's sample its latencies. Directories on one file system feel each other's reads.
func (b *budgets) fill(d *deviceBudget, now time.Time) {
	s := &d.sample
	s.Latency = [admission.NumLatencySignals]*admission.Latencies{
		admission.SignalProduce: &d.produce, admission.SignalSync: &d.syncs, admission.SignalFetch: &b.fetch,
		admission.SignalDevice: &d.reads, admission.SignalSched: &b.scheduling,
	}
	s.Stuck = [admission.NumLatencySignals]time.Duration{
		admission.SignalSync: d.dir.harm.syncing.stuck(now), admission.SignalDevice: d.dir.harm.reading.stuck(now),
	}
	if d.dir.commit != nil {
		return
	}
	for _, other := range b.devices {
		if other != d && other.dir.commit != nil && other.dir.device == d.dir.device && d.dir.device != 0 {
			s.Latency[admission.SignalProduce], s.Latency[admission.SignalSync] = &other.produce, &other.syncs
			s.Stuck[admission.SignalSync] = other.dir.harm.syncing.stuck(now)
			return
		}
	}
}

// view is the controller of a directory for people, nil when its budget is fixed.
func (b *budgets) view(d *logDir) *admission.ControllerView {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.devices[d.index].control.View()
	return &v
}

// load tells what the queue has granted since the start, whether there is work, and whether some of it had to wait for the
// budget since t.
func (q *coldQueue) load(t time.Time) (granted int64, busy, held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	granted, busy = q.sched.Load()
	return granted, busy, q.sched.HeldSince(t)
}

// setBudget brings a budget in force at once.
func (q *coldQueue) setBudget(b admission.Budget) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hurt.Store(reduced(b.State))
	q.sched.SetBudget(b, q.now())
	q.pumpLocked()
}

// budgetCollector exports the controllers at scrape time.
type budgetCollector struct{ b *budgets }

var (
	signalLabels     = []string{"tier", "signal"}
	targetDesc       = prometheus.NewDesc("lagoon_throttle_controller_target_seconds", "What a latency of the real-time path may reach before cold budgets are cut.", signalLabels, nil)
	measuredDesc     = prometheus.NewDesc("lagoon_throttle_controller_measured_seconds", "What it is: p99 over about half a second (median for device).", signalLabels, nil)
	undisturbedDesc  = prometheus.NewDesc("lagoon_throttle_controller_undisturbed_seconds", "What it is without cold reads.", signalLabels, nil)
	cutsDesc         = prometheus.NewDesc("lagoon_throttle_controller_cuts_total", "Cuts of a cold budget, by the signal that showed harm.", signalLabels, nil)
	controlStateDesc = prometheus.NewDesc("lagoon_throttle_controller_state", "1 for the state that the controller is in.", []string{"tier", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (c budgetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{targetDesc, measuredDesc, undisturbedDesc, cutsDesc, controlStateDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c budgetCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range c.b.store.dirs {
		v := c.b.view(d)
		for state := range admission.NumControllerStates {
			is := 0.0
			if state == v.Budget.State {
				is = 1
			}
			ch <- prometheus.MustNewConstMetric(controlStateDesc, prometheus.GaugeValue, is, d.name, state.String())
		}
		for _, s := range v.Signals {
			ch <- prometheus.MustNewConstMetric(cutsDesc, prometheus.CounterValue, float64(s.Cuts), d.name, s.Signal.String())
			if int(s.Signal) >= admission.NumLatencySignals || !s.Known {
				continue
			}
			ch <- prometheus.MustNewConstMetric(targetDesc, prometheus.GaugeValue, s.Limit, d.name, s.Signal.String())
			ch <- prometheus.MustNewConstMetric(measuredDesc, prometheus.GaugeValue, s.Measured, d.name, s.Signal.String())
			ch <- prometheus.MustNewConstMetric(undisturbedDesc, prometheus.GaugeValue, s.Undisturbed, d.name, s.Signal.String())
		}
	}
}
