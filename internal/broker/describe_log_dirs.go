package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/partition"
)

// DescribeLogDirs (key 35)
//
// Behaviour:
//   - Each directory of each tier is a log dir, hot to cold, with the size of its file system from v4 on. A partition whose
//     segments lie in several tiers is listed in each, with its size there: their sum is the partition's size.
//   - A partition that is pinned (AlterReplicaLogDirs) is shown as Kafka shows a replica that moves: the directory it is pinned to as the
//     future one, with the offsets in sealed segments that lie elsewhere as its lag; when there are none it is listed there alone, its active
//     segment counted in.
//   - A directory that failed is answered with KAFKA_STORAGE_ERROR and what it is known to hold.
//   - Null topics mean all. Partitions that are not there are passed over, as in Kafka.

func (b *Broker) handleDescribeLogDirs(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	var wanted map[logDirPartition]bool
	if req.Topics != nil {
		wanted = map[logDirPartition]bool{}
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				wanted[logDirPartition{t.Topic, p}] = true
			}
		}
	}
	for _, d := range b.files().dirs() {
		resp.Dirs = append(resp.Dirs, logDir(d, wanted))
	}
	return resp, nil
}

type logDirPartition struct {
	topic     string
	partition int32
}

// logDir describes one directory; wanted is nil for all partitions.
func logDir(d partition.DirView, wanted map[logDirPartition]bool) kmsg.DescribeLogDirsResponseDir {
	out := kmsg.NewDescribeLogDirsResponseDir()
	out.Dir = d.Path
	if d.Err != nil {
		out.ErrorCode = kerr.KafkaStorageError.Code
	}
	if d.TotalBytes > 0 {
		out.TotalBytes, out.UsableBytes = d.TotalBytes, d.UsableBytes
	}
	held := slices.SortedFunc(slices.Values(d.Partitions), func(a, b partition.DirPartition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	for _, h := range held {
		if wanted != nil && !wanted[logDirPartition{h.Topic, h.Partition}] {
			continue
		}
		if n := len(out.Topics); n == 0 || out.Topics[n-1].Topic != h.Topic {
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = h.Topic
			out.Topics = append(out.Topics, t)
		}
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition, p.Size, p.IsFuture, p.OffsetLag = h.Partition, h.SizeBytes, h.Future, h.Lag
		t := &out.Topics[len(out.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return out
}
