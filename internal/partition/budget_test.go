package partition_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// sharedDisk is a device below a log directory: reads take their time, and syncs take six times as long when they get behind
// more cold reads than the knee has room for. It runs on a bubble's clock.
type sharedDisk struct {
	mu    sync.Mutex
	rng   *rand.Rand
	speed float64 // bytes per second of one read
	knee  float64 // cold bytes per second; 0: never
	times float64 // everything takes so much longer
	rate  float64 // cold bytes per second of the last moments
	at    time.Time
	cold  int64 // bytes read
}

// Fault lets calls take their time, and all of them pass.
func (d *sharedDisk) Fault(op vfs.Op) error {
	if !strings.HasSuffix(op.Name, ".log") {
		return nil
	}
	switch {
	case op.Kind == vfs.OpSync:
		time.Sleep(d.sync())
	case op.Kind == vfs.OpRead && op.Len >= 64<<10:
		time.Sleep(d.read(op.Len))
	}
	return nil
}

func (d *sharedDisk) read(n int64) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fade()
	d.rate += float64(n) / 0.3
	d.cold += n
	return time.Duration(float64(n) / d.speed * d.times * float64(time.Second))
}

func (d *sharedDisk) sync() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fade()
	took := 2 * math.Exp(0.4*d.rng.NormFloat64())
	if d.knee > 0 && d.rng.Float64() < d.rate/d.knee-1 {
		took *= 6
	}
	return time.Duration(took * d.times * float64(time.Millisecond))
}

func (d *sharedDisk) fade() {
	now := time.Now()
	d.rate *= math.Exp(-now.Sub(d.at).Seconds() / 0.3)
	d.at = now
}

// set changes the disk and tells how much was read so far.
func (d *sharedDisk) set(times float64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times = times
	return d.cold
}

// budgetWorld is a store on a sharedDisk with a producer, and a log that a backfill reads again and again.
type budgetWorld struct {
	t     *testing.T
	disk  *sharedDisk
	s     *partition.Store
	live  *partition.Log
	old   *partition.Log
	end   segment.Offset // of what the backfill reads
	stops []func()

	mu   sync.Mutex
	acks []time.Duration
}

// newBudgetWorld has a disk that gives one read so many bytes per second. What is read costs the test real time, more than all else.
func newBudgetWorld(t *testing.T, seed uint64, speed float64, adaptive *partition.Adaptive) *budgetWorld {
	w := &budgetWorld{t: t, disk: &sharedDisk{rng: rand.New(rand.NewPCG(seed, 3)), speed: speed, knee: 20 << 20, times: 1, at: time.Now()}}
	sim := cachetest.New(cachetest.Options{})
	fs := sim.FS(vfs.WithFaults(vfs.NewMem(seed), w.disk))
	pool, err := cachectl.NewPool(8<<20, 256<<10)
	if err != nil {
		t.Fatal(err)
	}
	w.stops = append(w.stops, pool.Close)
	w.s = open(t, func(o *partition.Options) {
		o.Cache, o.Pool, o.Adaptive = cachectl.New(sim, cachectl.Options{}), pool, adaptive
		o.CheckpointInterval, o.RetentionInterval = time.Hour, time.Hour
	}, fs)
	w.live = load(t, w.s, config(), 2)
	w.old, _ = w.s.Log("orders", 1)
	record := batch("old", 60, 1000, nil, time.Now().UnixMilli())
	for n := 0; n < 24<<20; n += len(record) {
		clear(record[:8])
		a, err := w.old.Append(t.Context(), partition.AppendRequest{Records: record})
		if err != nil {
			t.Fatal(err)
		}
		w.end = a.Base
	}
	if err := w.old.Durable(t.Context(), w.end); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // the segments are sealed
	sim.Settle()
	for _, sv := range w.old.Segments() {
		if _, err := w.old.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
		w.end = min(w.end, sv.Base) // the backfill stays out of the active segment
		if !sv.Active {
			w.end = sv.Next
		}
	}
	return w
}

// during runs fn until the world ends.
func (w *budgetWorld) during(fn func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); fn(ctx) }()
	w.stops = append(w.stops, func() { cancel(); <-done })
}

// produce sends a batch each 4 ms and notes the time from when it was due until its ack.
func (w *budgetWorld) produce() {
	w.during(func(ctx context.Context) {
		var wg sync.WaitGroup
		defer wg.Wait()
		due := time.NewTicker(4 * time.Millisecond)
		defer due.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case at := <-due.C:
				wg.Go(func() {
					a, err := w.live.Append(ctx, partition.AppendRequest{Records: batch("live", 1, 1000, nil, at.UnixMilli())})
					if err == nil {
						err = w.live.Durable(context.Background(), a.Next)
					}
					if err != nil {
						w.t.Error(err)
					}
					w.mu.Lock()
					w.acks = append(w.acks, time.Since(at))
					w.mu.Unlock()
				})
			}
		}
	})
}

// backfill reads the old log again and again, as fast as it can, and counts what it gets.
func (w *budgetWorld) backfill(name string) *atomic.Int64 {
	var got atomic.Int64
	w.during(func(ctx context.Context) {
		watch := partition.NewWatch()
		defer watch.Close()
		for from := segment.Offset(0); ctx.Err() == nil; {
			res, err := w.old.Read(partition.ReadRequest{Reader: partition.ReaderRef{Group: name, ClientID: name}, From: from, MaxBytes: 256 << 10, MustServe: true, Watch: watch})
			switch {
			case err != nil:
				w.t.Error(err)
				return
			case res.Chunk == nil:
				select {
				case <-ctx.Done():
				case <-watch.C():
				}
				continue
			}
			got.Add(res.Chunk.Len())
			if from = res.Chunk.Next(); from >= w.end {
				from = 0
			}
			res.Chunk.Release()
		}
	})
	return &got
}

