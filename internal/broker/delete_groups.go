package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
)

// DeleteGroups (key 42)
//
// Behaviour: a group without members goes, with its offsets; NON_EMPTY_GROUP and GROUP_ID_NOT_FOUND otherwise. Answered when that is on
// stable storage.
//
// Version notes: 3 brings an error message, which is null: the codes say everything.

func (b *Broker) beginDeleteGroups(_ context.Context, r *request) promise {
	req := r.body.(*kmsg.DeleteGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(req.Groups))
	waits := make([]groups.Pending, len(req.Groups))
	for i, id := range req.Groups {
		out := kmsg.NewDeleteGroupsResponseGroup()
		wait, err := b.groups.Delete(id)
		out.Group, out.ErrorCode = id, int16(err)
		resp.Groups[i], waits[i] = out, wait
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		for i, wait := range waits {
			if err := wait.Wait(ctx); err != classic.None && resp.Groups[i].ErrorCode == 0 {
				resp.Groups[i].ErrorCode = int16(err)
			}
		}
		return resp
	}
}
