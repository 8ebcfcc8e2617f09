package lagoontest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/lab"
)

// program is one of ours, as this test process runs it. The open file keeps it alive, whatever becomes of its name.
type program struct {
	name string
	once sync.Once
	file *os.File
	err  error
}

var broker, bench = program{name: "lagoon"}, program{name: "lagoon-bench"}

// Build returns the path of the lagoon binary; the first call of a test process sees that it is up to date. The path is good as
// long as the process lives.
func Build(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("LAGOON_BINARY"); path != "" {
		return path
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), broker.open(t).Fd())
}

// BuildBench is Build for lagoon-bench. Each test gets a file of its own: the program starts itself in other roles, by its name.
func BuildBench(t testing.TB) string {
	t.Helper()
	in := bench.open(t)
	path := filepath.Join(t.TempDir(), bench.name)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, io.NewSectionReader(in, 0, 1<<40))
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *program) open(t testing.TB) *os.File {
	t.Helper()
	p.once.Do(func() { p.file, p.err = p.build() })
	if p.err != nil {
		t.Fatalf("build %s: %v", p.name, p.err)
	}
	return p.file
}

// build keeps the program below lab.CacheDir, a folder for each checkout, so that only the first of all test binaries links it.
func (p *program) build() (*os.File, error) {
	if lab.CacheDir() == "" {
		return nil, errors.New("no cache folder of this user: set LAGOON_CACHE")
	}
	args, folder := []string{"build"}, filepath.Join(lab.CacheDir(), "bin", Root())
	if os.Getenv("LAGOON_TEST_RACE") == "1" {
		args, folder = append(args, "-race"), folder+".race"
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, p.name)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // which unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	// An old one is removed by go build, not overwritten: who runs it keeps it.
	cmd := exec.Command("go", append(args, "-o", path, "./cmd/"+p.name)...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	if err := sources(); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// sources looks at the folders that programs are built from. The go command keeps the result of a test for as long as the files that the test has opened
// are as they were, and sees nothing of what the build reads: it would tell of a program that has changed since.
func sources() error {
	return filepath.WalkDir(Root(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || path == Root() {
			return err
		}
		if name := e.Name(); strings.HasPrefix(name, ".") || slices.Contains([]string{"docs", "deploy", "tests", "testdata"}, name) {
			return fs.SkipDir
		}
		return nil
	})
}

// Root is the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}
