package consumer_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"lagoon/internal/groups/consumer"
)

// TestEmptyGroupsKeepNoTopics: the topics as they were when its last member left are not kept by a group that nobody uses any more.
func TestEmptyGroupsKeepNoTopics(t *testing.T) {
	g, now := consumer.New(&consumer.Config{MaxSize: 10}), time.Unix(1_000_000, 0)
	set := consumer.Settings{Session: time.Minute, Heartbeat: time.Second}
	kept := func(event func(consumer.Topics)) bool {
		topics := &topics{version: 1, parts: map[string]int32{"orders": 2}}
		w := weak.Make(topics)
		event(topics)
		g.Commit()
		topics = nil
		runtime.GC()
		return w.Value() != nil
	}
	beat := func(epoch int32) func(consumer.Topics) {
		return func(topics consumer.Topics) {
			r := consumer.HeartbeatRequest{MemberID: "a", Epoch: epoch, Topics: []string{"orders"}, Rebalance: time.Minute, Owned: []consumer.TopicPartitions{}}
			g.Heartbeat(now, set, topics, nil, r)
		}
	}
	if !kept(beat(0)) {
		t.Error("a group with a member has forgotten the topics")
	}
	for _, x := range []struct {
		what  string
		event func(consumer.Topics)
	}{
		{"its member leaves", beat(-1)},
		{"somebody unknown heartbeats", beat(5)},
		{"somebody unknown leaves", beat(-1)},
		{"it is loaded", func(topics consumer.Topics) { g.Start(now, set, topics) }},
		{"its member is silent", func(topics consumer.Topics) { beat(0)(topics); g.Commit(); g.Tick(now.Add(time.Hour)) }},
	} {
		if kept(x.event) {
			t.Errorf("%s: the topics are kept", x.what)
		}
	}
	runtime.KeepAlive(g)
}
