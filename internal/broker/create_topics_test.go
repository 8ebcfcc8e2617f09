package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

func mustKind(code int16) *kerr.Error { return kerr.TypedErrorForCode(code) }

func createRequest(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = topics
	return req
}

func askedTopic(name string, partitions int32, rf int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, rf
	for _, c := range configs {
		k, v, hasValue := strings.Cut(c, "=")
		e := kmsg.NewCreateTopicsRequestTopicConfig()
		e.Name = k
		if hasValue {
			e.Value = kmsg.StringPtr(v)
		}
		t.Configs = append(t.Configs, e)
	}
	return t
}

func assigned(t kmsg.CreateTopicsRequestTopic, partitions map[int32][]int32) kmsg.CreateTopicsRequestTopic {
	for p, replicas := range partitions {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = p, replicas
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

func TestCreateTopicsVersions(t *testing.T) {
	for version := int16(0); version <= 7; version++ {
		a := newAdminBroker(t, nil)
		resp := ask[*kmsg.CreateTopicsResponse](a, version, createRequest(askedTopic("a", 3, 1, "retention.ms= 5 "), askedTopic("b", -1, -1)))
		snap := a.meta.Snapshot()
		for i, name := range []string{"a", "b"} {
			out, made := resp.Topics[i], snap.Topics[name]
			if out.ErrorCode != 0 || out.ErrorMessage != nil || made == nil || a.store.count(name) != int(made.Partitions) {
				t.Fatalf("v%d %s: %d %s, %+v, %d partitions made", version, name, out.ErrorCode, text(out.ErrorMessage), made, a.store.count(name))
			}
			if version >= 7 && out.TopicID != made.ID {
				t.Errorf("v%d %s: id %v", version, name, out.TopicID)
			}
			if version >= 5 && (out.NumPartitions != made.Partitions || out.ReplicationFactor != 1 || len(out.Configs) != len(metadata.TopicConfigs)) {
				t.Errorf("v%d %s: %d partitions, rf %d, %d configs", version, name, out.NumPartitions, out.ReplicationFactor, len(out.Configs))
			}
		}
		if snap.Topics["a"].Partitions != 3 || snap.Topics["b"].Partitions != 2 || snap.Topics["a"].Configs["retention.ms"] != "5" || a.store.config("a").RetentionMs != 5 {
			t.Errorf("v%d: %+v, config %+v", version, snap.Topics["a"], a.store.config("a"))
		}
	}
}

func TestCreateTopicsRefuses(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("exists", 1)
	a.topic("dot.ted", 1)
	for _, tc := range []struct {
		name  string
		topic kmsg.CreateTopicsRequestTopic
		code  int16
		text  string
	}{
		{"exists", askedTopic("exists", 1, 1), 36, "Topic 'exists' already exists."},
		{"collides", askedTopic("dot_ted", 1, 1), 17, "collides with existing topic dot.ted"},
		{"climbs", askedTopic("../../etc", 1, 1), 17, "character other than"},
		{"dots", askedTopic("..", 1, 1), 17, "cannot be"},
		{"long", askedTopic(strings.Repeat("x", 250), 1, 1), 17, "at most 249"},
		{"no partitions", askedTopic("t", 0, 1), 37, "non-positive"},
		{"negative", askedTopic("t", -2, 1), 37, "non-positive"},
		{"rf 0", askedTopic("t", 1, 0), 38, "larger than 0"},
		{"rf 3", askedTopic("t", 1, 3), 38, "only 1 broker(s)"},
		{"too many", askedTopic("t", 10_001, 1), 44, "Excessively large"},
		{"small segment", askedTopic("t", 1, 1, "segment.bytes=1048575"), 40, "Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576"},
		{"typo", askedTopic("t", 1, 1, "retention.mss=5"), 40, "did you mean retention.ms?"},
		{"null value", askedTopic("t", 1, 1, "retention.ms"), 40, "Null value"},
		{"twice", askedTopic("t", 1, 1, "retention.ms=1", "retention.ms=2"), 40, "twice"},
		{"tier", askedTopic("t", 1, 1, "lagoon.tier.policy=nvme"), 40, "no tier"},
		{"assignment and count", assigned(askedTopic("t", 1, -1), map[int32][]int32{0: {1}}), 42, "numPartitions was not set to -1"},
		{"assignment and rf", assigned(askedTopic("t", -1, 1), map[int32][]int32{0: {1}}), 42, "replication factor was not set to -1"},
		{"gap", assigned(askedTopic("t", -1, -1), map[int32][]int32{0: {1}, 2: {1}}), 39, "consecutive"},
		{"other broker", assigned(askedTopic("t", -1, -1), map[int32][]int32{0: {2}}), 39, "broker 2"},
		{"same broker twice", assigned(askedTopic("t", -1, -1), map[int32][]int32{0: {1, 1}}), 39, "more than once"},
		{"no replica", assigned(askedTopic("t", -1, -1), map[int32][]int32{0: {}}), 39, "empty replica list"},
	} {
		out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(tc.topic)).Topics[0]
		if out.ErrorCode != tc.code || !strings.Contains(text(out.ErrorMessage), tc.text) || strings.Contains(text(out.ErrorMessage), "metadata:") {
			t.Errorf("%s: %d %s, want %d …%s…", tc.name, out.ErrorCode, text(out.ErrorMessage), tc.code, tc.text)
		}
	}
	if n := len(a.meta.Snapshot().Topics); n != 2 {
		t.Errorf("%d topics after nothing but refusals", n)
	}
}

func TestCreateTopicsAccepts(t *testing.T) {
	a := newAdminBroker(t, nil)
	out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(
		assigned(askedTopic("assigned", -1, -1), map[int32][]int32{1: {1}, 0: {1}, 2: {1}}),
		askedTopic("compacted", 1, 1, "cleanup.policy=compact"),
		askedTopic("tiered", 1, 1, "lagoon.tier.policy=ssd:1h,hdd"),
		askedTopic("exact-limit", 9_995, 1),
		askedTopic("over", 1, 1))).Topics
	for i, want := range []int16{0, 0, 0, 0, 44} {
		if out[i].ErrorCode != want {
			t.Errorf("%s: %d %s", out[i].Topic, out[i].ErrorCode, text(out[i].ErrorMessage))
		}
	}
	if out[0].NumPartitions != 3 || a.store.count("assigned") != 3 {
		t.Errorf("assignment made %d partitions", out[0].NumPartitions)
	}
	if cfg := a.store.config("compacted"); !cfg.Compact || cfg.Delete {
		t.Errorf("a compacted topic would be deleted from: %+v", cfg)
	}
	if cfg := a.store.config("tiered"); cfg.TierPolicy != "ssd:1h,hdd" {
		t.Errorf("%+v", cfg)
	}
}

