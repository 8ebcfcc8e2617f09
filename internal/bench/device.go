package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
	"lagoon/internal/lab"
)

const (
	directRead = 1 << 20
	directTime = 5 * time.Second
	// directTries is how often another file is looked for when all those that were listed are gone before anything could be read.
	directTries = 5
)

// quietTime is how long writing back may take: dirty pages of a large machine on one hard disk.
const quietTime = 10 * time.Minute

// writeBack returns when the file systems that paths lie on have nothing more to write, and the devices below have emptied their caches. It
// takes no error away from the broker: each descriptor is told of a failed write-back by itself.
func writeBack(ctx context.Context, paths []string) error {
	done := make(chan error, 1)
	go func() {
		var errs []error
		seen := map[uint64]bool{}
		for _, name := range paths {
			if device, _ := deviceOf(name); !seen[device] {
				seen[device] = true
				errs = append(errs, syncFS(name))
			}
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(quietTime):
		return fmt.Errorf("%s: not written back within %v", strings.Join(paths, ", "), quietTime)
	}
}

// syncFS is syncfs(2) of the file system that a file or folder lies on; with barriers, as is the rule, it flushes the device, too.
func syncFS(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write back %s: %w", name, err)
	}
	return nil
}

// measureDevice reads files one after the other, 1 MiB at a time with O_DIRECT, until directTime has passed or they end: those of the
// device that holds most of their bytes. A broker that moves segments takes files away meanwhile; they are passed over, and list is
// asked for others.
func measureDevice(ctx context.Context, list func() []string) (*report.Device, error) {
	buf, err := lab.DirectMemory(directRead)
	if err != nil {
		return nil, err
	}
	d, device := &report.Device{}, uint64(0)
	var took time.Duration
	read := map[string]bool{}
	for tries := 0; tries < directTries && took < directTime && ctx.Err() == nil; tries++ {
		files := list()
		if d.Bytes == 0 {
			device = largest(files, deviceOf)
		}
		for _, name := range files {
			if dev, _ := deviceOf(name); dev != device || read[name] || took >= directTime || ctx.Err() != nil {
				continue
			}
			began := time.Now()
			n, err := readDirect(ctx, name, buf, began.Add(directTime-took))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("measure the device with %s: %w", name, err)
			}
			if read[name] = true; d.Path == "" && n > 0 {
				d.Path = name
				d.Name, _ = blockDevice(name) // what has no name is measured all the same
			}
			d.Bytes, took, tries = d.Bytes+n, took+time.Since(began), 0
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.Bytes == 0 {
		return nil, errors.New("no file to measure the device with: all are empty, or were gone before they could be read")
	}
	d.Seconds = took.Seconds()
	d.MBPerSec = float64(d.Bytes) / 1e6 / d.Seconds
	return d, nil
}

// deviceOf is the device a file lies on and its size; 0, 0 of one that is gone.
func deviceOf(name string) (device uint64, size int64) {
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Size
}

// largest is the device that holds most bytes of the files, the first of them where two hold as much.
func largest(files []string, of func(string) (uint64, int64)) (most uint64) {
	bytes := map[uint64]int64{}
	for _, name := range files {
		device, size := of(name)
		if bytes[device] += size; bytes[device] > bytes[most] {
			most = device
		}
	}
	return most
}

// readDirect reads a file from its beginning and returns how many bytes it had until then.
func readDirect(ctx context.Context, name string, buf []byte, until time.Time) (read int64, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for time.Now().Before(until) && ctx.Err() == nil {
		n, err := f.Read(buf)
		read += int64(n)
		if errors.Is(err, io.EOF) || err == nil && n < len(buf) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
	return read, nil
}
