package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osFile is one descriptor of a regular file. It goes through os.File, whose reference count on the descriptor keeps
// a Close that races with I/O from handing the number to another file in the middle of a write.
type osFile struct {
	f     *os.File
	raw   syscall.RawConn
	name  string
	mode  Mode
	align Alignment // of a DirectSync file

	// syncMu makes SyncData, and writes of a DirectSync file, one at a time and syncErr sticky: the kernel reports a lost write once per open file
	// description (measured on ext4: the second fsync succeeds and the data are zeros), so of two concurrent calls only
	// one would hear of it.
	syncMu   sync.Mutex
	syncErr  error
	syncCall func(fd uintptr) // sets syncErr; made once, because every acknowledged write needs it
}

// newOSFile takes over fd.
func newOSFile(fd int, name, full string, mode Mode) (File, error) {
	f := os.NewFile(uintptr(fd), full)
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, pathError("open", full, err)
	}
	o := &osFile{f: f, raw: raw, name: name, mode: mode}
	o.syncCall = func(fd uintptr) {
		o.syncErr = ignoringEINTR(func() error { return unix.Fdatasync(int(fd)) })
		if o.syncErr == nil && o.mode.writes() {
			o.syncErr = stillGoesOn(int(fd))
		}
	}
	if mode == DirectSync {
		if o.align, err = o.directAlign(); err != nil { // opening it so may succeed all the same
			_ = f.Close()
			return nil, err
		}
	}
	return o, nil
}

func (o *osFile) Name() string { return o.name }

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	if o.mode.direct() {
		return o.readDirect(p, off)
	}
	return o.f.ReadAt(p, off)
}

// readDirect reads until p is full or the file ends. After a short transfer the size decides: asking on from the end
// of the file would be a misaligned request, for which some file systems have EINVAL instead of an end.
func (o *osFile) readDirect(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m := 0
		err = o.control("read", func(fd int) (err error) {
			m, err = unix.Pread(fd, p[n:], off+int64(n))
			return err
		})
		if err != nil {
			return n, err
		}
		n += m
		if n == len(p) {
			break
		}
		size, err := o.Size()
		if err != nil {
			return n, err
		}
		if m == 0 || off+int64(n) >= size {
			return n, io.EOF
		}
	}
	return n, nil
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	if o.mode == DirectSync {
		return o.writeSync(p, off)
	}
	return o.f.WriteAt(p, off)
}

// writeSync writes p durably, and fails for good where that may not have happened. What is not aligned is refused here: some file systems
// would write it through the cache.
func (o *osFile) writeSync(p []byte, off int64) (n int, err error) {
	if off < 0 || !o.align.fits(p, off) {
		return 0, o.control("write", func(int) error { return unix.EINVAL }) // or fs.ErrClosed
	}
	o.syncMu.Lock()
	defer o.syncMu.Unlock()
	if o.syncErr != nil {
		return 0, o.syncErr
	}
	for n < len(p) && err == nil {
		err = o.control("write", func(fd int) error {
			m, err := unix.Pwrite(fd, p[n:], off+int64(n))
			if err == nil && (m == 0 || m%o.align.Off != 0) {
				err = io.ErrShortWrite // the rest would not be aligned
			}
			n += max(m, 0)
			return err
		})
	}
	if err == nil {
		err = o.control("write", stillGoesOn)
	}
	if !errors.Is(err, fs.ErrClosed) {
		o.syncErr = err
	}
	return n, err
}

func (o *osFile) Size() (int64, error) {
	var st unix.Stat_t
	err := o.control("stat", func(fd int) error { return unix.Fstat(fd, &st) })
	return st.Size, err
}

func (o *osFile) Truncate(size int64) error { return o.f.Truncate(size) }

func (o *osFile) Allocate(off, n int64) error {
	return o.control("allocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (o *osFile) SyncData() error {
	o.syncMu.Lock()
	defer o.syncMu.Unlock()
	if o.syncErr == nil {
		if o.raw.Control(o.syncCall) != nil {
			o.syncErr = fs.ErrClosed // the only reason why Control does not call
		}
		o.syncErr = pathError("sync", o.f.Name(), o.syncErr)
	}
	return o.syncErr
}

// SyncRange maps the range and has msync(2) sync the mapping: the only call that gives the kernel's vfs_fsync_range, which is what
// fdatasync is, a range. No page is touched.
func (o *osFile) SyncRange(off, n int64) error {
	from := off &^ (pageBytes - 1)
	if off < 0 || n < 0 || off > math.MaxInt64-n || off+n-from > math.MaxInt {
		return pathError("sync", o.f.Name(), unix.EINVAL)
	}
	if n == 0 {
		return o.control("sync", func(int) error { return nil })
	}
	o.syncMu.Lock()
	if o.syncErr != nil {
		defer o.syncMu.Unlock()
		return o.syncErr
	}
	mapped := false
	err := o.control("sync", func(fd int) error {
		p, err := unix.MmapPtr(fd, from, nil, uintptr(off+n-from), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		mapped = true
		err = ignoringEINTR(func() error { return unix.Msync(unsafe.Slice((*byte)(p), off+n-from), unix.MS_SYNC) })
		if err == nil && o.mode.writes() {
			err = stillGoesOn(fd)
		}
		return errors.Join(err, unix.MunmapPtr(p, uintptr(off+n-from)))
	})
	if !mapped { // no mapping of such a file, or no memory for one
		o.syncMu.Unlock()
		return o.SyncData()
	}
	o.syncErr = err
	o.syncMu.Unlock()
	return err
}

const pageBytes = 4096

func (o *osFile) Close() error { return o.f.Close() }

func (o *osFile) Fd() (uintptr, bool) {
	fd := o.f.Fd()
	return fd, fd != ^uintptr(0)
}

// control calls fn with the descriptor, which cannot be closed meanwhile, again and again while signals interrupt it.
func (o *osFile) control(op string, fn func(fd int) error) error {
	var err error
	if o.raw.Control(func(fd uintptr) {
		err = ignoringEINTR(func() error { return fn(int(fd)) })
	}) != nil {
		err = fs.ErrClosed // the only reason why Control does not call
	}
	return pathError(op, o.f.Name(), err)
}

// stillGoesOn asks whether the file system of an open file has been shut down. After a successful fdatasync that matters: one that is shut
// down between the data and what makes them part of the file says success, too, and the bytes are gone (tests/crash TestSyncIsNotBelieved).
// A write of nothing reaches ext4's check, of an aborted journal as well, a read of nothing that of xfs; neither touches disk or journal.
func stillGoesOn(fd int) error {
	return ignoringEINTR(func() error {
		if _, err := unix.Pwrite(fd, nil, 0); err != nil {
			return err
		}
		_, err := unix.Pread(fd, nil, 0)
		return err
	})
}
