package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
)

// OffsetDelete (key 47)
//
// Behaviour (KIP-496): offsets of topics that a group of consumers reads stay (GROUP_SUBSCRIBED_TO_TOPIC); a group of another kind must be
// empty (NON_EMPTY_GROUP). Answered when the deletion is on stable storage. An offset that is not there is deleted all the same.

func (b *Broker) beginOffsetDelete(_ context.Context, r *request) promise {
	req := r.body.(*kmsg.OffsetDeleteRequest)
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	snap := b.meta.Snapshot()
	var asked []groups.Offset
	var places []*int16
	for _, t := range req.Topics {
		out := kmsg.NewOffsetDeleteResponseTopic()
		out.Topic = t.Topic
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		out.Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(t.Partitions))
		for i, p := range t.Partitions {
			out.Partitions[i].Partition = p.Partition
			if failed := committable(topic, err, p.Partition); failed != nil {
				out.Partitions[i].ErrorCode = kerrCode(failed)
				continue
			}
			places = append(places, &out.Partitions[i].ErrorCode)
			asked = append(asked, groups.Offset{Topic: t.Topic, Partition: p.Partition})
		}
		resp.Topics = append(resp.Topics, out)
	}
	errs, wait, err := b.groups.DeleteOffsets(req.Group, asked)
	if err != classic.None {
		resp.ErrorCode, resp.Topics = int16(err), nil
		return answered(resp)
	}
	for i, err := range errs {
		*places[i] = int16(err)
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if err := wait.Wait(ctx); err != classic.None {
			resp.ErrorCode, resp.Topics = int16(err), nil
		}
		return resp
	}
}
