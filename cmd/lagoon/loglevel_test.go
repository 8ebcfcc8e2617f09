package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/conf"
	"lagoon/internal/admin"
)

// TestLogLevelRevertsItself: a level has a term, a newer one replaces it with its term, and each change is in the log whatever the level is.
func TestLogLevelRevertsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recentLog{} // the end of a term writes to it, too
		log, level := newLogger(out, conf.Log{Level: "warn", Format: "text"})
		written := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			log.Debug(what)
			if got := strings.Contains(out.text(), "msg="+what); got != want {
				t.Errorf("%s is written: %v\n%s", what, got, out.text())
			}
		}
		is := func(want admin.LogLevel) {
			t.Helper()
			synctest.Wait()
			if got := level.view(); got != want {
				t.Errorf("level %+v, want %+v", got, want)
			}
		}
		written("before", false)
		level.order(admin.LogLevelOrder{Level: "debug", TTL: time.Minute, Reason: "look", Peer: "10.0.0.7:1", RequestID: "R"})
		is(admin.LogLevel{Level: "debug", Configured: "warn", Until: time.Now().Add(time.Minute), Reason: "look"})
		written("during", true)
		time.Sleep(59 * time.Second)
		written("late", true)
		time.Sleep(time.Second)
		is(admin.LogLevel{Level: "warn", Configured: "warn"})
		written("after", false)

		// The first one's end is not the second one's.
		level.order(admin.LogLevelOrder{Level: "debug", TTL: time.Minute})
		time.Sleep(30 * time.Second)
		level.order(admin.LogLevelOrder{Level: "debug", TTL: time.Hour})
		time.Sleep(time.Minute)
		written("longer", true)
		// Without a term it stays.
		level.order(admin.LogLevelOrder{Level: "error"})
		time.Sleep(2 * time.Hour)
		is(admin.LogLevel{Level: "error", Configured: "warn"})
		// The configured one takes back what was set.
		level.order(admin.LogLevelOrder{Level: "warn"})
		is(admin.LogLevel{Level: "warn", Configured: "warn"})
		var changes []string
		for line := range strings.Lines(out.text()) {
			if _, change, ok := strings.Cut(line, `msg="log level changed" `); ok {
				changes = append(changes, strings.Join(strings.Fields(change)[:2], " "))
			}
		}
		want := "from=warn to=debug, from=debug to=warn, from=warn to=debug, from=debug to=debug, from=debug to=error, from=error to=warn"
		if got := strings.Join(changes, ", "); got != want {
			t.Errorf("changes in the log:\n%s, want\n%s", got, want)
		}
		if !strings.Contains(out.text(), "reason=look peer=10.0.0.7:1 request_id=R until=") {
			t.Errorf("who, why and for how long is not in\n%s", out.text())
		}
	})
}
