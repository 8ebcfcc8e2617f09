package partition

import (
	"context"
	"errors"
	"io"
	"slices"
	"sort"
	"sync"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
)

// stream is the read-ahead of one reader that reads from a device: a run of chunks, each a number of whole batches in
// one pooled buffer, ahead of the reader's position. A chunk stays until a read asks for an offset past it, so that a
// fetch may look, wait and look again. The device queue fills chunks; streams never block.
//
//	reader at ──▼
//	        [ ready  ][ ready  ][ reading ][ queued ]
//	         head                              └── top is enqueued when a read has made room
type stream struct {
	log *Log
	req admission.Request // flow, topic and client of every chunk

	mu       sync.Mutex
	chunks   []*coldChunk   // contiguous, ascending
	expect   segment.Offset // where the head begins, or has to begin
	target   segment.Offset // what the stream was started for
	handle   *coldHandle    // of the segment that the next chunk lies in
	nextPos  int64
	nextSeg  segment.Offset // base offset of that segment
	watch    *Watch
	lastRead time.Time
	closed   bool
}

// chunkState is the life of a chunk: queued → reading → ready | failed.
type chunkState uint8

const (
	chunkQueued chunkState = iota
	chunkReading
	chunkReady
	chunkFailed
)

// coldChunk is [pos, pos+want) of a segment's log file, trimmed to whole batches once it is read. Guarded by stream.mu,
// but for buf and data while reading.
type coldChunk struct {
	stream *stream
	handle *coldHandle
	lane   admission.Lane
	pos    int64
	want   int64
	limit  int64 // first byte of the file that must not be read
	exact  bool  // pos+want is a batch boundary
	id     uint64
	state  chunkState
	gone   bool // the stream has dropped it while it was read

	buf    *cachectl.Buffer // nil for a batch larger than a chunk: data is then its own memory
	data   []byte           // whole batches
	next   segment.Offset   // offset after the last of them
	memo   segment.Offset   // a batch boundary in data: the offset that reading has come to …
	memoAt int              // … and where it is
	cached int64            // of what was read, bytes that were in the page cache and not on the device
	method cachectl.Method
	err    error
}

// streamRead is what one read got out of a stream.
type streamRead struct {
	chunk   *Chunk
	lane    admission.Lane
	queued  bool // the head waits for its turn at the device
	method  cachectl.Method
	pending bool
}

// read hands out whole batches from offset from on, up to maxBytes but at least one batch, when they are in memory; else
// it is pending and w will be notified. bound is the first offset not to be shown. Errors are those of the device read, or
// a *segment.CorruptError; the chunk is dropped, so that asking again reads again.
func (s *stream) read(from segment.Offset, maxBytes int64, bnd segment.Offset, w *Watch) (streamRead, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch, s.lastRead = w, s.log.store.now()
	for len(s.chunks) > 0 && s.chunks[0].state == chunkReady && s.chunks[0].next <= from {
		lane := s.chunks[0].lane
		s.dropLocked(0)
		s.expect = from
		if len(s.chunks) == 0 { // the rest of the chunk was before from: go on behind it
			s.enqueueLocked(lane)
		}
	}
	if len(s.chunks) == 0 {
		return streamRead{}, nil
	}
	s.topUpLocked()
	head := s.chunks[0]
	switch head.state {
	case chunkQueued, chunkReading:
		return streamRead{pending: true, lane: head.lane, queued: head.state == chunkQueued}, nil
	case chunkFailed:
		err := head.err
		s.resetLocked()
		return streamRead{}, err
	}
	skip := 0
	if head.memo <= from {
		skip = head.memoAt
	}
	start, end, next, err := segment.CutBatches(head.data[skip:], from, max(maxBytes, 1), bnd)
	if err != nil {
		s.resetLocked()
		return streamRead{}, err
	}
	if start == end {
		return streamRead{lane: head.lane, method: head.method}, nil
	}
	head.memo, head.memoAt = next, skip+end
	c := &Chunk{n: int64(end - start), mem: head.data[skip+start : skip+end], next: next}
	if head.buf != nil {
		head.buf.Retain()
		c.buf = head.buf
	}
	return streamRead{chunk: c, lane: head.lane, method: head.method}, nil
}

