package groups_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/groups/groupstest"
)

// beat is a heartbeat of a member of group g that reads orders; owned is how many of its partitions it says it has, from 0 on, -1 for nothing.
func (w *world) beat(id string, epoch int32, owned ...int32) (consumer.HeartbeatResult, groups.Pending) {
	w.t.Helper()
	r := consumer.HeartbeatRequest{MemberID: id, Epoch: epoch, ClientID: id, Host: "/h", Rebalance: -1}
	if epoch == 0 {
		r.Topics, r.Rebalance, r.Owned = []string{"orders"}, time.Minute, []consumer.TopicPartitions{}
	}
	if owned != nil {
		r.Owned = []consumer.TopicPartitions{{ID: consumer.TopicID{'o', 'r', 'd', 'e', 'r', 's'}, Partitions: owned}}
	}
	return w.ConsumerHeartbeat("g", r)
}

// must is beat for what has to be accepted, and durable.
func (w *world) must(id string, epoch int32, owned ...int32) consumer.HeartbeatResult {
	w.t.Helper()
	res, wait := w.beat(id, epoch, owned...)
	if res.Refused != nil {
		w.t.Fatalf("%s at %d: %v %s", id, epoch, res.Refused.Code, res.Refused.Text)
	}
	if err := wait.Wait(w.t.Context()); err != classic.None {
		w.t.Fatal(err)
	}
	return res
}

// static joins a group alone, as a static member of the classic protocol, and is given an assignment.
func (w *world) static(group string, assignment []byte) (generation int32) {
	w.t.Helper()
	joined := <-w.Join(groups.JoinRequest{Group: group, JoinRequest: classic.JoinRequest{NewID: "old", InstanceID: "i", ProtocolType: "consumer",
		Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0xff, 0xff, 0xff, 0xff}}},
		Session:   10 * time.Second, Rebalance: time.Minute}})
	synced := <-w.Sync(groups.SyncRequest{Group: group, SyncRequest: classic.SyncRequest{MemberID: "old", InstanceID: "i", Generation: joined.Generation,
		Assignments: map[string][]byte{"old": assignment}}})
	if joined.Err != classic.None || synced.Err != classic.None {
		w.t.Fatal(joined.Err, synced.Err)
	}
	return joined.Generation
}

// TestStaticMemberGoesOver: a static member that is restarted with the consumer protocol takes its place in what was a classic group, with what it had.
func TestStaticMemberGoesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		generation := w.static("g", ordersAssignment)
		over := consumer.HeartbeatRequest{MemberID: "new", InstanceID: "i", Topics: []string{"orders"}, Rebalance: time.Minute, Owned: []consumer.TopicPartitions{}}
		res, wait := w.ConsumerHeartbeat("g", over)
		if res.Refused != nil || wait.Wait(t.Context()) != classic.None || res.Assignment.Len() != 2 {
			t.Fatalf("%+v %+v", res, res.Refused)
		}
		if err := w.Heartbeat("g", "old", "i", generation); err != classic.FencedInstanceID {
			t.Errorf("its old self: %v", err)
		}

		// What an assignor says besides would be lost.
		w.static("own", append(ordersAssignment[:len(ordersAssignment)-1:len(ordersAssignment)-1], 1, 'x'))
		if res, _ := w.ConsumerHeartbeat("own", over); res.Refused == nil || res.Refused.Code != classic.GroupIDNotFound {
			t.Errorf("a group with an assignor of its own: %+v", res)
		}
	})
}

// TestStaticMemberGoesBack: a static member that is restarted with the classic protocol takes its place. With the last one of the consumer protocol the
// group goes back, and nobody has to join again.
func TestStaticMemberGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		r := consumer.HeartbeatRequest{MemberID: "new", InstanceID: "i", Topics: []string{"orders"}, Rebalance: time.Minute, Owned: []consumer.TopicPartitions{}}
		for _, r.Epoch = range []int32{0, -2} {
			if res, wait := w.ConsumerHeartbeat("g", r); res.Refused != nil || wait.Wait(t.Context()) != classic.None {
				t.Fatalf("%+v", res.Refused)
			}
		}
		generation := w.static("g", nil)
		if list, _ := w.List(nil); len(list) != 1 || list[0].Type != groups.TypeClassic || list[0].State != classic.Stable {
			t.Errorf("%+v", list)
		}
		if err := w.Heartbeat("g", "old", "i", generation); err != classic.None {
			t.Errorf("heartbeat: %v", err)
		}
		for p := range int32(4) {
			if g, _ := w.Owner("", "", "orders", p); g != "g" {
				t.Errorf("orders-%d is read for %q", p, g)
			}
		}
	})
}

