package partition

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
)

// gated is the gate of a rotating disk, and the queue of its cold reads, for the caller to close.
func gated(t *testing.T) (*syncGate, *coldQueue) {
	t.Helper()
	limits, err := admission.NewLimits(admission.LimitsConfig{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mu := &sync.Mutex{}
	cold, err := newColdQueue(admission.DeviceConfig{Name: "hdd", MaxInFlight: 2, Rotating: true}, limits, mu, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	g := &syncGate{now: time.Now, mu: mu, gate: &admission.Gate{}, queues: []*coldQueue{cold}}
	cold.sched.SetGate(g.gate)
	return g, cold
}

// TestSyncGateLetsReadsOn: a cold read that waits for a sync begins when that ends, whoever's turn it was to ask, and syncs that
// wait for reads are not forgotten.
func TestSyncGateLetsReadsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, cold := gated(t)
		defer cold.close()

		window, _, ok := g.begin(0)
		if !ok {
			t.Fatal("the first sync has to wait")
		}
		began, over := make(chan time.Time, 1), make(chan struct{})
		if _, err := cold.submit(admission.Request{Kind: admission.KindRead, Flow: admission.Subject{Kind: admission.Group, Name: "wh"}, Bytes: 1 << 20, File: 1},
			func() (int64, int64) { began <- time.Now(); <-over; return 1 << 20, 0 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		ended := time.Now()
		g.end()
		if waited := (<-began).Sub(ended); waited < 0 || waited > 10*time.Millisecond {
			t.Errorf("the read began %v after the end of the sync", waited)
		}
		_, wait, ok := g.begin(window)
		if ok || wait <= 0 {
			t.Fatalf("a sync in the reads' slot: ok %v, wait %v", ok, wait)
		}
		close(over)
		synctest.Wait()
		time.Sleep(20 * time.Millisecond)
		if _, _, ok := g.begin(window); !ok {
			t.Error("no read uses the slot, and the sync waits all the same")
		}
		g.end()
	})
}

// TestSyncsThatWaitComeTheirTime: logs that the gate holds up, before a window and in one that has had them, are synced when it lets them, though
// nothing is scheduled meanwhile; a committer that closes waits for them, too.
func TestSyncsThatWaitComeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, cold := gated(t)
		defer cold.close()
		c := newFileCommitter(&logDir{gate: g}, 2)
		a, b := &Log{closed: true}, &Log{closed: true} // their syncs do nothing
		expect := func(what string, want commitState) {
			t.Helper()
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if a.commit != want || b.commit != want {
				t.Fatalf("%s: the logs are in states %d and %d, want %d", what, a.commit, b.commit, want)
			}
		}
		due := func() {
			c.schedule(a)
			c.schedule(b)
		}
		due()
		expect("no reads", commitIdle)

		over := make(chan struct{})
		defer close(over)
		if _, err := cold.submit(admission.Request{Kind: admission.KindRead, Flow: admission.Subject{Kind: admission.Group, Name: "wh"}, Bytes: 1 << 20, File: 1},
			func() (int64, int64) { <-over; return 1 << 20, 0 }); err != nil {
			t.Fatal(err)
		}
		due() // in a window that has had them, and then in the slot of a read that takes long
		expect("the window has had them", commitQueued)
		time.Sleep(20 * time.Millisecond)
		expect("a slot of 30 ms", commitQueued)
		time.Sleep(20 * time.Millisecond)
		expect("after the slot", commitIdle)

		due()
		expect("the next slot", commitQueued)
		c.close()
		expect("closed", commitIdle)
	})
}

// TestBarrier: who has written waits for the others.
func TestBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b barrier
		began := time.Now()
		for _, takes := range []time.Duration{10, 50, 300} {
			b.enter()
			go func() {
				time.Sleep(takes * time.Millisecond)
				b.leave()
				b.wait()
				if d := time.Since(began); d != 300*time.Millisecond {
					t.Errorf("left after %v", d)
				}
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		b.enter() // hangs
		late := time.Now()
		if b.wait(); time.Since(late) != writeOutMost {
			t.Errorf("waited %v for one that hangs", time.Since(late))
		}
	})
}

// TestBetween: a sync that is not the committer's comes when files are written out and those that grow fast are synced.
func TestBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, cold := gated(t)
		defer cold.close()
		g.writing.enter()
		g.syncing.enter()
		began := time.Now()
		time.AfterFunc(100*time.Millisecond, g.writing.leave)
		time.AfterFunc(300*time.Millisecond, g.syncing.leave)
		if g.between(); time.Since(began) != 300*time.Millisecond {
			t.Errorf("its time came after %v", time.Since(began))
		}
		if v := g.gate.View(); v.Windows != 0 {
			t.Errorf("it had %d windows", v.Windows)
		}
		(*syncGate)(nil).between()
	})
}
