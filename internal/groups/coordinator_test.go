package groups_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/groups/groupstest"
	"lagoon/internal/partition"
	"lagoon/internal/records"
)

// world is a coordinator on one log in memory. Use it within synctest: its clock is the coordinator's.
type world struct {
	*groups.Coordinator
	t   testing.TB
	log *groupstest.Log
}

func start(t testing.TB, log *groupstest.Log, change func(*groups.Options)) *world {
	t.Helper()
	w := &world{t: t, log: log}
	opt := groups.Options{
		Log:    func(int32) (groups.Log, bool) { return log, true },
		Exists: func(topic string, _ int32) bool { return topic != "gone" },
		Topics: func() groups.Topics { return fixedTopics{} },
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	c, err := groups.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	w.Coordinator = c
	c.Start(1)
	return w
}

// crash ends the coordinator and starts another on what was durable. A third one, on what compaction leaves of that, knows the same.
func (w *world) crash(change func(*groups.Options)) *world {
	w.t.Helper()
	w.Close()
	left := w.log.Crash()
	compacted := start(w.t, left.Crash().Compacted(), change)
	next := start(w.t, left, change)
	synctest.Wait()
	if got, want := compacted.everything(), next.everything(); got != want {
		w.t.Errorf("of the compacted log is known\n%s\nof the log\n%s", got, want)
	}
	compacted.Close()
	return next
}

// everything is what the coordinator knows, as text.
func (w *world) everything() string {
	w.t.Helper()
	var out strings.Builder
	views, loading := w.Overview()
	if loading {
		w.t.Error("not all groups are loaded")
	}
	for _, v := range views {
		fmt.Fprintf(&out, "%+v\n", v)
		offsets, err := w.FetchAll(v.Group, groups.Fetcher{})
		slices.SortFunc(offsets, func(a, b groups.Offset) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		unstable := w.Unstable(v.Group)
		fmt.Fprintf(&out, "  %+v %v unstable %t\n", offsets, err, unstable("orders", 0))
		classicGroup, err := w.Describe(v.Group)
		slices.SortFunc(classicGroup.Members, func(a, b classic.Member) int { return cmp.Compare(a.ID, b.ID) })
		fmt.Fprintf(&out, "  %+v %v\n", classicGroup, err)
		consumerGroup, err := w.DescribeConsumer(v.Group)
		members, _ := json.Marshal(consumerGroup.Members) // behind pointers
		consumerGroup.Members = nil
		fmt.Fprintf(&out, "  %+v %s %v\n", consumerGroup, members, err)
	}
	return out.String()
}

func commit(group, topic string, p int32, offset int64) groups.CommitRequest {
	return groups.CommitRequest{Group: group, Generation: -1, Retention: -1, Offsets: []groups.Offset{{Topic: topic, Partition: p, Offset: offset, LeaderEpoch: 3, Metadata: "m"}}}
}

// put commits and returns what it waits for.
func (w *world) put(r groups.CommitRequest) groups.Pending {
	w.t.Helper()
	errs, wait, err := w.Commit(r)
	if err != classic.None || slices.ContainsFunc(errs, func(e classic.Error) bool { return e != classic.None }) {
		w.t.Fatalf("commit: %v, %v", err, errs)
	}
	return wait
}

// offset is what a client is told of orders-0.
func (w *world) offset(group string) int64 {
	w.t.Helper()
	asked := []groups.Offset{{Topic: "orders"}}
	if err := w.Fetch(group, groups.Fetcher{}, asked); err != classic.None {
		w.t.Fatal(err)
	}
	return asked[0].Offset
}

// member joins a group alone and gets everything.
func (w *world) member(group, client string, assignment []byte) (id string, generation int32) {
	w.t.Helper()
	joined := <-w.Join(groups.JoinRequest{Group: group, JoinRequest: classic.JoinRequest{NewID: client + "-1", ClientID: client, Host: "/h", ProtocolType: "consumer",
		Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's'}}}, Session: 10 * time.Second, Rebalance: 30 * time.Second}})
	if joined.Err != classic.None {
		w.t.Fatal(joined.Err)
	}
	synced := <-w.Sync(groups.SyncRequest{Group: group, SyncRequest: classic.SyncRequest{MemberID: joined.MemberID, Generation: joined.Generation,
		Assignments: map[string][]byte{joined.MemberID: assignment}}})
	if synced.Err != classic.None {
		w.t.Fatal(synced.Err)
	}
	return joined.MemberID, joined.Generation
}

// ordersAssignment is orders-0 and -1 in a consumer's format.
var ordersAssignment = []byte{0, 1, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}

