package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"lagoon/cachectl/cachetest"
	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// protocols are a client that uses the newest transaction protocol and one from before KIP-890.
func protocols() map[string][]kgo.Opt {
	return map[string][]kgo.Opt{"protocol 2": nil, "protocol 1": {kgo.MaxVersions(kversion.V3_7_0())}}
}

func wireClient(t *testing.T, w *wireBroker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.addr), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// readAll reads the values of a topic up to its end.
func readAll(t *testing.T, w *wireBroker, topic string, partitions int, level kgo.IsolationLevel) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		from[p] = kgo.NewOffset().At(0)
	}
	client := wireClient(t, w, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond))
	defer client.Close()
	adm := adminClient(t, w)
	list := adm.ListEndOffsets
	if level == kgo.ReadCommitted() {
		list = adm.ListCommittedOffsets
	}
	ends, err := list(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v, left %v", topic, err, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	slices.Sort(values)
	return values
}

func TestTransactionsCommitAndAbort(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			w := startWireBroker(t, t.TempDir())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if _, err := adminClient(t, w).CreateTopic(ctx, 3, 1, nil, "out"); err != nil {
				t.Fatal(err)
			}
			client := wireClient(t, w, append([]kgo.Opt{kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("out"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner())}, opts...)...)
			var want, all []string
			for i := range 20 {
				if err := client.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				commit := kgo.TransactionEndTry(i%3 != 0)
				for j := range 5 {
					v := fmt.Sprintf("%02d-%d", i, j)
					if err := client.ProduceSync(ctx, kgo.StringRecord(v)).FirstErr(); err != nil {
						t.Fatalf("transaction %d: %v", i, err)
					}
					if all = append(all, v); commit {
						want = append(want, v)
					}
				}
				if err := client.EndTransaction(ctx, commit); err != nil {
					t.Fatalf("end of transaction %d: %v", i, err)
				}
			}
			waitSettled(t, w, "tx")
			if got := readAll(t, w, "out", 3, kgo.ReadCommitted()); !slices.Equal(got, want) {
				t.Errorf("committed: %v\nwant %v", got, want)
			}
			if got := readAll(t, w, "out", 3, kgo.ReadUncommitted()); !slices.Equal(got, all) {
				t.Errorf("uncommitted: %v\nwant %v", got, all)
			}
			d, err := adminClient(t, w).DescribeTransactions(ctx, "tx")
			if err != nil || d["tx"].State != "CompleteCommit" {
				t.Errorf("%+v, %v", d, err)
			}
			if bumped := name == "protocol 2"; (d["tx"].ProducerEpoch >= 20) != bumped {
				t.Errorf("%s ends with epoch %d", name, d["tx"].ProducerEpoch)
			}
		})
	}
}

// waitSettled waits until the markers of a transaction are written.
func waitSettled(t *testing.T, w *wireBroker, id string) {
	t.Helper()
	waitUntil(t, "the markers of "+id, func() bool {
		r, err := w.txns.Describe(id)
		if err != 0 {
			t.Fatalf("describe %s: %d", id, err)
		}
		return r.State.String() != "PrepareCommit" && r.State.String() != "PrepareAbort"
	})
}

