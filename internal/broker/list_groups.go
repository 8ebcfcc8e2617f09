package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups (key 16)
//
// Behaviour: there are no groups yet, so the list is empty whatever it is filtered by. It is served because kafka-configs asks for the
// groups before it shows the configuration of one, which exists before the group does.
//
// Version notes: 1 brings the throttle time, 4 a filter by state, 5 by type.

func (b *Broker) handleListGroups(_ context.Context, r *request) (kmsg.Response, error) {
	return r.body.(*kmsg.ListGroupsRequest).ResponseKind(), nil
}