// TestCommitIsServedWhenDurable: what a client is told cannot be taken back by a crash, and an acknowledged commit survives it.
func TestCommitIsServedWhenDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		if err := w.put(commit("g", "orders", 0, 5)).Wait(t.Context()); err != classic.None || w.offset("g") != 5 {
			t.Fatalf("%v, offset %d", err, w.offset("g"))
		}
		w.log.Hold()
		first, second := w.put(commit("g", "orders", 0, 6)), w.put(commit("g", "orders", 0, 7))
		if got := w.offset("g"); got != 5 {
			t.Errorf("offset %d was told, which is not durable", got)
		}
		if err := second.Wait(t.Context()); err != classic.CoordinatorNotAvailable { // after 5 s
			t.Errorf("wait: %v", err)
		}
		crashed := w.crash(nil)
		if got := crashed.offset("g"); got != 5 {
			t.Errorf("after a crash: %d", got)
		}
		crashed.Close()
		w = start(t, w.log, nil) // no crash: only the coordinator began anew
		w.log.Sync()
		synctest.Wait()
		if err := first.Wait(t.Context()); err != classic.None || w.offset("g") != 7 {
			t.Errorf("%v, offset %d, want 7", err, w.offset("g"))
		}
		w.Close()
	})
}

// TestRestart: generation, members and offsets come back; sessions begin anew.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		id, generation := w.member("g", "c", ordersAssignment)
		r := commit("g", "orders", 0, 42)
		r.MemberID, r.Generation = id, generation
		w.put(r)
		w = w.crash(nil)
		defer w.Close()
		if err := w.Heartbeat("g", id, "", generation); err != classic.None || w.offset("g") != 42 {
			t.Fatalf("heartbeat %v, offset %d", err, w.offset("g"))
		}
		if group, source := w.Owner("c", "/h", "orders", 1); group != "g" || source != groups.SourceAssignment {
			t.Errorf("orders-1 is read by %q (%s)", group, source)
		}
		d, err := w.Describe("g")
		if err != classic.None || d.State != classic.Stable || d.Protocol != "range" || len(d.Members) != 1 || string(d.Members[0].Assignment) != string(ordersAssignment) {
			t.Errorf("%+v, %v", d, err)
		}
		<-time.After(11 * time.Second)
		synctest.Wait()
		if d, _ := w.Describe("g"); d.State != classic.Empty {
			t.Errorf("after the session: %s", d.State)
		}
		if group, source := w.Owner("c", "/h", "orders", 1); group != "" || source != groups.SourceNone {
			t.Errorf("orders-1 is still read by %q (%s)", group, source)
		}
	})
}

// TestLoadingAnswers: a shard that is not loaded says so, heartbeats are fine meanwhile, and one that cannot be loaded has no groups.
func TestLoadingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		log := &groupstest.Log{}
		w := start(t, log, func(o *groups.Options) {
			o.Log = func(int32) (groups.Log, bool) { <-release; return log, true }
		})
		if _, _, err := w.Commit(commit("g", "orders", 0, 1)); err != classic.LoadInProgress {
			t.Errorf("commit: %v", err)
		}
		if err := w.Heartbeat("g", "m", "", 1); err != classic.None {
			t.Errorf("heartbeat: %v", err)
		}
		if res := <-w.Sync(groups.SyncRequest{Group: "g"}); res.Err != classic.RebalanceInProgress {
			t.Errorf("sync: %v", res.Err)
		}
		if _, err := w.List(nil); err != classic.LoadInProgress {
			t.Errorf("list: %v", err)
		}
		if views, loading := w.Overview(); len(views) > 0 || !loading {
			t.Errorf("overview: %v, loading %v", views, loading)
		}
		close(release)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 1))
		w.Close()

		log.Fail(partition.ErrFenced)
		w = start(t, log, nil)
		synctest.Wait()
		if _, _, err := w.Commit(commit("g", "orders", 0, 2)); err != classic.NotCoordinator {
			t.Errorf("commit to a log that could not be read: %v", err)
		}
		w.Close()
	})
}

// TestFailingLog: nothing is acknowledged, members join again, and other answers go on.
func TestFailingLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		w.put(commit("g", "orders", 0, 1))
		w.log.Fail(partition.ErrFenced)
		if errs, _, err := w.Commit(commit("g", "orders", 0, 2)); err != classic.None || errs[0] != classic.NotCoordinator {
			t.Errorf("commit: %v %v", errs, err)
		}
		if w.offset("g") != 1 {
			t.Errorf("offset %d", w.offset("g"))
		}
		joined := <-w.Join(groups.JoinRequest{Group: "h", JoinRequest: classic.JoinRequest{NewID: "m", ProtocolType: "x", Protocols: []classic.Protocol{{Name: "p"}}, Session: 10 * time.Second, Rebalance: 10 * time.Second}})
		synced := <-w.Sync(groups.SyncRequest{Group: "h", SyncRequest: classic.SyncRequest{MemberID: "m", Generation: joined.Generation}})
		if synced.Err != classic.NotCoordinator {
			t.Errorf("sync: %v, after a join with %v and generation %d", synced.Err, joined.Err, joined.Generation)
		}
	})
}

