package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

const recoverBase = segment.Offset(1000)

// fixture is a small segment, its batches and a recovery point in the middle.
type fixture struct {
	log     []byte
	batches []segment.BatchHeader
	pos     []int64
	point   segment.Offset
	cut     int64 // position of point
	frames  []byte
}

// checkpointName is the index checkpoint of the fixture's segment.
var checkpointName = fmt.Sprintf("%s/%020d.lagoon-index", dir, recoverBase)

func newFixture(t *testing.T, checkpoint bool) fixture {
	t.Helper()
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, smallIndex, newCache()))
	var fx fixture
	for i := range 9 {
		if i == 5 {
			fx.point, fx.cut = w.Next(), w.Size()
			if checkpoint {
				check(t, w.CheckpointIndex())
				fx.frames = must[[]byte](t)(vfs.ReadFile(mem, checkpointName, 1<<20))
			}
		}
		b, pos := appendBatch(t, w, batchSpec{records: 1 + i%3, valueSize: 9 + 5*i, ms: int64(100 + i), fill: 'a', pid: 77, seq: int32(sequenceOf(fx.batches))})
		fx.batches, fx.pos = append(fx.batches, decode(t, b)), append(fx.pos, pos)
	}
	fx.log = readLog(t, mem, recoverBase)
	return fx
}

var smallIndex = segment.Options{IndexIntervalBytes: 120}

func sequenceOf(batches []segment.BatchHeader) (n int32) {
	for _, h := range batches {
		n += h.Count
	}
	return n
}

// recovered is what one recovery of log gave.
type recovered struct {
	mem *vfs.Mem
	res segment.RecoverResult
	w   *segment.Writer
	ps  *segment.ProducerState
}

func (fx fixture) recover(t *testing.T, log []byte) recovered {
	t.Helper()
	mem := newDir(t)
	writeFile(t, mem, dir+"/"+segment.LogName(recoverBase), log)
	if fx.frames != nil {
		writeFile(t, mem, checkpointName, fx.frames)
		return recoverAlone(t, mem, fx.point)
	}
	return recoverIn(t, mem, fx.point)
}

// recoverAlone recovers without producers to be found: with them all headers are walked, and the index checkpoint counts for nothing.
func recoverAlone(t *testing.T, mem *vfs.Mem, point segment.Offset) recovered {
	t.Helper()
	res, w, err := segment.Recover(mem, dir, recoverBase, point, smallIndex, nil, 1, newCache())
	check(t, err)
	return recovered{mem: mem, res: res, w: w}
}

// again recovers what a killed process left of r, as r was.
func (r recovered) again(t *testing.T, mem *vfs.Mem, point segment.Offset) recovered {
	t.Helper()
	if r.ps == nil {
		return recoverAlone(t, mem, point)
	}
	return recoverIn(t, mem, point)
}

func recoverIn(t *testing.T, mem *vfs.Mem, point segment.Offset) recovered {
	t.Helper()
	ps := segment.NewProducerState(segment.ProducerOptions{})
	res, w, err := segment.Recover(mem, dir, recoverBase, point, smallIndex, ps, 1, newCache())
	check(t, err)
	return recovered{mem, res, w, ps}
}

// readable tells whether the batch can be found and has its bytes.
func (r recovered) readable(t *testing.T, h segment.BatchHeader, want []byte) error {
	t.Helper()
	reader := r.w.Reader()
	if !reader.Acquire() {
		return errors.New("retired")
	}
	defer reader.Release()
	ext, err := reader.Find(h.BaseOffset, 1, unbounded, -1)
	if err != nil {
		return err
	}
	f, err := reader.File()
	if err != nil {
		return err
	}
	got := make([]byte, ext.Len)
	if _, err := f.ReadAt(got, ext.Pos); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("offset %d: %+v is not the batch written", h.BaseOffset, ext)
	}
	return nil
}

func (fx fixture) bytesOf(i int) []byte {
	return fx.log[fx.pos[i] : fx.pos[i]+fx.batches[i].SizeBytes()]
}

