package records

import (
	"encoding/binary"
	"hash/crc32"

	"lagoon/segment"
)

// Builder makes one uncompressed batch of keyed records that all carry one time. The zero value is empty and ready; it can be used again
// after Reset.
type Builder struct {
	b    []byte
	n    int32
	body []byte // of one record
}

// Reset empties the builder. It keeps its memory, so batches made before must not be in use any more.
func (b *Builder) Reset() { b.b, b.n = b.b[:0], 0 }

// Len is the number of records, Size that of bytes of the batch so far.
func (b *Builder) Len() int32 { return b.n }

// Size is the size of the batch in bytes.
func (b *Builder) Size() int { return max(len(b.b), segment.BatchHeaderSize) }

// Add appends a record; a nil value is null, a tombstone. Key and value are copied.
func (b *Builder) Add(key, value []byte) {
	if b.n == 0 {
		b.b = append(b.b[:0], make([]byte, segment.BatchHeaderSize)...)
	}
	body := append(b.body[:0], 0)       // attributes
	body = binary.AppendVarint(body, 0) // timestamp delta
	body = binary.AppendVarint(body, int64(b.n))
	for _, field := range [2][]byte{key, value} {
		if field == nil {
			body = binary.AppendVarint(body, -1)
			continue
		}
		body = append(binary.AppendVarint(body, int64(len(field))), field...)
	}
	body = binary.AppendVarint(body, 0) // headers
	b.b = append(binary.AppendVarint(b.b, int64(len(body))), body...)
	b.body = body
	b.n++
}

// TransactionalBatch is Batch as part of a producer's transaction. It carries no sequence numbers: it is a coordinator's.
func (b *Builder) TransactionalBatch(ms, producerID int64, epoch int16) []byte {
	batch := b.Batch(ms)
	be := binary.BigEndian
	be.PutUint16(batch[21:], 0x10)
	be.PutUint64(batch[43:], uint64(producerID))
	be.PutUint16(batch[51:], uint16(epoch))
	be.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	return batch
}

// Batch completes the batch with a timestamp for all its records. It must hold at least one. The memory is the builder's until Reset.
func (b *Builder) Batch(ms int64) []byte {
	be := binary.BigEndian
	h := b.b[:segment.BatchHeaderSize]
	clear(h)
	be.PutUint32(h[8:], uint32(len(b.b)-12))
	h[16] = 2
	be.PutUint32(h[23:], uint32(b.n-1))
	be.PutUint64(h[27:], uint64(ms))
	be.PutUint64(h[35:], uint64(ms))
	be.PutUint64(h[43:], ^uint64(0)) // no producer, no epoch, no sequence
	be.PutUint16(h[51:], ^uint16(0))
	be.PutUint32(h[53:], ^uint32(0))
	be.PutUint32(h[57:], uint32(b.n))
	be.PutUint32(h[17:], crc32.Checksum(b.b[21:], castagnoli))
	return b.b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
