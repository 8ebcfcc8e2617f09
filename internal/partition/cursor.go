package partition

import (
	"sync"
	"sync/atomic"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
)

// Bounds of the cursors of one partition. A cursor costs about 600 bytes; one that has not been used for a while is a
// consumer that left. Above the first bound none goes that waits for a device, above the second the oldest goes, whatever it does.
const (
	maxCursors  = 1024
	mostCursors = 16 * maxCursors
	cursorIdle  = 10 * time.Minute
	streamPause = 2 * time.Second  // under memory pressure a reader that has not asked for this long gives its chunks to others
	streamIdle  = 10 * time.Second // a consumer that pauses this long gives its read-ahead memory back
)

// cursor is one reader's place in one partition. Its mutex serialises the reads of one reader.
type cursor struct {
	ref  ReaderRef
	key  admission.ReaderKey
	log  *Log
	used time.Time // guarded by cursorSet.mu
	conn uint64    // that used it last; likewise

	mu       sync.Mutex
	stream   *stream
	seg      *logSegment    // of the last hot extent, nil: none
	next     segment.Offset // offset after that extent
	at       int64          // byte after that extent: where the next read begins
	class    admission.Class
	behind   int64
	missed   time.Time // since then it waits in real time for a device; zero: it does not
	prepares int       // waits of this read for lists of aborted transactions, see maxPrepares

	// What is told of the reader. A read that meets a device which does not answer holds mu for as long, and nobody who looks waits for it.
	seenMu   sync.Mutex
	offset   segment.Offset // last offset asked for
	decision admission.Decision
	read     admission.Read
	method   cachectl.Method
	waitFrom time.Time

	// For the hot windows, which do not wait for mu: where the reader is, on the scale of Log.endPos, when it said so, and
	// whether it reads in real time.
	place, readNs atomic.Int64
	realtime      atomic.Bool
}

// cursorSet are the readers of one partition.
type cursorSet struct {
	log    *Log
	mu     sync.Mutex
	by     map[admission.ReaderKey]*cursor
	closed bool
}

// of finds or makes the cursor of ref.
func (s *cursorSet) of(ref ReaderRef, now time.Time) *cursor {
	k := admission.ReaderKey{Group: ref.Group, Client: ref.ClientID, Topic: s.log.topic, Partition: s.log.partition}
	if ref.Group == "" {
		k.Conn = ref.Conn // two consumers with one client id are two readers
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.by[k]
	if !ok {
		if len(s.by) >= maxCursors {
			s.dropOldestLocked(now)
		}
		c = &cursor{ref: ref, log: s.log, key: k}
		c.stream = &stream{log: s.log, req: admission.Request{Flow: c.key.Flow(), Topic: s.log.topic, Client: ref.ClientID}, closed: s.closed}
		s.by[k] = c
	}
	c.used, c.conn = now, ref.Conn
	return c
}

// dropOldestLocked forgets the cursor that was used longest ago of those that need not be kept, if there is one.
func (s *cursorSet) dropOldestLocked(now time.Time) {
	var oldest *cursor
	var key admission.ReaderKey
	s.log.convoy.mu.Lock()
	for k, c := range s.by {
		waits := len(c.stream.chunks) > 0 && now.Sub(c.stream.lastRead) <= streamPause
		if (!waits || len(s.by) >= mostCursors) && (oldest == nil || c.used.Before(oldest.used)) {
			oldest, key = c, k
		}
	}
	s.log.convoy.mu.Unlock()
	if oldest != nil {
		delete(s.by, key)
		go oldest.stream.close()
	}
}

// disconnected takes the read-ahead of readers whose connection has ended: that memory is everybody's.
func (s *cursorSet) disconnected(conn uint64) {
	for _, c := range s.all() {
		s.mu.Lock()
		gone := c.conn == conn
		s.mu.Unlock()
		if gone {
			c.stream.giveUp()
		}
	}
}

// sweep closes the streams of readers that pause, sooner when memory is short, and forgets readers that left.
func (s *cursorSet) sweep(now time.Time, short bool) {
	var idle []*stream
	var live []*cursor
	s.mu.Lock()
	for k, c := range s.by {
		quiet := now.Sub(c.used)
		if quiet > cursorIdle {
			delete(s.by, k)
		}
		if quiet > streamIdle || short && c.stream.pauses(now) {
			idle = append(idle, c.stream)
		} else {
			live = append(live, c)
		}
	}
	s.mu.Unlock()
	for _, c := range live {
		s.log.waited(c, now)
	}
	for _, st := range idle {
		st.giveUp()
	}
}

// all gives the cursors, for views.
func (s *cursorSet) all() []*cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*cursor, 0, len(s.by))
	for _, c := range s.by {
		out = append(out, c)
	}
	return out
}

