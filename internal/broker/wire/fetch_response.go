package wire

import (
	"encoding/binary"
	"math"
)

// FetchResponse is a Fetch response v4 to v18 without its record bytes: those are Payloads.
type FetchResponse struct {
	ThrottleMs int32
	ErrorCode  int16 // v7+
	SessionID  int32 // v7+
	Topics     []FetchedTopic
}

// FetchedTopic is a run of partitions of one topic.
type FetchedTopic struct {
	Name       string   // v4-v12
	ID         [16]byte // v13+
	Partitions []FetchedPartition
}

// FetchedPartition is the answer for one partition.
type FetchedPartition struct {
	Partition        int32
	ErrorCode        int16
	HighWatermark    int64
	LastStableOffset int64
	LogStartOffset   int64 // v5+
	// Aborted is sent as null when nil and as an array otherwise: null for read_uncommitted, not null for read_committed.
	Aborted []AbortedTxn
	// DivergingEpoch (v12+) is sent when its Epoch is not negative.
	DivergingEpoch     int32
	DivergingEndOffset int64
	// Records is nil for none: sent as empty, never as null, which old clients do not expect.
	Records Payload
}

// AbortedTxn is one entry of a partition's aborted transactions.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// MaxPayloadBytes keeps a whole response below the int32 of its length prefix.
const MaxPayloadBytes = math.MaxInt32 - 64<<20

// AppendFetch appends a whole response frame (length prefix, header, body) to buf, and to splits the places where record
// bytes go. The length prefix counts them. buf must be empty: splits count from its start. Nothing is allocated when
// both slices have room. The sum of the payloads must stay below MaxPayloadBytes.
// Source: FetchResponse.json of Kafka 4.4; kmsg's encoder is the oracle in the tests.
func AppendFetch(buf []byte, splits []Split, version int16, correlationID int32, resp *FetchResponse) ([]byte, []Split) {
	flexible := version >= 12
	b := append(buf, 0, 0, 0, 0)
	b = be32(b, correlationID)
	if flexible {
		b = append(b, 0) // response header v1: no tags
	}
	b = be32(b, resp.ThrottleMs)
	if version >= 7 {
		b = be16(b, resp.ErrorCode)
		b = be32(b, resp.SessionID)
	}
	payload := int64(0)
	b = arrayLen(b, flexible, len(resp.Topics))
	for i := range resp.Topics {
		t := &resp.Topics[i]
		b = appendTopic(b, version, flexible, t.Name, t.ID)
		b = arrayLen(b, flexible, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			b = appendFetchedPartition(b, version, flexible, p)
			if p.Records != nil {
				payload += p.Records.Len()
				splits = append(splits, Split{At: len(b), Payload: p.Records})
			}
			if flexible {
				b = appendDiverging(b, p)
			}
		}
		if flexible {
			b = append(b, 0)
		}
	}
	if flexible {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[len(buf):], uint32(int64(len(b)-len(buf)-4)+payload))
	return b, splits
}

// appendFetchedPartition ends with the length prefix of the records.
func appendFetchedPartition(b []byte, version int16, flexible bool, p *FetchedPartition) []byte {
	b = be32(b, p.Partition)
	b = be16(b, p.ErrorCode)
	b = be64(b, p.HighWatermark)
	b = be64(b, p.LastStableOffset)
	if version >= 5 {
		b = be64(b, p.LogStartOffset)
	}
	switch {
	case p.Aborted != nil:
		b = arrayLen(b, flexible, len(p.Aborted))
		for _, a := range p.Aborted {
			b = be64(b, a.ProducerID)
			b = be64(b, a.FirstOffset)
			if flexible {
				b = append(b, 0)
			}
		}
	case flexible:
		b = append(b, 0)
	default:
		b = be32(b, -1)
	}
	if version >= 11 {
		b = be32(b, -1) // no preferred read replica
	}
	n := int64(0)
	if p.Records != nil {
		n = p.Records.Len()
	}
	if flexible {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return be32(b, int32(n))
}

// appendDiverging writes the tag section of a partition.
func appendDiverging(b []byte, p *FetchedPartition) []byte {
	if p.DivergingEpoch < 0 {
		return append(b, 0)
	}
	b = append(b, 1, 0, 13) // one tag, number 0, 13 bytes
	b = be32(b, p.DivergingEpoch)
	b = be64(b, p.DivergingEndOffset)
	return append(b, 0)
}

func appendTopic(b []byte, version int16, flexible bool, name string, id [16]byte) []byte {
	if version >= 13 {
		return append(b, id[:]...)
	}
	return appendString(b, flexible, name)
}

func appendString(b []byte, flexible bool, s string) []byte {
	if flexible {
		b = binary.AppendUvarint(b, uint64(len(s))+1)
	} else {
		b = be16(b, int16(len(s)))
	}
	return append(b, s...)
}

func arrayLen(b []byte, flexible bool, n int) []byte {
	if flexible {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return be32(b, int32(n))
}

func be16(b []byte, v int16) []byte { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func be32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func be64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }
