package admission

import (
	"fmt"
	"math"
	"time"
)

// How the budget moves. The figures were chosen by the scenarios in testdata/controller_*.txt: a step of latency ×20 halves it
// within 1 s and is forgotten within 10 s, and a steady state stays within ±20 %.
const (
	growFast   = 1.15  // per 100 ms, far from the last harmful rate: ×4 per second
	growNew    = 1.05  // at rates that were never tried, on a device that is no rotating one
	growEasy   = 1.01  // … once cold reads occupy it for more than calmBusy, while the medians stay what they are
	growSlow   = 1.003 // … while they rise
	easeBy     = 0.98  // while the real-time path is strained
	growSteady = 0.01  // of the harmful rate per 100 ms, close to it
	growProbe  = 0.005
	fastUntil  = 0.70 // of the last harmful rate
	holdAt     = 0.95
	forgetAt   = 1.20 // a rate that was harmful and is harmless by so much says nothing any more

	cutGrave, cutMild   = 0.5, 0.88
	waitGrave, waitMild = 300 * time.Millisecond, time.Second // until the effect of a cut can be seen, and until more is cut for little
	calmFor             = 500 * time.Millisecond              // without harm before the budget grows
	patienceMin         = 4 * time.Second                     // below the harmful rate before it is tried again …
	patienceMax         = time.Minute                         // … doubled each time that it was harmful again

	strikeFor = 30 * time.Second // harm again within it, at a rate that had been harmless: that rate is harmful now

	activeFor = 2 * time.Second        // after its last sample the real-time path counts as at work
	quietFor  = time.Second            // with next to no cold reads before the path counts as undisturbed
	rateOver  = 400 * time.Millisecond // time constant of the measured rate
	unheldFor = 5 * time.Second        // before a budget that nobody needs shrinks towards what is read
	restAfter = 5 * time.Second        // without cold reads the next ones begin with less
	learnFor  = 5 * time.Second        // at the floor, at most, while there is no undisturbed level yet
	maxGap    = 5 * time.Second        // between ticks: the machine was asleep, and the sample says nothing

	tailTolerance = 0.10                 // by which a p99 may rise …
	spinTolerance = 0.40                 // … on a disk where every cold read is a seek between two writes
	latencySlack  = time.Millisecond     // by which it may rise whatever it is: nobody feels less …
	spinSlack     = 5 * time.Millisecond // … where a seek takes 10 ms
	spreadShare   = 0.9                  // of the undisturbed windows: what so many stay below is no harm
	cpuSlack      = 0.10                 // of the time
	missSlack     = 2.0                  // a second
	deviceFactor  = 10
	deviceSlack   = 20 * time.Millisecond
	graveShare    = 0.10 // of the samples of a second above the threshold …
	graveLately   = 0.30 // … or of a quarter of one
	farFactor     = 3    // times the threshold: such a sample counts three times
	graveCPU      = 0.30
	blameShare    = 0.25 // of all cold bytes, from which a device answers for harm to the whole machine
	slotBytes     = 64 << 20
)

// Bytes per second below which cold reads are not what makes cores scarce: some 3 % of one. Of a rotating disk it is what one disk can give at
// most: a tenth of a core (measured: 0.2 to 0.6 core-seconds per GB, with a reader on the same machine). A cut there would give the cores
// next to nothing, and take half of the disk; who is hurt all the same, fetches show.
const (
	cheapRate = 64 << 20
	cheapDisk = 256 << 20
)

// cheapBusy is the share of the time in which cold reads occupy a device, below which they are not what makes its syncs slow: a
// sync meets one in one case of ten, and waits for that one only. Devices that others share (a cloud's SSD: syncs of 4 to 20 ms p99
// from second to second, with no cold read near) would hold a backlog at the floor for ever otherwise. Not on a rotating disk, where
// a read costs two seeks.
const (
	cheapBusy = 0.10
	cheapAim  = 0.7 // of it, so that chance seldom passes it
)

