package differential

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// adminSequences are the rest of what operators ask for.
func adminSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	elect := func(kind int8, of ...at) *kmsg.ElectLeadersRequest {
		req := kmsg.NewPtrElectLeadersRequest()
		req.ElectionType, req.TimeoutMillis = kind, 5000
		req.Topics = []kmsg.ElectLeadersRequestTopic{}
		for _, of := range of {
			req.Topics = append(req.Topics, kmsg.ElectLeadersRequestTopic{Topic: of.topic, Partitions: []int32{of.partition}})
		}
		return req
	}
	add(43, 0, "preferred leaders", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(elect(0, at{a, 0}, at{a, 7}, at{x.name("absent"), 0}))
		x.ask(elect(0))
	})
	add(43, 1, "unclean leaders, a kind that there is not", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(elect(1, at{a, 0}))
		x.ask(elect(9, at{a, 0}))
	})

	reassign := func(replicas []int32, of ...at) *kmsg.AlterPartitionAssignmentsRequest {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.TimeoutMillis = 5000
		for _, of := range of {
			rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			rp.Partition, rp.Replicas = of.partition, replicas
			rt.Topic, rt.Partitions = of.topic, append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	for _, replicas := range [][]int32{{1}, nil, {}, {7}, {1, 1}, {1, 2}, {-1}} {
		name := fmt.Sprint(replicas)
		if replicas == nil {
			name = "null"
		}
		add(45, 0, "to "+name, func(x *exchange) { x.ask(reassign(replicas, at{x.topic("a", 1), 0})) })
	}
	add(45, 0, "unknown topic, unknown partition, nothing", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(reassign([]int32{1}, at{a, 7}, at{x.name("absent"), 0}))
		x.ask(reassign(nil))
	})
	under := func(of ...at) *kmsg.ListPartitionReassignmentsRequest {
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.TimeoutMillis = 5000
		req.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{}
		for _, of := range of {
			req.Topics = append(req.Topics, kmsg.ListPartitionReassignmentsRequestTopic{Topic: of.topic, Partitions: []int32{of.partition}})
		}
		return req
	}
	add(46, 0, "all, some, unknown ones", func(x *exchange) {
		a := x.topic("a", 1)
		all := under()
		all.Topics = nil
		x.ask(all)
		x.ask(under())
		x.ask(under(at{a, 0}, at{a, 7}, at{x.name("absent"), 0}))
	})

	component := func(kind string, match kmsg.QuotasMatchType, name *string) kmsg.DescribeClientQuotasRequestComponent {
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		c.EntityType, c.MatchType, c.Match = kind, match, name
		return c
	}
	quotas := func(strict bool, cs ...kmsg.DescribeClientQuotasRequestComponent) *kmsg.DescribeClientQuotasRequest {
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Components, req.Strict = cs, strict
		return req
	}
	limit := func(kind, name, key string, value float64) *kmsg.AlterClientQuotasRequest {
		req := kmsg.NewPtrAlterClientQuotasRequest()
		e := kmsg.NewAlterClientQuotasRequestEntry()
		entity := kmsg.NewAlterClientQuotasRequestEntryEntity()
		entity.Type, entity.Name = kind, text(name)
		op := kmsg.NewAlterClientQuotasRequestEntryOp()
		op.Key, op.Value, op.Remove = key, value, value < 0
		e.Entity, e.Ops = append(e.Entity, entity), append(e.Ops, op)
		req.Entries = append(req.Entries, e)
		return req
	}
	limited := func(x *exchange, kind, name string) {
		x.until("the quota", func() bool {
			return len(call[*kmsg.DescribeClientQuotasResponse](x, quotas(true, component(kind, 0, text(name)))).Entries) == 1
		})
	}
	add(48, 0, "of a client", func(x *exchange) {
		c := x.name("client")
		call[*kmsg.AlterClientQuotasResponse](x, limit("client-id", c, "producer_byte_rate", 1_000_000))
		limited(x, "client-id", c)
		x.ask(quotas(true, component("client-id", 0, text(c))))
		x.ask(quotas(false, component("client-id", 0, text(c))))
		x.ask(quotas(true, component("client-id", 0, text(x.name("absent")))))
		x.ask(quotas(true, component("client-id", 1, nil)))
	})
	add(48, 0, "kinds that there are not", func(x *exchange) {
		x.ask(quotas(true, component("nonsense", 0, text("x"))))
		x.ask(quotas(true, component("", 0, text("x"))))
		x.ask(quotas(true, component("client-id", 9, text("x"))))
		x.ask(quotas(true, component("client-id", 0, text("x")), component("client-id", 0, text("y"))))
		x.ask(quotas(true, component("client-id", 0, nil)))
	})
	add(49, 0, "set and removed", func(x *exchange) {
		c := x.name("client")
		x.ask(limit("client-id", c, "consumer_byte_rate", 5_000_000))
		limited(x, "client-id", c)
		x.ask(quotas(true, component("client-id", 0, text(c))))
		x.ask(limit("client-id", c, "consumer_byte_rate", -1))
		x.until("the end of the quota", func() bool {
			return len(call[*kmsg.DescribeClientQuotasResponse](x, quotas(true, component("client-id", 0, text(c)))).Entries) == 0
		})
		x.ask(limit("client-id", c, "consumer_byte_rate", -1))
	})
	add(49, 0, "keys, values and kinds that there are not", func(x *exchange) {
		c := x.name("client")
		x.ask(limit("client-id", c, "nonsense", 1))
		x.ask(limit("client-id", c, "nonsense", -1))
		x.ask(limit("client-id", c, "connection_creation_rate", -1))
		x.ask(limit("client-id", c, "producer_byte_rate", 0))
		x.ask(limit("client-id", c, "producer_byte_rate", 1.5))
		x.ask(limit("client-id", c, "request_percentage", 12.5))
		x.ask(limit("nonsense", c, "producer_byte_rate", 1))
		x.ask(limit("client-id", "", "producer_byte_rate", 1))
		x.ask(limit("ip", "not an address", "connection_creation_rate", 1))
		req := limit("client-id", c, "producer_byte_rate", 1)
		req.Entries[0].Entity = nil
		x.ask(req)
		x.ask(kmsg.NewPtrAlterClientQuotasRequest())
	})
	add(49, 0, "to be checked only", func(x *exchange) {
		c := x.name("client")
		req := limit("client-id", c, "producer_byte_rate", 1000)
		req.ValidateOnly = true
		x.ask(req)
		x.ask(quotas(true, component("client-id", 0, text(c))))
	})

	quorum := func(topic string, partition int32) *kmsg.DescribeQuorumRequest {
		req := kmsg.NewPtrDescribeQuorumRequest()
		rt := kmsg.NewDescribeQuorumRequestTopic()
		rt.Topic, rt.Partitions = topic, []kmsg.DescribeQuorumRequestTopicPartition{{Partition: partition}}
		req.Topics = append(req.Topics, rt)
		return req
	}
	add(55, 0, "the voter", func(x *exchange) { x.ask(quorum("__cluster_metadata", 0)) })
	add(55, 0, "partitions that there are not", func(x *exchange) {
		x.ask(quorum("__cluster_metadata", 7))
		x.ask(quorum(x.name("absent"), 0))
	})

	feature := func(name string, level int16, upgrade int8) *kmsg.UpdateFeaturesRequest {
		req := kmsg.NewPtrUpdateFeaturesRequest()
		req.TimeoutMillis, req.ValidateOnly = 5000, true
		f := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		f.Feature, f.MaxVersionLevel, f.UpgradeType = name, level, upgrade
		req.FeatureUpdates = append(req.FeatureUpdates, f)
		return req
	}
	add(57, 1, "features that there are not", func(x *exchange) {
		x.ask(feature("nonsense", 1, 1))
		x.ask(feature("", 1, 1))
		x.ask(feature("transaction.version", 99, 1))
		x.ask(feature("transaction.version", 2, 9))
	})

	add(29, 0, "without an authorizer", func(x *exchange) {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1 // any
		x.ask(req)
	})
	add(30, 0, "without an authorizer", func(x *exchange) {
		req := kmsg.NewPtrCreateACLsRequest()
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal, c.Host, c.Operation, c.PermissionType = 2, "a", 3, "User:a", "*", 3, 3
		req.Creations = append(req.Creations, c)
		x.ask(req)
	})
	add(31, 0, "without an authorizer", func(x *exchange) {
		req := kmsg.NewPtrDeleteACLsRequest()
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = 1, 1, 1, 1
		req.Filters = append(req.Filters, f)
		x.ask(req)
	})
	add(50, 0, "nobody, somebody", func(x *exchange) {
		x.ask(kmsg.NewPtrDescribeUserSCRAMCredentialsRequest())
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: "somebody"}, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: ""})
		x.ask(req)
	})

	move := func(dir string, of ...at) *kmsg.AlterReplicaLogDirsRequest {
		req := kmsg.NewPtrAlterReplicaLogDirsRequest()
		d := kmsg.NewAlterReplicaLogDirsRequestDir()
		d.Dir = dir
		for _, of := range of {
			d.Topics = append(d.Topics, kmsg.AlterReplicaLogDirsRequestDirTopic{Topic: of.topic, Partitions: []int32{of.partition}})
		}
		req.Dirs = append(req.Dirs, d)
		return req
	}
	add(34, 0, "to a directory that there is not, of a topic that there is not", func(x *exchange) {
		x.ask(move("/no/such/directory", at{x.topic("a", 1), 0}))
		x.ask(move("relative", at{x.name("a"), 0}))
		x.ask(kmsg.NewPtrAlterReplicaLogDirsRequest())
	})
	return out
}
