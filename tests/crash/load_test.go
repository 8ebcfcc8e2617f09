package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/crash/history"
	"lagoon/tests/internal/lagoontest"
)

// loadOptions say what runs against a broker.
type loadOptions struct {
	Topic          string
	Partitions     int32
	Idempotent     int     // producers
	Plain          int     // producers without idempotence
	Tail           int     // consumers that never stop
	Lagging        int     // consumers that begin again at offset 0 whenever they reach the end
	Random         int     // raw fetches at random offsets
	BytesPerSecond float64 // of all producers together
	// NoErrors: nobody kills the broker, so any error that a reader is told of is a finding. Otherwise only what no crash
	// excuses is.
	NoErrors bool
	Seed     uint64
}

// load is clients at work, and what they recorded.
type load struct {
	t    *testing.T
	b    *lagoontest.Broker
	opt  loadOptions
	rec  *history.Recorder
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	produceCtx  context.Context
	produceStop context.CancelFunc
	producers   sync.WaitGroup
	clients     []*kgo.Client

	mu      sync.Mutex
	fetches map[string]int64 // by kind of reader
}

var codecs = []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(), kgo.GzipCompression()}

// startLoad makes the topic and starts everybody. Everything ends with the test.
func startLoad(t *testing.T, b *lagoontest.Broker, opt loadOptions, configs ...string) *load {
	t.Helper()
	lagoontest.CreateTopic(t, b, opt.Topic, opt.Partitions, append([]string{"retention.ms", "-1"}, configs...)...)
	l := &load{t: t, b: b, opt: opt, rec: history.New(int(opt.Partitions)), fetches: map[string]int64{}}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.produceCtx, l.produceStop = context.WithCancel(l.ctx)
	t.Cleanup(l.end)
	all := opt.Idempotent + opt.Plain
	for i := range all {
		l.produce(i, i < opt.Idempotent, opt.BytesPerSecond/float64(all))
	}
	for range opt.Tail {
		l.wg.Go(l.tail)
	}
	for i := range opt.Lagging {
		l.wg.Go(func() { l.lagging(i) })
	}
	for i := range opt.Random {
		l.wg.Go(func() { l.random(i) })
	}
	return l
}

// end stops everybody.
func (l *load) end() {
	l.stop()
	l.producers.Wait()
	l.wg.Wait()
	for _, cl := range l.clients {
		cl.Close()
	}
	l.clients = nil
}

func (l *load) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(l.b.Bootstrap()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.MetadataMaxAge(2 * time.Second),
		kgo.DialTimeout(10 * time.Second),
		kgo.RequestTimeoutOverhead(time.Minute), // a dead broker is a broken connection: only a busy machine takes so long
		kgo.RetryTimeout(3 * time.Minute),
		kgo.AlwaysRetryEOF(), // a broker that dies right after accepting is not one that wants TLS
	}, opts...)...)
	if err != nil {
		panic(fmt.Sprintf("franz-go options: %v", err))
	}
	return cl
}

// produce runs one producer. It never gives a record up, so that after a flush all it sent is in the log.
func (l *load) produce(number int, idempotent bool, bytesPerSecond float64) {
	opts := []kgo.Opt{
		kgo.ClientID(fmt.Sprintf("producer-%d", number)),
		kgo.DefaultProduceTopic(l.opt.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codecs[number%len(codecs)]), kgo.ProducerLinger(2 * time.Millisecond), kgo.UnknownTopicRetries(-1),
		kgo.ProducerBatchMaxBytes(256 << 10), kgo.MaxBufferedRecords(2000), kgo.MaxBufferedBytes(4 << 20), kgo.ProduceRequestTimeout(5 * time.Second),
	}
	if idempotent {
		opts = append(opts, kgo.StopProducerOnDataLossDetected()) // a false OUT_OF_ORDER_SEQUENCE becomes an error
	} else {
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1)) // one at a time keeps the order
	}
	cl := l.client(opts...)
	l.clients = append(l.clients, cl)
	me := l.rec.AddProducer(idempotent)
	r := rand.New(rand.NewPCG(l.opt.Seed, uint64(number)))
	l.producers.Go(func() {
		started, sent := time.Now(), 0.0
		for l.produceCtx.Err() == nil {
			id := l.rec.Attempt(me, r.Int32N(l.opt.Partitions))
			value := history.Value(id, size(r))
			cl.Produce(l.ctx, &kgo.Record{Partition: id.Partition, Value: value}, func(rec *kgo.Record, err error) {
				switch {
				case err == nil:
					l.rec.Acked(id, rec.Offset)
				case l.ctx.Err() == nil:
					l.rec.Problemf("%v (idempotent %t): not produced: %v", id, idempotent, err)
				}
			})
			sent += float64(len(value))
			if ahead := time.Duration(sent/bytesPerSecond*float64(time.Second)) - time.Since(started); ahead > 0 {
				select {
				case <-time.After(ahead):
				case <-l.produceCtx.Done():
				}
			} else if ahead < -time.Second { // what an outage kept back is not caught up with: that would only fill the disk
				started, sent = time.Now(), 0
			}
		}
	})
}

