package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
)

// memory is a payload in memory.
type memory struct {
	data     []byte
	released int
}

func (m *memory) Len() int64                            { return int64(len(m.data)) }
func (m *memory) File() (uintptr, int64, bool)          { return 0, 0, false }
func (m *memory) Bytes() []byte                         { return m.data }
func (m *memory) ReadAt(p []byte, o int64) (int, error) { return copy(p, m.data[o:]), nil }
func (m *memory) Release()                              { m.released++ }

// join puts payloads into their places.
func join(buf []byte, splits []wire.Split) []byte {
	var out []byte
	at := 0
	for _, s := range splits {
		out = append(append(out, buf[at:s.At]...), s.Payload.Bytes()...)
		at = s.At
	}
	return append(out, buf[at:]...)
}

// oracle encodes a response as kmsg does, as a whole frame.
func oracle(resp kmsg.Response, corr int32) []byte {
	out := []byte{0, 0, 0, 0}
	out = binary.BigEndian.AppendUint32(out, uint32(corr))
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// choices turns fuzz input into decisions; it ends in zeros.
type choices struct{ src []byte }

func (c *choices) n(limit int) int {
	if len(c.src) == 0 {
		return 0
	}
	v := int(c.src[0]) % limit
	c.src = c.src[1:]
	return v
}

func (c *choices) i64() int64 {
	v := int64(0)
	for range c.n(9) {
		v = v<<8 | int64(c.n(256))
	}
	if c.n(4) == 3 {
		v = -v
	}
	return v
}

func (c *choices) text() string {
	return "topic-name-that-is-long-enough-for-a-two-byte-length-when-it-is-repeated-many-times-over-and-over-again-until-it-is-128-bytes-long"[:c.n(131)]
}

func (c *choices) id() (id [16]byte) {
	for i := range id {
		id[i] = byte(c.n(256))
	}
	return id
}

// fetchPair builds the same response for both encoders.
func fetchPair(c *choices, version int16) (*wire.FetchResponse, *kmsg.FetchResponse) {
	ours := &wire.FetchResponse{ThrottleMs: int32(c.i64()), ErrorCode: int16(c.i64()), SessionID: int32(c.i64())}
	theirs := kmsg.NewPtrFetchResponse()
	theirs.Version = version
	theirs.ThrottleMillis, theirs.ErrorCode, theirs.SessionID = ours.ThrottleMs, ours.ErrorCode, ours.SessionID
	for range c.n(4) {
		t := wire.FetchedTopic{Name: c.text(), ID: c.id()}
		kt := kmsg.NewFetchResponseTopic()
		kt.Topic, kt.TopicID = t.Name, t.ID
		for range c.n(4) {
			p := wire.FetchedPartition{
				Partition: int32(c.i64()), ErrorCode: int16(c.i64()), HighWatermark: c.i64(), LastStableOffset: c.i64(), LogStartOffset: c.i64(),
				DivergingEpoch: -1, DivergingEndOffset: -1,
			}
			kp := kmsg.NewFetchResponseTopicPartition()
			kp.Partition, kp.ErrorCode, kp.HighWatermark, kp.LastStableOffset, kp.LogStartOffset = p.Partition, p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset
			kp.RecordBatches = []byte{}
			if c.n(3) == 1 {
				p.Aborted, kp.AbortedTransactions = []wire.AbortedTxn{}, []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				for range c.n(3) {
					a := wire.AbortedTxn{ProducerID: c.i64(), FirstOffset: c.i64()}
					ka := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
					ka.ProducerID, ka.FirstOffset = a.ProducerID, a.FirstOffset
					p.Aborted, kp.AbortedTransactions = append(p.Aborted, a), append(kp.AbortedTransactions, ka)
				}
			}
			if c.n(4) == 1 {
				p.DivergingEpoch, p.DivergingEndOffset = int32(c.n(100)), int64(c.n(200))
				kp.DivergingEpoch.Epoch, kp.DivergingEpoch.EndOffset = p.DivergingEpoch, p.DivergingEndOffset
			}
			if n := c.n(4); n > 0 {
				data := bytes.Repeat([]byte{byte(n)}, n*c.n(100))
				p.Records, kp.RecordBatches = &memory{data: data}, data
			}
			t.Partitions, kt.Partitions = append(t.Partitions, p), append(kt.Partitions, kp)
		}
		ours.Topics, theirs.Topics = append(ours.Topics, t), append(theirs.Topics, kt)
	}
	return ours, theirs
}

func checkFetch(t *testing.T, seed []byte) {
	t.Helper()
	for version := int16(4); version <= 18; version++ {
		ours, theirs := fetchPair(&choices{seed}, version)
		buf, splits := wire.AppendFetch(nil, nil, version, 77, ours)
		if got, want := join(buf, splits), oracle(theirs, 77); !bytes.Equal(got, want) {
			t.Fatalf("Fetch v%d differs from kmsg\n got %x\nwant %x", version, got, want)
		}
	}
}

func TestFetchResponseEqualsKmsg(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		input := make([]byte, r.IntN(600))
		for i := range input {
			input[i] = byte(r.Uint32())
		}
		checkFetch(t, input)
	}
}

