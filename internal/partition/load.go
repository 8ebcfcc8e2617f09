package partition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lagoon/admission"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// lockFile keeps a second broker out of a log directory (Kafka's name, so that a running Kafka is kept out too).
const lockFile = ".lock"

// loadParallel is how many partitions are recovered at a time: enough to keep an SSD busy, few enough for a disk.
const loadParallel = 8

// TopicSpec names a topic's partitions to load or create at start.
type TopicSpec struct {
	Topic      string
	ID         [16]byte
	Partitions int32
	Config     Config
}

// recovery is what the directories said before anything was opened.
type recovery struct {
	clean map[*logDir]bool

	partitions, done      atomic.Int64
	scannedBytes, cutTail atomic.Int64
}

// Progress is how far Load is.
type Progress struct {
	Partitions, Done int64
	ScannedBytes     int64 // read because a stop was not clean
	CutBytes         int64 // torn tails removed
}

// Open claims and locks every log directory and reads their checkpoints. No partition is served until Load or Create.
// Errors name the directory and the remedy: vfs.ErrLocked, tiering.ErrTierMissing, tiering.ErrTierForeign.
func Open(opt Options) (_ *Store, err error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	s := &Store{opt: opt, limitsMu: &sync.Mutex{}, logs: map[logKey]*Log{}, corrupt: map[string]bool{}, checkpoints: map[*logDir]*checkpoints{}, planNow: make(chan struct{}, 1), compactor: compactor{look: make(chan struct{}, 1)}}
	s.opened, s.began = opt.Now(), time.Now()
	s.durableWaiters.New = newDurableWaiter
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.metrics = newMetrics(opt.Registerer)
	s.hot = newHotWindows(opt)
	if s.limits, err = admission.NewLimits(opt.Limits, opt.Now()); err != nil {
		return nil, err
	}
	s.races = admission.NewRaces(s.limits, opt.RetentionRace)
	if opt.Registerer != nil {
		opt.Registerer.MustRegister(raceCollector{s})
	}
	for _, c := range opt.Caps {
		if err := s.limits.Configure(c.Subject, c.Cap); err != nil {
			opt.Logger.Warn("configured cap dropped", "kind", c.Kind.String(), "name", c.Name, "err", err)
		}
	}
	for _, o := range opt.Overrides {
		if err := s.limits.SetOverride(o, opt.Now()); err != nil {
			opt.Logger.Warn("throttle override dropped", "kind", o.Kind.String(), "name", o.Name, "err", err)
		}
	}
	if s.readers, err = admission.NewReaders(opt.Readers); err != nil {
		return nil, err
	}
	s.files = segment.NewFileCache(segment.FileCacheOptions{
		MaxOpenFiles: opt.MaxOpenFiles, MaxIndexBytes: opt.MaxIndexBytes,
		OnCorrupt: func(c *segment.CorruptError) { s.corruption(nil, c) },
	})
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	s.recovered = recovery{clean: map[*logDir]bool{}}
	for i, spec := range opt.Dirs {
		if err := s.openDir(i, spec); err != nil {
			return nil, err
		}
	}
	if s.missing = s.notConfigured(); len(s.missing) > 0 {
		opt.Logger.Error("directories of this cluster are not configured: partitions that need them stay offline, others go on without what lies there",
			"dirs", s.missing)
	}
	s.newGates()
	if opt.Registerer != nil {
		opt.Registerer.MustRegister(gateCollector{s}, stallCollector{s}, tierCollector{s})
	}
	if s.migrator, err = s.newMigrator(); err != nil {
		return nil, err
	}
	if opt.Adaptive != nil {
		if s.budgets, err = newBudgets(s, *opt.Adaptive); err != nil {
			return nil, err
		}
		if opt.Registerer != nil {
			opt.Registerer.MustRegister(budgetCollector{s.budgets})
		}
	}
	return s, nil
}

