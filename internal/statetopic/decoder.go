package statetopic

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrMalformed: a record is cut off, or holds what cannot be.
	ErrMalformed = errors.New("malformed record")
	// ErrForeign: a record of a kind or version that this release does not know.
	ErrForeign = errors.New("record of another kind")
)

// Decoder reads the fields of Kafka's generated records and remembers whether one did not fit. Nothing is allocated by what a length claims.
// Null is "" or nil.
type Decoder struct {
	Flexible bool // compact lengths and tagged fields
	Bad      bool // a field did not fit; what is read after it is nothing, or -1
	b        []byte
}

// Decode begins to read b, which the decoder keeps.
func Decode(b []byte) Decoder { return Decoder{b: b} }

// Take gives the next n bytes; they alias the record.
func (d *Decoder) Take(n int) []byte {
	if d.Bad || n < 0 || n > len(d.b) {
		d.Bad = true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// Int8 reads a fixed-width integer, as do Int16, Int32 and Int64.
func (d *Decoder) Int8() int8 {
	if b := d.Take(1); b != nil {
		return int8(b[0])
	}
	return -1
}

// Int16 reads a big-endian integer.
func (d *Decoder) Int16() int16 {
	if b := d.Take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return -1
}

// Int32 reads a big-endian integer.
func (d *Decoder) Int32() int32 {
	if b := d.Take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return -1
}

// Int64 reads a big-endian integer.
func (d *Decoder) Int64() int64 {
	if b := d.Take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return -1
}

func (d *Decoder) uvarint() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<31 {
		d.Bad = true
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *Decoder) length(plain func() int) int {
	n := 0
	if d.Flexible {
		n = d.uvarint() - 1
	} else {
		n = plain()
	}
	if n < -1 {
		d.Bad = true
	}
	return max(n, 0)
}

// String reads a string, which may be null.
func (d *Decoder) String() string {
	return string(d.Take(d.length(func() int { return int(d.Int16()) })))
}

// Bytes copies: records are decoded from buffers that are used again.
func (d *Decoder) Bytes() []byte {
	return append([]byte(nil), d.Take(d.Count())...)
}

// Count reads the length of an array; its caller stops when the decoder goes bad.
func (d *Decoder) Count() int { return d.length(func() int { return int(d.Int32()) }) }

// Tags gives each tagged field of a flexible record to fn, which may be nil.
func (d *Decoder) Tags(fn func(tag int, value Decoder)) {
	if !d.Flexible {
		return
	}
	for n := d.uvarint(); n > 0 && !d.Bad; n-- {
		tag := d.uvarint()
		value := Decoder{b: d.Take(d.uvarint()), Flexible: true}
		if fn != nil && !d.Bad {
			fn(tag, value)
		}
	}
}

// End checks that everything fitted; what follows the last field belongs to a newer minor format and is left alone, as in Kafka.
func (d *Decoder) End(what string) error {
	if d.Bad {
		return fmt.Errorf("%w: %s is cut off", ErrMalformed, what)
	}
	return nil
}
