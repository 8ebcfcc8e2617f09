package groups_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/groupstest"
	"lagoon/segment"
)

// putTxn commits an offset of orders-0 within a producer's transaction.
func (w *world) putTxn(group string, producer, offset int64) {
	w.t.Helper()
	guard, _ := w.GuardTxn(group, producer, 0)
	_, wait, err := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: commit(group, "orders", 0, offset), ProducerID: producer, Guard: guard})
	if err != classic.None || wait.Wait(w.t.Context()) != classic.None {
		w.t.Fatalf("commit: %v", err)
	}
}

func (w *world) endTxn(producer int64, committed bool) {
	w.t.Helper()
	wait, err := w.EndTxn(0, producer, 0, segment.Marker{Commit: committed}, false)
	if err == nil {
		err = wait(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantOffset(when string, want int64, unstable bool) {
	w.t.Helper()
	if got := w.offset("g"); got != want {
		w.t.Errorf("%s: offset %d, want %d", when, got, want)
	}
	if got := w.Unstable("g")("orders", 0); got != unstable {
		w.t.Errorf("%s: unstable %v", when, got)
	}
}

// TestOffsetsOfTransactionsAreToldAfterTheirMarker: nobody hears of them before, an abort takes them back, and a crash in between
// changes nothing.
func TestOffsetsOfTransactionsAreToldAfterTheirMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer func() { w.Close() }()
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5)).Wait(t.Context())
		w.putTxn("g", 7, 10)
		w.putTxn("g", 7, 11)
		w.wantOffset("open", 5, true)
		w = w.crash(nil)
		w.wantOffset("open, after a crash", 5, true)
		w.endTxn(7, true)
		w.wantOffset("committed", 11, false)
		w.putTxn("g", 7, 20)
		w.endTxn(7, false)
		w.wantOffset("aborted", 11, false)
		w = w.crash(nil)
		w.wantOffset("after another crash", 11, false)

		// Two producers at once; one ends.
		w.putTxn("g", 8, 30)
		w.putTxn("other", 9, 3)
		w.endTxn(9, true)
		w.wantOffset("of one", 11, true)
		w.log.Hold()
		if _, err := w.EndTxn(0, 8, 0, segment.Marker{Commit: true}, false); err != nil {
			t.Fatal(err)
		}
		w.wantOffset("marker not durable", 11, true) // neither told nor, with require_stable, the one before
		w.log.Sync()
		w.wantOffset("marker durable", 30, false)
	})
}

// TestOffsetsOfTransactionsAreSynced: where the topic does not sync what it acknowledges, offsets in transactions and markers still wait for stable
// storage. The coordinator of transactions relies on both.
func TestOffsetsOfTransactionsAreSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &groupstest.Log{}
		w := start(t, log, nil)
		defer func() { w.Close() }()
		synctest.Wait()
		log.Lazy()
		log.Hold()
		if err := w.put(commit("g", "orders", 0, 5)).Wait(t.Context()); err != classic.None {
			t.Fatal(err)
		}
		waits := func(what string, wait func(context.Context) error) {
			t.Helper()
			done := make(chan error, 1)
			go func() { done <- wait(t.Context()) }()
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("%s: acknowledged before it was durable: %v", what, err)
			default:
			}
			log.Sync()
			if err := <-done; err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		guard, _ := w.GuardTxn("g", 7, 0)
		_, wait, refused := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: commit("g", "orders", 0, 10), ProducerID: 7, Guard: guard})
		if refused != classic.None {
			t.Fatal(refused)
		}
		waits("offsets", func(ctx context.Context) error {
			if err := wait.Wait(ctx); err != classic.None {
				return err
			}
			return nil
		})
		marker, err := w.EndTxn(0, 7, 0, segment.Marker{Commit: true}, false)
		if err != nil {
			t.Fatal(err)
		}
		waits("marker", marker)
		w = w.crash(nil)
		w.wantOffset("after a power cut", 10, false)
	})
}

