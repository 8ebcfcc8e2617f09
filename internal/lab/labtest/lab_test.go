package labtest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const doomedEnv = "LAGOON_LAB_DOOMED" // where the doomed lab writes what it made

// build makes one of everything, and lists what there is to take away: paths that must not exist afterwards.
func build(t *testing.T, l *labtest.Lab) []string {
	d := l.Disk(lab.DiskOptions{Name: "d", Bytes: 64 << 20})
	g := l.Cgroup(64 << 20)
	d.Throttle(lab.Throttle{ReadBytes: 1 << 20}, g)
	file := filepath.Join(d.Path(), "f")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Sync()
	if p, err := lab.Cached(file, 4096, -1); err != nil || p.Total != 255 || p.Dirty != 0 {
		t.Errorf("after a write: %+v, %v", p, err)
	}
	if err := lab.Evict(file); err != nil {
		t.Error(err)
	}
	if p, err := lab.Cached(file, 0, -1); err != nil || p.Resident != 0 {
		t.Errorf("after eviction: %+v, %v", p, err)
	}
	before := d.ReadBytes()
	if r := l.ReadDirect(g, []string{file}); r.Bytes != 1<<20 || d.ReadBytes()-before < 1<<20 {
		t.Errorf("direct read of %d bytes, device read %d", r.Bytes, d.ReadBytes()-before)
	}
	slow := l.Disk(lab.DiskOptions{Name: "s", Bytes: 64 << 20, Spindle: true})
	turning := filepath.Join(slow.Path(), "f")
	if err := os.WriteFile(turning, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	backing := quick(t, l)
	sleeper := exec.Command("sleep", "60") // must be killed with its group
	if path, err := exec.LookPath("sleep"); err == nil {
		sleeper.Path = path
	}
	g.Wrap(sleeper)
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = sleeper.Wait() }()
	return []string{file, turning, backing, l.Dir(), g.Procs(), "/proc/" + strconv.Itoa(sleeper.Process.Pid) + "/exe"}
}

// quick makes a disk in memory, whose bytes come from the device as they were written and lie where the lab's directory is not.
func quick(t *testing.T, l *labtest.Lab) (image string) {
	const size = 64 << 20
	d := l.Disk(lab.DiskOptions{Name: "m", Bytes: size, InMemory: true})
	want := bytes.Repeat([]byte("in memory "), 100_000)
	file := filepath.Join(d.Path(), "f")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Sync()
	if err := lab.Evict(file); err != nil {
		t.Error(err)
	}
	before := d.ReadBytes()
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) || d.ReadBytes()-before < int64(len(want)) {
		t.Errorf("read %d bytes, %v; the device read %d", len(got), err, d.ReadBytes()-before)
	}
	image = filepath.Join(l.Dir(), "m.memory", "image")
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Stat(image, &st), unix.Statfs(image, &fs)); err != nil || fs.Type != unix.TMPFS_MAGIC || st.Blocks*512 < size {
		t.Errorf("image: file system %#x, %d blocks, %v; want all of it in a memory file system", fs.Type, st.Blocks, err)
	}
	return image
}

func gone(paths []string) (left []string) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			left = append(left, p)
		}
	}
	return left
}

// TestNothingStays takes about 2 s.
func TestNothingStays(t *testing.T) {
	var made []string
	t.Run("lab", func(t *testing.T) { made = build(t, labtest.New(t)) })
	if left := gone(made); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestNothingStaysAfterKill: the same when the test binary is killed.
func TestNothingStaysAfterKill(t *testing.T) {
	possible := false
	if report := os.Getenv(doomedEnv); report != "" {
		if err := os.WriteFile(report, []byte(strings.Join(build(t, labtest.New(t)), "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	t.Run("possible", func(t *testing.T) { labtest.New(t); possible = true })
	if !possible && os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatal("no lab can be made here")
	}
	if !possible {
		t.Skip("no lab can be made here")
	}
	report := filepath.Join(t.TempDir(), "made")
	c := exec.Command(os.Args[0], "-test.run=^TestNothingStaysAfterKill$")
	c.Env = append(os.Environ(), doomedEnv+"="+report)
	out, err := c.CombinedOutput()
	made, reportErr := os.ReadFile(report)
	if err == nil || reportErr != nil {
		t.Fatalf("the doomed lab: %v, %v\n%s", err, reportErr, out)
	}
	labtest.New(t) // waits for the reaper, which holds the lock
	if left := gone(strings.Split(string(made), "\n")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
