package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
	"lagoon/tiering"
)

// Options configure a Store. Dirs, Cache and Pool are required.
type Options struct {
	Dirs []DirSpec
	// ClusterID and KnownTiers (directory name → uuid, from the catalogue) let a directory that is missing, or somebody
	// else's, be refused. RememberTier stores the uuid of a directory that was made now. ClusterID "" skips the check, for
	// tests and for reading a foreign log directory. A known directory that Dirs does not have: partitions that miss their home or their oldest
	// segments stay offline.
	ClusterID    string
	KnownTiers   map[string]string
	RememberTier func(name, uuid string) error

	Cache *cachectl.Cache
	Pool  *cachectl.Pool
	Mode  admission.Mode // read_mode
	// Readers says when a reader lags; Limits are the fixed budgets over all devices.
	Readers   admission.Config
	Limits    admission.LimitsConfig
	Caps      []admission.SubjectCap // lasting caps and weights of groups; those of topics come with their Config
	Overrides []admission.Override
	Adaptive  *Adaptive // nil: the budgets of Limits and Dirs and no others
	// RetentionRace gives readers that retention is about to overtake the weight with which they win; without it they are only told of.
	RetentionRace bool
	// SyncGate has the cold reads and the syncs of a rotating disk take turns.
	SyncGate bool
	// ReadAheadChunks is the depth of a lagging reader's read-ahead, 0 means 3: one being sent, one ready, one on its way.
	ReadAheadChunks int

	// Alone has lagging readers share no chunks: each reads all it wants itself. It is there to measure what convoys are for.
	Alone bool

	MaxOpenFiles       int           // descriptors for sealed segments, 0: segment's default
	MaxIndexBytes      int64         // memory for their indexes, 0: segment's default
	ProducerExpiry     time.Duration // producer.id.expiration.ms, 0: 1 day
	RetentionInterval  time.Duration // 0: 30 s (log.retention.check.interval.ms is 5 min; small segments want less)
	CheckpointInterval time.Duration // recovery points, 0: 5 s
	CompactionInterval time.Duration // 0: 15 s (log.cleaner.backoff.ms); < 0: only Compact does it
	PlanInterval       time.Duration // migrations, 0: 10 s
	DemandHorizon      time.Duration // a segment that a reader comes to within it stays in its tier (tiering.Snapshot), 0: readers do not count

	Hot HotWindows // what stays in the page cache; the zero value: nothing is kept and nothing dropped

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now
}

