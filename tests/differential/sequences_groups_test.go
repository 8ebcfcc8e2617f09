package differential

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// commit asks to store offsets, by default of a consumer that is no member.
func (x *exchange) commit(group string, offset int64, of ...at) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation, req.RetentionTimeMillis = group, -1, -1
	for _, of := range of {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = of.partition, offset, -1, text("note")
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == of.topic {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
			continue
		}
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.Partitions = of.topic, append(rt.Partitions, rp)
		rt.TopicID = x.id(of.topic)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// committed asks for the offsets of one group, of all its partitions when none is named.
func (x *exchange) committed(group string, of ...at) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.MemberEpoch = group, -1
	for _, of := range of {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = of.topic, []int32{of.partition}
		req.Topics = append(req.Topics, rt)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions, gt.TopicID = of.topic, []int32{of.partition}, x.id(of.topic)
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	return req
}

func commitSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	add(8, 0, "a consumer that is no member", func(x *exchange) {
		a := x.topic("a", 2)
		x.ask(x.commit(x.name("g"), 7, at{a, 0}, at{a, 1}))
		x.ask(x.commit(x.name("g"), 3, at{a, 0}))
		x.ask(x.committed(x.name("g"), at{a, 0}, at{a, 1}))
	})
	add(8, 0, "unknown topic, unknown partition", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(x.commit(x.name("g"), 7, at{a, 0}, at{a, 5}, at{a, -1}))
		x.ask(x.commit(x.name("g"), 7, at{x.name("absent"), 0}))
		req := x.commit(x.name("g"), 7, at{a, 0}, at{x.name("absent"), 0})
		req.Topics[1].TopicID = [16]byte{1, 2, 3}
		x.ask(req)
	})
	add(8, 0, "odd offsets", func(x *exchange) {
		a := x.topic("a", 1)
		for _, offset := range []int64{0, -1, -2, 1<<63 - 1} {
			x.ask(x.commit(x.name("g"), offset, at{a, 0}))
		}
		x.ask(x.committed(x.name("g"), at{a, 0}))
	})
	add(8, 0, "a long text", func(x *exchange) {
		a := x.topic("a", 1)
		for _, m := range []*string{text(strings.Repeat("x", 4096)), text(strings.Repeat("x", 4097)), text(""), nil} {
			req := x.commit(x.name("g"), 1, at{a, 0})
			req.Topics[0].Partitions[0].Metadata = m
			x.ask(req)
		}
		x.ask(x.committed(x.name("g"), at{a, 0}))
	})
	add(8, 0, "no group", func(x *exchange) { x.ask(x.commit("", 1, at{x.topic("a", 1), 0})) })
	add(8, 0, "nothing", func(x *exchange) { x.ask(x.commit(x.name("g"), 1)) })
	add(8, 0, "a partition twice", func(x *exchange) { a := x.topic("a", 1); x.ask(x.commit(x.name("g"), 1, at{a, 0}, at{a, 0})) })
	add(8, 0, "members and generations that there are not", func(x *exchange) {
		a := x.topic("a", 1)
		for _, c := range []struct {
			generation int32
			member     string
		}{{0, ""}, {1, "somebody"}, {-1, "somebody"}, {5, ""}} {
			req := x.commit(x.name("g"), 1, at{a, 0})
			req.Generation, req.MemberID = c.generation, c.member
			x.ask(req)
		}
	})
	add(8, 7, "an instance that there is not", func(x *exchange) {
		req := x.commit(x.name("g"), 1, at{x.topic("a", 1), 0})
		req.InstanceID, req.MemberID, req.Generation = text("i"), "m", 1
		x.ask(req)
	})
	add(8, 0, "in a group with members", func(x *exchange) {
		a, g := x.topic("a", 1), x.name("g")
		m := x.formed(g)
		for _, c := range []struct {
			generation int32
			member     string
		}{{1, m}, {0, m}, {2, m}, {-1, ""}, {1, "somebody"}, {1, ""}} {
			req := x.commit(g, 1, at{a, 0})
			req.Generation, req.MemberID = c.generation, c.member
			x.ask(req)
		}
	})
	add(8, 6, "leader epochs", func(x *exchange) {
		a := x.topic("a", 1)
		req := x.commit(x.name("g"), 1, at{a, 0})
		req.Topics[0].Partitions[0].LeaderEpoch = 3
		x.ask(req)
		x.ask(x.committed(x.name("g"), at{a, 0}))
	})

	add(9, 0, "what was committed, and what was not", func(x *exchange) {
		a := x.topic("a", 3)
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 7, at{a, 0}, at{a, 1}))
		x.ask(x.committed(x.name("g"), at{a, 0}, at{a, 1}, at{a, 2}))
	})
	add(9, 2, "all of it", func(x *exchange) {
		a := x.topic("a", 3)
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 7, at{a, 0}, at{a, 1}))
		x.ask(x.committed(x.name("g")))
	})
	add(9, 0, "nothing", func(x *exchange) {
		req := x.committed(x.name("g"))
		req.Topics = []kmsg.OffsetFetchRequestTopic{}
		req.Groups[0].Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		x.ask(req)
	})
	add(9, 0, "an unknown group", func(x *exchange) { x.ask(x.committed(x.name("absent"), at{x.topic("a", 1), 0})) })
	add(9, 2, "all of an unknown group", func(x *exchange) { x.ask(x.committed(x.name("absent"))) })
	add(9, 0, "no group", func(x *exchange) { x.ask(x.committed("", at{x.topic("a", 1), 0})) })
	add(9, 0, "unknown topic, unknown partition", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(x.committed(x.name("g"), at{a, 5}, at{a, -1}))
		x.ask(x.committed(x.name("g"), at{x.name("absent"), 0}))
		req := x.committed(x.name("g"), at{a, 0}, at{x.name("absent"), 0})
		req.Groups[0].Topics[1].TopicID = [16]byte{1, 2, 3}
		x.ask(req)
	})
	add(9, 7, "stable ones", func(x *exchange) {
		a := x.topic("a", 1)
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 7, at{a, 0}))
		req := x.committed(x.name("g"), at{a, 0})
		req.RequireStable = true
		x.ask(req)
	})
	add(9, 8, "several groups", func(x *exchange) {
		a := x.topic("a", 1)
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 7, at{a, 0}))
		req := x.committed(x.name("g"), at{a, 0})
		req.Groups = append(req.Groups, x.committed(x.name("absent"), at{a, 0}).Groups[0], x.committed("").Groups[0])
		x.ask(req)
		req.Groups = []kmsg.OffsetFetchRequestGroup{}
		x.ask(req)
	})
	add(9, 8, "a group twice", func(x *exchange) {
		a := x.topic("a", 1)
		req := x.committed(x.name("g"), at{a, 0})
		req.Groups = append(req.Groups, req.Groups[0])
		x.ask(req)
	})
	add(9, 9, "members and epochs", func(x *exchange) {
		a := x.topic("a", 1)
		g := x.name("g")
		m := x.formed(g)
		for _, c := range []struct {
			member *string
			epoch  int32
		}{{&m, 1}, {&m, 5}, {text("somebody"), 1}, {nil, -1}, {text(""), -1}} {
			req := x.committed(g, at{a, 0})
			req.Groups[0].MemberID, req.Groups[0].MemberEpoch = c.member, c.epoch
			x.ask(req)
		}
	})

	find := func(kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKeys = kind, keys
		if len(keys) > 0 {
			req.CoordinatorKey = keys[0]
		}
		return req
	}
	add(10, 0, "of a group", func(x *exchange) { x.ask(find(0, x.name("g"))) })
	add(10, 0, "of no name", func(x *exchange) { x.ask(find(0, "")) })
	add(10, 1, "of a kind that there is not", func(x *exchange) { x.ask(find(9, x.name("g"))); x.ask(find(-1, x.name("g"))) })
	add(10, 4, "of several groups", func(x *exchange) { x.ask(find(0, x.name("g"), x.name("h"), x.name("g"))) })
	add(10, 4, "of nothing", func(x *exchange) {
		req := find(0)
		req.CoordinatorKeys = []string{}
		x.ask(req)
	})

	remove := func(x *exchange, group string, of ...at) *kmsg.OffsetDeleteRequest {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		for _, of := range of {
			rp := kmsg.NewOffsetDeleteRequestTopicPartition()
			rp.Partition = of.partition
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == of.topic {
				req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				continue
			}
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic, rt.Partitions = of.topic, append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	add(47, 0, "some of a group's", func(x *exchange) {
		a, g := x.topic("a", 2), x.name("g")
		call[*kmsg.OffsetCommitResponse](x, x.commit(g, 7, at{a, 0}, at{a, 1}))
		x.ask(remove(x, g, at{a, 0}))
		x.ask(x.committed(g, at{a, 0}, at{a, 1}))
		x.ask(remove(x, g, at{a, 0}))
	})
	add(47, 0, "unknown group, topic, partition", func(x *exchange) {
		a, g := x.topic("a", 1), x.name("g")
		x.ask(remove(x, x.name("absent"), at{a, 0}))
		x.ask(remove(x, "", at{a, 0}))
		call[*kmsg.OffsetCommitResponse](x, x.commit(g, 7, at{a, 0}))
		x.ask(remove(x, g, at{x.name("absent"), 0}, at{a, 9}))
		x.ask(remove(x, g))
	})
	add(47, 0, "of a topic that members read", func(x *exchange) {
		a, g := x.topic("a", 1), x.name("g")
		m := x.formed(g)
		req := x.commit(g, 1, at{a, 0})
		req.Generation, req.MemberID = 1, m
		call[*kmsg.OffsetCommitResponse](x, req)
		x.ask(remove(x, g, at{a, 0}))
	})
	add(47, 0, "of a topic that members do not read", func(x *exchange) {
		a, b, g := x.topic("a", 1), x.topic("b", 1), x.name("g")
		m := x.formed(g)
		req := x.commit(g, 1, at{a, 0}, at{b, 0})
		req.Generation, req.MemberID = 1, m
		call[*kmsg.OffsetCommitResponse](x, req)
		x.ask(remove(x, g, at{b, 0}))
	})
	return out
}

// join asks to join a group. The metadata is a consumer's, which subscribes to the sequence's topic a.
func (x *exchange) join(group, member string, protocols ...string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 10_000
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{x.name("a")}
	for _, p := range protocols {
		rp := kmsg.NewJoinGroupRequestProtocol()
		rp.Name, rp.Metadata = p, meta.AppendTo(nil)
		req.Protocols = append(req.Protocols, rp)
	}
	return req
}

// sync gives or asks for the assignment of a generation.
func (x *exchange) sync(group, member string, generation int32, assigned ...string) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	req.ProtocolType, req.Protocol = text("consumer"), text("range")
	for _, m := range assigned {
		ra := kmsg.NewSyncGroupRequestGroupAssignment()
		ra.MemberID, ra.MemberAssignment = m, []byte("for its member")
		req.GroupAssignment = append(req.GroupAssignment, ra)
	}
	return req
}