func FuzzFetchResponse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{8, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0, 0, 3, 130, 1, 2, 3, 3, 3, 3, 3, 1, 1, 2, 1, 1, 99})
	f.Fuzz(checkFetch)
}

func checkProduceResponse(t *testing.T, seed []byte) {
	t.Helper()
	for version := int16(0); version <= 13; version++ {
		c := &choices{seed}
		ours := &wire.ProduceResponse{ThrottleMs: int32(c.i64())}
		theirs := kmsg.NewPtrProduceResponse()
		theirs.Version, theirs.ThrottleMillis = version, ours.ThrottleMs
		for range c.n(4) {
			tp := wire.ProducedTopic{Name: c.text(), ID: c.id()}
			kt := kmsg.NewProduceResponseTopic()
			kt.Topic, kt.TopicID = tp.Name, tp.ID
			for range c.n(4) {
				p := wire.ProducedPartition{Partition: int32(c.i64()), ErrorCode: int16(c.i64()), BaseOffset: c.i64(), LogAppendTimeMs: c.i64(), LogStartOffset: c.i64(), ErrorMessage: c.text()}
				kp := kmsg.NewProduceResponseTopicPartition()
				kp.Partition, kp.ErrorCode, kp.BaseOffset, kp.LogAppendTime, kp.LogStartOffset = p.Partition, p.ErrorCode, p.BaseOffset, p.LogAppendTimeMs, p.LogStartOffset
				if p.ErrorMessage != "" {
					kp.ErrorMessage = &p.ErrorMessage
				}
				for range c.n(3) {
					e := wire.RecordError{BatchIndex: int32(c.i64()), Message: c.text()}
					ke := kmsg.NewProduceResponseTopicPartitionErrorRecord()
					ke.RelativeOffset, ke.ErrorMessage = e.BatchIndex, &e.Message
					p.RecordErrors, kp.ErrorRecords = append(p.RecordErrors, e), append(kp.ErrorRecords, ke)
				}
				tp.Partitions++
				ours.Partitions, kt.Partitions = append(ours.Partitions, p), append(kt.Partitions, kp)
			}
			ours.Topics, theirs.Topics = append(ours.Topics, tp), append(theirs.Topics, kt)
		}
		if got, want := wire.AppendProduce(nil, version, 77, ours), oracle(theirs, 77); !bytes.Equal(got, want) {
			t.Fatalf("Produce v%d differs from kmsg\n got %x\nwant %x", version, got, want)
		}
	}
}

func TestProduceResponseEqualsKmsg(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for range 2000 {
		input := make([]byte, r.IntN(600))
		for i := range input {
			input[i] = byte(r.Uint32())
		}
		checkProduceResponse(t, input)
	}
}

