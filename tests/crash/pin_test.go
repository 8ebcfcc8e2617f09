package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sys/unix"

	"lagoon/tests/internal/lagoontest"
)

// TestKillPin has AlterReplicaLogDirs move all sealed segments of a partition down and up in turn. kill -9 comes as soon as the pin is on
// record, and at each step of a migration. The next start goes on by itself: every segment is once, where it was pinned to, and all
// records are there. The policy, which wants them in the cold tier after a second, takes none of them away.
func TestKillPin(t *testing.T) {
	p := newPinned(t)
	onRecord := moment{name: "on record"}
	steps := []moment{onRecord, moments[4], moments[6], moments[7]}
	if long() {
		steps = append([]moment{onRecord}, moments[1:]...)
	}
	p.round(moments[0]) // only the first migration makes the directory
	for i := range cycles(t, len(steps)) {
		p.round(steps[i%len(steps)])
	}
	underway := func() int { return p.left["two complete copies"] + p.left["log copied"] }
	for extra := 0; extra < 20 && underway() == 0; extra++ {
		p.round(moments[6])
	}
	if underway() == 0 {
		t.Error("no kill left a whole copy under way: that was not tested")
	}
	p.load.verify()
	for _, what := range slices.Sorted(maps.Keys(p.left)) {
		t.Logf("%4d of %d kills left: %s", p.left[what], p.kills, what)
	}
}

// pinned is one partition that is pinned to one tier and then the other.
type pinned struct {
	t        *testing.T
	b        *lagoontest.Broker
	r        *rand.Rand
	roots    [2]string
	to       int // the tier that it is pinned to
	watch    *watcher
	load     *load
	segments int
	kills    int
	left     map[string]int // scene → how often
}

// newPinned fills a partition with a few segments and pins it to the hot tier.
func newPinned(t *testing.T) *pinned {
	t.Helper()
	p := &pinned{t: t, r: seeded(t), left: map[string]int{}}
	p.b = lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: append(slices.Clone(busy), "storage.tier.ssd.keep=unlimited")})
	p.roots = [2]string{p.b.TierPath("ssd"), p.b.TierPath("hdd")}
	p.watch = newWatcher(t, p.roots[0], p.roots[1])
	p.load = startLoad(t, p.b, loadOptions{Topic: "pinned", Partitions: 1, Idempotent: 1, Plain: 1, BytesPerSecond: 20e6, Seed: p.r.Uint64()})
	if _, err := p.watch.waitFor(30*time.Second, func(ev fileEvent) bool {
		if ev.Mask&unix.IN_CREATE != 0 && strings.HasSuffix(ev.Name, ".log") {
			p.segments++
		}
		return p.segments > 3
	}, func() {}); err != nil {
		t.Fatalf("%d segments: %v", p.segments, err)
	}
	p.load.flush()
	if err := p.pin(p.load.ctx); err != nil {
		t.Fatal(err)
	}
	p.segments = checkOneCopy(t, p.roots, false)
	p.b.Kill()
	p.b.Restart("storage.tier.ssd.keep=1s") // now only the pin keeps anything in the hot tier
	return p
}

// round pins to the other tier, kills at a moment of the move, and waits until a new start has completed it.
func (p *pinned) round(m moment) {
	p.t.Helper()
	ways := [2]string{p.roots[p.to], p.roots[1-p.to]}
	p.to = 1 - p.to
	ctx, cancel := context.WithTimeout(p.load.ctx, 30*time.Second)
	defer cancel()
	if m.mask == 0 {
		if err := p.pin(ctx); err != nil {
			p.t.Fatal(err)
		}
	} else {
		asked := make(chan error, 1)
		go func() { asked <- p.pin(ctx) }() // the kill may come before the answer
		match, skip := m.match(ways), p.r.IntN(3)
		if m.name == "prepare" {
			skip = 0
		}
		_, err := p.watch.waitFor(30*time.Second, func(ev fileEvent) bool {
			if !match(ev) {
				return false
			}
			skip--
			return skip < 0
		}, func() { _ = unix.Kill(p.b.PID(), unix.SIGKILL) })
		cancel()
		if refused := <-asked; err != nil {
			p.t.Fatalf("%s: %v; the request: %v", m.name, err, refused)
		}
	}
	p.b.Kill()
	p.kills++
	p.left[scene(p.t, ways)]++
	p.b.Restart()
	p.arrive(m)
	p.load.readAll(p.load.ends())
	if p.load.report(); p.t.Failed() {
		p.t.Fatalf("after kill %d at %q", p.kills, m.name)
	}
}

// pin asks for the tier.
func (p *pinned) pin(ctx context.Context) error {
	cl := p.load.client()
	defer cl.Close()
	var set kadm.TopicsSet
	set.Add(p.load.opt.Topic, 0)
	var req kadm.AlterReplicaLogDirsReq
	req.Add(p.roots[p.to], set)
	resp, err := kadm.NewClient(cl).AlterBrokerReplicaLogDirs(ctx, 1, req)
	for _, r := range resp.Sorted() {
		err = errors.Join(err, r.Err)
	}
	return err
}

// arrive waits until the broker says that all segments are where they are to be, and they are. Files that were retired go a moment later.
func (p *pinned) arrive(m moment) {
	p.t.Helper()
	var body string
	var faults []string
	there := lagoontest.Poll(30*time.Second, func() bool {
		var list struct {
			Pins []struct {
				State string `json:"state"`
			} `json:"pins"`
		}
		body = p.b.Get("/api/v1/pins", &list)
		faults = p.faults()
		return len(list.Pins) == 1 && list.Pins[0].State == "in_place" && len(faults) == 0
	})
	if there {
		return
	}
	p.t.Fatalf("30 s after a kill at %q the pins are %s and:\n%s\n%s", m.name, body, strings.Join(faults, "\n"), p.b.Get("/api/v1/migrations", nil))
}

// faults is what is wrong with the files for a partition that has arrived: its active segment lies in the hot tier always.
func (p *pinned) faults() []string {
	segments, faults := copies(p.t, p.roots, false)
	if segments != p.segments {
		faults = append(faults, fmt.Sprintf("%d segments, there were %d", segments, p.segments))
	}
	files, _ := listPartition(p.t, p.roots, p.load.opt.Topic+"-0")
	if hot, cold := len(files[0]), len(files[1]); p.to == 0 && cold != 0 || p.to == 1 && hot != 1 {
		faults = append(faults, fmt.Sprintf("pinned to tier %d, %d segments in the hot tier and %d in the cold one", p.to, hot, cold))
	}
	return faults
}
