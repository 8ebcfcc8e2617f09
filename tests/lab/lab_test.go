package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"lagoon/internal/lab/labtest"
	"lagoon/tests/internal/lagoontest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// state is what `lab up --json` prints.
type state struct {
	Bootstrap string `json:"bootstrap"`
	PID       int    `json:"pid"`
	Disks     []struct {
		Tier   string `json:"tier"`
		Device string `json:"device"`
		Data   string `json:"data"`
		Memory bool   `json:"in_memory"`
	} `json:"disks"`
	Cgroup string `json:"cgroup_procs"`
	Log    string `json:"log"`
}

// world is the program, and a place of its own for its laboratories.
type world struct {
	t       *testing.T
	program string
	lagoon  string
	base    string
	before  map[string]string // settings of the machine
}

func newWorld(t *testing.T) *world {
	labtest.New(t) // no other laboratory of this machine changes settings meanwhile
	return &world{t: t, program: lagoontest.BuildBench(t), lagoon: lagoontest.Build(t), base: t.TempDir(), before: settings(t)}
}

func settings(t *testing.T) map[string]string {
	all := map[string]string{}
	for _, name := range []string{"dirty_bytes", "dirty_ratio", "dirty_background_bytes", "dirty_background_ratio"} {
		b, err := os.ReadFile("/proc/sys/vm/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = strings.TrimSpace(string(b))
	}
	return all
}

func (w *world) command(args ...string) *exec.Cmd {
	c := exec.Command(w.program, append([]string{"lab"}, args...)...)
	c.Env = append(os.Environ(), "LAGOON_LAB_DIR="+w.base)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c
}

// process is a `lab up`.
type process struct {
	*exec.Cmd
	state  state
	said   bytes.Buffer
	exited chan struct{}
}

// start runs `lab up` and, when wait is set, waits until it says what there is.
func (w *world) start(device string, wait bool) *process {
	w.t.Helper()
	p := &process{exited: make(chan struct{})}
	p.Cmd = w.command("up", "--device", device, "--broker", "lagoon", "--lagoon-binary", w.lagoon, "--disk-size", "256MiB", "--slow-disk-in-memory", "192MiB", "--memory", "256MiB", "--json")
	p.Stderr = &p.said
	out, err := p.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		w.t.Fatal(err)
	}
	line := make(chan []byte, 1)
	go func() {
		first, _ := bufio.NewReader(out).ReadBytes('\n') // it ends with the process
		line <- first
		_ = p.Wait() // the tests look at ProcessState
		close(p.exited)
	}()
	if !wait {
		return p
	}
	select {
	case text := <-line:
		if err := json.Unmarshal(text, &p.state); err != nil {
			<-p.exited
			w.t.Fatalf("lab up said %q: %v\n%s", text, err, &p.said)
		}
	case <-time.After(2 * time.Minute):
		w.t.Fatal("lab up is not ready after 2 minutes")
	}
	return p
}

// end sends a signal and waits for the end of the process.
func (w *world) end(p *process, s syscall.Signal) {
	w.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		w.t.Fatalf("lab up still runs a minute after %v", s)
	}
}

func (w *world) down() string {
	w.t.Helper()
	out, err := w.command("down").CombinedOutput()
	if err != nil {
		w.t.Fatalf("lab down: %v\n%s", err, out)
	}
	return string(out)
}

// nothingStays looks for everything that a laboratory makes.
func (w *world) nothingStays(s state) {
	w.t.Helper()
	check := func(what, text string) {
		w.t.Helper()
		if strings.Contains(text, w.base) {
			w.t.Errorf("%s: something of the laboratory stayed:\n%s", what, text)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		w.t.Fatal(err)
	}
	check("mounts", string(mounts))
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").CombinedOutput()
	if err != nil {
		w.t.Fatalf("losetup: %v\n%s", err, loops)
	}
	check("loop devices", string(loops))
	if dirs, _ := filepath.Glob(filepath.Join(w.base, "lagoon-lab", "lab-*")); len(dirs) > 0 {
		w.t.Errorf("folders: %v", dirs)
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		if text, err := os.ReadFile(name); err == nil && filepath.Dir(name) != fmt.Sprintf("/proc/%d", os.Getpid()) {
			check(name, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	if s.Cgroup != "" {
		if _, err := os.Stat(s.Cgroup); err == nil {
			w.t.Errorf("the control group %s stayed", s.Cgroup)
		}
	}
	if s.PID != 0 {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", s.PID)); err == nil {
			w.t.Errorf("the broker, process %d, stayed", s.PID)
		}
	}
	for name, value := range settings(w.t) {
		if w.before[name] != value {
			w.t.Errorf("vm.%s was %s and is %s", name, w.before[name], value)
		}
	}
}

// reaper is the process that outlives a laboratory's owner.
func (w *world) reaper(owner int) int {
	w.t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", owner))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			environ, err := os.ReadFile(filepath.Join("/proc", field, "environ"))
			if pid, convErr := strconv.Atoi(field); err == nil && convErr == nil && bytes.Contains(environ, []byte("LAGOON_LAB_HELPER=reap")) {
				return pid
			}
		}
	}
	w.t.Fatal("no reaper")
	return 0
}

// TestUp takes about 10 s: the four devices have what they promise, and Ctrl-C leaves nothing.
func TestUp(t *testing.T) {
	w := newWorld(t)
	for device, tiers := range map[string]string{"S": "ssd", "T": "ssd hdd", "H": "hdd", "R": "hdd"} {
		t.Run(device, func(t *testing.T) {
			w := *w
			w.t = t
			p := w.start(device, true)
			var names []string
			for _, d := range p.state.Disks {
				names = append(names, d.Tier)
				if _, err := os.Stat(d.Data); err != nil {
					t.Error(err)
				}
				if d.Memory != (d.Tier == "hdd") {
					t.Errorf("disk %s: in memory %v", d.Tier, d.Memory)
				}
				var st unix.Statfs_t
				if err := unix.Statfs(filepath.Dir(d.Data), &st); err != nil || (int64(st.Blocks)*st.Bsize < 192<<20) != d.Memory {
					t.Errorf("disk %s has %d blocks of %d bytes, %v; want less than 192 MiB if in memory", d.Tier, st.Blocks, st.Bsize, err)
				}
			}
			if got := strings.Join(names, " "); got != tiers {
				t.Errorf("disks %s, want %s", got, tiers)
			}
			procs, err := os.ReadFile(p.state.Cgroup)
			if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(p.state.PID) {
				t.Errorf("in the control group: %q, %v, want %d", procs, err, p.state.PID)
			}
			if got := settings(t)["dirty_bytes"]; got != strconv.Itoa(256<<20*20/100) {
				t.Errorf("vm.dirty_bytes is %s, want 20 %% of 256 MiB", got)
			}
			client, err := kgo.NewClient(kgo.SeedBrokers(p.state.Bootstrap), kgo.AllowAutoTopicCreation())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
				t.Errorf("produce: %v", err)
			}
			w.end(p, syscall.SIGINT)
			if !p.ProcessState.Success() {
				t.Errorf("lab up ended with %v: %s", p.ProcessState, &p.said)
			}
			w.nothingStays(p.state)
		})
	}
}

