package fairness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

const (
	mib          = 1 << 20
	batchRecords = 64
	valueBytes   = 1 << 10
)

// oneLab: what a lab undoes in the end is written down by one goroutine at a time.
var oneLab sync.Mutex

func TestMain(m *testing.M) { labtest.Main(m) }

// TestFairness runs everything on one machine at a time, each with a broker and a slow disk of its own: what is measured is what a disk
// gives, and even together they ask little of the machine.
func TestFairness(t *testing.T) {
	l := labtest.New(t)
	for _, test := range []struct {
		name string
		run  func(w *world)
	}{
		{"RetentionRace/without", func(w *world) { // the race is one: without the boost data is lost
			if lost, total := race(w, false); 100*lost < 5*total {
				w.t.Errorf("%d of %d records were lost: the race is no race", lost, total)
			}
		}},
		{"RetentionRace/with", func(w *world) {
			if lost, total := race(w, true); lost > 0 {
				w.t.Errorf("%d of %d records were lost", lost, total)
			}
		}},
		{"Shares", shares},
		{"Capped", capped},
	} {
		disk, g := l.Disk(lab.DiskOptions{Name: strings.ReplaceAll(test.name, "/", "-"), Bytes: 3 << 30}), l.Cgroup(0)
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, disk: disk, g: g}
			w.ctx, w.cancel = context.WithCancelCause(context.Background())
			t.Cleanup(func() { w.cancel(nil); w.wg.Wait() })
			test.run(w)
		})
	}
}

// world is a broker with one tier on a disk of its own.
type world struct {
	t    *testing.T
	disk *labtest.Disk
	g    *lab.Cgroup
	b    *lagoontest.Broker

	cancel context.CancelCauseFunc
	ctx    context.Context
	wg     sync.WaitGroup
}

// start starts a broker for which every reader that is a little behind is lagging.
func (w *world) start(set ...string) {
	w.t.Helper()
	w.b = lagoontest.Start(w.t, lagoontest.Options{
		Dir: w.t.TempDir(), CgroupProcs: w.g.Procs(),
		Tiers: []lagoontest.Tier{{Name: "disk", Path: filepath.Join(w.disk.Path(), "disk"), Class: "hdd"}},
		Set: append([]string{"readers.lagging_when.min_bytes=1MiB", "readers.lagging_when.min_age=1ms", "tiering.interval=200ms",
			"cache.hot_window_memory=0%"}, set...), // what was written a moment ago is cold
	})
}

// fill writes batches into partitions of a topic; stamp gives batch i of each its time.
func (w *world) fill(topic string, partitions int32, bytes int64, stamp func(i int) int64) {
	w.t.Helper()
	c, err := rawkafka.Dial(w.b.Bootstrap(), "fill")
	must(w.t, err)
	defer c.Close()
	batch := rawkafka.Batch(batchRecords, valueBytes, 0)
	each := int(bytes / int64(partitions) / int64(len(batch)))
	owed := 0
	for i := range each {
		rawkafka.Stamp(batch, stamp(i))
		for p := range partitions {
			must(w.t, c.SendProduce(topic, p, 1, batch))
			if owed++; owed >= 16 {
				_, err := c.ReceiveProduce()
				must(w.t, err)
				owed--
			}
		}
	}
	for ; owed > 0; owed-- {
		_, err := c.ReceiveProduce()
		must(w.t, err)
	}
}

// cool makes what was filled clean, takes it out of the page cache, and makes the disk slow.
func (w *world) cool(bytesPerSecond int64) {
	w.t.Helper()
	w.disk.Sync()
	files, err := filepath.Glob(filepath.Join(w.disk.Path(), "disk", "*", "*.log"))
	must(w.t, err)
	if len(files) < 4 {
		w.t.Fatalf("%d segments", len(files))
	}
	must(w.t, lab.Evict(files...))
	oneLab.Lock()
	defer oneLab.Unlock()
	w.disk.Throttle(lab.Throttle{ReadBytes: bytesPerSecond}, w.g)
}

// consumer is a client id that reads one topic, a connection per partition.
type consumer struct {
	client string
	bytes  atomic.Int64
	lost   atomic.Int64 // records that were deleted before it came to them
	done   chan struct{}
}

// consume starts a consumer. again makes it begin anew shortly before the end; else it is done there.
func (w *world) consume(client, topic string, partitions int32, end int64, again bool) *consumer {
	x := &consumer{client: client, done: make(chan struct{})}
	var parts sync.WaitGroup
	for p := range partitions {
		parts.Add(1)
		w.wg.Go(func() {
			defer parts.Done()
			if err := w.read(x, topic, p, end, again); err != nil && w.ctx.Err() == nil {
				w.cancel(fmt.Errorf("%s reads %s-%d: %w", client, topic, p, err))
			}
		})
	}
	w.wg.Go(func() { parts.Wait(); close(x.done) })
	return x
}

func (w *world) read(x *consumer, topic string, partition int32, end int64, again bool) error {
	c, err := rawkafka.Dial(w.b.Bootstrap(), x.client)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(w.ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()
	for at := int64(0); at < end; {
		f, err := c.FetchOne(topic, partition, at, mib, 500*time.Millisecond)
		switch {
		case errors.Is(err, kerr.OffsetOutOfRange):
			start, err := earliest(c, topic, partition)
			if err != nil {
				return err
			}
			x.lost.Add(max(0, start-at))
			at = start
			continue
		case err != nil:
			return err
		}
		x.bytes.Add(f.Whole)
		if at = f.Next; again && at > end-end/8 {
			at = 0
		}
	}
	return nil
}

// earliest is the log start, as a consumer with auto.offset.reset=earliest asks for it.
func earliest(c *rawkafka.Conn, topic string, partition int32) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 2, -1
	t := kmsg.NewListOffsetsRequestTopic()
	p := kmsg.NewListOffsetsRequestTopicPartition()
	t.Topic, p.Partition, p.Timestamp = topic, partition, -2
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// wait lets the consumers work.
func (w *world) wait(d time.Duration) {
	w.t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
		w.t.Fatal(context.Cause(w.ctx))
	}
}

// rates is what each consumer gets per second over a window.
func (w *world) rates(d time.Duration, consumers ...*consumer) []float64 {
	w.t.Helper()
	before := make([]int64, len(consumers))
	for i, x := range consumers {
		before[i] = x.bytes.Load()
	}
	began := time.Now()
	w.wait(d)
	out := make([]float64, len(consumers))
	for i, x := range consumers {
		out[i] = float64(x.bytes.Load()-before[i]) / time.Since(began).Seconds()
	}
	return out
}

// cli is what an operator types.
func (w *world) cli(args ...string) string {
	w.t.Helper()
	out, err := w.b.CLI(append(args, "--admin", w.b.Admin())...)
	if err != nil {
		w.t.Fatalf("lagoon %v: %v\n%s", args, err, out)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
