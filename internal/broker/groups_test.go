package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/groupstest"
	"lagoon/internal/statetopic"
)

// groupBroker is an admin broker whose groups form at once.
func groupBroker(t *testing.T) *adminBroker {
	a := newAdminBroker(t, func(o *Options) { o.OffsetsPartitions = 3 })
	a.topic("orders", 2)
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKeys = []string{"g"}
	if c := ask[*kmsg.FindCoordinatorResponse](a, 6, find).Coordinators[0]; c.ErrorCode != 0 {
		t.Fatalf("%+v", c)
	}
	waitUntil(t, "the groups to be loaded", func() bool {
		return ask[*kmsg.ListGroupsResponse](a, 5, kmsg.NewPtrListGroupsRequest()).ErrorCode == 0
	})
	return a
}

func (a *adminBroker) join(version int16, group, memberID string, instance *string) *kmsg.JoinGroupResponse {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.ProtocolType = group, memberID, instance, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 600_000, 600_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", []byte{0, 0, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's'}
	req.Protocols = append(req.Protocols, p)
	return ask[*kmsg.JoinGroupResponse](a, version, req)
}

func (a *adminBroker) commit(version int16, group, member string, generation int32, partitions ...int32) []string {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation, req.RetentionTimeMillis = group, member, generation, -1
	for _, name := range []string{"orders", "absent"} {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = name
		if t, ok := a.meta.Snapshot().Topic(name); ok {
			rt.TopicID = t.ID
		}
		for _, p := range partitions {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = p, int64(10+p), 4, kmsg.StringPtr("note")
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	var out []string
	for _, t := range ask[*kmsg.OffsetCommitResponse](a, version, req).Topics {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%d:%d", p.Partition, p.ErrorCode))
		}
	}
	return out
}

// fetched prints what OffsetFetch answers for a group, all versions alike.
func (a *adminBroker) fetched(version int16, group string, all bool) string {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	if !all {
		orders, _ := a.meta.Snapshot().Topic("orders")
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = "orders", []int32{0, 1, 7}
		req.Topics = append(req.Topics, rt)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = "orders", orders.ID, []int32{0, 1, 7}
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	resp := ask[*kmsg.OffsetFetchResponse](a, version, req)
	var out []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%d@%d:%d", p.Partition, p.Offset, p.ErrorCode))
		}
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				out = append(out, fmt.Sprintf("%d@%d:%d", p.Partition, p.Offset, p.ErrorCode))
			}
		}
		if g.ErrorCode != 0 {
			out = append(out, fmt.Sprint("group ", g.ErrorCode))
		}
	}
	if resp.ErrorCode != 0 {
		out = append(out, fmt.Sprint("all ", resp.ErrorCode))
	}
	return strings.Join(out, " ")
}

// TestOffsetVersions: a consumer without members commits and fetches in every version; a group that does not exist has no offsets and is
// no error.
func TestOffsetVersions(t *testing.T) {
	a := groupBroker(t)
	for v := int16(2); v <= 10; v++ {
		group := fmt.Sprintf("g%d", v)
		unknown := 3
		if v >= 10 {
			unknown = 100
		}
		want := fmt.Sprintf("[0:0 1:0 9:3 0:%d 1:%d 9:%d]", unknown, unknown, unknown)
		if got := fmt.Sprint(a.commit(v, group, "", -1, 0, 1, 9)); got != want {
			t.Errorf("commit v%d: %s, want %s", v, got, want)
		}
		if got := a.commit(v, group, "nobody", 3, 0); got[0] != "0:25" {
			t.Errorf("commit v%d of an unknown member: %v", v, got)
		}
		if got := a.commit(v, "none", "nobody", 3, 0); v < 9 && got[0] != "0:22" || v >= 9 && got[0] != "0:69" {
			t.Errorf("commit v%d to an unknown group: %v", v, got)
		}
	}
	for v := int16(1); v <= 10; v++ {
		if got := a.fetched(v, "g5", false); got != "0@10:0 1@11:0 7@-1:0" {
			t.Errorf("fetch v%d: %s", v, got)
		}
		if got := a.fetched(v, "unknown", false); got != "0@-1:0 1@-1:0 7@-1:0" {
			t.Errorf("fetch v%d of an unknown group: %s", v, got)
		}
		if v >= 2 {
			if got := a.fetched(v, "g5", true); got != "0@10:0 1@11:0" {
				t.Errorf("fetch all v%d: %s", v, got)
			}
		}
	}
}

