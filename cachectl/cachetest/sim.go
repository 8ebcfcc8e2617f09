package cachetest

import (
	"container/list"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// Options says what kind of kernel and file system is simulated. Set changes it in the middle of a test.
type Options struct {
	CapacityBytes  int64 // memory for pages; default 64 MiB
	ReadAheadBytes int64 // read_ahead_kb; default 512 KiB
	DirectAlign    int64 // what statx tells and O_DIRECT demands; default 512
	SmallFolios    bool  // every folio is one page
	IgnoreRandom   bool  // read-ahead in spite of AdviseRandom

	LockBytes   int64 // RLIMIT_MEMLOCK; 0: no limit
	NoCachestat bool  // old kernel or seccomp
	NoDontCache bool  // EOPNOTSUPP
	NoDirect    bool  // open fails
	InMemory    bool  // tmpfs

	LeakDirect    bool // O_DIRECT goes through the cache behind the reader's back
	LeakDontCache bool // RWF_DONTCACHE is accepted and ignored

	// Trace, when not nil, gets one line per read, write and kernel call. It is called with the simulation's lock held.
	Trace func(line string)
}

func (o Options) withDefaults() Options {
	if o.CapacityBytes == 0 {
		o.CapacityBytes = 64 << 20
	}
	if o.ReadAheadBytes == 0 {
		o.ReadAheadBytes = 512 << 10
	}
	if o.DirectAlign == 0 {
		o.DirectAlign = 512
	}
	return o
}

// Sim is one machine's page cache. It implements cachectl.Kernel.
type Sim struct {
	mu    sync.Mutex
	opt   Options
	cache pageCache
	trees []*tree
	locks int64 // pages locked by all mappings
}

var _ cachectl.Kernel = (*Sim)(nil)

// New makes an empty cache.
func New(opt Options) *Sim {
	s := &Sim{}
	s.Set(func(o *Options) { *o = opt })
	return s
}

// Set changes the options; what is resident stays, within the new capacity.
func (s *Sim) Set(change func(o *Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.opt)
	s.opt = s.opt.withDefaults()
	s.cache.capacity = s.opt.CapacityBytes / cachectl.PageSize
	s.cache.reclaim()
}

// UsedBytes is the memory that all pages take.
func (s *Sim) UsedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache.used * cachectl.PageSize
}

// LockedBytes is the memory that mappings lock.
func (s *Sim) LockedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks * cachectl.PageSize
}

// Settle ends all write-back that was started.
func (s *Sim) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range []*list.List{&s.cache.inactive, &s.cache.active, &s.cache.unevictable} {
		for e := l.Front(); e != nil; e = e.Next() {
			e.Value.(*folio).writeback = false
		}
	}
}

// Map draws what is cached of f: runs of pages, "0-511 600-603(dirty)", or "-".
func (s *Sim) Map(f vfs.File) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return err.Error()
	}
	type run struct {
		first, last int64
		dirty       bool
	}
	var runs []run
	for p := int64(0); p*cachectl.PageSize < h.ino.size; p++ {
		f := h.ino.pages[p]
		if f == nil {
			continue
		}
		dirty := f.dirty || f.writeback
		if n := len(runs) - 1; n >= 0 && runs[n].last == p-1 && runs[n].dirty == dirty {
			runs[n].last = p
			continue
		}
		runs = append(runs, run{p, p, dirty})
	}
	if len(runs) == 0 {
		return "-"
	}
	var b strings.Builder
	for i, r := range runs {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d-%d", r.first, r.last)
		if r.dirty {
			b.WriteString("(dirty)")
		}
	}
	return b.String()
}

func (s *Sim) trace(format string, args ...any) {
	if s.opt.Trace != nil {
		s.opt.Trace(fmt.Sprintf(format, args...))
	}
}

// rangeText writes a position and a length as people do: "2MiB+64KiB".
func rangeText(off, n int64) string { return sizeText(off) + "+" + sizeText(n) }

func sizeText(v int64) string {
	switch {
	case v != 0 && v%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", v>>20)
	case v != 0 && v%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", v>>10)
	}
	return fmt.Sprint(v)
}

// pageRange is the pages that [off, off+n) touches.
func pageRange(off, n int64) (first, end int64) {
	return off / cachectl.PageSize, (off + n + cachectl.PageSize - 1) / cachectl.PageSize
}

func (s *Sim) handle(f vfs.File) (*file, error) {
	h, ok := f.(*file)
	if !ok || h.sim != s {
		return nil, cachectl.ErrNoKernelFile
	}
	return h, nil
}

// FileSystem implements cachectl.Kernel.
func (s *Sim) FileSystem(f vfs.File) (uint64, error) {
	h, err := s.handle(f)
	if err != nil {
		return 0, err
	}
	return h.ino.fs, nil
}

