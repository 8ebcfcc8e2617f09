package groups

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/segment"
)

// States of a shard.
const (
	shardLoading = iota
	shardReady
	shardFailed // its log cannot be read, or is offline
)

// shard is one partition of the topic with its groups.
type shard struct {
	c         *Coordinator
	partition int32
	state     atomic.Int32
	lookers   atomic.Int32 // that wait for mu, see look

	mu      sync.Mutex
	log     Log
	groups  map[string]*group
	joins   map[classic.Ticket]chan<- classic.JoinResult // that wait
	syncs   map[classic.Ticket]chan<- classic.SyncResult
	alarms  alarms
	alarm   *time.Timer // rings for alarms[0]; nil before the first
	rings   time.Time   // when
	builder records.Builder

	txns map[int64]*txnOffsets // open transactions with offsets, by producer
}

// machine is what both kinds of groups can be asked.
type machine interface {
	State() classic.State
	ProtocolType() string
	Idle() bool
	Subscribed(topic string) bool
	ExpiryBase(topic string, committed time.Time) (base time.Time, ok bool)
	MayDeleteOffsets() classic.Error
	Assignments() []classic.Assignment
	NextDeadline() time.Time
	SizeBytes() int64
	Has(memberID, instanceID string) bool
	Said(memberID, instanceID string) int
	Kill(now time.Time)
}

// group is one group with its offsets. Guarded by shard.mu.
type group struct {
	machine                  // one of the next two
	classic  *classic.Group  // nil for a group of the consumer protocol
	consumer *consumer.Group // nil for a group of the classic one
	id       string
	offsets  map[topicPartition]versions
	last     *classic.Metadata // the newest record of the group itself in the log, durable or not; nil for none
	bytes    int64             // of the group without its offsets
	kept     int64             // of its offsets
	next     segment.Offset    // after the newest record of a group of the consumer protocol, or what was left by one that was deleted
	due      time.Time         // its alarm, which may ring early
	seat     int               // in alarms, -1 none
}

func newShard(c *Coordinator, partition int32) *shard {
	return &shard{c: c, partition: partition, groups: map[string]*group{}, joins: map[classic.Ticket]chan<- classic.JoinResult{},
		syncs: map[classic.Ticket]chan<- classic.SyncResult{}}
}

// create makes an empty group.
func (s *shard) create(id string) *group {
	return s.take(id, classic.New(&s.c.opt.Classic, time.Now()))
}

func (s *shard) take(id string, m machine) *group {
	g := &group{id: id, offsets: map[topicPartition]versions{}, seat: -1}
	g.become(m)
	s.groups[id] = g
	s.account(g)
	return g
}

// become replaces the machine.
func (g *group) become(m machine) {
	g.machine = m
	g.classic, _ = m.(*classic.Group)
	g.consumer, _ = m.(*consumer.Group)
}

// account books the memory of a group without its offsets, which put books.
func (s *shard) account(g *group) {
	n := g.SizeBytes() + int64(2*len(g.id))
	s.c.bytes.Add(n - g.bytes)
	g.bytes = n
}

// drop forgets a group.
func (s *shard) drop(g *group) {
	g.Kill(time.Now())
	delete(s.groups, g.id)
	s.c.bytes.Add(-g.bytes - g.kept)
	g.bytes, g.kept = 0, 0
	if g.seat >= 0 {
		heap.Remove(&s.alarms, g.seat)
	}
	s.c.owners.assign(g.id, nil)
}

// claim makes known who reads what of a group, as far as it exists: a leader may assign anything.
func (s *shard) claim(g *group) {
	list := g.Assignments()
	for i := range list {
		for k := range list[i].Topics {
			t := &list[i].Topics[k]
			t.Partitions = slices.DeleteFunc(slices.Clone(t.Partitions), func(p int32) bool { return !s.c.opt.Exists(t.Topic, p) })
		}
	}
	s.c.owners.assign(g.id, list)
}

// apply carries out what events of a group of the classic protocol have come to, until nothing is left.
func (s *shard) apply(g *group) {
	for again := g.classic != nil; again; {
		again = false
		e := g.classic.Effects()
		if e.Assigned { // before a member hears of it: its first fetch is of the group already
			s.claim(g)
		}
		for _, r := range e.Joined {
			if c := s.joins[r.Ticket]; c != nil {
				delete(s.joins, r.Ticket)
				c <- r.JoinResult
			}
		}
		for _, r := range e.Synced {
			if c := s.syncs[r.Ticket]; c != nil {
				delete(s.syncs, r.Ticket)
				c <- r.SyncResult
			}
		}
		for _, st := range e.Stores {
			again = !s.store(g, st) || again
		}
	}
	s.account(g)
	s.schedule(g)
}

