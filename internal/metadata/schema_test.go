package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/metadata"
)

// The topic keys of Kafka 4.3.1 (LogConfig.configDefCopy, internal ones left out).
var kafkaTopicKeys = strings.Fields(`cleanup.policy compression.gzip.level compression.lz4.level compression.type
compression.zstd.level delete.retention.ms file.delete.delay.ms flush.messages flush.ms
follower.replication.throttled.replicas index.interval.bytes leader.replication.throttled.replicas local.retention.bytes
local.retention.ms max.compaction.lag.ms max.message.bytes message.timestamp.after.max.ms message.timestamp.before.max.ms
message.timestamp.type min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate
remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable retention.bytes retention.ms segment.bytes
segment.index.bytes segment.jitter.ms segment.ms unclean.leader.election.enable`)

func TestSchemaIsComplete(t *testing.T) {
	for _, name := range kafkaTopicKeys {
		if _, ok := metadata.TopicConfigs.Find(name); !ok {
			t.Errorf("%s is missing", name)
		}
	}
	for table, keys := range map[string]metadata.Keys{"topic": metadata.TopicConfigs, "broker": metadata.BrokerConfigs, "group": metadata.GroupConfigs} {
		for _, k := range keys {
			if len(k.Doc) < 40 {
				t.Errorf("%s key %s: documentation %q", table, k.Name, k.Doc)
			}
			if err := k.Check(k.Default); err != nil && k.Default != "" {
				t.Errorf("%s key %s: its own default: %v", table, k.Name, err)
			}
			if table == "topic" && !slices.Contains(kafkaTopicKeys, k.Name) && !strings.HasPrefix(k.Name, "lagoon.") {
				t.Errorf("%s is neither Kafka's nor ours", k.Name)
			}
		}
	}
	if k, ok := metadata.BrokerConfigs.Find("log.retention.ms"); !ok || k.Type != metadata.TypeLong {
		t.Error("log.retention.ms is not dynamic")
	}
	if _, ok := metadata.BrokerConfigs.Find("log.preallocate"); ok {
		t.Error("a broker key that does nothing is settable")
	}
}

func TestValidateTopicConfigs(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		fault      string // "" when it passes
	}{
		{"segment.bytes", "1048576", ""},
		{"segment.bytes", "1048575", "at least 1048576"},
		{"segment.bytes", "2147483648", "Not a number of type INT"},
		{"segment.bytes", "1MiB", "Not a number"},
		{"segment.bytes", " 2097152 ", ""},
		{"retention.ms", "-1", ""},
		{"retention.ms", "-2", "at least -1"},
		{"retention.bytes", "-5", ""},
		{"cleanup.policy", "compact", ""},
		{"cleanup.policy", "compact, delete", ""},
		{"cleanup.policy", "", ""},
		{"cleanup.policy", "squash", "must be one of: compact, delete"},
		{"cleanup.policy", "delete,delete", "twice"},
		{"cleanup.policy", "delete,", "empty"},
		{"compression.type", "zstd", ""},
		{"compression.type", "brotli", "must be one of"},
		{"compression.gzip.level", "-1", ""},
		{"compression.gzip.level", "1", ""},
		{"compression.gzip.level", "9", ""},
		{"compression.gzip.level", "0", "between 1 and 9 or equal to -1"},
		{"compression.gzip.level", "10", "between 1 and 9 or equal to -1"},
		{"message.timestamp.type", "createtime", "must be one of"},
		{"min.cleanable.dirty.ratio", "1.5", "no more than 1"},
		{"min.cleanable.dirty.ratio", "NaN", "DOUBLE"},
		{"preallocate", "TRUE", ""},
		{"preallocate", "yes", "true or false"},
		{"leader.replication.throttled.replicas", "*", ""},
		{"leader.replication.throttled.replicas", "0:1,1:1", ""},
		{"leader.replication.throttled.replicas", "0", "partition:broker"},
		{"local.retention.ms", "604800001", "must not exceed retention.ms"},
		{"local.retention.ms", "-1", "must not exceed"},
		{"local.retention.bytes", "-1", ""},
		{"max.compaction.lag.ms", "1", ""},
		{"min.insync.replicas", "0", "at least 1"},
		{"lagoon.delivery.delay.ms", "0", ""},
		{"lagoon.delivery.delay.ms", "5", "needs message.timestamp.type=LogAppendTime"},
		{"lagoon.delivery.delay.ms", "-1", "at least 0"},
		{"lagoon.delivered.ms", "5", "Unknown topic config name"},
		{"lagoon.flush", "interval", ""},
		{"lagoon.flush", "never", "must be one of: sync, interval"},
		{"lagoon.reader.class", "lagging", ""},
		{"retention.mss", "1", "did you mean retention.ms?"},
		{"retntion.ms", "1", "did you mean retention.ms?"},
		{"log.retention.ms", "1", "did you mean retention.ms?"},
		{"message.downconversion.enable", "true", "Unknown topic config name: message.downconversion.enable"},
		{strings.Repeat("x", 5000), "1", "Unknown topic config name"},
	} {
		err := metadata.ValidateTopicConfigs(map[string]string{tc.key: tc.value}, nil)
		switch {
		case tc.fault == "" && err != nil:
			t.Errorf("%s=%s: %v", tc.key, tc.value, err)
		case tc.fault != "" && (err == nil || !errors.Is(err, metadata.ErrInvalidConfig) || !strings.Contains(err.Error(), tc.fault) || len(err.Error()) > 400):
			t.Errorf("%.60s=%s: %v, want %q", tc.key, tc.value, err, tc.fault)
		}
	}
	if err := metadata.ValidateTopicConfigs(map[string]string{"local.retention.ms": "100", "retention.ms": "50"}, nil); err == nil {
		t.Error("local retention above the total one passed")
	}
	delayed := map[string]string{"lagoon.delivery.delay.ms": "60000", "message.timestamp.type": "LogAppendTime"}
	if err := metadata.ValidateTopicConfigs(delayed, nil); err != nil {
		t.Error(err)
	}
	for key, value := range map[string]string{"retention.ms": "60000", "cleanup.policy": "compact,delete", "message.timestamp.type": "CreateTime"} {
		configs := maps.Clone(delayed)
		configs[key] = value
		if err := metadata.ValidateTopicConfigs(configs, nil); err == nil {
			t.Errorf("a delay passed with %s=%s", key, value)
		}
	}
}

