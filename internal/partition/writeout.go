package partition

import (
	"sync"
	"time"

	"lagoon/segment"
)

// A sync on a busy rotating disk hurts those who append meanwhile. While the kernel waits for room in the device's queue it keeps
// the pages locked that it is about to submit, and the next append needs the last of them; and it keeps the file system's
// transaction open, for whose end a commit, and behind it every append of every file, has to wait. (Measured with the laboratory's
// disk R: appends blocked for 100 to 370 ms in __filemap_get_folio and wait_transaction_locked.) So what a sync has to write is
// written before it, but for the tail, by all files of a window, and only then do they sync: what is left is short.
const (
	writeOutTail  = 256 << 10   // left to the sync: the next append may need the last page, and its folio may reach back so far
	writeOutTurns = 3           // what came in meanwhile is written, too
	writeOutMost  = time.Second // for which the files of a window wait for each other
)

// writeOut writes w from byte from to its tail. It makes nothing durable. An error is that of a failed sync.
func (l *Log) writeOut(w *segment.Writer, from int64) error {
	for range writeOutTurns {
		end := w.Size()/writeOutTail*writeOutTail - writeOutTail
		if end-from < writeOutTail {
			break
		}
		if err := l.store.opt.Cache.WriteOut(w.File(), from, end-from); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// barrier has those who write out wait for each other.
type barrier struct {
	mu      sync.Mutex
	writing int
	over    chan struct{} // closed when nobody writes any more; nil when nobody waits
}

func (b *barrier) enter() {
	b.mu.Lock()
	b.writing++
	b.mu.Unlock()
}

// leave waits until everybody who entered has left, for a bounded time.
func (b *barrier) leave() {
	b.mu.Lock()
	if b.writing--; b.writing == 0 {
		if b.over != nil {
			close(b.over)
			b.over = nil
		}
		b.mu.Unlock()
		return
	}
	if b.over == nil {
		b.over = make(chan struct{})
	}
	over := b.over
	b.mu.Unlock()
	late := time.NewTimer(writeOutMost)
	defer late.Stop()
	select {
	case <-over:
	case <-late.C:
	}
}
