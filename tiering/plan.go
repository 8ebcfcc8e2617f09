package tiering

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"lagoon/segment"
)

// Plan proposes the moves that the policy asks for: what is over its age or bytes, what lies in a tier that its topic
// does not use or outside the one that its partition is pinned to, what must leave a tier above its high watermark, and
// what must leave a colder tier so that the others fit. It is a pure function; equal snapshots give equal plans.
//
// A move is proposed only for a segment that is sealed, synced, not Held, not moving already, allowed to leave by its
// topic's policy, and not past its retention; never into a fenced tier, and never so that a tier passes its cap: the sum
// of all moves into a tier fits beside what is there now, whatever order they run in and whichever of them fail. What
// does not fit waits until the moves that make room have been done, and is proposed by a later Plan.
//
// Demand: what a reader comes to within the snapshot's Horizon is put off, and what lies behind it in the tier as well;
// putOff lists it with the reader in the reason. A tier that is too full does not wait: it gives first what nobody comes
// to, then what is needed last. Nothing is ever moved to a hotter tier, whoever reads it, but what is pinned there.
//
// Pins: the sealed segments of a pinned partition go to its tier, whatever their age and whoever reads them, and stay. A tier
// that is too full gives them last. They come back as far as the tier stays at or below its low watermark with them, newest
// first, after all other moves had their room; what has none is in putOff.
//
// Order: out of the coldest tier first (it makes room), then what every reader has passed before what one comes to, then
// oldest data first, then topic, partition, base. Within one partition and tier the order is that of the offsets, so that
// colder tiers hold a prefix of the log; only a tier that is too full breaks it, to keep what readers are about to read.
func Plan(s Snapshot) (moves, putOff []Move) {
	p := newPlanner(s)
	for tier := len(s.Tiers) - 2; tier >= 0; tier-- {
		if s.Tiers[tier].Fenced {
			continue
		}
		p.byPinDown(tier)
		p.byPolicy(tier)
		p.byWatermark(tier)
	}
	p.byPinUp()
	slices.SortFunc(p.chosen, inTurn)
	moves = make([]Move, 0, len(p.chosen))
	for _, c := range p.chosen {
		moves = append(moves, p.move(c))
	}
	for _, c := range p.putOff {
		if !c.taken { // a full tier may have taken it after all
			putOff = append(putOff, p.move(c))
		}
	}
	return moves, putOff
}

// candidate is one segment that may be moved.
type candidate struct {
	topic     *TopicState
	partition int32
	base      segment.Offset
	size      int64
	tier, dir int
	ageMs     int64 // of its newest record, >= 0, never below that of a later segment of the partition
	line      *line
	stages    []stage // the topic's policy in tiers colder than tier
	demand    demand
	over      int64 // > 0: bytes the partition has in tier 0 while its local.retention.bytes asks this one to leave
	pinned    bool
	pin       int // pinned: the tier that its partition is pinned to ...
	pinDir    int // ... and the directory there
	to        int
	cause     Cause
	why       string
	taken     bool
}

// newestFirst is the order in which segments come back to the tier that they are pinned to.
func newestFirst(a, b *candidate) int {
	return cmp.Or(cmp.Compare(a.ageMs, b.ageMs), cmp.Compare(a.topic.Name, b.topic.Name), cmp.Compare(a.partition, b.partition),
		cmp.Compare(b.base, a.base), cmp.Compare(a.tier, b.tier))
}

// rises: it goes to a hotter tier.
func (c *candidate) rises() bool { return c.to < c.tier }

// line is one partition's candidates in one tier. They leave in the order of their offsets: behind one that has to stay
// all stay, behind one that waits for room all wait.
type line struct {
	stuckIn int // the pass in which one had no place, or was put off
	waiting bool
	putOff  *candidate // the one that a reader comes to
}

// before is oldest first, and within one partition and tier the order of the offsets.
func before(a, b *candidate) int {
	return cmp.Or(cmp.Compare(b.tier, a.tier), cmp.Compare(b.ageMs, a.ageMs), cmp.Compare(a.topic.Name, b.topic.Name),
		cmp.Compare(a.partition, b.partition), cmp.Compare(a.base, b.base))
}

