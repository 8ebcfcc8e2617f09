package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a stock client sends is what another one reads: every codec, small and large batches, idempotent and not, over a
// restart, with and without fetch sessions.
func TestStockClientRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	w := startWireBroker(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := adminClient(t, w).CreateTopic(ctx, 4, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	sent := map[string]uint32{} // partition@offset → CRC of key and value
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		opts := []kgo.Opt{kgo.SeedBrokers(w.addr), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner())}
		if i%2 == 1 {
			opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()), kgo.MaxProduceRequestsInflightPerBroker(1))
		}
		producer, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		for n := range 400 {
			value := make([]byte, 1+r.IntN(2000))
			if n%100 == 50 {
				value = make([]byte, 900_000)
			}
			for j := 0; j+8 <= len(value); j += 8 {
				binary.LittleEndian.PutUint64(value[j:], r.Uint64())
			}
			rec := &kgo.Record{Topic: "orders", Partition: int32(r.IntN(4)), Key: fmt.Appendf(nil, "%d-%d", i, n), Value: value}
			producer.Produce(ctx, rec, func(rec *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("produce: %v", err)
					return
				}
				where := fmt.Sprintf("%d@%d", rec.Partition, rec.Offset)
				if _, twice := sent[where]; twice {
					t.Errorf("offset %s was given twice", where)
				}
				sent[where] = crc32.ChecksumIEEE(append(bytes.Clone(rec.Key), rec.Value...))
			})
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		producer.Close()
	}
	if t.Failed() {
		return
	}

	for name, opts := range map[string][]kgo.Opt{
		"sessions":       {},
		"no sessions":    {kgo.DisableFetchSessions()},
		"read committed": {kgo.FetchIsolationLevel(kgo.ReadCommitted())},
		"small fetches":  {kgo.FetchMaxBytes(10_000), kgo.FetchMaxPartitionBytes(5_000)},
		"min bytes":      {kgo.FetchMinBytes(100_000), kgo.FetchMaxWait(100 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) { consumeAll(t, ctx, w.addr, sent, opts...) })
	}
	t.Run("after a restart", func(t *testing.T) {
		w.stop()
		consumeAll(t, ctx, startWireBroker(t, dir).addr, sent)
	})
}

// consumeAll reads topic orders from the start and compares with what was sent.
func consumeAll(t *testing.T, ctx context.Context, addr string, sent map[string]uint32, opts ...kgo.Opt) {
	t.Helper()
	consumer, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	seen := map[string]bool{}
	last := map[int32]int64{}
	for len(seen) < len(sent) {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(seen), len(sent), err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			where := fmt.Sprintf("%d@%d", rec.Partition, rec.Offset)
			if want, ok := sent[where]; !ok || want != crc32.ChecksumIEEE(append(bytes.Clone(rec.Key), rec.Value...)) {
				t.Errorf("record %s differs from what was sent (known: %v)", where, ok)
			}
			if previous, ok := last[rec.Partition]; ok && rec.Offset != previous+1 || seen[where] {
				t.Errorf("offset %s after %d", where, previous)
			}
			last[rec.Partition] = rec.Offset
			seen[where] = true
		})
	}
}

// Tail readers get each record once it is durable, while a producer writes one after the other.
func TestStockClientTail(t *testing.T) {
	w := startWireBroker(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := adminClient(t, w).CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 50 {
		if err := client.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for len(got) == 0 {
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
		}
		if len(got) != 1 || got[0] != fmt.Sprint(i) {
			t.Fatalf("got %v, want %d", got, i)
		}
	}
}
