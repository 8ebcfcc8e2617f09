package consumer

import (
	"maps"
	"slices"
	"strings"
	"time"

	"lagoon/internal/groups/classic"
)

// HeartbeatRequest is one ConsumerGroupHeartbeat. Null fields, which say that nothing has changed, are nil or negative.
type HeartbeatRequest struct {
	MemberID       string
	Epoch          int32 // 0 joins, -1 leaves, -2 leaves and will come back by InstanceID
	InstanceID     string
	RackID         string
	ClientID, Host string
	Rebalance      time.Duration
	Topics         []string
	Regex          *string // "" ends such a subscription
	Assignor       string
	Owned          []TopicPartitions
}

// Limits of what a client may say; beyond them the requests of one client would cost others.
const (
	maxID    = 1 << 10
	maxRegex = 1 << 10
)

// Check refuses what no client may send, whatever the group: Kafka's throwIfConsumerGroupHeartbeatRequestIsInvalid.
func (r *HeartbeatRequest) Check() *Refusal {
	invalid := func(text string) *Refusal { return &Refusal{classic.InvalidRequest, text} }
	switch {
	case r.MemberID == "":
		return invalid("MemberId can't be empty.")
	case len(r.MemberID) > maxID || len(r.InstanceID) > maxID || len(r.RackID) > maxID:
		return invalid("Ids may have 1024 bytes at most.")
	case r.Epoch < leftStaticEpoch:
		return invalid("MemberEpoch is invalid.")
	case r.Epoch == leftStaticEpoch && r.InstanceID == "":
		return invalid("InstanceId can't be null.")
	case r.Epoch == 0 && r.Rebalance < 0:
		return invalid("RebalanceTimeoutMs must be provided in first request.")
	case r.Epoch == 0 && (r.Owned == nil || len(r.Owned) > 0):
		return invalid("TopicPartitions must be empty when (re-)joining.")
	case r.Epoch == 0 && r.Topics == nil && r.Regex == nil:
		return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
	case r.Assignor != "" && Assignors[r.Assignor] == nil:
		return refuse(classic.UnsupportedAssignor, "ServerAssignor %.64s is not supported. Supported assignors: %s.", r.Assignor,
			strings.Join(slices.Sorted(maps.Keys(Assignors)), ", "))
	case r.Regex != nil && len(*r.Regex) > maxRegex:
		return &Refusal{classic.InvalidRegularExpression, "SubscribedTopicRegex may have 1024 bytes at most."}
	}
	return nil
}

// Size is how many bytes the subscription has that the request brings.
func (r *HeartbeatRequest) Size() (n int) {
	for _, t := range r.Topics {
		n += len(t)
	}
	if r.Regex != nil {
		n += len(*r.Regex)
	}
	return n
}

// HeartbeatResult answers one ConsumerGroupHeartbeat.
type HeartbeatResult struct {
	Refused    *Refusal // nil: accepted
	MemberID   string
	Epoch      int32
	Heartbeat  time.Duration
	Assignment Assignment
	Assigned   bool // Assignment is told: it is new, or the client may not know it
}

// Stale are the regular expressions that have to be matched before the next heartbeat: those that were not, or against older topics. None of
// them while topics has the version of the last one.
func (g *Group) Stale(topics Topics) (out []string) {
	if g.seen == topics.Version() {
		return nil
	}
	for expr, x := range g.regexes {
		if x.Version != topics.Version() {
			out = append(out, expr)
		}
	}
	return out
}

