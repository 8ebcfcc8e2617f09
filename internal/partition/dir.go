package partition

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// DirSpec is one log directory: a tier has one or more.
type DirSpec struct {
	// Tier names the tier; directories with the same name form one tier. Tiers are ordered hot to cold by first mention.
	Tier string
	FS   vfs.FS
	// Device limits the cold work on the device below this directory.
	Device admission.DeviceConfig
	// ReserveBytes is the free space below which appends get ErrDiskFull; 0 means 64 MiB or 1 % of the file system,
	// whichever is less.
	ReserveBytes int64
	// SyncWorkers bounds concurrent syncs, 0 means 32, on a rotating disk 64: a window takes in all files that are due. On ext4
	// concurrent syncs share commits of its journal:
	// one by one, 100 files take three times as long as 16 at once, and 40 batches on their way to 64 files are a fifth
	// faster with 32 or 40 (decision 2). Each blocked sync pins an OS thread.
	SyncWorkers int
	// JournalBytes is the size of each of the two files of the commit journal, 0 for none: synced acks wait for one sequential write, and
	// segment files are synced later. What an earlier run has left in a journal is replayed in any case.
	JournalBytes int64
	// Rotating: a seek costs as much as reading a megabyte, and writes share the head with reads.
	Rotating bool
	// MaxUsedBytes caps what migration may put here, 0: no cap. High and Low are watermarks as shares of the capacity.
	MaxUsedBytes int64
	High, Low    float64
	// Keep is the age after which sealed segments leave this tier for the next; 0: by watermark and topic config only.
	Keep time.Duration
}

// logDir is a log directory at work.
type logDir struct {
	spec    DirSpec
	name    string // unique: the tier, and a number from its second directory on
	index   int    // position in Store.dirs
	rank    int    // tier rank, 0 is the hottest
	nth     int    // among the directories of its tier
	log     *slog.Logger
	cold    *coldQueue
	moves   movePace
	commit  committer         // hottest tier only
	journal *journalCommitter // the same, nil without
	gate    *syncGate         // nil without
	lock    io.Closer         // nil: it did not answer at the start
	device  uint64            // of the file system, as cachectl names its ladder
	names   dirNames
	doomed  []string // directories of deleted partitions that the last run left

	hangs      atomic.Bool // its device has not answered for stallAfter: nothing new is placed there
	incomplete atomic.Bool // it has a partition that could not be opened: what that holds is not known

	failure    atomic.Pointer[dirFailure]
	full       atomic.Bool
	sealed     atomic.Bool  // hottest tier only: since the last checkpoint, and the next second writes one
	partitions atomic.Int64 // whose home this is
	used       atomic.Int64 // bytes of segments, kept by seal, publish and delete
	written    atomic.Int64 // bytes that migrations and compactions wrote
	harm       dirHarm
	readsOnWay manyOnWay
	opensOnWay manyOnWay
	workOnWay  manyOnWay
	asksOnWay  manyOnWay        // of Store.ask
	stalled    [numIOKinds]bool // as Store.watchStalls has told
	fill       fillTrend
	lookups    chan struct{}          // semaphore
	reserved   atomic.Int64           // the low-water mark of free bytes, 0 before the first look
	errors     *prometheus.CounterVec // tier, op
	lastFile   atomic.Uint64          // names files to the device's queue
	onFence    func(*logDir, error)
	fenceMu    sync.Mutex
}

// dirFailure is why a directory is offline. It never changes once set: a failed sync is final.
type dirFailure struct {
	op  string
	err error
	at  time.Time
}

// fenced is nil while the directory works, else an error that is ErrFenced and names directory and cause.
func (d *logDir) fenced() error {
	f := d.failure.Load()
	if f == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %s: %w", ErrFenced, d.spec.FS.Root(), f.op, f.err)
}

// fence takes the directory offline for good and lets the store tell every partition in it. Only the first call counts.
func (d *logDir) fence(op string, err error) {
	d.fenceMu.Lock()
	first := d.failure.Load() == nil
	if first {
		d.failure.Store(&dirFailure{op: op, err: err, at: time.Now()})
	}
	d.fenceMu.Unlock()
	if first {
		d.noteError(op, err)
		d.log.Error("log directory fenced: its partitions are offline until a restart with a sound disk",
			"tier", d.spec.Tier, "path", d.spec.FS.Root(), "op", op, "err", err)
		d.onFence(d, err)
	}
}

// passing tells a want of descriptors: it is the process's, says nothing of the disk, and nothing was lost.
func passing(err error) bool { return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) }

// writeFailed sorts a failed write: a full disk is a state that passes, and so is a want of descriptors; anything else fences.
func (d *logDir) writeFailed(op string, err error) error {
	if passing(err) {
		return fmt.Errorf("log directory %s: %s: %w", d.spec.FS.Root(), op, err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		if !d.full.Swap(true) {
			d.log.Warn("log directory full: appends are refused until space is free", "tier", d.spec.Tier, "path", d.spec.FS.Root(), "op", op)
		}
		return fmt.Errorf("%w: %s: %s", ErrDiskFull, d.spec.FS.Root(), op)
	}
	d.fence(op, err)
	return d.fenced()
}

// writerFailed is writeFailed for a segment's writer: what it cannot take back fences, whatever the kernel calls it. A
// full disk that a sync reports (thin storage) has lost bytes like any other failed sync.
func (d *logDir) writerFailed(op string, w *segment.Writer, err error) error {
	if w.Err() != nil {
		d.fence(op, err)
		return d.fenced()
	}
	return d.writeFailed(op, err)
}

// reserve is the low-water mark of free bytes.
func (d *logDir) reserve(total int64) int64 {
	if d.spec.ReserveBytes > 0 {
		return d.spec.ReserveBytes
	}
	return min(64<<20, total/100)
}

// checkSpace samples free space and opens or closes the directory for appends. ok: it is known.
func (d *logDir) checkSpace() (free int64, ok bool) {
	u, err := d.spec.FS.Usage()
	if err != nil {
		return 0, false
	}
	reserve := d.reserve(u.TotalBytes)
	d.reserved.Store(reserve)
	low := u.FreeBytes < reserve
	if was := d.full.Swap(low); was == low {
		return u.FreeBytes, true
	}
	switch {
	case d.commit == nil && low: // migrations have a limit of their own
		d.log.Warn("log directory below its free-space reserve: nothing is compacted there until space is free",
			"tier", d.spec.Tier, "path", d.spec.FS.Root(), "free_bytes", u.FreeBytes, "reserve_bytes", reserve)
	case d.commit == nil:
		d.log.Info("log directory has space again: compaction resumed", "tier", d.spec.Tier, "path", d.spec.FS.Root(), "free_bytes", u.FreeBytes)
	case !low:
		d.log.Info("log directory has space again: appends resumed", "tier", d.spec.Tier, "path", d.spec.FS.Root(), "free_bytes", u.FreeBytes)
	default:
		d.log.Warn("log directory below its free-space reserve: appends are refused until space is free",
			"tier", d.spec.Tier, "path", d.spec.FS.Root(), "free_bytes", u.FreeBytes, "reserve_bytes", reserve)
	}
	return u.FreeBytes, true
}
