package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"lagoon/internal/quotas"
	"lagoon/internal/vfs"
)

// Options of Open. The zero value is usable.
type Options struct {
	// ClusterID is used when the catalogue is made; "" chooses a random one. It must be a valid id when set, and is
	// compared with the catalogue's when that exists already.
	ClusterID string
	// CompactBytes is the log size that starts a compaction. Default 1 MiB, least 4 KiB.
	CompactBytes int64
	// Now gives the creation time of topics. Default time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
	// OnChange, when set, is told of every durable change, in order, under the store's write lock: it must be quick and
	// must not change the store. It is how dynamic configs reach the parts that obey them.
	OnChange func(old, new *Snapshot)
}

func (o Options) withDefaults() Options {
	if o.CompactBytes == 0 {
		o.CompactBytes = 1 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names every option that is out of range.
func (o Options) Validate() error {
	var errs []error
	if o.CompactBytes != 0 && o.CompactBytes < 4096 {
		errs = append(errs, fmt.Errorf("metadata: CompactBytes %d: at least 4096", o.CompactBytes))
	}
	if o.ClusterID != "" && !validClusterID(o.ClusterID) {
		errs = append(errs, fmt.Errorf("metadata: ClusterID %q: want 22 characters of base64url", o.ClusterID))
	}
	return errors.Join(errs...)
}

// Store is the durable catalogue. Snapshot is lock-free; changes are serialised, and each is on stable storage before
// its method returns nil. An error means that the change did not happen, or (ErrFailed) that it is not known.
// The caller holds the tier's lock file: one process at a time.
type Store struct {
	fs  vfs.FS
	dir string
	opt Options

	current atomic.Pointer[Snapshot]

	mu     sync.Mutex // orders changes; held across their write and sync
	log    *logFile
	failed error // sticky
	closed bool

	topicLocks keyedMutex
}

// Snapshot is the current catalogue; never nil. Safe from any goroutine.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// Err is the sticky storage error, or nil.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// LockTopic serialises work on one topic that takes more than one step (record plus files, read-modify-write of
// configs). It waits until ctx ends. The caller calls unlock exactly once. It is not needed for single calls.
func (s *Store) LockTopic(ctx context.Context, name string) (unlock func(), err error) {
	return s.topicLocks.lock(ctx, name)
}

// CreateTopic adds a topic with a new id. configs are stored as they are: validate them with ValidateTopicConfigs.
// Errors: ErrInvalidTopic (also for a name that differs from an existing one in '.' and '_' only), ErrTopicExists,
// ErrTopicDeleting, ErrInvalidPartitions, ErrInvalidConfig.
func (s *Store) CreateTopic(name string, partitions int32, configs map[string]string) (*Topic, error) {
	if err := ValidateTopicName(name); err != nil {
		return nil, err
	}
	if partitions <= 0 || partitions > MaxPartitions {
		return nil, fmt.Errorf("%w: %d, want 1 to %d", ErrInvalidPartitions, partitions, MaxPartitions)
	}
	if err := checkConfigMap(configs); err != nil {
		return nil, err
	}
	t := &Topic{Name: name, ID: NewID(), Partitions: partitions, Configs: cloneConfigs(configs), CreatedMs: s.opt.Now().UnixMilli()}
	err := s.change("create topic", func(old *Snapshot) (record, error) {
		if _, ok := old.Topics[name]; ok {
			return nil, fmt.Errorf("%w: %s", ErrTopicExists, name)
		}
		if err := old.CheckCollision(name); err != nil {
			return nil, err
		}
		if _, ok := old.DeletingName(name); ok {
			return nil, fmt.Errorf("%w: %s", ErrTopicDeleting, name)
		}
		return topicPut{t}, nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// DeleteTopic removes a topic. Afterwards it is in Snapshot.Deleting until FinishDelete. ErrUnknownTopic.
func (s *Store) DeleteTopic(id ID) error {
	return s.change("delete topic", func(old *Snapshot) (record, error) {
		if _, ok := old.TopicsByID[id]; !ok {
			return nil, fmt.Errorf("%w: id %s", ErrUnknownTopic, id)
		}
		return topicDelete{id}, nil
	})
}

// FinishDelete forgets a deleted topic whose files are gone. An id that is not being deleted is no error.
func (s *Store) FinishDelete(id ID) error {
	return s.change("finish delete", func(old *Snapshot) (record, error) {
		if _, ok := old.Deleting[id]; !ok {
			return nil, nil
		}
		return topicPurged{id}, nil
	})
}

// CreatePartitions grows a topic to total partitions. ErrUnknownTopic, ErrInvalidPartitions.
func (s *Store) CreatePartitions(id ID, total int32) error {
	return s.change("create partitions", func(old *Snapshot) (record, error) {
		t, ok := old.TopicsByID[id]
		if !ok {
			return nil, fmt.Errorf("%w: id %s", ErrUnknownTopic, id)
		}
		if total <= t.Partitions || total > MaxPartitions {
			return nil, fmt.Errorf("%w: %s has %d, want more, at most %d, not %d", ErrInvalidPartitions, t.Name, t.Partitions, MaxPartitions, total)
		}
		return topicPartitions{id, total}, nil
	})
}

// AlterTopicConfigs sets and then deletes keys of one topic in one step. ErrUnknownTopic, ErrInvalidConfig.
func (s *Store) AlterTopicConfigs(id ID, set map[string]string, del []string) error {
	return s.change("alter topic configs", func(old *Snapshot) (record, error) {
		t, ok := old.TopicsByID[id]
		if !ok {
			return nil, fmt.Errorf("%w: id %s", ErrUnknownTopic, id)
		}
		configs, err := altered(t.Configs, set, del)
		if err != nil || maps.Equal(configs, t.Configs) {
			return nil, err
		}
		return topicConfigs{id, configs}, nil
	})
}

// AlterPins sets, in one step, where an operator wants partitions of one topic: the name of a log directory, "" for wherever
// the policy puts them. ErrUnknownTopic, ErrInvalidPartitions, ErrInvalidName.
func (s *Store) AlterPins(id ID, pins map[int32]string) error {
	return s.change("alter pins", func(old *Snapshot) (record, error) {
		t, ok := old.TopicsByID[id]
		if !ok {
			return nil, fmt.Errorf("%w: id %s", ErrUnknownTopic, id)
		}
		next := maps.Clone(t.Pins)
		if next == nil {
			next = map[int32]string{}
		}
		for p, dir := range pins {
			switch {
			case p < 0 || p >= t.Partitions:
				return nil, fmt.Errorf("%w: %s has %d, and no partition %d", ErrInvalidPartitions, t.Name, t.Partitions, p)
			case len(dir) > maxNameBytes || !utf8.ValidString(dir):
				return nil, fmt.Errorf("%w: log directory of %d bytes, want at most %d of UTF-8", ErrInvalidName, len(dir), maxNameBytes)
			case dir == "":
				delete(next, p)
			default:
				next[p] = dir
			}
		}
		if maps.Equal(next, t.Pins) {
			return nil, nil
		}
		if len(next) == 0 {
			next = nil
		}
		return topicPins{id, next}, nil
	})
}

// AlterBrokerConfigs sets and then deletes dynamic broker configs; node is "" for the cluster default.
func (s *Store) AlterBrokerConfigs(node string, set map[string]string, del []string) error {
	if len(node) > maxNameBytes || !utf8.ValidString(node) {
		return fmt.Errorf("%w: node id of %d bytes, want at most %d of UTF-8", ErrInvalidName, len(node), maxNameBytes)
	}
	return s.change("alter broker configs", func(old *Snapshot) (record, error) {
		configs, err := altered(old.BrokerConfigs[node], set, del)
		if err != nil || maps.Equal(configs, old.BrokerConfigs[node]) {
			return nil, err
		}
		return brokerConfigs{node, configs}, nil
	})
}

// MaxGroups bounds the groups with configs of their own; more than this is a script gone wild.
const MaxGroups = 10_000

// AlterGroupConfigs sets and then deletes dynamic configs of a consumer group, which need not exist yet.
func (s *Store) AlterGroupConfigs(group string, set map[string]string, del []string) error {
	if group == "" || len(group) > maxNameBytes || !utf8.ValidString(group) {
		return fmt.Errorf("%w: group id of %d bytes, want 1 to %d of UTF-8", ErrInvalidName, len(group), maxNameBytes)
	}
	return s.change("alter group configs", func(old *Snapshot) (record, error) {
		current, known := old.GroupConfigs[group]
		configs, err := altered(current, set, del)
		if err != nil || maps.Equal(configs, current) {
			return nil, err
		}
		if !known && len(old.GroupConfigs) >= MaxGroups {
			return nil, fmt.Errorf("%w: %d groups have configs, which is the most: delete those of groups that are gone", ErrInvalidConfig, len(old.GroupConfigs))
		}
		return groupConfigs{group, configs}, nil
	})
}

// PutOverride stores or replaces one throttle override. ErrInvalidOverride.
func (s *Store) PutOverride(o Override) error {
	if err := o.validate(); err != nil {
		return err
	}
	return s.change("put override", func(*Snapshot) (record, error) { return overridePut{o}, nil })
}

// DeleteOverride removes one throttle override and tells whether there was one.
func (s *Store) DeleteOverride(kind, name string) (bool, error) {
	found := false
	err := s.change("delete override", func(old *Snapshot) (record, error) {
		key := OverrideKey{kind, name}
		if _, found = old.Overrides[key]; !found {
			return nil, nil
		}
		return overrideDelete{key}, nil
	})
	return found, err
}

// MaxQuotaEntities bounds the entities with client quotas.
const MaxQuotaEntities = 10_000

// AlterQuotas sets and then removes limits of one entity. Errors: quotas.ErrInvalid, ErrInvalidName.
func (s *Store) AlterQuotas(e quotas.Entity, set map[string]float64, del []string) error {
	if err := e.Check(); err != nil {
		return err
	}
	e = e.Canonical()
	for _, p := range []quotas.Part{e.User, e.ClientID, e.IP} {
		if len(p.Name) > maxNameBytes || !utf8.ValidString(p.Name) {
			return fmt.Errorf("%w: name of %d bytes in a quota entity, want at most %d of UTF-8", ErrInvalidName, len(p.Name), maxNameBytes)
		}
	}
	for name, value := range set {
		if err := quotas.CheckLimit(e, name, value, MinCatchupBytesPerSecond); err != nil {
			return err
		}
	}
	return s.change("alter client quotas", func(old *Snapshot) (record, error) {
		limits := maps.Clone(old.Quotas[e])
		if limits == nil {
			limits = map[string]float64{}
		}
		maps.Copy(limits, set)
		for _, name := range del {
			delete(limits, name)
		}
		if maps.Equal(limits, old.Quotas[e]) {
			return nil, nil
		}
		if old.Quotas[e] == nil && len(old.Quotas) >= MaxQuotaEntities {
			return nil, fmt.Errorf("%w: %d entities have quotas, which is the most: remove those that are gone", quotas.ErrInvalid, len(old.Quotas))
		}
		return quotaLimits{e, limits}, nil
	})
}

// ReserveProducerIDs hands out [first, first+n), never again also after a crash. n > 0.
func (s *Store) ReserveProducerIDs(n int64) (first int64, err error) {
	if n <= 0 || n > 1<<32 {
		return 0, fmt.Errorf("metadata: reserve %d producer ids: want 1 to %d", n, int64(1)<<32)
	}
	err = s.change("reserve producer ids", func(old *Snapshot) (record, error) {
		first = old.NextProducerID
		if first > maxProducerID-n {
			return nil, errors.New("metadata: producer ids are used up")
		}
		return producerIDs{first + n}, nil
	})
	return first, err
}

// SetTier remembers the identity that the tier's directory must show from now on.
func (s *Store) SetTier(name, uuid string) error {
	if name == "" || len(name) > maxNameBytes || uuid == "" || len(uuid) > maxNameBytes || !utf8.ValidString(name+uuid) {
		return fmt.Errorf("%w: tier %q with identity %q", ErrInvalidName, clip(name), clip(uuid))
	}
	return s.change("set tier", func(old *Snapshot) (record, error) {
		if old.Tiers[name] == uuid {
			return nil, nil
		}
		return tierPut{name, uuid}, nil
	})
}

// change runs one mutation: decide against the current snapshot, write, sync, publish. A nil record changes nothing.
func (s *Store) change(op string, decide func(old *Snapshot) (record, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%s: %w", op, ErrClosed)
	}
	if s.failed != nil {
		return fmt.Errorf("%s: %w", op, s.failed)
	}
	old := s.current.Load()
	rec, err := decide(old)
	if err != nil || rec == nil {
		return err
	}
	next := old.next()
	err = rec.apply(next)
	if err == nil {
		_, err = decodeRecord(appendRecord(nil, rec))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err) // decide let a record through that the next start would refuse: never write it
	}
	if err := s.append(rec, next.Version); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	s.current.Store(next)
	if s.opt.OnChange != nil {
		s.opt.OnChange(old, next)
	}
	s.maybeCompact()
	return nil
}

// append makes rec durable or says why not.
func (s *Store) append(rec record, seq uint64) error {
	before := s.log.size
	err := s.log.append(appendFrame(nil, seq, appendRecord(nil, rec)))
	switch {
	case err == nil:
		return nil
	case isNoSpace(err) && !s.log.syncFailed:
		// The frame is not complete: take back what was written so that the tail stays clean.
		if terr := s.log.file.Truncate(before); terr != nil {
			return s.fail(errors.Join(err, terr))
		}
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	default:
		return s.fail(err)
	}
}

// fail makes err sticky. What the disk holds is not known any more: going on could acknowledge what a crash takes back.
func (s *Store) fail(err error) error {
	s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	s.opt.Logger.Error("metadata catalogue failed, refusing changes until restart", "dir", s.dir, "err", err)
	return s.failed
}

func (s *Store) maybeCompact() {
	if s.log.size < s.log.compactAt {
		return
	}
	if err := s.compact(); err != nil && s.failed == nil {
		// The old files are intact and complete. Try again only after as much again was written.
		s.log.compactAt = s.log.size + s.opt.CompactBytes
		s.opt.Logger.Warn("metadata compaction put off", "dir", s.dir, "err", err)
	}
}

// Close folds the log into a snapshot, when that works, and closes the files. Every change was durable already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.failed == nil && s.log.size > logHeaderSize {
		if err := s.compact(); err != nil {
			s.opt.Logger.Warn("metadata compaction at close failed", "dir", s.dir, "err", err)
		}
	}
	return s.log.file.Close()
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
