package broker

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/metadata"
)

func alterRequest(kind kmsg.ConfigResourceType, name string, configs ...string) *kmsg.AlterConfigsRequest {
	req := kmsg.NewPtrAlterConfigsRequest()
	r := kmsg.NewAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	for _, c := range configs {
		k, v, hasValue := strings.Cut(c, "=")
		e := kmsg.NewAlterConfigsRequestResourceConfig()
		e.Name = k
		if hasValue {
			e.Value = kmsg.StringPtr(v)
		}
		r.Configs = append(r.Configs, e)
	}
	req.Resources = append(req.Resources, r)
	return req
}

// incremental makes a request of changes like "+key=value" (append), "-key=value" (subtract), "!key" (delete), "key=value".
func incremental(kind kmsg.ConfigResourceType, name string, changes ...string) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	for _, c := range changes {
		e := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		if i := strings.IndexByte("?!+-", c[0]); i > 0 {
			e.Op, c = kmsg.IncrementalAlterConfigOp(i), c[1:]
		} else if i == 0 {
			e.Op, c = 9, c[1:]
		}
		k, v, hasValue := strings.Cut(c, "=")
		e.Name = k
		if hasValue {
			e.Value = kmsg.StringPtr(v)
		}
		r.Configs = append(r.Configs, e)
	}
	req.Resources = append(req.Resources, r)
	return req
}

func incrementalAnswer(a *adminBroker, req *kmsg.IncrementalAlterConfigsRequest) string {
	out := ask[*kmsg.IncrementalAlterConfigsResponse](a, 1, req).Resources[0]
	return fmt.Sprintf("%d %s", out.ErrorCode, text(out.ErrorMessage))
}

func TestAlterConfigsReplacesEverything(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		a := newAdminBroker(t, nil)
		a.topic("a", 1, "retention.ms=5", "segment.ms=6")
		req := alterRequest(topicResource, "a", "segment.ms=7", "cleanup.policy=compact,delete")
		req.ValidateOnly = true
		if out := ask[*kmsg.AlterConfigsResponse](a, version, req).Resources[0]; out.ErrorCode != 0 || a.meta.Snapshot().Topics["a"].Configs["segment.ms"] != "6" {
			t.Fatalf("v%d validate only: %d %s", version, out.ErrorCode, text(out.ErrorMessage))
		}
		req.ValidateOnly = false
		out := ask[*kmsg.AlterConfigsResponse](a, version, req).Resources[0]
		if out.ErrorCode != 0 || out.ErrorMessage != nil || out.ResourceName != "a" || out.ResourceType != topicResource {
			t.Fatalf("v%d: %d %s", version, out.ErrorCode, text(out.ErrorMessage))
		}
		if got := a.meta.Snapshot().Topics["a"].Configs; !maps.Equal(got, map[string]string{"segment.ms": "7", "cleanup.policy": "compact,delete"}) {
			t.Errorf("v%d: %v", version, got)
		}
		if cfg := a.store.config("a"); cfg.SegmentMs != 7 || cfg.RetentionMs != 604800000 || !cfg.Compact || !cfg.Delete {
			t.Errorf("v%d: partitions obey %+v", version, cfg)
		}
	}
}

