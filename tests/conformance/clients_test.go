package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// client is one stock client as the matrix uses it. Topics have one partition.
type client interface {
	name() string
	// dataset is what the client can write: anyBytes, text, or less. ownTimes: it stamps records itself.
	dataset(n int) (want []record, ownTimes bool)
	// produce writes the records of each job; clients with an idempotent producer use it.
	produce(t *testing.T, b lagoontest.Cluster, jobs []job)
	// consume reads count records from the start of each job's topic, without a group.
	consume(t *testing.T, b lagoontest.Cluster, jobs []job) [][]record
}

// job is one topic to write or read.
type job struct {
	Topic   string   `json:"topic"`
	Codec   string   `json:"codec"`
	Count   int      `json:"count"`
	Records []record `json:"records,omitempty"`
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// franz is franz-go.
type franz struct{}

func (franz) name() string                   { return "franz-go" }
func (franz) dataset(n int) ([]record, bool) { return anyBytes(n), false }

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (franz) produce(t *testing.T, b lagoontest.Cluster, jobs []job) {
	t.Helper()
	for _, j := range jobs {
		cl := lagoontest.Client(t, b, kgo.ProducerBatchCompression(franzCodecs[j.Codec]), kgo.ProducerLinger(5*time.Millisecond))
		if err := cl.ProduceSync(testContext(t), toKgo(j.Topic, j.Records)...).FirstErr(); err != nil {
			t.Fatalf("franz-go produces to %s: %v", j.Topic, err)
		}
		cl.Close()
	}
}

func toKgo(topic string, records []record) []*kgo.Record {
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Ms)}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
	}
	return out
}

func fromKgo(records []*kgo.Record) []record {
	out := make([]record, len(records))
	for i, r := range records {
		out[i] = record{Offset: r.Offset, Ms: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, header{Key: h.Key, Value: h.Value})
		}
	}
	return out
}

func (franz) consume(t *testing.T, b lagoontest.Cluster, jobs []job) [][]record {
	t.Helper()
	var out [][]record
	for _, j := range jobs {
		out = append(out, fromKgo(lagoontest.ReadFrom(t, b, j.Topic, 0, 0, j.Count)))
	}
	return out
}
