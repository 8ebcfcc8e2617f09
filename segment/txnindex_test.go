package segment_test

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

func TestMarkerIsReadBack(t *testing.T) {
	for _, m := range []segment.Marker{{Commit: true, CoordinatorEpoch: 7}, {CoordinatorEpoch: 0}} {
		b := segment.AppendMarker([]byte("before"), 9, 3, m, 1234)[len("before"):]
		h, err := segment.ValidateBatch(b, segment.Limits{AllowControl: true, RequireKey: true})
		if err != nil || !h.IsControl() || !h.IsTransactional() || h.ProducerID != 9 || h.ProducerEpoch != 3 || h.BaseSequence != -1 || h.MaxTimestamp != 1234 {
			t.Errorf("%+v, %v", h, err)
		}
		if got, err := segment.ParseMarker(b); got != m || err != nil {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
		if _, err := segment.ValidateBatch(b, segment.Limits{}); !errors.Is(err, segment.ErrInvalidRecord) {
			t.Errorf("from a client: %v", err)
		}
		for n := range b { // whatever is cut off, nothing is made up
			if _, err := segment.ParseMarker(b[:n]); err == nil {
				t.Fatalf("%d of %d bytes are a marker", n, len(b))
			}
		}
	}
}

func TestWritesOutsideAnOpenTransactionAreRefused(t *testing.T) {
	ps := segment.NewProducerState(segment.ProducerOptions{})
	in, out := producerBatch(7, 0, 0, 1), producerBatch(7, 0, 1, 1)
	in.Attributes = 0x10
	ps.Update(in, 0, 1)
	if _, err := ps.Check(out); !errors.Is(err, segment.ErrInvalidTxnState) {
		t.Errorf("batch outside the transaction: %v", err)
	}
	m := segment.Marker{Commit: true, CoordinatorEpoch: 4}
	ps.Finish(decode(t, segment.AppendMarker(nil, 7, 0, m, 1)), m, 1, 1)
	if _, err := ps.Check(out); err != nil {
		t.Errorf("batch after the transaction: %v", err)
	}
	m.CoordinatorEpoch = 3
	if err := ps.CheckMarker(decode(t, segment.AppendMarker(nil, 7, 0, m, 1)), m); !errors.Is(err, segment.ErrCoordinatorFenced) {
		t.Errorf("marker of an older coordinator: %v", err)
	}
}

// writeAborted writes a segment in which three producers' transactions end, and gives what its .txnindex must hold.
func writeAborted(t *testing.T, fs vfs.FS, seal bool) (*segment.Writer, *segment.ProducerState, []segment.AbortedTxn) {
	t.Helper()
	w := must[*segment.Writer](t)(segment.Create(fs, dir, 100, segment.Options{}, newCache()))
	ps := segment.NewProducerState(segment.ProducerOptions{})
	put := func(b []byte) {
		segment.AssignOffsets(b, w.Next(), 0)
		h := decode(t, b)
		must[int64](t)(w.Append(b, h))
		if !h.IsControl() {
			ps.Update(h, h.BaseOffset, 1)
			return
		}
		m := must[segment.Marker](t)(segment.ParseMarker(b))
		if ended, ok := ps.Finish(h, m, h.BaseOffset, 1); ok && !m.Commit {
			w.NoteAborted(ended)
		}
	}
	write := func(pid int64, seq int32) {
		b := buildBatch(batchSpec{pid: pid, seq: seq, records: 2, attrs: 0x10})
		put(b)
	}
	end := func(pid int64, commit bool) {
		put(segment.AppendMarker(nil, pid, 0, segment.Marker{Commit: commit, CoordinatorEpoch: 1}, 5))
	}
	write(1, 0)   // 100, 101
	write(2, 0)   // 102
	write(1, 2)   // 104
	end(1, false) // 106
	write(3, 0)   // 107
	end(3, true)  // 109
	write(1, 4)   // 110
	end(2, false) // 112
	end(1, false) // 113
	want := []segment.AbortedTxn{{1, 100, 106, 102}, {2, 102, 112, 110}, {1, 110, 113, 114}}
	if seal {
		must[segment.Meta](t)(w.Seal())
	}
	return w, ps, want
}

func TestAbortedTransactionsSurviveRestarts(t *testing.T) {
	for _, c := range []struct {
		name       string
		seal, save bool
	}{{"sealed", true, true}, {"saved with a snapshot", false, true}, {"lost with a crash", false, false}} {
		t.Run(c.name, func(t *testing.T) {
			mem := newDir(t)
			w, ps, want := writeAborted(t, mem, c.seal)
			if got := must[[]segment.AbortedTxn](t)(w.Reader().Aborted()); !cmp.Equal(got, want) {
				t.Fatalf("%+v", got)
			}
			if c.save {
				check(t, w.SyncData())
				check(t, w.SaveAborted(ps.End()))
				check(t, ps.Save(mem, dir, ps.End()))
			} else {
				check(t, w.SyncData())
			}
			next := w.Next()
			fsys := mem.Kill()
			var r *segment.Reader
			if c.seal {
				size := w.Size()
				r = must[*segment.Reader](t)(segment.OpenSealed(fsys, dir, segment.Sealed{Base: 100, Next: next, SizeBytes: size}, newCache()))
			} else {
				_, w, err := segment.Recover(fsys, dir, 100, next, segment.Options{}, nil, 1, newCache())
				check(t, err)
				r = w.Reader()
			}
			r.Acquire()
			defer r.Release()
			loaded, _, err := segment.LoadProducerState(fsys, dir, next, 1, segment.ProducerOptions{})
			check(t, err)
			check(t, segment.Replay(r, loaded, 1))
			if got := must[[]segment.AbortedTxn](t)(r.Aborted()); !cmp.Equal(got, want) {
				t.Errorf("%+v\nwant %+v", got, want)
			}
			if _, open := loaded.FirstOpenTxn(); open {
				t.Error("a transaction is open")
			}
		})
	}
}

func TestDamagedTxnIndexIsReportedNotBelieved(t *testing.T) {
	mem := newDir(t)
	w, _, want := writeAborted(t, mem, true)
	next, size := w.Next(), w.Size()
	name := dir + "/" + segment.TxnIndexName(100)
	good := must[[]byte](t)(vfs.ReadFile(mem, name, 1<<20))
	if len(good) != 3*34 {
		t.Fatalf("%d bytes", len(good))
	}
	for _, bad := range [][]byte{good[:40], bytes.Repeat([]byte{0xff}, 34), append(bytes.Clone(good[34:]), good[:34]...), append([]byte{0, 1}, good[2:]...)} {
		check(t, vfs.WriteFileAtomic(mem, name, bad))
		r := must[*segment.Reader](t)(segment.OpenSealed(mem, dir, segment.Sealed{Base: 100, Next: next, SizeBytes: size}, newCache()))
		r.Acquire()
		var corrupt *segment.CorruptError
		if _, err := r.Aborted(); !errors.As(err, &corrupt) || corrupt.Path != name {
			t.Errorf("%x: %v", bad, err)
		}
		list, err := segment.CollectAborted(r, segment.NewProducerState(segment.ProducerOptions{}), 1)
		check(t, err)
		check(t, r.SetAborted(list))
		if got := must[[]segment.AbortedTxn](t)(r.Aborted()); !cmp.Equal(got, want) {
			t.Errorf("mended: %+v", got)
		}
		r.Release()
		if again := must[[]byte](t)(vfs.ReadFile(mem, name, 1<<20)); !bytes.Equal(again, good) {
			t.Error("the file was not mended")
		}
	}
}

func TestKafkaDumpsOurTxnIndex(t *testing.T) {
	libs := kafkaLibs(t)
	root := t.TempDir()
	fs := must[vfs.FS](t)(vfs.OS(root))
	check(t, fs.MkdirAll(dir))
	writeAborted(t, fs, true)
	out := java(t, libs, dumpLogSegments, "--files", filepath.Join(root, dir, segment.TxnIndexName(100)))
	for _, line := range []string{"version: 0 producerId: 1 firstOffset: 100 lastOffset: 106 lastStableOffset: 102",
		"version: 0 producerId: 2 firstOffset: 102 lastOffset: 112 lastStableOffset: 110"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	out = java(t, libs, dumpLogSegments, "--deep-iteration", "--files", filepath.Join(root, dir, segment.LogName(100)))
	if strings.Count(out, "endTxnMarker: ABORT coordinatorEpoch: 1") != 3 || strings.Count(out, "endTxnMarker: COMMIT") != 1 {
		t.Errorf("markers:\n%s", out)
	}
}

// A list that becomes empty is gone for good once that is told: no power cut brings it back.
func TestEmptyTxnIndexStaysAway(t *testing.T) {
	mem := newDir(t)
	w, _, _ := writeAborted(t, mem, true)
	r := w.Reader()
	r.Acquire()
	defer r.Release()
	check(t, r.SetAborted(nil))
	if _, err := mem.Crash(vfs.CrashOptions{}).Stat(dir + "/" + segment.TxnIndexName(100)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the power cut left the list: %v", err)
	}
}
