package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helperEnv = "LAGOON_LAB_HELPER" // set in helper processes: reap, read, measure or spindle
	labsName  = "lagoon-lab"        // directory of all labs, under LAGOON_LAB_DIR or the temporary directory
)

// Lab is one laboratory.
type Lab struct {
	id     string
	dir    string
	lock   *os.File
	groups int
	done   func()
}

// RunHelper runs this process in the role of a helper if it was started as one, and tells the exit code. A program that
// opens labs calls it first in main.
func RunHelper() (code int, helper bool) {
	switch os.Getenv(helperEnv) {
	case "":
		return 0, false
	case "reap":
		return reap(os.Args[1]), true
	case "read":
		return readDirect(os.Args[1:]), true
	case "measure":
		return measure(os.Args[1]), true
	case "spindle":
		return serveSpindle(os.Args[1], os.Args[2]), true
	}
	fmt.Fprintln(os.Stderr, "unknown helper")
	return 2, true
}

// Open waits for other labs on this machine to end, takes back what dead ones left, and opens one; Close ends it. log, which may
// be nil, is told what it waits for and what could not be taken back. It fails where Missing lists something.
func Open(ctx context.Context, log io.Writer) (*Lab, error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("the laboratory needs %s", strings.Join(missing, ", "))
	}
	if log == nil {
		log = io.Discard
	}
	base := labsDir()
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockLabs(ctx, base, log)
	if err != nil {
		return nil, err
	}
	for _, s := range revertDead(base) {
		if s.Err != nil {
			fmt.Fprintf(log, "left by an earlier run and still there: %s: %v\n", s.Dir, s.Err)
		}
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("lab-%d-", os.Getpid()))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	l := &Lab{id: filepath.Base(dir), dir: dir, lock: lock}
	if l.done, err = startReaper(dir, lock); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir), lock.Close())
	}
	return l, nil
}

// Close takes everything back, latest first.
func (l *Lab) Close() error {
	err := revert(l.dir)
	l.done()
	if err != nil {
		err = fmt.Errorf("laboratory not taken down: %w", err)
	}
	return errors.Join(err, l.lock.Close())
}

func labsDir() string { return filepath.Join(baseDir(), labsName) }

func baseDir() string {
	if dir := os.Getenv("LAGOON_LAB_DIR"); dir != "" {
		return dir
	}
	return os.TempDir()
}

// lockLabs takes the lock that only one lab of the machine has.
func lockLabs(ctx context.Context, base string, log io.Writer) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(base, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Name(), err), lock.Close())
		}
		if !told {
			fmt.Fprintf(log, "waiting for another laboratory on this machine (%s)\n", strings.Join(labDirs(base), ", "))
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), lock.Close())
		case <-tick.C:
		}
	}
}

func labDirs(base string) []string {
	dirs, _ := filepath.Glob(filepath.Join(base, "lab-*")) // the pattern is well formed
	return dirs
}

// Reverted is a lab whose owner was dead, and how taking it back went.
type Reverted struct {
	Dir string
	Err error
}

// revertDead takes back the labs that are left; the caller holds the lock, so nobody is in them.
func revertDead(base string) (all []Reverted) {
	for _, dir := range labDirs(base) {
		all = append(all, Reverted{Dir: dir, Err: revert(dir)})
	}
	return all
}

// Missing lists what this machine lacks for a lab.
func Missing() (missing []string) {
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
	return missing
}

// Dir is a directory for the caller's own files; it goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// startReaper starts the process that takes the lab down should this one die. It inherits the lock, so that no other lab
// begins before it is finished. done ends it after an orderly end.
func startReaper(dir string, lock *os.File) (done func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := helper("reap", dir)
	c.Stdin, c.Stderr, c.ExtraFiles = r, os.Stderr, []*os.File{lock}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not reached by Ctrl-C
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	_ = r.Close()
	return func() {
		_ = w.Close()
		_ = c.Wait()
	}, nil
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

// helper is this program in another role.
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
func (l *Lab) Sysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	restore := path
	old, err := readText(path)
	if err != nil {
		return err
	}
	if old == "0" && strings.HasSuffix(name, "_bytes") {
		restore = strings.TrimSuffix(path, "_bytes") + "_ratio"
		if old, err = readText(restore); err != nil {
			return err
		}
	}
	return l.change(undo{Kind: "write", Path: restore, Value: old}, path, value)
}

// change writes a file of the kernel after it noted how that is undone.
func (l *Lab) change(u undo, path, value string) error {
	if err := l.note(u); err != nil {
		return err
	}
	return write(path, value)
}

func (l *Lab) note(u undo) error {
	if err := note(l.dir, u); err != nil {
		return fmt.Errorf("lab journal: %w", err)
	}
	return nil
}

func write(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("write %q: %w", value, err)
	}
	return nil
}

func readText(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
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
func (l *Lab) ReadDirect(g *Cgroup, files []string) (r DirectRead, err error) {
	c := helper("read", files...)
	g.Wrap(c)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return r, fmt.Errorf("direct read: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Bytes == 0 {
		return r, fmt.Errorf("direct read said %q: %w", out, err)
	}
	return r, nil
}
func readDirect(files []string) int {
	const step = 1 << 20
	buf, err := DirectMemory(step)
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
