package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

const mib = 1 << 20

// start runs a broker that takes what the measurements bring. Everything it wrote goes with the test.
func start(t testing.TB, set ...string) *lagoontest.Broker {
	t.Helper()
	opt := lagoontest.Options{Dir: t.TempDir(), Set: append([]string{"log.level=warn"}, set...)}
	if dir := os.Getenv("LAGOON_BENCH_DIR"); dir != "" {
		var err error
		if opt.Dir, err = os.MkdirTemp(dir, "lagoon-bench-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(opt.Dir); err != nil {
				t.Error(err)
			}
		})
	}
	return lagoontest.Start(t, opt)
}

func dial(t testing.TB, b lagoontest.Cluster, clientID string) *rawkafka.Conn {
	t.Helper()
	c, err := rawkafka.Dial(b.Bootstrap(), clientID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func createTopic(t testing.TB, b *lagoontest.Broker, name string, partitions int32, configs ...string) {
	t.Helper()
	c := dial(t, b, "admin")
	defer c.Close()
	if err := c.CreateTopic(name, partitions, configs...); err != nil {
		t.Fatal(err)
	}
}

// needFiles skips what opens more files than this process may.
func needFiles(t testing.TB, n int) {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Max >= uint64(n) {
		return
	}
	why := fmt.Sprintf("%d open files are allowed, %d are needed", files.Max, n)
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// ticksPerSecond is USER_HZ, which Linux gives to user space on every architecture that Go supports.
const ticksPerSecond = 100

// cpuSeconds is the processor time, user and system, that a process has used so far.
func cpuSeconds(t testing.TB, pid int) float64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The command may hold blanks and parentheses: fields are counted from the last parenthesis. Then utime is the 12th, stime the 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / ticksPerSecond
}

// memory is a line of /proc/PID/status, such as VmRSS or RssAnon, in bytes.
func memory(t testing.TB, pid int, name string) int64 {
	t.Helper()
	n, err := readMemory(pid, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func readMemory(pid int, name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// peak samples the anonymous memory of a process until stop, which returns the largest sample.
func peak(t testing.TB, pid int) (stop func() int64) {
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var top int64
		for {
			if n, err := readMemory(pid, "RssAnon"); err == nil {
				top = max(top, n)
			}
			select {
			case <-tick.C:
			case <-done:
				result <- top
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		top := <-result
		if top == 0 {
			t.Fatal("no sample of the memory")
		}
		return top
	}
}

// median is the upper one of two in the middle.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// hold reports whether a figure holds its bound. A benchmark does not fail on a busy machine: it shows what was missed.
func hold(b *testing.B, figure, bound float64) {
	b.Helper()
	missed := 0.0
	if figure > bound {
		missed = 1
		b.Logf("%.3f, bound %.3f", figure, bound)
	}
	b.ReportMetric(missed, "missed")
}
