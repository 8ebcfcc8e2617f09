package partition_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

func TestProducedIsConsumed(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	l := load(t, s, config(), 1)
	var want []byte
	for i := range 300 {
		b := batch(fmt.Sprintf("b%d", i), 1+i%7, 1000, nil, int64(i))
		produce(t, l, b)
		want = append(want, b...)
	}
	for _, max := range []int64{1, 4000, 100_000, 10 << 20} {
		consume(t, l, partition.ReaderRef{ClientID: fmt.Sprint(max)}, 0, max, want)
	}
	if n := len(l.Segments()); n < 2 {
		t.Errorf("%d segments, want several", n)
	}
	closeStore(t, s)
}

func TestOffsetsOutOfRange(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	produce(t, l, batch("x", 3, 10, nil, 1))
	for _, from := range []segment.Offset{-1, 4, 1 << 40} {
		if _, err := l.Read(partition.ReadRequest{From: from, MaxBytes: 100}); !errors.Is(err, partition.ErrOffsetOutOfRange) {
			t.Errorf("read at %d: %v", from, err)
		}
	}
	closeStore(t, s)
}

func TestReopenKeepsEverything(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			fs := osFS(t)
			s := open(t, nil, fs)
			l := load(t, s, config(), 1)
			var want []byte
			p := &producer{id: 7, epoch: 0}
			var last []byte
			for i := range 200 {
				b := batch(fmt.Sprintf("b%d", i), 5, 2000, p, int64(i))
				last = bytes.Clone(b)
				produce(t, l, b)
				p.seq += 5
				want = append(want, b...)
			}
			if clean {
				closeStore(t, s)
			} else {
				s.Abandon()
			}
			s = open(t, nil, fs)
			l = load(t, s, config(), 1)
			consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
			if a := produce(t, l, last); !a.Duplicate || a.Base != 995 {
				t.Errorf("retry after the restart: %+v, want the duplicate at 995", a)
			}
			if clean != (s.Progress().ScannedBytes == 0) {
				t.Errorf("scanned %d bytes after clean=%v", s.Progress().ScannedBytes, clean)
			}
			closeStore(t, s)
		})
	}
}

func TestLaggingReaderLeavesNoPages(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	cfg := config()
	cfg.SegmentBytes = 8 << 20
	l := load(t, s, cfg, 1)
	var want []byte
	for i := range 400 {
		b := batch(fmt.Sprintf("b%d", i), 100, 1000, nil, int64(i))
		produce(t, l, b)
		want = append(want, b...)
	}
	cold := int64(0)
	for _, sv := range l.Segments() {
		if sv.Active {
			continue
		}
		if e, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err, e)
		}
		cold += sv.SizeBytes
	}
	if cold < 16<<20 {
		t.Fatalf("only %d bytes of sealed segments", cold)
	}
	consume(t, l, partition.ReaderRef{ClientID: "backfill"}, 0, 1<<20, want)
	var resident int64
	for _, sv := range l.Segments() {
		if sv.Active {
			continue
		}
		r, err := l.Residency(sv, 0, sv.SizeBytes)
		if err != nil {
			t.Fatal(err)
		}
		resident += r.Resident * 4096
	}
	if resident > cold/100 {
		t.Errorf("%d of %d bytes stay resident", resident, cold)
	}
	for _, r := range s.Readers() {
		t.Logf("%s %s %s %s method %s", r.Key.Client, r.Class.State, r.Class.Text, r.Why, r.Method)
	}
	closeStore(t, s)
}

// A real-time reader that lost some pages gets those back from the device, and the rest from memory.
func TestRefillReadsWhatIsMissing(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := open(t, func(o *partition.Options) { o.Registerer, o.Readers = reg, admission.Config{} }, osFS(t))
	cfg := config()
	cfg.SegmentBytes = 8 << 20
	l := load(t, s, cfg, 1)
	var want []byte
	for i := range 100 {
		b := batch(fmt.Sprintf("b%d", i), 100, 1000, nil, int64(i))
		produce(t, l, b)
		want = append(want, b...)
	}
	const hole = 2 << 20
	sealed := l.Segments()[0]
	if _, err := l.Evict(sealed, hole, hole); err != nil {
		t.Fatal(err)
	}
	lost := int64(0) // the hole, and what proactive reclaim has taken since it was written
	for i, sv := range l.Segments() {
		r, err := l.Residency(sv, 0, sv.SizeBytes)
		if err != nil || i == 0 && r.Resident > r.Pages-hole/4096 {
			t.Fatalf("evicted: %+v, %v", r, err)
		}
		lost += (r.Pages - r.Resident) * 4096
	}
	consume(t, l, partition.ReaderRef{ClientID: "tail"}, 0, 1<<20, want)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	filled := int64(0)
	for _, f := range families {
		if f.GetName() == "lagoon_cold_read_bytes_total" {
			for _, m := range f.GetMetric() {
				filled += int64(m.GetCounter().GetValue())
			}
		}
	}
	if filled < hole-64<<10 || filled > lost+64<<10 { // pages at the edges of chunks; pages that proactive reclaim takes meanwhile
		t.Errorf("%d bytes were read from the device to get %d back", filled, lost)
	}
	closeStore(t, s)
}

