package tiering_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lagoon/segment"
	"lagoon/tiering"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
)

const nowMs = 1_800_000_000_000

// TestPlanStories runs testdata/plan. Commands:
//
//	tiers            one per line: NAME used=SIZE [cap=SIZE] [high=SIZE] [low=SIZE] [keep=AGE] [device=NAME] [fenced]
//	topic NAME [policy=P] [retention=AGE] [local=AGE] [local-bytes=SIZE]
//	                 one segment per line: PARTITION BASE SIZE TIER AGE [mtime=AGE] [active|unsynced|held|moving=TIER]
//	pin TOPIC PARTITION TIER
//	readers TOPIC [horizon=AGE]
//	                 one reader per line: PARTITION NAME OFFSET RATE [absent]
//	plan             prints the moves, and what is put off
func TestPlanStories(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		s := tiering.Snapshot{NowMs: nowMs}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "tiers":
				s = tiering.Snapshot{NowMs: nowMs, Tiers: parseTiers(t, d)}
				return ""
			case "topic":
				s.Topics = append(s.Topics, parseTopic(t, d, s.Tiers))
				return ""
			case "pin":
				pin(t, d, &s)
				return ""
			case "plan":
				return planText(tiering.Plan(s))
			case "readers":
				addReaders(t, d, &s)
				return ""
			}
			d.Fatalf(t, "no command %s", d.Cmd)
			return ""
		})
	})
}

func planText(moves, putOff []tiering.Move) string {
	var b strings.Builder
	for _, m := range moves {
		fmt.Fprintf(&b, "%s-%d %d  %s -> %s  %s: %s\n", m.Topic, m.Partition, m.Base, m.From, m.To, m.Cause, m.Reason)
	}
	for _, m := range putOff {
		fmt.Fprintf(&b, "put off: %s-%d %d  %s -> %s  %s: %s\n", m.Topic, m.Partition, m.Base, m.From, m.To, m.Cause, m.Reason)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// addReaders puts readers on a topic's partitions; horizon is 10 minutes if it is not given.
func addReaders(t *testing.T, d *datadriven.TestData, s *tiering.Snapshot) {
	s.Horizon = 10 * time.Minute
	for _, arg := range d.CmdArgs[1:] {
		s.Horizon = time.Duration(age(t, arg.Vals[0])) * time.Millisecond
	}
	topic := slices.IndexFunc(s.Topics, func(t tiering.TopicState) bool { return t.Name == d.CmdArgs[0].Key })
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		if topic < 0 || len(f) < 4 {
			d.Fatalf(t, "reader %q: want PARTITION NAME OFFSET RATE, of a topic that is there", line)
		}
		_, absent := words(f[4:])["absent"]
		r := tiering.ReaderState{Name: f[1], Offset: segment.Offset(number(t, f[2])), BytesPerSecond: size(t, f[3]), Active: !absent}
		parts := s.Topics[topic].Partitions
		i := slices.IndexFunc(parts, func(p tiering.PartitionState) bool { return p.Partition == int32(number(t, f[0])) })
		parts[i].Readers = append(parts[i].Readers, r)
	}
}

// pin says where an operator wants a partition.
func pin(t *testing.T, d *datadriven.TestData, s *tiering.Snapshot) {
	for i := range s.Topics {
		for j := range s.Topics[i].Partitions {
			if part := &s.Topics[i].Partitions[j]; s.Topics[i].Name == d.CmdArgs[0].Key && int64(part.Partition) == number(t, d.CmdArgs[1].Key) {
				part.Pin = d.CmdArgs[2].Key
				return
			}
		}
	}
	d.Fatalf(t, "no partition %s", d.CmdArgs)
}

// words splits "a b=1 c" into {a: "", b: "1", c: ""}.
func words(fields []string) map[string]string {
	found := map[string]string{}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		found[key] = value
	}
	return found
}

func parseTiers(t *testing.T, d *datadriven.TestData) []tiering.TierState {
	var tiers []tiering.TierState
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		w := words(fields[1:])
		_, fenced := w["fenced"]
		tiers = append(tiers, tiering.TierState{Name: fields[0], Device: w["device"], UsedBytes: size(t, w["used"]), CapBytes: size(t, w["cap"]),
			HighBytes: size(t, w["high"]), LowBytes: size(t, w["low"]), Keep: time.Duration(age(t, w["keep"])) * time.Millisecond, Fenced: fenced})
	}
	return tiers
}

