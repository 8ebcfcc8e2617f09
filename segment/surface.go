package segment

import "lagoon/internal/vfs"

// ---- signatures published ahead of their bodies; this file disappears as they are written ----

type Compression uint8

const (
	CompressionNone Compression = iota
	CompressionGzip
	CompressionSnappy
	CompressionLZ4
	CompressionZstd
)

func (h BatchHeader) SizeBytes() int64         { return int64(h.Length) + 12 }
func (h BatchHeader) LastOffset() Offset       { return h.BaseOffset + Offset(h.LastOffsetDelta) }
func (h BatchHeader) NextOffset() Offset       { return h.LastOffset() + 1 }
func (h BatchHeader) Compression() Compression { return Compression(h.Attributes & 7) }
func (h BatchHeader) LogAppendTime() bool      { return h.Attributes&8 != 0 }
func (h BatchHeader) IsTransactional() bool    { return h.Attributes&16 != 0 }
func (h BatchHeader) IsControl() bool          { return h.Attributes&32 != 0 }
func (h BatchHeader) LastSequence() int32      { panic("pending") } // -1 without producer id; wraps at int32
func (h BatchHeader) HasProducer() bool        { return h.ProducerID >= 0 }

// DecodeHeader decodes the 61 bytes; structure only.
func DecodeHeader(b []byte) (BatchHeader, error) { panic("pending") }

// Limits: zero MaxBatchBytes = no limit; the timestamp window is checked unless LogAppendTime is set.
type Limits struct {
	MaxBatchBytes        int32
	NowMs                int64
	TimestampBeforeMaxMs int64 // <= 0 or MaxInt64: no limit
	TimestampAfterMaxMs  int64
	LogAppendTime        bool // the topic stamps records itself: no window check
	AllowControl         bool // internal writers only (transaction markers)
	RequireKey           bool // compacted topic: uncompressed batches are checked for null keys
}

func ValidateBatch(b []byte, lim Limits) (BatchHeader, error) { panic("pending") }
func AssignOffsets(b []byte, base Offset, epoch int32)        { panic("pending") }
func SetLogAppendTime(b []byte, ms int64)                     { panic("pending") }
func CutBatches(buf []byte, from Offset, maxBytes int64, bound Offset) (start, end int, next Offset, err error) {
	panic("pending")
}

// ScanBuffer is memory that also suits O_DIRECT (4096-aligned), n rounded up to 4096.
func ScanBuffer(n int) []byte { panic("pending") }
func Scan(f vfs.File, pos, end int64, buf []byte, fn func(pos int64, h BatchHeader, full []byte) error) error {
	panic("pending")
}

type Options struct {
	SegmentBytes       int32 // default 1 GiB
	IndexIntervalBytes int32 // default 4096
	IndexBytes         int32 // default 10 MiB: cap of .index (and 1.5x for .timeindex)
	PreallocateBytes   int64 // step; default 16 MiB, < 0: never
}

func (o Options) Validate() error { panic("pending") }

type Meta struct {
	Base, Next         Offset
	SizeBytes          int64
	MaxTimestampMs     int64 // -1: no record, or not yet read from the time index of a sealed segment (see Reader.MaxTimestamp)
	MaxTimestampOffset Offset
	Sealed             bool
}

// Writer: one appender. Append, Seal, Close, CheckpointIndex are not concurrent with each other; SyncData may run
// concurrently with Append (it covers what was appended before it began). Getters are safe anywhere.
type Writer struct{}

func Create(fs vfs.FS, dir string, base Offset, opt Options, cache *FileCache) (*Writer, error) {
	panic("pending")
}

// OpenWriter opens the last segment after a clean shutdown: trusts its index files (sanity-checked; rebuilt when wrong).
func OpenWriter(fs vfs.FS, dir string, base Offset, opt Options, cache *FileCache) (*Writer, error) {
	panic("pending")
}
func (w *Writer) Append(b []byte, h BatchHeader) (pos int64, err error) { panic("pending") }

// Fits tells whether a batch may go into this segment (size, relative offset, index); an empty segment takes any.
func (w *Writer) Fits(h BatchHeader) bool { panic("pending") }
func (w *Writer) Base() Offset            { panic("pending") }
func (w *Writer) Next() Offset            { panic("pending") }
func (w *Writer) Size() int64             { panic("pending") }
func (w *Writer) FirstTimestamp() int64   { panic("pending") } // of the first batch (max timestamp of it), -1 empty; rolling by time
func (w *Writer) MaxTimestamp() int64     { panic("pending") }
func (w *Writer) IndexFull() bool         { panic("pending") }
func (w *Writer) File() vfs.File          { panic("pending") } // for write-back only
func (w *Writer) Reader() *Reader         { panic("pending") } // the one shared view of this segment; stays valid, and becomes sealed, at Seal
func (w *Writer) SyncData() error         { panic("pending") }
func (w *Writer) CheckpointIndex() error  { panic("pending") } // writes the index entries so far, unsynced: shortens the next recovery
func (w *Writer) Seal() (Meta, error)     { panic("pending") } // final index entries, syncs log and indexes, releases preallocation
func (w *Writer) Close(clean bool) error  { panic("pending") } // retires the reader; clean: as Seal but the segment stays the active one on disk