func TestSegmentsMoveToTheColderTier(t *testing.T) {
	hot, cold := osFS(t), osFS(t)
	s := open(t, func(o *partition.Options) { o.PlanInterval = 10 * time.Millisecond }, hot, cold)
	cfg := config()
	cfg.LocalRetentionBytes = 2 << 20
	l := load(t, s, cfg, 1)
	var want []byte
	for i := range 400 {
		b := batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli())
		produce(t, l, b)
		want = append(want, b...)
	}
	waitFor(t, "segments in t1", func() bool {
		n := 0
		for _, sv := range l.Segments() {
			if sv.Tier == "t1" {
				n++
			}
		}
		return n >= 4
	})
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	closeStore(t, s)
	s = open(t, nil, hot, cold)
	l = load(t, s, cfg, 1)
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	closeStore(t, s)
}

// A segment that was sealed is below the recovery point soon, whatever the checkpoint interval: after a kill nobody has to
// read all of it. Takes a second.
func TestSealedSegmentsGetARecoveryPointSoon(t *testing.T) {
	fs := osFS(t)
	s := open(t, func(o *partition.Options) { o.CheckpointInterval = time.Hour }, fs)
	l := load(t, s, config(), 1)
	var last partition.Appended
	for range 25 { // 1 MiB segments
		last = produce(t, l, batch("seal", 10, 10_000, nil, 1))
	}
	segs := l.Segments()
	if len(segs) < 3 {
		t.Fatalf("%d segments up to offset %d", len(segs), last.Next)
	}
	active := segs[len(segs)-1].Base
	waitFor(t, "recovery point", func() bool {
		points, err := segment.ReadCheckpoint(fs, segment.RecoveryPointFile)
		if err != nil {
			t.Fatal(err)
		}
		return points[segment.TopicPartition{Topic: "orders", Partition: 0}] >= active
	})
	closeStore(t, s)
}

// waitFor polls a condition that other goroutines bring about and that has no event for tests.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

func TestDeleteRecordsAndRetention(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	cfg := config()
	l := load(t, s, cfg, 1)
	for i := range 400 {
		produce(t, l, batch(fmt.Sprint(i), 10, 1000, nil, time.Now().UnixMilli()))
	}
	start, err := l.DeleteRecords(context.Background(), 1234)
	if err != nil || start != 1234 {
		t.Fatalf("log start %d, %v", start, err)
	}
	if o := l.Offsets(); o.LogStart != 1234 {
		t.Errorf("offsets %+v", o)
	}
	if _, err := l.DeleteRecords(context.Background(), 4001); !errors.Is(err, partition.ErrOffsetOutOfRange) {
		t.Errorf("above the high watermark: %v", err)
	}
	s.Abandon()
	s = open(t, nil, fs)
	cfg.RetentionBytes = 1 << 20
	l = load(t, s, cfg, 1)
	if o := l.Offsets(); o.LogStart != 1234 || o.HighWatermark != 4000 {
		t.Errorf("after an unclean stop: %+v", o)
	}
	s.Retain(time.Now())
	if n := l.SizeBytes(); n > 3<<20 {
		t.Errorf("%d bytes after retention of 1 MiB", n)
	}
	cfg.RetentionMs = 1
	s.SetConfig("orders", cfg)
	s.Retain(time.Now().Add(time.Hour)) // rolls the active segment
	produce(t, l, batch("last", 1, 10, nil, time.Now().Add(2*time.Hour).UnixMilli()))
	s.Retain(time.Now().Add(time.Hour))
	if o := l.Offsets(); o.LogStart != 4000 || o.End != 4001 {
		t.Errorf("everything old should be gone: %+v", o)
	}
	closeStore(t, s)
}

