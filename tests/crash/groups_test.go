package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// committer commits rising offsets of one partition for one group, and looks at what is told in between.
type committer struct {
	group  string
	acked  atomic.Int64 // the highest acknowledged
	asked  atomic.Int64 // the highest sent
	told   int64        // the highest read
	faults []string
}

func (c *committer) run(ctx context.Context, adm *kadm.Client) {
	for next := int64(1); ctx.Err() == nil; next++ {
		var offsets kadm.Offsets
		offsets.AddOffset("committed", 0, next, -1)
		c.asked.Store(next)
		tried, cancel := context.WithTimeout(ctx, 3*time.Second)
		resp, err := adm.CommitOffsets(tried, c.group, offsets)
		if err == nil {
			err = resp.Error()
		}
		switch {
		case err == nil:
			c.acked.Store(next)
		case ctx.Err() == nil && fatal(err):
			c.faults = append(c.faults, fmt.Sprintf("%s: commit of %d: %v", c.group, next, err))
		}
		if next%3 == 0 {
			c.look(tried, adm)
		}
		cancel()
	}
}

// look reads the offset: never below one that was acknowledged before, or told before; never above what was sent.
func (c *committer) look(ctx context.Context, adm *kadm.Client) {
	floor := max(c.acked.Load(), c.told)
	resp, err := adm.FetchOffsets(ctx, c.group)
	if err != nil {
		return
	}
	got, ok := resp.Lookup("committed", 0)
	switch {
	case ok && got.Err != nil:
	case !ok && floor > 0, ok && got.At < floor:
		c.faults = append(c.faults, fmt.Sprintf("%s: offset %d (%t) after %d", c.group, got.At, ok, floor))
	case ok && got.At > c.asked.Load():
		c.faults = append(c.faults, fmt.Sprintf("%s: offset %d was never sent", c.group, got.At))
	}
	if ok && got.Err == nil {
		c.told = max(c.told, got.At)
	}
}

// fatal tells errors that no killed broker explains.
func fatal(err error) bool {
	var code *kerr.Error
	return errors.As(err, &code) && !code.Retriable
}

// TestKillGroups: committed offsets survive kill -9, never move back, and the members of a group come back into it.
func TestKillGroups(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"groups.initial_rebalance_delay=0s"}})
	lagoontest.CreateTopic(t, b, "committed", 4)
	l := &load{t: t, b: b}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	all := make([]*committer, 10)
	for i := range all {
		all[i] = &committer{group: fmt.Sprintf("group-%d", i)}
		adm := kadm.NewClient(l.client())
		t.Cleanup(adm.Close)
		wg.Go(func() { all[i].run(ctx, adm) })
	}
	var consumed atomic.Int64
	for i := range 3 { // members with cooperative rebalancing
		cl := l.client(kgo.ClientID(fmt.Sprintf("member-%d", i)), kgo.ConsumerGroup("members"), kgo.ConsumeTopics("committed"),
			kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(300*time.Millisecond), kgo.AutoCommitInterval(200*time.Millisecond))
		wg.Go(func() {
			defer cl.Close()
			for ctx.Err() == nil {
				consumed.Add(int64(cl.PollFetches(ctx).NumRecords()))
			}
		})
	}
	n := cycles(t, 10)
	for range n {
		life := time.NewTimer(time.Duration(300+r.IntN(1200)) * time.Millisecond)
		select {
		case <-life.C:
		case <-b.Exited():
			t.Fatal("the broker ended by itself")
		}
		b.Kill()
		b.Restart()
	}
	producer := l.client(kgo.DefaultProduceTopic("committed"))
	defer producer.Close()
	for range 100 {
		if err := producer.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.NewTimer(15 * time.Second) // a session and a half
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for back := false; !back; {
		select {
		case <-tick.C:
			back = consumed.Load() >= 100
		case <-deadline.C:
			t.Errorf("members of the group got %d of 100 records within 15 s", consumed.Load())
			back = true
		}
	}
	stop()
	wg.Wait()
	adm := kadm.NewClient(l.client())
	defer adm.Close()
	commits := int64(0)
	for _, c := range all {
		c.look(context.Background(), adm)
		commits += c.acked.Load()
		for _, f := range c.faults {
			t.Error(f)
		}
		if c.told == 0 {
			t.Errorf("%s: no offset was ever told", c.group)
		}
	}
	t.Logf("%d kills, last acknowledged offsets add up to %d", n, commits)
}
