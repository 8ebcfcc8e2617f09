package partition_test

import (
	"bytes"
	"fmt"
	"testing"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// TestReadingAgainInsideWhatWasServed: a reader that comes back to an offset inside the extent that it was given last (a
// client that lost a part of the response, a second consumer on the connection) gets that offset, also when the bytes have left
// the page cache meanwhile. The end of the last extent is no place to begin then: it lies behind.
func TestReadingAgainInsideWhatWasServed(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	var want []byte
	for n := range 400 {
		b := batch(fmt.Sprint(n), 1, 4000, nil, 1)
		produce(t, l, b)
		want = append(want, b...)
	}
	ref := partition.ReaderRef{ClientID: "again"}
	var res partition.ReadResult
	for res.Chunk == nil { // the kernel may have taken pages that were just written
		w := partition.NewWatch()
		var err error
		if res, err = l.Read(partition.ReadRequest{Reader: ref, From: 0, MaxBytes: 200_000, MustServe: true, Watch: w}); err != nil {
			t.Fatalf("first read: %+v, %v", res, err)
		}
		if res.Chunk == nil {
			<-w.C()
		}
		w.Close()
	}
	served := segment.Offset(res.Chunk.Len() / int64(len(want)/400))
	res.Chunk.Release()
	if served < 10 {
		t.Fatalf("served %d records: the end of the extent is not behind what is asked for next", served)
	}
	for _, sv := range l.Segments() {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
	}
	const from = 5
	consume(t, l, ref, from, 200_000, since(t, want, from))
	closeStore(t, s)
}

// TestChunkEndsWithinAHeader: a batch that begins right before a line of the chunks' grid is read, also where the index is not in memory and
// nobody knows that it is there.
func TestChunkEndsWithinAHeader(t *testing.T) {
	fsys := osFS(t)
	s := open(t, nil, fsys)
	l := load(t, s, config(), 1)
	line := int(s.ChunkLine())
	first := batch("first", 1, line-200, nil, 1)
	first = batch("first", 1, line-200+line-30-len(first), nil, 1)
	if len(first) != line-30 {
		t.Fatalf("the first batch has %d bytes", len(first))
	}
	second := batch("second", 1, 3000, nil, 1)
	for _, b := range [][]byte{first, second, batch("third", 1, 100_000, nil, 1)} {
		produce(t, l, b)
	}
	if n := len(l.Segments()); n != 2 {
		t.Fatalf("%d segments", n)
	}
	closeStore(t, s)
	s = open(t, nil, fsys)
	l = load(t, s, config(), 1)
	got, err := l.ReadUnindexed(0, int64(len(first)))
	if err != nil || !bytes.HasPrefix(got, second) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	closeStore(t, s)
}