type planner struct {
	s      Snapshot
	index  map[string]int // tier name to index
	byTier [][]*candidate // oldest first
	spare  [][]*candidate // the same, least needed first
	chosen []*candidate
	putOff []*candidate
	up     []*candidate // pinned to a hotter tier than theirs, newest first
	pass   int

	// Two books per tier, in bytes. worst counts everything that comes in and nothing that goes out: caps are held
	// against it, so that no order of execution passes them. after is the state when all is done, including what could
	// not be proposed yet for want of room: watermarks are held against it, so that the same relief is not asked twice.
	worst, after []int64
	dirs         [][]int64 // after, by directory; what comes in is known of pins only
	entered      []bool    // something was chosen to go there
}

func newPlanner(s Snapshot) *planner {
	p := &planner{s: s, index: map[string]int{}, byTier: make([][]*candidate, len(s.Tiers)), entered: make([]bool, len(s.Tiers))}
	for i, t := range s.Tiers {
		p.index[t.Name] = i
		p.worst = append(p.worst, max(t.UsedBytes, 0))
		p.after = append(p.after, max(t.UsedBytes, 0))
		var dirs []int64
		for _, d := range t.Dirs {
			dirs = append(dirs, max(d.UsedBytes, 0))
		}
		p.dirs = append(p.dirs, dirs)
	}
	for i := range s.Topics {
		for _, part := range s.Topics[i].Partitions {
			p.addPartition(&s.Topics[i], part)
		}
	}
	for _, list := range p.byTier {
		slices.SortFunc(list, before)
		list = slices.Clone(list)
		slices.SortFunc(list, leastNeeded)
		p.spare = append(p.spare, list)
	}
	slices.SortFunc(p.up, newestFirst)
	return p
}

// addPartition books what is under way and collects the candidates of one partition.
func (p *planner) addPartition(topic *TopicState, part PartitionState) {
	segments := slices.Clone(part.Segments)
	slices.SortFunc(segments, func(a, b SegmentState) int { return cmp.Compare(a.Base, b.Base) })
	over := overLocalBytes(topic, segments)
	readers := layOut(segments, part.Readers)
	pin, pinned := p.index[part.Pin]
	lines := make([]line, len(p.s.Tiers))
	blocked := make([]bool, len(p.s.Tiers)) // an earlier segment has to stay for now: later ones stay behind it
	youngest := int64(math.MaxInt64)
	expired := topic.RetentionMs >= 0 // this segment and all before it: retention walks the log from its start
	for i, seg := range segments {
		if seg.Tier < 0 || seg.Tier >= len(p.s.Tiers) || seg.SizeBytes < 0 {
			continue
		}
		// A segment counts as being as young as the youngest before it, or old timestamps behind live data (a backfill)
		// would leave holes; retention walks the log in the same way.
		age := min(youngest, p.ageMs(seg))
		youngest = age
		expired = expired && p.pastRetention(topic, seg)
		switch {
		case seg.Moving && seg.MovingTo >= 0 && seg.MovingTo < len(p.s.Tiers):
			p.book(seg.Tier, seg.MovingTo, seg.SizeBytes)
			p.leave(seg.Tier, seg.Dir, seg.MovingTo, seg.SizeBytes)
			if pinned && seg.MovingTo == pin {
				p.enter(pin, part.PinDir, seg.SizeBytes)
			}
			continue
		case seg.Held:
			continue
		case !seg.Sealed || !seg.Synced:
			blocked[seg.Tier] = true
			continue
		case blocked[seg.Tier], expired:
			continue
		}
		stages, known := p.colderStages(topic.Policy, seg.Tier)
		if pinned && seg.Tier < pin {
			stages, known = []stage{{tier: part.Pin, keep: -1}}, true
		}
		c := &candidate{topic: topic, partition: part.Partition, base: seg.Base, size: seg.SizeBytes, tier: seg.Tier, dir: seg.Dir, ageMs: age,
			line: &lines[seg.Tier], stages: stages, over: over[i], pinned: pinned, pin: pin, pinDir: part.PinDir}
		if len(part.Readers) > 0 {
			c.demand = readers.of(i)
		}
		if known && len(stages) > 0 {
			p.byTier[seg.Tier] = append(p.byTier[seg.Tier], c)
		}
		if pinned && seg.Tier > pin {
			p.up = append(p.up, c)
		}
	}
}

