package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// TestExporters replays what lag exporters send, version by version, and computes lag as they do: kafka_exporter and kminion ask, Burrow and
// kminion's second mode read __consumer_offsets in Kafka's own format; and our own endpoint has kafka_exporter's names. The truth is what a live group of one member committed: 60, 50 and
// 40 of the 100 records of each partition, and nothing of the fourth.
func TestExporters(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: append([]string{"groups.offsets_partitions=3"}, quickGroups...)})
	lagoontest.CreateTopic(t, b, "read", 4, "retention.ms", "-1")
	fillPartitions(t, b, "read", 4, 100)
	committed := map[int32]int64{0: 60, 1: 50, 2: 40}
	member := watchedGroup(t, b, committed)
	lag := map[int32]int64{0: 40, 1: 50, 2: 60}
	for _, e := range []struct {
		name string
		lag  func(t *testing.T, b *lagoontest.Broker, member string) map[int32]int64
	}{{"kafka_exporter", kafkaExporter}, {"kminion", kminion}, {"Burrow", burrow}, {"no exporter", ownMetrics}} {
		t.Run(e.name, func(t *testing.T) {
			if got := e.lag(t, b, member); fmt.Sprint(got) != fmt.Sprint(lag) {
				t.Errorf("lag by partition %v, want %v", got, lag)
			}
		})
	}
}