func TestOffsetForTime(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	for i := range 300 {
		produce(t, l, batch(fmt.Sprint(i), 10, 1000, nil, int64(1000+i*10)))
	}
	for _, c := range []struct{ ms, want int64 }{{0, 0}, {1000, 0}, {1001, 10}, {1500, 500}, {3990, 2990}, {3991, -1}} {
		got, err := l.OffsetForTime(context.Background(), c.ms)
		if err != nil || int64(got.Offset) != c.want {
			t.Errorf("at %d: %+v, %v; want %d", c.ms, got, err, c.want)
		}
	}
	if got, err := l.MaxTimestamp(context.Background()); err != nil || got.Offset != 2990 || got.TimestampMs != 3990 {
		t.Errorf("largest timestamp: %+v, %v", got, err)
	}
	closeStore(t, s)
}

// Where no record has a time, looking for one reads nothing of the records, after a restart either; retention looks at all of them once.
func TestLookupInALogWithoutTimes(t *testing.T) {
	var read atomic.Int64 // of the segments
	fs := vfs.WithTrace(osFS(t), func(op vfs.Op) {
		if op.Kind == vfs.OpRead && strings.HasPrefix(op.Name, "orders-0/") && strings.HasSuffix(op.Name, ".log") {
			read.Add(op.Len)
		}
	})
	s := open(t, nil, fs)
	l := load(t, s, config(), 1)
	for i := range 40 {
		produce(t, l, batch(fmt.Sprint(i), 10, 10_000, nil, -1))
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			closeStore(t, s)
			s = open(t, nil, fs)
			l = load(t, s, config(), 1)
		}
		if n := len(l.Segments()); n < 4 {
			t.Fatalf("%d segments", n)
		}
		read.Store(0)
		for range 2 {
			if got, err := l.OffsetForTime(t.Context(), 1000); err != nil || got.Offset != -1 {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if n := read.Load(); n > int64(len(l.Segments()))<<12 {
			t.Errorf("restarted %v: %d bytes of the log were read", restarted, n)
		}
	}
	cfg := config()
	cfg.RetentionMs = 1 << 40
	s.SetConfig("orders", cfg)
	s.Retain(time.Now())
	read.Store(0)
	s.Retain(time.Now())
	if n := read.Load(); n > 0 {
		t.Errorf("retention read %d bytes again", n)
	}
	closeStore(t, s)
}

// The largest timestamp is that of what consumers see: neither records that are not durable yet nor those that were deleted hide it.
func TestMaxTimestampOfWhatIsSeen(t *testing.T) {
	type step struct {
		ms      int64
		records int
	}
	for _, c := range []struct {
		name    string
		durable []step
		waiting []step
		before  segment.Offset // DeleteRecords
		want    partition.TimestampOffset
	}{
		{"all durable", []step{{100, 1}, {300, 2}, {200, 1}}, nil, 0, partition.TimestampOffset{Offset: 1, TimestampMs: 300}},
		{"a newer one waits", []step{{100, 1}, {300, 2}, {200, 1}}, []step{{400, 1}}, 0, partition.TimestampOffset{Offset: 1, TimestampMs: 300}},
		{"a newer one waits, long after", []step{{250, 1}, {300, 2}, {200, 1}, {210, 1}, {220, 1}, {230, 1}, {240, 1}}, []step{{400, 1}, {500, 1}}, 0,
			partition.TimestampOffset{Offset: 1, TimestampMs: 300}},
		{"an equal one waits", []step{{100, 1}}, []step{{100, 1}}, 0, partition.TimestampOffset{Offset: 0, TimestampMs: 100}},
		{"all wait", nil, []step{{400, 1}}, 0, partition.TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}},
		{"the newest was deleted", []step{{300, 2}, {100, 1}, {200, 1}}, nil, 2, partition.TimestampOffset{Offset: 3, TimestampMs: 200}},
		{"deleted, and one waits", []step{{300, 2}, {200, 1}, {100, 1}}, []step{{400, 1}}, 2, partition.TimestampOffset{Offset: 2, TimestampMs: 200}},
		{"all deleted", []step{{300, 2}, {100, 1}}, nil, 3, partition.TimestampOffset{Offset: -1, TimestampMs: -1, LeaderEpoch: -1}},
	} {
		for _, size := range []int{10, 3000, 40_000} { // in one index entry, in many, in many segments
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				hold := make(chan struct{})
				held := atomic.Bool{}
				fs := vfs.WithFaults(vfs.NewMem(1), vfs.InjectorFunc(func(op vfs.Op) error {
					if held.Load() && op.Kind == vfs.OpSync {
						<-hold
					}
					return nil
				}))
				s := open(t, nil, fs)
				cfg := config()
				cfg.SegmentBytes = 64 << 10
				l := load(t, s, cfg, 1)
				for _, b := range c.durable {
					produce(t, l, batch("seen", b.records, size/b.records, nil, b.ms))
				}
				if c.before > 0 {
					if _, err := l.DeleteRecords(t.Context(), c.before); err != nil {
						t.Fatal(err)
					}
				}
				held.Store(true)
				for _, b := range c.waiting {
					if _, err := l.Append(t.Context(), partition.AppendRequest{Records: batch("waits", b.records, size/b.records, nil, b.ms)}); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := l.MaxTimestamp(t.Context()); err != nil || got != c.want {
					t.Errorf("%+v, %v; want %+v", got, err, c.want)
				}
				held.Store(false)
				close(hold)
				closeStore(t, s)
			})
		}
	}
}