func TestRecoverAtEveryTruncation(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		fx := newFixture(t, checkpoint)
		for n := range int64(len(fx.log) + 1) {
			r := fx.recover(t, fx.log[:n])
			whole, next := 0, recoverBase
			for whole < len(fx.batches) && fx.pos[whole]+fx.batches[whole].SizeBytes() <= n {
				next = fx.batches[whole].NextOffset()
				whole++
			}
			size := int64(len(readLog(t, r.mem, recoverBase)))
			switch {
			case n >= fx.cut && (r.res.Next != next || len(r.res.Corrupt) != 0 || r.res.CutBytes != n-size || size > n || r.ps != nil && r.ps.End() != next):
				t.Errorf("cut at %d: %+v, file has %d bytes; want next %d", n, r.res, size, next)
			case n < fx.cut && (size < n || r.res.Next != fx.point || r.res.CutBytes != 0 || len(r.res.Corrupt) != 1):
				t.Errorf("cut at %d, below the recovery point: %+v, file has %d bytes", n, r.res, size)
			case n < fx.cut && (r.res.Corrupt[0].First != next || r.res.Corrupt[0].Next != fx.point):
				t.Errorf("cut at %d: reported %v, lost are %d to %d", n, r.res.Corrupt[0], next, fx.point)
			}
			for i := range whole {
				if err := r.readable(t, fx.batches[i], fx.bytesOf(i)); err != nil {
					t.Errorf("cut at %d: %v", n, err)
				}
			}
			fx.goesOn(t, r, fmt.Sprint("cut at ", n))
		}
	}
}

// goesOn checks that recovery is idempotent and that the segment takes batches afterwards.
func (fx fixture) goesOn(t *testing.T, r recovered, what string) {
	t.Helper()
	again := r.again(t, r.mem.Kill(), fx.point)
	if again.res.Next != r.res.Next || again.res.SizeBytes != r.res.SizeBytes || again.res.CutBytes != 0 || len(again.res.Corrupt) > len(r.res.Corrupt) {
		t.Errorf("%s: recovered again: %+v, first %+v", what, again.res, r.res)
	}
	b, _ := appendBatch(t, again.w, batchSpec{valueSize: 33})
	if err := again.readable(t, decode(t, b), b); err != nil {
		t.Errorf("%s: appended afterwards: %v", what, err)
	}
	// What was appended above the old recovery point must survive the next crash too, whatever lies before it.
	after := r.again(t, again.mem.Kill(), fx.point)
	if err := after.readable(t, decode(t, b), b); err != nil || after.res.Next != again.w.Next() {
		t.Errorf("%s: recovered after an append: %+v, %v", what, after.res, err)
	}
}

func TestRecoverAtEveryBitFlip(t *testing.T) {
	fx := newFixture(t, false)
	for bit := range len(fx.log) * 8 {
		log := bytes.Clone(fx.log)
		log[bit/8] ^= 1 << (bit % 8)
		fx.checkFlip(t, log, int64(bit/8), bit)
	}
}

// checkFlip: every batch but the one hit is there, or (above the recovery point, behind the hit) cut and kept apart.
func (fx fixture) checkFlip(t *testing.T, log []byte, at int64, bit int) {
	t.Helper()
	r := fx.recover(t, log)
	hit := 0
	for hit+1 < len(fx.pos) && fx.pos[hit+1] <= at {
		hit++
	}
	below := at < fx.cut
	end := fx.batches[len(fx.batches)-1].NextOffset()
	inEpoch := at >= fx.pos[hit]+12 && at < fx.pos[hit]+16 // outside every checksum, and nothing depends on it here
	size := int64(len(readLog(t, r.mem, recoverBase)))
	switch {
	case size < fx.cut || r.res.Next < fx.point:
		t.Errorf("bit %d: durable bytes were cut: %d bytes left, next %d", bit, size, r.res.Next)
	case below && (r.res.CutBytes != 0 || r.res.Next != end):
		t.Errorf("bit %d below the recovery point cost what is above: %+v", bit, r.res)
	case !below && !inEpoch && (r.res.CutBytes != int64(len(fx.log))-fx.pos[hit] || r.res.Next != fx.batches[hit].BaseOffset):
		t.Errorf("bit %d above the recovery point: %+v", bit, r.res)
	case !below && !inEpoch && hit+1 < len(fx.pos) && r.res.Quarantined == "":
		t.Errorf("bit %d: valid batches were cut and not kept: %+v", bit, r.res)
	}
	if r.res.Quarantined != "" {
		kept := must[[]byte](t)(vfs.ReadFile(r.mem, r.res.Quarantined, 1<<20))
		if !bytes.Equal(kept, log[fx.pos[hit]:]) {
			t.Errorf("bit %d: quarantine holds %d bytes", bit, len(kept))
		}
	}
	for i := range fx.batches {
		if i == hit || (i > hit && !below && !inEpoch) {
			continue
		}
		if err := r.readable(t, fx.batches[i], fx.bytesOf(i)); err != nil {
			t.Errorf("bit %d in batch %d: batch %d: %v (%+v)", bit, hit, i, err, r.res)
		}
	}
}

