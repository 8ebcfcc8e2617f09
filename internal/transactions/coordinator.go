package transactions

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// Coordinator keeps all transactional ids. Methods are safe for concurrent use.
type Coordinator struct {
	opt     Options
	metrics *metrics
	bytes   atomic.Int64 // of all ids, about

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	startMu sync.Mutex
	shards  atomic.Pointer[[]*shard] // nil until the topic is there
}

// New makes a coordinator that has no ids until Start.
func New(opt Options) (*Coordinator, error) {
	opt = opt.withDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{opt: opt}
	c.ctx, c.stop = context.WithCancel(context.Background())
	var err error
	c.metrics, err = newMetrics(c)
	return c, err
}

// Start begins to serve a topic of that many partitions: it loads them in the background, and goes on with the transactions whose end
// is on record. An id whose shard is not loaded is answered with CoordinatorLoading. Later calls do nothing.
func (c *Coordinator) Start(partitions int32) {
	c.startMu.Lock()
	defer c.startMu.Unlock()
	if c.shards.Load() != nil || c.ctx.Err() != nil || partitions <= 0 {
		return
	}
	shards := make([]*shard, partitions)
	for i := range shards {
		shards[i] = &shard{c: c, partition: int32(i), ids: map[string]*entry{}}
	}
	c.shards.Store(&shards)
	next := atomic.Int32{}
	for range min(statetopic.LoadParallel, len(shards)) {
		c.wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(shards) && c.ctx.Err() == nil; i = next.Add(1) - 1 {
				shards[i].load()
			}
		})
	}
	c.wg.Go(c.expireLoop)
}

// Started tells whether there is a topic.
func (c *Coordinator) Started() bool { return c.shards.Load() != nil }

// Close ends background work. Transactions that are being ended go on at the next start.
func (c *Coordinator) Close() {
	c.startMu.Lock()
	c.stop()
	c.startMu.Unlock()
	c.wg.Wait()
}

func (c *Coordinator) all() []*shard {
	if s := c.shards.Load(); s != nil {
		return *s
	}
	return nil
}

// maxIDBytes is what the length in the key of a record can say. Kafka takes no longer string in a request either.
const maxIDBytes = math.MaxInt16

// shardOf finds the shard of an id that can be served.
func (c *Coordinator) shardOf(id string) (*shard, txn.Error) {
	if id == "" || len(id) > maxIDBytes {
		return nil, txn.InvalidRequest
	}
	shards := c.all()
	if shards == nil || c.ctx.Err() != nil {
		return nil, txn.CoordinatorNotAvailable
	}
	s := shards[statetopic.PartitionFor(id, int32(len(shards)))]
	switch s.state.Load() {
	case shardLoading:
		return nil, txn.CoordinatorLoading
	case shardFailed:
		return nil, txn.NotCoordinator
	}
	return s, txn.None
}

var errNoLog = errors.New("transactions: partition of " + Topic + " is not served")

// refusal is the Kafka error of a failed append or sync: clients look for the coordinator again and retry.
func refusal(err error) txn.Error {
	switch {
	case err == nil:
		return txn.None
	case errors.Is(err, partition.ErrDiskFull), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return txn.CoordinatorNotAvailable
	}
	return txn.NotCoordinator
}

// Pending is a change that is written and not yet durable; the zero value is nothing to wait for.
type Pending struct {
	log     statetopic.Log
	next    segment.Offset
	timeout time.Duration
}

// Wait returns when the change is durable, with Kafka's error when it will not be, or not in time.
func (p Pending) Wait(ctx context.Context) txn.Error {
	if p.log == nil {
		return txn.None
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return refusal(p.log.Durable(ctx, p.next))
}

// change runs an event on an id, under the shard's lock, and writes what it changed. While the transaction before is being ended it
// waits for a moment and asks again. create makes an id that is not there.
// rotates: the event uses a new producer id if it is to be had, see txn.Txn.NeedsNewID.
func (c *Coordinator) change(ctx context.Context, id string, create, rotates bool, event func(t *txn.Txn, nextID int64) txn.Error) (wait Pending, err txn.Error) {
	s, err := c.shardOf(id)
	if err != txn.None {
		return wait, err
	}
	timeout := time.NewTimer(c.opt.SettleTimeout)
	defer timeout.Stop()
	for {
		wait, settled, err := s.change(id, create, rotates, event)
		if err != txn.ConcurrentTransactions || settled == nil {
			return wait, err
		}
		select {
		case <-settled:
		case <-timeout.C:
			return wait, err
		case <-ctx.Done():
			return wait, err
		}
	}
}

// InitProducer gives a client its producer id and epoch, and fences the one that had the id before; see txn.Txn.InitProducer.
func (c *Coordinator) InitProducer(ctx context.Context, id string, who txn.Identity, timeout time.Duration) (txn.Identity, Pending, txn.Error) {
	if timeout <= 0 || timeout > c.opt.MaxTimeout {
		return txn.Unknown, Pending{}, txn.InvalidTimeout
	}
	got := txn.Unknown
	wait, err := c.change(ctx, id, true, true, func(t *txn.Txn, nextID int64) (err txn.Error) {
		got, err = t.InitProducer(who, timeout, nextID, c.opt.Now())
		return err
	})
	if err != txn.None {
		got = txn.Unknown
	}
	return got, wait, err
}

func (c *Coordinator) newID() (int64, txn.Error) {
	id, err := c.opt.ProducerID()
	if err != nil {
		c.opt.Logger.Error("no producer id to give out", "err", err)
		return txn.NoProducerID, txn.CoordinatorNotAvailable
	}
	return id, txn.None
}

// AddPartitions makes partitions part of the client's transaction; protocol is 2 when the client has not asked for it.
func (c *Coordinator) AddPartitions(ctx context.Context, id string, who txn.Identity, parts []txn.Partition, protocol int16) (Pending, txn.Error) {
	return c.change(ctx, id, false, false, func(t *txn.Txn, _ int64) txn.Error { return t.AddPartitions(who, parts, protocol, c.opt.Now()) })
}

// Verify tells whether the client has made p part of its transaction.
func (c *Coordinator) Verify(ctx context.Context, id string, who txn.Identity, p txn.Partition) (Pending, txn.Error) {
	return c.change(ctx, id, false, false, func(t *txn.Txn, _ int64) txn.Error { return t.Verify(who, p) })
}

// End prepares the end of the client's transaction: when Pending.Wait says so it is decided. next is what the client goes on as, which
// is another identity in protocol 2.
func (c *Coordinator) End(ctx context.Context, id string, who txn.Identity, commit bool, protocol int16) (next txn.Identity, wait Pending, err txn.Error) {
	next = txn.Unknown
	wait, err = c.change(ctx, id, false, protocol >= 2, func(t *txn.Txn, nextID int64) (err txn.Error) {
		if err = t.End(who, commit, protocol, nextID, c.opt.Now()); err == txn.None {
			next = t.Next()
		}
		return err
	})
	return next, wait, err
}

// expireLoop aborts transactions that run for too long and forgets ids that nobody uses. A shard whose device does not answer holds up its
// own alone.
func (c *Coordinator) expireLoop() {
	t := time.NewTicker(c.opt.CheckInterval)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			for _, s := range c.all() {
				if s.state.Load() == shardReady && s.expiring.CompareAndSwap(false, true) {
					c.wg.Go(func() {
						defer s.expiring.Store(false)
						s.expire(c.opt.Now())
					})
				}
			}
		}
	}
}
