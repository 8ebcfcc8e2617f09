package partition_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// TestAlternatingResidencyIsReadOnce: a lagging reader crosses a log of which every other piece is resident. What it takes
// from the device must stay near the cold part: each change of lane may cost some read-ahead, and no more.
func TestAlternatingResidencyIsReadOnce(t *testing.T) {
	for _, records := range []int{1, 30, 900} { // batches of 1 KB, 30 KB and 900 KB
		t.Run(fmt.Sprint(records), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			s := open(t, func(o *partition.Options) { o.Registerer = reg }, osFS(t))
			cfg := config()
			cfg.SegmentBytes, cfg.MaxMessageBytes = 16<<20, 2<<20
			l := load(t, s, cfg, 1)
			var want []byte
			for n := 0; len(want) < 12<<20; n++ {
				b := batch(fmt.Sprint(n), records, 1000, nil, 1)
				a, err := l.Append(t.Context(), partition.AppendRequest{Records: b})
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, b...)
				if n%64 == 0 || len(want) >= 12<<20 {
					if err := l.Durable(t.Context(), a.Next); err != nil {
						t.Fatal(err)
					}
				}
			}
			const piece = 1300 << 10
			pieces := 0
			for _, sv := range l.Segments() {
				if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
					t.Fatal(err)
				}
				for pos := int64(0); pos < sv.SizeBytes; pos += 2 * piece {
					pieces++
					if _, err := l.Warm(sv, pos, min(piece, sv.SizeBytes-pos)); err != nil {
						t.Fatal(err)
					}
				}
			}
			consume(t, l, partition.ReaderRef{ClientID: "backfill"}, 0, 1<<20, want)
			if read := counter(t, reg, "lagoon_cold_read_bytes_total"); read > float64(len(want))+float64(pieces*3<<20) {
				t.Errorf("%.0f MB read from the device for %.0f MB in %d pieces", read/1e6, float64(len(want))/1e6, pieces)
			} else {
				t.Logf("%.0f MB read from the device for %.0f MB in %d pieces", read/1e6, float64(len(want))/1e6, pieces)
			}
			closeStore(t, s)
		})
	}
}

// TestRewindInsideAnExtent: a reader asks again for an offset in the middle of what it was just given, and the place has gone
// cold meanwhile. Nothing may be skipped.
func TestRewindInsideAnExtent(t *testing.T) {
	s := open(t, nil, osFS(t))
	cfg := config()
	cfg.SegmentBytes = 16 << 20
	l := load(t, s, cfg, 1)
	for n := range 2000 {
		produce(t, l, batch(fmt.Sprint(n), 1, 1000, nil, 1))
	}
	ref := partition.ReaderRef{ClientID: "seeker"}
	for _, from := range []segment.Offset{100, 150, 101, 199, 120, 1500, 1400} {
		for _, sv := range l.Segments() {
			if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
				t.Fatal(err)
			}
			pos, err := l.Floor(sv, from&^127)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Warm(sv, pos, 128<<10); err != nil {
				t.Fatal(err)
			}
		}
		w := partition.NewWatch()
		var res partition.ReadResult
		for {
			var err error
			if res, err = l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: 100_000, MustServe: true, Watch: w}); err != nil {
				t.Fatal(err)
			}
			if res.Chunk != nil {
				break
			}
			<-w.C()
		}
		p := make([]byte, segment.BatchHeaderSize)
		if _, err := res.Chunk.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if h, err := segment.DecodeHeader(p); err != nil || h.BaseOffset > from {
			t.Errorf("asked for %d, got %d, %v", from, h.BaseOffset, err)
		}
		res.Chunk.Release()
		w.Close()
	}
	closeStore(t, s)
}

// TestRefillForTwo: while a real-time reader's miss is read into the cache another one asks for the same bytes. The device gives them once, and
// that is what both are said to have had from it.
func TestRefillForTwo(t *testing.T) {
	reading, gate := make(chan struct{}, 10), make(chan struct{})
	var armed atomic.Bool
	reg := prometheus.NewRegistry()
	sim := cachetest.New(cachetest.Options{})
	fs := sim.FS(vfs.WithFaults(vfs.NewMem(1), vfs.InjectorFunc(func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") && armed.Load() {
			reading <- struct{}{}
			<-gate
		}
		return nil
	})))
	s := open(t, func(o *partition.Options) {
		o.Cache, o.Registerer = cachectl.New(sim, cachectl.Options{VerifyEvery: -1}), reg
		o.Readers.MinBytes, o.Readers.MinAge = 64<<20, time.Minute
	}, fs)
	l := load(t, s, config(), 1)
	b := batch("hot", 8, 3000, nil, 1)
	produce(t, l, b)
	sim.Settle()
	if _, err := l.Evict(l.Segments()[0], 0, l.SizeBytes()); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	for _, name := range []string{"first", "second"} {
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: name}, From: 0, MaxBytes: 1 << 20, MustServe: true, Watch: partition.NewWatch()})
		if err != nil || !res.Pending {
			t.Fatalf("%s: %+v, %v", name, res, err)
		}
		if name == "first" {
			<-reading // its pages are in the cache, and nothing is in them
		}
	}
	armed.Store(false)
	close(gate)
	consume(t, l, partition.ReaderRef{ClientID: "first"}, 0, 1<<20, b)
	consume(t, l, partition.ReaderRef{ClientID: "second"}, 0, 1<<20, b)
	var cold, hot int64
	for _, r := range s.Readers() {
		cold += r.LaneBytesTotal[admission.Fill] + r.LaneBytesTotal[admission.Bypass]
		hot += r.LaneBytesTotal[admission.Hot]
	}
	if n := int64(len(b)); cold != n || hot != n {
		t.Errorf("%d bytes were read once for two: %d came from the device, %d from the cache", n, cold, hot)
	}
	if got := counter(t, reg, "lagoon_tail_cold_reads_total"); got != 1 {
		t.Errorf("%v reads needed the device", got)
	}
	closeStore(t, s)
}

// TestRefillOfOnePage: of what a real-time reader wants one page is missing. Exactly that comes from the device, and the read counts as one that
// needed it.
func TestRefillOfOnePage(t *testing.T) {
	reg, sim := prometheus.NewRegistry(), cachetest.New(cachetest.Options{SmallFolios: true})
	s := open(t, func(o *partition.Options) {
		o.Cache, o.Registerer = cachectl.New(sim, cachectl.Options{VerifyEvery: -1}), reg
		o.Readers.MinBytes, o.Readers.MinAge = 64<<20, time.Minute
	}, sim.FS(vfs.NewMem(1)))
	l := load(t, s, config(), 1)
	b := batch("hot", 8, 5000, nil, 1)
	produce(t, l, b)
	sim.Settle()
	if _, err := l.Evict(l.Segments()[0], 2*cachectl.PageSize, cachectl.PageSize); err != nil {
		t.Fatal(err)
	}
	consume(t, l, partition.ReaderRef{ClientID: "tail"}, 0, 1<<20, b)
	if got := s.Readers()[0].LaneBytesTotal[admission.Fill]; got != int64(len(b)) {
		t.Errorf("%d of %d bytes count as from the device", got, len(b))
	}
	if got := counter(t, reg, "lagoon_cold_read_bytes_total"); got != cachectl.PageSize {
		t.Errorf("%v bytes came from the device", got)
	}
	closeStore(t, s)
}

// counter sums a family of counters or gauges over its labels.
func counter(t testing.TB, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
