package bench

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"lagoon/internal/bench/report"
)

// TestDistribution is hdrhistogram's with two digits.
func TestDistribution(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 100 {
		var d distribution
		h := hdrhistogram.New(1, maxLatency, 2)
		for range 1 + random.IntN(3000) {
			v := random.Int64N(1 << random.IntN(32))
			d.add(v)
			_ = h.RecordValue(v)
		}
		count, p50, p99, most := d.figures()
		if count != h.TotalCount() || p50 != h.ValueAtQuantile(50) || p99 != h.ValueAtQuantile(99) || most != h.Max() {
			t.Fatalf("%d: %d %d %d, want %d: %d %d %d", count, p50, p99, most, h.TotalCount(), h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.Max())
		}
	}
}

// TestChartIsSmall: an hour of one role, from 3 to 30 ms, takes a few MiB of who measures.
func TestChartIsSmall(t *testing.T) {
	used := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := used()
	r := newRecorder(report.Ack, time.Unix(0, 0))
	for second := range int64(3600) {
		for n := range int64(300) {
			r.record(second*int64(time.Second), 3*int64(time.Millisecond)+n*90_000)
		}
	}
	if grown := used() - before; grown > 20*mib {
		t.Errorf("%d MiB", grown>>20)
	}
	runtime.KeepAlive(r)
}
