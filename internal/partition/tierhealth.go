package partition

import (
	"errors"
	"math"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tierhealth.go tells of each log directory how soon it is full, what waits for its device, and what catch-up took of that.

const (
	// The rate at which a directory fills is that of five minutes: a roll takes a segment's space at once, and a migration gives it back so.
	fillEvery   = 10 * time.Second
	fillSamples = 31
	// fillLeast is how long it must have been looked at before a rate is told.
	fillLeast = time.Minute
)

// roomSample is how many bytes a directory could still take at a time since Store.opened.
type roomSample struct {
	at   time.Duration
	room int64
}

// fillETA is in how many seconds there is no room left if it goes on as in samples, which are oldest first: +Inf when room does not
// shrink. Not known when they span less than fillLeast. The rate is the least-squares slope. Pure.
func fillETA(samples []roomSample) (seconds float64, known bool) {
	n := float64(len(samples))
	if n == 0 || samples[len(samples)-1].at-samples[0].at < fillLeast {
		return 0, false
	}
	var at, room float64
	for _, s := range samples {
		at += s.at.Seconds() / n
		room += float64(s.room) / n
	}
	var covariance, variance float64
	for _, s := range samples {
		dt := s.at.Seconds() - at
		covariance += dt * (float64(s.room) - room)
		variance += dt * dt
	}
	switch left, rate := samples[len(samples)-1].room, covariance/variance; {
	case left <= 0:
		return 0, true
	case rate >= 0:
		return math.Inf(1), true
	default:
		return float64(left) / -rate, true
	}
}

// fillTrend is how much room a directory had in the last minutes. Safe for concurrent use.
type fillTrend struct {
	mu      sync.Mutex
	samples []roomSample // oldest first, fillEvery apart or more
}

// note takes in how much room there is; more often than each fillEvery is ignored.
func (f *fillTrend) note(at time.Duration, room int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.samples)
	if n > 0 && at-f.samples[n-1].at < fillEvery {
		return
	}
	if n == fillSamples {
		f.samples = append(f.samples[:0], f.samples[1:]...)
	}
	f.samples = append(f.samples, roomSample{at, room})
}

func (f *fillTrend) eta() (seconds float64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fillETA(f.samples)
}

// room is how many bytes d takes before it refuses: appends where they go, else migrations.
func (d *logDir) room(free int64) int64 {
	if d.commit != nil {
		return free - d.reserved.Load()
	}
	if d.spec.MaxUsedBytes > 0 {
		free = min(free, d.spec.MaxUsedBytes-d.used.Load())
	}
	return free
}

// noteError counts an error that the kernel gave for I/O of d. A name that is gone is none: files are moved and deleted under readers.
func (d *logDir) noteError(op string, err error) {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != syscall.ENOENT {
		d.errors.WithLabelValues(d.name, op).Inc()
	}
}

// tierCollector exports the health of each log directory at scrape time.
type tierCollector struct{ s *Store }

var (
	tierLabels      = []string{"tier"}
	tierReserved    = prometheus.NewDesc("lagoon_tier_reserved_bytes", "Free space of the tier's file system that appends leave: below it they are refused.", tierLabels, nil)
	tierFullETA     = prometheus.NewDesc("lagoon_tier_full_eta_seconds", "Time until the tier takes no more, at the rate of the last 5 minutes; +Inf: it does not fill. Absent in the first minute.", tierLabels, nil)
	tierDeviceQueue = prometheus.NewDesc("lagoon_tier_device_queue_seconds", "For how long the oldest cold read, refill or migration has waited that waits for the tier's device or its budget; 0: none does.", tierLabels, nil)
	tierCatchupIO   = prometheus.NewDesc("lagoon_catchup_io_seconds_total", "Time that the tier's device was reading around the page cache, for lagging readers, summed over reads.", tierLabels, nil)
)

// Describe implements prometheus.Collector.
func (c tierCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tierReserved, tierFullETA, tierDeviceQueue, tierCatchupIO} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c tierCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range c.s.dirs {
		gauge := func(desc *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, d.name)
		}
		if n := d.reserved.Load(); n > 0 && d.commit != nil {
			gauge(tierReserved, float64(n))
		}
		if eta, known := d.fill.eta(); known && d.fenced() == nil {
			gauge(tierFullETA, eta)
		}
		gauge(tierDeviceQueue, d.cold.oldestWait().Seconds())
		ch <- prometheus.MustNewConstMetric(tierCatchupIO, prometheus.CounterValue, time.Duration(d.harm.readNs.Load()).Seconds(), d.name)
	}
}
