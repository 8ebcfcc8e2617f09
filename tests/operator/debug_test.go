package operator_test

import (
	"strings"
	"testing"
	"time"

	"lagoon/internal/admin"
	"lagoon/tests/internal/lagoontest"
)

// TestLogLevelAtRunTime: the daemon logs more while an operator wants it, tells so, and goes back by itself.
func TestLogLevelAtRunTime(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"log.level=warn"}})
	if out := run(t, b, 0, "log-level"); out != "log level warn, as configured\n" {
		t.Errorf("at first: %s", out)
	}
	fill(t, b, "before", 1)
	if strings.Contains(b.Logs(), "level=INFO") {
		t.Fatalf("more than configured:\n%s", b.Logs())
	}
	l := decode[admin.LogLevel](t, run(t, b, 0, "log-level", "debug", "--ttl", "1h", "--reason", "test", "-o", "json"))
	if left := time.Until(l.Until); l.Level != "debug" || l.Configured != "warn" || left < 50*time.Minute || left > time.Hour {
		t.Errorf("for an hour: %+v", l)
	}
	run(t, b, 0, "migrations", "pause", "--reason", "seen by the audit")
	for _, want := range []string{`msg="log level changed" from=warn to=debug reason=test`, `msg="admin call" method=PUT path=/api/v1/log-level`, `reason="seen by the audit"`} {
		if !strings.Contains(b.Logs(), want) {
			t.Errorf("%s is not in\n%s", want, b.Logs())
		}
	}
	run(t, b, 0, "log-level", "info", "--ttl", "1s")
	eventually(t, time.Minute, "back to the configured level", func() bool {
		return run(t, b, 0, "log-level") == "log level warn, as configured\n"
	})
	if !strings.Contains(b.Logs(), `msg="log level changed" from=info to=warn why="its time is over"`) {
		t.Errorf("the end is not in\n%s", b.Logs())
	}
	run(t, b, 2, "log-level", "loud")
	run(t, b, 0, "log-level", "error")
	b.Restart()
	if out := run(t, b, 0, "log-level"); out != "log level warn, as configured\n" {
		t.Errorf("after a restart: %s", out)
	}
}
