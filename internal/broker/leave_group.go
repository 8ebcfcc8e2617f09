package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups/classic"
)

// LeaveGroup (key 13)
//
// Behaviour: members leave, or are removed by an administrator by their instance ids alone.
//
// Version notes: up to 2 one member, whose error is that of the response; from 3 a list (KIP-345); 5 brings a reason (KIP-800).

func (b *Broker) handleLeaveGroup(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.LeaveGroupRequest)
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	leavers := []classic.Leaver{{MemberID: req.MemberID}}
	if r.version >= 3 {
		leavers = make([]classic.Leaver, len(req.Members))
		for i, m := range req.Members {
			leavers[i] = classic.Leaver{MemberID: m.MemberID, InstanceID: str(m.InstanceID)}
		}
	}
	errs, err := b.groups.Leave(req.Group, leavers)
	resp.ErrorCode = int16(err)
	if err != classic.None {
		return resp, nil
	}
	if r.version < 3 {
		resp.ErrorCode = int16(errs[0])
		return resp, nil
	}
	for i, m := range req.Members {
		out := kmsg.NewLeaveGroupResponseMember()
		out.MemberID, out.InstanceID, out.ErrorCode = m.MemberID, m.InstanceID, int16(errs[i])
		resp.Members = append(resp.Members, out)
	}
	return resp, nil
}