// TestMemberVersions: joining, assignment, heartbeat, commit, description and leaving in every version.
func TestMemberVersions(t *testing.T) {
	a := groupBroker(t)
	for v := int16(0); v <= 9; v++ {
		group := fmt.Sprintf("m%d", v)
		joined := a.join(v, group, "", nil)
		if v >= 4 {
			if joined.ErrorCode != 79 || joined.MemberID == "" {
				t.Fatalf("join v%d: %+v", v, joined)
			}
			joined = a.join(v, group, joined.MemberID, nil)
		}
		if joined.ErrorCode != 0 || joined.Generation != 1 || joined.LeaderID != joined.MemberID || *joined.Protocol != "range" || len(joined.Members) != 1 || !strings.HasPrefix(joined.MemberID, "test-") {
			t.Fatalf("join v%d: %+v", v, joined)
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID, sync.ProtocolType, sync.Protocol = group, 1, joined.MemberID, kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
		sa := kmsg.NewSyncGroupRequestGroupAssignment()
		sa.MemberID, sa.MemberAssignment = joined.MemberID, []byte("all")
		sync.GroupAssignment = append(sync.GroupAssignment, sa)
		if resp := ask[*kmsg.SyncGroupResponse](a, min(v, 5), sync); resp.ErrorCode != 0 || string(resp.MemberAssignment) != "all" {
			t.Errorf("sync v%d: %+v", min(v, 5), resp)
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.Generation, beat.MemberID = group, 1, joined.MemberID
		if resp := ask[*kmsg.HeartbeatResponse](a, min(v, 4), beat); resp.ErrorCode != 0 {
			t.Errorf("heartbeat: %+v", resp)
		}
		if got := a.commit(8, group, joined.MemberID, 1, 0); got[0] != "0:0" {
			t.Errorf("commit: %v", got)
		}
		if got := a.commit(8, group, joined.MemberID, 2, 0); got[0] != "0:22" {
			t.Errorf("commit of another generation: %v", got)
		}
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups = []string{group, "none"}
		d := ask[*kmsg.DescribeGroupsResponse](a, min(v, 6), describe)
		if g := d.Groups[0]; g.State != "Stable" || g.Protocol != "range" || len(g.Members) != 1 || string(g.Members[0].MemberAssignment) != "all" {
			t.Errorf("describe v%d: %+v", min(v, 6), g)
		}
		if g, want := d.Groups[1], v >= 6; g.State != "Dead" || (g.ErrorCode == 69) != want || (g.ErrorMessage != nil) != want {
			t.Errorf("describe v%d of an unknown group: %+v", min(v, 6), g)
		}
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Groups = []string{group, "none"}
		if r := ask[*kmsg.DeleteGroupsResponse](a, min(v, 3), del).Groups; r[0].ErrorCode != 68 || r[1].ErrorCode != 69 {
			t.Errorf("delete with members: %+v", r)
		}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = group, joined.MemberID
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID = joined.MemberID
		leave.Members = append(leave.Members, lm)
		if resp := ask[*kmsg.LeaveGroupResponse](a, min(v, 5), leave); resp.ErrorCode != 0 {
			t.Errorf("leave: %+v", resp)
		}
		if r := ask[*kmsg.DeleteGroupsResponse](a, min(v, 3), del).Groups; r[0].ErrorCode != 0 {
			t.Errorf("delete: %+v", r)
		}
	}
}

// TestStaticMemberIsFenced: the second instance of a name takes the place of the first.
func TestStaticMemberIsFenced(t *testing.T) {
	a := groupBroker(t)
	first := a.join(9, "static", "", kmsg.StringPtr("i1"))
	if first.ErrorCode != 0 || !strings.HasPrefix(first.MemberID, "i1-") {
		t.Fatalf("%+v", first)
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID, sync.InstanceID = "static", 1, first.MemberID, kmsg.StringPtr("i1")
	if resp := ask[*kmsg.SyncGroupResponse](a, 5, sync); resp.ErrorCode != 23 { // no protocol named
		t.Errorf("sync: %+v", resp)
	}
	if resp := ask[*kmsg.SyncGroupResponse](a, 3, sync); resp.ErrorCode != 0 {
		t.Errorf("sync: %+v", resp)
	}
	second := a.join(9, "static", "", kmsg.StringPtr("i1"))
	if second.ErrorCode != 0 || second.MemberID == first.MemberID || second.Generation != 1 || !second.SkipAssignment {
		t.Errorf("%+v", second)
	}
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.Generation, beat.MemberID, beat.InstanceID = "static", 1, first.MemberID, kmsg.StringPtr("i1")
	if resp := ask[*kmsg.HeartbeatResponse](a, 4, beat); resp.ErrorCode != 82 {
		t.Errorf("heartbeat of the first: %+v", resp)
	}
}

// TestInternalTopicIsGuarded: clients neither delete, grow nor shorten it, and a deleted topic takes its offsets along.
func TestInternalTopicIsGuarded(t *testing.T) {
	a := groupBroker(t)
	del := kmsg.NewPtrDeleteTopicsRequest()
	dt := kmsg.NewDeleteTopicsRequestTopic()
	dt.Topic = kmsg.StringPtr(groups.Topic)
	del.Topics = append(del.Topics, dt)
	if r := ask[*kmsg.DeleteTopicsResponse](a, 6, del).Topics[0]; r.ErrorCode != 42 || r.ErrorMessage == nil {
		t.Errorf("delete: %+v", r)
	}
	grow := kmsg.NewPtrCreatePartitionsRequest()
	gt := kmsg.NewCreatePartitionsRequestTopic()
	gt.Topic, gt.Count = groups.Topic, 100
	grow.Topics = append(grow.Topics, gt)
	if r := ask[*kmsg.CreatePartitionsResponse](a, 3, grow).Topics[0]; r.ErrorCode != 37 {
		t.Errorf("grow: %+v", r)
	}
	a.commit(8, "g", "", -1, 0)
	del.Topics[0].Topic = kmsg.StringPtr("orders")
	if r := ask[*kmsg.DeleteTopicsResponse](a, 6, del).Topics[0]; r.ErrorCode != 0 {
		t.Fatalf("%+v", r)
	}
	if got := a.fetched(8, "g", true); got != "" {
		t.Errorf("offsets of the deleted topic: %s", got)
	}
}

// TestOffsetDelete: offsets of topics that are read stay.
func TestOffsetDelete(t *testing.T) {
	a := groupBroker(t)
	a.commit(8, "g", "", -1, 0, 1)
	ask1 := func() *kmsg.OffsetDeleteResponse {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = "g"
		rt := kmsg.NewOffsetDeleteRequestTopic()
		rt.Topic = "orders"
		for _, p := range []int32{0, 8} {
			rp := kmsg.NewOffsetDeleteRequestTopicPartition()
			rp.Partition = p
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.OffsetDeleteResponse](a, 0, req)
	}
	if r := ask1(); r.ErrorCode != 0 || r.Topics[0].Partitions[0].ErrorCode != 0 || r.Topics[0].Partitions[1].ErrorCode != 3 {
		t.Errorf("%+v", r)
	}
	if got := a.fetched(8, "g", true); got != "1@11:0" {
		t.Errorf("left: %s", got)
	}
	a.join(3, "g", "", nil)
	if r := ask1(); r.ErrorCode != 0 || r.Topics[0].Partitions[0].ErrorCode != 86 {
		t.Errorf("with a reader: %+v", r)
	}
}

// TestListGroupsFilters: states and types, whatever the case.
func TestListGroupsFilters(t *testing.T) {
	a := groupBroker(t)
	a.commit(8, "empty", "", -1, 0)
	a.join(3, "busy", "", nil)
	for _, c := range []struct {
		states, types []string
		want          string
	}{
		{nil, nil, "busy empty"}, {[]string{"EMPTY"}, nil, "empty"}, {[]string{"completingrebalance", "Stable"}, []string{"Classic"}, "busy"},
		{nil, []string{"consumer"}, ""}, {[]string{"odd"}, nil, ""},
	} {
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter, req.TypesFilter = c.states, c.types
		var got []string
		for _, g := range ask[*kmsg.ListGroupsResponse](a, 5, req).Groups {
			got = append(got, g.Group)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v %v: %v, want %s", c.states, c.types, got, c.want)
		}
	}
}

func (f fakeLogs) groupLog(int32) (groups.Log, bool) { return &groupstest.Log{}, true }

func (f fakeLogs) transactionLog(int32) (statetopic.Log, bool) { return &groupstest.Log{}, true }

// groupRig is a rig whose internal topic is there and loaded.
func groupRig(t *testing.T) *rig {
	r := newRig(t, nil)
	if _, err := r.b.meta.CreateTopic(groups.Topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	r.b.groups.Start(1)
	waitUntil(t, "the groups to be loaded", func() bool {
		_, err := r.b.groups.List(nil)
		return err == 0
	})
	return r
}

// TestJoinWaitsWithoutHoldingUp: a join that waits lets later requests of its connection in, and is answered when the broker stops.
func TestJoinWaitsWithoutHoldingUp(t *testing.T) {
	r := groupRig(t)
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 3, "g", "consumer", 600_000, 600_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "range"
	join.Protocols = append(join.Protocols, p)
	first := r.dial()
	member := call[*kmsg.JoinGroupResponse](first, join)
	if member.ErrorCode != 0 {
		t.Fatalf("%+v", member)
	}
	second := r.dial()
	second.send(join) // it waits for the first to join again
	waiting := second.corr
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 8, "other", -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = "orders"
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = 7
	rt.Partitions = append(rt.Partitions, rp)
	commit.Topics = append(commit.Topics, rt)
	second.send(commit)
	for done := false; !done; { // the commit behind it is carried out …
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version, fetch.Group = 5, "other"
		ft := kmsg.NewOffsetFetchRequestTopic()
		ft.Topic, ft.Partitions = "orders", []int32{0}
		fetch.Topics = append(fetch.Topics, ft)
		done = call[*kmsg.OffsetFetchResponse](first, fetch).Topics[0].Partitions[0].Offset == 7
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.b.Shutdown(t.Context()) }()
	if resp := second.receive(join, waiting).(*kmsg.JoinGroupResponse); resp.ErrorCode != 16 {
		t.Errorf("join at shutdown: %+v", resp)
	}
	if resp := second.receive(commit, waiting+1).(*kmsg.OffsetCommitResponse); resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("commit: %+v", resp) // … and answered in its turn
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestProduceToInternalTopic: nobody writes other people's offsets.
func TestProduceToInternalTopic(t *testing.T) {
	r := groupRig(t)
	if got := produced(r.dial(), produceRequest(9, -1, groups.Topic, records(0, batch(1, 100)))); got.ErrorCode != 17 {
		t.Errorf("%+v", got)
	}
}

// TestGroupsStartWithTheirTopic: a client that comes while the internal topic is being made waits until its partitions are there.
func TestGroupsStartWithTheirTopic(t *testing.T) {
	a := newAdminBroker(t, func(o *Options) { o.OffsetsPartitions = 3 })
	making, release := make(chan struct{}, 3), make(chan struct{})
	a.store.failCreate = func(string, int32) error {
		making <- struct{}{}
		<-release
		return nil
	}
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- a.startGroups(t.Context()) }()
	<-making
	go func() { second <- a.startGroups(t.Context()) }()
	select {
	case err := <-second:
		t.Errorf("started before the partitions were there: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if a.groups.Started() {
		t.Error("groups were started before their topic was made")
	}
	close(release)
	if err1, err2 := <-first, <-second; err1 != nil || err2 != nil || !a.groups.Started() {
		t.Errorf("%v, %v", err1, err2)
	}
}

// TestDeletingATopicOfBefore: a deletion that finds its topic gone, and another of the same name, leaves that one's offsets alone.
func TestDeletingATopicOfBefore(t *testing.T) {
	a := groupBroker(t)
	before, _ := a.meta.Snapshot().Topic("orders")
	a.commit(8, "g", "", -1, 0)
	if err := a.deleteTopic(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	a.topic("orders", 2)
	if got := a.fetched(8, "g", true); got != "" {
		t.Errorf("the new topic has offsets: %s", got)
	}
	a.commit(8, "g", "", -1, 1)
	if err := a.deleteTopic(t.Context(), before); err == nil {
		t.Error("a topic was deleted twice")
	}
	if got := a.fetched(8, "g", true); got != "1@11:0" {
		t.Errorf("offsets of the new topic: %q", got)
	}
}

// TestGroupWithoutAName: offsets can be committed under the empty name, so that group can be looked at and deleted, as in Kafka.
func TestGroupWithoutAName(t *testing.T) {
	a := groupBroker(t)
	if got := a.commit(8, "", "", -1, 0); got[0] != "0:0" {
		t.Fatalf("commit: %v", got)
	}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{""}
	if g := ask[*kmsg.DescribeGroupsResponse](a, 6, describe).Groups[0]; g.ErrorCode != 0 || g.State != "Empty" {
		t.Errorf("describe: %+v", g)
	}
	remove := kmsg.NewPtrDeleteGroupsRequest()
	remove.Groups = []string{""}
	if g := ask[*kmsg.DeleteGroupsResponse](a, 2, remove).Groups[0]; g.ErrorCode != 0 {
		t.Errorf("delete: %+v", g)
	}
	if got := a.fetched(8, "", true); got != "" {
		t.Errorf("offsets after the deletion: %s", got)
	}
	if r := a.join(3, "", "", nil); r.ErrorCode != 24 {
		t.Errorf("join: %d", r.ErrorCode)
	}
}

// TestManyProtocols: what a member offers is taken in in linear time; each name counts once, as the first.
func TestManyProtocols(t *testing.T) {
	list := make([]kmsg.JoinGroupRequestProtocol, 200_000) // fit into a request
	for i := range list {
		list[i].Name = fmt.Sprintf("%05x", i)
	}
	list[7] = kmsg.JoinGroupRequestProtocol{Name: list[3].Name, Metadata: []byte("again")}
	begun := time.Now()
	got := protocolsOf(list)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(got) != len(list)-1 || got[3].Name != list[3].Name || len(got[3].Metadata) != 0 || got[7].Name != list[8].Name {
		t.Errorf("%d protocols, %+v", len(got), got[:9])
	}
}

// TestRepeatedNames: one small request that names a group, or a partition, again and again does not make a response without bound.
func TestRepeatedNames(t *testing.T) {
	a := groupBroker(t)
	a.maxAnswer = 100 << 10
	const times = 20_000
	a.commit(8, "g", "", -1, 0, 1)
	a.join(3, "members", "", nil)
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.Group, beat.MemberID, beat.RebalanceTimeoutMillis = "consumers", "m", 60_000
	beat.SubscribedTopicNames, beat.Topics = []string{"orders"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	if r := ask[*kmsg.ConsumerGroupHeartbeatResponse](a, 1, beat); r.ErrorCode != 0 {
		t.Fatalf("%+v", r)
	}
	fetch, partitions := kmsg.NewPtrOffsetFetchRequest(), kmsg.NewPtrOffsetFetchRequest()
	describe, consumers := kmsg.NewPtrDescribeGroupsRequest(), kmsg.NewPtrConsumerGroupDescribeRequest()
	for range times {
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = "g"
		fetch.Groups = append(fetch.Groups, one)
		describe.Groups, consumers.Groups = append(describe.Groups, "members"), append(consumers.Groups, "consumers")
	}
	one, orders := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroupTopic()
	orders.Topic, orders.Partitions = "orders", make([]int32, times)
	one.Group, one.Topics = "g", append(one.Topics, orders)
	partitions.Groups = append(partitions.Groups, one)

	told := map[string][]int16{}
	for _, g := range ask[*kmsg.OffsetFetchResponse](a, 8, fetch).Groups {
		told["OffsetFetch"] = append(told["OffsetFetch"], g.ErrorCode)
	}
	for _, p := range ask[*kmsg.OffsetFetchResponse](a, 8, partitions).Groups[0].Topics[0].Partitions {
		told["OffsetFetch of partitions"] = append(told["OffsetFetch of partitions"], p.ErrorCode)
	}
	for _, g := range ask[*kmsg.DescribeGroupsResponse](a, 6, describe).Groups {
		told["DescribeGroups"] = append(told["DescribeGroups"], g.ErrorCode)
	}
	for _, g := range ask[*kmsg.ConsumerGroupDescribeResponse](a, 1, consumers).Groups {
		told["ConsumerGroupDescribe"] = append(told["ConsumerGroupDescribe"], g.ErrorCode)
	}
	for api, codes := range told {
		full := slices.Index(codes, 42)
		if len(codes) != times || full < 100 || full > 2000 || codes[0] != 0 || slices.ContainsFunc(codes[full:], func(c int16) bool { return c != 42 }) {
			t.Errorf("%s: %d answers, refused from %d on, the first is %d", api, len(codes), full, codes[0])
		}
	}
	if len(told) != 4 {
		t.Error("answers are missing")
	}
}

// TestAssignmentOfWhatIsNotThere: a leader may name partitions that cannot be.
func TestAssignmentOfWhatIsNotThere(t *testing.T) {
	a := groupBroker(t)
	joined := a.join(3, "g", "", nil)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = "g", joined.Generation, joined.MemberID
	all := kmsg.NewSyncGroupRequestGroupAssignment()
	all.MemberID = joined.MemberID
	all.MemberAssignment = []byte{0, 1, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff}
	sync.GroupAssignment = append(sync.GroupAssignment, all)
	if r := ask[*kmsg.SyncGroupResponse](a, 3, sync); r.ErrorCode != 0 {
		t.Fatalf("%+v", r)
	}
	for p, want := range map[int32]string{-1: "", 1: "g", 2: ""} {
		if group, _ := a.groups.Owner("test", "", "orders", p); group != want {
			t.Errorf("orders-%d is read by %q", p, group)
		}
	}
}
