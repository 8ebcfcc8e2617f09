package operator_test

import (
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// eventually asks until cond says yes. Outside a process there is nothing to wait on but another look.
func eventually(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !lagoontest.Poll(limit, cond) {
		t.Fatalf("%s within %v", what, limit)
	}
}
