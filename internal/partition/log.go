package partition

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/segment"
)

// Log is one partition: its segments in all tiers, its offsets, its readers. Safe for concurrent use.
type Log struct {
	store     *Store
	topic     string
	id        [16]byte
	partition int32
	dir       string // name of the partition directory, the same in every tier
	home      *logDir
	made      bool // after the start, and not found
	log       *slog.Logger

	cfg     atomic.Pointer[Config]
	view    atomic.Pointer[view]
	durable atomic.Pointer[bound] // everything below is on stable storage, in its segment file or in the commit journal
	filed   atomic.Pointer[bound] // everything below is on stable storage in its segment file
	written atomic.Pointer[bound] // interval mode only: everything below is in the page cache
	// snapshotAt is the offset of the newest producer snapshot. Segments above it stay in the hottest tier: a start reads
	// their headers to know the producers.
	snapshotAt atomic.Int64
	end        atomic.Int64          // next offset to be assigned
	endPos     atomic.Int64          // bytes of all segments together, for distances
	unstable   atomic.Int64          // first offset of the oldest transaction that is not decided for readers; noTxn for none
	aborts     atomic.Bool           // some segment may hold an abort marker
	failed     atomic.Pointer[error] // this partition alone is offline (a lost or damaged directory)

	mu            sync.Mutex // the appender lock
	w             *segment.Writer
	producers     *segment.ProducerState
	epochs        *segment.EpochCache
	sealing       []*segment.Writer   // rolled, not yet synced and sealed; oldest first
	rolledAt      time.Time           // when w was made
	flushedAt     time.Time           // last commit that tick asked for
	flushDue      bool                // the next commit syncs the file: in interval mode it does not only begin to write, with a commit journal it does not go there
	syncDue       bool                // interval mode with a commit journal: somebody relies on what was appended
	writtenBack   int64               // bytes of w whose writing was begun
	indexSaved    int64               // size of the active segment when its index was last saved
	unsyncedAt    time.Time           // begin of the oldest append that no sync has taken, zero without; not in interval mode
	sinceSnapshot int64               // bytes appended since the last producer snapshot
	ended         []endedTxn          // by marker
	guards        map[int64]heldGuard // writes that wait for the transaction coordinator, by producer
	nextGuard     TxnGuard
	snapshotDue   bool             // one is to be taken at the next commit
	snapshotWaits *pendingSnapshot // with a commit journal: until the file has everything below it
	closed        bool
	ages          ageRing
	obeyed        *Config // what obey has brought the log in line with last

	obeyMu  sync.Mutex    // comes after mu
	obeying chan struct{} // a goroutine waits for mu to obey the configuration, and closes this when it has; nil: none

	journalQueued bool            // guarded by journalCommitter.mu
	journaledIn   *segment.Writer // these four belong to journalCommitter.run: everything in this segment below journaledTo is in the journal, or the file; nil: nothing
	journaledTo   int64
	journalRest   *journaled // what the rounds so far had no room for, nil without
	journalSince  time.Time  // begin of the oldest append that was taken and is not acknowledged, zero without

	commit  commitState // guarded by the committer
	window  uint64      // of the device's syncGate, in which it was synced last; guarded by the committer
	syncing sync.Mutex  // held by a running sync, so that a deletion can wait for it

	filesMu sync.Mutex // held while segment files are renamed or removed by name …
	removed bool       // … which must not happen any more: the directory's name may belong to another topic

	openedAt segment.Offset // the end then: what lies behind it has been in the page cache

	bytesIn, recordsIn, bytesOut atomic.Int64
	appendOnWay, commitOnWay     onWay

	publishing sync.Mutex // of durable

	waitMu  sync.Mutex
	waiters []*durableWaiter

	watchMu sync.Mutex
	watches map[*Watch]watched

	due      atomic.Pointer[bound] // how far a delayed log is seen, nil without a delay
	delivery delivery

	grow        growth     // guarded by Store.racing
	maintenance sync.Mutex // one retention, trim, compaction swap or migration publish at a time
	left        []drop     // what retention could not discard yet; guarded by maintenance
	mending     sync.Mutex // one repair of a list of aborted transactions at a time
	cursors     cursorSet
	hot         hotState
	convoy      convoy
	compact     compactState
}

