package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/broker/wire"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/quotas"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// Produce (key 0)
//
// Behaviour:
//   - Batches are appended on the reader goroutine, so in the order in which they arrived; the response then waits in the
//     connection's queue until the batches are durable (acks=-1) while reading goes on.
//   - Record bytes are not copied: Append writes them straight out of the frame, which is released after that.
//   - acks=1 is answered after the write, acks=0 not at all; a failure with acks=0 closes the connection, the only way to
//     tell the client. Any other acks: INVALID_REQUIRED_ACKS for every partition.
//   - A duplicate of an idempotent producer is a success with the first offset, and waits for durability like the first.
//   - A client above its producer_byte_rate or request_percentage is told how long to wait (throttle_time_ms), and nothing is read
//     from the connection for so long (KIP-219).
//   - A request timeout while waiting gives REQUEST_TIMED_OUT; the batch stays written, as in Kafka.
//   - A batch that opens a transaction in a partition is appended when the transaction coordinator has on record that the partition is
//     part of it: the client has added it before, or from v12 on (KIP-890) the broker adds it now, all of a request with one record. That
//     is done on the reader goroutine, once per transaction and partition.
//   - Transactional batches without a transactional id: TRANSACTIONAL_ID_AUTHORIZATION_FAILED, as in Kafka.
//
// Version notes: 0-2 are advertised (librdkafka before 2.11 looks for them) and answered with UNSUPPORTED_VERSION per
// partition (KAFKA-18659); zstd needs v7 (KIP-110); error messages from v8 (KIP-467); topic ids from v13 (KIP-516).

// produceReply is a Produce request between its append and its response.
type produceReply struct {
	api      *api
	version  int16
	acks     int16
	corr     int32
	received time.Time
	appended time.Time
	deadline time.Time
	resp     wire.ProduceResponse
	waits    []produceWait // partitions of resp that must become durable
}

// produceWait is one partition that was written and must become durable up to next.
type produceWait struct {
	index int // in resp.Partitions
	log   partitionLog
	next  segment.Offset
	topic *topicCounter
}

// produceRequests and produceReplies keep decoded requests and their slices.
var (
	produceRequests = sync.Pool{New: func() any { return &wire.ProduceRequest{} }}
	produceReplies  = sync.Pool{New: func() any { return &produceReply{} }}
)

func (c *conn) startProduce(ctx context.Context, in *incoming) error {
	reply, err := c.appendAll(ctx, in)
	in.frame.Release()
	if err != nil || reply == nil {
		return err
	}
	return c.enqueue(reply)
}

// appendAll decodes the request and appends its batches. No reply without an error: acks=0.
func (c *conn) appendAll(ctx context.Context, in *incoming) (_ *produceReply, err error) {
	defer c.recovered(&err, "produce")
	if in.header.Version >= 9 {
		if in.body, err = wire.SkipHeaderTags(in.body); err != nil {
			return nil, err
		}
	}
	req := produceRequests.Get().(*wire.ProduceRequest)
	defer produceRequests.Put(req)
	if err := req.Read(in.header.Version, in.body); err != nil {
		return nil, err
	}
	if err := checkEntries(c.b.meta.Snapshot(), "Produce", len(req.Topics)+len(req.Partitions)); err != nil {
		return nil, err
	}
	reply := produceReplies.Get().(*produceReply)
	*reply = produceReply{
		api: in.api, version: in.header.Version, acks: req.Acks, corr: in.header.CorrelationID, received: in.received,
		deadline: in.received.Add(time.Duration(max(req.TimeoutMs, 0)) * time.Millisecond),
		resp:     wire.ProduceResponse{Topics: reply.resp.Topics[:0], Partitions: reply.resp.Partitions[:0]},
		waits:    reply.waits[:0],
	}
	failure := c.appendTopics(ctx, req, reply)
	reply.appended = time.Now()
	c.b.metrics.produceAppend.Observe(reply.appended.Sub(in.received).Seconds())
	reply.resp.ThrottleMs = c.mute(c.charge(req.Acks, int64(len(in.frame.Bytes())), reply.appended.Sub(in.received)))
	if req.Acks != 0 {
		return reply, nil
	}
	in.api.metrics.seconds.Observe(reply.appended.Sub(in.received).Seconds())
	reply.drop()
	if failure != nil {
		return nil, fmt.Errorf("produce with acks=0: %w", failure)
	}
	return nil, nil
}

