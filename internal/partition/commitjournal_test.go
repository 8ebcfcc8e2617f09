package partition_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/journal"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// replays counts what starts tell of replays of commit journals; it is the log of stores.
type replays struct {
	rounds, writtenBytes, skipped, short atomic.Int64
}

func (r *replays) Enabled(context.Context, slog.Level) bool { return true }
func (r *replays) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *replays) WithGroup(string) slog.Handler            { return r }

func (r *replays) Handle(_ context.Context, rec slog.Record) error {
	switch {
	case rec.Message == "commit journal replayed":
		rec.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "rounds":
				r.rounds.Add(a.Value.Int64())
			case "written_bytes":
				r.writtenBytes.Add(a.Value.Int64())
			case "skipped":
				r.skipped.Add(a.Value.Int64())
			}
			return true
		})
	case strings.HasPrefix(rec.Message, "segment file shorter"):
		r.short.Add(1)
	}
	return nil
}

// withJournal gives the hot directories small commit journals: they turn over all the time.
func withJournal(opt *partition.Options) {
	for i := range opt.Dirs {
		if opt.Dirs[i].Tier == diskTiers[0] {
			opt.Dirs[i].JournalBytes = 64 << 10
		}
	}
}

// eachCommit runs a test for each way to commit, and tells what was replayed. With a journal something has to be.
func eachCommit(t *testing.T, run func(t *testing.T, change func(*partition.Options))) *replays {
	t.Helper()
	r := &replays{}
	t.Run("files", func(t *testing.T) { run(t, nil) })
	t.Run("journal", func(t *testing.T) {
		run(t, func(opt *partition.Options) {
			withJournal(opt)
			opt.Logger = slog.New(r)
		})
		if r.rounds.Load() == 0 {
			t.Error("no start had a round to replay: the test looks at nothing")
		}
	})
	return r
}

// fillJournal opens w with small journals, and has a producer for each of two partitions send batches that are acknowledged one by one.
func fillJournal(t *testing.T, w *world, batches int) {
	t.Helper()
	w.change = withJournal
	noErr(t, w.open())
	topic, err := w.create("orders", 1, 2, smallSegments())
	noErr(t, err)
	for i, p := range topic.parts {
		c := p.client("a", int64(5+i))
		for range batches {
			noErr(t, errors.Join(w.send(c, 1, 700), w.ack(c)))
		}
	}
}

// cutPower ends w with nothing kept that was not synced, and lives on from there.
func cutPower(t *testing.T, w *world) {
	t.Helper()
	w.abandon()
	f := w.fork(w.disks.crash(vfs.CrashOptions{}))
	f.live()
	report(t, f, "power cut")
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func isJournal(name string) bool { return strings.HasPrefix(name, "commit-journal.") }

// TestJournalAcksDoNotWaitForFiles: while a segment file's sync hangs acks go on, until both files of the journal are full, for what is in the
// older one is not stable yet. A power cut then loses nothing, and when the sync ends acks go on.
func TestJournalAcksDoNotWaitForFiles(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject, w.change = board.of, withJournal
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 1, config())
		noErr(t, err)
		c := topic.parts[0].client("a", 5)
		release := make(chan struct{})
		for disk := range w.disks {
			board.set(disk, vfs.InjectorFunc(func(op vfs.Op) error {
				if op.Kind == vfs.OpSync && isLog(op.Name) {
					<-release
				}
				return nil
			}))
		}
		const most = 100
		n, acked := 0, make(chan error, 1)
		for ; n < most; n++ {
			noErr(t, w.send(c, 1, 1000))
			go func() { acked <- w.ack(c) }()
			synctest.Wait()
			if len(acked) == 0 {
				break
			}
			noErr(t, <-acked)
		}
		if n < 20 || n == most {
			close(release)
			t.Fatalf("%d acks while no segment file is synced; the journal has room for some 24", n)
		}
		after := w.fork(w.disks.crash(vfs.CrashOptions{Live: true}))
		close(release)
		noErr(t, <-acked)
		noErr(t, errors.Join(w.send(c, 1, 1000), w.ack(c)))
		after.live()
		report(t, after, "power cut while the journal is full")
	})
}

