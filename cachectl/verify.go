package cachectl

import "fmt"

// verification remembers what was resident around a read before it.
type verification struct {
	on     bool
	around extent // the read's windows and where its read-ahead would go, inside the file
	before int64  // resident pages in around
	cold   int64  // pages of the read itself that were not resident
}

// beginVerify looks before every VerifyEvery-th read, the first included. A read whose pages are all resident proves
// nothing and is not counted as verified.
func (c *Cache) beginVerify(src Source, pos, n int64) verification {
	every := c.opt.VerifyEvery
	if every <= 0 || (c.reads.Add(1)-1)%every != 0 {
		return verification{}
	}
	e, err := touched(pos, n)
	if err != nil {
		return verification{}
	}
	v := verification{on: true}
	// Never beyond Size: there a producer may be appending, and its pages are not ours.
	v.around = extent{
		alignDown(e.off, WindowBytes),
		min(alignUp(e.end, WindowBytes)+spillBytes, max(e.end, alignDown(src.Size, PageSize))),
	}
	own, err := c.count(src.Buffered, e)
	if err != nil {
		return verification{}
	}
	all, err := c.count(src.Buffered, v.around)
	if err != nil {
		return verification{}
	}
	v.before, v.cold = all.Resident, own.Pages-own.Resident
	v.on = v.cold > 0
	return v
}

// endVerify looks again and judges the method by what stayed. Other readers may have filled pages meanwhile, and reclaim
// may have taken some: one bad result proves nothing, DemoteAfter in a row do.
func (c *Cache) endVerify(l *ladder, r *rung, src Source, v verification, st *ReadStat) {
	if !v.on {
		return
	}
	after, err := c.count(src.Buffered, v.around)
	if err != nil {
		return
	}
	st.Verified = true
	st.LeftPages = max(0, after.Resident-v.before)
	lost := max(0, v.before-after.Resident)
	c.metrics.verified(r.method, st.LeftPages*PageSize, lost*PageSize)
	ratio := float64(st.LeftPages) / float64(v.cold)
	if ratio <= c.opt.MaxLeftRatio {
		r.failures.Store(0)
		return
	}
	c.strike(l, r, causePolluted, fmt.Sprintf("a read of %s left %d pages behind where %d had not been resident, failure %d in a row",
		src.Buffered.Name(), st.LeftPages, v.cold, r.failures.Load()+1))
}
