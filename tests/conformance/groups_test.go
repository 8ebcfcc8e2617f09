package conformance

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

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

	says(tool("kafka-consumer-perf-test", "--topic", "read", "--num-records", "3000", "--timeout", "60000"), `, 3000, `)
	out := tool("kafka-console-consumer", "--topic", "read", "--group", "console", "--from-beginning", "--max-messages", "3000", "--timeout-ms", "60000")
	if n := strings.Count(out, "record "); n != 3000 {
		t.Errorf("the console consumer read %d records, want 3000", n)
	}

	says(tool("kafka-consumer-groups", "--list"), `^console$`, `^perf-consumer-\d+$`)
	says(tool("kafka-groups", "--list"), `^console +Classic +consumer`)
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
	reset := func(want string, how ...string) {
		t.Helper()
		says(tool("kafka-consumer-groups", append([]string{"--group", "console", "--topic", "read:1", "--reset-offsets", "--execute"}, how...)...), `^console +read +1 +`+want+` *$`)
	}
	reset("5", "--to-offset", "5")
	reset("3", "--shift-by", "-2")
	reset("0", "--by-duration", "PT1H")
	reset(`\d+`, "--to-latest")
	reset("0", "--to-datetime", "2020-01-01T00:00:00.000")
	reset("0", "--to-current")
	says(tool("kafka-consumer-groups", "--group", "console", "--all-topics", "--reset-offsets", "--to-offset", "9", "--dry-run"), `^console +read +0 +9 *$`)
	says(tool("kafka-consumer-groups", "--group", "console", "--all-topics", "--reset-offsets", "--to-current", "--export"), `"console","read",0,7|read,0,7`)
	says(tool("kafka-console-consumer", "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "6000", "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter"),
		`"group":"console","topic":"read","partition":0.*"offset":7`)
	says(tool("kafka-consumer-groups", "--group", "console", "--topic", "read:1", "--delete-offsets"), `read +1 +Successful`)
	out = tool("kafka-consumer-groups", "--describe", "--group", "console")
	if regexp.MustCompile(`(?m)^console +read +1 `).MatchString(out) {
		t.Errorf("the offset of read-1 is still there:\n%s", out)
	}
	says(tool("kafka-consumer-groups", "--delete", "--group", "console"), `successful`)
	if out = tool("kafka-consumer-groups", "--list"); regexp.MustCompile(`(?m)^console$`).MatchString(out) {
		t.Errorf("the group is still there:\n%s", out)
	}
	says(tool("kafka-topics", "--describe", "--topic", "__consumer_offsets"), `PartitionCount: 50`, `cleanup.policy=compact`)
}

