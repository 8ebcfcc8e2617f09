package broker

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

// Every field of partition.Config comes from the key it should come from.
func TestPartitionConfig(t *testing.T) {
	got, err := partitionConfig(&metadata.Topic{Pins: map[int32]string{3: "hdd"}, Configs: map[string]string{
		"segment.bytes": "1", "segment.ms": "2", "segment.index.bytes": "3", "index.interval.bytes": "4", "retention.ms": "5", "retention.bytes": "6",
		"local.retention.ms": "7", "local.retention.bytes": "8", "cleanup.policy": "compact", "max.message.bytes": "9", "message.timestamp.type": "LogAppendTime",
		"message.timestamp.before.max.ms": "10", "message.timestamp.after.max.ms": "11", "file.delete.delay.ms": "12", "lagoon.flush": "interval",
		"lagoon.flush.interval.ms": "13", "lagoon.tier.policy": "ssd", "lagoon.reader.class": "lagging", "lagoon.catchup.max.bytes.per.second": "14",
		"min.cleanable.dirty.ratio": "0.25", "min.compaction.lag.ms": "15", "max.compaction.lag.ms": "16", "delete.retention.ms": "17",
	}}, nil)
	want := partition.Config{SegmentBytes: 1, SegmentMs: 2, SegmentIndexBytes: 3, IndexIntervalBytes: 4, RetentionMs: 5, RetentionBytes: 6,
		LocalRetentionMs: 7, LocalRetentionBytes: 8, Compact: true, MaxMessageBytes: 9, LogAppendTime: true, TimestampBeforeMaxMs: 10, TimestampAfterMaxMs: 11,
		FileDeleteDelay: 12 * time.Millisecond, FlushInterval: 13 * time.Millisecond, TierPolicy: "ssd", ReaderClass: "lagging", CatchupBytesPerSec: 14,
		MinCleanableRatio: 0.25, MinCompactionLagMs: 15, MaxCompactionLagMs: 16, DeleteRetentionMs: 17, Pins: map[int32]string{3: "hdd"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got  %+v\n want %+v", err, got, want)
	}
	got, err = partitionConfig(&metadata.Topic{Configs: map[string]string{"file.delete.delay.ms": "9223372036854775807"}}, nil)
	if err != nil || got.FileDeleteDelay < 290*365*24*time.Hour || !got.Delete || got.FlushInterval != 0 {
		t.Errorf("the longest delay: %v, %+v", err, got)
	}
}

func TestTopicSpecs(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("b", 2, "retention.ms=5")
	a.topic("a", 1)
	if err := a.meta.AlterBrokerConfigs("1", map[string]string{"log.segment.bytes": "3000000"}, nil); err != nil {
		t.Fatal(err)
	}
	specs, err := TopicSpecs(a.meta.Snapshot(), map[string]string{"segment.ms": "9"}, 1)
	if err != nil || len(specs) != 2 || specs[0].Topic != "a" || specs[1].Partitions != 2 || specs[1].Config.RetentionMs != 5 ||
		specs[0].Config.SegmentMs != 9 || specs[0].Config.SegmentBytes != 3000000 {
		t.Errorf("%v %+v", err, specs)
	}
	if _, err := TopicSpecs(a.meta.Snapshot(), map[string]string{"segment.ms": "soon"}, 1); err == nil || !strings.Contains(err.Error(), "segment.ms") {
		t.Errorf("an unreadable default: %v", err)
	}
}
