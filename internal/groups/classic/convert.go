package classic

import (
	"encoding/binary"
	"slices"
	"time"
)

// Converted is a group on its way to or from the consumer protocol (KIP-848).
type Converted struct {
	Generation int32
	Members    []ConvertedMember
}

// ConvertedMember is a member with all protocols that it offers; Subscription is not used.
type ConvertedMember struct {
	StoredMember
	Protocols []Protocol
}

// Convertible gives the group for the consumer protocol. ok is false for groups that are not of consumers.
func (g *Group) Convertible() (out Converted, ok bool) {
	if !g.consumers() {
		return out, false
	}
	out.Generation = g.generation
	for _, m := range g.members {
		out.Members = append(out.Members, ConvertedMember{StoredMember{ID: m.id, InstanceID: m.instance, ClientID: m.clientID, Host: m.host,
			Rebalance: m.rebalance, Session: m.session, Assignment: m.assignment}, m.protocols})
	}
	return out, true
}

// Dissolve ends the group, for another stands in its place. Requests that wait are answered with REBALANCE_IN_PROGRESS, so that their clients
// join that one.
func (g *Group) Dissolve(now time.Time) {
	for _, m := range g.members {
		g.answerJoin(m, JoinResult{Err: RebalanceInProgress, MemberID: m.id, Generation: -1})
		g.answerSync(m, SyncResult{Err: RebalanceInProgress})
	}
	g.become(Dead, now)
}

// FromConverted makes a stable group of what comes from the consumer protocol, and its metadata, which is to be stored. Its members have to join
// again: call Rebalance once it is stored.
func FromConverted(cfg *Config, from Converted, now time.Time) (*Group, Metadata) {
	g := New(cfg, now)
	g.protocolType, g.generation = ConsumerType, from.Generation
	slices.SortFunc(from.Members, func(a, b ConvertedMember) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	for _, s := range from.Members {
		m := &member{id: s.ID, instance: s.InstanceID, clientID: s.ClientID, host: s.Host, rebalance: s.Rebalance, session: s.Session,
			protocols: s.Protocols, assignment: s.Assignment}
		m.watch(now)
		g.add(m)
	}
	g.protocol = g.selectProtocol()
	g.state, g.before = Stable, Stable
	g.learnTopics()
	g.effects.Assigned = true
	return g, g.metadata(g.assignments())
}

// Rebalance lets all members join again.
func (g *Group) Rebalance(now time.Time) { g.rebalance(now) }

// Subscription is what a consumer says about itself (ConsumerProtocolSubscription).
type Subscription struct {
	Version int16
	Topics  []string
	Owned   []TopicPartitions // from version 1
	Rack    string            // from version 3
}

// ParseSubscription reads a consumer's metadata.
func ParseSubscription(b []byte) (s Subscription, ok bool) {
	r := reader{b: b}
	s.Version = int16(r.int16())
	for n := r.int32(); n > 0 && !r.bad; n-- {
		s.Topics = append(s.Topics, string(r.take(r.int16())))
	}
	r.take(max(r.int32(), 0)) // user data, -1 for none
	if s.Version >= 1 {
		s.Owned = r.topics()
	}
	if s.Version >= 2 {
		r.int32() // generation
	}
	if s.Version >= 3 {
		s.Rack = string(r.take(max(r.int16(), 0)))
	}
	return s, !r.bad && s.Version >= 0
}

// ParseAssignment reads what a consumer was assigned (ConsumerProtocolAssignment).
func ParseAssignment(b []byte) ([]TopicPartitions, bool) { return assignment(b) }

// HasUserData tells whether an assignment says more than who reads what. Only the assignor that wrote it knows what for (Kafka Streams has such a one).
func HasUserData(assignment []byte) bool {
	r := reader{b: assignment}
	r.int16()
	r.topics()
	return r.int32() > 0 && !r.bad
}

// AppendAssignment writes an assignment for a consumer, without user data.
func AppendAssignment(b []byte, version int16, topics []TopicPartitions) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(be.AppendUint16(b, uint16(version)), uint32(len(topics)))
	for _, t := range topics {
		b = append(be.AppendUint16(b, uint16(len(t.Topic))), t.Topic...)
		b = be.AppendUint32(b, uint32(len(t.Partitions)))
		for _, p := range t.Partitions {
			b = be.AppendUint32(b, uint32(p))
		}
	}
	return be.AppendUint32(b, 0xffffffff)
}
