package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"lagoon/internal/vfs"
)

// keptBatches is how many of the latest batches are remembered per producer: as many as a client may have in flight
// (max.in.flight.requests.per.connection <= 5 with idempotence).
const keptBatches = 5

// ProducerOptions bounds producer state. The zero value means the defaults.
type ProducerOptions struct {
	ExpirationMs int64 // idle time after which a producer is forgotten; default 86,400,000 (producer.id.expiration.ms)
	MaxProducers int   // above it the longest idle go first; default 200,000
}

func (o ProducerOptions) withDefaults() ProducerOptions {
	if o.ExpirationMs <= 0 {
		o.ExpirationMs = 86_400_000
	}
	if o.MaxProducers <= 0 {
		o.MaxProducers = 200_000
	}
	return o
}

// ProducerState remembers, per idempotent producer of one partition, its epoch and last batches, so that a retried
// batch is answered with the first result and a gap is refused. Not safe for concurrent use: the partition's append
// lock guards it.
type ProducerState struct {
	opt       ProducerOptions
	producers map[int64]*producer
	open      []Offset // first offsets of the open transactions, ascending
	end       Offset
}

// producer is one row. Its batches are the newest last, all of the current epoch.
type producer struct {
	id               int64
	epoch            int16
	coordinatorEpoch int32
	txnFirst         Offset // first offset of the open transaction, -1 without
	lastMs           int64  // max timestamp of the last batch or marker: the client's clock
	seenMs           int64  // when it was last appended: the caller's clock, for expiry
	n                int
	batches          [keptBatches]producerBatch
}

// producerBatch is Kafka's BatchMetadata.
type producerBatch struct {
	lastSeq     int32
	lastOffset  Offset
	offsetDelta int32
	ms          int64
}

func (b producerBatch) firstSeq() int32     { return addSequence(b.lastSeq, -b.offsetDelta) }
func (b producerBatch) firstOffset() Offset { return b.lastOffset - Offset(b.offsetDelta) }

func (p *producer) kept() []producerBatch { return p.batches[:p.n] }

func (p *producer) last() producerBatch {
	if p.n == 0 {
		return producerBatch{lastSeq: -1, lastOffset: -1}
	}
	return p.batches[p.n-1]
}

func (p *producer) push(b producerBatch) {
	if p.n == keptBatches {
		copy(p.batches[:], p.batches[1:])
		p.n--
	}
	p.batches[p.n] = b
	p.n++
}

// NewProducerState makes an empty state that covers the log up to offset 0.
func NewProducerState(opt ProducerOptions) *ProducerState {
	return &ProducerState{opt: opt.withDefaults(), producers: map[int64]*producer{}}
}

// VerdictKind is what to do with a batch.
type VerdictKind uint8

// Kinds of verdict.
const (
	Accept    VerdictKind = iota
	Duplicate             // appended before: answer with that result, append nothing
)

// Verdict is the answer of Check.
type Verdict struct {
	Kind        VerdictKind
	Base, Last  Offset // of the first append, when Duplicate
	TimestampMs int64  // max timestamp of the first append, when Duplicate
}

