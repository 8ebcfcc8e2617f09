package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"lagoon/internal/vfs"
)

// Writer appends to the last segment of a partition and owns its writing descriptor.
//
// Append, CheckpointIndex, Seal and Close are one at a time; SyncData and the getters may run beside them.
// Seal and SyncData of an older segment may run while the next Writer already appends.
type Writer struct {
	fs  vfs.FS
	dir string
	opt Options
	f   vfs.File
	act *active
	r   *Reader

	allocated int64 // bytes reserved from the start of the file
	noAlloc   bool  // the file system cannot

	checkpointed struct{ entries, times, bytes int } // what the index checkpoint file holds

	syncMu    sync.Mutex // one SyncData at a time: the directory is synced once
	dirSynced bool
	failed    atomic.Pointer[error] // sticky
	done      atomic.Bool           // sealed or closed
}

// Create makes the empty segment at base and opens it for appending. The new name is durable after the first SyncData.
// Errors: fs.ErrExist when there is a log at base; the file system's.
func Create(fsys vfs.FS, dir string, base Offset, opt Options, cache *FileCache) (*Writer, error) {
	if base < 0 {
		return nil, fmt.Errorf("create segment: base offset %d: %w", base, ErrOutOfRange)
	}
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	// That of a segment at base that was set aside, or whose removal a power cut took back, is not about this one.
	if err := removeIndexCheckpoint(fsys, dir, base); err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	f, err := fsys.Create(inDir(dir, LogName(base)))
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	return newWriter(fsys, dir, opt, f, newActive(base), cache), nil
}

func newWriter(fsys vfs.FS, dir string, opt Options, f vfs.File, act *active, cache *FileCache) *Writer {
	w := &Writer{fs: fsys, dir: dir, opt: opt.withDefaults(), f: f, act: act}
	w.r = newReader(fsys, dir, act.meta.Base, cache)
	w.r.act.Store(act)
	w.r.file.Store(&openFile{f})
	return w
}

// Base is the segment's first offset.
func (w *Writer) Base() Offset { return w.r.base }

// Next is the offset after the last record appended.
func (w *Writer) Next() Offset { return w.act.snapshot().Next }

// Size is the number of log bytes appended.
func (w *Writer) Size() int64 { return w.act.snapshot().SizeBytes }

// MaxTimestamp is the largest record timestamp in ms, -1 without any.
func (w *Writer) MaxTimestamp() int64 { return w.act.snapshot().MaxTimestampMs }

// FirstTimestamp is the max timestamp of the first batch, which rolling by time counts from; -1 while empty.
func (w *Writer) FirstTimestamp() int64 {
	w.act.mu.RLock()
	defer w.act.mu.RUnlock()
	return w.act.firstMs
}

// File is the writing descriptor, for write-back only.
func (w *Writer) File() vfs.File { return w.f }

// Reader is the one shared view of this segment. At Seal it becomes that of the sealed segment.
func (w *Writer) Reader() *Reader { return w.r }

// IndexFull tells that an index reached its size limit, so that the segment must be rolled. The last slot of the time
// index is kept for the entry that sealing adds.
func (w *Writer) IndexFull() bool {
	w.act.mu.RLock()
	defer w.act.mu.RUnlock()
	return len(w.act.idx.entries) >= int(w.opt.IndexBytes)/indexEntrySize ||
		len(w.act.idx.times) >= int(w.opt.IndexBytes)/timeEntrySize-1
}

// Fits tells whether the batch may go into this segment: size, 32-bit relative offset, index. An empty segment takes
// any batch that a position can address.
func (w *Writer) Fits(h BatchHeader) bool {
	size := w.Size()
	if h.LastOffset()-w.r.base > math.MaxInt32 || size+h.SizeBytes() > maxSegmentBytes {
		return false
	}
	return size == 0 || (size+h.SizeBytes() <= int64(w.opt.SegmentBytes) && !w.IndexFull())
}

