package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/conf"
	"lagoon/internal/broker"
	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/quotas"
	"lagoon/internal/transactions"
)

// unlimitedAsZero translates conf's -1 for packages where 0 is no limit.
func unlimitedAsZero[T ~int64](v T) int64 {
	if v == conf.Unlimited {
		return 0
	}
	return int64(v)
}

func readersConfig(c *conf.Config) admission.Config {
	return admission.Config{MinBytes: int64(c.Readers.LaggingWhen.MinBytes), MinAge: c.Readers.LaggingWhen.MinAge.Std()}
}

// limitsConfig are the caps that span devices: those of the file, unless a dynamic broker config has a word on them, which holds in
// every mode.
func limitsConfig(c *conf.Config, snap *metadata.Snapshot) admission.LimitsConfig {
	limits := admission.LimitsConfig{MigrationBytesPerSecond: unlimitedAsZero(c.Tiering.MoveMax)}
	if c.Throttle.Mode != "off" {
		limits.GlobalBytesPerSecond = unlimitedAsZero(c.Throttle.CatchupTotal)
		limits.FlowBytesPerSecond = unlimitedAsZero(c.Throttle.PerReader.Max)
	}
	if rate := snap.ClientCap(quotas.Default()); rate > 0 { // an operator's word at run time holds whatever throttle.mode is
		limits.FlowBytesPerSecond = min(rate, maxRate)
	}
	node := strconv.Itoa(int(c.Server.NodeID))
	for key, rate := range map[string]*int64{
		metadata.FetchMaxBytesPerSecond: &limits.GlobalBytesPerSecond,
		metadata.CopyMaxBytesPerSecond:  &limits.MigrationBytesPerSecond,
	} {
		text, ok := snap.BrokerValue(key, node)
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case !ok || err != nil:
		case n > maxRate: // Kafka's default of "all there is"
			*rate = 0
		default:
			*rate = n
		}
	}
	return limits
}

// maxRate is the largest rate that admission counts; beyond it a rate is no limit.
const maxRate = 1 << 50

// adaptive is nil when budgets are fixed numbers or none.
func (d *daemon) adaptive() *partition.Adaptive {
	c := &d.cfg.Throttle
	if c.Mode != "adaptive" {
		return nil
	}
	a := &partition.Adaptive{FloorBytes: unlimitedAsZero(c.Floor), ProtectP99: c.ProtectP99.Std()}
	if !d.without.cores {
		a.CPU = &machineCPU{}
	}
	return a
}

func hotConfig(c *conf.Config) partition.HotWindows {
	return partition.HotWindows{Share: float64(c.Cache.HotWindowMemory), Keep: c.Cache.HotWindowKeep.Std(), Drop: partition.DropBehind(c.Cache.DropBehind),
		Memory: cachectl.ReadMemory, WarmBytes: int64(c.Cache.WarmTailOnStart)}
}

// deviceConfig knows two kinds of device. A rotating disk gets one stream at a time in large turns, because a seek costs as much as
// reading a megabyte; a solid-state one gets bounded parallelism (design.md §8).
func deviceConfig(c *conf.Config, t tier) admission.DeviceConfig {
	dc := admission.DeviceConfig{MaxInFlight: 8, QuantumBytes: 4 << 20}
	if t.class == string(cachectl.DeviceHDD) {
		dc.MaxInFlight, dc.QuantumBytes = 2, 24<<20
	}
	if rate, ok := c.Throttle.Tier[t.Name]; ok && c.Throttle.Mode != "off" {
		dc.BytesPerSecond = unlimitedAsZero(rate)
	}
	return dc
}

func (d *daemon) dirSpecs() ([]partition.DirSpec, error) {
	var out []partition.DirSpec
	for _, t := range d.tiers {
		usage, err := t.fs.Usage()
		if err != nil {
			return nil, fmt.Errorf("tier %s: %w", t.Name, err)
		}
		out = append(out, partition.DirSpec{
			Tier: t.Name, FS: t.fs, Device: deviceConfig(d.cfg, t), Rotating: t.class == "hdd",
			MaxUsedBytes: int64(float64(t.MaxUsed) * float64(usage.TotalBytes)), High: float64(t.HighWatermark), Low: float64(t.LowWatermark),
			Keep: time.Duration(unlimitedAsZero(t.Keep)), JournalBytes: journalBytes(d.cfg),
		})
	}
	return out, nil
}

