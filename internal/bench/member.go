package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/bench/report"
	"lagoon/internal/rawkafka"
)

// What Java's consumer does by default: heartbeat.interval.ms, auto.commit.interval.ms, session.timeout.ms, max.poll.interval.ms.
const (
	heartbeatEvery   = 3 * time.Second
	commitEvery      = 5 * time.Second
	sessionTimeout   = 45 * time.Second
	rebalanceTimeout = 5 * time.Minute
)

// leaveTime is how long the last commit and the leaving may take after a reader has ended.
const leaveTime = 10 * time.Second

// clientID is what a role calls itself: over the connection of its group, too, for a broker cannot know otherwise whose fetches they are.
func clientID(role string) string { return "lagoon-bench-" + role }

func backlogRole(i int) string { return "backlog-" + strconv.Itoa(i) }

type topicPartition struct {
	topic     string
	partition int32
}

// positions is how far a reader is: written where it reads, read where it commits. A nil one takes everything and keeps nothing.
type positions struct {
	mu   sync.Mutex
	next map[topicPartition]int64
}

// moved says what the reader will read next.
func (p *positions) moved(topic string, partition int32, next int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[topicPartition{topic, partition}] = next
}

// commit is a request to commit them, nil when nothing has been read.
func (p *positions) commit() *kmsg.OffsetCommitRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.next) == 0 {
		return nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version = 7
	for at, next := range p.next {
		i := slices.IndexFunc(req.Topics, func(t kmsg.OffsetCommitRequestTopic) bool { return t.Topic == at.topic })
		if i < 0 {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = at.topic
			i, req.Topics = len(req.Topics), append(req.Topics, t)
		}
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition, one.Offset = at.partition, next
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, one)
	}
	return req
}

// groupTally is what all members did.
type groupTally struct {
	mu     sync.Mutex
	groups map[string]bool
	total  report.Groups
}

// update changes the sums.
func (g *groupTally) update(f func(*report.Groups)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.total)
}

func (g *groupTally) joined(group string, again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == nil {
		g.groups = map[string]bool{}
	}
	g.groups[group] = true
	if again {
		g.total.Rebalances++
	}
}

func (g *groupTally) refused(group string, err error) {
	g.update(func(t *report.Groups) {
		if t.Refused++; t.FirstReason == "" {
			t.FirstReason = fmt.Sprintf("group %s: %v", group, explain(err))
		}
	})
}

func (g *groupTally) report() *report.Groups {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.total
	out.Groups = len(g.groups)
	return &out
}

// why is the note on what went wrong, "" when nothing did.
func (g *groupTally) why() string {
	if t := g.report(); t.Refused > 0 || t.Rebalances > 0 {
		return fmt.Sprintf("groups: %d heartbeats, commits or leaves were refused, and there were %d rebalances; the first: %s", t.Refused, t.Rebalances, t.FirstReason)
	}
	return ""
}

// member is one reader's membership in a group that nobody else is in, over a connection of its own: the reader's fetches never wait
// for it. It assigns the reader all that it reads.
type member struct {
	group, client string
	assigned      []topicPartition
	at            *positions
	tally         *groupTally
	find          func(context.Context) (addr string, err error) // the coordinator
	heartbeat     time.Duration
	commit        time.Duration

	conn       *rawkafka.Conn // nil: not connected
	hangUp     func()
	id         string
	generation int32
}

// run joins, calls joined, keeps the membership until ctx ends, and leaves. A refusal is counted and joined anew after; the error is that
// the group cannot be joined. It ends at most leaveTime after ctx.
func (m *member) run(ctx context.Context, joined func()) error {
	defer func() { m.close() }()
	for again := false; ; again = true {
		err := m.joinPatiently(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			m.tally.joined(m.group, again)
			if !again {
				joined()
			}
			err = m.stay(ctx)
		}
		if ctx.Err() != nil {
			if m.id != "" {
				m.count(m.leave())
			}
			return nil
		}
		m.count(err)
	}
}

func (m *member) count(err error) {
	if err != nil {
		m.tally.refused(m.group, err)
	}
}

