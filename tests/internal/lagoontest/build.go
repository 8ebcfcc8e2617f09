package lagoontest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// built is the binary of this test process. The open file keeps it alive: its name is unlinked at once, so that no run leaves anything behind.
var built struct {
	once sync.Once
	file *os.File
	err  error
}

// Build returns the path of the lagoon binary; the first call of a test process builds it. The path is good as long as the process lives.
func Build(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("LAGOON_BINARY"); path != "" {
		return path
	}
	built.once.Do(func() { built.file, built.err = build() })
	if built.err != nil {
		t.Fatalf("build lagoon: %v", built.err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), built.file.Fd())
}

func build() (*os.File, error) {
	dir, err := os.MkdirTemp("", "lagoontest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-o", filepath.Join(dir, "lagoon")}
	if os.Getenv("LAGOON_TEST_RACE") == "1" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/lagoon")...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.Open(filepath.Join(dir, "lagoon"))
}

// Root is the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// BuildBench builds lagoon-bench for one test. It stays on disk: the program starts itself in other roles.
func BuildBench(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "lagoon-bench")
	c := exec.Command("go", "build", "-o", binary, "./cmd/lagoon-bench")
	c.Dir = Root()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build lagoon-bench: %v\n%s", err, out)
	}
	return binary
}
