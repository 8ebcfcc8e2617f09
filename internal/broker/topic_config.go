package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/quotas"
	"lagoon/tiering"
)

// partitionConfig is what a topic's configuration and pins mean to its partitions. defaults are the server's by topic key.
func partitionConfig(t *metadata.Topic, defaults map[string]string) (partition.Config, error) {
	c, err := metadata.Effective(t.Configs, defaults)
	if err != nil {
		return partition.Config{}, err
	}
	return partition.Config{
		SegmentBytes:         c.SegmentBytes,
		SegmentMs:            c.SegmentMs,
		SegmentIndexBytes:    c.SegmentIndexBytes,
		IndexIntervalBytes:   c.IndexIntervalBytes,
		RetentionMs:          c.RetentionMs,
		RetentionBytes:       c.RetentionBytes,
		LocalRetentionMs:     c.LocalRetentionMs,
		LocalRetentionBytes:  c.LocalRetentionBytes,
		Compact:              c.Compact,
		Delete:               c.Delete,
		MinCleanableRatio:    c.MinCleanableRatio,
		MinCompactionLagMs:   c.MinCompactionLagMs,
		MaxCompactionLagMs:   c.MaxCompactionLagMs,
		DeleteRetentionMs:    c.DeleteRetentionMs,
		MaxMessageBytes:      c.MaxMessageBytes,
		LogAppendTime:        c.LogAppendTime,
		TimestampBeforeMaxMs: c.TimestampBeforeMaxMs,
		TimestampAfterMaxMs:  c.TimestampAfterMaxMs,
		FileDeleteDelay:      time.Duration(min(c.FileDeleteDelayMs, maxDelayMs)) * time.Millisecond,
		FlushInterval:        c.FlushInterval,
		TierPolicy:           c.TierPolicy,
		ReaderClass:          c.ReaderClass,
		CatchupBytesPerSec:   c.CatchupMaxBytesPerSec,
		DeliveryDelayMs:      c.DeliveryDelayMs,
		DeliveredMs:          c.DeliveredMs,
		Pins:                 t.Pins,
	}, nil
}

// maxDelayMs keeps a delay in ms within a time.Duration.
const maxDelayMs = int64(1<<63-1) / int64(time.Millisecond)

// TopicSpecs lists what partition.Store.Load must open: every topic of the catalogue with its configuration, and the
// topics whose deletion was interrupted, so that Broker.FinishDeletions can take their directories away. static are
// Options.TopicDefaults. A topic whose configuration cannot be read (only a damaged or foreign catalogue has such) is
// an error: its retention is not known.
func TopicSpecs(snap *metadata.Snapshot, static map[string]string, nodeID int32) ([]partition.TopicSpec, error) {
	defaults := snap.TopicDefaults(static, nodeName(nodeID))
	var out []partition.TopicSpec
	for _, t := range slices.Concat(slices.Collect(maps.Values(snap.Topics)), slices.Collect(maps.Values(snap.Deleting))) {
		cfg, err := partitionConfig(t, defaults)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", t.Name, err)
		}
		out = append(out, partition.TopicSpec{Topic: t.Name, ID: t.ID, Partitions: t.Partitions, Config: cfg})
	}
	slices.SortFunc(out, func(a, b partition.TopicSpec) int { return strings.Compare(a.Topic, b.Topic) })
	return out, nil
}

// FinishDeletions takes away the directories of topics whose deletion a stop or an error interrupted. Call it after
// partition.Store.Load. Topics that cannot be removed stay on record for the next time; the error names them.
func (b *Broker) FinishDeletions(ctx context.Context) error {
	var errs []error
	for _, t := range b.meta.Snapshot().Deleting {
		unlock, err := b.meta.LockTopic(ctx, t.Name)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := b.purge(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("finish the deletion of topic %s: %w", t.Name, err))
		} else {
			b.log.Info("interrupted deletion finished", "topic", t.Name)
		}
		unlock()
	}
	return errors.Join(errs...)
}

