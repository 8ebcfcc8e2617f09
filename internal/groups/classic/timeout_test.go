package classic_test

import (
	"testing"
	"time"

	"lagoon/internal/groups/classic"
)

// TestNoRebalanceTimeout: static members that allow no time for a rebalance are waited for until their sessions end. What is due then is never due at
// once again: whoever drives the group would go round for ever.
func TestNoRebalanceTimeout(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	g := classic.New(&classic.Config{MinSession: time.Second, MaxSession: time.Minute, MaxSize: 10}, now)
	stored := func() {
		for _, s := range g.Effects().Stores {
			g.Stored(now, s.ID, classic.None)
		}
	}
	tickets := classic.Ticket(0)
	join := func(id, instance string, rebalance time.Duration) {
		tickets++
		g.Join(now, classic.JoinRequest{Ticket: tickets, NewID: id, InstanceID: instance, ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range"}},
			Session: 10 * time.Second, Rebalance: rebalance})
		stored()
	}
	join("a1", "a", time.Minute)
	join("b1", "b", time.Minute)
	join("a2", "a", time.Minute) // all have joined
	for _, id := range []string{"a2", "b1"} {
		g.Sync(now, classic.SyncRequest{MemberID: id, Generation: g.Generation()})
		stored()
	}
	join("a3", "a", 0) // restarted, each in its place
	join("b2", "b", 0)
	if g.State() != classic.Stable || g.Size() != 2 {
		t.Fatalf("%s, %d members", g.State(), g.Size())
	}
	g.Leave(now, []classic.Leaver{{MemberID: "a3", InstanceID: "a"}})
	begun := now
	for rings := 0; g.State() != classic.Empty; rings++ {
		if next := g.NextDeadline(); next.After(now) {
			now = next
		} else if rings > 100 {
			t.Fatalf("%s is due for ever, with %d members", g.State(), g.Size())
		}
		g.Tick(now)
	}
	if waited := now.Sub(begun); waited != 10*time.Second {
		t.Errorf("b was waited for %s", waited)
	}
}
