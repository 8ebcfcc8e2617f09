package partition_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
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

// deafDisk answers no call of some kinds, for files of some suffix, from hang to release.
type deafDisk struct {
	kinds  vfs.Kind
	suffix string
	on     atomic.Bool
	hung   chan struct{} // holds a value when a call hangs
	free   chan struct{}
	once   sync.Once
}

func newDeafDisk(kinds vfs.Kind, suffix string) *deafDisk {
	return &deafDisk{kinds: kinds, suffix: suffix, hung: make(chan struct{}, 1), free: make(chan struct{})}
}

func (h *deafDisk) Fault(op vfs.Op) error {
	if h.on.Load() && op.Kind&h.kinds != 0 && (strings.HasSuffix(op.Name, h.suffix) || strings.HasSuffix(op.To, h.suffix)) {
		select {
		case h.hung <- struct{}{}:
		default:
		}
		<-h.free
	}
	return nil
}

func (h *deafDisk) hang() { h.on.Store(true) }

func (h *deafDisk) release() {
	h.once.Do(func() {
		h.on.Store(false)
		close(h.free)
	})
}

// hungWorld is a world of which one disk can hang. Release it before the test ends.
type hungWorld struct {
	*world
	*deafDisk
	board switchboard
}

// deafWorld gives w a disk that answers no call of some kinds, for files of some suffix, once it hangs.
func deafWorld(w *world, kinds vfs.Kind, suffix string) *hungWorld {
	h := &hungWorld{world: w, deafDisk: newDeafDisk(kinds, suffix)}
	w.inject = h.board.of
	return h
}

// hangDisk has one disk hang.
func (h *hungWorld) hangDisk(disk int) {
	h.board.set(disk, h.deafDisk)
	h.hang()
}

// TestHungDirectoryAndConfigs: a change of configurations waits for no append that a device does not answer; the partition obeys when it does.
func TestHungDirectoryAndConfigs(t *testing.T) {
	disk := newDeafDisk(vfs.OpWrite, ".log")
	defer disk.release()
	s := open(t, func(o *partition.Options) { o.Dirs[1].Tier = "t0" }, vfs.WithFaults(osFS(t), disk), osFS(t))
	cfg := config()
	cfg.FlushInterval = time.Hour
	load(t, s, cfg, 2)
	logs := s.Logs()
	bad, good := logs[0], logs[1]
	if bad.Segments()[0].Dir != "t0" {
		bad, good = good, bad
	}
	disk.hang()
	var wg sync.WaitGroup
	write := func(l *partition.Log) {
		if _, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("x", 10, 100, nil, 1)}); err != nil {
			t.Error(err)
		}
	}
	wg.Go(func() { write(bad) })
	<-disk.hung
	write(good)
	safe := cfg
	safe.FlushInterval = 0
	for _, c := range []partition.Config{safe, cfg, safe} {
		changed := make(chan struct{})
		go func() {
			defer close(changed)
			s.SetConfig("orders", c)
		}()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("a change of configurations waits for the device")
		}
	}
	if err := good.Durable(t.Context(), 10); err != nil {
		t.Error(err)
	}
	disk.release()
	wg.Wait()
	if err := bad.Durable(t.Context(), 10); err != nil || bad.Offsets().HighWatermark != 10 {
		t.Errorf("%v, %+v", err, bad.Offsets())
	}
	closeStore(t, s)
}