// TestCorruptRecords: what cannot be read is missing, everything else is there, and compaction keeps what is not understood.
func TestCorruptRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &groupstest.Log{}
		w := start(t, log, nil)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		w.Close()
		var b records.Builder
		b.Add([]byte{0, 1, 0, 9, 'x'}, []byte("short"))                                                           // a key that is cut off
		b.Add([]byte{0, 11, 0, 1, 'c'}, []byte{0, 0, 1, 2})                                                       // a share group's epoch (KIP-932)
		b.Add(offsetKey("g", "orders", 1), []byte{0, 3, 0, 0})                                                    // a value that is cut off
		b.Add(offsetKey("g", "gone", 0), offsetValue(9))                                                          // of a topic that was deleted
		b.Add(offsetKey("old", "orders", 0), []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}) // version 0
		b.Add(nil, nil)
		if _, err := log.Append(t.Context(), partition.AppendRequest{Records: b.Batch(1)}); err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			if round == 1 {
				log = log.Compacted()
			}
			w = start(t, log, nil)
			synctest.Wait()
			if w.offset("g") != 5 || w.offset("old") != 77 {
				t.Errorf("round %d: offsets %d and %d", round, w.offset("g"), w.offset("old"))
			}
			if all, _ := w.FetchAll("g", groups.Fetcher{}); len(all) != 1 {
				t.Errorf("round %d: %+v", round, all)
			}
			w.Close()
		}
		found := false
		if _, err := log.Scan(t.Context(), 0, eachRecord(func(r records.Record) { found = found || string(r.Key) == "\x00\x0b\x00\x01c" })); err != nil || !found {
			t.Errorf("the record of another kind is gone: %v", err)
		}
	})
}

// TestTransactionalOffsets: those of committed transactions count, as in a log that Kafka wrote.
func TestTransactionalOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &groupstest.Log{}
		add := func(attributes byte, producer byte, k, v []byte) {
			var b records.Builder
			b.Add(k, v)
			raw := b.Batch(1)
			raw[22] |= attributes
			copy(raw[43:], []byte{0, 0, 0, 0, 0, 0, 0, producer, 0, 0})
			seal(raw)
			if _, err := log.Append(t.Context(), partition.AppendRequest{Records: raw, Internal: true}); err != nil {
				t.Fatal(err)
			}
		}
		add(0x10, 1, offsetKey("done", "orders", 0), offsetValue(11))
		add(0x10, 2, offsetKey("aborted", "orders", 0), offsetValue(12))
		add(0x10, 3, offsetKey("open", "orders", 0), offsetValue(13))
		add(0x30, 1, []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 0})
		add(0x30, 2, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0, 0, 0})
		w := start(t, log, nil)
		defer w.Close()
		synctest.Wait()
		if a, b, c := w.offset("done"), w.offset("aborted"), w.offset("open"); a != 11 || b != -1 || c != -1 {
			t.Errorf("offsets %d %d %d, want 11 -1 -1", a, b, c)
		}
	})
}

// TestExpiry: offsets go when their retention is over, groups with them; members keep theirs.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, func(o *groups.Options) { o.Retention = time.Hour })
		synctest.Wait()
		w.put(commit("simple", "orders", 0, 1))
		kept := commit("kept", "orders", 0, 2)
		kept.Retention = 3 * time.Hour
		w.put(kept)
		id, generation := w.member("members", "c", ordersAssignment)
		r := commit("members", "orders", 0, 3)
		r.MemberID, r.Generation = id, generation
		w.put(r)
		for range 90 * 12 { // 90 minutes
			<-time.After(5 * time.Second)
			if err := w.Heartbeat("members", id, "", generation); err != classic.None {
				t.Fatal(err)
			}
		}
		if a, b, c := w.offset("simple"), w.offset("kept"), w.offset("members"); a != -1 || b != 2 || c != 3 {
			t.Errorf("offsets %d %d %d after 90 min, want -1 2 3", a, b, c)
		}
		<-time.After(3 * time.Hour)
		if list, err := w.List(nil); len(list) != 0 || err != classic.None {
			t.Errorf("after hours: %v, %v", list, err)
		}
		w = w.crash(nil)
		if list, _ := w.List(nil); len(list) != 0 {
			t.Errorf("they are back after a restart: %v", list)
		}
		w.Close()
	})
}

