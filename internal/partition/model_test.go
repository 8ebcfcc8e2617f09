package partition_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// TestStoreAgainstModel drives a store at random and holds it against the truth of its clients (world): appends and acks,
// reads anywhere with any size through a cold page cache, retention, DeleteRecords, migrations, topics made and deleted, transactions and
// compaction of a compacted topic, clean stops, kills and power cuts.
func TestStoreAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(*testing.T) {
			defer func() { failure = recover() }()
			newModel(rt).run(rt)
		})
		if failure != nil {
			panic(failure) // rapid's own goroutine has to see it
		}
	})
}

// model is a world and what actions need to know besides.
type model struct {
	w       *world
	nextID  byte
	nextPID int64
}

func newModel(rt *rapid.T) *model {
	w, err := newWorld(newDisks(rapid.Uint64().Draw(rt, "seed")))
	if err != nil {
		rt.Fatal(err)
	}
	mode := cachectl.ModeBuffered // starts quickly: nothing to probe
	if rapid.IntRange(0, 9).Draw(rt, "around the cache") == 9 {
		mode = cachectl.ModeAuto
	}
	w.coldCache(mode)
	if rapid.Bool().Draw(rt, "commit journal") {
		w.change = withJournal
	}
	change := w.change
	w.change = func(o *partition.Options) {
		o.CompactionInterval = -1 // when the model says so
		if change != nil {
			change(o)
		}
	}
	m := &model{w: w}
	m.must(rt, w.open())
	m.create(rt)
	m.createCompacted(rt)
	return m
}

func (m *model) must(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

func (m *model) run(rt *rapid.T) {
	defer m.w.pool.Close()
	defer m.w.abandon()
	rt.Repeat(map[string]func(*rapid.T){
		"append":    m.append,
		"append2":   m.append, // more often than the rest
		"append3":   m.append,
		"ack":       m.ack,
		"read":      m.read,
		"read2":     m.read,
		"trim":      m.trim,
		"retain":    m.retain,
		"migrate":   m.migrate,
		"end":       m.end,
		"end2":      m.end,
		"compact":   m.compact,
		"recreate":  m.recreate,
		"wait":      func(rt *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second) },
		"reopen":    m.reopen,
		"kill":      func(rt *rapid.T) { m.restart(rt, m.w.disks.kill) },
		"power cut": m.crash,
		"": func(rt *rapid.T) {
			synctest.Wait()
			if len(m.w.problems) > 0 {
				rt.Fatal(m.w.problems)
			}
		},
	})
}

func (m *model) create(rt *rapid.T) {
	cfg := smallSegments()
	cfg.IndexIntervalBytes = rapid.SampledFrom([]int32{1, 600, 4096}).Draw(rt, "index interval")
	m.nextID++
	topic, err := m.w.create("orders", m.nextID, 2, cfg)
	m.must(rt, err)
	for _, p := range topic.parts {
		m.nextPID++
		p.client("idem", m.nextPID)
		p.client("plain", 0)
	}
}

// createCompacted makes the compacted topic, with transactional producers.
func (m *model) createCompacted(rt *rapid.T) {
	m.nextID++
	topic, err := m.w.create("profiles", m.nextID, 1, keyedSegments())
	m.must(rt, err)
	p := topic.parts[0]
	for _, name := range []string{"idem", "txn a", "txn b"} {
		m.nextPID++
		p.client(name, m.nextPID).txn = name != "idem"
	}
	p.client("plain", 0)
}

func (m *model) part(rt *rapid.T) *partTruth {
	if i := rapid.IntRange(0, 3).Draw(rt, "partition"); i < 2 {
		return m.w.topic("orders").parts[i]
	}
	return m.compacted()
}

func (m *model) compacted() *partTruth { return m.w.topic("profiles").parts[0] }

func (m *model) client(rt *rapid.T) *client {
	return rapid.SampledFrom(m.part(rt).clients).Draw(rt, "client")
}

func (m *model) append(rt *rapid.T) {
	c := m.client(rt)
	if len(c.unacked) == 5 { // max.in.flight
		m.must(rt, m.w.ack(c))
	}
	m.must(rt, m.w.send(c, rapid.IntRange(1, 4).Draw(rt, "records"), rapid.IntRange(40, 900).Draw(rt, "size")))
}

