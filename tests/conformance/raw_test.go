package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// rawConn speaks the protocol without a client in between. Every wait ends after a minute.
type rawConn struct {
	t    *testing.T
	conn net.Conn
	corr int32
}

func dial(t *testing.T, b *lagoontest.Broker) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &rawConn{t: t, conn: conn}
}

// frame encodes a request with its header and size.
func (c *rawConn) frame(req kmsg.Request) []byte {
	c.corr++
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw")).AppendRequest(nil, req, c.corr)
}

func (c *rawConn) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read gets one response frame and returns its correlation id and what follows.
func (c *rawConn) read() (corr int32, body []byte) {
	c.t.Helper()
	var head [8]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		c.t.Fatalf("no response: %v", err)
	}
	n := int32(binary.BigEndian.Uint32(head[:]))
	if n < 4 || n > 64<<20 {
		c.t.Fatalf("response of %d bytes", n)
	}
	body = make([]byte, n-4)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		c.t.Fatalf("response cut off: %v", err)
	}
	return int32(binary.BigEndian.Uint32(head[4:])), body
}

// ask sends one request and decodes its response.
func ask[R kmsg.Response](c *rawConn, version int16, req kmsg.Request) R {
	c.t.Helper()
	req.SetVersion(version)
	c.write(c.frame(req))
	return answer[R](c, req, c.corr)
}

func answer[R kmsg.Response](c *rawConn, req kmsg.Request, corr int32) R {
	c.t.Helper()
	got, body := c.read()
	if got != corr {
		c.t.Fatalf("%T answered out of order: id %d, want %d", req, got, corr)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			c.t.Fatalf("%T: response header has tags: %x", req, body[:min(8, len(body))])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("%T v%d: %v in %x", resp, req.GetVersion(), err, body)
	}
	return resp.(R)
}

// refusalTime is how long a refusal may take on a busy machine. It is well below 30 s, when the broker gives up waiting for the rest of a request:
// what it takes for one is not refused.
const refusalTime = 15 * time.Second

// mustClose waits until the broker closes the connection without an answer, because of what was sent and not of what was not.
func (c *rawConn) mustClose(why string) {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(refusalTime)); err != nil {
		c.t.Fatal(err)
	}
	n, err := c.conn.Read(make([]byte, 1))
	var timeout net.Error
	switch {
	case n > 0:
		c.t.Errorf("%s: answered, want a closed connection", why)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.t.Errorf("%s: still open after %v", why, refusalTime)
	}
}

// batchOf is one uncompressed v2 batch of plain values.
func batchOf(values ...string) []byte {
	var records []byte
	for i, v := range values {
		var r []byte
		r = append(r, 0)                          // attributes
		r = binary.AppendVarint(r, 0)             // timestamp delta
		r = binary.AppendVarint(r, int64(i))      // offset delta
		r = binary.AppendVarint(r, -1)            // null key
		r = binary.AppendVarint(r, int64(len(v))) // value
		r = append(append(r, v...), 0)            // no headers
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
	}
	b := make([]byte, 61, 61+len(records))
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(len(values)-1))
	binary.BigEndian.PutUint64(b[27:], firstMs)
	binary.BigEndian.PutUint64(b[35:], firstMs)
	for i := 43; i < 57; i++ { // no producer id, epoch, sequence
		b[i] = 0xff
	}
	binary.BigEndian.PutUint32(b[57:], uint32(len(values)))
	return sealed(b)
}

