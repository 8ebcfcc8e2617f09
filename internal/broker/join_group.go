package broker

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
)

// JoinGroup (key 11)
//
// Behaviour:
//   - The rules of a group are those of internal/groups/classic. The answer waits, without a goroutine of the group, until the join
//     phase has ended; at shutdown it is NOT_COORDINATOR.
//   - A new member's id is its client id, or its instance id, and a random part, as in Kafka.
//   - A protocol named twice counts once, as the first.
//
// Version notes: 1 brings the rebalance timeout (0 uses the session's), 4 requires a known member id (KIP-394), 5 static members
// (KIP-345), 7 the protocol type in the answer (KIP-559), 9 skip_assignment (KIP-814).

// maxInstanceID is Kafka's limit of a group.instance.id, that of topic names.
const maxInstanceID = 249

func (b *Broker) beginJoinGroup(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.JoinGroupRequest)
	ask := groups.JoinRequest{Group: req.Group, JoinRequest: classic.JoinRequest{
		MemberID: req.MemberID, InstanceID: str(req.InstanceID), ClientID: r.clientID, Host: r.peer.host, ProtocolType: req.ProtocolType,
		Session: millis(req.SessionTimeoutMillis), Rebalance: millis(req.RebalanceTimeoutMillis),
		NeedsID: r.version >= 4, CanSkip: r.version >= 9,
	}}
	if r.version < 1 {
		ask.Rebalance = ask.Session
	}
	ask.Protocols = protocolsOf(req.Protocols)
	if req.MemberID == "" {
		ask.NewID = newMemberID(ask.ClientID, ask.InstanceID)
	}
	if len(ask.InstanceID) > maxInstanceID || len(req.MemberID) > maxInstanceID+uuidLength+1+maxClientID {
		return answered(joinResponse(req, classic.JoinResult{Err: classic.InvalidRequest, MemberID: req.MemberID, Generation: -1}))
	}
	if err := b.startGroups(ctx); err != nil {
		return answered(joinResponse(req, classic.JoinResult{Err: classic.CoordinatorNotAvailable, MemberID: req.MemberID, Generation: -1}))
	}
	answer := b.groups.Join(ask)
	req.Protocols = nil // the answer may take long, and needs none of it
	gone := classic.JoinResult{Err: classic.NotCoordinator, MemberID: req.MemberID, Generation: -1}
	return func(ctx context.Context, stopping <-chan struct{}) kmsg.Response {
		return joinResponse(req, await(ctx, stopping, answer, gone))
	}
}

// protocolsOf are the protocols of a request, each name once.
func protocolsOf(list []kmsg.JoinGroupRequestProtocol) []classic.Protocol {
	out := make([]classic.Protocol, 0, len(list))
	seen := make(map[string]struct{}, len(list)) // a request may name many
	for _, p := range list {
		if _, twice := seen[p.Name]; !twice {
			seen[p.Name] = struct{}{}
			out = append(out, classic.Protocol{Name: p.Name, Metadata: slices.Clone(p.Metadata)})
		}
	}
	return out
}

func joinResponse(req *kmsg.JoinGroupRequest, res classic.JoinResult) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.ErrorCode, resp.MemberID, resp.Generation = int16(res.Err), res.MemberID, res.Generation
	resp.LeaderID, resp.SkipAssignment = res.Leader, res.SkipAssignment
	if res.Err == classic.None {
		resp.ProtocolType, resp.Protocol = &res.ProtocolType, &res.Protocol
	}
	for _, m := range res.Members {
		out := kmsg.NewJoinGroupResponseMember()
		out.MemberID, out.InstanceID, out.ProtocolMetadata = m.ID, nullable(m.InstanceID), m.Metadata
		resp.Members = append(resp.Members, out)
	}
	return resp
}

const uuidLength = 36

// newMemberID makes an id that nobody has.
func newMemberID(clientID, instanceID string) string {
	var u [16]byte
	_, _ = rand.Read(u[:])                      // it never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version 4 (RFC 9562)
	name := clientID
	if instanceID != "" {
		name = instanceID
	}
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// str is "" for null.
func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// nullable is null for "".
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
