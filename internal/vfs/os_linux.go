package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dirFlags  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fileFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOCTTY
	dirMode   = 0o700
	fileMode  = 0o600
)

// osFS is a directory of the operating system. It walks names element by element with openat(2) and O_NOFOLLOW from
// one descriptor of the root: no element below the root may be a symbolic link, wherever it points, which is stricter
// than os.Root and tells the two kinds of refusal (ErrEscape, ErrNotRegular) apart. The descriptor also pins the tree:
// when a disk is unmounted or another is mounted over the path, the FS goes on with the old one or fails; it never
// writes into what appears there.
type osFS struct {
	root string
	dir  *os.File
}

// OS opens the existing directory root as an FS. root itself may be, or be reached by, a symbolic link: the operator
// chose it; nothing below it may be one. The descriptor is freed when the FS and its callers are gone.
// Errors: fs.ErrNotExist, ENOTDIR, fs.ErrPermission. Linux only.
func OS(root string) (FS, error) {
	fd, err := openRetry(unix.AT_FDCWD, root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open root", root, err)
	}
	root = filepath.Clean(root)
	return &osFS{root: root, dir: os.NewFile(uintptr(fd), root)}, nil
}

func (s *osFS) Root() string { return s.root }

func (s *osFS) Create(name string) (File, error) {
	const op = "create"
	clean, err := cleanFileName(name)
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	fd := -1
	err = s.inParent(clean, func(dirfd int, last string) error {
		fd, err = openRetry(dirfd, last, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|fileFlags, fileMode)
		return err
	})
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	return newOSFile(fd, clean, s.full(clean), ReadWrite)
}

func (s *osFS) Open(name string, mode Mode) (File, error) {
	const op = "open"
	clean, err := cleanFileName(name)
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	// O_NONBLOCK: opening a FIFO that nobody writes must not hang; it means nothing for a regular file.
	flags := unix.O_RDONLY | unix.O_NONBLOCK | fileFlags
	switch mode {
	case ReadOnly:
	case ReadWrite:
		flags |= unix.O_RDWR
	case Direct:
		flags |= unix.O_DIRECT
	case DirectSync:
		flags |= unix.O_RDWR | unix.O_DIRECT | unix.O_DSYNC
	default:
		return nil, s.fail(op, name, fs.ErrInvalid)
	}
	fd := -1
	err = s.inParent(clean, func(dirfd int, last string) error {
		fd, err = openRegular(dirfd, last, flags, 0)
		return err
	})
	if mode.direct() && errors.Is(err, unix.EINVAL) {
		err = ErrDirectUnsupported
	}
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	return newOSFile(fd, clean, s.full(clean), mode)
}

func (s *osFS) Rename(oldName, newName string) error {
	oldClean, err := cleanFileName(oldName)
	newClean, newErr := cleanFileName(newName)
	if err = errors.Join(err, newErr); err == nil {
		err = s.inParent(oldClean, func(oldDir int, oldLast string) error {
			return s.inParent(newClean, func(newDir int, newLast string) error {
				return ignoringEINTR(func() error { return unix.Renameat(oldDir, oldLast, newDir, newLast) })
			})
		})
	}
	if err != nil {
		return renameError(s.root, oldName, newName, err)
	}
	return nil
}

func (s *osFS) Remove(name string) error {
	clean, err := cleanFileName(name)
	if err != nil {
		return s.fail("remove", name, err)
	}
	err = s.inParent(clean, func(dirfd int, last string) error {
		err := ignoringEINTR(func() error { return unix.Unlinkat(dirfd, last, 0) })
		if err == unix.EISDIR {
			err = ignoringEINTR(func() error { return unix.Unlinkat(dirfd, last, unix.AT_REMOVEDIR) })
		}
		return err
	})
	return s.fail("remove", name, err)
}

