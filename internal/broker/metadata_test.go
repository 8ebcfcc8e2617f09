package broker

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

func metadataRequest(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.AllowAutoTopicCreation = true
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	return req
}

func metadataLines(resp *kmsg.MetadataResponse) (out []string) {
	for _, t := range resp.Topics {
		out = append(out, fmt.Sprintf("%s %d %d", text(t.Topic), t.ErrorCode, len(t.Partitions)))
	}
	return out
}

func TestMetadataWhichTopics(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 1)
	a.topic("b", 3)
	all := kmsg.NewPtrMetadataRequest() // null
	for version := int16(0); version <= 13; version++ {
		if version == 0 { // null cannot be said in v0
			expect(t, "v0 empty", metadataLines(ask[*kmsg.MetadataResponse](a, 0, metadataRequest())), "a 0 1", "b 0 3")
			continue
		}
		what := fmt.Sprintf("v%d ", version)
		expect(t, what+"null", metadataLines(ask[*kmsg.MetadataResponse](a, version, all)), "a 0 1", "b 0 3")
		expect(t, what+"empty", metadataLines(ask[*kmsg.MetadataResponse](a, version, metadataRequest())))
		expect(t, what+"named, twice", metadataLines(ask[*kmsg.MetadataResponse](a, version, metadataRequest("b", "b"))), "b 0 3")
	}
}

func TestMetadataContent(t *testing.T) {
	a := newAdminBroker(t, nil)
	made := a.topic("a", 2)
	a.topic("__consumer_offsets", 1)
	a.store.parts[logDirPartition{"a", 1}].offline = partition.ErrFenced
	req := metadataRequest("a", "__consumer_offsets")
	resp := ask[*kmsg.MetadataResponse](a, 12, req)
	if text(resp.ClusterID) != a.meta.Snapshot().ClusterID || resp.ControllerID != 1 || len(resp.Brokers) != 1 {
		t.Fatalf("%+v", resp)
	}
	if n := resp.Brokers[0]; n.NodeID != 1 || n.Host != "10.0.0.9" || n.Port != 9092 || n.Rack != nil {
		t.Errorf("broker %+v (rack %s)", n, text(n.Rack))
	}
	topic := resp.Topics[0]
	if topic.TopicID != made.ID || topic.IsInternal || topic.AuthorizedOperations != math.MinInt32 || resp.AuthorizedOperations != math.MinInt32 {
		t.Errorf("topic %+v", topic)
	}
	if !resp.Topics[1].IsInternal {
		t.Error("__consumer_offsets is not internal")
	}
	var got []string
	for _, p := range topic.Partitions {
		got = append(got, fmt.Sprintf("%d err %d leader %d epoch %d %v %v %v", p.Partition, p.ErrorCode, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, p.OfflineReplicas))
	}
	expect(t, "partitions", got, "0 err 0 leader 1 epoch 7 [1] [1] []", "1 err 5 leader -1 epoch -1 [1] [1] [1]")

	req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = true, true
	if resp := ask[*kmsg.MetadataResponse](a, 9, req); resp.Topics[0].AuthorizedOperations != 3576 || resp.AuthorizedOperations != clusterOperations {
		t.Errorf("operations %d, %d", resp.Topics[0].AuthorizedOperations, resp.AuthorizedOperations)
	}
	a.opt.Rack = "r1"
	if resp := ask[*kmsg.MetadataResponse](a, 9, req); text(resp.Brokers[0].Rack) != "r1" {
		t.Errorf("rack %s", text(resp.Brokers[0].Rack))
	}
}