// TestTransactionalCommitsOfStrangersAreRefused: who says that it is a member has to be one (KIP-447).
func TestTransactionalCommitsOfStrangersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		id, generation := w.member("g", "c", ordersAssignment)
		for _, c := range []struct {
			member     string
			generation int32
			want       classic.Error
		}{{id, generation, classic.None}, {id, generation + 1, classic.IllegalGeneration}, {"stranger", generation, classic.UnknownMemberID}, {"", -1, classic.None}} {
			r := groups.TxnCommitRequest{CommitRequest: commit("g", "orders", 0, 1), ProducerID: 7, Guard: 1}
			r.MemberID, r.Generation = c.member, c.generation
			if _, _, err := w.CommitTxn(r); err != c.want {
				t.Errorf("%q in generation %d: %d, want %d", c.member, c.generation, err, c.want)
			}
		}
		r := groups.TxnCommitRequest{CommitRequest: commit("nobody", "orders", 0, 1), ProducerID: 7, Guard: 1}
		r.Generation = 3
		if _, _, err := w.CommitTxn(r); err != classic.IllegalGeneration {
			t.Errorf("a group that is not there: %d", err)
		}
		if _, err := w.EndTxn(5, 7, 0, segment.Marker{}, false); err == nil {
			t.Error("a partition that is not there took a marker")
		}
	})
}

// TestTheLaterRecordWins: a commit that came after one of an open transaction stays when the transaction commits, now, after a start, and in
// a compacted log; so does a deletion. That is Kafka's rule, and the only one that the records themselves tell.
func TestTheLaterRecordWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer func() { w.Close() }()
		synctest.Wait()
		w.putTxn("g", 7, 10)
		w.put(commit("g", "orders", 0, 12)).Wait(t.Context())
		w.endTxn(7, true)
		w.wantOffset("overtaken", 12, false)
		w = w.crash(nil)
		w.wantOffset("overtaken, after a crash", 12, false)
		w.putTxn("g", 7, 20)
		w.endTxn(7, true)
		w.wantOffset("not overtaken", 20, false)
		w.putTxn("g", 7, 30)
		if _, wait, err := w.DeleteOffsets("g", []groups.Offset{{Topic: "orders"}}); err != classic.None || wait.Wait(t.Context()) != classic.None {
			t.Fatal(err)
		}
		w.put(commit("g", "returns", 0, 1)).Wait(t.Context()) // the deletion is pruned
		w.endTxn(7, true)
		w.wantOffset("deleted", -1, false)
		w = w.crash(nil)
		w.wantOffset("deleted, after a crash", -1, false)
	})
}

// TestExpirySparesWhatATransactionChanges: an offset whose retention is over stays while a transaction is about to change it, as in Kafka. A tombstone
// would be later than the record of the transaction, and what that commits would be lost.
func TestExpirySparesWhatATransactionChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, func(o *groups.Options) { o.Retention = time.Hour })
		defer func() { w.Close() }()
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		<-time.After(55 * time.Minute)
		w.putTxn("g", 7, 10)
		w.putTxn("new", 7, 3)
		<-time.After(21 * time.Minute)
		w.wantOffset("expired, in an open transaction", 5, true)
		if list, _ := w.List(nil); len(list) != 2 {
			t.Errorf("groups with an offset in an open transaction: %v", list)
		}
		w.endTxn(7, true)
		w.wantOffset("committed", 10, false)
		w = w.crash(func(o *groups.Options) { o.Retention = time.Hour })
		w.wantOffset("after a crash", 10, false)
		<-time.After(2 * time.Hour)
		w.wantOffset("expired", -1, false)
	})
}

// TestDeletionTakesWhatATransactionWouldCommit: an offset that is deleted while a transaction is about to change it does not come back with the marker,
// whether there was an older one or not, and whether the coordinator began anew in between or not.
func TestDeletionTakesWhatATransactionWouldCommit(t *testing.T) {
	for _, c := range []struct {
		name   string
		before bool // an offset was committed before the transaction
		crash  bool
		delete func(w *world) (groups.Pending, classic.Error)
	}{
		{"offset", true, false, deleteOrders}, {"offset, with a crash", true, true, deleteOrders},
		{"offset of none", false, false, deleteOrders}, {"offset of none, with a crash", false, true, deleteOrders},
		{"group", true, false, deleteGroup}, {"group, with a crash", true, true, deleteGroup},
		{"group of none", false, false, deleteGroup}, {"group of none, with a crash", false, true, deleteGroup},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &groupstest.Log{}, nil)
				defer func() { w.Close() }()
				synctest.Wait()
				if c.before {
					w.put(commit("g", "orders", 0, 5))
				}
				w.putTxn("g", 7, 10)
				if wait, err := c.delete(w); err != classic.None || wait.Wait(t.Context()) != classic.None {
					t.Fatal(err)
				}
				if c.crash {
					w = w.crash(nil)
				}
				w.wantOffset("deleted", -1, false)
				w.endTxn(7, true)
				w.wantOffset("committed", -1, false)
				w = w.crash(nil)
				w.wantOffset("after a crash", -1, false)
			})
		})
	}
}

