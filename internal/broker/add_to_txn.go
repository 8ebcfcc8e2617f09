package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions"
	"lagoon/internal/transactions/txn"
)

// AddPartitionsToTxn (key 24)
//
// Behaviour:
//   - Answered when the partitions are on record as part of the transaction. While the transaction before is being ended it waits for a
//     moment; then CONCURRENT_TRANSACTIONS.
//   - One partition that does not exist: UNKNOWN_TOPIC_OR_PARTITION for it, OPERATION_NOT_ATTEMPTED for the others of the transaction. One of
//     an internal topic, which clients do not write to: TOPIC_AUTHORIZATION_FAILED, as in Kafka.
//
// Version notes: 4 brings several transactions and verify_only, for brokers among themselves; 2 PRODUCER_FENCED.

func (b *Broker) beginAddPartitionsToTxn(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.AddPartitionsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	asked := req.Transactions
	if r.version < 4 {
		one := kmsg.NewAddPartitionsToTxnRequestTransaction()
		one.TransactionalID, one.ProducerID, one.ProducerEpoch = req.TransactionalID, req.ProducerID, req.ProducerEpoch
		for _, t := range req.Topics {
			ot := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
			ot.Topic, ot.Partitions = t.Topic, t.Partitions
			one.Topics = append(one.Topics, ot)
		}
		asked = append(asked, one)
	}
	snap := b.meta.Snapshot()
	var waits []transactions.Pending
	var codes []*[]*int16 // of the partitions of each transaction
	for i := range asked {
		out, places := txnPartitions(&asked[i])
		wait := b.addToTxn(ctx, snap, r.version, &asked[i], places)
		waits, codes = append(waits, wait), append(codes, &places)
		resp.Transactions = append(resp.Transactions, out)
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		for i, wait := range waits {
			if err := wait.Wait(ctx); err != txn.None {
				setAll(*codes[i], int16(err))
			}
		}
		if r.version < 4 {
			for _, t := range resp.Transactions[0].Topics {
				ot := kmsg.NewAddPartitionsToTxnResponseTopic()
				ot.Topic = t.Topic
				for _, p := range t.Partitions {
					op := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
					op.Partition, op.ErrorCode = p.Partition, p.ErrorCode
					ot.Partitions = append(ot.Partitions, op)
				}
				resp.Topics = append(resp.Topics, ot)
			}
			resp.Transactions = nil
		}
		return resp
	}
}

// txnPartitions makes the answer for one transaction and lists the places of its codes, in the order of the request.
func txnPartitions(asked *kmsg.AddPartitionsToTxnRequestTransaction) (out kmsg.AddPartitionsToTxnResponseTransaction, places []*int16) {
	out = kmsg.NewAddPartitionsToTxnResponseTransaction()
	out.TransactionalID = asked.TransactionalID
	for _, t := range asked.Topics {
		ot := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		ot.Topic = t.Topic
		ot.Partitions = make([]kmsg.AddPartitionsToTxnResponseTransactionTopicPartition, len(t.Partitions))
		for i, p := range t.Partitions {
			ot.Partitions[i] = kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
			ot.Partitions[i].Partition = p
			places = append(places, &ot.Partitions[i].ErrorCode)
		}
		out.Topics = append(out.Topics, ot)
	}
	return out, places
}

func setAll(places []*int16, code int16) {
	for _, p := range places {
		*p = code
	}
}

// addToTxn carries one transaction out.
func (b *Broker) addToTxn(ctx context.Context, snap *metadata.Snapshot, version int16, asked *kmsg.AddPartitionsToTxnRequestTransaction, places []*int16) (wait transactions.Pending) {
	var parts []txn.Partition
	refused := false
	for _, t := range asked.Topics {
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		for _, p := range t.Partitions {
			switch {
			case version < 4 && internalTopic(t.Topic):
				*places[len(parts)], refused = kerr.TopicAuthorizationFailed.Code, true
			case err != nil || p < 0 || p >= topic.Partitions:
				*places[len(parts)], refused = kerr.UnknownTopicOrPartition.Code, true
			}
			parts = append(parts, txn.Partition{Topic: t.Topic, Index: p})
		}
	}
	if refused {
		for _, p := range places {
			if *p == 0 {
				*p = kerr.OperationNotAttempted.Code
			}
		}
		return wait
	}
	code := func(err txn.Error) int16 { return int16(fencedCode(err, version >= 2)) }
	who := txn.Identity{ID: asked.ProducerID, Epoch: asked.ProducerEpoch}
	if asked.VerifyOnly {
		for i, p := range parts {
			_, err := b.txns.Verify(ctx, asked.TransactionalID, who, p)
			*places[i] = code(err)
		}
		return wait
	}
	wait, err := b.txns.AddPartitions(ctx, asked.TransactionalID, who, parts, protocolExplicit)
	if err != txn.None {
		setAll(places, code(err))
	}
	return wait
}

// AddOffsetsToTxn (key 25)
//
// Behaviour: adds the group's partition of __consumer_offsets to the transaction.
//
// Version notes: 2 brings PRODUCER_FENCED, 4 TRANSACTION_ABORTABLE.

func (b *Broker) beginAddOffsetsToTxn(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.AddOffsetsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	p, err := b.groupPartition(ctx, req.Group)
	if err != nil {
		resp.ErrorCode = kerrCode(err)
		return answered(resp)
	}
	who := txn.Identity{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	wait, failed := b.txns.AddPartitions(ctx, req.TransactionalID, who, []txn.Partition{p}, protocolExplicit)
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if failed == txn.None {
			failed = wait.Wait(ctx)
		}
		resp.ErrorCode = int16(fencedCode(olderTxnCode(failed, r.version >= 4), r.version >= 2))
		return resp
	}
}

// groupPartition is the partition of __consumer_offsets that a group belongs to.
func (b *Broker) groupPartition(ctx context.Context, group string) (txn.Partition, error) {
	if group == "" {
		return txn.Partition{}, kerr.InvalidGroupID
	}
	if b.startGroups(ctx) != nil {
		return txn.Partition{}, kerr.CoordinatorNotAvailable
	}
	t, ok := b.meta.Snapshot().Topic(groups.Topic)
	if !ok {
		return txn.Partition{}, kerr.CoordinatorNotAvailable
	}
	return txn.Partition{Topic: t.Name, Index: statetopic.PartitionFor(group, t.Partitions)}, nil
}
