package admission_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"lagoon/admission"
	"lagoon/internal/scenariotest"
)

// TestScenarios: each file is one story with its own world and clock; world.commands below is the vocabulary.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, 10, func(t *testing.T) scenariotest.Story {
		w, commands := newWorld(t), map[string]func(scenariotest.Args){}
		for name, run := range w.commands() {
			commands[name] = func(a scenariotest.Args) { run(args{a}) }
		}
		return scenariotest.Story{Commands: commands, Out: &w.out}
	})
}

// world is what a story happens in.
type world struct {
	t        *testing.T
	now      time.Time
	out      strings.Builder
	readers  *admission.Readers
	limits   *admission.Limits
	dev      *device                       // the last one named
	distance map[admission.ReaderKey]int64 // where consume left a reader
	sims     []*simMachine                 // in the order in which they were named
	races    *admission.Races
	logs     map[*load]*doomed // loads that retention follows
	gate     *admission.Gate
	windows  map[string]uint64 // of a file's last sync
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: epoch, distance: map[admission.ReaderKey]int64{}, logs: map[*load]*doomed{}, windows: map[string]uint64{}}
	w.readers = must(admission.NewReaders(admission.Config{}))(t)
	w.limits = must(admission.NewLimits(admission.LimitsConfig{}, w.now))(t)
	return w
}

func (w *world) commands() map[string]func(args) {
	return map[string]func(args){
		"config":      w.config,    // a new registry: min_bytes= min_age= settle= max_readers=
		"fetch":       w.fetch,     // one Observe: READER offset= end= behind= age=
		"consume":     w.consume,   // fetch each second: READER behind= age= read=RATE append=RATE for=DURATION; prints changes
		"advance":     w.advance,   // DURATION; ticks each second, prints changes
		"served":      w.served,    // READER lane= bytes=
		"waited":      w.waited,    // READER for= by=
		"readers":     w.snapshot,  // the registry for people
		"decide":      w.decide,    // state= resident ratio= mode= forced= budget_spent sealed
		"limits":      w.setLimits, // global= flow= migration=
		"configure":   w.configure, // SUBJECT rate= weight=
		"override":    w.override,  // SUBJECT rate= weight= ttl= | rm
		"overrides":   w.overrides, // list
		"device":      w.device,    // NAME rate= speed= quantum= slots= share= rotating deadline= seek=
		"load":        w.load,      // SUBJECT size= outstanding= topic= client= think= actual= kind=migration file= at=
		"run":         w.run,       // DURATION visits= of=SUBJECT; prints what each load got, or a capped flow of its cap and each other flow
		"enqueue":     w.enqueue,   // ID SUBJECT bytes= topic= client= kind= file= at=
		"next":        w.next,
		"done":        w.done,       // ID bytes=
		"cancel":      w.cancel,     // ID
		"share":       w.share,      // SUBJECT bytes= topic=: bytes of another one's read
		"done-shared": w.doneShared, // ID bytes=
		"limitedby":   w.limitedBy,  // SUBJECT
		"show":        w.show,       // the device for people
		"race":        w.race,       // on | off: a watch on retention that boosts, or only tells
		"log":         w.log,        // SUBJECT topic= segments= size= first= every=: a load's log, whose segments are deleted in turn
		"compete":     w.compete,    // DURATION; a run under retention; prints races and what each load got and lost
		"races":       w.raceViews,  // list
		"controller":  w.controller, // NAME floor= ceiling= protect= slots= rotating
		"machine":     w.machine,    // what NAME is like, until changed: see simMachine
		"go":          w.goOn,       // DURATION every=; prints a line per NAME and step, and each new reason
		"hiccup":      w.makeHiccup, // NAME DURATION times=
		"sleep":       w.sleep,      // DURATION
		"gate":        w.makeGate,   // the last device takes turns with syncs of it
		"sync":        w.sync,       // FILE: asks to begin a sync
		"synced":      w.synced,     // FILE: its sync has ended
		"controlled":  w.controlled, // NAME for people
	}
}

func (w *world) config(a args) {
	cfg := admission.Config{
		MinBytes: a.bytes("min_bytes"), MinAge: a.duration("min_age"), SettleFor: a.duration("settle"),
		MaxReaders: int(a.number("max_readers")),
	}
	r, err := admission.NewReaders(cfg)
	if w.failed(err) {
		return
	}
	r.SetMaxBytes(a.bytes("max_bytes"))
	w.readers = r
}

