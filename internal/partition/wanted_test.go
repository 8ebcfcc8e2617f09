package partition_test

import (
	"context"
	"runtime"
	"testing"

	"lagoon/cachectl"
	"lagoon/internal/partition"
)

// A chunk tells when cold reads wait for memory such as it holds: whoever sends it to a client that does not read gives it up then.
func TestChunkIsWanted(t *testing.T) {
	pool, err := cachectl.NewPool(2<<20, 1<<20)
	noErr(t, err)
	defer pool.Close()
	s := open(t, func(o *partition.Options) { o.Pool = pool }, osFS(t))
	l, _ := coldLog(t, s, 12<<20, 16)
	first := hold(t, l)
	held, ok := pool.TryGet()
	for ; !ok; held, ok = pool.TryGet() {
		s.Disconnected(0) // what is read ahead
	}
	if first.Wanted() {
		t.Error("nobody waits")
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan error)
	go func() {
		_, err := pool.Get(ctx)
		waits <- err
	}()
	for pool.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	if !first.Wanted() {
		t.Error("somebody waits, and the chunk does not tell")
	}
	cancel()
	<-waits
	held.Release()
	first.Release()
	closeStore(t, s)
}
