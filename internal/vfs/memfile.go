package vfs

import (
	"io"
	"io/fs"
	"math"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// memBlock is the unit in which unsynced bytes are lost or kept: a page, and ext4's and xfs's usual block.
const memBlock = 4096

type page [memBlock]byte

var zeroPage page

// block is one block of a file. Pages that something else may point to are never written to again (curShared).
type block struct {
	cur       *page   // what buffered reads see; nil = zeros
	disk      *page   // what is on stable storage; nil = zeros
	mid       []*page // contents in between, which write-back may have reached
	curShared bool
	dirty     bool // cur is newer than disk
	freed     bool // cut off by Truncate since the last sync: what is on disk comes back only if the cut is undone
	lost      bool // a sync failed: cur is only cached, disk is what remains, and no later sync will change that
	allocated bool // counts against the capacity
}

// platter is what reading past the cache gives.
func (b *block) platter() *page {
	if b.freed {
		return nil
	}
	return b.disk
}

// memFile is one handle on an inode.
type memFile struct {
	m      *Mem
	ino    *inode
	name   string
	mode   Mode
	align  Alignment
	closed atomic.Bool
}

func (f *memFile) Name() string        { return f.name }
func (f *memFile) Fd() (uintptr, bool) { return 0, false }

// check tells whether the handle may be used. Mem.mu is held.
func (f *memFile) check(write bool) error {
	switch {
	case f.closed.Load():
		return fs.ErrClosed
	case f.m.dead:
		return ErrDead
	case write && !f.mode.writes():
		return syscall.EBADF
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	err := f.check(false)
	if err == nil && (off < 0 || f.mode.direct() && !f.align.fits(p, off)) {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, f.m.fail("read", f.name, err)
	}
	n := int(min(int64(len(p)), max(0, f.ino.size-off)))
	f.ino.read(p[:n], off, f.mode.direct())
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read fills p from off, all of it within the size. Direct reads go past the cache: they see what a lost block lost.
func (ino *inode) read(p []byte, off int64, direct bool) {
	for len(p) > 0 {
		num, at := off/memBlock, int(off%memBlock)
		src := &zeroPage
		if b := ino.blocks[num]; b != nil {
			pg := b.cur
			if direct && b.lost {
				pg = b.platter()
			}
			if pg != nil {
				src = pg
			}
		}
		n := copy(p, src[at:])
		p, off = p[n:], off+int64(n)
	}
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check(true)
	if err == nil && (off < 0 || f.mode == DirectSync && !f.align.fits(p, off)) {
		err = syscall.EINVAL
	}
	if err == nil && off > memMaxFile-int64(len(p)) {
		err = syscall.EFBIG
	}
	n := 0
	if err == nil {
		n, err = f.m.write(f.ino, p, off)
	}
	if f.mode == DirectSync && n > 0 {
		f.ino.syncRange(off, int64(n))
	}
	return n, f.m.fail("write", f.name, err)
}

// write stores p block by block, as far as there is space.
func (m *Mem) write(ino *inode, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		num, at := (off+int64(n))/memBlock, int((off+int64(n))%memBlock)
		b, err := m.alloc(ino, num)
		if err != nil {
			return n, err
		}
		n += copy(m.dirtyPage(b)[at:], p[n:])
		if end := off + int64(n); end > ino.size {
			m.resize(ino, end)
		}
	}
	ino.modTime = time.Now()
	return n, nil
}

// alloc gives block num of ino, taking space for it if it has none.
func (m *Mem) alloc(ino *inode, num int64) (*block, error) {
	b := ino.blocks[num]
	if b == nil {
		b = &block{}
	}
	if !b.allocated {
		if m.capacity > 0 && m.used+memBlock > m.capacity {
			return nil, syscall.ENOSPC
		}
		m.used += memBlock
		b.allocated = true
		ino.blocks[num] = b
	}
	return b, nil
}

func (m *Mem) free(b *block) {
	if b.allocated {
		b.allocated = false
		m.used -= memBlock
	}
}

// dirtyPage makes the current content of b writable and marks it unsynced. Of a block that was already unsynced the
// content before is now and then remembered: write-back may have reached it.
func (m *Mem) dirtyPage(b *block) *page {
	if b.dirty && m.rng.IntN(midOneIn) == 0 {
		pg := b.cur
		if pg == nil {
			pg = &zeroPage
		}
		b.mid = remember(m, b.mid, pg, maxMidPages)
		b.curShared = true
	}
	b.dirty, b.lost = true, false
	switch {
	case b.cur == nil:
		b.cur = new(page)
	case b.curShared:
		pg := *b.cur
		b.cur = &pg
	}
	b.curShared = false
	return b.cur
}

// remember adds x to list, or puts it in a random place once there are limit.
func remember[T any](m *Mem, list []T, x T, limit int) []T {
	if len(list) < limit {
		return append(list, x)
	}
	list = slices.Clone(list) // a clone of this Mem may share it
	list[m.rng.IntN(limit)] = x
	return list
}

// resize sets the size; what lies beyond it is the caller's.
func (m *Mem) resize(ino *inode, size int64) {
	if ino.sized {
		ino.midSizes = remember(m, ino.midSizes, ino.size, maxMidSizes)
	}
	ino.size, ino.sized = size, true
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.check(false); err != nil {
		return 0, f.m.fail("stat", f.name, err)
	}
	return f.ino.size, nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check(true)
	switch {
	case err != nil:
	case size < 0:
		err = syscall.EINVAL
	case size > memMaxFile:
		err = syscall.EFBIG
	default:
		f.m.truncate(f.ino, size)
	}
	return f.m.fail("truncate", f.name, err)
}

// truncate frees whole blocks beyond size, allocated ones too, and clears the rest of the last one. What they hold on
// disk stays there until the next sync.
func (m *Mem) truncate(ino *inode, size int64) {
	for num, b := range ino.blocks {
		if num*memBlock >= size {
			m.free(b)
			b.cur, b.curShared, b.mid = nil, false, nil
			b.freed = b.disk != nil
			b.dirty, b.lost = b.freed, false
		}
	}
	if at := size % memBlock; at != 0 && size < ino.size {
		if b := ino.blocks[size/memBlock]; b != nil {
			clear(m.dirtyPage(b)[at:])
		}
	}
	ino.modTime = time.Now()
	if size < ino.size {
		ino.size, ino.cut, ino.midSizes, ino.sized = size, size, nil, true
		return
	}
	m.resize(ino, size)
}

func (f *memFile) Allocate(off, n int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check(true)
	switch {
	case err != nil:
	case off < 0 || n <= 0:
		err = syscall.EINVAL
	case off > memMaxFile-n:
		err = syscall.EFBIG
	default:
		err = f.m.reserve(f.ino, off/memBlock, (off+n-1)/memBlock)
	}
	return f.m.fail("allocate", f.name, err)
}

// reserve allocates blocks first to last, or none.
func (m *Mem) reserve(ino *inode, first, last int64) error {
	want := int64(0)
	for num := first; num <= last; num++ {
		if b := ino.blocks[num]; b == nil || !b.allocated {
			want += memBlock
		}
		if m.capacity > 0 && m.used+want > m.capacity {
			return syscall.ENOSPC
		}
	}
	for num := first; num <= last; num++ {
		if _, err := m.alloc(ino, num); err != nil {
			return err
		}
	}
	return nil
}

func (f *memFile) SyncData() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(false); err != nil {
		return f.m.fail("sync", f.name, err)
	}
	f.ino.sync()
	return nil
}

func (f *memFile) SyncRange(off, n int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check(false)
	if err == nil && (off < 0 || n < 0 || off > math.MaxInt64-n) {
		err = syscall.EINVAL
	}
	if err == nil {
		f.ino.syncRange(off, n)
	}
	return f.m.fail("sync", f.name, err)
}

// syncRange makes the blocks of a range durable, and the size as far as they need it. A cut that is not durable is made so with all the rest.
func (ino *inode) syncRange(off, n int64) {
	end := min(ino.size, off+n)
	if ino.cut >= 0 || off == 0 && end == ino.size {
		ino.sync()
		return
	}
	if off >= end {
		return
	}
	for num := off / memBlock; num*memBlock < end; num++ {
		if b := ino.blocks[num]; b != nil {
			b.sync()
		}
	}
	if end == ino.size {
		ino.diskSize, ino.midSizes, ino.sized = end, nil, false
		return
	}
	ino.diskSize = max(ino.diskSize, end)
	ino.midSizes = slices.DeleteFunc(slices.Clone(ino.midSizes), func(size int64) bool { return size < end }) // a clone of this Mem may share it
}

func (ino *inode) sync() {
	for num, b := range ino.blocks {
		b.sync()
		if !b.allocated && !b.lost {
			delete(ino.blocks, num) // truncated away, durably now
		}
	}
	ino.diskSize, ino.cut, ino.midSizes, ino.sized = ino.size, -1, nil, false
}

// sync makes the block's content durable, if a failed sync has not lost it.
func (b *block) sync() {
	switch {
	case b.dirty:
		b.disk, b.curShared, b.mid, b.dirty = b.cur, true, nil, false
	case b.lost:
		b.disk = b.platter()
	}
	b.freed = false
}

// dropDirty is a sync that failed: no unsynced block reaches the disk, neither now nor with a later sync, unless it is
// written again. Buffered reads go on seeing it until DropCaches or a crash. Measured on ext4 and xfs.
func (f *memFile) dropDirty() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for _, b := range f.ino.blocks {
		if b.dirty {
			b.dirty, b.lost, b.mid = false, true, nil
		}
	}
}

func (f *memFile) directAlign() (Alignment, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if f.m.direct == (Alignment{}) {
		return Alignment{}, f.m.fail("direct alignment", f.name, ErrDirectUnsupported)
	}
	return f.m.direct, nil
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return f.m.fail("close", f.name, fs.ErrClosed)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.ino.handles--
	f.m.release(f.ino)
	return nil
}