// groupTopic makes a topic of three partitions with 300 records in each.
func groupTopic(t *testing.T, b *lagoontest.Broker) {
	t.Helper()
	lagoontest.CreateTopic(t, b, "read", 3)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var rs []*kgo.Record
	for i := range 900 {
		rs = append(rs, &kgo.Record{Topic: "read", Partition: int32(i % 3), Value: fmt.Appendf(nil, "record %d", i)})
	}
	if err := cl.ProduceSync(testContext(t), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// reader is what /api/v1/readers tells of one reader.
type groupReader struct {
	ClientID    string `json:"client_id"`
	Group       string `json:"group"`
	GroupSource string `json:"group_source"`
}

// TestPythonGroups: two members each of kafka-python and confluent-kafka share a topic and commit what they read.
func TestPythonGroups(t *testing.T) {
	lagoontest.Require(t, "python")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	groupTopic(t, b)
	for _, p := range []python{kafkaPython, confluent} {
		var got struct{ Count, Members, Offsets int }
		p.do(t, b, map[string]any{"op": "group", "topic": "read", "group": p.library, "count": 900}, &got)
		if got.Count < 900 || got.Members != 2 || got.Offsets != 900 {
			t.Errorf("%s: %+v, want 900 records, 2 members, offsets that add up to 900", p.library, got)
		}
	}
}

// TestKcatGroup: kcat -G reads everything, once.
func TestKcatGroup(t *testing.T) {
	lagoontest.Require(t, "kcat")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	groupTopic(t, b)
	out := runKcat(t, b, "", "-G", "cats", "-X", "auto.offset.reset=earliest", "-c", "900", "-q", "read")
	if n := strings.Count(out, "record "); n != 900 {
		t.Errorf("%d records, want 900", n)
	}
	out = runKcat(t, b, "", "-G", "cats", "-X", "auto.offset.reset=earliest", "-e", "-q", "read")
	if n := strings.Count(out, "record "); n != 0 {
		t.Errorf("%d records again", n)
	}
}

// TestFranzGroups: franz-go with cooperative-sticky. Members come and go, static ones come back without a rebalance, and the broker
// knows its readers by their group.
func TestFranzGroups(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	groupTopic(t, b)
	ctx := testContext(t)
	seen := make(chan *kgo.Record, 10_000)
	member := func(i int) (cl *kgo.Client, assigned <-chan struct{}) {
		got := make(chan struct{}, 100)
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()), kgo.ClientID(fmt.Sprintf("franz-%d", i)), kgo.ConsumerGroup("franz"), kgo.ConsumeTopics("read"),
			kgo.InstanceID(fmt.Sprintf("instance-%d", i)), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.HeartbeatInterval(100*time.Millisecond),
			kgo.SessionTimeout(10*time.Second), kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { got <- struct{}{} }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		go func() {
			for {
				fetches := cl.PollFetches(ctx)
				if fetches.IsClientClosed() || ctx.Err() != nil {
					return
				}
				fetches.EachRecord(func(r *kgo.Record) { seen <- r })
			}
		}()
		return cl, got
	}
	first, _ := member(0)
	for range 900 {
		select {
		case <-seen:
		case <-ctx.Done():
			t.Fatal("the first member did not get everything")
		}
	}
	if err := first.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	second, _ := member(1)
	adm := kadm.NewClient(first)
	stable := func() kadm.DescribedGroup {
		t.Helper()
		for ctx.Err() == nil {
			groups, err := adm.DescribeGroups(ctx, "franz")
			g := groups["franz"]
			if err == nil && g.State == "Stable" && len(g.Members) == 2 && len(g.AssignedPartitions()["read"]) == 3 {
				return g
			}
		}
		t.Fatal("the group did not become stable with two members")
		return kadm.DescribedGroup{}
	}
	stable()
	for ctx.Err() == nil { // cooperative: the partitions move in a second round
		if offsets, err := adm.FetchOffsets(ctx, "franz"); err != nil || len(offsets["read"]) != 3 {
			t.Fatalf("%v, %v", offsets, err)
		}
		var readers struct {
			Readers []groupReader `json:"readers"`
		}
		b.Get("/api/v1/readers", &readers)
		known := map[string]bool{}
		for _, r := range readers.Readers {
			if r.Group == "franz" && r.GroupSource == "assignment" {
				known[r.ClientID] = true
			}
		}
		if len(known) == 2 {
			break
		}
	}
	if ctx.Err() != nil {
		t.Error("the readers are not known by their group")
	}
	stable()
	_, before := first.GroupMetadata()
	second.Close() // a static member that stops does not leave
	_, assigned := member(1)
	select {
	case <-assigned:
	case <-ctx.Done():
		t.Fatal("the static member that came back got nothing")
	}
	stable()
	if _, after := first.GroupMetadata(); after != before {
		t.Errorf("a static member that came back made generation %d of %d", after, before)
	}
	// Whoever begins somewhere else than where its partition was left comes to the end of it through what was read before.
	rs := []*kgo.Record{}
	for p := range int32(3) {
		rs = append(rs, &kgo.Record{Topic: "read", Partition: p, Value: []byte("the end")})
	}
	if err := lagoontest.Client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(ctx, rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for ends := 0; ends < len(rs); {
		select {
		case r := <-seen:
			if string(r.Value) == "the end" {
				ends++
			} else {
				t.Fatalf("record %d of partition %d was read again", r.Offset, r.Partition)
			}
		case <-ctx.Done():
			t.Fatalf("%d of %d partitions were read to their end", ends, len(rs))
		}
	}
}
