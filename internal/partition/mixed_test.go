package partition_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/partition"
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
