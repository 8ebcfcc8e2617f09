package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	enough := lagoontest.Poll(3*time.Minute+time.Duration(want)*time.Second, func() bool {
		l.report()
		return t.Failed() || movedSegments(b) >= want
	})
	if t.Failed() || !enough {
		t.Fatalf("%d of %d segments moved", movedSegments(b), want)
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
	{"prepare", true, unix.IN_CREATE | unix.IN_ISDIR, ""}, // the partition's directory; what comes in it, its watch may miss
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
	k := newMigrationKiller(t)
	want := 20
	if long() {
		want = 20 * len(moments)
	}
	for i := range want {
		k.round(moments[i%len(moments)])
	}
	// What matters most must have been hit, however busy the machine is.
	for what, m := range map[string]moment{"log copied": moments[4], "two complete copies": moments[6]} {
		for extra := 0; extra < 20 && !k.hit(what); extra++ {
			k.round(m)
		}
		if !k.hit(what) {
			t.Errorf("no kill left %q: that was not tested", what)
		}
	}
	k.b.Kill()
	k.b.Restart("storage.tier.ssd.keep=unlimited")
	for _, l := range k.fresh {
		l.verify()
	}
	k.main.verify()
	t.Logf("%d kills; what they left:", k.kills)
	for _, m := range moments {
		for what, n := range k.left[m.name] {
			t.Logf("%4d  at %-20s %s", n, m.name+":", what)
		}
	}
}

// migrationKiller is a broker under load that is killed again and again.
type migrationKiller struct {
	t     *testing.T
	b     *lagoontest.Broker
	r     *rand.Rand
	roots [2]string
	watch *watcher
	main  *load
	fresh []*load // topics that were made so that something had never been in the cold tier
	kills int
	left  map[string]map[string]int // moment → scene → how often
}

func newMigrationKiller(t *testing.T) *migrationKiller {
	t.Helper()
	k := &migrationKiller{t: t, r: seeded(t), left: map[string]map[string]int{}}
	k.b = lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: busy})
	k.roots = [2]string{k.b.TierPath("ssd"), k.b.TierPath("hdd")}
	rate := 6e6
	if long() {
		rate = 1.5e6 // a broker that is killed every second migrates no more than that
	}
	k.main = startLoad(t, k.b, loadOptions{Topic: "steps", Partitions: 4, Idempotent: 2, Plain: 2, Tail: 1, Lagging: 1, BytesPerSecond: rate, Seed: k.r.Uint64()})
	k.watch = newWatcher(t, k.roots[0], k.roots[1])
	return k
}

// hit tells whether a kill left this scene.
func (k *migrationKiller) hit(what string) bool {
	for _, scenes := range k.left {
		if scenes[what] > 0 {
			return true
		}
	}
	return false
}

// round kills once, checks what a start makes of it, and starts the migrations again.
func (k *migrationKiller) round(m moment) {
	k.t.Helper()
	if m.name == "prepare" {
		k.fresh = append(k.fresh, startLoad(k.t, k.b, loadOptions{Topic: fmt.Sprintf("fresh%d", len(k.fresh)), Partitions: 1, Plain: 1,
			BytesPerSecond: 3e6, Seed: k.r.Uint64()}))
	}
	ev, err := k.watch.waitFor(3*time.Minute, m.match(k.roots), func() { _ = unix.Kill(k.b.PID(), unix.SIGKILL) })
	if err != nil {
		k.t.Fatalf("%s: %v", m.name, err)
	}
	k.b.Kill()
	k.kills++
	if k.left[m.name] == nil {
		k.left[m.name] = map[string]int{}
	}
	k.left[m.name][scene(k.t, k.roots)]++
	k.b.Restart("storage.tier.ssd.keep=unlimited")
	segments := checkOneCopy(k.t, k.roots, false)
	if base, _, ok := segmentName(ev.Name); ok && strings.HasPrefix(filepath.Base(ev.Dir), k.main.opt.Topic+"-") {
		k.main.readSegment(filepath.Base(ev.Dir), base)
	}
	for _, l := range append([]*load{k.main}, k.fresh...) {
		l.ends()
		l.report()
	}
	if k.t.Failed() {
		k.t.Fatalf("after kill %d at %q (%s/%s), %d segments", k.kills, m.name, ev.Dir, ev.Name, segments)
	}
	if n := len(k.fresh); n > 0 {
		k.fresh[n-1].produceStop() // it has done its work
	}
	k.b.Kill()
	k.b.Restart("storage.tier.ssd.keep=1s")
}

func (m moment) match(roots [2]string) func(fileEvent) bool {
	root := roots[0]
	if m.cold {
		root = roots[1]
	}
	return func(ev fileEvent) bool {
		if m.mask&unix.IN_ISDIR != 0 {
			return ev.Mask&m.mask == m.mask && ev.Dir == root
		}
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
	ctx, cancel := context.WithTimeout(l.ctx, time.Minute)
	defer cancel()
	if err := l.readAt(ctx, cl, partition, base); err != nil {
		l.t.Errorf("read segment %d of %s, which was on its way when the broker was killed: %v", base, dir, err)
	}
}
