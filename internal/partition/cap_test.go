package partition_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
)

// TestExplainedWeight: a flow has the weight that was set for it, also while it reads nothing.
func TestExplainedWeight(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	produce(t, l, batch("a", 1, 100, nil, 1000))
	if err := s.Configure(admission.Subject{Kind: admission.Group, Name: "etl"}, admission.Cap{Weight: 300}); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]int{"etl": 300, "other": admission.DefaultWeight} {
		if e, err := l.Explain(admission.ReaderKey{Group: group, Topic: "orders"}, 0, 1000); err != nil || e.Weight != want {
			t.Errorf("%s has the weight %d, want %d (%v)", group, e.Weight, want, err)
		}
	}
	closeStore(t, s)
}

// TestSmallCapIsKept: groups with caps far below a chunk per second, beside one that reads the same log as fast as the disk
// gives: each gets its cap within 5 % in every ten seconds, although others have read the bytes before it.
func TestSmallCapIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBudgetWorld(t, 1, 50<<20, nil)
		defer w.close()
		caps := map[string]int64{"c256k": 256 << 10, "c1m": 1 << 20, "c6m": 6 << 20}
		got := map[string]*atomic.Int64{}
		for name, rate := range caps {
			if err := w.s.Configure(admission.Subject{Kind: admission.Group, Name: name}, admission.Cap{BytesPerSecond: rate}); err != nil {
				t.Fatal(err)
			}
			got[name] = w.backfill(name)
		}
		w.backfill("free")
		time.Sleep(2 * time.Second)
		for range 2 {
			before := map[string]int64{}
			for name := range caps {
				before[name] = got[name].Load()
			}
			time.Sleep(10 * time.Second)
			for name, rate := range caps {
				if share := float64(got[name].Load()-before[name]) / 10 / float64(rate); share < 0.95 || share > 1.05 {
					t.Errorf("%s got %.3f of its cap in ten seconds", name, share)
				} else {
					t.Logf("%s got %.3f of its cap", name, share)
				}
			}
		}
	})
}
