package statetopic

import (
	"context"
	"encoding/hex"
	"unicode/utf16"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// Log is one partition of the topic; a partition.Log is one.
type Log interface {
	Append(ctx context.Context, r partition.AppendRequest) (partition.Appended, error)
	Durable(ctx context.Context, next segment.Offset) error
	Offsets() partition.Offsets
	Scan(ctx context.Context, from segment.Offset, fn func(h segment.BatchHeader, batch []byte) (more bool, err error)) (damaged int, err error)
}

// Load gives fn every batch of a log, after what an earlier coordinator appended is durable: a commit that is still on its way would be
// missing from this one. Errors: the log's, fn's.
func Load(ctx context.Context, log Log, fn func(h segment.BatchHeader, batch []byte) (more bool, err error)) (damaged int, err error) {
	if err := log.Durable(ctx, log.Offsets().End); err != nil {
		return 0, err
	}
	return log.Scan(ctx, 0, fn)
}

// LoadParallel bounds how many shards a coordinator loads at once: one reads while another decodes.
const LoadParallel = 4

// PartitionFor is the partition of the topic that a group or transactional id belongs to: Utils.abs(id.hashCode) % partitions.
func PartitionFor(id string, partitions int32) int32 {
	hash := int32(0)
	for _, r := range id { // Java hashes UTF-16 units
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			hash = 31*hash + high
			r = low
		}
		hash = 31*hash + r
	}
	return hash & 0x7fffffff % partitions
}

// Excerpt is the beginning of a key or value that could not be read, for logs.
func Excerpt(b []byte) string { return hex.EncodeToString(b[:min(len(b), 64)]) }