// TestJournalFailureFences: a round that cannot be written is final for the directory, and nobody is told that it is stable.
func TestJournalFailureFences(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.OpWrite, vfs.OpSync} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var board switchboard
				w.inject, w.change = board.of, withJournal
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 2, config())
				noErr(t, err)
				bad, good := homes(t, w, topic)
				a, b := bad.client("a", 5), good.client("b", 6)
				noErr(t, errors.Join(w.send(a, 2, 500), w.ack(a), w.send(b, 2, 500), w.ack(b)))
				fail := &atomic.Int64{}
				board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
					if op.Kind == kind && isJournal(op.Name) && fail.Add(1) == 1 {
						return syscall.EIO
					}
					return nil
				}))
				noErr(t, w.send(a, 2, 500))
				if err := w.ack(a); !errors.Is(err, partition.ErrFenced) || !errors.Is(err, syscall.EIO) {
					t.Errorf("ack: %v", err)
				}
				if err := w.send(a, 1, 100); !errors.Is(err, partition.ErrFenced) {
					t.Errorf("append: %v", err)
				}
				noErr(t, errors.Join(w.send(b, 2, 500), w.ack(b)))
				if fail.Load() != 1 {
					t.Errorf("the journal was written to %d times after it had failed", fail.Load()-1)
				}
				w.abandon()
				f := w.fork(w.disks.crash(vfs.CrashOptions{KeepPercent: vfs.KeepRandom, Seed: 3}))
				f.live()
				report(t, f, "after a restart")
			})
		})
	}
}

// hangingKernel has write-outs wait.
type hangingKernel struct {
	cachectl.Kernel
	release chan struct{}
	hangs   atomic.Bool
}

func (k *hangingKernel) WriteOut(f vfs.File, off, n int64) error {
	k.hangs.Store(true)
	<-k.release
	return k.Kernel.WriteOut(f, off, n)
}

// TestJournalStallIsTold: a round that does not come back is told as a commit that does not, and so is a piece of a segment file, which the rounds
// wait for.
func TestJournalStallIsTold(t *testing.T) {
	for _, piece := range []bool{false, true} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var board switchboard
				kernel := &hangingKernel{Kernel: cachectl.LinuxKernel(), release: make(chan struct{})}
				w.inject, w.change, w.cache = board.of, withJournal, cachectl.New(kernel, cachectl.Options{})
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 2, config())
				noErr(t, err)
				here, _ := homes(t, w, topic)
				c := here.client("a", 5)
				if !piece {
					board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
						if op.Kind == vfs.OpWrite && isJournal(op.Name) {
							<-kernel.release
						}
						return nil
					}))
				}
				for n := 0; n == 0 || piece && !kernel.hangs.Load(); n++ {
					if n == 100 {
						t.Fatal("nothing is brought into the segment file")
					}
					noErr(t, w.send(c, 1, 1000))
					synctest.Wait()
				}
				time.Sleep(6 * time.Second)
				stalls := w.s.Stalls()
				close(kernel.release)
				noErr(t, w.ack(c))
				if len(stalls) != 1 || stalls[0].IO != "commit" || stalls[0].Tier != "t0" {
					t.Errorf("told %+v", stalls)
				}
				synctest.Wait()
				if left := w.s.Stalls(); len(left) != 0 {
					t.Errorf("still told %+v", left)
				}
			})
		})
	}
}

// TestJournalSynced: what somebody relies on in a topic with a flush interval goes through the journal, also what takes several rounds. No
// segment file is synced for it.
func TestJournalSynced(t *testing.T) {
	for _, batches := range []int{1, 60} {
		t.Run(fmt.Sprint(batches), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var ops opLog
				w.trace, w.change = ops.note, withJournal
				noErr(t, w.open())
				lazy := config()
				lazy.FlushInterval = time.Hour
				topic, err := w.create("orders", 1, 1, lazy)
				noErr(t, err)
				p := topic.parts[0]
				c := p.client("a", 5)
				syncs := func() int {
					return ops.count(func(op loggedOp) bool { return op.Kind == vfs.OpSync && isLog(op.Name) })
				}
				before := syncs()
				for range batches {
					noErr(t, w.send(c, 1, 2000))
				}
				l, err := w.log(p)
				noErr(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				noErr(t, l.Synced(ctx, p.written))
				if n := syncs() - before; batches == 1 && n > 0 {
					t.Errorf("%d syncs of segment files", n)
				}
				p.acked, c.unacked = p.written, nil
				cutPower(t, w)
			})
		})
	}
}