// joinPatiently tries again as long as the coordinator is only not ready.
func (m *member) joinPatiently(ctx context.Context) error {
	for end := time.Now().Add(patience); ; {
		err := m.join(ctx)
		if err == nil || !kerr.IsRetriable(err) || time.Now().After(end) || !pause(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// close hangs up; the next request needs a join.
func (m *member) close() {
	if m.conn != nil {
		m.hangUp()
		m.conn = nil
	}
}

// dial connects to the coordinator for leaveTime longer than ctx lasts.
func (m *member) dial(ctx context.Context) error {
	m.close()
	addr, err := m.find(ctx)
	if err != nil {
		return err
	}
	c, err := rawkafka.Dial(addr, m.client)
	if err != nil {
		return err
	}
	c.Patience = patience
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(leaveTime, func() { _ = c.Close() }) })
	m.conn, m.hangUp = c, func() { stop(); _ = c.Close() }
	return nil
}

// request asks the coordinator; the connection is of no use after an error.
func request[R kmsg.Response](m *member, req kmsg.Request) (resp R, err error) {
	got, err := m.conn.Do(req)
	if err != nil {
		m.close()
		return resp, err
	}
	return got.(R), nil
}

// join connects, joins as the group's leader and assigns itself all it reads.
func (m *member) join(ctx context.Context) error {
	if err := m.dial(ctx); err != nil {
		return fmt.Errorf("coordinator: %w", err)
	}
	resp, err := m.joinOnce()
	if errors.Is(err, kerr.UnknownMemberID) { // the one before has expired
		resp, err = m.joinOnce()
	}
	if errors.Is(err, kerr.MemberIDRequired) { // it has one now
		resp, err = m.joinOnce()
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if resp.LeaderID != m.id || len(resp.Members) != 1 {
		return errors.New("the group has other members: is it another run's? use another --topic-prefix")
	}
	if err := m.sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (m *member) joinOnce() (*kmsg.JoinGroupResponse, error) {
	subscription := kmsg.NewConsumerMemberMetadata()
	for _, at := range m.assigned {
		if !slices.Contains(subscription.Topics, at.topic) {
			subscription.Topics = append(subscription.Topics, at.topic)
		}
	}
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", subscription.AppendTo(nil)
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 5, m.group, m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(sessionTimeout.Milliseconds()), int32(rebalanceTimeout.Milliseconds())
	req.Protocols = append(req.Protocols, protocol)
	resp, err := request[*kmsg.JoinGroupResponse](m, req)
	if err != nil {
		return nil, err
	}
	err = kerr.ErrorForCode(resp.ErrorCode)
	switch {
	case err == nil, errors.Is(err, kerr.MemberIDRequired):
		m.id, m.generation = resp.MemberID, resp.Generation
	case errors.Is(err, kerr.UnknownMemberID):
		m.id = ""
	}
	return resp, err
}

func (m *member) sync() error {
	plan := kmsg.NewConsumerMemberAssignment()
	for _, at := range m.assigned {
		i := slices.IndexFunc(plan.Topics, func(t kmsg.ConsumerMemberAssignmentTopic) bool { return t.Topic == at.topic })
		if i < 0 {
			topic := kmsg.NewConsumerMemberAssignmentTopic()
			topic.Topic = at.topic
			i, plan.Topics = len(plan.Topics), append(plan.Topics, topic)
		}
		plan.Topics[i].Partitions = append(plan.Topics[i].Partitions, at.partition)
	}
	mine := kmsg.NewSyncGroupRequestGroupAssignment()
	mine.MemberID, mine.MemberAssignment = m.id, plan.AppendTo(nil)
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	req.GroupAssignment = append(req.GroupAssignment, mine)
	resp, err := request[*kmsg.SyncGroupResponse](m, req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// stay heartbeats and commits until ctx ends or the coordinator refuses.
func (m *member) stay(ctx context.Context) error {
	heartbeat, commit := time.NewTicker(m.heartbeat), time.NewTicker(m.commit)
	defer heartbeat.Stop()
	defer commit.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat.C:
			err = m.beat()
		case <-commit.C:
			err = m.commitNow()
		}
		if err != nil {
			return err
		}
	}
}

func (m *member) beat() error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	resp, err := request[*kmsg.HeartbeatResponse](m, req)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	m.tally.update(func(t *report.Groups) { t.Heartbeats++ })
	return nil
}

func (m *member) commitNow() error {
	req := m.at.commit()
	if req == nil {
		return nil
	}
	req.Group, req.Generation, req.MemberID = m.group, m.generation, m.id
	began := time.Now()
	resp, err := request[*kmsg.OffsetCommitResponse](m, req)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("commit of %s/%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	took := float64(time.Since(began)) / float64(time.Millisecond)
	m.tally.update(func(t *report.Groups) { t.Commits, t.SlowestMs = t.Commits+1, max(t.SlowestMs, took) })
	return nil
}

// leave commits once more, as a consumer that is closed does, and goes.
func (m *member) leave() error {
	if m.conn == nil {
		return errors.New("leave: the connection was lost")
	}
	m.count(m.commitNow())
	if m.conn == nil {
		return nil // counted
	}
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = m.id
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group, req.Members = 3, m.group, []kmsg.LeaveGroupRequestMember{member}
	resp, err := request[*kmsg.LeaveGroupResponse](m, req)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	for i := 0; err == nil && i < len(resp.Members); i++ {
		err = kerr.ErrorForCode(resp.Members[i].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// member makes the membership of a role.
func (r *runner) member(role string, assigned []topicPartition) *member {
	group := r.topic(role)
	return &member{
		group: group, client: clientID(role), assigned: assigned, at: &positions{next: map[topicPartition]int64{}}, tally: r.groups,
		find: func(ctx context.Context) (string, error) { return r.c.coordinator(ctx, group) }, heartbeat: heartbeatEvery, commit: commitEvery,
	}
}

// join starts members side by side and returns when all have joined; each runs until ctx ends. start is given what each is to do.
func (r *runner) join(ctx context.Context, members []*member, start func(m *member, run func() error)) error {
	joined := make(chan struct{}, len(members))
	for _, m := range members {
		start(m, func() error { return m.run(ctx, func() { joined <- struct{}{} }) })
	}
	for range members {
		select {
		case <-joined:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// joinLive has the readers of the live topics join before there is anything to read. Without groups it does nothing.
func (r *runner) joinLive(ctx context.Context) error {
	if r.groups == nil {
		return nil
	}
	r.at = map[string]*positions{}
	var members []*member
	add := func(role string, assigned ...topicPartition) {
		m := r.member(role, assigned)
		members, r.at[role] = append(members, m), m.at
	}
	if r.o.LiveRate > 0 {
		live := partitionsOf(r.topic("live"), r.o.LivePartitions)
		mixed := live[:1:1]
		for _, p := range r.mixedOld.parts {
			mixed = append(mixed, topicPartition{r.mixedOld.topic, p.partition})
		}
		add(report.Tail, live...)
		add(report.Mixed, mixed...)
	}
	if r.o.SlowRate > 0 {
		add(report.Delayed, partitionsOf(r.topic("slow"), r.o.SlowPartitions)...)
	}
	return r.join(ctx, members, func(m *member, run func() error) { r.background("group "+m.group, run) })
}

func partitionsOf(topic string, n int32) (out []topicPartition) {
	for p := range n {
		out = append(out, topicPartition{topic, p})
	}
	return out
}

// groupNames are the groups that the run will use.
func (r *runner) groupNames() (out []string) {
	if r.groups == nil {
		return nil
	}
	if r.o.LiveRate > 0 {
		out = append(out, r.topic(report.Tail), r.topic(report.Mixed))
	}
	if r.o.SlowRate > 0 {
		out = append(out, r.topic(report.Delayed))
	}
	most := 0
	for _, s := range r.specs {
		most = max(most, s.readers)
	}
	for i := range most {
		out = append(out, r.topic(backlogRole(i)))
	}
	return out
}

// claim makes sure that groups are free. With reuse a group that is there is taken, and kept, if it is empty.
func (c *cluster) claim(ctx context.Context, reuse bool, groups ...string) error {
	if len(groups) == 0 {
		return nil
	}
	there, err := c.adm.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	for _, group := range groups {
		g, found := there[group]
		switch {
		case !found || g.State == "Dead":
			c.groups = append(c.groups, group)
		case !reuse:
			return fmt.Errorf("group %s is there already: delete it, or use --reuse or another --topic-prefix", group)
		case g.State != "Empty":
			return fmt.Errorf("group %s is there and has members (%s): use another --topic-prefix", group, g.State)
		}
	}
	return nil
}

// removeGroups deletes the groups that this run made.
func (c *cluster) removeGroups(ctx context.Context) error {
	if len(c.groups) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	resps, err := c.adm.DeleteGroups(ctx, c.groups...)
	for _, resp := range resps.Sorted() {
		if resp.Err != nil && !errors.Is(resp.Err, kerr.GroupIDNotFound) { // not one that no phase has used
			err = errors.Join(err, fmt.Errorf("%s: %w", resp.Group, resp.Err))
		}
	}
	if err != nil {
		return fmt.Errorf("groups %s were not all deleted: %w", strings.Join(c.groups, ", "), err)
	}
	c.groups = nil
	return nil
}

// coordinator is the address of a group's coordinator.
func (c *cluster) coordinator(ctx context.Context, group string) (string, error) {
	found := c.adm.FindGroupCoordinators(ctx, group)[group]
	if found.Err != nil {
		return "", found.Err
	}
	return net.JoinHostPort(found.Host, strconv.Itoa(int(found.Port))), nil
}
