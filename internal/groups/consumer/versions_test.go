package consumer_test

import (
	"testing"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

// TestOlderTopicsAreNotTaken: requests that waited for each other come with the topics of the time when they came. The newest are what the group goes by,
// or it would take partitions away from its members and give them back.
func TestOlderTopicsAreNotTaken(t *testing.T) {
	w := newWorld()
	older := w.topics.with("a", 1)
	newer := older.with("b", 1)
	regex := ".*"
	beat := func(epoch int32, at *topics) consumer.HeartbeatResult {
		r := consumer.HeartbeatRequest{MemberID: "m", Epoch: epoch, Rebalance: -1}
		if epoch == 0 {
			r.Topics, r.Regex, r.Owned, r.Rebalance = []string{}, &regex, []consumer.TopicPartitions{}, time.Minute
		}
		resolved := map[string]*consumer.Resolved{regex: at.match(regex)}
		res := w.g.Heartbeat(w.now, w.set, at, resolved, r)
		if res.Refused != nil {
			t.Fatal(res.Refused)
		}
		w.g.Commit()
		return res
	}
	first := beat(0, newer)
	if first.Assignment.Len() != 2 {
		t.Fatalf("%+v", first)
	}
	second := beat(first.Epoch, older)
	if second.Epoch != first.Epoch || second.Assigned {
		t.Errorf("with older topics: epoch %d after %d, %+v", second.Epoch, first.Epoch, second.Assignment)
	}
	join := classic.JoinRequest{NewID: "c", ProtocolType: "consumer", Session: time.Minute, Rebalance: time.Minute,
		Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 1, 'b', 0, 0, 0, 0}}}}
	joined := w.g.Join(w.now, older, join)
	w.g.Commit()
	if joined.Err != classic.None {
		t.Fatal(joined.Err)
	}
	if code := w.g.ClassicHeartbeat(w.now, older, "c", "", joined.Generation); code != classic.None && code != classic.RebalanceInProgress {
		t.Fatal(code)
	}
	if n := len(w.g.Records()); n != 0 {
		t.Errorf("a heartbeat with older topics changes %d records", n)
	}
	parts := 0
	for _, m := range w.g.Members() {
		parts += m.Target.Len()
	}
	if parts != 2 {
		t.Errorf("%d of 2 partitions are assigned", parts)
	}
}
