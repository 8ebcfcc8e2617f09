package partition_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// coldCache puts a simulated page cache below the world's stores, empty at each start: what is read then is read from a
// device, around the cache, and checked.
func (w *world) coldCache(mode cachectl.ReadMode) {
	sim := cachetest.New(cachetest.Options{})
	w.cache = cachectl.New(sim, cachectl.Options{ReadMode: mode})
	w.wrap = sim.FS
}

// fillSegments makes a topic with one partition, n segments of eight small batches, and stops cleanly.
func fillSegments(t *testing.T, w *world, n int) *partTruth {
	t.Helper()
	cfg := config() // one index interval for the whole segment: reads have to walk
	cfg.SegmentBytes = int32(8 * len(batch("x", 2, 100, &producer{}, 1)))
	noErr(t, w.open())
	topic, err := w.create("orders", 1, 1, cfg)
	noErr(t, err)
	p := topic.parts[0]
	c := p.client("a", 3)
	for range 8 * n {
		noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
	}
	noErr(t, w.close())
	return p
}

// diskOf finds a file below the disks.
func (w *world) diskOf(t *testing.T, name string) int {
	t.Helper()
	for i, m := range w.disks {
		if _, err := m.Stat(name); err == nil {
			return i
		}
	}
	t.Fatalf("%s is on no disk", name)
	return -1
}

// patch changes a file in place, below everything.
func patch(t *testing.T, m *vfs.Mem, name string, change func(b []byte)) {
	t.Helper()
	b, err := vfs.ReadFile(m, name, 1<<20)
	noErr(t, err)
	change(b)
	f, err := m.Open(name, vfs.ReadWrite)
	noErr(t, err)
	_, err = f.WriteAt(b, 0)
	noErr(t, errors.Join(err, f.SyncData(), f.Close()))
}

// readFrom reads whole batches at offset from, once.
func (w *world) readFrom(l *partition.Log, ref partition.ReaderRef, from segment.Offset) ([]byte, error) {
	for {
		watch := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: 1, MustServe: true, Watch: watch})
		if err != nil || res.Chunk != nil {
			watch.Close()
			if err != nil {
				return nil, err
			}
			defer res.Chunk.Release()
			b := make([]byte, res.Chunk.Len())
			_, err = res.Chunk.ReadAt(b, 0)
			return b, err
		}
		select {
		case <-watch.C():
		case <-time.After(30 * time.Second):
			watch.Close()
			return nil, fmt.Errorf("nothing came at %d", from)
		}
		watch.Close()
	}
}

// TestFlippedByteIsNeverServed flips each byte of a batch in the middle of a sealed segment. A lagging reader, whose reads
// are checked, gets no changed byte, not even one that no checksum covers; every other batch stays readable, whether asked
// for directly or reached in sequence.
func TestFlippedByteIsNeverServed(t *testing.T) {
	cases := 0
	for _, victim := range []int{8, 11, 15} { // in the second segment: the first batch, one in the middle, the last
		cases += flipEach(t, victim)
	}
	t.Logf("%d flips", cases)
}

