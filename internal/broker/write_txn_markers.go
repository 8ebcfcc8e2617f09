package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/transactions"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// WriteTxnMarkers (key 27)
//
// Behaviour: for brokers among themselves, and for the tool that ends hanging transactions (kafka-transactions --abort). A marker of an
// epoch or a coordinator that is over is refused: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
//
// Version notes: 2 brings the transaction's protocol (KIP-1228); in the second the epoch of a marker must be above the transaction's.

func (b *Broker) beginWriteTxnMarkers(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.WriteTxnMarkersRequest)
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	type written struct {
		code *int16
		wait func(context.Context) error
	}
	var waits []written
	for _, m := range req.Markers {
		out := kmsg.NewWriteTxnMarkersResponseMarker()
		out.ProducerID = m.ProducerID
		marker := transactions.Marker{ProducerID: m.ProducerID, Epoch: m.ProducerEpoch,
			Marker: segment.Marker{Commit: m.Committed, CoordinatorEpoch: m.CoordinatorEpoch}, AboveTxn: r.version >= 2 && m.TransactionVersion >= 2}
		for _, t := range m.Topics {
			ot := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			ot.Topic = t.Topic
			ot.Partitions = make([]kmsg.WriteTxnMarkersResponseMarkerTopicPartition, len(t.Partitions))
			for i, p := range t.Partitions {
				ot.Partitions[i] = kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				ot.Partitions[i].Partition = p
				code := &ot.Partitions[i].ErrorCode
				if m.ProducerID < 0 || m.ProducerEpoch < 0 {
					*code = kerr.InvalidProducerIDMapping.Code
					continue
				}
				wait, err := b.writeMarker(ctx, txn.Partition{Topic: t.Topic, Index: p}, marker)
				if err != nil {
					*code = b.code(err, "write transaction marker")
					continue
				}
				waits = append(waits, written{code, wait})
			}
			out.Topics = append(out.Topics, ot)
		}
		resp.Markers = append(resp.Markers, out)
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		for _, w := range waits {
			*w.code = b.code(w.wait(ctx), "write transaction marker")
		}
		return resp
	}
}
