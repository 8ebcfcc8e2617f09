package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

func TestCheckpointText(t *testing.T) {
	mem := newDir(t)
	m := map[segment.TopicPartition]segment.Offset{{Topic: "b", Partition: 0}: 5, {Topic: "a", Partition: 10}: 1, {Topic: "a", Partition: 2}: 0}
	check(t, segment.WriteCheckpoint(mem, segment.LogStartFile, m))
	text := must[[]byte](t)(vfs.ReadFile(mem, segment.LogStartFile, 1000))
	if want := "0\n3\na 2 0\na 10 1\nb 0 5\n"; string(text) != want {
		t.Errorf("wrote %q, want %q", text, want)
	}
	if diff := cmp.Diff(m, must[map[segment.TopicPartition]segment.Offset](t)(segment.ReadCheckpoint(mem, segment.LogStartFile))); diff != "" {
		t.Error(diff)
	}
	if got, err := segment.ReadCheckpoint(mem, "absent"); err != nil || len(got) != 0 {
		t.Errorf("absent: %v, %v", got, err)
	}
	for _, bad := range []string{"", "1\n0\n", "0\n", "0\n-1\n", "0\n1\n", "0\n1\na 0\n", "0\n1\na x 1\n", "0\n1\na 0 1", "0\n1\na 0 -1\n",
		"0\n1\na 0 1\na 1 1\n", "0\n2\na 0 1\na 0 2\n", "0\n99999999999999999999\n", "0\n2000000000\n", "\xff\xfe"} {
		writeFile(t, mem, "bad", []byte(bad))
		_, err := segment.ReadCheckpoint(mem, "bad")
		if corrupt, ok := errors.AsType[*segment.CorruptError](err); !ok || corrupt.Path != "bad" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPartitionMetadata(t *testing.T) {
	mem := newDir(t)
	if _, err := segment.ReadPartitionMetadata(mem, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	id := [16]byte{0xff, 0xee, 1}
	check(t, segment.WritePartitionMetadata(mem, dir, id))
	if got, err := segment.ReadPartitionMetadata(mem, dir); err != nil || got != id {
		t.Errorf("%x, %v", got, err)
	}
	good := must[[]byte](t)(vfs.ReadFile(mem, dir+"/partition.metadata", 1000))
	if want := "version: 0\ntopic_id: _-4BAAAAAAAAAAAAAAAAAA"; string(good) != want {
		t.Errorf("wrote %q, want %q", good, want)
	}
	for bit := range len(good) * 8 { // every flip is found, or changes the id, which the catalogue then contradicts
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		writeFile(t, mem, dir+"/partition.metadata", bad)
		got, err := segment.ReadPartitionMetadata(mem, dir)
		if _, corrupt := errors.AsType[*segment.CorruptError](err); !corrupt && got == id {
			t.Errorf("bit %d of %q went unnoticed", bit, bad)
		}
	}
	writeFile(t, mem, dir+"/partition.metadata", []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"))
	if _, err := segment.ReadPartitionMetadata(mem, dir); err == nil {
		t.Error("the zero id was accepted")
	}
}

func TestCleanShutdownMarker(t *testing.T) {
	mem := newDir(t)
	state := func(want int64, wantFound bool) {
		t.Helper()
		if got, found, err := segment.ReadCleanShutdown(mem); err != nil || got != want || found != wantFound {
			t.Errorf("%d, %v, %v; want %d, %v", got, found, err, want, wantFound)
		}
	}
	state(-1, false)
	check(t, segment.WriteCleanShutdown(mem, 12))
	state(12, true)
	check(t, segment.RemoveCleanShutdown(mem))
	check(t, segment.RemoveCleanShutdown(mem))
	state(-1, false)
	writeFile(t, mem, segment.CleanShutdownFile, nil) // as Kafka before 3.8 wrote it
	state(-1, true)
}

func TestEpochCache(t *testing.T) {
	mem := newDir(t)
	c := must[*segment.EpochCache](t)(segment.LoadEpochCache(mem, dir))
	for _, e := range []segment.EpochEntry{{Epoch: 2, Start: 10}, {Epoch: 2, Start: 15}, {Epoch: 4, Start: 30}, {Epoch: 7, Start: 50}} {
		must[bool](t)(c.Assign(e.Epoch, e.Start))
	}
	if _, err := c.Assign(3, 60); !errors.Is(err, segment.ErrOutOfRange) {
		t.Errorf("epoch that goes back: %v", err)
	}
	for _, test := range []struct {
		epoch, wantEpoch int32
		wantEnd          segment.Offset
	}{{-1, -1, -1}, {0, 0, 10}, {2, 2, 30}, {3, 2, 30}, {4, 4, 50}, {6, 4, 50}, {7, 7, 80}, {8, -1, -1}} {
		if epoch, end := c.EndOffset(test.epoch, 80); epoch != test.wantEpoch || end != test.wantEnd {
			t.Errorf("end of %d: %d, %d; want %d, %d", test.epoch, epoch, end, test.wantEpoch, test.wantEnd)
		}
	}
	for off, want := range map[segment.Offset]int32{9: -1, 10: 2, 29: 2, 30: 4, 1000: 7} {
		if got := c.EpochAt(off); got != want {
			t.Errorf("epoch at %d: %d, want %d", off, got, want)
		}
	}
	afterPowerCut := func(want ...segment.EpochEntry) {
		t.Helper()
		crashed := mem.Crash(vfs.CrashOptions{Live: true})
		if diff := cmp.Diff(want, must[*segment.EpochCache](t)(segment.LoadEpochCache(crashed, dir)).Entries()); diff != "" {
			t.Error(diff)
		}
	}
	afterPowerCut(segment.EpochEntry{Epoch: 2, Start: 10}, segment.EpochEntry{Epoch: 4, Start: 30}, segment.EpochEntry{Epoch: 7, Start: 50})
	check(t, c.TruncateFromStart(35))
	if diff := cmp.Diff([]segment.EpochEntry{{Epoch: 4, Start: 35}, {Epoch: 7, Start: 50}}, c.Entries()); diff != "" {
		t.Error(diff)
	}
	must[bool](t)(c.Assign(9, 50)) // the epoch before has no record left
	afterPowerCut(segment.EpochEntry{Epoch: 4, Start: 35}, segment.EpochEntry{Epoch: 9, Start: 50})
}

func TestEpochCacheRefusesDamage(t *testing.T) {
	mem := newDir(t)
	for _, bad := range []string{"0\n2\n4 10\n3 20\n", "0\n2\n4 10\n5 9\n", "0\n1\n4\n", "0\n1\n-4 1\n", "0\n1\n4 10"} {
		writeFile(t, mem, dir+"/leader-epoch-checkpoint", []byte(bad))
		if _, err := segment.LoadEpochCache(mem, dir); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	c := segment.ResetEpochCache(mem, dir)
	must[bool](t)(c.Assign(6, 7))
	if got := must[*segment.EpochCache](t)(segment.LoadEpochCache(mem, dir)).Entries(); len(got) != 1 || got[0].Epoch != 6 {
		t.Errorf("after reset: %v", got)
	}
}

func TestPartitionDirNames(t *testing.T) {
	for name, want := range map[string]segment.TopicPartition{"a-0": {Topic: "a"}, "a-b-12": {Topic: "a-b", Partition: 12}, "a--1": {Topic: "a-", Partition: 1}} {
		topic, partition, ok := segment.ParsePartitionDir(name)
		if !ok || topic != want.Topic || partition != want.Partition || segment.PartitionDir(topic, partition) != name {
			t.Errorf("%q: %q %d %v", name, topic, partition, ok)
		}
	}
	for _, name := range []string{"", "a", "-1", "a-", "a-x", "a-01", "a-+1", "a-3000000000", "a-1.b-delete", "lost+found"} {
		if topic, partition, ok := segment.ParsePartitionDir(name); ok {
			t.Errorf("%q taken for %q %d", name, topic, partition)
		}
	}
}

func TestListDir(t *testing.T) {
	mem := newDir(t)
	for _, name := range []string{"00000000000000000010.log", "00000000000000000000.log", "00000000000000000000.index", "00000000000000000000.timeindex",
		"00000000000000000010.lagoon-index", "00000000000000000005.index", "00000000000000000010.snapshot", "00000000000000000010.lagoon-batches",
		"00000000000000000007.lagoon-batches", "00000000000000000003.log.deleted", "x.tmp", "00000000000000000003.log.migrating",
		"leader-epoch-checkpoint", "partition.metadata", "notes.txt", "1.log", "-0000000000000000001.log"} {
		writeFile(t, mem, dir+"/"+name, []byte(name))
	}
	check(t, mem.MkdirAll(dir+"/quarantine"))
	check(t, mem.MkdirAll(dir+"/00000000000000000020.log"))
	want := segment.Listing{
		Segments:      []segment.SegmentFile{{Base: 0, SizeBytes: 24, HasIndex: true, HasTimeIndex: true}, {Base: 10, SizeBytes: 24}},
		Snapshots:     []segment.Offset{10},
		Leftovers:     []string{"00000000000000000003.log.deleted", "00000000000000000003.log.migrating", "x.tmp"},
		OrphanIndexes: []string{"00000000000000000005.index", "00000000000000000007.lagoon-batches"},
		Strangers:     []string{"-0000000000000000001.log", "00000000000000000020.log", "1.log", "notes.txt"},
	}
	if diff := cmp.Diff(want, must[segment.Listing](t)(segment.ListDir(mem, dir))); diff != "" {
		t.Error(diff)
	}
}

// sealedMany makes n sealed segments of one batch each.
func sealedMany(t *testing.T, fsys vfs.FS, n int, cache *segment.FileCache) []*segment.Reader {
	t.Helper()
	var readers []*segment.Reader
	for i := range n {
		w := must[*segment.Writer](t)(segment.Create(fsys, dir, segment.Offset(i), segment.Options{PreallocateBytes: -1}, newCache()))
		appendBatch(t, w, batchSpec{fill: byte(i)})
		meta := must[segment.Meta](t)(w.Seal())
		w.Reader().Retire(nil)
		readers = append(readers, must[*segment.Reader](t)(segment.OpenSealed(fsys, dir, segment.Sealed{Base: meta.Base, Next: meta.Next, SizeBytes: meta.SizeBytes}, cache)))
	}
	return readers
}

func TestFileCacheBoundsDescriptorsAndSparesPinnedOnes(t *testing.T) {
	cache := segment.NewFileCache(segment.FileCacheOptions{MaxOpenFiles: 4})
	readers := sealedMany(t, newDir(t), 20, cache)
	var pinned []vfs.File
	for i, r := range readers {
		if !r.Acquire() {
			t.Fatal("retired")
		}
		pinned = append(pinned, must[vfs.File](t)(r.File()))
		if i >= 6 {
			r.Release()
		}
	}
	for i, f := range pinned[:6] {
		if _, err := f.Size(); err != nil {
			t.Errorf("descriptor %d was closed while in use: %v", i, err)
		}
		readers[i].Release()
	}
	for _, r := range readers { // now everybody is idle: opening more brings it down to the bound
		r.Acquire()
		must[vfs.File](t)(r.File())
		r.Release()
	}
	if got := cache.Open(); got > 4 {
		t.Errorf("%d descriptors open", got)
	}
	if _, err := readers[3].File(); readers[3].Meta().SizeBytes == 0 || !errors.Is(err, segment.ErrClosed) {
		t.Errorf("file of a reader that is not acquired and not open: %v", err)
	}
	for _, r := range readers {
		r.Retire(nil)
	}
	if got := cache.Open(); got != 0 {
		t.Errorf("%d descriptors open after everybody retired", got)
	}
}

func TestRetireRunsTeardownOnceAfterTheLastUser(t *testing.T) {
	r := sealedMany(t, newDir(t), 1, newCache())[0]
	runs := 0
	r.Acquire()
	r.Acquire()
	f := must[vfs.File](t)(r.File())
	if !r.Retire(func() { runs++ }) || r.Retire(func() { runs += 100 }) {
		t.Error("Retire must succeed once")
	}
	if r.Acquire() {
		t.Error("acquired a retired reader")
	}
	r.Release()
	if _, err := f.Size(); runs != 0 || err != nil {
		t.Errorf("%d teardowns with a user left, %v", runs, err)
	}
	r.Release()
	if _, err := f.Size(); runs != 1 || err == nil {
		t.Errorf("%d teardowns, descriptor %v", runs, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Release without Acquire went through")
		}
	}()
	r.Release()
}

// TestReadersUnderEviction: many goroutines use few descriptors while segments are retired; nobody reads wrong bytes or
// from a closed descriptor, and every teardown runs once.
func TestReadersUnderEviction(t *testing.T) {
	cache := segment.NewFileCache(segment.FileCacheOptions{MaxOpenFiles: 3, MaxIndexBytes: 64})
	readers := sealedMany(t, newDir(t), 16, cache)
	teardowns := make([]int, len(readers))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				n := (i*7 + g*3) % len(readers)
				if err := useReader(readers[n], byte(n)); err != nil {
					t.Error(err)
					return
				}
				if g == 0 && i == 1500 {
					for n := range 8 {
						readers[n].Retire(func() { mu.Lock(); teardowns[n]++; mu.Unlock() })
					}
				}
			}
		})
	}
	wg.Wait()
	for n, runs := range teardowns {
		if want := map[bool]int{true: 1}[n < 8]; runs != want {
			t.Errorf("reader %d: %d teardowns, want %d", n, runs, want)
		}
	}
	if got := cache.Open(); got > 3 {
		t.Errorf("%d descriptors open", got)
	}
}

func useReader(r *segment.Reader, fill byte) error {
	if !r.Acquire() {
		return nil
	}
	defer r.Release()
	meta := r.Meta()
	ext, err := r.Find(meta.Base, 100, unbounded, -1)
	if err != nil {
		return err
	}
	if _, err := r.BatchBoundaryBefore(5); err != nil {
		return err
	}
	f, err := r.File()
	if err != nil {
		return err
	}
	b := make([]byte, ext.Len)
	if _, err := f.ReadAt(b, ext.Pos); err != nil {
		return err
	}
	if !bytes.Contains(b, bytes.Repeat([]byte{fill}, 10)) {
		return fmt.Errorf("segment %d: other bytes", meta.Base)
	}
	return nil
}

func TestOpenSealedOnlyAsksForTheSize(t *testing.T) {
	mem := newDir(t)
	sealedMany(t, mem, 1, newCache())
	var ops vfs.Kind
	traced := vfs.WithTrace(mem, func(op vfs.Op) { ops |= op.Kind })
	size := int64(len(readLog(t, mem, 0)))
	must[*segment.Reader](t)(segment.OpenSealed(traced, dir, segment.Sealed{Base: 0, Next: 1, SizeBytes: size}, newCache()))
	if ops != vfs.OpStat {
		t.Errorf("operations %v", ops)
	}
	if _, err := segment.OpenSealed(mem, dir, segment.Sealed{Base: 0, Next: 1, SizeBytes: size + 1}, newCache()); err == nil {
		t.Error("another size was accepted")
	}
	if _, err := segment.OpenSealed(mem, dir, segment.Sealed{Base: 5, Next: 4}, newCache()); !errors.Is(err, segment.ErrOutOfRange) {
		t.Errorf("offsets that go back: %v", err)
	}
}
