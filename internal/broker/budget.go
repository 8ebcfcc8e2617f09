package broker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// errStalled ends a connection whose frame does not go on arriving while others wait for the memory it holds.
var errStalled = errors.New("broker: request stopped arriving while others wait for memory")

// errBudget ends a connection that would not give its memory back in time.
var errBudget = errors.New("broker: no memory for this request within the request timeout")

// budget bounds the memory of request frames over all connections. Memory is charged while a frame arrives, so waiting
// for it while holding some could lock all connections up against each other. Therefore one connection at a time, the
// holder of the overdraft, may go over the limit: it can always finish its frame and give everything back.
//
// Connections that send a part of a large frame and stop could keep everybody else waiting. So those that hold little have
// an eighth of the limit for themselves, and while anybody waits (pressed), a frame that does not go on arriving is given up:
// see conn.Read. The memory is thus bounded by 9/8 of the limit plus one frame.
type budget struct {
	mu        sync.Mutex
	limit     int64
	used      int64
	small     int64 // part of used: of leases that hold little
	overdraft *lease
	waiters   []*waiter // first come, first served; those that hold little apart from the others
	modest    int       // waiters that hold little
	waits     int64     // how often someone had to wait, for metrics
	waiting   atomic.Int64
}

// modestBytes is what a connection may hold and count as holding little. Most requests are smaller.
const modestBytes = 64 << 10

// fits tells whether n more bytes may be used; the caller holds mu.
func (b *budget) fits(n int64, modest bool) bool {
	return b.used+n <= b.limit || modest && b.small+n <= b.limit/8
}

// take books n bytes, less when n < 0; the caller holds mu.
func (b *budget) take(l *lease, n int64) {
	if l.held <= modestBytes {
		b.small -= l.held
	}
	b.used += n
	l.held += n
	if l.held <= modestBytes {
		b.small += l.held
	}
}

// count books waiters that came or went; the caller holds mu.
func (b *budget) count(w *waiter, n int) {
	if w.modest {
		b.modest += n
	}
	b.waiting.Add(int64(n))
}

// pressed tells whether somebody waits for memory.
func (b *budget) pressed() bool { return b.waiting.Load() > 0 }

type waiter struct {
	n      int64
	lease  *lease
	modest bool          // holds little with it: see modestBytes
	ready  chan struct{} // closed when granted
}

func newBudget(limit int64) *budget { return &budget{limit: limit} }

// lease is one connection's part of a budget. It is a wire.Budget bound to the connection's life and patience.
type lease struct {
	b *budget
	// done (the end of the connection) and patience end a wait.
	done     <-chan struct{}
	patience time.Duration
	// overdrawn is set while this lease holds the overdraft: its frame must then arrive without dawdling.
	overdrawn atomic.Bool
	held      int64         // guarded by budget.mu
	waited    time.Duration // in all by Acquire; its caller's
}

// Acquire waits until n more bytes may be used. Errors: errBudget when the patience ended.
func (l *lease) Acquire(n int64) error {
	b := l.b
	b.mu.Lock()
	modest := l.held+n <= modestBytes
	inTurn := len(b.waiters) == 0 || modest && b.modest == 0
	if inTurn && b.fits(n, modest) || b.overdraft == l {
		b.take(l, n)
		b.mu.Unlock()
		return nil
	}
	if b.overdraft == nil {
		b.overdraft = l
		l.overdrawn.Store(true)
		b.take(l, n)
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, lease: l, modest: modest, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.count(w, 1)
	b.waits++
	b.mu.Unlock()

	began := time.Now()
	defer func() { l.waited += time.Since(began) }()
	timer := time.NewTimer(l.patience)
	defer timer.Stop()
	select {
	case <-w.ready:
		return nil
	case <-timer.C:
	case <-l.done:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.count(w, -1)
			b.grant()
			return errBudget
		}
	}
	return nil // granted in the meantime
}

// Release gives n bytes back and lets waiters in.
func (l *lease) Release(n int64) {
	b := l.b
	b.mu.Lock()
	b.take(l, -n)
	if b.overdraft == l {
		b.overdraft = nil
		l.overdrawn.Store(false)
	}
	b.grant()
	b.mu.Unlock()
}

// grant serves waiters from the front, in two lines: who wants much does not hold up who holds little. The caller holds mu.
func (b *budget) grant() {
	kept := b.waiters[:0]
	var blocked [2]bool // by line
	for _, w := range b.waiters {
		line := 0
		if w.modest {
			line = 1
		}
		ok := !blocked[line] && b.fits(w.n, w.modest)
		if !ok && b.overdraft == nil {
			b.overdraft = w.lease
			w.lease.overdrawn.Store(true)
			ok = true
		}
		if !ok {
			blocked[line] = true
			kept = append(kept, w)
			continue
		}
		b.take(w.lease, w.n)
		b.count(w, -1)
		close(w.ready)
	}
	clear(b.waiters[len(kept):])
	b.waiters = kept
}

// usage is the bytes in use and how often a connection had to wait.
func (b *budget) usage() (used, waits int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.waits
}
