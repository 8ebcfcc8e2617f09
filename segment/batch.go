package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// Offset is the position of a record in its partition's log, from 0.
type Offset int64

// BatchHeaderSize is the fixed size of a v2 record batch header, in bytes (KIP-98).
const BatchHeaderSize = 61

// Where the fields of a v2 batch header lie; see docs/formats/log.md.
const (
	atBaseOffset      = 0
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21 // the checksum covers everything from here on
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atCount           = 57

	lengthOverhead = 12 // base offset and length itself are not counted in the length field
	minLength      = BatchHeaderSize - lengthOverhead
	magicV2        = 2
)

const (
	attrCompression   = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BatchHeader is the decoded fixed part of one v2 record batch.
type BatchHeader struct {
	BaseOffset      Offset
	Length          int32 // bytes after this field: SizeBytes() - 12
	LeaderEpoch     int32
	Magic           int8
	CRC             uint32 // CRC32C of everything from Attributes on
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // ms
	MaxTimestamp    int64 // ms
	ProducerID      int64 // -1: none
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32
}

// Compression is the codec of a batch's records.
type Compression uint8

// Codecs, by their id in the batch attributes.
const (
	CompressionNone Compression = iota
	CompressionGzip
	CompressionSnappy
	CompressionLZ4
	CompressionZstd
)

// SizeBytes is the size of the whole batch, header included.
func (h BatchHeader) SizeBytes() int64 { return int64(h.Length) + lengthOverhead }

// LastOffset is the offset of the batch's last record.
func (h BatchHeader) LastOffset() Offset { return h.BaseOffset + Offset(h.LastOffsetDelta) }

// NextOffset is the offset after the batch's last record.
func (h BatchHeader) NextOffset() Offset { return h.LastOffset() + 1 }

// Compression is the codec id; values above CompressionZstd do not exist.
func (h BatchHeader) Compression() Compression { return Compression(h.Attributes & attrCompression) }

// LogAppendTime tells that every record carries MaxTimestamp, set by the broker.
func (h BatchHeader) LogAppendTime() bool { return h.Attributes&attrLogAppendTime != 0 }

// IsTransactional tells that the batch belongs to a transaction.
func (h BatchHeader) IsTransactional() bool { return h.Attributes&attrTransactional != 0 }

// IsControl tells that the batch holds a transaction marker, not data.
func (h BatchHeader) IsControl() bool { return h.Attributes&attrControl != 0 }

// DeleteHorizon tells that BaseTimestamp is the time at which the batch's delete markers, or its transaction marker, may go: compaction
// has set it. Timestamps of records count from it as from any base.
func (h BatchHeader) DeleteHorizon() bool { return h.Attributes&attrDeleteHorizon != 0 }

// HasProducer tells that the batch comes from an idempotent producer.
func (h BatchHeader) HasProducer() bool { return h.ProducerID >= 0 }

// LastSequence is the sequence number of the last record, wrapped from MaxInt32 to 0; -1 without producer sequence.
func (h BatchHeader) LastSequence() int32 {
	if h.BaseSequence < 0 {
		return -1
	}
	return addSequence(h.BaseSequence, h.LastOffsetDelta)
}

// addSequence adds in the ring 0..MaxInt32 (DefaultRecordBatch.incrementSequence).
func addSequence(seq, delta int32) int32 {
	return int32((int64(seq) + int64(delta)) & math.MaxInt32)
}

// DecodeHeader decodes the fixed part of the batch that begins at b[0]. It checks structure only: magic 2, every
// length and count sane and the offsets without overflow; not the checksum, and not whether len(b) holds the batch.
// Errors: ErrCorruptBatch. It does not allocate unless it fails.
func DecodeHeader(b []byte) (BatchHeader, error) {
	if len(b) < BatchHeaderSize {
		return BatchHeader{}, fmt.Errorf("%w: %d bytes, a header has %d", ErrCorruptBatch, len(b), BatchHeaderSize)
	}
	h := decodeFields(b)
	switch {
	case h.Magic != magicV2:
		return h, fmt.Errorf("%w: magic %d, only 2 is supported", ErrCorruptBatch, h.Magic)
	case h.Length < minLength || h.Length > math.MaxInt32-lengthOverhead:
		return h, fmt.Errorf("%w: length field %d", ErrCorruptBatch, h.Length)
	case h.LastOffsetDelta < 0 || h.Count < 0 || int64(h.Count) > int64(h.LastOffsetDelta)+1:
		return h, fmt.Errorf("%w: %d records with last offset delta %d", ErrCorruptBatch, h.Count, h.LastOffsetDelta)
	case h.BaseOffset < 0 || h.BaseOffset > math.MaxInt64-math.MaxInt32-1:
		return h, fmt.Errorf("%w: base offset %d", ErrCorruptBatch, h.BaseOffset)
	case h.Compression() > CompressionZstd:
		return h, fmt.Errorf("%w: compression id %d", ErrCorruptBatch, h.Compression())
	}
	return h, nil
}

// decodeFields reads the fields as they are; b holds at least BatchHeaderSize bytes.
func decodeFields(b []byte) BatchHeader {
	b = b[:BatchHeaderSize]
	return BatchHeader{
		BaseOffset:      Offset(binary.BigEndian.Uint64(b[atBaseOffset:])),
		Length:          int32(binary.BigEndian.Uint32(b[atLength:])),
		LeaderEpoch:     int32(binary.BigEndian.Uint32(b[atLeaderEpoch:])),
		Magic:           int8(b[atMagic]),
		CRC:             binary.BigEndian.Uint32(b[atCRC:]),
		Attributes:      int16(binary.BigEndian.Uint16(b[atAttributes:])),
		LastOffsetDelta: int32(binary.BigEndian.Uint32(b[atLastOffsetDelta:])),
		BaseTimestamp:   int64(binary.BigEndian.Uint64(b[atBaseTimestamp:])),
		MaxTimestamp:    int64(binary.BigEndian.Uint64(b[atMaxTimestamp:])),
		ProducerID:      int64(binary.BigEndian.Uint64(b[atProducerID:])),
		ProducerEpoch:   int16(binary.BigEndian.Uint16(b[atProducerEpoch:])),
		BaseSequence:    int32(binary.BigEndian.Uint32(b[atBaseSequence:])),
		Count:           int32(binary.BigEndian.Uint32(b[atCount:])),
	}
}

// batchCRC is the checksum that the whole batch b should carry.
func batchCRC(b []byte) uint32 { return crc32.Checksum(b[atAttributes:], castagnoli) }

// AssignOffsets writes base offset and leader epoch into the whole batch b, in place. Both lie outside the checksum.
func AssignOffsets(b []byte, base Offset, epoch int32) {
	binary.BigEndian.PutUint64(b[atBaseOffset:], uint64(base))
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], uint32(epoch))
}

