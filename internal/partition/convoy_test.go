package partition_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// coldLog is a log of about total bytes of which nothing is in the page cache, with what it holds.
func coldLog(t testing.TB, s *partition.Store, total, records int) (*partition.Log, []byte) {
	t.Helper()
	cfg := config()
	cfg.SegmentBytes, cfg.MaxMessageBytes = 8<<20, 4<<20
	l := load(t, s, cfg, 1)
	var want []byte
	for n := 0; len(want) < total; n++ {
		b := batch(fmt.Sprint(n), records, 1000, nil, 1)
		if _, err := l.Append(t.Context(), partition.AppendRequest{Records: b}); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	if err := l.Durable(t.Context(), l.Offsets().End); err != nil {
		t.Fatal(err)
	}
	for _, sv := range l.Segments() {
		if _, err := l.Evict(sv, 0, sv.SizeBytes); err != nil {
			t.Fatal(err)
		}
	}
	return l, want
}

// step reads once; the zero next: nothing was at hand.
func step(t testing.TB, l *partition.Log, ref partition.ReaderRef, from segment.Offset, w *partition.Watch) (data []byte, next segment.Offset) {
	t.Helper()
	res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: 1 << 20, MustServe: true, Watch: w})
	if err != nil {
		t.Fatalf("%s at %d: %v", ref.ClientID, from, err)
	}
	if res.Chunk == nil {
		return nil, 0
	}
	defer res.Chunk.Release()
	data = make([]byte, res.Chunk.Len())
	if _, err := res.Chunk.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data, res.Chunk.Next()
}

// get is step that waits.
func get(t testing.TB, l *partition.Log, ref partition.ReaderRef, from segment.Offset) (data []byte, next segment.Offset) {
	t.Helper()
	w := partition.NewWatch()
	defer w.Close()
	for {
		if data, next = step(t, l, ref, from, w); next > 0 {
			return data, next
		}
		<-w.C()
	}
}

// sideBySide has n readers read the whole log, all at once. None is more than a read ahead: one that the machine holds up falls behind,
// rightly, and reads alone.
func sideBySide(t *testing.T, l *partition.Log, n int, want []byte) {
	t.Helper()
	end := l.Offsets().HighWatermark
	at, left := make([]segment.Offset, n), make([][]byte, n)
	for i := range left {
		left[i] = want
	}
	for !t.Failed() && slices.Min(at) < end {
		var wg sync.WaitGroup
		for i := range n {
			if at[i] == end {
				continue
			}
			wg.Go(func() {
				data, next := get(t, l, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, at[i])
				if !bytes.HasPrefix(left[i], data) {
					t.Errorf("reader %d: %d bytes at %d are not what was sent", i, len(data), at[i])
					return
				}
				at[i], left[i] = next, left[i][len(data):]
			})
		}
		wg.Wait()
	}
	for i := range left {
		if len(left[i]) > 0 {
			t.Errorf("reader %d lacks %d bytes", i, len(left[i]))
		}
	}
}

// TestConvoyReadsOnce: many readers of one cold log, all at once, get every byte; the device is read about once.
func TestConvoyReadsOnce(t *testing.T) {
	for _, records := range []int{1, 16, 150, 900, 2500} { // batches of 1 KB to 2.5 MB: larger than a chunk
		t.Run(fmt.Sprint(records), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			pool, err := cachectl.NewPool(64<<20, 2<<20)
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, func(o *partition.Options) { o.Registerer, o.Pool = reg, pool }, osFS(t))
			l, want := coldLog(t, s, 16<<20, records)
			sideBySide(t, l, 8, want)
			read := counter(t, reg, "lagoon_cold_read_bytes_total") / float64(len(want))
			t.Logf("read %.3f times, %.0f chunks shared", read, counter(t, reg, "lagoon_convoy_chunks_shared_total"))
			if read > 1.25 {
				t.Errorf("8 readers read the log %.2f times", read)
			}
			closeStore(t, s)
			pool.Close()
		})
	}
}

