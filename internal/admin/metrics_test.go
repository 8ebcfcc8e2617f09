package admin_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
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
			`lagoon_tier_limit_bytes{tier="ssd"} 9.663676416e+10`, // 50 GiB of its own and 40 that are free: less than max_used
			`lagoon_tier_watermark_ratio{level="high",tier="ssd"} 0.85`, `lagoon_topic_bytes{tier="hdd",topic="orders"} 3.221225472e+09`,
			`lagoon_throttle_limit_bytes_per_second{name="warehouse",scope="group"} 2.097152e+07`,
			`lagoon_check_ok{check="cachestat"} 0`, `lagoon_build_info{commit="abc1234",go_version="go1.26",version="v0.1.0"} 1`,
			// kafka_exporter
			"kafka_brokers 1", `kafka_topic_partitions{topic="orders"} 2`, `kafka_topic_partition_current_offset{partition="3",topic="orders"} 4.1200211e+07`,
			`kafka_topic_partition_oldest_offset{partition="3",topic="orders"} 40000`, `kafka_topic_partition_leader{partition="0",topic="orders"} 1`,
			`kafka_consumergroup_current_offset{consumergroup="warehouse",partition="3",topic="orders"} 4.0112345e+07`,
			`kafka_consumergroup_current_offset_sum{consumergroup="warehouse",topic="orders"} 4.0112345e+07`,
			`kafka_consumergroup_lag{consumergroup="warehouse",partition="3",topic="orders"} 1.087866e+06`,
			`kafka_consumergroup_lag_sum{consumergroup="warehouse",topic="orders"} 1.087866e+06`, `kafka_consumergroup_members{consumergroup="warehouse"} 1`,
			// kafka-lag-exporter
			`kafka_consumergroup_group_lag_seconds{client_id="wh-loader",cluster_name="Zm9vYmFyYmF6cXV4MTIzNA",group="warehouse",member_host="/10.0.0.7",partition="3",topic="orders"} 752`,
			`kafka_consumergroup_group_max_lag_seconds{cluster_name="Zm9vYmFyYmF6cXV4MTIzNA",group="warehouse"} 752`,
			// JMX exporter
			`kafka_cluster_partition_underminisr{partition="3",topic="orders"} 0`, `kafka_cluster_partition_atminisr{partition="3",topic="orders"} 1`,
			"kafka_server_replicamanager_partitioncount 2",
			`kafka_log_log_size{partition="0",topic="orders"} 1.073741824e+09`, "kafka_controller_kafkacontroller_activecontrollercount 1",
		},
		"/metrics/detailed": {
			`lagoon_reader_lag_bytes{client_id="wh-loader",group="warehouse",partition="3",topic="orders"} 9.7712128e+09`,
			`lagoon_partition_end_offset{partition="3",topic="orders"} 4.1200211e+07`, "lagoon_metrics_dropped_readers 0",
			`lagoon_throttle_wait_seconds_total{client_id="",group="warehouse",limited_by="tier"} 90`,
			`lagoon_throttle_wait_seconds_total{client_id="",group="warehouse",limited_by="reader"} 3.5`,
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

// groupsBackend is a fake with groups of its own.
type groupsBackend struct {
	*admintest.Fake
	list []admin.Group
}

func (b groupsBackend) Groups(context.Context) ([]admin.Group, error) { return b.list, nil }

// TestMetricsOfGroups: partitions without an offset show as -1 and are in no sum, topics without any and lag of deleted topics are
// left out, and of too many groups those furthest behind stay.
func TestMetricsOfGroups(t *testing.T) {
	list := []admin.Group{{Group: "etl", Members: 2, LagRecords: 7, LagSeconds: 3, Partitions: []admin.GroupPartition{
		{Topic: "gone", CommittedOffset: 5, EndOffset: -1, LagRecords: -1, LagSeconds: -1},
		{Topic: "new", CommittedOffset: -1, EndOffset: 9, LagRecords: -1, LagSeconds: -1},
		{Topic: "orders", CommittedOffset: 10, EndOffset: 17, LagRecords: 7, LagSeconds: 3},
		{Topic: "orders", Partition: 1, CommittedOffset: -1, EndOffset: 17, LagRecords: -1, LagSeconds: -1},
	}}}
	for i := range 1010 {
		list = append(list, admin.Group{Group: fmt.Sprintf("idle-%04d", i), Partitions: []admin.GroupPartition{{Topic: "orders", CommittedOffset: 17, EndOffset: 17}}})
	}
	f := newServer(t, func(o *admin.Options) { o.Backend = groupsBackend{admintest.New(), list} })
	var got []string
	idle := 0
	for line := range strings.Lines(f.call("GET", "/metrics", "").Body.String()) {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.Contains(line, `"idle-`):
			idle++
		case strings.HasPrefix(line, "kafka_consumergroup_"), strings.HasPrefix(line, "lagoon_metrics_dropped_"):
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`kafka_consumergroup_current_offset{consumergroup="etl",partition="0",topic="gone"} 5`,
		`kafka_consumergroup_current_offset{consumergroup="etl",partition="0",topic="orders"} 10`,
		`kafka_consumergroup_current_offset{consumergroup="etl",partition="1",topic="orders"} -1`,
		`kafka_consumergroup_current_offset_sum{consumergroup="etl",topic="gone"} 5`,
		`kafka_consumergroup_current_offset_sum{consumergroup="etl",topic="orders"} 10`,
		`kafka_consumergroup_group_lag_seconds{client_id="",cluster_name="Zm9vYmFyYmF6cXV4MTIzNA",group="etl",member_host="",partition="0",topic="orders"} 3`,
		`kafka_consumergroup_group_max_lag_seconds{cluster_name="Zm9vYmFyYmF6cXV4MTIzNA",group="etl"} 3`,
		`kafka_consumergroup_lag{consumergroup="etl",partition="0",topic="orders"} 7`,
		`kafka_consumergroup_lag{consumergroup="etl",partition="1",topic="orders"} -1`,
		`kafka_consumergroup_lag_sum{consumergroup="etl",topic="gone"} 0`,
		`kafka_consumergroup_lag_sum{consumergroup="etl",topic="orders"} 7`,
		`kafka_consumergroup_members{consumergroup="etl"} 2`, "lagoon_metrics_dropped_consumergroup_rows 58",
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("lacks %s", line)
		}
	}
	for _, line := range got {
		if strings.HasPrefix(line, "kafka_consumergroup_") && !slices.Contains(want, line) {
			t.Errorf("unexpected %s", line)
		}
	}
	// 1,000 are kept of each: partitions (two names), topics (two names), members, partitions in seconds, groups in seconds.
	if want := 997*2 + 998*2 + 999 + 999 + 999; idle != want {
		t.Errorf("%d lines of idle groups, want %d", idle, want)
	}
}