// covers tells whether the stream can serve from: it is in a chunk, or expected in the next one, or the stream was started
// for it and has not come to it yet (an index names a batch at or before an offset).
func (s *stream) covers(from segment.Offset) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.chunks) == 0 {
		return false
	}
	at := s.expect
	for _, c := range s.chunks {
		if c.state != chunkReady {
			return from == at
		}
		if from >= at && from < c.next {
			return true
		}
		at = c.next
	}
	return from == s.target && at < from
}

// endsAt gives the place of from when it is right behind everything the stream has read: exact, where an index only knows a
// batch before it.
func (s *stream) endsAt(from segment.Offset) (base segment.Offset, pos int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.chunks) == 0 {
		return 0, 0, false
	}
	last := s.chunks[len(s.chunks)-1]
	if last.state != chunkReady || last.next != from {
		return 0, 0, false
	}
	return last.handle.seg.base, last.pos + int64(len(last.data)), true
}

// start begins at byte pos of seg, which holds offset from. seg is acquired by the caller; the stream takes that over.
func (s *stream) start(seg *logSegment, pos int64, from segment.Offset, lane admission.Lane, w *Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetLocked()
	s.handle, s.nextPos, s.nextSeg, s.expect, s.target = newHandle(seg), pos, seg.base, from, from
	s.watch, s.lastRead = w, s.log.store.now()
	s.enqueueLocked(lane)
	s.topUpLocked()
}

// topUpLocked keeps the read-ahead at its depth while the bytes ahead are cold; where they are resident the hot lane
// takes over.
func (s *stream) topUpLocked() {
	for len(s.chunks) > 0 && len(s.chunks) < s.log.store.readAhead() {
		last := s.chunks[len(s.chunks)-1]
		if last.state == chunkFailed || !last.exact && last.state != chunkReady || !s.enqueueLocked(last.lane) {
			return
		}
	}
}

// enqueueLocked asks the device queue for the next chunk; false when there is none to ask for now.
func (s *stream) enqueueLocked(lane admission.Lane) bool {
	if s.closed {
		return false
	}
	v, b := s.log.view.Load(), s.log.readable()
	limit, ok := s.advanceLocked(v, b)
	if !ok {
		return false
	}
	want := min(s.log.store.chunkBytes(), s.beforeHoleLocked(limit)-s.nextPos)
	if len(s.chunks) > 0 && s.residentLocked(s.nextPos, want) {
		return false
	}
	if lane == admission.Fill {
		want = s.coldLocked(want)
	}
	// A boundary known to the index lets the next chunk be asked for before this one is parsed.
	exact := s.nextPos+want == limit
	if r := s.handle.seg.r; !exact && r.Ready() { // else the chunk is trimmed when it is here, and the next one waits for that
		if end, err := r.BatchBoundaryBefore(s.nextPos + want); err == nil && end > s.nextPos {
			want, exact = end-s.nextPos, true
		}
	}
	c := &coldChunk{stream: s, handle: s.handle, lane: lane, pos: s.nextPos, want: want, limit: limit, exact: exact}
	c.handle.retain()
	r := s.req
	r.Kind, r.Bytes, r.Position = admission.KindRead, want, c.pos
	if lane == admission.Fill && s.log.store.opt.Mode != admission.ModeBuffered {
		r.Kind = admission.KindRefill
	}
	id, err := c.handle.seg.dir.cold.submit(r, c.run) // it cannot run before stream.mu is free
	if err != nil {
		c.handle.release()
		return false
	}
	c.id = id
	s.chunks = append(s.chunks, c)
	s.nextPos += want
	return true
}

