package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FSOptions say what file system to make.
type FSOptions struct {
	Name  string // part of the mount point's name
	Type  string // ext4 or xfs
	Bytes int64  // xfs needs 300 MiB; the image is sparse
	// Thin puts the image into a memory file system of that many bytes, 0: an ordinary file. Less than Bytes is thin storage: it
	// runs full below the file system, which finds out when it writes back.
	Thin int64
	// Options of the mount, such as errors=remount-ro.
	Options string
}

// FileSystem is a file system on a loop device that can be cut off, mounted again, filled below, and broken.
type FileSystem struct {
	lab     *Lab
	opt     FSOptions
	path    string
	dev     string
	backing string // mount point of the thin storage
}

// FileSystem makes a file system and mounts it. The page cache works as on a disk; the image's own does, too.
func (l *Lab) FileSystem(o FSOptions) *FileSystem {
	l.t.Helper()
	if _, err := exec.LookPath("mkfs." + o.Type); err != nil {
		l.missing("mkfs." + o.Type)
	}
	f := &FileSystem{lab: l, opt: o, path: filepath.Join(l.dir, o.Name)}
	image := filepath.Join(l.dir, o.Name+".img")
	if o.Thin > 0 {
		f.backing = filepath.Join(l.dir, o.Name+".thin")
		l.must(os.Mkdir(f.backing, 0o700))
		l.note(undo{Kind: "unmount", Path: f.backing})
		l.must(unix.Mount("tmpfs", f.backing, "tmpfs", 0, fmt.Sprintf("size=%d", o.Thin)))
		image = filepath.Join(f.backing, "image")
	}
	l.must(os.Mkdir(f.path, 0o700))
	img, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	l.must(err)
	l.must(errors.Join(img.Truncate(o.Bytes), img.Close()))
	l.note(undo{Kind: "detach", Path: image})
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		l.t.Fatalf("losetup: %v", err)
	}
	f.dev = strings.TrimSpace(string(out))
	if o.Thin > 0 {
		// The loop driver takes a write that went in part for one that went. A page at a time goes or does not.
		limit := filepath.Join("/sys/block", filepath.Base(f.dev), "queue/max_sectors_kb")
		l.note(undo{Kind: "write", Path: limit, Value: readText(l.t, limit)})
		l.write(limit, "4")
	}
	args := []string{"-q", "-f", f.dev}
	if o.Type == "ext4" {
		args = []string{"-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", f.dev}
	}
	l.must(run("mkfs."+o.Type, args...))
	l.note(undo{Kind: "unmount", Path: f.path})
	f.Mount()
	return f
}

// missing skips the test, or fails it where everything has to run.
func (l *Lab) missing(what string) {
	l.t.Helper()
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		l.t.Fatalf("%s is required", what)
	}
	l.t.Skipf("needs %s", what)
}

// Path is where the file system is mounted.
func (f *FileSystem) Path() string { return f.path }

// Mount mounts it; after Cut this replays the journal, as after a power cut.
func (f *FileSystem) Mount() {
	f.lab.t.Helper()
	options := f.opt.Options
	if f.opt.Type == "ext4" {
		options = strings.TrimPrefix(options+",noinit_itable", ",")
	}
	f.lab.must(unix.Mount(f.dev, f.path, f.opt.Type, unix.MS_NOATIME, options))
}

// Unmount waits for processes that were just killed.
func (f *FileSystem) Unmount() {
	f.lab.t.Helper()
	f.lab.must(unmount(f.path))
}

// Flags of FS_IOC_SHUTDOWN, include/uapi/linux/fs.h: what becomes of the journal that is in memory.
const (
	CutLogFlush   = 1 // it is written, data are not
	CutNoLogFlush = 2 // nothing more is written
)

// fsIocShutdown is _IOR('X', 125, __u32).
const fsIocShutdown = 0x8004587d

// Cut stops the file system as a power cut does: nothing more reaches the device, every call fails from now on.
func (f *FileSystem) Cut(flag uint32) error {
	d, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.IoctlSetPointerInt(int(d.Fd()), fsIocShutdown, int(flag))
}

// Grow gives thin storage more room.
func (f *FileSystem) Grow(size int64) {
	f.lab.t.Helper()
	f.lab.must(unix.Mount("tmpfs", f.backing, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)))
}

// Break makes ext4 find an error in itself; mounted with errors=remount-ro it is read-only from then on.
func (f *FileSystem) Break() {
	f.lab.t.Helper()
	f.lab.write(filepath.Join("/sys/fs/ext4", filepath.Base(f.dev), "trigger_fs_error"), "test")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		probe, err := os.Create(filepath.Join(f.path, ".lab-probe"))
		if errors.Is(err, unix.EROFS) {
			return
		}
		if err == nil {
			f.lab.must(errors.Join(probe.Close(), os.Remove(probe.Name())))
		}
		if time.Now().After(deadline) {
			f.lab.t.Fatal("the file system is not read-only")
		}
	}
}
