package differential

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerSequences are about groups of KIP-848.
func consumerSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run, needs: 68})
	}
	// beat is a heartbeat; joining when the epoch is 0. Member ids are the client's own from version 1 on.
	beat := func(x *exchange, group, member string, epoch int32, topics ...string) *kmsg.ConsumerGroupHeartbeatRequest {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = group, member, epoch
		req.RebalanceTimeoutMillis = -1
		if epoch == 0 {
			req.RebalanceTimeoutMillis, req.SubscribedTopicNames = 10_000, append([]string{}, topics...)
			req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		}
		return req
	}
	const one, two = "AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg"
	join := func(x *exchange, group, member string, topics ...string) (id string, epoch int32) {
		resp, ok := x.ask(beat(x, group, member, 0, topics...)).(*kmsg.ConsumerGroupHeartbeatResponse)
		if !ok || resp.MemberID == nil {
			return member, 0
		}
		return *resp.MemberID, resp.MemberEpoch
	}
	// enter is join as set-up.
	enter := func(x *exchange, group string, topics ...string) (id string, epoch int32) {
		resp := call[*kmsg.ConsumerGroupHeartbeatResponse](x, beat(x, group, one, 0, topics...))
		if resp.ErrorCode != 0 || resp.MemberID == nil {
			x.fail("set-up: heartbeat: code %d", resp.ErrorCode)
		}
		return *resp.MemberID, resp.MemberEpoch
	}
	add(68, 0, "one member", func(x *exchange) {
		g := x.name("g")
		m, epoch := join(x, g, one, x.topic("a", 2))
		x.ask(beat(x, g, m, epoch))
		x.ask(beat(x, g, m, epoch+7))
		x.ask(beat(x, g, m, -1))
		x.ask(beat(x, g, m, epoch))
	})
	add(68, 0, "two members", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 2)
		m, first := join(x, g, one, a)
		n, second := join(x, g, two, a)
		x.ask(beat(x, g, m, first))
		x.ask(beat(x, g, n, second))
	})
	add(68, 0, "unknown groups and members", func(x *exchange) {
		x.ask(beat(x, x.name("absent"), one, 5))
		x.ask(beat(x, x.name("absent"), one, -1))
		join(x, x.name("g"), one, x.topic("a", 1))
		x.ask(beat(x, x.name("g"), two, 5))
	})
	add(68, 0, "what a first heartbeat must have", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		x.ask(beat(x, "", one, 0, a))
		x.ask(beat(x, g, one, -5, a))
		req := beat(x, g, one, 0, a)
		req.RebalanceTimeoutMillis = -1
		x.ask(req)
		req = beat(x, g, one, 0, a)
		req.Topics = nil
		x.ask(req)
		req = beat(x, g, one, 0, a)
		req.SubscribedTopicNames = nil
		x.ask(req)
		req = beat(x, g, one, 0, a)
		req.ServerAssignor = text("nonsense")
		x.ask(req)
	})
	add(68, 0, "an empty instance, an empty rack", func(x *exchange) {
		a := x.topic("a", 1)
		req := beat(x, x.name("g"), one, 0, a)
		req.InstanceID = text("")
		x.ask(req)
		req = beat(x, x.name("h"), one, 0, a)
		req.RackID = text("")
		x.ask(req)
	})
	add(68, 1, "no member id", func(x *exchange) { x.ask(beat(x, x.name("g"), "", 0, x.topic("a", 1))) })
	add(68, 0, "assignors", func(x *exchange) {
		for _, name := range []string{"uniform", "range"} {
			req := beat(x, x.name(name), one, 0, x.topic(name, 3))
			req.ServerAssignor = text(name)
			x.ask(req)
		}
	})
	add(68, 1, "expressions", func(x *exchange) {
		x.topic("a", 2)
		for _, expr := range []string{x.prefix + "-.*", "[", "", "nothing-like-it"} {
			req := beat(x, x.name("g"+expr), one, 0)
			req.SubscribedTopicRegex = text(expr)
			x.ask(req)
		}
	})
	add(68, 0, "static members", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		static := func(member string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
			req := beat(x, g, member, epoch, a)
			req.InstanceID = text("i")
			return req
		}
		first, ok := x.ask(static(one, 0)).(*kmsg.ConsumerGroupHeartbeatResponse)
		if !ok || first.MemberID == nil {
			return
		}
		x.ask(static(two, 0)) // UNRELEASED_INSTANCE_ID
		x.ask(static(two, first.MemberEpoch))
		x.ask(static(*first.MemberID, -2))
		x.ask(static(two, 0))
	})
	add(68, 0, "a static member that joins again under its id", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		req := beat(x, g, one, 0, a)
		req.InstanceID = text("i")
		if c := call[*kmsg.ConsumerGroupHeartbeatResponse](x, req).ErrorCode; c != 0 {
			x.fail("set-up: heartbeat: code %d", c)
		}
		x.ask(req)
	})
	// static is a classic group of one static member, which is assigned the sequence's topic a, and what its assignor says besides.
	static := func(x *exchange, g string, data []byte) {
		join := x.join(g, "", "range")
		join.InstanceID = text("i")
		joined := call[*kmsg.JoinGroupResponse](x, join)
		has := kmsg.NewConsumerMemberAssignment()
		has.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: x.name("a"), Partitions: []int32{0}}}
		has.UserData = data
		sync := x.sync(g, joined.MemberID, joined.Generation, joined.MemberID)
		sync.InstanceID, sync.GroupAssignment[0].MemberAssignment = text("i"), has.AppendTo(nil)
		if c := call[*kmsg.SyncGroupResponse](x, sync).ErrorCode; c != 0 {
			x.fail("set-up: sync: code %d", c)
		}
	}
	add(68, 0, "a static member of a classic group", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		static(x, g, nil)
		for _, id := range []string{one, two} { // the second: UNRELEASED_INSTANCE_ID
			req := beat(x, g, id, 0, a)
			req.InstanceID = text("i")
			x.ask(req)
		}
	})
	add(68, 0, "a classic group with an assignor of its own", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		static(x, g, []byte("data"))
		x.ask(beat(x, g, one, 0, a))
		x.ask(describeGroups(g))
	})
	add(68, 0, "a classic group", func(x *exchange) {
		x.topic("a", 1)
		g := x.name("g")
		x.formed(g)
		x.ask(beat(x, g, one, 0, x.name("a")))
		x.ask(describeGroups(g))
	})
	add(11, 0, "a group of the other protocol", func(x *exchange) {
		g := x.name("g")
		enter(x, g, x.topic("a", 1))
		x.ask(x.join(g, "", "nonsense"))
		x.ask(heartbeat(g, one, 1))
		x.ask(leave(g, "somebody"))
		x.ask(describeGroups(g))
	})
	of := func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		member, epoch := enter(x, g, a)
		for _, c := range []struct {
			member string
			epoch  int32
		}{{member, epoch}, {member, 0}, {member, 7}, {member, -1}, {"somebody", 1}, {"", -1}} {
			req := x.commit(g, 3, at{a, 0})
			req.MemberID, req.Generation = c.member, c.epoch
			x.ask(req)
		}
		call[*kmsg.ConsumerGroupHeartbeatResponse](x, beat(x, g, member, -1))
		x.ask(x.commit(g, 4, at{a, 0})) // nobody is left
	}
	add(8, 9, "of members of the new protocol", of)
	out = append(out, sequence{key: 8, name: "of members of the new protocol, in versions that know no epochs", to: 8, needs: 68, run: of})
	// told beats with what a member says it has until the answers add up to what is waited for, and returns the member's epoch then. Kafka may assign
	// with a later heartbeat than the one that changes something.
	told := func(x *exchange, what string, first *kmsg.ConsumerGroupHeartbeatRequest, owned []at, done func(epoch int32, assigned []at) bool) (epoch int32) {
		epoch = first.MemberEpoch
		assigned, req := owned, first
		x.until(what, func() bool {
			resp := call[*kmsg.ConsumerGroupHeartbeatResponse](x, req)
			if resp.ErrorCode != 0 {
				x.fail("set-up: heartbeat: code %d", resp.ErrorCode)
			}
			if resp.Assignment != nil {
				assigned = nil
				for _, t := range resp.Assignment.Topics {
					for _, p := range t.Partitions {
						assigned = append(assigned, at{x.named(t.TopicID), p})
					}
				}
			}
			epoch = resp.MemberEpoch
			req = beat(x, first.Group, first.MemberID, epoch)
			req.InstanceID, req.Topics = first.InstanceID, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			for _, o := range owned {
				req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: x.id(o.topic), Partitions: []int32{o.partition}})
			}
			return done(epoch, assigned)
		})
		return epoch
	}
	has := func(list ...at) func(int32, []at) bool {
		return func(_ int32, assigned []at) bool {
			return len(assigned) == len(list) && !slices.ContainsFunc(list, func(a at) bool { return !slices.Contains(assigned, a) })
		}
	}
	ranged := func(x *exchange, g, member string, topics ...string) *kmsg.ConsumerGroupHeartbeatRequest {
		req := beat(x, g, member, 0, topics...)
		req.ServerAssignor = text("range")
		return req
	}
	// older is a story of commits at older epochs than the member's (KIP-1251).
	older := func(x *exchange, commit func(g, member string, epoch int32, of ...at)) {
		g, a, b := x.name("g"), x.topic("a", 2), x.topic("b", 1)
		a0, a1, b0 := at{a, 0}, at{a, 1}, at{b, 0}
		first := told(x, "all of a topic", ranged(x, g, one, a), nil, has(a0, a1))
		more := beat(x, g, one, first)
		more.SubscribedTopicNames = []string{a, b}
		second := told(x, "another topic", more, []at{a0, a1}, has(a0, a1, b0))
		commit(g, one, second, b0)
		commit(g, one, first, b0)
		commit(g, one, first, a0)
		commit(g, one, first, a0, a1)
		commit(g, one, first, a0, b0)
		commit(g, one, first-1, a0)
		commit(g, one, second+7, a0)
		commit(g, one, first, at{x.name("absent"), 0})
		told(x, "another member", ranged(x, g, two, a), nil, func(epoch int32, _ []at) bool { return epoch > second })
		told(x, "what is to be given up", beat(x, g, one, second), []at{a0, a1, b0}, has(a0, b0))
		commit(g, one, first, a1)
		third := told(x, "the epoch after", beat(x, g, one, second), []at{a0, b0}, func(epoch int32, _ []at) bool { return epoch > second })
		commit(g, one, first, a0)
		commit(g, one, first, a1)
		commit(g, one, second, a1)
		commit(g, one, third, a1)
		fourth := told(x, "what was given up", beat(x, g, two, third), []at{}, has(a1))
		commit(g, two, fourth, a1)
		commit(g, two, first, a1)
		commit(g, two, first, a0)
	}
	add(8, 9, "of older epochs", func(x *exchange) {
		older(x, func(g, member string, epoch int32, of ...at) {
			req := x.commit(g, 3, of...)
			req.MemberID, req.Generation = member, epoch
			x.ask(req)
		})
	})
	out = append(out, sequence{key: 28, name: "of older epochs", from: 3, to: 4, needs: 68, run: func(x *exchange) {
		w := x.begin(x.name("t"))
		if c := call[*kmsg.AddOffsetsToTxnResponse](x, addOffsets(w, x.name("g"))).ErrorCode; c != 0 {
			x.fail("set-up: add offsets: code %d", c)
		}
		older(x, func(g, member string, epoch int32, of ...at) {
			req := x.commitIn(w, g, of[0])
			for _, o := range of[1:] {
				req.Topics = append(req.Topics, x.commitIn(w, g, o).Topics...)
			}
			req.MemberID, req.Generation = member, epoch
			x.ask(req)
		})
	}})
	add(8, 9, "of a static member that came back", func(x *exchange) {
		g, a, b := x.name("g"), x.topic("a", 1), x.topic("b", 1)
		join := beat(x, g, one, 0, a)
		join.InstanceID = text("i")
		first := told(x, "a topic", join, nil, has(at{a, 0}))
		more := beat(x, g, one, first)
		more.InstanceID, more.SubscribedTopicNames = text("i"), []string{a, b}
		told(x, "another topic", more, []at{{a, 0}}, has(at{a, 0}, at{b, 0}))
		left := beat(x, g, one, -2)
		left.InstanceID = text("i")
		if c := call[*kmsg.ConsumerGroupHeartbeatResponse](x, left).ErrorCode; c != 0 {
			x.fail("set-up: leave: code %d", c)
		}
		join = beat(x, g, two, 0, a, b)
		join.InstanceID = text("i")
		now := told(x, "what it had", join, nil, has(at{a, 0}, at{b, 0}))
		for _, c := range []struct {
			member string
			epoch  int32
			of     at
		}{{two, now, at{a, 0}}, {two, first, at{a, 0}}, {two, first, at{b, 0}}, {two, 0, at{a, 0}}, {two, -1, at{a, 0}}, {one, now, at{a, 0}}} {
			req := x.commit(g, 3, c.of)
			req.MemberID, req.Generation, req.InstanceID = c.member, c.epoch, text("i")
			x.ask(req)
		}
	})
	add(8, 0, "of classic members of a group of the new protocol", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		enter(x, g, a)
		joined := call[*kmsg.JoinGroupResponse](x, x.join(g, x.member(g), "range"))
		if joined.ErrorCode != 0 {
			x.fail("set-up: join: code %d", joined.ErrorCode)
		}
		for _, generation := range []int32{joined.Generation, joined.Generation + 3} {
			req := x.commit(g, 3, at{a, 0})
			req.MemberID, req.Generation = joined.MemberID, generation
			x.ask(req)
		}
	})
	add(9, 0, "by members of the new protocol", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		member, epoch := enter(x, g, a)
		req := x.commit(g, 3, at{a, 0})
		req.MemberID, req.Generation = member, epoch
		if c := call[*kmsg.OffsetCommitResponse](x, req).Topics[0].Partitions[0].ErrorCode; c != 0 {
			x.fail("set-up: commit: code %d", c)
		}
		x.ask(x.committed(g, at{a, 0}))
		if x.version < 9 {
			return // no member, no epoch
		}
		for _, c := range []struct {
			member *string
			epoch  int32
		}{{&member, epoch}, {&member, 0}, {&member, 7}, {&member, -1}, {text("somebody"), epoch}, {text(""), -1}} {
			fetch := x.committed(g, at{a, 0})
			fetch.Groups[0].MemberID, fetch.Groups[0].MemberEpoch = c.member, c.epoch
			x.ask(fetch)
		}
	})
	out = append(out, sequence{key: 28, name: "of members of the new protocol", from: 3, to: 4, needs: 68, run: func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		member, epoch := enter(x, g, a)
		w := x.begin(x.name("t"))
		if c := call[*kmsg.AddOffsetsToTxnResponse](x, addOffsets(w, g)).ErrorCode; c != 0 {
			x.fail("set-up: add offsets: code %d", c)
		}
		for _, c := range []struct {
			member string
			epoch  int32
		}{{member, 0}, {member, 7}, {member, -1}, {"somebody", epoch}, {"", epoch}, {"", -1}, {member, epoch}} {
			req := x.commitIn(w, g, at{a, 0})
			req.MemberID, req.Generation = c.member, c.epoch
			x.ask(req)
		}
	}})

	add(12, 0, "when the last member of the new protocol has left", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		m := x.member(g)
		first := call[*kmsg.JoinGroupResponse](x, x.join(g, m, "range"))
		all := kmsg.NewConsumerMemberAssignment()
		all.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: a, Partitions: []int32{0}}}
		sync := x.sync(g, m, first.Generation, m)
		sync.GroupAssignment[0].MemberAssignment = all.AppendTo(nil)
		if c := call[*kmsg.SyncGroupResponse](x, sync).ErrorCode; c != 0 {
			x.fail("set-up: sync: code %d", c)
		}
		if c := call[*kmsg.ConsumerGroupHeartbeatResponse](x, beat(x, g, one, 0, a)).ErrorCode; c != 0 {
			x.fail("set-up: join: code %d", c)
		}
		var generation int32
		x.until("the epoch of the upgrade", func() bool { // Kafka may give it later
			generation = call[*kmsg.JoinGroupResponse](x, x.join(g, m, "range")).Generation
			return generation == 2 && call[*kmsg.SyncGroupResponse](x, x.sync(g, m, generation)).ErrorCode == 0
		})
		if c := call[*kmsg.ConsumerGroupHeartbeatResponse](x, beat(x, g, one, -1)).ErrorCode; c != 0 {
			x.fail("set-up: leave: code %d", c)
		}
		x.ask(heartbeat(g, m, generation)) // REBALANCE_IN_PROGRESS
		x.ask(describeGroups(g))
	})
	add(14, 5, "of a static member that goes back to the classic protocol", func(x *exchange) {
		g, a := x.name("g"), x.topic("a", 1)
		join := beat(x, g, one, 0, a)
		join.InstanceID = text("i")
		epoch := told(x, "a topic", join, nil, has(at{a, 0}))
		left := beat(x, g, one, -2)
		left.InstanceID = text("i")
		if c := call[*kmsg.ConsumerGroupHeartbeatResponse](x, left).ErrorCode; c != 0 {
			x.fail("set-up: leave: code %d", c)
		}
		back := x.join(g, "", "range")
		back.InstanceID = text("i")
		joined := call[*kmsg.JoinGroupResponse](x, back)
		if joined.ErrorCode != 0 || joined.Generation != epoch {
			x.fail("set-up: join: code %d, generation %d after %d", joined.ErrorCode, joined.Generation, epoch)
		}
		sync := x.sync(g, joined.MemberID, joined.Generation)
		sync.InstanceID = text("i")
		x.ask(sync)
		beat := heartbeat(g, joined.MemberID, joined.Generation)
		beat.InstanceID = text("i")
		x.ask(beat)
	})

	describe := func(groups ...string) *kmsg.ConsumerGroupDescribeRequest {
		req := kmsg.NewPtrConsumerGroupDescribeRequest()
		req.Groups = groups
		return req
	}
	add(69, 0, "a group", func(x *exchange) {
		g := x.name("g")
		a := x.topic("a", 2)
		x.until("the assignment", func() bool { // Kafka may make it with a later heartbeat
			resp := call[*kmsg.ConsumerGroupHeartbeatResponse](x, beat(x, g, one, 0, a))
			if resp.ErrorCode != 0 {
				x.fail("set-up: heartbeat: code %d", resp.ErrorCode)
			}
			return resp.Assignment != nil && len(resp.Assignment.Topics) > 0
		})
		x.ask(describe(g))
		req := describe(g)
		req.IncludeAuthorizedOperations = true
		x.ask(req)
		list := kmsg.NewPtrListGroupsRequest()
		x.ask(list)
	})
	add(69, 0, "unknown, nameless, classic, nothing", func(x *exchange) {
		g := x.name("g")
		x.formed(g)
		x.ask(describe(x.name("absent"), "", g))
		x.ask(describe())
	})
	return out
}