func flipEach(t *testing.T, victim int) (cases int) {
	bubble(t, func(t *testing.T, w *world) {
		w.coldCache(cachectl.ModeAuto)
		p := fillSegments(t, w, 3)
		bases := p.sortedBases()
		base := bases[victim]
		name := p.name() + "/" + segment.LogName(bases[8])
		whole := p.sent[base]
		flips := []int{7*8 + 0, 7*8 + 1, 7*8 + 2, 15*8 + 1} // bits: a base offset a little off, another epoch
		step := 8
		if !exhaustive {
			step = 397
		}
		for bit := 0; bit < 8*len(whole); bit += step {
			flips = append(flips, bit+bit/8%8)
		}
		for _, flip := range flips {
			at := flip / 8
			if at >= len(whole) {
				continue
			}
			cases++
			f := w.fork(w.disks.crash(vfs.CrashOptions{Live: true}))
			patch(t, f.disks[f.diskOf(t, name)], name, func(b []byte) {
				i := bytes.Index(b, whole)
				b[i+at] ^= 1 << (flip % 8)
			})
			noErr(t, f.open())
			l, err := f.log(f.topics[0].parts[0])
			noErr(t, err)
			for pass := range 2 { // the second time the damage is known
				for i, from := range bases {
					got, err := f.readFrom(l, partition.ReaderRef{ClientID: fmt.Sprint("c", i)}, from)
					switch {
					case i != victim && err != nil:
						f.problem("bit %d, pass %d: sound batch %d: %v", flip, pass, i, err)
					case i != victim && !bytes.HasPrefix(got, p.sent[from]):
						f.problem("bit %d, pass %d: sound batch %d is not what was sent", flip, pass, i)
					case i == victim && err == nil && !bytes.HasPrefix(got, p.sent[bases[victim+1]]):
						f.problem("bit %d, pass %d: something else than the next sound batch was served for the damaged one", at, pass)
					}
				}
			}
			at0, served := segment.Offset(0), 0
			for tries := 0; at0 < p.written && tries < 100; tries++ { // a consumer that goes on after errors
				got, err := f.readFrom(l, partition.ReaderRef{ClientID: "walk"}, at0)
				var bad *segment.CorruptError
				if err != nil && !errors.As(err, &bad) {
					f.problem("bit %d: %v", flip, err)
					break
				}
				for len(got) > 0 {
					h, err := segment.DecodeHeader(got)
					if err != nil || !bytes.Equal(got[:h.SizeBytes()], p.sent[h.BaseOffset]) {
						f.problem("bit %d: a changed batch was served in sequence at %d", flip, at0)
						break
					}
					at0, got = h.NextOffset(), got[h.SizeBytes():]
					served++
				}
			}
			if served != len(bases)-1 {
				f.problem("bit %d: a walk got %d of %d sound batches", flip, served, len(bases)-1)
			}
			f.abandon()
			w.problems = append(w.problems, f.problems...)
			if len(w.problems) > 3 {
				return
			}
		}
	})
	return cases
}

// TestReadErrorIsThatReadsOnly: a device error in one segment fails the reads of that segment, on either path, with the
// device's error; other segments are served, appends go on, nothing is fenced, and when the device recovers so do reads.
func TestReadErrorIsThatReadsOnly(t *testing.T) {
	for _, cold := range []bool{false, true} {
		t.Run(fmt.Sprintf("cold=%v", cold), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				if cold {
					w.coldCache(cachectl.ModeAuto)
				}
				p := fillSegments(t, w, 4)
				bases := p.sortedBases()
				var board switchboard
				w.inject = board.of
				noErr(t, w.open())
				name := p.name() + "/" + segment.LogName(bases[8])
				fault := &vfs.Fault{Kinds: vfs.OpRead, Name: name, Err: syscall.EIO, Sticky: true}
				board.set(w.diskOf(t, name), fault)
				l, err := w.log(p)
				noErr(t, err)
				for i, from := range bases {
					got, err := w.readFrom(l, partition.ReaderRef{ClientID: "c"}, from)
					if inBad := i >= 8 && i < 16; inBad != errors.Is(err, syscall.EIO) {
						t.Errorf("batch %d: %v", i, err)
					} else if !inBad && !bytes.HasPrefix(got, p.sent[from]) {
						t.Errorf("batch %d is not what was sent", i)
					}
				}
				c := p.clients[0]
				noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
				if fault.Fired() == 0 || w.s.Fenced() != nil {
					t.Errorf("fired %d, fenced: %v", fault.Fired(), w.s.Fenced())
				}
				board.set(w.diskOf(t, name), nil)
				w.inject = nil
				w.readAll()
				if p.seen != p.written {
					t.Errorf("seen up to %d of %d when the device was well again", p.seen, p.written)
				}
			})
		})
	}
}

