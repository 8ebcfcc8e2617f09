package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/transactions"
)

// DeleteTopics (key 20)
//
// Behaviour:
//   - A topic is gone for good once the record of its deletion is durable; the directories are renamed away before the
//     answer and unlinked later. When the renaming fails the answer is that error, the topic stays gone, and the next
//     start, or the next topic of the name, tries again. What lies on a device that does not answer for 5 s goes after the answer, when it
//     does, or at the next start; until then the name cannot be used again (KAFKA_STORAGE_ERROR).
//   - A topic named twice, by name or id, is INVALID_REQUEST and not deleted.
//   - Partitions count against the client's controller_mutation_rate, strictly from v5 on; see CreateTopics.
//   - UNKNOWN_TOPIC_OR_PARTITION for an unknown name, UNKNOWN_TOPIC_ID for an unknown id.
//
// Version notes: names only up to v5; from v6 either a name or an id per topic, both are answered.

// deleteParallel bounds how many topics of one request are deleted at a time.
const deleteParallel = 64

func (b *Broker) handleDeleteTopics(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	asked := req.Topics
	for _, name := range req.TopicNames { // v0-v5
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		asked = append(asked, t)
	}
	snap := b.meta.Snapshot()
	type target struct {
		topic *metadata.Topic
		err   error
	}
	targets := make([]target, len(asked))
	times := map[metadata.ID]int{}
	for i, a := range asked {
		t, err := deletionTarget(snap, a)
		targets[i] = target{t, err}
		if t != nil {
			times[t.ID]++
		}
	}
	var g errgroup.Group // side by side: each may wait for a device
	g.SetLimit(deleteParallel)
	for i := range targets {
		t, err := targets[i].topic, targets[i].err
		if t != nil && times[t.ID] > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic name or id in the request.")
		}
		if err == nil && t.Name == groups.Topic {
			err = refuse(kerr.InvalidRequest, "Topic %s holds the committed offsets of all consumer groups and cannot be deleted; delete the groups.", t.Name)
		}
		if err == nil && t.Name == transactions.Topic {
			err = refuse(kerr.InvalidRequest, "Topic %s holds the state of all transactions and cannot be deleted.", t.Name)
		}
		if err == nil {
			err = b.mutate(r, t.Partitions, r.version >= 5)
		}
		if targets[i].err = err; err == nil {
			g.Go(func() error {
				targets[i].err = b.deleteTopic(ctx, t)
				return nil
			})
		}
	}
	_ = g.Wait() // the errors are in targets
	answered := map[metadata.ID]bool{}
	for i, a := range asked {
		t, err := targets[i].topic, targets[i].err
		if t != nil && times[t.ID] > 1 {
			if answered[t.ID] {
				continue
			}
			answered[t.ID] = true
		}
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = a.Topic, a.TopicID
		if t != nil && times[t.ID] == 1 {
			out.Topic, out.TopicID = kmsg.StringPtr(t.Name), t.ID
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "delete topic"), clientText(err)
			b.metrics.failed("DeleteTopics", out.ErrorCode)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func deletionTarget(snap *metadata.Snapshot, asked kmsg.DeleteTopicsRequestTopic) (*metadata.Topic, error) {
	byID := asked.TopicID != [16]byte{}
	switch {
	case byID && asked.Topic != nil:
		return nil, refuse(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
	case byID:
		return findTopic(snap, true, "", asked.TopicID)
	case asked.Topic == nil:
		return nil, refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
	}
	return findTopic(snap, false, *asked.Topic, asked.TopicID)
}

// deleteTopic deletes exactly this topic, not one that was made under its name since. Once begun it goes on although the
// client leaves.
func (b *Broker) deleteTopic(ctx context.Context, t *metadata.Topic) error {
	unlock, err := b.meta.LockTopic(ctx, t.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.dropTopic(context.WithoutCancel(ctx), t); err != nil {
		return err
	}
	b.log.Info("topic deleted", "topic", t.Name, "id", t.ID.String())
	return nil
}
