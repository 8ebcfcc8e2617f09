package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tests/internal/lagoontest"
)

// decode turns whole batches into records, checksums and all, with franz-go's own parser: what a client makes of the bytes.
func decode(t *testing.T, topic string, batches []byte) []*kgo.Record {
	t.Helper()
	fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: topic}, &kmsg.FetchResponseTopicPartition{RecordBatches: batches}, kgo.DefaultDecompressor(), nil)
	if fp.Err != nil {
		t.Fatalf("%s: %v", topic, fp.Err)
	}
	return fp.Records
}

// TestKafkaLogDirectory: Kafka writes with every codec, with and without producer ids, in one segment and in many, and stops cleanly. Our
// packages then read its directory record for record, write on where it stopped, and Kafka takes the directory back. About 15 s.
func TestKafkaLogDirectory(t *testing.T) {
	lagoontest.Require(t, "kafka")
	vm := startJVM(t)
	k := lagoontest.StartKafka(t)
	truth := map[string][]*kgo.Record{}
	ids := map[string][16]byte{}
	for _, codec := range codecs {
		topic := "codec-" + codec
		want, _ := franz{}.dataset(29)
		lagoontest.CreateTopic(t, k, topic, 1, "retention.ms", "-1")
		franz{}.produce(t, k, []job{{Topic: topic, Codec: codec, Records: want}})
		truth[topic] = lagoontest.ReadFrom(t, k, topic, 0, 0, 29)
		same(t, "Kafka's "+topic, fromKgo(truth[topic]), want)
	}
	const big = 3000
	lagoontest.CreateTopic(t, k, "rolled", 1, "segment.bytes", "1048576", "retention.ms", "-1")
	bulk(t, k, "rolled", big/2, 1000, kgo.ProducerBatchCompression(kgo.NoCompression()))
	bulk(t, k, "rolled", big/2, 1000, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite())
	truth["rolled"] = lagoontest.ReadFrom(t, k, "rolled", 0, 0, big)
	lagoontest.CreateTopic(t, k, "java", 1)
	javaJob := job{Topic: "java", Codec: "snappy", Records: text(29)} // Java frames snappy in its own way
	(&javaTools{vm: vm}).produce(t, k, []job{javaJob})
	truth["java"] = lagoontest.ReadFrom(t, k, "java", 0, 0, 29)
	listed, err := lagoontest.AdminClient(t, k).ListTopics(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for topic := range truth {
		ids[topic] = listed[topic].ID
	}
	k.Stop(t)

	fsys, err := vfs.OS(k.Logs())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("by package segment", func(t *testing.T) {
		for topic, want := range truth {
			sameKgo(t, topic, scanPartition(t, fsys, topic, ids[topic]), want)
		}
	})
	t.Run("by package partition", func(t *testing.T) {
		adopt(t, fsys, truth, ids)
	})
	t.Run("by DumpLogSegments afterwards", func(t *testing.T) {
		for topic, want := range truth {
			if d := dump(t, vm, filepath.Join(k.Logs(), topic+"-0")); d.records != len(want)+1 {
				t.Errorf("%s: %+v, want %d records and the one that was added", topic, d, len(want))
			}
		}
	})
	t.Run("by Kafka afterwards", func(t *testing.T) {
		k.Start(t)
		for topic, want := range truth {
			got := lagoontest.ReadFrom(t, k, topic, 0, 0, len(want)+1)
			sameKgo(t, topic, got[:len(want)], want)
			if last := got[len(want)]; string(last.Value) != "added to "+topic {
				t.Errorf("%s: the added record is %q", topic, last.Value)
			}
		}
		bulk(t, k, "rolled", 100, 1000)
		if end := endOffset(t, k, "rolled"); end != big+101 {
			t.Errorf("Kafka wrote on to %d, want %d", end, big+101)
		}
		k.Stop(t)
	})
}

func sameKgo(t *testing.T, what string, got, want []*kgo.Record) {
	t.Helper()
	same(t, what, fromKgo(got), fromKgo(want))
	for i := range min(len(got), len(want)) {
		if got[i].Attrs.CompressionType() != want[i].Attrs.CompressionType() || got[i].LeaderEpoch != want[i].LeaderEpoch || got[i].ProducerID != want[i].ProducerID {
			t.Errorf("%s: record %d: %+v, want %+v", what, i, got[i], want[i])
			return
		}
	}
}

// scanPartition reads a partition with the segment package alone.
func scanPartition(t *testing.T, fsys vfs.FS, topic string, id [16]byte) (out []*kgo.Record) {
	t.Helper()
	dir := topic + "-0"
	if got, err := segment.ReadPartitionMetadata(fsys, dir); err != nil || got != id {
		t.Errorf("%s: partition.metadata says %x, %v; want %x", dir, got, err, id)
	}
	listing, err := segment.ListDir(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(listing.Strangers)+len(listing.OrphanIndexes)+len(listing.Leftovers) > 0 {
		t.Errorf("%s: %+v", dir, listing)
	}
	if topic == "rolled" && len(listing.Segments) < 3 {
		t.Errorf("%s: only %d segments", dir, len(listing.Segments))
	}
	for _, s := range listing.Segments {
		if !s.HasIndex || !s.HasTimeIndex {
			t.Errorf("%s: segment %d without its index files", dir, s.Base)
		}
		f, err := fsys.Open(dir+"/"+segment.LogName(s.Base), vfs.ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		err = segment.Scan(f, 0, s.SizeBytes, segment.ScanBuffer(64<<10), func(_ int64, h segment.BatchHeader, full []byte) error {
			out = append(out, decode(t, topic, bytes.Clone(full))...)
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Errorf("%s, segment %d: %v", dir, s.Base, err)
		}
	}
	return out
}

// adopt opens the directory as a broker would, reads every partition and adds one record to each.
func adopt(t *testing.T, fsys vfs.FS, truth map[string][]*kgo.Record, ids map[string][16]byte) {
	t.Helper()
	pool, err := cachectl.NewPool(16<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var warned strings.Builder
	store, err := partition.Open(partition.Options{
		Dirs:  []partition.DirSpec{{Tier: "kafka", FS: fsys, ReserveBytes: 1}},
		Cache: cachectl.New(cachectl.LinuxKernel(), cachectl.Options{}), Pool: pool, Logger: warnings(&warned),
	})
	if err != nil {
		t.Fatal(err)
	}
	var specs []partition.TopicSpec
	for topic, id := range ids {
		specs = append(specs, partition.TopicSpec{Topic: topic, ID: id, Partitions: 1, Config: partition.Config{
			SegmentBytes: 1 << 20, SegmentMs: -1, SegmentIndexBytes: 10 << 20, IndexIntervalBytes: 4096, RetentionMs: -1, RetentionBytes: -1, LocalRetentionMs: -2,
			LocalRetentionBytes: -2, Delete: true, MaxMessageBytes: 1 << 20, TimestampBeforeMaxMs: 1<<63 - 1, TimestampAfterMaxMs: 1<<63 - 1,
		}})
	}
	if err := store.Load(context.Background(), specs); err != nil {
		t.Fatal(err)
	}
	if p := store.Progress(); p.ScannedBytes != 0 {
		t.Errorf("%d bytes scanned after a clean stop", p.ScannedBytes)
	}
	for topic, want := range truth {
		l, ok := store.Log(topic, 0)
		if !ok || l.Err() != nil {
			t.Fatalf("%s: %v, %v", topic, ok, l.Err())
		}
		if o := l.Offsets(); o.LogStart != 0 || int(o.End) != len(want) || o.HighWatermark != o.End {
			t.Errorf("%s: offsets %+v, want an end of %d", topic, o, len(want))
		}
		sameKgo(t, topic, decode(t, topic, readAll(t, l)), want)
		middle := want[len(want)/2]
		if found, err := l.OffsetForTime(context.Background(), middle.Timestamp.UnixMilli()); err != nil || int64(found.Offset) > middle.Offset || found.TimestampMs < middle.Timestamp.UnixMilli() {
			t.Errorf("%s: time of record %d is found at %+v, %v", topic, middle.Offset, found, err)
		}
		if producers := l.Producers(); len(producers) != 1 || producers[0].ProducerID != firstProducer(want) {
			t.Errorf("%s: producers %+v, want the one with id %d", topic, producers, firstProducer(want))
		}
		added, err := l.Append(context.Background(), partition.AppendRequest{Records: batchOf("added to " + topic)})
		if err == nil {
			err = l.Durable(context.Background(), added.Next)
		}
		if err != nil || int(added.Base) != len(want) {
			t.Errorf("%s: append: %+v, %v", topic, added, err)
		}
	}
	if err := store.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if lines := strings.Split(strings.TrimSpace(warned.String()), "\n"); len(lines) != 1 || !strings.Contains(lines[0], "__cluster_metadata-0") {
		t.Errorf("warnings other than that Kafka's own metadata are left alone:\n%s", warned.String())
	}
	if _, err := fsys.Stat(segment.CleanShutdownFile); errors.Is(err, fs.ErrNotExist) {
		t.Error("no clean shutdown marker")
	}
}

func firstProducer(records []*kgo.Record) int64 {
	for _, r := range records {
		if r.ProducerID >= 0 {
			return r.ProducerID
		}
	}
	return -1
}

// readAll reads a log from its start to its end, as fetches do.
func readAll(t *testing.T, l *partition.Log) (out []byte) {
	t.Helper()
	watch := partition.NewWatch()
	defer watch.Close()
	timeout := time.After(2 * time.Minute)
	for from := l.Offsets().LogStart; from < l.Offsets().End; {
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "adopt"}, From: from, MaxBytes: 200_000, MustServe: true, Watch: watch})
		if err != nil {
			t.Fatal(err)
		}
		if res.Chunk == nil {
			select {
			case <-watch.C():
				continue
			case <-timeout:
				t.Fatalf("nothing to read at offset %d", from)
			}
		}
		b := make([]byte, res.Chunk.Len())
		if _, err := res.Chunk.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		res.Chunk.Release()
		for at := 0; at < len(b); {
			h, err := segment.DecodeHeader(b[at:])
			if err != nil {
				t.Fatal(err)
			}
			at += int(h.SizeBytes())
			from = h.NextOffset()
		}
		out = append(out, b...)
	}
	return out
}

// warnings is a logger that keeps what should not be.
func warnings(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
