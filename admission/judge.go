package admission

import (
	"fmt"
	"time"
)

// gainSpan is how far back the distance to the end is compared to tell gaining from losing: long enough to cover several
// turns of a busy device (a guess, not a measurement).
const gainSpan = 15 * time.Second

// old tells that what the reader reads next is older than age, or of unknown age.
func (p Position) old(age time.Duration) bool { return p.BehindAge < 0 || p.BehindAge > age }

// contribute keeps the flow's sum of old bytes. It closes the gap that a per-partition rule leaves open: sixty-four
// partitions of 200 MiB each are a backlog too, though each of them alone is inside the window.
func (r *Readers) contribute(rd *reader) {
	var n int64
	if !rd.pos.AtEnd() && rd.pos.old(r.cfg.MinAge) {
		n = rd.pos.BehindBytes
	}
	rd.flow.bytes += n - rd.contributes
	rd.contributes = n
}

// outside applies the window, or one part in parts of it: more than MinBytes behind, alone or with the flow's other partitions,
// and older than MinAge; or further behind than memory can keep for it, however young that is.
func (r *Readers) outside(rd *reader, parts int64) bool {
	if rd.pos.AtEnd() {
		return false
	}
	return rd.beyondMemory(r.maxBytes/parts) ||
		rd.pos.old(r.cfg.MinAge/time.Duration(parts)) && max(rd.pos.BehindBytes, rd.flow.bytes) > r.cfg.MinBytes/parts
}

func (rd *reader) beyondMemory(maxBytes int64) bool {
	return maxBytes > 0 && rd.pos.BehindBytes > maxBytes
}

// judge decides whether the reader is inside or outside the window. It is the hysteresis: out at once at the full
// window, in again after SettleFor below half of it, or at once at the end, which lies a whole window away from out.
func (r *Readers) judge(rd *reader, resumed, rewound bool, now time.Time) {
	switch {
	case rd.pos.AtEnd():
		rd.inside(ReasonAtEnd)
	case r.outside(rd, 1):
		r.outsideBy(rd, rewound)
	case resumed:
		rd.inside(ReasonWithinWindow)
	case !rd.behind:
	case r.outside(rd, 2):
		rd.below = time.Time{}
	case rd.below.IsZero():
		rd.below = now
	case now.Sub(rd.below) >= r.cfg.SettleFor:
		rd.inside(ReasonSettled)
	}
}

func (rd *reader) inside(why Reason) { rd.behind, rd.below, rd.why = false, time.Time{}, why }

func (r *Readers) outsideBy(rd *reader, rewound bool) {
	rd.below = time.Time{}
	switch {
	case rewound:
		rd.why = ReasonRewound
	case rd.behind:
		return // keeps the rule that sent it out
	case !rd.pos.old(r.cfg.MinAge):
		rd.why = ReasonBeyondMemory
	case rd.pos.BehindBytes > r.cfg.MinBytes:
		rd.why = ReasonBeyondWindow
	default:
		rd.why = ReasonFlowBeyondWindow
	}
	rd.behind = true
}

// enter derives the state and tells in the class whether it changed. States are derived, not stepped: whatever happened, the same facts
// give the same state.
func (r *Readers) enter(rd *reader, now time.Time, created bool) {
	state, reason := r.state(rd, now)
	rd.class.Changed = created || state != rd.class.State
	if !rd.class.Changed {
		return
	}
	if state == Stopped { // nobody is going to read this backlog
		rd.flow.bytes -= rd.contributes
		rd.contributes = 0
	}
	rd.class.State, rd.class.Reason, rd.class.Since = state, reason, now
	rd.class.Text = r.text(rd, reason, now)
}

func (r *Readers) state(rd *reader, now time.Time) (State, Reason) {
	lastMove := rd.moved
	if rd.held.After(lastMove) {
		lastMove = rd.held // we made it wait: not its fault
	}
	switch {
	case now.Sub(rd.seen) >= r.cfg.StopAfter:
		return Stopped, ReasonNoFetch
	case !rd.pos.AtEnd() && now.Sub(lastMove) >= r.cfg.StallAfter:
		return Stalled, ReasonNoProgress
	case !rd.behind && rd.why == ReasonAtEnd && !rd.pos.AtEnd():
		return Realtime, ReasonWithinWindow
	case !rd.behind:
		return Realtime, rd.why
	case !rd.below.IsZero():
		return CatchingUp, ReasonSettling
	case rd.trend.gaining():
		return CatchingUp, ReasonGaining
	case !r.outside(rd, 1):
		return Lagging, ReasonAboveHalf
	}
	return Lagging, rd.why
}

// text is a reason with the figures of now.
func (r *Readers) text(rd *reader, reason Reason, now time.Time) string {
	behind := "position " + Bytes(rd.pos.BehindBytes) + " behind end"
	if rd.pos.AtEnd() {
		behind = "at the end of the log"
	}
	window := Bytes(r.cfg.MinBytes)
	switch reason {
	case ReasonAtEnd, ReasonWithinWindow, ReasonSettled:
		return insideText(rd.pos, behind, window, r.cfg.MinAge)
	case ReasonBeyondWindow:
		return behind + " > " + window + ageText(rd.pos, r.cfg.MinAge)
	case ReasonBeyondMemory:
		return fmt.Sprintf("%s > %s, the most that memory can keep for it, %s old", behind, Bytes(r.maxBytes), rd.pos.BehindAge.Round(time.Second))
	case ReasonFlowBeyondWindow:
		return fmt.Sprintf("%s, %s behind in all partitions %s > %s%s",
			behind, rd.key.Flow(), Bytes(rd.flow.bytes), window, ageText(rd.pos, r.cfg.MinAge))
	case ReasonRewound:
		if !rd.pos.old(r.cfg.MinAge) {
			return "jumped back: " + behind + " > " + Bytes(r.maxBytes) + ", the most that memory can keep for it"
		}
		return "jumped back: " + behind + " > " + window + ageText(rd.pos, r.cfg.MinAge)
	case ReasonAboveHalf:
		return fmt.Sprintf("%s, not below half of %s and %s yet", behind, window, r.cfg.MinAge)
	case ReasonGaining:
		return fmt.Sprintf("%s, gaining %s/s", behind, Bytes(rd.trend.closing()))
	case ReasonSettling:
		return fmt.Sprintf("%s, below half of %s for less than %s", behind, window, r.cfg.SettleFor)
	case ReasonNoProgress:
		return fmt.Sprintf("offset %d has not moved for %s, %s", rd.pos.Offset, now.Sub(rd.moved).Round(time.Second), behind)
	case ReasonNoFetch:
		return fmt.Sprintf("no fetch for %s, %s", now.Sub(rd.seen).Round(time.Second), behind)
	}
	return behind
}

func insideText(p Position, behind, window string, minAge time.Duration) string {
	switch {
	case p.AtEnd():
		return behind
	case p.old(minAge):
		return behind + " <= " + window
	}
	return fmt.Sprintf("%s and %s old <= %s", behind, p.BehindAge.Round(time.Second), minAge)
}

func ageText(p Position, minAge time.Duration) string {
	if p.BehindAge < 0 {
		return ", age not known"
	}
	return fmt.Sprintf(", %s old > %s", p.BehindAge.Round(time.Second), minAge)
}
