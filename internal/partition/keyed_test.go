package partition_test

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/segment"
)

// What a world knows of a compacted topic. The truth is what was appended, as for any topic; what a reader must see of it follows from that:
// which transactions have ended and how, and which record of each key is the newest.

// keyedRecord is one record as it was appended.
type keyedRecord struct {
	offset     segment.Offset
	last       segment.Offset // of its batch
	key, value string
	gone       bool // a delete marker
	stampMs    int64
	pid        int64 // of the transaction that it is in, 0: none
	committed  bool
}

// history are the records of a partition.
type history struct {
	at    map[segment.Offset]*keyedRecord
	order []*keyedRecord
	ends  []segment.BatchHeader // the markers
	start segment.Offset        // of the log: what lies below may be there or not
	// stable is the end of what is decided. What lies below start of a transaction may be forgotten: then that is trimmed.
	stable, trimmed segment.Offset
}

// keyedSegments is smallSegments for a compacted topic.
func keyedSegments() partition.Config {
	cfg := smallSegments()
	cfg.Compact, cfg.Delete = true, false
	cfg.MaxCompactionLagMs, cfg.DeleteRetentionMs = 1<<63-1, 5000
	return cfg
}

// keyedBatch makes the next batch of c: few keys, all codecs whose memory may leave a synctest bubble.
func (c *client) keyedBatch(n, size int) ([]byte, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.name)) // a hash takes everything
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(c.n)))
	var b records.Builder
	for i := range n {
		key := fmt.Appendf(nil, "key-%d", rng.IntN(12))
		if rng.IntN(5) == 0 {
			b.Add(key, nil)
			continue
		}
		value := fmt.Appendf(nil, "%s/%d/%d", c.name, c.n, i)
		for len(value) < size {
			value = append(value, byte(rng.Uint32()))
		}
		b.Add(key, value)
	}
	plain := b.Batch(time.Now().UnixMilli())
	if c.idem != nil {
		byProducer(plain, *c.idem)
	}
	if c.txn {
		plain[22] |= 0x10
	}
	return packed(plain, segment.Compression(rng.IntN(4)))
}

// ended waits until the marker of c's last transaction is durable, if that is on its way: there is no next one before.
func (w *world) ended(c *client) error {
	if n := len(c.unacked); n > 0 && c.unacked[n-1].marker {
		return w.ack(c)
	}
	return nil
}

// endTxn is what the coordinator does when it has decided on c's transaction: it writes the marker, again after a crash.
func (w *world) endTxn(c *client, commit bool) error {
	if err := w.ended(c); err != nil {
		return err
	}
	m := segment.Marker{Commit: commit, CoordinatorEpoch: 1}
	c.unacked = append(c.unacked, request{fresh: segment.AppendMarker(nil, c.idem.id, c.idem.epoch, m, time.Now().UnixMilli()), marker: true})
	return w.append(c, len(c.unacked)-1)
}

// history tells what was appended, and what became of it.
func (p *partTruth) history(o partition.Offsets) (*history, error) {
	h := &history{at: map[segment.Offset]*keyedRecord{}, start: o.LogStart, stable: o.HighWatermark, trimmed: o.HighWatermark}
	open := map[int64][]*keyedRecord{}
	for _, base := range p.sortedBases() {
		b := p.sent[base]
		head, err := segment.DecodeHeader(b)
		if err != nil {
			return nil, err
		}
		if head.IsControl() {
			m, err := segment.ParseMarker(b)
			if err != nil {
				return nil, err
			}
			for _, r := range open[head.ProducerID] {
				r.committed = m.Commit
			}
			delete(open, head.ProducerID)
			h.ends = append(h.ends, head)
			continue
		}
		if err := records.Each(head, b, func(r records.Record) bool {
			k := &keyedRecord{offset: r.Offset, last: head.LastOffset(), key: string(r.Key), value: string(r.Value), gone: r.Value == nil, stampMs: r.TimestampMs, committed: true}
			if head.IsTransactional() {
				k.pid, k.committed = head.ProducerID, false
				open[head.ProducerID] = append(open[head.ProducerID], k)
			}
			h.at[k.offset], h.order = k, append(h.order, k)
			return true
		}); err != nil {
			return nil, err
		}
	}
	for _, list := range open {
		h.stable = min(h.stable, list[0].offset)
		if i := slices.IndexFunc(list, func(k *keyedRecord) bool { return k.last >= h.start }); i >= 0 {
			h.trimmed = min(h.trimmed, list[i].offset)
		}
	}
	return h, nil
}

