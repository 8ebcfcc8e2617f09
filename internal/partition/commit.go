package partition

import (
	"context"
	"slices"
	"sync"
	"time"

	"lagoon/segment"
)

// committer makes appended bytes durable and tells the logs so. fileCommitter syncs files; journalCommitter has a commit journal in
// front of them, if one is configured.
type committer interface {
	// schedule asks for a commit of everything appended to l so far. Never blocks; requests for one log coalesce. l.mu is held.
	schedule(l *Log)
	// scheduleFile is schedule where the segment files themselves have to be synced, sealed or written back.
	scheduleFile(l *Log)
	// close waits until every scheduled commit has run and ends the workers.
	close()
}

// fileCommitter is a committer over fdatasync: workers take logs from a queue, so that at most workers syncs run at a
// time on one device (each blocked sync pins an OS thread) and all appends that arrive during a sync share the next one.
type fileCommitter struct {
	dir *logDir // whose gate says when syncs may begin; set before the first is scheduled

	mu     sync.Mutex
	ready  sync.Cond
	queue  []*Log // from head on
	head   int
	again  *time.Timer // asks the gate again
	closed bool
	wg     sync.WaitGroup
}

// newFileCommitter starts workers goroutines.
func newFileCommitter(d *logDir, workers int) *fileCommitter {
	c := &fileCommitter{dir: d}
	c.ready.L = &c.mu
	for range workers {
		c.wg.Go(c.work)
	}
	return c
}

// commitState is where one log stands with its committer; guarded by fileCommitter.mu.
type commitState uint8

const (
	commitIdle    commitState = iota
	commitQueued              // in the queue
	commitRunning             // a worker syncs it
	commitAgain               // a worker syncs it, and more was appended since
)

func (c *fileCommitter) schedule(l *Log) {
	c.mu.Lock()
	switch l.commit {
	case commitIdle:
		c.pushLocked(l)
	case commitRunning:
		l.commit = commitAgain
	}
	c.mu.Unlock()
}

func (c *fileCommitter) scheduleFile(l *Log) { c.schedule(l) }

// pushLocked puts l at the end of the queue, which holds each log once: its array soon has room for all and is used again
// and again.
func (c *fileCommitter) pushLocked(l *Log) {
	l.commit = commitQueued
	if c.head > len(c.queue)/2 && len(c.queue) == cap(c.queue) {
		n := copy(c.queue, c.queue[c.head:])
		clear(c.queue[n:])
		c.queue, c.head = c.queue[:n], 0
	}
	c.queue = append(c.queue, l)
	c.ready.Signal()
}

// popLocked takes the first log, nil when there is none that may be synced now.
func (c *fileCommitter) popLocked() *Log {
	if c.head == len(c.queue) {
		return nil
	}
	l := c.queue[c.head]
	round, wait, ok := c.dir.gate.begin(l.window)
	if !ok {
		c.wakeInLocked(wait)
		return nil
	}
	l.window = round
	c.queue[c.head] = nil
	if c.head++; c.head == len(c.queue) {
		c.queue, c.head = c.queue[:0], 0
	}
	return l
}

// wakeInLocked has all workers look again, the caller included: not before it waits, for the timer needs the lock.
func (c *fileCommitter) wakeInLocked(wait time.Duration) {
	if c.again == nil {
		c.again = time.AfterFunc(wait, c.wake)
	} else {
		c.again.Reset(wait)
	}
}

func (c *fileCommitter) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready.Broadcast()
}

func (c *fileCommitter) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		l := c.popLocked()
		if l == nil {
			if c.closed && c.head == len(c.queue) {
				return
			}
			c.ready.Wait()
			continue
		}
		l.commit = commitRunning
		c.mu.Unlock()
		l.sync()
		c.dir.gate.end()
		c.mu.Lock()
		if l.commit == commitAgain {
			c.pushLocked(l)
		} else {
			l.commit = commitIdle
		}
	}
}

