package cachectl

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeBytes is the size and alignment of a huge page on x86-64, and on arm64 with pages of 4 KiB.
const hugeBytes = 2 << 20

// scatteredBytes is what any device reads in one request into scattered pages of 4 KiB: 128 pieces of memory, the block layer's
// default (max_segments). Larger buffers gain from huge pages.
const scatteredBytes = 128 * PageSize

// slabPieces is how many buffers are mapped together: as many as fill a huge page, if they gain from one.
func slabPieces(chunkBytes int64) int {
	if chunkBytes <= scatteredBytes {
		return 1
	}
	return int((hugeBytes + chunkBytes - 1) / chunkBytes)
}

// mapChunk maps memory for buffers. From hugeBytes on it is aligned to that, and the kernel is asked to back it with huge pages at
// the first touch: a request to a device consists of a bounded number of pieces of physical memory (128 on a loop device, 254 on a
// virtio disk), so that a direct read of 1 MiB into scattered pages of 4 KiB becomes two requests or more, and one into a huge page
// as few as the device takes. Where there are no huge pages the buffer consists of small ones, now or for good.
func mapChunk(n int64) ([]byte, error) {
	size := uintptr(n)
	if n < hugeBytes {
		return mapMemory(size)
	}
	const spare = hugeBytes - PageSize
	wide, err := mapMemory(size + spare)
	if err != nil { // a limit on addresses
		return mapMemory(size)
	}
	at := int64(uintptr(unsafe.Pointer(unsafe.SliceData(wide))))
	skip := alignUp(at, hugeBytes) - at
	mem := wide[skip : skip+n : skip+n]
	// Each can fail only for want of a mapping (vm.max_map_count); then some addresses stay taken, of which no page is ever touched.
	_ = unmapChunk(wide[:skip])
	_ = unmapChunk(wide[skip+n:])
	_ = unix.Madvise(mem[:alignDown(n, hugeBytes)], unix.MADV_HUGEPAGE) // EINVAL: the kernel has none
	return mem, nil
}

func mapMemory(n uintptr) ([]byte, error) {
	p, err := unix.MmapPtr(-1, 0, nil, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// MapMemory gives n bytes of zeros outside Go's heap, in huge pages where the kernel has them, and what gives them back.
func MapMemory(n int64) (mem []byte, free func(), err error) {
	if mem, err = mapChunk(n); err != nil {
		return nil, nil, err
	}
	return mem, func() { _ = unmapChunk(mem) }, nil // an error leaves it mapped
}

// unmapChunk gives memory of mapChunk back.
func unmapChunk(mem []byte) error {
	if len(mem) == 0 {
		return nil
	}
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)))
}
