package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// swapStory seals segments 0, 10, 20 and 30 (10 batches each) and swaps 10 and 20 for one that holds every third batch. done is told of
// the moment from which on only the new one may be found.
func swapStory(fsys vfs.FS, committed func()) error {
	cache := newCache()
	var olds []segment.Offset
	for base := segment.Offset(0); base < 40; base += 10 {
		w, err := segment.Create(fsys, dir, base, segment.Options{IndexIntervalBytes: 100}, cache)
		if err != nil {
			return err
		}
		for i := range segment.Offset(10) {
			b := swapBatch(base + i)
			h, err := segment.DecodeHeader(b)
			if err != nil {
				return err
			}
			if _, err := w.Append(b, h); err != nil {
				return err
			}
		}
		if _, err := w.Seal(); err != nil {
			return err
		}
		if base == 10 || base == 20 {
			olds = append(olds, base)
		}
	}
	c, err := segment.CreateCleaned(fsys, dir, 10, segment.Options{IndexIntervalBytes: 100})
	if err != nil {
		return err
	}
	for off := segment.Offset(11); off < 30; off += 3 {
		b := swapBatch(off)
		h, err := segment.DecodeHeader(b)
		if err != nil {
			return err
		}
		if err := c.Append(b, h); err != nil {
			return err
		}
		if _, _, err := c.Flush(); err != nil {
			return err
		}
	}
	r, err := c.Commit(30, cache)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	committed()
	return errors.Join(r.Settle(olds), c.Close())
}

func swapBatch(off segment.Offset) []byte {
	b := buildBatch(batchSpec{base: off, valueSize: 50, ms: 1000 + int64(off), fill: byte(off)})
	segment.AssignOffsets(b, off, 4)
	return b
}

// offsets reads all segments of the directory, as far as they are there.
func swapOffsets(t *testing.T, fsys vfs.FS) (list []segment.Offset) {
	t.Helper()
	l := must[segment.Listing](t)(segment.ListDir(fsys, dir))
	for i, f := range l.Segments {
		next := f.Base + 10
		if i+1 < len(l.Segments) {
			next = l.Segments[i+1].Base
		}
		r, err := segment.OpenSealed(fsys, dir, segment.Sealed{Base: f.Base, Next: next, SizeBytes: f.SizeBytes}, newCache())
		check(t, err)
		r.Acquire()
		log, err := r.File()
		check(t, err)
		check(t, segment.Scan(log, 0, f.SizeBytes, segment.ScanBuffer(1<<16), func(_ int64, h segment.BatchHeader, full []byte) error {
			if !bytes.Equal(full, swapBatch(h.BaseOffset)) {
				t.Errorf("batch %d is not what was written", h.BaseOffset)
			}
			list = append(list, h.BaseOffset)
			ext, err := r.Find(h.BaseOffset, 1, unbounded, -1)
			if err != nil || ext.First != h.BaseOffset {
				t.Errorf("find %d: %+v, %v", h.BaseOffset, ext, err)
			}
			return nil
		}))
		r.Release()
	}
	for _, name := range l.Leftovers { // indexes without a log and .tmp files are the business of tiering.Sweep
		if strings.HasSuffix(name, segment.CleanedSuffix) || strings.HasSuffix(name, segment.SwapSuffix) {
			t.Errorf("%s is left", name)
		}
	}
	return list
}

