package crash

import (
	"slices"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// busyTiers make a broker that rolls and migrates all the time: the smallest segments there are, and they leave the hot
// tier when they are a second old.
func busyTiers() []lagoontest.Tier {
	return []lagoontest.Tier{{Name: "ssd", Keep: "1s"}, {Name: "hdd"}}
}

// busy are the settings that go with them: readers lag soon, so that cold reads are the rule.
var busy = []string{
	"storage.segment_bytes=1MiB", "storage.max_message_bytes=512KiB", "storage.retention=unlimited", "tiering.interval=200ms", "tiering.move_max=unlimited",
	"readers.lagging_when.min_bytes=2MiB", "readers.lagging_when.min_age=1s",
	"tiering.demand_horizon=0s", "throttle.mode=off", // segments move at once, whoever reads them and however busy the machine is
}

// TestKill: the clients live through all cycles, the broker does not.
func TestKill(t *testing.T) {
	t.Run("files", func(t *testing.T) { kill(t, cycles(t, 10)) })
	t.Run("journal", func(t *testing.T) { kill(t, (cycles(t, 10)+1)/2, journaled...) })
}

// journaled are the settings of a commit journal that turns over every second or so.
var journaled = []string{"storage.commit_journal=true", "storage.commit_journal_bytes=16MiB"}

func kill(t *testing.T, n int, set ...string) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: slices.Concat(busy, set)})
	l := startLoad(t, b, loadOptions{Topic: "kill", Partitions: 12, Idempotent: 5, Plain: 5, Tail: 2, Lagging: 1, Random: 1,
		BytesPerSecond: 12e6, Seed: r.Uint64()})
	moved := int64(0)
	for i := range n {
		live(t, b, time.Duration(300+r.IntN(1200))*time.Millisecond)
		moved += movedSegments(b)
		if i+1 == n && moved == 0 { // a busy machine: no life was long enough
			moved += waitMoved(t, b)
		}
		b.Kill()
		b.Restart()
		l.ends()
		if l.report(); t.Failed() {
			t.Fatalf("in cycle %d of %d", i+1, n)
		}
	}
	l.verify()
	t.Logf("%d kills, %d segments migrated", n, moved)
}

// waitMoved waits until a segment has migrated.
func waitMoved(t *testing.T, b *lagoontest.Broker) (n int64) {
	t.Helper()
	if !lagoontest.Poll(3*time.Minute, func() bool { n = movedSegments(b); return n > 0 }) {
		t.Fatal("nothing migrates: that would not be tested")
	}
	return n
}

// live lets a broker live for a random time.
func live(t *testing.T, b *lagoontest.Broker, d time.Duration) {
	t.Helper()
	life := time.NewTimer(d)
	defer life.Stop()
	select {
	case <-life.C:
	case <-b.Exited():
		t.Fatal("the broker ended by itself")
	}
}

// movedSegments is how many segments have migrated since the broker's start.
func movedSegments(b *lagoontest.Broker) int64 {
	var m struct {
		Moved int64 `json:"moved_segments_total"`
	}
	b.Get("/api/v1/migrations", &m)
	return m.Moved
}
