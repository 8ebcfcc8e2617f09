package broker

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/quotas"
)

// metrics are the broker's instruments. Labels are bounded: API names, our own reasons, and topics that exist.
type metrics struct {
	accepted prometheus.Counter
	refused  *prometheus.CounterVec
	closed   *prometheus.CounterVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec

	// stages of Fetch and Produce. The long poll of a fetch is a stage of its own and in no other figure.
	fetchWait, fetchRead, fetchSend         prometheus.Observer
	produceAppend, produceWait, produceSend prometheus.Observer

	sessionEvictions prometheus.Counter

	// by kind of quota
	throttled       [quotas.Keys]prometheus.Counter
	throttleSeconds [quotas.Keys]prometheus.Counter

	topics topicCounters
	reg    prometheus.Registerer
}

// apiMetrics are the instruments of one API, looked up once.
type apiMetrics struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// latencyBuckets run from 50 µs to about 13 s.
var latencyBuckets = prometheus.ExponentialBuckets(50e-6, 4, 10)

func newMetrics(reg prometheus.Registerer, jmx bool) (*metrics, error) {
	m := &metrics{
		accepted: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_broker_connections_accepted_total",
			Help: "Client connections accepted."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_broker_connections_refused_total",
			Help: "Client connections closed at once because a limit was reached, by limit."}, []string{"limit"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_broker_connections_closed_total",
			Help: "Client connections closed by the broker, by reason."}, []string{"reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_broker_requests_total",
			Help: "Requests received, by API."}, []string{"api"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lagoon_broker_request_seconds",
			Help: "From the last byte of a request to the last byte of its response, without the long poll of a fetch.", Buckets: latencyBuckets,
			NativeHistogramBucketFactor: 1.2}, []string{"api"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_broker_partition_errors_total",
			Help: "Partitions answered with an error, by API and Kafka error."}, []string{"api", "error"}),
		sessionEvictions: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_broker_fetch_session_evictions_total",
			Help: "Fetch sessions evicted for a new one."}),
		reg: reg,
	}
	fetch := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lagoon_fetch_stage_seconds",
		Help: "Time of a fetch by stage: wait is the long poll (min_bytes, max_wait, a cold chunk under way), read and send are work.", Buckets: latencyBuckets,
		NativeHistogramBucketFactor: 1.2}, []string{"stage"})
	produce := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lagoon_produce_stage_seconds",
		Help: "Time of a produce request by stage: append, durable (waiting for stable storage), send.", Buckets: latencyBuckets,
		NativeHistogramBucketFactor: 1.2}, []string{"stage"})
	m.fetchWait, m.fetchRead, m.fetchSend = fetch.WithLabelValues("wait"), fetch.WithLabelValues("read"), fetch.WithLabelValues("send")
	m.produceAppend, m.produceWait, m.produceSend = produce.WithLabelValues("append"), produce.WithLabelValues("durable"), produce.WithLabelValues("send")
	throttled := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_quota_throttled_requests_total",
		Help: "Requests, and new connections, after which the client had to wait because it was over a quota."}, []string{"quota"})
	throttleSeconds := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_quota_throttle_seconds_total",
		Help: "Time that clients were told to wait because they were over a quota."}, []string{"quota"})
	for k := range quotas.Keys {
		if k != quotas.ColdFetchByteRate { // it never mutes
			m.throttled[k], m.throttleSeconds[k] = throttled.WithLabelValues(k.String()), throttleSeconds.WithLabelValues(k.String())
		}
	}
	m.topics.init(jmx)
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.accepted, m.refused, m.closed, m.requests, m.seconds, m.failures, fetch, produce, m.sessionEvictions, throttled, throttleSeconds, &m.topics} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// watch exports what the broker can be asked for at any time.
func (m *metrics) watch(b *Broker) error {
	m.topics.exists = func(topic string) bool {
		_, ok := b.meta.Snapshot().Topic(topic)
		return ok
	}
	if m.reg == nil {
		return nil
	}
	gauge := func(name, help string, read func() float64) error {
		return m.reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	errs := []error{
		gauge("lagoon_broker_connections", "Client connections open.", func() float64 { return float64(b.Connections()) }),
		gauge("lagoon_broker_inflight_bytes", "Memory of request frames being read or handled.", func() float64 {
			used, _ := b.budget.usage()
			return float64(used)
		}),
		gauge("lagoon_quota_meters", "Rates measured for client quotas.", func() float64 { return float64(b.limits.meterCount()) }),
		gauge("lagoon_broker_fetch_sessions", "Fetch sessions held.", func() float64 {
			sessions, _ := b.sessions.usage()
			return float64(sessions)
		}),
		gauge("lagoon_broker_fetch_session_partitions", "Partitions in all fetch sessions.", func() float64 {
			_, partitions := b.sessions.usage()
			return float64(partitions)
		}),
		m.reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "lagoon_broker_inflight_waits_total",
			Help: "How often reading a request had to wait for memory."}, func() float64 {
			_, waits := b.budget.usage()
			return float64(waits)
		})),
	}
	if m.topics.jmx {
		errs = append(errs, gauge("kafka_server_socket_server_metrics_connection_count", "Client connections open.", func() float64 { return float64(b.Connections()) }),
			m.reg.Register(quotaCollector{b.limits}))
	}
	return errors.Join(errs...)
}

