package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// wireBroker is a broker on real directories behind a real socket.
type wireBroker struct {
	*Broker
	addr string
	stop func()
}

// startWireBroker opens the catalogue and two tiers under dir and serves them until stop, or the end of the test.
func startWireBroker(t testing.TB, dir string) *wireBroker {
	t.Helper()
	root, err := vfs.OS(dir)
	var tiers []vfs.FS
	for _, name := range []string{"ssd", "hdd"} {
		if err == nil {
			err = root.MkdirAll(name)
		}
		var tier vfs.FS
		if err == nil {
			tier, err = vfs.OS(dir + "/" + name)
		}
		if err != nil {
			t.Fatal(err)
		}
		tiers = append(tiers, tier)
	}
	return startWireBrokerOn(t, cachectl.LinuxKernel(), nil, tiers[0], tiers[1])
}

// startWireBrokerOn is startWireBroker on file systems of the test's, with further defaults of topics.
func startWireBrokerOn(t testing.TB, kernel cachectl.Kernel, topicDefaults map[string]string, ssd, hdd vfs.FS) *wireBroker {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	dirs := []partition.DirSpec{{Tier: "ssd", FS: ssd, ReserveBytes: 1}, {Tier: "hdd", FS: hdd, ReserveBytes: 1}}
	meta, err := metadata.Open(dirs[0].FS, "lagoon-metadata", metadata.Options{})
	check(err)
	pool, err := cachectl.NewPool(8<<20, 1<<20)
	check(err)
	store, err := partition.Open(partition.Options{Dirs: dirs, Cache: cachectl.New(kernel, cachectl.Options{}), Pool: pool,
		Readers: admission.Config{MinBytes: 1 << 20, MinAge: time.Minute}, Logger: log})
	check(err)
	defaults := map[string]string{"file.delete.delay.ms": "0"}
	maps.Copy(defaults, topicDefaults)
	specs, err := TopicSpecs(meta.Snapshot(), defaults, 1)
	check(err)
	check(store.Load(t.Context(), specs))
	b, err := New(Options{NodeID: 1, Endpoints: []Endpoint{{Name: "plain", Host: "127.0.0.1"}}, Store: store, Metadata: meta, Logger: log,
		AutoCreateTopics: true, TopicDefaults: defaults, ServerConfigs: settings})
	check(err)
	check(b.FinishDeletions(t.Context()))
	if _, ok := b.api(3); !ok {
		t.Fatal("the admin APIs are not in the table")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, "plain", ln) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		check(<-served)
		timeout, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		check(b.Shutdown(timeout))
		check(store.Close(timeout))
		check(meta.Close())
		pool.Close()
	}
	t.Cleanup(stop)
	return &wireBroker{b, ln.Addr().String(), stop}
}

