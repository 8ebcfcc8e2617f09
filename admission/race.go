package admission

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The retention race: retention does not wait for readers, as in Kafka. A lagging reader that will not have read a segment
// when it is deleted loses it. Races predicts that from how fast the reader is, and gives its flow the weight with which it
// wins, as early as it is known: little weight early is as good as much weight late.

// Deadline is when retention takes the reader's way up to a point.
type Deadline struct {
	Bytes int64         // from the reader's position to the end of a segment
	In    time.Duration // until retention deletes that segment
}

// Racer is one lagging reader with deadlines before it.
type Racer struct {
	Key       ReaderKey
	Device    string     // DeviceView.Name of where it reads
	ReadBytes int64      // that it got since it is known, in all lanes
	Deadlines []Deadline // neither field ever falls
}

// RaceView is a group or client against retention in one topic, for people and metrics.
type RaceView struct {
	Flow           Subject
	Topic          string
	Partition      int32         // the one that loses first
	Countdown      time.Duration // until retention deletes something that it has not read, at its present rate
	LossBytes      int64         // that it loses in the topic at its present rate
	LostAnyway     int64         // that it loses with all that the device, or its cap, gives
	BytesPerSecond int64         // present rate in the topic
	Needed         int64         // rate with which it wins what can be won
	Own, Weight    int           // without the boost, and now
	Text           string        // one sentence
	Since          time.Time
}

// RaceEvent tells that a race began or ended.
type RaceEvent struct {
	Over bool
	RaceView
}

const (
	// raceMargin is how much faster than needed a reader should be: rates are estimates.
	raceMargin = 1.25
	// raceShare is the most of a device that racing flows get while others want it, too.
	raceShare = 0.9
	// raceSmooth is the time constant of measured rates: several turns of a busy device (a guess).
	raceSmooth = 10 * time.Second
	// raceWarmUp is how long a reader is watched before its rate counts.
	raceWarmUp = 5 * time.Second
	// raceCalm is how long a race must be without danger to be over.
	raceCalm = 30 * time.Second
	// raceDecay is the part of a boost that is taken back per second once it is not needed.
	raceDecay = 0.1
	// raceMaxGain bounds the correction of a boost that turns out to be too small.
	raceMaxGain = 4
)

// Races finds readers that retention is about to overtake and boosts their flows. Not safe for concurrent use: it shares
// the lock of its Limits.
type Races struct {
	limits   *Limits
	boosting bool
	readers  map[ReaderKey]*pace
	devices  map[string]*pace
	granted  map[deviceFlow]int64 // at the last Tick
	races    map[raceKey]*race
	boosts   map[Subject]*boost
	last     time.Time // Tick
}

type deviceFlow struct {
	device string
	flow   Subject
}

type raceKey struct {
	flow  Subject
	topic string
}

// race is one flow in one topic.
type race struct {
	view   RaceView
	at     time.Time // the last Tick that had one of its readers
	danger time.Time // the last Tick in which one was in danger
	told   bool
}

// boost is what a flow has beyond its own weight.
type boost struct {
	weight float64
	gain   float64
}

// pace measures a rate from a counter.
type pace struct {
	first, at time.Time
	count     int64
	rate      float64
}

func (p *pace) add(count int64, now time.Time) {
	if p.first.IsZero() || count < p.count { // new, or counted anew
		p.rate = 0
		p.first, p.at, p.count = now, now, count
		return
	}
	dt := now.Sub(p.at).Seconds()
	if dt <= 0 {
		return
	}
	sample := float64(max(count-p.count, 0)) / dt
	// At first the plain mean, so that the first second does not weigh ten.
	keep := math.Exp(-dt / min(raceSmooth, max(now.Sub(p.first), time.Second)).Seconds())
	if p.at.Equal(p.first) {
		keep = 0
	}
	p.rate = keep*p.rate + (1-keep)*sample
	p.at, p.count = now, count
}

func (p *pace) known(now time.Time) bool { return now.Sub(p.first) >= raceWarmUp }

// NewRaces watches for limits. boosting false only watches and tells.
func NewRaces(limits *Limits, boosting bool) *Races {
	return &Races{limits: limits, boosting: boosting, readers: map[ReaderKey]*pace{}, devices: map[string]*pace{},
		granted: map[deviceFlow]int64{}, races: map[raceKey]*race{}, boosts: map[Subject]*boost{}}
}

