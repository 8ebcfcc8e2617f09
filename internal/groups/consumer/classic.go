package consumer

import (
	"time"

	"lagoon/internal/groups/classic"
)

// Members of the classic protocol in a group of consumers.

// Join is a JoinGroup. The answer is for when the records are durable; an error may be told at once.
func (g *Group) Join(now time.Time, topics Topics, r classic.JoinRequest) classic.JoinResult {
	g.see(topics)
	failed := func(err classic.Error) classic.JoinResult {
		return classic.JoinResult{Err: err, MemberID: r.MemberID, Generation: -1}
	}
	id := r.MemberID
	if id == "" {
		id = r.NewID
	}
	holder, static := g.static[r.InstanceID]
	switch {
	case g.members[r.MemberID] == nil && !static && len(g.members) >= g.cfg.MaxSize:
		return failed(classic.GroupMaxSizeReached)
	case r.ProtocolType != classic.ConsumerType || len(r.Protocols) == 0 || !g.speaks(r.Protocols, id, holder):
		return failed(classic.InconsistentProtocol)
	case r.MemberID == "" && r.InstanceID == "" && r.NeedsID:
		return classic.JoinResult{Err: classic.MemberIDRequired, MemberID: r.NewID, Generation: -1}
	case len(id) > maxID || len(r.InstanceID) > maxID:
		return failed(classic.InvalidRequest)
	}
	sub, ok := classic.ParseSubscription(r.Protocols[0].Metadata)
	if !ok {
		return failed(classic.InconsistentProtocol)
	}
	m := g.members[id]
	switch {
	case r.InstanceID == "":
	case !static && r.MemberID != "":
		return failed(classic.UnknownMemberID)
	case static && r.MemberID != "" && holder != r.MemberID:
		return failed(classic.FencedInstanceID)
	case static && r.MemberID == "":
		m = g.replace(g.members[holder], id) // a static member that was restarted, of whichever protocol
	}
	if m == nil {
		m = &member{}
	}
	if r.Rebalance < 0 {
		r.Rebalance = r.Session
	}
	next := &Member{ID: id, InstanceID: r.InstanceID, RackID: sub.Rack, ClientID: r.ClientID, Host: r.Host, Topics: names(sub.Topics), Rebalance: r.Rebalance,
		Classic: &ClassicMember{Session: r.Session, Protocols: r.Protocols}}
	if m.meta != nil {
		next.Assignor = m.meta.Assignor
	}
	changed := g.update(m, next)
	m = g.members[id]
	g.bump(changed || m.cur == nil)
	g.retarget()
	var owned []TopicPartitions
	for _, t := range sub.Owned {
		if topic, _, ok := g.topics.Find(t.Topic); ok {
			owned = append(owned, TopicPartitions{ID: topic, Partitions: t.Partitions})
		}
	}
	g.reconcile(now, m, Normalize(owned), true)
	g.watch(now, Settings{}, m)
	m.revokeBy, m.joinBy, m.syncBy = time.Time{}, time.Time{}, now.Add(r.Rebalance)
	return classic.JoinResult{MemberID: id, Generation: m.cur.Epoch, ProtocolType: classic.ConsumerType, Protocol: r.Protocols[0].Name}
}

// speaks tells whether a member has a protocol in common with all others of the classic protocol: they will need it when the group goes back.
func (g *Group) speaks(protocols []classic.Protocol, except ...string) bool {
	others, offered := 0, map[string]int{}
	for id, m := range g.members {
		if m.meta.Classic == nil || id == except[0] || id == except[1] {
			continue
		}
		others++
		for _, p := range m.meta.Classic.Protocols {
			offered[p.Name]++
		}
	}
	for _, p := range protocols {
		if offered[p.Name] == others {
			return true
		}
	}
	return false
}

// classicMember finds a member of the classic protocol for a request of a generation.
func (g *Group) classicMember(memberID, instanceID string, generation int32) (*member, classic.Error) {
	if instanceID != "" {
		holder, known := g.static[instanceID]
		switch {
		case !known:
			return nil, classic.UnknownMemberID
		case holder != memberID:
			return nil, classic.FencedInstanceID
		}
	}
	m := g.members[memberID]
	switch {
	case m == nil || m.meta.Classic == nil:
		return nil, classic.UnknownMemberID
	case generation != m.cur.Epoch:
		return nil, classic.IllegalGeneration
	}
	return m, classic.None
}

// Sync is a SyncGroup.
func (g *Group) Sync(now time.Time, r classic.SyncRequest) classic.SyncResult {
	m, err := g.classicMember(r.MemberID, r.InstanceID, r.Generation)
	if err != classic.None {
		return classic.SyncResult{Err: err}
	}
	first := m.meta.Classic.Protocols[0]
	switch {
	case r.ProtocolType != "" && r.ProtocolType != classic.ConsumerType, r.Protocol != "" && r.Protocol != first.Name:
		return classic.SyncResult{Err: classic.InconsistentProtocol}
	case g.epoch > m.cur.Epoch && m.cur.State != UnrevokedPartitions:
		m.rejoin(now)
		return classic.SyncResult{Err: classic.RebalanceInProgress}
	}
	m.syncBy = time.Time{}
	g.watch(now, Settings{}, m)
	return classic.SyncResult{ProtocolType: classic.ConsumerType, Protocol: first.Name, Assignment: g.serialize(m)}
}

// rejoin gives a member its rebalance timeout to join again.
func (m *member) rejoin(now time.Time) {
	if m.joinBy.IsZero() {
		m.joinBy = now.Add(m.meta.Rebalance)
	}
}

