package partition_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

const mib = 1 << 20

// hotWorld is a store over a simulated page cache, with a clock that the test moves and rounds that the test calls.
type hotWorld struct {
	t    *testing.T
	sim  *cachetest.Sim
	base vfs.FS // below the page cache
	fs   vfs.FS
	s    *partition.Store
	l    *partition.Log
	now  atomic.Int64
}

func newHotWorld(t *testing.T, simOpt cachetest.Options, hot partition.HotWindows) *hotWorld {
	w := &hotWorld{t: t, base: vfs.NewMem(1)}
	w.now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	sim := cachetest.New(simOpt)
	w.reopen(sim, sim.FS(w.base))
	if hot.Memory == nil {
		hot.Memory = w.memory
	}
	w.s.SetHot(hot)
	return w
}

// memory is a process that has plenty.
func (w *hotWorld) memory() (cachectl.Memory, error) {
	return cachectl.Memory{Limit: 1 << 30, Free: 1 << 29, Available: 1 << 29}, nil
}

func (w *hotWorld) reopen(sim *cachetest.Sim, fs vfs.FS) {
	w.t.Helper()
	w.sim, w.fs = sim, fs
	w.s = open(w.t, func(o *partition.Options) {
		o.Cache = cachectl.New(w.sim, cachectl.Options{VerifyEvery: -1})
		o.Now = func() time.Time { return time.Unix(0, w.now.Load()) }
		o.Readers.MinBytes, o.Readers.MinAge = 64*mib, time.Minute
	}, w.fs)
	s := w.s
	w.t.Cleanup(func() { closeStore(w.t, s) })
	cfg := config()
	cfg.SegmentBytes = 4 * mib
	w.l = load(w.t, w.s, cfg, 1)
}

// write appends n batches of about 512 KiB, one each second, with a round after each.
func (w *hotWorld) write(n int) (last segment.Offset) {
	w.t.Helper()
	for range n {
		last = produce(w.t, w.l, batch("hot", 8, 64<<10, nil, w.now.Load()/1e6)).Next
		w.wait(time.Second)
		w.s.HotRound()
	}
	return last
}

func (w *hotWorld) wait(d time.Duration) { w.now.Add(int64(d)) }

// readTo reads everything below to as one fetch after the other.
func (w *hotWorld) readTo(name string, from, to segment.Offset) {
	w.t.Helper()
	for from < to {
		res, err := w.l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: name}, From: from, MaxBytes: mib, MustServe: true})
		if err != nil || res.Chunk == nil {
			w.t.Fatalf("read at %d: %+v, %v", from, res, err)
		}
		from = res.Chunk.Next()
		res.Chunk.Release()
	}
	// Where it asks next is where it is.
	if res, err := w.l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: name}, From: to, MaxBytes: 1}); err != nil {
		w.t.Fatal(err)
	} else if res.Chunk != nil {
		res.Chunk.Release()
	}
}

// resident is what the cache holds of the newest n bytes, and of what is older, in MiB.
func (w *hotWorld) resident(n int64) (newest, older float64) {
	w.t.Helper()
	size := w.l.SizeBytes()
	for _, sv := range w.l.Segments() {
		for pos := int64(0); pos < sv.SizeBytes; pos += cachectl.PageSize {
			r, err := w.l.Residency(sv, pos, 1)
			if err != nil {
				w.t.Fatal(err)
			}
			if share := float64(r.Resident) * cachectl.PageSize / mib; size-sv.Before-pos <= n {
				newest += share
			} else {
				older += share
			}
		}
	}
	return newest, older
}

