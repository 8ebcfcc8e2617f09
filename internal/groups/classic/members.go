package classic

import "time"

// Heartbeat keeps a member's session alive.
func (g *Group) Heartbeat(now time.Time, memberID, instanceID string, generation int32) Error {
	m, err := g.current(memberID, instanceID, generation)
	if err != None {
		return err
	}
	switch g.state {
	case PreparingRebalance:
		m.watch(now)
		return RebalanceInProgress
	case CompletingRebalance, Stable:
		m.watch(now)
		return None
	}
	return UnknownMemberID
}

// Leaver names a member that leaves, or that an administrator removes by its instance id alone.
type Leaver struct{ MemberID, InstanceID string }

// Leave removes members and gives one answer for each, in order.
func (g *Group) Leave(now time.Time, leavers []Leaver) []Error {
	out := make([]Error, len(leavers))
	left := false
	for i, l := range leavers {
		out[i] = g.leave(l)
		left = left || out[i] == None
	}
	if !left {
		return out
	}
	g.memberLeft(now)
	return out
}

func (g *Group) leave(l Leaver) Error {
	if g.state == Dead {
		return CoordinatorNotAvailable
	}
	if l.MemberID == "" {
		m := g.static[l.InstanceID]
		if l.InstanceID == "" || m == nil {
			return UnknownMemberID
		}
		g.remove(m, UnknownMemberID)
		return None
	}
	if g.unexpect(l.MemberID) {
		return None
	}
	m, err := g.known(l.MemberID, l.InstanceID)
	if err == None {
		g.remove(m, UnknownMemberID)
	}
	return err
}

// memberLeft rebalances after members, or expected members, are gone.
func (g *Group) memberLeft(now time.Time) {
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepare(now)
	case PreparingRebalance:
		g.endJoinIfComplete(now)
	}
}

// NextDeadline is when Tick has something to do, zero when it never has.
func (g *Group) NextDeadline() time.Time {
	next := time.Time{}
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	earlier(g.joinBy)
	earlier(g.syncBy)
	for _, m := range g.members {
		earlier(m.deadline)
	}
	for _, t := range g.pending {
		earlier(t)
	}
	return next
}

// Tick does what is due: sessions that ended, join and sync phases that are over.
func (g *Group) Tick(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	gone := false
	for id, t := range g.pending {
		if due(t) {
			gone = g.unexpect(id)
		}
	}
	if gone && g.state == PreparingRebalance {
		g.endJoinIfComplete(now)
	}
	lost := false
	for _, m := range append([]*member(nil), g.members...) {
		if g.byID[m.id] != m || !due(m.deadline) {
			continue
		}
		if !m.fresh && (m.join != 0 || m.sync != 0) {
			m.deadline = time.Time{} // it waits for us; its session begins again with the answer
			continue
		}
		g.remove(m, UnknownMemberID)
		lost = true
	}
	if lost {
		g.memberLeft(now)
	}
	if due(g.joinBy) {
		g.joinTimeout(now)
	}
	if due(g.syncBy) {
		g.syncTimeout(now)
	}
}
