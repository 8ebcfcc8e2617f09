package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/segment"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configure a Migrator.
type Options struct {
	Tiers []Tier // hot to cold, at least one
	// Prepare looks the segment up and gives what Migrate needs; ErrGone drops the move, ErrHung puts it back: what Hung says is its to ask. It is called
	// once per attempt, from the migration's goroutine, and may take its time.
	Prepare      func(ctx context.Context, m Move) (Job, Env, error)
	Events       Events
	Logger       *slog.Logger          // nil: discard
	Registerer   prometheus.Registerer // nil: no metrics
	MinBackoff   time.Duration         // after the first failure, doubling with each; default 5 s
	MaxBackoff   time.Duration         // default 10 min
	HoldDuration time.Duration         // how long a segment is left alone after Cancel; default 1 h
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MinBackoff == 0 {
		o.MinBackoff = 5 * time.Second
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 10 * time.Minute
	}
	if o.HoldDuration == 0 {
		o.HoldDuration = time.Hour
	}
	o.Tiers = slices.Clone(o.Tiers)
	for i := range o.Tiers {
		if o.Tiers[i].Device == "" {
			o.Tiers[i].Device = o.Tiers[i].Name
		}
	}
	return o
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	names := map[string]bool{}
	for i, t := range o.Tiers {
		if t.Name == "" || names[t.Name] {
			errs = append(errs, fmt.Errorf("Tiers[%d]: name %q is empty or taken", i, t.Name))
		}
		names[t.Name] = true
	}
	if len(o.Tiers) == 0 {
		errs = append(errs, errors.New("Tiers: at least one is needed"))
	}
	if o.Prepare == nil {
		errs = append(errs, errors.New("Prepare is required"))
	}
	if o.MinBackoff < 0 || o.MaxBackoff < o.MinBackoff || o.HoldDuration < 0 {
		errs = append(errs, fmt.Errorf("MinBackoff %v, MaxBackoff %v, HoldDuration %v: want 0 <= MinBackoff <= MaxBackoff and no negative hold",
			o.MinBackoff, o.MaxBackoff, o.HoldDuration))
	}
	return errors.Join(errs...)
}

// Events tells of migrations; nil fields are skipped. They are called without locks from the migration's goroutine,
// Removed from the one that the partition removes the old copy in. Be quick.
type Events struct {
	Begin   func(Move)
	End     func(Move, Outcome)
	Removed func(Move, error)                 // old copy removed, or why not
	Corrupt func(Move, *segment.CorruptError) // damaged source, once per segment
}

// Outcome is how one attempt ended.
type Outcome struct {
	Elapsed time.Duration
	Err     error // nil: moved
}

// Migrator runs moves: one at a time per target device, planned ones in the order of the plan, ordered ones first. One that has not got on for
// hungAfter, because a directory does not answer, keeps no other from running that needs neither side of it. A
// move that fails is tried again later, longer each time; a fault of the target holds up everything that goes there. All
// methods are safe for concurrent use.
type Migrator struct {
	opt     Options
	index   map[string]int           // tier name to position
	wake    map[string]chan struct{} // by device, one slot
	metrics *metrics
	started atomic.Bool

	mu          sync.Mutex
	queue       []*task // not started; ordered ones first
	putOff      []Move  // due, but a reader is about to read them
	running     map[key]*task
	active      map[string]map[*task]struct{} // by device: those whose goroutine has not ended
	records     map[key]*record
	devices     map[string]*faults
	history     []View // ended, oldest first, at most historyLen
	lastID      uint64
	paused      bool
	pauseReason string
	pausedAt    time.Time
	resumed     chan struct{} // closed by Resume
}

const (
	historyLen = 100 // ended migrations that Snapshot still shows
	queuedLen  = 200 // waiting migrations that Snapshot shows; the rest are counted
	// corruptTries is how often a source must be found damaged before it is left alone: a second look tells a flip on
	// the way (bus, memory) from one on the device.
	corruptTries = 2
	// hungAfter is how long a migration that does not get on is waited for. On a device that answers a step takes 50 ms, and a turn is not far.
	hungAfter = 10 * time.Second
)

// key identifies a segment.
type key struct {
	topic     string
	partition int32
	base      segment.Offset
}

func keyOf(m Move) key { return key{m.Topic, m.Partition, m.Base} }

// task is one move in the queue or running. Fields are guarded by Migrator.mu.
type task struct {
	id      uint64
	move    Move
	queued  time.Time
	started time.Time
	cancel  context.CancelCauseFunc // while running
	done    chan struct{}           // closed when it has cleaned up
	view    progressView
	// from and to name the sides of the last attempt as its errors do: a move names tiers, a Job may name one of their directories.
	from, to string
	rank     int       // in the plan
	at       string    // the side that the attempt touches ...
	since    time.Time // ... from then on, or when it got on last
}

