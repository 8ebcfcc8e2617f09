package partition_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// onceAt calls fn once, before the first call of this kind to a file whose name has the suffix that comes after it was armed.
type onceAt struct {
	kind   vfs.Kind
	suffix string
	mu     sync.Mutex
	fn     func()
}

func (o *onceAt) arm(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fn = fn
}

func (o *onceAt) Fault(op vfs.Op) error {
	o.mu.Lock()
	fn := o.fn
	if fn == nil || op.Kind != o.kind || !strings.HasSuffix(op.Name, o.suffix) {
		o.mu.Unlock()
		return nil
	}
	o.fn = nil
	o.mu.Unlock()
	fn()
	return nil
}

// keyedBatch is one record, of pid's transaction or of none (0).
func keyedBatch(pid int64, seq int32, key string, size int) []byte {
	var b records.Builder
	b.Add([]byte(key), []byte(strings.Repeat("v", size)))
	batch := b.Batch(1)
	if pid > 0 {
		byProducer(batch, producer{id: pid, seq: seq})
	}
	return withCRC(batch)
}

// byProducer puts a producer into a batch; its checksum is wrong then.
func byProducer(b []byte, p producer) {
	binary.BigEndian.PutUint64(b[43:], uint64(p.id))
	binary.BigEndian.PutUint16(b[51:], uint16(p.epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(p.seq))
}

// twoTransactions writes a log of several segments: records without transaction, a committed transaction, and one of the same producer that is
// aborted some segments later. It gives the offsets of the committed one, of the first of the aborted one, and of its marker.
func twoTransactions(t *testing.T, l *partition.Log) (kept, aborted, marker segment.Offset) {
	t.Helper()
	plain := func(prefix string, n int) {
		for i := range n {
			produce(t, l, keyedBatch(0, 0, prefix+string(rune('a'+i)), 400))
		}
	}
	plain("first-", 7)
	kept = write(t, l, keyedBatch(7, 0, "kept", 400), 7).Base
	end(t, l, 7, true)
	plain("second-", 7)
	aborted = write(t, l, keyedBatch(7, 1, "aborted", 400), 7).Base
	plain("third-", 14)
	marker = end(t, l, 7, false).Base
	plain("fourth-", 14)
	return kept, aborted, marker
}

// TestCompactWhileSegmentsAreDeleted: segments that go while they are rewritten make that begin once more, and then the records of a
// committed transaction are not taken for those of a later one of its producer, which was aborted.
func TestCompactWhileSegmentsAreDeleted(t *testing.T) {
	hook := &onceAt{kind: vfs.OpWrite, suffix: segment.LogName(0)[20:] + segment.CleanedSuffix}
	s := open(t, quietCompaction, vfs.WithFaults(osFS(t), hook))
	cfg := compacted()
	l := load(t, s, cfg, 1)
	kept, aborted, marker := twoTransactions(t, l)
	segs := l.Segments()
	first := segs[1].Base
	if first > kept || segs[2].Base > aborted || segs[3].Base <= aborted || segs[4].Base > marker {
		t.Fatalf("segments %+v, a committed record at %d, an aborted one at %d with its marker at %d", segs, kept, aborted, marker)
	}
	cfg.SegmentBytes = 10_000 // three segments become one, and a transaction is open at its end
	s.SetConfig("orders", cfg)
	deleted := false
	hook.arm(func() {
		if _, err := l.DeleteRecords(context.Background(), first); err != nil {
			t.Error(err)
		}
		deleted = true
	})
	s.Compact(context.Background())
	if cleaned, err := cleanedTo(s); err != nil || cleaned <= marker || !deleted {
		t.Fatalf("cleaned up to %d of %d (%t), %v", cleaned, marker, deleted, err)
	}
	there := map[segment.Offset]bool{}
	if err := readThrough(l, func(h segment.BatchHeader, _ []byte) { there[h.BaseOffset] = h.Count > 0 }); err != nil {
		t.Fatal(err)
	}
	if !there[kept] || there[aborted] {
		t.Errorf("committed record there: %t, aborted one: %t", there[kept], there[aborted])
	}
	closeStore(t, s)
}

// TestCompactWhileSegmentsMove: that the segment with an abort marker moves to another tier while older ones are compacted is no failure.
func TestCompactWhileSegmentsMove(t *testing.T) {
	hook := &onceAt{kind: vfs.OpOpen, suffix: segment.LogName(0)}
	s := open(t, func(o *partition.Options) {
		o.CompactionInterval, o.PlanInterval, o.MaxOpenFiles = -1, 20*time.Millisecond, 1
	}, vfs.WithFaults(osFS(t), hook), osFS(t))
	cfg := compacted()
	l := load(t, s, cfg, 1)
	_, aborted, marker := twoTransactions(t, l)
	moved := false
	hook.arm(func() {
		local := cfg
		local.LocalRetentionBytes = 1
		s.SetConfig("orders", local)
		waitFor(t, "the marker's segment to move", func() bool { return l.Offsets().LocalStart > marker })
		moved = true
	})
	s.Compact(context.Background())
	if cleaned, err := cleanedTo(s); err != nil || cleaned <= marker || !moved {
		t.Fatalf("cleaned up to %d of %d (%t), %v", cleaned, marker, moved, err)
	}
	if err := readThrough(l, func(h segment.BatchHeader, _ []byte) {
		if h.BaseOffset == aborted && h.Count > 0 {
			t.Error("the aborted record is left")
		}
	}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

// TestAbortedRecordsReadBeforeTheyWereCompacted: a reader of committed records that goes on with bytes which it had brought in before compaction took
// the records of an aborted transaction, and then what told of it, does not take them for committed ones.
func TestAbortedRecordsReadBeforeTheyWereCompacted(t *testing.T) {
	s := open(t, quietCompaction, osFS(t))
	l := load(t, s, compacted(), 1)
	plain := func(n int) {
		for i := range n {
			produce(t, l, keyedBatch(0, 0, fmt.Sprint("key-", i), 400))
		}
	}
	plain(7)
	first := write(t, l, keyedBatch(7, 0, "aborted", 400), 7).Base
	second := write(t, l, keyedBatch(7, 1, "aborted", 400), 7).Base
	plain(14)
	end(t, l, 7, false)
	write(t, l, keyedBatch(7, 2, "committed", 400), 7) // its last batch stays for its sequence
	marker := end(t, l, 7, true).Base
	plain(14)
	for _, sv := range l.Segments() {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
	}
	read := func(from segment.Offset) (offsets []segment.Offset, aborted []partition.AbortedTxn, inMemory bool) {
		t.Helper()
		for {
			w := partition.NewWatch()
			res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "c"}, From: from, MaxBytes: 1, MustServe: true, Committed: true, Watch: w})
			if err != nil {
				t.Fatal(err)
			}
			if res.Chunk == nil {
				<-w.C()
				w.Close()
				continue
			}
			w.Close()
			p := make([]byte, res.Chunk.Len())
			_, err = res.Chunk.ReadAt(p, 0)
			noErr(t, err)
			_, _, isFile := res.Chunk.File()
			res.Chunk.Release()
			for len(p) > 0 {
				h, err := segment.DecodeHeader(p)
				noErr(t, err)
				if h.Count > 0 && h.ProducerID == 7 && !h.IsControl() {
					offsets = append(offsets, h.BaseOffset)
				}
				p = p[h.SizeBytes():]
			}
			return offsets, res.Aborted, !isFile
		}
	}
	if offsets, aborted, inMemory := read(first); len(offsets) != 1 || len(aborted) != 1 || !inMemory {
		t.Fatalf("at first: records %v, aborted %v, around the page cache %t", offsets, aborted, inMemory)
	}
	for range 2 { // the first takes the records, the second what tells of the transaction
		s.Compact(context.Background())
		if cleaned, err := cleanedTo(s); err != nil || cleaned <= marker {
			t.Fatalf("cleaned up to %d of %d, %v", cleaned, marker, err)
		}
		plain(14)
	}
	if offsets, aborted, _ := read(second); len(offsets) != 0 && len(aborted) == 0 {
		t.Errorf("the records at %v are of an aborted transaction, and nothing tells", offsets)
	}
	closeStore(t, s)
}

