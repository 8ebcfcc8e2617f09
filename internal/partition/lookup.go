package partition

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lagoon/internal/records"
	"lagoon/segment"
)

// lookupParallel bounds the lookups that read in one directory at a time: each holds one pooled buffer and one thread.
const lookupParallel = 4

// OffsetForTime finds the first record whose timestamp is at least ms, as Kafka's ListOffsets does. Offset -1 when there is
// none. It may read a device, around the cache, and then blocks.
func (l *Log) OffsetForTime(ctx context.Context, ms int64) (TimestampOffset, error) {
	for tries := 0; ; tries++ {
		found, err := l.offsetForTime(ctx, ms)
		if tries == lookupTries || !errors.Is(err, segment.ErrSuperseded) {
			return found, err
		}
	}
}

// lookupTries is how often a lookup begins anew because a segment lies elsewhere now, or in another one.
const lookupTries = 8

func (l *Log) offsetForTime(ctx context.Context, ms int64) (TimestampOffset, error) {
	none := TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}
	if err := l.Err(); err != nil {
		return none, err
	}
	v, b := l.view.Load(), l.readable()
	for i, s := range v.segs {
		if v.next(i) <= v.start || s.base >= b.offset {
			continue
		}
		found, ok, err := l.timeInSegment(ctx, v, i, ms, b.offset)
		if err != nil || ok {
			return found, err
		}
	}
	return none, nil
}

// timeInSegment looks in segment i, if its largest timestamp says that it may hold an answer.
func (l *Log) timeInSegment(ctx context.Context, v *view, i int, ms int64, limit segment.Offset) (TimestampOffset, bool, error) {
	s := v.segs[i]
	if !s.r.Acquire() {
		return TimestampOffset{}, false, fmt.Errorf("look up %s: %w", l.dir, segment.ErrSuperseded)
	}
	defer s.r.Release()
	largest, _, err := s.r.MaxTimestamp()
	if err != nil {
		return TimestampOffset{}, false, err
	}
	if largest < 0 { // no record has a time, or the time index is gone: then the first batch has one
		first, err := s.r.FirstTimestamp()
		if err == nil && first < 0 {
			return TimestampOffset{}, false, nil
		}
	} else if largest < ms {
		return TimestampOffset{}, false, nil
	}
	pos, ok, err := s.r.FindTime(ms)
	if err != nil {
		return TimestampOffset{}, false, err
	}
	if !ok {
		pos = 0
	}
	var found TimestampOffset
	hit := false
	err = l.scan(ctx, s, pos, func(h segment.BatchHeader, full []byte) (bool, error) {
		if h.BaseOffset >= limit {
			return false, nil
		}
		if h.MaxTimestamp < ms || h.LastOffset() < v.start {
			return true, nil
		}
		err := records.Each(h, full, func(r records.Record) bool {
			if r.TimestampMs >= ms && r.Offset >= v.start && r.Offset < limit {
				found, hit = TimestampOffset{r.Offset, r.TimestampMs, h.LeaderEpoch}, true
			}
			return !hit
		})
		return !hit, err
	})
	return found, hit, err
}

// MaxTimestamp finds the first record with the largest timestamp (ListOffsets -3). Offset -1 when the log is empty.
func (l *Log) MaxTimestamp(ctx context.Context) (TimestampOffset, error) {
	for tries := 0; ; tries++ {
		found, err := l.maxTimestamp(ctx)
		if tries == lookupTries || !errors.Is(err, segment.ErrSuperseded) {
			return found, err
		}
	}
}

