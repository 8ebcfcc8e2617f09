package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/internal/rawkafka"
	"lagoon/segment"
	"lagoon/tests/internal/lagoontest"
)

// hungBroker is a broker with two hot directories of which the second can hang.
type hungBroker struct {
	*lagoontest.Broker
	t    *testing.T
	hot  string // answers, and has the catalogue
	disk *labtest.FileSystem
}

// in gives the partition of a topic of two that lies in dir.
func (b *hungBroker) in(dir, topic string) int32 {
	b.t.Helper()
	for p := range int32(2) {
		if _, err := os.Stat(filepath.Join(dir, segment.PartitionDir(topic, p))); err == nil {
			return p
		}
	}
	b.t.Fatalf("no partition of %s in %s", topic, dir)
	return 0
}

// produce sends one batch.
func (b *hungBroker) produce(topic string, partition int32) error {
	conn, err := rawkafka.Dial(b.Bootstrap(), "writer")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Produce(topic, partition, -1, rawkafka.Batch(batchRecords, recordBytes, time.Now().UnixMilli()))
	return err
}

// TestFrozenDirectory: while a file system answers no write topics are made and deleted elsewhere, a stop closes cleanly what lies elsewhere, and a start
// goes without it; what is there is there again afterwards.
func TestFrozenDirectory(t *testing.T) {
	lagoontest.Require(t, "loop", "mkfs.ext4")
	disk := labtest.New(t).FileSystem(lab.FSOptions{Name: "second", Type: "ext4", Bytes: 256 << 20})
	dir := t.TempDir()
	hot := filepath.Join(dir, "first")
	if err := os.Mkdir(hot, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[[storage.tier]]\nname = \"ssd\"\npaths = [%q, %q]\nclass = \"ssd\"\nkeep = \"unlimited\"\n", hot, disk.Path())
	b := &hungBroker{lagoontest.Start(t, lagoontest.Options{Dir: dir, Config: config, Set: []string{"storage.file_delete_delay=0s"}, NoWait: true}), t, hot, disk}
	b.WaitReady()
	for _, topic := range []string{"kept", "doomed"} {
		lagoontest.CreateTopic(t, b, topic, 2)
		for p := range int32(2) {
			if err := b.produce(topic, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	good, bad := b.in(hot, "kept"), b.in(disk.Path(), "kept")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	admin := lagoontest.AdminClient(t, b)
	remove := func(topic string) {
		t.Helper()
		began := time.Now()
		if _, err := admin.DeleteTopic(ctx, topic); err != nil {
			t.Errorf("delete %s: %v", topic, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the deletion of %s took %v", topic, took)
		}
		if left, err := filepath.Glob(filepath.Join(hot, topic+"-*")); err != nil || len(left) > 0 {
			t.Errorf("left of %s: %q, %v", topic, left, err)
		}
	}

	thaw := disk.Freeze()
	stuck := make(chan error, 1)
	go func() { stuck <- b.produce("kept", bad) }()
	if !lagoontest.Poll(time.Minute, func() bool { return strings.Contains(b.Logs(), "device does not answer") }) {
		t.Fatal("the hung directory was not told")
	}
	lagoontest.CreateTopic(t, b, "made", 2)
	for p := range int32(2) {
		if err := b.produce("made", p); err != nil {
			t.Errorf("produce to a new topic: %v", err)
		}
	}
	remove("made")
	remove("doomed")
	if err := b.produce("kept", good); err != nil {
		t.Errorf("produce beside the hung directory: %v", err)
	}
	b.Signal(syscall.SIGTERM)
	clean := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, segment.CleanShutdownFile))
		return err == nil
	}
	// The process itself has to wait for the kernel: threads that a file system does not answer cannot be killed.
	if !lagoontest.Poll(30*time.Second, func() bool { return clean(hot) && strings.Contains(b.Logs(), disk.Path()+" not closed") }) {
		t.Errorf("closed cleanly: %v", clean(hot))
	}
	if clean(disk.Path()) {
		t.Error("the hung directory was closed cleanly, too")
	}
	thaw()
	<-b.Exited()
	<-stuck // it may be an error: whether the batch is there is not known

	thaw = disk.Freeze()
	b.Restart()
	if !lagoontest.Poll(lagoontest.ReadyTime, func() bool { return strings.Count(b.Logs(), "msg=ready") == 2 }) { // readyz tells of the directory, and is not well
		t.Fatal("not started")
	}
	if logs := b.Logs(); !strings.Contains(logs, "did not answer at the start") || !strings.Contains(logs, disk.Path()) {
		t.Error("the log does not tell what the start went without")
	}
	if err := b.produce("kept", good); err != nil {
		t.Errorf("produce without the other directory: %v", err)
	}
	if err := b.produce("kept", bad); !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("produce to what lies there: %v, want KAFKA_STORAGE_ERROR", err)
	}
	thaw()
	b.Restart()
	b.WaitReady()
	for p, n := range map[int32]int{good: 3, bad: 1} {
		if records := lagoontest.ReadFrom(t, b, "kept", p, 0, n*batchRecords); len(records) < n*batchRecords {
			t.Errorf("kept-%d has %d records", p, len(records))
		}
	}
	if left, err := filepath.Glob(filepath.Join(disk.Path(), "doomed-*")); err != nil || len(left) > 0 {
		t.Errorf("left of a deleted topic: %q, %v", left, err)
	}
	lagoontest.CreateTopic(t, b, "doomed", 2)
	b.Stop()
}
