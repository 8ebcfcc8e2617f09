package partition

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// Errors by phase of use. The broker maps each to one Kafka code.
var (
	// ErrOffsetOutOfRange: an offset outside [log start, log end].
	ErrOffsetOutOfRange = errors.New("partition: offset out of range")
	// ErrFenced: the log directory failed a write or a sync; its partitions serve nothing until a restart
	// (KAFKA_STORAGE_ERROR).
	ErrFenced = errors.New("partition: log directory is offline after a storage error")
	// ErrDiskFull: below the low-water mark of free space; produce is refused with a retriable error, the rest goes on.
	ErrDiskFull = errors.New("partition: no space left in the log directory")
	// ErrClosed: the partition was deleted or the store was closed.
	ErrClosed = errors.New("partition: closed")
	// ErrNoLogDir: no log directory has this path.
	ErrNoLogDir = errors.New("partition: no such log directory")
	// ErrPlacement: a partition's segments cannot be brought to this log directory.
	ErrPlacement = errors.New("partition: segments cannot be moved to this log directory")
	// ErrNoAnswer: a device does not answer. What was begun there goes on when it does, or at the next start.
	ErrNoAnswer = errors.New("partition: a log directory's device does not answer")
	// ErrExists: the partition is already there.
	ErrExists = errors.New("partition: exists")
)

// Offsets is one consistent view of a partition's bounds. LogStart <= LastStable <= HighWatermark <= End.
type Offsets struct {
	LogStart      segment.Offset
	HighWatermark segment.Offset // first offset consumers do not see (the durable offset in the safe mode)
	LastStable    segment.Offset // first offset read_committed consumers do not see
	End           segment.Offset // next offset to be assigned
	LocalStart    segment.Offset // first offset in the hottest tier (ListOffsets -4)
	LeaderEpoch   int32
}

// AppendRequest is one client batch for one partition.
type AppendRequest struct {
	// Records is exactly one v2 batch; its base offset, epoch and, with LogAppendTime, timestamp and CRC are patched in
	// place. The slice stays the caller's and is not kept after Append returns.
	Records []byte
	// Internal batches may be control batches (transaction markers). They are taken on a full disk, too, whatever their size.
	Internal bool
	// Guard is needed by a transactional batch when the producer has no open transaction in the partition, see Log.GuardTxn.
	Guard TxnGuard
	// EpochPerTxn says that the producer uses the second transaction protocol (KIP-890): each of its transactions has an epoch of its own.
	// So a producer that the partition does not know begins with sequence 0, and a marker's epoch is above that of what it ends.
	EpochPerTxn bool
}

// Appended is what one append came to. Base is the first offset given, or that of the earlier append when Duplicate.
type Appended struct {
	Base            segment.Offset
	Next            segment.Offset
	LogAppendTimeMs int64 // -1 with CreateTime
	LogStart        segment.Offset
	Duplicate       bool
}

// ReaderRef identifies who reads. Strings are bounded by the caller.
type ReaderRef struct {
	Group       string // "" while unknown
	GroupSource string // how the group is known: assignment, commit, none
	ClientID    string
	Peer        string // remote address for people
	Conn        uint64 // tells two connections with the same client id apart
}

// ReadRequest asks for whole batches from From on.
type ReadRequest struct {
	Reader    ReaderRef
	From      segment.Offset
	MaxBytes  int64
	MustServe bool // return at least one whole batch although it is larger than MaxBytes
	Committed bool // read_committed: stop at the last stable offset
	// Watch, when not nil, is notified once when something this read lacks may have arrived: the high watermark passed
	// From, a cold chunk came in, a deferred read got its turn.
	Watch *Watch
}

// ReadResult is the answer of Log.Read. Offsets are always set.
type ReadResult struct {
	Offsets Offsets
	Chunk   *Chunk // nil: nothing now
	// Pending: bytes exist for this reader, but they are on their way from a device (or deferred by the budget).
	Pending bool
	// More: records can be seen that Chunk does not hold, for MaxBytes or because they lie elsewhere than its own. Waiting brings none of them.
	More    bool
	Live    bool         // Chunk is for a real-time reader and was in the page cache: its latency counts
	Aborted []AbortedTxn // read_committed only
}

// AbortedTxn is one entry of a fetch response's aborted list.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset segment.Offset
}

// TimestampOffset answers an offset lookup by time. Offset is -1 when there is none.
type TimestampOffset struct {
	Offset      segment.Offset
	TimestampMs int64
	LeaderEpoch int32
}

