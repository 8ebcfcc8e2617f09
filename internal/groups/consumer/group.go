package consumer

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"lagoon/internal/groups/classic"
)

// Config is the policy of all groups.
type Config struct {
	MaxSize int // members; group.consumer.max.size
}

// Settings are those of one group, which may change at any time.
type Settings struct {
	Session   time.Duration // consumer.session.timeout.ms: a member that is silent for longer is removed
	Heartbeat time.Duration // consumer.heartbeat.interval.ms: what members are told
}

// Topics are the topics of the broker at one time. Immutable.
type Topics interface {
	// Version grows with every change, and is never 0.
	Version() uint64
	// Find looks a topic up.
	Find(name string) (id TopicID, partitions int32, ok bool)
	// Name is that of a topic.
	Name(id TopicID) (string, bool)
}

// noTopics stand in until the first event.
type noTopics struct{}

func (noTopics) Version() uint64                    { return 0 }
func (noTopics) Find(string) (TopicID, int32, bool) { return TopicID{}, 0, false }
func (noTopics) Name(TopicID) (string, bool)        { return "", false }

// States of a group, as clients are told.
const (
	Empty           classic.State = "Empty"
	Assigning       classic.State = "Assigning"   // the target is older than the group's epoch
	Reconciling     classic.State = "Reconciling" // members are on their way to the target
	StableGroup     classic.State = "Stable"
	leftEpoch       int32         = -1 // of a heartbeat: the member leaves
	leftStaticEpoch int32         = -2 // … for a time, and will come back by its instance id
)

type partition struct {
	id TopicID
	n  int32
}

// Group is one group. Not safe for concurrent use. What is given to it is kept and not written to.
type Group struct {
	cfg    *Config
	topics Topics // the newest that an event came with

	epoch       int32
	hash        int64 // of the subscribed topics as they are: when it changes, the group's epoch does; 0: none
	exists      bool  // the epoch is on record
	targetEpoch int32
	targeted    bool
	members     map[string]*member
	static      map[string]string // member ids by instance id
	targets     map[string]Assignment
	regexes     map[string]*Resolved
	owners      map[partition]string // member ids by what they have, or are to give up

	size     int64  // of members, in bytes
	classics int    // members of the classic protocol
	seen     uint64 // version of the topics that hash is known to be right for; 0: none
	moved    bool   // somebody's assignment has changed since Moved

	records, undo []Record // since Commit
}

// member is one member. It has both of meta and cur, except while it is loaded.
type member struct {
	meta *Member
	cur  *Current
	// Deadlines; zero: none.
	session  time.Time
	revokeBy time.Time // to have given up what it is to
	joinBy   time.Time // a member of the classic protocol is to join again
	syncBy   time.Time // … and to send SyncGroup
}

// New makes an empty group. cfg is shared and must not change.
func New(cfg *Config) *Group {
	return &Group{cfg: cfg, topics: noTopics{}, members: map[string]*member{}, static: map[string]string{}, targets: map[string]Assignment{},
		regexes: map[string]*Resolved{}, owners: map[partition]string{}}
}

// Start ends loading: sessions begin now. Members and targets of which only a part was on record are forgotten; their clients join again.
func (g *Group) Start(now time.Time, set Settings, topics Topics) {
	g.topics = topics
	for id, m := range g.members {
		switch {
		case m.meta == nil:
			g.setCurrent(id, nil)
			continue
		case m.cur == nil:
			g.setCurrent(id, &Current{})
		}
		m.meta = g.named(m.meta, id)
		g.watch(now, set, m)
		if m.cur.State == UnrevokedPartitions {
			m.revokeBy = now.Add(m.meta.Rebalance)
		}
	}
	for id := range g.targets {
		if g.members[id] == nil {
			delete(g.targets, id)
		}
	}
	g.moved = true
	g.letGo()
}

// letGo forgets the topics while there are no members: there may be many groups that nobody uses any more, each since another time, and the topics as they
// were then take memory.
func (g *Group) letGo() {
	if len(g.members) == 0 {
		g.topics = noTopics{}
	}
}

// see takes the topics of an event, unless they are older than those of another that came later and was first.
func (g *Group) see(topics Topics) {
	if topics.Version() >= g.topics.Version() {
		g.topics = topics
	}
}

// named makes sure that a loaded member knows its own id, which is in the key of its record.
func (g *Group) named(m *Member, id string) *Member {
	if m.ID == id {
		return m
	}
	next := *m
	next.ID = id
	return &next
}

// Stored tells whether there is anything on record. Of a compacted log a target or an expression may be the first thing that is read.
func (g *Group) Stored() bool {
	return g.exists || g.targeted || len(g.members) > 0 || len(g.targets) > 0 || len(g.regexes) > 0
}

