package groups

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/statetopic"
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
		if t.Epochs == nil {
			b = append(b, 0)
			continue
		}
		size := binary.AppendUvarint(nil, uint64(len(t.Epochs)+1))
		b = binary.AppendUvarint(append(b, 1, 0), uint64(len(size)+4*len(t.Epochs))) // one tag: 0
		b = append(b, size...)
		for _, e := range t.Epochs {
			b = binary.BigEndian.AppendUint32(b, uint32(e))
		}
	}
	return b
}

// consumerKey reads the rest of a key of the consumer protocol; ok is false for versions of other kinds.
func (d *decoder) consumerKey(version int16) (k key, ok bool) {
	k.group = d.String()
	r := &consumer.Record{}
	switch version {
	case keyConsumerEpoch:
		r.Kind = consumer.GroupEpoch
	case keyConsumerTargetEpoch:
		r.Kind = consumer.TargetEpoch
	case keyConsumerMember:
		r.Kind, r.ID = consumer.MemberRecord, d.String()
	case keyConsumerTarget:
		r.Kind, r.ID = consumer.TargetMember, d.String()
	case keyConsumerCurrent:
		r.Kind, r.ID = consumer.CurrentMember, d.String()
	case keyConsumerRegex:
		r.Kind, r.ID = consumer.RegularExpression, d.String()
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
	d := decode(b)
	d.Flexible = true
	if version := d.Int16(); version != valueConsumer {
		return r, fmt.Errorf("%w: value version %d of a consumer group", statetopic.ErrForeign, version)
	}
	switch r.Kind {
	case consumer.GroupEpoch:
		r.Epoch = d.Int32()
		d.Tags(func(tag int, v statetopic.Decoder) {
			if tag == 0 {
				r.Hash = v.Int64()
			}
		})
	case consumer.TargetEpoch:
		r.Epoch = d.Int32()
		d.Tags(nil)
	case consumer.MemberRecord:
		m := &consumer.Member{ID: r.ID, InstanceID: d.String(), RackID: d.String(), ClientID: d.String(), Host: d.String(), Topics: d.strings(), Regex: d.String()}
		m.Rebalance, m.Assignor = max(time.Duration(d.Int32())*time.Millisecond, 0), d.String()
		d.Tags(func(tag int, v statetopic.Decoder) {
			if tag == 0 {
				member := decoder{v}
				m.Classic = member.classicMember()
				d.Bad = d.Bad || member.Bad || m.Classic != nil && len(m.Classic.Protocols) == 0
			}
		})
		r.Member = m
	case consumer.TargetMember:
		r.Assignment = d.partitions()
		d.Tags(nil)
	case consumer.CurrentMember:
		c := &consumer.Current{Epoch: d.Int32(), Previous: d.Int32(), State: consumer.MemberState(d.Int8())}
		c.Assigned, c.Revoking = d.assigned(c.Epoch), d.assigned(c.Epoch)
		d.Tags(nil)
		if c.State < consumer.Stable || c.State > consumer.UnreleasedPartitions {
			c.State = consumer.UnreleasedPartitions // of a newer release: the next heartbeat sorts it out
		}
		r.Current = c
	case consumer.RegularExpression:
		r.Resolved = &consumer.Resolved{Topics: d.strings()}
		d.Int64() // the version, of another process: it is matched again
		r.Resolved.At = time.UnixMilli(d.Int64())
		d.Tags(nil)
	}
	return r, d.End("consumer group")
}

func (d *decoder) strings() (out []string) {
	for n := d.Count(); n > 0 && !d.Bad; n-- {
		out = append(out, d.String())
	}
	return out
}

// partitions reads an assignment without epochs.
func (d *decoder) partitions() consumer.Assignment {
	return d.assignment(func(*consumer.TopicPartitions, *decoder) {})
}

// assigned reads what a member has at an epoch. Up to Kafka 4.2 nothing was written of the epochs at which it was assigned: it was by then.
func (d *decoder) assigned(epoch int32) consumer.Assignment {
	a := d.assignment(func(t *consumer.TopicPartitions, v *decoder) {
		for n := v.Count(); n > 0 && !v.Bad; n-- {
			t.Epochs = append(t.Epochs, v.Int32())
		}
		d.Bad = d.Bad || v.Bad
	})
	for i, t := range a {
		if t.Epochs == nil {
			a[i].Epochs = slices.Repeat([]int32{max(epoch, 0)}, len(t.Partitions))
		}
	}
	return a
}

// assignment reads topics with partitions; tagged is given the value of each one's tag 0.
func (d *decoder) assignment(tagged func(*consumer.TopicPartitions, *decoder)) consumer.Assignment {
	var list []consumer.TopicPartitions
	for n := d.Count(); n > 0 && !d.Bad; n-- {
		t := consumer.TopicPartitions{}
		copy(t.ID[:], d.Take(len(t.ID)))
		for p := d.Count(); p > 0 && !d.Bad; p-- {
			t.Partitions = append(t.Partitions, d.Int32())
		}
		d.Tags(func(tag int, v statetopic.Decoder) {
			if tag == 0 {
				tagged(&t, &decoder{v})
			}
		})
		list = append(list, t)
	}
	if a := consumer.Normalize(list); len(a) > 0 {
		return a
	}
	return nil // nothing has one form
}

func (d *decoder) classicMember() *consumer.ClassicMember {
	if d.Int8() < 0 {
		return nil
	}
	c := &consumer.ClassicMember{Session: max(time.Duration(d.Int32())*time.Millisecond, 0)}
	for n := d.Count(); n > 0 && !d.Bad; n-- {
		p := classic.Protocol{Name: d.String(), Metadata: d.Bytes()}
		d.Tags(nil)
		c.Protocols = append(c.Protocols, p)
	}
	d.Tags(nil)
	return c
}