// progressView is what Migrate reported last.
type progressView struct {
	Progress
	at   time.Time
	rate float64 // bytes/s, smoothed over rateWindow
}

// record is what is remembered of a segment between attempts.
type record struct {
	faults
	corrupt int       // times its source was found damaged
	failed  bool      // not tried again until a restart
	held    time.Time // left alone until then
	err     string    // of the last attempt
}

// faults counts failures in a row, of a segment or of a device.
type faults struct {
	count   int
	nextTry time.Time
}

func (f *faults) fail(now time.Time, opt Options) {
	f.count++
	wait := opt.MaxBackoff
	if shift := f.count - 1; shift < 30 && opt.MinBackoff<<shift < wait {
		wait = opt.MinBackoff << shift
	}
	f.nextTry = now.Add(wait)
}

// NewMigrator checks opt and registers metrics. Nothing moves before Run.
func NewMigrator(opt Options) (*Migrator, error) {
	opt = opt.withDefaults()
	if err := opt.Validate(); err != nil {
		return nil, fmt.Errorf("tiering: options: %w", err)
	}
	m := &Migrator{opt: opt, index: map[string]int{}, wake: map[string]chan struct{}{}, running: map[key]*task{}, active: map[string]map[*task]struct{}{},
		records: map[key]*record{}, devices: map[string]*faults{}, resumed: make(chan struct{})}
	close(m.resumed)
	for i, t := range opt.Tiers {
		m.index[t.Name] = i
		m.devices[t.Device] = &faults{}
		m.wake[t.Device] = make(chan struct{}, 1)
		m.active[t.Device] = map[*task]struct{}{}
	}
	var err error
	if m.metrics, err = newMetrics(opt.Registerer, m); err != nil {
		return nil, fmt.Errorf("tiering: metrics: %w", err)
	}
	return m, nil
}

// Mark fills Moving, MovingTo and Held of a snapshot, in place, from what is running, ordered or held, so that Plan counts it.
func (m *Migrator) Mark(s *Snapshot) {
	moving, held := m.marks()
	if len(moving) == 0 && len(held) == 0 {
		return
	}
	for _, topic := range s.Topics {
		for _, part := range topic.Partitions {
			for i := range part.Segments {
				seg := &part.Segments[i]
				k := key{topic.Name, part.Partition, seg.Base}
				seg.Held = seg.Held || held[k]
				if to, ok := moving[k]; ok && seg.Tier != m.index[to] {
					seg.Moving, seg.MovingTo = true, m.index[to]
				}
			}
		}
	}
}

func (m *Migrator) marks() (moving map[key]string, held map[key]bool) {
	moving, held = map[key]string{}, map[key]bool{}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, t := range m.running {
		moving[k] = t.move.To
	}
	for _, t := range m.queue {
		if isOrdered(t) {
			moving[keyOf(t.move)] = t.move.To
		}
	}
	for k, r := range m.records {
		if r.failed || now.Before(r.held) {
			held[k] = true
		}
	}
	return moving, held
}

// Offer replaces the planned moves that have not started by plan. Segments that are running, ordered by hand or held
// are left out; a move that was waiting already keeps its id and its backoff. putOff is for people: what Plan put off.
// Both slices are the Migrator's from now on.
func (m *Migrator) Offer(plan, putOff []Move) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting := map[key]*task{}
	queue := make([]*task, 0, len(plan))
	for _, t := range m.queue {
		waiting[keyOf(t.move)] = t
		if isOrdered(t) {
			queue = append(queue, t)
		}
	}
	seen := map[key]bool{}
	for rank, move := range plan {
		k := keyOf(move)
		old := waiting[k]
		if seen[k] || isOrdered(old) || m.running[k] != nil || m.heldLocked(k, now) || m.checkMove(move) != nil {
			continue
		}
		seen[k] = true
		t := m.newTask(move, now)
		t.rank = rank
		if old != nil {
			t.id, t.queued = old.id, old.queued
		}
		queue = append(queue, t)
	}
	m.queue, m.putOff = queue, putOff
	for k, r := range m.records { // forget what nobody asks for any more
		if !seen[k] && m.running[k] == nil && !r.failed && r.corrupt == 0 && !now.Before(r.held) && !isOrdered(waiting[k]) {
			delete(m.records, k)
		}
	}
	m.wakeAll()
}

func isOrdered(t *task) bool { return t != nil && t.move.Cause == CauseManual }

