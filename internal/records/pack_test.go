package records_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/records"
	"lagoon/segment"
)

// TestPacker: what is packed is what Each reads, and what a foreign decoder reads, also when a packer is used again.
func TestPacker(t *testing.T) {
	var p records.Packer
	for round := range 2 {
		for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
			_, plain := batch(t, kgo.CompressionCodec{}, 0, 300, bytes.Repeat([]byte("value "), 60+round))
			var out bytes.Buffer
			w, err := p.To(codec, &out)
			if err != nil {
				t.Fatal(err)
			}
			for rest := plain[segment.BatchHeaderSize:]; len(rest) > 0; rest = rest[min(777, len(rest)):] {
				if _, err := w.Write(rest[:min(777, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			h := segment.BatchHeader{Length: int32(49 + out.Len()), Magic: 2, Attributes: int16(codec), LastOffsetDelta: 299, Count: 300, ProducerID: -1}
			b := append(make([]byte, segment.BatchHeaderSize), out.Bytes()...)
			seen := 0
			if err := records.Each(h, b, func(r records.Record) bool {
				if string(r.Key) != fmt.Sprintf("k%d", seen) {
					t.Fatalf("codec %d: record %d has key %s", codec, seen, r.Key)
				}
				seen++
				return true
			}); err != nil || seen != 300 {
				t.Errorf("codec %d: %d records, %v", codec, seen, err)
			}
			binary.BigEndian.PutUint32(b[8:], uint32(h.Length))
			b[16], b[22] = 2, byte(codec)
			binary.BigEndian.PutUint32(b[23:], 299)
			binary.BigEndian.PutUint64(b[43:], ^uint64(0))
			binary.BigEndian.PutUint32(b[57:], 300)
			got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{DisableCRCValidation: true}, &kmsg.FetchResponseTopicPartition{RecordBatches: b, HighWatermark: 300}, kgo.DefaultDecompressor(), nil)
			if got.Err != nil || len(got.Records) != 300 {
				t.Errorf("codec %d: franz-go reads %d records, %v", codec, len(got.Records), got.Err)
			}
		}
	}
}
