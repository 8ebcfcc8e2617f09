package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// bulk writes count records of about size bytes in batches of a hundred; every value names its offset.
func bulk(t *testing.T, b lagoontest.Cluster, topic string, count, size int, opts ...kgo.Opt) {
	t.Helper()
	cl := lagoontest.Client(t, b, append([]kgo.Opt{kgo.DefaultProduceTopic(topic)}, opts...)...)
	defer cl.Close()
	for at := 0; at < count; at += 100 {
		var rs []*kgo.Record
		for i := at; i < min(at+100, count); i++ {
			value := fmt.Sprintf("%d:%s", i, strings.Repeat(strconv.Itoa(i*7919), size))[:size]
			rs = append(rs, &kgo.Record{Key: []byte(strconv.Itoa(i % 13)), Value: []byte(value), Timestamp: time.UnixMilli(firstMs + int64(i))})
		}
		if err := cl.ProduceSync(testContext(t), rs...).FirstErr(); err != nil {
			t.Fatalf("bulk to %s: %v", topic, err)
		}
	}
}

// dumped is what DumpLogSegments said of the files of one partition directory.
type dumped struct {
	batches, records, indexEntries, timeIndexEntries, snapshots int
	producers                                                   map[string]int // producer id → entries in snapshots
	faults                                                      []string
}

var (
	dumpBatch   = regexp.MustCompile(`(?m)^baseOffset: \d+ lastOffset: \d+ count: (\d+).* isvalid: (\w+)`)
	dumpRecord  = regexp.MustCompile(`(?m)^\| offset: \d+ `)
	indexEntry  = regexp.MustCompile(`(?m)^offset: \d+ position: \d+`)
	timeEntry   = regexp.MustCompile(`(?m)^timestamp: \d+ offset: \d+`)
	producerRow = regexp.MustCompile(`(?m)^producerId: (\d+) producerEpoch: \d+ .*firstSequence: \d+ lastSequence: \d+`)
)

// dump runs DumpLogSegments over every file of a partition directory, with every check that it has; any fault fails the test.
func dump(t *testing.T, vm *jvm, dir string) dumped {
	t.Helper()
	d := tryDump(t, vm, dir, false)
	d.report(t, dir)
	return d
}

func (d dumped) report(t *testing.T, what string) {
	t.Helper()
	for _, fault := range d.faults {
		t.Errorf("%s: %.2000s", what, fault)
	}
}

