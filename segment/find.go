package segment

import (
	"fmt"
	"sync"

	"lagoon/internal/vfs"
)

// Bound is what a read must not reach.
type Bound struct {
	Offset Offset // first offset that must not be read
	// Pos is the byte position of Offset in this segment when known (then the hot path need not look for it), < 0 when
	// unknown or in a later segment.
	Pos int64
}

// Extent is a run of whole batches in one log file. Len 0 means that nothing may or can be read: when Next is above
// the offset asked for, the records below Next are gone (damage) and the reader goes on there.
type Extent struct {
	Pos, Len int64
	First    Offset // base offset of the first batch
	Next     Offset // offset after the last batch
}

// hole is a damaged range of the log: bytes [pos, end), offsets [first, next).
type hole struct {
	pos, end    int64
	first, next Offset
}

// walkBytes is read at once while walking over headers: one page, so that small batches cost one read for many.
const walkBytes = 4096

var walkPool = sync.Pool{New: func() any { return new([walkBytes]byte) }}

// walker reads batch headers one after the other, without the batches' bodies. It steps over known holes.
type walker struct {
	f     vfs.File
	path  string
	end   int64 // size of the log
	limit Offset
	holes []hole
	buf   *[walkBytes]byte
	off   int64 // file position of buf[0]
	n     int
	wide  bool // batches are small: read a page at once
}

// header decodes the header at pos, or behind the hole at pos. at is where it was found; ok is false at the end.
func (w *walker) header(pos int64, next Offset) (h BatchHeader, at int64, ok bool, err error) {
	for _, gap := range w.holes {
		if pos >= gap.pos && pos < gap.end {
			pos = gap.end
		}
	}
	if pos >= w.end {
		return h, pos, false, nil
	}
	b, err := w.view(pos)
	if err != nil {
		return h, pos, false, fmt.Errorf("read %s: %w", w.path, err)
	}
	h, err = DecodeHeader(b)
	switch {
	case err != nil:
	case h.SizeBytes() > w.end-pos:
		err = fmt.Errorf("%w: %d bytes, only %d are there", ErrCorruptBatch, h.SizeBytes(), w.end-pos)
	case h.BaseOffset < next || h.LastOffset() >= w.limit:
		err = fmt.Errorf("%w: offsets %d to %d, expected %d to %d", ErrCorruptBatch, h.BaseOffset, h.LastOffset(), next, w.limit-1)
	}
	if err != nil {
		return h, pos, false, &CorruptError{Path: w.path, Pos: pos, Err: err}
	}
	w.wide = h.SizeBytes() < walkBytes/2
	return h, pos, true, nil
}

func (w *walker) view(pos int64) ([]byte, error) {
	if pos < w.off || pos+BatchHeaderSize > w.off+int64(w.n) {
		want := int64(BatchHeaderSize)
		if w.wide {
			want = walkBytes
		}
		n, err := readFull(w.f, w.buf[:min(want, w.end-pos)], pos)
		if err != nil {
			return nil, err
		}
		w.off, w.n = pos, n
	}
	from := int(pos - w.off)
	return w.buf[from:min(from+BatchHeaderSize, w.n)], nil
}

func (r *Reader) walker(f vfs.File, meta *Meta) walker {
	w := walker{f: f, path: r.logName, end: meta.SizeBytes, limit: meta.Next, buf: walkPool.Get().(*[walkBytes]byte)}
	if holes := r.holes.Load(); holes != nil {
		w.holes = *holes
	}
	return w
}

// lookup is an index lookup: in the writer's index under its lock, or in the loaded index of a sealed segment.
type lookup struct {
	act *active
	idx *index
}

func (r *Reader) lookup() (lookup, error) {
	if a := r.act.Load(); a != nil {
		return lookup{act: a}, nil
	}
	idx, err := r.index()
	return lookup{idx: idx}, err
}

func (l lookup) floor(from Offset) indexEntry {
	return ask(l, func(x *index) indexEntry { return x.floor(from) })
}

func (l lookup) boundary(pos int64) indexEntry {
	return ask(l, func(x *index) indexEntry { return x.boundary(pos) })
}

func (l lookup) timeFloor(ms int64) Offset {
	return ask(l, func(x *index) Offset { return x.timeFloor(ms) })
}

func (l lookup) newestBefore(pos int64) int64 {
	return ask(l, func(x *index) int64 { return x.newestBefore(pos) })
}

// ask asks the index, which grows while its segment is active.
func ask[T any](l lookup, question func(*index) T) T {
	if l.act != nil {
		l.act.mu.RLock()
		defer l.act.mu.RUnlock()
		return question(&l.act.idx)
	}
	return question(l.idx)
}

