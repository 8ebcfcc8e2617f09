package admintest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"lagoon/internal/admin"
)

// Now is the time at which the fake's world stands still.
var Now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// Fake is an admin.Backend. Err, when set, answers every call that can fail; Hook, when set, runs at the start of every call.
// Fields are set before the server starts.
type Fake struct {
	Err       error
	Hook      func(call string)
	CheckList []admin.Check

	mu        sync.Mutex
	mutations []string
	overrides []admin.Override
}

var _ admin.Backend = (*Fake)(nil)

// New makes a Fake that is ready.
func New() *Fake {
	return &Fake{
		CheckList: []admin.Check{
			{Name: "log-recovery", OK: true, Severity: "error", Text: "12 partitions"},
			{Name: "tiers-writable", OK: true, Severity: "error"},
			{Name: "cachestat", OK: false, Severity: "warn", Text: "mincore is used instead"},
		},
		overrides: []admin.Override{{
			Kind: admin.OverrideGroup, Name: "warehouse", BytesPerSecond: 20 << 20, Expires: Now.Add(time.Hour), Reason: "night load", SetAt: Now,
		}},
	}
}

// Mutations lists what changed something, in order.
func (f *Fake) Mutations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mutations)
}

func (f *Fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mutations = append(f.mutations, fmt.Sprintf(format, args...))
}

func (f *Fake) begin(call string) error {
	if f.Hook != nil {
		f.Hook(call)
	}
	return f.Err
}

// Status implements admin.Backend.
func (f *Fake) Status(context.Context) (admin.Status, error) {
	return admin.Status{
		Version: "v0.1.0", Commit: "abc1234", GoVersion: "go1.26", PID: 4711, State: "ready", StartedAt: Now.Add(-26 * time.Hour), UptimeSeconds: 93600,
		NodeID: 1, ClusterID: "Zm9vYmFyYmF6cXV4MTIzNA", Listeners: []string{"127.0.0.1:9092"}, Advertised: []string{"localhost:9092"},
		Topics: 1, Partitions: 2, LogBytes: 5 << 30, Readers: admin.ReaderCounts{Realtime: 1, Lagging: 1},
		Kernel: admin.Kernel{Release: "6.18.0", Residency: "cachestat", ReadModes: map[string]string{"ssd": "direct", "hdd": "dontcache"}},
		Pool:   admin.Pool{TotalBytes: 64 << 20, UsedBytes: 4 << 20}, ConfigFile: "/etc/lagoon/lagoon.toml", ConfigDigest: "0123456789ab",
		ConfigLoadedAt: Now.Add(-26 * time.Hour), PendingRestart: []string{"server.listen"},
	}, f.begin("Status")
}

// Checks implements admin.Backend.
func (f *Fake) Checks(context.Context) []admin.Check {
	if f.Hook != nil {
		f.Hook("Checks")
	}
	return slices.Clone(f.CheckList)
}

// Topics implements admin.Backend.
func (f *Fake) Topics(context.Context) ([]admin.Topic, error) {
	parts := []admin.Partition{
		{Partition: 0, StartOffset: 0, EndOffset: 1200, HighWatermark: 1200, Segments: 1, Bytes: 1 << 30, TierBytes: map[string]int64{"ssd": 1 << 30}, ResidentBytes: 1 << 30,
			HotWindowBytes: 256 << 20, BytesIn: 1 << 30, BytesOut: 2 << 30, RecordsIn: 1200},
		{Partition: 3, StartOffset: 40000, EndOffset: 41200211, HighWatermark: 41200211, LeaderEpoch: 2, Segments: 8, Bytes: 4 << 30,
			TierBytes: map[string]int64{"ssd": 1 << 30, "hdd": 3 << 30}, ResidentBytes: 2 << 30, Readers: 2,
			HotWindowBytes: 256 << 20, BytesIn: 4 << 30, BytesOut: 9 << 30, RecordsIn: 41160211},
	}
	return []admin.Topic{{
		Name: "orders", ID: "AAAAAAAAQACAAAAAAAAAAQ", CreatedAt: Now.Add(-48 * time.Hour), Bytes: 5 << 30, ResidentBytes: 3 << 30,
		Configs: map[string]string{"retention.ms": "86400000"}, Partitions: parts,
	}}, f.begin("Topics")
}

