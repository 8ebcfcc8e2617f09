package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/conf"
	"lagoon/internal/admin"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

// testConfig is `lagoon dev` on free ports in a directory of its own.
func testConfig(t *testing.T, root string, set ...string) *conf.Config {
	t.Helper()
	// Port 0 in server.advertised would not do: let the listener's own port be told.
	preset := append(devSettings(root), "server.listen=127.0.0.1:0", "server.advertised=", "admin.listen=127.0.0.1:0")
	cfg, err := conf.Load(conf.LoadOptions{Preset: preset, PresetName: "test", Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// startDaemon runs a daemon until stop is called, which gives run's error.
func startDaemon(t *testing.T, cfg *conf.Config, opt daemonOptions) (d *daemon, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan *daemon, 1), make(chan error, 1)
	opt.Ready = func(d *daemon) { ready <- d }
	opt.Recent = &recentLog{}
	log, level := newLogger(opt.Recent, cfg.Log)
	opt.Level = level
	go func() { done <- run(ctx, cfg, log, opt) }()
	stop = func() error { cancel(); return <-done }
	select {
	case d = <-ready:
		return d, stop
	case err := <-done:
		cancel()
		t.Fatalf("not started: %v", err)
		return nil, nil
	}
}

func (d *daemon) testClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(d.listeners[0].Addr().String()), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, topic string, first, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "value %d", first+i)})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consume reads n records from the beginning and compares them.
func consume(t *testing.T, d *daemon, topic string, n int) *kgo.Client {
	t.Helper()
	cl := d.testClient(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ClientID("test-reader"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for got := 0; got < n; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", got, n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if want := fmt.Sprintf("value %d", got); string(r.Value) != want || r.Offset != int64(got) {
				t.Fatalf("offset %d holds %q, want %q at %d", r.Offset, r.Value, want, got)
			}
			got++
		})
	}
	return cl
}

// cli asks the daemon as a user would.
func (d *daemon) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, code := command(t, []string{"LAGOON_ADMIN=http://" + d.admin.Addr().String()}, false, args...)
	if code != exitOK {
		t.Fatalf("%v: exit %d\n%s", args, code, out)
	}
	return out
}