func TestOpenTransactionsAreSeenAndFenced(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := startWireBroker(t, dir)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			options := append([]kgo.Opt{kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("out")}, opts...)
			zombie := wireClient(t, w, options...)
			if err := zombie.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := zombie.ProduceSync(ctx, kgo.StringRecord("lost")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			adm := adminClient(t, w)
			d, err := adm.DescribeTransactions(ctx, "tx", "other")
			if err != nil || d["tx"].State != "Ongoing" || len(d["tx"].Topics["out"]) != 1 || !errors.Is(d["other"].Err, kerr.TransactionalIDNotFound) {
				t.Errorf("%+v, %v", d, err)
			}
			list, err := adm.ListTransactions(ctx, nil, []string{"Ongoing"})
			if err != nil || len(list) != 1 || list["tx"].State != "Ongoing" {
				t.Errorf("%+v, %v", list, err)
			}
			producers, err := adm.DescribeProducers(ctx, kadm.TopicsSet{"out": {0: {}}})
			if err != nil {
				t.Fatal(err)
			}
			if p := producers["out"].Partitions[0].ActiveProducers.Sorted(); len(p) != 1 || p[0].CurrentTxnStartOffset != 0 {
				t.Errorf("%+v", p)
			}
			ends, _ := adm.ListEndOffsets(ctx, "out")
			stable, _ := adm.ListCommittedOffsets(ctx, "out")
			if e, _ := ends.Lookup("out", 0); e.Offset != 1 {
				t.Errorf("end %+v", e)
			}
			if s, _ := stable.Lookup("out", 0); s.Offset != 0 {
				t.Errorf("stable %+v", s)
			}

			w.stop() // the transaction outlives a restart
			w = startWireBroker(t, dir)
			next := wireClient(t, w, options...)
			if err := next.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := next.ProduceSync(ctx, kgo.StringRecord("kept")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := next.EndTransaction(ctx, kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			waitSettled(t, w, "tx")
			if got := readAll(t, w, "out", 1, kgo.ReadCommitted()); !slices.Equal(got, []string{"kept"}) {
				t.Errorf("committed %v", got)
			}
			// The zombie's identity, over the wire: nothing of it is taken.
			req := kmsg.NewPtrEndTxnRequest()
			req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = "tx", d["tx"].ProducerID, d["tx"].ProducerEpoch, true
			if resp, err := req.RequestWith(ctx, wireClient(t, w, opts...)); err != nil || resp.ErrorCode != kerr.ProducerFenced.Code {
				t.Errorf("EndTxn of the zombie: %+v, %v", resp, err)
			}
		})
	}
}

