package partition_test

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// writeOuts is a kernel that notes what is written out before a sync.
type writeOuts struct {
	cachectl.Kernel
	mu   sync.Mutex
	seen []span
}

// span is [from, to) of a segment file.
type span struct{ from, to int64 }

func (k *writeOuts) WriteOut(f vfs.File, off, n int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if filepath.Ext(f.Name()) == ".log" {
		k.seen = append(k.seen, span{off, off + n})
	}
	return nil
}

func (k *writeOuts) take() []span {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() { k.seen = nil }()
	return k.seen
}

// TestWriteOut: on a rotating disk all of a file with little to sync is written before its sync, and of a file that grows fast all but its tail,
// which the next append is about to need.
func TestWriteOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		kernel := &writeOuts{Kernel: cachectl.LinuxKernel()}
		w.cache = cachectl.New(kernel, cachectl.Options{})
		w.change = func(opt *partition.Options) {
			opt.SyncGate, opt.Dirs[0].Rotating, opt.Dirs[1].Rotating = true, true, true
		}
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 1, config())
		noErr(t, err)
		c := topic.parts[0].client("a", 5)
		size := int64(0)
		add := func(bytes int) {
			t.Helper()
			noErr(t, w.send(c, 1, bytes))
			noErr(t, w.ack(c))
			l, err := w.log(topic.parts[0])
			noErr(t, err)
			size = l.SizeBytes()
		}
		pages := func(n int64) int64 { return (n + cachectl.PageSize - 1) / cachectl.PageSize * cachectl.PageSize }

		add(1000)
		if got := kernel.take(); !slices.Equal(got, []span{{0, pages(size)}}) {
			t.Errorf("the first batch, of %d bytes: %v", size, got)
		}
		before := size
		add(10_000)
		if got := kernel.take(); !slices.Equal(got, []span{{before / cachectl.PageSize * cachectl.PageSize, pages(size)}}) {
			t.Errorf("from %d to %d: %v", before, size, got)
		}
		before = size
		add(900_000)
		if got := kernel.take(); len(got) != 1 || got[0].from > before || got[0].to < 512<<10 || got[0].to > size-256<<10 {
			t.Errorf("much, from %d to %d: %v", before, size, got)
		}
	})
}

// TestQuietFilesSyncLast: on a rotating disk a file with little to sync waits for those that grow fast, for a bounded time.
func TestQuietFilesSyncLast(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject = board.of
		w.change = func(opt *partition.Options) {
			opt.SyncGate, opt.Dirs[0].Rotating, opt.Dirs[1].Rotating = true, true, true
		}
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 4, config())
		noErr(t, err)
		var here []*partTruth // partitions of one directory
		for _, p := range topic.parts {
			if _, err := w.disks[0].Stat(p.name()); err == nil {
				here = append(here, p)
			}
		}
		if len(here) < 2 {
			t.Fatalf("%d of four partitions in one of two directories", len(here))
		}
		release := make(chan struct{})
		var quiet atomic.Int64
		board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
			switch {
			case op.Kind != vfs.OpSync || filepath.Ext(op.Name) != ".log":
			case strings.HasPrefix(op.Name, here[0].name()):
				<-release
			default:
				quiet.Add(1)
			}
			return nil
		}))
		fast, slow := here[0].client("a", 5), here[1].client("b", 6)
		noErr(t, w.send(fast, 1, 900_000))
		synctest.Wait()
		noErr(t, w.send(slow, 1, 1000))
		synctest.Wait()
		if quiet.Load() != 0 {
			t.Error("the quiet file is synced while the other one is")
		}
		time.Sleep(1100 * time.Millisecond)
		if quiet.Load() != 1 {
			t.Errorf("%d syncs of the quiet file beside one that hangs", quiet.Load())
		}
		noErr(t, w.ack(slow))
		close(release)
		noErr(t, w.ack(fast))
	})
}