// Segments implements admin.Backend.
func (f *Fake) Segments(_ context.Context, topic string, partition int32) ([]admin.Segment, error) {
	dir := fmt.Sprintf("%s-%d/", topic, partition)
	return []admin.Segment{
		{BaseOffset: 40000, NextOffset: 41000000, File: dir + "00000000000000040000.log", Tier: "hdd", State: "sealed", Bytes: 3 << 30,
			MaxTimestamp: Now.Add(-8 * time.Hour), ReadersLagging: []string{"r-17"}},
		{BaseOffset: 41000000, NextOffset: 41200211, File: dir + "00000000000041000000.log", Tier: "ssd", State: "active", Bytes: 1 << 30, ResidentBytes: 1 << 30,
			DirtyBytes: 1 << 20, MaxTimestamp: Now, ReadersRealtime: []string{"r-2"}},
	}, f.begin("Segments")
}

// Cache implements admin.Backend.
func (f *Fake) Cache(_ context.Context, q admin.CacheQuery) (admin.Cache, error) {
	if err := f.begin("Cache"); err != nil {
		return admin.Cache{}, err
	}
	if q.Topic != "" && q.Topic != "orders" {
		return admin.Cache{}, &admin.NotFoundError{What: "topic", Name: q.Topic, Known: []string{"orders"}}
	}
	cells := make([]byte, q.Cells)
	for i := range cells { // cold, then a ramp, then hot
		cells[i] = byte(min(255, max(0, (i*8/q.Cells-4)*85)))
	}
	flags := make([]byte, q.Cells)
	flags[q.Cells/2] = admin.CellRefault
	flags[q.Cells-1] = admin.CellDirty | admin.CellWriteback
	row := admin.CacheRow{
		CacheFigures: admin.CacheFigures{Topic: "orders", Partition: 3, StartOffset: 40000, EndOffset: 41200211, Bytes: 4 << 30,
			CellBytes: (4 << 30) / int64(q.Cells), ResidentBytes: 2 << 30, DirtyBytes: 4 << 20, WritebackBytes: 1 << 20, RefaultPages: 12},
		SampledAt: Now, Cells: cells, Flags: flags,
		Tiers: []admin.TierSpan{{First: 0, Next: q.Cells * 3 / 4, Tier: "hdd"}, {First: q.Cells * 3 / 4, Next: q.Cells, Tier: "ssd"}},
		Markers: []admin.CacheMarker{
			{Reader: "r-17", Name: "warehouse", Cell: q.Cells / 4, Class: "lagging", LagSeconds: 752},
			{Reader: "r-2", Name: "fraud-1", Cell: q.Cells - 1, Class: "realtime"},
		},
	}
	if q.Partition == 3 {
		row.Segments = []admin.CacheSegment{
			{File: "00000000000000040000.log", Tier: "hdd", Bytes: 3 << 30, Cells: make([]byte, 16), Markers: []string{"r-17"}},
			{File: "00000000000041000000.log", Tier: "ssd", Bytes: 1 << 30, ResidentBytes: 1 << 30,
				Cells: slices.Repeat([]byte{255}, 16), Markers: []string{"r-2"}},
		}
	}
	return admin.Cache{SampledAt: Now, Method: "cachestat", Rows: []admin.CacheRow{row}}, nil
}

