package segment_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// kafkaLibs is the directory of Kafka's jars; tests against Kafka's own code are skipped without it or without java.
func kafkaLibs(t *testing.T) string {
	libs := os.Getenv("LAGOON_KAFKA_LIBS")
	if libs == "" {
		skip(t, "LAGOON_KAFKA_LIBS is not set")
	}
	if jars, _ := filepath.Glob(filepath.Join(libs, "kafka-storage-*.jar")); len(jars) == 0 {
		t.Fatalf("LAGOON_KAFKA_LIBS=%s holds no Kafka jars", libs)
	}
	if _, err := exec.LookPath("java"); err != nil {
		skip(t, "no java")
	}
	return libs
}

// skip leaves a test out where its means are missing, and fails it where everything is required.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func java(t *testing.T, libs string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "java", append([]string{"-XX:+UseSerialGC", "-Xmx256m", "-cp", libs + "/*"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("java %v: %v\n%s", args, err, out)
	}
	return string(out)
}

const dumpLogSegments = "org.apache.kafka.tools.DumpLogSegments"

// writeSample writes two segments, a snapshot and the checkpoints to a real directory.
func writeSample(t *testing.T, root string) (vfs.FS, []segment.Meta) {
	t.Helper()
	fs := must[vfs.FS](t)(vfs.OS(root))
	check(t, fs.MkdirAll(dir))
	ps := segment.NewProducerState(segment.ProducerOptions{})
	cache := newCache()
	var metas []segment.Meta
	base := segment.Offset(100)
	seq := int32(0)
	for range 2 {
		w := must[*segment.Writer](t)(segment.Create(fs, dir, base, segment.Options{}, cache))
		for i := range 200 {
			spec := batchSpec{records: 1 + i%5, valueSize: 50 + 37*(i%11), ms: 1_700_000_000_000 + int64(i*7919%1000), fill: byte(i)}
			if i%3 == 0 {
				spec.pid, spec.epoch, spec.seq = 4000, 2, seq
				seq += int32(spec.records)
			}
			b, _ := appendBatch(t, w, spec)
			h := decode(t, b)
			ps.Update(h, h.BaseOffset, 1_700_000_000_000)
		}
		meta := must[segment.Meta](t)(w.Seal())
		metas = append(metas, meta)
		base = meta.Next
		w.Reader().Retire(nil)
	}
	check(t, ps.Save(fs, dir, base))
	return fs, metas
}

func TestKafkaDumpsOurFilesWithoutFault(t *testing.T) {
	libs := kafkaLibs(t)
	root := t.TempDir()
	_, metas := writeSample(t, root)
	for _, meta := range metas {
		name := func(f func(segment.Offset) string) string { return filepath.Join(root, dir, f(meta.Base)) }
		out := java(t, libs, dumpLogSegments, "--deep-iteration", "--print-data-log", "--files", name(segment.LogName))
		if strings.Contains(out, "isvalid: false") || !strings.Contains(out, "isvalid: true") {
			t.Errorf("log of %d:\n%.2000s", meta.Base, out)
		}
		if want := fmt.Sprintf("lastOffset: %d count", meta.Next-1); !strings.Contains(out, want) {
			t.Errorf("log of %d ends before %q", meta.Base, want)
		}
		for _, mode := range [][]string{{"--index-sanity-check"}, {"--verify-index-only"}, nil} {
			files := name(segment.IndexName) + "," + name(segment.TimeIndexName)
			out = java(t, libs, append(append([]string{dumpLogSegments}, mode...), "--files", files)...)
			for _, bad := range []string{"Mismatches", "mismatch", "out of order", "do not exist", "Exception", "Found timestamp", "Non-consecutive"} {
				if strings.Contains(out, bad) {
					t.Errorf("indexes of %d, %v: %q in\n%.3000s", meta.Base, mode, bad, out)
				}
			}
			if mode != nil && mode[0] == "--index-sanity-check" && strings.Count(out, "passed sanity check") != 2 {
				t.Errorf("indexes of %d: sanity check says\n%s", meta.Base, out)
			}
			if mode == nil && (strings.Count(out, "offset: ") < 10 || strings.Count(out, "timestamp: ") < 3) {
				t.Errorf("indexes of %d have too few entries to mean anything:\n%s", meta.Base, out)
			}
		}
	}
	out := java(t, libs, dumpLogSegments, "--files", filepath.Join(root, dir, segment.SnapshotName(metas[1].Next)))
	if !strings.Contains(out, "producerId: 4000 producerEpoch: 2") || strings.Contains(out, "corrupt") {
		t.Errorf("snapshot:\n%s", out)
	}
}

