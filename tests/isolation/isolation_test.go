package isolation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/tests/internal/lagoontest"
)

const (
	mib = 1 << 20

	memory         = 1 << 30
	livePartitions = 8
	liveRate       = 44 // requests a second of 512 KiB of values: 22 MiB/s
	slowPartitions = 4
	slowRate       = 40 // of 256 KiB: 10 MiB/s
	oldPartitions  = 4
	behind         = 10 * time.Second
	segmentBytes   = 64 * mib

	maxLeft    = 0.01 // of the bytes served to the backlog reader may stay resident
	minHot     = 0.99 // of the hot window is resident, at every look
	minShare   = 0.90 // of a plain sequential direct read is what the backlog reader reaches
	slowDevice = 300e6

	// Of the bytes that real-time readers read, where the kernel reclaims proactively; 0 elsewhere. A fetch that misses one
	// page is a fetch that missed. Measured: up to 0.012 % and 0.07 %, in 10 runs.
	maxTaken      = 0.001
	maxTakenReads = 0.005
)

// world is the broker's disk with a backlog on it, and what the phases share.
type world struct {
	lab   *labtest.Lab
	disk  *labtest.Disk
	tier  string
	old   []logFile // sealed segments of the backlog
	all   []logFile // and the active ones
	stops []int64   // per partition the offset after the last sealed segment
	bytes int64     // in old
}

// TestIsolation takes about 90 s. LAGOON_EXHAUSTIVE=1 adds the case between: only the reads are unprotected.
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	t.Run("speed", w.testSpeed)
	t.Run("auto", func(t *testing.T) {
		var f *figures
		try := func(t *testing.T) { f = w.measure(t, filepath.Base(t.Name())) }
		// Pages are pinned when a sync has cleaned them: where the machine takes from the control file, too, and is busy with other things, it may be
		// faster. What the broker does to itself it does each time.
		for n := 1; t.Run(fmt.Sprintf("auto-%d", n), try) && n < 3 && f.hot < minHot && f.control < minHot; n++ {
			t.Log("the machine takes pages that nobody reads: once more")
		}
		if f == nil {
			t.FailNow()
		}
		for _, broken := range f.broken() {
			t.Error(broken)
		}
	})
	// Without one half of the protection: pinned windows stand, but the backlog's pages stay.
	if os.Getenv("LAGOON_EXHAUSTIVE") == "1" {
		t.Run("buffered", func(t *testing.T) { w.measure(t, "buffered", "readers.read_mode=buffered").mustLeave(t) })
	}
	// Without both.
	t.Run("neither", func(t *testing.T) {
		f := w.measure(t, "neither", "readers.read_mode=buffered", "cache.hot_window_memory=0%")
		f.mustLeave(t)
		broken := f.broken()
		for _, b := range broken {
			t.Logf("broken, as it must be: %s", b)
		}
		if f.hot >= minHot && f.filled == 0 || len(broken) == 0 {
			t.Error("reading through the page cache beside hot windows that are not pinned broke no bound of theirs: this test shows nothing")
		}
	})
}

// mustLeave: reading through the page cache breaks the bound of what stays there.
func (f *figures) mustLeave(t *testing.T) {
	t.Helper()
	if float64(f.left) <= maxLeft*float64(f.served) {
		t.Errorf("reading through the page cache left %.1f MiB: this test shows nothing", float64(f.left)/mib)
	}
}

