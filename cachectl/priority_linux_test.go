package cachectl_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/cachectl"
)

// ioPriority is the calling thread's.
func ioPriority(t *testing.T) uintptr {
	t.Helper()
	p, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return p
}

// The priority holds inside and is gone afterwards, on the same thread.
func TestLinuxAtLowPriority(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := ioPriority(t)
	cachectl.AtLowPriority(func() {
		if p := ioPriority(t); p != 2<<13|7 {
			t.Errorf("priority %#x inside", p)
		}
	})
	if p := ioPriority(t); p != before {
		t.Errorf("priority %#x afterwards, %#x before", p, before)
	}
}

func BenchmarkAtLowPriority(b *testing.B) {
	for b.Loop() {
		cachectl.AtLowPriority(func() {})
	}
}
