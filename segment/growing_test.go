package segment_test

import (
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// TestFindWhileTheSegmentGrows: a batch that is appended, and indexed, while a read is under way lies beyond what that
// read knows of the segment. Its index entry is no damage, and the read ends before it.
func TestFindWhileTheSegmentGrows(t *testing.T) {
	var w *segment.Writer
	armed := false
	fs := vfs.WithTrace(newDir(t), func(op vfs.Op) {
		if op.Kind == vfs.OpRead && armed { // between looking at the segment's end and looking into its index
			armed = false
			appendBatch(t, w, batchSpec{valueSize: 5000})
		}
	})
	w = must[*segment.Writer](t)(segment.Create(fs, dir, 0, segment.Options{IndexIntervalBytes: 1}, newCache()))
	for range 10 {
		appendBatch(t, w, batchSpec{valueSize: 5000})
	}
	r := w.Reader()
	if !r.Acquire() {
		t.Fatal("retired")
	}
	defer r.Release()
	before := r.Meta()
	armed = true
	ext, err := r.Find(0, 1<<20, segment.Bound{Offset: 1 << 40, Pos: -1}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if armed || r.Meta().Next != before.Next+1 {
		t.Fatal("nothing was appended during the read: this test tests nothing")
	}
	if ext.Pos != 0 || ext.Len != before.SizeBytes || ext.Next != before.Next {
		t.Errorf("extent %+v, want all %d bytes up to offset %d", ext, before.SizeBytes, before.Next)
	}
}
