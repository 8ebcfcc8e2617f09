package tiering_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"

	"github.com/prometheus/client_golang/prometheus"
)

// bench is a Migrator over memory tiers, with segments of topic "orders", partition 3, and what it told.
type bench struct {
	t        *testing.T
	f        *fixture
	m        *tiering.Migrator
	ssd, hdd vfs.FS
	registry *prometheus.Registry

	mu     sync.Mutex
	events []string
	gate   tiering.Gate
	gone   atomic.Bool
	open   func(vfs.FS, string) (tiering.Reader, error)
}

func newBench(t *testing.T, change func(*bench, *tiering.Options)) *bench {
	t.Helper()
	b := &bench{t: t, f: newFixture(t, 40, 6, 500), registry: prometheus.NewRegistry()}
	b.ssd, b.hdd = b.f.ssd, b.f.hdd
	opt := tiering.Options{Registerer: b.registry, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Prepare: b.prepare,
		MinBackoff: time.Second, MaxBackoff: 8 * time.Second,
		Events: tiering.Events{
			Begin: func(m tiering.Move) { b.tell("begin %d %s", m.Base, m.To) },
			End: func(m tiering.Move, o tiering.Outcome) {
				result := "moved"
				if o.Err != nil {
					result = "failed"
				}
				b.tell("end %d %s", m.Base, result)
			},
			Removed: func(m tiering.Move, err error) { b.tell("removed %d %v", m.Base, err) },
			Corrupt: func(m tiering.Move, err *segment.CorruptError) { b.tell("corrupt %d", m.Base) },
		}}
	if change != nil {
		change(b, &opt)
	}
	opt.Tiers = append(tiersOf(b.ssd, b.hdd), tiering.Tier{Name: "object", FS: vfs.NewMem(7)})
	m, err := tiering.NewMigrator(opt)
	must(t, err)
	b.m = m
	return b
}

func (b *bench) tell(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf(format, args...))
}

func (b *bench) told() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.events, "; ")
}

func (b *bench) prepare(_ context.Context, move tiering.Move) (tiering.Job, tiering.Env, error) {
	if b.gone.Load() {
		return tiering.Job{}, tiering.Env{}, tiering.ErrGone
	}
	job := b.f.job(b.ssd, b.hdd)
	job.Base = move.Base
	e := env()
	e.Gate, e.Open = b.gate, b.open
	return job, e, nil
}

// start runs the migrator until the test's context ends.
func (b *bench) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.m.Run(ctx) }()
	return func() {
		cancel()
		must(b.t, <-done)
	}
}

func (b *bench) move(base segment.Offset, cause tiering.Cause) tiering.Move {
	return tiering.Move{Topic: "orders", Partition: 3, Base: base, SizeBytes: int64(len(b.f.files[".log"])), From: "ssd", To: "hdd",
		Cause: cause, Reason: "test"}
}

func (b *bench) view(state tiering.State) (v tiering.View, ok bool) {
	for _, v := range b.m.Snapshot().Migrations {
		if v.State == state {
			return v, true
		}
	}
	return tiering.View{}, false
}

func (b *bench) mustView(state tiering.State) tiering.View {
	b.t.Helper()
	v, ok := b.view(state)
	if !ok {
		b.t.Fatalf("no migration is %s: %+v", state, b.m.Snapshot())
	}
	return v
}

func (b *bench) expect(events string) {
	b.t.Helper()
	if got := b.told(); got != events {
		b.t.Fatalf("events\n got %s\nwant %s", got, events)
	}
}

func (b *bench) metric(name string, want float64, labels ...string) {
	b.t.Helper()
	families, err := b.registry.Gather()
	must(b.t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var values []string
			for _, label := range m.GetLabel() {
				values = append(values, label.GetValue())
			}
			if slices.Equal(values, labels) {
				got := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				if got != want {
					b.t.Errorf("%s%v = %v, want %v", name, labels, got, want)
				}
				return
			}
		}
	}
	if want != 0 {
		b.t.Errorf("no metric %s%v", name, labels)
	}
}

func TestMigratorMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		move := b.move(testBase, tiering.CauseAge)
		b.m.Offer([]tiering.Move{move}, nil)
		b.metric("lagoon_migrations", 1, "ssd", "queued", "hdd")
		b.metric("lagoon_migration_backlog_bytes", float64(move.SizeBytes))
		time.Sleep(3 * time.Second) // virtual
		b.metric("lagoon_migration_oldest_eligible_seconds", 3)
		stop := b.start(t.Context())
		synctest.Wait()
		b.expect("begin 4100 hdd; removed 4100 <nil>; end 4100 moved")
		if !b.f.complete(t, b.f.hdd) {
			t.Error("hdd is not whole")
		}
		v := b.mustView(tiering.StateDone)
		if v.DoneBytes != v.TotalBytes || v.Ended.IsZero() || v.Error != "" || b.m.Snapshot().BacklogBytes != 0 {
			t.Errorf("view %+v", v)
		}
		b.metric("lagoon_migration_duration_seconds", 1, "ssd", "hdd")
		var copied int
		for _, data := range b.f.files {
			copied += len(data)
		}
		b.metric("lagoon_migration_bytes_total", float64(copied), "age", "ssd", "hdd")
		stop()
	})
}

// A full target: the segment is tried again, later and later, then moves when there is room; the device rests meanwhile.
func TestMigratorBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := &vfs.Fault{Kinds: vfs.OpAllocate | vfs.OpWrite, Err: syscall.ENOSPC, Sticky: true}
		full := atomic.Bool{}
		full.Store(true)
		b := newBench(t, func(b *bench, _ *tiering.Options) {
			b.hdd = vfs.WithFaults(b.f.hdd, vfs.InjectorFunc(func(op vfs.Op) error {
				if full.Load() {
					return fault.Fault(op)
				}
				return nil
			}))
		})
		move := b.move(testBase, tiering.CauseWatermark)
		b.m.Offer([]tiering.Move{move}, nil)
		stop := b.start(t.Context())
		begun := time.Now()
		for attempt, wait := range []time.Duration{1, 2, 4, 8, 8} {
			synctest.Wait()
			v := b.mustView(tiering.StateBackoff)
			if v.Attempts != attempt+1 || !strings.Contains(v.Error, "no space left") {
				t.Fatalf("attempt %d: %+v", attempt+1, v)
			}
			if got := time.Until(v.NextTry); got != wait*time.Second {
				t.Fatalf("attempt %d: next try in %v, want %ds", attempt+1, got, wait)
			}
			b.m.Offer([]tiering.Move{move}, nil) // a new plan asks for it again: the wait stays
			synctest.Wait()
			time.Sleep(wait * time.Second)
		}
		synctest.Wait()
		b.metric("lagoon_migration_failures_total", 6, "no_space")
		full.Store(false)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		b.mustView(tiering.StateDone)
		if got := time.Since(begun); got != 31*time.Second {
			t.Errorf("took %v", got)
		}
		stop()
	})
}

// A fault of the target holds up everything that goes there; one of the source only its segment.
func TestMigratorRestsDevice(t *testing.T) {
	for _, target := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, func(b *bench, opt *tiering.Options) {
				opt.Prepare = func(ctx context.Context, move tiering.Move) (tiering.Job, tiering.Env, error) {
					job, env, err := b.prepare(ctx, move)
					job.To.Name = "hdd#1"
					return job, env, err
				}
				fault := &vfs.Fault{Kinds: vfs.OpMkdir | vfs.OpOpen, Err: syscall.EIO, Sticky: true}
				if target {
					b.hdd = vfs.WithFaults(b.f.hdd, fault)
				} else {
					b.ssd = vfs.WithFaults(b.f.ssd, fault)
				}
			})
			for suffix, data := range b.f.files { // a second segment, never mind its content
				must(t, vfs.WriteFileAtomic(b.f.ssd, strings.Replace(segmentFile(suffix), "4100", "4200", 1), data))
			}
			b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge), b.move(4200, tiering.CauseAge)}, nil)
			stop := b.start(t.Context())
			synctest.Wait()
			if tried := strings.Contains(b.told(), "begin 4200"); tried == target {
				t.Errorf("target at fault: %v; %s", target, b.told())
			}
			b.metric("lagoon_migration_failures_total", map[bool]float64{true: 1, false: 2}[target], "io")
			stop()
		})
	}
}

