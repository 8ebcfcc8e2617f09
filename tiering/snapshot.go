package tiering

import (
	"time"

	"lagoon/segment"
)

// Snapshot is everything that Plan looks at: one moment of the store, put together by its owner.
type Snapshot struct {
	NowMs  int64       // wall clock, Unix ms
	Tiers  []TierState // hot to cold; index 0 takes the appends
	Topics []TopicState
	// Horizon is how far ahead readers count: a segment that one comes to within it is not moved unless its tier is too
	// full. 0: readers do not put off anything.
	Horizon time.Duration
}

// TierState is one tier's policy and fill. All limits are bytes; 0 = no limit.
type TierState struct {
	Name string
	// Device names what the tier shares with others: two tiers with the same non-empty Device lie on one file system, so
	// that a move between them frees nothing. Such moves follow age and policy, never a watermark.
	Device    string
	UsedBytes int64 // what counts against the limits below
	CapBytes  int64 // max_used: no move brings UsedBytes above it
	HighBytes int64 // above it, the oldest sealed segments leave ...
	LowBytes  int64 // ... until UsedBytes is at or below it; 0 = HighBytes
	// Keep is how old data may get here before it moves on, for topics that say nothing themselves; 0 = any age.
	Keep time.Duration
	// Fenced: the tier failed or is missing; nothing is read from it and nothing is put into it.
	Fenced bool
	// Dirs are the tier's directories, where it has several: one that is above its own high watermark gives what lies in it, however much room the
	// others have.
	Dirs []DirState
}

// DirState is the fill of one directory of a tier; limits as in TierState.
type DirState struct {
	Name                           string
	UsedBytes, HighBytes, LowBytes int64
}

// TopicState is one topic's configuration and partitions. Times in ms as in Kafka.
type TopicState struct {
	Name                string
	Policy              Policy // zero value: all tiers
	RetentionMs         int64  // -1 = none; data past it is left to retention and not moved any more
	LocalRetentionMs    int64  // age in tier 0; -1 = any age, -2 = the tier's Keep
	LocalRetentionBytes int64  // bytes per partition in tier 0; negative = no limit
	Partitions          []PartitionState
}

// PartitionState is one partition's segments, in all tiers.
type PartitionState struct {
	Partition int32
	// Pin names the tier that an operator wants the sealed segments in, "" = none. It stands above age, bytes and the topic's
	// policy; a tier that is too full stands above it. A name that no tier has counts as none.
	Pin string
	// PinDir is the directory of that tier that takes them: an index into its Dirs.
	PinDir   int
	Segments []SegmentState // any order
	Readers  []ReaderState  // any order; those at the end of the log may be left out
}

// SegmentState is one segment.
type SegmentState struct {
	Base           segment.Offset
	SizeBytes      int64
	Tier           int   // index into Snapshot.Tiers
	Dir            int   // index into Dirs of that, where there are any
	MaxTimestampMs int64 // largest record timestamp, -1 = none
	ModTimeMs      int64 // file's modification time, 0 = unknown: bounds a timestamp that a client made up
	Sealed         bool  // immutable: never the active segment
	Synced         bool  // on stable storage
	// Moving: a running or ordered migration takes this segment to the tier of index MovingTo. It is counted there and not
	// proposed again.
	Moving   bool
	MovingTo int
	// Held: not to be proposed: found corrupt, or taken off the queue by a person.
	Held bool
}

// Cause is why a move was proposed. The values are metric labels and JSON.
type Cause string

// The causes of a move.
const (
	CauseAge       Cause = "age"       // older than the topic or the tier keeps it
	CauseBytes     Cause = "bytes"     // partition over local.retention.bytes
	CausePolicy    Cause = "policy"    // topic does not use the tier it is in
	CausePin       Cause = "pin"       // partition is pinned to another tier; the only cause that moves to a hotter one
	CauseWatermark Cause = "watermark" // tier above its high watermark
	CauseRoom      Cause = "room"      // colder tier makes room for what must follow
	CauseManual    Cause = "manual"    // ordered by a person
)

// Move takes one sealed segment to another tier: a colder one, or with CausePin any.
type Move struct {
	Topic     string
	Partition int32
	Base      segment.Offset
	SizeBytes int64
	From, To  string // tier names
	Cause     Cause
	Reason    string // one sentence for people
}