// TestJournalFlood: acks of a log to which more is appended than rounds can take come nevertheless, before the journal is full and without a sync of
// a segment file; those of the others do not wait until it has had its rounds.
func TestJournalFlood(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject, w.change = board.of, withJournal
		noErr(t, w.open())
		flooded, err := w.create("flooded", 1, 2, config())
		noErr(t, err)
		quiet, err := w.create("quiet", 2, 2, config())
		noErr(t, err)
		here, _ := homes(t, w, flooded)
		alsoHere, _ := homes(t, w, quiet)
		l, err := w.log(here)
		noErr(t, err)
		c := alsoHere.client("c", 5)
		flood := func(size int) (segment.Offset, error) {
			a, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("flood", 1, size, nil, 1)})
			return a.Next, err
		}
		other, err := w.log(alsoHere)
		noErr(t, err)
		sent, release := make(chan segment.Offset, 1), make(chan struct{})
		writes, seen := 0, 0
		board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
			switch {
			case op.Kind == vfs.OpSync && isLog(op.Name):
				<-release
			case op.Kind == vfs.OpWrite && isJournal(op.Name):
				if writes++; seen == 0 && other.Offsets().HighWatermark > 0 {
					seen = writes
				}
				if writes > 1 {
					_, err := flood(30_000)
					return err
				}
				next, err := flood(45_000)
				sent <- next
				return errors.Join(err, w.send(c, 1, 100))
			}
			return nil
		}))
		_, err = flood(100)
		noErr(t, err)
		synctest.Wait() // the journal is full
		next := <-sent
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := l.Durable(ctx, next); err != nil {
			t.Errorf("the flooded log: %v", err)
		}
		if seen == 0 || seen > 6 { // a header, a round before, one that the flood fills, its own
			t.Errorf("the other log's ack came before write %d of %d", seen, writes)
		}
		board.set(0, nil)
		close(release)
		noErr(t, w.ack(c))
	})
}

// TestJournalGoesOn: what is appended while several rounds take what was there before is taken by the next one, though nothing follows.
func TestJournalGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject, w.change = board.of, withJournal
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 2, config())
		noErr(t, err)
		here, _ := homes(t, w, topic)
		l, err := w.log(here)
		noErr(t, err)
		add := func(size int) (segment.Offset, error) {
			a, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("b", 1, size, nil, 1)})
			return a.Next, err
		}
		writes, last := 0, make(chan segment.Offset, 1)
		board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
			if op.Kind != vfs.OpWrite || !isJournal(op.Name) {
				return nil
			}
			if writes++; writes != 2 { // the first is that of a header
				return nil
			}
			next, err := add(100)
			last <- next
			return err
		}))
		_, err = add(35_000)
		noErr(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := l.Durable(ctx, <-last); err != nil || writes < 5 {
			t.Errorf("%v after %d writes", err, writes)
		}
	})
}

// TestJournalModeChanges: acks hold while a topic is given a flush interval and loses it again.
func TestJournalModeChanges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.change = withJournal
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 1, config())
		noErr(t, err)
		p := topic.parts[0]
		c := p.client("a", 5)
		lazy := config()
		lazy.FlushInterval = time.Hour
		set := func(cfg partition.Config) { // between an append and its ack
			noErr(t, w.send(c, 1, 700))
			w.s.SetConfig("orders", cfg)
		}
		l, err := w.log(p)
		noErr(t, err)
		for range 5 {
			set(lazy)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			noErr(t, l.Synced(ctx, p.written))
			cancel()
			set(config())
			noErr(t, w.ack(c))
		}
		cutPower(t, w)
	})
}

// TestJournalDeleteWhileFiled: a topic is deleted while what the journal has of it goes to its file. The others go on, and it does not come back.
func TestJournalDeleteWhileFiled(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject, w.change = board.of, withJournal
		noErr(t, w.open())
		gone, err := w.create("gone", 1, 2, config())
		noErr(t, err)
		kept, err := w.create("kept", 2, 2, config())
		noErr(t, err)
		goneHere, _ := homes(t, w, gone)
		keptHere, _ := homes(t, w, kept)
		a, b := goneHere.client("a", 5), keptHere.client("b", 6)
		entered, release := make(chan struct{}, 100), make(chan struct{})
		board.set(0, vfs.InjectorFunc(func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && isLog(op.Name) && strings.HasPrefix(op.Name, "gone-") {
				entered <- struct{}{}
				<-release
			}
			return nil
		}))
		l, err := w.log(goneHere)
		noErr(t, err)
		for n := 0; len(entered) == 0; n++ {
			if n == 100 {
				t.Fatal("the journal does not turn over")
			}
			noErr(t, errors.Join(w.send(a, 1, 1000), w.ack(a), w.send(b, 1, 1000), w.ack(b)))
			synctest.Wait()
		}
		deleted := make(chan error, 1)
		go func() { deleted <- w.drop(gone) }()
		for l.Err() == nil { // it has begun
			runtime.Gosched()
		}
		close(release)
		noErr(t, <-deleted)
		for range 60 {
			noErr(t, errors.Join(w.send(b, 1, 1000), w.ack(b)))
		}
		noErr(t, w.s.Fenced())
		cutPower(t, w)
	})
}