func TestAlterConfigsRefuses(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.ServerConfigs = settings })
	a.topic("a", 1, "retention.ms=5")
	for _, tc := range []struct {
		req  *kmsg.AlterConfigsRequest
		code int16
		text string
	}{
		{alterRequest(topicResource, "nope", "retention.ms=1"), 3, "The topic 'nope' does not exist."},
		{alterRequest(topicResource, "a/b"), 17, "character"},
		{alterRequest(topicResource, "a", "retention.ms"), 42, "Null value"},
		{alterRequest(topicResource, "a", "retention.ms=1", "retention.ms=2"), 42, "duplicate config keys: retention.ms"},
		{alterRequest(topicResource, "a", "segment.bytes=1"), 40, "at least 1048576"},
		{alterRequest(topicResource, "a", "local.retention.ms=9", "retention.ms=8"), 40, "must not exceed"},
		{alterRequest(topicResource, "a", "lagoon.tier.policy=hdd,ssd"), 40, "hot to cold"},
		{alterRequest(brokerResource, "2", "log.retention.ms=1"), 42, "Unexpected broker id"},
		{alterRequest(brokerResource, "1", "node.id=2"), 42, "Cannot update node.id dynamically: it is read-only"},
		{alterRequest(brokerResource, "1", "log.retenton.ms=2"), 40, "did you mean log.retention.ms?"},
		{alterRequest(brokerResource, "", "log.segment.bytes=5"), 40, "at least 1048576"},
		{alterRequest(groupResource, "", "lagoon.catchup.weight=1"), 42, "must not be empty"},
		{alterRequest(groupResource, "g", "lagoon.catchup.wieght=1"), 40, "did you mean lagoon.catchup.weight?"},
		{alterRequest(groupResource, "g", "lagoon.catchup.weight=-1"), 40, "at least 0.01"},
		{alterRequest(loggerResource, "1", "root=DEBUG"), 40, "lagoon log-level changes it"},
		{alterRequest(kmsg.ConfigResourceTypeClientMetrics, "x", "metrics=a"), 42, "Unsupported resource type"},
	} {
		out := ask[*kmsg.AlterConfigsResponse](a, 2, tc.req).Resources[0]
		if out.ErrorCode != tc.code || !strings.Contains(text(out.ErrorMessage), tc.text) {
			t.Errorf("%s %q: %d %s, want %d …%s…", out.ResourceType, out.ResourceName, out.ErrorCode, text(out.ErrorMessage), tc.code, tc.text)
		}
	}
	if snap := a.meta.Snapshot(); len(snap.BrokerConfigs)+len(snap.GroupConfigs) != 0 || len(snap.Topics["a"].Configs) != 1 {
		t.Errorf("a refused change was made: %+v", snap)
	}
}

// A delay reaches the partitions with the time up to which all has been seen, which no client sees, sets or loses.
func TestAlterDelay(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 1, "message.timestamp.type=LogAppendTime")
	before := time.Now().UnixMilli()
	if got := incrementalAnswer(a, incremental(topicResource, "a", "lagoon.delivery.delay.ms=60000")); got != "0 <null>" {
		t.Fatal(got)
	}
	cfg := a.store.config("a")
	if cfg.DeliveryDelayMs != 60000 || cfg.DeliveredMs < before || !cfg.LogAppendTime {
		t.Errorf("partitions obey %+v", cfg)
	}
	if got := incrementalAnswer(a, incremental(topicResource, "a", "retention.bytes=5")); got != "0 <null>" {
		t.Fatal(got)
	}
	if out := ask[*kmsg.AlterConfigsResponse](a, 2, alterRequest(topicResource, "a", "message.timestamp.type=LogAppendTime", "lagoon.delivery.delay.ms=60000")).Resources[0]; out.ErrorCode != 0 {
		t.Fatal(text(out.ErrorMessage))
	}
	if now := a.store.config("a"); now.DeliveredMs != cfg.DeliveredMs || now.DeliveryDelayMs != 60000 {
		t.Errorf("after other changes partitions obey %+v", now)
	}
	for _, change := range []string{"lagoon.delivered.ms=1", "message.timestamp.type=CreateTime", "retention.ms=60000"} {
		if got := incrementalAnswer(a, incremental(topicResource, "a", change)); !strings.HasPrefix(got, "40 ") {
			t.Errorf("%s: %s", change, got)
		}
	}
}