// TestFencedColdTier: the cold tier fails for good; what lies there is offline, the hot tier goes on, keeps its segments,
// and a restart with a sound disk has everything.
func TestFencedColdTier(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var board switchboard
		w.inject = board.of
		p := fillSegments(t, w, 4)
		noErr(t, w.open())
		moved, err := w.migrate(p)
		if err != nil || moved != 3 {
			t.Fatalf("%d segments moved, %v", moved, err)
		}
		other, err := w.create("other", 2, 1, p.topic.cfg)
		noErr(t, err)
		o := other.parts[0].client("o", 9)
		for range 10 {
			noErr(t, errors.Join(w.send(o, 2, 100), w.ack(o)))
		}
		if _, err := w.migrate(other.parts[0]); err != nil {
			t.Fatal(err)
		}
		board.set(2, &vfs.Fault{Kinds: vfs.OpRename | vfs.OpSync, Err: syscall.EIO, Sticky: true})
		if err := w.drop(other); !errors.Is(err, partition.ErrFenced) {
			t.Fatalf("deleting a topic with its cold directory on a broken disk: %v", err)
		}
		bases := p.sortedBases()
		l, err := w.log(p)
		noErr(t, err)
		if _, err := w.readFrom(l, partition.ReaderRef{}, bases[0]); !errors.Is(err, partition.ErrFenced) {
			t.Errorf("read from the fenced tier: %v", err)
		}
		if got, err := w.readFrom(l, partition.ReaderRef{}, bases[len(bases)-1]); err != nil || !bytes.HasPrefix(got, p.sent[bases[len(bases)-1]]) {
			t.Errorf("read from the hot tier: %v", err)
		}
		c := p.clients[0]
		for range 20 {
			noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
		}
		if n, err := w.migrate(p); err != nil || n != 0 {
			t.Errorf("%d segments moved to a fenced tier, %v", n, err)
		}
		w.abandon()
		w.inject = nil
		w.disks = w.disks.crash(vfs.CrashOptions{})
		w.live()
	})
}

// logLines collects log lines.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (r *logLines) Enabled(context.Context, slog.Level) bool { return true }
func (r *logLines) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *logLines) WithGroup(string) slog.Handler            { return r }
func (r *logLines) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, rec.Level.String()+" "+rec.Message)
	return nil
}

func (r *logLines) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if strings.Contains(l, text) {
			return true
		}
	}
	return false
}

// TestDamageAroundTheRecoveryPoint is the two-sided test of X4, in the active segment after a kill: header bytes that are
// damaged below the recovery point are reported, their batch is lost, nothing is cut and no offset is given out twice; a
// torn tail above it is cut.
func TestDamageAroundTheRecoveryPoint(t *testing.T) {
	cases := 0
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		topic, err := w.create("orders", 1, 1, config())
		noErr(t, err)
		p := topic.parts[0]
		c := p.client("a", 3)
		for range 8 {
			noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
		}
		<-time.After(6 * time.Second) // the checkpoint: below it everything is durable for sure
		point := p.written
		for range 4 {
			noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
		}
		w.abandon()
		w.disks = w.disks.kill()
		name := p.name() + "/" + segment.LogName(0)
		bases := p.sortedBases()
		for i, base := range bases {
			for at := 0; at < segment.BatchHeaderSize; at++ {
				if at >= 12 && at < 16 || at >= 21 && base < point { // epoch: no one can tell; body: found when it is read
					continue
				}
				cases++
				f := w.fork(w.disks.crash(vfs.CrashOptions{Live: true, KeepPercent: 100}))
				var log logLines
				f.change = func(o *partition.Options) { o.Logger = slog.New(&log) }
				disk := f.disks[f.diskOf(t, name)]
				whole, pos := p.sent[base], 0
				patch(t, disk, name, func(b []byte) {
					pos = bytes.Index(b, whole)
					b[pos+at] ^= 0x41
				})
				size, err := disk.Stat(name)
				noErr(t, err)
				noErr(t, f.open())
				l, err := f.log(f.topics[0].parts[0])
				noErr(t, errors.Join(err, l.Err()))
				after, err := disk.Stat(name)
				noErr(t, err)
				what := fmt.Sprintf("batch %d (at %d, recovery point %d), byte %d", i, base, point, at)
				end := l.Offsets().End
				if base < point {
					if after.Size < size.Size || end < p.written {
						f.problem("%s: durable bytes cut: %d of %d bytes, end %d of %d", what, after.Size, size.Size, end, p.written)
					}
					// A changed checksum field is found when the batch is read, structure already now.
					if (at < 12 || at == 16) && !log.has("corrupt data found") {
						f.problem("%s: damage not reported: %v", what, log.lines)
					}
				} else if end != base || after.Size != int64(pos) {
					f.problem("%s: the torn tail was not cut: end %d, %d bytes of %d", what, end, after.Size, pos)
				}
				for j, from := range bases {
					if j == i || from >= end {
						continue
					}
					if got, err := f.readFrom(l, partition.ReaderRef{}, from); err != nil || !bytes.HasPrefix(got, p.sent[from]) {
						f.problem("%s: sound batch %d: %v", what, j, err)
					}
				}
				f.abandon()
				w.problems = append(w.problems, f.problems...)
				if len(w.problems) > 3 {
					return
				}
			}
		}
	})
	t.Logf("%d flips", cases)
}