// ageMs is the age of the segment's newest record. Client timestamps can lie in the future, hence the file's time as a
// bound; negative ages are 0.
func (p *planner) ageMs(seg SegmentState) int64 {
	newest := seg.MaxTimestampMs
	if newest < 0 || (seg.ModTimeMs > 0 && seg.ModTimeMs < newest) {
		newest = seg.ModTimeMs
	}
	return max(p.s.NowMs-max(newest, 0), 0)
}

// pastRetention tells whether retention is about to take the segment. It goes by what the records say, be that in the future.
func (p *planner) pastRetention(topic *TopicState, seg SegmentState) bool {
	newest := seg.MaxTimestampMs
	if newest < 0 {
		newest = seg.ModTimeMs
	}
	return p.s.NowMs-newest > topic.RetentionMs
}

// overLocalBytes gives, for each segment in offset order, the partition's bytes in tier 0 at the moment when
// local.retention.bytes asks it to leave, else 0. As in Kafka a segment leaves if the limit is still filled without it.
func overLocalBytes(topic *TopicState, segments []SegmentState) []int64 {
	over := make([]int64, len(segments))
	if topic.LocalRetentionBytes < 0 {
		return over
	}
	var local int64
	for _, seg := range segments {
		if seg.Tier == 0 && !seg.Moving {
			local += max(seg.SizeBytes, 0)
		}
	}
	for i, seg := range segments {
		if seg.Tier != 0 || seg.Moving {
			continue
		}
		if !seg.Sealed || local-seg.SizeBytes < topic.LocalRetentionBytes {
			break
		}
		over[i] = local
		local -= seg.SizeBytes
	}
	return over
}

// colderStages gives the part of a policy below a tier. known is false when the policy names no tier that exists: such a
// topic stays where it is.
func (p *planner) colderStages(policy Policy, tier int) (stages []stage, known bool) {
	if len(policy.stages) == 0 {
		for _, t := range p.s.Tiers[tier+1:] {
			stages = append(stages, stage{tier: t.Name, keep: -1})
		}
		return stages, true
	}
	for _, st := range policy.stages {
		i, ok := p.index[st.tier]
		known = known || ok
		if ok && i > tier {
			stages = append(stages, st)
		}
	}
	return stages, known
}

// byPolicy chooses what is due to leave a tier for its own sake: by age, bytes, or because the topic does not use it.
func (p *planner) byPolicy(tier int) {
	p.pass++
	for _, c := range p.byTier[tier] {
		if c.taken || c.pinned {
			continue
		}
		due, cause, why := p.due(c)
		if due < 0 || p.putsOff(c, due, cause, why) {
			continue
		}
		p.place(c, due, cause, why)
	}
}

// putsOff leaves a segment where it is while a reader is about to read it there, and those behind it.
func (p *planner) putsOff(c *candidate, to int, cause Cause, why string) bool {
	first := c.line.putOff
	if first == nil && !c.demand.soon(p.s.Horizon) {
		return false
	}
	c.to, c.cause = to, cause
	if first == nil {
		c.line.putOff, c.line.stuckIn = c, p.pass
		c.why = fmt.Sprintf("%s; put off: %s", why, c.demand)
	} else {
		c.why = fmt.Sprintf("%s; put off behind segment %d: %s", why, first.base, first.demand)
	}
	p.putOff = append(p.putOff, c)
	return true
}

// due tells to which tier a segment should go by now, following ages down: data older than two tiers keep it skips one.
// -1: it may stay.
func (p *planner) due(c *candidate) (to int, cause Cause, why string) {
	cause, why = p.leaves(c)
	if cause == "" {
		return -1, "", ""
	}
	to = p.index[c.stages[0].tier]
	for _, st := range c.stages[1:] {
		if keep := p.keep(c.topic, to); keep < 0 || c.ageMs < keep.Milliseconds() {
			break
		}
		to = p.index[st.tier]
	}
	return to, cause, why
}

