package lagoontest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/internal/lab"
)

const (
	// ReadyTime is how long a start may take on a machine that does much else: recovery of what the tests write is a matter of seconds.
	ReadyTime = 2 * time.Minute
	// StopTime is what SIGTERM may take on such a machine. That it takes 10 s at most otherwise is for tests/hostile to show.
	StopTime = time.Minute
)

// Tier is one [[storage.tier]] of a generated configuration.
type Tier struct {
	Name  string
	Path  string // "": a folder of that name in Options.Dir
	Class string // "": ssd, so that no test depends on the machine
	Keep  string // "": unlimited, so that nothing moves unless the test says so
	Extra string // further lines of the table
}

// Options say how a broker is started. The zero value is one with the tiers ssd and hdd in a temporary folder.
type Options struct {
	Dir         string   // where everything is kept, "": the test's temporary folder
	Tiers       []Tier   // none: ssd and hdd in Dir; ignored when Config holds tiers
	Config      string   // TOML text, may be empty
	Set         []string // --set key=value, after the ports
	Env         []string // added to the environment
	CgroupProcs string   // a cgroup.procs file that the process enters before the program starts
	Args        []string // a command instead of "serve -c FILE": {"dev", "--data", dir}; the ports are still set
	NoWait      bool     // do not wait for readiness
}

// Broker is one running (or killed) broker.
type Broker struct {
	t          testing.TB
	opt        Options
	binary     string
	config     string
	log        string
	kafka, adm string
	run        *process
}

type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when err is set
	err    error
}

// Start runs a broker and returns when it serves clients. It is ended with the test.
func Start(t testing.TB, opt Options) *Broker {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	b := &Broker{t: t, opt: opt, binary: Build(t), kafka: FreeAddr(t), adm: FreeAddr(t)}
	b.config, b.log = filepath.Join(opt.Dir, "lagoon.toml"), filepath.Join(opt.Dir, "lagoon.log")
	b.writeConfig()
	t.Cleanup(b.cleanup)
	b.start()
	return b
}

func (b *Broker) writeConfig() {
	b.t.Helper()
	text := b.opt.Config
	if !strings.Contains(text, "[[storage.tier]]") {
		if len(b.opt.Tiers) == 0 {
			b.opt.Tiers = []Tier{{Name: "ssd"}, {Name: "hdd"}}
		}
		for i := range b.opt.Tiers {
			text += "\n" + b.tierTable(&b.opt.Tiers[i])
		}
	}
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *Broker) tierTable(t *Tier) string {
	b.t.Helper()
	if t.Path == "" {
		t.Path = filepath.Join(b.opt.Dir, t.Name)
	}
	if err := os.MkdirAll(t.Path, 0o755); err != nil {
		b.t.Fatal(err)
	}
	or := func(s, fallback string) string {
		if s == "" {
			return fallback
		}
		return s
	}
	return fmt.Sprintf("[[storage.tier]]\nname = %q\npath = %q\nclass = %q\nkeep = %q\n%s\n", t.Name, t.Path, or(t.Class, "ssd"), or(t.Keep, "unlimited"), t.Extra)
}

