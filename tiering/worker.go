package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"lagoon/segment"
)

// Run executes moves until ctx ends, with one goroutine per device and one per migration, and returns when all have cleaned up. A migration
// that the end of ctx interrupts leaves no trace. Call it once.
func (m *Migrator) Run(ctx context.Context) error {
	if m.started.Swap(true) {
		return errors.New("tiering: Migrator.Run was called twice")
	}
	var workers sync.WaitGroup
	for device := range m.wake {
		workers.Go(func() { m.work(ctx, device) })
	}
	workers.Wait()
	return nil
}

// work serves one target device.
func (m *Migrator) work(ctx context.Context, device string) {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	for ctx.Err() == nil {
		taskCtx, t, wait := m.take(ctx, device)
		if t != nil {
			attempts.Go(func() {
				m.execute(taskCtx, t)
				m.over(t, device)
			})
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-m.wake[device]:
		case <-timer.C:
		}
	}
}

// over lets the device's next migration begin.
func (m *Migrator) over(t *task, device string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active[device], t)
	select {
	case m.wake[device] <- struct{}{}:
	default:
	}
}

// take starts the next task for a device that is due, or tells how long there is none.
func (m *Migrator) take(ctx context.Context, device string) (context.Context, *task, time.Duration) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused {
		return nil, nil, math.MaxInt64
	}
	if wait := m.devices[device].nextTry.Sub(now); wait > 0 {
		return nil, nil, wait
	}
	for t := range m.active[device] {
		if left := hungAfter - now.Sub(t.since); left > 0 {
			return nil, nil, left
		}
	}
	if len(m.active[device]) >= len(m.opt.Tiers) { // as many as there are directories that could hang
		return nil, nil, math.MaxInt64
	}
	wait := time.Duration(math.MaxInt64)
	for i, t := range m.queue {
		if m.opt.Tiers[m.index[t.move.To]].Device != device {
			continue
		}
		if r := m.records[keyOf(t.move)]; r != nil && now.Before(r.nextTry) {
			wait = min(wait, r.nextTry.Sub(now))
			continue
		}
		m.queue = slices.Delete(m.queue, i, i+1)
		taskCtx, cancel := context.WithCancelCause(ctx)
		t.cancel, t.started, t.since = cancel, now, now
		m.active[device][t] = struct{}{}
		t.view = progressView{Progress: Progress{Step: StepPrepare, TotalBytes: 2 * t.move.SizeBytes}, at: now}
		m.running[keyOf(t.move)] = t
		return taskCtx, t, 0
	}
	return nil, nil, wait
}

// execute runs one attempt and books how it ended.
func (m *Migrator) execute(ctx context.Context, t *task) {
	if m.opt.Events.Begin != nil {
		m.opt.Events.Begin(t.move)
	}
	err := m.attempt(ctx, t)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // what stopped it says more than where it was
	}
	if errors.Is(err, ErrHung) {
		m.putBack(t, err)
		t.cancel(nil)
		close(t.done)
		return
	}
	firstCorrupt := m.finish(t, err)
	t.cancel(nil)
	close(t.done)
	m.report(t, err, firstCorrupt)
}

func (m *Migrator) attempt(ctx context.Context, t *task) error {
	job, env, err := m.opt.Prepare(ctx, t.move)
	if err != nil {
		return err
	}
	m.mu.Lock()
	t.from, t.to = job.From.Name, job.To.Name
	m.mu.Unlock()
	env = env.withDefaults()
	env.Gate = &taskGate{m: m, gate: env.Gate}
	at := env.At
	env.At = func(tier string) {
		m.touches(t, tier)
		at(tier)
	}
	progress := env.Progress
	env.Progress = func(p Progress) {
		m.progressed(t, p)
		progress(p)
	}
	if retire := env.Retire; retire != nil {
		env.Retire = func(job Job, remove func() error) {
			retire(job, func() error { return m.removed(t.move, remove()) })
		}
	}
	return Migrate(ctx, job, env)
}

// touches notes what an attempt waits for from now on.
func (m *Migrator) touches(t *task, tier string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.at, t.since = tier, time.Now()
}

// putBack returns a planned move to its place in the queue, an ordered one behind the others, until a directory may answer.
func (m *Migrator) putBack(t *task, err error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, keyOf(t.move))
	r := m.recordLocked(t)
	r.err, r.nextTry = err.Error(), now.Add(m.opt.MinBackoff)
	again := m.newTask(t.move, t.queued)
	again.id, again.rank = t.id, t.rank
	at := slices.IndexFunc(m.queue, func(o *task) bool { return !isOrdered(o) && (isOrdered(t) || o.rank > t.rank) })
	if at < 0 {
		at = len(m.queue)
	}
	m.queue = slices.Insert(m.queue, at, again)
}

func (m *Migrator) removed(move Move, err error) error {
	if err != nil {
		m.opt.Logger.Warn("old copy of migrated segment was not removed", append(attrs(move), slog.Any("err", err))...)
	}
	if m.opt.Events.Removed != nil {
		m.opt.Events.Removed(move, err)
	}
	return err
}

// rateWindow smooths the rate shown: long enough for a pause at the gate, short enough to follow a changed budget.
const rateWindow = 10 * time.Second

