package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// jvm runs Kafka's tools one after the other in one process; see testdata/Tools.java.
type jvm struct {
	in     io.WriteCloser
	out    io.Reader
	stderr *bytes.Buffer
	cmd    *exec.Cmd
}

func startJVM(t *testing.T) *jvm {
	t.Helper()
	j := &jvm{cmd: exec.Command("java", lagoontest.JavaArgs(filepath.Join("testdata", "Tools.java"))...), stderr: &bytes.Buffer{}}
	j.cmd.Stderr = j.stderr
	var err error
	if j.in, err = j.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if j.out, err = j.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := j.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = j.cmd.Process.Kill() // a tool may hang
		_ = j.cmd.Wait()
	})
	return j
}

// tool classes by the names of the scripts that start them.
var tools = map[string]string{
	"kafka-console-producer":    "org.apache.kafka.tools.ConsoleProducer",
	"kafka-console-consumer":    "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-producer-perf-test":  "org.apache.kafka.tools.ProducerPerformance",
	"kafka-consumer-perf-test":  "org.apache.kafka.tools.ConsumerPerformance",
	"kafka-consumer-groups":     "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-e2e-latency":         "org.apache.kafka.tools.EndToEndLatency",
	"kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
	"kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
	"kafka-groups":              "org.apache.kafka.tools.GroupsCommand",
	"kafka-features":            "org.apache.kafka.tools.FeatureCommand",
	"kafka-topics":              "org.apache.kafka.tools.TopicCommand",
	"kafka-configs":             "kafka.admin.ConfigCommand",
	"kafka-log-dirs":            "org.apache.kafka.tools.LogDirsCommand",
	"kafka-get-offsets":         "org.apache.kafka.tools.GetOffsetShell",
	"kafka-delete-records":      "org.apache.kafka.tools.DeleteRecordsCommand",
	"kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
	"kafka-cluster":             "org.apache.kafka.tools.ClusterTool",
	"kafka-dump-log":            "org.apache.kafka.tools.DumpLogSegments",
	"kafka-transactions":        "org.apache.kafka.tools.TransactionsCommand",
	"kafka-acls":                "org.apache.kafka.tools.AclCommand",
	"kafka-leader-election":     "org.apache.kafka.tools.LeaderElectionCommand",
	"kafka-metadata-quorum":     "org.apache.kafka.tools.MetadataQuorumCommand",
	"kafka-reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
}

