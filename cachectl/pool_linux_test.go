package cachectl_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lagoon/cachectl"
)

const hugePage = 2 << 20

// hugeBytesAt is how much of the mapping that holds addr consists of huge pages.
func hugeBytesAt(t *testing.T, addr uintptr) (huge int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		var kib int64
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= addr && addr < to
		} else if n, _ := fmt.Sscanf(s.Text(), "AnonHugePages: %d kB", &kib); n == 1 && inside {
			return kib << 10
		}
	}
	return 0
}

// canHaveHugePages tells whether this kernel gives n of them now, to somebody who asks as the manual says.
func canHaveHugePages(t *testing.T, n int64) bool {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, int(n+1)*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	for i := 0; i < len(mem); i += cachectl.PageSize {
		mem[i] = 1
	}
	return hugeBytesAt(t, addr+hugePage) >= n*hugePage
}

// TestLinuxPool_HugePages: what is read into in one go is one piece of physical memory, also when it comes back from the kernel; and
// no more addresses stay mapped than the buffers have.
func TestLinuxPool_HugePages(t *testing.T) {
	for _, chunk := range []int64{hugePage, hugePage / 2} {
		for left := attempts; ; left-- {
			small := smallBuffers(t, chunk)
			if len(small) == 0 {
				break
			}
			if left == 0 {
				t.Fatalf("buffers without huge pages: %v", small)
			}
			// Memory may have been in pieces just then, by what else this machine does.
			if !canHaveHugePages(t, 4) {
				enabled, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
				lacking(t, "no huge pages now; transparent_hugepage/enabled: %s", strings.TrimSpace(string(enabled)))
			}
		}
	}
}

// smallBuffers takes four buffers for chunks out of a pool, and tells of those that are not in huge pages.
func smallBuffers(t *testing.T, chunk int64) (small []string) {
	t.Helper()
	size := chunk + 2*cachectl.PageSize // as a chunk is: room for unaligned ends
	p, err := cachectl.NewPool(4*size, size)
	if err != nil {
		t.Fatal(err)
	}
	var held []*cachectl.Buffer
	for range 4 {
		held = append(held, mustGet(t, p))
	}
	for _, b := range held { // two of the smaller ones are a huge page and its end
		mem := b.Bytes()
		mem[0], mem[size-1] = 1, 1
		middle := uintptr(unsafe.Pointer(unsafe.SliceData(mem))) + uintptr(chunk/2)
		if int64(len(mem)) != size {
			t.Errorf("%d bytes instead of %d", len(mem), size)
		}
		if huge := hugeBytesAt(t, middle); huge < hugePage {
			small = append(small, fmt.Sprintf("%d bytes at %#x: %d are in huge pages", len(mem), middle, huge))
		}
	}
	for _, b := range held {
		b.Release()
	}
	p.Close()
	if s := p.Stats(); s.MappedBytes != 0 || s.MapErrors != 0 {
		t.Errorf("after Close: %+v", s)
	}
	return small
}

// TestPool_SlabsAreBounded: buffers that are mapped together count together, never more than the pool may have, and go together.
func TestPool_SlabsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = hugePage / 2
		p, err := cachectl.NewPool(3*size, size)
		if err != nil {
			t.Fatal(err)
		}
		var held []*cachectl.Buffer
		for i := range 3 {
			held = append(held, mustGet(t, p))
			held[i].Bytes()[0] = byte(i)
		}
		if _, ok := p.TryGet(); ok {
			t.Error("a fourth buffer came out of a pool of three")
		}
		for i, b := range held {
			if b.Bytes()[0] != byte(i) {
				t.Error("two buffers have the same memory")
			}
		}
		if s := p.Stats(); s.MappedBytes != 3*size || s.InUseBytes != 3*size {
			t.Errorf("all out: %+v", s)
		}
		held[0].Release()
		held[2].Release()
		time.Sleep(3 * cachectl.DefaultIdleTrim)
		synctest.Wait()
		if s := p.Stats(); s.MappedBytes != 2*size || s.TrimmedBytes != size { // the second buffer holds the first one's slab
			t.Errorf("idle but for one: %+v", s)
		}
		held[1].Release()
		time.Sleep(3 * cachectl.DefaultIdleTrim)
		synctest.Wait()
		if s := p.Stats(); s.MappedBytes != 0 || s.TrimmedBytes != 3*size || s.MapErrors != 0 {
			t.Errorf("idle: %+v", s)
		}
		p.Close()
	})
}

// TestLinuxPool_LeavesNoAddresses: the alignment of large buffers costs no addresses once they are gone.
func TestLinuxPool_LeavesNoAddresses(t *testing.T) {
	const size = hugePage + cachectl.PageSize
	mapped := func() (pages int64) {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(text), &pages); err != nil {
			t.Fatal(err)
		}
		return pages * int64(os.Getpagesize())
	}
	before := mapped()
	for range 64 {
		p, err := cachectl.NewPool(2*size, size)
		if err != nil {
			t.Fatal(err)
		}
		a, b := mustGet(t, p), mustGet(t, p)
		a.Release()
		b.Release()
		p.Close()
	}
	if left := mapped() - before; left > 64*hugePage { // of 128; the Go runtime maps some meanwhile, too
		t.Errorf("%d MiB of addresses are left", left>>20)
	}
}
