package cachectl

import "github.com/prometheus/client_golang/prometheus"

// metrics of one Cache. Labels are bounded: method has four values, fs one per tier.
type metrics struct {
	reads, readBytes, verifiedReads, pollutedBytes, lostBytes, fallbacks *prometheus.CounterVec // method
	demotions                                                            *prometheus.CounterVec // method, cause
	usable                                                               *prometheus.GaugeVec   // fs, method

	residencyCachestat, residencyMincore                      prometheus.Counter
	cachestatUsable, pinUsable, pinnedBytes                   prometheus.Gauge
	pinFailures                                               prometheus.Counter
	writeBackBytes, evictedBytes, evictLeftBytes, warmedBytes prometheus.Counter
}

// newMetrics registers with reg unless it is nil. One Cache per Registerer: a second one panics, as MustRegister does.
func newMetrics(reg prometheus.Registerer) *metrics {
	byMethod := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_cachectl_" + name, Help: help}, []string{"method"})
		for _, m := range Methods() { // present from the start, so that a rate never begins with a hole
			v.WithLabelValues(string(m))
		}
		return v
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_cachectl_" + name, Help: help})
	}
	queries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lagoon_cachectl_residency_queries_total",
		Help: "Residency questions asked of the kernel, by system call.",
	}, []string{"method"})
	m := &metrics{
		reads:         byMethod("reads_total", "Bypass reads served, by method."),
		readBytes:     byMethod("read_bytes_total", "Bytes that bypass reads returned, by method."),
		verifiedReads: byMethod("verified_reads_total", "Bypass reads whose residency was compared before and after."),
		pollutedBytes: byMethod("polluted_bytes_total",
			"Bytes that verified bypass reads left in the page cache; times the verification rate gives the estimate for all."),
		lostBytes: byMethod("lost_bytes_total",
			"Bytes resident before a verified bypass read and not after it (by reclaim, or by the read: should stay near 0)."),
		fallbacks: byMethod("fallbacks_total", "Bypass reads that a method did not serve and the next one tried."),
		demotions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lagoon_cachectl_demotions_total",
			Help: "Methods taken off a file system's ladder, by cause (polluted, unsupported).",
		}, []string{"method", "cause"}),
		usable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lagoon_cachectl_method_usable",
			Help: "1 while a read method is on the file system's ladder, 0 after it was taken off.",
		}, []string{"fs", "method"}),
		residencyCachestat: queries.WithLabelValues(residencyCachestat),
		residencyMincore:   queries.WithLabelValues(residencyMincore),
		cachestatUsable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lagoon_cachectl_cachestat_usable",
			Help: "1 while residency is asked by cachestat, 0 when the process fell back to mincore.",
		}),
		pinUsable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lagoon_cachectl_pin_usable",
			Help: "1 while hot windows can be locked in memory, 0 when the process is not allowed to.",
		}),
		pinnedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lagoon_cache_pinned_bytes",
			Help: "Bytes of log files that are locked in the page cache.",
		}),
		pinFailures:    counter("pin_failures_total", "Ranges that could not be locked in memory."),
		writeBackBytes: counter("writeback_started_bytes_total", "Bytes whose early write-back was started."),
		evictedBytes:   counter("evicted_bytes_total", "Bytes dropped from the page cache on request."),
		evictLeftBytes: counter("evict_left_bytes_total", "Bytes that stayed resident although their eviction was requested."),
		warmedBytes:    counter("warmed_bytes_total", "Bytes brought into the page cache on request."),
	}
	for _, method := range Methods() {
		for _, cause := range []string{causePolluted, causeUnsupported} {
			m.demotions.WithLabelValues(string(method), cause)
		}
	}
	m.cachestatUsable.Set(1)
	m.pinUsable.Set(1)
	if reg != nil {
		reg.MustRegister(m.reads, m.readBytes, m.verifiedReads, m.pollutedBytes, m.lostBytes, m.fallbacks, m.demotions, m.usable,
			queries, m.cachestatUsable, m.pinUsable, m.pinnedBytes, m.pinFailures,
			m.writeBackBytes, m.evictedBytes, m.evictLeftBytes, m.warmedBytes)
	}
	return m
}

func (m *metrics) read(method Method, n int64) {
	m.reads.WithLabelValues(string(method)).Inc()
	m.readBytes.WithLabelValues(string(method)).Add(float64(n))
}

func (m *metrics) verified(method Method, polluted, lost int64) {
	m.verifiedReads.WithLabelValues(string(method)).Inc()
	m.pollutedBytes.WithLabelValues(string(method)).Add(float64(polluted))
	m.lostBytes.WithLabelValues(string(method)).Add(float64(lost))
}

func (m *metrics) fallback(method Method) { m.fallbacks.WithLabelValues(string(method)).Inc() }

func (m *metrics) demoted(method Method, cause string) {
	m.demotions.WithLabelValues(string(method), cause).Inc()
}

func (m *metrics) setUsable(fs string, method Method, usable bool) {
	value := 0.0
	if usable {
		value = 1
	}
	m.usable.WithLabelValues(fs, string(method)).Set(value)
}

func (m *metrics) forgetLadder(l *ladder) {
	for _, r := range l.rungs {
		m.usable.DeleteLabelValues(l.name, string(r.method))
	}
}
