package compaction

import (
	"cmp"
	"math"
	"slices"

	"lagoon/segment"
)

// LogState is what Plan knows of one compacted partition. Times in ms.
type LogState struct {
	Topic     string
	Partition int32
	Start     segment.Offset // log start
	Cleaned   segment.Offset // everything below was cleaned, by the checkpoint
	// Stable is the last stable offset: what lies above may be in an open transaction, or not yet on stable storage.
	Stable   segment.Offset
	Segments []SegmentState // ascending; the last one is active

	MinRatio float64 // min.cleanable.dirty.ratio
	MinLagMs int64   // min.compaction.lag.ms
	MaxLagMs int64   // max.compaction.lag.ms
}

// SegmentState is one segment.
type SegmentState struct {
	Base, Next     segment.Offset
	SizeBytes      int64
	MaxTimestampMs int64 // -1: none
	FirstMs        int64 // time of the first batch, -1: not known
	Ready          bool  // sealed, on stable storage, and covered by a producer snapshot
	Place          int   // the directory: only segments in one can be put together
}

// Work is what there is to clean in one log.
type Work struct {
	Topic     string
	Partition int32
	From      segment.Offset // first dirty offset
	To        segment.Offset // first offset that must not be cleaned yet
	Clean     int64          // bytes below From
	Dirty     int64          // bytes of [From, To)
	Ratio     float64        // Dirty / (Clean + Dirty)
	OverdueMs int64          // by how much max.compaction.lag.ms is exceeded, 0: it is not
	Due       bool
	Why       string // what decided, for people
}

// Plan looks at every log and says what can be cleaned, what is due first. Overdue ones come before others, then the dirtiest.
func Plan(nowMs int64, logs []LogState) []Work {
	works := make([]Work, 0, len(logs))
	for _, l := range logs {
		works = append(works, l.work(nowMs))
	}
	slices.SortStableFunc(works, func(a, b Work) int {
		return cmp.Or(boolCompare(b.Due, a.Due), boolCompare(b.OverdueMs > 0, a.OverdueMs > 0), cmp.Compare(b.Ratio, a.Ratio))
	})
	return works
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (l LogState) work(nowMs int64) Work {
	w := Work{Topic: l.Topic, Partition: l.Partition, From: max(l.Cleaned, l.Start)}
	end := l.Start
	if n := len(l.Segments); n > 0 {
		end = l.Segments[n-1].Base
		if w.From > l.Segments[n-1].Next {
			w.From = l.Start // the checkpoint is from a longer log
		}
	}
	w.To, w.Why = l.limit(nowMs, w.From)
	oldest := int64(math.MaxInt64)
	for _, s := range l.Segments {
		switch {
		case s.Next <= l.Start || s.Base >= end:
		case s.Next <= w.From:
			w.Clean += s.SizeBytes
		case s.Next <= w.To:
			w.Dirty += s.SizeBytes
		}
		if s.Next > w.From && s.Base < end && s.FirstMs >= 0 {
			oldest = min(oldest, s.FirstMs)
		}
	}
	if w.Clean+w.Dirty > 0 {
		w.Ratio = float64(w.Dirty) / float64(w.Clean+w.Dirty)
	}
	if oldest < math.MaxInt64 && l.MaxLagMs < nowMs-oldest {
		w.OverdueMs = nowMs - oldest - l.MaxLagMs
	}
	switch {
	case w.Dirty == 0 && w.Why != "":
	case w.Dirty == 0:
		w.Why = "nothing is dirty"
	case w.OverdueMs > 0:
		w.Due, w.Why = true, "max.compaction.lag.ms is exceeded"
	case w.Ratio > l.MinRatio:
		w.Due, w.Why = true, "the dirty ratio is above min.cleanable.dirty.ratio"
	default:
		w.Why = "the dirty ratio is not above min.cleanable.dirty.ratio"
	}
	return w
}

// limit is the first offset that must not be cleaned, and why, when that is not just the active segment.
func (l LogState) limit(nowMs int64, from segment.Offset) (segment.Offset, string) {
	for i, s := range l.Segments {
		switch {
		case i == len(l.Segments)-1:
			return max(s.Base, from), ""
		case s.Next <= from:
		case s.Next > l.Stable:
			return max(s.Base, from), "the last stable offset"
		case !s.Ready:
			return max(s.Base, from), "the segment is not sealed yet"
		case l.MinLagMs > 0 && s.MaxTimestampMs > nowMs-l.MinLagMs:
			return max(s.Base, from), "min.compaction.lag.ms"
		}
	}
	return from, ""
}

// Limits bound what the segment may become that takes the place of a group.
type Limits struct {
	SegmentBytes int64
	IndexBytes   int64 // of each index file
}

// Groups puts adjacent segments together that fit into one, oldest first: the segments of [start, end), by their size before cleaning.
// Segments of different places, or too far apart for a relative offset, stay apart. The result are index ranges [from, to).
func Groups(segs []SegmentState, start, end segment.Offset, indexBytes func(i int) int64, lim Limits) [][2]int {
	var out [][2]int
	var size, index int64
	for i, s := range segs {
		if s.Next <= start || s.Base >= end || i == len(segs)-1 {
			continue
		}
		if n := len(out); n > 0 && out[n-1][1] == i {
			first := segs[out[n-1][0]]
			fits := size+s.SizeBytes <= lim.SegmentBytes && index+indexBytes(i) <= lim.IndexBytes &&
				s.Next-1-first.Base <= math.MaxInt32 && s.Place == first.Place
			if fits {
				out[n-1][1] = i + 1
				size += s.SizeBytes
				index += indexBytes(i)
				continue
			}
		}
		out = append(out, [2]int{i, i + 1})
		size, index = s.SizeBytes, indexBytes(i)
	}
	return out
}
