package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// TestCompactAfterAMoveFromTheSecondDirectory: a migration that has ended keeps no compaction waiting, whichever directory of its tier it
// took the segment from.
func TestCompactAfterAMoveFromTheSecondDirectory(t *testing.T) {
	for _, home := range []int{0, 1} {
		bubble(t, func(t *testing.T, w *world) {
			w.change = quietCompaction
			noErr(t, w.open())
			topic, err := w.create("orders", 1, 2, compacted())
			noErr(t, err)
			first, second := homes(t, w, topic)
			p := []*partTruth{first, second}[home]
			l, err := w.log(p)
			noErr(t, err)
			k := newKeyed(t, 3)
			k.codecs = 4
			for range 40 {
				noErr(t, k.write(l, time.Now().UnixMilli()))
			}
			synctest.Wait()
			if n, err := w.migrate(p); err != nil || n == 0 {
				t.Fatalf("%d segments moved, %v", n, err)
			}
			w.s.Compact(context.Background())
			for _, v := range w.s.Compactions() {
				if v.Work.Partition == p.index && (v.Last.Err != nil || v.Last.CleanedTo == 0) {
					t.Errorf("home %d: compacted up to %d, %v", home, v.Last.CleanedTo, v.Last.Err)
				}
			}
			noErr(t, w.close())
		})
	}
}

// TestMoveGoesWhereThereIsRoom: of a tier's directories the one with the most room takes a segment, be they of different size.
func TestMoveGoesWhereThereIsRoom(t *testing.T) {
	fss := []vfs.FS{osFS(t), osFS(t), osFS(t)}
	s := open(t, func(o *partition.Options) {
		for i, tier := range []string{"t0", "t1", "t1"} {
			o.Dirs[i].Tier = tier
		}
		o.Dirs[1].MaxUsedBytes, o.Dirs[2].MaxUsedBytes = 1<<20, 100<<20
		o.PlanInterval = 10 * time.Millisecond
	}, fss...)
	cfg := config()
	cfg.LocalRetentionBytes = 1
	l := load(t, s, cfg, 1)
	for i := range 250 {
		produce(t, l, batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli()))
	}
	waitFor(t, "all but one of the sealed segments in t1", func() bool {
		in := 0
		for _, sv := range l.Segments() {
			if sv.Tier == "t1" {
				in++
			}
		}
		return in >= len(l.Segments())-2
	})
	for _, d := range s.Dirs() {
		if d.MaxUsedBytes > 0 && d.UsedBytes > d.MaxUsedBytes {
			t.Errorf("%s holds %d bytes of %d", d.Name, d.UsedBytes, d.MaxUsedBytes)
		}
	}
	closeStore(t, s)
}

// TestPlannerSeesOldData: what the planner is told of segments that no timestamp, or one from the future, describes, and of a compacted
// topic's, which no retention waits for.
func TestPlannerSeesOldData(t *testing.T) {
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		stamp  func(now time.Time) int64
		change func(*partition.Config)
		age    time.Duration // of the segments when the plan is made
		moves  bool
	}{
		"old":                    {stamp: time.Time.UnixMilli, age: day, moves: true},
		"young":                  {stamp: time.Time.UnixMilli, age: time.Minute},
		"from the future, old":   {stamp: func(now time.Time) int64 { return now.Add(1000 * day).UnixMilli() }, age: day, moves: true},
		"from the future, young": {stamp: func(now time.Time) int64 { return now.Add(1000 * day).UnixMilli() }, age: time.Minute},
		"from the future, older than retention": {stamp: func(now time.Time) int64 { return now.Add(1000 * day).UnixMilli() }, age: day, moves: true,
			change: func(c *partition.Config) { c.RetentionMs = 2 * time.Hour.Milliseconds() }},
		"without a time, past retention": {stamp: func(time.Time) int64 { return -1 }, age: day,
			change: func(c *partition.Config) { c.RetentionMs = 2 * time.Hour.Milliseconds() }},
		"without a time, old":            {stamp: func(time.Time) int64 { return -1 }, age: day, moves: true},
		"without a time, young":          {stamp: func(time.Time) int64 { return -1 }, age: time.Minute},
		"past retention":                 {stamp: time.Time.UnixMilli, change: func(c *partition.Config) { c.RetentionMs = 1000 }, age: day},
		"past retention, compacted only": {stamp: time.Time.UnixMilli, change: func(c *partition.Config) { c.RetentionMs, c.Delete = 1000, false }, age: day, moves: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				noErr(t, w.open())
				cfg := smallSegments()
				cfg.LocalRetentionMs = time.Hour.Milliseconds()
				if c.change != nil {
					c.change(&cfg)
				}
				topic, err := w.create("orders", 1, 1, cfg)
				noErr(t, err)
				l, err := w.log(topic.parts[0])
				noErr(t, err)
				for i := range 20 {
					produce(t, l, batch(fmt.Sprint(i), 2, 600, nil, c.stamp(time.Now())))
				}
				time.Sleep(c.age)
				synctest.Wait()
				moves, _ := tiering.Plan(w.s.TierSnapshot())
				if n := len(l.Segments()); n < 3 || len(moves) != 0 && !c.moves || len(moves) != n-1 && c.moves {
					t.Errorf("%d of %d segments move: %+v", len(moves), n, moves)
				}
				noErr(t, w.close())
			})
		})
	}
}