// Check says what to do with a validated batch, before its offsets are assigned; it changes nothing. As in Kafka, an
// unknown producer may begin with any sequence (its state may have expired or been deleted with its records).
// Errors: ErrInvalidProducerEpoch, ErrOutOfOrderSequence, ErrInvalidTxnState.
func (s *ProducerState) Check(h BatchHeader) (Verdict, error) {
	p := s.producers[h.ProducerID]
	if !h.HasProducer() || p == nil {
		return Verdict{}, nil
	}
	if h.ProducerEpoch < p.epoch {
		return Verdict{}, fmt.Errorf("%w: producer %d epoch %d, current is %d", ErrInvalidProducerEpoch, h.ProducerID, h.ProducerEpoch, p.epoch)
	}
	if p.txnFirst >= 0 && !h.IsTransactional() {
		return Verdict{}, fmt.Errorf("%w: producer %d has an open transaction from offset %d and writes outside it", ErrInvalidTxnState, h.ProducerID, p.txnFirst)
	}
	if h.IsControl() || h.BaseSequence < 0 { // markers and coordinators' batches have no sequence
		return Verdict{}, nil
	}
	if h.ProducerEpoch > p.epoch {
		if h.BaseSequence != 0 {
			return Verdict{}, fmt.Errorf("%w: producer %d begins epoch %d with sequence %d, not 0", ErrOutOfOrderSequence, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
		}
		return Verdict{}, nil
	}
	lastSeq := h.LastSequence()
	for _, b := range p.kept() {
		if b.firstSeq() == h.BaseSequence && b.lastSeq == lastSeq {
			return Verdict{Kind: Duplicate, Base: b.firstOffset(), Last: b.lastOffset, TimestampMs: b.ms}, nil
		}
	}
	if want := p.nextSequence(); h.BaseSequence != want {
		return Verdict{}, fmt.Errorf("%w: producer %d epoch %d sequence %d, expected %d", ErrOutOfOrderSequence, h.ProducerID, h.ProducerEpoch, h.BaseSequence, want)
	}
	return Verdict{}, nil
}

// nextSequence follows the last one in the ring; 0 for a producer of which only a marker is known.
func (p *producer) nextSequence() int32 {
	if p.n == 0 {
		return 0
	}
	return addSequence(p.last().lastSeq, 1)
}

// Update takes in a batch that was appended at base; nowMs is the clock of Expire. Call it for every batch but markers (see Finish), also
// for those without a producer id: it moves End.
func (s *ProducerState) Update(h BatchHeader, base Offset, nowMs int64) {
	last := base + Offset(h.LastOffsetDelta)
	s.advance(last + 1)
	if !h.HasProducer() || h.IsControl() {
		return
	}
	p := s.seen(h, nowMs)
	if p == nil {
		return
	}
	p.push(producerBatch{lastSeq: h.LastSequence(), lastOffset: last, offsetDelta: h.LastOffsetDelta, ms: h.MaxTimestamp})
	if h.IsTransactional() && p.txnFirst < 0 {
		p.txnFirst = base
		s.open = append(s.open, base)
	}
}

// seen finds or makes the producer's row and brings its epoch up to date; nil when the batch is of an epoch that is over.
func (s *ProducerState) seen(h BatchHeader, nowMs int64) *producer {
	p := s.producers[h.ProducerID]
	if p == nil {
		s.makeRoom()
		p = &producer{id: h.ProducerID, epoch: h.ProducerEpoch, coordinatorEpoch: -1, txnFirst: -1}
		s.producers[h.ProducerID] = p
	}
	if h.ProducerEpoch < p.epoch {
		return nil // only in a log that was damaged or written before fencing: the newer epoch stands
	}
	if h.ProducerEpoch > p.epoch {
		p.epoch, p.n = h.ProducerEpoch, 0
	}
	p.lastMs, p.seenMs = h.MaxTimestamp, nowMs
	return p
}

// CheckMarker says whether the coordinator that wrote m may still end this producer's transactions; Check has accepted the batch.
// Errors: *CoordinatorFencedError.
func (s *ProducerState) CheckMarker(h BatchHeader, m Marker) error {
	if p := s.producers[h.ProducerID]; p != nil && m.CoordinatorEpoch < p.coordinatorEpoch {
		return &CoordinatorFencedError{ProducerID: p.id, Epoch: m.CoordinatorEpoch, Current: p.coordinatorEpoch}
	}
	return nil
}

// CheckEpochPerTxn says what else holds for a batch of the second transaction protocol, in which each transaction has an epoch of its own
// (KIP-890, KIP-1228); Check has accepted it. A marker that comes again ends nothing and is taken.
// Errors: ErrOutOfOrderSequence, ErrInvalidProducerEpoch.
func (s *ProducerState) CheckEpochPerTxn(h BatchHeader) error {
	p := s.producers[h.ProducerID]
	switch {
	case h.IsControl() && p != nil && p.txnFirst >= 0 && h.ProducerEpoch <= p.epoch:
		return fmt.Errorf("%w: marker of producer %d epoch %d, that of the transaction is %d", ErrInvalidProducerEpoch, h.ProducerID, h.ProducerEpoch, p.epoch)
	case p == nil && h.IsTransactional() && h.BaseSequence > 0:
		return fmt.Errorf("%w: producer %d begins with sequence %d, not 0", ErrOutOfOrderSequence, h.ProducerID, h.BaseSequence)
	}
	return nil
}

// Finish takes in a marker that was appended at base: it ends the producer's transaction and moves End. ok is false when none was
// open here. ended is the entry for the .txnindex if the marker aborts.
func (s *ProducerState) Finish(h BatchHeader, m Marker, base Offset, nowMs int64) (ended AbortedTxn, ok bool) {
	last := base + Offset(h.LastOffsetDelta)
	s.advance(last + 1)
	if !h.HasProducer() {
		return ended, false
	}
	p := s.seen(h, nowMs)
	if p == nil {
		return ended, false
	}
	p.coordinatorEpoch = m.CoordinatorEpoch
	if p.txnFirst < 0 {
		return ended, false
	}
	ended = AbortedTxn{ProducerID: p.id, First: p.txnFirst, Last: last, LastStable: last + 1}
	if i, found := slices.BinarySearch(s.open, p.txnFirst); found {
		s.open = slices.Delete(s.open, i, i+1)
	}
	p.txnFirst = -1
	if len(s.open) > 0 {
		ended.LastStable = s.open[0]
	}
	return ended, true
}

// TxnOpen tells whether the producer has a transaction of that epoch open in the partition. One of an older epoch is about to be ended,
// and nothing may be added to it.
func (s *ProducerState) TxnOpen(producerID int64, epoch int16) bool {
	p := s.producers[producerID]
	return p != nil && p.txnFirst >= 0 && p.epoch == epoch
}

// take is Update or Finish for the batch at pos of f. aborted is nil unless it ended a transaction with an abort. A marker that
// cannot be read ends nothing.
func (s *ProducerState) take(f vfs.File, pos int64, h BatchHeader, nowMs int64) (aborted *AbortedTxn, err error) {
	if !h.IsControl() {
		s.Update(h, h.BaseOffset, nowMs)
		return nil, nil
	}
	if h.Count == 0 { // compaction has taken the marker, when nothing of its transaction was left
		s.advance(h.NextOffset())
		return nil, nil
	}
	m, err := readMarker(f, pos, h)
	if err != nil {
		s.advance(h.NextOffset())
		return nil, err
	}
	if ended, ok := s.Finish(h, m, h.BaseOffset, nowMs); ok && !m.Commit {
		return &ended, nil
	}
	return nil, nil
}

// reopen lists the open transactions of rows that were loaded.
func (s *ProducerState) reopen() {
	s.open = s.open[:0]
	for _, p := range s.producers {
		if p.txnFirst >= 0 {
			s.open = append(s.open, p.txnFirst)
		}
	}
	slices.Sort(s.open)
}

func (s *ProducerState) advance(end Offset) { s.end = max(s.end, end) }

// makeRoom keeps the number of producers bounded. It looks at a few of them (Go's map order is random) and drops the
// longest idle one: cheap, and good enough against a client that makes up producer ids.
func (s *ProducerState) makeRoom() {
	if len(s.producers) < s.opt.MaxProducers {
		return
	}
	const looks = 32
	var oldest *producer
	seen := 0
	for _, p := range s.producers {
		if p.txnFirst < 0 && (oldest == nil || p.seenMs < oldest.seenMs) {
			oldest = p
		}
		if seen++; seen == looks && oldest != nil {
			break
		}
	}
	if oldest != nil {
		delete(s.producers, oldest.id)
	}
}

// Expire forgets producers idle for longer than the limit that have no open transaction, and says how many.
func (s *ProducerState) Expire(nowMs int64) int {
	before := len(s.producers)
	for id, p := range s.producers {
		if p.txnFirst < 0 && nowMs-p.seenMs >= s.opt.ExpirationMs {
			delete(s.producers, id)
		}
	}
	return before - len(s.producers)
}

// Shift moves all times of expiry by ms, for a copy that is kept in another clock's time.
func (s *ProducerState) Shift(ms int64) {
	for _, p := range s.producers {
		p.seenMs += ms
	}
}

// End is the offset up to which the log is taken in.
func (s *ProducerState) End() Offset { return s.end }

// Len is the number of producers known.
func (s *ProducerState) Len() int { return len(s.producers) }

// ProducerView is one row for DescribeProducers.
type ProducerView struct {
	ProducerID       int64
	Epoch            int16
	CoordinatorEpoch int32  // -1: no marker seen
	LastSequence     int32  // -1: none
	LastOffset       Offset // of the last batch of records, -1: only a marker is known
	LastTimestampMs  int64
	TxnFirstOffset   Offset // -1: no open transaction
}

// Views lists the producers by id.
func (s *ProducerState) Views() []ProducerView {
	views := make([]ProducerView, 0, len(s.producers))
	for _, p := range s.sorted() {
		views = append(views, ProducerView{ProducerID: p.id, Epoch: p.epoch, CoordinatorEpoch: p.coordinatorEpoch,
			LastSequence: p.last().lastSeq, LastOffset: p.last().lastOffset, LastTimestampMs: p.lastMs, TxnFirstOffset: p.txnFirst})
	}
	return views
}

func (s *ProducerState) sorted() []*producer {
	list := make([]*producer, 0, len(s.producers))
	for _, p := range s.producers {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *producer) int { return cmp.Compare(a.id, b.id) })
	return list
}

