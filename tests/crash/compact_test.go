package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// TestCompactionUnderKills: writers with all codecs and delete markers live through kills while the log is compacted and its segments
// move. In the end a reader sees of each key what was acked last, or was sent after it and not answered.
func TestCompactionUnderKills(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: busy})
	const topic = "profiles"
	lagoontest.CreateTopic(t, b, topic, 2, "cleanup.policy", "compact", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.05", "delete.retention.ms", "1000")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	truth := &lastOfKeys{acked: map[string]int{}, sent: map[string]int{}, gone: map[string]map[int]bool{}}
	var writers sync.WaitGroup
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		rng := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec), kgo.RecordRetries(1<<20), kgo.RecordDeliveryTimeout(0))
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				truth.write(ctx, cl, rng, i, n)
			}
		})
	}
	n := cycles(t, 5)
	for range n {
		life := time.NewTimer(time.Duration(800+r.IntN(1200)) * time.Millisecond)
		select {
		case <-life.C:
		case <-b.Exited():
			t.Fatal("the broker ended by itself")
		}
		b.Kill()
		b.Restart()
	}
	// They go on until there is something to see, however slow the machine is.
	waitCompacted(t, b, func(bool) bool { return truth.total() > 1500 })
	stop()
	writers.Wait()
	passes := waitCompacted(t, b, func(idle bool) bool { return idle })
	view, records := truth.read(t, b, topic)
	for key, acked := range truth.acked {
		got, there := view[key]
		switch {
		case there && got >= acked && got <= truth.sent[key]:
		case !there && truth.deleted(key, acked):
		default:
			t.Errorf("%s: the log says %d (%t), acked %d, sent %d", key, got, there, acked, truth.sent[key])
		}
	}
	if len(truth.acked) < 5*60*9/10 {
		t.Errorf("%d keys were acked", len(truth.acked))
	}
	if total := truth.total(); records >= total || passes == 0 || total < 1000 {
		t.Errorf("%d records are left of %d, %d compactions: that was not tested", records, total, passes)
	} else {
		t.Logf("%d kills, %d records left of %d, %d keys", n, records, total, len(truth.acked))
	}
}

// lastOfKeys is what writers know: the number of the last record of each key that was acked and sent, and which were delete markers.
type lastOfKeys struct {
	mu          sync.Mutex
	acked, sent map[string]int
	gone        map[string]map[int]bool
	count       int
}

// record makes the n-th record of a key; keys belong to one writer.
func (l *lastOfKeys) record(rng *rand.Rand, writer, n int) *kgo.Record {
	key := fmt.Sprintf("w%d-k%d", writer, rng.IntN(60))
	rec := &kgo.Record{Key: []byte(key), Value: []byte(strconv.Itoa(n) + ":" + strings.Repeat("v", 200+rng.IntN(2000)))}
	l.mu.Lock()
	defer l.mu.Unlock()
	if rng.IntN(8) == 0 {
		rec.Value = nil
		if l.gone[key] == nil {
			l.gone[key] = map[int]bool{}
		}
		l.gone[key][n] = true
	}
	l.sent[key] = n
	l.count++
	return rec
}

func (l *lastOfKeys) write(ctx context.Context, cl *kgo.Client, rng *rand.Rand, writer, n int) {
	var recs []*kgo.Record
	base := n * 10
	for i := range 1 + rng.IntN(10) {
		recs = append(recs, l.record(rng, writer, base+i))
	}
	for i, res := range cl.ProduceSync(ctx, recs...) {
		if res.Err == nil {
			l.ack(string(res.Record.Key), base+index(recs, res.Record, i))
		}
	}
}

func index(recs []*kgo.Record, r *kgo.Record, otherwise int) int {
	for i := range recs {
		if recs[i] == r {
			return i
		}
	}
	return otherwise
}

func (l *lastOfKeys) ack(key string, n int) {
	l.mu.Lock()
	l.acked[key] = max(l.acked[key], n)
	l.mu.Unlock()
}

// deleted tells whether the key may be absent: a delete marker is what was acked last, or came after it without an answer.
func (l *lastOfKeys) deleted(key string, acked int) bool {
	for n := range l.gone[key] {
		if n >= acked && n <= l.sent[key] {
			return true
		}
	}
	return false
}

func (l *lastOfKeys) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// read gives the last record's number of each key, and how many records there are, as a reader of committed records sees them.
func (l *lastOfKeys) read(t *testing.T, b *lagoontest.Broker, topic string) (view map[string]int, records int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ends, err := lagoontest.AdminClient(t, b).ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	view = map[string]int{}
	cl := lagoontest.Client(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords())
	at := map[int32]int64{}
	behind := func() bool {
		for p, end := range ends[topic] {
			if at[p] < end.Offset {
				return true
			}
		}
		return false
	}
	for behind() {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("read up to %v of %v: %v", at, ends[topic], err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			at[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				return
			}
			records++
			if r.Value == nil {
				delete(view, string(r.Key))
				return
			}
			number, _, _ := strings.Cut(string(r.Value), ":")
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Errorf("%s holds %.20q", r.Key, r.Value)
			}
			view[string(r.Key)] = n
		})
	}
	return view, records
}

// waitCompacted waits until partitions have been compacted, and done says that it is enough: idle tells it whether no compaction runs or
// is due. It gives the number of those partitions.
func waitCompacted(t *testing.T, b *lagoontest.Broker, done func(idle bool) bool) (passes int) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; pause(100 * time.Millisecond) {
		var c struct {
			State      string
			Due        int
			Partitions []struct {
				CleanedTo int64 `json:"cleaned_to"`
				Error     string
			}
		}
		b.Get("/api/v1/compactions", &c)
		passes = 0
		for _, p := range c.Partitions {
			if p.Error != "" {
				t.Fatalf("compaction failed: %s", p.Error)
			}
			if p.CleanedTo > 0 {
				passes++
			}
		}
		if passes > 0 && done(c.State == "idle" && c.Due == 0) {
			return passes
		}
		if time.Now().After(deadline) {
			t.Fatalf("still due after three minutes: %+v", c)
		}
	}
}
