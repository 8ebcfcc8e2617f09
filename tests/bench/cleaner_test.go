package bench_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/rawkafka"
	"lagoon/internal/records"
	"lagoon/tests/internal/lagoontest"
)

// The tail's p99 beside the cleaner may be cleanerCost above that without.
const cleanerCost = 0.10

const (
	liveRecords    = 20 << 10 // 1 KiB each, per second
	livePartitions = 8
	stateKeys      = 128 << 10 // 1 KiB each: what every pass of the cleaner reads again
	stateRate      = 8 * mib   // bytes per second of the compacted topic, with the cleaner and without
	cleanerRounds  = 5         // of each kind
	cleanerRound   = 6 * time.Second
	cleanerSettle  = 3 * time.Second // before each, not measured: what is under way ends, or begins
)

// BenchmarkCleaner writes 20 MiB/s in an open loop, a tail reads it, and latencies count from the time at which a record was due. Beside it
// a compacted topic is overwritten all the time, on the same broker: in turn with the cleaner at work on it, and held off by
// min.compaction.lag.ms. It reports the tail's median p50 and p99 of the rounds with and without, the median ratio of the p99 of one after
// the other, what the cleaner read and wrote, and the share of the time in which it was at work.
func BenchmarkCleaner(b *testing.B) {
	on := start(b)
	createTopic(b, on, "live", livePartitions)
	createTopic(b, on, "state", 1, "cleanup.policy", "compact", "segment.bytes", strconv.Itoa(8*mib), "min.cleanable.dirty.ratio", "0",
		"min.compaction.lag.ms", holdOff)
	state := &keyed{t: b, c: dial(b, on, "state"), rng: rand.New(rand.NewPCG(1, 1))}
	state.fill(stateKeys)

	ctx, cancel := context.WithCancel(b.Context())
	var work sync.WaitGroup
	l := &openLoop{t: b, begun: time.Now()}
	work.Go(func() { state.overwrite(ctx) })
	work.Go(func() {
		l.produce(ctx, lagoontest.Client(b, on, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond),
			kgo.ProducerBatchCompression(kgo.NoCompression())))
	})
	work.Go(func() {
		l.tail(ctx, lagoontest.Client(b, on, kgo.ConsumeTopics("live"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	})
	b.Cleanup(func() { cancel(); work.Wait() })

	var rounds [2][]cleanerFigures // without, with
	for b.Loop() {
		for n := range cleanerRounds {
			for i := range rounds {
				with := (n + i) % 2 // which comes first changes: a machine that gets slower is neither's
				rounds[with] = append(rounds[with], l.round(b, on, with == 1))
			}
		}
	}
	median := func(with int, figure func(cleanerFigures) float64) float64 {
		var v []float64
		for _, f := range rounds[with] {
			v = append(v, figure(f))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	p50, p99 := func(f cleanerFigures) float64 { return f.p50 }, func(f cleanerFigures) float64 { return f.p99 }
	for with, name := range []string{"without", "with"} {
		b.ReportMetric(median(with, p50), name+"-p50-ms")
		b.ReportMetric(median(with, p99), name+"-p99-ms")
	}
	var ratios []float64
	for i, f := range rounds[1] {
		ratios = append(ratios, f.p99/rounds[0][i].p99)
	}
	b.Logf("p99 with to without, pair by pair: %.2f", ratios)
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(median(1, func(f cleanerFigures) float64 { return f.mbPerSecond }), "cleaner-MB/s")
	b.ReportMetric(median(1, func(f cleanerFigures) float64 { return f.busy }), "cleaner-busy")
	if idle := median(0, func(f cleanerFigures) float64 { return f.mbPerSecond }); idle > 0 {
		b.Errorf("the cleaner did %.1f MB/s in the rounds without it", idle)
	}
	if median(1, func(f cleanerFigures) float64 { return f.mbPerSecond }) == 0 {
		b.Error("the cleaner did nothing in the rounds with it")
	}
	hold(b, ratio-1, cleanerCost)
}

// holdOff is a min.compaction.lag.ms that no round outlasts.
const holdOff = "3600000"

// cleanerFigures are of one round.
type cleanerFigures struct {
	p50, p99    float64 // of the tail, ms
	mbPerSecond float64 // read and written by the cleaner
	busy        float64 // share of the time; a pass counts when it ends, so that a round may have more than 1
}

// last returns when so much time has passed for the broker.
func last(b *testing.B, on *lagoontest.Broker, d time.Duration) {
	b.Helper()
	select {
	case <-time.After(d):
	case <-on.Exited():
		b.Fatal("the broker ended by itself")
	}
}

// round measures one round.
func (l *openLoop) round(b *testing.B, on *lagoontest.Broker, with bool) cleanerFigures {
	lag := holdOff
	if with {
		lag = "0"
	}
	answers, err := lagoontest.AdminClient(b, on).AlterTopicConfigs(b.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "min.compaction.lag.ms", Value: &lag}}, "state")
	if err != nil || answers[0].Err != nil {
		b.Fatal(err, answers)
	}
	last(b, on, cleanerSettle)
	before := cleanerCounters(b, on)
	from := time.Now()
	last(b, on, cleanerRound)
	to := time.Now()
	after := cleanerCounters(b, on)
	late := l.latencies(from, to)
	at := func(q float64) float64 { return late[int(q*float64(len(late)-1))].Seconds() * 1e3 }
	seconds := to.Sub(from).Seconds()
	f := cleanerFigures{p50: at(0.50), p99: at(0.99), mbPerSecond: (after.bytes - before.bytes) / 1e6 / seconds, busy: (after.seconds - before.seconds) / seconds}
	b.Logf("cleaner %-5v: tail p50 %.1f ms, p99 %.1f ms; cleaner %.1f MB/s, at work %.0f %% of the time", with, f.p50, f.p99, f.mbPerSecond, 100*f.busy)
	return f
}

type cleanerTotals struct{ bytes, seconds float64 }

// cleanerCounters are what the compactions that have ended came to.
func cleanerCounters(b *testing.B, on *lagoontest.Broker) cleanerTotals {
	text := on.Get("/metrics", nil)
	return cleanerTotals{
		bytes:   metric(b, text, "lagoon_compaction_read_bytes_total") + metric(b, text, "lagoon_compaction_written_bytes_total"),
		seconds: metric(b, text, "lagoon_compaction_seconds_total"),
	}
}

// keyed writes a compacted topic.
type keyed struct {
	t     testing.TB
	c     *rawkafka.Conn
	rng   *rand.Rand
	batch records.Builder
	value [1000]byte
}

const keyedRecords = 64 // of a batch

// send writes one batch of records with keys from key on.
func (k *keyed) send(key func(i int) int) error {
	k.batch.Reset()
	for i := range keyedRecords {
		for at := 0; at < len(k.value); at += 8 {
			binary.LittleEndian.PutUint64(k.value[at:], k.rng.Uint64())
		}
		k.batch.Add(fmt.Appendf(nil, "key-%08d", key(i)), k.value[:])
	}
	_, err := k.c.Produce("state", 0, -1, k.batch.Batch(time.Now().UnixMilli()))
	return err
}

// fill writes each key once.
func (k *keyed) fill(keys int) {
	for first := 0; first < keys; first += keyedRecords {
		if err := k.send(func(i int) int { return first + i }); err != nil {
			k.t.Fatal(err)
		}
	}
}

// overwrite writes keys at random, stateRate of them, until ctx ends.
func (k *keyed) overwrite(ctx context.Context) {
	each := time.Duration(float64(keyedRecords*1024) / stateRate * float64(time.Second))
	for tick := time.NewTicker(each); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err := k.send(func(int) int { return k.rng.IntN(stateKeys) }); err != nil && ctx.Err() == nil {
			k.t.Error("state: ", err)
			return
		}
	}
}

// openLoop is live's producer and tail: record k is due begun + k/liveRecords, whatever the broker does.
type openLoop struct {
	t     testing.TB
	begun time.Time

	mu   sync.Mutex
	got  []time.Duration // by record: how late the tail had it; 0: not yet
	news chan struct{}   // closed when there are more
}

func (l *openLoop) due(k int) time.Time {
	return l.begun.Add(time.Duration(int64(k) * int64(time.Second) / liveRecords))
}

// index is the first record due at a time or later.
func (l *openLoop) index(at time.Time) int {
	return int((int64(at.Sub(l.begun))*liveRecords + int64(time.Second) - 1) / int64(time.Second))
}

func (l *openLoop) produce(ctx context.Context, cl *kgo.Client) {
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	done := func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			l.t.Error("live: ", err)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for k := 0; ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for ; !l.due(k).After(now); k++ {
				value := make([]byte, 1024)
				copy(value, random[k*1031%(len(random)-len(value)):])
				binary.BigEndian.PutUint64(value, uint64(k))
				cl.Produce(ctx, &kgo.Record{Topic: "live", Partition: int32(k % livePartitions), Value: value}, done)
			}
		}
	}
}

