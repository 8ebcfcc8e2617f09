package partition_test

import (
	"testing"

	"lagoon/cachectl"
	"lagoon/internal/partition"
)

// A read that was under way while its topic was deleted keeps no memory, which nobody would take back.
func TestNoReadAheadAfterDeletion(t *testing.T) {
	pool, err := cachectl.NewPool(16<<20, 1<<20)
	noErr(t, err)
	defer pool.Close()
	s := open(t, func(o *partition.Options) { o.Pool = pool }, osFS(t))
	l, _ := coldLog(t, s, 12<<20, 16)
	l.TakeReadAhead()
	w := partition.NewWatch()
	defer w.Close()
	for again := true; again; {
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "r"}, MaxBytes: 1 << 20, MustServe: true, Watch: w})
		noErr(t, err)
		if again = res.Pending; again {
			<-w.C()
		}
		if res.Chunk != nil {
			res.Chunk.Release()
		}
	}
	if n := pool.Stats().InUseBytes; n > 0 {
		t.Errorf("%d bytes are held", n)
	}
	closeStore(t, s)
}
