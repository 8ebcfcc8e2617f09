package crash

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/tests/internal/lagoontest"
)

// TestMigrateUnderLoad: nobody dies here, so no reader may be told of any error, not even of one that clients retry.
func TestMigrateUnderLoad(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: busy})
	l := startLoad(t, b, loadOptions{Topic: "move", Partitions: 6, Idempotent: 3, Plain: 2, Tail: 2, Lagging: 2, Random: 2,
		BytesPerSecond: 15e6, NoErrors: true, Seed: r.Uint64()})
	want := int64(40)
	if long() {
		want = 1000
	}
	deadline := time.Now().Add(time.Duration(want) * time.Second)
	for movedSegments(b) < want {
		if l.report(); t.Failed() || time.Now().After(deadline) {
			t.Fatalf("%d of %d segments moved", movedSegments(b), want)
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.verify()
	for _, kind := range []string{"tail", "lagging", "random"} {
		if l.fetches[kind] == 0 {
			t.Errorf("%s readers read nothing", kind)
		}
	}
	var tiers struct {
		Tiers []struct {
			Cold int64 `json:"read_bytes_total"`
		} `json:"tiers"`
	}
	b.Get("/api/v1/tiers", &tiers)
	cold := int64(0)
	for _, tier := range tiers.Tiers {
		cold += tier.Cold
	}
	if cold == 0 {
		t.Error("no cold read: the readers crossed no migrated segment past the page cache")
	}
	t.Logf("%d segments migrated, %d bytes read past the page cache", movedSegments(b), cold)
}

// moment is when to kill: something that can be seen from outside during a migration.
type moment struct {
	name   string
	cold   bool // in the cold tier's directories
	mask   uint32
	suffix string
}

// moments are the steps of a migration (see the table in package tiering) by the first trace that each leaves. A kill
// that reacts to a trace comes some 100 µs later; what it really hit is counted by what it left.
var moments = []moment{
	{"prepare", true, unix.IN_CREATE, "partition.metadata.tmp"},
	{"copy indexes", true, unix.IN_CREATE, ".index.migrating"},
	{"copy begins", true, unix.IN_CREATE, ".log.migrating"},
	{"copy", true, unix.IN_MODIFY, ".log.migrating"},
	{"verify", true, unix.IN_CLOSE_WRITE, ".log.migrating"},
	{"commit indexes", true, unix.IN_MOVED_TO, ".timeindex"},
	{"commit log, publish", true, unix.IN_MOVED_TO, ".log"},
	{"retire", false, unix.IN_MOVED_TO, ".log.deleted"},
	{"retire unlinks", false, unix.IN_DELETE, ".log.deleted"},
}

// TestKillMigration kills at each moment, then starts a broker that moves nothing and looks at the tiers: one copy of every
// segment, nothing left over, all bytes there. Then the next.
func TestKillMigration(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: busy})
	l := startLoad(t, b, loadOptions{Topic: "steps", Partitions: 4, Idempotent: 2, Plain: 2, Tail: 1, Lagging: 1, BytesPerSecond: 6e6, Seed: r.Uint64()})
	roots := [2]string{b.TierPath("ssd"), b.TierPath("hdd")}
	w := newWatcher(t, roots[0], roots[1])
	kills, total := 20, 0
	each := (kills + len(moments) - 1) / len(moments)
	if long() {
		each = cyclesPerMoment
	}
	left := map[string]int{}
	var fresh []*load
	for i := range each * len(moments) {
		m := moments[i%len(moments)]
		if !long() && total == kills {
			break
		}
		if m.name == "prepare" { // needs a partition that was never in the cold tier
			fresh = append(fresh, startLoad(t, b, loadOptions{Topic: fmt.Sprintf("fresh%d", i), Partitions: 1, Plain: 1, Tail: 1, BytesPerSecond: 3e6, Seed: r.Uint64()}))
		}
		ev, err := w.waitFor(15*time.Second, m.match(roots), func() { _ = unix.Kill(b.PID(), unix.SIGKILL) })
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		b.Kill()
		left[fmt.Sprintf("%s: %s", m.name, scene(t, roots))]++
		total++
		b.Restart("storage.tier.ssd.keep=unlimited")
		segments := checkOneCopy(t, roots)
		l.ends()
		if base, _, ok := segmentName(ev.Name); ok && strings.HasPrefix(filepath.Base(ev.Dir), "steps-") {
			l.readSegment(filepath.Base(ev.Dir), base)
		}
		for _, f := range fresh {
			f.ends()
			f.report()
		}
		if l.report(); t.Failed() {
			t.Fatalf("after kill %d at %q (%s/%s), %d segments", total, m.name, ev.Dir, ev.Name, segments)
		}
		b.Kill()
		b.Restart("storage.tier.ssd.keep=1s")
	}
	b.Kill()
	b.Restart("storage.tier.ssd.keep=unlimited")
	for _, f := range fresh {
		f.verify()
	}
	l.verify()
	t.Logf("%d kills; what they left:", total)
	for _, m := range moments {
		for what, n := range left {
			if strings.HasPrefix(what, m.name+": ") {
				t.Logf("%4d  at %s", n, what)
			}
		}
	}
	for _, must := range []string{"log copied", "two complete copies"} {
		if !anyHas(left, must) {
			t.Errorf("no kill left %q: the most important states were not tested", must)
		}
	}
}

const cyclesPerMoment = 20

func anyHas(left map[string]int, what string) bool {
	for k := range left {
		if strings.HasSuffix(k, what) {
			return true
		}
	}
	return false
}

func (m moment) match(roots [2]string) func(fileEvent) bool {
	root := roots[0]
	if m.cold {
		root = roots[1]
	}
	return func(ev fileEvent) bool {
		return ev.Mask&m.mask != 0 && strings.HasPrefix(ev.Dir, root+"/") && strings.HasSuffix(ev.Name, m.suffix)
	}
}

// readSegment reads a piece of one partition from an offset on, as far as one fetch goes.
func (l *load) readSegment(dir string, base int64) {
	l.t.Helper()
	var partition int32
	if _, err := fmt.Sscanf(dir, l.opt.Topic+"-%d", &partition); err != nil {
		l.t.Fatalf("%s: %v", dir, err)
	}
	cl := l.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
	defer cancel()
	if err := l.readAt(ctx, cl, partition, base); err != nil {
		l.t.Errorf("read segment %d of %s, which was on its way when the broker was killed: %v", base, dir, err)
	}
}
