package partition

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"time"

	"lagoon/admission"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// Abandon leaves the store as kill -9 would: nothing is written any more; locks are let go so that a test can open the
// directories again.
func (s *Store) Abandon() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	for _, l := range s.Logs() {
		l.cursors.closeAll()
	}
	for _, d := range s.dirs {
		d.cold.close()
		if d.commit != nil {
			d.commit.close()
		}
		_ = s.closeJournal(d, false)
		if d.lock != nil {
			_ = d.lock.Close() // the process is dead
		}
	}
}

// SetConfig is SetConfigs of one topic.
func (s *Store) SetConfig(topic string, cfg Config) { s.SetConfigs(map[string]*Config{topic: &cfg}) }

// TickRaces is one round of the watch on retention.
func (s *Store) TickRaces(now time.Time) { s.race(now) }

// SetHot turns hot windows on for a test that calls HotRound itself.
func (s *Store) SetHot(h HotWindows) { s.hot.opt = h.withDefaults() }

// HotRound is one round of the hot windows.
func (s *Store) HotRound() { s.hotRound(s.now()) }

// HoldPins is at the log's pins, as a plan is, until release is called.
func (l *Log) HoldPins() (release func()) {
	l.hot.pinning.Lock()
	return l.hot.pinning.Unlock
}

// Warm warms tails and waits until that is done.
func (s *Store) Warm() {
	s.warmTails()
	for _, _, running := s.WarmProgress(); running; _, _, running = s.WarmProgress() {
		runtime.Gosched()
	}
}

// Now is the store's clock.
func (s *Store) Now() time.Time { return s.now() }

// NewAllowance is what brings an allowance up to a time, of which it was used or not since the time before.
func NewAllowance(most time.Duration, share int64) func(used bool, now time.Time) time.Duration {
	var a allowance
	return func(used bool, now time.Time) time.Duration { return a.count(used, most, share, now) }
}

// ReplayJournal replays the commit journal of a directory whose checkpoints say points and starts.
func ReplayJournal(fsys vfs.FS, points, starts map[segment.TopicPartition]segment.Offset, trusted bool, log *slog.Logger) error {
	s := &Store{opt: Options{Logger: log}}
	return s.replayJournal(&logDir{spec: DirSpec{FS: fsys}}, marks{points: points, starts: starts}, trusted)
}

// AbortedAcross lists the aborted transactions for records in [from, upper) as a reader does that has loaded the view before between is
// called, and as one that begins after it.
func (l *Log) AbortedAcross(from, upper segment.Offset, between func()) (stale error, list []AbortedTxn, err error) {
	v := l.view.Load()
	between()
	_, stale = l.abortedInView(v, from, upper)
	list, err = l.abortedIn(from, upper)
	return stale, list, err
}

// EndedTxns counts the transactions that have ended and still hold the last stable offset back.
func (l *Log) EndedTxns() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ended)
}

// ErrChanged is errChanged.
var ErrChanged = errChanged

// FillETA is fillETA of rooms that were looked at so far apart.
func FillETA(every time.Duration, rooms ...int64) (seconds float64, known bool) {
	var samples []roomSample
	for i, room := range rooms {
		samples = append(samples, roomSample{time.Duration(i) * every, room})
	}
	return fillETA(samples)
}

// FillTrend is what is told after a look each second.
func FillTrend(rooms ...int64) (seconds float64, known bool) {
	var f fillTrend
	for i, room := range rooms {
		f.note(time.Duration(i)*time.Second, room)
	}
	return f.eta()
}

// ChunkLine is where the first line of the grid lies on which chunks end.
func (s *Store) ChunkLine() int64 {
	most := s.chunkBytes()
	return most - most/16
}

// ReadUnindexed reads what a stream asks for at byte pos of segment i, whose index is not in memory: whole batches.
func (l *Log) ReadUnindexed(i int, pos int64) (batches []byte, err error) {
	seg := l.view.Load().segs[i]
	if !seg.r.Acquire() {
		return nil, ErrClosed
	}
	if seg.r.Ready() {
		return nil, errors.New("the index is in memory")
	}
	size := seg.r.Meta().SizeBytes
	s := &stream{log: l, handle: newHandle(seg), nextPos: pos}
	defer s.handle.release()
	want, _ := s.nextChunkLocked(size, 0)
	c := &coldChunk{convoy: &l.convoy, asker: s, handle: s.handle, lane: admission.Bypass, pos: pos, want: want, limit: size}
	if _, err := c.readWhole(l.store); err != nil {
		return nil, err
	}
	batches = bytes.Clone(c.data)
	if c.buf != nil {
		c.buf.Release()
	}
	return batches, nil
}

// TierSnapshot is what the planner looks at.
func (s *Store) TierSnapshot() tiering.Snapshot { return s.tierSnapshot() }

// EverySecond is the work of each second.
func (s *Store) EverySecond() { s.everySecond(s.now()) }

// TakeReadAhead is what a deletion does before it takes the segments.
func (l *Log) TakeReadAhead() { l.cursors.closeAll() }
