package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// KeepRandom makes Crash draw the percentage it keeps from the seed.
const KeepRandom = -1

// CrashOptions say what becomes of that which was not synced. The zero value keeps none of it.
type CrashOptions struct {
	Seed        uint64
	KeepPercent int  // chance of each unsynced block, size and change of names, 0-100, or KeepRandom
	Tear        bool // a block may be kept in part, by sectors of 512 bytes
	Live        bool // this Mem goes on: for one run that is looked at from many crash points
}

// Crash returns a new file system as after a power cut: what was synced, and of the rest what opt keeps. Everything in
// it counts as synced. Unless opt.Live, this Mem and its handles are dead (ErrDead); it can still be crashed
// again, from the same moment, with other options.
func (m *Mem) Crash(opt CrashOptions) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = m.dead || !opt.Live
	c := &crash{opt: opt, rng: newRand(opt.Seed), survived: map[*inode]*inode{}}
	if opt.KeepPercent == KeepRandom {
		c.opt.KeepPercent = c.rng.IntN(101)
	}
	c.replay(m.journal)
	return m.successor(c.rng.Uint64(), c.survivor(m.root))
}

// Kill returns a new file system as after kill -9: everything written is there, synced or not, as the page cache
// outlives the process; a later Crash may still lose it. This Mem, its handles and its locks are dead (ErrDead).
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	k := &copier{copies: map[*inode]*inode{}}
	next := m.successor(m.rng.Uint64(), k.copyOf(m.root))
	for _, op := range m.journal {
		next.journal = append(next.journal, k.copyOp(op))
	}
	return next
}

// DropCaches makes the cache forget what a failed SyncData lost: buffered reads now see the old bytes, or zeros.
func (m *Mem) DropCaches() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachFile(func(_ string, ino *inode) {
		for _, b := range ino.blocks {
			if b.lost {
				b.cur, b.curShared, b.lost = b.platter(), true, false
			}
		}
	})
}

// Unsynced names, in order, the files whose bytes or size a crash may change and the names it may undo.
// A test that calls it after a clean stop learns what was forgotten.
func (m *Mem) Unsynced() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []string
	m.eachFile(func(name string, ino *inode) {
		dirty := ino.sized
		for _, b := range ino.blocks {
			dirty = dirty || b.dirty || b.lost
		}
		if dirty {
			list = append(list, "data "+name)
		}
	})
	for _, op := range m.journal {
		for _, e := range op.effects {
			list = append(list, "name "+e.name)
		}
	}
	slices.Sort(list)
	return list
}

// eachFile visits the files that have a name.
func (m *Mem) eachFile(fn func(name string, ino *inode)) {
	var walk func(prefix string, dir *inode)
	walk = func(prefix string, dir *inode) {
		for name, ino := range dir.entries.cur {
			if ino.entries != nil {
				walk(prefix+name+"/", ino)
			} else {
				fn(prefix+name, ino)
			}
		}
	}
	walk("", m.root)
}

// successor is a Mem with the same settings around root.
func (m *Mem) successor(seed uint64, root *inode) *Mem {
	next := &Mem{rng: newRand(seed), root: root, locks: map[*inode]bool{}, capacity: m.capacity, direct: m.direct}
	next.eachFile(func(_ string, ino *inode) { // a file with two names, of half a rename, counts once
		if ino.links++; ino.links == 1 {
			for _, b := range ino.blocks {
				if b.allocated {
					next.used += memBlock
				}
			}
		}
	})
	return next
}

// crash decides what one power cut leaves.
type crash struct {
	opt      CrashOptions
	rng      *rand.Rand
	names    map[*inode]map[string]*inode // of directories that a kept change of names touched
	survived map[*inode]*inode
}

func (c *crash) keep() bool { return c.rng.IntN(100) < c.opt.KeepPercent }

// old picks one of n states older than the current one, the synced one being 0.
func (c *crash) old(n int) int {
	if c.opt.KeepPercent == 0 {
		return 0
	}
	return c.rng.IntN(n)
}

// replay applies the kept changes of names, in order, to what was synced.
func (c *crash) replay(journal []*dirOp) {
	c.names = map[*inode]map[string]*inode{}
	for _, op := range journal {
		if c.keep() && c.applies(op) {
			for _, e := range op.effects {
				c.set(e)
			}
		}
	}
}

// applies reports whether the changes that op was built on were kept too.
func (c *crash) applies(op *dirOp) bool {
	for _, e := range op.effects {
		if c.entries(e.dir)[e.name] != e.old {
			return false
		}
	}
	return true
}

// entries gives the names of dir as the crash leaves them so far.
func (c *crash) entries(dir *inode) map[string]*inode {
	if names, ok := c.names[dir]; ok {
		return names
	}
	return dir.entries.disk
}

