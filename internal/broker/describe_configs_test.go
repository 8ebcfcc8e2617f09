package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
)

func describeRequest(resources ...kmsg.DescribeConfigsRequestResource) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = resources
	return req
}

func described(kind kmsg.ConfigResourceType, name string, keys ...string) kmsg.DescribeConfigsRequestResource {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, keys
	return r
}

const (
	topicResource  = kmsg.ConfigResourceTypeTopic
	brokerResource = kmsg.ConfigResourceTypeBroker
	loggerResource = kmsg.ConfigResourceTypeBrokerLogger
	groupResource  = kmsg.ConfigResourceTypeGroupConfig
)

func configLines(out kmsg.DescribeConfigsResponseResource) (lines []string) {
	for _, c := range out.Configs {
		line := fmt.Sprintf("%s=%s source %d", c.Name, text(c.Value), c.Source)
		if c.ReadOnly {
			line += " read-only"
		}
		if c.IsSensitive {
			line += " sensitive"
		}
		for _, s := range c.ConfigSynonyms {
			line += fmt.Sprintf(" | %s=%s %d", s.Name, text(s.Value), s.Source)
		}
		lines = append(lines, line)
	}
	return lines
}

func settings() []ServerConfig {
	return []ServerConfig{
		{Name: "node.id", Value: "1", Type: 3, Doc: "This broker's id, unique in the cluster."},
		{Name: "num.partitions", Value: "1", Default: true, Type: 3, Doc: "Partitions of topics that do not say."},
		{Name: "ssl.key.password", Value: "secret", Sensitive: true, Type: 9, Doc: "Password of the private key."},
		{Name: "log.roll.ms", Value: "1000", Type: 5, Doc: "Age of a segment."},
	}
}

func TestDescribeConfigsOfNoKeysMeansAll(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("t", 1)
	all := ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(described(topicResource, "t"))).Resources[0]
	empty := described(topicResource, "t")
	empty.ConfigNames = []string{}
	if got := ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(empty)).Resources[0]; len(got.Configs) != len(all.Configs) || len(all.Configs) < 10 {
		t.Errorf("an empty list of keys gives %d entries, none gives %d", len(got.Configs), len(all.Configs))
	}
}

func TestDescribeTopicConfigs(t *testing.T) {
	for version := int16(1); version <= 4; version++ {
		a := newAdminBroker(t, func(o *Options) {
			o.TopicDefaults = map[string]string{"segment.bytes": "2097152", "retention.ms": "604800000"}
		})
		a.topic("a", 1, "retention.ms=5")
		if err := a.meta.AlterBrokerConfigs("", map[string]string{"log.retention.ms": "6"}, nil); err != nil {
			t.Fatal(err)
		}
		req := describeRequest(described(topicResource, "a", "segment.bytes", "retention.ms", "lagoon.flush", "no.such.key"))
		req.IncludeSynonyms = true
		out := ask[*kmsg.DescribeConfigsResponse](a, version, req).Resources[0]
		if out.ErrorCode != 0 || out.ErrorMessage != nil || out.ResourceName != "a" || out.ResourceType != topicResource {
			t.Fatalf("v%d: %+v %s", version, out, text(out.ErrorMessage))
		}
		expect(t, fmt.Sprintf("v%d", version), configLines(out),
			"lagoon.flush=sync source 5 | lagoon.flush=sync 5",
			"retention.ms=5 source 1 | retention.ms=5 1 | log.retention.ms=6 3 | log.retention.ms=604800000 5",
			"segment.bytes=2097152 source 4 | log.segment.bytes=2097152 4 | log.segment.bytes=536870912 5")
		all := ask[*kmsg.DescribeConfigsResponse](a, version, describeRequest(described(topicResource, "a"))).Resources[0].Configs
		if len(all) != len(metadata.TopicConfigs) || !slices.IsSortedFunc(all, func(a, b kmsg.DescribeConfigsResponseResourceConfig) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("v%d: %d configs, or not by name", version, len(all))
		}
		for _, c := range all {
			if c.Documentation != nil || len(c.ConfigSynonyms) > 0 || version >= 3 && c.ConfigType == 0 {
				t.Errorf("v%d: %s: documentation %s, %d synonyms, type %d", version, c.Name, text(c.Documentation), len(c.ConfigSynonyms), c.ConfigType)
			}
		}
	}
}

// kafka-ui and kafka-configs show it, and a test of Sarama asks for one non-empty text.
func TestDescribeConfigsDocumentation(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.ServerConfigs = settings })
	a.topic("a", 1)
	req := describeRequest(described(topicResource, "a"), described(brokerResource, "1"), described(groupResource, "g"), described(loggerResource, "1"))
	req.IncludeDocumentation = true
	for _, r := range ask[*kmsg.DescribeConfigsResponse](a, 4, req).Resources {
		if len(r.Configs) == 0 {
			t.Errorf("nothing about %s %s", r.ResourceType, r.ResourceName)
		}
		for _, c := range r.Configs {
			if len(text(c.Documentation)) < 15 || c.ConfigType == 0 {
				t.Errorf("%s: %q, type %d", c.Name, text(c.Documentation), c.ConfigType)
			}
		}
	}
}

