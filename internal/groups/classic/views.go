package classic

import "time"

// Metadata is a group as it is stored.
type Metadata struct {
	ProtocolType string
	Generation   int32
	Protocol     string // "" none
	Leader       string // "" none
	Since        time.Time
	Members      []StoredMember
}

// StoredMember is a member as it is stored.
type StoredMember struct {
	ID, InstanceID     string
	ClientID, Host     string
	Rebalance, Session time.Duration
	Subscription       []byte
	Assignment         []byte
}

func (g *Group) assignments() map[string][]byte {
	out := make(map[string][]byte, len(g.members))
	for _, m := range g.members {
		out[m.id] = m.assignment
	}
	return out
}

func (g *Group) metadata(assignments map[string][]byte) Metadata {
	out := Metadata{ProtocolType: g.protocolType, Generation: g.generation, Protocol: g.protocol, Leader: g.leader, Since: g.since}
	for _, m := range g.members {
		out.Members = append(out.Members, StoredMember{ID: m.id, InstanceID: m.instance, ClientID: m.clientID, Host: m.host,
			Rebalance: m.rebalance, Session: m.session, Subscription: m.metadata(g.protocol), Assignment: assignments[m.id]})
	}
	return out
}

// Restore makes a group from what was stored. Its members' sessions begin now.
func Restore(cfg *Config, stored Metadata, now time.Time) *Group {
	g := New(cfg, now)
	g.protocolType, g.generation, g.since = stored.ProtocolType, stored.Generation, stored.Since
	if len(stored.Members) == 0 {
		g.learnTopics()
		return g
	}
	g.protocol = stored.Protocol
	for _, s := range stored.Members {
		if _, twice := g.byID[s.ID]; twice || s.ID == "" {
			continue
		}
		m := &member{id: s.ID, instance: s.InstanceID, clientID: s.ClientID, host: s.Host, rebalance: max(s.Rebalance, 0), session: max(s.Session, 0),
			protocols: []Protocol{{stored.Protocol, s.Subscription}}, assignment: s.Assignment}
		m.watch(now)
		g.add(m)
	}
	if g.byID[stored.Leader] != nil {
		g.leader = stored.Leader
	}
	g.state, g.before = Stable, Stable
	g.learnTopics()
	g.effects.Assigned = true
	if len(g.members) > g.cfg.MaxSize {
		g.prepare(now) // those that join first stay
	}
	return g
}

// Member is a member for people. Metadata are those of the stable group, nil in other states; Assignment is the last one.
type Member struct {
	ID, InstanceID       string
	ClientID, Host       string
	Metadata, Assignment []byte
}

// Members lists the members in the order in which they joined.
func (g *Group) Members() []Member {
	out := make([]Member, len(g.members))
	for i, m := range g.members {
		out[i] = Member{ID: m.id, InstanceID: m.instance, ClientID: m.clientID, Host: m.host, Assignment: m.assignment}
		if g.state == Stable {
			out[i].Metadata = m.metadata(g.protocol)
		}
	}
	return out
}

// Assignment is what one client of a group of consumers reads.
type Assignment struct {
	ClientID, Host string
	Topics         []TopicPartitions
}

// Assignments lists who reads what; nil for groups of other kinds. Assignments that cannot be read are left out.
func (g *Group) Assignments() []Assignment {
	if !g.consumers() {
		return nil
	}
	var out []Assignment
	for _, m := range g.members {
		if topics, ok := assignment(m.assignment); ok && len(topics) > 0 {
			out = append(out, Assignment{m.clientID, m.host, topics})
		}
	}
	return out
}

// Has tells whether somebody is a member, by one of his ids. Who was only given one is none.
func (g *Group) Has(memberID, instanceID string) bool { return g.either(memberID, instanceID) != nil }

func (g *Group) either(memberID, instanceID string) *member {
	if m := g.byID[memberID]; m != nil {
		return m
	}
	return g.static[instanceID]
}

// Size is how many bytes protocols have.
func Size(protocols []Protocol) (n int) {
	for _, p := range protocols {
		n += len(p.Name) + len(p.Metadata)
	}
	return n
}

// Said is how many bytes the protocols of a member have, 0 for nobody.
func (g *Group) Said(memberID, instanceID string) int {
	if m := g.either(memberID, instanceID); m != nil {
		return Size(m.protocols)
	}
	return 0
}

// fairAssignment is how many bytes an assignment may have for each member before anybody asks whether it grows.
const fairAssignment = 4 << 10

// Grows tells whether members are given more than they have, and much.
func (g *Group) Grows(given map[string][]byte) bool {
	has, is := 0, 0
	for _, m := range g.members {
		has += len(m.assignment)
		is += len(given[m.id])
	}
	return is > has && is > fairAssignment*len(g.members)
}

// SizeBytes is about what the group takes in memory.
func (g *Group) SizeBytes() int64 {
	n := 1024 + int64(96*len(g.pending)) + g.pendingBytes + g.topicBytes
	for _, m := range g.members {
		n += int64(512 + 4*len(m.id) + len(m.instance) + len(m.clientID) + len(m.host) + len(m.assignment))
		for _, p := range m.protocols {
			n += int64(64 + len(p.Name) + len(p.Metadata))
		}
	}
	return n
}
