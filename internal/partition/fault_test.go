package partition_test

import (
	"context"
	"errors"
	"fmt"
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

// switchboard is an injector per disk that tests set and clear while the store runs.
type switchboard struct {
	mu  sync.Mutex
	inj map[int]vfs.Injector
}

func (s *switchboard) set(disk int, inj vfs.Injector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inj == nil {
		s.inj = map[int]vfs.Injector{}
	}
	s.inj[disk] = inj
}

func (s *switchboard) of(disk int) vfs.Injector {
	return vfs.InjectorFunc(func(op vfs.Op) error {
		s.mu.Lock()
		inj := s.inj[disk]
		s.mu.Unlock()
		if inj == nil {
			return nil
		}
		return inj.Fault(op)
	})
}

// opLog remembers calls for later questions.
type opLog struct {
	mu  sync.Mutex
	ops []loggedOp
}

type loggedOp struct {
	disk int
	vfs.Op
}

func (l *opLog) note(disk int, op vfs.Op) {
	l.mu.Lock()
	l.ops = append(l.ops, loggedOp{disk, op})
	l.mu.Unlock()
}

func (l *opLog) count(match func(op loggedOp) bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, op := range l.ops {
		if match(op) {
			n++
		}
	}
	return n
}

// bubble runs a test with a fresh world in a synctest bubble: background work has its time, tests take none.
func bubble(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(newDisks(1))
		if err != nil {
			t.Fatal(err)
		}
		defer w.pool.Close()
		defer w.abandon()
		fn(t, w)
		report(t, w, t.Name())
	})
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func smallSegments() partition.Config {
	cfg := config()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 4000, 600
	return cfg
}

// homes gives a partition of t whose home is disk 0 and one whose home is disk 1.
func homes(t *testing.T, w *world, topic *topicTruth) (first, second *partTruth) {
	t.Helper()
	for _, p := range topic.parts {
		for disk, m := range w.disks[:2] {
			if _, err := m.Stat(p.name()); err == nil && disk == 0 {
				first = p
			} else if err == nil {
				second = p
			}
		}
	}
	if first == nil || second == nil {
		t.Fatal("the partitions are not spread over both hot directories")
	}
	return first, second
}

// TestStorageErrorFencesOneDirectory: a failed sync, or write, of one directory is final for that one: no later ack, no read,
// no second sync of the file; the other directory goes on, and after a restart nothing acked is missing.
func TestStorageErrorFencesOneDirectory(t *testing.T) {
	for _, c := range []struct {
		kind vfs.Kind
		size int // of a value: large ones make the segment roll
	}{{vfs.OpSync, 20}, {vfs.OpSync, 700}, {vfs.OpWrite, 20}, {vfs.OpWrite, 700}, {vfs.OpSyncDir, 700}} {
		kind, size := c.kind, c.size
		t.Run(fmt.Sprint(kind, size), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var board switchboard
				var ops opLog
				w.inject, w.trace = board.of, ops.note
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 2, smallSegments())
				noErr(t, err)
				bad, good := homes(t, w, topic)
				a, b := bad.client("a", 5), good.client("b", 6)
				for range 3 {
					noErr(t, errors.Join(w.send(a, 2, 500), w.ack(a), w.send(b, 2, 500), w.ack(b)))
				}
				fault := &vfs.Fault{Kinds: kind, Name: bad.name() + "*", Err: syscall.EIO}
				if kind != vfs.OpSyncDir {
					fault.Name = bad.name() + "/*.log"
				}
				board.set(0, fault)
				for i := 0; fault.Fired() == 0; i++ { // a directory is synced when a segment rolls
					if i == 20 {
						t.Fatal("the fault was never met")
					}
					err = errors.Join(w.send(a, 2, size), w.ack(a))
				}
				if !errors.Is(err, partition.ErrFenced) || !errors.Is(err, syscall.EIO) {
					t.Errorf("the append that met the fault: %v", err)
				}
				l, err := w.log(bad)
				noErr(t, err)
				if _, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("x", 1, 10, nil, 1)}); !errors.Is(err, partition.ErrFenced) {
					t.Errorf("append to a fenced directory: %v", err)
				}
				for _, next := range []segment.Offset{1, bad.acked, bad.written} {
					if err := l.Durable(context.Background(), next); !errors.Is(err, partition.ErrFenced) {
						t.Errorf("durable up to %d in a fenced directory: %v", next, err)
					}
				}
				if _, _, err := w.read(bad, 0, 1000); !errors.Is(err, partition.ErrFenced) {
					t.Errorf("read from a fenced directory: %v", err)
				}
				if err := w.s.Fenced(); !errors.Is(err, partition.ErrFenced) {
					t.Errorf("Fenced: %v", err)
				}
				for range 12 {
					noErr(t, errors.Join(w.send(b, 2, 700), w.ack(b)))
				}
				time.Sleep(20 * time.Second) // ticks, checkpoints: none may touch the failed file again
				w.readAll()
				failed := false
				again := ops.count(func(op loggedOp) bool {
					if failed && op.disk == 0 && op.Kind&(vfs.OpSync|vfs.OpSyncDir|vfs.OpWrite|vfs.OpRename|vfs.OpCreate) != 0 {
						return true
					}
					failed = failed || op.disk == 0 && errors.Is(op.Err, syscall.EIO)
					return false
				})
				if again > 0 {
					t.Errorf("%d changes of the directory after its failure", again)
				}
				if err := w.close(); !errors.Is(err, partition.ErrFenced) {
					t.Errorf("close: %v", err)
				}
				w.inject, w.trace = nil, nil
				w.disks = w.disks.crash(vfs.CrashOptions{})
				w.live()
			})
		})
	}
}

