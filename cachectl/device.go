package cachectl

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"lagoon/internal/vfs"
)

// DeviceClass is how a device wants to be read.
type DeviceClass string

// Device classes, as the configuration names them.
const (
	DeviceSSD DeviceClass = "ssd" // several reads at once are faster than one after the other
	DeviceHDD DeviceClass = "hdd" // a read elsewhere costs a seek, and more at once do not help: one stream, large turns
)

// Device is what ProbeDevice measured.
type Device struct {
	Class DeviceClass
	// Seek is the median time of one random read of 4 KiB, one at a time.
	Seek time.Duration
	// ParallelGain is how many times more random reads per second four at once give. 1 for one head, 4 for independent units.
	ParallelGain float64
	// SequentialBytesPerSecond of consecutive direct reads of 256 KiB. Bytes.
	SequentialBytesPerSecond float64
	File                     string // what was read, relative to the FS
	Reads                    int
	Took                     time.Duration // reads only
}

// String is for logs and tables: "ssd: seek 80µs, 3.4 times at once, 1900 MB/s".
func (d Device) String() string {
	return fmt.Sprintf("%s: seek %v, %.1f times at once, %.0f MB/s", d.Class, d.Seek.Round(10*time.Microsecond), d.ParallelGain, d.SequentialBytesPerSecond/1e6)
}

const (
	deviceProbeName = "lagoon-device-probe.tmp"
	// deviceScratchBytes: written where no file is large enough. A disk at 150 MB/s takes 0.1 s for it.
	deviceScratchBytes = 16 << 20
	// deviceFileBytes: a file from this size on is read in place of a scratch file, whose bytes may still lie in the
	// cache of the drive.
	deviceFileBytes = 64 << 20
	deviceFileLook  = 256 // directories looked into for such a file

	// Three steps, and what is under way at their ends: 300 ms together. A disk gives 10 random reads in 80 ms: enough for a median.
	deviceStepTime  = 80 * time.Millisecond
	deviceMaxReads  = 64 // per step
	deviceParallel  = 4
	deviceSeqBytes  = 256 << 10
	deviceSeqReads  = 64
	deviceSlowSeek  = 1500 * time.Microsecond // no flash is slower, no head is faster (a short seek and half a turn at 15,000/min: 3 ms)
	deviceSlowGain  = 2.5                     // a head that sorts its queue reaches 1.6 with four; a network disk of 3 ms has 4
	deviceAlignment = PageSize
)

// classify: a slow random read alone can be distance (a network disk), which parallel reads hide; a head cannot be in two
// places.
func classify(seek time.Duration, gain float64) DeviceClass {
	if seek >= deviceSlowSeek && gain < deviceSlowGain {
		return DeviceHDD
	}
	return DeviceSSD
}

// ProbeDevice finds out by measurement how the device below fsys wants to be read: the rotational flag in /sys is wrong on
// virtual disks. It reads at most 300 ms, with O_DIRECT, in the largest log file of fsys, or in a scratch file that it
// writes and removes. Call it at start, before there is other load on the device. It waits for the device.
// Errors: vfs.ErrDirectUnsupported; those of fsys.
func ProbeDevice(fsys vfs.FS) (d Device, err error) {
	name, size := largestLog(fsys)
	if size < deviceFileBytes {
		name, size = deviceProbeName, deviceScratchBytes
		defer func() {
			if e := fsys.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}()
		if err := writeScratch(fsys, name, size); err != nil {
			return Device{}, fmt.Errorf("probe device of %s: %w", fsys.Root(), err)
		}
	}
	f, err := fsys.Open(name, vfs.Direct)
	if err != nil {
		return Device{}, fmt.Errorf("probe device of %s: %w", fsys.Root(), err)
	}
	d, err = measureDevice(f, size)
	if err = errors.Join(err, f.Close()); err != nil {
		return Device{}, fmt.Errorf("probe device of %s: %w", fsys.Root(), err)
	}
	d.File = name
	return d, nil
}

