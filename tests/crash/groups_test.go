package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// team is a group whose members read topic "work" and commit what they have read.
type team struct {
	group   string
	news    chan struct{} // one is in it when records have come
	mu      sync.Mutex
	seen    map[int32]map[int64]bool // offsets that came, by partition
	acked   map[int32]int64          // the highest acknowledged commit, by partition
	told    map[int32]int64          // the highest that was read back
	last    time.Time                // when a record came last
	stop    time.Duration            // the longest time in which none came
	lost    int                      // times that a member was told that it is none
	behind  int                      // partitions whose commits were seen behind what was acknowledged or told
	example string                   // the first of them
}

func newTeam(group string) *team {
	return &team{group: group, news: make(chan struct{}, 1), seen: map[int32]map[int64]bool{}, acked: map[int32]int64{}, told: map[int32]int64{}}
}

// options make a client a member.
func (m *team) options(number int) []kgo.Opt {
	return []kgo.Opt{
		kgo.ClientID(fmt.Sprintf("%s-%d", m.group, number)), kgo.ConsumerGroup(m.group), kgo.ConsumeTopics("work"),
		kgo.SessionTimeout(memberSession), kgo.HeartbeatInterval(300 * time.Millisecond), kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.AutoCommitInterval(200 * time.Millisecond), kgo.AutoCommitCallback(m.committed),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) {
			m.mu.Lock()
			m.lost++
			m.mu.Unlock()
		}),
	}
}

// consume is a member's life.
func (m *team) consume(ctx context.Context, cl *kgo.Client) {
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		m.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			if m.seen[r.Partition] == nil {
				m.seen[r.Partition] = map[int64]bool{}
			}
			m.seen[r.Partition][r.Offset] = true
		})
		if now := time.Now(); fetches.NumRecords() > 0 {
			if !m.last.IsZero() {
				m.stop = max(m.stop, now.Sub(m.last))
			}
			m.last = now
		}
		m.mu.Unlock()
		select {
		case m.news <- struct{}{}:
		default:
		}
	}
}

// committed books the answer to a commit.
func (m *team) committed(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
	if err != nil {
		return
	}
	taken := map[int32]bool{}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			taken[rp.Partition] = rp.ErrorCode == 0
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			if taken[rp.Partition] {
				m.acked[rp.Partition] = max(m.acked[rp.Partition], rp.Offset)
			}
		}
	}
}

// look reads the group's offsets back: none is below one that was acknowledged or told before.
func (m *team) look(ctx context.Context, adm *kadm.Client) error {
	m.mu.Lock()
	floor := maps.Clone(m.acked)
	m.mu.Unlock()
	for p, at := range m.told {
		floor[p] = max(floor[p], at)
	}
	resp, err := adm.FetchOffsets(ctx, m.group)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		return err
	}
	for p, at := range floor {
		got, ok := resp.Lookup("work", p)
		if !ok || got.At < at {
			if m.behind++; m.behind == 1 {
				m.example = fmt.Sprintf("work/%d: offset %d (%t) after %d", p, got.At, ok, at)
			}
		}
		if ok {
			m.told[p] = max(m.told[p], got.At)
		}
	}
	return nil
}

// watch looks until ctx ends; a killed broker answers nothing.
func (m *team) watch(ctx context.Context, adm *kadm.Client) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tried, cancel := context.WithTimeout(ctx, 3*time.Second)
			_ = m.look(tried, adm)
			cancel()
		}
	}
}

// missing is how many records before these ends did not come.
func (m *team) missing(ends map[int32]int64) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, end := range ends {
		n += end - int64(len(m.seen[p]))
	}
	return n
}

const (
	workPartitions = 4
	memberSession  = 30 * time.Second // the session timeout of members in both protocols: what no busy machine takes for a start
)

