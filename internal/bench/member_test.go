package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/bench/report"
)

// coordinator is a broker that knows one group of one member.
type coordinator struct {
	t    *testing.T
	addr string

	mu      sync.Mutex
	members int // other members
	next    int // id of the next member
	known   string
	commits map[topicPartition]int64
	asked   []string               // what was asked for, in order; of equal neighbours one
	refuse  map[string][]error     // the next answers, by request
	said    map[string]chan string // told of each request, by its name
}

func newCoordinator(t *testing.T) *coordinator {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &coordinator{t: t, addr: l.Addr().String(), commits: map[topicPartition]int64{}, refuse: map[string][]error{}, said: map[string]chan string{}}
	for _, name := range []string{"JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit", "LeaveGroup"} {
		c.said[name] = make(chan string, 1000)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer nc.Close(); c.serve(nc) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return c
}

func (c *coordinator) serve(nc net.Conn) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(nc, frame); err != nil {
			return
		}
		rd := kbin.Reader{Src: frame}
		req := kmsg.RequestForKey(rd.Int16())
		req.SetVersion(rd.Int16())
		correlation, client := rd.Int32(), rd.NullableString()
		if client == nil || *client != "lagoon-bench-tail" {
			c.t.Errorf("client id %v: the broker would not know whose fetches they are", client)
		}
		if err := req.ReadFrom(rd.Src); err != nil {
			c.t.Error(err)
			return
		}
		resp := c.answer(req)
		if resp == nil {
			return
		}
		body := resp.AppendTo(binary.BigEndian.AppendUint32(nil, uint32(correlation)))
		if _, err := nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
			return
		}
	}
}

var errHangUp = errors.New("hang up")

// answer follows the script, and otherwise does what was asked for; nil: the connection is closed.
func (c *coordinator) answer(req kmsg.Request) kmsg.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := kmsg.NameForKey(req.Key())
	if n := len(c.asked); n == 0 || c.asked[n-1] != name {
		c.asked = append(c.asked, name)
	}
	defer func() { c.said[name] <- name }()
	code := int16(0)
	if script := c.refuse[name]; len(script) > 0 {
		c.refuse[name] = script[1:]
		var ke *kerr.Error
		switch {
		case script[0] == errHangUp:
			return nil
		case errors.As(script[0], &ke):
			code = ke.Code
		}
	}
	switch req := req.(type) {
	case *kmsg.JoinGroupRequest:
		resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
		switch {
		case code != 0:
		case req.MemberID == "":
			c.next++
			c.known, code = fmt.Sprintf("member-%d", c.next), kerr.MemberIDRequired.Code
			resp.MemberID = c.known
		case req.MemberID != c.known:
			code = kerr.UnknownMemberID.Code
		default:
			resp.MemberID, resp.LeaderID, resp.Generation = c.known, c.known, int32(c.next)
			resp.Members = make([]kmsg.JoinGroupResponseMember, 1+c.members)
		}
		resp.ErrorCode = code
		return resp
	case *kmsg.SyncGroupRequest:
		var plan kmsg.ConsumerMemberAssignment
		if err := plan.ReadFrom(req.GroupAssignment[0].MemberAssignment); err != nil {
			c.t.Error(err)
		}
		want := []kmsg.ConsumerMemberAssignmentTopic{{Topic: "live", Partitions: []int32{0, 1}}, {Topic: "old", Partitions: []int32{3}}}
		if !reflect.DeepEqual(plan.Topics, want) {
			c.t.Errorf("assigned %+v, want %+v", plan.Topics, want)
		}
		resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
		resp.ErrorCode = code
		return resp
	case *kmsg.HeartbeatRequest:
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = code
		return resp
	case *kmsg.OffsetCommitRequest:
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, t := range req.Topics {
			out := kmsg.NewOffsetCommitResponseTopic()
			out.Topic = t.Topic
			for _, p := range t.Partitions {
				if code == 0 {
					c.commits[topicPartition{t.Topic, p.Partition}] = p.Offset
				}
				one := kmsg.NewOffsetCommitResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, code
				out.Partitions = append(out.Partitions, one)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp
	case *kmsg.LeaveGroupRequest:
		if code == 0 && req.Members[0].MemberID == c.known {
			c.known = ""
		}
		resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
		resp.ErrorCode = code
		return resp
	}
	c.t.Errorf("unexpected %s", name)
	return nil
}

// script has the coordinator answer the next requests of a name so; nil: well.
func (c *coordinator) script(name string, answers ...error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[name] = answers
}

func (c *coordinator) sequence() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.asked, " ")
}

// aMember reads live/0, live/1 and old/3 for the group.
func (c *coordinator) aMember(heartbeat, commit time.Duration) *member {
	return &member{
		group: "tail", client: clientID(report.Tail), at: &positions{next: map[topicPartition]int64{}}, tally: &groupTally{},
		assigned:  []topicPartition{{"live", 0}, {"live", 1}, {"old", 3}},
		find:      func(context.Context) (string, error) { return c.addr, nil },
		heartbeat: heartbeat, commit: commit,
	}
}

const (
	often = time.Millisecond
	never = time.Hour
)