// fetch: end defaults to 1,000,000 and offset to end minus one per KiB behind.
func (w *world) fetch(a args) {
	behind := a.bytes("behind")
	end := a.numberOr("end", 1_000_000_000)
	pos := admission.Position{
		Offset: a.numberOr("offset", end-(behind+1023)/1024), EndOffset: end,
		BehindBytes: behind, BehindAge: a.durationOr("age", 0),
	}
	w.class(w.readers.Observe(a.reader(), pos, w.now))
}

func (w *world) class(c admission.Class) {
	change := ""
	if c.Changed {
		change = " (changed)"
	}
	fmt.Fprintf(&w.out, "%s%s by %s: %s\n", c.State, change, c.Reason, c.Text)
}

// consume moves a reader with 1 KiB records along, from where it was left if behind= is not given; its age shrinks in
// proportion to its distance.
func (w *world) consume(a args) {
	key, age := a.reader(), a.duration("age")
	behind := a.bytesOr("behind", w.distance[key])
	read, appended := a.rate("read"), a.rate("append")
	end, full := 1_000_000_000+int64(w.now.Sub(epoch)/time.Second)*appended/1024, behind
	for range int(a.duration("for") / time.Second) {
		pos := admission.Position{Offset: end - (behind+1023)/1024, EndOffset: end, BehindBytes: behind}
		if full > 0 {
			pos.BehindAge = time.Duration(float64(age) * float64(behind) / float64(full))
		}
		if c := w.readers.Observe(key, pos, w.now); c.Changed {
			fmt.Fprintf(&w.out, "%s ", w.now.Sub(epoch))
			w.class(c)
		}
		w.readers.Served(key, admission.Bypass, min(read, behind), w.now)
		behind = max(0, behind-read) + appended
		end += appended / 1024
		w.tick(time.Second)
	}
	w.distance[key] = behind
	fmt.Fprintf(&w.out, "%s %s behind\n", w.now.Sub(epoch), admission.Bytes(behind))
}

func (w *world) advance(a args) {
	for d := a.durationAt(0); d > 0; d -= time.Second {
		w.tick(min(d, time.Second))
	}
}

func (w *world) tick(d time.Duration) {
	w.now = w.now.Add(d)
	for _, c := range w.readers.Tick(w.now) {
		fmt.Fprintf(&w.out, "%s %s %s/%d: %s -> %s by %s: %s\n", w.now.Sub(epoch), c.Key.Flow(), c.Key.Topic, c.Key.Partition,
			c.From, c.Class.State, c.Class.Reason, c.Class.Text)
	}
}

func (w *world) served(a args) {
	lanes := map[string]admission.Lane{"hot": admission.Hot, "fill": admission.Fill, "bypass": admission.Bypass, "defer": admission.Defer}
	w.readers.Served(a.reader(), lanes[a.str("lane")], a.bytes("bytes"), w.now)
}

func (w *world) waited(a args) {
	w.readers.Waited(a.reader(), a.duration("for"), admission.Limit{By: admission.LimitTier, Name: a.str("by")}, w.now)
}

func (w *world) snapshot(args) {
	for _, v := range w.readers.Snapshot(w.now) {
		eta := "never"
		if v.ETA >= 0 {
			eta = v.ETA.Round(time.Second).String()
		}
		fmt.Fprintf(&w.out, "r-%d %s %s/%d %s since %s: %s\n", v.ID, v.Key.Flow(), v.Key.Topic, v.Key.Partition,
			v.Class.State, v.Class.Since.Sub(epoch), v.Class.Text)
		fmt.Fprintf(&w.out, "    lag %d records, %s, %s, eta %s; %s/s, last lane %s, waits %.0f%%, limited by %s\n",
			v.LagRecords, admission.Bytes(v.LagBytes), v.LagAge, eta, admission.Bytes(v.BytesPerSecond), v.LastLane,
			100*v.WaitRatio, v.LimitedBy)
	}
	known, dropped := w.readers.Len()
	fmt.Fprintf(&w.out, "%d known, %d dropped\n", known, dropped)
}