// A batch of which the newest record was deleted, and the rest was not.
func TestMaxTimestampInAHalfDeletedBatch(t *testing.T) {
	s := open(t, nil, vfs.NewMem(1))
	l := load(t, s, config(), 1)
	b := batch("half", 2, 10, nil, 300)
	binary.BigEndian.PutUint64(b[27:], 250) // the first timestamp; what follows are differences from it
	b[segment.BatchHeaderSize+2] = 50 << 1  // zigzag; of the first record
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	produce(t, l, b)
	produce(t, l, batch("old", 1, 10, nil, 100))
	for before, want := range []partition.TimestampOffset{{Offset: 0, TimestampMs: 300}, {Offset: 1, TimestampMs: 250}, {Offset: 2, TimestampMs: 100}} {
		if _, err := l.DeleteRecords(t.Context(), segment.Offset(before)); err != nil {
			t.Fatal(err)
		}
		if got, err := l.MaxTimestamp(t.Context()); err != nil || got != want {
			t.Errorf("below %d deleted: %+v, %v; want %+v", before, got, err, want)
		}
	}
	closeStore(t, s)
}

func TestDeletedTopicNeverComesBack(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	l := load(t, s, config(), 3)
	produce(t, l, batch("x", 1, 10, nil, 1))
	if err := s.Delete(context.Background(), "orders", topicID); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("y", 1, 10, nil, 1)}); !errors.Is(err, partition.ErrClosed) {
		t.Errorf("append to a deleted log: %v", err)
	}
	l, err := s.Create(context.Background(), "orders", [16]byte{9}, 0, config())
	if err != nil {
		t.Fatal(err)
	}
	if o := l.Offsets(); o.End != 0 {
		t.Errorf("the new topic begins at %+v", o)
	}
	closeStore(t, s)
}

// A limit of 0 is one, as in Kafka: no record from the future, none from the past, no record at all. The broker's own markers pass.
func TestLimitsOfZero(t *testing.T) {
	s := open(t, nil, osFS(t))
	cfg := config()
	l := load(t, s, cfg, 1)
	try := func(d time.Duration) error {
		_, err := l.Append(t.Context(), partition.AppendRequest{Records: batch("x", 1, 10, nil, time.Now().Add(d).UnixMilli())})
		return err
	}
	for _, tc := range []struct {
		what         string
		change       func(*partition.Config)
		past, future error
	}{
		{"after", func(c *partition.Config) { c.TimestampAfterMaxMs = 0 }, nil, segment.ErrInvalidTimestamp},
		{"before", func(c *partition.Config) { c.TimestampBeforeMaxMs = 0 }, segment.ErrInvalidTimestamp, nil},
		{"stamped here", func(c *partition.Config) { c.TimestampAfterMaxMs, c.LogAppendTime = 0, true }, nil, nil},
		{"bytes", func(c *partition.Config) { c.MaxMessageBytes = 0 }, segment.ErrMessageTooLarge, segment.ErrMessageTooLarge},
	} {
		changed := cfg
		tc.change(&changed)
		s.SetConfig("orders", changed)
		if err := try(-time.Hour); !errors.Is(err, tc.past) {
			t.Errorf("%s: an hour ago: %v, want %v", tc.what, err, tc.past)
		}
		if err := try(time.Hour); !errors.Is(err, tc.future) {
			t.Errorf("%s: in an hour: %v, want %v", tc.what, err, tc.future)
		}
		marker := segment.AppendMarker(nil, 7, 0, segment.Marker{Commit: true}, 1)
		if _, err := l.Append(t.Context(), partition.AppendRequest{Records: marker, Internal: true}); err != nil {
			t.Errorf("%s: a marker: %v", tc.what, err)
		}
	}
	closeStore(t, s)
}

