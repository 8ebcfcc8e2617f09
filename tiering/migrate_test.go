package tiering_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/tiering"
)

func TestMigrateMovesSegment(t *testing.T) {
	for _, size := range []int{0, 1, 700, 5000, 40_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFixture(t, 1, 12, size)
			var last tiering.Progress
			e := env()
			e.Progress = func(p tiering.Progress) { last = p }
			must(t, tiering.MigrateChunked(t.Context(), f.job(f.ssd, f.hdd), e, testChunk))
			if !f.complete(t, f.hdd) {
				t.Fatal("hdd lacks the segment")
			}
			f.clean(t, f.ssd, false, "ssd")
			f.clean(t, f.hdd, true, "hdd")
			if last.DoneBytes != last.TotalBytes || last.TotalBytes < 2*int64(len(f.files[".log"])) {
				t.Errorf("progress ended at %+v", last)
			}
			if left := append(f.ssd.Unsynced(), f.hdd.Unsynced()...); len(left) > 0 {
				t.Errorf("not durable: %v", left)
			}
			got := tree(t, f.hdd, testDir)["partition.metadata"]
			if want := tree(t, f.ssd, testDir)["partition.metadata"]; got != want {
				t.Errorf("partition.metadata: %q, want %q", got, want)
			}
		})
	}
}

// The default chunk crosses the sync window here.
func TestMigrateLargeSegment(t *testing.T) {
	f := newFixture(t, 2, 40, 500_000)
	var dropped int64
	e := env()
	e.Drop = func(_ vfs.File, pos, n int64) { dropped += n }
	must(t, tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), e))
	if !f.complete(t, f.hdd) {
		t.Fatal("hdd lacks the segment")
	}
	var want int64
	for _, data := range f.files {
		want += int64(len(data))
	}
	if dropped != want {
		t.Errorf("dropped %d bytes of the target from the cache, wrote %d", dropped, want)
	}
}

// A power cut or a kill at any call leaves one complete copy, and a sweep nothing else; so does a second cut in the sweep.
func TestMigrateCrashAtEveryCall(t *testing.T) {
	const seeds = 20
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("up=%v", up), func(t *testing.T) {
			f := newFixture(t, 3, 9, 3000)
			f.up = up
			f.crashAtEveryCall(t, seeds)
		})
	}
}

func (f *fixture) crashAtEveryCall(t *testing.T, seeds uint64) {
	count := &vfs.PowerCut{}
	must(t, f.migrateOn(t, f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true}), count))
	if count.Points() < 20 {
		t.Fatalf("only %d points", count.Points())
	}
	moved := map[bool]int{}
	for point := int64(1); point <= count.Points(); point++ {
		for seed := range seeds {
			for mode, opt := range map[string]*vfs.CrashOptions{
				"kill":   nil,
				"lost":   {Seed: seed},
				"random": {Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true},
				"all":    {Seed: seed, KeepPercent: 100},
			} {
				what := fmt.Sprintf("point %d seed %d %s", point, seed, mode)
				moved[f.crashAt(t, point, seed, opt, what)]++
			}
		}
	}
	if moved[true] == 0 || moved[false] == 0 {
		t.Errorf("outcomes %v: a crash before and after the commit should differ", moved)
	}
}

func (f *fixture) migrateOn(t testing.TB, ssd, hdd *vfs.Mem, cut *vfs.PowerCut) error {
	return tiering.MigrateChunked(t.Context(), f.job(vfs.WithFaults(ssd, cut), vfs.WithFaults(hdd, cut)), env(), testChunk)
}

