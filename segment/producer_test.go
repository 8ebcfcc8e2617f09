package segment_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"pgregory.net/rapid"
)

func producerBatch(pid int64, epoch int16, seq, count int32) segment.BatchHeader {
	return segment.BatchHeader{ProducerID: pid, ProducerEpoch: epoch, BaseSequence: seq, LastOffsetDelta: count - 1, Count: count, MaxTimestamp: 50}
}

func TestProducerSequences(t *testing.T) {
	ps := segment.NewProducerState(segment.ProducerOptions{})
	next := segment.Offset(10)
	steps := []struct {
		name  string
		h     segment.BatchHeader
		err   error
		first segment.Offset // >= 0: duplicate of the batch appended there
	}{
		{"unknown producer begins anywhere", producerBatch(1, 0, 5, 2), nil, -1},
		{"continues", producerBatch(1, 0, 7, 3), nil, -1},
		{"retry", producerBatch(1, 0, 7, 3), nil, 12},
		{"retry of the one before", producerBatch(1, 0, 5, 2), nil, 10},
		{"gap", producerBatch(1, 0, 11, 1), segment.ErrOutOfOrderSequence, -1},
		{"overlap is no retry", producerBatch(1, 0, 7, 4), segment.ErrOutOfOrderSequence, -1},
		{"goes back", producerBatch(1, 0, 6, 1), segment.ErrOutOfOrderSequence, -1},
		{"new epoch not at 0", producerBatch(1, 1, 10, 1), segment.ErrOutOfOrderSequence, -1},
		{"new epoch", producerBatch(1, 1, 0, 1), nil, -1},
		{"old epoch", producerBatch(1, 0, 10, 1), segment.ErrInvalidProducerEpoch, -1},
		{"retry of the old epoch", producerBatch(1, 0, 7, 3), segment.ErrInvalidProducerEpoch, -1},
		{"without producer", producerBatch(-1, -1, -1, 4), nil, -1},
		{"other producer near the end of the ring", producerBatch(2, 3, math.MaxInt32-1, 2), nil, -1},
		{"wraps to 0", producerBatch(2, 3, 0, 2), nil, -1},
		{"retry before the wrap", producerBatch(2, 3, math.MaxInt32-1, 2), nil, 20},
		{"across the wrap", producerBatch(3, 0, math.MaxInt32, 3), nil, -1},
		{"retry across the wrap", producerBatch(3, 0, math.MaxInt32, 3), nil, 24},
		{"behind the wrap", producerBatch(3, 0, 2, 1), nil, -1},
	}
	for _, step := range steps {
		v, err := ps.Check(step.h)
		if !errors.Is(err, step.err) || (err == nil) != (step.err == nil) {
			t.Fatalf("%s: %v, want %v", step.name, err, step.err)
		}
		if (v.Kind == segment.Duplicate) != (step.first >= 0) {
			t.Fatalf("%s: %+v", step.name, v)
		}
		if v.Kind == segment.Duplicate && (v.Base != step.first || v.Last != v.Base+segment.Offset(step.h.LastOffsetDelta) || v.TimestampMs != 50) {
			t.Fatalf("%s: first result was %+v, want base %d", step.name, v, step.first)
		}
		if err == nil && v.Kind == segment.Accept {
			ps.Update(step.h, next, 1)
			next += segment.Offset(step.h.Count)
		}
	}
	if ps.End() != next {
		t.Errorf("end %d, want %d", ps.End(), next)
	}
}