// verifyKeys checks what both kinds of readers see of a compacted partition.
func (w *world) verifyKeys(p *partTruth) {
	l, err := w.log(p)
	if err != nil {
		w.problem("%v", err)
		return
	}
	o := l.Offsets()
	h, err := p.history(o)
	if err != nil {
		w.problem("%s: %v", p.name(), err)
		return
	}
	if at := max(o.LastStable, h.start); at != max(h.stable, h.start) && at != max(h.trimmed, h.start) {
		w.problem("%s: last stable offset %d, want %d or, without what was deleted, %d", p.name(), o.LastStable, h.stable, h.trimmed)
	}
	h.stable = o.LastStable
	all, _, err := w.read(p, o.LogStart, 3000)
	if err != nil {
		w.problem("%v", err)
		return
	}
	w.compare(p, all)
	w.verifyAllKeys(p, h, all)
	shown, end, err := w.readCommitted(p, o.LogStart, 3000)
	if err != nil {
		w.problem("%v", err)
		return
	}
	if end != h.stable {
		w.problem("%s: a reader of committed records comes to %d, want %d", p.name(), end, h.stable)
	}
	w.verifyView(p, h, shown)
}

// rewritten tells whether compaction can have made f of what was sent: the same offsets and sequences, or nothing where nothing was left.
func rewritten(sent []byte, f foundBatch) bool {
	if f.h.Count == 0 && !f.h.HasProducer() { // the end of a segment
		return true
	}
	h, err := segment.DecodeHeader(sent)
	if err != nil {
		return false
	}
	return f.h.NextOffset() == h.NextOffset() && f.h.ProducerID == h.ProducerID && f.h.ProducerEpoch == h.ProducerEpoch && f.h.BaseSequence == h.BaseSequence &&
		f.h.IsControl() == h.IsControl() && f.h.IsTransactional() == h.IsTransactional() && f.h.Count <= h.Count
}

// each gives the records of what was read, as they were appended.
func (w *world) each(p *partTruth, h *history, all []foundBatch, fn func(*keyedRecord)) {
	for _, f := range all {
		if f.h.IsControl() {
			continue
		}
		if err := records.Each(f.h, f.data, func(r records.Record) bool {
			k := h.at[r.Offset]
			if r.Offset < h.start {
				return true
			}
			if k == nil || k.key != string(r.Key) || k.value != string(r.Value) || k.gone != (r.Value == nil) || k.stampMs != r.TimestampMs {
				w.problem("%s: offset %d holds %s=%.30q of %d, sent was %+v", p.name(), r.Offset, r.Key, r.Value, r.TimestampMs, k)
			} else {
				fn(k)
			}
			return true
		}); err != nil {
			w.problem("%s: batch %d: %v", p.name(), f.h.BaseOffset, err)
		}
	}
}

// verifyAllKeys: below where the log is compacted each key is there once, and nothing of an aborted transaction or of a delete marker whose
// term has ended; above what is decided everything is there; and markers are there for their term.
func (w *world) verifyAllKeys(p *partTruth, h *history, all []foundBatch) {
	cleaned := w.cleaned(p)
	at := map[string]segment.Offset{}
	there := map[segment.Offset]bool{}
	w.each(p, h, all, func(k *keyedRecord) {
		there[k.offset] = true
		if k.offset >= cleaned {
			return
		}
		if before, twice := at[k.key]; twice {
			w.problem("%s: %s is at %d and at %d, compacted up to %d", p.name(), k.key, before, k.offset, cleaned)
		}
		at[k.key] = k.offset
		if !k.committed {
			w.problem("%s: offset %d of an aborted transaction is left, compacted up to %d", p.name(), k.offset, cleaned)
		}
		if over := p.over[k.offset]; over {
			w.problem("%s: the delete marker of %s at %d is left after its term", p.name(), k.key, k.offset)
		}
	})
	markers := map[segment.Offset]bool{}
	for _, f := range all {
		markers[f.h.BaseOffset] = f.h.IsControl() && f.h.Count > 0
	}
	for _, m := range h.ends {
		if left := time.Until(time.UnixMilli(m.BaseTimestamp + p.topic.cfg.DeleteRetentionMs)); !markers[m.BaseOffset] && m.BaseOffset >= h.start && left > 0 {
			w.problem("%s: the marker of producer %d at %d is gone %v before its term", p.name(), m.ProducerID, m.BaseOffset, left)
		}
	}
	for _, k := range h.order {
		if k.offset >= max(h.stable, h.start) && !there[k.offset] {
			w.problem("%s: offset %d is gone, and what lies above %d is not decided", p.name(), k.offset, h.stable)
		}
	}
}