// TestHungTierAndRetention: while a cold tier answers nothing, partitions that have nothing there lose what retention deletes.
func TestHungTierAndRetention(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		disk := deafWorld(w, vfs.OpRename, segment.DeletedSuffix)
		defer disk.release()
		w.change = func(o *partition.Options) { o.RetentionInterval = time.Second }
		noErr(t, w.open())
		cold, err := w.create("cold", 1, 1, smallSegments())
		noErr(t, err)
		var hot []*partTruth
		for i, name := range []string{"here", "there"} { // one in each hot directory
			topic, err := w.create(name, byte(2+i), 1, smallSegments())
			noErr(t, err)
			hot = append(hot, topic.parts[0])
		}
		fill := func(p *partTruth) {
			c := p.client("a", 0)
			for range 12 {
				noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
			}
			synctest.Wait()
		}
		fill(cold.parts[0])
		if n, err := w.migrate(cold.parts[0]); err != nil || n == 0 {
			t.Fatalf("%d segments moved, %v", n, err)
		}
		disk.hangDisk(2)
		keep := func(p *partTruth) {
			p.topic.cfg.RetentionBytes = 1
			p.startMax = 1000
			w.s.SetConfig(p.topic.name, p.topic.cfg)
		}
		keep(cold.parts[0])
		<-disk.hung
		for _, p := range hot {
			fill(p)
			keep(p)
			time.Sleep(3 * time.Second)
			l, err := w.log(p)
			noErr(t, err)
			if start := l.Offsets().LogStart; start < 12 {
				t.Errorf("%s begins at %d while the other tier hangs", p.name(), start)
			}
		}
		disk.release()
		noErr(t, w.close())
	})
}

// TestHungDirectoryAndMigrations: a migration that waits for a directory keeps those out that need the same one, and no others.
func TestHungDirectoryAndMigrations(t *testing.T) {
	const minute = time.Minute
	moved := func(t *testing.T, w *world, p *partTruth, dir string) (in, elsewhere int) {
		l, err := w.log(p)
		noErr(t, err)
		for _, sv := range l.Segments() {
			switch {
			case !sv.Sealed:
			case sv.Dir == dir:
				in++
			default:
				elsewhere++
			}
		}
		return in, elsewhere
	}
	told := func(t *testing.T, w *world, dirs ...string) {
		t.Helper()
		var got []string
		for _, stall := range w.s.Stalls() {
			if stall.IO != "background" || stall.For < 55*time.Second {
				t.Errorf("told: %+v", stall)
			}
			got = append(got, stall.Dir)
		}
		if !slices.Equal(got, dirs) {
			t.Errorf("%q do not answer; told: %q", dirs, got)
		}
	}
	fill := func(t *testing.T, w *world, p *partTruth) {
		c := p.client("a", 0)
		for range 12 {
			noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
		}
		synctest.Wait()
	}
	t.Run("source", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			disk := deafWorld(w, vfs.OpRead, ".log")
			defer disk.release()
			noErr(t, w.open())
			topic, err := w.create("orders", 1, 2, smallSegments())
			noErr(t, err)
			bad, good := homes(t, w, topic)
			fill(t, w, bad)
			fill(t, w, good)
			disk.hangDisk(0)
			noErr(t, w.submitMoves(bad))
			<-disk.hung
			noErr(t, w.submitMoves(good))
			time.Sleep(minute)
			if in, not := moved(t, w, good, "t1"); in == 0 || not > 0 {
				t.Errorf("of the directory that answers %d segments were moved, %d were not", in, not)
			}
			if in, _ := moved(t, w, bad, "t1"); in > 0 {
				t.Errorf("%d segments were moved that could not be read", in)
			}
			told(t, w, "t0")
			disk.release()
			time.Sleep(minute)
			told(t, w)
			if in, not := moved(t, w, bad, "t1"); in == 0 || not > 0 {
				t.Errorf("when it answers again %d segments are moved, %d are not", in, not)
			}
			noErr(t, w.close())
		})
	})
	t.Run("target", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			disk := deafWorld(w, vfs.OpSync, segment.MigratingSuffix)
			defer disk.release()
			w.change = func(o *partition.Options) {
				o.Dirs[1].Tier, o.Dirs[1].MaxUsedBytes, o.Dirs[2].MaxUsedBytes = "t1", 100<<20, 50<<20 // the first has more room
			}
			noErr(t, w.open())
			topic, err := w.create("orders", 1, 1, smallSegments())
			noErr(t, err)
			p := topic.parts[0]
			fill(t, w, p)
			disk.hangDisk(1)
			noErr(t, w.submitMoves(p))
			<-disk.hung
			time.Sleep(minute)
			if in, not := moved(t, w, p, "t1#1"); in == 0 || not != 1 {
				t.Errorf("%d segments are in the directory that answers, %d are not", in, not)
			}
			told(t, w, "t1")
			disk.release()
			time.Sleep(minute)
			told(t, w)
			if in, _ := moved(t, w, p, "t1"); in != 1 {
				t.Errorf("%d segments are in the directory that did not answer", in)
			}
			noErr(t, w.close())
		})
	})
}

