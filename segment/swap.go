package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"lagoon/internal/vfs"
)

// Cleaned is the segment that takes the place of one or more adjacent sealed ones (compaction). It is written beside them and swapped
// in by steps that a crash may interrupt anywhere:
//
//	step      files                                                     crash after it: what FinishSwaps does
//	Append    BASE.log.cleaned                                          removes it
//	Commit    BASE.index.cleaned, BASE.timeindex.cleaned, maybe         removes them
//	          BASE.txnindex.cleaned; all synced;
//	          renamed to .swap, indexes first, directory synced
//	          BASE.log.cleaned renamed to .swap  ** commit point **     power cut: as before, or as after
//	          directory synced                                          does the steps of Settle
//	Settle    old segments of [BASE, next) unlinked, index files        does them again
//	          renamed, directory synced
//	          BASE.log.swap renamed, directory synced                   nothing is left to do
//
// So at every moment the old segments are whole, or the new one is. How far it reaches is told by its last batch: the caller sees to it
// that this ends where the last old segment does.
//
// One goroutine at a time. Memory: what was appended since the last Flush, and the index.
type Cleaned struct {
	fs   vfs.FS
	dir  string
	opt  Options
	base Offset
	f    vfs.File
	act  *active
	buf  []byte
	pos  int64 // of buf[0] in the file
	txns bool  // there is a .txnindex
	last bool  // Commit has come to the rename that counts
}

// CreateCleaned begins a segment at base, removing what an earlier attempt left.
func CreateCleaned(fsys vfs.FS, dir string, base Offset, opt Options) (*Cleaned, error) {
	f, err := createAnew(fsys, inDir(dir, LogName(base)+CleanedSuffix))
	if err != nil {
		return nil, fmt.Errorf("create cleaned segment: %w", err)
	}
	return &Cleaned{fs: fsys, dir: dir, opt: opt.withDefaults(), base: base, f: f, act: newActive(base)}, nil
}

// Append adds a whole batch with header h; b is copied. Errors: ErrOutOfRange for offsets that go back or too far; ErrFull.
func (c *Cleaned) Append(b []byte, h BatchHeader) error {
	meta := c.act.snapshot()
	switch {
	case h.BaseOffset < meta.Next || h.LastOffset()-c.base > math.MaxInt32:
		return fmt.Errorf("append to cleaned segment %d: offsets %d to %d behind %d: %w", c.base, h.BaseOffset, h.LastOffset(), meta.Next, ErrOutOfRange)
	case meta.SizeBytes+h.SizeBytes() > maxSegmentBytes:
		return fmt.Errorf("append to cleaned segment %d: %w", c.base, ErrFull)
	}
	c.buf = append(c.buf, b...)
	c.act.note(h, c.opt.IndexIntervalBytes)
	return nil
}

// SetAborted says which transactions the markers in the segment aborted, none maybe. Call it when one of the old segments has such a
// list, or Settle would leave that one in place.
func (c *Cleaned) SetAborted(list []AbortedTxn) {
	c.act.idx.aborted, c.txns = list, true
}

// Next is the offset after the last batch, Base without any. Size is the size in bytes, Buffered how many of them Flush would write.
func (c *Cleaned) Next() Offset  { return c.act.snapshot().Next }
func (c *Cleaned) Size() int64   { return c.act.snapshot().SizeBytes }
func (c *Cleaned) Buffered() int { return len(c.buf) }

// File is the log being written, for write-back, syncs on the way and cache advice.
func (c *Cleaned) File() vfs.File { return c.f }

// Flush writes what is buffered and says where it lies.
func (c *Cleaned) Flush() (pos, n int64, err error) {
	pos, n = c.pos, int64(len(c.buf))
	if n == 0 {
		return pos, 0, nil
	}
	if _, err := c.f.WriteAt(c.buf, pos); err != nil {
		return pos, 0, fmt.Errorf("write cleaned segment: %w", err)
	}
	c.pos += n
	c.buf = c.buf[:0]
	return pos, n, nil
}

// Commit makes the segment durable under its swap name and opens it there. From then on it is what a restart finds. next is where it
// ends. The old segments are still there and in use; Settle takes them away. For want of a descriptor (EMFILE, ENFILE) it can be repeated.
func (c *Cleaned) Commit(next Offset, cache *FileCache) (*Reader, error) {
	if !c.last {
		if err := c.takeSwapNames(next); err != nil {
			return nil, err
		}
	}
	if err := c.fs.SyncDir(c.dir); err != nil {
		return nil, err
	}
	meta := c.act.snapshot()
	r, err := openSealed(c.fs, c.dir, Sealed{Base: c.base, Next: next, SizeBytes: meta.SizeBytes, NoAborted: len(c.act.idx.aborted) == 0}, SwapSuffix, cache)
	if err != nil {
		return nil, err
	}
	if meta.MaxTimestampMs >= 0 {
		r.setMaxTimestamp(meta.MaxTimestampMs, meta.MaxTimestampOffset)
	}
	r.keepIndex(&c.act.idx)
	return r, nil
}