func (l *Log) maxTimestamp(ctx context.Context) (TimestampOffset, error) {
	none := TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}
	if err := l.Err(); err != nil {
		return none, err
	}
	v, b := l.view.Load(), l.readable()
	largest := map[int]int64{} // by segment; of the first and the last at most, whose ends may be out of sight
	for {
		newest, at := int64(-1), -1
		for i, s := range v.segs {
			if v.next(i) <= v.start || s.base >= b.offset {
				continue
			}
			ms, known := largest[i]
			if !known {
				if !s.r.Acquire() { // it may hold the newest, wherever it is now
					return none, fmt.Errorf("look up %s: %w", l.dir, segment.ErrSuperseded)
				}
				var err error
				ms, _, err = s.r.MaxTimestamp()
				s.r.Release()
				if err != nil {
					return none, err
				}
			}
			if ms > newest {
				newest, at = ms, i
			}
		}
		if at < 0 {
			return none, nil
		}
		found, ok, err := l.timeInSegment(ctx, v, at, newest, b.offset)
		if err != nil || ok {
			return found, err
		}
		if _, known := largest[at]; known {
			return none, nil
		}
		// It is not durable yet, or was deleted.
		if largest[at], err = l.largestSeen(ctx, v, at, b.offset); err != nil {
			return none, err
		}
	}
}

// largestSeen is the largest timestamp in segment i from the log's start on and below limit, -1 without any. It reads what lies behind the
// last index entry below limit; in a segment whose beginning was deleted all of the rest.
func (l *Log) largestSeen(ctx context.Context, v *view, i int, limit segment.Offset) (largest int64, err error) {
	s := v.segs[i]
	if !s.r.Acquire() {
		return -1, fmt.Errorf("look up %s: %w", l.dir, segment.ErrSuperseded)
	}
	defer s.r.Release()
	from := max(v.start, s.base)
	if from == s.base {
		from = max(from, min(limit, v.next(i))-1)
	}
	pos, err := s.r.Floor(from)
	if err != nil {
		return -1, err
	}
	largest = -1
	if from > v.start {
		if largest, err = s.r.MaxTimestampBefore(pos); err != nil {
			return -1, err
		}
	}
	err = l.scan(ctx, s, pos, func(h segment.BatchHeader, full []byte) (bool, error) {
		switch {
		case h.BaseOffset >= limit:
			return false, nil
		case h.BaseOffset >= v.start:
			largest = max(largest, h.MaxTimestamp)
		case h.LastOffset() >= v.start: // a part of the batch was deleted
			return true, records.Each(h, full, func(r records.Record) bool {
				if r.Offset >= v.start {
					largest = max(largest, r.TimestampMs)
				}
				return true
			})
		}
		return true, nil
	})
	return largest, err
}

// Scan feeds the whole batches from the one that holds from up to the readable end to fn, in order, until fn says stop or fails. It
// reads around the cache and blocks on the device. Damaged ranges are reported, stepped over and counted. Each batch is valid until
// fn returns; its checksum has been verified.
func (l *Log) Scan(ctx context.Context, from segment.Offset, fn func(h segment.BatchHeader, batch []byte) (more bool, err error)) (damaged int, err error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	limit := l.readable().offset
	for tries := 0; from < limit; {
		v := l.view.Load()
		from = max(from, v.start)
		i := max(0, v.find(from))
		stopped, began := false, from
		n, err := l.scanSegment(ctx, v.segs[i], from, func(h segment.BatchHeader, batch []byte) (bool, error) {
			if h.BaseOffset >= limit {
				stopped = true
				return false, nil
			}
			if h.LastOffset() < from {
				return true, nil
			}
			more, err := fn(h, batch)
			stopped, from = !more, h.NextOffset()
			return more, err
		})
		damaged += n
		if gone := errors.Is(err, segment.ErrSuperseded) || errors.Is(err, ErrClosed); gone && l.Err() == nil {
			if tries++; from > began {
				tries = 0
			}
			if tries < 64 { // another segment has taken its place, or retention has
				continue
			}
		}
		if err != nil || stopped {
			return damaged, err
		}
		from = v.next(i)
	}
	return damaged, nil
}

