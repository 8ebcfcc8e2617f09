package bench

import (
	"io"
	"testing"
	"time"

	"lagoon/internal/bench/report"
)

// TestWhatNeverCameIsLate: whatever is the reason that a record of a whole phase never came, its latency is in the phase's figures.
func TestWhatNeverCameIsLate(t *testing.T) {
	const each = 10 // records of a partition in the phase
	begun := time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, c := range []struct {
		name          string
		stopped, read int64 // records that were handed over; of each partition that were read
		refused       int64 // one sequence of partition 0, -1: none
		err           error
		ack, tail     int64 // unfinished
		checks        int
	}{
		{"everything came", 2 * each, each, -1, nil, 0, 0, 1},
		{"held back by a full buffer", each, each / 2, -1, nil, each, each, 1},
		{"refused", 2 * each, each, 3, nil, 1, 0, 1},
		{"cut short while the tail was behind", 4 * each, each / 2, -1, ErrInterrupted, 0, each, 0},
		{"cut short while acks were missing", 4 * each, each, 3, ErrInterrupted, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testStream(each, 2)
			s.start, s.rate = begun.UnixNano(), each
			s.stopped, s.ended = c.stopped, true
			s.ack = newRecorder(report.Ack, begun)
			tail := newReading(report.Tail, s, newRecorder(report.Tail, begun), 0, 0, 1)
			r := &runner{begun: begun, log: io.Discard, live: s, late: newRecorder("generator", begun), readings: []*reading{tail}, recorders: []*recorder{s.ack, tail.rec},
				result: &report.Isolation{Phases: []report.Phase{{Name: "base", ToSeconds: 2}}}}
			for _, rec := range append(r.recorders, r.late) {
				rec.phase(begun, begun.Add(2*time.Second))
			}
			for k := range s.stopped {
				if p, n := k%2, k/2; p == 0 && n == c.refused {
					s.failed[0].add(n)
				} else {
					s.ack.record(s.at(k), int64(time.Millisecond))
					if n < c.read {
						tail.parts[int32(p)].see(n)
						tail.rec.record(s.at(k), int64(time.Millisecond))
					}
				}
			}
			r.finish(c.err)
			got := r.result.Phases[0].Latency
			if a := got[report.Ack]; a.Count != 2*each || a.Unfinished != c.ack || a.Unfinished > 0 && a.Max < 50_000 {
				t.Errorf("acks %+v, want %d of %d that never came", a, c.ack, 2*each)
			}
			refused := int64(0) // who reads is not owed it
			if c.refused >= 0 {
				refused = 1
			}
			if l := got[report.Tail]; l.Count != 2*each-refused || l.Unfinished != c.tail || l.Unfinished > 0 && l.Max < 50_000 {
				t.Errorf("tail %+v, want %d of %d that never came", l, c.tail, 2*each-refused)
			}
			if len(r.result.Checks) != c.checks || c.checks == 1 && r.result.Checks[0].Lost != 0 {
				t.Errorf("checks %+v", r.result.Checks)
			}
			if series := tail.rec.series().Points; series[len(series)-1].Second > 1 {
				t.Errorf("seconds after the whole phases have records that nobody waited for: %+v", series)
			}
		})
	}
}

// TestBehindIsNotLost: what the broker holds and a reader has not come to is not lost; a hole in what was read is, and so is what the
// broker does not hold.
func TestBehindIsNotLost(t *testing.T) {
	s := testStream(1000, 1)
	s.stopped, s.ended = 10, true
	r := newReading(report.Tail, s, nil, 0, 0)
	for _, n := range []int64{0, 1, 3} {
		r.parts[0].see(n)
	}
	for _, c := range []struct {
		there         []int64
		lost, notRead int64
	}{{nil, 7, 0}, {[]int64{10}, 1, 6}, {[]int64{9}, 7, 0}} {
		s.there = c.there
		late := 0
		got := r.check(func(int64) { late++ })
		if got.Lost != c.lost || got.NotRead != c.notRead || late != 7 {
			t.Errorf("the broker holds %v: %+v, %d late; want %d lost, %d not read", c.there, got, late, c.lost, c.notRead)
		}
	}
	if c := (report.Check{NotRead: 5}); !c.OK() {
		t.Error("who is behind has found the broker at fault")
	}
}
