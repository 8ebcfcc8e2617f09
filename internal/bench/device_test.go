package bench

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
	"lagoon/internal/lab"
)

// aFile makes a file of 4 MiB below a data folder.
func aFile(t *testing.T, durable bool, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 4*mib))
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// onDisk is a folder on a disk: what is in a memory file system is neither written back nor evicted.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
			t.Fatal("the temporary directory is not on a disk")
		}
		t.Skip("the temporary directory is not on a disk")
	}
	return dir
}

// TestDeviceIsMeasuredInPeace: what filling left to be written is written before the device's limit is measured.
func TestDeviceIsMeasuredInPeace(t *testing.T) {
	dir := onDisk(t)
	aFile(t, true, dir, "old-0", "0.log")
	left := aFile(t, false, dir, "left")
	r := &runner{o: IsolationOptions{Outside: Outside{DataDirs: []string{dir}}}, log: io.Discard, result: &report.Isolation{}}
	if err := r.measure(t.Context()); err != nil || r.result.Device == nil {
		t.Fatalf("%+v, %v", r.result, err)
	}
	if p, err := lab.Cached(left, 0, -1); err != nil || p.Dirty+p.Writeback > 0 {
		t.Errorf("%d pages are dirty and %d on their way, %v", p.Dirty, p.Writeback, err)
	}
}