// On a device that serves many at once latencies rise gradually, long before it gives all it can, and the harm that can be proven is
// proven late: from calmBusy on the budget grows slowly and looks at the medians (gauge.strain) at each step. With bounds of 15 and 30 % in
// place of 5 and 10, and medians as bounds of their buckets, 3 to 6 % apart, the p99 of acks was up to 1.26 times undisturbed on an SSD (docs/benchmarks.md, S).
const (
	calmBusy   = 0.15
	strainNone = 0.03 // of the undisturbed median
	strainHold = 0.05 // no growth beyond …
	strainEase = 0.10 // … and less from here on
)

// DefaultFloor is what a backlog gets whatever it does to others, in bytes per second.
const DefaultFloor = 4 << 20

// ControllerConfig describes one device to its Controller. The zero value of a field means its default.
type ControllerConfig struct {
	Name string // for people
	// Slots is the scheduler's MaxInFlight; the controller gives that or less. Default 8.
	Slots int
	// Floor is the least budget, in bytes per second. Default DefaultFloor. Ceiling is the most; 0: none.
	Floor, Ceiling int64
	// ProtectP99 fixes what the p99 of produce, sync and real-time fetch may reach. 0: 10 % or a millisecond above the
	// undisturbed level, 40 % or five milliseconds on a rotating disk, and what the undisturbed level reaches itself at times.
	ProtectP99 time.Duration
	Rotating   bool
}

func (c ControllerConfig) withDefaults() ControllerConfig {
	setDefault(&c.Slots, 8)
	setDefault(&c.Floor, DefaultFloor)
	return c
}

// Sample is what happened on a device since the last tick.
type Sample struct {
	// Latency counts by latency signal; nil or empty where the device has no part in it.
	Latency [NumLatencySignals]*Latencies
	// Stuck is how long nothing has come to an end although something is on its way. 0: nothing is, or things move.
	Stuck [NumLatencySignals]time.Duration
	// CPUWait is the share of the time in which some task waited for a core; negative: not known.
	CPUWait float64
	// Misses and EvictedPages happened anywhere on the machine.
	Misses, EvictedPages int64
	// ColdBytes is what cold reads and migrations took from this device, AllColdBytes from all devices.
	ColdBytes, AllColdBytes int64
	Demand                  bool // cold reads are queued or in flight
	Held                    bool // some had to wait for the budget
}

// ControllerState is where a controller stands. The set is closed: it is a metric label.
type ControllerState uint8

// The states.
const (
	StateUnlimited ControllerState = iota // nobody to protect
	StateIdle                             // no cold reads
	StateLearning                         // at the floor until there is an undisturbed level
	StateOpen                             // the budget is more than what is asked for
	StateGrowing                          // towards the last harmful rate, or looking for one
	StateHolding                          // just below the last harmful rate
	StateReduced                          // cut a moment ago
	StateFloor                            // harm, and nothing left to take
	StateCeiling                          // as much as the configuration allows
	NumControllerStates
)

var controllerWords = []string{"unlimited", "idle", "learning", "open", "growing", "holding", "reduced", "floor", "ceiling"}

// String is the state's word in metrics and for people.
func (s ControllerState) String() string { return word(controllerWords, int(s)) }

// Budget is what a device may do for cold reads.
type Budget struct {
	BytesPerSecond int64 // 0: unlimited
	Slots          int
	State          ControllerState
}

// Controller finds the cold budget of one device by the harm that cold reads do: growth while the real-time path is
// well, a cut when it is hurt. Pure: driven by Tick, which is given the time. Not safe for concurrent use.
type Controller struct {
	cfg    ControllerConfig
	gauges [NumSignals]gauge

	started  time.Time
	last     time.Time
	at       time.Duration // last tick since started
	limit    float64       // bytes per second; 0: unlimited
	rate     float64       // measured
	busy     float64       // cold reads on their way, on average; measured
	state    ControllerState
	reason   string
	harmful  float64 // last rate that was seen to harm; 0: none known
	grown    bool    // since the last cut: the next harm is a new story
	patience time.Duration
	culprit  Signal

	activeAt, loudAt, demandAt, heldAt, activeSince time.Duration
	active, everActive                              bool
	harmAt, waitUntil, mildUntil, surpriseAt        time.Duration
	cuts                                            [NumSignals]int64
}

