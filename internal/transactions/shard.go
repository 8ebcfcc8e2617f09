package transactions

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// States of a shard.
const (
	shardLoading = iota
	shardReady
	shardFailed // its log cannot be read, or is offline
)

// shard is one partition of the topic with its ids.
type shard struct {
	c         *Coordinator
	partition int32
	state     atomic.Int32
	expiring  atomic.Bool // by a goroutine of expireLoop

	// writing is held by whoever changes an id, also while the record of that is written: the log has records in the order of the changes.
	// Then comes mu, which guards ids and is held across no I/O: who only looks waits for no device.
	writing sync.Mutex
	mu      sync.Mutex
	log     statetopic.Log
	ids     map[string]*entry
	builder records.Builder
}

// entry is one transactional id. It changes under shard.writing and shard.mu.
type entry struct {
	*txn.Txn
	id      string
	bytes   int64
	written segment.Offset // after its last record
	settled chan struct{}  // closed when the end that was prepared is complete; nil: none is
}

func (s *shard) take(id string, t *txn.Txn) *entry {
	e := &entry{Txn: t, id: id}
	s.ids[id] = e
	s.account(e)
	return e
}

// account books an id's memory.
func (s *shard) account(e *entry) {
	n := int64(256 + 2*len(e.id) + 40*len(e.Record().Partitions))
	s.c.bytes.Add(n - e.bytes)
	e.bytes = n
}

func (s *shard) drop(e *entry) {
	delete(s.ids, e.id)
	s.c.bytes.Add(-e.bytes)
}

