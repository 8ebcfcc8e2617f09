package readpath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/lab"
)

// Options say what is measured.
type Options struct {
	Dir       string        // where the file is made
	FileBytes int64         // a multiple of the sizes
	Sizes     []int64       // of a piece, a multiple of 4 KiB
	Methods   []string      // names
	Cell      time.Duration // longest time of one pass
	Sink      []string      // program and arguments that call Sink; the address is added
}

// Validate tells what is wrong with options.
func (o *Options) Validate() error {
	var errs []error
	for _, name := range o.Methods {
		_, err := find(name)
		errs = append(errs, err)
	}
	if len(o.Sizes) == 0 || len(o.Methods) == 0 {
		errs = append(errs, errors.New("there must be at least one size and one method"))
	}
	for _, n := range o.Sizes {
		if n < 4096 || n%4096 != 0 || n > 64<<20 || o.FileBytes%n != 0 {
			errs = append(errs, fmt.Errorf("size %d: want a multiple of 4 KiB up to 64 MiB that divides the file's %d bytes", n, o.FileBytes))
		}
	}
	if o.Cell <= 0 {
		errs = append(errs, fmt.Errorf("%v for a figure: want more than nothing", o.Cell))
	}
	if o.FileBytes <= 0 || o.FileBytes > 64<<30 {
		errs = append(errs, fmt.Errorf("file of %d bytes: want up to 64 GiB", o.FileBytes))
	}
	return errors.Join(errs...)
}

// Cost is what one way costs per piece.
type Cost struct {
	CPUMicros  float64 `json:"cpu_us"`
	WallMicros float64 `json:"wall_us"`
	MBps       float64 `json:"mb_s"`
	LeftRatio  float64 `json:"left_ratio"` // of the bytes that were sent, in the page cache afterwards
}

// Row is one method at one size; a method that the machine lacks has the reason.
type Row struct {
	Size   int64  `json:"size_bytes"`
	Method string `json:"method"`
	Warm   Cost   `json:"resident"`
	Cold   Cost   `json:"not_resident"`
	Absent string `json:"absent,omitempty"`
}

// Result is a whole table.
type Result struct {
	Kernel     string `json:"kernel"`
	CPUs       int    `json:"cpus"`
	FileSystem string `json:"file_system_magic"`
	FileBytes  int64  `json:"file_bytes"`
	Rows       []Row  `json:"rows"`
}

// Run measures.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	b := &bench{opt: o}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	result = &Result{Kernel: kernel(), CPUs: runtime.NumCPU(), FileBytes: o.FileBytes}
	var st unix.Statfs_t
	if err := unix.Statfs(o.Dir, &st); err != nil {
		return nil, err
	}
	result.FileSystem = fmt.Sprintf("%#x", st.Type)
	// The thread's clock is read: it must stay the same thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, size := range o.Sizes {
		for _, name := range o.Methods {
			m, err := find(name)
			if err != nil {
				return nil, err
			}
			row, err := b.row(ctx, m, int(size))
			if err != nil {
				return nil, fmt.Errorf("%s of %d bytes: %w", name, size, err)
			}
			result.Rows = append(result.Rows, row)
		}
	}
	return result, nil
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// bench is what the passes share.
type bench struct {
	opt  Options
	name string
	buf  []byte
	sock int
	sink *exec.Cmd
}

func (b *bench) open(ctx context.Context) error {
	b.sock = -1
	f, err := os.CreateTemp(b.opt.Dir, "lagoon-readpath-")
	if err != nil {
		return err
	}
	b.name = f.Name()
	if err := errors.Join(fill(ctx, f, b.opt.FileBytes), f.Sync(), f.Close()); err != nil {
		return err
	}
	largest := 4096
	for _, n := range b.opt.Sizes {
		largest = max(largest, int(n))
	}
	if b.buf, err = unix.Mmap(-1, 0, largest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil { // aligned
		return err
	}
	return b.connect(ctx)
}

func fill(ctx context.Context, f *os.File, n int64) error {
	piece := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(piece) // it does not fail
	for pos := int64(0); pos < n; pos += int64(len(piece)) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := f.Write(piece[:min(int64(len(piece)), n-pos)]); err != nil {
			return err
		}
	}
	return nil
}