// journalBytes is the size of each of the two files of a commit journal, 0 for none.
func journalBytes(c *conf.Config) int64 {
	if !c.Storage.CommitJournal {
		return 0
	}
	return int64(c.Storage.CommitJournalBytes)
}

// deviceOf is the st_dev of a path, 0 when it cannot be told.
func deviceOf(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}

// probeDevices finds the class of each tier's device: the configured one, else the measured one, else what the kernel says. Tiers on
// one device share a measurement.
func (d *daemon) probeDevices() {
	measured := map[uint64]cachectl.Device{}
	for i := range d.tiers {
		t := &d.tiers[i]
		if t.Class != "auto" {
			t.class, t.classFrom = t.Class, "configured"
			continue
		}
		m, known := measured[t.device]
		if !known {
			var err error
			if m, err = inTime(func() (cachectl.Device, error) { return cachectl.ProbeDevice(t.fs) }); err != nil {
				t.class, t.classFrom = kernelClass(t.device), "rotational flag"
				d.log.Warn("device not measured: its class is what the kernel says; set storage.tier.class if that is wrong",
					"tier", t.Name, "path", t.Path, "class", t.class, "err", err)
				continue
			}
			measured[t.device] = m
		}
		t.class, t.classFrom, t.measured = string(m.Class), "measured", m
		d.log.Info("device measured", "tier", t.Name, "path", t.Path, "class", t.class, "seek", m.Seek, "parallel_gain", m.ParallelGain,
			"sequential_bytes_per_second", int64(m.SequentialBytesPerSecond), "file", m.File, "reads", m.Reads, "elapsed", m.Took)
	}
}

// inTime leaves behind what a disk does not answer within answerTime.
func inTime[T any](ask func() (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := ask()
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-time.After(answerTime):
		return answer, fmt.Errorf("no answer in %v", answerTime)
	}
}

// kernelClass is what the kernel says: /sys/dev/block/MAJOR:MINOR/queue/rotational, for a partition that of its disk. It is often
// wrong on virtual disks. What the kernel does not know (overlay, network, memory) counts as ssd: bounded parallelism harms least.
func kernelClass(device uint64) string {
	dev, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(device), unix.Minor(device)))
	if err != nil {
		return string(cachectl.DeviceSSD)
	}
	for _, dir := range []string{dev, filepath.Dir(dev)} {
		if text, err := os.ReadFile(filepath.Join(dir, "queue/rotational")); err == nil {
			if strings.TrimSpace(string(text)) == "1" {
				return string(cachectl.DeviceHDD)
			}
			return string(cachectl.DeviceSSD)
		}
	}
	return string(cachectl.DeviceSSD)
}

// admissionOverrides are the catalogue's throttle rules that still hold.
func admissionOverrides(snap *metadata.Snapshot, now time.Time) []admission.Override {
	var out []admission.Override
	for _, o := range snap.Overrides {
		if ao, err := admissionOverride(o); err == nil && (ao.Expires.IsZero() || ao.Expires.After(now)) {
			out = append(out, ao)
		}
	}
	return out
}

// subjectCaps are the caps and weights that groups' configs and clients' cold_fetch_byte_rate set.
func subjectCaps(snap *metadata.Snapshot) []admission.SubjectCap {
	var out []admission.SubjectCap
	for e := range snap.Quotas {
		if c := clientCap(snap, e.ClientID); c != (admission.Cap{}) && e == (quotas.Entity{ClientID: quotas.Named(e.ClientID.Name)}) {
			out = append(out, admission.SubjectCap{Subject: admission.Subject{Kind: admission.Client, Name: e.ClientID.Name}, Cap: c})
		}
	}
	for group := range snap.GroupConfigs {
		if c := groupCap(snap, group); c != (admission.Cap{}) {
			out = append(out, admission.SubjectCap{Subject: admission.Subject{Kind: admission.Group, Name: group}, Cap: c})
		}
	}
	return out
}

