package broker

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId (key 22)
//
// Behaviour:
//   - Without a transactional id: a new producer id with epoch 0 each time, as in Kafka; idempotent producers raise their
//     epoch themselves (KIP-360). Ids are reserved durably in blocks, so none is given twice, whatever happens.
//   - With a transactional id: COORDINATOR_NOT_AVAILABLE. There is no transaction coordinator yet; clients retry until
//     their own timeout and then name it. An empty one: INVALID_REQUEST.

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

func (b *Broker) handleInitProducerID(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if (req.ProducerID == -1) != (req.ProducerEpoch == -1) { // both or neither (KIP-360)
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp, nil
	}
	switch {
	case req.TransactionalID == nil:
		id, err := b.ids.take(b.meta.ReserveProducerIDs)
		if err != nil {
			resp.ErrorCode = b.code(err, "reserve producer ids")
			return resp, nil
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	case *req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
	default:
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
	}
	return resp, nil
}