// TestConsumerGroup: two members share a topic, commit and fetch at their epochs, are known as readers, and survive restarts.
func TestConsumerGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		if res := w.must("a", 0); res.Epoch != 2 || res.Assignment.Len() != 4 {
			t.Fatalf("%+v", res)
		}
		w.must("b", 0)
		w.must("a", 2)
		w.must("a", 2, 0, 1)
		if res := w.must("b", 3); res.Epoch != 3 || res.Assignment.Len() != 2 {
			t.Fatalf("%+v", res)
		}
		r := commit("g", "orders", 2, 42)
		r.MemberID, r.Generation, r.Epochs = "a", 2, true
		if _, _, err := w.Commit(r); err != classic.StaleMemberEpoch {
			t.Errorf("commit at the epoch before, of what it has no more: %v", err)
		}
		r.Offsets[0].Metadata = strings.Repeat("x", 4097)
		if errs, _, err := w.Commit(r); err != classic.None || errs[0] != classic.OffsetMetadataTooLarge {
			t.Errorf("commit at the epoch before, of nothing that can be stored: %v, %v", errs, err)
		}
		r = commit("g", "orders", 0, 41)
		r.MemberID, r.Generation, r.Epochs = "a", 2, true
		w.put(r)
		r.Epochs = false // OffsetCommit below 9
		if _, _, err := w.Commit(r); err != classic.UnsupportedVersion {
			t.Errorf("commit in a version that knows no epochs: %v", err)
		}
		r.MemberID = "somebody"
		if _, _, err := w.Commit(r); err != classic.UnknownMemberID {
			t.Errorf("commit of a stranger in such a version: %v", err)
		}
		r.MemberID, r.Generation, r.Epochs = "a", 3, true
		w.put(r)
		for i := range 100 {
			r.Offsets[0].Offset = int64(42 + i)
			w.put(r)
		}
		synctest.Wait()
		w = w.crash(nil)
		defer w.Close()
		if res := w.must("a", 3); res.Epoch != 3 || res.Assigned {
			t.Errorf("after a restart: %+v", res)
		}
		r.Generation = 2
		w.put(r)
		txn := groups.TxnCommitRequest{CommitRequest: commit("g", "orders", 2, 1), ProducerID: 7}
		txn.MemberID, txn.Generation = "a", 2
		if _, _, err := w.CommitTxn(txn); err != classic.IllegalGeneration {
			t.Errorf("commit in a transaction, of what it has no more: %v", err)
		}
		a, nobody := "a", ""
		for by, want := range map[groups.Fetcher]classic.Error{{MemberID: &a, Epoch: 3}: classic.None, {MemberID: &a, Epoch: 2}: classic.StaleMemberEpoch,
			{MemberID: &a, Epoch: -1}: classic.StaleMemberEpoch, {MemberID: &nobody, Epoch: -1}: classic.UnknownMemberID, {Epoch: -1}: classic.None} {
			if err := w.Fetch("g", by, []groups.Offset{{Topic: "orders"}}); err != want {
				t.Errorf("fetch by %+v: %v, want %v", by, err, want)
			}
		}
		if got := w.offset("g"); got != 141 {
			t.Errorf("offset %d", got)
		}
		for p, client := range []string{"a", "a", "b", "b"} {
			if group, source := w.Owner(client, "/h", "orders", int32(p)); group != "g" || source != groups.SourceAssignment {
				t.Errorf("orders-%d is read by %q (%s)", p, group, source)
			}
		}
		d, err := w.DescribeConsumer("g")
		if err != classic.None || d.State != classic.Stable || d.Epoch != 3 || len(d.Members) != 2 || d.Assignor != "uniform" {
			t.Errorf("%+v, %v", d, err)
		}
		if _, err := w.Describe("g"); err != classic.GroupIDNotFound {
			t.Errorf("as a classic group: %v", err)
		}
		if list, _ := w.List([]string{"stable"}); len(list) != 1 || list[0].Type != groups.TypeConsumer {
			t.Errorf("%+v", list)
		}
		if _, err := w.Delete("g"); err != classic.NonEmptyGroup {
			t.Errorf("delete: %v", err)
		}
		<-time.After(46 * time.Second)
		synctest.Wait()
		if d, _ := w.DescribeConsumer("g"); d.State != classic.Empty {
			t.Errorf("after the sessions: %s", d.State)
		}
		wait, err := w.Delete("g")
		if err != classic.None || wait.Wait(t.Context()) != classic.None {
			t.Errorf("delete: %v", err)
		}
		again := w.crash(nil)
		defer again.Close()
		if list, _ := again.List(nil); len(list) != 0 {
			t.Errorf("after the deletion: %+v", list)
		}
	})
}

