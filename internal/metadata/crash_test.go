package metadata_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"lagoon/internal/metadata"
	"lagoon/internal/vfs"
)

// script runs a fixed list of changes until one fails. states holds the catalogue after each acknowledged one,
// states[0] after Open.
func script(fs vfs.FS, seed uint64) (states []*metadata.Snapshot, err error) {
	s, err := metadata.Open(fs, dir, metadata.Options{CompactBytes: 4096, ClusterID: "MkU3OEVBNTcwNTJENDM2Qg", Now: func() time.Time { return time.UnixMilli(1) }})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	states = append(states, s.Snapshot())
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 60 {
		snap := s.Snapshot()
		var target *metadata.Topic
		if names := snap.Names(); len(names) > 0 {
			target = snap.Topics[names[rng.IntN(len(names))]]
		}
		switch n := rng.IntN(11); {
		case n < 4 || target == nil:
			_, err = s.CreateTopic(fmt.Sprintf("topic-%d", i), 1+rng.Int32N(8), map[string]string{"k": fmt.Sprintf("%0*d", rng.IntN(600), i)})
		case n < 6:
			err = s.DeleteTopic(target.ID)
		case n < 7:
			err = s.CreatePartitions(target.ID, target.Partitions+1)
		case n < 8:
			err = s.AlterTopicConfigs(target.ID, map[string]string{"x": fmt.Sprint(i)}, []string{"k"})
		case n < 9:
			_, err = s.ReserveProducerIDs(10)
		case n < 10:
			err = s.AlterPins(target.ID, map[int32]string{rng.Int32N(target.Partitions): []string{"", "ssd", "hdd"}[rng.IntN(3)]})
		default:
			for id := range snap.Deleting {
				err = s.FinishDelete(id)
				break
			}
		}
		if err != nil {
			return states, err
		}
		if s.Snapshot() != snap {
			states = append(states, s.Snapshot())
		}
	}
	return states, s.Close()
}

// The power goes at every single write, sync and change of names. What is found afterwards is the catalogue of the last
// acknowledged change or of the one in flight: ids are random, so states are compared by version, names and counts.
func TestPowerCutAtEveryStep(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	count := &vfs.PowerCut{}
	if _, err := script(vfs.WithFaults(vfs.NewMem(seed), count), seed); err != nil {
		t.Fatal(err)
	}
	if count.Points() < 100 { // 136 to 184 with 2,000 seeds
		t.Fatalf("only %d points to cut at", count.Points())
	}
	for after := int64(1); after <= count.Points(); after++ {
		mem := vfs.NewMem(seed)
		states, err := script(vfs.WithFaults(mem, &vfs.PowerCut{After: after}), seed)
		if err != nil && !errors.Is(err, vfs.ErrPowerCut) {
			t.Fatalf("cut after %d: %v", after, err)
		}
		for try := range uint64(4) {
			opt := vfs.CrashOptions{Seed: seed + try, KeepPercent: vfs.KeepRandom, Tear: true}
			if try == 0 {
				opt = vfs.CrashOptions{}
			}
			checkSurvivor(t, mem.Crash(opt), states, fmt.Sprintf("cut after %d, crash %+v", after, opt))
		}
	}
}

func checkSurvivor(t *testing.T, disk *vfs.Mem, states []*metadata.Snapshot, where string) {
	t.Helper()
	s, err := metadata.Open(disk, dir, metadata.Options{})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	got := s.Snapshot()
	if len(states) == 0 {
		if len(got.Topics) != 0 {
			t.Fatalf("%s: topics out of nothing", where)
		}
	} else if last := states[len(states)-1]; got.Version == last.Version {
		if d := same(last, got); d != "" {
			t.Fatalf("%s: acknowledged state changed:\n%s", where, d)
		}
	} else if got.Version != last.Version+1 {
		t.Fatalf("%s: version %d, acknowledged %d", where, got.Version, last.Version)
	}
	// It can be used, and a second crash right after loses nothing.
	if _, err := s.CreateTopic("after-the-crash", 1, nil); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	want := s.Snapshot()
	again, err := metadata.Open(disk.Crash(vfs.CrashOptions{}), dir, metadata.Options{})
	if err != nil {
		t.Fatalf("%s, second crash: %v", where, err)
	}
	if d := same(want, again.Snapshot()); d != "" {
		t.Fatalf("%s: lost in the second crash:\n%s", where, d)
	}
}

