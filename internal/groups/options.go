package groups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/segment"
)

// Topic is the internal topic that groups and offsets are kept in.
const Topic = "__consumer_offsets"

// Log is one partition of Topic; a partition.Log is one.
type Log interface {
	statetopic.Log
	// Synced is Durable whatever the topic's flush setting.
	Synced(ctx context.Context, next segment.Offset) error
	GuardTxn(producerID int64, epoch int16) (guard partition.TxnGuard, open bool)
	DropGuard(producerID int64, guard partition.TxnGuard)
}

// Topics are the topics of the broker at one time, for groups of the consumer protocol. Immutable.
type Topics interface {
	consumer.Topics
	// Names are all topics, for regular expressions.
	Names() []string
}

// Options configure a Coordinator. Zero values stand for the defaults named at each field.
type Options struct {
	Classic  classic.Config  // MaxSize 0: no limit; MaxSession 0: 30 min; MinSession 0: 6 s
	Consumer consumer.Config // MaxSize 0: no limit
	// Settings are those of one group of the consumer protocol. Nil: DefaultSettings.
	Settings func(group string) consumer.Settings
	// Topics are those of the broker as they are now. Required.
	Topics func() Topics
	// Retention is how long offsets outlive the group's last member, or their commit where there was none; 0: 7 days
	// (offsets.retention.minutes). CheckInterval 0: 10 min (offsets.retention.check.interval.ms).
	Retention     time.Duration
	CheckInterval time.Duration
	MaxMetadata   int           // bytes a client may attach to one offset, 0: 4096 (offset.metadata.max.bytes)
	CommitTimeout time.Duration // how long a commit waits for its durability; 0: 5 s (offsets.commit.timeout.ms)
	// MaxBytes bounds the memory of all groups: new members and offsets are refused above it, and above twice as much what makes those longer that are
	// there. 0: 256 MiB.
	MaxBytes int64

	Log func(partition int32) (Log, bool) // required
	// Exists tells whether a partition of a topic exists: offsets of others are refused, and dropped when they are loaded. Required.
	Exists     func(topic string, partition int32) bool
	Logger     *slog.Logger // required
	Registerer prometheus.Registerer
}

// DefaultSettings are Kafka's: sessions of 45 s, heartbeats every 5 s.
func DefaultSettings(string) consumer.Settings {
	return consumer.Settings{Session: 45 * time.Second, Heartbeat: 5 * time.Second}
}

func (o Options) withDefaults() Options {
	o.Classic.MaxSize = cmp.Or(o.Classic.MaxSize, 1<<31-1)
	o.Consumer.MaxSize = cmp.Or(o.Consumer.MaxSize, 1<<31-1)
	if o.Settings == nil {
		o.Settings = DefaultSettings
	}
	o.Classic.MinSession = cmp.Or(o.Classic.MinSession, 6*time.Second)
	o.Classic.MaxSession = cmp.Or(o.Classic.MaxSession, 30*time.Minute)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.CheckInterval = cmp.Or(o.CheckInterval, 10*time.Minute)
	o.MaxMetadata = cmp.Or(o.MaxMetadata, 4096)
	o.CommitTimeout = cmp.Or(o.CommitTimeout, 5*time.Second)
	o.MaxBytes = cmp.Or(o.MaxBytes, 256<<20)
	return o
}

// Validate names every fault at once.
func (o Options) Validate() error {
	var faults []error
	need := func(ok bool, what string) {
		if !ok {
			faults = append(faults, fmt.Errorf("groups options: %s", what))
		}
	}
	need(o.Log != nil && o.Exists != nil && o.Topics != nil && o.Logger != nil, "Log, Exists, Topics and Logger are required")
	need(o.Classic.MaxSize > 0 && o.Consumer.MaxSize > 0, "MaxSize must be positive")
	need(o.Classic.MinSession > 0 && o.Classic.MaxSession >= o.Classic.MinSession, "MinSession must be positive and not above MaxSession")
	need(o.Classic.InitialDelay >= 0, "InitialDelay is negative")
	need(o.Retention > 0 && o.CheckInterval > 0 && o.CommitTimeout > 0, "times must be positive")
	need(o.MaxMetadata > 0 && o.MaxMetadata < 1<<15, "MaxMetadata must be between 1 and 32767")
	need(o.MaxBytes > 0, "MaxBytes must be positive")
	return errors.Join(faults...)
}
