package admission

import (
	"slices"
	"time"
)

// entry is one request on its way: queued in a stream of a flow, or in flight.
type entry struct {
	req      Request
	flow     *flow
	queued   time.Time
	inFlight bool
}

// stream is the queue of one client and topic within a flow: what shares all its caps. A capped topic holds back its
// own stream and not the rest of its flow.
type stream struct {
	client, topic string
	queue         []*entry
}

// flow is one party in the ring.
type flow struct {
	subject Subject
	streams []*stream // with something queued; served in turn
	deficit int64     // bytes that it may still read in this turn
	round   int64     // of the ring in which it got its last quantum

	cut        bool  // since it last used up a quantum a cap has held it back, or it has a cap and is new
	earlyAfter int64 // what the ring must have served in line before it may go early again

	queued, inFlight           int
	queuedBytes, inFlightBytes int64
	lastUsed                   time.Time // when something of it was queued, started or done
	first                      time.Time
	granted                    series
	waited                     WaitsBy

	blockedUntil time.Time // no stream can go before, as of generation blockedGen
	blockedGen   uint64
	limit        Limit // what blocked it last
	limitedAt    time.Time
}

// ring is deficit round robin over flows (Shreedhar and Varghese, 1995): the flow whose turn it is reads until its
// deficit is used up; each flow gets one quantum per round, when its turn comes. Rounds that would only add quanta are
// computed, not walked. Flows that a cap blocks are passed over, and never save up more than two quanta.
//
// A flow that a cap has cut short goes early, before its place, when it would lose tokens otherwise: with the rest of its last
// quantum, or with that of this round. So a round, however long, does not cost it its cap, and nobody gets more than a quantum per
// round in the long run.
type ring struct {
	flows  []*flow // backlogged, in the order of their turns
	cur    int     // whose turn it is
	begun  bool    // the current flow has got the quantum of this turn; if not, it is the next to get one
	fresh  bool    // nothing has been read in this turn
	round  int64   // how often the turn has gone round, from 1 on
	early  *flow   // goes on before its place, until a cap holds it back or its quantum is used up
	inLine int64   // bytes that flows have read in their places
	known  map[Subject]*flow
	turns  []turn // scratch
}

type turn struct {
	index  int
	head   *entry
	round  int64 // of the first visit
	rounds int64 // visits until it can afford its head
	first  int64 // what the first visit adds
	grant  int64 // what each further one adds
}

// join puts a flow that has become backlogged in its place: the one visited last. One that comes back with the rest of a
// turn that is enough for its head goes on with it now, and the current flow with its own afterwards: a consumer that
// asks for one chunk at a time would otherwise get one request per round where others get a quantum. No flow gets more
// than its quantum per round either way.
func (r *ring) join(f *flow, resume bool) {
	switch {
	case len(r.flows) == 0:
		r.flows, r.cur, r.begun = append(r.flows, f), 0, resume
	case !resume:
		r.flows = slices.Insert(r.flows, r.cur, f)
		r.cur++
	default:
		if current := r.flows[r.cur]; r.begun && current.deficit < current.next().req.Bytes {
			r.cur++ // its turn is over anyway: do not let it begin another one
		}
		r.flows, r.begun = slices.Insert(r.flows, r.cur, f), true
	}
}

// leave takes a flow out that has nothing queued. If it was its turn, the one after it is next.
func (r *ring) leave(f *flow) {
	i := slices.Index(r.flows, f)
	r.flows = slices.Delete(r.flows, i, i+1)
	if f == r.early {
		r.early = nil
	}
	switch {
	case i < r.cur:
		r.cur--
	case i == r.cur:
		r.begun = false
	}
	if r.cur == len(r.flows) {
		r.cur = 0
		r.round++
	}
}

// pick returns the request whose turn it is, or the shortest time after which a cap lets one through (0: none queued).
// Picking twice gives the same answer: it grants quanta only to make its answer affordable.
func (r *ring) pick(head func(*flow) (*entry, time.Duration), quantum func(*flow) int64) (*entry, time.Duration) {
	if len(r.flows) == 0 {
		return nil, 0
	}
	first := r.cur
	if r.begun {
		cur := r.flows[r.cur]
		e, _ := head(cur)
		if e != nil && e.req.Bytes <= cur.deficit {
			return e, 0
		}
		if e != nil {
			cur.cut = false
		}
		first++ // it has had its turn and comes last
	}
	var wait time.Duration
	r.turns = r.turns[:0]
	for i := range r.flows {
		index := (first + i) % len(r.flows)
		f := r.flows[index]
		e, w := head(f)
		if e == nil {
			wait = sooner(wait, w)
			continue
		}
		t := turn{index: index, head: e, round: r.round, rounds: 1, grant: quantum(f)}
		if first+i >= len(r.flows) {
			t.round++
		}
		missing := e.req.Bytes - f.deficit
		if f.round < t.round {
			t.first = f.due(t.grant, e)
		}
		if missing -= t.first; missing > 0 {
			t.rounds += (missing + t.grant - 1) / t.grant
		}
		r.turns = append(r.turns, t)
		if t.rounds == 1 {
			break // nobody further on can be served before this one
		}
	}
	if len(r.turns) == 0 {
		return nil, wait
	}
	return r.give(), 0
}