func (w *world) decide(a args) {
	r := admission.Read{
		Resident: a.Has("resident"), ResidentRatio: a.float("ratio"), Sealed: a.Has("sealed"), BudgetOK: !a.Has("budget_spent"),
		State: map[string]admission.State{
			"realtime": admission.Realtime, "catching_up": admission.CatchingUp, "lagging": admission.Lagging,
			"stalled": admission.Stalled, "stopped": admission.Stopped,
		}[a.str("state")],
		LimitedBy: admission.Limit{By: admission.LimitTier, Name: "hdd"},
	}
	var err error
	if r.Mode, err = admission.ParseMode(a.str("mode")); w.failed(err) {
		return
	}
	if r.Forced, err = admission.ParseForcedClass(a.str("forced")); w.failed(err) {
		return
	}
	fmt.Fprintln(&w.out, admission.Decide(r).Explain(r))
}

func (w *world) setLimits(a args) {
	w.failed(w.limits.SetConfig(admission.LimitsConfig{
		GlobalBytesPerSecond: a.rate("global"), FlowBytesPerSecond: a.rate("flow"), MigrationBytesPerSecond: a.rate("migration"),
	}, w.now))
}

func (w *world) configure(a args) {
	w.failed(w.limits.Configure(a.subject(0), admission.Cap{BytesPerSecond: a.rate("rate"), Weight: int(a.number("weight"))}))
}

func (w *world) override(a args) {
	sub := a.subject(0)
	if a.Has("rm") {
		fmt.Fprintln(&w.out, w.limits.DeleteOverride(sub.Kind, sub.Name))
		return
	}
	o := admission.Override{Kind: sub.Kind, Name: sub.Name, BytesPerSecond: a.rate("rate"), Weight: int(a.number("weight"))}
	if ttl := a.duration("ttl"); ttl != 0 {
		o.Expires = w.now.Add(ttl)
	}
	w.failed(w.limits.SetOverride(o, w.now))
}

func (w *world) overrides(args) {
	list := w.limits.Overrides(w.now)
	for _, o := range list {
		fmt.Fprintf(&w.out, "%s %s/s weight %d, %s left\n", o.Subject(), admission.Bytes(o.BytesPerSecond), o.Weight, o.Expires.Sub(w.now))
	}
	if len(list) == 0 {
		fmt.Fprintln(&w.out, "none")
	}
}

func (w *world) device(a args) {
	name := a.word(0)
	s, err := admission.NewScheduler(admission.DeviceConfig{
		Name: name, BytesPerSecond: a.rate("rate"), QuantumBytes: a.bytes("quantum"), MaxInFlight: int(a.number("slots")),
		MigrationShare: a.float("share"), BurstBytes: a.bytes("burst"), MaxQueued: int(a.number("max_queued")),
		Rotating: a.Has("rotating"), Deadline: a.duration("deadline"),
	}, w.limits, w.now)
	if w.failed(err) {
		return
	}
	w.dev = newDevice(s, a.rate("speed"), w.now)
	w.dev.seek = a.duration("seek")
}

func (w *world) load(a args) {
	l := &load{
		flow: a.subject(0), client: a.str("client"), topic: a.Str("topic", "t"), size: a.bytesOr("size", 1<<20),
		outstanding: int(a.numberOr("outstanding", 4)), think: a.duration("think"), kind: a.kind(), actual: a.bytes("actual"),
		file: uint64(a.number("file")), at: a.bytes("at"),
	}
	w.dev.add(l)
}

func (w *world) run(a args) {
	before := map[*load]int64{}
	for _, l := range w.dev.loads {
		before[l] = l.got
		l.longestGap = 0
	}
	w.dev.seeks, w.dev.visited = 0, nil
	d := a.durationAt(0)
	if w.failed(w.dev.run(d)) {
		return
	}
	w.now = w.dev.now
	var sum int64
	for _, l := range w.dev.loads {
		sum += l.got - before[l]
	}
	for _, l := range w.dev.loads {
		if a.Has("of") {
			break
		}
		got := l.got - before[l]
		fmt.Fprintf(&w.out, "%s %s/%s: %.1f MiB/s, %.1f%%, longest pause %s\n", l.kind, l.flow, l.topic,
			float64(got)/(1<<20)/d.Seconds(), 100*float64(got)/float64(max(sum, 1)), l.longestGap.Round(time.Millisecond))
	}
	if a.Has("of") {
		w.flows(before, a.str("of"), d)
	}
	fmt.Fprintf(&w.out, "all: %.1f MiB/s", float64(sum)/(1<<20)/d.Seconds())
	if w.dev.seek > 0 {
		fmt.Fprintf(&w.out, ", %d seeks", w.dev.seeks)
	}
	w.out.WriteByte('\n')
	if a.Has("visits") {
		fmt.Fprintf(&w.out, "files in order: %v\n", w.dev.visited[:min(len(w.dev.visited), int(a.number("visits")))])
	}
}

