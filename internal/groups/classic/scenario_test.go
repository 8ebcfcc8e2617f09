package classic_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/groups/classic"
)

// TestScenarios replays testdata/*.txt: each file is the story of one group. Rewrite the expected answers with -rewrite, and read the diff.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("scenario files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			w := &world{now: time.Unix(1_000_000, 0), names: map[classic.Ticket]string{}, ids: map[string]int{}}
			w.cfg = classic.Config{MinSession: time.Second, MaxSession: time.Minute, MaxSize: 1000}
			w.g = classic.New(&w.cfg, w.now)
			datadriven.RunTest(t, file, func(t *testing.T, td *datadriven.TestData) string {
				run, ok := w.commands()[td.Cmd]
				if !ok {
					td.Fatalf(t, "unknown command %q", td.Cmd)
				}
				w.out.Reset()
				run(args{t, td})
				w.effects()
				if w.out.Len() == 0 {
					return "ok\n"
				}
				return w.out.String()
			})
		})
	}
}

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

type args struct {
	t  *testing.T
	td *datadriven.TestData
}

func (a args) str(key, fallback string) string {
	for _, arg := range a.td.CmdArgs {
		if arg.Key == key {
			return strings.Join(arg.Vals, ",")
		}
	}
	return fallback
}

func (a args) duration(key string, fallback time.Duration) time.Duration {
	s := a.str(key, fallback.String())
	d, err := time.ParseDuration(s)
	if err != nil {
		a.td.Fatalf(a.t, "%s: %v", key, err)
	}
	return d
}

func (a args) number(key string, fallback int) int {
	n := fallback
	if s := a.str(key, ""); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			a.td.Fatalf(a.t, "%s: %v", key, err)
		}
	}
	return n
}

// free are the arguments without a value.
func (a args) free() (out []string) {
	for _, arg := range a.td.CmdArgs {
		if len(arg.Vals) == 0 {
			out = append(out, arg.Key)
		}
	}
	return out
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
	w.cfg.InitialDelay, w.cfg.MaxSize = a.duration("delay", 0), a.number("size", 1000)
	w.g = classic.New(&w.cfg, w.now)
}

func (w *world) ticket(name string) classic.Ticket {
	w.tickets++
	w.names[w.tickets] = name
	return w.tickets
}

func (w *world) join(a args) {
	name, v := a.free()[0], a.number("v", 9)
	r := classic.JoinRequest{MemberID: a.str("member", ""), InstanceID: a.str("instance", ""), ClientID: name, Host: "/host", ProtocolType: a.str("type", "consumer"),
		Session: a.duration("session", 10*time.Second), Rebalance: a.duration("rebalance", 30*time.Second), NeedsID: v >= 4, CanSkip: v >= 9, Ticket: w.ticket(name)}
	for _, p := range pairs(a.str("protocols", "range")) {
		r.Protocols = append(r.Protocols, classic.Protocol{Name: p[0], Metadata: []byte(p[1])})
	}
	if topics := a.str("topics", ""); topics != "" {
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
	r := classic.SyncRequest{Ticket: w.ticket(a.free()[0]), MemberID: a.str("member", ""), InstanceID: a.str("instance", ""),
		Generation: int32(a.number("gen", 1)), Protocol: a.str("protocol", ""), Assignments: map[string][]byte{}}
	for _, p := range pairs(a.str("assign", "")) {
		r.Assignments[p[0]] = []byte(p[1])
	}
	w.g.Sync(w.now, r)
}

func (w *world) stored(a args) {
	if len(w.stores) == 0 {
		a.td.Fatalf(a.t, "nothing is being stored")
	}
	s, err := w.stores[0], classic.None
	w.stores = w.stores[1:]
	if len(a.free()) > 0 {
		err = classic.NotCoordinator
	} else {
		w.last = s.Metadata
	}
	w.g.Stored(w.now, s.ID, err)
}

func (w *world) heartbeat(a args) {
	fmt.Fprintln(&w.out, w.g.Heartbeat(w.now, a.str("member", ""), a.str("instance", ""), int32(a.number("gen", 1))))
}

func (w *world) commit(a args) {
	fmt.Fprintln(&w.out, w.g.MayCommit(w.now, a.str("member", ""), a.str("instance", ""), int32(a.number("gen", 1))))
}

func (w *world) leave(a args) {
	var leavers []classic.Leaver
	for _, id := range a.free() {
		leavers = append(leavers, classic.Leaver{MemberID: id})
	}
	if id := a.str("instance", ""); id != "" {
		leavers = append(leavers, classic.Leaver{InstanceID: id})
	}
	for i, err := range w.g.Leave(w.now, leavers) {
		fmt.Fprintf(&w.out, "%s%s: %v\n", leavers[i].MemberID, leavers[i].InstanceID, err)
	}
}

// advance ticks at every deadline on the way.
func (w *world) advance(a args) {
	d, err := time.ParseDuration(a.free()[0])
	if err != nil {
		a.td.Fatalf(a.t, "%v", err)
	}
	from, end := w.now, w.now.Add(d)
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
	for _, t := range a.free() {
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
