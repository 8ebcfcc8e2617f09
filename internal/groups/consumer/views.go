package consumer

import (
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

// MayCommit checks a commit at a member epoch; -1 is a consumer that takes no part in the group, allowed while it is empty.
func (g *Group) MayCommit(_ time.Time, memberID, instanceID string, epoch int32) classic.Error {
	if epoch < 0 && len(g.members) == 0 {
		return classic.None
	}
	return g.MayFetch(memberID, epoch)
}

// MayCommitTxn checks a commit that is part of a transaction. A producer that says nothing about the consumer's place in the group may commit at any time.
// TxnOffsetCommit has no STALE_MEMBER_EPOCH: a member hears ILLEGAL_GENERATION, as in Kafka, and its producer aborts.
func (g *Group) MayCommitTxn(now time.Time, memberID, instanceID string, epoch int32) classic.Error {
	if epoch < 0 && memberID == "" && instanceID == "" {
		return classic.None
	}
	err := g.MayCommit(now, memberID, instanceID, epoch)
	if err == classic.StaleMemberEpoch {
		return classic.IllegalGeneration
	}
	return err
}

// NeedsEpochs tells whether this is a member of the consumer protocol: its requests have to be of versions that know member epochs.
func (g *Group) NeedsEpochs(memberID string) bool {
	m := g.members[memberID]
	return m != nil && m.meta.Classic == nil
}

// MayFetch checks a fetch of offsets by a member.
func (g *Group) MayFetch(memberID string, epoch int32) classic.Error {
	m := g.members[memberID]
	switch {
	case m == nil:
		return classic.UnknownMemberID
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

// Has tells whether somebody is a member.
func (g *Group) Has(memberID string) bool { return g.members[memberID] != nil }

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
