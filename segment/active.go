package segment

import "sync"

// Meta describes one segment. Offsets are half-open: [Base, Next).
type Meta struct {
	Base, Next Offset
	SizeBytes  int64
	// MaxTimestampMs is -1 when no record has a time, and also for a sealed segment whose time index was not read yet
	// (Reader.MaxTimestamp reads it).
	MaxTimestampMs     int64
	MaxTimestampOffset Offset // last offset of the batch that holds that record
	Sealed             bool
}

// active is what a segment is while it grows: the writer changes it under mu, readers look under mu. Bytes below
// meta.SizeBytes never change, so readers use the file itself without it.
type active struct {
	mu      sync.RWMutex
	meta    Meta
	idx     index
	firstMs int64 // max timestamp of the first batch; -1 while empty
}

func newActive(base Offset) *active {
	return &active{
		meta:    Meta{Base: base, Next: base, MaxTimestampMs: noTimestamp, MaxTimestampOffset: base},
		idx:     index{base: base},
		firstMs: noTimestamp,
	}
}

// note takes in the batch that was written at the end, with Kafka's rule for index entries: one for the first batch
// that begins more than interval bytes behind the last entry.
func (a *active) note(h BatchHeader, interval int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pos := a.meta.SizeBytes
	if pos == 0 {
		a.firstMs = h.MaxTimestamp
	}
	if h.MaxTimestamp > a.meta.MaxTimestampMs {
		a.meta.MaxTimestampMs, a.meta.MaxTimestampOffset = h.MaxTimestamp, h.LastOffset()
	}
	if pos-a.idx.lastPos() > int64(interval) {
		a.idx.add(h.LastOffset(), pos, a.meta.MaxTimestampMs, a.meta.MaxTimestampOffset)
	}
	a.meta.SizeBytes += h.SizeBytes()
	a.meta.Next = h.NextOffset()
}

// skip takes in a damaged range that ends at end; next is the offset of the batch there, or to continue with.
func (a *active) skip(end int64, next Offset) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.meta.SizeBytes, a.meta.Next = end, next
}

// finishTimes appends the last time index entry, as Kafka does at roll and at close.
func (a *active) finishTimes() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.meta.MaxTimestampMs >= 0 {
		a.idx.addTime(a.meta.MaxTimestampMs, a.meta.MaxTimestampOffset)
	}
}

func (a *active) snapshot() Meta {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.meta
}
