package vfs

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	memRoot     = "mem:"
	memMaxName  = 255     // as ext4 and xfs
	memMaxFile  = 1 << 44 // 16 TiB, ext4 with 4 KiB blocks: an absurd offset is EFBIG, not an absurd map
	memCapacity = 1 << 40 // what Usage claims without SetCapacity
	maxMidPages = 2       // guess: enough to meet a half-old block without keeping every version
	maxMidSizes = 4
	midOneIn    = 4 // guess: one in this many writes to a dirty block keeps the content before it as a candidate
)

// Mem is a file system in memory that knows what a power cut would leave of it. See the package documentation for
// the model. The zero value is not usable; see NewMem.
type Mem struct {
	mu       sync.RWMutex
	rng      *rand.Rand // which in-between states are remembered
	root     *inode
	journal  []*dirOp
	locks    map[*inode]bool
	capacity int64 // bytes; 0 = unlimited
	used     int64 // bytes in allocated blocks
	direct   Alignment
	dead     bool
}

// inode is a file or a directory. Guarded by Mem.mu.
type inode struct {
	modTime time.Time
	links   int // names of a file in current directories
	handles int // open files

	entries *entries // of a directory; nil for a file

	blocks   map[int64]*block // by number; absent = hole
	size     int64
	diskSize int64   // the synced one
	cut      int64   // what the last shrinking Truncate since the last sync left; -1 = none
	midSizes []int64 // some sizes since the cut or the sync
	sized    bool    // size was changed since the last sync
}

// entries are the names of a directory: as seen now and as on stable storage.
type entries struct {
	cur, disk map[string]*inode
}

// dirOp is one change of names that is not wholly durable. It happens or does not happen as one.
type dirOp struct{ effects []effect }

// effect is what a dirOp does to one name. It applies only where the name still stands for old, so that a crash
// leaves no change without the ones it was built on, as any journal replays in order.
type effect struct {
	dir      *inode
	name     string
	old, new *inode // nil: no such name
}

// NewMem returns an empty memory file system. seed decides which in-between states of unsynced blocks are remembered
// for Crash; runs with one goroutine and the same seed are the same.
func NewMem(seed uint64) *Mem {
	return &Mem{rng: newRand(seed), root: newDirInode(), locks: map[*inode]bool{}}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x1a900)) }

func newDirInode() *inode {
	return &inode{modTime: time.Now(), entries: &entries{cur: map[string]*inode{}, disk: map[string]*inode{}}}
}

func newFileInode() *inode {
	return &inode{modTime: time.Now(), blocks: map[int64]*block{}, cut: -1}
}

// SetCapacity makes the disk hold that many bytes, counted in blocks of 4 KiB; 0 = no limit. Lowering it below what is
// used refuses further blocks and takes nothing away.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// SetDirect lets files be opened Direct and DirectSync, with that alignment enforced (EINVAL); the zero value, which is the default,
// makes it ErrDirectUnsupported.
func (m *Mem) SetDirect(align Alignment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.direct = align
}

// Root implements FS.
func (m *Mem) Root() string { return memRoot }

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	var f File
	err := m.change("create", name, func(dir *inode, last string) error {
		if dir.entries.cur[last] != nil {
			return syscall.EEXIST
		}
		ino := m.newFile(dir, last)
		ino.handles++
		f = &memFile{m: m, ino: ino, name: path.Clean(name), mode: ReadWrite}
		return nil
	})
	return f, err
}

// newFile makes an empty file under a free name.
func (m *Mem) newFile(dir *inode, last string) *inode {
	ino := newFileInode()
	m.link(effect{dir: dir, name: last, new: ino})
	return ino
}

// link performs effects as one change of names.
func (m *Mem) link(effects ...effect) {
	for _, e := range effects {
		e.dir.modTime = time.Now()
		if e.new != nil {
			e.new.links++
			e.dir.entries.cur[e.name] = e.new
		} else {
			delete(e.dir.entries.cur, e.name)
		}
		if e.old != nil {
			e.old.links--
			m.release(e.old)
		}
	}
	m.journal = append(m.journal, &dirOp{effects: effects})
}

// release frees the blocks of a file that has neither name nor handle.
func (m *Mem) release(ino *inode) {
	if ino.entries == nil && ino.links == 0 && ino.handles == 0 {
		for _, b := range ino.blocks {
			m.free(b)
		}
	}
}

// Open implements FS.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	var f File
	err := m.change("open", name, func(dir *inode, last string) error {
		ino := dir.entries.cur[last]
		switch {
		case ino == nil:
			return syscall.ENOENT
		case ino.entries != nil:
			return syscall.EISDIR
		case mode > DirectSync:
			return fs.ErrInvalid
		case mode.direct() && m.direct == (Alignment{}):
			return ErrDirectUnsupported
		}
		ino.handles++
		f = &memFile{m: m, ino: ino, name: path.Clean(name), mode: mode, align: m.direct}
		return nil
	})
	return f, err
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rename(oldName, newName); err != nil {
		return renameError(memRoot, oldName, newName, err)
	}
	return nil
}

func (m *Mem) rename(oldName, newName string) error {
	oldDir, oldLast, err := m.parent(oldName)
	if err != nil {
		return err
	}
	newDir, newLast, err := m.parent(newName)
	if err != nil {
		return err
	}
	ino, target := oldDir.entries.cur[oldLast], newDir.entries.cur[newLast]
	switch {
	case ino == nil:
		return syscall.ENOENT
	case ino == target:
		return nil
	case ino.contains(newDir):
		return syscall.EINVAL
	case target == nil:
	case ino.entries == nil && target.entries != nil:
		return syscall.EISDIR
	case ino.entries != nil && target.entries == nil:
		return syscall.ENOTDIR
	case target.entries != nil && len(target.entries.cur) > 0:
		return syscall.ENOTEMPTY
	}
	m.link(effect{newDir, newLast, target, ino}, effect{oldDir, oldLast, ino, nil})
	return nil
}

