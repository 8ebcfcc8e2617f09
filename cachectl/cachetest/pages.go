package cachetest

import (
	"container/list"

	"lagoon/cachectl"
)

// maxFolioPages is the largest folio: 2 MiB.
const maxFolioPages = cachectl.WindowBytes / cachectl.PageSize

// folio is a naturally aligned power-of-two run of pages that lives and dies as one.
type folio struct {
	ino        *inode
	first, n   int64 // pages
	dirty      bool
	writeback  bool
	dropBehind bool // brought in by RWF_DONTCACHE
	referenced bool // touched once
	active     bool
	locked     int // pages of it that mappings lock
	place      *list.Element
}

// inode is one file's part of the cache. It outlives its name while descriptors are open.
type inode struct {
	fs      uint64
	size    int64
	pages   map[int64]*folio
	shadows map[int64]int64 // page: the eviction clock when it was reclaimed
}

// pageCache holds all folios. Invariant: used is the number of pages in all inodes' maps, and each folio is on exactly
// one of the lists.
type pageCache struct {
	capacity         int64 // pages
	used             int64
	inactive, active list.List // most recent in front
	unevictable      list.List // folios with locked pages
	activePages      int64
	clock            int64 // pages reclaimed so far
}

// fill makes the missing pages of [first, end) resident, in folios of at most maxPages, and returns the new ones.
func (c *pageCache) fill(ino *inode, first, end, maxPages int64) []*folio {
	var added []*folio
	for p := first; p < end; {
		if f := ino.pages[p]; f != nil {
			p = f.first + f.n
			continue
		}
		n := int64(1)
		for 2*n <= maxPages && p%(2*n) == 0 && p+2*n <= end && ino.free(p+n, p+2*n) {
			n *= 2
		}
		added = append(added, c.insert(ino, p, n))
		p += n
	}
	return added
}

func (ino *inode) free(first, end int64) bool {
	for p := first; p < end; p++ {
		if ino.pages[p] != nil {
			return false
		}
	}
	return true
}

func (c *pageCache) insert(ino *inode, first, n int64) *folio {
	f := &folio{ino: ino, first: first, n: n}
	for p := first; p < first+n; p++ {
		ino.pages[p] = f
		// A page that comes back before the active list turned over belongs to the working set.
		if at, ok := ino.shadows[p]; ok {
			f.active = f.active || c.clock-at <= c.activePages
			delete(ino.shadows, p)
		}
	}
	c.used += n
	c.push(f)
	return f
}

func (c *pageCache) push(f *folio) {
	if f.locked > 0 {
		f.place = c.unevictable.PushFront(f)
		return
	}
	if f.active {
		f.place = c.active.PushFront(f)
		c.activePages += f.n
		return
	}
	f.place = c.inactive.PushFront(f)
}

func (c *pageCache) unlink(f *folio) {
	if f.locked > 0 {
		c.unevictable.Remove(f.place)
		return
	}
	if f.active {
		c.active.Remove(f.place)
		c.activePages -= f.n
		return
	}
	c.inactive.Remove(f.place)
}

func (c *pageCache) remove(f *folio) {
	c.unlink(f)
	for p := f.first; p < f.first+f.n; p++ {
		delete(f.ino.pages, p)
	}
	c.used -= f.n
}

// touch is folio_mark_accessed: the second touch activates.
func (c *pageCache) touch(f *folio) {
	if !f.referenced {
		f.referenced = true
		return
	}
	if !f.active && f.locked == 0 {
		c.unlink(f)
		f.active, f.referenced = true, false
		c.push(f)
	}
}

// reclaim brings the cache back to its capacity.
func (c *pageCache) reclaim() {
	for c.used > c.capacity {
		// Keep the lists in balance, so that old favourites get their chance to leave.
		if tail := c.active.Back(); tail != nil && c.activePages > c.used-c.activePages {
			f := tail.Value.(*folio)
			c.unlink(f)
			f.active, f.referenced = false, false
			c.push(f)
			continue
		}
		tail := c.inactive.Back()
		if tail == nil {
			return
		}
		f := tail.Value.(*folio)
		f.dirty, f.writeback = false, false // written back first
		c.remove(f)
		for p := f.first; p < f.first+f.n; p++ {
			f.ino.shadows[p] = c.clock
		}
		c.clock += f.n
	}
}

// each calls fn once for every folio that has a page in [first, end), in order.
func (ino *inode) each(first, end int64, fn func(f *folio)) {
	last := (ino.size + cachectl.PageSize - 1) / cachectl.PageSize
	for p := first; p < min(end, last); {
		f := ino.pages[p]
		if f == nil {
			p++
			continue
		}
		p = f.first + f.n
		fn(f)
	}
}

// setLocked books by how many locked pages a folio has more or less.
func (c *pageCache) setLocked(f *folio, change int) {
	c.unlink(f)
	f.locked += change
	c.push(f)
}

// truncate forgets the pages beyond the new size.
func (c *pageCache) truncate(ino *inode, size int64) {
	keep := (size + cachectl.PageSize - 1) / cachectl.PageSize
	for p, f := range ino.pages {
		if p >= keep && ino.pages[p] == f {
			// The kernel splits a folio at the cut; what is left of it stays as single pages.
			dirty := f.dirty
			first, n := f.first, f.n
			c.remove(f)
			for q := first; q < min(first+n, keep); q++ {
				c.insert(ino, q, 1).dirty = dirty
			}
		}
	}
	for p := range ino.shadows {
		if p >= keep {
			delete(ino.shadows, p)
		}
	}
	ino.size = size
}

func (c *pageCache) count(ino *inode, first, end int64) (n cachectl.PageCounts) {
	for p := first; p < end; p++ {
		if f := ino.pages[p]; f != nil {
			n.Resident++
			if f.dirty {
				n.Dirty++
			}
			if f.writeback {
				n.Writeback++
			}
			continue
		}
		if at, ok := ino.shadows[p]; ok {
			n.Evicted++
			if c.clock-at <= c.activePages {
				n.RecentlyEvicted++
			}
		}
	}
	return n
}
