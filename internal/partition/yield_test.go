package partition

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
	"lagoon/internal/vfs"
	"lagoon/tiering"
)

// newYieldDir is a log directory with a queue and nothing else.
func newYieldDir(t *testing.T) *logDir {
	t.Helper()
	limits, err := admission.NewLimits(admission.LimitsConfig{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cold, err := newColdQueue(admission.DeviceConfig{Name: "hdd", MaxInFlight: 1}, limits, &sync.Mutex{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cold.close)
	return &logDir{name: "hdd", spec: DirSpec{Tier: "hdd", FS: vfs.NewMem(1)}, cold: cold}
}

// A step of a migration starts when the device has no sync on its way, or after 100 ms; when its budget has been cut, after a
// second; behind reads that wait for the device; and an end of the migration ends each wait.
func TestMigrationYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newYieldDir(t)
		gate := deviceGate{flow: migrationFlow, log: &Log{topic: "orders"}, from: d, to: d}
		step := func(ctx context.Context) (waited time.Duration, err error) {
			began := time.Now()
			done, err := gate.Wait(ctx, tiering.Transfer{Tier: "hdd", Bytes: 64 << 10})
			waited = time.Since(began)
			if err == nil {
				done()
				synctest.Wait()
			}
			return waited, err
		}
		check := func(what string, low, high time.Duration) {
			t.Helper()
			if waited, err := step(t.Context()); err != nil || waited < low || waited > high {
				t.Errorf("%s: waited %v, %v; want %v to %v", what, waited, err, low, high)
			}
		}
		check("idle", 0, 0)

		d.harm.syncing.begin(time.Now())
		time.AfterFunc(30*time.Millisecond, func() { d.harm.syncing.end(time.Now()) })
		check("a sync of 30 ms", 30*time.Millisecond, 30*time.Millisecond+yieldLook)
		d.harm.syncing.begin(time.Now())
		check("syncs without a pause", yieldToSync, yieldToSync+yieldLook)
		d.harm.syncing.end(time.Now())

		d.cold.setBudget(admission.Budget{Slots: 1, State: admission.StateReduced})
		check("a budget that was cut", yieldToHarm, yieldToHarm+yieldLook)
		time.AfterFunc(200*time.Millisecond, func() { d.cold.setBudget(admission.Budget{Slots: 1, State: admission.StateGrowing}) })
		check("one that grows again", 200*time.Millisecond, 200*time.Millisecond+yieldLook)

		// Three reads of 40 ms are queued first: the step comes behind them, or when their bytes have earned it its share of 5 %.
		read := admission.Request{Kind: admission.KindRead, Flow: admission.Subject{Kind: admission.Group, Name: "wh"}, Topic: "orders", Bytes: 1 << 20}
		for range 3 {
			if _, err := d.cold.submit(read, func() (device, shared int64) { <-time.After(40 * time.Millisecond); return 1 << 20, 0 }); err != nil {
				t.Fatal(err)
			}
		}
		check("three reads", 80*time.Millisecond, 120*time.Millisecond)

		d.cold.setBudget(admission.Budget{Slots: 1, State: admission.StateFloor})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if waited, err := step(ctx); err == nil || waited > 50*time.Millisecond+yieldLook {
			t.Errorf("cancelled after 50 ms: waited %v, %v", waited, err)
		}
	})
}

// A step is what the device does in 50 ms: a device that becomes slow gets less at once, one that becomes fast more by and by.
func TestMigrationStep(t *testing.T) {
	var p movePace
	took := func(bytesPerSecond float64) int64 {
		n := p.step()
		p.took(n, time.Duration(float64(n)/bytesPerSecond*float64(time.Second)))
		return p.step()
	}
	if p.step() != firstStep {
		t.Errorf("first step of %d", p.step())
	}
	if n := took(100e6); n != tiering.ChunkBytes {
		t.Errorf("100 MB/s: %d", n)
	}
	if n := took(5e6); n != 192<<10 {
		t.Errorf("5 MB/s after 100: %d", n)
	}
	if n := took(0.5e6); n != minStep {
		t.Errorf("0.5 MB/s: %d", n)
	}
	steps := 0
	for ; took(100e6) < tiering.ChunkBytes; steps++ {
		if steps > 20 {
			t.Fatal("never fast again")
		}
	}
	if steps < 1 {
		t.Error("one fast step is no fast device")
	}
	for _, rate := range []float64{2e6, 7e6, 30e6, 400e6} {
		p = movePace{}
		for range 5 {
			n := took(rate)
			if d := float64(n) / rate; d > 2*stepTime.Seconds() || n%4096 != 0 {
				t.Errorf("at %.0f MB/s a step of %d bytes takes %.0f ms", rate/1e6, n, 1e3*d)
			}
		}
	}
}
