package partition_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// While the kernel has no memory for a buffer the device's turn waits for it, and takes no core.
func TestNoMemoryIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := vfs.NewMem(1)
		sim := cachetest.New(cachetest.Options{})
		s := open(t, func(o *partition.Options) { o.Cache = cachectl.New(sim, cachectl.Options{}) }, sim.FS(base))
		l := load(t, s, config(), 1)
		for range 10 {
			produce(t, l, batch("b", 1, 100<<10, nil, 1))
		}
		closeStore(t, s)

		pool, err := cachectl.NewPool(16<<20, 1<<20)
		noErr(t, err)
		pool.Close() // it gives an error at once, as it does when the kernel has no memory
		var looks atomic.Int64
		spins := make(chan struct{})
		sim = cachetest.New(cachetest.Options{})
		s = open(t, func(o *partition.Options) {
			o.Cache, o.Pool = cachectl.New(sim, cachectl.Options{}), pool
			o.Now = func() time.Time {
				if looks.Add(1) == 100_000 {
					close(spins)
				}
				return time.Now()
			}
		}, sim.FS(base))
		l = load(t, s, config(), 1)
		for _, sv := range l.Segments() {
			_, err := l.Evict(sv, 0, sv.SizeBytes)
			noErr(t, err)
		}
		w := partition.NewWatch()
		defer w.Close()
		for range 3 { // the first may have to open the file
			if _, next := step(t, l, partition.ReaderRef{ClientID: "r"}, 0, w); next > 0 {
				t.Fatal("the log is not cold")
			}
			select {
			case <-w.C():
			case <-spins:
				t.Error("whoever waits for memory asks again and again")
			case <-time.After(time.Second):
			}
		}
		closeStore(t, s)
	})
}
