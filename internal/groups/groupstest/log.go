package groupstest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"lagoon/internal/compaction"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// Log is a groups.Log. The zero value is empty; what is appended is durable at once, unless Hold is called.
type Log struct {
	mu      sync.Mutex
	batches [][]byte
	next    segment.Offset
	durable segment.Offset
	held    bool
	lazy    bool
	err     error
	changed chan struct{} // closed and replaced when something changes; nil: nobody waits
}

// Deaf is a Log on a device that takes nothing before Free is closed. Whoever waits for it is told on Hung before.
type Deaf struct {
	Log
	Hung, Free chan struct{}
}

// NewDeaf makes one that tells of eight at most before somebody looks.
func NewDeaf() *Deaf { return &Deaf{Hung: make(chan struct{}, 8), Free: make(chan struct{})} }

// Append is that of Log, once Free is closed.
func (l *Deaf) Append(ctx context.Context, r partition.AppendRequest) (partition.Appended, error) {
	l.Hung <- struct{}{}
	<-l.Free
	return l.Log.Append(ctx, r)
}

func (l *Log) notify() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Hold keeps what is appended from now on from becoming durable, until Sync.
func (l *Log) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

// Lazy makes this a log of a topic with a flush interval: Durable does not wait, Synced does.
func (l *Log) Lazy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lazy = true
}

// Sync makes everything durable that was appended so far.
func (l *Log) Sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = l.next
	l.notify()
}

// Release ends Hold and what it held.
func (l *Log) Release() {
	l.mu.Lock()
	l.held = false
	l.mu.Unlock()
	l.Sync()
}

// Fail makes every later append and wait end with err; nil ends that.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.notify()
}

// Crash gives what a start finds: the durable batches.
func (l *Log) Crash() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &Log{next: l.durable, durable: l.durable}
	for _, b := range l.batches {
		if h, err := segment.DecodeHeader(b); err == nil && h.NextOffset() <= l.durable {
			out.batches = append(out.batches, append([]byte(nil), b...))
		}
	}
	return out
}

// Size is the bytes from the log's start on.
func (l *Log) Size() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		n += int64(len(b))
	}
	return n
}

// Compacted gives the log as compaction leaves it, twice over, so that delete markers and markers of transactions whose records have
// gone are gone, too. The last batch stays, as those of an active segment do. It panics on batches that cannot be read.
func (l *Log) Compacted() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &Log{batches: l.batches, next: l.next, durable: l.durable}
	for now := range int64(2) {
		out.batches = clean(out.batches, 1+2*now)
	}
	return out
}

// clean is one pass at a time, after which delete markers stay for 1 ms.
func clean(batches [][]byte, nowMs int64) (kept [][]byte) {
	if len(batches) < 2 {
		return batches
	}
	last := len(batches) - 1
	m := compaction.Mapper{Map: compaction.NewOffsetMap(make([]byte, 1<<20)), Txns: compaction.NewTransactions()}
	f := compaction.Filter{Map: m.Map, Txns: compaction.NewTransactions(), NowMs: nowMs, DeleteRetentionMs: 1}
	aborted, open := abortedIn(batches)
	m.Txns.Expect(aborted)
	f.Txns.Expect(aborted)
	for _, b := range batches[:last] {
		if h := header(b); h.BaseOffset >= open {
			break
		} else if full, err := m.Add(h, b); err != nil || full {
			panic(fmt.Sprint("groupstest: the map is full, or ", err))
		}
	}
	for i, b := range batches {
		h := header(b)
		if i == last || h.BaseOffset >= open {
			return append(kept, batches[i:]...)
		}
		out, _, err := f.Next(h, b, 0)
		if err != nil {
			panic(err)
		}
		if out != nil {
			kept = append(kept, bytes.Clone(out))
		}
	}
	return kept
}

// abortedIn lists the aborted transactions, and gives the first offset of the oldest open one.
func abortedIn(batches [][]byte) (list []segment.AbortedTxn, open segment.Offset) {
	begun := map[int64]segment.Offset{}
	for _, b := range batches {
		h := header(b)
		if first, ok := begun[h.ProducerID]; h.IsTransactional() && !h.IsControl() && !ok {
			begun[h.ProducerID] = h.BaseOffset
		} else if h.IsControl() && h.Count > 0 {
			if m, err := segment.ParseMarker(b); err != nil {
				panic(err)
			} else if !m.Commit && ok {
				list = append(list, segment.AbortedTxn{ProducerID: h.ProducerID, First: first, Last: h.LastOffset(), LastStable: h.NextOffset()})
			}
			delete(begun, h.ProducerID)
		}
	}
	open = 1<<63 - 1
	for _, first := range begun {
		open = min(open, first)
	}
	return list, open
}

func header(b []byte) segment.BatchHeader {
	h, err := segment.DecodeHeader(b)
	if err != nil {
		panic(err)
	}
	return h
}

// Append implements groups.Log.
func (l *Log) Append(_ context.Context, r partition.AppendRequest) (partition.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return partition.Appended{}, l.err
	}
	b := append([]byte(nil), r.Records...)
	h, err := segment.ValidateBatch(b, segment.Limits{MaxBatchBytes: 8 << 20, AllowControl: r.Internal, TimestampBeforeMaxMs: 1<<63 - 1, TimestampAfterMaxMs: 1<<63 - 1})
	if err != nil {
		return partition.Appended{}, err
	}
	base := l.next
	segment.AssignOffsets(b, base, 0)
	l.batches = append(l.batches, b)
	l.next = base + segment.Offset(h.Count)
	if !l.held {
		l.durable = l.next
	}
	l.notify()
	return partition.Appended{Base: base, Next: l.next}, nil
}

// Durable implements groups.Log.
func (l *Log) Durable(ctx context.Context, next segment.Offset) error {
	l.mu.Lock()
	lazy, err := l.lazy, l.err
	l.mu.Unlock()
	if lazy {
		return err
	}
	return l.Synced(ctx, next)
}

// Synced implements groups.Log.
func (l *Log) Synced(ctx context.Context, next segment.Offset) error {
	for {
		l.mu.Lock()
		if l.err != nil || l.durable >= next {
			defer l.mu.Unlock()
			return l.err
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// GuardTxn implements groups.Log: every transaction may be opened.
func (l *Log) GuardTxn(int64, int16) (partition.TxnGuard, bool) { return 1, false }

// DropGuard implements groups.Log.
func (l *Log) DropGuard(int64, partition.TxnGuard) {}

// Offsets implements groups.Log.
func (l *Log) Offsets() partition.Offsets {
	l.mu.Lock()
	defer l.mu.Unlock()
	return partition.Offsets{HighWatermark: l.durable, LastStable: l.durable, End: l.next}
}

// Scan implements groups.Log.
func (l *Log) Scan(_ context.Context, from segment.Offset, fn func(h segment.BatchHeader, batch []byte) (bool, error)) (int, error) {
	l.mu.Lock()
	batches, durable, err := l.batches[:len(l.batches):len(l.batches)], l.durable, l.err
	l.mu.Unlock()
	if err != nil {
		return 0, err
	}
	damaged := 0
	for _, b := range batches {
		h, err := segment.DecodeHeader(b)
		switch {
		case err != nil:
			damaged++
			continue
		case h.BaseOffset >= durable:
			return damaged, nil
		case h.LastOffset() < from:
			continue
		}
		if more, err := fn(h, b); err != nil || !more {
			return damaged, err
		}
	}
	return damaged, nil
}