func tierNames(tiers []tiering.TierState) []string {
	var list []string
	for _, tier := range tiers {
		list = append(list, tier.Name)
	}
	return list
}

func parseTopic(t *testing.T, d *datadriven.TestData, tiers []tiering.TierState) tiering.TopicState {
	topic := tiering.TopicState{Name: d.CmdArgs[0].Key, RetentionMs: -1, LocalRetentionMs: -2, LocalRetentionBytes: -2}
	for _, arg := range d.CmdArgs[1:] {
		value := strings.Join(arg.Vals, ",")
		switch arg.Key {
		case "policy":
			policy, err := tiering.ParsePolicy(value, tierNames(tiers))
			must(t, err)
			topic.Policy = policy
		case "retention":
			topic.RetentionMs = age(t, value)
		case "local":
			topic.LocalRetentionMs = age(t, value)
		case "local-bytes":
			topic.LocalRetentionBytes = size(t, value)
		default:
			d.Fatalf(t, "no argument %s", arg.Key)
		}
	}
	partitions := map[int32][]tiering.SegmentState{}
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		if len(f) < 5 {
			d.Fatalf(t, "segment %q: want PARTITION BASE SIZE TIER AGE", line)
		}
		w := words(f[5:])
		_, active := w["active"]
		_, unsynced := w["unsynced"]
		_, held := w["held"]
		seg := tiering.SegmentState{Base: segment.Offset(number(t, f[1])), SizeBytes: size(t, f[2]), Tier: slices.Index(tierNames(tiers), f[3]),
			MaxTimestampMs: nowMs - age(t, f[4]), Sealed: !active, Synced: !unsynced, Held: held}
		if w["mtime"] != "" {
			seg.ModTimeMs = nowMs - age(t, w["mtime"])
		}
		if w["moving"] != "" {
			seg.Moving, seg.MovingTo = true, slices.Index(tierNames(tiers), w["moving"])
		}
		p := int32(number(t, f[0]))
		partitions[p] = append(partitions[p], seg)
	}
	for _, p := range slices.Sorted(maps.Keys(partitions)) {
		topic.Partitions = append(topic.Partitions, tiering.PartitionState{Partition: p, Segments: partitions[p]})
	}
	return topic
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	must(t, err)
	return n
}

// size reads 10GiB, 512MiB, 100 or -1; "" is 0.
func size(t *testing.T, text string) int64 {
	t.Helper()
	for unit, factor := range map[string]int64{"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			return number(t, n) * factor
		}
	}
	if text == "" {
		return 0
	}
	return number(t, text)
}

