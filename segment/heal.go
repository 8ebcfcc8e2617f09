package segment

import (
	"errors"
	"fmt"
	"math"

	"lagoon/internal/vfs"
)

// healable: a sealed segment is scanned once for damage of its log, and for damage of its index as often as that shows.
func (r *Reader) healable(err error) bool {
	corrupt, ok := errors.AsType[*CorruptError](err)
	return ok && r.act.Load() == nil && (corrupt.Path != r.logName || r.scans.Load() == 0)
}

// VerifyMaxTimestamp is MaxTimestamp checked against the log, for decisions that cannot be undone: the header of the
// batch that the time index names must carry that time, and no header behind it a larger one (a time index that was cut
// short looks good in itself). When that fails, the indexes are rebuilt first. Usually the last headers are all it reads.
func (r *Reader) VerifyMaxTimestamp() (ms int64, err error) {
	scans := r.scans.Load()
	ms, at, err := r.MaxTimestamp()
	if err != nil || r.act.Load() != nil || r.noTimes.Load() {
		return ms, err
	}
	agrees, err := r.timeAgrees(ms, at)
	if err != nil && !isCorrupt(err) {
		return 0, err
	}
	if agrees {
		r.noTimes.Store(ms == noTimestamp) // it took all headers to know
		return ms, nil
	}
	err = &CorruptError{Path: inDir(r.dir, TimeIndexName(r.base)), Pos: -1,
		Err: fmt.Errorf("last entry (%d ms, offset %d) does not agree with the log", ms, at)}
	if err = r.heal(err, scans); err != nil {
		return 0, err
	}
	ms = r.Meta().MaxTimestampMs
	r.noTimes.Store(ms == noTimestamp)
	return ms, nil
}

func (r *Reader) timeAgrees(ms int64, at Offset) (bool, error) {
	meta := r.Meta()
	f, err := r.File()
	if err != nil {
		return false, err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)
	h, pos, ok, err := r.start(&w, at, -1)
	if ms != noTimestamp && (err != nil || !ok || h.LastOffset() != at || h.MaxTimestamp != ms) {
		return false, err
	}
	for ; ok && err == nil; h, pos, ok, err = w.header(pos+h.SizeBytes(), h.NextOffset()) {
		if h.MaxTimestamp > ms {
			return false, nil
		}
	}
	return err == nil, err
}

// index gives the index of a sealed segment, loading or rebuilding it when needed.
func (r *Reader) index() (*index, error) {
	if x := r.idx.Load(); x != nil {
		return x, nil
	}
	r.healMu.Lock()
	defer r.healMu.Unlock()
	if x := r.idx.Load(); x != nil {
		return x, nil
	}
	var x *index
	err := r.byName(func(_, index string) (err error) {
		x, err = readIndexFiles(r.fs, r.dir, r.base, index, r.sealed.Load().SizeBytes)
		return err
	})
	if isCorrupt(err) {
		r.cache.report(err)
		return r.rebuild()
	}
	if err != nil {
		return nil, fmt.Errorf("load index of %s: %w", r.logName, err)
	}
	if err := r.loadAborted(x); err != nil {
		return nil, err
	}
	r.keepIndex(x)
	return x, nil
}

// loadAborted reads the aborted transactions, when there are any. Damage is remembered: only who knows the older segments can
// mend it.
func (r *Reader) loadAborted(x *index) error {
	if r.noAborted.Load() {
		return nil
	}
	x.txnFault = r.byName(func(_, index string) (err error) {
		x.aborted, err = readTxnIndex(r.fs, r.dir, r.base, index)
		return err
	})
	if x.txnFault != nil && !isCorrupt(x.txnFault) {
		return fmt.Errorf("load index of %s: %w", r.logName, x.txnFault)
	}
	if x.txnFault != nil {
		r.cache.report(x.txnFault)
	}
	return nil
}

func (r *Reader) keepIndex(x *index) {
	r.idx.Store(x)
	r.cache.addIndex(r, x.bytes())
}

// heal answers damage found by a read that began after that many scans of the log: it rebuilds the indexes of a sealed
// segment from its log and learns its holes.
func (r *Reader) heal(cause error, scans uint32) error {
	r.healMu.Lock()
	defer r.healMu.Unlock()
	if r.scans.Load() != scans {
		return nil // another reader was faster
	}
	r.cache.report(cause)
	_, err := r.rebuild()
	return err
}

