package partition

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
)

// coldQueue runs the cold work of one device: reads for lagging readers, refills after a real-time miss, and the
// migrator's copying. admission.Scheduler decides order and pace; the queue owns the clock, the lock and the goroutines.
// At most the scheduler's MaxInFlight jobs touch the device at a time, so a hung disk holds that many threads and no more.
type coldQueue struct {
	now      func() time.Time
	onDemand func() // nil: nobody wants to know that work was queued; must not block

	hurt atomic.Bool // the budget was cut because the real-time path was hurt

	mu     *sync.Mutex // shared by the queues of all devices, because their schedulers share the caps
	sched  *admission.Scheduler
	jobs   map[uint64]func()
	lastID uint64
	timer  *time.Timer // runs pump when the next token or turn is due; nil when none is
	closed bool
	wg     sync.WaitGroup
	opens  chan struct{} // semaphore of aside
	done   chan struct{} // closed by close

	quantumBytes int64 // a flow's turn
}

// maxOpens is how many segments of one device are opened at a time.
const maxOpens = 2

func newColdQueue(cfg admission.DeviceConfig, limits *admission.Limits, mu *sync.Mutex, now func() time.Time) (*coldQueue, error) {
	sched, err := admission.NewScheduler(cfg, limits, now())
	if err != nil {
		return nil, err
	}
	return &coldQueue{now: now, mu: mu, sched: sched, jobs: map[uint64]func(){}, opens: make(chan struct{}, maxOpens), done: make(chan struct{}),
		quantumBytes: sched.Config().QuantumBytes}, nil
}

// submit queues run for its turn and gives its id for cancel. run executes on its own goroutine and reports the bytes
// it moved on the device, or those that it found read by another one and shares. Never blocks.
// Errors: ErrClosed, admission.ErrQueueFull (ask again later).
func (q *coldQueue) submit(r admission.Request, run func() (device, shared int64)) (id uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, ErrClosed
	}
	q.lastID++
	id = q.lastID
	r.ID = id
	if err := q.sched.Enqueue(r, q.now()); err != nil {
		return 0, err
	}
	q.jobs[id] = func() {
		device, shared := run()
		q.mu.Lock()
		if shared > 0 {
			q.sched.DoneShared(id, shared, q.now())
		} else {
			q.sched.Done(id, device, q.now())
		}
		q.pumpLocked()
		q.mu.Unlock()
	}
	if q.onDemand != nil {
		q.onDemand()
	}
	q.pumpLocked()
	return id, nil
}

// cancel takes a job back; false when it runs already (or never was).
func (q *coldQueue) cancel(id uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, queued := q.jobs[id]; !queued {
		return false
	}
	delete(q.jobs, id)
	q.sched.Cancel(id)
	q.pumpLocked()
	return true
}

// share charges a flow for bytes that come from another one's read. False when a cap holds them back.
func (q *coldQueue) share(r admission.Request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sched.Share(r, q.now())
}

// shareQueued is share for a job that is still queued, which it takes back; false when a cap holds it or it runs already.
func (q *coldQueue) shareQueued(id uint64, r admission.Request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, queued := q.jobs[id]; !queued || !q.sched.Share(r, q.now()) {
		return false
	}
	delete(q.jobs, id)
	q.sched.Cancel(id)
	return true
}

// capOf is the lowest cap on a flow, client or topic in bytes per second, 0 without.
func (q *coldQueue) capOf(r admission.Request) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sched.CapOf(r, q.now())
}

// aside runs what touches the device a little, such as opening a file, on a goroutine of its own: without a turn, for it is
// nobody's bytes, but never more than maxOpens at a time. False when the queue is closed.
func (q *coldQueue) aside(run func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.wg.Go(func() {
		select {
		case q.opens <- struct{}{}:
			run()
			<-q.opens
		case <-q.done:
		}
	})
	return true
}

// hold waits for a slot of the device and keeps it until done is called: for the migrator, which does its own I/O.
func (q *coldQueue) hold(ctx context.Context, r admission.Request) (done func(), err error) {
	granted, release := make(chan struct{}), make(chan struct{})
	id, err := q.submit(r, func() (int64, int64) { close(granted); <-release; return r.Bytes, 0 })
	if err != nil {
		return nil, err
	}
	select {
	case <-granted:
	case <-ctx.Done():
		if q.cancel(id) {
			return nil, ctx.Err()
		}
		<-granted
	}
	return sync.OnceFunc(func() { close(release) }), nil
}

// oldestWait is admission.Scheduler.OldestWait.
func (q *coldQueue) oldestWait() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sched.OldestWait(q.now())
}

// atWork tells whether cold reads and migrations are in flight.
func (q *coldQueue) atWork() (reads, migrations bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sched.InFlight(admission.KindRead) > 0, q.sched.InFlight(admission.KindMigration) > 0
}

func (q *coldQueue) pump() {
	q.mu.Lock()
	q.pumpLocked()
	q.mu.Unlock()
}

// pumpLocked starts whatever may start now and arms the timer for what may start later.
func (q *coldQueue) pumpLocked() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	for !q.closed {
		r, wait, ok := q.sched.Next(q.now())
		if !ok {
			if wait > 0 {
				q.timer = time.AfterFunc(wait, q.pump)
			}
			return
		}
		run := q.jobs[r.ID]
		delete(q.jobs, r.ID)
		if r.Kind == admission.KindRead {
			q.wg.Go(func() { cachectl.AtLowPriority(run) })
		} else { // a real-time reader waits for a refill; a migration does its I/O elsewhere
			q.wg.Go(run)
		}
	}
}

// limitedBy says what holds a flow back on this device now.
func (q *coldQueue) limitedBy(flow admission.Subject) admission.Limit {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sched.LimitedBy(flow, q.now())
}

// close drops what has not begun and waits for what has.
func (q *coldQueue) close() {
	q.mu.Lock()
	if !q.closed {
		close(q.done)
	}
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	clear(q.jobs)
	q.mu.Unlock()
	q.wg.Wait()
}