// A damaged source is reported once, looked at once more, and then left alone, whatever the directory is called that it lies in.
func TestMigratorHoldsCorruptSegment(t *testing.T) {
	for _, from := range []string{"ssd", "ssd#1"} {
		t.Run(from, func(t *testing.T) { holdsCorruptSegment(t, from) })
	}
}

func holdsCorruptSegment(t *testing.T, from string) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench, opt *tiering.Options) {
			opt.Prepare = func(ctx context.Context, move tiering.Move) (tiering.Job, tiering.Env, error) {
				job, env, err := b.prepare(ctx, move)
				job.From.Name = from
				return job, env, err
			}
		})
		damaged, err := b.f.ssd.Open(segmentFile(".log"), vfs.ReadWrite)
		must(t, err)
		_, err = damaged.WriteAt([]byte{b.f.files[".log"][100] ^ 4}, 100)
		must(t, errors.Join(err, damaged.SyncData(), damaged.Close()))
		move := b.move(testBase, tiering.CauseAge)
		b.m.Offer([]tiering.Move{move}, nil)
		stop := b.start(t.Context())
		time.Sleep(time.Minute)
		b.m.Offer([]tiering.Move{move}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.expect("begin 4100 hdd; corrupt 4100; end 4100 failed; begin 4100 hdd; end 4100 failed")
		if v := b.mustView(tiering.StateFailed); !strings.Contains(v.Error, "checksum of batch") {
			t.Errorf("view %+v", v)
		}
		s := tiering.Snapshot{Topics: []tiering.TopicState{{Name: "orders", Partitions: []tiering.PartitionState{{Partition: 3,
			Segments: []tiering.SegmentState{{Base: testBase}, {Base: 1}}}}}}}
		b.m.Mark(&s)
		if segs := s.Topics[0].Partitions[0].Segments; !segs[0].Held || segs[1].Held {
			t.Errorf("marked %+v", segs)
		}
		if _, err := b.m.Submit(move); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("ordered by hand: %v", err)
		}
		b.metric("lagoon_migration_failures_total", 2, "corrupt")
		stop()
	})
}

// slowGate takes a second per transfer and can be told apart from a pause.
type slowGate struct{}

func (slowGate) Step() int64 { return tiering.ChunkBytes }

func (slowGate) Wait(ctx context.Context, _ tiering.Transfer) (func(), error) {
	select {
	case <-time.After(time.Second):
		return func() {}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestMigratorPausesAndShowsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate = slowGate{}
		b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge)}, nil)
		stop := b.start(t.Context())
		time.Sleep(6500 * time.Millisecond) // 3 files are copied, the first is being read back
		b.m.Pause("backup is running")
		time.Sleep(time.Hour)
		status := b.m.Snapshot()
		v := b.mustView(tiering.StateRunning)
		if !status.Paused || status.PauseReason != "backup is running" || v.Step != tiering.StepVerify || v.DoneBytes <= v.TotalBytes/2 || v.DoneBytes >= v.TotalBytes {
			t.Fatalf("paused: %+v, %+v", status, v)
		}
		b.m.Resume()
		synctest.Wait()
		if v := b.mustView(tiering.StateRunning); v.BytesPerSecond <= 0 || v.ETA <= 0 || v.ETA > time.Minute {
			t.Errorf("rate %v, eta %v", v.BytesPerSecond, v.ETA)
		}
		time.Sleep(20 * time.Second)
		b.mustView(tiering.StateDone)
		b.metric("lagoon_migration_paused_seconds_total", 3600, "pause")
		stop()
		b.m.Pause("a")
		b.m.Pause("b")
		if s := b.m.Snapshot(); s.PauseReason != "b" {
			t.Errorf("paused for %q", s.PauseReason)
		}
	})
}

func TestMigratorCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate = slowGate{}
		first, second := b.move(testBase, tiering.CauseAge), b.move(testBase+1, tiering.CauseAge)
		b.m.Offer([]tiering.Move{first, second}, nil)
		stop := b.start(t.Context())
		time.Sleep(1500 * time.Millisecond)
		running, waiting := b.mustView(tiering.StateRunning), b.mustView(tiering.StateQueued)
		for _, id := range []uint64{waiting.ID, running.ID} {
			if !b.m.Cancel(id, "not now") {
				t.Errorf("%d was not cancelled", id)
			}
		}
		synctest.Wait()
		if b.m.Cancel(running.ID, "again") || b.m.Cancel(12345, "unknown") {
			t.Error("cancelled what does not run")
		}
		if v := b.mustView(tiering.StateCancelled); !strings.Contains(v.Error, "not now") {
			t.Errorf("view %+v", v)
		}
		b.f.clean(t, b.f.hdd, false, "hdd")
		b.m.Offer([]tiering.Move{first, second}, nil) // held
		synctest.Wait()
		if s := b.m.Snapshot(); s.Waiting != 0 || s.BacklogBytes != 0 {
			t.Errorf("held segments wait: %+v", s)
		}
		time.Sleep(time.Hour)
		b.m.Offer([]tiering.Move{first}, nil) // no longer
		time.Sleep(time.Minute)
		b.mustView(tiering.StateDone)
		stop()
	})
}

// A person's order goes first, overrides a hold, and counts as moving for the planner.
func TestMigratorSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.m.Pause("test")
		b.m.Offer([]tiering.Move{b.move(1, tiering.CauseAge), b.move(testBase, tiering.CauseAge), b.move(2, tiering.CauseAge)}, nil)
		id, err := b.m.Submit(b.move(testBase, ""))
		must(t, err)
		b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge), b.move(2, tiering.CauseAge)}, nil)
		v := b.m.Snapshot().Migrations
		if len(v) != 2 || v[0].ID != id || v[0].Move.Cause != tiering.CauseManual || v[1].Move.Base != 2 {
			t.Fatalf("queue %+v", v)
		}
		s := tiering.Snapshot{Topics: []tiering.TopicState{{Name: "orders", Partitions: []tiering.PartitionState{{Partition: 3,
			Segments: []tiering.SegmentState{{Base: testBase}, {Base: 2}}}}}}}
		b.m.Mark(&s)
		if segs := s.Topics[0].Partitions[0].Segments; !segs[0].Moving || segs[0].MovingTo != 1 || segs[1].Moving {
			t.Errorf("marked %+v", segs)
		}
		for _, bad := range []tiering.Move{{From: "hdd", To: "ssd"}, {From: "ssd", To: "ssd"}, {From: "ssd", To: "tape"}} {
			if _, err := b.m.Submit(bad); err == nil {
				t.Errorf("%+v was accepted", bad)
			}
		}
		stop := b.start(t.Context())
		b.m.Resume()
		synctest.Wait()
		if got := b.told(); !strings.HasPrefix(got, "begin 4100 hdd; removed 4100 <nil>; end 4100 moved") {
			t.Errorf("events %s", got)
		}
		stop()
	})
}