// Heartbeat joins, updates, moves on or removes a member. resolved has what Stale asked for, and the request's own regular expression.
func (g *Group) Heartbeat(now time.Time, set Settings, topics Topics, resolved map[string]*Resolved, r HeartbeatRequest) HeartbeatResult {
	if r.Epoch < 0 {
		return g.leave(topics, r)
	}
	m, refused := g.admit(r)
	if refused != nil {
		return HeartbeatResult{Refused: refused}
	}
	g.see(topics)
	before := m.current().Assigned
	changed := g.update(m, m.after(r))
	m = g.members[r.MemberID]
	changed = g.resolve(resolved) || changed || m.cur == nil
	g.bump(changed)
	g.retarget()
	owned := Normalize(slices.Clone(r.Owned))
	g.reconcile(now, m, owned, r.Owned != nil)
	g.watch(now, set, m)
	m.joinBy, m.syncBy = time.Time{}, time.Time{}
	full := r.Epoch == 0 || r.Rebalance >= 0 && (r.Topics != nil || r.Regex != nil) && r.Owned != nil
	return HeartbeatResult{MemberID: m.meta.ID, Epoch: m.cur.Epoch, Heartbeat: set.Heartbeat, Assignment: m.cur.Assigned,
		Assigned: full || !before.Equal(m.cur.Assigned)}
}