// purgeTime is how long a purge waits for devices that do not answer.
const purgeTime = 5 * time.Second

// purging is a purge under way.
type purging struct {
	done chan struct{} // closed when err is known
	err  error
}

// purge removes what groups have committed of a topic whose deletion is on record, and its directories, and then the record. The caller holds its lock.
// It goes on without the caller when a device does not answer (partition.ErrNoAnswer): until it has ended no other topic can have the name.
func (b *Broker) purge(ctx context.Context, t *metadata.Topic) error {
	b.purgeMu.Lock()
	p := b.purges[t.ID]
	if p == nil {
		if b.meta.Snapshot().Deleting[t.ID] == nil { // one that was under way has just ended
			b.purgeMu.Unlock()
			return nil
		}
		p = &purging{done: make(chan struct{})}
		b.purges[t.ID] = p
		go b.finish(context.WithoutCancel(ctx), t, p)
	}
	b.purgeMu.Unlock()
	late := time.NewTimer(purgeTime)
	defer late.Stop()
	select {
	case <-p.done:
		return p.err
	case <-late.C:
		return fmt.Errorf("%w: topic %s is not wholly deleted after %v", partition.ErrNoAnswer, t.Name, purgeTime)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish is purge to its end. What groups have committed lies in other directories than the topic, as a rule: neither waits for the other.
func (b *Broker) finish(ctx context.Context, t *metadata.Topic, p *purging) {
	began := time.Now()
	var offsets sync.WaitGroup
	offsets.Go(func() { b.groups.TopicDeleted(ctx, t.Name) })
	err := b.files().remove(ctx, t.Name, t.ID)
	offsets.Wait()
	if err == nil {
		err = b.meta.FinishDelete(t.ID)
	}
	switch took := time.Since(began); {
	case took < purgeTime: // the caller tells
	case err == nil:
		b.log.Info("what was left of a deleted topic is gone", "topic", t.Name, "id", t.ID.String(), "elapsed", took.Round(time.Millisecond))
	default:
		b.log.Warn("deleted topic left for the next start", "topic", t.Name, "id", t.ID.String(), "err", err)
	}
	b.purgeMu.Lock()
	delete(b.purges, t.ID)
	b.purgeMu.Unlock()
	p.err = err
	close(p.done)
}

func nodeName(id int32) string { return strconv.Itoa(int(id)) }

func (b *Broker) node() string { return nodeName(b.opt.NodeID) }

// topicDefaults is what holds for topics that do not say, dynamic broker configs included.
func (b *Broker) topicDefaults(snap *metadata.Snapshot) map[string]string {
	return snap.TopicDefaults(*b.defaults.Load(), b.node())
}

// SetTopicDefaults puts static in the place of Options.TopicDefaults, for all topics that do not say otherwise; what is in force is
// in force for their partitions when it returns. validateOnly tells what it would say. On an error nothing has changed.
func (b *Broker) SetTopicDefaults(ctx context.Context, static map[string]string, validateOnly bool) error {
	unlock, err := b.meta.LockTopic(ctx, brokerLock)
	if err != nil {
		return err
	}
	defer unlock()
	snap := b.meta.Snapshot()
	if err := b.fits(snap, b.topicDefaults(snap), snap.TopicDefaults(static, b.node())); err != nil || validateOnly {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	was := b.defaults.Swap(&static)
	if maps.Equal(*was, static) {
		return nil
	}
	if err := b.applyConfigs(ctx, snap.Names()...); err != nil {
		b.defaults.Store(was)
		return errors.Join(err, b.applyConfigs(ctx, snap.Names()...))
	}
	return nil
}

// configsLock orders the handing of configurations to partitions; no topic can have this name.
const configsLock = "/configs"

// applyConfigs hands the current configuration to the partitions of the named topics. Whoever changed something calls it
// after the change: the last call sees every change, so what partitions obey is never older than the catalogue.
// A topic's lock may be held.
func (b *Broker) applyConfigs(ctx context.Context, topics ...string) error {
	unlock, err := b.meta.LockTopic(ctx, configsLock)
	if err != nil {
		return err
	}
	defer unlock()
	snap := b.meta.Snapshot()
	defaults := b.topicDefaults(snap)
	var errs []error
	cfgs := make(map[string]*partition.Config, len(topics))
	for _, name := range topics {
		t, ok := snap.Topic(name)
		if !ok {
			continue // deleted meanwhile
		}
		cfg, err := partitionConfig(t, defaults)
		if err != nil {
			errs = append(errs, fmt.Errorf("topic %s: %w", name, err))
			continue
		}
		cfgs[name] = &cfg
	}
	b.files().configure(cfgs)
	return errors.Join(errs...)
}

// validateTopicConfigs checks everything about configs that a topic is to have.
func (b *Broker) validateTopicConfigs(configs, defaults map[string]string) error {
	if err := metadata.ValidateTopicConfigs(configs, defaults); err != nil {
		return err
	}
	policy, ok := configs["lagoon.tier.policy"]
	if !ok {
		return nil
	}
	var tiers []string
	for _, d := range b.files().dirs() { // hot to cold; a tier may have several directories
		if !slices.Contains(tiers, d.Tier) {
			tiers = append(tiers, d.Tier)
		}
	}
	if _, err := tiering.ParsePolicy(policy, tiers); err != nil {
		return fmt.Errorf("%w: Invalid value for configuration lagoon.tier.policy: %w", metadata.ErrInvalidConfig, err)
	}
	return nil
}

// internalTopic tells the topics that brokers make for themselves.
func internalTopic(name string) bool {
	return name == "__consumer_offsets" || name == "__transaction_state" || name == "__share_group_state"
}

// Operations that a client may be told it is allowed to do, as bits by Kafka's AclOperation codes. Without an authorizer
// everything that the resource knows is allowed, as in Kafka.
const (
	opRead            = 1 << 3
	opWrite           = 1 << 4
	opCreate          = 1 << 5
	opDelete          = 1 << 6
	opAlter           = 1 << 7
	opDescribe        = 1 << 8
	opClusterAction   = 1 << 9
	opDescribeConfigs = 1 << 10
	opAlterConfigs    = 1 << 11
	opIdempotentWrite = 1 << 12

	topicOperations   = opRead | opWrite | opCreate | opDelete | opAlter | opDescribe | opDescribeConfigs | opAlterConfigs
	clusterOperations = opCreate | opAlter | opDescribe | opClusterAction | opDescribeConfigs | opAlterConfigs | opIdempotentWrite
)

// refusal is an answer to a client: a Kafka error and a text that names culprit and remedy.
type refusal struct {
	kind *kerr.Error
	text string
}

func refuse(kind *kerr.Error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

func (r *refusal) Error() string { return r.text }

// Unwrap lets codeOf find the code.
func (r *refusal) Unwrap() error { return r.kind }

// clientText is what a client is told of err, nil for nil: without the name of the package that found it, and bounded,
// as names that hostile clients chose may be in it.
func clientText(err error) *string {
	if err == nil {
		return nil
	}
	text := err.Error()
	if k, ok := err.(*kerr.Error); ok {
		text = k.Description
	}
	for _, sentinel := range []error{metadata.ErrInvalidConfig, metadata.ErrInvalidTopic, metadata.ErrInvalidPartitions, metadata.ErrInvalidName, quotas.ErrInvalid} {
		text = strings.TrimPrefix(text, sentinel.Error()+": ")
	}
	if len(text) > maxClientText {
		text = text[:maxClientText]
	}
	text = strings.ToValidUTF8(text, "?")
	return &text
}

const maxClientText = 1000