func (o Options) withDefaults() Options {
	if o.ReadAheadChunks == 0 {
		o.ReadAheadChunks = 3
	}
	if o.RetentionInterval == 0 {
		o.RetentionInterval = 30 * time.Second
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = 5 * time.Second
	}
	if o.CompactionInterval == 0 {
		o.CompactionInterval = 15 * time.Second
	}
	if o.PlanInterval == 0 {
		o.PlanInterval = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate names every field that cannot be worked with.
func (o Options) Validate() error {
	var errs []error
	if len(o.Dirs) == 0 {
		errs = append(errs, errors.New("partition: no log directory"))
	}
	for i, d := range o.Dirs {
		if d.Tier == "" || d.FS == nil {
			errs = append(errs, fmt.Errorf("partition: log directory %d needs a tier name and a file system", i))
		}
	}
	if o.Cache == nil || o.Pool == nil {
		errs = append(errs, errors.New("partition: Cache and Pool are required"))
	} else if o.Pool.ChunkBytes() < minChunkBytes {
		errs = append(errs, fmt.Errorf("partition: chunks of %d bytes are too small, at least %d", o.Pool.ChunkBytes(), minChunkBytes))
	}
	errs = append(errs, o.Hot.validate())
	return errors.Join(errs...)
}

// minChunkBytes: below this a bypass read leaves stray read-ahead pages (measured with RWF_DONTCACHE), and seeks dominate.
const minChunkBytes = 256 << 10

// directSlack is what alignment may cost a direct read at both ends.
const directSlack = 2 * cachectl.PageSize

// logKey names a log.
type logKey struct {
	topic     string
	partition int32
}

// Store owns every partition of this broker: their directories, their background work, their devices' queues.
type Store struct {
	opt       Options
	opened    time.Time // by Options.Now
	began     time.Time // the same moment on the process's own clock
	dirs      []*logDir
	missing   []string   // directories that partitions may lack, and why: they are not configured, or did not answer at the start
	tiers     []string   // names, hot to cold
	placing   sync.Mutex // of choosing a home by logDir.partitions
	files     *segment.FileCache
	metrics   *metrics
	limits    *admission.Limits
	races     *admission.Races
	racing    sync.Mutex  // one look at the races at a time
	limitsMu  *sync.Mutex // of limits, races and the devices' schedulers
	migrator  *tiering.Migrator
	ctx       context.Context
	stop      context.CancelFunc
	wg        sync.WaitGroup
	harm      storeHarm
	hot       *hotWindows
	budgets   *budgets
	planNow   chan struct{}
	retaining atWork
	compactor compactor
	recovered recovery

	durableWaiters sync.Pool // of *durableWaiter

	movedSegments, movedBytes, moveFailures atomic.Int64

	mu        sync.RWMutex
	logs      map[logKey]*Log
	creations map[logKey]*creation // on their way
	closed    bool

	keepers     keepers
	convoys     atomic.Int64 // logs with two lagging readers or more
	streams     streaming
	askedChunks atomic.Int64 // queued at devices: so many buffers will be wanted; what several readers ask for counts once

	readersMu sync.Mutex
	readers   *admission.Readers

	checkpoints map[*logDir]*checkpoints // of the hottest tier

	loaded atomic.Bool // Load has opened every partition it was given

	corruptMu sync.Mutex
	corrupt   map[string]bool // "path@pos", what was reported
}

func (s *Store) now() time.Time { return s.opt.Now() }

// steadyMs is the Unix time in ms by a clock that goes on from the start as time passes, whatever becomes of the wall clock: for terms that must
// neither end early nor last a day longer because that was set. What is kept over a restart is in the wall clock's time (aheadMs).
func (s *Store) steadyMs() int64 { return s.opened.UnixMilli() + time.Since(s.began).Milliseconds() }

// aheadMs is how far the wall clock has gone ahead of steadyMs.
func (s *Store) aheadMs() int64 { return s.now().UnixMilli() - s.steadyMs() }

// chunkBytes is what one bypass read asks for.
func (s *Store) chunkBytes() int64 { return s.opt.Pool.ChunkBytes() - directSlack }

// readAhead is the depth of a stream on d, in chunks. On a hard disk it is half a run: so much comes to a reader at once, and a
// reader that takes it at less than the disk's speed must not make the head go elsewhere.
func (s *Store) readAhead(d *logDir) int {
	if d.spec.Rotating {
		return max(s.opt.ReadAheadChunks, int(d.cold.quantumBytes/2/s.chunkBytes()))
	}
	return s.opt.ReadAheadChunks
}

// Disconnected tells that connection conn (ReaderRef.Conn) has ended and none of its reads is under way: what was read ahead for it goes.
func (s *Store) Disconnected(conn uint64) {
	s.streams.mu.Lock()
	logs := slices.Collect(maps.Keys(s.streams.logs))
	s.streams.mu.Unlock()
	for _, l := range logs {
		l.cursors.disconnected(conn)
	}
}

// streaming are the logs that are being read ahead in: few of many. Its lock comes after convoy.mu.
type streaming struct {
	mu   sync.Mutex
	logs map[*Log]struct{}
}

// streaming notes that l has readers that are read ahead for, or has none any more.
func (s *Store) streaming(l *Log, on bool) {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	if on {
		if s.streams.logs == nil {
			s.streams.logs = map[*Log]struct{}{}
		}
		s.streams.logs[l] = struct{}{}
	} else {
		delete(s.streams.logs, l)
	}
}

// Log finds a partition.
func (s *Store) Log(topic string, partition int32) (*Log, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.logs[logKey{topic, partition}]
	return l, ok
}

// Logs lists all partitions by topic and number.
func (s *Store) Logs() []*Log { return s.logsOf(nil) }

// logsOf lists those whose home is d, nil: all.
func (s *Store) logsOf(d *logDir) []*Log {
	s.mu.RLock()
	out := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		if d == nil || l.home == d {
			out = append(out, l)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b *Log) int {
		if a.topic != b.topic {
			if a.topic < b.topic {
				return -1
			}
			return 1
		}
		return int(a.partition - b.partition)
	})
	return out
}

// SetConfigs changes the configurations of topics for all their partitions: of many at once, because each call looks at every
// partition that there is. What cfgs points to is the store's from now on. Partitions whose device does not answer follow when it does: this
// waits obeyWait for them, and no longer.
func (s *Store) SetConfigs(cfgs map[string]*Config) {
	var waits []chan struct{}
	for _, l := range s.Logs() {
		cfg := cfgs[l.topic]
		if cfg == nil {
			continue
		}
		was := l.cfg.Swap(cfg)
		if (was.FlushInterval > 0) != (cfg.FlushInterval > 0) || was.DeliveryDelayMs != cfg.DeliveryDelayMs {
			waits = append(waits, l.obeySoon())
		}
	}
	for topic, cfg := range cfgs {
		s.setTopicCap(topic, cfg.CatchupBytesPerSec)
	}
	s.wakePlanner()
	awaitAll(waits, obeyWait)
}

// obeyWait is how long a change of configurations waits for the partitions.
const obeyWait = time.Second

// obeySoon has the log obey its configuration, on a goroutine of its own, and gives what is closed then. Where one waits for the log's lock already,
// that does it.
func (l *Log) obeySoon() (done chan struct{}) {
	l.obeyMu.Lock()
	defer l.obeyMu.Unlock()
	if l.obeying == nil {
		done := make(chan struct{})
		l.obeying = done
		go func() {
			defer close(done)
			l.obey()
		}()
	}
	return l.obeying
}

// obey brings the log in line with its configuration.
func (l *Log) obey() {
	l.mu.Lock()
	l.obeyMu.Lock()
	l.obeying = nil // what changes from here on is the next one's
	l.obeyMu.Unlock()
	was, cfg := l.obeyed, l.config()
	l.obeyed = cfg
	if l.closed {
		l.mu.Unlock()
		return
	}
	if (was.FlushInterval > 0) != (cfg.FlushInterval > 0) {
		l.modeChangedLocked()
	}
	delay := was.DeliveryDelayMs != cfg.DeliveryDelayMs
	if delay {
		l.delayChangedLocked(cfg)
	}
	l.mu.Unlock()
	if delay {
		l.delayChanged()
	}
}

// modeChangedLocked: into the safe mode, whatever was acked on write alone is synced now; out of it, what is written is seen.
func (l *Log) modeChangedLocked() {
	l.written.Store(l.endBound())
	l.flushDue = true
	l.home.commit.scheduleFile(l)
}

// Fenced lists the directories that are offline, joined; nil when all work.
func (s *Store) Fenced() error {
	var errs []error
	for _, d := range s.dirs {
		if err := d.fenced(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dirFenced fails everything that waits for the directory.
func (s *Store) dirFenced(d *logDir, _ error) {
	s.metrics.fenced.WithLabelValues(d.spec.Tier, d.spec.FS.Root()).Set(1)
	if d.journal != nil {
		d.journal.noteFiled() // nothing will be any more
	}
	for _, l := range s.Logs() {
		if l.home == d {
			l.failWaiters(d.fenced())
		}
	}
}

// corruption reports damage once per place; the rest of the log stays readable and nothing is cut.
func (s *Store) corruption(l *Log, c *segment.CorruptError) {
	s.corruptMu.Lock()
	key := fmt.Sprintf("%s@%d", c.Path, c.Pos)
	known := s.corrupt[key]
	if !known && len(s.corrupt) < 10_000 {
		s.corrupt[key] = true
	}
	s.corruptMu.Unlock()
	s.metrics.corruptReads.Inc()
	if known {
		return
	}
	topic, partition := "", int32(-1)
	if l != nil {
		topic, partition = l.topic, l.partition
	}
	s.opt.Logger.Error("corrupt data found: the range is reported and skipped, nothing was changed; restore the file from a copy",
		"topic", topic, "partition", partition, "path", c.Path, "pos", c.Pos, "err", c)
}

// segmentSealed wakes the planner.
func (s *Store) segmentSealed() {
	s.metrics.sealed.Inc()
	s.wakePlanner()
}

func (s *Store) wakePlanner() {
	select {
	case s.planNow <- struct{}{}:
	default:
	}
}

// background runs fn every interval until the store closes.
func (s *Store) background(interval time.Duration, fn func(now time.Time)) {
	s.wg.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-t.C:
				fn(s.now())
			}
		}
	})
}