// store appends a group's metadata and reports its durability later; false when the outcome has been reported already.
func (s *shard) store(g *group, st classic.Store) bool {
	s.builder.Reset()
	s.builder.Add(appendGroupKey(nil, g.id), appendGroupValue(nil, st.Metadata))
	next, err := s.append()
	if err == nil && s.c.ctx.Err() != nil {
		err = s.c.ctx.Err() // closing: nobody would wait for the sync
	}
	if err != nil {
		s.c.opt.Logger.Warn("group metadata not stored", "group", g.id, "partition", s.partition, "err", err)
		g.classic.Stored(time.Now(), st.ID, refusal(err))
		return false
	}
	s.c.metrics.generations.Inc()
	g.last = &st.Metadata
	log, m := s.log, g.classic
	s.c.wg.Go(func() {
		err := log.Durable(s.c.ctx, next)
		s.mu.Lock()
		defer s.mu.Unlock()
		m.Stored(time.Now(), st.ID, refusal(err))
		if s.groups[g.id] == g {
			s.apply(g)
		}
	})
	return true
}

// append writes what is in the builder and gives the offset after it.
func (s *shard) append() (next segment.Offset, err error) {
	done, err := s.log.Append(s.c.ctx, partition.AppendRequest{Records: s.builder.Batch(time.Now().UnixMilli())})
	if err != nil {
		return 0, err
	}
	return done.Next, nil
}

// maxBatch is where a batch of many records is cut: well below what the topic accepts.
const maxBatch = 256 << 10

// refuseForMemory says, now and then, why clients are turned away.
func (s *shard) refuseForMemory(group string) {
	s.c.metrics.refused.Inc()
	if s.c.metrics.noise.Allow() {
		s.c.opt.Logger.Error("no memory for more groups: new members and offsets are refused; delete unused groups, or raise groups.memory",
			"group", group, "bytes", s.c.bytes.Load(), "limit", s.c.opt.MaxBytes)
	}
}

// alarms is a heap of groups by due.
type alarms []*group

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i]; a[i].seat, a[j].seat = i, j }
func (a *alarms) Push(x any)        { g := x.(*group); g.seat = len(*a); *a = append(*a, g) }
func (a *alarms) Pop() any {
	old := *a
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	g.seat = -1
	return g
}

// schedule sets a group's alarm. One that would ring early stays: heartbeats move deadlines all the time.
func (s *shard) schedule(g *group) {
	next := g.NextDeadline()
	switch {
	case next.IsZero() || s.groups[g.id] != g:
	case g.seat < 0:
		g.due = next
		heap.Push(&s.alarms, g)
	case next.Before(g.due):
		g.due = next
		heap.Fix(&s.alarms, g.seat)
	}
	s.wind()
}

// wind sets the shard's timer for the first alarm.
func (s *shard) wind() {
	if len(s.alarms) == 0 || s.c.ctx.Err() != nil {
		return
	}
	first := s.alarms[0].due
	switch {
	case s.alarm == nil:
		s.alarm = time.AfterFunc(time.Until(first), s.ring)
	case s.rings.IsZero() || first.Before(s.rings):
		s.alarm.Reset(time.Until(first))
	default:
		return
	}
	s.rings = first
}

// ring does what is due.
func (s *shard) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings = time.Time{}
	now := time.Now()
	for len(s.alarms) > 0 && !s.alarms[0].due.After(now) && s.c.ctx.Err() == nil {
		g := heap.Pop(&s.alarms).(*group)
		if g.consumer != nil {
			s.tick(g, now)
			continue
		}
		g.classic.Tick(now)
		s.apply(g)
	}
	s.wind()
}

func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alarm != nil {
		s.alarm.Stop()
	}
}

// Pending is a change that is written and not yet durable; the zero value is nothing to wait for.
type Pending struct {
	log    Log
	next   segment.Offset
	by     time.Time // when it is given up, also by who has to wait for other changes first
	synced bool      // whatever the topic's flush setting
	then   func()    // when it is durable; may be nil
}

// Wait returns when the change is durable, with Kafka's error when it will not be, or not in time.
func (p Pending) Wait(ctx context.Context) classic.Error {
	if p.log == nil {
		return classic.None
	}
	ctx, cancel := context.WithDeadline(ctx, p.by)
	defer cancel()
	durable := p.log.Durable
	if p.synced {
		durable = p.log.Synced
	}
	if err := durable(ctx, p.next); err != nil {
		return refusal(err)
	}
	if p.then != nil {
		p.then()
	}
	return classic.None
}

func (s *shard) pending(next segment.Offset) Pending {
	return Pending{log: s.log, next: next, by: time.Now().Add(s.c.opt.CommitTimeout)}
}
