package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// TestFranzGo is the suite of the client that speaks the newest versions: topic ids, sessions, idempotence. About 4 s.
func TestFranzGo(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	for _, c := range []struct {
		name string
		run  func(t *testing.T, b *lagoontest.Broker)
	}{
		{"auto-creation", franzAutoCreate},
		{"partitions, sessions and a live tail", franzTail},
		{"offsets", franzOffsets},
		{"a topic made again under a running client", franzRecreate},
		{"administration", franzAdmin},
		{"idempotence across a kill", franzIdempotent},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
}

func franzAutoCreate(t *testing.T, b *lagoontest.Broker) {
	refused := lagoontest.Client(t, b, kgo.UnknownTopicRetries(0))
	if err := refused.ProduceSync(testContext(t), kgo.KeySliceRecord(nil, []byte("x"))).FirstErr(); err == nil {
		t.Error("produced to no topic")
	}
	if err := refused.ProduceSync(testContext(t), &kgo.Record{Topic: "not-made", Value: []byte("x")}).FirstErr(); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("a client that may not create topics: %v", err)
	}
	allowed := lagoontest.Client(t, b, kgo.AllowAutoTopicCreation())
	if err := allowed.ProduceSync(testContext(t), &kgo.Record{Topic: "was-made", Value: []byte("x")}).FirstErr(); err != nil {
		t.Errorf("auto-creation: %v", err)
	}
	if got := lagoontest.ReadFrom(t, b, "was-made", 0, 0, 1); string(got[0].Value) != "x" {
		t.Errorf("read %q", got[0].Value)
	}
}

// franzTail: a consumer of five partitions is there first and sees every record in order as it is written.
func franzTail(t *testing.T, b *lagoontest.Broker) {
	const partitions, perPartition = 5, 200
	lagoontest.CreateTopic(t, b, "tail", partitions)
	consumer := lagoontest.Client(t, b, kgo.ConsumeTopics("tail"), kgo.FetchMaxWait(200*time.Millisecond))
	producer := lagoontest.Client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx := testContext(t)
	go func() {
		for i := range perPartition {
			for p := range int32(partitions) {
				producer.Produce(ctx, &kgo.Record{Topic: "tail", Partition: p, Value: []byte(strconv.Itoa(i))}, nil)
			}
		}
	}()
	next := make([]int, partitions)
	for seen := 0; seen < partitions*perPartition; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d records: %v", seen, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if want := next[r.Partition]; string(r.Value) != strconv.Itoa(want) || r.Offset != int64(want) {
				t.Errorf("partition %d: %q at offset %d, want %d", r.Partition, r.Value, r.Offset, want)
			}
			next[r.Partition]++
			seen++
		})
	}
}

func franzOffsets(t *testing.T, b *lagoontest.Broker) {
	lagoontest.CreateTopic(t, b, "offsets", 1, "retention.ms", "-1")
	rs := anyBytes(40)
	rs[33].Ms += 1_000_000_000 // the newest time is not the last record's
	franz{}.produce(t, b, []job{{Topic: "offsets", Codec: "gzip", Records: rs}})
	adm := lagoontest.AdminClient(t, b)
	ctx := testContext(t)
	get := func(listed kadm.ListedOffsets, err error) int64 {
		t.Helper()
		o, ok := listed.Lookup("offsets", 0)
		if err != nil || !ok || o.Err != nil {
			t.Fatalf("list offsets: %v, %+v", err, o)
		}
		return o.Offset
	}
	for name, c := range map[string]struct{ got, want int64 }{
		"start":            {get(adm.ListStartOffsets(ctx, "offsets")), 0},
		"end":              {get(adm.ListEndOffsets(ctx, "offsets")), 40},
		"committed":        {get(adm.ListCommittedOffsets(ctx, "offsets")), 40},
		"max timestamp":    {get(adm.ListMaxTimestampOffsets(ctx, "offsets")), 33},
		"at a time":        {get(adm.ListOffsetsAfterMilli(ctx, rs[21].Ms, "offsets")), 21},
		"after a time":     {get(adm.ListOffsetsAfterMilli(ctx, rs[21].Ms+1, "offsets")), 22},
		"after everything": {get(adm.ListOffsetsAfterMilli(ctx, rs[33].Ms+1, "offsets")), 40}, // kadm turns "none" into the end
	} {
		if c.got != c.want {
			t.Errorf("%s: offset %d, want %d", name, c.got, c.want)
		}
	}
	// Out of range: the client is told and starts over where it was configured to.
	cl := lagoontest.Client(t, b, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"offsets": {0: kgo.NewOffset().At(4711)}}))
	fetches := cl.PollFetches(ctx)
	if rs := fetches.Records(); fetches.Err() != nil || len(rs) == 0 || rs[0].Offset != 0 {
		t.Errorf("out of range: %v, %d records", fetches.Err(), len(rs))
	}
}

