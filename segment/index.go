package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

const (
	indexEntrySize = 8
	timeEntrySize  = 12
)

// indexEntry says: the batch that holds offset base+rel begins at byte pos or after it, and pos is a batch boundary.
type indexEntry struct {
	rel uint32
	pos uint32
}

// timeEntry says: ms is the largest timestamp up to offset base+rel, and the batch that ends there carries it.
type timeEntry struct {
	ms  int64
	rel uint32
}

// index is the offset index and time index of one segment in memory. Kafka's rules of appending are in add: a segment
// that is indexed as it grows, after a restart or by a rebuild gets the same entries.
type index struct {
	base    Offset
	entries []indexEntry
	times   []timeEntry
	// aborted are the transactions that markers in the segment aborted; txnFault: the file that should tell is damaged.
	aborted  []AbortedTxn
	txnFault error
}

// bytes is what the index costs in memory.
func (x *index) bytes() int64 {
	return int64(cap(x.entries))*8 + int64(cap(x.times))*16 + int64(cap(x.aborted))*32
}

// lastPos is the position of the newest entry, 0 without one.
func (x *index) lastPos() int64 {
	if len(x.entries) == 0 {
		return 0
	}
	return int64(x.entries[len(x.entries)-1].pos)
}

// add appends the entry for the batch that ends at last and begins at pos; maxMs is the largest timestamp so far, seen
// in the batch that ends at maxAt.
func (x *index) add(last Offset, pos, maxMs int64, maxAt Offset) {
	rel := uint32(last - x.base)
	if n := len(x.entries); n > 0 && rel <= x.entries[n-1].rel {
		return // only after damage: an index never goes back
	}
	x.entries = append(x.entries, indexEntry{rel: rel, pos: uint32(pos)})
	x.addTime(maxMs, maxAt)
}

// addTime is TimeIndex.maybeAppend: only a larger timestamp makes an entry.
func (x *index) addTime(ms int64, at Offset) {
	lastMs := int64(noTimestamp)
	if n := len(x.times); n > 0 {
		lastMs = x.times[n-1].ms
	}
	if ms > lastMs {
		x.times = append(x.times, timeEntry{ms: ms, rel: uint32(at - x.base)})
	}
}

// floor is a batch boundary at or before the batch that holds from: 0 when no entry is that low.
func (x *index) floor(from Offset) indexEntry {
	i := sort.Search(len(x.entries), func(i int) bool { return x.base+Offset(x.entries[i].rel) > from })
	if i == 0 {
		return indexEntry{}
	}
	return x.entries[i-1]
}

// boundary is the largest indexed batch boundary <= pos.
func (x *index) boundary(pos int64) indexEntry {
	i := sort.Search(len(x.entries), func(i int) bool { return int64(x.entries[i].pos) > pos })
	if i == 0 {
		return indexEntry{}
	}
	return x.entries[i-1]
}

// timeFloor is the offset to start from when looking for the first record at or after ms.
func (x *index) timeFloor(ms int64) Offset {
	i := sort.Search(len(x.times), func(i int) bool { return x.times[i].ms > ms })
	if i == 0 {
		return x.base
	}
	return x.base + Offset(x.times[i-1].rel)
}

// newestBefore is the largest timestamp up to the last entry at or below pos, noTimestamp without one. The batch at pos may be counted in.
func (x *index) newestBefore(pos int64) int64 {
	e := x.boundary(pos)
	i := sort.Search(len(x.times), func(i int) bool { return x.times[i].rel > e.rel })
	if i == 0 || e == (indexEntry{}) {
		return noTimestamp
	}
	return x.times[i-1].ms
}

// truncate forgets every entry for which keep is false; keep must be monotonic (true, then false).
func (x *index) truncate(keep func(indexEntry) bool) {
	n := sort.Search(len(x.entries), func(i int) bool { return !keep(x.entries[i]) })
	x.entries = x.entries[:n]
	last := uint32(0)
	if n > 0 {
		last = x.entries[n-1].rel
	}
	t := sort.Search(len(x.times), func(i int) bool { return n == 0 || x.times[i].rel > last })
	x.times = x.times[:t]
}

