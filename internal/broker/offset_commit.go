package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/metadata"
)

// OffsetCommit (key 8)
//
// Behaviour:
//   - An offset is acknowledged when it is on stable storage, as a record with acks=all is; commits share syncs with records.
//   - A partition that does not exist is UNKNOWN_TOPIC_OR_PARTITION (by id: UNKNOWN_TOPIC_ID), the others are committed.
//   - Whether an offset exists in the partition is not asked, as in Kafka.
//   - A member of the consumer protocol is answered UNSUPPORTED_VERSION below version 9: these know no member epochs.
//
// Version notes: 2 to 4 carry a retention time, 6 the leader epoch, 7 static members, 9 member epochs (KIP-848), 10 topic ids.

func (b *Broker) beginOffsetCommit(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.OffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	ask := groups.CommitRequest{Group: req.Group, MemberID: req.MemberID, InstanceID: str(req.InstanceID), Generation: req.Generation,
		Epochs: r.version >= 9, Retention: -1, ClientID: r.clientID, Host: r.peer.host}
	if r.version <= 4 && req.RetentionTimeMillis >= 0 {
		ask.Retention = time.Duration(min(req.RetentionTimeMillis, maxDelayMs)) * time.Millisecond
	}
	var places []*int16 // of the codes of ask.Offsets
	snap := b.meta.Snapshot()
	for _, t := range req.Topics {
		out := kmsg.NewOffsetCommitResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		topic, err := findTopic(snap, r.version >= 10, t.Topic, t.TopicID)
		out.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		for i, p := range t.Partitions {
			out.Partitions[i] = kmsg.NewOffsetCommitResponseTopicPartition()
			out.Partitions[i].Partition = p.Partition
			if failed := committable(topic, err, p.Partition); failed != nil {
				out.Partitions[i].ErrorCode = kerrCode(failed)
				continue
			}
			places = append(places, &out.Partitions[i].ErrorCode)
			ask.Offsets = append(ask.Offsets, groups.Offset{Topic: topic.Name, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: str(p.Metadata)})
		}
		resp.Topics = append(resp.Topics, out)
	}
	all := func(err classic.Error) {
		for _, place := range places {
			if *place == 0 {
				*place = int16(err)
			}
		}
	}
	if err := b.startGroups(ctx); err != nil {
		all(classic.CoordinatorNotAvailable)
		return answered(resp)
	}
	errs, wait, err := b.groups.Commit(ask)
	if err != classic.None {
		all(err)
		return answered(resp)
	}
	for i, err := range errs {
		*places[i] = int16(err)
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		all(wait.Wait(ctx))
		return resp
	}
}

// committable tells whether offsets of a partition can be kept.
func committable(topic *metadata.Topic, err error, partition int32) error {
	if err == nil && (partition < 0 || partition >= topic.Partitions) {
		return kerr.UnknownTopicOrPartition
	}
	return err
}
