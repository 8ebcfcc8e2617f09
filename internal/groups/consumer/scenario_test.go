package consumer_test

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/scenariotest"
)

// TestScenarios: each file is the story of one group.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, 8, func(*testing.T) scenariotest.Story {
		w := newWorld()
		return scenariotest.Story{Commands: w.commands(), After: func(a args) {
			if fault := w.settle(); fault != "" {
				a.Fatalf("%s", fault)
			}
		}, Out: &w.out}
	})
}

type args = scenariotest.Args

// world is one group, its clock, its topics and what is on record of it.
type world struct {
	cfg     consumer.Config
	set     consumer.Settings
	g       *consumer.Group
	now     time.Time
	topics  *topics
	records map[string]consumer.Record // by key
	full    bool                       // nothing can be stored
	ids     int
	out     strings.Builder
}

func newWorld() *world {
	w := &world{cfg: consumer.Config{MaxSize: 100}, set: consumer.Settings{Session: 45 * time.Second, Heartbeat: 5 * time.Second}, now: time.Unix(1_000_000, 0),
		topics: &topics{version: 1, parts: map[string]int32{}}, records: map[string]consumer.Record{}}
	w.g = consumer.New(&w.cfg)
	return w
}

// topics are those of the broker. A topic's id is its name.
type topics struct {
	version uint64
	parts   map[string]int32
}

func topicID(name string) (id consumer.TopicID) { copy(id[:], name); return id }

func (t *topics) Version() uint64 { return t.version }
func (t *topics) Find(name string) (consumer.TopicID, int32, bool) {
	n, ok := t.parts[name]
	return topicID(name), n, ok
}
func (t *topics) Name(id consumer.TopicID) (string, bool) {
	name := strings.TrimRight(string(id[:]), "\x00")
	_, ok := t.parts[name]
	return name, ok
}

func (t *topics) with(name string, n int32) *topics {
	next := &topics{t.version + 1, maps.Clone(t.parts)}
	if n == 0 {
		delete(next.parts, name)
	} else {
		next.parts[name] = n
	}
	return next
}

func (t *topics) match(expr string) *consumer.Resolved {
	re := regexp.MustCompile(`\A(?:` + expr + `)\z`)
	out := &consumer.Resolved{Version: t.version}
	for _, name := range slices.Sorted(maps.Keys(t.parts)) {
		if re.MatchString(name) {
			out.Topics = append(out.Topics, name)
		}
	}
	return out
}

func (w *world) commands() map[string]func(args) {
	return map[string]func(args){
		"topics":    w.setTopics, // NAME=PARTITIONS … (0 deletes)
		"config":    w.config,    // size= session=
		"hb":        w.heartbeat, // NAME epoch= [topics=A,B] [regex=] [owned=A-0,A-1 | owned=none] [instance=] [assignor=] [rebalance=]
		"join":      w.join,      // NAME [member=] [instance=] topics= [owned=] [protocols=] [v=]: a member of the classic protocol
		"sync":      w.sync,      // NAME gen= [instance=]
		"beat":      w.beat,      // NAME gen= [instance=]: a classic heartbeat
		"leave":     w.leave,     // NAME… (instance=I: by instance id)
		"commit":    w.commit,    // [NAME] epoch= [transaction=yes] [of=A-0,B-0]: may it commit?
		"advance":   w.advance,   // DURATION
		"restart":   w.restart,   // the group as it is on record
		"storing":   w.storing,   // works | fails
		"upgrade":   w.upgrade,   // ID=TOPIC-0,… with gen=: from a classic group
		"downgrade": w.downgrade, // to a classic group
		"group":     w.show,      // [since]: with the epochs of assignments
	}
}

// listOf is the values of a key: nil if it is not there, none if it says so.
func listOf(a args, key string) []string {
	s, ok := a.Get(key)
	switch {
	case !ok:
		return nil
	case s == "none":
		return []string{}
	}
	return strings.Split(s, ",")
}

