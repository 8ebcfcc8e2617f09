package bench_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

// The bounds of the groups' coordinator, from a client's side of the network.
const (
	heartbeatCores = 0.15 // 1,000 groups of 10 members, each of which heartbeats every second
	loadSeconds    = 3.0  // from the start of the process to the last of 5,000 groups
)

// coordinator is a broker whose groups are measured. Both have 50 or more partitions of __consumer_offsets as by their defaults.
type coordinator struct {
	lagoontest.Cluster
	pid     func() int
	restart func() // returns when it answers clients
}

// BenchmarkGroups asks Lagoon, and Kafka where it is installed, the same over the wire: what heartbeats cost, how long the last member of a
// rebalance waits, how many commits are answered, and how soon all groups are there after a restart. Lagoon's commits are synced.
func BenchmarkGroups(b *testing.B) {
	const delay = "500ms" // so that ten members that join at once are one generation
	b.Run("lagoon", func(b *testing.B) {
		broker := start(b, "groups.initial_rebalance_delay="+delay,
			fmt.Sprintf("server.limits.connections=%d", idleConnections+100), fmt.Sprintf("server.limits.connections_per_ip=%d", idleConnections+100))
		coordinator{broker, broker.PID, func() { broker.Kill(); broker.Restart() }}.measure(b)
	})
	b.Run("kafka", func(b *testing.B) {
		lagoontest.Require(b, "kafka")
		broker := lagoontest.StartKafka(b, "offsets.topic.num.partitions=50", "group.initial.rebalance.delay.ms=500")
		coordinator{broker, broker.PID, func() { broker.Stop(b); broker.Start(b) }}.measure(b)
	})
	b.Run("nothing/heartbeat", nothing)
}

func (c coordinator) measure(b *testing.B) {
	lagoontest.CreateTopic(b, c, "in", 10)
	c.find(b)
	b.Run("commit", c.commits)
	b.Run("rebalance", c.rebalance)
	b.Run("heartbeat", c.heartbeats)
	b.Run("load", c.load)
}

// groupMember is one classic member on a connection of its own.
type groupMember struct {
	conn       *rawkafka.Conn
	group, id  string
	generation int32
	leader     bool
	others     []kmsg.JoinGroupResponseMember // the leader's list, itself included
}

func (c coordinator) members(b *testing.B, group string, n int) []*groupMember {
	out := make([]*groupMember, n)
	for i := range out {
		out[i] = &groupMember{conn: dial(b, c, fmt.Sprintf("%s-%d", group, i)), group: group}
	}
	return out
}

func (m *groupMember) join() error {
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", (&kmsg.ConsumerMemberMetadata{Topics: []string{"in"}}).AppendTo(nil)
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 3, m.group, m.id, "consumer" // 3: without a second turn for the id
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 60_000, 60_000
	req.Protocols = append(req.Protocols, protocol)
	resp, err := m.conn.Do(req)
	if err != nil {
		return err
	}
	got := resp.(*kmsg.JoinGroupResponse)
	m.id, m.generation, m.leader, m.others = got.MemberID, got.Generation, got.LeaderID == got.MemberID, got.Members
	return kerr.ErrorForCode(got.ErrorCode)
}

func (m *groupMember) sync() error {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	for _, o := range m.others {
		one := kmsg.NewSyncGroupRequestGroupAssignment()
		one.MemberID, one.MemberAssignment = o.MemberID, (&kmsg.ConsumerMemberAssignment{}).AppendTo(nil)
		req.GroupAssignment = append(req.GroupAssignment, one)
	}
	resp, err := m.conn.Do(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.SyncGroupResponse).ErrorCode)
}

func (m *groupMember) heartbeat() error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	resp, err := m.conn.Do(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.HeartbeatResponse).ErrorCode)
}

// each has all members do something at once.
func each(members []*groupMember, do func(*groupMember) error) error {
	var g errgroup.Group
	for _, m := range members {
		g.Go(func() error { return do(m) })
	}
	return g.Wait()
}