// The process is killed at every step, the next one goes on with what the page cache holds, and then the power goes: what that one
// found and acknowledged is there, although the first has not synced all that it built on. On a full disk it cannot write that anew.
func TestPowerCutAfterKill(t *testing.T) {
	const seed = 11
	count := &vfs.PowerCut{}
	if _, err := script(vfs.WithFaults(vfs.NewMem(seed), count), seed); err != nil {
		t.Fatal(err)
	}
	full := 0
	for after := int64(1); after <= count.Points(); after++ {
		for _, capacity := range []int64{0, 1} {
			mem := vfs.NewMem(seed)
			if _, err := script(vfs.WithFaults(mem, &vfs.PowerCut{After: after}), seed); err != nil && !errors.Is(err, vfs.ErrPowerCut) {
				t.Fatalf("killed after %d: %v", after, err)
			}
			disk := mem.Kill()
			disk.SetCapacity(capacity)
			where := fmt.Sprintf("killed after %d, capacity %d", after, capacity)
			s, err := metadata.Open(disk, dir, metadata.Options{})
			if capacity > 0 && errors.Is(err, syscall.ENOSPC) {
				continue // there was no catalogue yet
			}
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for try := range uint64(4) {
				opt := vfs.CrashOptions{Seed: seed + try, KeepPercent: vfs.KeepRandom, Tear: true, Live: true}
				if try == 0 {
					opt = vfs.CrashOptions{Live: true}
				}
				checkKept(t, s.Snapshot(), disk.Crash(opt), fmt.Sprintf("%s, crash %+v", where, opt))
			}
			if _, err := s.CreateTopic("after-the-kill", 1, nil); errors.Is(err, metadata.ErrNoSpace) {
				full++
			} else if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			checkKept(t, s.Snapshot(), disk.Crash(vfs.CrashOptions{}), where+", then acknowledged")
		}
	}
	if full > int(count.Points())/2 {
		t.Fatalf("the disk was too full for a change %d times", full)
	}
}

// checkKept opens what a power cut left and wants all of what was known before.
func checkKept(t *testing.T, want *metadata.Snapshot, disk *vfs.Mem, where string) {
	t.Helper()
	disk.SetCapacity(0)
	again, err := metadata.Open(disk, dir, metadata.Options{})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if d := same(want, again.Snapshot()); d != "" {
		t.Fatalf("%s: lost:\n%s", where, d)
	}
}

// The power goes at every step of the recovery itself, up to three deep.
func TestPowerCutDuringRecovery(t *testing.T) {
	const seed = 5
	mem := vfs.NewMem(seed)
	states, err := script(vfs.WithFaults(mem, &vfs.PowerCut{After: 60}), seed)
	if !errors.Is(err, vfs.ErrPowerCut) {
		t.Fatal(err)
	}
	last := states[len(states)-1]
	for after := int64(1); after < 12; after++ {
		disk := mem.Crash(vfs.CrashOptions{Seed: uint64(after), KeepPercent: 60, Tear: true})
		for range 3 {
			if s, err := metadata.Open(vfs.WithFaults(disk, &vfs.PowerCut{After: after}), dir, metadata.Options{}); err == nil {
				s.Close()
			}
			disk = disk.Crash(vfs.CrashOptions{Seed: uint64(after), KeepPercent: 60, Tear: true})
		}
		s, err := metadata.Open(disk, dir, metadata.Options{})
		if err != nil {
			t.Fatalf("recovery cut after %d: %v", after, err)
		}
		if v := s.Snapshot().Version; v != last.Version && v != last.Version+1 {
			t.Fatalf("recovery cut after %d: version %d, acknowledged %d", after, v, last.Version)
		}
	}
}