// startLoops begins the background work, once every partition is loaded.
func (s *Store) startLoops() {
	s.background(time.Second, s.everySecond)
	for _, d := range s.dirs { // each for itself: a disk that does not answer holds up no other
		s.background(time.Second, func(now time.Time) { s.everySecondIn(d, now) })
		if d.rank == 0 {
			s.background(s.opt.CheckpointInterval, func(time.Time) { s.checkpoint(d) })
		}
	}
	s.background(s.opt.RetentionInterval, s.retainSoon)
	s.background(time.Second, s.race)
	s.background(time.Second, s.watchStalls) // beside everySecond, which a device can hold up
	s.wg.Go(s.planLoop)
	switch {
	case s.opt.CompactionInterval <= 0:
	case s.mayLackSealed(): // it may have a copy of a segment, from an interrupted migration: that must be the same when it is back
		s.opt.Logger.Warn("nothing is compacted: a directory of a colder tier did not answer at the start")
	default:
		s.wg.Go(s.compactLoop)
	}
	if s.opt.Hot.Share > 0 {
		s.wg.Go(s.hotLoop)
	}
	if s.budgets != nil {
		s.wg.Go(s.budgets.loop)
	}
	s.wg.Go(func() { _ = s.migrator.Run(s.ctx) }) // ends with the context
}

