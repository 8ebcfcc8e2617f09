package partition

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
)

// chunkState is the life of a chunk: queued → reading → ready | failed.
type chunkState uint8

const (
	chunkQueued chunkState = iota
	chunkReading
	chunkReady
	chunkFailed
)

// coldChunk is [pos, pos+want) of a segment's log file, trimmed to whole batches once it is read. Until its turn comes it
// is its asker's alone; from then on every reader of the convoy may have it. Guarded by convoy.mu, but for buf and data
// while reading. It holds its handle until it is freed.
type coldChunk struct {
	convoy *convoy
	asker  *stream // whose turn it is read in
	handle *coldHandle
	lane   admission.Lane
	pos    int64
	want   int64
	limit  int64  // first byte of the file that must not be read
	exact  bool   // pos+want is a batch boundary
	shared bool   // others may have it: a whole chunk in lane bypass
	id     uint64 // of its request at the device; 0: it is not queued there yet
	state  chunkState
	takers int  // streams that have it
	kept   bool // none has, but one comes close behind

	holders []*stream // whom it waits for before it is queued

	buf    *cachectl.Buffer // nil for a batch larger than a chunk: data is then its own memory
	data   []byte           // whole batches
	next   segment.Offset   // offset after the last of them
	cached int64            // of what was read, bytes that were in the page cache and not on the device
	device int64            // what came from the device
	method cachectl.Method
	beside delayCause // of a refill: what else the device did …
	ended  time.Time  // … and when it was there
	err    error
}

// end is the byte after the chunk: what was asked for, and once it is here the end of its last whole batch.
func (c *coldChunk) end() int64 {
	if c.state == chunkReady {
		return c.pos + int64(len(c.data))
	}
	return c.pos + c.want
}

// servedLane is the lane that what is handed out counts to: a refill that found all of its pages in the cache, brought in by somebody
// else since it was asked for, took nothing from the device.
func (c *coldChunk) servedLane() admission.Lane {
	if c.lane == admission.Fill && c.device == 0 {
		return admission.Hot
	}
	return c.lane
}

// isKept: in memory, and no stream has it.
func (c *coldChunk) isKept() bool { return c.kept }

// request is what n bytes of the chunk are to the device's scheduler.
func (c *coldChunk) request(n int64) admission.Request {
	r := c.asker.req
	r.Kind, r.Bytes = admission.KindRead, n
	c.handle.seg.address(&r, c.pos)
	if c.refills() {
		r.Kind = admission.KindRefill
	}
	return r
}

// refills: a reader in real time missed, and the page cache gets the chunk back.
func (c *coldChunk) refills() bool {
	return c.lane == admission.Fill && c.convoy.log.store.opt.Mode != admission.ModeBuffered
}

// submit puts the chunk into the device's queue; false when that is full or closed. Its run cannot begin before convoy.mu is free.
func (c *coldChunk) submit() bool {
	id, err := c.handle.seg.dir.cold.submit(c.request(c.want), c.run)
	c.id = id
	return err == nil
}

// withdrawnLocked is the end of a chunk that has left the device's queue unread.
func (c *coldChunk) withdrawnLocked() {
	c.convoy.unaskLocked(c)
	c.handle.release()
}

// run is the device's turn: read, check every batch, wake the readers. When another reader's chunk holds the same bytes by
// now, that one is taken, and no turn of the device used.
func (c *coldChunk) run() (device, shared int64) {
	cv, st := c.convoy, c.convoy.log.store
	cv.mu.Lock()
	if c.takers == 0 {
		c.withdrawnLocked()
		cv.mu.Unlock()
		return 0, 0
	}
	if o := cv.atLocked(c.handle.seg, c.pos); c.shared && o != nil {
		shared = min(c.want, o.end()-c.pos)
		w := c.asker.watch
		c.asker.replaceLocked(slices.Index(c.asker.chunks, c), o)
		there := o.state == chunkReady
		c.withdrawnLocked()
		cv.mu.Unlock()
		if there && w != nil {
			w.Notify()
		}
		return 0, shared
	}
	c.state = chunkReading
	cv.unaskLocked(c)
	if c.shared {
		c.asker.aloneLocked(c)
		cv.listLocked(c)
		cv.recruitLocked(c)
	}
	cv.mu.Unlock()

	beside := delayUnknown
	if c.refills() {
		beside = st.beside(c.handle.seg.dir)
	}
	n, err := c.readWhole(st)
	c.handle.seg.dir.noteError("read", err)
	if c.refills() {
		beside = min(beside, st.beside(c.handle.seg.dir))
	}
	var bad *segment.CorruptError
	if errors.As(err, &bad) {
		err = errors.Join(err, c.handle.seg.learn(bad))
	}

	cv.mu.Lock()
	c.beside, c.ended = beside, st.now()
	wake := cv.finishLocked(c, err)
	cv.mu.Unlock()
	for _, w := range wake {
		w.Notify()
	}
	return n, 0
}

