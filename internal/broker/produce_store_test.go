package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
)

// wholeBatch is a batch whose records are records, which a real log looks at.
func wholeBatch(n, size int) []byte {
	var body []byte
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i), Value: make([]byte, size)}
		inner := r.AppendTo(nil)[1:] // without the length, which is 0 and one byte so far
		body = append(binary.AppendVarint(body, int64(len(inner))), inner...)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(n - 1), FirstTimestamp: 1, MaxTimestamp: 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(n), Records: body,
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

// produceToStore gives a function that serves one Produce request with acks=-1 and a 10 KiB batch for each of n partitions through
// everything but the socket: frame, decoding, a real log on a real file system, its commit, the encoded response.
func produceToStore(b testing.TB, n int) (serve func()) {
	b.Helper()
	w := startWireBroker(b, b.TempDir())
	if _, err := adminClient(b, w).CreateTopic(context.Background(), int32(n), 1, nil, "orders"); err != nil {
		b.Fatal(err)
	}
	var parts []kmsg.ProduceRequestTopicPartition
	for p := range n {
		parts = append(parts, records(int32(p), wholeBatch(10, 1024)))
	}
	frame := (&client{t: b}).frame(produceRequest(12, -1, "orders", parts...))
	conn := newConn(w.Broker, &endpoint{}, nullConn{})
	conn.frames.Init(&loop{frame: frame}, 1<<20, &conn.lease)
	ctx := context.Background()
	return func() {
		size, err := conn.frames.Size()
		if err != nil {
			b.Fatal(err)
		}
		f, err := conn.frames.Body(size)
		if err != nil {
			b.Fatal(err)
		}
		header, rest, err := wire.ParseHeader(f.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		in := incoming{header: header, api: &w.Broker.apis[0], body: rest, frame: &f, received: time.Now()}
		reply, err := conn.appendAll(ctx, &in)
		f.Release()
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range reply.resp.Partitions {
			if p.ErrorCode != 0 {
				b.Fatalf("partition %d: error %d %s", p.Partition, p.ErrorCode, p.ErrorMessage)
			}
		}
		if len(reply.waits) != n {
			b.Fatalf("%d partitions are waited for, not %d", len(reply.waits), n)
		}
		if err := reply.send(ctx, conn); err != nil {
			b.Fatal(err)
		}
	}
}

// At most 3 allocations per request and 1 per partition, with those of the log and its commit, from the frame to the response.
// Takes about three seconds.
func TestProduceToStoreAllocations(t *testing.T) {
	if raceEnabled {
		return // pools drop at random in race builds: the other run of the tests looks
	}
	for _, partitions := range []int{1, 10} {
		serve := produceToStore(t, partitions)
		for range 50 { // pools and slices have found their sizes
			serve()
		}
		n := testing.AllocsPerRun(300, serve)
		t.Logf("%d partitions: %v allocations", partitions, n)
		if n > float64(3+partitions) {
			t.Errorf("%d partitions: %v allocations, at most %d are allowed", partitions, n, 3+partitions)
		}
	}
}

func BenchmarkProduceToStore(b *testing.B) {
	for _, partitions := range []int{1, 30} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			serve := produceToStore(b, partitions)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
