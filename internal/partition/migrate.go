package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// tier is how the tiering package names a log directory.
func (d *logDir) tier() tiering.Tier {
	return tiering.Tier{Name: d.name, FS: d.spec.FS, Device: d.spec.Device.Name}
}

func (s *Store) newMigrator() (*tiering.Migrator, error) {
	tiers := make([]tiering.Tier, len(s.dirs))
	for i, d := range s.dirs {
		tiers[i] = d.tier()
	}
	return tiering.NewMigrator(tiering.Options{
		Tiers: tiers, Prepare: s.prepareMove, Logger: s.opt.Logger, Registerer: s.opt.Registerer,
		Events: tiering.Events{
			End: func(m tiering.Move, o tiering.Outcome) {
				if o.Err != nil {
					if l, ok := s.Log(m.Topic, m.Partition); ok {
						l.endMove(m.Base, m.From)
					}
					s.moveFailures.Add(1)
					return
				}
				s.movedSegments.Add(1)
				s.movedBytes.Add(m.SizeBytes)
				s.wakePlanner() // the next move may have become possible
			},
			Corrupt: func(m tiering.Move, c *segment.CorruptError) {
				l, _ := s.Log(m.Topic, m.Partition)
				s.corruption(l, c)
			},
		},
	})
}

// Migrator gives the admin API its hands on migrations.
func (s *Store) Migrator() *tiering.Migrator { return s.migrator }

// MoveTotals are what migrations did since the start.
type MoveTotals struct{ Segments, Bytes, Failures int64 }

// MoveTotals are what migrations did since the start.
func (s *Store) MoveTotals() MoveTotals {
	return MoveTotals{s.movedSegments.Load(), s.movedBytes.Load(), s.moveFailures.Load()}
}

// planLoop offers the migrator a new plan whenever something was sealed or configured, and every PlanInterval.
func (s *Store) planLoop() {
	t := time.NewTicker(s.opt.PlanInterval)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		case <-s.planNow:
		}
		if len(s.tiers) > 1 {
			s.migrator.Offer(tiering.Plan(s.tierSnapshot()))
		}
	}
}

// tierSnapshot is what the planner looks at. The directories of one tier count together.
func (s *Store) tierSnapshot() tiering.Snapshot {
	snap := tiering.Snapshot{NowMs: s.now().UnixMilli(), Horizon: s.opt.DemandHorizon}
	for rank, name := range s.tiers {
		snap.Tiers = append(snap.Tiers, s.tierState(rank, name))
	}
	byTopic, readers := map[string]int{}, s.demand()
	logs, q := s.Logs(), questions{}
	for _, l := range logs {
		l.askAges(q, snap.NowMs)
	}
	s.ask(q)
	for _, l := range logs {
		if l.Err() != nil {
			continue
		}
		i, ok := byTopic[l.topic]
		if !ok {
			cfg := l.config()
			policy, err := tiering.ParsePolicy(cfg.TierPolicy, s.tiers)
			if err != nil {
				l.log.Warn("tier policy not usable: the topic follows the server's", "err", err)
			}
			i = len(snap.Topics)
			byTopic[l.topic] = i
			retentionMs := cfg.RetentionMs
			if !cfg.Delete { // it deletes nothing then
				retentionMs = -1
			}
			snap.Topics = append(snap.Topics, tiering.TopicState{Name: l.topic, Policy: policy, RetentionMs: retentionMs,
				LocalRetentionMs: cfg.LocalRetentionMs, LocalRetentionBytes: cfg.LocalRetentionBytes})
		}
		part := l.tierState(snap.NowMs)
		if d := l.pinned(); d != nil {
			part.Pin, part.PinDir = d.spec.Tier, d.nth
		}
		part.Readers = readers[logKey{l.topic, l.partition}]
		snap.Topics[i].Partitions = append(snap.Topics[i].Partitions, part)
	}
	s.migrator.Mark(&snap)
	return snap
}

// maxDemand bounds the readers of one partition that the planner looks at. What it does not see it does not wait for.
const maxDemand = 128