// readersBackend is groupsBackend with readers of its own, too.
type readersBackend struct {
	groupsBackend
	readers []admin.Reader
}

func (b readersBackend) Readers(context.Context) ([]admin.Reader, error) { return b.readers, nil }

// TestMetricsOfUnknownLag: after a restart it is not known for how long a young record has been there. That is no lag of 0 s, and no
// negative one.
func TestMetricsOfUnknownLag(t *testing.T) {
	part := func(partition int32, records int64, seconds float64) admin.GroupPartition {
		return admin.GroupPartition{Topic: "orders", Partition: partition, CommittedOffset: 1, EndOffset: 1 + records, LagRecords: records, LagSeconds: seconds}
	}
	b := readersBackend{groupsBackend{admintest.New(), []admin.Group{
		{Group: "unknown", LagRecords: 7, LagSeconds: -1, Partitions: []admin.GroupPartition{part(0, 7, -1), part(1, 0, 0)}},
		{Group: "partly", LagRecords: 9, LagSeconds: 3, Partitions: []admin.GroupPartition{part(0, 7, -1), part(1, 2, 3)}},
		{Group: "done", Partitions: []admin.GroupPartition{part(0, 0, 0)}},
	}}, []admin.Reader{{ID: "r-1", ClientID: "young", Topic: "orders", LagRecords: 7, LagSeconds: -1}, {ID: "r-2", ClientID: "old", Topic: "orders", LagSeconds: 5}}}
	f := newServer(t, func(o *admin.Options) { o.Backend = b })
	var got []string
	for _, path := range []string{"/metrics", "/metrics/detailed"} {
		for line := range strings.Lines(f.call("GET", path, "").Body.String()) {
			name, rest, _ := strings.Cut(line, "{")
			who, value := "", line[strings.LastIndexByte(line, ' ')+1:]
			for _, label := range strings.Split(rest, ",") {
				if k, v, _ := strings.Cut(label, "="); k == "group" && v != `""` || k == "client_id" && name == "lagoon_reader_lag_seconds" {
					who, _, _ = strings.Cut(strings.Trim(v, `"`), `"`)
				}
			}
			if slices.Contains([]string{"lagoon_group_lag_seconds", "kafka_consumergroup_group_max_lag_seconds", "lagoon_reader_lag_seconds"}, name) {
				got = append(got, name+" "+who+" "+strings.TrimSpace(value))
			}
		}
	}
	slices.Sort(got)
	want := []string{"kafka_consumergroup_group_max_lag_seconds done 0", "kafka_consumergroup_group_max_lag_seconds partly 3",
		"lagoon_group_lag_seconds done 0", "lagoon_group_lag_seconds partly 3", "lagoon_reader_lag_seconds old 5"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
