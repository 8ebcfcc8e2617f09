package compaction

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"lagoon/internal/records"
	"lagoon/segment"
)

// Aborted is one aborted transaction, as the log's index of them has it.
type Aborted struct {
	ProducerID  int64
	First, Last segment.Offset // Last: of the marker
	LastStable  segment.Offset // the last stable offset when it was aborted
}

// Transactions tells the batches of aborted transactions from those of committed ones while a log is walked through in order, and the
// markers of transactions of which no batch is left.
type Transactions struct {
	aborted   []Aborted // by first offset, not yet come to
	ongoing   map[int64]*ongoing
	committed map[int64]bool
	kept      []Aborted
}

// ongoing is an aborted transaction whose marker is to come.
type ongoing struct {
	txn  Aborted
	seen bool // a batch of it is still in the log
}

// NewTransactions makes one that knows of no aborted transaction.
func NewTransactions() *Transactions {
	return &Transactions{ongoing: map[int64]*ongoing{}, committed: map[int64]bool{}}
}

// Expect adds aborted transactions of what comes next, those that reach into it included. Those known already count once.
func (t *Transactions) Expect(list []Aborted) {
	for _, a := range list {
		known := slices.ContainsFunc(t.aborted, func(b Aborted) bool { return b.ProducerID == a.ProducerID && b.First == a.First })
		if o := t.ongoing[a.ProducerID]; !known && (o == nil || o.txn.First != a.First) {
			t.aborted = append(t.aborted, a)
		}
	}
	slices.SortFunc(t.aborted, func(a, b Aborted) int { return cmp.Compare(a.First, b.First) })
}

// begun moves the transactions that begin at or before off to the ongoing ones.
func (t *Transactions) begun(off segment.Offset) {
	n := 0
	for ; n < len(t.aborted) && t.aborted[n].First <= off; n++ {
		a := t.aborted[n]
		if t.ongoing[a.ProducerID] == nil {
			t.ongoing[a.ProducerID] = &ongoing{txn: a}
		}
	}
	t.aborted = t.aborted[n:]
}

// Data takes in a batch of records; aborted: none of them counts.
func (t *Transactions) Data(h segment.BatchHeader) (aborted bool) {
	t.begun(h.LastOffset())
	if !h.IsTransactional() {
		return false
	}
	if o := t.ongoing[h.ProducerID]; o != nil {
		o.seen = true
		return true
	}
	t.committed[h.ProducerID] = true
	return false
}

// Marker takes in a batch of control records; done: no batch of its transaction was met, so that it may go when its term is over.
// Errors: those of reading the record.
func (t *Transactions) Marker(h segment.BatchHeader, batch []byte) (done bool, err error) {
	t.begun(h.LastOffset())
	if h.Count == 0 {
		return true, nil
	}
	kind := int16(-1)
	err = records.Each(h, batch, func(r records.Record) bool {
		if len(r.Key) >= 4 { // version, type
			kind = int16(binary.BigEndian.Uint16(r.Key[2:]))
		}
		return false
	})
	if err != nil {
		return false, err
	}
	const abort, commit = 0, 1 // ControlRecordType
	switch kind {
	case abort:
		o := t.ongoing[h.ProducerID]
		delete(t.ongoing, h.ProducerID)
		if o != nil && o.seen {
			t.kept = append(t.kept, o.txn)
			return false, nil
		}
		return true, nil
	case commit:
		met := t.committed[h.ProducerID]
		delete(t.committed, h.ProducerID)
		return !met, nil
	}
	return false, fmt.Errorf("%w: control record of type %d in batch %d", records.ErrMalformed, kind, h.BaseOffset)
}

// Kept gives the aborted transactions whose markers were met, and of which batches had been in the log before, since the last call: their
// entries in the index stay.
func (t *Transactions) Kept() []Aborted {
	k := t.kept
	t.kept = nil
	return k
}