// NewController makes a controller that holds nothing back. Errors: ErrConfig.
func NewController(cfg ControllerConfig) (*Controller, error) {
	cfg = cfg.withDefaults()
	for _, err := range []error{
		within("Slots", cfg.Slots, 1, 4096),
		within("Floor", cfg.Floor, MinCapBytesPerSecond, 1<<50),
		within("ProtectP99", cfg.ProtectP99, 0, time.Hour),
		rate("Ceiling", cfg.Ceiling),
	} {
		if err != nil {
			return nil, fmt.Errorf("controller of %s: %w", cfg.Name, err)
		}
	}
	if cfg.Ceiling > 0 {
		cfg.Floor = min(cfg.Floor, cfg.Ceiling)
	}
	c := &Controller{cfg: cfg, patience: patienceMin, limit: float64(cfg.Ceiling), reason: reasonUnlimited}
	for i := range c.gauges {
		g := &c.gauges[i]
		g.signal, g.need, g.tolerance, g.slack = Signal(i), 1, tailTolerance, latencySlack.Seconds()
		if cfg.Rotating {
			g.tolerance, g.slack = spinTolerance, spinSlack.Seconds()
		}
		if g.signal == SignalProduce || g.signal == SignalSync || g.signal == SignalFetch {
			g.target = cfg.ProtectP99
		}
	}
	return c, nil
}

const (
	reasonUnlimited = "no producer and no real-time reader is at work: nothing to protect"
	reasonIdle      = "no cold reads"
	reasonOpen      = "nothing is hurt and nothing held back: the readers or the device set the pace"
	reasonLooking   = "nothing is hurt: looking for more"
)

// Tick takes what happened since the last tick and answers the budget from now on. Call it every 100 ms while there are cold
// reads, and about once a second otherwise, so that the undisturbed level is known when they come. A clock that stands
// still or runs back changes nothing.
func (c *Controller) Tick(now time.Time, s *Sample) Budget {
	if c.started.IsZero() {
		c.started, c.last = now, now
		return c.Budget()
	}
	dt := now.Sub(c.last)
	if dt <= 0 {
		return c.Budget()
	}
	c.last, c.at = now, now.Sub(c.started)
	if dt > maxGap {
		return c.Budget()
	}
	c.measure(s, dt)
	c.decide(s, dt)
	return c.Budget()
}

// Budget is the answer of the last tick.
func (c *Controller) Budget() Budget {
	b := Budget{BytesPerSecond: int64(c.limit), Slots: c.cfg.Slots, State: c.state}
	if c.limit > 0 && c.state != StateUnlimited {
		b.Slots = min(c.cfg.Slots, 1+int(2*c.busy), 1+int(c.limit/slotBytes))
	}
	return b
}

// measure brings the gauges up to date.
func (c *Controller) measure(s *Sample, dt time.Duration) {
	c.rate += (float64(s.ColdBytes)/dt.Seconds() - c.rate) * (1 - math.Exp(-dt.Seconds()/rateOver.Seconds()))
	c.busy += (occupied(s, dt) - c.busy) * (1 - math.Exp(-dt.Seconds()/rateOver.Seconds()))
	if c.rate > 2*float64(min(c.cfg.Floor, DefaultFloor)) && !c.cheap() {
		c.loudAt = c.at
	}
	quiet := c.at-c.loudAt >= quietFor || c.loudAt == 0
	if s.Demand || s.ColdBytes > 0 {
		c.demandAt = c.at
	}
	if s.Held {
		c.heldAt = c.at
	}
	for i := range NumLatencySignals {
		if Signal(i) != SignalSched {
			c.gauges[i].take(s.Latency[i], s.Stuck[i], -1, quiet, c.at, dt)
		}
	}
	for _, sig := range pathSignals {
		if g := &c.gauges[sig]; g.seen && g.seenAt == c.at {
			c.activeAt, c.everActive = c.at, true
		}
	}
	active := c.everActive && c.at-c.activeAt < activeFor
	if active && !c.active {
		c.activeSince = c.at
	}
	if c.active = active; !active {
		return // an idle machine's figures are not the undisturbed ones of a path at work
	}
	c.gauges[SignalSched].take(s.Latency[SignalSched], 0, -1, quiet, c.at, dt)
	c.gauges[SignalCPU].take(nil, 0, s.CPUWait, quiet, c.at, dt)
	c.gauges[SignalMiss].take(nil, 0, float64(s.Misses)/dt.Seconds(), quiet, c.at, dt)
	c.gauges[SignalEvicted].take(nil, 0, float64(s.EvictedPages)/dt.Seconds(), quiet, c.at, dt)
}

