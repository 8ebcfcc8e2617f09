package spindle

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Op is what a request asks for.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Flush
)

// Params describe a disk.
type Params struct {
	Bytes    int64         // size; the seek time depends on the distance as a share of it
	Rate     int64         // of the platter, bytes/s
	Bus      int64         // between the drive's memory and the host, bytes/s
	SeekMin  time.Duration // to the next track
	SeekMax  time.Duration // over the whole disk
	Turn     time.Duration // of the platter
	Command  time.Duration // the drive's own time per request
	Queue    int           // reads that the elevator sees
	Cache    int64         // bytes of write cache
	Segment  int64         // bytes that are read ahead when there is nothing else to do, and kept per stream
	Segments int           // streams that are kept
	Linger   int64         // bytes that are read ahead for a stream although others wait
	Visit    int64         // bytes after which a stream is left when others wait
	ReadAge  time.Duration // a read that waits longer is next
	WriteAge time.Duration // a write that is in the cache for longer competes with reads
}

// Desktop is a disk of 7,200 turns a minute as it is sold for desktops: 150 MB/s, 0.8 ms from track to track and 8.8 ms over all
// (the laboratory's reference), 600 MB/s of SATA, a queue of 32 (NCQ). Sizes of caches and the deadlines are guesses from data sheets.
func Desktop(size int64) Params {
	return Params{
		Bytes: size, Rate: 150e6, Bus: 600e6,
		SeekMin: 800 * time.Microsecond, SeekMax: 8800 * time.Microsecond, Turn: time.Minute / 7200, Command: 100 * time.Microsecond,
		Queue: 32, Cache: 32 << 20, Segment: 1 << 20, Segments: 16, Linger: 128 << 10, Visit: 384 << 10,
		ReadAge: 400 * time.Millisecond, WriteAge: 500 * time.Millisecond,
	}
}

// request is a read on its way, a write that waits for the cache, or a flush.
type request struct {
	id     uint64
	op     Op
	at     time.Duration
	pos, n int64
}

// extent is a range of the disk; at is when its oldest byte came.
type extent struct {
	from, to int64
	at       time.Duration
}

// done is a request with its end.
type done struct {
	id uint64
	at time.Duration
}

// Disk is one simulated disk. Times count from any fixed moment and must not go back between calls. It is for one goroutine.
type Disk struct {
	p     Params
	now   time.Duration
	free  time.Duration // when the head has nothing more to do
	head  int64         // position after the last transfer
	last  time.Duration // when that ended: the head is over its position then, and a turn later again
	ahead bool          // the head reads on
	wrote bool          // its last work was a write
	clean time.Duration // when its last write ended
	visit int64         // bytes read since the head came here

	reads   []request // in order of arrival
	waiting []request // writes that find no room, and flushes, in order
	dirty   []extent  // the write cache, by position, not overlapping
	cached  int64
	streams []extent // what was read, the latest use last
	done    []done   // by time
}

// New makes a disk whose head is at its beginning.
func New(p Params) *Disk { return &Disk{p: p} }

// Submit hands over a request; id comes back from Advance.
func (d *Disk) Submit(now time.Duration, id uint64, op Op, pos, n int64) {
	d.run(now)
	r := request{id: id, op: op, at: d.now, pos: pos, n: n}
	switch {
	case op == Read && (d.readAhead(r.pos, r.pos+r.n) || covers(d.dirty, pos, pos+n)):
		d.finish(r.id, d.now+d.p.Command+d.bus(n))
	case op == Read:
		d.reads = append(d.reads, r)
	default:
		d.waiting = append(d.waiting, r)
		d.admit(d.now)
	}
	d.run(d.now)
}

// Next is when something may have happened, for a caller that submits nothing until then; false when there is nothing to wait for.
func (d *Disk) Next() (at time.Duration, ok bool) {
	if len(d.done) > 0 {
		at, ok = d.done[0].at, true
	}
	if d.work() && (!ok || d.free < at) {
		at, ok = max(d.free, d.now), true
	}
	return at, ok
}

