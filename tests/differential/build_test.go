package differential

import (
	"encoding/binary"
	"hash/crc32"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// firstMs is the time in every record: an hour or two ago, so that retention leaves them alone.
var firstMs = time.Now().Truncate(time.Hour).Add(-time.Hour).UnixMilli()

// entry is one record of a batch.
type entry struct {
	key, value []byte // nil: null
	ms         int64  // after firstMs
}

func batch(values ...string) []byte {
	var es []entry
	for i, v := range values {
		es = append(es, entry{value: []byte(v), ms: int64(i)})
	}
	return batchOf(es...)
}

// batchOf is one uncompressed v2 batch.
func batchOf(entries ...entry) []byte {
	var records []byte
	var last int64
	put := func(r, b []byte) []byte {
		if b == nil {
			return binary.AppendVarint(r, -1)
		}
		return append(binary.AppendVarint(r, int64(len(b))), b...)
	}
	for i, e := range entries {
		r := []byte{0} // attributes
		r = binary.AppendVarint(r, e.ms-entries[0].ms)
		r = binary.AppendVarint(r, int64(i))
		r = put(put(r, e.key), e.value)
		r = append(r, 0) // no headers
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
		last = max(last, e.ms)
	}
	b := make([]byte, 61, 61+len(records))
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(len(entries)-1))
	binary.BigEndian.PutUint64(b[27:], uint64(firstMs+entries[0].ms))
	binary.BigEndian.PutUint64(b[35:], uint64(firstMs+last))
	for i := 43; i < 57; i++ { // no producer id, epoch, sequence
		b[i] = 0xff
	}
	binary.BigEndian.PutUint32(b[57:], uint32(len(entries)))
	return sealed(b)
}

// sealed sets the checksum.
func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// by gives a batch a producer.
func by(b []byte, producer int64, epoch int16, sequence int32) []byte {
	binary.BigEndian.PutUint64(b[43:], uint64(producer))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(sequence))
	return sealed(b)
}

// changed is a batch of two records after a change, sealed again.
func changed(fn func(b []byte)) []byte {
	b := batch("x", "y")
	fn(b)
	return sealed(b)
}

// text is a string that may be null.
func text(s string) *string { return &s }

// at is a topic and a partition.
type at struct {
	topic     string
	partition int32
}

// byTopic gives the partitions in runs of one topic.
func byTopic(list []at) iter.Seq2[string, []at] {
	return func(yield func(string, []at) bool) {
		for rest := list; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].topic == rest[0].topic {
				n++
			}
			if !yield(rest[0].topic, rest[:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// produce asks to append records to partitions.
func (x *exchange) produce(acks int16, records []byte, to ...at) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 5000
	for topic, partitions := range byTopic(to) {
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = topic, x.id(topic)
		for _, to := range partitions {
			rp := kmsg.NewProduceRequestTopicPartition()
			rp.Partition, rp.Records = to.partition, records
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// fetch asks for a partition from an offset on, without a session and without waiting.
func (x *exchange) fetch(offset int64, from ...at) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 0, 0, 1<<20
	req.SessionID, req.SessionEpoch = 0, -1
	req.ReplicaID = -1
	req.ReplicaState.ID = -1
	for topic, partitions := range byTopic(from) {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = topic, x.id(topic)
		for _, from := range partitions {
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = from.partition, offset, 1<<20
			rp.CurrentLeaderEpoch, rp.LogStartOffset = -1, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// offsets asks for the offset of a time.
func offsets(timestamp int64, of ...at) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for topic, partitions := range byTopic(of) {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for _, of := range partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = of.partition, timestamp
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}
