package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/transactions"
)

// CreateTopics (key 19)
//
// Behaviour:
//   - -1 partitions and -1 replication factor are the defaults, in every version. A replication factor above 1 is
//     INVALID_REPLICATION_FACTOR: there is one broker.
//   - A manual assignment is checked as in Kafka (both counts -1, partitions 0..n-1, every replica this node, once).
//   - Configs are checked against the schema: INVALID_CONFIG with the nearest key for an unknown one.
//   - A topic named twice in one request is INVALID_REQUEST and not made.
//   - One request makes at most 10,000 partitions (POLICY_VIOLATION), as in Kafka.
//   - Partitions count against the client's controller_mutation_rate: THROTTLING_QUOTA_EXCEEDED from v6 on, only a throttle time
//     before (KIP-599).
//   - First the catalogue's record, then the directories. When a directory cannot be made, the topic is taken back; when the
//     process dies in between, the next start makes what is missing.
//   - A directory whose device does not answer gets no partitions while others do. One that is caught by it answers KAFKA_STORAGE_ERROR after 20 s, and
//     is taken back.
//   - Success has a null error message.
//
// Version notes: validate_only from v1; configs and counts are answered from v5, the topic id from v7.

const (
	// maxPartitionsPerRequest bounds one request's work; Kafka's limit (ReplicationControlManager).
	maxPartitionsPerRequest = 10_000
	// createParallel bounds how many directories are made, and synced, at once.
	createParallel = 8
)

// newTopic is a topic to be made, checked.
type newTopic struct {
	name       string
	partitions int32
	configs    map[string]string
}