func TestProducerKeepsFiveBatchesOverRestarts(t *testing.T) {
	mem := newDir(t)
	ps := segment.NewProducerState(segment.ProducerOptions{})
	for i := range int32(7) {
		ps.Update(producerBatch(9, 1, i*2, 2), segment.Offset(100+i*2), 1000)
	}
	check(t, ps.Save(mem, dir, ps.End()))
	loaded, damage, err := segment.LoadProducerState(mem, dir, 1<<40, 2000, segment.ProducerOptions{})
	if err != nil || len(damage) != 0 || loaded.End() != 114 {
		t.Fatalf("%v, %v, end %d", damage, err, loaded.End())
	}
	for i := range int32(7) {
		v, err := loaded.Check(producerBatch(9, 1, i*2, 2))
		if known := i >= 2; known != (v.Kind == segment.Duplicate && v.Base == segment.Offset(100+i*2)) || known != (err == nil) {
			t.Errorf("batch %d: %+v, %v", i, v, err)
		}
	}
}

// TestProducerStateSurvivesRestart: whatever happened, a state that was saved and loaded answers like the old one.
func TestProducerStateSurvivesRestart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mem := newDir(t)
		ps := segment.NewProducerState(segment.ProducerOptions{})
		seqs := map[int64]int32{}
		epochs := map[int64]int16{}
		var history []segment.BatchHeader
		for range rapid.IntRange(0, 40).Draw(rt, "batches") {
			pid := rapid.Int64Range(0, 3).Draw(rt, "pid")
			if rapid.IntRange(0, 9).Draw(rt, "bump") == 0 {
				epochs[pid]++
				seqs[pid] = 0
			}
			h := producerBatch(pid, epochs[pid], seqs[pid], rapid.Int32Range(1, 4).Draw(rt, "count"))
			switch rapid.IntRange(0, 9).Draw(rt, "kind") {
			case 0:
				h.Attributes, h.BaseSequence, h.LastOffsetDelta, h.Count = 0x30, -1, 0, 1
			case 1:
				h.Attributes = 0x10
				fallthrough
			default:
				seqs[pid] += h.Count
			}
			ps.Update(h, ps.End(), 1)
			history = append(history, h)
		}
		check(t, ps.Save(mem, dir, ps.End()))
		loaded, damage, err := segment.LoadProducerState(mem, dir, ps.End(), 1, segment.ProducerOptions{})
		if err != nil || len(damage) != 0 || loaded.End() != ps.End() {
			rt.Fatalf("%v, %v, end %d, want %d", damage, err, loaded.End(), ps.End())
		}
		if diff := cmp.Diff(ps.Views(), loaded.Views()); diff != "" {
			rt.Fatal(diff)
		}
		for pid := range int64(4) {
			history = append(history, producerBatch(pid, epochs[pid], seqs[pid], 1), producerBatch(pid, epochs[pid], seqs[pid]+5, 1))
		}
		for _, h := range history {
			a, errA := ps.Check(h)
			b, errB := loaded.Check(h)
			if a != b || fmt.Sprint(errA) != fmt.Sprint(errB) {
				rt.Fatalf("%+v: before %+v, %v; after %+v, %v", h, a, errA, b, errB)
			}
		}
	})
}