// continues tells whether x begins with what y holds.
func (x *index) continues(y index) bool {
	return len(y.entries) <= len(x.entries) && slices.Equal(x.entries[:len(y.entries)], y.entries) &&
		len(y.times) <= len(x.times) && slices.Equal(x.times[:len(y.times)], y.times)
}

// encodeEntries appends the entries from i on in the format of .index.
func (x *index) encodeEntries(b []byte, i int) []byte {
	for _, e := range x.entries[i:] {
		b = binary.BigEndian.AppendUint32(b, e.rel)
		b = binary.BigEndian.AppendUint32(b, e.pos)
	}
	return b
}

// encodeTimes appends the entries from i on in the format of .timeindex.
func (x *index) encodeTimes(b []byte, i int) []byte {
	for _, t := range x.times[i:] {
		b = binary.BigEndian.AppendUint64(b, uint64(t.ms))
		b = binary.BigEndian.AppendUint32(b, t.rel)
	}
	return b
}

var errNotMonotonic = errors.New("entries are not in ascending order")

// decodeIndex reads the contents of .index and .timeindex of a log of logSize bytes and checks every entry against its
// neighbours and the bounds; whether a position really is a batch boundary shows only in the log.
// Errors: *CorruptError without Path (indexFault says which of the two).
func decodeIndex(base Offset, offsets, times []byte, logSize int64) (*index, error) {
	x := &index{base: base}
	var err error
	if x.entries, err = decodeEntries(offsets, nil, logSize); err != nil {
		return nil, &indexFault{suffix: indexSuffix, err: err}
	}
	if x.times, err = decodeTimes(times, nil); err != nil {
		return nil, &indexFault{suffix: timeIndexSuffix, err: err}
	}
	return x, nil
}

// indexFault tells in which of the two index files the fault is.
type indexFault struct {
	suffix string
	err    error
}

func (e *indexFault) Error() string { return e.suffix + ": " + e.err.Error() }
func (e *indexFault) Unwrap() error { return e.err }

// decodeEntries appends the entries in b to entries, which they must continue.
func decodeEntries(b []byte, entries []indexEntry, logSize int64) ([]indexEntry, error) {
	if len(b)%indexEntrySize != 0 {
		return nil, &CorruptError{Pos: -1, Err: fmt.Errorf("%d bytes are no multiple of %d", len(b), indexEntrySize)}
	}
	if entries == nil {
		entries = make([]indexEntry, 0, len(b)/indexEntrySize)
	}
	for at := 0; at < len(b); at += indexEntrySize {
		e := indexEntry{rel: binary.BigEndian.Uint32(b[at:]), pos: binary.BigEndian.Uint32(b[at+4:])}
		if e.rel > math.MaxInt32 || int64(e.pos) >= logSize {
			return nil, &CorruptError{Pos: int64(at), Err: fmt.Errorf("entry (%d, %d) outside a log of %d bytes", e.rel, e.pos, logSize)}
		}
		if n := len(entries); n > 0 && (e.rel <= entries[n-1].rel || e.pos <= entries[n-1].pos) {
			return nil, &CorruptError{Pos: int64(at), Err: errNotMonotonic}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// decodeTimes appends the entries in b to times, which they must continue.
func decodeTimes(b []byte, times []timeEntry) ([]timeEntry, error) {
	if len(b)%timeEntrySize != 0 {
		return nil, &CorruptError{Pos: -1, Err: fmt.Errorf("%d bytes are no multiple of %d", len(b), timeEntrySize)}
	}
	if times == nil {
		times = make([]timeEntry, 0, len(b)/timeEntrySize)
	}
	for at := 0; at < len(b); at += timeEntrySize {
		t := timeEntry{ms: int64(binary.BigEndian.Uint64(b[at:])), rel: binary.BigEndian.Uint32(b[at+8:])}
		if t.rel > math.MaxInt32 || t.ms < 0 {
			return nil, &CorruptError{Pos: int64(at), Err: fmt.Errorf("entry (%d ms, %d) cannot be", t.ms, t.rel)}
		}
		if n := len(times); n > 0 && (t.ms <= times[n-1].ms || t.rel < times[n-1].rel) {
			return nil, &CorruptError{Pos: int64(at), Err: errNotMonotonic}
		}
		times = append(times, t)
	}
	return times, nil
}
