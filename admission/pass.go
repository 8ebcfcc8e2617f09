package admission

import (
	"math"
	"slices"
	"time"
)

// pass is the sequential run of a rotating disk's head: one file, one direction.
type pass struct {
	file  uint64
	end   int64 // behind the last byte that was asked for
	bytes int64 // of this run
	moved time.Time
}

// startApart is between the starts of two requests on a rotating disk: whoever carries them out, the disk has to see them in their order.
// Two that start together come as it happens, and where the second one is first the head waits for a turn.
const startApart = time.Millisecond

// passSlack is how far a request may begin before or behind the end of the last one and still follow it without a seek: chunks
// are trimmed to whole batches, and direct reads are aligned.
const passSlack = 4 << 20

// continues tells whether a request follows on the last one.
func (p *pass) continues(r Request) bool {
	return r.File != 0 && r.File == p.file && r.Position >= p.end-passSlack && r.Position <= p.end+passSlack
}

// move follows a request that starts.
func (p *pass) move(r Request, now time.Time) {
	if !p.continues(r) {
		p.file, p.bytes = r.File, 0
	}
	p.end = r.Position + r.Bytes
	p.bytes += r.Bytes
	p.moved = now
}

// nearest is the stream's request that the head should serve first. Of each file only the one that was queued first can be:
// a reader waits for the first of its chunks, wherever the head is.
func (s *Scheduler) nearest(st *stream, now time.Time) (best *entry) {
	if len(st.queue) == 1 {
		return st.queue[0]
	}
	seen := make(map[uint64]struct{}, len(st.queue))
	for _, e := range st.queue {
		if _, again := seen[e.req.File]; again && e.req.File != 0 {
			continue
		}
		seen[e.req.File] = struct{}{}
		if best == nil || s.nearer(e, best, now) {
			best = e
		}
	}
	return best
}

// nearer orders requests for a rotating disk: what has waited beyond the deadline, longest wait first; what follows on the last
// request, until the run has had its quantum; then by position, upward from the head and round again (C-LOOK), so that a
// sweep visits everybody.
func (s *Scheduler) nearer(a, b *entry, now time.Time) bool {
	lateA, lateB := now.Sub(a.queued) > s.cfg.Deadline, now.Sub(b.queued) > s.cfg.Deadline
	follows := s.pass.bytes < s.quantumBytes()
	switch {
	case follows && s.pass.continues(a.req) != s.pass.continues(b.req): // a run is not broken for the deadline: it ends soon
		return s.pass.continues(a.req)
	case lateA != lateB:
		return lateA
	case lateA && !a.queued.Equal(b.queued):
		return a.queued.Before(b.queued)
	}
	return s.distance(a.req) < s.distance(b.req)
}

// distance is how far the head has to sweep to a request. Where a run has had its quantum, going on with it is the longest way.
func (s *Scheduler) distance(r Request) uint64 {
	switch d := r.Position - s.pass.end; {
	case s.pass.continues(r):
		return math.MaxUint64
	case d >= 0:
		return uint64(d)
	default:
		return 1<<63 + uint64(r.Position)
	}
}

// orderRound puts the flows in order when a round begins. Within a round the order stays, so that deficit round robin shares
// as ever: each flow has one turn in each round.
func (r *ring) orderRound(before func(a, b *flow) bool) {
	n := len(r.flows)
	if n < 2 {
		return
	}
	over := r.begun && r.cur == n-1
	if over {
		cur := r.flows[r.cur]
		over = cur.deficit < cur.next().req.Bytes
	}
	if !over && (r.begun || r.cur != 0) {
		return
	}
	slices.SortStableFunc(r.flows, func(a, b *flow) int {
		switch {
		case before(a, b):
			return -1
		case before(b, a):
			return 1
		}
		return 0
	})
	if over {
		r.round++
	}
	r.cur, r.begun = 0, false
}
