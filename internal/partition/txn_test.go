package partition_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// transactional makes a batch part of its producer's transaction.
func transactional(b []byte) []byte {
	b[22] |= 0x10
	crc := crc32.Checksum(b[21:], castagnoli)
	b[17], b[18], b[19], b[20] = byte(crc>>24), byte(crc>>16), byte(crc>>8), byte(crc)
	return b
}

// write appends a batch of a transaction with the guard that it may need.
func write(t testing.TB, l *partition.Log, b []byte, pid int64) partition.Appended {
	t.Helper()
	guard, _ := l.GuardTxn(pid, 0)
	a, err := l.Append(context.Background(), partition.AppendRequest{Records: transactional(b), Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Durable(context.Background(), a.Next); err != nil {
		t.Fatal(err)
	}
	return a
}

func appendMarker(l *partition.Log, pid int64, epoch int16, commit bool) (partition.Appended, error) {
	m := segment.Marker{Commit: commit, CoordinatorEpoch: 1}
	a, err := l.Append(context.Background(), partition.AppendRequest{Records: segment.AppendMarker(nil, pid, epoch, m, 1), Internal: true})
	if err == nil {
		err = l.Durable(context.Background(), a.Next)
	}
	return a, err
}

func end(t testing.TB, l *partition.Log, pid int64, commit bool) partition.Appended {
	t.Helper()
	a, err := appendMarker(l, pid, 0, commit)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// committed reads as a read_committed consumer does: it takes what it is given and leaves out the records of aborted transactions
// by the lists that come along. It gives the base offsets of the data batches that are left.
func committed(t testing.TB, l *partition.Log, from segment.Offset, maxBytes int64) (seen []segment.Offset) {
	t.Helper()
	ref := partition.ReaderRef{ClientID: fmt.Sprint("committed-", from)}
	for {
		w := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: maxBytes, MustServe: true, Committed: true, Watch: w})
		if err != nil {
			t.Fatalf("read at %d: %v", from, err)
		}
		if from >= res.Offsets.LastStable {
			w.Close()
			return seen
		}
		if res.Chunk == nil {
			select {
			case <-w.C():
			case <-time.After(5 * time.Minute):
				t.Fatalf("read at %d of %+v: nothing came (pending %v)", from, res.Offsets, res.Pending)
			}
			w.Close()
			continue
		}
		w.Close()
		p := make([]byte, res.Chunk.Len())
		if _, err := res.Chunk.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		res.Chunk.Release()
		aborted := slices.Clone(res.Aborted)
		slices.SortFunc(aborted, func(a, b partition.AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
		dropping := map[int64]bool{}
		for len(p) > 0 {
			h, err := segment.DecodeHeader(p)
			if err != nil {
				t.Fatal(err)
			}
			if h.NextOffset() > res.Offsets.LastStable {
				t.Fatalf("batch %d reaches above the last stable offset %d", h.BaseOffset, res.Offsets.LastStable)
			}
			for len(aborted) > 0 && aborted[0].FirstOffset <= h.LastOffset() {
				dropping[aborted[0].ProducerID] = true
				aborted = aborted[1:]
			}
			switch {
			case h.IsControl():
				if m, err := segment.ParseMarker(p[:h.SizeBytes()]); err != nil {
					t.Fatal(err)
				} else if !m.Commit {
					delete(dropping, h.ProducerID)
				}
			case h.IsTransactional() && dropping[h.ProducerID]:
			case h.LastOffset() >= from:
				seen = append(seen, h.BaseOffset)
			}
			from = max(from, h.NextOffset())
			p = p[h.SizeBytes():]
		}
	}
}

// txnModel is what a log of single-record batches should show.
type txnModel struct {
	owner []int64 // by offset: producer of a transaction, 0 outside of any, -1 a marker
	fate  []bool  // by offset: shown, once decided
	open  map[int64][]segment.Offset
}

func (m *txnModel) stable() segment.Offset {
	lso := segment.Offset(len(m.owner))
	for _, offsets := range m.open {
		lso = min(lso, offsets[0])
	}
	return lso
}

func (m *txnModel) shown(from segment.Offset) (out []segment.Offset) {
	for o := from; o < m.stable(); o++ {
		if m.fate[o] {
			out = append(out, o)
		}
	}
	return out
}

func TestReadCommittedAgreesWithAModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	fss := []vfs.FS{osFS(t), osFS(t)}
	cfg := config()
	cfg.SegmentBytes, cfg.LocalRetentionBytes = 6000, 20_000
	tiers := func(o *partition.Options) {
		o.PlanInterval, o.MaxIndexBytes = 20*time.Millisecond, int64(1+rnd.IntN(2)*1000)
	}
	s := open(t, tiers, fss...)
	l := load(t, s, cfg, 1)
	m := &txnModel{open: map[int64][]segment.Offset{}}
	seqs := map[int64]int32{}
	check := func() {
		t.Helper()
		if got := l.Offsets().LastStable; got != m.stable() {
			t.Fatalf("last stable offset %d, want %d of %d", got, m.stable(), len(m.owner))
		}
		for range 3 {
			from, size := segment.Offset(rnd.IntN(len(m.owner)+1)), int64(1)<<rnd.IntN(18)
			from = min(from, m.stable())
			if got, want := committed(t, l, from, size), m.shown(from); !slices.Equal(got, want) {
				t.Fatalf("from %d, %d bytes:\n got %v\nwant %v", from, size, got, want)
			}
		}
	}
	for step := range 500 {
		pid := int64(1 + rnd.IntN(6))
		o := segment.Offset(len(m.owner))
		switch k := rnd.IntN(100); {
		case k < 60:
			b := batch(fmt.Sprint(step), 1, 100+rnd.IntN(300), &producer{id: pid, seq: seqs[pid]}, int64(step))
			if a := write(t, l, b, pid); a.Base != o {
				t.Fatalf("offset %d, want %d", a.Base, o)
			}
			seqs[pid]++
			m.owner, m.fate = append(m.owner, pid), append(m.fate, false)
			m.open[pid] = append(m.open[pid], o)
		case k < 70:
			produce(t, l, batch(fmt.Sprint(step), 1, 200, nil, int64(step)))
			m.owner, m.fate = append(m.owner, 0), append(m.fate, true)
		case k < 97:
			commit := rnd.IntN(2) == 0
			end(t, l, pid, commit)
			for _, at := range m.open[pid] {
				m.fate[at] = commit
			}
			delete(m.open, pid)
			m.owner, m.fate = append(m.owner, -1), append(m.fate, false)
		default:
			check()
			if rnd.IntN(2) == 0 {
				closeStore(t, s)
			} else {
				s.Abandon()
			}
			if k == 99 { // what a start makes anew
				damageTxnIndex(t, rnd, fss)
			}
			s = open(t, tiers, fss...)
			l = load(t, s, cfg, 1)
			check()
		}
	}
	check()
	closeStore(t, s)
}

// TestAbortedListsOfMovedSegments: a list of aborted transactions is not left out because its segment has moved to another tier between
// the look at the log and the look at the list.
func TestAbortedListsOfMovedSegments(t *testing.T) {
	cfg := config()
	cfg.SegmentBytes = 6000
	s := open(t, func(o *partition.Options) { o.PlanInterval = 20 * time.Millisecond }, osFS(t), osFS(t))
	defer closeStore(t, s)
	l := load(t, s, cfg, 1)
	write(t, l, batch("open", 1, 100, &producer{id: 1}, 1), 1)
	for i := range 60 { // some segments lie between the records of the transaction and its marker
		produce(t, l, batch(fmt.Sprint(i), 1, 400, nil, 1))
	}
	end(t, l, 1, false)
	for i := range 40 {
		produce(t, l, batch(fmt.Sprint(i), 1, 400, nil, 1))
	}
	marker := segment.Offset(61)
	stale, list, err := l.AbortedAcross(0, 1, func() {
		cfg.LocalRetentionBytes = 1
		s.SetConfig("orders", cfg)
		waitFor(t, "the marker's segment to move", func() bool { return l.Offsets().LocalStart > marker })
	})
	if !errors.Is(stale, partition.ErrChanged) {
		t.Errorf("a list from segments that were replaced: %v", stale)
	}
	if want := []partition.AbortedTxn{{ProducerID: 1, FirstOffset: 0}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("aborted %v, %v, want %v", list, err, want)
	}
}

// damageTxnIndex cuts one of the lists of aborted transactions short, in the middle of an entry.
func damageTxnIndex(t *testing.T, rnd *rand.Rand, fss []vfs.FS) {
	for _, fs := range fss {
		listing, err := segment.ListDir(fs, "orders-0")
		if err != nil {
			continue
		}
		for _, f := range listing.Segments {
			if !f.HasTxnIndex || rnd.IntN(4) > 0 {
				continue
			}
			name := "orders-0/" + segment.TxnIndexName(f.Base)
			b, err := vfs.ReadFile(fs, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFileAtomic(fs, name, b[:len(b)-5]); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestMarkerWakesCommittedReaders(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	write(t, l, batch("a", 1, 10, &producer{id: 7}, 1), 7)
	w := partition.NewWatch()
	defer w.Close()
	req := partition.ReadRequest{From: 0, MaxBytes: 1 << 20, MustServe: true, Committed: true, Watch: w}
	if res, err := l.Read(req); err != nil || res.Chunk != nil || res.Offsets.LastStable != 0 || res.Offsets.HighWatermark != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	produce(t, l, batch("b", 1, 10, nil, 1))
	select {
	case <-w.C():
		t.Error("woken by a record that cannot be shown")
	default:
	}
	end(t, l, 7, true)
	<-w.C()
	if got := committed(t, l, 0, 1<<20); !slices.Equal(got, []segment.Offset{0, 1}) {
		t.Errorf("committed at %v", got)
	}
	if lso := l.Offsets().LastStable; lso != 3 {
		t.Errorf("last stable offset %d", lso)
	}
	closeStore(t, s)
}

func TestTransactionsOpenOnlyWithTheirGuard(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, config(), 1)
	ctx := context.Background()
	put := func(seq int32, guard partition.TxnGuard) error {
		b := transactional(batch("x", 1, 10, &producer{id: 7, seq: seq}, 1))
		_, err := l.Append(ctx, partition.AppendRequest{Records: b, Guard: guard})
		return err
	}
	if err := put(0, 0); !errors.Is(err, segment.ErrInvalidTxnState) {
		t.Errorf("without a guard: %v", err)
	}
	late, open := l.GuardTxn(7, 0)
	if open {
		t.Error("open before its first batch")
	}
	end(t, l, 7, false) // while the coordinator was asked, the transaction ended
	if err := put(0, late); !errors.Is(err, segment.ErrInvalidTxnState) {
		t.Errorf("with the guard of a transaction that has ended: %v", err)
	}
	guard, _ := l.GuardTxn(7, 0)
	if err := put(0, guard); err != nil {
		t.Error(err)
	}
	if _, open := l.GuardTxn(7, 0); !open {
		t.Error("not open after its first batch")
	}
	if err := put(1, 0); err != nil {
		t.Errorf("second batch: %v", err)
	}
	if _, open := l.GuardTxn(7, 1); open { // the client has ended this one and goes on, and the marker is still on its way
		t.Error("the next transaction is taken for this one")
	}
	if _, err := appendMarker(l, 7, 3, true); err != nil { // as protocol version 2 ends it: the epoch is bumped
		t.Error(err)
	}
	guard, _ = l.GuardTxn(7, 0)
	if err := put(0, guard); !errors.Is(err, segment.ErrInvalidProducerEpoch) {
		t.Errorf("a fenced producer: %v", err)
	}
	l.DropGuard(7, guard)
	closeStore(t, s)
}

// TestEpochPerTransaction: in the second protocol a producer that the partition does not know begins with sequence 0, for what came before is
// lost or still to come, and a marker of the transaction's own epoch is one of the transaction before.
func TestEpochPerTransaction(t *testing.T) {
	s := open(t, nil, osFS(t))
	defer closeStore(t, s)
	l := load(t, s, config(), 1)
	put := func(seq int32) error {
		guard, _ := l.GuardTxn(7, 0)
		_, err := l.Append(t.Context(), partition.AppendRequest{Records: transactional(batch("x", 1, 10, &producer{id: 7, seq: seq}, 1)), Guard: guard, EpochPerTxn: true})
		return err
	}
	mark := func(epoch int16) error {
		_, err := l.Append(t.Context(), partition.AppendRequest{Records: segment.AppendMarker(nil, 7, epoch, segment.Marker{Commit: true}, 1), Internal: true, EpochPerTxn: true})
		return err
	}
	for _, step := range []struct {
		what string
		err  error
		want error
	}{
		{"the second batch before the first", put(5), segment.ErrOutOfOrderSequence}, {"the first", put(0), nil}, {"the second", put(1), nil},
		{"a marker of its epoch", mark(0), segment.ErrInvalidProducerEpoch}, {"its marker", mark(1), nil}, {"its marker again", mark(1), nil},
		{"a marker of the epoch before", mark(0), segment.ErrInvalidProducerEpoch},
	} {
		if !errors.Is(step.err, step.want) {
			t.Errorf("%s: %v, want %v", step.what, step.err, step.want)
		}
	}
}

// TestGuardOfSeveralWrites: a write that gives up, as one of a connection that was lost, does not take the guard from another one of the
// same producer.
func TestGuardOfSeveralWrites(t *testing.T) {
	s := open(t, nil, osFS(t))
	defer closeStore(t, s)
	l := load(t, s, config(), 1)
	put := func(seq int32, guard partition.TxnGuard) error {
		_, err := l.Append(t.Context(), partition.AppendRequest{Records: transactional(batch("x", 1, 10, &producer{id: 7, seq: seq}, 1)), Guard: guard})
		return err
	}
	lost, _ := l.GuardTxn(7, 0)
	again, _ := l.GuardTxn(7, 0)
	l.DropGuard(7, lost)
	if err := put(0, again); err != nil {
		t.Errorf("the other one gave up: %v", err)
	}
	end(t, l, 7, true)
	unused, _ := l.GuardTxn(7, 0)
	l.DropGuard(7, unused)
	if err := put(1, unused); !errors.Is(err, segment.ErrInvalidTxnState) {
		t.Errorf("with a guard that was given back: %v", err)
	}
}

// TestSyncedDoesNotWaitForTheFlushInterval: what others rely on is on stable storage at once, also where the topic does without synced acks.
func TestSyncedDoesNotWaitForTheFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, cfg := vfs.NewMem(1), config()
		cfg.FlushInterval = time.Hour
		s := open(t, nil, disk)
		l := load(t, s, cfg, 1)
		for range 3 {
			a, err := l.Append(t.Context(), partition.AppendRequest{Records: batch("a", 2, 30, nil, time.Now().UnixMilli())})
			if err != nil {
				t.Fatal(err)
			}
			asked := time.Now()
			if err := l.Synced(t.Context(), a.Next); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(asked); waited > 0 {
				t.Errorf("waited %v", waited)
			}
		}
		after := disk.Crash(vfs.CrashOptions{Live: true})
		closeStore(t, s)
		s = open(t, nil, after)
		if end := load(t, s, cfg, 1).Offsets().End; end != 6 {
			t.Errorf("after a power cut the log ends at %d", end)
		}
		closeStore(t, s)
	})
}

// TestAbortedRecordsThatAreDeletedWhileTheyAreRead: a read_committed reader has the records of an aborted transaction in hand when they and the
// marker are deleted, and with the marker the word that they were aborted. It does not get them.
func TestAbortedRecordsThatAreDeletedWhileTheyAreRead(t *testing.T) {
	var reading atomic.Pointer[func()]
	fs := vfs.WithFaults(osFS(t), vfs.InjectorFunc(func(op vfs.Op) error {
		if during := reading.Load(); during != nil && op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") && reading.CompareAndSwap(during, nil) {
			(*during)()
		}
		return nil
	}))
	cfg := config()
	cfg.SegmentBytes = 2000
	s := open(t, nil, fs)
	defer closeStore(t, s)
	l := load(t, s, cfg, 1)
	write(t, l, batch("aborted", 1, 100, &producer{id: 1}, 1), 1)
	for i := range 6 { // the marker lies in another segment
		produce(t, l, batch(fmt.Sprint(i), 1, 800, nil, 1))
	}
	marker := end(t, l, 1, false)
	for i := range 6 {
		produce(t, l, batch(fmt.Sprint(i), 1, 800, nil, 1))
	}
	deleted := false
	during := func() {
		deleted = true
		if start, err := l.DeleteRecords(t.Context(), l.Offsets().HighWatermark-1); err != nil || start <= marker.Base {
			t.Errorf("the log starts at %d, %v", start, err)
		}
	}
	reading.Store(&during)
	res, err := l.Read(partition.ReadRequest{From: 0, MaxBytes: 1 << 20, MustServe: true, Committed: true})
	if !deleted {
		t.Fatal("nothing was read")
	}
	if !errors.Is(err, partition.ErrOffsetOutOfRange) || res.Chunk != nil {
		t.Errorf("chunk %v with aborted transactions %v, %v", res.Chunk, res.Aborted, err)
	}
	if res.Chunk != nil {
		res.Chunk.Release()
	}
}

// TestTransactionsOfALogThatWasCut: a start cuts a damaged tail. When the log has grown beyond that again, the producer snapshots and lists of
// aborted transactions that covered the old tail do not count: the transaction that was open at the cut has ended otherwise.
func TestTransactionsOfALogThatWasCut(t *testing.T) {
	for _, aborted := range []bool{false, true} {
		t.Run(fmt.Sprintf("aborted=%v", aborted), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { cutLog(t, aborted) }) })
	}
}