// TestHungDirectoryAndCompaction: a compaction that a device does not answer holds up those that need it, and no others.
func TestHungDirectoryAndCompaction(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		disk := deafWorld(w, vfs.OpRead, ".log")
		defer disk.release()
		w.change = quietCompaction
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 2, compacted())
		noErr(t, err)
		bad, good := homes(t, w, topic)
		for i, p := range []*partTruth{bad, good} {
			l, err := w.log(p)
			noErr(t, err)
			k := newKeyed(t, 3)
			k.codecs = 4
			for range 40 + 20*(1-i) { // the one that hangs is cleaned first
				noErr(t, k.write(l, time.Now().UnixMilli()))
			}
		}
		synctest.Wait()
		cleaned := func(p *partTruth) segment.Offset {
			for _, v := range w.s.Compactions() {
				if v.Work.Partition == p.index {
					return v.Last.CleanedTo
				}
			}
			return 0
		}
		disk.hangDisk(0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.s.Compact(context.Background())
		}()
		<-disk.hung
		time.Sleep(time.Minute)
		if cleaned(good) == 0 || cleaned(bad) != 0 {
			t.Errorf("cleaned to %d where the device answers, to %d where it does not", cleaned(good), cleaned(bad))
		}
		disk.release()
		<-done
		synctest.Wait()
		if cleaned(bad) == 0 {
			t.Error("not cleaned when the device answers again")
		}
		noErr(t, w.close())
	})
}

// TestHungDirectoryAndPlans: what a plan has to ask a device that does not answer is left out of it, and the rest is planned.
func TestHungDirectoryAndPlans(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		disk := deafWorld(w, vfs.OpOpen|vfs.OpStat|vfs.OpRead, segment.TimeIndexName(0))
		defer disk.release()
		w.change = func(o *partition.Options) { o.PlanInterval = 5 * time.Second }
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		bad, good := homes(t, w, topic)
		for _, p := range topic.parts {
			c := p.client("a", 0)
			for range 12 {
				noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
			}
		}
		noErr(t, w.close())
		topic.cfg.LocalRetentionBytes = 1
		disk.hangDisk(0)
		noErr(t, w.open()) // when a segment's records came is read when that is asked for
		time.Sleep(time.Minute)
		select {
		case <-disk.hung:
		default:
			t.Error("nothing was asked")
		}
		cold := func(p *partTruth) (n int) {
			l, err := w.log(p)
			noErr(t, err)
			for _, sv := range l.Segments() {
				if sv.Tier == "t1" {
					n++
				}
			}
			return n
		}
		if cold(good) == 0 || cold(bad) > 0 {
			t.Errorf("%d segments of the directory that answers were moved, %d of the other one", cold(good), cold(bad))
		}
		if w.s.Unpinned("orders", good.index); cold(bad) > 0 { // a question of people's
			t.Errorf("%d segments moved", cold(bad))
		}
		disk.release()
		time.Sleep(time.Minute)
		if cold(bad) != cold(good) {
			t.Errorf("when it answers again %d segments are moved, %d of the other one", cold(bad), cold(good))
		}
		noErr(t, w.close())
	})
}

// deafKernel locks no page of one partition's files from hang to release.
type deafKernel struct {
	*cachetest.Sim
	dir  atomic.Pointer[string]
	free chan struct{}
}

func (k *deafKernel) MapFile(f vfs.File, room int64) (cachectl.Mapping, error) {
	m, err := k.Sim.MapFile(f, room)
	return deafMapping{m, k}, err
}

type deafMapping struct {
	cachectl.Mapping
	k *deafKernel
}