// What a topic may have for its indexes harms nobody: the smallest index makes small segments, the smallest interval an entry per batch.
func TestSmallestIndexes(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	cfg := config()
	cfg.SegmentIndexBytes, cfg.IndexIntervalBytes = 4, 0
	l := load(t, s, cfg, 1)
	for i := range 20 {
		if _, err := l.Append(t.Context(), partition.AppendRequest{Records: batch("x", 1, 100, nil, int64(1+i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Fenced(); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Segments()); n < 5 {
		t.Errorf("%d segments", n)
	}
	cfg.SegmentIndexBytes = 1 << 20
	s.SetConfig("orders", cfg)
	base := l.Offsets().End
	for range 20 {
		produce(t, l, batch("y", 1, 100, nil, 30))
	}
	last := fmt.Sprintf("orders-0/%020d.index", l.Segments()[len(l.Segments())-1].Base)
	closeStore(t, s)
	if e, err := fs.Stat(last); err != nil || e.Size != 8*19 {
		t.Errorf("%s: %d bytes, %v", last, e.Size, err)
	}
	s = open(t, nil, fs)
	if end := load(t, s, cfg, 1).Offsets().End; end != base+20 {
		t.Errorf("end %d, want %d", end, base+20)
	}
	closeStore(t, s)
}

// TestBatchLargerThanASegment is refused, and one that just fits is not.
func TestBatchLargerThanASegment(t *testing.T) {
	s := open(t, nil, osFS(t))
	cfg := config()
	cfg.SegmentBytes, cfg.MaxMessageBytes = 1<<20, 2<<20
	l := load(t, s, cfg, 1)
	produce(t, l, batch("small", 1, 10, nil, 1))
	large := batch("large", 1, 1<<20, nil, 1)
	if _, err := l.Append(t.Context(), partition.AppendRequest{Records: large}); !errors.Is(err, segment.ErrFull) {
		t.Errorf("a batch of %d bytes: %v", len(large), err)
	}
	if end := l.Offsets().End; end != 1 {
		t.Errorf("end %d after the refused batch", end)
	}
	fits := batch("fits", 1, 1<<20-200, nil, 1)
	produce(t, l, fits)
	if end := l.Offsets().End; end != 2 || len(fits) > 1<<20 {
		t.Errorf("end %d after a batch of %d bytes", end, len(fits))
	}
	closeStore(t, s)
}

// A few records that claim to be 2^31 each fill a segment's offsets, not its bytes: the next batch begins another one, and nobody is offline.
func TestBatchesThatSpanManyOffsets(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	l := load(t, s, config(), 1)
	var want []byte
	for i := range segment.Offset(3) {
		b := batch("many", 1, 10, nil, 1)
		binary.BigEndian.PutUint16(b[21:], 4) // of compressed records the header is believed
		binary.BigEndian.PutUint32(b[23:], math.MaxInt32-1)
		binary.BigEndian.PutUint32(b[57:], math.MaxInt32)
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
		a, err := l.Append(t.Context(), partition.AppendRequest{Records: b})
		if err != nil || a.Base != i*math.MaxInt32 || s.Fenced() != nil {
			t.Fatalf("batch %d: %+v, %v; fenced: %v", i, a, err, s.Fenced())
		}
		if err := l.Durable(t.Context(), a.Next); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	s.Abandon()
	s = open(t, nil, fs)
	l = load(t, s, config(), 1)
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	closeStore(t, s)
}

// In a log of append times the clients' own, which nobody checks there, do not decide when a segment is too old.
func TestClientsTimesDoNotRollALogOfAppendTimes(t *testing.T) {
	s := open(t, nil, osFS(t))
	cfg := config()
	cfg.LogAppendTime, cfg.SegmentMs = true, time.Hour.Milliseconds()
	l := load(t, s, cfg, 1)
	for i := range int64(5) {
		produce(t, l, batch("x", 1, 10, nil, time.Now().UnixMicro()+i)) // for milliseconds
	}
	if n := len(l.Segments()); n != 1 {
		t.Errorf("%d segments", n)
	}
	closeStore(t, s)
}