// finishLocked takes the result of a read into the streams that have the chunk, and gives the watches to be notified.
func (cv *convoy) finishLocked(c *coldChunk, err error) (wake []*Watch) {
	var takers []*stream
	for _, s := range cv.streams {
		if slices.Contains(s.chunks, c) {
			takers = append(takers, s)
		}
	}
	if err != nil {
		cv.unlistLocked(c)
	}
	gaveUp := errors.Is(err, errNoMemory)
	for _, s := range takers {
		i := slices.Index(s.chunks, c)
		if gaveUp {
			s.cutLocked(i) // asked for again when the reader comes here
			if len(s.chunks) > 0 {
				continue // it waits for another chunk, and when woken would ask for this one again at once
			}
		} else if err != nil && s != c.asker {
			s.resetLocked() // it may want other bytes than those that are bad: it reads from its own place
		}
		if s.watch != nil {
			wake = append(wake, s.watch)
		}
	}
	switch {
	case gaveUp || err != nil && c.takers == 0:
		c.state = chunkFailed
		cv.freeLocked(c)
	case err != nil:
		c.state, c.err = chunkFailed, err
	default:
		c.state = chunkReady
		if c.shared {
			c.asker.reached = max(c.asker.reached, c.handle.seg.before.Load()+c.end())
		}
		if c.lane == admission.Bypass {
			cv.log.store.metrics.convoyServed.Add(float64(len(c.data) * c.takers))
		}
		for _, s := range takers {
			s.alignAfterLocked(slices.Index(s.chunks, c), c.pos+c.want)
		}
		if c.takers == 0 {
			cv.keepLocked(c)
		}
	}
	return wake
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
	whole, next, err := checkBatches(c.convoy.log, c.handle.seg, c.pos, data)
	read := int64(len(data))
	switch {
	case err != nil:
		buf.Release()
		return read, err
	case whole > 0:
		c.buf, c.data, c.next = buf, data[:whole], next
	default: // the first batch is larger than a chunk
		c.data, err = c.readLargeBatch(c.convoy.log, buf, data)
		buf.Release()
		if err != nil {
			return read, err
		}
		read = max(read, int64(len(c.data)))
		if whole, c.next, err = checkBatches(c.convoy.log, c.handle.seg, c.pos, c.data); err != nil || whole == 0 {
			return read, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	read = max(0, read-c.cached)
	c.device = read
	st.metrics.coldRead(c.handle.seg.dir.spec.Tier, c.method, c.lane, read, st.now().Sub(started))
	if c.lane == admission.Bypass {
		st.metrics.convoyRead.Add(float64(read))
	}
	if c.refills() {
		if first, err := segment.DecodeHeader(c.data); err == nil && first.BaseOffset >= c.convoy.log.openedAt {
			st.metrics.tailRefaulted.Add(float64(read))
		}
	}
	return read, nil
}

// errNoMemory: the pool is empty; read-ahead can do without, and must not hold a device's slot while it waits.
var errNoMemory = errors.New("partition: no memory for read-ahead")

// reclaimEvery is how often a chunk that waits for memory looks for readers that have paused meanwhile.
const reclaimEvery = 250 * time.Millisecond

// memory takes a buffer from the pool. When there is none, chunks kept for followers go first. Then, for a chunk that a
// reader waits for, other streams give up their read-ahead; a chunk read ahead is given up.
func (c *coldChunk) memory(st *Store) (*cachectl.Buffer, error) {
	if c.handle.seg.dir.spec.Rotating && st.freeChunks() <= st.poolChunks()/4 && !c.isHead() {
		return nil, errNoMemory // it was asked for when there was more, or others had not asked yet
	}
	for {
		if buf, ok := st.opt.Pool.TryGet(); ok {
			return buf, nil
		}
		if st.dropKept() {
			continue
		}
		if !c.isHead() {
			return nil, errNoMemory
		}
		st.reclaim(c.asker)
		ctx, cancel := context.WithTimeout(st.ctx, reclaimEvery)
		buf, err := st.opt.Pool.Get(ctx)
		if err != nil {
			<-ctx.Done() // the kernel has no memory: asking at once would take a core from those who have some
		}
		cancel()
		if err == nil || st.ctx.Err() != nil {
			return buf, err
		}
	}
}

// isHead tells whether a reader waits for this chunk.
func (c *coldChunk) isHead() bool {
	c.convoy.mu.Lock()
	defer c.convoy.mu.Unlock()
	return slices.ContainsFunc(c.convoy.streams, func(s *stream) bool { return len(s.chunks) > 0 && s.chunks[0] == c })
}

// readRange reads by the chunk's lane: around the cache, or through it so that it holds the range again.
func (c *coldChunk) readRange(st *Store, buf *cachectl.Buffer, pos, n int64) ([]byte, error) {
	defer c.handle.seg.dir.readsOnWay.begin(st.now())()
	if c.lane == admission.Fill {
		f, err := c.handle.seg.r.File()
		if err != nil {
			return nil, err
		}
		c.method = cachectl.MethodBuffered
		p := buf.Bytes()[:min(n, c.limit-pos)]
		if r, err := st.opt.Cache.Residency(f, pos, int64(len(p))); err == nil {
			c.cached += max(0, int64(len(p))-(r.Pages-r.Resident)*cachectl.PageSize)
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
	c.handle.seg.locate(src.Buffered)
	defer c.handle.seg.dir.harm.beginRead(st.now)()
	rs, err := st.opt.Cache.ReadBypass(src, buf, pos, n)
	if err != nil {
		return nil, err
	}
	c.method = rs.Method
	if c.method == cachectl.MethodBuffered || c.method == cachectl.MethodDropBehind {
		st.harm.cached.Store(true)
	}
	return buf.Bytes()[rs.Off : rs.Off+int(rs.N)], nil
}

// readLargeBatch reads the rest of a batch that does not fit a chunk into memory of its own, piece by piece through buf. Its size is
// bounded by what the topic accepts. One that claims more, because the topic has accepted more or its length is damaged, is believed when its
// checksum is right: it is read twice.
func (c *coldChunk) readLargeBatch(l *Log, buf *cachectl.Buffer, head []byte) ([]byte, error) {
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
	if size > int64(l.config().MaxMessageBytes) {
		crc, at := uint32(0), int64(21) // what the checksum covers begins there
		if err := c.readPieces(l.store, buf, at, size, func(p []byte) { crc = crc32.Update(crc, castagnoli, p) }); err != nil {
			return nil, err
		}
		if crc != h.CRC {
			return nil, &segment.CorruptError{Path: c.handle.seg.r.LogName(), Pos: c.pos, Want: h.CRC, Got: crc, Err: segment.ErrCorruptBatch}
		}
		head = nil // buf holds another part by now
	}
	out := append(make([]byte, 0, size), head[:min(int64(len(head)), size)]...)
	err = c.readPieces(l.store, buf, int64(len(out)), size, func(p []byte) { out = append(out, p...) })
	return out, err
}

// readPieces reads bytes [from, to) of the chunk through buf.
func (c *coldChunk) readPieces(st *Store, buf *cachectl.Buffer, from, to int64, take func(p []byte)) error {
	for from < to {
		p, err := c.readRange(st, buf, c.pos+from, min(st.chunkBytes(), to-from))
		if err != nil {
			return err
		}
		if len(p) == 0 {
			return io.ErrUnexpectedEOF
		}
		take(p)
		from += int64(len(p))
	}
	return nil
}
