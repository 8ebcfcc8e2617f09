package segment_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"pgregory.net/rapid"
)

// model is what a segment holds, kept beside the real one.
type model struct {
	batches []segment.BatchHeader
	pos     []int64
	size    int64
}

func (m *model) add(h segment.BatchHeader, pos int64) {
	m.batches, m.pos, m.size = append(m.batches, h), append(m.pos, pos), pos+h.SizeBytes()
}

// find is the specification of Reader.Find, by exhaustive search.
func (m *model) find(from segment.Offset, maxBytes int64, bound segment.Bound) segment.Extent {
	for i, h := range m.batches {
		if h.LastOffset() < from || from >= bound.Offset {
			continue
		}
		ext := segment.Extent{Pos: m.pos[i], First: h.BaseOffset, Next: from}
		for j := i; j < len(m.batches); j++ {
			size := m.batches[j].SizeBytes()
			over := j > i && ext.Len+size > maxBytes
			if over || m.batches[j].NextOffset() > bound.Offset || (bound.Pos >= 0 && m.pos[j]+size > bound.Pos) {
				break
			}
			ext.Len += size
			ext.Next = m.batches[j].NextOffset()
		}
		return ext
	}
	return segment.Extent{First: from, Next: from}
}

// TestFindAgreesWithModel appends random batches, seals at a random time, and compares lookups with the model.
func TestFindAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mem := newDir(t)
		opt := segment.Options{IndexIntervalBytes: int32(rapid.SampledFrom([]int{1, 500, 4096, 20000}).Draw(rt, "interval"))}
		cache := newCache()
		base := segment.Offset(rapid.SampledFrom([]int64{0, 7, 1 << 40}).Draw(rt, "base"))
		w := must[*segment.Writer](t)(segment.Create(mem, dir, base, opt, cache))
		m := &model{}
		for range rapid.IntRange(1, 60).Draw(rt, "batches") {
			spec := batchSpec{records: rapid.IntRange(1, 20).Draw(rt, "records"), valueSize: rapid.IntRange(1, 900).Draw(rt, "value"),
				ms: rapid.Int64Range(0, 1000).Draw(rt, "ms")}
			b, pos := appendBatch(t, w, spec)
			m.add(decode(t, b), pos)
		}
		r := w.Reader()
		if rapid.Bool().Draw(rt, "sealed") {
			meta := must[segment.Meta](t)(w.Seal())
			if rapid.Bool().Draw(rt, "reopened") {
				r = must[*segment.Reader](t)(segment.OpenSealed(mem, dir, segment.Sealed{Base: base, Next: meta.Next, SizeBytes: meta.SizeBytes}, cache))
			}
		}
		if !r.Acquire() {
			rt.Fatal("retired")
		}
		defer r.Release()
		end := r.Meta().Next
		for range 30 {
			from := base + segment.Offset(rapid.Int64Range(0, int64(end-base)-1).Draw(rt, "from"))
			maxBytes := rapid.Int64Range(0, 2*m.size).Draw(rt, "max")
			bound := segment.Bound{Offset: math.MaxInt64, Pos: -1}
			if i := rapid.IntRange(0, 2*len(m.batches)).Draw(rt, "bound"); i < len(m.batches) {
				bound.Offset = m.batches[i].BaseOffset
				if rapid.Bool().Draw(rt, "boundPos") {
					bound.Pos = m.pos[i]
				}
			}
			hint := rapid.SampledFrom(append([]int64{-1, 1, m.size, 1 << 40}, m.pos...)).Draw(rt, "hint")
			got, err := r.Find(from, maxBytes, bound, hint)
			want := m.find(from, maxBytes, bound)
			if want.Len == 0 {
				if err != nil || got.Len != 0 || got.Next != from {
					rt.Fatalf("find %d max %d bound %+v: got %+v, %v; want nothing", from, maxBytes, bound, got, err)
				}
				continue
			}
			if err != nil || got != want {
				rt.Fatalf("find %d max %d bound %+v hint %d: got %+v, %v; want %+v", from, maxBytes, bound, hint, got, err, want)
			}
			checkFloor(rt, r, m, from, want.Pos)
		}
		checkFindTime(rt, r, m)
	})
}

