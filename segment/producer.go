package segment

import (
	"cmp"
	"fmt"
	"slices"
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
	end       Offset
}

// producer is one row. Its batches are the newest last, all of the current epoch.
type producer struct {
	id               int64
	epoch            int16
	coordinatorEpoch int32
	txnFirst         Offset // first offset of the open transaction, -1 without
	lastMs           int64  // max timestamp of the last batch or marker: the client's clock
	seenMs           int64  // when it was last appended: our clock, for expiry
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
// Errors: ErrInvalidProducerEpoch, ErrOutOfOrderSequence.
func (s *ProducerState) Check(h BatchHeader) (Verdict, error) {
	p := s.producers[h.ProducerID]
	if !h.HasProducer() || p == nil {
		return Verdict{}, nil
	}
	if h.ProducerEpoch < p.epoch {
		return Verdict{}, fmt.Errorf("%w: producer %d epoch %d, current is %d", ErrInvalidProducerEpoch, h.ProducerID, h.ProducerEpoch, p.epoch)
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

// Update takes in a batch that was appended at base; nowMs is the wall clock. Call it for every batch, also without a
// producer id: it moves End.
func (s *ProducerState) Update(h BatchHeader, base Offset, nowMs int64) {
	last := base + Offset(h.LastOffsetDelta)
	s.advance(last + 1)
	if !h.HasProducer() {
		return
	}
	p := s.producers[h.ProducerID]
	if p == nil {
		s.makeRoom()
		p = &producer{id: h.ProducerID, epoch: h.ProducerEpoch, coordinatorEpoch: -1, txnFirst: -1}
		s.producers[h.ProducerID] = p
	}
	if h.ProducerEpoch < p.epoch {
		return // only in a log that was damaged or written before fencing: the newer epoch stands
	}
	if h.ProducerEpoch > p.epoch {
		p.epoch, p.n = h.ProducerEpoch, 0
	}
	p.lastMs, p.seenMs = h.MaxTimestamp, nowMs
	if h.IsControl() {
		p.txnFirst = -1
		return
	}
	p.push(producerBatch{lastSeq: h.LastSequence(), lastOffset: last, offsetDelta: h.LastOffsetDelta, ms: h.MaxTimestamp})
	if h.IsTransactional() && p.txnFirst < 0 {
		p.txnFirst = base
	}
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

// End is the offset up to which the log is taken in.
func (s *ProducerState) End() Offset { return s.end }

// Len is the number of producers known.
func (s *ProducerState) Len() int { return len(s.producers) }

// ProducerView is one row for DescribeProducers.
type ProducerView struct {
	ProducerID       int64
	Epoch            int16
	CoordinatorEpoch int32 // -1: no marker seen
	LastSequence     int32 // -1: none
	LastTimestampMs  int64
	TxnFirstOffset   Offset // -1: no open transaction
}

// Views lists the producers by id.
func (s *ProducerState) Views() []ProducerView {
	views := make([]ProducerView, 0, len(s.producers))
	for _, p := range s.sorted() {
		views = append(views, ProducerView{ProducerID: p.id, Epoch: p.epoch, CoordinatorEpoch: p.coordinatorEpoch,
			LastSequence: p.last().lastSeq, LastTimestampMs: p.lastMs, TxnFirstOffset: p.txnFirst})
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
	first, ok := Offset(0), false
	for _, p := range s.producers {
		if p.txnFirst >= 0 && (!ok || p.txnFirst < first) {
			first, ok = p.txnFirst, true
		}
	}
	return first, ok
}

// Replay feeds the headers of the batches in r from ps.End() on to ps; nowMs is the wall clock. The caller has r
// acquired. Damage is stepped over, as in Find. Errors: those of Find.
func Replay(r *Reader, ps *ProducerState, nowMs int64) error {
	meta := r.Meta()
	if ps.End() >= meta.Next {
		return nil
	}
	scans := r.scans.Load()
	err := r.replay(meta, ps, nowMs)
	if err != nil && r.healable(err) {
		if err := r.heal(err, scans); err != nil {
			return err
		}
		err = r.replay(meta, ps, nowMs)
	}
	if err == nil {
		ps.advance(meta.Next)
	}
	return err
}

func (r *Reader) replay(meta Meta, ps *ProducerState, nowMs int64) error {
	f, err := r.File()
	if err != nil {
		return err
	}
	w := r.walker(f, &meta)
	defer walkPool.Put(w.buf)
	h, pos, ok, err := r.start(&w, max(ps.End(), meta.Base), -1)
	for ; ok && err == nil; h, pos, ok, err = w.header(pos+h.SizeBytes(), h.NextOffset()) {
		if h.BaseOffset >= ps.End() {
			ps.Update(h, h.BaseOffset, nowMs)
		}
	}
	return err
}

// Clone is a copy that shares nothing, to be saved while the original goes on.
func (p *ProducerState) Clone() *ProducerState {
	c := &ProducerState{opt: p.opt, end: p.end, producers: make(map[int64]*producer, len(p.producers))}
	for id, pr := range p.producers {
		own := *pr
		c.producers[id] = &own
	}
	return c
}