// sealed sets the checksum.
func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produceRequest(topic string, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func produceCode(resp *kmsg.ProduceResponse) int16 {
	return resp.Topics[0].Partitions[0].ErrorCode
}

// TestRawProtocol takes about a second. One broker serves all of it; at the end it must have noticed nothing.
func TestRawProtocol(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	lagoontest.CreateTopic(t, b, "raw", 1, "retention.ms", "-1")
	for _, c := range []struct {
		name string
		run  func(t *testing.T, b *lagoontest.Broker)
	}{
		{"old clients without ApiVersions", rawOldClients},
		{"ApiVersions from the future", rawFutureVersions},
		{"ApiVersions names", rawSoftwareNames},
		{"keys and versions that nobody serves", rawUnserved},
		{"Produce 0 to 2", rawOldProduce},
		{"batches that must not be stored", rawBadBatches},
		{"acks", rawAcks},
		{"absurd frames", rawFrames},
		{"absurd counts", rawCounts},
		{"names", rawNames},
		{"null and empty", rawNullAndEmpty},
		{"byte by byte", rawDrip},
		{"pipelined", rawPipelined},
		{"fetch by topic id", rawTopicIDs},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
	if got := lagoontest.ReadFrom(t, b, "raw", 0, 0, 1); string(got[0].Value) != "old" {
		t.Errorf("the log's first record is %q", got[0].Value)
	}
	if entries, err := os.ReadDir(b.TierPath("ssd")); err != nil {
		t.Error(err)
	} else {
		for _, e := range entries {
			if e.IsDir() && e.Name() != "raw-0" && e.Name() != "lagoon-metadata" && !strings.HasPrefix(e.Name(), "made-") {
				t.Errorf("somebody made %s", e.Name())
			}
		}
	}
	b.Stop()
}

// rawOldClients: kafka_exporter (an old Sarama) sends fixed versions and never asks which are served.
func rawOldClients(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	if code := produceCode(ask[*kmsg.ProduceResponse](c, 3, produceRequest("raw", -1, batchOf("old")))); code != 0 {
		t.Fatalf("produce v3: code %d", code)
	}
	md := ask[*kmsg.MetadataResponse](dial(t, b), 6, kmsg.NewPtrMetadataRequest())
	if len(md.Brokers) != 1 || fmt.Sprintf("%s:%d", md.Brokers[0].Host, md.Brokers[0].Port) != b.Bootstrap() || md.ControllerID != md.Brokers[0].NodeID {
		t.Errorf("metadata v6: %+v", md)
	}
	if len(md.Topics) != 1 || *md.Topics[0].Topic != "raw" || len(md.Topics[0].Partitions) != 1 || md.Topics[0].Partitions[0].Leader != md.ControllerID {
		t.Errorf("metadata v6: topics %+v", md.Topics)
	}
	for _, o := range []struct{ timestamp, want int64 }{{-1, 1}, {-2, 0}} {
		req := kmsg.NewPtrListOffsetsRequest()
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = "raw"
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Timestamp = o.timestamp
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if p := ask[*kmsg.ListOffsetsResponse](dial(t, b), 3, req).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Offset != o.want {
			t.Errorf("list offsets v3, %d: %+v", o.timestamp, p)
		}
	}
}

func rawFutureVersions(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	// The body of a version nobody knows can be anything.
	frame := []byte{0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0, 0xde, 0xad, 0xbe, 0xef} // after a header with neither client id nor tags
	c.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	corr, body := c.read()
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.SetVersion(0)
	if err := resp.ReadFrom(body); err != nil || corr != 7 || resp.ErrorCode != 35 || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MaxVersion < 3 {
		t.Fatalf("ApiVersions v99: %v, id %d, %+v", err, corr, resp)
	}
	// The connection is good for a version that is served.
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "raw", "1.0"
	if next := ask[*kmsg.ApiVersionsResponse](c, resp.ApiKeys[0].MaxVersion, req); next.ErrorCode != 0 || len(next.ApiKeys) < 15 {
		t.Errorf("ApiVersions after it: %+v", next)
	}
}

func rawSoftwareNames(t *testing.T, b *lagoontest.Broker) {
	for name, want := range map[string]int16{"librdkafka": 0, "a.b-c": 0, "": 42, "-x": 42, "a b": 42, "ü": 42} {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = name, "1"
		if resp := ask[*kmsg.ApiVersionsResponse](dial(t, b), 3, req); resp.ErrorCode != want {
			t.Errorf("software name %q: code %d, want %d", name, resp.ErrorCode, want)
		}
	}
}

func rawUnserved(t *testing.T, b *lagoontest.Broker) {
	header := func(key, version int16) []byte {
		frame := binary.BigEndian.AppendUint16(nil, uint16(key))
		frame = binary.BigEndian.AppendUint16(frame, uint16(version))
		frame = append(frame, 0, 0, 0, 1, 0xff, 0xff)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	}
	for _, k := range []struct{ key, version int16 }{{999, 0}, {-1, 0}, {4, 0}, {7, 3}, {52, 0}, {1, 3}, {1, 19}, {0, 14}, {3, 14}, {3, -1}} {
		c := dial(t, b)
		c.write(header(k.key, k.version))
		c.mustClose(fmt.Sprintf("key %d version %d", k.key, k.version))
	}
}

func rawOldProduce(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	for version := range int16(3) {
		if code := produceCode(ask[*kmsg.ProduceResponse](c, version, produceRequest("raw", 1, make([]byte, 30)))); code != 35 {
			t.Errorf("produce v%d: code %d, want UNSUPPORTED_VERSION", version, code)
		}
	}
}

func rawBadBatches(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	change := func(fn func(b []byte) []byte) []byte { return fn(batchOf("x", "y")) }
	set32 := func(at int, v uint32) []byte {
		return change(func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return sealed(b) })
	}
	const corrupt, invalid, unknownCodec = 2, 87, 76
	for _, bad := range []struct {
		name    string
		records []byte
		want    int16
	}{
		{"a flipped bit", change(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), corrupt},
		{"magic 1", change(func(b []byte) []byte { b[16] = 1; return b }), invalid},
		{"magic 3", change(func(b []byte) []byte { b[16] = 3; return b }), invalid},
		{"two batches", append(batchOf("x"), batchOf("y")...), invalid},
		{"a batch cut off", change(func(b []byte) []byte { return b[:len(b)-3] }), corrupt},
		{"bytes behind the batch", change(func(b []byte) []byte { return append(b, 1, 2, 3) }), invalid},
		{"a length of 2 GiB", set32(8, 1<<31-1), corrupt},
		{"a negative length", set32(8, 1<<31), corrupt},
		{"a negative count", set32(57, 1<<32-1), invalid},
		{"a count of a billion", set32(57, 1_000_000_000), invalid},
		{"a count that the last offset contradicts", set32(23, 7), invalid},
		{"a control batch", change(func(b []byte) []byte { b[22] |= 0x20; return sealed(b) }), invalid},
		{"a codec nobody knows", change(func(b []byte) []byte { b[22] |= 5; return sealed(b) }), unknownCodec},
		{"a producer id without a sequence", change(func(b []byte) []byte { binary.BigEndian.PutUint64(b[43:], 9); return sealed(b) }), invalid},
		{"nothing", nil, invalid},
		{"text", []byte(strings.Repeat("no batch at all ", 20)), corrupt},
	} {
		got := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest("raw", -1, bad.records)))
		if got != bad.want && !(bad.want == corrupt && got == invalid) {
			t.Errorf("%s: code %d, want %d", bad.name, got, bad.want)
		}
	}
	if code := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest("raw", -1, batchOf(strings.Repeat("x", 2<<20))))); code != 10 {
		t.Errorf("2 MiB: code %d, want MESSAGE_TOO_LARGE", code)
	}
	// zstd came with Produce 7 (KIP-110).
	zstd := change(func(b []byte) []byte { b[22] |= 4; return sealed(b) })
	if code := produceCode(ask[*kmsg.ProduceResponse](c, 6, produceRequest("raw", -1, zstd))); code != unknownCodec {
		t.Errorf("zstd with produce v6: code %d", code)
	}
	if end := endOffset(t, b, "raw"); end != 1 {
		t.Errorf("something was stored: the log ends at %d", end)
	}
}