// TestJournalOffAgain: what a journal holds is replayed by a start that has none, and the files go.
func TestJournalOffAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fillJournal(t, w, 12)
		w.abandon()
		f := w.fork(w.disks.crash(vfs.CrashOptions{}))
		r := &replays{}
		f.change = func(opt *partition.Options) { opt.Logger = slog.New(r) }
		f.live()
		report(t, f, "power cut")
		if r.writtenBytes.Load() == 0 {
			t.Error("nothing was replayed")
		}
		for disk, m := range f.disks {
			list, err := m.List(".")
			noErr(t, err)
			for _, e := range list {
				if isJournal(e.Name) {
					t.Errorf("disk %d still has %s", disk, e.Name)
				}
			}
		}
	})
}

// TestJournalCleanStop: nothing is left to replay, and a start without a journal has all.
func TestJournalCleanStop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fillJournal(t, w, 5)
		noErr(t, w.close())
		for disk, m := range w.disks[:2] {
			found, err := journal.Replay(m, func(e journal.Entry, _ []byte) error {
				t.Errorf("disk %d: %+v is left", disk, e)
				return nil
			})
			if err != nil || found.Generation == 0 || found.Damaged != nil {
				t.Errorf("disk %d: %+v, %v", disk, found, err)
			}
		}
		f := w.fork(w.disks.crash(vfs.CrashOptions{}))
		f.change = nil
		f.live()
		report(t, f, "start without a journal")
	})
}