func (c *fileCommitter) close() {
	c.mu.Lock()
	c.closed = true
	c.ready.Broadcast()
	c.mu.Unlock()
	c.wg.Wait()
}

// bound is how far a log reaches: the first offset, and in its segment the first byte, that is not included. Immutable.
type bound struct {
	offset segment.Offset
	base   segment.Offset // base offset of the segment that pos is in
	pos    int64
}

// durableWaiter is one call of Durable.
type durableWaiter struct {
	next segment.Offset
	c    chan error // capacity 1
}

func newDurableWaiter() any { return &durableWaiter{c: make(chan error, 1)} }

// Durable waits until everything below next is on stable storage. In interval mode it returns at once: the topic has
// opted out of synced acks. Errors: ErrFenced when the directory failed first, ErrClosed, the context's.
func (l *Log) Durable(ctx context.Context, next segment.Offset) error {
	if l.config().FlushInterval > 0 {
		return l.Err()
	}
	return l.waitDurable(ctx, next)
}

// Synced is Durable whatever the topic's flush setting: it has the log synced. For what others rely on, such as markers.
func (l *Log) Synced(ctx context.Context, next segment.Offset) error {
	if l.config().FlushInterval > 0 && l.durable.Load().offset < next {
		l.mu.Lock()
		if !l.closed {
			if l.home.journal != nil {
				l.syncDue = true
			} else {
				l.flushDue = true // not only written, and not only when the interval is over
			}
			l.home.commit.schedule(l)
		}
		l.mu.Unlock()
	}
	return l.waitDurable(ctx, next)
}

func (l *Log) waitDurable(ctx context.Context, next segment.Offset) error {
	if l.durable.Load().offset >= next {
		return l.Err()
	}
	pool := &l.store.durableWaiters
	w := pool.Get().(*durableWaiter)
	w.next = next
	l.waitMu.Lock()
	switch {
	case l.durable.Load().offset >= next:
		l.waitMu.Unlock()
		pool.Put(w)
		return nil
	case l.Err() != nil:
		l.waitMu.Unlock()
		pool.Put(w)
		return l.Err()
	}
	l.waiters = append(l.waiters, w)
	l.waitMu.Unlock()
	select {
	case err := <-w.c:
		pool.Put(w)
		return err
	case <-ctx.Done():
		if l.dropWaiter(w) {
			pool.Put(w)
			return ctx.Err()
		}
		err := <-w.c // it was answered meanwhile
		pool.Put(w)
		return err
	}
}

// dropWaiter takes w out of the list; false when it has been answered already.
func (l *Log) dropWaiter(w *durableWaiter) bool {
	l.waitMu.Lock()
	defer l.waitMu.Unlock()
	for i, x := range l.waiters {
		if x == w {
			l.waiters[i] = l.waiters[len(l.waiters)-1]
			l.waiters = l.waiters[:len(l.waiters)-1]
			return true
		}
	}
	return false
}

