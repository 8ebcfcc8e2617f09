package segment

import (
	"encoding/binary"
	"fmt"
)

// Limits is what a topic allows in a batch.
type Limits struct {
	MaxBatchBytes        int32 // 0: no limit (max.message.bytes)
	NowMs                int64
	Window               bool  // the next two hold: how far from NowMs a timestamp may be, 0 is not at all
	TimestampBeforeMaxMs int64 // message.timestamp.before.max.ms
	TimestampAfterMaxMs  int64 // message.timestamp.after.max.ms
	AllowControl         bool  // the broker's own batch: may be a transaction marker and may carry offsets
	RequireKey           bool  // compacted topic: records of uncompressed batches must have a key
}

// maxRecordErrors bounds the indexes that a RecordsError names; a batch may hold millions of bad records.
const maxRecordErrors = 100

// RecordsError says which records of a batch are refused (RecordErrors of the Produce response, version 8 on).
type RecordsError struct {
	Indexes []int32 // in the batch, ascending, at most 100 of them
	Reason  string
	Err     error // ErrInvalidRecord or ErrInvalidTimestamp
}

func (e *RecordsError) Error() string {
	return fmt.Sprintf("%v: record %d: %s", e.Err, e.Indexes[0], e.Reason)
}

func (e *RecordsError) Unwrap() error { return e.Err }

// ValidateBatch checks that b is exactly one v2 batch that a client may append: what Kafka's LogValidator checks, as
// far as that needs no decompression. The records of an uncompressed batch are walked; of a compressed one the header
// is believed. As in Kafka, a wrong max timestamp in the header of an uncompressed batch is put right in b.
//
// Errors: ErrCorruptBatch, ErrInvalidRecord, ErrMessageTooLarge, ErrInvalidTimestamp, ErrUnsupportedCompression, the
// second and fourth maybe within a *RecordsError. b stays the caller's; it does not allocate unless it fails.
func ValidateBatch(b []byte, lim Limits) (BatchHeader, error) {
	if err := validateFrame(b, lim); err != nil {
		return BatchHeader{}, err
	}
	h := decodeFields(b)
	if crc := batchCRC(b); crc != h.CRC {
		return h, fmt.Errorf("%w: checksum %08x, header says %08x", ErrCorruptBatch, crc, h.CRC)
	}
	if err := validateFields(h, lim); err != nil {
		return h, err
	}
	if h.Compression() != CompressionNone {
		return h, validateHeaderTimes(h, lim)
	}
	maxTimestamp, err := validateRecords(b, h, lim)
	if err != nil {
		return h, err
	}
	if maxTimestamp != h.MaxTimestamp {
		setMaxTimestamp(b, maxTimestamp)
		h.MaxTimestamp = maxTimestamp
		h.CRC = binary.BigEndian.Uint32(b[atCRC:])
	}
	return h, nil
}

// validateFrame checks that b is one batch of format 2 and no larger than allowed.
func validateFrame(b []byte, lim Limits) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: no batch", ErrInvalidRecord)
	}
	if len(b) <= atMagic {
		return fmt.Errorf("%w: %d bytes are no batch", ErrCorruptBatch, len(b))
	}
	if b[atMagic] != magicV2 {
		return fmt.Errorf("%w: magic %d, only format 2 is supported", ErrInvalidRecord, int8(b[atMagic]))
	}
	length := int32(binary.BigEndian.Uint32(b[atLength:]))
	size := int64(length) + lengthOverhead
	switch {
	case length < minLength || len(b) < BatchHeaderSize || size > int64(len(b)):
		return fmt.Errorf("%w: length field %d in %d bytes", ErrCorruptBatch, length, len(b))
	case size < int64(len(b)):
		return fmt.Errorf("%w: %d bytes after the batch, want exactly one batch", ErrInvalidRecord, int64(len(b))-size)
	case lim.MaxBatchBytes > 0 && size > int64(lim.MaxBatchBytes):
		return fmt.Errorf("%w: %d bytes, limit %d", ErrMessageTooLarge, size, lim.MaxBatchBytes)
	}
	return nil
}

// validateFields checks the header's own statements against each other.
func validateFields(h BatchHeader, lim Limits) error {
	switch {
	case h.Compression() > CompressionZstd:
		return fmt.Errorf("%w: id %d", ErrUnsupportedCompression, h.Compression())
	case h.BaseOffset != 0 && !lim.AllowControl: // as in UnifiedLog.analyzeAndValidateRecords
		return fmt.Errorf("%w: base offset %d, a client's batch starts at 0", ErrInvalidRecord, h.BaseOffset)
	case h.LastOffsetDelta < 0 || h.Count <= 0 || int64(h.Count) != int64(h.LastOffsetDelta)+1:
		return fmt.Errorf("%w: %d records with last offset delta %d", ErrInvalidRecord, h.Count, h.LastOffsetDelta)
	case h.IsControl() && !lim.AllowControl:
		return fmt.Errorf("%w: clients may not write control records", ErrInvalidRecord)
	case h.ProducerID < -1 || (h.ProducerID < 0 && h.IsTransactional()):
		return fmt.Errorf("%w: producer id %d", ErrInvalidRecord, h.ProducerID)
	case h.HasProducer() && h.ProducerEpoch < 0:
		return fmt.Errorf("%w: producer %d with epoch %d", ErrInvalidRecord, h.ProducerID, h.ProducerEpoch)
	case h.HasProducer() && h.BaseSequence < 0 && !lim.AllowControl:
		return fmt.Errorf("%w: producer %d with sequence %d", ErrInvalidRecord, h.ProducerID, h.BaseSequence)
	case h.LogAppendTime() && !lim.AllowControl:
		return fmt.Errorf("%w: producers may not set log append time", ErrInvalidTimestamp)
	}
	return nil
}