// outlook is what a reader loses at a rate: how much, and when first. In a segment that is deleted under it the reader goes
// on with the next one.
func outlook(deadlines []Deadline, rate float64) (lost int64, first time.Duration) {
	first = -1
	for _, d := range deadlines {
		if short := d.Bytes - lost - int64(rate*max(d.In, 0).Seconds()); short > 0 {
			lost += short
			if first < 0 {
				first = max(d.In, 0)
			}
		}
	}
	return lost, first
}

// needed is the lowest rate that loses nothing of what a reader with at most `most` can keep, and what is lost even so.
func needed(deadlines []Deadline, most float64) (rate float64, lost int64) {
	for _, d := range deadlines {
		in := max(d.In, time.Second).Seconds()
		left := float64(d.Bytes - lost)
		if short := left - most*in; short > 0 {
			lost += int64(short)
			continue
		}
		rate = max(rate, left/in)
	}
	return rate, lost
}

// entrant is a flow on one device in this Tick.
type entrant struct {
	flow   Subject
	own    float64 // weight without boost
	need   float64 // bytes per second, with margin, of its readers in danger, as far as caps let them; 0: none is
	rate   float64 // that those have now
	most   float64 // that it can get
	share  float64 // of the device that it is to get
	weight float64 // that gives it
}

// Tick looks at every racer on every device and puts the boosts in force. Call it about once a second, with every lagging
// reader that has deadlines and every device that is read from. It tells which races began or ended.
func (r *Races) Tick(racers []Racer, devices []DeviceView, now time.Time) []RaceEvent {
	seconds := max(now.Sub(r.last).Seconds(), 0)
	if r.last.IsZero() {
		seconds = 1
	}
	r.last = now
	r.measure(racers, now)
	wanted := map[Subject]float64{}
	for _, d := range devices {
		for _, e := range r.onDevice(d, racers, now) {
			r.correct(e, seconds)
			wanted[e.flow] = max(wanted[e.flow], e.weight)
		}
	}
	r.settle(wanted, seconds, now)
	return r.events(now)
}

// measure keeps the pace of the readers in the race and forgets the others.
func (r *Races) measure(racers []Racer, now time.Time) {
	here := map[ReaderKey]bool{}
	for _, x := range racers {
		p := r.readers[x.Key]
		if p == nil {
			p = &pace{}
			r.readers[x.Key] = p
		}
		p.add(x.ReadBytes, now)
		here[x.Key] = true
	}
	for k := range r.readers {
		if !here[k] {
			delete(r.readers, k)
		}
	}
}

// onDevice judges the racers of one device and computes the weights with which those in danger win.
func (r *Races) onDevice(d DeviceView, racers []Racer, now time.Time) []*entrant {
	p := r.devices[d.Name]
	if p == nil {
		p = &pace{}
		r.devices[d.Name] = p
	}
	p.add(d.ReadBytes, now)
	competing := r.competing(d)
	entrants := map[Subject]*entrant{}
	for _, x := range racers {
		if x.Device != d.Name || len(x.Deadlines) == 0 || !r.readers[x.Key].known(now) || !p.known(now) {
			continue
		}
		flow := x.Key.Flow()
		e := entrants[flow]
		if e == nil {
			e = &entrant{flow: flow, own: float64(r.limits.ownWeight(flow, now)), most: r.most(flow, competing, p.rate, now)}
			entrants[flow] = e
		}
		r.judge(x, e, now)
	}
	var list []*entrant
	rest := 0.0
	for flow := range competing {
		if e := entrants[flow]; e == nil || e.need == 0 {
			rest += float64(r.limits.ownWeight(flow, now))
		}
	}
	for _, e := range entrants {
		if e.need > 0 {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entrant) int {
		return cmp.Or(cmp.Compare(a.need, b.need), cmp.Compare(a.flow.Kind, b.flow.Kind), cmp.Compare(a.flow.Name, b.flow.Name))
	})
	r.share(list, rest, p.rate)
	return list
}