func adminClient(t testing.TB, w *wireBroker) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// The life of topics as a stock client's admin sees it, over a restart.
func TestAdminClientEndToEnd(t *testing.T) {
	dir := t.TempDir()
	w := startWireBroker(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	adm := adminClient(t, w)

	made, err := adm.CreateTopics(ctx, 3, 1, map[string]*string{"retention.ms": kadm.StringPtr("86400000")}, "orders", "events")
	ok("create", err)
	ok("create", made.Error())
	if _, err := adm.CreateTopic(ctx, 1, 1, map[string]*string{"segment.bytes": kadm.StringPtr("1024")}, "small"); err == nil || !strings.Contains(err.Error(), "INVALID_CONFIG") {
		t.Errorf("small segments: %v", err)
	}
	grown, err := adm.CreatePartitions(ctx, 2, "orders")
	ok("grow", err)
	ok("grow", grown.Error())

	topics, err := adm.ListTopics(ctx)
	ok("list", err)
	if !slices.Equal(topics.Names(), []string{"events", "orders"}) || len(topics["orders"].Partitions) != 5 || topics["orders"].ID != made["orders"].ID {
		t.Fatalf("topics %+v", topics)
	}

	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: kadm.StringPtr("1000000")}, {Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}, "orders")
	ok("alter", err)
	for _, a := range altered {
		ok("alter", a.Err)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, "orders")
	ok("describe", err)
	got := map[string]string{}
	for _, c := range configs[0].Configs {
		got[c.Key] = fmt.Sprintf("%s %s", c.MaybeValue(), c.Source)
	}
	if got["retention.ms"] != "1000000 DYNAMIC_TOPIC_CONFIG" || got["cleanup.policy"] != "delete,compact DYNAMIC_TOPIC_CONFIG" || got["file.delete.delay.ms"] != "0 STATIC_BROKER_CONFIG" {
		t.Errorf("configs %v", got)
	}
	if _, err := adm.DescribeBrokerConfigs(ctx, 1); err != nil {
		t.Error(err)
	}

	producer := kgo.RecordPartitioner(kgo.ManualPartitioner())
	client, err := kgo.NewClient(kgo.SeedBrokers(w.addr), producer)
	ok("client", err)
	defer client.Close()
	for i := range 10 {
		ok("produce", client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Partition: 0, Key: []byte("k"), Value: fmt.Append(nil, i)}).FirstErr())
	}
	var trim kadm.Offsets
	trim.AddOffset("orders", 0, 4, -1)
	trimmed, err := adm.DeleteRecords(ctx, trim)
	ok("delete records", err)
	if r, _ := trimmed.Lookup("orders", 0); r.Err != nil || r.LowWatermark != 4 {
		t.Errorf("trimmed %+v", r)
	}

	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	ok("log dirs", err)
	var paths []string
	held := int64(0)
	for _, d := range dirs[1] {
		paths = append(paths, strings.TrimPrefix(d.Dir, dir))
		held += d.Size()
		if d.Err != nil {
			t.Errorf("%s: %v", d.Dir, d.Err)
		}
	}
	slices.Sort(paths)
	if !slices.Equal(paths, []string{"/hdd", "/ssd"}) || held == 0 {
		t.Errorf("dirs %v hold %d bytes", paths, held)
	}

	gone, err := adm.DeleteTopics(ctx, "events")
	ok("delete", err)
	ok("delete", gone.Error())

	cluster, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(ctx, client)
	ok("cluster", err)
	if cluster.ClusterID != w.meta.Snapshot().ClusterID || cluster.Brokers[0].Host != "127.0.0.1" {
		t.Errorf("cluster %+v", cluster)
	}
	w.stop()

	w = startWireBroker(t, dir)
	adm = adminClient(t, w)
	topics, err = adm.ListTopics(ctx)
	ok("list after the restart", err)
	if !slices.Equal(topics.Names(), []string{"orders"}) || len(topics["orders"].Partitions) != 5 || topics["orders"].ID != made["orders"].ID {
		t.Errorf("after the restart: %+v", topics)
	}
	for _, p := range topics["orders"].Partitions {
		if p.Err != nil || p.Leader != 1 {
			t.Errorf("after the restart: %+v", p)
		}
	}
	starts, err := adm.ListStartOffsets(ctx, "orders")
	ok("start offsets", err)
	if o, _ := starts.Lookup("orders", 0); o.Offset != 4 {
		t.Errorf("log start %d after the restart, want 4", o.Offset)
	}
	// A topic made again under an old name is another one.
	again, err := adm.CreateTopic(ctx, 1, 1, nil, "events")
	ok("create again", err)
	if again.ID == made["events"].ID {
		t.Error("same topic id twice")
	}
}

// A stop between the record of a deletion and the removal of its directories: the next start takes them away, and the
// name is free.
func TestInterruptedDeletionOverRestart(t *testing.T) {
	dir := t.TempDir()
	w := startWireBroker(t, dir)
	made, err := w.createTopic(t.Context(), newTopic{name: "a", partitions: 2, configs: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.meta.DeleteTopic(made.ID); err != nil { // and no more
		t.Fatal(err)
	}
	w.stop()
	w = startWireBroker(t, dir)
	if _, served := w.logs.log("a", 0); served || len(w.meta.Snapshot().Deleting) != 0 {
		t.Errorf("a deleted topic is served (%v) or still on record: %v", served, w.meta.Snapshot().Deleting)
	}
	if _, err := w.createTopic(t.Context(), newTopic{name: "a", partitions: 3, configs: map[string]string{}}); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}