func TestDaemonServesAndRestarts(t *testing.T) {
	root := t.TempDir()
	cfg := testConfig(t, root)
	d, stop := startDaemon(t, cfg, daemonOptions{MakeTiers: true})
	produce(t, d.testClient(t), "orders", 0, 1000)
	consume(t, d, "orders", 1000)

	var st admin.Status
	if err := json.Unmarshal([]byte(d.cli(t, "status", "-o", "json")), &st); err != nil {
		t.Fatal(err)
	}
	if st.State != "ready" || st.Topics != 1 || st.Partitions != 1 || st.LogBytes == 0 || len(st.Listeners) != 1 || len(st.Advertised) != 1 || st.ClusterID == "" {
		t.Errorf("status %+v", st)
	}
	for _, c := range st.Checks {
		if !c.OK && c.Severity != "warn" {
			t.Errorf("check %+v", c)
		}
	}
	cluster := st.ClusterID
	if out := d.cli(t, "health"); !strings.Contains(out, "[+] log-recovery ok") || !strings.HasSuffix(out, "ready\n") {
		t.Errorf("health\n%s", out)
	}
	if out := d.cli(t, "cache", "show"); !strings.Contains(out, "orders/0") || !strings.Contains(out, "100%") {
		t.Errorf("cache show\n%s", out)
	}
	if out := d.cli(t, "readers"); !strings.Contains(out, "test-reader") || !strings.Contains(out, "realtime") {
		t.Errorf("readers\n%s", out)
	}
	if out := d.cli(t, "tiers", "-o", "wide"); !strings.Contains(out, filepath.Join(root, "hdd")) {
		t.Errorf("tiers\n%s", out)
	}
	if out := d.cli(t, "explain", "fetch", "orders/0@0"); !strings.Contains(out, "hot") {
		t.Errorf("explain\n%s", out)
	}
	if out := d.cli(t, "cache", "evict", "orders/0"); !strings.Contains(out, "--yes") {
		t.Errorf("evict\n%s", out)
	}
	d.cli(t, "migrations")
	d.cli(t, "throttle", "set", "warehouse", "20MiB/s", "--ttl", "1h", "--reason", "night")
	if out := d.cli(t, "throttle", "ls"); !strings.Contains(out, "warehouse") || !strings.Contains(out, "20MiB/s") {
		t.Errorf("throttle\n%s", out)
	}
	resp, err := http.Get("http://" + d.admin.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("metrics: %s", resp.Status)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}

	d, stop = startDaemon(t, cfg, daemonOptions{})
	consume(t, d, "orders", 1000)
	produce(t, d.testClient(t), "orders", 1000, 10)
	consume(t, d, "orders", 1010)
	if out := d.cli(t, "throttle", "ls"); !strings.Contains(out, "warehouse") {
		t.Errorf("the override did not survive\n%s", out)
	}
	d.cli(t, "throttle", "rm", "warehouse")
	if out := d.cli(t, "throttle", "ls"); strings.Contains(out, "warehouse") {
		t.Errorf("the override is still there\n%s", out)
	}
	if got := d.catalogue.Snapshot().ClusterID; got != cluster {
		t.Errorf("cluster id changed from %s to %s", cluster, got)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

// TestScrapeIsWhole fails when two packages register the same name differently, or a scrape drops a family that operators ask for.
func TestScrapeIsWhole(t *testing.T) {
	d, stop := startDaemon(t, testConfig(t, t.TempDir()), daemonOptions{MakeTiers: true})
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	produce(t, d.testClient(t), "orders", 0, 10)
	const health = "lagoon_tier_up lagoon_tier_capacity_bytes lagoon_tier_used_bytes lagoon_tier_reserved_bytes lagoon_tier_watermark_ratio lagoon_tier_errors_total " +
		"lagoon_tier_device_queue_seconds lagoon_tier_oldest_io_seconds lagoon_tail_cold_reads_total lagoon_tail_refault_bytes_total lagoon_tail_delay_seconds_total " +
		"lagoon_catchup_io_seconds_total lagoon_cache_dropbehind_ineffective_bytes_total lagoon_cachectl_polluted_bytes_total lagoon_cachectl_pool_in_use_bytes " +
		"lagoon_fetch_bytes_total lagoon_sync_seconds lagoon_migration_backlog_bytes lagoon_build_info kafka_topic_partition_current_offset kafka_log_log_size " +
		"kafka_server_brokertopicmetrics_bytesin_total kafka_cluster_partition_underminisr kafka_cluster_partition_atminisr"
	for path, families := range map[string]string{"/metrics": health, "/metrics/detailed": "lagoon_partition_end_offset lagoon_metrics_dropped_readers"} {
		var log strings.Builder
		opt := admin.Options{Backend: d.backend, Gatherer: d.reg, Compat: []string{"exporter", "jmx"}, Log: slog.New(slog.NewTextHandler(&log, nil))}
		s, err := admin.New(opt)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: s}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = srv.Serve(ln) }() // ends with Close
		resp, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = srv.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range strings.Fields(families) {
			if !strings.Contains(string(text), "\n# TYPE "+family+" ") {
				t.Errorf("%s lacks %s", path, family)
			}
		}
		if resp.StatusCode != http.StatusOK || strings.Contains(log.String(), "metrics scrape had faults") {
			t.Errorf("%s: %s\n%s", path, resp.Status, log.String())
		}
	}
}

