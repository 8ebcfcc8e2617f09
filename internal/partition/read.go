package partition

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"lagoon/admission"
	"lagoon/segment"
)

// probeBytes is the smallest resident prefix worth serving hot when the rest of an extent is cold. Below it a reader
// at the edge of the cache would be served in slivers.
const probeBytes = 128 << 10

// Read gives whole batches from req.From on, when they are at hand: resident pages as a file range, or chunks that the
// device has delivered. It never waits for a device: what is not at hand is asked for, the result is Pending, and
// req.Watch is notified when it has come. At the readable end the Watch is registered for the next record.
// Errors: ErrOffsetOutOfRange, ErrFenced (the log directory, or the one that holds the segment), ErrClosed,
// *segment.CorruptError, the device's read error.
func (l *Log) Read(req ReadRequest) (ReadResult, error) {
	if err := l.Err(); err != nil {
		return ReadResult{Offsets: l.Offsets()}, err
	}
	now := l.store.now()
	for range 64 { // a retired segment means a newer view, and an offset in a gap moves to the next segment
		res, again, err := l.readOnce(&req, now)
		if !again && !errors.Is(err, segment.ErrSuperseded) {
			return res, err
		}
	}
	return ReadResult{Offsets: l.Offsets()}, fmt.Errorf("read %s: %w: segments change too fast", l.dir, ErrClosed)
}

// readOnce is Read on one view; again when the segment was retired under it, or req.From was moved over a gap.
func (l *Log) readOnce(req *ReadRequest, now time.Time) (res ReadResult, again bool, err error) {
	v, b := l.view.Load(), l.readable()
	res.Offsets = l.Offsets()
	if req.From < v.start || req.From > max(res.Offsets.End, b.offset) {
		return res, false, fmt.Errorf("%w: %d is outside [%d, %d] of %s", ErrOffsetOutOfRange, req.From, v.start, res.Offsets.End, l.dir)
	}
	c := l.cursors.of(req.Reader, now)
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := b.offset // the first offset that this reader does not see
	if req.Committed {
		limit = l.stable(b.offset)
	}
	if req.From >= limit {
		l.observe(c, req.From, &bound{offset: limit}, l.endPos.Load(), now)
		c.toEnd()
		if req.Watch != nil {
			l.watch(req.Watch, req.From, req.Committed)
			if end := l.readable().offset; end > req.From && (!req.Committed || l.stable(end) > req.From) {
				req.Watch.Notify()
			}
		}
		return res, false, nil
	}
	if req.Committed && !l.abortedAtHand(v, v.find(req.From), limit, req.Watch) && c.prepares < maxPrepares {
		c.prepares++
		res.Pending = true
		return res, false, nil
	}
	if req.Committed && l.aborts.Load() {
		c.stream.dropReplaced()
	}
	if c.stream.covers(req.From) {
		return l.readStream(c, req, res, b, limit, now)
	}

	i := v.find(req.From)
	if i < 0 {
		return res, false, fmt.Errorf("%w: %d of %s lies before the first segment", ErrOffsetOutOfRange, req.From, l.dir)
	}
	s := v.segs[i]
	if !s.r.Acquire() {
		return res, true, nil
	}
	if err := s.dir.fenced(); err != nil {
		s.r.Release()
		return res, false, err
	}
	if !s.prepared(req.Watch) {
		s.r.Release()
		res.Pending = true
		return res, false, nil
	}
	bnd := segment.Bound{Offset: min(v.next(i), limit), Pos: s.r.Meta().SizeBytes}
	if s.base == b.base && b.offset < v.next(i) { // at the segment's end its size says more: compaction may have changed that
		bnd.Pos = b.pos
	}
	end := bnd.Pos
	if bnd.Offset == limit && limit < b.offset {
		bnd.Pos = -1 // where the oldest open transaction begins is looked for
	}
	pos, hint, exact := int64(0), int64(-1), false
	if seg, at, ok := c.stream.endsAt(req.From); ok && seg == s && at < end {
		pos, hint, exact = at, at, true
	} else if c.seg == s && c.at > 0 && req.From >= c.next {
		pos, hint = c.at, c.at
	} else if pos, err = s.r.Floor(req.From); err != nil {
		s.r.Release()
		return res, false, err
	}
	want := min(max(req.MaxBytes, 1), end-pos)
	resident, ratio := l.residentPrefix(s, pos, max(want, 1))
	l.observe(c, req.From, b, s.before.Load()+pos, now)
	read := admission.Read{
		State: c.class.State, Resident: resident > 0, ResidentRatio: ratio, Sealed: s.r.Meta().Sealed,
		Mode: l.store.opt.Mode, Forced: l.forced(), BudgetOK: true,
	}
	d := admission.Decide(read)
	c.note(d, read)
	if d.Lane == admission.Hot {
		res.Live = c.class.State == admission.Realtime
		var next segment.Offset
		res.Chunk, next, err = l.hotChunk(c, s, req, bnd, min(want, resident), hint)
		if next > req.From && next < limit {
			req.From = next
			return res, true, nil
		}
		res.More = err == nil && (res.Chunk == nil && next == 0 || res.Chunk != nil && res.Chunk.next < limit)
		if err == nil {
			err = l.addAborted(c, req, &res)
		}
		return res, false, err
	}
	if d.Lane == admission.Fill && c.class.State == admission.Realtime {
		if ratio < 1 { // else another reader's refill is about to be done with all of it
			l.missed(c, s, pos, want, now)
		}
		l.refill(s.before.Load() + pos)
	}
	if hint >= 0 && !exact {
		// The hot lane checks a hint by the header there; a stream believes its start, so it begins where the index says.
		if pos, err = s.r.Floor(req.From); err != nil {
			s.r.Release()
			return res, false, err
		}
	}
	// The stream takes over the acquired segment.
	c.stream.start(s, pos, req.From, d.Lane, req.Watch)
	return l.readStream(c, req, res, b, limit, now)
}