// Submit orders one move by hand, ahead of the planned ones, and gives its id. It overrides an earlier Cancel.
func (m *Migrator) Submit(move Move) (uint64, error) {
	move.Cause = CauseManual
	if move.Reason == "" {
		move.Reason = "ordered by hand"
	}
	if err := m.checkMove(move); err != nil {
		return 0, err
	}
	k := keyOf(move)
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.running[k]; t != nil {
		return 0, fmt.Errorf("%w: %d of %s-%d, to %s (migration %d)", ErrMoving, move.Base, move.Topic, move.Partition, t.move.To, t.id)
	}
	if r := m.records[k]; r != nil && r.failed {
		return 0, fmt.Errorf("segment %d of %s-%d is not moved: %s", move.Base, move.Topic, move.Partition, r.err)
	}
	delete(m.records, k)
	m.queue = slices.DeleteFunc(m.queue, func(t *task) bool { return keyOf(t.move) == k })
	t := m.newTask(move, time.Now())
	m.insertLocked(t)
	m.wakeAll()
	return t.id, nil
}

// insertLocked puts a task behind the ordered ones and before the planned ones.
func (m *Migrator) insertLocked(t *task) {
	at := 0
	for at < len(m.queue) && isOrdered(m.queue[at]) {
		at++
	}
	m.queue = slices.Insert(m.queue, at, t)
}

// checkMove refuses moves that no plan makes.
func (m *Migrator) checkMove(move Move) error {
	from, okFrom := m.index[move.From]
	to, okTo := m.index[move.To]
	switch {
	case !okFrom || !okTo:
		return fmt.Errorf("move from %q to %q: no such tier", move.From, move.To)
	case from == to || from > to && move.Cause != CausePin:
		return fmt.Errorf("move from %s to %s: segments only move to a colder tier", move.From, move.To)
	case m.opt.Tiers[from].FS == nil || m.opt.Tiers[to].FS == nil:
		return fmt.Errorf("move from %s to %s: a tier is offline", move.From, move.To)
	}
	return nil
}

func (m *Migrator) newTask(move Move, now time.Time) *task {
	m.lastID++
	return &task{id: m.lastID, move: move, queued: now, done: make(chan struct{}), from: move.From, to: move.To}
}

func (m *Migrator) heldLocked(k key, now time.Time) bool {
	r := m.records[k]
	return r != nil && (r.failed || now.Before(r.held))
}

// Cancel stops a running migration or drops a waiting one; the segment is then left alone for Options.HoldDuration.
// It does not wait for the cleanup. false: no such id, or it ended already.
func (m *Migrator) Cancel(id uint64, reason string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.running {
		if t.id == id {
			t.cancel(fmt.Errorf("%w: %s", ErrCancelled, reason))
			return true
		}
	}
	for i, t := range m.queue {
		if t.id == id {
			m.queue = slices.Delete(m.queue, i, i+1)
			m.holdLocked(t, reason)
			return true
		}
	}
	return false
}

// holdLocked books a cancelled task.
func (m *Migrator) holdLocked(t *task, reason string) {
	now := time.Now()
	m.recordLocked(t).held = now.Add(m.opt.HoldDuration)
	m.endLocked(t, StateCancelled, reason, now)
}

func (m *Migrator) recordLocked(t *task) *record {
	k := keyOf(t.move)
	if m.records[k] == nil {
		m.records[k] = &record{}
	}
	return m.records[k]
}

// CancelWhere drops matching moves, forgets everything about their segments, and waits until those that run have cleaned
// up, or ctx ends. match may get moves of which only topic, partition and base are set. Before a partition's directories are renamed or removed, its owner first makes Prepare and Publish
// answer ErrGone for it, then calls this: afterwards nothing is written there.
func (m *Migrator) CancelWhere(ctx context.Context, match func(Move) bool) error {
	var busy []*task
	m.mu.Lock()
	m.queue = slices.DeleteFunc(m.queue, func(t *task) bool { return match(t.move) })
	for _, t := range m.running {
		if match(t.move) {
			t.cancel(ErrGone)
			busy = append(busy, t)
		}
	}
	for k := range m.records {
		if match(Move{Topic: k.topic, Partition: k.partition, Base: k.base}) {
			delete(m.records, k)
		}
	}
	m.mu.Unlock()
	for _, t := range busy {
		select {
		case <-t.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Pause stops all migrations at their next chunk until Resume. reason is shown to people.
func (m *Migrator) Pause(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pauseReason = reason
	if !m.paused {
		m.paused, m.pausedAt, m.resumed = true, time.Now(), make(chan struct{})
	}
}

// Resume ends a Pause.
func (m *Migrator) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused {
		m.paused, m.pauseReason = false, ""
		m.metrics.waited(waitPause, time.Since(m.pausedAt))
		for _, t := range m.running {
			t.since = time.Now()
		}
		close(m.resumed)
		m.wakeAll()
	}
}

// Hung tells whether a migration waits for a directory, by its Tier's name in Job, that has not answered for hungAfter.
func (m *Migrator) Hung(dir string) bool {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.running {
		if t.at == dir && now.Sub(t.since) >= hungAfter {
			return true
		}
	}
	return false
}

// wakeAll makes every worker look at the queue.
func (m *Migrator) wakeAll() {
	for _, c := range m.wake {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