func endOffset(t *testing.T, b lagoontest.Cluster, topic string) int64 {
	t.Helper()
	offsets, err := lagoontest.AdminClient(t, b).ListEndOffsets(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, ok := offsets.Lookup(topic, 0)
	if !ok || o.Err != nil {
		t.Fatalf("end of %s: %+v", topic, o)
	}
	return o.Offset
}

func rawAcks(t *testing.T, b *lagoontest.Broker) {
	before := endOffset(t, b, "raw")
	c := dial(t, b)
	silent := produceRequest("raw", 0, batchOf("silent"))
	silent.SetVersion(9)
	c.write(c.frame(silent))
	// No answer to acks=0: the next frame belongs to the next request, and the record is there.
	if code := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest("raw", 1, batchOf("loud")))); code != 0 {
		t.Errorf("acks=1: code %d", code)
	}
	// acks=1 is answered before consumers see the record; what acks=all answers they do.
	if code := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest("raw", -1, batchOf("durable")))); code != 0 {
		t.Errorf("acks=all: code %d", code)
	}
	if end := endOffset(t, b, "raw"); end != before+3 {
		t.Errorf("the log grew from %d to %d, want three records", before, end)
	}
	for _, acks := range []int16{2, 5, -2} {
		if code := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest("raw", acks, batchOf("x")))); code != 21 {
			t.Errorf("acks=%d: code %d, want INVALID_REQUIRED_ACKS", acks, code)
		}
	}
	c.write(c.frame(setVersion(produceRequest("absent/", 0, batchOf("x")), 9)))
	c.mustClose("acks=0 that failed")
}

