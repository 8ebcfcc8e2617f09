package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat (key 12)
//
// Behaviour: as in Kafka; while groups are loaded after a start every heartbeat is fine, for sessions begin anew afterwards.
//
// Version notes: 3 brings static members (KIP-345).

func (b *Broker) handleHeartbeat(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.HeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	resp.ErrorCode = int16(b.groups.Heartbeat(req.Group, req.MemberID, str(req.InstanceID), req.Generation))
	return resp, nil
}