// TestSwapCutAnywhere cuts the power at every change of a swap, and in the repair of it: the old segments are there, or the new one, whole.
func TestSwapCutAnywhere(t *testing.T) {
	old, swapped := []segment.Offset{}, []segment.Offset{}
	for off := range segment.Offset(40) {
		old = append(old, off)
		if off < 10 || off >= 30 || (off-11)%3 == 0 && off >= 11 {
			swapped = append(swapped, off)
		}
	}
	count := &vfs.PowerCut{}
	m := newDir(t)
	check(t, swapStory(vfs.WithFaults(m, count), func() {}))
	if got := swapOffsets(t, m); !slices.Equal(got, swapped) {
		t.Fatalf("without a cut: %v", got)
	}
	story := 0
	for after := int64(1); after <= count.Points(); after++ {
		for seed := range uint64(6) {
			cut := &vfs.PowerCut{After: after}
			m := newDir(t)
			committed := false
			err := swapStory(vfs.WithFaults(m, cut), func() { committed = true })
			if cut.Cut() == (err == nil) {
				t.Fatalf("cut %t, error %v", cut.Cut(), err)
			}
			opt := vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true}
			if seed == 0 {
				opt.KeepPercent = 0
			}
			m = m.Crash(opt)
			if l, err := segment.ListDir(m, dir); err != nil || len(l.Segments) == 0 || !sealedAll(m, l) {
				continue
			}
			story++
			again := &vfs.PowerCut{After: int64(seed) * 2}
			if _, err := segment.FinishSwaps(vfs.WithFaults(m, again), dir); err != nil {
				if !again.Cut() {
					t.Fatalf("cut after %d, seed %d: %v", after, seed, err)
				}
				m = m.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom})
				must[[]segment.Offset](t)(segment.FinishSwaps(m, dir))
			}
			got := swapOffsets(t, m)
			if !slices.Equal(got, swapped) && (committed || !slices.Equal(got, old)) {
				t.Fatalf("cut after %d, seed %d, committed %t: %v", after, seed, committed, got)
			}
		}
	}
	if story < 50 {
		t.Errorf("%d futures of %d points looked at", story, count.Points())
	}
}

// sealedAll tells whether the story had come to the swap: all four segments were sealed.
func sealedAll(fsys vfs.FS, l segment.Listing) bool {
	last := l.Segments[len(l.Segments)-1]
	return last.Base == 30 && last.HasTimeIndex
}

// TestSupersededReader: whoever is in the middle of an old segment finishes, and nobody opens the new one's files for it.
func TestSupersededReader(t *testing.T) {
	m, cache := newDir(t), newCache()
	w := must[*segment.Writer](t)(segment.Create(m, dir, 0, segment.Options{}, cache))
	for range 10 {
		appendBatch(t, w, batchSpec{valueSize: 50})
	}
	must[segment.Meta](t)(w.Seal())
	content := readLog(t, m, 0)
	inUse := w.Reader()
	inUse.Acquire()
	idle := must[*segment.Reader](t)(segment.OpenSealed(m, dir, segment.Sealed{Base: 0, Next: 10, SizeBytes: int64(len(content))}, cache))
	idle.Acquire()
	f, err := inUse.File()
	check(t, err)

	c := must[*segment.Cleaned](t)(segment.CreateCleaned(m, dir, 0, segment.Options{}))
	b := swapBatch(9)
	check(t, c.Append(b, decode(t, b)))
	if err := c.Append(swapBatch(3), decode(t, swapBatch(3))); !errors.Is(err, segment.ErrOutOfRange) {
		t.Errorf("offsets that go back: %v", err)
	}
	if _, err := c.Commit(12, cache); !errors.Is(err, segment.ErrOutOfRange) {
		t.Errorf("a file that does not reach its end: %v", err)
	}
	r := must[*segment.Reader](t)(c.Commit(10, cache))
	r.Acquire()
	for _, when := range []string{"before", "after"} {
		ext, err := r.Find(0, 1<<20, segment.Bound{Offset: 10, Pos: -1}, -1)
		if err != nil || ext.First != 9 || ext.Len != int64(len(b)) {
			t.Errorf("%s the files have their names: %+v, %v", when, ext, err)
		}
		check(t, r.RebuildIndex())
		if when == "before" {
			inUse.Supersede()
			idle.Supersede()
			check(t, r.Settle([]segment.Offset{0}))
			check(t, r.Settle([]segment.Offset{0}))
		}
	}
	check(t, c.Close())
	got := make([]byte, len(content))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("an open descriptor reads something else: %v", err)
	}
	for name, open := range map[string]func() error{
		"file":   func() error { _, err := idle.File(); return err },
		"cold":   func() error { _, err := inUse.ColdFile(); return err },
		"direct": func() error { _, err := inUse.DirectFile(); return err },
		"index":  func() error { _, err := idle.Floor(5); return err },
		"times":  func() error { _, _, err := idle.MaxTimestamp(); return err },
	} {
		if err := open(); !errors.Is(err, segment.ErrSuperseded) {
			t.Errorf("%s of a superseded reader: %v", name, err)
		}
	}
	if got := fmt.Sprint(readLog(t, m, 0)); got != fmt.Sprint(b) {
		t.Error("the log is not the new one")
	}
}
