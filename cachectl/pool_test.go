package cachectl_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
)

const chunk = 64 << 10

func newPool(t *testing.T, chunks int64) *cachectl.Pool {
	t.Helper()
	p, err := cachectl.NewPool(chunks*chunk, chunk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func mustGet(t *testing.T, p *cachectl.Pool) *cachectl.Buffer {
	t.Helper()
	b, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNewPool_RefusesBadSizes(t *testing.T) {
	for _, c := range []struct{ total, chunk int64 }{
		{0, chunk}, {chunk - 1, chunk}, {chunk, 0}, {chunk, -4096}, {chunk, 5000}, {1 << 40, 4096},
	} {
		if p, err := cachectl.NewPool(c.total, c.chunk); !errors.Is(err, cachectl.ErrOptions) {
			t.Errorf("NewPool(%d, %d) = %v, %v; want ErrOptions", c.total, c.chunk, p, err)
		}
	}
}

func TestPool_BoundedAlignedLazy(t *testing.T) {
	p := newPool(t, 3)
	if s := p.Stats(); s.MappedBytes != 0 || s.CapacityBytes != 3*chunk {
		t.Errorf("new pool: %+v", s)
	}
	var held []*cachectl.Buffer
	for range 3 {
		b := mustGet(t, p)
		if addr := uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes()))); addr%cachectl.PageSize != 0 || len(b.Bytes()) != chunk {
			t.Errorf("buffer at %#x, %d bytes", addr, len(b.Bytes()))
		}
		held = append(held, b)
	}
	if _, ok := p.TryGet(); ok {
		t.Error("a fourth buffer came out of a pool of three")
	}
	if s := p.Stats(); s.InUseBytes != 3*chunk || s.MappedBytes != 3*chunk {
		t.Errorf("all out: %+v", s)
	}
	held[0].Retain()
	held[0].Release()
	if _, ok := p.TryGet(); ok {
		t.Error("a retained buffer was handed out again")
	}
	for _, b := range held {
		b.Release()
	}
	if s := p.Stats(); s.InUseBytes != 0 || s.MappedBytes != 3*chunk {
		t.Errorf("all back: %+v", s)
	}
}

func TestBuffer_MisusePanics(t *testing.T) {
	p := newPool(t, 1)
	old := mustGet(t, p)
	old.Release()
	fresh := mustGet(t, p) // the same memory, but the stale handle must stay dead
	defer fresh.Release()
	for name, misuse := range map[string]func(){
		"Release": old.Release,
		"Retain":  old.Retain,
		"Bytes":   func() { old.Bytes() },
	} {
		func() {
			defer func() {
				if r, _ := recover().(string); !strings.Contains(r, "Buffer") {
					t.Errorf("%s after the last Release: recovered %q", name, r)
				}
			}()
			misuse()
		}()
	}
	fresh.Retain()
	fresh.Release()
}

func TestPool_ServesInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, 1)
		b := mustGet(t, p)
		var order []int
		for i := range 5 {
			go func() {
				w, err := p.Get(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // the pool hands over: one holder at a time
				w.Release()
			}()
			synctest.Wait()
		}
		if _, ok := p.TryGet(); ok {
			t.Error("TryGet overtook waiters")
		}
		time.Sleep(3 * time.Second) // fake clock: what the waiters wait
		b.Release()
		synctest.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("served in order %v", order)
			}
		}
		if s := p.Stats(); len(order) != 5 || s.Waits != 5 || s.Waited != 15*time.Second || s.Waiting != 0 {
			t.Errorf("order %v, %+v", order, s)
		}
		p.Close()
	})
}

func TestPool_CancelledWaiterLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, 1)
		b := mustGet(t, p)
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error, 1)
		go func() {
			_, err := p.Get(ctx)
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled Get: %v", err)
		}
		if _, err := p.Get(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Get with a dead context: %v", err)
		}
		b.Release()
		again, ok := p.TryGet()
		if !ok {
			t.Fatal("the buffer went to a waiter that had left")
		}
		again.Release()
		p.Close()
	})
}

func TestPool_CloseFailsWaitersAndFreesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, 2)
		a, b := mustGet(t, p), mustGet(t, p)
		failed := make(chan error, 1)
		go func() {
			_, err := p.Get(context.Background())
			failed <- err
		}()
		synctest.Wait()
		p.Close()
		p.Close()
		if err := <-failed; !errors.Is(err, cachectl.ErrPoolClosed) {
			t.Errorf("waiter at Close: %v", err)
		}
		if _, err := p.Get(context.Background()); !errors.Is(err, cachectl.ErrPoolClosed) {
			t.Errorf("Get after Close: %v", err)
		}
		a.Bytes()[0] = 1 // still valid
		a.Release()
		b.Release()
		if s := p.Stats(); s.MappedBytes != 0 || s.MapErrors != 0 {
			t.Errorf("after the last Release: %+v", s)
		}
	})
}

func TestPool_TrimsWhatIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, 8)
		var held []*cachectl.Buffer
		for range 8 {
			held = append(held, mustGet(t, p))
		}
		for _, b := range held {
			b.Release()
		}
		// One buffer in steady use keeps one buffer, not eight.
		for range 30 {
			b := mustGet(t, p)
			time.Sleep(time.Second)
			b.Release()
		}
		synctest.Wait()
		if s := p.Stats(); s.MappedBytes != chunk || s.TrimmedBytes != 7*chunk {
			t.Errorf("one in use for 30 s: %+v", s)
		}
		time.Sleep(2*cachectl.DefaultIdleTrim + time.Second)
		synctest.Wait()
		if s := p.Stats(); s.MappedBytes != 0 {
			t.Errorf("idle: %+v", s)
		}
		b := mustGet(t, p)
		b.Bytes()[chunk-1] = 1
		b.Release()
		p.Close()
	})
}

// TestPool_Concurrent: many users with cancellations; no two holders of one buffer, nothing lost at the end.
func TestPool_Concurrent(t *testing.T) {
	p := newPool(t, 4)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for id := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(id)))
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(4) == 0 {
					go cancel()
				}
				b, err := p.Get(ctx)
				if err != nil {
					cancel()
					continue
				}
				mark := []byte{byte(id), byte(rnd.Uint32())}
				copy(b.Bytes(), mark)
				if rnd.IntN(2) == 0 {
					b.Retain()
					b.Release()
				}
				if !bytes.Equal(b.Bytes()[:2], mark) {
					t.Errorf("buffer has two holders")
				}
				b.Release()
				cancel()
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.InUseBytes != 0 || s.Waiting != 0 || s.MappedBytes > s.CapacityBytes {
		t.Errorf("at the end: %+v", s)
	}
}

func TestPool_Register(t *testing.T) {
	p := newPool(t, 2)
	reg := prometheus.NewPedanticRegistry()
	if err := p.Register(reg); err != nil {
		t.Fatal(err)
	}
	b := mustGet(t, p)
	defer b.Release()
	for _, want := range []string{
		"lagoon_cachectl_pool_in_use_bytes{} 65536\n",
		"lagoon_cachectl_pool_capacity_bytes{} 131072\n",
		"lagoon_cachectl_pool_mapped_bytes{} 65536\n",
	} {
		if got := metricsText(t, reg); !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if err := p.Register(nil); err != nil {
		t.Errorf("Register(nil): %v", err)
	}
}