// leaves tells why a segment is due to leave its tier; cause "" when it is not.
func (p *planner) leaves(c *candidate) (Cause, string) {
	name := p.s.Tiers[c.tier].Name
	if !c.topic.Policy.allows(name) {
		return CausePolicy, fmt.Sprintf("topic's tier policy %q does not use %s", c.topic.Policy, name)
	}
	if keep := p.keep(c.topic, c.tier); keep >= 0 && c.ageMs >= keep.Milliseconds() {
		return CauseAge, fmt.Sprintf("newest record is %s old, %s keeps %s (%s)",
			ageText(time.Duration(min(c.ageMs, maxAge.Milliseconds())/1000)*time.Second), name, ageText(keep), p.keepOrigin(c.topic, c.tier))
	}
	if c.over > 0 {
		return CauseBytes, fmt.Sprintf("partition has %s in %s, local.retention.bytes is %s",
			bytesText(c.over), name, bytesText(c.topic.LocalRetentionBytes))
	}
	return "", ""
}

// keep is how long a topic's data stay in a tier; negative = no limit.
func (p *planner) keep(topic *TopicState, tier int) time.Duration {
	keep, _ := p.keepRule(topic, tier)
	return keep
}

func (p *planner) keepOrigin(topic *TopicState, tier int) string {
	_, origin := p.keepRule(topic, tier)
	return origin
}

// keepRule: the topic's policy beats its local.retention.ms, which beats the tier's keep.
func (p *planner) keepRule(topic *TopicState, tier int) (time.Duration, string) {
	for _, st := range topic.Policy.stages {
		if st.tier == p.s.Tiers[tier].Name && st.keep >= 0 {
			return st.keep, "topic's tier policy"
		}
	}
	if tier == 0 && topic.LocalRetentionMs != -2 {
		if topic.LocalRetentionMs < 0 {
			return -1, "local.retention.ms"
		}
		return time.Duration(min(topic.LocalRetentionMs, maxAge.Milliseconds())) * time.Millisecond, "local.retention.ms"
	}
	if keep := p.s.Tiers[tier].Keep; keep > 0 {
		return keep, "tier's keep"
	}
	return -1, ""
}

// byPinDown chooses what is pinned to a colder tier.
func (p *planner) byPinDown(tier int) {
	p.pass++
	for _, c := range p.byTier[tier] {
		if !c.taken && c.pinned && c.tier < c.pin && !p.place(c, c.pin, CausePin, p.pinText(c)) {
			p.wait(c)
		}
	}
}

// byPinUp chooses what is pinned to a hotter tier and fits there for good: at the low watermark, or this would give it back.
func (p *planner) byPinUp() {
	p.pass++
	for _, c := range p.up {
		switch t := p.s.Tiers[c.pin]; {
		case c.taken || p.s.Tiers[c.tier].Fenced:
		case c.line.stuckIn == p.pass || t.Fenced || !p.staysBelow(c):
			c.line.stuckIn = p.pass
			p.wait(c)
		default:
			c.to, c.cause, c.why, c.taken = c.pin, CausePin, p.pinText(c), true
			p.chosen, p.entered[c.pin] = append(p.chosen, c), true
			p.book(c.tier, c.pin, c.size)
			p.leave(c.tier, c.dir, c.pin, c.size)
			p.enter(c.pin, c.pinDir, c.size)
		}
	}
}

// staysBelow tells whether the tier that a segment is pinned to takes it and is at or below its low watermark and its cap then, as is the
// directory there.
func (p *planner) staysBelow(c *candidate) bool {
	if !p.fits(p.worst, c.pin, c.size) {
		return false
	}
	if p.sameDevice(c.tier, c.pin) {
		return true
	}
	if dirs := p.s.Tiers[c.pin].Dirs; c.pinDir < len(dirs) {
		if low := lowBytes(dirs[c.pinDir].LowBytes, dirs[c.pinDir].HighBytes); low > 0 && p.dirs[c.pin][c.pinDir] > low-c.size {
			return false
		}
	}
	low := p.lowBytes(c.pin)
	return p.fits(p.after, c.pin, c.size) && (low <= 0 || p.after[c.pin] <= low-c.size)
}

