package partition_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// exhaustive runs every cut point with more futures: minutes instead of seconds.
var exhaustive = os.Getenv("LAGOON_EXHAUSTIVE") == "1"

// crashStory has everything that writes: two hot directories and a cold tier, idempotent and plain producers, shared
// commits, rolls, checkpoints, migrations, retention, DeleteRecords, topics made and deleted, a clean stop and a start.
func crashStory() []func(w *world) error {
	cfg := config()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 4000, 600
	lazy := cfg
	lazy.FlushInterval = 2 * time.Second
	var orders, logs, temp *topicTruth
	var a, b, c, lz, d *client
	sendAll := func(acks bool, sizes ...int) func(w *world) error {
		return func(w *world) error {
			for _, size := range sizes {
				for _, cl := range []*client{a, b, c, lz} {
					if err := w.send(cl, 1+size%3, size); err != nil {
						return err
					}
				}
			}
			for _, cl := range []*client{a, b, c, lz} {
				if !acks {
					break
				}
				if err := w.ack(cl); err != nil {
					return err
				}
			}
			return nil
		}
	}
	look := func(w *world) error { w.readAll(); return nil }
	return []func(w *world) error{
		func(w *world) error { return w.open() },
		func(w *world) (err error) { orders, err = w.create("orders", 1, 2, cfg); return err },
		func(w *world) (err error) { logs, err = w.create("logs", 2, 1, lazy); return err },
		func(w *world) error {
			a, b = orders.parts[0].client("a", 7), orders.parts[0].client("b", 0)
			c, lz = orders.parts[1].client("c", 8), logs.parts[0].client("lz", 0)
			return nil
		},
		sendAll(true, 300), sendAll(true, 100, 500), look,
		sendAll(false, 200), sendAll(true, 700, 400),
		func(w *world) error { time.Sleep(6 * time.Second); return nil }, // checkpoints, interval flush
		sendAll(true, 900), sendAll(true, 800), look,
		func(w *world) (err error) { temp, err = w.create("temp", 3, 1, cfg); return err },
		func(w *world) error {
			d = temp.parts[0].client("d", 9)
			return errors.Join(w.send(d, 2, 900), w.send(d, 2, 900), w.ack(d), w.send(d, 2, 900), w.send(d, 2, 900), w.ack(d))
		},
		func(w *world) error { _, err := w.migrate(orders.parts[0]); return err },
		func(w *world) error { _, err := w.migrate(temp.parts[0]); return err },
		look,
		sendAll(true, 600),
		func(w *world) error { return w.trim(orders.parts[0], orders.parts[0].acked*2/3) },
		func(w *world) error { return w.trim(orders.parts[1], orders.parts[1].acked) },
		sendAll(false, 100),
		func(w *world) error { return w.drop(temp) },
		func(w *world) (err error) { temp, err = w.create("temp", 4, 1, cfg); return err },
		func(w *world) error {
			d = temp.parts[0].client("d", 10)
			return errors.Join(w.send(d, 3, 300), w.ack(d))
		},
		sendAll(true, 1000, 900), sendAll(true, 800), look,
		func(w *world) error {
			tight := cfg
			tight.RetentionBytes = 5000
			orders.cfg = tight
			w.s.SetConfig("orders", tight)
			w.retain(orders.parts[0])
			w.retain(orders.parts[1])
			return nil
		},
		sendAll(true, 300), look,
		func(w *world) error { return w.close() },
		func(w *world) error { return w.open() },
		sendAll(true, 700, 900), look,
		func(w *world) error { _, err := w.migrate(orders.parts[1]); return err },
		func(w *world) error { return w.drop(temp) },
		sendAll(true, 800), sendAll(false, 200, 100),
	}
}

// sharedCut is one power supply for all disks.
func sharedCut(cut *vfs.PowerCut) func(int) vfs.Injector {
	return func(int) vfs.Injector { return cut }
}

// tell runs the story up to a failed step. The error of a step counts unless stopped says that the run is over.
func (w *world) tell(steps []func(w *world) error, stopped func() bool) {
	for i, step := range steps {
		err := step(w)
		if w.s != nil {
			synctest.Wait()
		}
		if stopped() {
			return
		}
		if err != nil {
			w.problem("step %d: %v", i, err)
			return
		}
	}
}

// runStory makes new disks and tells the story under a power supply that ends after some mutating calls (0: never).
func runStory(seed uint64, change func(*partition.Options), cut *vfs.PowerCut) (*world, error) {
	w, err := newWorld(newDisks(seed))
	if err != nil {
		return nil, err
	}
	w.inject, w.change = sharedCut(cut), change
	w.tell(crashStory(), cut.Cut)
	w.abandon()
	return w, nil
}

