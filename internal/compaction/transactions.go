package compaction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"lagoon/segment"
)

// Transactions tells the batches of aborted transactions from those of committed ones while a log is walked through in order, and the
// markers of transactions of which no batch is left.
type Transactions struct {
	aborted   []segment.AbortedTxn // by first offset, not yet come to
	ongoing   map[int64]*ongoing
	committed map[int64]bool
	kept      []segment.AbortedTxn
}

// ongoing is an aborted transaction whose marker is to come.
type ongoing struct {
	txn  segment.AbortedTxn
	seen bool // a batch of it is still in the log
}

// NewTransactions makes one that knows of no aborted transaction.
func NewTransactions() *Transactions {
	return &Transactions{ongoing: map[int64]*ongoing{}, committed: map[int64]bool{}}
}

// Expect adds aborted transactions of what comes next, those that reach into it included. Those known already count once.
func (t *Transactions) Expect(list []segment.AbortedTxn) {
	before := t.aborted // sorted; no two transactions begin at one offset
	for _, a := range list {
		_, known := slices.BinarySearchFunc(before, a.First, func(b segment.AbortedTxn, first segment.Offset) int { return cmp.Compare(b.First, first) })
		if o := t.ongoing[a.ProducerID]; !known && (o == nil || o.txn.First != a.First) {
			t.aborted = append(t.aborted, a)
		}
	}
	slices.SortFunc(t.aborted, func(a, b segment.AbortedTxn) int { return cmp.Compare(a.First, b.First) })
}

// clone is t as it is now, of which nothing changes when t goes on.
func (t *Transactions) clone() *Transactions {
	c := &Transactions{aborted: slices.Clone(t.aborted), ongoing: make(map[int64]*ongoing, len(t.ongoing)), committed: maps.Clone(t.committed), kept: slices.Clone(t.kept)}
	for id, o := range t.ongoing {
		own := *o
		c.ongoing[id] = &own
	}
	return c
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
	m, err := segment.ParseMarker(batch)
	if err != nil {
		return false, fmt.Errorf("batch %d: %w", h.BaseOffset, err)
	}
	if m.Commit {
		met := t.committed[h.ProducerID]
		delete(t.committed, h.ProducerID)
		return !met, nil
	}
	o := t.ongoing[h.ProducerID]
	delete(t.ongoing, h.ProducerID)
	if o != nil && o.seen {
		t.kept = append(t.kept, o.txn)
		return false, nil
	}
	return true, nil
}

// Kept gives the aborted transactions whose markers were met, and of which batches had been in the log before, since the last call: their
// entries in the index stay.
func (t *Transactions) Kept() []segment.AbortedTxn {
	k := t.kept
	t.kept = nil
	return k
}
