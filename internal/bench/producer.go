package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/bench/report"
)

// stream is one live topic: what is produced into it, and what is true about it afterwards.
type stream struct {
	topic string
	schedule
	valueBytes int
	run        uint64
	random     noise
	first      []int64 // offset of sequence 0 by partition

	ack  *recorder
	late *recorder // of the generator itself

	mu       sync.Mutex
	ended    bool      // nothing more comes
	stopped  int64     // records that were given to the client until then
	acked    int64     // records
	failed   []numbers // sequences by partition whose produce failed
	failure  error     // the first
	failures int64
	there    []int64 // records that the broker holds by partition, asked for at the end when a reader lacked some; nil: not asked
}

const (
	// tick is how often the producer looks at its schedule; a record waits half of it on average. Each look wakes a thread, which on
	// a virtual machine is a good part of what the generator costs (measured: 0.31 cores at 1 ms, 0.24 at 2 ms and less collection).
	tick = 2 * time.Millisecond
	// buffered records of a stalled broker, 64 MiB of 1 KiB; the schedule goes on meanwhile.
	buffered = 64 << 10
	// patience is above any stall that is to be measured: an early timeout would only make a client send everything again.
	patience = 2 * time.Minute
)

func (s *stream) client(brokers []string, linger time.Duration) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.ClientID("lagoon-bench-producer-"+s.topic),
		kgo.DefaultProduceTopic(s.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(linger), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(buffered), kgo.ProduceRequestTimeout(patience), kgo.RequestTimeoutOverhead(patience),
	)
}

// produce sends records as they become due until stop ends, and returns when all of them are settled or patience has run out. The end
// of ctx gives up what is not settled.
func (s *stream) produce(ctx, stop context.Context, cl *kgo.Client) error {
	defer cl.Close()
	s.failed = make([]numbers, s.partitions)
	pool := sync.Pool{New: func() any { return &kgo.Record{Value: make([]byte, s.valueBytes)} }}
	settled := func(r *kgo.Record, err error) {
		s.settle(r, err)
		pool.Put(r)
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	k := int64(0)
	for running := true; running; {
		select {
		case <-ticker.C:
		case <-stop.Done():
			running = false
		}
		// At the end, too, what is due is handed over: a late tick takes no record away, only a full buffer does.
		for due := s.due(time.Now().UnixNano()); k < due && (stop.Err() == nil || ctx.Err() == nil && cl.BufferedProduceRecords() < buffered); k++ {
			at, partition := s.at(k), k%s.partitions
			r := pool.Get().(*kgo.Record)
			encodeValue(r.Value, s.run, partition, k/s.partitions, at, s.random)
			*r = kgo.Record{Value: r.Value, Partition: int32(partition)}
			cl.Produce(ctx, r, settled)
			if k%16 == 0 {
				s.late.record(at, time.Now().UnixNano()-at)
			}
		}
	}
	s.mu.Lock()
	s.stopped, s.ended = k, true
	s.mu.Unlock()
	flush, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := cl.Flush(flush); err != nil && ctx.Err() == nil {
		return fmt.Errorf("topic %s: records were not acknowledged within %v after the end", s.topic, patience)
	}
	return nil
}

// owed tells whether all records have been given to the client, and for how many of those the broker has not answered.
func (s *stream) owed() (ended bool, owed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.stopped - s.acked - s.failures
}

// unanswered calls fn with the due time of each record that was handed over and not acknowledged.
func (s *stream) unanswered(fn func(due int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, failed := range s.failed {
		for _, h := range failed.spans {
			for n := h.from; n < h.to; n++ {
				fn(s.atSequence(int64(p), n))
			}
		}
	}
}

// held calls fn with the partition and due time of each record that was due before a moment and never handed over: the client's buffer was
// full until the end. Nobody lost it, and everybody waited for it.
func (s *stream) held(before int64, fn func(partition, due int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended { // how many were handed over is not known
		return
	}
	for k := s.stopped; s.at(k) < before; k++ {
		fn(k%s.partitions, s.at(k))
	}
}

// settle takes the broker's answer for one record.
func (s *stream) settle(r *kgo.Record, err error) {
	now := time.Now().UnixNano()
	v, bad := decodeHeader(r.Value)
	if bad != nil {
		return
	}
	if err == nil {
		s.ack.record(v.due, now-v.due)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.acked++
		return
	}
	s.failed[v.partition].add(v.sequence)
	s.failures++
	if s.failure == nil {
		s.failure = err
	}
}

// reading is one role's reading of a stream, checked record by record. One goroutine at a time adds to a partition.
type reading struct {
	role   string
	stream *stream
	rec    *recorder
	behind int64      // ns after its due time at which the role wants a record
	at     *positions // nil: without a group

	draining atomic.Bool // the run has ended: what is left is read although it is not due

	mu      sync.Mutex
	parts   map[int32]*sequence
	corrupt int64
}

func newReading(role string, s *stream, rec *recorder, behind time.Duration, partitions ...int32) *reading {
	r := &reading{role: role, stream: s, rec: rec, behind: int64(behind), parts: map[int32]*sequence{}}
	for _, p := range partitions {
		r.parts[p] = &sequence{}
	}
	return r
}

// take checks and records one value that came at a time.
func (r *reading) take(partition int32, data []byte, now int64) {
	v, err := decodeValue(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	seq := r.parts[partition]
	if err != nil || v.run != r.stream.run || v.partition != int64(partition) || seq == nil || v.due != r.stream.atSequence(v.partition, v.sequence) {
		r.corrupt++
		return
	}
	if late := now - v.due - r.behind; seq.see(v.sequence) && (late >= 0 || !r.draining.Load()) {
		r.rec.record(v.due+r.behind, late)
	}
}

// next is the sequence number that is to come next.
func (r *reading) next(partition int32) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts[partition].next
}

// held calls fn with the time at which the role wanted each record that was never handed over, of those that it wanted before a moment.
func (r *reading) held(before int64, fn func(due int64)) {
	r.stream.held(before-r.behind, func(partition, due int64) {
		if r.parts[int32(partition)] != nil {
			fn(due + r.behind)
		}
	})
}

// check sums up; late is called with the due time, in ns, of each record that is missing.
func (r *reading) check(late func(due int64)) report.Check {
	s := r.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	c := report.Check{Role: r.role, Topic: s.topic, Corrupt: r.corrupt}
	for p, seq := range r.parts {
		c.Read += seq.read
		c.Duplicates += seq.duplicates
		c.Reordered += seq.reordered
		c.Lost += seq.forgotten
		end := s.inPartition(s.stopped, int64(p))
		c.Produced += end
		failed := int64(0)
		for _, h := range s.failed[p].spans {
			failed += h.to - h.from
		}
		c.Failed += failed
		// What comes after all that was read is not lost when the broker holds as many records as it acknowledged: nobody has got that far.
		complete := s.there != nil && s.there[p] >= end-failed
		seq.missing(end, func(h span) {
			for n := h.from; n < h.to; n++ {
				if s.failed[p].has(n) {
					continue
				}
				if complete && n >= seq.next {
					c.NotRead++
				} else {
					c.Lost++
				}
				if late != nil {
					late(s.atSequence(int64(p), n) + r.behind)
				}
			}
		})
	}
	c.Produced -= c.Failed
	return c
}