// start runs a member; stop ends it and returns what it came to.
func start(t *testing.T, m *member) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	joined, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- m.run(ctx, func() { close(joined) }) }()
	select {
	case <-joined:
	case err := <-ended:
		t.Fatal("ended before it had joined: ", err)
	}
	return func() error { cancel(); return <-ended }
}

// TestMemberJoinsCommitsAndLeaves: what it has read is committed, by the clock and once more at the end, and nobody is left in the group.
func TestMemberJoinsCommitsAndLeaves(t *testing.T) {
	c := newCoordinator(t)
	m := c.aMember(never, often)
	stop := start(t, m)
	if got := c.sequence(); got != "JoinGroup SyncGroup" {
		t.Errorf("asked for %q before anything was read", got)
	}
	m.at.moved("live", 1, 40)
	<-c.said["OffsetCommit"]
	m.at.moved("live", 1, 41)
	m.at.moved("old", 3, 7)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if want := map[topicPartition]int64{{"live", 1}: 41, {"old", 3}: 7}; !reflect.DeepEqual(c.commits, want) {
		t.Errorf("committed %v, want %v", c.commits, want)
	}
	if got := c.sequence(); got != "JoinGroup SyncGroup OffsetCommit LeaveGroup" || c.known != "" {
		t.Errorf("asked for %q, left %q behind", got, c.known)
	}
	r := m.tally.report()
	if r.Groups != 1 || r.Commits < 2 || r.SlowestMs <= 0 || r.Refused != 0 || r.Rebalances != 0 || m.tally.why() != "" {
		t.Errorf("%+v, note %q", r, m.tally.why())
	}
}

// TestMemberHeartbeats over the same connection, with commits, as long as it is there.
func TestMemberHeartbeats(t *testing.T) {
	c := newCoordinator(t)
	stop := start(t, c.aMember(often, never))
	for range 3 {
		<-c.said["Heartbeat"]
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := c.sequence(); got != "JoinGroup SyncGroup Heartbeat LeaveGroup" {
		t.Errorf("asked for %q", got)
	}
}

// TestRefusalsAreCounted: whatever is refused, or not answered at all, is counted, told once, and the member joins again.
func TestRefusalsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name, request string
		answer        error
		forget        bool // the member is unknown afterwards
		reason        string
	}{
		{"rebalance", "Heartbeat", kerr.RebalanceInProgress, false, "group tail: heartbeat: REBALANCE_IN_PROGRESS"},
		{"expired", "Heartbeat", kerr.UnknownMemberID, true, "group tail: heartbeat: UNKNOWN_MEMBER_ID"},
		{"commit", "OffsetCommit", kerr.IllegalGeneration, false, "group tail: commit of live/0: ILLEGAL_GENERATION"},
		{"connection", "Heartbeat", errHangUp, false, "group tail: heartbeat: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			broker := newCoordinator(t)
			broker.script(c.request, nil, c.answer)
			m := broker.aMember(often, often)
			m.at.moved("live", 0, 1)
			stop := start(t, m)
			<-broker.said["SyncGroup"]
			<-broker.said[c.request] // well
			if c.forget {
				broker.mu.Lock()
				broker.known = ""
				broker.mu.Unlock()
			}
			<-broker.said["SyncGroup"] // again
			<-broker.said["OffsetCommit"]
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			r := m.tally.report()
			if r.Groups != 1 || r.Refused != 1 || r.Rebalances != 1 || !strings.HasPrefix(r.FirstReason, c.reason) {
				t.Errorf("%+v", r)
			}
			want := "groups: 1 heartbeats, commits or leaves were refused, and there were 1 rebalances; the first: " + c.reason
			if got := m.tally.why(); !strings.HasPrefix(got, want) {
				t.Errorf("note %q", got)
			}
			if broker.known != "" {
				t.Errorf("%q is still in the group", broker.known)
			}
		})
	}
}

// TestMemberOfATakenGroup: a reader that would share its group does not begin, and one whose coordinator is not ready waits.
func TestMemberOfATakenGroup(t *testing.T) {
	c := newCoordinator(t)
	c.members = 1
	err := c.aMember(never, never).run(t.Context(), func() { t.Error("joined") })
	if err == nil || !strings.Contains(err.Error(), "other members") || !strings.Contains(err.Error(), "--topic-prefix") {
		t.Errorf("got %v", err)
	}
	c.members = 0
	c.script("JoinGroup", kerr.CoordinatorLoadInProgress)
	if err := start(t, c.aMember(never, never))(); err != nil {
		t.Error(err)
	}
}

// TestPositionsWithoutAGroup cost nothing and are nowhere.
func TestPositionsWithoutAGroup(t *testing.T) {
	var none *positions
	none.moved("live", 0, 1)
}

// TestGroupNames: those that roles and phases need, no others.
func TestGroupNames(t *testing.T) {
	r := &runner{o: IsolationOptions{TopicPrefix: "b-", LiveRate: 1, SlowRate: 1}, groups: &groupTally{}}
	r.specs, _ = parsePhases([]string{"base", "x1", "x3", "mixed"})
	if got := strings.Join(r.groupNames(), " "); got != "b-tail b-mixed b-delayed b-backlog-0 b-backlog-1 b-backlog-2" {
		t.Error(got)
	}
	if r.groups = nil; len(r.groupNames()) != 0 {
		t.Error("groups for plain consumers")
	}
}
