package admission

import (
	"fmt"
	"strings"
	"time"
)

// RequestKind is the class of work a device is asked for. A lower class yields to a higher one.
type RequestKind uint8

// The kinds. A migration yields to reads. A refill goes before both: a real-time reader has missed the page cache and waits; it
// has no budget and no cap, and slots of its own.
const (
	KindRead RequestKind = iota
	KindMigration
	KindRefill
	numRequestKinds
)

// String is the kind's word in metrics.
func (k RequestKind) String() string { return word([]string{"read", "migration", "refill"}, int(k)) }

// MaxRequestBytes bounds one request; larger ones are an error of the caller.
const MaxRequestBytes = 1 << 30

// keepCredit is for how long a flow whose queue ran empty may go on with its turn: the round trip of a consumer that asks
// for one chunk at a time (a guess that covers a slow client on a local network).
const keepCredit = 50 * time.Millisecond

// minTurnCost is what a request takes from its flow's turn at least, however little it read: it had a slot and a seek, and
// requests that fail at once must not make a turn endless.
const minTurnCost = 64 << 10

// pressEarly is how much earlier than computed a capped flow's request has to go: devices are not steady and timers late, and another
// flow may have to go, too.
const pressEarly = 50 * time.Millisecond

// Request is one cold read, or one step of a migration, on one device.
type Request struct {
	ID       uint64 // unique among those queued and in flight
	Kind     RequestKind
	Flow     Subject // ReaderKey.Flow(); for a migration any Group or Client subject
	Client   string
	Topic    string
	Bytes    int64  // 1..MaxRequestBytes; what it will take from the device
	File     uint64 // which file, so that a rotating disk can tell what follows on what; 0: none
	Position int64  // of the first byte: on the device where that is known, else in the file; for order on a rotating disk
}

// Scheduler shares one device between flows: deficit round robin on bytes, under the device's rate and slots and the caps
// of its Limits. It is driven by its caller, which asks Next when something was queued, when something is Done, and
// when the wait that Next returned is over. Not safe for concurrent use; schedulers with the same Limits share a lock.
type Scheduler struct {
	cfg    DeviceConfig
	limits *Limits
	device bucket
	rings  [numRequestKinds]ring
	byID   map[uint64]*entry
	clock  seriesClock
	pass   pass  // rotating disks
	gate   *Gate // nil without

	queued        int
	inFlight      [numRequestKinds]int
	inFlightBytes int64
	work          workSpeed
	granted       [numRequestKinds]int64
	shared        int64 // bytes that flows got from reads of others
	// migrationDue is what migrations may read although reads wait: their share of what reads got.
	migrationDue int64
	// globalShort and deviceShort say until when reads had to wait for these tokens last.
	globalShort, deviceShort time.Time
}

// NewScheduler makes an idle scheduler. Errors: ErrConfig.
func NewScheduler(cfg DeviceConfig, limits *Limits, now time.Time) (*Scheduler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("device %s: %w", cfg.Name, err)
	}
	s := &Scheduler{cfg: cfg.withDefaults(), limits: limits, byID: make(map[uint64]*entry)}
	s.device.setRate(s.cfg.BytesPerSecond, s.cfg.BurstBytes, now)
	for k := range s.rings {
		s.rings[k] = ring{known: make(map[Subject]*flow), round: 1}
	}
	return s, nil
}

// Enqueue queues a request. Errors: ErrBadRequest, ErrDuplicateID, ErrQueueFull.
func (s *Scheduler) Enqueue(req Request, now time.Time) error {
	if err := s.check(req); err != nil {
		return fmt.Errorf("device %s: request %d: %w", s.cfg.Name, req.ID, err)
	}
	r := &s.rings[req.Kind]
	f := r.known[req.Flow]
	if f == nil {
		if f = s.admit(r, req.Flow, now); f == nil {
			return fmt.Errorf("device %s: %w: %d flows", s.cfg.Name, ErrQueueFull, len(r.known))
		}
		f.cut = req.Kind == KindRead && s.CapOf(req, now) > 0
	}
	req.Flow, req.Client, req.Topic = f.subject, strings.Clone(req.Client), strings.Clone(req.Topic)
	if f.queued == 0 {
		if now.Sub(f.lastUsed) > keepCredit {
			f.deficit = min(f.deficit, 0)
		}
		r.join(f, f.deficit >= req.Bytes)
	}
	f.lastUsed = now
	e := &entry{req: req, flow: f, queued: now}
	f.push(e)
	s.byID[req.ID] = e
	s.queued++
	return nil
}

