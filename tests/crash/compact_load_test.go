package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// outcome is what became of a transaction. What is written without one is committed when it is answered.
type outcome int

const (
	undecided outcome = iota
	committedTxn
	abortedTxn
)

// keyTxn is a transaction, or one write without.
type keyTxn struct {
	id      string // transactional id, "" for none
	outcome outcome
	commit  bool // its commit was asked for, after everything in it had been answered
}

func (x *keyTxn) String() string {
	return fmt.Sprintf("%q (outcome %d, commit %t)", x.id, x.outcome, x.commit)
}

// version is one record of a key.
type version struct {
	key    keyID
	n      int
	gone   bool // a delete marker
	txn    *keyTxn
	offset int64 // -1: not answered
	once   bool  // nothing sends it twice
}

// keyTruth is what the writers know: of each key all versions in the order in which they were sent. A key belongs to one writer.
type keyTruth struct {
	mu     sync.Mutex
	of     map[keyID][]*version
	all    int
	ended  [3]int // transactions by outcome
	unsure []*keyTxn
}

// keysOfWriter is the number of keys of one writer in one topic.
const keysOfWriter = 40

// add makes the next version of a random key of a writer, and its record.
func (k *keyTruth) add(rng *rand.Rand, writer string, once bool, txn *keyTxn) (*version, *kgo.Record) {
	topic := forgetful
	if rng.IntN(2) == 0 {
		topic = faithful
	}
	id := keyID{topic, fmt.Sprintf("%s-k%d", writer, rng.IntN(keysOfWriter))}
	k.mu.Lock()
	defer k.mu.Unlock()
	v := &version{key: id, n: len(k.of[id]), gone: rng.IntN(8) == 0, txn: txn, offset: -1, once: once}
	k.of[id] = append(k.of[id], v)
	k.all++
	return v, &kgo.Record{Topic: topic, Key: []byte(id.key), Value: v.value(), Headers: []kgo.RecordHeader{{Key: "n", Value: strconv.AppendInt(nil, int64(v.n), 10)}}}
}

// value is 200 to 2200 bytes that follow from key and number, nil for a delete marker.
func (v *version) value() []byte {
	if v.gone {
		return nil
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s", v.key.topic, v.key.key) // a hash takes everything
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(v.n)))
	size := 200 + rng.IntN(2000)
	value := make([]byte, 0, size+10)
	for len(value) < size {
		value = fmt.Appendf(value, "%04d,", rng.IntN(50)*199) // every codec makes something of it
	}
	return value
}

// find gives what a record was sent as. Errors: it is not what was sent.
func (k *keyTruth) find(r *kgo.Record) (*version, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if string(r.Key) == "filler" {
		return nil, nil
	}
	versions := k.of[keyID{r.Topic, string(r.Key)}]
	if len(r.Headers) != 1 {
		return nil, fmt.Errorf("%s has %d headers", r.Key, len(r.Headers))
	}
	n, err := strconv.Atoi(string(r.Headers[0].Value))
	if err != nil || n >= len(versions) {
		return nil, fmt.Errorf("%s holds number %q of %d: %w", r.Key, r.Headers[0].Value, len(versions), err)
	}
	v := versions[n]
	if want := v.value(); !bytes.Equal(r.Value, want) || (r.Value == nil) != v.gone {
		return nil, fmt.Errorf("%s number %d holds %.40q, want %.40q", r.Key, n, r.Value, want)
	}
	if v.once && v.offset >= 0 && v.offset != r.Offset {
		return nil, fmt.Errorf("%s number %d was acknowledged at %d", r.Key, n, v.offset)
	}
	return v, nil
}

// answered notes where a version lies.
func (k *keyTruth) answered(v *version, offset int64) {
	k.mu.Lock()
	v.offset = offset
	k.mu.Unlock()
}

// decide notes the end of a transaction, or of a write without.
func (k *keyTruth) decide(txn *keyTxn, o outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	txn.outcome = o
	switch {
	case o == undecided:
		k.unsure = append(k.unsure, txn)
	case txn.id != "":
		k.ended[o]++
	}
}

func (k *keyTruth) total() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all
}

func (k *keyTruth) keys() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.of)
}

func (k *keyTruth) transactions() (committed, aborted int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended[committedTxn], k.ended[abortedTxn]
}

