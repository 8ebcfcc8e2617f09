package partition_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
	"lagoon/internal/lab"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// BenchmarkLaggingReader reads sealed, non-resident segments as lagging readers do, all the same range of one partition or of four in one
// fetch, or each a part of its own, against a plain sequential O_DIRECT read of the same files with 1 MiB requests: device/direct is what the
// cold path makes of the device, served/direct what the readers got, times-read how often the range left the device. LAGOON_BENCH_DIR
// names a directory on the device to measure (default: the temporary directory).
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
	pool, err := cachectl.NewPool(32*(2<<20+2*cachectl.PageSize), 2<<20+2*cachectl.PageSize) // as the daemon makes it
	if err != nil {
		b.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s := open(b, func(o *partition.Options) { o.Pool, o.Registerer = pool, reg }, fs)
	cfg := config()
	cfg.SegmentBytes, cfg.SegmentIndexBytes = 64<<20, 10<<20
	load(b, s, cfg, 5)
	one, four := []coldRange{fillCold(b, s, 0, 1<<30)}, []coldRange{}
	for p := range int32(4) {
		four = append(four, fillCold(b, s, p+1, 256<<20))
	}
	buf, err := lab.DirectMemory(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	run := 0
	for _, c := range []struct {
		name    string
		ranges  []coldRange
		readers int
		spread  bool
	}{
		{"same/1", one, 1, false}, {"same/4", one, 4, false}, {"same/16", one, 16, false},
		{"same4/1", four, 1, false}, {"same4/4", four, 4, false}, {"same4/16", four, 16, false},
		{"spread/4", one, 4, true}, {"spread/16", one, 16, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			var lagging, direct time.Duration
			var served, bytes int64
			for _, r := range c.ranges {
				bytes += r.bytes
			}
			count := func() (values []float64) {
				for _, name := range []string{"lagoon_cold_read_bytes_total", "lagoon_convoy_leaves_total"} {
					values = append(values, counter(b, reg, name))
				}
				return values
			}
			before := count()
			for b.Loop() {
				run++
				t0 := time.Now()
				var wg sync.WaitGroup
				for i := range c.readers {
					mine := slices.Clone(c.ranges)
					served += bytes
					if c.spread { // each reads a part of its own
						whole, n := mine[0].to, segment.Offset(c.readers)
						mine[0].from, mine[0].to = whole*segment.Offset(i)/n, whole*segment.Offset(i+1)/n
						served -= bytes - bytes/int64(c.readers)
					}
					wg.Go(func() { drain(b, partition.ReaderRef{ClientID: fmt.Sprint("r", run, "/", i)}, mine) })
				}
				wg.Wait()
				t1 := time.Now()
				for _, r := range c.ranges {
					for _, sv := range r.sealed {
						readDirect(b, fs, sv, buf)
					}
				}
				lagging, direct = lagging+t1.Sub(t0), direct+time.Since(t1)
			}
			after := count()
			read := after[0] - before[0]
			mb := func(n float64, d time.Duration) float64 { return n / d.Seconds() / 1e6 }
			pass := mb(float64(bytes)*float64(b.N), direct)
			b.ReportMetric(mb(read, lagging)/pass, "device/direct")
			b.ReportMetric(mb(float64(served), lagging)/pass, "served/direct")
			b.ReportMetric(read/float64(bytes)/float64(b.N), "times-read")
			b.ReportMetric(pass, "direct-MB/s")
			b.ReportMetric((after[1]-before[1])/float64(b.N), "leaves/op")
		})
	}
	closeStore(b, s)
}

// coldRange is a part of a partition of which nothing is resident.
type coldRange struct {
	log      *partition.Log
	from, to segment.Offset
	sealed   []partition.SegmentView
	bytes    int64
}

// fillCold writes about total bytes, and takes what is sealed of it out of the page cache.
func fillCold(b *testing.B, s *partition.Store, p int32, total int) (r coldRange) {
	r.log, _ = s.Log("orders", p)
	record := batch("bench", 60, 1024, nil, 1)
	var last segment.Offset
	for n := 0; n < total; n += len(record) {
		clear(record[:8]) // a client's base offset
		a, err := r.log.Append(context.Background(), partition.AppendRequest{Records: record})
		if err != nil {
			b.Fatal(err)
		}
		last = a.Next
	}
	if err := r.log.Durable(context.Background(), last); err != nil {
		b.Fatal(err)
	}
	waitFor(b, "sealed segments", func() bool {
		r.sealed = r.sealed[:0]
		for _, sv := range r.log.Segments() {
			if sv.Sealed {
				r.sealed = append(r.sealed, sv)
			}
		}
		return len(r.sealed) >= total>>26-1
	})
	for _, sv := range r.sealed {
		if _, err := r.log.Evict(sv, 0, sv.SizeBytes); err != nil {
			b.Fatal(err)
		}
		r.bytes += sv.SizeBytes
		r.to = sv.Next
	}
	return r
}

// drain reads ranges from one end to the other and drops the bytes: of all partitions what is at hand, as a fetch does.
func drain(b *testing.B, ref partition.ReaderRef, ranges []coldRange) {
	w := partition.NewWatch()
	defer w.Close()
	for left := len(ranges); left > 0; {
		got := false
		for i := range ranges {
			r := &ranges[i]
			if r.from >= r.to {
				continue
			}
			res, err := r.log.Read(partition.ReadRequest{Reader: ref, From: r.from, MaxBytes: 1 << 20, MustServe: true, Watch: w})
			if err != nil {
				b.Error(err)
				return
			}
			if res.Chunk == nil {
				continue
			}
			got = true
			next := res.Chunk.Next()
			res.Chunk.Release()
			if next <= r.from {
				b.Errorf("no progress at %d", r.from)
				return
			}
			if r.from = next; r.from >= r.to {
				left--
			}
		}
		if !got && left > 0 {
			<-w.C()
		}
	}
}

func readDirect(b *testing.B, fs vfs.FS, sv partition.SegmentView, buf []byte) {
	f, err := fs.Open(sv.File, vfs.Direct)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for pos := int64(0); pos < sv.SizeBytes; pos += int64(len(buf)) {
		if n, err := f.ReadAt(buf, pos); n == 0 {
			b.Fatal(err)
		}
	}
}