// start runs the process and waits until it is ready.
func (b *Broker) start() {
	b.t.Helper()
	args := b.opt.Args
	if len(args) == 0 {
		args = []string{"serve", "-c", b.config}
	}
	args = append([]string{}, args...)
	args = append(args, "--set", "server.listen="+b.kafka, "--set", "server.advertised="+b.kafka, "--set", "admin.listen="+b.adm)
	for _, s := range b.opt.Set {
		args = append(args, "--set", s)
	}
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(b.binary, args...)
	cmd.Args[0] = "lagoon"
	if b.opt.CgroupProcs != "" {
		cmd = exec.Command("/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, b.opt.CgroupProcs, b.binary}, args...)...)
	}
	cmd.Dir = b.opt.Dir
	cmd.Env = append(os.Environ(), b.opt.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test binary that is killed leaves no broker
	if err := cmd.Start(); err != nil {
		b.t.Fatalf("start lagoon: %v", err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	b.run = p
	if !b.opt.NoWait {
		b.WaitReady()
	}
}

// WaitReady returns when /readyz says so.
func (b *Broker) WaitReady() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ReadyTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		if resp, err := get(ctx, b.Admin()+"/readyz?verbose"); err != nil {
			last = err.Error()
		} else if last = resp.body; resp.code == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-b.run.exited:
			b.t.Fatalf("lagoon ended before it was ready: %v\n%s", b.run.err, tail(b.Logs(), 40))
		case <-ctx.Done():
			b.t.Fatalf("lagoon is not ready after %v: %s", ReadyTime, last)
		}
	}
}

// Bootstrap is the address for Kafka clients.
func (b *Broker) Bootstrap() string { return b.kafka }

// Admin is the admin API's base URL, without a slash at the end.
func (b *Broker) Admin() string { return "http://" + b.adm }

// PID is the process id.
func (b *Broker) PID() int { return b.run.cmd.Process.Pid }

// Dir is the folder of configuration, log and generated tiers.
func (b *Broker) Dir() string { return b.opt.Dir }

// TierPath is the folder of a generated tier.
func (b *Broker) TierPath(name string) string {
	b.t.Helper()
	for _, t := range b.opt.Tiers {
		if t.Name == name {
			return t.Path
		}
	}
	b.t.Fatalf("no tier %q", name)
	return ""
}

// Binary is the program that runs, for CLI calls beside it.
func (b *Broker) Binary() string { return b.binary }

// Logs is everything the broker logged, over all restarts.
func (b *Broker) Logs() string {
	text, err := os.ReadFile(b.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Exited is closed when the current process has ended.
func (b *Broker) Exited() <-chan struct{} { return b.run.exited }

// Signal sends a signal without waiting.
func (b *Broker) Signal(sig os.Signal) {
	b.t.Helper()
	if err := b.run.cmd.Process.Signal(sig); err != nil {
		b.t.Fatalf("signal %v: %v", sig, err)
	}
}

// Kill ends the process with SIGKILL and waits for its end. Killing a dead one is no error.
func (b *Broker) Kill() {
	_ = b.run.cmd.Process.Kill() // it may have ended
	<-b.run.exited
}

// Stop ends the process with SIGTERM; it must exit with status 0 within StopTime.
func (b *Broker) Stop() {
	b.t.Helper()
	b.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(StopTime)
	defer timeout.Stop()
	select {
	case <-b.run.exited:
		if b.run.err != nil {
			b.t.Fatalf("lagoon did not stop cleanly: %v\n%s", b.run.err, tail(b.Logs(), 40))
		}
	case <-timeout.C:
		b.Signal(syscall.SIGQUIT) // goroutines into the log
		<-b.run.exited
		b.t.Fatalf("lagoon still ran %v after SIGTERM", StopTime)
	}
}

// Restart starts the broker again with the same ports and directories; one that still runs is stopped first. Set values given here
// are added to those of Options for good.
func (b *Broker) Restart(set ...string) {
	b.t.Helper()
	select {
	case <-b.run.exited:
	default:
		b.Stop()
	}
	b.opt.Set = append(b.opt.Set, set...)
	b.start()
}

// broken is what must never be in a broker's log.
var broken = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|.*msg="?[^"]*panic).*$`)

func (b *Broker) cleanup() {
	if b.run != nil {
		b.Kill()
	}
	logs := b.Logs()
	if line := broken.FindString(logs); line != "" {
		b.t.Errorf("the broker's log holds: %s", line)
	}
	if b.t.Failed() {
		b.t.Logf("end of %s:\n%s", b.log, tail(logs, 80))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// FreeAddr finds a loopback address that nobody listens on, below the ephemeral range.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := lab.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
