package rawkafka

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Conn is one connection with requests in lockstep.
type Conn struct {
	nc   net.Conn
	r    *bufio.Reader
	id   string
	corr int32
	buf  []byte
}

// Dial connects under a client id.
func Dial(addr, clientID string) (*Conn, error) {
	nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &Conn{nc: nc, r: bufio.NewReaderSize(nc, 256<<10), id: clientID}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nc.Close() }

// Do sends a request at its version and reads the whole response.
func (c *Conn) Do(req kmsg.Request) (kmsg.Response, error) {
	if err := c.Send(req); err != nil {
		return nil, err
	}
	return c.Receive(req)
}

// Send writes a request; its response has to be received in order.
func (c *Conn) Send(req kmsg.Request) error {
	c.corr++
	c.buf = kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(c.buf[:0], req, c.corr)
	_, err := c.nc.Write(c.buf)
	return err
}

// Receive reads the response to the oldest request that is owed one.
func (c *Conn) Receive(req kmsg.Request) (kmsg.Response, error) {
	body, err := c.frame()
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	rd := kbin.Reader{Src: body}
	rd.Int32() // correlation id: one in flight per caller's order
	if resp.IsFlexible() && resp.Key() != 18 {
		kmsg.SkipTags(&rd)
	}
	return resp, resp.ReadFrom(rd.Src)
}

func (c *Conn) frame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(head[:]))
	if n < 4 || n > 128<<20 {
		return nil, fmt.Errorf("rawkafka: response of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(c.r, body)
	return body, err
}

// CreateTopic creates a topic with configs given as name, value, name, value…
func (c *Conn) CreateTopic(name string, partitions int32, configs ...string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 4, 60_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for i := 0; i+1 < len(configs); i += 2 {
		cfg := kmsg.NewCreateTopicsRequestTopicConfig()
		cfg.Name, cfg.Value = configs[i], kmsg.StringPtr(configs[i+1])
		t.Configs = append(t.Configs, cfg)
	}
	req.Topics = append(req.Topics, t)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	got := resp.(*kmsg.CreateTopicsResponse).Topics[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		message := ""
		if got.ErrorMessage != nil {
			message = *got.ErrorMessage
		}
		return fmt.Errorf("create %s: %w: %s", name, err, message)
	}
	return nil
}

// Produce sends one batch to one partition and waits for the ack. It returns the base offset.
func (c *Conn) Produce(topic string, partition int32, acks int16, batch []byte) (int64, error) {
	if err := c.SendProduce(topic, partition, acks, batch); err != nil {
		return 0, err
	}
	return c.ReceiveProduce()
}

// SendProduce and ReceiveProduce are Produce in two halves, for several in flight.
func (c *Conn) SendProduce(topic string, partition int32, acks int16, batch []byte) error {
	return c.Send(produceRequest(topic, partition, acks, batch))
}

// ReceiveProduce waits for the oldest ack.
func (c *Conn) ReceiveProduce() (int64, error) {
	resp, err := c.Receive(produceRequest("", 0, 0, nil))
	if err != nil {
		return 0, err
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}

func produceRequest(topic string, partition int32, acks int16, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// Fetched is what a fetch came to.
type Fetched struct {
	Bytes         int64 // of records
	Next          int64 // offset after the last whole batch, or the asked one
	HighWatermark int64
}

// Fetch asks for one partition from an offset and drops the records; only batch headers are looked at.
func (c *Conn) Fetch(topic string, partition int32, offset int64, maxBytes int32, maxWait time.Duration) (Fetched, error) {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 11, int32(maxWait.Milliseconds()), 1, maxBytes
	req.SessionID, req.SessionEpoch = 0, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, maxBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	if err := c.Send(req); err != nil {
		return Fetched{}, err
	}
	return c.receiveFetch(offset)
}

// receiveFetch reads a version 11 response of one partition without buffering the records.
func (c *Conn) receiveFetch(offset int64) (Fetched, error) {
	out := Fetched{Next: offset}
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return out, err
	}
	left := int64(binary.BigEndian.Uint32(head[:]))
	take := func(n int64) ([]byte, error) {
		if n > left || n > int64(c.r.Size()) {
			return nil, fmt.Errorf("rawkafka: %d bytes wanted of %d", n, left)
		}
		b, err := c.r.Peek(int(n))
		if err != nil {
			return nil, err
		}
		left -= n
		_, err = c.r.Discard(int(n))
		return b, err
	}
	// correlation, throttle, error, session, topic count
	b, err := take(4 + 4 + 2 + 4 + 4)
	if err != nil {
		return out, err
	}
	if err := kerr.ErrorForCode(int16(binary.BigEndian.Uint16(b[8:]))); err != nil {
		return out, err
	}
	if topics := binary.BigEndian.Uint32(b[14:]); topics != 1 {
		return out, fmt.Errorf("rawkafka: %d topics in a response for one", topics)
	}
	if b, err = take(2); err != nil {
		return out, err
	}
	if _, err = take(int64(binary.BigEndian.Uint16(b))); err != nil {
		return out, err
	}
	// partition count, index, error, high watermark, last stable, log start, aborted count, preferred replica, records size
	if b, err = take(4 + 4 + 2 + 8 + 8 + 8 + 4 + 4 + 4); err != nil {
		return out, err
	}
	if err := kerr.ErrorForCode(int16(binary.BigEndian.Uint16(b[8:]))); err != nil {
		return out, err
	}
	out.HighWatermark = int64(binary.BigEndian.Uint64(b[10:]))
	out.Bytes = int64(int32(binary.BigEndian.Uint32(b[42:])))
	for rest := out.Bytes; rest > 0; {
		if rest < batchHeader {
			return out, c.discard(&left, rest)
		}
		if b, err = take(batchHeader); err != nil {
			return out, err
		}
		size := int64(binary.BigEndian.Uint32(b[8:])) + 12
		next := int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:])) + 1
		rest -= batchHeader
		if size-batchHeader > rest {
			return out, c.discard(&left, rest) // a torn last batch: asked for again
		}
		if err := c.discard(&left, size-batchHeader); err != nil {
			return out, err
		}
		rest -= size - batchHeader
		out.Next = max(out.Next, next)
	}
	return out, c.discard(&left, left)
}

func (c *Conn) discard(left *int64, n int64) error {
	*left -= n
	_, err := c.r.Discard(int(n))
	return err
}

const batchHeader = 61

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch builds an uncompressed batch of n records with values of size bytes, without producer id, stamped ms.
func Batch(n, size int, ms int64) []byte {
	value := make([]byte, size)
	for i := range value {
		value[i] = byte('a' + i%26)
	}
	b := make([]byte, batchHeader)
	for i := range n {
		body := []byte{0, 0}
		body = binary.AppendVarint(body, int64(i))
		body = binary.AppendVarint(body, -1)
		body = binary.AppendVarint(body, int64(size))
		body = append(body, value...)
		body = append(body, 0)
		b = binary.AppendVarint(b, int64(len(body)))
		b = append(b, body...)
	}
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0xffffffff)
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	be.PutUint64(b[27:], uint64(ms))
	be.PutUint64(b[35:], uint64(ms))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], 0xffff)
	be.PutUint32(b[53:], 0xffffffff)
	be.PutUint32(b[57:], uint32(n))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}