// TestDeletions: offsets, groups and topics, for good.
func TestDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.put(commit("a", "orders", 0, 1))
		w.put(commit("a", "other", 0, 2))
		w.put(commit("b", "orders", 0, 3))
		w.TopicDeleted(t.Context(), "other")
		if all, _ := w.FetchAll("a", groups.Fetcher{}); len(all) != 1 {
			t.Errorf("after the topic: %+v", all)
		}
		if wait, err := w.Delete("b"); err != classic.None || wait.Wait(t.Context()) != classic.None {
			t.Error(err)
		}
		if _, err := w.Delete("b"); err != classic.GroupIDNotFound {
			t.Error(err)
		}
		id, _ := w.member("a", "c", ordersAssignment)
		if _, err := w.Delete("a"); err != classic.NonEmptyGroup {
			t.Error(err)
		}
		if errs, _, err := w.DeleteOffsets("a", []groups.Offset{{Topic: "orders"}, {Topic: "payments"}}); err != classic.None || errs[0] != classic.GroupSubscribedToTopic || errs[1] != classic.None {
			t.Errorf("%v %v", errs, err)
		}
		if errs, err := w.Leave("a", []classic.Leaver{{MemberID: id}}); err != classic.None || errs[0] != classic.None {
			t.Errorf("%v %v", errs, err)
		}
		if errs, _, err := w.DeleteOffsets("a", []groups.Offset{{Topic: "orders"}}); err != classic.None || errs[0] != classic.None {
			t.Errorf("%v %v", errs, err)
		}
		w = w.crash(nil)
		defer w.Close()
		if all, _ := w.FetchAll("a", groups.Fetcher{}); len(all) != 0 || w.offset("b") != -1 {
			t.Errorf("after a restart: %+v, %d", all, w.offset("b"))
		}
		if list, _ := w.List([]string{"empty"}); len(list) != 1 || list[0].Group != "a" {
			t.Errorf("%+v", list)
		}
	})
}

// TestDeletionsAreToldWhenDurable: until a deletion is durable the offset is told that a crash would bring back, and nobody is told that it is
// gone, also who deletes it once more.
func TestDeletionsAreToldWhenDurable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		delete func(w *world) (groups.Pending, classic.Error)
		left   int // groups afterwards
	}{{"offset", deleteOrders, 1}, {"group", deleteGroup, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &groupstest.Log{}, nil)
				defer func() { w.Close() }()
				synctest.Wait()
				w.put(commit("g", "orders", 0, 5))
				w.log.Hold()
				var answers [2]classic.Error
				var answered atomic.Int32
				for i := range answers {
					wait, err := tc.delete(w)
					if err != classic.None {
						t.Fatal(err)
					}
					go func() {
						answers[i] = wait.Wait(t.Context())
						answered.Add(1)
					}()
				}
				synctest.Wait()
				if list, _ := w.List(nil); answered.Load() != 0 || len(list) != 1 || w.offset("g") != 5 {
					t.Errorf("before it is durable: %d answers, groups %+v, offset %d", answered.Load(), list, w.offset("g"))
				}
				crashed := start(t, w.log.Crash(), nil)
				synctest.Wait()
				if got := crashed.offset("g"); got != 5 {
					t.Errorf("after a crash: %d", got)
				}
				crashed.Close()
				w.log.Release()
				synctest.Wait()
				if list, _ := w.List(nil); answered.Load() != 2 || answers != [2]classic.Error{} || len(list) != tc.left || w.offset("g") != -1 {
					t.Errorf("when it is: %d answers %v, groups %+v, offset %d", answered.Load(), answers, list, w.offset("g"))
				}
			})
		})
	}
}

// TestDeletionsAreGivenUpTogether: who deletes many groups in one request waits for all of them as long as for one when the device does not answer.
func TestDeletionsAreGivenUpTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		var waits []groups.Pending
		for i := range 10 {
			w.put(commit(fmt.Sprint(i), "orders", 0, 1))
		}
		w.log.Hold()
		began := time.Now()
		for i := range 10 {
			wait, err := w.Delete(fmt.Sprint(i))
			if err != classic.None {
				t.Fatal(err)
			}
			waits = append(waits, wait)
		}
		for _, wait := range waits {
			if err := wait.Wait(t.Context()); err != classic.CoordinatorNotAvailable {
				t.Error(err)
			}
		}
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited for %s", waited)
		}
		w.log.Release()
	})
}

