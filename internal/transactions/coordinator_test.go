package transactions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/groups/groupstest"
	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// world is a coordinator over one partition of the topic in memory, and what it does to other partitions.
type world struct {
	t   *testing.T
	log *groupstest.Log

	mu      sync.Mutex
	nextID  int64
	markers []string
	fail    error // of the next markers
	hold    chan struct{}
	deaf    chan struct{} // orders-0 takes no marker before it is closed; nil: at once
	ahead   time.Duration // of the clock, when a coordinator starts
	logger  *slog.Logger
	wrap    func(statetopic.Log) statetopic.Log // nil: as it is
	broken  bool
}

func newWorld(t *testing.T) *world {
	return &world{t: t, log: &groupstest.Log{}, nextID: 100, logger: slog.New(slog.DiscardHandler)}
}

func (w *world) start() *transactions.Coordinator {
	w.t.Helper()
	ahead := w.ahead
	c, err := transactions.New(transactions.Options{
		Now: func() time.Time { return time.Now().Add(ahead) },
		Log: func(int32) (statetopic.Log, bool) {
			if w.wrap != nil {
				return w.wrap(w.log), true
			}
			return w.log, true
		},
		ProducerID: func() (int64, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.nextID++
			return w.nextID - 1, nil
		},
		WriteMarker: w.writeMarker,
		Logger:      w.logger,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c.Start(1)
	synctest.Wait()
	return c
}

func (w *world) writeMarker(_ context.Context, p txn.Partition, m transactions.Marker) (func(context.Context) error, error) {
	if w.deaf != nil && p == parts[0] {
		<-w.deaf
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return nil, w.fail
	}
	hold := w.hold
	w.markers = append(w.markers, fmt.Sprintf("%s-%d %d/%d %v", p.Topic, p.Index, m.ProducerID, m.Epoch, m.Commit))
	return func(ctx context.Context) error {
		if hold == nil {
			return nil
		}
		select {
		case <-hold:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil
}

// written gives the markers since it was asked last, sorted.
func (w *world) written() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.markers
	w.markers = nil
	slices.Sort(out)
	return out
}

func (w *world) want(what string, got, want any) {
	w.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

var parts = []txn.Partition{{Topic: "orders", Index: 0}, {Topic: "stock", Index: 2}}

func (w *world) open(c *transactions.Coordinator, id string) txn.Identity {
	w.t.Helper()
	who, wait, err := c.InitProducer(w.t.Context(), id, txn.Unknown, time.Minute)
	if err != txn.None || wait.Wait(w.t.Context()) != txn.None {
		w.t.Fatalf("init %s: %d", id, err)
	}
	if wait, err = c.AddPartitions(w.t.Context(), id, who, parts, 1); err != txn.None || wait.Wait(w.t.Context()) != txn.None {
		w.t.Fatalf("add to %s: %d", id, err)
	}
	return who
}

func (w *world) state(c *transactions.Coordinator, id string) string {
	synctest.Wait()
	r, err := c.Describe(id)
	if err != txn.None {
		return fmt.Sprint("error ", err)
	}
	return fmt.Sprintf("%s %d/%d %v", r.State, r.ProducerID, r.Epoch, r.Partitions)
}

func TestMarkersFollowTheDecisionOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		w.log.Hold()
		_, wait, err := c.End(t.Context(), "tx", who, true, 1)
		w.want("end", err, txn.None)
		w.want("markers before the decision is durable", w.written(), "[]")
		w.log.Sync()
		w.want("durable", wait.Wait(t.Context()), txn.None)
		w.want("markers", w.written(), "[orders-0 100/0 true stock-2 100/0 true]")
		w.want("state", w.state(c, "tx"), "CompleteCommit 100/0 []")
		// The crash takes the record of completion back, which was not durable: the markers come again.
		c.Close()
		w.log = w.log.Crash()
		c = w.start()
		w.want("markers after the crash", w.written(), "[orders-0 100/0 true stock-2 100/0 true]")
		w.want("state after the crash", w.state(c, "tx"), "CompleteCommit 100/0 []")
		c.Close()
		w.log = w.log.Crash()
		c = w.start()
		w.want("markers after another start", w.written(), "[]")
	})
}

func TestUndecidedTransactionsSurviveAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		c.Close()
		w.log = w.log.Crash()
		c = w.start()
		w.want("state", w.state(c, "tx"), "Ongoing 100/0 [{orders 0} {stock 2}]")
		_, _, err := c.End(t.Context(), "tx", who, false, 1)
		w.want("end", err, txn.None)
		w.want("markers", w.written(), "[orders-0 100/0 false stock-2 100/0 false]")
	})
}

func TestTimeoutAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		<-time.After(50 * time.Second)
		w.want("markers in time", w.written(), "[]")
		<-time.After(21 * time.Second)
		w.want("markers", w.written(), "[orders-0 100/1 false stock-2 100/1 false]")
		_, _, err := c.End(t.Context(), "tx", who, true, 1)
		w.want("end by the fenced client", err, txn.ProducerFenced)
		<-time.After(8 * 24 * time.Hour)
		w.want("an id that nobody uses", w.state(c, "tx"), fmt.Sprint("error ", txn.TransactionalIDNotFound))
		c.Close()
		w.log = w.log.Crash()
		c = w.start()
		w.want("after a start", w.state(c, "tx"), fmt.Sprint("error ", txn.TransactionalIDNotFound))
	})
}

// TestTimeoutAtTheLastEpoch: the client that hears of the abort goes on with a new producer id.
func TestTimeoutAtTheLastEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := txn.Identity{}
		for err := txn.None; who.Epoch < 32766; {
			if who, _, err = c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute); err != txn.None {
				t.Fatal(err)
			}
		}
		if _, err := c.AddPartitions(t.Context(), "tx", who, parts, 2); err != txn.None {
			t.Fatal(err)
		}
		<-time.After(71 * time.Second)
		w.want("markers", w.written(), "[orders-0 100/32767 false stock-2 100/32767 false]")
		next, _, err := c.End(t.Context(), "tx", who, false, 2)
		w.want("the client's own abort", fmt.Sprint(next, err), fmt.Sprint(txn.Identity{ID: 101}, txn.None))
	})
}

// TestClockThatWasAhead: a transaction that began when the clock was ten years ahead ends after its timeout, not after ten years: readers of
// committed records would wait for so long.
func TestClockThatWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ahead = 10 * 365 * 24 * time.Hour
		c := w.start()
		defer func() { c.Close() }()
		w.open(c, "tx")
		c.Close()
		w.log, w.ahead = w.log.Crash(), 0
		c = w.start()
		<-time.After(50 * time.Second)
		w.want("markers in time", w.written(), "[]")
		<-time.After(21 * time.Second)
		w.want("markers", w.written(), "[orders-0 100/1 false stock-2 100/1 false]")
	})
}

func TestNewcomerWaitsForTheAbortAndTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		w.open(c, "tx")
		who, _, err := c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute)
		w.want("newcomer", fmt.Sprint(who, err), fmt.Sprint(txn.Identity{ID: 100, Epoch: 2}, txn.None))
		w.want("markers", w.written(), "[orders-0 100/1 false stock-2 100/1 false]")
		// Markers that take long: it is sent away, and may come again.
		if _, err := c.AddPartitions(t.Context(), "tx", who, parts, 1); err != txn.None {
			t.Fatal(err)
		}
		w.hold = make(chan struct{})
		began := time.Now()
		_, _, err = c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute)
		w.want("while the markers are written", fmt.Sprint(err, time.Since(began)), fmt.Sprint(txn.ConcurrentTransactions, 200*time.Millisecond))
		close(w.hold)
		synctest.Wait()
		who, _, err = c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute)
		w.want("again", fmt.Sprint(who, err), fmt.Sprint(txn.Identity{ID: 100, Epoch: 4}, txn.None))
	})
}

func TestMarkersAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		w.fail = partition.ErrDiskFull
		if _, _, err := c.End(t.Context(), "tx", who, true, 1); err != txn.None {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		w.want("state on a full disk", w.state(c, "tx"), "PrepareCommit 100/0 [{orders 0} {stock 2}]")
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		<-time.After(10 * time.Second)
		w.want("state later", w.state(c, "tx"), "CompleteCommit 100/0 []")
		// A partition that is gone, or has seen a later epoch, needs none.
		for _, gone := range []error{transactions.ErrGone, segment.ErrInvalidProducerEpoch} {
			w.open(c, "other")
			w.fail = gone
			who, _ := c.Describe("other")
			if _, _, err := c.End(t.Context(), "other", txn.Identity{ID: who.ProducerID, Epoch: who.Epoch}, true, 1); err != txn.None {
				t.Fatal(err)
			}
			if r, _ := c.Describe("other"); w.state(c, "other")[:14] != "CompleteCommit" {
				t.Errorf("%v: %+v", gone, r)
			}
			w.fail = nil
		}
	})
}

func TestFailedWriteChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		w.log.Fail(partition.ErrDiskFull)
		_, _, err := c.End(t.Context(), "tx", who, true, 1)
		w.want("end", err, txn.CoordinatorNotAvailable)
		if _, _, err := c.InitProducer(t.Context(), "new", txn.Unknown, time.Minute); err != txn.CoordinatorNotAvailable {
			t.Errorf("a new id: %d", err)
		}
		w.log.Fail(nil)
		w.want("state", w.state(c, "tx"), "Ongoing 100/0 [{orders 0} {stock 2}]")
		w.want("the new id", w.state(c, "new"), fmt.Sprint("error ", txn.TransactionalIDNotFound))
		_, _, err = c.End(t.Context(), "tx", who, true, 1)
		w.want("end", err, txn.None)
	})
}

func TestUnreadableRecordsHarmNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		w.open(c, "tx")
		c.Close()
		var b records.Builder
		b.Reset()
		b.Add([]byte("\x00\x00\x00\x07cut off"), []byte{0, 1, 2})
		b.Add([]byte{0, 0, 0, 9, 'x'}, []byte{0, 1})
		b.Add([]byte{0, 5}, []byte{0, 1})
		b.Add(nil, nil)
		if _, err := w.log.Append(t.Context(), partition.AppendRequest{Records: b.Batch(1)}); err != nil {
			t.Fatal(err)
		}
		c = w.start()
		defer func() { c.Close() }()
		w.want("state", w.state(c, "tx"), "Ongoing 100/0 [{orders 0} {stock 2}]")
		if list, err := c.List(transactions.Filter{}); err != txn.None || len(list) != 1 {
			t.Errorf("%v, %d", list, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		ctx := t.Context()
		for timeout, want := range map[time.Duration]txn.Error{0: txn.InvalidTimeout, -1: txn.InvalidTimeout, 16 * time.Minute: txn.InvalidTimeout, 15 * time.Minute: txn.None} {
			_, _, err := c.InitProducer(ctx, fmt.Sprint("t", timeout), txn.Unknown, timeout)
			w.want(fmt.Sprint("timeout ", timeout), err, want)
		}
		_, _, err := c.InitProducer(ctx, "", txn.Unknown, time.Minute)
		w.want("no id", err, txn.InvalidRequest)
		_, _, err = c.InitProducer(ctx, strings.Repeat("x", 1<<15), txn.Unknown, time.Minute) // a record could not be read again
		w.want("an id that no record holds", err, txn.InvalidRequest)
		longest := strings.Repeat("x", 1<<15-1)
		who := w.open(c, longest)
		_, err = c.AddPartitions(ctx, "nobody", txn.Identity{ID: 1}, parts, 1)
		w.want("an id that is not there", err, txn.InvalidProducerIDMapping)
		c.Close()
		_, _, err = c.InitProducer(ctx, "tx", txn.Unknown, time.Minute)
		w.want("closed", err, txn.CoordinatorNotAvailable)
		w.log = w.log.Crash()
		c = w.start()
		defer c.Close()
		_, _, err = c.End(ctx, longest, who, true, 1)
		w.want("the longest id, after a start", err, txn.None)
		if err := (transactions.Options{}).Validate(); err == nil || errors.Is(err, context.Canceled) {
			t.Error("empty options are taken")
		}
	})
}

func TestAnswersWaitForWhatTheyRelyOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		w.log.Hold()
		more := []txn.Partition{{Topic: "more", Index: 0}}
		if _, err := c.AddPartitions(t.Context(), "tx", who, more, 2); err != txn.None {
			t.Fatal(err)
		}
		// Another connection finds the partition there, and what it writes must not outlive the record of that.
		for what, ask := range map[string]func() (transactions.Pending, txn.Error){
			"add":    func() (transactions.Pending, txn.Error) { return c.AddPartitions(t.Context(), "tx", who, more, 2) },
			"verify": func() (transactions.Pending, txn.Error) { return c.Verify(t.Context(), "tx", who, more[0]) },
		} {
			wait, err := ask()
			w.want(what, err, txn.None)
			w.want(what+" before the record is durable", wait.Wait(t.Context()), txn.CoordinatorNotAvailable) // after 5 s
		}
		w.log.Sync()
		wait, _ := c.Verify(t.Context(), "tx", who, more[0])
		w.want("after it is", wait.Wait(t.Context()), txn.None)
	})
}

