package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FindCoordinator (key 10)
//
// Behaviour: the only node is the coordinator of every group and transaction. The internal topic of each is made when the first client asks;
// COORDINATOR_NOT_AVAILABLE when that fails. Any other kind of key: INVALID_REQUEST with a text, which is final for clients.
//
// librdkafka takes the presence of this API for the sign that a broker can store lz4 (its feature table,
// rdkafka_feature.c): without it, lz4 producers silently send uncompressed batches.
//
// Version notes: 1 brings the kind of the key and the text, 4 lists of keys (KIP-699), 5 only allows new error codes, 6 share groups.

// Kinds of coordinator keys.
const (
	coordinatorOfGroup       = 0
	coordinatorOfTransaction = 1
)

func (b *Broker) handleFindCoordinator(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	node := int32(-1)
	host, port := "", int32(-1)
	err := coordinates(r.version, req.CoordinatorType)
	if err == nil {
		start := b.startGroups
		if r.version > 0 && req.CoordinatorType == coordinatorOfTransaction {
			start = b.startTransactions
		}
		if start(ctx) != nil {
			err = refuse(kerr.CoordinatorNotAvailable, "The coordinator's internal topic could not be created; the broker's log has the reason.")
		}
	}
	if err == nil {
		node = b.opt.NodeID
		host, port = b.advertised(r)
	}
	if r.version < 4 {
		resp.NodeID, resp.Host, resp.Port = node, host, port
		resp.ErrorCode, resp.ErrorMessage = b.code(err, "find coordinator"), clientText(err)
		return resp, nil
	}
	for _, key := range req.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port = key, node, host, port
		c.ErrorCode, c.ErrorMessage = b.code(err, "find coordinator"), clientText(err)
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp, nil
}

// coordinates says whether keys of a kind have a coordinator. Version 0 knows groups only, and no kind.
func coordinates(version int16, kind int8) error {
	switch {
	case version == 0 || kind == coordinatorOfGroup || kind == coordinatorOfTransaction:
		return nil
	}
	return refuse(kerr.InvalidRequest, "No coordinator is responsible for keys of type %d", kind)
}
