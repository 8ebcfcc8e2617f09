package partition

import (
	"slices"
	"sort"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
)

// stream is the read-ahead of one reader that reads from a device: a run of chunks, each a number of whole batches in
// one pooled buffer, ahead of the reader's position. A chunk stays until a read asks for an offset past it, so that a
// fetch may look, wait and look again. The device queue fills chunks, the convoy of the log shares them; streams never block.
//
//	reader at ──▼
//	        [ ready  ][ ready  ][ reading ][ queued ]
//	         head                              └── top is enqueued when a read has made room
//
// Everything is guarded by convoy.mu.
type stream struct {
	log *Log
	req admission.Request // flow, topic and client of every chunk

	chunks   []*coldChunk   // contiguous, ascending
	lane     admission.Lane // of all of them
	memo     segment.Offset // a batch boundary in the head: the offset that reading has come to …
	memoAt   int            // … and where it is
	expect   segment.Offset // where the head begins, or has to begin
	target   segment.Offset // what the stream was started for
	handle   *coldHandle    // of the segment that the next chunk lies in
	nextPos  int64
	nextSeg  segment.Offset // base offset of that segment
	watch    *Watch
	lastRead time.Time
	closed   bool

	apart   segment.Offset // 1 + the offset that another reader's chunk turned out not to hold: that one it reads by itself
	pieces  bool           // a cap is so small that it reads pieces of chunks, by itself
	follows bool           // what it got last was read in the turn of …
	leader  *stream
	reached int64 // how far its own turns have read, on the scale of Log.endPos
	left    LeaveReason
	leftAt  time.Time

	speed    speed     // of its reader
	capped   bool      // it has a cap
	grace    allowance // for how long others may wait for it
	holds    int       // chunks that do
	patience allowance // for how long it may wait for others
	waits    bool      // its head does
}

// streamRead is what one read got out of a stream.
type streamRead struct {
	chunk   *Chunk
	lane    admission.Lane
	queued  bool // the head waits for its turn at the device
	method  cachectl.Method
	refill  bool       // of the page cache, for a reader in real time
	beside  delayCause // of the chunk …
	ended   time.Time  // … and when it was there
	pending bool
	// replaced: the stream is at the end of a segment that compaction has replaced; it begins anew in the one that took its place.
	replaced bool
}

// read hands out whole batches from offset from on, up to maxBytes but at least one batch, when they are in memory; else
// it is pending and w will be notified. bound is the first offset not to be shown. Errors are those of the device read, or
// a *segment.CorruptError; the chunk is dropped, so that asking again reads again.
func (s *stream) read(from segment.Offset, maxBytes int64, bnd segment.Offset, w *Watch) (streamRead, error) {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	s.watch, s.lastRead = w, s.log.store.now()
	for len(s.chunks) > 0 && s.chunks[0].state == chunkReady && s.chunks[0].next <= from {
		others := s.chunks[0].asker != s
		s.dropLocked(0)
		if others && from == s.target {
			// It was to hold from, and ended before (damage ends a chunk): from its own place the reader need not meet that.
			s.resetLocked()
			s.apart = from + 1
			if w != nil {
				w.Notify()
			}
			return streamRead{pending: true, lane: s.lane}, nil
		}
		s.expect = from
		if len(s.chunks) == 0 { // the rest of the chunk was before from: go on behind it
			s.enqueueLocked()
		}
	}
	s.log.convoy.settleLocked(s)
	if len(s.chunks) == 0 {
		return streamRead{replaced: s.handle != nil && s.replacedLocked(s.log.view.Load())}, nil
	}
	s.topUpLocked()
	head := s.chunks[0]
	switch head.state {
	case chunkQueued, chunkReading:
		return streamRead{pending: true, lane: head.lane, queued: head.state == chunkQueued, refill: head.refills()}, nil
	case chunkFailed:
		err := head.err
		s.resetLocked()
		return streamRead{}, err
	}
	skip := 0
	if s.memo <= from {
		skip = s.memoAt
	}
	start, end, next, err := segment.CutBatches(head.data[skip:], from, max(maxBytes, 1), bnd)
	if err != nil {
		s.resetLocked()
		return streamRead{}, err
	}
	if start == end {
		return streamRead{lane: head.lane, method: head.method}, nil
	}
	s.memo, s.memoAt = next, skip+end
	s.speed.took(int64(end-start), s.lastRead)
	c := &Chunk{n: int64(end - start), mem: head.data[skip+start : skip+end], next: next}
	if head.buf != nil {
		head.buf.Retain()
		c.buf = head.buf
	}
	return streamRead{chunk: c, lane: head.servedLane(), method: head.method, refill: head.refills(), beside: head.beside, ended: head.ended}, nil
}

