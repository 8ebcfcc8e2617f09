package vfs

import (
	"errors"
	"io"
	"sync/atomic"
)

// hookFS calls before ahead of every operation and after when it is done. WithFaults and WithTrace are its two uses.
// before may refuse the call; after sees the result in Op.Err. Either may be nil.
type hookFS struct {
	fs     FS
	n      atomic.Int64
	before func(Op) error
	after  func(Op)
}

// do runs one operation. A refused call never reaches fn.
func (h *hookFS) do(op Op, fn func() error) error {
	op.N = h.n.Add(1)
	var err error
	if h.before != nil {
		err = h.before(op)
	}
	if err == nil {
		err = fn()
	} else if op.Kind == OpRename {
		err = renameError(h.fs.Root(), op.Name, op.To, err)
	} else {
		err = nameError(op.Kind.String(), h.fs.Root(), op.Name, err)
	}
	if h.after != nil {
		op.Err = err
		h.after(op)
	}
	return err
}

func (h *hookFS) Root() string { return h.fs.Root() }

func (h *hookFS) Create(name string) (File, error) {
	return h.file(Op{Kind: OpCreate, Name: name}, func() (File, error) { return h.fs.Create(name) })
}

func (h *hookFS) Open(name string, mode Mode) (File, error) {
	return h.file(Op{Kind: OpOpen, Name: name, Mode: mode}, func() (File, error) { return h.fs.Open(name, mode) })
}

func (h *hookFS) file(op Op, open func() (File, error)) (File, error) {
	var f File
	err := h.do(op, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &hookFile{h: h, f: f}, nil
}

func (h *hookFS) Rename(oldName, newName string) error {
	return h.do(Op{Kind: OpRename, Name: oldName, To: newName}, func() error { return h.fs.Rename(oldName, newName) })
}

func (h *hookFS) Remove(name string) error {
	return h.do(Op{Kind: OpRemove, Name: name}, func() error { return h.fs.Remove(name) })
}

func (h *hookFS) List(dir string) (entries []Entry, err error) {
	err = h.do(Op{Kind: OpList, Name: dir}, func() (err error) {
		entries, err = h.fs.List(dir)
		return err
	})
	return entries, err
}

func (h *hookFS) Stat(name string) (entry Entry, err error) {
	err = h.do(Op{Kind: OpStat, Name: name}, func() (err error) {
		entry, err = h.fs.Stat(name)
		return err
	})
	return entry, err
}

func (h *hookFS) MkdirAll(dir string) error {
	return h.do(Op{Kind: OpMkdir, Name: dir}, func() error { return h.fs.MkdirAll(dir) })
}

func (h *hookFS) SyncDir(dir string) error {
	return h.do(Op{Kind: OpSyncDir, Name: dir}, func() error { return h.fs.SyncDir(dir) })
}

func (h *hookFS) Usage() (usage Usage, err error) {
	err = h.do(Op{Kind: OpUsage}, func() (err error) {
		usage, err = h.fs.Usage()
		return err
	})
	return usage, err
}

func (h *hookFS) Lock(name string) (io.Closer, error) {
	var c io.Closer
	err := h.do(Op{Kind: OpLock, Name: name}, func() (err error) {
		c, err = h.fs.Lock(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &hookCloser{h: h, c: c, op: Op{Kind: OpUnlock, Name: name}}, nil
}

// hookCloser closes c even when the call is refused: an injected error must not leak a descriptor.
type hookCloser struct {
	h  *hookFS
	c  io.Closer
	op Op
}

func (c *hookCloser) Close() error {
	closed := false
	err := c.h.do(c.op, func() error {
		closed = true
		return c.c.Close()
	})
	if !closed {
		err = errors.Join(err, c.c.Close())
	}
	return err
}

// hookFile is a file opened through a hookFS. Fd passes through: what is read by descriptor is not seen by the hook.
type hookFile struct {
	h *hookFS
	f File
}

func (f *hookFile) Name() string        { return f.f.Name() }
func (f *hookFile) Fd() (uintptr, bool) { return f.f.Fd() }

func (f *hookFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.h.do(Op{Kind: OpRead, Name: f.f.Name(), Off: off, Len: int64(len(p))}, func() (err error) {
		n, err = f.f.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *hookFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.h.do(Op{Kind: OpWrite, Name: f.f.Name(), Off: off, Len: int64(len(p))}, func() (err error) {
		n, err = f.f.WriteAt(p, off)
		return err
	})
	var short *ShortWrite
	if errors.As(err, &short) && len(p) > 0 {
		n, _ = f.f.WriteAt(p[:min(max(short.Bytes, 0), len(p)-1)], off)
	}
	return n, err
}

func (f *hookFile) Size() (size int64, err error) {
	err = f.h.do(Op{Kind: OpSize, Name: f.f.Name()}, func() (err error) {
		size, err = f.f.Size()
		return err
	})
	return size, err
}

func (f *hookFile) Truncate(size int64) error {
	return f.h.do(Op{Kind: OpTruncate, Name: f.f.Name(), Off: size}, func() error { return f.f.Truncate(size) })
}

func (f *hookFile) Allocate(off, n int64) error {
	return f.h.do(Op{Kind: OpAllocate, Name: f.f.Name(), Off: off, Len: n}, func() error { return f.f.Allocate(off, n) })
}

func (f *hookFile) SyncData() error { return f.sync(Op{Kind: OpSync, Name: f.f.Name()}, f.f.SyncData) }

func (f *hookFile) SyncRange(off, n int64) error {
	return f.sync(Op{Kind: OpSync, Name: f.f.Name(), Off: off, Len: n}, func() error { return f.f.SyncRange(off, n) })
}

func (f *hookFile) sync(op Op, call func() error) error {
	reached := false
	err := f.h.do(op, func() error {
		reached = true
		return call()
	})
	if err != nil && !reached && !errors.Is(err, ErrPowerCut) {
		f.dropDirty()
	}
	return err
}

// dropDirty passes a sync that was made to fail down to the memory file system, which then loses the dirty pages as
// ext4 and xfs do. A power cut is no failed sync: what it leaves is Crash's to decide.
func (f *hookFile) dropDirty() {
	if d, ok := f.f.(dirtyDropper); ok {
		d.dropDirty()
	}
}

func (f *hookFile) directAlign() (Alignment, error) { return DirectAlign(f.f) }

func (f *hookFile) Close() error {
	return (&hookCloser{h: f.h, c: f.f, op: Op{Kind: OpClose, Name: f.f.Name()}}).Close()
}

// dirtyDropper is a file that can lose its unsynced bytes (Mem).
type dirtyDropper interface{ dropDirty() }