// Advance lets time pass and returns the requests that are done, in the order of their ends.
func (d *Disk) Advance(now time.Duration) (ids []uint64) {
	d.run(now)
	n := 0
	for ; n < len(d.done) && d.done[n].at <= d.now; n++ {
		ids = append(ids, d.done[n].id)
	}
	d.done = slices.Delete(d.done, 0, n)
	return ids
}

// Dirty is how many bytes a power cut would take.
func (d *Disk) Dirty() int64 { return d.cached }

func (d *Disk) work() bool { return len(d.reads) > 0 || len(d.dirty) > 0 }

// run has the head work until now.
func (d *Disk) run(now time.Duration) {
	d.now = max(d.now, now)
	for d.free <= d.now && d.work() {
		start := max(d.free, d.earliest())
		if start > d.now {
			break
		}
		d.idle(start)
		d.serve(start)
	}
	if d.free < d.now && !d.work() {
		d.idle(d.now)
	}
}

// earliest is when the oldest work came.
func (d *Disk) earliest() time.Duration {
	at := time.Duration(math.MaxInt64)
	if len(d.reads) > 0 {
		at = d.reads[0].at
	}
	for _, e := range d.dirty {
		at = min(at, e.at)
	}
	return at
}

// idle lets the head read on from the end of its last read until t.
func (d *Disk) idle(t time.Duration) {
	if t <= d.free {
		return
	}
	if d.ahead && len(d.streams) > 0 {
		s := &d.streams[len(d.streams)-1]
		n := min(int64(float64(t-d.free)/float64(time.Second)*float64(d.p.Rate)), d.p.Segment-(s.to-s.from), d.p.Bytes-s.to)
		if n > 0 && s.to == d.head {
			s.to += n
			d.head += n
			d.last = t
		}
		d.ahead = d.p.Segment > s.to-s.from // the head rests when the segment is full
	}
	d.free = t
}

// serve picks the next work for the head, which is free at t, and does it.
func (d *Disk) serve(t time.Duration) {
	if i := d.pickRead(t); i >= 0 {
		d.read(t, i)
		return
	}
	d.write(t, d.pickWrite(t))
}

// pickRead chooses a read, or -1 when it is a write's turn.
func (d *Disk) pickRead(t time.Duration) int {
	visible := d.reads[:min(len(d.reads), d.p.Queue)]
	if len(visible) == 0 {
		return -1
	}
	if d.late(t) && !d.wrote {
		return -1
	}
	if t-visible[0].at > d.p.ReadAge {
		return 0
	}
	best, cost := -1, time.Duration(math.MaxInt64)
	here, elsewhere := d.inRow(visible)
	for i, r := range visible {
		from := d.starts(r)
		if from == r.pos+r.n {
			return i // read ahead after it had been queued
		}
		c := d.positioning(t, from)
		if elsewhere && d.visit >= d.p.Visit && d.head <= from && from <= here {
			c = d.p.SeekMax + d.p.Turn
		}
		if c < cost {
			best, cost = i, c
		}
	}
	if len(d.dirty) > 0 && d.pressed(t) && d.positioning(t, d.dirty[d.pickWrite(t)].from) < cost {
		return -1
	}
	return best
}

// inRow is how far the requests reach that go on from where the head is, one after the other, and whether there are others: a stream is
// left for another one, and not for what it asks for next itself.
func (d *Disk) inRow(visible []request) (end int64, elsewhere bool) {
	end = d.head
	for more := true; more; {
		more, elsewhere = false, false
		for _, r := range visible {
			switch from := d.starts(r); {
			case from < d.head || from > end:
				elsewhere = elsewhere || from < r.pos+r.n
			case r.pos+r.n > end:
				end, more = r.pos+r.n, true
			}
		}
	}
	return end, elsewhere
}

