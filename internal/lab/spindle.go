package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"lagoon/internal/lab/spindle"
)

const (
	spindleFile = "disk"
	// The largest request that FUSE passes on, include/linux/fuse: 256 pages. Larger ones would be split here or there.
	spindleRequest = 1 << 20
	// More than the drive's queue, so that its elevator sees what a real one would.
	spindleInFlight = 64
)

// startSpindle serves image at the pace of a disk with one head, from a process that dies with this one, and returns the path of
// what it serves.
func (l *Lab) startSpindle(name, image string) (string, error) {
	mount := filepath.Join(l.dir, name+".spindle")
	if err := errors.Join(os.Mkdir(mount, 0o700), l.note(undo{Kind: "unmount", Path: mount})); err != nil {
		return "", err
	}
	c := helper("spindle", image, mount)
	c.Stderr = os.Stderr
	// Setsid: Ctrl-C must not end the disk before those who use it.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", err
	}
	go func() { _ = c.Wait() }() // it ends when it is unmounted
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", fmt.Errorf("the simulated disk did not start (it says why above; is /dev/fuse there?): %q, %w", line, err)
	}
	return filepath.Join(mount, spindleFile), nil
}

// serveSpindle is the process that serves image below mount until it is unmounted.
func serveSpindle(image, mount string) int {
	err := func() error {
		fd, err := unix.Open(image, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		drive, err := newDrive(spindle.Desktop(st.Size))
		if err != nil {
			return err
		}
		root := &spindleRoot{file: &platter{fd: fd, size: st.Size, drive: drive, buffers: sync.Pool{New: alignedBuffer}}}
		forever := time.Hour
		server, err := fs.Mount(mount, root, &fs.Options{
			EntryTimeout: &forever, AttrTimeout: &forever,
			MountOptions: fuse.MountOptions{
				FsName: "lagoon-lab", Name: "spindle", DirectMountStrict: true, DisableXAttrs: true, DisableSplice: true,
				MaxWrite: spindleRequest, MaxBackground: spindleInFlight, CongestionThreshold: spindleInFlight,
				ExtraCapabilities: fuse.CAP_ASYNC_DIO,
			},
		})
		if err != nil {
			return fmt.Errorf("mount %s: %w", mount, err)
		}
		fmt.Println("ready")
		server.Wait()
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulated disk:", err)
		return 1
	}
	return 0
}

// spindleRoot is the directory with the one file.
type spindleRoot struct {
	fs.Inode
	file *platter
}

func (r *spindleRoot) OnAdd(ctx context.Context) {
	r.AddChild(spindleFile, r.NewPersistentInode(ctx, r.file, fs.StableAttr{Mode: syscall.S_IFREG}), true)
}

// platter is the file: the image's bytes at the drive's pace.
type platter struct {
	fs.Inode
	fd      int
	size    int64
	drive   *drive
	buffers sync.Pool // of *[]byte, aligned for O_DIRECT: the page cache must not help, nor its dirty limits hinder
}

// alignedBuffer: a Go allocation of a mebibyte starts at a page.
func alignedBuffer() any {
	b := make([]byte, spindleRequest)
	return &b
}

func (p *platter) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(p.size), 4096
	return 0
}

func (p *platter) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

// Read and Write move the bytes while the drive counts the time. Requests come from a loop device: whole sectors, at most
// spindleRequest bytes.
func (p *platter) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	done := p.drive.submit(spindle.Read, off, int64(len(dest)))
	buf := p.buffers.Get().(*[]byte)
	n, err := unix.Pread(p.fd, (*buf)[:len(dest)], off)
	copy(dest, (*buf)[:max(n, 0)])
	p.buffers.Put(buf)
	<-done
	return fuse.ReadResultData(dest[:max(n, 0)]), fs.ToErrno(err)
}

func (p *platter) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	done := p.drive.submit(spindle.Write, off, int64(len(data)))
	buf := p.buffers.Get().(*[]byte)
	copy(*buf, data)
	n, err := unix.Pwrite(p.fd, (*buf)[:len(data)], off)
	p.buffers.Put(buf)
	<-done
	return uint32(max(n, 0)), fs.ToErrno(err)
}

// Fsync is the drive's flush. The image is not synced: no power is cut here.
func (p *platter) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	<-p.drive.submit(spindle.Flush, 0, 0)
	return 0
}

func (p *platter) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

// drive runs the model against the clock.
type drive struct {
	began time.Time
	kick  int // eventfd: there is something earlier to wait for

	mu      sync.Mutex
	model   *spindle.Disk
	id      uint64
	waiting map[uint64]chan struct{}
	wake    time.Duration // what the clock's thread sleeps for; 0: nothing
}

func newDrive(p spindle.Params) (*drive, error) {
	kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	d := &drive{began: time.Now(), kick: kick, model: spindle.New(p), waiting: map[uint64]chan struct{}{}}
	go d.run()
	return d, nil
}

// submit hands a request to the model; the channel is closed when it is done.
func (d *drive) submit(op spindle.Op, pos, n int64) <-chan struct{} {
	done := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id++
	d.waiting[d.id] = done
	d.model.Submit(time.Since(d.began), d.id, op, pos, n)
	if at, ok := d.model.Next(); ok && (d.wake == 0 || at < d.wake) {
		_, _ = unix.Write(d.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // a full counter is a kick, too
	}
	return done
}

// run answers requests when they are due. It has a thread of its own and sleeps in ppoll: the runtime's timers come up to a
// millisecond late, a quarter of a turn of the platter.
func (d *drive) run() {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // the default is 50 µs
	fds := []unix.PollFd{{Fd: int32(d.kick), Events: unix.POLLIN}}
	var counter [8]byte
	for {
		var timeout *unix.Timespec
		if wait, ok := d.answer(); ok {
			ts := unix.NsecToTimespec(int64(max(wait, 0)))
			timeout = &ts
		}
		if n, _ := unix.Ppoll(fds, timeout, nil); n > 0 {
			_, _ = unix.Read(d.kick, counter[:])
		}
	}
}

// answer releases who is done and tells how long to wait for the next.
func (d *drive) answer() (wait time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Since(d.began)
	for _, id := range d.model.Advance(now) {
		close(d.waiting[id])
		delete(d.waiting, id)
	}
	d.wake, ok = d.model.Next()
	if !ok {
		d.wake = 0
	}
	return d.wake - now, ok
}
