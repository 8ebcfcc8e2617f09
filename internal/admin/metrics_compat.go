package admin

import (
	"cmp"
	"slices"
	"strconv"
)

// metrics_compat.go serves figures under the names that existing dashboards look for (metrics.compat).

// exporter serves kafka_exporter's names. This is a single-node broker: leader, replica and ISR are this node.
func (m *scrape) exporter() {
	m.gauge("kafka_brokers", "Number of Brokers in the Kafka Cluster.", 1)
	for _, t := range m.list {
		m.gauge("kafka_topic_partitions", "Number of partitions for this Topic", float64(len(t.Partitions)), "topic", t.Name)
	}
	node := 0.0
	if st, err := m.backend.Status(m.ctx); err == nil {
		node = float64(st.NodeID)
	}
	m.eachPartition(func(_ Topic, p Partition, l []string) {
		m.gauge("kafka_topic_partition_current_offset", "Current Offset of a Broker at Topic/Partition", float64(p.HighWatermark), l...)
		m.gauge("kafka_topic_partition_oldest_offset", "Oldest Offset of a Broker at Topic/Partition", float64(p.StartOffset), l...)
		m.gauge("kafka_topic_partition_in_sync_replica", "Number of In-Sync Replicas for this Topic/Partition", truth(p.Error == ""), l...)
		m.gauge("kafka_topic_partition_leader", "Leader Broker ID of this Topic/Partition", node, l...)
		m.gauge("kafka_topic_partition_leader_is_preferred", "1 if Topic/Partition is using the Preferred Broker", 1, l...)
		m.gauge("kafka_topic_partition_replicas", "Number of Replicas for this Topic/Partition", 1, l...)
		m.gauge("kafka_topic_partition_under_replicated_partition", "1 if Topic/Partition is under Replicated", truth(p.Error != ""), l...)
	})
	if list, err := m.backend.Groups(m.ctx); err == nil {
		left := m.consumerGroups(list) + m.lagExporter(list)
		m.gauge("lagoon_metrics_dropped_consumergroup_rows",
			"Groups, their topics and their partitions left out of kafka_consumergroup_* because there are too many.", float64(left))
	}
}

// topicLag is what a group has committed in one topic. Only partitions with an offset count.
type topicLag struct {
	group, topic string
	offsets, lag int64
}

// consumerGroups serves kafka_exporter's names for groups: -1 stands for a partition without an offset, and a topic without any is left
// out. Of too many rows those furthest behind are kept; left is how many are not.
func (m *scrape) consumerGroups(list []Group) (left int) {
	var rows []groupRow
	var topics []topicLag
	for _, g := range list {
		from := len(topics)
		for _, p := range consumed(g.Partitions) {
			rows = append(rows, groupRow{g.Group, p})
			if n := len(topics); n == from || topics[n-1].topic != p.Topic {
				topics = append(topics, topicLag{group: g.Group, topic: p.Topic})
			}
			t := &topics[len(topics)-1]
			t.offsets, t.lag = t.offsets+max(0, p.CommittedOffset), t.lag+max(0, p.LagRecords)
		}
	}
	rows = furthest(rows, &left, func(r groupRow) float64 { return float64(max(0, r.LagRecords)) })
	topics = furthest(topics, &left, func(t topicLag) float64 { return float64(t.lag) })
	list = furthest(list, &left, func(g Group) float64 { return float64(g.LagRecords) })
	for _, r := range rows {
		l := []string{"consumergroup", r.group, "topic", r.Topic, "partition", strconv.Itoa(int(r.Partition))}
		m.gauge("kafka_consumergroup_current_offset", "Current Offset of a ConsumerGroup at Topic/Partition", float64(r.CommittedOffset), l...)
		if r.EndOffset >= 0 { // else the topic is gone
			m.gauge("kafka_consumergroup_lag", "Current Approximate Lag of a ConsumerGroup at Topic/Partition", float64(r.LagRecords), l...)
		}
	}
	for _, t := range topics {
		l := []string{"consumergroup", t.group, "topic", t.topic}
		m.gauge("kafka_consumergroup_current_offset_sum", "Current Offset of a ConsumerGroup at Topic for all partitions", float64(t.offsets), l...)
		m.gauge("kafka_consumergroup_lag_sum", "Current Approximate Lag of a ConsumerGroup at Topic for all partitions", float64(t.lag), l...)
	}
	for _, g := range list {
		m.gauge("kafka_consumergroup_members", "Amount of members in a consumer group", float64(g.Members), "consumergroup", g.Group)
	}
	return left
}

