package classic

import "time"

// SyncRequest is one SyncGroup. ProtocolType and Protocol "" are not compared.
type SyncRequest struct {
	Ticket                 Ticket
	MemberID, InstanceID   string
	Generation             int32
	ProtocolType, Protocol string
	Assignments            map[string][]byte // by member id; of the leader
}

// Sync is answered by an effect, at once or when the leader's assignment is stored.
func (g *Group) Sync(now time.Time, r SyncRequest) {
	answer := func(res SyncResult) { g.effects.Synced = append(g.effects.Synced, SyncReply{r.Ticket, res}) }
	m, err := g.current(r.MemberID, r.InstanceID, r.Generation)
	switch {
	case err != None:
		answer(SyncResult{Err: err})
		return
	case r.ProtocolType != "" && r.ProtocolType != g.protocolType, r.Protocol != "" && r.Protocol != g.protocol && g.protocol != "":
		answer(SyncResult{Err: InconsistentProtocol})
		return
	}
	switch g.state {
	case PreparingRebalance:
		answer(SyncResult{Err: RebalanceInProgress})
	case Stable:
		g.synced(m)
		answer(g.assignmentOf(m))
	case CompletingRebalance:
		g.answerSync(m, SyncResult{Err: RebalanceInProgress}) // an earlier one of a connection that broke
		m.sync = r.Ticket
		g.synced(m)
		if m.id == g.leader {
			g.storeAssignments(r.Assignments)
		}
	default:
		answer(SyncResult{Err: UnknownMemberID})
	}
}

// current is known for requests that belong to a generation.
func (g *Group) current(memberID, instanceID string, generation int32) (*member, Error) {
	if g.state == Dead {
		return nil, CoordinatorNotAvailable
	}
	m, err := g.known(memberID, instanceID)
	if err == None && generation != g.generation {
		err = IllegalGeneration
	}
	return m, err
}

func (g *Group) synced(m *member) {
	delete(g.unsynced, m.id)
	if len(g.unsynced) == 0 {
		g.syncBy = time.Time{}
	}
}

func (g *Group) assignmentOf(m *member) SyncResult {
	return SyncResult{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}

// storeAssignments makes the leader's word durable; then it holds. Members it does not name get an empty assignment.
func (g *Group) storeAssignments(given map[string][]byte) {
	generation := g.generation
	if g.assigning == generation {
		return // it is on its way; the leader has asked again
	}
	g.assigning = generation
	assignments := make(map[string][]byte, len(g.members))
	for _, m := range g.members {
		assignments[m.id] = given[m.id]
	}
	g.store(assignments, func(now time.Time, err Error) {
		if g.state != CompletingRebalance || g.generation != generation {
			return // another rebalance has begun
		}
		if err != None {
			g.assigning = 0
			g.dropAssignments(now, err)
			g.rebalance(now)
			return
		}
		for _, m := range g.members {
			m.assignment = assignments[m.id]
			g.answerSync(m, g.assignmentOf(m))
			m.watch(now) // its session was not watched while it waited
		}
		g.become(Stable, now)
		g.effects.Assigned = true
	})
}

// dropAssignments forgets them and answers who waits for one with err.
func (g *Group) dropAssignments(now time.Time, err Error) {
	for _, m := range g.members {
		m.assignment = nil
		if m.sync != 0 {
			g.answerSync(m, SyncResult{Err: err})
			m.watch(now)
		}
	}
}

// syncTimeout gives up the members that have not synced in time.
func (g *Group) syncTimeout(now time.Time) {
	g.syncBy = time.Time{}
	if g.state != CompletingRebalance && g.state != Stable || len(g.unsynced) == 0 {
		return
	}
	for _, m := range append([]*member(nil), g.members...) {
		if _, late := g.unsynced[m.id]; late {
			g.remove(m, UnknownMemberID)
		}
	}
	g.prepare(now)
}

// store asks for the group as it is, with the given assignments by member id, to be made durable.
func (g *Group) store(assignments map[string][]byte, done func(now time.Time, err Error)) {
	g.nextStore++
	g.stores[g.nextStore] = done
	g.effects.Stores = append(g.effects.Stores, Store{g.nextStore, g.metadata(assignments)})
}

// Stored reports what became of a Store.
func (g *Group) Stored(now time.Time, id uint64, err Error) {
	done := g.stores[id]
	delete(g.stores, id)
	if done != nil && g.state != Dead {
		done(now, err)
	}
}
