package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	s := &Store{opt: opt, limitsMu: &sync.Mutex{}, logs: map[logKey]*Log{}, creations: map[logKey]*creation{}, corrupt: map[string]bool{}, checkpoints: map[*logDir]*checkpoints{}, planNow: make(chan struct{}, 1), compactor: compactor{look: make(chan struct{}, 1)}}
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
	if gone := s.notConfigured(); len(gone) > 0 {
		opt.Logger.Error("directories of this cluster are not configured: partitions that need them stay offline, others go on without what lies there",
			"dirs", gone)
		s.missing = append(s.missing, strings.Join(gone, ", ")+" is not configured")
	}
	if !slices.ContainsFunc(s.dirs, func(d *logDir) bool { return d.rank == 0 && d.lock != nil }) {
		return nil, fmt.Errorf("%w: %s: there is no other directory in tier %s", ErrNoAnswer, strings.Join(s.missing, "; "), s.tiers[0])
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
		if d.lock != nil {
			_ = d.lock.Close() // nothing was written
		}
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
	if spec.Device.Name == "" {
		spec.Device.Name = name
	}
	spec.Device.Rotating = spec.Rotating
	cold, err := newColdQueue(spec.Device, s.limits, s.limitsMu, s.opt.Now)
	if err != nil {
		return err
	}
	d := &logDir{spec: spec, name: name, index: index, rank: rank, nth: nth, log: s.opt.Logger, cold: cold, onFence: s.dirFenced, errors: s.metrics.dirErrors,
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
	c, err := s.claimInTime(d)
	if errors.Is(err, ErrNoAnswer) {
		s.missing = append(s.missing, fmt.Sprintf("%s (%s) did not answer at the start", name, spec.FS.Root()))
		d.fence("open", err)
		return nil
	}
	d.lock = c.lock
	if err != nil {
		return err
	}
	if s.opt.RememberTier != nil && c.uuid != "" && s.opt.KnownTiers[name] != c.uuid {
		if err := s.opt.RememberTier(name, c.uuid); err != nil {
			return fmt.Errorf("remember tier %s: %w", name, err)
		}
	}
	for _, name := range c.names {
		d.names.note(name)
	}
	d.doomed, d.device = c.doomed, c.device
	d.checkSpace()
	if rank > 0 {
		return s.dropJournal(d)
	}
	if err := s.readCheckpoints(d); err != nil {
		return err
	}
	return s.openJournal(d, d.commit.(*fileCommitter))
}

// claimed is what a log directory said when it was asked first.
type claimed struct {
	lock   io.Closer // nil: it could not be had
	uuid   string    // "" where no identity was asked for
	names  []string  // partition directories
	doomed []string  // those of deleted partitions
	device uint64
}

// openWait is how long a start waits for a log directory that says nothing: a disk that spins up, or is busy, does within it.
const openWait = 30 * time.Second

// claimInTime is claim, or ErrNoAnswer. A directory that answers later is let go again: its partitions are not served without a restart.
func (s *Store) claimInTime(d *logDir) (claimed, error) {
	var (
		mu    sync.Mutex
		c     claimed
		err   error
		late  bool
		ended = make(chan struct{})
	)
	go func() {
		got, failed := s.claim(d)
		mu.Lock()
		defer mu.Unlock()
		if late && got.lock != nil {
			_ = got.lock.Close() // nothing was written
		}
		c, err = got, failed
		close(ended)
	}()
	if !awaitAll([]chan struct{}{ended}, stallAfter) {
		d.log.Warn("log directory does not answer: the start waits for it", "tier", d.spec.Tier, "path", d.spec.FS.Root(), "most", openWait)
		awaitAll([]chan struct{}{ended}, openWait-stallAfter)
	}
	mu.Lock()
	defer mu.Unlock()
	select {
	case <-ended:
		return c, err
	default:
		late = true
		return claimed{}, fmt.Errorf("%w: %s", ErrNoAnswer, d.spec.FS.Root())
	}
}

// claim locks a directory, makes sure that it is the one that it should be, and looks at what it holds. The probe writes, syncs and reads: whether
// the device answers is known then.
func (s *Store) claim(d *logDir) (c claimed, err error) {
	fsys := d.spec.FS
	if c.lock, err = fsys.Lock(lockFile); err != nil {
		c.lock = nil
		return c, fmt.Errorf("log directory %s: %w; is another broker running on it?", fsys.Root(), err)
	}
	if s.opt.ClusterID != "" {
		id, err := tiering.Claim(fsys, d.name, s.opt.ClusterID, s.opt.KnownTiers[d.name])
		if err != nil {
			return c, err
		}
		c.uuid = id.UUID
	}
	if err := sweepRoot(fsys); err != nil {
		return c, fmt.Errorf("log directory %s: %w", fsys.Root(), err)
	}
	ladder, err := s.opt.Cache.Probe(fsys)
	if err != nil {
		s.opt.Logger.Warn("read methods not probed: live reads will tell", "path", fsys.Root(), "err", err)
	}
	c.device = ladder.Device
	entries, err := fsys.List(".")
	if err != nil {
		return c, fmt.Errorf("list %s: %w", fsys.Root(), err)
	}
	for _, e := range entries {
		if !e.Dir {
			continue
		}
		if _, _, ok := segment.ParsePartitionDir(e.Name); ok {
			c.names = append(c.names, e.Name)
		} else if strings.HasSuffix(e.Name, deletedDirSuffix) && strings.Contains(e.Name, ".") {
			c.doomed = append(c.doomed, e.Name)
		}
	}
	return c, nil
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
	for _, t := range topics {
		s.recovered.partitions.Add(int64(t.Partitions))
		s.setTopicCap(t.Topic, t.Config.CatchupBytesPerSec)
	}
	loaded := make(chan error, 1)
	go func() { loaded <- s.loadAll(ctx, topics) }()
	select {
	case err := <-loaded:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-loaded:
		return err
	case <-time.After(backgroundTime): // what a device does not answer goes on, and is not known to be closed
		for _, d := range s.dirs {
			d.incomplete.Store(true)
		}
		return ctx.Err()
	}
}

// loadAll is Load without an end while a device does not answer.
func (s *Store) loadAll(ctx context.Context, topics []TopicSpec) error {
	s.removeDeleted()
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(loadParallel)
	for _, t := range topics {
		for p := range t.Partitions {
			g.Go(func() error {
				if err := group.Err(); err != nil {
					return err
				}
				l, err := s.open(t.Topic, t.ID, p, t.Config)
				if err != nil {
					l = s.offline(t.Topic, t.ID, p, t.Config, err)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.closed {
					return ErrClosed // nobody waits any more, and nobody would close it
				}
				s.logs[logKey{t.Topic, p}] = l
				s.recovered.done.Add(1)
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil || ctx.Err() != nil {
		return cmp.Or(err, ctx.Err())
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
	s.opt.Logger.Error("partition offline", "topic", topic, "partition", partition, "err", cause)
	l := s.newLog(topic, id, partition, cfg, s.dirs[0])
	for _, d := range s.dirs {
		if d.names.may(l.dir) {
			d.incomplete.Store(true)
		}
	}
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

// creation is a partition that is being made.
type creation struct {
	done  chan struct{} // closed when the rest is known
	l     *Log
	err   error
	unmet bool // nobody waits for it any more: it is not served; guarded by Store.mu
}

// createWait is how long a creation waits for a device that does not answer.
const createWait = 20 * time.Second

// Create makes the partition's directory, or loads it when it is there, and begins to serve it. ErrExists when it is
// served already; ErrNoAnswer when a device did not answer in time: then nothing is served, and what was begun is there to be deleted, or used when
// it is made again.
func (s *Store) Create(_ context.Context, topic string, id [16]byte, partition int32, cfg Config) (*Log, error) {
	key, dir := logKey{topic, partition}, segment.PartitionDir(topic, partition)
	c := &creation{done: make(chan struct{})}
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	case s.logs[key] != nil:
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %s", ErrExists, dir)
	case s.creations[key] != nil:
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %s is still being made", ErrNoAnswer, dir)
	}
	s.creations[key] = c
	s.mu.Unlock()
	go s.create(c, key, id, cfg)
	if !awaitAll([]chan struct{}{c.done}, createWait) {
		s.mu.Lock()
		c.unmet = s.creations[key] == c
		late := c.unmet
		s.mu.Unlock()
		if late {
			return nil, fmt.Errorf("%w: %s was not made in %v", ErrNoAnswer, dir, createWait)
		}
	}
	<-c.done
	if c.err != nil {
		return nil, c.err
	}
	s.setTopicCap(topic, cfg.CatchupBytesPerSec)
	return c.l, nil
}

func (s *Store) create(c *creation, key logKey, id [16]byte, cfg Config) {
	defer close(c.done)
	c.l, c.err = s.open(key.topic, id, key.partition, cfg)
	s.mu.Lock()
	delete(s.creations, key)
	switch {
	case c.err != nil:
	case s.closed:
		c.err = ErrClosed
	case c.unmet:
		c.err = ErrNoAnswer
	default:
		s.logs[key] = c.l
	}
	s.mu.Unlock()
	if c.l != nil && c.err != nil {
		c.l.retire()
	}
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
			why := ""
			if len(s.missing) > 0 {
				why = " (" + strings.Join(s.missing, "; ") + ")"
			}
			return nil, fmt.Errorf("%s: no directory in tier %s, but sealed segments in tier %s: restore the hot tier's directory%s", name, s.tiers[0], holders[0].spec.Tier, why)
		}
		if len(s.missing) > 0 && !s.loaded.Load() {
			return nil, fmt.Errorf("%s is nowhere, and %s: put it back, or delete the topic if that is lost", name, strings.Join(s.missing, "; "))
		}
		if err := s.forget(home, l.key()); err != nil { // of a deleted topic of this name
			return nil, home.writeFailed("write checkpoints", err)
		}
		home.names.note(name)
		if l.made = s.loaded.Load(); l.made { // a start may take its time; this is told, and the next ones are made elsewhere
			defer s.work(home)()
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
// it, else the emptiest of those whose device answers. The home counts it from now on, so that partitions made at once are spread.
func (s *Store) place(name string) (home *logDir, holders []*logDir, err error) {
	for _, d := range s.dirs {
		if !d.names.may(name) {
			continue
		}
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
		if d.rank != 0 || d.fenced() != nil {
			continue
		}
		worse := home != nil && d.hangs.Load() && !home.hangs.Load()
		better := home == nil || home.hangs.Load() && !d.hangs.Load()
		if better || !worse && d.partitions.Load() < home.partitions.Load() {
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
		return fmt.Errorf("%s: records %d to %d are nowhere, and %s: put it back, or, if it is lost, write %d for this partition into %s of %s",
			l.dir, start, segs[0].Base-1, strings.Join(s.missing, "; "), segs[0].Base, segment.LogStartFile, l.home.spec.FS.Root())
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
			if res.Next != next && len(s.missing) > 0 {
				return l.gap(res.Next, next)
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
		if err == nil && s.mayLackSealed() {
			err = l.follows(r, next)
		}
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

// mayLackSealed: a directory of a colder tier did not answer, and may hold any sealed segments. (One of the hottest tier has those of partitions alone
// whose home it is.)
func (s *Store) mayLackSealed() bool {
	return slices.ContainsFunc(s.dirs, func(d *logDir) bool { return d.rank > 0 && d.lock == nil })
}

// follows is an error unless the segment that begins at next is the one behind r: readers would not notice what is missing in between.
func (l *Log) follows(r *segment.Reader, next segment.Offset) error {
	if !r.Acquire() {
		return ErrClosed
	}
	defer r.Release()
	end, err := r.End()
	if err == nil && end != next {
		err = l.gap(end, next)
	}
	return err
}

// gap: records are in none of the directories that are there.
func (l *Log) gap(from, to segment.Offset) error {
	return fmt.Errorf("%s: records %d to %d are nowhere, and %s: put it back", l.dir, from, to-1, strings.Join(l.store.missing, "; "))
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
		for _, name := range d.names.all() {
			topic, p, _ := segment.ParsePartitionDir(name)
			if _, served := s.Log(topic, p); !served {
				out = append(out, d.spec.FS.Root()+"/"+name)
			}
		}
	}
	return out
}
