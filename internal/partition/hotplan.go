package partition

import (
	"sort"
	"time"

	"lagoon/cachectl"
)

// hotplan.go decides what stays in the page cache. It is pure; hotwindow.go does what it says.

// DropBehind says when pages are dropped that no real-time reader needs any more.
type DropBehind string

// Drop-behind modes. In auto, pages stay while memory is plentiful, for whoever comes back to them, and go before the kernel
// would have to choose what goes.
const (
	DropAuto DropBehind = "auto"
	DropOn   DropBehind = "on"
	DropOff  DropBehind = "off"
)

const (
	// hotMargin is kept behind the slowest real-time reader, so that one that steps back a little hits.
	hotMargin = cachectl.WindowBytes
	// hotReserve is memory that hot windows never count on: the heap (150 MiB at 100 MiB/s, docs/benchmarks.md), stacks, page
	// tables, sockets, dirty pages.
	hotReserve = 192 << 20
	// plentyShare: in auto, pages are dropped when less than one part in this many of the memory is free. The kernel begins
	// to reclaim near a full group; producers fill an eighth of a gibibyte in more than a second.
	plentyShare = 8
)

// hotMark: age ago the end of the log was at end.
type hotMark struct {
	end int64
	age time.Duration
}

// hotLog is what is known of one partition. Positions are bytes, on the scale of Log.endPos.
type hotLog struct {
	start, end int64
	reader     int64     // of the slowest real-time reader; -1: none
	wanted     bool      // it has a real-time reader, or lately had one
	marks      []hotMark // oldest first
}

// hotLimits is what all partitions together may take.
type hotLimits struct {
	budget int64         // bytes
	keep   time.Duration // what was appended since then is kept for readers that are on their way
	drop   DropBehind
	memory cachectl.Memory // for auto
}

// hotKeep is the decision for one partition: [from, end) is kept, what lies before drop goes; drop <= from.
type hotKeep struct{ from, drop int64 }

// hotPlan is the decision for all.
type hotPlan struct {
	logs     []hotKeep
	kept     int64         // bytes
	wanted   int64         // bytes that would be kept if there were memory for it
	seconds  time.Duration // of tail for the partitions among which memory is short, keep when it is not
	short    bool          // wanted is more than the budget
	dropping bool
}

// hotBudget is what hot windows may take now: a share of the limit, but never so much that less than as much as they grow by
// is left for everything else. pinned counts as neither free nor available.
func hotBudget(share float64, m cachectl.Memory, pinned, reserve int64) int64 {
	return max(0, min(hotMost(share, m, reserve), pinned+(m.Available-hotReserve/2)/2))
}

// hotMost is what hot windows may take at any time.
func hotMost(share float64, m cachectl.Memory, reserve int64) int64 {
	return int64(share * float64(max(0, m.Limit-reserve)))
}

// tail is how many of the newest bytes were appended in the last d, evenly between two marks. What came before the first mark
// counts as older.
func (l *hotLog) tail(d time.Duration) int64 {
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].age <= d }) // the oldest mark inside
	if d < 0 || len(l.marks) == 0 {
		return 0
	}
	at := l.end
	if i < len(l.marks) {
		at = min(at, l.marks[i].end)
	}
	if i > 0 { // part of what came after the mark before it
		newer := time.Duration(0)
		if i < len(l.marks) {
			newer = l.marks[i].age
		}
		older := l.marks[i-1]
		if span := older.age - newer; span > 0 && older.end < at {
			at -= int64(float64(at-older.end) * float64(d-newer) / float64(span))
		}
	}
	return l.end - max(l.start, at)
}

// need is what the slowest real-time reader still has to read, and the margin.
func (l *hotLog) need() int64 {
	if l.reader < 0 {
		return 0
	}
	return l.end - max(l.start, min(l.end, l.reader-hotMargin))
}

// planHot shares the budget out. What real-time readers still have to read comes first, then what was appended in the last
// keep where there are such readers, then where there lately were; what is short is shared as equal time, newest bytes first.
func planHot(lim hotLimits, logs []hotLog) hotPlan {
	p := hotPlan{logs: make([]hotKeep, len(logs)), seconds: lim.keep}
	needs, wants := make([]int64, len(logs)), make([]int64, len(logs))
	var needed, wantedByReaders int64
	for i := range logs {
		l := &logs[i]
		if l.wanted {
			needs[i] = l.need()
			wants[i] = max(needs[i], l.tail(lim.keep))
		}
		needed += needs[i]
		if l.reader >= 0 {
			wantedByReaders += wants[i]
		}
		p.wanted += wants[i]
	}
	most, give := lim.keep, func(i int, _ time.Duration) int64 { return wants[i] }
	switch {
	case p.wanted <= lim.budget:
	case needed > lim.budget:
		most, give = oldest(logs), func(i int, d time.Duration) int64 { return min(needs[i], logs[i].tail(d)) }
	case wantedByReaders > lim.budget:
		give = func(i int, d time.Duration) int64 {
			if logs[i].reader < 0 {
				return 0
			}
			return max(needs[i], min(wants[i], logs[i].tail(d)))
		}
	default:
		give = func(i int, d time.Duration) int64 {
			if logs[i].reader >= 0 {
				return wants[i]
			}
			return min(wants[i], logs[i].tail(d))
		}
	}
	if p.wanted > lim.budget {
		p.short, p.seconds = true, mostTime(most, lim.budget, logs, give)
	}
	p.dropping = lim.drop == DropOn || lim.drop == DropAuto && lim.memory.Free < lim.memory.Limit/plentyShare
	for i := range logs {
		l := &logs[i]
		n := give(i, p.seconds)
		p.kept += n
		p.logs[i].from = l.end - n
		if p.dropping {
			p.logs[i].drop = p.logs[i].from
			if l.wanted && l.reader >= 0 { // whatever the budget says
				p.logs[i].drop = max(0, min(p.logs[i].drop, l.reader-hotMargin))
			}
		}
	}
	return p
}

// oldest is the age of the oldest mark.
func oldest(logs []hotLog) (age time.Duration) {
	for i := range logs {
		if len(logs[i].marks) > 0 {
			age = max(age, logs[i].marks[0].age)
		}
	}
	return age
}

// mostTime is the longest time, to a hundredth of a second, for which the bytes of all logs fit; negative when not even the
// newest marks do.
func mostTime(most time.Duration, budget int64, logs []hotLog, bytes func(i int, d time.Duration) int64) time.Duration {
	const step = 10 * time.Millisecond
	n := sort.Search(int(most/step)+1, func(n int) bool {
		sum := int64(0)
		for i := range logs {
			sum += bytes(i, time.Duration(n)*step)
		}
		return sum > budget
	})
	return time.Duration(n-1) * step
}
