package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"lagoon/internal/vfs"
)

// Marker is what a control batch says: how a transaction ended (KIP-98).
type Marker struct {
	Commit           bool
	CoordinatorEpoch int32
}

// Kafka's control record: the key is a version and a type, the value a version and the coordinator's epoch.
const (
	markerVersion = 0
	markerAbort   = 0
	markerCommit  = 1

	markerKeySize   = 4
	markerValueSize = 6
	// markerSize is a batch of one control record: its length, attributes, two deltas, two lengths and the number of headers take
	// one byte each.
	markerSize = BatchHeaderSize + 7 + markerKeySize + markerValueSize
	// maxMarkerBytes bounds what is read as one; later versions may be larger.
	maxMarkerBytes = 4 << 10
)

// AppendMarker appends the control batch that ends a producer's transaction at time ms. Its offset is still to be assigned.
func AppendMarker(b []byte, producerID int64, epoch int16, m Marker, ms int64) []byte {
	be := binary.BigEndian
	start := len(b)
	b = append(b, make([]byte, markerSize)...)
	batch := b[start:]
	be.PutUint32(batch[atLength:], markerSize-lengthOverhead)
	batch[atMagic] = magicV2
	be.PutUint16(batch[atAttributes:], attrTransactional|attrControl)
	be.PutUint64(batch[atBaseTimestamp:], uint64(ms))
	be.PutUint64(batch[atMaxTimestamp:], uint64(ms))
	be.PutUint64(batch[atProducerID:], uint64(producerID))
	be.PutUint16(batch[atProducerEpoch:], uint16(epoch))
	be.PutUint32(batch[atBaseSequence:], 0xffff_ffff)
	be.PutUint32(batch[atCount:], 1)
	// The record: all numbers of one byte are zigzag varints.
	r := batch[BatchHeaderSize:]
	kind := byte(markerAbort)
	if m.Commit {
		kind = markerCommit
	}
	copy(r, []byte{2 * (markerSize - BatchHeaderSize - 1), 0, 0, 0, 2 * markerKeySize, 0, markerVersion, 0, kind, 2 * markerValueSize, 0, markerVersion})
	be.PutUint32(r[12:], uint32(m.CoordinatorEpoch))
	be.PutUint32(batch[atCRC:], batchCRC(batch))
	return b
}

// ParseMarker reads the marker in the whole control batch b. Errors: ErrInvalidRecord, also for control records of other types.
func ParseMarker(b []byte) (Marker, error) {
	if len(b) < BatchHeaderSize || !decodeFields(b).IsControl() {
		return Marker{}, fmt.Errorf("%w: no control batch", ErrInvalidRecord)
	}
	c := cursor{b: b[BatchHeaderSize:]}
	length, ok := c.varint()
	if !ok || length < 1 || length > int64(len(c.b)) {
		return Marker{}, fmt.Errorf("%w: control record is cut off", ErrInvalidRecord)
	}
	c.b = c.b[1:length]
	_, ok1 := c.varint()
	_, ok2 := c.varint()
	key, ok3 := c.field()
	value, ok4 := c.field()
	if !ok1 || !ok2 || !ok3 || !ok4 || len(key) < markerKeySize || len(value) < markerValueSize {
		return Marker{}, fmt.Errorf("%w: control record is malformed", ErrInvalidRecord)
	}
	be := binary.BigEndian
	kind := be.Uint16(key[2:])
	if int16(be.Uint16(key)) < 0 || kind > markerCommit {
		return Marker{}, fmt.Errorf("%w: control record of type %d, version %d", ErrInvalidRecord, kind, be.Uint16(key))
	}
	return Marker{Commit: kind == markerCommit, CoordinatorEpoch: int32(be.Uint32(value[2:]))}, nil
}

// field is a length-prefixed field; nil for null.
func (c *cursor) field() ([]byte, bool) {
	before := c.b
	n, ok := c.bytes()
	if !ok || n < 0 {
		return nil, ok
	}
	return before[len(before)-len(c.b)-int(n):][:n], true
}

// readMarker reads and checks the control batch at pos, whose header is h.
func readMarker(f vfs.File, pos int64, h BatchHeader) (Marker, error) {
	corrupt := func(err error) error {
		return &CorruptError{Path: f.Name(), Pos: pos, End: pos + h.SizeBytes(), First: h.BaseOffset, Next: h.NextOffset(), Err: err}
	}
	if h.SizeBytes() > maxMarkerBytes {
		return Marker{}, corrupt(fmt.Errorf("%w: control batch of %d bytes", ErrCorruptBatch, h.SizeBytes()))
	}
	b := make([]byte, h.SizeBytes())
	if n, err := readFull(f, b, pos); err != nil {
		return Marker{}, err
	} else if n < len(b) || crc32.Checksum(b[atAttributes:], castagnoli) != h.CRC {
		return Marker{}, corrupt(ErrCorruptBatch)
	}
	m, err := ParseMarker(b)
	if err != nil {
		return m, corrupt(err)
	}
	return m, nil
}
