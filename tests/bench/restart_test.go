package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/lab"
	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

const (
	restartPartitions = 8
	restartBound      = 2 * time.Second
	segmentBytes      = 1 * mib
	// readBound is what a restart may read of devices, beyond what every start does to try its read methods: active segments, indexes,
	// checkpoints, and pages of the program itself.
	readBound = restartPartitions * 2 * segmentBytes
)

// TestRestartReadsNoSealedSegment kills a broker with 200 sealed segments and looks from outside at what the next start reads. It takes
// about five seconds.
func TestRestartReadsNoSealedSegment(t *testing.T) {
	r := restart(t, 200)
	t.Logf("%d sealed segments: answered after %v, %d KiB read", r.sealed, r.elapsed.Round(time.Millisecond), r.read>>10)
}

// BenchmarkRestart is the time from the start of the process after kill -9 until every partition answers.
func BenchmarkRestart(b *testing.B) {
	var r restarted
	for b.Loop() {
		r = restart(b, 2000)
	}
	b.ReportMetric(r.elapsed.Seconds(), "s-to-answer")
	b.ReportMetric(float64(r.sealed), "segments")
	b.ReportMetric(float64(r.read)/mib, "MiB-read")
	hold(b, r.elapsed.Seconds(), restartBound.Seconds())
}

// restarted is what was seen of one restart.
type restarted struct {
	sealed  int
	elapsed time.Duration
	read    int64 // bytes that the process made devices read until every partition answered, less those of an empty broker's start
}

// restart fills a topic, kills the broker, empties the page cache of all its files and starts it again. That no page of a sealed
// segment came back is checked here.
func restart(t testing.TB, segments int) (r restarted) {
	t.Helper()
	broker := start(t)
	probes := readBytes(t, broker)
	createTopic(t, broker, "old", restartPartitions, "segment.bytes", fmt.Sprint(segmentBytes))
	batch := newBatch(128 << 10)
	perSegment := segmentBytes / int64(len(batch))
	total := int64(segments+restartPartitions) * perSegment * int64(len(batch))
	load{topic: "old", partitions: restartPartitions, conns: restartPartitions, window: 2, batch: batch, bytes: total, acks: -1}.run(t, broker)
	checkpointed(t, broker)
	broker.Kill()

	sealed, all := logs(t, broker)
	if len(sealed) < segments {
		t.Fatalf("%d sealed segments, wanted %d", len(sealed), segments)
	}
	for _, name := range all {
		if err := writeOut(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := lab.Evict(all...); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, all); n != 0 {
		t.Fatalf("%d bytes were not evicted: the file system does not let go of pages, so that nothing can be told", n)
	}

	begun := time.Now()
	broker.Restart()
	answered(t, broker)
	r = restarted{sealed: len(sealed), elapsed: time.Since(begun)}
	r.read = readBytes(t, broker) - probes
	for _, name := range sealed {
		if n := resident(t, []string{name}); n != 0 {
			t.Errorf("%s: %d bytes resident after the restart", filepath.Base(name), n)
		}
	}
	if r.read > readBound {
		t.Errorf("the restart read %d KiB, at most %d are allowed", r.read>>10, readBound>>10)
	}
	readOne(t, broker) // the check can see a read: this one leaves pages
	if n := resident(t, sealed); n == 0 {
		t.Error("a sealed segment was read through the page cache and none of it is resident: the check is blind")
	}
	return r
}

func readBytes(t testing.TB, b *lagoontest.Broker) int64 {
	t.Helper()
	n, err := lab.ProcIO(b.PID(), "read_bytes")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// logs are the log files of sealed segments, and all files of the topic.
func logs(t testing.TB, b *lagoontest.Broker) (sealed, all []string) {
	t.Helper()
	for p := range restartPartitions {
		dir := filepath.Join(b.TierPath("ssd"), fmt.Sprint("old-", p))
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
		segments, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("no segments in %s: %v", dir, err)
		}
		slices.Sort(segments)
		sealed = append(sealed, segments[:len(segments)-1]...)
	}
	return sealed, all
}

// checkpointed waits until the recovery points cover all sealed segments: they are written within a second or so.
func checkpointed(t testing.TB, b *lagoontest.Broker) {
	t.Helper()
	reached := lagoontest.Poll(10*time.Second, func() bool {
		text, err := os.ReadFile(filepath.Join(b.TierPath("ssd"), "recovery-point-offset-checkpoint"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		points := map[string]int64{}
		for line := range strings.Lines(string(text)) {
			var topic string
			var partition, point int64
			if n, _ := fmt.Sscan(line, &topic, &partition, &point); n == 3 {
				points[fmt.Sprint(topic, "-", partition)] = point
			}
		}
		behind := 0
		for p := range restartPartitions {
			segments, err := filepath.Glob(filepath.Join(b.TierPath("ssd"), fmt.Sprint("old-", p), "*.log"))
			if err != nil || len(segments) == 0 {
				t.Fatalf("partition %d has no segments: %v", p, err)
			}
			var active int64
			if _, err := fmt.Sscanf(filepath.Base(slices.Max(segments)), "%d.log", &active); err != nil {
				t.Fatal(err)
			}
			if points[fmt.Sprint("old-", p)] < active {
				behind++
			}
		}
		return behind == 0
	})
	if !reached {
		t.Fatal("sealed segments are above the recovery points after 10 s")
	}
}

// writeOut syncs one file: dirty pages cannot be evicted.
func writeOut(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func resident(t testing.TB, names []string) (bytes int64) {
	t.Helper()
	for _, name := range names {
		pages, err := lab.Cached(name, 0, -1)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		bytes += pages.Bytes()
	}
	return bytes
}

// answered returns when every partition tells its bounds and answers a fetch at its end.
func answered(t testing.TB, b *lagoontest.Broker) {
	t.Helper()
	c := dial(t, b, "restart")
	for p := range int32(restartPartitions) {
		end, err := listEnd(c, p)
		if err != nil {
			t.Fatalf("partition %d: %v", p, err)
		}
		if end == 0 {
			t.Fatalf("partition %d is empty", p)
		}
		if f, err := c.FetchOne("old", p, end, 1<<20, 0); err != nil || f.HighWatermark != end {
			t.Fatalf("partition %d at its end %d: %+v, %v", p, end, f, err)
		}
	}
}

func listEnd(c *rawkafka.Conn, partition int32) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 4, -1
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = "old"
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, -1, -1
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// readOne reads the start of partition 0's first segment as an ordinary program would.
func readOne(t testing.TB, b *lagoontest.Broker) {
	t.Helper()
	sealed, _ := logs(t, b)
	f, err := os.Open(sealed[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
}
