package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/vfs"
)

func TestOSRoot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := vfs.OS(file); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as root: %v", err)
	}
	if _, err := vfs.OS(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing root: %v", err)
	}
	if _, err := vfs.OS(""); err == nil {
		t.Error("an empty root was accepted")
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(t.TempDir(), link))
	fsys, err := vfs.OS(link + "/")
	must(t, err)
	if fsys.Root() != link {
		t.Errorf("Root = %q", fsys.Root())
	}
	must(t, vfs.WriteFileAtomic(fsys, "a", []byte("x")))
}

// A root that was moved away, as when a disk is unmounted and remounted elsewhere, is still the same tree.
func TestOSRootPinned(t *testing.T) {
	dir := t.TempDir()
	root, moved := filepath.Join(dir, "root"), filepath.Join(dir, "moved")
	must(t, os.Mkdir(root, 0o700))
	fsys, err := vfs.OS(root)
	must(t, err)
	must(t, os.Rename(root, moved))
	must(t, os.Mkdir(root, 0o700))
	must(t, vfs.WriteFileAtomic(fsys, "a", nil))
	if _, err := os.Stat(filepath.Join(moved, "a")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that took the root's place was written to (%v)", err)
	}
}

func TestOSRefusesLinks(t *testing.T) {
	fsys, outside := newOS(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	must(t, fsys.MkdirAll("inside"))
	must(t, vfs.WriteFileAtomic(fsys, "inside/a", nil))
	for name, target := range map[string]string{
		"absolute": outside, "relative": "../" + filepath.Base(outside), "inner": "inside", "dangling": "nowhere",
		"file": filepath.Join(outside, "secret"), "self": "self",
	} {
		must(t, os.Symlink(target, filepath.Join(fsys.Root(), name)))
		for what, err := range map[string]error{
			"open":         open(fsys, name, vfs.ReadOnly),
			"open write":   open(fsys, name, vfs.ReadWrite),
			"open direct":  open(fsys, name, vfs.Direct),
			"open sync":    open(fsys, name, vfs.DirectSync),
			"open below":   open(fsys, name+"/secret", vfs.ReadOnly),
			"create below": create(fsys, name+"/new"),
			"rename to":    fsys.Rename("inside/a", name+"/a"),
			"remove below": fsys.Remove(name + "/secret"),
			"list":         list(fsys, name),
			"sync":         fsys.SyncDir(name),
			"mkdir":        fsys.MkdirAll(name),
			"mkdir below":  fsys.MkdirAll(name + "/sub"),
			"lock":         lock(fsys, name),
		} {
			if !errors.Is(err, vfs.ErrEscape) {
				t.Errorf("%s %s: %v, want ErrEscape", what, name, err)
			}
		}
		if err := create(fsys, name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v", name, err)
		}
		e, err := fsys.Stat(name)
		if err != nil || e.Dir || e.Regular {
			t.Errorf("Stat %s = %+v, %v", name, e, err)
		}
		must(t, fsys.Remove(name)) // the link, not what it points to
	}
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside holds %v, %v", entries, err)
	}
}

func TestOSRefusesSpecialFiles(t *testing.T) {
	fsys := newOS(t)
	must(t, unix.Mkfifo(filepath.Join(fsys.Root(), "fifo"), 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(fsys.Root(), "sock")}))
	special := []string{"fifo", "sock"}
	if unix.Mknod(filepath.Join(fsys.Root(), "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) == nil { // root only
		special = append(special, "null")
	}
	for _, name := range special {
		for _, mode := range []vfs.Mode{vfs.ReadOnly, vfs.ReadWrite} {
			if err := open(fsys, name, mode); !errors.Is(err, vfs.ErrNotRegular) {
				t.Errorf("open %s in mode %d: %v, want ErrNotRegular", name, mode, err)
			}
		}
		if err := lock(fsys, name); !errors.Is(err, vfs.ErrNotRegular) {
			t.Errorf("lock %s: %v", name, err)
		}
		if e, err := fsys.Stat(name); err != nil || e.Dir || e.Regular {
			t.Errorf("Stat %s = %+v, %v", name, e, err)
		}
	}
}

func TestOSPermissions(t *testing.T) {
	fsys := newOS(t)
	must(t, fsys.MkdirAll("a/b"))
	must(t, create(fsys, "a/b/file"))
	must(t, lock(fsys, "a/b/lock"))
	for name, want := range map[string]fs.FileMode{
		"a": 0o700 | fs.ModeDir, "a/b": 0o700 | fs.ModeDir, "a/b/file": 0o600, "a/b/lock": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(fsys.Root(), name)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
}

// Owners who remove the lock file when they are done: one that waited on the removed inode must not believe that it
// holds the lock while another holds the one of the new file.
func TestOSLockReplaced(t *testing.T) {
	fsys := newOS(t)
	var holders atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for got := 0; got < 500; {
				l, err := fsys.Lock(".lock")
				if errors.Is(err, vfs.ErrLocked) {
					runtime.Gosched()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				got++
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d holders", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				if err := errors.Join(fsys.Remove(".lock"), l.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOSFd(t *testing.T) {
	fsys := newOS(t)
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	fd, ok := f.Fd()
	if !ok {
		t.Fatal("no descriptor")
	}
	_, err = f.WriteAt([]byte("abc"), 0)
	must(t, err)
	buf := make([]byte, 3)
	if n, err := unix.Pread(int(fd), buf, 0); n != 3 || err != nil || string(buf) != "abc" {
		t.Errorf("pread by descriptor = %d, %v", n, err)
	}
	must(t, f.Allocate(0, 1<<20))
	var st unix.Stat_t
	must(t, unix.Fstat(int(fd), &st))
	if st.Size != 3 || st.Blocks*512 < 1<<20 {
		t.Errorf("after Allocate: size %d, %d blocks", st.Size, st.Blocks)
	}
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	must(t, err)
	if flags&(unix.O_NONBLOCK|unix.O_APPEND) != 0 {
		t.Errorf("flags %#x", flags)
	}
}

func TestOSUsage(t *testing.T) {
	fsys := newOS(t)
	got, err := fsys.Usage()
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Statfs(fsys.Root(), &st))
	reserve := int64(st.Bfree-st.Bavail) * st.Frsize
	if want := int64(st.Blocks)*st.Frsize - reserve; got.TotalBytes != want {
		t.Errorf("TotalBytes = %d, want %d", got.TotalBytes, want)
	}
	if got.TotalInodes != int64(st.Files) {
		t.Errorf("TotalInodes = %d, want %d", got.TotalInodes, st.Files)
	}
}

func open(fsys vfs.FS, name string, mode vfs.Mode) error {
	f, err := fsys.Open(name, mode)
	if err == nil {
		err = f.Close()
	}
	return err
}

func create(fsys vfs.FS, name string) error {
	f, err := fsys.Create(name)
	if err == nil {
		err = f.Close()
	}
	return err
}

func list(fsys vfs.FS, dir string) error {
	_, err := fsys.List(dir)
	return err
}

func lock(fsys vfs.FS, name string) error {
	l, err := fsys.Lock(name)
	if err == nil {
		err = l.Close()
	}
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