// tryDump leaves the faults to the caller.
func tryDump(t *testing.T, vm *jvm, dir string, compacted bool) dumped {
	t.Helper()
	d := dumped{producers: map[string]int{}}
	run := func(files []string, args ...string) string {
		t.Helper()
		status, out, stderr := vm.try(t, "", "kafka-dump-log", append(args, "--files", strings.Join(files, ","))...)
		if status != 0 {
			d.faults = append(d.faults, fmt.Sprintf("%v: exit status %d\n%s", args, status, stderr))
		}
		if fault := lagoontest.DumpFault(out, compacted); fault != "" {
			d.faults = append(d.faults, fmt.Sprintf("%v: %s", args, fault))
		}
		return out
	}
	logs, indexes, snapshots := glob(t, dir, "*.log"), append(glob(t, dir, "*.index"), glob(t, dir, "*.timeindex")...), glob(t, dir, "*.snapshot")
	if len(logs) == 0 || len(indexes) != 2*len(logs) {
		t.Fatalf("%s holds %d logs and %d index files", dir, len(logs), len(indexes))
	}
	out := run(logs, "--deep-iteration")
	for _, m := range dumpBatch.FindAllStringSubmatch(out, -1) {
		d.batches++
		if m[2] != "true" {
			d.faults = append(d.faults, m[0])
		}
	}
	d.records = len(dumpRecord.FindAllString(out, -1))
	// An index without an entry is right for a log of one batch; the callers count entries where there must be some.
	if out = run(indexes, "--index-sanity-check"); strings.Count(out, "passed sanity check")+strings.Count(out, " is empty.") != len(indexes) {
		d.faults = append(d.faults, "sanity check says\n"+out)
	}
	run(indexes, "--verify-index-only")
	out = run(indexes)
	d.indexEntries, d.timeIndexEntries = len(indexEntry.FindAllString(out, -1)), len(timeEntry.FindAllString(out, -1))
	if d.snapshots = len(snapshots); d.snapshots > 0 {
		for _, m := range producerRow.FindAllStringSubmatch(run(snapshots), -1) {
			d.producers[m[1]]++
		}
	}
	return d
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestDumpLogSegments: after a clean stop Kafka's own tool reads every file of every partition and finds no fault; also what has moved
// to the cold tier, and also after a kill and the recovery that followed. About 6 s.
func TestDumpLogSegments(t *testing.T) {
	lagoontest.Require(t, "kafka")
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"tiering.interval=100ms"}})
	const records = 29
	for _, codec := range codecs {
		topic := "dump-" + codec
		lagoontest.CreateTopic(t, b, topic, 1, "retention.ms", "-1")
		want, _ := franz{}.dataset(records)
		franz{}.produce(t, b, []job{{Topic: topic, Codec: codec, Records: want}})
	}
	// Many segments: two producers with ids, one without; the older segments go to the cold tier.
	const big, size = 3000, 1000
	lagoontest.CreateTopic(t, b, "rolled", 1, "segment.bytes", "1048576", "retention.ms", "-1")
	lagoontest.CreateTopic(t, b, "moved", 1, "segment.bytes", "1048576", "retention.ms", "-1", "local.retention.bytes", "1")
	for _, topic := range []string{"rolled", "moved"} {
		bulk(t, b, topic, big/3, size, kgo.ProducerBatchCompression(kgo.NoCompression()))
		bulk(t, b, topic, big/3, size, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite())
		bulk(t, b, topic, big/3, size, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	waitFor(t, "segments in the cold tier", func() bool { return len(glob(t, filepath.Join(b.TierPath("hdd"), "moved-0"), "*.log")) >= 2 })
	lagoontest.CreateTopic(t, b, "compacted", 1, "segment.bytes", "1048576", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01")
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		bulk(t, b, "compacted", big/3, size, kgo.ProducerBatchCompression(codec))
		bulk(t, b, "compacted", big/3, size, kgo.ProducerBatchCompression(kgo.NoCompression())) // segments fill up
	}
	waitFor(t, "compaction", func() bool {
		var c struct {
			Due        int
			State      string
			Partitions []struct {
				CleanedTo int64 `json:"cleaned_to"`
			}
		}
		b.Get("/api/v1/compactions", &c)
		return c.Due == 0 && c.State == "idle" && c.Partitions[0].CleanedTo > big
	})
	b.Stop()

	vm := startJVM(t)
	check := func(when string) {
		t.Helper()
		for _, codec := range codecs {
			d := dump(t, vm, filepath.Join(b.TierPath("ssd"), "dump-"+codec+"-0"))
			if d.records != records || d.batches == 0 || d.snapshots == 0 || len(d.producers) != 1 {
				t.Errorf("%s, %s: %+v, want %d records and one producer", when, codec, d, records)
			}
		}
		hot := dump(t, vm, filepath.Join(b.TierPath("ssd"), "rolled-0"))
		if hot.records != big || hot.batches != big/100 || hot.indexEntries < big*size/100_000/2 || hot.timeIndexEntries < 3 || len(hot.producers) != 2 {
			t.Errorf("%s, rolled: %+v", when, hot)
		}
		cold, rest := dump(t, vm, filepath.Join(b.TierPath("hdd"), "moved-0")), dump(t, vm, filepath.Join(b.TierPath("ssd"), "moved-0"))
		if cold.records+rest.records != big || cold.records < 2*big/4 || len(rest.producers) != 2 {
			t.Errorf("%s, moved: %+v and %+v", when, cold, rest)
		}
		compacted := tryDump(t, vm, filepath.Join(b.TierPath("ssd"), "compacted-0"), true)
		compacted.report(t, when+", compacted")
		if compacted.records == 0 || compacted.records > big || compacted.batches == 0 {
			t.Errorf("%s, compacted: %d batches, %d records", when, compacted.batches, compacted.records)
		}
	}
	check("after a clean stop")
	b.Restart()
	b.Kill()
	b.Restart()
	b.Stop()
	check("after a kill, recovery and a clean stop")

	// The checks can fail: one byte in a batch, and one in the position of an index entry.
	for _, damage := range []struct {
		pattern string
		at      int64
	}{{"*.log", 500}, {"*.index", 8 + 6}} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(b.TierPath("ssd"), "rolled-0"))); err != nil {
			t.Fatal(err)
		}
		flip(t, glob(t, dir, damage.pattern)[0], damage.at)
		if d := tryDump(t, vm, dir, false); len(d.faults) == 0 {
			t.Errorf("a flipped byte in a %s is not found", damage.pattern)
		}
	}
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	all, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	all[at] ^= 0xff
	writeFile(t, name, string(all))
}

// waitFor asks until the answer is yes.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !lagoontest.Poll(3*time.Minute, ok) {
		t.Fatalf("waited three minutes for %s", what)
	}
}