// live goes on with a world after a crash: start, check, clients try again, check, stop cleanly, start, check.
func (w *world) live() {
	if err := w.open(); err != nil {
		w.problem("%v", err)
		return
	}
	defer w.abandon()
	w.verify()
	w.retry()
	if len(w.problems) > 0 {
		return
	}
	if err := w.close(); err != nil {
		w.problem("clean stop: %v", err)
		return
	}
	for i, m := range w.disks {
		if list := m.Unsynced(); len(list) > 0 && !onlyLocks(list) {
			w.problem("after a clean stop disk %d holds unsynced %v", i, list)
		}
	}
	if err := w.open(); err != nil {
		w.problem("after a clean stop: %v", err)
		return
	}
	w.verify()
	if n := w.s.Progress(); n.ScannedBytes > 0 {
		w.problem("a clean start scanned %d bytes", n.ScannedBytes)
	}
}

// onlyLocks: the lock file's name and the names of removed files need not survive.
func onlyLocks(list []string) bool {
	for _, s := range list {
		if !strings.HasPrefix(s, "name ") {
			return false
		}
	}
	return true
}

// future is what a power cut may leave, and how recovery fares.
type future struct {
	opt   vfs.CrashOptions
	again int // power cuts during recovery
}

func futures(rng *rand.Rand) []future {
	list := []future{
		{opt: vfs.CrashOptions{KeepPercent: 0}},
		{opt: vfs.CrashOptions{Seed: rng.Uint64(), KeepPercent: vfs.KeepRandom, Tear: true}},
		{opt: vfs.CrashOptions{Seed: rng.Uint64(), KeepPercent: vfs.KeepRandom, Tear: true}, again: 1 + rng.IntN(3)},
	}
	if exhaustive {
		list = append(list, future{opt: vfs.CrashOptions{KeepPercent: 100}})
		for range 4 {
			list = append(list, future{opt: vfs.CrashOptions{Seed: rng.Uint64(), KeepPercent: vfs.KeepRandom, Tear: rng.IntN(2) == 0}, again: rng.IntN(4)})
		}
	}
	return list
}

// recoverInterrupted starts the broker under power cuts, again and again, and gives the disks that are left in the end.
func (w *world) recoverInterrupted(rng *rand.Rand, times int) {
	for range times {
		cut := &vfs.PowerCut{After: 1 + rng.Int64N(40)}
		w.inject = sharedCut(cut)
		err := w.open()
		if err == nil && !cut.Cut() {
			w.readAll() // what recovery shows must last
		}
		if err != nil && !cut.Cut() {
			w.problem("interrupted recovery: %v", err)
		}
		w.abandon()
		w.disks = w.disks.crash(vfs.CrashOptions{Seed: rng.Uint64(), KeepPercent: vfs.KeepRandom, Tear: true})
	}
	w.inject = nil
}

// TestPowerCutAnywhere cuts the power at every mutating call of the story (every few in a short run), lets the disks keep
// different parts of what was not synced, and checks every promise of D.1 after the restart; recovery is cut as well.
func TestPowerCutAnywhere(t *testing.T) {
	r := eachCommit(t, powerCutAnywhere)
	if r.rounds.Load() > 0 && (r.writtenBytes.Load() == 0 || r.skipped.Load() == 0) {
		t.Errorf("replays wrote %d bytes and left out %d entries", r.writtenBytes.Load(), r.skipped.Load())
	}
	t.Logf("replayed %d rounds: %d bytes written, %d entries left out", r.rounds.Load(), r.writtenBytes.Load(), r.skipped.Load())
}

func powerCutAnywhere(t *testing.T, change func(*partition.Options)) {
	seed := uint64(1)
	synctest.Test(t, func(t *testing.T) {
		cut := &vfs.PowerCut{}
		w, err := runStory(seed, change, cut)
		if err != nil {
			t.Fatal(err)
		}
		if report(t, w, "the story without a cut") {
			return
		}
		points := cut.Points()
		step := int64(1)
		if !exhaustive {
			step = max(1, points/120)
		}
		cases, failed := 0, 0
		for after := 1 + int64(seed)%step; after <= points && failed < 5; after += step {
			rng := rand.New(rand.NewPCG(seed, uint64(after)))
			cut := &vfs.PowerCut{After: after}
			w, err := runStory(seed, change, cut)
			if err != nil {
				t.Fatal(err)
			}
			if report(t, w, fmt.Sprintf("seed %d, cut after %d of %d", seed, after, points)) {
				failed++
			}
			for _, fut := range futures(rng) {
				cases++
				f := w.fork(w.disks.crash(fut.opt))
				f.recoverInterrupted(rng, fut.again)
				f.live()
				if report(t, f, fmt.Sprintf("seed %d, cut after %d of %d, %+v", seed, after, points, fut)) {
					failed++
				}
			}
		}
		t.Logf("%d points, every %d: %d futures", points, step, cases)
	})
}

