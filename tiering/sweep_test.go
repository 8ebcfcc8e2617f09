package tiering_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// Sweep removes what a crash left and nothing else.
func TestSweepTouchesOnlyLeftovers(t *testing.T) {
	f := newFixture(t, 30, 3, 200)
	kept := []string{"leader-epoch-checkpoint", "00000000000000004100.snapshot", "notes.log", "00000000000000009999.log",
		"00000000000000009999.index", "x.migrating", "00000000000000004100.snapshot.deleted", "0000000000000000410.index", "-0000000000000004100.index"}
	gone := []string{"00000000000000004100.log.migrating", "00000000000000005000.index", "00000000000000005000.timeindex", "00000000000000005000.txnindex",
		"00000000000000005000.log.deleted", "00000000000000005000.index.deleted", "partition.metadata.tmp"}
	for _, name := range append(slices.Clone(kept), gone...) {
		must(t, vfs.WriteFileAtomic(f.ssd, testDir+"/"+name, []byte("x")))
	}
	must(t, f.ssd.MkdirAll(testDir+"/00000000000000006000.log.migrating")) // a directory is nobody's leftover
	swept, err := tiering.Sweep(tiersOf(f.ssd, f.hdd), testDir)
	must(t, err)
	if len(swept.Removed) != len(gone) || len(swept.Duplicates)+len(swept.Quarantined) != 0 {
		t.Errorf("swept %+v", swept)
	}
	found := tree(t, f.ssd, testDir)
	for _, name := range kept {
		if _, ok := found[name]; !ok {
			t.Errorf("%s was removed", name)
		}
	}
	for _, name := range gone {
		if _, ok := found[name]; ok {
			t.Errorf("%s is still there", name)
		}
	}
	if !f.complete(t, f.ssd) {
		t.Error("the segment was touched")
	}
	if left := f.ssd.Unsynced(); len(left) > 0 {
		t.Errorf("not durable: %v", left)
	}
}

// Three copies: the coldest stays.
func TestSweepKeepsColdest(t *testing.T) {
	f := newFixture(t, 31, 3, 200)
	object := vfs.NewMem(9)
	for _, disk := range []*vfs.Mem{f.hdd, object} {
		must(t, disk.MkdirAll(testDir))
		for suffix, data := range f.files {
			must(t, vfs.WriteFileAtomic(disk, segmentFile(suffix), data))
		}
	}
	swept, err := tiering.Sweep(append(tiersOf(f.ssd, f.hdd), tiering.Tier{Name: "object", FS: object}), testDir)
	must(t, err)
	if len(swept.Duplicates) != 2 {
		t.Errorf("swept %+v", swept)
	}
	f.clean(t, f.ssd, false, "ssd")
	f.clean(t, f.hdd, false, "hdd")
	if !f.complete(t, object) {
		t.Error("the coldest copy is not whole")
	}
}

// A colder copy that is not the same is no copy of ours: it is set aside, and nothing is lost by it, twice over.
func TestSweepQuarantinesStrangers(t *testing.T) {
	f := newFixture(t, 32, 3, 3000)
	log := f.files[".log"]
	flipped := func(at int) []byte {
		b := slices.Clone(log)
		b[at] ^= 1
		return b
	}
	strangers := [][]byte{nil, log[:len(log)-1], append(slices.Clone(log), 0), make([]byte, len(log)), flipped(0), flipped(len(log) - 1)}
	for i, stranger := range strangers {
		must(t, f.hdd.MkdirAll(testDir))
		must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(".log"), stranger))
		must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(".index"), []byte("12345678")))
		swept, err := tiering.Sweep(tiersOf(f.ssd, f.hdd), testDir)
		must(t, err)
		if len(swept.Quarantined) != 1 || !f.complete(t, f.ssd) {
			t.Fatalf("stranger %d: %+v", i, swept)
		}
	}
	var kept []string
	for name, data := range tree(t, f.hdd, testDir) {
		if !strings.HasPrefix(name, segment.QuarantineDir+"/") {
			t.Errorf("%s is not in quarantine", name)
		}
		if strings.Contains(name, ".log") {
			kept = append(kept, data)
		}
	}
	for i, stranger := range strangers {
		if !slices.Contains(kept, string(stranger)) {
			t.Errorf("stranger %d was overwritten", i)
		}
	}
}

// Any call of a sweep failing is an error or harmless, and never costs the last copy.
func TestSweepFaults(t *testing.T) {
	f := newFixture(t, 33, 3, 200)
	must(t, f.hdd.MkdirAll(testDir))
	for suffix, data := range f.files {
		must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(suffix), data))
	}
	must(t, vfs.WriteFileAtomic(f.hdd, segmentFile(".log.migrating"), nil))
	for nth := int64(1); ; nth++ {
		ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})
		fault := &vfs.Fault{Nth: nth, Err: syscall.EIO, Sticky: true}
		_, err := tiering.Sweep(tiersOf(vfs.WithFaults(ssd, fault), vfs.WithFaults(hdd, fault)), testDir)
		if fault.Fired() == 0 {
			must(t, err)
			if nth < 10 {
				t.Fatalf("only %d calls", nth-1)
			}
			return
		}
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatalf("call %d: %v", nth, err)
		}
		if !f.oneCopy(t, ssd.Crash(vfs.CrashOptions{}), hdd.Crash(vfs.CrashOptions{}), "after a failed sweep") {
			t.Fatalf("call %d: the colder copy should stay", nth)
		}
	}
}

func TestRemoveSegmentTwice(t *testing.T) {
	f := newFixture(t, 34, 3, 200)
	for range 2 {
		must(t, tiering.RemoveSegment(f.ssd, testDir, testBase))
		f.clean(t, f.ssd, false, "ssd")
	}
	if left := f.ssd.Unsynced(); len(left) > 0 {
		t.Errorf("not durable: %v", left)
	}
}
