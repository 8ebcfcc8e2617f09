package partition_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// armedFault fails the nth change or read from when it is armed; sticky: and every later one.
type armedFault struct {
	mu     sync.Mutex
	armed  bool
	nth    int64
	sticky bool
	err    error
	kinds  vfs.Kind // 0: all
	seen   int64
	hit    string
}

func (f *armedFault) Fault(op vfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed || f.kinds != 0 && op.Kind&f.kinds == 0 {
		return nil
	}
	if f.seen++; f.seen == f.nth {
		f.hit = fmt.Sprint(op)
	} else if !f.sticky || f.seen < f.nth || f.nth == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", errInjected, f.err)
}

func (f *armedFault) arm(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = on
}

// compactWorld is a log that is ready to be compacted, on a disk with a fault to come.
type compactWorld struct {
	s     *partition.Store
	l     *partition.Log
	k     *keyed
	disk  *vfs.Mem
	fault *armedFault
	reg   *prometheus.Registry
}

func newCompactWorld(t *testing.T, fault *armedFault) *compactWorld {
	w := &compactWorld{k: newKeyed(t, 21), disk: vfs.NewMem(1), fault: fault, reg: prometheus.NewRegistry()}
	w.k.codecs = 4
	w.start(t, vfs.WithFaults(w.disk, fault))
	for range 2 { // the second compaction has a clean part, and delete markers
		for range 22 {
			noErr(t, w.k.write(w.l, w.s.Now().UnixMilli()))
		}
		if w.k.end < 100 {
			w.s.Compact(context.Background())
		}
	}
	return w
}

func (w *compactWorld) start(t *testing.T, fsys vfs.FS) {
	s, err := tryOpen(t, func(o *partition.Options) {
		o.CompactionInterval, o.RetentionInterval, o.Registerer = -1, 1000*time.Hour, w.reg
	}, fsys)
	noErr(t, err)
	w.s, w.l = s, load(t, s, compacted(), 1)
}

// failures is what the metric says.
func (w *compactWorld) failures(t *testing.T) float64 {
	families, err := w.reg.Gather()
	noErr(t, err)
	for _, f := range families {
		if f.GetName() == "lagoon_compaction_failures_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no metric of failed compactions")
	return 0
}

// remnants are files of a swap.
func remnants(t *testing.T, fsys vfs.FS) (out []string) {
	entries, err := fsys.List("orders-0")
	noErr(t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name, segment.CleanedSuffix) || strings.HasSuffix(e.Name, segment.SwapSuffix) {
			out = append(out, e.Name)
		}
	}
	return out
}

// TestCompactNthFailure fails each single call of a compaction, once or from there on, with EIO and with ENOSPC: what was acked is served
// all the time, the failure is shown, the next compaction succeeds and leaves nothing behind, and a crash in between loses nothing. Only
// where a start might find either the old segments or the new one is the directory fenced.
func TestCompactNthFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &armedFault{}
		w := newCompactWorld(t, all)
		all.arm(true)
		w.s.Compact(context.Background())
		all.arm(false)
		w.s.Abandon()
		step := int64(1)
		if !exhaustive {
			step = max(1, all.seen/16)
		}
		cases, shown, fenced := 0, 0, 0
		for nth := min(3, step); nth <= all.seen && !t.Failed(); nth += step {
			for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
				for _, sticky := range []bool{false, true} {
					for _, crash := range []bool{false, true} {
						w := newCompactWorld(t, &armedFault{nth: nth, sticky: sticky, err: cause})
						what := fmt.Sprintf("call %d of %d fails with %v, sticky %t, then a crash %t", nth, all.seen, cause, sticky, crash)
						cases++
						failed := w.failOnce(t, what)
						if isFenced := w.s.Fenced() != nil; isFenced {
							fenced++
						} else if failed {
							shown++
						}
						if !crash && w.s.Fenced() == nil {
							w.next(t, what)
						}
						w.s.Abandon()
						w.restart(t, what, w.disk.Crash(vfs.CrashOptions{Seed: uint64(nth), KeepPercent: vfs.KeepRandom, Tear: true}))
					}
				}
			}
		}
		if shown == 0 || exhaustive && fenced == 0 { // some ten calls of all fence: a sample may pass them by
			t.Errorf("%d cases showed an error, %d a fenced directory: the test looks at nothing", shown, fenced)
		}
		t.Logf("%d calls, every %d: %d cases, %d with an error shown, %d with a fenced directory", all.seen, step, cases, shown, fenced)
	})
}