type Bound struct {
	Offset Offset
	Pos    int64 // byte position of Offset in this segment when known; < 0: unknown or in a later segment
}
type Extent struct {
	Pos, Len int64
	First    Offset // base offset of the first batch
	Next     Offset // offset after the last batch; 0 = unknown
}

type Reader struct{}

// Sealed describes what the listing and the next segment's name tell about a sealed segment.
type Sealed struct {
	Base, Next Offset // Next: base of the following segment
	SizeBytes  int64
}

func OpenSealed(fs vfs.FS, dir string, s Sealed, cache *FileCache) (*Reader, error) { panic("pending") }

func (r *Reader) Acquire() bool                                { panic("pending") }
func (r *Reader) Release()                                     { panic("pending") }
func (r *Reader) Retire(teardown func()) bool                  { panic("pending") } // false: was retired before
func (r *Reader) Meta() Meta                                   { panic("pending") }
func (r *Reader) MaxTimestamp() (int64, Offset, error)         { panic("pending") } // reads the time index's last entry on first use
func (r *Reader) FS() vfs.FS                                   { panic("pending") }
func (r *Reader) Dir() string                                  { panic("pending") }
func (r *Reader) LogName() string                              { panic("pending") }
func (r *Reader) File() (vfs.File, error)                      { panic("pending") }
func (r *Reader) ColdFile() (vfs.File, error)                  { panic("pending") } // caller closes
func (r *Reader) DirectFile() (vfs.File, error)                { panic("pending") } // caller closes
func (r *Reader) Floor(from Offset) (int64, error)             { panic("pending") }
func (r *Reader) BatchBoundaryBefore(pos int64) (int64, error) { panic("pending") }
func (r *Reader) Find(from Offset, maxBytes int64, bound Bound, hint int64) (Extent, error) {
	panic("pending")
}
func (r *Reader) FindTime(ms int64) (pos int64, ok bool, err error) { panic("pending") }

// RebuildIndex distrusts the index of a sealed segment: reads the log (O_DIRECT where it can), writes both indexes anew.
func (r *Reader) RebuildIndex() error { panic("pending") }

// FileCache bounds the descriptors and the index memory of all sealed segments.
type FileCache struct{}
type FileCacheOptions struct {
	MaxOpenFiles  int   // default 4096
	MaxIndexBytes int64 // default 64 MiB
	// OnCorrupt, when set, hears of every damage found while reading (index rebuilt, bad range in a log).
	OnCorrupt func(*CorruptError)
}

func NewFileCache(opt FileCacheOptions) *FileCache { panic("pending") }
func (c *FileCache) Open() int                     { panic("pending") }
func (c *FileCache) Close() error                  { panic("pending") }

// SegmentFile is one segment found in a partition directory.
type SegmentFile struct {
	Base                   Offset
	SizeBytes              int64
	HasIndex, HasTimeIndex bool
}
type Listing struct {
	Segments      []SegmentFile // by base
	Snapshots     []Offset      // producer snapshots, ascending
	Leftovers     []string      // names (inside dir) with .tmp .migrating .deleted
	Strangers     []string      // names nobody here writes
	OrphanIndexes []string      // index files without a log
}

func ListDir(fs vfs.FS, dir string) (Listing, error) { panic("pending") }

// names
func LogName(base Offset) string       { panic("pending") }
func IndexName(base Offset) string     { panic("pending") }
func TimeIndexName(base Offset) string { panic("pending") }
func SnapshotName(off Offset) string   { panic("pending") }

const (
	DeletedSuffix   = ".deleted"
	TmpSuffix       = ".tmp"
	MigratingSuffix = ".migrating"
	QuarantineDir   = "quarantine"
)

// Recovery of the active segment after an unclean stop. Everything below recoveryPoint was durable.
type RecoverResult struct {
	Next         Offset
	SizeBytes    int64
	ScannedBytes int64
	CutBytes     int64           // torn tail removed
	Quarantined  string          // file that keeps cut bytes holding valid batches; "" none
	Corrupt      []*CorruptError // damage below the recovery point: kept and skipped
}

func Recover(fs vfs.FS, dir string, base, recoveryPoint Offset, opt Options, ps *ProducerState, nowMs int64, cache *FileCache) (RecoverResult, *Writer, error) {
	panic("pending")
}

