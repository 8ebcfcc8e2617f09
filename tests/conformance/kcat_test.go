package conformance

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lagoon/tests/internal/lagoontest"
)

// kcat is librdkafka 2.0 behind its command line.
type kcat struct{}

func (kcat) name() string { return "kcat" }

// dataset: kcat gives all records of a run the same headers, and -Z makes every empty key and value null.
func (kcat) dataset(n int) ([]record, bool) {
	out := text(n)
	for i := range out {
		out[i].Headers = []header{{"program", []byte("kcat")}, {"größe", []byte("a b;c")}}
	}
	return out, true
}

// runKcat returns what kcat wrote to its output; a failure, or a run of more than 20 s, fails the test.
func runKcat(t *testing.T, b lagoontest.Cluster, stdin string, args ...string) string {
	t.Helper()
	out, stderr, err := tryKcat(t, b, stdin, args...)
	if err != nil {
		t.Fatalf("kcat %q: %v\n%s%s", args, err, out, stderr)
	}
	return out
}

func tryKcat(t *testing.T, b lagoontest.Cluster, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), "kcat", append([]string{"-b", b.Bootstrap()}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

const (
	fieldEnd  = "\x1f\x1f"
	recordEnd = "\x1e\x1e"
)

func (kcat) produce(t *testing.T, b lagoontest.Cluster, jobs []job) {
	t.Helper()
	for _, j := range jobs {
		var lines []string
		for _, r := range j.Records {
			lines = append(lines, string(r.Key)+fieldEnd+string(r.Value))
		}
		args := []string{"-P", "-t", j.Topic, "-p", "0", "-z", j.Codec, "-K", fieldEnd, "-D", recordEnd, "-Z", "-X", "linger.ms=50", "-X", "enable.idempotence=true"}
		for _, h := range j.Records[0].Headers {
			args = append(args, "-H", h.Key+"="+string(h.Value))
		}
		runKcat(t, b, strings.Join(lines, recordEnd), args...)
	}
}

// kcatFormat frames keys and values by their lengths (-1: null), so that any byte may be in them. Headers are text.
const kcatFormat = `%o %T %K %S` + "\n" + `%k%s%h` + "\n\n"

// shows: kcat prints headers as k=v,k=v; a null value as NULL, others up to the first zero byte.
func (kcat) shows(r record) record {
	r.Headers = []header{{Key: kcatHeaders(r.Headers)}}
	return r
}

func kcatHeaders(hs []header) string {
	var out []string
	for _, h := range hs {
		v, _, _ := strings.Cut(string(h.Value), "\x00") // a C string
		if h.Value == nil {
			v = "NULL"
		}
		out = append(out, h.Key+"="+v)
	}
	return strings.Join(out, ",")
}

func (kcat) consume(t *testing.T, b lagoontest.Cluster, jobs []job) [][]record {
	t.Helper()
	var out [][]record
	for _, j := range jobs {
		text := runKcat(t, b, "", "-C", "-t", j.Topic, "-p", "0", "-o", "beginning", "-c", strconv.Itoa(j.Count), "-q", "-X", "check.crcs=true", "-f", kcatFormat)
		out = append(out, parseKcat(t, text))
	}
	return out
}

var kcatHead = regexp.MustCompile(`^(\d+) (-?\d+) (-?\d+) (-?\d+)\n`)

func parseKcat(t *testing.T, text string) []record {
	t.Helper()
	var out []record
	for text != "" {
		m := kcatHead.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("kcat's output after %d records: %.80q", len(out), text)
		}
		var n [4]int64
		for i := range n {
			n[i], _ = strconv.ParseInt(m[1+i], 10, 64) // the expression has checked them
		}
		text = text[len(m[0]):]
		r := record{Offset: n[0], Ms: n[1]}
		r.Key, text = take(text, n[2])
		r.Value, text = take(text, n[3])
		h, rest, ok := strings.Cut(text, "\n\n")
		if !ok {
			t.Fatalf("kcat's output ends within record %d", r.Offset)
		}
		r.Headers, text = []header{{Key: h}}, rest
		out = append(out, r)
	}
	return out
}