// Every bit of both files is flipped, one at a time. The catalogue is refused, or, when the flip is in the last frame of
// a log that was not closed, one change short and reported; it is never silently different.
func TestEveryBitFlip(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{CompactBytes: 1 << 20})
	fill(t, s)
	s.Close() // everything is in the snapshot
	s = open(t, mem, metadata.Options{})
	must[*metadata.Topic](t)(s.CreateTopic("one", 1, nil))
	must[*metadata.Topic](t)(s.CreateTopic("two", 1, nil))
	want := s.Snapshot()
	if err := mem.SyncDir(dir); err != nil { // the old generation is gone for good
		t.Fatal(err)
	}
	disk := mem.Crash(vfs.CrashOptions{})
	refused, cut := 0, 0
	for _, e := range must[[]vfs.Entry](t)(disk.List(dir)) {
		for bit := range e.Size * 8 {
			copy := disk.Crash(vfs.CrashOptions{Live: true})
			flip(t, copy, dir+"/"+e.Name, bit)
			s, err := metadata.Open(copy, dir, metadata.Options{})
			switch {
			case errors.Is(err, metadata.ErrCorrupt) || errors.Is(err, metadata.ErrNewer):
				refused++
			case err != nil:
				t.Fatalf("%s bit %d: %v", e.Name, bit, err)
			case s.Snapshot().Version == want.Version-1:
				cut++
			default:
				t.Fatalf("%s bit %d: went unnoticed (version %d)", e.Name, bit, s.Snapshot().Version)
			}
		}
	}
	if refused < 1000 || cut < 100 || cut > 8*200 {
		t.Fatalf("%d refused, %d cut: the test does not test", refused, cut)
	}
}

// A truncated file is refused, or loses whole changes from the end of the log.
func TestEveryTruncation(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{CompactBytes: 1 << 20})
	fill(t, s)
	want := s.Snapshot()
	disk := mem.Crash(vfs.CrashOptions{})
	for _, e := range must[[]vfs.Entry](t)(disk.List(dir)) {
		for size := range e.Size {
			copy := disk.Crash(vfs.CrashOptions{Live: true})
			f := must[vfs.File](t)(copy.Open(dir+"/"+e.Name, vfs.ReadWrite))
			if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
				t.Fatal(err)
			}
			s, err := metadata.Open(copy, dir, metadata.Options{})
			if err == nil && s.Snapshot().Version >= want.Version || err != nil && !errors.Is(err, metadata.ErrCorrupt) {
				t.Fatalf("%s cut to %d: %v", e.Name, size, err)
			}
		}
	}
}

func flip(t testing.TB, fs vfs.FS, name string, bit int64) {
	t.Helper()
	f := must[vfs.File](t)(fs.Open(name, vfs.ReadWrite))
	b := []byte{0}
	if _, err := f.ReadAt(b, bit/8); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b, bit/8); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A missing file is never taken for an empty catalogue.
func TestMissingFile(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{CompactBytes: 1 << 20})
	must[*metadata.Topic](t)(s.CreateTopic("one", 1, nil))
	disk := mem.Crash(vfs.CrashOptions{})
	for _, suffix := range []string{"log", "snapshot"} {
		copy := disk.Crash(vfs.CrashOptions{Live: true})
		if err := copy.Remove(dir + "/00000000000000000001." + suffix); err != nil {
			t.Fatal(err)
		}
		before := must[[]vfs.Entry](t)(copy.List(dir))
		if _, err := metadata.Open(copy, dir, metadata.Options{}); !errors.Is(err, metadata.ErrCorrupt) {
			t.Errorf("without %s: %v", suffix, err)
		}
		if after := must[[]vfs.Entry](t)(copy.List(dir)); len(after) != len(before) {
			t.Errorf("without %s: a refused open changed the directory: %v", suffix, after)
		}
	}
}

// Leftovers and strangers: the former go, the latter stay.
func TestLeftovers(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{})
	fill(t, s)
	s.Close()
	for _, name := range []string{"00000000000000000009.snapshot.tmp", "00000000000000000008.log", "notes.txt", "7.log"} {
		f := must[vfs.File](t)(mem.Create(dir + "/" + name))
		f.Close()
	}
	again := open(t, mem, metadata.Options{})
	if d := same(s.Snapshot(), again.Snapshot()); d != "" {
		t.Fatal(d)
	}
	var names []string
	for _, e := range must[[]vfs.Entry](t)(mem.List(dir)) {
		names = append(names, e.Name)
	}
	if len(names) != 4 || names[2] != "7.log" || names[3] != "notes.txt" {
		t.Fatalf("left: %v", names)
	}
}