// starts is where the head has to be for a read: behind what it has read of it before, which may be all.
func (d *Disk) starts(r request) int64 {
	for _, s := range d.streams {
		if s.continuedBy(r.pos) {
			return min(max(r.pos, s.to), r.pos+r.n)
		}
	}
	return r.pos
}

// pressed tells whether writes compete with reads.
func (d *Disk) pressed(t time.Duration) bool {
	if len(d.waiting) > 0 || d.cached > d.p.Cache*3/4 {
		return true
	}
	return slices.ContainsFunc(d.dirty, func(e extent) bool { return t-e.at > d.p.WriteAge })
}

// late tells whether writes may take every other turn whatever the reads are.
func (d *Disk) late(t time.Duration) bool {
	if len(d.dirty) == 0 {
		return false
	}
	if len(d.waiting) > 0 && t-d.waiting[0].at > d.p.ReadAge {
		return true
	}
	return slices.ContainsFunc(d.dirty, func(e extent) bool { return t-e.at > 2*d.p.WriteAge })
}

// pickWrite chooses an extent of the write cache: the oldest when it is late, else the nearest.
func (d *Disk) pickWrite(t time.Duration) int {
	best, cost, oldest := 0, time.Duration(math.MaxInt64), 0
	for i, e := range d.dirty {
		if e.at < d.dirty[oldest].at {
			oldest = i
		}
		if c := d.positioning(t, e.from); c < cost {
			best, cost = i, c
		}
	}
	if t-d.dirty[oldest].at > 2*d.p.WriteAge {
		return oldest
	}
	return best
}

// positioning is the time until the head is over pos: seek, then wait for the platter.
func (d *Disk) positioning(t time.Duration, pos int64) time.Duration {
	if pos == d.head && t == d.last {
		return 0
	}
	var seek time.Duration
	track := int64(float64(d.p.Rate) * d.p.Turn.Seconds())
	if pos/track != d.head/track {
		share := math.Abs(float64(pos-d.head)) / float64(d.p.Bytes)
		// The arm accelerates and brakes: the time grows with the square root of the way.
		seek = d.p.SeekMin + time.Duration(float64(d.p.SeekMax-d.p.SeekMin)*math.Sqrt(share))
	}
	angle := float64(pos%track) / float64(track)
	there := math.Mod((t+seek).Seconds()/d.p.Turn.Seconds(), 1)
	wait := angle - there
	if wait < 0 {
		wait++
	}
	return seek + time.Duration(wait*float64(d.p.Turn))
}

func (d *Disk) transfer(n int64) time.Duration {
	return time.Duration(float64(n) / float64(d.p.Rate) * float64(time.Second))
}

func (d *Disk) bus(n int64) time.Duration {
	return time.Duration(float64(n) / float64(d.p.Bus) * float64(time.Second))
}

// read does the i-th read at t.
func (d *Disk) read(t time.Duration, i int) {
	r := d.reads[i]
	d.reads = slices.Delete(d.reads, i, i+1)
	from, to := d.starts(r), r.pos+r.n
	s, sequential := d.stream(r.pos)
	end := t
	if from < to {
		wait := d.positioning(t, from)
		if wait > 0 {
			d.visit = 0
		}
		d.visit += to - from
		d.head, end = to, t+wait+d.transfer(to-from)
	}
	d.finish(r.id, end+d.p.Command)
	if s.to < to {
		s.to = to
	}
	if sequential && len(d.reads) > 0 && d.head == s.to {
		n := min(d.p.Linger, d.p.Bytes-s.to)
		s.to += n
		d.head += n
		d.visit += n
		end += d.transfer(n)
	}
	s.from = max(s.from, to) // the host has the rest
	d.remember(s)
	d.free, d.last, d.ahead, d.wrote = end, end, d.head == s.to, false
}

// behind is what a drive still has in its segment of what the host has had, a guess at the low end: a host that reads in order, and begins
// each read with the page that the last one ended in, waits for no turn.
const behind = 64 << 10