func TestCreateTopicsValidateOnlyAndDuplicates(t *testing.T) {
	a := newAdminBroker(t, nil)
	req := createRequest(askedTopic("a", 4, 1, "segment.ms=10"))
	req.ValidateOnly = true
	out := ask[*kmsg.CreateTopicsResponse](a, 7, req).Topics[0]
	if out.ErrorCode != 0 || out.NumPartitions != 4 || out.TopicID != [16]byte{} || len(out.Configs) == 0 {
		t.Errorf("validate only: %+v", out)
	}
	for _, c := range out.Configs {
		if c.Name == "segment.ms" && (text(c.Value) != "10" || c.Source != 1) || c.Name == "retention.ms" && c.Source != 5 {
			t.Errorf("%s = %s from %d", c.Name, text(c.Value), c.Source)
		}
	}
	ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("x.y", 1, 1)))
	for _, req.ValidateOnly = range []bool{true, false} { // what would be refused is refused
		req.Topics = createRequest(askedTopic("x_y", 1, 1)).Topics
		if out := ask[*kmsg.CreateTopicsResponse](a, 7, req).Topics[0]; out.ErrorCode != 17 || !strings.Contains(text(out.ErrorMessage), "x.y") {
			t.Errorf("a colliding name, validate only %v: %d %s", req.ValidateOnly, out.ErrorCode, text(out.ErrorMessage))
		}
	}
	resp := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 1, 1), askedTopic("b", 1, 1), askedTopic("a", 1, 1)))
	var got []string
	for _, out := range resp.Topics {
		got = append(got, fmt.Sprintf("%s %d", out.Topic, out.ErrorCode))
	}
	expect(t, "duplicates", got, "a 42", "b 0")
	if len(a.meta.Snapshot().Topics) != 2 {
		t.Errorf("topics %v", a.meta.Snapshot().Names())
	}
}

