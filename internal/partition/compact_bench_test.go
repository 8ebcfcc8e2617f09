package partition_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/segment"
)

// BenchmarkCompact compacts a log of 256 MiB on a real disk, reading, writing and syncing included: 1 KiB records of random bytes, half of
// which stay. MB/s are those of the log before; heap-MiB is what the heap grew by at most, looked at beside it.
func BenchmarkCompact(b *testing.B) {
	for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
		b.Run(fmt.Sprint("codec=", codec), func(b *testing.B) {
			cfg := compacted()
			cfg.SegmentBytes = 64 << 20
			for b.Loop() {
				b.StopTimer()
				s := open(b, quietCompaction, osFS(b))
				l := load(b, s, cfg, 1)
				size := fillKeyed(b, l, codec, 256<<20)
				runtime.GC()
				var before, now runtime.MemStats
				runtime.ReadMemStats(&before)
				b.SetBytes(size)
				b.StartTimer()
				done := make(chan struct{})
				go func() { s.Compact(context.Background()); close(done) }()
				most := uint64(0)
				for running := true; running; {
					select {
					case <-done:
						running = false
					case <-time.After(20 * time.Millisecond):
					}
					runtime.ReadMemStats(&now)
					most = max(most, now.HeapInuse)
				}
				b.StopTimer()
				if v := s.Compactions()[0]; v.Last.Err != nil || v.Last.Kept == 0 || v.Last.Kept > v.Last.Records*3/4 {
					b.Fatalf("%+v", v.Last)
				}
				b.ReportMetric(float64(most-min(most, before.HeapInuse))/(1<<20), "heap-MiB")
				closeStore(b, s)
				b.StartTimer()
			}
		})
	}
}

// fillKeyed writes records of 1 KiB in batches of sixteen until the plain bytes are there.
func fillKeyed(b *testing.B, l *partition.Log, codec segment.Compression, size int64) int64 {
	rng := rand.New(rand.NewPCG(1, 1))
	keys := int(size / 1024 / 2)
	value := make([]byte, 1000)
	var builder records.Builder
	last := segment.Offset(0)
	for written := int64(0); written < size; {
		builder.Reset()
		for range 16 {
			for i := range value {
				value[i] = byte('a' + rng.IntN(16))
			}
			builder.Add(fmt.Append(nil, "key-", rng.IntN(keys)), value)
		}
		written += int64(builder.Size())
		a, err := l.Append(context.Background(), partition.AppendRequest{Records: repack(b, builder.Batch(1), codec)})
		if err != nil {
			b.Fatal(err)
		}
		last = a.Next
	}
	if err := l.Durable(context.Background(), last); err != nil {
		b.Fatal(err)
	}
	return size
}
