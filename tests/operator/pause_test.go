package operator_test

import (
	"testing"
	"time"
)

// eventually asks until cond says yes. Outside a process there is nothing to wait on but another look.
func eventually(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s within %v", what, limit)
		}
	}
}