// produceSteadily sends a record every few milliseconds until ctx ends. None is given up; the ends of the partitions come back.
func produceSteadily(ctx context.Context, cl *kgo.Client) (map[int32]int64, error) {
	var mu sync.Mutex
	var failed error
	ends := map[int32]int64{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			cl.Produce(context.Background(), &kgo.Record{Topic: "work", Value: []byte("x")}, func(r *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
					return
				}
				ends[r.Partition] = max(ends[r.Partition], r.Offset+1)
			})
		}
	}
	if err := cl.Flush(context.Background()); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return ends, failed
}

// TestKillGroups: committed offsets survive kill -9 and never move back, those of simple consumers and those of members in both protocols;
// members go on, without a stop of the whole group as long as the session timeout, and get every record.
func TestKillGroups(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"groups.initial_rebalance_delay=0s",
		"groups.consumer_session_timeout=" + memberSession.String(), "groups.consumer_heartbeat_interval=300ms"}})
	lagoontest.CreateTopic(t, b, "committed", 1)
	lagoontest.CreateTopic(t, b, "work", workPartitions)
	l := &load{t: t, b: b}
	ctx, stop := context.WithCancel(context.Background())
	producing, stopProducing := context.WithCancel(ctx)
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); stopProducing(); wg.Wait() })
	all := make([]*committer, 10)
	for i := range all {
		all[i] = &committer{group: fmt.Sprintf("group-%d", i)}
		adm := kadm.NewClient(l.client())
		t.Cleanup(adm.Close)
		wg.Go(func() { all[i].run(ctx, adm) })
	}
	teams := []*team{newTeam("classic"), newTeam("consumer")}
	protocol := map[string][]kgo.Opt{
		"classic":  {kgo.Balancers(kgo.CooperativeStickyBalancer())},
		"consumer": {kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer()},
	}
	for _, m := range teams {
		for i := range 3 {
			cl := l.client(append(m.options(i), protocol[m.group]...)...)
			wg.Go(func() { defer cl.Close(); m.consume(ctx, cl) })
		}
		adm := kadm.NewClient(l.client())
		wg.Go(func() { defer adm.Close(); m.watch(ctx, adm) })
	}
	var ends map[int32]int64
	produced := make(chan error, 1)
	producer := l.client(kgo.UnknownTopicRetries(-1), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	t.Cleanup(producer.Close)
	wg.Go(func() {
		var err error
		ends, err = produceSteadily(producing, producer)
		produced <- err
	})
	n := cycles(t, 10)
	for range n {
		live(t, b, time.Duration(300+r.IntN(1200))*time.Millisecond)
		b.Kill()
		b.Restart()
	}
	stopProducing()
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	late := time.NewTimer(2 * memberSession)
	defer late.Stop()
	for _, m := range teams {
		for waiting := true; waiting && m.missing(ends) > 0; {
			select {
			case <-m.news:
			case <-late.C: // what is missing is told below
				waiting = false
				late.Reset(0) // for the others, too
			}
		}
	}
	stop()
	wg.Wait()
	adm := kadm.NewClient(l.client())
	defer adm.Close()
	records := int64(0)
	for _, end := range ends {
		records += end
	}
	for _, m := range teams {
		if err := m.look(context.Background(), adm); err != nil {
			t.Fatal(err)
		}
		if missing := m.missing(ends); missing > 0 {
			t.Errorf("members of %s did not get %d of %d records within %v", m.group, missing, records, 2*memberSession)
		}
		if m.stop >= memberSession {
			t.Errorf("nothing came to %s for %v; the session timeout is %v", m.group, m.stop, memberSession)
		}
		if m.behind > 0 {
			t.Errorf("offsets of %s moved back %d times, first %s", m.group, m.behind, m.example)
		}
		if len(m.acked) != workPartitions {
			t.Errorf("commits of %s were acknowledged for partitions %v, there are %d", m.group, m.acked, workPartitions)
		}
		t.Logf("%s: %d records, longest stop %v, members lost their partitions %d times, acknowledged %v, read back %v",
			m.group, records, m.stop.Round(time.Millisecond), m.lost, m.acked, m.told)
	}
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
	t.Logf("%d kills, last acknowledged offsets of simple consumers add up to %d", n, commits)
}
