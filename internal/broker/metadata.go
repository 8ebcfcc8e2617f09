package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/transactions"
)

// Metadata (key 3)
//
// Behaviour:
//   - v0: no topics in the request means all. v1+: null means all, an empty list none (brokers only).
//   - A topic that does not exist is made when both the server and the client (v4+, always before) allow it. The answer then
//     names it with LEADER_NOT_AVAILABLE, which every client retries, old ones too; Kafka 4.3 says
//     UNKNOWN_TOPIC_OR_PARTITION there. Its partitions count against the client's controller_mutation_rate. A name that cannot be a topic, or collides with one, is INVALID_TOPIC_EXCEPTION.
//   - A topic asked for more than once is answered once, so a small request cannot ask for a huge answer.
//   - A partition whose log directory failed has LEADER_NOT_AVAILABLE, no leader and this node as offline replica.
//   - Authorized operations are computed on request only, INT32_MIN otherwise.
//   - The addresses are those of the listener the client came in by; the rack is null, not "", when there is none.
//
// Version notes: topic ids are answered from v10 and may be asked for from v12 (UNKNOWN_TOPIC_ID; KIP-516).

// maxAutoCreate bounds the topics that one request can make by naming them; clients ask again for the rest.
const maxAutoCreate = 100

func (b *Broker) handleMetadata(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.MetadataRequest)
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	snap := b.meta.Snapshot()

	host, port := b.advertised(r)
	node := kmsg.NewMetadataResponseBroker()
	node.NodeID, node.Host, node.Port, node.Rack = b.opt.NodeID, host, port, b.rack()
	resp.Brokers = append(resp.Brokers, node)
	resp.ClusterID = kmsg.StringPtr(snap.ClusterID)
	resp.ControllerID = b.opt.NodeID
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}

	describe := func(t *metadata.Topic) {
		resp.Topics = append(resp.Topics, b.metadataTopic(t, req.IncludeTopicAuthorizedOperations))
	}
	if req.Topics == nil || r.version == 0 && len(req.Topics) == 0 {
		for _, name := range snap.Names() {
			describe(snap.Topics[name])
		}
		return resp, nil
	}
	mayCreate := 0
	if b.opt.AutoCreateTopics && (r.version < 4 || req.AllowAutoTopicCreation) {
		mayCreate = maxAutoCreate
	}
	seen := map[string]bool{}
	for _, asked := range req.Topics {
		byID := asked.TopicID != [16]byte{}
		if byID && r.version < 12 || !byID && asked.Topic == nil && r.version >= 10 {
			resp.Topics = append(resp.Topics, missingTopic(asked, kerr.InvalidRequest.Code))
			continue
		}
		name := ""
		if asked.Topic != nil {
			name = *asked.Topic
		}
		key := "n" + name
		if byID {
			key = "i" + string(asked.TopicID[:])
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		t, err := findTopic(snap, byID, name, asked.TopicID)
		if err == nil {
			describe(t)
			continue
		}
		if !byID {
			if invalid := metadata.ValidateTopicName(name); invalid != nil {
				err = invalid
			} else if mayCreate > 0 {
				mayCreate--
				err = b.autoCreate(ctx, r, name)
			}
		}
		resp.Topics = append(resp.Topics, missingTopic(asked, b.code(err, "metadata of topic "+name)))
	}
	return resp, nil
}

// autoCreate makes a topic because a client named it. The error is what the client is told about it now: never nil. A client in debt by
// its controller_mutation_rate is told that there is no such topic, as in Kafka: it asks again.
func (b *Broker) autoCreate(ctx context.Context, r *request, name string) error {
	topic := newTopic{name: name, partitions: b.opt.DefaultPartitions}
	switch name {
	case groups.Topic:
		topic = b.offsetsTopic()
	case transactions.Topic:
		topic = b.transactionsTopic()
	default:
		if _, refused := b.limits.mutate(clientOf(r.clientID), topic.partitions, true); refused {
			return kerr.UnknownTopicOrPartition
		}
	}
	_, err := b.createTopic(ctx, topic)
	switch {
	case err == nil:
		b.log.Info("topic created because a client asked for it", "topic", name, "partitions", topic.partitions)
		return kerr.LeaderNotAvailable
	case errors.Is(err, metadata.ErrTopicExists): // another client was faster
		return kerr.LeaderNotAvailable
	}
	return err
}

func (b *Broker) rack() *string {
	if b.opt.Rack == "" {
		return nil
	}
	return kmsg.StringPtr(b.opt.Rack)
}

// missingTopic answers for a topic that is not there, by the name or id it was asked for.
func missingTopic(asked kmsg.MetadataRequestTopic, code int16) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.ErrorCode, out.Topic, out.TopicID = code, asked.Topic, asked.TopicID
	return out
}

func (b *Broker) metadataTopic(t *metadata.Topic, operations bool) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID, out.IsInternal = kmsg.StringPtr(t.Name), t.ID, internalTopic(t.Name)
	if operations {
		out.AuthorizedOperations = topicOperations
	}
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, t.Partitions)
	self := []int32{b.opt.NodeID} // shared by all: encoders only read
	for i := range out.Partitions {
		s := b.partitionState(t.Name, int32(i))
		p := kmsg.NewMetadataResponseTopicPartition()
		p.ErrorCode, p.Partition, p.Leader, p.LeaderEpoch = s.code, int32(i), s.leader, s.epoch
		p.Replicas, p.ISR, p.OfflineReplicas = self, self, []int32{}
		if s.offline {
			p.OfflineReplicas = self
		}
		out.Partitions[i] = p
	}
	return out
}

// partitionState is one partition as Metadata and DescribeTopicPartitions show it.
type partitionState struct {
	code    int16
	leader  int32
	epoch   int32
	offline bool // its log directory failed
}

func (b *Broker) partitionState(topic string, index int32) partitionState {
	epoch, served, err := b.files().state(topic, index)
	if err != nil || !served { // a partition that is not served is being made or deleted: clients look again
		return partitionState{kerr.LeaderNotAvailable.Code, -1, -1, err != nil}
	}
	return partitionState{0, b.opt.NodeID, epoch, false}
}