func franzRecreate(t *testing.T, b *lagoontest.Broker) {
	ctx := testContext(t)
	adm := lagoontest.AdminClient(t, b)
	lagoontest.CreateTopic(t, b, "again", 1)
	producer := lagoontest.Client(t, b, kgo.DefaultProduceTopic("again"))
	write := func(value string) error {
		return producer.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr()
	}
	if err := write("first life"); err != nil {
		t.Fatal(err)
	}
	if resp, err := adm.DeleteTopic(ctx, "again"); err != nil || resp.Err != nil {
		t.Fatal(err, resp.Err)
	}
	lagoontest.CreateTopic(t, b, "again", 1)
	producer.PurgeTopicsFromClient("again") // franz-go's way to accept a new id
	if err := write("second life"); err != nil {
		t.Errorf("produce after the topic was made again: %v", err)
	}
	if got := lagoontest.ReadFrom(t, b, "again", 0, 0, 1); string(got[0].Value) != "second life" {
		t.Errorf("the new topic holds %q: the old one's data came back", got[0].Value)
	}
	b.Restart()
	if got := lagoontest.ReadFrom(t, b, "again", 0, 0, 1); string(got[0].Value) != "second life" {
		t.Errorf("after a restart the new topic holds %q", got[0].Value)
	}
}