func TestOffsetsOfTransactions(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			w := startWireBroker(t, t.TempDir())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			const n = 60
			in := wireClient(t, w, kgo.DefaultProduceTopic("in"))
			for i := range n {
				if err := in.ProduceSync(ctx, kgo.StringRecord(strconv.Itoa(1000+i))).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			sess, err := kgo.NewGroupTransactSession(append([]kgo.Opt{kgo.SeedBrokers(w.addr), kgo.AllowAutoTopicCreation(), kgo.TransactionalID("tx"), kgo.ConsumerGroup("g"),
				kgo.ConsumeTopics("in"), kgo.DefaultProduceTopic("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(400)}, opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer sess.Close()
			var want []string
			for round := 0; len(want) < n; round++ {
				fetches := sess.PollRecords(ctx, 7)
				if err := fetches.Err(); err != nil {
					t.Fatalf("after %d records: %v", len(want), err)
				}
				if err := sess.Begin(); err != nil {
					t.Fatal(err)
				}
				var batch []string
				fetches.EachRecord(func(r *kgo.Record) {
					batch = append(batch, string(r.Value))
					sess.Produce(ctx, kgo.StringRecord(string(r.Value)), nil)
				})
				// An abort takes the offsets back with the records: they come again.
				committed, err := sess.End(ctx, kgo.TransactionEndTry(round%4 != 1))
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if committed {
					want = append(want, batch...)
				}
			}
			slices.Sort(want)
			waitSettled(t, w, "tx")
			if got := readAll(t, w, "out", 1, kgo.ReadCommitted()); !slices.Equal(got, want) || len(got) != n {
				t.Errorf("%d committed: %v", len(got), got)
			}
			offsets, err := adminClient(t, w).FetchOffsets(ctx, "g")
			if err != nil {
				t.Fatal(err)
			}
			if o, _ := offsets.Lookup("in", 0); o.At != n {
				t.Errorf("offset %+v", o)
			}
		})
	}
}

// beginTransaction asks for a producer id of the transactional id tx.
func beginTransaction() *kmsg.InitProducerIDRequest {
	begin := kmsg.NewPtrInitProducerIDRequest()
	begin.TransactionalID, begin.TransactionTimeoutMillis, begin.ProducerID, begin.ProducerEpoch = kmsg.StringPtr("tx"), 60_000, -1, -1
	return begin
}

// offsetInTransaction makes topic in, and commits offset 7 of group g there in a transaction of tx. It gives the request that commits that.
func offsetInTransaction(t *testing.T, client *kgo.Client) *kmsg.EndTxnRequest {
	t.Helper()
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("one")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	who, err := beginTransaction().RequestWith(t.Context(), client)
	if err != nil || who.ErrorCode != 0 {
		t.Fatalf("%+v, %v", who, err)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = "tx", "g", who.ProducerID, who.ProducerEpoch, -1
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset = 7
	commit.Topics = append(commit.Topics, kmsg.TxnOffsetCommitRequestTopic{Topic: "in", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{p}})
	if resp, err := commit.RequestWith(t.Context(), client); err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = "tx", who.ProducerID, who.ProducerEpoch, true
	return end
}

// TestOfflinePartitionsAreNotAddedToTransactions: what is written to an offline partition in the second protocol is refused and leaves no trace in
// the transaction, which would have to wait for a marker there until the next start, and its producer with it.
func TestOfflinePartitionsAreNotAddedToTransactions(t *testing.T) {
	dir := t.TempDir()
	w := startWireBroker(t, dir)
	if _, err := adminClient(t, w).CreateTopic(t.Context(), 2, 1, nil, "out"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	ssd, err := vfs.OS(dir + "/ssd")
	if err == nil {
		err = segment.WritePartitionMetadata(ssd, "out-0", [16]byte{9}) // a stranger's
	}
	if err != nil {
		t.Fatal(err)
	}
	w = startWireBroker(t, dir)
	client := wireClient(t, w)
	out := topicID(t, w, "out")
	who, err := beginTransaction().RequestWith(t.Context(), client)
	if err != nil || who.ErrorCode != 0 {
		t.Fatalf("%+v, %v", who, err)
	}
	records := wholeBatch(1, 10)
	be := binary.BigEndian
	be.PutUint16(records[21:], 0x10)
	be.PutUint64(records[43:], uint64(who.ProducerID))
	be.PutUint16(records[51:], uint16(who.ProducerEpoch))
	be.PutUint32(records[53:], 0)
	be.PutUint32(records[17:], crc32.Checksum(records[21:], crc32.MakeTable(crc32.Castagnoli)))
	write := func(codes ...int16) {
		t.Helper()
		req := kmsg.NewPtrProduceRequest()
		req.TransactionID, req.Acks, req.TimeoutMillis = kmsg.StringPtr("tx"), -1, 10_000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = "out", out
		for i := range codes {
			rt.Partitions = append(rt.Partitions, kmsg.ProduceRequestTopicPartition{Partition: int32(i), Records: records})
		}
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != codes[i] {
				t.Errorf("partition %d: %+v, want code %d", i, p, codes[i])
			}
		}
	}
	write(kerr.KafkaStorageError.Code)
	if r, err := w.txns.Describe("tx"); err != 0 || r.State.String() != "Empty" {
		t.Errorf("%+v, %d", r, err)
	}
	write(kerr.KafkaStorageError.Code, 0)
	if r, err := w.txns.Describe("tx"); err != 0 || len(r.Partitions) != 1 || r.Partitions[0].Index != 1 {
		t.Errorf("%+v, %d", r, err)
	}
}

// TestOfflineGroupsAreNotAddedToTransactions is the same for a group whose partition of the internal topic is offline.
func TestOfflineGroupsAreNotAddedToTransactions(t *testing.T) {
	dir := t.TempDir()
	w := startWireBroker(t, dir)
	stock := wireClient(t, w, kgo.DefaultProduceTopic("in"))
	if resp, err := offsetInTransaction(t, stock).RequestWith(t.Context(), stock); err != nil || resp.ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	waitSettled(t, w, "tx")
	p, err := w.groupPartition(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	ssd, err := vfs.OS(dir + "/ssd")
	if err == nil {
		err = segment.WritePartitionMetadata(ssd, segment.PartitionDir(p.Topic, p.Index), [16]byte{9}) // a stranger's
	}
	if err != nil {
		t.Fatal(err)
	}
	w = startWireBroker(t, dir)
	who, err := beginTransaction().RequestWith(t.Context(), wireClient(t, w))
	if err != nil || who.ErrorCode != 0 {
		t.Fatalf("%+v, %v", who, err)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = "tx", "g", who.ProducerID, who.ProducerEpoch, -1
	commit.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "in", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{kmsg.NewTxnOffsetCommitRequestTopicPartition()}}}
	commit.SetVersion(5)
	waitUntil(t, "the groups", func() bool { return w.groups.Started() && w.groups.Serves("g") != classic.LoadInProgress })
	nc, err := net.Dial("tcp", w.addr) // a stock client would ask again and again
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	resp := call[*kmsg.TxnOffsetCommitResponse](&client{t: t, nc: nc}, commit)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != kerr.NotCoordinator.Code {
		t.Errorf("answered with code %d", code)
	}
	if r, err := w.txns.Describe("tx"); err != 0 || r.State.String() != "Empty" {
		t.Errorf("%+v, %d", r, err)
	}
}

// TestDescribedAgainAndAgain: one small request that names a partition, or a transactional id, again and again does not make a response without
// bound.
func TestDescribedAgainAndAgain(t *testing.T) {
	w := startWireBroker(t, t.TempDir())
	w.maxAnswer = 10 << 10
	client := wireClient(t, w, kgo.DefaultProduceTopic("in"))
	offsetInTransaction(t, client)
	const times = 2000
	producers, ids := kmsg.NewPtrDescribeProducersRequest(), kmsg.NewPtrDescribeTransactionsRequest()
	in := kmsg.NewDescribeProducersRequestTopic()
	in.Topic, in.Partitions = "in", make([]int32, times)
	producers.Topics = append(producers.Topics, in)
	for range times {
		ids.TransactionalIDs = append(ids.TransactionalIDs, "tx")
	}
	told := map[string]map[int16]int{"producers": {}, "transactions": {}}
	p, err := producers.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range p.Topics[0].Partitions {
		told["producers"][p.ErrorCode]++
	}
	x, err := ids.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range x.TransactionStates {
		told["transactions"][x.ErrorCode]++
	}
	for what, codes := range told {
		if n := codes[0]; n == 0 || n > 200 || n+codes[kerr.InvalidRequest.Code] != times {
			t.Errorf("%s: answers by code: %v", what, codes)
		}
	}
}

// TestPendingOffsetsAreUnstable: before its marker a transaction's offset is told to nobody, and who requires stable ones is sent away.
func TestPendingOffsetsAreUnstable(t *testing.T) {
	w := startWireBroker(t, t.TempDir())
	client := wireClient(t, w, kgo.DefaultProduceTopic("in"))
	end := offsetInTransaction(t, client)
	in := topicID(t, w, "in")
	is := func(when string, stable, all bool, want string) {
		t.Helper()
		req := kmsg.NewPtrOffsetFetchRequest()
		req.RequireStable = stable
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		if !all {
			g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: "in", TopicID: in, Partitions: []int32{0}})
		}
		req.Groups = append(req.Groups, g)
		resp, err := req.RequestWith(t.Context(), client)
		if err != nil || resp.Groups[0].ErrorCode != 0 {
			t.Fatalf("%s: %+v, %v", when, resp, err)
		}
		got := ""
		for _, topic := range resp.Groups[0].Topics {
			for _, p := range topic.Partitions {
				got += fmt.Sprintf("%d:%d", p.Offset, p.ErrorCode)
			}
		}
		if got != want {
			t.Errorf("%s, stable %v, all %v: %q, want %q", when, stable, all, got, want)
		}
	}
	is("open", true, false, fmt.Sprintf("-1:%d", kerr.UnstableOffsetCommit.Code))
	is("open", false, false, "-1:0")
	is("open", false, true, "")
	if resp, err := end.RequestWith(t.Context(), client); err != nil || resp.ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	waitSettled(t, w, "tx")
	is("committed", true, false, "7:0")
	is("committed", true, true, "7:0")
}

// TestOffsetsOfTransactionsSurviveAPowerCut: the power goes just before the marker is written, before it is synced, or when the transaction is on
// record as complete. The offsets are committed after the next start, also where topics by default do not sync what they acknowledge.
func TestOffsetsOfTransactionsSurviveAPowerCut(t *testing.T) {
	type disks [2]*vfs.Mem
	start := func(d disks, inj vfs.Injector) *wireBroker {
		sim := cachetest.New(cachetest.Options{})
		return startWireBrokerOn(t, sim, map[string]string{"lagoon.flush": "interval", "lagoon.flush.interval.ms": "3600000"},
			sim.FS(vfs.WithFaults(d[0], inj)), sim.FS(d[1]))
	}
	d := disks{vfs.NewMem(1), vfs.NewMem(2)}
	var mu sync.Mutex
	cuts, ending := map[string]disks{}, false
	cut := func(when string) {
		cuts[when] = disks{d[0].Crash(vfs.CrashOptions{Live: true}), d[1].Crash(vfs.CrashOptions{Live: true})}
	}
	w := start(d, vfs.InjectorFunc(func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if ending && strings.HasPrefix(op.Name, groups.Topic) && strings.HasSuffix(op.Name, ".log") && (op.Kind == vfs.OpWrite || op.Kind == vfs.OpSync) {
			cut(fmt.Sprint("before ", op.Kind))
		}
		return nil
	}))
	client := wireClient(t, w, kgo.DefaultProduceTopic("in"))
	end := offsetInTransaction(t, client)
	mu.Lock()
	ending = true
	mu.Unlock()
	if resp, err := end.RequestWith(t.Context(), client); err != nil || resp.ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	settle := func(what string, client *kgo.Client) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; { // until the transaction before is over
			resp, err := beginTransaction().RequestWith(t.Context(), client)
			if err == nil && resp.ErrorCode == 0 {
				return
			}
			if err != nil || resp.ErrorCode != kerr.ConcurrentTransactions.Code && resp.ErrorCode != kerr.CoordinatorLoadInProgress.Code || time.Now().After(deadline) {
				t.Fatalf("%s: %+v, %v", what, resp, err)
			}
		}
	}
	settle("the first broker", client)
	mu.Lock()
	cut("complete")
	ending = false
	mu.Unlock()
	w.stop()
	if len(cuts) != 3 {
		t.Errorf("cuts: %v", slices.Sorted(maps.Keys(cuts)))
	}
	for when, after := range cuts {
		w := start(after, vfs.InjectorFunc(func(vfs.Op) error { return nil }))
		client := wireClient(t, w)
		settle(when, client)
		offsets, err := kadm.NewClient(client).FetchOffsets(t.Context(), "g")
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if o, ok := offsets.Lookup("in", 0); !ok || o.At != 7 {
			t.Errorf("%s: offset %+v, %v", when, o, ok)
		}
		w.stop()
	}
}

