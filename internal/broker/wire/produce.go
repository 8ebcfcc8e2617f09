package wire

import (
	"encoding/binary"
	"fmt"
)

// maxProduceEntries bounds topics and partitions of one Produce request together. A body may be 100 MiB, and empty
// topics would decode to 20 times that.
const maxProduceEntries = 1 << 16

// ProduceRequest is a Produce request v0 to v13.
type ProduceRequest struct {
	TransactionalID []byte // aliases the request; nil when null
	Acks            int16
	TimeoutMs       int32
	Topics          []ProduceTopic
	Partitions      []ProducePartition // of all topics, in the order of Topics
}

// ProduceTopic names a topic and how many of the partitions are its.
type ProduceTopic struct {
	Name       string   // v0-v12; aliases the request
	ID         [16]byte // v13+
	Partitions int
}

// ProducePartition is one partition's records. They alias the request and may be patched in place.
type ProducePartition struct {
	Partition int32
	Records   []byte // nil when null
}

// Read decodes body (what follows the request header with its tags) and reuses the slices of p. Record bytes are not
// copied. Errors: ErrMalformed, ErrTooMany.
func (p *ProduceRequest) Read(version int16, body []byte) error {
	*p = ProduceRequest{Topics: p.Topics[:0], Partitions: p.Partitions[:0]}
	flexible := version >= 9
	r := NewReader(body)
	if version >= 3 {
		p.TransactionalID = r.StringOrNull(flexible)
	}
	p.Acks, p.TimeoutMs = r.Int16(), r.Int32()
	for range r.Count(flexible, 3) {
		name, id := readTopicName(&r, version, flexible)
		first := len(p.Partitions)
		for range r.Count(flexible, 5) {
			part := ProducePartition{Partition: r.Int32(), Records: r.BytesOrNull(flexible)}
			if flexible {
				r.SkipTags()
			}
			if r.bad {
				break
			}
			p.Partitions = append(p.Partitions, part)
			if len(p.Topics)+len(p.Partitions) > maxProduceEntries {
				return fmt.Errorf("%w: Produce with more than %d topics and partitions", ErrTooMany, maxProduceEntries)
			}
		}
		if flexible {
			r.SkipTags()
		}
		if r.bad {
			break
		}
		p.Topics = append(p.Topics, ProduceTopic{Name: name, ID: id, Partitions: len(p.Partitions) - first})
		if len(p.Topics)+len(p.Partitions) > maxProduceEntries {
			return fmt.Errorf("%w: Produce with more than %d topics and partitions", ErrTooMany, maxProduceEntries)
		}
	}
	if flexible {
		r.SkipTags()
	}
	return r.Err("Produce")
}

// ProduceResponse is a Produce response v0 to v13.
type ProduceResponse struct {
	Topics     []ProducedTopic
	Partitions []ProducedPartition // of all topics, in the order of Topics
	ThrottleMs int32               // v1+
}

// ProducedTopic names a topic and how many of the partitions are its.
type ProducedTopic struct {
	Name       string
	ID         [16]byte
	Partitions int
}

// ProducedPartition is one partition's answer.
type ProducedPartition struct {
	Partition       int32
	ErrorCode       int16
	BaseOffset      int64  // -1 with an error
	LogAppendTimeMs int64  // v2+; -1 with CreateTime
	LogStartOffset  int64  // v5+; -1 with an error
	ErrorMessage    string // v8+; "" is sent as null
	RecordErrors    []RecordError
}

// RecordError says what is wrong with one record of a refused batch (KIP-467); sent from v8 on.
type RecordError struct {
	BatchIndex int32 // of the record in its batch
	Message    string
}

// AppendProduce appends a whole response frame (length prefix, header, body) to buf.
// Source: ProduceResponse.json of Kafka 4.4; kmsg's encoder is the oracle in the tests.
func AppendProduce(buf []byte, version int16, correlationID int32, resp *ProduceResponse) []byte {
	flexible := version >= 9
	b := append(buf, 0, 0, 0, 0)
	b = be32(b, correlationID)
	if flexible {
		b = append(b, 0)
	}
	b = arrayLen(b, flexible, len(resp.Topics))
	rest := resp.Partitions
	for i := range resp.Topics {
		t := &resp.Topics[i]
		b = appendTopic(b, version, flexible, t.Name, t.ID)
		b = arrayLen(b, flexible, t.Partitions)
		for j := range rest[:t.Partitions] {
			b = appendProducedPartition(b, version, flexible, &rest[j])
		}
		rest = rest[t.Partitions:]
		if flexible {
			b = append(b, 0)
		}
	}
	if version >= 1 {
		b = be32(b, resp.ThrottleMs)
	}
	if flexible {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[len(buf):], uint32(len(b)-len(buf)-4))
	return b
}

func appendProducedPartition(b []byte, version int16, flexible bool, p *ProducedPartition) []byte {
	b = be32(b, p.Partition)
	b = be16(b, p.ErrorCode)
	b = be64(b, p.BaseOffset)
	if version >= 2 {
		b = be64(b, p.LogAppendTimeMs)
	}
	if version >= 5 {
		b = be64(b, p.LogStartOffset)
	}
	if version >= 8 {
		b = arrayLen(b, flexible, len(p.RecordErrors))
		for _, e := range p.RecordErrors {
			b = be32(b, e.BatchIndex)
			b = appendString(b, flexible, e.Message)
			if flexible {
				b = append(b, 0)
			}
		}
		switch {
		case p.ErrorMessage != "":
			b = appendString(b, flexible, p.ErrorMessage)
		case flexible:
			b = append(b, 0)
		default:
			b = be16(b, -1)
		}
	}
	if flexible {
		b = append(b, 0)
	}
	return b
}