// flows prints what each flow got in d since before, and how much of its cap one of them.
func (w *world) flows(before map[*load]int64, capped string, d time.Duration) {
	got := map[admission.Subject]int64{}
	var order []admission.Subject
	for _, l := range w.dev.loads {
		if _, seen := got[l.flow]; !seen {
			order = append(order, l.flow)
		}
		got[l.flow] += l.got - before[l]
	}
	for _, f := range order {
		fmt.Fprintf(&w.out, "%s: %.1f MiB/s", f, float64(got[f])/(1<<20)/d.Seconds())
		if limit := w.dev.s.CapOf(admission.Request{Flow: f}, w.now); f.String() == capped {
			fmt.Fprintf(&w.out, ", %.2f of its cap", float64(got[f])/float64(limit)/d.Seconds())
		}
		w.out.WriteByte('\n')
	}
}

func (w *world) enqueue(a args) {
	w.failed(w.dev.s.Enqueue(admission.Request{
		ID: uint64(a.numberAt(0)), Flow: a.subject(1), Kind: a.kind(), Bytes: a.bytes("bytes"),
		Topic: a.Str("topic", "t"), Client: a.str("client"), File: uint64(a.number("file")), Position: a.bytes("at"),
	}, w.now))
}

func (w *world) next(args) {
	req, wait, ok := w.dev.s.Next(w.now)
	switch {
	case ok:
		fmt.Fprintf(&w.out, "%d %s %s %s\n", req.ID, req.Kind, req.Flow, admission.Bytes(req.Bytes))
	case wait > 0:
		fmt.Fprintf(&w.out, "none, ask again in %s\n", wait.Round(time.Millisecond))
	default:
		fmt.Fprintf(&w.out, "none\n")
	}
}

func (w *world) done(a args) {
	fmt.Fprintln(&w.out, w.dev.s.Done(uint64(a.numberAt(0)), a.bytes("bytes"), w.now))
}

func (w *world) makeGate(args) {
	w.gate = &admission.Gate{}
	w.dev.s.SetGate(w.gate)
}

func (w *world) sync(a args) {
	window, wait, ok := w.gate.BeginSync(w.windows[a.word(0)], w.now)
	switch {
	case ok:
		w.windows[a.word(0)] = window
		fmt.Fprintf(&w.out, "begins in window %d\n", window)
	default:
		fmt.Fprintf(&w.out, "waits, ask again in %s\n", wait.Round(time.Millisecond))
	}
}

func (w *world) synced(args) { w.gate.EndSync(w.now) }

func (w *world) cancel(a args) {
	fmt.Fprintln(&w.out, w.dev.s.Cancel(uint64(a.numberAt(0))))
}

func (w *world) share(a args) {
	fmt.Fprintln(&w.out, w.dev.s.Share(admission.Request{Flow: a.subject(0), Bytes: a.bytes("bytes"), Topic: a.Str("topic", "t")}, w.now))
}

func (w *world) doneShared(a args) {
	fmt.Fprintln(&w.out, w.dev.s.DoneShared(uint64(a.numberAt(0)), a.bytes("bytes"), w.now))
}

func (w *world) limitedBy(a args) {
	fmt.Fprintln(&w.out, w.dev.s.LimitedBy(a.subject(0), w.now).Describe())
}