// TestWhatComesAfterADeletionStays: a group that is used again before its deletion is durable is not deleted then.
func TestWhatComesAfterADeletionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		w.put(commit("g", "orders", 1, 6))
		w.log.Hold()
		wait, err := w.Delete("g")
		if err != classic.None {
			t.Fatal(err)
		}
		w.put(commit("g", "orders", 0, 7))
		w.log.Release()
		if err := wait.Wait(t.Context()); err != classic.None {
			t.Fatal(err)
		}
		for range 2 {
			if all, _ := w.FetchAll("g", groups.Fetcher{}); len(all) != 1 || all[0].Offset != 7 {
				t.Errorf("offsets %+v", all)
			}
			w = w.crash(nil)
		}
		w.Close()
	})
}

// TestMemoryIsBounded: above the limit new offsets and members are refused, known ones go on.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, func(o *groups.Options) { o.MaxBytes = 100 << 10 })
		defer w.Close()
		synctest.Wait()
		n := 0
		for ; n < 1000; n++ {
			if errs, _, err := w.Commit(commit(fmt.Sprintf("g%d", n), "orders", 0, 1)); err != classic.None {
				t.Fatal(err)
			} else if errs[0] == classic.InvalidCommitOffsetSize {
				break
			}
		}
		if n < 50 || n > 200 {
			t.Errorf("%d groups in 100 KiB", n)
		}
		w.put(commit("g0", "orders", 0, 2))
		if res := <-w.Join(groups.JoinRequest{Group: "new", JoinRequest: classic.JoinRequest{Session: 10 * time.Second}}); res.Err != classic.GroupMaxSizeReached {
			t.Errorf("join: %v", res.Err)
		}
		for i := range n { // room again
			if _, err := w.Delete(fmt.Sprintf("g%d", i)); err != classic.None {
				t.Fatal(err)
			}
		}
		w.put(commit("g1", "orders", 0, 2))
	})
}

// TestMemoryOfMembersIsBounded: above the limit who has an id only is a new member as well, and above twice the limit nobody is given more memory, however
// long he has been there: each could take as much as the largest request has.
func TestMemoryOfMembersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, func(o *groups.Options) { o.MaxBytes = 100 << 10 })
		defer w.Close()
		synctest.Wait()
		join := func(group, id string, metadata int, want classic.Error) (generation int32) {
			t.Helper()
			r := classic.JoinRequest{MemberID: id, ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range", Metadata: make([]byte, metadata)}},
				Session: 10 * time.Second, Rebalance: time.Minute, NeedsID: true}
			if id == "" {
				r.NewID = "new"
			}
			res := <-w.Join(groups.JoinRequest{Group: group, JoinRequest: r})
			if res.Err != want {
				t.Fatalf("%q joins %s with %d bytes: %v, want %v", id, group, metadata, res.Err, want)
			}
			return res.Generation
		}
		known, _ := w.member("known", "c", ordersAssignment)
		w.must("a", 0)
		offset := commit("offsets", "orders", 0, 1)
		w.put(offset)
		w.static("static", ordersAssignment)
		early, _ := w.member("late", "c", ordersAssignment)
		join("late", "", 14, classic.MemberIDRequired)
		join("full", "", 14, classic.MemberIDRequired)
		join("full", "new", 100<<10, classic.None)
		began, joined := time.Now(), make(chan classic.Error, 1)
		go func() {
			res := <-w.Join(groups.JoinRequest{Group: "late", JoinRequest: classic.JoinRequest{MemberID: early, ProtocolType: "consumer",
				Protocols: []classic.Protocol{{Name: "range"}}, Session: 10 * time.Second, Rebalance: time.Minute}})
			joined <- res.Err
		}()
		synctest.Wait() // until it waits for who has only an id
		join("late", "new", 14, classic.GroupMaxSizeReached)
		if err := <-joined; err != classic.None || time.Since(began) != 0 {
			t.Errorf("who waited for it: %v after %s", err, time.Since(began))
		}
		join("g", "new", 14, classic.GroupMaxSizeReached) // which has a member of the consumer protocol
		w.static("static", nil)                           // restarted: it is known by its instance
		join("known", known, 200<<10, classic.None)

		join("known", known, 201<<10, classic.GroupMaxSizeReached)
		generation := join("known", known, 200<<10, classic.None)
		sync := groups.SyncRequest{Group: "known", SyncRequest: classic.SyncRequest{MemberID: known, Generation: generation,
			Assignments: map[string][]byte{known: make([]byte, 5<<10)}}}
		if res := <-w.Sync(sync); res.Err != classic.GroupMaxSizeReached {
			t.Errorf("5 KiB are assigned: %v", res.Err)
		}
		sync.Assignments[known] = ordersAssignment
		if res := <-w.Sync(sync); res.Err != classic.None {
			t.Errorf("little is assigned: %v", res.Err)
		}
		beat := consumer.HeartbeatRequest{MemberID: "a", Epoch: 2, ClientID: "a", Host: "/h", Rebalance: -1, Topics: []string{"orders", "returns"}}
		if res, _ := w.ConsumerHeartbeat("g", beat); res.Refused == nil || res.Refused.Code != classic.GroupMaxSizeReached {
			t.Errorf("a longer subscription: %+v", res.Refused)
		}
		w.must("a", 2)
		offset.Offsets[0].Metadata = "longer"
		if errs, _, err := w.Commit(offset); err != classic.None || errs[0] != classic.InvalidCommitOffsetSize {
			t.Errorf("longer metadata: %v %v", errs, err)
		}
		offset.Offsets[0].Metadata = "n"
		w.put(offset)
	})
}

