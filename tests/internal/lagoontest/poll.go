package lagoontest

import "time"

// Poll asks cond again and again until it says yes, and tells whether it did within limit. It is for what another process brings about and
// tells nobody of its own accord, and the one place where tests wait by asking again (tests/arch). cond runs on the caller's goroutine, so
// that it may fail the test.
func Poll(limit time.Duration, cond func() bool) (met bool) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return cond()
		}
	}
	return true
}
