package broker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// errBudget ends a connection that would not give its memory back in time.
var errBudget = errors.New("broker: no memory for this request within the request timeout")

// budget bounds the memory of request frames over all connections. Memory is charged while a frame arrives, so waiting
// for it while holding some could lock all connections up against each other. Therefore one connection at a time, the
// holder of the overdraft, may go over the limit: it can always finish its frame and give everything back. The memory
// is thus bounded by the limit plus one frame.
type budget struct {
	mu        sync.Mutex
	limit     int64
	used      int64
	overdraft *lease
	waiters   []*waiter // first come, first served
	waits     int64     // how often someone had to wait, for metrics
}

type waiter struct {
	n     int64
	lease *lease
	ready chan struct{} // closed when granted
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
}

// Acquire waits until n more bytes may be used. Errors: errBudget when the patience ended.
func (l *lease) Acquire(n int64) error {
	b := l.b
	b.mu.Lock()
	if len(b.waiters) == 0 && b.used+n <= b.limit || b.overdraft == l {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	if b.overdraft == nil {
		b.overdraft = l
		l.overdrawn.Store(true)
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, lease: l, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.waits++
	b.mu.Unlock()

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
	b.used -= n
	if b.overdraft == l {
		b.overdraft = nil
		l.overdrawn.Store(false)
	}
	b.grant()
	b.mu.Unlock()
}

// grant serves waiters from the front; the caller holds mu.
func (b *budget) grant() {
	for len(b.waiters) > 0 {
		w := b.waiters[0]
		if b.used+w.n > b.limit {
			if b.overdraft != nil {
				return
			}
			b.overdraft = w.lease
			w.lease.overdrawn.Store(true)
		}
		b.used += w.n
		b.waiters = b.waiters[1:]
		close(w.ready)
	}
}

// usage is the bytes in use and how often a connection had to wait.
func (b *budget) usage() (used, waits int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.waits
}