// addAborted completes what a read_committed reader gets: which producers' records it must leave out. It takes the chunk back when
// that cannot be told.
func (l *Log) addAborted(c *cursor, req *ReadRequest, res *ReadResult) (err error) {
	if !req.Committed || res.Chunk == nil {
		return nil
	}
	c.prepares = 0
	if res.Aborted, err = l.abortedIn(req.From, res.Chunk.next); err != nil {
		res.Chunk.Release()
		res.Chunk = nil
	}
	return err
}

// residentPrefix is how many bytes from pos on are in the page cache without a gap: n when all are, 0 when fewer than
// probeBytes are. Unknown residency counts as resident: the answer is a hint, and a wrong one costs one slow read.
func (l *Log) residentPrefix(s *logSegment, pos, n int64) (prefix int64, ratio float64) {
	f, err := s.r.File()
	if err != nil {
		return 0, 0
	}
	r, err := l.store.opt.Cache.Residency(f, pos, n)
	// Asked after the pages: a refill that is in neither answer had ended before.
	there := s.fills.before(pos, n)
	if err != nil || r.Resident >= r.Pages {
		prefix, ratio = there, 1
	} else if r.Resident > 0 {
		ratio = float64(r.Resident) / float64(r.Pages)
		for step := int64(probeBytes); prefix+step < there; step *= 2 {
			if ok, err := l.store.opt.Cache.Resident(f, pos, prefix+step); err != nil || !ok {
				break
			}
			prefix += step
		}
	}
	if prefix < min(n, probeBytes) {
		return 0, ratio
	}
	return prefix, ratio
}

// hotChunk serves resident bytes as a file range; it takes over the acquired segment. max bounds the range to what is
// resident.
// skip is where reading goes on when nothing is at req.From (a damaged range, or the rest of a segment without records).
func (l *Log) hotChunk(c *cursor, s *logSegment, req *ReadRequest, bnd segment.Bound, max, hint int64) (_ *Chunk, skip segment.Offset, err error) {
	ext, err := s.r.Find(req.From, max, bnd, hint)
	if err != nil {
		s.r.Release()
		return nil, 0, err
	}
	if ext.Len == 0 {
		s.r.Release()
		if ext.Next > req.From {
			return nil, ext.Next, nil
		}
		return nil, bnd.Offset, nil
	}
	if ext.Len > req.MaxBytes && !req.MustServe {
		s.r.Release()
		return nil, 0, nil
	}
	f, err := s.r.File()
	if err != nil {
		s.r.Release()
		return nil, 0, err
	}
	c.moved(s, ext.Next, ext.Pos+ext.Len)
	chunk := &Chunk{n: ext.Len, pos: ext.Pos, file: f, seg: s.r, dir: s.dir, next: ext.Next}
	chunk.fd, chunk.isFile = f.Fd()
	l.served(c, admission.Hot, ext.Len)
	return chunk, 0, nil
}

