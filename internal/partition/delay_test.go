package partition_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// delayed is a log with a delay in a bubble's time.
type delayed struct {
	t       *testing.T
	fss     []vfs.FS
	s       *partition.Store
	l       *partition.Log
	cfg     partition.Config
	came    []time.Time // append times by offset
	batches [][]byte
	seen    segment.Offset
	jumped  atomic.Int64 // of the wall clock, beside the time that passes
}

const deliveryDelay = time.Minute

func newDelayed(t *testing.T) *delayed {
	d := &delayed{t: t, fss: []vfs.FS{osFS(t), osFS(t)}, cfg: config()}
	d.cfg.SegmentBytes, d.cfg.IndexIntervalBytes, d.cfg.LogAppendTime = 20_000, 600, true
	d.cfg.DeliveryDelayMs = deliveryDelay.Milliseconds()
	d.open()
	return d
}

func (d *delayed) open() {
	d.t.Helper()
	d.s = open(d.t, func(o *partition.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(d.jumped.Load())) }
	}, d.fss...)
	d.l = load(d.t, d.s, d.cfg, 1)
}

// end stops what a failed test left running: a bubble waits for it.
func (d *delayed) end() {
	if d.t.Failed() {
		d.s.Abandon()
	}
}

// configure changes the delay as the broker does: with the time up to which everything has been seen.
func (d *delayed) configure(delay time.Duration) {
	if was := d.cfg.DeliveryDelayMs; was != delay.Milliseconds() {
		d.cfg.DeliveredMs = max(d.cfg.DeliveredMs, time.Now().UnixMilli()-was)
	}
	d.cfg.DeliveryDelayMs = delay.Milliseconds()
	d.s.SetConfig("orders", d.cfg)
	time.Sleep(time.Millisecond) // what comes in the very millisecond of a change counts as seen
}

// append writes n records, one each step.
func (d *delayed) append(n int, step time.Duration) {
	d.t.Helper()
	for range n {
		b := batch(fmt.Sprint(len(d.came)), 1, 400, nil, 1) // the producer's own time is of no account
		produce(d.t, d.l, b)
		d.came, d.batches = append(d.came, time.Now()), append(d.batches, b)
		d.check()
		time.Sleep(step)
	}
	d.check()
}

// check holds the high watermark against the append times: nothing early, nothing a tenth of a second late, nothing taken back.
func (d *delayed) check() {
	d.t.Helper()
	synctest.Wait()
	o := d.l.Offsets()
	delay := time.Duration(d.cfg.DeliveryDelayMs) * time.Millisecond
	for i, came := range d.came {
		age := time.Since(came)
		switch off := segment.Offset(i); {
		case off < o.HighWatermark && off >= d.seen && age < delay:
			d.t.Fatalf("offset %d is seen after %v of %v", i, age, delay)
		case off >= o.HighWatermark && age > delay+100*time.Millisecond:
			d.t.Fatalf("offset %d is not seen after %v of %v: %+v", i, age, delay, o)
		}
	}
	if o.HighWatermark < d.seen || o.LastStable != o.HighWatermark || o.End != segment.Offset(len(d.came)) {
		d.t.Fatalf("%+v with %d records, %d seen before", o, len(d.came), d.seen)
	}
	d.seen = o.HighWatermark
}

func TestDelayedDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.append(1, 0)
		// A long poll is woken when the record is due, by the timer alone.
		w := partition.NewWatch()
		defer w.Close()
		ref := partition.ReaderRef{ClientID: "c"}
		if res, err := d.l.Read(partition.ReadRequest{Reader: ref, MaxBytes: 1 << 20, MustServe: true, Watch: w}); err != nil || res.Chunk != nil {
			t.Fatalf("read at once: %v, %v", res.Chunk, err)
		}
		<-w.C()
		if age := time.Since(d.came[0]); age != deliveryDelay {
			t.Errorf("woken after %v", age)
		}
		d.append(150, time.Second)
		if d.seen < 80 || d.seen > 95 {
			t.Errorf("%d of %d seen", d.seen, len(d.came))
		}
		// What is read is what is seen, from the middle of a segment to the middle of another.
		consume(t, d.l, ref, 7, 1<<20, bytes.Join(d.batches[7:d.seen], nil))
		if found, err := d.l.OffsetForTime(t.Context(), d.came[d.seen].UnixMilli()); err != nil || found.Offset != -1 {
			t.Errorf("a record that is not seen was found by its time: %+v, %v", found, err)
		}
		if found, err := d.l.MaxTimestamp(t.Context()); err != nil || found.Offset != d.seen-1 {
			t.Errorf("newest record: %+v, %v", found, err)
		}
		if _, err := d.l.DeleteRecords(t.Context(), d.seen+1); err == nil {
			t.Error("a record that nobody has seen was deleted")
		}
		closeStore(t, d.s)
	})
}