// pathSignals show the real-time path itself: with any of them it is at work.
var pathSignals = [...]Signal{SignalProduce, SignalSync, SignalFetch}

// blamed tells whether harm by this signal can be this device's doing. What is measured on the whole machine is answered for by
// the devices that give a good part of the cold bytes.
func (c *Controller) blamed(sig Signal, s *Sample) bool {
	switch sig {
	case SignalDevice: // a slow device alone hurts nobody
		return c.at-c.gauges[SignalSync].seenAt < activeFor && c.gauges[SignalSync].seen
	case SignalSched, SignalCPU:
		if c.cfg.ProtectP99 > 0 {
			return false // the target is about what the path itself shows
		}
		if c.rate < c.cheapRate() {
			return false
		}
	case SignalProduce, SignalSync, SignalFetch:
		if c.cheap() {
			return false
		}
	}
	return s.AllColdBytes == 0 || float64(s.ColdBytes) >= blameShare*float64(s.AllColdBytes)
}

// cheapRate is up to which cold reads are not blamed for cores that are scarce, in bytes per second.
func (c *Controller) cheapRate() float64 {
	if c.cfg.Rotating {
		return cheapDisk
	}
	return cheapRate
}

// cheap: so little that the real-time path cannot feel it.
func (c *Controller) cheap() bool { return !c.cfg.Rotating && c.busy < cheapBusy }

// occupied is how many cold reads were on their way, on average. One that never ends counts as one.
func occupied(s *Sample, dt time.Duration) float64 {
	if s.Stuck[SignalDevice] >= dt {
		return 1
	}
	if s.Latency[SignalDevice] == nil {
		return 0
	}
	var sum time.Duration
	for i, n := range s.Latency[SignalDevice] {
		if n != 0 {
			sum += time.Duration(n) * LatencyBound(i)
		}
	}
	return sum.Seconds() / dt.Seconds()
}

// worst is the signal whose harm is proven, by the largest score in terms of what it needs.
func (c *Controller) worst(s *Sample) (worst *gauge, grave bool) {
	most := 0.0
	for i := range c.gauges {
		g := &c.gauges[i]
		hurt, bad := g.hurts()
		if !hurt || !c.blamed(g.signal, s) {
			continue
		}
		grave = grave || bad
		if g.score/g.need > most {
			worst, most = g, g.score/g.need
		}
	}
	return worst, grave
}

// uneasy: some signal is on its way to harm.
func (c *Controller) uneasy(s *Sample) bool {
	for i := range c.gauges {
		g := &c.gauges[i]
		if g.known && g.score > g.need/2 && c.blamed(g.signal, s) {
			return true
		}
	}
	return false
}

// start is where a budget begins that has no history.
func (c *Controller) start() float64 { return 4 * float64(c.cfg.Floor) }

func (c *Controller) decide(s *Sample, dt time.Duration) {
	if !c.active {
		c.limit = float64(c.cfg.Ceiling)
		c.be(StateUnlimited, reasonUnlimited)
		c.settle()
		return
	}
	if c.limit == 0 || c.limit == float64(c.cfg.Ceiling) && c.state == StateUnlimited { // the real-time path has begun to work
		c.limit = c.within(max(c.start(), 1.1*c.rate))
		c.be(StateOpen, reasonOpen)
	}
	if c.at-c.demandAt >= restAfter || c.demandAt == 0 {
		c.rest()
		return
	}
	if c.learning() {
		c.limit = float64(c.cfg.Floor)
		c.be(StateLearning, "the undisturbed level of producers and real-time readers is not known yet: the floor until it is")
		return
	}
	g, grave := c.worst(s)
	switch {
	case c.at < c.waitUntil: // what is seen now began before the cut
		c.settle()
		c.harmAt = c.at
	case g != nil && !grave && c.at < c.mildUntil:
		c.harmAt = c.at
	case g != nil:
		c.harmAt = c.at
		c.cut(g, grave)
	case c.strange(dt):
		c.harmAt = c.at
	case c.strained(dt):
	case c.at-c.harmAt < calmFor || c.uneasy(s):
	default:
		c.grow(s, dt)
	}
}

