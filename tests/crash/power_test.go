package crash

import (
	"slices"
	"testing"
	"time"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/tests/internal/lagoontest"
)

// TestPowerCut cuts both tiers' file systems off, one after the other and some milliseconds apart, in either order and with
// either way of losing the journal, then kills the broker and mounts what the disks have.
func TestPowerCut(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { powerCut(t, kind, (cycles(t, 10)+1)/2) })
		t.Run(kind+" journal", func(t *testing.T) { powerCut(t, kind, (cycles(t, 10)+2)/3, journaled...) })
	}
}

func powerCut(t *testing.T, kind string, n int, set ...string) {
	lagoontest.Require(t, "loop", "mkfs."+kind)
	r := seeded(t)
	l := labtest.New(t)
	ssd := l.FileSystem(lab.FSOptions{Name: "ssd", Type: kind, Bytes: 4 << 30})
	hdd := l.FileSystem(lab.FSOptions{Name: "hdd", Type: kind, Bytes: 4 << 30})
	b := lagoontest.Start(t, lagoontest.Options{Set: slices.Concat(busy, set), Tiers: []lagoontest.Tier{
		{Name: "ssd", Path: ssd.Path(), Keep: "1s"}, {Name: "hdd", Path: hdd.Path()}}})
	w := startLoad(t, b, loadOptions{Topic: "power", Partitions: 6, Idempotent: 3, Plain: 3, Tail: 2, Lagging: 1,
		BytesPerSecond: 8e6, Seed: r.Uint64()})
	moved := int64(0)
	for i := range n {
		live(t, b, time.Duration(200+r.IntN(1300))*time.Millisecond)
		moved += movedSegments(b)
		if i+1 == n && moved == 0 { // a busy machine: no life was long enough
			moved += waitMoved(t, b)
		}
		both := []*labtest.FileSystem{ssd, hdd}
		if r.IntN(2) == 0 {
			both[0], both[1] = both[1], both[0]
		}
		for _, fs := range both {
			if err := fs.Cut(uint32(lab.CutLogFlush + r.IntN(2))); err != nil {
				t.Fatal(err)
			}
			apart := time.NewTimer(time.Duration(r.IntN(20)) * time.Millisecond)
			select {
			case <-apart.C:
			case <-b.Exited(): // the cut was enough for that
			}
		}
		b.Kill()
		for _, fs := range both {
			fs.Unmount()
			fs.Mount()
		}
		b.Restart("storage.tier.ssd.keep=unlimited")
		checkOneCopy(t, [2]string{ssd.Path(), hdd.Path()}, true)
		w.ends()
		if w.report(); t.Failed() {
			t.Fatalf("in cycle %d of %d", i+1, n)
		}
		b.Kill()
		b.Restart("storage.tier.ssd.keep=1s")
	}
	w.verify()
	b.Kill() // before its disks go
	t.Logf("%s: %d power cuts, %d segments migrated", kind, n, moved)
}