// everySecond looks after what has no event of its own.
func (s *Store) everySecond(now time.Time) {
	s.budgets.poke()
	s.readersMu.Lock()
	changes := s.readers.Tick(now)
	s.readersMu.Unlock()
	s.metrics.classChanges(changes)
	short := s.freeChunks() <= s.poolChunks()/4 // so that nobody reads ahead
	for _, l := range s.Logs() {
		l.cursors.sweep(now, short)
	}
}

// everySecondIn is everySecond for one directory and the logs whose home it is.
func (s *Store) everySecondIn(d *logDir, now time.Time) {
	if d.fenced() == nil {
		if free, ok := d.checkSpace(); ok {
			d.fill.note(now.Sub(s.opened), d.room(free))
		}
	}
	for _, l := range s.logsOf(d) {
		l.tick(now)
	}
	// Without a new recovery point an unclean start reads the whole segment. A second's worth of them it may read.
	if d.sealed.Swap(false) {
		s.checkpoint(d)
	}
}

// lagRollEvery is how long a segment takes what comes at least before max.compaction.lag.ms ends it, if that is not shorter.
const lagRollEvery = 10 * time.Minute

// tick does a log's timed work: interval flushes, sealing that waited for space, producer expiry.
func (l *Log) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.Err() != nil {
		return
	}
	l.ages.note(segment.Offset(l.end.Load()), now)
	l.producers.Expire(l.store.steadyMs())
	behind := l.durable.Load().offset < l.w.Next()
	cfg := l.config()
	// Records may be older than the lag when they come: they do not make a segment of each second.
	lag := cfg.MaxCompactionLagMs
	overdue := cfg.Compact && lag < maxLag && now.Sub(l.rolledAt).Milliseconds() >= min(lag, lagRollEvery.Milliseconds())
	if first := l.w.FirstTimestamp(); overdue && first >= 0 && now.UnixMilli()-first > lag {
		_ = l.rollLocked(cfg, now) // what is active cannot be compacted; a failure is reported where it happens
	}
	interval := cfg.FlushInterval
	over := now.Sub(l.flushedAt)+500*time.Millisecond >= interval // ticks come every second, and the next one may be too late
	idle := l.home.journal != nil && l.filed.Load().offset < l.durable.Load().offset && now.Sub(l.flushedAt) >= journalIdle
	switch {
	case len(l.sealing) > 0 || l.snapshotDue || l.flushDue && behind || behind && interval > 0 && over || idle:
		l.flushedAt, l.flushDue = now, true
		l.home.commit.scheduleFile(l)
	case behind && interval == 0:
		l.home.commit.schedule(l)
	}
}

