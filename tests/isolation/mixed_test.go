package isolation

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

const (
	coldDevice  = 5e6              // bytes per second
	maxSlowdown = 1.2              // of the hot partition's p99 by a cold one in the same fetch
	maxMore     = time.Millisecond // or that much more: the time in which the cold device reads 5 kB of the 1 MiB that it is asked for
	mixedCold   = 192 * mib        // more than is read at that pace
	mixedSample = 3000             // fetches of each kind
	mixedTries  = 3
)

// TestMixedFetch takes about 20 s. The cold partition is read around the page cache by a lagging reader, and into it by a
// real-time reader that missed: neither may hold the hot one up.
func TestMixedFetch(t *testing.T) {
	t.Run("bypass", func(t *testing.T) { testMixed(t, "1ms", "bypass") })
	t.Run("fill", func(t *testing.T) { testMixed(t, "1h", "fill") })
}

func testMixed(t *testing.T, laggingAge, lane string) {
	l := labtest.New(t)
	hot := l.Disk(lab.DiskOptions{Name: "hot", Bytes: 2 << 30})
	cold := l.Disk(lab.DiskOptions{Name: "cold", Bytes: 1 << 30})
	g := l.Cgroup(0)
	b := lagoontest.Start(t, lagoontest.Options{
		Dir: t.TempDir(), CgroupProcs: g.Procs(),
		Tiers: []lagoontest.Tier{{Name: "ssd", Path: filepath.Join(hot.Path(), "ssd")}, {Name: "hdd", Path: filepath.Join(cold.Path(), "hdd"), Class: "hdd"}},
		Set: []string{"tiering.interval=1s", "tiering.move_max=unlimited",
			"readers.lagging_when.min_bytes=1MiB", "readers.lagging_when.min_age=" + laggingAge},
	})
	lagoontest.CreateTopic(t, b, "cold", 1, "segment.bytes", strconv.Itoa(16*mib), "local.retention.ms", "1000")
	lagoontest.CreateTopic(t, b, "hot", 1)
	fill(t, b.Bootstrap(), "cold", 1, mixedCold, time.Minute)
	fill(t, b.Bootstrap(), "hot", 1, 4*mib, 0)
	w := &mixed{t: t, b: b, hot: filepath.Join(hot.Path(), "ssd"), cold: filepath.Join(cold.Path(), "hdd")}
	w.waitMoved()
	cold.Throttle(lab.Throttle{ReadBytes: coldDevice}, g)
	before := cold.ReadBytes()
	for try := 1; ; try++ {
		fetches, live := w.fetches(), w.live()
		t.Logf("%s\n%s", fetches, live)
		if fetches.unharmed() && live.unharmed() {
			break
		}
		if try == mixedTries {
			t.Errorf("the hot partition's p99 is %.2f times (fetches of what is there) and %.2f times (waiting for what comes) that without a cold partition in %d tries; at most %.1f, or %v more",
				fetches.ratio(), live.ratio(), try, maxSlowdown, maxMore)
			break
		}
	}
	// The cold partition must have been what it is there for.
	served := w.coldRead.Load()
	if served < mib {
		t.Errorf("the mixed reader got %d bytes of the cold partition", served)
	}
	if n := cold.ReadBytes() - before; n < served {
		t.Errorf("the cold device read %d bytes where %d were served: they were not cold", n, served)
	}
	// A refill counts the pages that were missing, and the page that two chunks share only once.
	if n := scrape(b).sum("lagoon_cold_read_bytes_total", `lane="`+lane+`"`, `tier="hdd"`); n < 0.98*float64(served) {
		t.Errorf("the broker read %.0f bytes by lane %s where %d were served", n, lane, served)
	}
	t.Logf("of the cold partition %.1f MiB were served", float64(served)/mib)
	b.Stop()
}

// mixed is a broker with a hot partition and a cold one.
type mixed struct {
	t         *testing.T
	b         *lagoontest.Broker
	hot, cold string // tiers
	next      int64  // where the cold partition is read next
	coldRead  atomic.Int64
	clients   int
}