func cutLog(t *testing.T, aborted bool) {
	cfg := config()
	cfg.SegmentBytes = 2000
	disk := vfs.NewMem(1)
	crash := func(s *partition.Store) {
		disk = disk.Crash(vfs.CrashOptions{Live: true})
		closeStore(t, s)
	}
	s := open(t, nil, disk)
	l := load(t, s, cfg, 1)
	kept := write(t, l, batch("open", 1, 100, &producer{id: 1}, 1), 1)
	produce(t, l, batch("x", 1, 500, nil, 1))
	if aborted {
		end(t, l, 1, false)
	}
	covered := segment.Offset(0)
	for covered == 0 { // until a segment is rolled
		produce(t, l, batch("x", 1, 500, nil, 1))
		synctest.Wait()
		listing, err := segment.ListDir(disk, "orders-0")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(listing.Snapshots); n > 0 {
			covered = listing.Snapshots[n-1]
		}
	}
	crash(s)
	f, err := disk.Open("orders-0/"+segment.LogName(0), vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 500); err != nil || f.SyncData() != nil || f.Close() != nil {
		t.Fatal(err)
	}
	s = open(t, nil, disk)
	l = load(t, s, cfg, 1)
	if cut := l.Offsets().End; cut != kept.Next || cut >= covered {
		t.Fatalf("the log ends at %d, the snapshot covers %d", cut, covered)
	}
	end(t, l, 1, true)
	want := []segment.Offset{kept.Base}
	for l.Offsets().End <= covered {
		want = append(want, produce(t, l, batch("y", 1, 10, nil, 1)).Base)
	}
	crash(s)
	s = open(t, nil, disk)
	l = load(t, s, cfg, 1)
	if o := l.Offsets(); o.LastStable != o.End {
		t.Fatalf("last stable offset %d of %d", o.LastStable, o.End)
	}
	if got := committed(t, l, 0, 1<<20); !slices.Equal(got, want) {
		t.Errorf("committed at %v, want %v", got, want)
	}
	closeStore(t, s)
}

