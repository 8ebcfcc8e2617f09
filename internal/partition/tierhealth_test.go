package partition_test

import (
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

func TestFillETA(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		every time.Duration
		rooms []int64
		want  float64
		known bool
	}{
		{"nothing was looked at", time.Second, nil, 0, false},
		{"one look", time.Second, []int64{mib}, 0, false},
		{"half a minute", 10 * time.Second, []int64{40, 30, 20, 10}, 0, false},
		{"a minute, steadily", 10 * time.Second, []int64{700, 600, 500, 400, 300, 200, 100}, 10, true},
		{"it empties", 10 * time.Second, []int64{100, 200, 300, 400, 500, 600, 700}, math.Inf(1), true},
		{"nothing changes", 30 * time.Second, []int64{mib, mib, mib}, math.Inf(1), true},
		{"full", 30 * time.Second, []int64{200, 100, 0}, 0, true},
		{"below its reserve", 30 * time.Second, []int64{100, 200, -100}, 0, true},
		{"full, and it empties", 30 * time.Second, []int64{-300, -200, -100}, 0, true},
		// Segments of 4 MiB each 20 s, seen each 10 s: 0.2 MiB/s, whatever the last step was.
		{"in steps", 10 * time.Second, []int64{40 * mib, 36 * mib, 36 * mib, 32 * mib, 32 * mib, 28 * mib, 28 * mib, 24 * mib}, 24 / 0.2, true},
		// A migration gives back at once what came in during a minute.
		{"a saw", 30 * time.Second, []int64{60, 30, 0 + 60, 30, 60}, math.Inf(1), true},
	} {
		got, known := partition.FillETA(c.every, c.rooms...)
		if known != c.known || got != c.want && (math.IsInf(c.want, 1) || math.Abs(got-c.want) > 0.15*c.want) {
			t.Errorf("%s: %.3g s, %v; want %.3g s, %v", c.name, got, known, c.want, c.known)
		}
	}
}

// TestFillTrendForgets: what is older than five minutes does not count, and looks are kept ten seconds apart.
func TestFillTrendForgets(t *testing.T) {
	var rooms []int64
	for i := range int64(1000) {
		rooms = append(rooms, 1_000_000+1000*min(i, 600)-100*max(0, i-600)) // empties for ten minutes, then fills
	}
	if got, known := partition.FillTrend(rooms[:600]...); !known || !math.IsInf(got, 1) {
		t.Errorf("while it empties: %v s, %v", got, known)
	}
	left := float64(1_600_000-390*100) / 100 // at the last look that is kept
	if got, known := partition.FillTrend(rooms[:1000]...); !known || math.Abs(got-left) > 1 {
		t.Errorf("while it fills: %v s, %v; want %v s", got, known, left)
	}
	if got, known := partition.FillTrend(rooms[:60]...); known {
		t.Errorf("told before a minute was over: %v s", got)
	}
}