// Config is what a topic's configuration means to a partition. Times in ms as in Kafka, -1 = no limit.
type Config struct {
	SegmentBytes         int32
	SegmentMs            int64
	SegmentIndexBytes    int32
	IndexIntervalBytes   int32
	RetentionMs          int64
	RetentionBytes       int64
	LocalRetentionMs     int64   // -2: as RetentionMs
	LocalRetentionBytes  int64   // -2: as RetentionBytes
	Compact              bool    // cleanup.policy holds compact
	Delete               bool    // cleanup.policy holds delete
	MinCleanableRatio    float64 // compaction: dirty share of the bytes above which a log is cleaned
	MinCompactionLagMs   int64
	MaxCompactionLagMs   int64
	DeleteRetentionMs    int64 // of delete markers and transaction markers, from the first cleaning on
	MaxMessageBytes      int32
	LogAppendTime        bool
	TimestampBeforeMaxMs int64
	TimestampAfterMaxMs  int64
	FileDeleteDelay      time.Duration
	FlushInterval        time.Duration // 0: safe mode, acks=all waits for stable storage and readers see durable records only
	TierPolicy           string        // lagoon.tier.policy, "" = the server's
	ReaderClass          string        // lagoon.reader.class: auto, realtime, lagging
	CatchupBytesPerSec   int64         // lagoon.catchup.max.bytes.per.second, 0 = none
	// DeliveryDelayMs is how long after its append a record is seen (lagoon.delivery.delay.ms), 0 = at once; it needs LogAppendTime.
	// What was appended up to DeliveredMs, Unix time, has been seen whatever the delay is now.
	DeliveryDelayMs, DeliveredMs int64
	// Pins: the log directory, by name, that an operator wants a partition's sealed segments in. Shared: not to be changed.
	Pins map[int32]string
}

// Watch wakes one parked fetch. Create it per fetch, give it to any number of reads, and Close it when the fetch is
// answered; notifications coalesce.
type Watch struct {
	c    chan struct{}
	at   atomic.Int64 // when it was notified last, after clockStart
	mu   sync.Mutex
	logs []*Log // where it is registered, for Close
}

// NewWatch makes a Watch ready to be given to reads.
func NewWatch() *Watch { return &Watch{c: make(chan struct{}, 1)} }

// C receives one value when there is a reason to read again.
func (w *Watch) C() <-chan struct{} { return w.c }

// Notify wakes the fetch; safe from any goroutine, never blocks.
func (w *Watch) Notify() {
	if len(w.c) == 0 {
		w.at.Store(int64(time.Since(clockStart)))
	}
	select {
	case w.c <- struct{}{}:
	default:
	}
}

var clockStart = time.Now()

// NotifiedAt is when the value of C that was received last was sent.
func (w *Watch) NotifiedAt() time.Time { return clockStart.Add(time.Duration(w.at.Load())) }

// Chunk is a run of whole batches ready to be sent: a range of a file that is resident, or memory that a bypass read
// filled. It pins what it points to until Release, which must be called exactly once.
// Chunk satisfies wire.Payload.
type Chunk struct {
	n      int64
	next   segment.Offset
	fd     uintptr
	isFile bool // fd is a kernel descriptor that sendfile can use
	pos    int64
	file   vfs.File         // the bytes are [pos, pos+n) of it, or …
	seg    *segment.Reader  // (released with the chunk)
	dir    *logDir          // where it lies
	mem    []byte           // … they are here
	buf    *cachectl.Buffer // (released with the chunk, nil for memory of its own)
}

// Len is the number of bytes.
func (c *Chunk) Len() int64 { return c.n }

// Next is the offset after the chunk's last record, 0 when it is not known without reading.
func (c *Chunk) Next() segment.Offset { return c.next }

// File tells the descriptor and position for sendfile; ok is false when the bytes are in memory, or in a file that the
// kernel does not have.
func (c *Chunk) File() (fd uintptr, pos int64, ok bool) { return c.fd, c.pos, c.isFile }

// Bytes is the memory of a chunk that is not a file range; read only, valid until Release.
func (c *Chunk) Bytes() []byte { return c.mem }

// Wanted tells whether cold reads wait for memory such as the chunk holds.
func (c *Chunk) Wanted() bool { return c.buf != nil && c.buf.Wanted() }

// ReadAt copies from the chunk, whatever it is made of.
func (c *Chunk) ReadAt(p []byte, off int64) (int, error) {
	if c.file != nil {
		return c.file.ReadAt(p, c.pos+off)
	}
	return copy(p, c.mem[off:]), nil
}

// Failed tells that the range could not be read although it was in the page cache a moment ago: an error of the device, or a file that
// became shorter.
func (c *Chunk) Failed(err error) {
	if c.dir != nil {
		c.dir.noteError("read", err)
	}
}

// Release gives the bytes back.
func (c *Chunk) Release() {
	if c.seg != nil {
		c.seg.Release()
	}
	if c.buf != nil {
		c.buf.Release()
	}
	*c = Chunk{}
}