func checkFloor(rt *rapid.T, r *segment.Reader, m *model, from segment.Offset, batchPos int64) {
	floor, err := r.Floor(from)
	if err != nil || floor > batchPos || !m.isBoundary(floor) {
		rt.Fatalf("floor of %d is %d, %v; its batch is at %d", from, floor, err, batchPos)
	}
	before, err := r.BatchBoundaryBefore(batchPos + 1)
	if err != nil || before > batchPos || !m.isBoundary(before) {
		rt.Fatalf("boundary before %d is %d, %v", batchPos+1, before, err)
	}
}

func (m *model) isBoundary(pos int64) bool {
	for _, p := range m.pos {
		if p == pos {
			return true
		}
	}
	return false
}

// checkFindTime: no record at or after the time lies before the position that FindTime gives.
func checkFindTime(rt *rapid.T, r *segment.Reader, m *model) {
	newest := int64(-1)
	for _, h := range m.batches {
		newest = max(newest, h.MaxTimestamp)
	}
	if ms, at, err := r.MaxTimestamp(); err != nil || ms != newest {
		rt.Fatalf("max timestamp %d at %d, %v; want %d", ms, at, err, newest)
	}
	if ms, err := r.VerifyMaxTimestamp(); err != nil || ms != newest {
		rt.Fatalf("verified max timestamp %d, %v; want %d", ms, err, newest)
	}
	for _, ms := range []int64{0, newest / 2, newest, newest + 1} {
		pos, ok, err := r.FindTime(ms)
		if err != nil || ok != (ms <= newest) {
			rt.Fatalf("find time %d: %v, %v", ms, ok, err)
		}
		for i, h := range m.batches {
			if ok && h.MaxTimestamp >= ms {
				if m.pos[i] < pos || !m.isBoundary(pos) {
					rt.Fatalf("find time %d: position %d is behind the batch at %d", ms, pos, m.pos[i])
				}
				break
			}
		}
	}
}

func TestFindOutOfRange(t *testing.T) {
	w := must[*segment.Writer](t)(segment.Create(newDir(t), dir, 10, segment.Options{}, newCache()))
	appendBatch(t, w, batchSpec{records: 3})
	r := w.Reader()
	r.Acquire()
	defer r.Release()
	for _, from := range []segment.Offset{9, 14, -1} {
		if _, err := r.Find(from, 100, unbounded, -1); !errors.Is(err, segment.ErrOutOfRange) {
			t.Errorf("find %d: %v", from, err)
		}
	}
	if ext, err := r.Find(13, 100, unbounded, -1); err != nil || ext.Len != 0 || ext.Next != 13 {
		t.Errorf("find at the end: %+v, %v", ext, err)
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	r, m := filledSegment(t, 2000, 512)
	r.Acquire()
	defer r.Release()
	end := r.Meta().Next
	from, hint := segment.Offset(0), int64(-1)
	n := testing.AllocsPerRun(500, func() {
		ext, err := r.Find(from, 64<<10, segment.Bound{Offset: end, Pos: m.size}, hint)
		if err != nil || ext.Len == 0 {
			t.Fatalf("%+v, %v", ext, err)
		}
		from, hint = ext.Next, ext.Pos+ext.Len
		if from == end {
			from, hint = 0, -1
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per Find", n)
	}
}

func filledSegment(tb testing.TB, batches, valueSize int) (*segment.Reader, *model) {
	tb.Helper()
	w := must[*segment.Writer](tb)(segment.Create(newDir(tb), dir, 0, segment.Options{}, newCache()))
	m := &model{}
	for range batches {
		b, pos := appendBatch(tb, w, batchSpec{valueSize: valueSize})
		m.add(decode(tb, b), pos)
	}
	must[segment.Meta](tb)(w.Seal())
	return w.Reader(), m
}

func BenchmarkReader_Find(b *testing.B) {
	for _, value := range []int{100, 16 << 10} {
		for _, sequential := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/hint=%v", value, sequential), func(b *testing.B) {
				root := b.TempDir()
				fsys := must[vfs.FS](b)(vfs.OS(root))
				check(b, fsys.MkdirAll(dir))
				w := must[*segment.Writer](b)(segment.Create(fsys, dir, 0, segment.Options{}, newCache()))
				for w.Size() < 32<<20 {
					appendBatch(b, w, batchSpec{valueSize: value})
				}
				must[segment.Meta](b)(w.Seal())
				r := w.Reader()
				r.Acquire()
				defer r.Retire(nil)
				defer r.Release()
				end := r.Meta().Next
				from, hint := segment.Offset(0), int64(-1)
				b.ReportAllocs()
				for b.Loop() {
					ext, err := r.Find(from, 1<<20, unbounded, hint)
					if err != nil {
						b.Fatal(err)
					}
					from = ext.Next
					if sequential {
						hint = ext.Pos + ext.Len
					}
					if from >= end {
						from, hint = 0, -1
					}
				}
			})
		}
	}
}