// Cachestat implements cachectl.Kernel.
func (s *Sim) Cachestat(f vfs.File, off, n int64) (cachectl.PageCounts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return cachectl.PageCounts{}, err
	}
	if s.opt.NoCachestat {
		s.trace("cachestat %s %s: no such call", h.Name(), rangeText(off, n))
		return cachectl.PageCounts{}, cachectl.ErrNoCachestat
	}
	first, end := pageRange(off, n)
	counts := s.cache.count(h.ino, first, end)
	s.trace("cachestat %s %s: %d of %d", h.Name(), rangeText(off, n), counts.Resident, end-first)
	return counts, nil
}

// Mincore implements cachectl.Kernel.
func (s *Sim) Mincore(f vfs.File, off int64, resident []bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return err
	}
	if off%cachectl.PageSize != 0 {
		return fmt.Errorf("mincore: %w", syscall.EINVAL)
	}
	yes := 0
	for i := range resident {
		resident[i] = h.ino.pages[off/cachectl.PageSize+int64(i)] != nil
		if resident[i] {
			yes++
		}
	}
	s.trace("mincore %s %s: %d of %d", h.Name(), rangeText(off, int64(len(resident))*cachectl.PageSize), yes, len(resident))
	return nil
}

// ReadDontCache implements cachectl.Kernel.
func (s *Sim) ReadDontCache(f vfs.File, p []byte, off int64) (int, error) {
	s.mu.Lock()
	h, err := s.handle(f)
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	s.trace("preadv2 %s %s dontcache", h.Name(), rangeText(off, int64(len(p))))
	if s.opt.NoDontCache || s.opt.InMemory {
		s.mu.Unlock()
		return 0, fmt.Errorf("%w: %w", cachectl.ErrMethodUnsupported, syscall.EOPNOTSUPP)
	}
	if n := min(int64(len(p)), h.ino.size-off); n > 0 {
		s.touchRange(h, off, n, !s.opt.LeakDontCache)
		s.dropBehind(h.ino, off, n)
		s.cache.reclaim()
	}
	s.mu.Unlock()
	return readBase(h, p, off)
}

// touchRange is a read through the cache: it brings in what is missing, with read-ahead, and marks what it passes.
func (s *Sim) touchRange(h *file, off, n int64, dropBehind bool) {
	first, end := pageRange(off, n)
	last := (h.ino.size + cachectl.PageSize - 1) / cachectl.PageSize
	upTo, folioPages := end, int64(1)
	if !h.random || s.opt.IgnoreRandom {
		folioPages = maxFolioPages
		if !h.ino.full(first, end) {
			upTo = end + s.opt.ReadAheadBytes/cachectl.PageSize
		}
	}
	if s.opt.SmallFolios {
		folioPages = 1
	}
	for _, f := range s.cache.fill(h.ino, first, min(upTo, last), folioPages) {
		f.dropBehind = dropBehind
	}
	h.ino.each(first, end, func(f *folio) {
		s.cache.touch(f)
		f.dropBehind = f.dropBehind && dropBehind // an ordinary reader wants it: it stays
	})
}

func (ino *inode) full(first, end int64) bool {
	for p := first; p < end; p++ {
		if ino.pages[p] == nil {
			return false
		}
	}
	return true
}

func (s *Sim) dropBehind(ino *inode, off, n int64) {
	first, end := pageRange(off, n)
	ino.each(first, end, func(f *folio) {
		if f.dropBehind && !f.dirty && !f.writeback && f.locked == 0 {
			s.cache.remove(f)
		}
	})
}

// Advise implements cachectl.Kernel.
func (s *Sim) Advise(f vfs.File, off, n int64, a cachectl.Advice) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return err
	}
	switch a {
	case cachectl.AdviseNormal, cachectl.AdviseRandom:
		h.random = a == cachectl.AdviseRandom
		s.trace("fadvise %s %s", h.Name(), map[bool]string{true: "random", false: "normal"}[h.random])
	case cachectl.AdviseWillNeed:
		s.trace("fadvise %s %s willneed", h.Name(), rangeText(off, n))
		first, end := pageRange(off, n)
		// One call reads at most one read-ahead window.
		end = min(end, first+s.opt.ReadAheadBytes/cachectl.PageSize, (h.ino.size+cachectl.PageSize-1)/cachectl.PageSize)
		s.cache.fill(h.ino, first, end, maxFolioPages)
		s.cache.reclaim()
	case cachectl.AdviseDontNeed:
		s.trace("fadvise %s %s dontneed", h.Name(), rangeText(off, n))
		s.dontNeed(h.ino, off, n)
	default:
		return fmt.Errorf("fadvise: %w", syscall.EINVAL)
	}
	return nil
}

// dontNeed drops clean folios that lie wholly inside; a page that is only partly inside counts as outside.
func (s *Sim) dontNeed(ino *inode, off, n int64) {
	if s.opt.InMemory {
		return
	}
	first := (off + cachectl.PageSize - 1) / cachectl.PageSize
	end := (off + n) / cachectl.PageSize
	if off+n >= ino.size {
		end = (ino.size + cachectl.PageSize - 1) / cachectl.PageSize
	}
	ino.each(first, end, func(f *folio) {
		if f.first >= first && f.first+f.n <= end && !f.dirty && !f.writeback && f.locked == 0 {
			s.cache.remove(f)
		}
	})
}

