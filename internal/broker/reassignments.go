package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterPartitionReassignments (key 45) and ListPartitionReassignments (key 46)
//
// Behaviour:
//   - There is one broker: the only assignment of a partition is the one it has, and that is a success without a change. Any other is
//     refused as Kafka refuses brokers that are not there; cancelling gives NO_REASSIGNMENT_IN_PROGRESS.
//   - Nothing is ever being reassigned, so the list is empty. Segments that move between tiers are migrations (`lagoon migrations`).

func (b *Broker) handleAlterPartitionReassignments(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	snap := b.meta.Snapshot()
	for _, asked := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = asked.Topic
		topic, known := snap.Topic(asked.Topic)
		for _, p := range asked.Partitions {
			var err error
			switch {
			case !known:
				err = refuse(kerr.UnknownTopicOrPartition, "Unable to find a topic named %.250s.", asked.Topic)
			case p.Partition < 0 || p.Partition >= topic.Partitions:
				err = refuse(kerr.UnknownTopicOrPartition, "Unable to find partition %s:%d.", asked.Topic, p.Partition)
			case p.Replicas == nil:
				err = kerr.NoReassignmentInProgress
			default:
				err = b.checkReplicas(p.Replicas)
			}
			answer := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			answer.Partition, answer.ErrorCode, answer.ErrorMessage = p.Partition, b.code(err, "reassign"), clientText(err)
			out.Partitions = append(out.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func (b *Broker) handleListPartitionReassignments(_ context.Context, r *request) (kmsg.Response, error) {
	return r.body.ResponseKind(), nil
}