func groupCap(snap *metadata.Snapshot, group string) admission.Cap {
	rate, weight := snap.GroupCap(group)
	return admission.Cap{BytesPerSecond: rate, Weight: weightUnits(weight)}
}

func clientCap(snap *metadata.Snapshot, client quotas.Part) admission.Cap {
	return admission.Cap{BytesPerSecond: min(snap.ClientCap(client), maxRate)}
}

func admissionOverride(o metadata.Override) (admission.Override, error) {
	kind, err := admission.ParseKind(o.Kind)
	if err != nil {
		return admission.Override{}, err
	}
	ao := admission.Override{Kind: kind, Name: o.Name, BytesPerSecond: o.BytesPerSecond, Weight: weightUnits(o.Weight), Reason: o.Reason}
	if o.ExpiresMs > 0 {
		ao.Expires = time.UnixMilli(o.ExpiresMs)
	}
	return ao, nil
}

// weightUnits turns a weight around 1 into admission's units of DefaultWeight.
func weightUnits(weight float64) int {
	return int(math.Round(weight * admission.DefaultWeight))
}

// catalogueChanged brings throttle rules in force, whoever set them: the admin API, or kafka-configs on a group, client or broker. It runs
// under the catalogue's write lock.
func (d *daemon) catalogueChanged(before, after *metadata.Snapshot) {
	if d.store == nil {
		return // they are given to partition.Open
	}
	d.overridesChanged(before.Overrides, after.Overrides)
	groups := map[string]bool{}
	for _, snap := range []*metadata.Snapshot{before, after} {
		for g := range snap.GroupConfigs {
			groups[g] = true
		}
	}
	for g := range groups {
		c := groupCap(after, g)
		if c == groupCap(before, g) {
			continue
		}
		if err := d.store.Configure(admission.Subject{Kind: admission.Group, Name: g}, c); err != nil {
			d.log.Warn("group's catch-up configuration not in force", "group", g, "err", err)
		}
	}
	for _, snap := range []*metadata.Snapshot{before, after} {
		for e := range snap.Quotas {
			c := clientCap(after, e.ClientID)
			if e != (quotas.Entity{ClientID: quotas.Named(e.ClientID.Name)}) || c == clientCap(before, e.ClientID) {
				continue
			}
			if err := d.store.Configure(admission.Subject{Kind: admission.Client, Name: e.ClientID.Name}, c); err != nil {
				d.log.Warn("client's cold_fetch_byte_rate not in force", "client_id", e.ClientID.Name, "err", err)
			}
		}
	}
	if cfg := d.config.inForce.Load(); limitsConfig(cfg, after) != limitsConfig(cfg, before) {
		if err := d.applyLimits(); err != nil {
			d.log.Warn("broker's cap not in force", "err", err)
		}
	}
}

func (d *daemon) overridesChanged(before, after map[metadata.OverrideKey]metadata.Override) {
	for k, o := range after {
		if was, had := before[k]; had && was == o {
			continue
		}
		ao, err := admissionOverride(o)
		if err == nil {
			err = d.store.SetOverride(ao)
		}
		if err != nil {
			d.log.Warn("throttle rule not in force", "kind", o.Kind, "name", o.Name, "err", err)
		}
	}
	for k := range before {
		if _, still := after[k]; still {
			continue
		}
		if kind, err := admission.ParseKind(k.Kind); err == nil {
			d.store.DeleteOverride(kind, k.Name)
		}
	}
}

func endpointName(i int) string {
	if i == 0 {
		return "plain"
	}
	return fmt.Sprintf("plain%d", i+1)
}

// endpoints tell each listener's clients where to go: the advertised address on the first, the address that they listen on elsewhere.
func (d *daemon) endpoints() []broker.Endpoint {
	var out []broker.Endpoint
	for i, ln := range d.listeners {
		addr := d.cfg.Server.Listen[i]
		if i == 0 && d.cfg.Server.Advertised != "" {
			addr = d.cfg.Server.Advertised
		}
		host, port, _ := net.SplitHostPort(addr) // conf has checked it
		n, _ := strconv.Atoi(port)
		if bound, ok := ln.Addr().(*net.TCPAddr); ok && n == 0 {
			n = bound.Port
		}
		out = append(out, broker.Endpoint{Name: endpointName(i), Host: host, Port: int32(n)})
	}
	return out
}

