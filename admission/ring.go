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
	paused  bool      // its turn was cut short, by a cap or by a flow that resumed: no quantum when it goes on

	queued, inFlight           int
	queuedBytes, inFlightBytes int64
	lastUsed                   time.Time // when something of it was queued, started or done
	first                      time.Time
	granted                    series
	waitedNs                   int64

	blockedUntil time.Time // no stream can go before, as of generation blockedGen
	blockedGen   uint64
	limit        Limit // what blocked it last
	limitedAt    time.Time
}

// ring is deficit round robin over flows (Shreedhar and Varghese, 1995): the flow whose turn it is reads until its
// deficit is used up; each time its turn comes it gets a quantum. Rounds that would only add quanta are computed, not
// walked. Flows that a cap blocks are passed over and gain nothing meanwhile.
type ring struct {
	flows []*flow // backlogged, in the order of their turns
	cur   int     // whose turn it is
	begun bool    // the current flow has got the quantum of this turn; if not, it is the next to get one
	known map[Subject]*flow
	turns []turn // scratch
}

type turn struct {
	index  int
	head   *entry
	rounds int64 // visits until it can afford its head
	grant  int64 // what one visit adds
}

// join puts a flow that has become backlogged in its place: the one visited last. One that comes back with the rest of a
// turn that is enough for its head goes on with it now, and the current flow with its own afterwards: a consumer that
// asks for one chunk at a time would otherwise get one request per round where others get a quantum. No flow gets more
// than its quantum per round either way.
func (r *ring) join(f *flow, resume bool) {
	f.paused = false
	switch {
	case len(r.flows) == 0:
		r.flows, r.cur, r.begun = append(r.flows, f), 0, resume
	case !resume:
		r.flows = slices.Insert(r.flows, r.cur, f)
		r.cur++
	default:
		current := r.flows[r.cur]
		switch {
		case r.begun && current.deficit < current.next().req.Bytes:
			r.cur++ // its turn is over anyway: do not let it begin another one
		case r.begun:
			current.paused = true
		}
		r.flows, r.begun = slices.Insert(r.flows, r.cur, f), true
	}
}

// leave takes a flow out that has nothing queued. If it was its turn, the one after it is next.
func (r *ring) leave(f *flow) {
	i := slices.Index(r.flows, f)
	r.flows = slices.Delete(r.flows, i, i+1)
	switch {
	case i < r.cur:
		r.cur--
	case i == r.cur:
		r.begun = false
	}
	if r.cur == len(r.flows) {
		r.cur = 0
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
			cur.paused = false
			return e, 0
		}
		cur.paused = e == nil && cur.deficit >= cur.next().req.Bytes // a cap cuts its turn short
		first++                                                      // it has had its turn and comes last
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
		grant := quantum(f)
		missing := max(0, e.req.Bytes-f.deficit)
		rounds := max(1, (missing+grant-1)/grant)
		if f.paused && missing == 0 {
			grant = 0
		}
		r.turns = append(r.turns, turn{index, e, rounds, grant})
		if rounds == 1 {
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
		f.deficit += visits * t.grant
		f.paused = false
	}
	r.cur, r.begun = r.turns[winner].index, true
	return r.turns[winner].head
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
