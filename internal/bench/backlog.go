package bench

import (
	"context"
	"fmt"
	"sync/atomic"

	"lagoon/internal/rawkafka"
)

// backlog is one reader of old data: one fetch in flight per broker, all its partitions in it, again from its beginning when it is
// through.
type backlog struct {
	topic    string
	maxBytes int32
	parts    []oldPart
	turn     int
	at       *positions // nil: without a group
	*tally
}

// tally is what one reader got, over all brokers.
type tally struct {
	bytes   atomic.Int64 // of whole batches
	gaps    atomic.Int64
	bad     atomic.Int64 // batches with a wrong CRC
	checked atomic.Int64 // responses checked in full
}

// oldPart is the range [from, to) of one partition and where the reader is.
type oldPart struct {
	partition      int32
	from, to, next int64
}

// checkEvery is how often a partition's part of a response is checked in full: the CRC of every batch in it.
const checkEvery = 64

// wants is the next fetch, with another partition first each time; that one's records are kept if so wished.
func (b *backlog) wants(keep bool) []rawkafka.Want {
	out := make([]rawkafka.Want, 0, len(b.parts))
	for i := range b.parts {
		p := &b.parts[(i+b.turn)%len(b.parts)]
		out = append(out, rawkafka.Want{Topic: b.topic, Partition: p.partition, Offset: p.next, MaxBytes: b.maxBytes, Keep: keep && i == 0})
	}
	b.turn++
	return out
}

// took accounts for one partition's part of a response.
func (b *backlog) took(f *rawkafka.Fetched) error {
	if f.Err != nil {
		return fmt.Errorf("%s/%d: %w", f.Topic, f.Partition, f.Err)
	}
	b.bytes.Add(f.Whole)
	b.gaps.Add(int64(f.Gaps))
	if f.Records != nil {
		b.checked.Add(1)
		if rawkafka.Check(f.Records) != nil {
			b.bad.Add(1)
		}
	}
	for i := range b.parts {
		if p := &b.parts[i]; p.partition == f.Partition {
			if p.next = f.Next; p.next >= p.to {
				p.next = p.from
			}
			b.at.moved(f.Topic, f.Partition, p.next)
		}
	}
	return nil
}

// read runs until ctx ends.
func (b *backlog) read(ctx context.Context, addr, clientID string) error {
	if len(b.parts) == 0 {
		return nil
	}
	c, done, err := dial(ctx, addr, clientID)
	if err != nil {
		return err
	}
	defer done()
	for n := 0; ; n++ {
		req := rawkafka.FetchRequest{MaxWait: maxWait, Wants: b.wants(n%checkEvery == 0)}
		if err := c.Fetch(req, b.took); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}
