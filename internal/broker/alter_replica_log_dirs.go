package broker

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

// AlterReplicaLogDirs (key 34)
//
// Behaviour:
//   - It pins partitions: their sealed segments move to the named log directory, whatever the policy says, and stay there. The answer comes
//     when that is on record; DescribeLogDirs shows the way, the admin API and `lagoon pins` show the pins and take them off.
//   - The active segment stays where appends go, in the hottest tier, and follows when it is sealed.
//   - A partition that is named for two directories gets the last one, as in Kafka.
//   - Errors as Kafka's, in its order: LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR (the directory or the partition is offline),
//     UNKNOWN_TOPIC_OR_PARTITION, REPLICA_NOT_AVAILABLE (it is being made or deleted). INVALID_REPLICA_ASSIGNMENT, which Kafka has no use for
//     here, answers a directory that the segments cannot be brought to: another one of their own tier.

func (b *Broker) handleAlterReplicaLogDirs(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.AlterReplicaLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	var topics []string
	wanted := map[string]map[int32]string{}
	for _, d := range req.Dirs {
		for _, t := range d.Topics {
			if wanted[t.Topic] == nil {
				wanted[t.Topic] = map[int32]string{}
				topics = append(topics, t.Topic)
			}
			for _, p := range t.Partitions {
				wanted[t.Topic][p] = d.Dir
			}
		}
	}
	for _, topic := range topics {
		out := kmsg.NewAlterReplicaLogDirsResponseTopic()
		out.Topic = topic
		failed := b.pin(ctx, topic, wanted[topic])
		for _, p := range slices.Sorted(maps.Keys(wanted[topic])) {
			answer := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
			answer.Partition, answer.ErrorCode = p, b.code(failed[p], "alter replica log dirs")
			out.Partitions = append(out.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// pin pins partitions of one topic to log directories, by their paths, and tells which failed. What may be, is done.
func (b *Broker) pin(ctx context.Context, topic string, paths map[int32]string) (failed map[int32]error) {
	failed = map[int32]error{}
	all := func(err error) map[int32]error {
		for p := range paths {
			if failed[p] == nil {
				failed[p] = err
			}
		}
		return failed
	}
	unlock, err := b.meta.LockTopic(ctx, topic)
	if err != nil {
		return all(err)
	}
	defer unlock()
	t, known := b.meta.Snapshot().Topic(topic)
	pins := map[int32]string{}
	for p, path := range paths {
		name, err := b.files().pinTarget(topic, p, path)
		switch {
		case errors.Is(err, partition.ErrClosed) && (!known || p < 0 || p >= t.Partitions):
			failed[p] = kerr.UnknownTopicOrPartition
		case errors.Is(err, partition.ErrClosed):
			failed[p] = kerr.ReplicaNotAvailable
		case err != nil:
			failed[p] = err
			b.log.Warn("partition not pinned", "topic", topic, "partition", p, "err", err)
		case !known: // being deleted
			failed[p] = kerr.UnknownTopicOrPartition
		default:
			pins[p] = name
		}
	}
	if len(pins) == 0 {
		return failed
	}
	if err := b.alterPins(context.WithoutCancel(ctx), t, pins); err != nil {
		return all(err)
	}
	return failed
}

// alterPins puts pins on record and in force. The caller holds the topic's lock.
func (b *Broker) alterPins(ctx context.Context, t *metadata.Topic, pins map[int32]string) error {
	if err := b.meta.AlterPins(t.ID, pins); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(pins)) {
		b.log.Info("partition pinned", "topic", t.Name, "partition", p, "dir", pins[p])
	}
	return b.applyConfigs(ctx, t.Name)
}

// Unpin takes the pin of a partition off, durably; had is false when it has none. Safe for concurrent use.
func (b *Broker) Unpin(ctx context.Context, topic string, index int32) (had bool, err error) {
	unlock, err := b.meta.LockTopic(ctx, topic)
	if err != nil {
		return false, err
	}
	defer unlock()
	t, ok := b.meta.Snapshot().Topic(topic)
	if !ok || t.Pins[index] == "" {
		return false, nil
	}
	return true, b.alterPins(context.WithoutCancel(ctx), t, map[int32]string{index: ""})
}
