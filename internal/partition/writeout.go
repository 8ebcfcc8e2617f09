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

// Then they sync, those that grow fast first. A commit of the file system writes the blocks of inodes to its journal, and an append to any file in one of them waits for
// that (do_get_write_access). It is soon over where the drive takes it into its cache; but a file with little to sync, such as those of
// __consumer_offsets, would have the drive flush that cache meanwhile, with all in it that was just written out. (Disk R, 19 groups that commit every 5 s
// beside 12 busy partitions: appends blocked for 100 to 230 ms at each commit.) So these are written whole, and sync when the others have.

// quiet tells whether little of w is not synced yet.
func (l *Log) quiet(w *segment.Writer) bool {
	filed := l.filed.Load()
	return filed.base == w.Base() && w.Size()-filed.pos < writeOutTail
}

// writeOut writes w from byte from on, all that is not synced of a quiet one, else but for the tail. It makes nothing durable. An error is that of a failed sync.
func (l *Log) writeOut(w *segment.Writer, from int64, quiet bool) error {
	if quiet {
		from = l.filed.Load().pos
		return l.store.opt.Cache.WriteOut(w.File(), from, w.Size()-from)
	}
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

// barrier has some wait until others are through.
type barrier struct {
	mu     sync.Mutex
	inside int
	over   chan struct{} // closed when nobody is inside any more; nil when nobody waits
}

func (b *barrier) enter() {
	b.mu.Lock()
	b.inside++
	b.mu.Unlock()
}

func (b *barrier) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inside--; b.inside == 0 && b.over != nil {
		close(b.over)
		b.over = nil
	}
}

// wait returns when nobody is inside, after a bounded time in any case.
func (b *barrier) wait() {
	b.mu.Lock()
	if b.inside == 0 {
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
