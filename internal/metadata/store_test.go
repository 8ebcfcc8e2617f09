package metadata_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lagoon/internal/metadata"
	"lagoon/internal/quotas"
	"lagoon/internal/vfs"
)

const dir = "lagoon-metadata"

func open(t testing.TB, fs vfs.FS, opt metadata.Options) *metadata.Store {
	t.Helper()
	s, err := metadata.Open(fs, dir, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// same compares what two snapshots say, not how they got there.
func same(a, b *metadata.Snapshot) string {
	return cmp.Diff(a, b, cmpopts.IgnoreUnexported(metadata.Snapshot{}), cmpopts.EquateEmpty()) + cmp.Diff(a.Names(), b.Names(), cmpopts.EquateEmpty())
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// fill makes one of everything.
func fill(t testing.TB, s *metadata.Store) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := must[*metadata.Topic](t)(s.CreateTopic("orders", 3, map[string]string{"retention.ms": "1000"}))
	b := must[*metadata.Topic](t)(s.CreateTopic("gone", 1, nil))
	c := must[*metadata.Topic](t)(s.CreateTopic("leaving", 2, nil))
	ok(s.CreatePartitions(a.ID, 5))
	ok(s.AlterTopicConfigs(a.ID, map[string]string{"segment.bytes": "1048576", "cleanup.policy": "compact"}, []string{"retention.ms"}))
	ok(s.AlterPins(a.ID, map[int32]string{0: "hdd", 1: "hdd", 4: "ssd"}))
	ok(s.AlterPins(a.ID, map[int32]string{0: "", 3: "", 4: "hdd#1"}))
	ok(s.AlterPins(b.ID, map[int32]string{0: "hdd"}))
	ok(s.AlterPins(b.ID, map[int32]string{0: ""}))
	ok(s.AlterPins(c.ID, map[int32]string{1: "hdd"}))
	ok(s.DeleteTopic(b.ID))
	ok(s.FinishDelete(b.ID))
	ok(s.DeleteTopic(c.ID))
	ok(s.AlterBrokerConfigs("", map[string]string{"log.retention.ms": "5"}, nil))
	ok(s.AlterBrokerConfigs("1", map[string]string{"log.retention.ms": "6", "log.roll.ms": "7"}, []string{"log.roll.ms"}))
	ok(s.AlterGroupConfigs("etl", map[string]string{"lagoon.catchup.weight": "2"}, nil))
	ok(s.PutOverride(metadata.Override{Kind: "client", Name: "c", BytesPerSecond: 9, Weight: 0.5, ExpiresMs: 1 << 45, Reason: "tôt"}))
	ok(s.PutOverride(metadata.Override{Kind: "group", Name: "c", BytesPerSecond: 1}))
	if found, err := s.DeleteOverride("group", "c"); err != nil || !found {
		t.Fatalf("delete override: %v %v", found, err)
	}
	ok(s.AlterQuotas(quotas.Entity{ClientID: quotas.Named("etl")}, map[string]float64{"producer_byte_rate": 5, "request_percentage": 0.5}, nil))
	ok(s.AlterQuotas(quotas.Entity{ClientID: quotas.Named("etl")}, map[string]float64{"consumer_byte_rate": 6}, []string{"producer_byte_rate"}))
	ok(s.AlterQuotas(quotas.Entity{User: quotas.Named("é"), ClientID: quotas.Default()}, map[string]float64{"producer_byte_rate": 7}, nil))
	ok(s.AlterQuotas(quotas.Entity{IP: quotas.Default()}, map[string]float64{"connection_creation_rate": 8}, nil))
	ok(s.AlterQuotas(quotas.Entity{IP: quotas.Default()}, nil, []string{"connection_creation_rate"}))
	ok(s.SetTier("ssd", "uuid-1"))
	if first := must[int64](t)(s.ReserveProducerIDs(1000)); first != 0 {
		t.Fatalf("first producer id %d, want 0", first)
	}
}

// A catalogue of an earlier release may hold an address in several spellings: its last word counts, and one removal removes it.
func TestAddressesOfOlderCatalogues(t *testing.T) {
	mem := vfs.NewMem(1)
	if err := open(t, mem, metadata.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	log := metadata.LogHeader(1)
	for i, ip := range []string{"10.0.0.1", "::ffff:10.0.0.1"} {
		payload := append([]byte("\x0c\x00\x00\x02"), byte(len(ip)))
		payload = append(append(payload, ip...), "\x01\x18connection_creation_rate"...)
		payload = binary.BigEndian.AppendUint64(payload, math.Float64bits(float64(5+i)))
		log = metadata.SealFrame(log, uint64(i+1), payload)
	}
	f := must[vfs.File](t)(mem.Open(dir+"/00000000000000000001.log", vfs.ReadWrite))
	must[int](t)(f.WriteAt(log, 0))
	s := open(t, mem, metadata.Options{})
	want := map[quotas.Entity]map[string]float64{{IP: quotas.Named("10.0.0.1")}: {"connection_creation_rate": 6}}
	if got := s.Snapshot().Quotas; !reflect.DeepEqual(got, want) {
		t.Errorf("quotas %v, want %v", got, want)
	}
	if err := s.AlterQuotas(quotas.Entity{IP: quotas.Named("::ffff:a00:1")}, nil, []string{"connection_creation_rate"}); err != nil || len(s.Snapshot().Quotas) != 0 {
		t.Errorf("after removal: %v, %v", s.Snapshot().Quotas, err)
	}
}

func TestReopen(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			mem := vfs.NewMem(1)
			s := open(t, mem, metadata.Options{Now: func() time.Time { return time.UnixMilli(1234) }})
			fill(t, s)
			before := s.Snapshot()
			if clean {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			again := open(t, mem.Kill(), metadata.Options{})
			if d := same(before, again.Snapshot()); d != "" {
				t.Fatalf("catalogue changed over the restart:\n%s", d)
			}
			got, ok := again.Snapshot().Topic("orders")
			if want := map[int32]string{1: "hdd", 4: "hdd#1"}; !maps.Equal(got.Pins, want) {
				t.Fatalf("pins %v, want %v", got.Pins, want)
			}
			if !ok || got.Partitions != 5 || got.CreatedMs != 1234 || !reflect.DeepEqual(got.Configs, map[string]string{"segment.bytes": "1048576", "cleanup.policy": "compact"}) {
				t.Fatalf("orders is %+v", got)
			}
			if first := must[int64](t)(again.ReserveProducerIDs(1)); first != 1000 {
				t.Fatalf("producer ids go on at %d, want 1000", first)
			}
			if len(again.Snapshot().ClusterID) != 22 {
				t.Fatalf("cluster id %q", again.Snapshot().ClusterID)
			}
		})
	}
}

func TestCompactionKeepsEverything(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{CompactBytes: 4096})
	for i := range 300 {
		topic := must[*metadata.Topic](t)(s.CreateTopic(fmt.Sprintf("t-%d", i), 1, map[string]string{"retention.ms": fmt.Sprint(i)}))
		if i%3 == 0 {
			if err := s.DeleteTopic(topic.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries := must[[]vfs.Entry](t)(mem.List(dir))
	if len(entries) != 2 || entries[0].Name < "00000000000000000003" {
		t.Fatalf("files %v: want the log and snapshot of a later generation only", entries)
	}
	again := open(t, mem.Kill(), metadata.Options{})
	if d := same(s.Snapshot(), again.Snapshot()); d != "" {
		t.Fatal(d)
	}
}

func TestChangeErrors(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{})
	a := must[*metadata.Topic](t)(s.CreateTopic("a.b", 2, nil))
	gone := must[*metadata.Topic](t)(s.CreateTopic("gone", 2, nil))
	if err := s.DeleteTopic(gone.ID); err != nil {
		t.Fatal(err)
	}
	create := func(name string, n int32, configs map[string]string) error {
		_, err := s.CreateTopic(name, n, configs)
		return err
	}
	version := s.Snapshot().Version
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"same name", create("a.b", 1, nil), metadata.ErrTopicExists},
		{"collides", create("a_b", 1, nil), metadata.ErrInvalidTopic},
		{"still deleting", create("gone", 1, nil), metadata.ErrTopicDeleting},
		{"no name", create("", 1, nil), metadata.ErrInvalidTopic},
		{"climbs", create("../x", 1, nil), metadata.ErrInvalidTopic},
		{"no partitions", create("x", 0, nil), metadata.ErrInvalidPartitions},
		{"too many", create("x", metadata.MaxPartitions+1, nil), metadata.ErrInvalidPartitions},
		{"long value", create("x", 1, map[string]string{"a": strings.Repeat("x", 1<<16)}), metadata.ErrInvalidConfig},
		{"not text", create("x", 1, map[string]string{"a": "\xff"}), metadata.ErrInvalidConfig},
		{"shrink", s.CreatePartitions(a.ID, 2), metadata.ErrInvalidPartitions},
		{"grow unknown", s.CreatePartitions(gone.ID, 9), metadata.ErrUnknownTopic},
		{"delete twice", s.DeleteTopic(gone.ID), metadata.ErrUnknownTopic},
		{"configs of unknown", s.AlterTopicConfigs(gone.ID, nil, nil), metadata.ErrUnknownTopic},
		{"pins of unknown", s.AlterPins(gone.ID, nil), metadata.ErrUnknownTopic},
		{"pin of a partition that is not there", s.AlterPins(a.ID, map[int32]string{2: "hdd"}), metadata.ErrInvalidPartitions},
		{"pin of a negative partition", s.AlterPins(a.ID, map[int32]string{-1: "hdd"}), metadata.ErrInvalidPartitions},
		{"pin to a long name", s.AlterPins(a.ID, map[int32]string{0: strings.Repeat("x", 2000)}), metadata.ErrInvalidName},
		{"group without name", s.AlterGroupConfigs("", nil, nil), metadata.ErrInvalidName},
		{"group that is not text", s.AlterGroupConfigs("\xff", map[string]string{"lagoon.catchup.weight": "2"}, nil), metadata.ErrInvalidName},
		{"broker that is not text", s.AlterBrokerConfigs("\xff", map[string]string{"log.retention.ms": "2"}, nil), metadata.ErrInvalidName},
		{"tier that is not text", s.SetTier("\xff", "x"), metadata.ErrInvalidName},
		{"override kind", s.PutOverride(metadata.Override{Kind: "x", Name: "y"}), metadata.ErrInvalidOverride},
		{"override rate", s.PutOverride(metadata.Override{Kind: "group", Name: "y", BytesPerSecond: -1}), metadata.ErrInvalidOverride},
		{"tier", s.SetTier("", "x"), metadata.ErrInvalidName},
		{"quota of nobody", s.AlterQuotas(quotas.Entity{}, nil, nil), quotas.ErrInvalid},
		{"quota not positive", s.AlterQuotas(quotas.Entity{User: quotas.Default()}, map[string]float64{"producer_byte_rate": 0}, nil), quotas.ErrInvalid},
		{"quota of a long name", s.AlterQuotas(quotas.Entity{User: quotas.Named(strings.Repeat("x", 2000))}, nil, nil), metadata.ErrInvalidName},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
	}
	if _, err := s.ReserveProducerIDs(0); err == nil {
		t.Error("reserving no producer ids passed")
	}
	if s.Snapshot().Version != version {
		t.Error("a refused change moved the version")
	}
	before := s.Snapshot()
	s.Close()
	if err := create("late", 1, nil); !errors.Is(err, metadata.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if d := same(before, open(t, mem.Kill(), metadata.Options{}).Snapshot()); d != "" {
		t.Errorf("catalogue changed over the restart:\n%s", d)
	}
}

// A topic that is made again under its name is another topic, and what is left of the first stays on record.
func TestRecreatedTopicHasNewID(t *testing.T) {
	s := open(t, vfs.NewMem(1), metadata.Options{})
	first := must[*metadata.Topic](t)(s.CreateTopic("a", 1, nil))
	if err := s.DeleteTopic(first.ID); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.Snapshot().DeletingName("a"); !ok || got.ID != first.ID {
		t.Fatalf("deleting: %v %v", got, ok)
	}
	if err := s.FinishDelete(first.ID); err != nil {
		t.Fatal(err)
	}
	second := must[*metadata.Topic](t)(s.CreateTopic("a", 1, nil))
	if second.ID == first.ID {
		t.Fatal("same id twice")
	}
	if _, ok := s.Snapshot().TopicByID(first.ID); ok {
		t.Fatal("the old id is still known")
	}
}

func TestSnapshotsAreImmutable(t *testing.T) {
	s := open(t, vfs.NewMem(1), metadata.Options{})
	configs := map[string]string{"retention.ms": "1"}
	a := must[*metadata.Topic](t)(s.CreateTopic("a", 1, configs))
	configs["retention.ms"] = "changed by the caller"
	old := s.Snapshot()
	fillNames := []string{"b", "0", "c"}
	for _, n := range fillNames {
		must[*metadata.Topic](t)(s.CreateTopic(n, 1, nil))
	}
	if err := errors.Join(s.CreatePartitions(a.ID, 3), s.AlterTopicConfigs(a.ID, map[string]string{"retention.ms": "2"}, nil), s.SetTier("x", "y"), s.DeleteTopic(a.ID)); err != nil {
		t.Fatal(err)
	}
	got, ok := old.Topic("a")
	if !ok || got.Partitions != 1 || got.Configs["retention.ms"] != "1" || len(old.Topics) != 1 || len(old.Names()) != 1 || len(old.Tiers) != 0 || len(old.Deleting) != 0 {
		t.Fatalf("the old snapshot changed: %+v, topic %+v", old, got)
	}
	if names := s.Snapshot().Names(); !reflect.DeepEqual(names, []string{"0", "b", "c"}) {
		t.Fatalf("names %v", names)
	}
}

func TestOnChangeSeesEveryChangeInOrder(t *testing.T) {
	var versions []uint64
	s := open(t, vfs.NewMem(1), metadata.Options{OnChange: func(old, new *metadata.Snapshot) {
		if new.Version != old.Version+1 {
			t.Errorf("from %d to %d", old.Version, new.Version)
		}
		versions = append(versions, new.Version)
	}})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := s.ReserveProducerIDs(int64(i + 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.SetTier("a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetTier("a", "b"); err != nil { // no change
		t.Fatal(err)
	}
	if len(versions) != 161 || s.Snapshot().NextProducerID != 20*36 {
		t.Fatalf("%d changes, next id %d", len(versions), s.Snapshot().NextProducerID)
	}
}

func TestClusterID(t *testing.T) {
	mem := vfs.NewMem(1)
	const id = "MkU3OEVBNTcwNTJENDM2Qg"
	open(t, mem, metadata.Options{ClusterID: id}).Close()
	if got := open(t, mem, metadata.Options{}).Snapshot().ClusterID; got != id {
		t.Fatalf("cluster id %s", got)
	}
	if _, err := metadata.Open(mem, dir, metadata.Options{ClusterID: "AkU3OEVBNTcwNTJENDM2Qg"}); err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Fatalf("foreign directory: %v", err)
	}
	if _, err := metadata.Open(mem, dir, metadata.Options{ClusterID: "short", CompactBytes: 1}); err == nil ||
		!strings.Contains(err.Error(), "ClusterID") || !strings.Contains(err.Error(), "CompactBytes") {
		t.Fatalf("bad options: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem(1)
	fault := &vfs.Fault{Kinds: vfs.OpWrite, Name: dir + "/*.log", Nth: 3, Err: &vfs.ShortWrite{Bytes: 20, Err: syscall.ENOSPC}}
	s := open(t, vfs.WithFaults(mem, fault), metadata.Options{})
	must[*metadata.Topic](t)(s.CreateTopic("first", 1, nil))
	_, err := s.CreateTopic("refused", 1, nil)
	if !errors.Is(err, metadata.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || fault.Fired() != 1 {
		t.Fatalf("full disk: %v (fired %d)", err, fault.Fired())
	}
	if _, ok := s.Snapshot().Topic("refused"); ok || s.Err() != nil {
		t.Fatalf("refused topic is there, or the store failed: %v", s.Err())
	}
	must[*metadata.Topic](t)(s.CreateTopic("x", 1, nil)) // space is back; shorter than what was refused
	again := open(t, mem.Crash(vfs.CrashOptions{}), metadata.Options{})
	if d := same(s.Snapshot(), again.Snapshot()); d != "" {
		t.Fatal(d)
	}
}

// A sync that failed is final: no second try, no change after it, reads go on.
func TestFailedSyncIsSticky(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		mem := vfs.NewMem(1)
		fault := &vfs.Fault{Kinds: vfs.OpSync, Name: dir + "/*.log", Nth: 3, Err: cause}
		s := open(t, vfs.WithFaults(mem, fault), metadata.Options{})
		must[*metadata.Topic](t)(s.CreateTopic("kept", 1, nil))
		if _, err := s.CreateTopic("lost", 1, nil); !errors.Is(err, metadata.ErrFailed) || !errors.Is(err, cause) {
			t.Fatalf("%v: %v", cause, err)
		}
		if err := s.SetTier("a", "b"); !errors.Is(err, metadata.ErrFailed) {
			t.Fatalf("after the failure: %v", err)
		}
		if seen := fault.Seen(); seen != 3 {
			t.Fatalf("%d syncs, want 3: a failed one must not be tried again", seen)
		}
		if _, ok := s.Snapshot().Topic("kept"); !ok || s.Err() == nil {
			t.Fatalf("snapshot or sticky error are gone: %v", s.Err())
		}
		again := open(t, mem.Crash(vfs.CrashOptions{}), metadata.Options{})
		if _, ok := again.Snapshot().Topic("kept"); !ok {
			t.Fatal("an acknowledged topic is gone")
		}
	}
}

// A compaction that finds no room is put off; one whose outcome is unknown ends all changes.
func TestCompactionFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  *vfs.Fault
		sticky bool
	}{
		{"no room for the log", &vfs.Fault{Kinds: vfs.OpCreate, Name: dir + "/*2.log", Err: syscall.ENOSPC}, false},
		{"no room for the snapshot", &vfs.Fault{Kinds: vfs.OpWrite, Name: dir + "/*2.snapshot.tmp", Err: syscall.ENOSPC}, false},
		{"rename refused", &vfs.Fault{Kinds: vfs.OpRename, Name: dir + "/*2.snapshot", Err: syscall.EIO}, false},
		{"directory sync after the rename", &vfs.Fault{Kinds: vfs.OpSyncDir, Nth: 4, Err: syscall.EIO}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem := vfs.NewMem(1)
			s := open(t, vfs.WithFaults(mem, tc.fault), metadata.Options{CompactBytes: 4096})
			made, failed := 0, false
			for i := range 200 {
				_, err := s.CreateTopic(fmt.Sprintf("topic-number-%d", i), 1, nil)
				if err != nil {
					failed = true
					if !errors.Is(err, metadata.ErrFailed) {
						t.Fatal(err)
					}
					break
				}
				made++
			}
			if tc.fault.Fired() != 1 || failed != tc.sticky {
				t.Fatalf("fired %d, failed %v, want failed %v", tc.fault.Fired(), failed, tc.sticky)
			}
			again := open(t, mem.Crash(vfs.CrashOptions{Seed: 7, KeepPercent: 50}), metadata.Options{})
			if n := len(again.Snapshot().Topics); n != made {
				t.Fatalf("%d topics after the crash, %d were acknowledged", n, made)
			}
		})
	}
}

func TestManyTopics(t *testing.T) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{})
	for i := range 2000 {
		must[*metadata.Topic](t)(s.CreateTopic(fmt.Sprintf("a.b-%d", i), 1, nil))
	}
	again := open(t, mem.Kill(), metadata.Options{})
	if n := len(again.Snapshot().Topics); n != 2000 {
		t.Fatalf("%d topics", n)
	}
}
