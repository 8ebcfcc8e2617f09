package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lagoon/internal/rawkafka"
)

// history remembers what a producer got acknowledged: per partition one entry per batch.
type history struct {
	mu    sync.Mutex
	parts [][]acked
	bytes int64
	waits []time.Duration // of requests, from when they were due to the acknowledgement
}

type acked struct {
	at   time.Time
	next int64 // offset after the batch
	size int64
}

func (h *history) add(partition int32, a acked) {
	h.mu.Lock()
	h.parts[partition] = append(h.parts[partition], a)
	h.bytes += a.size
	h.mu.Unlock()
}

func (h *history) waited(d time.Duration) {
	h.mu.Lock()
	h.waits = append(h.waits, d)
	h.mu.Unlock()
}

// slowest is a quantile of the requests after the first n, and how many there were.
func (h *history) slowest(n int, q float64) (d time.Duration, count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return quantile(h.waits[n:], q), len(h.waits)
}

// since is how many bytes of a partition were acknowledged after t.
func (h *history) since(partition int, t time.Time) (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entries := h.parts[partition]
	for i := len(entries) - 1; i >= 0 && entries[i].at.After(t); i-- {
		n += entries[i].size
	}
	return n
}

// due is how many bytes of whole batches from offset from on were acknowledged before t.
func (h *history) due(partition int, from int64, t time.Time) (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entries := h.parts[partition]
	i, _ := slices.BinarySearchFunc(entries, from, func(a acked, o int64) int { return int(min(max(a.next-o-1, -1), 1)) })
	for ; i < len(entries) && entries[i].at.Before(t); i++ {
		if entries[i].next > from {
			n += entries[i].size
		}
	}
	return n
}

func (h *history) total() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes
}

// roles run until their context ends; the first error of any ends them all.
type roles struct {
	ctx  context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
}

func newRoles(t testing.TB) *roles {
	ctx, stop := context.WithCancelCause(context.Background())
	r := &roles{ctx: ctx, stop: stop}
	t.Cleanup(func() { r.stop(nil); r.wg.Wait() })
	return r
}