func TestAppendRefusals(t *testing.T) {
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, 100, segment.Options{SegmentBytes: 1000}, newCache()))
	b := buildBatch(batchSpec{base: 99})
	if _, err := w.Append(b, decode(t, b)); !errors.Is(err, segment.ErrOutOfRange) {
		t.Errorf("offset below base: %v", err)
	}
	b = buildBatch(batchSpec{base: 100})
	if _, err := w.Append(b[:len(b)-1], decode(t, b)); !errors.Is(err, segment.ErrCorruptBatch) {
		t.Errorf("header of another batch: %v", err)
	}
	far := buildBatch(batchSpec{base: 100 + math.MaxInt32 + 1})
	if _, err := w.Append(far, decode(t, far)); !errors.Is(err, segment.ErrFull) {
		t.Errorf("relative offset above int32: %v", err)
	}
	large, _ := appendBatch(t, w, batchSpec{valueSize: 3000}) // an empty segment takes a batch larger than itself
	if w.Fits(decode(t, b)) {
		t.Errorf("fits into %d bytes of 1000", len(large))
	}
	if _, err := segment.Create(mem, dir, 100, segment.Options{}, newCache()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second segment at the same base: %v", err)
	}
	must[segment.Meta](t)(w.Seal())
	b = buildBatch(batchSpec{base: 101})
	if _, err := w.Append(b, decode(t, b)); !errors.Is(err, segment.ErrSealed) {
		t.Errorf("append after seal: %v", err)
	}
	check(t, w.Close(true))
	if !w.Reader().Acquire() {
		t.Error("Close after Seal retired the reader")
	}
}

func TestIndexFullRolls(t *testing.T) {
	w := must[*segment.Writer](t)(segment.Create(newDir(t), dir, 0, segment.Options{IndexIntervalBytes: 1, IndexBytes: 36}, newCache()))
	for i := 0; !w.IndexFull(); i++ {
		if i > 4 {
			t.Fatal("never full")
		}
		appendBatch(t, w, batchSpec{ms: int64(i)})
	}
	if b := buildBatch(batchSpec{base: w.Next()}); w.Fits(decode(t, b)) {
		t.Error("fits into a full index")
	}
	must[segment.Meta](t)(w.Seal())
}

func TestAppendOverwritesAFailedWrite(t *testing.T) {
	mem := newDir(t)
	fault := &vfs.Fault{Kinds: vfs.OpWrite, Nth: 2, Err: &vfs.ShortWrite{Bytes: 40, Err: errors.New("disk full")}}
	w := must[*segment.Writer](t)(segment.Create(vfs.WithFaults(mem, fault), dir, 0, segment.Options{}, newCache()))
	first, _ := appendBatch(t, w, batchSpec{})
	b := buildBatch(batchSpec{base: 1, valueSize: 5000})
	if _, err := w.Append(b, decode(t, b)); err == nil || fault.Fired() != 1 {
		t.Fatalf("write error did not surface: %v", err)
	}
	if got := readLog(t, mem, 0); len(got) != len(first) {
		t.Errorf("%d bytes remain of the failed write", len(got)-len(first))
	}
	if w.Next() != 1 || w.Size() != int64(len(first)) {
		t.Errorf("next %d, size %d", w.Next(), w.Size())
	}
	second, pos := appendBatch(t, w, batchSpec{})
	if pos != int64(len(first)) || len(readLog(t, mem, 0)) != len(first)+len(second) {
		t.Errorf("appended at %d", pos)
	}
}

