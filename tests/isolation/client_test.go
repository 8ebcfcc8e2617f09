package isolation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	batchRecords = 64
	valueBytes   = 1 << 10
	headerBytes  = 61
	callTimeout  = 30 * time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newBatch is a v2 batch of batchRecords records of valueBytes random bytes, ready to be sent any number of times.
func newBatch(seed uint64, stampMs int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	b := make([]byte, headerBytes)
	value := make([]byte, valueBytes)
	for i := range batchRecords {
		_, _ = random.Read(value)
		rec := []byte{0}                         // attributes
		rec = binary.AppendVarint(rec, 0)        // timestamp delta
		rec = binary.AppendVarint(rec, int64(i)) // offset delta
		rec = binary.AppendVarint(rec, -1)       // no key
		rec = binary.AppendVarint(rec, valueBytes)
		rec = append(rec, value...)
		rec = binary.AppendVarint(rec, 0) // no headers
		b = binary.AppendVarint(b, int64(len(rec)))
		b = append(b, rec...)
	}
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0) // leader epoch
	b[16] = 2
	be.PutUint32(b[23:], batchRecords-1)
	be.PutUint64(b[43:], ^uint64(0)) // no producer id
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], batchRecords)
	stamp(b, stampMs)
	return b
}

// stamp sets a batch's timestamps.
func stamp(b []byte, ms int64) {
	binary.BigEndian.PutUint64(b[27:], uint64(ms))
	binary.BigEndian.PutUint64(b[35:], uint64(ms))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}

// conn is a raw client: one connection, requests in, responses out in order, one buffer for all responses.
type conn struct {
	nc     net.Conn
	format *kmsg.RequestFormatter
	out    []byte
	in     []byte
	corr   int32
}

func dial(t testing.TB, addr, clientID string) *conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{nc: nc, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
	t.Cleanup(func() { _ = nc.Close() })
	return c
}

func (c *conn) send(r kmsg.Request) error {
	c.corr++
	c.out = c.format.AppendRequest(c.out[:0], r, c.corr)
	if err := c.nc.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(c.out)
	return err
}

// receive reads one response; its slices alias the connection's buffer until the next one.
func (c *conn) receive(r kmsg.Response) error {
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if n > cap(c.in) {
		c.in = make([]byte, n+n/4)
	}
	body := c.in[:n]
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return err
	}
	skip := 4 // correlation id
	if r.IsFlexible() {
		skip++ // no tags
	}
	if len(body) < skip {
		return errors.New("short response")
	}
	return r.ReadFrom(body[skip:])
}

// batchOf is one batch on its way to a partition.
type batchOf struct {
	partition int32
	records   []byte
}

func (c *conn) sendProduce(topic string, acks int16, batches []batchOf) error {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, acks, int32(callTimeout.Milliseconds())
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	for _, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = b.partition, b.records
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return c.send(req)
}

// receiveProduce calls fn with the base offset that each partition's batch was given.
func (c *conn) receiveProduce(fn func(partition int32, base int64)) error {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = 9
	if err := c.receive(resp); err != nil {
		return err
	}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return fmt.Errorf("produce to %s/%d: %w", rt.Topic, rp.Partition, err)
			}
			fn(rp.Partition, rp.BaseOffset)
		}
	}
	return nil
}

// want is one partition of a fetch.
type want struct {
	topic     string
	partition int32
	offset    int64
	maxBytes  int32
}

// fetch asks and calls fn for each partition that came with records.
func (c *conn) fetch(maxWait time.Duration, wants []want, fn func(topic string, partition int32, records []byte) error) error {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 12, int32(maxWait.Milliseconds()), 1, 50<<20
	req.SessionEpoch = -1
	for _, w := range wants {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != w.topic {
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic = w.topic
			req.Topics = append(req.Topics, rt)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = w.partition, w.offset, w.maxBytes
		rt := &req.Topics[len(req.Topics)-1]
		rt.Partitions = append(rt.Partitions, rp)
	}
	if err := c.send(req); err != nil {
		return err
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 12
	if err := c.receive(resp); err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return fmt.Errorf("fetch of %s/%d: %w", rt.Topic, rp.Partition, err)
			}
			if len(rp.RecordBatches) == 0 {
				continue
			}
			if err := fn(rt.Topic, rp.Partition, rp.RecordBatches); err != nil {
				return err
			}
		}
	}
	return nil
}

// walk checks that whole batches follow each other from offset next on, and returns the offset after them. A run may begin
// before next, inside the first batch.
func walk(records []byte, next int64) (int64, error) {
	for first := true; len(records) > 0; first = false {
		if len(records) < headerBytes {
			return next, fmt.Errorf("%d bytes after offset %d are no batch", len(records), next)
		}
		base := int64(binary.BigEndian.Uint64(records))
		size := 12 + int(binary.BigEndian.Uint32(records[8:]))
		last := base + int64(binary.BigEndian.Uint32(records[23:]))
		if size > len(records) || last < next || base != next && !(first && base < next) {
			return next, fmt.Errorf("batch [%d, %d] of %d bytes (of %d) where offset %d was due", base, last, size, len(records), next)
		}
		next, records = last+1, records[size:]
	}
	return next, nil
}