// Whatever fails half way, the catalogue and the directories agree afterwards.
func TestCreateTopicsTakesBackWhatFailed(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.store.failCreate = func(_ string, index int32) error {
		if index == 3 {
			return fmt.Errorf("mkdir: %w", partition.ErrFenced)
		}
		return nil
	}
	out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 8, 1))).Topics[0]
	if out.ErrorCode != 56 || !strings.Contains(text(out.ErrorMessage), "partition 3") {
		t.Errorf("%d %s", out.ErrorCode, text(out.ErrorMessage))
	}
	if snap := a.meta.Snapshot(); len(snap.Topics)+len(snap.Deleting) != 0 || a.store.count("a") != 0 {
		t.Errorf("left: %v %v, %d partitions", snap.Names(), snap.Deleting, a.store.count("a"))
	}

	// The directories cannot be removed either: the topic stays on record as one to be deleted, under no name.
	a.store.failRemove = errors.New("rename refused")
	if out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 8, 1))).Topics[0]; out.ErrorCode != 56 {
		t.Errorf("%d %s", out.ErrorCode, text(out.ErrorMessage))
	}
	if snap := a.meta.Snapshot(); len(snap.Topics) != 0 || len(snap.Deleting) != 1 {
		t.Fatalf("topics %v, deleting %v", snap.Names(), snap.Deleting)
	}
	a.store.failCreate = nil
	if out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 8, 1))).Topics[0]; out.ErrorCode == 0 {
		t.Error("a topic was made over the directories of another")
	}
	a.store.failRemove = nil
	if out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 8, 1))).Topics[0]; out.ErrorCode != 0 || a.store.count("a") != 8 {
		t.Errorf("%d %s, %d partitions", out.ErrorCode, text(out.ErrorMessage), a.store.count("a"))
	}
}

// The catalogue cannot be written: the client reads a storage error, and no directory is made.
func TestCreateTopicsWithFailedCatalogue(t *testing.T) {
	fault := &vfs.Fault{Kinds: vfs.OpSync, Name: "m/*.log", Nth: 2, Err: errors.New("sync failed")}
	meta, err := metadata.Open(vfs.WithFaults(vfs.NewMem(1), fault), "m", metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	a := newAdminBroker(t, func(o *Options) { o.Metadata = meta })
	for range 2 {
		if out := ask[*kmsg.CreateTopicsResponse](a, 7, createRequest(askedTopic("a", 1, 1))).Topics[0]; out.ErrorCode != 56 {
			t.Errorf("%d %s", out.ErrorCode, text(out.ErrorMessage))
		}
	}
	if fault.Fired() != 1 || a.store.count("a") != 0 {
		t.Errorf("fired %d, %d partitions", fault.Fired(), a.store.count("a"))
	}
}

// Creating, growing, altering and deleting one name from many sides: every answer is a proper one, and in the end the
// directories are those of the catalogue.
func TestConcurrentTopicChanges(t *testing.T) {
	a := newAdminBroker(t, nil)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 40 {
				ctx := context.Background()
				switch i % 3 {
				case 0:
					if _, err := a.createTopic(ctx, newTopic{name: "t", partitions: 2, configs: map[string]string{}}); err != nil && !errors.Is(err, metadata.ErrTopicExists) {
						t.Error("create:", err)
					}
				case 1:
					if topic, ok := a.meta.Snapshot().Topic("t"); ok {
						if err := a.deleteTopic(ctx, topic); err != nil && !errors.Is(err, metadata.ErrUnknownTopic) {
							t.Error("delete:", err)
						}
					}
				case 2:
					asked := kmsg.NewCreatePartitionsRequestTopic()
					asked.Topic, asked.Count = "t", 5
					room := int64(100)
					if err := a.growTopic(ctx, &request{}, asked, false, &room); err != nil {
						if code, _ := codeOf(err); code != 3 && code != 37 {
							t.Error("grow:", err)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	want := 0
	if topic, ok := a.meta.Snapshot().Topic("t"); ok {
		want = int(topic.Partitions)
	}
	if got := a.store.count("t"); got != want || len(a.meta.Snapshot().Deleting) != 0 {
		t.Errorf("%d directories, %d partitions on record, deleting %v", got, want, a.meta.Snapshot().Deleting)
	}
}