// TestRestartAfterFailedSync: what a failed sync lost of a segment file is in the page cache still, where no later sync looks at it. A start on the
// same machine shows it, calls a retry of it a duplicate, and empties the journal: so all of it has to be written anew, and a power cut finds it.
func TestRestartAfterFailedSync(t *testing.T) {
	eachCommit(t, func(t *testing.T, change func(*partition.Options)) {
		for _, size := range []int{1000, 3000} { // of a value: large ones make the segment roll
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					var board switchboard
					w.inject, w.change = board.of, change
					noErr(t, w.open())
					topic, err := w.create("orders", 1, 2, smallSegments())
					noErr(t, err)
					bad, _ := homes(t, w, topic)
					c := bad.client("a", 5)
					noErr(t, errors.Join(w.send(c, 1, 1000), w.ack(c)))
					time.Sleep(time.Minute) // it is in its file, and the recovery point tells
					fault := &vfs.Fault{Kinds: vfs.OpSync, Name: bad.name() + "/*.log", Err: syscall.EIO}
					board.set(0, fault)
					noErr(t, w.send(c, 1, size))
					// The sync for the first one, or for the segment that it ended, may have met the fault by now.
					if err := w.send(c, 1, 100); err == nil {
						err = w.ack(c)
						if (err == nil) != (change != nil) && !errors.Is(err, partition.ErrFenced) {
							t.Fatalf("ack: %v", err)
						}
					} else if !errors.Is(err, partition.ErrFenced) {
						t.Fatal(err)
					}
					time.Sleep(time.Minute) // what the journal has is brought into its file
					if fault.Fired() == 0 || w.s.Fenced() == nil {
						t.Fatalf("%d syncs failed: %v", fault.Fired(), w.s.Fenced())
					}
					w.abandon()
					for what, start := range map[string]func(w *world) error{
						"a replay":               func(w *world) error { return w.openOnly() },
						"a start, which is read": func(w *world) error { err := w.open(); w.verify(); return err },
						"a start, with retries":  func(w *world) error { err := w.open(); w.retry(); return err },
					} {
						restarted := w.fork(w.disks.kill())
						noErr(t, start(restarted))
						restarted.abandon()
						report(t, restarted, what)
						f := restarted.fork(restarted.disks.crash(vfs.CrashOptions{}))
						f.live()
						report(t, f, "power cut after "+what)
					}
				})
			})
		}
	})
}