// noTimestamp marks a record without time.
const noTimestamp = -1

func (lim Limits) timeAllowed(ms int64) bool {
	if !lim.Window || ms == noTimestamp {
		return true
	}
	// Unsigned distances: the difference of two hostile int64 need not fit an int64.
	if ms < lim.NowMs && uint64(lim.NowMs)-uint64(ms) > uint64(max(lim.TimestampBeforeMaxMs, 0)) {
		return false
	}
	if ms > lim.NowMs && uint64(ms)-uint64(lim.NowMs) > uint64(max(lim.TimestampAfterMaxMs, 0)) {
		return false
	}
	return true
}

func validateHeaderTimes(h BatchHeader, lim Limits) error {
	for _, ms := range [2]int64{h.BaseTimestamp, h.MaxTimestamp} {
		if !lim.timeAllowed(ms) {
			return fmt.Errorf("%w: %d ms, now is %d", ErrInvalidTimestamp, ms, lim.NowMs)
		}
	}
	return nil
}

// validateRecords walks the records of an uncompressed batch and gives the largest timestamp.
func validateRecords(b []byte, h BatchHeader, lim Limits) (maxTimestamp int64, err error) {
	c := cursor{b: b[BatchHeaderSize:]}
	maxTimestamp = noTimestamp
	var refused *RecordsError
	for i := int32(0); i < h.Count; i++ {
		r, ok := c.record(i)
		if !ok {
			return 0, fmt.Errorf("%w: record %d of %d is malformed", ErrInvalidRecord, i, h.Count)
		}
		timestamp := h.BaseTimestamp + r.timestampDelta
		if h.LogAppendTime() {
			timestamp = h.MaxTimestamp
		}
		maxTimestamp = max(maxTimestamp, timestamp)
		switch {
		case lim.RequireKey && !r.hasKey && !h.IsControl():
			refused = refused.add(i, ErrInvalidRecord, "no key, and the topic is compacted")
		case !lim.timeAllowed(timestamp):
			refused = refused.add(i, ErrInvalidTimestamp, "timestamp outside the topic's window")
		}
	}
	if refused != nil {
		return 0, refused
	}
	if len(c.b) != 0 {
		return 0, fmt.Errorf("%w: %d bytes after the last record", ErrInvalidRecord, len(c.b))
	}
	return maxTimestamp, nil
}

func (e *RecordsError) add(index int32, err error, reason string) *RecordsError {
	if e == nil {
		return &RecordsError{Indexes: []int32{index}, Reason: reason, Err: err}
	}
	// As in Kafka, one bad timestamp makes the whole answer INVALID_TIMESTAMP.
	if err == ErrInvalidTimestamp {
		e.Err = err
	}
	if len(e.Indexes) < maxRecordErrors {
		e.Indexes = append(e.Indexes, index)
	}
	return e
}

// record is what validation needs of one record.
type record struct {
	timestampDelta int64
	hasKey         bool
}

// cursor eats the records section of a batch from the front. Every length is bounded by what is left.
type cursor struct{ b []byte }

// record reads one whole record that must carry offset delta want.
func (c *cursor) record(want int32) (record, bool) {
	length, ok := c.varint()
	if !ok || length < 0 || length > int64(len(c.b)) {
		return record{}, false
	}
	body := cursor{b: c.b[:length]}
	c.b = c.b[length:]
	if len(body.b) == 0 {
		return record{}, false
	}
	body.b = body.b[1:] // attributes, unused
	timestampDelta, ok1 := body.varint()
	offsetDelta, ok2 := body.varint()
	keyLen, ok3 := body.bytes()
	_, ok4 := body.bytes()
	ok = ok1 && ok2 && ok3 && ok4 && offsetDelta == int64(want) && body.headers() && len(body.b) == 0
	return record{timestampDelta: timestampDelta, hasKey: keyLen >= 0}, ok
}

func (c *cursor) headers() bool {
	n, ok := c.varint()
	if !ok || n < 0 || n > int64(len(c.b)) {
		return false
	}
	for ; n > 0; n-- {
		keyLen, ok := c.bytes()
		if !ok || keyLen < 0 { // a header key is never null
			return false
		}
		if _, ok = c.bytes(); !ok {
			return false
		}
	}
	return true
}

// bytes skips a length-prefixed field and gives its length, -1 for null.
func (c *cursor) bytes() (int64, bool) {
	n, ok := c.varint()
	if !ok || n < -1 || n > int64(len(c.b)) {
		return 0, false
	}
	if n > 0 {
		c.b = c.b[n:]
	}
	return n, true
}

// varint reads one zigzag varint of up to 64 bits.
func (c *cursor) varint() (int64, bool) {
	if len(c.b) > 0 && c.b[0] < 0x80 { // one byte: by far the most common
		v := c.b[0]
		c.b = c.b[1:]
		return int64(v>>1) ^ -int64(v&1), true
	}
	v, n := binary.Varint(c.b)
	if n <= 0 {
		return 0, false
	}
	c.b = c.b[n:]
	return v, true
}