// member gets a member id by joining, without waiting for what comes of it where the version has members come back with an id.
func (x *exchange) member(group string) string {
	resp := call[*kmsg.JoinGroupResponse](x, x.join(group, "", "range"))
	if resp.MemberID == "" {
		x.fail("set-up: join %s: %+v", group, resp)
	}
	return resp.MemberID
}

// formed is a stable group of one member in generation 1, whose id it returns.
func (x *exchange) formed(group string) string {
	m := x.member(group)
	joined := call[*kmsg.JoinGroupResponse](x, x.join(group, m, "range"))
	if joined.ErrorCode != 0 || joined.Generation != 1 {
		x.fail("set-up: join %s: %+v", group, joined)
	}
	if s := call[*kmsg.SyncGroupResponse](x, x.sync(group, m, 1, m)); s.ErrorCode != 0 {
		x.fail("set-up: sync %s: code %d", group, s.ErrorCode)
	}
	return m
}

func heartbeat(group, member string, generation int32) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	return req
}

func leave(group string, members ...string) *kmsg.LeaveGroupRequest {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range members {
		req.MemberID = m
		rm := kmsg.NewLeaveGroupRequestMember()
		rm.MemberID = m
		req.Members = append(req.Members, rm)
	}
	return req
}

func memberSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	// first joins as a new member does in this version, and returns its id.
	first := func(x *exchange, c *conn, group string, protocols ...string) string {
		resp, ok := c.ask(x.join(group, "", protocols...)).(*kmsg.JoinGroupResponse)
		if !ok {
			return ""
		}
		if resp.ErrorCode == 79 { // MEMBER_ID_REQUIRED
			resp, ok = c.ask(x.join(group, resp.MemberID, protocols...)).(*kmsg.JoinGroupResponse)
			if !ok {
				return ""
			}
		}
		return resp.MemberID
	}
	add(11, 0, "one member", func(x *exchange) {
		m := first(x, x.on(0), x.name("g"), "range", "roundrobin")
		x.ask(x.sync(x.name("g"), m, 1, m))
		x.ask(heartbeat(x.name("g"), m, 1))
	})
	add(11, 0, "one member twice", func(x *exchange) {
		g := x.name("g")
		m := first(x, x.on(0), g, "range")
		x.ask(x.sync(g, m, 1, m))
		x.ask(x.join(g, m, "range"))
		x.ask(x.sync(g, m, 2, m))
		x.ask(x.join(g, m, "roundrobin"))
	})
	add(11, 0, "a second member", func(x *exchange) {
		g := x.name("g")
		m := first(x, x.on(0), g, "range", "roundrobin")
		x.ask(x.sync(g, m, 1, m))
		// The second one joins and waits for the first, which hears of it by its heartbeat.
		c := x.on(1)
		req := x.join(g, "", "roundrobin")
		c.send(req)
		if x.version >= 4 {
			resp := c.take(req).(*kmsg.JoinGroupResponse)
			req = x.join(g, resp.MemberID, "roundrobin")
			c.send(req)
		}
		x.until("the rebalance", func() bool { return call[*kmsg.HeartbeatResponse](x, heartbeat(g, m, 1)).ErrorCode == 27 })
		x.ask(x.join(g, m, "range", "roundrobin"))
		joined := c.take(req).(*kmsg.JoinGroupResponse)
		s := x.sync(g, joined.MemberID, 2)
		s.Protocol = text("roundrobin")
		c.send(s)
		lead := x.sync(g, m, 2, m, joined.MemberID)
		lead.Protocol = text("roundrobin")
		x.ask(lead)
		c.take(s)
		x.ask(heartbeat(g, m, 1))
		x.ask(heartbeat(g, m, 2))
		x.ask(describeGroups(g))
		c.ask(leave(g, joined.MemberID))
		x.ask(heartbeat(g, m, 2))
	})
	add(11, 0, "protocols that do not fit", func(x *exchange) {
		g := x.name("g")
		x.formed(g)
		req := x.join(g, "", "sticky")
		x.ask(req)
		req = x.join(g, "", "range")
		req.ProtocolType = "connect"
		x.ask(req)
	})
	add(11, 0, "no protocols, no type", func(x *exchange) {
		x.ask(x.join(x.name("g"), ""))
		req := x.join(x.name("h"), "", "range")
		req.ProtocolType = ""
		x.ask(req)
	})
	add(11, 0, "session timeouts", func(x *exchange) {
		for _, ms := range []int32{0, -1, 100, 5999, 1_800_001} {
			req := x.join(x.name("g"), "", "range")
			req.SessionTimeoutMillis = ms
			x.ask(req)
		}
	})
	add(11, 0, "no group", func(x *exchange) { x.ask(x.join("", "", "range")) })
	add(11, 0, "members that there are not", func(x *exchange) {
		x.ask(x.join(x.name("g"), "somebody", "range"))
		x.formed(x.name("h"))
		x.ask(x.join(x.name("h"), "somebody", "range"))
	})
	add(11, 5, "static members", func(x *exchange) {
		g := x.name("g")
		static := func(member, instance string) *kmsg.JoinGroupRequest {
			req := x.join(g, member, "range")
			req.InstanceID = text(instance)
			return req
		}
		resp, ok := x.ask(static("", "one")).(*kmsg.JoinGroupResponse)
		if !ok {
			return
		}
		m := resp.MemberID
		s := x.sync(g, m, 1, m)
		s.InstanceID = text("one")
		x.ask(s)
		x.ask(static("", "one")) // back under a new id, without a rebalance
		x.ask(static(m, "one"))  // the old one is fenced
		h := heartbeat(g, m, 1)
		h.InstanceID = text("one")
		x.ask(h)
		h = heartbeat(g, "somebody", 1)
		h.InstanceID = text("one")
		x.ask(h)
		h.InstanceID = text("two")
		x.ask(h)
		x.ask(static("somebody", "two"))
	})
	add(11, 5, "an empty instance", func(x *exchange) {
		req := x.join(x.name("g"), "", "range")
		req.InstanceID = text("")
		x.ask(req)
		req = x.join(x.name("h"), "", "range")
		req.InstanceID = text("a/b")
		x.ask(req)
	})
	add(11, 0, "a group that is not about consuming", func(x *exchange) {
		req := x.join(x.name("g"), "", "default")
		req.ProtocolType = "connect"
		if resp, ok := x.ask(req).(*kmsg.JoinGroupResponse); ok && resp.ErrorCode == 79 {
			req.MemberID = resp.MemberID
			x.ask(req)
		}
		x.ask(describeGroups(x.name("g")))
	})

	add(12, 0, "a member", func(x *exchange) {
		g := x.name("g")
		m := x.formed(g)
		for _, generation := range []int32{1, 0, 2, -1} {
			x.ask(heartbeat(g, m, generation))
		}
	})
	add(12, 0, "groups and members that there are not", func(x *exchange) {
		x.ask(heartbeat(x.name("absent"), "somebody", 1))
		x.ask(heartbeat("", "somebody", 1))
		x.formed(x.name("g"))
		x.ask(heartbeat(x.name("g"), "somebody", 1))
		x.ask(heartbeat(x.name("g"), "", 1))
	})
	add(12, 0, "before the assignment", func(x *exchange) {
		g := x.name("g")
		m := x.member(g)
		call[*kmsg.JoinGroupResponse](x, x.join(g, m, "range"))
		x.ask(heartbeat(g, m, 1))
	})
	add(12, 0, "a group without members", func(x *exchange) {
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 1, at{x.topic("a", 1), 0}))
		x.ask(heartbeat(x.name("g"), "somebody", 1))
	})

	add(13, 0, "the last member", func(x *exchange) {
		g := x.name("g")
		m := x.formed(g)
		x.ask(leave(g, m))
		x.ask(leave(g, m))
		x.ask(describeGroups(g))
	})
	add(13, 0, "groups and members that there are not", func(x *exchange) {
		x.ask(leave(x.name("absent"), "somebody"))
		x.ask(leave("", "somebody"))
		x.formed(x.name("g"))
		x.ask(leave(x.name("g"), "somebody"))
		x.ask(leave(x.name("g"), ""))
	})
	add(13, 3, "several", func(x *exchange) {
		g := x.name("g")
		m := x.formed(g)
		x.ask(leave(g, "somebody", m, m))
		x.ask(leave(g))
		static := x.join(g, "", "range")
		static.InstanceID = text("one")
		call[*kmsg.JoinGroupResponse](x, static)
		req := leave(g, "")
		req.Members[0].InstanceID = text("two")
		x.ask(req)
		req.Members[0].MemberID, req.Members[0].InstanceID = "somebody", text("one")
		x.ask(req)
		req.Members[0].MemberID = ""
		x.ask(req)
	})

	add(14, 0, "the leader, twice", func(x *exchange) {
		g := x.name("g")
		m := x.member(g)
		call[*kmsg.JoinGroupResponse](x, x.join(g, m, "range"))
		x.ask(x.sync(g, m, 1, m))
		x.ask(x.sync(g, m, 1))
	})
	add(14, 0, "without an assignment for itself", func(x *exchange) {
		g := x.name("g")
		m := x.member(g)
		call[*kmsg.JoinGroupResponse](x, x.join(g, m, "range"))
		x.ask(x.sync(g, m, 1))
		x.ask(x.sync(g, m, 1))
	})
	add(14, 0, "groups, members and generations that there are not", func(x *exchange) {
		g := x.name("g")
		x.ask(x.sync(x.name("absent"), "somebody", 1))
		x.ask(x.sync("", "somebody", 1))
		m := x.formed(g)
		x.ask(x.sync(g, "somebody", 1))
		x.ask(x.sync(g, m, 0))
		x.ask(x.sync(g, m, 2))
	})
	add(14, 5, "protocols that are not the group's", func(x *exchange) {
		g := x.name("g")
		m := x.formed(g)
		req := x.sync(g, m, 1)
		req.Protocol = text("roundrobin")
		x.ask(req)
		req = x.sync(g, m, 1)
		req.ProtocolType = text("connect")
		x.ask(req)
		req = x.sync(g, m, 1)
		req.ProtocolType, req.Protocol = nil, nil
		x.ask(req)
	})
	return out
}

