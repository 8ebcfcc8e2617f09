package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DiskOptions say what disk to make.
type DiskOptions struct {
	Name        string // part of the mount point's name
	Bytes       int64
	ReadAheadKB int // of the device; 0 means 128, Linux's default
	// Spindle puts the image behind the simulated head of package spindle.
	Spindle bool
	// InMemory keeps the image in a memory file system, all of its Bytes from the start: a disk of its own, which shares nothing with
	// the one that the laboratory's directory is on.
	InMemory bool
}

// Disk is ext4 on a loop device over a file that is opened with O_DIRECT, so the machine's page cache does not help it: in memory it
// costs one copy.
type Disk struct {
	lab   *Lab
	path  string
	mem   bool
	dev   string // /dev/loopN
	major uint32
	minor uint32
}

// Disk makes and mounts a disk.
func (l *Lab) Disk(o DiskOptions) (*Disk, error) {
	if o.ReadAheadKB == 0 {
		o.ReadAheadKB = 128
	}
	image, mount := filepath.Join(l.dir, o.Name+".img"), filepath.Join(l.dir, o.Name)
	if o.InMemory {
		backing := filepath.Join(l.dir, o.Name+".memory")
		if err := l.memoryFS(backing, o.Bytes, ",huge=within_size"); err != nil {
			return nil, err
		}
		image = filepath.Join(backing, "image")
	}
	if err := errors.Join(makeImage(image, o.Bytes, o.InMemory), os.Mkdir(mount, 0o700)); err != nil {
		return nil, err
	}
	if o.Spindle {
		served, err := l.startSpindle(o.Name, image)
		if err != nil {
			return nil, err
		}
		image = served
	}
	d := &Disk{lab: l, path: mount, mem: o.InMemory}
	var err error
	if d.dev, err = l.attach(image, "--direct-io=on"); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(d.dev, &st); err != nil {
		return nil, err
	}
	d.major, d.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	// A loop device may be used again by somebody else; its read-ahead would stay.
	ahead := d.sys("queue/read_ahead_kb")
	old, err := readText(ahead)
	if err != nil {
		return nil, err
	}
	if err := l.change(undo{Kind: "write", Path: ahead, Value: old}, ahead, strconv.Itoa(o.ReadAheadKB)); err != nil {
		return nil, err
	}
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", d.dev); err != nil {
		return nil, err
	}
	if err := l.note(undo{Kind: "unmount", Path: mount}); err != nil {
		return nil, err
	}
	if err := unix.Mount(d.dev, mount, "ext4", unix.MS_NOATIME, "noinit_itable"); err != nil {
		return nil, fmt.Errorf("mount %s: %w", d.dev, err)
	}
	return d, l.note(undo{Kind: "discard", Path: mount})
}

// attach makes a loop device over an image.
func (l *Lab) attach(image string, options ...string) (dev string, err error) {
	if err := l.note(undo{Kind: "detach", Path: image}); err != nil {
		return "", err
	}
	c := exec.Command("losetup", append(append([]string{"--find", "--show"}, options...), image)...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("losetup %s: %w: %s", image, err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// makeImage reserves the bytes of an image. Those in memory are written, too: a page costs most when it is used for the first time
// (on a virtual machine, more than the throttle of a slow disk), and it is charged to the memory group of who does that.
func makeImage(name string, size int64, written bool) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	if !written {
		return nil
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// memoryFS mounts a memory file system with room for size bytes. options begin with a comma; huge pages are fewer pieces to copy.
func (l *Lab) memoryFS(path string, size int64, options string) error {
	if err := errors.Join(os.Mkdir(path, 0o700), l.note(undo{Kind: "unmount", Path: path})); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d%s", size, options)); err != nil {
		return fmt.Errorf("mount a memory file system on %s: %w", path, err)
	}
	return nil
}

// Path is where the disk is mounted.
func (d *Disk) Path() string { return d.path }

func (d *Disk) sys(name string) string {
	return filepath.Join("/sys/block", filepath.Base(d.dev), name)
}

// ReadBytes is what the device has read since it was attached, for whomever and by whatever way.
func (d *Disk) ReadBytes() int64 { return d.counter(2) }

// WrittenBytes is what was written to the device.
func (d *Disk) WrittenBytes() int64 { return d.counter(6) }

// counter is a field of the device's statistics in sectors of 512 bytes.
// Source: https://docs.kernel.org/block/stat.html
func (d *Disk) counter(field int) int64 {
	b, err := os.ReadFile(d.sys("stat"))
	if err != nil {
		return -1
	}
	fields := strings.Fields(string(b))
	if len(fields) <= field {
		return -1
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil {
		return -1
	}
	return n * 512
}

// Throttle is a limit per second; 0 is none.
type Throttle struct{ ReadBytes, WriteBytes, ReadOps, WriteOps int64 }

// Throttle makes the disk slow for the processes in g (cgroup v2), or for everybody (v1, where buffered writes are charged
// to the root group). The zero Throttle lifts it.
func (d *Disk) Throttle(t Throttle, g *Cgroup) error {
	id := fmt.Sprintf("%d:%d", d.major, d.minor)
	if root, ok := v1Root("blkio"); ok {
		for name, limit := range map[string]int64{
			"read_bps": t.ReadBytes, "write_bps": t.WriteBytes, "read_iops": t.ReadOps, "write_iops": t.WriteOps,
		} {
			file := filepath.Join(root, "blkio.throttle."+name+"_device")
			if err := d.lab.change(undo{Kind: "write", Path: file, Value: id + " 0"}, file, fmt.Sprintf("%s %d", id, limit)); err != nil {
				return err
			}
		}
		return nil
	}
	value := func(n int64) string {
		if n == 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	return write(filepath.Join(g.path, "io.max"), fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s",
		id, value(t.ReadBytes), value(t.WriteBytes), value(t.ReadOps), value(t.WriteOps)))
}

// Device is the block device, such as /dev/loop3.
func (d *Disk) Device() string { return d.dev }

// InMemory tells whether the device's bytes lie in memory.
func (d *Disk) InMemory() bool { return d.mem }

// Sync makes everything on the disk clean.
func (d *Disk) Sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
