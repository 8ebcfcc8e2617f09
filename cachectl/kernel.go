package cachectl

import "lagoon/internal/vfs"

// PageSize is the unit of every page count in this package, in bytes. A kernel with larger pages is converted to it.
const PageSize = 4096

// WindowBytes is the size and alignment of a window that can be dropped without leftovers. A large folio is at most this
// big on x86-64 and arm64 with 4 KiB pages, and FADV_DONTNEED skips a folio that is only partly inside its range
// (measured: 64 KiB to 1 MiB windows left 91 to 99 % of the pages, 2 MiB aligned windows left none).
const WindowBytes = 2 << 20

// Advice is one value of posix_fadvise(2). It is an enum: values are never combined.
type Advice uint8

// Advice values in use.
const (
	AdviseNormal   Advice = iota // the default read-ahead; per open file description
	AdviseRandom                 // no read-ahead; per open file description
	AdviseWillNeed               // start reading the range into the cache
	AdviseDontNeed               // drop the clean, unmapped pages of whole folios inside the range, whoever uses them
)

// PageCounts is what cachestat(2) counts over a range, in pages of PageSize.
type PageCounts struct {
	Resident        int64 // in the cache, clean or not
	Dirty           int64
	Writeback       int64 // being written right now
	Evicted         int64 // were in the cache once and left a shadow entry
	RecentlyEvicted int64 // of those, evicted so recently that they would still be there with a little more memory
}

// Align is what a file demands of O_DIRECT reads, in bytes. Zero means that the file system does not say.
type Align struct {
	Memory int64
	Offset int64 // also of lengths
}

// Kernel is the one seam between this package and the page cache. LinuxKernel is the real one; cachetest has a simulated
// one. Implementations are safe for concurrent use and never keep f or p.
//
// Plain reads, buffered or direct, are not here: they are vfs.File.ReadAt on a descriptor opened for them, so that fault
// injection and tracing see them.
type Kernel interface {
	// FileSystem identifies the file system f lives on (st_dev).
	FileSystem(f vfs.File) (uint64, error)
	// Cachestat counts the pages of [off, off+n). ErrNoCachestat when the process cannot use the call at all;
	// ErrNoKernelFile for a memory file.
	Cachestat(f vfs.File, off, n int64) (PageCounts, error)
	// Mincore sets resident[i] for the i-th page from off on. off is a multiple of PageSize. It costs about 20 ms per GiB
	// however much is cached, and knows neither dirty nor evicted pages.
	Mincore(f vfs.File, off int64, resident []bool) error
	// ReadDontCache is preadv2(RWF_DONTCACHE): it drops the pages it brought in and keeps those cached before. Fewer
	// bytes than len(p) only at the end of the file, without an error. ErrMethodUnsupported when the file system or the
	// kernel cannot (EOPNOTSUPP, EINVAL).
	ReadDontCache(f vfs.File, p []byte, off int64) (int, error)
	// Advise is posix_fadvise(2).
	Advise(f vfs.File, off, n int64, a Advice) error
	// StartWriteBack is sync_file_range(2) with SYNC_FILE_RANGE_WRITE alone: it leaves errors to a later fsync.
	StartWriteBack(f vfs.File, off, n int64) error
	// WriteOut is sync_file_range(2) with all three flags: it writes and waits. A write error that it gives, or gave before on
	// the same descriptor, no later fsync sees.
	WriteOut(f vfs.File, off, n int64) error
	// DirectAlign asks statx(2) for STATX_DIOALIGN. Zero fields: not told. ErrMethodUnsupported: told that O_DIRECT is
	// not possible on this file.
	DirectAlign(f vfs.File) (Align, error)
	// MapFile gives the first room bytes of f a name by which pages can be locked, mmap(2). It outlives f and the file's
	// name. Nothing is ever read through it, so an I/O error or a shorter file cannot raise a signal.
	MapFile(f vfs.File, room int64) (Mapping, error)
}

// Mapping locks pages of one file. off and n are multiples of PageSize within the room that MapFile was asked for. One
// caller at a time.
type Mapping interface {
	// Lock brings the pages of [off, off+n), which the file must have, into memory and keeps them there: mlock(2). It waits
	// for the device where they are not resident. f is any descriptor of the file that MapFile was given. ErrPinLimit
	// when this process may not lock so much.
	Lock(f vfs.File, off, n int64) error
	// Unlock lets the pages of [off, off+n) go, whether or not they are locked, and unmaps them: mapped pages cannot be dropped.
	Unlock(off, n int64) error
	Close() error
}