func (d *daemon) brokerOptions() broker.Options {
	s, l := &d.cfg.Server, &d.cfg.Server.Limits
	jmx := false
	for _, name := range d.cfg.Metrics.Compat {
		jmx = jmx || name == "jmx"
	}
	g := &d.cfg.Groups
	return broker.Options{
		OffsetsPartitions: g.OffsetsPartitions,
		Groups: groups.Options{
			Classic: classic.Config{MinSession: g.MinSessionTimeout.Std(), MaxSession: g.MaxSessionTimeout.Std(),
				InitialDelay: g.InitialRebalanceDelay.Std(), MaxSize: int(g.MaxSize)},
			Consumer: consumer.Config{MaxSize: int(g.MaxSize)},
			Settings: func(string) consumer.Settings {
				return consumer.Settings{Session: g.ConsumerSession.Std(), Heartbeat: g.ConsumerHeartbeat.Std()}
			},
			Retention: g.OffsetsRetention.Std(), MaxMetadata: int(g.OffsetMetadata), MaxBytes: int64(g.Memory),
		},
		TransactionsPartitions: d.cfg.Transactions.StatePartitions,
		Transactions:           transactions.Options{MaxTimeout: d.cfg.Transactions.MaxTimeout.Std(), Retention: d.cfg.Transactions.IDRetention.Std()},
		NodeID:                 s.NodeID, Rack: s.Rack, Endpoints: d.endpoints(),
		Store: d.store, Metadata: d.catalogue, Logger: d.log, Registerer: d.reg, MetricsJMX: jmx,
		MaxRequestBytes: int32(min(int64(l.RequestBytes), math.MaxInt32)), MaxInFlightBytes: int64(l.InflightBytes),
		MaxConnections: int(l.Connections), MaxConnectionsPerIP: int(l.ConnectionsPerIP), IdleTimeout: l.IdleTimeout.Std(),
		WholeFetches: d.without.split, AutoCreateTopics: s.AutoCreateTopics, DefaultPartitions: s.DefaultPartitions,
		TopicDefaults: d.cfg.TopicDefaults(), ServerConfigs: d.serverConfigs,
	}
}