func (m *model) ack(rt *rapid.T) { m.must(rt, m.w.ack(m.client(rt))) }

func (m *model) read(rt *rapid.T) {
	p := m.part(rt)
	l, err := m.w.log(p)
	m.must(rt, err)
	o := l.Offsets()
	from := segment.Offset(rapid.Int64Range(int64(o.LogStart), int64(o.HighWatermark)).Draw(rt, "from"))
	all, hw, err := m.w.read(p, from, rapid.SampledFrom([]int64{1, 700, 5000, 1 << 20}).Draw(rt, "max bytes"))
	m.must(rt, err)
	m.w.compare(p, all)
	m.w.verifyOrder(p, all)
	if p.topic.cfg.Compact {
		m.w.verifyKeys(p)
	}
	if n := len(all); n > 0 && all[n-1].h.NextOffset() != hw || n == 0 && from < hw {
		rt.Fatalf("%s: read from %d came to an end before the high watermark %d", p.name(), from, hw)
	}
	p.seen = max(p.seen, hw)
}

func (m *model) trim(rt *rapid.T) {
	p := m.part(rt)
	l, err := m.w.log(p)
	m.must(rt, err)
	before := segment.Offset(rapid.Int64Range(0, int64(l.Offsets().HighWatermark)).Draw(rt, "before"))
	m.must(rt, m.w.trim(p, before))
	if o := l.Offsets(); o.LogStart < before {
		rt.Fatalf("%s: log start %d after deletion below %d", p.name(), o.LogStart, before)
	}
}

func (m *model) retain(rt *rapid.T) {
	t := m.w.topic("orders")
	t.cfg.RetentionBytes = rapid.SampledFrom([]int64{-1, 0, 3000, 9000}).Draw(rt, "retention bytes")
	m.w.s.SetConfig("orders", t.cfg)
	for _, p := range t.parts {
		m.w.retain(p)
	}
}

func (m *model) migrate(rt *rapid.T) {
	_, err := m.w.migrate(m.part(rt))
	m.must(rt, err)
}

// end ends a transaction.
func (m *model) end(rt *rapid.T) {
	c := m.compacted().clients[rapid.IntRange(1, 2).Draw(rt, "transaction")]
	m.must(rt, m.w.endTxn(c, rapid.Bool().Draw(rt, "commit")))
}

// compact cleans what is due, beside migrations perhaps. Records that come before it make it more likely that something is.
func (m *model) compact(rt *rapid.T) {
	plain := m.compacted().clients[3]
	for range rapid.IntRange(0, 4).Draw(rt, "sent before") {
		m.must(rt, m.w.send(plain, 2, 600))
	}
	m.must(rt, m.w.ack(plain))
	if rapid.Bool().Draw(rt, "beside migrations") {
		m.must(rt, m.w.submitMoves(m.compacted()))
	}
	m.must(rt, m.w.compact())
	synctest.Wait()
	m.w.verifyKeys(m.compacted())
}

func (m *model) recreate(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
		return
	}
	m.must(rt, m.w.drop(m.w.topic("orders")))
	m.create(rt)
}

func (m *model) reopen(rt *rapid.T) {
	m.must(rt, m.w.close())
	m.must(rt, m.w.open())
	m.after(rt)
}

func (m *model) crash(rt *rapid.T) {
	m.restart(rt, func() disks {
		return m.w.disks.crash(vfs.CrashOptions{Seed: rapid.Uint64().Draw(rt, "crash"), KeepPercent: vfs.KeepRandom, Tear: true})
	})
}

func (m *model) restart(rt *rapid.T, end func() disks) {
	next := end() // first the disks, then the process: its last gasps must not reach them
	m.w.abandon()
	m.w.disks = next
	m.must(rt, m.w.open())
	m.after(rt)
}

// after checks what a restart kept and lets the clients go on.
func (m *model) after(rt *rapid.T) {
	m.w.verify()
	m.w.retry()
	if len(m.w.problems) > 0 {
		rt.Fatal(m.w.problems)
	}
}