// fetchOf is kmsg's decoding in our shape.
func fetchOf(k *kmsg.FetchRequest) *wire.FetchRequest {
	f := &wire.FetchRequest{ReplicaID: k.ReplicaID, MaxWaitMs: k.MaxWaitMillis, MinBytes: k.MinBytes, MaxBytes: k.MaxBytes,
		Committed: k.IsolationLevel == 1, SessionID: k.SessionID, SessionEpoch: k.SessionEpoch, Rack: k.Rack,
		Partitions: []wire.FetchPartition{}, Forgotten: []wire.ForgottenPartition{}}
	if k.Version >= 15 {
		f.ReplicaID = k.ReplicaState.ID
	}
	for _, t := range k.Topics {
		for _, p := range t.Partitions {
			f.Partitions = append(f.Partitions, wire.FetchPartition{Topic: t.Topic, TopicID: t.TopicID, Partition: p.Partition,
				CurrentLeaderEpoch: p.CurrentLeaderEpoch, FetchOffset: p.FetchOffset, LastFetchedEpoch: p.LastFetchedEpoch, MaxBytes: p.PartitionMaxBytes})
		}
	}
	for _, t := range k.ForgottenTopics {
		for _, p := range t.Partitions {
			f.Forgotten = append(f.Forgotten, wire.ForgottenPartition{Topic: t.Topic, TopicID: t.TopicID, Partition: p})
		}
	}
	return f
}

func checkFetchRequest(t *testing.T, version int16, body []byte) {
	t.Helper()
	if version < 4 || version > 18 {
		return
	}
	ours := &wire.FetchRequest{Partitions: []wire.FetchPartition{}, Forgotten: []wire.ForgottenPartition{}}
	err := ours.Read(version, body)
	if err != nil && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrTooMany) {
		t.Fatalf("error %v has no kind", err)
	}
	if err != nil || len(body) > 1<<16 {
		return
	}
	// What we accept kmsg accepts as well, and reads alike. (Not the other way round: we count array elements more strictly
	// and leave no bytes over.)
	theirs := kmsg.NewPtrFetchRequest()
	theirs.Version = version
	if err := theirs.ReadFrom(body); err != nil {
		t.Fatalf("kmsg refuses what we accept: %v", err)
	}
	if diff := cmp.Diff(fetchOf(theirs), ours); diff != "" {
		t.Fatalf("Fetch v%d differs from kmsg:\n%s", version, diff)
	}
}

func fetchRequest(version int16) *kmsg.FetchRequest {
	k := kmsg.NewPtrFetchRequest()
	k.Version = version
	k.MaxWaitMillis, k.MinBytes, k.MaxBytes, k.IsolationLevel, k.SessionID, k.SessionEpoch = 500, 1, 1<<20, 1, 9, 3
	if version <= 14 {
		k.ReplicaID = -2
	} else {
		k.ReplicaState.ID, k.ReplicaState.Epoch = 5, 6
	}
	cluster := "cluster"
	k.ClusterID, k.Rack = &cluster, "rack"
	for i := range 2 {
		t := kmsg.NewFetchRequestTopic()
		f := kmsg.NewFetchRequestForgottenTopic()
		t.Topic, t.TopicID[0], f.Topic, f.TopicID[1] = "orders", byte(i), "gone", byte(i)
		for j := range int32(3) {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.FetchOffset, p.LastFetchedEpoch, p.PartitionMaxBytes, p.HighWatermark = j, 4, int64(j)*1000, 3, 1<<20, 7
			t.Partitions = append(t.Partitions, p)
			f.Partitions = append(f.Partitions, j)
		}
		k.Topics, k.ForgottenTopics = append(k.Topics, t), append(k.ForgottenTopics, f)
	}
	return k
}

func TestFetchRequestEqualsKmsg(t *testing.T) {
	for version := int16(4); version <= 18; version++ {
		body := fetchRequest(version).AppendTo(nil)
		got := &wire.FetchRequest{}
		if err := got.Read(version, body); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		checkFetchRequest(t, version, body)
		if len(got.Partitions) != 6 || version >= 7 && len(got.Forgotten) != 6 {
			t.Fatalf("v%d: %d partitions, %d forgotten", version, len(got.Partitions), len(got.Forgotten))
		}
		for n := range body {
			if err := got.Read(version, body[:n]); !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("v%d cut at %d of %d: %v", version, n, len(body), err)
			}
		}
		if err := got.Read(version, append(body, 0)); !errors.Is(err, wire.ErrMalformed) {
			t.Fatalf("v%d with a byte left over: %v", version, err)
		}
	}
}

func FuzzFetchRequest(f *testing.F) {
	for version := int16(4); version <= 18; version++ {
		f.Add(version, fetchRequest(version).AppendTo(nil))
	}
	f.Fuzz(checkFetchRequest)
}

