package transactions

import (
	"encoding/binary"
	"fmt"
	"time"

	"lagoon/internal/statetopic"
	"lagoon/internal/transactions/txn"
)

// Versions of the records. Value 1 is value 0 with compact lengths and tagged fields.
const (
	keyVersion   = 0
	valueVersion = 1

	tagPreviousID     = 0
	tagNextID         = 1
	tagClientProtocol = 2
)

func appendKey(b []byte, id string) []byte {
	b = binary.BigEndian.AppendUint16(b, keyVersion)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(id))), id...)
}

func appendValue(b []byte, r txn.Record) []byte {
	be := binary.BigEndian
	b = be.AppendUint64(be.AppendUint16(b, valueVersion), uint64(r.ProducerID))
	b = be.AppendUint32(be.AppendUint16(b, uint16(r.Epoch)), uint32(r.Timeout.Milliseconds()))
	b = append(b, byte(r.State))
	if r.State == txn.Empty {
		b = append(b, 0) // null, as in Kafka
	} else {
		b = appendPartitions(b, r.Partitions)
	}
	b = be.AppendUint64(be.AppendUint64(b, uint64(millis(r.Updated))), uint64(millis(r.Started)))
	tags := byte(0)
	var t []byte
	number := func(tag, size byte, v int64) {
		tags++
		t = append(t, tag, size)
		if size == 2 {
			t = be.AppendUint16(t, uint16(v))
			return
		}
		t = be.AppendUint64(t, uint64(v))
	}
	if r.PreviousID != txn.NoProducerID {
		number(tagPreviousID, 8, r.PreviousID)
	}
	if r.NextID != txn.NoProducerID {
		number(tagNextID, 8, r.NextID)
	}
	if r.ClientProtocol != 0 {
		number(tagClientProtocol, 2, int64(r.ClientProtocol))
	}
	return append(append(b, tags), t...)
}

// appendPartitions groups the sorted list by topic.
func appendPartitions(b []byte, list []txn.Partition) []byte {
	topics := 0
	for i := range list {
		if i == 0 || list[i].Topic != list[i-1].Topic {
			topics++
		}
	}
	b = binary.AppendUvarint(b, uint64(topics)+1)
	for i := 0; i < len(list); {
		n := i
		for n < len(list) && list[n].Topic == list[i].Topic {
			n++
		}
		b = append(binary.AppendUvarint(b, uint64(len(list[i].Topic))+1), list[i].Topic...)
		b = binary.AppendUvarint(b, uint64(n-i)+1)
		for ; i < n; i++ {
			b = binary.BigEndian.AppendUint32(b, uint32(list[i].Index))
		}
		b = append(b, 0)
	}
	return b
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func readKey(b []byte) (string, error) {
	d := statetopic.Decode(b)
	if v := d.Int16(); !d.Bad && v != keyVersion {
		return "", fmt.Errorf("%w: key version %d", statetopic.ErrForeign, v)
	}
	id := d.String()
	return id, d.End("key")
}

func readValue(b []byte) (txn.Record, error) {
	d := statetopic.Decode(b)
	version := d.Int16()
	if !d.Bad && (version < 0 || version > valueVersion) {
		return txn.Record{}, fmt.Errorf("%w: value version %d", statetopic.ErrForeign, version)
	}
	d.Flexible = version >= 1
	r := txn.Record{PreviousID: txn.NoProducerID, NextID: txn.NoProducerID, LastEpoch: txn.NoEpoch}
	r.ProducerID, r.Epoch = d.Int64(), d.Int16()
	r.Timeout = time.Duration(d.Int32()) * time.Millisecond
	r.State = txn.State(d.Int8())
	for topics := d.Count(); topics > 0 && !d.Bad; topics-- {
		name := d.String()
		for n := d.Count(); n > 0 && !d.Bad; n-- {
			r.Partitions = append(r.Partitions, txn.Partition{Topic: name, Index: d.Int32()})
		}
		d.Tags(nil)
	}
	r.Updated, r.Started = fromMillis(d.Int64()), fromMillis(d.Int64())
	d.Tags(func(tag int, v statetopic.Decoder) {
		switch tag {
		case tagPreviousID:
			r.PreviousID = v.Int64()
		case tagNextID:
			r.NextID = v.Int64()
		case tagClientProtocol:
			r.ClientProtocol = v.Int16()
		}
	})
	if err := d.End("value"); err != nil {
		return r, err
	}
	if r.State < txn.Empty || r.State > txn.PrepareEpochFence || r.ProducerID < 0 || r.Epoch < txn.NoEpoch || r.Timeout < 0 {
		return r, fmt.Errorf("%w: state %d, producer %d, epoch %d, timeout %s", statetopic.ErrMalformed, r.State, r.ProducerID, r.Epoch, r.Timeout)
	}
	if r.State == txn.PrepareEpochFence { // the abort that it announces never came on record
		r.State = txn.PrepareAbort
	}
	return r, nil
}
