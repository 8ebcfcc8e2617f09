package consumer

import (
	"iter"
	"maps"
	"slices"
	"time"

	"lagoon/internal/groups/classic"
)

// Epoch, TargetEpoch and Size tell where the group stands.
func (g *Group) Epoch() int32       { return g.epoch }
func (g *Group) TargetEpoch() int32 { return g.targetEpoch }
func (g *Group) Size() int          { return len(g.members) }

// ProtocolType is that of consumers.
func (g *Group) ProtocolType() string { return classic.ConsumerType }

// Assignor is the name of the one that most members ask for.
func (g *Group) Assignor() string {
	votes, best := map[string]int{}, DefaultAssignor
	for _, m := range g.members {
		if m.meta.Assignor != "" {
			votes[m.meta.Assignor]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(votes)) {
		if votes[name] > votes[best] && Assignors[name] != nil {
			best = name
		}
	}
	return best
}

// MemberView is a member for people.
type MemberView struct {
	*Member
	*Current
	Target Assignment
}

// Members lists the members by id.
func (g *Group) Members() []MemberView {
	out := make([]MemberView, 0, len(g.members))
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		out = append(out, MemberView{m.meta, m.current(), g.targets[id]})
	}
	return out
}

// Moved tells, once, that assignments have changed.
func (g *Group) Moved() bool {
	was := g.moved
	g.moved = false
	return was
}

// Assignments lists who reads what.
func (g *Group) Assignments() (out []classic.Assignment) {
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		a := classic.Assignment{ClientID: m.meta.ClientID, Host: m.meta.Host}
		for _, t := range m.current().Assigned {
			if name, ok := g.topics.Name(t.ID); ok {
				a.Topics = append(a.Topics, classic.TopicPartitions{Topic: name, Partitions: t.Partitions})
			}
		}
		if len(a.Topics) > 0 {
			out = append(out, a)
		}
	}
	return out
}

// Commit is who wants to commit offsets, and of what.
type Commit struct {
	MemberID, InstanceID string
	Epoch                int32 // or generation; -1 is a consumer that takes no part in the group
	Txn                  bool  // part of a transaction
	Topics               Topics
	Partitions           iter.Seq2[string, int32]
}

// MayCommit checks a commit as a whole. A consumer that takes no part in the group may commit while that is empty, and in a transaction at any time.
// A member may commit at its epoch; and at an older one, as it may not have heard of the new one yet, what it was assigned by then and still has
// (KIP-1251): nobody else can have had that since. TxnOffsetCommit has no STALE_MEMBER_EPOCH: a member hears ILLEGAL_GENERATION, as in Kafka, and its
// producer aborts.
func (g *Group) MayCommit(c Commit) classic.Error {
	if c.Epoch < 0 && (len(g.members) == 0 || c.Txn && c.MemberID == "" && c.InstanceID == "") {
		return classic.None
	}
	m := g.members[c.MemberID]
	if m == nil {
		return classic.UnknownMemberID
	}
	err := m.fits(c.Epoch)
	if err != classic.None && c.Epoch < m.cur.Epoch && m.had(c) {
		return classic.None
	}
	if err == classic.StaleMemberEpoch && c.Txn {
		return classic.IllegalGeneration
	}
	return err
}

// had tells whether all partitions of a commit are the member's since the epoch of the commit, if only to be given up.
func (m *member) had(c Commit) bool {
	for topic, partition := range c.Partitions {
		id, _, exists := c.Topics.Find(topic)
		since, ok := m.cur.Assigned.epoch(id, partition)
		if !ok {
			since, ok = m.cur.Revoking.epoch(id, partition)
		}
		if !exists || !ok || c.Epoch < since {
			return false
		}
	}
	return true
}

// NeedsEpochs tells whether this is a member of the consumer protocol: its requests have to be of versions that know member epochs.
func (g *Group) NeedsEpochs(memberID string) bool {
	m := g.members[memberID]
	return m != nil && m.meta.Classic == nil
}

// MayFetch checks a fetch of offsets by a member.
func (g *Group) MayFetch(memberID string, epoch int32) classic.Error {
	m := g.members[memberID]
	if m == nil {
		return classic.UnknownMemberID
	}
	return m.fits(epoch)
}

// fits compares a member's epoch with that of a request about offsets.
func (m *member) fits(epoch int32) classic.Error {
	switch {
	case epoch == m.cur.Epoch:
		return classic.None
	case m.meta.Classic != nil:
		return classic.IllegalGeneration
	}
	return classic.StaleMemberEpoch
}

// MayDeleteOffsets allows it; those of subscribed topics stay, see Subscribed.
func (g *Group) MayDeleteOffsets() classic.Error { return classic.None }

// Subscribed tells whether members read a topic.
func (g *Group) Subscribed(topic string) bool {
	for _, m := range g.members {
		if _, ok := slices.BinarySearch(m.meta.Topics, topic); ok {
			return true
		}
		if x := g.regexes[m.meta.Regex]; m.meta.Regex != "" && x != nil {
			if _, ok := slices.BinarySearch(x.Topics, topic); ok {
				return true
			}
		}
	}
	return false
}

// ExpiryBase is the time from which the retention of an offset counts: its commit, unless somebody subscribes to the topic.
func (g *Group) ExpiryBase(topic string, committed time.Time) (time.Time, bool) {
	return committed, !g.Subscribed(topic)
}

// Has tells whether somebody is a member, by one of his ids.
func (g *Group) Has(memberID, instanceID string) bool { return g.either(memberID, instanceID) != nil }

func (g *Group) either(memberID, instanceID string) *member {
	if m := g.members[memberID]; m != nil {
		return m
	}
	return g.members[g.static[instanceID]]
}

// Said is how many bytes the subscription of a member has, 0 for nobody.
func (g *Group) Said(memberID, instanceID string) (n int) {
	m := g.either(memberID, instanceID)
	switch {
	case m == nil:
		return 0
	case m.meta.Classic != nil:
		return classic.Size(m.meta.Classic.Protocols)
	}
	for _, t := range m.meta.Topics {
		n += len(t)
	}
	return n + len(m.meta.Regex)
}

// Idle tells that the group has no members.
func (g *Group) Idle() bool { return len(g.members) == 0 }

// Kill does nothing: whoever still holds the group asks for it by name again.
func (g *Group) Kill(time.Time) {}

// SizeBytes is about what the group takes in memory.
func (g *Group) SizeBytes() int64 {
	n := 1024 + 2*g.size + int64(96*len(g.owners))
	for expr, x := range g.regexes {
		n += int64(128 + len(expr) + 24*len(x.Topics))
	}
	return n
}