func (b *Broker) handleCreateTopics(ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.body.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	times := map[string]int{}
	for _, t := range req.Topics {
		times[t.Topic]++
	}
	room := int64(maxPartitionsPerRequest)
	for _, asked := range req.Topics {
		n := times[asked.Topic]
		if n == 0 {
			continue // answered already
		}
		times[asked.Topic] = 0
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic = asked.Topic
		var err error
		if n > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic in request.")
		} else {
			err = b.createAsked(ctx, r, asked, req.ValidateOnly, &room, &out)
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = b.code(err, "create topic "+asked.Topic), clientText(err)
			b.metrics.failed("CreateTopics", out.ErrorCode)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// createAsked makes one topic of a request, or only checks it, and fills in the answer.
func (b *Broker) createAsked(ctx context.Context, r *request, asked kmsg.CreateTopicsRequestTopic, validateOnly bool, room *int64, out *kmsg.CreateTopicsResponseTopic) error {
	snap := b.meta.Snapshot()
	defaults := b.topicDefaults(snap)
	topic, err := b.checkNewTopic(snap, asked, defaults)
	if err != nil {
		return err
	}
	if *room -= int64(topic.partitions); *room < 0 {
		return refuse(kerr.PolicyViolation, "Excessively large number of partitions per request: at most %d.", maxPartitionsPerRequest)
	}
	if !validateOnly {
		if err := b.mutate(r, topic.partitions, r.version >= 6); err != nil {
			return err
		}
		made, err := b.createTopic(ctx, topic)
		if err != nil {
			return err
		}
		out.TopicID = made.ID
	}
	out.NumPartitions, out.ReplicationFactor = topic.partitions, 1
	for _, k := range metadata.TopicConfigs {
		values := snap.TopicValues(k, topic.configs, *b.defaults.Load(), b.node())
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.Source = k.Name, kmsg.StringPtr(values[0].Value), int8(values[0].Source)
		out.Configs = append(out.Configs, c)
	}
	return nil
}

// checkNewTopic applies Kafka's rules (ReplicationControlManager.createTopic), in its order.
func (b *Broker) checkNewTopic(snap *metadata.Snapshot, asked kmsg.CreateTopicsRequestTopic, defaults map[string]string) (newTopic, error) {
	topic := newTopic{name: asked.Topic, partitions: asked.NumPartitions, configs: map[string]string{}}
	if err := metadata.ValidateTopicName(asked.Topic); err != nil {
		return topic, err
	}
	if err := snap.CheckCollision(asked.Topic); err != nil {
		return topic, err
	}
	if _, ok := snap.Topic(asked.Topic); ok {
		return topic, refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", asked.Topic)
	}
	for _, c := range asked.Configs {
		if _, twice := topic.configs[c.Name]; twice {
			return topic, refuse(kerr.InvalidConfig, "Config %s is given twice.", c.Name)
		}
		if c.Value == nil {
			return topic, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", c.Name)
		}
		topic.configs[c.Name] = strings.TrimSpace(*c.Value)
	}
	if err := b.validateTopicConfigs(topic.configs, defaults); err != nil {
		return topic, err
	}
	if len(asked.ReplicaAssignment) > 0 {
		n, err := b.checkAssignment(asked)
		topic.partitions = n
		return topic, err
	}
	switch rf := asked.ReplicationFactor; {
	case rf == 0 || rf < -1:
		return topic, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	case rf > 1:
		return topic, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only 1 broker(s) are registered.", rf, rf)
	}
	switch {
	case asked.NumPartitions == -1:
		topic.partitions = b.opt.DefaultPartitions
	case asked.NumPartitions <= 0:
		return topic, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	return topic, nil
}

// checkAssignment checks a manual assignment and gives its number of partitions.
func (b *Broker) checkAssignment(asked kmsg.CreateTopicsRequestTopic) (int32, error) {
	switch {
	case asked.ReplicationFactor != -1:
		return 0, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	case asked.NumPartitions != -1:
		return 0, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	var seen []int32
	for _, a := range asked.ReplicaAssignment {
		if err := b.checkReplicas(a.Replicas); err != nil {
			return 0, err
		}
		seen = append(seen, a.Partition)
	}
	slices.Sort(seen)
	for i, p := range seen {
		switch {
		case i > 0 && p == seen[i-1]:
			return 0, refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for partition %d", p)
		case p != int32(i):
			return 0, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
	}
	return int32(len(seen)), nil
}

// checkReplicas checks the replicas assigned to one partition: exactly this node.
func (b *Broker) checkReplicas(replicas []int32) error {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	for i, id := range replicas {
		switch {
		case id != b.opt.NodeID:
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		case i > 0:
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
	}
	return nil
}

// createTopic makes a topic: the record, then its partitions. On an error nothing of it remains, or it stays on record
// as one to be deleted. Once begun it goes on although the client leaves.
func (b *Broker) createTopic(ctx context.Context, topic newTopic) (*metadata.Topic, error) {
	unlock, err := b.meta.LockTopic(ctx, topic.name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	snap := b.meta.Snapshot()
	if gone, ok := snap.DeletingName(topic.name); ok {
		if err := b.purge(ctx, gone); err != nil {
			return nil, fmt.Errorf("the directories of the deleted topic of this name are still there: %w", err)
		}
	}
	cfg, err := partitionConfig(&metadata.Topic{Configs: topic.configs}, b.topicDefaults(snap))
	if err != nil {
		return nil, err
	}
	t, err := b.meta.CreateTopic(topic.name, topic.partitions, topic.configs)
	if err != nil {
		return nil, err
	}
	if err := b.createPartitions(ctx, t, 0, t.Partitions, cfg); err != nil {
		if back := b.dropTopic(ctx, t); back != nil {
			b.log.Error("topic that could not be created was not taken back either", "topic", t.Name, "err", back)
		}
		return nil, err
	}
	if err := b.applyConfigs(ctx, t.Name); err != nil { // server defaults may have changed since
		b.log.Error("configuration not applied", "topic", t.Name, "err", err)
	}
	switch t.Name {
	case groups.Topic:
		b.groups.Start(t.Partitions)
	case transactions.Topic:
		b.txns.Start(t.Partitions)
	}
	return t, nil
}

// createPartitions makes partitions [from, to) of a topic; those that are served already are left alone.
func (b *Broker) createPartitions(ctx context.Context, t *metadata.Topic, from, to int32, cfg partition.Config) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(createParallel)
	for i := from; i < to; i++ {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err // another one failed
			}
			if err := b.files().create(ctx, t.Name, t.ID, i, cfg); err != nil && !errors.Is(err, partition.ErrExists) {
				return fmt.Errorf("create partition %d: %w", i, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// dropTopic deletes a topic: the record, then what groups have committed of it and the directories, then the record of the deletion. What a device that
// does not answer has of it goes when it does, or at the next start. The caller holds its lock.
func (b *Broker) dropTopic(ctx context.Context, t *metadata.Topic) error {
	if err := b.meta.DeleteTopic(t.ID); err != nil {
		return err
	}
	err := b.purge(ctx, t)
	if errors.Is(err, partition.ErrNoAnswer) {
		b.log.Warn("topic deleted but for what lies on a device that does not answer: that goes when it does, or at a start", "topic", t.Name, "err", err)
		return nil
	}
	return err
}
