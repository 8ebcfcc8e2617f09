package partition_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// TestClockJumps: a wall clock that goes back by more than a day, or forward by one, loses no record, forgets no duplicate across the
// jump back, and starts no log elsewhere after a restart. Records last a week.
func TestClockJumps(t *testing.T) {
	var jumped atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(jumped.Load())) }
	fs := osFS(t)
	options := func(o *partition.Options) { o.Now = clock }
	cfg := config()
	cfg.SegmentBytes, cfg.LogAppendTime, cfg.RetentionMs = 20_000, true, (7 * 24 * time.Hour).Milliseconds()
	s := open(t, options, fs)
	l := load(t, s, cfg, 1)
	var want []byte
	seq := int32(0)
	for _, jump := range []time.Duration{0, -30 * time.Hour, 24 * time.Hour, -24 * time.Hour, 31 * time.Hour} {
		var again []byte
		if seq > 0 {
			again = batch("again", 1, 100, &producer{id: 5, seq: seq - 1}, 1)
		}
		jumped.Add(int64(jump))
		if again != nil && jump < 0 {
			if a, err := l.Append(t.Context(), partition.AppendRequest{Records: again}); err != nil || !a.Duplicate || int32(a.Next) != seq {
				t.Errorf("after a jump of %v a batch that was sent again: %+v, %v", jump, a, err)
			}
		}
		for i := range 100 {
			b := batch(fmt.Sprint(jump, i), 1, 1000, &producer{id: 5, seq: seq}, 1)
			began := clock().UnixMilli()
			a, err := l.Append(t.Context(), partition.AppendRequest{Records: b})
			if err != nil || a.Base != segment.Offset(seq) || a.LogAppendTimeMs < began {
				t.Fatalf("after a jump of %v batch %d: %+v, %v", jump, seq, a, err)
			}
			want, seq = append(want, slices.Clone(b)...), seq+1
		}
		if err := l.Durable(t.Context(), segment.Offset(seq)); err != nil {
			t.Fatal(err)
		}
		s.Retain(clock())
		if o := l.Offsets(); o.LogStart != 0 || o.End != segment.Offset(seq) || o.HighWatermark != o.End {
			t.Errorf("after a jump of %v: %+v, want 0 to %d", jump, o, seq)
		}
		consume(t, l, partition.ReaderRef{ClientID: fmt.Sprint(jump)}, 0, 1<<20, want)
		closeStore(t, s)
		s = open(t, options, fs)
		l = load(t, s, cfg, 1)
	}
	if n := len(l.Segments()); n < 10 {
		t.Errorf("%d segments, want many", n)
	}
	jumped.Add(int64(8 * 24 * time.Hour)) // and what is really a week old goes
	s.Retain(clock())
	if start := l.Offsets().LogStart; start == 0 {
		t.Error("after more than a week nothing was deleted")
	}
	closeStore(t, s)
}

// TestClockJumpsForgetNoProducer: a producer is forgotten when it has been idle for the term, by time that has passed. A wall clock that is set
// ends no term, while the broker runs and over a stop.
func TestClockJumpsForgetNoProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const term = 10 * time.Minute
		var jumped atomic.Int64
		fs := osFS(t)
		options := func(o *partition.Options) {
			o.Now, o.ProducerExpiry = func() time.Time { return time.Now().Add(time.Duration(jumped.Load())) }, term
		}
		s := open(t, options, fs)
		l := load(t, s, config(), 1)
		seq := int32(0)
		for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour, -30 * time.Hour, 48 * time.Hour} {
			produce(t, l, batch("once", 1, 100, &producer{id: 5, seq: seq}, 1))
			again := func(when string) {
				t.Helper()
				b := batch("again", 1, 100, &producer{id: 5, seq: seq}, 1)
				if a, err := l.Append(t.Context(), partition.AppendRequest{Records: b}); err != nil || !a.Duplicate {
					t.Errorf("%s the clock went by %v a batch that was sent again: %+v, %v", when, jump, a, err)
				}
			}
			jumped.Add(int64(jump))
			time.Sleep(3 * time.Second) // the broker looks whose term is over
			again("after")
			closeStore(t, s)
			s = open(t, options, fs)
			l = load(t, s, config(), 1)
			time.Sleep(3 * time.Second)
			again("after a stop, and before that")
			seq++
		}
		time.Sleep(term + 3*time.Second)
		if left := l.Producers(); len(left) > 0 {
			t.Errorf("%+v is remembered after %v", left, term)
		}
		closeStore(t, s)
	})
}