// p99 lets d pass and gives the p99 of the acks in it, and the cold bytes per second.
func (w *budgetWorld) p99(d time.Duration) (p99 time.Duration, cold float64) {
	w.mu.Lock()
	w.acks = nil
	w.mu.Unlock()
	before := w.disk.set(w.times())
	time.Sleep(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.acks)
	return w.acks[len(w.acks)*99/100], float64(w.disk.set(w.disk.times)-before) / d.Seconds()
}

func (w *budgetWorld) times() float64 {
	w.disk.mu.Lock()
	defer w.disk.mu.Unlock()
	return w.disk.times
}

func (w *budgetWorld) budget() *admission.ControllerView { return w.s.Dirs()[0].Controller }

func (w *budgetWorld) close() {
	for i := len(w.stops) - 1; i > 0; i-- {
		w.stops[i]()
	}
	closeStore(w.t, w.s)
	w.stops[0]()
}

// TestBudget_FollowsTheHarm closes the loop over a simulated disk: a producer whose syncs suffer from more than 20 MiB/s of cold
// reads, and four backfills that would take all there is. Without a budget the p99 of acks is several times as high; with the
// adaptive one it stays near the undisturbed one, and the backfills get most of what is harmless. A disk that gets twenty times
// as slow halves the budget within a second, and when it is over the budget comes back.
func TestBudget_FollowsTheHarm(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	run := func(t *testing.T, seed uint64, adaptive *partition.Adaptive, then func(w *budgetWorld, base time.Duration)) {
		synctest.Test(t, func(t *testing.T) {
			w := newBudgetWorld(t, seed, 100<<20, adaptive)
			defer w.close()
			w.produce()
			time.Sleep(time.Second)
			base, _ := w.p99(15 * time.Second)
			for _, name := range []string{"a", "b", "c", "d"} {
				w.backfill(name)
			}
			then(w, base)
		})
	}
	t.Run("off", func(t *testing.T) {
		run(t, seed, nil, func(w *budgetWorld, base time.Duration) {
			time.Sleep(time.Second)
			p99, cold := w.p99(2 * time.Second)
			t.Logf("acks p99 %s, undisturbed %s; %.0f MiB/s cold", p99, base, cold/(1<<20))
			if p99 < 2*base {
				t.Error("the simulated disk does no harm: this test shows nothing")
			}
		})
	})
	var hurt []float64 // p99 to its bound, of three worlds: 30 s have a p99 that chance moves by some per cent
	adaptive := func(t *testing.T, seed uint64) {
		run(t, seed, &partition.Adaptive{FloorBytes: 1 << 20}, func(w *budgetWorld, base time.Duration) {
			time.Sleep(10 * time.Second)
			p99, cold := w.p99(30 * time.Second)
			t.Logf("acks p99 %s, undisturbed %s; %.1f MiB/s cold; %s", p99, base, cold/(1<<20), w.budget().Reason)
			hurt = append(hurt, float64(p99)/float64(base*3/2+time.Millisecond))
			if cold < 0.6*20*(1<<20) {
				t.Error("the backfills got less than 60 % of what is harmless")
			}
			before := w.budget().Budget.BytesPerSecond
			w.disk.set(20)
			time.Sleep(time.Second)
			if got := w.budget(); got.Budget.BytesPerSecond > before/2 {
				t.Errorf("1 s into the step: budget %s/s of %s/s: %s", admission.Bytes(got.Budget.BytesPerSecond), admission.Bytes(before), got.Reason)
			}
			time.Sleep(4 * time.Second)
			w.disk.set(1)
			time.Sleep(10 * time.Second)
			if got := w.budget(); got.Budget.BytesPerSecond < before*3/4 {
				t.Errorf("10 s after the step: budget %s/s of %s/s: %s", admission.Bytes(got.Budget.BytesPerSecond), admission.Bytes(before), got.Reason)
			}
		})
	}
	for i := range uint64(3) {
		t.Run(fmt.Sprint("adaptive/", i), func(t *testing.T) { adaptive(t, seed+i) })
	}
	if slices.Sort(hurt); len(hurt) == 3 && hurt[1] > 1 {
		t.Errorf("the producer is hurt: its p99 is %.2f times what it may be", hurt)
	}
}

// TestBudget_Idle: without cold reads the controllers are asked once a second, and a backfill beside nobody has no budget.
func TestBudget_Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBudgetWorld(t, 1, 400<<20, &partition.Adaptive{FloorBytes: 1 << 20})
		defer w.close()
		time.Sleep(5 * time.Second)
		w.backfill("a")
		time.Sleep(100 * time.Millisecond)
		if _, cold := func() (time.Duration, float64) {
			before := w.disk.set(1)
			time.Sleep(time.Second)
			return 0, float64(w.disk.set(1) - before)
		}(); cold < 100<<20 {
			t.Errorf("alone the backfill gets %.0f MiB/s", cold/(1<<20))
		}
		if b := w.budget().Budget; b.State != admission.StateUnlimited || b.BytesPerSecond != 0 {
			t.Errorf("budget %+v", b)
		}
	})
}