// failOnce compacts into the fault and looks at what is served and shown.
func (w *compactWorld) failOnce(t *testing.T, what string) (failed bool) {
	before := w.failures(t)
	w.fault.arm(true)
	w.s.Compact(context.Background())
	w.fault.arm(false)
	if err := w.s.Fenced(); err != nil {
		// From the rename on a start may find the new segment. Of sticky faults the first one counts.
		if !slices.ContainsFunc([]string{"rename", "sync", "open sealed segment"}, func(call string) bool { return strings.Contains(err.Error(), call) }) {
			t.Errorf("%s: %s: fenced: %v", what, w.fault.hit, err)
		}
		return true
	}
	cleaned, err := cleanedTo(w.s)
	if n := w.failures(t) - before; (n > 0) != (err != nil) {
		t.Errorf("%s: %s: error %v, %v failures counted", what, w.fault.hit, err, n)
	}
	if err := w.k.check(w.l, cleaned); err != nil {
		t.Errorf("%s: %s: %v", what, w.fault.hit, err)
	}
	if left := remnants(t, w.disk); err == nil && len(left) > 0 {
		t.Errorf("%s: %s: left behind: %v", what, w.fault.hit, left)
	}
	return err != nil
}

// next compacts again, when the log is due again.
func (w *compactWorld) next(t *testing.T, what string) {
	time.Sleep(2 * time.Minute)
	for range 40 { // where the checkpoint alone has failed nothing is dirty
		noErr(t, w.k.write(w.l, w.s.Now().UnixMilli()))
	}
	w.s.Compact(context.Background())
	cleaned, err := cleanedTo(w.s)
	if err := errors.Join(err, w.k.check(w.l, cleaned)); err != nil {
		t.Errorf("%s: %s: the next compaction: %v", what, w.fault.hit, err)
	}
	if left := remnants(t, w.disk); len(left) > 0 {
		t.Errorf("%s: %s: left behind by the next compaction: %v", what, w.fault.hit, left)
	}
}

// restart starts on what a crash left.
func (w *compactWorld) restart(t *testing.T, what string, left *vfs.Mem) {
	w.reg = prometheus.NewRegistry()
	w.start(t, left)
	cleaned, err := cleanedTo(w.s)
	if err := errors.Join(err, w.k.check(w.l, min(cleaned, w.l.Offsets().End))); err != nil {
		t.Errorf("%s: %s: after a start: %v", what, w.fault.hit, err)
	}
	if left := remnants(t, left); len(left) > 0 {
		t.Errorf("%s: %s: left behind after a start: %v", what, w.fault.hit, left)
	}
	w.s.Abandon()
}

// TestCompactionEndsWithThePolicy: a topic that is not compacted any more keeps what it has, also where a compaction is under way.
func TestCompactionEndsWithThePolicy(t *testing.T) {
	hook := &onceAt{kind: vfs.OpWrite, suffix: segment.LogName(0)[20:] + segment.CleanedSuffix}
	disk := osFS(t)
	s := open(t, quietCompaction, vfs.WithFaults(disk, hook))
	cfg := compacted()
	l := load(t, s, cfg, 1)
	k := newKeyed(t, 8)
	for range 100 {
		noErr(t, k.write(l, time.Now().UnixMilli()))
	}
	records := func() (n int) {
		noErr(t, readThrough(l, func(h segment.BatchHeader, _ []byte) { n += int(h.Count) }))
		return n
	}
	before, segments := records(), len(l.Segments())
	hook.arm(func() {
		plain := cfg
		plain.Compact, plain.Delete = false, true
		s.SetConfig("orders", plain)
	})
	s.Compact(context.Background())
	if n := records(); n != before || len(l.Segments()) != segments {
		t.Errorf("%d of %d records, %d of %d segments are left of a topic that was set to cleanup.policy=delete", n, before, len(l.Segments()), segments)
	}
	if left := remnants(t, disk); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	s.SetConfig("orders", cfg)
	s.Compact(context.Background())
	cleaned, err := cleanedTo(s)
	if err != nil || cleaned == 0 {
		t.Errorf("compacted again: up to %d, %v", cleaned, err)
	}
	noErr(t, k.check(l, cleaned))
	closeStore(t, s)
}