// covers tells whether the stream can serve from: it is in a chunk, or expected in the next one, or the stream was started
// for it and has not come to it yet (an index names a batch at or before an offset).
func (s *stream) covers(from segment.Offset) bool {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	if s.closed || len(s.chunks) == 0 {
		return false
	}
	at := s.expect
	for _, c := range s.chunks {
		if c.state != chunkReady {
			return from == at || from == s.target && at < from // it fell into a gap before the chunk
		}
		if from >= at && from < c.next {
			return true
		}
		at = c.next
	}
	return from == s.target && at < from
}

// dropReplaced forgets what was read of a segment that compaction has replaced: what told of the transactions that were aborted in it goes with
// their records, a compaction later.
func (s *stream) dropReplaced() {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	if slices.ContainsFunc(s.chunks, func(c *coldChunk) bool { return c.handle.seg.r.Superseded() }) {
		s.resetLocked()
	}
}

// endsAt gives the place of from when it is right behind everything the stream has read: exact, where an index only knows a
// batch before it.
func (s *stream) endsAt(from segment.Offset) (seg *logSegment, pos int64, ok bool) {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	if s.closed || len(s.chunks) == 0 {
		return nil, 0, false
	}
	last := s.chunks[len(s.chunks)-1]
	if last.state != chunkReady || last.next != from {
		return nil, 0, false
	}
	return last.handle.seg, last.pos + int64(len(last.data)), true
}

// start begins at byte pos of seg, which holds offset from. seg is acquired by the caller; the stream takes that over.
func (s *stream) start(seg *logSegment, pos int64, from segment.Offset, lane admission.Lane, w *Watch) {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	s.resetLocked()
	if s.closed {
		seg.r.Release()
		if w != nil && s.log.failed.Load() != nil {
			w.Notify() // deleted meanwhile: asking again tells
		}
		return
	}
	if from < s.expect {
		s.unfollowLocked() // it was sent back
	}
	s.handle, s.nextPos, s.nextSeg, s.expect, s.target, s.lane = newHandle(seg), pos, seg.base, from, from, lane
	s.reached = min(s.reached, s.frontPos())
	s.log.convoy.joinLocked(s)
	s.watch, s.lastRead = w, s.log.store.now()
	s.enqueueLocked()
	s.topUpLocked()
}

// frontPos is where the stream asks next, in bytes on the scale of Log.endPos.
func (s *stream) frontPos() int64 { return s.handle.seg.before.Load() + s.nextPos }

// topUpLocked keeps the read-ahead at its depth while the bytes ahead are cold; where they are resident the hot lane
// takes over.
func (s *stream) topUpLocked() {
	for len(s.chunks) > 0 && len(s.chunks) < s.log.store.readAhead(s.handle.seg.dir) {
		last := s.chunks[len(s.chunks)-1]
		if last.state == chunkFailed || !last.exact && last.state != chunkReady || !s.enqueueLocked() {
			return
		}
	}
}

// enqueueLocked takes the next chunk from the convoy, or asks the device queue for it; false when there is none to ask for
// now.
func (s *stream) enqueueLocked() bool {
	if s.closed || s.handle == nil {
		return false
	}
	v, b := s.log.view.Load(), s.log.readable()
	limit, ok := s.advanceLocked(v, b)
	if !ok {
		return false
	}
	seg := s.handle.seg
	lowest := seg.dir.cold.capOf(s.req)
	piece := pieceBytes(lowest, s.log.store.chunkBytes())
	s.capped, s.pieces = lowest > 0, piece > 0
	want, exact := s.nextChunkLocked(limit, piece)
	if len(s.chunks) > 0 && s.residentLocked(s.nextPos, want) {
		return false
	}
	shared := s.lane == admission.Bypass && !s.pieces && !s.log.store.opt.Alone && (len(s.chunks) > 0 || s.target+1 != s.apart)
	if shared && s.joinLocked() {
		return true
	}
	if s.pieces {
		s.leaveLocked(LeftCapped)
	}
	if len(s.chunks) > 0 && !s.mayReadAheadLocked() {
		return false
	}
	c := &coldChunk{convoy: &s.log.convoy, asker: s, handle: s.handle, lane: s.lane, pos: s.nextPos, want: want, limit: limit, exact: exact,
		shared: shared, takers: 1}
	if len(s.chunks) > 0 && len(c.convoy.holdersLocked(c)) > 0 {
		return false // the reader does not wait for it: it is asked for again when it does, or when those have come
	}
	c.handle.retain()
	c.convoy.askLocked(c)
	if !c.convoy.waitsLocked(c) && !c.submit() {
		c.withdrawnLocked()
		return false
	}
	s.chunks = append(s.chunks, c)
	s.nextPos += want
	return true
}

