package bench

import (
	"math/rand/v2"
	"testing"
	"time"

	"lagoon/internal/bench/report"
)

// TestSequenceFindsFaults injects faults into 0…n-1 and expects exactly those to be found.
func TestSequenceFindsFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		n := int64(1 + random.IntN(500))
		var stream []int64
		lost, duplicates, delayed := map[int64]bool{}, int64(0), map[int64]bool{}
		for i := range n {
			switch {
			case random.IntN(20) == 0:
				lost[i] = true
				continue
			case random.IntN(20) == 0:
				delayed[i] = true
				continue
			}
			stream = append(stream, i)
			if random.IntN(20) == 0 {
				stream = append(stream, stream[random.IntN(len(stream))])
				duplicates++
			}
		}
		for i := range delayed {
			stream = append(stream, i)
		}
		var s sequence
		for _, i := range stream {
			s.see(i)
		}
		gone := int64(0)
		s.missing(n, func(h span) {
			for i := h.from; i < h.to; i++ {
				if !lost[i] {
					t.Fatalf("%d is reported missing and came", i)
				}
				gone++
			}
		})
		// What is delayed to the very end, with nothing after it lost, is in order again.
		if gone != int64(len(lost)) || s.duplicates != duplicates || s.reordered > int64(len(delayed)) || s.read != n-gone {
			t.Fatalf("n %d: missing %d of %d, duplicates %d of %d, reordered %d of at most %d, read %d", n, gone, len(lost), s.duplicates, duplicates, s.reordered, len(delayed), s.read)
		}
	}
}

func TestSequenceOrder(t *testing.T) {
	for _, c := range []struct {
		name                 string
		came                 []int64
		dup, reordered, lost int64
	}{
		{"in order", []int64{0, 1, 2, 3}, 0, 0, 0},
		{"swapped", []int64{0, 2, 1, 3}, 0, 1, 0},
		{"repeated", []int64{0, 1, 1, 0, 2, 3}, 2, 0, 0},
		{"hole", []int64{0, 3}, 0, 0, 2},
		{"hole filled twice", []int64{0, 3, 1, 2, 1}, 1, 2, 0},
		{"end missing", []int64{0, 1}, 0, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s sequence
			for _, n := range c.came {
				s.see(n)
			}
			lost := int64(0)
			s.missing(4, func(h span) { lost += h.to - h.from })
			if s.duplicates != c.dup || s.reordered != c.reordered || lost != c.lost {
				t.Errorf("duplicates %d, reordered %d, lost %d; want %d, %d, %d", s.duplicates, s.reordered, lost, c.dup, c.reordered, c.lost)
			}
		})
	}
}

// TestManyHoles: refusals make a hole each, and a record that is lost after thousands of them is found; one that comes late is no duplicate.
func TestManyHoles(t *testing.T) {
	const holes = 10_000
	var s sequence
	for n := range int64(holes) {
		s.see(2 * n)
	}
	if !s.see(2*holes-3) || s.duplicates != 0 || s.reordered != 1 {
		t.Errorf("one that came late: %d duplicates, %d out of order", s.duplicates, s.reordered)
	}
	gone := int64(0)
	s.missing(2*holes-1, func(h span) { gone += h.to - h.from })
	if gone+s.forgotten != holes-2 {
		t.Errorf("%d are missing and %d forgotten, want %d", gone, s.forgotten, holes-2)
	}
}

func testStream(rate, partitions int64) *stream {
	return &stream{topic: "live", run: 7, valueBytes: 100, random: newNoise(1), schedule: schedule{start: 1e18, rate: rate, partitions: partitions},
		failed: make([]numbers, partitions), ack: newRecorder(report.Ack, time.Unix(1e9, 0))}
}

