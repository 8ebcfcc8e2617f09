package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders (key 43)
//
// Behaviour:
//   - There is one replica, and it leads: ELECTION_NOT_NEEDED for every partition that is served, of either kind of election. One whose
//     directory failed has no leader to elect: PREFERRED_LEADER_NOT_AVAILABLE, ELIGIBLE_LEADERS_NOT_AVAILABLE.
//   - Null topics mean all; those that need no election are not named then, as in Kafka.
//   - Nothing waits for anything, so the timeout does not count. Kafka answers a timeout of 0 with REQUEST_TIMED_OUT.
//
// Version notes: the kind of election and the error of the whole request from v1 on; before it is the preferred one.

// Kinds of elections.
const (
	electPreferred = 0
	electUnclean   = 1
)

func (b *Broker) handleElectLeaders(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	kind := req.ElectionType
	if r.version >= 1 && kind != electPreferred && kind != electUnclean {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp, nil
	}
	snap := b.meta.Snapshot()
	asked := req.Topics
	if asked == nil {
		for _, name := range snap.Names() {
			t := kmsg.NewElectLeadersRequestTopic()
			t.Topic = name
			for p := range snap.Topics[name].Partitions {
				t.Partitions = append(t.Partitions, p)
			}
			asked = append(asked, t)
		}
	}
	for _, t := range asked {
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = t.Topic
		for _, index := range t.Partitions {
			err := b.electLeader(t.Topic, index, kind)
			if req.Topics == nil && err == errNotNeeded {
				continue
			}
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition, p.ErrorCode, p.ErrorMessage = index, b.code(err, "elect leader"), clientText(err)
			out.Partitions = append(out.Partitions, p)
		}
		if req.Topics != nil || len(out.Partitions) > 0 {
			resp.Topics = append(resp.Topics, out)
		}
	}
	return resp, nil
}

var errNotNeeded = refuse(kerr.ElectionNotNeeded, "Leader election not needed for topic partition.")

// electLeader is never nil: there is nothing to elect, or nobody.
func (b *Broker) electLeader(topic string, index int32, kind int8) error {
	t, ok := b.meta.Snapshot().Topic(topic)
	switch {
	case !ok:
		return refuse(kerr.UnknownTopicOrPartition, "No such topic as %.250s", topic)
	case index < 0 || index >= t.Partitions:
		return refuse(kerr.UnknownTopicOrPartition, "No such partition as %.250s-%d", topic, index)
	}
	switch _, served, offline := b.files().state(topic, index); {
	case served && offline == nil:
		return errNotNeeded
	case kind == electUnclean:
		return kerr.EligibleLeadersNotAvailable
	}
	return kerr.PreferredLeaderNotAvailable
}