// report tells the problems of one case and closes what it used.
func report(t *testing.T, w *world, what string) bool {
	t.Helper()
	for i, p := range w.problems {
		if i == 4 {
			break
		}
		t.Errorf("%s: %s", what, p)
	}
	return len(w.problems) > 0
}

// TestKillAnywhere ends the process at every mutating call (every few in a short run). What was written is there, acked or
// not; sealed segments below the recovery point are not read; and what recovery shows survives a power cut right after it.
func TestKillAnywhere(t *testing.T) { eachCommit(t, killAnywhere) }

func killAnywhere(t *testing.T, change func(*partition.Options)) {
	seed := uint64(2)
	synctest.Test(t, func(t *testing.T) {
		count := &vfs.PowerCut{}
		w, err := runStory(seed, change, count)
		if err != nil {
			t.Fatal(err)
		}
		if report(t, w, "the story without a kill") {
			return
		}
		points, step := count.Points(), int64(1)
		if !exhaustive {
			step = max(1, points/120)
		}
		cases, sealed, failed := 0, 0, 0
		for after := 1 + int64(seed)%step; after <= points && failed < 5; after += step {
			cut := &vfs.PowerCut{After: after}
			w, err := runStory(seed, change, cut)
			if err != nil {
				t.Fatal(err)
			}
			cases++
			f := w.fork(w.disks.kill())
			quiet, err := f.sealedBelowPoint()
			if err != nil {
				f.problem("%v", err)
			}
			sealed += len(quiet)
			f.killed(quiet)
			if report(t, f, fmt.Sprintf("seed %d, kill after %d of %d", seed, after, points)) {
				failed++
			}
		}
		if sealed == 0 {
			t.Error("no case had a sealed segment below its recovery point: the test looks at nothing")
		}
		t.Logf("%d points, every %d: %d kills, %d sealed segments watched", points, step, cases, sealed)
	})
}

// killed starts the broker after a kill, with a watch on the log files in quiet, and again after a power cut.
func (w *world) killed(quiet map[string]bool) {
	var mu sync.Mutex
	reads := map[string]int{}
	w.trace = func(disk int, op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind&(vfs.OpRead|vfs.OpOpen) != 0 && quiet[fmt.Sprintf("%d/%s", disk, op.Name)] {
			reads[op.Name]++
		}
	}
	if err := w.open(); err != nil {
		w.problem("%v", err)
		return
	}
	for name, n := range reads {
		w.problem("recovery opened or read %s, which lies below the recovery point, %d times", name, n)
	}
	mu.Lock()
	clear(quiet)
	mu.Unlock()
	for _, t := range w.topics {
		for _, p := range t.parts {
			if l, err := w.log(p); err == nil && !t.deleted && l.Offsets().End < p.written {
				w.problem("%s ends at %d, written up to %d", p.name(), l.Offsets().End, p.written)
			}
		}
	}
	w.verify()
	w.abandon()
	w.trace = nil
	w.disks = w.disks.crash(vfs.CrashOptions{KeepPercent: 0})
	w.live()
}

// sealedBelowPoint lists, as disk/name, the log files that a start has no reason to look into: those that are not the last
// of their partition, wholly below the recovery point and below the newest producer snapshot, in one copy only.
func (w *world) sealedBelowPoint() (map[string]bool, error) {
	type file struct {
		disk int
		name string
		base segment.Offset
	}
	files := map[string][]file{}
	points := map[segment.TopicPartition]segment.Offset{}
	snapshots := map[string]segment.Offset{}
	for i, m := range w.disks {
		found, err := segment.ReadCheckpoint(m, segment.RecoveryPointFile)
		if err != nil {
			return nil, err
		}
		maps.Copy(points, found)
		entries, err := m.List(".")
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if _, _, ok := segment.ParsePartitionDir(e.Name); !ok || !e.Dir {
				continue
			}
			listing, err := segment.ListDir(m, e.Name)
			if err != nil {
				return nil, err
			}
			for _, f := range listing.Segments {
				files[e.Name] = append(files[e.Name], file{i, e.Name + "/" + segment.LogName(f.Base), f.Base})
			}
			for _, at := range listing.Snapshots {
				snapshots[e.Name] = max(snapshots[e.Name], at)
			}
		}
	}
	quiet := map[string]bool{}
	for dir, list := range files {
		topic, p, _ := segment.ParsePartitionDir(dir)
		limit := min(points[segment.TopicPartition{Topic: topic, Partition: p}], snapshots[dir])
		slices.SortFunc(list, func(a, b file) int { return cmp.Compare(a.base, b.base) })
		for i := range len(list) - 1 {
			twice := list[i].base == list[i+1].base || i > 0 && list[i].base == list[i-1].base
			if !twice && list[i+1].base <= limit {
				quiet[fmt.Sprintf("%d/%s", list[i].disk, list[i].name)] = true
			}
		}
	}
	return quiet, nil
}