// TestAlone: without convoys every reader reads everything itself, which is what a measurement leaves out to show what they are for.
func TestAlone(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := open(t, func(o *partition.Options) { o.Registerer, o.Alone = reg, true }, osFS(t))
	l, want := coldLog(t, s, 4<<20, 16)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { consume(t, l, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, 0, 1<<20, want) })
	}
	wg.Wait()
	read, shared := counter(t, reg, "lagoon_cold_read_bytes_total")/float64(len(want)), counter(t, reg, "lagoon_convoy_chunks_shared_total")
	if read < 2 || shared != 0 { // the newest batches may be resident
		t.Errorf("4 readers read the log %.2f times, %.0f chunks were shared", read, shared)
	}
	closeStore(t, s)
}

// TestConvoyMeets: a reader that begins in the middle of a chunk, and one that comes a little later, join: from the next
// chunk on they cost nothing.
func TestConvoyMeets(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := open(t, func(o *partition.Options) { o.Registerer, o.ReadAheadChunks = reg, 1 }, osFS(t))
	l, want := coldLog(t, s, 24<<20, 16)
	end := l.Offsets().HighWatermark
	first, late, inside := partition.ReaderRef{ClientID: "first"}, partition.ReaderRef{ClientID: "late"}, partition.ReaderRef{ClientID: "inside"}
	at := map[string]segment.Offset{first.ClientID: 0, late.ClientID: 0, inside.ClientID: 77}
	turn := func(ref partition.ReaderRef) {
		if at[ref.ClientID] < end {
			_, at[ref.ClientID] = get(t, l, ref, at[ref.ClientID])
		}
	}
	for range 3 {
		turn(first)
	}
	for at[first.ClientID] < end || at[late.ClientID] < end || at[inside.ClientID] < end {
		turn(first)
		turn(late)
		turn(inside)
	}
	if read := counter(t, reg, "lagoon_cold_read_bytes_total"); read > float64(len(want))+4<<20 {
		t.Errorf("%.1f MB read for a log of %.1f MB", read/1e6, float64(len(want))/1e6)
	}
	closeStore(t, s)
}

// TestConvoySlowReaderIsNoBrake: a reader that stands still while another one goes through the log is left behind with a
// reason, the other one goes on, no memory stays with it, and it still gets all of its bytes.
func TestConvoySlowReaderIsNoBrake(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := open(t, func(o *partition.Options) { o.Registerer, o.ReadAheadChunks = reg, 1 }, osFS(t))
	l, want := coldLog(t, s, 40<<20, 16)
	end := l.Offsets().HighWatermark
	fast, slow := partition.ReaderRef{ClientID: "fast"}, partition.ReaderRef{ClientID: "slow"}
	_, fastAt := get(t, l, fast, 0)
	got, slowAt := get(t, l, slow, 0)
	for fastAt < end { // without the slow one's help
		_, fastAt = get(t, l, fast, fastAt)
	}
	if kept := counter(t, reg, "lagoon_convoy_kept_bytes"); kept > 8<<20 {
		t.Errorf("%.0f bytes kept for a reader that is %d bytes behind", kept, len(want)-len(got))
	}
	for slowAt < end {
		var data []byte
		data, slowAt = get(t, l, slow, slowAt)
		got = append(got, data...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if n := counter(t, reg, "lagoon_convoy_leaves_total"); n != 1 {
		t.Errorf("%.0f leaves, want 1", n)
	}
	for _, v := range s.Readers() {
		if v.Key.Client == "slow" && v.Convoy.Left != partition.LeftBehind {
			t.Errorf("%+v", v.Convoy)
		}
	}
	closeStore(t, s)
}

// TestConvoyCappedReader: a reader with a cap beside one without: the other one reads at full speed, and the cap holds also
// for bytes that others have read.
func TestConvoyCappedReader(t *testing.T) {
	var clock atomic.Int64 // nanoseconds since the start of the test
	began := time.Now()
	s := open(t, func(o *partition.Options) { o.Now = func() time.Time { return began.Add(time.Duration(clock.Load())) } }, osFS(t))
	l, want := coldLog(t, s, 24<<20, 16)
	clock.Store(int64(time.Hour)) // what was produced is old
	end := l.Offsets().HighWatermark
	const perSecond = 1 << 20
	if err := s.Configure(admission.Subject{Kind: admission.Client, Name: "capped"}, admission.Cap{BytesPerSecond: perSecond}); err != nil {
		t.Fatal(err)
	}
	free, capped := partition.ReaderRef{ClientID: "free"}, partition.ReaderRef{ClientID: "capped"}
	data, cappedAt := get(t, l, capped, 0)
	got := len(data)
	for at := segment.Offset(0); at < end; {
		_, at = get(t, l, free, at) // the clock stands still: nothing may come from the cap
		w := partition.NewWatch()
		if data, next := step(t, l, capped, cappedAt, w); next > 0 {
			got, cappedAt = got+len(data), next
		}
		w.Close()
	}
	if got > perSecond/4+perSecond/8 { // the burst, and one piece beyond it
		t.Errorf("%d bytes of %d in no time, with a cap of %d per second", got, len(want), perSecond)
	}
	closeStore(t, s)
}

// TestConvoyMemory: more readers than the pool has chunks for, each at its own place, all get through, and in the end every
// buffer is back.
func TestConvoyMemory(t *testing.T) {
	pool, err := cachectl.NewPool(4<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, func(o *partition.Options) { o.Pool = pool }, osFS(t))
	l, want := coldLog(t, s, 24<<20, 16)
	end := l.Offsets().HighWatermark
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			from := end * segment.Offset(i) / 12
			consume(t, l, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, from, 1<<20, since(t, want, from))
		})
	}
	wg.Wait()
	closeStore(t, s)
	if n := pool.Stats().InUseBytes; n != 0 {
		t.Errorf("%d bytes of chunk memory are lost", n)
	}
}