// nextChunkLocked is how many bytes the next chunk takes, and whether it ends at a batch boundary: one known to the index lets
// the chunk behind it be asked for before this one is parsed.
func (s *stream) nextChunkLocked(limit, piece int64) (want int64, exact bool) {
	most, stop := s.log.store.chunkBytes(), s.beforeHoleLocked(limit)
	r, pos := s.handle.seg.r, s.nextPos
	if !r.Ready() { // the chunk is trimmed when it is here, and the next one waits for that
		room := most / 16 // the batch across a line is the next chunk's, which goes on to the line after: a sliver may end within a header
		grid := most - room
		end := min(stop, ((pos+room)/grid+1)*grid)
		return end - pos, end == limit
	}
	before := func(at int64) int64 {
		b, err := r.BatchBoundaryBefore(at)
		if err != nil {
			return 0
		}
		return b
	}
	end, exact := chunkEnd(pos, stop, most, before)
	exact = exact && (end < stop || stop == limit)
	if s.lane == admission.Fill {
		if cold := s.coldLocked(end - pos); cold < end-pos {
			if end = before(pos + cold); end <= pos {
				return cold, false
			}
			exact = true
		}
	}
	if piece > 0 {
		if cut := pieceEnd(pos, end, piece, before); cut < end {
			end, exact = cut, true
		}
	}
	return end - pos, exact
}

// joinLocked takes the chunk that another reader's turn has brought or is bringing; false when there is none, or when a cap
// holds the bytes back.
func (s *stream) joinLocked() bool {
	seg := s.handle.seg
	c := s.log.convoy.atLocked(seg, s.nextPos)
	if c == nil {
		return false
	}
	r := s.req
	r.Kind, r.Bytes = admission.KindRead, c.end()-s.nextPos
	if !seg.dir.cold.share(r) {
		return false
	}
	s.takeLocked(c)
	s.chunks = append(s.chunks, c)
	s.nextPos = c.end()
	if s.handle != c.handle { // one set of descriptors for all
		c.handle.retain()
		s.handle.release()
		s.handle = c.handle
	}
	return true
}

// takeLocked: the stream has got c from another one.
func (s *stream) takeLocked(c *coldChunk) {
	cv, m := c.convoy, s.log.store.metrics
	cv.unkeepLocked(c)
	c.takers++
	m.convoyShared.Inc()
	if c.state == chunkReady {
		m.convoyServed.Add(float64(len(c.data)))
	}
	s.leader = c.asker
	if !s.follows {
		s.follows = true
		m.convoyFollowers.Inc()
	}
}

// replaceLocked puts another reader's chunk in the place of chunk i, which has left the device's queue.
func (s *stream) replaceLocked(i int, c *coldChunk) {
	expected := s.chunks[i].end()
	s.chunks[i].takers--
	s.chunks[i] = c
	s.takeLocked(c)
	s.alignAfterLocked(i, expected)
}

// aloneLocked: the stream's own turn reads c. A follower leads now; or, when its leader has read c before, it was left behind.
func (s *stream) aloneLocked(c *coldChunk) {
	s.log.store.metrics.convoyChunks.Inc()
	at := c.handle.seg.before.Load() + c.pos
	switch {
	case !s.follows:
	case at >= s.leader.reached:
		s.unfollowLocked()
	case at < c.convoy.droppedTo:
		s.leaveLocked(LeftMemory)
	default:
		s.leaveLocked(LeftBehind)
	}
}

// leaveLocked: a follower goes on by itself.
func (s *stream) leaveLocked(why LeaveReason) {
	if s.follows {
		s.left, s.leftAt = why, s.log.store.now()
		s.log.store.metrics.convoyLeft(why)
		s.unfollowLocked()
	}
}

func (s *stream) unfollowLocked() {
	if s.follows {
		s.follows, s.leader = false, nil
		s.log.store.metrics.convoyFollowers.Dec()
	}
}

