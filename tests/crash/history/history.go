package history

import (
	"fmt"
	"sync"
)

// maxProblems bounds the report: after these one knows enough.
const maxProblems = 20

// Recorder is the history of one topic.
type Recorder struct {
	mu         sync.Mutex
	producers  []*producer
	partitions []partition
	problems   []string
	more       int // problems beyond maxProblems
	attempts   int64
	acks       int64
	sightings  int64
}

// producer is one sender; per partition what became of each record.
type producer struct {
	idempotent bool
	sent       [][]int64 // [partition][seq]: offset it was acked at, or one of the values below
}

const (
	unacked  = -1 // sent, nothing heard
	ackedAny = -2 // acked without an offset: a duplicate whose offset the broker no longer knew
)

// partition is what was seen of each offset.
type partition struct {
	seen   []slot // by offset
	maxAck int64  // highest acked offset, -1 none
}

// slot is the record at one offset, as first seen.
type slot struct {
	producer int32 // index + 1; 0: not seen
	seq      int32
	size     int32
	_        int32
}

// New begins the history of a topic.
func New(partitions int) *Recorder {
	r := &Recorder{partitions: make([]partition, partitions)}
	for i := range r.partitions {
		r.partitions[i].maxAck = -1
	}
	return r
}

// AddProducer makes a producer known and gives its number.
func (r *Recorder) AddProducer(idempotent bool) int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.producers = append(r.producers, &producer{idempotent: idempotent, sent: make([][]int64, len(r.partitions))})
	return int32(len(r.producers) - 1)
}

// Attempt notes that the producer is about to send its next record to the partition and names it.
func (r *Recorder) Attempt(producer, partition int32) ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.producers[producer]
	p.sent[partition] = append(p.sent[partition], unacked)
	r.attempts++
	return ID{producer, partition, int32(len(p.sent[partition]) - 1)}
}

// Acked notes that the broker acknowledged a record at an offset, -1 when it did not tell which.
func (r *Recorder) Acked(id ID, offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks++
	sent := r.producers[id.Producer].sent[id.Partition]
	if sent[id.Seq] != unacked {
		r.problemf("%v: acked twice, at %d and %d", id, sent[id.Seq], offset)
		return
	}
	if offset < 0 {
		sent[id.Seq] = ackedAny
		return
	}
	sent[id.Seq] = offset
	p := &r.partitions[id.Partition]
	p.maxAck = max(p.maxAck, offset)
	if offset < int64(len(p.seen)) && p.seen[offset].producer != 0 {
		r.compareLocked(id.Partition, offset, p.seen[offset], id)
	}
}

// Saw notes that somebody read value at an offset.
func (r *Recorder) Saw(partition int32, offset int64, value []byte) {
	id, err := Parse(value)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sightings++
	if err != nil {
		r.problemf("partition %d, offset %d: %v", partition, offset, err)
		return
	}
	if id.Partition != partition {
		r.problemf("partition %d, offset %d: holds %v: a record of another partition", partition, offset, id)
		return
	}
	if int(id.Producer) >= len(r.producers) || int(id.Seq) >= len(r.producers[id.Producer].sent[partition]) {
		r.problemf("partition %d, offset %d: holds %v, which nobody sent", partition, offset, id)
		return
	}
	p := &r.partitions[partition]
	for int64(len(p.seen)) <= offset {
		p.seen = append(p.seen, slot{})
	}
	now := slot{producer: id.Producer + 1, seq: id.Seq, size: int32(len(value))}
	if was := p.seen[offset]; was.producer != 0 && was != now {
		r.problemf("partition %d, offset %d: was %v (%d bytes), is now %v (%d bytes): changed after it was read",
			partition, offset, was.id(partition), was.size, id, len(value))
		return
	}
	p.seen[offset] = now
}

func (s slot) id(partition int32) ID { return ID{s.producer - 1, partition, s.seq} }

// compareLocked checks that an acked offset holds the acked record.
func (r *Recorder) compareLocked(partition int32, offset int64, s slot, acked ID) {
	if got := s.id(partition); got != acked {
		r.problemf("partition %d, offset %d: acked was %v, there is %v", partition, offset, acked, got)
	}
}

// Known gives, per partition, the offset after the highest one that was acked or seen so far: no end offset that is asked
// for later may be less.
func (r *Recorder) Known() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make([]int64, len(r.partitions))
	for i := range r.partitions {
		known[i] = max(r.partitions[i].maxAck+1, int64(len(r.partitions[i].seen)))
	}
	return known
}

// EndOffset checks a partition's end that was asked for after known, the partition's part of Known.
func (r *Recorder) EndOffset(partition int32, end, known int64) {
	if end < known {
		r.Problemf("partition %d ends at %d, but %d was acked or read: lost", partition, end, known-1)
	}
}

// Problemf adds a finding of the caller's own.
func (r *Recorder) Problemf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problemf(format, args...)
}

func (r *Recorder) problemf(format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	} else {
		r.more++
	}
}

// Problems are the findings so far, at most 20 and a count of the rest.
func (r *Recorder) Problems() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := append([]string(nil), r.problems...)
	if r.more > 0 {
		out = append(out, fmt.Sprintf("and %d more", r.more))
	}
	return out
}

// Totals are records sent, records acked, and records read by all readers together.
func (r *Recorder) Totals() (attempts, acks, sightings int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts, r.acks, r.sightings
}

// Unacked is how many records were sent and not answered.
func (r *Recorder) Unacked() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts - r.acks
}
