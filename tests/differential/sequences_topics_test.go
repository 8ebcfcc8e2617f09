package differential

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func metadataRequest(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = text(n)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func metadataSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	add(3, 0, "everything", func(x *exchange) {
		x.topic("a", 2)
		x.topic("b", 1)
		req := metadataRequest()
		if x.version > 0 {
			req.Topics = nil
		}
		x.ask(req)
	})
	add(3, 1, "no topics", func(x *exchange) { x.ask(metadataRequest()) })
	add(3, 0, "by name", func(x *exchange) { x.ask(metadataRequest(x.topic("a", 3))) })
	add(3, 0, "a name twice", func(x *exchange) { a := x.topic("a", 1); x.ask(metadataRequest(a, a)) })
	add(3, 4, "unknown, not to be made", func(x *exchange) { x.ask(metadataRequest(x.topic("a", 1), x.name("absent"))) })
	add(3, 0, "unknown, to be made", func(x *exchange) {
		req := metadataRequest(x.name("made"))
		req.AllowAutoTopicCreation = true
		x.ask(req)
		x.until("the topic", func() bool {
			return call[*kmsg.MetadataResponse](x, metadataRequest(x.name("made"))).Topics[0].ErrorCode == 0
		})
		x.ask(metadataRequest(x.name("made")))
	})
	add(3, 0, "names that are none", func(x *exchange) {
		for _, n := range []string{"", "a/b", ".", "..", strings.Repeat("x", 250), "ü"} {
			req := metadataRequest(n)
			req.AllowAutoTopicCreation = true
			x.ask(req)
		}
	})
	add(3, 12, "by id", func(x *exchange) {
		a := x.topic("a", 1)
		for _, id := range [][16]byte{x.id(a), {1, 2, 3}, {}} {
			req := metadataRequest()
			rt := kmsg.NewMetadataRequestTopic()
			rt.TopicID = id
			req.Topics = append(req.Topics, rt)
			x.ask(req)
		}
	})
	add(3, 12, "by id and name", func(x *exchange) {
		req := metadataRequest(x.topic("a", 1))
		req.Topics[0].TopicID = x.id(x.name("a"))
		x.ask(req)
	})
	add(3, 8, "operations", func(x *exchange) {
		req := metadataRequest(x.topic("a", 1))
		req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = true, true
		x.ask(req)
	})
	add(3, 0, "an internal topic", func(x *exchange) { x.ask(metadataRequest("__consumer_offsets")) })
	add(3, 0, "after it was deleted", func(x *exchange) {
		a := x.topic("a", 1)
		call[*kmsg.DeleteTopicsResponse](x, deleteTopics(a))
		x.until("its end", func() bool { return call[*kmsg.MetadataResponse](x, metadataRequest(a)).Topics[0].ErrorCode == 3 })
		x.ask(metadataRequest(a))
	})

	describe := func(names ...string) *kmsg.DescribeTopicPartitionsRequest {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = 2000
		for _, n := range names {
			rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
			rt.Topic = n
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	add(75, 0, "by name", func(x *exchange) { x.ask(describe(x.topic("a", 3), x.topic("b", 1))) })
	add(75, 0, "everything", func(x *exchange) { x.topic("a", 2); x.ask(describe()) })
	add(75, 0, "unknown, names that are none", func(x *exchange) { x.ask(describe(x.topic("a", 1), x.name("absent"), "a/b", "")) })
	add(75, 0, "a name twice", func(x *exchange) { a := x.topic("a", 1); x.ask(describe(a, a)) })
	for _, limit := range []int32{1, 2, 4, 0, -1} {
		add(75, 0, fmt.Sprintf("at most %d partitions", limit), func(x *exchange) {
			req := describe(x.topic("a", 3), x.topic("b", 2))
			req.ResponsePartitionLimit = limit
			x.ask(req)
		})
	}
	for _, c := range []struct {
		topic     string
		partition int32
	}{{"a", 1}, {"a", 3}, {"a", 9}, {"a", -1}, {"aa", 0}, {"b", 0}, {"z", 0}} {
		add(75, 0, fmt.Sprintf("from %s %d on", c.topic, c.partition), func(x *exchange) {
			req := describe(x.topic("a", 3), x.topic("b", 2))
			cursor := kmsg.NewDescribeTopicPartitionsRequestCursor()
			cursor.Topic, cursor.Partition = x.name(c.topic), c.partition
			req.Cursor = &cursor
			x.ask(req)
		})
	}
	return out
}

// creation asks for topics, by default of one partition.
func creation(fill func(t *kmsg.CreateTopicsRequestTopic), names ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 10_000
	for _, n := range names {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = n, 1, 1
		if fill != nil {
			fill(&rt)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// assigned gives a topic its replicas by hand, partition by partition.
func assigned(replicas ...[]int32) func(t *kmsg.CreateTopicsRequestTopic) {
	return func(t *kmsg.CreateTopicsRequestTopic) {
		t.NumPartitions, t.ReplicationFactor = -1, -1
		for i, r := range replicas {
			ra := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			ra.Partition, ra.Replicas = int32(i), r
			t.ReplicaAssignment = append(t.ReplicaAssignment, ra)
		}
	}
}

func set(pairs ...string) func(t *kmsg.CreateTopicsRequestTopic) {
	return func(t *kmsg.CreateTopicsRequestTopic) {
		for i := 0; i+1 < len(pairs); i += 2 {
			t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: pairs[i], Value: &pairs[i+1]})
		}
	}
}

func deleteTopics(names ...string) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 10_000
	req.TopicNames = names
	for _, n := range names {
		rt := kmsg.NewDeleteTopicsRequestTopic()
		rt.Topic = text(n)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func topicSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	create := func(name string, fill func(t *kmsg.CreateTopicsRequestTopic)) {
		add(19, 0, name, func(x *exchange) { x.ask(creation(fill, x.name("a"))) })
	}
	create("a topic", nil)
	create("three partitions", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 3 })
	create("no partitions", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 0 })
	create("minus five partitions", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = -5 })
	create("two replicas", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 2 })
	create("no replicas", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 0 })
	create("minus five replicas", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = -5 })
	add(19, 4, "defaults", func(x *exchange) {
		x.ask(creation(func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions, t.ReplicationFactor = -1, -1 }, x.name("a")))
	})
	create("configured", set("retention.ms", "1000", "segment.bytes", "1048576"))
	create("an unknown key", set("retention.mss", "1000"))
	create("a value that is none", set("retention.ms", "many"))
	create("a value out of range", set("segment.bytes", "1"))
	create("an empty value", set("retention.ms", ""))
	create("a key twice", set("retention.ms", "1000", "retention.ms", "2000"))
	create("a null value", func(t *kmsg.CreateTopicsRequestTopic) {
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: "retention.ms"})
	})
	create("replicas by hand", assigned([]int32{1}, []int32{1}))
	create("replicas by hand and a count", func(t *kmsg.CreateTopicsRequestTopic) { assigned([]int32{1})(t); t.NumPartitions = 1 })
	create("replicas that there are not", assigned([]int32{7}))
	create("a replica twice", assigned([]int32{1, 1}))
	create("no replica by hand", assigned([]int32{}))
	create("a gap in the partitions", func(t *kmsg.CreateTopicsRequestTopic) {
		assigned([]int32{1}, []int32{1})(t)
		t.ReplicaAssignment[1].Partition = 2
	})
	create("a negative partition", func(t *kmsg.CreateTopicsRequestTopic) {
		assigned([]int32{1})(t)
		t.ReplicaAssignment[0].Partition = -1
	})
	add(19, 0, "again", func(x *exchange) { x.ask(creation(nil, x.topic("a", 1))) })
	add(19, 0, "twice in one request", func(x *exchange) { x.ask(creation(nil, x.name("a"), x.name("a"), x.name("b"))) })
	add(19, 0, "nothing", func(x *exchange) { x.ask(creation(nil)) })
	add(19, 0, "names that are none", func(x *exchange) {
		x.ask(creation(nil, "", "a/b", ".", "..", strings.Repeat("x", 250), "ü", "a b"))
	})
	add(19, 0, "names that collide", func(x *exchange) {
		x.ask(creation(nil, x.name("a.b")))
		x.ask(creation(nil, x.name("a_b")))
	})
	add(19, 0, "an internal topic", func(x *exchange) { x.ask(creation(nil, "__consumer_offsets")) })
	add(19, 1, "to be checked only", func(x *exchange) {
		req := creation(nil, x.name("a"), x.topic("b", 1), "a/b")
		req.ValidateOnly = true
		x.ask(req)
		x.ask(metadataRequest(x.name("a")))
	})

	add(20, 0, "a topic", func(x *exchange) { x.ask(deleteTopics(x.topic("a", 2))) })
	add(20, 0, "twice", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(deleteTopics(a))
		x.until("its end", func() bool { return call[*kmsg.MetadataResponse](x, metadataRequest(a)).Topics[0].ErrorCode == 3 })
		x.ask(deleteTopics(a))
	})
	add(20, 0, "twice in one request", func(x *exchange) { a := x.topic("a", 1); x.ask(deleteTopics(a, a)) })
	add(20, 0, "unknown, names that are none", func(x *exchange) { x.ask(deleteTopics(x.topic("a", 1), x.name("absent"), "", "a/b")) })
	add(20, 0, "nothing", func(x *exchange) { x.ask(deleteTopics()) })
	add(20, 6, "by id", func(x *exchange) {
		a := x.topic("a", 1)
		for _, id := range [][16]byte{x.id(a), {1, 2, 3}, {}} {
			req := deleteTopics(a)
			req.Topics[0].Topic, req.Topics[0].TopicID = nil, id
			x.ask(req)
		}
	})
	add(20, 6, "by id and name", func(x *exchange) {
		req := deleteTopics(x.topic("a", 1))
		req.Topics[0].TopicID = x.id(x.name("a"))
		x.ask(req)
	})

	grow := func(x *exchange, name string, count int32, assignment ...[]int32) *kmsg.CreatePartitionsRequest {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = name, count
		for _, a := range assignment {
			ra := kmsg.NewCreatePartitionsRequestTopicAssignment()
			ra.Replicas = a
			rt.Assignment = append(rt.Assignment, ra)
		}
		req.Topics = append(req.Topics, rt)
		return req
	}
	for _, count := range []int32{1, 2, 3, 5, 0, -1} {
		add(37, 0, fmt.Sprintf("from 2 to %d", count), func(x *exchange) { x.ask(grow(x, x.topic("a", 2), count)) })
	}
	add(37, 0, "unknown, names that are none", func(x *exchange) {
		x.ask(grow(x, x.name("absent"), 2))
		x.ask(grow(x, "a/b", 2))
		x.ask(grow(x, "", 2))
	})
	add(37, 0, "replicas by hand", func(x *exchange) { x.ask(grow(x, x.topic("a", 1), 2, []int32{1})) })
	add(37, 0, "too few by hand", func(x *exchange) { x.ask(grow(x, x.topic("a", 1), 3, []int32{1})) })
	add(37, 0, "replicas that there are not", func(x *exchange) { x.ask(grow(x, x.topic("a", 1), 2, []int32{7})) })
	add(37, 0, "two replicas by hand", func(x *exchange) { x.ask(grow(x, x.topic("a", 1), 2, []int32{1, 2})) })
	add(37, 0, "no replica by hand", func(x *exchange) { x.ask(grow(x, x.topic("a", 1), 2, []int32{})) })
	add(37, 0, "a topic twice", func(x *exchange) {
		req := grow(x, x.topic("a", 1), 2)
		req.Topics = append(req.Topics, req.Topics[0])
		x.ask(req)
	})
	add(37, 0, "to be checked only", func(x *exchange) {
		req := grow(x, x.topic("a", 1), 2)
		req.ValidateOnly = true
		x.ask(req)
		x.ask(metadataRequest(x.name("a")))
	})
	add(37, 0, "nothing", func(x *exchange) { req := grow(x, "", 0); req.Topics = nil; x.ask(req) })
	return out
}
