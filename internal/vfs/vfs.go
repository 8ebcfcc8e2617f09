package vfs

import (
	"errors"
	"io"
	"time"
)

// Mode says how Open opens a file.
type Mode uint8

const (
	ReadOnly  Mode = iota // buffered reads
	ReadWrite             // buffered reads and writes; the file must exist
	Direct                // O_DIRECT, reads only; ErrDirectUnsupported where the file system cannot
	// DirectSync reads and writes around the page cache (O_DIRECT, O_DSYNC): WriteAt returns when its bytes, and the size needed to read
	// them, are durable. Offsets, lengths and memory of reads and writes are aligned as DirectAlign says (EINVAL). The file must exist;
	// ErrDirectUnsupported where the file system cannot. Its bytes should not be written, or often be read, through the cache as well.
	DirectSync
)

// Errors of an FS, in addition to io/fs's ErrNotExist, ErrExist and ErrPermission and the kernel's errno values, all
// matched with errors.Is.
var (
	// ErrDirectUnsupported: this file system has no O_DIRECT (tmpfs, some overlays) or the FS is not a kernel one.
	ErrDirectUnsupported = errors.New("vfs: direct I/O not supported by this file system")
	// ErrEscape: a name is absolute, empty, holds a NUL or a ".." element, or leaves the root by a symbolic link.
	ErrEscape = errors.New("vfs: name leaves the root")
	// ErrLocked: another process holds the lock file.
	ErrLocked = errors.New("vfs: locked by another process")
)

// FS is one directory tree: a tier, or a log directory. It is the only door to files.
//
// Names are slash-separated, relative to the root, and never leave it (ErrEscape). Nothing is durable until it is
// made so: file bytes by File.SyncData, a created, renamed or removed name by SyncDir of its directory.
// All methods are safe for concurrent use. Errors name the operation and the full path (*fs.PathError).
type FS interface {
	// Root is the path people know this tree by, for messages and reports only.
	Root() string
	// Create makes a new empty file, mode 0600, and opens it ReadWrite. fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Open opens an existing regular file. Anything else behind the name (link, FIFO, device) is an error.
	Open(name string, mode Mode) (File, error)
	// Rename moves oldName over newName, replacing it. Either both directories' SyncDir or a crash decides.
	Rename(oldName, newName string) error
	// Remove unlinks a file or an empty directory.
	Remove(name string) error
	// List gives the entries of dir ("." is the root), sorted by name. Entries that vanish meanwhile are left out.
	List(dir string) ([]Entry, error)
	// Stat describes one name without following links.
	Stat(name string) (Entry, error)
	// MkdirAll makes dir and its parents, mode 0700, and makes their names durable by syncing each parent, also where
	// the directory was there already: whoever made it may have been killed before syncing.
	MkdirAll(dir string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on name (created when absent) until the Closer is closed or the process ends.
	Lock(name string) (io.Closer, error)
	// Usage tells the size and free space of the file system below the root.
	Usage() (Usage, error)
}

// Entry describes one name in a directory.
type Entry struct {
	Name    string // last element only
	Size    int64  // bytes; 0 for directories
	ModTime time.Time
	Dir     bool
	Regular bool // a plain file: neither directory nor link, FIFO, socket or device
}

// Usage is what a file system has and has left, in bytes, for an unprivileged writer.
type Usage struct {
	TotalBytes, FreeBytes   int64
	TotalInodes, FreeInodes int64 // 0 total: the file system does not count them
}

// File is one open file with positional I/O. It has one owner who closes it; reads and writes of disjoint ranges may
// run concurrently.
type File interface {
	// Name is the name the file was opened by.
	Name() string
	// ReadAt and WriteAt are as in io.ReaderAt and io.WriterAt; EINTR and short transfers are retried inside.
	// A WriteAt of a DirectSync file that fails is as final as a failed SyncData.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate reserves blocks for [off, off+n) without changing the size (fallocate KEEP_SIZE). A file system that
	// cannot answers errors.ErrUnsupported, which callers ignore.
	Allocate(off, n int64) error
	// SyncData makes the bytes written so far, and the size needed to read them, durable (fdatasync).
	// A failure is final: the kernel may have dropped the pages, so it must not be called again in hope.
	SyncData() error
	// SyncRange is SyncData for [off, off+n) alone, and the size needed to read it: what lies elsewhere in the file is not waited for, so that
	// the sync of a file that grows meanwhile has an end. Where the system cannot it is SyncData. A failure is final, as with SyncData.
	SyncRange(off, n int64) error
	Close() error
	// Fd is the kernel descriptor for sendfile, cachestat and friends. ok is false for files the kernel does not have.
	// It stays valid until Close; the caller guarantees that Close comes later.
	Fd() (fd uintptr, ok bool)
}
