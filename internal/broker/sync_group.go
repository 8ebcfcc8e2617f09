package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
)

// SyncGroup (key 14)
//
// Behaviour: the answer waits until the leader's assignment is on stable storage. From version 5 on a request without protocol type
// and name is INCONSISTENT_GROUP_PROTOCOL, as in Kafka.
//
// Version notes: 3 brings static members (KIP-345), 5 protocol type and name (KIP-559).

func (b *Broker) beginSyncGroup(_ context.Context, r *request) promise {
	req := r.body.(*kmsg.SyncGroupRequest)
	if r.version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		return answered(syncResponse(req, classic.SyncResult{Err: classic.InconsistentProtocol}))
	}
	ask := groups.SyncRequest{Group: req.Group, SyncRequest: classic.SyncRequest{
		MemberID: req.MemberID, InstanceID: str(req.InstanceID), Generation: req.Generation,
		ProtocolType: str(req.ProtocolType), Protocol: str(req.Protocol), Assignments: make(map[string][]byte, len(req.GroupAssignment)),
	}}
	for _, a := range req.GroupAssignment {
		ask.Assignments[a.MemberID] = slices.Clone(a.MemberAssignment)
	}
	answer := b.groups.Sync(ask)
	req.GroupAssignment = nil // the answer may take long, and needs none of it
	return func(ctx context.Context, stopping <-chan struct{}) kmsg.Response {
		return syncResponse(req, await(ctx, stopping, answer, classic.SyncResult{Err: classic.NotCoordinator}))
	}
}

func syncResponse(req *kmsg.SyncGroupRequest, res classic.SyncResult) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	resp.ErrorCode, resp.MemberAssignment = int16(res.Err), res.Assignment
	if res.Err == classic.None {
		resp.ProtocolType, resp.Protocol = &res.ProtocolType, &res.Protocol
	}
	if resp.MemberAssignment == nil {
		resp.MemberAssignment = []byte{}
	}
	return resp
}
