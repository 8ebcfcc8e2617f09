package tiering

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"lagoon/segment"
)

// ReaderState is one reader of a partition, as the planner sees it.
type ReaderState struct {
	Name           string         // for people: "group:warehouse"
	Offset         segment.Offset // the next one it reads
	BytesPerSecond int64          // measured over the last minute; 0: stands still, or not known yet
	Active         bool           // it asks for data; false: stalled or stopped
}

// need says who has yet to read a segment; larger leaves later.
type need uint8

const (
	needNobody need = iota // every known reader has passed it
	needAbsent             // a reader that is stalled or stopped has yet to read it
	needReader             // a reader that is at work comes to it
)

// demand is what is known about the next reads of one segment.
type demand struct {
	need   need
	in     time.Duration // needReader: until the first one comes to it, 0: it is in it, maxAge: not known
	reader string
	passed bool // needNobody: there are readers, and all are behind it
}

// lane is a partition's log laid out in bytes, with its readers on it.
type lane struct {
	starts  []int64 // of the segments, in offset order
	readers []placed
}

type placed struct {
	ReaderState
	at int64
}

// layOut places readers by offset: within a segment in proportion, which is as good as the measured rate.
func layOut(segments []SegmentState, readers []ReaderState) lane {
	if len(readers) == 0 {
		return lane{}
	}
	l := lane{starts: make([]int64, len(segments)+1)}
	for i, seg := range segments {
		l.starts[i+1] = addBytes(l.starts[i], max(seg.SizeBytes, 0))
	}
	for _, r := range readers {
		i, found := slices.BinarySearchFunc(segments, r.Offset, func(s SegmentState, off segment.Offset) int { return cmp.Compare(s.Base, off) })
		if !found {
			i--
		}
		at := int64(0)
		if i >= 0 {
			at = l.starts[i]
			if i+1 < len(segments) && segments[i+1].Base > segments[i].Base {
				part := float64(r.Offset-segments[i].Base) / float64(segments[i+1].Base-segments[i].Base)
				at += int64(part * float64(segments[i].SizeBytes))
			}
		}
		l.readers = append(l.readers, placed{r, at})
	}
	slices.SortFunc(l.readers, func(a, b placed) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.Name, b.Name)) })
	return l
}

// of is the demand for segment i.
func (l *lane) of(i int) demand {
	d := demand{passed: len(l.readers) > 0}
	for _, r := range l.readers {
		if r.at >= l.starts[i+1] {
			break // this one and those after it have passed the segment
		}
		d.passed = false
		if !r.Active {
			if d.need == needNobody {
				d.need, d.reader = needAbsent, r.Name
			}
			continue
		}
		if in := l.reaches(r, i); d.need != needReader || in < d.in {
			d.need, d.in, d.reader = needReader, in, r.Name
		}
	}
	return d
}

func (l *lane) reaches(r placed, i int) time.Duration {
	ahead := l.starts[i] - r.at
	switch {
	case ahead <= 0:
		return 0
	case r.BytesPerSecond <= 0:
		return maxAge
	}
	return time.Duration(min(float64(ahead)/float64(r.BytesPerSecond), maxAge.Seconds()) * float64(time.Second))
}

// soon tells that a reader comes to the segment within the horizon: it is left where it is.
func (d demand) soon(horizon time.Duration) bool {
	return horizon > 0 && d.need == needReader && d.in <= horizon
}

// String is the demand as part of a sentence; "" when nobody is known to read the partition.
func (d demand) String() string {
	switch {
	case d.need == needAbsent:
		return d.reader + " has yet to read it and is not reading now"
	case d.need == needReader && d.in == 0:
		return d.reader + " is reading it"
	case d.need == needReader && d.in == maxAge:
		return d.reader + " has yet to read it"
	case d.need == needReader:
		return fmt.Sprintf("%s comes to it in %s", d.reader, soonText(d.in))
	case d.passed:
		return "every reader has passed it"
	}
	return ""
}

// soonText rounds to what a person would say.
func soonText(d time.Duration) string {
	if d < time.Minute {
		return ageText(time.Duration(math.Ceil(d.Seconds())) * time.Second)
	}
	return ageText(d.Round(time.Minute))
}

// leastNeeded is the order in which segments leave a tier that is too full: what nobody comes to, oldest first; then what
// readers come to, last needed first; what is pinned there after all others.
func leastNeeded(a, b *candidate) int {
	if a.atHome() != b.atHome() {
		return falseFirst(a.atHome(), b.atHome())
	}
	byNeed := cmp.Compare(a.demand.need, b.demand.need)
	if byNeed == 0 && a.demand.need == needReader {
		byNeed = cmp.Compare(b.demand.in, a.demand.in)
	}
	return cmp.Or(byNeed, before(a, b))
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// atHome: it lies in the tier that it is pinned to.
func (c *candidate) atHome() bool { return c.pinned && c.tier == c.pin }

// inTurn is the order in which moves are proposed: out of the coldest tier first; there what nobody comes to first; and
// where a full tier has to give up what readers come to, last needed first. What rises comes last.
func inTurn(a, b *candidate) int {
	if a.rises() || b.rises() {
		return cmp.Or(falseFirst(a.rises(), b.rises()), newestFirst(a, b))
	}
	byNeed := cmp.Or(cmp.Compare(b.tier, a.tier), cmp.Compare(a.demand.need, b.demand.need))
	if byNeed != 0 || a.demand.need != needReader {
		return cmp.Or(byNeed, before(a, b))
	}
	switch {
	case a.pressed() && b.pressed():
		return leastNeeded(a, b)
	case a.pressed():
		return 1
	case b.pressed():
		return -1
	}
	return before(a, b)
}

// pressed: it leaves because its tier is too full.
func (c *candidate) pressed() bool { return c.cause == CauseWatermark || c.cause == CauseRoom }