func (m *metrics) api(name string) *apiMetrics {
	return &apiMetrics{requests: m.requests.WithLabelValues(name), seconds: m.seconds.WithLabelValues(name)}
}

// failed counts a partition that was answered with an error.
func (m *metrics) failed(api string, code int16) {
	m.failures.WithLabelValues(api, kerr.TypedErrorForCode(code).Message).Inc()
}

// topicCounter counts one topic's traffic; plain atomics, because it is on the path of every request.
type topicCounter struct {
	bytesIn, bytesOut, messagesIn  atomic.Int64
	produceRequests, fetchRequests atomic.Int64
	failedProduce, failedFetch     atomic.Int64
}

// topicCounters is a collector over one counter per topic that exists. The map is copied on write: topics appear rarely,
// requests look them up all the time.
type topicCounters struct {
	exists func(topic string) bool
	jmx    bool
	mu     sync.Mutex
	byName atomic.Pointer[map[string]*topicCounter]
	descs  []topicDesc
}

type topicDesc struct {
	desc *prometheus.Desc
	read func(*topicCounter) int64
}

func (t *topicCounters) init(jmx bool) {
	t.jmx = jmx
	t.byName.Store(&map[string]*topicCounter{})
	add := func(name, jmxName, help string, read func(*topicCounter) int64) {
		t.descs = append(t.descs, topicDesc{prometheus.NewDesc("lagoon_topic_"+name+"_total", help, []string{"topic"}, nil), read})
		if jmx {
			t.descs = append(t.descs, topicDesc{prometheus.NewDesc("kafka_server_brokertopicmetrics_"+jmxName+"_total", help, []string{"topic"}, nil), read})
		}
	}
	add("bytes_in", "bytesin", "Record bytes appended.", func(c *topicCounter) int64 { return c.bytesIn.Load() })
	add("bytes_out", "bytesout", "Record bytes sent to consumers.", func(c *topicCounter) int64 { return c.bytesOut.Load() })
	add("messages_in", "messagesin", "Records appended.", func(c *topicCounter) int64 { return c.messagesIn.Load() })
	add("produce_requests", "totalproducerequests", "Produce requests, counted once per partition.", func(c *topicCounter) int64 { return c.produceRequests.Load() })
	add("fetch_requests", "totalfetchrequests", "Fetch requests, counted once per partition and answer.", func(c *topicCounter) int64 { return c.fetchRequests.Load() })
	add("failed_produce_requests", "failedproducerequests", "Partitions of produce requests answered with an error.", func(c *topicCounter) int64 { return c.failedProduce.Load() })
	add("failed_fetch_requests", "failedfetchrequests", "Partitions of fetch requests answered with an error.", func(c *topicCounter) int64 { return c.failedFetch.Load() })
}

// of is the counter of an existing topic.
func (t *topicCounters) of(topic string) *topicCounter {
	if c, ok := (*t.byName.Load())[topic]; ok {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.byName.Load()
	if c, ok := old[topic]; ok {
		return c
	}
	next := make(map[string]*topicCounter, len(old)+1)
	for name, c := range old {
		if t.exists(name) { // the moment to forget deleted topics
			next[name] = c
		}
	}
	c := &topicCounter{}
	next[topic] = c
	t.byName.Store(&next)
	return c
}

func (t *topicCounters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range t.descs {
		ch <- d.desc
	}
}

func (t *topicCounters) Collect(ch chan<- prometheus.Metric) {
	for topic, c := range *t.byName.Load() {
		if !t.exists(topic) {
			continue
		}
		for _, d := range t.descs {
			ch <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(d.read(c)), topic)
		}
	}
}