// TestReplay: which entries a replay writes. What it writes is stable before it returns.
func TestReplay(t *testing.T) {
	type entry struct {
		base, pos, next int64
		data            string
		other           bool // another topic's id
	}
	log := func(base segment.Offset) string { return "orders-0/" + segment.LogName(base) }
	index := func(base segment.Offset) string { return "orders-0/" + segment.IndexName(base) }
	orders := segment.TopicPartition{Topic: "orders", Partition: 0}
	at := func(o segment.Offset) map[segment.TopicPartition]segment.Offset {
		return map[segment.TopicPartition]segment.Offset{orders: o}
	}
	for _, c := range []struct {
		name           string
		files          map[string]string
		points, starts map[segment.TopicPartition]segment.Offset
		distrust       bool
		entries        []entry
		want           map[string]string // what is changed or made
		short          int64
	}{
		{name: "a tail that was lost", files: map[string]string{log(0): "ab"}, entries: []entry{{data: "ab", next: 1}, {pos: 2, next: 2, data: "cd"}}, want: map[string]string{log(0): "abcd"}},
		{name: "below the recovery point", files: map[string]string{log(0): "compacted"}, points: at(10), entries: []entry{{next: 10, data: "x"}}},
		{name: "across the recovery point", files: map[string]string{log(0): "zz"}, points: at(10), entries: []entry{{next: 11, data: "x"}}, want: map[string]string{log(0): "xz"}},
		{name: "another topic", files: map[string]string{log(0): "ab"}, entries: []entry{{next: 1, data: "x", other: true}}},
		{name: "sealed, no recovery point", files: map[string]string{log(0): "ab", index(0): "i", log(5): "c"}, entries: []entry{{next: 5, data: "x"}}},
		{name: "rolled, not sealed", files: map[string]string{log(0): "ab", log(5): "c"}, entries: []entry{{next: 5, data: "x"}}, want: map[string]string{log(0): "xb"}},
		{name: "the last one, closed", files: map[string]string{log(0): "ab", index(0): "i"}, entries: []entry{{next: 5, data: "x"}}, want: map[string]string{log(0): "xb"}},
		{name: "a new segment", files: map[string]string{log(0): "ab"}, entries: []entry{{base: 5, next: 6, data: "x"}, {base: 5, pos: 1, next: 7, data: "y"}}, want: map[string]string{log(5): "xy"}},
		{name: "a segment whose begin is not there", files: map[string]string{log(0): "ab"}, entries: []entry{{base: 5, pos: 1, next: 7, data: "y"}}},
		{name: "a name that was lost, with a newer one there", files: map[string]string{log(0): "ab", log(9): ""}, points: at(5), entries: []entry{{base: 5, next: 9, data: "x"}}, want: map[string]string{log(5): "x"}},
		{name: "the same, the marks unreadable", files: map[string]string{log(0): "ab", log(9): ""}, distrust: true, entries: []entry{{base: 5, next: 9, data: "x"}}},
		{name: "moved or merged away", files: map[string]string{log(0): "ab", log(9): ""}, points: at(9), entries: []entry{{base: 5, next: 10, data: "x"}}},
		{name: "deleted by retention", files: map[string]string{log(0): "ab"}, starts: at(9), entries: []entry{{base: 5, next: 9, data: "x"}}},
		{name: "a short file", files: map[string]string{log(0): "ab"}, entries: []entry{{pos: 4, next: 3, data: "x"}}, want: map[string]string{log(0): "ab\x00\x00x"}, short: 1},
		{name: "no directory", entries: []entry{{next: 3, data: "x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem(1)
			if c.files != nil {
				noErr(t, mem.MkdirAll("orders-0"))
				noErr(t, segment.WritePartitionMetadata(mem, "orders-0", topicID))
			}
			for _, name := range slices.Sorted(maps.Keys(c.files)) {
				f, err := mem.Create(name)
				noErr(t, err)
				_, err = f.WriteAt([]byte(c.files[name]), 0)
				noErr(t, errors.Join(err, f.SyncData(), f.Close()))
				noErr(t, mem.SyncDir("orders-0"))
			}
			j, err := journal.Open(mem, journal.Options{Bytes: 16 * journal.Block, MaxRound: 4 * journal.Block})
			noErr(t, err)
			for _, e := range c.entries {
				id := topicID
				if e.other {
					id[0]++
				}
				j.Begin()
				copy(j.Add(journal.Entry{Dir: "orders-0", TopicID: id, Base: e.base, Pos: e.pos, Next: e.next, Bytes: len(e.data)}), e.data)
				noErr(t, j.Commit())
			}
			noErr(t, j.Close())
			noErr(t, mem.SyncDir("."))

			r := &replays{}
			noErr(t, partition.ReplayJournal(mem, c.points, c.starts, !c.distrust, slog.New(r)))
			want := maps.Clone(c.files)
			if want == nil {
				want = map[string]string{}
			}
			maps.Copy(want, c.want)
			for what, fsys := range map[string]vfs.FS{"after a power cut": mem.Crash(vfs.CrashOptions{Live: true}), "at once": mem} {
				for name, content := range want {
					got, err := vfs.ReadFile(fsys, name, 1<<10)
					if err != nil || !bytes.Equal(got, []byte(content)) {
						t.Errorf("%s: %s holds %q, want %q (%v)", what, name, got, content, err)
					}
				}
				list, err := fsys.List("orders-0")
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				for _, e := range list {
					if _, ok := want["orders-0/"+e.Name]; !ok && isLog(e.Name) {
						t.Errorf("%s: %s was made", what, e.Name)
					}
				}
			}
			if r.rounds.Load() != int64(len(c.entries)) || r.short.Load() != c.short {
				t.Errorf("%d rounds of %d, %d short files reported", r.rounds.Load(), len(c.entries), r.short.Load())
			}
			if (r.skipped.Load() > 0) != (len(c.want) == 0) {
				t.Errorf("%d entries left out", r.skipped.Load())
			}
		})
	}
}

// TestReplayCannotLook: where a replay cannot see whether a segment was sealed it fails; leaving its entry out would lose what was acknowledged.
func TestReplayCannotLook(t *testing.T) {
	mem := vfs.NewMem(1)
	noErr(t, mem.MkdirAll("orders-0"))
	noErr(t, segment.WritePartitionMetadata(mem, "orders-0", topicID))
	for _, base := range []segment.Offset{0, 5} {
		f, err := mem.Create("orders-0/" + segment.LogName(base))
		noErr(t, err)
		noErr(t, f.Close())
	}
	j, err := journal.Open(mem, journal.Options{Bytes: 16 * journal.Block, MaxRound: 4 * journal.Block})
	noErr(t, err)
	copy(j.Add(journal.Entry{Dir: "orders-0", TopicID: topicID, Next: 5, Bytes: 1}), "x")
	noErr(t, errors.Join(j.Commit(), j.Close()))
	fault := &vfs.Fault{Kinds: vfs.OpStat, Name: "orders-0/" + segment.IndexName(0), Err: syscall.EIO}
	if err := partition.ReplayJournal(vfs.WithFaults(mem, fault), nil, nil, true, slog.New(&replays{})); !errors.Is(err, syscall.EIO) {
		t.Errorf("replay: %v", err)
	}
}