func produceRequest(version int16) *kmsg.ProduceRequest {
	k := kmsg.NewPtrProduceRequest()
	k.Version, k.Acks, k.TimeoutMillis = version, -1, 30_000
	txn := "txn"
	k.TransactionID = &txn
	for i := range 2 {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID[0] = "orders", byte(i)
		for j := range int32(3) {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition = j
			if j > 0 {
				p.Records = bytes.Repeat([]byte{byte(j)}, int(j)*100)
			}
			t.Partitions = append(t.Partitions, p)
		}
		k.Topics = append(k.Topics, t)
	}
	return k
}

func checkProduceRequest(t *testing.T, version int16, body []byte) {
	t.Helper()
	if version < 0 || version > 13 {
		return
	}
	ours := &wire.ProduceRequest{}
	err := ours.Read(version, body)
	if err != nil && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrTooMany) {
		t.Fatalf("error %v has no kind", err)
	}
	if err != nil || len(body) > 1<<16 {
		return
	}
	theirs := kmsg.NewPtrProduceRequest()
	theirs.Version = version
	if err := theirs.ReadFrom(body); err != nil {
		t.Fatalf("kmsg refuses what we accept: %v", err)
	}
	if (theirs.TransactionID == nil) != (ours.TransactionalID == nil) || theirs.TransactionID != nil && *theirs.TransactionID != string(ours.TransactionalID) ||
		theirs.Acks != ours.Acks || theirs.TimeoutMillis != ours.TimeoutMs || len(theirs.Topics) != len(ours.Topics) {
		t.Fatalf("Produce v%d differs from kmsg: %+v, %+v", version, ours, theirs)
	}
	rest := ours.Partitions
	for i, kt := range theirs.Topics {
		ot := ours.Topics[i]
		if ot.Name != kt.Topic || ot.ID != kt.TopicID || ot.Partitions != len(kt.Partitions) {
			t.Fatalf("Produce v%d: topic %+v differs from %+v", version, ot, kt)
		}
		for j, kp := range kt.Partitions {
			if p := rest[j]; p.Partition != kp.Partition || !bytes.Equal(p.Records, kp.Records) || (p.Records == nil) != (kp.Records == nil) {
				t.Fatalf("Produce v%d: partition %+v differs from %+v", version, p, kp)
			}
		}
		rest = rest[ot.Partitions:]
	}
	if len(rest) != 0 {
		t.Fatalf("Produce v%d: %d partitions without a topic", version, len(rest))
	}
}

func TestProduceRequestEqualsKmsg(t *testing.T) {
	for version := int16(0); version <= 13; version++ {
		body := produceRequest(version).AppendTo(nil)
		got := &wire.ProduceRequest{}
		if err := got.Read(version, body); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if len(got.Topics) != 2 || len(got.Partitions) != 6 || len(got.Partitions[5].Records) != 200 {
			t.Fatalf("v%d: %+v", version, got)
		}
		checkProduceRequest(t, version, body)
		// The records are the body's own bytes.
		got.Partitions[5].Records[0] = 0xee
		if !bytes.Contains(body, []byte{0xee}) {
			t.Fatalf("v%d: records were copied", version)
		}
		for n := range body {
			if err := got.Read(version, body[:n]); !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("v%d cut at %d of %d: %v", version, n, len(body), err)
			}
		}
	}
}

func FuzzProduceRequest(f *testing.F) {
	for version := int16(0); version <= 13; version++ {
		f.Add(version, produceRequest(version).AppendTo(nil))
	}
	f.Fuzz(checkProduceRequest)
}

// A body of millions of empty topics must not turn into a much larger structure.
func TestProduceRequestRefusesTooManyTopics(t *testing.T) {
	const topics = 1_000_000
	body := binary.AppendUvarint([]byte{0, 0, 1, 0, 0, 0, 0}, topics+1)
	body = append(body, bytes.Repeat([]byte{1, 1, 0}, topics)...)
	body = append(body, 0)
	req := &wire.ProduceRequest{}
	if err := req.Read(9, body); !errors.Is(err, wire.ErrTooMany) {
		t.Fatalf("got %v", err)
	}
	if cap(req.Topics) > 1<<18 {
		t.Fatalf("%d topics were allocated", cap(req.Topics))
	}
}