func (s *osFS) List(dir string) ([]Entry, error) {
	clean, err := cleanName(dir)
	if err != nil {
		return nil, s.fail("list", dir, err)
	}
	var entries []Entry
	err = s.inDir(clean, func(dirfd int) error {
		names, err := readNames(dirfd)
		if err != nil {
			return err
		}
		entries = make([]Entry, 0, len(names))
		for _, name := range names {
			switch e, err := entryAt(dirfd, name); {
			case err == unix.ENOENT: // vanished meanwhile
			case err != nil:
				return err
			default:
				entries = append(entries, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, s.fail("list", dir, err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func (s *osFS) Stat(name string) (Entry, error) {
	clean, err := cleanName(name)
	if err != nil {
		return Entry{}, s.fail("stat", name, err)
	}
	var e Entry
	if clean == "." {
		err = s.inDir(clean, func(dirfd int) error {
			var st unix.Stat_t
			err := unix.Fstat(dirfd, &st)
			e = entryOf(".", &st)
			return err
		})
	} else {
		err = s.inParent(clean, func(dirfd int, last string) error {
			e, err = entryAt(dirfd, last)
			return err
		})
	}
	return e, s.fail("stat", name, err)
}

func (s *osFS) MkdirAll(dir string) error {
	clean, err := cleanName(dir)
	if err != nil {
		return s.fail("mkdir", dir, err)
	}
	parent := "."
	for _, elem := range elements(clean) {
		err := s.inDir(parent, func(dirfd int) error { return mkdirSynced(dirfd, elem) })
		if parent == "." {
			parent = elem
		} else {
			parent += "/" + elem
		}
		if err != nil {
			return s.fail("mkdir", parent, err)
		}
	}
	return nil
}

// mkdirSynced makes or finds the directory elem. A found one is synced as well: whoever made it may not have come to
// that, being another goroutine or a process that was killed. Syncing what is clean costs next to nothing.
func mkdirSynced(dirfd int, elem string) error {
	err := ignoringEINTR(func() error { return unix.Mkdirat(dirfd, elem, dirMode) })
	if err == unix.EEXIST {
		var fd int
		if fd, err = openDir(dirfd, elem); err == nil { // what is there must be a directory
			err = unix.Close(fd)
		}
	}
	if err != nil {
		return err
	}
	return syncDirFd(dirfd)
}

func (s *osFS) SyncDir(dir string) error {
	clean, err := cleanName(dir)
	if err == nil {
		err = s.inDir(clean, syncDirFd)
	}
	return s.fail("sync directory", dir, err)
}

func (s *osFS) Lock(name string) (io.Closer, error) {
	const op = "lock"
	clean, err := cleanFileName(name)
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	var locked *os.File
	err = s.inParent(clean, func(dirfd int, last string) error {
		fd, err := lockAt(dirfd, last)
		if err == nil {
			locked = os.NewFile(uintptr(fd), s.full(clean))
		}
		return err
	})
	if err != nil {
		return nil, s.fail(op, name, err)
	}
	return locked, nil
}

func (s *osFS) Usage() (Usage, error) {
	var st unix.Statfs_t
	err := s.inDir(".", func(dirfd int) error {
		return ignoringEINTR(func() error { return unix.Fstatfs(dirfd, &st) })
	})
	if err != nil {
		return Usage{}, s.fail("statfs", ".", err)
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	// The root's reserve (Bfree-Bavail) is not there for us, neither in what is free nor in the whole.
	total := st.Blocks - min(st.Blocks, st.Bfree-min(st.Bfree, st.Bavail))
	return Usage{
		TotalBytes: clampMul(total, unit), FreeBytes: clampMul(st.Bavail, unit),
		TotalInodes: clampMul(st.Files, 1), FreeInodes: clampMul(st.Ffree, 1),
	}, nil
}

// full is the path people know name by.
func (s *osFS) full(name string) string { return filepath.Join(s.root, name) }

func (s *osFS) fail(op, name string, err error) error { return nameError(op, s.root, name, err) }

// inDir calls fn with a descriptor of the clean directory name; it is closed afterwards.
func (s *osFS) inDir(clean string, fn func(dirfd int) error) error {
	defer runtime.KeepAlive(s) // else the last user's FS could be collected, and its descriptor closed, under it
	fd := int(s.dir.Fd())
	owned := false
	for _, elem := range elements(clean) {
		next, err := openDir(fd, elem)
		if owned {
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
		fd, owned = next, true
	}
	if owned {
		defer unix.Close(fd)
	}
	return fn(fd)
}

// inParent calls fn with a descriptor of the directory of a clean file name and its last element.
func (s *osFS) inParent(clean string, fn func(dirfd int, last string) error) error {
	dir, last := splitName(clean)
	return s.inDir(dir, func(dirfd int) error { return fn(dirfd, last) })
}

// openDir opens one directory element; a link is ErrEscape.
func openDir(dirfd int, elem string) (int, error) {
	fd, err := openRetry(dirfd, elem, dirFlags, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		var st unix.Stat_t
		if unix.Fstatat(dirfd, elem, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return -1, ErrEscape
		}
	}
	return fd, err
}

// openRegular opens last in dirfd and makes sure that it is a regular file. The descriptor comes back blocking.
func openRegular(dirfd int, last string, flags int, mode uint32) (int, error) {
	fd, err := openRetry(dirfd, last, flags, mode)
	switch {
	case err == unix.ELOOP: // with O_NOFOLLOW: last is a link
		return -1, ErrEscape
	case err == unix.ENXIO || err == unix.ENODEV: // a socket, or a device without driver
		return -1, ErrNotRegular
	case err != nil:
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFDIR:
			err = unix.EISDIR
		default:
			err = ErrNotRegular
		}
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// lockAt opens or creates last and takes its flock(2), which belongs to the open file description: a second Lock in
// the same process is refused as well. A lock on a file that was unlinked or replaced before we had it guards
// nothing, so the name is checked again afterwards.
func lockAt(dirfd int, last string) (int, error) {
	for {
		fd, err := openRegular(dirfd, last, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|fileFlags, fileMode)
		if err != nil {
			return -1, err
		}
		err = ignoringEINTR(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == unix.EWOULDBLOCK {
			err = ErrLocked
		}
		if err == nil {
			var mine, named unix.Stat_t
			if err = unix.Fstat(fd, &mine); err == nil {
				err = unix.Fstatat(dirfd, last, &named, unix.AT_SYMLINK_NOFOLLOW)
			}
			if err == nil && mine.Ino == named.Ino && mine.Dev == named.Dev {
				return fd, nil
			}
		}
		_ = unix.Close(fd)
		if err != nil && err != unix.ENOENT {
			return -1, err
		}
	}
}

func syncDirFd(dirfd int) error {
	return ignoringEINTR(func() error { return unix.Fsync(dirfd) })
}

// readNames lists the names in dirfd without moving the offset of the caller's descriptor.
func readNames(dirfd int) ([]string, error) {
	fd, err := openRetry(dirfd, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), ".")
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func entryAt(dirfd int, name string) (Entry, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return Entry{}, err
	}
	return entryOf(name, &st), nil
}

func entryOf(name string, st *unix.Stat_t) Entry {
	e := Entry{Name: name, ModTime: time.Unix(st.Mtim.Unix())}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Dir = true
	case unix.S_IFREG:
		e.Regular, e.Size = true, st.Size
	default:
		e.Size = st.Size
	}
	return e
}

func openRetry(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Openat(dirfd, name, flags, mode)
		return err
	})
	return fd, err
}

// ignoringEINTR repeats fn while a signal interrupts it: the Go runtime preempts threads with signals, and network
// and FUSE file systems let them through.
func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// clampMul multiplies without wrapping: some network file systems report absurd sizes.
func clampMul(a, b uint64) int64 {
	if b != 0 && a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return int64(a * b)
}