// SetLogAppendTime stamps the whole batch b with the broker's time, in place, and recomputes the checksum.
func SetLogAppendTime(b []byte, ms int64) {
	attributes := binary.BigEndian.Uint16(b[atAttributes:]) | attrLogAppendTime
	binary.BigEndian.PutUint16(b[atAttributes:], attributes)
	setMaxTimestamp(b, ms)
}

func setMaxTimestamp(b []byte, ms int64) {
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(ms))
	binary.BigEndian.PutUint32(b[atCRC:], batchCRC(b))
}

// CutBatches finds the whole batches in buf that a reader at offset from may have: buf[start:end], and the offset
// after them. buf begins at a batch boundary and may end anywhere.
//
// Batches that end before from are left out, and so is everything from the first batch on that reaches bound (the
// first offset that must not be read). end-start exceeds maxBytes only when the first batch alone does.
// start == end: nothing is wholly in buf; when at least BatchHeaderSize bytes follow start, DecodeHeader(buf[start:])
// tells how large buf would have to be (or, for a batch that ends before from, what to skip). next is then from.
// Errors: a *CorruptError without path, Pos in buf, when a header is absurd or offsets go backwards.
func CutBatches(buf []byte, from Offset, maxBytes int64, bound Offset) (start, end int, next Offset, err error) {
	next = from
	previous := Offset(-1)
	for at := 0; len(buf)-at >= BatchHeaderSize; {
		h, err := DecodeHeader(buf[at:])
		if err == nil && h.BaseOffset <= previous {
			err = fmt.Errorf("%w: base offset %d after offset %d", ErrCorruptBatch, h.BaseOffset, previous)
		}
		if err != nil {
			return start, end, next, &CorruptError{Pos: int64(at), Err: err}
		}
		previous = h.LastOffset()
		size := h.SizeBytes()
		if h.LastOffset() < from {
			start, end = at, at
			if size > int64(len(buf)-at) {
				break
			}
			at += int(size)
			start, end = at, at
			continue
		}
		if size > int64(len(buf)-at) || h.NextOffset() > bound || (end > start && int64(end-start)+size > maxBytes) {
			break
		}
		at += int(size)
		end, next = at, h.NextOffset()
	}
	return start, end, next, nil
}
