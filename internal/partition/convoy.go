package partition

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"lagoon/admission"
)

// convoy is what the lagging readers of one log have in common: the chunks that a device pass has brought or is bringing,
// so that a chunk is read and checked once for all who want it.
//
//	            ┌ kept ┐┌── held ──┐┌ reading ┐┌ queued (private until its turn)
//	log ──[ … ][ k ][ k+1 ][ k+2 ][ k+3 ][ k+4 ][ k+5 ]──►
//	              ▲            ▲                  ▲
//	          follower     follower            leader: whose turn it is reads
//
// Chunks end on a grid (chunkEnd), so two readers that began at different offsets want the same chunks one chunk later.
// Whoever gets its turn first reads; the others take their requests back and pay with their share of the turns. A chunk goes
// when the last reader that has it has passed it, unless one comes close behind (keepWithin): then it is kept, as long as
// nobody needs the memory. A reader that finds a chunk gone reads it itself, in a pass of its own that others may join, and
// joins again where it meets chunks that are still there.
//
// Readers of about the same speed drift apart by chance, and each that falls out costs the device a whole pass. So who is in
// front waits for those close behind (together.go).
type convoy struct {
	log *Log

	mu      sync.Mutex      // also of every stream and chunk of the log
	streams []*stream       // that have been started and not been reset
	listed  []*coldChunk    // bypass chunks that are being read or in memory: what can be shared
	kept    int             // of those, the ones that no stream has
	asked   map[askedAt]int // chunks at the device's queue that may be shared, by where they begin: all of one place want one buffer

	lagging int          // of streams, those that could share
	waiting []*coldChunk // of readers in front, not yet asked for: see waitsLocked
	timer   *time.Timer  // looks at them again at …
	until   time.Time
	// droppedTo is the position in the log up to which kept chunks were given up because memory was short.
	droppedTo int64
}

// LeaveReason says why a follower had to go on alone. The set is closed: it is a metric label.
type LeaveReason string

// The reasons.
const (
	LeftBehind LeaveReason = "behind" // it was too slow: what it wants next was no longer kept
	LeftMemory LeaveReason = "memory" // what it wants next was given up because chunk memory was short
	LeftCapped LeaveReason = "capped" // its cap is smaller than a chunk per turn: it reads small pieces by itself
	LeftPaused LeaveReason = "paused" // it stopped asking
)

// Text is the reason for people.
func (r LeaveReason) Text() string {
	switch r {
	case LeftBehind:
		return "it was too slow, and what it reads next was no longer kept"
	case LeftMemory:
		return "chunk memory was short, and what it reads next was given up"
	case LeftCapped:
		return "its cap is smaller than the convoy's chunks"
	case LeftPaused:
		return "it stopped asking"
	}
	return string(r)
}

// ConvoyView is a reader's place among the lagging readers of its partition, for people. The zero value: it has no
// read-ahead now.
type ConvoyView struct {
	Members int    // readers within reach of each other's chunks, itself included
	Role    string // "alone", "leads" (it reads for others), "follows" (others read for it)
	Left    LeaveReason
	LeftAt  time.Time // when it had to leave a convoy last; zero: never
}

// String is the view as a sentence.
func (v ConvoyView) String() string {
	s := "no read-ahead now"
	switch v.Role {
	case "alone":
		s = "alone: no other lagging reader is near enough to share its reads"
	case "leads":
		s = fmt.Sprintf("in a convoy of %d, leads: its reads serve the others", v.Members)
	case "follows":
		s = fmt.Sprintf("in a convoy of %d, follows: it gets what others read", v.Members)
	}
	if v.Left != "" {
		s += fmt.Sprintf("; left one at %s because %s", v.LeftAt.UTC().Format(time.RFC3339), v.Left.Text())
	}
	return s
}

// viewLocked is the convoy as a stream sees it.
func (cv *convoy) viewLocked(s *stream) ConvoyView {
	v := ConvoyView{Left: s.left, LeftAt: s.leftAt}
	if s.handle == nil || s.lane != admission.Bypass {
		return v
	}
	at, reach := s.frontPos(), cv.keepWithin()
	for _, o := range cv.streams {
		if d := o.frontPos() - at; o.lane == admission.Bypass && max(d, -d) <= reach {
			v.Members++
		}
	}
	switch {
	case v.Members <= 1:
		v.Role = "alone"
	case s.follows:
		v.Role = "follows"
	default:
		v.Role = "leads"
	}
	return v
}

// mostKept is how many chunks are kept for followers at most: half of the pool, the other half is for reading.
func (cv *convoy) mostKept() int { return cv.log.store.poolChunks() / 2 }

