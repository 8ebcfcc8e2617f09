package classic_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/scenariotest"
)

// TestScenarios: each file is the story of one group.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, 10, func(*testing.T) scenariotest.Story {
		w := &world{now: time.Unix(1_000_000, 0), names: map[classic.Ticket]string{}, ids: map[string]int{}}
		w.cfg = classic.Config{MinSession: time.Second, MaxSession: time.Minute, MaxSize: 1000}
		w.g = classic.New(&w.cfg, w.now)
		return scenariotest.Story{Commands: w.commands(), After: func(args) { w.effects() }, Out: &w.out}
	})
}

type args = scenariotest.Args

// world is one group, its clock and the requests that wait.
type world struct {
	cfg     classic.Config
	g       *classic.Group
	now     time.Time
	tickets classic.Ticket
	names   map[classic.Ticket]string // of requests
	ids     map[string]int            // member ids given out, by client
	stores  []classic.Store           // not reported yet
	last    classic.Metadata          // the last that was stored
	out     strings.Builder
}

func (w *world) commands() map[string]func(args) {
	return map[string]func(args){
		"config":    w.config,    // a new group: delay= size=
		"join":      w.join,      // NAME member= instance= type= protocols=NAME:METADATA,… session= rebalance= v=
		"sync":      w.sync,      // NAME member= instance= gen= protocol= assign=MEMBER:ASSIGNMENT,…
		"stored":    w.stored,    // [ERROR]: the oldest store is durable, or has failed
		"heartbeat": w.heartbeat, // member= instance= gen=
		"leave":     w.leave,     // MEMBER… (instance=I: by instance id)
		"commit":    w.commit,    // member= instance= gen=: may it commit?
		"advance":   w.advance,   // DURATION
		"restart":   w.restart,   // the group as it was stored last
		"topics":    w.topics,    // subscribed? NAME…
		"group":     w.show,
	}
}

// pairs reads "a:1,b:2".
func pairs(s string) (out [][2]string) {
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '(' || r == ')' }) {
		k, v, _ := strings.Cut(part, ":")
		out = append(out, [2]string{k, v})
	}
	return out
}

func (w *world) config(a args) {
	w.cfg.InitialDelay, w.cfg.MaxSize = a.Duration("delay", 0), a.Number("size", 1000)
	w.g = classic.New(&w.cfg, w.now)
}

func (w *world) ticket(name string) classic.Ticket {
	w.tickets++
	w.names[w.tickets] = name
	return w.tickets
}

func (w *world) join(a args) {
	name, v := a.Words()[0], a.Number("v", 9)
	r := classic.JoinRequest{MemberID: a.Str("member", ""), InstanceID: a.Str("instance", ""), ClientID: name, Host: "/host", ProtocolType: a.Str("type", "consumer"),
		Session: a.Duration("session", 10*time.Second), Rebalance: a.Duration("rebalance", 30*time.Second), NeedsID: v >= 4, CanSkip: v >= 9, Ticket: w.ticket(name)}
	for _, p := range pairs(a.Str("protocols", "range")) {
		r.Protocols = append(r.Protocols, classic.Protocol{Name: p[0], Metadata: []byte(p[1])})
	}
	if topics := a.Str("topics", ""); topics != "" {
		for i := range r.Protocols {
			r.Protocols[i].Metadata = subscriptionOf(strings.Split(topics, ","))
		}
	}
	if r.MemberID == "" {
		w.ids[name]++
		r.NewID = fmt.Sprintf("%s%d", name, w.ids[name])
	}
	w.g.Join(w.now, r)
}

// subscriptionOf is the metadata of a consumer.
func subscriptionOf(topics []string) []byte {
	b := []byte{0, 0, 0, 0, 0, byte(len(topics))}
	for _, t := range topics {
		b = append(append(b, 0, byte(len(t))), t...)
	}
	return b
}

func (w *world) sync(a args) {
	r := classic.SyncRequest{Ticket: w.ticket(a.Words()[0]), MemberID: a.Str("member", ""), InstanceID: a.Str("instance", ""),
		Generation: int32(a.Number("gen", 1)), Protocol: a.Str("protocol", ""), Assignments: map[string][]byte{}}
	for _, p := range pairs(a.Str("assign", "")) {
		r.Assignments[p[0]] = []byte(p[1])
	}
	w.g.Sync(w.now, r)
}