// strange tells whether the path is hurt, by something that cannot be cold reads, for they hardly occupy the device. The budget then
// grows as far as that stays so.
func (c *Controller) strange(dt time.Duration) bool {
	if !c.cheap() {
		return false
	}
	for _, sig := range pathSignals {
		g := &c.gauges[sig]
		if hurt, _ := g.hurts(); !hurt {
			continue
		}
		if most := c.floor(sig); c.limit < most && c.at-c.heldAt <= time.Second {
			c.limit = c.within(min(c.limit*math.Pow(growFast, dt.Seconds()*10), most))
		}
		c.be(StateHolding, fmt.Sprintf("%s, but cold reads occupy the device %.0f %% of the time: it is not their doing", g.describe(), 100*c.busy))
		return true
	}
	return false
}

// strained tells whether the medians of the real-time path have risen so far that more cold reads would hurt it, and takes some
// away where that is more than a little. Where a head seeks, medians rise with the first cold read: there only harm counts.
func (c *Controller) strained(dt time.Duration) bool {
	if c.cfg.Rotating || c.cfg.ProtectP99 > 0 || c.cheap() {
		return false
	}
	worst := c.mostStrained()
	if worst.strain() < strainHold {
		return false
	}
	from := c.limit
	if c.at-c.heldAt > time.Second {
		from = min(from, c.rate)
	}
	if floor := c.floor(worst.signal); worst.strain() > strainEase && from > floor {
		c.limit = c.within(max(floor, from*math.Pow(easeBy, dt.Seconds()*10)))
	}
	c.be(StateHolding, fmt.Sprintf("%s median %s against %s undisturbed: more would hurt its tail", worst.signal,
		people(worst.lately.median().Seconds()), people(worst.body)))
	return true
}

// mostStrained is the worse off of producers and real-time readers. (A sync waits for every cold read that is on its way and
// its median rises at once; what an ack feels of that is little.)
func (c *Controller) mostStrained() *gauge {
	p, f := &c.gauges[SignalProduce], &c.gauges[SignalFetch]
	if !p.seen || c.at-p.seenAt >= activeFor || f.seen && c.at-f.seenAt < activeFor && f.strain() > p.strain() {
		return f
	}
	return p
}

// learning: a part of the real-time path is at work and has no undisturbed level yet.
func (c *Controller) learning() bool {
	for _, sig := range pathSignals {
		g := &c.gauges[sig]
		if g.seen && c.at-g.seenAt < activeFor && !g.known && c.at-max(g.sinceAt, c.activeSince) < learnFor {
			return true
		}
	}
	return false
}

// rest is for when there are no cold reads: the next ones begin with what was harmless, but not with all of it.
func (c *Controller) rest() {
	c.settle()
	if c.state == StateIdle {
		return
	}
	limit := c.limit / 2
	if c.harmful > 0 {
		limit = max(limit, fastUntil*c.harmful)
	}
	c.limit = c.within(max(min(limit, c.limit), min(c.start(), c.limit)))
	c.be(StateIdle, reasonIdle)
}

// settle forgets the scores: they are about another budget.
func (c *Controller) settle() {
	for i := range c.gauges {
		c.gauges[i].score = 0
	}
}

// floor is below what the signal cannot take the budget.
func (c *Controller) floor(sig Signal) float64 {
	floor := float64(c.cfg.Floor)
	if (sig == SignalProduce || sig == SignalSync || sig == SignalFetch) && !c.cfg.Rotating && c.busy > 0 {
		floor = max(floor, cheapAim*cheapBusy/c.busy*c.rate)
	}
	return floor
}

