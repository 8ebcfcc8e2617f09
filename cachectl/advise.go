package cachectl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"lagoon/internal/vfs"
)

// Steps that bound the time of one kernel call.
const (
	evictStep = 64 << 20
	warmStep  = 1 << 20
	// warmAttempts bounds the calls per step: a call reads at most max(read_ahead_kb, max_sectors_kb) and ignores the
	// rest, 128 KiB in the worst usual case.
	warmAttempts = warmStep / (128 << 10)
)

// Evicted is what Evict came to, in pages of PageSize.
type Evicted struct {
	DroppedPages int64
	LeftPages    int64 // still resident: dirty, in use, or in a folio that reaches beyond the range
	DirtyPages   int64 // of them dirty or being written; write-back was started, a later Evict drops them. 0 with mincore
}

// WriteBack starts writing the dirty pages of [pos, pos+n) and does not wait: the pages become clean early and steadily,
// and the next sync is short. It makes nothing durable and consumes no write error. Nothing happens for a memory file.
// Errors: ErrRange, the kernel's. Safe for concurrent use. Source: sync_file_range(2), SYNC_FILE_RANGE_WRITE only.
func (c *Cache) WriteBack(f vfs.File, pos, n int64) error {
	e, err := touched(pos, n)
	if err == nil && e.bytes() > 0 {
		err = c.kernel.StartWriteBack(f, e.off, e.bytes())
	}
	if errors.Is(err, ErrNoKernelFile) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write-back of %s at %d: %w", f.Name(), pos, err)
	}
	c.metrics.writeBackBytes.Add(float64(e.bytes()))
	return nil
}

// WriteOut writes the dirty pages of [pos, pos+n) and waits until they are written; the next sync is short. It makes nothing
// durable. A write error that it gives is that of a failed sync, ErrWriteLost: no later sync reports it, and the pages are gone. Nothing
// happens for a memory file, or where the system cannot. Errors: ErrRange, ErrWriteLost. Safe for concurrent use.
// Source: sync_file_range(2) with all three flags. Unlike with WRITE alone the kernel counts these writes as synchronous ones, for
// which its write-back throttling (blk-wbt) keeps a queue four times as deep while others read.
func (c *Cache) WriteOut(f vfs.File, pos, n int64) error {
	e, err := touched(pos, n)
	if err != nil || e.bytes() == 0 {
		return err
	}
	switch err := c.kernel.WriteOut(f, e.off, e.bytes()); {
	case errors.Is(err, ErrNoKernelFile), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESPIPE):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %s at %d: %w", ErrWriteLost, f.Name(), pos, err)
	}
	c.metrics.writeBackBytes.Add(float64(e.bytes()))
	return nil
}

// Evict drops the clean pages of [pos, pos+n) from the page cache, whoever brought them in: the caller knows that every
// real-time reader has passed them. Dirty pages stay, their write-back is started. Pages outside the range are never
// dropped, so folios at a ragged edge stay too: use multiples of WindowBytes.
// Errors: ErrRange, ErrNoKernelFile, the kernel's. Safe for concurrent use. Source: posix_fadvise(2) POSIX_FADV_DONTNEED.
func (c *Cache) Evict(f vfs.File, pos, n int64) (Evicted, error) {
	e, err := touched(pos, n)
	if err != nil {
		return Evicted{}, fmt.Errorf("evict %s: %w", f.Name(), err)
	}
	var out Evicted
	for off := e.off; off < e.end; {
		step := extent{off, min(e.end, alignDown(off, evictStep)+evictStep)}
		if err := c.evictStep(f, step, &out); err != nil {
			return out, fmt.Errorf("evict %s at %d: %w", f.Name(), off, err)
		}
		off = step.end
	}
	c.metrics.evictedBytes.Add(float64(out.DroppedPages * PageSize))
	c.metrics.evictLeftBytes.Add(float64(out.LeftPages * PageSize))
	return out, nil
}

func (c *Cache) evictStep(f vfs.File, step extent, out *Evicted) error {
	before, err := c.count(f, step)
	if err != nil {
		return err
	}
	if before.Resident == 0 {
		return nil
	}
	// mincore cannot see dirty pages, so with it write-back is always started.
	if before.Dirty > 0 || before.Method == residencyMincore {
		if err := c.kernel.StartWriteBack(f, step.off, step.bytes()); err != nil {
			return err
		}
	}
	if err := c.kernel.Advise(f, step.off, step.bytes(), AdviseDontNeed); err != nil {
		return err
	}
	after, err := c.count(f, step)
	if err != nil {
		return err
	}
	out.DroppedPages += max(0, before.Resident-after.Resident)
	out.LeftPages += after.Resident
	out.DirtyPages += after.Dirty + after.Writeback
	return nil
}

// Warm asks the kernel to read the missing pages of [pos, pos+n) into the page cache, and returns how many pages are
// resident, or on their way, that were not before. It does not wait for them, except where the device's queue is full.
// A step that the kernel refuses to make progress on (no memory) ends it without an error.
// Errors: ErrRange, ErrNoKernelFile, the kernel's. Safe for concurrent use. Source: posix_fadvise(2) POSIX_FADV_WILLNEED.
func (c *Cache) Warm(f vfs.File, pos, n int64) (int64, error) {
	e, err := touched(pos, n)
	if err != nil {
		return 0, fmt.Errorf("warm %s: %w", f.Name(), err)
	}
	size, err := f.Size()
	if err != nil {
		return 0, fmt.Errorf("warm %s: %w", f.Name(), err)
	}
	e.end = min(e.end, alignUp(size, PageSize))
	var warmed int64
	for off := e.off; off < e.end; {
		step := extent{off, min(e.end, alignDown(off, warmStep)+warmStep)}
		got, done, err := c.warmStep(f, step)
		warmed += got
		if err != nil {
			return warmed, fmt.Errorf("warm %s at %d: %w", f.Name(), off, err)
		}
		if !done {
			break
		}
		off = step.end
	}
	c.metrics.warmedBytes.Add(float64(warmed * PageSize))
	return warmed, nil
}

func (c *Cache) warmStep(f vfs.File, step extent) (warmed int64, done bool, err error) {
	cold, err := c.coldRuns(f, step)
	if err != nil {
		return 0, false, err
	}
	first := pagesOf(cold)
	for range warmAttempts {
		if len(cold) == 0 {
			return first, true, nil
		}
		for _, run := range cold {
			if err := c.kernel.Advise(f, run.off, run.bytes(), AdviseWillNeed); err != nil {
				return 0, false, err
			}
		}
		left, err := c.coldRuns(f, step)
		if err != nil {
			return 0, false, err
		}
		if pagesOf(left) >= pagesOf(cold) {
			return max(0, first-pagesOf(left)), false, nil
		}
		cold = left
	}
	return first - pagesOf(cold), len(cold) == 0, nil
}

func pagesOf(runs []extent) (pages int64) {
	for _, r := range runs {
		pages += r.pages()
	}
	return pages
}