// crashAt runs to a point, crashes, sweeps with a second crash somewhere in it, sweeps again, and migrates if need be.
func (f *fixture) crashAt(t testing.TB, point int64, seed uint64, opt *vfs.CrashOptions, what string) (moved bool) {
	t.Helper()
	crash := func(m *vfs.Mem) *vfs.Mem {
		if opt == nil {
			return m.Kill()
		}
		return m.Crash(*opt)
	}
	ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true, Seed: seed}), f.hdd.Crash(vfs.CrashOptions{Live: true, Seed: seed})
	_ = f.migrateOn(t, ssd, hdd, &vfs.PowerCut{After: point}) // the cut, or nil when it came after everything
	ssd, hdd = crash(ssd), crash(hdd)

	cut := &vfs.PowerCut{After: 1 + int64(seed%5)}
	_, err := f.sweep(vfs.WithFaults(ssd, cut), vfs.WithFaults(hdd, cut))
	if err != nil && !errors.Is(err, vfs.ErrPowerCut) {
		t.Fatalf("%s: sweep: %v", what, err)
	}
	// The sweep is cut short: half of the time by a kill, else the power goes, and with it what a process killed before
	// had not synced.
	power := vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true}
	if seed%2 == 0 {
		ssd, hdd = ssd.Kill(), hdd.Kill()
	} else {
		ssd, hdd = ssd.Crash(power), hdd.Crash(power)
	}
	moved = f.oneCopy(t, ssd, hdd, what)
	if !moved {
		must(t, f.migrateOn(t, ssd, hdd, &vfs.PowerCut{}))
	}
	// What is done by now has to stand, whatever was left unsynced on the way here. Upwards it may be taken back: what a
	// sweep that was killed had not synced brings the colder copy again, whole, and that stays.
	if !f.oneCopy(t, ssd.Crash(vfs.CrashOptions{}), hdd.Crash(vfs.CrashOptions{}), what+", again") && !f.up {
		t.Fatalf("%s: the segment is back in ssd", what)
	}
	return moved
}

// Any one call, or all from some call on, failing with EIO or ENOSPC: an error means that the old copy is untouched, nil
// that the new one is whole; one failure leaves nothing behind even without a sweep.
func TestMigrateFaultAtEveryCall(t *testing.T) {
	f := newFixture(t, 4, 9, 3000)
	probe := &vfs.Fault{Nth: 1 << 40}
	run := func(fault *vfs.Fault, ssd, hdd *vfs.Mem) error {
		return tiering.MigrateChunked(t.Context(), f.job(vfs.WithFaults(ssd, fault), vfs.WithFaults(hdd, fault)), env(), testChunk)
	}
	must(t, run(probe, f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})))
	failed := 0
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC, &vfs.ShortWrite{Bytes: 100, Err: syscall.ENOSPC}} {
		for _, sticky := range []bool{false, true} {
			for nth := int64(1); nth <= probe.Seen(); nth++ {
				what := fmt.Sprintf("call %d of %d fails with %v, sticky %v", nth, probe.Seen(), cause, sticky)
				ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})
				fault := &vfs.Fault{Nth: nth, Err: cause, Sticky: sticky}
				err := run(fault, ssd, hdd)
				if fault.Fired() == 0 {
					t.Fatalf("%s: did not happen", what)
				}
				if err != nil {
					failed++
					var step *tiering.StepError
					if !errors.As(err, &step) {
						t.Fatalf("%s: no step in %v", what, err)
					}
					if !f.complete(t, ssd) {
						t.Fatalf("%s: %v, but ssd is not whole: %v", what, err, names(t, ssd))
					}
					if !sticky && !errors.Is(err, cause) {
						t.Fatalf("%s: got %v", what, err)
					}
				} else if !f.complete(t, hdd) {
					t.Fatalf("%s: nil, but hdd is not whole: %v", what, names(t, hdd))
				}
				if err != nil && !sticky && !strings.Contains(err.Error(), "unfinished copy") {
					f.clean(t, hdd, false, what)
				}
				f.oneCopy(t, ssd.Kill(), hdd.Kill(), what)
			}
		}
	}
	if int64(failed) < 3*probe.Seen() {
		t.Errorf("%d failures of %d calls: the faults hardly matter", failed, probe.Seen())
	}
}

// A tier that fills up at any byte: error, old copy untouched, nothing left.
func TestMigrateDiskFull(t *testing.T) {
	f := newFixture(t, 5, 9, 3000)
	for capacity := int64(4096); capacity < 4*int64(len(f.files[".log"])); capacity += 4096 {
		hdd := vfs.NewMem(1)
		hdd.SetCapacity(capacity)
		ssd := f.ssd.Crash(vfs.CrashOptions{Live: true})
		err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), env(), testChunk)
		if err == nil {
			if capacity < int64(len(f.files[".log"])) {
				t.Fatalf("capacity %d: moved %d bytes", capacity, len(f.files[".log"]))
			}
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("capacity %d: %v", capacity, err)
		}
		f.clean(t, hdd, false, fmt.Sprintf("capacity %d", capacity))
		if !f.complete(t, ssd) {
			t.Fatalf("capacity %d: ssd is not whole", capacity)
		}
	}
}

