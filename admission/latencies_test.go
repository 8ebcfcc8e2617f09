package admission_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"lagoon/admission"
)

// TestMedianMovesWithinItsBucket: a shift of 2 % is seen, though a bucket is up to 6 % wide.
func TestMedianMovesWithinItsBucket(t *testing.T) {
	if d := admission.MedianOf(&admission.Latencies{}); d != 0 {
		t.Errorf("the median of nothing is %v", d)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for middle := 300 * time.Microsecond; middle < 200*time.Millisecond; middle += middle / 50 {
		var counts admission.Latencies
		var all []time.Duration
		for range 2001 {
			d := time.Duration(float64(middle) * (0.6 + 0.8*random.Float64()))
			all = append(all, d)
			counts.Add(d, 1)
		}
		slices.Sort(all)
		if got, want := admission.MedianOf(&counts), all[len(all)/2]; (got - want).Abs() > want/100 {
			t.Errorf("median %v, told as %v", want, got)
		}
	}
}