// scan reads a foreign file through the cache, as a backup does, twice the size of the cache.
func (w *hotWorld) scan(bytes int64) {
	w.t.Helper()
	f, err := w.fs.Create("foreign")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, mib)
	for pos := int64(0); pos < bytes; pos += mib {
		if _, err := f.WriteAt(data, pos); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := f.SyncData(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.fs.Remove("foreign"); err != nil {
		w.t.Fatal(err)
	}
}

// TestHotWindowOutlivesAScan: what the slowest real-time reader has still to read stays, whatever else runs through the
// cache; without pins it goes.
func TestHotWindowOutlivesAScan(t *testing.T) {
	for _, c := range []struct {
		name   string
		share  float64
		lock   int64
		pinned bool
	}{
		{"pinned", 0.5, 0, true}, {"not allowed to lock", 0.5, mib, false}, {"off", 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newHotWorld(t, cachetest.Options{CapacityBytes: 32 * mib, LockBytes: c.lock}, partition.HotWindows{Share: c.share, Keep: 5 * time.Second})
			end := w.write(20) // 10 MiB
			w.readTo("tail", 0, end)
			w.readTo("delayed", 0, end/2)
			w.s.HotRound()
			w.scan(64 * mib)
			kept, _ := w.resident(5 * mib)
			if c.pinned && kept < 5 {
				t.Errorf("%.2f MiB of the newest 5 stay", kept)
			}
			if !c.pinned && kept > 1 {
				t.Errorf("%.2f MiB stay although nothing is pinned: this test shows nothing", kept)
			}
			if hot := w.l.HotWindow(); c.pinned && (hot.Readers != 2 || hot.Pinned < 5*mib || hot.Bytes < 7*mib) {
				t.Errorf("%+v", hot)
			}
			if sum, on := w.s.HotWindows(); on && c.share > 0 && (sum.Trouble == "") != c.pinned {
				t.Errorf("%+v", sum)
			}
		})
	}
}

// TestDropBehind: what all real-time readers have passed goes, what one of them needs stays, and when the last of them has left,
// all goes.
func TestDropBehind(t *testing.T) {
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: 2 * time.Second, Drop: partition.DropOn})
	w.readTo("tail", 0, 0)
	w.readTo("delayed", 0, 0)
	end := w.write(40) // 20 MiB
	w.readTo("tail", 0, end)
	w.readTo("delayed", 0, end/4)
	w.s.HotRound()
	if newest, older := w.resident(15 * mib); newest < 15 || older > 5 {
		t.Errorf("with a reader 15 MiB behind: %.1f MiB of the newest 15 and %.1f MiB of the older 5 stay", newest, older)
	}
	w.readTo("delayed", end/4, end)
	w.write(8)
	if newest, older := w.resident(8 * mib); newest < 4 || older > 1 {
		t.Errorf("with all at the end: %.1f MiB of the newest 8 and %.1f MiB of the older stay", newest, older)
	}
	w.wait(6 * time.Minute)
	w.s.HotRound()
	if hot := w.l.HotWindow(); hot.Pinned > 0 || hot.Readers > 0 {
		t.Errorf("six minutes after the last reader: %+v", hot)
	}
	if newest, older := w.resident(2 * mib); newest+older > 2 { // the last window is not whole
		t.Errorf("nobody reads, and %.1f MiB stay", newest+older)
	}
}

// TestAutoKeepsWhilePlenty: in auto, what is behind the readers stays until memory is nearly full.
func TestAutoKeepsWhilePlenty(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 29)
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: 2 * time.Second,
		Memory: func() (cachectl.Memory, error) {
			return cachectl.Memory{Limit: 1 << 30, Free: free.Load(), Available: 1 << 29}, nil
		}})
	w.readTo("tail", 0, w.write(40))
	w.s.HotRound()
	if _, older := w.resident(4 * mib); older < 15 {
		t.Errorf("memory is plentiful, and only %.1f of 16 MiB stay", older)
	}
	free.Store(64 * mib)
	w.wait(2 * time.Second)
	w.s.HotRound()
	if _, older := w.resident(4 * mib); older > 2 {
		t.Errorf("memory is nearly full, and %.1f MiB behind all readers stay", older)
	}
}