// TestDamagedSnapshotOfMovedSegments: the newest producer snapshot is damaged, and what lies between the one before and it has moved to a colder
// tier. The start reads it there: a transaction began in it and is open still.
func TestDamagedSnapshotOfMovedSegments(t *testing.T) {
	cfg := config()
	cfg.SegmentBytes = 6000
	hot, cold := osFS(t), osFS(t)
	tiers := func(o *partition.Options) { o.PlanInterval = 20 * time.Millisecond }
	s := open(t, tiers, hot, cold)
	l := load(t, s, cfg, 1)
	roll := func() {
		t.Helper()
		listing, err := segment.ListDir(hot, "orders-0")
		for before := len(listing.Segments); err == nil && len(listing.Segments) == before; listing, err = segment.ListDir(hot, "orders-0") {
			produce(t, l, batch("x", 1, 400, nil, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	snapshots := func() []segment.Offset {
		listing, err := segment.ListDir(hot, "orders-0")
		if err != nil {
			t.Fatal(err)
		}
		return listing.Snapshots
	}
	roll()
	roll()
	first := write(t, l, batch("open", 1, 100, &producer{id: 1}, 1), 1).Base
	roll()
	waitFor(t, "the snapshot behind it", func() bool { at := snapshots(); return len(at) == 2 && at[0] <= first && at[1] > first })
	cfg.LocalRetentionBytes = 1
	s.SetConfig("orders", cfg)
	waitFor(t, "its segment to move", func() bool { return l.Offsets().LocalStart > first })
	s.Abandon()
	name := "orders-0/" + segment.SnapshotName(snapshots()[1])
	b, err := vfs.ReadFile(hot, name, 1<<20)
	if err == nil {
		b[len(b)-1] ^= 1
		err = vfs.WriteFileAtomic(hot, name, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, tiers, hot, cold)
	defer closeStore(t, s)
	l = load(t, s, cfg, 1)
	if o := l.Offsets(); o.LastStable != first {
		t.Errorf("last stable offset %d of %d, a transaction is open from %d", o.LastStable, o.End, first)
	}
}

// TestHighWatermarkWhileTheFlushSettingChanges: a topic that opts out of synced acks shows, at any moment of that, what it has shown before.
func TestHighWatermarkWhileTheFlushSettingChanges(t *testing.T) {
	var writing atomic.Pointer[func()]
	fs := vfs.WithFaults(osFS(t), vfs.InjectorFunc(func(op vfs.Op) error {
		if during := writing.Load(); during != nil && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") && writing.CompareAndSwap(during, nil) {
			(*during)()
		}
		return nil
	}))
	s := open(t, nil, fs)
	defer closeStore(t, s)
	cfg := config()
	l := load(t, s, cfg, 1)
	shown := produce(t, l, batch("a", 3, 10, nil, 1)).Next
	changed := make(chan struct{})
	during := func() { // an append has the log, and the change waits for it
		cfg.FlushInterval = time.Hour
		go func() { defer close(changed); s.SetConfig("orders", cfg) }()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		for l.Durable(done, 1<<40) != nil { // until the setting is in force
			runtime.Gosched()
		}
		if o := l.Offsets(); o.HighWatermark < shown {
			t.Errorf("the high watermark is %d, it was %d", o.HighWatermark, shown)
		}
	}
	writing.Store(&during)
	produce(t, l, batch("b", 1, 10, nil, 1))
	<-changed
	if writing.Load() != nil {
		t.Error("nothing was written")
	}
}