// charge counts a Produce request of n bytes against the client's quotas and tells how long it has to wait. As in Kafka the time of
// one that is not answered does not count.
func (c *conn) charge(acks int16, n int64, took time.Duration) time.Duration {
	wait := c.b.limits.record(quotas.ProducerByteRate, c.client(), float64(n))
	if acks != 0 {
		wait = max(wait, c.b.limits.spent(c.client(), took))
	}
	return wait
}

// appendTopics appends every partition's batch and fills the response in the same order. The first failure is returned
// as well.
func (c *conn) appendTopics(ctx context.Context, req *wire.ProduceRequest, reply *produceReply) (failure error) {
	snap := c.b.meta.Snapshot()
	refused := refuseProduce(req, reply)
	var txnID *string
	if req.TransactionalID != nil {
		id := string(req.TransactionalID) // it aliases the frame
		txnID = &id
		if refused == nil && reply.version >= implicitVersion {
			c.b.joinAll(ctx, snap, req, id, reply.version)
		}
	}
	rest := req.Partitions
	for i := range req.Topics {
		t := &req.Topics[i]
		topic, err := findTopic(snap, reply.version >= 13, t.Name, t.ID)
		if err == nil && internalTopic(topic.Name) {
			err = kerr.InvalidTopicException // the broker's own
		}
		name := ""
		if topic != nil {
			name = topic.Name
		} else {
			name = strings.Clone(t.Name) // it aliases the frame
		}
		reply.resp.Topics = append(reply.resp.Topics, wire.ProducedTopic{Name: name, ID: t.ID, Partitions: t.Partitions})
		var counter *topicCounter
		if topic != nil {
			counter = c.b.metrics.topics.of(name)
		}
		for _, p := range rest[:t.Partitions] {
			err := errors.Join(refused, err)
			out := wire.ProducedPartition{Partition: p.Partition, BaseOffset: -1, LogAppendTimeMs: -1, LogStartOffset: -1}
			if err == nil {
				err = c.appendPartition(ctx, topic, counter, txnID, p, reply, &out)
			}
			if counter != nil {
				counter.produceRequests.Add(1)
			}
			if err != nil {
				failure = err
				c.produceFailed(reply, name, err, counter, &out)
			}
			reply.resp.Partitions = append(reply.resp.Partitions, out)
		}
		rest = rest[t.Partitions:]
	}
	return failure
}

// refuseProduce is what is wrong with the request as a whole.
func refuseProduce(req *wire.ProduceRequest, reply *produceReply) error {
	switch {
	case reply.version < reply.api.refuseBelow:
		return kerr.UnsupportedVersion
	case req.Acks < -1 || req.Acks > 1:
		return kerr.InvalidRequiredAcks
	}
	return nil
}

// findTopic finds the topic that a request names by name or, from some version on, by id.
func findTopic(snap *metadata.Snapshot, byID bool, name string, id [16]byte) (*metadata.Topic, error) {
	if byID {
		if t, ok := snap.TopicByID(id); ok {
			return t, nil
		}
		return nil, kerr.UnknownTopicID
	}
	if t, ok := snap.Topic(name); ok {
		return t, nil
	}
	return nil, kerr.UnknownTopicOrPartition
}

// partitionOf finds the log of one partition of a topic.
func (b *Broker) partitionOf(topic *metadata.Topic, index int32) (partitionLog, error) {
	if index < 0 || index >= topic.Partitions {
		return nil, kerr.UnknownTopicOrPartition
	}
	// The id is compared because the topic may have been deleted and made again under its name since the catalogue was
	// looked at: records must not cross from one to the other.
	if l, ok := b.logs.log(topic.Name, index); ok && l.ID() == topic.ID {
		return l, nil
	}
	// In the catalogue but not served: being created or deleted at this moment. Clients look again.
	return nil, kerr.NotLeaderForPartition
}