// TestRecoverReadsOnlyTheTail: with an index checkpoint, only what lies behind it is read.
func TestRecoverReadsOnlyTheTail(t *testing.T) {
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, segment.Options{}, newCache()))
	for range 3000 {
		appendBatch(t, w, batchSpec{valueSize: 1000})
	}
	check(t, w.SyncData())
	check(t, w.CheckpointIndex())
	point, pointPos := w.Next(), w.Size()
	for range 10 {
		appendBatch(t, w, batchSpec{valueSize: 1000})
	}
	want := w.Reader().Meta()
	var read int64
	traced := vfs.WithTrace(mem.Kill(), func(op vfs.Op) {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") && op.Off > 0 {
			read += op.Len
			if op.Off < pointPos-10_000 {
				t.Errorf("read at %d, recovery point is at %d", op.Off, pointPos)
			}
		}
	})
	res, w, err := segment.Recover(traced, dir, recoverBase, point, segment.Options{}, nil, 1, newCache())
	check(t, err)
	if got := w.Reader().Meta(); got != want || res.ScannedBytes != want.SizeBytes-pointPos {
		t.Errorf("recovered %+v, scanned %d; want %+v", got, res.ScannedBytes, want)
	}
	if read > 2<<20 {
		t.Errorf("%d bytes read", read)
	}
}

// TestRecoverDistrustsTheIndexCheckpoint flips every bit of it: the result is always the same.
func TestRecoverDistrustsTheIndexCheckpoint(t *testing.T) {
	fx := newFixture(t, true)
	want := fx.recover(t, fx.log)
	wantMeta := want.w.Reader().Meta()
	must[segment.Meta](t)(want.w.Seal())
	if len(fx.frames) < 30 {
		t.Fatalf("%d bytes of checkpoint mean nothing", len(fx.frames))
	}
	for bit := range len(fx.frames) * 8 {
		damaged := fx
		damaged.frames = bytes.Clone(fx.frames)
		damaged.frames[bit/8] ^= 1 << (bit % 8)
		got := damaged.recover(t, fx.log)
		if got.res.Next != want.res.Next || got.w.Reader().Meta() != wantMeta {
			t.Errorf("bit %d: %+v", bit, got.res)
		}
		must[segment.Meta](t)(got.w.Seal())
		if i := segment.IndexName(recoverBase); !sameFile(t, got.mem, want.mem, i) {
			t.Errorf("bit %d: another index", bit)
		}
	}
}

func sameFile(t *testing.T, a, b *vfs.Mem, name string) bool {
	t.Helper()
	x := must[[]byte](t)(vfs.ReadFile(a, dir+"/"+name, 1<<20))
	y := must[[]byte](t)(vfs.ReadFile(b, dir+"/"+name, 1<<20))
	return bytes.Equal(x, y)
}

func TestRecoverRefusesWhenItCannotKeepWhatItCuts(t *testing.T) {
	fx := newFixture(t, false)
	log := bytes.Clone(fx.log)
	log[fx.pos[6]+70] ^= 1
	mem := newDir(t)
	writeFile(t, mem, dir+"/"+segment.LogName(recoverBase), log)
	fault := &vfs.Fault{Kinds: vfs.OpCreate, Err: errors.New("no space")}
	if _, _, err := segment.Recover(vfs.WithFaults(mem, fault), dir, recoverBase, fx.point, smallIndex, nil, 1, newCache()); err == nil || fault.Fired() == 0 {
		t.Errorf("recovered: %v", err)
	}
	if got := readLog(t, mem, recoverBase); !bytes.Equal(got, log) {
		t.Error("the log was changed")
	}
}