func TestSyncErrorIsSticky(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.OpSync, vfs.OpSyncDir} {
		fault := &vfs.Fault{Kinds: kind, Err: errors.New("no more flush")}
		w := must[*segment.Writer](t)(segment.Create(vfs.WithFaults(newDir(t), fault), dir, 0, segment.Options{}, newCache()))
		appendBatch(t, w, batchSpec{})
		first := w.SyncData()
		if first == nil {
			t.Fatalf("%v: no error", kind)
		}
		seen := fault.Seen()
		b := buildBatch(batchSpec{base: 1})
		_, appendErr := w.Append(b, decode(t, b))
		_, sealErr := w.Seal()
		for what, err := range map[string]error{"sync": w.SyncData(), "append": appendErr, "seal": sealErr, "close": w.Close(true)} {
			if !errors.Is(err, first) {
				t.Errorf("%v: %s after the failure: %v", kind, what, err)
			}
		}
		if fault.Seen() != seen {
			t.Errorf("%v: asked the kernel again", kind)
		}
	}
}

func TestFirstSyncAlsoSyncsTheDirectory(t *testing.T) {
	for name, sync := range map[string]func(w *segment.Writer) error{
		"all":   (*segment.Writer).SyncData,
		"range": func(w *segment.Writer) error { return w.SyncRange(0, w.Size()) },
	} {
		t.Run(name, func(t *testing.T) {
			var ops []string
			traced := vfs.WithTrace(newDir(t), func(op vfs.Op) {
				if op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncDir {
					ops = append(ops, fmt.Sprint(op.Kind, " ", op.Name))
				}
			})
			w := must[*segment.Writer](t)(segment.Create(traced, dir, 0, segment.Options{}, newCache()))
			for range 2 {
				appendBatch(t, w, batchSpec{})
				check(t, sync(w))
			}
			log := dir + "/" + segment.LogName(0)
			want := []string{fmt.Sprint(vfs.OpSync, " ", log), fmt.Sprint(vfs.OpSyncDir, " ", dir), fmt.Sprint(vfs.OpSync, " ", log)}
			if diff := cmp.Diff(want, ops); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A range is synced by the first sync as all of the segment is, then by itself; a failure is as final as that of SyncData, and a sealed segment
// has nothing left to sync.
func TestSyncRange(t *testing.T) {
	eio := &vfs.Fault{Kinds: vfs.OpSync, Nth: 3, Err: syscall.EIO}
	var last vfs.Op
	traced := vfs.WithTrace(vfs.WithFaults(newDir(t), eio), func(op vfs.Op) {
		if op.Kind == vfs.OpSync {
			last = op
		}
	})
	w := must[*segment.Writer](t)(segment.Create(traced, dir, 0, segment.Options{}, newCache()))
	appendBatch(t, w, batchSpec{})
	check(t, w.SyncRange(0, w.Size()))
	from := w.Size()
	appendBatch(t, w, batchSpec{base: 1})
	to := w.Size()
	appendBatch(t, w, batchSpec{base: 2})
	check(t, w.SyncRange(from, to))
	if last.Off != from || last.Len != to-from {
		t.Errorf("synced %d bytes at %d, want %d at %d", last.Len, last.Off, to-from, from)
	}
	for range 2 {
		if err := w.SyncRange(to, w.Size()); !errors.Is(err, syscall.EIO) {
			t.Errorf("failed sync: %v", err)
		}
	}
	if eio.Seen() != 3 || w.Err() == nil {
		t.Errorf("%d syncs, sticky error %v", eio.Seen(), w.Err())
	}
}

func TestPreallocationIsSteppedAndReleased(t *testing.T) {
	var steps []int64
	var truncated []int64
	traced := vfs.WithTrace(newDir(t), func(op vfs.Op) {
		switch op.Kind {
		case vfs.OpAllocate:
			steps = append(steps, op.Off+op.Len)
		case vfs.OpTruncate:
			truncated = append(truncated, op.Off)
		}
	})
	w := must[*segment.Writer](t)(segment.Create(traced, dir, 0, segment.Options{SegmentBytes: 3 << 20, PreallocateBytes: 1 << 20}, newCache()))
	for w.Size() < 2<<20 {
		appendBatch(t, w, batchSpec{valueSize: 100_000})
	}
	size := w.Size()
	must[segment.Meta](t)(w.Seal())
	if len(steps) < 3 || len(steps) > 8 || steps[0] != 256<<10 || steps[len(steps)-1] > 3<<20 {
		t.Errorf("reserved up to %v", steps)
	}
	if len(truncated) != 1 || truncated[0] != size {
		t.Errorf("released at %v, size %d", truncated, size)
	}
}

// TestReopenedSegmentIndexesAlike: an index that grew over restarts equals one that grew in one go.
func TestReopenedSegmentIndexesAlike(t *testing.T) {
	files := func(restart bool) [2]string {
		mem := newDir(t)
		w := must[*segment.Writer](t)(segment.Create(mem, dir, 50, segment.Options{}, newCache()))
		for i := range 120 {
			appendBatch(t, w, batchSpec{records: 1 + i%3, valueSize: 300 + i, ms: int64(1000 - i%50*7)})
			if restart && i%10 == 9 {
				check(t, w.Close(true))
				w = must[*segment.Writer](t)(segment.OpenWriter(mem, dir, 50, segment.Options{}, newCache()))
			}
		}
		must[segment.Meta](t)(w.Seal())
		var out [2]string
		for i, name := range []string{segment.IndexName(50), segment.TimeIndexName(50)} {
			out[i] = string(must[[]byte](t)(vfs.ReadFile(mem, dir+"/"+name, 1<<20)))
		}
		return out
	}
	once, often := files(false), files(true)
	if once[0] != often[0] || len(once[0]) < 80 {
		t.Errorf("offset index: %d bytes in one go, %d over restarts", len(once[0]), len(often[0]))
	}
}

func TestConcurrentReadersOfTheActiveSegment(t *testing.T) {
	w := must[*segment.Writer](t)(segment.Create(newDir(t), dir, 0, segment.Options{IndexIntervalBytes: 300}, newCache()))
	appendBatch(t, w, batchSpec{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r := w.Reader()
			if !r.Acquire() {
				t.Error("retired")
				return
			}
			defer r.Release()
			from := segment.Offset(0)
			for {
				ext, err := r.Find(from, 2000, unbounded, -1)
				if err != nil {
					t.Errorf("find %d: %v", from, err)
					return
				}
				if ext.Len > 0 && ext.First != from {
					t.Errorf("find %d: %+v", from, ext)
					return
				}
				from = ext.Next
				if ext.Len == 0 {
					select {
					case <-stop:
						return
					default:
						from = 0
					}
				}
			}
		})
	}
	for i := range 400 {
		appendBatch(t, w, batchSpec{valueSize: 50 + i%200})
		if i%50 == 0 {
			check(t, w.SyncData())
		}
	}
	must[segment.Meta](t)(w.Seal())
	close(stop)
	wg.Wait()
}

func TestScanChecksEveryBatch(t *testing.T) {
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, 0, segment.Options{}, newCache()))
	var ends []int64
	for _, size := range []int{10, 5000, 30_000, 20, 9000} { // larger and smaller than the buffer
		b, pos := appendBatch(t, w, batchSpec{valueSize: size})
		ends = append(ends, pos+int64(len(b)))
	}
	f := must[vfs.File](t)(mem.Open(dir+"/"+segment.LogName(0), vfs.ReadWrite))
	var seen []int64
	collect := func(pos int64, h segment.BatchHeader, full []byte) error {
		if int64(len(full)) != h.SizeBytes() || decode(t, full) != h {
			t.Errorf("batch at %d: %d bytes given", pos, len(full))
		}
		seen = append(seen, pos+h.SizeBytes())
		return nil
	}
	buf := segment.ScanBuffer(8192)
	check(t, segment.Scan(f, 0, w.Size(), buf, collect))
	if diff := cmp.Diff(ends, seen); diff != "" {
		t.Error(diff)
	}
	if err := segment.Scan(f, 0, w.Size(), buf, func(int64, segment.BatchHeader, []byte) error { return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("error of fn came back as %v", err)
	}
	for name, at := range map[string]int64{"small batch": 70, "large batch": ends[1] + 20_000, "header": ends[2] + 16, "length": ends[3] + 8} {
		var b [1]byte
		must[int](t)(f.ReadAt(b[:], at))
		must[int](t)(f.WriteAt([]byte{b[0] ^ 4}, at))
		err := segment.Scan(f, 0, w.Size(), buf, func(int64, segment.BatchHeader, []byte) error { return nil })
		corrupt, ok := errors.AsType[*segment.CorruptError](err)
		if !ok || corrupt.Pos > at || corrupt.Path == "" {
			t.Errorf("%s: flip at %d: %v", name, at, err)
		}
		must[int](t)(f.WriteAt(b[:], at))
	}
	if err := segment.Scan(f, 0, w.Size()-1, buf, func(int64, segment.BatchHeader, []byte) error { return nil }); err == nil {
		t.Error("a cut off batch went through")
	}
}
