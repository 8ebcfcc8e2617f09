package cachectl

import (
	"errors"
	"fmt"
	"math"

	"lagoon/internal/vfs"
)

// Residency methods, as reported in Residency.Method.
const (
	residencyCachestat = "cachestat"
	residencyMincore   = "mincore"
)

// mincoreStep bounds one mincore call: 16 MiB of file, 4 KiB of answer.
const mincoreStep = 4096 * PageSize

// extent is a run of whole pages, [off, end), both multiples of PageSize.
type extent struct{ off, end int64 }

func (e extent) bytes() int64 { return e.end - e.off }
func (e extent) pages() int64 { return (e.end - e.off) / PageSize }

func alignDown(v, a int64) int64 { return v - v%a }
func alignUp(v, a int64) int64   { return alignDown(v+a-1, a) }

// touched is the run of whole pages that [pos, pos+n) touches.
func touched(pos, n int64) (extent, error) {
	if pos < 0 || n < 0 || pos > math.MaxInt64-2*WindowBytes-n {
		return extent{}, fmt.Errorf("%w: position %d, length %d", ErrRange, pos, n)
	}
	if n == 0 {
		return extent{alignDown(pos, PageSize), alignDown(pos, PageSize)}, nil
	}
	return extent{alignDown(pos, PageSize), alignUp(pos+n, PageSize)}, nil
}

// Residency counts the pages that [pos, pos+n) of f touches. Pages beyond the end of the file count as not resident.
//
// The answer is a snapshot and a hint: it may be old when it arrives, and a page that is still being read counts as
// resident. It costs about 0.6 µs per MiB (cachestat, large folios) or 20 µs per MiB (mincore). The kernel answers only
// to a process that owns the file or may write it.
// Errors: ErrRange, ErrNoKernelFile, the kernel's. Safe for concurrent use. Source: cachestat(2), mincore(2).
func (c *Cache) Residency(f vfs.File, pos, n int64) (Residency, error) {
	e, err := touched(pos, n)
	if err != nil {
		return Residency{}, fmt.Errorf("residency of %s: %w", f.Name(), err)
	}
	r, err := c.count(f, e)
	if err != nil {
		return Residency{}, fmt.Errorf("residency of %s: %w", f.Name(), err)
	}
	return r, nil
}

// Resident tells whether all pages that [pos, pos+n) touches are in the page cache; see Residency for cost and errors.
func (c *Cache) Resident(f vfs.File, pos, n int64) (bool, error) {
	r, err := c.Residency(f, pos, n)
	return err == nil && r.Resident >= r.Pages, err
}

func (c *Cache) count(f vfs.File, e extent) (Residency, error) {
	r := Residency{Pages: e.pages(), Method: residencyCachestat}
	if c.noCachestat.Load() {
		r.Method = residencyMincore
	}
	if e.bytes() == 0 { // to the kernel a length of 0 means "to the end of the file"
		return r, nil
	}
	if r.Method == residencyCachestat {
		p, err := c.kernel.Cachestat(f, e.off, e.bytes())
		if err == nil {
			c.metrics.residencyCachestat.Inc()
			r.Resident, r.Dirty, r.Writeback = p.Resident, p.Dirty, p.Writeback
			r.Evicted, r.RecentlyEvicted = p.Evicted, p.RecentlyEvicted
			return r, nil
		}
		if !errors.Is(err, ErrNoCachestat) {
			return Residency{}, err
		}
		c.loseCachestat(err)
		r.Method = residencyMincore
	}
	err := c.eachMincore(f, e, func(_ int64, resident []bool) {
		for _, yes := range resident {
			if yes {
				r.Resident++
			}
		}
	})
	if err != nil {
		return Residency{}, err
	}
	return r, nil
}

// loseCachestat switches the process to mincore for good: the kernel does not grow the call, and a seccomp filter is
// never taken back.
func (c *Cache) loseCachestat(err error) {
	if c.noCachestat.CompareAndSwap(false, true) {
		c.metrics.cachestatUsable.Set(0)
		c.opt.Logger.Warn("cachestat was not available, residency is asked by mincore (slower, and blind to dirty and evicted pages)",
			"err", err)
	}
}

// eachMincore calls fn with the residency of consecutive pages of e, in order, in bounded steps.
func (c *Cache) eachMincore(f vfs.File, e extent, fn func(off int64, resident []bool)) error {
	buf := make([]bool, min(e.bytes(), mincoreStep)/PageSize)
	for off := e.off; off < e.end; {
		step := min(e.end-off, mincoreStep)
		resident := buf[:step/PageSize]
		if err := c.kernel.Mincore(f, off, resident); err != nil {
			return err
		}
		c.metrics.residencyMincore.Inc()
		fn(off, resident)
		off += step
	}
	return nil
}

// coldRuns lists the maximal runs of pages of e that are not resident, in order.
//
// cachestat only counts, so a mixed range is halved until each part is all or nothing: one call for the usual case, at
// worst two per page for a chequered one.
func (c *Cache) coldRuns(f vfs.File, e extent) ([]extent, error) {
	var runs []extent
	add := func(r extent) {
		if last := len(runs) - 1; last >= 0 && runs[last].end == r.off {
			runs[last].end = r.end
			return
		}
		runs = append(runs, r)
	}
	var split func(e extent) error
	split = func(e extent) error {
		r, err := c.count(f, e)
		switch {
		case err != nil:
			return err
		case r.Resident == 0:
			add(e)
			return nil
		case r.Resident >= r.Pages:
			return nil
		case r.Method == residencyMincore:
			return c.eachMincore(f, e, func(off int64, resident []bool) {
				for i, yes := range resident {
					if at := off + int64(i)*PageSize; !yes {
						add(extent{at, at + PageSize})
					}
				}
			})
		}
		mid := e.off + alignUp(e.bytes()/2, PageSize)
		if err := split(extent{e.off, mid}); err != nil {
			return err
		}
		return split(extent{mid, e.end})
	}
	if e.bytes() == 0 {
		return nil, nil
	}
	err := split(e)
	return runs, err
}
