package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// quickConsumers lets members of the consumer protocol (KIP-848) learn quickly what is new for them.
var quickConsumers = append(slices.Clone(quickGroups), "groups.consumer_heartbeat_interval=200ms")

// TestConsumerProtocolTools: Kafka's console consumer with group.protocol=consumer, and what kafka-consumer-groups and kafka-configs tell of the
// group. About 15 s.
func TestConsumerProtocolTools(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickConsumers})
	groupTopic(t, b)
	vm := startJVM(t)
	var alive func() // keeps a member in its group while the tools take their time
	tool := func(name string, args ...string) string {
		t.Helper()
		if alive != nil {
			alive()
		}
		return vm.run(t, "", name, append([]string{"--bootstrap-server", b.Bootstrap()}, args...)...)
	}
	says := func(out string, patterns ...string) {
		t.Helper()
		for _, p := range patterns {
			if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
				t.Errorf("no %q in\n%s", p, out)
			}
		}
	}
	out := tool("kafka-console-consumer", "--topic", "read", "--group", "console", "--from-beginning", "--max-messages", "900", "--timeout-ms", "60000",
		"--command-property", "group.protocol=consumer")
	if n := strings.Count(out, "record "); n != 900 {
		t.Errorf("the console consumer read %d records, want 900", n)
	}

	// A member that stays while the tools look, by a regular expression.
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	beat := func(epoch int32) *kmsg.ConsumerGroupHeartbeatResponse {
		t.Helper()
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = "console", "stays", epoch
		if epoch == 0 {
			req.RebalanceTimeoutMillis, req.SubscribedTopicRegex, req.Topics = 10_000, kmsg.StringPtr("re.*"), []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		}
		resp, err := req.RequestWith(testContext(t), cl)
		if err != nil || resp.ErrorCode != 0 {
			t.Fatalf("heartbeat: %+v, %v", resp, err)
		}
		return resp
	}
	resp := beat(0)
	if resp.Assignment == nil || len(resp.Assignment.Topics) != 1 || len(resp.Assignment.Topics[0].Partitions) != 3 {
		t.Fatalf("%+v", resp)
	}
	alive = func() { beat(resp.MemberEpoch) }
	says(tool("kafka-consumer-groups", "--list", "--type", "consumer"), `^console`)
	says(tool("kafka-consumer-groups", "--list", "--state"), `^console +Stable`)
	out = tool("kafka-consumer-groups", "--describe", "--group", "console")
	for p := range 3 {
		says(out, fmt.Sprintf(`^console +read +%d +300 +300 +0 `, p))
	}
	says(tool("kafka-consumer-groups", "--describe", "--group", "console", "--state"), `^console .*uniform +Stable +1`)
	says(tool("kafka-consumer-groups", "--describe", "--group", "console", "--members", "--verbose"), `^console +stays .* 3 +4 +read:0,1,2 +4 +read:0,1,2`)

	// Behind the end: the admin API says the same.
	tool("kafka-consumer-groups", "--group", "other", "--topic", "read:1", "--reset-offsets", "--to-offset", "7", "--execute")
	says(tool("kafka-consumer-groups", "--describe", "--group", "other"), `^other +read +1 +7 +300 +293 `)
	var g struct {
		Type, State string
		LagRecords  int64   `json:"lag_records"`
		LagBytes    int64   `json:"lag_bytes"`
		LagSeconds  float64 `json:"lag_seconds"`
		Partitions  []struct {
			Committed int64  `json:"committed_offset"`
			End       int64  `json:"end_offset"`
			ClientID  string `json:"client_id"`
		}
	}
	b.Get("/api/v1/groups/other", &g)
	if g.Type != "classic" || g.LagRecords != 293 || g.LagBytes <= 0 || g.LagSeconds <= 0 || len(g.Partitions) != 1 || g.Partitions[0].Committed != 7 || g.Partitions[0].End != 300 {
		t.Errorf("%+v", g)
	}
	b.Get("/api/v1/groups/console", &g)
	if g.Type != "consumer" || g.State != "Stable" || g.LagRecords != 0 || len(g.Partitions) != 3 || g.Partitions[0].ClientID != "kgo" {
		t.Errorf("%+v", g)
	}
	tool("kafka-configs", "--entity-type", "groups", "--entity-name", "console", "--alter", "--add-config", "consumer.session.timeout.ms=50000")
	says(tool("kafka-configs", "--entity-type", "groups", "--entity-name", "console", "--describe"), `consumer.session.timeout.ms=50000`)
	says(tool("kafka-features", "describe"), `group.version.*FinalizedVersionLevel: 1`)
	alive = nil
	beat(-1)
	says(tool("kafka-consumer-groups", "--describe", "--group", "console", "--state"), `^console .*Empty +0`)
	says(tool("kafka-consumer-groups", "--delete", "--group", "console"), `successful`)
}

// TestConsumerProtocolLibrdkafka: confluent-kafka with group.protocol=consumer; and a group that converts while a member of the classic protocol is in it.
func TestConsumerProtocolLibrdkafka(t *testing.T) {
	lagoontest.Require(t, "python")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickConsumers})
	groupTopic(t, b)
	var got struct{ Count, Members, Offsets int }
	confluent.do(t, b, map[string]any{"op": "group", "topic": "read", "group": "new", "count": 900, "protocol": "consumer"}, &got)
	if got.Count < 900 || got.Members != 2 || got.Offsets != 900 {
		t.Errorf("%+v, want 900 records, 2 members, offsets that add up to 900", got)
	}
	var steps [][]int
	confluent.do(t, b, map[string]any{"op": "migrate", "topic": "read", "group": "mixed"}, &steps)
	if len(steps) != 3 || fmt.Sprint(steps[0]) != "[3]" || len(steps[1]) != 2 || steps[1][0]+steps[1][1] != 3 || steps[1][0]*steps[1][1] != 2 || fmt.Sprint(steps[2]) != "[3]" {
		t.Errorf("partitions of each member: %v; want [3], two that share 3, [3]", steps)
	}
}