// A default of the broker does not bring about what a topic with a delay may not have: its records would go before anybody sees them.
func TestBrokerDefaultsKeepDelays(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("late", 1, "message.timestamp.type=LogAppendTime", "lagoon.delivery.delay.ms=60000")
	a.topic("own", 1, "message.timestamp.type=LogAppendTime", "lagoon.delivery.delay.ms=60000", "retention.ms=90000", "cleanup.policy=delete")
	for _, change := range []string{"log.retention.ms=60000", "+log.cleanup.policy=compact"} {
		for _, broker := range []string{"", "1"} {
			if got := incrementalAnswer(a, incremental(brokerResource, broker, change)); !strings.HasPrefix(got, "40 Topic late would not go with it: ") {
				t.Errorf("%s of broker %q: %s", change, broker, got)
			}
		}
	}
	if cfg := a.store.config("late"); cfg.RetentionMs != 604800000 || cfg.Compact {
		t.Errorf("partitions obey %+v", cfg)
	}
	if got := incrementalAnswer(a, incremental(brokerResource, "", "log.retention.ms=60001")); got != "0 <null>" {
		t.Errorf("a longer one: %s", got)
	}
}

func TestIncrementalAlterTopic(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.TopicDefaults = map[string]string{"leader.replication.throttled.replicas": "0:1"} })
	a.topic("a", 1, "retention.ms=5", "segment.ms=6")
	for _, step := range []struct{ change, want string }{
		{"segment.ms= 7", "segment.ms 7"},
		{"!segment.ms", "segment.ms <unset>"},
		{"!segment.ms", "segment.ms <unset>"}, // what is not set may be deleted
		{"+cleanup.policy=compact", "cleanup.policy delete,compact"},
		{"+cleanup.policy=compact", "cleanup.policy delete,compact"},
		{"-cleanup.policy= delete ,nothing", "cleanup.policy compact"},
		{"-cleanup.policy=compact", "cleanup.policy "},
		{"+leader.replication.throttled.replicas=1:1", "leader.replication.throttled.replicas 0:1,1:1"},
	} {
		if got := incrementalAnswer(a, incremental(topicResource, "a", step.change)); got != "0 <null>" {
			t.Errorf("%s: %s", step.change, got)
		}
		key, _, _ := strings.Cut(step.want, " ")
		value, ok := a.meta.Snapshot().Topics["a"].Configs[key]
		if !ok {
			value = "<unset>"
		}
		if got := key + " " + value; got != step.want {
			t.Errorf("%s: %s, want %s", step.change, got, step.want)
		}
	}
	if cfg := a.store.config("a"); cfg.RetentionMs != 5 || cfg.Delete || cfg.Compact {
		t.Errorf("partitions obey %+v", cfg)
	}
	for change, want := range map[string]string{
		"+retention.ms=1":            "40 Can't APPEND to key retention.ms because its type is not LIST.",
		"-no.such.key=1":             "40 Unknown topic config name: no.such.key",
		"?retention.ms=1":            "42 Unknown operation 9 for config retention.ms.",
		"+cleanup.policy":            "42 Null value not supported for : cleanup.policy",
		"+cleanup.policy=x":          "40 Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
		"message.timestamp.type=now": "40 Invalid value now for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
	} {
		if got := incrementalAnswer(a, incremental(topicResource, "a", change)); got != want {
			t.Errorf("%s: %s, want %s", change, got, want)
		}
	}
}

// One bad key of a resource and nothing of it is changed; other resources of the request are.
func TestIncrementalAlterIsAtomicPerResource(t *testing.T) {
	a := newAdminBroker(t, nil)
	a.topic("a", 1)
	a.topic("b", 1)
	req := incremental(topicResource, "a", "retention.ms=5", "segment.bytes=5")
	req.Resources = append(req.Resources, incremental(topicResource, "b", "retention.ms=5").Resources...)
	req.ValidateOnly = true
	ask[*kmsg.IncrementalAlterConfigsResponse](a, 0, req)
	if n := len(a.meta.Snapshot().Topics["b"].Configs); n != 0 {
		t.Errorf("validate only set %d keys", n)
	}
	req.ValidateOnly = false
	resp := ask[*kmsg.IncrementalAlterConfigsResponse](a, 0, req)
	if resp.Resources[0].ErrorCode != 40 || resp.Resources[1].ErrorCode != 0 {
		t.Errorf("%+v", resp.Resources)
	}
	snap := a.meta.Snapshot()
	if len(snap.Topics["a"].Configs) != 0 || snap.Topics["b"].Configs["retention.ms"] != "5" {
		t.Errorf("a %v, b %v", snap.Topics["a"].Configs, snap.Topics["b"].Configs)
	}
	req.Resources = append(req.Resources[1:], req.Resources[1:]...)
	for i, out := range ask[*kmsg.IncrementalAlterConfigsResponse](a, 0, req).Resources {
		if out.ErrorCode != 42 {
			t.Errorf("resource %d, named twice: %d", i, out.ErrorCode)
		}
	}
}

