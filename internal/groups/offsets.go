package groups

import (
	"iter"
	"slices"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/segment"
)

// version is one commit of one partition's offset. It is served once the log is durable up to next.
type version struct {
	offsetValue
	next    segment.Offset // after its record, or after the marker of its transaction
	at      segment.Offset // after its record
	deleted bool           // a tombstone
}

// versions are the last durable commit of a partition and those after it, in order.
type versions []version

// durable is the index of the last version that is durable, -1 for none.
func (v versions) durable(to segment.Offset) int {
	for i := len(v) - 1; i >= 0; i-- {
		if v[i].next <= to {
			return i
		}
	}
	return -1
}

func offsetBytes(tp topicPartition, vs versions) int64 {
	if len(vs) == 0 {
		return 0
	}
	n := int64(96 + len(tp.topic) + 80*cap(vs))
	for i := range vs {
		n += int64(len(vs[i].metadata))
	}
	return n
}

// put adds a version and forgets those that nobody will ask for again.
func (s *shard) put(g *group, tp topicPartition, v version, durable segment.Offset) {
	vs := g.offsets[tp]
	before := offsetBytes(tp, vs)
	if i := vs.durable(durable); i > 0 {
		vs = append(vs[:0], vs[i:]...)
	}
	vs = append(vs, v)
	g.offsets[tp] = vs
	s.book(g, offsetBytes(tp, vs)-before)
}

// book counts bytes of a group's offsets.
func (s *shard) book(g *group, n int64) {
	g.kept += n
	s.c.bytes.Add(n)
}

// get is the offset that a client is told.
func (g *group) get(tp topicPartition, durable segment.Offset) (offsetValue, bool) {
	vs := g.offsets[tp]
	i := vs.durable(durable)
	if i < 0 || vs[i].deleted {
		return offsetValue{}, false
	}
	return vs[i].offsetValue, true
}

// newest is the last version, durable or not.
func (g *group) newest(tp topicPartition) (version, bool) {
	vs := g.offsets[tp]
	if len(vs) == 0 || vs[len(vs)-1].deleted {
		return version{}, false
	}
	return vs[len(vs)-1], true
}

// prune forgets offsets whose deletion is durable.
func (s *shard) prune(g *group, durable segment.Offset) {
	for tp, vs := range g.offsets {
		if i := vs.durable(durable); i == len(vs)-1 && i >= 0 && vs[i].deleted {
			s.book(g, -offsetBytes(tp, vs))
			delete(g.offsets, tp)
		}
	}
}