func (m deafMapping) Lock(f vfs.File, off, n int64) error {
	if dir := m.k.dir.Load(); dir != nil && strings.HasPrefix(f.Name(), *dir) {
		<-m.k.free
	}
	return m.Mapping.Lock(f, off, n)
}

// TestHungDirectoryAndHotWindows: pages that a device does not bring in hold up the windows of what lies there, and no others.
func TestHungDirectoryAndHotWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &deafKernel{Sim: cachetest.New(cachetest.Options{CapacityBytes: 256 * mib}), free: make(chan struct{})}
		release := sync.OnceFunc(func() { close(kernel.free) })
		defer release()
		s := open(t, func(o *partition.Options) {
			o.Dirs[1].Tier = "t0"
			o.Cache = cachectl.New(kernel, cachectl.Options{VerifyEvery: -1})
			o.Hot = partition.HotWindows{Share: 0.5, Keep: time.Hour, Memory: func() (cachectl.Memory, error) {
				return cachectl.Memory{Limit: 1 << 30, Free: 1 << 29, Available: 1 << 29}, nil
			}}
		}, kernel.FS(vfs.NewMem(1)), kernel.FS(vfs.NewMem(2)))
		load(t, s, config(), 2)
		bad, good := s.Logs()[0], s.Logs()[1]
		write := func(l *partition.Log) {
			produce(t, l, batch("hot", 8, 64<<10, nil, time.Now().UnixMilli()))
		}
		for range 3 {
			write(bad)
			write(good)
			time.Sleep(time.Second)
		}
		dir := "orders-0/"
		kernel.dir.Store(&dir)
		was, wasBad := good.HotWindow().Pinned, bad.HotWindow().Pinned
		for range 10 {
			write(bad)
			write(good)
			time.Sleep(time.Second)
		}
		if now := good.HotWindow().Pinned; was == 0 || now < was+10*(512<<10) || bad.HotWindow().Pinned != wasBad {
			t.Errorf("%d bytes pinned of the log whose device answers, %d before; %d of the other one", now, was, bad.HotWindow().Pinned)
		}
		release()
		time.Sleep(2 * time.Second)
		if now := bad.HotWindow().Pinned; now < wasBad+10*(512<<10) {
			t.Errorf("when the device answers again %d bytes are pinned, %d before", now, wasBad)
		}
		closeStore(t, s)
	})
}

// TestHungDirectoryAndTheLastReader: whoever lets go of a deleted segment last does not wait for the device that it lies on.
func TestHungDirectoryAndTheLastReader(t *testing.T) {
	disk := newDeafDisk(vfs.OpRename, segment.DeletedSuffix)
	defer disk.release()
	s := open(t, func(o *partition.Options) { o.RetentionInterval = time.Hour }, vfs.WithFaults(osFS(t), disk))
	cfg := config()
	cfg.SegmentBytes = 30_000
	l := load(t, s, cfg, 1)
	for range 10 {
		produce(t, l, batch("x", 10, 1000, nil, 1))
	}
	res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "a"}, MaxBytes: 1000, MustServe: true})
	if err != nil || res.Chunk == nil {
		t.Fatalf("%+v, %v", res, err)
	}
	cfg.RetentionBytes = 1
	s.SetConfig("orders", cfg)
	disk.hang()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Retain(time.Now()) // of the first segment only: the others have no reader, and hang
	}()
	<-disk.hung
	released := make(chan struct{})
	go func() {
		defer close(released)
		res.Chunk.Release()
	}()
	select {
	case <-released:
	case <-time.After(time.Minute):
		t.Error("the reader waits for the device")
	}
	disk.release()
	<-done
	closeStore(t, s)
}

