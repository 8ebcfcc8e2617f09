package classic

import (
	"slices"
	"time"
)

// State is where a group stands. The names are those that clients are told.
type State string

// The states of a classic group.
const (
	Empty               State = "Empty"
	PreparingRebalance  State = "PreparingRebalance"
	CompletingRebalance State = "CompletingRebalance"
	Stable              State = "Stable"
	Dead                State = "Dead"
)

// NewMemberTimeout bounds how long a member that joins for the first time is waited for: it cannot heartbeat yet, and whether its
// client is still there is not known (Kafka: classic.group.new.member.join.timeout.ms, 5 min).
const NewMemberTimeout = 5 * time.Minute

// ConsumerType is the protocol type of consumers, whose metadata and assignments have a known format.
const ConsumerType = "consumer"

// Config is the policy of all groups.
type Config struct {
	MinSession, MaxSession time.Duration // group.min.session.timeout.ms, group.max.session.timeout.ms
	InitialDelay           time.Duration // group.initial.rebalance.delay.ms
	MaxSize                int           // members; group.max.size
}

// Ticket names a request that waits for its answer; 0 is none. The caller makes them, unique within a group.
type Ticket uint64

// Protocol is one way to assign that a member offers, with what it says about itself for it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// Group is one group. Not safe for concurrent use. Strings and byte slices that are given to it are kept and not written to.
type Group struct {
	cfg *Config

	state        State
	before       State     // the state before this one
	since        time.Time // when this state began
	generation   int32
	protocolType string // "" before the first member
	protocol     string // "" while none is agreed upon
	leader       string

	members  []*member // in the order in which they joined first
	byID     map[string]*member
	static   map[string]*member   // by group.instance.id
	pending  map[string]time.Time // member ids that were given out and have not joined yet, with their deadlines; see expect
	offered  map[string]int       // protocols, by the number of members that support them
	joining  int                  // members whose JoinGroup waits
	unsynced map[string]struct{}  // members of this generation that have not sent SyncGroup
	// assigning is the generation whose assignments are being stored.
	assigning int32

	pendingBytes int64 // of the ids in pending

	topics     map[string]struct{} // subscribed by this generation
	topicsTold bool                // topics is known: a consumer group whose metadata could be read
	topicBytes int64               // of topics, about

	joinBy         time.Time     // when the join phase ends; zero: no such phase
	initial        bool          // … and it is the first one, which is extended while members arrive
	delay          time.Duration // … last extension
	remaining      time.Duration // … what may still be added
	newMemberAdded bool          // … somebody arrived in this extension
	syncBy         time.Time     // when members that have not synced are given up; zero: nobody is waited for

	stores    map[uint64]func(now time.Time, err Error) // what to do when a Store is done
	nextStore uint64
	effects   Effects
}

type member struct {
	id, instance   string
	clientID, host string
	session        time.Duration
	rebalance      time.Duration
	protocols      []Protocol
	assignment     []byte
	join, sync     Ticket    // requests that wait
	fresh          bool      // has never got an answer to JoinGroup
	deadline       time.Time // session; zero: not watched
}

// New makes an empty group. cfg is shared and must not change.
func New(cfg *Config, now time.Time) *Group {
	return &Group{cfg: cfg, state: Empty, before: Empty, since: now, byID: map[string]*member{}, static: map[string]*member{},
		pending: map[string]time.Time{}, offered: map[string]int{}, unsynced: map[string]struct{}{}, stores: map[uint64]func(time.Time, Error){}}
}

// JoinResult answers one JoinGroup.
type JoinResult struct {
	Err            Error
	MemberID       string
	Generation     int32 // -1 with an error
	ProtocolType   string
	Protocol       string
	Leader         string
	SkipAssignment bool
	Members        []MemberMetadata // for the leader only
}

// MemberMetadata is what the leader learns about a member.
type MemberMetadata struct {
	ID, InstanceID string
	Metadata       []byte
}

