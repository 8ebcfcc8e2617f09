package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helperEnv = "LAGOON_LAB_HELPER" // set in helper processes: reap or read
	labsName  = "lagoon-lab"        // directory of all labs, under LAGOON_LAB_DIR or the temporary directory
)

// Lab is one laboratory. Everything in it goes with the test.
type Lab struct {
	t      testing.TB
	id     string
	dir    string
	groups int
}

// Main is TestMain of a package that uses labs.
func Main(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "reap":
		os.Exit(reap(os.Args[1]))
	case "read":
		os.Exit(readDirect(os.Args[1:]))
	}
	fmt.Fprintln(os.Stderr, "unknown helper")
	os.Exit(2)
}

// New waits for other labs on this machine to end, takes back what dead ones left, and opens one. The test is skipped (or fails
// with LAGOON_REQUIRE_ALL=1) where no lab can be made.
func New(t testing.TB) *Lab {
	t.Helper()
	require(t)
	base := filepath.Join(baseDir(), labsName)
	if err := os.MkdirAll(base, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(base, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	for unix.Flock(int(lock.Fd()), unix.LOCK_EX) == unix.EINTR { //nolint:revive // a signal of the runtime
	}
	stale, _ := filepath.Glob(filepath.Join(base, "lab-*"))
	for _, dir := range stale { // nobody holds the lock: they are dead
		if err := revert(dir); err != nil {
			t.Logf("left by an earlier run and still there: %s: %v", dir, err)
		}
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("lab-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{t: t, id: filepath.Base(dir), dir: dir}
	done := l.startReaper(lock)
	t.Cleanup(func() {
		if err := revert(dir); err != nil {
			t.Errorf("laboratory not taken down: %v", err)
		}
		done()
	})
	return l
}

func baseDir() string {
	if dir := os.Getenv("LAGOON_LAB_DIR"); dir != "" {
		return dir
	}
	return os.TempDir()
}

// require skips where something is missing that no test can bring along.
func require(t testing.TB) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, name := range []string{"losetup", "mkfs.ext4"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		missing = append(missing, "loop devices")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(baseDir(), &st); err == nil && st.Type == unix.TMPFS_MAGIC {
		missing = append(missing, "a temporary directory on a disk (LAGOON_LAB_DIR)")
	}
	var cs unix.Cachestat_t
	if err := unix.Cachestat(^uint(0), &unix.CachestatRange{}, &cs, 0); err != unix.EBADF {
		missing = append(missing, "cachestat (Linux 6.5)")
	}
	if _, err := findMemory(); err != nil {
		missing = append(missing, err.Error())
	}
	if len(missing) == 0 {
		return
	}
	message := "the laboratory needs " + strings.Join(missing, ", ")
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// Dir is a directory for the test's own files; it goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// startReaper starts the process that takes the lab down should this one die. It inherits the lock, so that no other lab
// begins before it is finished. done ends it after an orderly end.
func (l *Lab) startReaper(lock *os.File) (done func()) {
	r, w, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	c := helper("reap", l.dir)
	c.Stdin, c.Stderr, c.ExtraFiles = r, os.Stderr, []*os.File{lock}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not reached by Ctrl-C
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	_ = r.Close()
	return func() {
		_ = w.Close()
		_ = c.Wait()
	}
}

// reap waits for the end of its parent and takes its lab down; there is nothing to do after an orderly end.
func reap(dir string) int {
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
	if _, err := os.Stat(dir); err != nil {
		return 0
	}
	time.Sleep(100 * time.Millisecond) // the parent's descriptors are closed one after another
	if err := revert(dir); err != nil {
		fmt.Fprintln(os.Stderr, "laboratory not taken down:", err)
		return 1
	}
	return 0
}

// helper is this test binary in another role.
func helper(role string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		c.Path = exe
	}
	c.Env = append(os.Environ(), helperEnv+"="+role)
	return c
}

// Sysctl sets a kernel parameter such as vm.dirty_bytes and restores it afterwards. Setting vm.dirty_bytes clears
// vm.dirty_ratio and the other way round; the one that counted is what is restored.
func (l *Lab) Sysctl(name, value string) {
	l.t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	restore := path
	if old := readText(l.t, path); old == "0" && strings.HasSuffix(name, "_bytes") {
		restore = strings.TrimSuffix(path, "_bytes") + "_ratio"
	}
	l.note(undo{Kind: "write", Path: restore, Value: readText(l.t, restore)})
	l.write(path, value)
}

func (l *Lab) note(u undo) {
	l.t.Helper()
	if err := note(l.dir, u); err != nil {
		l.t.Fatalf("lab journal: %v", err)
	}
}

func (l *Lab) write(path, value string) {
	l.t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		l.t.Fatalf("write %q: %v", value, err)
	}
}

func readText(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// DirectRead is what a plain sequential reader got.
type DirectRead struct {
	Bytes   int64
	Seconds float64
}

// Rate is bytes per second.
func (r DirectRead) Rate() float64 { return float64(r.Bytes) / r.Seconds }

// ReadDirect reads files one after another with O_DIRECT, 1 MiB at a time, one read in flight, inside g: the figure to
// compare a reader with.
func (l *Lab) ReadDirect(g *Cgroup, files []string) DirectRead {
	l.t.Helper()
	c := helper("read", files...)
	g.Wrap(c)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		l.t.Fatalf("direct read: %v", err)
	}
	var r DirectRead
	if err := json.Unmarshal(out, &r); err != nil || r.Bytes == 0 {
		l.t.Fatalf("direct read said %q: %v", out, err)
	}
	return r
}

func readDirect(files []string) int {
	const step = 1 << 20
	buf, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var r DirectRead
	began := time.Now()
	for _, name := range files {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, name, err)
			return 1
		}
		for off := int64(0); ; {
			n, err := unix.Pread(fd, buf, off)
			if err != nil && err != unix.EINTR {
				fmt.Fprintln(os.Stderr, name, err)
				return 1
			}
			off += int64(max(n, 0))
			r.Bytes += int64(max(n, 0))
			if err == nil && n < step {
				break
			}
		}
		_ = unix.Close(fd)
	}
	r.Seconds = time.Since(began).Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}