// RebuildIndex distrusts the index files of a sealed segment: it reads the whole log (O_DIRECT where it can), writes
// both anew and learns which ranges of the log are damaged. For people, and for a caller that met damage in bytes that
// it read itself. Errors: ErrOutOfRange for the active segment; read errors.
func (r *Reader) RebuildIndex() error {
	if r.act.Load() != nil {
		return fmt.Errorf("rebuild index of %s: active segment: %w", r.logName, ErrOutOfRange)
	}
	r.healMu.Lock()
	defer r.healMu.Unlock()
	_, err := r.rebuild()
	return err
}

// Holes lists the damaged ranges of the log that are known.
func (r *Reader) Holes() []*CorruptError {
	holes := r.holes.Load()
	if holes == nil {
		return nil
	}
	var list []*CorruptError
	for _, gap := range *holes {
		list = append(list, gap.corrupt(r.logName))
	}
	return list
}

func (g hole) corrupt(path string) *CorruptError {
	return &CorruptError{Path: path, Pos: g.pos, End: g.end, First: g.first, Next: g.next, Err: ErrCorruptBatch}
}

// rebuild runs under healMu.
func (r *Reader) rebuild() (*index, error) {
	meta := *r.sealed.Load()
	f, err := r.open(vfs.Direct)
	if errors.Is(err, vfs.ErrDirectUnsupported) {
		f, err = r.open(vfs.ReadOnly)
	}
	if err != nil {
		return nil, fmt.Errorf("rebuild index of %s: %w", r.logName, err)
	}
	act, holes, err := rescan(f, meta)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("rebuild index of %s: %w", r.logName, err)
	}
	for _, gap := range holes {
		r.cache.report(gap.corrupt(r.logName))
	}
	if err := r.byName(func(_, index string) error { return writeIndexFiles(r.fs, r.dir, index, &act.idx) }); err != nil {
		r.cache.complain(fmt.Errorf("save rebuilt index of %s: %w", r.logName, err)) // it works from memory meanwhile
	}
	if err := r.loadAborted(&act.idx); err != nil {
		return nil, err
	}
	r.holes.Store(&holes)
	r.scans.Add(1)
	r.setMaxTimestamp(act.meta.MaxTimestampMs, act.meta.MaxTimestampOffset)
	r.keepIndex(&act.idx)
	return &act.idx, nil
}

// overlapped is the fault of a batch that claims offsets of the sound one behind it, which fits what came before both.
func (s *scanner) overlapped(pos int64, h BatchHeader, next Offset) error {
	at := pos + h.SizeBytes()
	if at >= s.end {
		return nil
	}
	following, _, err := s.batch(at, next, false)
	if isCorrupt(err) {
		return nil // then that one is the damaged one
	}
	if err == nil && following.BaseOffset < h.NextOffset() {
		err = s.corrupt(pos, fmt.Errorf("%w: base offset %d, the next batch begins at %d", ErrCorruptBatch, h.BaseOffset, following.BaseOffset))
	}
	return err
}

// rescan reads a whole sealed log, checking every checksum.
func rescan(f vfs.File, meta Meta) (*active, []hole, error) {
	act := newActive(meta.Base)
	s := scanner{f: f, buf: ScanBuffer(int(min(scanBytes, meta.SizeBytes+directAlign))), end: meta.SizeBytes, limit: min(meta.Next, meta.Base+math.MaxInt32+1)}
	holes := []hole{}
	for pos, next := int64(0), meta.Base; pos < s.end; {
		h, _, err := s.batch(pos, next, false)
		if err == nil && h.BaseOffset > next { // a gap, or a base offset, which no checksum covers, that grew
			err = s.overlapped(pos, h, next)
		}
		if err == nil {
			act.note(h, defaultIndexInterval)
			pos += h.SizeBytes()
			next = h.NextOffset()
			continue
		}
		if !isCorrupt(err) {
			return nil, nil, err
		}
		gap := hole{pos: pos, end: s.end, first: next, next: max(next, meta.Next)}
		found, h, ok, err := s.resync(pos, next)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			gap.end, gap.next = found, h.BaseOffset
		}
		holes = append(holes, gap)
		act.skip(gap.end, gap.next)
		pos, next = gap.end, gap.next
	}
	act.finishTimes()
	return act, holes, nil
}
