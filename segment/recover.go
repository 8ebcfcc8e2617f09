package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"lagoon/internal/vfs"
)

// RecoverResult tells what recovery found.
type RecoverResult struct {
	Next         Offset // next offset to be assigned
	SizeBytes    int64
	ScannedBytes int64 // bytes whose checksums were verified
	CutBytes     int64 // torn tail that was removed
	// Quarantined is the file that keeps the cut bytes because valid batches were among them; "" otherwise.
	Quarantined string
	// Corrupt is the damage below the recovery point: it stays in the file and reads step over it.
	Corrupt []*CorruptError
}

// Recover opens the last segment after an unclean stop. Everything below the offset recoveryPoint was durable.
//
// Headers are walked from the newest usable entry of the index checkpoint (else the start) to the recovery point;
// from there on every checksum is verified. The first bad byte at or above the recovery point is where the torn tail
// begins: it is cut, and kept in quarantine/ when valid batches are in it. Damage below the recovery point is reported,
// kept and stepped over, never cut (with it nothing is cut at all, because the end of the durable bytes is then not
// sure), and its offsets are never given out again. An index checkpoint that does not fit what remains is removed. What remains above the recovery point is then written anew and synced, so what
// readers see afterwards cannot be taken back: a sync that failed before leaves bytes in the page cache that are not on the disk, and
// that no later sync writes. Recover is idempotent: a crash anywhere inside leaves a segment that recovers to the same result.
//
// ps (may be nil) is fed the headers from ps.End() on; it must already cover everything below base. nowMs is the wall
// clock. A segment that is not the last but reaches above the recovery point is recovered the same way and then
// sealed; when its Next is not the following segment's base, the following ones hold nothing durable.
func Recover(fsys vfs.FS, dir string, base, recoveryPoint Offset, opt Options, ps *ProducerState, nowMs int64, cache *FileCache) (RecoverResult, *Writer, error) {
	r := recovery{fs: fsys, dir: dir, path: inDir(dir, LogName(base)), base: base, point: max(recoveryPoint, base), strict: true, ps: ps, nowMs: nowMs}
	saved, whole := index{}, false
	r.entries = func() (x *index, err error) {
		if x, whole, err = readIndexCheckpoint(fsys, dir, base, r.size); err == nil {
			saved = index{entries: slices.Clone(x.entries), times: slices.Clone(x.times)}
		}
		return x, err
	}
	w, err := r.open(opt, cache)
	if err != nil {
		return RecoverResult{}, nil, fmt.Errorf("recover %s: %w", r.path, err)
	}
	// What the file says of bytes that are not in the log would be believed by a later recovery, of those that take their place.
	if !whole || !w.act.idx.continues(saved) {
		err = removeIndexCheckpoint(fsys, dir, base)
	}
	if err == nil {
		err = w.SyncData() // with the directory
	}
	if err != nil {
		return RecoverResult{}, nil, errors.Join(fmt.Errorf("recover %s: %w", r.path, err), w.Close(false))
	}
	return r.res, w, nil
}

// everything is the recovery point of a segment that was closed cleanly.
const everything = Offset(math.MaxInt64)

// OpenWriter opens the last segment after a clean stop: the index files are trusted (after their sanity checks), only
// the headers behind their last entry are walked, nothing is cut. Damage in that stretch is handled as in Recover and
// reported to the cache's OnCorrupt.
func OpenWriter(fsys vfs.FS, dir string, base Offset, opt Options, cache *FileCache) (*Writer, error) {
	r := recovery{fs: fsys, dir: dir, path: inDir(dir, LogName(base)), base: base, point: everything}
	r.entries = func() (*index, error) {
		x, err := readIndexFiles(fsys, dir, base, "", r.size)
		if isCorrupt(err) {
			cache.report(err)
			return &index{base: base}, nil
		}
		return x, err
	}
	w, err := r.open(opt, cache)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", r.path, err)
	}
	for _, corrupt := range r.res.Corrupt {
		cache.report(corrupt)
	}
	w.dirSynced = true // the name survived a restart
	return w, nil
}

// recovery is one run over the last segment.
type recovery struct {
	fs      vfs.FS
	dir     string
	path    string
	base    Offset
	point   Offset // everything below was durable; "everything" after a clean stop
	strict  bool   // offsets are dense: our own segment, not one that Kafka compacted
	ps      *ProducerState
	nowMs   int64
	entries func() (*index, error)
	noCut   bool // damage below the recovery point: where the durable bytes end is not known for sure

	f     vfs.File
	size  int64
	act   *active
	opt   Options
	holes []hole
	res   RecoverResult
	scan  scanner
}

