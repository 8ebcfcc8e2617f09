package tiering

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons for which a migration stands still, as metric labels.
const (
	waitPause  = "pause"  // Migrator.Pause
	waitBudget = "budget" // the gate: foreground work, device budget
)

// metrics of all migrations. Labels are tier names, states and the kinds of failureKind: bounded.
type metrics struct {
	bytes    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	paused   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, m *Migrator) (*metrics, error) {
	x := &metrics{
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_migration_bytes_total",
			Help: "Bytes copied to another tier, by the rule that asked for it; each is read back once as well."}, []string{"from", "to", "cause"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lagoon_migration_duration_seconds",
			Help:    "Time of migrations that succeeded, waits included.",
			Buckets: prometheus.ExponentialBuckets(0.1, 3, 10)}, []string{"from", "to"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_migration_failures_total",
			Help: "Attempts that failed and left the segment where it was."}, []string{"reason"}),
		paused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_migration_paused_seconds_total",
			Help: "Time in which migrations stood still: paused by a person, or waiting for the budget."}, []string{"reason"}),
	}
	// Present from the start, so that a rate never begins with a hole: the first failure is as much of an increase as the second.
	for _, kind := range []string{failedCorrupt, failedOccupied, failedNoSpace, failedPublish, failedIO, failedOther} {
		x.failures.WithLabelValues(kind)
	}
	if reg == nil {
		return x, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{x.bytes, x.duration, x.failures, x.paused, queueCollector{m}} {
		errs = append(errs, reg.Register(c))
	}
	return x, errors.Join(errs...)
}

func (x *metrics) copied(m Move, n int64) {
	x.bytes.WithLabelValues(m.From, m.To, string(m.Cause)).Add(float64(n))
}

func (x *metrics) moved(m Move, elapsed time.Duration) {
	x.duration.WithLabelValues(m.From, m.To).Observe(elapsed.Seconds())
}

func (x *metrics) failed(err error) { x.failures.WithLabelValues(failureKind(err)).Inc() }

func (x *metrics) waited(reason string, d time.Duration) {
	x.paused.WithLabelValues(reason).Add(d.Seconds())
}

// queueCollector computes the gauges of the queue when they are asked for.
type queueCollector struct{ m *Migrator }

var (
	descMigrations = prometheus.NewDesc("lagoon_migrations", "Migrations that run or wait.", []string{"from", "to", "state"}, nil)
	descBacklog    = prometheus.NewDesc("lagoon_migration_backlog_bytes", "Bytes of segments that run or wait to be migrated.", nil, nil)
	descPutOff     = prometheus.NewDesc("lagoon_migration_put_off_bytes", "Bytes of segments that are due to move and stay while a reader is about to read them.", nil, nil)
	descOldest     = prometheus.NewDesc("lagoon_migration_oldest_eligible_seconds", "How long the oldest waiting move has been waiting.", nil, nil)
)

// Describe implements prometheus.Collector.
func (q queueCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descMigrations
	ch <- descBacklog
	ch <- descPutOff
	ch <- descOldest
}

// Collect implements prometheus.Collector.
func (q queueCollector) Collect(ch chan<- prometheus.Metric) {
	type row struct {
		from, to string
		state    State
	}
	now := time.Now()
	rows := map[row]int{}
	oldest := time.Duration(0)
	q.m.mu.Lock()
	for _, t := range q.m.running {
		rows[row{t.move.From, t.move.To, StateRunning}]++
	}
	for _, t := range q.m.queue {
		rows[row{t.move.From, t.move.To, q.m.waitingLocked(t, now)}]++
		oldest = max(oldest, now.Sub(t.queued))
	}
	backlog, putOff := q.m.backlogLocked(), q.m.putOffLocked()
	q.m.mu.Unlock()
	for r, n := range rows {
		ch <- prometheus.MustNewConstMetric(descMigrations, prometheus.GaugeValue, float64(n), r.from, r.to, string(r.state))
	}
	ch <- prometheus.MustNewConstMetric(descBacklog, prometheus.GaugeValue, float64(backlog))
	ch <- prometheus.MustNewConstMetric(descPutOff, prometheus.GaugeValue, float64(putOff))
	ch <- prometheus.MustNewConstMetric(descOldest, prometheus.GaugeValue, oldest.Seconds())
}