// takeSwapNames makes all files durable and renames them, the log last.
func (c *Cleaned) takeSwapNames(next Offset) error {
	if _, _, err := c.Flush(); err != nil {
		return err
	}
	if end := c.Next(); end != next {
		return fmt.Errorf("commit cleaned segment %d: ends at %d, not at %d: %w", c.base, end, next, ErrOutOfRange)
	}
	c.act.finishTimes()
	if err := c.f.SyncData(); err != nil {
		return fmt.Errorf("sync cleaned segment: %w", err)
	}
	if err := writeIndexFiles(c.fs, c.dir, CleanedSuffix, &c.act.idx); err != nil {
		return fmt.Errorf("write indexes of cleaned segment: %w", err)
	}
	if c.txns { // empty, too: it has to replace the old one
		name := inDir(c.dir, TxnIndexName(c.base)+CleanedSuffix)
		if err := vfs.WriteFileAtomic(c.fs, name, encodeTxns(c.act.idx.aborted)); err != nil {
			return fmt.Errorf("write aborted transactions of cleaned segment: %w", err)
		}
	}
	names := swapNames(c.base)
	for i, name := range append(names[1:], names[0]) { // the log last
		last := i == len(names)-1
		if last {
			if err := c.fs.SyncDir(c.dir); err != nil {
				return err
			}
		}
		err := c.fs.Rename(inDir(c.dir, name+CleanedSuffix), inDir(c.dir, name+SwapSuffix))
		c.last = last && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) // the disk was not asked
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, txnIndexSuffix)) {
			return fmt.Errorf("commit cleaned segment: %w", err)
		}
	}
	return nil
}

// Doubtful tells, after a Commit that failed, that a restart may or may not find the segment. Else Abandon takes it back.
func (c *Cleaned) Doubtful() bool { return c.last }

// Close closes the writing descriptor; the Reader of Commit lives on.
func (c *Cleaned) Close() error { return c.f.Close() }