// Close stops background work, makes everything durable, writes the indexes of the active segments, producer snapshots,
// checkpoints and the clean-shutdown marker. The context bounds the time; what was not finished by then is recovered at
// the next start.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	for _, l := range s.Logs() {
		l.cursors.closeAll()
	}
	s.awaitBackground(ctx)
	type closed struct {
		d   *logDir
		err error
	}
	ends, open := make(chan closed, len(s.dirs)), map[*logDir]bool{}
	for _, d := range s.dirs { // side by side: one that does not answer keeps no other from being closed cleanly
		open[d] = true
		go func() { ends <- closed{d, s.closeDir(ctx, d)} }()
	}
	var errs []error
	for len(open) > 0 && ctx.Err() == nil {
		select {
		case end := <-ends:
			delete(open, end.d)
			errs = append(errs, end.err)
		case <-ctx.Done():
		}
	}
	for _, d := range s.dirs {
		if open[d] {
			errs = append(errs, fmt.Errorf("log directory %s not closed: %w (does its disk answer?): the next start checks what lies there", d.spec.FS.Root(), ctx.Err()))
		}
	}
	return errors.Join(errs...)
}

// backgroundTime is what background work gets to end in. What takes longer waits for a device. It finds the logs closed when it goes on: nothing
// that a clean start relies on changes any more.
const backgroundTime = 2 * time.Second

func (s *Store) awaitBackground(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.wg.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, backgroundTime)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// closeDir is Close for one directory and the logs whose home it is.
func (s *Store) closeDir(ctx context.Context, d *logDir) error {
	d.cold.close()
	if d.commit != nil {
		d.commit.close()
	}
	if d.lock == nil {
		return nil // nothing of it was ever used
	}
	var errs []error
	for _, l := range s.logsOf(d) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, l.close())
	}
	clean := errors.Join(errs...) == nil
	if d.fenced() == nil {
		errs = append(errs, s.writeMarks(d))
	}
	err := s.closeJournal(d, clean)
	errs = append(errs, err)
	if d.rank == 0 && err == nil && clean && s.isClean(d) && ctx.Err() == nil {
		errs = append(errs, segment.WriteCleanShutdown(d.spec.FS, -1))
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// isClean tells whether the next start may take every partition in d for cleanly closed, those included that were never
// opened because a stop came first.
func (s *Store) isClean(d *logDir) bool {
	return d.fenced() == nil && !d.incomplete.Load() && (s.loaded.Load() || s.recovered.clean[d])
}

// close seals what is to be sealed, syncs, and writes what a quick start needs.
func (l *Log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.endDelay()
	l.failWaiters(ErrClosed)
	if err := l.Err(); err != nil {
		return err
	}
	for _, w := range l.sealing {
		if _, err := w.Seal(); err != nil {
			return l.home.writerFailed("seal segment", w, err)
		}
	}
	l.sealing = nil
	end := l.endBound()
	if err := l.w.Close(true); err != nil {
		return l.home.writerFailed("close segment", l.w, err)
	}
	l.durable.Store(end)
	l.filed.Store(end)
	l.producers.Shift(l.store.aheadMs())
	return l.producers.Save(l.home.spec.FS, l.dir, end.offset)
}
