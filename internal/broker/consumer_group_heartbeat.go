package broker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/metadata"
)

// ConsumerGroupHeartbeat (key 68, KIP-848)
//
// Behaviour:
//   - The rules of a group are those of internal/groups/consumer. What is told is durable, as in Kafka.
//   - An instance id, rack or assignor of "" is as good as none.
//   - Regular expressions are RE2 and match whole names, internal topics too; they are matched before the answer, so the first one may hold topics.
//   - Topics are named by id only.
//
// Version notes: 0 lets the broker choose the member id; 1 has the client choose it (KIP-1082), and brings regular expressions.

func (b *Broker) beginConsumerGroupHeartbeat(ctx context.Context, r *request) promise {
	req := r.body.(*kmsg.ConsumerGroupHeartbeatRequest)
	ask := consumer.HeartbeatRequest{MemberID: req.MemberID, Epoch: req.MemberEpoch, InstanceID: str(req.InstanceID), RackID: str(req.RackID),
		ClientID: r.clientID, Host: r.peer.host, Rebalance: -1, Topics: req.SubscribedTopicNames, Regex: req.SubscribedTopicRegex, Assignor: str(req.ServerAssignor)}
	if req.RebalanceTimeoutMillis >= 0 {
		ask.Rebalance = millis(req.RebalanceTimeoutMillis)
	}
	if req.Topics != nil {
		ask.Owned = make([]consumer.TopicPartitions, len(req.Topics))
		for i, t := range req.Topics {
			ask.Owned[i] = consumer.TopicPartitions{ID: t.TopicID, Partitions: t.Partitions}
		}
	}
	if r.version == 0 && req.MemberID == "" && req.MemberEpoch == 0 {
		ask.MemberID = newConsumerID()
	}
	if err := b.startGroups(ctx); err != nil {
		return answered(b.heartbeatResponse(req, consumer.HeartbeatResult{Refused: &consumer.Refusal{Code: classic.CoordinatorNotAvailable}}))
	}
	res, wait := b.groups.ConsumerHeartbeat(req.Group, ask)
	if res.Refused != nil {
		return answered(b.heartbeatResponse(req, res))
	}
	return func(ctx context.Context, _ <-chan struct{}) kmsg.Response {
		if err := wait.Wait(ctx); err != classic.None {
			res = consumer.HeartbeatResult{Refused: &consumer.Refusal{Code: err}}
		}
		return b.heartbeatResponse(req, res)
	}
}

func (b *Broker) heartbeatResponse(req *kmsg.ConsumerGroupHeartbeatRequest, res consumer.HeartbeatResult) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	if res.Refused != nil {
		resp.ErrorCode, resp.ErrorMessage = int16(res.Refused.Code), nullable(res.Refused.Text)
		return resp
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &res.MemberID, res.Epoch, int32(res.Heartbeat.Milliseconds())
	if res.Assigned {
		out := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
		for _, t := range res.Assignment {
			ot := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
			ot.TopicID, ot.Partitions = t.ID, t.Partitions
			out.Topics = append(out.Topics, ot)
		}
		resp.Assignment = &out
	}
	return resp
}

// newConsumerID makes a member id as Kafka does: 22 characters of base64url.
func newConsumerID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(u[:])
}

// groupTopics are the topics of a snapshot, for groups.
type groupTopics struct{ s *metadata.Snapshot }

func (t groupTopics) Version() uint64 { return t.s.Version + 1 }

func (t groupTopics) Find(name string) (id consumer.TopicID, partitions int32, ok bool) {
	topic, ok := t.s.Topic(name)
	if !ok {
		return id, 0, false
	}
	return consumer.TopicID(topic.ID), topic.Partitions, true
}

func (t groupTopics) Name(id consumer.TopicID) (string, bool) {
	topic, ok := t.s.TopicByID(metadata.ID(id))
	if !ok {
		return "", false
	}
	return topic.Name, true
}

func (t groupTopics) Names() []string { return t.s.Names() }

// groupSettings are those of the broker, and over them those of one group's configs.
func (b *Broker) groupSettings(base func(string) consumer.Settings) func(string) consumer.Settings {
	return func(group string) consumer.Settings {
		set := base(group)
		configs, ok := b.meta.Snapshot().GroupConfigs[group]
		if !ok {
			return set
		}
		override := func(key string, field *time.Duration) {
			if ms, err := strconv.Atoi(strings.TrimSpace(configs[key])); err == nil && ms > 0 {
				*field = time.Duration(ms) * time.Millisecond
			}
		}
		override(metadata.ConsumerSessionTimeout, &set.Session)
		override(metadata.ConsumerHeartbeatInterval, &set.Heartbeat)
		set.Heartbeat = min(set.Heartbeat, set.Session/2) // a member could not keep its session otherwise
		return set
	}
}

var _ groups.Topics = groupTopics{}