// Readers implements admin.Backend.
func (f *Fake) Readers(context.Context) ([]admin.Reader, error) {
	return []admin.Reader{
		{ID: "r-2", ClientID: "fraud-1", GroupSource: "none", Peer: "10.0.0.4:40000", Topic: "orders", Partition: 3, Class: "realtime",
			ClassReason: "at the end", ClassSince: Now.Add(-time.Hour), FetchOffset: 41200211, EndOffset: 41200211, Tier: "ssd", Lane: "hot", IOMode: "sendfile",
			RateBytes: 21 << 20, Sources: admin.SourceBytes{PageCache: 1260 << 20, Tiers: map[string]int64{}}},
		{ID: "r-17", ClientID: "wh-loader", Group: "warehouse", GroupSource: "assignment", Peer: "10.0.0.7:51522", Topic: "orders", Partition: 3, Class: "lagging",
			ClassReason: "9.1 GiB behind > min_bytes 256 MiB", ClassSince: Now.Add(-12 * time.Minute), FetchOffset: 40112345, EndOffset: 41200211, LagRecords: 1087866,
			LagBytes: 9771212800, LagSeconds: 752, ETASeconds: 610, Tier: "hdd", Lane: "bypass", IOMode: "dontcache", RateBytes: 16 << 20,
			Sources: admin.SourceBytes{Tiers: map[string]int64{"hdd": 960 << 20}}, ColdBytes: 960 << 20,
			Throttle: admin.ReaderThrottle{LimitedBy: "tier:hdd", LimitBytes: 16 << 20, WaitRatio: 0.42, NextGrantSeconds: 0.08, Override: "group/warehouse"}},
	}, f.begin("Readers")
}

// Tiers implements admin.Backend.
func (f *Fake) Tiers(context.Context) ([]admin.Tier, error) {
	return []admin.Tier{
		{Name: "ssd", Path: "/srv/lagoon/ssd", UUID: "u1", Class: "ssd", ClassFrom: "measured", SeekSeconds: 90e-6, SequentialBytes: 1900 << 20, State: "ok", CapacityBytes: 100 << 30, FreeBytes: 40 << 30, UsedBytes: 50 << 30,
			MaxUsedBytes: 95 << 30, HighWatermark: 0.85, LowWatermark: 0.75, KeepSeconds: 21600, Segments: 90, ResidentBytes: 3 << 30, ReadMode: "direct",
			NextToMove: []admin.MoveHint{{Topic: "orders", Partition: 3, Base: 40000, Bytes: 512 << 20, To: "hdd", Reason: "older than keep 6h"}}},
		{Name: "hdd", Path: "/srv/lagoon/hdd", UUID: "u2", Class: "hdd", ClassFrom: "configured", State: "ok", CapacityBytes: 2000 << 30, FreeBytes: 1500 << 30, UsedBytes: 400 << 30,
			MaxUsedBytes: 1900 << 30, HighWatermark: 0.9, LowWatermark: 0.8, Segments: 800, ReadMode: "dontcache", LimitBytes: 120 << 20, ReadBytesTotal: 7 << 30,
			QueuedReads: 2},
	}, f.begin("Tiers")
}

// Throttle implements admin.Backend.
func (f *Fake) Throttle(context.Context) (admin.Throttle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return admin.Throttle{
		Mode: "adaptive", TotalBytes: 200 << 20, PerReaderBytes: 80 << 20,
		Devices: []admin.Device{{Tier: "hdd", LimitBytes: 120 << 20, TokensBytes: 1 << 20, GrantedBytes: 7 << 30, InFlight: 1, Queued: 2, UsedBytes: 118 << 20,
			State: "reduced", Reason: "produce p99 41 ms against 8.0 ms undisturbed: budget 240 MiB/s → 120 MiB/s",
			Signals: []admin.Signal{{Signal: "produce", Unit: "seconds", Undisturbed: ptr(0.008), Limit: ptr(0.0088), Measured: 0.041, Cuts: 1}}}},
		Flows:     []admin.Flow{{Name: "warehouse", Weight: 1, GrantedBytes: 6 << 30, RateBytes: 16 << 20, WaitSeconds: 93.5, WaitBy: map[string]float64{"tier": 90, "reader": 3.5}, Queued: 1, LimitedBy: "tier:hdd"}},
		Overrides: slices.Clone(f.overrides),
	}, f.begin("Throttle")
}

