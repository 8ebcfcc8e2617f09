package classic

import "time"

// JoinRequest is one JoinGroup. InstanceID "" is a dynamic member.
type JoinRequest struct {
	Ticket         Ticket
	MemberID       string // "" for a member that has none yet
	NewID          string // the id that such a member gets; the caller makes it unique
	InstanceID     string
	ClientID, Host string
	ProtocolType   string
	Protocols      []Protocol // in order of preference, each name once
	Session        time.Duration
	Rebalance      time.Duration
	// NeedsID: a dynamic member without an id is told one and has to come back with it (KIP-394, JoinGroup 4 and later).
	NeedsID bool
	// CanSkip: the client knows SkipAssignment (KIP-814, JoinGroup 9 and later).
	CanSkip bool
}

// Join is answered by an effect, at once or when the join phase has ended.
func (g *Group) Join(now time.Time, r JoinRequest) {
	refuse := func(err Error, memberID string) {
		g.effects.Joined = append(g.effects.Joined, JoinReply{r.Ticket, JoinResult{Err: err, MemberID: memberID, Generation: -1}})
	}
	if r.Session < g.cfg.MinSession || r.Session > g.cfg.MaxSession {
		refuse(InvalidSessionTimeout, r.MemberID)
		return
	}
	if r.Rebalance < 0 {
		r.Rebalance = r.Session
	}
	switch {
	case !g.hasRoomFor(r.MemberID):
		if m := g.byID[r.MemberID]; m != nil {
			g.remove(m, GroupMaxSizeReached)
		}
		g.unexpect(r.MemberID)
		refuse(GroupMaxSizeReached, "")
		g.endJoinIfComplete(now) // perhaps it was the one that the others waited for
	case g.state == Dead:
		refuse(CoordinatorNotAvailable, r.MemberID)
	case !g.supports(r.ProtocolType, r.Protocols):
		refuse(InconsistentProtocol, r.MemberID)
	case r.MemberID == "":
		g.joinNew(now, r)
	default:
		g.joinAgain(now, r, refuse)
	}
}

// hasRoomFor bounds members. While a rebalance is being prepared those count that have joined it: others may not come back.
func (g *Group) hasRoomFor(memberID string) bool {
	m := g.byID[memberID]
	switch g.state {
	case PreparingRebalance:
		return m != nil && m.join != 0 || g.joining < g.cfg.MaxSize
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < g.cfg.MaxSize
	}
	return true
}

// joinNew is for a member without an id.
func (g *Group) joinNew(now time.Time, r JoinRequest) {
	switch holder := g.static[r.InstanceID]; {
	case r.InstanceID != "" && holder != nil:
		g.replaceStatic(now, holder, r)
	case r.InstanceID == "" && r.NeedsID:
		g.expect(r.NewID, now.Add(r.Session))
		g.effects.Joined = append(g.effects.Joined, JoinReply{r.Ticket, JoinResult{Err: MemberIDRequired, MemberID: r.NewID, Generation: -1}})
	default:
		g.admit(now, r.NewID, r)
	}
}

// joinAgain is for a member with an id.
func (g *Group) joinAgain(now time.Time, r JoinRequest, refuse func(Error, string)) {
	if _, ok := g.pending[r.MemberID]; ok {
		r.InstanceID = "" // ids are given out to dynamic members only
		g.admit(now, r.MemberID, r)
		return
	}
	m, err := g.known(r.MemberID, r.InstanceID)
	if err != None {
		refuse(err, r.MemberID)
		return
	}
	same := m.offersSame(r.Protocols)
	switch {
	case g.state == PreparingRebalance,
		g.state == CompletingRebalance && !same,
		g.state == Stable && (!same || m.id == g.leader): // the leader may know of changes that are not in its metadata, such as new partitions
		g.update(m, r)
		g.rebalance(now)
	case g.state == CompletingRebalance || g.state == Stable:
		// It has not got the answer to an earlier JoinGroup, or is a follower without news: the current generation is told again.
		g.effects.Joined = append(g.effects.Joined, JoinReply{r.Ticket, g.generationFor(m)})
	default:
		refuse(UnknownMemberID, r.MemberID) // in an empty group: it has to begin anew
	}
}

// generationFor is the answer that tells a member about the generation it is in.
func (g *Group) generationFor(m *member) JoinResult {
	res := JoinResult{MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader}
	if m.id == g.leader {
		res.Members = g.roster()
	}
	return res
}

// admit takes a new member in and rebalances.
func (g *Group) admit(now time.Time, id string, r JoinRequest) {
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.before == Empty {
		g.newMemberAdded = true
	}
	g.add(&member{id: id, instance: r.InstanceID, clientID: r.ClientID, host: r.Host, session: r.Session, rebalance: r.Rebalance,
		protocols: r.Protocols, join: r.Ticket, fresh: true, deadline: now.Add(NewMemberTimeout)})
	g.rebalance(now)
}

// update takes over what a member says in a new JoinGroup, and lets that wait.
func (g *Group) update(m *member, r JoinRequest) {
	g.offer(m, -1)
	m.protocols, m.session, m.rebalance = r.Protocols, r.Session, r.Rebalance
	g.offer(m, 1)
	g.answerJoin(m, JoinResult{Err: RebalanceInProgress, MemberID: m.id, Generation: -1}) // an earlier one of a connection that broke
	m.join = r.Ticket
	g.joining++
}

