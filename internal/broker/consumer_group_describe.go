package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

// ConsumerGroupDescribe (key 69, KIP-848)
//
// Behaviour: as in Kafka; a group of the classic protocol is GROUP_ID_NOT_FOUND, upon which tools ask by DescribeGroups. Groups for which the response has
// no room (maxAnswerBytes) are INVALID_REQUEST.
//
// Version notes: 1 tells which protocol a member uses (KIP-1099).

func (b *Broker) handleConsumerGroupDescribe(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ConsumerGroupDescribeRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	room := b.answerRoom()
	for _, id := range req.Groups {
		out := kmsg.NewConsumerGroupDescribeResponseGroup()
		out.Group = id
		if !room.left() {
			out.ErrorCode = kerr.InvalidRequest.Code
			resp.Groups = append(resp.Groups, out)
			continue
		}
		d, err := b.groups.DescribeConsumer(id)
		switch {
		case id == "":
			err = classic.InvalidGroupID
		case err == classic.GroupIDNotFound:
			out.ErrorMessage = clientText(refuse(kerr.GroupIDNotFound, "Group %s is not a consumer group.", id))
		}
		if err != classic.None {
			out.ErrorCode = int16(err)
			resp.Groups = append(resp.Groups, out)
			continue
		}
		if req.IncludeAuthorizedOperations {
			out.AuthorizedOperations = groupOperations
		}
		out.State, out.Epoch, out.AssignmentEpoch, out.AssignorName = string(d.State), d.Epoch, d.TargetEpoch, d.Assignor
		for _, m := range d.Members {
			om := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			om.MemberID, om.InstanceID, om.RackID = m.Member.ID, nullable(m.InstanceID), nullable(m.RackID)
			om.MemberEpoch, om.ClientID, om.ClientHost = m.Epoch, m.ClientID, m.Host
			om.SubscribedTopics, om.SubscribedTopicRegex = m.Topics, nullable(m.Regex)
			om.Assignment, om.TargetAssignment = namedAssignment(d.Topics, m.Assigned), namedAssignment(d.Topics, m.Target)
			room.take(len(m.Member.ID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.Host) + len(m.Regex))
			for _, name := range m.Topics {
				room.take(len(name))
			}
			for _, a := range [...]kmsg.Assignment{om.Assignment, om.TargetAssignment} {
				for _, t := range a.TopicPartitions {
					room.take(len(t.Topic) + 4*len(t.Partitions))
				}
			}
			om.MemberType = 1
			if m.Classic != nil {
				om.MemberType = 0
			}
			out.Members = append(out.Members, om)
		}
		resp.Groups = append(resp.Groups, out)
	}
	return resp, nil
}

// namedAssignment leaves out topics that were deleted.
func namedAssignment(topics groups.Topics, a consumer.Assignment) kmsg.Assignment {
	out := kmsg.NewAssignment()
	for _, t := range a {
		if name, ok := topics.Name(t.ID); ok {
			tp := kmsg.NewAssignmentTopicPartition()
			tp.TopicID, tp.Topic, tp.Partitions = t.ID, name, t.Partitions
			out.TopicPartitions = append(out.TopicPartitions, tp)
		}
	}
	return out
}