func TestStartRefusals(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	used := t.TempDir()
	d, stop := startDaemon(t, testConfig(t, used), daemonOptions{MakeTiers: true})
	_ = d
	refused := func(name, want string, cfg *conf.Config, opt daemonOptions) {
		t.Helper()
		err := run(context.Background(), cfg, slog.New(slog.DiscardHandler), opt)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, want)
		}
	}
	taken := ln.Addr().String()
	refused("Kafka port taken", "is taken by another process", testConfig(t, t.TempDir(), "server.listen="+taken), daemonOptions{MakeTiers: true})
	refused("admin port taken", "is taken by another process", testConfig(t, t.TempDir(), "admin.listen="+taken), daemonOptions{MakeTiers: true})
	refused("directory in use", "in use by another Lagoon", testConfig(t, used), daemonOptions{})
	missing := testConfig(t, t.TempDir(), "storage.tier.hdd.path="+t.TempDir())
	refused("tier missing", "does not exist: mount its file system", missing, daemonOptions{})
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// The hottest tier is not mounted: its mount point is empty.
	if err := os.Rename(filepath.Join(used, "ssd"), filepath.Join(used, "away")); err != nil {
		t.Fatal(err)
	}
	refused("hot tier empty", "holds no catalogue", testConfig(t, used), daemonOptions{MakeTiers: true})
	if entries, err := os.ReadDir(filepath.Join(used, "ssd")); err != nil || len(entries) != 0 {
		t.Errorf("something was written into the empty mount point: %v, %v", entries, err)
	}
	// And the other way round.
	if err := os.Remove(filepath.Join(used, "ssd")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(used, "away"), filepath.Join(used, "ssd")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(used, "hdd"), filepath.Join(used, "away")); err != nil {
		t.Fatal(err)
	}
	refused("cold tier empty", "mount its file system", testConfig(t, used), daemonOptions{MakeTiers: true})
}