func TestMetadataByTopicID(t *testing.T) {
	a := newAdminBroker(t, nil)
	made := a.topic("a", 1)
	byID := func(id [16]byte) *kmsg.MetadataRequest {
		req := metadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.TopicID = id
		req.Topics = append(req.Topics, topic)
		return req
	}
	expect(t, "known", metadataLines(ask[*kmsg.MetadataResponse](a, 12, byID(made.ID))), "a 0 1")
	resp := ask[*kmsg.MetadataResponse](a, 13, byID([16]byte{1}))
	if expect(t, "unknown", metadataLines(resp), "<null> 100 0"); resp.Topics[0].TopicID != [16]byte{1} {
		t.Errorf("answered for another id: %v", resp.Topics[0].TopicID)
	}
	if resp := ask[*kmsg.MetadataResponse](a, 11, byID(made.ID)); resp.Topics[0].ErrorCode != 42 {
		t.Errorf("by id in v11: %d, want INVALID_REQUEST", resp.Topics[0].ErrorCode)
	}
	if resp := ask[*kmsg.MetadataResponse](a, 12, byID([16]byte{})); resp.Topics[0].ErrorCode != 42 {
		t.Errorf("neither name nor id: %d, want INVALID_REQUEST", resp.Topics[0].ErrorCode)
	}
	// A topic that is made again is another topic.
	if err := a.deleteTopic(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	again := a.topic("a", 1)
	expect(t, "old id", metadataLines(ask[*kmsg.MetadataResponse](a, 12, byID(made.ID))), "<null> 100 0")
	if again.ID == made.ID {
		t.Error("same id twice")
	}
}

func TestMetadataAutoCreate(t *testing.T) {
	a := newAdminBroker(t, nil)
	expect(t, "first answer", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("new"))), "new 5 0")
	expect(t, "second answer", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("new"))), "new 0 2")
	expect(t, "before v4 the client cannot refuse", metadataLines(ask[*kmsg.MetadataResponse](a, 1, metadataRequest("old"))), "old 5 0")
	refused := metadataRequest("unwanted")
	refused.AllowAutoTopicCreation = false
	expect(t, "client refuses", metadataLines(ask[*kmsg.MetadataResponse](a, 9, refused)), "unwanted 3 0")
	a.topic("with.dot", 1)
	expect(t, "bad names", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("a/b", "..", "", "with_dot", "sp ace"))),
		"a/b 17 0", ".. 17 0", " 17 0", "with_dot 17 0", "sp ace 17 0")

	a.opt.AutoCreateTopics = false
	expect(t, "server refuses", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("unwanted", "a/b"))), "unwanted 3 0", "a/b 17 0")
	if n := len(a.meta.Snapshot().Topics); n != 3 {
		t.Errorf("%d topics, want new, old, with.dot", n)
	}
}

func TestMetadataAutoCreateIsBounded(t *testing.T) {
	a := newAdminBroker(t, nil)
	var names []string
	for i := range maxAutoCreate + 20 {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	ask[*kmsg.MetadataResponse](a, 9, metadataRequest(names...))
	if n := len(a.meta.Snapshot().Topics); n != maxAutoCreate {
		t.Errorf("one request made %d topics", n)
	}
}

// A topic whose directories cannot be made is not left behind, and says why.
func TestMetadataAutoCreateFails(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.store.failCreate = func(string, int32) error { return partition.ErrDiskFull }
	expect(t, "full disk", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("new"))), "new 56 0")
	if snap := a.meta.Snapshot(); len(snap.Topics) != 0 || len(snap.Deleting) != 0 {
		t.Errorf("left behind: %v %v", snap.Topics, snap.Deleting)
	}
	a.store.failCreate = nil
	expect(t, "again", metadataLines(ask[*kmsg.MetadataResponse](a, 9, metadataRequest("new"))), "new 5 0")
}

func TestRefusalHasItsCode(t *testing.T) {
	if code, known := codeOf(fmt.Errorf("wrapped: %w", refuse(mustKind(44), "text"))); code != 44 || !known {
		t.Errorf("code %d, known %v", code, known)
	}
	if got := text(clientText(fmt.Errorf("%w: what is wrong", metadata.ErrInvalidConfig))); got != "what is wrong" {
		t.Errorf("client reads %q", got)
	}
	if clientText(nil) != nil || len(*clientText(errors.New(string(make([]byte, 9999))))) > maxClientText {
		t.Error("no text or a bounded one")
	}
}