// A dynamic broker config reaches the partitions of every topic that does not set the key itself, and those made later.
func TestIncrementalAlterBroker(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.TopicDefaults = map[string]string{"retention.ms": "100"} })
	a.topic("own", 1, "retention.ms=5")
	a.topic("follows", 1)
	retention := func() string {
		return fmt.Sprint(a.store.config("own").RetentionMs, " ", a.store.config("follows").RetentionMs)
	}
	for _, step := range []struct{ node, change, want string }{
		{"", "log.retention.ms=7", "5 7"},
		{"1", "log.retention.ms=8", "5 8"},
		{"", "!log.retention.ms", "5 8"},
		{"1", "!log.retention.ms", "5 100"},
		{"1", "log.retention.ms=9", "5 9"},
	} {
		if got := incrementalAnswer(a, incremental(brokerResource, step.node, step.change)); got != "0 <null>" || retention() != step.want {
			t.Errorf("broker %q %s: %s, retention %s, want %s", step.node, step.change, got, retention(), step.want)
		}
	}
	a.topic("later", 1)
	if got := a.store.config("later").RetentionMs; got != 9 {
		t.Errorf("a later topic keeps %d ms", got)
	}
}

func TestIncrementalAlterGroup(t *testing.T) {
	a := newAdminBroker(t, nil)
	if got := incrementalAnswer(a, incremental(groupResource, "wh", "lagoon.catchup.max.bytes.per.second=100000", "lagoon.catchup.weight=2")); got != "0 <null>" {
		t.Error(got)
	}
	if rate, weight := a.meta.Snapshot().GroupCap("wh"); rate != 100_000 || weight != 2 {
		t.Errorf("cap %d, weight %v", rate, weight)
	}
	for change, want := range map[string]string{
		"lagoon.catchup.max.bytes.per.second=1000": "40 Invalid value 1000 for configuration lagoon.catchup.max.bytes.per.second: Value must be 0 or at least 16384",
		"lagoon.catchup.weight=0":                  "40 Invalid value 0 for configuration lagoon.catchup.weight: Value must be at least 0.01",
	} {
		if got := incrementalAnswer(a, incremental(groupResource, "wh", change)); got != want {
			t.Errorf("%s: %s", change, got)
		}
	}
	if got := incrementalAnswer(a, incremental(groupResource, "wh", "!lagoon.catchup.max.bytes.per.second", "!lagoon.catchup.weight")); got != "0 <null>" || len(a.meta.Snapshot().GroupConfigs) != 0 {
		t.Errorf("%s, left %v", got, a.meta.Snapshot().GroupConfigs)
	}
}

// The caps of all cold reads and of migrations are dynamic broker configs, by Kafka's names.
func TestIncrementalAlterCaps(t *testing.T) {
	a := newAdminBroker(t, nil)
	key := metadata.FetchMaxBytesPerSecond
	for change, want := range map[string]string{
		key + "=1000": "40 Invalid value 1000 for configuration " + key + ": Value must be at least 16384",
		key + "=-1":   "40 Invalid value -1 for configuration " + key + ": Value must be at least 16384",
		key + "=20M":  "40 Invalid value 20M for configuration " + key + ": Not a number of type LONG",
	} {
		if got := incrementalAnswer(a, incremental(brokerResource, "", change)); got != want {
			t.Errorf("%s: %s", change, got)
		}
	}
	if got := incrementalAnswer(a, incremental(brokerResource, "1", key+"=20000000")); got != "0 <null>" {
		t.Error(got)
	}
	if v, ok := a.meta.Snapshot().BrokerValue(key, "1"); v != "20000000" || !ok {
		t.Errorf("%s %v", v, ok)
	}
}
