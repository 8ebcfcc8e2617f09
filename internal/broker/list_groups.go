package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups/classic"
)

// ListGroups (key 16)
//
// Behaviour: filters know no case; a state or type that no group can have selects nothing. While groups are loaded after a start:
// COORDINATOR_LOAD_IN_PROGRESS.
//
// Version notes: 1 brings the throttle time, 4 states and a filter by them, 5 types.

func (b *Broker) handleListGroups(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	list, err := b.groups.List(req.StatesFilter)
	if err != classic.None {
		resp.ErrorCode = int16(err)
		return resp, nil
	}
	for _, g := range list {
		asked := func(kind string) bool { return strings.EqualFold(kind, string(g.Type)) }
		if len(req.TypesFilter) > 0 && !slices.ContainsFunc(req.TypesFilter, asked) {
			continue
		}
		out := kmsg.NewListGroupsResponseGroup()
		out.Group, out.ProtocolType, out.GroupState, out.GroupType = g.Group, g.ProtocolType, string(g.State), string(g.Type)
		resp.Groups = append(resp.Groups, out)
	}
	return resp, nil
}