// appendPartition appends one batch.
func (c *conn) appendPartition(ctx context.Context, topic *metadata.Topic, counter *topicCounter, txnID *string, p wire.ProducePartition, reply *produceReply, out *wire.ProducedPartition) error {
	log, err := c.b.partitionOf(topic, p.Partition)
	if err != nil {
		return err
	}
	if err := checkRecords(reply.version, p.Records); err != nil {
		return err
	}
	count := recordCount(p.Records)
	ask := partition.AppendRequest{Records: p.Records}
	drop := func() {}
	if _, transactional := producerOf(p.Records); transactional {
		if err := log.Err(); err != nil {
			return err // before it is part of a transaction, which could not end: the partition takes no marker either
		}
		if ask.Guard, drop, err = c.b.joinWrite(ctx, log, txnID, txn.Partition{Topic: topic.Name, Index: p.Partition}, p.Records, reply.version); err != nil {
			return err
		}
		ask.EpochPerTxn = reply.version >= implicitVersion
	}
	done, err := log.Append(ctx, ask)
	if err != nil {
		drop()
		return err
	}
	if done.Duplicate {
		drop() // it was not needed
	}
	out.BaseOffset, out.LogAppendTimeMs, out.LogStartOffset = int64(done.Base), done.LogAppendTimeMs, int64(done.LogStart)
	if reply.acks == -1 {
		reply.waits = append(reply.waits, produceWait{index: len(reply.resp.Partitions), log: log, next: done.Next, topic: counter})
	}
	if !done.Duplicate {
		counter.bytesIn.Add(int64(len(p.Records)))
		counter.messagesIn.Add(count)
	}
	return nil
}

// Places in a v2 record batch header (KIP-98) that are looked at before the log validates all of it.
const (
	batchLengthAt     = 8
	batchMagicAt      = 16
	batchAttributesAt = 21
	batchProducerAt   = 43
	batchEpochAt      = 51
	batchCountAt      = 57
)

const (
	codecMask        = 0x07
	codecZstd        = 4
	transactionalBit = 0x10
	zstdSinceVersion = 7 // KIP-110
)

// checkRecords refuses what the protocol version or a missing feature forbids. What is wrong with the batch in itself is
// the log's business. The rules are those of Kafka's ProduceRequest.validateRecords: exactly one batch, of magic 2.
func checkRecords(version int16, records []byte) error {
	if len(records) < segment.BatchHeaderSize {
		return fmt.Errorf("%w: %d bytes are less than a batch header; one record batch per partition is expected", segment.ErrInvalidRecord, len(records))
	}
	if magic := records[batchMagicAt]; magic != 2 {
		return fmt.Errorf("%w: magic %d, only record batches of magic 2 are accepted", segment.ErrInvalidRecord, magic)
	}
	if size := int64(int32(binary.BigEndian.Uint32(records[batchLengthAt:]))) + 12; size >= segment.BatchHeaderSize && size < int64(len(records)) {
		return fmt.Errorf("%w: more than one record batch for one partition", segment.ErrInvalidRecord)
	}
	attributes := binary.BigEndian.Uint16(records[batchAttributesAt:])
	if attributes&codecMask == codecZstd && version < zstdSinceVersion {
		return fmt.Errorf("%w: zstd needs Produce v%d", segment.ErrUnsupportedCompression, zstdSinceVersion)
	}
	return nil
}

// Produce versions and what they know.
const (
	abortableVersion = 11 // TRANSACTION_ABORTABLE
	implicitVersion  = 12 // the broker adds partitions to transactions, and CONCURRENT_TRANSACTIONS is known
)

// producerOf is who wrote a batch of at least a header's size, and whether as part of a transaction.
func producerOf(records []byte) (who txn.Identity, transactional bool) {
	who = txn.Identity{ID: int64(binary.BigEndian.Uint64(records[batchProducerAt:])), Epoch: int16(binary.BigEndian.Uint16(records[batchEpochAt:]))}
	return who, binary.BigEndian.Uint16(records[batchAttributesAt:])&transactionalBit != 0
}