func franzAdmin(t *testing.T, b *lagoontest.Broker) {
	ctx := testContext(t)
	adm := lagoontest.AdminClient(t, b)
	check := func(what string, err error, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	create := func(name string, partitions int32, replicas int16, configs map[string]*string) error {
		resp, err := adm.CreateTopic(ctx, partitions, replicas, configs, name)
		return firstError(err, resp.Err)
	}
	check("create", create("admin", 2, 1, map[string]*string{"retention.ms": kadm.StringPtr("-1")}), nil)
	check("create with the defaults", create("admin-defaults", -1, -1, nil), nil)
	check("create again", create("admin", 2, 1, nil), kerr.TopicAlreadyExists)
	check("create with two replicas", create("odd", 1, 2, nil), kerr.InvalidReplicationFactor)
	check("create with no partitions", create("odd", 0, 1, nil), kerr.InvalidPartitions)
	check("create with an unknown key", create("odd", 1, 1, map[string]*string{"nonsense": kadm.StringPtr("1")}), kerr.InvalidConfig)
	check("create with a bad value", create("odd", 1, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("shred")}), kerr.InvalidConfig)
	if _, err := adm.ValidateCreateTopics(ctx, 1, 1, nil, "only-validated"); err != nil {
		t.Error(err)
	}

	topics, err := adm.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if names := topics.Names(); !slices.Contains(names, "admin") || slices.Contains(names, "odd") || slices.Contains(names, "only-validated") {
		t.Errorf("topics %v", names)
	}
	if d := topics["admin"]; d.ID == (kadm.TopicID{}) || len(d.Partitions) != 2 || d.Partitions[1].Leader != 1 {
		t.Errorf("admin: %+v", d)
	}

	parts, err := adm.CreatePartitions(ctx, 1, "admin")
	check("one more partition", firstError(err, parts["admin"].Err), nil)
	parts, err = adm.UpdatePartitions(ctx, 2, "admin")
	check("fewer partitions", firstError(err, parts["admin"].Err), kerr.InvalidPartitions)

	alter := func(name string, configs ...kadm.AlterConfig) error {
		resp, err := adm.AlterTopicConfigs(ctx, configs, name)
		if err != nil {
			return err
		}
		return resp[0].Err
	}
	check("alter", alter("admin", kadm.AlterConfig{Op: kadm.SetConfig, Name: "lagoon.flush", Value: kadm.StringPtr("interval")},
		kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}), nil)
	check("append to a list", alter("admin", kadm.AlterConfig{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}), nil)
	check("alter an absent topic", alter("absent", kadm.AlterConfig{Name: "lagoon.flush", Value: kadm.StringPtr("sync")}), kerr.UnknownTopicOrPartition)
	check("alter to nonsense", alter("admin", kadm.AlterConfig{Name: "segment.bytes", Value: kadm.StringPtr("-5")}), kerr.InvalidConfig)
	described, err := adm.DescribeTopicConfigs(ctx, "admin")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range described[0].Configs {
		if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
			got[c.Key] = c.MaybeValue()
		}
	}
	if diff := cmp.Diff(map[string]string{"lagoon.flush": "interval", "cleanup.policy": "delete,compact"}, got); diff != "" {
		t.Errorf("the topic's own configuration (-want +got):\n%s", diff)
	}

	franz{}.produce(t, b, []job{{Topic: "admin-defaults", Codec: "none", Records: text(10)}})
	deleted, err := adm.DeleteRecords(ctx, kadm.Offsets{"admin-defaults": {0: {Topic: "admin-defaults", At: 7}}})
	if r, ok := deleted.Lookup("admin-defaults", 0); err != nil || !ok || r.Err != nil || r.LowWatermark != 7 {
		t.Errorf("delete records: %v, %+v", err, r)
	}
	deleted, err = adm.DeleteRecords(ctx, kadm.Offsets{"admin-defaults": {0: {Topic: "admin-defaults", At: 11}}})
	if r, _ := deleted.Lookup("admin-defaults", 0); err != nil || !errors.Is(r.Err, kerr.OffsetOutOfRange) {
		t.Errorf("delete records behind the end: %v, %+v", err, r)
	}

	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(dirs[1]); n != 2 {
		t.Errorf("%d log directories, want one per tier", n)
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		if d.Err != nil || d.Dir != b.TierPath("ssd") && d.Dir != b.TierPath("hdd") {
			t.Errorf("log directory %q: %v", d.Dir, d.Err)
		}
	})

	md, err := adm.BrokerMetadata(ctx)
	if err != nil || len(md.Brokers) != 1 || md.Controller != 1 || len(md.Cluster) != 22 {
		t.Errorf("cluster: %v, %+v", err, md)
	}
	gone, err := adm.DeleteTopics(ctx, "admin", "absent")
	if err != nil || gone["admin"].Err != nil || !errors.Is(gone["absent"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("delete topics: %v, %+v", err, gone)
	}
}

// firstError is the first error that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// franzIdempotent: one producer lives through a kill and a restart of the broker; every record is there once, in order.
func franzIdempotent(t *testing.T, b *lagoontest.Broker) {
	const count = 3000
	lagoontest.CreateTopic(t, b, "once", 1)
	cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic("once"), kgo.MaxBufferedRecords(200), kgo.ProducerLinger(time.Millisecond), kgo.RecordDeliveryTimeout(2*time.Minute))
	halfway, failed := make(chan struct{}), make(chan error, count)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	go func() {
		for i := range count {
			if i == count/2 {
				close(halfway)
			}
			cl.Produce(ctx, kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
				if err != nil {
					failed <- fmt.Errorf("record %d: %w", i, err)
				}
			})
		}
		failed <- cl.Flush(ctx)
	}()
	<-halfway
	b.Kill()
	b.Restart()
	if err := <-failed; err != nil { // the flush's, when no record failed before it
		t.Fatal(err)
	}
	for i, r := range lagoontest.ReadFrom(t, b, "once", 0, 0, count) {
		if string(r.Value) != strconv.Itoa(i) {
			t.Fatalf("offset %d holds record %s", i, r.Value)
		}
	}
	if end := endOffset(t, b, "once"); end != count {
		t.Errorf("the log ends at %d, want %d", end, count)
	}
}
