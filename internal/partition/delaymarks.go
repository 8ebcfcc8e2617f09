package partition

// delayMarks says how far a log is seen whose records are delivered late (lagoon.delivery.delay.ms): up to the first one that was
// appended less than the delay ago. It is pure; times are Unix ms of a clock that never goes back.
//
//	log start          seen                marks                     tail
//	─┬──────────────────┬─────────┬──────────┬──────────┬─────────────┐
//	 │     visible      │ at rest │  group   │  group   │ group so far│
//
// Appends are remembered in groups, each with the time of its last record: a group is seen as a whole, when that one is due. A group
// lasts a thousandth of the delay, 10 ms at least, so nothing is early and nothing later than that. What was there before the process
// is found in the log itself, whose batches hold their append times by the wall clock of then; until all of it is seen the marks have to wait. What
// seems to come from the future came before the start all the same: the clock has been set back.
type delayMarks struct {
	delay int64 // ms
	seen  bound
	// rest is the end of what was there at the start while some of it is not seen; restDue is when the first of it is.
	rest     bound
	restDue  int64
	restCame int64 // it was there at this time
	marks    []delayMark
	tail     delayMark
	began    int64 // when the group so far began
}

// delayMark ends a group: everything below was appended at lastMs or before.
type delayMark struct {
	end    bound
	lastMs int64
}

const (
	// delayGroups is how many groups a delay is divided in; twice as many are remembered at most, at 40 bytes each.
	delayGroups = 1024
	// minDelayGroup is the shortest group: what timers and clocks are good for.
	minDelayGroup = 10
)

func (d *delayMarks) group() int64 { return max(d.delay/delayGroups, minDelayGroup) }

// appended notes a batch from before to end that was written at nowMs.
func (d *delayMarks) appended(before, end bound, nowMs int64) {
	nowMs = max(nowMs, d.tail.lastMs)
	open := d.tail.end.offset > d.seen.offset && (len(d.marks) == 0 || d.tail.end.offset > d.marks[len(d.marks)-1].end.offset)
	switch {
	case !open:
		d.began = nowMs
	case nowMs-d.began >= d.group():
		d.marks = append(d.marks, delayMark{before, d.tail.lastMs})
		d.began = nowMs
	}
	if len(d.marks) > 2*delayGroups { // the delay was longer before, or the clock is odd: every second one will do
		kept := d.marks[:0]
		for i := 1; i < len(d.marks); i += 2 {
			kept = append(kept, d.marks[i])
		}
		d.marks = kept
	}
	d.tail = delayMark{end, nowMs}
}

// atRest reports whether the log has to be asked for the first record that came after the cutoff: there are records from before the
// start, and one of them may be due. Tell the answer to found.
func (d *delayMarks) atRest(nowMs int64) bool {
	if d.resting() && nowMs >= d.restCame+d.delay {
		d.seen = d.rest
	}
	return d.resting() && nowMs >= d.restDue
}

func (d *delayMarks) resting() bool { return d.rest.offset > d.seen.offset }

// found is what the log says: everything below first is due, and the record there came at ms.
func (d *delayMarks) found(first bound, ms, nowMs int64) {
	if first.offset > d.seen.offset {
		d.seen = first
	}
	d.restDue = max(min(ms, d.restCame)+d.delay, nowMs+d.group()) // not for each batch alone
}

// advance moves what is seen to nowMs and reports whether it moved. It never moves back.
func (d *delayMarks) advance(nowMs int64) bool {
	if d.resting() {
		return false
	}
	was := d.seen.offset
	n := 0
	for n < len(d.marks) && d.marks[n].lastMs+d.delay <= nowMs {
		n++
	}
	if n > 0 {
		if d.marks[n-1].end.offset > was {
			d.seen = d.marks[n-1].end
		}
		d.marks = append(d.marks[:0], d.marks[n:]...)
	}
	if len(d.marks) == 0 && d.tail.lastMs+d.delay <= nowMs && d.tail.end.offset > d.seen.offset {
		d.seen = d.tail.end
	}
	return d.seen.offset > was
}

// next is when something more is due; false when everything is seen.
func (d *delayMarks) next() (ms int64, ok bool) {
	switch {
	case d.resting():
		return d.restDue, true
	case len(d.marks) > 0:
		return d.marks[0].lastMs + d.delay, true
	case d.tail.end.offset > d.seen.offset:
		return d.tail.lastMs + d.delay, true
	}
	return 0, false
}