// TestMoveOfAHalfCompactedLog: what a compaction has rewritten that came to no end, for an error or a kill, may move between tiers when the
// topic is not compacted any more: the gaps in it are no damage.
func TestMoveOfAHalfCompactedLog(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			hot, cold := osFS(t), osFS(t)
			var groups, armed atomic.Int64
			full := vfs.InjectorFunc(func(op vfs.Op) error {
				if armed.Load() > 0 && op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, ".log"+segment.CleanedSuffix) && groups.Add(1) > 2 {
					return syscall.ENOSPC
				}
				return nil
			})
			change := func(o *partition.Options) { o.CompactionInterval, o.PlanInterval = -1, 20*time.Millisecond }
			s := open(t, change, vfs.WithFaults(hot, full), cold)
			cfg := compacted()
			l := load(t, s, cfg, 1)
			k := newKeyed(t, 8)
			for range 150 {
				noErr(t, k.write(l, time.Now().UnixMilli()))
			}
			before := l.SizeBytes()
			armed.Store(1)
			s.Compact(context.Background())
			armed.Store(0)
			if cleaned, err := cleanedTo(s); err == nil || cleaned > 0 || l.SizeBytes() >= before {
				t.Fatalf("cleaned up to %d, %v, %d bytes of %d", cleaned, err, l.SizeBytes(), before)
			}
			cfg.Compact, cfg.Delete, cfg.LocalRetentionBytes = false, true, 1
			if killed {
				s.Abandon()
				s = open(t, change, hot, cold)
				l = load(t, s, cfg, 1)
			} else {
				s.SetConfig("orders", cfg)
			}
			waitFor(t, "the first segment to move", func() bool {
				if n := s.MoveTotals().Failures; n > 0 {
					t.Fatalf("%d moves have failed", n)
				}
				return l.Segments()[0].Tier == "t1"
			})
			noErr(t, k.check(l, 0))
			closeStore(t, s)
		})
	}
}

// TestCompactWithoutDescriptors: that there is no descriptor for a moment, whichever call meets it, is told or passed over, and takes no directory offline.
func TestCompactWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names = vfs.OpRename | vfs.OpSyncDir | vfs.OpStat // the calls that nothing but names is needed for
		all := &armedFault{kinds: names}
		w := newCompactWorld(t, all)
		all.arm(true)
		w.s.Compact(context.Background())
		all.arm(false)
		w.s.Abandon()
		for nth := int64(1); nth <= all.seen && !t.Failed(); nth++ {
			w := newCompactWorld(t, &armedFault{nth: nth, kinds: names, err: syscall.EMFILE})
			what := fmt.Sprintf("call %d of %d", nth, all.seen)
			w.failOnce(t, what)
			if err := w.s.Fenced(); err != nil {
				t.Errorf("%s: %s: %v", what, w.fault.hit, err)
			} else {
				w.next(t, what)
			}
			w.s.Abandon()
		}
	})
}

// TestOneLogAlwaysOverdue: a log that is due again whenever its compaction has come to its end, such as one to which records come that are older than
// max.compaction.lag.ms, does not keep others from theirs.
func TestOneLogAlwaysOverdue(t *testing.T) {
	var mu sync.Mutex
	var order []string
	grow := func() {}
	hook := vfs.InjectorFunc(func(op vfs.Op) error {
		dir, file, _ := strings.Cut(op.Name, "/")
		if file != segment.LogName(0)+segment.CleanedSuffix {
			return nil
		}
		mu.Lock()
		passes := len(order)
		if op.Kind == vfs.OpCreate {
			order = append(order, dir)
		}
		mu.Unlock()
		if op.Kind == vfs.OpWrite && dir == "orders-0" && passes < 5 {
			grow()
		}
		return nil
	})
	s := open(t, quietCompaction, vfs.WithFaults(osFS(t), hook))
	cfg := compacted()
	cfg.MaxCompactionLagMs = time.Hour.Milliseconds()
	l := load(t, s, cfg, 2)
	other, _ := s.Log("orders", 1)
	k, k2 := newKeyed(t, 5), newKeyed(t, 6)
	old := time.Now().Add(-1000 * time.Hour).UnixMilli()
	for range 60 {
		noErr(t, k.write(l, old))
		noErr(t, k2.write(other, time.Now().UnixMilli()))
	}
	grow = func() {
		for range 40 {
			noErr(t, k.write(l, old))
		}
	}
	s.Compact(t.Context())
	if len(order) < 5 || !slices.Contains(order[:2], "orders-1") {
		t.Errorf("compacted in the order of %v", order)
	}
	closeStore(t, s)
}