func TestCountsAreBoundedByTheBody(t *testing.T) {
	// 2^31-1 topics claimed, none there.
	body := append(bytes.Repeat([]byte{0}, 7), 0xff, 0xff, 0xff, 0xff, 0x07)
	if err := (&wire.ProduceRequest{}).Read(9, body); !errors.Is(err, wire.ErrMalformed) {
		t.Fatalf("got %v", err)
	}
	fetch := append(bytes.Repeat([]byte{0}, 17), 0x7f, 0xff, 0xff, 0xff)
	if err := (&wire.FetchRequest{}).Read(4, fetch); !errors.Is(err, wire.ErrMalformed) {
		t.Fatalf("got %v", err)
	}
}

func TestHeader(t *testing.T) {
	frame := []byte{0, 18, 0, 3, 0, 0, 0, 7, 0, 2, 'm', 'e', 2, 0, 1, 'x', 9, 0, 'b'}
	h, rest, err := wire.ParseHeader(frame)
	if err != nil || h.Key != 18 || h.Version != 3 || h.CorrelationID != 7 || string(h.ClientID) != "me" {
		t.Fatalf("%+v, %v", h, err)
	}
	if rest, err = wire.SkipHeaderTags(rest); err != nil || string(rest) != "b" {
		t.Fatalf("%q, %v", rest, err)
	}
	if h, _, err := wire.ParseHeader([]byte{0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff}); err != nil || h.ClientID != nil {
		t.Fatalf("null client id: %+v, %v", h, err)
	}
	if _, err := wire.SkipHeaderTags(binary.AppendUvarint(nil, 20_000_000)); !errors.Is(err, wire.ErrTooMany) {
		t.Fatalf("20 million tags: %v", err)
	}
	long := append([]byte{1, 0}, binary.AppendUvarint(nil, 5000)...)
	if _, err := wire.SkipHeaderTags(append(long, make([]byte, 5000)...)); !errors.Is(err, wire.ErrMalformed) {
		t.Fatalf("a tag of 5000 bytes: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0, 18, 0, 3, 0, 0, 0, 7, 0, 2, 'm', 'e', 2, 0, 1, 'x', 9, 0, 'b'})
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, rest, err := wire.ParseHeader(frame)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if len(h.ClientID)+len(rest)+10 != len(frame) {
			t.Fatalf("header of %d bytes left %d", len(frame), len(rest))
		}
		if body, err := wire.SkipHeaderTags(rest); err == nil && len(body) > len(rest) {
			t.Fatal("tags grew")
		}
	})
}

func BenchmarkAppendFetch(b *testing.B) {
	for _, shape := range []struct {
		name       string
		partitions int
	}{{"1", 1}, {"16", 16}, {"100", 100}} {
		resp := &wire.FetchResponse{Topics: []wire.FetchedTopic{{Name: "orders"}}}
		for i := range shape.partitions {
			resp.Topics[0].Partitions = append(resp.Topics[0].Partitions, wire.FetchedPartition{Partition: int32(i), DivergingEpoch: -1, Records: &memory{data: make([]byte, 1024)}})
		}
		b.Run("partitions="+shape.name, func(b *testing.B) {
			b.ReportAllocs()
			buf, splits := wire.AppendFetch(nil, nil, 17, 1, resp)
			for b.Loop() {
				buf, splits = wire.AppendFetch(buf[:0], splits[:0], 17, 1, resp)
			}
		})
	}
}

// The promise of the design: nothing is allocated per partition.
func TestAppendFetchAllocatesNothing(t *testing.T) {
	resp := &wire.FetchResponse{Topics: []wire.FetchedTopic{{Name: "orders"}}}
	for i := range 50 {
		resp.Topics[0].Partitions = append(resp.Topics[0].Partitions, wire.FetchedPartition{Partition: int32(i), DivergingEpoch: -1, Records: &memory{data: make([]byte, 64)}})
	}
	for version := int16(4); version <= 18; version++ {
		buf, splits := wire.AppendFetch(nil, nil, version, 1, resp)
		if n := testing.AllocsPerRun(100, func() { buf, splits = wire.AppendFetch(buf[:0], splits[:0], version, 1, resp) }); n != 0 {
			t.Fatalf("v%d: %v allocations", version, n)
		}
	}
}
