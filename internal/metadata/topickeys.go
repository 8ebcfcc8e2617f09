package metadata

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

const maxLong = "9223372036854775807"

const oneNode = " A single broker has one copy of each partition, so the value is kept and shown and changes nothing."
const noCodec = " Batches are stored and served exactly as the producer sent them, so the value is kept and shown and changes nothing."

// TopicConfigs holds every key that a topic may set: those of Kafka 4.3 and those of Lagoon.
var TopicConfigs = sortedKeys([]*ConfigKey{
	{Name: "cleanup.policy", Type: TypeList, Default: "delete", Server: "log.cleanup.policy", rule: oneOf("compact", "delete"),
		Doc: "What happens to old segments: delete removes them when retention.ms or retention.bytes says so; compact keeps the newest record " +
			"of each key and removes the others. With both, each does its part. Empty keeps everything."},
	{Name: "compression.type", Type: TypeString, Default: "producer", Server: "compression.type", Effect: Ignored,
		rule: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), Doc: "Codec in which the broker would store batches." + noCodec},
	{Name: "compression.gzip.level", Type: TypeInt, Default: "-1", Server: "compression.gzip.level", Effect: Ignored, rule: noneOrBetween(1, 9),
		Doc: "Level for recompression with gzip." + noCodec},
	{Name: "compression.lz4.level", Type: TypeInt, Default: "9", Server: "compression.lz4.level", Effect: Ignored, rule: between(1, 17),
		Doc: "Level for recompression with lz4." + noCodec},
	{Name: "compression.zstd.level", Type: TypeInt, Default: "3", Server: "compression.zstd.level", Effect: Ignored, rule: between(-131072, 22),
		Doc: "Level for recompression with zstd." + noCodec},
	{Name: "delete.retention.ms", Type: TypeLong, Default: "86400000", Server: "log.cleaner.delete.retention.ms", rule: atLeast(0),
		Doc: "How long a compacted topic keeps delete markers (records without value), and markers of transactions of which nothing is left, in ms from the first compaction that meets them."},
	{Name: "file.delete.delay.ms", Type: TypeLong, Default: "60000", Server: "log.segment.delete.delay.ms", rule: atLeast(0),
		Doc: "Time between renaming a segment away and unlinking it, in ms. Readers that are in the middle of it finish undisturbed."},
	{Name: "flush.messages", Type: TypeLong, Default: maxLong, Server: "log.flush.interval.messages", Effect: Ignored, rule: atLeast(1),
		Doc: "Messages between two syncs. Lagoon syncs before it acknowledges acks=all, or by time: see lagoon.flush. The value is kept and shown and changes nothing."},
	{Name: "flush.ms", Type: TypeLong, Default: maxLong, Server: "log.flush.interval.ms", Effect: Ignored, rule: atLeast(0),
		Doc: "Time between two syncs. Lagoon has lagoon.flush and lagoon.flush.interval.ms for this; the value is kept and shown and changes nothing."},
	{Name: "follower.replication.throttled.replicas", Type: TypeList, Effect: Ignored, rule: rule{list: throttledReplica},
		Doc: "Replicas whose copying is throttled at the follower." + oneNode},
	{Name: "leader.replication.throttled.replicas", Type: TypeList, Effect: Ignored, rule: rule{list: throttledReplica},
		Doc: "Replicas whose copying is throttled at the leader." + oneNode},
	{Name: "index.interval.bytes", Type: TypeInt, Default: "4096", Server: "log.index.interval.bytes", rule: atLeast(0),
		Doc: "Bytes of log between two entries of a segment's offset index."},
	{Name: "local.retention.bytes", Type: TypeLong, Default: "-2", Server: "log.local.retention.bytes", rule: atLeast(-2),
		Doc: "Bytes of a partition's sealed segments that may stay in the hottest tier; older ones move to the next tier. -2 follows retention.bytes, -1 is no limit. " +
			"It holds without remote.storage.enable."},
	{Name: "local.retention.ms", Type: TypeLong, Default: "-2", Server: "log.local.retention.ms", rule: atLeast(-2),
		Doc: "Age up to which sealed segments may stay in the hottest tier, in ms; older ones move to the next tier. -2 follows retention.ms, -1 is no limit. " +
			"It holds without remote.storage.enable."},
	{Name: "max.compaction.lag.ms", Type: TypeLong, Default: maxLong, Server: "log.cleaner.max.compaction.lag.ms", rule: atLeast(1),
		Doc: "Longest time a record may stay uncompacted, in ms: then the log is compacted whatever its dirty ratio, and the active segment is sealed for it."},
	{Name: "max.message.bytes", Type: TypeInt, Default: "1048588", Server: "message.max.bytes", rule: atLeast(0),
		Doc: "Largest record batch that a producer may send, in bytes, compressed as it is sent."},
	{Name: "message.timestamp.after.max.ms", Type: TypeLong, Default: "3600000", Server: "log.message.timestamp.after.max.ms", rule: atLeast(0),
		Doc: "How far a CreateTime timestamp may lie after the broker's clock, in ms; batches beyond are refused with INVALID_TIMESTAMP."},
	{Name: "message.timestamp.before.max.ms", Type: TypeLong, Default: maxLong, Server: "log.message.timestamp.before.max.ms", rule: atLeast(0),
		Doc: "How far a CreateTime timestamp may lie before the broker's clock, in ms; batches beyond are refused with INVALID_TIMESTAMP."},
	{Name: "message.timestamp.type", Type: TypeString, Default: "CreateTime", Server: "log.message.timestamp.type", rule: oneOf("CreateTime", "LogAppendTime"),
		Doc: "CreateTime keeps the producer's timestamps, LogAppendTime replaces them by the broker's clock when the batch is written."},
	{Name: "min.cleanable.dirty.ratio", Type: TypeDouble, Default: "0.5", Server: "log.cleaner.min.cleanable.ratio", rule: between(0, 1),
		Doc: "A partition is compacted when more than this share of its sealed bytes is not compacted yet."},
	{Name: "min.compaction.lag.ms", Type: TypeLong, Default: "0", Server: "log.cleaner.min.compaction.lag.ms", rule: atLeast(0),
		Doc: "Shortest time a record stays uncompacted, in ms."},
	{Name: "min.insync.replicas", Type: TypeInt, Default: "1", Server: "min.insync.replicas", Effect: Ignored, rule: atLeast(1),
		Doc: "Replicas that must have a batch before acks=all is answered. As in Kafka never more than there are replicas, which is one:" +
			" what acks=all waits for here is stable storage. The value is kept and shown and changes nothing."},
	{Name: "preallocate", Type: TypeBoolean, Default: "false", Server: "log.preallocate", Effect: Ignored,
		Doc: "Whether segment files are allocated in full. Lagoon reserves space ahead of the writer on its own; the value is kept and shown and changes nothing."},
	{Name: "remote.log.copy.disable", Type: TypeBoolean, Default: "false", Effect: Ignored,
		Doc: "Stops copying to Kafka's remote storage. Lagoon's tiers follow lagoon.tier.policy; the value is kept and shown and changes nothing."},
	{Name: "remote.log.delete.on.disable", Type: TypeBoolean, Default: "false", Effect: Ignored,
		Doc: "Deletes remote data when Kafka's remote storage is disabled. Lagoon has none; the value is kept and shown and changes nothing."},
	{Name: "remote.storage.enable", Type: TypeBoolean, Default: "false", Effect: Ignored,
		Doc: "Turns Kafka's remote storage on. Lagoon's tiers are always on and follow lagoon.tier.policy and local.retention.*; the value is kept and shown and changes nothing."},
	{Name: "retention.bytes", Type: TypeLong, Default: "-1", Server: "log.retention.bytes",
		Doc: "Size a partition may reach over all tiers before its oldest segments are deleted, in bytes. Negative is no limit."},
	{Name: "retention.ms", Type: TypeLong, Default: "604800000", Server: "log.retention.ms", rule: atLeast(-1),
		Doc: "Age at which records may be deleted, over all tiers, in ms, by segment. -1 is no limit."},
	{Name: "segment.bytes", Type: TypeInt, Default: "536870912", Server: "log.segment.bytes", rule: atLeast(1 << 20),
		Doc: "Size at which a segment is sealed and a new one begun, in bytes. Sealed segments are what moves between tiers and what retention deletes."},
	{Name: "segment.index.bytes", Type: TypeInt, Default: "10485760", Server: "log.index.size.max.bytes", rule: atLeast(4),
		Doc: "Largest size of a segment's offset index, in bytes; a full index seals the segment."},
	{Name: "segment.jitter.ms", Type: TypeLong, Default: "0", Server: "log.roll.jitter.ms", Effect: Ignored, rule: atLeast(0),
		Doc: "Random part of segment.ms. Syncs are shared between partitions here, so rolling together does no harm; the value is kept and shown and changes nothing."},
	{Name: "segment.ms", Type: TypeLong, Default: "604800000", Server: "log.roll.ms", rule: atLeast(1),
		Doc: "Age at which a segment is sealed although it is not full, in ms."},
	{Name: "unclean.leader.election.enable", Type: TypeBoolean, Default: "false", Server: "unclean.leader.election.enable", Effect: Ignored,
		Doc: "Lets a replica that is behind become leader." + oneNode},

	{Name: CatchupMaxBytesPerSecond, Type: TypeLong, Default: "0", rule: zeroOrAtLeast(MinCatchupBytesPerSecond),
		Doc: "Cap on bytes per second that all lagging readers of this topic together read past the page cache. 0 is no cap of its own. Real-time readers are never slowed by it."},
	{Name: DeliveryDelayMs, Type: TypeLong, Default: "0", rule: between(0, 10*365*24*3_600_000),
		Doc: "How long after its append a record is seen by consumers, in ms. Order is kept; the high watermark, latest offset and lag are those of what is seen. " +
			"Set it on topics with message.timestamp.type=LogAppendTime of their own, without compaction and with a longer retention.ms. " +
			"A shorter delay shows what it covered at once; a longer one takes nothing back."},
	{Name: "lagoon.flush", Type: TypeString, Default: "sync", rule: oneOf("sync", "interval"),
		Doc: "sync: acks=all is answered when the records are on stable storage, and readers see only such records. interval: acks=all is answered after the write, " +
			"and a power cut can take back the last lagoon.flush.interval.ms."},
	{Name: "lagoon.flush.interval.ms", Type: TypeLong, Default: "1000", rule: between(1, 3_600_000),
		Doc: "With lagoon.flush=interval the longest time between a write and its sync, in ms."},
	{Name: "lagoon.reader.class", Type: TypeString, Default: "auto", rule: oneOf("auto", "realtime", "lagging"),
		Doc: "How readers of this topic are treated: auto by their distance from the end; realtime reads always through the page cache; lagging never fill it."},
	{Name: "lagoon.tier.policy", Type: TypeString, Default: "",
		Doc: "Tiers in which sealed segments may lie, hot to cold, each with the age up to which they stay, as in ssd:6h,hdd. One tier pins the topic to it. " +
			"Empty allows every tier at the server's settings."},
})

