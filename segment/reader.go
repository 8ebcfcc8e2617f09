package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"lagoon/internal/vfs"
)

// Reader is the shared view of one segment, active or sealed. Its methods are safe for concurrent use.
//
// Whoever uses one holds it acquired: Acquire, use, Release. The word below packs the number of users with two facts
// about the reader: retired (no new user, teardown follows the last Release) and closing (the file cache is taking the
// idle descriptor away). "Retired" and "in use" are separate, and Acquire can fail, so nobody gets a reader whose files
// are gone.
type Reader struct {
	fs      vfs.FS
	dir     string
	base    Offset
	logName string // relative to the FS
	cache   *FileCache

	word atomic.Uint64
	file atomic.Pointer[openFile] // nil: not open
	hot  atomic.Bool              // used since the file cache last looked

	act     atomic.Pointer[active] // nil: sealed
	sealed  atomic.Pointer[Meta]
	idx     atomic.Pointer[index]  // of a sealed segment, when loaded
	holes   atomic.Pointer[[]hole] // damage that reads step over; nil: none known
	scans   atomic.Uint32          // how often the whole log was checked
	firstMs atomic.Int64           // 1 + FirstTimestamp, 0: not read yet
	// timeless: no record of the sealed segment has a time, as far as its time index says, or said when it was sealed.
	timeless atomic.Bool
	// noAborted: the sealed segment holds no marker that aborted a transaction.
	noAborted atomic.Bool
	// noTimes is timeless by the log itself.
	noTimes atomic.Bool
	healMu  sync.Mutex // one load or rebuild of the index at a time

	names names // under which the files are found now

	mu       sync.Mutex // opening and closing the descriptor, retiring
	retiring bool
	teardown func()
}

const (
	retiredBit = 1 << 63
	closingBit = 1 << 62
	usersMask  = closingBit - 1
)

// openFile gives the interface value an address that can be swapped atomically.
type openFile struct{ vfs.File }

func newReader(fsys vfs.FS, dir string, base Offset, cache *FileCache) *Reader {
	return &Reader{fs: fsys, dir: dir, base: base, logName: inDir(dir, LogName(base)), cache: cache}
}

// Sealed is what the listing and the following segment's name tell about a sealed segment.
type Sealed struct {
	Base, Next Offset // Next: base of the following segment
	SizeBytes  int64
	NoAborted  bool // there is no .txnindex
}

// OpenSealed makes the Reader of a sealed segment. It only asks for the file's size: descriptor and index are opened
// on first use, the index is then checked, and rebuilt from the log (and reported to the cache's OnCorrupt) when wrong.
// Errors: *CorruptError when the file does not have the expected size; ErrOutOfRange.
func OpenSealed(fsys vfs.FS, dir string, s Sealed, cache *FileCache) (*Reader, error) {
	return openSealed(fsys, dir, s, "", cache)
}

// openSealed is OpenSealed for files that have a suffix behind their names.
func openSealed(fsys vfs.FS, dir string, s Sealed, suffix string, cache *FileCache) (*Reader, error) {
	r := newReader(fsys, dir, s.Base, cache)
	r.names.log, r.names.index = suffix, suffix
	if s.Base < 0 || s.Next < s.Base || s.SizeBytes < 0 || s.SizeBytes > maxSegmentBytes {
		return nil, fmt.Errorf("open %s: offsets %d to %d, %d bytes: %w", r.logName, s.Base, s.Next, s.SizeBytes, ErrOutOfRange)
	}
	entry, err := fsys.Stat(r.logName + suffix)
	if err != nil {
		return nil, fmt.Errorf("open sealed segment: %w", err)
	}
	if !entry.Regular || entry.Size != s.SizeBytes {
		return nil, &CorruptError{Path: r.logName, Pos: -1, Want: s.SizeBytes, Got: entry.Size, Err: errors.New("size in bytes")}
	}
	r.noAborted.Store(s.NoAborted)
	r.sealed.Store(&Meta{Base: s.Base, Next: s.Next, SizeBytes: s.SizeBytes, MaxTimestampMs: noTimestamp,
		MaxTimestampOffset: s.Base, Sealed: true})
	return r, nil
}

// becomeSealed turns the reader of the active segment into that of a sealed one; its users notice nothing.
func (r *Reader) becomeSealed(meta Meta, idx *index) {
	r.sealed.Store(&meta)
	r.timeless.Store(meta.MaxTimestampMs < 0)
	r.noAborted.Store(len(idx.aborted) == 0 && idx.txnFault == nil)
	r.noTimes.Store(meta.MaxTimestampMs < 0)
	r.idx.Store(idx)
	r.act.Store(nil)
	r.cache.addFile(r)
	r.cache.addIndex(r, idx.bytes())
}

