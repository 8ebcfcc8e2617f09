package cachectl

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"lagoon/internal/vfs"
)

// linuxKernel talks to the real page cache. It has no state.
type linuxKernel struct {
	pageBytes int64 // the kernel's page, a multiple of PageSize
}

// LinuxKernel is the running kernel. Whether it has cachestat, RWF_DONTCACHE or O_DIRECT is found out in use.
func LinuxKernel() Kernel { return linuxKernel{pageBytes: int64(os.Getpagesize())} }

func fdOf(f vfs.File) (int, error) {
	fd, ok := f.Fd()
	if !ok {
		return -1, ErrNoKernelFile
	}
	return int(fd), nil
}

// restart repeats a system call that a signal interrupted (Go preempts by signals).
func restart(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (linuxKernel) FileSystem(f vfs.File) (uint64, error) {
	fd, err := fdOf(f)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := restart(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, fmt.Errorf("fstat: %w", err)
	}
	return uint64(st.Dev), nil //nolint:unconvert // narrower on some architectures
}

func (k linuxKernel) Cachestat(f vfs.File, off, n int64) (PageCounts, error) {
	fd, err := fdOf(f)
	if err != nil {
		return PageCounts{}, err
	}
	rng := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var st unix.Cachestat_t
	err = restart(func() error { return unix.Cachestat(uint(fd), &rng, &st, 0) })
	if err != nil {
		return PageCounts{}, cachestatError(err)
	}
	scale := uint64(k.pageBytes / PageSize)
	return PageCounts{
		Resident:        int64(st.Cache * scale),
		Dirty:           int64(st.Dirty * scale),
		Writeback:       int64(st.Writeback * scale),
		Evicted:         int64(st.Evicted * scale),
		RecentlyEvicted: int64(st.Recently_evicted * scale),
	}, nil
}

// cachestatError tells "this process never can" from "not on this file". The kernel says EPERM for files that the caller
// neither owns nor may write, and a seccomp filter says EPERM for everything: asking about no file at all distinguishes
// them, for only the kernel itself answers EBADF.
func cachestatError(err error) error {
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: kernel older than 6.5, or hidden by seccomp (%w)", ErrNoCachestat, err)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		var st unix.Cachestat_t
		if none := unix.Cachestat(^uint(0), &unix.CachestatRange{}, &st, 0); !errors.Is(none, unix.EBADF) {
			return fmt.Errorf("%w: forbidden by seccomp (%w)", ErrNoCachestat, err)
		}
	}
	return fmt.Errorf("cachestat: %w", err)
}

func (k linuxKernel) Mincore(f vfs.File, off int64, resident []bool) error {
	fd, err := fdOf(f)
	if err != nil {
		return err
	}
	if len(resident) == 0 {
		return nil
	}
	base := alignDown(off, k.pageBytes)
	length := alignUp(off+int64(len(resident))*PageSize, k.pageBytes) - base
	// PROT_NONE: the mapping is only a name for the pages and is never touched, so it cannot fault.
	mem, err := unix.Mmap(fd, base, int(length), unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap for mincore: %w", err)
	}
	vec := make([]byte, length/k.pageBytes)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(length), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	err = unix.Munmap(mem)
	if errno != 0 {
		return fmt.Errorf("mincore: %w", errno)
	}
	if err != nil {
		return fmt.Errorf("munmap for mincore: %w", err)
	}
	for i := range resident {
		resident[i] = vec[(off+int64(i)*PageSize-base)/k.pageBytes]&1 != 0
	}
	return nil
}

func (linuxKernel) ReadDontCache(f vfs.File, p []byte, off int64) (int, error) {
	fd, err := fdOf(f)
	if err != nil {
		return 0, err
	}
	total := 0
	for total < len(p) {
		var n int
		err := restart(func() (err error) {
			n, err = unix.Preadv2(fd, [][]byte{p[total:]}, off+int64(total), unix.RWF_DONTCACHE)
			return err
		})
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			// EINVAL: before 6.14 the flag is unknown to some file systems' own check.
			return total, fmt.Errorf("%w: preadv2 RWF_DONTCACHE: %w", ErrMethodUnsupported, err)
		case err != nil:
			return total, fmt.Errorf("preadv2 RWF_DONTCACHE: %w", err)
		case n == 0:
			return total, nil
		}
		total += n
	}
	return total, nil
}

var fadvise = [...]int{
	AdviseNormal:   unix.FADV_NORMAL,
	AdviseRandom:   unix.FADV_RANDOM,
	AdviseWillNeed: unix.FADV_WILLNEED,
	AdviseDontNeed: unix.FADV_DONTNEED,
}

func (linuxKernel) Advise(f vfs.File, off, n int64, a Advice) error {
	fd, err := fdOf(f)
	if err != nil {
		return err
	}
	if int(a) >= len(fadvise) {
		return fmt.Errorf("fadvise: %w: advice %d", ErrRange, a)
	}
	if err := restart(func() error { return unix.Fadvise(fd, off, n, fadvise[a]) }); err != nil {
		return fmt.Errorf("fadvise: %w", err)
	}
	return nil
}

func (linuxKernel) StartWriteBack(f vfs.File, off, n int64) error {
	return syncFileRange(f, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func (linuxKernel) WriteOut(f vfs.File, off, n int64) error {
	return syncFileRange(f, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func syncFileRange(f vfs.File, off, n int64, flags int) error {
	fd, err := fdOf(f)
	if err != nil {
		return err
	}
	err = restart(func() error { return unix.SyncFileRange(fd, off, n, flags) })
	if err != nil {
		return fmt.Errorf("sync_file_range: %w", err)
	}
	return nil
}

func (linuxKernel) DirectAlign(f vfs.File) (Align, error) {
	a, err := vfs.DirectAlign(f)
	return Align{Memory: int64(a.Mem), Offset: int64(a.Off)}, err
}
