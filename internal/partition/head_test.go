package partition_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/lab/spindle"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// head is a vfs.Injector that has large reads take the time that a simulated disk with one head needs, in the time of a synctest bubble. It
// looks only while it is on.
type head struct {
	began time.Time
	kick  chan struct{}

	mu      sync.Mutex
	on      bool
	model   *spindle.Disk
	id      uint64
	waiting map[uint64]chan struct{}
	places  map[string]int64 // where files begin
	end     int64            // of the last read
	bytes   int64
	runs    int
}

// between is where the next file begins: beyond the longest one.
const between = 256 << 20

// Fault implements vfs.Injector.
func (h *head) Fault(op vfs.Op) error {
	const whole = 64 << 10 // smaller reads are those of indexes and headers
	if op.Kind != vfs.OpRead || op.Len < whole {
		return nil
	}
	for _, done := range h.read(op) {
		<-done
	}
	return nil
}

// read asks the disk for what O_DIRECT would, in requests of a mebibyte, as the kernel does.
func (h *head) read(op vfs.Op) (done []chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil
	}
	if _, ok := h.places[op.Name]; !ok {
		h.places[op.Name] = int64(len(h.places)+1) * between
	}
	at := h.places[op.Name] + op.Off
	from, to := at&^4095, (at+op.Len+4095)&^4095
	if apart := from - h.end; apart < -64<<10 || apart > 0 {
		h.runs++
	}
	h.end, h.bytes = to, h.bytes+op.Len
	for ; from < to; from += 1 << 20 {
		h.id++
		c := make(chan struct{})
		h.waiting[h.id], done = c, append(done, c)
		h.model.Submit(time.Since(h.began), h.id, spindle.Read, from, min(1<<20, to-from))
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
	return done
}

// serve runs the disk until stop.
func (h *head) serve(stop <-chan struct{}) {
	for {
		h.mu.Lock()
		for _, id := range h.model.Advance(time.Since(h.began)) {
			close(h.waiting[id])
			delete(h.waiting, id)
		}
		at, ok := h.model.Next()
		h.mu.Unlock()
		var due <-chan time.Time
		if ok {
			due = time.After(at - time.Since(h.began))
		}
		select {
		case <-due:
		case <-h.kick:
		case <-stop:
			return
		}
	}
}

// TestOneHead: readers of one range in four partitions of a rotating disk get nearly all that it can give, however many they are, for the
// head stays where it is for as long as a run lasts; and readers of ranges of their own, who want more chunks than there is memory
// for, get most of it.
func TestOneHead(t *testing.T) {
	for name, c := range map[string]headCase{
		"1":  {readers: 1, segmentBytes: 32 << 20, share: 0.9, passes: 1.05},
		"16": {readers: 16, segmentBytes: 32 << 20, share: 0.9, passes: 1.05},
		// What was read ahead for another one that came before would fill the memory.
		"16, after one that is gone":  {readers: 16, before: gone, segmentBytes: 48 << 20, share: 0.85, passes: 1.05},
		"16, beside one that pauses":  {readers: 16, before: paused, segmentBytes: 48 << 20, share: 0.85, passes: 1.05},
		"16, beside one that is slow": {readers: 16, before: slow, segmentBytes: 48 << 20, share: 0.65, passes: 1.3},
		"10 spread":                   {readers: 10, segmentBytes: 80 << 20, spread: true, share: 0.55, passes: 1.25}, // each reads ahead beyond its end; 0.63 to 0.74 in 40 runs
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { oneHead(t, c) }) })
	}
}

// before is what a reader that came before the others does after 16 MiB of each partition.
type before int

const (
	nobody before = iota
	gone          // its connection has ended
	paused        // it does not ask
	slow          // it takes a mebibyte a second of each partition
)

type headCase struct {
	readers       int
	before        before
	segmentBytes  int32
	spread        bool    // each has a part of the range to itself
	share, passes float64 // of the disk's speed, at least; how often a byte is read, at most
}

func oneHead(t *testing.T, c headCase) {
	const limit, partitions = 150e6, 4
	h := &head{began: time.Now(), model: spindle.New(spindle.Desktop(10 << 30)), waiting: map[uint64]chan struct{}{}, kick: make(chan struct{}, 1),
		places: map[string]int64{}}
	stop := make(chan struct{})
	defer close(stop)
	go h.serve(stop)
	sim := cachetest.New(cachetest.Options{CapacityBytes: 1 << 30})
	pool, err := cachectl.NewPool(32*(2<<20+2*cachectl.PageSize), 2<<20+2*cachectl.PageSize) // as the daemon makes it
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := open(t, func(o *partition.Options) {
		o.Pool, o.Cache = pool, cachectl.New(sim, cachectl.Options{})
		o.Dirs[0].Rotating = true
		o.Dirs[0].Device = admission.DeviceConfig{Rotating: true, MaxInFlight: 2, QuantumBytes: 24 << 20} // likewise
	}, sim.FS(vfs.WithFaults(osFS(t), h)))
	cfg := config()
	cfg.SegmentBytes, cfg.SegmentIndexBytes = c.segmentBytes, 10<<20
	load(t, s, cfg, partitions)
	record := batch("head", 60, 1024, nil, 1)
	var parts []headPart
	var bytes int64
	for p := range int32(partitions) {
		l, _ := s.Log("orders", p)
		fillLog(t, l, record, int(c.segmentBytes))
		sim.Settle()
		sealed := l.Segments()[0]
		if _, err := l.Evict(sealed, 0, sealed.SizeBytes); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, headPart{l, 0, sealed.Next})
		bytes += sealed.SizeBytes
	}
	time.Sleep(time.Minute) // the records are old
	h.mu.Lock()
	h.on = true
	h.mu.Unlock()
	var wg, slower sync.WaitGroup
	if c.before != nobody {
		h.forerunner(t, s, c.before, parts, &slower)
	}
	h.mu.Lock()
	before := h.bytes
	h.mu.Unlock()
	began := time.Now()
	for i := range c.readers {
		mine := slices.Clone(parts)
		for j := range mine {
			if whole, n := mine[j].to, segment.Offset(c.readers); c.spread {
				mine[j].from, mine[j].to = whole*segment.Offset(i)/n, whole*segment.Offset(i+1)/n
			}
		}
		wg.Go(func() {
			replay(t, partition.ReaderRef{ClientID: fmt.Sprint("r", i)}, mine, func(n int64) {
				time.Sleep(300*time.Microsecond + time.Duration(float64(n)/3e9*float64(c.readers)*float64(time.Second)))
			})
		})
	}
	wg.Wait()
	took := time.Since(began)
	h.mu.Lock()
	read := h.bytes - before
	h.mu.Unlock()
	slower.Wait()
	closeStore(t, s)
	share, passes := float64(read)/took.Seconds()/limit, float64(read)/float64(bytes)
	t.Logf("%.2f of the disk, read %.2f times, in %d runs", share, passes, h.runs)
	if share < c.share || passes > c.passes {
		t.Errorf("%.2f of the disk, want %.2f; read %.2f times, want %.2f; in %d runs", share, c.share, passes, c.passes, h.runs)
	}
}

