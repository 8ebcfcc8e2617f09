package fairness

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

// capError is how far a capped group may be off its cap over a window.
const capError = 0.05

// capped: a group with a cap, set as kafka-configs sets it, gets its cap and no more of a hard disk; two consumers without one, whose
// turns it has to wait for, get the rest in equal shares, and a tail that is written and read meanwhile takes nothing from the disk.
func capped(w *world) {
	const (
		speed      = 30e6
		perSecond  = 4 * mib
		partitions = 4
		size       = 256 * mib
		end        = size / partitions / valueBytes * 9 / 10
	)
	w.start("throttle.mode=off") // what is measured is the cap
	for _, topic := range []string{"a", "b", "c"} {
		lagoontest.CreateTopic(w.t, w.b, topic, partitions, "segment.bytes", fmt.Sprint(16*mib))
		w.fill(topic, partitions, size, func(int) int64 { return time.Now().UnixMilli() })
	}
	lagoontest.CreateTopic(w.t, w.b, "live", 1)
	w.setGroupCap("nightly", perSecond)
	w.cool(speed)

	nightly, begun := w.consumeAsGroup("nightly", "a")
	rest, more := w.consume("rest", "b", partitions, end, true), w.consume("more", "c", partitions, end, true)
	produced, seen := w.liveTail("live")
	select {
	case <-begun: // a group takes seconds to begin
	case <-w.ctx.Done():
		w.t.Fatal(context.Cause(w.ctx))
	}
	w.expect(fmt.Sprintf("a cap of %.2f MB/s", perSecond/1e6), func() (string, bool) {
		r := w.rates(window, nightly, rest, more)
		return fmt.Sprintf("capped %.2f MB/s (%.3f of its cap), the others %.2f and %.2f MB/s", r[0]/1e6, r[0]/perSecond, r[1]/1e6, r[2]/1e6),
			near(r[0], perSecond, capError) && near(r[1]/r[2], 1, shareError) && r[1]+r[2] > 0.8*(speed-perSecond)
	})
	w.cancel(nil)
	w.wg.Wait()
	if p, s := produced.Load(), seen.Load(); s < p/2 || p == 0 {
		w.t.Errorf("the tail reader has seen %d of %d live records", s, p)
	}
	var list struct {
		Readers []struct {
			Topic     string `json:"topic"`
			ColdBytes int64  `json:"cold_bytes_total"`
		} `json:"readers"`
	}
	w.b.Get("/api/v1/readers?limit=1000", &list)
	tails := 0
	for _, r := range list.Readers {
		if r.Topic == "live" {
			if tails++; r.ColdBytes > 0 {
				w.t.Errorf("the tail reader took %d bytes from the disk", r.ColdBytes)
			}
		}
	}
	if tails == 0 {
		w.t.Errorf("no reader of live among %+v", list.Readers)
	}
	w.b.Stop()
}

// setGroupCap does what kafka-configs --entity-type groups --alter does.
func (w *world) setGroupCap(group string, perSecond int64) {
	w.t.Helper()
	value := fmt.Sprint(perSecond)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	set.Name, set.Op, set.Value = "lagoon.catchup.max.bytes.per.second", kmsg.IncrementalAlterConfigOpSet, &value
	resource.Configs = append(resource.Configs, set)
	req.Resources = append(req.Resources, resource)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := req.RequestWith(ctx, lagoontest.Client(w.t, w.b))
	must(w.t, err)
	if r := resp.Resources[0]; r.ErrorCode != 0 {
		w.t.Fatalf("cap of %s: %d %v", group, r.ErrorCode, r.ErrorMessage)
	}
}

// batchBytes counts what a franz-go client gets, as it came over the wire, and tells when it begins.
type batchBytes struct {
	*consumer
	first func()
}

func (b batchBytes) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	b.bytes.Add(int64(m.CompressedBytes))
	b.first()
}

// consumeAsGroup starts the only member of a consumer group. begun is closed when it gets its first batch.
func (w *world) consumeAsGroup(group, topic string) (x *consumer, begun <-chan struct{}) {
	x = &consumer{client: group, done: make(chan struct{})}
	got := make(chan struct{})
	first := sync.OnceFunc(func() { close(got) })
	c := lagoontest.Client(w.t, w.b, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.WithHooks(batchBytes{x, first}), kgo.FetchMaxWait(500*time.Millisecond), kgo.ClientID(group))
	w.wg.Go(func() {
		defer close(x.done)
		for w.ctx.Err() == nil {
			c.PollFetches(w.ctx).EachError(func(topic string, p int32, err error) {
				if w.ctx.Err() == nil {
					w.cancel(fmt.Errorf("%s reads %s-%d: %w", group, topic, p, err))
				}
			})
		}
	})
	return x, got
}

// liveTail produces to a partition and reads it as it comes, until the world ends. It counts records.
func (w *world) liveTail(topic string) (produced, seen *atomic.Int64) {
	produced, seen = new(atomic.Int64), new(atomic.Int64)
	client := func(name string, run func(c *rawkafka.Conn) error) {
		w.wg.Go(func() {
			c, err := rawkafka.Dial(w.b.Bootstrap(), name)
			if err == nil {
				stop := context.AfterFunc(w.ctx, func() { _ = c.Close() })
				err = run(c)
				stop()
				_ = c.Close()
			}
			if err != nil && w.ctx.Err() == nil {
				w.cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	client("producer", func(c *rawkafka.Conn) error {
		batch := rawkafka.Batch(batchRecords, valueBytes, 0)
		for tick := time.NewTicker(100 * time.Millisecond); ; { // 0.6 MB/s
			select {
			case <-tick.C:
			case <-w.ctx.Done():
				tick.Stop()
				return nil
			}
			rawkafka.Stamp(batch, time.Now().UnixMilli())
			if err := c.SendProduce(topic, 0, 1, batch); err != nil {
				return err
			}
			if _, err := c.ReceiveProduce(); err != nil {
				return err
			}
			produced.Add(batchRecords)
		}
	})
	client("tail", func(c *rawkafka.Conn) error {
		for {
			f, err := c.FetchOne(topic, 0, seen.Load(), mib, 500*time.Millisecond)
			if err != nil {
				return err
			}
			seen.Store(max(f.Next, seen.Load()))
		}
	})
	return produced, seen
}