// TestPinnedBeforeSync: what an append has made durable is pinned by then, the last page, which is only partly written, and a roll
// included; but never more than the plan left room for, and only where somebody reads in real time.
func TestPinnedBeforeSync(t *testing.T) {
	for _, c := range []struct{ room, reader bool }{{true, true}, {false, true}, {true, false}} {
		room := c.room
		t.Run(fmt.Sprintf("room=%v,reader=%v", room, c.reader), func(t *testing.T) {
			var available atomic.Int64
			available.Store(1 << 29)
			w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: time.Hour,
				Memory: func() (cachectl.Memory, error) {
					return cachectl.Memory{Limit: 1 << 30, Free: 1 << 29, Available: available.Load()}, nil
				}})
			end := w.write(3)
			if c.reader {
				w.readTo("tail", 0, end)
			}
			if !room {
				available.Store(0)
				w.wait(time.Second)
			}
			w.s.HotRound()
			before := w.sim.LockedBytes()
			for range 12 { // past the end of a segment
				produce(t, w.l, batch("hot", 8, 61_003, nil, w.now.Load()/1e6))
				if want, got := w.l.SizeBytes(), w.sim.LockedBytes(); room && c.reader && got < want || !(room && c.reader) && got > before {
					t.Fatalf("%d of %d bytes are pinned, %d were before", got, want, before)
				}
			}
		})
	}
}

// TestPinnedAfterSync: a plan that is at the pins when a sync begins does not hold that up, and when it is done before the sync ends, what has
// become durable is pinned all the same.
func TestPinnedAfterSync(t *testing.T) {
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprintf("ends=%v", ends), func(t *testing.T) {
			var during atomic.Pointer[func()] // once, in the next sync
			w := &hotWorld{t: t, base: vfs.WithFaults(vfs.NewMem(1), vfs.InjectorFunc(func(op vfs.Op) error {
				if fn := during.Load(); op.Kind == vfs.OpSync && fn != nil && during.CompareAndSwap(fn, nil) {
					(*fn)()
				}
				return nil
			}))}
			w.now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
			sim := cachetest.New(cachetest.Options{CapacityBytes: 256 * mib})
			w.reopen(sim, sim.FS(w.base))
			w.s.SetHot(partition.HotWindows{Share: 0.5, Keep: time.Hour, Memory: w.memory})
			w.readTo("tail", 0, w.write(3))
			w.s.HotRound()
			before := w.sim.LockedBytes()
			if before < w.l.SizeBytes() {
				t.Fatalf("%d of %d bytes are pinned", before, w.l.SizeBytes())
			}
			release := w.l.HoldPins()
			if ends {
				during.Store(&release)
			}
			produce(t, w.l, batch("hot", 8, 61_003, nil, w.now.Load()/1e6))
			got := w.sim.LockedBytes()
			if !ends {
				release()
			}
			if during.Load() != nil {
				t.Error("there was no sync")
			}
			if want := w.l.SizeBytes(); ends && got < want || !ends && got != before {
				t.Errorf("%d of %d bytes are pinned, %d were before", got, want, before)
			}
		})
	}
}

// TestSmallPinsAreShared: many logs with a sync each 5 ms, of little: between two plans nothing of any of them waits for its pin longer than
// their share of the steps, neither at the beginning nor at the end.
func TestSmallPinsAreShared(t *testing.T) {
	const logs, every, step = 16, 5 * time.Millisecond, 2000 // bytes
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: time.Hour})
	all := w.read(logs)
	w.s.HotRound()
	for at := time.Duration(0); at < 240*time.Millisecond; at += every {
		w.wait(every)
		// 16 logs have a step each 6.25 ms, so nothing waits for the sync after the next.
		if loose := w.syncAll(all, step); loose > logs*(step*11/10+cachectl.PageSize) {
			t.Fatalf("%v after the plan %d bytes are not pinned", at, loose)
		}
	}
}

// TestEachSyncPins: what becomes clean is pinned by then, each time, though syncs come unevenly, most logs are idle and the plan is late.
func TestEachSyncPins(t *testing.T) {
	const busy, idle, step = 12, 200, 16 << 10
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: time.Hour})
	logs := w.read(busy + idle)
	w.s.HotRound()
	for range 2 { // plans, by which it is known who is busy
		w.wait(250 * time.Millisecond)
		w.syncAll(logs[:busy], step)
		w.s.HotRound()
	}
	for n := range 150 { // a second without a plan
		w.wait([]time.Duration{12, 2, 3, 9}[n%4] * time.Millisecond)
		if loose := w.syncAll(logs[:busy], step); loose > 0 {
			t.Fatalf("sync %d after the plan: %d bytes are not pinned", n, loose)
		}
	}
}