func (r *recovery) open(opt Options, cache *FileCache) (*Writer, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	r.opt = opt.withDefaults()
	f, err := r.fs.Open(r.path, vfs.ReadWrite)
	if err != nil {
		return nil, err
	}
	r.f = f
	if err := r.run(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := r.adoptAborted(cache); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w := newWriter(r.fs, r.dir, opt, f, r.act, cache)
	if len(r.holes) > 0 {
		w.r.holes.Store(&r.holes)
	}
	return w, nil
}

// adoptAborted takes over the file's list of aborted transactions, without those above the end: they are taken out of the file as well,
// for the log may grow beyond them again. What lies above the newest producer snapshot Replay derives anew.
func (r *recovery) adoptAborted(cache *FileCache) error {
	list, err := readTxnIndex(r.fs, r.dir, r.base, "")
	if err != nil && !isCorrupt(err) {
		return err
	}
	if err != nil {
		cache.report(err)
		r.act.idx.txnFault = err
		return nil
	}
	all := len(list)
	list = slices.DeleteFunc(list, func(t AbortedTxn) bool { return t.Last >= r.act.meta.Next })
	r.act.idx.aborted = list
	if len(list) == all {
		return nil
	}
	return writeTxnIndex(r.fs, r.dir, r.base, "", list)
}

func (r *recovery) run() error {
	var err error
	if r.size, err = r.f.Size(); err != nil {
		return err
	}
	if r.size > maxSegmentBytes {
		return &CorruptError{Path: r.path, Pos: maxSegmentBytes, Err: errors.New("larger than a segment can be")}
	}
	r.scan = scanner{f: r.f, buf: ScanBuffer(int(min(scanBytes, r.size+directAlign))), end: r.size, limit: r.base + math.MaxInt32 + 1}
	if err := r.adopt(); err != nil {
		return err
	}
	if err := r.walkDurable(); err != nil {
		return err
	}
	tail := r.act.meta.SizeBytes
	if err := r.scanTail(); err != nil {
		return err
	}
	if r.point != everything {
		if err := r.rewrite(tail); err != nil {
			return err
		}
	}
	if r.ps != nil {
		r.ps.advance(r.act.meta.Next)
	}
	for _, gap := range r.holes {
		r.res.Corrupt = append(r.res.Corrupt, gap.corrupt(r.path))
	}
	r.res.Next, r.res.SizeBytes = r.act.meta.Next, r.act.meta.SizeBytes
	return nil
}

// adopt takes over the index entries that are surely right and puts the position to continue from behind them.
func (r *recovery) adopt() error {
	r.act = newActive(r.base)
	x, err := r.entries()
	if err != nil {
		return err
	}
	known := r.point
	if r.ps != nil {
		known = min(known, r.ps.End())
	}
	x.truncate(func(e indexEntry) bool { return r.base+Offset(e.rel) < known })
	if len(x.entries) == 0 {
		return nil
	}
	w := r.walker()
	defer walkPool.Put(w.buf)
	first, _, ok, err := w.header(0, r.base)
	if err != nil && !isCorrupt(err) {
		return err
	}
	if err != nil || !ok {
		return nil // the first batch is damaged: walk from the start
	}
	last := x.entries[len(x.entries)-1]
	h, _, ok, err := w.header(int64(last.pos), r.base)
	if err != nil && !isCorrupt(err) {
		return err
	}
	if err != nil || !ok || h.BaseOffset > r.base+Offset(last.rel) {
		return nil
	}
	r.act.idx = *x
	r.act.firstMs = first.MaxTimestamp
	r.act.meta.SizeBytes, r.act.meta.Next = int64(last.pos), h.BaseOffset
	if n := len(x.times); n > 0 {
		r.act.meta.MaxTimestampMs = x.times[n-1].ms
		r.act.meta.MaxTimestampOffset = r.base + Offset(x.times[n-1].rel)
	}
	return nil
}

func (r *recovery) walker() walker {
	return walker{f: r.f, path: r.path, end: r.size, limit: r.scan.limit, buf: walkPool.Get().(*[walkBytes]byte)}
}

// keep takes a good batch in.
func (r *recovery) keep(h BatchHeader) {
	pos := r.act.meta.SizeBytes
	r.act.note(h, r.opt.IndexIntervalBytes)
	if r.ps != nil && h.BaseOffset >= r.ps.End() {
		_, _ = r.ps.take(r.f, pos, h, r.nowMs) // a marker that cannot be read ends nothing
	}
}

// walkDurable walks headers up to the recovery point. A header cannot vouch for itself (length and base offset lie
// outside the checksum), so a batch is kept only when the header behind it fits, or else its checksum does.
func (r *recovery) walkDurable() error {
	w := r.walker()
	defer walkPool.Put(w.buf)
	var held BatchHeader // at act.meta.SizeBytes, not yet kept; Length 0: none
	for {
		pos, next := r.act.meta.SizeBytes, r.act.meta.Next
		if held.Length > 0 {
			pos, next = pos+held.SizeBytes(), held.NextOffset()
		}
		last := pos >= r.size || next >= r.point
		var h BatchHeader
		var err error
		if !last {
			h, err = r.follow(&w, pos, next)
		}
		if err != nil && !isCorrupt(err) {
			return err
		}
		if held.Length > 0 && (last || err != nil) {
			if _, _, bad := r.scan.batch(r.act.meta.SizeBytes, held.BaseOffset, false); bad != nil {
				if !isCorrupt(bad) {
					return bad
				}
				last, err = false, bad
				pos, next = r.act.meta.SizeBytes, r.act.meta.Next
				held = BatchHeader{}
			}
		}
		if held.Length > 0 {
			r.keep(held)
		}
		held = h
		if err != nil {
			held = BatchHeader{}
			if err := r.stepOver(pos, next); err != nil {
				return err
			}
			continue
		}
		if last {
			break
		}
	}
	if r.act.meta.Next < r.point && r.point != everything {
		return r.fillMissing()
	}
	return nil
}

// fillMissing answers a file that ends, whole, below the recovery point: the lost offsets are reported and covered by
// an empty batch (as compaction leaves them), so that the log goes on without a gap that a later recovery would have to
// tell from damage. A loss that no relative offset can span ends the segment: nothing Fits any more.
func (r *recovery) fillMissing() error {
	pos, next := r.act.meta.SizeBytes, r.act.meta.Next
	r.res.Corrupt = append(r.res.Corrupt, &CorruptError{Path: r.path, Pos: pos, First: next, Next: r.point, Err: errEndsEarly})
	epoch := int32(-1)
	if c, err := LoadEpochCache(r.fs, r.dir); err == nil { // a batch of another epoch than the checkpoint says is taken for damage
		epoch = c.EpochAt(next)
	}
	filler := emptyBatch(next, r.point, epoch)
	if r.point-1-r.base > math.MaxInt32 || pos+int64(len(filler)) > maxSegmentBytes {
		r.act.skip(pos, r.point)
		return nil
	}
	if _, err := r.f.WriteAt(filler, pos); err != nil {
		return err
	}
	r.size += int64(len(filler))
	r.keep(decodeFields(filler))
	return nil
}

var errEndsEarly = errors.New("the log ends below the recovery point")

// emptyBatch covers the offsets [first, next) without a record.
func emptyBatch(first, next Offset, epoch int32) []byte {
	b := make([]byte, BatchHeaderSize)
	be := binary.BigEndian
	AssignOffsets(b, first, epoch)
	be.PutUint32(b[atLength:], minLength)
	b[atMagic] = magicV2
	be.PutUint32(b[atLastOffsetDelta:], uint32(next-first-1))
	for _, at := range []int{atBaseTimestamp, atMaxTimestamp, atProducerID} {
		be.PutUint64(b[at:], math.MaxUint64) // -1: none
	}
	be.PutUint16(b[atProducerEpoch:], math.MaxUint16)
	be.PutUint32(b[atBaseSequence:], math.MaxUint32)
	be.PutUint32(b[atCRC:], batchCRC(b))
	return b
}

// follow decodes the header at pos that must continue at offset next.
func (r *recovery) follow(w *walker, pos int64, next Offset) (BatchHeader, error) {
	h, _, _, err := w.header(pos, next)
	if err == nil && r.strict && h.BaseOffset != next {
		err = &CorruptError{Path: r.path, Pos: pos, Want: next, Got: h.BaseOffset, Err: errNotDense}
	}
	return h, err
}

var errNotDense = errors.New("base offset does not continue the log")

// stepOver makes a hole of the damage at pos, up to the next good batch or the end of the file.
func (r *recovery) stepOver(pos int64, next Offset) error {
	found, h, ok, err := r.scan.resync(pos, next)
	if err != nil {
		return err
	}
	gap := hole{pos: pos, end: r.size, first: next, next: next}
	if ok {
		gap.end, gap.next = found, h.BaseOffset
	} else if r.point != everything {
		gap.next = max(next, r.point)
	}
	r.noCut = true // a misplaced block may have shifted what follows
	r.lose(gap)
	return nil
}

func (r *recovery) lose(gap hole) {
	r.holes = append(r.holes, gap)
	r.act.skip(gap.end, gap.next)
}

// scanTail verifies what lies at and above the recovery point and cuts from the first fault on. After damage below the
// recovery point a fault may still lie in durable bytes: then nothing is cut, a torn tail stays as one more hole.
func (r *recovery) scanTail() error {
	for r.act.meta.SizeBytes < r.size {
		pos, next := r.act.meta.SizeBytes, r.act.meta.Next
		h, _, err := r.scan.batch(pos, next, false)
		if err == nil && h.BaseOffset != next {
			err = &CorruptError{Path: r.path, Pos: pos, Want: next, Got: h.BaseOffset, Err: errNotDense}
		}
		switch {
		case isCorrupt(err) && r.noCut:
			if err := r.stepOver(pos, next); err != nil {
				return err
			}
			continue
		case isCorrupt(err):
			return r.cut(pos, next)
		case err != nil:
			return err
		}
		r.res.ScannedBytes += h.SizeBytes()
		r.keep(h)
	}
	return nil
}

// rewrite writes what is kept from pos on once more: then the next sync takes it to the disk, whatever became of those before.
func (r *recovery) rewrite(pos int64) error {
	for end := r.act.meta.SizeBytes; pos < end; {
		n, err := readFull(r.f, r.scan.buf[:min(int64(len(r.scan.buf)), end-pos)], pos)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if _, err := r.f.WriteAt(r.scan.buf[:n], pos); err != nil {
			return err
		}
		pos += int64(n)
	}
	return nil
}

// cut removes the torn tail from pos on; first it saves it when there is anything valid in it.
func (r *recovery) cut(pos int64, next Offset) error {
	_, _, err := r.scan.batch(pos, next, false)
	valuable := err == nil // a whole batch that only does not continue the log
	if err != nil && !isCorrupt(err) {
		return err
	}
	if !valuable {
		if _, _, valuable, err = r.scan.resync(pos, next); err != nil {
			return err
		}
	}
	if valuable {
		name := fmt.Sprintf("%020d-%d.cut", r.base, pos)
		if err := quarantineBytes(r.fs, r.dir, name, r.f, pos, r.size, r.scan.buf); err != nil {
			return fmt.Errorf("keep the cut bytes: %w", err)
		}
		r.res.Quarantined = inDir(r.dir, QuarantineDir+"/"+name)
	}
	r.res.CutBytes = r.size - pos
	return r.f.Truncate(pos)
}

// quarantineBytes copies f[pos:end) into the quarantine directory, durably.
func quarantineBytes(fsys vfs.FS, dir, name string, f vfs.File, pos, end int64, buf []byte) (err error) {
	to := inDir(dir, QuarantineDir)
	if err := fsys.MkdirAll(to); err != nil {
		return err
	}
	out, err := createAnew(fsys, inDir(to, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for at := pos; at < end; {
		n, err := readFull(f, buf[:min(int64(len(buf)), end-at)], at)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if _, err := out.WriteAt(buf[:n], at-pos); err != nil {
			return err
		}
		at += int64(n)
	}
	if err := out.SyncData(); err != nil {
		return err
	}
	return fsys.SyncDir(to)
}

// quarantineFile moves a damaged file of dir into its quarantine directory.
func quarantineFile(fsys vfs.FS, dir, name string) error {
	to := inDir(dir, QuarantineDir)
	if err := fsys.MkdirAll(to); err != nil {
		return err
	}
	if err := fsys.Rename(inDir(dir, name), inDir(to, name)); err != nil {
		return err
	}
	return errors.Join(fsys.SyncDir(to), fsys.SyncDir(dir))
}
