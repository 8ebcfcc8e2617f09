package partition_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// BenchmarkLaggingReader reads sealed, non-resident segments as lagging readers do, all the same range or each a part of
// its own, against a plain sequential O_DIRECT read of the same files with 1 MiB requests: device/direct is what the cold path
// makes of the device, served/direct what the readers got, times-read how often the range left the device. LAGOON_BENCH_DIR names a
// directory on the device to measure (default: the temporary directory).
func BenchmarkLaggingReader(b *testing.B) {
	dir := b.TempDir()
	if d := os.Getenv("LAGOON_BENCH_DIR"); d != "" {
		var err error
		if dir, err = os.MkdirTemp(d, "lagging"); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	fs, err := vfs.OS(dir)
	if err != nil {
		b.Fatal(err)
	}
	pool, err := cachectl.NewPool(64<<20, 2<<20)
	if err != nil {
		b.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s := open(b, func(o *partition.Options) { o.Pool, o.Registerer = pool, reg }, fs)
	cfg := config()
	cfg.SegmentBytes, cfg.SegmentIndexBytes = 128<<20, 10<<20
	l := load(b, s, cfg, 1)
	const total = 1 << 30
	record := batch("bench", 60, 1024, nil, 1)
	var last segment.Offset
	for n := 0; n < total; n += len(record) {
		clear(record[:8]) // a client's base offset
		a, err := l.Append(context.Background(), partition.AppendRequest{Records: record})
		if err != nil {
			b.Fatal(err)
		}
		last = a.Next
	}
	if err := l.Durable(context.Background(), last); err != nil {
		b.Fatal(err)
	}
	var sealed []partition.SegmentView
	waitFor(b, "sealed segments", func() bool {
		sealed = sealed[:0]
		for _, sv := range l.Segments() {
			if sv.Sealed {
				sealed = append(sealed, sv)
			}
		}
		return len(sealed) >= 7
	})
	var bytes int64
	for _, sv := range sealed {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			b.Fatal(err)
		}
		bytes += sv.SizeBytes
	}
	end := sealed[len(sealed)-1].Next
	run := 0
	for _, c := range []struct {
		name    string
		readers int
		spread  bool
	}{{"same/1", 1, false}, {"same/4", 4, false}, {"same/16", 16, false}, {"spread/4", 4, true}, {"spread/16", 16, true}} {
		b.Run(c.name, func(b *testing.B) {
			var lagging, direct time.Duration
			var served int64
			before := counter(b, reg, "lagoon_cold_read_bytes_total")
			for b.Loop() {
				run++
				t0 := time.Now()
				var wg sync.WaitGroup
				for i := range c.readers {
					from, to := segment.Offset(0), end
					served += bytes
					if c.spread { // each reads a part of its own
						from, to = end*segment.Offset(i)/segment.Offset(c.readers), end*segment.Offset(i+1)/segment.Offset(c.readers)
						served -= bytes - bytes/int64(c.readers)
					}
					wg.Go(func() { drain(b, l, partition.ReaderRef{ClientID: fmt.Sprint("r", run, "/", i)}, from, to) })
				}
				wg.Wait()
				t1 := time.Now()
				for _, sv := range sealed {
					readDirect(b, fs, sv)
				}
				lagging, direct = lagging+t1.Sub(t0), direct+time.Since(t1)
			}
			read := counter(b, reg, "lagoon_cold_read_bytes_total") - before
			mb := func(n float64, d time.Duration) float64 { return n / d.Seconds() / 1e6 }
			pass := mb(float64(bytes)*float64(b.N), direct)
			b.ReportMetric(mb(read, lagging)/pass, "device/direct")
			b.ReportMetric(mb(float64(served), lagging)/pass, "served/direct")
			b.ReportMetric(read/float64(bytes)/float64(b.N), "times-read")
			b.ReportMetric(pass, "direct-MB/s")
			b.ReportMetric(counter(b, reg, "lagoon_convoy_leaves_total"), "leaves")
		})
	}
	closeStore(b, s)
}

// drain reads from one offset to another and drops the bytes.
func drain(b *testing.B, l *partition.Log, ref partition.ReaderRef, from, end segment.Offset) {
	w := partition.NewWatch()
	defer w.Close()
	for from < end {
		res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: 1 << 20, MustServe: true, Watch: w})
		if err != nil {
			b.Fatal(err)
		}
		if res.Chunk == nil {
			<-w.C()
			continue
		}
		if next := res.Chunk.Next(); next > from {
			from = next
		} else {
			b.Fatalf("no progress at %d", from)
		}
		res.Chunk.Release()
	}
}

func readDirect(b *testing.B, fs vfs.FS, sv partition.SegmentView) {
	f, err := fs.Open(sv.File, vfs.Direct)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := segment.ScanBuffer(1 << 20)
	for pos := int64(0); pos < sv.SizeBytes; pos += int64(len(buf)) {
		if n, err := f.ReadAt(buf, pos); n == 0 {
			b.Fatal(err)
		}
	}
}