// TestPlansLeaveRoom: pins begin at whole windows of the cache, and hold more than was planned; what comes in until the next plan finds room
// all the same.
func TestPlansLeaveRoom(t *testing.T) {
	const logs, step = 8, 300 << 10
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 1 << 30, SmallFolios: true}, partition.HotWindows{Share: 0.5, Keep: time.Hour,
		Memory: func() (cachectl.Memory, error) { // a budget of 160 MiB, 20 for each
			return cachectl.Memory{Limit: 529 * mib, Free: 1 << 29, Available: 1 << 29}, nil
		}})
	all := w.read(logs)
	for n := range 200 {
		before := w.sim.LockedBytes()
		w.wait(250 * time.Millisecond)
		w.syncAll(all, step)
		if grown := w.sim.LockedBytes() - before; n > 10 && grown < logs*step*9/10 {
			t.Fatalf("plan %d: %d of %d bytes were pinned as they came in; %d before", n, grown, logs*step, before)
		}
		for _, l := range all {
			w.l = l
			w.readTo("tail", l.Offsets().HighWatermark, l.Offsets().HighWatermark)
		}
		w.s.HotRound()
	}
	if sum, ok := w.s.HotWindows(); !ok || sum.Wanted <= sum.Budget {
		t.Errorf("nothing was short: %+v", sum)
	}
}

// TestPinnedBeforeWriteBack: with a flush interval pages become clean by write-back, and are pinned by then.
func TestPinnedBeforeWriteBack(t *testing.T) {
	written := make(chan string, 100)
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib, Trace: func(line string) {
		if strings.HasPrefix(line, "sync_file_range") && strings.Contains(line, "lazy-0/") {
			written <- line
		}
	}}, partition.HotWindows{Share: 0.5, Keep: time.Hour})
	cfg := config()
	cfg.SegmentBytes, cfg.FlushInterval = 64*mib, time.Hour
	if err := w.s.Load(t.Context(), []partition.TopicSpec{{Topic: "lazy", ID: [16]byte{2}, Partitions: 1, Config: cfg}}); err != nil {
		t.Fatal(err)
	}
	w.l, _ = w.s.Log("lazy", 0)
	w.readTo("tail", 0, produce(t, w.l, batch("hot", 8, 250, nil, w.now.Load()/1e6)).Next)
	w.s.HotRound()
	for w.l.SizeBytes() < mib+mib/2 {
		produce(t, w.l, batch("hot", 8, 32<<10, nil, w.now.Load()/1e6))
	}
	line := <-written
	if got := w.sim.LockedBytes(); got < mib {
		t.Errorf("%s: %d bytes are pinned", line, got)
	}
}

// read makes the topic's partitions anew, each with a record and a real-time reader.
func (w *hotWorld) read(partitions int32) (all []*partition.Log) {
	w.t.Helper()
	cfg := config()
	cfg.SegmentBytes = 4 * mib
	load(w.t, w.s, cfg, partitions)
	for p := range partitions {
		l, _ := w.s.Log("orders", p)
		all, w.l = append(all, l), l
		w.readTo("tail", 0, produce(w.t, l, batch("hot", 8, 250, nil, w.now.Load()/1e6)).Next)
	}
	return all
}

// syncAll appends about n bytes to each of the logs and tells how many bytes, in whole pages, of all logs are not pinned then.
func (w *hotWorld) syncAll(logs []*partition.Log, n int) (loose int64) {
	w.t.Helper()
	for _, l := range logs {
		produce(w.t, l, batch("hot", 8, n/8, nil, w.now.Load()/1e6))
	}
	for _, l := range w.s.Logs() {
		for _, sv := range l.Segments() {
			loose += (sv.SizeBytes + cachectl.PageSize - 1) / cachectl.PageSize * cachectl.PageSize
		}
	}
	return loose - w.sim.LockedBytes()
}