// GroupConfigs holds the keys that a consumer group may set.
var GroupConfigs = sortedKeys([]*ConfigKey{
	{Name: CatchupMaxBytesPerSecond, Type: TypeLong, Default: "0", rule: zeroOrAtLeast(MinCatchupBytesPerSecond),
		Doc: "Cap on bytes per second that this group's lagging readers together read past the page cache. 0 is no cap of its own. " +
			"An override set at the admin API goes first. Until a consumer's group is known, its client id stands for it: `lagoon throttle set NAME RATE --kind client`."},
	{Name: CatchupWeight, Type: TypeDouble, Default: "1", rule: between(0.01, 100),
		Doc: "Share of a busy device that this group's lagging readers get, relative to the other groups' 1. An override set at the admin API goes first. " +
			"A topic has no weight: what shares a device is groups."},
	{Name: ConsumerHeartbeatInterval, Type: TypeInt, Default: "5000", Server: "group.consumer.heartbeat.interval.ms", rule: between(50, 60_000),
		Doc: "How often members of the consumer protocol (KIP-848) are told to send heartbeats, in ms; half the session timeout at most."},
	{Name: ConsumerSessionTimeout, Type: TypeInt, Default: "45000", Server: "group.consumer.session.timeout.ms", rule: between(100, 3_600_000),
		Doc: "A member of the consumer protocol (KIP-848) that is silent for longer is removed from the group, in ms."},
})