// Acquire makes the caller a user, so that descriptor and files stay, until Release. False: the reader is retired and
// the caller must look up the segment again.
func (r *Reader) Acquire() bool {
	for {
		w := r.word.Load()
		if w&retiredBit != 0 {
			return false
		}
		if r.word.CompareAndSwap(w, w+1) {
			return true
		}
	}
}

// Release ends one Acquire. The last user of a retired reader runs the teardown.
func (r *Reader) Release() {
	w := r.word.Add(^uint64(0))
	if w&usersMask == usersMask {
		panic("segment: Release without Acquire")
	}
	if w&retiredBit != 0 && w&usersMask == 0 {
		r.close()
	}
}

// Retire lets nobody acquire the reader any more and runs teardown (may be nil) exactly once, when the last user is
// gone: at once, or on the goroutine of the last Release. The descriptor is closed before. False: it was retired
// before, and teardown will not run.
func (r *Reader) Retire(teardown func()) bool {
	r.mu.Lock()
	if r.retiring {
		r.mu.Unlock()
		return false
	}
	r.retiring, r.teardown = true, teardown
	r.mu.Unlock()
	if old := r.word.Or(retiredBit); old&usersMask == 0 {
		r.close()
	}
	return true
}

// close runs once: the users of a retired reader only become fewer, and exactly one call sees them reach 0.
func (r *Reader) close() {
	r.mu.Lock()
	f := r.file.Swap(nil)
	r.mu.Unlock()
	r.cache.forget(r)
	r.idx.Store(nil)
	if f != nil {
		r.cache.closed(f.Close())
	}
	if r.teardown != nil {
		r.teardown()
	}
}

// closeIdle closes the descriptor unless somebody uses the reader. For the file cache.
func (r *Reader) closeIdle() bool {
	r.mu.Lock()
	// From 0 users to closing in one step: whoever acquires from here on finds the bit set or the descriptor gone.
	if r.act.Load() != nil || !r.word.CompareAndSwap(0, closingBit) {
		r.mu.Unlock()
		return false
	}
	f := r.file.Swap(nil)
	r.word.And(^uint64(closingBit))
	r.mu.Unlock()
	if f != nil {
		r.cache.closed(f.Close())
	}
	return true
}

// File is the shared buffered descriptor, opened when needed. It is valid until the caller's Release.
// Errors: ErrClosed for a caller that did not acquire; the file system's.
func (r *Reader) File() (vfs.File, error) {
	if r.word.Load()&closingBit == 0 {
		if f := r.file.Load(); f != nil {
			if !r.hot.Load() {
				r.hot.Store(true)
			}
			return f.File, nil
		}
	}
	return r.openFile()
}

func (r *Reader) openFile() (vfs.File, error) {
	r.mu.Lock() // waits for a closing that is under way
	if f := r.file.Load(); f != nil {
		r.mu.Unlock()
		return f.File, nil
	}
	if r.word.Load()&usersMask == 0 {
		r.mu.Unlock()
		return nil, fmt.Errorf("open %s: not acquired: %w", r.logName, ErrClosed)
	}
	f, err := r.open(vfs.ReadOnly)
	if err != nil {
		r.mu.Unlock()
		return nil, fmt.Errorf("open segment: %w", err)
	}
	r.file.Store(&openFile{f})
	r.mu.Unlock()
	r.cache.addFile(r)
	return f, nil
}

// Ready tells whether File, Floor and BatchBoundaryBefore can answer without a device: the descriptor is open and the
// index in memory. The active segment always is ready. A hint: the file cache may take either away at any time.
func (r *Reader) Ready() bool {
	return r.act.Load() != nil || r.idx.Load() != nil && r.file.Load() != nil
}

// Indexed tells whether Floor and BatchBoundaryBefore can answer without a device. A hint, as Ready is.
func (r *Reader) Indexed() bool { return r.act.Load() != nil || r.idx.Load() != nil }

// Prepare makes the reader Ready. It may block on the device for as long as that takes. The caller has it acquired.
// Errors: those of File, and of loading and rebuilding the index.
func (r *Reader) Prepare() error {
	if _, err := r.File(); err != nil {
		return err
	}
	_, err := r.lookup()
	return err
}

// ColdFile opens a buffered descriptor of the caller's own for a lagging reader: advice to the kernel belongs to one
// open file description. The caller closes it, before Release.
func (r *Reader) ColdFile() (vfs.File, error) { return r.open(vfs.ReadOnly) }

// DirectFile opens an O_DIRECT descriptor of the caller's own. The caller closes it, before Release.
// Errors: vfs.ErrDirectUnsupported, also for the active segment, whose dirty pages would be flushed by every read.
func (r *Reader) DirectFile() (vfs.File, error) {
	if r.act.Load() != nil {
		return nil, fmt.Errorf("open %s: active segment: %w", r.logName, vfs.ErrDirectUnsupported)
	}
	return r.open(vfs.Direct)
}