// FirstOpenTxn is the lowest first offset of an open transaction: the last stable offset, when there is one.
func (s *ProducerState) FirstOpenTxn() (Offset, bool) {
	if len(s.open) == 0 {
		return 0, false
	}
	return s.open[0], true
}

// Replay feeds the headers and markers of the batches in r from ps.End() on to ps, and brings r's list of aborted transactions in
// line with them; nowMs is the wall clock. The caller has r acquired and appends nothing meanwhile. Damage is stepped over, as in
// Find. Errors: those of Find; *CorruptError for a marker, or a .txnindex, that cannot be read, after everything was fed.
func Replay(r *Reader, ps *ProducerState, nowMs int64) error {
	meta, from := r.Meta(), ps.End()
	if from >= meta.Next {
		return nil
	}
	var aborted []AbortedTxn
	damaged, err := r.feed(meta, ps, nowMs, &aborted)
	if err != nil {
		return err
	}
	ps.advance(meta.Next)
	return errors.Join(damaged, r.takeAborted(aborted, from))
}

// CollectAborted gives the transactions that markers in r aborted, whatever its .txnindex says; ps knows what came before r and is
// fed with r. The caller has r acquired. Errors: those of Replay.
func CollectAborted(r *Reader, ps *ProducerState, nowMs int64) (aborted []AbortedTxn, err error) {
	damaged, err := r.feed(r.Meta(), ps, nowMs, &aborted)
	return aborted, errors.Join(damaged, err)
}

