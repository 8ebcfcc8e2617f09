package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

// OffsetForLeaderEpoch (key 23)
//
// Behaviour: where an epoch ended, so that a client can find out whether its position was truncated. The current epoch ends
// at the log end; an unknown one is answered with -1 and -1. librdkafka calls it with exactly v2.
func (b *Broker) handleOffsetForLeaderEpoch(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	snap := b.meta.Snapshot()
	for _, t := range req.Topics {
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = t.Topic
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		for _, p := range t.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition = p.Partition
			part.LeaderEpoch, part.EndOffset = -1, -1
			err := err
			var log partitionLog
			if err == nil {
				log, err = b.partitionOf(topic, p.Partition)
			}
			if err == nil {
				err = checkEpoch(p.CurrentLeaderEpoch, log.Offsets())
			}
			if err != nil {
				part.ErrorCode = b.code(err, "offset for leader epoch")
				b.metrics.failed("OffsetForLeaderEpoch", part.ErrorCode)
			} else {
				epoch, end := log.EndOffsetForEpoch(p.LeaderEpoch)
				part.LeaderEpoch, part.EndOffset = epoch, int64(end)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// checkEpoch compares the leader epoch a client knows (-1: none) with the partition's (KIP-320).
func checkEpoch(known int32, o partition.Offsets) error {
	switch {
	case known == -1 || known == o.LeaderEpoch:
		return nil
	case known < o.LeaderEpoch:
		return kerr.FencedLeaderEpoch
	}
	return kerr.UnknownLeaderEpoch
}