// TestNoMoveToMakeRoomOnOneFileSystem: where tiers share a file system no watermark moves anything between them.
func TestNoMoveToMakeRoomOnOneFileSystem(t *testing.T) {
	s := open(t, func(o *partition.Options) { o.Dirs[0].MaxUsedBytes, o.Dirs[0].High, o.Dirs[0].Low = 1<<20, 0.5, 0.1 }, osFS(t), osFS(t))
	l := load(t, s, config(), 1)
	for i := range 150 {
		produce(t, l, batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli()))
	}
	waitFor(t, "sealed segments", func() bool { return l.Segments()[0].Sealed })
	if moves, _ := tiering.Plan(s.TierSnapshot()); len(moves) > 0 {
		t.Errorf("moves: %+v", moves)
	}
	closeStore(t, s)
}

// TestFailedDirectoryLeavesTheOthersAlone: a directory that cannot be written, nor read, takes no part in what happens to the others: topics
// are made there, also under the name of one that it knew.
func TestFailedDirectoryLeavesTheOthersAlone(t *testing.T) {
	for _, kinds := range []vfs.Kind{vfs.OpSync | vfs.OpWrite, vfs.OpAny} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var board switchboard
				w.inject = board.of
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 2, smallSegments())
				noErr(t, err)
				bad, good := homes(t, w, topic)
				a, b := bad.client("a", 5), good.client("b", 6)
				noErr(t, errors.Join(w.send(a, 2, 500), w.ack(a), w.send(b, 2, 500), w.ack(b)))
				time.Sleep(time.Minute) // checkpoints name both
				board.set(0, &vfs.Fault{Kinds: kinds, Sticky: true, Err: syscall.EIO})
				noErr(t, errors.Join(w.send(b, 2, 500), w.ack(b)))
				time.Sleep(time.Minute) // and a checkpoint fails
				if err := errors.Join(w.send(a, 2, 500), w.ack(a)); !errors.Is(err, partition.ErrFenced) {
					t.Fatalf("append to the failed directory: %v", err)
				}
				if err := w.s.Delete(context.Background(), "orders", topic.id); (err != nil) != (kinds == vfs.OpAny) {
					t.Errorf("a topic deleted beside a failed directory: %v", err)
				}
				if _, err := w.s.Create(context.Background(), "other", [16]byte{2}, 0, smallSegments()); err != nil {
					t.Errorf("a topic made beside a failed directory: %v", err)
				}
				if kinds == vfs.OpAny { // its directories are not gone yet: the broker asks for no other one of the name
				} else if _, err := w.s.Create(context.Background(), "orders", [16]byte{3}, 0, smallSegments()); err != nil {
					t.Errorf("a topic of a deleted one's name beside a failed directory: %v", err)
				}
				for _, d := range w.s.Dirs() {
					if (d.Err != nil) != (d.Name == "t0") {
						t.Errorf("%s: %v", d.Name, d.Err)
					}
				}
				if l, ok := w.s.Log("other", 0); !ok {
					t.Error("the new topic is not served")
				} else {
					produce(t, l, batch("x", 1, 100, nil, 1))
				}
			})
		})
	}
}

