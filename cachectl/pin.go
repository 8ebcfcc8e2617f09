package cachectl

import (
	"errors"
	"fmt"
	"sync"

	"lagoon/internal/vfs"
)

// Pin keeps one contiguous range of one file in the page cache, whatever else goes on on the machine: reclaim, a backup,
// drop_caches, another process's FADV_DONTNEED. Its bytes count as locked memory of the process and stay charged to its
// memory group, so the owner bounds their sum: pinned memory that the kernel cannot take back is how a process gets killed.
//
// A Pin holds no descriptor. Close it before the file's pages are to be dropped and before its space has to come back.
// Safe for concurrent use.
type Pin struct {
	c *Cache

	mu     sync.Mutex
	m      Mapping // nil while nothing is held
	room   int64
	held   extent
	closed bool
}

// NewPin makes a Pin that holds nothing.
func (c *Cache) NewPin() *Pin { return &Pin{c: c} }

// PinTrouble says why nothing can be pinned any more, "" when it can.
func (c *Cache) PinTrouble() string {
	if why := c.noPins.Load(); why != nil {
		return *why
	}
	return ""
}

// Hold makes [pos, end) of f the range that is kept: what is new is read in where it is not resident, and what is no longer in it
// is let go, though not dropped. What is held already is let go in whole windows of WindowBytes from the front, so up to one
// window before pos stays; a range that ends before the one that is held is locked anew, and is unprotected for that moment. (The
// kernel maps a large folio by one entry where it can; unlocking a part of it unmaps all of it, and what is unmapped can be dropped
// whatever is locked. Measured on Linux 6.18.) pos is rounded down and end up to pages; the file must have the last one. f is used
// during the call only, and must be the same file each time. room is how large f may become: a range of addresses is
// reserved for that once, and again for more than that.
// Errors: ErrPinLimit, after which PinTrouble says so and every Pin holds nothing when it is asked next; ErrRange; the
// kernel's, after which the Pin holds what it held of the new range. A closed Pin holds nothing and says nothing.
// Source: mlock(2); costs in docs/decisions/0009-pinned-hot-windows.md.
func (p *Pin) Hold(f vfs.File, pos, end, room int64) error {
	want, err := touched(pos, max(0, end-pos))
	if err != nil {
		return fmt.Errorf("pin %s: %w", f.Name(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if p.c.noPins.Load() != nil || want.bytes() == 0 || p.m != nil && want.end > p.room {
		err = p.dropLocked()
	}
	if err == nil && p.c.noPins.Load() == nil && want.bytes() > 0 {
		err = p.holdLocked(f, want, room)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrPinLimit) {
		p.c.losePins(err)
		err = errors.Join(err, p.dropLocked())
	}
	p.c.metrics.pinFailures.Inc()
	return fmt.Errorf("pin %s: %w", f.Name(), err)
}

func (p *Pin) holdLocked(f vfs.File, want extent, room int64) error {
	if p.m == nil {
		room = max(room, want.end)
		m, err := p.c.kernel.MapFile(f, room)
		if err != nil {
			return err
		}
		p.m, p.room, p.held = m, room, extent{want.off, want.off}
	}
	if want.off >= p.held.end || want.end < p.held.end { // nothing in common, or it would be cut within a window
		if err := p.unlock(p.held); err != nil {
			return err
		}
		p.held = extent{want.off, want.off}
	}
	// First what comes off, so that the sum of all pins never is more than was planned.
	if front := alignDown(want.off, WindowBytes); front > p.held.off {
		if err := p.unlock(extent{p.held.off, front}); err != nil {
			return err
		}
		p.held.off = front
	}
	if want.end > p.held.end {
		if err := p.lock(f, extent{p.held.end, want.end}); err != nil {
			return err
		}
		p.held.end = want.end
	}
	if want.off < p.held.off {
		if err := p.lock(f, extent{want.off, p.held.off}); err != nil {
			return err
		}
		p.held.off = want.off
	}
	return nil
}

func (p *Pin) lock(f vfs.File, e extent) error {
	if err := p.m.Lock(f, e.off, e.bytes()); err != nil {
		return err
	}
	p.c.metrics.pinnedBytes.Add(float64(e.bytes()))
	return nil
}

func (p *Pin) unlock(e extent) error {
	if e.bytes() == 0 {
		return nil
	}
	if err := p.m.Unlock(e.off, e.bytes()); err != nil {
		return err
	}
	p.c.metrics.pinnedBytes.Sub(float64(e.bytes()))
	return nil
}

func (p *Pin) dropLocked() error {
	if p.m == nil {
		return nil
	}
	err := p.m.Close()
	p.c.metrics.pinnedBytes.Sub(float64(p.held.bytes()))
	p.m, p.held = nil, extent{}
	return err
}

// Held is the range that is kept, in bytes of the file; both 0 when there is none.
func (p *Pin) Held() (pos, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.off, p.held.end
}

// Close lets everything go for good. Errors: the kernel's.
func (p *Pin) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.dropLocked()
}

// losePins ends pinning for the process: part of the hot windows pinned would be as good as none, and harder to understand.
func (c *Cache) losePins(err error) {
	why := err.Error()
	if c.noPins.CompareAndSwap(nil, &why) {
		c.metrics.pinUsable.Set(0)
		c.opt.Logger.Warn("hot windows are not pinned: other processes and the kernel can take them from the page cache; "+
			"give the process CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity)", "err", err)
	}
}
