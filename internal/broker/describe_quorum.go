package broker

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeQuorum (key 55)
//
// Behaviour: the catalogue is a quorum of one: this node leads it, and its changes (metadata.Snapshot.Version) are the offsets of
// what tools know as __cluster_metadata-0. Any other partition is UNKNOWN_TOPIC_OR_PARTITION.
//
// Version notes: v1 brings times, v2 texts and the voters' addresses (KIP-853).

const metadataTopic = "__cluster_metadata"

func (b *Broker) handleDescribeQuorum(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DescribeQuorumRequest)
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	end := int64(b.meta.Snapshot().Version)
	for _, t := range req.Topics {
		out := kmsg.NewDescribeQuorumResponseTopic()
		out.Topic = t.Topic
		for _, asked := range t.Partitions {
			p := kmsg.NewDescribeQuorumResponseTopicPartition()
			p.Partition = asked.Partition
			if t.Topic != metadataTopic || asked.Partition != 0 {
				p.ErrorCode, p.ErrorMessage = kerr.UnknownTopicOrPartition.Code, clientText(kerr.UnknownTopicOrPartition)
				p.LeaderID, p.LeaderEpoch, p.HighWatermark = -1, -1, -1
				out.Partitions = append(out.Partitions, p)
				continue
			}
			p.LeaderID, p.LeaderEpoch, p.HighWatermark = b.opt.NodeID, 1, end
			voter := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
			voter.ReplicaID, voter.LogEndOffset = b.opt.NodeID, end
			voter.LastFetchTimestamp, voter.LastCaughtUpTimestamp = r.received.UnixMilli(), r.received.UnixMilli()
			p.CurrentVoters = append(p.CurrentVoters, voter)
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	if r.version >= 2 {
		host, port := b.advertised(r)
		node := kmsg.NewDescribeQuorumResponseNode()
		node.NodeID = b.opt.NodeID
		listener := kmsg.NewDescribeQuorumResponseNodeListener()
		listener.Name, listener.Host, listener.Port = strings.ToUpper(r.endpoint.Name), host, uint16(port) // Kafka's tools take no other name
		node.Listeners = append(node.Listeners, listener)
		resp.Nodes = append(resp.Nodes, node)
	}
	return resp, nil
}
