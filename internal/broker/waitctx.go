package broker

import (
	"context"
	"sync"
	"time"
)

// waitCtx is a context with a deadline that is used again and again by one goroutine: a produce request with acks=-1
// waits once per request, and context.WithDeadline allocates five times. It ends at its deadline or when cancel is called;
// one that has ended is replaced by begin. It is for callees that wait for Done and no more: a context derived from it
// would outlive the wait.
type waitCtx struct {
	mu       sync.Mutex
	current  *reusedCtx
	canceled bool
}

// reusedCtx implements context.Context.
type reusedCtx struct {
	parent   context.Context // for values
	deadline time.Time
	done     chan struct{}
	timer    *time.Timer

	mu  sync.Mutex
	err error
}

// begin gives a context that ends at deadline. It is valid until end.
func (w *waitCtx) begin(parent context.Context, deadline time.Time) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.current
	if c == nil {
		c = &reusedCtx{done: make(chan struct{})}
		c.timer = time.AfterFunc(time.Until(deadline), func() { c.finish(context.DeadlineExceeded) })
		w.current = c
	} else {
		c.timer.Reset(time.Until(deadline))
	}
	c.parent, c.deadline = parent, deadline
	if w.canceled {
		c.finish(context.Canceled)
	}
	return c
}

// end stops the clock. A context that has ended, or whose timer fires at this moment, is not used again.
func (w *waitCtx) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.current; !c.timer.Stop() || c.Err() != nil {
		w.current = nil
	}
}

// cancel ends the current context and all later ones.
func (w *waitCtx) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.canceled = true
	if w.current != nil {
		w.current.finish(context.Canceled)
	}
}

func (c *reusedCtx) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *reusedCtx) Deadline() (time.Time, bool) { return c.deadline, true }
func (c *reusedCtx) Done() <-chan struct{}       { return c.done }
func (c *reusedCtx) Value(key any) any           { return c.parent.Value(key) }

func (c *reusedCtx) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