// closeAll gives all read-ahead back, for good: a read that is under way makes none that nobody would take back.
func (s *cursorSet) closeAll() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range s.all() {
		c.stream.close()
	}
}

// moved remembers where the extent that was just served ends.
func (c *cursor) moved(s *logSegment, next segment.Offset, end int64) {
	c.seg, c.next, c.at = s, next, end
	c.stream.reset()
}

// toEnd: the reader has read everything; the place of the next record is where the log ends now.
func (c *cursor) toEnd() {
	c.stream.reset()
	c.missed = time.Time{}
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	c.decision = admission.Decision{Lane: admission.Hot, Reason: admission.ReasonAtEnd, Text: "nothing left to read"}
}

// note keeps the decision for people.
func (c *cursor) note(d admission.Decision, r admission.Read) {
	c.seenMu.Lock()
	c.decision, c.read, c.waitFrom = d, r, time.Time{}
	c.seenMu.Unlock()
	if d.Lane != admission.Fill {
		c.missed = time.Time{} // what it waited for is here by other means, or not wanted any more
	}
}

// deferred: the device has not yet given the reader its turn.
func (c *cursor) deferred(now time.Time) {
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	if c.waitFrom.IsZero() {
		c.waitFrom = now
	}
}

// observe tells admission where the reader is. at is its position in bytes, on the scale of Log.endPos.
func (l *Log) observe(c *cursor, from segment.Offset, b *bound, at int64, now time.Time) {
	c.seenMu.Lock()
	c.offset = from
	c.seenMu.Unlock()
	c.behind = max(0, l.endPos.Load()-at)
	p := admission.Position{Offset: int64(from), EndOffset: int64(b.offset), BehindBytes: c.behind}
	if from < b.offset {
		p.BehindAge = l.behindAge(from, now)
	} else {
		p.BehindBytes = 0
	}
	l.store.readersMu.Lock()
	c.class = l.store.readers.Observe(c.key, p, now)
	l.store.readersMu.Unlock()
	c.notePlace(at, now)
}

// behindAge is how old the next record at from is; negative when that is not known, as for records from before the last
// start: then the distance in bytes alone decides.
func (l *Log) behindAge(from segment.Offset, now time.Time) time.Duration {
	age, known := l.ages.age(from, now)
	if known {
		return age
	}
	v := l.view.Load()
	if i := v.find(from); i >= 0 {
		// The newest record of a sealed segment bounds the age of all of its records from below.
		if ms := v.segs[i].r.Meta().MaxTimestampMs; ms > 0 && i+1 < len(v.segs) {
			age = max(age, now.Sub(time.UnixMilli(ms)))
		}
	}
	if age < l.store.opt.Readers.MinAge {
		return -1
	}
	return age
}

// waited books the time since the reader's read was queued, so that it counts as held back and not as stalled.
func (l *Log) waited(c *cursor, now time.Time) {
	c.seenMu.Lock()
	from, offset := c.waitFrom, c.offset
	waits := !from.IsZero() && now.After(from)
	if waits {
		c.waitFrom = now
	}
	c.seenMu.Unlock()
	if !waits {
		return
	}
	v := l.view.Load()
	limit := v.segs[max(0, v.find(offset))].dir.cold.limitedBy(c.key.Flow())
	l.store.readersMu.Lock()
	l.store.readers.Waited(c.key, now.Sub(from), limit, now)
	l.store.readersMu.Unlock()
}

// served books bytes that went to the reader.
func (l *Log) served(c *cursor, lane admission.Lane, n int64) {
	now := l.store.now()
	l.waited(c, now)
	l.store.readersMu.Lock()
	l.store.readers.Served(c.key, lane, n, now)
	l.store.readersMu.Unlock()
	l.store.metrics.served(c.class.State, lane, n)
	l.bytesOut.Add(n)
	c.seenMu.Lock()
	c.waitFrom = time.Time{}
	c.seenMu.Unlock()
	c.missed = time.Time{}
}
