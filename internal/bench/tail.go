package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tail reads everything of a stream as it comes, with an ordinary client.
func (r *reading) tail(ctx context.Context, brokers []string) error {
	from := map[int32]kgo.Offset{}
	for p := range r.parts {
		from[p] = kgo.NewOffset().At(r.stream.first[p])
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID(clientID(r.role)),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.stream.topic: from}),
		kgo.RequestTimeoutOverhead(patience))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now().UnixNano()
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("%s/%d: %w", errs[0].Topic, errs[0].Partition, errs[0].Err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, rec := range p.Records {
				r.take(p.Partition, rec.Value, now)
			}
			if n := len(p.Records); n > 0 {
				r.at.moved(p.Topic, p.Partition, p.Records[n-1].Offset+1)
			}
		})
	}
}
