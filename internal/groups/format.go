package groups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
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

var (
	errFormat = errors.New("groups: malformed record")
	// errForeign: a record of a kind or version that this release does not know. It is kept.
	errForeign = errors.New("groups: record of another kind")
)

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
	d := decoder{b: b}
	k := key{}
	switch version := d.int16(); {
	case d.bad:
	case version == keyOffsetOld || version == keyOffset:
		k = key{group: d.string(), offset: true}
		k.tp = topicPartition{d.string(), d.int32()}
	case version == keyGroup:
		k = key{group: d.string()}
	default:
		var ok bool
		if k, ok = d.consumerKey(version); !ok {
			return k, fmt.Errorf("%w: key version %d", errForeign, version)
		}
	}
	return k, d.end("key")
}

func readOffsetValue(b []byte) (offsetValue, error) {
	d := decoder{b: b}
	version := d.int16()
	if version < 0 || version > newestValue {
		return offsetValue{}, fmt.Errorf("%w: offset value version %d", errForeign, version)
	}
	d.flexible = version >= 4
	v := offsetValue{offset: d.int64(), leaderEpoch: -1, expires: -1}
	if version >= 3 {
		v.leaderEpoch = d.int32()
	}
	v.metadata, v.committed = d.string(), d.int64()
	if version == 1 {
		v.expires = d.int64()
	}
	d.tags()
	return v, d.end("offset")
}

func readGroupValue(b []byte) (classic.Metadata, error) {
	d := decoder{b: b}
	version := d.int16()
	if version < 0 || version > newestValue {
		return classic.Metadata{}, fmt.Errorf("%w: group value version %d", errForeign, version)
	}
	d.flexible = version >= 4
	m := classic.Metadata{ProtocolType: d.string(), Generation: d.int32(), Protocol: d.string(), Leader: d.string()}
	if version >= 2 {
		if ms := d.int64(); ms >= 0 {
			m.Since = time.UnixMilli(ms)
		}
	}
	for n := d.count(); n > 0 && !d.bad; n-- {
		s := classic.StoredMember{ID: d.string()}
		if version >= 3 {
			s.InstanceID = d.string()
		}
		s.ClientID, s.Host = d.string(), d.string()
		rebalance := int32(-1)
		if version >= 1 {
			rebalance = d.int32()
		}
		session := d.int32()
		if rebalance < 0 {
			rebalance = session
		}
		s.Rebalance, s.Session = time.Duration(rebalance)*time.Millisecond, time.Duration(session)*time.Millisecond
		s.Subscription, s.Assignment = d.bytes(), d.bytes()
		d.tags()
		m.Members = append(m.Members, s)
	}
	d.tags()
	return m, d.end("group")
}

// decoder reads fields and remembers whether one did not fit. Nothing is allocated by what a length claims. Null is "" or nil.
type decoder struct {
	b        []byte
	bad      bool
	flexible bool // compact lengths and tagged fields
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) int16() int16 {
	if b := d.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return -1
}

func (d *decoder) int32() int32 {
	if b := d.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return -1
}

func (d *decoder) int64() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return -1
}

func (d *decoder) uvarint() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<31 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *decoder) length(plain func() int) int {
	n := 0
	if d.flexible {
		n = d.uvarint() - 1
	} else {
		n = plain()
	}
	if n < -1 {
		d.bad = true
	}
	return max(n, 0)
}

func (d *decoder) string() string {
	return string(d.take(d.length(func() int { return int(d.int16()) })))
}

// bytes copies: records are decoded from buffers that are used again.
func (d *decoder) bytes() []byte {
	return append([]byte(nil), d.take(d.count())...)
}

func (d *decoder) count() int { return d.length(func() int { return int(d.int32()) }) }

func (d *decoder) tags() {
	if !d.flexible {
		return
	}
	d.eachTag(func(int, decoder) {})
}

// end checks that everything fitted; what follows the last field belongs to a newer minor format and is left alone, as in Kafka.
func (d *decoder) end(what string) error {
	if d.bad {
		return fmt.Errorf("%w: %s is cut off", errFormat, what)
	}
	return nil
}