// TestPartitionThatDoesNotAnswer: readers of committed records in another partition of the transaction do not wait for it.
func TestPartitionThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.start()
		defer func() { c.Close() }()
		who := w.open(c, "tx")
		w.deaf = make(chan struct{})
		if _, _, err := c.End(t.Context(), "tx", who, true, 1); err != txn.None {
			t.Fatal(err)
		}
		<-time.After(5 * time.Second)
		w.want("markers beside it", w.written(), "[stock-2 100/0 true]")
		w.want("state", w.state(c, "tx"), "PrepareCommit 100/0 [{orders 0} {stock 2}]")
		close(w.deaf)
		w.want("markers when it answers", w.written(), "[orders-0 100/0 true]")
		w.want("state in the end", w.state(c, "tx"), "CompleteCommit 100/0 []")
	})
}

// brokenLog panics when it is appended to.
type brokenLog struct {
	statetopic.Log
	broken *bool
}

func (l brokenLog) Append(ctx context.Context, r partition.AppendRequest) (partition.Appended, error) {
	if *l.broken {
		panic("broken")
	}
	return l.Log.Append(ctx, r)
}

// TestPanicWhileARecordIsWritten: it ends the request, which the broker survives, and the shard goes on.
func TestPanicWhileARecordIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wrap = func(l statetopic.Log) statetopic.Log { return brokenLog{l, &w.broken} }
		c := w.start()
		defer func() { c.Close() }()
		func() {
			w.broken = true
			defer func() { w.broken = recover() == nil }()
			_, _, _ = c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute)
		}()
		if who := w.open(c, "tx"); w.broken || who.ID != 100 {
			t.Errorf("%v, panicked %v", who, !w.broken)
		}
	})
}

// TestShardThatDoesNotAnswer: while a record is being written on a device that does not answer, ids are listed and counted, and transactions
// of other shards time out.
func TestShardThatDoesNotAnswer(t *testing.T) {
	const deaf, well = "b", "a" // the shards of two that they hash to: 0 and 1
	logs := []statetopic.Log{groupstest.NewDeaf(), &groupstest.Log{}}
	registry, marked, ids := prometheus.NewRegistry(), make(chan txn.Partition, 8), atomic.Int64{}
	c, err := transactions.New(transactions.Options{
		CheckInterval: time.Millisecond,
		Log:           func(p int32) (statetopic.Log, bool) { return logs[p], true },
		ProducerID:    func() (int64, error) { return ids.Add(1), nil },
		WriteMarker: func(_ context.Context, p txn.Partition, _ transactions.Marker) (func(context.Context) error, error) {
			marked <- p
			return func(context.Context) error { return nil }, nil
		},
		Logger: slog.New(slog.DiscardHandler), Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(2)
	var wg sync.WaitGroup
	defer c.Close()
	defer wg.Wait()
	defer close(logs[0].(*groupstest.Deaf).Free)
	ctx := t.Context()
	begin := func(id string) (who txn.Identity) {
		for err := txn.CoordinatorLoading; err == txn.CoordinatorLoading; { // at once
			who, _, err = c.InitProducer(ctx, id, txn.Unknown, time.Millisecond)
		}
		return who
	}
	wg.Go(func() { begin(deaf) })
	<-logs[0].(*groupstest.Deaf).Hung
	who := begin(well)
	if _, err := c.AddPartitions(ctx, well, who, parts[:1], 1); err != txn.None {
		t.Fatal(err)
	}
	within := func(what string, done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Errorf("%s: waits for a device", what)
		}
	}
	aside := func(what string, f func()) {
		t.Helper()
		done := make(chan struct{})
		wg.Go(func() { f(); close(done) })
		within(what, done)
	}
	aside("the abort of another shard's transaction", func() { <-marked })
	aside("a list", func() {
		if list, err := c.List(transactions.Filter{}); err != txn.None || len(list) != 2 {
			t.Errorf("%+v, %d", list, err)
		}
	})
	aside("metrics", func() {
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
	})
}

// counted is a log handler that counts.
type counted struct {
	slog.Handler
	lines *int
}

func (h counted) Enabled(context.Context, slog.Level) bool { return true }

func (h counted) Handle(context.Context, slog.Record) error { *h.lines++; return nil }

// TestFullDiskIsLoggedNowAndThen: clients ask again and again.
func TestFullDiskIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		lines := 0
		w.logger = slog.New(counted{slog.DiscardHandler, &lines})
		c := w.start()
		defer func() { c.Close() }()
		w.log.Fail(partition.ErrDiskFull)
		for range 1000 {
			if _, _, err := c.InitProducer(t.Context(), "tx", txn.Unknown, time.Minute); err != txn.CoordinatorNotAvailable {
				t.Fatal(err)
			}
		}
		if lines == 0 || lines > 10 {
			t.Errorf("%d lines for 1000 requests within a second", lines)
		}
	})
}