func describeGroups(groups ...string) *kmsg.DescribeGroupsRequest {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = groups
	return req
}

func groupSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	add(15, 0, "a stable group", func(x *exchange) { g := x.name("g"); x.formed(g); x.ask(describeGroups(g)) })
	add(15, 0, "a group before its assignment", func(x *exchange) {
		g := x.name("g")
		call[*kmsg.JoinGroupResponse](x, x.join(g, x.member(g), "range"))
		x.ask(describeGroups(g))
	})
	add(15, 0, "a group with offsets alone", func(x *exchange) {
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("g"), 1, at{x.topic("a", 1), 0}))
		x.ask(describeGroups(x.name("g")))
	})
	add(15, 0, "unknown", func(x *exchange) { x.ask(describeGroups(x.name("absent"))) })
	add(15, 0, "twice", func(x *exchange) { g := x.name("g"); x.formed(g); x.ask(describeGroups(g, g)) })
	add(15, 0, "nothing", func(x *exchange) { x.ask(describeGroups()) })
	add(15, 3, "operations", func(x *exchange) {
		g := x.name("g")
		x.formed(g)
		req := describeGroups(g, x.name("absent"))
		req.IncludeAuthorizedOperations = true
		x.ask(req)
	})

	add(16, 0, "all", func(x *exchange) {
		x.formed(x.name("g"))
		call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("h"), 1, at{x.topic("a", 1), 0}))
		x.ask(kmsg.NewPtrListGroupsRequest())
	})
	for _, states := range [][]string{{"Stable"}, {"Empty"}, {"stable"}, {"Nonsense"}, {"Stable", "Empty"}, {"Dead"}} {
		add(16, 4, fmt.Sprintf("in states %v", states), func(x *exchange) {
			x.formed(x.name("g"))
			call[*kmsg.OffsetCommitResponse](x, x.commit(x.name("h"), 1, at{x.topic("a", 1), 0}))
			req := kmsg.NewPtrListGroupsRequest()
			req.StatesFilter = states
			x.ask(req)
		})
	}
	for _, types := range [][]string{{"classic"}, {"consumer"}, {"Classic"}, {"nonsense"}, {"share", "classic"}} {
		add(16, 5, fmt.Sprintf("of types %v", types), func(x *exchange) {
			x.formed(x.name("g"))
			req := kmsg.NewPtrListGroupsRequest()
			req.TypesFilter = types
			x.ask(req)
		})
	}

	remove := func(groups ...string) *kmsg.DeleteGroupsRequest {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = groups
		return req
	}
	add(42, 0, "a group with offsets alone", func(x *exchange) {
		a, g := x.topic("a", 1), x.name("g")
		call[*kmsg.OffsetCommitResponse](x, x.commit(g, 1, at{a, 0}))
		x.ask(remove(g))
		x.ask(remove(g))
		x.ask(x.committed(g, at{a, 0}))
		x.ask(describeGroups(g))
	})
	add(42, 0, "a group with members", func(x *exchange) { g := x.name("g"); x.formed(g); x.ask(remove(g, x.name("absent"))) })
	add(42, 0, "a group whose members left", func(x *exchange) {
		g := x.name("g")
		call[*kmsg.LeaveGroupResponse](x, leave(g, x.formed(g)))
		x.ask(remove(g))
	})
	add(42, 0, "nothing", func(x *exchange) { x.ask(remove()) })
	add(42, 0, "twice", func(x *exchange) {
		g := x.name("g")
		call[*kmsg.OffsetCommitResponse](x, x.commit(g, 1, at{x.topic("a", 1), 0}))
		x.ask(remove(g, g))
	})
	return out
}