// TestOwners: who reads what, by assignment and by commit; two groups with the same claim are none.
func TestOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		by := func(group, client string) {
			r := commit(group, "orders", 0, 1)
			r.ClientID, r.Host = client, "/h"
			w.put(r)
		}
		is := func(client, group string, source groups.Source) {
			t.Helper()
			if g, s := w.Owner(client, "/h", "orders", 0); g != group || s != source {
				t.Errorf("%s reads for %q (%s), want %q (%s)", client, g, s, group, source)
			}
		}
		is("c", "", groups.SourceNone)
		by("simple", "c")
		is("c", "simple", groups.SourceCommit)
		by("second", "c")
		is("c", "", groups.SourceNone)
		w.member("members", "c", ordersAssignment)
		is("c", "members", groups.SourceAssignment)
		is("d", "", groups.SourceNone)
		<-time.After(21 * time.Minute)
		is("c", "", groups.SourceNone)
	})
}

// TestOwnersComeFromElsewhere: a member that comes from another host than before is known by it, without a rebalance: a static one that was restarted, and
// one of the consumer protocol that has another address.
func TestOwnersComeFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		join := func(id, host string) classic.JoinResult {
			t.Helper()
			res := <-w.Join(groups.JoinRequest{Group: "static", JoinRequest: classic.JoinRequest{NewID: id, InstanceID: "i", ClientID: "c", Host: host, ProtocolType: "consumer",
				Protocols: []classic.Protocol{{Name: "range"}}, Session: 10 * time.Second, Rebalance: time.Second, CanSkip: true}})
			if res.Err != classic.None {
				t.Fatal(res.Err)
			}
			return res
		}
		reads := func(client, host, group string) {
			t.Helper()
			if g, _ := w.Owner(client, host, "orders", 0); g != group {
				t.Errorf("%s on %s reads for %q, want %q", client, host, g, group)
			}
		}
		first := join("c-1", "/h1")
		if res := <-w.Sync(groups.SyncRequest{Group: "static", SyncRequest: classic.SyncRequest{MemberID: "c-1", InstanceID: "i", Generation: first.Generation,
			Assignments: map[string][]byte{"c-1": ordersAssignment}}}); res.Err != classic.None {
			t.Fatal(res.Err)
		}
		reads("c", "/h1", "static")
		if res := join("c-2", "/h2"); !res.SkipAssignment || res.Generation != first.Generation {
			t.Fatalf("%+v", res)
		}
		reads("c", "/h1", "")
		reads("c", "/h2", "static")

		w.must("a", 0)
		reads("a", "/h", "g")
		r := consumer.HeartbeatRequest{MemberID: "a", Epoch: 2, ClientID: "a", Host: "/h2", Rebalance: -1}
		if res, _ := w.ConsumerHeartbeat("g", r); res.Refused != nil {
			t.Fatal(res.Refused)
		}
		reads("a", "/h", "")
		reads("a", "/h2", "g")
	})
}

// TestOwnersAreCountedOnce: the number of those who are known by their commits is bounded. A request that names a partition many times counts as one.
func TestOwnersAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		r := commit("g", "orders", 0, 1)
		r.ClientID, r.Offsets = "many", slices.Repeat(r.Offsets, 10_000)
		w.put(r)
		r = commit("g", "orders", 0, 1)
		r.ClientID = "other"
		w.put(r)
		if g, source := w.Owner("other", "", "orders", 0); g != "g" || source != groups.SourceCommit {
			t.Errorf("it reads for %q (%s)", g, source)
		}
	})
}

