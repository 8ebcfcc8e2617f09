package differential

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	ofTopic  = kmsg.ConfigResourceTypeTopic
	ofBroker = kmsg.ConfigResourceTypeBroker
	ofGroup  = kmsg.ConfigResourceTypeGroupConfig
)

// configs asks for settings; without keys for all of them.
func configs(kind kmsg.ConfigResourceType, name string, keys ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	rr := kmsg.NewDescribeConfigsRequestResource()
	rr.ResourceType, rr.ResourceName, rr.ConfigNames = kind, name, keys
	req.Resources = append(req.Resources, rr)
	return req
}

// alter is one change of IncrementalAlterConfigs.
type alter struct {
	key   string
	op    kmsg.IncrementalAlterConfigOp
	value *string
}

func alterConfigs(kind kmsg.ConfigResourceType, name string, changes ...alter) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kind, name
	for _, c := range changes {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op, rc.Value = c.key, c.op, c.value
		rr.Configs = append(rr.Configs, rc)
	}
	req.Resources = append(req.Resources, rr)
	return req
}

// commonKeys are topic settings of both brokers.
var commonKeys = []string{"cleanup.policy", "compression.type", "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "index.interval.bytes",
	"max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type", "min.cleanable.dirty.ratio",
	"min.compaction.lag.ms", "min.insync.replicas", "preallocate", "retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms",
	"unclean.leader.election.enable", "local.retention.bytes", "local.retention.ms", "remote.storage.enable", "compression.gzip.level", "compression.lz4.level", "compression.zstd.level"}

func configSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	// settled waits until a topic's setting has a value: Kafka's brokers learn of a change after it was answered.
	settled := func(x *exchange, topic, key, value string) {
		x.until(key+" of "+topic, func() bool {
			r := call[*kmsg.DescribeConfigsResponse](x, configs(ofTopic, topic, key)).Resources[0]
			return len(r.Configs) == 1 && r.Configs[0].Value != nil && *r.Configs[0].Value == value
		})
	}
	add(32, 0, "settings of a topic", func(x *exchange) {
		x.ask(configs(ofTopic, x.topic("a", 1, "retention.ms", "1000", "cleanup.policy", "compact,delete"), commonKeys...))
	})
	add(32, 0, "with synonyms and documentation", func(x *exchange) {
		req := configs(ofTopic, x.topic("a", 1, "retention.ms", "1000"), "retention.ms", "segment.ms", "cleanup.policy", "max.message.bytes", "compression.type")
		req.IncludeSynonyms, req.IncludeDocumentation = true, true
		x.ask(req)
	})
	add(32, 0, "unknown keys", func(x *exchange) { x.ask(configs(ofTopic, x.topic("a", 1), "retention.ms", "no.such.key", "")) })
	add(32, 0, "no keys", func(x *exchange) {
		req := configs(ofTopic, x.topic("a", 1))
		req.Resources[0].ConfigNames = []string{}
		x.ask(req)
	})
	add(32, 0, "unknown topic, names that are none", func(x *exchange) {
		for _, n := range []string{x.name("absent"), "", "a/b", strings.Repeat("x", 250)} {
			x.ask(configs(ofTopic, n, "retention.ms"))
		}
	})
	add(32, 0, "brokers", func(x *exchange) {
		for _, n := range []string{"1", "", "7", "one", "-1"} {
			x.ask(configs(ofBroker, n, "node.id", "log.retention.ms", "num.partitions", "no.such.key"))
		}
	})
	add(32, 0, "kinds that there are not", func(x *exchange) {
		for _, kind := range []kmsg.ConfigResourceType{0, 1, 3, 99} {
			x.ask(configs(kind, "1"))
		}
	})
	add(32, 0, "groups", func(x *exchange) {
		x.ask(configs(ofGroup, x.name("g"), "consumer.session.timeout.ms"))
		x.ask(configs(ofGroup, ""))
	})
	add(32, 0, "nothing", func(x *exchange) { x.ask(kmsg.NewPtrDescribeConfigsRequest()) })
	add(32, 0, "a resource twice", func(x *exchange) {
		req := configs(ofTopic, x.topic("a", 1), "retention.ms")
		req.Resources = append(req.Resources, req.Resources[0])
		x.ask(req)
	})

	add(44, 0, "set and delete", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(alterConfigs(ofTopic, a, alter{"retention.ms", 0, text("1000")}, alter{"segment.ms", 0, text("2000")}))
		settled(x, a, "retention.ms", "1000")
		x.ask(configs(ofTopic, a, "retention.ms", "segment.ms"))
		x.ask(alterConfigs(ofTopic, a, alter{"retention.ms", 1, nil}, alter{"index.interval.bytes", 1, nil}))
		settled(x, a, "retention.ms", "604800000")
		x.ask(configs(ofTopic, a, "retention.ms", "segment.ms"))
	})
	add(44, 0, "append and subtract", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(alterConfigs(ofTopic, a, alter{"cleanup.policy", 2, text("compact")}))
		settled(x, a, "cleanup.policy", "delete,compact")
		x.ask(alterConfigs(ofTopic, a, alter{"cleanup.policy", 2, text("compact")}))
		x.ask(alterConfigs(ofTopic, a, alter{"cleanup.policy", 3, text("delete")}))
		settled(x, a, "cleanup.policy", "compact")
		x.ask(alterConfigs(ofTopic, a, alter{"cleanup.policy", 3, text("delete")}))
		x.ask(alterConfigs(ofTopic, a, alter{"retention.ms", 2, text("5")}))
		x.ask(configs(ofTopic, a, "cleanup.policy", "retention.ms"))
	})
	for _, c := range []struct {
		name string
		c    []alter
	}{
		{"an unknown key", []alter{{"no.such.key", 0, text("1")}}},
		{"a value that is none", []alter{{"retention.ms", 0, text("many")}}},
		{"a value out of range", []alter{{"segment.bytes", 0, text("1")}}},
		{"the lowest level of lz4", []alter{{"compression.lz4.level", 0, text("1")}}},
		{"a level of lz4 that there is not", []alter{{"compression.lz4.level", 0, text("0")}}},
		{"the highest level of zstd", []alter{{"compression.zstd.level", 0, text("22")}}},
		{"a level of zstd that there is not", []alter{{"compression.zstd.level", 0, text("23")}}},
		{"the highest level of gzip", []alter{{"compression.gzip.level", 0, text("9")}}},
		{"a level of gzip that there is not", []alter{{"compression.gzip.level", 0, text("0")}}},
		{"a null value", []alter{{"retention.ms", 0, nil}}},
		{"an operation that there is not", []alter{{"retention.ms", 9, text("1")}}},
		{"a key twice", []alter{{"retention.ms", 0, text("1")}, {"retention.ms", 1, nil}}},
		{"one good, one bad", []alter{{"segment.ms", 0, text("1000")}, {"retention.ms", 0, text("many")}}},
		{"no changes", nil},
		{"an empty key", []alter{{"", 0, text("1")}}},
		{"policies that do not go together", []alter{{"cleanup.policy", 0, text("none")}}},
	} {
		add(44, 0, c.name, func(x *exchange) {
			a := x.topic("a", 1)
			x.ask(alterConfigs(ofTopic, a, c.c...))
			x.ask(configs(ofTopic, a, "retention.ms", "segment.ms", "cleanup.policy"))
		})
	}
	add(44, 0, "unknown topic, names that are none", func(x *exchange) {
		for _, n := range []string{x.name("absent"), "", "a/b"} {
			x.ask(alterConfigs(ofTopic, n, alter{"retention.ms", 0, text("1000")}))
		}
	})
	add(44, 0, "a resource twice", func(x *exchange) {
		req := alterConfigs(ofTopic, x.topic("a", 1), alter{"retention.ms", 0, text("1000")})
		req.Resources = append(req.Resources, req.Resources[0])
		x.ask(req)
	})
	add(44, 0, "to be checked only", func(x *exchange) {
		a := x.topic("a", 1)
		req := alterConfigs(ofTopic, a, alter{"retention.ms", 0, text("1000")})
		req.ValidateOnly = true
		x.ask(req)
		x.ask(configs(ofTopic, a, "retention.ms"))
	})
	add(44, 0, "brokers and kinds that there are not", func(x *exchange) {
		x.ask(alterConfigs(ofBroker, "7", alter{"log.retention.ms", 0, text("1000")}))
		x.ask(alterConfigs(ofBroker, "one", alter{"log.retention.ms", 0, text("1000")}))
		x.ask(alterConfigs(ofBroker, "1", alter{"node.id", 0, text("5")}))
		x.ask(alterConfigs(99, "1", alter{"log.retention.ms", 0, text("1000")}))
	})
	add(44, 0, "nothing", func(x *exchange) { x.ask(kmsg.NewPtrIncrementalAlterConfigsRequest()) })

	replace := func(name string, pairs ...string) *kmsg.AlterConfigsRequest {
		req := kmsg.NewPtrAlterConfigsRequest()
		rr := kmsg.NewAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = ofTopic, name
		for i := 0; i+1 < len(pairs); i += 2 {
			rc := kmsg.NewAlterConfigsRequestResourceConfig()
			rc.Name, rc.Value = pairs[i], &pairs[i+1]
			rr.Configs = append(rr.Configs, rc)
		}
		req.Resources = append(req.Resources, rr)
		return req
	}
	add(33, 0, "all settings of a topic", func(x *exchange) {
		a := x.topic("a", 1, "segment.ms", "5000")
		x.ask(replace(a, "retention.ms", "1000"))
		settled(x, a, "retention.ms", "1000")
		x.ask(configs(ofTopic, a, "retention.ms", "segment.ms"))
		x.ask(replace(a))
		settled(x, a, "retention.ms", "604800000")
		x.ask(configs(ofTopic, a, "retention.ms", "segment.ms"))
	})
	add(33, 0, "bad keys and values", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(replace(a, "no.such.key", "1"))
		x.ask(replace(a, "retention.ms", "many"))
		x.ask(replace(a, "", "1"))
		x.ask(replace(a, "retention.ms", "1", "retention.ms", "2"))
	})
	add(33, 0, "unknown topic, names that are none", func(x *exchange) {
		x.ask(replace(x.name("absent"), "retention.ms", "1"))
		x.ask(replace("", "retention.ms", "1"))
		x.ask(replace("a/b", "retention.ms", "1"))
	})
	add(33, 0, "a null value", func(x *exchange) {
		req := replace(x.topic("a", 1), "retention.ms", "1")
		req.Resources[0].Configs[0].Value = nil
		x.ask(req)
	})
	add(33, 0, "to be checked only", func(x *exchange) {
		a := x.topic("a", 1)
		req := replace(a, "retention.ms", "1")
		req.ValidateOnly = true
		x.ask(req)
		x.ask(configs(ofTopic, a, "retention.ms"))
	})
	return out
}

func clusterSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	hello := func(name, version string) *kmsg.ApiVersionsRequest {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = name, version
		return req
	}
	add(18, 0, "the table", func(x *exchange) { x.ask(hello("differential", "1")) })
	add(18, 3, "names that are none", func(x *exchange) {
		for _, n := range []string{"", "-x", "a b", "x-", "ü", "a.b-c"} {
			x.ask(hello(n, "1"))
		}
		x.ask(hello("x", ""))
	})
	add(18, 0, "a version of the future", func(x *exchange) {
		saved := x.version
		x.version = 9
		x.ask(hello("differential", "1"))
		x.version = saved
	})

	cluster := func(fill func(req *kmsg.DescribeClusterRequest)) *kmsg.DescribeClusterRequest {
		req := kmsg.NewPtrDescribeClusterRequest()
		fill(req)
		return req
	}
	add(60, 0, "brokers", func(x *exchange) { x.ask(cluster(func(*kmsg.DescribeClusterRequest) {})) })
	add(60, 0, "operations", func(x *exchange) {
		x.ask(cluster(func(r *kmsg.DescribeClusterRequest) { r.IncludeClusterAuthorizedOperations = true }))
	})
	add(60, 1, "controllers, and what there is not", func(x *exchange) {
		for _, kind := range []int8{2, 0, 7} {
			x.ask(cluster(func(r *kmsg.DescribeClusterRequest) { r.EndpointType = kind }))
		}
	})
	add(60, 2, "fenced brokers", func(x *exchange) {
		x.ask(cluster(func(r *kmsg.DescribeClusterRequest) { r.IncludeFencedBrokers = true }))
	})

	for _, kinds := range [][]int8{{2}, {4}, {32}, {2, 4}, {0}, {99}, {8}, {16}} {
		add(74, 1, fmt.Sprintf("kinds %v", kinds), func(x *exchange) {
			x.topic("a", 1)
			req := kmsg.NewPtrListConfigResourcesRequest()
			req.ResourceTypes = kinds
			x.ask(req)
		})
	}
	add(74, 0, "all kinds", func(x *exchange) { x.topic("a", 1); x.ask(kmsg.NewPtrListConfigResourcesRequest()) })

	dirs := func(topics ...string) *kmsg.DescribeLogDirsRequest {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		for _, n := range topics {
			rt := kmsg.NewDescribeLogDirsRequestTopic()
			rt.Topic, rt.Partitions = n, []int32{0}
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	add(35, 0, "a topic's directories", func(x *exchange) {
		a := x.topic("a", 2)
		x.write(a, 0, "x", "y")
		x.ask(dirs(a))
	})
	add(35, 0, "everything", func(x *exchange) { x.topic("a", 2); req := dirs(); req.Topics = nil; x.ask(req) })
	add(35, 0, "nothing", func(x *exchange) { x.ask(dirs()) })
	add(35, 0, "unknown topic, names that are none", func(x *exchange) { x.ask(dirs(x.name("absent"), "a/b", "")) })
	return out
}