// age reads 90m, 6h, 7d or -1 as milliseconds; "" is 0.
func age(t *testing.T, text string) int64 {
	t.Helper()
	if n, ok := strings.CutSuffix(text, "d"); ok {
		return number(t, n) * 24 * time.Hour.Milliseconds()
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d.Milliseconds()
}

// drawSnapshot makes any snapshot, sensible or not.
func drawSnapshot(t *rapid.T) tiering.Snapshot {
	s := tiering.Snapshot{NowMs: nowMs}
	s.Horizon = time.Duration(rapid.Int64Range(0, 20).Draw(t, "horizon")) * time.Second
	n := rapid.IntRange(1, 4).Draw(t, "tiers")
	var tierNames []string
	for i := range n {
		tier := tiering.TierState{Name: fmt.Sprintf("t%d", i), Fenced: rapid.IntRange(0, 9).Draw(t, "fenced") == 0,
			UsedBytes: rapid.Int64Range(0, 400).Draw(t, "used"), CapBytes: rapid.Int64Range(0, 400).Draw(t, "cap"),
			HighBytes: rapid.Int64Range(0, 400).Draw(t, "high"), LowBytes: rapid.Int64Range(0, 400).Draw(t, "low"),
			Keep:   time.Duration(rapid.Int64Range(0, 50).Draw(t, "keep")) * time.Second,
			Device: rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "device")}
		s.Tiers = append(s.Tiers, tier)
		tierNames = append(tierNames, tier.Name)
	}
	base := segment.Offset(0)
	for i := range rapid.IntRange(0, 4).Draw(t, "topics") {
		topic := tiering.TopicState{Name: fmt.Sprintf("topic%d", i), RetentionMs: rapid.Int64Range(-1, 100_000).Draw(t, "retention"),
			LocalRetentionMs: rapid.Int64Range(-2, 50_000).Draw(t, "local"), LocalRetentionBytes: rapid.Int64Range(-2, 100).Draw(t, "local bytes")}
		topic.Policy = drawPolicy(t, tierNames)
		for p := range rapid.IntRange(0, 3).Draw(t, "partitions") {
			part := tiering.PartitionState{Partition: int32(p)}
			if rapid.IntRange(0, 2).Draw(t, "pinned") == 0 {
				part.Pin = rapid.SampledFrom(append(tierNames, "gone")).Draw(t, "pin")
			}
			for range rapid.IntRange(0, 6).Draw(t, "segments") {
				base++
				part.Segments = append(part.Segments, tiering.SegmentState{Base: base, SizeBytes: rapid.Int64Range(0, 60).Draw(t, "size"),
					Tier: rapid.IntRange(0, n-1).Draw(t, "tier"), MaxTimestampMs: nowMs - rapid.Int64Range(-1000, 200_000).Draw(t, "age"),
					ModTimeMs: rapid.SampledFrom([]int64{0, nowMs - 1000}).Draw(t, "mtime"),
					Sealed:    rapid.IntRange(0, 5).Draw(t, "sealed") > 0, Synced: rapid.IntRange(0, 5).Draw(t, "synced") > 0,
					Held: rapid.IntRange(0, 9).Draw(t, "held") == 0, Moving: rapid.IntRange(0, 9).Draw(t, "moving") == 0, MovingTo: rapid.IntRange(0, n-1).Draw(t, "moving to")})
			}
			for range rapid.IntRange(0, 3).Draw(t, "readers") {
				part.Readers = append(part.Readers, tiering.ReaderState{Name: rapid.SampledFrom([]string{"group:a", "group:b", "client:c"}).Draw(t, "reader"),
					Offset:         segment.Offset(rapid.Int64Range(0, int64(base)+2).Draw(t, "offset")),
					BytesPerSecond: rapid.Int64Range(0, 20).Draw(t, "rate"), Active: rapid.IntRange(0, 3).Draw(t, "active") > 0})
			}
			topic.Partitions = append(topic.Partitions, part)
		}
		s.Topics = append(s.Topics, topic)
	}
	return s
}

func drawPolicy(t *rapid.T, tiers []string) tiering.Policy {
	var used []string
	for _, tier := range tiers {
		if rapid.Bool().Draw(t, "uses "+tier) {
			used = append(used, tier)
		}
	}
	for i := range used[:max(0, len(used)-1)] {
		if rapid.Bool().Draw(t, "aged") {
			used[i] += fmt.Sprintf(":%ds", 10*i+rapid.IntRange(0, 9).Draw(t, "keep"))
		}
	}
	p, err := tiering.ParsePolicy(strings.Join(used, ","), tiers)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		moves, putOff := tiering.Plan(s)
		checkPlan(t, s, moves)
		checkPutOff(t, s, moves, putOff)
		if again, off := tiering.Plan(shuffled(s, rapid.Uint64().Draw(t, "seed"))); !slices.Equal(moves, again) || !slices.Equal(putOff, off) {
			t.Fatalf("plan depends on the order of its input:\n%s\n%s", planText(moves, putOff), planText(again, off))
		}
		checkSettles(t, s)
	})
}

