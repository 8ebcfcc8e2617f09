package partition

import (
	"slices"
	"time"

	"lagoon/admission"
)

// Readers that are faster than the device stay together by themselves: all of them wait for the next chunk. Where the device is faster than
// they are, they drift apart by chance, and nothing brings them back. So who is in front waits:
//
//	           ┌───────── span: this convoy's share of chunk memory ────────┐
//	log ──[ … ][ kept ][ kept ][ held ][ held ][ held ][ not asked for yet ]──►
//	   ▲            ▲                       ▲                 ▲
//	 beyond reach  holds them up        follower           in front: waits
//
// for those who are further behind than the span, while memory is short, and no further than they come in the time that others
// may wait for them (grace). Where the readers together are slower than the device that costs nobody anything: while one waits, the
// others have the cores, or the network, to themselves. One that is really slower costs the others its grace once, and a part of
// the time at most from then on.

const (
	// graceMax is for how long others wait for one reader: the time that a consumer which lost its processor for a few turns takes to
	// come back. It gets back one graceShare-th of the time that nobody waits for it.
	graceMax   = 500 * time.Millisecond
	graceShare = 5
	// patienceMax is for how long one reader waits for others, whoever they are: it bounds what many of them cost that come one after
	// the other. It gets back one patienceShare-th of the time that it does not wait.
	patienceMax   = time.Second
	patienceShare = 4
)

// allowance is time that goes by while it is used, and comes back in part while it is not.
type allowance struct {
	left time.Duration
	at   time.Time // as of when; zero: all of it is left
}

// count brings a up to now, of which it has been used or not since it was counted last.
func (a *allowance) count(used bool, most time.Duration, share int64, now time.Time) time.Duration {
	d := max(0, now.Sub(a.at))
	switch {
	case a.at.IsZero():
		a.left = most
	case used:
		a.left = max(0, a.left-d)
	default:
		a.left = min(most, a.left+d/time.Duration(share))
	}
	a.at = now
	return a.left
}

// speed is how fast a reader takes what it gets.
type speed struct {
	known int64 // bytes a second, in the last whole span of speedOver and those before it; 0: not known yet
	bytes int64 // since …
	from  time.Time
}

// speedOver is over how long a speed is taken: some fetches of a reader among many.
const speedOver = 200 * time.Millisecond

// took counts n bytes.
func (p *speed) took(n int64, now time.Time) {
	if p.from.IsZero() {
		p.from = now
	}
	p.bytes += n
	if now.Sub(p.from) < speedOver {
		return
	}
	if latest := p.latest(now); p.known > 0 {
		p.known = (latest + p.known) / 2
	} else {
		p.known = latest
	}
	p.bytes, p.from = 0, now
}

// perSecond is bytes per second; 0: not known yet. A pause does not make a reader slow: for how long others wait is bounded anyway.
func (p *speed) perSecond(now time.Time) int64 {
	if p.known > 0 {
		return p.known
	}
	return p.latest(now)
}

func (p *speed) latest(now time.Time) int64 {
	d := now.Sub(p.from)
	if p.from.IsZero() || d <= 0 {
		return 0
	}
	return int64(float64(p.bytes) / d.Seconds())
}

// graceLocked is for how long others may wait for s.
func (s *stream) graceLocked(now time.Time) time.Duration {
	return s.grace.count(s.holds > 0, graceMax, graceShare, now)
}

// patienceLocked is for how long s may wait for others.
func (s *stream) patienceLocked(now time.Time) time.Duration {
	return s.patience.count(s.waits, patienceMax, patienceShare, now)
}

// backPos is where the reader is, in bytes on the scale of Log.endPos; frontPos is where it asks next.
func (s *stream) backPos() int64 {
	if len(s.chunks) > 0 {
		c := s.chunks[0]
		return c.handle.seg.before.Load() + c.pos
	}
	return s.frontPos()
}

// mayFollow tells whether others may wait for s, or keep chunks for it.
func (s *stream) mayFollow() bool { return s.lane == admission.Bypass && !s.pieces }

// holdersLocked are the readers that c, which nobody has asked for, has to wait for.
func (cv *convoy) holdersLocked(c *coldChunk) (holders []*stream) {
	s, st := c.asker, cv.log.store
	now := st.now()
	if !c.shared || s.patienceLocked(now) == 0 {
		return nil
	}
	at, end := s.backPos(), c.handle.seg.before.Load()+c.end()
	span, near := st.spanBytes(), st.spanBytes()
	if !st.memoryShort() {
		near = cv.keepWithin()
	}
	for _, o := range cv.streams {
		back := o.backPos()
		// A capped reader has its own speed; one that does not ask has none.
		if back >= at || end-back <= near || !o.mayFollow() || o.capped && !s.capped || now.Sub(o.lastRead) > graceMax {
			continue
		}
		grace, perSecond := o.graceLocked(now), o.speed.perSecond(now)
		if perSecond == 0 {
			perSecond = s.speed.perSecond(now)
		}
		if reach := span + int64(float64(perSecond)*grace.Seconds()); end-back < reach {
			holders = append(holders, o)
		}
	}
	return holders
}