// admit makes a flow known; nil when there are too many.
func (s *Scheduler) admit(r *ring, subject Subject, now time.Time) *flow {
	if len(r.known) >= s.cfg.MaxFlows && !s.forgetIdle(r, now) {
		return nil
	}
	subject.Name = strings.Clone(subject.Name)
	f := &flow{subject: subject, first: now, lastUsed: now}
	r.known[subject] = f
	return f
}

func (s *Scheduler) check(req Request) error {
	switch {
	case req.Kind >= numRequestKinds:
		return fmt.Errorf("%w: kind %d", ErrBadRequest, req.Kind)
	case req.Bytes <= 0 || req.Bytes > MaxRequestBytes:
		return fmt.Errorf("%w: %d bytes, want 1..%d", ErrBadRequest, req.Bytes, int64(MaxRequestBytes))
	case req.Flow.Kind != Group && req.Flow.Kind != Client:
		return fmt.Errorf("%w: flow %s: want a group or client", ErrBadRequest, req.Flow)
	case s.byID[req.ID] != nil:
		return ErrDuplicateID
	case s.queued >= s.cfg.MaxQueued:
		return fmt.Errorf("%w: %d requests", ErrQueueFull, s.queued)
	}
	return nil
}

// Next returns the request to start now; it is in flight until Done. When there is none, wait says when to ask again;
// 0 means that only Enqueue, Done or a changed limit can bring one.
func (s *Scheduler) Next(now time.Time) (req Request, wait time.Duration, ok bool) {
	s.limits.refresh(now)
	if e := s.pickRefill(now); e != nil {
		s.start(e, now)
		return e.req, 0, true
	}
	if s.slotsUsed() >= s.cfg.MaxInFlight {
		return Request{}, 0, false
	}
	e, wait := s.choose(now)
	if e == nil {
		return Request{}, s.limits.overrides.untilEnd(wait, now), false
	}
	if s.cfg.Rotating && s.slotsUsed() > 0 {
		if !s.pass.continues(e.req) {
			return Request{}, 0, false // one place at a time: the head goes there when what is in flight has ended
		}
		if wait = s.pass.moved.Add(startApart).Sub(now); wait > 0 {
			return Request{}, wait, false
		}
	}
	// The choice is kept while the device's tokens come in: a smaller request must not slip past a larger one for ever.
	if wait = s.device.wait(e.req.Bytes, now); wait > 0 {
		s.deviceShort = now.Add(wait)
		return Request{}, wait, false
	}
	if s.gate != nil {
		if wait, held := s.gate.holdsReads(now); held {
			return Request{}, wait, false
		}
	}
	s.start(e, now)
	return e.req, 0, true
}

// SetGate has the device's cold reads and migrations take turns with its syncs. Call it before the first request.
func (s *Scheduler) SetGate(g *Gate) { s.gate = g }

// choose picks between the classes: reads first, migrations when their share is due or when no read can go.
func (s *Scheduler) choose(now time.Time) (*entry, time.Duration) {
	migration, migrationWait := s.pickMigration(now)
	if migration != nil && s.migrationDue >= migration.req.Bytes {
		return migration, 0
	}
	read, readWait := s.pickRead(now)
	if read != nil {
		return read, 0
	}
	if migration != nil {
		return migration, 0
	}
	return nil, sooner(readWait, migrationWait)
}

func (s *Scheduler) pickRead(now time.Time) (*entry, time.Duration) {
	if s.cfg.Rotating {
		s.rings[KindRead].orderRound(func(a, b *flow) bool {
			return s.nearer(s.nearest(a.streams[0], now), s.nearest(b.streams[0], now), now)
		})
	}
	head := func(f *flow) (*entry, time.Duration) { return s.head(f, now) }
	quantum := func(f *flow) int64 { return s.quantum(f, now) }
	e, wait := s.rings[KindRead].pick(head, quantum)
	if e == nil {
		return nil, wait
	}
	e = s.rings[KindRead].pickEarly(e, head, quantum, func(e *entry, bytes int64) bool { return s.presses(e.req, bytes, now) })
	if wait = s.limits.global.wait(e.req.Bytes, now); wait > 0 {
		s.globalShort = now.Add(wait)
		return nil, wait
	}
	return e, 0
}