// heldReads counts the reads of a segment's log below a byte, and holds those from it on until they are let go.
type heldReads struct {
	name  string
	line  atomic.Int64 // 0: not armed
	below atomic.Int64
	began chan struct{}
	gate  chan struct{}
}

func (h *heldReads) Fault(op vfs.Op) error {
	line := h.line.Load()
	if line == 0 || op.Kind != vfs.OpRead || op.Name != h.name {
		return nil
	}
	if op.Off < line {
		h.below.Add(1)
		return nil
	}
	select {
	case h.began <- struct{}{}:
	default:
	}
	<-h.gate
	return nil
}

// TestReadFromAGapBetweenChunks: a reader that begins at an offset which compaction has taken, the last before a chunk's end, waits for the chunk behind that: it
// began anew with each one that came, and read the same bytes for ever.
func TestReadFromAGapBetweenChunks(t *testing.T) {
	hold := &heldReads{name: "orders-0/" + segment.LogName(0), began: make(chan struct{}, 1), gate: make(chan struct{})}
	s := open(t, quietCompaction, vfs.WithFaults(osFS(t), hold))
	cfg := compacted()
	cfg.SegmentBytes, cfg.ReaderClass = 1500<<10, "lagging"
	l := load(t, s, cfg, 1)
	for i := 0; len(l.Segments()) < 3; i++ { // two of three records are soon replaced
		for _, b := range [][]byte{keyedBatch(0, 0, fmt.Sprint("key-", i), 6000), keyedBatch(0, 0, "again", 10), keyedBatch(0, 0, "again", 10)} {
			if _, err := l.Append(t.Context(), partition.AppendRequest{Records: b}); err != nil {
				t.Fatal(err)
			}
		}
	}
	noErr(t, l.Durable(t.Context(), l.Offsets().End))
	waitFor(t, "the segments to be sealed", func() bool {
		s.Compact(t.Context())
		cleaned, err := cleanedTo(s)
		return err == nil && cleaned == l.Segments()[len(l.Segments())-1].Base
	})
	var before, at segment.Offset // of the last batch of the first chunk, and of the first one of the second
	pos, line := int64(0), int64(0)
	noErr(t, readThrough(l, func(h segment.BatchHeader, _ []byte) {
		if pos <= s.ChunkLine() {
			before, at, line = at, h.BaseOffset, pos
		}
		pos += h.SizeBytes()
	}))
	if at-before != 3 || line < s.ChunkLine()/2 {
		t.Fatalf("batches at %d and %d, byte %d", before, at, line)
	}
	for _, sv := range l.Segments() {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
	}
	w := partition.NewWatch()
	defer w.Close()
	read := func() *partition.Chunk {
		t.Helper()
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "c"}, From: at - 1, MaxBytes: 1, MustServe: true, Watch: w})
		noErr(t, err)
		return res.Chunk
	}
	hold.line.Store(line &^ 4095)
	for hold.below.Load() == 0 {
		if read() != nil {
			t.Fatal("it was in the page cache")
		}
		<-w.C()
	}
	<-hold.began
	if read() != nil {
		t.Fatal("the second chunk has not come yet")
	}
	close(hold.gate)
	chunk := read()
	for ; chunk == nil; chunk = read() {
		<-w.C()
	}
	if n := hold.below.Load(); n != 1 || chunk.Next() != at+1 {
		t.Errorf("%d reads of the first chunk, then up to %d from %d on", n, chunk.Next(), at-1)
	}
	chunk.Release()
	closeStore(t, s)
}
