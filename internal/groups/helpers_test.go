package groups_test

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups/consumer"
	"lagoon/internal/records"
	"lagoon/segment"
)

// offsetKey and offsetValue are made by another hand than the coordinator's.
func offsetKey(group, topic string, p int32) []byte {
	k := kmsg.NewOffsetCommitKey()
	k.Version, k.Group, k.Topic, k.Partition = 1, group, topic, p
	return k.AppendTo(nil)
}

func offsetValue(offset int64) []byte {
	v := kmsg.NewOffsetCommitValue()
	v.Version, v.Offset, v.LeaderEpoch, v.CommitTimestamp = 3, offset, -1, 1
	return v.AppendTo(nil)
}

// seal corrects the checksum of a batch that was changed.
func seal(b []byte) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

// eachRecord is a callback of Scan.
func eachRecord(fn func(records.Record)) func(segment.BatchHeader, []byte) (bool, error) {
	return func(h segment.BatchHeader, batch []byte) (bool, error) {
		return true, records.Each(h, batch, func(r records.Record) bool { fn(r); return true })
	}
}

// fixedTopics are orders with 4 partitions and returns with 2.
type fixedTopics struct{}

var fixedPartitions = map[string]int32{"orders": 4, "returns": 2}

func (fixedTopics) Version() uint64 { return 1 }

func (fixedTopics) Find(name string) (id consumer.TopicID, n int32, ok bool) {
	n, ok = fixedPartitions[name]
	copy(id[:], name)
	return id, n, ok
}

func (fixedTopics) Name(id consumer.TopicID) (string, bool) {
	for name := range fixedPartitions {
		if found, _, _ := (fixedTopics{}).Find(name); found == id {
			return name, true
		}
	}
	return "", false
}

func (fixedTopics) Names() []string { return []string{"orders", "returns"} }