// TestHungDirectoryAndLag: how far a group is behind is told without an index that a device does not give.
func TestHungDirectoryAndLag(t *testing.T) {
	fsys := osFS(t)
	disk := newDeafDisk(vfs.OpOpen|vfs.OpRead|vfs.OpStat, segment.IndexName(0))
	defer disk.release()
	cfg := config()
	cfg.SegmentBytes = 60_000
	s := open(t, nil, fsys)
	l := load(t, s, cfg, 1)
	for range 10 {
		produce(t, l, batch("x", 10, 1000, nil, 1))
	}
	closeStore(t, s)
	s = open(t, nil, vfs.WithFaults(fsys, disk))
	l = load(t, s, cfg, 1)
	disk.hang()
	for _, hangs := range []bool{true, false} {
		told := make(chan partition.Lag, 1)
		go func() { told <- l.LagOf(35) }()
		select {
		case lag := <-told:
			if whole := l.SizeBytes(); lag.Records != 65 || (lag.Bytes == whole) != hangs || lag.Bytes < whole*7/10 {
				t.Errorf("%+v of %d bytes", lag, whole)
			}
		case <-time.After(time.Minute):
			t.Fatal("the lag of a group waits for the device")
		}
		disk.release()
		waitFor(t, "the index", func() bool { return l.LagOf(35).Bytes < l.SizeBytes() })
	}
	closeStore(t, s)
}

// TestHungDirectoryAndLookups: lookups by time that a device does not answer keep none from being answered elsewhere.
func TestHungDirectoryAndLookups(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		disk := deafWorld(w, vfs.OpRead, ".log")
		defer disk.release()
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		bad, good := homes(t, w, topic)
		for _, p := range topic.parts {
			c := p.client("a", 0)
			noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
		}
		disk.hangDisk(0)
		var wg sync.WaitGroup
		ask := func(p *partTruth) {
			l, err := w.log(p)
			noErr(t, err)
			wg.Go(func() {
				if found, err := l.OffsetForTime(context.Background(), 0); err != nil || found.Offset != 0 {
					t.Errorf("%s: %+v, %v", p.name(), found, err)
				}
			})
		}
		for range 10 {
			ask(bad)
		}
		synctest.Wait()
		answered := make(chan partition.TimestampOffset, 1)
		l, err := w.log(good)
		noErr(t, err)
		wg.Go(func() {
			found, _ := l.OffsetForTime(context.Background(), 0)
			answered <- found
		})
		synctest.Wait()
		select {
		case found := <-answered:
			if found.Offset != 0 {
				t.Errorf("found %+v", found)
			}
		default:
			t.Error("not answered")
		}
		disk.release()
		wg.Wait()
	})
}

// TestHungDirectoryAndWarming: a start does not wait for ever until a device says where tails begin: the others' are warmed, and hot windows are kept.
func TestHungDirectoryAndWarming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDeafDisk(vfs.OpRead|vfs.OpOpen|vfs.OpStat, segment.TimeIndexName(0)) // which nothing needs that is opened cleanly
		defer disk.release()
		mems := []vfs.FS{vfs.NewMem(1), vfs.NewMem(2)}
		start := func() *partition.Store {
			sim := cachetest.New(cachetest.Options{CapacityBytes: 256 * mib})
			return open(t, func(o *partition.Options) {
				o.Dirs[1].Tier = "t0"
				o.Cache = cachectl.New(sim, cachectl.Options{VerifyEvery: -1})
				o.Hot = partition.HotWindows{Share: 0.5, Keep: time.Hour, WarmBytes: 64 * mib, Memory: func() (cachectl.Memory, error) {
					return cachectl.Memory{Limit: 1 << 30, Free: 1 << 29, Available: 1 << 29}, nil
				}}
			}, sim.FS(vfs.WithFaults(mems[0], disk)), sim.FS(mems[1]))
		}
		s := start()
		load(t, s, config(), 2)
		for range 6 {
			for _, l := range s.Logs() {
				produce(t, l, batch("hot", 8, 64<<10, nil, time.Now().UnixMilli()))
			}
		}
		closeStore(t, s)
		s = start()
		disk.hang()
		load(t, s, config(), 2)
		time.Sleep(2 * time.Minute)
		for _, l := range s.Logs() {
			if hot := l.HotWindow(); l.Segments()[0].Dir == "t0#1" && hot.Pinned < 2*mib {
				t.Errorf("%+v", hot)
			}
		}
		disk.release()
		closeStore(t, s)
	})
}