// SetOverride implements admin.Backend.
func (f *Fake) SetOverride(_ context.Context, o admin.Override) error {
	f.note("set %s/%s %d weight %g expires %v %q", o.Kind, o.Name, o.BytesPerSecond, o.Weight, !o.Expires.IsZero(), o.Reason)
	return f.begin("SetOverride")
}

// DeleteOverride implements admin.Backend.
func (f *Fake) DeleteOverride(_ context.Context, kind admin.OverrideKind, name string) error {
	f.mu.Lock()
	known := []string{}
	found := false
	for _, o := range f.overrides {
		known = append(known, o.Name)
		found = found || o.Kind == kind && o.Name == name
	}
	f.mu.Unlock()
	if !found {
		return &admin.NotFoundError{What: "override", Name: name, Known: known}
	}
	f.note("delete %s/%s", kind, name)
	return f.begin("DeleteOverride")
}

// Migrations implements admin.Backend.
func (f *Fake) Migrations(context.Context) (admin.Migrations, error) {
	return admin.Migrations{
		State: "running", LimitBytes: 100 << 20, BacklogBytes: 2 << 30, Waiting: 4, MovedBytes: 40 << 30, Moved: 80, Failed: 1,
		Migrations: []admin.Migration{
			{ID: "m-81", Topic: "orders", Partition: 3, BaseOffset: 40000, From: "ssd", To: "hdd", State: "copy", Reason: "older than keep 6h", Bytes: 512 << 20,
				DoneBytes: 128 << 20, ETASeconds: 4, StartedAt: Now.Add(-2 * time.Second)},
			{ID: "m-80", Topic: "orders", Partition: 0, BaseOffset: 0, From: "ssd", To: "hdd", State: "failed", Reason: "above high watermark", Bytes: 1 << 30,
				ETASeconds: -1, StartedAt: Now.Add(-time.Minute), FinishedAt: Now.Add(-30 * time.Second), Error: "no space left on device"},
		},
	}, f.begin("Migrations")
}

// StartMigration implements admin.Backend.
func (f *Fake) StartMigration(_ context.Context, o admin.MigrationOrder) (admin.Migration, error) {
	if o.To != "hdd" {
		return admin.Migration{}, &admin.NotFoundError{What: "tier", Name: o.To, Known: []string{"ssd", "hdd"}}
	}
	f.note("move %s/%d@%d to %s %q", o.Topic, o.Partition, o.BaseOffset, o.To, o.Reason)
	return admin.Migration{ID: "m-82", Topic: o.Topic, Partition: o.Partition, BaseOffset: o.BaseOffset, From: "ssd", To: o.To, State: "queued", Reason: o.Reason,
		Bytes: 512 << 20, ETASeconds: -1}, f.begin("StartMigration")
}

// CancelMigration implements admin.Backend.
func (f *Fake) CancelMigration(_ context.Context, id string) (admin.Migration, error) {
	list, _ := f.Migrations(context.Background())
	running := list.Migrations[0]
	if id != running.ID {
		return admin.Migration{}, &admin.NotFoundError{What: "migration", Name: id, Known: []string{running.ID}}
	}
	f.note("cancel %s", id)
	return running, f.begin("CancelMigration")
}

// PauseMigrations implements admin.Backend.
func (f *Fake) PauseMigrations(_ context.Context, reason string) error {
	f.note("pause migrations %q", reason)
	return f.begin("PauseMigrations")
}

// ResumeMigrations implements admin.Backend.
func (f *Fake) ResumeMigrations(context.Context) error {
	f.note("resume migrations")
	return f.begin("ResumeMigrations")
}