// serverConfigs is what DescribeConfigs shows of the file, under Kafka's names.
func (d *daemon) serverConfigs() []broker.ServerConfig {
	const typeBool, typeString, typeInt, typeLong, typeList = 1, 2, 3, 5, 7
	cfg := d.config.inForce.Load()
	s, l := &cfg.Server, &cfg.Server.Limits
	row := func(name, key, value string, kind int8, doc string) broker.ServerConfig {
		return broker.ServerConfig{Name: name, Value: value, Default: cfg.Source(key) == "default", Type: kind, Doc: doc + " (" + key + ")"}
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var dirs, listen []string
	for _, t := range d.tiers {
		dirs = append(dirs, t.Path)
	}
	for _, addr := range s.Listen {
		listen = append(listen, "PLAINTEXT://"+addr)
	}
	g, e := &cfg.Groups, d.endpoints()[0]
	return []broker.ServerConfig{
		row("node.id", "server.node_id", number(int64(s.NodeID)), typeInt, "Id of this broker."),
		row("broker.id", "server.node_id", number(int64(s.NodeID)), typeInt, "Id of this broker."),
		row("broker.rack", "server.rack", s.Rack, typeString, "Rack of this broker."),
		row("listeners", "server.listen", strings.Join(listen, ","), typeList, "Addresses that are listened on."),
		row("advertised.listeners", "server.advertised", "PLAINTEXT://"+net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))), typeString, "Address that clients are told."),
		row("auto.create.topics.enable", "server.auto_create_topics", strconv.FormatBool(s.AutoCreateTopics), typeBool, "Topics come into being when clients ask for them."),
		row("num.partitions", "server.default_partitions", number(int64(s.DefaultPartitions)), typeInt, "Partitions of topics that do not say."),
		row("max.connections", "server.limits.connections", number(l.Connections), typeInt, "Connections at a time."),
		row("max.connections.per.ip", "server.limits.connections_per_ip", number(l.ConnectionsPerIP), typeInt, "Connections at a time from one address."),
		row("socket.request.max.bytes", "server.limits.request_bytes", number(int64(l.RequestBytes)), typeInt, "Largest request."),
		row("queued.max.request.bytes", "server.limits.inflight_bytes", number(int64(l.InflightBytes)), typeLong, "Requests in memory, all connections together."),
		row("connections.max.idle.ms", "server.limits.idle_timeout", number(l.IdleTimeout.Ms()), typeLong, "Connections without a request are closed after this time."),
		row(metadata.FetchMaxBytesPerSecond, "throttle.catchup_total", kafkaRate(cfg.Throttle.CatchupTotal), typeLong, "Cap on all cold reads together."),
		row(metadata.CopyMaxBytesPerSecond, "tiering.move_max", kafkaRate(cfg.Tiering.MoveMax), typeLong, "Cap on all migrations together."),
		row("offsets.topic.num.partitions", "groups.offsets_partitions", number(int64(g.OffsetsPartitions)), typeInt, "Partitions of __consumer_offsets when it is made."),
		row("offsets.retention.minutes", "groups.offsets_retention", number(g.OffsetsRetention.Ms()/60_000), typeInt, "Offsets of a group without members are kept for this time."),
		row("offset.metadata.max.bytes", "groups.offset_metadata", number(int64(g.OffsetMetadata)), typeInt, "Largest text with a committed offset."),
		row("group.initial.rebalance.delay.ms", "groups.initial_rebalance_delay", number(g.InitialRebalanceDelay.Ms()), typeInt, "A new group waits this long for more members."),
		row("group.min.session.timeout.ms", "groups.min_session_timeout", number(g.MinSessionTimeout.Ms()), typeInt, "Shortest session timeout that a member may have."),
		row("group.max.session.timeout.ms", "groups.max_session_timeout", number(g.MaxSessionTimeout.Ms()), typeInt, "Longest session timeout that a member may have."),
		row("transaction.state.log.num.partitions", "transactions.state_partitions", number(int64(cfg.Transactions.StatePartitions)), typeInt, "Partitions of __transaction_state when it is made."),
		row("transaction.max.timeout.ms", "transactions.max_timeout", number(cfg.Transactions.MaxTimeout.Ms()), typeInt, "Longest time that a client may keep a transaction open."),
		row("transactional.id.expiration.ms", "transactions.id_retention", number(cfg.Transactions.IDRetention.Ms()), typeInt, "A transactional id that nobody uses is kept for this time."),
		row("group.max.size", "groups.max_size", number(int64(g.MaxSize)), typeInt, "Members of one group."),
		row("group.consumer.session.timeout.ms", "groups.consumer_session_timeout", number(g.ConsumerSession.Ms()), typeInt, "Silent members of the consumer protocol are removed after this time."),
		row("group.consumer.heartbeat.interval.ms", "groups.consumer_heartbeat_interval", number(g.ConsumerHeartbeat.Ms()), typeInt, "How often members of the consumer protocol send heartbeats."),
		row("log.dirs", "storage.tier", strings.Join(dirs, ","), typeList, "Tiers, hot to cold."),
	}
}

// kafkaRate is a rate as KIP-956 writes it: no limit is the largest number.
func kafkaRate(r conf.Rate) string {
	if r == conf.Unlimited {
		return strconv.FormatInt(math.MaxInt64, 10)
	}
	return strconv.FormatInt(int64(r), 10)
}

// newLogger writes to w in the configured format. What it returns beside the logger changes how much of it is written.
func newLogger(w io.Writer, c conf.Log) (*slog.Logger, *logLevel) {
	level := &logLevel{configured: levelNamed(c.Level)}
	level.Set(level.configured)
	opt := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		opt.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr { // else a number of nanoseconds, of which nothing tells the unit
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		level.log = slog.New(slog.NewJSONHandler(w, opt))
	} else {
		level.log = slog.New(slog.NewTextHandler(w, opt))
	}
	return level.log, level
}
