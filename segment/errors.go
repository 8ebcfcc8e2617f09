package segment

import (
	"errors"
	"fmt"
)

// What is wrong with a batch that a client sent. The broker maps each to one Kafka error code.
var (
	// ErrCorruptBatch: the batch contradicts itself or its checksum (CORRUPT_MESSAGE, 2).
	ErrCorruptBatch = errors.New("segment: corrupt batch")
	// ErrInvalidRecord: well-formed bytes that a client may not send (INVALID_RECORD, 87).
	ErrInvalidRecord = errors.New("segment: invalid record batch")
	// ErrMessageTooLarge: larger than Limits.MaxBatchBytes (MESSAGE_TOO_LARGE, 10).
	ErrMessageTooLarge = errors.New("segment: batch too large")
	// ErrInvalidTimestamp: outside the topic's timestamp window (INVALID_TIMESTAMP, 32).
	ErrInvalidTimestamp = errors.New("segment: timestamp outside the allowed window")
	// ErrUnsupportedCompression: a compression id that does not exist (UNSUPPORTED_COMPRESSION_TYPE, 76).
	ErrUnsupportedCompression = errors.New("segment: unsupported compression type")
)

// What producer state says about a batch's epoch and sequence.
var (
	// ErrOutOfOrderSequence: a gap, or a new epoch that does not start at 0 (OUT_OF_ORDER_SEQUENCE_NUMBER, 45).
	ErrOutOfOrderSequence = errors.New("segment: out of order sequence number")
	// ErrInvalidProducerEpoch: an epoch older than the current one (INVALID_PRODUCER_EPOCH, 47; PRODUCER_FENCED, 90, for
	// versions that know it).
	ErrInvalidProducerEpoch = errors.New("segment: producer epoch is fenced by a newer one")
	// ErrInvalidTxnState: a write outside the transaction that the producer has open, or inside one that the coordinator does not
	// know of (INVALID_TXN_STATE, 48).
	ErrInvalidTxnState = errors.New("segment: invalid transaction state")
	// ErrCoordinatorFenced: a marker of a transaction coordinator that another one has replaced (TRANSACTION_COORDINATOR_FENCED, 72).
	ErrCoordinatorFenced = errors.New("segment: transaction coordinator is fenced by a newer one")
	// ErrUnknownProducer is UNKNOWN_PRODUCER_ID (59). As in Kafka since KIP-360, an unknown producer's batch is accepted
	// whatever its sequence; the error remains for a caller that asks for a producer by id.
	ErrUnknownProducer = errors.New("segment: unknown producer id")
)

// CoordinatorFencedError is ErrCoordinatorFenced with the coordinator's epoch that the partition has seen.
type CoordinatorFencedError struct {
	ProducerID     int64
	Epoch, Current int32
}

func (e *CoordinatorFencedError) Error() string {
	return fmt.Sprintf("%v: marker of coordinator epoch %d for producer %d, current is %d", ErrCoordinatorFenced, e.Epoch, e.ProducerID, e.Current)
}

func (e *CoordinatorFencedError) Unwrap() error { return ErrCoordinatorFenced }

// Using segments.
var (
	// ErrSealed: an append to a sealed segment.
	ErrSealed = errors.New("segment: sealed")
	// ErrClosed: the writer was closed, or the reader is retired.
	ErrClosed = errors.New("segment: closed")
	// ErrSuperseded: another segment has taken this one's place, and its names. Look the segment up again.
	ErrSuperseded = errors.New("segment: another segment has taken its place")
	// ErrFull: the batch does not fit: size, 32-bit relative offset or index. Roll, then append it to the next segment.
	ErrFull = errors.New("segment: full")
	// ErrOutOfRange: an offset or position outside the segment.
	ErrOutOfRange = errors.New("segment: out of range")
)

// CorruptError says that bytes on disk are not what was written, where, and what was seen. It is the one corruption
// error of the project: errors.As finds it through every layer.
type CorruptError struct {
	Path string // below the FS root
	Pos  int64  // byte position of the fault; -1 for the file as a whole
	// End is the first byte after the bad range; 0 when only a position is known.
	End int64
	// First and Next are the offsets lost with the range, half-open; both 0 when unknown.
	First, Next Offset
	Want, Got   any // nil when there is nothing to compare
	Err         error
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("corrupt %s", e.Path)
	if e.Pos >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Pos)
	}
	if e.End > e.Pos {
		s += fmt.Sprintf(" to %d", e.End)
	}
	if e.Next > e.First {
		s += fmt.Sprintf(" (offsets %d to %d)", e.First, e.Next-1)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Want != nil || e.Got != nil {
		s += fmt.Sprintf(": want %v, got %v", e.Want, e.Got)
	}
	return s
}

func (e *CorruptError) Unwrap() error { return e.Err }

// isCorrupt tells damage from a failing device.
func isCorrupt(err error) bool {
	_, ok := errors.AsType[*CorruptError](err)
	return ok
}
