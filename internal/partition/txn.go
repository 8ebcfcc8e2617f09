package partition

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"lagoon/segment"
)

// endedTxn is a transaction whose marker is written and not yet acknowledged: until then a crash could reopen it.
type endedTxn struct{ first, marker segment.Offset }

// noTxn is Log.unstable without a transaction.
const noTxn = math.MaxInt64

// settleLocked forgets the ended transactions whose markers are acknowledged and publishes how far the log is decided; l.mu is held. A delay
// does not count: the records of a transaction that is decided are seen as each is due, and its marker may be due long after.
func (l *Log) settleLocked() {
	acknowledged := l.acknowledged().offset
	n := 0
	for n < len(l.ended) && l.ended[n].marker < acknowledged {
		n++
	}
	l.ended = slices.Delete(l.ended, 0, n)
	first, ok := l.producers.FirstOpenTxn()
	if !ok {
		first = noTxn
	}
	for _, e := range l.ended {
		first = min(first, e.first)
	}
	l.unstable.Store(int64(first))
}

// settle brings the last stable offset up to date after the acknowledged bound has moved.
func (l *Log) settle() {
	if l.unstable.Load() == noTxn {
		return
	}
	l.mu.Lock()
	l.settleLocked()
	l.mu.Unlock()
}

// stable is the first offset that read_committed readers do not see when consumers see up to readable. readable must have been
// loaded before: a transaction is known of before its records become readable.
func (l *Log) stable(readable segment.Offset) segment.Offset {
	return min(readable, segment.Offset(l.unstable.Load()))
}

// noteTxnLocked keeps track of transactions after the batch with header h was appended; ended is what its marker ended. l.mu is held.
func (l *Log) noteTxnLocked(h segment.BatchHeader, m segment.Marker, ended segment.AbortedTxn, ok bool) {
	delete(l.guards, h.ProducerID)
	if ok {
		l.ended = append(l.ended, endedTxn{ended.First, ended.Last})
		if !m.Commit {
			l.w.NoteAborted(ended)
			l.aborts.Store(true)
		}
	}
	l.settleLocked()
}

// TxnGuard stands for the right to open a producer's transaction in a partition; a marker takes it away.
type TxnGuard uint64

// heldGuard is a guard and how many writes of the producer have it: a client may send again what an earlier connection still waits for.
type heldGuard struct {
	TxnGuard
	holders int
}

// GuardTxn is the first step of a transactional write: open tells that the producer's transaction is open here and the write may go
// on. Else ask the transaction coordinator whether the partition is part of the transaction, and append with the guard: so a write
// that was on its way when the transaction ended opens none that nobody would end. Give an unused guard back with DropGuard.
func (l *Log) GuardTxn(producerID int64, epoch int16) (guard TxnGuard, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.producers.TxnOpen(producerID, epoch) {
		return 0, !l.closed
	}
	g, ok := l.guards[producerID]
	if !ok {
		if l.guards == nil {
			l.guards = map[int64]heldGuard{}
		}
		l.nextGuard++
		g.TxnGuard = l.nextGuard
	}
	g.holders++
	l.guards[producerID] = g
	return g.TxnGuard, false
}

// DropGuard gives a guard back that no append has used, once for each time that GuardTxn gave it.
func (l *Log) DropGuard(producerID int64, guard TxnGuard) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.guards[producerID]
	if !ok || g.TxnGuard != guard {
		return
	}
	if g.holders--; g.holders > 0 {
		l.guards[producerID] = g
		return
	}
	delete(l.guards, producerID)
}

// maxPrepares bounds how often one read waits for lists of aborted transactions: a file cache that is too small for them slows a
// reader down and does not stop it.
const maxPrepares = 8

// abortedAtHand tells whether the aborted transactions that may overlap a read of segment i are known without a device. When not,
// that is begun and w will be notified.
func (l *Log) abortedAtHand(v *view, i int, limit segment.Offset, w *Watch) bool {
	if !l.aborts.Load() {
		return true
	}
	for j := max(i, 0); j < len(v.segs) && v.segs[j].base < limit; j++ {
		s := v.segs[j]
		if !s.r.MayHaveAborted() {
			continue
		}
		if !s.r.AbortedReady() {
			return !s.loadAborted(w)
		}
		if list, err := s.r.Aborted(); err == nil && settledBy(list, v.next(i)) {
			return true
		}
	}
	return true
}

