package groups

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/segment"
)

// Coordinator keeps all groups. Methods are safe for concurrent use.
type Coordinator struct {
	opt     Options
	metrics *metrics
	owners  owners
	regexes regexes
	tickets atomic.Uint64
	bytes   atomic.Int64 // of all groups, about

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	startMu sync.Mutex
	shards  atomic.Pointer[[]*shard] // nil until the topic is there
}

// New makes a coordinator that has no groups until Start.
func New(opt Options) (*Coordinator, error) {
	opt = opt.withDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{opt: opt}
	c.owners.init()
	c.ctx, c.stop = context.WithCancel(context.Background())
	var err error
	c.metrics, err = newMetrics(c)
	return c, err
}

// Start begins to serve a topic of that many partitions: it loads them in the background. A group whose shard is not loaded is
// answered with LoadInProgress. Later calls do nothing.
func (c *Coordinator) Start(partitions int32) {
	c.startMu.Lock()
	defer c.startMu.Unlock()
	if c.shards.Load() != nil || c.ctx.Err() != nil || partitions <= 0 {
		return
	}
	shards := make([]*shard, partitions)
	for i := range shards {
		shards[i] = newShard(c, int32(i))
	}
	topics := c.opt.Topics()
	c.shards.Store(&shards)
	next := atomic.Int32{}
	for range min(statetopic.LoadParallel, len(shards)) {
		c.wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(shards) && c.ctx.Err() == nil; i = next.Add(1) - 1 {
				shards[i].load(topics)
			}
		})
	}
	c.wg.Go(c.expireLoop)
}

// Started tells whether there is a topic.
func (c *Coordinator) Started() bool { return c.shards.Load() != nil }

// Close ends timers and background work. Requests that wait are answered by their own contexts.
func (c *Coordinator) Close() {
	c.startMu.Lock()
	c.stop()
	c.startMu.Unlock()
	for _, s := range c.all() {
		s.close()
	}
	c.wg.Wait()
}

func (c *Coordinator) all() []*shard {
	if s := c.shards.Load(); s != nil {
		return *s
	}
	return nil
}

// shardOf finds the shard of a group that can be served.
func (c *Coordinator) shardOf(group string) (*shard, classic.Error) {
	shards := c.all()
	if shards == nil || c.ctx.Err() != nil {
		return nil, classic.CoordinatorNotAvailable
	}
	s := shards[statetopic.PartitionFor(group, int32(len(shards)))]
	switch s.state.Load() {
	case shardLoading:
		return nil, classic.LoadInProgress
	case shardFailed:
		return nil, classic.NotCoordinator
	}
	return s, classic.None
}

// refusal is the Kafka error of a failed append or sync: clients look for the coordinator again and retry, or give up.
func refusal(err error) classic.Error {
	switch {
	case err == nil:
		return classic.None
	case errors.Is(err, partition.ErrFenced), errors.Is(err, partition.ErrClosed), errors.Is(err, errNoLog):
		return classic.NotCoordinator
	case errors.Is(err, partition.ErrDiskFull), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return classic.CoordinatorNotAvailable
	case errors.Is(err, segment.ErrMessageTooLarge), errors.Is(err, segment.ErrFull):
		return classic.UnknownServerError
	}
	return classic.NotCoordinator
}

var errNoLog = errors.New("groups: partition of " + Topic + " is not served")

// full tells that no new members and offsets are taken in.
func (c *Coordinator) full() bool { return c.bytes.Load() > c.opt.MaxBytes }

// flooded tells that those that are there may not grow any more either: each of them could, up to the largest request.
func (c *Coordinator) flooded() bool { return c.bytes.Load() > 2*c.opt.MaxBytes }

// JoinRequest is one JoinGroup.
type JoinRequest struct {
	Group string
	classic.JoinRequest
}