// Groups implements admin.Backend.
func (f *Fake) Groups(context.Context) ([]admin.Group, error) {
	return []admin.Group{{Group: "warehouse", Type: "consumer", State: "Stable", ProtocolType: "consumer", Members: 1, LagRecords: 1087866, LagBytes: 9771212800,
		LagSeconds: 752, ETASeconds: 610, Partitions: []admin.GroupPartition{{Topic: "orders", Partition: 3, CommittedOffset: 40112345, EndOffset: 41200211,
			LagRecords: 1087866, LagBytes: 9771212800, LagSeconds: 752, ETASeconds: 610, ClientID: "wh-loader", Host: "/10.0.0.7"}}}}, f.begin("Groups")
}

// Pins implements admin.Backend.
func (f *Fake) Pins(context.Context) ([]admin.Pin, error) {
	return []admin.Pin{
		{Topic: "orders", Partition: 3, Dir: "hdd", Tier: "hdd", Path: "/srv/lagoon/hdd", State: "moving", Segments: 2, Bytes: 1 << 30},
		{Topic: "prices", Partition: 0, Dir: "ssd", Tier: "ssd", Path: "/srv/lagoon/ssd", State: "waiting", Segments: 1, Bytes: 512 << 20,
			Reason: "partition is pinned to ssd; put off: ssd holds 75 GiB and has no room"},
	}, f.begin("Pins")
}