// readStream takes what the cursor's stream has for req.From.
func (l *Log) readStream(c *cursor, req *ReadRequest, res ReadResult, b *bound, limit segment.Offset, now time.Time) (ReadResult, bool, error) {
	sr, err := c.stream.read(req.From, req.MaxBytes, limit, req.Watch)
	switch {
	case errors.Is(err, segment.ErrSuperseded):
		return res, true, nil
	case err != nil:
		l.noteCorruption(err)
		return res, false, err
	case sr.pending:
		res.Pending = true
		if sr.queued {
			c.deferred(now)
		}
		if sr.refill && c.missed.IsZero() {
			c.missed = now
		}
		return res, false, nil
	case sr.chunk == nil:
		return res, sr.replaced, nil
	}
	res.More = sr.chunk.next < limit
	if sr.chunk.n > req.MaxBytes && !req.MustServe {
		sr.chunk.Release()
		res.More = true
		return res, false, nil
	}
	c.seg, c.at = nil, 0 // where the batch after this lies is the stream's business
	c.seenMu.Lock()
	c.method = sr.method
	c.seenMu.Unlock()
	if sr.refill && !c.missed.IsZero() {
		l.store.metrics.tailDelayed(sr.beside, sr.ended.Sub(c.missed))
	}
	l.served(c, sr.lane, sr.chunk.n)
	l.observe(c, req.From, b, l.distancePos(c, req.From), now)
	res.Chunk = sr.chunk
	return res, false, l.addAborted(c, req, &res)
}

// distancePos is about where offset lies, in bytes from the first segment: by the index alone.
func (l *Log) distancePos(_ *cursor, off segment.Offset) int64 {
	v := l.view.Load()
	i := v.find(off)
	if i < 0 {
		return v.segs[0].before.Load()
	}
	s := v.segs[i]
	if !s.r.Acquire() {
		return s.before.Load()
	}
	defer s.r.Release()
	if !s.r.Ready() {
		return s.before.Load()
	}
	pos, err := s.r.Floor(off)
	if err != nil {
		pos = 0
	}
	return s.before.Load() + pos
}

