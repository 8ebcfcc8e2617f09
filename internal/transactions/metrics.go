package transactions

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"lagoon/internal/transactions/txn"
)

type metrics struct {
	commits, aborts, timeouts, markers, corrupt prometheus.Counter
	seconds, loadSeconds                        prometheus.Histogram
	noise                                       *rate.Limiter // of log lines that clients and sick disks can cause
}

func newMetrics(c *Coordinator) (*metrics, error) {
	counter := func(name, help string, labels prometheus.Labels) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	const ended = "lagoon_transactions_ended_total"
	m := &metrics{
		commits:  counter(ended, "Transactions whose markers are all durable, by how they ended.", prometheus.Labels{"result": "commit"}),
		aborts:   counter(ended, "Transactions whose markers are all durable, by how they ended.", prometheus.Labels{"result": "abort"}),
		timeouts: counter("lagoon_transaction_timeouts_total", "Transactions aborted because they were open for longer than their timeout.", nil),
		markers:  counter("lagoon_transaction_markers_total", "Transaction markers made durable.", nil),
		corrupt:  counter("lagoon_transaction_corrupt_records_total", "Records and ranges of __transaction_state that could not be read at a start.", nil),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lagoon_transaction_seconds", Help: "From the first partition to the last marker.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 10)}),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lagoon_transaction_load_seconds", Help: "Loading of one partition of __transaction_state.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 8)}),
		noise: rate.NewLimiter(1, 5),
	}
	reg := c.opt.Registerer
	if reg == nil {
		return m, nil
	}
	states := &stateCollector{c, prometheus.NewDesc("lagoon_transactional_ids", "Transactional ids, by state.", []string{"state"}, nil)}
	var errs []error
	for _, x := range []prometheus.Collector{m.commits, m.aborts, m.timeouts, m.markers, m.corrupt, m.seconds, m.loadSeconds, states} {
		errs = append(errs, reg.Register(x))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("transaction metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) ended(commit bool, took time.Duration) {
	if commit {
		m.commits.Inc()
	} else {
		m.aborts.Inc()
	}
	m.seconds.Observe(took.Seconds())
}

// stateCollector counts ids when asked.
type stateCollector struct {
	c    *Coordinator
	desc *prometheus.Desc
}

func (s *stateCollector) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

func (s *stateCollector) Collect(ch chan<- prometheus.Metric) {
	var counts [txn.CompleteAbort + 1]int
	list, _ := s.c.List(Filter{}) // shards that are not loaded are not counted
	for _, t := range list {
		if int(t.State) < len(counts) {
			counts[t.State]++
		}
	}
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), txn.State(state).String())
	}
}