func (c *crash) set(e effect) {
	if _, ok := c.names[e.dir]; !ok {
		c.names[e.dir] = maps.Clone(e.dir.entries.disk)
	}
	if e.new == nil {
		delete(c.names[e.dir], e.name)
	} else {
		c.names[e.dir][e.name] = e.new
	}
}

// survivor builds what becomes of ino; names are visited in order, to spend the random numbers in order.
func (c *crash) survivor(ino *inode) *inode {
	if next, ok := c.survived[ino]; ok {
		return next
	}
	if ino.entries == nil {
		next := c.survivingFile(ino)
		c.survived[ino] = next
		return next
	}
	next := newDirInode()
	next.modTime = ino.modTime
	c.survived[ino] = next
	names := c.entries(ino)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		next.entries.cur[name] = c.survivor(names[name])
	}
	next.entries.disk = maps.Clone(next.entries.cur)
	return next
}

func (c *crash) survivingFile(ino *inode) *inode {
	cutKept := ino.cut >= 0 && c.keep()
	next := newFileInode()
	next.modTime = ino.modTime
	next.size = c.survivingSize(ino, cutKept)
	next.diskSize = next.size
	for _, num := range slices.Sorted(maps.Keys(ino.blocks)) {
		pg := c.survivingPage(ino.blocks[num], cutKept)
		left := next.size - num*memBlock
		if pg == nil || left <= 0 {
			continue
		}
		if left < memBlock { // what lies beyond the size reads as zeros when the file grows again
			cut := *pg
			clear(cut[left:])
			pg = &cut
		}
		next.blocks[num] = &block{cur: pg, disk: pg, curShared: true, allocated: true}
		ino.blocks[num].curShared = true
	}
	return next
}

// survivingSize is the size now, the synced one, one in between, or, of a file that grew, some whole number of blocks
// in between: write-back moves the size forward piece by piece. A cut that is undone takes the later growth with it.
func (c *crash) survivingSize(ino *inode, cutKept bool) int64 {
	base := ino.diskSize
	switch {
	case !ino.sized:
		return ino.size
	case cutKept:
		base = ino.cut
	case ino.cut >= 0:
		return ino.diskSize
	}
	if c.keep() {
		return ino.size
	}
	switch i := c.old(2 + len(ino.midSizes)); i {
	case 0:
		return base
	case 1:
		grown := ino.size/memBlock - base/memBlock
		if grown <= 0 {
			return base
		}
		return (base/memBlock + 1 + c.rng.Int64N(grown)) * memBlock
	default:
		return ino.midSizes[i-2]
	}
}

// survivingPage is the block's content now, on disk, in between, or a mixture of sectors.
func (c *crash) survivingPage(b *block, cutKept bool) *page {
	old := b.disk
	if b.freed && cutKept {
		old = nil
	}
	if !b.dirty || b.freed && !cutKept {
		return old
	}
	if i := c.old(1 + len(b.mid)); i > 0 {
		old = b.mid[i-1]
	}
	if c.opt.Tear && c.opt.KeepPercent > 0 && c.rng.IntN(2) == 0 {
		return c.torn(old, b.cur)
	}
	if c.keep() {
		return b.cur
	}
	return old
}

// sectorSize is what a disk writes as one.
const sectorSize = 512

// torn takes each sector from one of the two.
func (c *crash) torn(a, b *page) *page {
	var mixed page
	for at := 0; at < memBlock; at += sectorSize {
		src := a
		if c.keep() {
			src = b
		}
		if src != nil {
			copy(mixed[at:at+sectorSize], src[at:])
		}
	}
	return &mixed
}

// copier copies inodes for Kill, sharing pages.
type copier struct{ copies map[*inode]*inode }

func (k *copier) copyOf(ino *inode) *inode {
	if ino == nil {
		return nil
	}
	if next, ok := k.copies[ino]; ok {
		return next
	}
	next := &inode{
		modTime: ino.modTime, size: ino.size, diskSize: ino.diskSize,
		cut: ino.cut, midSizes: slices.Clone(ino.midSizes), sized: ino.sized,
	}
	k.copies[ino] = next
	if ino.entries != nil {
		next.entries = &entries{cur: k.copyNames(ino.entries.cur), disk: k.copyNames(ino.entries.disk)}
		return next
	}
	next.blocks = make(map[int64]*block, len(ino.blocks))
	for num, b := range ino.blocks {
		b.curShared = true
		dup := *b
		dup.mid = slices.Clone(b.mid)
		next.blocks[num] = &dup
	}
	return next
}

func (k *copier) copyNames(names map[string]*inode) map[string]*inode {
	next := make(map[string]*inode, len(names))
	for name, ino := range names {
		next[name] = k.copyOf(ino)
	}
	return next
}

func (k *copier) copyOp(op *dirOp) *dirOp {
	next := &dirOp{}
	for _, e := range op.effects {
		next.effects = append(next.effects, effect{k.copyOf(e.dir), e.name, k.copyOf(e.old), k.copyOf(e.new)})
	}
	return next
}
