package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

func partitionsRequest(limit int32, names ...string) *kmsg.DescribeTopicPartitionsRequest {
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = limit
	for _, name := range names {
		t := kmsg.NewDescribeTopicPartitionsRequestTopic()
		t.Topic = name
		req.Topics = append(req.Topics, t)
	}
	return req
}

// page prints a page as "topic:partitions" and where the next one begins.
func page(resp *kmsg.DescribeTopicPartitionsResponse) (out []string) {
	for _, t := range resp.Topics {
		line := text(t.Topic)
		if t.ErrorCode != 0 {
			line += fmt.Sprintf(" err %d", t.ErrorCode)
		}
		for _, p := range t.Partitions {
			line += fmt.Sprintf(" %d", p.Partition)
		}
		out = append(out, line)
	}
	if c := resp.NextCursor; c != nil {
		out = append(out, fmt.Sprintf("next %s-%d", c.Topic, c.Partition))
	}
	return out
}

func at(req *kmsg.DescribeTopicPartitionsRequest, topic string, partition int32) *kmsg.DescribeTopicPartitionsRequest {
	c := kmsg.NewDescribeTopicPartitionsRequestCursor()
	c.Topic, c.Partition = topic, partition
	req.Cursor = &c
	return req
}

func TestDescribeTopicPartitionsPages(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("b", 3)
	a.topic("a", 2)
	a.topic("c", 1)
	describe := func(req *kmsg.DescribeTopicPartitionsRequest) []string {
		return page(ask[*kmsg.DescribeTopicPartitionsResponse](a, 0, req))
	}
	expect(t, "all", describe(partitionsRequest(2000)), "a 0 1", "b 0 1 2", "c 0")
	expect(t, "first page", describe(partitionsRequest(3)), "a 0 1", "b 0", "next b-1")
	expect(t, "second page", describe(at(partitionsRequest(3), "b", 1)), "b 1 2", "c 0")
	expect(t, "page that ends with a topic", describe(partitionsRequest(2)), "a 0 1", "next b-0")
	expect(t, "limit 0 is 1", describe(partitionsRequest(0)), "a 0", "next a-1")
	expect(t, "negative limit is 1", describe(partitionsRequest(-5)), "a 0", "next a-1")
	expect(t, "named, out of order, twice", describe(partitionsRequest(2000, "c", "a", "c")), "a 0 1", "c 0")
	expect(t, "missing", describe(partitionsRequest(2000, "nope", "a", "x/y")), "a 0 1", "nope err 3", "x/y err 17")
	expect(t, "cursor at a deleted topic", describe(at(partitionsRequest(2000), "bb", 7)), "c 0")
	expect(t, "cursor behind the end", describe(at(partitionsRequest(2000), "b", 99)), "b", "c 0")
	expect(t, "hostile cursor", describe(at(partitionsRequest(2000), "b", -7)))
}

func TestDescribeTopicPartitionsContent(t *testing.T) {
	a := newAdminBroker(t, nil)
	made := a.topic("a", 2)
	a.store.parts[logDirPartition{"a", 1}].offline = partition.ErrFenced
	topic := ask[*kmsg.DescribeTopicPartitionsResponse](a, 0, partitionsRequest(10)).Topics[0]
	if topic.TopicID != made.ID || topic.IsInternal || topic.AuthorizedOperations != topicOperations {
		t.Errorf("%+v", topic)
	}
	var got []string
	for _, p := range topic.Partitions {
		if p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil {
			t.Error("a null list of eligible leaders: Java's kafka-topics fails on it")
		}
		got = append(got, fmt.Sprintf("%d err %d leader %d epoch %d %v %v %v", p.Partition, p.ErrorCode, p.LeaderID, p.LeaderEpoch, p.Replicas, p.ISR, p.OfflineReplicas))
	}
	expect(t, "partitions", got, "0 err 0 leader 1 epoch 7 [1] [1] []", "1 err 5 leader -1 epoch -1 [1] [1] [1]")
}

func TestDescribeTopicPartitionsIsBounded(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 2500)
	resp := ask[*kmsg.DescribeTopicPartitionsResponse](a, 0, partitionsRequest(1<<30))
	if n := len(resp.Topics[0].Partitions); n != maxDescribedPartitions || resp.NextCursor == nil || resp.NextCursor.Partition != maxDescribedPartitions {
		t.Errorf("%d partitions, next %+v", n, resp.NextCursor)
	}
}