// parts reads "orders-0", "orders-1".
func parts(list []string) []consumer.TopicPartitions {
	if list == nil {
		return nil
	}
	out := []consumer.TopicPartitions{}
	for _, s := range list {
		i := strings.LastIndexByte(s, '-')
		n := 0
		fmt.Sscan(s[i+1:], &n)
		out = append(out, consumer.TopicPartitions{ID: topicID(s[:i]), Partitions: []int32{int32(n)}})
	}
	return out
}

func render(a consumer.Assignment) string {
	var out []string
	for _, t := range a {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%s-%d", strings.TrimRight(string(t.ID[:]), "\x00"), p))
		}
	}
	return "[" + strings.Join(out, " ") + "]"
}

func (w *world) setTopics(a args) {
	for _, name := range a.Keys() {
		w.topics = w.topics.with(name, int32(a.Number(name, 0)))
	}
}

func (w *world) config(a args) {
	w.cfg.MaxSize = a.Number("size", 100)
	w.set.Session = a.Duration("session", 45*time.Second)
}

// beatWith sends a heartbeat with what the coordinator would add.
func (w *world) beatWith(r consumer.HeartbeatRequest) consumer.HeartbeatResult {
	if refused := r.Check(); refused != nil {
		return consumer.HeartbeatResult{Refused: refused}
	}
	resolved := map[string]*consumer.Resolved{}
	for _, expr := range w.g.Stale(w.topics) {
		resolved[expr] = w.topics.match(expr)
	}
	if r.Regex != nil && *r.Regex != "" {
		resolved[*r.Regex] = w.topics.match(*r.Regex)
	}
	return w.g.Heartbeat(w.now, w.set, w.topics, resolved, r)
}

func (w *world) heartbeat(a args) {
	name := a.Words()[0]
	r := consumer.HeartbeatRequest{MemberID: name, Epoch: int32(a.Number("epoch", 0)), InstanceID: a.Str("instance", ""), ClientID: name, Host: "/h", Rebalance: -1,
		Topics: listOf(a, "topics"), Assignor: a.Str("assignor", ""), Owned: parts(listOf(a, "owned"))}
	if expr, ok := a.Get("regex"); ok {
		if expr == "none" {
			expr = ""
		}
		r.Regex = &expr
	}
	if r.Epoch == 0 {
		r.Rebalance = a.Duration("rebalance", time.Minute)
		if r.Owned == nil {
			r.Owned = []consumer.TopicPartitions{}
		}
	}
	res := w.beatWith(r)
	switch {
	case w.full && len(w.g.Records()) > 0:
	case res.Refused != nil:
		fmt.Fprintf(&w.out, "%s: %s\n", res.Refused.Code, res.Refused.Text)
	case res.Assigned:
		fmt.Fprintf(&w.out, "%s: epoch %d, assigned %s\n", name, res.Epoch, render(res.Assignment))
	default:
		fmt.Fprintf(&w.out, "%s: epoch %d\n", name, res.Epoch)
	}
}

// subscription is a consumer's metadata in version 1.
func subscription(names []string, owned []string) []byte {
	topicOf := func(s string) (string, int32) {
		i, n := strings.LastIndexByte(s, '-'), 0
		fmt.Sscan(s[i+1:], &n)
		return s[:i], int32(n)
	}
	b := []byte{0, 1, 0, 0, 0, byte(len(names))}
	for _, n := range names {
		b = append(append(b, 0, byte(len(n))), n...)
	}
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, byte(len(owned)))
	for _, s := range owned {
		n, p := topicOf(s)
		b = append(append(b, 0, byte(len(n))), n...)
		b = append(b, 0, 0, 0, 1, 0, 0, 0, byte(p))
	}
	return b
}