// keyedLoad is writers of keys at work, of all kinds and with all codecs, and a reader.
type keyedLoad struct {
	*load
	truth  *keyTruth
	adm    *kadm.Client
	seed   *rand.Rand
	finish chan struct{} // closed: the writers end between two writes
	once   sync.Once
	wg     sync.WaitGroup
	quiet  sync.RWMutex // held for a write by writers that live through kills, and by who wants none

	readStop context.CancelFunc
	reading  sync.WaitGroup
	shown    map[*version]bool // what the reader was shown
	settled  map[outcome]int   // interrupted transactions
}

func (k *keyedLoad) rng() *rand.Rand { return rand.New(rand.NewPCG(k.seed.Uint64(), 4)) }

// ending tells whether the writers are to end.
func (k *keyedLoad) ending() bool {
	select {
	case <-k.finish:
		return true
	default:
		return false
	}
}

// end lets the writers finish what they are at, and then the reader. The broker runs, or the test is over.
func (k *keyedLoad) end() {
	k.once.Do(func() {
		close(k.finish)
		k.wg.Wait()
		k.readStop()
		k.reading.Wait()
		for v := range k.shown {
			if v.txn.outcome == abortedTxn {
				k.t.Errorf("%s: record %d was shown to a reader of committed records; its transaction %s", v.key, v.n, v.txn)
			}
		}
	})
}

// lasting starts the writers that live through kills, idempotent and plain ones. What they send is in the log when they have ended.
func (k *keyedLoad) lasting() {
	for i, codec := range codecs {
		idempotent := i%2 == 0
		opts := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.RecordRetries(1 << 20), kgo.RecordDeliveryTimeout(0)}
		if !idempotent {
			opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1)) // one at a time keeps the order
		}
		cl, rng, name := k.client(opts...), k.rng(), fmt.Sprintf("lasting%d", i)
		k.wg.Go(func() {
			defer cl.Close()
			defer context.AfterFunc(k.t.Context(), cl.Close)() // a test that has failed does not wait for a dead broker
			for !k.ending() && k.t.Context().Err() == nil {
				k.quiet.RLock()
				txn := &keyTxn{}
				if err := k.write(k.t.Context(), cl, rng, name, idempotent, txn); err == nil {
					k.truth.decide(txn, committedTxn)
				} else if k.t.Context().Err() == nil {
					k.t.Errorf("%s: %v", name, err)
				}
				k.quiet.RUnlock()
			}
		})
	}
}

// write sends a few records and waits for the answers.
func (k *keyedLoad) write(ctx context.Context, cl *kgo.Client, rng *rand.Rand, writer string, once bool, txn *keyTxn) error {
	sent := map[*kgo.Record]*version{}
	var recs []*kgo.Record
	for range 1 + rng.IntN(8) {
		v, r := k.truth.add(rng, writer, once, txn)
		sent[r] = v
		recs = append(recs, r)
	}
	results := cl.ProduceSync(ctx, recs...)
	for _, res := range results {
		if res.Err == nil {
			k.truth.answered(sent[res.Record], res.Record.Offset)
		}
	}
	return results.FirstErr()
}

// mortal starts the transactional writers, which die with the broker: die ends them wherever they are, when it is dead and before it is
// started again, so that nothing of theirs is on its way then.
func (k *keyedLoad) mortal() (die func()) {
	ctx, cancel := context.WithCancel(k.t.Context())
	var life sync.WaitGroup
	for i, codec := range codecs {
		id, rng := fmt.Sprintf("txn%d", i), k.rng()
		life.Add(1)
		k.wg.Go(func() {
			defer life.Done()
			cl := k.client(kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute), kgo.ProducerBatchCompression(codec), kgo.RecordRetries(1<<20), kgo.RecordDeliveryTimeout(0))
			defer cl.Close()
			defer context.AfterFunc(ctx, cl.Close)() // nothing else ends a write of which something was sent
			for !k.ending() && ctx.Err() == nil {
				if err := k.transaction(ctx, cl, rng, id); err != nil && ctx.Err() == nil {
					k.t.Errorf("%s: %v", id, err)
					return
				}
			}
		})
	}
	return func() { cancel(); life.Wait() }
}