// notConfigured lists the directories that the catalogue knows and nobody has opened.
func (s *Store) notConfigured() (names []string) {
	for name := range s.opt.KnownTiers {
		if s.dirNamed(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// abandon lets go of what Open had taken.
func (s *Store) abandon() {
	s.stop()
	for _, d := range s.dirs {
		d.cold.close()
		if d.commit != nil {
			d.commit.close()
		}
		_ = s.closeJournal(d, false) // nor in the journal
		_ = d.lock.Close()           // nothing was written
	}
}

// openDir locks, claims and reads one log directory.
func (s *Store) openDir(index int, spec DirSpec) error {
	rank := slices.Index(s.tiers, spec.Tier)
	name, nth := spec.Tier, 0
	if rank < 0 {
		rank = len(s.tiers)
		s.tiers = append(s.tiers, spec.Tier)
	} else {
		// Counted within the tier: a directory that another tier gets must not rename this one.
		for _, d := range s.dirs {
			if d.spec.Tier == spec.Tier {
				nth++
			}
		}
		name = fmt.Sprintf("%s#%d", spec.Tier, nth)
	}
	lock, err := spec.FS.Lock(lockFile)
	if err != nil {
		return fmt.Errorf("log directory %s: %w; is another broker running on it?", spec.FS.Root(), err)
	}
	if spec.Device.Name == "" {
		spec.Device.Name = name
	}
	spec.Device.Rotating = spec.Rotating
	cold, err := newColdQueue(spec.Device, s.limits, s.limitsMu, s.opt.Now)
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	d := &logDir{spec: spec, name: name, index: index, rank: rank, nth: nth, log: s.opt.Logger, lock: lock, cold: cold, onFence: s.dirFenced, errors: s.metrics.dirErrors,
		lookups: make(chan struct{}, lookupParallel)}
	for _, op := range []string{"read", "open", "append", "write", "sync"} { // present from the start, so that a rate never begins with a hole
		d.errors.WithLabelValues(name, op)
	}
	if rank == 0 {
		workers := spec.SyncWorkers
		if workers == 0 {
			workers = 32
			if spec.Rotating {
				workers = 64
			}
		}
		d.commit = newFileCommitter(d, workers)
	}
	s.dirs = append(s.dirs, d)
	if s.opt.ClusterID != "" {
		id, err := tiering.Claim(spec.FS, name, s.opt.ClusterID, s.opt.KnownTiers[name])
		if err != nil {
			return err
		}
		if s.opt.RememberTier != nil && s.opt.KnownTiers[name] != id.UUID {
			if err := s.opt.RememberTier(name, id.UUID); err != nil {
				return fmt.Errorf("remember tier %s: %w", name, err)
			}
		}
	}
	if err := sweepRoot(spec.FS); err != nil {
		return fmt.Errorf("log directory %s: %w", spec.FS.Root(), err)
	}
	d.checkSpace()
	ladder, err := s.opt.Cache.Probe(spec.FS)
	if err != nil {
		s.opt.Logger.Warn("read methods not probed: live reads will tell", "path", spec.FS.Root(), "err", err)
	}
	d.device = ladder.Device
	if rank > 0 {
		return s.dropJournal(d)
	}
	if err := s.readCheckpoints(d); err != nil {
		return err
	}
	return s.openJournal(d, d.commit.(*fileCommitter))
}

// sweepRoot removes what a crash left half written in a log directory's root, and makes durable the names that are there:
// a kill may have come between making or renaming a partition directory and syncing that.
func sweepRoot(fsys vfs.FS) error {
	for _, name := range []string{segment.RecoveryPointFile, segment.LogStartFile, segment.CleanShutdownFile, tiering.IdentityFile} {
		if err := fsys.Remove(name + segment.TmpSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fsys.SyncDir(".")
}

// readCheckpoints takes in what the last run left in a directory of the hottest tier, and the clean-shutdown marker away.
func (s *Store) readCheckpoints(d *logDir) error {
	fsys := d.spec.FS
	c := &checkpoints{}
	points, err := segment.ReadCheckpoint(fsys, segment.RecoveryPointFile)
	if err != nil { // everything in the directory is recovered as if nothing were known
		s.opt.Logger.Warn("recovery points not usable: all segments of the directory are checked", "path", fsys.Root(), "err", err)
		points, c.doubtful = map[segment.TopicPartition]segment.Offset{}, true
	}
	starts, err := segment.ReadCheckpoint(fsys, segment.LogStartFile)
	if err != nil {
		return fmt.Errorf("log directory %s: %w; restore %s from a copy, or remove it to show deleted records again", fsys.Root(), err, segment.LogStartFile)
	}
	cleaned, err := segment.ReadCheckpoint(fsys, segment.CleanerFile)
	if e, unseen := fsys.Stat(segment.CleanerFile); err != nil && unseen == nil && e.Size == 0 { // Kafka makes it before it has compacted anything
		cleaned, err = map[segment.TopicPartition]segment.Offset{}, nil
	}
	if err != nil { // compacting anew what was compacted changes nothing
		s.opt.Logger.Warn("cleaner checkpoint not usable: compacted topics are compacted from their start", "path", fsys.Root(), "err", err)
		cleaned, c.doubtful = map[segment.TopicPartition]segment.Offset{}, true
	}
	c.saved = marks{points, starts, cleaned}
	c.unserved = c.saved.clone()
	s.checkpoints[d] = c
	_, clean, err := segment.ReadCleanShutdown(fsys)
	if err != nil {
		clean = false
	}
	s.recovered.clean[d] = clean
	return segment.RemoveCleanShutdown(fsys)
}

// Load opens every partition of topics, making directories that are missing, finishes interrupted deletions, and starts
// the background work. A partition that cannot be opened is served as offline and reported; the others go on.
func (s *Store) Load(ctx context.Context, topics []TopicSpec) error {
	if err := s.removeDeleted(); err != nil {
		return err
	}
	for _, t := range topics {
		s.recovered.partitions.Add(int64(t.Partitions))
		s.setTopicCap(t.Topic, t.Config.CatchupBytesPerSec)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(loadParallel)
	for _, t := range topics {
		for p := range t.Partitions {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				l, err := s.open(t.Topic, t.ID, p, t.Config)
				if err != nil {
					l = s.offline(t.Topic, t.ID, p, t.Config, err)
				}
				s.mu.Lock()
				s.logs[logKey{t.Topic, p}] = l
				s.mu.Unlock()
				s.recovered.done.Add(1)
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.loaded.Store(true)
	for _, name := range s.Unknown() {
		s.opt.Logger.Warn("partition directory of no known topic: left alone", "dir", name)
	}
	s.startLoops()
	return nil
}

// Progress is how far Load is; safe at any time.
func (s *Store) Progress() Progress {
	r := &s.recovered
	return Progress{r.partitions.Load(), r.done.Load(), r.scannedBytes.Load(), r.cutTail.Load()}
}

// offline stands in for a partition that could not be opened.
func (s *Store) offline(topic string, id [16]byte, partition int32, cfg Config, cause error) *Log {
	s.incomplete.Store(true)
	s.opt.Logger.Error("partition offline", "topic", topic, "partition", partition, "err", cause)
	l := s.newLog(topic, id, partition, cfg, s.dirs[0])
	err := fmt.Errorf("%w: %s: %w", ErrFenced, l.dir, cause)
	l.failed.Store(&err)
	l.closed = true
	l.producers = segment.NewProducerState(segment.ProducerOptions{})
	l.epochs = &segment.EpochCache{}
	l.view.Store(&view{segs: []*logSegment{{dir: l.home}}})
	l.durable.Store(&bound{})
	l.filed.Store(&bound{})
	return l
}

// Create makes the partition's directory, or loads it when it is there, and begins to serve it. ErrExists when it is
// served already.
func (s *Store) Create(_ context.Context, topic string, id [16]byte, partition int32, cfg Config) (*Log, error) {
	key := logKey{topic, partition}
	s.mu.RLock()
	_, exists := s.logs[key]
	closed := s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case exists:
		return nil, fmt.Errorf("%w: %s", ErrExists, segment.PartitionDir(topic, partition))
	}
	l, err := s.open(topic, id, partition, cfg)
	if err != nil {
		return nil, err
	}
	s.setTopicCap(topic, cfg.CatchupBytesPerSec)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.logs[key]; exists {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrExists, l.dir), l.close())
	}
	s.logs[key] = l
	return l, nil
}

func (s *Store) newLog(topic string, id [16]byte, partition int32, cfg Config, home *logDir) *Log {
	l := &Log{store: s, topic: topic, id: id, partition: partition, dir: segment.PartitionDir(topic, partition), home: home,
		watches: map[*Watch]watched{}}
	l.unstable.Store(noTxn)
	l.log = s.opt.Logger.With("topic", topic, "partition", partition)
	l.cfg.Store(&cfg)
	l.obeyed = &cfg
	l.convoy.log = l
	l.cursors = cursorSet{log: l, by: map[admission.ReaderKey]*cursor{}}
	return l
}

// found is one segment that the listings show.
type found struct {
	segment.SegmentFile
	dir *logDir
}

// open brings one partition to service: made new, taken over from a clean stop, or recovered.
func (s *Store) open(topic string, id [16]byte, partition int32, cfg Config) (*Log, error) {
	name := segment.PartitionDir(topic, partition)
	home, holders, err := s.place(name)
	if err != nil {
		return nil, err
	}
	l, err := s.openAt(name, topic, id, partition, cfg, home, holders)
	if err != nil {
		home.partitions.Add(-1)
	} else if err := l.beginDelay(context.Background()); err != nil {
		l.log.Warn("delayed records not found, trying again: until then none are seen", "err", err)
	}
	return l, err
}

func (s *Store) openAt(name, topic string, id [16]byte, partition int32, cfg Config, home *logDir, holders []*logDir) (*Log, error) {
	if err := home.fenced(); err != nil {
		return nil, err
	}
	l := s.newLog(topic, id, partition, cfg, home)
	fsys := home.spec.FS
	if !slices.Contains(holders, home) {
		if len(holders) > 0 {
			return nil, fmt.Errorf("%s: no directory in tier %s, but sealed segments in tier %s: restore the hot tier's directory", name, s.tiers[0], holders[0].spec.Tier)
		}
		if len(s.missing) > 0 && !s.loaded.Load() {
			return nil, fmt.Errorf("%s is nowhere, and %s is not configured: put it back, or delete the topic if that is lost", name, strings.Join(s.missing, ", "))
		}
		if err := s.forget([]*logDir{home}, l.key()); err != nil { // of a deleted topic of this name
			return nil, home.writeFailed("write checkpoints", err)
		}
		if err := fsys.MkdirAll(name); err != nil {
			return nil, home.writeFailed("make partition directory", err)
		}
	}
	if err := l.checkIdentity(holders); err != nil {
		return nil, err
	}
	segs, err := l.list(holders)
	if err != nil {
		return nil, err
	}
	if l.epochs, err = segment.LoadEpochCache(fsys, name); err != nil {
		return nil, err
	}
	if _, ok := l.epochs.Latest(); !ok {
		if _, err := l.epochs.Assign(0, 0); err != nil {
			return nil, home.writeFailed("write leader-epoch-checkpoint", err)
		}
	}
	if err := l.openSegments(segs); err != nil {
		return nil, err
	}
	return l, nil
}

// place finds the directories that hold a partition, hot to cold, and its home: the one in the hottest tier that has
// it, else the emptiest. The home counts it from now on, so that partitions made at once are spread.
func (s *Store) place(name string) (home *logDir, holders []*logDir, err error) {
	for _, d := range s.dirs {
		e, err := d.spec.FS.Stat(name)
		switch {
		case err == nil && e.Dir:
			holders = append(holders, d)
			if d.rank == 0 && home == nil {
				home = d
			} else if d.rank == 0 {
				return nil, nil, fmt.Errorf("%s is in %s and in %s: keep one of them", name, home.spec.FS.Root(), d.spec.FS.Root())
			}
		case errors.Is(err, fs.ErrNotExist), d.fenced() != nil && s.loaded.Load(): // what is made now is not in a failed one
		case err != nil:
			return nil, nil, err
		}
	}
	if home != nil {
		home.partitions.Add(1)
		return home, holders, nil
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	for _, d := range s.dirs {
		if d.rank == 0 && d.fenced() == nil && (home == nil || d.partitions.Load() < home.partitions.Load()) {
			home = d
		}
	}
	if home == nil {
		return nil, nil, fmt.Errorf("%w: every directory of tier %s", ErrFenced, s.tiers[0])
	}
	home.partitions.Add(1)
	return home, holders, nil
}

// checkIdentity binds the directory to the topic id: a mismatch, in whatever tier, is a stranger's data and is refused.
func (l *Log) checkIdentity(holders []*logDir) error {
	for _, d := range holders {
		if d == l.home {
			continue
		}
		if _, err := l.ownsDir(d); err != nil {
			if listing, unseen := segment.ListDir(d.spec.FS, l.dir); unseen == nil && len(listing.Segments) == 0 {
				continue // nothing to mistake for ours: migrations refuse it
			}
			return err
		}
	}
	named, err := l.ownsDir(l.home)
	if err == nil && !named {
		if err = segment.WritePartitionMetadata(l.home.spec.FS, l.dir, l.id); err != nil {
			return l.home.writeFailed("write partition.metadata", err)
		}
	}
	return err
}

// ownsDir is an error when the partition's directory in d is another topic's; named is false when it does not say whose.
func (l *Log) ownsDir(d *logDir) (named bool, err error) {
	id, err := segment.ReadPartitionMetadata(d.spec.FS, l.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case id != l.id:
		return false, fmt.Errorf("%s/%s belongs to another topic of this name (see its partition.metadata): move it away", d.spec.FS.Root(), l.dir)
	}
	return true, nil
}

// list cleans up after interrupted compactions, migrations and deletions and gives the segments by base offset.
func (l *Log) list(holders []*logDir) ([]found, error) {
	for _, d := range holders {
		swapped, err := segment.FinishSwaps(d.spec.FS, l.dir)
		if err != nil {
			return nil, err
		}
		if len(swapped) > 0 {
			l.log.Info("interrupted compaction finished", "tier", d.spec.Tier, "segments", swapped)
		}
	}
	tiers := make([]tiering.Tier, len(holders))
	for i, d := range holders {
		tiers[i] = d.tier()
	}
	swept, err := tiering.Sweep(tiers, l.dir)
	if err != nil {
		return nil, err
	}
	if len(swept.Duplicates)+len(swept.Quarantined) > 0 {
		l.log.Info("interrupted migrations resolved", "removed", swept.Duplicates, "quarantined", swept.Quarantined)
	}
	var segs []found
	for _, d := range holders {
		listing, err := segment.ListDir(d.spec.FS, l.dir)
		if err != nil {
			return nil, err
		}
		for _, f := range listing.Segments {
			segs = append(segs, found{f, d})
		}
	}
	slices.SortFunc(segs, func(a, b found) int { return int(min(1, max(-1, a.Base-b.Base))) })
	return segs, nil
}

// openSegments opens what list found: sealed segments below the recovery point by their names alone, the rest through
// recovery, the last one for appending.
func (l *Log) openSegments(segs []found) error {
	s, cfg := l.store, l.config()
	point, start, cleaned, compacted := s.remember(l.home, l.key())
	l.compact.cleaned.Store(int64(cleaned))
	l.compact.begun.Store(compacted)
	if len(segs) == 0 {
		w, err := segment.Create(l.home.spec.FS, l.dir, start, cfg.segmentOptions(l.home), s.files)
		if err == nil {
			err = w.SyncData()
		}
		if err != nil {
			return l.home.writeFailed("create segment", err)
		}
		l.producers = segment.NewProducerState(s.producerOptions())
		return l.begin(nil, w, start)
	}
	if len(s.missing) > 0 && segs[0].Base > start { // else what lies there would be taken for deleted, and be that when it is back
		return fmt.Errorf("%s: records %d to %d are nowhere, and %s is not configured: put it back, or, if it is lost, write %d for this partition into %s of %s",
			l.dir, start, segs[0].Base-1, strings.Join(s.missing, ", "), segs[0].Base, segment.LogStartFile, l.home.spec.FS.Root())
	}
	last := segs[len(segs)-1]
	// Only what is durable, and never the last segment, is compacted; and what was has gaps, which recovery must not take for a torn tail.
	point = max(point, min(cleaned, last.Base))
	if last.dir != l.home {
		return fmt.Errorf("%s: newest segment %d is in tier %s and not in %s: the active segment is missing, restore it", l.dir, last.Base, last.dir.spec.Tier, l.home.spec.Tier)
	}
	clean := s.recovered.clean[l.home]
	var opened []*logSegment
	for i, f := range segs[:len(segs)-1] {
		next := segs[i+1].Base
		if !clean && next > point && f.dir == l.home {
			w, res, err := l.recover(f, point)
			if err != nil {
				return err
			}
			if res.Next != next { // nothing after it was acked: a commit syncs segments in order
				return l.continueFrom(opened, w, segs[i+1:], max(segs[0].Base, start))
			}
			if err := l.sealRecovered(w); err != nil {
				return err
			}
			opened = append(opened, &logSegment{r: w.Reader(), dir: f.dir, base: f.Base})
			continue
		}
		r, err := segment.OpenSealed(f.dir.spec.FS, l.dir, segment.Sealed{Base: f.Base, Next: next, SizeBytes: f.SizeBytes, NoAborted: !f.HasTxnIndex}, s.files)
		if err != nil {
			return err
		}
		opened = append(opened, &logSegment{r: r, dir: f.dir, base: f.Base})
	}
	var w *segment.Writer
	var err error
	if clean {
		w, err = segment.OpenWriter(last.dir.spec.FS, l.dir, last.Base, cfg.segmentOptions(last.dir), s.files)
	} else {
		w, _, err = l.recover(last, point)
	}
	if err != nil {
		return err
	}
	return l.begin(opened, w, max(segs[0].Base, start))
}

// recover checks one segment from the recovery point on.
func (l *Log) recover(f found, point segment.Offset) (*segment.Writer, segment.RecoverResult, error) {
	s := l.store
	res, w, err := segment.Recover(f.dir.spec.FS, l.dir, f.Base, point, l.config().segmentOptions(f.dir), nil, s.now().UnixMilli(), s.files)
	if err != nil {
		return nil, res, err
	}
	s.recovered.scannedBytes.Add(res.ScannedBytes)
	s.recovered.cutTail.Add(res.CutBytes)
	for _, c := range res.Corrupt {
		s.corruption(l, c)
	}
	if res.CutBytes > 0 {
		l.log.Info("torn tail cut", "segment", f.Base, "bytes", res.CutBytes, "end_offset", res.Next, "kept_in", res.Quarantined)
	}
	return w, res, nil
}

// sealRecovered seals a segment that recovery has read and synced; on a full disk its index files wait for space.
func (l *Log) sealRecovered(w *segment.Writer) error {
	_, err := w.Seal()
	if err == nil {
		return nil
	}
	if err := l.home.writerFailed("seal segment", w, err); !errors.Is(err, ErrDiskFull) && !passing(err) {
		return err
	}
	l.sealing = append(l.sealing, w)
	return nil
}

// continueFrom appends to a segment in the middle whose tail was torn by a power cut: what lies behind it was never
// acked, and keeping it would put a hole into the log. It is set aside, not removed.
func (l *Log) continueFrom(before []*logSegment, w *segment.Writer, rest []found, start segment.Offset) error {
	for _, f := range rest {
		if err := tiering.Quarantine(f.dir.spec.FS, l.dir, f.Base); err != nil {
			return f.dir.writeFailed("quarantine segment", err)
		}
		l.log.Warn("unacked segment behind a torn one set aside", "segment", f.Base, "bytes", f.SizeBytes)
	}
	return l.begin(before, w, start)
}

func (s *Store) producerOptions() segment.ProducerOptions {
	return segment.ProducerOptions{ExpirationMs: s.opt.ProducerExpiry.Milliseconds()}
}

// begin publishes the first view and the durable bound, and restores the producers: snapshot, then the headers behind it.
func (l *Log) begin(sealed []*logSegment, w *segment.Writer, start segment.Offset) error {
	now := l.store.now()
	l.w, l.rolledAt, l.flushedAt = w, now, now
	segs := append(sealed, &logSegment{r: w.Reader(), dir: l.home, base: w.Base()})
	total := int64(0)
	for _, s := range segs {
		s.before.Store(total)
		size := s.r.Meta().SizeBytes
		total += size
		s.dir.used.Add(size)
	}
	l.endPos.Store(total)
	l.end.Store(int64(w.Next()))
	l.openedAt = w.Next()
	l.setViewLocked(segs, min(max(start, segs[0].base), w.Next()))
	l.durable.Store(l.endBound())
	l.filed.Store(l.endBound())
	l.written.Store(l.endBound())
	l.ages.note(w.Next(), now)
	if l.producers == nil {
		if err := l.loadProducers(segs); err != nil {
			return err
		}
	}
	for _, s := range segs {
		if s.r.MayHaveAborted() {
			l.aborts.Store(true)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked()
	return nil
}

// loadProducers restores what the partition knows of its producers.
func (l *Log) loadProducers(segs []*logSegment) error {
	s, nowMs := l.store, l.store.steadyMs()
	ps, damaged, err := segment.LoadProducerState(l.home.spec.FS, l.dir, l.w.Next(), nowMs, s.producerOptions())
	if err != nil {
		return err
	}
	for _, c := range damaged {
		s.corruption(l, c)
	}
	l.snapshotAt.Store(int64(ps.End()))
	for i, seg := range segs {
		// Without a snapshot only the hot tier is replayed: producers of older data are long gone from every client's retry window, and
		// reading a cold tier back at start would take hours. Behind a snapshot nothing is cold, unless it stands in for a damaged one.
		if i+1 < len(segs) && segs[i+1].base <= ps.End() || seg.dir != l.home && ps.End() == 0 {
			continue
		}
		l.snapshotDue = l.snapshotDue || i+1 < len(segs)
		if !seg.r.Acquire() {
			return fmt.Errorf("%w: segment %d", ErrClosed, seg.base)
		}
		err := segment.Replay(seg.r, ps, nowMs)
		seg.r.Release()
		if err != nil {
			if !isCorrupt(err) {
				return err
			}
			l.noteCorruption(err)
		}
	}
	l.producers = ps
	return nil
}

// Unknown lists partition directories of topics that nobody asked to load.
func (s *Store) Unknown() []string {
	var out []string
	for _, d := range s.dirs {
		entries, err := d.spec.FS.List(".")
		if err != nil {
			continue
		}
		for _, e := range entries {
			topic, p, ok := segment.ParsePartitionDir(e.Name)
			if !e.Dir || !ok {
				continue
			}
			if _, served := s.Log(topic, p); !served {
				out = append(out, d.spec.FS.Root()+"/"+e.Name)
			}
		}
	}
	return out
}
