package cachectl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"lagoon/internal/vfs"
)

// mapping is a reserved range of addresses into which locked parts of a file are mapped. The reservation begins at a multiple
// of WindowBytes, as the file does, so that a large folio lies within one page table: only then the kernel can lock it whole.
// Neighbouring parts become one mapping to the kernel (measured: 4,096 parts, one line in /proc/self/maps).
type mapping struct {
	whole, size uintptr // the reservation
	base        uintptr // aligned, inside it
}

const reserved = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_NORESERVE

// mmap is not unix.Mmap: addresses are never turned into Go pointers.
func mmap(addr, n uintptr, prot, flags, fd int, off int64) (uintptr, error) {
	at, _, errno := unix.Syscall6(unix.SYS_MMAP, addr, n, uintptr(prot), uintptr(flags), uintptr(fd), uintptr(off))
	if errno != 0 {
		return 0, errno
	}
	return at, nil
}

func (linuxKernel) MapFile(f vfs.File, room int64) (Mapping, error) {
	if _, err := fdOf(f); err != nil {
		return nil, err
	}
	n := uintptr(alignUp(room, WindowBytes) + WindowBytes)
	at, err := mmap(0, n, unix.PROT_NONE, reserved, -1, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of addresses: %w", n, err)
	}
	return &mapping{whole: at, size: n, base: (at + WindowBytes - 1) &^ (WindowBytes - 1)}, nil
}

func (m *mapping) Lock(f vfs.File, off, n int64) error {
	fd, err := fdOf(f)
	if err != nil {
		return err
	}
	// Private and never written: these are the pages of the page cache all the same, and the kernel need not look at the
	// mapping when it writes them back, which it must with a shared one of a descriptor that may write.
	at, err := mmap(m.base+uintptr(off), uintptr(n), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_FIXED, fd, off)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	for raised := false; ; raised = true {
		_, _, errno := unix.Syscall(unix.SYS_MLOCK, at, uintptr(n), 0)
		switch {
		case errno == 0:
			return nil
		case errno == unix.EINTR:
			continue
		case (errno == unix.EPERM || errno == unix.ENOMEM) && !mayLockAnything():
			if !raised && raiseLockLimit() {
				continue
			}
			err = fmt.Errorf("%w: mlock: %w", ErrPinLimit, errno)
		default:
			err = fmt.Errorf("mlock: %w", errno)
		}
		return errors.Join(err, m.Unlock(off, n))
	}
}

// mayLockAnything: with CAP_IPC_LOCK there is no limit, and ENOMEM means what it says.
func mayLockAnything() bool {
	const capIPCLock = 14
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<capIPCLock) != 0
}

// raiseLockLimit lifts the soft limit to the hard one; false when that changes nothing.
func raiseLockLimit() bool {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil || r.Cur >= r.Max {
		return false
	}
	r.Cur = r.Max
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &r) == nil
}

func (m *mapping) Unlock(off, n int64) error {
	if _, err := mmap(m.base+uintptr(off), uintptr(n), unix.PROT_NONE, reserved|unix.MAP_FIXED, -1, 0); err != nil {
		return fmt.Errorf("unmap: %w", err)
	}
	return nil
}

func (m *mapping) Close() error {
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, m.whole, m.size, 0); errno != 0 {
		return fmt.Errorf("munmap: %w", errno)
	}
	return nil
}
