package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sys/unix"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

// writer sends one batch at a time to one partition and is told every error. It keeps what was acked.
type writer struct {
	t     *testing.T
	b     *lagoontest.Broker
	topic string
	conn  *rawkafka.Conn
	acked []int64 // base offsets of batches of batchRecords
}

const (
	batchRecords = 10
	recordBytes  = 20_000
)

func newWriter(t *testing.T, b *lagoontest.Broker, topic string) *writer {
	t.Helper()
	lagoontest.CreateTopic(t, b, topic, 1)
	w := &writer{t: t, b: b, topic: topic}
	w.dial()
	t.Cleanup(func() { _ = w.conn.Close() })
	return w
}

func (w *writer) dial() {
	w.t.Helper()
	if w.conn != nil {
		_ = w.conn.Close()
	}
	conn, err := rawkafka.Dial(w.b.Bootstrap(), "writer")
	if err != nil {
		w.t.Fatal(err)
	}
	w.conn = conn
}

func (w *writer) send() error {
	offset, err := w.conn.Produce(w.topic, 0, -1, rawkafka.Batch(batchRecords, recordBytes, time.Now().UnixMilli()))
	if err == nil {
		w.acked = append(w.acked, offset)
	}
	return err
}

// fill sends until the broker refuses, and returns with what.
func (w *writer) fill(most int) error {
	w.t.Helper()
	for range most {
		if err := w.send(); err != nil {
			return err
		}
	}
	w.t.Fatalf("%d batches of %d bytes were accepted", most, batchRecords*recordBytes)
	return nil
}

// recovers waits until sending works again, without a restart.
func (w *writer) recovers() {
	w.t.Helper()
	var err error
	if lagoontest.Poll(time.Minute, func() bool { err = w.send(); return !errors.Is(err, kerr.KafkaStorageError) }); err != nil {
		w.t.Fatalf("sending does not work again: %v", err)
	}
}

// allThere reads every acked batch that was not deleted.
func (w *writer) allThere(from int64) {
	w.t.Helper()
	n := 0
	for _, offset := range w.acked {
		if offset >= from {
			n++
		}
	}
	last := w.acked[len(w.acked)-1]
	records := lagoontest.ReadFrom(w.t, w.b, w.topic, 0, from, int(last-from)+batchRecords)
	if len(records) < n*batchRecords {
		w.t.Errorf("%d records from offset %d on, acked were %d", len(records), from, n*batchRecords)
	}
	for i, r := range records {
		if r.Offset != from+int64(i) || len(r.Value) != recordBytes {
			w.t.Fatalf("record %d: offset %d, %d bytes", i, r.Offset, len(r.Value))
		}
	}
}

// ready asks readyz: its status and what it says.
func ready(t *testing.T, b *lagoontest.Broker) (int, string) {
	t.Helper()
	resp, err := http.Get(b.Admin() + "/readyz?verbose")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// checkFenced: readyz, metrics and log name the directory, the process lives, and nothing is acked any more.
func checkFenced(t *testing.T, b *lagoontest.Broker, w *writer, path string) {
	t.Helper()
	if code, text := ready(t, b); code != http.StatusServiceUnavailable || !strings.Contains(text, path) {
		t.Errorf("readyz: %d %s; want 503 and %s", code, text, path)
	}
	if text := b.Get("/metrics", nil); !strings.Contains(text, fmt.Sprintf("path=%q", path)) || !strings.Contains(text, "fenced") {
		t.Errorf("metrics do not tell that %s is fenced", path)
	}
	if !strings.Contains(b.Logs(), "log directory fenced") {
		t.Error("the log does not tell")
	}
	b.Get("/livez", nil)
	for range 20 {
		if err := w.send(); !errors.Is(err, kerr.KafkaStorageError) {
			t.Errorf("send to a fenced directory: %v, want KAFKA_STORAGE_ERROR", err)
		}
	}
}

// TestSyncFailureHot: the storage below the hot tier's file system runs full, which only a sync tells.
func TestSyncFailureHot(t *testing.T) {
	lagoontest.Require(t, "loop", "mkfs.ext4")
	l := labtest.New(t)
	ssd := l.FileSystem(lab.FSOptions{Name: "ssd", Type: "ext4", Bytes: 1 << 30, Thin: 64 << 20})
	b := lagoontest.Start(t, lagoontest.Options{Set: busy, Tiers: []lagoontest.Tier{{Name: "ssd", Path: ssd.Path()}, {Name: "hdd"}}})
	t.Cleanup(b.Kill)
	w := newWriter(t, b, "thin")
	if err := w.fill(1000); !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("a failing sync was told as %v, want KAFKA_STORAGE_ERROR", err)
	}
	acked := len(w.acked)
	checkFenced(t, b, w, ssd.Path())
	if len(w.acked) != acked {
		t.Fatal("something was acked after a sync had failed")
	}
	b.Kill()
	ssd.Grow(400 << 20) // first, or the file system's own last writes are lost
	ssd.Unmount()
	ssd.Mount()
	b.Restart()
	w.dial()
	w.allThere(0)
	if err := w.send(); err != nil {
		t.Errorf("send after the repair: %v", err)
	}
	b.Kill()
	t.Logf("%d batches acked before the sync failed", acked)
}