// loadAborted begins to bring the segment's list into memory and will notify w, which may be nil. False: it was retired, or the store
// closes; the read will meet that.
func (s *logSegment) loadAborted(w *Watch) bool {
	if !s.r.Acquire() {
		return false
	}
	begun := s.dir.cold.aside(func() {
		_, _ = s.r.Aborted() // whoever reads next gets the same error
		s.r.Release()
		if w != nil {
			w.Notify()
		}
	})
	if !begun {
		s.r.Release()
	}
	return begun
}

// settledBy: no transaction that was open when the last of list ended begins below upper, so that younger segments need not be asked.
func settledBy(list []segment.AbortedTxn, upper segment.Offset) bool {
	return len(list) > 0 && list[len(list)-1].LastStable >= upper
}

// abortedIn lists the aborted transactions that a reader needs to know for records in [from, upper). ErrOffsetOutOfRange when from was
// deleted meanwhile: what told of them may have gone, too.
func (l *Log) abortedIn(from, upper segment.Offset) ([]AbortedTxn, error) {
	if !l.aborts.Load() {
		return nil, nil
	}
	for {
		out, err := l.abortedInView(l.view.Load(), from, upper)
		if start := l.view.Load().start; err == nil && from < start {
			return nil, fmt.Errorf("%w: %d lies before %d, where %s starts now", ErrOffsetOutOfRange, from, start, l.dir)
		}
		if !errors.Is(err, errChanged) {
			return out, err
		}
	}
}

func (l *Log) abortedInView(v *view, from, upper segment.Offset) ([]AbortedTxn, error) {
	var out []AbortedTxn
	for i := max(0, v.find(from)); i < len(v.segs); i++ {
		list, err := l.abortedOf(v, i)
		if err != nil {
			return nil, err
		}
		// Markers below from have ended what does not concern the reader any more.
		n, _ := slices.BinarySearchFunc(list, from, func(t segment.AbortedTxn, o segment.Offset) int { return int(min(1, max(-1, t.Last-o))) })
		for _, t := range list[n:] {
			if t.First < upper {
				out = append(out, AbortedTxn{t.ProducerID, t.First})
			}
			if t.LastStable >= upper {
				return out, nil
			}
		}
	}
	return out, nil
}

// gone is for a segment of v that cannot be had any more: nil when it was deleted, and what it knew began before it; errChanged when it lies
// elsewhere now, or in another segment. A view is published before what it leaves out is retired.
func (l *Log) gone(v *view, s *logSegment) error {
	now := l.view.Load()
	switch {
	case s.base < now.segs[0].base:
		return nil
	case now != v:
		return errChanged
	case l.Err() != nil:
		return l.Err()
	}
	return ErrClosed
}

// abortedOf gives the aborted transactions of a segment; a damaged .txnindex is made anew from the log, which may read all of it.
func (l *Log) abortedOf(v *view, i int) ([]segment.AbortedTxn, error) {
	s := v.segs[i]
	if !s.r.Acquire() {
		return nil, l.gone(v, s)
	}
	defer s.r.Release()
	list, err := s.r.Aborted()
	if !isCorrupt(err) {
		return list, err
	}
	l.mending.Lock()
	defer l.mending.Unlock()
	if list, err = s.r.Aborted(); !isCorrupt(err) {
		return list, err
	}
	l.log.Warn("list of aborted transactions is damaged: it is made anew from the log", "segment", s.base, "err", err)
	if list, err = l.collectAborted(v, i); err != nil {
		return nil, err
	}
	return list, s.r.SetAborted(list)
}

// collectAborted reads the headers of the log up to the end of segment i.
func (l *Log) collectAborted(v *view, i int) (list []segment.AbortedTxn, err error) {
	nowMs := l.store.now().UnixMilli()
	ps := segment.NewProducerState(l.store.producerOptions())
	for _, s := range v.segs[:i+1] {
		if !s.r.Acquire() {
			if err := l.gone(v, s); err != nil {
				return nil, err
			}
			continue
		}
		list, err = segment.CollectAborted(s.r, ps, nowMs)
		s.r.Release()
		if err != nil && !errors.Is(err, segment.ErrInvalidRecord) {
			return nil, err
		}
	}
	return list, nil
}