// wait puts off what is pinned to a tier that has no room for it, or is not there.
func (p *planner) wait(c *candidate) {
	c.to, c.cause = c.pin, CausePin
	t, low := p.s.Tiers[c.pin], p.lowBytes(c.pin)
	switch {
	case t.Fenced:
		c.why = fmt.Sprintf("%s; put off: %s is offline", p.pinText(c), t.Name)
	case c.rises() && low > 0:
		c.why = fmt.Sprintf("%s; put off: %s holds %s and takes it up to its low watermark of %s", p.pinText(c), t.Name, p.fillText(c.pin), bytesText(low))
	default:
		c.why = fmt.Sprintf("%s; put off: %s holds %s and has no room", p.pinText(c), t.Name, p.fillText(c.pin))
	}
	p.putOff = append(p.putOff, c)
}

func (p *planner) pinText(c *candidate) string {
	return "partition is pinned to " + p.s.Tiers[c.pin].Name
}

// byWatermark chooses, least needed first, what must leave a tier, or one of its directories, that is above its high watermark.
func (p *planner) byWatermark(tier int) {
	p.ofTier(tier)
	for dir := range p.dirs[tier] {
		p.ofDir(tier, dir)
	}
}

// ofDir is byWatermark for a directory.
func (p *planner) ofDir(tier, dir int) {
	d, left := p.s.Tiers[tier].Dirs[dir], &p.dirs[tier][dir]
	if d.HighBytes <= 0 || *left <= d.HighBytes {
		return
	}
	low := lowBytes(d.LowBytes, d.HighBytes)
	why := fmt.Sprintf("%s holds %s, above its high watermark of %s; data leave, least needed first, until it holds %s",
		d.Name, bytesText(d.UsedBytes), bytesText(d.HighBytes), bytesText(low))
	p.pass++
	for _, c := range p.spare[tier] {
		if *left <= low {
			return
		}
		if !c.taken && c.dir == dir {
			p.place(c, p.index[c.stages[0].tier], CauseWatermark, why)
		}
	}
}

// ofTier is byWatermark for a tier as a whole.
func (p *planner) ofTier(tier int) {
	t := p.s.Tiers[tier]
	if t.HighBytes <= 0 || p.after[tier] <= t.HighBytes {
		return
	}
	low := p.lowBytes(tier)
	why := fmt.Sprintf("%s holds %s, above its high watermark of %s; data leave, least needed first, until it holds %s",
		t.Name, p.fillText(tier), bytesText(t.HighBytes), bytesText(low))
	p.pass++
	for _, c := range p.spare[tier] {
		if p.after[tier] <= low {
			return
		}
		if !c.taken {
			p.place(c, p.index[c.stages[0].tier], CauseWatermark, why)
		}
	}
}

// lowBytes is what a tier above its high watermark goes down to; 0: it has no watermarks.
func (p *planner) lowBytes(tier int) int64 {
	return lowBytes(p.s.Tiers[tier].LowBytes, p.s.Tiers[tier].HighBytes)
}

func lowBytes(low, high int64) int64 {
	if low <= 0 || low > high {
		return high
	}
	return low
}

// fillText tells what a tier holds, and what it will hold when the moves chosen so far are done, if that differs.
func (p *planner) fillText(tier int) string {
	now, then := bytesText(p.s.Tiers[tier].UsedBytes), bytesText(p.after[tier])
	if now == then {
		return now
	}
	return now + " (" + then + " after moves under way)"
}