// backlogBytes is the size of the backlog.
func backlogBytes(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("LAGOON_ISOLATION_BACKLOG_MIB")
	if text == "" {
		return 4 << 30
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 256 {
		t.Fatalf("LAGOON_ISOLATION_BACKLOG_MIB=%s: want a number from 256 on", text)
	}
	return n * mib
}

// newWorld has the broker itself write the backlog, and takes it out of the page cache.
func newWorld(t *testing.T) *world {
	size := backlogBytes(t)
	w := &world{lab: labtest.New(t)}
	w.lab.Sysctl("vm.dirty_background_bytes", strconv.Itoa(memory/10))
	w.lab.Sysctl("vm.dirty_bytes", strconv.Itoa(memory/5))
	// Beside the backlog: active segments, and what two phases of live and slow write.
	w.disk = w.lab.Disk(lab.DiskOptions{Name: "disk", Bytes: size + 12<<30})
	w.tier = filepath.Join(w.disk.Path(), "ssd")
	b := w.start(t, nil)
	lagoontest.CreateTopic(t, b, "old", oldPartitions, "segment.bytes", strconv.Itoa(segmentBytes))
	began := time.Now()
	fill(t, b.Bootstrap(), "old", oldPartitions, size+oldPartitions*(segmentBytes+mib), time.Hour)
	b.Stop()
	w.disk.Sync()
	for p := range oldPartitions {
		files, err := logFiles(w.tier, "old", p)
		if err != nil || len(files) < 2 {
			t.Fatalf("backlog: %d segments, %v", len(files), err)
		}
		last := len(files) - 1
		w.all = append(w.all, files...)
		w.old = append(w.old, files[:last]...)
		w.stops = append(w.stops, files[last].base)
	}
	for _, f := range w.old {
		w.bytes += f.size
	}
	if w.bytes < size {
		t.Fatalf("backlog of %d MiB in sealed segments, want %d", w.bytes/mib, size/mib)
	}
	t.Logf("backlog: %d MiB in %d sealed segments, written in %.1f s", w.bytes/mib, len(w.old), time.Since(began).Seconds())
	return w
}

// start runs a broker on the world's disk, in g if given.
func (w *world) start(t *testing.T, g *lab.Cgroup, set ...string) *lagoontest.Broker {
	t.Helper()
	o := lagoontest.Options{Dir: t.TempDir(), Tiers: []lagoontest.Tier{{Name: "ssd", Path: w.tier}}, Set: set}
	if g != nil {
		o.CgroupProcs = g.Procs()
	}
	return lagoontest.Start(t, o)
}

// evict makes the backlog cold.
func (w *world) evict(t *testing.T) {
	t.Helper()
	for _, f := range w.all {
		if err := lab.Evict(f.path); err != nil {
			t.Fatal(err)
		}
	}
	if p := w.resident(t); p.Resident > 0 {
		t.Fatalf("%d pages of the backlog cannot be evicted", p.Resident)
	}
}

// resident is what the page cache holds of the backlog.
func (w *world) resident(t *testing.T) (sum lab.Pages) {
	t.Helper()
	for _, f := range w.all {
		p, err := lab.Cached(f.path, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(p)
	}
	return sum
}

// figures are what one phase came to.
type figures struct {
	liveRate, slowRate  float64 // MiB/s of values, while the backlog was read
	served              int64   // to the backlog reader
	backlog             backlogRead
	left                int64   // most bytes of the backlog that were seen resident
	hot                 float64 // least resident share of the hot window that was seen
	control             float64 // least resident share of the control file's window that was seen
	samples             int
	tailRead, lateRead  int64 // bytes
	late                time.Duration
	ackBefore, ackWhile time.Duration // p99 of live requests before the backlog was read, and while it was
	coldReads           float64       // lagoon_tail_cold_reads_total
	filled              float64       // bytes read from the device for real-time readers, as the broker tells it
	notHot              float64       // bytes served to real-time readers by another lane than hot
	proactive           bool          // lab.ProactiveReclaim
	device, process     int64         // bytes read from the device, and by the broker from any device
	refaults            int64         // evicted pages that came back, of the whole group
	usage               int64
	backlogOverhead     int64 // what the backlog reader may cost beside what it was served
}

func (f *figures) String() string {
	return fmt.Sprintf("live %.1f MiB/s (p99 %v, before %v), slow %.1f MiB/s; backlog %d MiB in %.1f s = %.0f MB/s; left %.2f MiB = %.3f %%; hot window >= %.2f %% (control %.2f %%) at %d looks; "+
		"tail read %d MiB, delayed %d MiB (slowest fetch %v); tail cold reads %.0f, filled %.1f MiB, not hot %.1f MiB; "+
		"device read %d MiB (%+.1f MiB to served), process %d MiB, refaults %d, group's memory %d MiB",
		f.liveRate, f.ackWhile.Round(time.Millisecond), f.ackBefore.Round(time.Millisecond), f.slowRate, f.served/mib, f.backlog.seconds, f.backlog.rate()/1e6, float64(f.left)/mib, 100*float64(f.left)/float64(f.served), 100*f.hot, 100*f.control, f.samples,
		f.tailRead/mib, f.lateRead/mib, f.late.Round(time.Millisecond), f.coldReads, f.filled/mib, f.notHot/mib,
		f.device/mib, float64(f.device-f.served)/mib, f.process/mib, f.refaults, f.usage/mib)
}

// broken lists the bounds that do not hold.
func (f *figures) broken() (out []string) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	check(float64(f.left) <= maxLeft*float64(f.served), "%.1f MiB of the backlog stay resident, %.2f %% of the %d MiB served; at most %.0f %%",
		float64(f.left)/mib, 100*float64(f.left)/float64(f.served), f.served/mib, 100*maxLeft)
	check(f.hot >= minHot, "only %.2f %% of the hot window are resident; at least %.2f %%", 100*f.hot, 100*minHot)
	// A kernel that pages out without any pressure takes pages in the moment between the sync that cleans them and the pin.
	miss, missRead := 0.0, 0.0
	if f.proactive {
		miss, missRead = maxTaken*float64(f.tailRead+f.lateRead), maxTakenReads*float64(f.tailRead+f.lateRead)
	}
	check(f.coldReads == 0 || f.proactive, "%.0f reads of real-time readers needed the device; none may", f.coldReads)
	check(f.notHot <= missRead, "%.1f MiB were served to real-time readers by another lane than hot; %.1f MiB may", f.notHot/mib, missRead/mib)
	check(f.filled <= miss, "%.2f MiB were read from the device for real-time readers; %.2f MiB may", f.filled/mib, miss/mib)
	check(f.device <= f.served+f.backlogOverhead, "the device read %d MiB where the backlog reader was served %d MiB and may cost %d MiB more",
		f.device/mib, f.served/mib, f.backlogOverhead/mib)
	return out
}

// measure runs the whole load once: live and slow for as long as it takes to build the window of the delayed reader, then the backlog
// reader beside them, then on until the delayed reader has read what was written meanwhile.
func (w *world) measure(t *testing.T, mode string, set ...string) *figures {
	w.evict(t)
	g := w.lab.Cgroup(memory)
	// The adaptive budget would slow the backlog down where the machine's cores are short: full speed is the hard case.
	b := w.start(t, g, append(set, "throttle.mode=off")...)
	live, slow := "live-"+mode, "slow-"+mode
	lagoontest.CreateTopic(t, b, live, livePartitions, "segment.bytes", strconv.Itoa(segmentBytes))
	lagoontest.CreateTopic(t, b, slow, slowPartitions, "segment.bytes", strconv.Itoa(segmentBytes))
	liveAcks, slowAcks := &history{parts: make([][]acked, livePartitions)}, &history{parts: make([][]acked, slowPartitions)}
	var tailRead, lateRead, late, served atomic.Int64
	r := newRoles(t)
	deviceBefore := w.disk.ReadBytes()
	processBefore, err := lab.ProcIO(b.PID(), "read_bytes")
	if err != nil {
		t.Fatal(err)
	}
	produce(r, dial(t, b.Bootstrap(), "live"), live, liveRate, liveAcks)
	produce(r, dial(t, b.Bootstrap(), "slow"), slow, slowRate, slowAcks)
	r.run("tail", tail(dial(t, b.Bootstrap(), "tail"), live, livePartitions, &tailRead))
	r.run("delayed", delayed(dial(t, b.Bootstrap(), "delayed"), slow, slowAcks, behind, &lateRead, &late))

	f := &figures{hot: 1, control: 1}
	_, f.proactive = lab.ProactiveReclaim()
	c := w.startControl(t, r)
	look := func() {
		f.left = max(f.left, w.resident(t).Bytes())
		f.hot = min(f.hot, w.hotWindow(t, live, liveAcks, slow, slowAcks))
		f.control = min(f.control, c.resident(t))
		f.usage = max(f.usage, g.Usage())
		f.samples++
	}
	began := time.Now()
	lookUntil := func(done func() bool) {
		for at := time.Now(); !done() && sleep(r.ctx, at); at = at.Add(250 * time.Millisecond) {
			look()
		}
	}
	lookUntil(func() bool { return time.Since(began) > behind+2*time.Second })
	liveBefore, slowBefore, from := liveAcks.total(), slowAcks.total(), time.Now()
	var requests int
	f.ackBefore, requests = liveAcks.slowest(0, 0.99)
	finished := make(chan struct{})
	lagging := dial(t, b.Bootstrap(), "backlog")
	r.run("backlog", func(ctx context.Context) (err error) {
		f.backlog, err = readBacklog(ctx, lagging, "old", w.stops, &served)
		close(finished)
		return err
	})
	lookUntil(func() bool {
		select {
		case <-finished:
			return true
		default:
			return false
		}
	})
	// The rates are those of the time that matters; the requests on their way are rounding.
	seconds, share := time.Since(from).Seconds(), float64(valueBytes*batchRecords)/float64(len(newBatch(0, 0)))
	f.liveRate = float64(liveAcks.total()-liveBefore) * share / seconds / mib
	f.slowRate = float64(slowAcks.total()-slowBefore) * share / seconds / mib
	f.ackWhile, _ = liveAcks.slowest(requests, 0.99)
	over := time.Now()
	lookUntil(func() bool { return time.Since(over) > behind+time.Second })
	look()
	metrics := scrape(b)
	process, err := lab.ProcIO(b.PID(), "read_bytes")
	if err != nil {
		t.Fatal(err)
	}
	f.device, f.process = w.disk.ReadBytes()-deviceBefore, process-processBefore
	f.refaults = g.Stat("workingset_refault_file")
	r.finish(t)
	f.served, f.tailRead, f.lateRead, f.late = served.Load(), tailRead.Load(), lateRead.Load(), time.Duration(late.Load())
	f.coldReads = metrics.sum("lagoon_tail_cold_reads_total")
	f.filled = metrics.sum("lagoon_cold_read_bytes_total", `lane="fill"`)
	f.notHot = metrics.sum("lagoon_fetch_bytes_total", `class="realtime"`) - metrics.sum("lagoon_fetch_bytes_total", `class="realtime"`, `lane="hot"`)
	// A direct read begins and ends at page borders, up to two pages for each MiB; behind the last offset the read-ahead of every
	// partition is for nothing.
	f.backlogOverhead = f.served/100 + oldPartitions*4*mib
	t.Log(f)
	b.Stop()

	// The load must be what is promised, or the bounds mean nothing.
	if f.served < w.bytes {
		t.Errorf("the backlog reader got %d MiB of %d MiB", f.served/mib, w.bytes/mib)
	}
	if mode == "auto" && (f.liveRate < 20 || f.slowRate < 9) {
		t.Errorf("live came to %.1f MiB/s and slow to %.1f MiB/s while the backlog was read: want 20 and 9", f.liveRate, f.slowRate)
	}
	if f.tailRead < liveAcks.total()*9/10 || f.lateRead < slowAcks.total()/3 {
		t.Errorf("tail read %d MiB of %d, the delayed reader %d MiB of %d", f.tailRead/mib, liveAcks.total()/mib, f.lateRead/mib, slowAcks.total()/mib)
	}
	return f
}

// hotWindow is the resident share of the newest bytes of live and slow: what was acknowledged in the last 10 s.
func (w *world) hotWindow(t *testing.T, live string, liveAcks *history, slow string, slowAcks *history) float64 {
	t.Helper()
	var sum lab.Pages
	for topic, h := range map[string]*history{live: liveAcks, slow: slowAcks} {
		for p := range h.parts {
			n := h.since(p, time.Now().Add(-behind))
			files, err := logFiles(w.tier, topic, p)
			if err != nil {
				t.Fatal(err)
			}
			for i := len(files) - 1; i >= 0 && n > 0; i-- {
				part := min(n, files[i].size)
				pages, err := lab.Cached(files[i].path, files[i].size-part, part)
				if err != nil {
					t.Fatal(err)
				}
				sum.Add(pages)
				n -= part
			}
		}
	}
	return sum.Ratio()
}

// control is a file that the test itself writes and nobody reads, outside the broker's group: what is lost of its newest bytes, no
// limit and no reader has taken.
type control struct {
	name string
	mu   sync.Mutex
	acks []acked
}

const (
	controlEvery = 50 * time.Millisecond
	controlBytes = mib // 20 MiB/s, like live
)

func (w *world) startControl(t *testing.T, r *roles) *control {
	t.Helper()
	c := &control{name: filepath.Join(w.disk.Path(), "control")}
	f, err := os.Create(c.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(c.name) })
	r.run("control", func(ctx context.Context) error {
		defer f.Close()
		data := make([]byte, controlBytes)
		for at := time.Now(); sleep(ctx, at); at = at.Add(controlEvery) {
			if _, err := f.Write(data); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
			c.mu.Lock()
			c.acks = append(c.acks, acked{at: time.Now(), size: controlBytes})
			c.mu.Unlock()
		}
		return nil
	})
	return c
}