// checkPlan holds a plan against what it must never do.
func checkPlan(t *rapid.T, s tiering.Snapshot, moves []tiering.Move) {
	index := map[string]int{}
	incoming := make([]int64, len(s.Tiers))
	for i, tier := range s.Tiers {
		index[tier.Name] = i
	}
	add := func(to int, size int64) { // what shares a device is filled together
		for i := range s.Tiers {
			if i == to || (s.Tiers[i].Device != "" && s.Tiers[i].Device == s.Tiers[to].Device) {
				incoming[i] += size
			}
		}
	}
	segments := map[segment.Offset]tiering.SegmentState{}
	topics, pins := map[string]tiering.TopicState{}, map[segment.Offset]string{}
	for _, topic := range s.Topics {
		topics[topic.Name] = topic
		for _, part := range topic.Partitions {
			for _, seg := range part.Segments {
				segments[seg.Base] = seg
				if _, there := index[part.Pin]; there {
					pins[seg.Base] = part.Pin
				}
				if seg.Moving {
					add(seg.MovingTo, seg.SizeBytes)
				}
			}
		}
	}
	seen := map[segment.Offset]bool{}
	into := make([]bool, len(s.Tiers))
	for _, m := range moves {
		seg, from, to := segments[m.Base], index[m.From], index[m.To]
		policy, pin := topics[m.Topic].Policy, pins[m.Base]
		pressed := m.Cause == tiering.CauseWatermark || m.Cause == tiering.CauseRoom
		switch {
		case pin == "" && m.Cause == tiering.CausePin, pin != "" && m.Cause != tiering.CausePin && !pressed:
			t.Fatalf("pinned to %q: move %+v", pin, m)
		case m.Cause == tiering.CausePin && (m.To != pin || to == from):
			t.Fatalf("pinned to %q: move %+v", pin, m)
		case pressed && pin != "" && from < index[pin] && m.To != pin:
			t.Fatalf("pinned to %q: move %+v", pin, m)
		case seen[m.Base]:
			t.Fatalf("%d is moved twice", m.Base)
		case !seg.Sealed || !seg.Synced || seg.Held || seg.Moving:
			t.Fatalf("%+v is moved", seg)
		case seg.Tier != from || to <= from && m.Cause != tiering.CausePin || seg.SizeBytes != m.SizeBytes:
			t.Fatalf("%+v: move %+v", seg, m)
		case s.Tiers[from].Fenced || s.Tiers[to].Fenced:
			t.Fatalf("move %+v touches a fenced tier", m)
		case m.Cause != tiering.CausePin && policy.String() != "" && !strings.Contains(policy.String(), m.To):
			t.Fatalf("policy %s: move %+v", policy, m)
		case m.Cause != tiering.CausePin && policy.Pinned() && strings.HasPrefix(policy.String(), m.From):
			t.Fatalf("pinned by %s: move %+v", policy, m)
		case m.Reason == "" || m.Cause == "":
			t.Fatalf("no reason: %+v", m)
		}
		seen[m.Base] = true
		into[to] = true
		add(to, m.SizeBytes)
	}
	for i, tier := range s.Tiers {
		if into[i] && tier.CapBytes > 0 && tier.UsedBytes+incoming[i] > tier.CapBytes {
			t.Fatalf("%s: %d used and %d coming pass the cap %d:\n%s", tier.Name, tier.UsedBytes, incoming[i], tier.CapBytes, planText(moves, nil))
		}
	}
}

// checkPutOff holds demand against what it must never do: without readers and without a horizon nothing is put off, nothing
// is both moved and put off, and what a reader is in is moved only out of a tier that is too full.
func checkPutOff(t *rapid.T, s tiering.Snapshot, moves, putOff []tiering.Move) {
	moved := map[segment.Offset]bool{}
	readers := map[string][]tiering.ReaderState{}
	for _, topic := range s.Topics {
		for _, part := range topic.Partitions {
			readers[fmt.Sprint(topic.Name, part.Partition)] = part.Readers
		}
	}
	for _, m := range moves {
		moved[m.Base] = true
		if m.Cause == tiering.CauseWatermark || m.Cause == tiering.CauseRoom || m.Cause == tiering.CausePin || s.Horizon == 0 {
			continue
		}
		for _, r := range readers[fmt.Sprint(m.Topic, m.Partition)] {
			if r.Active && r.Offset == m.Base && m.SizeBytes > 0 {
				t.Fatalf("moved from under %+v: %+v", r, m)
			}
		}
	}
	for _, m := range putOff {
		if moved[m.Base] || m.Reason == "" {
			t.Fatalf("put off: %+v", m)
		}
		if m.Cause != tiering.CausePin && (s.Horizon == 0 || len(readers[fmt.Sprint(m.Topic, m.Partition)]) == 0) {
			t.Fatalf("put off: %+v", m)
		}
	}
}