// aheadFor is for how long the next chunk may lie there before no more is read ahead for its reader: more would only hold memory that
// makes the runs of faster readers longer. A quarter of it took demand from consumers that had too little processor time: a group of three times
// the weight got 2.6 to 3.0 times in place of 2.9 to 3.2 (tests/fairness, Shares, beside three busy loops).
const aheadFor = time.Second

// mayReadAheadLocked tells whether a chunk may be asked for that the reader does not wait for yet. The second one may while
// there is a buffer for it, those after it while a quarter of the pool is free, beside what has been asked for, and while the reader
// takes what there is.
func (s *stream) mayReadAheadLocked() bool {
	st := s.log.store
	if len(s.chunks) > 1 && s.chunks[1].state == chunkReady && s.lastRead.Sub(s.chunks[1].ended) > aheadFor {
		return false
	}
	free := st.freeChunks()
	// A rotating disk is at one place at a time: what others have asked for is read when this has been taken, or is not read (memory).
	if s.handle.seg.dir.spec.Rotating {
		for _, c := range s.chunks {
			if c.state == chunkQueued {
				free--
			}
		}
	} else {
		free -= int(st.askedChunks.Load())
	}
	if len(s.chunks) == 1 {
		return free > 0
	}
	return free > st.poolChunks()/4
}

// advanceLocked moves to the next segment when this one is read to its end, and tells how far the current one may be read.
func (s *stream) advanceLocked(v *view, b *bound) (limit int64, ok bool) {
	for {
		switch {
		case s.nextSeg == b.base:
			limit = b.pos
			if m := s.handle.seg.r.Meta(); m.Sealed && m.Next <= b.offset {
				limit = m.SizeBytes // compaction may have changed it
			}
		case s.nextSeg < b.base:
			limit = s.handle.seg.r.Meta().SizeBytes
		default:
			return 0, false
		}
		s.stepOverHolesLocked()
		if s.nextPos < limit {
			return limit, true
		}
		if s.nextSeg >= b.base {
			return 0, false
		}
		i := v.find(s.nextSeg)
		if i < 0 || i+1 >= len(v.segs) || s.replacedLocked(v) {
			return 0, false
		}
		seg := v.segs[i+1]
		if !seg.r.Acquire() {
			return 0, false
		}
		s.handle.release()
		s.handle, s.nextSeg, s.nextPos = newHandle(seg), seg.base, 0
		seg.prepared(nil) // begun now, it is ready for the second chunk
	}
}

// replacedLocked tells whether compaction has put the stream's segment together with others: then the segment that follows in v is
// not the one that follows it.
func (s *stream) replacedLocked(v *view) bool {
	i, m := v.find(s.nextSeg), s.handle.seg.r.Meta()
	return i >= 0 && m.Sealed && (v.segs[i].base != s.nextSeg || v.next(i) != m.Next)
}

// stepOverHolesLocked moves out of a range that is known to be damaged: what lies behind it stays readable.
func (s *stream) stepOverHolesLocked() {
	for _, d := range s.handle.seg.damaged() {
		if s.nextPos >= d.pos && s.nextPos < d.end {
			s.nextPos = d.end
		}
	}
}

// beforeHoleLocked is where the next damaged range begins, or limit.
func (s *stream) beforeHoleLocked(limit int64) int64 {
	for _, d := range s.handle.seg.damaged() {
		if d.pos > s.nextPos {
			limit = min(limit, d.pos)
		}
	}
	return limit
}

// residentLocked: [pos, pos+n) is in the page cache, so reading it around it would be waste.
func (s *stream) residentLocked(pos, n int64) bool {
	if !s.handle.seg.r.Ready() {
		return false // nobody has read it of late
	}
	f, err := s.handle.seg.r.File()
	if err != nil {
		return false
	}
	ok, err := s.log.store.opt.Cache.Resident(f, pos, n)
	return err == nil && ok
}

// coldLocked shortens the next n bytes to what a refill is for: up to where the rest is in the page cache, in steps of
// probeBytes. A real-time reader that lost a few pages goes back to the hot lane behind them.
func (s *stream) coldLocked(n int64) int64 {
	steps := int((n - 1) / probeBytes)
	first := sort.Search(steps, func(i int) bool { // the tail of a resident tail is resident
		from := int64(i+1) * probeBytes
		return s.residentLocked(s.nextPos+from, n-from)
	})
	return min(n, int64(first+1)*probeBytes)
}