// TestKafkaWritesTheSameBytes feeds the batches of our logs to Kafka's own classes and compares every file.
func TestKafkaWritesTheSameBytes(t *testing.T) {
	libs := kafkaLibs(t)
	ours, theirs := t.TempDir(), t.TempDir()
	fs, metas := writeSample(t, ours)
	epochs := must[*segment.EpochCache](t)(segment.LoadEpochCache(fs, dir))
	for _, e := range []segment.EpochEntry{{Epoch: 0, Start: 0}, {Epoch: 4, Start: 100}} {
		must[bool](t)(epochs.Assign(e.Epoch, e.Start))
	}
	id := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	check(t, segment.WritePartitionMetadata(fs, dir, id))
	check(t, segment.WriteCheckpoint(fs, segment.RecoveryPointFile, map[segment.TopicPartition]segment.Offset{{Topic: "orders", Partition: 3}: 250}))
	check(t, segment.WriteCleanShutdown(fs, 77))

	args := []string{filepath.Join("testdata", "KafkaWriter.java"), theirs, dir}
	names := []string{segment.RecoveryPointFile, segment.CleanShutdownFile, dir + "/partition.metadata", dir + "/leader-epoch-checkpoint",
		dir + "/" + segment.SnapshotName(metas[1].Next)}
	for _, meta := range metas {
		args = append(args, filepath.Join(ours, dir, segment.LogName(meta.Base)), fmt.Sprint(meta.Base))
		names = append(names, dir+"/"+segment.LogName(meta.Base), dir+"/"+segment.IndexName(meta.Base), dir+"/"+segment.TimeIndexName(meta.Base))
	}
	java(t, libs, args...)
	for _, name := range names {
		got := must[[]byte](t)(os.ReadFile(filepath.Join(ours, name)))
		want := must[[]byte](t)(os.ReadFile(filepath.Join(theirs, name)))
		if string(got) != string(want) {
			t.Errorf("%s:\nours   %q\nKafka's %q", name, clip(got), clip(want))
		}
	}
	readKafkaDir(t, theirs, metas)
}

func clip(b []byte) []byte { return b[:min(len(b), 200)] }

// readKafkaDir opens a directory that Kafka wrote and closed, as adoption does: every file by our readers.
func readKafkaDir(t *testing.T, root string, metas []segment.Meta) {
	t.Helper()
	fs := must[vfs.FS](t)(vfs.OS(root))
	var damage []*segment.CorruptError
	cache := segment.NewFileCache(segment.FileCacheOptions{OnCorrupt: func(c *segment.CorruptError) { damage = append(damage, c) }})
	listing := must[segment.Listing](t)(segment.ListDir(fs, dir))
	if len(listing.Segments) != 2 || len(listing.Strangers) != 0 || len(listing.OrphanIndexes) != 0 {
		t.Fatalf("listing %+v", listing)
	}
	r := must[*segment.Reader](t)(segment.OpenSealed(fs, dir, segment.Sealed{Base: metas[0].Base, Next: metas[0].Next, SizeBytes: metas[0].SizeBytes}, cache))
	w := must[*segment.Writer](t)(segment.OpenWriter(fs, dir, metas[1].Base, segment.Options{}, cache))
	if got := w.Reader().Meta(); got.Next != metas[1].Next || got.MaxTimestampMs != metas[1].MaxTimestampMs || got.SizeBytes != metas[1].SizeBytes {
		t.Errorf("reopened active segment %+v, want %+v", got, metas[1])
	}
	for i, r := range []*segment.Reader{r, w.Reader()} {
		if !r.Acquire() {
			t.Fatal("retired")
		}
		if ms, err := r.VerifyMaxTimestamp(); err != nil || ms != metas[i].MaxTimestampMs {
			t.Errorf("segment %d: max timestamp %d, %v; want %d", i, ms, err, metas[i].MaxTimestampMs)
		}
		walked := segment.Offset(0)
		for from := metas[i].Base; from < metas[i].Next; walked++ {
			ext := must[segment.Extent](t)(r.Find(from, 1, unbounded, -1))
			if ext.First != from || ext.Len == 0 {
				t.Fatalf("find %d: %+v", from, ext)
			}
			from = ext.Next
		}
		if walked != 200 {
			t.Errorf("segment %d: %d batches", i, walked)
		}
		r.Release()
	}
	ps, bad, err := segment.LoadProducerState(fs, dir, metas[1].Next, 1, segment.ProducerOptions{})
	if err != nil || len(bad) != 0 || ps.Len() != 1 || ps.Views()[0].Epoch != 2 {
		t.Errorf("producer state %v, %v, %v", ps.Views(), bad, err)
	}
	if epoch, found, err := segment.ReadCleanShutdown(fs); epoch != 77 || !found || err != nil {
		t.Errorf("clean shutdown %d, %v, %v", epoch, found, err)
	}
	check(t, w.Close(true))
	r.Retire(nil)
	if len(damage) != 0 {
		t.Errorf("damage in Kafka's files: %v", damage)
	}
}