func TestEffective(t *testing.T) {
	c, err := metadata.Effective(
		map[string]string{"retention.ms": "5", "cleanup.policy": "compact", "lagoon.flush": "interval", "from.an.older.release": "x"},
		map[string]string{"retention.ms": "6", "segment.bytes": "4096", "retention.bytes": "-9", "lagoon.flush.interval.ms": "250"})
	if err != nil {
		t.Fatal(err)
	}
	if c.RetentionMs != 5 || c.SegmentBytes != 4096 || c.RetentionBytes != -1 || c.Delete || !c.Compact || c.FlushInterval != 250*time.Millisecond ||
		c.MaxMessageBytes != 1048588 || c.LocalRetentionMs != -2 || c.ReaderClass != "auto" || c.LogAppendTime {
		t.Errorf("%+v", c)
	}
	if c, err := metadata.Effective(nil, nil); err != nil || c.FlushInterval != 0 || !c.Delete {
		t.Errorf("built-in: %+v, %v", c, err)
	}
	if _, err := metadata.Effective(map[string]string{"segment.bytes": "many"}, nil); !errors.Is(err, metadata.ErrInvalidConfig) {
		t.Errorf("unreadable value: %v", err)
	}
}

func TestValuesByPrecedence(t *testing.T) {
	snap := &metadata.Snapshot{BrokerConfigs: map[string]map[string]string{"": {"log.retention.ms": "3"}, "1": {"log.retention.ms": "2"}, "2": {"log.retention.ms": "9"}}}
	static := map[string]string{"retention.ms": "4", "segment.bytes": "536870912"}
	k, _ := metadata.TopicConfigs.Find("retention.ms")
	var got []string
	for _, v := range snap.TopicValues(k, map[string]string{"retention.ms": "1"}, static, "1") {
		got = append(got, v.Name+"="+v.Value+"@"+string('0'+rune(v.Source)))
	}
	if want := "retention.ms=1@1 log.retention.ms=2@2 log.retention.ms=3@3 log.retention.ms=4@4 log.retention.ms=604800000@5"; strings.Join(got, " ") != want {
		t.Errorf("%v", got)
	}
	if d := snap.TopicDefaults(static, "1"); d["retention.ms"] != "2" || static["retention.ms"] != "4" {
		t.Errorf("defaults %v of %v", d, static)
	}
	k, _ = metadata.TopicConfigs.Find("segment.bytes")
	if v := snap.TopicValues(k, nil, static, "1"); len(v) != 1 || v[0].Source != metadata.SourceDefault {
		t.Errorf("a server value that is the default: %v", v)
	}
}