// StartWriteBack implements cachectl.Kernel.
func (s *Sim) StartWriteBack(f vfs.File, off, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return err
	}
	s.trace("sync_file_range %s %s write", h.Name(), rangeText(off, n))
	first, end := pageRange(off, n)
	h.ino.each(first, end, func(f *folio) {
		f.writeback = f.writeback || f.dirty
		f.dirty = false
	})
	return nil
}

// WriteOut implements cachectl.Kernel.
func (s *Sim) WriteOut(f vfs.File, off, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return err
	}
	s.trace("sync_file_range %s %s wait", h.Name(), rangeText(off, n))
	first, end := pageRange(off, n)
	h.ino.each(first, end, func(f *folio) { f.writeback, f.dirty = false, false })
	return nil
}

// DirectAlign implements cachectl.Kernel.
func (s *Sim) DirectAlign(f vfs.File) (cachectl.Align, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.handle(f); err != nil {
		return cachectl.Align{}, err
	}
	if s.opt.NoDirect {
		return cachectl.Align{}, vfs.ErrDirectUnsupported
	}
	return cachectl.Align{Memory: s.opt.DirectAlign, Offset: s.opt.DirectAlign}, nil
}

// MapFile implements cachectl.Kernel.
func (s *Sim) MapFile(f vfs.File, _ int64) (cachectl.Mapping, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.handle(f)
	if err != nil {
		return nil, err
	}
	return &mapping{sim: s, file: h, pages: map[int64]bool{}}, nil
}

// mapping locks pages of one inode.
type mapping struct {
	sim   *Sim
	file  *file
	pages map[int64]bool // locked through it
}

func (m *mapping) Lock(_ vfs.File, off, n int64) error {
	s := m.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace("mlock %s %s", m.file.Name(), rangeText(off, n))
	first, end := pageRange(off, n)
	if limit := s.opt.LockBytes; limit > 0 && (s.locks+end-first)*cachectl.PageSize > limit {
		return cachectl.ErrPinLimit
	}
	if last := (m.file.ino.size + cachectl.PageSize - 1) / cachectl.PageSize; end > last {
		return fmt.Errorf("mlock %s: %w", m.file.Name(), syscall.ENOMEM)
	}
	s.cache.fill(m.file.ino, first, end, 1)
	for p := first; p < end; p++ {
		if !m.pages[p] {
			m.pages[p] = true
			s.locks++
			s.cache.setLocked(m.file.ino.pages[p], 1)
		}
	}
	s.cache.reclaim()
	return nil
}

func (m *mapping) Unlock(off, n int64) error {
	m.sim.mu.Lock()
	defer m.sim.mu.Unlock()
	m.sim.trace("munmap %s %s", m.file.Name(), rangeText(off, n))
	m.unlock(pageRange(off, n))
	return nil
}

func (m *mapping) unlock(first, end int64) {
	for p := first; p < end; p++ {
		if m.pages[p] {
			delete(m.pages, p)
			m.sim.locks--
			if f := m.file.ino.pages[p]; f != nil && f.locked > 0 { // a truncated file has lost it
				m.sim.cache.setLocked(f, -1)
			}
		}
	}
}

func (m *mapping) Close() error {
	m.sim.mu.Lock()
	defer m.sim.mu.Unlock()
	m.sim.trace("munmap %s", m.file.Name())
	for p := range m.pages {
		m.unlock(p, p+1)
	}
	return nil
}

// direct is the cache's side of an O_DIRECT read.
func (s *Sim) direct(h *file, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace("read %s %s direct", h.Name(), rangeText(off, int64(len(p))))
	address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	if (address|off|int64(len(p)))%s.opt.DirectAlign != 0 {
		return fmt.Errorf("read %s: %w", h.Name(), syscall.EINVAL)
	}
	n := min(int64(len(p)), h.ino.size-off)
	if n <= 0 {
		return nil
	}
	if s.opt.LeakDirect || s.opt.InMemory {
		s.touchRange(h, off, n, false)
		s.cache.reclaim()
		return nil
	}
	first, end := pageRange(off, n)
	h.ino.each(first, end, func(f *folio) { f.dirty, f.writeback = false, false })
	return nil
}

// buffered is the cache's side of a plain read.
func (s *Sim) buffered(h *file, n, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace("read %s %s", h.Name(), rangeText(off, n))
	if n = min(n, h.ino.size-off); n > 0 {
		s.touchRange(h, off, n, false)
		s.cache.reclaim()
	}
}

// wrote is the cache's side of a write that succeeded.
func (s *Sim) wrote(h *file, n, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace("write %s %s", h.Name(), rangeText(off, n))
	h.ino.size = max(h.ino.size, off+n)
	first, end := pageRange(off, n)
	folioPages := int64(maxFolioPages)
	if s.opt.SmallFolios {
		folioPages = 1
	}
	s.cache.fill(h.ino, first, end, folioPages)
	h.ino.each(first, end, func(f *folio) {
		f.dirty, f.dropBehind = true, false
		s.cache.touch(f)
	})
	s.cache.reclaim()
}
