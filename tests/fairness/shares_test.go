package fairness

import (
	"fmt"
	"math"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// Windows in which shares are measured, and how far they may be off.
const (
	window     = 10 * time.Second
	settle     = 3 * time.Second
	shareError = 0.10
	shareTries = 3 // the machine may be busy with something else for a window
)

// shares: on a hard disk that cannot give two consumers what they want, equal weights get equal shares and 3:1 gets 3:1.
func shares(w *world) {
	const (
		speed      = 30e6
		partitions = 4
		size       = 384 * mib
		end        = size / partitions / valueBytes * 9 / 10
	)
	w.start()
	for _, topic := range []string{"a", "b"} { // two topics: nothing that one reads is of use to the other
		lagoontest.CreateTopic(w.t, w.b, topic, partitions, "segment.bytes", fmt.Sprint(16*mib))
		w.fill(topic, partitions, size, func(int) int64 { return time.Now().UnixMilli() })
	}
	w.cool(speed)
	a, b := w.consume("alpha", "a", partitions, end, true), w.consume("beta", "b", partitions, end, true)
	for _, weight := range []float64{1, 3} {
		if weight != 1 {
			w.cli("throttle", "set", "alpha", "none", "--kind", "client", "--weight", fmt.Sprint(weight))
		}
		var all [2]float64 // of all windows: what comes in whole responses, of up to 4 MiB, is an eighth off in one of them
		w.expect(fmt.Sprintf("weights %v:1", weight), func() (string, bool) {
			r := w.rates(window, a, b)
			all[0], all[1] = all[0]+r[0], all[1]+r[1]
			return fmt.Sprintf("%s; of all windows %.2f:1", figures(r), all[0]/all[1]), near(all[0]/all[1], weight, shareError)
		})
	}
	w.b.Stop()
}

// expect measures after a moment to settle, a few times if need be.
func (w *world) expect(what string, measure func() (string, bool)) {
	w.t.Helper()
	for try := 1; ; try++ {
		w.wait(settle)
		text, ok := measure()
		w.t.Logf("%s: %s", what, text)
		if ok {
			return
		}
		if try == shareTries {
			w.t.Errorf("%s: not within bounds in %d windows\n%s", what, try, w.cli("throttle", "ls"))
			return
		}
	}
}

func figures(r []float64) string {
	return fmt.Sprintf("alpha %.2f MB/s, beta %.2f MB/s, %.2f:1, together %.2f", r[0]/1e6, r[1]/1e6, r[0]/r[1], (r[0]+r[1])/1e6)
}

func near(got, want, off float64) bool { return math.Abs(got/want-1) <= off }
