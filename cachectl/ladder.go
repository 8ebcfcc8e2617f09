package cachectl

import (
	"errors"
	"fmt"
	"sort"
	"sync/atomic"
	"syscall"

	"lagoon/internal/vfs"
)

// Ladder is what people see of one file system's read methods.
type Ladder struct {
	FileSystem string // the root it was probed by, or "device N" when it was not probed
	Device     uint64
	Probed     bool
	Rungs      []Rung // in ladder order, below the configured mode's first method only
	Align      Align  // what statx(2) told; zero: nothing
	// MeasuredAlign is the smallest offset and length that an O_DIRECT read of the scratch file accepted without
	// touching the page cache, in bytes; 0: none did or it was not tried.
	MeasuredAlign int64
}

// Rung is one method's standing on one file system.
type Rung struct {
	Method Method
	Usable bool
	Why    string // empty while usable
}

// Best is the first usable method for sealed files.
func (l Ladder) Best() Method {
	for _, r := range l.Rungs {
		if r.Usable {
			return r.Method
		}
	}
	return MethodBuffered
}

// ladder is the living form: reads walk the rungs without a lock.
//
//   - rungs is fixed at creation; buffered is always last and always usable.
//   - rung.off goes from nil to a reason; only Probe, which makes a new ladder, takes it back.
type ladder struct {
	name    string
	device  uint64
	probed  bool
	align   Align
	minimum int64 // measured alignment
	rungs   []*rung
}

type rung struct {
	method   Method
	failures atomic.Int32 // in a row: failed verifications
	refusals atomic.Int32 // in a row: reads that it refused
	off      atomic.Pointer[string]
}

func (r *rung) usable() bool { return r.off.Load() == nil }

// directAlign is the alignment that direct reads use: what the file system asks for, and never less than a page, so that
// a direct read covers whole pages as every other method does.
func (l *ladder) directAlign() int64 { return max(PageSize, l.align.Offset, l.minimum) }

func newLadder(name string, device uint64, mode ReadMode) *ladder {
	l := &ladder{name: name, device: device}
	started := mode == ModeAuto
	for _, m := range Methods() {
		started = started || string(m) == string(mode)
		if started {
			l.rungs = append(l.rungs, &rung{method: m})
		}
	}
	return l
}

func (l *ladder) view() Ladder {
	v := Ladder{FileSystem: l.name, Device: l.device, Probed: l.probed, Align: l.align, MeasuredAlign: l.minimum}
	for _, r := range l.rungs {
		row := Rung{Method: r.method, Usable: r.usable()}
		if why := r.off.Load(); why != nil {
			row.Why = *why
		}
		v.Rungs = append(v.Rungs, row)
	}
	return v
}

// Ladders describes every file system met so far, ordered by name.
func (c *Cache) Ladders() []Ladder {
	c.mu.Lock()
	defer c.mu.Unlock()
	views := make([]Ladder, 0, len(c.ladders))
	for _, l := range c.ladders {
		views = append(views, l.view())
	}
	sort.Slice(views, func(i, j int) bool { return views[i].FileSystem < views[j].FileSystem })
	return views
}

// ladderOf finds the ladder of f's file system; an unknown one gets the full ladder, which live reads then correct.
func (c *Cache) ladderOf(f vfs.File) (*ladder, error) {
	device, err := c.kernel.FileSystem(f)
	if errors.Is(err, ErrNoKernelFile) {
		return memoryLadder(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("file system of %s: %w", f.Name(), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.ladders[device]
	if !ok {
		l = newLadder(fmt.Sprintf("device %d", device), device, c.opt.ReadMode)
		c.ladders[device] = l
		c.showLadder(l)
	}
	return l, nil
}

// memoryLadder serves files that the page cache does not know: a plain read is all there is.
func memoryLadder() *ladder { return newLadder("memory", 0, ModeBuffered) }

func (c *Cache) install(l *ladder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.ladders[l.device]; ok && old.name != l.name {
		c.metrics.forgetLadder(old)
	}
	c.ladders[l.device] = l
	c.showLadder(l)
}

func (c *Cache) showLadder(l *ladder) {
	for _, r := range l.rungs {
		c.metrics.setUsable(l.name, r.method, r.usable())
	}
}

// Reasons for leaving a method, as metric labels.
const (
	causePolluted    = "polluted"
	causeUnsupported = "unsupported"
)

// strike counts one failure of r and takes it off the ladder after DemoteAfter in a row. A method that the operator
// chose by name stays however much it leaves behind, and so does drop-behind: below it is only the method that drops
// nothing at all.
func (c *Cache) strike(l *ladder, r *rung, cause, why string) {
	count := &r.failures
	if cause == causeUnsupported {
		count = &r.refusals
	}
	failures := int(count.Add(1))
	if cause == causePolluted {
		chosen := c.opt.ReadMode != ModeAuto && string(c.opt.ReadMode) == string(r.method)
		if chosen || r.method == MethodDropBehind || r.method == MethodBuffered {
			return
		}
	}
	if failures >= c.opt.DemoteAfter {
		c.takeOff(l, r, cause, why)
	}
}

func (c *Cache) takeOff(l *ladder, r *rung, cause, why string) {
	if !r.off.CompareAndSwap(nil, &why) {
		return
	}
	c.metrics.demoted(r.method, cause)
	c.metrics.setUsable(l.name, r.method, false)
	c.opt.Logger.Warn("read method was taken off the ladder",
		"file_system", l.name, "method", string(r.method), "cause", cause, "why", why, "next", string(l.view().Best()))
}

// unsupported tells a method that cannot work here from a read that failed.
func unsupported(err error) bool {
	return errors.Is(err, ErrMethodUnsupported) || errors.Is(err, vfs.ErrDirectUnsupported) ||
		errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, ErrNoKernelFile)
}
