package conformance

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lagoon/tests/internal/lagoontest"
)

// python is a Python client behind a script that takes one task and answers it.
type python struct{ library, script string }

var (
	kafkaPython = python{"kafka-python", "kafka_python_driver.py"}
	confluent   = python{"confluent-kafka", "confluent_driver.py"}
)

func (p python) name() string { return p.library }

// dataset: kafka-python refuses headers that are null.
func (p python) dataset(n int) ([]record, bool) {
	out := anyBytes(n)
	for i := range out {
		if p == kafkaPython {
			out[i].Headers = slices.DeleteFunc(out[i].Headers, func(h header) bool { return h.Value == nil })
		}
	}
	return out, false
}

// do runs the script; task is completed with the bootstrap address, the answer lands in out (nil: none expected).
func (p python) do(t *testing.T, b lagoontest.Cluster, task map[string]any, out any) {
	t.Helper()
	task["bootstrap"] = b.Bootstrap()
	in, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), lagoontest.Python(), filepath.Join("testdata", p.script))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", p.library, task["op"], err, stderr.String())
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		t.Fatalf("%s %v: %v in %q\n%s", p.library, task["op"], err, stdout.String(), stderr.String())
	}
}

func (p python) produce(t *testing.T, b lagoontest.Cluster, jobs []job) {
	t.Helper()
	p.do(t, b, map[string]any{"op": "produce", "jobs": jobs}, nil)
}

func (p python) consume(t *testing.T, b lagoontest.Cluster, jobs []job) (out [][]record) {
	t.Helper()
	p.do(t, b, map[string]any{"op": "consume", "jobs": jobs}, &out)
	return out
}

// adminStep is one call of the scripts' admin task, and its answer.
type adminStep struct {
	step []any
	want any
}

// adminSteps are the same for both libraries.
var adminSteps = []adminStep{
	{[]any{"create", "managed", 2, map[string]string{"retention.ms": "-1", "segment.bytes": "1048576"}}, "ok"},
	{[]any{"topics"}, []any{"managed", "read"}},
	{[]any{"count", "managed"}, 2.0},
	{[]any{"partitions", "managed", 5}, "ok"},
	{[]any{"count", "managed"}, 5.0},
	{[]any{"config", "managed", "segment.bytes"}, "1048576"},
	{[]any{"config", "managed", "lagoon.flush"}, "sync"},
	{[]any{"alter", "managed", map[string]string{"segment.bytes": "2097152", "lagoon.flush": "interval"}}, "ok"},
	{[]any{"config", "managed", "segment.bytes"}, "2097152"},
	{[]any{"config", "managed", "lagoon.flush"}, "interval"},
	{[]any{"config", "read", "cleanup.policy"}, "delete"},
	{[]any{"delete_records", "read", 4}, 4.0},
	{[]any{"cluster"}, []any{1.0, 1.0}},
	{[]any{"delete", "managed"}, "ok"},
	{[]any{"topics"}, []any{"read"}},
}

// refused steps have each library's own name for the error.
func refused(p python) []adminStep {
	names := []string{"TopicAlreadyExistsError", "InvalidTopicError", "InvalidConfigurationError", "InvalidPartitionsError", "UnknownTopicOrPartitionError"}
	if p == confluent {
		names = []string{"TOPIC_ALREADY_EXISTS", "TOPIC_EXCEPTION", "INVALID_CONFIG", "INVALID_PARTITIONS", "UNKNOWN_TOPIC_OR_PART"}
	}
	none := map[string]string{}
	steps := []adminStep{
		{step: []any{"create", "read", 1, none}},
		{step: []any{"create", "a/b", 1, none}},
		{step: []any{"create", "odd", 1, map[string]string{"segment.bytes": "many"}}},
		{step: []any{"partitions", "read", 1}},
		{step: []any{"delete", "absent"}},
	}
	for i := range steps {
		steps[i].want = "error " + names[i]
	}
	return steps
}

// TestPythonClients: administration and offset lookup with both libraries; what they write and read is in the matrix. About 3 s.
func TestPythonClients(t *testing.T) {
	lagoontest.Require(t, "python")
	for _, p := range []python{kafkaPython, confluent} {
		t.Run(p.library, func(t *testing.T) {
			b := lagoontest.Start(t, lagoontest.Options{})
			lagoontest.CreateTopic(t, b, "read", 1, "retention.ms", "-1")
			rs, _ := p.dataset(12)
			p.produce(t, b, []job{{Topic: "read", Codec: "zstd", Records: rs}})
			same(t, "read", p.consume(t, b, []job{{Topic: "read", Count: 12}})[0], rs)

			var found struct {
				Begin, End, At int64
				Partitions     []int
			}
			p.do(t, b, map[string]any{"op": "lookup", "topic": "read", "ms": rs[5].Ms - 1}, &found)
			if found.Begin != 0 || found.End != 12 || found.At != 5 || len(found.Partitions) != 1 {
				t.Errorf("lookup: %+v", found)
			}

			steps := append(slices.Clone(adminSteps), refused(p)...)
			var asked, got []any
			for _, s := range steps {
				asked = append(asked, s.step)
			}
			p.do(t, b, map[string]any{"op": "admin", "steps": asked}, &got)
			for i, s := range steps {
				if diff := cmp.Diff(s.want, got[i]); diff != "" {
					t.Errorf("%v (-want +got):\n%s", s.step, diff)
				}
			}
		})
	}
}
