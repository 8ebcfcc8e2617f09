package consumer

import (
	"slices"
	"time"

	"lagoon/internal/groups/classic"
)

// Kind of a record.
type Kind uint8

// Kinds of records, as in Kafka.
const (
	GroupEpoch    Kind = iota // ConsumerGroupMetadata
	MemberRecord              // ConsumerGroupMemberMetadata
	TargetEpoch               // ConsumerGroupTargetAssignmentMetadata
	TargetMember              // ConsumerGroupTargetAssignmentMember
	CurrentMember             // ConsumerGroupCurrentMemberAssignment
	RegularExpression
)

// Record is one change of a group, or with Deleted the end of what ID names. Only the fields of its kind are set.
type Record struct {
	Kind    Kind
	ID      string // of a member, or a regular expression
	Deleted bool

	Epoch      int32 // GroupEpoch, TargetEpoch
	Hash       int64 // GroupEpoch: of the topics that are subscribed to, see Group.hash
	Member     *Member
	Assignment Assignment // TargetMember
	Current    *Current
	Resolved   *Resolved
}

// Member is what a member says about itself. Never changed once it is made.
type Member struct {
	ID, InstanceID, RackID string
	ClientID, Host         string
	Topics                 []string // subscribed by name, ascending, each once
	Regex                  string   // subscribed by a regular expression, "" none
	Rebalance              time.Duration
	Assignor               string         // "" any
	Classic                *ClassicMember // nil: a member of the consumer protocol
}

// ClassicMember is what a member of the classic protocol says besides.
type ClassicMember struct {
	Session   time.Duration
	Protocols []classic.Protocol
}

// Current is what a member has. Never changed once it is made. Both assignments have epochs.
type Current struct {
	Epoch, Previous int32
	State           MemberState
	Assigned        Assignment
	Revoking        Assignment // it is to give them up and has not said yet that it did
}

// MemberState says how far a member is with its target, by Kafka's numbers.
type MemberState int8

// States of members.
const (
	Stable MemberState = iota
	UnrevokedPartitions
	UnreleasedPartitions
)

func (s MemberState) String() string {
	switch s {
	case Stable:
		return "STABLE"
	case UnrevokedPartitions:
		return "UNREVOKED_PARTITIONS"
	case UnreleasedPartitions:
		return "UNRELEASED_PARTITIONS"
	}
	return "UNKNOWN"
}

// Resolved are the topics that a regular expression names.
type Resolved struct {
	Topics  []string // ascending
	Version uint64   // of the topics that it was matched against
	At      time.Time
}

// put makes a change and remembers how to take it back.
func (g *Group) put(r Record) {
	g.records = append(g.records, r)
	g.undo = append(g.undo, g.Restore(r))
}

// Records are the changes since the last Commit, in order.
func (g *Group) Records() []Record { return g.records }

// Commit keeps the changes: they are stored.
func (g *Group) Commit() {
	g.records, g.undo = nil, nil
	g.letGo()
}

// Rollback takes the changes back. Sessions of members that were removed begin anew, and the time of those that are to give up partitions.
func (g *Group) Rollback(now time.Time, set Settings) {
	for _, r := range slices.Backward(g.undo) {
		g.Restore(r)
	}
	for _, m := range g.members {
		if m.session.IsZero() {
			g.watch(now, set, m)
		}
		if m.current().State == UnrevokedPartitions && m.revokeBy.IsZero() && m.meta.Classic == nil {
			m.revokeBy = now.Add(m.meta.Rebalance)
		}
	}
	g.seen = 0 // the next heartbeat looks at the topics again
	g.Commit()
}

