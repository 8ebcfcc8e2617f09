package groups

import (
	"encoding/binary"
	"fmt"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

// Versions of keys of groups of the consumer protocol (KIP-848); values are in version 0, which is flexible. Kafka 4.3 writes the same.
const (
	keyConsumerEpoch       = 3
	keyConsumerPartitions  = 4 // written up to Kafka 4.0, and read by nobody since
	keyConsumerMember      = 5
	keyConsumerTargetEpoch = 6
	keyConsumerTarget      = 7
	keyConsumerCurrent     = 8
	keyConsumerRegex       = 16
	valueConsumer          = 0
)

var consumerKeys = map[consumer.Kind]uint16{
	consumer.GroupEpoch: keyConsumerEpoch, consumer.MemberRecord: keyConsumerMember, consumer.TargetEpoch: keyConsumerTargetEpoch,
	consumer.TargetMember: keyConsumerTarget, consumer.CurrentMember: keyConsumerCurrent, consumer.RegularExpression: keyConsumerRegex,
}

// addConsumer puts a record of a group into the builder.
func (s *shard) addConsumer(group string, r consumer.Record) {
	key := appendString(binary.BigEndian.AppendUint16(nil, consumerKeys[r.Kind]), group)
	switch r.Kind {
	case consumer.MemberRecord, consumer.TargetMember, consumer.CurrentMember, consumer.RegularExpression:
		key = appendString(key, r.ID)
	}
	if r.Deleted {
		s.builder.Add(key, nil)
		return
	}
	s.builder.Add(key, appendConsumerValue(nil, r))
}

func appendConsumerValue(b []byte, r consumer.Record) []byte {
	be := binary.BigEndian
	b = be.AppendUint16(b, valueConsumer)
	switch r.Kind {
	case consumer.GroupEpoch:
		b = be.AppendUint32(b, uint32(r.Epoch))
		if r.Hash != 0 {
			return be.AppendUint64(append(b, 1, 0, 8), uint64(r.Hash)) // one tag: 0, 8 bytes
		}
	case consumer.TargetEpoch:
		b = be.AppendUint32(b, uint32(r.Epoch))
	case consumer.MemberRecord:
		m := r.Member
		b = appendCompactNullable(appendCompactNullable(b, m.InstanceID), m.RackID)
		b = appendCompact(appendCompact(b, m.ClientID), m.Host)
		b = appendCompactNullable(appendCompacts(b, m.Topics), m.Regex)
		b = appendCompactNullable(be.AppendUint32(b, uint32(m.Rebalance.Milliseconds())), m.Assignor)
		if m.Classic != nil {
			c := be.AppendUint32([]byte{1}, uint32(m.Classic.Session.Milliseconds())) // 1: not null
			c = binary.AppendUvarint(c, uint64(len(m.Classic.Protocols)+1))
			for _, p := range m.Classic.Protocols {
				c = append(appendCompact(appendCompact(c, p.Name), string(p.Metadata)), 0)
			}
			c = append(c, 0)
			b = binary.AppendUvarint(append(b, 1, 0), uint64(len(c)))
			return append(b, c...)
		}
	case consumer.TargetMember:
		b = appendPartitions(b, r.Assignment)
	case consumer.CurrentMember:
		c := r.Current
		b = append(be.AppendUint32(be.AppendUint32(b, uint32(c.Epoch)), uint32(c.Previous)), byte(c.State))
		b = appendPartitions(appendPartitions(b, c.Assigned), c.Revoking)
	case consumer.RegularExpression:
		b = be.AppendUint64(appendCompacts(b, r.Resolved.Topics), r.Resolved.Version)
		b = be.AppendUint64(b, uint64(r.Resolved.At.UnixMilli()))
	}
	return append(b, 0) // no tags
}

func appendCompact(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s)+1)), s...)
}

// appendCompactNullable writes "" as null.
func appendCompactNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, 0)
	}
	return appendCompact(b, s)
}

func appendCompacts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)+1))
	for _, s := range list {
		b = appendCompact(b, s)
	}
	return b
}