// try runs one tool.
func (j *jvm) try(t *testing.T, stdin, tool string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	class, ok := tools[tool]
	if !ok {
		t.Fatalf("no tool %q", tool)
	}
	var msg bytes.Buffer
	field := func(s string) {
		_ = binary.Write(&msg, binary.BigEndian, int32(len(s))) // a Buffer takes everything
		msg.WriteString(s)
	}
	_ = binary.Write(&msg, binary.BigEndian, int32(1+len(args)))
	field(class)
	for _, a := range args {
		field(a)
	}
	field(stdin)
	hung := time.AfterFunc(3*time.Minute, func() { _ = j.cmd.Process.Kill() })
	defer hung.Stop()
	fail := func(err error) {
		t.Helper()
		t.Fatalf("%s %q: the JVM is gone: %v\n%s", tool, args, err, j.stderr)
	}
	if _, err := j.in.Write(msg.Bytes()); err != nil {
		fail(err)
	}
	var n int32
	if err := binary.Read(j.out, binary.BigEndian, &n); err != nil {
		fail(err)
	}
	status = int(n)
	for _, to := range []*string{&stdout, &stderr} {
		if err := binary.Read(j.out, binary.BigEndian, &n); err != nil {
			fail(err)
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(j.out, text); err != nil {
			fail(err)
		}
		*to = string(text)
	}
	return status, stdout, stderr
}

// run runs one tool that must succeed and returns its output.
func (j *jvm) run(t *testing.T, stdin, tool string, args ...string) string {
	t.Helper()
	status, stdout, stderr := j.try(t, stdin, tool, args...)
	if status != 0 {
		t.Fatalf("%s %q: exit status %d\n%s%s", tool, args, status, stdout, stderr)
	}
	return stdout
}

// javaTools is Kafka's console producer and consumer.
type javaTools struct{ vm *jvm }

func (*javaTools) name() string { return "java" }

// dataset: the console producer cannot write a control character, and stamps records itself.
func (*javaTools) dataset(n int) ([]record, bool) { return text(n), true }

func (c *javaTools) start(t *testing.T) *jvm {
	t.Helper()
	if c.vm == nil {
		c.vm = startJVM(t)
	}
	return c.vm
}

const nullMarker = "~null~"

func (c *javaTools) produce(t *testing.T, b lagoontest.Cluster, jobs []job) {
	t.Helper()
	orNull := func(b []byte) string {
		if b == nil {
			return nullMarker
		}
		return string(b)
	}
	for _, j := range jobs {
		var in strings.Builder
		for _, r := range j.Records {
			var hs []string
			for _, h := range r.Headers {
				hs = append(hs, h.Key+":"+orNull(h.Value))
			}
			headers := strings.Join(hs, ",")
			if len(hs) == 0 {
				headers = nullMarker
			}
			fmt.Fprintf(&in, "%s\t%s\t%s\n", headers, orNull(r.Key), orNull(r.Value))
		}
		c.start(t).run(t, in.String(), "kafka-console-producer", "--bootstrap-server", b.Bootstrap(), "--topic", j.Topic, "--compression-codec", j.Codec,
			"--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", "--reader-property", "null.marker="+nullMarker)
	}
}

// consoleArgs read one partition from an offset on; without --partition the tool would join a group.
func consoleArgs(b lagoontest.Cluster, topic string, offset, count int) []string {
	return []string{"--bootstrap-server", b.Bootstrap(), "--topic", topic, "--partition", "0", "--offset", strconv.Itoa(offset),
		"--max-messages", strconv.Itoa(count), "--timeout-ms", "60000", "--command-property", "fetch.max.wait.ms=20"} // closing waits for the fetch under way
}

func (c *javaTools) consume(t *testing.T, b lagoontest.Cluster, jobs []job) [][]record {
	t.Helper()
	var out [][]record
	for _, j := range jobs {
		args := consoleArgs(b, j.Topic, 0, j.Count)
		for _, p := range []string{"print.timestamp=true", "print.offset=true", "print.headers=true", "print.key=true", "print.value=true", "null.literal=" + nullMarker,
			"key.separator=" + fieldEnd, "line.separator=" + recordEnd} {
			args = append(args, "--formatter-property", p)
		}
		text := c.start(t).run(t, "", "kafka-console-consumer", args...)
		var rs []record
		for _, line := range strings.Split(strings.TrimSuffix(text, recordEnd), recordEnd) {
			rs = append(rs, parseConsole(t, line))
		}
		out = append(out, rs)
	}
	return out
}

// parseConsole reads "CreateTime:1␟Offset:2␟a:1,b:2␟key␟value".
func parseConsole(t *testing.T, line string) record {
	t.Helper()
	f := strings.Split(line, fieldEnd)
	if len(f) != 5 {
		t.Fatalf("console consumer's line has %d fields: %.200q", len(f), line)
	}
	number := func(field, name string) int64 {
		text, ok := strings.CutPrefix(field, name)
		n, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil {
			t.Fatalf("console consumer's field %q, want %s and a number", field, name)
		}
		return n
	}
	null := func(s string) []byte {
		if s == nullMarker {
			return nil
		}
		return []byte(s)
	}
	return record{Ms: number(f[0], "CreateTime:"), Offset: number(f[1], "Offset:"), Headers: []header{{Key: f[2]}}, Key: null(f[3]), Value: null(f[4])}
}

// shows: the console consumer prints headers as one string.
func (*javaTools) shows(r record) record {
	var hs []string
	for _, h := range r.Headers {
		v := nullMarker
		if h.Value != nil {
			v = string(h.Value)
		}
		hs = append(hs, h.Key+":"+v)
	}
	all := strings.Join(hs, ",")
	if len(hs) == 0 {
		all = "NO_HEADERS"
	}
	r.Headers = []header{{Key: all}}
	return r
}