// forerunner is a reader that came before the others, and has read 16 MiB of each partition when it returns.
func (h *head) forerunner(t *testing.T, s *partition.Store, c before, parts []headPart, then *sync.WaitGroup) {
	const read = 16 << 20
	ref := partition.ReaderRef{ClientID: "before", Conn: 1}
	first, rest := slices.Clone(parts), slices.Clone(parts)
	for i := range parts {
		first[i].to = parts[i].to * read / segment.Offset(parts[i].log.Segments()[0].SizeBytes)
		rest[i].from = first[i].to
	}
	quick := func(int64) { time.Sleep(time.Millisecond) }
	replay(t, ref, first, quick)
	synctest.Wait()
	switch c {
	case gone:
		s.Disconnected(ref.Conn)
	case paused:
		time.Sleep(4 * time.Second)
	case slow:
		then.Go(func() {
			replay(t, ref, rest, func(n int64) { time.Sleep(time.Duration(n) * time.Second / (4 << 20)) })
		})
		time.Sleep(20 * time.Second)
	}
}

// headPart is what a reader has still to read of one partition.
type headPart struct {
	log      *partition.Log
	from, to segment.Offset
}

// replay is a consumer: of all partitions what is at hand, one fetch after the other. take is what it does with so many bytes, which the
// broker has in memory meanwhile.
func replay(t *testing.T, ref partition.ReaderRef, parts []headPart, take func(int64)) {
	w := partition.NewWatch()
	defer w.Close()
	for turn := 0; len(parts) > 0; turn++ {
		got := int64(0)
		var chunks []*partition.Chunk
		for i := range parts {
			p := &parts[(i+turn)%len(parts)]
			res, err := p.log.Read(partition.ReadRequest{Reader: ref, From: p.from, MaxBytes: 8 << 20, MustServe: got == 0, Watch: w})
			if err != nil {
				t.Error(err)
				return
			}
			if res.Chunk != nil {
				got += res.Chunk.Len()
				p.from = res.Chunk.Next()
				chunks = append(chunks, res.Chunk)
			}
		}
		parts = slices.DeleteFunc(parts, func(p headPart) bool { return p.from >= p.to })
		if got > 0 {
			take(got)
		} else if len(parts) > 0 {
			<-w.C()
		}
		for _, c := range chunks {
			c.Release()
		}
	}
}

// TestWhoWaitsForADeviceDoesNotPause: however short memory is and however long a disk takes, a reader keeps its place in the queue.
func TestWhoWaitsForADeviceDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		answers := make(chan struct{})
		disk := vfs.InjectorFunc(func(op vfs.Op) error {
			if hangs.Load() && op.Kind == vfs.OpRead && op.Len > 64<<10 {
				<-answers
			}
			return nil
		})
		sim := cachetest.New(cachetest.Options{CapacityBytes: 1 << 30})
		pool, err := cachectl.NewPool(2<<20, 1<<20)
		noErr(t, err)
		defer pool.Close()
		s := open(t, func(o *partition.Options) { o.Pool, o.Cache = pool, cachectl.New(sim, cachectl.Options{}) }, sim.FS(vfs.WithFaults(osFS(t), disk)))
		cfg := config()
		cfg.SegmentBytes = 8 << 20
		l := load(t, s, cfg, 1)
		fillLog(t, l, batch("waits", 60, 1024, nil, 1), 8<<20)
		sim.Settle()
		sealed := l.Segments()[0]
		if _, err := l.Evict(sealed, 0, sealed.SizeBytes); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the records are old
		hangs.Store(true)
		w := partition.NewWatch()
		defer w.Close()
		read := func() partition.ReadResult {
			res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "waits"}, MaxBytes: 1 << 20, MustServe: true, Watch: w})
			noErr(t, err)
			return res
		}
		for res := read(); !res.Pending; res = read() { // the segment is being opened
			<-w.C()
		}
		synctest.Wait()
		select {
		case <-w.C(): // of the opening
			read()
		default:
		}
		time.Sleep(10 * time.Second)
		select {
		case <-w.C():
			t.Error("it was sent back to ask again")
		default:
		}
		hangs.Store(false)
		close(answers)
		res := read()
		for ; res.Chunk == nil; res = read() {
			<-w.C()
		}
		res.Chunk.Release()
		closeStore(t, s)
	})
}
