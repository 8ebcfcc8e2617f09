package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// fakeLog is a partition in memory whose durability and coldness the test decides.
type fakeLog struct {
	id        [16]byte
	mu        sync.Mutex
	batches   [][]byte
	ends      []segment.Offset // after each batch
	durable   segment.Offset
	manual    bool          // durability only by sync
	changed   chan struct{} // closed and replaced whenever something changes
	watches   map[*partition.Watch]bool
	start     segment.Offset
	epoch     int32
	appendErr error
	hang      chan struct{} // Append waits until it is closed, whoever gives up
	readErr   error
	duplicate segment.Offset // when > 0: the next appends are duplicates of that offset
	cold      bool           // bytes exist but are on their way
	memory    bool           // records come as memory, as from a device
	held      int            // payloads given out and not released
	reads     int
	times     map[int64]partition.TimestampOffset
}

func newFakeLog() *fakeLog {
	return &fakeLog{changed: make(chan struct{}), watches: map[*partition.Watch]bool{}, duplicate: -1}
}

func (l *fakeLog) ID() [16]byte { return l.id }
func (l *fakeLog) Err() error   { return nil }

func (l *fakeLog) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
	for w := range l.watches {
		w.Notify()
	}
	clear(l.watches)
}

func (l *fakeLog) end() segment.Offset {
	if len(l.ends) == 0 {
		return 0
	}
	return l.ends[len(l.ends)-1]
}

func (l *fakeLog) Append(_ context.Context, r partition.AppendRequest) (partition.Appended, error) {
	if l.hang != nil {
		<-l.hang
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.appendErr != nil {
		return partition.Appended{}, l.appendErr
	}
	n := segment.Offset(recordCount(r.Records))
	if l.duplicate >= 0 {
		return partition.Appended{Base: l.duplicate, Next: l.duplicate + n, LogAppendTimeMs: -1, LogStart: l.start, Duplicate: true}, nil
	}
	base := l.end()
	l.batches = append(l.batches, append([]byte(nil), r.Records...))
	binary.BigEndian.PutUint64(l.batches[len(l.batches)-1], uint64(base))
	l.ends = append(l.ends, base+n)
	if !l.manual {
		l.durable = base + n
	}
	l.notify()
	return partition.Appended{Base: base, Next: base + n, LogAppendTimeMs: -1, LogStart: l.start}, nil
}

// sync makes everything durable.
func (l *fakeLog) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = l.end()
	l.notify()
}

// set changes the log under its lock and wakes everyone.
func (l *fakeLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.notify()
}

func (l *fakeLog) Durable(ctx context.Context, next segment.Offset) error {
	for {
		l.mu.Lock()
		done, changed := l.durable >= next, l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *fakeLog) Synced(ctx context.Context, next segment.Offset) error { return l.Durable(ctx, next) }
func (l *fakeLog) Producers() []segment.ProducerView                     { return nil }
func (l *fakeLog) GuardTxn(int64, int16) (partition.TxnGuard, bool)      { return 1, false }
func (l *fakeLog) DropGuard(int64, partition.TxnGuard)                   {}

// lent is a payload that is counted while it is out.
type lent struct {
	log    *fakeLog
	data   []byte
	memory bool
}

func (p *lent) Len() int64                              { return int64(len(p.data)) }
func (p *lent) File() (uintptr, int64, bool)            { return 0, 0, false }
func (p *lent) ReadAt(b []byte, off int64) (int, error) { return copy(b, p.data[off:]), nil }
func (p *lent) Bytes() []byte {
	if p.memory {
		return p.data
	}
	return nil
}

func (p *lent) Release() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	if p.data == nil {
		panic("released twice")
	}
	p.data = nil
	p.log.held--
}