// A flipped bit in a batch's length, which has the batch reach far into those behind it, costs no memory of that size.
func TestFlippedLengthTakesNoMemory(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	l, _ := coldLog(t, s, 12<<20, 100)
	name := "orders-0/" + segment.LogName(0)
	f, err := fs.Open(name, vfs.ReadWrite)
	noErr(t, err)
	var length [4]byte
	_, err = f.ReadAt(length[:], 8)
	noErr(t, err)
	length[1] ^= 1 << 6 // 4 MiB, which the topic accepts, and what it was before
	_, err = f.WriteAt(length[:], 8)
	noErr(t, errors.Join(err, f.SyncData(), f.Close()))
	sv := l.Segments()[0]
	_, err = l.Evict(sv, 0, sv.SizeBytes)
	noErr(t, err)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var damage *segment.CorruptError
	for damage == nil {
		w := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "r"}, From: 0, MaxBytes: 1 << 20, MustServe: true, Watch: w})
		if res.Chunk != nil {
			t.Fatalf("%d bytes of a damaged batch", res.Chunk.Len())
		}
		if err != nil && !errors.As(err, &damage) {
			t.Fatal(err)
		}
		if res.Pending {
			<-w.C()
		}
		w.Close()
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
		t.Errorf("%d bytes allocated", n)
	}
	for from := segment.Offset(100); from < l.Offsets().HighWatermark; { // what lies behind it can be read
		_, from = get(t, l, partition.ReaderRef{ClientID: "r"}, from)
	}
	closeStore(t, s)
}

// Batches larger than the topic accepts by now are read all the same.
func TestBatchesLargerThanTheTopicAccepts(t *testing.T) {
	s := open(t, nil, osFS(t))
	l, want := coldLog(t, s, 12<<20, 2500) // 2.5 MB each
	cfg := config()
	cfg.MaxMessageBytes = 1 << 20
	s.SetConfig("orders", cfg)
	sideBySide(t, l, 2, want)
	at, err := l.OffsetForTime(t.Context(), 1)
	if err != nil || at.Offset != 0 {
		t.Errorf("%+v, %v", at, err)
	}
	closeStore(t, s)
}

// What covers offsets that a disk has lost is itself no damage: the loss is told once, at the start, and a lookup by time goes on behind it.
func TestWhatCoversALossIsSound(t *testing.T) {
	fs := osFS(t)
	s := open(t, nil, fs)
	l := load(t, s, config(), 1)
	kept := batch("kept", 2, 100, nil, 1000)
	produce(t, l, kept)
	produce(t, l, batch("lost", 3, 100, nil, 2000))
	s.Abandon()
	f, err := fs.Open("orders-0/"+segment.LogName(0), vfs.ReadWrite)
	noErr(t, err)
	noErr(t, errors.Join(f.Truncate(int64(len(kept))), f.SyncData(), f.Close()))
	noErr(t, segment.WriteCheckpoint(fs, segment.RecoveryPointFile, map[segment.TopicPartition]segment.Offset{{Topic: "orders"}: 5}))

	s = open(t, nil, fs)
	l = load(t, s, config(), 1)
	if a := produce(t, l, batch("next", 1, 100, nil, 3000)); a.Base != 5 {
		t.Fatalf("%+v: offsets are given out twice", a)
	}
	seen := 0
	damaged, err := l.Scan(t.Context(), 0, func(segment.BatchHeader, []byte) (bool, error) { seen++; return true, nil })
	if damaged != 0 || err != nil || seen != 3 {
		t.Errorf("%d batches, %d damaged ranges, %v", seen, damaged, err)
	}
	if found, err := l.OffsetForTime(t.Context(), 2500); err != nil || found.Offset != 5 {
		t.Errorf("behind the loss: %+v, %v", found, err)
	}
	closeStore(t, s)
}
