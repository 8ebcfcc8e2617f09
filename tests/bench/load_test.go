package bench_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

// load is a stream of equal batches, one per request, over all partitions of a topic in turn.
type load struct {
	topic      string
	partitions int32
	conns      int // each serves its share of the partitions
	window     int // requests in flight per connection
	batch      []byte
	bytes      int64
	perSecond  int64 // bytes; 0: as fast as acks come
	acks       int16
}

// newBatch is an uncompressed batch of 1 KiB records, as close below size as they come.
func newBatch(size int) []byte {
	one := len(rawkafka.Batch(2, 1024, 0)) - len(rawkafka.Batch(1, 1024, 0))
	return rawkafka.Batch(max(1, (size-64)/one), 1024, time.Now().UnixMilli())
}

// run produces the load and returns when all of it is acknowledged.
func (l load) run(t testing.TB, b *lagoontest.Broker) (sent int64) {
	t.Helper()
	var g errgroup.Group
	each := l.bytes / int64(len(l.batch)) / int64(l.conns)
	for i := range l.conns {
		c := dial(t, b, fmt.Sprint("load-", i))
		g.Go(func() error {
			defer c.Close()
			return l.stream(c, int32(i), each)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return each * int64(l.conns) * int64(len(l.batch))
}

// stream sends n batches over one connection, to every conns-th partition from first on.
func (l load) stream(c *rawkafka.Conn, first int32, n int64) error {
	begun, partition := time.Now(), first%l.partitions
	for i, owed := int64(0), 0; i < n || owed > 0; {
		if i < n && owed < l.window {
			if l.perSecond > 0 {
				due := begun.Add(time.Duration(float64(i*int64(len(l.batch))*int64(l.conns)) / float64(l.perSecond) * float64(time.Second)))
				if wait := time.Until(due); wait > 0 && owed > 0 {
					// Nothing to send yet: take an ack instead.
					if _, err := c.ReceiveProduce(); err != nil {
						return err
					}
					owed--
					continue
				} else if wait > 0 {
					<-time.After(wait)
				}
			}
			if err := c.SendProduce(l.topic, partition, l.acks, l.batch); err != nil {
				return err
			}
			if partition += int32(l.conns); partition >= l.partitions {
				partition = first % l.partitions
			}
			i, owed = i+1, owed+1
			continue
		}
		if _, err := c.ReceiveProduce(); err != nil {
			return err
		}
		owed--
	}
	return nil
}