// admit finds the member that a heartbeat is of, or makes place for it.
func (g *Group) admit(r HeartbeatRequest) (*member, *Refusal) {
	m := g.members[r.MemberID]
	if r.Epoch == 0 && m == nil && len(g.members) >= g.cfg.MaxSize {
		if _, comesBack := g.static[r.InstanceID]; !comesBack {
			return nil, refuse(classic.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", g.cfg.MaxSize)
		}
	}
	if r.InstanceID != "" {
		return g.admitStatic(r)
	}
	switch {
	case m == nil && r.Epoch != 0:
		return nil, refuse(classic.UnknownMemberID, "Member %.64s is not a member of the group.", r.MemberID)
	case m == nil:
		return &member{}, nil
	}
	return m, m.fence(r)
}

// admitStatic is admit for members with an instance id.
func (g *Group) admitStatic(r HeartbeatRequest) (*member, *Refusal) {
	holder, known := g.static[r.InstanceID]
	switch {
	case r.Epoch != 0 && !known:
		return nil, refuse(classic.UnknownMemberID, "Instance id %.64s is unknown.", r.InstanceID)
	case r.Epoch != 0 && holder != r.MemberID:
		return nil, refuse(classic.FencedInstanceID, "Instance id %.64s belongs to another member.", r.InstanceID)
	case r.Epoch != 0:
		m := g.members[holder]
		return m, m.fence(r)
	case !known:
		if m := g.members[r.MemberID]; m != nil {
			return m, nil
		}
		return &member{}, nil
	}
	switch old := g.members[holder]; {
	case old.cur.Epoch == leftStaticEpoch || old.meta.Classic != nil: // one of the classic protocol does not say that it leaves: it is restarted with this one
		return g.replace(old, r.MemberID), nil
	case holder != r.MemberID:
		return nil, refuse(classic.UnreleasedInstanceID, "Static member %.64s with instance id %.64s is still in the group; it has to leave, or its session to end.",
			holder, r.InstanceID)
	default:
		return old, nil
	}
}

// replace lets a static member take its place again under a new id, with what it had.
func (g *Group) replace(old *member, id string) *member {
	meta := *old.meta
	meta.ID = id
	cur := &Current{State: Stable, Assigned: old.cur.Assigned}
	if target, had := g.targets[old.meta.ID], old.meta.ID; had != id {
		expr := old.meta.Regex
		g.put(Record{Kind: CurrentMember, ID: had, Deleted: true})
		g.put(Record{Kind: TargetMember, ID: had, Deleted: true})
		g.put(Record{Kind: MemberRecord, ID: had, Deleted: true})
		g.put(Record{Kind: MemberRecord, ID: id, Member: &meta})
		g.put(Record{Kind: TargetMember, ID: id, Assignment: target})
		if expr != "" {
			g.dropRegex(expr)
		}
	}
	g.put(Record{Kind: CurrentMember, ID: id, Current: cur})
	return g.members[id]
}

// fence refuses a member with another epoch than it should have. The one before is fine when the answer that told the new one may have been lost:
// it owns nothing then that it should not.
func (m *member) fence(r HeartbeatRequest) *Refusal {
	switch epoch := m.cur.Epoch; {
	case r.Epoch == 0 || r.Epoch == epoch:
		return nil
	case r.Epoch > epoch:
		return refuse(classic.FencedMemberEpoch, "The consumer group member has a greater member epoch (%d) than the one known by the group coordinator (%d). "+
			"The member must abandon all its partitions and rejoin.", r.Epoch, epoch)
	case r.Epoch == m.cur.Previous && r.Owned != nil && Normalize(slices.Clone(r.Owned)).within(m.cur.Assigned):
		return nil
	default:
		return refuse(classic.FencedMemberEpoch, "The consumer group member has a smaller member epoch (%d) than the one known by the group coordinator (%d). "+
			"The member must abandon all its partitions and rejoin.", r.Epoch, epoch)
	}
}

// after is what a member says after a heartbeat.
func (m *member) after(r HeartbeatRequest) *Member {
	next := Member{Rebalance: -1}
	if m.meta != nil {
		next = *m.meta
	}
	next.ID, next.ClientID, next.Host, next.Classic = r.MemberID, r.ClientID, r.Host, nil
	if r.InstanceID != "" {
		next.InstanceID = r.InstanceID
	}
	if r.RackID != "" {
		next.RackID = r.RackID
	}
	if r.Rebalance >= 0 {
		next.Rebalance = r.Rebalance
	}
	if r.Assignor != "" {
		next.Assignor = r.Assignor
	}
	if r.Topics != nil {
		next.Topics = names(r.Topics)
	}
	if r.Regex != nil {
		next.Regex = *r.Regex
	}
	return &next
}

// names are the topics of a subscription, ascending, each once.
func names(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

// resolve takes over what expressions of members have matched.
func (g *Group) resolve(resolved map[string]*Resolved) (changed bool) {
	if len(resolved) == 0 {
		return false
	}
	used := map[string]bool{}
	for _, m := range g.members {
		used[m.meta.Regex] = true
	}
	for _, expr := range slices.Sorted(maps.Keys(resolved)) {
		next, old := resolved[expr], g.regexes[expr]
		switch {
		case !used[expr] || expr == "" || old != nil && old.Version > next.Version:
		case old == nil || !slices.Equal(old.Topics, next.Topics):
			g.put(Record{Kind: RegularExpression, ID: expr, Resolved: next})
			changed = true
		case old.Version != next.Version:
			g.regexes[expr] = next // nothing that has to be stored
		}
	}
	return changed
}

// leave ends a membership, or with epoch -2 pauses it.
func (g *Group) leave(topics Topics, r HeartbeatRequest) HeartbeatResult {
	id := r.MemberID
	if r.InstanceID != "" {
		holder, known := g.static[r.InstanceID]
		switch {
		case !known:
			return HeartbeatResult{Refused: refuse(classic.UnknownMemberID, "Instance id %.64s is unknown.", r.InstanceID)}
		case holder != id:
			return HeartbeatResult{Refused: refuse(classic.FencedInstanceID, "Instance id %.64s belongs to another member.", r.InstanceID)}
		}
	}
	m := g.members[id]
	if m == nil {
		return HeartbeatResult{Refused: refuse(classic.UnknownMemberID, "Member %.64s is not a member of the group.", id)}
	}
	if r.Epoch == leftStaticEpoch {
		// Whoever takes its place has a new id, which alone keeps commits of this one out: it may commit at each of its own epochs.
		g.put(Record{Kind: CurrentMember, ID: id, Current: &Current{Epoch: leftStaticEpoch, Previous: m.cur.Epoch, Assigned: m.cur.Assigned.At(0)}})
		m.revokeBy = time.Time{}
	} else {
		g.see(topics)
		g.remove(m)
		g.bump(true)
	}
	return HeartbeatResult{MemberID: id, Epoch: r.Epoch}
}