// TestRecoverAfterPowerCutAtEveryCall runs a script and cuts the power at each change of the file system, several
// times with other leftovers: what was synced is there byte by byte, and nothing that was not written.
func TestRecoverAfterPowerCutAtEveryCall(t *testing.T) {
	script := func(fsys vfs.FS) (written []byte, acked int64, ackedNext, point segment.Offset) {
		point, ackedNext = recoverBase, recoverBase
		w, err := segment.Create(fsys, dir, recoverBase, smallIndex, newCache())
		if err != nil {
			return nil, 0, ackedNext, point
		}
		for i := range 12 {
			b := buildBatch(batchSpec{base: w.Next(), records: 1 + i%2, valueSize: 40 * (i + 1), fill: byte(i)})
			written = append(written, b...)
			if _, err := w.Append(b, decode(t, b)); err != nil {
				return written, acked, ackedNext, point
			}
			if i%3 == 1 {
				if w.SyncData() != nil {
					return written, acked, ackedNext, point
				}
				acked, ackedNext = w.Size(), w.Next()
			}
			if i%4 == 3 { // the recovery point may lag behind what is synced, never run ahead
				if w.CheckpointIndex() != nil {
					return written, acked, ackedNext, point
				}
				point = ackedNext
			}
		}
		if w.Close(true) == nil {
			acked, ackedNext = w.Size(), w.Next()
		}
		return written, acked, ackedNext, point
	}
	count := &vfs.PowerCut{}
	script(vfs.WithFaults(newDir(t), count))
	if count.Points() < 30 {
		t.Fatalf("only %d points", count.Points())
	}
	for after := int64(1); after <= count.Points(); after++ {
		for seed := range uint64(12) {
			mem := newDir(t)
			check(t, mem.SyncDir("."))
			written, acked, ackedNext, point := script(vfs.WithFaults(mem, &vfs.PowerCut{After: after}))
			crashed := mem.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: int(seed) * 100 / 11, Tear: seed%2 == 1})
			if _, err := crashed.Stat(dir + "/" + segment.LogName(recoverBase)); errors.Is(err, fs.ErrNotExist) {
				if acked > 0 {
					t.Errorf("cut after %d seed %d: the segment is gone", after, seed)
				}
				continue
			}
			run := recoverIn
			if seed%4 > 1 {
				run = recoverAlone
			}
			r := run(t, crashed, point)
			got := readLog(t, crashed, recoverBase)
			if int64(len(got)) < acked || r.res.Next < ackedNext || !bytes.Equal(got, written[:len(got)]) || len(r.res.Corrupt) != 0 {
				t.Errorf("cut after %d seed %d: %d bytes, acked %d of %d, %+v", after, seed, len(got), acked, len(written), r.res)
			}
		}
	}
}

// TestSealedSegmentSurvivesEveryIndexBitFlip: a wrong index costs a rebuild, never a wrong or missing answer.
func TestSealedSegmentSurvivesEveryIndexBitFlip(t *testing.T) {
	build := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(build, dir, 0, smallIndex, newCache()))
	m := &model{}
	for i := range 12 {
		b, pos := appendBatch(t, w, batchSpec{records: 1 + i%3, valueSize: 20 + i, ms: int64(10 * i)})
		m.add(decode(t, b), pos)
	}
	meta := must[segment.Meta](t)(w.Seal())
	for _, name := range []string{segment.IndexName(0), segment.TimeIndexName(0)} {
		good := must[[]byte](t)(vfs.ReadFile(build, dir+"/"+name, 1<<20))
		for bit := -1; bit < len(good)*8; bit++ {
			mem := build.Crash(vfs.CrashOptions{Live: true})
			bad := bytes.Clone(good)
			if bit >= 0 {
				bad[bit/8] ^= 1 << (bit % 8)
			} else {
				bad = bad[:len(bad)-1]
			}
			writeFile(t, mem, dir+"/"+name, bad)
			r := must[*segment.Reader](t)(segment.OpenSealed(mem, dir, segment.Sealed{Base: 0, Next: meta.Next, SizeBytes: meta.SizeBytes}, newCache()))
			r.Acquire()
			for i, h := range m.batches {
				ext, err := r.Find(h.LastOffset(), 300, unbounded, -1)
				if want := m.find(h.LastOffset(), 300, unbounded); err != nil || ext != want {
					t.Errorf("%s bit %d: batch %d: %+v, %v; want %+v", name, bit, i, ext, err, want)
				}
			}
			if ms, err := r.VerifyMaxTimestamp(); err != nil || ms != 110 {
				t.Errorf("%s bit %d: max timestamp %d, %v", name, bit, ms, err)
			}
			r.Release()
		}
	}
}

