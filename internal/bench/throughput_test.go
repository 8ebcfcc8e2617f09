package bench

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
)

// TestCatchupSaysWhatWasNotCold: a broker may lock pages in memory, and what is read from there is no figure of the disk.
func TestCatchupSaysWhatWasNotCold(t *testing.T) {
	dir := onDisk(t)
	name := aFile(t, true, dir, "t-0", "0.log")
	run := &throughput{o: ThroughputOptions{Bytes: 100, Outside: Outside{DataDirs: []string{dir}}}, result: &report.Table{}}
	if err := run.cool(t.Context(), &loadCase{topic: "t"}); err != nil || len(run.result.Notes) != 0 {
		t.Errorf("nothing stayed: %v, %q", err, run.result.Notes)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(pages)
	if err := unix.Mlock(pages); err != nil {
		t.Fatal(err)
	}
	if err := run.cool(t.Context(), &loadCase{topic: "t"}); err != nil || len(run.result.Notes) != 1 {
		t.Errorf("a page stayed: %v, %q", err, run.result.Notes)
	}
}