// TestConvoyReadError: an error of the device reaches every reader that waits for the chunk, and what is sound afterwards
// is served.
func TestConvoyReadError(t *testing.T) {
	var broken atomic.Bool
	disk := vfs.InjectorFunc(func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && broken.Load() && strings.HasSuffix(op.Name, ".log") {
			return syscall.EIO
		}
		return nil
	})
	s := open(t, nil, vfs.WithFaults(osFS(t), disk))
	l, _ := coldLog(t, s, 24<<20, 16)
	broken.Store(true)
	failed := 0
	for i := range 4 {
		w := partition.NewWatch()
		for range 100 {
			res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, MaxBytes: 1 << 20, MustServe: true, Watch: w})
			if err != nil {
				failed++
				break
			}
			if res.Chunk != nil {
				t.Fatal("served from a broken device")
			}
			<-w.C()
		}
		w.Close()
	}
	if failed != 4 {
		t.Errorf("%d of 4 readers saw the error", failed)
	}
	broken.Store(false)
	for i := range 4 {
		if data, _ := get(t, l, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, 0); len(data) == 0 {
			t.Error("nothing after the device came back")
		}
	}
	closeStore(t, s)
}

// TestHungDiskHoldsItsOwnReaders: a disk that does not answer holds as many jobs as it has slots, however many readers ask; the
// readers of another disk go on, with the same chunk memory.
func TestHungDiskHoldsItsOwnReaders(t *testing.T) {
	var held atomic.Int64
	hung, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk := vfs.InjectorFunc(func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") && op.Len > 64<<10 {
			held.Add(1)
			once.Do(func() { close(hung) })
			<-release
		}
		return nil
	})
	pool, err := cachectl.NewPool(32<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const slots = 4
	bad := open(t, func(o *partition.Options) { o.Pool, o.Dirs[0].Device.MaxInFlight = pool, slots }, vfs.WithFaults(osFS(t), disk))
	good := open(t, func(o *partition.Options) { o.Pool = pool }, osFS(t))
	stuck, stuckHas := coldLog(t, bad, 40<<20, 16)
	free, want := coldLog(t, good, 24<<20, 16)
	var wg sync.WaitGroup
	end := stuck.Offsets().HighWatermark
	for i := range 24 {
		wg.Go(func() {
			from := end * segment.Offset(i) / 24
			consume(t, stuck, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, from, 1<<20, since(t, stuckHas, from))
		})
	}
	<-hung
	for i := range 4 {
		consume(t, free, partition.ReaderRef{ClientID: fmt.Sprint("f", i)}, 0, 1<<20, want)
	}
	if n := held.Load(); n > slots {
		t.Errorf("%d reads held by the disk, it has %d slots", n, slots)
	}
	close(release)
	wg.Wait()
	closeStore(t, bad)
	closeStore(t, good)
	pool.Close()
}

