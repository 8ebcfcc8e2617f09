package conformance

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/records"
	"lagoon/tests/internal/lagoontest"
)

// TestKafkaTransactionTools: Kafka's own transactional producer and read_committed consumer, and every verb of kafka-transactions, hanging
// transactions included. About 15 s.
func TestKafkaTransactionTools(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	lagoontest.CreateTopic(t, b, "paid", 2)
	vm := startJVM(t)
	run := func(status int, line string, want ...string) {
		t.Helper()
		tool, args, _ := strings.Cut(line, " ")
		toolStep{line: tool + " --bootstrap-server BOOTSTRAP " + args, status: status, want: want}.check(t, vm, b)
	}
	run(0, "kafka-producer-perf-test --topic paid --num-records 3000 --record-size 100 --throughput 10000 --transactional-id perf --transaction-duration-ms 50", `3000 records sent`)
	run(0, "kafka-console-consumer --topic paid --isolation-level read_committed --from-beginning --max-messages 3000 --timeout-ms 60000", `Processed a total of 3000 messages`)
	run(0, "kafka-features describe", `transaction.version.*FinalizedVersionLevel: 2`)
	run(0, "kafka-transactions list", `(?m)^TransactionalId\s+Coordinator\s+ProducerId\s+TransactionState\s*$`, `(?m)^perf\s+1\s+\d+\s+CompleteCommit\s*$`)
	run(0, "kafka-transactions list --transactional-id-pattern p.*f", `(?m)^perf\s`)
	run(0, "kafka-transactions describe --transactional-id perf", `(?m)^1\s+perf\s+\d+\s+\d+\s+CompleteCommit\s+60000\s+\d+\s+\d+\s*$`)
	run(1, "kafka-transactions describe --transactional-id nobody", `transactionalId .nobody. failed because the ID could not be found`)

	// A transaction that a client has open is not hanging. It is ended for the client.
	cl := lagoontest.Client(t, b, kgo.TransactionalID("open"), kgo.DefaultProduceTopic("paid"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	res := cl.ProduceSync(testContext(t), &kgo.Record{Partition: 1, Value: []byte("late")})
	if err := res.FirstErr(); err != nil {
		t.Fatal(err)
	}
	run(0, "kafka-transactions describe --transactional-id open", `(?m)^1\s+open\s+\d+\s+\d+\s+Ongoing\s+\d+\s+\d+\s+\d+\s+paid-1\s*$`)
	run(0, "kafka-transactions describe-producers --topic paid --partition 1", `CurrentTransactionStartOffset`, fmt.Sprintf(`(?m)\s%d\s*$`, res[0].Record.Offset))
	run(0, "kafka-transactions find-hanging --topic paid --max-transaction-timeout 0", `(?m)\A(?:Topic\s.*\s*)?\z`)
	run(0, "kafka-transactions forceTerminateTransaction --transactionalId open")
	run(0, "kafka-transactions describe --transactional-id open", `(?m)^1\s+open\s.*\s(PrepareAbort|CompleteAbort|Empty)\s`)
	if err := cl.EndTransaction(testContext(t), kgo.TryCommit); err == nil {
		t.Error("a transaction that was terminated could be committed")
	}

	// Hanging transactions as old brokers left them in their logs: open in a partition, and the coordinator knows of none.
	b.Kill()
	hanging := map[int32]int64{0: 4711, 1: 4712} // producer ids
	for p, id := range hanging {
		appendOpenTransaction(t, b, "paid", p, id)
	}
	b.Restart()
	starts, ends := offsetsOf(t, b, "paid", true), offsetsOf(t, b, "paid", false)
	for p := range hanging {
		if starts[p] != ends[p]-1 {
			t.Errorf("paid-%d: stable up to %d of %d, want all but the record that hangs", p, starts[p], ends[p])
		}
	}
	row := func(p int32) string {
		return fmt.Sprintf(`(?m)^paid\s+%d\s+%d\s+3\s+-1\s+%d\s`, p, hanging[p], starts[p])
	}
	run(0, "kafka-transactions find-hanging --broker-id 1", row(0), row(1))
	run(0, "kafka-transactions find-hanging --topic paid --partition 1", row(1))
	run(0, fmt.Sprintf("kafka-transactions abort --topic paid --partition 1 --start-offset %d", starts[1]))
	run(0, "kafka-transactions abort --topic paid --partition 0 --producer-id 4711 --producer-epoch 3 --coordinator-epoch 0")
	run(1, fmt.Sprintf("kafka-transactions abort --topic paid --partition 1 --start-offset %d", starts[1]), `Could not find any open transactions starting at offset`)
	run(0, "kafka-transactions find-hanging --broker-id 1", `(?m)\A(?:Topic\s.*\s*)?\z`)
	for p, stable := range offsetsOf(t, b, "paid", true) {
		if stable != ends[p]+1 {
			t.Errorf("paid-%d: stable up to %d after the abort, want %d with the marker", p, stable, ends[p]+1)
		}
	}
	run(0, "kafka-console-consumer --topic paid --isolation-level read_committed --from-beginning --max-messages 3001 --timeout-ms 6000", `Processed a total of 3000 messages`)
}

// appendOpenTransaction puts a record that is an hour old into a log, as part of a transaction with epoch 3, while the broker does not run.
func appendOpenTransaction(t *testing.T, b *lagoontest.Broker, topic string, partition int32, producerID int64) {
	t.Helper()
	name := filepath.Join(b.TierPath("ssd"), fmt.Sprintf("%s-%d", topic, partition), fmt.Sprintf("%020d.log", 0))
	log, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	next, epoch := uint64(0), uint32(0)
	for at := log; len(at) > 0; at = at[12+be.Uint32(at[8:]):] {
		next, epoch = be.Uint64(at)+uint64(be.Uint32(at[23:]))+1, be.Uint32(at[12:])
	}
	var batch records.Builder
	batch.Add([]byte("who"), []byte("hangs"))
	bytes := batch.TransactionalBatch(time.Now().Add(-time.Hour).UnixMilli(), producerID, 3)
	be.PutUint64(bytes, next) // the checksum covers neither
	be.PutUint32(bytes[12:], epoch)
	if err := os.WriteFile(name, append(log, bytes...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// offsetsOf gives the end of each partition of a topic, or the last stable offset.
func offsetsOf(t *testing.T, b *lagoontest.Broker, topic string, stable bool) map[int32]int64 {
	t.Helper()
	list := lagoontest.AdminClient(t, b).ListEndOffsets
	if stable {
		list = lagoontest.AdminClient(t, b).ListCommittedOffsets
	}
	listed, err := list(testContext(t), topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for p, o := range listed[topic] {
		out[p] = o.Offset
	}
	return out
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
