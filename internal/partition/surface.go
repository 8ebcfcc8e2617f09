package partition

import (
	"context"

	"lagoon/segment"
)

// DirView is one log directory as DescribeLogDirs and the admin API show it.
type DirView struct {
	Tier        string
	Path        string
	TotalBytes  int64
	UsableBytes int64
	Err         error // not nil: fenced
	Partitions  []DirPartition
}

// DirPartition is one partition's share of a log directory.
type DirPartition struct {
	Topic     string
	Partition int32
	SizeBytes int64
}

// TopicSpec names a topic's partitions to load or create at start.
type TopicSpec struct {
	Topic      string
	ID         [16]byte
	Partitions int32
	Config     Config
}

// Store owns every partition of this broker.
type Store struct{}

// Log is one partition.
type Log struct{}

// Log finds a partition.
func (s *Store) Log(topic string, partition int32) (*Log, bool) { return nil, false }

// Create makes the partition's directory, or loads it when it is there, and begins to serve it. ErrExists when it is served already.
func (s *Store) Create(ctx context.Context, topic string, id [16]byte, partition int32, cfg Config) (*Log, error) {
	return nil, ErrClosed
}

// Delete stops serving all partitions of a topic and removes their directories in the background (rename first).
func (s *Store) Delete(ctx context.Context, topic string) error { return ErrClosed }

// SetConfig changes a topic's configuration for all its partitions.
func (s *Store) SetConfig(topic string, cfg Config) {}

// Dirs describes every log directory.
func (s *Store) Dirs() []DirView { return nil }

func (l *Log) Topic() string    { return "" }
func (l *Log) ID() [16]byte     { return [16]byte{} }
func (l *Log) Partition() int32 { return 0 }

// Err is why the partition is offline (ErrFenced wrapped), or nil.
func (l *Log) Err() error { return nil }

// Append writes one batch; see AppendRequest. Calls are ordered by the appender lock.
func (l *Log) Append(ctx context.Context, r AppendRequest) (Appended, error) { return Appended{}, ErrClosed }

// Durable waits until everything below next is on stable storage (returns at once in interval mode).
func (l *Log) Durable(ctx context.Context, next segment.Offset) error { return ErrClosed }

// Read never blocks on a cold device.
func (l *Log) Read(r ReadRequest) (ReadResult, error) { return ReadResult{}, ErrClosed }

// Offsets is one consistent view of the bounds.
func (l *Log) Offsets() Offsets { return Offsets{} }

// OffsetForTime finds the first offset whose timestamp is at least ms. Offset -1 when there is none.
func (l *Log) OffsetForTime(ctx context.Context, ms int64) (TimestampOffset, error) {
	return TimestampOffset{}, ErrClosed
}

// MaxTimestamp finds the record with the largest timestamp.
func (l *Log) MaxTimestamp(ctx context.Context) (TimestampOffset, error) {
	return TimestampOffset{}, ErrClosed
}

// TieredOffsets: the last offset in a colder tier (-1: none) and the first one not there yet.
func (l *Log) TieredOffsets() (latestTiered, earliestPending segment.Offset) { return -1, 0 }

// EndOffsetForEpoch answers OffsetForLeaderEpoch: (-1,-1) when the epoch is unknown.
func (l *Log) EndOffsetForEpoch(epoch int32) (int32, segment.Offset) { return -1, -1 }

// DeleteRecords moves the log start up to before (-1: the high watermark), durable before return.
func (l *Log) DeleteRecords(ctx context.Context, before segment.Offset) (segment.Offset, error) {
	return 0, ErrClosed
}

// SizeBytes is the size of all segments in all tiers.
func (l *Log) SizeBytes() int64 { return 0 }

// Close leaves every log it was given to. The Watch must not be used again.
func (w *Watch) Close() {}
