package lagoontest_test

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// TestBrokerLifecycle takes about a second once the binary is built.
func TestBrokerLifecycle(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"log.level=debug"}})
	lagoontest.CreateTopic(t, b, "life", 1, "retention.ms", "60000")
	produce := func(value string) {
		t.Helper()
		cl := lagoontest.Client(t, b)
		defer cl.Close()
		if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: "life", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		for i, r := range lagoontest.ReadFrom(t, b, "life", 0, 0, len(want)) {
			if string(r.Value) != want[i] {
				t.Errorf("record %d is %q, want %q", i, r.Value, want[i])
			}
		}
	}
	produce("before kill")
	pid := b.PID()
	b.Kill()
	b.Restart()
	if b.PID() == pid {
		t.Errorf("same process id %d after a restart", pid)
	}
	check("before kill")
	produce("before stop")
	b.Restart("log.format=json")
	check("before kill", "before stop")
	var status struct{ State string }
	if body := b.Get("/api/v1/status", &status); status.State != "ready" {
		t.Errorf("state %q in %s", status.State, body)
	}
	b.Stop()
	if logs := b.Logs(); !strings.Contains(logs, `"msg":"stopped"`) || !strings.Contains(logs, "msg=ready") {
		t.Errorf("log:\n%s", logs)
	}
}
