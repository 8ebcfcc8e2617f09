package conformance

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"lagoon/tests/internal/lagoontest"
)

// quickGroups lets groups form without delay.
var quickGroups = []string{"groups.initial_rebalance_delay=0s", "groups.min_session_timeout=100ms"}

// lines are n numbered lines.
func lines(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "record %d\n", i)
	}
	return out.String()
}

// TestKafkaGroupTools: Kafka's own consumers in groups, and kafka-consumer-groups. About 30 s.
func TestKafkaGroupTools(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	lagoontest.CreateTopic(t, b, "read", 3)
	lagoontest.CreateTopic(t, b, "other", 1)
	vm := startJVM(t)
	tool := func(name string, args ...string) string {
		t.Helper()
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
	for range 30 { // the tool fills one partition per batch
		vm.run(t, lines(100), "kafka-console-producer", "--bootstrap-server", b.Bootstrap(), "--topic", "read")
	}

	says(tool("kafka-consumer-perf-test", "--topic", "read", "--num-records", "3000", "--timeout", "20000"), `, 3000, `)
	out := tool("kafka-console-consumer", "--topic", "read", "--group", "console", "--from-beginning", "--max-messages", "3000", "--timeout-ms", "20000")
	if n := strings.Count(out, "record "); n != 3000 {
		t.Errorf("the console consumer read %d records, want 3000", n)
	}

	says(tool("kafka-consumer-groups", "--list"), `^console$`, `^perf-consumer-\d+$`)
	says(tool("kafka-consumer-groups", "--list", "--state"), `^console +Empty`)
	out = tool("kafka-consumer-groups", "--describe", "--group", "console")
	for p := range 3 {
		says(out, fmt.Sprintf(`^console +read +%d +(\d+) +\d+ +0 `, p))
	}
	says(tool("kafka-consumer-groups", "--describe", "--group", "console", "--state"), `^console +\S+ +\(1\) +- +Empty +0`)

	tool("kafka-consumer-groups", "--group", "console", "--topic", "read", "--reset-offsets", "--to-offset", "7", "--execute")
	says(tool("kafka-consumer-groups", "--describe", "--group", "console"), `^console +read +0 +7 `, `^console +read +1 +7 `, `^console +read +2 +7 `)
	tool("kafka-consumer-groups", "--group", "console", "--topic", "read:1", "--reset-offsets", "--to-earliest", "--execute")
	says(tool("kafka-consumer-groups", "--describe", "--group", "console"), `^console +read +1 +0 `)
	says(tool("kafka-consumer-groups", "--group", "console", "--topic", "read:1", "--delete-offsets"), `read +1 +Successful`)
	out = tool("kafka-consumer-groups", "--describe", "--group", "console")
	if regexp.MustCompile(`(?m)^console +read +1 `).MatchString(out) {
		t.Errorf("the offset of read-1 is still there:\n%s", out)
	}
	says(tool("kafka-consumer-groups", "--delete", "--group", "console"), `successful`)
	if out = tool("kafka-consumer-groups", "--list"); strings.Contains(out, "console") {
		t.Errorf("the group is still there:\n%s", out)
	}
	says(tool("kafka-topics", "--describe", "--topic", "__consumer_offsets"), `PartitionCount: 50`, `cleanup.policy=compact`)
}