// TestNothingIsShownBeforeItIsSynced looks at the high watermark from inside each sync: what the sync is for is not visible.
func TestNothingIsShownBeforeItIsSynced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 1, config())
		noErr(t, err)
		p := topic.parts[0]
		l, err := w.log(p)
		noErr(t, err)
		noErr(t, w.close())
		syncs, early := 0, 0
		var mu sync.Mutex
		w.inject = func(int) vfs.Injector {
			return vfs.InjectorFunc(func(op vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") && l != nil {
					syncs++
					if o := l.Offsets(); o.HighWatermark == o.End {
						early++
					}
				}
				return nil
			})
		}
		mu.Lock()
		l = nil
		mu.Unlock()
		noErr(t, w.open())
		mu.Lock()
		l, err = w.log(p)
		mu.Unlock()
		noErr(t, err)
		c := p.client("a", 1)
		for range 10 {
			noErr(t, errors.Join(w.send(c, 2, 30), w.ack(c)))
			synctest.Wait()
		}
		mu.Lock()
		l = nil
		mu.Unlock()
		if syncs != 10 || early > 0 {
			t.Errorf("%d syncs for 10 acks, %d of them after their records were shown", syncs, early)
		}
	})
}

// TestFullDiskHealsItself: with so many blocks left (and none) appends, rolls, seals, snapshots, checkpoints and migrations
// run out of space at every place; produce gets ErrDiskFull, reads go on, nothing is fenced, and when space returns it goes
// on by itself without anything acked missing.
func TestFullDiskHealsItself(t *testing.T) {
	refused := 0
	for blocks := range int64(24) {
		bubble(t, func(t *testing.T, w *world) {
			noErr(t, w.open())
			topic, err := w.create("orders", 1, 2, smallSegments())
			noErr(t, err)
			first, second := homes(t, w, topic)
			a, b := first.client("a", 5), second.client("b", 0)
			for range 9 {
				noErr(t, errors.Join(w.send(a, 2, 600), w.ack(a), w.send(b, 2, 600), w.ack(b)))
			}
			limit := func(disk int, blocks int64) {
				u, err := w.disks[disk].Usage()
				noErr(t, err)
				w.disks[disk].SetCapacity(max(4096, u.TotalBytes-u.FreeBytes+blocks*4096))
			}
			limit(0, blocks)
			limit(2, blocks/2)
			full := false
			for range 60 {
				if err := errors.Join(w.send(a, 2, 900), w.ack(a)); err != nil {
					if !errors.Is(err, partition.ErrDiskFull) {
						t.Fatalf("%d blocks left: %v", blocks, err)
					}
					full = true
					break
				}
			}
			if !full {
				t.Fatalf("%d blocks took 60 batches", blocks)
			}
			refused++
			w.readAll()
			_, err = w.migrate(first) // runs out of space too, and waits
			noErr(t, err)
			noErr(t, errors.Join(w.send(b, 2, 600), w.ack(b)))
			if err := w.trim(first, 3); err != nil && !errors.Is(err, partition.ErrDiskFull) {
				t.Errorf("%d blocks left: delete records: %v", blocks, err)
			}
			time.Sleep(11 * time.Second)
			if err := w.s.Fenced(); err != nil {
				t.Fatalf("%d blocks left: a full disk is no broken disk: %v", blocks, err)
			}
			if blocks%3 == 0 { // also a stop and a start on the full disk
				w.abandon()
				w.disks = w.disks.crash(vfs.CrashOptions{Seed: uint64(blocks), KeepPercent: vfs.KeepRandom})
				noErr(t, w.open())
				for _, p := range topic.parts {
					if l, err := w.log(p); err != nil || l.Err() != nil {
						t.Fatalf("%d blocks left: %s after a restart on the full disk: %v", blocks, p.name(), errors.Join(err, l.Err()))
					}
				}
			}
			w.disks[0].SetCapacity(0)
			w.disks[2].SetCapacity(0)
			time.Sleep(2 * time.Second)
			w.verifySizes()
			w.retry()
			time.Sleep(12 * time.Minute) // the migrator's longest backoff
			for _, p := range topic.parts {
				l, err := w.log(p)
				noErr(t, err)
				for _, sv := range l.Segments() {
					if !sv.Active && !sv.Sealed {
						t.Errorf("%d blocks: segment %d of %s was never sealed", blocks, sv.Base, p.name())
					}
				}
			}
			if len(w.problems) > 0 {
				t.Errorf("%d blocks: %v", blocks, w.problems)
			}
			noErr(t, w.close())
			w.live()
		})
	}
	t.Logf("%d fill levels", refused)
}