// demand is who has yet to read what, by partition.
func (s *Store) demand() map[logKey][]tiering.ReaderState {
	s.readersMu.Lock()
	views := s.readers.Snapshot(s.now())
	s.readersMu.Unlock()
	out := map[logKey][]tiering.ReaderState{}
	for _, v := range views {
		k := logKey{v.Key.Topic, v.Key.Partition}
		if v.Position.AtEnd() || len(out[k]) >= maxDemand {
			continue
		}
		out[k] = append(out[k], tiering.ReaderState{Name: v.Key.Flow().String(), Offset: segment.Offset(v.Position.Offset),
			BytesPerSecond: v.BytesPerSecond, Active: v.Class.State != admission.Stalled && v.Class.State != admission.Stopped})
	}
	return out
}

func (s *Store) tierState(rank int, name string) tiering.TierState {
	st := tiering.TierState{Name: name, Device: s.sharedDevice(rank), Fenced: true}
	for _, d := range s.dirs {
		if d.rank != rank {
			continue
		}
		st.Dirs = append(st.Dirs, tiering.DirState{Name: d.name})
		if d.fenced() != nil {
			continue
		}
		st.Fenced = false
		st.Keep = d.spec.Keep
		st.CapBytes += d.spec.MaxUsedBytes
		st.UsedBytes += d.used.Load()
		u, err := d.spec.FS.Usage()
		if err != nil {
			continue
		}
		// Watermarks are shares of what the tier may have: its cap, or its share of the file system.
		capacity := d.used.Load() + u.FreeBytes
		if d.spec.MaxUsedBytes > 0 {
			capacity = min(capacity, d.spec.MaxUsedBytes)
		}
		high, low := int64(d.spec.High*float64(capacity)), int64(d.spec.Low*float64(capacity))
		st.HighBytes += high
		st.LowBytes += low
		st.Dirs[d.nth] = tiering.DirState{Name: d.name, UsedBytes: d.used.Load(), HighBytes: high, LowBytes: low}
	}
	if len(st.Dirs) == 1 {
		st.Dirs = nil
	}
	return st
}

// sharedDevice names the file system that a tier lies on, "" when its directories lie on several, or that is not known.
func (s *Store) sharedDevice(rank int) string {
	device := uint64(0)
	for _, d := range s.dirs {
		if d.rank != rank {
			continue
		}
		if d.device == 0 || device != 0 && d.device != device {
			return ""
		}
		device = d.device
	}
	return strconv.FormatUint(device, 16)
}

// askAges asks for what tierState lacks. The time of a file is asked for only where the records do not tell their age.
func (l *Log) askAges(q questions, nowMs int64) {
	if l.Err() != nil {
		return
	}
	for _, s := range l.view.Load().segs {
		if !s.r.Meta().Sealed {
			continue
		}
		if _, _, known := s.age(nowMs); !known {
			q[s.dir] = append(q[s.dir], func() { s.learnAge(nowMs) })
		}
	}
}

// tierState lists a log's segments for the planner. One whose age is not known yet stays where it is, and those behind it.
func (l *Log) tierState(nowMs int64) tiering.PartitionState {
	st := tiering.PartitionState{Partition: l.partition}
	v := l.view.Load()
	for i, s := range v.segs {
		if v.next(i) <= v.start || !s.r.Acquire() { // below the log start: retention is about to take it
			continue
		}
		m := s.r.Meta()
		ms, fileMs, known := m.MaxTimestampMs, int64(0), true
		if m.Sealed {
			if ms, fileMs, known = s.age(nowMs); !known {
				fileMs = nowMs
			}
		}
		s.r.Release()
		st.Segments = append(st.Segments, tiering.SegmentState{Base: s.base, SizeBytes: m.SizeBytes, Tier: s.dir.rank, Dir: s.dir.nth,
			MaxTimestampMs: ms, ModTimeMs: fileMs, Sealed: m.Sealed, Synced: m.Sealed && known && l.covered(v.next(i)) && !l.claimed(s.base)})
	}
	return st
}

var errNotCovered = errors.New("partition: no producer snapshot covers the segment yet")

// covered: a producer snapshot is at or above next, so that no start has to read what lies below.
func (l *Log) covered(next segment.Offset) bool { return int64(next) <= l.snapshotAt.Load() }

