package broker

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Frames that stop arriving hold memory that others wait for: those go on within seconds, and the hoarders are gone.
func TestHoardersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.MaxRequestBytes, o.MaxInFlightBytes = 1<<20, 4<<20 })
		hoarders := make([]*client, 8)
		for i := range hoarders {
			hoarders[i] = r.dial()
			go func() { // more than there is memory for: the broker stops reading
				_, _ = hoarders[i].nc.Write(binary.BigEndian.AppendUint32(nil, 1<<20))
				_, _ = hoarders[i].nc.Write(make([]byte, 100<<10))
			}()
		}
		synctest.Wait()
		if used, waits := r.b.budget.usage(); used < 3<<20 || waits == 0 {
			t.Fatalf("%d bytes in use, %d waits: memory is not short", used, waits)
		}
		began := time.Now()
		r.dial().versions()
		if d := time.Since(began); d != 0 {
			t.Errorf("a small request waited %v", d)
		}
		c := r.dial()
		c.send(produceRequest(9, 1, "orders", records(0, batch(1, 300<<10))))
		c.receive(produceRequest(9, 1, "", records(0, nil)), c.corr)
		if d := time.Since(began); d > 3*stallWindow {
			t.Errorf("a large request waited %v", d)
		}
		for _, h := range hoarders {
			h.nc.Close()
		}
		synctest.Wait()
		if used, _ := r.b.budget.usage(); used != 0 {
			t.Errorf("%d bytes in use when all is over", used)
		}
	})
}

// Nobody waits: a slow sender has its time.
func TestStalledFrameLivesWhileMemoryIsPlenty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		p := c.frame(produceRequest(9, 1, "orders", records(0, batch(1, 100<<10))))
		c.write(p[:90<<10])
		time.Sleep(20 * time.Second)
		c.write(p[90<<10:])
		c.receive(produceRequest(9, 1, "", records(0, nil)), c.corr)
	})
}

// Those that hold little pass those that want much, and keep their own order.
func TestBudgetHasTwoLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		b := newBudget(limit)
		lease := func() *lease { return &lease{b: b, done: make(chan struct{}), patience: time.Minute} }
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		first, second, large := lease(), lease(), lease()
		must(first.Acquire(limit))
		must(second.Acquire(modestBytes + 1))
		if !second.overdrawn.Load() {
			t.Fatal("more than the limit, and not by the overdraft")
		}
		granted := make(chan string, 20)
		go func() { must(large.Acquire(1 << 20)); granted <- "large" }()
		synctest.Wait()
		for range limit / 8 / modestBytes {
			must(lease().Acquire(modestBytes))
		}
		last := lease()
		go func() { must(last.Acquire(1)); granted <- "one too many" }()
		synctest.Wait()
		select {
		case who := <-granted:
			t.Fatalf("%s got memory that is not there", who)
		default:
		}
		if !b.pressed() {
			t.Error("somebody waits, and nobody knows")
		}
		first.Release(1) // still over the limit, but a place in the line of those that hold little is not free either
		second.Release(modestBytes + 1)
		if who := <-granted; who != "large" || !large.overdrawn.Load() {
			t.Errorf("%s, overdrawn %t: the overdraft goes to the next in line", who, large.overdrawn.Load())
		}
		large.Release(1 << 20)
		first.Release(limit - 1)
		if who := <-granted; who != "one too many" {
			t.Errorf("%s was granted", who)
		}
		if b.pressed() {
			t.Error("nobody waits any more")
		}
		if b.small != limit/8+1 || b.used != b.small {
			t.Errorf("%d in use, %d of it by those that hold little, want %d", b.used, b.small, limit/8+1)
		}
	})
}

// A request that waits for memory, more than once, has as much time to arrive as one that does not.
func TestWaitingForMemoryIsNotDawdling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		r := newRig(t, func(o *Options) { o.MaxInFlightBytes = limit })
		lease := func() *lease { return &lease{b: r.b.budget, done: make(chan struct{}), patience: time.Minute} }
		full, over := lease(), lease()
		if err := errors.Join(full.Acquire(limit), over.Acquire(modestBytes+1)); err != nil {
			t.Fatal(err)
		}
		c := r.dial()
		frame := c.frame(produceRequest(9, 1, "orders", records(0, batch(1, 3<<20))))
		go func() { _, _ = c.nc.Write(frame) }()
		synctest.Wait()
		time.Sleep(20 * time.Second)
		const part = 1<<20 + 2*modestBytes
		full.Release(part) // for the first part of it
		synctest.Wait()
		time.Sleep(20 * time.Second)
		if _, waits := r.b.budget.usage(); waits != 2 {
			t.Fatalf("it has waited %d times", waits)
		}
		over.Release(modestBytes + 1) // the rest may go over the limit
		c.receive(produceRequest(9, 1, "", records(0, nil)), c.corr)
		full.Release(limit - part)
	})
}