// contains reports whether dir is ino or lies below it.
func (ino *inode) contains(dir *inode) bool {
	if ino == dir {
		return true
	}
	if ino.entries == nil {
		return false
	}
	for _, child := range ino.entries.cur {
		if child.contains(dir) {
			return true
		}
	}
	return false
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	return m.change("remove", name, func(dir *inode, last string) error {
		ino := dir.entries.cur[last]
		if ino == nil {
			return syscall.ENOENT
		}
		if ino.entries != nil && len(ino.entries.cur) > 0 {
			return syscall.ENOTEMPTY
		}
		m.link(effect{dir: dir, name: last, old: ino})
		return nil
	})
}

// List implements FS.
func (m *Mem) List(dir string) ([]Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ino, err := m.dir(dir)
	if err != nil {
		return nil, m.fail("list", dir, err)
	}
	list := make([]Entry, 0, len(ino.entries.cur))
	for _, name := range slices.Sorted(maps.Keys(ino.entries.cur)) {
		list = append(list, ino.entries.cur[name].entry(name))
	}
	return list, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	clean, err := cleanName(name)
	if err != nil {
		return Entry{}, m.fail("stat", name, err)
	}
	ino, err := m.lookup(clean)
	if err != nil {
		return Entry{}, m.fail("stat", name, err)
	}
	_, last := splitName(clean)
	return ino.entry(last), nil
}

func (ino *inode) entry(name string) Entry {
	return Entry{
		Name: name, Size: ino.size, ModTime: ino.modTime,
		Dir: ino.entries != nil, Regular: ino.entries == nil,
	}
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clean, err := cleanName(dir)
	if err == nil && m.dead {
		err = ErrDead
	}
	if err != nil {
		return m.fail("mkdir", dir, err)
	}
	at := m.root
	for _, elem := range elements(clean) {
		if len(elem) > memMaxName {
			return m.fail("mkdir", dir, syscall.ENAMETOOLONG)
		}
		next := at.entries.cur[elem]
		if next == nil {
			next = newDirInode()
			m.link(effect{dir: at, name: elem, new: next})
		}
		if next.entries == nil {
			return m.fail("mkdir", dir, syscall.ENOTDIR)
		}
		m.syncDir(at)
		at = next
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.dir(dir)
	if err != nil {
		return m.fail("sync directory", dir, err)
	}
	m.syncDir(ino)
	return nil
}

// syncDir makes the names in dir durable. The other half of a rename between directories stays open.
func (m *Mem) syncDir(dir *inode) {
	dir.entries.disk = maps.Clone(dir.entries.cur)
	m.journal = slices.DeleteFunc(m.journal, func(op *dirOp) bool {
		op.effects = slices.DeleteFunc(op.effects, func(e effect) bool { return e.dir == dir })
		return len(op.effects) == 0
	})
}

// Lock implements FS. The lock is gone in what Crash and Kill return.
func (m *Mem) Lock(name string) (io.Closer, error) {
	var lock *memLock
	err := m.change("lock", name, func(dir *inode, last string) error {
		ino := dir.entries.cur[last]
		if ino == nil {
			ino = m.newFile(dir, last)
		}
		if ino.entries != nil {
			return syscall.EISDIR
		}
		if m.locks[ino] {
			return ErrLocked
		}
		m.locks[ino] = true
		lock = &memLock{m: m, ino: ino}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lock, nil
}

type memLock struct {
	m      *Mem
	ino    *inode
	closed bool
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.closed {
		return pathError("unlock", memRoot, fs.ErrClosed)
	}
	l.closed = true
	delete(l.m.locks, l.ino)
	return nil
}

// Usage implements FS.
func (m *Mem) Usage() (Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return Usage{}, m.fail("usage", ".", ErrDead)
	}
	total := m.capacity
	if total == 0 {
		total = memCapacity
	}
	return Usage{TotalBytes: total, FreeBytes: max(0, total-m.used)}, nil
}

// change runs fn with the directory and last element of name, under the lock, and wraps its error.
func (m *Mem) change(op, name string, fn func(dir *inode, last string) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, last, err := m.parent(name)
	if err == nil {
		err = fn(dir, last)
	}
	return m.fail(op, name, err)
}

// parent finds the directory of name and checks the last element.
func (m *Mem) parent(name string) (dir *inode, last string, err error) {
	clean, err := cleanFileName(name)
	if err != nil {
		return nil, "", err
	}
	dirName, last := splitName(clean)
	if dir, err = m.lookup(dirName); err != nil {
		return nil, "", err
	}
	if dir.entries == nil {
		return nil, "", syscall.ENOTDIR
	}
	if len(last) > memMaxName {
		return nil, "", syscall.ENAMETOOLONG
	}
	return dir, last, nil
}

// dir finds a directory by name as the caller gave it.
func (m *Mem) dir(name string) (*inode, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	ino, err := m.lookup(clean)
	if err == nil && ino.entries == nil {
		err = syscall.ENOTDIR
	}
	return ino, err
}

// lookup finds a clean name.
func (m *Mem) lookup(clean string) (*inode, error) {
	if m.dead {
		return nil, ErrDead
	}
	at := m.root
	for _, elem := range elements(clean) {
		if at.entries == nil {
			return nil, syscall.ENOTDIR
		}
		if at = at.entries.cur[elem]; at == nil {
			return nil, syscall.ENOENT
		}
	}
	return at, nil
}

func (m *Mem) fail(op, name string, err error) error { return nameError(op, memRoot, name, err) }