// yieldMemory gives chunks back: what is read ahead of the head, and the head, too, when the reader has not asked for a
// while, unless it is the one that needs the memory.
func (s *stream) yieldMemory(now time.Time, asking bool) {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	if len(s.chunks) == 0 {
		return
	}
	if !asking && s.pausesLocked(now) {
		s.giveUpLocked()
	} else {
		s.cutLocked(1)
	}
	for s.log.convoy.dropKeptLocked() {
	}
}

// pauses tells whether the reader has not come for a while for what is there. One that waits for the device does not pause.
func (s *stream) pauses(now time.Time) bool {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	return s.pausesLocked(now)
}

func (s *stream) pausesLocked(now time.Time) bool {
	if len(s.chunks) == 0 || now.Sub(s.lastRead) <= streamPause {
		return false
	}
	head := s.chunks[0]
	return head.state == chunkFailed || head.state == chunkReady && now.Sub(head.ended) > streamPause
}

// cutLocked drops the chunks from i on and goes back to where they began.
func (s *stream) cutLocked(i int) {
	if i >= len(s.chunks) {
		return
	}
	c := s.chunks[i]
	c.handle.retain()
	for len(s.chunks) > i {
		s.dropLocked(len(s.chunks) - 1)
	}
	s.handle.release()
	s.handle, s.nextSeg, s.nextPos = c.handle, c.handle.seg.base, c.pos
}

// reclaim takes memory from the streams of all readers for one of them.
func (s *Store) reclaim(asking *stream) {
	now := s.now()
	for _, l := range s.Logs() {
		for _, c := range l.cursors.all() {
			c.stream.yieldMemory(now, c.stream == asking)
		}
	}
}

// alignAfterLocked drops the read-ahead behind chunk i when that one ended elsewhere than expected (the index knew no
// boundary, or another reader had asked for it).
func (s *stream) alignAfterLocked(i int, expected int64) {
	c := s.chunks[i]
	if c.end() == expected {
		return
	}
	s.cutLocked(i + 1)
	if s.handle != c.handle {
		s.handle.release()
		c.handle.retain()
		s.handle = c.handle
	}
	s.nextSeg, s.nextPos = c.handle.seg.base, c.end()
}

// dropLocked forgets chunk i.
func (s *stream) dropLocked(i int) {
	c := s.chunks[i]
	s.chunks = slices.Delete(s.chunks, i, i+1)
	if i == 0 {
		s.memo, s.memoAt = 0, 0
	}
	if c.takers--; c.takers > 0 {
		return
	}
	switch c.state {
	case chunkReady:
		c.convoy.keepLocked(c)
	case chunkFailed:
		c.handle.release()
	case chunkQueued:
		if c.convoy.stopWaitingLocked(c) || c.handle.seg.dir.cold.cancel(c.id) {
			c.withdrawnLocked()
		}
	case chunkReading: // its end sees that nobody has it
	}
}

// resetLocked forgets all read-ahead.
func (s *stream) resetLocked() {
	for len(s.chunks) > 0 {
		s.dropLocked(len(s.chunks) - 1)
	}
	if s.handle != nil {
		s.handle.release()
		s.handle = nil
	}
	s.log.convoy.leaveLocked(s)
}

// giveUp is reset for a reader that did not ask for it. If it is parked for a chunk, it has to ask again.
func (s *stream) giveUp() {
	s.log.convoy.mu.Lock()
	s.giveUpLocked()
	s.log.convoy.mu.Unlock()
}

func (s *stream) giveUpLocked() {
	if s.watch != nil && len(s.chunks) > 0 {
		s.watch.Notify()
	}
	s.watch = nil
	s.leaveLocked(LeftPaused)
	s.resetLocked()
}

// reset gives the read-ahead back; the stream can be started again.
func (s *stream) reset() {
	s.log.convoy.mu.Lock()
	s.watch = nil
	s.unfollowLocked()
	s.resetLocked()
	s.log.convoy.mu.Unlock()
}

// close gives everything back. A closed stream stays closed.
func (s *stream) close() {
	s.log.convoy.mu.Lock()
	defer s.log.convoy.mu.Unlock()
	s.closed = true
	if s.watch != nil && len(s.chunks) > 0 && s.log.failed.Load() != nil {
		s.watch.Notify() // its reader is parked for them, and has to hear why they do not come
	}
	s.watch = nil
	s.unfollowLocked()
	s.resetLocked()
}