// place finds a tier for a segment that should go to tier `to`: that one, or the next colder one of the topic's that is
// there and has room. Where only room is missing it is made, and the segment waits for the next plan (true as well).
func (p *planner) place(c *candidate, to int, cause Cause, why string) bool {
	if c.line.stuckIn == p.pass {
		return false
	}
	aside := ""
	for _, st := range c.stages {
		i := p.index[st.tier]
		switch {
		case i < to:
			continue
		case p.s.Tiers[i].Fenced:
			aside += fmt.Sprintf("; %s is offline", st.tier)
		case (cause == CauseWatermark || cause == CauseRoom) && p.sameDevice(c.tier, i):
			continue // would free nothing
		case !c.line.waiting && p.fits(p.worst, i, c.size):
			c.to, c.cause, c.why, c.taken = i, cause, why+aside, true
			if text := c.demand.String(); text != "" {
				c.why += "; " + text
			}
			if c.pressed() && c.pinned {
				c.why += fmt.Sprintf("; pinned to %s, and comes back when that has room", p.s.Tiers[c.pin].Name)
			}
			p.chosen, p.entered[i] = append(p.chosen, c), true
			p.book(c.tier, i, c.size)
			p.leave(c.tier, c.dir, i, c.size)
			return true
		case p.makeRoom(i, c.size):
			c.taken, c.line.waiting = true, true // reserved, not proposed: no other pass may count on it
			p.shift(c.tier, i, c.size)
			p.leave(c.tier, c.dir, i, c.size)
			return true
		default:
			aside += fmt.Sprintf("; %s is full", st.tier)
		}
	}
	c.line.stuckIn = p.pass
	return false
}

// makeRoom chooses, least needed first, segments of a tier that go colder until size fits in the end. It may choose some
// and still fail; they are then the least needed of a full tier, and moving them is right by itself.
func (p *planner) makeRoom(tier int, size int64) bool {
	t := p.s.Tiers[tier]
	if size > t.CapBytes {
		return false
	}
	for _, c := range p.spare[tier] {
		if p.fits(p.after, tier, size) {
			return true
		}
		if !c.taken {
			p.place(c, p.index[c.stages[0].tier], CauseRoom,
				fmt.Sprintf("%s is at its limit of %s and makes room for hotter data", t.Name, bytesText(t.CapBytes)))
		}
	}
	return p.fits(p.after, tier, size)
}

// fits tells whether size more bytes keep a tier at or below its cap, by one of the two books; and those tiers of its
// device that something goes into as well.
func (p *planner) fits(book []int64, tier int, size int64) bool {
	for i, t := range p.s.Tiers {
		counts := i == tier || (p.entered[i] && p.sameDevice(i, tier))
		if counts && t.CapBytes > 0 && book[i] > t.CapBytes-size {
			return false
		}
	}
	return true
}

// book enters a move into both books.
func (p *planner) book(from, to int, size int64) {
	for i := range p.worst {
		if i == to || p.sameDevice(i, to) {
			p.worst[i] = addBytes(p.worst[i], size)
		}
	}
	p.shift(from, to, size)
}

// shift enters a move into the final state only. Between tiers of one device nothing changes in the end.
func (p *planner) shift(from, to int, size int64) {
	if p.sameDevice(from, to) {
		return
	}
	for i := range p.after {
		if i == to || p.sameDevice(i, to) {
			p.after[i] = addBytes(p.after[i], size)
		}
		if i == from || p.sameDevice(i, from) {
			p.after[i] -= size
		}
	}
}

// leave and enter are shift for the directories.
func (p *planner) leave(tier, dir, to int, size int64) {
	if dir < len(p.dirs[tier]) && !p.sameDevice(tier, to) {
		p.dirs[tier][dir] -= size
	}
}

func (p *planner) enter(tier, dir int, size int64) {
	if dir < len(p.dirs[tier]) {
		p.dirs[tier][dir] = addBytes(p.dirs[tier][dir], size)
	}
}

func (p *planner) sameDevice(a, b int) bool {
	return a != b && p.s.Tiers[a].Device != "" && p.s.Tiers[a].Device == p.s.Tiers[b].Device
}

func (p *planner) move(c *candidate) Move {
	return Move{Topic: c.topic.Name, Partition: c.partition, Base: c.base, SizeBytes: c.size,
		From: p.s.Tiers[c.tier].Name, To: p.s.Tiers[c.to].Name, Cause: c.cause, Reason: c.why}
}

// addBytes adds sizes that may be absurd without overflow.
func addBytes(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// bytesText writes bytes as people say them: 512 MiB, 1.5 GiB.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), -1
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if value == math.Trunc(value) {
		return fmt.Sprintf("%d %ciB", int64(value), units[unit])
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
