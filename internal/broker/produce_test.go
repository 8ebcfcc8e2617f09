package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// produced sends one batch for orders-0 and returns the partition's answer.
func produced(c *client, req *kmsg.ProduceRequest) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	resp := call[*kmsg.ProduceResponse](c, req)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		c.t.Fatalf("%+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

func TestProduceAllVersions(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	for version := int16(0); version <= 13; version++ {
		req := produceRequest(version, -1, "orders", records(1, batch(2, 200)))
		req.Topics[0].TopicID = r.orders.ID
		end := int64(r.logs["orders-1"].Offsets().End)
		resp := call[*kmsg.ProduceResponse](c, req)
		tp := resp.Topics[0]
		if version <= 12 && tp.Topic != "orders" || version >= 13 && tp.TopicID != r.orders.ID {
			t.Fatalf("v%d: topic %q %x", version, tp.Topic, tp.TopicID)
		}
		p := tp.Partitions[0]
		if version < 3 {
			if p.ErrorCode != kerr.UnsupportedVersion.Code || int64(r.logs["orders-1"].Offsets().End) != end {
				t.Fatalf("v%d: %+v", version, p)
			}
			continue
		}
		if p.Partition != 1 || p.ErrorCode != 0 || p.BaseOffset != end || p.LogAppendTime != -1 {
			t.Fatalf("v%d: %+v, want base offset %d", version, p, end)
		}
	}
}

func TestProduceAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		log := r.logs["orders-0"]
		log.manual = true
		began := time.Now()
		if p := produced(c, produceRequest(9, 1, "orders", records(0, batch(1, 100)))); p.ErrorCode != 0 || time.Since(began) != 0 {
			t.Fatalf("acks=1: %+v after %v", p, time.Since(began))
		}
		c.send(produceRequest(9, 0, "orders", records(0, batch(1, 100))))
		c.versions() // no response before this one
		if end := log.Offsets().End; end != 2 {
			t.Fatalf("log end %d", end)
		}
		req := produceRequest(9, -1, "orders", records(0, batch(1, 100)))
		c.send(req)
		go func() {
			time.Sleep(3 * time.Second)
			log.sync()
		}()
		c.receive(req, c.corr)
		if d := time.Since(began); d != 3*time.Second {
			t.Fatalf("acks=-1 was answered after %v", d)
		}
		for _, acks := range []int16{2, -2, 100} {
			if p := produced(c, produceRequest(9, acks, "orders", records(0, batch(1, 100)))); p.ErrorCode != kerr.InvalidRequiredAcks.Code || p.BaseOffset != -1 {
				t.Fatalf("acks=%d: %+v", acks, p)
			}
		}
		if end := log.Offsets().End; end != 3 {
			t.Fatalf("log end %d: a refused batch was written", end)
		}
	})
}

func TestProduceTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		r.logs["orders-0"].manual = true
		for range 3 { // the context of the wait is used again
			began := time.Now()
			req := produceRequest(9, -1, "orders", records(0, batch(1, 100)), records(1, batch(1, 100)))
			req.TimeoutMillis = 1500
			parts := call[*kmsg.ProduceResponse](c, req).Topics[0].Partitions
			if d := time.Since(began); d != 1500*time.Millisecond {
				t.Fatalf("answered after %v", d)
			}
			if parts[0].ErrorCode != kerr.RequestTimedOut.Code || parts[0].BaseOffset != -1 || parts[1].ErrorCode != 0 {
				t.Fatalf("%+v", parts)
			}
		}
	})
}

func TestProduceWithoutAcksFailsByClosing(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	c.send(produceRequest(9, 0, "nowhere", records(0, batch(1, 100))))
	c.closed()
	r.dial().versions()
}