// TestTransactionsOfADelayedLog: a transaction is decided when its marker is on stable storage. Its records are seen when they are due, and the log
// keeps nothing for the time until then: a long delay would be a lot of transactions, to be looked at with each append.
func TestTransactionsOfADelayedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		var want []segment.Offset
		for i := range 100 {
			a := write(t, d.l, batch(fmt.Sprint(i), 1, 100, &producer{id: 7, seq: int32(i)}, 1), 7)
			d.came = append(d.came, time.Now())
			time.Sleep(700 * time.Millisecond)
			end(t, d.l, 7, i%3 > 0)
			d.came = append(d.came, time.Now())
			if i%3 > 0 {
				want = append(want, a.Base)
			}
			time.Sleep(300 * time.Millisecond)
			d.check()
			if n := d.l.EndedTxns(); n > 0 {
				t.Fatalf("%d transactions are kept that have ended", n)
			}
		}
		seen := slices.IndexFunc(want, func(o segment.Offset) bool { return o >= d.seen })
		if got := committed(t, d.l, 0, 1<<20); !slices.Equal(got, want[:seen]) || seen == 0 {
			t.Errorf("committed at %v, want %v", got, want[:max(seen, 0)])
		}
		closeStore(t, d.s)
	})
}

// Restarts of both kinds: what is due is found in the log, in whatever segment it lies, and nothing is taken back.
func TestDelayedDeliveryOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.append(100, time.Second)
		for i, pause := range []time.Duration{0, 10 * time.Second, 0, time.Hour} {
			if i%2 == 0 {
				closeStore(t, d.s)
			} else {
				d.s.Abandon()
			}
			time.Sleep(pause)
			d.open()
			d.check()
			d.append(40, 700*time.Millisecond) // behind what waits
		}
		time.Sleep(deliveryDelay)
		d.check()
		closeStore(t, d.s)
	})
}

func TestDelayChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.append(90, time.Second)
		d.configure(30 * time.Second) // shown at once
		d.check()
		d.configure(2 * time.Minute) // not taken back
		d.check()
		d.append(5, time.Second)
		closeStore(t, d.s)
		d.open() // nor by a restart
		d.check()
		before := d.seen
		d.configure(0)
		if o := d.l.Offsets(); o.HighWatermark != o.End || d.seen == o.End {
			t.Errorf("without a delay: %+v, before %d", o, before)
		}
		d.append(5, time.Second)
		d.configure(time.Minute) // what was seen without a delay stays
		d.append(5, time.Second)
		if o := d.l.Offsets(); o.HighWatermark != 100 {
			t.Errorf("with a delay again: %+v", o)
		}
		closeStore(t, d.s)
		d.open()
		d.check()
		time.Sleep(time.Minute)
		d.check()
		closeStore(t, d.s)
	})
}

// TestDelayedDeliveryWhileTheClockJumps: a wall clock that is set by a day makes no record early and none late. After a restart, records that seem
// to come from the next day are seen when the delay has passed since.
func TestDelayedDeliveryWhileTheClockJumps(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		for _, jump := range []time.Duration{day, -day, -day, day} {
			d.append(30, time.Second)
			d.jumped.Add(int64(jump))
			d.append(70, time.Second)
		}
		d.jumped.Add(int64(day))
		d.append(30, time.Second)
		d.jumped.Add(-int64(day))
		closeStore(t, d.s)
		d.open()
		if o := d.l.Offsets(); o.HighWatermark == o.End {
			t.Errorf("all is seen after the restart: %+v", o)
		}
		time.Sleep(deliveryDelay)
		d.check()
		d.append(70, time.Second)
		closeStore(t, d.s)
	})
}

// TestLagOfADelayedLog: how far an offset is behind is told from what is seen, in bytes as in records.
func TestLagOfADelayedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.append(150, time.Second)
		for off := segment.Offset(0); off < d.seen; off++ {
			lag, most := d.l.LagOf(off), int64(0)
			for _, b := range d.batches[off:d.seen] {
				most += int64(len(b))
			}
			most += 2 * int64(d.cfg.IndexIntervalBytes) // the index does not name every batch
			if lag.EndOffset != d.seen || lag.Bytes > most || lag.Bytes <= 0 {
				t.Fatalf("offset %d of %d: %+v, at most %d bytes", off, d.seen, lag, most)
			}
			if due := time.Since(d.came[off].Add(deliveryDelay)); lag.Age < 0 || lag.Age > due+2*time.Second {
				t.Fatalf("offset %d: %+v, due for %v", off, lag, due)
			}
		}
		closeStore(t, d.s)
	})
}