// Abandon removes everything that was made before Commit succeeded.
func (c *Cleaned) Abandon() error {
	errs := []error{c.f.Close()}
	names := swapNames(c.base)
	for _, suffix := range []string{SwapSuffix, CleanedSuffix} { // the log first: alone an index means nothing
		for _, name := range names {
			if err := c.fs.Remove(inDir(c.dir, name+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, c.fs.SyncDir(c.dir))...)
}

// swapNames are the files of a cleaned segment, the log first.
func swapNames(base Offset) []string {
	return []string{LogName(base), IndexName(base), TimeIndexName(base), TxnIndexName(base)}
}

// names is what the names of a Reader's files have behind them: nothing, but for a segment that compaction is swapping in.
type names struct {
	mu         sync.RWMutex // held while a file is opened by name
	log, index string
	superseded atomic.Bool // the names belong to another segment; set under mu
}

// byName runs fn, which opens files by name, with the suffixes of log and index files.
func (r *Reader) byName(fn func(log, index string) error) error {
	r.names.mu.RLock()
	defer r.names.mu.RUnlock()
	if r.names.superseded.Load() {
		return fmt.Errorf("open %s: %w", r.logName, ErrSuperseded)
	}
	return fn(r.names.log, r.names.index)
}

// open opens the log by its present name.
func (r *Reader) open(mode vfs.Mode) (f vfs.File, err error) {
	err = r.byName(func(log, _ string) error {
		f, err = r.fs.Open(r.logName+log, mode)
		return err
	})
	return f, err
}

// Supersede says that the names of r's files are about to be another segment's. Descriptors that are open stay good; whoever needs to
// open one gets ErrSuperseded. For a reader that nobody finds any more.
func (r *Reader) Supersede() {
	r.names.mu.Lock()
	r.names.superseded.Store(true)
	r.names.mu.Unlock()
}

// Superseded tells whether another segment has taken the place of r's.
func (r *Reader) Superseded() bool { return r.names.superseded.Load() }

// Settle gives the segment of Commit its place: the segments at old, which are superseded, go, and r's files get their names. It can be
// repeated after an error; a restart does it otherwise.
func (r *Reader) Settle(old []Offset) error {
	if err := removeOld(r.fs, r.dir, r.base, old); err != nil {
		return fmt.Errorf("swap %s in: %w", r.logName, err)
	}
	steps := []func() error{
		func() error { return r.rename(&r.names.index, swapNames(r.base)[1:]) },
		func() error { return r.fs.SyncDir(r.dir) },
		func() error { return r.rename(&r.names.log, swapNames(r.base)[:1]) },
		func() error { return r.fs.SyncDir(r.dir) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("swap %s in: %w", r.logName, err)
		}
	}
	return nil
}

// rename takes the suffix off some of r's files; nobody opens one meanwhile.
func (r *Reader) rename(suffix *string, files []string) error {
	r.names.mu.Lock()
	defer r.names.mu.Unlock()
	if *suffix == "" {
		return nil
	}
	if err := dropSuffix(r.fs, r.dir, files); err != nil {
		return err
	}
	*suffix = ""
	return nil
}

func dropSuffix(fsys vfs.FS, dir string, files []string) error {
	for _, name := range files {
		if err := fsys.Rename(inDir(dir, name+SwapSuffix), inDir(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeOld unlinks the files of the segments at old; those of the one at base are replaced by renaming.
func removeOld(fsys vfs.FS, dir string, base Offset, old []Offset) error {
	remove := []string{fileName(base, indexCheckpointSuffix)}
	for _, o := range old {
		if o != base {
			remove = append(remove, Files(o)...)
		}
	}
	for _, name := range remove {
		if err := fsys.Remove(inDir(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// FinishSwaps completes or takes back what a crash interrupted of a compaction in one partition directory, before anyone uses it: a
// `.swap` log is complete and takes the place of the segments whose offsets it covers, everything else of a swap goes. It says which
// segments it swapped in. It can be interrupted and repeated. Errors: *CorruptError when it cannot be told how far a `.swap` log reaches.
func FinishSwaps(fsys vfs.FS, dir string) (swapped []Offset, err error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	logs := map[string]bool{} // base names of whole swaps
	var bases []Offset
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name, SwapSuffix); ok && e.Regular {
			if base, suffix, ok := parseName(name); ok && suffix == logSuffix {
				logs[name[:20]] = true
				bases = append(bases, base)
			}
		}
	}
	removed := false
	for _, e := range entries {
		name, cleaned := strings.CutSuffix(e.Name, CleanedSuffix)
		half := cleaned
		if !cleaned {
			if name, half = strings.CutSuffix(e.Name, SwapSuffix); half {
				half = len(name) < 20 || !logs[name[:20]]
			}
		}
		if _, _, ok := parseName(name); half && ok && e.Regular {
			if err := fsys.Remove(inDir(dir, e.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			removed = true
		}
	}
	if removed {
		if err := fsys.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	for _, base := range bases {
		if err := finishSwap(fsys, dir, base); err != nil {
			return swapped, fmt.Errorf("finish the swap of %s: %w", inDir(dir, LogName(base)), err)
		}
		swapped = append(swapped, base)
	}
	return swapped, nil
}

func finishSwap(fsys vfs.FS, dir string, base Offset) error {
	next, err := swapEnd(fsys, dir, base)
	if err != nil {
		return err
	}
	// A killed process may not have come to make the name durable, on which the rest is built.
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	listing, err := ListDir(fsys, dir)
	if err != nil {
		return err
	}
	var old []Offset
	for _, s := range listing.Segments {
		if s.Base >= base && s.Base < next {
			old = append(old, s.Base)
		}
	}
	if err := removeOld(fsys, dir, base, old); err != nil {
		return err
	}
	files := swapNames(base)
	if err := dropSuffix(fsys, dir, files[1:]); err != nil {
		return err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	if err := dropSuffix(fsys, dir, files[:1]); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// swapEnd is the offset at which a swap log ends, by its headers from the last one that its index knows.
func swapEnd(fsys vfs.FS, dir string, base Offset) (Offset, error) {
	name := inDir(dir, LogName(base)+SwapSuffix)
	e, err := fsys.Stat(name)
	if err != nil {
		return 0, err
	}
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return 0, err
	}
	next, err := endOf(fsys, dir, base, f, e.Size)
	return next, errors.Join(err, f.Close())
}

func endOf(fsys vfs.FS, dir string, base Offset, f vfs.File, size int64) (Offset, error) {
	w := walker{f: f, path: f.Name(), end: size, limit: base + math.MaxInt32 + 1, buf: walkPool.Get().(*[walkBytes]byte)}
	defer walkPool.Put(w.buf)
	walk := func(pos int64, next Offset) (Offset, error) {
		for {
			h, at, ok, err := w.header(pos, next)
			if err != nil || !ok {
				return next, err
			}
			pos, next = at+h.SizeBytes(), h.NextOffset()
		}
	}
	// Half settled, the index files may have their names already.
	for _, suffix := range []string{SwapSuffix, ""} {
		if x, err := readIndexFiles(fsys, dir, base, suffix, size); err == nil && len(x.entries) > 0 {
			last := x.entries[len(x.entries)-1]
			h, _, ok, err := w.header(int64(last.pos), base)
			if err == nil && ok && h.LastOffset() == base+Offset(last.rel) {
				return walk(int64(last.pos), base)
			}
		}
	}
	return walk(0, base)
}