// TestDeletedRecordsTakeNoLaterOnes: a log with a flush interval forgets records in a power cut that were deleted before they were synced. The offsets
// are given out again, and what is there then is not taken for deleted.
func TestDeletedRecordsTakeNoLaterOnes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		cfg := config()
		cfg.FlushInterval = time.Hour
		topic, err := w.create("orders", 1, 1, cfg)
		noErr(t, err)
		p := topic.parts[0]
		l, err := w.log(p)
		noErr(t, err)
		for range 10 {
			_, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("before", 10, 100, nil, 1)})
			noErr(t, err)
		}
		start, err := l.DeleteRecords(context.Background(), -1)
		if err != nil || start != 100 {
			t.Fatalf("deleted below %d, %v", start, err)
		}
		w.abandon()
		f := w.fork(w.disks.crash(vfs.CrashOptions{}))
		defer f.abandon()
		noErr(t, f.open())
		if l, err = f.log(p); err != nil {
			t.Fatal(err)
		}
		var next segment.Offset
		for range 10 {
			a, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("after", 10, 100, nil, 1)})
			noErr(t, err)
			next = a.Next
		}
		first := next - 100
		f.abandon()
		f.disks = f.disks.kill()
		noErr(t, f.open())
		if l, err = f.log(p); err != nil {
			t.Fatal(err)
		}
		if o := l.Offsets(); o.LogStart > first || o.End != next {
			t.Errorf("after kill -9 the log is from %d to %d, records %d to %d were appended and none of them deleted", o.LogStart, o.End, first, next)
		}
	})
}

// TestDirectoryThatIsNotConfigured: what lies in a directory that the configuration does not name any more is not taken for deleted. Partitions that
// need it are offline until it is back, and nothing is made in their place.
func TestDirectoryThatIsNotConfigured(t *testing.T) {
	for name, left := range map[string][]int{"colder tier": {0, 1}, "second directory": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 2, smallSegments())
				noErr(t, err)
				first, second := homes(t, w, topic)
				a, b := first.client("a", 5), second.client("b", 6)
				for range 12 {
					noErr(t, errors.Join(w.send(a, 2, 600), w.ack(a), w.send(b, 2, 600), w.ack(b)))
				}
				synctest.Wait()
				if n, err := w.migrate(first); err != nil || n == 0 {
					t.Fatalf("%d segments moved, %v", n, err)
				}
				noErr(t, w.close())

				known := maps.Clone(w.known)
				w.change = func(o *partition.Options) {
					all := o.Dirs
					o.Dirs = nil
					for _, i := range left {
						o.Dirs = append(o.Dirs, all[i])
					}
				}
				noErr(t, w.open())
				lost, whole := first, second
				if left[1] == 2 {
					lost, whole = second, first
				}
				for p, offline := range map[*partTruth]bool{lost: true, whole: false} {
					l, err := w.log(p)
					noErr(t, err)
					if err := l.Err(); (err != nil) != offline || offline && !strings.Contains(err.Error(), "not configured") {
						t.Errorf("%s: %v", p.name(), err)
					}
				}
				time.Sleep(time.Minute)
				w.s.Retain(time.Now())
				_, err = w.s.Create(context.Background(), "other", [16]byte{2}, 0, smallSegments()) // new ones need nothing of it
				noErr(t, err)
				noErr(t, w.close())

				w.known, w.change = known, nil
				w.topics = append(w.topics, &topicTruth{name: "other", id: [16]byte{2}, cfg: smallSegments(), parts: []*partTruth{}})
				noErr(t, w.open())
				w.s.Retain(time.Now())
				for _, p := range topic.parts {
					l, err := w.log(p)
					noErr(t, err)
					if o := l.Offsets(); l.Err() != nil || o.LogStart != 0 || o.HighWatermark != p.acked {
						t.Errorf("%s is back with %+v, %v; %d records were acked", p.name(), o, l.Err(), p.acked)
					}
				}
				w.readAll()
				noErr(t, w.close())
			})
		})
	}
}