// give passes out the quanta of the rounds until the first flow can afford its head, and makes it that flow's turn.
func (r *ring) give() *entry {
	winner := 0
	for i, t := range r.turns {
		if t.rounds < r.turns[winner].rounds {
			winner = i
		}
	}
	rounds := r.turns[winner].rounds
	for i, t := range r.turns {
		visits := rounds
		if i > winner {
			visits--
		}
		if visits == 0 {
			continue
		}
		f := r.flows[t.index]
		f.deficit += t.first + (visits-1)*t.grant
		f.round = max(f.round, t.round+visits-1)
	}
	won := r.turns[winner]
	r.cur, r.begun, r.fresh, r.round = won.index, true, true, won.round+rounds-1
	return won.head
}

// due is what the flow gets in a round: a quantum; with what a cap kept it from reading no more than two in all. One would do for a flow
// whose cap is below its share; where all caps are above it, what each can make up for decides whether shares are equal.
func (f *flow) due(quantum int64, head *entry) int64 {
	if !f.cut || f.deficit < head.req.Bytes {
		return quantum
	}
	return max(0, min(quantum, 2*quantum-f.deficit))
}

// pickEarly returns the request that goes before inLine, which pick has chosen: that of a flow which a cap has cut short and
// which, presses says, cannot wait for so many bytes of others. inLine without.
//
// A flow goes early again when as much has been read in line as it took: where everybody has a cap, the flow in line does not wait until
// all have used up their quanta.
func (r *ring) pickEarly(inLine *entry, head func(*flow) (*entry, time.Duration), quantum func(*flow) int64, presses func(e *entry, bytes int64) bool) *entry {
	if r.early == inLine.flow {
		r.early = nil
	}
	if f := r.early; f != nil {
		if e, affords := r.affords(f, head, quantum); affords {
			r.credit(f, e, quantum)
			return e
		} else if e != nil {
			f.cut = false // not by its cap
		}
		r.early = nil
	}
	ahead := inLine.req.Bytes
	if r.fresh { // on a rotating disk now is the time: in the middle of the turn it costs a seek more
		ahead = max(ahead, inLine.flow.deficit)
	}
	var first *entry // of the flow that went early longest ago
	for i := range r.flows {
		f := r.flows[(r.cur+1+i)%len(r.flows)]
		if f == inLine.flow || !f.cut || r.inLine < f.earlyAfter || first != nil && first.flow.earlyAfter <= f.earlyAfter {
			continue
		}
		if e, affords := r.affords(f, head, quantum); affords && presses(e, ahead) {
			first = e
		}
	}
	if first == nil {
		return inLine
	}
	r.early = first.flow
	r.credit(first.flow, first, quantum)
	return first
}

// affords tells whether the flow's quantum of this round, if it has not had that, and what it has left are enough for its head, which is
// nil while its caps hold it back.
func (r *ring) affords(f *flow, head func(*flow) (*entry, time.Duration), quantum func(*flow) int64) (e *entry, ok bool) {
	if e, _ = head(f); e == nil {
		return nil, false
	}
	has := f.deficit
	if f.round < r.round {
		has += f.due(quantum(f), e)
	}
	return e, has >= e.req.Bytes
}

// credit gives the flow its quantum of this round, if it has not had that.
func (r *ring) credit(f *flow, head *entry, quantum func(*flow) int64) {
	if f.round < r.round {
		f.deficit += f.due(quantum(f), head)
		f.round = r.round
	}
}

// started books a request of f that starts, early or in line.
func (r *ring) started(f *flow, bytes int64) {
	if f == r.early {
		f.earlyAfter = max(f.earlyAfter, r.inLine) + bytes
		return
	}
	r.inLine += bytes
	r.fresh = false
}

// sooner is the shorter of two waits of which 0 means unknown.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// next is the request at the head of the line, whether or not a cap lets it through.
func (f *flow) next() *entry { return f.streams[0].queue[0] }

// push queues a request behind those of the same client and topic.
func (f *flow) push(e *entry) {
	f.queued++
	f.queuedBytes += e.req.Bytes
	f.blockedUntil = time.Time{}
	for _, s := range f.streams {
		if s.client == e.req.Client && s.topic == e.req.Topic {
			s.queue = append(s.queue, e)
			return
		}
	}
	f.streams = append(f.streams, &stream{e.req.Client, e.req.Topic, []*entry{e}})
}

// remove takes a queued request out. The stream it came from goes to the end of the line if served says so.
func (f *flow) remove(e *entry, served bool) {
	f.queued--
	f.queuedBytes -= e.req.Bytes
	f.blockedUntil = time.Time{}
	i := slices.IndexFunc(f.streams, func(s *stream) bool { return s.client == e.req.Client && s.topic == e.req.Topic })
	s := f.streams[i]
	at := slices.Index(s.queue, e)
	s.queue = slices.Delete(s.queue, at, at+1)
	switch {
	case len(s.queue) == 0:
		f.streams = slices.Delete(f.streams, i, i+1)
	case served:
		f.streams = append(slices.Delete(f.streams, i, i+1), s)
	}
}