func take(text string, n int64) (field []byte, rest string) {
	if n < 0 {
		return nil, text
	}
	return []byte(text[:n]), text[n:]
}

// TestKcat: listing, auto-creation, looking up times, partitions and offsets as operators use them. About 2 s.
func TestKcat(t *testing.T) {
	lagoontest.Require(t, "kcat")
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"server.default_partitions=3"}})

	t.Run("produce creates the topic", func(t *testing.T) {
		runKcat(t, b, "a\nb\nc\n", "-P", "-t", "made", "-p", "2")
		if got := runKcat(t, b, "", "-C", "-t", "made", "-p", "2", "-e", "-q"); got != "a\nb\nc\n" {
			t.Errorf("read %q", got)
		}
	})
	t.Run("list", func(t *testing.T) {
		out := runKcat(t, b, "", "-L")
		for _, want := range []string{"broker 1 at " + b.Bootstrap() + " (controller)", ` topic "made" with 3 partitions:`, "partition 2, leader 1, replicas: 1, isrs: 1"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		out = runKcat(t, b, "", "-L", "-t", "absent", "-X", "allow.auto.create.topics=false")
		if !strings.Contains(out, "Unknown topic or partition") {
			t.Errorf("absent topic: %s", out)
		}
		if out = runKcat(t, b, "", "-L"); strings.Contains(out, "absent") {
			t.Errorf("asking for a topic made it: %s", out)
		}
		for _, name := range []string{"..", "a/b", "a b", strings.Repeat("x", 250)} {
			if out = runKcat(t, b, "", "-L", "-t", name); !strings.Contains(out, "Invalid topic") {
				t.Errorf("topic name %q: %s", name, out)
			}
		}
	})
	t.Run("offsets by time", func(t *testing.T) {
		lagoontest.CreateTopic(t, b, "times", 1, "retention.ms", "-1")
		rs := text(20)
		franz{}.produce(t, b, []job{{Topic: "times", Codec: "lz4", Records: rs}})
		for _, c := range []struct{ ms, want int64 }{{firstMs - 1, 0}, {firstMs, 0}, {rs[7].Ms, 7}, {rs[7].Ms + 1, 8}, {rs[19].Ms + 1, -1}} {
			out := runKcat(t, b, "", "-Q", "-t", fmt.Sprintf("times:0:%d", c.ms))
			if want := fmt.Sprintf("times [0] offset %d\n", c.want); out != want {
				t.Errorf("time %d: %q, want %q", c.ms, out, want)
			}
		}
		got := runKcat(t, b, "", "-C", "-t", "times", "-p", "0", "-o", fmt.Sprintf("s@%d", rs[7].Ms), "-o", fmt.Sprintf("e@%d", rs[10].Ms), "-q", "-f", "%o ")
		if got != "7 8 9 " {
			t.Errorf("from time to time: %q", got)
		}
	})
	t.Run("offsets", func(t *testing.T) {
		for _, c := range []struct{ from, want string }{{"5", "5 6 "}, {"-2", "18 19 "}, {"beginning", "0 1 "}} {
			if got := runKcat(t, b, "", "-C", "-t", "times", "-p", "0", "-o", c.from, "-c", "2", "-q", "-f", "%o "); got != c.want {
				t.Errorf("from %s: %q, want %q", c.from, got, c.want)
			}
		}
		_, stderr, err := tryKcat(t, b, "", "-C", "-t", "times", "-p", "0", "-o", "500", "-e", "-X", "auto.offset.reset=error")
		if err == nil || !strings.Contains(stderr, "out of range") {
			t.Errorf("offset 500 of 20: %v, %s", err, stderr)
		}
	})
	t.Run("acks", func(t *testing.T) {
		for _, acks := range []string{"0", "1", "all"} {
			topic := "acks-" + acks
			runKcat(t, b, "x\ny\n", "-P", "-t", topic, "-p", "0", "-X", "acks="+acks)
			if got := runKcat(t, b, "", "-C", "-t", topic, "-p", "0", "-c", "2", "-q"); got != "x\ny\n" {
				t.Errorf("acks=%s: read %q", acks, got)
			}
		}
	})
}
