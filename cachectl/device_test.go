package cachectl_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// slowDisk gives direct reads the times of a device: heads reads at a time, each of which costs seek where it does not go on
// where that head stopped, and its transfer.
type slowDisk struct {
	vfs.FS
	seek  time.Duration
	rate  float64 // bytes per second
	heads chan *int64
}

func newSlowDisk(fs vfs.FS, heads int, seek time.Duration, rate float64) *slowDisk {
	d := &slowDisk{FS: fs, seek: seek, rate: rate, heads: make(chan *int64, heads)}
	for range heads {
		d.heads <- new(int64)
	}
	return d
}

func (d *slowDisk) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := d.FS.Open(name, vfs.ReadOnly)
	if err != nil || mode != vfs.Direct {
		return f, err
	}
	return slowFile{f, d}, nil
}

type slowFile struct {
	vfs.File
	disk *slowDisk
}

func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	head := <-f.disk.heads
	took := time.Duration(float64(len(p)) / f.disk.rate * 1e9)
	if *head != off {
		took += f.disk.seek
	}
	time.Sleep(took)
	*head = off + int64(len(p))
	f.disk.heads <- head
	return f.File.ReadAt(p, off)
}

func TestProbeDevice(t *testing.T) {
	for _, c := range []struct {
		name  string
		heads int
		seek  time.Duration
		rate  float64
		want  cachectl.DeviceClass
	}{
		{"hard disk", 1, 9 * time.Millisecond, 150e6, cachectl.DeviceHDD},
		{"fast hard disk", 1, 3 * time.Millisecond, 250e6, cachectl.DeviceHDD},
		{"nvme", 32, 80 * time.Microsecond, 2e9, cachectl.DeviceSSD},
		{"one fast unit", 1, 200 * time.Microsecond, 400e6, cachectl.DeviceSSD},
		{"disk behind a slow network", 32, 4 * time.Millisecond, 200e6, cachectl.DeviceSSD},
		{"200 operations a second and no more", 1, 5 * time.Millisecond, 150e6, cachectl.DeviceHDD},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newSlowDisk(vfs.NewMem(1), c.heads, c.seek, c.rate)
				d, err := cachectl.ProbeDevice(disk)
				if err != nil {
					t.Fatal(err)
				}
				if d.Class != c.want {
					t.Errorf("%v: want %s", d, c.want)
				}
				if d.Took > 300*time.Millisecond {
					t.Errorf("read for %v", d.Took)
				}
				if entries, err := disk.List("."); err != nil || len(entries) > 0 {
					t.Errorf("left %v, %v", entries, err)
				}
			})
		})
	}
}

func TestProbeDeviceReadsAnExistingLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		if err := mem.MkdirAll("orders-0"); err != nil {
			t.Fatal(err)
		}
		f, err := mem.Create("orders-0/00000000000000000000.log")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 1<<20), 64<<20); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		d, err := cachectl.ProbeDevice(newSlowDisk(mem, 1, 8*time.Millisecond, 150e6))
		if err != nil || d.File != "orders-0/00000000000000000000.log" || d.Class != cachectl.DeviceHDD {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestProbeDeviceWithoutDirectReads(t *testing.T) {
	mem := vfs.NewMem(1)
	if _, err := cachectl.ProbeDevice(mem); !errors.Is(err, vfs.ErrDirectUnsupported) {
		t.Errorf("got %v", err)
	}
	if entries, err := mem.List("."); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestLinuxProbeDevice(t *testing.T) {
	d, err := cachectl.ProbeDevice(newDisk(t, 1<<20).fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(d, d.Took, d.Reads)
	if d.Seek <= 0 || d.SequentialBytesPerSecond <= 0 || d.ParallelGain <= 0 {
		t.Errorf("%+v", d)
	}
}