// TestMarkerByHand: somebody has written a marker with a coordinator's epoch above the one there is (kafka-transactions abort takes any). The next
// transaction of that producer ends there all the same, and readers of committed records see it.
func TestMarkerByHand(t *testing.T) {
	w := startWireBroker(t, t.TempDir())
	client := wireClient(t, w, kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("out"))
	commit := func(v string) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(v)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		waitSettled(t, w, "tx")
	}
	commit("before")
	r, _ := w.txns.Describe("tx")
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch = r.ProducerID, r.Epoch, 7
	m.Topics = []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: "out", Partitions: []int32{0}}}
	req.Markers = append(req.Markers, m)
	if resp, err := req.RequestWith(t.Context(), client); err != nil || resp.Markers[0].Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	commit("behind it")
	if got := readAll(t, w, "out", 1, kgo.ReadCommitted()); !slices.Equal(got, []string{"before", "behind it"}) {
		t.Errorf("committed %v", got)
	}
}

// topicID is the id of a topic.
func topicID(t *testing.T, w *wireBroker, topic string) [16]byte {
	t.Helper()
	topics, err := adminClient(t, w).ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return topics[topic].ID
}

// BenchmarkProduceInTransactions compares 1 KiB records of one idempotent producer with and without transactions of 100 ms.
func BenchmarkProduceInTransactions(b *testing.B) {
	for _, transactional := range []bool{false, true} {
		b.Run(fmt.Sprintf("transactional=%v", transactional), func(b *testing.B) {
			w := startWireBroker(b, b.TempDir())
			ctx := b.Context()
			opts := []kgo.Opt{kgo.SeedBrokers(w.addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("out"),
				kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(5000)}
			if transactional {
				opts = append(opts, kgo.TransactionalID("tx"))
			}
			client, err := kgo.NewClient(opts...)
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			begin := func() {
				if !transactional {
					return
				}
				if err := client.BeginTransaction(); err != nil {
					b.Fatal(err)
				}
			}
			end := func() {
				if err := client.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				if !transactional {
					return
				}
				if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
					b.Fatal(err)
				}
			}
			begin()
			if err := client.ProduceSync(ctx, kgo.StringRecord("first")).FirstErr(); err != nil {
				b.Fatal(err)
			}
			value := make([]byte, 1024)
			b.SetBytes(1024)
			since := time.Now()
			for b.Loop() {
				client.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
				if time.Since(since) > 100*time.Millisecond {
					end()
					begin()
					since = time.Now()
				}
			}
			end()
		})
	}
}
