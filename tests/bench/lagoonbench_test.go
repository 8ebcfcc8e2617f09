package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/bench/report"
	"lagoon/tests/internal/lagoontest"
)

// benchTime is far above what the runs here take.
const benchTime = 2 * time.Minute

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// isolationArgs is a small load with everything in it.
func isolationArgs(b *lagoontest.Broker, more ...string) []string {
	return append([]string{"isolation", "--brokers", b.Bootstrap(), "--label", "test", "--live-rate", "2MiB/s", "--slow-rate", "1MiB/s", "--behind", "2s",
		"--old-size", "64MiB", "--old-partitions", "2", "--phase", "2s", "--settle", "1s", "--recovery-max", "2s",
		"--pid", strconv.Itoa(b.PID()), "--data-dir", b.TierPath("ssd"), "--data-dir", b.TierPath("hdd"), "--admin", b.Admin()}, more...)
}

func topics(t *testing.T, b *lagoontest.Broker) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	found, err := lagoontest.AdminClient(t, b).ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return found.Names()
}

func readResult(t *testing.T, name string) *report.Isolation {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.ParseIsolation(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLagoonBenchIsolation runs every role against the real broker for about 25 s: all of them live, nothing lost, the result whole.
func TestLagoonBenchIsolation(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	dir := t.TempDir()
	js, html := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html")
	ctx, cancel := context.WithTimeout(context.Background(), benchTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, bench, isolationArgs(b, "--phases", "base,x1,x2+mixed,after", "--json", js, "--html", html)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := readResult(t, js)
	if len(r.Phases) != 4 || r.Interrupted || r.Device == nil || r.Device.MBPerSec <= 0 || len(r.Checks) != 3 || len(r.Residency) == 0 {
		t.Errorf("phases %d, interrupted %t, device %+v, checks %d, looks at the page cache %d", len(r.Phases), r.Interrupted, r.Device, len(r.Checks), len(r.Residency))
	}
	rates := map[string]int64{report.Ack: 2048, report.Tail: 2048, report.Mixed: 256, report.AckSlow: 1024, report.Delayed: 1024}
	for _, p := range r.Phases {
		for role, rate := range rates {
			want := int64(float64(rate) * (p.ToSeconds - p.FromSeconds))
			if l := p.Latency[role]; l.Count != want || l.Unfinished != 0 || l.P50 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || l.Max <= 0 {
				t.Errorf("phase %s, %s: %+v, want %d records", p.Name, role, l, want)
			}
			if l := p.Latency[role]; (p.Name == "base") != (l.Ratio == nil) {
				t.Errorf("phase %s, %s: ratio %+v", p.Name, role, l.Ratio)
			}
		}
		u := p.Use
		if u.BrokerCPU == nil || u.AnonBytes == nil || *u.AnonBytes < 1<<20 || u.RealtimeRead == nil || len(u.HotWindow) == 0 || u.GeneratorCores <= 0 {
			t.Errorf("phase %s: use %+v", p.Name, u)
		}
		cold := p.BacklogReaders > 0 || p.MixedCold
		if cold != (p.Backlog != nil) || cold != (len(p.Recovery) == len(rates)) {
			t.Errorf("phase %s: backlog %+v, recovery of %d roles", p.Name, p.Backlog, len(p.Recovery))
		}
		if g := p.Backlog; g != nil && (g.Bytes <= 0 || g.Gaps != 0 || g.BadBatches != 0 || len(g.EachMBPerS) != p.BacklogReaders) {
			t.Errorf("phase %s: backlog %+v", p.Name, g)
		}
	}
	for _, c := range r.Checks {
		if !c.OK() || c.Produced == 0 || c.Read != c.Produced || c.Failed != 0 {
			t.Errorf("%+v", c)
		}
	}
	if left := topics(t, b); len(left) != 0 {
		t.Errorf("topics %v are left", left)
	}
	for _, want := range []string{"x2+mixed", "delayed", "Every record checked"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the text does not have %q", want)
		}
	}
	page, err := os.ReadFile(html)
	if err != nil || bytes.Count(page, []byte("<svg")) != 6 || bytes.Contains(page, []byte("NaN")) || bytes.Contains(page, []byte("<script")) {
		t.Errorf("page of %d bytes, %d charts, %v", len(page), bytes.Count(page, []byte("<svg")), err)
	}
	side, err := exec.CommandContext(ctx, bench, "compare", js, js, "--markdown").CombinedOutput()
	if err != nil || !bytes.Contains(side, []byte("| x1 | tail |")) || !bytes.Contains(side, []byte("test (2)")) {
		t.Errorf("compare: %v\n%s", err, side)
	}
	b.Stop()
}

// TestLagoonBenchInterrupted: Ctrl-C ends it cleanly with what is whole, and deletes the topics.
func TestLagoonBenchInterrupted(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	js := filepath.Join(t.TempDir(), "r.json")
	ctx, cancel := context.WithTimeout(context.Background(), benchTime)
	defer cancel()
	c := exec.CommandContext(ctx, bench, isolationArgs(b, "--phases", "base,x1", "--json", js)...)
	progress, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for s := bufio.NewScanner(progress); s.Scan(); {
		all.WriteString(s.Text() + "\n")
		if strings.HasPrefix(s.Text(), "phase x1:") {
			if err := c.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := exitCode(c.Wait()); code != 1 || !strings.Contains(all.String(), "lagoon-bench: interrupted") {
		t.Errorf("exit code %d:\n%s", code, all.String())
	}
	r := readResult(t, js)
	if !r.Interrupted || len(r.Phases) != 1 || r.Phases[0].Latency[report.Tail].Count == 0 || len(r.Checks) != 0 {
		t.Errorf("interrupted %t, %d phases, %d checks", r.Interrupted, len(r.Phases), len(r.Checks))
	}
	if left := topics(t, b); len(left) != 0 {
		t.Errorf("topics %v are left", left)
	}
	b.Stop()
}

// TestLagoonBenchInterruptedWhileFilling: it says that it was interrupted, and not which connection noticed first.
func TestLagoonBenchInterruptedWhileFilling(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), benchTime)
	defer cancel()
	c := exec.CommandContext(ctx, bench, "isolation", "--brokers", b.Bootstrap(), "--old-size", "1TiB")
	progress, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	told := false // a second one would end the process at once
	for s := bufio.NewScanner(progress); s.Scan(); {
		all.WriteString(s.Text() + "\n")
		if strings.HasPrefix(s.Text(), "filling ") && !told {
			told = true
			if err := c.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := exitCode(c.Wait()); code != 1 || !strings.HasSuffix(all.String(), "\nlagoon-bench: interrupted\n") {
		t.Errorf("exit code %d:\n%s", code, all.String())
	}
	if left := topics(t, b); len(left) != 0 {
		t.Errorf("topics %v are left", left)
	}
	b.Stop()
}

// TestLagoonBenchBrokerDies: the run ends at once and says which role noticed, and what could not be deleted.
func TestLagoonBenchBrokerDies(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), benchTime)
	defer cancel()
	c := exec.CommandContext(ctx, bench, isolationArgs(b, "--phase", "1h", "--phases", "base")...)
	progress, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for s := bufio.NewScanner(progress); s.Scan(); {
		all.WriteString(s.Text() + "\n")
		if strings.HasPrefix(s.Text(), "phase base:") {
			b.Kill()
		}
	}
	code := exitCode(c.Wait())
	if text := all.String(); code != 1 || ctx.Err() != nil || !strings.Contains(text, "no broker answers") || strings.Contains(text, "interrupted") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

// TestLagoonBenchTableBrokerDies: a client that tries again for ever does not make the measurement wait for ever.
func TestLagoonBenchTableBrokerDies(t *testing.T) {
	bench := lagoontest.BuildBench(t)
	for name, c := range map[string]struct {
		topic string
		args  []string
	}{
		"partitions": {"bench-partitions-1", []string{"partitions", "--partitions", "1", "--time", "1h"}},
		"produce":    {"bench-throughput-franz-1-65536", []string{"throughput", "--clients", "franz", "--modes", "produce", "--partitions", "1", "--least", "1h"}},
		"consume":    {"bench-throughput-franz-1-65536", []string{"throughput", "--clients", "franz", "--modes", "consume", "--partitions", "1", "--bytes", "1MB", "--least", "1h"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			b := lagoontest.Start(t, lagoontest.Options{})
			ctx, cancel := context.WithTimeout(context.Background(), benchTime)
			defer cancel()
			var said bytes.Buffer
			p := exec.CommandContext(ctx, bench, append(c.args, "--brokers", b.Bootstrap())...)
			p.Stdout, p.Stderr = &said, &said
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()), kgo.ConsumeTopics(c.topic), kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(200*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			for client.PollFetches(ctx).NumRecords() == 0 && ctx.Err() == nil { // the load is on
			}
			client.Close()
			b.Kill()
			if code := exitCode(p.Wait()); code != 1 || ctx.Err() != nil || !bytes.Contains(said.Bytes(), []byte("no broker answers for 10s")) {
				t.Errorf("exit code %d, %v:\n%s", code, ctx.Err(), &said)
			}
		})
	}
}

// TestLagoonBenchTables runs throughput and partitions for a moment each.
func TestLagoonBenchTables(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	pid := strconv.Itoa(b.PID())
	for _, c := range []struct {
		args []string
		rows []string
	}{
		{[]string{"throughput", "--partitions", "2", "--bytes", "20MB", "--least", "0ms", "--pid", pid, "--data-dir", b.TierPath("ssd")},
			[]string{"raw     produce", "raw     consume", "raw     catchup", "franz   produce", "franz   consume", "franz   catchup"}},
		{[]string{"partitions", "--partitions", "1,20", "--time", "1s", "--settle", "100ms", "--in-flight", "64", "--pid", pid}, []string{"1           ", "20          "}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), benchTime)
		out, err := exec.CommandContext(ctx, bench, append(c.args, "--brokers", b.Bootstrap())...).Output()
		cancel()
		if err != nil {
			t.Errorf("%s: %v", c.args[0], err)
		}
		for _, row := range c.rows {
			if !bytes.Contains(out, []byte("\n"+row)) {
				t.Errorf("%s has no row %q:\n%s", c.args[0], row, out)
			}
		}
		if bytes.Contains(out, []byte(" - ")) {
			t.Errorf("%s has figures that were not measured:\n%s", c.args[0], out)
		}
	}
	if left := topics(t, b); len(left) != 0 {
		t.Errorf("topics %v are left", left)
	}
	b.Stop()
}

// TestLagoonBenchRefused: a broker that refuses what is produced ends the measurement, with each client.
func TestLagoonBenchRefused(t *testing.T) {
	t.Parallel() // it waits most of the time
	bench, b := lagoontest.BuildBench(t), lagoontest.Start(t, lagoontest.Options{})
	for _, client := range []string{"raw", "franz"} {
		ctx, cancel := context.WithTimeout(context.Background(), benchTime/4)
		out, err := exec.CommandContext(ctx, bench, "throughput", "--brokers", b.Bootstrap(), "--clients", client, "--modes", "produce", "--partitions", "1",
			"--bytes", "1MB", "--least", "0ms", "--topic-config", "max.message.bytes=1000").CombinedOutput()
		if code := exitCode(err); code != 1 || ctx.Err() != nil || !bytes.Contains(out, []byte("MESSAGE_TOO_LARGE")) {
			t.Errorf("%s: code %d, %v:\n%s", client, code, ctx.Err(), out)
		}
		cancel()
	}
	if left := topics(t, b); len(left) != 0 {
		t.Errorf("topics %v are left", left)
	}
	b.Stop()
}

// TestLagoonBenchUsage: mistakes end with code 2 and a line that says what to do, before anything is made.
func TestLagoonBenchUsage(t *testing.T) {
	bench := lagoontest.BuildBench(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"isolation", "--phases", "base,x0"}, 2, `phase "x0"`},
		{[]string{"isolation", "--live-rate", "20"}, 2, "write it per second"},
		{[]string{"isolation", "--phase", "100ms"}, 2, "at least 1s"},
		{[]string{"isolation"}, 1, "--brokers"},
		{[]string{"isolation", "--brokers", "127.0.0.1:1"}, 1, "no broker answers at 127.0.0.1:1"},
		{[]string{"throughput", "--modes", "swim"}, 2, `"swim"`},
		{[]string{"partitions", "--partitions", "0"}, 2, "from 1 to"},
		{[]string{"compare"}, 2, "isolation --json"},
		{[]string{"compare", "/dev/null"}, 1, "no result of lagoon-bench isolation"},
		{[]string{"isolate"}, 2, "unknown command"},
		{[]string{"isolation", "--brokers", "127.0.0.1:1", "--old-size", "0B", "--phases", "base,x1"}, 2, "without --old-size"},
		{[]string{"isolation", "--brokers", "127.0.0.1:1", "--live-rate", "0", "--phases", "x1,mixed"}, 2, "without --live-rate"},
		{[]string{"lab", "dwon"}, 2, "unknown command"},
		{[]string{"lab", "up", "--memory", "0B"}, 2, "--memory 0B: at least 32MiB"},
		{[]string{"lab", "measure", "--disk-size", "unlimited"}, 2, "--disk-size"},
		{[]string{"lab", "measure", "--slow-disk-in-memory", "1MiB"}, 2, "--slow-disk-in-memory"},
		{[]string{"lab", "run", "--", "lab", "measure"}, 2, "is not measured in one"},
		{[]string{"readpath", "--cell", "0ms"}, 2, "more than nothing"},
		{[]string{"isolation", "--brokers", "127.0.0.1:1", "--json", "/nowhere/r.json"}, 2, "/nowhere/r.json cannot be written"},
		{[]string{"partitions", "--brokers", "127.0.0.1:1", "--json", "/tmp"}, 2, "/tmp cannot be written"},
	} {
		out, err := exec.Command(bench, c.args...).CombinedOutput()
		if code := exitCode(err); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: code %d, want %d with %q:\n%s", c.args, code, c.code, c.says, out)
		}
	}
}
