package broker

import (
	"context"
	"errors"
	"strconv"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
)

// The internal topic of groups. Small segments, because only whole ones can be deleted; large batches, because the metadata of a group with
// thousands of members is one record.
const (
	offsetsSegmentBytes = 16 << 20
	offsetsBatchBytes   = 8 << 20
)

// offsetsTopic is the internal topic as it is to be made.
func (b *Broker) offsetsTopic() newTopic {
	return newTopic{name: groups.Topic, partitions: b.opt.OffsetsPartitions, configs: map[string]string{
		"cleanup.policy": "compact", "compression.type": "producer",
		"segment.bytes": strconv.Itoa(offsetsSegmentBytes), "max.message.bytes": strconv.Itoa(offsetsBatchBytes),
	}}
}

// startGroups makes sure that groups can be kept: the topic comes into being when the first client needs it.
func (b *Broker) startGroups(ctx context.Context) error {
	if b.groups.Started() {
		return nil
	}
	if t, ok := b.meta.Snapshot().Topic(groups.Topic); ok {
		// On record; whoever makes it holds its lock until its partitions are served.
		unlock, err := b.meta.LockTopic(ctx, groups.Topic)
		if err != nil {
			return err
		}
		defer unlock()
		b.groups.Start(t.Partitions)
		return nil
	}
	t, err := b.createTopic(ctx, b.offsetsTopic())
	if errors.Is(err, metadata.ErrTopicExists) {
		return nil // another client was faster
	}
	if err != nil {
		if b.noise.Allow() {
			b.log.Error("internal topic of consumer groups not created", "topic", groups.Topic, "err", err)
		}
		return err
	}
	b.log.Info("internal topic of consumer groups created", "topic", t.Name, "partitions", t.Partitions)
	return nil
}

// groupLogs finds the partitions of the internal topic; whatever finds partitions (logs) also implements it.
type groupLogs interface {
	groupLog(partition int32) (groups.Log, bool)
}

func (s storeLogs) groupLog(partition int32) (groups.Log, bool) {
	return s.store.Log(groups.Topic, partition)
}

// newGroups makes the coordinator.
func (b *Broker) newGroups() (*groups.Coordinator, error) {
	opt := b.opt.Groups
	opt.Logger, opt.Registerer = b.log, b.opt.Registerer
	opt.Log = func(partition int32) (groups.Log, bool) {
		logs, ok := b.logs.(groupLogs)
		if !ok {
			return nil, false
		}
		return logs.groupLog(partition)
	}
	opt.Exists = func(topic string, partition int32) bool {
		t, ok := b.meta.Snapshot().Topic(topic)
		return ok && partition < t.Partitions
	}
	return groups.New(opt)
}