// MinCatchupBytesPerSecond is the smallest cap on catch-up reads: as good as a pause, and yet a chunk passes within minutes.
const MinCatchupBytesPerSecond = 16 << 10

// BrokerConfigs holds the dynamic broker keys: Kafka's broker-wide names of topic settings, which every topic that does
// not set the key itself follows at once, and the broker-wide caps on cold reads and migrations. Everything else about a
// broker is set in its configuration file.
var BrokerConfigs = sortedKeys(append(brokerSynonyms(),
	&ConfigKey{Name: FetchMaxBytesPerSecond, Type: TypeLong, Default: maxLong, rule: atLeast(MinCatchupBytesPerSecond),
		Doc: "Cap on bytes per second that all lagging readers together read past the page cache, over all tiers. It holds whatever throttle.mode is. " +
			"Real-time readers are never slowed by it."},
	&ConfigKey{Name: CopyMaxBytesPerSecond, Type: TypeLong, Default: maxLong, rule: atLeast(MinCatchupBytesPerSecond),
		Doc: "Cap on bytes per second that all migrations to colder tiers together copy."},
	// kafka-reassign-partitions --verify takes these back whether or not anything had been throttled.
	&ConfigKey{Name: "leader.replication.throttled.rate", Type: TypeLong, Default: maxLong, Effect: Ignored, rule: atLeast(0),
		Doc: "Cap on replication traffic of leaders. Accepted without effect: one node replicates nothing."},
	&ConfigKey{Name: "follower.replication.throttled.rate", Type: TypeLong, Default: maxLong, Effect: Ignored, rule: atLeast(0),
		Doc: "Cap on replication traffic of followers. Accepted without effect: one node replicates nothing."},
	&ConfigKey{Name: "replica.alter.log.dirs.io.max.bytes.per.second", Type: TypeLong, Default: maxLong, Effect: Ignored, rule: atLeast(0),
		Doc: "Cap on moves between log directories. Accepted without effect: remote.log.manager.copy.max.bytes.per.second caps migrations."},
))

