package broker

import (
	"context"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
	"lagoon/internal/transactions"
	"lagoon/internal/transactions/txn"
)

// DescribeProducers (key 61)
//
// Behaviour: the producers that a partition remembers, with the first offset of the transaction that each has open there. Partitions for which
// the response has no room (maxAnswerBytes) are INVALID_REQUEST.

func (b *Broker) handleDescribeProducers(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeProducersRequest)
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	snap := b.meta.Snapshot()
	room := b.answerRoom()
	for _, t := range req.Topics {
		out := kmsg.NewDescribeProducersResponseTopic()
		out.Topic = t.Topic
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		if metadata.ValidateTopicName(t.Topic) != nil {
			err = kerr.InvalidTopicException
		}
		for _, p := range t.Partitions {
			part := kmsg.NewDescribeProducersResponseTopicPartition()
			part.Partition = p
			failed := err
			if !room.left() {
				failed = kerr.InvalidRequest
			}
			var log partitionLog
			if failed == nil {
				log, failed = b.partitionOf(topic, p)
			}
			if failed != nil {
				part.ErrorCode, part.ErrorMessage = b.code(failed, "describe producers"), clientText(failed)
			} else {
				part.ActiveProducers = activeProducers(log)
				room.take(producerRowBytes * len(part.ActiveProducers))
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// producerRowBytes is about what a row of the response takes: its fields, and where unknown tags would be.
const producerRowBytes = 64

func activeProducers(log partitionLog) []kmsg.DescribeProducersResponseTopicPartitionActiveProducer {
	list := []kmsg.DescribeProducersResponseTopicPartitionActiveProducer{}
	for _, v := range log.Producers() {
		p := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		p.ProducerID, p.ProducerEpoch, p.LastSequence = v.ProducerID, int32(v.Epoch), v.LastSequence
		p.LastTimestamp, p.CoordinatorEpoch, p.CurrentTxnStartOffset = v.LastTimestampMs, v.CoordinatorEpoch, int64(v.TxnFirstOffset)
		list = append(list, p)
	}
	return list
}

// DescribeTransactions (key 65)
//
// Behaviour: TRANSACTIONAL_ID_NOT_FOUND for an id that nobody uses. The start is -1 without a transaction. Ids for which the response has no room
// (maxAnswerBytes) are INVALID_REQUEST.

func (b *Broker) handleDescribeTransactions(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	room := b.answerRoom()
	for _, id := range req.TransactionalIDs {
		out := kmsg.NewDescribeTransactionsResponseTransactionState()
		out.TransactionalID = id
		if !room.left() {
			out.ErrorCode = kerr.InvalidRequest.Code
			resp.TransactionStates = append(resp.TransactionStates, out)
			continue
		}
		found, err := b.txns.Describe(id)
		if err == txn.CoordinatorNotAvailable && !b.txns.Started() {
			err = txn.TransactionalIDNotFound // there is no topic yet, so there are no ids
		}
		if out.ErrorCode = int16(err); err != txn.None {
			resp.TransactionStates = append(resp.TransactionStates, out)
			continue
		}
		out.State, out.TimeoutMillis = found.State.String(), int32(found.Timeout.Milliseconds())
		out.ProducerID, out.ProducerEpoch, out.StartTimestamp = found.ProducerID, found.Epoch, -1
		if !found.Started.IsZero() {
			out.StartTimestamp = found.Started.UnixMilli()
		}
		for _, p := range found.Partitions {
			if n := len(out.Topics); n == 0 || out.Topics[n-1].Topic != p.Topic {
				t := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
				t.Topic = p.Topic
				out.Topics = append(out.Topics, t)
				room.take(len(p.Topic))
			}
			t := &out.Topics[len(out.Topics)-1]
			t.Partitions = append(t.Partitions, p.Index)
		}
		room.take(len(id) + 4*len(found.Partitions))
		resp.TransactionStates = append(resp.TransactionStates, out)
	}
	return resp, nil
}

// ListTransactions (key 66)
//
// Behaviour: filters are combined; a state that does not exist is told back and matches nothing.
//
// Version notes: 1 filters by duration (KIP-994), 2 by a pattern of RE2 (KIP-1152).

func (b *Broker) handleListTransactions(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ListTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	f := transactions.Filter{ProducerIDs: req.ProducerIDFilters}
	for _, name := range req.StateFilters {
		if s, ok := txn.ParseState(name); ok {
			f.States = append(f.States, s)
		} else {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, name)
		}
	}
	if r.version >= 1 && req.DurationFilterMillis > 0 {
		f.OpenFor = time.Duration(min(req.DurationFilterMillis, maxDelayMs)) * time.Millisecond
	}
	if p := str(req.TransactionalIDPattern); r.version >= 2 && p != "" {
		pattern, err := regexp.Compile("^(?:" + p + ")$")
		if err != nil {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
			return resp, nil
		}
		f.Matches = pattern.MatchString
	}
	if len(resp.UnknownStateFilters) > 0 && len(f.States) == 0 {
		return resp, nil
	}
	list, err := b.txns.List(f)
	if resp.ErrorCode = int16(err); err != txn.None {
		return resp, nil
	}
	for _, t := range list {
		out := kmsg.NewListTransactionsResponseTransactionState()
		out.TransactionalID, out.ProducerID, out.TransactionState = t.ID, t.ProducerID, t.State.String()
		resp.TransactionStates = append(resp.TransactionStates, out)
	}
	return resp, nil
}