// resident is the resident share of what was written in the last 10 s.
func (c *control) resident(t *testing.T) float64 {
	t.Helper()
	c.mu.Lock()
	end, from := int64(len(c.acks))*controlBytes, int64(0)
	for i := range c.acks {
		if time.Since(c.acks[i].at) <= behind {
			from = int64(i) * controlBytes
			break
		}
	}
	c.mu.Unlock()
	pages, err := lab.Cached(c.name, from, end-from)
	if err != nil {
		t.Fatal(err)
	}
	return pages.Ratio()
}

// testSpeed compares the backlog reader, alone on the device, with a plain sequential direct read of the same files.
func (w *world) testSpeed(t *testing.T) {
	g := w.lab.Cgroup(memory)
	// Nothing is pinned, so that the page cache can be emptied between two looks; nothing else wants the device.
	b := w.start(t, g, "cache.hot_window_memory=0%", "throttle.mode=off")
	compare := func(name string, segments int) float64 {
		w.evict(t)
		var files []string
		var stops []int64
		for p := range oldPartitions {
			all, err := logFiles(w.tier, "old", p)
			if err != nil {
				t.Fatal(err)
			}
			n := min(segments, len(all)-1)
			for _, f := range all[:n] {
				files = append(files, f.path)
			}
			stops = append(stops, all[n].base)
		}
		direct := w.lab.ReadDirect(g, files)
		var served atomic.Int64
		reader, err := readBacklog(context.Background(), dial(t, b.Bootstrap(), "speed-"+name), "old", stops, &served)
		if err != nil {
			t.Fatal(err)
		}
		share := reader.rate() / direct.Rate()
		t.Logf("%s: backlog reader %.0f MB/s, direct read %.0f MB/s of the same %d MiB: %.1f %%", name, reader.rate()/1e6, direct.Rate()/1e6, direct.Bytes/mib, 100*share)
		return share
	}
	compare("fast", 2) // only to tell
	w.disk.Throttle(lab.Throttle{ReadBytes: slowDevice}, g)
	defer w.disk.Throttle(lab.Throttle{}, g)
	if share := compare("throttled", 4); share < minShare {
		t.Errorf("the backlog reader reaches %.1f %% of a sequential direct read, want %.0f %%", 100*share, 100*minShare)
	}
	b.Stop()
}

// metrics is the text of /metrics.
type metrics string

func scrape(b *lagoontest.Broker) metrics { return metrics(b.Get("/metrics", nil)) }

// sum adds up the samples of a metric that carry all the labels.
func (m metrics) sum(name string, labels ...string) (sum float64) {
lines:
	for line := range strings.Lines(string(m)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:]), 64); err == nil {
			sum += v
		}
	}
	return sum
}