// TestMetricsOfWhatIsStored: what is refused, or cannot be stored, is not counted.
func TestMetricsOfWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, log := prometheus.NewRegistry(), &groupstest.Log{}
		w := start(t, log, func(o *groups.Options) { o.Registerer = registry })
		defer w.Close()
		synctest.Wait()
		r := commit("g", "orders", 0, 1)
		r.Offsets = append(r.Offsets, groups.Offset{Topic: "gone"}, groups.Offset{Topic: "orders", Metadata: strings.Repeat("x", 5000)})
		errs, _, err := w.Commit(r)
		if want := []classic.Error{classic.None, classic.UnknownTopicOrPartition, classic.OffsetMetadataTooLarge}; err != classic.None || !slices.Equal(errs, want) {
			t.Fatalf("%v %v", errs, err)
		}
		if errs, _, err = w.CommitTxn(groups.TxnCommitRequest{CommitRequest: r, ProducerID: 7, Guard: 1}); err != classic.None || errs[0] != classic.None {
			t.Fatalf("%v %v", errs, err)
		}
		log.Fail(partition.ErrDiskFull)
		if errs, _, _ = w.Commit(r); errs[0] != classic.CoordinatorNotAvailable {
			t.Fatal(errs)
		}
		joined := <-w.Join(groups.JoinRequest{Group: "m", JoinRequest: classic.JoinRequest{NewID: "m-1", ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range"}},
			Session: 10 * time.Second, Rebalance: time.Minute}})
		if res := <-w.Sync(groups.SyncRequest{Group: "m", SyncRequest: classic.SyncRequest{MemberID: "m-1", Generation: joined.Generation}}); res.Err != classic.CoordinatorNotAvailable {
			t.Fatal(res.Err)
		}
		families, failed := registry.Gather()
		if failed != nil {
			t.Fatal(failed)
		}
		for _, f := range families {
			want := map[string]float64{"lagoon_group_offset_commits_total": 2, "lagoon_group_metadata_stores_total": 0}
			if n, ok := want[f.GetName()]; ok && f.GetMetric()[0].GetCounter().GetValue() != n {
				t.Errorf("%s is %v, want %v", f.GetName(), f.GetMetric()[0].GetCounter().GetValue(), n)
			}
		}
	})
}

// TestCommitToADeletedTopic: a topic that is deleted between the check of a request and its commit leaves no offset for the next topic of its name.
func TestCommitToADeletedTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		r := commit("g", "gone", 0, 5)
		r.Offsets = append(r.Offsets, groups.Offset{Topic: "orders", Offset: 6})
		want := []classic.Error{classic.UnknownTopicOrPartition, classic.None}
		if errs, _, err := w.Commit(r); err != classic.None || !slices.Equal(errs, want) {
			t.Errorf("commit: %v %v", errs, err)
		}
		if errs, _, err := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: r, ProducerID: 7, Guard: 1}); err != classic.None || !slices.Equal(errs, want) {
			t.Errorf("commit in a transaction: %v %v", errs, err)
		}
		if all, err := w.FetchAll("g", groups.Fetcher{}); err != classic.None || len(all) != 1 {
			t.Errorf("%+v %v", all, err)
		}
	})
}

// TestTopicDeletedWhileLoading: a topic that is deleted after the loading shard looked for it is not forgotten.
func TestTopicDeletedWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		w.Close()
		log, started, done, begun := w.log.Crash(), make(chan struct{}), make(chan struct{}), false
		deleted := func() {
			w.TopicDeleted(t.Context(), "orders")
			close(done)
		}
		w = start(t, log, func(o *groups.Options) {
			o.Log = func(int32) (groups.Log, bool) { <-started; return log, true }
			o.Exists = func(string, int32) bool {
				if !begun {
					begun = true
					if guard, _ := w.GuardTxn("g", 1, 0); guard == 0 {
						deleted() // the shard does not look ready, so nobody waits for it
					} else {
						go deleted()
					}
				}
				return true
			}
		})
		defer func() { w.Close() }()
		close(started)
		<-done
		if w.offset("g") != -1 {
			t.Errorf("offset %d of a deleted topic", w.offset("g"))
		}
	})
}

// changing are topics of which those in older have the id of a topic that was deleted.
type changing struct {
	fixedTopics
	without string
	older   string
}

func (c changing) Find(name string) (id consumer.TopicID, n int32, ok bool) {
	if name == c.without {
		return id, 0, false
	}
	id, n, ok = c.fixedTopics.Find(name)
	if name == c.older {
		id[15]++
	}
	return id, n, ok
}

// TestTopicMadeAnewWhileLoading: what is on record of a topic that was deleted before a crash is not an offset of the next one of its name, also when that
// is made before the shard is loaded.
func TestTopicMadeAnewWhileLoading(t *testing.T) {
	for name, before := range map[string]changing{"deleted before the crash": {without: "orders"}, "deleted while it is loaded": {older: "orders"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &groupstest.Log{}, nil)
				synctest.Wait()
				w.put(commit("g", "orders", 0, 5))
				w.put(commit("g", "returns", 0, 6))
				w.Close()
				log, topics, release := w.log.Crash(), groups.Topics(before), make(chan struct{})
				w = start(t, log, func(o *groups.Options) {
					o.Topics = func() groups.Topics { return topics }
					o.Log = func(int32) (groups.Log, bool) { <-release; return log, true }
				})
				topics = fixedTopics{}
				close(release)
				synctest.Wait()
				if all, err := w.FetchAll("g", groups.Fetcher{}); err != classic.None || len(all) != 1 || all[0].Topic != "returns" {
					t.Errorf("%+v %v", all, err)
				}
				w.Close()
			})
		})
	}
}

