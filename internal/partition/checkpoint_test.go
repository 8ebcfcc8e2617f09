package partition_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/vfs"
)

// Each active segment has its index saved as it grows, and not only the first one of a log: else an unclean start walks over all of it.
func TestIndexOfEachActiveSegmentIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		s := open(t, nil, mem)
		defer closeStore(t, s)
		cfg := config()
		cfg.SegmentBytes = 40 << 20
		l := load(t, s, cfg, 1)
		for range 2 {
			b := batch("b", 1, 1<<20-200, nil, 1)
			for first := len(l.Segments()); len(l.Segments()) == first || l.Segments()[first].SizeBytes < 34<<20; {
				produce(t, l, append([]byte(nil), b...))
			}
			time.Sleep(10 * time.Second) // checkpoints
			active := l.Segments()[len(l.Segments())-1]
			if _, err := mem.Stat(fmt.Sprintf("orders-0/%020d.lagoon-index", active.Base)); err != nil {
				t.Errorf("segment %d, of %d bytes: %v", active.Base, active.SizeBytes, err)
			}
		}
	})
}