// sync makes everything appended so far durable and publishes it; with a flush interval that is not over it only begins to write
// it. Called by the committer only, one call at a time per log. A failure is final for the directory.
func (l *Log) sync() {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	if l.closed || l.home.fenced() != nil {
		l.mu.Unlock()
		return
	}
	l.commitOnWay.begin(l.store.now().Sub(l.store.opened))
	defer l.commitOnWay.end()
	sealing := slices.Clone(l.sealing)
	w, end := l.w, l.endBound()
	if l.home.journal != nil && !l.flushDue && !l.snapshotDue && len(sealing) == 0 && l.config().FlushInterval == 0 {
		l.mu.Unlock() // what was asked for is in the journal's hands
		return
	}
	flush := l.config().FlushInterval == 0 || l.flushDue || l.snapshotDue || len(sealing) > 0
	from := l.writtenBack
	l.writtenBack = end.pos
	if !flush {
		l.mu.Unlock()
		l.pinUnsynced(end)
		_ = l.store.opt.Cache.WriteBack(w.File(), from, end.pos-from) // advice; the next sync tells of errors
		return
	}
	l.flushDue = false
	snapshot := l.takeSnapshotLocked()
	oldest := l.unsyncedAt
	if j := l.home.journal; j != nil { // acks wait for that
		l.flushedAt, oldest = l.store.now(), time.Time{}
		defer j.noteFiled()
	}
	if l.home.journal == nil || !l.journals() {
		l.unsyncedAt = time.Time{}
	}
	l.mu.Unlock()

	pinned := l.pinUnsynced(end)
	started := l.store.now()
	l.home.harm.flushing.Add(1)
	defer l.home.harm.flushing.Add(-1)
	waited := !oldest.IsZero() // acks wait for this sync
	if waited {
		l.home.harm.syncing.begin(started)
		defer func() { l.home.harm.syncing.end(l.store.now()) }()
	}
	if g := l.home.gate; g != nil {
		quiet := l.quiet(w)
		if !quiet {
			g.syncing.enter()
			defer g.syncing.leave()
		}
		g.writing.enter()
		err := l.writeOut(w, from, quiet)
		g.writing.leave()
		if err != nil {
			w.Fail(err)
			l.home.fence("write", err)
			return
		}
		g.writing.wait()
		if quiet {
			g.syncing.wait()
		}
	}
	for _, s := range sealing {
		if err := l.sealOne(s); err != nil {
			l.syncFailed("seal segment", err, oldest, snapshot != nil)
			return
		}
	}
	if err := w.SyncData(); err != nil {
		l.syncFailed("sync", err, oldest, snapshot != nil)
		return
	}
	synced := l.store.now()
	l.store.metrics.syncSeconds.Observe(synced.Sub(started).Seconds())
	if !pinned {
		l.pinUnsynced(end)
	}
	l.filed.Store(end)
	l.publishDurable(end)
	if waited {
		l.home.harm.syncs.observe(synced.Sub(started))
		l.home.harm.produce.observe(synced.Sub(oldest))
	}
	if len(sealing) > 0 {
		l.home.sealed.Store(true)
	}
	if snapshot != nil {
		l.saveSnapshot(snapshot, w)
	}
}

// syncFailed ends a sync that failed: for good or, for want of a descriptor, until the next tick. oldest and snapshot are what it had taken.
func (l *Log) syncFailed(op string, err error, oldest time.Time, snapshot bool) {
	if !passing(err) {
		l.home.fence(op, err)
		return
	}
	l.log.Warn("not synced, trying again", "op", op, "err", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushDue, l.snapshotDue = true, l.snapshotDue || snapshot
	if !oldest.IsZero() {
		l.unsyncedAt = oldest
	}
}

// publishDurable moves the durable bound forward and wakes whoever waited for it.
func (l *Log) publishDurable(b *bound) {
	l.publishing.Lock()
	was := l.durable.Load()
	ahead := b.offset > was.offset
	if rolled := b.offset == was.offset && b.base > was.base; ahead || rolled { // compaction may change the segment before
		l.durable.Store(b)
	}
	l.publishing.Unlock()
	if !ahead {
		return
	}
	l.settle()
	l.store.hot.poke()
	l.waitMu.Lock()
	kept := l.waiters[:0]
	for _, w := range l.waiters {
		if w.next <= b.offset {
			w.c <- nil
		} else {
			kept = append(kept, w)
		}
	}
	clear(l.waiters[len(kept):])
	l.waiters = kept
	l.waitMu.Unlock()
	if l.config().FlushInterval == 0 {
		l.wakeReaders(l.readable().offset)
	}
}

// failWaiters answers every Durable call with err.
func (l *Log) failWaiters(err error) {
	l.waitMu.Lock()
	for _, w := range l.waiters {
		w.c <- err
	}
	clear(l.waiters)
	l.waiters = l.waiters[:0]
	l.waitMu.Unlock()
	l.watchMu.Lock()
	for w := range l.watches {
		w.Notify()
	}
	l.watchMu.Unlock()
}