// TestNewestRecordOfADelayedLog: a topic that gets a delay has records from before, with the times of their producers, which do not rise.
func TestNewestRecordOfADelayedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.configure(0)
		d.cfg.LogAppendTime = false
		d.s.SetConfig("orders", d.cfg)
		now := time.Now().UnixMilli()
		for i, ms := range []int64{now - 5000, now - 1000, now - 9000} {
			produce(t, d.l, batch(fmt.Sprint(i), 1, 400, nil, ms))
			d.came = append(d.came, time.Now())
		}
		d.seen = d.l.Offsets().HighWatermark
		d.cfg.LogAppendTime = true
		d.configure(deliveryDelay)
		d.append(1, 0)
		if found, err := d.l.MaxTimestamp(t.Context()); err != nil || found.Offset != 1 || found.TimestampMs != now-1000 {
			t.Errorf("newest record: %+v, %v", found, err)
		}
		closeStore(t, d.s)
	})
}

// TestNewestRecordWhileItsSegmentMoves: a segment that has moved, or was compacted, while the newest record was looked for is not passed over.
func TestNewestRecordWhileItsSegmentMoves(t *testing.T) {
	hot, cold := osFS(t), osFS(t)
	hook := &onceAt{kind: vfs.OpStat, suffix: segment.TimeIndexName(0)}
	change := func(o *partition.Options) { o.CompactionInterval, o.PlanInterval = -1, time.Hour } // nobody else looks at the time index
	s := open(t, change, hot, cold)
	cfg := smallSegments()
	l := load(t, s, cfg, 1)
	for i := range 30 {
		ms := int64(1000 + i)
		if i == 12 {
			ms = 5000
		}
		produce(t, l, batch(fmt.Sprint(i), 1, 700, nil, ms))
	}
	closeStore(t, s)
	s = open(t, change, vfs.WithFaults(hot, hook), cold)
	l = load(t, s, cfg, 1)
	i := slices.IndexFunc(l.Segments(), func(v partition.SegmentView) bool { return v.Next > 12 })
	if i == 0 {
		t.Fatal("the newest record is in the first segment")
	}
	moved := false
	hook.arm(func() {
		local := cfg
		local.LocalRetentionBytes = 1
		s.SetConfig("orders", local)
		waitFor(t, "the segment to move", func() bool { return l.Segments()[i].Tier == "t1" })
		moved = true
	})
	if found, err := l.MaxTimestamp(t.Context()); err != nil || found.Offset != 12 || !moved {
		t.Errorf("newest record: %+v, %v, moved %t", found, err, moved)
	}
	closeStore(t, s)
}

// TestTieredOffsetsOfADelayedLog: segments move before they are seen, and what is told of tiers does not tell of them.
func TestTieredOffsetsOfADelayedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelayed(t)
		defer d.end()
		d.cfg.LocalRetentionBytes = 1
		d.s.SetConfig("orders", d.cfg)
		d.append(200, time.Second)
		tiered := segment.Offset(0)
		for _, sv := range d.l.Segments() {
			if sv.Tier == "t1" {
				tiered = sv.Next
			}
		}
		latest, pending := d.l.TieredOffsets()
		if tiered <= d.seen || latest != d.seen-1 || pending != d.seen {
			t.Errorf("the cold tier holds records below %d, %d are seen: the last there is told to be %d, the first that is not %d", tiered, d.seen, latest, pending)
		}
		closeStore(t, d.s)
	})
}

// TestDelayedLogThatIsCompacted: no topic is given both, but a default of the configuration file may have brought compaction. What is seen may end where a
// segment ends that compaction makes smaller then.
func TestDelayedLogThatIsCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, quietCompaction, osFS(t))
		defer abandonFailed(t, s)
		cfg := compacted()
		cfg.SegmentBytes, cfg.LogAppendTime, cfg.DeliveryDelayMs = 30_000, true, deliveryDelay.Milliseconds()
		l := load(t, s, cfg, 1)
		for i := range 6 {
			produce(t, l, keyedBatch(0, 0, fmt.Sprint("key-", i%2), 4400))
		}
		time.Sleep(2 * deliveryDelay)
		for range 2 { // rolled, and not seen yet
			produce(t, l, keyedBatch(0, 0, "later", 4400))
		}
		synctest.Wait()
		before := l.SizeBytes()
		s.Compact(t.Context())
		if cleaned, err := cleanedTo(s); err != nil || cleaned != 6 || l.SizeBytes() >= before || l.Offsets().HighWatermark != 6 {
			t.Fatalf("cleaned up to %d, %v, %d bytes of %d, %+v", cleaned, err, l.SizeBytes(), before, l.Offsets())
		}
		for at := segment.Offset(0); at < 6; {
			w := partition.NewWatch()
			res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "c"}, From: at, MaxBytes: 1 << 20, MustServe: true, Watch: w})
			if err != nil {
				t.Fatalf("read at %d: %v", at, err)
			}
			if res.Chunk == nil {
				<-w.C()
			} else {
				at = res.Chunk.Next()
				res.Chunk.Release()
			}
			w.Close()
		}
		closeStore(t, s)
	})
}