func TestGroupCap(t *testing.T) {
	snap := &metadata.Snapshot{GroupConfigs: map[string]map[string]string{
		"a": {metadata.CatchupMaxBytesPerSecond: " 20000", metadata.CatchupWeight: "2.5"}, "b": {metadata.CatchupWeight: "3"}, "c": {metadata.CatchupWeight: "much"},
	}}
	for group, want := range map[string]string{"a": "20000 2.5", "b": "0 3", "c": "0 0", "d": "0 0"} {
		if rate, weight := snap.GroupCap(group); fmt.Sprint(rate, weight) != want {
			t.Errorf("%s: %d %v, want %s", group, rate, weight, want)
		}
	}
}

func TestBrokerValue(t *testing.T) {
	key := metadata.CopyMaxBytesPerSecond
	snap := &metadata.Snapshot{BrokerConfigs: map[string]map[string]string{"": {key: "1"}, "7": {key: "2"}}}
	for node, want := range map[string]string{"7": "2 true", "8": "1 true"} {
		if v, ok := snap.BrokerValue(key, node); fmt.Sprint(v, " ", ok) != want {
			t.Errorf("node %s: %s %v, want %s", node, v, ok, want)
		}
	}
	if v, ok := snap.BrokerValue("log.retention.ms", "7"); ok {
		t.Errorf("a key that is not set: %s", v)
	}
}

func TestTopicNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A-b_c.9": true, "...": true, strings.Repeat("x", 249): true, "__consumer_offsets": true,
		"": false, ".": false, "..": false, "a/b": false, "../a": false, "a\x00": false, "ä": false, "a b": false, "a%2f": false, "a\\b": false,
		strings.Repeat("x", 250): false,
	} {
		if err := metadata.ValidateTopicName(name); (err == nil) != ok || err != nil && !errors.Is(err, metadata.ErrInvalidTopic) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if !metadata.CollisionWith("a.b", "a_b") || metadata.CollisionWith("a.b", "a.b") || metadata.CollisionWith("a.b", "a-b") || metadata.CollisionWith("a", "ab") {
		t.Error("collision")
	}
}

func TestEditDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "xbc", 1}, {"kitten", "sitting", 3}, {"a", "aaaaaaaa", 5}} {
		if got := metadata.EditDistance(tc.a, tc.b, 5); got != tc.want {
			t.Errorf("%s %s: %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestLockTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s metadata.Store
		unlock := must[func()](t)(s.LockTopic(t.Context(), "a"))
		other := must[func()](t)(s.LockTopic(t.Context(), "b"))
		other()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.LockTopic(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("held lock: %v", err)
		}
		order := make(chan int, 2)
		go func() {
			second, err := s.LockTopic(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			order <- 2
			second()
		}()
		synctest.Wait()
		order <- 1
		unlock()
		synctest.Wait()
		if a, b := <-order, <-order; a != 1 || b != 2 {
			t.Fatalf("order %d %d", a, b)
		}
	})
}

// What was seen under a delay stays seen under every later one; the note survives changes of other keys and is nobody's config.
func TestNoteDelivered(t *testing.T) {
	delay := func(ms string) map[string]string { return map[string]string{"lagoon.delivery.delay.ms": ms} }
	delivered := func(configs map[string]string) int64 {
		c, err := metadata.Effective(configs, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.DeliveredMs
	}
	current := map[string]string{}
	for _, step := range []struct {
		wanted map[string]string
		nowMs  int64
		want   int64
	}{
		{map[string]string{"retention.ms": "5"}, 1000, 0},
		{delay("100"), 2000, 2000},        // everything was seen
		{delay("500"), 2050, 2000},        // the last 100 ms were not, those before the first delay were
		{delay("50"), 3000, 2500},         // what was 500 ms old
		{map[string]string{}, 4000, 3950}, // back to none
		{map[string]string{"retention.ms": "5"}, 5000, 3950},
		{delay("9"), 6000, 6000},
	} {
		metadata.NoteDelivered(current, step.wanted, step.nowMs)
		if got := delivered(step.wanted); got != step.want {
			t.Errorf("at %d, %v after %v: delivered to %d, want %d", step.nowMs, step.wanted, current, got, step.want)
		}
		current = step.wanted
	}
	topic := metadata.Topic{Configs: current}
	if own := topic.OwnConfigs(); len(own) != 1 || own["lagoon.delivery.delay.ms"] != "9" || len(current) != 2 {
		t.Errorf("own configs %v of %v", own, current)
	}
}