// lagExporter serves kafka-lag-exporter's names for lag in time, bounded like consumerGroups. Partitions whose lag in time is not known
// are left out.
func (m *scrape) lagExporter(list []Group) (left int) {
	cluster := ""
	if st, err := m.backend.Status(m.ctx); err == nil {
		cluster = st.ClusterID
	}
	var rows []groupRow
	for _, g := range list {
		for _, p := range g.Partitions {
			if p.LagSeconds >= 0 {
				rows = append(rows, groupRow{g.Group, p})
			}
		}
	}
	for _, r := range furthest(rows, &left, func(r groupRow) float64 { return r.LagSeconds }) {
		m.gauge("kafka_consumergroup_group_lag_seconds", "Group time lag of a partition.", r.LagSeconds, "cluster_name", cluster, "group", r.group,
			"topic", r.Topic, "partition", strconv.Itoa(int(r.Partition)), "member_host", r.Host, "client_id", r.ClientID)
	}
	for _, g := range furthest(list, &left, func(g Group) float64 { return g.LagSeconds }) {
		if g.LagSeconds >= 0 && len(consumed(g.Partitions)) > 0 {
			m.gauge("kafka_consumergroup_group_max_lag_seconds", "Max group time lag.", g.LagSeconds, "cluster_name", cluster, "group", g.Group)
		}
	}
	return left
}

// groupRow is one partition of a group.
type groupRow struct {
	group string
	GroupPartition
}

// consumed are the partitions of those topics in which a group has an offset anywhere. What it is given is by topic, and kept.
func consumed(all []GroupPartition) []GroupPartition {
	has := map[string]bool{}
	for _, p := range all {
		has[p.Topic] = has[p.Topic] || p.CommittedOffset >= 0
	}
	return slices.DeleteFunc(slices.Clone(all), func(p GroupPartition) bool { return !has[p.Topic] })
}

// furthest keeps the maxReaderSeries rows with the most lag, and adds to left how many those were that it does not keep.
func furthest[T any](rows []T, left *int, lag func(T) float64) []T {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b T) int { return cmp.Compare(lag(b), lag(a)) })
	n := min(len(rows), maxReaderSeries)
	*left += len(rows) - n
	return rows[:n]
}

// jmx serves the JMX exporter's names that Strimzi's dashboards use, as far as one node has them. The broker itself serves those that
// count requests (kafka_server_brokertopicmetrics_*).
func (m *scrape) jmx() {
	partitions, offline := 0, 0
	m.eachPartition(func(_ Topic, p Partition, l []string) {
		partitions++
		offline += int(truth(p.Error != ""))
		m.gauge("kafka_log_log_size", "Bytes of log.", float64(p.Bytes), l...)
		m.gauge("kafka_cluster_partition_replicascount", "Replicas.", 1, l...)
		// Kafka caps min.insync.replicas at the number of replicas: with one, a partition that serves has just enough.
		m.gauge("kafka_cluster_partition_underminisr", "1 if fewer replicas are in sync than min.insync.replicas asks for.", truth(p.Error != ""), l...)
		m.gauge("kafka_cluster_partition_atminisr", "1 if just as many replicas are in sync as min.insync.replicas asks for.", truth(p.Error == ""), l...)
	})
	m.gauge("kafka_server_replicamanager_leadercount", "Partitions led by this broker.", float64(partitions-offline))
	m.gauge("kafka_server_replicamanager_partitioncount", "Partitions on this broker.", float64(partitions))
	m.gauge("kafka_server_replicamanager_underreplicatedpartitions", "Partitions with too few replicas.", float64(offline))
	m.gauge("kafka_controller_kafkacontroller_activecontrollercount", "1: this node is the controller.", 1)
	m.gauge("kafka_controller_kafkacontroller_offlinepartitionscount", "Partitions that serve nothing.", float64(offline))
}
