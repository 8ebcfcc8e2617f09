package groups

import (
	"encoding/binary"
	"fmt"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/statetopic"
)

// Versions of keys. An offset's key is the same in versions 0 and 1; those above 2 are in format_consumer.go, or of share and streams groups.
const (
	keyOffsetOld = 0
	keyOffset    = 1
	keyGroup     = 2

	// Values are written in the versions that every tool reads: 4 of both is Kafka's newest, with tagged fields.
	valueOffset       = 3
	valueOffsetExpiry = 1 // the only one that holds an expiry
	valueGroup        = 3
	newestValue       = 4
)

// maxName is how long a name in these records may be: its length has 16 bits, and negative ones are null.
const maxName = 1<<15 - 1

// topicPartition names what an offset is of.
type topicPartition struct {
	topic     string
	partition int32
}

// offsetValue is one committed offset.
type offsetValue struct {
	offset      int64
	leaderEpoch int32 // -1 not known
	metadata    string
	committed   int64 // ms
	expires     int64 // ms, -1: by the retention of the broker
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendNullable writes "" as null.
func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, 0xff, 0xff)
	}
	return appendString(b, s)
}

func appendBytes(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}

func appendOffsetKey(b []byte, group string, tp topicPartition) []byte {
	b = binary.BigEndian.AppendUint16(b, keyOffset)
	b = appendString(appendString(b, group), tp.topic)
	return binary.BigEndian.AppendUint32(b, uint32(tp.partition))
}

func appendOffsetValue(b []byte, v offsetValue) []byte {
	be := binary.BigEndian
	if v.expires >= 0 {
		b = be.AppendUint64(be.AppendUint16(b, valueOffsetExpiry), uint64(v.offset))
		b = appendString(b, v.metadata)
		return be.AppendUint64(be.AppendUint64(b, uint64(v.committed)), uint64(v.expires))
	}
	b = be.AppendUint64(be.AppendUint16(b, valueOffset), uint64(v.offset))
	b = appendString(be.AppendUint32(b, uint32(v.leaderEpoch)), v.metadata)
	return be.AppendUint64(b, uint64(v.committed))
}

func appendGroupKey(b []byte, group string) []byte {
	return appendString(binary.BigEndian.AppendUint16(b, keyGroup), group)
}

func appendGroupValue(b []byte, m classic.Metadata) []byte {
	be := binary.BigEndian
	b = appendString(be.AppendUint16(b, valueGroup), m.ProtocolType)
	b = be.AppendUint32(b, uint32(m.Generation))
	b = appendNullable(appendNullable(b, m.Protocol), m.Leader)
	since := int64(-1)
	if !m.Since.IsZero() {
		since = m.Since.UnixMilli()
	}
	b = be.AppendUint64(b, uint64(since))
	b = be.AppendUint32(b, uint32(len(m.Members)))
	for _, s := range m.Members {
		b = appendNullable(appendString(b, s.ID), s.InstanceID)
		b = appendString(appendString(b, s.ClientID), s.Host)
		b = be.AppendUint32(be.AppendUint32(b, uint32(s.Rebalance.Milliseconds())), uint32(s.Session.Milliseconds()))
		b = appendBytes(appendBytes(b, s.Subscription), s.Assignment)
	}
	return b
}

// key is a decoded record key.
type key struct {
	group    string
	offset   bool // else of the group itself
	tp       topicPartition
	consumer *consumer.Record // of the consumer protocol: the record without its value
	unused   bool             // of no use any more
}

func readKey(b []byte) (key, error) {
	d := decode(b)
	k := key{}
	switch version := d.Int16(); {
	case d.Bad:
	case version == keyOffsetOld || version == keyOffset:
		k = key{group: d.String(), offset: true}
		k.tp = topicPartition{d.String(), d.Int32()}
	case version == keyGroup:
		k = key{group: d.String()}
	default:
		var ok bool
		if k, ok = d.consumerKey(version); !ok {
			return k, fmt.Errorf("%w: key version %d", statetopic.ErrForeign, version)
		}
	}
	return k, d.End("key")
}

func readOffsetValue(b []byte) (offsetValue, error) {
	d := decode(b)
	version := d.Int16()
	if version < 0 || version > newestValue {
		return offsetValue{}, fmt.Errorf("%w: offset value version %d", statetopic.ErrForeign, version)
	}
	d.Flexible = version >= 4
	v := offsetValue{offset: d.Int64(), leaderEpoch: -1, expires: -1}
	if version >= 3 {
		v.leaderEpoch = d.Int32()
	}
	v.metadata, v.committed = d.String(), d.Int64()
	if version == 1 {
		v.expires = d.Int64()
	}
	d.Tags(nil)
	return v, d.End("offset")
}

func readGroupValue(b []byte) (classic.Metadata, error) {
	d := decode(b)
	version := d.Int16()
	if version < 0 || version > newestValue {
		return classic.Metadata{}, fmt.Errorf("%w: group value version %d", statetopic.ErrForeign, version)
	}
	d.Flexible = version >= 4
	m := classic.Metadata{ProtocolType: d.String(), Generation: d.Int32(), Protocol: d.String(), Leader: d.String()}
	if version >= 2 {
		if ms := d.Int64(); ms >= 0 {
			m.Since = time.UnixMilli(ms)
		}
	}
	for n := d.Count(); n > 0 && !d.Bad; n-- {
		s := classic.StoredMember{ID: d.String()}
		if version >= 3 {
			s.InstanceID = d.String()
		}
		s.ClientID, s.Host = d.String(), d.String()
		rebalance := int32(-1)
		if version >= 1 {
			rebalance = d.Int32()
		}
		session := d.Int32()
		if rebalance < 0 {
			rebalance = session
		}
		s.Rebalance, s.Session = time.Duration(rebalance)*time.Millisecond, time.Duration(session)*time.Millisecond
		s.Subscription, s.Assignment = d.Bytes(), d.Bytes()
		d.Tags(nil)
		m.Members = append(m.Members, s)
	}
	d.Tags(nil)
	return m, d.End("group")
}

// decoder reads the fields of both protocols.
type decoder struct{ statetopic.Decoder }

func decode(b []byte) decoder { return decoder{statetopic.Decode(b)} }
