package partition_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// within fails the test when fn, which must not wait for the device, does.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s waits for the device", what)
	}
}

// hold gives what a reader of the log from its start gets first, unreleased.
func hold(t *testing.T, l *partition.Log) *partition.Chunk {
	t.Helper()
	w := partition.NewWatch()
	defer w.Close()
	for {
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "holds"}, MaxBytes: 100, MustServe: true, Watch: w})
		noErr(t, err)
		if res.Chunk != nil {
			return res.Chunk
		}
		<-w.C()
	}
}

// hungRename has the renaming of what is to be deleted wait for release while it is on.
func hungRename(fs vfs.FS) (_ vfs.FS, on *atomic.Bool, release chan struct{}) {
	on, release = &atomic.Bool{}, make(chan struct{})
	return vfs.WithFaults(fs, vfs.InjectorFunc(func(op vfs.Op) error {
		if on.Load() && op.Kind == vfs.OpRename && strings.HasSuffix(op.To, ".log.deleted") {
			<-release
		}
		return nil
	})), on, release
}

// The last reader of a segment that retention has deleted may be one that reads around the page cache. What has to be done with the files then
// waits for their disk, and nobody else who reads that partition does.
func TestLastLaggingReaderHoldsNobodyUp(t *testing.T) {
	fs, on, release := hungRename(osFS(t))
	s := open(t, nil, fs)
	l, _ := coldLog(t, s, 24<<20, 16)
	lagging := partition.ReaderRef{ClientID: "lagging", Conn: 1}
	get(t, l, lagging, 0)
	cfg := config()
	cfg.SegmentBytes, cfg.MaxMessageBytes, cfg.RetentionBytes = 8<<20, 4<<20, 16<<20
	s.SetConfig("orders", cfg)
	before := len(l.Segments())
	s.Retain(s.Now())
	if n := len(l.Segments()); n != before-1 {
		t.Fatalf("%d segments of %d are left", n, before)
	}
	on.Store(true)
	last := produce(t, l, batch("new", 1, 1000, nil, 1))
	defer closeStore(t, s)
	defer close(release)
	within(t, "the end of a connection", func() { s.Disconnected(1) })
	within(t, "a reader at the end", func() { get(t, l, partition.ReaderRef{ClientID: "realtime"}, last.Base) })
}