// MaxTimestampBefore is the largest record timestamp in ms of the batches before the batch boundary pos, as far as the time index knows them,
// -1 without any: what Floor gives is known that far. The log is not read. Errors: those of loading the index.
func (r *Reader) MaxTimestampBefore(pos int64) (ms int64, err error) {
	l, err := r.lookup()
	if err != nil {
		return 0, err
	}
	return l.newestBefore(pos), nil
}

// Floor gives a batch boundary at or before the batch that holds from, by the index alone: the log is not read.
// Errors: ErrOutOfRange; those of loading the index.
func (r *Reader) Floor(from Offset) (int64, error) {
	if from < r.base {
		return 0, fmt.Errorf("find offset %d in %s: %w", from, r.logName, ErrOutOfRange)
	}
	if from == r.base {
		return 0, nil
	}
	l, err := r.lookup()
	if err != nil {
		return 0, err
	}
	if l.act == nil {
		r.cache.touchIndex(r) // a seek: what readers come back to stays in memory
	}
	return int64(l.floor(from).pos), nil
}

// BatchBoundaryBefore gives the largest batch boundary <= pos that the index knows (0 at least); the log is not read.
func (r *Reader) BatchBoundaryBefore(pos int64) (int64, error) {
	if pos <= 0 {
		return 0, nil
	}
	l, err := r.lookup()
	if err != nil {
		return 0, err
	}
	return int64(l.boundary(pos).pos), nil
}

// LastOffsetAt gives the last offset of the batch at byte pos when the index has an entry for it: a base offset lies
// outside its batch's checksum, and this is a second witness. The log is not read.
func (r *Reader) LastOffsetAt(pos int64) (last Offset, ok bool) {
	l, err := r.lookup()
	if err != nil {
		return 0, false
	}
	e := l.boundary(pos)
	return r.base + Offset(e.rel), e != indexEntry{} && int64(e.pos) == pos
}

// End is the offset after the last batch. It is Next of the Meta, unless segments are missing between this one and the next that was found. Reads the
// end of the log; the caller has the reader acquired.
func (r *Reader) End() (Offset, error) {
	meta := r.Meta()
	pos, err := r.BatchBoundaryBefore(meta.SizeBytes - 1)
	if err != nil {
		return 0, err
	}
	f, err := r.File()
	if err != nil {
		return 0, err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)
	for end := r.base; ; {
		h, at, ok, err := w.header(pos, end)
		if err != nil || !ok {
			return end, err
		}
		pos, end = at+h.SizeBytes(), h.NextOffset()
	}
}

// Find gives the extent of whole batches from the one that holds from, at most maxBytes and at least one batch, ending
// before bound. It reads batch headers through File, so it is for reads that go through the page cache; the caller has
// the reader acquired. hint is where the batch of from may begin (the end of the caller's last extent), -1 without;
// it is verified by the header there and saves the index lookup.
//
// from == Next of the segment, or from at the bound, gives an empty extent. It does not allocate.
// Errors: ErrOutOfRange; *CorruptError when the log is damaged at from and the damage cannot be stepped over; the
// file's read errors.
func (r *Reader) Find(from Offset, maxBytes int64, bound Bound, hint int64) (Extent, error) {
	scans := r.scans.Load()
	ext, err := r.find(from, maxBytes, bound, hint)
	if err != nil && r.healable(err) {
		if err := r.heal(err, scans); err != nil {
			return Extent{}, err
		}
		return r.find(from, maxBytes, bound, -1)
	}
	return ext, err
}

func (r *Reader) find(from Offset, maxBytes int64, bound Bound, hint int64) (Extent, error) {
	meta := r.Meta()
	if from < meta.Base || from > meta.Next {
		return Extent{}, fmt.Errorf("find offset %d in %s: %w", from, r.logName, ErrOutOfRange)
	}
	if from == meta.Next || from >= bound.Offset {
		return Extent{Pos: meta.SizeBytes, First: from, Next: from}, nil
	}
	f, err := r.File()
	if err != nil {
		return Extent{}, err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)

	h, pos, ok, err := r.start(&w, from, hint)
	if err != nil {
		return Extent{}, err
	}
	if !ok {
		return Extent{Pos: meta.SizeBytes, First: from, Next: min(meta.Next, bound.Offset)}, nil
	}
	ext := Extent{Pos: pos, Len: h.SizeBytes(), First: h.BaseOffset, Next: h.NextOffset()}
	if ext.Next > bound.Offset || (bound.Pos >= 0 && pos+ext.Len > bound.Pos) {
		return Extent{Pos: pos, First: from, Next: from}, nil
	}
	return r.extend(&w, ext, maxBytes, bound, meta.Next)
}

