package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"lagoon/internal/quotas"
)

// TopicConfig is what a topic's configuration comes to, in typed form. Times in ms, -1 is no limit.
type TopicConfig struct {
	SegmentBytes        int32
	SegmentMs           int64
	SegmentIndexBytes   int32
	IndexIntervalBytes  int32
	RetentionMs         int64
	RetentionBytes      int64
	LocalRetentionMs    int64 // -2: as RetentionMs
	LocalRetentionBytes int64 // -2: as RetentionBytes
	// Delete and Compact are the elements of cleanup.policy. A topic is deleted from only when Delete is set.
	Delete, Compact       bool
	MaxMessageBytes       int32
	LogAppendTime         bool
	TimestampBeforeMaxMs  int64
	TimestampAfterMaxMs   int64
	FileDeleteDelayMs     int64
	FlushInterval         time.Duration // 0: lagoon.flush=sync
	TierPolicy            string        // "": the server's
	ReaderClass           string        // auto, realtime, lagging
	CatchupMaxBytesPerSec int64         // 0: no cap
	MinCleanableRatio     float64
	MinCompactionLagMs    int64
	MaxCompactionLagMs    int64
	DeleteRetentionMs     int64
	DeliveryDelayMs       int64 // 0: records are seen at once
	DeliveredMs           int64 // Unix time: what was appended up to then has been seen whatever the delay is now
}

// Effective resolves every key: the topic's own value, else the server's, else the built-in one. Unknown keys in either
// map are passed over (an older release may have kept them). A value of the wrong type is an error that wraps
// ErrInvalidConfig; ranges are not checked again, so that a server may have defaults that topics may not choose.
func Effective(topic, defaults map[string]string) (TopicConfig, error) {
	r := resolver{topic: topic, defaults: defaults}
	c := TopicConfig{
		SegmentBytes:          r.int32("segment.bytes"),
		SegmentMs:             r.int64("segment.ms"),
		SegmentIndexBytes:     r.int32("segment.index.bytes"),
		IndexIntervalBytes:    r.int32("index.interval.bytes"),
		RetentionMs:           max(r.int64("retention.ms"), -1),
		RetentionBytes:        max(r.int64("retention.bytes"), -1),
		LocalRetentionMs:      r.int64("local.retention.ms"),
		LocalRetentionBytes:   r.int64("local.retention.bytes"),
		MaxMessageBytes:       r.int32("max.message.bytes"),
		LogAppendTime:         r.text("message.timestamp.type") == "LogAppendTime",
		TimestampBeforeMaxMs:  r.int64("message.timestamp.before.max.ms"),
		TimestampAfterMaxMs:   r.int64("message.timestamp.after.max.ms"),
		FileDeleteDelayMs:     r.int64("file.delete.delay.ms"),
		TierPolicy:            r.text("lagoon.tier.policy"),
		ReaderClass:           r.text("lagoon.reader.class"),
		CatchupMaxBytesPerSec: r.int64(CatchupMaxBytesPerSecond),
		MinCleanableRatio:     r.float64("min.cleanable.dirty.ratio"),
		MinCompactionLagMs:    r.int64("min.compaction.lag.ms"),
		MaxCompactionLagMs:    r.int64("max.compaction.lag.ms"),
		DeleteRetentionMs:     r.int64("delete.retention.ms"),
		DeliveryDelayMs:       r.int64(DeliveryDelayMs),
	}
	c.DeliveredMs, _ = strconv.ParseInt(topic[deliveredMs], 10, 64)
	policy := splitList(r.text("cleanup.policy"))
	c.Delete, c.Compact = slices.Contains(policy, "delete"), slices.Contains(policy, "compact")
	if interval := r.int64("lagoon.flush.interval.ms"); r.text("lagoon.flush") == "interval" {
		c.FlushInterval = time.Duration(interval) * time.Millisecond
	}
	return c, r.err
}

type resolver struct {
	topic, defaults map[string]string
	err             error
}

func (r *resolver) text(name string) string {
	if v, ok := r.topic[name]; ok {
		return strings.TrimSpace(v)
	}
	if v, ok := r.defaults[name]; ok {
		return strings.TrimSpace(v)
	}
	k, ok := TopicConfigs.Find(name)
	if !ok {
		panic("metadata: no topic config " + name)
	}
	return k.Default
}

func (r *resolver) int64(name string) int64 { return r.number(name, 64) }
func (r *resolver) int32(name string) int32 { return int32(r.number(name, 32)) }

func (r *resolver) float64(name string) float64 {
	text := r.text(name)
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%w: %s is %q, not a number", ErrInvalidConfig, name, clip(text))
	}
	return f
}

func (r *resolver) number(name string, bits int) int64 {
	text := r.text(name)
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%w: %s is %q, not a whole number of %d bits", ErrInvalidConfig, name, clip(text), bits)
	}
	return n
}

// Source says where a value comes from, with DescribeConfigs' numbers.
type Source int8

// Sources in order of precedence, then that of group configs.
const (
	SourceTopic         Source = 1
	SourceBroker        Source = 2 // dynamic, for this node
	SourceClusterBroker Source = 3 // dynamic, for all nodes
	SourceStatic        Source = 4
	SourceDefault       Source = 5
	SourceGroup         Source = 8
)

// Value is one setting of a key at one place.
type Value struct {
	Name   string // the key as it is called there
	Value  string
	Source Source
}