// gate counts transfers and ends the context at one of them.
type gate struct {
	calls, stopAt int
	stop          context.CancelFunc
	open          int
	worst         int64
}

func (g *gate) Step() int64 { return tiering.ChunkBytes }

func (g *gate) Wait(ctx context.Context, tr tiering.Transfer) (func(), error) {
	g.calls++
	g.worst = max(g.worst, tr.Bytes)
	if g.calls == g.stopAt {
		g.stop()
	}
	g.open++
	return func() { g.open-- }, nil
}

func TestMigrateCancelledAtEveryChunk(t *testing.T) {
	f := newFixture(t, 6, 9, 3000)
	for stopAt := 1; ; stopAt++ {
		ctx, stop := context.WithCancel(t.Context())
		ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})
		g := &gate{stopAt: stopAt, stop: stop}
		e := env()
		e.Gate = g
		e.Publish = func(ctx context.Context, _ tiering.Job) error { return ctx.Err() }
		err := tiering.MigrateChunked(ctx, f.job(ssd, hdd), e, testChunk)
		stop()
		if g.open != 0 || g.worst > testChunk {
			t.Fatalf("stop at %d: %d transfers not ended, largest %d", stopAt, g.open, g.worst)
		}
		if g.calls < stopAt {
			must(t, err)
			if stopAt < 15 {
				t.Fatalf("only %d transfers", g.calls)
			}
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stop at %d: %v", stopAt, err)
		}
		if !f.complete(t, ssd) {
			t.Fatalf("stop at %d: ssd is not whole", stopAt)
		}
		f.clean(t, hdd, false, fmt.Sprintf("stop at %d", stopAt))
	}
}

func TestMigrateRefusals(t *testing.T) {
	f := newFixture(t, 7, 3, 500)
	t.Run("target is taken", func(t *testing.T) {
		must(t, f.hdd.MkdirAll(testDir))
		must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(".log"), []byte("something")))
		err := tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env())
		if !errors.Is(err, tiering.ErrOccupied) || !f.complete(t, f.ssd) {
			t.Fatalf("got %v", err)
		}
		if got := tree(t, f.hdd, testDir)[segmentFile(".log")[len(testDir)+1:]]; got != "something" {
			t.Fatalf("the file that was there is now %q", got)
		}
		must(t, f.hdd.Remove(segmentFile(".log")))
	})
	t.Run("directory of another topic id", func(t *testing.T) {
		must(t, vfs.WriteFileAtomic(f.hdd, testDir+"/partition.metadata", []byte("version: 0\ntopic_id: BBBBBBBBBBBBBBBBBBBBBQ\n")))
		err := tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env())
		if !errors.Is(err, tiering.ErrOccupied) || !f.complete(t, f.ssd) {
			t.Fatalf("got %v", err)
		}
		must(t, f.hdd.Remove(testDir+"/partition.metadata"))
	})
	t.Run("segment is gone", func(t *testing.T) {
		job := f.job(f.ssd, f.hdd)
		job.Base++
		if err := tiering.Migrate(t.Context(), job, env()); !errors.Is(err, tiering.ErrGone) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("publish says no", func(t *testing.T) {
		e := env()
		e.Publish = func(context.Context, tiering.Job) error { return tiering.ErrGone }
		e.Retire = func(tiering.Job, func() error) { t.Error("retired without being published") }
		err := tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), e)
		if !errors.Is(err, tiering.ErrGone) || !f.complete(t, f.ssd) {
			t.Fatalf("got %v", err)
		}
		f.clean(t, f.hdd, false, "hdd")
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, job := range []tiering.Job{{}, {Dir: "../x", From: tiersOf(f.ssd, f.hdd)[0], To: tiersOf(f.ssd, f.hdd)[1]},
			{Dir: "x", Base: -1, From: tiersOf(f.ssd, f.hdd)[0], To: tiersOf(f.ssd, f.hdd)[1]}} {
			if err := tiering.Migrate(t.Context(), job, env()); err == nil {
				t.Errorf("%+v was accepted", job)
			}
		}
		if err := tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), tiering.Env{}); err == nil {
			t.Error("an empty Env was accepted")
		}
	})
}