// prepareMove looks a planned move up and lends the migrator what it needs.
func (s *Store) prepareMove(ctx context.Context, m tiering.Move) (tiering.Job, tiering.Env, error) {
	l, ok := s.Log(m.Topic, m.Partition)
	if !ok {
		return tiering.Job{}, tiering.Env{}, tiering.ErrGone
	}
	v := l.view.Load()
	i := v.find(m.Base)
	if i < 0 || v.segs[i].base != m.Base || i+1 == len(v.segs) || v.segs[i].dir.spec.Tier != m.From {
		return tiering.Job{}, tiering.Env{}, tiering.ErrGone
	}
	if !l.covered(v.segs[i+1].base) {
		return tiering.Job{}, tiering.Env{}, errNotCovered
	}
	from := v.segs[i]
	if s.migrator.Hung(from.dir.name) {
		return tiering.Job{}, tiering.Env{}, fmt.Errorf("%w: %s", tiering.ErrHung, from.dir.name)
	}
	to, err := l.target(m.To)
	if err != nil {
		return tiering.Job{}, tiering.Env{}, err
	}
	if !l.beginMove(m.Base, m.From) {
		return tiering.Job{}, tiering.Env{}, fmt.Errorf("%w: it is being compacted", tiering.ErrGone)
	}
	to.names.note(l.dir)
	job := tiering.Job{Dir: l.dir, Base: m.Base, SizeBytes: from.r.Meta().SizeBytes, Next: v.segs[i+1].base,
		From: from.dir.tier(), To: to.tier(), Dense: !l.compact.begun.Load() && !l.config().Compact, EpochAt: l.epochs.EpochAt}
	return job, s.migrationEnv(ctx, l, from, to), nil
}

// target picks the directory of a tier that takes a segment: the one that the partition is pinned to, its home, or that
// with the most room. Errors: ErrFenced, tiering.ErrHung.
func (l *Log) target(tier string) (best *logDir, err error) {
	takes := func(d *logDir) bool {
		switch {
		case d.fenced() != nil:
			return false
		case l.store.migrator.Hung(d.name):
			err = fmt.Errorf("%w: %s", tiering.ErrHung, d.name)
			return false
		}
		return true
	}
	err = fmt.Errorf("%w: tier %s", ErrFenced, tier)
	for _, d := range []*logDir{l.pinned(), l.home} {
		if d != nil && d.spec.Tier == tier {
			if takes(d) {
				return d, nil
			}
			return nil, err
		}
	}
	most := int64(math.MinInt64)
	for _, d := range l.store.dirs {
		if d.spec.Tier != tier || !takes(d) {
			continue
		}
		u, err := d.spec.FS.Usage()
		if err != nil {
			continue
		}
		if room := d.room(u.FreeBytes); room > most {
			best, most = d, room
		}
	}
	if best != nil {
		return best, nil
	}
	return nil, err
}

func (s *Store) migrationEnv(ctx context.Context, l *Log, from *logSegment, to *logDir) tiering.Env {
	io := &workIO{store: s}
	dirs := map[string]*logDir{from.dir.name: from.dir, to.name: to}
	return tiering.Env{
		Open:      func(fsys vfs.FS, name string) (tiering.Reader, error) { return s.openBypass(ctx, fsys, name) },
		Gate:      deviceGate{store: s, log: l, flow: migrationFlow, from: from.dir, to: to, io: io},
		At:        func(tier string) { io.at(dirs[tier]) },
		WriteBack: func(f vfs.File, pos, n int64) { _ = s.opt.Cache.WriteBack(f, pos, n) }, // advice
		Drop:      func(f vfs.File, pos, n int64) { _, _ = s.opt.Cache.Evict(f, pos, n) },  // advice
		Publish:   func(_ context.Context, job tiering.Job) error { return l.publishMoved(from, to, job) },
		Retire: func(job tiering.Job, remove func() error) {
			size := job.SizeBytes
			from.pin.close()
			from.r.Retire(func() { // on the goroutine of the last reader, which must not wait for the device
				from.dir.used.Add(-size)
				s.wg.Go(func() {
					l.onFiles(func() {
						defer s.work(from.dir)()
						if err := remove(); err != nil {
							l.log.Warn("old copy of a migrated segment not removed: the next start removes it", "segment", job.Base, "err", err)
							return
						}
						l.endMove(job.Base, from.dir.spec.Tier)
					})
				})
			})
		},
	}
}

