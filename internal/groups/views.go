package groups

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/segment"
)

// Type is the protocol of a group, as ListGroups names it.
type Type string

// Types of groups.
const (
	TypeClassic  Type = "classic"
	TypeConsumer Type = "consumer" // KIP-848
)

// Listed is one group of a list.
type Listed struct {
	Group, ProtocolType string
	Type                Type
	State               classic.State
}

// List gives all groups by id. states keeps those in one of them, whatever the case of the letters; none keeps all. The error is that
// of shards that are not loaded, or do not answer; the others are listed all the same.
func (c *Coordinator) List(states []string) (out []Listed, err classic.Error) {
	until := time.Now().Add(lookWait)
	for _, s := range c.all() {
		switch s.state.Load() {
		case shardLoading:
			err = classic.LoadInProgress
			continue
		case shardFailed:
			continue
		}
		if !s.look(until, func() {
			for _, g := range s.groups {
				if len(states) == 0 || slices.ContainsFunc(states, func(want string) bool { return strings.EqualFold(want, string(g.State())) }) {
					out = append(out, Listed{g.id, g.ProtocolType(), g.kind(), g.State()})
				}
			}
		}) {
			err = classic.LoadInProgress
		}
	}
	slices.SortFunc(out, func(a, b Listed) int { return cmp.Compare(a.Group, b.Group) })
	return out, err
}

func (g *group) kind() Type {
	if g.consumer != nil {
		return TypeConsumer
	}
	return TypeClassic
}

// Description is one group of the classic protocol for people.
type Description struct {
	State                  classic.State
	ProtocolType, Protocol string // Protocol: of a stable group
	Generation             int32
	Members                []classic.Member
}

// Describe tells about a group of the classic protocol. Errors: GroupIDNotFound, also for groups of the consumer protocol, and those of a coordinator that is not ready.
func (c *Coordinator) Describe(id string) (Description, classic.Error) {
	s, g, err := c.lookup(id)
	switch {
	case err == classic.UnknownMemberID:
		return Description{State: classic.Dead}, classic.GroupIDNotFound
	case err != classic.None:
		return Description{}, err
	}
	defer s.mu.Unlock()
	if g.classic == nil {
		return Description{State: classic.Dead}, classic.GroupIDNotFound
	}
	d := Description{State: g.State(), ProtocolType: g.ProtocolType(), Generation: g.classic.Generation(), Members: g.classic.Members()}
	if d.State == classic.Stable {
		d.Protocol = g.classic.Protocol()
	}
	return d, classic.None
}

// Delete removes an empty group with its offsets. It is there, and its offsets are told, until that is durable.
func (c *Coordinator) Delete(id string) (Pending, classic.Error) {
	s, g, err := c.lookup(id)
	switch {
	case err == classic.UnknownMemberID:
		return Pending{}, classic.GroupIDNotFound
	case err != classic.None:
		return Pending{}, err
	}
	defer s.mu.Unlock()
	if g.State() != classic.Empty {
		return Pending{}, classic.NonEmptyGroup
	}
	wait, failed := s.erase(g)
	if failed != nil {
		return wait, refusal(failed)
	}
	if wait.log == nil {
		wait = s.until(max(g.next, g.newestOf(maps.Keys(g.offsets))))
	}
	if wait.log != nil && wait.next > s.log.Offsets().HighWatermark {
		wait.then = s.leave(g, wait.next)
	}
	return wait, classic.None
}

// leave puts what is on stable storage of a group that was erased in its place, until the log is durable up to next: a crash before that brings it
// back, so nobody may be told that it is gone. forget is for whoever knows that it is durable, before he tells; nobody may wait for that.
func (s *shard) leave(erased *group, next segment.Offset) (forget func()) {
	g := s.create(erased.id)
	g.offsets, g.next = erased.offsets, next
	for tp, vs := range g.offsets {
		s.book(g, offsetBytes(tp, vs))
	}
	forget = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.groups[g.id] != g {
			return
		}
		s.prune(g, s.log.Offsets().HighWatermark)
		if g.consumer == nil && g.last == nil && g.Idle() && len(g.offsets) == 0 && !s.awaited(g.id) {
			s.drop(g)
		}
	}
	if log := s.log; s.c.ctx.Err() == nil {
		s.c.wg.Go(func() {
			if log.Durable(s.c.ctx, next) == nil {
				forget()
			}
		})
	}
	return forget
}