func setVersion(req kmsg.Request, v int16) kmsg.Request {
	req.SetVersion(v)
	return req
}

func rawFrames(t *testing.T, b *lagoontest.Broker) {
	for _, size := range []uint32{100<<20 + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 0, 3} {
		c := dial(t, b)
		c.write(append(binary.BigEndian.AppendUint32(nil, size), bytes.Repeat([]byte{0}, int(min(size, 64)))...))
		c.mustClose(fmt.Sprintf("frame size %#x", size))
	}
	c := dial(t, b)
	c.write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	c.mustClose("HTTP")
	c = dial(t, b)
	c.write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	c.mustClose("TLS")
}

// rawCounts: arrays that claim more than the frame holds, and frames that are cut anywhere.
func rawCounts(t *testing.T, b *lagoontest.Broker) {
	for _, req := range []kmsg.Request{
		setVersion(kmsg.NewPtrMetadataRequest(), 4), setVersion(kmsg.NewPtrFetchRequest(), 11), setVersion(kmsg.NewPtrListOffsetsRequest(), 3),
		setVersion(kmsg.NewPtrProduceRequest(), 8), setVersion(kmsg.NewPtrCreateTopicsRequest(), 3), setVersion(kmsg.NewPtrDescribeConfigsRequest(), 3),
		setVersion(kmsg.NewPtrDeleteTopicsRequest(), 3), setVersion(kmsg.NewPtrDescribeLogDirsRequest(), 1),
	} {
		c := dial(t, b)
		frame := c.frame(req)
		// Empty arrays are four zero bytes; each of them in turn claims two billion elements.
		hits := 0
		for at := 4 + 8 + 5; at+4 <= len(frame); at++ {
			if !bytes.Equal(frame[at:at+4], make([]byte, 4)) {
				continue
			}
			hits++
			evil := bytes.Clone(frame)
			copy(evil[at:], []byte{0x7f, 0xff, 0xff, 0xff})
			c := dial(t, b)
			c.write(evil)
			closeWrite(t, c)
			_, err := io.Copy(io.Discard, c.conn) // an answer or the end; the deadline is an error
			if err != nil && !isReset(err) {
				t.Errorf("%T with a count at byte %d: %v", req, at, err)
			}
		}
		if hits == 0 && req.Key() != 35 && req.Key() != 3 {
			t.Errorf("%T: no array found in %x", req, frame)
		}
		for cut := 5; cut < len(frame); cut++ {
			c := dial(t, b)
			short := bytes.Clone(frame[:cut])
			binary.BigEndian.PutUint32(short, uint32(cut-4))
			c.write(short)
			closeWrite(t, c)
			if _, err := io.Copy(io.Discard, c.conn); err != nil && !isReset(err) {
				t.Errorf("%T cut at byte %d: %v", req, cut, err)
			}
		}
	}
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(b.PID()), "status"))
	if err != nil {
		t.Fatal(err)
	}
	var peak int
	for _, line := range strings.Split(string(status), "\n") {
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak) // other lines do not match
	}
	if peak == 0 || peak > 200<<10 {
		t.Errorf("the process grew to %d KiB", peak)
	}
}

func closeWrite(t *testing.T, c *rawConn) {
	t.Helper()
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil && !isReset(err) {
		t.Fatal(err)
	}
}

// isReset: the broker closed while bytes of ours were on the way.
func isReset(err error) bool {
	return strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe") || strings.Contains(err.Error(), "not connected")
}