// fillPartitions writes n records to each partition.
func fillPartitions(t *testing.T, b lagoontest.Cluster, topic string, partitions int32, n int) {
	t.Helper()
	cl := lagoontest.Client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var rs []*kgo.Record
	for i := range n {
		for p := range partitions {
			rs = append(rs, &kgo.Record{Topic: topic, Partition: p, Value: fmt.Appendf(nil, "record %d", i)})
		}
	}
	if err := cl.ProduceSync(testContext(t), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// watchedGroup is a live group "watched" of one member, whose id it returns, that has committed what is given.
func watchedGroup(t *testing.T, b *lagoontest.Broker, offsets map[int32]int64) string {
	t.Helper()
	ctx := testContext(t)
	cl := lagoontest.Client(t, b, kgo.ConsumerGroup("watched"), kgo.ConsumeTopics("read"), kgo.DisableAutoCommit(), kgo.InstanceID("one"))
	polled, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for polled.Err() == nil {
			cl.PollFetches(polled)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	adm := kadm.NewClient(cl)
	for {
		described, err := adm.DescribeGroups(ctx, "watched")
		if err != nil {
			t.Fatal(err)
		}
		if g := described["watched"]; g.State == "Stable" && len(g.Members) == 1 {
			set := map[string]map[int32]kgo.EpochOffset{"read": {}}
			for p, o := range offsets {
				set["read"][p] = kgo.EpochOffset{Epoch: 0, Offset: o}
			}
			var failed error
			cl.CommitOffsetsSync(ctx, set, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
				failed = err
			})
			if failed != nil {
				t.Fatal(failed)
			}
			return g.Members[0].MemberID
		}
	}
}

// endOffsets asks for the special timestamp of every partition.
func endOffsets(t *testing.T, c *rawConn, version int16, timestamp int64) map[int32]int64 {
	t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = "read"
	for p := range int32(4) {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = p, timestamp, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	out := map[int32]int64{}
	for _, p := range ask[*kmsg.ListOffsetsResponse](c, version, req).Topics[0].Partitions {
		if p.ErrorCode != 0 {
			t.Errorf("list offsets v%d of partition %d: code %d", version, p.Partition, p.ErrorCode)
		}
		out[p.Partition] = p.Offset
	}
	return out
}

// kafkaExporter is an old Sarama without ApiVersions: Metadata 6, ListOffsets 3, ListGroups 0, DescribeGroups 0, OffsetFetch 4.
func kafkaExporter(t *testing.T, b *lagoontest.Broker, member string) map[int32]int64 {
	c := dial(t, b)
	md := kmsg.NewPtrMetadataRequest() // null: all topics
	meta := ask[*kmsg.MetadataResponse](c, 6, md)
	topics := map[string]int{}
	for _, mt := range meta.Topics {
		topics[*mt.Topic] = len(mt.Partitions)
	}
	if topics["read"] != 4 || topics["__consumer_offsets"] != 3 || meta.ControllerID != meta.Brokers[0].NodeID {
		t.Errorf("metadata v6: %v, controller %d", topics, meta.ControllerID)
	}
	ends, starts := endOffsets(t, c, 3, -1), endOffsets(t, c, 3, -2)
	for p := range int32(4) {
		if ends[p] != 100 || starts[p] != 0 {
			t.Errorf("partition %d: from %d to %d, want 0 to 100", p, starts[p], ends[p])
		}
	}
	listed := ask[*kmsg.ListGroupsResponse](c, 0, kmsg.NewPtrListGroupsRequest())
	if len(listed.Groups) != 1 || listed.Groups[0].Group != "watched" || listed.Groups[0].ProtocolType != "consumer" {
		t.Errorf("list groups v0: %+v", listed.Groups)
	}
	dg := kmsg.NewPtrDescribeGroupsRequest()
	dg.Groups = []string{"watched"}
	described := ask[*kmsg.DescribeGroupsResponse](c, 0, dg).Groups[0]
	if described.ErrorCode != 0 || described.State != "Stable" || len(described.Members) != 1 || described.Members[0].MemberID != member {
		t.Errorf("describe groups v0: %+v", described)
	}
	assigned := kmsg.NewConsumerMemberAssignment()
	if err := assigned.ReadFrom(described.Members[0].MemberAssignment); err != nil || len(assigned.Topics) != 1 || len(assigned.Topics[0].Partitions) != 4 {
		t.Errorf("the assignment: %v, %+v", err, assigned)
	}
	of := kmsg.NewPtrOffsetFetchRequest()
	of.Group = "watched"
	of.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "read", Partitions: []int32{0, 1, 2, 3}}, {Topic: "__consumer_offsets", Partitions: []int32{0, 1, 2}}}
	fetched := ask[*kmsg.OffsetFetchResponse](c, 4, of)
	lag := map[int32]int64{}
	for _, ft := range fetched.Topics {
		for _, p := range ft.Partitions {
			switch {
			case p.ErrorCode != 0:
				t.Errorf("offset fetch v4: %s/%d: code %d", ft.Topic, p.Partition, p.ErrorCode)
			case p.Offset >= 0:
				lag[p.Partition] = ends[p.Partition] - p.Offset
			}
		}
	}
	return lag
}

// ownMetrics scrapes the broker as one would kafka_exporter.
func ownMetrics(t *testing.T, b *lagoontest.Broker, _ string) map[int32]int64 {
	resp, err := http.Get(b.Admin() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`kafka_consumergroup_current_offset{consumergroup="watched",partition="3",topic="read"} -1`, `kafka_consumergroup_lag{consumergroup="watched",partition="3",topic="read"} -1`,
		`kafka_consumergroup_current_offset_sum{consumergroup="watched",topic="read"} 150`, `kafka_consumergroup_lag_sum{consumergroup="watched",topic="read"} 150`,
		`kafka_consumergroup_members{consumergroup="watched"} 1`,
	} {
		if !bytes.Contains(body, []byte("\n"+line+"\n")) {
			t.Errorf("the metrics lack %s", line)
		}
	}
	lag := map[int32]int64{}
	for line := range bytes.Lines(body) {
		var p int32
		var n int64
		if _, err := fmt.Sscanf(string(line), `kafka_consumergroup_lag{consumergroup="watched",partition="%d",topic="read"} %d`, &p, &n); err == nil && n >= 0 {
			lag[p] = n
		}
	}
	return lag
}

// kminion: Metadata 13, ListOffsets 10, ListGroups 5, DescribeGroups 6, OffsetFetch 9, DescribeConfigs 4, DescribeLogDirs 4.
func kminion(t *testing.T, b *lagoontest.Broker, member string) map[int32]int64 {
	c := dial(t, b)
	meta := ask[*kmsg.MetadataResponse](c, 13, kmsg.NewPtrMetadataRequest())
	for _, mt := range meta.Topics {
		if mt.ErrorCode != 0 || mt.TopicID == [16]byte{} || mt.IsInternal != (*mt.Topic == "__consumer_offsets") {
			t.Errorf("metadata v13: %+v", mt)
		}
	}
	dc := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range []string{"cleanup.policy"} {
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kmsg.ConfigResourceTypeTopic, "read", []string{name}
		dc.Resources = append(dc.Resources, rr)
	}
	if r := ask[*kmsg.DescribeConfigsResponse](c, 4, dc).Resources[0]; r.ErrorCode != 0 || len(r.Configs) != 1 || *r.Configs[0].Value != "delete" {
		t.Errorf("describe configs v4: %+v", r)
	}
	dirs := ask[*kmsg.DescribeLogDirsResponse](c, 4, kmsg.NewPtrDescribeLogDirsRequest())
	var read int64
	for _, d := range dirs.Dirs {
		if d.ErrorCode != 0 || d.TotalBytes <= 0 || d.UsableBytes <= 0 {
			t.Errorf("describe log dirs v4: %s: %+v", d.Dir, d)
		}
		for _, dt := range d.Topics {
			for _, p := range dt.Partitions {
				if dt.Topic == "read" && !p.IsFuture && p.Size > 0 {
					read++
				}
			}
		}
	}
	if dirs.ErrorCode != 0 || read != 4 {
		t.Errorf("describe log dirs v4: code %d, %d partitions of the topic with a size, want 4", dirs.ErrorCode, read)
	}
	listed := ask[*kmsg.ListGroupsResponse](c, 5, kmsg.NewPtrListGroupsRequest())
	if len(listed.Groups) != 1 || listed.Groups[0].GroupState != "Stable" || listed.Groups[0].GroupType != "classic" {
		t.Errorf("list groups v5: %+v", listed.Groups)
	}
	dg := kmsg.NewPtrDescribeGroupsRequest()
	dg.Groups = []string{"watched", "absent"}
	for _, g := range ask[*kmsg.DescribeGroupsResponse](c, 6, dg).Groups {
		if want := map[string]int16{"watched": 0, "absent": 69}[g.Group]; g.ErrorCode != want {
			t.Errorf("describe groups v6: %s: code %d, want %d", g.Group, g.ErrorCode, want)
		}
	}
	of := kmsg.NewPtrOffsetFetchRequest()
	for _, name := range []string{"watched", "absent"} {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group, g.MemberEpoch, g.Topics = name, -1, nil // null: all
		of.Groups = append(of.Groups, g)
	}
	ends := endOffsets(t, c, 10, -1)
	lag := map[int32]int64{}
	for _, g := range ask[*kmsg.OffsetFetchResponse](c, 9, of).Groups {
		if g.ErrorCode != 0 || g.Group == "absent" && len(g.Topics) > 0 {
			t.Errorf("offset fetch v9: %+v", g)
		}
		for _, ft := range g.Topics {
			for _, p := range ft.Partitions {
				lag[p.Partition] = ends[p.Partition] - p.Offset
			}
		}
	}
	return lag
}

// burrow reads __consumer_offsets and decodes its keys and values itself: an offset per group, topic and partition, and who is a member.
// kminion's offsetsTopic mode does the same.
func burrow(t *testing.T, b *lagoontest.Broker, member string) map[int32]int64 {
	c := dial(t, b)
	offsets := map[int32]int64{}
	members := map[string]string{}
	for partition := range int32(3) {
		for _, r := range fetchAll(t, c, "__consumer_offsets", partition) {
			if len(r.Key) < 2 {
				t.Fatalf("key %x", r.Key)
			}
			switch version := r.Key[1]; version {
			case 0, 1:
				key, value := kmsg.NewOffsetCommitKey(), kmsg.NewOffsetCommitValue()
				if err := key.ReadFrom(r.Key); err != nil {
					t.Fatalf("offset key %x: %v", r.Key, err)
				}
				if r.Value == nil {
					delete(offsets, key.Partition)
					continue
				}
				if err := value.ReadFrom(r.Value); err != nil || value.Version > 3 {
					t.Fatalf("offset value %x: %v", r.Value, err)
				}
				if key.Group != "watched" || key.Topic != "read" || time.Since(time.UnixMilli(value.CommitTimestamp)).Abs() > time.Hour {
					t.Errorf("offset %+v = %+v", key, value)
				}
				offsets[key.Partition] = value.Offset
			case 2:
				key, value := kmsg.NewGroupMetadataKey(), kmsg.NewGroupMetadataValue()
				if err := key.ReadFrom(r.Key); err != nil {
					t.Fatalf("group key %x: %v", r.Key, err)
				}
				if err := value.ReadFrom(r.Value); err != nil || value.Version > 3 {
					t.Fatalf("group value %x: %v", r.Value, err)
				}
				clear(members)
				for _, m := range value.Members {
					members[m.MemberID] = m.ClientHost
				}
			default:
				t.Errorf("a key of version %d: %x", version, r.Key)
			}
		}
	}
	if _, ok := members[member]; !ok || len(members) != 1 {
		t.Errorf("members %v, want %s", members, member)
	}
	ends := endOffsets(t, c, 1, -1)
	for p, o := range offsets {
		offsets[p] = ends[p] - o
	}
	return offsets
}

// fetchAll reads a partition by Fetch 11, as librdkafka and Sarama do, from 0 to its end.
func fetchAll(t *testing.T, c *rawConn, topic string, partition int32) (out []*kgo.Record) {
	t.Helper()
	var next int64
	for {
		req := kmsg.NewPtrFetchRequest()
		req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, 0, 0, 1<<20, -1
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, next, 1<<20, -1
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		p := ask[*kmsg.FetchResponse](c, 11, req).Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			t.Fatalf("fetch %s/%d from %d: code %d", topic, partition, next, p.ErrorCode)
		}
		if next >= p.HighWatermark {
			return out
		}
		for _, r := range decode(t, topic, bytes.Clone(p.RecordBatches)) {
			if r.Offset >= next {
				out, next = append(out, r), r.Offset+1
			}
		}
	}
}