// TestMoveWhatRecoveryHasFilled: a log that lost durable records goes on behind them, and its segments leave the hottest tier like others.
func TestMoveWhatRecoveryHasFilled(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		cfg := config()
		topic, err := w.create("orders", 1, 1, cfg)
		noErr(t, err)
		p := topic.parts[0]
		c := p.client("a", 0)
		for range 4 {
			noErr(t, errors.Join(w.send(c, 2, 500), w.ack(c)))
		}
		time.Sleep(time.Minute) // the recovery point tells of all of it
		w.abandon()
		w.disks = w.disks.kill()
		name := p.name() + "/" + segment.LogName(0)
		f, err := w.disks[w.diskOf(t, name)].Open(name, vfs.ReadWrite)
		noErr(t, err)
		noErr(t, errors.Join(f.Truncate(3*int64(len(p.sent[0]))), f.SyncData(), f.Close()))
		topic.cfg.SegmentBytes = 4000
		noErr(t, w.open())
		for range 8 {
			noErr(t, errors.Join(w.send(c, 2, 500), w.ack(c)))
		}
		synctest.Wait()
		l, err := w.log(p)
		noErr(t, err)
		if n, err := w.migrate(p); err != nil || n == 0 || l.Segments()[0].Tier != "t1" {
			t.Errorf("%d segments moved, %v: %+v", n, err, w.s.Migrator().Snapshot().Migrations)
		}
		noErr(t, w.close())
	})
}

// TestFullDirectoryGives: of a tier with several directories the one that is above its own high watermark gives segments until it is at its low one,
// however empty the others are, and takes none back that are pinned there.
func TestFullDirectoryGives(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.change = func(o *partition.Options) {
			for i, most := range []int64{30_000, 1_000_000, 1_000_000} {
				o.Dirs[i].MaxUsedBytes, o.Dirs[i].High, o.Dirs[i].Low = most, 0.8, 0.5
			}
			o.PlanInterval = time.Second
		}
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		small, large := homes(t, w, topic)
		a, b := small.client("a", 0), large.client("b", 0)
		used := func() (int64, int64) { d := w.s.Dirs(); return d[0].UsedBytes, d[1].UsedBytes }
		for range 60 {
			noErr(t, errors.Join(w.send(a, 2, 600), w.ack(a), w.send(b, 2, 600), w.ack(b)))
			time.Sleep(5 * time.Second)
			if first, _ := used(); first > 24_000+4000 {
				t.Fatalf("%d bytes in the directory that takes 30000", first)
			}
		}
		if _, second := used(); second < 60*1200 {
			t.Errorf("the other directory gave segments, too: it holds %d bytes", second)
		}
		cfg := topic.cfg
		cfg.Pins = map[int32]string{small.index: "t0"}
		w.s.SetConfig("orders", cfg)
		before := w.s.MoveTotals().Segments
		filled, _ := used()
		time.Sleep(5 * time.Minute)
		if first, _ := used(); first > max(filled, 15_000) {
			t.Errorf("%d bytes with the pin, %d before, the low watermark is at 15000", first, filled)
		}
		if moved := w.s.MoveTotals().Segments - before; moved > 3 {
			t.Errorf("%d segments moved", moved)
		}
		w.readAll()
		noErr(t, w.close())
	})
}

// TestHungDirectoryHoldsUpNoOther: while a disk answers no write, the logs of the others are flushed when their interval is over, lose what
// retention and clients delete, and new ones are made.
func TestHungDirectoryHoldsUpNoOther(t *testing.T) {
	var hangs atomic.Bool
	hung, release := make(chan struct{}, 64), make(chan struct{})
	var flushes atomic.Int64
	disk := func(i int) vfs.FS {
		return vfs.WithFaults(osFS(t), vfs.InjectorFunc(func(op vfs.Op) error {
			if i == 1 && op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") {
				flushes.Add(1)
			}
			if i == 0 && op.Kind&vfs.OpMutating != 0 && hangs.Load() {
				hung <- struct{}{}
				<-release
			}
			return nil
		}))
	}
	s := open(t, func(o *partition.Options) {
		o.Dirs[1].Tier = "t0"
		o.RetentionInterval, o.CheckpointInterval = 20*time.Millisecond, 20*time.Millisecond
	}, disk(0), disk(1))
	cfg := config()
	cfg.FlushInterval = time.Millisecond
	load(t, s, cfg, 2)
	logs := s.Logs()
	bad, good := logs[0], logs[1]
	if bad.Segments()[0].Dir != "t0" {
		bad, good = good, bad
	}
	write := func(l *partition.Log) {
		if _, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("x", 10, 20_000, nil, 1)}); err != nil {
			t.Error(err)
		}
	}
	for range 30 {
		write(good)
	}
	waitFor(t, "sealed segments", func() bool { return good.Segments()[0].Sealed })
	write(bad)
	if err := bad.Synced(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := bad.DeleteRecords(context.Background(), 5); err != nil {
			t.Error(err)
		}
	})
	<-hung
	wg.Go(func() { write(bad) })
	<-hung
	before := flushes.Load()
	write(good)
	waitFor(t, "the interval to end", func() bool { return flushes.Load() > before })
	if start, err := good.DeleteRecords(context.Background(), 5); err != nil || start != 5 {
		t.Errorf("deleted below %d, %v", start, err)
	}
	cfg.RetentionBytes = 1
	s.SetConfig("orders", cfg)
	waitFor(t, "retention", func() bool { return good.Offsets().LogStart > 5 })
	made := make(chan error, 2)
	for i := range int32(2) { // one of them in each directory
		wg.Go(func() {
			_, err := s.Create(context.Background(), "other", [16]byte{2}, i, cfg)
			made <- err
		})
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
	hangs.Store(false)
	close(release)
	wg.Wait()
	closeStore(t, s)
}