// TopicValues lists every place that sets a topic key, the one that counts first; the built-in default is always last.
// static are the server's defaults by topic key; node is the broker's id.
func (s *Snapshot) TopicValues(k *ConfigKey, topic, static map[string]string, node string) []Value {
	var out []Value
	if v, ok := topic[k.Name]; ok {
		out = append(out, Value{k.Name, v, SourceTopic})
	}
	out = append(out, s.dynamicValues(k.Server, node)...)
	name := k.Name
	if k.Server != "" {
		name = k.Server
	}
	if v, ok := static[k.Name]; ok && v != k.Default {
		out = append(out, Value{name, v, SourceStatic})
	}
	return append(out, Value{name, k.Default, SourceDefault})
}

// BrokerValues is TopicValues for a dynamic broker key.
func (s *Snapshot) BrokerValues(k *ConfigKey, static map[string]string, node string) []Value {
	out := s.dynamicValues(k.Name, node)
	for _, t := range TopicConfigs {
		if v, ok := static[t.Name]; ok && t.Server == k.Name && v != k.Default {
			out = append(out, Value{k.Name, v, SourceStatic})
		}
	}
	return append(out, Value{k.Name, k.Default, SourceDefault})
}

func (s *Snapshot) dynamicValues(brokerKey, node string) (out []Value) {
	if brokerKey == "" {
		return nil
	}
	if v, ok := s.BrokerConfigs[node][brokerKey]; ok && node != "" {
		out = append(out, Value{brokerKey, v, SourceBroker})
	}
	if v, ok := s.BrokerConfigs[""][brokerKey]; ok {
		out = append(out, Value{brokerKey, v, SourceClusterBroker})
	}
	return out
}

// TopicDefaults is the server's view of topic keys: static, with the dynamic broker configs laid over it.
// The map is the caller's.
func (s *Snapshot) TopicDefaults(static map[string]string, node string) map[string]string {
	out := cloneConfigs(static)
	for _, k := range TopicConfigs {
		if v := s.dynamicValues(k.Server, node); len(v) > 0 {
			out[k.Name] = v[0].Value
		}
	}
	return out
}

// BrokerValue is the dynamic broker config that holds for a node, and whether one is set.
func (s *Snapshot) BrokerValue(key, node string) (string, bool) {
	if v := s.dynamicValues(key, node); len(v) > 0 {
		return strings.TrimSpace(v[0].Value), true
	}
	return "", false
}

// Names of the group and topic configs that bound catch-up reads.
const (
	CatchupMaxBytesPerSecond = "lagoon.catchup.max.bytes.per.second"
	CatchupWeight            = "lagoon.catchup.weight"
)

// Names of the group configs of the consumer protocol (KIP-848).
const (
	ConsumerSessionTimeout    = "consumer.session.timeout.ms"
	ConsumerHeartbeatInterval = "consumer.heartbeat.interval.ms"
)

// DeliveryDelayMs is the topic config that has records seen late. deliveredMs is kept beside it, by NoteDelivered alone: it is no
// config, and not shown.
const (
	DeliveryDelayMs = "lagoon.delivery.delay.ms"
	deliveredMs     = "lagoon.delivered.ms"
)

// OwnConfigs is what was set on the topic by somebody: Configs without what the broker keeps beside them. The map is the caller's.
func (t *Topic) OwnConfigs() map[string]string {
	own := cloneConfigs(t.Configs)
	delete(own, deliveredMs)
	return own
}

// NoteDelivered carries over from a topic's configs to those that follow them at nowMs what has been seen already, so that a longer
// delay takes nothing back after a restart either. Call it on validated configs, before they are stored; wanted is changed.
func NoteDelivered(current, wanted map[string]string, nowMs int64) {
	was, _ := strconv.ParseInt(strings.TrimSpace(current[DeliveryDelayMs]), 10, 64)
	will, _ := strconv.ParseInt(strings.TrimSpace(wanted[DeliveryDelayMs]), 10, 64)
	seen, _ := strconv.ParseInt(current[deliveredMs], 10, 64)
	if was != will {
		seen = max(seen, nowMs-was)
	}
	if delete(wanted, deliveredMs); seen > 0 {
		wanted[deliveredMs] = itoa(seen)
	}
}

// Names of the dynamic broker configs that bound all cold reads and all migrations (KIP-956).
const (
	FetchMaxBytesPerSecond = "remote.log.manager.fetch.max.bytes.per.second"
	CopyMaxBytesPerSecond  = "remote.log.manager.copy.max.bytes.per.second"
)

// GroupCap is the cap and the weight (around 1) that a group's configs set; 0 where they set none.
func (s *Snapshot) GroupCap(group string) (bytesPerSecond int64, weight float64) {
	configs := s.GroupConfigs[group]
	bytesPerSecond, _ = strconv.ParseInt(strings.TrimSpace(configs[CatchupMaxBytesPerSecond]), 10, 64)
	weight, _ = strconv.ParseFloat(strings.TrimSpace(configs[CatchupWeight]), 64)
	return max(bytesPerSecond, 0), max(weight, 0)
}

// ClientCap is the cold_fetch_byte_rate of a client id in bytes per second, or with the default part that of clients without one; 0
// for none.
func (s *Snapshot) ClientCap(client quotas.Part) int64 {
	return int64(s.Quotas[quotas.Entity{ClientID: client}][quotas.ColdFetchByteRate.String()])
}

func sortedNames(configs map[string]string) []string { return slices.Sorted(maps.Keys(configs)) }