// keepWithin is how far behind a reader may be for a chunk to be kept for it: as far as could be kept.
func (cv *convoy) keepWithin() int64 { return int64(cv.mostKept()) * cv.log.store.chunkBytes() }

// atLocked finds the shared chunk that holds byte pos of seg.
func (cv *convoy) atLocked(seg *logSegment, pos int64) *coldChunk {
	for _, c := range cv.listed {
		if c.handle.seg == seg && c.pos <= pos && pos < c.end() {
			return c
		}
	}
	return nil
}

// askedAt is where a chunk that is asked for begins.
type askedAt struct {
	seg *logSegment
	pos int64
}

// askLocked notes that c will want a buffer, unless one that is asked for already will do for it.
func (cv *convoy) askLocked(c *coldChunk) {
	if c.shared {
		if cv.asked == nil {
			cv.asked = map[askedAt]int{}
		}
		at := askedAt{c.handle.seg, c.pos}
		if cv.asked[at]++; cv.asked[at] > 1 {
			return
		}
	}
	cv.log.store.askedChunks.Add(1)
}

// unaskLocked notes that c is being read, or withdrawn.
func (cv *convoy) unaskLocked(c *coldChunk) {
	if c.shared {
		at := askedAt{c.handle.seg, c.pos}
		if cv.asked[at]--; cv.asked[at] > 0 {
			return
		}
		delete(cv.asked, at)
	}
	cv.log.store.askedChunks.Add(-1)
}

// recruitLocked gives c, whose read begins, to all who have asked for the same bytes and wait for their turn.
func (cv *convoy) recruitLocked(c *coldChunk) {
	for _, s := range cv.streams {
		i := slices.IndexFunc(s.chunks, func(d *coldChunk) bool {
			return d != c && d.shared && d.state == chunkQueued && d.handle.seg == c.handle.seg && d.pos >= c.pos && d.pos < c.end()
		})
		if i < 0 {
			continue
		}
		d := s.chunks[i]
		r, queue := d.request(c.end()-d.pos), c.handle.seg.dir.cold
		if queue.shareQueued(d.id, r) || s.waits && slices.Contains(cv.waiting, d) && queue.share(r) && cv.stopWaitingLocked(d) {
			s.replaceLocked(i, c)
			d.withdrawnLocked()
		}
	}
}

// tidyLocked gives up kept chunks that no follower is near enough for, and the oldest when there are too many.
func (cv *convoy) tidyLocked() {
	if cv.kept == 0 {
		return
	}
	now := cv.log.store.now()
	for _, c := range slices.Clone(cv.listed) {
		if c.isKept() && !cv.wantedLocked(c, now) {
			cv.freeLocked(c)
		}
	}
	for cv.kept > cv.mostKept() {
		cv.freeLocked(cv.oldestKeptLocked())
	}
}

// wantedLocked tells whether a reader comes close enough behind c, and moves.
func (cv *convoy) wantedLocked(c *coldChunk, now time.Time) bool {
	start, end := c.handle.seg.before.Load()+c.pos, c.handle.seg.before.Load()+c.end()
	for _, s := range cv.streams {
		if !s.mayFollow() || now.Sub(s.lastRead) > streamPause {
			continue
		}
		if at := s.frontPos(); at < end && start-at < cv.keepWithin() {
			return true
		}
	}
	return false
}

// oldestKeptLocked is the kept chunk that lies furthest back in the log; its reader is the slowest. nil without.
func (cv *convoy) oldestKeptLocked() (oldest *coldChunk) {
	for _, c := range cv.listed {
		if c.isKept() && (oldest == nil || c.handle.seg.before.Load()+c.pos < oldest.handle.seg.before.Load()+oldest.pos) {
			oldest = c
		}
	}
	return oldest
}

// listLocked shows c to the others.
func (cv *convoy) listLocked(c *coldChunk) { cv.listed = append(cv.listed, c) }

// unlistLocked takes c from what can be shared, if it is there.
func (cv *convoy) unlistLocked(c *coldChunk) {
	if i := slices.Index(cv.listed, c); i >= 0 {
		cv.listed = slices.Delete(cv.listed, i, i+1)
	}
}

// keepLocked is for a chunk in memory whose last reader has passed it.
func (cv *convoy) keepLocked(c *coldChunk) {
	if !slices.Contains(cv.listed, c) {
		cv.freeLocked(c)
		return
	}
	cv.kept++
	c.kept = true
	cv.log.store.keeping(cv, +1)
	cv.tidyLocked()
}

// unkeepLocked: c has a reader again, or goes.
func (cv *convoy) unkeepLocked(c *coldChunk) {
	if c.kept {
		c.kept = false
		cv.kept--
		cv.log.store.keeping(cv, -1)
	}
}