// start finds the batch that holds from, or the first one above when from fell into a hole or a compacted gap.
func (r *Reader) start(w *walker, from Offset, hint int64) (h BatchHeader, pos int64, ok bool, err error) {
	if hint >= 0 && hint < w.end {
		h, pos, ok, err := w.header(hint, 0)
		if err == nil && ok && h.BaseOffset <= from && from <= h.LastOffset() {
			return h, pos, true, nil
		}
		if err != nil && !isCorrupt(err) {
			return h, 0, false, err
		}
	}
	next := r.base
	if from > r.base {
		l, err := r.lookup()
		if err != nil {
			return h, 0, false, err
		}
		e := l.floor(from)
		pos = int64(e.pos)
		if err := r.checkEntry(w, e); err != nil {
			return h, 0, false, err
		}
	}
	for {
		h, pos, ok, err = w.header(pos, next)
		if err != nil || !ok || h.LastOffset() >= from {
			return h, pos, ok, err
		}
		pos += h.SizeBytes()
		next = h.NextOffset()
	}
}

// checkEntry distrusts an index entry until the header it points at agrees: a wrong one must not be taken for damage
// of the log, nor send a reader past its batch.
func (r *Reader) checkEntry(w *walker, e indexEntry) error {
	if e == (indexEntry{}) {
		return nil
	}
	h, _, ok, err := w.header(int64(e.pos), r.base)
	if err != nil && !isCorrupt(err) {
		return err
	}
	if last := r.base + Offset(e.rel); err != nil || !ok || h.BaseOffset > last {
		return &CorruptError{Path: inDir(r.dir, IndexName(r.base)), Pos: -1,
			Err: fmt.Errorf("entry (%d, %d) points at no batch of that offset", e.rel, e.pos)}
	}
	return nil
}

// extend lengthens ext by whole batches: a jump by the index, then header by header.
func (r *Reader) extend(w *walker, ext Extent, maxBytes int64, bound Bound, segmentNext Offset) (Extent, error) {
	limit := w.end
	if maxBytes < limit-ext.Pos {
		limit = ext.Pos + max(maxBytes, 0)
	}
	if bound.Pos >= 0 {
		limit = min(limit, bound.Pos)
	}
	for _, gap := range w.holes {
		if gap.pos >= ext.Pos {
			limit = min(limit, gap.pos)
		}
	}
	end := ext.Pos + ext.Len
	if end >= limit {
		return ext, nil
	}
	if limit-end > walkBytes {
		jump, err := r.jump(limit, bound, segmentNext)
		if err != nil {
			return ext, err
		}
		if int64(jump.pos) > end {
			if err := r.checkEntry(w, jump); err != nil {
				return ext, err
			}
			h, _, _, err := w.header(int64(jump.pos), ext.Next)
			if err != nil {
				return ext, err
			}
			end, ext.Next = int64(jump.pos), h.BaseOffset
		}
	}
	for end < limit {
		h, _, ok, err := w.header(end, ext.Next)
		if err != nil {
			if isCorrupt(err) {
				break // serve what is good; the next read starts at the damage and deals with it
			}
			return ext, err
		}
		if !ok || end+h.SizeBytes() > limit || h.NextOffset() > bound.Offset {
			break
		}
		end += h.SizeBytes()
		ext.Next = h.NextOffset()
	}
	ext.Len = end - ext.Pos
	return ext, nil
}

// jump is the farthest index entry that is surely readable. limit itself is left out: at the end of the segment as the
// caller knows it, an entry may name a batch that has come since.
func (r *Reader) jump(limit int64, bound Bound, segmentNext Offset) (indexEntry, error) {
	l, err := r.lookup()
	if err != nil {
		return indexEntry{}, err
	}
	e := l.boundary(limit - 1)
	if bound.Pos < 0 && bound.Offset < segmentNext {
		if b := l.floor(bound.Offset); b.pos < e.pos {
			e = b
		}
	}
	return e, nil
}

// FindTime gives the position to start scanning at for the first record with a timestamp >= ms, by the indexes alone.
// ok is false when no record of the segment is that young.
func (r *Reader) FindTime(ms int64) (pos int64, ok bool, err error) {
	newest, _, err := r.MaxTimestamp()
	if err != nil || ms > newest {
		return 0, false, err
	}
	l, err := r.lookup()
	if err != nil {
		return 0, false, err
	}
	return int64(l.floor(l.timeFloor(ms)).pos), true, nil
}
