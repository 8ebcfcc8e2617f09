package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/transactions/txn"
)

// TxnOffsetCommit (key 28)
//
// Behaviour:
//   - Offsets are kept with the transaction and told to nobody before its marker; OffsetFetch with require_stable says meanwhile
//     UNSTABLE_OFFSET_COMMIT.
//   - Acknowledged when on stable storage.
//
// Version notes: 2 brings the leader epoch, 3 the member and its generation (KIP-447), 4 TRANSACTION_ABORTABLE, 5 adds the group to the
// transaction by itself (KIP-890).

func (b *Broker) beginTxnOffsetCommit(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.TxnOffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	ask := groups.TxnCommitRequest{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch, CommitRequest: groups.CommitRequest{Group: req.Group,
		MemberID: req.MemberID, InstanceID: str(req.InstanceID), Generation: req.Generation, Retention: -1, ClientID: r.clientID, Host: r.peer.host}}
	var places []*int16 // of the codes of ask.Offsets
	snap := b.meta.Snapshot()
	for _, t := range req.Topics {
		out := kmsg.NewTxnOffsetCommitResponseTopic()
		out.Topic = t.Topic
		topic, err := findTopic(snap, false, t.Topic, [16]byte{})
		out.Partitions = make([]kmsg.TxnOffsetCommitResponseTopicPartition, len(t.Partitions))
		for i, p := range t.Partitions {
			out.Partitions[i] = kmsg.NewTxnOffsetCommitResponseTopicPartition()
			out.Partitions[i].Partition = p.Partition
			if failed := committable(topic, err, p.Partition); failed != nil {
				out.Partitions[i].ErrorCode = kerrCode(failed)
				continue
			}
			places = append(places, &out.Partitions[i].ErrorCode)
			ask.Offsets = append(ask.Offsets, groups.Offset{Topic: topic.Name, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: str(p.Metadata)})
		}
		resp.Topics = append(resp.Topics, out)
	}
	p, err := b.groupPartition(ctx, req.Group)
	if err != nil {
		setAll(places, kerrCode(err))
		return answered(resp)
	}
	if err := b.groups.Serves(req.Group); err != classic.None { // else it is not made part of a transaction, which could not end
		setAll(places, int16(err))
		return answered(resp)
	}
	who := txn.Identity{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	guard, drop, refused := b.openTransaction(ctx, groupTxnLog{b.groups, req.Group}, req.TransactionalID, who, p, r.version >= 5)
	if refused != txn.None {
		setAll(places, int16(fencedCode(olderTxnCode(refused, r.version >= 4), false))) // clients know INVALID_PRODUCER_EPOCH here
		return answered(resp)
	}
	ask.Guard = guard
	errs, wait, failed := b.groups.CommitTxn(ask)
	if failed != classic.None {
		drop()
		setAll(places, int16(failed))
		return answered(resp)
	}
	for i, err := range errs {
		*places[i] = int16(err)
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if err := wait.Wait(ctx); err != classic.None {
			for _, place := range places {
				if *place == 0 {
					*place = int16(err)
				}
			}
		}
		return resp
	}
}