func TestProduceErrors(t *testing.T) {
	zstd := batch(1, 100)
	zstd[22] |= codecZstd
	txn := batch(1, 100)
	txn[22] |= transactionalBit
	old := batch(1, 100)
	old[16] = 1
	two := append(batch(1, 100), batch(1, 100)...)
	id := "txn"
	for name, c := range map[string]struct {
		req  *kmsg.ProduceRequest
		log  error
		want *kerr.Error
	}{
		"unknown topic":       {req: produceRequest(9, -1, "nowhere", records(0, batch(1, 100))), want: kerr.UnknownTopicOrPartition},
		"unknown id":          {req: produceRequest(13, -1, "orders", records(0, batch(1, 100))), want: kerr.UnknownTopicID},
		"unknown partition":   {req: produceRequest(9, -1, "orders", records(3, batch(1, 100))), want: kerr.UnknownTopicOrPartition},
		"negative partition":  {req: produceRequest(9, -1, "orders", records(-1, batch(1, 100))), want: kerr.UnknownTopicOrPartition},
		"null records":        {req: produceRequest(9, -1, "orders", records(0, nil)), want: kerr.InvalidRecord},
		"empty records":       {req: produceRequest(9, -1, "orders", records(0, []byte{})), want: kerr.InvalidRecord},
		"half a header":       {req: produceRequest(9, -1, "orders", records(0, batch(1, 100)[:60])), want: kerr.InvalidRecord},
		"magic 1":             {req: produceRequest(9, -1, "orders", records(0, old)), want: kerr.InvalidRecord},
		"two batches":         {req: produceRequest(9, -1, "orders", records(0, two)), want: kerr.InvalidRecord},
		"zstd before v7":      {req: produceRequest(6, -1, "orders", records(0, zstd)), want: kerr.UnsupportedCompressionType},
		"zstd":                {req: produceRequest(7, -1, "orders", records(0, zstd))},
		"transactional":       {req: produceRequest(9, -1, "orders", records(0, txn)), want: kerr.TransactionalIDAuthorizationFailed},
		"wrong crc":           {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrCorruptBatch, want: kerr.CorruptMessage},
		"too large":           {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrMessageTooLarge, want: kerr.MessageTooLarge},
		"more than a segment": {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrFull, want: kerr.RecordListTooLarge},
		"timestamp":           {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrInvalidTimestamp, want: kerr.InvalidTimestamp},
		"sequence":            {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrOutOfOrderSequence, want: kerr.OutOfOrderSequenceNumber},
		"epoch":               {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrInvalidProducerEpoch, want: kerr.InvalidProducerEpoch},
		"producer":            {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: segment.ErrUnknownProducer, want: kerr.UnknownProducerID},
		"full disk":           {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: fmt.Errorf("append: %w", partition.ErrDiskFull), want: kerr.KafkaStorageError},
		"fenced":              {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: partition.ErrFenced, want: kerr.KafkaStorageError},
		"deleted":             {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: partition.ErrClosed, want: kerr.NotLeaderForPartition},
		"surprise":            {req: produceRequest(9, -1, "orders", records(0, batch(1, 100))), log: errors.New("secret path"), want: kerr.UnknownServerError},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.logs["orders-0"].appendErr = c.log
			conn := r.dial()
			p := produced(conn, c.req)
			if c.want == nil {
				if p.ErrorCode != 0 {
					t.Fatalf("%+v", p)
				}
				return
			}
			if p.ErrorCode != c.want.Code || p.BaseOffset != -1 || p.LogStartOffset != -1 {
				t.Fatalf("%+v, want %v", p, c.want)
			}
			if c.req.Version >= 8 && c.want != kerr.UnknownServerError && (p.ErrorMessage == nil || *p.ErrorMessage == "") {
				t.Fatal("no error message")
			}
			if p.ErrorMessage != nil && strings.Contains(*p.ErrorMessage, "secret") {
				t.Fatalf("an internal error was told: %s", *p.ErrorMessage)
			}
			if end := r.logs["orders-0"].Offsets().End; end != 0 {
				t.Fatalf("log end %d", end)
			}
			conn.versions()
		})
	}
	t.Run("transactional id", func(t *testing.T) { // as in Kafka, what is outside a transaction may be written with one
		r := newRig(t, nil)
		req := produceRequest(9, -1, "orders", records(0, batch(1, 100)))
		req.TransactionID = &id
		if p := produced(r.dial(), req); p.ErrorCode != 0 {
			t.Fatalf("%+v", p)
		}
	})
}

func TestProduceDuplicateIsASuccessOnceDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		log := r.logs["orders-0"]
		log.manual = true
		req := produceRequest(9, -1, "orders", records(0, batch(3, 100)))
		c.send(req)
		synctest.Wait()
		log.set(func() { log.duplicate = 0 })
		c.send(req)
		synctest.Wait()
		go func() {
			time.Sleep(time.Second)
			log.sync()
		}()
		began := time.Now()
		for i := range 2 {
			resp := c.receive(req, int32(i+1)).(*kmsg.ProduceResponse)
			if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 || time.Since(began) != time.Second {
				t.Fatalf("%d: %+v after %v", i, p, time.Since(began))
			}
		}
		if n := r.b.metrics.topics.of("orders").messagesIn.Load(); n != 3 {
			t.Fatalf("%d messages counted", n)
		}
	})
}

func TestProduceManyPartitions(t *testing.T) {
	r := newRig(t, nil)
	r.logs["orders-1"].appendErr = partition.ErrFenced
	req := produceRequest(9, -1, "orders", records(0, batch(1, 100)), records(1, batch(1, 100)), records(2, batch(5, 1000)))
	other := kmsg.NewProduceRequestTopic()
	other.Topic, other.Partitions = "other", append(other.Partitions, records(0, batch(2, 100)))
	missing := kmsg.NewProduceRequestTopic()
	missing.Topic, missing.Partitions = "missing", append(missing.Partitions, records(0, batch(2, 100)))
	req.Topics = append(req.Topics, missing, other, kmsg.ProduceRequestTopic{Topic: "empty"})
	resp := call[*kmsg.ProduceResponse](r.dial(), req)
	var got []string
	for _, tp := range resp.Topics {
		for _, p := range tp.Partitions {
			got = append(got, fmt.Sprintf("%s-%d:%d@%d", tp.Topic, p.Partition, p.ErrorCode, p.BaseOffset))
		}
	}
	want := "[orders-0:0@0 orders-1:56@-1 orders-2:0@0 missing-0:3@-1 other-0:0@0]"
	if fmt.Sprint(got) != want || len(resp.Topics) != 4 {
		t.Fatalf("got %v in %d topics, want %s", got, len(resp.Topics), want)
	}
	if n := r.b.metrics.topics.of("orders").failedProduce.Load(); n != 1 {
		t.Fatalf("%d failures counted", n)
	}
}