// Append writes the whole batch b, whose header is h with offsets assigned, with one write at the end, and gives its
// position. Readers see it at once; it is durable after a SyncData that began later. b is not kept.
//
// When the write fails nothing was appended and the next Append overwrites what came through; if what came through
// cannot be cut off, the error is sticky. Errors: ErrFull, ErrSealed, ErrClosed, ErrOutOfRange for offsets that go
// back, the sticky error of a failed sync.
func (w *Writer) Append(b []byte, h BatchHeader) (pos int64, err error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	meta := w.act.snapshot()
	switch {
	case int64(len(b)) != h.SizeBytes() || Offset(binary.BigEndian.Uint64(b)) != h.BaseOffset:
		return 0, fmt.Errorf("append to %s: header (offset %d, %d bytes) is not that of the batch: %w",
			w.r.logName, h.BaseOffset, h.SizeBytes(), ErrCorruptBatch)
	case h.BaseOffset < meta.Next:
		return 0, fmt.Errorf("append to %s: offset %d, next is %d: %w", w.r.logName, h.BaseOffset, meta.Next, ErrOutOfRange)
	case !w.Fits(h):
		return 0, fmt.Errorf("append to %s: %w", w.r.logName, ErrFull)
	}
	pos = meta.SizeBytes
	w.reserve(pos + int64(len(b)))
	if _, err := w.f.WriteAt(b, pos); err != nil {
		err = fmt.Errorf("append to %s: %w", w.r.logName, err)
		// What came through must not stay: behind a shorter batch it could look like one.
		if cut := w.f.Truncate(pos); cut != nil {
			return 0, w.fail(errors.Join(err, cut))
		}
		w.allocated = 0
		return 0, err
	}
	w.act.note(h, w.opt.IndexIntervalBytes)
	return pos, nil
}

// minPreallocate is the first step: a partition that is hardly written must not reserve much (guess).
const minPreallocate = 256 << 10

// reserve keeps disk space allocated ahead of the tail: a write then changes no metadata but the size, and a full disk
// shows early. The step grows with the file up to PreallocateBytes. Failing to reserve is no error: the write itself
// will tell.
func (w *Writer) reserve(end int64) {
	if w.noAlloc || w.opt.PreallocateBytes < 0 || end <= w.allocated {
		return
	}
	step := min(w.opt.PreallocateBytes, max(minPreallocate, end))
	upTo := max(end, min((end/step+1)*step, int64(w.opt.SegmentBytes)))
	if err := w.f.Allocate(w.allocated, upTo-w.allocated); err != nil {
		w.noAlloc = errors.Is(err, errors.ErrUnsupported)
		return
	}
	w.allocated = upTo
}

// Err is the sticky error of a failed sync, or of a failed write that could not be taken back; nil while there is none.
func (w *Writer) Err() error {
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

func (w *Writer) usable() error {
	if err := w.Err(); err != nil {
		return err
	}
	if w.done.Load() {
		return ErrSealed
	}
	return nil
}

// Fail makes an error sticky as that of a failed sync is: write-back that was asked for by others than SyncData has told it, and
// SyncData would not see it.
func (w *Writer) Fail(err error) { _ = w.fail(err) }

// fail makes the first error sticky and gives it.
func (w *Writer) fail(err error) error {
	w.failed.CompareAndSwap(nil, &err)
	return *w.failed.Load()
}

// SyncData makes everything appended before the call durable. The first one also syncs the directory, so that the file
// is found after a crash. A failure is final: this and every later call of SyncData, Append, Seal and Close return it,
// and the kernel is not asked again, because it may have dropped the pages. But for EMFILE and ENFILE: there was no descriptor to sync the
// directory with, and it may be tried again.
func (w *Writer) SyncData() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	if w.done.Load() {
		return nil // Seal and Close synced everything
	}
	return w.syncLocked()
}

// SyncRange makes the bytes of [from, to) durable; what was appended behind them is not waited for. The first sync of a new segment is a
// SyncData. Failures are those of SyncData.
func (w *Writer) SyncRange(from, to int64) error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	if w.done.Load() {
		return nil // Seal and Close synced everything
	}
	if !w.dirSynced {
		return w.syncLocked()
	}
	if err := w.f.SyncRange(from, to-from); err != nil {
		return w.fail(fmt.Errorf("sync %s: %w", w.r.logName, err))
	}
	return nil
}