// pickMigration leaves most slots to reads: one that is queued behind migrations in flight has to wait for them.
func (s *Scheduler) pickMigration(now time.Time) (*entry, time.Duration) {
	if s.inFlight[KindMigration] >= max(1, s.cfg.MaxInFlight/4) {
		return nil, 0
	}
	e, _ := s.rings[KindMigration].pick(
		func(f *flow) (*entry, time.Duration) { return f.next(), 0 },
		func(f *flow) int64 { return s.quantum(f, now) })
	if e == nil {
		return nil, 0
	}
	if wait := s.limits.migration.wait(e.req.Bytes, now); wait > 0 {
		return nil, wait
	}
	return e, 0
}

// refillSlots are beside MaxInFlight: reads that have been started must not keep a real-time reader waiting.
const refillSlots = 2

func (s *Scheduler) pickRefill(now time.Time) *entry {
	if s.inFlight[KindRefill] >= refillSlots {
		return nil
	}
	e, _ := s.rings[KindRefill].pick(
		func(f *flow) (*entry, time.Duration) { return f.next(), 0 },
		func(f *flow) int64 { return s.quantum(f, now) })
	return e
}

func (s *Scheduler) quantum(f *flow, now time.Time) int64 {
	return max(1, s.quantumBytes()*s.limits.weight(f.subject, now)/DefaultWeight)
}

// head is the flow's next request that its caps let through, or the time until there is one.
func (s *Scheduler) head(f *flow, now time.Time) (*entry, time.Duration) {
	if f.blockedGen == s.limits.gen && now.Before(f.blockedUntil) {
		return nil, f.blockedUntil.Sub(now)
	}
	var wait time.Duration
	var best *entry
	for _, st := range f.streams {
		e := st.queue[0]
		if s.cfg.Rotating {
			e = s.nearest(st, now)
		}
		limit := s.capOf(e.req, now)
		if limit.By == LimitNone && !s.cfg.Rotating {
			return e, 0
		}
		if limit.By == LimitNone {
			if best == nil || s.nearer(e, best, now) {
				best = e
			}
			continue
		}
		if wait == 0 || limit.Wait < wait {
			wait, f.limit = limit.Wait, limit
		}
	}
	if best != nil {
		return best, 0
	}
	f.blockedUntil, f.blockedGen = now.Add(wait), s.limits.gen
	f.limitedAt = f.blockedUntil
	f.cut = true
	return nil, wait
}

// capOf is the cap that holds a request back longest, the zero Limit if none does.
func (s *Scheduler) capOf(req Request, now time.Time) (worst Limit) {
	for i, sub := range capSubjects(req) {
		b := s.limits.bucketOf(sub, i == 0, now)
		if b == nil {
			continue
		}
		if wait := b.wait(req.Bytes, now); wait > worst.Wait {
			worst = Limit{By: b.by, Name: sub.String(), BytesPerSecond: b.rate, Wait: wait, Text: "its cap is used up"}
		}
	}
	return worst
}

// presses tells whether a request of a capped flow has to go now: if so many bytes of others went first, a bucket of its caps would
// be full before its turn came, and what it earned beyond that be lost.
func (s *Scheduler) presses(req Request, bytes int64, now time.Time) bool {
	wait := s.timeFor(s.inFlightBytes+bytes) + pressEarly
	for i, sub := range capSubjects(req) {
		if b := s.limits.bucketOf(sub, i == 0, now); b != nil && b.fullIn(wait, now) {
			return true
		}
	}
	return false
}

// timeFor is how long the device is going to take for so many bytes, at its speed and within its rate.
func (s *Scheduler) timeFor(bytes int64) time.Duration {
	speed := s.work.speed
	if rate := float64(s.device.rate); rate > 0 && (speed == 0 || rate < speed) {
		speed = rate
	}
	if speed == 0 {
		return maxWait // not known
	}
	return time.Duration(min(float64(bytes)/speed, maxWait.Seconds()) * float64(time.Second))
}

