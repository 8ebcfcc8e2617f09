package bench_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// A producer that commits every commitInterval may be slower by transactionsCost than it is without transactions.
const (
	commitInterval   = 100 * time.Millisecond
	transactionsCost = 0.20
)

// BenchmarkTransactions writes 1 KiB records with one idempotent franz-go producer as fast as it can, with and without transactions in turn
// on the same broker, and reports the median rates, their ratio and how long an end of a transaction takes for the client. Kafka, where it
// is installed, shows what of the ratio is the client's.
func BenchmarkTransactions(b *testing.B) {
	for _, partitions := range []int32{1, 8} {
		b.Run(fmt.Sprintf("lagoon/partitions=%d", partitions), func(b *testing.B) {
			hold(b, 1-transactions(b, start(b), partitions), transactionsCost)
		})
	}
	b.Run("kafka/partitions=1", func(b *testing.B) {
		lagoontest.Require(b, "kafka")
		transactions(b, lagoontest.StartKafka(b), 1)
	})
}

// transactions gives the ratio of the rates.
func transactions(b *testing.B, on lagoontest.Cluster, partitions int32) float64 {
	const rounds, length = 5, 1500 * time.Millisecond
	lagoontest.CreateTopic(b, on, "out", partitions)
	opts := []kgo.Opt{kgo.DefaultProduceTopic("out"), kgo.ProducerBatchCompression(kgo.NoCompression())}
	plain := &writer{b: b, cl: lagoontest.Client(b, on, opts...)}
	committing := &writer{b: b, cl: lagoontest.Client(b, on, append(opts, kgo.TransactionalID("bench"))...), transactional: true}
	plain.write(length / 2) // what comes into being with the first record and the first transaction
	committing.write(length / 2)
	committing.ends = nil
	var rates [2][]float64
	for b.Loop() {
		for range rounds {
			for i, w := range []*writer{plain, committing} {
				rates[i] = append(rates[i], w.write(length))
			}
		}
	}
	slices.Sort(committing.ends)
	b.ReportMetric(median(rates[0])/1e6, "plain-MB/s")
	b.ReportMetric(median(rates[1])/1e6, "transactions-MB/s")
	b.ReportMetric(committing.ends[len(committing.ends)/2].Seconds()*1e3, "end-ms")
	ratio := median(rates[1]) / median(rates[0])
	b.ReportMetric(ratio, "ratio")
	return ratio
}

// writer is one producer.
type writer struct {
	b             *testing.B
	cl            *kgo.Client
	transactional bool
	ends          []time.Duration // how long EndTransaction took
}

// write produces for about that long and gives the bytes per second, all of them acknowledged and committed.
func (w *writer) write(d time.Duration) float64 {
	value := make([]byte, 1024)
	var bytes int64
	begun := time.Now()
	w.begin()
	for since := begun; time.Since(begun) < d; {
		w.cl.Produce(w.b.Context(), &kgo.Record{Value: value}, w.acked)
		bytes += int64(len(value))
		if w.transactional && time.Since(since) >= commitInterval {
			w.end()
			since = time.Now()
			w.begin()
		}
	}
	w.end()
	return float64(bytes) / time.Since(begun).Seconds()
}

func (w *writer) acked(_ *kgo.Record, err error) {
	if err != nil {
		w.b.Error(err)
	}
}

func (w *writer) begin() {
	if !w.transactional {
		return
	}
	if err := w.cl.BeginTransaction(); err != nil {
		w.b.Fatal(err)
	}
}

func (w *writer) end() {
	if err := w.cl.Flush(w.b.Context()); err != nil {
		w.b.Fatal(err)
	}
	if !w.transactional {
		return
	}
	begun := time.Now()
	if err := w.cl.EndTransaction(w.b.Context(), kgo.TryCommit); err != nil {
		w.b.Fatal(err)
	}
	w.ends = append(w.ends, time.Since(begun))
}