// Deleting a topic: afterwards nothing of it is running or waiting, and nothing was left in the target.
func TestMigratorCancelWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate = slowGate{}
		b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge), b.move(2, tiering.CauseAge)}, nil)
		stop := b.start(t.Context())
		time.Sleep(1500 * time.Millisecond)
		b.gone.Store(true)
		must(t, b.m.CancelWhere(t.Context(), func(m tiering.Move) bool { return m.Topic == "orders" }))
		b.f.clean(t, b.f.hdd, false, "hdd")
		if s := b.m.Snapshot(); s.BacklogBytes != 0 || s.Waiting != 0 {
			t.Errorf("left: %+v", s)
		}
		b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge)}, nil) // a plan made a moment before
		synctest.Wait()
		if s := b.m.Snapshot(); s.BacklogBytes != 0 || s.Waiting != 0 {
			t.Errorf("a segment that is gone waits: %+v", s)
		}
		b.metric("lagoon_migration_failures_total", 0, "other")
		stop()
	})
}

// One migration per device, several devices at once; a stop in the middle leaves no trace.
func TestMigratorOnePerDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate = slowGate{}
		toObject := b.move(9, tiering.CauseAge)
		toObject.From, toObject.To = "hdd", "object"
		must(t, tiering.RemoveSegment(b.f.hdd, ".", 9)) // hdd is usable and has no segment 9: that one is gone at once
		b.m.Offer([]tiering.Move{b.move(testBase, tiering.CauseAge), b.move(1, tiering.CauseAge), toObject}, nil)
		stop := b.start(t.Context())
		time.Sleep(500 * time.Millisecond)
		running := 0
		for _, v := range b.m.Snapshot().Migrations {
			if v.State == tiering.StateRunning {
				running++
			}
		}
		if running != 1 || !strings.Contains(b.told(), "begin 9 object") || strings.Contains(b.told(), "begin 1 ") {
			t.Errorf("%d running: %s", running, b.told())
		}
		stop()
		b.f.clean(t, b.f.hdd, false, "hdd")
		if !b.f.complete(t, b.f.ssd) {
			t.Error("ssd is not whole")
		}
		if err := b.m.Run(t.Context()); err == nil {
			t.Error("Run was accepted twice")
		}
	})
}

func TestMigratorOptions(t *testing.T) {
	prepare := func(context.Context, tiering.Move) (tiering.Job, tiering.Env, error) {
		return tiering.Job{}, tiering.Env{}, nil
	}
	for _, opt := range []tiering.Options{
		{}, {Prepare: prepare}, {Prepare: prepare, Tiers: []tiering.Tier{{Name: "a"}, {Name: "a"}}}, {Prepare: prepare, Tiers: []tiering.Tier{{}}},
		{Prepare: prepare, Tiers: []tiering.Tier{{Name: "a"}}, MinBackoff: time.Hour}, {Tiers: []tiering.Tier{{Name: "a"}}},
	} {
		if _, err := tiering.NewMigrator(opt); err == nil {
			t.Errorf("%+v was accepted", opt)
		}
	}
	registry := prometheus.NewRegistry()
	ok := tiering.Options{Prepare: prepare, Tiers: []tiering.Tier{{Name: "a"}}, Registerer: registry}
	_, err := tiering.NewMigrator(ok)
	must(t, err)
	if _, err := tiering.NewMigrator(ok); err == nil {
		t.Error("metrics were registered twice")
	}
}

// TestFailuresAreCountedFromZero: an alert on an increase sees the first failure, too.
func TestFailuresAreCountedFromZero(t *testing.T) {
	families, err := newBench(t, nil).registry.Gather()
	must(t, err)
	var kinds []string
	for _, family := range families {
		if family.GetName() != "lagoon_migration_failures_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			kinds = append(kinds, m.GetLabel()[0].GetValue())
		}
	}
	if want := []string{"corrupt", "io", "no_space", "occupied", "other", "publish"}; !slices.Equal(kinds, want) {
		t.Errorf("kinds of failures before there is one: %q, want %q", kinds, want)
	}
}
