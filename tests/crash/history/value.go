package history

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// headerBytes is producer, partition (4 bytes each), sequence, length (4 each), and a CRC over all before it.
const headerBytes = 4 * 5

// MinValue is the least length of a value.
const MinValue = headerBytes

// ID names one record: the Seq-th that Producer sent to Partition, from 0.
type ID struct {
	Producer, Partition int32
	Seq                 int32
}

func (id ID) String() string {
	return fmt.Sprintf("producer %d, partition %d, seq %d", id.Producer, id.Partition, id.Seq)
}

// plain is every second piece of the filler.
var plain = bytes.Repeat([]byte("  oogal "), 8)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Value is the record's bytes: a header and filler that follows from it. Half of the filler compresses well, half not at all.
func Value(id ID, size int) []byte {
	b := make([]byte, max(size, MinValue))
	binary.BigEndian.PutUint32(b[0:], uint32(id.Producer))
	binary.BigEndian.PutUint32(b[4:], uint32(id.Partition))
	binary.BigEndian.PutUint32(b[8:], uint32(id.Seq))
	binary.BigEndian.PutUint32(b[12:], uint32(len(b)))
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	fill(b[headerBytes:], id)
	return b
}

// fill takes random bytes from a cipher, which the race detector does not look into: this is most of what the tests compute.
func fill(b []byte, id ID) {
	var key [aes.BlockSize]byte
	binary.BigEndian.PutUint32(key[0:], uint32(id.Producer))
	binary.BigEndian.PutUint32(key[4:], uint32(id.Partition))
	binary.BigEndian.PutUint32(key[8:], uint32(id.Seq))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // no other length than that of a key
	}
	clear(b)
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(b, b)
	for i := len(plain); i < len(b); i += 2 * len(plain) {
		copy(b[i:], plain)
	}
}

// Parse takes a value apart and compares every byte with what was sent.
func Parse(b []byte) (ID, error) {
	if len(b) < headerBytes {
		return ID{}, fmt.Errorf("value of %d bytes: shorter than any that was sent", len(b))
	}
	if got, want := crc32.Checksum(b[:16], castagnoli), binary.BigEndian.Uint32(b[16:]); got != want {
		return ID{}, fmt.Errorf("header % x of a value does not match its checksum", b[:headerBytes])
	}
	id := ID{int32(binary.BigEndian.Uint32(b[0:])), int32(binary.BigEndian.Uint32(b[4:])), int32(binary.BigEndian.Uint32(b[8:]))}
	if n := int(binary.BigEndian.Uint32(b[12:])); n != len(b) {
		return id, fmt.Errorf("%v: value of %d bytes, sent were %d", id, len(b), n)
	}
	if want := Value(id, len(b)); !bytes.Equal(b, want) {
		for i := range b {
			if b[i] != want[i] {
				return id, fmt.Errorf("%v: byte %d of %d is %#02x, sent was %#02x", id, i, len(b), b[i], want[i])
			}
		}
	}
	return id, nil
}