func (r *roles) run(name string, fn func(ctx context.Context) error) {
	r.wg.Go(func() {
		if err := fn(r.ctx); err != nil && r.ctx.Err() == nil {
			r.stop(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// finish ends all roles and tells what went wrong.
func (r *roles) finish(t testing.TB) {
	t.Helper()
	r.stop(nil)
	r.wg.Wait()
	if err := context.Cause(r.ctx); err != nil && err != context.Canceled {
		t.Fatal(err)
	}
}

// sleep waits until at; false when a role failed or all were stopped.
func sleep(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// produce sends one batch to each partition of a topic, rate times a second, whether or not the earlier ones are acknowledged.
func produce(r *roles, c conn, topic string, rate float64, h *history) {
	const maxWaiting = 256 // requests
	waiting := make(chan time.Time, maxWaiting)
	began := time.Now()
	size := int64(len(newBatch(0, 0)))
	r.run("produce to "+topic, func(ctx context.Context) error {
		defer close(waiting)
		batches := make([]batchOf, len(h.parts))
		for i := range batches {
			batches[i] = batchOf{int32(i), newBatch(uint64(i), 0)}
		}
		for i := 0; ; i++ {
			due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
			if !sleep(ctx, due) {
				return nil
			}
			for _, b := range batches {
				rawkafka.Stamp(b.records, time.Now().UnixMilli())
			}
			select {
			case waiting <- due:
			default:
				return fmt.Errorf("%d requests are not acknowledged, the oldest for %v", maxWaiting, time.Since(<-waiting))
			}
			if err := c.sendProduce(topic, -1, batches); err != nil {
				return err
			}
		}
	})
	r.run("acks of "+topic, func(context.Context) error {
		for due := range waiting {
			err := c.receiveProduce(func(p int32, base int64) {
				h.add(p, acked{time.Now(), base + batchRecords, size})
			})
			if err != nil {
				return err
			}
			h.waited(time.Since(due))
		}
		return nil
	})
}

// tail reads everything of a topic as it comes.
func tail(c conn, topic string, partitions int, read *atomic.Int64) func(context.Context) error {
	return func(ctx context.Context) error {
		next := make([]int64, partitions)
		for ctx.Err() == nil {
			wants := make([]rawkafka.Want, partitions)
			for i := range wants {
				wants[i] = want(topic, i, next[i], 1<<20)
			}
			err := c.fetch(500*time.Millisecond, wants, func(f *rawkafka.Fetched) {
				read.Add(f.Whole)
				next[f.Partition] = f.Next
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// delayed reads a topic exactly behind late: never a byte that is younger, and every byte as soon as it is old enough. late
// notes by how much more the worst one was.
func delayed(c conn, topic string, h *history, behind time.Duration, read, late *atomic.Int64) func(context.Context) error {
	return func(ctx context.Context) error {
		next := make([]int64, len(h.parts))
		const step = 50 * time.Millisecond
		for at := time.Now(); sleep(ctx, at); at = at.Add(step) {
			var wants []rawkafka.Want
			for i := range next {
				if n := h.due(i, next[i], time.Now().Add(-behind)); n > 0 {
					wants = append(wants, want(topic, i, next[i], int32(min(n, 4<<20))))
				}
			}
			if len(wants) == 0 {
				continue
			}
			asked := time.Now()
			err := c.fetch(500*time.Millisecond, wants, func(f *rawkafka.Fetched) {
				read.Add(f.Whole)
				next[f.Partition] = f.Next
			})
			if err != nil {
				return err
			}
			late.Store(max(late.Load(), int64(time.Since(asked))))
		}
		return nil
	}
}

// backlogRead is what a reader of old data got.
type backlogRead struct {
	bytes   int64
	seconds float64
}

func (r backlogRead) rate() float64 { return float64(r.bytes) / r.seconds }

// readBacklog reads each partition of a topic from its beginning up to the offset in stops, one fetch in flight.
func readBacklog(ctx context.Context, c conn, topic string, stops []int64, read *atomic.Int64) (backlogRead, error) {
	next := make([]int64, len(stops))
	began := time.Now()
	for {
		var wants []rawkafka.Want
		for i := range next {
			if next[i] < stops[i] {
				wants = append(wants, want(topic, i, next[i], 8<<20))
			}
		}
		if len(wants) == 0 {
			return backlogRead{read.Load(), time.Since(began).Seconds()}, nil
		}
		if ctx.Err() != nil {
			return backlogRead{}, context.Cause(ctx)
		}
		err := c.fetch(500*time.Millisecond, wants, func(f *rawkafka.Fetched) {
			read.Add(f.Whole)
			next[f.Partition] = f.Next
		})
		if err != nil {
			return backlogRead{}, err
		}
	}
}

// fill writes bytes of old records to the partitions of a topic as fast as it goes: one connection each, requests pipelined.
func fill(t testing.TB, addr, topic string, partitions int, bytes int64, age time.Duration) {
	t.Helper()
	const window = 16
	batch := newBatch(1, time.Now().Add(-age).UnixMilli())
	each := bytes / int64(partitions) / int64(len(batch))
	r := newRoles(t)
	for p := range partitions {
		c := dial(t, addr, "fill")
		slots := make(chan struct{}, window)
		r.run("fill", func(ctx context.Context) error {
			for range each {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return nil
				}
				if err := c.sendProduce(topic, 1, []batchOf{{int32(p), batch}}); err != nil {
					return err
				}
			}
			return nil
		})
		r.run("fill", func(context.Context) error {
			for range each {
				if err := c.receiveProduce(func(int32, int64) {}); err != nil {
					return err
				}
				<-slots
			}
			return nil
		})
	}
	r.wg.Wait()
	if err := context.Cause(r.ctx); err != nil {
		t.Fatal(err)
	}
}

// logFile is a segment file as a directory listing shows it.
type logFile struct {
	path string
	base int64
	size int64
}

// logFiles lists the segments of a partition by base offset.
func logFiles(tier, topic string, partition int) ([]logFile, error) {
	names, err := filepath.Glob(filepath.Join(tier, fmt.Sprintf("%s-%d", topic, partition), "*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // 20 digits: by offset
	var out []logFile
	for _, name := range names {
		base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), ".log"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("strange file %s", name)
		}
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) { // it has just moved on
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, logFile{name, base, info.Size()})
	}
	return out, nil
}