// TestDirectoryOfAnotherTopic: what another topic of the name has left, in whatever tier, is neither read nor deleted as this one's.
func TestDirectoryOfAnotherTopic(t *testing.T) {
	for _, tier := range []string{"t0", "t1"} {
		t.Run(tier, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 1, smallSegments())
				noErr(t, err)
				p := topic.parts[0]
				c := p.client("a", 0)
				for range 12 {
					noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
				}
				synctest.Wait()
				if n, err := w.migrate(p); err != nil || n == 0 {
					t.Fatalf("%d segments moved, %v", n, err)
				}
				noErr(t, w.close())
				disk := w.disks[w.diskOf(t, p.name()+"/"+segment.LogName(map[string]segment.Offset{"t0": 18, "t1": 0}[tier]))]
				noErr(t, segment.WritePartitionMetadata(disk, p.name(), [16]byte{9}))
				before, err := disk.List(p.name())
				noErr(t, err)

				noErr(t, w.open())
				l, err := w.log(p)
				noErr(t, err)
				if err := l.Err(); err == nil || !strings.Contains(err.Error(), "another topic") {
					t.Errorf("served as %+v, %v", l.Offsets(), err)
				}
				noErr(t, w.drop(topic))
				time.Sleep(time.Hour)
				if after, err := disk.List(p.name()); err != nil || len(after) != len(before) {
					t.Errorf("%d of %d files are left, %v", len(after), len(before), err)
				}
				for i, m := range w.disks {
					if _, err := m.Stat(p.name()); (err == nil) != (m == disk) {
						t.Errorf("disk %d: %v", i, err)
					}
				}
				noErr(t, w.close())
			})
		})
	}
}

// TestFullColdDirectory: appends never go to a cold tier, and where one is short of space nothing says that they are refused.
func TestFullColdDirectory(t *testing.T) {
	logged := newWaitedLog()
	s := open(t, func(o *partition.Options) {
		o.Dirs[1].ReserveBytes = 1 << 60
		o.Logger = slog.New(slog.NewTextHandler(logged, nil))
	}, osFS(t), osFS(t))
	l := load(t, s, config(), 1)
	produce(t, l, batch("x", 1, 100, nil, 1))
	logged.await("below its free-space reserve", "tier=t1")
	logged.mu.Lock()
	text := logged.b.String()
	logged.mu.Unlock()
	if strings.Contains(text, "appends are refused") || !strings.Contains(text, "nothing is compacted") {
		t.Errorf("log says\n%s", text)
	}
	closeStore(t, s)
}

// TestRetentionOfNothing: with retention.bytes=0 all records go, as in Kafka, those of the active segment, too.
func TestRetentionOfNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		cfg := smallSegments()
		cfg.RetentionBytes = 0
		topic, err := w.create("orders", 1, 1, cfg)
		noErr(t, err)
		p := topic.parts[0]
		l, err := w.log(p)
		noErr(t, err)
		for _, n := range []int{1, 12} {
			c := p.client("a", 0)
			for range n {
				noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
			}
			for range 3 { // one to roll; what is sealed then goes
				w.retain(p)
				synctest.Wait()
			}
			if o := l.Offsets(); o.LogStart != o.End || len(l.Segments()) != 1 {
				t.Errorf("%d segments, %+v", len(l.Segments()), o)
			}
		}
		noErr(t, w.close())
	})
}
