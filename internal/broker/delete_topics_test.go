package broker

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/partition"
)

func deleteLines(resp *kmsg.DeleteTopicsResponse) (out []string) {
	for _, t := range resp.Topics {
		out = append(out, fmt.Sprintf("%s %d", text(t.Topic), t.ErrorCode))
	}
	return out
}

func deletion(name string, id [16]byte) kmsg.DeleteTopicsRequestTopic {
	t := kmsg.NewDeleteTopicsRequestTopic()
	if name != "" {
		t.Topic = kmsg.StringPtr(name)
	}
	t.TopicID = id
	return t
}

func TestDeleteTopicsByName(t *testing.T) {
	for version := int16(1); version <= 5; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 3)
		a.topic("b", 1)
		a.topic("c", 1)
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{"a", "nope", "b", "b"}
		expect(t, fmt.Sprintf("v%d", version), deleteLines(ask[*kmsg.DeleteTopicsResponse](a, version, req)), "a 0", "nope 3", "b 42")
		if snap := a.meta.Snapshot(); len(snap.Topics) != 2 || len(snap.Deleting) != 0 || a.store.count("a") != 0 || a.store.count("b") != 1 {
			t.Errorf("v%d: left %v, deleting %v", version, snap.Names(), snap.Deleting)
		}
	}
}

func TestDeleteTopicsByID(t *testing.T) {
	a := newAdminBroker(t, nil)
	one, two := a.topic("a", 1), a.topic("b", 1)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Topics = []kmsg.DeleteTopicsRequestTopic{deletion("", one.ID), deletion("", [16]byte{9}), deletion("b", two.ID), deletion("", [16]byte{}), deletion("nope", [16]byte{})}
	resp := ask[*kmsg.DeleteTopicsResponse](a, 6, req)
	expect(t, "v6", deleteLines(resp), "a 0", "<null> 100", "b 42", "<null> 42", "nope 3")
	if resp.Topics[0].TopicID != one.ID || resp.Topics[0].ErrorMessage != nil || resp.Topics[1].ErrorMessage == nil {
		t.Errorf("%+v", resp.Topics)
	}
	// By name and by id at once is twice.
	req.Topics = []kmsg.DeleteTopicsRequestTopic{deletion("b", [16]byte{}), deletion("", two.ID)}
	expect(t, "twice", deleteLines(ask[*kmsg.DeleteTopicsResponse](a, 6, req)), "b 42")
	if _, ok := a.meta.Snapshot().Topic("b"); !ok {
		t.Error("deleted although the request was invalid")
	}
}

// Directories that cannot be taken away: the answer is an error, the topic does not come back, and FinishDeletions of the
// next start ends it.
func TestDeleteTopicInterrupted(t *testing.T) {
	a := newAdminBroker(t, nil)
	made := a.topic("a", 2)
	a.store.failRemove = errors.New("rename refused")
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames = []string{"a"}
	expect(t, "answer", deleteLines(ask[*kmsg.DeleteTopicsResponse](a, 5, req)), "a -1")
	expect(t, "metadata", metadataLines(ask[*kmsg.MetadataResponse](a, 12, kmsg.NewPtrMetadataRequest())))
	specs, err := TopicSpecs(a.meta.Snapshot(), nil, 1)
	if err != nil || len(specs) != 1 || specs[0].ID != made.ID || specs[0].Partitions != 2 {
		t.Fatalf("a start would load %v, %v", specs, err)
	}
	if err := a.FinishDeletions(t.Context()); err == nil {
		t.Error("deletion finished although nothing can be removed")
	}
	a.store.failRemove = nil
	if err := a.FinishDeletions(t.Context()); err != nil || a.store.count("a") != 0 || len(a.meta.Snapshot().Deleting) != 0 {
		t.Errorf("%v, %d directories", err, a.store.count("a"))
	}
}

// A device that does not answer: the deletion is answered, nothing can have the name, and what is left goes when the device answers.
func TestDeleteTopicOnAHungDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdminBroker(t, nil)
		a.topic("a", 2)
		a.topic("b", 1)
		a.topic("c", 1)
		a.store.hang = make(chan struct{})
		began := time.Now()
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{"a", "c"}
		expect(t, "answer", deleteLines(ask[*kmsg.DeleteTopicsResponse](a, 5, req)), "a 0", "c 0")
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("answered after %v", took)
		}
		if _, ok := a.meta.Snapshot().Topic("a"); ok || len(a.meta.Snapshot().Deleting) != 2 {
			t.Errorf("topic a: %v, being deleted: %v", ok, a.meta.Snapshot().Deleting)
		}
		if _, err := a.createTopic(t.Context(), newTopic{name: "a", partitions: 1}); !errors.Is(err, partition.ErrNoAnswer) {
			t.Errorf("another topic of the name: %v", err)
		}
		if code, known := codeOf(partition.ErrNoAnswer); code != kerr.KafkaStorageError.Code || !known {
			t.Errorf("code %d", code)
		}
		close(a.store.hang)
		synctest.Wait()
		if n := len(a.meta.Snapshot().Deleting); n != 0 || a.store.count("a") != 0 {
			t.Errorf("%d topics are being deleted, %d directories are left", n, a.store.count("a"))
		}
		a.topic("a", 3)
		synctest.Wait()
		if a.store.count("a") != 3 || a.store.count("b") != 1 {
			t.Errorf("%d and %d partitions", a.store.count("a"), a.store.count("b"))
		}
	})
}

// What groups have committed lies on a device that does not answer: the topic's directories go all the same.
func TestDeleteTopicWithHungOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdminBroker(t, nil)
		a.topic("a", 2)
		a.topic(groups.Topic, 1)
		synctest.Wait()
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group = "g"
		topic, part := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		topic.Topic = "a"
		topic.Partitions = append(topic.Partitions, part)
		commit.Topics = append(commit.Topics, topic)
		if resp := ask[*kmsg.OffsetCommitResponse](a, 7, commit); resp.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Fatalf("commit: %+v", resp)
		}
		log := a.store.groups[0]
		log.Hold()
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{"a"}
		answer := make(chan []string, 1)
		go func() { answer <- deleteLines(ask[*kmsg.DeleteTopicsResponse](a, 5, req)) }()
		synctest.Wait()
		if a.store.count("a") != 0 || len(answer) != 0 {
			t.Errorf("%d directories are left, %d answers are there", a.store.count("a"), len(answer))
		}
		log.Release()
		expect(t, "answer", <-answer, "a 0")
		if n := len(a.meta.Snapshot().Deleting); n != 0 {
			t.Errorf("%d topics are being deleted", n)
		}
	})
}

// A delete that was decided before the topic was made again does not hit the new one.
func TestDeleteHitsOnlyTheTopicMeant(t *testing.T) {
	a := newAdminBroker(t, nil)
	old := a.topic("a", 1)
	if err := a.deleteTopic(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	a.topic("a", 4)
	if err := a.deleteTopic(t.Context(), old); err == nil {
		t.Error("deleted twice")
	}
	if a.store.count("a") != 4 {
		t.Errorf("%d partitions of the new topic left", a.store.count("a"))
	}
}
