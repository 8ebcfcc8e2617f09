package groups

import (
	"cmp"
	"slices"
	"time"
)

// View is a group with what it reads, for people.
type View struct {
	Listed
	Members    int
	Partitions []PartitionView // by topic and partition
}

// PartitionView is a partition that a group has an offset of, or a member for.
type PartitionView struct {
	Topic          string
	Partition      int32
	Committed      int64  // the durable offset, -1 for none
	ClientID, Host string // of the member that reads it, "" for nobody
}

// Overview lists all groups that are loaded, by id; loading tells that there may be more in a moment, or when a device answers.
func (c *Coordinator) Overview() (out []View, loading bool) {
	until := time.Now().Add(lookWait)
	for _, s := range c.all() {
		switch s.state.Load() {
		case shardLoading:
			loading = true
			continue
		case shardFailed:
			continue
		}
		if !s.look(until, func() { out = append(out, s.views()...) }) {
			loading = true
		}
	}
	for _, v := range out {
		slices.SortFunc(v.Partitions, func(a, b PartitionView) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
	}
	slices.SortFunc(out, func(a, b View) int { return cmp.Compare(a.Group, b.Group) })
	return out, loading
}

// views are the shard's groups; shard.mu is held.
func (s *shard) views() (out []View) {
	durable := s.log.Offsets().HighWatermark
	for _, g := range s.groups {
		v := View{Listed: Listed{g.id, g.ProtocolType(), g.kind(), g.State()}, Members: g.members()}
		read := map[topicPartition]bool{}
		for _, a := range g.Assignments() {
			for _, t := range a.Topics {
				for _, p := range t.Partitions {
					tp := topicPartition{t.Topic, p}
					if read[tp] {
						continue // a client's assignment may say anything
					}
					read[tp] = true
					pv := PartitionView{Topic: t.Topic, Partition: p, Committed: -1, ClientID: a.ClientID, Host: a.Host}
					if o, ok := g.get(tp, durable); ok {
						pv.Committed = o.offset
					}
					v.Partitions = append(v.Partitions, pv)
				}
			}
		}
		for tp := range g.offsets {
			if o, ok := g.get(tp, durable); ok && !read[tp] {
				v.Partitions = append(v.Partitions, PartitionView{Topic: tp.topic, Partition: tp.partition, Committed: o.offset})
			}
		}
		out = append(out, v)
	}
	return out
}

func (g *group) members() int {
	if g.consumer != nil {
		return g.consumer.Size()
	}
	return g.classic.Size()
}