// labelled is the sample of a family of counters or gauges with one label's value, 0 without one.
func labelled(t *testing.T, reg *prometheus.Registry, name, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == value {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

// TestTailDelayHasItsCause: what a real-time reader waits for its device is counted by what else the device did, and cold reads' time on
// the device is counted beside.
func TestTailDelayHasItsCause(t *testing.T) {
	const hang = 3 * time.Second
	for cause, beside := range map[string]func(t *testing.T, s *partition.Store, l *partition.Log){
		"unknown": nil,
		"catchup_io": func(t *testing.T, _ *partition.Store, l *partition.Log) {
			get(t, l, partition.ReaderRef{ClientID: "backfill"}, 0)
		},
		"writeback": func(t *testing.T, _ *partition.Store, l *partition.Log) { produce(t, l, batch("new", 1, 100, nil, 1)) },
	} {
		t.Run(cause, func(t *testing.T) {
			var hangs atomic.Bool
			var ahead atomic.Int64 // of the store's clock
			hung, release := make(chan vfs.Op, 64), make(chan struct{})
			disk := vfs.InjectorFunc(func(op vfs.Op) error {
				if hangs.Load() && strings.HasSuffix(op.Name, ".log") && (op.Kind == vfs.OpSync || op.Kind == vfs.OpRead && op.Len > 64<<10) {
					hung <- op
					<-release
				}
				return nil
			})
			reg := prometheus.NewRegistry()
			s := open(t, func(o *partition.Options) {
				o.Registerer = reg
				o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			}, vfs.WithFaults(osFS(t), disk))
			l, _ := coldLog(t, s, 20<<20, 16)
			waitFor(t, "the last commit has ended", func() bool { return counter(t, reg, "lagoon_tier_oldest_io_seconds") == 0 })
			tail := l.Offsets().End - 256 // less than the megabyte from which on a reader lags, and in the last chunk: none is read ahead
			segments := l.Segments()
			last := segments[len(segments)-1].File
			hangs.Store(true)
			done := make(chan struct{}, 2)
			work := 1
			if beside != nil {
				work++
				go func() { beside(t, s, l); done <- struct{}{} }()
				<-hung
			}
			go func() { get(t, l, partition.ReaderRef{ClientID: "tail"}, tail); done <- struct{}{} }()
			for op := <-hung; op.Kind != vfs.OpRead || op.Name != last; op = <-hung { // others read ahead
			}
			ahead.Store(int64(hang))
			hangs.Store(false)
			close(release)
			for range work {
				<-done
			}
			waitFor(t, "what was read ahead is there", func() bool { return counter(t, reg, "lagoon_tier_oldest_io_seconds") == 0 })
			for _, other := range []string{"catchup_io", "migration", "writeback", "unknown"} {
				got := labelled(t, reg, "lagoon_tail_delay_seconds_total", other)
				if other == cause && got < hang.Seconds() || other != cause && got != 0 {
					t.Errorf("%s: %.3f s", other, got)
				}
			}
			took := labelled(t, reg, "lagoon_catchup_io_seconds_total", "t0")
			if (took >= hang.Seconds()) != (cause == "catchup_io") {
				t.Errorf("cold reads had the device for %.3f s", took)
			}
			closeStore(t, s)
		})
	}
}

// TestTailRefaults: bytes count as lost that were appended since the start, for a reader in real time, and no others.
func TestTailRefaults(t *testing.T) {
	reg, disk := prometheus.NewRegistry(), osFS(t)
	s := open(t, func(o *partition.Options) { o.Registerer = reg }, disk)
	l, _ := coldLog(t, s, 20<<20, 16)
	get(t, l, partition.ReaderRef{ClientID: "backfill"}, 0)
	if n := counter(t, reg, "lagoon_tail_refault_bytes_total"); n != 0 {
		t.Errorf("%.0f bytes for a lagging reader", n)
	}
	tail := l.Offsets().End - 32
	data, _ := get(t, l, partition.ReaderRef{ClientID: "tail"}, tail)
	if n := counter(t, reg, "lagoon_tail_refault_bytes_total"); n < float64(len(data)) || n > 1<<20 {
		t.Errorf("%.0f bytes for %d that were read", n, len(data))
	}
	closeStore(t, s)

	reg = prometheus.NewRegistry()
	s = open(t, func(o *partition.Options) { o.Registerer = reg }, disk)
	cfg := config()
	cfg.SegmentBytes, cfg.MaxMessageBytes = 8<<20, 4<<20
	l = load(t, s, cfg, 1)
	for _, sv := range l.Segments() {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
	}
	get(t, l, partition.ReaderRef{ClientID: "tail"}, tail)
	if n, cold := counter(t, reg, "lagoon_tail_refault_bytes_total"), counter(t, reg, "lagoon_tail_cold_reads_total"); n != 0 || cold == 0 {
		t.Errorf("%.0f bytes that were never in the page cache, in %.0f misses", n, cold)
	}
	closeStore(t, s)
}

// TestTierErrorsAreCounted: what the kernel refuses counts for the log directory that it is of, by what it was for.
func TestTierErrorsAreCounted(t *testing.T) {
	var fails atomic.Int64 // a vfs.Kind
	disk := vfs.InjectorFunc(func(op vfs.Op) error {
		if op.Kind == vfs.Kind(fails.Load()) && strings.HasSuffix(op.Name, ".log") && (op.Kind != vfs.OpRead || op.Len > 64<<10) {
			return syscall.EIO
		}
		return nil
	})
	reg := prometheus.NewRegistry()
	s := open(t, func(o *partition.Options) { o.Registerer = reg }, vfs.WithFaults(osFS(t), disk), osFS(t))
	l, _ := coldLog(t, s, 20<<20, 16)
	if n := counter(t, reg, "lagoon_tier_errors_total"); n != 0 {
		t.Errorf("%.0f errors of a sound device", n)
	}
	fails.Store(int64(vfs.OpRead))
	w := partition.NewWatch()
	defer w.Close()
	for {
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "backfill"}, MaxBytes: 1 << 20, MustServe: true, Watch: w})
		if res.Chunk != nil {
			t.Fatal("bytes that cannot be read were served")
		}
		if errors.Is(err, syscall.EIO) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		<-w.C()
	}
	fails.Store(int64(vfs.OpSync))
	a, err := l.Append(t.Context(), partition.AppendRequest{Records: batch("new", 1, 100, nil, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Durable(t.Context(), a.Next); !errors.Is(err, partition.ErrFenced) {
		t.Fatalf("sync: %v", err)
	}
	const name = "lagoon_tier_errors_total"
	// What was read ahead may fail a little later, so that no two looks at reads need agree.
	if read, sync := labelled(t, reg, name, "read"), labelled(t, reg, name, "sync"); read == 0 || sync != 1 {
		t.Errorf("%.0f reads and %.0f syncs", read, sync)
	}
	for _, other := range []string{"open", "append", "write", "t1"} {
		if n := labelled(t, reg, name, other); n != 0 {
			t.Errorf("%.0f errors of %s", n, other)
		}
	}
	_ = s.Close(t.Context()) // says that the directory is fenced
}