func TestProducerSnapshotGolden(t *testing.T) {
	mem := newDir(t)
	ps := segment.NewProducerState(segment.ProducerOptions{})
	ps.Update(producerBatch(0x1122, 3, 7, 2), 20, 1)
	check(t, ps.Save(mem, dir, 22))
	got := must[[]byte](t)(vfs.ReadFile(mem, dir+"/"+segment.SnapshotName(22), 1000))
	want := "0001" + "7c4759bb" + "00000001" + "0000000000001122" + "0003" + "00000008" + "0000000000000015" + "00000001" +
		"0000000000000032" + "ffffffff" + "ffffffffffffffff"
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

func TestProducerSnapshotEveryBitFlip(t *testing.T) {
	build := newDir(t)
	ps := segment.NewProducerState(segment.ProducerOptions{})
	ps.Update(producerBatch(5, 0, 0, 2), 10, 1)
	check(t, ps.Save(build, dir, 12))
	older := ps.Views()
	ps.Update(producerBatch(5, 0, 2, 2), 12, 1)
	ps.Update(producerBatch(6, 0, 0, 2), 14, 1)
	check(t, ps.Save(build, dir, 16))
	for _, name := range []string{segment.SnapshotName(16), segment.BatchesName(16)} {
		good := must[[]byte](t)(vfs.ReadFile(build, dir+"/"+name, 1000))
		for bit := -1; bit < len(good)*8; bit++ {
			bad := bytes.Clone(good)
			if bit >= 0 {
				bad[bit/8] ^= 1 << (bit % 8)
			} else {
				bad = bad[:len(bad)/2]
			}
			mem := build.Crash(vfs.CrashOptions{Live: true})
			writeFile(t, mem, dir+"/"+name, bad)
			got, damage, err := segment.LoadProducerState(mem, dir, 100, 1, segment.ProducerOptions{})
			check(t, err)
			want, end := ps.Views(), segment.Offset(16)
			if name == segment.SnapshotName(16) {
				want, end = older, 12 // the older snapshot stands in
			}
			if diff := cmp.Diff(want, got.Views()); diff != "" || got.End() != end || len(damage) != 1 || damage[0].Path != dir+"/"+name {
				t.Fatalf("%s bit %d: end %d, damage %v\n%s", name, bit, got.End(), damage, diff)
			}
			kept := must[[]byte](t)(vfs.ReadFile(mem, dir+"/quarantine/"+name, 1000))
			if !bytes.Equal(kept, bad) {
				t.Fatalf("%s bit %d: quarantine holds something else", name, bit)
			}
		}
	}
}

func TestProducerExpiryAndBound(t *testing.T) {
	ps := segment.NewProducerState(segment.ProducerOptions{ExpirationMs: 100, MaxProducers: 50})
	for pid := range int64(500) {
		ps.Update(producerBatch(pid, 0, 0, 1), segment.Offset(pid), pid)
	}
	if ps.Len() > 50 {
		t.Errorf("%d producers", ps.Len())
	}
	txn := producerBatch(7000, 0, 0, 1)
	txn.Attributes = 0x10
	ps.Update(txn, 500, 1)
	if first, ok := ps.FirstOpenTxn(); !ok || first != 500 {
		t.Errorf("open transaction at %d, %v", first, ok)
	}
	ps.Expire(10_000)
	if ps.Len() != 1 || ps.Views()[0].ProducerID != 7000 {
		t.Errorf("after expiry: %+v; only the open transaction stays", ps.Views())
	}
	marker := segment.Marker{CoordinatorEpoch: 3}
	h := decode(t, segment.AppendMarker(nil, 7000, 1, marker, 5))
	ended, ok := ps.Finish(h, marker, 501, 10_000)
	if want := (segment.AbortedTxn{ProducerID: 7000, First: 500, Last: 501, LastStable: 502}); !ok || ended != want {
		t.Errorf("ended %+v, %v; want %+v", ended, ok, want)
	}
	if _, ok := ps.FirstOpenTxn(); ok {
		t.Error("the marker did not end the transaction")
	}
}

func TestReplayFeedsHeaders(t *testing.T) {
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, 40, segment.Options{}, newCache()))
	want := segment.NewProducerState(segment.ProducerOptions{})
	var half segment.Offset
	for i := range int32(20) {
		b, _ := appendBatch(t, w, batchSpec{pid: 3, seq: i})
		h := decode(t, b)
		want.Update(h, h.BaseOffset, 1)
		if i == 10 {
			half = w.Next()
			check(t, want.Save(mem, dir, half))
		}
	}
	must[segment.Meta](t)(w.Seal())
	w.Reader().Acquire()
	defer w.Reader().Release()
	for _, limit := range []segment.Offset{0, half} {
		ps, _, err := segment.LoadProducerState(mem, dir, limit, 1, segment.ProducerOptions{})
		check(t, err)
		check(t, segment.Replay(w.Reader(), ps, 1))
		if diff := cmp.Diff(want.Views(), ps.Views()); diff != "" || ps.End() != want.End() {
			t.Errorf("from %d: end %d\n%s", limit, ps.End(), diff)
		}
	}
}