// waitsLocked tells whether c, the one thing that its asker wants now, has to wait. It is asked for when those it waits for have come, or
// need not be waited for any longer.
func (cv *convoy) waitsLocked(c *coldChunk) bool {
	holders := cv.holdersLocked(c)
	if len(holders) == 0 {
		return false
	}
	cv.waiting = append(cv.waiting, c)
	cv.holdLocked(c, holders, true)
	return true
}

// holdLocked notes whom c waits for.
func (cv *convoy) holdLocked(c *coldChunk, holders []*stream, waits bool) {
	now := cv.log.store.now()
	wait := c.asker.patienceLocked(now)
	c.asker.waits = waits
	for _, o := range holders {
		wait = min(wait, o.graceLocked(now))
		o.holds++
	}
	for _, o := range c.holders {
		o.graceLocked(now)
		o.holds--
	}
	if c.holders = holders; !waits {
		return
	}
	if until := now.Add(wait); cv.timer == nil || until.Before(cv.until) {
		if cv.timer != nil {
			cv.timer.Stop()
		}
		cv.until, cv.timer = until, time.AfterFunc(wait, cv.lookAgain)
	}
}

// lookAgain is for when somebody's grace or patience may be over.
func (cv *convoy) lookAgain() {
	cv.mu.Lock()
	defer cv.mu.Unlock()
	cv.timer = nil
	cv.goOnLocked(nil)
}

// goOnLocked asks for what has waited for s (nil: for anybody) and need not any longer.
func (cv *convoy) goOnLocked(s *stream) {
	for _, c := range slices.Clone(cv.waiting) {
		if s != nil && !slices.Contains(c.holders, s) {
			continue
		}
		if holders := cv.holdersLocked(c); len(holders) > 0 {
			cv.holdLocked(c, holders, true)
		} else if cv.stopWaitingLocked(c) && !c.submit() { // the device's queue is full, or closed
			cv.takeBackLocked(c)
		}
	}
}

// takeBackLocked: c could not be asked for. Its reader, who waits for nothing else, asks again.
func (cv *convoy) takeBackLocked(c *coldChunk) {
	s := c.asker
	i := slices.Index(s.chunks, c)
	s.cutLocked(i + 1)
	s.chunks = s.chunks[:i]
	s.nextPos = c.pos
	c.takers = 0
	c.withdrawnLocked()
	if i == 0 && s.watch != nil {
		s.watch.Notify()
	}
}

// stopWaitingLocked takes c from those that wait; false when it does not.
func (cv *convoy) stopWaitingLocked(c *coldChunk) bool {
	i := slices.Index(cv.waiting, c)
	if i < 0 {
		return false
	}
	cv.waiting = slices.Delete(cv.waiting, i, i+1)
	cv.holdLocked(c, nil, false)
	if len(cv.waiting) == 0 && cv.timer != nil {
		cv.timer.Stop()
		cv.timer = nil
	}
	return true
}

// joinLocked: s has been started.
func (cv *convoy) joinLocked(s *stream) {
	if cv.streams = append(cv.streams, s); len(cv.streams) == 1 {
		cv.log.store.streaming(cv.log, true)
	}
	cv.countLocked(s, +1)
}

// leaveLocked: s has been reset.
func (cv *convoy) leaveLocked(s *stream) {
	if i := slices.Index(cv.streams, s); i >= 0 {
		if cv.streams = slices.Delete(cv.streams, i, i+1); len(cv.streams) == 0 {
			cv.log.store.streaming(cv.log, false)
		}
		cv.countLocked(s, -1)
	}
	cv.settleLocked(s)
}

// countLocked notes one stream more or less.
func (cv *convoy) countLocked(s *stream, by int) {
	if s.lane != admission.Bypass {
		return
	}
	before := cv.lagging
	switch cv.lagging += by; {
	case before < 2 && cv.lagging >= 2:
		cv.log.store.convoys.Add(1)
	case before >= 2 && cv.lagging < 2:
		cv.log.store.convoys.Add(-1)
	}
}

// settleLocked follows what the reader of s has done: kept chunks go that nobody comes for, and those go on that it held up.
func (cv *convoy) settleLocked(s *stream) {
	cv.tidyLocked()
	if s.holds > 0 {
		cv.goOnLocked(s)
	}
}

// spanBytes is how far apart the readers of one convoy may be for their chunks to fit into memory: three quarters of the pool for all
// convoys together, at least one chunk that is read and one that follows it.
func (s *Store) spanBytes() int64 {
	chunks := min(s.poolChunks()*3/4/max(1, int(s.convoys.Load())), s.poolChunks()/2)
	return int64(max(2, chunks)) * s.chunkBytes()
}

// memoryShort tells whether so much chunk memory is in use or asked for that what is kept for others will be given up soon.
func (s *Store) memoryShort() bool {
	p := s.opt.Pool.Stats()
	return int((p.CapacityBytes-p.InUseBytes)/p.ChunkBytes)-int(s.askedChunks.Load()) <= s.poolChunks()/4
}
