package partition_test

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
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