// cut takes away.
func (c *Controller) cut(g *gauge, grave bool) {
	c.culprit = g.signal
	from := c.limit
	held := c.at-c.heldAt <= time.Second
	if !held {
		from = min(c.limit, max(1.1*c.rate, float64(c.cfg.Floor)))
	}
	floor := c.floor(g.signal)
	if from <= floor {
		c.limit = from
		c.be(StateFloor, fmt.Sprintf("%s: the budget stays at its floor %s/s", g.describe(), Bytes(int64(from))))
		c.waitUntil = c.at + waitGrave
		c.settle()
		return
	}
	harmless := c.state == StateHolding || from < fastUntil*c.harmful
	if harmless && c.harmful > 0 && c.at-c.surpriseAt > strikeFor {
		c.surpriseAt = c.at // chance, or somebody else's doing, unless it comes again
	} else if c.grown || c.harmful == 0 {
		if c.harmful > 0 && from > 0.8*c.harmful && from < 1.25*c.harmful {
			c.patience = min(2*c.patience, patienceMax)
		} else {
			c.patience = patienceMin
		}
		c.harmful = max(from, c.harmful/2) // harm at far less than ever may be chance; again, and it is known
	}
	c.grown = false
	by := cutMild
	if grave {
		by = cutGrave
	}
	to := from * by
	if g.signal == SignalSched || g.signal == SignalCPU {
		to = max(to, min(from, 0.9*c.cheapRate()))
	}
	to = max(to, floor)
	c.limit = c.within(to)
	c.waitUntil, c.mildUntil = c.at+waitGrave, c.at+waitMild
	c.cuts[g.signal]++
	c.be(StateReduced, fmt.Sprintf("%s: budget %s/s → %s/s", g.describe(), Bytes(int64(from)), Bytes(int64(c.limit))))
	c.settle()
}

// grow gives more, when more is asked for.
func (c *Controller) grow(s *Sample, dt time.Duration) {
	steps := dt.Seconds() * 10
	if c.at-c.heldAt > time.Second {
		if c.at-c.heldAt > unheldFor {
			if most := max(2*c.rate, c.start()); c.limit > most {
				c.limit = max(most, c.limit*math.Pow(0.99, steps))
			}
		}
		c.be(StateOpen, reasonOpen)
		return
	}
	before := c.limit
	switch {
	case c.harmful == 0 || c.limit < fastUntil*c.harmful:
		pace := growFast
		switch {
		case c.cfg.Rotating || c.harmful > 0 && c.limit < fastUntil*c.harmful:
		case c.busy < calmBusy:
			pace = growNew
		case c.mostStrained().strain() < strainNone:
			pace = growEasy
		default:
			pace = growSlow
		}
		c.limit *= math.Pow(pace, steps)
		if c.harmful > 0 {
			c.limit = min(c.limit, fastUntil*c.harmful)
		}
		c.be(StateGrowing, reasonLooking)
	case c.limit < holdAt*c.harmful:
		c.limit = min(c.limit+growSteady*c.harmful*steps, holdAt*c.harmful)
		c.be(StateGrowing, reasonLooking)
	case c.at-c.harmAt < c.patience:
		c.be(StateHolding, fmt.Sprintf("%s/s did harm a moment ago (%s): just below it for %s, then a try",
			Bytes(int64(c.harmful)), c.culprit, c.patience))
	default:
		c.limit += growProbe * c.harmful * steps
		c.be(StateGrowing, reasonLooking)
		if c.limit > forgetAt*c.harmful {
			c.harmful, c.patience = 0, patienceMin
		}
	}
	if c.limit = c.within(c.limit); c.limit > before {
		c.grown = true
	}
	if c.cfg.Ceiling > 0 && int64(c.limit) >= c.cfg.Ceiling {
		c.be(StateCeiling, fmt.Sprintf("nothing is hurt: the configured ceiling of %s/s", Bytes(c.cfg.Ceiling)))
	}
}