// largestLog looks through the partition directories.
func largestLog(fsys vfs.FS) (name string, size int64) {
	dirs, err := fsys.List(".")
	if err != nil {
		return "", 0
	}
	looked := 0
	for _, d := range dirs {
		if looked++; !d.Dir || looked > deviceFileLook {
			continue
		}
		files, err := fsys.List(d.Name)
		if err != nil {
			continue
		}
		for _, f := range files {
			if f.Regular && strings.HasSuffix(f.Name, ".log") && f.Size > size {
				name, size = d.Name+"/"+f.Name, f.Size
			}
		}
	}
	return name, size
}

func writeScratch(fsys vfs.FS, name string, size int64) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an earlier scratch file: %w", err)
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	data := make([]byte, 1<<20)
	for i := range data { // not zeros: a device may store those as nothing
		data[i] = byte(i * 7)
	}
	for pos := int64(0); pos < size && err == nil; pos += int64(len(data)) {
		_, err = f.WriteAt(data, pos)
	}
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// measureDevice reads f, a direct descriptor of at least size bytes.
func measureDevice(f vfs.File, size int64) (Device, error) {
	pool, err := NewPool(deviceParallel*deviceSeqBytes, deviceSeqBytes)
	if err != nil {
		return Device{}, err
	}
	defer pool.Close()
	var bufs [deviceParallel]*Buffer
	for i := range bufs {
		b, ok := pool.TryGet()
		if !ok {
			return Device{}, fmt.Errorf("%w: no memory for %d bytes", ErrBuffer, deviceSeqBytes)
		}
		defer b.Release()
		bufs[i] = b
	}
	began := time.Now()
	var d Device

	alone, err := randomReads(f, size, bufs[0].Bytes(), began.Add(deviceStepTime))
	if err != nil {
		return d, err
	}
	aloneTook := time.Since(began)
	slices.Sort(alone)
	d.Seek = alone[len(alone)/2]

	together, results := time.Now(), make([]struct {
		n   int
		err error
	}, deviceParallel)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			times, err := randomReads(f, size, bufs[i].Bytes(), together.Add(deviceStepTime))
			results[i].n, results[i].err = len(times), err
		})
	}
	wg.Wait()
	n, took := 0, time.Since(together)
	for _, r := range results {
		if r.err != nil {
			return d, r.err
		}
		n += r.n
	}
	d.ParallelGain = float64(n) / max(took.Seconds(), 1e-9) / (float64(len(alone)) / max(aloneTook.Seconds(), 1e-9))
	d.Reads = n + len(alone)

	read, sequential := int64(0), time.Now()
	for i := int64(0); i < deviceSeqReads && (i+1)*deviceSeqBytes <= size && time.Since(sequential) < deviceStepTime; i++ {
		if _, err := readFull(f, bufs[0].Bytes(), i*deviceSeqBytes); err != nil {
			return d, err
		}
		read += deviceSeqBytes
		d.Reads++
	}
	d.SequentialBytesPerSecond = float64(read) / max(time.Since(sequential).Seconds(), 1e-9)
	d.Took = time.Since(began)
	d.Class = classify(d.Seek, d.ParallelGain)
	return d, nil
}

// randomReads reads pages in random places until the time is over or there are enough; at least one.
func randomReads(f vfs.File, size int64, buf []byte, until time.Time) (times []time.Duration, err error) {
	pages := size / deviceAlignment
	for {
		pos := rand.Int64N(pages) * deviceAlignment // where does not matter, that it is elsewhere does
		at := time.Now()
		if _, err := readFull(f, buf[:deviceAlignment], pos); err != nil {
			return nil, err
		}
		now := time.Now()
		times = append(times, now.Sub(at))
		if len(times) == deviceMaxReads || !now.Before(until) {
			return times, nil
		}
	}
}
