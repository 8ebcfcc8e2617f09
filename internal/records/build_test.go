package records_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/records"
	"lagoon/segment"
)

// TestBuilder: what is built is what the log accepts, what Each reads, and what a foreign decoder reads.
func TestBuilder(t *testing.T) {
	var b records.Builder
	for round := range 2 {
		b.Reset()
		b.Add([]byte("k0"), []byte("v0"))
		b.Add([]byte("k1"), nil)
		b.Add([]byte("k2"), []byte{})
		batch := b.Batch(1234)
		if len(batch) != b.Size() || b.Len() != 3 {
			t.Fatalf("%d bytes, said %d; %d records", len(batch), b.Size(), b.Len())
		}
		h, err := segment.ValidateBatch(batch, segment.Limits{MaxBatchBytes: 1 << 20, NowMs: 1234, Window: true, TimestampBeforeMaxMs: 1 << 40, TimestampAfterMaxMs: 1 << 40, RequireKey: true})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := records.Each(h, batch, func(r records.Record) bool {
			got += fmt.Sprintf("%d@%d %s=%s %t;", r.Offset, r.TimestampMs, r.Key, r.Value, r.Value == nil)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if want := "0@1234 k0=v0 false;1@1234 k1= true;2@1234 k2= false;"; got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
		out, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, &kmsg.FetchResponseTopicPartition{RecordBatches: batch, HighWatermark: 3}, kgo.DefaultDecompressor(), nil)
		if out.Err != nil || len(out.Records) != 3 || out.Records[1].Value != nil || string(out.Records[2].Key) != "k2" {
			t.Errorf("franz-go reads %v, %v", out.Records, out.Err)
		}
	}
}
