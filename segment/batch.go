package segment

// Offset is the position of a record in its partition's log, from 0.
type Offset int64

// BatchHeaderSize is the fixed size of a v2 record batch header, in bytes (KIP-98).
const BatchHeaderSize = 61

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
