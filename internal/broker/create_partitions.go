package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/transactions"
)

// CreatePartitions (key 37)
//
// Behaviour:
//   - The count is the new total and must be larger than the old one (INVALID_PARTITIONS). An assignment must have one entry
//     per new partition, each this node.
//   - First the directories, then the catalogue's record: an error or a crash in between leaves the topic as it was, and the
//     directories are used when the topic grows again.
//   - New partitions count against the client's controller_mutation_rate, strictly from v3 on; see CreateTopics.
//   - A topic named twice is INVALID_REQUEST.

func (b *Broker) handleCreatePartitions(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	times := map[string]int{}
	for _, t := range req.Topics {
		times[t.Topic]++
	}
	room := int64(maxPartitionsPerRequest)
	for _, asked := range req.Topics {
		n := times[asked.Topic]
		if n == 0 {
			continue
		}
		times[asked.Topic] = 0
		var err error
		if n > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		} else {
			err = b.growTopic(ctx, r, asked, req.ValidateOnly, &room)
		}
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = asked.Topic
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "create partitions of "+asked.Topic), clientText(err)
			b.metrics.failed("CreatePartitions", out.ErrorCode)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func (b *Broker) growTopic(ctx context.Context, r *request, asked kmsg.CreatePartitionsRequestTopic, validateOnly bool, room *int64) error {
	if _, err := findTopic(b.meta.Snapshot(), false, asked.Topic, [16]byte{}); err != nil {
		return err // before a lock is made for any name a client thinks of
	}
	if asked.Topic == groups.Topic {
		return refuse(kerr.InvalidPartitions, "Topic %s cannot grow: groups are found by their hash over its partitions.", asked.Topic)
	}
	if asked.Topic == transactions.Topic {
		return refuse(kerr.InvalidPartitions, "Topic %s cannot grow: transactional ids are found by their hash over its partitions.", asked.Topic)
	}
	unlock, err := b.meta.LockTopic(ctx, asked.Topic)
	if err != nil {
		return err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	snap := b.meta.Snapshot()
	t, err := findTopic(snap, false, asked.Topic, [16]byte{})
	if err != nil {
		return err
	}
	if err := b.checkGrowth(t, asked, room); err != nil || validateOnly {
		return err
	}
	if err := b.mutate(r, asked.Count-t.Partitions, r.version >= 3); err != nil {
		return err
	}
	cfg, err := partitionConfig(t, b.topicDefaults(snap))
	if err != nil {
		return err
	}
	if err := b.createPartitions(ctx, t, t.Partitions, asked.Count, cfg); err != nil {
		return err
	}
	if err := b.meta.CreatePartitions(t.ID, asked.Count); err != nil {
		return err
	}
	return b.applyConfigs(ctx, t.Name)
}

func (b *Broker) checkGrowth(t *metadata.Topic, asked kmsg.CreatePartitionsRequestTopic, room *int64) error {
	added := int64(asked.Count) - int64(t.Partitions)
	switch {
	case added == 0:
		return refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", t.Partitions)
	case added < 0:
		return refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Name, t.Partitions, asked.Count)
	case asked.Count > metadata.MaxPartitions:
		return refuse(kerr.InvalidPartitions, "A topic has at most %d partitions.", metadata.MaxPartitions)
	}
	if *room -= added; *room < 0 {
		return refuse(kerr.PolicyViolation, "Excessively large number of partitions per request: at most %d.", maxPartitionsPerRequest)
	}
	if len(asked.Assignment) == 0 {
		return nil
	}
	if int64(len(asked.Assignment)) != added {
		return refuse(kerr.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but %d assignment(s) were specified.", added, len(asked.Assignment))
	}
	for _, a := range asked.Assignment {
		if err := b.checkReplicas(a.Replicas); err != nil {
			return err
		}
	}
	return nil
}