// change runs an event and writes what it changed. settled tells when it is worth asking again after ConcurrentTransactions; it is nil
// when that answer is meant for the client.
func (s *shard) change(id string, create, rotates bool, event func(t *txn.Txn, nextID int64) txn.Error) (wait Pending, settled <-chan struct{}, err txn.Error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	e := s.ids[id]
	if e == nil && !create {
		return wait, nil, txn.InvalidProducerIDMapping
	}
	fresh := e == nil
	if fresh && s.c.bytes.Load() > s.c.opt.MaxBytes {
		s.refuseForMemory(id)
		return wait, nil, txn.CoordinatorNotAvailable
	}
	nextID := int64(txn.NoProducerID)
	if fresh || rotates && e.NeedsNewID() {
		if nextID, err = s.c.newID(); err != txn.None {
			return wait, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh {
		e = s.take(id, txn.New(nextID, s.c.opt.Now()))
	}
	before := e.Record()
	err = event(e.Txn, nextID)
	wait, failed := s.store(e, before)
	if fresh && (err != txn.None || failed != txn.None) {
		s.drop(e)
	}
	if failed != txn.None {
		return wait, nil, failed
	}
	if wait.log == nil && err == txn.None { // somebody else may still wait for what the answer relies on
		wait = Pending{s.log, e.written, s.c.opt.WriteTimeout}
	}
	return wait, e.settled, err
}

// store writes an id whose state has changed since before; shard.writing and shard.mu are held, the latter but for the writing. What cannot
// be written has not happened.
func (s *shard) store(e *entry, before txn.Record) (wait Pending, failed txn.Error) {
	if !e.Changed() {
		return wait, txn.None
	}
	r := e.Record()
	var value []byte
	if r.State != txn.Dead {
		value = appendValue(nil, r)
	}
	next, err := s.append(appendKey(nil, e.id), value)
	if err != nil {
		e.Revert(before)
		if s.c.metrics.noise.Allow() {
			s.c.opt.Logger.Warn("transaction state not stored", "transactional_id", e.id, "state", r.State, "partition", s.partition, "err", err)
		}
		return wait, refusal(err)
	}
	e.written = next
	s.account(e)
	if r.State == txn.Dead {
		s.drop(e)
	} else if _, ending := e.Ending(); ending {
		s.finish(e, next)
	}
	return Pending{s.log, next, s.c.opt.WriteTimeout}, txn.None
}

// append writes one record and gives the offset after it; shard.mu is given up meanwhile.
func (s *shard) append(key, value []byte) (next segment.Offset, err error) {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.builder.Reset()
	s.builder.Add(key, value)
	done, err := s.log.Append(s.c.ctx, partition.AppendRequest{Records: s.builder.Batch(s.c.opt.Now().UnixMilli())})
	return done.Next, err
}

// finish begins to carry out the end that was prepared by the record before next.
func (s *shard) finish(e *entry, next segment.Offset) {
	e.settled = make(chan struct{})
	r := e.Record()
	s.c.wg.Go(func() { s.complete(e, r, next) })
}

// complete writes the markers of an ending transaction once its record is durable, and then the record that it is complete.
func (s *shard) complete(e *entry, r txn.Record, next segment.Offset) {
	ctx := s.c.ctx
	if err := s.log.Durable(ctx, next); err != nil {
		return // closing, or the directory is fenced: the next start finds what is on record
	}
	m := Marker{ProducerID: r.ProducerID, Epoch: r.Epoch,
		Marker: segment.Marker{Commit: r.State == txn.PrepareCommit, CoordinatorEpoch: s.log.Offsets().LeaderEpoch}}
	for left, pause := r.Partitions, firstPause; ; pause = min(2*pause, lastPause) {
		if left = s.mark(ctx, e.id, left, m); len(left) == 0 {
			break
		}
		if !sleep(ctx, pause) {
			return
		}
	}
	for pause := firstPause; !s.completed(e, m.Commit); pause = min(2*pause, lastPause) {
		if !sleep(ctx, pause) {
			return
		}
	}
}

// How long to wait before markers that could not be written are tried again.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// sleep is false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// patience is how long the markers of a transaction are written one after another before others go on beside a partition that may not answer.
const patience = time.Second

// mark writes the markers to all partitions, waits until they are durable, and gives those where that failed. A partition that does not
// answer holds up no reader of another one.
func (s *shard) mark(ctx context.Context, id string, parts []txn.Partition, m Marker) (left []txn.Partition) {
	waits := make([]func(context.Context) error, len(parts))
	errs := make([]error, len(parts))
	written := make(chan struct{}, len(parts))
	var next atomic.Int64
	write := func() {
		for i := next.Add(1) - 1; int(i) < len(parts); i = next.Add(1) - 1 {
			m := m
			waits[i], errs[i] = s.c.opt.WriteMarker(ctx, parts[i], m)
			if fenced, ok := errors.AsType[*segment.CoordinatorFencedError](errs[i]); ok {
				// A marker by hand had that epoch: there is no other coordinator, and nobody else would end this transaction.
				m.CoordinatorEpoch = fenced.Current
				waits[i], errs[i] = s.c.opt.WriteMarker(ctx, parts[i], m)
			}
			written <- struct{}{}
		}
	}
	var help func(n int)
	help = func(n int) {
		if int(next.Load()) >= len(parts) {
			return
		}
		for range n {
			go write()
		}
		time.AfterFunc(patience, func() { help(2 * n) })
	}
	first := time.AfterFunc(patience, func() { help(1) })
	write()
	first.Stop()
	for range parts {
		<-written
	}
	for i, p := range parts {
		err := errs[i]
		if err == nil {
			err = waits[i](ctx)
		}
		switch {
		case err == nil:
			s.c.metrics.markers.Inc()
		case errors.Is(err, ErrGone):
		case errors.Is(err, segment.ErrInvalidProducerEpoch):
			s.c.opt.Logger.Warn("marker not needed any more: the partition has seen a later one", "transactional_id", id,
				"topic", p.Topic, "partition", p.Index, "err", err)
		default:
			if ctx.Err() == nil && s.c.metrics.noise.Allow() {
				s.c.opt.Logger.Warn("transaction marker not written yet: readers of committed records wait", "transactional_id", id,
					"topic", p.Topic, "partition", p.Index, "err", err)
			}
			left = append(left, p)
		}
	}
	return left
}

// completed notes that all markers are durable; false when that could not be written.
func (s *shard) completed(e *entry, commit bool) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := e.Record()
	e.Complete(s.c.opt.Now())
	if _, failed := s.store(e, before); failed != txn.None {
		return false
	}
	s.c.metrics.ended(commit, e.Record().Updated.Sub(before.Started))
	close(e.settled)
	e.settled = nil
	return true
}

// expire looks for what has run for too long.
func (s *shard) expire(now time.Time) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.ids {
		before := e.Record()
		nextID := int64(txn.NoProducerID)
		if e.TimedOut(now) && e.NeedsNewID() {
			err := txn.None
			if nextID, err = s.c.newID(); err != txn.None {
				continue // as below
			}
		}
		e.Expire(now, s.c.opt.Retention, nextID)
		if _, failed := s.store(e, before); failed != txn.None {
			continue // the next run tries again
		}
		if before.State == txn.Ongoing && e.Record().State == txn.PrepareAbort {
			s.c.metrics.timeouts.Inc()
			s.c.opt.Logger.Info("transaction aborted: it was open for longer than its timeout", "transactional_id", e.id,
				"producer_id", before.ProducerID, "timeout", before.Timeout)
		}
	}
}

// refuseForMemory says, now and then, why clients are turned away.
func (s *shard) refuseForMemory(id string) {
	if s.c.metrics.noise.Allow() {
		s.c.opt.Logger.Error("no memory for more transactional ids: new ones are refused; let clients use the same ids again, or shorten transactions.id_retention",
			"transactional_id", id, "bytes", s.c.bytes.Load(), "limit", s.c.opt.MaxBytes)
	}
}