// scanSegment scans one segment and steps over what is damaged in it.
func (l *Log) scanSegment(ctx context.Context, s *logSegment, from segment.Offset, fn func(h segment.BatchHeader, batch []byte) (bool, error)) (damaged int, err error) {
	if !s.r.Acquire() {
		return 0, fmt.Errorf("scan %s: %w: segment is gone, ask again", l.dir, ErrClosed)
	}
	defer s.r.Release()
	pos, err := s.r.Floor(max(from, s.base))
	if err != nil {
		return 0, err
	}
	for {
		err := l.scan(ctx, s, pos, fn)
		var c *segment.CorruptError
		if !errors.As(err, &c) {
			return damaged, err
		}
		damaged++
		if err := s.learn(c); err != nil {
			return damaged, err
		}
		behind := pos
		for _, d := range s.damaged() {
			if d.pos <= c.Pos && c.Pos < d.end {
				behind = max(behind, d.end)
			}
		}
		if behind <= c.Pos {
			return damaged, nil // where it ends is not known: the rest of the segment is lost
		}
		pos = behind
	}
}

// scan feeds whole batches of s from byte pos on to fn until it says stop, reading around the cache.
func (l *Log) scan(ctx context.Context, s *logSegment, pos int64, fn func(h segment.BatchHeader, full []byte) (more bool, err error)) error {
	select {
	case s.dir.lookups <- struct{}{}:
		defer func() { <-s.dir.lookups }()
	case <-ctx.Done():
		return ctx.Err()
	}
	free := func(context.Context, int64, int64) (func(), error) { return func() {}, nil }
	return l.scanPaced(ctx, s, pos, func() int64 { return lookupBytes }, free, fn)
}

// scanPaced is scan for background work: step says how much the next read asks for, pace gives the turn for it, until done is called.
func (l *Log) scanPaced(ctx context.Context, s *logSegment, pos int64, step func() int64, pace func(ctx context.Context, pos, n int64) (done func(), err error),
	fn func(h segment.BatchHeader, full []byte) (more bool, err error)) error {
	st := l.store
	h, err := st.borrowHandle(s)
	if err != nil {
		return err
	}
	defer h.release()
	buf, err := st.opt.Pool.Get(ctx)
	if err != nil {
		return err
	}
	defer buf.Release()
	c := &coldChunk{handle: h, limit: s.r.Meta().SizeBytes}
	for pos < c.limit {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.pos = pos
		n := min(step(), st.chunkBytes(), c.limit-pos)
		done, err := pace(ctx, pos, n)
		if err != nil {
			return err
		}
		data, err := c.readRange(st, buf, pos, n)
		done()
		if err != nil {
			return err
		}
		whole, _, err := checkBatches(l, s, pos, data)
		if err == nil && whole == 0 {
			if data, err = c.readLargeBatch(l, buf, data); err == nil {
				whole, _, err = checkBatches(l, s, pos, data)
			}
			if err == nil && whole == 0 {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			l.noteCorruption(err)
			return err
		}
		for rest := data[:whole]; len(rest) > 0; {
			h, err := segment.DecodeHeader(rest)
			if err != nil {
				return err
			}
			more, err := fn(h, rest[:h.SizeBytes()])
			if err != nil || !more {
				return err
			}
			rest = rest[h.SizeBytes():]
		}
		pos += int64(whole)
	}
	return nil
}

// lookupBytes is one read of a lookup: the time index brings it to within a few batches.
const lookupBytes = 256 << 10

// borrowHandle opens descriptors for one scan; the caller's own Acquire stays the caller's.
func (s *Store) borrowHandle(seg *logSegment) (*coldHandle, error) {
	if !seg.r.Acquire() {
		return nil, fmt.Errorf("%w: segment is gone", ErrClosed)
	}
	return newHandle(seg), nil
}

// TieredOffsets: the last offset in a colder tier (-1: none), and the first one that is not there yet, of those that readers see.
func (l *Log) TieredOffsets() (latestTiered, earliestPending segment.Offset) {
	v := l.view.Load()
	seen := l.readable().offset
	latestTiered, earliestPending = -1, v.start
	for i, s := range v.segs {
		if next := min(v.next(i), seen); s.dir.rank > 0 && next > v.start {
			latestTiered, earliestPending = next-1, next
		}
	}
	return latestTiered, earliestPending
}