// transaction is one transaction, which may be long, and commits two times in three.
func (k *keyedLoad) transaction(ctx context.Context, cl *kgo.Client, rng *rand.Rand, id string) (err error) {
	txn := &keyTxn{id: id}
	fate := undecided
	defer func() { k.truth.decide(txn, fate) }()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	writes := 1 + rng.IntN(3)
	if rng.IntN(8) == 0 {
		writes = 25
	}
	for range writes {
		if err := k.write(ctx, cl, rng, id, true, txn); err != nil {
			return err
		}
	}
	txn.commit = rng.IntN(3) > 0
	if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(txn.commit)); err != nil {
		return err
	}
	if fate = abortedTxn; txn.commit {
		fate = committedTxn
	}
	return nil
}

// settle learns what became of interrupted transactions, and ends those that nobody else would.
func (k *keyedLoad) settle(ctx context.Context) {
	k.t.Helper()
	k.truth.mu.Lock()
	unsure := k.truth.unsure
	k.truth.unsure = nil
	k.truth.mu.Unlock()
	for _, txn := range unsure {
		state := k.describe(ctx, txn.id)
		o := abortedTxn
		switch {
		case txn.commit && (state == "PrepareCommit" || state == "CompleteCommit"):
			o = committedTxn
		case txn.commit && state != "Ongoing":
			k.t.Errorf("%s is %s: all its records were acknowledged, and nobody has aborted it", txn.id, state)
		case state == "Ongoing":
			cl := k.client(kgo.TransactionalID(txn.id))
			if _, _, err := cl.ProducerID(ctx); err != nil {
				k.t.Errorf("take over from %s: %v", txn.id, err)
			}
			cl.Close()
		}
		k.truth.decide(txn, o)
		k.settled[o]++
	}
}

// describe asks the coordinator for the state of a transactional id, as soon as it answers; "" when it knows none.
func (k *keyedLoad) describe(ctx context.Context, id string) (state string) {
	k.t.Helper()
	var err error
	answered := lagoontest.Poll(time.Minute, func() bool {
		d, asked := k.adm.DescribeTransactions(ctx, id)
		if err = asked; err == nil {
			state, err = d[id].State, d[id].Err
		}
		return err == nil || errors.Is(err, kerr.TransactionalIDNotFound)
	})
	if !answered {
		k.t.Fatalf("describe %s: %v", id, err)
	}
	return state
}

// stable waits until all transactions are over: readers of committed records see everything.
func (k *keyedLoad) stable(ctx context.Context) {
	k.t.Helper()
	open := 0
	var err error
	over := lagoontest.Poll(time.Minute, func() bool {
		var ends, stable kadm.ListedOffsets
		if ends, err = k.adm.ListEndOffsets(ctx, forgetful, faithful); err == nil {
			stable, err = k.adm.ListCommittedOffsets(ctx, forgetful, faithful)
		}
		if err = errors.Join(err, ends.Error(), stable.Error()); err != nil {
			return false
		}
		open = 0
		ends.Each(func(o kadm.ListedOffset) {
			if s, ok := stable.Lookup(o.Topic, o.Partition); !ok || s.Offset < o.Offset {
				open++
			}
		})
		return open == 0
	})
	if !over {
		k.t.Fatalf("%d partitions have open transactions: %v", open, err)
	}
}

// reader reads committed records from the start to the end, over and over, and notes what it is shown.
func (k *keyedLoad) reader() {
	ctx, cancel := context.WithCancel(k.t.Context())
	k.readStop = cancel
	k.reading.Go(func() {
		for ctx.Err() == nil {
			k.readOnce(ctx)
		}
	})
}

func (k *keyedLoad) readOnce(ctx context.Context) {
	cl := k.client(kgo.ConsumeTopics(forgetful, faithful), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(200*time.Millisecond), kgo.FetchMaxPartitionBytes(64<<10), kgo.KeepRetryableFetchErrors())
	defer cl.Close()
	for n := 1; n > 0 && ctx.Err() == nil; {
		limit, cancel := context.WithTimeout(ctx, time.Second)
		fs := cl.PollFetches(limit)
		cancel()
		k.fetchErrors(fs)
		n = fs.NumRecords() // none: at the end, or the broker is away
		fs.EachRecord(func(r *kgo.Record) {
			if v := k.known(r); v != nil {
				k.shown[v] = true
			}
		})
	}
}
