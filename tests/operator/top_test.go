package operator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"lagoon/tests/internal/lagoontest"
)

// terminal is a pseudo-terminal with a program in it.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	exited chan error

	mu  sync.Mutex
	out strings.Builder
}

func newTerminal(t *testing.T, columns, rows uint16, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	term := &terminal{t: t, master: master, slave: slave, exited: make(chan error, 1)}
	term.resize(columns, rows)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func() { term.exited <- cmd.Wait() }()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.out.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

func (p *terminal) resize(columns, rows uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// frames are the frames drawn so far, as plain lines.
func (p *terminal) frames() [][]string {
	var out [][]string
	for _, f := range strings.Split(p.text(), "\x1b[H")[1:] {
		out = append(out, strings.Split(regexp.MustCompile(`\x1b\[[0-9?]*[a-zA-Z]`).ReplaceAllString(f, ""), "\r\n"))
	}
	return out
}

func (p *terminal) press(keys string) {
	p.t.Helper()
	if _, err := io.WriteString(p.master, keys); err != nil {
		p.t.Fatal(err)
	}
}

var readerLine = regexp.MustCompile(`(?m)^fraud-1 +orders/0 +realtime `)

// TestTopInATerminal: top shows a consumer of a real broker, follows keys and the terminal's size, and leaves the terminal as it was.
func TestTopInATerminal(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	fill(t, b, "orders", 20)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()), kgo.ConsumeTopics("orders"), kgo.ClientID("fraud-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := cl.PollFetches(ctx).Err(); err != nil {
		t.Fatal(err)
	}

	start := func(args ...string) (*terminal, *unix.Termios) {
		cmd := exec.Command(b.Binary(), append([]string{"top", "--admin", b.Admin()}, args...)...)
		cmd.Env = append(os.Environ(), "TERM=xterm")
		p := newTerminal(t, 80, 24, cmd)
		before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return p, before
	}
	ended := func(p *terminal, before *unix.Termios) {
		t.Helper()
		select {
		case err := <-p.exited:
			if err != nil {
				t.Errorf("exit: %v\n%s", err, p.text())
			}
		case <-time.After(time.Minute):
			t.Fatalf("top did not end\n%s", p.text())
		}
		after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		// The terminal may have been read before MakeRaw or after it; cooked mode is what counts.
		if after.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != unix.ICANON|unix.ECHO|unix.ISIG || after.Oflag != before.Oflag|after.Oflag&unix.OPOST {
			t.Errorf("the terminal was left raw: %+v, before %+v", after, before)
		}
		// The last bytes may still be on their way through the terminal.
		eventually(t, time.Minute, "alternate screen and cursor are restored", func() bool {
			text := p.text()
			return strings.Count(text, "\x1b[?1049h") == 1 && strings.HasSuffix(text, "\x1b[?25h\x1b[?1049l")
		})
	}
	shows := func(p *terminal, what string, cond func(frame []string) bool) {
		t.Helper()
		defer func() {
			if t.Failed() {
				t.Logf("%q", p.text())
			}
		}()
		eventually(t, 2*time.Minute, what, func() bool {
			frames := p.frames()
			return len(frames) > 0 && cond(frames[len(frames)-1])
		})
	}

	p, before := start("-n", "200ms")
	shows(p, "the reader is shown", func(f []string) bool {
		return len(f) == 24 && strings.Contains(f[0], "lagoon ready") && readerLine.MatchString(strings.Join(f, "\n")) && strings.Contains(f[23], "by -lag_bytes")
	})
	for _, line := range p.frames()[0] {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	p.press("r")
	shows(p, "sorted by rate", func(f []string) bool { return strings.Contains(f[len(f)-1], "by -rate") })
	p.resize(120, 10)
	shows(p, "redrawn for the new size", func(f []string) bool { return len(f) == 10 })
	p.press(" ")
	shows(p, "stopped", func(f []string) bool { return strings.Contains(f[len(f)-1], "stopped") })
	p.press(" q")
	ended(p, before)

	// Ctrl-C, and a daemon that goes away meanwhile.
	p, before = start("-n", "200ms")
	shows(p, "the reader is shown", func(f []string) bool { return strings.Contains(strings.Join(f, "\n"), "fraud-1") })
	b.Kill()
	shows(p, "the fault is shown", func(f []string) bool { return strings.Contains(strings.Join(f, "\n"), "no daemon answers") })
	p.press("\x03")
	ended(p, before)

	// No terminal: frames one after the other until it is ended.
	b.Restart()
	cmd := exec.Command(b.Binary(), "top", "-n", "100ms", "--admin", b.Admin())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf, got := make([]byte, 4096), ""
	for strings.Count(got, "lagoon ready") < 3 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v after\n%s", err, got)
		}
		got += string(buf[:n])
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("escapes where there is no terminal: %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}