func TestDescribeBrokerConfigs(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) {
		o.ServerConfigs = settings
		o.TopicDefaults = map[string]string{"retention.ms": "77"}
	})
	if err := a.meta.AlterBrokerConfigs("", map[string]string{"log.retention.ms": "6"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.meta.AlterBrokerConfigs("1", map[string]string{"log.roll.ms": "8"}, nil); err != nil {
		t.Fatal(err)
	}
	req := describeRequest(described(brokerResource, "1", "node.id", "num.partitions", "ssl.key.password", "log.retention.ms", "log.roll.ms"))
	req.IncludeSynonyms = true
	expect(t, "node 1", configLines(ask[*kmsg.DescribeConfigsResponse](a, 4, req).Resources[0]),
		"log.retention.ms=6 source 3 | log.retention.ms=6 3 | log.retention.ms=77 4 | log.retention.ms=604800000 5",
		"log.roll.ms=8 source 2 | log.roll.ms=8 2 | log.roll.ms=1000 4 | log.roll.ms=604800000 5",
		"node.id=1 source 4 read-only | node.id=1 4",
		"num.partitions=1 source 5 read-only | num.partitions=1 5",
		"ssl.key.password=<null> source 4 read-only sensitive | ssl.key.password=<null> 4")
	expect(t, "all brokers", configLines(ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(described(brokerResource, ""))).Resources[0]),
		"log.retention.ms=6 source 3")
	if n := len(ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(described(brokerResource, "1"))).Resources[0].Configs); n != len(metadata.BrokerConfigs)+3 {
		t.Errorf("%d entries, want each key once", n)
	}
}

func TestDescribeOtherConfigs(t *testing.T) {
	a := newAdminBroker(t, nil)
	if err := a.meta.AlterGroupConfigs("etl", map[string]string{"lagoon.catchup.weight": "3"}, nil); err != nil {
		t.Fatal(err)
	}
	resp := ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(described(groupResource, "etl"), described(groupResource, "new"), described(loggerResource, "1")))
	expect(t, "group", configLines(resp.Resources[0]), "consumer.heartbeat.interval.ms=5000 source 5", "consumer.session.timeout.ms=45000 source 5",
		"lagoon.catchup.max.bytes.per.second=0 source 5", "lagoon.catchup.weight=3 source 8")
	expect(t, "unknown group", configLines(resp.Resources[1]), "consumer.heartbeat.interval.ms=5000 source 5", "consumer.session.timeout.ms=45000 source 5",
		"lagoon.catchup.max.bytes.per.second=0 source 5", "lagoon.catchup.weight=1 source 5")
	expect(t, "logger", configLines(resp.Resources[2]), "root=ERROR source 6 read-only")
}

func TestDescribeConfigsRefuses(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 1)
	for _, tc := range []struct {
		asked kmsg.DescribeConfigsRequestResource
		code  int16
		text  string
	}{
		{described(topicResource, "nope"), 3, "does not host"},
		{described(topicResource, "a/b"), 17, "character"},
		{described(brokerResource, "2"), 42, "Unexpected broker id, expected 1"},
		{described(brokerResource, "one"), 42, "must be an integer"},
		{described(loggerResource, ""), 42, "Unexpected broker id"},
		{described(groupResource, ""), 42, "must not be empty"},
		{described(kmsg.ConfigResourceTypeClientMetrics, "x"), 42, "Unsupported resource type"},
		{described(99, "x"), 42, "Unsupported resource type"},
	} {
		out := ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(tc.asked)).Resources[0]
		if out.ErrorCode != tc.code || !strings.Contains(text(out.ErrorMessage), tc.text) || len(out.Configs) != 0 {
			t.Errorf("%s %q: %d %s, want %d …%s…", tc.asked.ResourceType, tc.asked.ResourceName, out.ErrorCode, text(out.ErrorMessage), tc.code, tc.text)
		}
	}
	// A resource named often is answered once, and a request has a bounded number of them.
	var many []kmsg.DescribeConfigsRequestResource
	for range 1000 {
		many = append(many, described(topicResource, "a"))
	}
	if n := len(ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(many...)).Resources); n != 1 {
		t.Errorf("%d answers about one topic", n)
	}
	many = nil
	for i := range maxConfigResources + 1 {
		many = append(many, described(groupResource, fmt.Sprint(i), "lagoon.catchup.weight"))
	}
	resp := ask[*kmsg.DescribeConfigsResponse](a, 4, describeRequest(many...))
	if last := resp.Resources[maxConfigResources]; last.ErrorCode != 42 || resp.Resources[0].ErrorCode != 0 {
		t.Errorf("resource %d: %d", maxConfigResources, last.ErrorCode)
	}
}
