package operator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/admin"
	"lagoon/tests/internal/lagoontest"
)

// run is one call of the CLI; it must exit with code.
func run(t *testing.T, b *lagoontest.Broker, code int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Binary(), args...)
	cmd.Env = append(cmd.Environ(), "LAGOON_ADMIN="+b.Admin())
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("%v: %v, want exit code %d\n%s", args, err, code, out)
	}
	return string(out)
}

// fill writes n records of 100 KiB to topic.
func fill(t *testing.T, b *lagoontest.Broker, topic string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap()), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	value := make([]byte, 100<<10)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(value) // never fails
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for range n {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return v
}

// TestWhatIsResidentAndWhy: 20 MiB over several segments, of which the older half is evicted; the picture and the explanation tell it.
func TestWhatIsResidentAndWhy(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Config: `
[storage]
segment_bytes = "4MiB"
[readers]
lagging_when = { min_bytes = "4MiB", min_age = "1ms" }
[cache]
hot_window_memory = "0%"
`})
	fill(t, b, "orders", 200)
	const half = 100
	var last string
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	eventually(t, 2*time.Minute, "the older half could not be evicted", func() bool {
		run(t, b, 0, "cache", "evict", "orders/0", "--to", fmt.Sprint(half), "--yes", "--reason", "test")
		run(t, b, 0, "cache", "warm", "orders/0", "--from", fmt.Sprint(half), "--yes") // what proactive reclaim may have taken
		c := decode[admin.Cache](t, run(t, b, 0, "cache", "show", "orders/0", "--cells", "64", "-o", "json"))
		r := c.Rows[0]
		last = fmt.Sprintf("%+v", r)
		if len(r.Cells) < 60 || len(r.Flags) != len(r.Cells) || r.SampledAt.IsZero() || len(r.Tiers) != 1 || r.Tiers[0].Tier != "ssd" {
			t.Fatalf("row %+v", r)
		}
		// An eviction ends at the batch before its end: one of 1 MiB is three cells.
		for _, c := range r.Cells[:len(r.Cells)/2-8] {
			if c != 0 {
				return false
			}
		}
		for _, c := range r.Cells[len(r.Cells)/2+8:] {
			if c != 255 {
				return false
			}
		}
		return true
	})
	steps := func(offset int64, args ...string) (admin.Explanation, map[string]admin.ExplainStep) {
		e := decode[admin.Explanation](t, run(t, b, 0, append([]string{"explain", "fetch", fmt.Sprintf("orders/0@%d", offset), "-o", "json"}, args...)...))
		m := map[string]admin.ExplainStep{}
		for _, s := range e.Steps {
			m[s.Step] = s
		}
		return e, m
	}
	e, s := steps(5, "--client", "warehouse")
	if e.Lane != "bypass" && e.Lane != "hot" || s["segment"].Facts["base_offset"] != 0.0 || s["tier"].Facts["tier"] != "ssd" || s["class"].Facts["state"] != "lagging" {
		t.Errorf("an old offset: %+v", e)
	}
	if ratio := s["residency"].Facts["resident_ratio"]; (e.Lane == "hot") != (ratio == 1.0) {
		t.Errorf("lane %s where %v is resident", e.Lane, ratio)
	}
	if e.Lane == "bypass" && (s["residency"].Facts["resident_ratio"] != 0.0 || s["budget"].Text == "" || s["method"].Facts["method"] != e.IOMode || !strings.Contains(e.Expect, "no page stays")) {
		t.Errorf("not resident: %+v", e)
	}
	e, s = steps(198)
	if e.Lane != "hot" || s["class"].Facts["state"] != "realtime" || s["residency"].Facts["resident_ratio"] != 1.0 {
		t.Errorf("a new offset: %+v", e)
	}
	if out := run(t, b, 0, "explain", "fetch", "orders/0@5"); !strings.Contains(out, "\nlane ") || !strings.Contains(out, "\noutcome ") {
		t.Errorf("text:\n%s", out)
	}
	if e, _ := steps(100000); !strings.Contains(e.Reason, "out of range") {
		t.Errorf("an offset that is not there: %+v", e)
	}
	run(t, b, 1, "explain", "fetch", "ordrs/0@5")
	run(t, b, 2, "explain", "fetch", "orders/0")
}
