package groups

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

type metrics struct {
	commits, generations, corrupt, refused prometheus.Counter
	loadSeconds                            prometheus.Histogram
	noise                                  *rate.Limiter // of log lines that clients can cause
}

func newMetrics(c *Coordinator) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		commits:     counter("lagoon_group_offset_commits_total", "Offsets committed, counted once per partition."),
		generations: counter("lagoon_group_metadata_stores_total", "Group generations and static members stored."),
		corrupt:     counter("lagoon_group_corrupt_records_total", "Records and ranges of __consumer_offsets that could not be read at a start."),
		refused:     counter("lagoon_group_memory_refusals_total", "Members and offsets refused because the memory of groups is used up."),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lagoon_group_load_seconds", Help: "Loading of one partition of __consumer_offsets.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 8)}),
		noise: rate.NewLimiter(1, 5),
	}
	reg := c.opt.Registerer
	if reg == nil {
		return m, nil
	}
	states := &stateCollector{c, prometheus.NewDesc("lagoon_groups", "Consumer groups, by state.", []string{"state"}, nil)}
	memory := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lagoon_group_memory_bytes", Help: "Memory of all groups, about."},
		func() float64 { return float64(c.bytes.Load()) })
	var errs []error
	for _, x := range []prometheus.Collector{m.commits, m.generations, m.corrupt, m.refused, m.loadSeconds, memory, states} {
		errs = append(errs, reg.Register(x))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("group metrics: %w", err)
	}
	return m, nil
}

// stateCollector counts groups when asked.
type stateCollector struct {
	c    *Coordinator
	desc *prometheus.Desc
}

func (s *stateCollector) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

func (s *stateCollector) Collect(ch chan<- prometheus.Metric) {
	counts := map[classic.State]int{classic.Empty: 0, classic.PreparingRebalance: 0, classic.CompletingRebalance: 0, classic.Stable: 0,
		consumer.Assigning: 0, consumer.Reconciling: 0}
	list, _ := s.c.List(nil) // shards that are not loaded are not counted
	for _, g := range list {
		counts[g.State]++
	}
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), string(state))
	}
}