func (w *world) show(args) {
	v := w.dev.s.Snapshot(w.now)
	fmt.Fprintf(&w.out, "%s %s/s, tokens %s, %d of %d in flight (%s), %d queued, read %s, migrated %s\n", v.Name, admission.Bytes(v.BytesPerSecond),
		admission.Bytes(v.TokensBytes), v.InFlight, v.MaxInFlight, admission.Bytes(v.InFlightBytes), v.Queued,
		admission.Bytes(v.ReadBytes), admission.Bytes(v.MigrationBytes))
	for _, f := range v.Flows {
		fmt.Fprintf(&w.out, "  %s %s weight %d: queued %d (%s), in flight %d, granted %s, limited by %s\n", f.Kind, f.Flow, f.Weight,
			f.Queued, admission.Bytes(f.QueuedBytes), f.InFlight, admission.Bytes(f.GrantedBytes), f.LimitedBy.Describe())
	}
	for _, l := range w.limits.Snapshot(w.now) {
		fmt.Fprintf(&w.out, "  cap %s %s: %s/s, tokens %s, granted %s\n", l.By, l.Name, admission.Bytes(l.BytesPerSecond),
			admission.Bytes(l.TokensBytes), admission.Bytes(l.GrantedBytes))
	}
}

// failed prints an error as the command's answer.
func (w *world) failed(err error) bool {
	if err != nil {
		fmt.Fprintln(&w.out, "error:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return err != nil
}

// args reads a command's words: those by position are bare and come first.
type args struct{ scenariotest.Args }

func (a args) word(i int) string {
	words := a.Words()
	if i >= len(words) {
		a.Fatalf("word %d is missing", i)
	}
	return words[i]
}

func (a args) str(key string) string { return a.Str(key, "") }

func (a args) parse(s string, unit func(string) (float64, error)) float64 {
	v, err := unit(s)
	if err != nil {
		a.Fatalf("%v", err)
	}
	return v
}

func (a args) float(key string) float64 {
	return a.parse(a.Str(key, "0"), func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

func (a args) number(key string) int64            { return int64(a.float(key)) }
func (a args) numberOr(key string, o int64) int64 { return pick(a, key, a.number, o) }
func (a args) bytes(key string) int64             { return int64(a.parse(a.Str(key, "0"), parseBytes)) }
func (a args) bytesOr(key string, o int64) int64  { return pick(a, key, a.bytes, o) }
func (a args) rate(key string) int64 {
	return int64(a.parse(strings.TrimSuffix(a.Str(key, "0"), "/s"), parseBytes))
}
func (a args) duration(key string) time.Duration { return a.toDuration(a.Str(key, "0s")) }
func (a args) durationAt(i int) time.Duration    { return a.toDuration(a.word(i)) }
func (a args) durationOr(key string, o time.Duration) time.Duration {
	return pick(a, key, a.duration, o)
}

func (a args) numberAt(i int) int64 {
	return int64(a.parse(a.word(i), func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }))
}

func (a args) toDuration(s string) time.Duration {
	if s == "unknown" {
		return -1
	}
	return a.Span(s)
}

func (a args) kind() admission.RequestKind {
	switch a.str("kind") {
	case "migration":
		return admission.KindMigration
	case "refill":
		return admission.KindRefill
	}
	return admission.KindRead
}

// subject reads "group:warehouse".
func (a args) subject(i int) admission.Subject {
	kind, name, _ := strings.Cut(a.word(i), ":")
	k, err := admission.ParseKind(kind)
	if err != nil {
		a.Fatalf("%v", err)
	}
	return admission.Subject{Kind: k, Name: name}
}

// reader reads "warehouse orders/3": the group (or client:NAME) and the partition.
func (a args) reader() admission.ReaderKey {
	var key admission.ReaderKey
	if name, isClient := strings.CutPrefix(a.word(0), "client:"); isClient {
		key.Client = name
	} else {
		key.Group, key.Client = a.word(0), a.word(0)+"-1"
	}
	topic, partition, _ := strings.Cut(a.word(1), "/")
	n, err := strconv.Atoi(partition)
	if err != nil {
		a.Fatalf("partition: %v", err)
	}
	key.Topic, key.Partition = topic, int32(n)
	return key
}

func pick[T any](a args, key string, get func(string) T, otherwise T) T {
	if a.Has(key) {
		return get(key)
	}
	return otherwise
}

func parseBytes(s string) (float64, error) {
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			v, err := strconv.ParseFloat(n, 64)
			return v * float64(int64(1)<<(10*(i+1))), err
		}
	}
	return strconv.ParseFloat(s, 64)
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
