package partition_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/segment"
)

// BenchmarkCompact compacts a log of 256 MiB on a real disk, reading, writing and syncing included: 1 KiB records of random bytes in
// batches of sixteen, half of which stay. MB/s are those of the log before; anonymous-MiB is what the process's own memory grew by at
// most, looked at beside it: the offset map, buffers and garbage that is not collected yet; live-heap-MiB what of Go's heap was in use.
func BenchmarkCompact(b *testing.B) {
	benchmarkCompact(b, keyedLog{bytes: 256 << 20, records: 16, value: 1000})
}

// BenchmarkCompactLarge is BenchmarkCompact with what takes the most memory: nearly as many keys as the offset map has room for, in batches of 1 MiB.
func BenchmarkCompactLarge(b *testing.B) {
	benchmarkCompact(b, keyedLog{bytes: 256 << 20, records: 10_000, value: 76})
}

func benchmarkCompact(b *testing.B, of keyedLog) {
	for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
		b.Run(fmt.Sprint("codec=", codec), func(b *testing.B) {
			cfg := compacted()
			cfg.SegmentBytes = 64 << 20
			for b.Loop() {
				b.StopTimer()
				s := open(b, quietCompaction, osFS(b))
				l := load(b, s, cfg, 1)
				size := of.fill(b, l, codec)
				debug.FreeOSMemory()
				before, most := anonymous(b), int64(0)
				liveBefore, liveMost := liveHeap(), uint64(0)
				b.SetBytes(size)
				b.StartTimer()
				done := make(chan struct{})
				go func() { s.Compact(context.Background()); close(done) }()
				for running := true; running; {
					select {
					case <-done:
						running = false
					case <-time.After(20 * time.Millisecond):
					}
					most, liveMost = max(most, anonymous(b)), max(liveMost, liveHeap())
				}
				b.StopTimer()
				if v := s.Compactions()[0]; v.Last.Err != nil || v.Last.Kept == 0 || v.Last.Kept > v.Last.Records*3/4 {
					b.Fatalf("%+v", v.Last)
				}
				b.ReportMetric(float64(most-before)/(1<<20), "anonymous-MiB")
				b.ReportMetric(float64(liveMost-min(liveMost, liveBefore))/(1<<20), "live-heap-MiB")
				closeStore(b, s)
				b.StartTimer()
			}
		})
	}
}

// anonymous is the memory of the process that no file backs, in bytes.
func anonymous(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "RssAnon:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		b.Fatalf("no RssAnon in %q", status)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// liveHeap is what the last collection of garbage found in use.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// keyedLog is a log whose keys come twice each, more or less.
type keyedLog struct {
	bytes   int64 // plain
	records int   // of a batch
	value   int   // bytes; a key and what a record needs beside take about 24 more
}

// fill writes batches until the plain bytes are there.
func (of keyedLog) fill(b *testing.B, l *partition.Log, codec segment.Compression) int64 {
	rng := rand.New(rand.NewPCG(1, 1))
	keys := int(of.bytes) / (of.value + 24) / 2
	value := make([]byte, of.value)
	var builder records.Builder
	last := segment.Offset(0)
	for written := int64(0); written < of.bytes; {
		builder.Reset()
		for range of.records {
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
	return of.bytes
}
