package tiering

import (
	"cmp"
	"slices"
	"time"
)

// State is where a migration is.
type State string

// The states. The values are metric labels and JSON.
const (
	StateQueued    State = "queued"
	StateRunning   State = "running"
	StateBackoff   State = "backoff" // waits for its next try
	StateDone      State = "done"
	StateFailed    State = "failed"    // not tried again until a restart: the source is damaged
	StateCancelled State = "cancelled" // by a person, or because the segment is gone
)

// Status is the whole picture at one moment.
type Status struct {
	Paused       bool
	PauseReason  string
	Waiting      int   // moves that have not started, of which Migrations shows the first 200
	BacklogBytes int64 // of waiting and running moves
	// PutOff are moves that are due and wait for readers to pass, the first 200 of PutOffCount with PutOffBytes.
	PutOff      []Move
	PutOffCount int
	PutOffBytes int64
	Migrations  []View
}

// View is one migration.
type View struct {
	ID             uint64
	Move           Move
	State          State
	Step           Step // while running
	DoneBytes      int64
	TotalBytes     int64         // copied once and read back once: about twice Move.SizeBytes
	BytesPerSecond float64       // of DoneBytes, over the last seconds
	ETA            time.Duration // 0 = unknown
	Attempts       int           // that failed
	Queued         time.Time
	Started, Ended time.Time // zero: not yet
	NextTry        time.Time // in backoff
	Error          string    // of the last attempt
}

// Snapshot lists running migrations, then waiting ones in the order in which they will run, then ended ones, newest
// first. The slices are the caller's.
func (m *Migrator) Snapshot() Status {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Paused: m.paused, PauseReason: m.pauseReason, Waiting: len(m.queue), BacklogBytes: m.backlogLocked()}
	s.PutOff, s.PutOffCount, s.PutOffBytes = slices.Clone(m.putOff[:min(len(m.putOff), queuedLen)]), len(m.putOff), m.putOffLocked()
	for _, t := range m.running {
		s.Migrations = append(s.Migrations, m.viewLocked(t, StateRunning, now))
	}
	slices.SortFunc(s.Migrations, func(a, b View) int { return cmp.Compare(a.ID, b.ID) })
	for _, t := range m.queue[:min(len(m.queue), queuedLen)] {
		s.Migrations = append(s.Migrations, m.viewLocked(t, m.waitingLocked(t, now), now))
	}
	for _, v := range slices.Backward(m.history) {
		s.Migrations = append(s.Migrations, v)
	}
	return s
}

func (m *Migrator) putOffLocked() int64 {
	var bytes int64
	for _, move := range m.putOff {
		bytes = addBytes(bytes, move.SizeBytes)
	}
	return bytes
}

func (m *Migrator) backlogLocked() int64 {
	var bytes int64
	for _, t := range m.queue {
		bytes = addBytes(bytes, t.move.SizeBytes)
	}
	for _, t := range m.running {
		bytes = addBytes(bytes, t.move.SizeBytes)
	}
	return bytes
}

// nextTryLocked is when a waiting task may start, zero for now.
func (m *Migrator) nextTryLocked(t *task) time.Time {
	next := m.devices[m.opt.Tiers[m.index[t.move.To]].Device].nextTry
	if r := m.records[keyOf(t.move)]; r != nil && r.nextTry.After(next) {
		next = r.nextTry
	}
	return next
}

func (m *Migrator) waitingLocked(t *task, now time.Time) State {
	if m.nextTryLocked(t).After(now) {
		return StateBackoff
	}
	return StateQueued
}

func (m *Migrator) viewLocked(t *task, state State, now time.Time) View {
	v := View{ID: t.id, Move: t.move, State: state, Queued: t.queued, Started: t.started,
		DoneBytes: t.view.DoneBytes, TotalBytes: cmp.Or(t.view.TotalBytes, 2*t.move.SizeBytes)}
	if r := m.records[keyOf(t.move)]; r != nil {
		v.Attempts, v.Error = r.count, r.err
	}
	switch state {
	case StateRunning:
		v.Step, v.BytesPerSecond = t.view.Step, t.view.rate
		if v.BytesPerSecond > 0 && !m.paused {
			left := float64(v.TotalBytes-v.DoneBytes) / v.BytesPerSecond
			v.ETA = time.Duration(min(left, maxAge.Seconds()) * float64(time.Second))
		}
	case StateBackoff:
		v.NextTry = m.nextTryLocked(t)
	}
	return v
}