// TestPinsEndWithSegments: deleted segments and a closed store hold no pages.
func TestPinsEndWithSegments(t *testing.T) {
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: time.Hour})
	end := w.write(40)
	w.readTo("tail", 0, end)
	w.s.HotRound()
	if hot := w.l.HotWindow(); hot.Pinned < 19*mib {
		t.Fatalf("%+v", hot)
	}
	if _, err := w.l.DeleteRecords(context.Background(), end/2); err != nil {
		t.Fatal(err)
	}
	if hot := w.l.HotWindow(); w.sim.LockedBytes() > 14*mib {
		t.Errorf("half is deleted, %d bytes are locked: %+v", w.sim.LockedBytes(), hot)
	}
	w.s.HotRound()
	if hot := w.l.HotWindow(); hot.Pinned != w.sim.LockedBytes() || hot.Pinned > 14*mib {
		t.Errorf("half is deleted: %+v, locked %d", hot, w.sim.LockedBytes())
	}
}

// TestTailsAreWarm: after a start with an empty page cache the newest records of the last run are read back, the oldest of them
// first, within the budget, and kept.
func TestTailsAreWarm(t *testing.T) {
	w := newHotWorld(t, cachetest.Options{CapacityBytes: 256 * mib}, partition.HotWindows{Share: 0.5, Keep: 8 * time.Second})
	w.write(40)
	closeStore(t, w.s)
	sim := cachetest.New(cachetest.Options{CapacityBytes: 256 * mib})
	w.reopen(sim, sim.FS(w.base))
	w.s.SetHot(partition.HotWindows{Share: 0.5, Keep: 8 * time.Second, WarmBytes: 64 * mib, Memory: w.memory})
	if newest, older := w.resident(20 * mib); newest+older > 2 { // what loading has read
		t.Fatalf("the cache is not empty: %.1f MiB", newest+older)
	}
	w.s.Warm()
	done, total, running := w.s.WarmProgress()
	if newest, _ := w.resident(4 * mib); newest < 4 || running || done != total || total > 8*mib {
		t.Errorf("%.1f MiB of the newest 4 are resident; read %d of %d", newest, done, total)
	}
	w.s.HotRound()
	if hot := w.l.HotWindow(); hot.Pinned < 4*mib || hot.Pinned > 8*mib {
		t.Errorf("%+v", hot)
	}
}

// TestHotLoopFollows: the real loop, in a bubble with its own clock, pins what is written, goes to sleep when nothing comes any more,
// wakes for the next record, and lets everything go when the store closes.
func TestHotLoopFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := cachetest.New(cachetest.Options{CapacityBytes: 256 * mib})
		var looks atomic.Int64 // one a second while the loop is awake
		s := open(t, func(o *partition.Options) {
			o.Cache = cachectl.New(sim, cachectl.Options{VerifyEvery: -1})
			o.Hot = partition.HotWindows{Share: 0.5, Keep: 2 * time.Second, Memory: func() (cachectl.Memory, error) {
				looks.Add(1)
				return cachectl.Memory{Limit: 1 << 30, Free: 1 << 29, Available: 1 << 29}, nil
			}}
		}, sim.FS(vfs.NewMem(1)))
		l := load(t, s, config(), 1)
		grown := func(n int) {
			t.Helper()
			for range n {
				before := sim.LockedBytes()
				produce(t, l, batch("hot", 8, 64<<10, nil, time.Now().UnixMilli()))
				time.Sleep(300 * time.Millisecond) // a plan and a half: nobody reads
				if sim.LockedBytes() <= before && n < 10 {
					t.Errorf("not pinned 300 ms after the append: %d bytes", before)
				}
			}
		}
		grown(5)
		time.Sleep(10 * time.Minute) // no reader came
		if n := sim.LockedBytes(); n > 0 {
			t.Errorf("%d bytes are pinned for nobody", n)
		}
		was := looks.Load()
		time.Sleep(10 * time.Minute)
		if n := looks.Load(); n != was {
			t.Errorf("the loop of an idle broker woke %d times in 10 minutes", n-was)
		}
		produce(t, l, batch("hot", 8, 64<<10, nil, time.Now().UnixMilli()))
		time.Sleep(time.Second)
		if n := looks.Load(); n == was {
			t.Error("the loop sleeps on")
		}
		closeStore(t, s)
		if n := sim.LockedBytes(); n > 0 {
			t.Errorf("%d bytes are pinned by a closed store", n)
		}
	})
}
