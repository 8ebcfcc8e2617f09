package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lagoon/internal/rawkafka"
)

const (
	fillBatch    = 64 << 10 // bytes of values
	fillInFlight = 4
	fillVariants = 16
)

// fill writes at least size bytes of values in old records, random and of recordBytes each, evenly over the partitions. It returns when all of it
// is acknowledged with acks=all; on the way there it does not wait for more than acks=1, since nothing depends on it.
func (c *cluster) fill(ctx context.Context, topic string, partitions int32, size int64, recordBytes int, progress func(done, size int64)) error {
	leaders, err := c.leaders(ctx, topic)
	if err != nil {
		return err
	}
	stamp := time.Now().Add(-time.Hour).UnixMilli()
	records, each := fillPlan(size, partitions, recordBytes)
	var batches [fillVariants][]byte
	random := newNoise(uint64(stamp))
	for i := range batches {
		batches[i] = rawkafka.RandomBatch(records, recordBytes, stamp, func(record int, value []byte) {
			random.fill(value, int64(i*fillBatch+record))
		})
	}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for p := range partitions {
		g.Go(func() error {
			if err := fillPartition(ctx, leaders[p], topic, p, each, batches[:], int64(records*recordBytes), &done); err != nil {
				return fmt.Errorf("fill %s/%d: %w", topic, p, explain(err))
			}
			return nil
		})
	}
	finished := make(chan struct{})
	go func() {
		for progress(done.Load(), size); pause(ctx, time.Second); {
			progress(done.Load(), size)
		}
		close(finished)
	}()
	err = g.Wait()
	<-finished
	return err
}

// fillPlan is how many records a batch has and how many batches each partition gets. What a batch has beside values, a seventh of it with the
// smallest ones, does not count.
func fillPlan(size int64, partitions int32, recordBytes int) (records int, each int64) {
	records = max(1, fillBatch/recordBytes)
	return records, size/int64(records*recordBytes)/int64(partitions) + 1
}

func fillPartition(ctx context.Context, addr, topic string, partition int32, n int64, batches [][]byte, values int64, done *atomic.Int64) error {
	c, hangUp, err := dial(ctx, addr, "lagoon-bench-fill")
	if err != nil {
		return err
	}
	defer hangUp()
	owed := 0
	receive := func() error {
		if _, err := c.ReceiveProduce(); err != nil {
			return err
		}
		done.Add(values)
		owed--
		return nil
	}
	for i := range n {
		acks := int16(1)
		if i == n-1 {
			acks = -1
		}
		b := batches[(i+int64(partition))%int64(len(batches))]
		if err := c.SendProduce(topic, partition, acks, b); err != nil {
			return err
		}
		if owed++; owed == fillInFlight {
			if err := receive(); err != nil {
				return err
			}
		}
	}
	for owed > 0 {
		if err := receive(); err != nil {
			return err
		}
	}
	return nil
}
