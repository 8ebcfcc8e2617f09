package crash

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// The compacted topics differ in how long delete markers stay: in one they go soon, in the other never.
const (
	forgetful = "forgetful"
	faithful  = "faithful"
)

// TestCompactionUnderKills: plain, idempotent and transactional writers with all codecs and delete markers live through kills while the logs are
// compacted and their segments move to the cold tier. After each kill, and in the end, a reader of committed records sees of each key what
// was written last and committed, exactly: what was answered is final, and what a kill interrupted is what the coordinator says it is. A
// reader of everything sees nothing else than what was sent, and where the log is compacted each key once. No reader is ever shown a record
// of an aborted transaction. Delete markers stay for their term, and go then. Kafka's DumpLogSegments finds no fault in what is left.
func TestCompactionUnderKills(t *testing.T) {
	r := seeded(t)
	b := lagoontest.Start(t, lagoontest.Options{Tiers: busyTiers(), Set: busy})
	for topic, term := range map[string]string{forgetful: "1000", faithful: "3600000"} {
		lagoontest.CreateTopic(t, b, topic, 2, "cleanup.policy", "compact", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.05", "delete.retention.ms", term)
	}
	k := newKeyedLoad(t, b, r.Uint64())
	k.lasting()
	k.reader()
	n := cycles(t, 5)
	moved := int64(0)
	for i := range n {
		die := k.mortal()
		live(t, b, time.Duration(800+r.IntN(1200))*time.Millisecond)
		moved += movedSegments(b)
		b.Kill()
		die()
		b.Restart()
		if k.check(); t.Failed() {
			t.Fatalf("after kill %d of %d", i+1, n)
		}
	}
	// They go on until there is something to see, however slow the machine is.
	k.mortal()
	waitCompacted(t, b, func(compactions) bool {
		committed, aborted := k.truth.transactions()
		return k.truth.total() > 3000 && committed > 50 && aborted > 25
	})
	k.end()
	left := k.check()
	if total := k.truth.total(); left >= total {
		t.Errorf("%d records are left of %d: that was not tested", left, total)
	}
	if k.truth.keys() < 2*10*keysOfWriter*3/4 {
		t.Errorf("%d keys were written", k.truth.keys())
	}
	if moved += movedSegments(b); moved == 0 {
		moved = waitMoved(t, b)
	}
	k.markersEnd()
	committed, aborted := k.truth.transactions()
	t.Logf("%d kills, %d records left of %d, %d keys, %d transactions committed, %d aborted; of those that a kill interrupted %d and %d; %d segments moved, %d records shown",
		n, left, k.truth.total(), k.truth.keys(), committed, aborted, k.settled[committedTxn], k.settled[abortedTxn], moved, len(k.shown))
	b.Stop()
	t.Run("DumpLogSegments", func(t *testing.T) { dumpTopics(t, b, forgetful, faithful) })
}

// keyID is a key of a topic; its partition follows from it.
type keyID struct{ topic, key string }

// check stops the writers that live through kills, between two writes, and compares the log with what they know. The mortal ones are dead. It
// tells how many records are left.
func (k *keyedLoad) check() (records int) {
	k.t.Helper()
	k.quiet.Lock()
	defer k.quiet.Unlock()
	ctx, cancel := context.WithTimeout(k.t.Context(), 3*time.Minute)
	defer cancel()
	k.settle(ctx)
	k.stable(ctx)
	cleaned := cleanedTo(k.t, k.b)
	k.checkCommitted(k.read(ctx, kgo.ReadCommitted()))
	all := k.read(ctx, kgo.ReadUncommitted())
	k.checkAll(all, cleaned)
	return len(all)
}

// checkCommitted compares the view of a reader of committed records.
func (k *keyedLoad) checkCommitted(records []*kgo.Record) {
	k.t.Helper()
	view := map[keyID]*version{}
	for _, r := range records {
		if v := k.known(r); v != nil {
			if v.txn.outcome != committedTxn {
				k.t.Errorf("%s: record %d at %d-%d is shown as committed; its transaction %s", v.key, v.n, r.Partition, r.Offset, v.txn)
			}
			view[v.key] = v
		}
	}
	k.truth.mu.Lock()
	defer k.truth.mu.Unlock()
	for id, versions := range k.truth.of {
		want, got := last(versions), view[id]
		switch {
		case got == want:
		case got == nil && want.gone && id.topic == forgetful:
		case got == nil:
			k.t.Errorf("%s is not there, want record %d (delete marker: %t)", id, want.n, want.gone)
		case want == nil:
			k.t.Errorf("%s is there with record %d, and none was committed", id, got.n)
		default:
			k.t.Errorf("%s is there with record %d, want %d of %s", id, got.n, want.n, want.txn)
		}
	}
}

// last is the last version that was committed, nil for none.
func last(versions []*version) *version {
	for _, v := range slices.Backward(versions) {
		if v.txn.outcome == committedTxn {
			return v
		}
	}
	return nil
}

// checkAll looks at the whole log: each record is one that was sent, and below cleaned its key is there once, and not of an aborted transaction.
func (k *keyedLoad) checkAll(records []*kgo.Record, cleaned map[place]int64) {
	k.t.Helper()
	before := map[place]int64{}
	at := map[keyID]int64{}
	for _, r := range records {
		p := place{r.Topic, r.Partition}
		limit := cleaned[p]
		if off, seen := before[p]; seen && r.Offset <= off {
			k.t.Errorf("%v: offset %d follows %d", p, r.Offset, off)
		}
		before[p] = r.Offset
		v := k.known(r)
		if v == nil || r.Offset >= limit {
			continue
		}
		if v.txn.outcome == abortedTxn {
			k.t.Errorf("%s: record %d of an aborted transaction is left at offset %d, below %d", v.key, v.n, r.Offset, limit)
		}
		if off, twice := at[v.key]; twice {
			k.t.Errorf("%s is there at %d and at %d, both below %d", v.key, off, r.Offset, limit)
		}
		at[v.key] = r.Offset
	}
}

// known finds what a record was sent as, with the same value and where it was acknowledged.
func (k *keyedLoad) known(r *kgo.Record) *version {
	k.t.Helper()
	v, err := k.truth.find(r)
	if err != nil {
		k.t.Errorf("%s-%d, offset %d: %v", r.Topic, r.Partition, r.Offset, err)
	}
	return v
}

// read reads both topics from their start to where they end now, or to where what is committed ends.
func (k *keyedLoad) read(ctx context.Context, level kgo.IsolationLevel) (out []*kgo.Record) {
	k.t.Helper()
	ends, err := k.adm.ListCommittedOffsets(ctx, forgetful, faithful)
	if err != nil {
		k.t.Fatal(err)
	}
	cl := k.client(kgo.ConsumeTopics(forgetful, faithful), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	defer cl.Close()
	at := map[place]int64{}
	behind := func() bool {
		for topic, partitions := range ends {
			for p, end := range partitions {
				if at[place{topic, p}] < end.Offset {
					return true
				}
			}
		}
		return false
	}
	for behind() {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			k.t.Fatalf("read up to %v of %v: %v", at, ends, err)
		}
		k.fetchErrors(fs)
		fs.EachRecord(func(r *kgo.Record) {
			at[place{r.Topic, r.Partition}] = r.Offset + 1
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
		})
	}
	return out
}

// fetchErrors: a reader may be told that the broker is away or starting, nothing else.
func (k *keyedLoad) fetchErrors(fs kgo.Fetches) {
	fs.EachError(func(topic string, p int32, err error) {
		if code, ok := errors.AsType[*kerr.Error](err); ok && (!code.Retriable || code == kerr.CorruptMessage) {
			k.t.Errorf("reader of %s-%d: %v", topic, p, err)
		}
	})
}

// markersEnd writes on, other keys, until every delete marker of the forgetful topic that is compacted now has gone; those of the other one are
// all there, which checkCommitted sees to.
func (k *keyedLoad) markersEnd() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 2*time.Minute)
	defer cancel()
	cl := k.client(kgo.DefaultProduceTopic(forgetful), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	cleaned := cleanedTo(k.t, k.b)
	filler := []byte(strings.Repeat("f", 64<<10))
	for round := 0; ; round++ {
		left, first := 0, false
		for _, r := range k.read(ctx, kgo.ReadUncommitted()) {
			if r.Value == nil && r.Topic == forgetful && r.Offset < cleaned[place{r.Topic, r.Partition}] {
				left++
			}
			first = first || string(r.Key) == "filler"
		}
		if left == 0 && first {
			return
		}
		if ctx.Err() != nil {
			k.t.Errorf("%d delete markers are left after their term, in %d rounds", left, round)
			return
		}
		var recs []*kgo.Record
		for p := range cleaned {
			for range 24 { // more than a segment
				if p.topic == forgetful {
					recs = append(recs, &kgo.Record{Partition: p.partition, Key: []byte("filler"), Value: filler})
				}
			}
		}
		if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
			k.t.Fatal(err)
		}
		waitCompacted(k.t, k.b, func(c compactions) bool { return c.State == "idle" && c.Due == 0 })
	}
}

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// compactions is what the admin API says of compaction.
type compactions struct {
	State      string
	Due        int
	Partitions []struct {
		Topic     string
		Partition int32
		CleanedTo int64 `json:"cleaned_to"`
		Error     string
	}
}

