package spindle_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"lagoon/internal/lab/spindle"
)

const (
	size = 24 << 30
	gap  = 200 * time.Microsecond // between an answer and the host's next request
)

// host keeps requests of several streams in flight.
type host struct {
	t    *testing.T
	d    *spindle.Disk
	now  time.Duration
	id   uint64
	done map[uint64]time.Duration
}

func newHost(t *testing.T) *host {
	return &host{t: t, d: spindle.New(spindle.Desktop(size)), done: map[uint64]time.Duration{}}
}

func (h *host) submit(op spindle.Op, pos, n int64) uint64 {
	h.id++
	h.d.Submit(h.now, h.id, op, pos, n)
	return h.id
}

// step lets time pass until something is done.
func (h *host) step() []uint64 {
	h.t.Helper()
	for {
		at, ok := h.d.Next()
		if !ok {
			h.t.Fatal("nothing to wait for")
		}
		if at < h.now {
			h.t.Fatalf("next %v before now %v", at, h.now)
		}
		h.now = at
		if ids := h.d.Advance(at); len(ids) > 0 {
			for _, id := range ids {
				h.done[id] = h.now
			}
			return ids
		}
	}
}

func (h *host) wait(id uint64) {
	for h.done[id] == 0 {
		h.step()
	}
}

// streams reads n requests of each stream with one in flight per stream and returns MB/s.
func (h *host) streams(op spindle.Op, count int, request int64, n int) float64 {
	began := h.now
	position := map[uint64]int64{}
	for i := range count {
		pos := int64(i) * (4 << 30)
		position[h.submit(op, pos, request)] = pos + request
	}
	for served := 0; served < count*n; {
		for _, id := range h.step() {
			served++
			h.now += gap / time.Duration(count)
			pos := position[id]
			delete(position, id)
			position[h.submit(op, pos, request)] = pos + request
		}
	}
	return float64(count*n) * float64(request) / (h.now - began).Seconds() / 1e6
}

// TestFigures: what a disk of this kind does, beside docs/benchmarks.md's figures of the device that is served.
func TestFigures(t *testing.T) {
	within := func(name string, got, low, high float64) {
		t.Helper()
		t.Logf("%s: %.1f", name, got)
		if got < low || got > high {
			t.Errorf("%s: %.1f, want %.0f to %.0f", name, got, low, high)
		}
	}
	within("1 stream of 1 MiB, MB/s", newHost(t).streams(spindle.Read, 1, 1<<20, 300), 135, 150)
	within("4 streams of 1 MiB, MB/s", newHost(t).streams(spindle.Read, 4, 1<<20, 200), 50, 95)
	within("1 stream of 128 KiB, MB/s", newHost(t).streams(spindle.Read, 1, 128<<10, 2000), 130, 150)
	within("4 streams of 128 KiB, MB/s", newHost(t).streams(spindle.Read, 4, 128<<10, 500), 25, 60)
	within("1 stream of writes, MB/s", newHost(t).streams(spindle.Write, 1, 1<<20, 300), 130, 185) // the last 32 MiB are in the cache

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHost(t)
	for range 1000 {
		h.wait(h.submit(spindle.Read, random.Int64N(size/4096)*4096, 4096))
	}
	within("random 4 KiB reads a second", 1000/h.now.Seconds(), 100, 120)
	deep := newHost(t)
	flying := 0
	for range 1000 {
		deep.submit(spindle.Read, random.Int64N(size/4096)*4096, 4096)
		for flying++; flying >= 32; {
			flying -= len(deep.step())
		}
	}
	within("random 4 KiB reads a second, 32 in flight", 970/deep.now.Seconds(), 180, 400)
	h = newHost(t)
	for range 300 {
		h.submit(spindle.Write, random.Int64N(size/4096)*4096, 4096)
		h.wait(h.submit(spindle.Flush, 0, 0))
	}
	within("random 4 KiB writes a second, each flushed", 300/h.now.Seconds(), 100, 120)
}

// TestFlushWaitsForItsWrites and for no later ones; after it nothing is in the cache.
func TestFlushWaitsForItsWrites(t *testing.T) {
	h := newHost(t)
	for i := range int64(20) {
		h.wait(h.submit(spindle.Write, i*(1<<30), 4096))
	}
	if h.now > 20*time.Millisecond || h.d.Dirty() == 0 {
		t.Errorf("20 writes took %v and left %d bytes in the cache", h.now, h.d.Dirty())
	}
	began := h.now
	h.wait(h.submit(spindle.Flush, 0, 0))
	if took := h.now - began; took < 60*time.Millisecond {
		t.Errorf("the flush of 20 far writes took %v", took)
	}
	if h.d.Dirty() != 0 {
		t.Errorf("%d bytes in the cache after a flush", h.d.Dirty())
	}
	began = h.now
	h.wait(h.submit(spindle.Flush, 0, 0))
	if took := h.now - began; took > time.Millisecond {
		t.Errorf("a flush of nothing took %v", took)
	}
}