// advanceLocked moves to the next segment when this one is read to its end, and tells how far the current one may be read.
func (s *stream) advanceLocked(v *view, b *bound) (limit int64, ok bool) {
	for {
		switch {
		case s.nextSeg == b.base:
			limit = b.pos
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
		if i < 0 || i+1 >= len(v.segs) {
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

// run is the device's turn: read, check every batch, wake the reader.
func (c *coldChunk) run() int64 {
	s := c.stream
	s.mu.Lock()
	if c.gone {
		s.mu.Unlock()
		c.handle.release()
		return 0
	}
	c.state = chunkReading
	s.mu.Unlock()

	n, err := c.readWhole(s.log.store)
	var bad *segment.CorruptError
	if errors.As(err, &bad) {
		err = errors.Join(err, c.handle.seg.learn(bad))
	}

	s.mu.Lock()
	if c.gone {
		c.freeLocked()
		s.mu.Unlock()
		c.handle.release()
		return n
	}
	if errors.Is(err, errNoMemory) {
		s.cutLocked(slices.Index(s.chunks, c)) // asked for again when the reader comes here
	} else if err != nil {
		c.state, c.err = chunkFailed, err
		c.freeLocked()
	} else {
		c.state = chunkReady
		s.trimAfterLocked(c)
	}
	gone := c.gone // given up just now
	w := s.watch
	if gone && len(s.chunks) > 0 {
		w = nil // nobody waits for it, and whoever is woken would ask for it again at once
	}
	s.mu.Unlock()
	if gone {
		c.handle.release()
	}
	if w != nil {
		w.Notify()
	}
	return n
}

// readWhole fills the chunk and trims it to whole, checked batches. It returns the bytes read from the device.
func (c *coldChunk) readWhole(st *Store) (int64, error) {
	started := st.now()
	buf, err := c.memory(st)
	if err != nil {
		return 0, err
	}
	data, err := c.readRange(st, buf, c.pos, c.want)
	if err != nil {
		buf.Release()
		return 0, err
	}
	whole, next, err := checkBatches(c.stream.log, c.handle.seg, c.pos, data)
	read := int64(len(data))
	switch {
	case err != nil:
		buf.Release()
		return read, err
	case whole > 0:
		c.buf, c.data, c.next = buf, data[:whole], next
	default: // the first batch is larger than a chunk
		c.data, err = c.readLargeBatch(st, buf, data)
		buf.Release()
		if err != nil {
			return read, err
		}
		read += int64(len(c.data))
		if whole, c.next, err = checkBatches(c.stream.log, c.handle.seg, c.pos, c.data); err != nil || whole == 0 {
			return read, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	read = max(0, read-c.cached)
	st.metrics.coldRead(c.handle.seg.dir.spec.Tier, c.method, c.lane, read, st.now().Sub(started))
	return read, nil
}

// errNoMemory: the pool is empty; read-ahead can do without, and must not hold a device's slot while it waits.
var errNoMemory = errors.New("partition: no memory for read-ahead")

// reclaimEvery is how often a chunk that waits for memory looks for readers that have paused meanwhile.
const reclaimEvery = 250 * time.Millisecond

// memory takes a buffer from the pool. When there is none, streams give up read-ahead, the chunk's own stream first; a
// chunk that its reader waits for then waits its turn, a chunk read ahead is given up.
func (c *coldChunk) memory(st *Store) (*cachectl.Buffer, error) {
	for {
		if buf, ok := st.opt.Pool.TryGet(); ok {
			return buf, nil
		}
		if !c.stream.isHead(c) {
			return nil, errNoMemory
		}
		st.reclaim(c.stream)
		ctx, cancel := context.WithTimeout(st.ctx, reclaimEvery)
		buf, err := st.opt.Pool.Get(ctx)
		cancel()
		if err == nil || st.ctx.Err() != nil {
			return buf, err
		}
	}
}

// isHead tells whether the reader waits for this chunk.
func (s *stream) isHead(c *coldChunk) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.chunks) > 0 && s.chunks[0] == c
}

// yieldMemory gives chunks back: what is read ahead of the head, and the head, too, when the reader has not asked for a
// while, unless it is the one that needs the memory.
func (s *stream) yieldMemory(now time.Time, asking bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.chunks) == 0 {
		return
	}
	if now.Sub(s.lastRead) > streamPause {
		s.giveUpLocked()
		return
	}
	s.cutLocked(1)
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

// readRange reads by the chunk's lane: around the cache, or through it so that it holds the range again.
func (c *coldChunk) readRange(st *Store, buf *cachectl.Buffer, pos, n int64) ([]byte, error) {
	if c.lane == admission.Fill {
		f, err := c.handle.seg.r.File()
		if err != nil {
			return nil, err
		}
		c.method = cachectl.MethodBuffered
		p := buf.Bytes()[:min(n, c.limit-pos)]
		if r, err := st.opt.Cache.Residency(f, pos, int64(len(p))); err == nil {
			c.cached += min(r.Resident*cachectl.PageSize, int64(len(p)))
		}
		defer c.handle.seg.fills.begin(pos, int64(len(p)))()
		if _, err := st.opt.Cache.ReadFill(f, p, pos); err != nil {
			return nil, err
		}
		return p, nil
	}
	src, err := c.handle.source(c.limit)
	if err != nil {
		return nil, err
	}
	defer c.handle.seg.dir.harm.beginRead(st.now)()
	rs, err := st.opt.Cache.ReadBypass(src, buf, pos, n)
	if err != nil {
		return nil, err
	}
	c.method = rs.Method
	return buf.Bytes()[rs.Off : rs.Off+int(rs.N)], nil
}

// readLargeBatch reads one batch that does not fit a chunk into memory of its own, piece by piece through buf. Its size is
// bounded by the file, and by what the topic ever accepted.
func (c *coldChunk) readLargeBatch(st *Store, buf *cachectl.Buffer, head []byte) ([]byte, error) {
	if len(head) < segment.BatchHeaderSize {
		return nil, io.ErrUnexpectedEOF
	}
	h, err := segment.DecodeHeader(head)
	if err != nil {
		return nil, err
	}
	size := h.SizeBytes()
	if size > c.limit-c.pos {
		return nil, &segment.CorruptError{Path: c.handle.seg.r.LogName(), Pos: c.pos, Want: c.limit - c.pos, Got: size, Err: io.ErrUnexpectedEOF}
	}
	out := make([]byte, 0, size)
	for int64(len(out)) < size {
		p, err := c.readRange(st, buf, c.pos+int64(len(out)), min(st.chunkBytes(), size-int64(len(out))))
		if err != nil {
			return nil, err
		}
		if len(p) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		out = append(out, p...)
	}
	return out, nil
}

// trimAfterLocked drops the read-ahead behind c when c ended elsewhere than expected (the index knew no boundary).
func (s *stream) trimAfterLocked(c *coldChunk) {
	i := slices.Index(s.chunks, c)
	end := c.pos + int64(len(c.data))
	if i < 0 || end == c.pos+c.want {
		return
	}
	s.cutLocked(i + 1)
	if s.handle != c.handle {
		s.handle.release()
		c.handle.retain()
		s.handle = c.handle
	}
	s.nextSeg, s.nextPos = c.handle.seg.base, end
}

// dropLocked forgets chunk i: takes it off the queue, or marks it when it is being read. A chunk holds its handle until it
// is dropped; one that is being read holds it until run has seen the mark.
func (s *stream) dropLocked(i int) {
	c := s.chunks[i]
	s.chunks = slices.Delete(s.chunks, i, i+1)
	switch c.state {
	case chunkReady, chunkFailed:
		c.freeLocked()
		c.handle.release()
	case chunkReading:
		c.gone = true
	case chunkQueued:
		c.gone = true
		if c.handle.seg.dir.cold.cancel(c.id) {
			c.handle.release()
		}
	}
}

func (c *coldChunk) freeLocked() {
	if c.buf != nil {
		c.buf.Release()
		c.buf = nil
	}
	c.data = nil
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
}

// giveUp is reset for a reader that did not ask for it. If it is parked for a chunk, it has to ask again.
func (s *stream) giveUp() {
	s.mu.Lock()
	s.giveUpLocked()
	s.mu.Unlock()
}

func (s *stream) giveUpLocked() {
	if s.watch != nil && len(s.chunks) > 0 {
		s.watch.Notify()
	}
	s.watch = nil
	s.resetLocked()
}

// reset gives the read-ahead back; the stream can be started again.
func (s *stream) reset() {
	s.mu.Lock()
	s.watch = nil
	s.resetLocked()
	s.mu.Unlock()
}

// close gives everything back. A closed stream stays closed.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.watch = nil
	s.resetLocked()
}
