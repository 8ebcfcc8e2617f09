package partition_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// A reader that is slower than retention is told of, with a countdown and what it loses, as log line and metric; so is what
// it then loses. Retention does not wait for it.
func TestRetentionRaceIsSeen(t *testing.T) {
	for _, by := range []string{"time", "bytes"} {
		t.Run(by, func(t *testing.T) {
			var clock atomic.Int64
			start := time.Now()
			clock.Store(start.UnixNano())
			pass := func(d time.Duration) time.Time { return time.Unix(0, clock.Add(int64(d))) }
			var logs logText
			reg := prometheus.NewRegistry()
			s := open(t, func(o *partition.Options) {
				o.Now = func() time.Time { return time.Unix(0, clock.Load()) }
				o.RetentionInterval, o.PlanInterval, o.RetentionRace, o.Registerer = time.Hour, time.Hour, true, reg
				o.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelWarn}))
			}, osFS(t))
			cfg := config()
			l := load(t, s, cfg, 1)
			// About 10 segments of 1 MiB; a record is a second younger than the one before it: each segment is 52 s long.
			for i := range 520 {
				produce(t, l, batch(fmt.Sprint(i), 1, 20_000, nil, start.Add(time.Duration(i-520)*time.Second).UnixMilli()))
			}
			reader := partition.ReaderRef{ClientID: "slow"}
			from := segment.Offset(0)
			read := func() {
				t.Helper()
				watch := partition.NewWatch()
				defer watch.Close()
				for {
					res, err := l.Read(partition.ReadRequest{Reader: reader, From: from, MaxBytes: 1, MustServe: true, Watch: watch})
					if err != nil {
						t.Fatalf("read at %d: %v", from, err)
					}
					if res.Chunk != nil {
						from = res.Chunk.Next()
						res.Chunk.Release()
						return
					}
					<-watch.C() // the kernel has taken what was written: it comes from the device
				}
			}
			if by == "time" {
				cfg.RetentionMs = (520 + 20 - 52) * 1000 // the first segment goes in about 20 s
			}
			s.SetConfig("orders", cfg)
			for range 10 { // a batch of 20 KB a second; nobody appends
				read()
				s.TickRaces(pass(time.Second))
			}
			if by == "bytes" {
				if n := len(s.Races()); n != 0 {
					t.Fatalf("%d races without retention", n)
				}
				cfg.RetentionBytes = l.SizeBytes() + 200_000
				s.SetConfig("orders", cfg)
				for i := range 10 { // 60 KB a second come in, 20 KB are read
					produce(t, l, batch(fmt.Sprint("late", i), 3, 20_000, nil, pass(0).UnixMilli()))
					read()
					s.TickRaces(pass(time.Second))
				}
			}
			races := s.Races()
			if len(races) != 1 {
				t.Fatalf("races %+v", races)
			}
			v := races[0]
			t.Logf("%+v", v)
			if v.Flow.String() != "client:slow" || v.Topic != "orders" || v.LossBytes == 0 || v.Countdown < 0 || v.BytesPerSecond < 15_000 || v.BytesPerSecond > 25_000 {
				t.Errorf("race %+v", v)
			}
			if by == "time" && (v.Countdown < 5*time.Second || v.Countdown > 15*time.Second) {
				t.Errorf("countdown %v, the first segment goes 20 s after the start, which was 10 s ago", v.Countdown)
			}
			if got := gauge(t, reg, "lagoon_reader_retention_race_seconds"); got != v.Countdown.Seconds() {
				t.Errorf("metric says %v, countdown %v", got, v.Countdown)
			}
			if got := strings.Count(logs.String(), "retention race: data will be deleted before they are read"); got != 1 {
				t.Errorf("%d log lines about one race:\n%s", got, logs.String())
			}

			// By time as far as the record behind the reader; by size the log has grown by what was missing.
			if by == "bytes" {
				cfg.RetentionBytes = l.SizeBytes() - 2<<20
				s.SetConfig("orders", cfg)
			}
			s.Retain(pass(time.Minute))
			lost := gauge(t, reg, "lagoon_reader_retention_lost_bytes_total")
			if _, err := l.Read(partition.ReadRequest{Reader: reader, From: from, MaxBytes: 1}); lost < 500_000 || err == nil {
				t.Errorf("retention took %v bytes from the reader, whose next read gives %v", lost, err)
			}
			if !strings.Contains(logs.String(), "retention deleted data that a reader had not read") || !strings.Contains(logs.String(), "reader=client:slow") {
				t.Errorf("log says\n%s", logs.String())
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			if err := s.Close(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// logText is what was logged, by whichever goroutine.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// gauge is the value of the only sample of a metric, NaN-free: 0 when there is none.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}
