package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
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

func fill(b []byte, id ID) {
	r := rand.NewPCG(uint64(uint32(id.Producer))<<32|uint64(uint32(id.Partition)), uint64(uint32(id.Seq)))
	var word [8]byte
	for i := 0; i < len(b); i += 8 {
		if i%128 < 64 {
			binary.LittleEndian.PutUint64(word[:], r.Uint64())
		} else {
			binary.LittleEndian.PutUint64(word[:], 0x6c61676f6f6e2020)
		}
		copy(b[i:], word[:])
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