// most is what a flow can get of a device that gives so much.
func (r *Races) most(flow Subject, competing map[Subject]bool, device float64, now time.Time) float64 {
	most := device
	switch {
	case !competing[flow]: // what it reads is resident: the device does not limit it
		most = math.Inf(1)
	case len(competing) > 1:
		most *= raceShare
	}
	if limit := r.limits.flowCap(flow, now); limit > 0 {
		most = min(most, float64(limit))
	}
	return most
}

// competing are the flows that want the device now: something queued or in flight, or read since the last Tick.
func (r *Races) competing(d DeviceView) map[Subject]bool {
	out := map[Subject]bool{}
	for _, f := range d.Flows {
		if f.Kind != KindRead {
			continue
		}
		k := deviceFlow{d.Name, f.Flow}
		if before, known := r.granted[k]; f.Queued+f.InFlight > 0 || known && f.GrantedBytes > before {
			out[f.Flow] = true
		}
		r.granted[k] = f.GrantedBytes
	}
	for k := range r.granted {
		if k.device == d.Name && !slices.ContainsFunc(d.Flows, func(f FlowView) bool { return f.Flow == k.flow }) {
			delete(r.granted, k)
		}
	}
	return out
}

// judge predicts one reader's losses and adds what it needs to its flow's. Losing nothing, by a margin, is no danger.
func (r *Races) judge(x Racer, e *entrant, now time.Time) {
	rate := r.readers[x.Key].rate
	lost, first := outlook(x.Deadlines, rate/raceMargin)
	key := raceKey{e.flow, x.Key.Topic}
	open := r.races[key]
	if lost == 0 && open == nil {
		return
	}
	if open == nil {
		key.topic = strings.Clone(key.topic)
		open = &race{}
		open.view.Flow, open.view.Topic, open.view.Since = e.flow, key.topic, now
		r.races[key] = open
	}
	if !open.at.Equal(now) { // the first of its partitions in this Tick
		v := open.view
		open.at, open.view = now, RaceView{Flow: v.Flow, Topic: v.Topic, Since: v.Since, Countdown: -1}
	}
	v, most := &open.view, e.most
	if limit := r.limits.readerCap(x.Key, now); limit > 0 {
		most = min(most, float64(limit))
	}
	rateNeeded, anyway := needed(x.Deadlines, most)
	loss, _ := outlook(x.Deadlines, rate)
	v.LossBytes += loss
	v.LostAnyway += anyway
	v.BytesPerSecond += int64(rate)
	v.Needed += int64(rateNeeded)
	if lost == 0 {
		return
	}
	open.danger = now
	e.need += max(min(rateNeeded*raceMargin, most), 1)
	e.rate += rate
	if v.Countdown < 0 || first < v.Countdown {
		v.Countdown, v.Partition = first, x.Key.Partition
	}
}

// share gives the flows in danger, least need first, the share of the device that they need, up to raceShare together:
// that way most of them win. The first that does not fit gets what is left. rest is the weight of the others.
func (r *Races) share(list []*entrant, rest, capacity float64) {
	if capacity <= 0 {
		return
	}
	left := raceShare
	for _, e := range list {
		gain := 1.0
		if b := r.boosts[e.flow]; b != nil {
			gain = b.gain
		}
		e.share = min(min(e.need, e.most)*gain/capacity, left)
		left -= e.share
	}
	var scale float64
	switch {
	case rest > 0:
		scale = rest / (1 - raceShare + left)
	case len(list) > 1: // nobody else: only their proportion counts
		scale = 10 * DefaultWeight
	}
	for _, e := range list {
		e.weight = min(max(math.Ceil(e.share*scale), e.own), MaxWeight)
	}
}

// correct makes a boost stronger while it does not do what it was computed for, and weaker again when it does.
func (r *Races) correct(e *entrant, seconds float64) {
	b := r.boosts[e.flow]
	switch {
	case b == nil:
	case e.rate < min(e.need, e.most)*0.95:
		b.gain = min(b.gain*math.Pow(1.02, seconds), raceMaxGain)
	default:
		b.gain = max(b.gain*math.Pow(0.98, seconds), 1)
	}
}