// publishMoved swaps the segment's reader in the view. The new copy is complete: its name was the commit point.
func (l *Log) publishMoved(from *logSegment, to *logDir, job tiering.Job) error {
	if l.home.journal != nil { // a replay must know that this segment was in its file: it would miss it
		if err := l.store.writeMarks(l.home); err != nil {
			return err
		}
	}
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	r, err := segment.OpenSealed(to.spec.FS, l.dir, segment.Sealed{Base: job.Base, Next: job.Next, SizeBytes: job.SizeBytes,
		NoAborted: !from.r.MayHaveAborted()}, l.store.files)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view.Load()
	i := v.find(job.Base)
	if l.closed || i < 0 || v.segs[i] != from {
		r.Retire(func() {})
		return tiering.ErrGone
	}
	segs := append([]*logSegment(nil), v.segs...)
	segs[i] = newLogSegment(r, to, from.base, from.before.Load())
	l.setViewLocked(segs, v.start)
	to.used.Add(job.SizeBytes)
	return nil
}

// deviceGate makes each transfer of background work (a migration, a compaction) wait for its turn at the device it touches, behind reads.
type deviceGate struct {
	store    *Store
	log      *Log
	flow     admission.Subject
	from, to *logDir
	io       *workIO
}

// migrationFlow is the migrations' subject at the schedulers. Client ids of that name share it; they gain nothing by it.
var migrationFlow = admission.Subject{Kind: admission.Client, Name: "lagoon-migration"}

// Step implements tiering.Gate: the slower of what the two devices do in a moment.
func (g deviceGate) Step() int64 { return min(g.from.moves.step(), g.to.moves.step()) }

// Wait implements tiering.Gate.
func (g deviceGate) Wait(ctx context.Context, t tiering.Transfer) (func(), error) {
	d := g.from
	if t.Tier == g.to.name {
		d = g.to
	}
	g.io.at(nil) // waiting is no I/O
	if err := d.fenced(); err != nil {
		return nil, err
	}
	if err := d.yield(ctx); err != nil {
		return nil, err
	}
	done, err := d.cold.hold(ctx, admission.Request{Kind: admission.KindMigration, Flow: g.flow, Topic: g.log.topic,
		Client: g.flow.Name, Bytes: t.Bytes, Position: t.Pos})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	g.io.at(d)
	return func() {
		g.io.at(nil)
		if t.Write {
			d.written.Add(t.Bytes)
		}
		d.moves.took(t.Bytes, time.Since(began))
		done()
	}, nil
}

// openBypass opens a file for reads that leave nothing in the page cache. They wait for memory until ctx ends.
func (s *Store) openBypass(ctx context.Context, fsys vfs.FS, name string) (tiering.Reader, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close() // read-only
		return nil, err
	}
	r := &bypassReader{store: s, src: cachectl.Source{Buffered: f, Size: size}}
	r.memory = func() (*cachectl.Buffer, error) { return s.opt.Pool.Get(ctx) }
	r.src.Direct = func() (vfs.File, error) {
		if r.direct == nil {
			d, err := fsys.Open(name, vfs.Direct)
			if err != nil {
				return nil, err
			}
			r.direct = d
		}
		return r.direct, nil
	}
	return r, nil
}

// bypassReader is an io.ReaderAt over cachectl.ReadBypass, for one goroutine.
type bypassReader struct {
	store  *Store
	src    cachectl.Source
	direct vfs.File
	memory func() (*cachectl.Buffer, error)
}

func (r *bypassReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= r.src.Size {
		return 0, io.EOF
	}
	// Given back before the next turn of the device is waited for: reads, which come first, may wait for it.
	buf, err := r.memory()
	if err != nil {
		return 0, err
	}
	defer buf.Release()
	done := 0
	for done < len(p) {
		want := min(int64(len(p)-done), r.store.chunkBytes())
		st, err := r.store.opt.Cache.ReadBypass(r.src, buf, off+int64(done), want)
		if err != nil {
			return done, err
		}
		if st.N == 0 {
			return done, io.EOF
		}
		done += copy(p[done:], buf.Bytes()[st.Off:st.Off+int(st.N)])
	}
	return done, nil
}

func (r *bypassReader) Close() error {
	if r.direct != nil {
		_ = r.direct.Close() // read-only
	}
	return r.src.Buffered.Close()
}