// Refusal is an error with a text for the client.
type Refusal struct {
	Code classic.Error
	Text string
}

func refuse(code classic.Error, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// State says where the group stands.
func (g *Group) State() classic.State {
	switch {
	case len(g.members) == 0:
		return Empty
	case g.epoch > g.targetEpoch:
		return Assigning
	}
	for _, m := range g.members {
		if m.cur == nil || m.cur.State != Stable || m.cur.Epoch != g.targetEpoch {
			return Reconciling
		}
	}
	return StableGroup
}

// subscribes tells which topics a member reads, by name.
func (g *Group) subscribes(m *Member, fn func(name string)) {
	for _, t := range m.Topics {
		fn(t)
	}
	if x := g.regexes[m.Regex]; m.Regex != "" && x != nil {
		for _, t := range x.Topics {
			if _, twice := slices.BinarySearch(m.Topics, t); !twice {
				fn(t)
			}
		}
	}
}

// subscribed are the names of all topics that members read, ascending.
func (g *Group) subscribed() []string {
	set := map[string]struct{}{}
	for _, m := range g.members {
		g.subscribes(m.meta, func(name string) { set[name] = struct{}{} })
	}
	return slices.Sorted(maps.Keys(set))
}

// topicsHash stands for the subscribed topics that exist, with their partitions.
func (g *Group) topicsHash() int64 {
	h, any := fnv.New64a(), false
	for _, name := range g.subscribed() {
		if id, n, ok := g.topics.Find(name); ok {
			any = true
			h.Write(id[:])
			fmt.Fprintf(h, "%s/%d\n", name, n)
		}
	}
	if !any {
		return 0
	}
	return int64(h.Sum64() | 1)
}

// emptyEpoch is the epoch of a group with nobody in it: its first member begins the next one. As in Kafka (KIP-1263), where members whose first
// assignment is still being computed wait at it.
const emptyEpoch = 1

// bump begins a new epoch if it has to, or the topics have changed.
func (g *Group) bump(must bool) {
	hash := g.hash
	if must || g.seen != g.topics.Version() {
		hash = g.topicsHash()
		g.seen = g.topics.Version()
		for _, x := range g.regexes {
			if x.Version != g.seen {
				g.seen = 0 // the next heartbeat looks again
				break
			}
		}
	}
	if must || hash != g.hash {
		g.put(Record{Kind: GroupEpoch, Epoch: max(g.epoch, emptyEpoch) + 1, Hash: hash})
	}
}

// retarget computes the target of a new epoch.
func (g *Group) retarget() {
	if g.epoch <= g.targetEpoch {
		return
	}
	ids := slices.Sorted(maps.Keys(g.members))
	plan := Plan{Members: make([]PlanMember, len(ids))}
	for i, id := range ids {
		m := g.members[id].meta
		pm := PlanMember{ID: id, InstanceID: m.InstanceID, Had: g.targets[id]}
		g.subscribes(m, func(name string) {
			if topic, n, ok := g.topics.Find(name); ok {
				pm.Topics = append(pm.Topics, PlanTopic{topic, n})
			}
		})
		plan.Members[i] = pm
	}
	for i, next := range Assignors[g.Assignor()](plan) {
		if had, ok := g.targets[ids[i]]; !ok || !had.Equal(next) {
			g.put(Record{Kind: TargetMember, ID: ids[i], Assignment: next})
		}
	}
	g.put(Record{Kind: TargetEpoch, Epoch: g.epoch})
}

// reconcile takes a member towards its target. owned is what its client says it has; ok: it says so.
func (g *Group) reconcile(now time.Time, m *member, owned Assignment, ok bool) {
	next := g.step(m, m.current(), owned, ok)
	if m.cur != nil && next == m.cur {
		return
	}
	g.put(Record{Kind: CurrentMember, ID: m.meta.ID, Current: next})
	switch {
	case next.State != UnrevokedPartitions:
		m.revokeBy = time.Time{}
	case m.meta.Classic == nil: // also when it has given up what it was to, and there is more: that is asked for only now
		m.revokeBy = now.Add(m.meta.Rebalance)
	}
}

func (g *Group) step(m *member, cur *Current, owned Assignment, ok bool) *Current {
	switch {
	case cur.State == Stable && cur.Epoch == g.targetEpoch:
		return cur
	case cur.State == UnrevokedPartitions && (!ok || owned.overlaps(cur.Revoking)):
		return cur
	}
	epoch := cur.Epoch
	if cur.State == UnrevokedPartitions {
		epoch++ // it has done what its epoch asked for, and learns of that even when there is more to revoke
	}
	target := g.targets[m.meta.ID]
	keep := cur.Assigned.and(target)
	revoking := cur.Assigned.minus(target)
	held := false
	gain := target.filter(func(id TopicID, p int32) bool {
		if keep.Has(id, p) {
			return false
		}
		if owner, taken := g.owners[partition{id, p}]; taken && owner != m.meta.ID {
			held = true
			return false
		}
		return true
	})
	if len(revoking) > 0 && (!ok || owned.overlaps(revoking)) {
		return cur.next(epoch, UnrevokedPartitions, keep, revoking)
	}
	state := Stable
	if held {
		state = UnreleasedPartitions
	}
	return cur.next(g.targetEpoch, state, keep.or(gain.At(g.targetEpoch)), nil)
}

// next is the current assignment after this one; itself when nothing changes.
func (c *Current) next(epoch int32, state MemberState, assigned, revoking Assignment) *Current {
	if c.Epoch == epoch && c.State == state && c.Assigned.Equal(assigned) && c.Revoking.Equal(revoking) {
		return c
	}
	n := &Current{Epoch: epoch, Previous: c.Previous, State: state, Assigned: assigned, Revoking: revoking}
	if epoch != c.Epoch {
		n.Previous = c.Epoch
	}
	return n
}

// current is what a member has; nothing, at epoch 0, for one that has just come.
func (m *member) current() *Current {
	if m.cur == nil {
		return &Current{}
	}
	return m.cur
}

// watch begins a member's session anew.
func (g *Group) watch(now time.Time, set Settings, m *member) {
	if m.meta.Classic != nil {
		m.session = now.Add(m.meta.Classic.Session)
		return
	}
	m.session = now.Add(set.Session)
}

// update replaces what a member says, and tells whether it subscribes to something else than before.
func (g *Group) update(m *member, next *Member) (resubscribed bool) {
	old := m.meta
	if old != nil && old.equal(next) {
		return false
	}
	g.put(Record{Kind: MemberRecord, ID: next.ID, Member: next})
	if old != nil && old.Regex != next.Regex {
		g.dropRegex(old.Regex)
	}
	return old == nil || old.Regex != next.Regex || !slices.Equal(old.Topics, next.Topics)
}

func (m *Member) equal(o *Member) bool {
	if m.ID != o.ID || m.InstanceID != o.InstanceID || m.RackID != o.RackID || m.ClientID != o.ClientID || m.Host != o.Host || m.Regex != o.Regex ||
		m.Rebalance != o.Rebalance || m.Assignor != o.Assignor || !slices.Equal(m.Topics, o.Topics) || (m.Classic == nil) != (o.Classic == nil) {
		return false
	}
	return m.Classic == nil || m.Classic.Session == o.Classic.Session && slices.EqualFunc(m.Classic.Protocols, o.Classic.Protocols,
		func(a, b classic.Protocol) bool { return a.Name == b.Name && string(a.Metadata) == string(b.Metadata) })
}

// dropRegex forgets an expression that nobody uses any more.
func (g *Group) dropRegex(expr string) {
	if g.regexes[expr] == nil {
		return
	}
	for _, m := range g.members {
		if m.meta != nil && m.meta.Regex == expr {
			return
		}
	}
	g.put(Record{Kind: RegularExpression, ID: expr, Deleted: true})
}

// remove takes a member out. The caller begins a new epoch.
func (g *Group) remove(m *member) {
	id, expr := m.meta.ID, m.meta.Regex
	g.put(Record{Kind: CurrentMember, ID: id, Deleted: true})
	if _, ok := g.targets[id]; ok {
		g.put(Record{Kind: TargetMember, ID: id, Deleted: true})
	}
	g.put(Record{Kind: MemberRecord, ID: id, Deleted: true})
	if expr != "" {
		g.dropRegex(expr)
	}
}

// NextDeadline is when Tick has something to do, zero when it never has.
func (g *Group) NextDeadline() time.Time {
	next := time.Time{}
	for _, m := range g.members {
		for _, t := range [...]time.Time{m.session, m.revokeBy, m.joinBy, m.syncBy} {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// Tick removes members that are silent, or have not given up partitions, joined or synced in time.
func (g *Group) Tick(now time.Time) (gone []string) {
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	for id, m := range g.members {
		if due(m.session) || due(m.revokeBy) || due(m.joinBy) || due(m.syncBy) {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	for _, id := range gone {
		g.remove(g.members[id])
	}
	if len(gone) > 0 {
		g.bump(true)
	}
	return gone
}