// TestSealedSegmentStepsOverDamage damages one header after the other: the other batches stay readable, the hole is
// reported once.
func TestSealedSegmentStepsOverDamage(t *testing.T) {
	build := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(build, dir, 0, smallIndex, newCache()))
	m := &model{}
	for i := range 10 {
		b, pos := appendBatch(t, w, batchSpec{records: 2, valueSize: 20 + i})
		m.add(decode(t, b), pos)
	}
	meta := must[segment.Meta](t)(w.Seal())
	good := readLog(t, build, 0)
	for hit := range m.batches {
		mem := build.Crash(vfs.CrashOptions{Live: true})
		log := bytes.Clone(good)
		log[m.pos[hit]+16] = 0
		writeFile(t, mem, dir+"/"+segment.LogName(0), log)
		var reports []*segment.CorruptError
		cache := segment.NewFileCache(segment.FileCacheOptions{OnCorrupt: func(c *segment.CorruptError) { reports = append(reports, c) }})
		r := must[*segment.Reader](t)(segment.OpenSealed(mem, dir, segment.Sealed{Base: 0, Next: meta.Next, SizeBytes: meta.SizeBytes}, cache))
		r.Acquire()
		var seen []segment.Offset
		for from := segment.Offset(0); from < meta.Next; {
			ext, err := r.Find(from, 1, unbounded, -1)
			if err != nil || ext.Next <= from {
				t.Fatalf("damaged batch %d: find %d: %+v, %v", hit, from, ext, err)
			}
			if ext.Len > 0 {
				seen = append(seen, ext.First)
			}
			from = ext.Next
		}
		holes := r.Holes()
		if len(seen) != 9 || len(holes) != 1 || holes[0].Pos != m.pos[hit] || holes[0].First != m.batches[hit].BaseOffset || holes[0].Next != m.batches[hit].NextOffset() {
			t.Errorf("damaged batch %d: read %v, holes %v", hit, seen, holes)
		}
		if len(reports) == 0 || reports[len(reports)-1].Path != r.LogName() {
			t.Errorf("damaged batch %d: reports %v", hit, reports)
		}
		r.Release()
	}
}

// TestRecoverRandomDamage swaps, zeroes and overwrites blocks: nothing below the recovery point is ever cut.
func TestRecoverRandomDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fx := newFixture(t, true)
	for range 1500 {
		log := bytes.Clone(fx.log)
		for range 1 + rng.IntN(3) {
			at, n := rng.IntN(len(log)), 1+rng.IntN(200)
			part := log[at:min(at+n, len(log))]
			switch rng.IntN(3) {
			case 0:
				clear(part)
			case 1:
				for i := range part {
					part[i] = byte(rng.Uint32())
				}
			default:
				copy(part, fx.log[rng.IntN(len(log)):])
			}
		}
		if rng.IntN(3) == 0 {
			log = append(log, fx.log[:rng.IntN(len(fx.log))]...)
		}
		r := fx.recover(t, log)
		size := int64(len(readLog(t, r.mem, recoverBase)))
		if r.res.Next < fx.point || size < fx.cut {
			t.Fatalf("durable bytes were cut: %+v, %d bytes", r.res, size)
		}
		fx.goesOn(t, r, "random damage")
	}
}