func appendPartitions(b []byte, a consumer.Assignment) []byte {
	b = binary.AppendUvarint(b, uint64(len(a)+1))
	for _, t := range a {
		b = binary.AppendUvarint(append(b, t.ID[:]...), uint64(len(t.Partitions)+1))
		for _, p := range t.Partitions {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
		b = append(b, 0)
	}
	return b
}

// consumerKey reads the rest of a key of the consumer protocol; ok is false for versions of other kinds.
func (d *decoder) consumerKey(version int16) (k key, ok bool) {
	k.group = d.string()
	r := &consumer.Record{}
	switch version {
	case keyConsumerEpoch:
		r.Kind = consumer.GroupEpoch
	case keyConsumerTargetEpoch:
		r.Kind = consumer.TargetEpoch
	case keyConsumerMember:
		r.Kind, r.ID = consumer.MemberRecord, d.string()
	case keyConsumerTarget:
		r.Kind, r.ID = consumer.TargetMember, d.string()
	case keyConsumerCurrent:
		r.Kind, r.ID = consumer.CurrentMember, d.string()
	case keyConsumerRegex:
		r.Kind, r.ID = consumer.RegularExpression, d.string()
	case keyConsumerPartitions:
		k.unused = true
		return k, true
	default:
		return k, false
	}
	k.consumer = r
	return k, true
}

// readConsumerValue reads the value of a record whose key was read.
func readConsumerValue(r consumer.Record, b []byte) (consumer.Record, error) {
	if b == nil {
		r.Deleted = true
		return r, nil
	}
	d := decoder{b: b, flexible: true}
	if version := d.int16(); version != valueConsumer {
		return r, fmt.Errorf("%w: value version %d of a consumer group", errForeign, version)
	}
	switch r.Kind {
	case consumer.GroupEpoch:
		r.Epoch = d.int32()
		d.eachTag(func(tag int, v decoder) {
			if tag == 0 {
				r.Hash = v.int64()
			}
		})
	case consumer.TargetEpoch:
		r.Epoch = d.int32()
		d.tags()
	case consumer.MemberRecord:
		m := &consumer.Member{ID: r.ID, InstanceID: d.string(), RackID: d.string(), ClientID: d.string(), Host: d.string(), Topics: d.strings(), Regex: d.string()}
		m.Rebalance, m.Assignor = max(time.Duration(d.int32())*time.Millisecond, 0), d.string()
		d.eachTag(func(tag int, v decoder) {
			if tag == 0 {
				m.Classic = v.classicMember()
				d.bad = d.bad || v.bad || m.Classic != nil && len(m.Classic.Protocols) == 0
			}
		})
		r.Member = m
	case consumer.TargetMember:
		r.Assignment = d.partitions()
		d.tags()
	case consumer.CurrentMember:
		c := &consumer.Current{Epoch: d.int32(), Previous: d.int32(), State: consumer.MemberState(d.byte())}
		c.Assigned, c.Revoking = d.partitions(), d.partitions()
		d.tags()
		if c.State < consumer.Stable || c.State > consumer.UnreleasedPartitions {
			c.State = consumer.UnreleasedPartitions // of a newer release: the next heartbeat sorts it out
		}
		r.Current = c
	case consumer.RegularExpression:
		r.Resolved = &consumer.Resolved{Topics: d.strings()}
		d.int64() // the version, of another process: it is matched again
		r.Resolved.At = time.UnixMilli(d.int64())
		d.tags()
	}
	return r, d.end("consumer group")
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) strings() (out []string) {
	for n := d.count(); n > 0 && !d.bad; n-- {
		out = append(out, d.string())
	}
	return out
}

func (d *decoder) partitions() consumer.Assignment {
	var list []consumer.TopicPartitions
	for n := d.count(); n > 0 && !d.bad; n-- {
		t := consumer.TopicPartitions{}
		copy(t.ID[:], d.take(len(t.ID)))
		for p := d.count(); p > 0 && !d.bad; p-- {
			t.Partitions = append(t.Partitions, d.int32())
		}
		d.tags()
		list = append(list, t)
	}
	return consumer.Normalize(list)
}

func (d *decoder) classicMember() *consumer.ClassicMember {
	if int8(d.byte()) < 0 {
		return nil
	}
	c := &consumer.ClassicMember{Session: max(time.Duration(d.int32())*time.Millisecond, 0)}
	for n := d.count(); n > 0 && !d.bad; n-- {
		p := classic.Protocol{Name: d.string(), Metadata: d.bytes()}
		d.tags()
		c.Protocols = append(c.Protocols, p)
	}
	d.tags()
	return c
}

// eachTag reads tagged fields.
func (d *decoder) eachTag(fn func(tag int, value decoder)) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		tag := d.uvarint()
		fn(tag, decoder{b: d.take(d.uvarint()), flexible: true})
	}
}