func (w *world) join(a args) {
	name := a.Words()[0]
	w.ids++
	r := classic.JoinRequest{MemberID: a.Str("member", ""), NewID: fmt.Sprintf("%s%d", name, w.ids), InstanceID: a.Str("instance", ""), ClientID: name, Host: "/h",
		ProtocolType: a.Str("type", "consumer"), Session: 10 * time.Second, Rebalance: 30 * time.Second, NeedsID: a.Number("v", 9) >= 4}
	for _, p := range strings.Split(a.Str("protocols", "cooperative-sticky"), ",") {
		r.Protocols = append(r.Protocols, classic.Protocol{Name: p, Metadata: subscription(listOf(a, "topics"), listOf(a, "owned"))})
	}
	res := w.g.Join(w.now, w.topics, r)
	if w.full && len(w.g.Records()) > 0 {
		return
	}
	if res.Err != classic.None {
		fmt.Fprintf(&w.out, "%v %s\n", res.Err, res.MemberID)
		return
	}
	fmt.Fprintf(&w.out, "%s joins: %s in generation %d, %s, leader %q\n", name, res.MemberID, res.Generation, res.Protocol, res.Leader)
}

func (w *world) sync(a args) {
	res := w.g.Sync(w.now, classic.SyncRequest{MemberID: a.Words()[0], InstanceID: a.Str("instance", ""), Generation: int32(a.Number("gen", 0))})
	if res.Err != classic.None {
		fmt.Fprintln(&w.out, res.Err)
		return
	}
	fmt.Fprintf(&w.out, "%s: %s\n", res.Protocol, w.assigned(res.Assignment))
}

func (w *world) assigned(b []byte) string {
	list, ok := classic.ParseAssignment(b)
	var out []consumer.TopicPartitions
	for _, t := range list {
		out = append(out, consumer.TopicPartitions{ID: topicID(t.Topic), Partitions: t.Partitions})
	}
	return fmt.Sprintf("%s%s", render(consumer.Normalize(out)), map[bool]string{false: " (unreadable)"}[ok])
}

func (w *world) beat(a args) {
	fmt.Fprintln(&w.out, w.g.ClassicHeartbeat(w.now, w.topics, a.Words()[0], a.Str("instance", ""), int32(a.Number("gen", 0))))
}

func (w *world) leave(a args) {
	var list []classic.Leaver
	for _, id := range a.Words() {
		list = append(list, classic.Leaver{MemberID: id})
	}
	if i, ok := a.Get("instance"); ok {
		list = append(list, classic.Leaver{InstanceID: i})
	}
	fmt.Fprintln(&w.out, w.g.ClassicLeave(list))
}

func (w *world) commit(a args) {
	c := consumer.Commit{Epoch: int32(a.Number("epoch", -1)), Txn: a.Str("transaction", "no") == "yes", Topics: w.topics}
	if f := a.Words(); len(f) > 0 {
		c.MemberID = f[0]
	}
	c.Partitions = func(yield func(string, int32) bool) {
		for _, t := range parts(listOf(a, "of")) {
			if !yield(strings.TrimRight(string(t.ID[:]), "\x00"), t.Partitions[0]) {
				return
			}
		}
	}
	fmt.Fprintln(&w.out, w.g.MayCommit(c))
}

func (w *world) advance(a args) {
	end := w.now.Add(a.Span(a.Words()[0]))
	for {
		next := w.g.NextDeadline()
		if next.IsZero() || next.After(end) {
			break
		}
		w.now = next
		for _, id := range w.g.Tick(w.now) {
			fmt.Fprintf(&w.out, "%s is gone\n", id)
		}
		if fault := w.settle(); fault != "" {
			a.Fatalf("%s", fault)
		}
	}
	w.now = end
}

func (w *world) storing(a args) { w.full = a.Words()[0] == "fails" }

func (w *world) restart(a args) {
	w.g = w.replay()
	w.g.Start(w.now, w.set, w.topics)
}

func (w *world) replay() *consumer.Group {
	g := consumer.New(&w.cfg)
	for _, k := range slices.Sorted(maps.Keys(w.records)) {
		g.Restore(w.records[k])
	}
	return g
}

func (w *world) upgrade(a args) {
	from := classic.Converted{Generation: int32(a.Number("gen", 1))}
	for _, id := range a.Keys() {
		if id == "gen" {
			continue
		}
		var list []classic.TopicPartitions
		for _, t := range consumer.Normalize(parts(listOf(a, id))) {
			name, _ := w.topics.Name(t.ID)
			list = append(list, classic.TopicPartitions{Topic: name, Partitions: t.Partitions})
		}
		from.Members = append(from.Members, classic.ConvertedMember{StoredMember: classic.StoredMember{ID: id, ClientID: id, Host: "/h", Session: 10 * time.Second,
			Rebalance: 30 * time.Second, Assignment: classic.AppendAssignment(nil, 1, list)}, Protocols: []classic.Protocol{{Name: "range", Metadata: subscription([]string{"orders"}, nil)}}})
	}
	g, ok := consumer.FromClassic(&w.cfg, w.now, w.topics, from)
	if !ok {
		fmt.Fprintln(&w.out, "it stays a classic group")
		return
	}
	w.g, w.records = g, map[string]consumer.Record{}
}

func (w *world) downgrade(a args) {
	if !w.g.OnlyClassic() {
		fmt.Fprintln(&w.out, "not all members are of the classic protocol")
		return
	}
	out := w.g.ToClassic()
	slices.SortFunc(out.Members, func(a, b classic.ConvertedMember) int { return cmp.Compare(a.ID, b.ID) })
	fmt.Fprintf(&w.out, "generation %d\n", out.Generation)
	for _, m := range out.Members {
		fmt.Fprintf(&w.out, "  %s %s\n", m.ID, w.assigned(m.Assignment))
	}
}

// settle stores what an event has changed, or takes it back, and checks that records alone give the group, and that no partition has two owners.
func (w *world) settle() (fault string) {
	rs := w.g.Records()
	if len(rs) > 0 && w.full {
		w.g.Rollback(w.now, w.set)
		fmt.Fprintln(&w.out, "not stored")
		rs = nil
	}
	for _, r := range rs {
		key := fmt.Sprint(r.Kind, r.ID)
		if r.Deleted {
			delete(w.records, key)
			continue
		}
		w.records[key] = r
	}
	w.g.Commit()
	again := w.replay()
	if live, stored := picture(w.g)+since(w.g), picture(again)+since(again); live != stored {
		return fmt.Sprintf("the group is\n%s\nbut on record is\n%s", live, stored)
	}
	owners := map[string]string{}
	for _, m := range w.g.Members() {
		for _, a := range []consumer.Assignment{m.Assigned, m.Revoking} {
			for _, p := range strings.Fields(strings.Trim(render(a), "[]")) {
				if other, taken := owners[p]; taken {
					return fmt.Sprintf("%s belongs to %s and %s", p, other, m.ID)
				}
				owners[p] = m.ID
			}
		}
	}
	return ""
}

// picture is the group in words.
func picture(g *consumer.Group) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, epoch %d, target %d, %s\n", g.State(), g.Epoch(), g.TargetEpoch(), g.Assignor())
	for _, m := range g.Members() {
		fmt.Fprintf(&b, "  %s: epoch %d, %s", m.ID, m.Epoch, render(m.Assigned))
		if len(m.Revoking) > 0 {
			fmt.Fprintf(&b, ", gives up %s", render(m.Revoking))
		}
		if !m.Target.Equal(m.Assigned) {
			fmt.Fprintf(&b, ", is to have %s", render(m.Target))
		}
		if m.State != consumer.Stable {
			fmt.Fprintf(&b, ", %s", m.State)
		}
		if m.InstanceID != "" {
			fmt.Fprintf(&b, " (instance %s)", m.InstanceID)
		}
		if m.Classic != nil {
			fmt.Fprint(&b, " (classic)")
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

func (w *world) show(a args) {
	w.out.WriteString(picture(w.g))
	if slices.Contains(a.Words(), "since") {
		w.out.WriteString(since(w.g))
	}
}

// since tells at which epochs partitions were assigned.
func since(g *consumer.Group) string {
	var b strings.Builder
	for _, m := range g.Members() {
		for _, a := range []consumer.Assignment{m.Assigned, m.Revoking} {
			for _, t := range a {
				for i, p := range t.Partitions {
					fmt.Fprintf(&b, "  %s-%d: %s since %d\n", strings.TrimRight(string(t.ID[:]), "\x00"), p, m.ID, t.Epochs[i])
				}
			}
		}
	}
	return b.String()
}