// Unpin implements admin.Backend.
func (f *Fake) Unpin(_ context.Context, topic string, partition int32) (admin.Unpinned, error) {
	pins, _ := f.Pins(context.Background())
	e := &admin.NotFoundError{What: "pin", Name: fmt.Sprintf("%s/%d", topic, partition)}
	for _, p := range pins {
		if p.Topic == topic && p.Partition == partition {
			f.note("unpin %s/%d", topic, partition)
			return admin.Unpinned{Pin: p, PolicyBytes: map[string]int64{"hdd": 3 << 30, "ssd": 512 << 20}}, f.begin("Unpin")
		}
		e.Known = append(e.Known, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
	}
	return admin.Unpinned{}, e
}

// Compactions implements admin.Backend.
func (f *Fake) Compactions(context.Context) (admin.Compactions, error) {
	return admin.Compactions{State: "running", Due: 1, Partitions: []admin.Compaction{
		{Topic: "profiles", State: "rewrite", Reason: "the dirty ratio is above min.cleanable.dirty.ratio", CleanedTo: 1000, CleanableTo: 9000, CleanBytes: 1 << 30,
			DirtyBytes: 3 << 30, DirtyRatio: 0.75, StartedAt: Now.Add(-time.Minute), DoneBytes: 1 << 30, TotalBytes: 7 << 30},
		{Topic: "profiles", Partition: 1, State: "failed", Reason: "the dirty ratio is not above min.cleanable.dirty.ratio", CleanedTo: 500, CleanableTo: 600,
			CleanBytes: 1 << 30, DirtyBytes: 1 << 20, FinishedAt: Now.Add(-time.Hour), ElapsedSeconds: 12, ReadBytes: 2 << 30, KeptBytes: 1 << 30,
			ReadRecords: 2_000_000, KeptRecords: 1_000_000, Error: "no space left on device"},
	}}, f.begin("Compactions")
}

// ExplainFetch implements admin.Backend.
func (f *Fake) ExplainFetch(_ context.Context, q admin.ExplainQuery) (admin.Explanation, error) {
	return admin.Explanation{
		Now: Now, Query: q,
		Steps: []admin.ExplainStep{
			{Step: "position", Text: fmt.Sprintf("offset %d, 9.1 GiB and 12m32s behind the end", q.Offset), Facts: map[string]any{"behind_bytes": 9771212800}},
			{Step: "segment", Text: "00000000000000040000.log, sealed, byte 1048576", Facts: map[string]any{"pos_bytes": 1 << 20}},
			{Step: "tier", Text: "hdd"},
			{Step: "class", Text: "lagging: 9.1 GiB behind > min_bytes 256 MiB"},
			{Step: "residency", Text: "0 of 256 pages resident (cachestat)"},
			{Step: "lane", Text: "bypass: not resident, lagging reader"},
			{Step: "method", Text: "dontcache, the first rung of the ladder that works here"},
			{Step: "budget", Text: "held back by tier:hdd, 120 MiB/s, next in 80ms"},
			{Step: "cost", Text: "one device read of 1 MiB"},
		},
		Lane: "bypass", Reason: "lagging_not_resident", IOMode: "dontcache", Bytes: q.MaxBytes, Expect: "one device read of 1 MiB", WaitSec: 0.08,
	}, f.begin("ExplainFetch")
}

func (f *Fake) act(verb string, q admin.CacheAction) (admin.CacheActionResult, error) {
	if err := f.begin(verb); err != nil {
		return admin.CacheActionResult{}, err
	}
	if q.Topic != "orders" {
		return admin.CacheActionResult{}, &admin.NotFoundError{What: "topic", Name: q.Topic, Known: []string{"orders"}}
	}
	r := admin.CacheActionResult{Segments: 2, Bytes: 4 << 30, ResidentBefore: 1 << 30, ResidentAfter: 1 << 30, KeptHot: 256 << 20}
	if q.DryRun {
		r.WouldChange = []string{verb + " 00000000000000040000.log [40000, 41000000)"}
		return r, nil
	}
	f.note("%s %s/%d [%d, %d) last %gs %q", verb, q.Topic, q.Partition, q.From, q.To, q.LastSeconds, q.Reason)
	r.Applied, r.ResidentAfter = true, 256<<20
	return r, nil
}

// Evict implements admin.Backend.
func (f *Fake) Evict(_ context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return f.act("evict", q)
}

// Warm implements admin.Backend.
func (f *Fake) Warm(_ context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return f.act("warm", q)
}

// Config implements admin.Backend.
func (f *Fake) Config(context.Context) (admin.Config, error) {
	return admin.Config{File: "/etc/lagoon/lagoon.toml", Digest: "0123456789ab", Values: []admin.ConfigValue{
		{Key: "storage.segment_bytes", Value: `"64MiB"`, Default: `"512MiB"`, Source: "lagoon.toml:12", NeedsRestart: true},
	}}, f.begin("Config")
}

// ReloadConfig implements admin.Backend.
func (f *Fake) ReloadConfig(_ context.Context, dry bool) (admin.ConfigReload, error) {
	out := admin.ConfigReload{Applied: !dry, Digest: "ba9876543210",
		Changed:        []admin.ConfigChange{{Key: "throttle.catchup_total", From: `"unlimited"`, To: `"200MiB/s"`, Source: "lagoon.toml:12"}},
		PendingRestart: []admin.ConfigChange{{Key: "server.listen", From: `["127.0.0.1:9092"]`, To: `["0.0.0.0:9092"]`, Source: "lagoon.toml:3"}}}
	if !dry {
		f.note("reload config")
	}
	return out, f.begin("ReloadConfig")
}

// LogLevel implements admin.Backend.
func (f *Fake) LogLevel(context.Context) (admin.LogLevel, error) {
	return admin.LogLevel{Level: "debug", Configured: "info", Until: Now.Add(10 * time.Minute), Reason: "slow fetches"}, f.begin("LogLevel")
}

// SetLogLevel implements admin.Backend.
func (f *Fake) SetLogLevel(_ context.Context, o admin.LogLevelOrder) (admin.LogLevel, error) {
	f.note("log level %s for %v %q", o.Level, o.TTL, o.Reason)
	out := admin.LogLevel{Level: o.Level, Configured: "info", Reason: o.Reason}
	if o.TTL > 0 {
		out.Until = Now.Add(o.TTL)
	}
	return out, f.begin("SetLogLevel")
}

// DebugParts implements admin.Backend.
func (f *Fake) DebugParts() []admin.DebugPart {
	return []admin.DebugPart{{Name: "log.txt", Write: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "level=INFO msg=ready\n")
		return err
	}}}
}

func ptr(f float64) *float64 { return &f }