func (c *Controller) within(limit float64) float64 {
	limit = max(limit, float64(c.cfg.Floor))
	if c.cfg.Ceiling > 0 {
		limit = min(limit, float64(c.cfg.Ceiling))
	}
	return min(limit, 1<<50)
}

func (c *Controller) be(state ControllerState, reason string) { c.state, c.reason = state, reason }

// describe is a signal's harm in figures.
func (g *gauge) describe() string {
	switch g.signal {
	case SignalCPU:
		return fmt.Sprintf("some task waits for a core %.0f %% of the time against %.0f %% undisturbed", 100*g.level, 100*g.base)
	case SignalMiss:
		return fmt.Sprintf("%.0f real-time reads a second miss the page cache against %.0f undisturbed", g.level, g.base)
	case SignalEvicted:
		return fmt.Sprintf("%.0f pages of hot windows a second are evicted against %.0f undisturbed", g.level, g.base)
	case SignalDevice:
		return fmt.Sprintf("a cold read takes the device %s against %s undisturbed", people(g.measured()), people(g.base))
	case SignalSched:
		return fmt.Sprintf("goroutines wait for a core, p99 %s against %s undisturbed", people(g.measured()), people(g.base))
	}
	return fmt.Sprintf("%s p99 %s against %s undisturbed", g.signal, people(g.measured()), people(g.base))
}

// people renders seconds with two figures: 8.4 ms.
func people(s float64) string {
	switch {
	case s >= 0.9995:
		return fmt.Sprintf("%.2g s", s)
	case s >= 0.00995:
		return fmt.Sprintf("%.0f ms", s*1e3)
	case s >= 0.000995:
		return fmt.Sprintf("%.1f ms", s*1e3)
	}
	return fmt.Sprintf("%.0f µs", s*1e6)
}

// SignalView is one signal for people; seconds, a share or a number per second, as the signal has it.
type SignalView struct {
	Signal      Signal
	Known       bool    // there is an undisturbed level
	Undisturbed float64 // 0 unless known, as Limit
	Limit       float64 // what it may reach
	Measured    float64 // about the last half second
	Cuts        int64   // of the budget, for this signal
}

// ControllerView is one controller for people.
type ControllerView struct {
	Budget  Budget
	Reason  string
	Harmful int64 // last rate that did harm, bytes per second; 0: none known
	Signals []SignalView
}

// View is the controller as it is now. What it holds is the caller's.
func (c *Controller) View() ControllerView {
	v := ControllerView{Budget: c.Budget(), Reason: c.reason, Harmful: int64(c.harmful)}
	for i := range c.gauges {
		g := &c.gauges[i]
		if !g.seen {
			continue
		}
		sv := SignalView{Signal: g.signal, Known: g.known, Measured: g.measured(), Cuts: c.cuts[i]}
		if g.known {
			sv.Undisturbed, sv.Limit = g.base, g.threshold
		}
		v.Signals = append(v.Signals, sv)
	}
	return v
}

// SetBudget brings a budget in force from now on; debts stay. The burst is 100 ms of the rate, however small: a budget that
// is small because of harm must not come in heaps.
func (s *Scheduler) SetBudget(b Budget, now time.Time) {
	s.cfg.MaxInFlight = max(b.Slots, 1)
	if b.BytesPerSecond == s.cfg.BytesPerSecond {
		return
	}
	s.cfg.BytesPerSecond = b.BytesPerSecond
	s.cfg.BurstBytes = max(b.BytesPerSecond/10, 1)
	s.device.setRate(b.BytesPerSecond, s.cfg.BurstBytes, now)
}

// Load is what was granted since the start in bytes, reads and migrations, and whether anything is queued or in flight.
func (s *Scheduler) Load() (granted int64, busy bool) {
	return s.granted[KindRead] + s.granted[KindMigration], s.queued > s.refillsQueued() || s.slotsUsed() > 0
}

func (s *Scheduler) refillsQueued() (n int) {
	for _, f := range s.rings[KindRefill].flows {
		n += f.queued
	}
	return n
}

// HeldSince tells whether a request had to wait for the device's tokens after t.
func (s *Scheduler) HeldSince(t time.Time) bool { return s.deviceShort.After(t) }
