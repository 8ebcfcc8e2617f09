package bench_test

import (
	"fmt"
	"testing"
)

// BenchmarkProduce writes 64 KiB batches as fast as they are acknowledged and reports throughput and the broker's processor time.
// sync is the default: acks=all means on stable storage. interval is what other brokers call acks=all: in the page cache.
func BenchmarkProduce(b *testing.B) {
	for _, flush := range []string{"sync", "interval"} {
		for _, partitions := range []int32{1, 8, 64} {
			b.Run(fmt.Sprintf("flush=%s/partitions=%d", flush, partitions), func(b *testing.B) {
				broker := start(b)
				createTopic(b, broker, "in", partitions, "lagoon.flush", flush)
				l := load{topic: "in", partitions: partitions, conns: int(min(partitions, 8)), window: 5, batch: newBatch(64 << 10), bytes: 1e9, acks: -1}
				var cpu float64
				var bytes int64
				for b.Loop() {
					before := cpuSeconds(b, broker.PID())
					bytes += l.run(b, broker)
					cpu += cpuSeconds(b, broker.PID()) - before
				}
				b.SetBytes(bytes / int64(b.N))
				b.ReportMetric(cpu/(float64(bytes)/1e9), "CPU-s/GB")
			})
		}
	}
}

// memoryBound is the anonymous memory that the broker may hold at 100 MiB/s over 64 partitions.
const memoryBound = 150 * mib

// BenchmarkProduceMemory writes 100 MiB/s to 64 partitions with acks=all for 15 s and reports the largest sample of the broker's
// anonymous memory: with few connections and large batches, and with one connection per partition and Kafka's default batch size.
func BenchmarkProduceMemory(b *testing.B) {
	const rate, seconds = 100 * mib, 15
	for _, c := range []struct{ conns, batch int }{{8, 64 << 10}, {64, 16 << 10}} {
		b.Run(fmt.Sprintf("conns=%d/batch=%dKiB", c.conns, c.batch>>10), func(b *testing.B) {
			broker := start(b)
			createTopic(b, broker, "in", 64)
			l := load{topic: "in", partitions: 64, conns: c.conns, window: 5, batch: newBatch(c.batch), bytes: rate * seconds, perSecond: rate, acks: -1}
			var bytes int64
			stop := peak(b, broker.PID())
			before := cpuSeconds(b, broker.PID())
			for b.Loop() {
				bytes += l.run(b, broker)
			}
			cpu := cpuSeconds(b, broker.PID()) - before
			top := stop()
			b.SetBytes(bytes / int64(b.N))
			b.ReportMetric(float64(top)/mib, "MiB-anon")
			b.ReportMetric(cpu/(float64(bytes)/1e9), "CPU-s/GB")
			hold(b, float64(top)/mib, memoryBound/mib)
		})
	}
}