// FS is the tier the segment lies in.
func (r *Reader) FS() vfs.FS { return r.fs }

// Dir is the partition directory, relative to FS.
func (r *Reader) Dir() string { return r.dir }

// LogName is the log file, relative to FS.
func (r *Reader) LogName() string { return r.logName }

// Meta is the segment as it is now.
func (r *Reader) Meta() Meta {
	if a := r.act.Load(); a != nil {
		return a.snapshot()
	}
	return *r.sealed.Load()
}

// KnownTimestamps are FirstTimestamp and MaxTimestamp as far as they can be told without a device.
func (r *Reader) KnownTimestamps() (first, newest int64, firstKnown, newestKnown bool) {
	if a := r.act.Load(); a != nil {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.firstMs, a.meta.MaxTimestampMs, true, true
	}
	read := r.firstMs.Load()
	newest = r.Meta().MaxTimestampMs
	return read - 1, newest, read != 0, newest >= 0 || r.timeless.Load()
}

// FirstTimestamp is the largest timestamp in ms of the segment's first batch, -1 without any. It reads the header through the page cache
// the first time. The caller has r acquired.
func (r *Reader) FirstTimestamp() (ms int64, err error) {
	if a := r.act.Load(); a != nil {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.firstMs, nil
	}
	if ms := r.firstMs.Load(); ms != 0 {
		return ms - 1, nil
	}
	meta := r.Meta()
	f, err := r.File()
	if err != nil {
		return 0, err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)
	h, _, ok, err := w.header(0, r.base)
	if err != nil {
		return 0, err
	}
	ms = noTimestamp
	if ok {
		ms = max(h.MaxTimestamp, noTimestamp)
	}
	r.firstMs.Store(ms + 1)
	return ms, nil
}

// MaxTimestamp is the largest record timestamp in ms and the last offset of its batch; -1 and Base when no record has
// a time. For a sealed segment it comes from the last entry of the time index, read on first use (12 bytes). It is a
// hint for planning; before deleting by it, call VerifyMaxTimestamp.
func (r *Reader) MaxTimestamp() (ms int64, at Offset, err error) {
	meta := r.Meta()
	if !meta.Sealed || meta.MaxTimestampMs >= 0 || r.noTimes.Load() {
		return meta.MaxTimestampMs, meta.MaxTimestampOffset, nil
	}
	scans := r.scans.Load()
	last, err := r.lastTimeEntry()
	if isCorrupt(err) {
		if err = r.heal(err, scans); err == nil {
			meta = r.Meta()
			return meta.MaxTimestampMs, meta.MaxTimestampOffset, nil
		}
	}
	if err != nil {
		return 0, 0, err
	}
	if last.ms < 0 {
		r.timeless.Store(true)
	} else {
		r.setMaxTimestamp(last.ms, r.base+Offset(last.rel))
	}
	return last.ms, r.base + Offset(last.rel), nil
}

func (r *Reader) setMaxTimestamp(ms int64, at Offset) {
	meta := *r.sealed.Load()
	meta.MaxTimestampMs, meta.MaxTimestampOffset = ms, at
	r.sealed.Store(&meta)
}

func (r *Reader) lastTimeEntry() (t timeEntry, err error) {
	err = r.byName(func(_, index string) error {
		t, err = r.lastTimeEntryOf(inDir(r.dir, TimeIndexName(r.base)+index))
		return err
	})
	return t, err
}

func (r *Reader) lastTimeEntryOf(name string) (timeEntry, error) {
	entry, err := r.fs.Stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = &CorruptError{Path: name, Pos: -1, Err: err}
		}
		return timeEntry{}, err
	}
	if entry.Size == 0 {
		return timeEntry{ms: noTimestamp}, nil
	}
	if entry.Size%timeEntrySize != 0 || entry.Size > maxIndexFileBytes {
		return timeEntry{}, &CorruptError{Path: name, Pos: -1, Err: fmt.Errorf("%d bytes are no multiple of %d", entry.Size, timeEntrySize)}
	}
	f, err := r.fs.Open(name, vfs.ReadOnly)
	if err != nil {
		return timeEntry{}, err
	}
	var b [timeEntrySize]byte
	_, err = f.ReadAt(b[:], entry.Size-timeEntrySize)
	if err = errors.Join(err, f.Close()); err != nil {
		return timeEntry{}, err
	}
	t := timeEntry{ms: int64(binary.BigEndian.Uint64(b[:])), rel: binary.BigEndian.Uint32(b[8:])}
	if offset := r.base + Offset(t.rel); t.ms < 0 || offset >= r.sealed.Load().Next {
		return timeEntry{}, &CorruptError{Path: name, Pos: entry.Size - timeEntrySize, Err: fmt.Errorf("entry (%d ms, %d) cannot be", t.ms, t.rel)}
	}
	return t, nil
}
