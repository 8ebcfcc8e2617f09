package groups_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/groups/groupstest"
)

// BenchmarkHeartbeats: 1,000 groups of 10 members; one iteration is every member's heartbeat, so what it takes per second of
// heartbeats. cpu-% is the share of one core when they come every second.
func BenchmarkHeartbeats(b *testing.B) {
	w := start(b, &groupstest.Log{}, nil)
	defer w.Close()
	for {
		if _, err := w.List(nil); err == classic.None {
			break
		}
	}
	const count, members = 1000, 10
	protocols := []classic.Protocol{{Name: "range", Metadata: make([]byte, 100)}}
	var generations [count]int32
	id := func(g, m int) string { return fmt.Sprintf("client-%d-%d", g, m) }
	join := func(g, m int, known bool) <-chan classic.JoinResult {
		r := groups.JoinRequest{Group: fmt.Sprintf("group-%d", g), JoinRequest: classic.JoinRequest{NewID: id(g, m), ClientID: "c", ProtocolType: "consumer",
			Protocols: protocols, Session: 30 * time.Second, Rebalance: 30 * time.Second}}
		if known {
			r.MemberID = id(g, m)
		}
		return w.Join(r)
	}
	for g := range count {
		first := <-join(g, 0, false)
		var waits []<-chan classic.JoinResult
		for m := 1; m < members; m++ {
			waits = append(waits, join(g, m, false))
		}
		waits = append(waits, join(g, 0, true))
		for _, c := range waits {
			generations[g] = (<-c).Generation
		}
		assign := map[string][]byte{}
		for m := range members {
			assign[id(g, m)] = ordersAssignment
		}
		if res := <-w.Sync(groups.SyncRequest{Group: fmt.Sprintf("group-%d", g), SyncRequest: classic.SyncRequest{MemberID: first.MemberID, Generation: generations[g], Assignments: assign}}); res.Err != classic.None {
			b.Fatal(res.Err)
		}
	}
	var names [count]string
	var ids [count][members]string
	for g := range count {
		names[g] = fmt.Sprintf("group-%d", g)
		for m := range members {
			ids[g][m] = id(g, m)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for g := range count {
			for m := range members {
				if err := w.Heartbeat(names[g], ids[g][m], "", generations[g]); err != classic.None {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N), "cpu-%")
}

// BenchmarkLoad5000 is a start with 5,000 groups of 10 offsets in one shard.
func BenchmarkLoad5000(b *testing.B) {
	log := &groupstest.Log{}
	w := start(b, log, nil)
	for {
		if _, err := w.List(nil); err == classic.None {
			break
		}
	}
	for g := range 5000 {
		r := groups.CommitRequest{Group: fmt.Sprintf("group-%d", g), Generation: -1, Retention: -1}
		for p := range int32(10) {
			r.Offsets = append(r.Offsets, groups.Offset{Topic: "orders", Partition: p, Offset: 1 << 40})
		}
		w.put(r)
	}
	w.Close()
	for b.Loop() {
		w := start(b, log, nil)
		for {
			if list, err := w.List(nil); err == classic.None {
				if len(list) != 5000 {
					b.Fatal(len(list))
				}
				break
			}
		}
		w.Close()
	}
}

// BenchmarkOwner is what a fetch pays per partition to learn its group.
func BenchmarkOwner(b *testing.B) {
	w := start(b, &groupstest.Log{}, nil)
	defer w.Close()
	for {
		if _, err := w.List(nil); err == classic.None {
			break
		}
	}
	w.member("g", "client", ordersAssignment)
	b.ReportAllocs()
	for b.Loop() {
		if g, _ := w.Owner("client", "/h", "orders", 1); g != "g" {
			b.Fatal(g)
		}
	}
}

// TestRebalanceOfHundred: all members of a large group learn the new generation as soon as the last one has joined.
func TestRebalanceOfHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &groupstest.Log{}, nil)
		defer w.Close()
		synctest.Wait()
		join := func(m int, id string) <-chan classic.JoinResult {
			return w.Join(groups.JoinRequest{Group: "g", JoinRequest: classic.JoinRequest{MemberID: id, NewID: fmt.Sprintf("m%d", m), ProtocolType: "consumer",
				Protocols: []classic.Protocol{{Name: "range"}}, Session: 30 * time.Second, Rebalance: 30 * time.Second}})
		}
		<-join(0, "")
		var waits []<-chan classic.JoinResult
		for m := 1; m < 100; m++ {
			waits = append(waits, join(m, ""))
		}
		began := time.Now()
		for _, c := range append(waits, join(0, "m0")) {
			if r := <-c; r.Err != classic.None || r.Generation != 2 {
				t.Fatalf("%+v", r)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %v of the clock", took)
		}
	})
}

// BenchmarkConsumerHeartbeats is BenchmarkHeartbeats with members of the consumer protocol (KIP-848), in stable groups.
func BenchmarkConsumerHeartbeats(b *testing.B) {
	w := start(b, &groupstest.Log{}, nil)
	defer w.Close()
	for {
		if _, err := w.List(nil); err == classic.None {
			break
		}
	}
	const count, members = 1000, 10
	type seat struct {
		group string
		beat  consumer.HeartbeatRequest
	}
	var seats []seat
	for g := range count {
		for m := range members {
			seats = append(seats, seat{fmt.Sprintf("group-%d", g), consumer.HeartbeatRequest{MemberID: fmt.Sprintf("client-%d-%d", g, m), ClientID: "c", Host: "/h"}})
		}
	}
	owned := make([][]consumer.TopicPartitions, len(seats))
	for round := range 6 { // until everybody has what it should
		for i := range seats {
			r := seats[i].beat
			r.Rebalance = -1
			if r.Owned = owned[i]; round == 0 {
				r.Topics, r.Owned, r.Rebalance = []string{"orders", "returns"}, []consumer.TopicPartitions{}, time.Minute
			}
			res, _ := w.ConsumerHeartbeat(seats[i].group, r)
			if res.Refused != nil {
				b.Fatal(res.Refused.Text)
			}
			if seats[i].beat.Epoch = res.Epoch; res.Assigned {
				owned[i] = append([]consumer.TopicPartitions{}, res.Assignment...)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range seats {
			r := seats[i].beat
			r.Rebalance = -1
			if res, _ := w.ConsumerHeartbeat(seats[i].group, r); res.Refused != nil || res.Epoch != r.Epoch {
				b.Fatalf("%+v, %+v", r, res)
			}
		}
	}
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N), "cpu-%")
}
