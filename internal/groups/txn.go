package groups

import (
	"context"
	"errors"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// txnOffsets are the offsets that an open transaction commits, by group: nobody is told of them before its marker.
type txnOffsets struct {
	groups map[string]map[topicPartition]txnOffset
	bytes  int64
}

// txnOffset is one of them, with the offset after its record.
type txnOffset struct {
	offsetValue
	at segment.Offset
}

// pendingOf finds or makes the offsets of a producer's transaction; shard.mu is held.
func (s *shard) pendingOf(producerID int64) *txnOffsets {
	t := s.txns[producerID]
	if t == nil {
		t = &txnOffsets{groups: map[string]map[topicPartition]txnOffset{}}
		if s.txns == nil {
			s.txns = map[int64]*txnOffsets{}
		}
		s.txns[producerID] = t
	}
	return t
}

// note takes one offset in.
func (s *shard) note(t *txnOffsets, group string, tp topicPartition, v txnOffset) {
	s.unnote(t, group, tp)
	of := t.groups[group]
	if of == nil {
		of = map[topicPartition]txnOffset{}
		t.groups[group] = of
	}
	of[tp] = v
	s.weigh(t, v.bytes(tp))
}

// unnote forgets one. A group of which none is left is forgotten too: the end of the transaction must not make one that was deleted.
func (s *shard) unnote(t *txnOffsets, group string, tp topicPartition) {
	v, known := t.groups[group][tp]
	if !known {
		return
	}
	if delete(t.groups[group], tp); len(t.groups[group]) == 0 {
		delete(t.groups, group)
	}
	s.weigh(t, -v.bytes(tp))
}

// weigh counts bytes of a transaction's offsets.
func (s *shard) weigh(t *txnOffsets, n int64) {
	t.bytes += n
	s.c.bytes.Add(n)
}

func (v *txnOffset) bytes(tp topicPartition) int64 {
	return int64(128 + len(tp.topic) + len(v.metadata))
}

// unsettled tells whether an open transaction commits an offset of a partition.
func (s *shard) unsettled(group string, tp topicPartition) bool {
	for _, t := range s.txns {
		if _, ok := t.groups[group][tp]; ok {
			return true
		}
	}
	return false
}

// awaited tells whether an open transaction commits offsets of a group.
func (s *shard) awaited(group string) bool {
	for _, t := range s.txns {
		if len(t.groups[group]) > 0 {
			return true
		}
	}
	return false
}

// TxnCommitRequest is one TxnOffsetCommit. The transaction coordinator knows that the group is part of the transaction.
type TxnCommitRequest struct {
	CommitRequest
	ProducerID int64
	Epoch      int16
	Guard      partition.TxnGuard // see GuardTxn
}

// Serves tells why a group is not served now, or None.
func (c *Coordinator) Serves(group string) classic.Error {
	_, err := c.shardOf(group)
	return err
}

// GuardTxn is the first step of a TxnOffsetCommit, see partition.Log.GuardTxn. A group that cannot be served has no guard: 0.
func (c *Coordinator) GuardTxn(group string, producerID int64, epoch int16) (guard partition.TxnGuard, open bool) {
	s, err := c.shardOf(group)
	if err != classic.None {
		return 0, false
	}
	return s.log.GuardTxn(producerID, epoch)
}

// DropGuard gives back a guard that was not used.
func (c *Coordinator) DropGuard(group string, producerID int64, guard partition.TxnGuard) {
	if s, err := c.shardOf(group); err == classic.None && guard != 0 {
		s.log.DropGuard(producerID, guard)
	}
}

// CommitTxn writes offsets that are committed with a transaction. errs has one answer for each, None for those that are acknowledged
// when Pending.Wait says so; err is of all.
func (c *Coordinator) CommitTxn(r TxnCommitRequest) (errs []classic.Error, wait Pending, err classic.Error) {
	s, err := c.shardOf(r.Group)
	if err != classic.None {
		return nil, wait, err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[r.Group]; g != nil {
		if err := c.mayCommit(g, now, &r.CommitRequest, true); err != classic.None {
			return nil, wait, err
		}
	} else if r.Generation >= 0 {
		return nil, wait, classic.IllegalGeneration
	}
	if len(r.Group) > maxName {
		return nil, wait, classic.InvalidGroupID
	}
	errs = make([]classic.Error, len(r.Offsets))
	s.builder.Reset()
	for i, o := range r.Offsets {
		switch {
		case !c.opt.Exists(o.Topic, o.Partition):
			errs[i] = classic.UnknownTopicOrPartition
		case len(o.Metadata) > c.opt.MaxMetadata:
			errs[i] = classic.OffsetMetadataTooLarge
		case c.full():
			s.refuseForMemory(r.Group)
			errs[i] = classic.InvalidCommitOffsetSize
		default:
			v := offsetValue{offset: o.Offset, leaderEpoch: o.LeaderEpoch, metadata: o.Metadata, committed: now.UnixMilli(), expires: -1}
			s.builder.Add(appendOffsetKey(nil, r.Group, topicPartition{o.Topic, o.Partition}), appendOffsetValue(nil, v))
		}
	}
	if s.builder.Len() == 0 {
		return errs, wait, classic.None
	}
	done, failed := s.log.Append(c.ctx, partition.AppendRequest{Records: s.builder.TransactionalBatch(now.UnixMilli(), r.ProducerID, r.Epoch),
		Internal: true, Guard: r.Guard})
	if failed != nil {
		return nil, wait, txnRefusal(failed)
	}
	if s.groups[r.Group] == nil {
		s.create(r.Group) // it can be listed and deleted, as in Kafka
	}
	t := s.pendingOf(r.ProducerID)
	for i, o := range r.Offsets {
		if errs[i] == classic.None {
			s.note(t, r.Group, topicPartition{o.Topic, o.Partition},
				txnOffset{offsetValue{offset: o.Offset, leaderEpoch: o.LeaderEpoch, metadata: o.Metadata, committed: now.UnixMilli(), expires: -1}, done.Next})
			c.metrics.commits.Inc()
		}
	}
	wait = s.pending(done.Next)
	wait.synced = true // the decision to commit is on stable storage before its marker, and must not find the offsets gone
	return errs, wait, classic.None
}

// txnRefusal is refusal for what only transactions meet.
func txnRefusal(err error) classic.Error {
	switch {
	case errors.Is(err, segment.ErrInvalidProducerEpoch):
		return classic.InvalidProducerEpoch
	case errors.Is(err, segment.ErrInvalidTxnState):
		return classic.InvalidTxnState
	}
	return refusal(err)
}

// ErrNotReady: the partition of Topic is not loaded, or cannot be served.
var ErrNotReady = errors.New("groups: partition of " + Topic + " is not served now")

// EndTxn appends a transaction's marker to a partition of Topic and with it makes the transaction's offsets those of their groups, or
// forgets them. aboveTxn: see transactions.Marker. They are told when the marker is durable, which wait waits for. Errors: ErrNotReady, those of the log.
func (c *Coordinator) EndTxn(index int32, producerID int64, epoch int16, m segment.Marker, aboveTxn bool) (wait func(context.Context) error, err error) {
	shards := c.all()
	if index < 0 || int(index) >= len(shards) || shards[index].state.Load() != shardReady {
		return nil, ErrNotReady
	}
	s := shards[index]
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	b := segment.AppendMarker(nil, producerID, epoch, m, now.UnixMilli())
	done, err := s.log.Append(c.ctx, partition.AppendRequest{Records: b, Internal: true, EpochPerTxn: aboveTxn})
	if err != nil {
		return nil, err
	}
	if t := s.txns[producerID]; t != nil {
		delete(s.txns, producerID)
		c.bytes.Add(-t.bytes)
		if m.Commit {
			s.materialise(t, done.Next)
		}
	}
	log := s.log
	// Synced: a marker that could be lost would leave a transaction that nobody ends.
	return func(ctx context.Context) error { return log.Synced(ctx, done.Next) }, nil
}

// materialise makes a transaction's offsets those of their groups, once the log is durable up to next. One that was overtaken by a later
// record outside the transaction counts no more, as in Kafka: what is in memory is what a start finds in a log that was compacted meanwhile.
func (s *shard) materialise(t *txnOffsets, next segment.Offset) {
	durable := s.log.Offsets().HighWatermark
	for id, of := range t.groups {
		g := s.groups[id]
		if g == nil {
			g = s.create(id)
		}
		for tp, v := range of {
			if !s.c.opt.Exists(tp.topic, tp.partition) {
				continue // deleted meanwhile
			}
			if vs := g.offsets[tp]; len(vs) == 0 || vs[len(vs)-1].at < v.at {
				s.put(g, tp, version{offsetValue: v.offsetValue, next: next, at: v.at}, durable)
			}
		}
	}
}

// Unstable tells, for the offsets that are asked for, which of them a transaction is about to change: what is committed now may be
// read again (require_stable). While a shard is not ready nothing is known to be stable: it may be ready when the offsets are asked for.
func (c *Coordinator) Unstable(groupID string) func(topic string, partition int32) bool {
	found := map[topicPartition]bool{}
	answer := func(topic string, partition int32) bool { return found[topicPartition{topic, partition}] }
	if !c.Started() {
		return answer
	}
	s, err := c.shardOf(groupID)
	if err != classic.None {
		return func(string, int32) bool { return true }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.txns {
		for tp := range t.groups[groupID] {
			found[tp] = true
		}
	}
	if g := s.groups[groupID]; g != nil {
		durable := s.log.Offsets().HighWatermark
		for tp, vs := range g.offsets {
			if n := len(vs); n > 0 && vs[n-1].next > durable {
				found[tp] = true
			}
		}
	}
	return answer
}

// reopen takes over the offsets of transactions that have not ended in the log, but for those that were deleted since.
func (l *loading) reopen() {
	for producerID, list := range l.open {
		for _, r := range list {
			k, err := readKey(r.key)
			if err != nil || !k.offset || r.value == nil {
				continue
			}
			if later := l.offsets[k.group][k.tp]; later.deleted && later.at > r.at {
				continue
			}
			if v, err := readOffsetValue(r.value); err == nil {
				if l.s.groups[k.group] == nil {
					l.s.create(k.group)
				}
				l.s.note(l.s.pendingOf(producerID), k.group, k.tp, txnOffset{v, r.at})
			}
		}
	}
}
