package transactions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

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

var (
	errFormat = errors.New("transactions: malformed record")
	// errForeign: a record of a version that this release does not know.
	errForeign = errors.New("transactions: record of another version")
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
	d := decoder{b: b}
	if v := d.int16(); !d.bad && v != keyVersion {
		return "", fmt.Errorf("%w: key version %d", errForeign, v)
	}
	id := d.string()
	return id, d.end("key")
}

func readValue(b []byte) (txn.Record, error) {
	d := decoder{b: b}
	version := d.int16()
	if !d.bad && (version < 0 || version > valueVersion) {
		return txn.Record{}, fmt.Errorf("%w: value version %d", errForeign, version)
	}
	d.flexible = version >= 1
	r := txn.Record{PreviousID: txn.NoProducerID, NextID: txn.NoProducerID, LastEpoch: txn.NoEpoch}
	r.ProducerID, r.Epoch = d.int64(), d.int16()
	r.Timeout = time.Duration(d.int32()) * time.Millisecond
	r.State = txn.State(d.int8())
	for topics := d.count(); topics > 0 && !d.bad; topics-- {
		name := d.string()
		for n := d.count(); n > 0 && !d.bad; n-- {
			r.Partitions = append(r.Partitions, txn.Partition{Topic: name, Index: d.int32()})
		}
		d.tags(nil)
	}
	r.Updated, r.Started = fromMillis(d.int64()), fromMillis(d.int64())
	d.tags(func(tag int, v decoder) {
		switch tag {
		case tagPreviousID:
			r.PreviousID = v.int64()
		case tagNextID:
			r.NextID = v.int64()
		case tagClientProtocol:
			r.ClientProtocol = v.int16()
		}
	})
	if err := d.end("value"); err != nil {
		return r, err
	}
	if r.State < txn.Empty || r.State > txn.PrepareEpochFence || r.ProducerID < 0 || r.Epoch < txn.NoEpoch || r.Timeout < 0 {
		return r, fmt.Errorf("%w: state %d, producer %d, epoch %d, timeout %s", errFormat, r.State, r.ProducerID, r.Epoch, r.Timeout)
	}
	if r.State == txn.PrepareEpochFence { // the abort that it announces never came on record
		r.State = txn.PrepareAbort
	}
	return r, nil
}

// decoder reads fields and remembers whether one did not fit. Nothing is allocated by what a length claims. Null is "" or nothing.
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

func (d *decoder) int8() int8 {
	if b := d.take(1); b != nil {
		return int8(b[0])
	}
	return -1
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
	return max(n, 0)
}

func (d *decoder) string() string {
	return string(d.take(d.length(func() int { return int(d.int16()) })))
}

func (d *decoder) count() int { return d.length(func() int { return int(d.int32()) }) }

// tags gives each tagged field to fn, which may be nil.
func (d *decoder) tags(fn func(tag int, v decoder)) {
	if !d.flexible {
		return
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		tag := d.uvarint()
		v := decoder{b: d.take(d.uvarint())}
		if fn != nil && !d.bad {
			fn(tag, v)
		}
	}
}

// end checks that everything fitted.
func (d *decoder) end(what string) error {
	if d.bad {
		return fmt.Errorf("%w: %s is cut off", errFormat, what)
	}
	return nil
}