type ProducerOptions struct {
	ExpirationMs int64 // default 86,400,000 (producer.id.expiration.ms)
	MaxProducers int   // default 200,000
}
type VerdictKind uint8

const (
	Accept VerdictKind = iota
	Duplicate
)

type Verdict struct {
	Kind        VerdictKind
	Base, Last  Offset // of the first append when Duplicate
	TimestampMs int64
}
type ProducerView struct {
	ProducerID       int64
	Epoch            int16
	CoordinatorEpoch int32
	LastSequence     int32
	LastTimestampMs  int64
	TxnFirstOffset   Offset // -1 none open
}

// ProducerState is not safe for concurrent use: the partition's append lock guards it.
type ProducerState struct{}

func NewProducerState(opt ProducerOptions) *ProducerState               { panic("pending") }
func (p *ProducerState) Check(h BatchHeader) (Verdict, error)           { panic("pending") }
func (p *ProducerState) Update(h BatchHeader, base Offset, nowMs int64) { panic("pending") } // nowMs: wall clock, for expiry
func (p *ProducerState) Expire(nowMs int64) int                         { panic("pending") }
func (p *ProducerState) End() Offset                                    { panic("pending") } // offset after the last batch seen
func (p *ProducerState) Len() int                                       { panic("pending") }
func (p *ProducerState) Views() []ProducerView                          { panic("pending") }
func (p *ProducerState) FirstOpenTxn() (Offset, bool)                   { panic("pending") }
func (p *ProducerState) Save(fs vfs.FS, dir string, at Offset) error    { panic("pending") } // durable `<at>.snapshot` and `<at>.lagoon-batches`
// LoadProducerState loads the newest usable snapshot at or below max (an empty state at offset 0 when there is none).
// Unusable ones are moved to quarantine/ and reported.
func LoadProducerState(fs vfs.FS, dir string, max Offset, nowMs int64, opt ProducerOptions) (*ProducerState, []*CorruptError, error) {
	panic("pending")
}

// RemoveSnapshots unlinks the snapshots (with sidecars) for which drop says so.
func RemoveSnapshots(fs vfs.FS, dir string, drop func(Offset) bool) error { panic("pending") }

// Replay feeds the headers of batches in r from offset ps.End() on to ps.
func Replay(r *Reader, ps *ProducerState, nowMs int64) error { panic("pending") }

// EpochCache is leader-epoch-checkpoint in memory. Safe for concurrent use.
type EpochCache struct{}
type EpochEntry struct {
	Epoch int32
	Start Offset
}

func LoadEpochCache(fs vfs.FS, dir string) (*EpochCache, error)                  { panic("pending") } // absent: empty
func (c *EpochCache) Assign(epoch int32, start Offset) (changed bool, err error) { panic("pending") } // durable before return
func (c *EpochCache) Latest() (EpochEntry, bool)                                 { panic("pending") }
func (c *EpochCache) EndOffset(epoch int32, logEnd Offset) (int32, Offset)       { panic("pending") } // OffsetForLeaderEpoch; -1,-1 unknown
func (c *EpochCache) EpochAt(off Offset) int32                                   { panic("pending") } // -1 unknown
func (c *EpochCache) TruncateFromStart(start Offset) error                       { panic("pending") }
func (c *EpochCache) TruncateFromEnd(end Offset) error                           { panic("pending") }
func (c *EpochCache) Entries() []EpochEntry                                      { panic("pending") }

// TopicPartition names one partition in a checkpoint.
type TopicPartition struct {
	Topic     string
	Partition int32
}

const (
	RecoveryPointFile = "recovery-point-offset-checkpoint"
	LogStartFile      = "log-start-offset-checkpoint"
	CleanShutdownFile = ".kafka_cleanshutdown"
)

func ReadCheckpoint(fs vfs.FS, name string) (map[TopicPartition]Offset, error)  { panic("pending") } // absent: empty
func WriteCheckpoint(fs vfs.FS, name string, m map[TopicPartition]Offset) error { panic("pending") }

func ReadPartitionMetadata(fs vfs.FS, dir string) (topicID [16]byte, err error) { panic("pending") } // fs.ErrNotExist when absent
func WritePartitionMetadata(fs vfs.FS, dir string, topicID [16]byte) error      { panic("pending") }

func ReadCleanShutdown(fs vfs.FS) (brokerEpoch int64, found bool, err error) { panic("pending") }
func WriteCleanShutdown(fs vfs.FS, brokerEpoch int64) error                  { panic("pending") }
func RemoveCleanShutdown(fs vfs.FS) error                                    { panic("pending") } // durable: before the first write after a start

// directory names
func PartitionDir(topic string, partition int32) string                      { panic("pending") }
func ParsePartitionDir(name string) (topic string, partition int32, ok bool) { panic("pending") }
