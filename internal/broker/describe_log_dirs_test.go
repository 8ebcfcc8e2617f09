package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

func TestDescribeLogDirs(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.store.views = []partition.DirView{
		{Tier: "ssd", Path: "/ssd", TotalBytes: 100, UsableBytes: 40, Partitions: []partition.DirPartition{{Topic: "b", Partition: 1, SizeBytes: 3}, {Topic: "a", Partition: 0, SizeBytes: 1}, {Topic: "b", Partition: 0, SizeBytes: 2}}},
		{Tier: "hdd", Path: "/hdd", TotalBytes: 1000, UsableBytes: 400, Partitions: []partition.DirPartition{{Topic: "b", Partition: 1, SizeBytes: 30}}},
		{Tier: "usb", Path: "/usb", Err: partition.ErrFenced},
	}
	lines := func(resp *kmsg.DescribeLogDirsResponse) (out []string) {
		for _, d := range resp.Dirs {
			line := fmt.Sprintf("%s err %d %d/%d", d.Dir, d.ErrorCode, d.UsableBytes, d.TotalBytes)
			for _, topic := range d.Topics {
				for _, p := range topic.Partitions {
					line += fmt.Sprintf(" %s-%d=%d", topic.Topic, p.Partition, p.Size)
					if p.OffsetLag != 0 || p.IsFuture {
						t.Errorf("%s-%d: lag %d, future %v", topic.Topic, p.Partition, p.OffsetLag, p.IsFuture)
					}
				}
			}
			out = append(out, line)
		}
		return out
	}
	all := kmsg.NewPtrDescribeLogDirsRequest() // null
	for version := int16(1); version <= 5; version++ {
		resp := ask[*kmsg.DescribeLogDirsResponse](a, version, all)
		if resp.ErrorCode != 0 {
			t.Errorf("v%d: %d", version, resp.ErrorCode)
		}
		if version < 4 { // no sizes of the volume
			expect(t, fmt.Sprintf("v%d", version), lines(resp), "/ssd err 0 -1/-1 a-0=1 b-0=2 b-1=3", "/hdd err 0 -1/-1 b-1=30", "/usb err 56 -1/-1")
			continue
		}
		expect(t, fmt.Sprintf("v%d", version), lines(resp), "/ssd err 0 40/100 a-0=1 b-0=2 b-1=3", "/hdd err 0 400/1000 b-1=30", "/usb err 56 -1/-1")
	}
	some := kmsg.NewPtrDescribeLogDirsRequest()
	topic := kmsg.NewDescribeLogDirsRequestTopic()
	topic.Topic, topic.Partitions = "b", []int32{1, 77}
	some.Topics = append(some.Topics, topic)
	expect(t, "some", lines(ask[*kmsg.DescribeLogDirsResponse](a, 4, some)), "/ssd err 0 40/100 b-1=3", "/hdd err 0 400/1000 b-1=30", "/usb err 56 -1/-1")
	some.Topics = []kmsg.DescribeLogDirsRequestTopic{}
	expect(t, "none", lines(ask[*kmsg.DescribeLogDirsResponse](a, 4, some)), "/ssd err 0 40/100", "/hdd err 0 400/1000", "/usb err 56 -1/-1")
}
