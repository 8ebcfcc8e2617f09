package broker

import (
	"context"
	"strconv"

	"lagoon/internal/groups"
	"lagoon/internal/statetopic"
)

// The internal topic of groups. Small segments: the active one is not compacted, and every start reads all of the topic. Large batches,
// because the metadata of a group with thousands of members is one record.
const (
	offsetsSegmentBytes = 8 << 20
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
	return b.startInternal(ctx, b.groups, b.offsetsTopic())
}

// internalLogs finds the partitions of the internal topics; whatever finds partitions (logs) also implements it.
type internalLogs interface {
	groupLog(partition int32) (groups.Log, bool)
	transactionLog(partition int32) (statetopic.Log, bool)
}

func (s storeLogs) groupLog(partition int32) (groups.Log, bool) {
	return s.store.Log(groups.Topic, partition)
}

// Groups lists all groups with what they read, for people.
func (b *Broker) Groups() (list []groups.View, loading bool) { return b.groups.Overview() }

// newGroups makes the coordinator.
func (b *Broker) newGroups() (*groups.Coordinator, error) {
	opt := b.opt.Groups
	opt.Logger, opt.Registerer = b.log, b.opt.Registerer
	opt.Log = func(partition int32) (groups.Log, bool) {
		logs, ok := b.logs.(internalLogs)
		if !ok {
			return nil, false
		}
		return logs.groupLog(partition)
	}
	opt.Exists = func(topic string, partition int32) bool {
		t, ok := b.meta.Snapshot().Topic(topic)
		return ok && partition >= 0 && partition < t.Partitions
	}
	opt.Topics = func() groups.Topics { return groupTopics{b.meta.Snapshot()} }
	if opt.Settings == nil {
		opt.Settings = groups.DefaultSettings
	}
	opt.Settings = b.groupSettings(opt.Settings)
	return groups.New(opt)
}
