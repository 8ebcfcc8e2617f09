package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// toolStep is one call of a Kafka tool. BOOTSTRAP and DIR in arguments stand for the broker's address and folder.
type toolStep struct {
	name   string
	line   string // the tool and its arguments, split at spaces
	stdin  string
	status int
	want   []string // expressions that must match the output, errors included
	never  []string // expressions that must not
}

// adminTools is one story in the order in which an operator would tell it; each step builds on those before.
var adminTools = []toolStep{
	{name: "create", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic orders --partitions 2 --config segment.bytes=1048576 --config retention.ms=-1",
		want: []string{`Created topic orders`}},
	{name: "create again", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic orders", status: 1, want: []string{`Topic 'orders' already exists`}},
	{name: "create with a bad name", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic a/b", status: 1, want: []string{`holds a character other than`}},
	{name: "create with a bad value", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic odd --config segment.bytes=many", status: 1, want: []string{`(?i)invalid value many`}},
	{name: "create with two replicas", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic odd --replication-factor 2", status: 1, want: []string{`(?i)replication factor`}},
	{name: "list", line: "kafka-topics --bootstrap-server BOOTSTRAP --list", want: []string{`(?m)^orders$`}, never: []string{"odd"}},
	{name: "describe", line: "kafka-topics --bootstrap-server BOOTSTRAP --describe --topic orders",
		want: []string{`Topic: orders\s+TopicId: \S{22}\s+PartitionCount: 2\s+ReplicationFactor: 1\s+Configs: .*segment.bytes=1048576`, `Partition: 1\s+Leader: 1\s+Replicas: 1\s+Isr: 1`}},
	{name: "describe an absent one", line: "kafka-topics --bootstrap-server BOOTSTRAP --describe --topic absent", status: 1, want: []string{`does not exist`}},
	{name: "describe what is unhealthy", line: "kafka-topics --bootstrap-server BOOTSTRAP --describe --under-replicated-partitions", never: []string{`Partition: `}},
	{name: "more partitions", line: "kafka-topics --bootstrap-server BOOTSTRAP --alter --topic orders --partitions 3"},
	{name: "fewer partitions", line: "kafka-topics --bootstrap-server BOOTSTRAP --alter --topic orders --partitions 1", status: 1, want: []string{`(?i)partition`}},
	{name: "three now", line: "kafka-topics --bootstrap-server BOOTSTRAP --describe --topic orders", want: []string{`PartitionCount: 3`}},

	{name: "topic configuration", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --alter --add-config lagoon.flush=interval,lagoon.catchup.max.bytes.per.second=1000000,max.message.bytes=2000000",
		want: []string{`Completed updating config for topic orders`}},
	{name: "topic configuration shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --describe",
		want: []string{`lagoon.flush=interval sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG:lagoon.flush=interval, DEFAULT_CONFIG:lagoon.flush=sync\}`,
			`lagoon.catchup.max.bytes.per.second=1000000`, `max.message.bytes=2000000 .*DEFAULT_CONFIG:message.max.bytes=1048588`, `segment.bytes=1048576`}},
	{name: "topic configuration taken back", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --alter --delete-config lagoon.flush,lagoon.catchup.max.bytes.per.second"},
	{name: "the default is back", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --describe --all",
		want: []string{`lagoon.flush=sync `, `cleanup.policy=delete`, `compression.type=producer`}, never: []string{`DYNAMIC_TOPIC_CONFIG:lagoon`}},
	{name: "unknown topic key", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --alter --add-config lagoon.flsh=sync", status: 1,
		want: []string{`InvalidConfigurationException: .*lagoon.flsh`}},
	{name: "bad topic value", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name orders --alter --add-config lagoon.flush=never", status: 1,
		want: []string{`InvalidConfigurationException: .*never`}},
	{name: "broker configuration", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-name 1 --alter --add-config log.retention.ms=86400000"},
	{name: "broker configuration shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-name 1 --describe",
		want: []string{`log.retention.ms=86400000 .*DYNAMIC_BROKER_CONFIG:log.retention.ms=86400000`}},
	{name: "broker default", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-default --alter --add-config log.retention.bytes=5000000000"},
	{name: "whole broker configuration", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-name 1 --describe --all",
		want: []string{`node.id=1`, `log.dirs=\S+/ssd,\S+/hdd`, `DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.bytes=5000000000`}},
	{name: "cap on cold reads and migrations", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-default --alter --add-config remote.log.manager.fetch.max.bytes.per.second=200000000,remote.log.manager.copy.max.bytes.per.second=50000000"},
	{name: "cap on cold reads shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type brokers --entity-default --describe",
		want: []string{`remote.log.manager.fetch.max.bytes.per.second=200000000`, `remote.log.manager.copy.max.bytes.per.second=50000000`}},
	{name: "group configuration", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type groups --entity-name backfill --alter --add-config lagoon.catchup.max.bytes.per.second=2000000",
		want: []string{`Completed updating config for group backfill`}},
	{name: "group configuration shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type groups --entity-name backfill --describe",
		want: []string{`lagoon.catchup.max.bytes.per.second=2000000`}},
	{name: "groups listed", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type groups --describe", want: []string{`(?s)group backfill.*=2000000`}},
	{name: "no such group", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type groups --entity-name nobody --describe", want: []string{`doesn't exist`}},

	{name: "client quota", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --entity-name perf-producer-client --alter --add-config producer_byte_rate=1000000,request_percentage=400",
		want: []string{`Completed updating config for client perf-producer-client`}},
	{name: "default of clients", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --entity-default --alter --add-config request_percentage=150.5"},
	{name: "quota of a user's client", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type users --entity-name ANONYMOUS --entity-type clients --entity-name slow --alter --add-config consumer_byte_rate=500000"},
	{name: "client quotas shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --describe",
		want: []string{`client-id 'perf-producer-client' are .*producer_byte_rate=1000000.0`, `default client-id are request_percentage=150.5`}},
	{name: "user quotas shown", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type users --entity-name ANONYMOUS --entity-type clients --describe",
		want: []string{`user-principal 'ANONYMOUS', client-id 'slow' are consumer_byte_rate=500000.0`}},
	{name: "users without credentials", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type users --describe", never: []string{`(?i)error`, `SCRAM`}},
	{name: "rate of connections", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type ips --entity-name 10.9.8.7 --alter --add-config connection_creation_rate=5"},
	{name: "bad quota", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --entity-name perf-producer-client --alter --add-config producer_byte_rate=0", status: 1, want: []string{`must be greater than 0`}},
	{name: "quota taken back", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --entity-default --alter --delete-config request_percentage"},
	{name: "a throttled producer", line: "kafka-producer-perf-test --bootstrap-server BOOTSTRAP --topic throttled --num-records 120 --record-size 100000 --throughput -1 --print-metrics",
		want: []string{`120 records sent`, `produce-throttle-time-max\S* +: [1-9]`}},
	{name: "producer freed", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type clients --entity-name perf-producer-client --alter --delete-config producer_byte_rate,request_percentage"},

	{name: "performance", line: "kafka-producer-perf-test --bootstrap-server BOOTSTRAP --topic perf --num-records 20000 --record-size 200 --throughput -1 --command-property acks=all --command-property batch.size=16384",
		want: []string{`20000 records sent`}},
	{name: "end of performance", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic perf --time -1", want: []string{`(?m)^perf:0:20000$`}},
	{name: "start by name", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic perf --time earliest", want: []string{`(?m)^perf:0:0$`}},
	{name: "newest record", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic perf --time max-timestamp", want: []string{`(?m)^perf:0:19\d\d\d$`}},
	{name: "offsets of some partitions", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic-partitions orders:0-3", want: []string{`(?m)^orders:0:0\norders:1:0\norders:2:0$`}},

	{name: "versions", line: "kafka-broker-api-versions --bootstrap-server BOOTSTRAP", want: []string{`Produce\(0\): 0 to 13 \[usable: 13\]`, `Fetch\(1\): 4 to 18 \[usable: 18\]`}},
	{name: "features", line: "kafka-features --bootstrap-server BOOTSTRAP describe"},
	// kafka-topics --create knows Kafka's own configs only.
	{name: "topic to delay", line: "kafka-topics --bootstrap-server BOOTSTRAP --create --topic later --config message.timestamp.type=LogAppendTime"},
	{name: "delayed topic", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name later --alter --add-config lagoon.delivery.delay.ms=3600000"},
	{name: "delay without append times", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name perf --alter --add-config lagoon.delivery.delay.ms=2500", status: 1, want: []string{`needs message.timestamp.type=LogAppendTime`}},
	{name: "delayed records", stdin: "one\ntwo\n", line: "kafka-console-producer --bootstrap-server BOOTSTRAP --topic later"},
	{name: "not seen yet", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic later --time -1", want: []string{`(?m)^later:0:0$`}},
	{name: "shorter delay", line: "kafka-configs --bootstrap-server BOOTSTRAP --entity-type topics --entity-name later --alter --add-config lagoon.delivery.delay.ms=1500"},
	{name: "seen when due", line: "kafka-console-consumer --bootstrap-server BOOTSTRAP --topic later --partition 0 --offset 0 --max-messages 2 --timeout-ms 60000", want: []string{`(?m)^one\ntwo$`}},
	{name: "seen", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic later --time -1", want: []string{`(?m)^later:0:2$`}},

	{name: "cluster", line: "kafka-cluster cluster-id --bootstrap-server BOOTSTRAP", want: []string{`Cluster ID: \S{22}\n`}},

	{name: "latency", line: "kafka-e2e-latency --bootstrap-server BOOTSTRAP --topic latency --num-records 100 --producer-acks all --record-size 20", want: []string{`Avg latency: [\d.]+ ms`, `99th = \d+`}},
	{name: "quorum", line: "kafka-metadata-quorum --bootstrap-server BOOTSTRAP describe --status", want: []string{`ClusterId:\s+\S{22}\n`, `LeaderId:\s+1\n`, `MaxFollowerLag:\s+0\n`, `CurrentVoters:\s+\[.*1.*\]`}},
	{name: "replicas of the quorum", line: "kafka-metadata-quorum --bootstrap-server BOOTSTRAP describe --replication", want: []string{`(?m)^1\s.*\s0\s.*Leader`}},
	{name: "feature refused", line: "kafka-features --bootstrap-server BOOTSTRAP upgrade --feature kraft.version=1", status: 1, want: []string{`(?i)invalid update version`}},
	{name: "election", line: "kafka-leader-election --bootstrap-server BOOTSTRAP --election-type preferred --topic perf --partition 0", want: []string{`Valid replica already elected for partitions perf-0`}},
	{name: "election of all", line: "kafka-leader-election --bootstrap-server BOOTSTRAP --election-type unclean --all-topic-partitions"},
	{name: "reassignment to where it is", line: "kafka-reassign-partitions --bootstrap-server BOOTSTRAP --reassignment-json-file DIR/same.json --execute", want: []string{`Successfully started partition reassignment for perf-0`}},
	{name: "reassignment is done", line: "kafka-reassign-partitions --bootstrap-server BOOTSTRAP --reassignment-json-file DIR/same.json --verify", want: []string{`Reassignment of partition perf-0 is completed`}},
	{name: "reassignment to nobody", line: "kafka-reassign-partitions --bootstrap-server BOOTSTRAP --reassignment-json-file DIR/elsewhere.json --execute", status: 1, want: []string{`(?i)unknown broker|no such broker`}},
	{name: "reassignments", line: "kafka-reassign-partitions --bootstrap-server BOOTSTRAP --list", want: []string{`No partition reassignments found`}},
	{name: "acls", line: "kafka-acls --bootstrap-server BOOTSTRAP --list", status: 1, want: []string{`SecurityDisabledException: No Authorizer is configured`}},
	{name: "an acl", line: "kafka-acls --bootstrap-server BOOTSTRAP --add --allow-principal User:ann --operation read --topic perf", status: 1, want: []string{`SecurityDisabledException: No Authorizer is configured`}},

	{name: "records deleted", line: "kafka-delete-records --bootstrap-server BOOTSTRAP --offset-json-file DIR/delete.json", want: []string{`partition: perf-0\s+low_watermark: 12345`}},
	{name: "start moved", line: "kafka-get-offsets --bootstrap-server BOOTSTRAP --topic perf --time -2", want: []string{`(?m)^perf:0:12345$`}},
	{name: "below the start", line: "kafka-console-consumer --bootstrap-server BOOTSTRAP --topic perf --partition 0 --offset earliest --max-messages 1 --timeout-ms 60000 --formatter-property print.offset=true --formatter-property print.value=false",
		want: []string{`(?m)^Offset:12345$`}},

	{name: "delete", line: "kafka-topics --bootstrap-server BOOTSTRAP --delete --topic orders"},
	{name: "gone", line: "kafka-topics --bootstrap-server BOOTSTRAP --list", never: []string{`orders`}, want: []string{`perf`}},
	{name: "delete an absent one", line: "kafka-topics --bootstrap-server BOOTSTRAP --delete --topic orders", status: 1, want: []string{`does not exist`}},
}

// TestKafkaTools: Kafka's own administration; what joins groups is in TestKafkaGroupTools.
// About 8 s.
func TestKafkaTools(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{})
	writeFile(t, filepath.Join(b.Dir(), "delete.json"), `{"partitions":[{"topic":"perf","partition":0,"offset":12345}],"version":1}`)
	writeFile(t, filepath.Join(b.Dir(), "same.json"), `{"version":1,"partitions":[{"topic":"perf","partition":0,"replicas":[1]}]}`)
	writeFile(t, filepath.Join(b.Dir(), "elsewhere.json"), `{"version":1,"partitions":[{"topic":"perf","partition":0,"replicas":[2]}]}`)
	vm := startJVM(t)
	for _, s := range adminTools {
		t.Run(s.name, func(t *testing.T) { s.check(t, vm, b) })
	}
}

func (s toolStep) check(t *testing.T, vm *jvm, b *lagoontest.Broker) {
	t.Helper()
	words := strings.Fields(s.line)
	for i := range words {
		words[i] = strings.NewReplacer("BOOTSTRAP", b.Bootstrap(), "DIR", b.Dir()).Replace(words[i])
	}
	status, stdout, stderr := vm.try(t, s.stdin, words[0], words[1:]...)
	out := stdout + stderr
	if status != s.status {
		t.Errorf("%s: exit status %d, want %d\n%s", s.line, status, s.status, out)
	}
	for _, want := range s.want {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s: nothing matches %q in\n%s", s.line, want, out)
		}
	}
	for _, never := range s.never {
		if regexp.MustCompile(never).MatchString(out) {
			t.Errorf("%s: something matches %q in\n%s", s.line, never, out)
		}
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestToolsAsPrograms runs tools as their scripts do, a JVM each: the console tools, and the one that finishes in a shutdown hook. About 4 s.
func TestToolsAsPrograms(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	program := func(stdin, tool string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(testContext(t), "java", lagoontest.JavaArgs(append([]string{tools[tool]}, args...)...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", tool, args, err)
		}
		return string(out)
	}
	program("k1:one\nk2:two\n", "kafka-console-producer", "--bootstrap-server", b.Bootstrap(), "--topic", "console", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
	out := program("", "kafka-console-consumer", append(consoleArgs(b, "console", 0, 2), "--formatter-property", "print.key=true", "--formatter-property", "key.separator=:")...)
	if out != "k1:one\nk2:two\n" {
		t.Errorf("console consumer read %q", out)
	}
	out = program("", "kafka-verifiable-producer", "--bootstrap-server", b.Bootstrap(), "--topic", "console", "--max-messages", "9", "--acks", "-1")
	if !strings.Contains(out, `"value":"8","offset":10,`) || !strings.Contains(out, `"sent":9,"acked":9`) {
		t.Errorf("verifiable producer says %s", out)
	}
	out = program("", "kafka-verifiable-consumer", "--bootstrap-server", b.Bootstrap(), "--topic", "console", "--group-id", "verified", "--reset-policy", "earliest", "--max-messages", "11")
	if !strings.Contains(out, `"name":"records_consumed"`) || !strings.Contains(out, `"name":"offsets_committed"`) || !strings.Contains(out, `"offset":11`) {
		t.Errorf("verifiable consumer says %s", out)
	}
}

// TestToolsAndTiers: what the tools say of segments that lie in two tiers, and do to them.
func TestToolsAndTiers(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"tiering.interval=100ms"}})
	vm := startJVM(t)
	t.Run("seen", func(t *testing.T) { seeTiers(t, b, vm) })
	t.Run("pinned", func(t *testing.T) { pinToTiers(t, b, vm) })
}

// seeTiers: a topic whose sealed segments move to the cold tier, through the eyes of kafka-get-offsets and kafka-log-dirs.
func seeTiers(t *testing.T, b *lagoontest.Broker, vm *jvm) {
	lagoontest.CreateTopic(t, b, "tiered", 1, "segment.bytes", "1048576", "local.retention.bytes", "1", "retention.ms", "-1", "lagoon.flush", "interval")
	lagoontest.CreateTopic(t, b, "small", 1)
	vm.run(t, "", "kafka-producer-perf-test", "--bootstrap-server", b.Bootstrap(), "--topic", "tiered", "--num-records", "2500", "--record-size", "1000", "--throughput", "-1")
	offset := func(spec string) (n int64, ok bool) {
		t.Helper()
		out := vm.run(t, "", "kafka-get-offsets", "--bootstrap-server", b.Bootstrap(), "--topic", "tiered", "--time", spec)
		_, err := fmt.Sscanf(out, "tiered:0:%d", &n)
		return n, err == nil
	}
	type dirs struct {
		Brokers []struct {
			LogDirs []struct {
				LogDir     string
				Partitions []struct {
					Partition string
					Size      int64
				}
			}
		}
	}
	sizes := func() (bytes map[string]int64) {
		t.Helper()
		out := vm.run(t, "", "kafka-log-dirs", "--bootstrap-server", b.Bootstrap(), "--describe", "--topic-list", "tiered,small")
		var d dirs
		if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &d); err != nil || len(d.Brokers) != 1 {
			t.Fatalf("kafka-log-dirs: %v in %s", err, out)
		}
		bytes = map[string]int64{}
		for _, dir := range d.Brokers[0].LogDirs {
			for _, p := range dir.Partitions {
				bytes[filepath.Base(dir.LogDir)+" "+p.Partition] = p.Size
			}
		}
		return bytes
	}
	// Two segments are sealed and go to the cold tier, the active one stays.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		if got := sizes(); got["hdd tiered-0"] > 2_000_000 {
			if _, ok := got["ssd small-0"]; !ok || got["ssd tiered-0"] == 0 {
				t.Errorf("log directories: %v", got)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no segment moved: %v", sizes())
		}
	}
	local, ok := offset("-4")
	if tiered, found := offset("-5"); !ok || !found || local < 1800 || local > 2400 || tiered != local-1 {
		t.Errorf("earliest local %d (%v), latest tiered %d (%v): want neighbours around 2100", local, ok, tiered, found)
	}
	if earliest, ok := offset("-2"); !ok || earliest != 0 {
		t.Errorf("earliest %d", earliest)
	}
	if end, ok := offset("-1"); !ok || end != 2500 {
		t.Errorf("end %d", end)
	}
	out := vm.run(t, "", "kafka-console-consumer", append(consoleArgs(b, "tiered", 0, 2500), "--formatter-property", "print.offset=true", "--formatter-property", "print.value=false")...)
	if n := strings.Count(out, "Offset:"); n != 2500 || !strings.HasSuffix(out, "Offset:2499\n") {
		t.Errorf("read %d records across the tiers", n)
	}
}

// pinToTiers: kafka-reassign-partitions moves a partition's sealed segments to the cold tier and back, and sees when it is done;
// a pin outlives a kill.
func pinToTiers(t *testing.T, b *lagoontest.Broker, vm *jvm) {
	lagoontest.CreateTopic(t, b, "pinned", 1, "segment.bytes", "1048576", "retention.ms", "-1", "lagoon.flush", "interval")
	vm.run(t, "", "kafka-producer-perf-test", "--bootstrap-server", b.Bootstrap(), "--topic", "pinned", "--num-records", "2500", "--record-size", "1000", "--throughput", "-1")
	reassign := func(dir, verb string) (status int, out string) {
		t.Helper()
		file := filepath.Join(b.Dir(), "reassign.json")
		writeFile(t, file, fmt.Sprintf(`{"version":1,"partitions":[{"topic":"pinned","partition":0,"replicas":[1],"log_dirs":[%q]}]}`, dir))
		status, stdout, stderr := vm.try(t, "", "kafka-reassign-partitions", "--bootstrap-server", b.Bootstrap(), "--reassignment-json-file", file, verb)
		return status, stdout + stderr
	}
	move := func(dir string) {
		t.Helper()
		if status, out := reassign(dir, "--execute"); status != 0 || !strings.Contains(out, "Successfully started moving log directory to "+dir+" for replica pinned-0 with broker 1") {
			t.Fatalf("--execute to %s: status %d\n%s", dir, status, out)
		}
	}
	done, moving := regexp.MustCompile(`(?m)^Reassignment of replica pinned-0\S* completed successfully`), regexp.MustCompile(`(?m)^Reassignment of replica pinned-0\S* is still in progress`)
	arrived := func(dir string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for {
			status, out := reassign(dir, "--verify")
			if status == 0 && done.MatchString(out) {
				return
			}
			if ctx.Err() != nil || !moving.MatchString(out) {
				t.Fatalf("--verify of %s: status %d\n%s", dir, status, out)
			}
		}
	}
	pins := func(args ...string) string {
		t.Helper()
		out, err := b.CLI(append(args, "--admin", b.Admin())...)
		if err != nil {
			t.Fatalf("lagoon %v: %v\n%s", args, err, out)
		}
		return out
	}
	hdd, ssd := b.TierPath("hdd"), b.TierPath("ssd")
	move(hdd)
	arrived(hdd)
	if out := pins("pins"); !regexp.MustCompile(`(?m)^pinned/0 +hdd +in_place `).MatchString(out) {
		t.Errorf("pins:\n%s", out)
	}
	if n := len(logFiles(t, hdd)); n < 2 {
		t.Errorf("%d segments in hdd", n)
	}
	move(ssd)
	b.Kill()
	b.Restart()
	arrived(ssd)
	if n := len(logFiles(t, hdd)); n != 0 {
		t.Errorf("%d segments left in hdd", n)
	}
	if status, out := reassign("/no/such/directory", "--execute"); status == 0 || !strings.Contains(out, "LogDirNotFoundException") {
		t.Errorf("--execute to nowhere: status %d\n%s", status, out)
	}
	out := vm.run(t, "", "kafka-console-consumer", append(consoleArgs(b, "pinned", 0, 2500), "--formatter-property", "print.offset=true", "--formatter-property", "print.value=false")...)
	if n := strings.Count(out, "Offset:"); n != 2500 || !strings.HasSuffix(out, "Offset:2499\n") {
		t.Errorf("read %d records", n)
	}
	if out := pins("unpin", "pinned/0"); !strings.HasPrefix(out, "unpinned pinned/0 from ssd; by policy its sealed segments lie as ") {
		t.Errorf("unpin: %s", out)
	}
	if out := pins("pins"); !strings.HasPrefix(out, "no partition is pinned") {
		t.Errorf("pins afterwards: %s", out)
	}
}

func logFiles(t *testing.T, tier string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(tier, "pinned-0", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}