// Offset is what a client commits for one partition, and what it is told.
type Offset struct {
	Topic       string
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// CommitRequest is one OffsetCommit.
type CommitRequest struct {
	Group                string
	MemberID, InstanceID string
	Generation           int32         // or member epoch (KIP-848)
	Epochs               bool          // the client knows errors of member epochs (OffsetCommit 9)
	Retention            time.Duration // of these offsets, negative: the broker's
	ClientID, Host       string
	Offsets              []Offset
}

// mayCommit checks a commit as a whole.
func (c *Coordinator) mayCommit(g *group, now time.Time, r *CommitRequest, txn bool) classic.Error {
	switch {
	case g.consumer != nil:
		return g.consumer.MayCommit(consumer.Commit{MemberID: r.MemberID, InstanceID: r.InstanceID, Epoch: r.Generation, Txn: txn, Topics: c.opt.Topics(),
			Partitions: func(yield func(string, int32) bool) {
				for _, o := range r.Offsets {
					if len(o.Metadata) <= c.opt.MaxMetadata && !yield(o.Topic, o.Partition) { // others are refused by themselves
						return
					}
				}
			}})
	case txn:
		return g.classic.MayCommitTxn(now, r.MemberID, r.InstanceID, r.Generation)
	default:
		return g.classic.MayCommit(now, r.MemberID, r.InstanceID, r.Generation)
	}
}

// Commit writes offsets. errs has one answer for each, None for those that are acknowledged when Pending.Wait says so; err is of all.
func (c *Coordinator) Commit(r CommitRequest) (errs []classic.Error, wait Pending, err classic.Error) {
	s, err := c.shardOf(r.Group)
	if err != classic.None {
		return nil, wait, err
	}
	if len(r.Group) > maxName {
		return nil, wait, classic.InvalidGroupID
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[r.Group]
	if g == nil {
		if r.Generation >= 0 && r.Epochs {
			return nil, wait, classic.GroupIDNotFound
		}
		if r.Generation >= 0 {
			return nil, wait, classic.IllegalGeneration
		}
		if len(r.Offsets) == 0 {
			return nil, wait, classic.None
		}
	} else if g.consumer != nil && !r.Epochs && g.consumer.NeedsEpochs(r.MemberID) {
		return nil, wait, classic.UnsupportedVersion
	} else if err := c.mayCommit(g, now, &r, false); err != classic.None {
		return nil, wait, err
	}
	v := version{offsetValue: offsetValue{committed: now.UnixMilli(), expires: -1}}
	if r.Retention >= 0 {
		v.expires = now.Add(r.Retention).UnixMilli()
	}
	full, flooded := c.full(), c.flooded()
	errs = make([]classic.Error, len(r.Offsets))
	s.builder.Reset()
	first := 0 // of the batch in the builder
	flush := func(to int) {
		if s.builder.Len() == 0 {
			return
		}
		next, failed := s.append()
		s.builder.Reset()
		code := refusal(failed)
		if code == classic.UnknownServerError {
			code = classic.InvalidCommitOffsetSize
		}
		durable := s.log.Offsets().HighWatermark
		for i := first; i < to; i++ {
			switch o := r.Offsets[i]; {
			case errs[i] != classic.None:
			case failed != nil:
				errs[i] = code
			default:
				if g == nil {
					g = s.create(r.Group)
				}
				nv := v
				nv.offset, nv.leaderEpoch, nv.metadata, nv.next, nv.at = o.Offset, o.LeaderEpoch, o.Metadata, next, next
				s.put(g, topicPartition{o.Topic, o.Partition}, nv, durable)
				c.metrics.commits.Inc()
			}
		}
		if failed == nil {
			wait = s.pending(next)
		}
		first = to
	}
	for i, o := range r.Offsets {
		tp := topicPartition{o.Topic, o.Partition}
		room := !full
		if g != nil && full {
			had, known := g.newest(tp)
			room = known && (!flooded || len(o.Metadata) <= len(had.metadata))
		}
		switch {
		case !c.opt.Exists(o.Topic, o.Partition): // asked here, where TopicDeleted comes before or after
			errs[i] = classic.UnknownTopicOrPartition
		case len(o.Metadata) > c.opt.MaxMetadata:
			errs[i] = classic.OffsetMetadataTooLarge
		case !room:
			s.refuseForMemory(r.Group)
			errs[i] = classic.InvalidCommitOffsetSize
		default:
			v.offset, v.leaderEpoch, v.metadata = o.Offset, o.LeaderEpoch, o.Metadata
			s.builder.Add(appendOffsetKey(nil, r.Group, tp), appendOffsetValue(nil, v.offsetValue))
		}
		if s.builder.Size() > maxBatch {
			flush(i + 1)
		}
	}
	flush(len(r.Offsets))
	if r.MemberID == "" && r.Generation < 0 {
		c.owners.committed(r, now)
	}
	return errs, wait, classic.None
}

// Fetcher is who fetches offsets: a member of a group of the consumer protocol, whose epoch is checked then, or the zero value.
type Fetcher struct {
	MemberID *string // "" is a member that there is not, as in Kafka
	Epoch    int32
}

// Fetch gives the offsets of the asked partitions, -1 where there is none. A group that does not exist has none.
func (c *Coordinator) Fetch(groupID string, by Fetcher, asked []Offset) classic.Error {
	for i := range asked {
		asked[i].Offset, asked[i].LeaderEpoch, asked[i].Metadata = -1, -1, ""
	}
	return c.fetch(groupID, by, func(g *group, durable segment.Offset) {
		for i := range asked {
			if v, ok := g.get(topicPartition{asked[i].Topic, asked[i].Partition}, durable); ok {
				asked[i].Offset, asked[i].LeaderEpoch, asked[i].Metadata = v.offset, v.leaderEpoch, v.metadata
			}
		}
	})
}

// FetchAll gives all offsets of a group, in no order.
func (c *Coordinator) FetchAll(groupID string, by Fetcher) (out []Offset, err classic.Error) {
	err = c.fetch(groupID, by, func(g *group, durable segment.Offset) {
		for tp := range g.offsets {
			if v, ok := g.get(tp, durable); ok {
				out = append(out, Offset{tp.topic, tp.partition, v.offset, v.leaderEpoch, v.metadata})
			}
		}
	})
	return out, err
}

func (c *Coordinator) fetch(groupID string, by Fetcher, fn func(g *group, durable segment.Offset)) classic.Error {
	if !c.Started() {
		return classic.None
	}
	s, err := c.shardOf(groupID)
	if err != classic.None {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[groupID]; g != nil {
		if g.consumer != nil && by.MemberID != nil {
			if err := g.consumer.MayFetch(*by.MemberID, by.Epoch); err != classic.None {
				return err
			}
		}
		fn(g, s.log.Offsets().HighWatermark)
	}
	return classic.None
}

// DeleteOffsets removes offsets of topics that nobody in the group subscribes to. One answer for each, or an error for all.
func (c *Coordinator) DeleteOffsets(groupID string, asked []Offset) (errs []classic.Error, wait Pending, err classic.Error) {
	s, g, err := c.find(groupID)
	switch {
	case err == classic.UnknownMemberID:
		return nil, wait, classic.GroupIDNotFound
	case err != classic.None:
		return nil, wait, err
	}
	defer s.mu.Unlock()
	if err := g.MayDeleteOffsets(); err != classic.None {
		return nil, wait, err
	}
	errs = make([]classic.Error, len(asked))
	var doomed []topicPartition
	for i, o := range asked {
		if g.Subscribed(o.Topic) {
			errs[i] = classic.GroupSubscribedToTopic
			continue
		}
		doomed = append(doomed, topicPartition{o.Topic, o.Partition})
	}
	wait, failed := s.bury(g, doomed)
	return errs, wait, refusal(failed)
}

// held lists the partitions that a group has an offset of, or that an open transaction commits one of, as far as they are wanted.
func (s *shard) held(g *group, want func(topicPartition) bool) (out []topicPartition) {
	for tp := range g.offsets {
		if _, ok := g.newest(tp); ok && want(tp) {
			out = append(out, tp)
		}
	}
	for _, t := range s.txns {
		for tp := range t.groups[g.id] {
			if _, ok := g.newest(tp); !ok && want(tp) {
				out = append(out, tp)
			}
		}
	}
	return out
}

// newestOf is the offset after the newest record of the given offsets, durable or not.
func (g *group) newestOf(list iter.Seq[topicPartition]) (next segment.Offset) {
	for tp := range list {
		if vs := g.offsets[tp]; len(vs) > 0 {
			next = max(next, vs[len(vs)-1].next)
		}
	}
	return next
}

// until is what an answer has to wait for that tells of everything in the log before next.
func (s *shard) until(next segment.Offset) Pending {
	if next <= s.log.Offsets().HighWatermark {
		return Pending{}
	}
	return s.pending(next)
}

// bury writes tombstones for those of the given offsets that are there, or that an open transaction commits: its records are older, and count no more.
// What is gone already may not be durably so: that is waited for, too.
func (s *shard) bury(g *group, doomed []topicPartition) (wait Pending, err error) {
	s.builder.Reset()
	var batch []topicPartition
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		next, err := s.append()
		s.builder.Reset()
		if err != nil {
			return err
		}
		wait = s.pending(next)
		durable := s.log.Offsets().HighWatermark
		for _, tp := range batch {
			s.put(g, tp, version{next: next, at: next, deleted: true}, durable)
			for _, t := range s.txns {
				s.unnote(t, g.id, tp)
			}
		}
		batch = batch[:0]
		return nil
	}
	for _, tp := range doomed {
		if _, ok := g.newest(tp); !ok && !s.unsettled(g.id, tp) {
			continue
		}
		s.builder.Add(appendOffsetKey(nil, g.id, tp), nil)
		batch = append(batch, tp)
		if s.builder.Size() > maxBatch {
			if err := flush(); err != nil {
				return wait, err
			}
		}
	}
	if err = flush(); wait.log == nil {
		wait = s.until(g.newestOf(slices.Values(doomed)))
	}
	return wait, err
}
