package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits is what a device gives to plain readers.
type Limits struct {
	Direct1   float64 `json:"sequential_direct_1mib_1_stream_mb_s"`
	Direct4   float64 `json:"sequential_direct_1mib_4_streams_mb_s"`
	Buffered1 float64 `json:"buffered_64kib_1_stream_mb_s"`
	Buffered4 float64 `json:"buffered_64kib_4_streams_mb_s"`
	Random    float64 `json:"random_direct_4kib_per_s"`
	Write     float64 `json:"sequential_direct_write_1mib_mb_s"`
	Sync      float64 `json:"append_4kib_and_fdatasync_per_s"`
}

const (
	measureFiles = 4
	measureBytes = 256 << 20 // of each file
)

// Measure finds the limits of a disk with files of its own, from inside g. It takes about half a minute on a slow disk.
func (d *Disk) Measure(g *Cgroup) (limits Limits, err error) {
	dir := filepath.Join(d.path, "measure")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return limits, err
	}
	c := helper("measure", dir)
	g.Wrap(c)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err == nil {
		err = json.Unmarshal(out, &limits)
	}
	if err != nil {
		err = fmt.Errorf("measure %s: %w", d.path, err)
	}
	return limits, errors.Join(err, os.RemoveAll(dir))
}

// measure is the helper process.
func measure(dir string) int {
	var l Limits
	err := func() error {
		var names []string
		for i := range measureFiles {
			names = append(names, filepath.Join(dir, strconv.Itoa(i)))
		}
		began := time.Now()
		for _, name := range names {
			if err := fillDirect(name); err != nil {
				return err
			}
		}
		l.Write = measureFiles * measureBytes / time.Since(began).Seconds() / 1e6
		for _, step := range []struct {
			to      *float64
			flags   int
			request int
			files   []string
		}{
			{&l.Direct1, unix.O_DIRECT, 1 << 20, names[:1]},
			{&l.Direct4, unix.O_DIRECT, 1 << 20, names},
			{&l.Buffered1, 0, 64 << 10, names[:1]},
			{&l.Buffered4, 0, 64 << 10, names},
		} {
			rate, err := readStreams(step.files, step.flags, step.request)
			if err != nil {
				return err
			}
			*step.to = rate
		}
		var err error
		if l.Random, err = readRandom(names); err == nil {
			l.Sync, err = appendSync(filepath.Join(dir, "appended"))
		}
		return err
	}()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func fillDirect(name string) error {
	buf, err := DirectMemory(1 << 20)
	if err != nil {
		return err
	}
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fallocate(fd, 0, 0, measureBytes); err != nil {
		return err
	}
	for pos := int64(0); pos < measureBytes; pos += int64(len(buf)) {
		buf[0] = byte(pos >> 20)
		if n, err := unix.Pwrite(fd, buf, pos); err != nil || n != len(buf) {
			return fmt.Errorf("write %s: %d bytes, %w", name, n, err)
		}
	}
	return unix.Fsync(fd)
}

// readStreams reads the files at the same time, each in order with one read in flight, for some seconds, and returns MB/s.
func readStreams(names []string, flags, request int) (float64, error) {
	if err := Evict(names...); err != nil {
		return 0, err
	}
	const most = 5 * time.Second
	began := time.Now()
	var group sync.WaitGroup
	bytes, errs := make([]int64, len(names)), make([]error, len(names))
	for i, name := range names {
		group.Go(func() {
			fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
			if err != nil {
				errs[i] = err
				return
			}
			defer unix.Close(fd)
			buf, err := DirectMemory(request)
			for err == nil && bytes[i] < measureBytes && time.Since(began) < most {
				var n int
				if n, err = unix.Pread(fd, buf, bytes[i]); err == nil && n == 0 {
					break
				}
				bytes[i] += int64(max(n, 0))
			}
			errs[i] = err
		})
	}
	group.Wait()
	var sum int64
	for _, n := range bytes {
		sum += n
	}
	return float64(sum) / time.Since(began).Seconds() / 1e6, errors.Join(errs...)
}

// readRandom reads 4 KiB here and there, one at a time, and returns reads a second. The files are a small part of the disk, so a
// head has shorter ways than over the whole.
func readRandom(names []string) (float64, error) {
	var fds []int
	for _, name := range names {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	buf, err := DirectMemory(4096)
	if err != nil {
		return 0, err
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < 3*time.Second; n++ {
		if _, err := unix.Pread(fds[rand.IntN(len(fds))], buf, rand.Int64N(measureBytes/4096)*4096); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// appendSync appends 4 KiB and makes it durable, and returns how often a second.
func appendSync(name string) (float64, error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 4096)
	began, n := time.Now(), 0
	for ; time.Since(began) < 3*time.Second; n++ {
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
