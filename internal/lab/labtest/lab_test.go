package labtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
	sleeper := exec.Command("sleep", "60") // must be killed with its group
	if path, err := exec.LookPath("sleep"); err == nil {
		sleeper.Path = path
	}
	g.Wrap(sleeper)
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = sleeper.Wait() }()
	return []string{file, turning, l.Dir(), g.Procs(), "/proc/" + strconv.Itoa(sleeper.Process.Pid) + "/exe"}
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