// TestReadingFindsFaults: every kind of damage that a broker could do to a record is counted, as what it is.
func TestReadingFindsFaults(t *testing.T) {
	s := testStream(1000, 2)
	encode := func(run uint64, partition, sequence int64) []byte {
		v := make([]byte, s.valueBytes)
		encodeValue(v, run, partition, sequence, s.atSequence(partition, sequence), s.random)
		return v
	}
	start := s.start
	good := func(r *reading) {
		for n := range int64(10) {
			r.take(0, encode(7, 0, n), start)
			r.take(1, encode(7, 1, n), start)
		}
	}
	s.stopped, s.ended, s.acked = 20, true, 20
	for _, c := range []struct {
		name string
		feed func(r *reading)
		want report.Check
	}{
		{"good", good, report.Check{Read: 20}},
		{"bit flipped", func(r *reading) {
			good(r)
			for bit := range s.valueBytes * 8 {
				v := encode(7, 0, 3)
				v[bit/8] ^= 1 << (bit % 8)
				r.take(0, v, start)
			}
		}, report.Check{Read: 20, Corrupt: int64(s.valueBytes * 8)}},
		{"cut off", func(r *reading) { good(r); r.take(0, encode(7, 0, 3)[:50], start); r.take(0, nil, start) }, report.Check{Read: 20, Corrupt: 2}},
		{"wrong partition", func(r *reading) { good(r); r.take(0, encode(7, 1, 3), start) }, report.Check{Read: 20, Corrupt: 1}},
		{"another run", func(r *reading) { good(r); r.take(0, encode(8, 0, 10), start) }, report.Check{Read: 20, Corrupt: 1}},
		{"twice", func(r *reading) { good(r); good(r) }, report.Check{Read: 20, Duplicates: 20}},
		{"nothing", func(*reading) {}, report.Check{Lost: 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReading(report.Tail, s, newRecorder(report.Tail, time.Unix(1e9, 0)), 0, 0, 1)
			c.feed(r)
			c.want.Role, c.want.Topic, c.want.Produced = report.Tail, "live", 20
			if got := r.check(nil); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestRefusedRecordsAreNotLost: what the broker refused may be missing.
func TestRefusedRecordsAreNotLost(t *testing.T) {
	s := testStream(1000, 1)
	s.stopped, s.ended = 10, true
	for _, n := range []int64{3, 4, 9} {
		s.failed[0].add(n)
	}
	r := newReading(report.Tail, s, newRecorder(report.Tail, time.Unix(1e9, 0)), 0, 0)
	for _, n := range []int64{0, 1, 2, 5, 7, 8} {
		v := make([]byte, s.valueBytes)
		encodeValue(v, 7, 0, n, s.atSequence(0, n), s.random)
		r.take(0, v, s.start)
	}
	var late []int64
	c := r.check(func(due int64) { late = append(late, due) })
	if c.Lost != 1 || c.Failed != 3 || c.Produced != 7 || len(late) != 1 || late[0] != s.at(6) {
		t.Errorf("%+v, late %v: want 6 lost, 3 refused", c, late)
	}
}

func TestSchedule(t *testing.T) {
	s := schedule{start: 1_700_000_000_123_456_789, rate: 20480, partitions: 8}
	for k := range int64(100_000) {
		at := s.at(k)
		if n := s.due(at); n != k+1 {
			t.Fatalf("record %d is due at %d, when %d are due", k, at-s.start, n)
		}
		if k > 0 && s.at(k) <= s.at(k-1) {
			t.Fatalf("record %d is not after the one before", k)
		}
		if got := s.atSequence(k%8, k/8); got != at {
			t.Fatalf("record %d: %d by sequence, %d by number", k, got, at)
		}
	}
	if n := s.due(s.start - 1); n != 0 {
		t.Errorf("%d due before the start", n)
	}
	if d := s.at(20480*3600*24) - s.start; d != int64(24*time.Hour) {
		t.Errorf("a day's records take %v", time.Duration(d))
	}
	total := int64(0)
	for p := range int64(8) {
		total += s.inPartition(20483, p)
	}
	if total != 20483 || s.inPartition(3, 2) != 1 || s.inPartition(3, 3) != 0 {
		t.Errorf("20483 records are %d in partitions", total)
	}
}

func TestRecorderPutsRecordsWhereTheyWereDue(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	r := newRecorder(report.Tail, start)
	r.phase(start.Add(2*time.Second), start.Add(4*time.Second))
	r.phase(start.Add(6*time.Second), start.Add(8*time.Second))
	at := func(s float64) int64 { return start.Add(time.Duration(s * float64(time.Second))).UnixNano() }
	ms := int64(time.Millisecond)
	r.record(at(1.9), 500*ms) // in no phase
	r.record(at(2.0), 10*ms)
	r.record(at(3.9), 20_000*ms) // came long after the phase, and counts in it
	r.record(at(4.0), 500*ms)
	r.record(at(6.5), -3*ms) // early
	r.unfinished(at(7.5), at(9.5))
	a, b := r.latency(0), r.latency(1)
	if a.Count != 2 || a.Max < 19_980 || a.Max > 20_020 || a.Unfinished != 0 {
		t.Errorf("first phase %+v", a)
	}
	if b.Count != 2 || b.Unfinished != 1 || b.Max < 1998 || b.Max > 2002 || b.P50 > 0.002 {
		t.Errorf("second phase %+v", b)
	}
	if p, ok := r.second(3); !ok || p.Count != 1 || p.P99 < 19_800 {
		t.Errorf("second 3: %+v %t", p, ok)
	}
	if _, ok := r.second(5); ok {
		t.Error("second 5 has records")
	}
	if s := r.series(); len(s.Points) != 6 {
		t.Errorf("%d seconds with records, want 6", len(s.Points))
	}
}

func TestParsePhases(t *testing.T) {
	specs, err := parsePhases([]string{"base", "x1", "x16", "mixed", "x4+mixed", "after"})
	want := []phaseSpec{{"base", 0, false}, {"x1", 1, false}, {"x16", 16, false}, {"mixed", 0, true}, {"x4+mixed", 4, true}, {"after", 0, false}}
	if err != nil || len(specs) != len(want) {
		t.Fatalf("%v, %v", specs, err)
	}
	for i := range want {
		if specs[i] != want[i] {
			t.Errorf("%+v, want %+v", specs[i], want[i])
		}
	}
	for _, bad := range [][]string{{}, {"x0"}, {"x1000"}, {"x"}, {"base+x1"}, {"x1+x2"}, {"mixed+mixed"}, {"base", "base"}, {""}, {"cold"}} {
		if _, err := parsePhases(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