// joinAll adds all partitions of a request to the producer's transaction that are not part of it yet: with one record and one wait. What
// fails here is met again, partition by partition.
func (b *Broker) joinAll(ctx context.Context, snap *metadata.Snapshot, req *wire.ProduceRequest, id string, version int16) {
	var who txn.Identity
	var parts []txn.Partition
	rest := req.Partitions
	for i := range req.Topics {
		t := &req.Topics[i]
		topic, err := findTopic(snap, version >= 13, t.Name, t.ID)
		for _, p := range rest[:t.Partitions] {
			if err != nil || internalTopic(topic.Name) || len(p.Records) < segment.BatchHeaderSize {
				continue
			}
			writer, transactional := producerOf(p.Records)
			log, err := b.partitionOf(topic, p.Partition)
			if err != nil || log.Err() != nil || !transactional || len(parts) > 0 && writer != who {
				continue
			}
			if guard, open := log.GuardTxn(writer.ID, writer.Epoch); !open {
				log.DropGuard(writer.ID, guard)
				who, parts = writer, append(parts, txn.Partition{Topic: topic.Name, Index: p.Partition})
			}
		}
		rest = rest[t.Partitions:]
	}
	if len(parts) < 2 {
		return
	}
	if wait, err := b.txns.AddPartitions(ctx, id, who, parts, protocolImplicit); err == txn.None {
		_ = wait.Wait(ctx) // each partition waits for it, too
	}
}

// joinWrite makes sure that a transactional batch may be appended.
func (b *Broker) joinWrite(ctx context.Context, log txnLog, id *string, p txn.Partition, records []byte, version int16) (partition.TxnGuard, func(), error) {
	if id == nil {
		return 0, nil, kerr.TransactionalIDAuthorizationFailed
	}
	who, _ := producerOf(records)
	guard, drop, err := b.openTransaction(ctx, log, *id, who, p, version >= implicitVersion)
	switch err {
	case txn.None:
		return guard, drop, nil
	case txn.CoordinatorLoading, txn.CoordinatorNotAvailable, txn.NotCoordinator:
		return 0, nil, refuse(kerr.NotEnoughReplicas, "The transaction coordinator does not serve transactional id %s now.", *id)
	case txn.ConcurrentTransactions:
		if version < implicitVersion {
			return 0, nil, refuse(kerr.NotEnoughReplicas, "The transaction before is still being ended.")
		}
	}
	code := fencedCode(olderTxnCode(err, version >= abortableVersion), false)
	return 0, nil, kerr.ErrorForCode(int16(code))
}

func recordCount(records []byte) int64 {
	return int64(int32(binary.BigEndian.Uint32(records[batchCountAt:])))
}

// produceFailed turns an error into a partition's answer.
func (c *conn) produceFailed(reply *produceReply, topic string, err error, counter *topicCounter, out *wire.ProducedPartition) {
	code := c.b.code(err, "produce")
	*out = wire.ProducedPartition{Partition: out.Partition, ErrorCode: code, BaseOffset: -1, LogAppendTimeMs: -1, LogStartOffset: -1}
	if code != kerr.UnknownServerError.Code { // the text of an unexpected error stays in the log
		out.ErrorMessage = err.Error()
	}
	var refused *segment.RecordsError
	if errors.As(err, &refused) {
		for _, i := range refused.Indexes {
			out.RecordErrors = append(out.RecordErrors, wire.RecordError{BatchIndex: i, Message: refused.Reason})
		}
	}
	if counter != nil {
		counter.failedProduce.Add(1)
	}
	c.b.metrics.failed(reply.api.name, code)
}

// send waits for durability and answers.
func (r *produceReply) send(ctx context.Context, c *conn) error {
	defer r.drop()
	if len(r.waits) > 0 {
		wait := c.waits.begin(ctx, r.deadline)
		for _, w := range r.waits {
			if err := w.log.Durable(wait, w.next); err != nil {
				if ctx.Err() != nil {
					return ctx.Err() // the client is gone
				}
				c.produceFailed(r, "", err, w.topic, &r.resp.Partitions[w.index])
			}
		}
		c.waits.end()
	}
	durable := time.Now()
	c.b.metrics.produceWait.Observe(durable.Sub(r.appended).Seconds())
	buf := wire.NewBuffer(0)
	defer buf.Release()
	buf.B = wire.AppendProduce(buf.B, r.version, r.corr, &r.resp)
	err := c.out.Send(buf.B, nil)
	end := time.Now()
	c.b.metrics.produceSend.Observe(end.Sub(durable).Seconds())
	r.api.metrics.seconds.Observe(end.Sub(r.received).Seconds())
	return err
}

func (r *produceReply) ready(*conn) bool { return len(r.waits) == 0 }

func (r *produceReply) drop() {
	clear(r.resp.Topics)
	clear(r.resp.Partitions)
	clear(r.waits)
	produceReplies.Put(r)
}

// size is small next to the frame, which is gone by now.
func (r *produceReply) size() int { return 128 + 64*len(r.resp.Partitions) }