// TestNobodyStarves: two sequential readers with deep queues hold neither a far reader nor a flush up for long.
func TestNobodyStarves(t *testing.T) {
	h := newHost(t)
	pos, stream := int64(0), map[uint64]bool{}
	feed := func() {
		stream[h.submit(spindle.Read, pos, 128<<10)] = true
		pos += 128 << 10
	}
	for range 16 {
		feed()
	}
	until := func(id uint64) time.Duration {
		began := h.now
		for h.done[id] == 0 {
			for _, got := range h.step() {
				if stream[got] {
					feed()
				}
			}
		}
		return h.now - began
	}
	if took := until(h.submit(spindle.Read, 20<<30, 4096)); took > 450*time.Millisecond {
		t.Errorf("a far read took %v", took)
	}
	h.submit(spindle.Write, 20<<30, 4096)
	if took := until(h.submit(spindle.Flush, 0, 0)); took > 500*time.Millisecond {
		t.Errorf("a flush took %v", took)
	}
}

// TestEverythingEnds: whatever is asked is answered once, in bounded time, and time does not run back.
func TestEverythingEnds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHost(t)
	began := map[uint64]time.Duration{}
	for range 20000 {
		op := spindle.Op(random.IntN(3))
		n := int64(1+random.IntN(256)) * 4096
		began[h.submit(op, random.Int64N(size/4096-256)*4096, n)] = h.now
		for len(began) > 64 || random.IntN(3) == 0 && len(began) > 0 {
			for _, id := range h.step() {
				if _, open := began[id]; !open {
					t.Fatalf("request %d is done twice", id)
				}
				if took := h.now - began[id]; took > 3*time.Second {
					t.Fatalf("request %d took %v", id, took)
				}
				delete(began, id)
			}
		}
	}
	for len(began) > 0 {
		for _, id := range h.step() {
			delete(began, id)
		}
	}
}

// TestOverlappingReads: who reads in order, but for the last page of each read again, is as fast as who does not.
func TestOverlappingReads(t *testing.T) {
	speed := func(overlap int64) float64 {
		h := newHost(t)
		const n = 960 << 10
		pos := int64(1 << 30)
		for range 300 {
			h.wait(h.submit(spindle.Read, pos, n))
			h.now += gap
			pos += n - overlap
		}
		return float64(pos-1<<30) / 1e6 / h.now.Seconds()
	}
	plain, again, far := speed(0), speed(4<<10), speed(512<<10)
	t.Logf("%.0f MB/s, a page read again %.0f, half of everything read again %.0f", plain, again, far)
	if again < 0.95*plain || far > 0.5*plain {
		t.Errorf("%.0f MB/s, a page read again %.0f, half of everything read again %.0f", plain, again, far)
	}
}

// TestDeepStream: one stream is as fast with several requests in flight as with one, also when each begins with the page in which the
// last one ended.
func TestDeepStream(t *testing.T) {
	speed := func(n, overlap int64, depth, burst int) float64 {
		h := newHost(t)
		pos, flying := int64(1<<30), 0
		for range 300 {
			for flying < depth {
				for range burst {
					h.submit(spindle.Read, pos, n)
					pos += n - overlap
					flying++
				}
			}
			flying -= len(h.step())
			h.now += gap
		}
		return float64(pos-1<<30-int64(flying)*n) / 1e6 / h.now.Seconds()
	}
	for _, c := range []struct{ n, overlap int64 }{{128 << 10, 0}, {1 << 20, 0}, {1 << 20, 4 << 10}} {
		one := speed(c.n, c.overlap, 1, 1)
		for _, depth := range []int{2, 4, 6} {
			for _, burst := range []int{1, 2} {
				if got := speed(c.n, c.overlap, depth, burst); got < 0.97*one {
					t.Errorf("%d KiB, %d in flight, %d at a time, %d KiB read again: %.0f MB/s, one by one %.0f",
						c.n>>10, depth, burst, c.overlap>>10, got, one)
				}
			}
		}
	}
}