func (l *fakeLog) Read(r partition.ReadRequest) (readResult, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	res := readResult{Offsets: l.offsets()}
	switch {
	case l.readErr != nil:
		return res, l.readErr
	case r.From < l.start || r.From > l.end():
		return res, partition.ErrOffsetOutOfRange
	}
	if r.Committed {
		res.Aborted = []partition.AbortedTxn{}
	}
	if r.Watch != nil {
		l.watches[r.Watch] = true
	}
	if r.From >= l.durable {
		return res, nil
	}
	if l.cold {
		res.Pending = true
		return res, nil
	}
	var data []byte
	for i, b := range l.batches {
		if l.ends[i] <= r.From || l.ends[i] > l.durable {
			continue
		}
		if len(data)+len(b) > int(r.MaxBytes) && !(len(data) == 0 && r.MustServe) {
			res.More = true
			break
		}
		data = append(data, b...)
	}
	if data != nil {
		l.held++
		res.Records = &lent{log: l, data: data, memory: l.memory}
	}
	return res, nil
}

func (l *fakeLog) offsets() partition.Offsets {
	return partition.Offsets{LogStart: l.start, HighWatermark: l.durable, LastStable: l.durable, End: l.end(), LocalStart: l.start + 1, LeaderEpoch: l.epoch}
}

func (l *fakeLog) Offsets() partition.Offsets {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offsets()
}

func (l *fakeLog) OffsetForTime(_ context.Context, ms int64) (partition.TimestampOffset, error) {
	if t, ok := l.times[ms]; ok {
		return t, nil
	}
	return partition.TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}, nil
}

func (l *fakeLog) MaxTimestamp(context.Context) (partition.TimestampOffset, error) {
	return partition.TimestampOffset{Offset: l.Offsets().End - 1, TimestampMs: 1234, LeaderEpoch: l.epoch}, nil
}

func (l *fakeLog) TieredOffsets() (segment.Offset, segment.Offset) { return -1, l.start }

func (l *fakeLog) EndOffsetForEpoch(epoch int32) (int32, segment.Offset) {
	if epoch > l.epoch {
		return -1, -1
	}
	return l.epoch, l.Offsets().End
}

// readCount is how often it was read.
func (l *fakeLog) readCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// outstanding is how many payloads were given out and not released.
func (l *fakeLog) outstanding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

type fakeLogs map[string]*fakeLog // by "topic-partition"

func (f fakeLogs) log(topic string, p int32) (partitionLog, bool) {
	l, ok := f[topic+"-"+string(rune('0'+p))]
	return l, ok
}

func (f fakeLogs) disconnected(uint64) {}

// batch is a batch of n records whose values the tests do not look into; size is its whole length.
func batch(n int32, size int) []byte {
	b := make([]byte, max(size, segment.BatchHeaderSize))
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], uint32(n))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// rig is a broker with fake partitions of topics "orders" (3 partitions) and "other" (1).
type rig struct {
	t      testing.TB
	b      *Broker
	logs   fakeLogs
	orders *metadata.Topic
	ctx    context.Context
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	meta, err := metadata.Open(vfs.NewMem(1), "lagoon-metadata", metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	orders, err := meta.CreateTopic("orders", 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meta.CreateTopic("other", 1, nil); err != nil {
		t.Fatal(err)
	}
	opt := Options{Metadata: meta, Logger: slog.New(slog.DiscardHandler), Endpoints: []Endpoint{{Name: "plain"}}}
	if change != nil {
		change(&opt)
	}
	logs := fakeLogs{"orders-0": newFakeLog(), "orders-1": newFakeLog(), "orders-2": newFakeLog(), "other-0": newFakeLog()}
	for name, l := range logs {
		topic, _ := meta.Snapshot().Topic(name[:len(name)-2])
		l.id = topic.ID
	}
	b, err := newBroker(opt.withDefaults(), logs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		if err := b.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if used, _ := b.budget.usage(); used != 0 {
			t.Errorf("%d bytes of frames were not given back", used)
		}
		for name, l := range logs {
			if n := l.outstanding(); n != 0 {
				t.Errorf("%s: %d payloads were not released", name, n)
			}
		}
		meta.Close()
	})
	return &rig{t: t, b: b, logs: logs, orders: orders, ctx: ctx}
}

// client is the other end of a connection.
type client struct {
	t    testing.TB
	nc   net.Conn
	corr int32
}

// dial connects over a pipe: no buffering anywhere.
func (r *rig) dial() *client {
	r.t.Helper()
	server, nc := net.Pipe()
	r.b.admit(r.ctx, &endpoint{Endpoint: r.b.opt.Endpoints[0], port: 9092}, server)
	r.t.Cleanup(func() { nc.Close() })
	return &client{t: r.t, nc: nc}
}

// frame encodes a request.
func (c *client) frame(req kmsg.Request) []byte {
	c.corr++
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, c.corr)
}