// Where a read ends before what can be seen does, it says so, whether the limit cut it off, gave nothing, or the segment ended.
func TestReadTellsOfMore(t *testing.T) {
	for _, cold := range []bool{false, true} {
		s := open(t, nil, osFS(t))
		l, want := coldLog(t, s, 600<<10, 100)
		if !cold {
			consume(t, l, partition.ReaderRef{ClientID: "warms"}, 0, 1<<20, want) // near the end, so through the page cache
		}
		size := int64(len(batch("", 100, 1000, nil, 1)))
		batches := segment.Offset(int64(len(want)) / size)
		for _, c := range []struct {
			from     segment.Offset
			maxBytes int64
			must     bool
			more     bool
		}{
			{0, 2*size + size/2, false, true}, {0, 10, true, true}, {0, 10, false, true}, {(batches - 1) * 100, 1 << 20, false, false},
			{(batches - 2) * 100, size + size/2, false, true}, {0, 1 << 20, false, false},
		} {
			w := partition.NewWatch()
			for {
				res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "r"}, From: c.from, MaxBytes: c.maxBytes, MustServe: c.must, Watch: w})
				if err != nil {
					t.Fatal(err)
				}
				if res.Pending {
					<-w.C()
					continue
				}
				if res.More != c.more || (res.Chunk == nil) != (c.maxBytes < size && !c.must) {
					t.Errorf("cold %v, %+v: more %v, something %v", cold, c, res.More, res.Chunk != nil)
				}
				if res.Chunk != nil {
					res.Chunk.Release()
				}
				break
			}
			w.Close()
		}
		closeStore(t, s)
	}
}

// hangingDisk has each large read wait for hold while it is slow, and tells reading of it.
func hangingDisk(t *testing.T) (disk vfs.FS, slow *atomic.Bool, reading, hold chan struct{}) {
	slow, reading, hold = &atomic.Bool{}, make(chan struct{}, 64), make(chan struct{})
	return vfs.WithFaults(osFS(t), vfs.InjectorFunc(func(op vfs.Op) error {
		if slow.Load() && op.Kind == vfs.OpRead && op.Len >= 64<<10 {
			reading <- struct{}{}
			<-hold
		}
		return nil
	})), slow, reading, hold
}

// A fetch that is parked for a device hears that the topic was deleted, however long that device takes.
func TestDeletionWakesWhoWaitsForADevice(t *testing.T) {
	disk, slow, reading, hold := hangingDisk(t)
	s := open(t, nil, disk)
	l, _ := coldLog(t, s, 600<<10, 100)
	slow.Store(true)
	w := partition.NewWatch()
	defer w.Close()
	for began := false; !began; {
		if _, next := step(t, l, partition.ReaderRef{ClientID: "r"}, 0, w); next > 0 {
			t.Fatalf("the log is not cold for %v", next)
		}
		select {
		case <-reading:
			began = true
		case <-w.C(): // the segment is prepared
		}
	}
	if err := s.Delete(t.Context(), "orders", topicID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.C():
	default:
		t.Error("the reader was not woken")
	}
	close(hold)
	closeStore(t, s)
}

// More readers of a partition than there are cursors to remember: none that is parked for a device loses its place to the others.
func TestManyReadersWaitForADevice(t *testing.T) {
	disk, slow, reading, hold := hangingDisk(t)
	s := open(t, nil, disk)
	l, _ := coldLog(t, s, 12<<20, 100)
	slow.Store(true)
	watches := make([]*partition.Watch, 1200)
	ref := func(i int) partition.ReaderRef { return partition.ReaderRef{ClientID: fmt.Sprint("r", i)} }
	for i := range watches {
		watches[i] = partition.NewWatch()
		defer watches[i].Close()
		for began := i > 0; ; {
			if _, next := step(t, l, ref(i), 0, watches[i]); next > 0 {
				t.Fatalf("the log is not cold for %v", next)
			}
			if began {
				break
			}
			select {
			case <-reading:
				began = true
			case <-watches[i].C(): // the segment is prepared
			}
		}
	}
	slow.Store(false)
	close(hold)
	patience := time.After(time.Minute)
	for i, w := range watches {
		for next := segment.Offset(0); next == 0; _, next = step(t, l, ref(i), 0, w) {
			select {
			case <-w.C():
			case <-patience:
				t.Fatalf("reader %d was forgotten", i)
			}
		}
	}
	closeStore(t, s)
}