// Restore makes a change that is stored already, and gives the record that takes it back.
func (g *Group) Restore(r Record) (inverse Record) {
	inverse = Record{Kind: r.Kind, ID: r.ID, Deleted: true}
	switch r.Kind {
	case GroupEpoch:
		inverse = Record{Kind: r.Kind, Epoch: g.epoch, Hash: g.hash, Deleted: !g.exists}
		g.epoch, g.hash, g.exists = r.Epoch, r.Hash, !r.Deleted
	case TargetEpoch:
		inverse = Record{Kind: r.Kind, Epoch: g.targetEpoch, Deleted: !g.targeted}
		g.targetEpoch, g.targeted = r.Epoch, !r.Deleted
	case MemberRecord:
		m := g.members[r.ID]
		if m != nil && m.meta != nil {
			inverse.Member, inverse.Deleted = m.meta, false
		}
		g.setMember(r.ID, r.Member)
	case CurrentMember:
		m := g.members[r.ID]
		if m != nil && m.cur != nil {
			inverse.Current, inverse.Deleted = m.cur, false
		}
		g.setCurrent(r.ID, r.Current)
	case TargetMember:
		if a, ok := g.targets[r.ID]; ok {
			inverse.Assignment, inverse.Deleted = a, false
		}
		if r.Deleted {
			delete(g.targets, r.ID)
		} else {
			g.targets[r.ID] = r.Assignment
		}
	case RegularExpression:
		if x, ok := g.regexes[r.ID]; ok {
			inverse.Resolved, inverse.Deleted = x, false
		}
		if r.Deleted {
			delete(g.regexes, r.ID)
		} else {
			g.regexes[r.ID] = r.Resolved
		}
	}
	return inverse
}

// setMember replaces what a member says; nil removes that.
func (g *Group) setMember(id string, next *Member) {
	m := g.members[id]
	if m == nil {
		if next == nil {
			return
		}
		m = &member{}
		g.members[id] = m
	}
	if old := m.meta; old != nil {
		g.size -= old.bytes()
		if old.InstanceID != "" && g.static[old.InstanceID] == id {
			delete(g.static, old.InstanceID)
		}
		if old.Classic != nil {
			g.classics--
		}
		g.moved = g.moved || next != nil && (old.ClientID != next.ClientID || old.Host != next.Host)
	}
	m.meta = next
	if next == nil {
		g.forget(id, m)
		return
	}
	g.size += next.bytes()
	if next.InstanceID != "" {
		g.static[next.InstanceID] = id
	}
	if next.Classic != nil {
		g.classics++
	}
}

// setCurrent replaces what a member has, and who owns which partition; nil removes that.
func (g *Group) setCurrent(id string, next *Current) {
	m := g.members[id]
	if m == nil {
		if next == nil {
			return
		}
		m = &member{}
		g.members[id] = m
	}
	each := func(c *Current, fn func(partition)) {
		if c == nil {
			return
		}
		for _, a := range [...]Assignment{c.Assigned, c.Revoking} {
			for _, t := range a {
				for _, p := range t.Partitions {
					fn(partition{t.ID, p})
				}
			}
		}
	}
	each(m.cur, func(p partition) {
		if g.owners[p] == id {
			delete(g.owners, p)
		}
	})
	each(next, func(p partition) { g.owners[p] = id })
	m.cur = next
	g.moved = true
	if next == nil {
		g.forget(id, m)
	}
}

// forget drops a member of which nothing is left.
func (g *Group) forget(id string, m *member) {
	if m.meta == nil && m.cur == nil {
		delete(g.members, id)
	}
}

// Snapshot is the group as records.
func (g *Group) Snapshot() (out []Record) {
	for id, m := range g.members {
		out = append(out, Record{Kind: MemberRecord, ID: id, Member: m.meta})
	}
	for expr, x := range g.regexes {
		out = append(out, Record{Kind: RegularExpression, ID: expr, Resolved: x})
	}
	if g.exists {
		out = append(out, Record{Kind: GroupEpoch, Epoch: g.epoch, Hash: g.hash})
	}
	for id, a := range g.targets {
		out = append(out, Record{Kind: TargetMember, ID: id, Assignment: a})
	}
	if g.targeted {
		out = append(out, Record{Kind: TargetEpoch, Epoch: g.targetEpoch})
	}
	for id, m := range g.members {
		if m.cur != nil {
			out = append(out, Record{Kind: CurrentMember, ID: id, Current: m.cur})
		}
	}
	return out
}

// Tombstones are the records that delete the group. Those of members come first, as in Kafka.
func (g *Group) Tombstones() []Record {
	out := g.Snapshot()
	slices.Reverse(out)
	for i, r := range out {
		out[i] = Record{Kind: r.Kind, ID: r.ID, Deleted: true}
	}
	return out
}

func (m *Member) bytes() int64 {
	n := 512 + 6*len(m.ID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.Host) + 2*len(m.Regex)
	for _, t := range m.Topics {
		n += 16 + len(t)
	}
	if m.Classic != nil {
		for _, p := range m.Classic.Protocols {
			n += 64 + len(p.Name) + len(p.Metadata)
		}
	}
	return int64(n)
}