// verifySizes brings the truth up to what recovery kept of unacked batches when the disk was full at a restart.
func (w *world) verifySizes() {
	for _, t := range w.topics {
		for _, p := range t.parts {
			w.verifyPartition(p)
		}
	}
}

// TestMissingTierIsRefused: a tier that the catalogue knows and that is not there is never adopted empty.
func TestMissingTierIsRefused(t *testing.T) {
	for disk := range diskTiers {
		bubble(t, func(t *testing.T, w *world) {
			noErr(t, w.open())
			topic, err := w.create("orders", 1, 2, smallSegments())
			noErr(t, err)
			c := topic.parts[0].client("a", 1)
			noErr(t, errors.Join(w.send(c, 1, 100), w.ack(c), w.close()))
			mounted := w.disks[disk]
			w.disks[disk] = vfs.NewMem(9)
			if err := w.open(); !errors.Is(err, tiering.ErrTierMissing) {
				t.Fatalf("disk %d not mounted: %v", disk, err)
			}
			if entries, err := w.disks[disk].List("."); err != nil || len(entries) > 1 { // the lock file
				t.Errorf("the empty mount point now holds %v, %v", entries, err)
			}
			w.disks[disk] = mounted
			w.live()
		})
	}
}

// TestUncleanIsNotCalledClean: the marker of a clean stop is left out when a partition was never opened, because it could
// not be or because the stop came first, or could not be closed: the next start must look at its tail.
func TestUncleanIsNotCalledClean(t *testing.T) {
	stops := map[string]func(t *testing.T, w *world, board *switchboard, disk int, log string){
		"offline partition": func(t *testing.T, w *world, board *switchboard, disk int, log string) {
			board.set(disk, &vfs.Fault{Kinds: vfs.OpOpen, Name: log, Err: syscall.EIO})
			noErr(t, w.open())
			board.set(disk, nil)
			noErr(t, w.close())
		},
		"stopped before loading": func(t *testing.T, w *world, _ *switchboard, _ int, _ string) {
			topics := w.topics
			w.topics = nil
			noErr(t, w.openOnly())
			w.topics = topics
			noErr(t, w.close())
		},
		"failed close": func(t *testing.T, w *world, board *switchboard, disk int, log string) {
			noErr(t, w.open())
			board.set(disk, &vfs.Fault{Kinds: vfs.OpTruncate, Name: log, Err: syscall.EIO})
			if err := w.close(); err == nil {
				t.Error("close hides an error")
			}
		},
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var board switchboard
				w.inject = board.of
				noErr(t, w.open())
				topic, err := w.create("orders", 1, 1, config())
				noErr(t, err)
				p := topic.parts[0]
				c := p.client("a", 1)
				noErr(t, errors.Join(w.send(c, 2, 300), w.ack(c)))
				w.abandon() // killed: what is not synced may be torn
				log := p.name() + "/" + segment.LogName(0)
				disk := w.diskOf(t, log)
				w.disks = w.disks.kill()
				patchTail(t, w.disks[disk], log)
				stop(t, w, &board, disk, log)
				if _, clean, err := segment.ReadCleanShutdown(w.disks[disk]); clean || err != nil {
					t.Errorf("the stop is called clean (%v)", err)
				}
				w.inject = nil
				w.live()
			})
		})
	}
}

// patchTail appends what a torn write leaves.
func patchTail(t *testing.T, m *vfs.Mem, name string) {
	t.Helper()
	f, err := m.Open(name, vfs.ReadWrite)
	noErr(t, err)
	size, err := f.Size()
	noErr(t, err)
	_, err = f.WriteAt([]byte("half a batch"), size)
	noErr(t, errors.Join(err, f.Close()))
}

// TestNthFailure fails each single call of the story, once or from there on, with EIO and with ENOSPC. Whatever the store
// says meanwhile, nothing acked is missing after a restart on sound disks.
func TestNthFailure(t *testing.T) { eachCommit(t, nthFailure) }

