package broker

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/transactions/txn"
)

// InitProducerId (key 22)
//
// Behaviour:
//   - Without a transactional id: a new producer id with epoch 0 each time, as in Kafka; idempotent producers raise their
//     epoch themselves (KIP-360). Ids are reserved durably in blocks, so none is given twice, whatever happens.
//   - With a transactional id: the id's producer with the next epoch, which fences whoever had it before. A transaction that is open is
//     aborted first; when that takes long, CONCURRENT_TRANSACTIONS, and the client asks again. An empty one: INVALID_REQUEST.
//
// Version notes: 3 carries the producer's own idea of its id and epoch (KIP-360), 4 brings PRODUCER_FENCED.

// producerIDBlock is how many ids are reserved with one write to the catalogue (Kafka: 1000). A restart skips the rest.
const producerIDBlock = 1000

// producerIDs gives out ids of the reserved block.
type producerIDs struct {
	mu        sync.Mutex
	next, end int64
}

// take gives the next id and reserves a new block when the old one is used up.
func (p *producerIDs) take(reserve func(n int64) (first int64, err error)) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == p.end {
		first, err := reserve(producerIDBlock)
		if err != nil {
			return -1, err
		}
		p.next, p.end = first, first+producerIDBlock
	}
	id := p.next
	p.next++
	return id, nil
}

func (b *Broker) beginInitProducerID(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if (req.ProducerID == -1) != (req.ProducerEpoch == -1) { // both or neither (KIP-360)
		resp.ErrorCode = kerr.InvalidRequest.Code
		return answered(resp)
	}
	if req.TransactionalID == nil {
		id, err := b.ids.take(b.meta.ReserveProducerIDs)
		if err != nil {
			resp.ErrorCode = b.code(err, "reserve producer ids")
			return answered(resp)
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
		return answered(resp)
	}
	if *req.TransactionalID == "" {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return answered(resp)
	}
	who := txn.Unknown
	if r.version >= 3 {
		who = txn.Identity{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	}
	if b.startTransactions(ctx) != nil {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return answered(resp)
	}
	got, wait, err := b.txns.InitProducer(ctx, *req.TransactionalID, who, millis(req.TransactionTimeoutMillis))
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if err == txn.None {
			err = wait.Wait(ctx)
		}
		resp.ErrorCode = int16(fencedCode(err, r.version >= 4))
		if err == txn.None {
			resp.ProducerID, resp.ProducerEpoch = got.ID, got.Epoch
		}
		return resp
	}
}