// waitMoved returns when all but the newest segments of the cold topic lie in the cold tier, and are out of the page cache.
func (w *mixed) waitMoved() {
	w.t.Helper()
	r := newRoles(w.t)
	deadline := time.Now().Add(30 * time.Second)
	for at := time.Now(); ; at = at.Add(50 * time.Millisecond) {
		moved, err := logFiles(w.cold, "cold", 0)
		if err != nil {
			w.t.Fatal(err)
		}
		left, err := logFiles(w.hot, "cold", 0)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(left) == 1 && len(moved) > 0 {
			for _, f := range moved {
				if err := lab.Evict(f.path); err != nil {
					w.t.Fatal(err)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d segments of the cold topic still in the hot tier, %d in the cold one", len(left), len(moved))
		}
		sleep(r.ctx, at)
	}
}

// pair is the latencies of the hot partition without and with a cold one in the fetch.
type pair struct {
	what        string
	alone, with []time.Duration
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func (p pair) ratio() float64 {
	return float64(quantile(p.with, 0.99)) / float64(max(quantile(p.alone, 0.99), 1))
}

// unharmed allows what the work for one more partition costs a fetch of some 100 µs on cores that other tests keep busy.
func (p pair) unharmed() bool {
	return p.ratio() <= maxSlowdown || quantile(p.with, 0.99)-quantile(p.alone, 0.99) <= maxMore
}

func (p pair) String() string {
	return fmt.Sprintf("%s: p50 %v alone, %v beside a cold partition; p99 %v, %v: %.2f times; max %v, %v (%d, %d samples)", p.what,
		quantile(p.alone, 0.5), quantile(p.with, 0.5), quantile(p.alone, 0.99), quantile(p.with, 0.99), p.ratio(),
		quantile(p.alone, 1), quantile(p.with, 1), len(p.alone), len(p.with))
}

func (w *mixed) dial(name string) conn {
	w.clients++
	return dial(w.t, w.b.Bootstrap(), fmt.Sprintf("%s-%d", name, w.clients))
}

// wants is a fetch of the hot partition, with the cold one in front of it or not.
func (w *mixed) wants(hotFrom int64, hotBytes int32, cold bool) []rawkafka.Want {
	hot := want("hot", 0, hotFrom, hotBytes)
	if !cold {
		return []rawkafka.Want{hot}
	}
	return []rawkafka.Want{want("cold", 0, w.next, 1<<20), hot}
}

// took books what a fetch brought of the cold partition.
func (w *mixed) took(f *rawkafka.Fetched) {
	w.coldRead.Add(f.Whole)
	w.next = f.Next
}

// fetches asks in turn with and without the cold partition for the same 64 KiB that are there, from two connections.
func (w *mixed) fetches() pair {
	w.t.Helper()
	p := pair{what: "fetch of what is there"}
	alone, with := w.dial("alone"), w.dial("with")
	one := func(c conn, cold bool) time.Duration {
		got := false
		began := time.Now()
		err := c.fetch(500*time.Millisecond, w.wants(0, 70<<10, cold), func(f *rawkafka.Fetched) {
			if f.Topic == "cold" {
				w.took(f)
			} else {
				got = true
			}
		})
		d := time.Since(began)
		if err != nil || !got {
			w.t.Fatalf("fetch: hot records %v, %v", got, err)
		}
		return d
	}
	for range mixedSample {
		p.alone = append(p.alone, one(alone, false))
		p.with = append(p.with, one(with, true))
	}
	return p
}

// live has two consumers wait for the same records, one of them with the cold partition in its fetches, and measures from
// the producer's send to the arrival.
func (w *mixed) live() pair {
	w.t.Helper()
	const count, every = 1500, 4 * time.Millisecond
	p := pair{what: "wait for what comes"}
	r := newRoles(w.t)
	var sent [count]atomic.Int64 // unix nanoseconds, by batch
	producer := w.dial("live")
	batch := newBatch(7, time.Now().UnixMilli())
	send := func() (base int64, err error) {
		if err := producer.sendProduce("hot", -1, []batchOf{{0, batch}}); err != nil {
			return 0, err
		}
		err = producer.receiveProduce(func(_ int32, b int64) { base = b })
		return base, err
	}
	last, err := send() // tells where the end is
	if err != nil {
		w.t.Fatal(err)
	}
	first := last + batchRecords
	consume := func(c conn, cold bool, out *[]time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			for next := first; next < first+count*batchRecords && ctx.Err() == nil; {
				err := c.fetch(500*time.Millisecond, w.wants(next, 1<<20, cold), func(f *rawkafka.Fetched) {
					if f.Topic == "cold" {
						w.took(f)
						return
					}
					now := time.Now().UnixNano()
					for o := next; o < f.Next; o += batchRecords {
						*out = append(*out, time.Duration(now-sent[(o-first)/batchRecords].Load()))
					}
					next = f.Next
				})
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	r.run("alone", consume(w.dial("alone"), false, &p.alone))
	r.run("with", consume(w.dial("with"), true, &p.with))
	began := time.Now()
	for i := range count {
		if !sleep(r.ctx, began.Add(time.Duration(i)*every)) {
			break
		}
		sent[i].Store(time.Now().UnixNano())
		if _, err := send(); err != nil {
			w.t.Fatal(err)
		}
	}
	r.wg.Wait()
	r.finish(w.t)
	return p
}