// cleanedTo is up to where the partitions are compacted.
func cleanedTo(t *testing.T, b *lagoontest.Broker) map[place]int64 {
	t.Helper()
	var c compactions
	b.Get("/api/v1/compactions", &c)
	out := map[place]int64{}
	for _, p := range c.Partitions {
		out[place{p.Topic, p.Partition}] = p.CleanedTo
	}
	return out
}

// waitCompacted waits until all partitions of the topics have been compacted, and done says that it is enough.
func waitCompacted(t *testing.T, b *lagoontest.Broker, done func(compactions) bool) {
	t.Helper()
	var c compactions
	enough := lagoontest.Poll(3*time.Minute, func() bool {
		c = compactions{}
		b.Get("/api/v1/compactions", &c)
		all := true
		for _, p := range c.Partitions {
			if p.Error != "" {
				t.Fatalf("compaction failed: %s", p.Error)
			}
			all = all && (p.CleanedTo > 0 || strings.HasPrefix(p.Topic, "__"))
		}
		return all && done(c)
	})
	if !enough {
		t.Fatalf("still due after three minutes: %+v", c)
	}
}

// dumpTopics has Kafka's own tool read every file of the topics in both tiers, with every check that it has.
func dumpTopics(t *testing.T, b *lagoontest.Broker, topics ...string) {
	lagoontest.Require(t, "kafka")
	files := map[string][]string{}
	for _, tier := range []string{"ssd", "hdd"} {
		for _, topic := range topics {
			for _, suffix := range []string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"} {
				names, err := filepath.Glob(filepath.Join(b.TierPath(tier), topic+"-*", "*"+suffix))
				if err != nil {
					t.Fatal(err)
				}
				files[suffix] = append(files[suffix], names...)
			}
		}
	}
	indexes := slices.Concat(files[".index"], files[".timeindex"])
	if n := len(files[".log"]); n < 8 || len(indexes) != 2*n || len(files[".txnindex"]) == 0 || len(files[".snapshot"]) == 0 {
		t.Errorf("%d logs, %d index files, %d lists of aborted transactions, %d snapshots", n, len(indexes), len(files[".txnindex"]), len(files[".snapshot"]))
	}
	out := lagoontest.DumpLogs(t, slices.Concat(files[".log"], files[".txnindex"], files[".snapshot"]), "--deep-iteration")
	if fault := lagoontest.DumpFault(out, true); fault != "" {
		t.Errorf("%.2000s", fault)
	}
	for _, codec := range []string{"NONE", "GZIP", "SNAPPY", "LZ4", "ZSTD"} {
		if !strings.Contains(out, "compresscodec: "+strings.ToLower(codec)) {
			t.Errorf("no batch is packed with %s", codec)
		}
	}
	for _, check := range []string{"--index-sanity-check", "--verify-index-only"} {
		if fault := lagoontest.DumpFault(lagoontest.DumpLogs(t, indexes, check), true); fault != "" {
			t.Errorf("%s: %.2000s", check, fault)
		}
	}
}

// newKeyedLoad makes a load for both topics that has not begun.
func newKeyedLoad(t *testing.T, b *lagoontest.Broker, seed uint64) *keyedLoad {
	l := &load{t: t, b: b}
	k := &keyedLoad{load: l, truth: &keyTruth{of: map[keyID][]*version{}}, adm: lagoontest.AdminClient(t, b), seed: rand.New(rand.NewPCG(seed, 3)),
		finish: make(chan struct{}), readStop: func() {}, shown: map[*version]bool{}, settled: map[outcome]int{}}
	t.Cleanup(k.end)
	return k
}
