package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/transactions/txn"
)

// EndTxn (key 26)
//
// Behaviour: answered when the decision is on stable storage: from then on the transaction is committed or aborted, whatever happens.
// Readers see it when the markers are durable, which is soon after.
//
// Version notes: 2 brings PRODUCER_FENCED, 4 TRANSACTION_ABORTABLE, 5 ends transactions of protocol 2 and tells the producer id and
// epoch to go on with.

func (b *Broker) beginEndTxn(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.EndTxnRequest)
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	protocol := int16(protocolExplicit)
	if r.version >= 5 {
		protocol = protocolImplicit
	}
	next, wait, err := b.txns.End(ctx, req.TransactionalID, txn.Identity{ID: req.ProducerID, Epoch: req.ProducerEpoch}, req.Commit, protocol)
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if err == txn.None {
			err = wait.Wait(ctx)
		}
		resp.ErrorCode = int16(fencedCode(err, r.version >= 2))
		if err == txn.None && r.version >= 5 {
			resp.ProducerID, resp.ProducerEpoch = next.ID, next.Epoch
		}
		return resp
	}
}
