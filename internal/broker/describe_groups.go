package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups/classic"
)

// DescribeGroups (key 15)
//
// Behaviour: metadata are told of stable groups only, and while a group rebalances the assignments before, as in Kafka. Groups for which the response has no room (maxAnswerBytes) are
// INVALID_REQUEST.
//
// Version notes: 3 brings authorized operations, 4 static members; up to 5 an unknown group is Dead without an error, from 6
// GROUP_ID_NOT_FOUND with a text.

func (b *Broker) handleDescribeGroups(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	room := b.answerRoom()
	for _, id := range req.Groups {
		out := kmsg.NewDescribeGroupsResponseGroup()
		out.Group = id
		if !room.left() {
			out.ErrorCode = kerr.InvalidRequest.Code
			resp.Groups = append(resp.Groups, out)
			continue
		}
		d, err := b.groups.Describe(id)
		switch {
		case err == classic.GroupIDNotFound && r.version < 6:
			err = classic.None
		case err == classic.GroupIDNotFound:
			out.ErrorMessage = clientText(refuse(kerr.GroupIDNotFound, "Group %s not found.", id))
		}
		if req.IncludeAuthorizedOperations && err == classic.None {
			out.AuthorizedOperations = groupOperations
		}
		out.ErrorCode, out.State, out.ProtocolType, out.Protocol = int16(err), string(d.State), d.ProtocolType, d.Protocol
		for _, m := range d.Members {
			om := kmsg.NewDescribeGroupsResponseGroupMember()
			om.MemberID, om.InstanceID, om.ClientID, om.ClientHost = m.ID, nullable(m.InstanceID), m.ClientID, m.Host
			om.ProtocolMetadata, om.MemberAssignment = m.Metadata, m.Assignment
			out.Members = append(out.Members, om)
			room.take(len(m.ID) + len(m.InstanceID) + len(m.ClientID) + len(m.Host) + len(m.Metadata) + len(m.Assignment))
		}
		resp.Groups = append(resp.Groups, out)
	}
	return resp, nil
}

const groupOperations = opRead | opDelete | opDescribe | opDescribeConfigs | opAlterConfigs