func (w *Writer) syncLocked() error {
	if err := w.f.SyncData(); err != nil {
		return w.fail(fmt.Errorf("sync %s: %w", w.r.logName, err))
	}
	if !w.dirSynced {
		if err := w.fs.SyncDir(w.dir); errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return fmt.Errorf("sync %s: %w", w.r.logName, err) // the disk was not asked
		} else if err != nil {
			return w.fail(fmt.Errorf("sync %s: %w", w.r.logName, err))
		}
		w.dirSynced = true
	}
	return nil
}

// CheckpointIndex writes the index entries that are new since the last call to the index checkpoint file, unsynced.
// Recovery then need not walk the whole segment; it never relies on it. Call it when the recovery point is saved.
func (w *Writer) CheckpointIndex() error {
	if err := w.usable(); err != nil {
		return err
	}
	c := &w.checkpointed
	if len(w.act.idx.entries) == c.entries { // only this goroutine appends to idx
		return nil
	}
	frame := w.act.idx.appendFrame(nil, c.entries, c.times)
	name := inDir(w.dir, fileName(w.r.base, indexCheckpointSuffix))
	if err := appendFile(w.fs, name, frame, int64(c.bytes)); err != nil {
		return fmt.Errorf("checkpoint index: %w", err)
	}
	c.entries, c.times, c.bytes = len(w.act.idx.entries), len(w.act.idx.times), c.bytes+len(frame)
	return nil
}

// appendFile writes b at off of the file name; off 0 begins a new file.
func appendFile(fsys vfs.FS, name string, b []byte, off int64) (err error) {
	var f vfs.File
	if off == 0 {
		f, err = createAnew(fsys, name)
	} else {
		f, err = fsys.Open(name, vfs.ReadWrite)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

// createAnew creates name, removing what is there.
func createAnew(fsys vfs.FS, name string) (vfs.File, error) {
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err := fsys.Remove(name); err != nil {
			return nil, err
		}
		return fsys.Create(name)
	}
	return f, err
}

// Seal ends appending: it releases the preallocated space, syncs the log, writes both index files durably and turns the
// Reader into that of a sealed segment. It may run while the next segment's Writer appends. Sealing again is no error.
// After an error the segment stays readable and unsealed; a failed sync is sticky, anything else may be tried again.
func (w *Writer) Seal() (Meta, error) {
	if w.done.Load() {
		return w.r.Meta(), nil
	}
	if err := w.finish(); err != nil {
		return Meta{}, fmt.Errorf("seal %s: %w", w.r.logName, err)
	}
	meta := w.act.snapshot()
	meta.Sealed = true
	w.r.becomeSealed(meta, &w.act.idx)
	return meta, nil
}

// Close ends the Writer without sealing and retires its Reader; the descriptor closes when the last user released it.
// clean writes the index files so that the next start trusts them (OpenWriter); otherwise nothing more is written and
// the next start must Recover. After Seal it does nothing: the Reader lives on.
func (w *Writer) Close(clean bool) error {
	if w.r.act.Load() == nil {
		return nil
	}
	var err error
	if clean && !w.done.Load() {
		err = w.finish()
	}
	w.done.Store(true)
	w.r.Retire(nil)
	if err != nil {
		return fmt.Errorf("close %s: %w", w.r.logName, err)
	}
	return nil
}

// finish brings everything about this segment to stable storage.
func (w *Writer) finish() error {
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	w.act.finishTimes()
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	if err := w.f.Truncate(w.act.snapshot().SizeBytes); err != nil {
		return err
	}
	w.allocated = 0
	if err := w.syncLocked(); err != nil {
		return err
	}
	if err := writeIndexFiles(w.fs, w.dir, "", &w.act.idx); err != nil {
		return err
	}
	if w.act.idx.txnFault == nil { // a damaged file is kept until it is mended
		if err := writeTxnIndex(w.fs, w.dir, w.r.base, "", w.act.idx.aborted); err != nil {
			return err
		}
	}
	if err := removeIndexCheckpoint(w.fs, w.dir, w.r.base); err != nil {
		return err
	}
	w.done.Store(true)
	return nil
}