// What the index checkpoint says of a tail that a power cut took must not be believed once other batches lie there: not after the next
// crash, whose recovery point is above them, whether recovery had to cut the log or found it cut.
func TestRecoverForgetsIndexOfLostTail(t *testing.T) {
	spec := batchSpec{records: 1, valueSize: 102} // of an even size
	for _, torn := range []bool{false, true} {
		mem := newDir(t)
		w := must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, smallIndex, newCache()))
		var size int64
		for range 12 { // each has an entry
			b, _ := appendBatch(t, w, spec)
			size = int64(len(b))
		}
		check(t, w.CheckpointIndex())
		left := readLog(t, mem, recoverBase)[:6*size]
		if torn {
			left = append(left, make([]byte, 7*size)...)
		}
		crashed := newDir(t)
		writeFile(t, crashed, dir+"/"+segment.LogName(recoverBase), left)
		writeFile(t, crashed, checkpointName, must[[]byte](t)(vfs.ReadFile(mem, checkpointName, 1<<20)))
		_, w, err := segment.Recover(crashed, dir, recoverBase, recoverBase+4, smallIndex, nil, 1, newCache())
		check(t, err)
		if w.Size() != 6*size {
			t.Fatalf("%d bytes left of %d", w.Size(), 6*size)
		}
		// A batch begins where the newest of the old entries points, as any may, and the recovery point is above that entry.
		long := spec
		for len(buildBatch(long)) < int(5*size/2) {
			long.valueSize++
		}
		want := map[segment.Offset][]byte{}
		for _, next := range []batchSpec{long, long, spec, spec, spec, spec, spec} {
			at := w.Next()
			want[at], _ = appendBatch(t, w, next)
		}
		if w.Size() != 16*size {
			t.Fatalf("%d bytes in the log, want %d", w.Size(), 16*size)
		}
		check(t, w.SyncData())
		killed := crashed.Kill()
		_, again, err := segment.Recover(killed, dir, recoverBase, w.Next(), smallIndex, nil, 1, newCache())
		check(t, err)
		r := recovered{mem: killed, w: again}
		for at, b := range want {
			if err := r.readable(t, decode(t, b), b); err != nil {
				t.Errorf("torn %v, offset %d: %v", torn, at, err)
			}
		}
	}
}

// TestIndexOutlivesPowerCuts: whatever a few power cuts leave of log and index checkpoint, each batch is found where it is. Batches have two
// sizes, so that later ones often begin where earlier ones did.
func TestIndexOutlivesPowerCuts(t *testing.T) {
	specs := []batchSpec{{valueSize: 102}, {valueSize: 102}}
	for len(buildBatch(specs[1])) < 2*len(buildBatch(specs[0])) {
		specs[1].valueSize++
	}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mem := newDir(t)
		w := must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, smallIndex, newCache()))
		check(t, w.SyncData())
		point := recoverBase
		var all [][]byte
		for life := range 4 {
			for range rng.IntN(30) {
				b, _ := appendBatch(t, w, specs[rng.IntN(2)])
				all = append(all, b)
				switch rng.IntN(12) {
				case 0, 1:
					check(t, w.SyncData())
					point = w.Next()
				case 2:
					check(t, w.CheckpointIndex())
				}
			}
			mem = mem.Crash(vfs.CrashOptions{Seed: rng.Uint64(), KeepPercent: vfs.KeepRandom, Tear: true})
			res, again, err := segment.Recover(mem, dir, recoverBase, point, smallIndex, nil, 1, newCache())
			check(t, err)
			if w = again; rng.IntN(2) == 0 {
				point = res.Next
			}
			all = all[:res.Next-recoverBase] // one record each
			r := recovered{mem: mem, w: w}
			for _, b := range all {
				if err := r.readable(t, decode(t, b), b); err != nil {
					t.Fatalf("seed %d, life %d, recovery point %d: %v", seed, life, point, err)
				}
			}
		}
	}
}

// A segment that begins where an earlier one did (one that was set aside, behind a torn one) has nothing to do with its index checkpoint.
func TestCreateForgetsIndexCheckpoint(t *testing.T) {
	mem := newDir(t)
	w := must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, smallIndex, newCache()))
	for range 6 {
		appendBatch(t, w, batchSpec{valueSize: 100})
	}
	check(t, w.CheckpointIndex())
	check(t, mem.Remove(dir+"/"+segment.LogName(recoverBase)))
	w = must[*segment.Writer](t)(segment.Create(mem, dir, recoverBase, smallIndex, newCache()))
	check(t, w.SyncData())
	if _, err := mem.Crash(vfs.CrashOptions{}).Stat(checkpointName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the index checkpoint of the earlier segment is there: %v", err)
	}
}