// size is between 100 B and 64 KiB, small ones far more often.
func size(r *rand.Rand) int {
	n := 100 << r.IntN(10)
	return min(n+r.IntN(n), 64<<10)
}

func (l *load) consumer(offset kgo.Offset, opts ...kgo.Opt) *kgo.Client {
	from := map[int32]kgo.Offset{}
	for p := range l.opt.Partitions {
		from[p] = offset
	}
	return l.client(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.opt.Topic: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepRetryableFetchErrors(), kgo.FetchMaxWait(200 * time.Millisecond),
	}, opts...)...)
}

// poll takes what there is and records it; false when nothing came before the context ended.
func (l *load) poll(ctx context.Context, kind string, cl *kgo.Client) (records int) {
	fetches := cl.PollFetches(ctx)
	fetches.EachError(func(_ string, p int32, err error) { l.fetchError(kind, p, err) })
	fetches.EachRecord(func(r *kgo.Record) {
		l.rec.Saw(r.Partition, r.Offset, r.Value)
		records++
	})
	l.count(kind, int64(records))
	return records
}

// fetchError sorts what a reader is told: connections break when brokers die, and a starting one may not lead yet.
func (l *load) fetchError(kind string, partition int32, err error) {
	if l.ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	var code *kerr.Error
	if !l.opt.NoErrors && (!errors.As(err, &code) || code.Retriable && !errors.Is(err, kerr.CorruptMessage)) {
		return
	}
	l.rec.Problemf("%s reader, partition %d: %v", kind, partition, err)
}

func (l *load) count(kind string, n int64) {
	l.mu.Lock()
	l.fetches[kind] += n
	l.mu.Unlock()
}

func (l *load) tail() {
	cl := l.consumer(kgo.NewOffset().At(0), kgo.ClientID("tail"))
	defer cl.Close()
	for l.ctx.Err() == nil {
		l.poll(l.ctx, "tail", cl)
	}
}

// lagging reads from the start in small steps, over and over.
func (l *load) lagging(number int) {
	for l.ctx.Err() == nil {
		cl := l.consumer(kgo.NewOffset().At(0), kgo.ClientID(fmt.Sprintf("lagging-%d", number)),
			kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(256<<10), kgo.MaxConcurrentFetches(1))
		for l.ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(l.ctx, time.Second)
			n := l.poll(ctx, "lagging", cl)
			cancel()
			if n < 20 { // at the end, or the broker is away
				break
			}
		}
		cl.Close()
	}
}

// random reads a piece of a random partition at a random offset, without any help of a client that hides errors.
func (l *load) random(number int) {
	cl := l.client(kgo.ClientID(fmt.Sprintf("random-%d", number)))
	defer cl.Close()
	r := rand.New(rand.NewPCG(l.opt.Seed, 1000+uint64(number)))
	for l.ctx.Err() == nil {
		partition := r.Int32N(l.opt.Partitions)
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		err := l.fetchOnce(ctx, cl, partition, r)
		cancel()
		if err != nil {
			l.fetchError("random", partition, err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-l.ctx.Done():
			}
		}
	}
}

// fetchOnce looks where the log is and reads from somewhere in it.
func (l *load) fetchOnce(ctx context.Context, cl *kgo.Client, partition int32, r *rand.Rand) error {
	p, err := rawFetch(ctx, cl, l.opt.Topic, partition, 0, 1)
	if err != nil || p.HighWatermark == 0 {
		return err
	}
	return l.readAt(ctx, cl, partition, r.Int64N(p.HighWatermark))
}