func (m *Migrator) progressed(t *task, p Progress) {
	now := time.Now()
	m.mu.Lock()
	n := p.DoneBytes - t.view.DoneBytes
	if dt := now.Sub(t.view.at).Seconds(); dt > 0 {
		keep := math.Exp(-dt / rateWindow.Seconds())
		if t.view.rate == 0 {
			keep = 0
		}
		t.view.rate = keep*t.view.rate + (1-keep)*float64(n)/dt
		t.view.at = now
	}
	t.view.Progress = p
	m.mu.Unlock()
	if p.Step == StepCopy {
		m.metrics.copied(t.move, n)
	}
}

// finish takes a task off the running ones and decides what becomes of its segment.
func (m *Migrator) finish(t *task, err error) (firstCorrupt *segment.CorruptError) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	k := keyOf(t.move)
	delete(m.running, k)
	device := m.devices[m.opt.Tiers[m.index[t.move.To]].Device]
	if err == nil {
		*device = faults{}
		delete(m.records, k)
		m.endLocked(t, StateDone, "", now)
		return nil
	}
	corrupt, damaged := SourceCorrupt(err, t.from)
	switch {
	case errors.Is(err, ErrGone), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		m.endLocked(t, StateCancelled, err.Error(), now) // nothing to remember: gone, or stopping
		return nil
	case errors.Is(err, ErrCancelled):
		m.holdLocked(t, err.Error())
		return nil
	}
	r := m.recordLocked(t)
	r.err = err.Error()
	r.fail(now, m.opt)
	if damaged {
		r.corrupt++
		r.failed = r.corrupt >= corruptTries
		if r.corrupt == 1 {
			firstCorrupt = corrupt
		}
	}
	if r.failed {
		m.endLocked(t, StateFailed, r.err, now)
		return firstCorrupt
	}
	if targetFault(err, t.to) {
		device.fail(now, m.opt)
	}
	m.requeueLocked(t, now)
	return firstCorrupt
}

// targetFault tells whether trying the next segment would meet the same fault.
func targetFault(err error, to string) bool {
	var step *StepError
	return errors.As(err, &step) && step.Tier == to && step.Step != StepPublish && !errors.Is(err, ErrOccupied)
}

// requeueLocked lets a failed task wait for its next try, unless the plan changed its mind meanwhile.
func (m *Migrator) requeueLocked(t *task, now time.Time) {
	for _, other := range m.queue {
		if keyOf(other.move) == keyOf(t.move) {
			return
		}
	}
	again := m.newTask(t.move, t.queued)
	again.id, again.rank = t.id, t.rank
	m.insertLocked(again)
}

func (m *Migrator) endLocked(t *task, state State, text string, now time.Time) {
	v := m.viewLocked(t, state, now)
	v.Error, v.Ended, v.ETA, v.Step = text, now, 0, ""
	m.history = append(m.history, v)
	if extra := len(m.history) - historyLen; extra > 0 {
		m.history = append([]View(nil), m.history[extra:]...)
	}
}

// report tells people and programs how an attempt ended.
func (m *Migrator) report(t *task, err error, corrupt *segment.CorruptError) {
	elapsed := time.Since(t.started)
	log := m.opt.Logger
	fields := append(attrs(t.move), slog.Duration("elapsed", elapsed))
	switch {
	case err == nil:
		m.metrics.moved(t.move, elapsed)
		log.Info("segment migrated", fields...)
	case errors.Is(err, ErrGone), errors.Is(err, ErrCancelled), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		log.Info("migration stopped", append(fields, slog.Any("err", err))...)
	case corrupt != nil:
		m.metrics.failed(err)
		log.Error("segment is corrupt and was not migrated", append(fields, slog.Any("err", err))...)
	default:
		m.metrics.failed(err)
		log.Warn("migration failed", append(fields, slog.Any("err", err))...)
	}
	if corrupt != nil && m.opt.Events.Corrupt != nil {
		m.opt.Events.Corrupt(t.move, corrupt)
	}
	if m.opt.Events.End != nil {
		m.opt.Events.End(t.move, Outcome{Elapsed: elapsed, Err: err})
	}
}

func attrs(move Move) []any {
	return []any{slog.String("topic", move.Topic), slog.Int("partition", int(move.Partition)), slog.Int64("segment", int64(move.Base)),
		slog.String("from", move.From), slog.String("to", move.To), slog.Int64("bytes", move.SizeBytes), slog.String("reason", move.Reason)}
}

// taskGate holds a migration while all are paused, then asks the broker's gate, and counts the time of the latter.
type taskGate struct {
	m    *Migrator
	gate Gate
}

// Step implements Gate.
func (g *taskGate) Step() int64 { return g.gate.Step() }

// Wait implements Gate.
func (g *taskGate) Wait(ctx context.Context, t Transfer) (func(), error) {
	g.m.mu.Lock()
	resumed := g.m.resumed
	g.m.mu.Unlock()
	select {
	case <-resumed:
	case <-ctx.Done():
		return nil, fmt.Errorf("paused: %w", ctx.Err())
	}
	start := time.Now()
	done, err := g.gate.Wait(ctx, t)
	g.m.metrics.waited(waitBudget, time.Since(start))
	return done, err
}