// forced is the topic's word on its readers' class. Metadata has validated it.
func (l *Log) forced() admission.ForcedClass {
	f, _ := admission.ParseForcedClass(l.config().ReaderClass)
	return f
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkBatches verifies length and CRC of every whole batch in data, which lies at byte pos of s. It returns how many bytes
// are whole sound batches and the offset after them. Damage after a sound batch ends the run without error: the reader
// gets the sound part first and the error when it comes to it.
func checkBatches(l *Log, s *logSegment, pos int64, data []byte) (whole int, next segment.Offset, err error) {
	next, end := s.base, s.r.Meta().Next
	for len(data)-whole >= segment.BatchHeaderSize {
		rest, at := data[whole:], pos+int64(whole)
		h, err := segment.DecodeHeader(rest)
		if err == nil && h.SizeBytes() > int64(len(rest)) {
			return whole, next, nil
		}
		if err == nil {
			if err = checkBatch(l, s, at, rest, h, next, end); err == nil && h.BaseOffset > next {
				// Behind a gap, or where no batch before it was read: the one behind it has to vouch for its offset.
				var told bool
				if told, err = checkOffset(s, at, h, rest[h.SizeBytes():], next); !told && whole > 0 {
					return whole, next, nil // the next call begins here and sees what follows
				}
			}
		} else if !isCorrupt(err) {
			err = &segment.CorruptError{Path: s.r.LogName(), Pos: at, Err: err}
		}
		if err != nil {
			if whole > 0 {
				return whole, next, nil
			}
			return 0, 0, err
		}
		whole += int(h.SizeBytes())
		next = h.NextOffset()
	}
	return whole, next, nil
}

// checkBatch verifies what the checksum covers, and what it does not: the base offset by its neighbours (offsets rise and
// stay within the segment), the leader epoch by the epoch checkpoint.
func checkBatch(l *Log, s *logSegment, at int64, b []byte, h segment.BatchHeader, next, end segment.Offset) error {
	if got := crc32.Checksum(b[21:h.SizeBytes()], castagnoli); got != h.CRC {
		return &segment.CorruptError{Path: s.r.LogName(), Pos: at, Want: h.CRC, Got: got, Err: segment.ErrCorruptBatch}
	}
	if h.BaseOffset < next || end > 0 && h.NextOffset() > end {
		return &segment.CorruptError{Path: s.r.LogName(), Pos: at, End: at + h.SizeBytes(), Want: next, Got: h.BaseOffset,
			Err: fmt.Errorf("%w: offsets out of order", segment.ErrCorruptBatch)}
	}
	if e := l.epochs.EpochAt(h.BaseOffset); e >= 0 && h.LeaderEpoch != e {
		return &segment.CorruptError{Path: s.r.LogName(), Pos: at, End: at + h.SizeBytes(), Want: e, Got: h.LeaderEpoch,
			Err: fmt.Errorf("%w: leader epoch", segment.ErrCorruptBatch)}
	}
	return nil
}

// checkOffset holds the base offset of a sound batch at byte at against the index entry of its place or, without one,
// against the batch that begins in following: a base offset that grew, by however little, claims offsets of that one.
// told is false when following holds no header.
func checkOffset(s *logSegment, at int64, h segment.BatchHeader, following []byte, next segment.Offset) (told bool, err error) {
	limit := h.NextOffset()
	if last, indexed := s.r.LastOffsetAt(at); indexed {
		limit = last + 1
	} else if f, err := segment.DecodeHeader(following); err != nil {
		return false, nil
	} else if f.BaseOffset >= next && f.BaseOffset < limit {
		limit = f.BaseOffset
	}
	if h.NextOffset() == limit {
		return true, nil
	}
	return true, &segment.CorruptError{Path: s.r.LogName(), Pos: at, End: at + h.SizeBytes(), Want: limit, Got: h.NextOffset(),
		Err: fmt.Errorf("%w: offsets of another batch", segment.ErrCorruptBatch)}
}

// damage is a range of a log file that reads step over.
type damage struct{ pos, end int64 }

// damaged lists the ranges of s that are known to be bad: those that the segment found, and those that only the partition
// can tell, because no checksum covers them.
func (s *logSegment) damaged() []damage {
	var out []damage
	if extra := s.extra.Load(); extra != nil {
		out = append(out, *extra...)
	}
	for _, h := range s.r.Holes() {
		out = append(out, damage{h.Pos, h.End})
	}
	return out
}

// learn takes in where damage that was met while reading ends, so that the reader can go on behind it when it asks again.
// A sound checksum vouches for the batch's length; else the segment is looked through once. It may read the whole file.
func (s *logSegment) learn(c *segment.CorruptError) error {
	if c.End > c.Pos {
		for {
			old := s.extra.Load()
			list := []damage{{c.Pos, c.End}}
			if old != nil {
				list = append(list, *old...)
			}
			if s.extra.CompareAndSwap(old, &list) {
				return nil
			}
		}
	}
	if !s.r.Meta().Sealed {
		return nil
	}
	return s.r.RebuildIndex()
}

func isCorrupt(err error) bool {
	var c *segment.CorruptError
	return errors.As(err, &c)
}

// noteCorruption counts and logs damage found while reading, once per place.
func (l *Log) noteCorruption(err error) {
	var c *segment.CorruptError
	if errors.As(err, &c) {
		l.store.corruption(l, c)
	} else if !errors.Is(err, io.EOF) {
		l.log.Warn("read failed", "err", err)
	}
}
