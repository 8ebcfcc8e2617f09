package crash

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"lagoon/tests/internal/lagoontest"
)

// pipeline copies a topic to another in transactions together with its own offsets, as a stream processor does.
type pipeline struct {
	l               *load
	number          int
	commits, aborts atomic.Int64
}

func (p *pipeline) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.session(ctx)
	}
}

// session works until something goes wrong that it does not go on after; the next one has the same transactional id.
func (p *pipeline) session(ctx context.Context) {
	sess, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(p.l.b.Bootstrap()), kgo.TransactionalID(fmt.Sprintf("copy-%d", p.number)), kgo.TransactionTimeout(10*time.Second),
		kgo.ConsumerGroup("copy"), kgo.ConsumeTopics("in"), kgo.DefaultProduceTopic("out"), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		p.l.t.Error(err)
		return
	}
	defer sess.Close()
	for ctx.Err() == nil {
		fetches := sess.PollRecords(ctx, 100)
		if ctx.Err() != nil || sess.Begin() != nil {
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			sess.Produce(ctx, &kgo.Record{Key: r.Key, Value: r.Value}, nil)
		})
		try := kgo.TransactionEndTry((p.commits.Load()+p.aborts.Load())%10 != 9)
		tried, cancel := context.WithTimeout(ctx, time.Minute)
		// An abort drops what is still in the client: there would be nothing that readers must not see.
		err := sess.Client().Flush(tried)
		committed := false
		if err == nil {
			committed, err = sess.End(tried, try)
		}
		cancel()
		if err != nil {
			return
		}
		if committed {
			p.commits.Add(1)
		} else {
			p.aborts.Add(1)
		}
	}
}

// committedEnds is how many records, markers included, each partition holds for readers of committed ones.
func committedEnds(ctx context.Context, t *testing.T, b *lagoontest.Broker, topic string) map[int32]int64 {
	t.Helper()
	ends, err := lagoontest.AdminClient(t, b).ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out
}

// values reads a topic up to its last stable offsets as a reader of committed records, and counts the values.
func values(ctx context.Context, t *testing.T, b *lagoontest.Broker, topic string) map[string]int {
	t.Helper()
	left := committedEnds(ctx, t, b, topic)
	from := map[int32]kgo.Offset{}
	for p, end := range left {
		from[p] = kgo.NewOffset().At(0)
		if end == 0 {
			delete(left, p)
		}
	}
	cl := lagoontest.Client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	defer cl.Close()
	out := map[string]int{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %s: %v, up to %v is missing", topic, ctx.Err(), left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out[string(r.Value)]++
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// TestKillTransactions: a pipeline from topic to topic over three partitions goes on through kill -9 of the broker, and readers of
// committed records see each input exactly once. Short: 3 kills.
func TestKillTransactions(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"groups.initial_rebalance_delay=0s"}})
	lagoontest.CreateTopic(t, b, "in", 3, "segment.bytes", "1048576")
	lagoontest.CreateTopic(t, b, "out", 3, "segment.bytes", "1048576")
	l := &load{t: t, b: b}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	feeding, full := context.WithCancel(ctx)
	var fed sync.WaitGroup
	fed.Go(func() {
		cl := l.client(kgo.DefaultProduceTopic("in"))
		defer cl.Close()
		for i := 0; feeding.Err() == nil; i++ {
			key := fmt.Sprintf("%08d", i)
			_ = cl.ProduceSync(ctx, &kgo.Record{Key: []byte(key), Value: []byte(key)}) // what is in the topic counts, acknowledged or not
		}
	})
	all := make([]*pipeline, 2)
	for i := range all {
		all[i] = &pipeline{l: l, number: i}
		wg.Go(func() { all[i].run(ctx) })
	}
	n := cycles(t, 3)
	for range n {
		life := 1000 + r.IntN(1500)
		if long() {
			life = 3000 + r.IntN(7000)
		}
		timer := time.NewTimer(time.Duration(life) * time.Millisecond)
		select {
		case <-timer.C:
		case <-b.Exited():
			t.Fatal("the broker ended by itself")
		}
		b.Kill()
		b.Restart()
	}
	full()
	fed.Wait()
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	in := values(limit, t, b, "in")
	out := map[string]int{}
	for len(out) < len(in) && limit.Err() == nil { // the rest is on its way; a transaction that a kill left open ends by its timeout
		out = values(limit, t, b, "out")
	}
	for v := range in {
		if out[v] != in[v] {
			t.Errorf("%s is there %d times", v, out[v])
		}
	}
	if len(out) != len(in) || len(in) == 0 {
		t.Errorf("%d inputs, %d outputs", len(in), len(out))
	}
	commits, aborts := int64(0), int64(0)
	for _, p := range all {
		commits, aborts = commits+p.commits.Load(), aborts+p.aborts.Load()
	}
	t.Logf("%d kills, %d records, %d transactions committed, %d aborted", n, len(in), commits, aborts)
}

// TestKillFirstTransaction: the first transactional client of a broker has __transaction_state made. Whatever of the topic is there when the
// broker is killed, the same client's transaction goes on and is committed.
func TestKillFirstTransaction(t *testing.T) {
	for _, partitions := range []int{1, 25, 50} {
		t.Run(fmt.Sprintf("partitions=%d", partitions), func(t *testing.T) {
			b := lagoontest.Start(t, lagoontest.Options{})
			lagoontest.CreateTopic(t, b, "out", 1)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			made, killed := 0, make(chan struct{})
			newWatcher(t, b.TierPath("ssd")).on(func(ev fileEvent) {
				if ev.Mask&unix.IN_ISDIR == 0 || !strings.HasPrefix(ev.Name, "__transaction_state-") {
					return
				}
				if made++; made == partitions {
					_ = unix.Kill(b.PID(), unix.SIGKILL)
					close(killed)
				}
			})
			l := &load{t: t, b: b}
			cl := l.client(kgo.DefaultProduceTopic("out"), kgo.TransactionalID("first"))
			defer cl.Close()
			done := make(chan error, 1)
			go func() {
				err := cl.BeginTransaction()
				if err == nil {
					err = cl.ProduceSync(ctx, kgo.StringRecord("first")).FirstErr()
				}
				if err == nil {
					err = cl.EndTransaction(ctx, kgo.TryCommit)
				}
				done <- err
			}()
			select {
			case <-killed:
			case <-ctx.Done():
				t.Fatal("the topic did not come into being")
			}
			b.Kill()
			b.Restart()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			reader := l.client(kgo.ConsumeTopics("out"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
			defer reader.Close()
			for read := 0; read == 0; read = reader.PollFetches(ctx).NumRecords() { // when the marker is durable
				if ctx.Err() != nil {
					t.Fatal("the transaction was committed, and nobody can read it")
				}
			}
		})
	}
}