// connect starts the sink and waits for it.
func (b *bench) connect(ctx context.Context) error {
	// As Lagoon's listener on loopback does: bbr would pace within the machine, at a timer's cost per packet (docs/benchmarks.md).
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
		return errors.Join(err, set)
	}}
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	args := append(b.opt.Sink[1:len(b.opt.Sink):len(b.opt.Sink)], listener.Addr().String())
	b.sink = exec.Command(b.opt.Sink[0], args...)
	b.sink.Stderr = os.Stderr
	b.sink.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.sink.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	conn, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("the receiving process: %w", err)
	}
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File() // a descriptor of our own, which blocks
	if err != nil {
		return err
	}
	defer f.Close()
	if b.sock, err = unix.Dup(int(f.Fd())); err != nil {
		return err
	}
	return unix.SetNonblock(b.sock, false)
}

func (b *bench) close() error {
	var errs []error
	if b.sock >= 0 {
		errs = append(errs, unix.Close(b.sock))
	}
	if b.sink != nil && b.sink.Process != nil {
		_ = b.sink.Process.Kill() // the end of the connection ends it, too
		_ = b.sink.Wait()
	}
	if b.name != "" {
		errs = append(errs, os.Remove(b.name))
	}
	return errors.Join(errs...)
}

// Sink is the receiving process: it drops what comes until the connection ends.
func Sink(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	buf := make([]byte, 4<<20)
	for {
		// MSG_TRUNC: the kernel drops the bytes instead of copying them, tcp(7).
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

const passes = 3

func (b *bench) row(ctx context.Context, m method, size int) (Row, error) {
	row := Row{Size: int64(size), Method: m.name}
	for _, cold := range []bool{false, true} {
		best := Cost{}
		for pass := range passes {
			if ctx.Err() != nil {
				return row, ctx.Err()
			}
			c, err := b.pass(m, size, cold)
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
				row.Absent = err.Error()
				return row, nil
			}
			if err != nil {
				return row, err
			}
			if pass == 0 || c.CPUMicros < best.CPUMicros {
				best = c
			}
		}
		if cold {
			row.Cold = best
		} else {
			row.Warm = best
		}
	}
	return row, nil
}

// pass sends the file once, or as much of it as the cell's time allows.
func (b *bench) pass(m method, size int, cold bool) (c Cost, err error) {
	if err := b.prepare(cold); err != nil {
		return c, err
	}
	p := &path{sock: b.sock, size: b.opt.FileBytes, buf: b.buf}
	if p.file, err = unix.Open(b.name, unix.O_RDONLY|unix.O_CLOEXEC|m.flags, 0); err != nil {
		return c, err
	}
	defer unix.Close(p.file)
	if m.begin != nil {
		if err := m.begin(p); err != nil {
			return c, err
		}
	}
	began, cpu := time.Now(), threadTime()
	sent := int64(0)
	for sent < b.opt.FileBytes && time.Since(began) < b.opt.Cell && err == nil {
		err = m.send(p, sent, size)
		sent += int64(size)
	}
	cpu, wall := threadTime()-cpu, time.Since(began)
	if m.end != nil {
		err = errors.Join(err, m.end(p))
	}
	if err != nil {
		return c, err
	}
	left, err := lab.Cached(b.name, 0, sent)
	pieces := float64(sent / int64(size))
	return Cost{
		CPUMicros: cpu.Seconds() * 1e6 / pieces, WallMicros: wall.Seconds() * 1e6 / pieces,
		MBps: float64(sent) / wall.Seconds() / 1e6, LeftRatio: left.Ratio(),
	}, err
}

// prepare makes the file cold or warm.
func (b *bench) prepare(cold bool) error {
	if err := lab.Evict(b.name); err != nil || cold {
		return err
	}
	f, err := os.Open(b.name)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return errors.Join(err, f.Close())
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Text is the table for people.
func (r *Result) Text(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, %d CPUs, file of %d MiB on file system %s; per piece, best of %d\n\n", r.Kernel, r.CPUs, r.FileBytes>>20, r.FileSystem, passes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t\tresident\t\t\t\tnot resident\t\t\t\t")
	fmt.Fprintln(t, "size\tmethod\tCPU µs\twall µs\tMB/s\tleft\tCPU µs\twall µs\tMB/s\tleft\t")
	for _, row := range r.Rows {
		if row.Absent != "" {
			fmt.Fprintf(t, "%d KiB\t%s\tabsent: %s\t\n", row.Size>>10, row.Method, row.Absent)
			continue
		}
		fmt.Fprintf(t, "%d KiB\t%s\t%s%s\n", row.Size>>10, row.Method, row.Warm, row.Cold)
	}
	return t.Flush()
}

func (c Cost) String() string {
	return fmt.Sprintf("%.1f\t%.1f\t%.0f\t%.0f %%\t", c.CPUMicros, c.WallMicros, c.MBps, 100*c.LeftRatio)
}
