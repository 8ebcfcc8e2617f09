package partition_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// waitedLog is a log's output that a test waits for.
type waitedLog struct {
	mu      sync.Mutex
	written sync.Cond
	b       bytes.Buffer
}

func newWaitedLog() *waitedLog {
	l := &waitedLog{}
	l.written.L = &l.mu
	return l
}

func (l *waitedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written.Broadcast()
	return l.b.Write(p)
}

// await returns when a line with all of the texts is there, and tells how many there are.
func (l *waitedLog) await(texts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n := 0
		for line := range strings.Lines(l.b.String()) {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				n++
			}
		}
		if n > 0 {
			return n
		}
		l.written.Wait()
	}
}

// TestHungDiskIsTold: I/O that a device does not answer is told after 4 s, for the log directory that it is of and for no other, by Stalls,
// by one log line and by a gauge; and so is its end.
func TestHungDiskIsTold(t *testing.T) {
	record := func() []byte { return batch("new", 1, 100, nil, 1) }
	for _, c := range []struct {
		io   string
		kind vfs.Kind
		work func(t *testing.T, l *partition.Log)
	}{
		{"append", vfs.OpWrite, func(t *testing.T, l *partition.Log) { produce(t, l, record()) }},
		{"commit", vfs.OpSync, func(t *testing.T, l *partition.Log) { produce(t, l, record()) }},
		{"read", vfs.OpRead, func(t *testing.T, l *partition.Log) { get(t, l, partition.ReaderRef{ClientID: "backfill"}, 0) }},
	} {
		t.Run(c.io, func(t *testing.T) {
			var hangs atomic.Bool
			var ahead atomic.Int64 // of the store's clock
			hung, release := make(chan struct{}), make(chan struct{})
			once := sync.OnceFunc(func() { close(hung) })
			disk := vfs.InjectorFunc(func(op vfs.Op) error {
				if hangs.Load() && op.Kind == c.kind && strings.HasSuffix(op.Name, ".log") && (c.kind != vfs.OpRead || op.Len > 64<<10) {
					once()
					<-release
				}
				return nil
			})
			reg, logged := prometheus.NewRegistry(), newWaitedLog()
			s := open(t, func(o *partition.Options) {
				o.Registerer, o.Logger = reg, slog.New(slog.NewTextHandler(logged, nil))
				o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			}, vfs.WithFaults(osFS(t), disk), osFS(t))
			l, _ := coldLog(t, s, 20<<20, 16)
			hangs.Store(true)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.work(t, l)
			}()
			<-hung
			told := func() bool { // other I/O of the directory may have to wait for the one that hangs
				found := false
				for _, stall := range s.Stalls() {
					if stall.Dir != "t0" || stall.For < 4*time.Second {
						t.Errorf("told: %+v", stall)
					}
					found = found || stall.IO == c.io
				}
				return found
			}
			ahead.Store(int64(2 * time.Second))
			if told() {
				t.Error("told too early")
			}
			ahead.Store(int64(4 * time.Second))
			if oldest := counter(t, reg, "lagoon_tier_oldest_io_seconds"); !told() || oldest < 4 {
				t.Errorf("%+v and %.1f s; want %s of t0 for 4 s or more", s.Stalls(), oldest, c.io)
			}
			logged.await("device does not answer", "tier=t0", "io="+c.io)
			hangs.Store(false)
			close(release)
			<-done
			if n := logged.await("device answers again", "tier=t0", "io="+c.io); n != 1 || told() {
				t.Errorf("%d lines say that it is over; told: %+v", n, s.Stalls())
			}
			if n := logged.await("device does not answer", "io="+c.io); n != 1 {
				t.Errorf("%d lines say that the device does not answer", n)
			}
			closeStore(t, s)
		})
	}
}
