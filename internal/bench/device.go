package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
)

const (
	directRead = 1 << 20
	directTime = 5 * time.Second
)

// measureDevice reads files one after the other, 1 MiB at a time with O_DIRECT, until directTime has passed or they end.
func measureDevice(ctx context.Context, files []string) (*report.Device, error) {
	if len(files) == 0 {
		return nil, errors.New("no file to measure the device with")
	}
	d := &report.Device{Path: files[0]}
	d.Name, _ = blockDevice(files[0]) // the read tells what is wrong
	buf := aligned(directRead)
	begun := time.Now()
	for _, name := range files {
		if err := readDirect(ctx, name, buf, begun.Add(directTime), &d.Bytes); err != nil {
			return nil, fmt.Errorf("measure the device with %s: %w", name, err)
		}
	}
	d.Seconds = time.Since(begun).Seconds()
	if d.Bytes == 0 {
		return nil, fmt.Errorf("measure the device with %s: nothing in it", files[0])
	}
	d.MBPerSec = float64(d.Bytes) / 1e6 / d.Seconds
	return d, ctx.Err()
}

func readDirect(ctx context.Context, name string, buf []byte, until time.Time, read *int64) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for time.Now().Before(until) && ctx.Err() == nil {
		n, err := f.Read(buf)
		*read += int64(n)
		if errors.Is(err, io.EOF) || err == nil && n < len(buf) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// aligned is memory that O_DIRECT accepts.
func aligned(n int) []byte {
	const align = 4096
	b := make([]byte, n+align)
	skip := (align - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%align)) % align
	return b[skip : skip+n : skip+n]
}