// A frame's memory is given back as soon as its batches are written, not when they are durable.
func TestProduceReleasesItsFrameAfterTheAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		log := r.logs["orders-0"]
		log.manual = true
		req := produceRequest(9, -1, "orders", records(0, batch(1, 1<<20)))
		c.send(req)
		synctest.Wait()
		if used, _ := r.b.budget.usage(); used != 0 {
			t.Fatalf("%d bytes held", used)
		}
		log.sync()
		c.receive(req, 1)
	})
}

func TestInitProducerID(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	seen := map[int64]bool{}
	empty := ""
	for version := int16(0); version <= 5; version++ {
		for range 500 {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.Version = version
			resp := call[*kmsg.InitProducerIDResponse](c, req)
			if resp.ErrorCode != 0 || resp.ProducerID < 0 || resp.ProducerEpoch != 0 || seen[resp.ProducerID] {
				t.Fatalf("v%d: %+v", version, resp)
			}
			seen[resp.ProducerID] = true
		}
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = version, &empty, 1000
		if resp := call[*kmsg.InitProducerIDResponse](c, req); resp.ErrorCode != kerr.InvalidRequest.Code || resp.ProducerID != -1 {
			t.Fatalf("v%d, an empty id: %+v", version, resp)
		}
	}
	if next := r.b.meta.Snapshot().NextProducerID; next < 3000 {
		t.Fatalf("only ids below %d are reserved", next)
	}
}

// discard is a sender's connection that swallows everything.
func produceBench(b testing.TB, partitions int) (run func()) {
	r := newRig(b, nil)
	c := r.dial().nc
	_ = c
	conn := newConn(r.b, &endpoint{}, nullConn{})
	conn.queue = conn.store[:0]
	var parts []kmsg.ProduceRequestTopicPartition
	for i := range partitions {
		parts = append(parts, records(int32(i%3), batch(10, 1024)))
	}
	frame := (&client{t: b}).frame(produceRequest(12, -1, "orders", parts...))
	for _, l := range r.logs {
		l.duplicate = 0 // the fake must not allocate
		l.durable = 1 << 40
	}
	buf := append([]byte(nil), frame[4:]...)
	stream := &loop{frame: frame}
	conn.frames.Init(stream, 1<<20, &conn.lease)
	ctx := context.Background()
	var replies []reply
	return func() {
		copy(buf, frame[4:])
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
		in := incoming{header: header, api: &r.b.apis[0], body: rest, frame: &f, received: time.Now()}
		conn.sending = true // the reply is sent below, on this goroutine
		if err := conn.startProduce(ctx, &in); err != nil {
			b.Fatal(err)
		}
		replies = append(replies[:0], conn.queue...)
		conn.queue, conn.queued = conn.store[:0], 0
		if err := replies[0].send(ctx, conn); err != nil {
			b.Fatal(err)
		}
	}
}

// loop repeats one frame for ever.
type loop struct {
	frame []byte
	at    int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.frame[l.at:])
	l.at = (l.at + n) % len(l.frame)
	return n, nil
}

// The promise of the issue: at most 3 allocations per request and 1 per partition, from the frame to the response.
func TestProduceAllocations(t *testing.T) {
	slack := 0.0
	if raceEnabled {
		slack = 20 // pools drop at random in race builds
	}
	for _, partitions := range []int{1, 3, 30} {
		run := produceBench(t, partitions)
		run()
		if n := testing.AllocsPerRun(200, run); n > float64(3+partitions)+slack {
			t.Errorf("%d partitions: %v allocations", partitions, n)
		} else {
			t.Logf("%d partitions: %v allocations", partitions, n)
		}
	}
}

func BenchmarkProduce(b *testing.B) {
	for _, partitions := range []int{1, 30} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			run := produceBench(b, partitions)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

func TestRecordCount(t *testing.T) {
	b := batch(7, 100)
	if n := recordCount(b); n != 7 {
		t.Fatalf("%d records", n)
	}
	binary.BigEndian.PutUint32(b[batchLengthAt:], 1<<31)
	if err := checkRecords(9, b); err != nil {
		t.Fatalf("an absurd length is the log's to refuse: %v", err)
	}
}
