package cachectl_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

func residentPages(t testing.TB, c *cachectl.Cache, f vfs.File, pos, n int64) int64 {
	t.Helper()
	r, err := c.Residency(f, pos, n)
	if err != nil {
		t.Fatal(err)
	}
	return r.Resident
}

// TestLinuxPinsStay: whatever another descriptor asks the kernel to drop, the pinned range stays and nothing else does;
// also when the file has lost its name.
func TestLinuxPinsStay(t *testing.T) {
	d := newDisk(t, diskBytes)
	requireCachestat(t, d)
	c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})
	pin := c.NewPin()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	const pages = diskBytes / cachectl.PageSize
	for range 200 {
		from := rnd.Int64N(pages)
		end := from + rnd.Int64N(pages-from)
		if err := pin.Hold(d.file, from*cachectl.PageSize, end*cachectl.PageSize, diskBytes); err != nil {
			if errors.Is(err, cachectl.ErrPinLimit) {
				lacking(t, "%v", err)
			}
			t.Fatal(err)
		}
		other := d.open(t, vfs.ReadOnly)
		if _, err := c.Evict(other, 0, diskBytes); err != nil {
			t.Fatal(err)
		}
		if got := residentPages(t, c, d.file, from*cachectl.PageSize, (end-from)*cachectl.PageSize); got != end-from {
			t.Fatalf("pinned %d to %d: %d pages resident", from, end, got)
		}
	}
	if err := pin.Hold(d.file, 0, 4<<20, diskBytes); err != nil {
		t.Fatal(err)
	}
	if err := d.fs.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Evict(d.file, 0, diskBytes); err != nil {
		t.Fatal(err)
	}
	if got := residentPages(t, c, d.file, 0, 4<<20); got != 1024 {
		t.Errorf("unlinked and pinned: %d pages resident", got)
	}
	if err := pin.Close(); err != nil {
		t.Fatal(err)
	}
	left := int64(1)
	// Another processor may still have pages in its batch of what it was last busy with, and reclaim some in its hands.
	for end := time.Now().Add(time.Minute); left > 0 && time.Now().Before(end); runtime.Gosched() {
		e, err := c.Evict(d.file, 0, diskBytes)
		if err != nil {
			t.Fatal(err)
		}
		left = e.LeftPages
	}
	if left > 0 {
		t.Errorf("after Close %d pages stay", left)
	}
	if err := pin.Hold(d.file, 0, 4<<20, diskBytes); err != nil {
		t.Errorf("a closed pin: %v", err)
	}
	if from, end := pin.Held(); end > from {
		t.Errorf("a closed pin holds %d to %d", from, end)
	}
}

// TestLinuxPinLimit: a process that may not lock so much is told once, and nothing stays pinned.
func TestLinuxPinLimit(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	const most = 64 << 20
	if limit.Max > most {
		lacking(t, "RLIMIT_MEMLOCK of %d bytes is too high to be reached by a test", limit.Max)
	}
	d := newDisk(t, int64(limit.Max)+2<<20)
	c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})
	pin := c.NewPin()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and what it lost does
		var data [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << 14
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			err = pin.Hold(d.file, 0, int64(limit.Max)+1<<20, d.size)
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, cachectl.ErrPinLimit) {
		t.Fatalf("got %v", err)
	}
	if from, end := pin.Held(); end > from || c.PinTrouble() == "" {
		t.Errorf("holds %d to %d, trouble %q", from, end, c.PinTrouble())
	}
}

// BenchmarkLinuxPin is what pinning costs a file that is being appended to: µs per MiB to pin what was just synced and to let
// it go, by the size of a step.
func BenchmarkLinuxPin(b *testing.B) {
	const size = 64 << 20
	for _, step := range []int64{64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", step>>10), func(b *testing.B) {
			d := newDisk(b, size)
			c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})
			if _, err := d.file.ReadAt(make([]byte, size), 0); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				pin := c.NewPin()
				for end := step; end <= size; end += step {
					if err := pin.Hold(d.file, max(0, end-size/2), end, size); err != nil {
						b.Fatal(err)
					}
				}
				if err := pin.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/(size>>20), "µs/MiB")
		})
	}
}

// BenchmarkLinuxAppend compares appending and syncing with and without the last 16 MiB pinned behind it.
func BenchmarkLinuxAppend(b *testing.B) {
	for _, pinned := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "pinned"}[pinned], func(b *testing.B) {
			d := newDisk(b, 0)
			w := d.open(b, vfs.ReadWrite)
			c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})
			pin := c.NewPin()
			data := make([]byte, 1<<20)
			const room = 1 << 30
			b.SetBytes(int64(len(data)))
			end := int64(0)
			for b.Loop() {
				if _, err := w.WriteAt(data, end%room); err != nil {
					b.Fatal(err)
				}
				if err := w.SyncData(); err != nil {
					b.Fatal(err)
				}
				end += int64(len(data))
				if pinned && end <= room {
					if err := pin.Hold(d.file, max(0, end-16<<20), end, room); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := pin.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLinuxSendPinned compares sending a resident file to a socket when it is pinned and when it is not.
func BenchmarkLinuxSendPinned(b *testing.B) {
	const size = 64 << 20
	for _, pinned := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "pinned"}[pinned], func(b *testing.B) {
			d := newDisk(b, size)
			if _, err := d.file.ReadAt(make([]byte, size), 0); err != nil {
				b.Fatal(err)
			}
			pin := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{}).NewPin()
			if pinned {
				if err := pin.Hold(d.file, 0, size, size); err != nil {
					b.Fatal(err)
				}
			}
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				b.Fatal(err)
			}
			drained := make(chan struct{})
			go func() {
				defer close(drained)
				buf := make([]byte, 1<<20)
				for n := 1; n > 0; {
					n, _ = unix.Read(pair[1], buf)
				}
			}()
			fd, _ := d.file.Fd()
			b.SetBytes(size)
			for b.Loop() {
				for off := int64(0); off < size; {
					if _, err := unix.Sendfile(pair[0], int(fd), &off, 1<<20); err != nil {
						b.Fatal(err)
					}
				}
			}
			_ = unix.Close(pair[0])
			<-drained
			_ = unix.Close(pair[1])
			if err := pin.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