// shuffled is the same snapshot with topics, partitions and segments in another order.
func shuffled(s tiering.Snapshot, seed uint64) tiering.Snapshot {
	rng := rand.New(rand.NewPCG(seed, 0))
	s.Topics = slices.Clone(s.Topics)
	rng.Shuffle(len(s.Topics), func(i, j int) { s.Topics[i], s.Topics[j] = s.Topics[j], s.Topics[i] })
	for i := range s.Topics {
		parts := slices.Clone(s.Topics[i].Partitions)
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		for j := range parts {
			segs := slices.Clone(parts[j].Segments)
			rng.Shuffle(len(segs), func(i, j int) { segs[i], segs[j] = segs[j], segs[i] })
			parts[j].Segments = segs
			readers := slices.Clone(parts[j].Readers)
			rng.Shuffle(len(readers), func(i, j int) { readers[i], readers[j] = readers[j], readers[i] })
			parts[j].Readers = readers
		}
		s.Topics[i].Partitions = parts
	}
	return s
}

// checkSettles carries plans out until there is none: each segment moves at most once per tier, so that must come soon.
func checkSettles(t *rapid.T, s tiering.Snapshot) {
	s = shuffled(s, 0) // a copy
	index := map[string]int{}
	for i, tier := range s.Tiers {
		index[tier.Name] = i
	}
	s.Tiers = slices.Clone(s.Tiers)
	for round := 0; ; round++ {
		moves, _ := tiering.Plan(s)
		if len(moves) == 0 {
			return
		}
		if round > 200 {
			t.Fatalf("no end of moves:\n%s", planText(moves, nil))
		}
		for _, m := range moves {
			carryOut(s, m, index)
		}
	}
}

func carryOut(s tiering.Snapshot, m tiering.Move, index map[string]int) {
	from, to := index[m.From], index[m.To]
	shared := s.Tiers[from].Device != "" && s.Tiers[from].Device == s.Tiers[to].Device
	for i := range s.Tiers {
		same := func(j int) bool {
			return i == j || (s.Tiers[i].Device != "" && s.Tiers[i].Device == s.Tiers[j].Device)
		}
		if same(to) && !shared {
			s.Tiers[i].UsedBytes += m.SizeBytes
		}
		if same(from) && !shared {
			s.Tiers[i].UsedBytes -= m.SizeBytes
		}
	}
	for _, topic := range s.Topics {
		for _, part := range topic.Partitions {
			for i := range part.Segments {
				if part.Segments[i].Base == m.Base {
					part.Segments[i].Tier = to
				}
			}
		}
	}
}

func TestParsePolicy(t *testing.T) {
	tiers := []string{"ssd", "hdd", "object"}
	for text, want := range map[string]string{
		"": "", " ": "", "ssd": "ssd", "hdd": "hdd", "ssd:1h,hdd": "ssd:1h,hdd", " ssd : 90m , object ": "ssd:90m,object",
		"ssd:24h,hdd:7d,object": "ssd:1d,hdd:7d,object", "ssd:0s,hdd": "ssd:0s,hdd", "ssd,hdd:7d,object": "ssd,hdd:7d,object",
	} {
		p, err := tiering.ParsePolicy(text, tiers)
		if err != nil || p.String() != want {
			t.Errorf("%q: got %q, %v, want %q", text, p, err, want)
		}
	}
	for text, want := range map[string]string{
		"sdd": `no tier "sdd"; tiers are ssd, hdd, object`, "ssd,": "tier name is empty", "hdd,ssd": "hdd is hotter",
		"ssd,ssd": "twice", "ssd:1,hdd": "number with a unit", "ssd:-1h,hdd": "want 0 to", "ssd:1h": "last tier",
		"ssd:2d,hdd:1d,object": "below that of a hotter tier", "ssd:99999d,hdd": "days", "ssd:60000d,hdd": "want 0 to", "ssd:xd,hdd": "days", ":1h": "empty",
	} {
		_, err := tiering.ParsePolicy(text, tiers)
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want, "hdd is hotter")) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
