package admin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/admin"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_fetch_bytes_total", Help: "x"})
	reg.MustRegister(own)
	own.Add(5)
	f := newServer(t, func(o *admin.Options) { o.Gatherer = reg })
	for target, want := range map[string][]string{
		"/metrics": {
			"lagoon_fetch_bytes_total 5", `lagoon_readers{class="lagging",topic="orders"} 1`, `lagoon_tier_capacity_bytes{tier="hdd"} 2.147483648e+12`,
			`lagoon_tier_watermark_ratio{level="high",tier="ssd"} 0.85`, `lagoon_topic_bytes{tier="hdd",topic="orders"} 3.221225472e+09`,
			`lagoon_throttle_limit_bytes_per_second{name="warehouse",scope="group"} 2.097152e+07`,
			`lagoon_check_ok{check="cachestat"} 0`, `lagoon_build_info{commit="abc1234",go_version="go1.26",version="v0.1.0"} 1`,
			// kafka_exporter
			"kafka_brokers 1", `kafka_topic_partitions{topic="orders"} 2`, `kafka_topic_partition_current_offset{partition="3",topic="orders"} 4.1200211e+07`,
			`kafka_topic_partition_oldest_offset{partition="3",topic="orders"} 40000`, `kafka_topic_partition_leader{partition="0",topic="orders"} 1`,
			// JMX exporter
			"kafka_server_replicamanager_partitioncount 2",
			`kafka_log_log_size{partition="0",topic="orders"} 1.073741824e+09`, "kafka_controller_kafkacontroller_activecontrollercount 1",
		},
		"/metrics/detailed": {
			`lagoon_reader_lag_bytes{client_id="wh-loader",group="warehouse",partition="3",topic="orders"} 9.7712128e+09`,
			`lagoon_partition_end_offset{partition="3",topic="orders"} 4.1200211e+07`, "lagoon_metrics_dropped_readers 0",
			`lagoon_partition_records_in_total{partition="3",topic="orders"} 4.1160211e+07`,
		},
	} {
		w := f.call("GET", target, "")
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s", target, w.Code, w.Header().Get("Content-Type"))
		}
		lines := strings.Split(w.Body.String(), "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s lacks %s", target, line)
			}
		}
	}
	f.fake.Err = admin.ErrStarting
	if w := f.call("GET", "/metrics", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "lagoon_check_ok") {
		t.Errorf("while starting: %d %s", w.Code, w.Body)
	}
}

func TestMetricsWithoutCompat(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Compat = nil })
	if w := f.call("GET", "/metrics", ""); strings.Contains(w.Body.String(), "kafka_") {
		t.Error("foreign names are served although compat is empty")
	}
}
