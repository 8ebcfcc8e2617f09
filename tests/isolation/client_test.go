package isolation

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/rawkafka"
)

const (
	batchRecords = 64
	valueBytes   = 1 << 10
	callTimeout  = 30 * time.Second
)

// newBatch is a batch of batchRecords records of valueBytes random bytes, ready to be sent any number of times.
func newBatch(seed uint64, stampMs int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	return rawkafka.RandomBatch(batchRecords, valueBytes, stampMs, func(_ int, value []byte) { _, _ = random.Read(value) })
}

// conn is a connection that asks for several partitions at a time.
type conn struct{ *rawkafka.Conn }

func dial(t testing.TB, addr, clientID string) conn {
	t.Helper()
	c, err := rawkafka.Dial(addr, clientID)
	if err != nil {
		t.Fatal(err)
	}
	c.Patience = callTimeout
	t.Cleanup(func() { _ = c.Close() })
	return conn{c}
}

// batchOf is one batch on its way to a partition.
type batchOf struct {
	partition int32
	records   []byte
}

func produceRequest() *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.TimeoutMillis = 9, int32(callTimeout.Milliseconds())
	return req
}

func (c conn) sendProduce(topic string, acks int16, batches []batchOf) error {
	req := produceRequest()
	req.Acks = acks
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	for _, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = b.partition, b.records
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return c.Send(req)
}

// receiveProduce calls fn with the base offset that each partition's batch was given.
func (c conn) receiveProduce(fn func(partition int32, base int64)) error {
	resp, err := c.Receive(produceRequest())
	if err != nil {
		return err
	}
	for _, rt := range resp.(*kmsg.ProduceResponse).Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return fmt.Errorf("produce to %s/%d: %w", rt.Topic, rp.Partition, err)
			}
			fn(rp.Partition, rp.BaseOffset)
		}
	}
	return nil
}

// fetch asks and calls fn for each partition that came with records: whole batches, one behind the other from the asked offset on.
func (c conn) fetch(maxWait time.Duration, wants []rawkafka.Want, fn func(f *rawkafka.Fetched)) error {
	return c.Fetch(rawkafka.FetchRequest{Wants: wants, MaxWait: maxWait}, func(f *rawkafka.Fetched) error {
		switch {
		case f.Err != nil:
			return fmt.Errorf("fetch of %s/%d: %w", f.Topic, f.Partition, f.Err)
		case f.Whole != f.Bytes || f.Gaps > 0:
			return fmt.Errorf("fetch of %s/%d up to offset %d: %d of %d bytes are whole batches, %d are not where they were due",
				f.Topic, f.Partition, f.Next, f.Whole, f.Bytes, f.Gaps)
		case f.Bytes > 0:
			fn(f)
		}
		return nil
	})
}

// want is one partition of a fetch.
func want(topic string, partition int, offset int64, maxBytes int32) rawkafka.Want {
	return rawkafka.Want{Topic: topic, Partition: int32(partition), Offset: offset, MaxBytes: maxBytes}
}
