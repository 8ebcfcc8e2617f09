package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fits says what is wrong with a disk in memory beside a broker. The kernel refuses neither: it kills processes, of whomever, when there is
// nothing left.
func fits(disk, broker, available int64) error {
	if disk > available-broker {
		return fmt.Errorf("a disk of %d MiB in memory beside a broker's %d MiB: %d MiB are available", disk>>20, broker>>20, available>>20)
	}
	return nil
}

// availableMemory is MemAvailable, see proc_meminfo(5).
func availableMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}

// DirectMemory is memory of n bytes for O_DIRECT, for as long as the process lives: in huge pages where the kernel has any, since the
// block layer cuts a request of 1 MiB in two when it goes to scattered pages of 4 KiB, and what a device gives would then depend on the
// memory of who measures it.
func DirectMemory(n int) ([]byte, error) {
	const huge = 2 << 20 // on x86-64, and on arm64 with pages of 4 KiB
	whole := (n + huge - 1) &^ (huge - 1)
	mem, err := unix.Mmap(-1, 0, whole+huge, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", whole+huge, err)
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) & (huge - 1)
	mem = mem[skip : skip+whole]
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // EINVAL: the kernel has none
	return mem[:n:n], nil
}