func deleteOrders(w *world) (groups.Pending, classic.Error) {
	_, wait, err := w.DeleteOffsets("g", []groups.Offset{{Topic: "orders"}})
	return wait, err
}

func deleteGroup(w *world) (groups.Pending, classic.Error) { return w.Delete("g") }

// TestDeletedTopicsTakeWhatATransactionWouldCommit: the next topic of the name does not get the offsets of the one before.
func TestDeletedTopicsTakeWhatATransactionWouldCommit(t *testing.T) {
	for _, crash := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, &groupstest.Log{}, nil)
			defer func() { w.Close() }()
			synctest.Wait()
			w.putTxn("g", 7, 10)
			w.TopicDeleted(t.Context(), "orders") // and made anew
			if crash {
				w = w.crash(nil)
			}
			w.endTxn(7, true)
			w.wantOffset("committed", -1, false)
			w = w.crash(nil)
			w.wantOffset("after a crash", -1, false)
		})
	}
}

// TestUnstableWhileLoading: a shard that is loaded between two questions has not told that its offsets are stable.
func TestUnstableWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		synctest.Wait()
		w.put(commit("g", "orders", 0, 5))
		w.putTxn("g", 7, 10)
		w.Close()
		log, release := w.log, make(chan struct{})
		w = start(t, log, func(o *groups.Options) {
			o.Log = func(int32) (groups.Log, bool) { <-release; return log, true }
		})
		defer w.Close()
		unstable := w.Unstable("g")
		close(release)
		synctest.Wait()
		if offset := w.offset("g"); offset == 5 && !unstable("orders", 0) {
			t.Error("offset 5 was told as stable, and a transaction is about to change it")
		}
	})
}

// TestMemoryOfOffsetsInTransactions: what an offset of an open transaction grows by is counted, and given back when it is deleted.
func TestMemoryOfOffsetsInTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, func(o *groups.Options) { o.MaxBytes = 100 << 10 })
		defer w.Close()
		synctest.Wait()
		put := func(metadata string) classic.Error {
			t.Helper()
			r := commit("g", "orders", 0, 1)
			for p := range int32(29) {
				r.Offsets = append(r.Offsets, groups.Offset{Topic: "orders", Partition: p + 1})
			}
			for i := range r.Offsets {
				r.Offsets[i].Metadata = metadata
			}
			errs, _, err := w.CommitTxn(groups.TxnCommitRequest{CommitRequest: r, ProducerID: 7, Guard: 1})
			if err != classic.None {
				t.Fatal(err)
			}
			return errs[0]
		}
		for _, metadata := range []string{"", strings.Repeat("x", 4000)} {
			if err := put(metadata); err != classic.None {
				t.Fatal(err)
			}
		}
		if err := put(""); err != classic.InvalidCommitOffsetSize {
			t.Errorf("with 120 KB of 100: %v", err)
		}
		var all []groups.Offset
		for p := range int32(30) {
			all = append(all, groups.Offset{Topic: "orders", Partition: p})
		}
		if _, _, err := w.DeleteOffsets("g", all); err != classic.None {
			t.Fatal(err)
		}
		if err := put(""); err != classic.None {
			t.Errorf("when they are deleted: %v", err)
		}
	})
}

// TestTransactionOfADeletedGroup: the end of a transaction does not bring a group back that was deleted meanwhile.
func TestTransactionOfADeletedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		w.putTxn("g", 7, 10)
		wait, err := w.Delete("g")
		if err != classic.None || wait.Wait(t.Context()) != classic.None {
			t.Fatal(err)
		}
		w.endTxn(7, true)
		if list, err := w.List(nil); err != classic.None || len(list) != 0 {
			t.Errorf("%+v %v", list, err)
		}
	})
}