// form brings new members into their first generation.
func form(members []*groupMember) error {
	if err := each(members, func(m *groupMember) error { return patiently(m.join) }); err != nil {
		return err
	}
	for _, m := range members {
		if m.leader && len(m.others) != len(members) {
			return fmt.Errorf("group %s begins with %d of %d members: the machine is too busy for the delay", m.group, len(m.others), len(members))
		}
	}
	return each(members, (*groupMember).sync)
}

// Members that heartbeat.
const (
	beatingGroups  = 1000
	beatingMembers = 10 // of each
)

// heartbeats has 10,000 members of 1,000 groups heartbeat every second.
func (c coordinator) heartbeats(b *testing.B) {
	const atOnce = 50
	needFiles(b, beatingGroups*beatingMembers+200)
	var all []*groupMember
	var forming errgroup.Group
	forming.SetLimit(atOnce)
	for i := range beatingGroups {
		members := c.members(b, fmt.Sprint("beat-", i), beatingMembers)
		all = append(all, members...)
		forming.Go(func() error { return form(members) })
	}
	if err := forming.Wait(); err != nil {
		b.Fatal(err)
	}
	hold(b, beat(b, all, c.pid()), heartbeatCores)
}

// beat has all members heartbeat every second, spread over it, and tells the cores that the process of that id takes for them.
func beat(b *testing.B, all []*groupMember, pid int) (cores float64) {
	const length = 20 * time.Second
	for b.Loop() {
		var (
			g       errgroup.Group
			latency = newLatencies()
			begun   = time.Now().Add(time.Second)
			before  = cpuSeconds(b, pid)
		)
		for i, m := range all {
			g.Go(func() error {
				for due := begun.Add(time.Second * time.Duration(i) / time.Duration(len(all))); due.Before(begun.Add(length)); due = due.Add(time.Second) {
					<-time.After(time.Until(due))
					if err := m.heartbeat(); err != nil {
						return fmt.Errorf("%s: %w", m.group, err)
					}
					latency.record(time.Since(due))
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		cores = (cpuSeconds(b, pid) - before) / time.Since(begun.Add(-time.Second)).Seconds()
		if n := latency.h.TotalCount(); n != int64(len(all))*int64(length/time.Second) {
			b.Fatalf("%d heartbeats were answered", n)
		}
		latency.report(b)
		b.ReportMetric(cores, "cores")
	}
	return cores
}

// rebalance has 100 members join again, and looks at what the last one to do so brings about.
func (c coordinator) rebalance(b *testing.B) {
	const size, rounds = 100, 20
	members := c.members(b, "crowd", size)
	if err := form(members); err != nil {
		b.Fatal(err)
	}
	lead := slices.IndexFunc(members, func(m *groupMember) bool { return m.leader })
	members[0], members[lead] = members[lead], members[0] // its second join is what begins a rebalance
	ask := func() time.Duration {
		begun := time.Now()
		if err := members[0].heartbeat(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	var trips, joins, syncs []float64
	for b.Loop() {
		for range rounds {
			trips = append(trips, ms(ask()))
			var g errgroup.Group
			g.Go(members[0].join)
			if !lagoontest.Poll(10*time.Second, func() bool { return errors.Is(members[size-1].heartbeat(), kerr.RebalanceInProgress) }) {
				b.Fatal("the leader's join begins no rebalance")
			}
			for _, m := range members[1 : size-1] {
				g.Go(m.join)
			}
			<-time.After(100 * time.Millisecond) // the joins before the last have arrived
			begun := time.Now()
			g.Go(members[size-1].join)
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			joins = append(joins, ms(time.Since(begun)))
			for i, m := range members {
				if m.generation != members[0].generation || m.leader != (i == 0) {
					b.Fatalf("member %d: generation %d, leader %v; the first has generation %d", i, m.generation, m.leader, members[0].generation)
				}
			}
			begun = time.Now()
			if err := each(members, (*groupMember).sync); err != nil {
				b.Fatal(err)
			}
			syncs = append(syncs, ms(time.Since(begun)))
		}
		b.ReportMetric(median(trips), "heartbeat-ms")
		b.ReportMetric(median(joins), "last-join-ms")
		b.ReportMetric(median(syncs), "sync-ms")
	}
}

// commit is of ten partitions at once, by a group without members.
func commit(conn *rawkafka.Conn, group string, offset int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 7, group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = "in"
	for p := range int32(10) {
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition, one.Offset = p, offset
		t.Partitions = append(t.Partitions, one)
	}
	req.Topics = append(req.Topics, t)
	resp, err := conn.Do(req)
	if err != nil {
		return err
	}
	for _, p := range resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
	}
	return nil
}

// patiently does something again while the coordinator is on its way.
func patiently(do func() error) (err error) {
	lagoontest.Poll(time.Minute, func() bool {
		err = do()
		return !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator) && !errors.Is(err, kerr.CoordinatorNotAvailable)
	})
	return err
}

// find has the broker make __consumer_offsets, which Kafka does for no other request.
func (c coordinator) find(b *testing.B) {
	b.Helper()
	conn := dial(b, c, "finder")
	err := patiently(func() error {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorKey = 2, "in"
		resp, err := conn.Do(req)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.(*kmsg.FindCoordinatorResponse).ErrorCode)
	})
	if err != nil {
		b.Fatal(err)
	}
}

// commits is a closed loop of 64 groups, each with one commit on its way.
func (c coordinator) commits(b *testing.B) {
	const clients, length = 64, 10 * time.Second
	conns := make([]*rawkafka.Conn, clients)
	for i := range conns {
		conns[i] = dial(b, c, fmt.Sprint("committer-", i))
		group := fmt.Sprint("committer-", i)
		if err := patiently(func() error { return commit(conns[i], group, 0) }); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		var (
			g       errgroup.Group
			latency = newLatencies()
			begun   = time.Now()
			before  = cpuSeconds(b, c.pid())
		)
		for i, conn := range conns {
			g.Go(func() error {
				for n := int64(1); time.Since(begun) < length; n++ {
					sent := time.Now()
					if err := commit(conn, fmt.Sprint("committer-", i), n); err != nil {
						return err
					}
					latency.record(time.Since(sent))
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		n := float64(latency.h.TotalCount())
		latency.report(b)
		b.ReportMetric(n/time.Since(begun).Seconds(), "commits/s")
		b.ReportMetric((cpuSeconds(b, c.pid())-before)/n*1e6, "cpu-us/commit")
	}
}

// load has 5,000 groups commit ten partitions each, restarts the broker and asks for all of them.
func (c coordinator) load(b *testing.B) {
	const groups, clients, last = 5000, 50, 42
	share := func(do func(conn *rawkafka.Conn, group string) error) error {
		var g errgroup.Group
		for i := range clients {
			conn := dial(b, c, fmt.Sprint("load-", i))
			g.Go(func() error {
				for n := i; n < groups; n += clients {
					group := fmt.Sprint("load-", n)
					if err := patiently(func() error { return do(conn, group) }); err != nil {
						return fmt.Errorf("group %s: %w", group, err)
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
	if err := share(func(conn *rawkafka.Conn, group string) error { return commit(conn, group, last) }); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		begun := time.Now()
		c.restart()
		ready := time.Since(begun)
		err := share(func(conn *rawkafka.Conn, group string) error {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.Version, req.Group = 5, group
			resp, err := conn.Do(req)
			if err != nil {
				return err
			}
			got := resp.(*kmsg.OffsetFetchResponse)
			if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
				return err
			}
			if len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 10 || got.Topics[0].Partitions[9].Offset != last {
				return fmt.Errorf("its commits are not there: %+v", got.Topics)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		all := time.Since(begun)
		b.ReportMetric(ready.Seconds(), "ready-s")
		b.ReportMetric(all.Seconds(), "all-groups-s")
		hold(b, all.Seconds(), loadSeconds)
	}
}

const maxLatency = time.Minute

// latencies are counted by many goroutines.
type latencies struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

func newLatencies() *latencies {
	return &latencies{h: hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

func (l *latencies) record(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.h.RecordValue(min(max(d, time.Microsecond), maxLatency).Microseconds()) // in its range by what is before
}

// report is called when nobody records any more.
func (l *latencies) report(b *testing.B) {
	b.ReportMetric(float64(l.h.ValueAtQuantile(50))/1e3, "p50-ms")
	b.ReportMetric(float64(l.h.ValueAtQuantile(99))/1e3, "p99-ms")
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
