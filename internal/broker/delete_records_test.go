package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDeleteRecords(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 3)
		a.topic("compacted", 1, "cleanup.policy=compact")
		a.topic("both", 1, "cleanup.policy=compact,delete")
		a.topic("__consumer_offsets", 1)
		for _, p := range a.store.parts {
			p.start, p.end = 10, 100
		}
		delete(a.store.parts, logDirPartition{"a", 2})
		req := kmsg.NewPtrDeleteRecordsRequest()
		for _, topic := range []string{"a", "compacted", "both", "__consumer_offsets", "nope", ".."} {
			asked := kmsg.NewDeleteRecordsRequestTopic()
			asked.Topic = topic
			partitions := map[string][]int32{"a": {0, 0, 0, 1, 1, 1, 2, 3, -1}}[topic]
			if partitions == nil {
				partitions = []int32{0}
			}
			offsets := []int64{50, 40, -1, 101, -2, 5, 50, 50, 50}
			for i, n := range partitions {
				p := kmsg.NewDeleteRecordsRequestTopicPartition()
				p.Partition, p.Offset = n, offsets[i]
				asked.Partitions = append(asked.Partitions, p)
			}
			req.Topics = append(req.Topics, asked)
		}
		var got []string
		for _, out := range ask[*kmsg.DeleteRecordsResponse](a, version, req).Topics {
			for _, p := range out.Partitions {
				got = append(got, fmt.Sprintf("%s-%d %d err %d", out.Topic, p.Partition, p.LowWatermark, p.ErrorCode))
			}
		}
		expect(t, fmt.Sprintf("v%d", version), got,
			"a-0 50 err 0", "a-0 50 err 0", "a-0 100 err 0", // up, below the start, everything
			"a-1 -1 err 1", "a-1 -1 err 1", "a-1 10 err 0", // above the end, nonsense, below the start
			"a-2 -1 err 6", "a-3 -1 err 3", "a--1 -1 err 3", // not served now, not there
			"compacted-0 -1 err 44", "both-0 50 err 0", "__consumer_offsets-0 -1 err 17", "nope-0 -1 err 3", "..-0 -1 err 3")
	}
}
