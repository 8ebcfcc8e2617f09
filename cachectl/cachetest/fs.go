package cachetest

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// tree is one file system whose files go through the simulated cache. It embeds the base for everything that does not
// touch file bytes.
type tree struct {
	vfs.FS
	sim    *Sim
	id     uint64
	inodes map[string]*inode // by name; guarded by sim.mu
}

// FS gives base a place in the page cache, as a file system of its own. Files that base holds already are cold.
// Direct descriptors work whatever base says, unless NoDirect is set.
func (s *Sim) FS(base vfs.FS) vfs.FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &tree{FS: base, sim: s, id: uint64(len(s.trees) + 1), inodes: make(map[string]*inode)}
	s.trees = append(s.trees, t)
	return t
}

func (t *tree) newInode() *inode {
	return &inode{fs: t.id, pages: make(map[int64]*folio), shadows: make(map[int64]int64)}
}

func (t *tree) Create(name string) (vfs.File, error) {
	f, err := t.FS.Create(name)
	if err != nil {
		return nil, err
	}
	t.sim.mu.Lock()
	defer t.sim.mu.Unlock()
	ino := t.newInode()
	t.inodes[name] = ino
	return &file{File: f, sim: t.sim, ino: ino}, nil
}

func (t *tree) Open(name string, mode vfs.Mode) (vfs.File, error) {
	baseMode := mode
	if mode == vfs.Direct || mode == vfs.DirectSync {
		baseMode = vfs.ReadOnly
	}
	f, err := t.FS.Open(name, baseMode)
	if err != nil {
		return nil, err
	}
	if mode == vfs.DirectSync { // writes around the cache are not simulated
		return nil, errors.Join(&fs.PathError{Op: "open", Path: t.Root() + "/" + name, Err: vfs.ErrDirectUnsupported}, f.Close())
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.sim.mu.Lock()
	defer t.sim.mu.Unlock()
	if mode == vfs.Direct && t.sim.opt.NoDirect {
		return nil, errors.Join(vfs.ErrDirectUnsupported, f.Close())
	}
	ino, ok := t.inodes[name]
	if !ok {
		ino = t.newInode()
		ino.size = size
		t.inodes[name] = ino
	}
	return &file{File: f, sim: t.sim, ino: ino, isDirect: mode == vfs.Direct}, nil
}

func (t *tree) Rename(oldName, newName string) error {
	if err := t.FS.Rename(oldName, newName); err != nil {
		return err
	}
	t.sim.mu.Lock()
	defer t.sim.mu.Unlock()
	moved := make(map[string]*inode)
	for name, ino := range t.inodes {
		if rest, ok := strings.CutPrefix(name, oldName); ok && (rest == "" || rest[0] == '/') {
			moved[newName+rest] = ino
			delete(t.inodes, name)
		}
	}
	for name, ino := range moved {
		t.forget(name)
		t.inodes[name] = ino
	}
	return nil
}

func (t *tree) Remove(name string) error {
	if err := t.FS.Remove(name); err != nil {
		return err
	}
	t.sim.mu.Lock()
	defer t.sim.mu.Unlock()
	t.forget(name)
	return nil
}

// forget drops a name. Its pages go at once; the kernel waits for the last descriptor, which no test depends on.
func (t *tree) forget(name string) {
	if ino, ok := t.inodes[name]; ok {
		size := ino.size
		t.sim.cache.truncate(ino, 0)
		ino.size = size
		delete(t.inodes, name)
	}
}

// file is one open file description.
type file struct {
	vfs.File
	sim      *Sim
	ino      *inode
	isDirect bool
	random   bool // advice; guarded by sim.mu
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off >= 0 {
		if f.isDirect {
			if err := f.sim.direct(f, p, off); err != nil {
				return 0, err
			}
		} else {
			f.sim.buffered(f, int64(len(p)), off)
		}
	}
	return f.File.ReadAt(p, off)
}

// readBase is a read that ends quietly at the end of the file.
func readBase(f *file, p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if n > 0 {
		f.sim.wrote(f, int64(n), off)
	}
	return n, err
}

func (f *file) Truncate(size int64) error {
	if err := f.File.Truncate(size); err != nil {
		return err
	}
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	f.sim.cache.truncate(f.ino, size)
	return nil
}

func (f *file) SyncData() error {
	if err := f.File.SyncData(); err != nil {
		return err
	}
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	for _, folio := range f.ino.pages {
		folio.dirty, folio.writeback = false, false
	}
	return nil
}

func (f *file) SyncRange(off, n int64) error {
	if err := f.File.SyncRange(off, n); err != nil {
		return err
	}
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	for num, folio := range f.ino.pages {
		if num*cachectl.PageSize < off+n && (num+1)*cachectl.PageSize > off {
			folio.dirty, folio.writeback = false, false
		}
	}
	return nil
}

// Fd is false: the descriptor of the base, if it has one, leads past the simulation.
func (f *file) Fd() (uintptr, bool) { return 0, false }