// TestTopicDeletedIsDurable: whoever makes the topic anew afterwards does not find the offsets again after a power cut.
func TestTopicDeletedIsDurable(t *testing.T) {
	for _, first := range []func(w *world) (groups.Pending, classic.Error){nil, deleteOrders, deleteGroup} {
		testTopicDeletedIsDurable(t, first)
	}
}

// testTopicDeletedIsDurable deletes what there is of the topic before, if first is not nil.
func testTopicDeletedIsDurable(t *testing.T, first func(w *world) (groups.Pending, classic.Error)) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		w.log.Hold()
		if first != nil {
			if _, err := first(w); err != classic.None {
				t.Error(err)
			}
		}
		done := make(chan struct{})
		go func() {
			w.TopicDeleted(t.Context(), "orders")
			close(done)
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Error("the deletion is not durable")
		default:
			w.log.Sync()
			<-done
		}
		w = w.crash(nil)
		if w.offset("g") != -1 {
			t.Errorf("offset %d after a power cut", w.offset("g"))
		}
		w.Close()
	})
}

// TestNamesThatDoNotFitTheRecords: Kafka's formats have 15 bits for the length of a name; what would be cut off is refused.
func TestNamesThatDoNotFitTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer func() { w.Close() }()
		synctest.Wait()
		long := func(n int) string { return strings.Repeat("g", n) }
		join := func(group, kind, protocol string) classic.Error {
			r := <-w.Join(groups.JoinRequest{Group: group, JoinRequest: classic.JoinRequest{NewID: "m", ProtocolType: kind, Protocols: []classic.Protocol{{Name: protocol}},
				Session: 10 * time.Second, Rebalance: 10 * time.Second}})
			return r.Err
		}
		for _, n := range []int{1<<15 - 1, 1 << 15, 1<<16 + 1} {
			want := classic.None
			if n >= 1<<15 {
				want = classic.InvalidGroupID
			}
			if _, _, err := w.Commit(commit(long(n), "orders", 0, int64(n))); err != want {
				t.Errorf("commit: a name of %d bytes: %v", n, err)
			}
			if _, _, err := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: commit(long(n), "returns", 0, 1), ProducerID: 7, Guard: 1}); err != want {
				t.Errorf("commit in a transaction: a name of %d bytes: %v", n, err)
			}
			if err := join(long(n), "t", "p"); err != want {
				t.Errorf("join: a name of %d bytes: %v", n, err)
			}
			if res, _ := w.ConsumerHeartbeat(long(n)+"c", consumer.HeartbeatRequest{MemberID: "m", Topics: []string{"orders"}, Owned: []consumer.TopicPartitions{}}); n >= 1<<15 &&
				(res.Refused == nil || res.Refused.Code != classic.InvalidGroupID) {
				t.Errorf("heartbeat: a name of %d bytes: %+v", n, res.Refused)
			}
		}
		for _, r := range [][2]string{{long(1 << 15), "p"}, {"t", long(1 << 15)}} {
			if err := join("h", r[0], r[1]); err != classic.InvalidRequest {
				t.Errorf("join: a type of %d and a protocol of %d bytes: %v", len(r[0]), len(r[1]), err)
			}
		}
		w = w.crash(nil)
		if got := w.offset(long(1<<15 - 1)); got != 1<<15-1 {
			t.Errorf("after a crash: %d", got)
		}
	})
}

// TestOwnersOfWhatIsNotThere: a leader may assign anything. What does not exist takes no memory, of which a partition needs fifty times what it takes in
// the assignment.
func TestOwnersOfWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		w.member("g", "c", []byte{0, 1, 0, 0, 0, 2,
			0, 4, 'g', 'o', 'n', 'e', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1,
			0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
		for tp, want := range map[string]groups.Source{"gone 0": groups.SourceNone, "gone 1": groups.SourceNone, "orders 0": groups.SourceNone, "orders 1": groups.SourceAssignment} {
			topic, p, n := "", int32(0), 0
			if n, _ = fmt.Sscan(tp, &topic, &p); n != 2 {
				t.Fatal(tp)
			}
			if group, source := w.Owner("c", "/h", topic, p); source != want {
				t.Errorf("%s is read by %q (%s)", tp, group, source)
			}
		}
	})
}