// freeLocked gives the memory of a chunk back that no stream has.
func (cv *convoy) freeLocked(c *coldChunk) {
	cv.unkeepLocked(c)
	cv.unlistLocked(c)
	if c.buf != nil {
		c.buf.Release()
		c.buf = nil
	}
	c.data = nil
	c.handle.release()
}

// dropKept gives up one kept chunk, because somebody needs the memory; false when there is none.
func (cv *convoy) dropKept() bool {
	cv.mu.Lock()
	defer cv.mu.Unlock()
	return cv.dropKeptLocked()
}

func (cv *convoy) dropKeptLocked() bool {
	c := cv.oldestKeptLocked()
	if c == nil {
		return false
	}
	cv.droppedTo = max(cv.droppedTo, c.handle.seg.before.Load()+c.end())
	cv.freeLocked(c)
	return true
}

// keepers are the convoys of a store that keep chunks for followers.
type keepers struct {
	mu     sync.Mutex
	by     map[*convoy]int
	chunks int
}

// keeping notes that a convoy keeps one chunk more or less.
func (s *Store) keeping(cv *convoy, by int) {
	k := &s.keepers
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == nil {
		k.by = map[*convoy]int{}
	}
	k.chunks += by
	if k.by[cv] += by; k.by[cv] == 0 {
		delete(k.by, cv)
	}
	s.metrics.convoyKept.Set(float64(k.chunks) * float64(s.opt.Pool.ChunkBytes()))
}

// dropKept gives up a chunk of the convoy that keeps most; false when nothing is kept.
func (s *Store) dropKept() bool {
	k := &s.keepers
	for {
		k.mu.Lock()
		var most *convoy
		for cv, n := range k.by {
			if most == nil || n > k.by[most] {
				most = cv
			}
		}
		k.mu.Unlock()
		if most == nil {
			return false
		}
		if most.dropKept() {
			return true
		}
	}
}

// keptChunks is how many buffers could be had at once by giving up what is kept.
func (s *Store) keptChunks() int {
	s.keepers.mu.Lock()
	defer s.keepers.mu.Unlock()
	return s.keepers.chunks
}

// freeChunks is how many buffers could be had at once, by giving up what is kept.
func (s *Store) freeChunks() int {
	p := s.opt.Pool.Stats()
	return int((p.CapacityBytes-p.InUseBytes)/p.ChunkBytes) + s.keptChunks()
}

// poolChunks is the size of the pool in chunks.
func (s *Store) poolChunks() int {
	return int(s.opt.Pool.Stats().CapacityBytes / s.opt.Pool.ChunkBytes())
}

// chunkEnd says where the chunk that begins at the batch boundary pos ends: at the last batch boundary before the next line of
// a grid over the file, so that readers that began apart meet on it. before gives the largest known boundary at or below a
// position, limit is the end of what may be read, most the longest chunk. The grid is narrower than a chunk by a sixteenth:
// room for the batch that lies across a line (120 KiB of 2 MiB; a producer's usual batch is 16 KiB to 64 KiB). Where
// larger batches make a chunk too long it is cut near its middle and not at its end, so that no sliver remains. All of it
// depends on pos alone, or readers would part again. exact is false when the index knows no boundary: the chunk is
// trimmed when it is here.
func chunkEnd(pos, limit, most int64, before func(int64) int64) (end int64, exact bool) {
	grid := most - most/16
	for line := (pos/grid + 1) * grid; end <= pos; line += grid {
		if line-grid >= pos+most { // a batch longer than a chunk
			return min(pos+most, limit), false
		}
		end = limit
		if line < limit {
			end = before(line)
		}
	}
	if end-pos <= most {
		return end, true
	}
	for _, cut := range []int64{(end - pos) * 5 / 8, most} {
		if b := before(pos + min(cut, most)); b > pos {
			return b, true
		}
	}
	return pos + most, false
}

// pieceEnd cuts a chunk for a flow whose cap is small: near piece bytes, at a boundary.
func pieceEnd(pos, end, piece int64, before func(int64) int64) int64 {
	for ; piece < end-pos; piece *= 2 {
		if b := before(pos + piece); b > pos {
			return b
		}
	}
	return end
}

// Bounds of the pieces that a capped flow reads: an eighth of a second of its cap, so that ten seconds of it stay well within
// 5 %; at least what a device reads in one go anyway.
const (
	piecesPerSecond = 8
	minPieceBytes   = 16 << 10
)

// pieceBytes is how large the reads of a flow with a cap may be; 0: whole chunks.
func pieceBytes(cap, chunk int64) int64 {
	if piece := max(cap/piecesPerSecond, minPieceBytes); cap > 0 && piece < chunk {
		return piece
	}
	return 0
}
