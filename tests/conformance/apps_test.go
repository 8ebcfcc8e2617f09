package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// program runs one of Kafka's applications until the test ends or stop is called, which asks it to end and waits.
func program(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command("java", lagoontest.JavaArgs(args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // SIGTERM ends a JVM with status 143
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has usually ended
		<-exited
		if t.Failed() {
			text := out.String()
			t.Logf("%s said:\n%s", args[0], text[max(0, len(text)-8000):])
		}
	})
	return func() {
		t.Helper()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(2 * time.Minute):
			t.Errorf("%s does not stop", args[0])
		}
	}
}

// streamsWordCount runs the WordCount of Kafka Streams (its input, a repartition topic, a changelog, its output) until every word is counted.
// It is stopped in the middle and started again: it goes on where it was. Streams does not leave its group when it stops: the second start
// gets the partitions when the session of the first has ended, hence the short one.
func streamsWordCount(t *testing.T, guarantee string) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	lagoontest.CreateTopic(t, b, "streams-plaintext-input", 2)
	lagoontest.CreateTopic(t, b, "streams-wordcount-output", 1, "cleanup.policy", "compact")
	config := filepath.Join(t.TempDir(), "streams.properties")
	writeFile(t, config, fmt.Sprintf("bootstrap.servers=%s\nprocessing.guarantee=%s\nstate.dir=%s\ncommit.interval.ms=100\nstatestore.cache.max.bytes=0\nauto.offset.reset=earliest\n"+
		"consumer.session.timeout.ms=3000\nconsumer.heartbeat.interval.ms=500\n",
		b.Bootstrap(), guarantee, t.TempDir()))
	cl := lagoontest.Client(t, b)
	write := func(lines int) {
		t.Helper()
		var rs []*kgo.Record
		for range lines {
			rs = append(rs, &kgo.Record{Topic: "streams-plaintext-input", Value: []byte("all streams lead to kafka")})
		}
		if err := cl.ProduceSync(testContext(t), rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	out := lagoontest.Client(t, b, kgo.ConsumeTopics("streams-wordcount-output"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	last, records := map[string]int64{}, 0
	counted := func(want int64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		for len(last) < 5 || last["kafka"] < want || last["all"] < want || last["streams"] < want || last["lead"] < want || last["to"] < want {
			if ctx.Err() != nil {
				t.Fatalf("counts after three minutes: %v, want %d of each of five words", last, want)
			}
			out.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				last[string(r.Key)] = int64(binary.BigEndian.Uint64(r.Value))
				records++
			})
		}
	}
	write(20)
	stop := program(t, "org.apache.kafka.streams.examples.wordcount.WordCountDemo", config)
	counted(20)
	stop()
	write(10)
	stop = program(t, "org.apache.kafka.streams.examples.wordcount.WordCountDemo", config)
	counted(30)
	stop()
	for word, n := range last {
		if n != 30 {
			t.Errorf("%s was counted %d times, want 30", word, n)
		}
	}
	if guarantee == "exactly_once_v2" && records != 5*30 {
		t.Errorf("%d updates, want one for each of 150 words", records)
	}
}

// TestStreams takes about 20 s. LAGOON_EXHAUSTIVE=1 adds the other guarantee.
func TestStreams(t *testing.T) {
	guarantees := []string{"exactly_once_v2"}
	if os.Getenv("LAGOON_EXHAUSTIVE") == "1" {
		guarantees = append(guarantees, "at_least_once")
	}
	for _, guarantee := range guarantees {
		t.Run(guarantee, func(t *testing.T) { streamsWordCount(t, guarantee) })
	}
}

// TestConnect: one distributed worker, whose group, offsets, configurations and status live in topics, with a file source and a file sink. About 7 s.
func TestConnect(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	dir := t.TempDir()
	rest := lagoontest.FreeAddr(t)
	config, source, sink := filepath.Join(dir, "connect.properties"), filepath.Join(dir, "source.txt"), filepath.Join(dir, "sink.txt")
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	jars := glob(t, lagoontest.KafkaLibs(), "connect-file-*.jar")
	if len(jars) != 1 {
		t.Fatalf("jars of the file connectors: %v", jars)
	}
	if err := os.Symlink(jars[0], filepath.Join(plugins, filepath.Base(jars[0]))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, fmt.Sprintf(`bootstrap.servers=%s
group.id=workers
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=2
config.storage.topic=connect-configs
config.storage.replication.factor=1
status.storage.topic=connect-status
status.storage.replication.factor=1
status.storage.partitions=2
offset.flush.interval.ms=500
listeners=http://%s
plugin.path=%s
`, b.Bootstrap(), rest, plugins))
	writeFile(t, source, lines(50))
	stop := program(t, "org.apache.kafka.connect.cli.ConnectDistributed", config)
	put := func(name string, settings map[string]string) {
		t.Helper()
		body, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		waitFor(t, "connector "+name, func() bool {
			req, err := http.NewRequestWithContext(testContext(t), http.MethodPut, "http://"+rest+"/connectors/"+name+"/config", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			if s := fmt.Sprint(resp.StatusCode, " ", string(text)); s != last {
				last = s
				t.Logf("%s: %.200s", name, s)
			}
			return resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusOK
		})
	}
	put("source", map[string]string{"connector.class": "FileStreamSource", "tasks.max": "1", "file": source, "topic": "copied"})
	put("sink", map[string]string{"connector.class": "FileStreamSink", "tasks.max": "1", "file": sink, "topics": "copied", "consumer.override.metadata.max.age.ms": "500"})
	arrived := func(want int) {
		t.Helper()
		waitFor(t, fmt.Sprintf("%d lines in the sink", want), func() bool {
			text, err := os.ReadFile(sink)
			return err == nil && strings.Count(string(text), "\n") >= want
		})
	}
	arrived(50)
	f, err := os.OpenFile(source, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("one more\n")
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	arrived(51)
	stop()
	want, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(sink); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the sink has %q, %v; want the source", got, err)
	}
}
