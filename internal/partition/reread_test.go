package partition_test

import (
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
