package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestElectLeaders(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 2)
		a.store.parts[logDirPartition{"a", 1}].offline = errors.New("failed disk")
		elect := func(kind int8, topics ...kmsg.ElectLeadersRequestTopic) (out []string) {
			req := kmsg.NewPtrElectLeadersRequest()
			req.ElectionType, req.Topics = kind, topics
			resp := ask[*kmsg.ElectLeadersResponse](a, version, req)
			if resp.ErrorCode != 0 {
				return []string{fmt.Sprint(resp.ErrorCode)}
			}
			for _, topic := range resp.Topics {
				for _, p := range topic.Partitions {
					out = append(out, fmt.Sprintf("%s-%d %d", topic.Topic, p.Partition, p.ErrorCode))
				}
			}
			return out
		}
		named := func(name string, partitions ...int32) kmsg.ElectLeadersRequestTopic {
			topic := kmsg.NewElectLeadersRequestTopic()
			topic.Topic, topic.Partitions = name, partitions
			return topic
		}
		expect(t, "named", elect(electPreferred, named("a", 0, 1, 2), named("b", 0)), "a-0 84", "a-1 80", "a-2 3", "b-0 3")
		expect(t, "all", elect(electPreferred), "a-1 80")
		if version >= 1 {
			expect(t, "unclean", elect(electUnclean), "a-1 83")
			expect(t, "unknown kind", elect(5), "42")
		}
	}
}

func TestReassignments(t *testing.T) {
	for version := int16(0); version <= 1; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 1)
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		for _, tc := range []struct {
			topic     string
			partition int32
			replicas  []int32
		}{{"a", 0, []int32{1}}, {"a", 0, []int32{2}}, {"a", 0, []int32{1, 1}}, {"a", 0, []int32{}}, {"a", 0, nil}, {"a", 1, []int32{1}}, {"b", 0, []int32{1}}} {
			topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			topic.Topic, p.Partition, p.Replicas = tc.topic, tc.partition, tc.replicas
			topic.Partitions = append(topic.Partitions, p)
			req.Topics = append(req.Topics, topic)
		}
		var got []string
		for _, topic := range ask[*kmsg.AlterPartitionAssignmentsResponse](a, version, req).Topics {
			got = append(got, fmt.Sprint(topic.Partitions[0].ErrorCode))
		}
		expect(t, "alter", got, "0", "39", "39", "39", "85", "3", "3")
		list := ask[*kmsg.ListPartitionReassignmentsResponse](a, 0, kmsg.NewPtrListPartitionReassignmentsRequest())
		if list.ErrorCode != 0 || len(list.Topics) != 0 {
			t.Errorf("list: %+v", list)
		}
	}
}

func TestDescribeQuorum(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 1)
		req := kmsg.NewPtrDescribeQuorumRequest()
		topic := kmsg.NewDescribeQuorumRequestTopic()
		topic.Topic = metadataTopic
		for i := range int32(2) {
			p := kmsg.NewDescribeQuorumRequestTopicPartition()
			p.Partition = i
			topic.Partitions = append(topic.Partitions, p)
		}
		req.Topics = append(req.Topics, topic)
		resp := ask[*kmsg.DescribeQuorumResponse](a, version, req)
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.LeaderID != 1 || p.HighWatermark != int64(a.meta.Snapshot().Version) || len(p.CurrentVoters) != 1 || p.CurrentVoters[0].ReplicaID != 1 {
			t.Errorf("v%d: %+v", version, p)
		}
		if other := resp.Topics[0].Partitions[1]; other.ErrorCode != 3 {
			t.Errorf("v%d: %+v", version, other)
		}
		if version == 2 && (len(resp.Nodes) != 1 || resp.Nodes[0].Listeners[0].Port != 9092 || resp.Nodes[0].Listeners[0].Host != "10.0.0.9") {
			t.Errorf("nodes %+v", resp.Nodes)
		}
	}
}

func TestUpdateFeatures(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		a := newAdminBroker(t, nil)
		req := kmsg.NewPtrUpdateFeaturesRequest()
		for name, level := range map[string]int16{"metadata.version": 30} {
			u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
			u.Feature, u.MaxVersionLevel = name, level
			req.FeatureUpdates = append(req.FeatureUpdates, u)
		}
		resp := ask[*kmsg.UpdateFeaturesResponse](a, version, req)
		code, said := resp.ErrorCode, text(resp.ErrorMessage)
		if version < 2 {
			code, said = resp.Results[0].ErrorCode, text(resp.Results[0].ErrorMessage)
		}
		if code != 95 || !strings.Contains(said, "Invalid update version 30 for feature metadata.version") {
			t.Errorf("v%d: %d %s", version, code, said)
		}
		req.FeatureUpdates[0].MaxVersionLevel = 0
		if resp := ask[*kmsg.UpdateFeaturesResponse](a, version, req); resp.ErrorCode != 0 {
			t.Errorf("v%d: level 0: %d", version, resp.ErrorCode)
		}
		req.FeatureUpdates[0].Feature, req.FeatureUpdates[0].MaxVersionLevel = "transaction.version", 2
		if resp := ask[*kmsg.UpdateFeaturesResponse](a, version, req); resp.ErrorCode != 0 || version < 2 && resp.Results[0].ErrorCode != 0 {
			t.Errorf("v%d: what holds: %+v", version, resp)
		}
	}
}

func TestACLsWithoutAuthorizer(t *testing.T) {
	for version := int16(1); version <= 3; version++ {
		a := newAdminBroker(t, nil)
		if resp := ask[*kmsg.DescribeACLsResponse](a, version, kmsg.NewPtrDescribeACLsRequest()); resp.ErrorCode != 54 || text(resp.ErrorMessage) != "No Authorizer is configured." {
			t.Errorf("describe: %d %s", resp.ErrorCode, text(resp.ErrorMessage))
		}
		create := kmsg.NewPtrCreateACLsRequest()
		create.Creations = append(create.Creations, kmsg.NewCreateACLsRequestCreation(), kmsg.NewCreateACLsRequestCreation())
		if resp := ask[*kmsg.CreateACLsResponse](a, version, create); len(resp.Results) != 2 || resp.Results[1].ErrorCode != 54 {
			t.Errorf("create: %+v", resp.Results)
		}
		del := kmsg.NewPtrDeleteACLsRequest()
		del.Filters = append(del.Filters, kmsg.NewDeleteACLsRequestFilter())
		if resp := ask[*kmsg.DeleteACLsResponse](a, version, del); len(resp.Results) != 1 || resp.Results[0].ErrorCode != 54 {
			t.Errorf("delete: %+v", resp.Results)
		}
	}
}