func rawNames(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	bad := []string{"", ".", "..", "../x", "a/b", "/etc/passwd", "a\x00b", "a b", "größe", strings.Repeat("x", 250), "raw-0/../../x"}
	for _, name := range bad {
		md := kmsg.NewPtrMetadataRequest()
		md.AllowAutoTopicCreation = true
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		md.Topics = append(md.Topics, rt)
		if resp := ask[*kmsg.MetadataResponse](c, 9, md); len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 17 {
			t.Errorf("metadata of %q: %+v", name, resp.Topics)
		}
		create := kmsg.NewPtrCreateTopicsRequest()
		ct := kmsg.NewCreateTopicsRequestTopic()
		ct.Topic, ct.NumPartitions, ct.ReplicationFactor = name, 1, 1
		create.Topics = append(create.Topics, ct)
		create.TimeoutMillis = 5000
		if resp := ask[*kmsg.CreateTopicsResponse](c, 7, create); resp.Topics[0].ErrorCode != 17 || resp.Topics[0].ErrorMessage == nil {
			t.Errorf("create %q: %+v", name, resp.Topics[0])
		}
		if code := produceCode(ask[*kmsg.ProduceResponse](c, 9, produceRequest(name, -1, batchOf("x")))); code != 3 && code != 17 {
			t.Errorf("produce to %q: code %d", name, code)
		}
	}
	// Auto-creation: an answer that makes the client come again, then the topic.
	md := kmsg.NewPtrMetadataRequest()
	md.AllowAutoTopicCreation = true
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr("made")
	md.Topics = append(md.Topics, rt)
	first := ask[*kmsg.MetadataResponse](c, 9, md).Topics[0].ErrorCode
	if again := ask[*kmsg.MetadataResponse](c, 9, md).Topics[0]; (first != 0 && first != 3 && first != 5) || again.ErrorCode != 0 || len(again.Partitions) != 1 {
		t.Errorf("auto-creation: code %d, then %+v", first, again)
	}
	// A name that collides with one that is there, as file names of metrics would.
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 5000
	for _, name := range []string{"made-a.b", "made-a_b"} {
		ct := kmsg.NewCreateTopicsRequestTopic()
		ct.Topic, ct.NumPartitions, ct.ReplicationFactor = name, 1, 1
		create.Topics = []kmsg.CreateTopicsRequestTopic{ct}
		want := int16(0)
		if name == "made-a_b" {
			want = 17
		}
		if resp := ask[*kmsg.CreateTopicsResponse](c, 7, create); resp.Topics[0].ErrorCode != want {
			t.Errorf("create %q: %+v", name, resp.Topics[0])
		}
	}
}

func rawNullAndEmpty(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	all, none := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest()
	all.Topics, none.Topics = nil, []kmsg.MetadataRequestTopic{}
	for version := int16(1); version <= 13; version++ {
		if n := len(ask[*kmsg.MetadataResponse](c, version, all).Topics); n < 1 {
			t.Errorf("metadata v%d of all topics: %d", version, n)
		}
		if resp := ask[*kmsg.MetadataResponse](c, version, none); len(resp.Topics) != 0 || len(resp.Brokers) != 1 {
			t.Errorf("metadata v%d of no topics: %+v", version, resp)
		}
	}
	if n := len(ask[*kmsg.MetadataResponse](c, 0, none).Topics); n < 1 {
		t.Errorf("metadata v0 of an empty list means all: %d", n)
	}
	dc := kmsg.NewPtrDescribeConfigsRequest()
	rr := kmsg.NewDescribeConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "raw"
	for _, names := range [][]string{nil, {}} {
		rr.ConfigNames = names
		dc.Resources = []kmsg.DescribeConfigsRequestResource{rr}
		if r := ask[*kmsg.DescribeConfigsResponse](c, 4, dc).Resources[0]; r.ErrorCode != 0 || len(r.Configs) < 10 {
			t.Errorf("configuration names %v: code %d, %d keys", names, r.ErrorCode, len(r.Configs))
		}
	}
	for version := int16(4); version <= 18; version++ {
		req := kmsg.NewPtrFetchRequest()
		req.SessionEpoch, req.MaxWaitMillis = -1, 10
		if resp := ask[*kmsg.FetchResponse](c, version, req); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
			t.Errorf("fetch v%d of nothing: %+v", version, resp)
		}
	}
	// Null lists here are a NullPointerException in kafka-topics.
	dp := kmsg.NewPtrDescribeTopicPartitionsRequest()
	dp.Topics = append(dp.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: "raw"})
	resp := ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, dp)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("describe partitions: %+v", resp)
	}
	if p := resp.Topics[0].Partitions[0]; p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil {
		t.Errorf("null lists in %+v", p)
	}
}