// TestSyncFailureCold: the cold tier's storage runs full below its file system. Producing and reading do not notice.
func TestSyncFailureCold(t *testing.T) {
	lagoontest.Require(t, "loop", "mkfs.ext4")
	r := seeded(t)
	l := labtest.New(t)
	hdd := l.FileSystem(lab.FSOptions{Name: "hdd", Type: "ext4", Bytes: 1 << 30, Thin: 48 << 20})
	b := lagoontest.Start(t, lagoontest.Options{Set: busy, Tiers: []lagoontest.Tier{{Name: "ssd", Keep: "1s"}, {Name: "hdd", Path: hdd.Path()}}})
	t.Cleanup(b.Kill)
	w := startLoad(t, b, loadOptions{Topic: "thin", Partitions: 3, Idempotent: 1, Plain: 1, Tail: 1, Lagging: 1, BytesPerSecond: 15e6, NoErrors: true, Seed: r.Uint64()})
	var m struct {
		Failed int64 `json:"failed_total"`
	}
	full := lagoontest.Poll(3*time.Minute, func() bool {
		b.Get("/api/v1/migrations", &m)
		w.report()
		return t.Failed() || m.Failed > 0
	})
	if t.Failed() || !full {
		t.Fatal("no migration failed: the storage did not run full")
	}
	_, before, _ := w.rec.Totals()
	if !lagoontest.Poll(time.Minute, func() bool { _, after, _ := w.rec.Totals(); return after > before }) {
		t.Fatal("nothing was acked in the minute after a migration had failed: the hot tier should go on")
	}
	w.verify()
	t.Logf("%d migrations failed; moved before: %d", m.Failed, movedSegments(b))
	w.end()
	b.Kill()
}

// TestDiskFull: retriable errors while the disk is full, reads and deletes go on, and it comes back by itself.
func TestDiskFull(t *testing.T) {
	lagoontest.Require(t, "loop", "mkfs.ext4")
	r := seeded(t)
	l := labtest.New(t)
	ssd := l.FileSystem(lab.FSOptions{Name: "ssd", Type: "ext4", Bytes: 96 << 20})
	b := lagoontest.Start(t, lagoontest.Options{Set: append([]string{"storage.file_delete_delay=0s", "tiering.interval=100ms"}, busy[:3]...),
		Tiers: []lagoontest.Tier{{Name: "ssd", Path: ssd.Path()}}})
	t.Cleanup(b.Kill)
	// The load's clients retry whatever they are told to: nothing of theirs may be lost or doubled.
	load := startLoad(t, b, loadOptions{Topic: "load", Partitions: 2, Idempotent: 2, Plain: 1, Tail: 1, Lagging: 1, BytesPerSecond: 1e6, NoErrors: true, Seed: r.Uint64()})
	w := newWriter(t, b, "full")

	full := func(how string) {
		t.Helper()
		if err := w.fill(1000); !errors.Is(err, kerr.KafkaStorageError) {
			t.Fatalf("%s: %v, want KAFKA_STORAGE_ERROR", how, err)
		}
		if code, text := ready(t, b); code != http.StatusOK || !strings.Contains(text, "[!] space") {
			t.Errorf("%s: readyz %d %s; want 200 with a warning", how, code, text)
		}
	}
	full("filled by producing")
	w.allThere(0)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	end := w.acked[len(w.acked)-1] + batchRecords
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: w.topic, Partition: 0, At: end})
	// The files go whether or not there is room to write down the new start; with the space that they leave there is.
	admin := lagoontest.AdminClient(t, b)
	for done := false; !done; {
		deleted, err := admin.DeleteRecords(ctx, offsets)
		if err == nil {
			err = deleted.Error()
		}
		if done = err == nil; !done && (ctx.Err() != nil || !errors.Is(err, kerr.KafkaStorageError)) {
			t.Fatalf("delete records on a full disk: %v", err)
		}
	}
	w.recovers()
	w.allThere(end)

	outsider := filepath.Join(ssd.Path(), "outsider")
	if err := hog(outsider); err != nil {
		t.Fatal(err)
	}
	full("filled by an outsider")
	w.allThere(end)
	if err := os.Remove(outsider); err != nil {
		t.Fatal(err)
	}
	w.recovers()
	w.allThere(end)
	load.verify()
	if code, text := ready(t, b); code != http.StatusOK || strings.Contains(text, "[!] space") {
		t.Errorf("readyz after all: %d %s", code, text)
	}
	load.end()
	b.Kill()
}

// hog takes all the space there is.
func hog(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(buf)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// TestReadOnly: the hot tier's file system goes read-only under the broker.
func TestReadOnly(t *testing.T) {
	lagoontest.Require(t, "loop", "mkfs.ext4")
	l := labtest.New(t)
	ssd := l.FileSystem(lab.FSOptions{Name: "ssd", Type: "ext4", Bytes: 256 << 20, Options: "errors=remount-ro"})
	b := lagoontest.Start(t, lagoontest.Options{Set: busy, Tiers: []lagoontest.Tier{{Name: "ssd", Path: ssd.Path()}, {Name: "hdd"}}})
	t.Cleanup(b.Kill)
	w := newWriter(t, b, "ro")
	for range 20 {
		if err := w.send(); err != nil {
			t.Fatal(err)
		}
	}
	ssd.Break()
	if err := w.fill(2); !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("read-only: %v, want KAFKA_STORAGE_ERROR", err)
	}
	checkFenced(t, b, w, ssd.Path())
	b.Kill()
	ssd.Unmount()
	ssd.Mount()
	b.Restart()
	w.dial()
	w.allThere(0)
	b.Kill()
}
