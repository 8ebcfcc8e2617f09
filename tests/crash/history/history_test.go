package history

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// log is a partition that tests break.
type log [][]byte

// story has one idempotent and one plain producer write n records each to partition 0, in turn, and ack all.
func story(n int) (*Recorder, log) {
	r := New(1)
	a, b := r.AddProducer(true), r.AddProducer(false)
	var l log
	for range n {
		for _, p := range []int32{a, b} {
			id := r.Attempt(p, 0)
			l = append(l, Value(id, 100))
			r.Acked(id, int64(len(l)-1))
		}
	}
	return r, l
}

func (l log) readTo(r *Recorder) []int64 {
	for o, v := range l {
		r.Saw(0, int64(o), v)
	}
	return []int64{int64(len(l))}
}

func want(t *testing.T, r *Recorder, part string) {
	t.Helper()
	got := strings.Join(r.Problems(), "\n")
	if part == "" && got != "" || !strings.Contains(got, part) {
		t.Errorf("problems %q, want %q", got, part)
	}
}

func TestSoundHistoryHasNoProblems(t *testing.T) {
	r, l := story(10)
	r.EndOffset(0, 20, r.Known()[0])
	f := r.Check(l.readTo(r))
	want(t, r, "")
	if f != (Found{Records: 20, Acked: 20}) {
		t.Errorf("found %+v", f)
	}
}

// Each row breaks one promise; the checker has to tell.
func TestBrokenPromisesAreFound(t *testing.T) {
	for _, c := range []struct {
		name, want string
		ruin       func(*Recorder, log) log
	}{
		{"lost at the end", "lost", func(_ *Recorder, l log) log { return l[:18] }},
		{"lost in the middle", "out of order", func(_ *Recorder, l log) log { return slices.Delete(l, 4, 5) }},
		{"duplicate", "duplicate", func(_ *Recorder, l log) log { return append(l, l[4]) }},
		{"plain duplicate is allowed", "", func(_ *Recorder, l log) log { return append(l, l[5]) }},
		{"reordered", "out of order", func(_ *Recorder, l log) log { l[4], l[6] = l[6], l[4]; return l }},
		{"plain reordered", "out of order", func(_ *Recorder, l log) log { l[5], l[7] = l[7], l[5]; return l }},
		{"flipped bit", "sent was", func(_ *Recorder, l log) log { l[3] = bytes.Clone(l[3]); l[3][99] ^= 1; return l }},
		{"flipped header", "checksum", func(_ *Recorder, l log) log { l[3] = bytes.Clone(l[3]); l[3][9] ^= 1; return l }},
		{"short", "sent were", func(_ *Recorder, l log) log { l[3] = l[3][:50]; return l }},
		{"phantom", "nobody sent", func(_ *Recorder, l log) log { return append(l, Value(ID{0, 0, 10}, 100)) }},
		{"other partition", "another partition", func(_ *Recorder, l log) log { return append(l, Value(ID{0, 1, 0}, 100)) }},
		{"changed after read", "changed after it was read", func(r *Recorder, l log) log { r.Saw(0, 8, l[8]); l[8] = l[10]; return l }},
		{"vanished", "vanished", func(r *Recorder, l log) log { r.Saw(0, 19, l[19]); return l[:19] }},
		{"acked elsewhere", "acked was", func(_ *Recorder, l log) log { return slices.Insert(l, 0, l[1]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, l := story(10)
			l = c.ruin(r, l)
			r.Check(l.readTo(r))
			want(t, r, c.want)
		})
	}
}

func TestHoleIsFound(t *testing.T) {
	r, l := story(3)
	for o, v := range l {
		if o != 2 {
			r.Saw(0, int64(o), v)
		}
	}
	r.Check([]int64{6})
	want(t, r, "hole")
}

func TestEndOffsetBelowWhatIsKnownIsFound(t *testing.T) {
	r, _ := story(3) // acked
	r.EndOffset(0, 5, r.Known()[0])
	want(t, r, "5 was acked or read: lost")
	r = New(1) // seen, not acked
	id := r.Attempt(r.AddProducer(true), 0)
	r.Saw(0, 0, Value(id, 64))
	r.EndOffset(0, 0, r.Known()[0])
	want(t, r, "0 was acked or read: lost")
}

func TestAckWithoutOffsetMustBeThere(t *testing.T) {
	r := New(1)
	id := r.Attempt(r.AddProducer(true), 0)
	r.Acked(id, -1)
	r.Check([]int64{0})
	want(t, r, "not there: lost")
}

// A plain producer that gave a record up leaves a gap that was never promised; an idempotent one may not.
func TestGivenUpRecords(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		r := New(1)
		p := r.AddProducer(idempotent)
		r.Attempt(p, 0)
		id := r.Attempt(p, 0)
		r.Acked(id, 0)
		r.Saw(0, 0, Value(id, 64))
		r.Check([]int64{1})
		if got := len(r.Problems()) > 0; got != idempotent {
			t.Errorf("idempotent %t: problems %v", idempotent, r.Problems())
		}
	}
}

func TestManyProblemsAreBounded(t *testing.T) {
	r := New(1)
	for range 1000 {
		r.Problemf("x")
	}
	if p := r.Problems(); len(p) != maxProblems+1 || p[maxProblems] != "and 980 more" {
		t.Errorf("%d problems, last %q", len(p), p[len(p)-1])
	}
}