func (c *client) write(p []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) send(req kmsg.Request) {
	c.t.Helper()
	c.write(c.frame(req))
}

// receive reads the response to req; want is the correlation id.
func (c *client) receive(req kmsg.Request, want int32) kmsg.Response {
	c.t.Helper()
	corr, body, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	if corr != want {
		c.t.Fatalf("correlation id %d, want %d", corr, want)
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && resp.Key() != apiVersionsKey {
		if body[0] != 0 {
			c.t.Fatalf("tags in the response header: %x", body)
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("decode %T v%d: %v", resp, resp.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); len(again) != len(body) {
		c.t.Fatalf("%T v%d: %d bytes, a minimal encoding has %d", resp, resp.GetVersion(), len(body), len(again))
	}
	return resp
}

func (c *client) read() (corr int32, body []byte, err error) {
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		return 0, nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c.nc, frame); err != nil {
		return 0, nil, err
	}
	r := kbin.Reader{Src: frame}
	return r.Int32(), r.Src, nil
}

// call sends a request and waits for its response.
func call[R kmsg.Response](c *client, req kmsg.Request) R {
	c.t.Helper()
	c.send(req)
	return c.receive(req, c.corr).(R)
}

// closed waits for the broker to close the connection without another byte.
func (c *client) closed() {
	c.t.Helper()
	n, err := io.Copy(io.Discard, c.nc)
	if n != 0 || err != nil && !errors.Is(err, io.ErrClosedPipe) {
		c.t.Fatalf("%d bytes more, %v", n, err)
	}
}

// versions asks for the API versions, which shows that the connection lives.
func (c *client) versions() *kmsg.ApiVersionsResponse {
	c.t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 2
	return call[*kmsg.ApiVersionsResponse](c, req)
}

func produceRequest(version, acks int16, topic string, parts ...kmsg.ProduceRequestTopicPartition) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, parts
	req.Topics = append(req.Topics, t)
	return req
}

func records(p int32, b []byte) kmsg.ProduceRequestTopicPartition {
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = p, b
	return part
}

func fetchRequest(version int16, topic string, offsets map[int32]int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = version, 500, 1, 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for p := range int32(10) {
		if offset, ok := offsets[p]; ok {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset, part.PartitionMaxBytes = p, offset, 1<<20
			t.Partitions = append(t.Partitions, part)
		}
	}
	if len(t.Partitions) > 0 {
		req.Topics = append(req.Topics, t)
	}
	return req
}

// fill appends durable batches of one record each.
func (l *fakeLog) fill(t testing.TB, batches, size int) {
	t.Helper()
	for range batches {
		if _, err := l.Append(context.Background(), partition.AppendRequest{Records: batch(1, size)}); err != nil {
			t.Fatal(err)
		}
	}
}

const long = time.Hour

var _ wire.Payload = (*lent)(nil)

// nullConn swallows everything.
type nullConn struct{ net.Conn }

func (nullConn) Write(p []byte) (int, error)      { return len(p), nil }
func (nullConn) SetWriteDeadline(time.Time) error { return nil }
func (nullConn) RemoteAddr() net.Addr             { return nil }
func (nullConn) LocalAddr() net.Addr              { return nil }