// settle moves the boosts: up at once, down slowly, so that a race that is just won is not lost again.
func (r *Races) settle(wanted map[Subject]float64, seconds float64, now time.Time) {
	for flow, w := range wanted {
		own := float64(r.limits.ownWeight(flow, now))
		b := r.boosts[flow]
		if b == nil && w > own && r.boosting {
			b = &boost{gain: 1}
			r.boosts[Subject{flow.Kind, strings.Clone(flow.Name)}] = b
		}
		if b != nil {
			b.weight = max(b.weight, w)
		}
	}
	in := map[Subject]int64{}
	for flow, b := range r.boosts {
		own := float64(r.limits.ownWeight(flow, now))
		if target := max(wanted[flow], own); b.weight > target {
			b.weight = max(target, b.weight-max(1, (b.weight-target)*min(1, raceDecay*seconds)))
		}
		if b.weight <= own {
			delete(r.boosts, flow)
			continue
		}
		in[flow] = int64(math.Ceil(b.weight))
	}
	r.limits.boosts = in
}

// events closes the races that have been calm for long enough, or whose reader is gone, and tells what began and ended.
func (r *Races) events(now time.Time) []RaceEvent {
	var out []RaceEvent
	for k, x := range r.races {
		v := &x.view
		v.Own, v.Weight = int(r.limits.ownWeight(k.flow, now)), int(r.limits.weight(k.flow, now))
		v.Text = r.text(v, x.danger.Equal(now))
		if !x.at.Equal(now) {
			v.Countdown, v.Text = -1, "has nothing before it any more that retention is about to delete, or has stopped reading"
		}
		switch {
		case !x.told:
			x.told = true
			out = append(out, RaceEvent{RaceView: *v})
		case !x.at.Equal(now) || now.Sub(x.danger) >= raceCalm:
			delete(r.races, k)
			out = append(out, RaceEvent{Over: true, RaceView: *v})
		}
	}
	slices.SortFunc(out, func(a, b RaceEvent) int { return compareRaces(a.RaceView, b.RaceView) })
	return out
}

func (r *Races) text(v *RaceView, danger bool) string {
	if !danger {
		if v.Weight > v.Own {
			return fmt.Sprintf("keeps ahead of retention; its weight of %s goes back to %s", weightText(v.Weight), weightText(v.Own))
		}
		return "keeps ahead of retention"
	}
	s := fmt.Sprintf("will lose %s of %s-%d in %s at its present %s/s, needs %s/s", Bytes(max(v.LossBytes, 1)), v.Topic, v.Partition,
		v.Countdown.Round(time.Second), Bytes(v.BytesPerSecond), Bytes(v.Needed))
	if v.LossBytes == 0 {
		s = fmt.Sprintf("is barely ahead of retention in %s-%d (%s) at its present %s/s, needs %s/s", v.Topic, v.Partition,
			v.Countdown.Round(time.Second), Bytes(v.BytesPerSecond), Bytes(v.Needed))
	}
	switch {
	case v.Weight > v.Own:
		s += fmt.Sprintf(": boosted from weight %s to %s", weightText(v.Own), weightText(v.Weight))
	case !r.boosting:
		s += ": not boosted, throttle.retention_race is off"
	default:
		s += ": not boosted, more weight would not make it faster"
	}
	if v.LostAnyway > 0 {
		s += fmt.Sprintf("; %s are lost with all that it can get", Bytes(v.LostAnyway))
	}
	return s
}

// weightText writes a weight as people set it, around 1.
func weightText(w int) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(w)/DefaultWeight), "0"), ".")
}

// Snapshot lists the races, most urgent first. The slice is the caller's.
func (r *Races) Snapshot() []RaceView {
	out := make([]RaceView, 0, len(r.races))
	for _, x := range r.races {
		out = append(out, x.view)
	}
	slices.SortFunc(out, compareRaces)
	return out
}

// compareRaces: a countdown below 0 is no danger any more.
func compareRaces(a, b RaceView) int {
	return cmp.Or(cmp.Compare(uint64(a.Countdown), uint64(b.Countdown)), cmp.Compare(a.Flow.Kind, b.Flow.Kind),
		cmp.Compare(a.Flow.Name, b.Flow.Name), cmp.Compare(a.Topic, b.Topic))
}