func nthFailure(t *testing.T, change func(*partition.Options)) {
	synctest.Test(t, func(t *testing.T) {
		run := func(nth int64, sticky bool, cause error) (*world, *nthFault) {
			w, err := newWorld(newDisks(3))
			if err != nil {
				t.Fatal(err)
			}
			fault := &nthFault{nth: nth, sticky: sticky, err: cause, disk: -1}
			w.inject, w.change = fault.of, change
			w.tell(crashStory(), func() bool { return false })
			if w.s != nil {
				_ = w.close() // as far as it gets
			}
			return w, fault
		}
		w, all := run(0, false, nil)
		if report(t, w, "the story without a fault") {
			return
		}
		step := int64(1)
		if !exhaustive {
			step = max(1, all.seen/40)
		}
		cases, failed := 0, 0
		for nth := int64(1); nth <= all.seen && failed < 5; nth += step {
			for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
				for _, sticky := range []bool{false, true} {
					w, fault := run(nth, sticky, cause)
					w.problems = keepWrong(w.problems)
					cases++
					for _, keep := range []int{0, 100, vfs.KeepRandom} {
						f := w.fork(w.disks.crash(vfs.CrashOptions{Seed: uint64(nth), KeepPercent: keep, Tear: true}))
						f.live()
						f.problems = append(f.problems, w.problems...)
						if report(t, f, fmt.Sprintf("call %d of %d fails with %v, sticky %v, keep %d: %v", nth, all.seen, cause, sticky, keep, fault.hit)) {
							failed++
						}
					}
				}
			}
		}
		t.Logf("%d calls, every %d: %d cases, three restarts each", all.seen, step, cases)
	})
}

// keepWrong drops the problem that ended the story (a step that failed is what faults are for) and keeps wrong data.
func keepWrong(problems []string) (out []string) {
	for _, p := range problems {
		if len(p) < 5 || p[:5] != "step " {
			out = append(out, p)
		}
	}
	return out
}

// nthFault fails the nth call over all disks; sticky: and every later one on that disk.
type nthFault struct {
	nth    int64
	sticky bool
	err    error

	mu   sync.Mutex
	seen int64
	disk int // that failed, -1 none yet
	hit  string
}

func (f *nthFault) of(disk int) vfs.Injector {
	return vfs.InjectorFunc(func(op vfs.Op) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.seen++
		if f.seen == f.nth {
			f.disk, f.hit = disk, fmt.Sprint(disk, " ", op)
		} else if !f.sticky || f.disk != disk {
			return nil
		}
		return fmt.Errorf("%w: %w", errInjected, f.err)
	})
}

// TestNoDescriptorLeft: a process that is out of descriptors for a moment loses no directory by it. What needs one is refused, or waits,
// and goes on as soon as there are some again.
func TestNoDescriptorLeft(t *testing.T) {
	for name, kinds := range map[string]vfs.Kind{"to roll": vfs.OpCreate, "to make the new name durable": vfs.OpSyncDir} {
		t.Run(name, func(t *testing.T) {
			var short atomic.Bool
			met := make(chan struct{}, 1)
			fs := osFS(t)
			s := open(t, nil, vfs.WithFaults(fs, vfs.InjectorFunc(func(op vfs.Op) error {
				if !short.Load() || op.Kind&kinds == 0 {
					return nil
				}
				select {
				case met <- struct{}{}:
				default:
				}
				return syscall.EMFILE
			})))
			l := load(t, s, smallSegments(), 1)
			var want []byte
			add := func() error {
				b := batch("b", 1, 500, nil, 1)
				_, err := l.Append(t.Context(), partition.AppendRequest{Records: b})
				if err == nil {
					want = append(want, b...)
				}
				return err
			}
			noErr(t, add())
			noErr(t, l.Durable(t.Context(), l.Offsets().End))
			short.Store(true)
			for refused := false; !refused; {
				if err := add(); err != nil && !errors.Is(err, syscall.EMFILE) {
					t.Fatal(err)
				}
				select {
				case <-met:
					refused = true
				default:
				}
			}
			if err := s.Fenced(); err != nil {
				t.Fatal(err)
			}
			short.Store(false)
			for range 20 {
				noErr(t, add())
			}
			noErr(t, l.Durable(t.Context(), l.Offsets().End)) // one that waited is tried again
			noErr(t, s.Fenced())
			consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
			closeStore(t, s)
			s = open(t, nil, fs)
			consume(t, load(t, s, smallSegments(), 1), partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
			closeStore(t, s)
		})
	}
}
