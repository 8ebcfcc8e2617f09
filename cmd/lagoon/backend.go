package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/conf"
	"lagoon/internal/admin"
	"lagoon/internal/broker"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/tiering"
)

// backend answers the admin API's questions from the parts of the daemon. The plain fields are set before the first
// question. Safe for concurrent use.
type backend struct {
	config     *configuration
	reload     func(ctx context.Context, dry bool) (admin.ConfigReload, error)
	build      build
	started    time.Time
	cache      *cachectl.Cache
	pool       *cachectl.Pool
	meta       *metadata.Store
	store      *partition.Store
	tiers      map[string]tier // by name
	advertised []string
	server     atomic.Pointer[broker.Broker] // nil until clients are served
	state      atomic.Pointer[string]        // starting, ready, draining
	bound      atomic.Pointer[[]string]      // addresses as bound
	sampler    *sampler
	level      *logLevel
	recent     *recentLog
	overriding sync.Mutex // held while an override is set: what has expired is taken away by then
}

func (b *backend) setState(s string) { b.state.Store(&s) }

func (b *backend) stateNow() string {
	s := *b.state.Load()
	if s == "ready" && b.store.Fenced() != nil {
		return "fenced"
	}
	return s
}

// Status describes the process.
func (b *backend) Status(context.Context) (admin.Status, error) {
	snap, cfg, last := b.meta.Snapshot(), b.config.inForce.Load(), b.config.last.Load()
	st := admin.Status{
		Version: b.build.Version, Commit: b.build.Commit, GoVersion: runtime.Version(), PID: os.Getpid(),
		State: b.stateNow(), StartedAt: b.started, UptimeSeconds: time.Since(b.started).Seconds(),
		NodeID: cfg.Server.NodeID, ClusterID: snap.ClusterID, Advertised: b.advertised,
		Topics: len(snap.Topics), ConfigFile: cfg.File, ConfigDigest: cfg.Digest(), ConfigLoadedAt: last.at,
		Kernel: admin.Kernel{Release: kernelRelease(), Residency: b.sampler.lastMethod(), ReadModes: b.readModes()},
	}
	if p := b.bound.Load(); p != nil {
		st.Listeners = *p
	}
	if last.err != nil {
		st.ConfigError = last.err.Error()
	}
	for _, c := range last.pending {
		st.PendingRestart = append(st.PendingRestart, c.Key)
	}
	for _, l := range b.store.Logs() {
		st.Partitions++
		st.LogBytes += l.SizeBytes()
	}
	for _, r := range b.store.Readers() {
		switch r.Class.State {
		case admission.Realtime:
			st.Readers.Realtime++
		case admission.CatchingUp:
			st.Readers.CatchingUp++
		case admission.Lagging:
			st.Readers.Lagging++
		case admission.Stalled:
			st.Readers.Stalled++
		case admission.Stopped:
			st.Readers.Stopped++
		}
	}
	ps := b.pool.Stats()
	st.Pool = admin.Pool{TotalBytes: ps.CapacityBytes, UsedBytes: ps.InUseBytes, Waiting: int64(ps.Waiting)}
	return st, nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// readModes is the method that bypass reads of sealed segments use, by log directory.
func (b *backend) readModes() map[string]string {
	out := map[string]string{}
	for _, d := range b.store.Dirs() {
		out[d.Name] = string(b.methodOf(d.Name))
	}
	return out
}

// methodOf is the method of a log directory's file system, which several may share.
func (b *backend) methodOf(name string) cachectl.Method {
	for _, l := range b.cache.Ladders() {
		if l.Device == b.tiers[name].device {
			return l.Best()
		}
	}
	return cachectl.MethodBuffered
}

// Checks are the lines of readyz.
func (b *backend) Checks(context.Context) []admin.Check {
	var out []admin.Check
	p := b.store.Progress()
	recovery := admin.Check{Name: "log-recovery", OK: b.stateNow() != "starting", Severity: "error"}
	if !recovery.OK {
		recovery.Text = "partitions are being opened"
		recovery.Progress = &admin.Progress{Done: p.Done, Total: p.Partitions, Unit: "partitions"}
		if elapsed := time.Since(b.started).Seconds(); p.Done > 0 {
			recovery.Progress.ETASeconds = elapsed / float64(p.Done) * float64(p.Partitions-p.Done)
		}
	}
	out = append(out, recovery)
	tiers := admin.Check{Name: "tiers-writable", OK: true, Severity: "error"}
	if err := b.store.Fenced(); err != nil {
		tiers.OK, tiers.Text = false, err.Error()
	}
	out = append(out, tiers)
	for _, d := range b.store.Dirs() {
		if d.Full {
			what := "appends are refused"
			if d.Rank > 0 {
				what = "nothing is compacted there"
			}
			out = append(out, admin.Check{Name: "space-" + d.Name, Severity: "warn", Text: d.Path + " is below its free-space reserve: " + what})
		}
	}
	out = append(out, devicesCheck(b.store.Stalls()))
	offline := admin.Check{Name: "partitions-online", OK: true, Severity: "warn"}
	for _, l := range b.store.Logs() {
		if err := l.Err(); err != nil {
			offline.OK, offline.Text = false, err.Error()
			break
		}
	}
	out = append(out, offline)
	out = append(out, admin.Check{Name: "listener", OK: b.server.Load() != nil, Severity: "error"})
	out = append(out, admin.Check{Name: "drain", OK: b.stateNow() != "draining", Severity: "error"})
	out = append(out, b.sampler.check())
	if hot, on := b.store.HotWindows(); on {
		pins := admin.Check{Name: "hot-windows", OK: hot.Trouble == "", Severity: "warn",
			Text: fmt.Sprintf("%s pinned of %s planned, budget %s, %.0f s of tail", size(hot.Pinned), size(hot.Kept), size(hot.Budget), hot.Tail.Seconds())}
		if done, total, running := b.store.WarmProgress(); running {
			pins.Progress = &admin.Progress{Done: done, Total: total, Unit: "bytes"}
			pins.Text += ", warming tails"
		}
		if !pins.OK {
			pins.Text = "not pinned: " + hot.Trouble + "; give the process CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK"
		}
		out = append(out, pins)
	}
	return out
}

// devicesCheck fails while I/O does not come back. Only a warning: what lies elsewhere is served, and the device may answer again.
func devicesCheck(stalls []partition.Stall) admin.Check {
	c := admin.Check{Name: "devices-answer", OK: len(stalls) == 0, Severity: "warn"}
	var texts []string
	for _, s := range stalls {
		texts = append(texts, fmt.Sprintf("%s (%s): %s has not come back for %.0f s", s.Dir, s.Path, s.IO, s.For.Seconds()))
	}
	c.Text = strings.Join(texts, "; ")
	return c
}

// Topics lists topics with their partitions, by name.
func (b *backend) Topics(context.Context) ([]admin.Topic, error) {
	snap := b.meta.Snapshot()
	readers := map[[2]any]int{}
	for _, r := range b.store.Readers() {
		readers[[2]any{r.Key.Topic, r.Key.Partition}]++
	}
	out := make([]admin.Topic, 0, len(snap.Topics))
	for _, name := range snap.Names() {
		t, ok := snap.Topic(name)
		if !ok {
			continue
		}
		at := admin.Topic{Name: name, ID: base64.RawURLEncoding.EncodeToString(t.ID[:]), CreatedAt: time.UnixMilli(t.CreatedMs), Configs: t.OwnConfigs()}
		for i := range t.Partitions {
			l, ok := b.store.Log(name, i)
			if !ok {
				at.Partitions = append(at.Partitions, admin.Partition{Partition: i, Error: "being created or deleted"})
				continue
			}
			p := b.partition(l)
			p.Readers = readers[[2]any{name, i}]
			at.Bytes += p.Bytes
			at.ResidentBytes += p.ResidentBytes
			at.DirtyBytes += p.DirtyBytes
			at.WritebackBytes += p.WritebackBytes
			at.RefaultPages += p.RefaultPages
			at.Partitions = append(at.Partitions, p)
		}
		out = append(out, at)
	}
	return out, nil
}

func (b *backend) partition(l *partition.Log) admin.Partition {
	o := l.Offsets()
	p := admin.Partition{Partition: l.Partition(), StartOffset: int64(o.LogStart), EndOffset: int64(o.End), HighWatermark: int64(o.HighWatermark),
		LeaderEpoch: o.LeaderEpoch, TierBytes: map[string]int64{}}
	if err := l.Err(); err != nil {
		p.Error = err.Error()
		return p
	}
	for _, sv := range l.Segments() {
		p.Segments++
		p.Bytes += sv.SizeBytes
		p.TierBytes[sv.Tier] += sv.SizeBytes
		sample, _ := b.sampler.of(segmentKey{sv.Dir, sv.File})
		p.ResidentBytes += sample.grid.resident
		p.DirtyBytes += sample.grid.dirty
		p.WritebackBytes += sample.grid.writeback
		p.RefaultPages += sample.grid.refault
	}
	hot := l.HotWindow()
	p.HotWindowBytes, p.PinnedBytes, p.HotWindowSeconds = hot.Bytes, hot.Pinned, hot.Reach.Seconds()
	in := l.Totals()
	p.BytesIn, p.RecordsIn, p.BytesOut = in.BytesIn, in.RecordsIn, in.BytesOut
	return p
}

// Segments lists one partition's segments with their residency now.
func (b *backend) Segments(ctx context.Context, topic string, number int32) ([]admin.Segment, error) {
	l, err := b.log(topic, number)
	if err != nil {
		return nil, err
	}
	var out []admin.Segment
	for _, sv := range l.Segments() {
		if ctx.Err() != nil { // without cachestat each look may take a while
			return nil, ctx.Err()
		}
		s := admin.Segment{BaseOffset: int64(sv.Base), NextOffset: int64(sv.Next), File: sv.File, Tier: sv.Tier, State: "sealed", Bytes: sv.SizeBytes}
		if sv.Active || !sv.Sealed {
			s.State = "active"
		}
		if sv.MaxTimestampMs >= 0 {
			s.MaxTimestamp = time.UnixMilli(sv.MaxTimestampMs)
		}
		if sv.SizeBytes > 0 {
			if r, err := l.Residency(sv, 0, sv.SizeBytes); err == nil {
				s.ResidentBytes, s.DirtyBytes = pageBytes(r.Resident, sv.SizeBytes), pageBytes(r.Dirty, sv.SizeBytes)
			}
		}
		out = append(out, s)
	}
	for _, r := range b.store.Readers() {
		if r.Key.Topic != topic || r.Key.Partition != number {
			continue
		}
		i, found := slices.BinarySearchFunc(out, r.Position.Offset, func(s admin.Segment, off int64) int { return int(max(-1, min(1, s.BaseOffset-off))) })
		if !found {
			i--
		}
		if i < 0 || i >= len(out) {
			continue
		}
		if r.Behind {
			out[i].ReadersLagging = append(out[i].ReadersLagging, readerID(r))
		} else {
			out[i].ReadersRealtime = append(out[i].ReadersRealtime, readerID(r))
		}
	}
	return out, nil
}

// log finds a partition, or says which there are.
func (b *backend) log(topic string, number int32) (*partition.Log, error) {
	snap := b.meta.Snapshot()
	t, ok := snap.Topic(topic)
	if !ok {
		return nil, &admin.NotFoundError{What: "topic", Name: topic, Known: snap.Names()}
	}
	l, ok := b.store.Log(topic, number)
	if !ok || number >= t.Partitions {
		return nil, &admin.NotFoundError{What: "partition", Name: topic + "/" + itoa(int64(number))}
	}
	return l, nil
}

// Tiers describes each log directory.
func (b *backend) Tiers(context.Context) ([]admin.Tier, error) {
	snap := b.meta.Snapshot()
	var out []admin.Tier
	for _, d := range b.store.Dirs() {
		t := admin.Tier{Name: d.Name, Path: d.Path, UUID: snap.Tiers[d.Name], Class: b.tiers[d.Name].class, ClassFrom: b.tiers[d.Name].classFrom, State: "ok",
			SeekSeconds: b.tiers[d.Name].measured.Seek.Seconds(), SequentialBytes: int64(b.tiers[d.Name].measured.SequentialBytesPerSecond),
			CapacityBytes: d.TotalBytes, FreeBytes: d.UsableBytes, UsedBytes: d.UsedBytes, MaxUsedBytes: d.MaxUsedBytes,
			HighWatermark: d.High, LowWatermark: d.Low, KeepSeconds: d.Keep.Seconds(), Segments: d.Segments,
			ReadMode: string(b.methodOf(d.Name)), LimitBytes: d.Device.BytesPerSecond, ReadBytesTotal: d.Device.ReadBytes,
			WriteBytesTotal: d.WrittenBytes, QueuedReads: d.Device.Queued, ResidentBytes: b.sampler.residentOn(d.Name)}
		switch {
		case d.Err != nil:
			t.State, t.Error = "fenced", d.Err.Error()
		case d.Full:
			t.State = "full"
		}
		for _, m := range b.store.Migrator().Snapshot().Migrations {
			if m.Move.From == d.Tier && m.State == "queued" && len(t.NextToMove) < 10 {
				t.NextToMove = append(t.NextToMove, admin.MoveHint{Topic: m.Move.Topic, Partition: m.Move.Partition, Base: int64(m.Move.Base),
					Bytes: m.Move.SizeBytes, To: m.Move.To, Reason: m.Move.Reason})
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// Migrations lists running, waiting and recently ended migrations.
func (b *backend) Migrations(context.Context) (admin.Migrations, error) {
	st, moved := b.store.Migrator().Snapshot(), b.store.MoveTotals()
	out := admin.Migrations{State: "idle", PausedReason: st.PauseReason, LimitBytes: b.store.Limits().Config.MigrationBytesPerSecond, BacklogBytes: st.BacklogBytes,
		Waiting: st.Waiting, MovedBytes: moved.Bytes, Moved: moved.Segments, Failed: moved.Failures}
	for _, m := range st.Migrations {
		am := admin.Migration{ID: itoa(int64(m.ID)), Topic: m.Move.Topic, Partition: m.Move.Partition, BaseOffset: int64(m.Move.Base), From: m.Move.From,
			To: m.Move.To, State: string(m.State), Reason: m.Move.Reason, Bytes: m.Move.SizeBytes, DoneBytes: m.DoneBytes, ETASeconds: -1,
			StartedAt: m.Started, FinishedAt: m.Ended, Error: m.Error}
		if m.State == "running" {
			out.State = "running"
			am.State = string(m.Step)
		}
		if m.TotalBytes > 0 { // a migration reads and verifies: people want the share of the segment
			am.DoneBytes = int64(float64(m.DoneBytes) / float64(m.TotalBytes) * float64(am.Bytes))
		}
		if m.ETA > 0 {
			am.ETASeconds = m.ETA.Seconds()
		}
		out.Migrations = append(out.Migrations, am)
	}
	out.PutOff, out.PutOffBytes = st.PutOffCount, st.PutOffBytes
	for _, m := range st.PutOff {
		out.Migrations = append(out.Migrations, admin.Migration{Topic: m.Topic, Partition: m.Partition, BaseOffset: int64(m.Base), From: m.From, To: m.To,
			State: "put_off", Reason: m.Reason, Bytes: m.SizeBytes, ETASeconds: -1})
	}
	if st.Paused {
		out.State = "paused"
	}
	return out, nil
}

// StartMigration orders the move of one sealed segment.
func (b *backend) StartMigration(_ context.Context, o admin.MigrationOrder) (admin.Migration, error) {
	l, err := b.log(o.Topic, o.Partition)
	if err != nil {
		return admin.Migration{}, err
	}
	var tiers []string
	for _, d := range b.store.Dirs() {
		tiers = append(tiers, d.Tier)
	}
	if !slices.Contains(tiers, o.To) {
		return admin.Migration{}, &admin.NotFoundError{What: "tier", Name: o.To, Known: slices.Compact(tiers)}
	}
	for _, sv := range l.Segments() {
		switch {
		case int64(sv.Base) != o.BaseOffset:
			continue
		case sv.Active || !sv.Sealed:
			return admin.Migration{}, &admin.InvalidError{Detail: "the active segment is always in the hottest tier"}
		}
		id, err := b.store.Migrator().Submit(tiering.Move{Topic: o.Topic, Partition: o.Partition, Base: sv.Base, SizeBytes: sv.SizeBytes, From: sv.Tier, To: o.To, Reason: o.Reason})
		if err != nil {
			return admin.Migration{}, &admin.InvalidError{Detail: err.Error()}
		}
		return b.oneMigration(itoa(int64(id)))
	}
	return admin.Migration{}, &admin.NotFoundError{What: "segment", Name: fmt.Sprintf("%s/%d@%d", o.Topic, o.Partition, o.BaseOffset)}
}

// oneMigration finds a migration by its id.
func (b *backend) oneMigration(id string) (admin.Migration, error) {
	list, err := b.Migrations(context.Background())
	if err != nil {
		return admin.Migration{}, err
	}
	missing := &admin.NotFoundError{What: "migration", Name: id}
	for _, m := range list.Migrations {
		if m.ID == id {
			return m, nil
		}
		if m.ID != "" && m.FinishedAt.IsZero() {
			missing.Known = append(missing.Known, m.ID)
		}
	}
	return admin.Migration{}, missing
}

// CancelMigration cancels what waits or runs.
func (b *backend) CancelMigration(_ context.Context, id string) (admin.Migration, error) {
	m, err := b.oneMigration(id)
	if err != nil {
		return m, err
	}
	if n, err := strconv.ParseUint(id, 10, 64); err != nil || !b.store.Migrator().Cancel(n, "cancelled by an operator") {
		return m, &admin.InvalidError{Detail: "migration " + id + " neither waits nor runs"}
	}
	return m, nil
}

// PauseMigrations holds all migrations up.
func (b *backend) PauseMigrations(_ context.Context, reason string) error {
	b.store.Migrator().Pause(cmp.Or(reason, "by an operator"))
	return nil
}

// ResumeMigrations lets them go on.
func (b *backend) ResumeMigrations(context.Context) error {
	b.store.Migrator().Resume()
	return nil
}

// Pins lists the pinned partitions.
func (b *backend) Pins(context.Context) ([]admin.Pin, error) {
	var out []admin.Pin
	snap := b.meta.Snapshot()
	for _, name := range snap.Names() {
		t := snap.Topics[name]
		for _, p := range slices.Sorted(maps.Keys(t.Pins)) {
			out = append(out, b.pin(t, p))
		}
	}
	return out, nil
}

func (b *backend) pin(t *metadata.Topic, p int32) admin.Pin {
	out := admin.Pin{Topic: t.Name, Partition: p, Dir: t.Pins[p], State: "missing"}
	l, ok := b.store.Log(t.Name, p)
	if !ok {
		return out
	}
	v, _ := l.Pin()
	out.Tier, out.Path, out.Segments, out.Bytes, out.Reason = v.Tier, v.Path, v.Segments, v.Bytes, v.Waiting
	switch {
	case v.Tier == "":
	case v.Segments == 0:
		out.State = "in_place"
	case v.Waiting != "":
		out.State = "waiting"
	default:
		out.State = "moving"
	}
	return out
}

// Unpin takes a pin off.
func (b *backend) Unpin(ctx context.Context, topic string, partition int32) (admin.Unpinned, error) {
	server := b.server.Load()
	if server == nil {
		return admin.Unpinned{}, admin.ErrStarting
	}
	var out admin.Unpinned
	if t, ok := b.meta.Snapshot().Topic(topic); ok {
		out.Pin = b.pin(t, partition)
	}
	had, err := server.Unpin(ctx, topic, partition)
	if err != nil {
		return out, err
	}
	if !had {
		e := &admin.NotFoundError{What: "pin", Name: fmt.Sprintf("%s/%d", topic, partition)}
		pins, _ := b.Pins(ctx)
		for _, p := range pins {
			e.Known = append(e.Known, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
		}
		return out, e
	}
	out.PolicyBytes = b.store.Unpinned(topic, partition)
	return out, nil
}

// Compactions lists the partitions of compacted topics.
func (b *backend) Compactions(context.Context) (admin.Compactions, error) {
	out := admin.Compactions{State: "idle"}
	for _, v := range b.store.Compactions() {
		w, last := v.Work, v.Last
		c := admin.Compaction{Topic: w.Topic, Partition: w.Partition, State: "waiting", Reason: w.Why, CleanedTo: int64(w.From), CleanableTo: int64(w.To),
			CleanBytes: w.Clean, DirtyBytes: w.Dirty, DirtyRatio: w.Ratio, OverdueSeconds: float64(w.OverdueMs) / 1000, FinishedAt: last.At,
			ElapsedSeconds: last.Elapsed.Seconds(), ReadBytes: last.BytesRead, KeptBytes: last.BytesKept, ReadRecords: last.Records, KeptRecords: last.Kept,
			RecordsWithoutKey: last.WithoutKey, UnreadableBatches: last.Malformed}
		if w.Due {
			c.State = "due"
			out.Due++
		}
		if last.Err != nil {
			c.State, c.Error = "failed", last.Err.Error()
		}
		if v.Run != nil {
			out.State, c.State = "running", "keys"
			if v.Run.Rewriting {
				c.State = "rewrite"
			}
			c.StartedAt, c.DoneBytes, c.TotalBytes = v.Run.Started, v.Run.DoneBytes, v.Run.TotalBytes
		}
		out.Partitions = append(out.Partitions, c)
	}
	return out, nil
}

// Config lists the effective configuration.
func (b *backend) Config(context.Context) (admin.Config, error) {
	cfg := b.config.inForce.Load()
	return admin.Config{File: cfg.File, Digest: cfg.Digest(), Values: configValues(cfg), PendingRestart: configChanges(b.config.last.Load().pending)}, nil
}

func configValues(cfg *conf.Config) (out []admin.ConfigValue) {
	for _, v := range cfg.Values() {
		out = append(out, admin.ConfigValue{Key: v.Key, Value: v.Value, Default: v.Default, Source: v.Source, NeedsRestart: !conf.Below(v.Key, liveKeys)})
	}
	return out
}
