package broker

import (
	"context"
	"errors"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/quotas"
	"lagoon/internal/transactions"
	"lagoon/segment"
)

// codes says what a client is told of each error that our packages define. The order matters only where one error wraps
// another: the first row that matches wins.
//
// A full disk is answered with KAFKA_STORAGE_ERROR: every client retries it, and no other retriable code says "disk".
var codes = []struct {
	err  error
	code *kerr.Error
}{
	{partition.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	{partition.ErrFenced, kerr.KafkaStorageError},
	{partition.ErrDiskFull, kerr.KafkaStorageError},
	{partition.ErrNoAnswer, kerr.KafkaStorageError},
	{partition.ErrClosed, kerr.NotLeaderForPartition},
	{partition.ErrExists, kerr.TopicAlreadyExists},
	{partition.ErrNoLogDir, kerr.LogDirNotFound},
	{partition.ErrPlacement, kerr.InvalidReplicaAssignment},

	{segment.ErrCorruptBatch, kerr.CorruptMessage},
	{segment.ErrInvalidRecord, kerr.InvalidRecord},
	{segment.ErrMessageTooLarge, kerr.MessageTooLarge},
	{segment.ErrInvalidTimestamp, kerr.InvalidTimestamp},
	{segment.ErrUnsupportedCompression, kerr.UnsupportedCompressionType},
	{segment.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{segment.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{segment.ErrInvalidTxnState, kerr.InvalidTxnState},
	{segment.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced},
	{groups.ErrNotReady, kerr.CoordinatorNotAvailable},
	{transactions.ErrGone, kerr.UnknownTopicOrPartition},
	{segment.ErrUnknownProducer, kerr.UnknownProducerID},
	{segment.ErrSealed, kerr.KafkaStorageError},
	{segment.ErrClosed, kerr.KafkaStorageError},
	{segment.ErrSuperseded, kerr.NotLeaderForPartition}, // ask again
	{segment.ErrFull, kerr.RecordListTooLarge},
	{segment.ErrOutOfRange, kerr.OffsetOutOfRange},

	{metadata.ErrCorrupt, kerr.KafkaStorageError},
	{metadata.ErrNewer, kerr.KafkaStorageError},
	{metadata.ErrFailed, kerr.KafkaStorageError},
	{metadata.ErrNoSpace, kerr.KafkaStorageError},
	{metadata.ErrClosed, kerr.BrokerNotAvailable},
	{metadata.ErrTopicExists, kerr.TopicAlreadyExists},
	{metadata.ErrTopicDeleting, kerr.TopicAlreadyExists},
	{metadata.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{metadata.ErrInvalidTopic, kerr.InvalidTopicException},
	{metadata.ErrInvalidPartitions, kerr.InvalidPartitions},
	{metadata.ErrInvalidConfig, kerr.InvalidConfig},
	{metadata.ErrInvalidOverride, kerr.InvalidConfig},
	{metadata.ErrInvalidName, kerr.InvalidRequest},

	{quotas.ErrInvalid, kerr.InvalidRequest},

	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.RequestTimedOut},
}

// codeOf is the Kafka error code of err, 0 for nil. known is false for an error that has no row: the client is told
// UNKNOWN_SERVER_ERROR.
func codeOf(err error) (code int16, known bool) {
	if err == nil {
		return 0, true
	}
	if k, ok := errors.AsType[*kerr.Error](err); ok {
		return k.Code, true
	}
	if _, ok := errors.AsType[*segment.CorruptError](err); ok {
		return kerr.KafkaStorageError.Code, true
	}
	for _, row := range codes {
		if errors.Is(err, row.err) {
			return row.code.Code, true
		}
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok { // a disk's own word, which no package has wrapped: clients ask again
		return kerr.KafkaStorageError.Code, true
	}
	return kerr.UnknownServerError.Code, false
}

// code is codeOf with a log line for an error that nobody expected, or that only the disk knows of.
func (b *Broker) code(err error, doing string) int16 {
	code, known := codeOf(err)
	switch _, disk := errors.AsType[syscall.Errno](err); {
	case !known && b.noise.Allow():
		b.log.Error("unexpected error was answered as UNKNOWN_SERVER_ERROR", "doing", doing, "err", err)
	case known && disk && !errors.Is(err, partition.ErrFenced) && b.noise.Allow(): // fencing has been logged
		b.log.Error("storage error", "doing", doing, "err", err)
	}
	return code
}
