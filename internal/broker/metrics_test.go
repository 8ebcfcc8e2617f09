package broker

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

// gathered flattens a registry: name{labels} → value (count for histograms).
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[key] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				out[key] = m.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				out[key] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := newRig(t, func(o *Options) { o.Registerer, o.MetricsJMX = reg, true })
	c := r.dial()
	produced(c, produceRequest(9, -1, "orders", records(0, batch(5, 500))))
	r.logs["orders-1"].appendErr = partition.ErrFenced
	produced(c, produceRequest(9, -1, "orders", records(1, batch(5, 500))))
	req := fetchRequest(12, "orders", map[int32]int64{0: 0})
	req.SessionEpoch = 0
	c.fetch(req)
	call[*kmsg.ListOffsetsResponse](c, listOffsets(4, "nowhere", timeLatest))
	c.versions() // all before it is counted
	var got map[string]float64
	waitUntil(t, "the bytes of requests to be given back", func() bool { // a response is on its way before its request's bytes are given back
		got = gathered(t, reg)
		return got["lagoon_broker_inflight_bytes{}"] == 0
	})
	for key, want := range map[string]float64{
		"lagoon_broker_connections{}":                                                            1,
		"lagoon_broker_connections_accepted_total{}":                                             1,
		"lagoon_broker_requests_total{api=Produce}":                                              2,
		"lagoon_broker_requests_total{api=Fetch}":                                                1,
		"lagoon_broker_request_seconds{api=Produce}":                                             2,
		"lagoon_broker_partition_errors_total{api=Produce,error=KAFKA_STORAGE_ERROR}":            1,
		"lagoon_broker_partition_errors_total{api=ListOffsets,error=UNKNOWN_TOPIC_OR_PARTITION}": 1,
		"lagoon_broker_fetch_sessions{}":                                                         1,
		"lagoon_broker_fetch_session_partitions{}":                                               1,
		"lagoon_broker_inflight_bytes{}":                                                         0,
		"lagoon_fetch_stage_seconds{stage=read}":                                                 1,
		"lagoon_fetch_stage_seconds{stage=send}":                                                 1,
		"lagoon_fetch_stage_seconds{stage=wait}":                                                 0,
		"lagoon_produce_stage_seconds{stage=durable}":                                            2,
		"lagoon_topic_bytes_in_total{topic=orders}":                                              500,
		"lagoon_topic_messages_in_total{topic=orders}":                                           5,
		"lagoon_topic_bytes_out_total{topic=orders}":                                             500,
		"lagoon_topic_failed_produce_requests_total{topic=orders}":                               1,
		"kafka_server_brokertopicmetrics_bytesin_total{topic=orders}":                            500,
		"kafka_server_brokertopicmetrics_totalproducerequests_total{topic=orders}":               2,
		"kafka_server_socket_server_metrics_connection_count{}":                                  1,
	} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s = %v (there: %v), want %v", key, value, ok, want)
		}
	}
	for key := range got {
		if strings.Contains(key, "nowhere") {
			t.Errorf("%s: a topic that does not exist became a label", key)
		}
	}

	// A deleted topic's series end.
	if err := r.b.meta.DeleteTopic(r.orders.ID); err != nil {
		t.Fatal(err)
	}
	for key := range gathered(t, reg) {
		if strings.Contains(key, "topic=orders") {
			t.Errorf("%s: the topic is gone", key)
		}
	}
	r.b.metrics.topics.of("other")
	if n := len(*r.b.metrics.topics.byName.Load()); n != 1 {
		t.Errorf("%d counters are kept", n)
	}
	if _, err := newBroker(r.b.opt, r.logs); err == nil {
		t.Error("two brokers registered the same metrics")
	}
}