// continuedBy tells whether a read at pos goes on with the stream.
func (e extent) continuedBy(pos int64) bool { return e.from-behind <= pos && pos <= e.to }

// stream takes out the stream that a read at pos continues, or makes one.
func (d *Disk) stream(pos int64) (s extent, sequential bool) {
	for i, s := range d.streams {
		if s.continuedBy(pos) {
			d.streams = slices.Delete(d.streams, i, i+1)
			return s, true
		}
	}
	return extent{from: pos, to: pos}, false
}

func (d *Disk) remember(s extent) {
	if len(d.streams) >= d.p.Segments {
		d.streams = slices.Delete(d.streams, 0, 1)
	}
	d.streams = append(d.streams, s)
}

// readAhead tells whether a range lies in what was read ahead. What lies before it is given up: the stream has passed it.
func (d *Disk) readAhead(from, to int64) bool {
	for i, s := range d.streams {
		if s.from-behind <= from && to <= s.to {
			d.streams[i].from = max(s.from, to)
			d.ahead = d.ahead || !d.wrote && i == len(d.streams)-1 && d.head == s.to // room again
			return true
		}
	}
	return false
}

// quantum is what the head writes of an extent before it looks at reads again.
const quantum = 1 << 20

// write does part of the i-th extent of the cache at t.
func (d *Disk) write(t time.Duration, i int) {
	e := &d.dirty[i]
	n := min(e.to-e.from, quantum)
	d.free = t + d.positioning(t, e.from) + d.transfer(n)
	e.from += n
	d.head, d.ahead, d.wrote, d.visit = e.from, false, true, 0
	d.last, d.clean = d.free, d.free
	d.cached -= n
	if e.from == e.to {
		d.dirty = slices.Delete(d.dirty, i, i+1)
	}
	d.admit(d.free)
}

// admit lets writes into the cache while there is room, and answers flushes whose writes have left it. at is when there was room.
func (d *Disk) admit(at time.Duration) {
	for len(d.waiting) > 0 {
		r := d.waiting[0]
		switch {
		case r.op == Flush && len(d.dirty) > 0:
			return
		case r.op == Flush:
			d.finish(r.id, max(at, d.clean)+d.p.Command)
		case d.cached > 0 && d.cached+r.n > d.p.Cache:
			return
		default:
			d.store(r, max(at, r.at))
			d.finish(r.id, max(at, r.at)+d.p.Command+d.bus(r.n))
		}
		d.waiting = slices.Delete(d.waiting, 0, 1)
	}
}

// store puts a write into the cache and forgets what was read there.
func (d *Disk) store(r request, at time.Duration) {
	e := extent{from: r.pos, to: r.pos + r.n, at: at}
	keep := d.dirty[:0]
	for _, o := range d.dirty {
		if o.to < e.from || o.from > e.to {
			keep = append(keep, o)
			continue
		}
		e = extent{from: min(e.from, o.from), to: max(e.to, o.to), at: min(e.at, o.at)}
	}
	i, _ := slices.BinarySearchFunc(keep, e.from, func(o extent, from int64) int { return cmp.Compare(o.from, from) })
	d.dirty = slices.Insert(keep, i, e)
	d.cached = 0
	for _, o := range d.dirty {
		d.cached += o.to - o.from
	}
	d.streams = slices.DeleteFunc(d.streams, func(s extent) bool { return s.from < r.pos+r.n && r.pos < s.to })
}

func covers(extents []extent, from, to int64) bool {
	return slices.ContainsFunc(extents, func(e extent) bool { return e.from <= from && to <= e.to })
}

func (d *Disk) finish(id uint64, at time.Duration) {
	i, _ := slices.BinarySearchFunc(d.done, at, func(o done, at time.Duration) int {
		if o.at <= at {
			return -1
		}
		return 1
	})
	d.done = slices.Insert(d.done, i, done{id, at})
}
