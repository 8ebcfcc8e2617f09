package broker

import (
	"context"
	"errors"
	"strconv"
	"time"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// transactionsSegmentBytes keeps the segments of the internal topic of transactions small: every start reads all of it, and the active
// segment is not compacted.
const transactionsSegmentBytes = 4 << 20

// transactionsTopic is the internal topic as it is to be made.
func (b *Broker) transactionsTopic() newTopic {
	return newTopic{name: transactions.Topic, partitions: b.opt.TransactionsPartitions, configs: map[string]string{
		"cleanup.policy": "compact", "compression.type": "uncompressed", "segment.bytes": strconv.Itoa(transactionsSegmentBytes),
	}}
}

// startTransactions makes sure that transactions can be kept: the topic comes into being when the first client needs it.
func (b *Broker) startTransactions(ctx context.Context) error {
	return b.startInternal(ctx, b.txns, b.transactionsTopic())
}

// newTransactions makes the coordinator.
func (b *Broker) newTransactions() (*transactions.Coordinator, error) {
	opt := b.opt.Transactions
	opt.Logger, opt.Registerer = b.log, b.opt.Registerer
	opt.Log = func(partition int32) (statetopic.Log, bool) {
		logs, ok := b.logs.(internalLogs)
		if !ok {
			return nil, false
		}
		return logs.transactionLog(partition)
	}
	opt.ProducerID = func() (int64, error) { return b.ids.take(b.meta.ReserveProducerIDs) }
	opt.WriteMarker = b.writeMarker
	return transactions.New(opt)
}

func (s storeLogs) transactionLog(partition int32) (statetopic.Log, bool) {
	l, ok := s.store.Log(transactions.Topic, partition)
	return syncedLog{l}, ok
}

// syncedLog is a partition that is synced whatever the topic's flush setting: a state that is lost while its effects are kept would leave
// transactions that nobody ends.
type syncedLog struct{ *partition.Log }

func (l syncedLog) Durable(ctx context.Context, next offset) error { return l.Synced(ctx, next) }

// writeMarker appends a transaction's marker to a partition, see transactions.Options.
func (b *Broker) writeMarker(ctx context.Context, p txn.Partition, m transactions.Marker) (wait func(context.Context) error, err error) {
	topic, ok := b.meta.Snapshot().Topic(p.Topic)
	if !ok || p.Index < 0 || p.Index >= topic.Partitions {
		return nil, transactions.ErrGone
	}
	if p.Topic == groups.Topic {
		return b.groups.EndTxn(p.Index, m.ProducerID, m.Epoch, m.Marker, m.AboveTxn)
	}
	log, err := b.partitionOf(topic, p.Index)
	if err != nil {
		return nil, err
	}
	done, err := log.Append(ctx, partition.AppendRequest{Internal: true, EpochPerTxn: m.AboveTxn,
		Records: segment.AppendMarker(nil, m.ProducerID, m.Epoch, m.Marker, time.Now().UnixMilli())})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return log.Synced(ctx, done.Next) }, nil
}

// olderTxnCode is a code as versions of an API know it that came before TRANSACTION_ABORTABLE (KIP-890).
func olderTxnCode(code txn.Error, knowsAbortable bool) txn.Error {
	if code == txn.Abortable && !knowsAbortable {
		return txn.InvalidTxnState
	}
	return code
}

// fencedCode is a code as versions of an API know it that came before PRODUCER_FENCED (KIP-588).
func fencedCode(code txn.Error, knowsFenced bool) txn.Error {
	if code == txn.ProducerFenced && !knowsFenced {
		return txn.InvalidProducerEpoch
	}
	return code
}

// openTransaction makes sure that a partition is part of the producer's transaction before a batch opens it there: a client of protocol 1
// has added it, with protocol 2 (implicit) it is added now. It returns when that is durable. drop gives the guard back when the batch
// could not be appended.
func (b *Broker) openTransaction(ctx context.Context, log txnLog, id string, who txn.Identity, p txn.Partition, implicit bool) (guard partition.TxnGuard, drop func(), err txn.Error) {
	guard, open := log.GuardTxn(who.ID, who.Epoch)
	if open {
		return 0, func() {}, txn.None
	}
	log.DropGuard(who.ID, guard)
	if err = b.joinTransaction(ctx, id, who, p, implicit); err != txn.None {
		return 0, func() {}, err
	}
	// While that took, the marker of the transaction before may have come. With a guard that is younger than it, asking again tells about
	// this transaction: only its own marker can take the guard now.
	guard, _ = log.GuardTxn(who.ID, who.Epoch)
	drop = func() { log.DropGuard(who.ID, guard) }
	if _, err = b.txns.Verify(ctx, id, who, p); err != txn.None {
		drop()
	}
	return guard, drop, err
}

// joinTransaction makes p part of a transaction, or asks whether it is, and waits until that is durable.
func (b *Broker) joinTransaction(ctx context.Context, id string, who txn.Identity, p txn.Partition, implicit bool) (err txn.Error) {
	var wait transactions.Pending
	if implicit {
		wait, err = b.txns.AddPartitions(ctx, id, who, []txn.Partition{p}, protocolImplicit)
	} else {
		wait, err = b.txns.Verify(ctx, id, who, p)
	}
	if err == txn.None {
		err = wait.Wait(ctx)
	}
	return err
}

// Transaction protocols (KIP-890): in the second, writing to a partition adds it.
const (
	protocolExplicit = 1
	protocolImplicit = 2
)

// groupTxnLog is the partition of __consumer_offsets that keeps a group, see txnLog.
type groupTxnLog struct {
	groups *groups.Coordinator
	group  string
}

func (l groupTxnLog) GuardTxn(producerID int64, epoch int16) (partition.TxnGuard, bool) {
	return l.groups.GuardTxn(l.group, producerID, epoch)
}

func (l groupTxnLog) DropGuard(producerID int64, guard partition.TxnGuard) {
	l.groups.DropGuard(l.group, producerID, guard)
}

// txnLog is what opening a transaction needs of a partition.
type txnLog interface {
	GuardTxn(producerID int64, epoch int16) (guard partition.TxnGuard, open bool)
	DropGuard(producerID int64, guard partition.TxnGuard)
}

// coordinator is what serves an internal topic.
type coordinator interface {
	Started() bool
	Start(partitions int32)
}

// startInternal makes sure that a coordinator serves its topic.
func (b *Broker) startInternal(ctx context.Context, c coordinator, topic newTopic) error {
	if c.Started() {
		return nil
	}
	if t, ok := b.meta.Snapshot().Topic(topic.name); ok {
		// On record; whoever makes it holds its lock until its partitions are served.
		unlock, err := b.meta.LockTopic(ctx, topic.name)
		if err != nil {
			return err
		}
		defer unlock()
		c.Start(t.Partitions)
		return nil
	}
	t, err := b.createTopic(ctx, topic)
	if errors.Is(err, metadata.ErrTopicExists) {
		return nil // another client was faster
	}
	if err != nil {
		if b.noise.Allow() {
			b.log.Error("internal topic not created", "topic", topic.name, "err", err)
		}
		return err
	}
	b.log.Info("internal topic created", "topic", t.Name, "partitions", t.Partitions)
	return nil
}