// SyncResult answers one SyncGroup.
type SyncResult struct {
	Err          Error
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// JoinReply and SyncReply carry an answer to whoever waits for it.
type JoinReply struct {
	Ticket Ticket
	JoinResult
}

// SyncReply is the answer of a SyncGroup that waited.
type SyncReply struct {
	Ticket Ticket
	SyncResult
}

// Store asks for the group's metadata to be made durable. The caller reports the outcome with Stored.
type Store struct {
	ID       uint64
	Metadata Metadata
}

// Effects is what events came to, in order.
type Effects struct {
	Joined []JoinReply
	Synced []SyncReply
	Stores []Store
	// Assigned: who has which assignment has changed.
	Assigned bool
}

// Effects hands over what the events since the last call came to.
func (g *Group) Effects() Effects {
	e := g.effects
	g.effects = Effects{}
	return e
}

// State, Generation, ProtocolType and Protocol tell where the group stands.
func (g *Group) State() State         { return g.state }
func (g *Group) Generation() int32    { return g.generation }
func (g *Group) ProtocolType() string { return g.protocolType }
func (g *Group) Protocol() string     { return g.protocol }

// Since is when the current state began.
func (g *Group) Since() time.Time { return g.since }

// Size is the number of members.
func (g *Group) Size() int { return len(g.members) }

// Idle tells that the group has no members, and no one is expected.
func (g *Group) Idle() bool { return g.state == Empty && len(g.pending) == 0 }

// Kill ends the group: it was deleted. Whoever still holds it is told to look for the coordinator again.
func (g *Group) Kill(now time.Time) { g.become(Dead, now) }

func (g *Group) become(s State, now time.Time) { g.before, g.state, g.since = g.state, s, now }

func (g *Group) consumers() bool { return g.protocolType == ConsumerType }

// add takes a new member in.
func (g *Group) add(m *member) {
	if g.leader == "" {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instance != "" {
		g.static[m.instance] = m
	}
	g.unexpect(m.id)
	g.offer(m, 1)
	if m.join != 0 {
		g.joining++
	}
}

// expect waits for a member that was given an id.
func (g *Group) expect(id string, until time.Time) {
	g.unexpect(id)
	g.pending[id] = until
	g.pendingBytes += int64(len(id))
}

// unexpect waits for it no more, and tells whether it did.
func (g *Group) unexpect(id string) bool {
	if _, ok := g.pending[id]; !ok {
		return false
	}
	delete(g.pending, id)
	g.pendingBytes -= int64(len(id))
	return true
}

// offer counts a member's protocols in or out.
func (g *Group) offer(m *member, n int) {
	for _, p := range m.protocols {
		if g.offered[p.Name] += n; g.offered[p.Name] <= 0 {
			delete(g.offered, p.Name)
		}
	}
}

// remove takes a member out, whatever it waits for is answered with err.
func (g *Group) remove(m *member, err Error) {
	g.answerJoin(m, JoinResult{Err: err, Generation: -1})
	g.answerSync(m, SyncResult{Err: err})
	g.members = slices.DeleteFunc(g.members, func(x *member) bool { return x == m })
	delete(g.byID, m.id)
	delete(g.unsynced, m.id)
	if g.static[m.instance] == m {
		delete(g.static, m.instance)
	}
	g.offer(m, -1)
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	g.effects.Assigned = true
}

// answerJoin answers a member's JoinGroup if one waits.
func (g *Group) answerJoin(m *member, r JoinResult) {
	if m.join == 0 {
		return
	}
	g.effects.Joined = append(g.effects.Joined, JoinReply{m.join, r})
	m.join = 0
	g.joining--
}

// answerSync answers a member's SyncGroup if one waits.
func (g *Group) answerSync(m *member, r SyncResult) {
	if m.sync == 0 {
		return
	}
	g.effects.Synced = append(g.effects.Synced, SyncReply{m.sync, r})
	m.sync = 0
}

// watch gives a member its session timeout from now on.
func (m *member) watch(now time.Time) { m.deadline = now.Add(m.session) }

// known checks that a member is who it says: Kafka's validateMember.
func (g *Group) known(memberID, instanceID string) (*member, Error) {
	if instanceID != "" {
		holder := g.static[instanceID]
		switch {
		case holder == nil:
			return nil, UnknownMemberID
		case holder.id != memberID:
			return nil, FencedInstanceID
		}
	}
	m := g.byID[memberID]
	if m == nil {
		return nil, UnknownMemberID
	}
	return m, None
}

// allJoined tells that nobody is waited for in the join phase.
func (g *Group) allJoined() bool { return g.joining == len(g.members) && len(g.pending) == 0 }

// rebalanceTimeout is that of the slowest member.
func (g *Group) rebalanceTimeout() time.Duration {
	longest := time.Duration(0)
	for _, m := range g.members {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// supports tells whether a joining member has a protocol in common with all members.
func (g *Group) supports(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return g.protocolType == protocolType && slices.ContainsFunc(protocols, func(p Protocol) bool { return g.offered[p.Name] == len(g.members) })
}

// selectProtocol lets every member vote for the first of its protocols that all support. A tie is broken by the leader's order.
func (g *Group) selectProtocol() string {
	votes := map[string]int{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.offered[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	if leader := g.byID[g.leader]; leader != nil {
		for _, p := range leader.protocols {
			if votes[p.Name] > votes[best] {
				best = p.Name
			}
		}
	}
	return best
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// offersSame tells whether protocols are what the member offers already, in the same order.
func (m *member) offersSame(protocols []Protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b Protocol) bool { return a.Name == b.Name && string(a.Metadata) == string(b.Metadata) })
}

// roster is what the leader assigns to.
func (g *Group) roster() []MemberMetadata {
	out := make([]MemberMetadata, len(g.members))
	for i, m := range g.members {
		out[i] = MemberMetadata{m.id, m.instance, m.metadata(g.protocol)}
	}
	return out
}
