package bench

import (
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// TestClosedLoopKeepsWhatIsLate: a stall at the end of a measurement is in its latencies, and not in its rate.
func TestClosedLoopKeepsWhatIsLate(t *testing.T) {
	from := time.Unix(1000, 0)
	c := &closedLoop{from: from, to: from.Add(10 * time.Second), latency: hdrhistogram.New(1, maxLatency, 3)}
	at := func(s float64) time.Time { return from.Add(time.Duration(s * float64(time.Second))) }
	c.took(at(-1), at(1)) // sent before
	c.took(at(1), at(2))
	c.took(at(5), at(12)) // the stall
	if l := summary(c.latency); c.acked != 2 || l.Count != 2 || l.Max < 6990 || l.Max > 7010 {
		t.Errorf("%d acknowledged, %+v", c.acked, l)
	}
}
