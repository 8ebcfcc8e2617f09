package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lagoon/segment"
)

// createCleaned begins the new segment, unless the partition is deleted: its directory's name may be another topic's by now.
func (l *Log) createCleaned(d *logDir, base segment.Offset) (c *segment.Cleaned, err error) {
	err = ErrClosed
	l.onFiles(func() { c, err = segment.CreateCleaned(d.spec.FS, l.dir, base, l.config().segmentOptions(d)) })
	if err != nil && !errors.Is(err, ErrClosed) {
		l.compact.untidy = append(l.compact.untidy, d)
		err = d.compactionWriteFailed(err)
	}
	return c, err
}

// tidy removes what earlier compactions that failed have left behind. No swap is under way.
func (l *Log) tidy() (err error) {
	for _, d := range l.compact.untidy {
		l.onFiles(func() { _, err = segment.FinishSwaps(d.spec.FS, l.dir) })
		if err != nil {
			return fmt.Errorf("compact %s: remove what a failed compaction left: %w", l.dir, err)
		}
	}
	l.compact.untidy = nil
	return nil
}

func (l *Log) abandon(d *logDir, c *segment.Cleaned) (err error) {
	there := false
	l.onFiles(func() { there, err = true, c.Abandon() })
	switch {
	case !there: // its directory is gone
		err = c.Close()
	case err != nil:
		l.compact.untidy = append(l.compact.untidy, d)
	}
	return err
}

// swapIn gives the new segment the place of the group: on disk, then for readers, then it takes the names.
func (l *Log) swapIn(g group, c *segment.Cleaned) error {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	d := g.dir()
	if l.isClosed() {
		return errors.Join(ErrClosed, c.Close()) // its directory is gone, or a start removes the file
	}
	if !l.config().Compact {
		return errors.Join(errNotCompacted, l.abandon(d, c))
	}
	if !l.holds(g) {
		return errors.Join(errChanged, l.abandon(d, c))
	}
	r, err := l.commitCleaned(g, c)
	if passing(err) && c.Doubtful() && (l.store.ctx.Err() != nil || l.isClosed()) {
		return errors.Join(ErrClosed, err, c.Close()) // a start finds the old segments or the new one
	}
	if err != nil && c.Doubtful() {
		// Whether a restart would find the new segment is not known: nothing may be built on the old ones any more.
		d.fence("swap in compacted segment", err)
		return errors.Join(err, c.Close())
	}
	if err != nil {
		return errors.Join(d.compactionWriteFailed(err), l.abandon(d, c))
	}
	if err := l.publishCleaned(g, r); err != nil {
		return errors.Join(err, c.Close())
	}
	for _, s := range g.segs {
		size := s.r.Meta().SizeBytes
		s.pin.close()
		s.r.Supersede()
		s.r.Retire(func() { s.dir.used.Add(-size) })
	}
	bases := g.bases()
	l.compact.settle = func() error { return r.Settle(bases) }
	return errors.Join(l.settleSwapLocked(), c.Close())
}

// Where there is no descriptor for the last steps of a commit they are tried again, a minute long: their directory would have to be fenced.
const (
	commitRetry = 100 * time.Millisecond
	commitTries = 600
)

// commitCleaned makes the new segment what a restart finds.
func (l *Log) commitCleaned(g group, c *segment.Cleaned) (r *segment.Reader, err error) {
	for range commitTries {
		done := l.store.work(g.dir())
		r, err = c.Commit(g.end, l.store.files)
		done()
		if err == nil || !c.Doubtful() || !passing(err) || l.isClosed() {
			break
		}
		select {
		case <-l.store.ctx.Done():
			return nil, err
		case <-time.After(commitRetry):
		}
	}
	return r, err
}

// publishCleaned swaps the segments in the view.
func (l *Log) publishCleaned(g group, r *segment.Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		r.Retire(nil)
		return ErrClosed
	}
	v := l.view.Load()
	i := v.find(g.segs[0].base)
	size := r.Meta().SizeBytes
	from, to := g.segs[0].before.Load(), v.segs[i+len(g.segs)].before.Load()
	by := max(to-from-size, -v.segs[0].before.Load()) // a segment that grew: positions do not become negative
	s := newLogSegment(r, g.dir(), g.segs[0].base, from+by)
	segs := slices.Concat(v.segs[:i], []*logSegment{s}, v.segs[i+len(g.segs):])
	l.shiftLocked(v.segs[:i], by)
	l.setViewLocked(segs, v.start)
	s.dir.used.Add(size)
	return nil
}

// shiftLocked moves the oldest segments on the scale of positions, so that they go on ending where the next one begins, and with them
// what the hot windows have noted there. l.mu is held.
func (l *Log) shiftLocked(segs []*logSegment, by int64) {
	if len(segs) == 0 || by == 0 {
		return
	}
	last := segs[len(segs)-1]
	end := last.before.Load() + last.bytes()
	for _, s := range segs {
		s.before.Add(by)
	}
	for _, c := range l.cursors.all() {
		if at := c.place.Load(); at < end {
			c.place.CompareAndSwap(at, at+by) // one that fails has read meanwhile
		}
	}
	l.hot.shift(end, by)
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// settleSwap ends a swap that an error has interrupted.
func (l *Log) settleSwap() error {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if l.isClosed() {
		return ErrClosed
	}
	return l.settleSwapLocked()
}

// settleSwapLocked runs under maintenance. Until it has succeeded the log is not compacted, and its segments stay in their tiers.
func (l *Log) settleSwapLocked() (err error) {
	if l.compact.settle == nil {
		return nil
	}
	l.onFiles(func() { err = l.compact.settle() })
	if err == nil {
		l.compact.settle = nil
	}
	return err
}

// claim waits until no segment of the group has copies in several tiers, and keeps the migrator away from them until unclaim.
func (l *Log) claim(ctx context.Context, segs []*logSegment, end segment.Offset) error {
	c := &l.compact
	ctx, cancel := context.WithTimeout(ctx, waitForMove)
	defer cancel()
	for {
		c.mu.Lock()
		busy := false
		for k := range c.moving {
			busy = busy || k.base >= segs[0].base && k.base < end
		}
		if !busy {
			c.from, c.to = segs[0].base, end
			c.mu.Unlock()
			return nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("compact %s: segment %d is on its way to another tier: %w", l.dir, segs[0].base, ctx.Err())
		}
	}
}

// unclaim ends a claim, unless the swap it was for is not over: then segments have two copies for as long.
func (l *Log) unclaim() {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if l.compact.settle == nil {
		c := &l.compact
		c.mu.Lock()
		c.from, c.to = 0, 0
		c.mu.Unlock()
	}
}

// beginMove notes that a segment gets a second copy; false when it is being compacted.
func (l *Log) beginMove(base segment.Offset, from string) bool {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	if base >= c.from && base < c.to {
		return false
	}
	if c.moving == nil {
		c.moving = map[movingKey]bool{}
	}
	c.moving[movingKey{base, from}] = true
	return true
}

// endMove: the segment has one copy again.
func (l *Log) endMove(base segment.Offset, from string) {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.moving, movingKey{base, from})
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// claimed tells whether the segment at base is being compacted.
func (l *Log) claimed(base segment.Offset) bool {
	c := &l.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	return base >= c.from && base < c.to
}
