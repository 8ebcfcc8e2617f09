package lab

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lagoon/internal/bench/readpath"
	"lagoon/internal/lab/labtest"
	"lagoon/tests/internal/lagoontest"
)

// TestReadpath takes about 5 s: every way is in the table, costs something, and leaves in the page cache what it should.
func TestReadpath(t *testing.T) {
	dir := labtest.New(t).Dir() // on a disk: a memory file system is always resident
	program, file := lagoontest.BuildBench(t), filepath.Join(t.TempDir(), "readpath.json")
	out, err := exec.Command(program, "readpath", "--dir", dir, "--file-size", "16MiB", "--sizes", "64KiB,2MiB", "--cell", "100ms", "--json", file).CombinedOutput()
	if err != nil {
		t.Fatalf("readpath: %v\n%s", err, out)
	}
	t.Logf("\n%s", out)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r readpath.Result
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(readpath.Methods()); len(r.Rows) != want {
		t.Fatalf("%d rows, want %d", len(r.Rows), want)
	}
	for _, row := range r.Rows {
		if row.Absent != "" {
			t.Logf("%s: %s", row.Method, row.Absent)
			continue
		}
		for _, c := range []readpath.Cost{row.Warm, row.Cold} {
			if c.CPUMicros <= 0 || c.WallMicros < c.CPUMicros*0.9 || c.MBps <= 0 || c.LeftRatio < 0 || c.LeftRatio > 1 {
				t.Errorf("%s of %d bytes: %+v", row.Method, row.Size, c)
			}
		}
		switch row.Method {
		case "direct", "dontcache":
			// DONTCACHE with small pieces leaves strays of the read-ahead.
			if row.Size == 2<<20 && row.Cold.LeftRatio > 0.05 {
				t.Errorf("%s left %.0f %% of what was not resident", row.Method, 100*row.Cold.LeftRatio)
			}
		case "read", "mmap", "sendfile", "splice":
			if row.Warm.LeftRatio < 0.95 {
				t.Errorf("%s left %.0f %% of what was resident", row.Method, 100*row.Warm.LeftRatio)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "lagoon-readpath-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	err = exec.Command(program, "readpath", "--sizes", "5KB").Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("a size that is not in pages: %v, want exit code 2", err)
	}
}
