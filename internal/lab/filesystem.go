package lab

import (
	"errors"
	"fmt"
	"os"
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
	opt     FSOptions
	path    string
	dev     string
	backing string // mount point of the thin storage
}

// FileSystem makes a file system and mounts it. The page cache works as on a disk; the image's own does, too.
func (l *Lab) FileSystem(o FSOptions) (*FileSystem, error) {
	f := &FileSystem{opt: o, path: filepath.Join(l.dir, o.Name)}
	image := filepath.Join(l.dir, o.Name+".img")
	if o.Thin > 0 {
		f.backing = filepath.Join(l.dir, o.Name+".thin")
		image = filepath.Join(f.backing, "image")
		if err := l.memoryFS(f.backing, o.Thin, ""); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(os.Mkdir(f.path, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, o.Bytes)); err != nil {
		return nil, err
	}
	var err error
	if f.dev, err = l.attach(image); err != nil {
		return nil, err
	}
	if o.Thin > 0 {
		if err := l.smallWrites(f.dev); err != nil {
			return nil, err
		}
	}
	args := []string{"-q", "-f", f.dev}
	if o.Type == "ext4" {
		args = []string{"-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", f.dev}
	}
	if err := errors.Join(run("mkfs."+o.Type, args...), l.note(undo{Kind: "unmount", Path: f.path})); err != nil {
		return nil, err
	}
	return f, f.Mount()
}

// smallWrites: the loop driver takes a write that went in part for one that went. A page at a time goes or does not.
func (l *Lab) smallWrites(dev string) error {
	limit := filepath.Join("/sys/block", filepath.Base(dev), "queue/max_sectors_kb")
	old, err := readText(limit)
	if err != nil {
		return err
	}
	return l.change(undo{Kind: "write", Path: limit, Value: old}, limit, "4")
}

// Path is where the file system is mounted.
func (f *FileSystem) Path() string { return f.path }

// Mount mounts it; after Cut this replays the journal, as after a power cut.
func (f *FileSystem) Mount() error {
	options := f.opt.Options
	if f.opt.Type == "ext4" {
		options = strings.TrimPrefix(options+",noinit_itable", ",")
	}
	return unix.Mount(f.dev, f.path, f.opt.Type, unix.MS_NOATIME, options)
}

// Unmount waits for processes that were just killed.
func (f *FileSystem) Unmount() error { return unmount(f.path) }

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

// FIFREEZE and FITHAW, include/uapi/linux/fs.h: _IOWR('X', 119, int) and 120.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// Freeze has the file system answer no write, until Thaw: who asks for one waits, and cannot be killed. That includes sync(2) of anybody.
func (f *FileSystem) Freeze() error { return f.ioctl(fiFreeze) }

// Thaw ends Freeze; EINVAL when it is not frozen.
func (f *FileSystem) Thaw() error { return f.ioctl(fiThaw) }

func (f *FileSystem) ioctl(request uint) error {
	d, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.IoctlSetInt(int(d.Fd()), request, 0)
}

// Grow gives thin storage more room.
func (f *FileSystem) Grow(size int64) error {
	return unix.Mount("tmpfs", f.backing, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size))
}

// Break makes ext4 find an error in itself; mounted with errors=remount-ro it is read-only from then on.
func (f *FileSystem) Break() error {
	if err := write(filepath.Join("/sys/fs/ext4", filepath.Base(f.dev), "trigger_fs_error"), "test"); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		probe, err := os.Create(filepath.Join(f.path, ".lab-probe"))
		if errors.Is(err, unix.EROFS) {
			return nil
		}
		if err == nil {
			if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return errors.New("the file system is not read-only")
		}
	}
}
