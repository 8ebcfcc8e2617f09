package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"lagoon/internal/rawkafka"
)

const (
	// delayedTick is how often the delayed reader looks for what has become due.
	delayedTick = 10 * time.Millisecond
	// liveMaxBytes of a partition in one response: the default of the Java consumer.
	liveMaxBytes = 1 << 20
	maxWait      = 500 * time.Millisecond
)

// dial connects a role; the connection is closed when ctx ends, which ends the role's read. It fails when the broker does not answer
// within patience.
func dial(ctx context.Context, addr, clientID string) (c *rawkafka.Conn, done func(), err error) {
	if c, err = rawkafka.Dial(addr, clientID); err != nil {
		return nil, nil, err
	}
	c.Patience = patience
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return c, func() { stop(); _ = c.Close() }, nil
}

// delayed reads partitions that one broker leads, each record when it is due and r.behind older: it is the first to read it, after
// so long. Once r.draining is set it reads what is left at once.
func (r *reading) delayed(ctx context.Context, addr string, partitions []int32) error {
	c, done, err := dial(ctx, addr, clientID(r.role))
	if err != nil {
		return err
	}
	defer done()
	offsets := map[int32]int64{}
	for _, p := range partitions {
		offsets[p] = r.stream.first[p]
	}
	ticker := time.NewTicker(delayedTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now().UnixNano() - r.behind
		if r.draining.Load() {
			now += r.behind
		}
		due, req := r.stream.due(now), rawkafka.FetchRequest{MaxWait: maxWait}
		for _, p := range partitions {
			if owed := r.stream.inPartition(due, int64(p)) - r.next(p); owed > 0 {
				size := min(owed*int64(r.stream.valueBytes), liveMaxBytes)
				req.Wants = append(req.Wants, rawkafka.Want{Topic: r.stream.topic, Partition: p, Offset: offsets[p], MaxBytes: int32(size), Keep: true})
			}
		}
		if len(req.Wants) == 0 {
			continue
		}
		if err := r.fetch(c, req, offsets, nil); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// fetch takes the response's records when all of it is there, as a consumer does. What belongs to another topic goes to other.
func (r *reading) fetch(c *rawkafka.Conn, req rawkafka.FetchRequest, offsets map[int32]int64, other func(*rawkafka.Fetched) error) error {
	var got []rawkafka.Fetched
	err := c.Fetch(req, func(f *rawkafka.Fetched) error {
		switch {
		case f.Topic != r.stream.topic && other != nil:
			return other(f)
		case f.Err != nil:
			return fmt.Errorf("%s/%d: %w", f.Topic, f.Partition, f.Err)
		}
		got = append(got, *f)
		return nil
	})
	if err != nil {
		return err
	}
	now := time.Now().UnixNano()
	for _, f := range got {
		asked := offsets[f.Partition]
		err := rawkafka.Values(f.Records, func(offset int64, v []byte) {
			if offset >= asked { // a batch may begin before what was asked for
				r.take(f.Partition, v, now)
			}
		})
		if err != nil {
			return fmt.Errorf("%s/%d: %w", f.Topic, f.Partition, err)
		}
		offsets[f.Partition] = f.Next
		r.at.moved(f.Topic, f.Partition, f.Next)
	}
	return nil
}

// mixed is one consumer of a live partition that, while cold is set, has an old one as well, in the same fetches. Its latencies are
// those of the live records.
func (r *reading) mixed(ctx context.Context, addr string, live int32, old *backlog, cold *atomic.Bool) error {
	c, done, err := dial(ctx, addr, clientID(r.role))
	if err != nil {
		return err
	}
	defer done()
	offsets := map[int32]int64{live: r.stream.first[live]}
	for turn := 0; ; turn++ {
		req := rawkafka.FetchRequest{MaxWait: maxWait, Wants: []rawkafka.Want{{
			Topic: r.stream.topic, Partition: live, Offset: offsets[live], MaxBytes: liveMaxBytes, Keep: true}}}
		if cold.Load() && len(old.parts) > 0 {
			req.Wants = append(req.Wants, old.wants(false)...)
			if turn%2 == 1 { // consumers put the partition that was served last at the end
				slices.Reverse(req.Wants)
			}
		}
		if err := r.fetch(c, req, offsets, old.took); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}