// TestAdminSocket: the CLI talks to the daemon by its unix socket, without the token that the port asks for.
func TestAdminSocket(t *testing.T) {
	root := t.TempDir()
	socket, token := filepath.Join(root, "admin.sock"), filepath.Join(root, "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, root, "admin.socket="+socket, "admin.token_file="+token)
	// What a killed daemon leaves behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	d, stop := startDaemon(t, cfg, daemonOptions{MakeTiers: true})
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if out, code := command(t, nil, false, "status", "--admin", "unix:"+socket); code != exitOK || !strings.Contains(out, "state") {
		t.Errorf("by the socket: %d %s", code, out)
	}
	if out, code := command(t, nil, false, "status", "--admin", "http://"+d.admin.Addr().String()); code != exitFailed || !strings.Contains(out, "--token-file") {
		t.Errorf("by the port: %d %s", code, out)
	}
	if err := run(t.Context(), testConfig(t, t.TempDir(), "admin.socket="+socket), slog.New(slog.DiscardHandler), daemonOptions{MakeTiers: true}); err == nil ||
		!strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if out, code := command(t, nil, false, "status", "--admin", "unix:"+socket); code != exitFailed || !strings.Contains(out, "no daemon answers at unix:"+socket) {
		t.Errorf("nobody there: %d %s", code, out)
	}
	if out, code := command(t, nil, false, "status", "--admin", "unix:"); code != exitUsage {
		t.Errorf("no path: %d %s", code, out)
	}
	if err := run(t.Context(), testConfig(t, t.TempDir(), "admin.socket="+token), slog.New(slog.DiscardHandler), daemonOptions{MakeTiers: true}); err == nil ||
		!strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
}

// TestSeveralDirectories: a tier of two directories holds partitions in both, over a restart and when the tier before it grows.
func TestSeveralDirectories(t *testing.T) {
	root := t.TempDir()
	ssd := func(names ...string) string {
		var paths []string
		for _, n := range names {
			paths = append(paths, filepath.Join(root, n))
		}
		return "storage.tier.ssd.paths=" + strings.Join(paths, ",")
	}
	set := []string{"storage.tier.ssd.path=", "server.default_partitions=6", "storage.tier.hdd.path=", "storage.tier.hdd.paths=" + filepath.Join(root, "h1") + "," + filepath.Join(root, "h2")}
	d, stop := startDaemon(t, testConfig(t, root, append(set, ssd("a", "b"))...), daemonOptions{MakeTiers: true})
	produce(t, d.testClient(t, kgo.RecordPartitioner(kgo.RoundRobinPartitioner())), "orders", 0, 600)
	for _, dir := range []string{"a", "b"} {
		if logs, err := filepath.Glob(filepath.Join(root, dir, "orders-*")); err != nil || len(logs) == 0 {
			t.Errorf("no partition in %s: %v\n%s", dir, err, d.cli(t, "cache", "show"))
		}
	}
	tiers := d.cli(t, "tiers", "-o", "json")
	for _, want := range []string{`"name": "ssd"`, `"name": "ssd#1"`, `"name": "hdd"`, `"name": "hdd#1"`, filepath.Join(root, "b")} {
		if !strings.Contains(tiers, want) {
			t.Errorf("%s is not in\n%s", want, tiers)
		}
	}
	if out := d.cli(t, "explain", "fetch", "orders/0@0"); !strings.Contains(out, "ssd (ssd) at ") {
		t.Errorf("explain\n%s", out)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d, stop = startDaemon(t, testConfig(t, root, append(set, ssd("a", "b", "c"))...), daemonOptions{MakeTiers: true})
	total := int64(0)
	for _, l := range d.store.Logs() {
		total += int64(l.Offsets().End)
	}
	if total != 600 {
		t.Errorf("%d records after a restart with one directory more, want 600", total)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestMigrationsByHand: an operator moves one segment, thinks better of it, holds all moves up, and lets them go on.
func TestMigrationsByHand(t *testing.T) {
	d, stop := startDaemon(t, testConfig(t, t.TempDir(), "server.default_partitions=1", "storage.segment_bytes=2MiB"), daemonOptions{MakeTiers: true})
	cl := d.testClient(t, kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range 10 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: bytes.Repeat([]byte("0123456789abcdef"), 40<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	l, ok := d.store.Log("orders", 0)
	if !ok {
		t.Fatal("no log")
	}
	segs := l.Segments()
	if len(segs) < 3 {
		t.Fatalf("%d segments", len(segs))
	}
	refused := func(wantCode int, want string, args ...string) {
		t.Helper()
		out, code := command(t, []string{"LAGOON_ADMIN=http://" + d.admin.Addr().String()}, false, append([]string{"migrations"}, args...)...)
		if code != wantCode || !strings.Contains(out, want) {
			t.Errorf("%v: exit %d, %q is not in\n%s", args, code, want, out)
		}
	}
	active := fmt.Sprintf("orders/0@%d", segs[len(segs)-1].Base)
	refused(exitUsage, "active segment", "start", active, "hdd")
	refused(exitFailed, `no segment "orders/0@99"`, "start", "orders/0@99", "hdd")
	refused(exitFailed, `no tier "tape"`, "start", "orders/0@0", "tape")
	refused(exitUsage, "colder tier", "start", "orders/0@0", "ssd")
	refused(exitFailed, "no migration", "cancel", "77")

	d.cli(t, "migrations", "pause", "--reason", "look first")
	order := regexp.MustCompile(`^ordered (\d+): orders/0@0 from ssd to hdd\n`)
	out := d.cli(t, "migrations", "start", "orders/0@0", "hdd")
	id := order.FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("start: %s", out)
	}
	if out := d.cli(t, "migrations"); !strings.HasPrefix(out, "paused (look first); 1 waiting") {
		t.Errorf("paused:\n%s", out)
	}
	if out := d.cli(t, "migrations", "cancel", id[1]); !strings.HasPrefix(out, "cancelled "+id[1]+": orders/0@0") {
		t.Errorf("cancel: %s", out)
	}
	refused(exitUsage, "neither waits nor runs", "cancel", id[1])
	if out := d.cli(t, "migrations"); !strings.HasPrefix(out, "paused (look first); 0 waiting") || !strings.Contains(out, "cancelled by an operator") {
		t.Errorf("cancelled:\n%s", out)
	}

	if out := d.cli(t, "migrations", "start", "orders/0@0", "hdd", "--reason", "room"); !order.MatchString(out) {
		t.Errorf("start again: %s", out)
	}
	if tier := l.Segments()[0].Tier; tier != "ssd" {
		t.Errorf("moved to %s while paused", tier)
	}
	d.cli(t, "migrations", "resume")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for l.Segments()[0].Tier != "hdd" {
		if out = d.cli(t, "migrations"); ctx.Err() != nil {
			t.Fatalf("not moved:\n%s", out)
		}
	}
	if tier := l.Segments()[1].Tier; tier != "ssd" {
		t.Errorf("the next segment is in %s", tier)
	}
	var tiers admin.TierList
	if err := json.Unmarshal([]byte(d.cli(t, "tiers", "-o", "json")), &tiers); err != nil {
		t.Fatal(err)
	}
	moved := l.Segments()[0].SizeBytes
	if from, to := tiers.Tiers[0].WriteBytesTotal, tiers.Tiers[1].WriteBytesTotal; from != 0 || to < moved || to > moved+64<<10 { // the indexes go with it
		t.Errorf("a move of %d bytes wrote %d bytes where they were and %d where they are", moved, from, to)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// fill makes several segments in a partition.
func (d *daemon) fill(t *testing.T, number int32) *partition.Log {
	t.Helper()
	cl := d.testClient(t, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for range 10 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: number, Value: bytes.Repeat([]byte("0123456789abcdef"), 40<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	l, ok := d.store.Log("orders", number)
	if !ok || len(l.Segments()) < 3 {
		t.Fatal("no log of three segments")
	}
	return l
}

// TestCacheByHand: what the admin API says of the page cache, and what it does to it.
func TestCacheByHand(t *testing.T) {
	d, stop := startDaemon(t, testConfig(t, t.TempDir(), "server.default_partitions=2", "storage.segment_bytes=2MiB"), daemonOptions{MakeTiers: true})
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if out := d.cli(t, "health"); strings.Contains(out, "[!] cachestat") {
		t.Errorf("a broker without data:\n%s", out)
	}
	l := d.fill(t, 0)

	// The range that ends where the log starts is empty.
	var r admin.CacheActionResult
	if err := json.Unmarshal([]byte(d.cli(t, "cache", "evict", "orders/0", "--to", "0", "-o", "json")), &r); err != nil || r.Bytes != 0 || len(r.WouldChange) != 0 {
		t.Errorf("evict up to 0: %+v, %v", r, err)
	}

	// Segments are those of one partition; as many cells as were asked for.
	for args, segments := range map[string]bool{"orders": false, "orders/0": true} {
		var c admin.Cache
		if err := json.Unmarshal([]byte(d.cli(t, "cache", "show", args, "--cells", "4", "-o", "json")), &c); err != nil {
			t.Fatal(err)
		}
		for _, row := range c.Rows {
			if got := len(row.Segments) > 0; got != segments || len(row.Cells) > 4 {
				t.Errorf("%s: %d segments and %d cells of %s/%d", args, len(row.Segments), len(row.Cells), row.Topic, row.Partition)
			}
		}
	}

	// Who goes away stops the work.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, act := range map[string]func(context.Context, admin.CacheAction) (admin.CacheActionResult, error){"warm": d.backend.Warm, "evict": d.backend.Evict} {
		if r, err := act(gone, admin.CacheAction{Topic: "orders", From: -1, To: -1}); !errors.Is(err, context.Canceled) || r.Applied {
			t.Errorf("%s for nobody: %+v, %v", name, r, err)
		}
	}

	// What is deleted meanwhile is left out, the rest is done.
	segs, first := l.Segments(), true
	r, err := d.backend.act(t.Context(), admin.CacheAction{Topic: "orders", From: -1, To: -1}, func(l *partition.Log, _ byteRange, _ *admin.CacheActionResult) error {
		if !first {
			return nil
		}
		first = false
		_, err := l.DeleteRecords(t.Context(), segs[2].Base)
		return err
	})
	if err != nil || !r.Applied || r.Segments != len(segs)-2 || !strings.Contains(r.Note, "2 segment(s) left out") {
		t.Errorf("%d segments, of which 2 are deleted meanwhile: %+v, %v", len(segs), r, err)
	}
}

// TestExpiredOverridesLeaveTheCatalogue: nobody sees them, so nobody would remove them.
func TestExpiredOverridesLeaveTheCatalogue(t *testing.T) {
	d, stop := startDaemon(t, testConfig(t, t.TempDir()), daemonOptions{MakeTiers: true})
	if err := d.catalogue.PutOverride(metadata.Override{Kind: "group", Name: "job-1", BytesPerSecond: 1 << 20, ExpiresMs: 1}); err != nil {
		t.Fatal(err)
	}
	d.cli(t, "throttle", "set", "job-2", "1MiB/s", "--ttl", "1h")
	d.cli(t, "throttle", "set", "job-2", "2MiB/s")
	if got := d.catalogue.Snapshot().Overrides; len(got) != 1 || got[metadata.OverrideKey{Kind: "group", Name: "job-2"}].BytesPerSecond != 2<<20 {
		t.Errorf("overrides %v", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestStopWithoutADisk: a disk that does not answer keeps no step but its own from being done, and the process from ending no longer than it must.
func TestStopWithoutADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{backend: &backend{}, log: slog.New(slog.DiscardHandler)}
		answered := make(chan struct{})
		var closed []string
		for _, what := range []string{"listener", "catalogue", "pool", "store"} {
			d.undo(what, func(context.Context) error {
				if what == "catalogue" {
					<-answered
				}
				closed = append(closed, what)
				return nil
			})
		}
		began := time.Now()
		err := d.stop()
		if took := time.Since(began); took != drainTime+graceTime {
			t.Errorf("it took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "catalogue did not close in time") || !slices.Equal(closed, []string{"store", "pool", "listener"}) {
			t.Errorf("%v closed, and %v", closed, err)
		}
		close(answered)
		synctest.Wait()
	})
}

// TestStartWithoutADisk: a start that a disk does not answer ends when the daemon is to stop, or when its time is over, and what the steps before it
// did is undone.
func TestStartWithoutADisk(t *testing.T) {
	for _, stopped := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{backend: &backend{}, log: slog.New(slog.DiscardHandler)}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var closed []string
			made := func(what string) {
				d.undo(what, func(context.Context) error { closed = append(closed, what); return nil })
			}
			noErr := d.take(ctx, step{name: "listen", do: func(context.Context) error { made("listener"); return nil }})
			answered := make(chan struct{})
			path := "/srv/ssd"
			hung := step{name: "open catalogue", do: func(context.Context) error {
				d.asked.Store(&path)
				made("lock")
				<-answered
				made("catalogue")
				return nil
			}}
			most := startGrace
			if stopped {
				time.AfterFunc(0, stop)
			} else {
				hung.most, most = answerTime, answerTime
			}
			began := time.Now()
			err := d.take(ctx, hung)
			if took := time.Since(began); took != most {
				t.Errorf("it took %v", took)
			}
			if noErr != nil || errors.Is(err, context.Canceled) != stopped || !stopped && (err == nil || !strings.Contains(err.Error(), "/srv/ssd does not answer")) {
				t.Errorf("%v, %v", noErr, err)
			}
			if err := d.stop(); err != nil || !slices.Equal(closed, []string{"listener"}) {
				t.Errorf("closed %v, %v", closed, err)
			}
			close(answered)
			synctest.Wait()
		})
	}
}

// TestHangupStopsInGoodOrder: as a JVM does; a terminal that closes must not leave logs to be checked.
func TestHangupStopsInGoodOrder(t *testing.T) {
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGHUP) // the test itself may run under nohup
	defer signal.Stop(seen)
	var stderr bytes.Buffer
	stdout, banner := io.Pipe()
	a, root := &app{stdout: banner, stderr: &stderr}, t.TempDir()
	code := make(chan int, 1)
	go func() {
		code <- a.main(context.Background(), []string{"dev", "--data", root, "--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"})
		_ = banner.Close()
	}()
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil { // else it runs
		t.Fatalf("exit %d\n%s", <-code, &stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // ends with the pipe
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != exitOK || !strings.Contains(stderr.String(), "stopped") {
		t.Errorf("exit %d\n%s", got, &stderr)
	}
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	if slices.Contains(stopSignals(false), os.Signal(syscall.SIGHUP)) {
		t.Error("nohup has no effect")
	}
}

// TestLagThatIsNotKnown: for how long a young record has been there is not known after a restart. -1 says so, everywhere.
func TestLagThatIsNotKnown(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "server.default_partitions=1", "readers.lagging_when.min_age=1h")
	d, stop := startDaemon(t, cfg, daemonOptions{MakeTiers: true})
	produce(t, d.testClient(t), "orders", 0, 10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d, stop = startDaemon(t, cfg, daemonOptions{})
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = "warehouse"
	topic, part := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	known, _ := d.catalogue.Snapshot().Topic("orders")
	topic.Topic, topic.TopicID, part.Offset = "orders", known.ID, 3
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), d.testClient(t))
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("commit: %+v, %v", resp, err)
	}
	var g admin.Group
	if err := json.Unmarshal([]byte(d.cli(t, "groups", "warehouse", "-o", "json")), &g); err != nil || len(g.Partitions) != 1 {
		t.Fatalf("%+v, %v", g, err)
	}
	if p := g.Partitions[0]; g.LagRecords != 7 || g.LagSeconds != -1 || p.LagSeconds != -1 {
		t.Errorf("group %+v", g)
	}
	var x admin.Explanation
	if err := json.Unmarshal([]byte(d.cli(t, "explain", "fetch", "orders/0@3", "-o", "json")), &x); err != nil {
		t.Fatal(err)
	}
	for _, s := range x.Steps {
		if s.Step == "class" && s.Facts["behind_seconds"] != -1.0 {
			t.Errorf("explained by %v", s.Facts)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestExplainAsWhom: without a name it is a reader that nobody knows, and not one of those without a group; a known one is where it is.
func TestExplainAsWhom(t *testing.T) {
	d, stop := startDaemon(t, testConfig(t, t.TempDir(), "server.default_partitions=1"), daemonOptions{MakeTiers: true})
	produce(t, d.testClient(t), "orders", 0, 10)
	reader := consume(t, d, "orders", 10)
	produce(t, d.testClient(t), "orders", 10, 1)
	if last := reader.PollFetches(t.Context()); last.NumRecords() != 1 { // what it has asked for last is known now: a fetch behind the first ten
		t.Fatalf("%d records, %v", last.NumRecords(), last.Err())
	}
	whole := 0.0 // what a reader at the start is behind
	for _, tc := range []struct {
		args  []string
		known bool
	}{{nil, false}, {[]string{"--client", "somebody-else"}, false}, {[]string{"--client", "test-reader"}, true}} {
		var x admin.Explanation
		if err := json.Unmarshal([]byte(d.cli(t, append([]string{"explain", "fetch", "orders/0@0", "-o", "json"}, tc.args...)...)), &x); err != nil {
			t.Fatal(err)
		}
		for _, s := range x.Steps {
			if s.Step != "class" {
				continue
			}
			behind, _ := s.Facts["behind_bytes"].(float64)
			whole = max(whole, behind)
			if s.Facts["known"] != tc.known || behind < whole != tc.known {
				t.Errorf("%v: %s %v, the log has %g bytes", tc.args, s.Text, s.Facts, whole)
			}
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