// erase writes tombstones for a group and everything it has, and forgets it.
func (s *shard) erase(g *group) (Pending, error) {
	wait, err := s.bury(g, s.held(g, func(topicPartition) bool { return true }))
	if err != nil {
		return wait, err
	}
	s.builder.Reset()
	if g.last != nil {
		s.builder.Add(appendGroupKey(nil, g.id), nil)
	}
	if g.consumer != nil {
		for _, r := range g.consumer.Tombstones() {
			s.addConsumer(g.id, r)
		}
	}
	if s.builder.Len() > 0 {
		next, err := s.append()
		if err != nil {
			return wait, err
		}
		wait = s.pending(next)
	}
	s.drop(g)
	return wait, nil
}

// TopicDeleted removes the offsets of a topic from all groups. It returns when that is on stable storage, or ctx ends; a start before that drops what
// it finds of topics that are not there. A topic of the same name may be made only afterwards: it would get those offsets.
func (c *Coordinator) TopicDeleted(ctx context.Context, topic string) {
	var waits []Pending
	for _, s := range c.all() {
		if s.state.Load() != shardReady {
			continue // a shard that is loaded later looks for itself
		}
		s.mu.Lock()
		for _, g := range s.groups {
			s.buryLogged(g, s.held(g, func(tp topicPartition) bool { return tp.topic == topic }))
		}
		last := s.pending(s.log.Offsets().End) // with what others have deleted just now
		s.mu.Unlock()
		last.synced = true
		waits = append(waits, last)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opt.CommitTimeout)
	defer cancel()
	failed := classic.None
	for _, wait := range waits {
		if err := wait.Wait(ctx); err != classic.None {
			failed = err // the others all the same
		}
	}
	if failed != classic.None {
		c.opt.Logger.Warn("offsets of a deleted topic are not known to be deleted on stable storage", "topic", topic, "err", failed)
	}
}

// buryLogged deletes offsets; a failure is logged, and the next run tries again.
func (s *shard) buryLogged(g *group, doomed []topicPartition) {
	if len(doomed) == 0 {
		return
	}
	if _, err := s.bury(g, doomed); err != nil {
		s.c.opt.Logger.Warn("offsets not deleted yet", "group", g.id, "partition", s.partition, "err", err)
	}
}

// expireLoop drops what nobody uses any more.
func (c *Coordinator) expireLoop() {
	t := time.NewTicker(c.opt.CheckInterval)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			for _, s := range c.all() {
				if s.state.Load() == shardReady {
					s.expire(time.Now())
				}
			}
			c.owners.expire(time.Now())
		}
	}
}

// expire drops offsets whose retention is over, and groups without members and offsets.
func (s *shard) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	durable := s.log.Offsets().HighWatermark
	for _, g := range s.groups {
		var over []topicPartition
		for tp := range g.offsets {
			// Not what a transaction is about to change: a tombstone would be later than its record.
			if v, ok := g.newest(tp); ok && s.expired(g, tp, v, now) && !s.unsettled(g.id, tp) {
				over = append(over, tp)
			}
		}
		s.buryLogged(g, over)
		s.prune(g, durable)
		if g.Idle() && len(g.offsets) == 0 && !s.awaited(g.id) {
			if _, err := s.erase(g); err != nil {
				s.c.opt.Logger.Warn("empty group not deleted yet", "group", g.id, "partition", s.partition, "err", err)
			}
		}
	}
}

func (s *shard) expired(g *group, tp topicPartition, v version, now time.Time) bool {
	base, ok := g.ExpiryBase(tp.topic, time.UnixMilli(v.committed))
	switch {
	case !ok:
		return false
	case v.expires >= 0:
		return now.UnixMilli() >= v.expires
	}
	return now.Sub(base) >= s.c.opt.Retention
}
