package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// TestKafkaTransactionTools: Kafka's own transactional producer and read_committed consumer, and kafka-transactions. About 15 s.
func TestKafkaTransactionTools(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	lagoontest.CreateTopic(t, b, "paid", 2)
	vm := startJVM(t)
	tool := func(args string) string {
		t.Helper()
		words := strings.Fields(args)
		return vm.run(t, "", words[0], append([]string{"--bootstrap-server", b.Bootstrap()}, words[1:]...)...)
	}
	says := func(out string, patterns ...string) {
		t.Helper()
		for _, p := range patterns {
			if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
				t.Errorf("no %q in\n%s", p, out)
			}
		}
	}
	says(tool("kafka-producer-perf-test --topic paid --num-records 5000 --record-size 100 --throughput 10000 --transactional-id perf --transaction-duration-ms 50"), `5000 records sent`)
	out := tool("kafka-console-consumer --topic paid --isolation-level read_committed --from-beginning --max-messages 5000 --timeout-ms 20000")
	if n := strings.Count(out, "\n"); n < 5000 {
		t.Errorf("the console consumer read %d records, want 5000", n)
	}
	says(tool("kafka-transactions list"), `^perf\s+\d+\s+\d+\s+CompleteCommit`)
	says(tool("kafka-transactions describe --transactional-id perf"), `CompleteCommit`)
	says(tool("kafka-features describe"), `transaction.version.*FinalizedVersionLevel: 2`)

	// An open transaction holds read_committed consumers up, until it is ended for its client.
	cl := lagoontest.Client(t, b, kgo.TransactionalID("open"), kgo.DefaultProduceTopic("paid"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	res := cl.ProduceSync(testContext(t), &kgo.Record{Partition: 1, Value: []byte("late")})
	if err := res.FirstErr(); err != nil {
		t.Fatal(err)
	}
	start := res[0].Record.Offset
	says(tool("kafka-transactions describe --transactional-id open"), `Ongoing.*paid-1`)
	says(tool("kafka-transactions describe-producers --topic paid --partition 1"), fmt.Sprintf(`\s%d\s*$`, start))
	tool(fmt.Sprintf("kafka-transactions abort --topic paid --partition 1 --start-offset %d", start))
	stable, err := lagoontest.AdminClient(t, b).ListCommittedOffsets(testContext(t), "paid")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := stable.Lookup("paid", 1); o.Offset != start+2 {
		t.Errorf("last stable offset %d, want %d", o.Offset, start+2)
	}
	tool("kafka-transactions forceTerminateTransaction --transactional-id open")
	if err := cl.EndTransaction(testContext(t), kgo.TryCommit); err == nil {
		t.Error("a transaction that was terminated could be committed")
	}
}

// TestConfluentTransactions: librdkafka copies a topic exactly once, and a producer that comes later fences the one before.
func TestConfluentTransactions(t *testing.T) {
	lagoontest.Require(t, "python")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic("in"), kgo.AllowAutoTopicCreation())
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprintf("%04d", i))
		if err := cl.ProduceSync(testContext(t), kgo.StringRecord(want[i])).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	lagoontest.CreateTopic(t, b, "out", 1)
	var got struct {
		Values []string
		Fenced string
	}
	confluent.do(t, b, map[string]any{"op": "transactions", "id": "copy", "from": "in", "to": "out", "count": len(want)}, &got)
	if slices.Sort(got.Values); !slices.Equal(got.Values, want) {
		t.Errorf("%d values: %v", len(got.Values), got.Values)
	}
	if got.Fenced != "_FENCED" {
		t.Errorf("the producer before: %s", got.Fenced)
	}
}