// TestConsumerAnswersAreDurable: what a heartbeat tells cannot be taken back by a crash, and what cannot be stored has not happened.
func TestConsumerAnswersAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.must("a", 0)
		w.log.Hold()
		res, wait := w.beat("b", 0)
		if res.Refused != nil {
			t.Fatal(res.Refused)
		}
		if _, other := w.beat("a", 2); other.Wait(t.Context()) != classic.CoordinatorNotAvailable { // it is told of b
			t.Error("the answer to a did not wait")
		}
		if err := wait.Wait(t.Context()); err != classic.CoordinatorNotAvailable {
			t.Errorf("b: %v", err)
		}
		w = w.crash(nil)
		defer w.Close()
		if d, _ := w.DescribeConsumer("g"); len(d.Members) != 1 || d.Epoch != 2 {
			t.Errorf("after a crash: %+v", d)
		}
		w.log.Fail(errors.New("broken"))
		if res, _ := w.beat("b", 0); res.Refused == nil || res.Refused.Code != classic.NotCoordinator {
			t.Errorf("%+v", res)
		}
		if res, _ := w.ConsumerHeartbeat("new", consumer.HeartbeatRequest{MemberID: "x", Topics: []string{}, Owned: []consumer.TopicPartitions{}}); res.Refused == nil {
			t.Errorf("%+v", res)
		}
		if list, _ := w.List(nil); len(list) != 1 {
			t.Errorf("%+v", list)
		}
		w.log.Fail(nil)
		if d, _ := w.DescribeConsumer("g"); len(d.Members) != 1 || d.Epoch != 2 || d.State != classic.Stable {
			t.Errorf("after a failed store: %+v", d)
		}
	})
}

// ordersSubscription reads orders, in a consumer's format, version 1; it owns nothing.
var ordersSubscription = []byte{0, 1, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

func (w *world) joinClassic(id string) classic.JoinResult {
	w.t.Helper()
	return <-w.Join(groups.JoinRequest{Group: "g", JoinRequest: classic.JoinRequest{MemberID: id, NewID: "c1", ClientID: "c", Host: "/h", ProtocolType: "consumer",
		Protocols: []classic.Protocol{{Name: "range", Metadata: ordersSubscription}}, Session: 10 * time.Second, Rebalance: 30 * time.Second}})
}

// TestConversion: a classic group becomes one of the consumer protocol with the first such member, and goes back with the last. Nobody is thrown out,
// offsets stay, and a restart in between finds the group as it was.
func TestConversion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		joined := w.joinClassic("")
		all := classic.AppendAssignment(nil, 1, []classic.TopicPartitions{{Topic: "orders", Partitions: []int32{0, 1, 2, 3}}})
		if res := <-w.Sync(groups.SyncRequest{Group: "g", SyncRequest: classic.SyncRequest{MemberID: "c1", Generation: 1, Assignments: map[string][]byte{"c1": all}}}); res.Err != classic.None {
			t.Fatal(res.Err)
		}
		r := commit("g", "orders", 0, 42)
		r.MemberID, r.Generation = "c1", joined.Generation
		w.put(r)

		if res := w.must("a", 0); res.Epoch != 2 || res.Assignment.Len() != 0 {
			t.Errorf("a: %+v", res)
		}
		w = w.crash(nil)
		if list, _ := w.List(nil); len(list) != 1 || list[0].Type != groups.TypeConsumer {
			t.Fatalf("%+v", list)
		}
		if err := w.Heartbeat("g", "c1", "", 1); err != classic.RebalanceInProgress {
			t.Errorf("heartbeat: %v", err)
		}
		joined = w.joinClassic("c1")
		if joined.Err != classic.None || joined.Generation != 2 || joined.Protocol != "range" {
			t.Fatalf("%+v", joined)
		}
		synced := <-w.Sync(groups.SyncRequest{Group: "g", SyncRequest: classic.SyncRequest{MemberID: "c1", Generation: 2, ProtocolType: "consumer", Protocol: "range"}})
		list, _ := classic.ParseAssignment(synced.Assignment)
		if synced.Err != classic.None || len(list) != 1 || len(list[0].Partitions) != 2 {
			t.Errorf("%+v, %+v", synced, list)
		}
		if res := w.must("a", 2); res.Assignment.Len() != 2 {
			t.Errorf("a: %+v", res)
		}
		r.Generation, r.Offsets[0].Offset = 2, 43
		w.put(r)

		w.must("a", -1)
		if list, _ := w.List(nil); len(list) != 1 || list[0].Type != groups.TypeClassic || list[0].State != classic.PreparingRebalance {
			t.Errorf("%+v", list)
		}
		if err := w.Heartbeat("g", "c1", "", 2); err != classic.RebalanceInProgress {
			t.Errorf("heartbeat: %v", err)
		}
		w = w.crash(nil)
		defer w.Close()
		d, err := w.Describe("g")
		if err != classic.None || len(d.Members) != 1 || d.Generation != 2 || w.offset("g") != 43 {
			t.Errorf("%+v, %v, offset %d", d, err, w.offset("g"))
		}
		if joined := w.joinClassic("c1"); joined.Err != classic.None || joined.Generation != 3 || joined.Leader != "c1" {
			t.Errorf("%+v", joined)
		}
		// A group without members takes either protocol.
		if _, err := w.Leave("g", []classic.Leaver{{MemberID: "c1"}}); err != classic.None {
			t.Fatal(err)
		}
		w.must("a", 0)
		w.must("a", -1)
		if joined := w.joinClassic("c1"); joined.Err != classic.UnknownMemberID {
			t.Errorf("somebody of before joins: %+v", joined)
		}
		if d, err := w.DescribeConsumer("g"); err != classic.None || d.Epoch != 3 {
			t.Errorf("what is refused changes the group: %+v %v", d, err)
		}
		if joined := w.joinClassic(""); joined.Err != classic.None || joined.Generation != 1 {
			t.Errorf("%+v", joined)
		}
		if w.offset("g") != 43 {
			t.Errorf("offset %d", w.offset("g"))
		}
	})
}