func (w *world) stored(a args) {
	if len(w.stores) == 0 {
		a.Fatalf("nothing is being stored")
	}
	s, err := w.stores[0], classic.None
	w.stores = w.stores[1:]
	if len(a.Words()) > 0 {
		err = classic.NotCoordinator
	} else {
		w.last = s.Metadata
	}
	w.g.Stored(w.now, s.ID, err)
}

func (w *world) heartbeat(a args) {
	fmt.Fprintln(&w.out, w.g.Heartbeat(w.now, a.Str("member", ""), a.Str("instance", ""), int32(a.Number("gen", 1))))
}

func (w *world) commit(a args) {
	fmt.Fprintln(&w.out, w.g.MayCommit(w.now, a.Str("member", ""), a.Str("instance", ""), int32(a.Number("gen", 1))))
}

func (w *world) leave(a args) {
	var leavers []classic.Leaver
	for _, id := range a.Words() {
		leavers = append(leavers, classic.Leaver{MemberID: id})
	}
	if id := a.Str("instance", ""); id != "" {
		leavers = append(leavers, classic.Leaver{InstanceID: id})
	}
	for i, err := range w.g.Leave(w.now, leavers) {
		fmt.Fprintf(&w.out, "%s%s: %v\n", leavers[i].MemberID, leavers[i].InstanceID, err)
	}
}

// advance ticks at every deadline on the way.
func (w *world) advance(a args) {
	from, end := w.now, w.now.Add(a.Span(a.Words()[0]))
	for range 1000 {
		next := w.g.NextDeadline()
		if next.IsZero() || next.After(end) {
			break
		}
		w.now = next
		w.g.Tick(next)
		before := w.out.Len()
		w.effects()
		if w.out.Len() > before {
			text := w.out.String()
			w.out.Reset()
			fmt.Fprintf(&w.out, "%safter %v:\n%s", text[:before], next.Sub(from), text[before:])
		}
	}
	w.now = end
}

func (w *world) restart(args) {
	w.g, w.stores = classic.Restore(&w.cfg, w.last, w.now), nil
}

func (w *world) topics(a args) {
	for _, t := range a.Words() {
		fmt.Fprintf(&w.out, "%s: %t\n", t, w.g.Subscribed(t))
	}
}

func (w *world) show(args) {
	fmt.Fprintf(&w.out, "%s, generation %d", w.g.State(), w.g.Generation())
	if p := w.g.Protocol(); p != "" {
		fmt.Fprintf(&w.out, ", protocol %s", p)
	}
	fmt.Fprintln(&w.out)
	for _, m := range w.g.Members() {
		fmt.Fprintf(&w.out, "  %s", m.ID)
		if m.InstanceID != "" {
			fmt.Fprintf(&w.out, " (instance %s)", m.InstanceID)
		}
		if m.Assignment != nil {
			fmt.Fprintf(&w.out, " reads %s", m.Assignment)
		}
		fmt.Fprintln(&w.out)
	}
}

// effects prints what came of an event.
func (w *world) effects() {
	e := w.g.Effects()
	for _, r := range e.Joined {
		fmt.Fprintf(&w.out, "%s joins: ", w.names[r.Ticket])
		if r.Err != classic.None {
			fmt.Fprintf(&w.out, "%v %s\n", r.Err, r.MemberID)
			continue
		}
		fmt.Fprintf(&w.out, "%s in generation %d, %s, leader %s", r.MemberID, r.Generation, r.Protocol, r.Leader)
		if r.SkipAssignment {
			fmt.Fprint(&w.out, ", skips assignment")
		}
		var members []string
		for _, m := range r.Members {
			members = append(members, m.ID+"="+string(m.Metadata))
		}
		if slices.Sort(members); len(members) > 0 {
			fmt.Fprintf(&w.out, ", of %s", strings.Join(members, " "))
		}
		fmt.Fprintln(&w.out)
	}
	for _, r := range e.Synced {
		if r.Err != classic.None {
			fmt.Fprintf(&w.out, "%s syncs: %v\n", w.names[r.Ticket], r.Err)
		} else {
			fmt.Fprintf(&w.out, "%s syncs: %q\n", w.names[r.Ticket], r.Assignment)
		}
	}
	for _, s := range e.Stores {
		var members []string
		for _, m := range s.Metadata.Members {
			members = append(members, fmt.Sprintf(" %s=%s", m.ID, m.Assignment))
		}
		fmt.Fprintf(&w.out, "store: generation %d%s\n", s.Metadata.Generation, strings.Join(members, ""))
		w.stores = append(w.stores, s)
	}
}