// A segment that retention deletes while it is copied is gone, and no failure: its files are, for who opens or reads them.
func TestMigrateDeletedMeanwhile(t *testing.T) {
	for _, suffix := range []string{".index", ".timeindex", ".log"} {
		for _, kind := range []vfs.Kind{vfs.OpOpen, vfs.OpRead} {
			f := newFixture(t, 13, 3, 500)
			deleted := vfs.WithFaults(f.ssd, vfs.InjectorFunc(func(op vfs.Op) error {
				if op.Kind == kind && op.Name == segmentFile(suffix) {
					return fs.ErrNotExist
				}
				return nil
			}))
			if err := tiering.Migrate(t.Context(), f.job(deleted, f.hdd), env()); !errors.Is(err, tiering.ErrGone) {
				t.Errorf("%s %s: %v", kind, suffix, err)
			}
			f.clean(t, f.hdd, false, "hdd")
		}
	}
}

// An empty segment is no reason to fail.
func TestMigrateEmptySegment(t *testing.T) {
	f := newFixture(t, 11, 0, 0)
	must(t, tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env()))
	f.clean(t, f.ssd, false, "ssd")
	f.clean(t, f.hdd, true, "hdd")
}

// What an attempt left that could not clean up does not stop the next one.
func TestMigrateOverLeftovers(t *testing.T) {
	f := newFixture(t, 8, 3, 500)
	must(t, f.hdd.MkdirAll(testDir))
	for _, suffix := range []string{".log.migrating", ".index.migrating", ".index", ".timeindex"} {
		must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(suffix), []byte("old")))
	}
	must(t, tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env()))
	f.clean(t, f.hdd, true, "hdd")
	if !f.complete(t, f.hdd) {
		t.Fatal("hdd is not whole")
	}
}

// Indexes are derived: a segment without them moves without them, and an adopted .txnindex moves along.
func TestMigrateCompanions(t *testing.T) {
	f := newFixture(t, 9, 3, 500)
	for _, suffix := range []string{".index", ".timeindex"} {
		must(t, f.ssd.Remove(segmentFile(suffix)))
		delete(f.files, suffix)
	}
	f.files[".txnindex"] = make([]byte, 34)
	f.install(t)
	must(t, tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env()))
	f.clean(t, f.ssd, false, "ssd")
	f.clean(t, f.hdd, true, "hdd")
	if !f.complete(t, f.hdd) {
		t.Fatal("hdd is not whole")
	}
}

// Without the epoch cache, epochs at least must not fall.
func TestMigrateEpochFalls(t *testing.T) {
	f := newFixture(t, 12, 3, 100)
	log := slices.Clone(f.files[".log"])
	log[f.bounds[2]+15]--
	must(t, vfs.WriteFileAtomic(f.ssd, segmentFile(".log"), log))
	job := f.job(f.ssd, f.hdd)
	job.EpochAt = nil
	err := tiering.Migrate(t.Context(), job, env())
	if corrupt, ok := tiering.SourceCorrupt(err, "ssd"); !ok || corrupt.Pos != f.bounds[2] {
		t.Fatalf("got %v", err)
	}
}

// A compacted segment has gaps; whoever says that it has none is contradicted.
func TestMigrateGaps(t *testing.T) {
	f := newFixture(t, 10, 1, 100)
	f.files = files{".log": appendBatch(f.files[".log"], f.next+5, 2, 1_700_000_000_000, nil)}
	f.next += 7
	must(t, f.ssd.Remove(segmentFile(".index")))
	must(t, f.ssd.Remove(segmentFile(".timeindex")))
	f.install(t)
	err := tiering.Migrate(t.Context(), f.job(f.ssd, f.hdd), env())
	if _, ok := tiering.SourceCorrupt(err, "ssd"); !ok {
		t.Fatalf("dense: got %v", err)
	}
	job := f.job(f.ssd, f.hdd)
	job.Dense = false
	must(t, tiering.Migrate(t.Context(), job, env()))
	if !f.complete(t, f.hdd) {
		t.Fatal("hdd is not whole")
	}
}
