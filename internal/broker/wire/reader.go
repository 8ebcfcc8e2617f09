package wire

import (
	"encoding/binary"
	"fmt"
)

// Reader walks the primitive types of the protocol. After the first fault every method returns zero values and the fault
// stays, so that a decoder may check once at its end (and before loops: see Count).
type Reader struct {
	src []byte
	bad bool
	err error // ErrTooMany, when that was the fault
}

// NewReader reads src. Strings and bytes it returns alias src.
func NewReader(src []byte) Reader { return Reader{src: src} }

// take returns the next n bytes.
func (r *Reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.src) {
		r.fail()
		return nil
	}
	b := r.src[:n:n]
	r.src = r.src[n:]
	return b
}

func (r *Reader) fail() {
	r.bad = true
	r.src = nil
}

// Err is the first fault, or a complaint about bytes that are left over.
func (r *Reader) Err(what string) error {
	switch {
	case r.err != nil:
		return r.err
	case r.bad:
		return fmt.Errorf("%w: %s ends early", ErrMalformed, what)
	case len(r.src) > 0:
		return fmt.Errorf("%w: %s has %d bytes left over", ErrMalformed, what, len(r.src))
	}
	return nil
}

// Int8 reads one big-endian value; 0 when the bytes have run out.
func (r *Reader) Int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

// Int16 reads one big-endian value; 0 when the bytes have run out.
func (r *Reader) Int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

// Int32 reads one big-endian value; 0 when the bytes have run out.
func (r *Reader) Int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// Int64 reads one big-endian value; 0 when the bytes have run out.
func (r *Reader) Int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// UUID reads a topic id; zero when the bytes have run out.
func (r *Reader) UUID() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

// Uvarint reads at most 32 bits.
func (r *Reader) Uvarint() uint32 {
	v, n := binary.Uvarint(r.src)
	if n <= 0 || n > 5 || v > 1<<32-1 {
		r.fail()
		return 0
	}
	r.src = r.src[n:]
	return uint32(v)
}

// NullableString reads an int16 length and that many bytes; nil for -1.
func (r *Reader) NullableString() []byte {
	n := r.Int16()
	if n < 0 {
		return nil
	}
	return r.take(int(n))
}

// CompactNullable reads a uvarint of length + 1 and that many bytes; nil for 0.
func (r *Reader) CompactNullable() []byte {
	n := r.Uvarint()
	if n == 0 {
		return nil
	}
	return r.take(int(n - 1))
}

// String reads a string in the form of the version; null counts as a fault.
func (r *Reader) String(flexible bool) []byte {
	b := r.StringOrNull(flexible)
	if b == nil {
		r.fail()
	}
	return b
}

// StringOrNull reads a nullable string in the form of the version.
func (r *Reader) StringOrNull(flexible bool) []byte {
	if flexible {
		return r.CompactNullable()
	}
	return r.NullableString()
}

// BytesOrNull reads nullable bytes in the form of the version.
func (r *Reader) BytesOrNull(flexible bool) []byte {
	if flexible {
		return r.CompactNullable()
	}
	n := r.Int32()
	if n < 0 {
		return nil
	}
	return r.take(int(n))
}

// Count reads the length of an array whose elements take at least minBytes each, and refuses one that the rest of the
// body cannot hold. 0 for null.
func (r *Reader) Count(flexible bool, minBytes int) int {
	n := 0
	if flexible {
		n = int(r.Uvarint()) - 1
	} else {
		n = int(r.Int32())
	}
	if n <= 0 {
		return 0
	}
	if n > len(r.src)/minBytes {
		r.fail()
		return 0
	}
	return n
}

// tagCount reads how many tags a section has.
func (r *Reader) tagCount() int {
	n := r.Uvarint()
	if n > maxTags {
		r.err = fmt.Errorf("%w: %d tags", ErrTooMany, n)
		r.fail()
		return 0
	}
	return int(n)
}

// tag reads one tag.
func (r *Reader) tag() (number uint32, value Reader) {
	number = r.Uvarint()
	return number, Reader{src: r.take(int(r.Uvarint())), bad: r.bad}
}

// SkipTags steps over a tag section.
func (r *Reader) SkipTags() {
	for range r.tagCount() {
		r.tag()
		if r.bad {
			return
		}
	}
}