// readAt fetches at an offset that is there. A cold read may need several requests until it comes.
func (l *load) readAt(ctx context.Context, cl *kgo.Client, partition int32, offset int64) error {
	for ctx.Err() == nil {
		p, err := rawFetch(ctx, cl, l.opt.Topic, partition, offset, 512<<10)
		if err != nil {
			return err
		}
		out, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: offset, Topic: l.opt.Topic, Partition: partition},
			p, kgo.DefaultDecompressor(), nil)
		if out.Err != nil {
			return out.Err
		}
		for _, rec := range out.Records {
			l.rec.Saw(partition, rec.Offset, rec.Value)
		}
		l.count("random", int64(len(out.Records)))
		if len(out.Records) > 0 {
			if first := out.Records[0].Offset; first != offset {
				l.rec.Problemf("partition %d: a fetch at %d began with %d", partition, offset, first)
			}
			return nil
		}
	}
	return ctx.Err()
}

// rawFetch is one Fetch request for one partition.
func rawFetch(ctx context.Context, cl *kgo.Client, topic string, partition int32, offset int64, maxBytes int32) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 11, 200, 1, maxBytes, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, offset, maxBytes, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	got, err := cl.Broker(1).Request(ctx, maxVersion{req, 11})
	if err != nil {
		return nil, err
	}
	resp := got.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("fetch of one partition: response has %d topics", len(resp.Topics))
	}
	p := &resp.Topics[0].Partitions[0]
	return p, kerr.ErrorForCode(p.ErrorCode)
}

// maxVersion keeps franz-go from raising a request's version: topics go by name here.
type maxVersion struct {
	*kmsg.FetchRequest
	version int16
}

func (m maxVersion) MaxVersion() int16 { return m.version }

// flush stops producing for good and waits until everything sent is acked.
func (l *load) flush() {
	l.t.Helper()
	l.produceStop()
	l.producers.Wait()
	ctx, cancel := context.WithTimeout(l.ctx, 3*time.Minute)
	defer cancel()
	for _, cl := range l.clients {
		if err := cl.Flush(ctx); err != nil {
			l.t.Errorf("flush: %v: %d records without an answer", err, l.rec.Unacked())
			return
		}
	}
}

// ends asks for all end offsets and compares them with what is known.
func (l *load) ends() []int64 {
	l.t.Helper()
	cl := l.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(l.ctx, 2*time.Minute)
	defer cancel()
	known := l.rec.Known()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, l.opt.Topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		l.t.Fatalf("list offsets: %v", err)
	}
	ends := make([]int64, l.opt.Partitions)
	for p := range ends {
		o, ok := listed.Lookup(l.opt.Topic, int32(p))
		if !ok {
			l.t.Fatalf("list offsets: partition %d is missing", p)
		}
		ends[p] = o.Offset
		l.rec.EndOffset(int32(p), o.Offset, known[p])
	}
	return ends
}

// readAll has a new consumer read everything from the start to the ends.
func (l *load) readAll(ends []int64) {
	l.t.Helper()
	cl := l.consumer(kgo.NewOffset().At(0), kgo.ClientID("verifier"))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Minute)
	defer cancel()
	next := make([]int64, len(ends))
	for less(next, ends) {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			l.t.Fatalf("reading everything: %v at %v of %v", ctx.Err(), next, ends)
		}
		fetches.EachError(func(_ string, p int32, err error) { l.fetchError("verifying", p, err) })
		fetches.EachRecord(func(r *kgo.Record) {
			l.rec.Saw(r.Partition, r.Offset, r.Value)
			if r.Offset != next[r.Partition] {
				l.rec.Problemf("partition %d: offset %d follows %d", r.Partition, r.Offset, next[r.Partition]-1)
			}
			next[r.Partition] = r.Offset + 1
		})
	}
}

// less: some partition is not at its end yet.
func less(next, ends []int64) bool {
	for i := range next {
		if next[i] < ends[i] {
			return true
		}
	}
	return false
}

// verify ends the load, reads all of the log and passes judgement.
func (l *load) verify() history.Found {
	l.t.Helper()
	l.flush()
	ends := l.ends()
	l.readAll(ends)
	found := l.rec.Check(ends)
	l.stop()
	l.wg.Wait()
	l.report()
	attempts, acks, sightings := l.rec.Totals()
	if acks == 0 || sightings == 0 {
		l.t.Errorf("nothing was tested: %d sent, %d acked, %d read", attempts, acks, sightings)
	}
	l.t.Logf("%d records sent, %d acked, %d in the log, %d plain duplicates, %d reads (%v)",
		attempts, acks, found.Records, found.Duplicates, sightings, l.fetches)
	return found
}

// report fails the test with what the recorder found.
func (l *load) report() {
	l.t.Helper()
	if p := l.rec.Problems(); len(p) > 0 {
		l.t.Errorf("%d findings:\n%s", len(p), strings.Join(p, "\n"))
	}
}
