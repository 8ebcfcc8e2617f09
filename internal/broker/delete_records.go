package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/segment"
)

// DeleteRecords (key 21)
//
// Behaviour:
//   - Moves a partition's log start up to an offset; -1 is the high watermark. An offset below the log start changes nothing.
//     The new log start is durable before it is answered. Segments that lie wholly below go the way of retention.
//   - Above the high watermark: OFFSET_OUT_OF_RANGE. A topic with cleanup.policy=compact alone: POLICY_VIOLATION. An internal
//     topic: INVALID_TOPIC_EXCEPTION.

func (b *Broker) handleDeleteRecords(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	snap := b.meta.Snapshot()
	for _, asked := range req.Topics {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = asked.Topic
		topic, err := b.trimmable(snap, asked.Topic)
		for _, p := range asked.Partitions {
			part := kmsg.NewDeleteRecordsResponseTopicPartition()
			part.Partition, part.LowWatermark = p.Partition, -1
			start, err := b.deleteRecords(ctx, topic, p, err)
			if err != nil {
				part.ErrorCode = b.code(err, "delete records of "+asked.Topic)
				b.metrics.failed("DeleteRecords", part.ErrorCode)
			} else {
				part.LowWatermark = int64(start)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// trimmable finds a topic whose records clients may delete.
func (b *Broker) trimmable(snap *metadata.Snapshot, name string) (*metadata.Topic, error) {
	if internalTopic(name) {
		return nil, kerr.InvalidTopicException
	}
	t, err := findTopic(snap, false, name, [16]byte{})
	if err != nil {
		return nil, err
	}
	cfg, err := metadata.Effective(t.Configs, b.topicDefaults(snap))
	if err == nil && cfg.Compact && !cfg.Delete {
		err = kerr.PolicyViolation
	}
	return t, err
}

func (b *Broker) deleteRecords(ctx context.Context, t *metadata.Topic, asked kmsg.DeleteRecordsRequestTopicPartition, topicErr error) (segment.Offset, error) {
	switch {
	case topicErr != nil:
		return 0, topicErr
	case asked.Partition < 0 || asked.Partition >= t.Partitions:
		return 0, kerr.UnknownTopicOrPartition
	case asked.Offset < -1:
		return 0, kerr.OffsetOutOfRange
	}
	return b.files().trim(ctx, t.Name, asked.Partition, segment.Offset(asked.Offset))
}