// ClassicHeartbeat is a Heartbeat. A member is told to join again when there is something new for it.
func (g *Group) ClassicHeartbeat(now time.Time, topics Topics, memberID, instanceID string, generation int32) classic.Error {
	m, err := g.classicMember(memberID, instanceID, generation)
	if err != classic.None {
		return err
	}
	g.see(topics)
	g.bump(false)
	g.watch(now, Settings{}, m)
	if m.cur.Epoch < g.epoch || m.cur.State == UnrevokedPartitions || m.cur.State == UnreleasedPartitions && !g.waits(m) {
		m.rejoin(now)
		return classic.RebalanceInProgress
	}
	return classic.None
}

// waits tells whether others still have partitions of a member's target.
func (g *Group) waits(m *member) bool {
	for _, t := range g.targets[m.meta.ID] {
		for _, p := range t.Partitions {
			if owner, taken := g.owners[partition{t.ID, p}]; taken && owner != m.meta.ID {
				return true
			}
		}
	}
	return false
}

// ClassicLeave is a LeaveGroup, which an administrator may send for members of both protocols. One answer for each, in order.
func (g *Group) ClassicLeave(leavers []classic.Leaver) []classic.Error {
	out := make([]classic.Error, len(leavers))
	left := false
	for i, l := range leavers {
		id := l.MemberID
		if l.InstanceID != "" {
			holder, known := g.static[l.InstanceID]
			switch {
			case !known:
				out[i] = classic.UnknownMemberID
				continue
			case id != "" && holder != id:
				out[i] = classic.FencedInstanceID
				continue
			}
			id = holder
		}
		m := g.members[id]
		if m == nil {
			out[i] = classic.UnknownMemberID
			continue
		}
		g.remove(m)
		left = true
	}
	if left {
		g.bump(true)
	}
	return out
}

// serialize is a member's assignment in the format of its client.
func (g *Group) serialize(m *member) []byte {
	version := int16(0)
	if sub, ok := classic.ParseSubscription(m.meta.Classic.Protocols[0].Metadata); ok {
		version = sub.Version
	}
	var topics []classic.TopicPartitions
	for _, t := range m.cur.Assigned {
		if name, ok := g.topics.Name(t.ID); ok {
			topics = append(topics, classic.TopicPartitions{Topic: name, Partitions: t.Partitions})
		}
	}
	return classic.AppendAssignment(nil, version, topics)
}

// OnlyClassic tells whether all members are of the classic protocol, so that the group may go back to it.
func (g *Group) OnlyClassic() bool { return len(g.members) > 0 && g.classics == len(g.members) }

// ToClassic is the group for the classic protocol: the generation goes on from the epoch of the target. All members are of that protocol. The epoch that
// the last one of the other protocol has left with is nobody's: with it, members would hear that their generation is over, and give up their partitions
// without a commit, where they are to hear of a rebalance.
func (g *Group) ToClassic() classic.Converted {
	out := classic.Converted{Generation: g.targetEpoch}
	for id, m := range g.members {
		out.Members = append(out.Members, classic.ConvertedMember{StoredMember: classic.StoredMember{ID: id, InstanceID: m.meta.InstanceID, ClientID: m.meta.ClientID,
			Host: m.meta.Host, Rebalance: m.meta.Rebalance, Session: m.meta.Classic.Session, Assignment: g.serialize(m)}, Protocols: m.meta.Classic.Protocols})
	}
	return out
}

// FromClassic makes a group of one of the classic protocol, with everything to be stored. ok is false for groups that are not of consumers, whose
// members say what cannot be read, or whose assignor gives members data of its own, which would be lost: they stay as they are.
func FromClassic(cfg *Config, now time.Time, topics Topics, from classic.Converted) (g *Group, ok bool) {
	g = New(cfg)
	g.topics = topics
	for _, m := range from.Members {
		if len(m.Protocols) == 0 {
			return nil, false
		}
		sub, ok := classic.ParseSubscription(m.Protocols[0].Metadata)
		assigned, fine := classic.ParseAssignment(m.Assignment)
		if !ok || !fine || classic.HasUserData(m.Assignment) {
			return nil, false
		}
		var has []TopicPartitions
		for _, t := range assigned {
			if id, n, ok := topics.Find(t.Topic); ok {
				var there []int32
				for _, p := range t.Partitions {
					if _, taken := g.owners[partition{id, p}]; p >= 0 && p < n && !taken {
						there = append(there, p)
					}
				}
				has = append(has, TopicPartitions{ID: id, Partitions: there})
			}
		}
		g.put(Record{Kind: MemberRecord, ID: m.ID, Member: &Member{ID: m.ID, InstanceID: m.InstanceID, RackID: sub.Rack, ClientID: m.ClientID, Host: m.Host,
			Topics: names(sub.Topics), Rebalance: m.Rebalance, Classic: &ClassicMember{Session: m.Session, Protocols: m.Protocols}}})
		set := Normalize(has)
		g.put(Record{Kind: TargetMember, ID: m.ID, Assignment: set})
		g.put(Record{Kind: CurrentMember, ID: m.ID, Current: &Current{Epoch: from.Generation, Previous: from.Generation, Assigned: set.At(from.Generation)}})
		g.watch(now, Settings{}, g.members[m.ID])
	}
	g.put(Record{Kind: GroupEpoch, Epoch: from.Generation, Hash: g.topicsHash()})
	g.put(Record{Kind: TargetEpoch, Epoch: from.Generation})
	return g, true
}