func (l *openLoop) tail(ctx context.Context, cl *kgo.Client) {
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		fetches.EachError(func(topic string, p int32, err error) { l.t.Errorf("tail of %s-%d: %v", topic, p, err) })
		l.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			k := int(binary.BigEndian.Uint64(r.Value))
			if k >= len(l.got) {
				l.got = append(l.got, make([]time.Duration, k+1-len(l.got))...)
			}
			l.got[k] = max(now.Sub(l.due(k)), 1)
		})
		if l.news != nil {
			close(l.news)
			l.news = nil
		}
		l.mu.Unlock()
	}
}

// latencies waits until the tail has all records that were due in a stretch of time, and gives how late they were, sorted.
func (l *openLoop) latencies(from, to time.Time) []time.Duration {
	first, next := l.index(from), l.index(to)
	late := time.After(time.Minute)
	for {
		l.mu.Lock()
		if len(l.got) >= next && !slices.Contains(l.got[first:next], 0) {
			out := slices.Clone(l.got[first:next])
			l.mu.Unlock()
			slices.Sort(out)
			return out
		}
		if l.news == nil {
			l.news = make(chan struct{})
		}
		news := l.news
		l.mu.Unlock()
		select {
		case <-news:
		case <-late:
			l.t.Fatal("a record has not come within a minute")
		}
	}
}

// metric is a figure without labels of /metrics.
func metric(t testing.TB, text, name string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("/metrics has no %s", name)
	return 0
}