// TestInterrupted: Ctrl-C at any moment of the construction.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 6 {
		p := w.start("R", false)
		select {
		case <-time.After(time.Duration(random.Int64N(int64(1200 * time.Millisecond)))):
		case <-p.exited:
			t.Fatalf("lab up ended: %s", &p.said)
		}
		w.end(p, syscall.SIGINT)
		w.nothingStays(state{})
	}
}

// TestKilled: nothing stays after kill -9, by the process that outlives it; and when that is killed, too, by `lab down`.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	p := w.start("R", true)
	w.end(p, syscall.SIGKILL)
	w.down() // waits
	w.nothingStays(p.state)

	p = w.start("R", true)
	if err := syscall.Kill(w.reaper(p.Process.Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.end(p, syscall.SIGKILL)
	if _, err := os.Stat(p.state.Cgroup); err != nil {
		t.Fatalf("the control group is gone with nobody to remove it: %v", err)
	}
	if said := w.down(); !strings.Contains(said, "is taken down") {
		t.Errorf("lab down said %q", said)
	}
	w.nothingStays(p.state)
}

// TestRunShowsItsOwn takes about 15 s: what an earlier call left is not taken for a result, two runs of one broker are two results, and the
// code is that of what was run.
func TestRunShowsItsOwn(t *testing.T) {
	w := newWorld(t)
	results := t.TempDir()
	run := func(args ...string) (string, int) {
		args = append([]string{"run", "--device", "S", "--lagoon-binary", w.lagoon, "--disk-size", "2GiB", "--memory", "256MiB", "--results", results}, args...)
		c := w.command(args...)
		out, _ := c.CombinedOutput() // its code is looked at
		return string(out), c.ProcessState.ExitCode()
	}
	for _, flush := range []string{"sync", "interval"} {
		stale := `{"tool":"lagoon-bench partitions","format":1,"label":"stale","keys":["partitions"],"columns":["partitions","cpu"],"rows":[{"partitions":"1","cpu":"2"}]}`
		if err := os.WriteFile(filepath.Join(results, "lagoon-S-"+flush+"-partitions.json"), []byte(stale), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, code := run("--brokers", "lagoon", "--flush", "sync,interval", "--", "partitions", "--partitions", "0"); code != 2 || strings.Contains(said, "stale") {
		t.Errorf("a measurement that is used wrongly: code %d\n%s", code, said)
	}
	said, code := run("--brokers", "lagoon,lagoon", "--", "partitions", "--partitions", "1", "--time", "1s", "--settle", "0s")
	if code != 0 || !strings.Contains(said, "lagoon S sync 2") {
		t.Errorf("the same broker twice: code %d\n%s", code, said)
	}
	for _, name := range []string{"lagoon-S-sync", "lagoon-S-sync-2"} {
		if _, err := os.Stat(filepath.Join(results, name+"-partitions.json")); err != nil {
			t.Error(err)
		}
	}
	w.nothingStays(state{})
}

// TestDown ends a laboratory that runs.
func TestDown(t *testing.T) {
	w := newWorld(t)
	if said := w.down(); !strings.Contains(said, "there is no laboratory") {
		t.Errorf("lab down said %q", said)
	}
	p := w.start("H", true)
	if said := w.down(); !strings.Contains(said, "is taken down") {
		t.Errorf("lab down said %q", said)
	}
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		t.Error("lab up still runs")
	}
	w.nothingStays(p.state)
}