// verifyView: of each key the newest committed record is what a reader of committed ones sees last; a delete marker may be gone after its term.
func (w *world) verifyView(p *partTruth, h *history, shown []foundBatch) {
	view := map[string]*keyedRecord{}
	w.each(p, h, shown, func(k *keyedRecord) {
		if !k.committed {
			w.problem("%s: offset %d is shown as committed", p.name(), k.offset)
		}
		view[k.key] = k
	})
	want := map[string]*keyedRecord{}
	for _, k := range h.order {
		if k.committed && k.offset >= h.start && k.offset < h.stable {
			want[k.key] = k
		}
	}
	for key, k := range want {
		got := view[key]
		term := time.UnixMilli(k.stampMs + p.topic.cfg.DeleteRetentionMs)
		switch {
		case got == k:
		case got != nil:
			w.problem("%s: %s is at %d, want %d", p.name(), key, got.offset, k.offset)
		case !k.gone:
			w.problem("%s: %s is gone, want it at %d", p.name(), key, k.offset)
		case time.Now().Before(term):
			w.problem("%s: the delete marker of %s at %d is gone %v before its term", p.name(), key, k.offset, time.Until(term))
		}
	}
}

// readCommitted is read as a read_committed consumer does it, which leaves out what it is told of; end is how far that goes.
func (w *world) readCommitted(p *partTruth, from segment.Offset, maxBytes int64) (out []foundBatch, end segment.Offset, err error) {
	var aborted []partition.AbortedTxn
	dropping := map[int64]bool{}
	end, err = w.consume(p, from, maxBytes, true, func(f foundBatch, list []partition.AbortedTxn, first bool) error {
		if first { // of a fetch, whose list holds everything that it needs
			aborted = slices.Clone(list)
			slices.SortFunc(aborted, func(a, b partition.AbortedTxn) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
			clear(dropping)
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= f.h.LastOffset() {
			dropping[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		switch {
		case f.h.IsControl() && f.h.Count > 0:
			m, err := segment.ParseMarker(f.data)
			if err == nil && !m.Commit {
				delete(dropping, f.h.ProducerID)
			}
			return err
		case f.h.IsControl() || f.h.IsTransactional() && dropping[f.h.ProducerID]:
		default:
			out = append(out, f)
		}
		return nil
	})
	return out, end, err
}

// compact cleans what is due and notes which delete markers must be gone after the next time.
func (w *world) compact() error {
	before := map[*partTruth]partition.CompactionResult{}
	each := func(fn func(p *partTruth, v partition.CompactionView) error) error {
		for _, v := range w.s.Compactions() {
			if err := fn(w.topic(v.Work.Topic).parts[v.Work.Partition], v); err != nil {
				return err
			}
		}
		return nil
	}
	_ = each(func(p *partTruth, v partition.CompactionView) error { before[p] = v.Last; return nil }) // fn has no errors
	w.s.Compact(context.Background())
	return each(func(p *partTruth, v partition.CompactionView) error {
		if v.Last.Err != nil {
			return fmt.Errorf("compact %s: %w", p.name(), v.Last.Err)
		}
		if v.Last == before[p] {
			return nil
		}
		l, err := w.log(p)
		if err != nil {
			return err
		}
		h, err := p.history(l.Offsets())
		if err != nil {
			return err
		}
		for _, k := range h.order {
			if !k.gone || k.offset >= v.Work.From {
				continue
			}
			first, marked := p.marked[k.offset]
			if !marked {
				p.marked[k.offset] = v.Last.At
			} else if v.Last.At.Add(-v.Last.Elapsed).Sub(first).Milliseconds() >= p.topic.cfg.DeleteRetentionMs {
				p.over[k.offset] = true
			}
		}
		return nil
	})
}

// cleaned is up to where p is compacted.
func (w *world) cleaned(p *partTruth) segment.Offset {
	for _, v := range w.s.Compactions() {
		if v.Work.Topic == p.topic.name && v.Work.Partition == p.index {
			return v.Work.From
		}
	}
	return 0
}
