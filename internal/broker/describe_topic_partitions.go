package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
)

// DescribeTopicPartitions (key 75, KIP-966)
//
// Behaviour:
//   - Topics are answered in the order of their names, from the cursor on, up to the wanted number of partitions (1 to 2000).
//     What did not fit is where the next cursor points.
//   - No topics in the request means all. A topic asked for by name that is not there is answered with an error; one that was
//     deleted between two pages is passed over when all were asked for.
//   - A cursor at a negative partition, or at a topic that the request does not name, is INVALID_REQUEST for every topic.
//   - The eligible-leader lists are empty, never null: Java's kafka-topics fails on null.
const maxDescribedPartitions = 2000

func (b *Broker) handleDescribeTopicPartitions(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	snap := b.meta.Snapshot()

	var names []string
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(req.Topics) == 0 {
		names = snap.Names()
	}
	first := int32(0) // partition of the first topic to begin with
	if c := req.Cursor; c != nil {
		at, found := slices.BinarySearch(names, c.Topic)
		if c.Partition < 0 || !found && len(req.Topics) > 0 {
			return badCursor(req, resp), nil
		}
		names = names[at:]
		if found {
			first = c.Partition
		}
	}

	room := min(max(req.ResponsePartitionLimit, 1), maxDescribedPartitions)
	for _, name := range names {
		if room == 0 {
			resp.NextCursor = cursorAt(name, 0)
			break
		}
		out, next, used := b.describeTopicPartitions(snap, name, first, room)
		resp.Topics = append(resp.Topics, out)
		room -= used
		first = 0
		if next >= 0 {
			resp.NextCursor = cursorAt(name, next)
			break
		}
	}
	return resp, nil
}

// badCursor refuses the request as a whole; there is no place for that but each topic.
func badCursor(req *kmsg.DescribeTopicPartitionsRequest, resp *kmsg.DescribeTopicPartitionsResponse) kmsg.Response {
	for _, t := range req.Topics {
		out := kmsg.NewDescribeTopicPartitionsResponseTopic()
		out.Topic, out.ErrorCode = kmsg.StringPtr(t.Topic), kerr.InvalidRequest.Code
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func cursorAt(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, partition
	return &c
}

// describeTopicPartitions answers for one topic from a partition on. next is the first partition that did not fit, or -1;
// used counts against the limit, also for a topic without an answer, so that a page always ends.
func (b *Broker) describeTopicPartitions(snap *metadata.Snapshot, name string, first, room int32) (out kmsg.DescribeTopicPartitionsResponseTopic, next, used int32) {
	out = kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic = kmsg.StringPtr(name)
	t, ok := snap.Topic(name)
	if !ok {
		out.ErrorCode = kerr.UnknownTopicOrPartition.Code
		if metadata.ValidateTopicName(name) != nil {
			out.ErrorCode = kerr.InvalidTopicException.Code
		}
		return out, -1, 0
	}
	out.TopicID, out.IsInternal, out.AuthorizedOperations = t.ID, internalTopic(name), topicOperations
	end := min(t.Partitions, first+room)
	self := []int32{b.opt.NodeID}
	for i := first; i < end; i++ {
		s := b.partitionState(name, i)
		p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		p.ErrorCode, p.Partition, p.LeaderID, p.LeaderEpoch = s.code, i, s.leader, s.epoch
		p.Replicas, p.ISR = self, self
		p.EligibleLeaderReplicas, p.LastKnownELR, p.OfflineReplicas = []int32{}, []int32{}, []int32{}
		if s.offline {
			p.OfflineReplicas = self
		}
		out.Partitions = append(out.Partitions, p)
	}
	if end < t.Partitions {
		return out, end, end - first
	}
	return out, -1, max(end-first, 0)
}