// rebalance begins a join phase, or ends the one that runs when everybody is there.
func (g *Group) rebalance(now time.Time) {
	if g.state == Stable || g.state == CompletingRebalance || g.state == Empty {
		g.prepare(now)
	} else {
		g.endJoinIfComplete(now)
	}
}

// endJoinIfComplete ends the join phase when nobody is waited for; the first one of a group lasts its time.
func (g *Group) endJoinIfComplete(now time.Time) {
	if g.state == PreparingRebalance && g.before != Empty && g.allJoined() {
		g.endJoin(now)
	}
}

// prepare begins a join phase.
func (g *Group) prepare(now time.Time) {
	if g.state == CompletingRebalance {
		g.dropAssignments(now, RebalanceInProgress)
	}
	g.syncBy = time.Time{}
	first := g.state == Empty
	g.become(PreparingRebalance, now)
	if !first {
		if g.allJoined() {
			g.endJoin(now)
			return
		}
		g.initial, g.joinBy = false, now.Add(g.rebalanceTimeout())
		return
	}
	// A new group: give its members time to arrive together.
	g.initial, g.newMemberAdded = true, false
	g.delay = g.cfg.InitialDelay
	g.remaining = max(g.rebalanceTimeout()-g.delay, 0)
	g.joinBy = now.Add(g.delay)
	if g.delay == 0 {
		g.endJoin(now)
	}
}

// joinTimeout is the end of the time for joining.
func (g *Group) joinTimeout(now time.Time) {
	if g.initial && g.newMemberAdded && g.remaining > 0 {
		g.newMemberAdded = false
		next := min(g.cfg.InitialDelay, g.remaining)
		g.remaining = max(g.remaining-g.delay, 0)
		g.delay = next
		g.joinBy = now.Add(next)
		return
	}
	g.endJoin(now)
}

// endJoin begins a generation with those that have joined. Static members that have not are kept until their session ends.
func (g *Group) endJoin(now time.Time) {
	g.joinBy, g.initial = time.Time{}, false
	for _, m := range append([]*member(nil), g.members...) {
		if m.join == 0 && m.instance == "" {
			g.remove(m, UnknownMemberID)
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		// Only static members are left, and none of them has joined: they have until their sessions end.
		g.joinBy = now.Add(max(g.rebalanceTimeout(), recheck))
		return
	}
	g.generation++
	if len(g.members) == 0 {
		g.protocol, g.leader = "", ""
		g.learnTopics()
		g.become(Empty, now)
		g.store(nil, func(time.Time, Error) {}) // nobody waits for it
		return
	}
	g.protocol = g.selectProtocol()
	g.learnTopics()
	g.become(CompletingRebalance, now)
	for _, m := range g.members {
		g.answerJoin(m, g.generationFor(m))
		m.fresh = false
		m.watch(now)
		g.unsynced[m.id] = struct{}{}
	}
	g.syncBy = now.Add(g.rebalanceTimeout())
}

// recheck bounds how often a group that waits for static members looks after them: their rebalance timeout may be 0.
const recheck = time.Second

// electLeader makes sure that the leader is one that has joined.
func (g *Group) electLeader() bool {
	if m := g.byID[g.leader]; m != nil && m.join != 0 {
		return true
	}
	for _, m := range g.members {
		if m.join != 0 {
			g.leader = m.id
			return true
		}
	}
	return false
}

// replaceStatic lets a static member that was restarted take its place again, under a new id. The old id is fenced.
func (g *Group) replaceStatic(now time.Time, old *member, r JoinRequest) {
	leader := g.leader
	was := *old // to go back to
	g.answerJoin(old, JoinResult{Err: FencedInstanceID, MemberID: old.id, Generation: -1})
	g.answerSync(old, SyncResult{Err: FencedInstanceID})
	g.rename(old, r.NewID)
	old.clientID, old.host, old.fresh = r.ClientID, r.Host, false
	old.watch(now)
	g.update(old, r)
	switch {
	case g.state == Stable && g.selectProtocol() == g.protocol:
		// The assignment stays. It is stored with the new id, so that a restarted coordinator knows the member.
		m := old
		g.effects.Assigned = true // it may read from elsewhere now
		g.store(g.assignments(), func(now time.Time, err Error) {
			if g.byID[r.NewID] != m {
				return // gone, or replaced again, and answered
			}
			if err != None {
				g.answerJoin(m, JoinResult{Err: err, Generation: -1})
				g.offer(m, -1)
				m.protocols, m.session, m.rebalance, m.clientID, m.host = was.protocols, was.session, was.rebalance, was.clientID, was.host
				g.offer(m, 1)
				g.rename(m, was.id)
				m.watch(now)
				g.effects.Assigned = true
				return
			}
			res := g.generationFor(m)
			switch {
			case !r.CanSkip: // told of the old leader, it does not take itself for one and does not assign
				res.Leader, res.Members = leader, nil
			case m.id == g.leader:
				res.SkipAssignment = true
			}
			g.answerJoin(m, res)
		})
	case g.state == Stable || g.state == CompletingRebalance:
		g.prepare(now)
	default:
		g.endJoinIfComplete(now)
	}
}

// rename gives a member another id.
func (g *Group) rename(m *member, id string) {
	delete(g.byID, m.id)
	if _, ok := g.unsynced[m.id]; ok {
		delete(g.unsynced, m.id)
		g.unsynced[id] = struct{}{}
	}
	if g.leader == m.id {
		g.leader = id
	}
	m.id = id
	g.byID[id] = m
}