func (r *Reader) feed(meta Meta, ps *ProducerState, nowMs int64, aborted *[]AbortedTxn) (damaged, err error) {
	scans := r.scans.Load()
	damaged, err = r.feedOnce(meta, ps, nowMs, aborted)
	if err != nil && r.healable(err) {
		if err := r.heal(err, scans); err != nil {
			return damaged, err
		}
		return r.feedOnce(meta, ps, nowMs, aborted)
	}
	return damaged, err
}

// feedOnce gives the first marker that could not be read as damaged.
func (r *Reader) feedOnce(meta Meta, ps *ProducerState, nowMs int64, aborted *[]AbortedTxn) (damaged, err error) {
	f, err := r.File()
	if err != nil {
		return nil, err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)
	h, pos, ok, err := r.start(&w, max(ps.End(), meta.Base), -1)
	for ; ok && err == nil; h, pos, ok, err = w.header(pos+h.SizeBytes(), h.NextOffset()) {
		if h.BaseOffset < ps.End() {
			continue
		}
		t, err := ps.take(f, pos, h, nowMs)
		switch {
		case err != nil && !isCorrupt(err):
			return damaged, err
		case err != nil && damaged == nil:
			damaged = err
		case t != nil:
			*aborted = append(*aborted, *t)
		}
	}
	return damaged, err
}

// Clone is a copy that shares nothing, to be saved while the original goes on.
func (p *ProducerState) Clone() *ProducerState {
	c := &ProducerState{opt: p.opt, end: p.end, open: slices.Clone(p.open), producers: make(map[int64]*producer, len(p.producers))}
	for id, pr := range p.producers {
		own := *pr
		c.producers[id] = &own
	}
	return c
}