// capSubjects are those whose caps a read is charged to, its flow first. A flow that is a client id is charged once.
func capSubjects(req Request) [3]Subject {
	subs := [3]Subject{req.Flow, {}, {Topic, req.Topic}}
	if req.Flow.Kind != Client {
		subs[1] = Subject{Client, req.Client}
	}
	return subs
}

func (s *Scheduler) start(e *entry, now time.Time) {
	s.work.begin(s.inFlightBytes == 0, now)
	f, n := e.flow, e.req.Bytes
	f.remove(e, true)
	s.pass.move(e.req, now)
	s.rings[e.req.Kind].started(f, n)
	f.deficit -= n
	f.inFlight++
	f.inFlightBytes += n
	if wait := now.Sub(e.queued); wait > 0 {
		f.waited.add(s.heldBy(e), wait)
	}
	f.lastUsed = now
	if f.queued == 0 {
		s.rings[e.req.Kind].leave(f)
	}
	e.inFlight = true
	if s.gate != nil && e.req.Kind != KindRefill {
		s.gate.beginRead(now)
	}
	s.queued--
	s.inFlight[e.req.Kind]++
	s.inFlightBytes += n
	s.charge(e, n, now)
}

// heldBy is what held a request back last since it was queued: a cap of its flow, the tokens of all devices, or this device.
func (s *Scheduler) heldBy(e *entry) LimitScope {
	switch {
	case e.req.Kind != KindRead:
		return LimitTier
	case e.flow.limitedAt.After(e.queued) && e.flow.limit.By != LimitNone:
		return e.flow.limit.By
	case s.globalShort.After(e.queued):
		return LimitGlobal
	}
	return LimitTier
}

// charge books n bytes of an entry everywhere, or gives them back when n is negative.
func (s *Scheduler) charge(e *entry, n int64, now time.Time) {
	e.flow.granted.add(s.clock.slot(now), n)
	if e.req.Kind == KindRefill {
		s.granted[KindRefill] += n
		return
	}
	s.chargeDevice(e.req.Kind, n, now)
	if e.req.Kind == KindRead {
		s.chargeCaps(e.req, n, now)
	}
}

// chargeDevice books what reads or migrations together take from the device.
func (s *Scheduler) chargeDevice(kind RequestKind, n int64, now time.Time) {
	s.device.take(n, now)
	s.granted[kind] += n
	if kind == KindMigration {
		s.migrationDue = max(0, s.migrationDue-n)
		s.limits.migration.take(n, now)
		return
	}
	due := float64(n) * s.cfg.MigrationShare / (1 - s.cfg.MigrationShare)
	s.migrationDue = max(0, min(s.migrationDue+int64(due), s.migrationDueMax()))
	s.limits.global.take(n, now)
}

// chargeCaps books what one reader gets, wherever it comes from.
func (s *Scheduler) chargeCaps(req Request, n int64, now time.Time) {
	for i, sub := range capSubjects(req) {
		if b := s.limits.bucketOf(sub, i == 0, now); b != nil {
			b.take(n, now)
		}
	}
}

// migrationDueMax bounds the savings of an idle migrator to its next request, so that it cannot come back with a claim
// of minutes.
func (s *Scheduler) migrationDueMax() int64 {
	r := &s.rings[KindMigration]
	most := s.cfg.QuantumBytes
	for _, f := range r.flows {
		most = max(most, f.next().req.Bytes)
	}
	return most
}

// Done ends a request in flight and settles the difference between what it asked for and the bytes that it took from the
// device. It tells whether the id was in flight.
func (s *Scheduler) Done(id uint64, bytes int64, now time.Time) bool {
	e := s.byID[id]
	if e == nil || !e.inFlight {
		return false
	}
	s.limits.refresh(now)
	s.work.end(bytes, now)
	if s.gate != nil && e.req.Kind != KindRefill {
		s.gate.endRead(now)
	}
	delete(s.byID, id)
	s.inFlight[e.req.Kind]--
	s.inFlightBytes -= e.req.Bytes
	e.flow.inFlight--
	e.flow.inFlightBytes -= e.req.Bytes
	e.flow.lastUsed = now
	if more := max(bytes, 0) - e.req.Bytes; more != 0 {
		e.flow.deficit -= max(more, min(0, minTurnCost-e.req.Bytes))
		s.charge(e, more, now)
		s.limits.gen++ // others may be blocked on tokens that are back now
	}
	return true
}