// rawDrip sends a request in single bytes.
func rawDrip(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	req := setVersion(kmsg.NewPtrMetadataRequest(), 12)
	for _, one := range c.frame(req) {
		c.write([]byte{one})
	}
	if resp := answer[*kmsg.MetadataResponse](c, req, c.corr); len(resp.Brokers) != 1 {
		t.Errorf("metadata: %+v", resp)
	}
}

// rawPipelined sends many requests before it reads: fast ones behind slow ones, and they come back in order.
func rawPipelined(t *testing.T, b *lagoontest.Broker) {
	c := dial(t, b)
	var reqs []kmsg.Request
	var all []byte
	for i := range 60 {
		var req kmsg.Request
		switch i % 3 {
		case 0:
			req = setVersion(produceRequest("raw", -1, batchOf(fmt.Sprint("pipelined ", i))), 9)
		case 1:
			req = setVersion(kmsg.NewPtrMetadataRequest(), 9)
		default:
			f := kmsg.NewPtrFetchRequest()
			f.SessionEpoch, f.MaxWaitMillis, f.MinBytes, f.MaxBytes = -1, 5, 1, 1<<20
			req = setVersion(f, 11)
		}
		reqs = append(reqs, req)
		all = append(all, c.frame(req)...)
	}
	before := endOffset(t, b, "raw")
	c.write(all)
	for i, req := range reqs {
		resp := answer[kmsg.Response](c, req, int32(i+1))
		if p, ok := resp.(*kmsg.ProduceResponse); ok {
			if got := p.Topics[0].Partitions[0]; got.ErrorCode != 0 || got.BaseOffset != before+int64(i/3) {
				t.Errorf("request %d: %+v, want offset %d", i, got, before+int64(i/3))
			}
		}
	}
}

// rawTopicIDs: a topic that was deleted and made again has another id, and the old one is no longer known.
func rawTopicIDs(t *testing.T, b *lagoontest.Broker) {
	ctx := testContext(t)
	adm := lagoontest.AdminClient(t, b)
	id := func() [16]byte {
		t.Helper()
		md := kmsg.NewPtrMetadataRequest()
		md.Topics = append(md.Topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr("made-again")})
		topic := ask[*kmsg.MetadataResponse](dial(t, b), 12, md).Topics[0]
		if topic.ErrorCode != 0 {
			t.Fatalf("metadata: %+v", topic)
		}
		return topic.TopicID
	}
	lagoontest.CreateTopic(t, b, "made-again", 1)
	before := id()
	if _, err := adm.DeleteTopic(ctx, "made-again"); err != nil {
		t.Fatal(err)
	}
	lagoontest.CreateTopic(t, b, "made-again", 1)
	after := id()
	if before == after || after == [16]byte{} {
		t.Errorf("ids %x, %x", before, after)
	}
	for _, c := range []struct {
		id   [16]byte
		want int16
	}{{before, 100}, {after, 0}} {
		req := kmsg.NewPtrFetchRequest()
		req.SessionEpoch, req.MaxWaitMillis, req.MaxBytes = -1, 10, 1<<20
		rt := kmsg.NewFetchRequestTopic()
		rt.TopicID = c.id
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.PartitionMaxBytes = 1 << 20
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if resp := ask[*kmsg.FetchResponse](dial(t, b), 17, req); len(resp.Topics) != 1 || resp.Topics[0].Partitions[0].ErrorCode != c.want {
			t.Errorf("fetch of topic id %x: %+v, want code %d", c.id, resp, c.want)
		}
	}
}

// TestProducerIDsAreNeverGivenTwice, across a kill.
func TestProducerIDsAreNeverGivenTwice(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	seen := map[int64]bool{}
	for round := range 3 {
		cl := lagoontest.Client(t, b)
		for range 5 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, cl)
			cancel()
			if err != nil || resp.ErrorCode != 0 || resp.ProducerEpoch != 0 || seen[resp.ProducerID] {
				t.Fatalf("round %d: %v, %+v, seen %v", round, err, resp, seen)
			}
			seen[resp.ProducerID] = true
		}
		cl.Close()
		b.Kill()
		b.Restart()
	}
}