// Join answers on the channel, at once or when the join phase has ended; never, when the coordinator is closed before.
func (c *Coordinator) Join(r JoinRequest) <-chan classic.JoinResult {
	answer := make(chan classic.JoinResult, 1)
	refuse := func(err classic.Error) <-chan classic.JoinResult {
		answer <- classic.JoinResult{Err: err, MemberID: r.MemberID, Generation: -1}
		return answer
	}
	if r.Group == "" {
		return refuse(classic.InvalidGroupID)
	}
	if len(r.Group) > maxName {
		return refuse(classic.InvalidGroupID)
	}
	if len(r.ProtocolType) > maxName || slices.ContainsFunc(r.Protocols, func(p classic.Protocol) bool { return len(p.Name) > maxName }) {
		return refuse(classic.InvalidRequest)
	}
	s, err := c.shardOf(r.Group)
	if err != classic.None {
		return refuse(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[r.Group]
	switch {
	case g == nil && r.MemberID != "":
		return refuse(classic.UnknownMemberID)
	case c.full() && (g == nil || !g.Has(r.MemberID, r.InstanceID)), g != nil && c.flooded() && classic.Size(r.Protocols) > g.Said(r.MemberID, r.InstanceID):
		s.refuseForMemory(r.Group)
		if g != nil && g.classic != nil && !g.Has(r.MemberID, r.InstanceID) {
			g.classic.Leave(time.Now(), []classic.Leaver{{MemberID: r.MemberID}}) // the others may be waiting for whoever was given this id
			s.apply(g)
		}
		return refuse(classic.GroupMaxSizeReached)
	case g == nil:
		if r.Session < c.opt.Classic.MinSession || r.Session > c.opt.Classic.MaxSession {
			return refuse(classic.InvalidSessionTimeout) // before a group comes into being
		}
		g = s.create(r.Group)
	}
	if g.consumer != nil && g.Idle() {
		switch { // what is refused does not change the group
		case r.Session < c.opt.Classic.MinSession || r.Session > c.opt.Classic.MaxSession:
			return refuse(classic.InvalidSessionTimeout)
		case r.MemberID != "":
			return refuse(classic.UnknownMemberID)
		case r.ProtocolType == "" || len(r.Protocols) == 0:
			return refuse(classic.InconsistentProtocol)
		}
		if err := s.toEmptyClassic(g); err != nil {
			return refuse(refusal(err))
		}
	}
	if g.consumer != nil {
		s.joinConsumer(g, r.JoinRequest, answer)
		return answer
	}
	r.Ticket = classic.Ticket(c.tickets.Add(1))
	s.joins[r.Ticket] = answer
	g.classic.Join(time.Now(), r.JoinRequest)
	s.apply(g)
	return answer
}

// SyncRequest is one SyncGroup.
type SyncRequest struct {
	Group string
	classic.SyncRequest
}

// Sync answers on the channel, at once or when the assignment is stored; never, when the coordinator is closed before.
func (c *Coordinator) Sync(r SyncRequest) <-chan classic.SyncResult {
	answer := make(chan classic.SyncResult, 1)
	s, g, err := c.find(r.Group)
	if err != classic.None {
		if err == classic.LoadInProgress { // Kafka: the generation of before is over, so the member may as well join again
			err = classic.RebalanceInProgress
		}
		answer <- classic.SyncResult{Err: err}
		return answer
	}
	defer s.mu.Unlock()
	if g.consumer != nil {
		later(s, g, answer, g.consumer.Sync(time.Now(), r.SyncRequest), func(err classic.Error) classic.SyncResult { return classic.SyncResult{Err: err} })
		s.schedule(g)
		return answer
	}
	if c.flooded() && g.classic.Grows(r.Assignments) {
		s.refuseForMemory(r.Group)
		answer <- classic.SyncResult{Err: classic.GroupMaxSizeReached}
		return answer
	}
	r.Ticket = classic.Ticket(c.tickets.Add(1))
	s.syncs[r.Ticket] = answer
	g.classic.Sync(time.Now(), r.SyncRequest)
	s.apply(g)
	return answer
}

// find locks the shard of a group that members know; the caller unlocks it when there is no error.
func (c *Coordinator) find(group string) (*shard, *group, classic.Error) {
	if group == "" {
		return nil, nil, classic.InvalidGroupID
	}
	return c.lookup(group)
}

// lookup is find for requests about groups, where the empty name is one like any other: offsets can be committed under it.
func (c *Coordinator) lookup(group string) (*shard, *group, classic.Error) {
	if !c.Started() {
		return nil, nil, classic.UnknownMemberID
	}
	s, err := c.shardOf(group)
	if err != classic.None {
		return nil, nil, err
	}
	s.mu.Lock()
	g := s.groups[group]
	if g == nil {
		s.mu.Unlock()
		return nil, nil, classic.UnknownMemberID
	}
	return s, g, classic.None
}

// Heartbeat keeps a member in its group. While groups are loaded it is fine, for the sessions begin anew afterwards.
func (c *Coordinator) Heartbeat(group, memberID, instanceID string, generation int32) classic.Error {
	s, g, err := c.find(group)
	if err != classic.None {
		if err == classic.LoadInProgress {
			return classic.None
		}
		return err
	}
	defer s.mu.Unlock()
	if g.consumer != nil {
		return s.beatConsumer(g, memberID, instanceID, generation)
	}
	return g.classic.Heartbeat(time.Now(), memberID, instanceID, generation)
}

// Leave removes members; one answer for each, in order, or an error for all.
func (c *Coordinator) Leave(group string, leavers []classic.Leaver) ([]classic.Error, classic.Error) {
	s, g, err := c.find(group)
	if err == classic.UnknownMemberID {
		out := make([]classic.Error, len(leavers))
		for i := range out {
			out[i] = err
		}
		return out, classic.None
	}
	if err != classic.None {
		return nil, err
	}
	defer s.mu.Unlock()
	if g.consumer != nil {
		out := g.consumer.ClassicLeave(leavers)
		return out, refusal(s.storeConsumer(g, g.consumer))
	}
	out := g.classic.Leave(time.Now(), leavers)
	s.apply(g)
	return out, classic.None
}
