package labtest

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"lagoon/internal/lab"
)

// Main is TestMain of a package that uses labs.
func Main(m *testing.M) {
	if code, helper := lab.RunHelper(); helper {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// Lab is a laboratory of a test. Its methods fail the test instead of returning an error.
type Lab struct {
	*lab.Lab
	t testing.TB
}

// New waits for other labs on this machine to end and opens one.
func New(t testing.TB) *Lab {
	t.Helper()
	if missing := lab.Missing(); len(missing) > 0 {
		need(t, strings.Join(missing, ", "))
	}
	inner, err := lab.Open(t.Context(), t.Output())
	must(t, err)
	t.Cleanup(func() {
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Lab{Lab: inner, t: t}
}

// need skips the test, or fails it where everything has to run.
func need(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatalf("%s is required", what)
	}
	t.Skipf("the laboratory needs %s", what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Disk is a disk of a test's lab.
type Disk struct {
	*lab.Disk
	t testing.TB
}

// Disk makes and mounts a disk.
func (l *Lab) Disk(o lab.DiskOptions) *Disk {
	l.t.Helper()
	d, err := l.Lab.Disk(o)
	must(l.t, err)
	return &Disk{Disk: d, t: l.t}
}

// Throttle makes the disk slow; the zero Throttle lifts it.
func (d *Disk) Throttle(t lab.Throttle, g *lab.Cgroup) {
	d.t.Helper()
	must(d.t, d.Disk.Throttle(t, g))
}

// Sync makes everything on the disk clean.
func (d *Disk) Sync() {
	d.t.Helper()
	must(d.t, d.Disk.Sync())
}

// Cgroup makes a group whose memory is limited; 0 is no limit.
func (l *Lab) Cgroup(memoryBytes int64) *lab.Cgroup {
	l.t.Helper()
	g, err := l.Lab.Cgroup(memoryBytes)
	must(l.t, err)
	return g
}

// Sysctl sets a kernel parameter for the time of the lab.
func (l *Lab) Sysctl(name, value string) {
	l.t.Helper()
	must(l.t, l.Lab.Sysctl(name, value))
}

// ReadDirect is what a plain sequential reader in g gets.
func (l *Lab) ReadDirect(g *lab.Cgroup, files []string) lab.DirectRead {
	l.t.Helper()
	r, err := l.Lab.ReadDirect(g, files)
	must(l.t, err)
	return r
}

// FileSystem is a file system of a test's lab.
type FileSystem struct {
	*lab.FileSystem
	t testing.TB
}

// FileSystem makes a file system and mounts it.
func (l *Lab) FileSystem(o lab.FSOptions) *FileSystem {
	l.t.Helper()
	if _, err := exec.LookPath("mkfs." + o.Type); err != nil {
		need(l.t, "mkfs."+o.Type)
	}
	f, err := l.Lab.FileSystem(o)
	must(l.t, err)
	return &FileSystem{FileSystem: f, t: l.t}
}

// Mount mounts it again.
func (f *FileSystem) Mount() {
	f.t.Helper()
	must(f.t, f.FileSystem.Mount())
}

// Unmount waits for processes that were just killed.
func (f *FileSystem) Unmount() {
	f.t.Helper()
	must(f.t, f.FileSystem.Unmount())
}

// Freeze has the file system answer no write until thaw is called, or the test ends.
func (f *FileSystem) Freeze() (thaw func()) {
	f.t.Helper()
	must(f.t, f.FileSystem.Freeze())
	thaw = sync.OnceFunc(func() { must(f.t, f.FileSystem.Thaw()) })
	f.t.Cleanup(thaw)
	return thaw
}

// Grow gives thin storage more room.
func (f *FileSystem) Grow(size int64) {
	f.t.Helper()
	must(f.t, f.FileSystem.Grow(size))
}

// Break makes ext4 find an error in itself.
func (f *FileSystem) Break() {
	f.t.Helper()
	must(f.t, f.FileSystem.Break())
}