// watched is what a fetch waits for: that records at an offset can be read, or, committed, that they are decided.
type watched struct {
	from      segment.Offset
	committed bool
}

// view is what readers see of the segments. Immutable; replaced under Log.mu.
type view struct {
	segs  []*logSegment // by base offset, the last one is active
	start segment.Offset
}

// logSegment is one segment in one directory.
type logSegment struct {
	r    *segment.Reader
	dir  *logDir
	base segment.Offset
	// before is where the segment begins on the scale of positions in the log: a segment begins where the one before it ends, and what
	// retention deletes need not renumber the rest. Distances are differences on this scale. Compaction shifts what is older than a
	// segment that became smaller (Log.shiftLocked), so a position that was noted before that is told anew when its owner reads again.
	before atomic.Int64
	extra  atomic.Pointer[[]damage]
	prep   preparation
	fileMs atomic.Int64 // modification time of its file, Unix ms, 0: not known
	pin    segmentPin
	fills  fills
	place  place
}

// find gives the index of the segment that holds off, -1 when off lies before the first.
func (v *view) find(off segment.Offset) int {
	lo, hi := 0, len(v.segs)
	for lo < hi {
		if m := (lo + hi) / 2; v.segs[m].base <= off {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo - 1
}

// end is the base of the segment after i, or no bound for the last one.
func (v *view) next(i int) segment.Offset {
	if i+1 < len(v.segs) {
		return v.segs[i+1].base
	}
	return 1<<63 - 1
}

// bytes is the size of the segment's log.
func (s *logSegment) bytes() int64 {
	if s.r == nil {
		return 0 // stands in for an offline partition
	}
	return s.r.Meta().SizeBytes
}

// span is where segment i lies on the scale of logSegment.before, as far as end: the last one has no end of its own.
func (v *view) span(i int, end int64) (from, to int64) {
	s := v.segs[i]
	if from = s.before.Load(); i+1 < len(v.segs) { // once: a compaction may shift it
		end = min(end, from+s.bytes())
	}
	return from, end
}

// newLogSegment makes the segment of r in d that begins at byte before.
func newLogSegment(r *segment.Reader, d *logDir, base segment.Offset, before int64) *logSegment {
	s := &logSegment{r: r, dir: d, base: base}
	s.before.Store(before)
	return s
}

// active is the segment that appends go to.
func (v *view) active() *logSegment { return v.segs[len(v.segs)-1] }

// Topic, ID and Partition name the log.
func (l *Log) Topic() string    { return l.topic }
func (l *Log) ID() [16]byte     { return l.id }
func (l *Log) Partition() int32 { return l.partition }

func (l *Log) config() *Config { return l.cfg.Load() }

// Err is why the partition is offline (it is ErrFenced or ErrClosed), or nil.
func (l *Log) Err() error {
	if e := l.failed.Load(); e != nil {
		return *e
	}
	return l.home.fenced()
}

// readable says how far consumers see: the one place that defines the high watermark. In the safe mode it is the durable
// bound, so that nothing a consumer has read can be taken back by a power cut; with a flush interval the topic has opted
// out and it is the written end. A delayed log ends before the first record that is not due.
func (l *Log) readable() *bound {
	b := l.acknowledged()
	if due := l.due.Load(); due != nil && due.offset < b.offset {
		return due
	}
	return b
}

// acknowledged is readable without a delay: a crash takes nothing below it back, as far as the topic's flush setting promises.
func (l *Log) acknowledged() *bound {
	b := l.durable.Load()
	if l.config().FlushInterval > 0 {
		if w := l.written.Load(); w != nil && w.offset > b.offset { // it is old while the topic is about to opt out
			b = w
		}
	}
	return b
}

// endBound is the end of what was appended; l.mu is held.
func (l *Log) endBound() *bound {
	return &bound{offset: l.w.Next(), base: l.w.Base(), pos: l.w.Size()}
}

// Offsets is one consistent view of the bounds.
func (l *Log) Offsets() Offsets {
	v, b := l.view.Load(), l.readable()
	o := Offsets{LogStart: v.start, HighWatermark: max(v.start, b.offset), LastStable: max(v.start, l.stable(b.offset)), End: segment.Offset(l.end.Load()), LocalStart: v.start}
	o.End = max(o.End, o.HighWatermark)
	for _, s := range v.segs {
		if s.dir.rank == 0 {
			o.LocalStart = max(s.base, v.start)
			break
		}
	}
	o.LeaderEpoch = l.epoch()
	return o
}

// epoch is the leader epoch of appends: the latest in the checkpoint, which a log directory taken over from Kafka brings
// along.
func (l *Log) epoch() int32 {
	if e, ok := l.epochs.Latest(); ok {
		return e.Epoch
	}
	return 0
}

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest known epoch at or below the asked one and where it ends;
// (-1, -1) when the epoch is unknown.
func (l *Log) EndOffsetForEpoch(epoch int32) (int32, segment.Offset) {
	return l.epochs.EndOffset(epoch, segment.Offset(l.end.Load()))
}

// SizeBytes is the size of all segments in all tiers.
func (l *Log) SizeBytes() int64 {
	total := int64(0)
	for _, s := range l.view.Load().segs {
		total += s.bytes()
	}
	return total
}

// Totals are what went in and out since the start.
type Totals struct{ BytesIn, RecordsIn, BytesOut int64 }

// Totals are what went in and out since the start.
func (l *Log) Totals() Totals {
	return Totals{l.bytesIn.Load(), l.recordsIn.Load(), l.bytesOut.Load()}
}

// Producers lists the producers that the partition remembers.
func (l *Log) Producers() []segment.ProducerView {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.producers.Views()
}

// setViewLocked publishes a new view; l.mu is held.
func (l *Log) setViewLocked(segs []*logSegment, start segment.Offset) {
	l.view.Store(&view{segs: segs, start: start})
}

// watch registers w to be notified when records at from can be read, by readers of that isolation.
func (l *Log) watch(w *Watch, from segment.Offset, committed bool) {
	l.watchMu.Lock()
	_, had := l.watches[w]
	l.watches[w] = watched{from, committed}
	l.watchMu.Unlock()
	if !had {
		w.mu.Lock()
		w.logs = append(w.logs, l)
		w.mu.Unlock()
	}
}

// wakeReaders notifies the watches whose offset the readable bound, or the last stable offset, has passed.
func (l *Log) wakeReaders(readable segment.Offset) {
	stable := l.stable(readable)
	l.watchMu.Lock()
	for w, at := range l.watches {
		if at.from < stable || !at.committed && at.from < readable {
			w.Notify()
		}
	}
	l.watchMu.Unlock()
}

// Close leaves every log it was given to. The Watch must not be used again.
func (w *Watch) Close() {
	w.mu.Lock()
	logs := w.logs
	w.logs = nil
	w.mu.Unlock()
	for _, l := range logs {
		l.watchMu.Lock()
		delete(l.watches, w)
		l.watchMu.Unlock()
	}
}

// ageRing remembers when the log's end was where, at most one sample a second, so that a distance can be told in time
// without reading a record. Guarded by Log.mu on write; readers take ageMu.
type ageRing struct {
	mu      sync.Mutex
	samples [128]ageSample
	n       int // samples written so far
}

type ageSample struct {
	end segment.Offset
	at  time.Time
}

// note records that the end was end at time at.
func (r *ageRing) note(end segment.Offset, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n > 0 && at.Sub(r.samples[(r.n-1)%len(r.samples)].at) < time.Second {
		return
	}
	r.samples[r.n%len(r.samples)] = ageSample{end, at}
	r.n++
}

// age is how long ago the record at off was appended, to a second; known is false when it is older than the ring, in
// which case age is a lower bound.
func (r *ageRing) age(off segment.Offset, now time.Time) (age time.Duration, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := max(0, r.n-len(r.samples))
	for i := r.n - 1; i >= oldest; i-- {
		if s := r.samples[i%len(r.samples)]; s.end <= off {
			return now.Sub(s.at), true
		}
	}
	if r.n == 0 {
		return 0, false
	}
	return now.Sub(r.samples[oldest%len(r.samples)].at), false
}