// brokerSynonyms makes the broker keys of the topic keys that do something. Ignored ones are not worth a second place to
// set them.
func brokerSynonyms() []*ConfigKey {
	var keys []*ConfigKey
	for _, k := range TopicConfigs {
		if k.Server != "" && k.Effect == Dynamic {
			keys = append(keys, &ConfigKey{Name: k.Server, Type: k.Type, Default: k.Default, rule: k.rule,
				Doc: "For topics without " + k.Name + " of their own. " + k.Doc})
		}
	}
	return keys
}

func sortedKeys(keys []*ConfigKey) Keys {
	slices.SortFunc(keys, func(a, b *ConfigKey) int { return strings.Compare(a.Name, b.Name) })
	return keys
}

// ValidateTopicConfigs checks what a topic is to set, every key by itself and those that depend on each other, given the
// server's defaults for the rest. The error wraps ErrInvalidConfig and names one key.
// lagoon.tier.policy is checked by whoever knows the tiers.
func ValidateTopicConfigs(configs, defaults map[string]string) error {
	for _, name := range sortedNames(configs) {
		k, ok := TopicConfigs.Find(name)
		if !ok {
			return TopicConfigs.Unknown("topic", name)
		}
		if err := k.Check(configs[name]); err != nil {
			return err
		}
	}
	c, err := Effective(configs, defaults)
	if err != nil {
		return err
	}
	_, localMs := configs["local.retention.ms"]
	_, localBytes := configs["local.retention.bytes"]
	switch {
	case localMs && above(c.LocalRetentionMs, c.RetentionMs):
		return fmt.Errorf("%w: local.retention.ms %d must not exceed retention.ms %d", ErrInvalidConfig, c.LocalRetentionMs, c.RetentionMs)
	case localBytes && above(c.LocalRetentionBytes, c.RetentionBytes):
		return fmt.Errorf("%w: local.retention.bytes %d must not exceed retention.bytes %d", ErrInvalidConfig, c.LocalRetentionBytes, c.RetentionBytes)
	case c.DeliveryDelayMs > 0 && configs["message.timestamp.type"] != "LogAppendTime":
		return fmt.Errorf("%w: %s needs message.timestamp.type=LogAppendTime on the topic itself: when a record is due follows from its append time, which only the log keeps over a restart",
			ErrInvalidConfig, DeliveryDelayMs)
	case c.DeliveryDelayMs > 0 && c.Compact:
		return fmt.Errorf("%w: %s does not go with cleanup.policy=compact", ErrInvalidConfig, DeliveryDelayMs)
	case c.DeliveryDelayMs > 0 && c.Delete && c.RetentionMs >= 0 && c.RetentionMs <= c.DeliveryDelayMs:
		return fmt.Errorf("%w: retention.ms %d must exceed %s %d: records would be deleted before anybody sees them", ErrInvalidConfig, c.RetentionMs, DeliveryDelayMs, c.DeliveryDelayMs)
	case c.MinCompactionLagMs > c.MaxCompactionLagMs:
		return fmt.Errorf("%w: min.compaction.lag.ms %d must not exceed max.compaction.lag.ms %d", ErrInvalidConfig, c.MinCompactionLagMs, c.MaxCompactionLagMs)
	}
	return nil
}

// above compares a local limit with the total one; -2 follows it and -1 is no limit.
func above(local, total int64) bool {
	if total < 0 || local == -2 {
		return false
	}
	if local == -1 {
		local = math.MaxInt64
	}
	return local > total
}
