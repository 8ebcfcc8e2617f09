package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/metadata"
)

// OffsetFetch (key 9)
//
// Behaviour:
//   - Only offsets on stable storage are answered; what is answered cannot be taken back by a crash.
//   - A group that does not exist is no error: offset -1 for every partition that was asked for.
//   - Null topics (version 2 and later) mean all partitions with an offset.
//   - require_stable (7): an offset that a transaction is about to change is answered with UNSTABLE_OFFSET_COMMIT, and the client asks again.
//
//   - What would make the response larger than maxAnswerBytes is INVALID_REQUEST.
//
// Version notes: up to 1 errors are told per partition, from 2 for the group; 5 brings the leader epoch, 8 several groups, 9 member ids
// and epochs (KIP-848: STALE_MEMBER_EPOCH), 10 topic ids.

func (b *Broker) handleOffsetFetch(_ context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.OffsetFetchRequest)
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	snap := b.meta.Snapshot()
	room := b.answerRoom()
	if r.version >= 8 {
		for _, g := range req.Groups {
			resp.Groups = append(resp.Groups, b.fetchOffsets(snap, r.version, g, req.RequireStable, room))
		}
		return resp, nil
	}
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = req.Group
	if req.Topics != nil || r.version < 2 {
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range req.Topics {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = t.Topic, t.Partitions
		one.Topics = append(one.Topics, gt)
	}
	got := b.fetchOffsets(snap, r.version, one, req.RequireStable, room)
	resp.ErrorCode = got.ErrorCode
	if r.version < 2 && got.ErrorCode != 0 { // no place for it but the partitions
		resp.ErrorCode = 0
		for _, t := range one.Topics {
			gt := kmsg.NewOffsetFetchResponseGroupTopic()
			gt.Topic = t.Topic
			for _, p := range t.Partitions {
				gp := noOffset(p)
				gp.ErrorCode = got.ErrorCode
				gt.Partitions = append(gt.Partitions, gp)
			}
			got.Topics = append(got.Topics, gt)
		}
	}
	for _, t := range got.Topics {
		out := kmsg.NewOffsetFetchResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			op := kmsg.NewOffsetFetchResponseTopicPartition()
			op.Partition, op.Offset, op.LeaderEpoch, op.Metadata, op.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func noOffset(partition int32) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, -1, -1, kmsg.StringPtr("")
	return p
}

func (b *Broker) fetchOffsets(snap *metadata.Snapshot, version int16, asked kmsg.OffsetFetchRequestGroup, stable bool, room *answerRoom) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = asked.Group
	if !room.left() {
		out.ErrorCode = kerr.InvalidRequest.Code
		return out
	}
	unstable := func(string, int32) bool { return false }
	if stable { // asked before the offsets: what is found then is not older than the answer
		unstable = b.groups.Unstable(asked.Group)
	}
	if asked.Topics == nil {
		out.Topics, out.ErrorCode = b.fetchAllOffsets(snap, version, asked, unstable)
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				room.take(len(*p.Metadata) + len(t.Topic)/len(t.Partitions))
			}
		}
		return out
	}
	var offsets []groups.Offset
	for _, t := range asked.Topics {
		name := t.Topic
		if version >= 10 {
			if topic, err := findTopic(snap, true, "", t.TopicID); err == nil {
				name = topic.Name
			}
		}
		for _, p := range t.Partitions {
			offsets = append(offsets, groups.Offset{Topic: name, Partition: p})
		}
	}
	if err := b.groups.Fetch(asked.Group, fetcher(asked), offsets); err != classic.None {
		out.ErrorCode = int16(err)
		return out
	}
	for _, t := range asked.Topics {
		ot := kmsg.NewOffsetFetchResponseGroupTopic()
		ot.Topic, ot.TopicID = t.Topic, t.TopicID
		_, unknown := findTopic(snap, version >= 10, t.Topic, t.TopicID)
		for _, partition := range t.Partitions {
			p := noOffset(partition)
			if version >= 10 && unknown != nil {
				p.ErrorCode = kerr.UnknownTopicID.Code
			} else if unstable(offsets[0].Topic, partition) {
				p.ErrorCode = kerr.UnstableOffsetCommit.Code
			} else if !room.left() {
				p.ErrorCode = kerr.InvalidRequest.Code
			} else {
				room.take(len(offsets[0].Metadata))
				p.Offset, p.LeaderEpoch, p.Metadata = offsets[0].Offset, offsets[0].LeaderEpoch, &offsets[0].Metadata
			}
			offsets = offsets[1:]
			ot.Partitions = append(ot.Partitions, p)
		}
		out.Topics = append(out.Topics, ot)
	}
	return out
}

func fetcher(asked kmsg.OffsetFetchRequestGroup) groups.Fetcher {
	return groups.Fetcher{MemberID: asked.MemberID, Epoch: asked.MemberEpoch}
}

// fetchAllOffsets answers for every partition of which the group has an offset, by topic and partition.
func (b *Broker) fetchAllOffsets(snap *metadata.Snapshot, version int16, asked kmsg.OffsetFetchRequestGroup,
	unstable func(string, int32) bool) ([]kmsg.OffsetFetchResponseGroupTopic, int16) {
	offsets, err := b.groups.FetchAll(asked.Group, fetcher(asked))
	slices.SortFunc(offsets, func(a, b groups.Offset) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	var out []kmsg.OffsetFetchResponseGroupTopic
	for i := range offsets {
		o := &offsets[i]
		if n := len(out); n == 0 || out[n-1].Topic != o.Topic {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = o.Topic
			if topic, ok := snap.Topic(o.Topic); ok {
				t.TopicID = topic.ID
			} else if version >= 10 {
				continue // it was deleted just now, and has no other name than its id here
			}
			out = append(out, t)
		}
		p := noOffset(o.Partition)
		if unstable(o.Topic, o.Partition) {
			p.ErrorCode = kerr.UnstableOffsetCommit.Code
		} else {
			p.Offset, p.LeaderEpoch, p.Metadata = o.Offset, o.LeaderEpoch, &o.Metadata
		}
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return out, int16(err)
}
