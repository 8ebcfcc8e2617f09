package partition_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// BenchmarkLaggingReader reads sealed, non-resident segments as a lagging reader does, against a plain sequential
// O_DIRECT read of the same files with 1 MiB requests: the ratio is what the cold path costs. LAGOON_BENCH_DIR names a
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
	s := open(b, func(o *partition.Options) { o.Pool = pool }, fs)
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
	for _, ahead := range []int{1, 2, 3, 4} {
		b.Run(fmt.Sprintf("ahead=%d", ahead), func(b *testing.B) {
			s.SetReadAhead(ahead)
			b.SetBytes(2 * bytes)
			var lagging, direct time.Duration
			for b.Loop() {
				run++
				t0 := time.Now()
				drain(b, l, partition.ReaderRef{ClientID: fmt.Sprint("r", run)}, end)
				t1 := time.Now()
				for _, sv := range sealed {
					readDirect(b, fs, sv)
				}
				lagging, direct = lagging+t1.Sub(t0), direct+time.Since(t1)
			}
			b.ReportMetric(float64(direct)/float64(lagging), "of-direct")
			b.ReportMetric(float64(bytes)*float64(b.N)/direct.Seconds()/1e6, "direct-MB/s")
		})
	}
	closeStore(b, s)
}

// drain reads up to end and drops the bytes.
func drain(b *testing.B, l *partition.Log, ref partition.ReaderRef, end segment.Offset) {
	w := partition.NewWatch()
	defer w.Close()
	for from := segment.Offset(0); from < end; {
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
