package bench_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

// fetchBound is the processor time per GiB that hot fetches of 1 MiB may cost the broker.
const fetchBound = 0.30

// BenchmarkHotFetch reads resident data over loopback, one connection per partition, and reports the broker's processor time.
func BenchmarkHotFetch(b *testing.B) {
	for _, partitions := range []int{1, 8} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) { hotFetch(b, partitions) })
	}
}

func hotFetch(b *testing.B, partitions int) {
	broker := start(b)
	createTopic(b, broker, "hot", int32(partitions), "lagoon.flush", "interval")
	const data = 1 << 30
	load{topic: "hot", partitions: int32(partitions), conns: partitions, window: 4, batch: newBatch(64 << 10), bytes: data, acks: 1}.run(b, broker)
	for _, c := range []struct {
		size  int32
		bytes int64
	}{{64 << 10, 4 << 30}, {256 << 10, 4 << 30}, {1 << 20, 8 << 30}} {
		b.Run(fmt.Sprintf("fetch=%dKiB", c.size>>10), func(b *testing.B) {
			pid := broker.PID()
			var cpu float64
			var bytes int64
			for b.Loop() {
				before := cpuSeconds(b, pid)
				bytes += fetchAll(b, broker, partitions, c.size, c.bytes)
				cpu += cpuSeconds(b, pid) - before
			}
			b.SetBytes(bytes / int64(b.N))
			perGiB := cpu / (float64(bytes) / (1 << 30))
			b.ReportMetric(perGiB, "CPU-s/GiB")
			if c.size == 1<<20 {
				hold(b, perGiB, fetchBound)
			}
		})
	}
}

// fetchAll reads at least total bytes, every partition again and again from its start.
func fetchAll(t testing.TB, broker *lagoontest.Broker, partitions int, size int32, total int64) int64 {
	t.Helper()
	got := make([]int64, partitions)
	var g errgroup.Group
	for p := range partitions {
		c := dial(t, broker, fmt.Sprint("hot-", p))
		g.Go(func() (err error) {
			defer c.Close()
			got[p], err = fetchPartition(c, int32(p), size, total/int64(partitions))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, n := range got {
		sum += n
	}
	return sum
}

func fetchPartition(c *rawkafka.Conn, partition, size int32, total int64) (got int64, err error) {
	for offset := int64(0); got < total; {
		f, err := c.FetchOne("hot", partition, offset, size, time.Second)
		if err != nil {
			return got, err
		}
		got += f.Bytes
		switch {
		case f.Next >= f.HighWatermark:
			offset = 0
		case f.Next == offset:
			return got, fmt.Errorf("partition %d gives nothing at offset %d, high watermark %d", partition, offset, f.HighWatermark)
		default:
			offset = f.Next
		}
	}
	return got, nil
}