// TestNoConversion: groups that are not of consumers stay as they are.
func TestNoConversion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		<-w.Join(groups.JoinRequest{Group: "g", JoinRequest: classic.JoinRequest{NewID: "w1", ProtocolType: "connect", Protocols: []classic.Protocol{{Name: "sessioned"}},
			Session: 10 * time.Second, Rebalance: 30 * time.Second}})
		if res, _ := w.beat("a", 0); res.Refused == nil || res.Refused.Code != classic.GroupIDNotFound {
			t.Errorf("%+v", res)
		}
		if d, err := w.Describe("g"); err != classic.None || len(d.Members) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		if res, _ := w.ConsumerHeartbeat("none", consumer.HeartbeatRequest{MemberID: "a", Epoch: 1}); res.Refused.Code != classic.GroupIDNotFound {
			t.Errorf("%+v", res.Refused)
		}
	})
}

// TestRegularExpressions: RE2 over whole names; what is malformed or too large is refused.
func TestRegularExpressions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		ask := func(expr string) consumer.HeartbeatResult {
			res, _ := w.ConsumerHeartbeat("g", consumer.HeartbeatRequest{MemberID: "a", Regex: &expr, Owned: []consumer.TopicPartitions{}})
			return res
		}
		for expr, partitions := range map[string]int{"o.*|returns": 6, "order": 0, "(?i)ORDERS": 4} {
			if res := ask(expr); res.Refused != nil || len(res.Assignment) > 0 && res.Assignment.Len() != partitions || partitions > 0 && res.Assignment.Len() != partitions {
				t.Errorf("%s: %+v", expr, res)
			}
		}
		for _, expr := range []string{"(", `(a)\1`, strings.Repeat("x", 2000), "(a{1000}){1000}", "(.{30}){33}.{100}"} {
			if res := ask(expr); res.Refused == nil || res.Refused.Code != classic.InvalidRegularExpression {
				t.Errorf("%.20s: %+v", expr, res)
			}
		}
		d, _ := w.DescribeConsumer("g")
		if len(d.Members) != 1 || !slices.Contains([]string{"o.*|returns", "order", "(?i)ORDERS"}, d.Members[0].Regex) {
			t.Errorf("%+v", d.Members)
		}
	})
}

// TestTargetsMayComeFirst: in a compacted log a member's target may lie before everything else of the group.
func TestTargetsMayComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer func() { w.Close() }()
		synctest.Wait()
		beat := func(id string, epoch int32, timeout time.Duration, topic string) {
			r := consumer.HeartbeatRequest{MemberID: id, Epoch: epoch, ClientID: id, Host: "/h", Rebalance: timeout, Topics: []string{topic}}
			if epoch == 0 {
				r.Owned = []consumer.TopicPartitions{}
			}
			if res, _ := w.ConsumerHeartbeat("g", r); res.Refused != nil {
				t.Fatalf("%s: %s", id, res.Refused.Text)
			}
		}
		beat("a", 0, time.Minute, "orders")
		beat("b", 0, time.Minute, "missing") // a new epoch, and the same target for a
		beat("a", 2, 2*time.Minute, "orders")
		w.put(commit("other", "orders", 0, 1)) // the last batch is not compacted
		w = w.crash(nil)                       // compares with the compacted log
	})
}
