package broker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/quotas"
)

// maxQuotaSeries bounds the rates that are exported of each kind: the highest are.
const maxQuotaSeries = 1000

// quotaCollector exports what clients use of their quotas and how long they wait, under the JMX exporter's names. Only who has a quota is
// measured, as in Kafka.
type quotaCollector struct{ l *limiter }

var (
	quotaLabels  = []string{"resource", "user", "clientId"}
	byteRateDesc = prometheus.NewDesc("kafka_server_quota_byte_rate", "Bytes per second of those who have a quota of them.", quotaLabels, nil)
	throttleDesc = prometheus.NewDesc("kafka_server_quota_throttle_time", "Mean time in ms that those had to wait, in the last 30 to 60 s, who had used more than their quota.", quotaLabels, nil)
)

// rates lists the highest rates of a kind.
func (l *limiter) rates(k quotas.Key) []quotas.Rate {
	l.mu.Lock()
	list := l.meters.Rates(k, time.Now())
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b quotas.Rate) int { return cmp.Compare(b.PerSecond, a.PerSecond) })
	return list[:min(len(list), maxQuotaSeries)]
}

// Describe implements prometheus.Collector.
func (c quotaCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- byteRateDesc
	ch <- throttleDesc
}

// Collect implements prometheus.Collector.
func (c quotaCollector) Collect(ch chan<- prometheus.Metric) {
	for k, resource := range map[quotas.Key]string{quotas.ProducerByteRate: "Produce", quotas.ConsumerByteRate: "Fetch", quotas.RequestPercentage: "Request"} {
		type labels struct{ user, client string }
		seen := map[labels]bool{}
		for _, r := range c.l.rates(k) {
			// A user, and his clients without an id, are not told apart; the highest is shown.
			l := labels{strings.ToValidUTF8(r.Shared.User.Name, "?"), strings.ToValidUTF8(r.Shared.ClientID.Name, "?")}
			if seen[l] {
				continue
			}
			seen[l] = true
			put := func(desc *prometheus.Desc, value float64) {
				ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, resource, l.user, l.client)
			}
			put(throttleDesc, float64(r.MeanPause.Milliseconds()))
			if k != quotas.RequestPercentage {
				put(byteRateDesc, r.PerSecond)
			}
		}
	}
}