// DoneShared is Done for a request that found its bytes read by another one: it took nothing from the device, and its flow
// is charged, by caps and turn, for the bytes that it got.
func (s *Scheduler) DoneShared(id uint64, bytes int64, now time.Time) bool {
	e := s.byID[id]
	if e == nil || !e.inFlight {
		return false
	}
	flow, turn := e.flow, e.flow.deficit
	req := e.req
	s.Done(id, 0, now)
	flow.deficit = turn + req.Bytes
	s.chargeShared(flow, req, bytes, now)
	return true
}

// Share charges a flow for bytes that it gets from a read that another one has asked for: its caps and its turn, not the
// device. So members of a convoy together get no more turns than one of them alone, and what each one gets is what fairness
// counts. False, and nothing charged, when a cap holds them back now: the request has to be queued.
func (s *Scheduler) Share(req Request, now time.Time) bool {
	s.limits.refresh(now)
	if s.capOf(req, now).By != LimitNone {
		return false
	}
	f := s.rings[KindRead].known[req.Flow]
	if f == nil {
		f = s.admit(&s.rings[KindRead], req.Flow, now)
	}
	s.chargeShared(f, req, req.Bytes, now)
	return true
}

// chargeShared books shared bytes. The debt is bounded by one quantum: who rides along with a flow of a higher weight gets
// more than its own share, and would owe it for ever after. f may be nil: too many flows are known.
func (s *Scheduler) chargeShared(f *flow, req Request, bytes int64, now time.Time) {
	s.shared += bytes
	s.chargeCaps(req, bytes, now)
	if f == nil {
		return
	}
	f.deficit = max(f.deficit-bytes, min(f.deficit, -s.quantum(f, now)))
	f.granted.add(s.clock.slot(now), bytes)
	f.lastUsed = now
}

// CapOf is the lowest cap that holds for a request's flow, client or topic, in bytes per second; 0 when none does.
func (s *Scheduler) CapOf(req Request, now time.Time) (lowest int64) {
	s.limits.refresh(now)
	for i, sub := range capSubjects(req) {
		if b := s.limits.bucketOf(sub, i == 0, now); b != nil && (lowest == 0 || b.rate < lowest) {
			lowest = b.rate
		}
	}
	return lowest
}

// Cancel takes a queued request out and tells whether it did. One that is in flight stays until Done.
func (s *Scheduler) Cancel(id uint64) bool {
	e := s.byID[id]
	if e == nil || e.inFlight {
		return false
	}
	delete(s.byID, id)
	s.queued--
	e.flow.remove(e, false)
	if e.flow.queued == 0 {
		s.rings[e.req.Kind].leave(e.flow)
	}
	return true
}

// InFlight is how many requests of a kind are in flight.
func (s *Scheduler) InFlight(kind RequestKind) int { return s.inFlight[kind] }

// OldestWait is for how long the oldest request has been queued that waits for this device or its budget, and for no cap; 0 when none
// does. It looks at every request.
func (s *Scheduler) OldestWait(now time.Time) (oldest time.Duration) {
	for _, e := range s.byID {
		if !e.inFlight && s.heldBy(e) == LimitTier {
			oldest = max(oldest, now.Sub(e.queued))
		}
	}
	return oldest
}

// forgetIdle drops flows that have nothing queued or in flight and whose credit is over.
func (s *Scheduler) forgetIdle(r *ring, now time.Time) (forgot bool) {
	for sub, f := range r.known {
		if f.queued == 0 && f.inFlight == 0 && now.Sub(f.lastUsed) > keepCredit {
			delete(r.known, sub)
			forgot = true
		}
	}
	return forgot
}

func (s *Scheduler) slotsUsed() int { return s.inFlight[KindRead] + s.inFlight[KindMigration] }

// Config is the device's configuration with its defaults and its rate of now.
func (s *Scheduler) Config() DeviceConfig { return s.cfg }
