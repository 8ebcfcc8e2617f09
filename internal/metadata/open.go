package metadata

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"lagoon/internal/vfs"
)

const (
	snapshotSuffix = ".snapshot"
	logSuffix      = ".log"
	// reserveBytes is allocated ahead for the log, so that topics can still be deleted when the disk is full.
	reserveBytes = 256 << 10
)

// Open reads the catalogue in dir, or makes an empty one when dir does not exist or holds none.
// Errors: *CorruptError, ErrNewer, the file system's. No error path changes what is durable.
func Open(fsys vfs.FS, dir string, opt Options) (*Store, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &Store{fs: fsys, dir: dir, opt: opt.withDefaults()}
	if err := s.open(); err != nil {
		if s.log != nil {
			err = errors.Join(err, s.log.file.Close())
		}
		return nil, fmt.Errorf("open metadata in %s/%s: %w", fsys.Root(), dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return err
	}
	found, err := s.scan()
	if err != nil {
		return err
	}
	if found.newest == 0 {
		err = s.create(found)
	} else {
		err = s.load(found.newest)
	}
	if err != nil {
		return err
	}
	s.sweep(found)
	return nil
}

// generations is what the directory holds.
type generations struct {
	newest    uint64   // of the snapshots; 0: none
	files     []uint64 // generations that have any file
	leftovers []string // temporary files of a crash
	written   string   // a log that holds records; "" when there is none
}

func (s *Store) scan() (g generations, err error) {
	entries, err := s.fs.List(s.dir)
	if err != nil {
		return g, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".tmp") {
			g.leftovers = append(g.leftovers, e.Name)
			continue
		}
		number, isSnapshot := strings.CutSuffix(e.Name, snapshotSuffix)
		number, isLog := strings.CutSuffix(number, logSuffix)
		n, err := strconv.ParseUint(number, 10, 63)
		if err != nil || len(number) != 20 || n == 0 || isSnapshot == isLog {
			continue // a stranger: not ours to touch
		}
		g.files = append(g.files, n)
		if isSnapshot {
			g.newest = max(g.newest, n)
		}
		if isLog && e.Size > logHeaderSize {
			g.written = e.Name
		}
	}
	return g, nil
}

// create makes the first generation. Its snapshot is the commit point: without one no record was ever written. If there
// is a record nevertheless, somebody took the snapshot away, and starting empty would forget the topics.
func (s *Store) create(found generations) error {
	if found.written != "" {
		return &CorruptError{Path: s.fs.Root() + "/" + s.dir, Reason: "the snapshot that " + found.written + " builds on is missing"}
	}
	id := s.opt.ClusterID
	if id == "" {
		id = newClusterID()
	}
	s.current.Store(emptySnapshot(id))
	return s.begin(1)
}

// load reads one generation and leaves its log open for appending.
func (s *Store) load(generation uint64) error {
	if err := s.fs.SyncDir(s.dir); err != nil { // a process that was killed may have renamed the snapshot and not come to this
		return err
	}
	snap, err := s.readSnapshot(generation)
	if err != nil {
		return err
	}
	if s.opt.ClusterID != "" && s.opt.ClusterID != snap.ClusterID {
		return fmt.Errorf("cluster id is %s, %s is configured: this directory belongs to another cluster", snap.ClusterID, s.opt.ClusterID)
	}
	content, err := s.replay(snap, generation)
	if err != nil {
		return err
	}
	snap.private = false
	return s.resume(snap, generation, content)
}

func (s *Store) readSnapshot(generation uint64) (*Snapshot, error) {
	name := s.path(generation, snapshotSuffix)
	b, err := vfs.ReadFile(s.fs, name, maxSnapshotBytes)
	if err != nil {
		return nil, err
	}
	snap, err := decodeSnapshot(b, generation)
	return snap, s.located(name, err)
}

// replay applies the log to snap. The log was durable before the snapshot was: a missing one is damage.
func (s *Store) replay(snap *Snapshot, generation uint64) (logContent, error) {
	name := s.path(generation, logSuffix)
	b, err := vfs.ReadFile(s.fs, name, maxLogBytes)
	if isNotExist(err) {
		return logContent{}, &CorruptError{Path: s.fs.Root() + "/" + name, Reason: "the log is missing"}
	}
	if err != nil {
		return logContent{}, err
	}
	content, err := parseLog(b, generation, snap.Version)
	if err != nil {
		return content, s.located(name, err)
	}
	for i, rec := range content.records {
		snap.Version++
		if err := rec.apply(snap); err != nil {
			return content, s.located(name, &CorruptError{Reason: fmt.Sprintf("record %d: %v", i+1, err)})
		}
	}
	return content, nil
}

// resume opens the log for appending. A log that holds anything is folded into a new generation, so that a torn tail never
// shares a disk sector with a later frame and the next start reads one file.
func (s *Store) resume(snap *Snapshot, generation uint64, content logContent) error {
	file, err := s.fs.Open(s.path(generation, logSuffix), vfs.ReadWrite)
	if err != nil {
		return err
	}
	s.log = &logFile{file: file, generation: generation, size: content.size, compactAt: s.opt.CompactBytes}
	s.current.Store(snap)
	if content.size == logHeaderSize && content.torn == 0 {
		return nil
	}
	if content.torn > 0 {
		s.opt.Logger.Warn("metadata log had a torn tail", "path", s.fs.Root()+"/"+file.Name(), "valid", content.size, "cut", content.torn)
	}
	err = s.compact()
	if err == nil || s.failed != nil {
		return err
	}
	// No room for a snapshot, say. The old log goes on, its tail clean and, as far as it was believed, durable: a process that was
	// killed may not have synced its last record.
	s.opt.Logger.Warn("metadata compaction put off", "dir", s.dir, "err", err)
	if content.torn > 0 {
		if err := file.Truncate(content.size); err != nil {
			return err
		}
	}
	return file.SyncData()
}

// located puts the path into a CorruptError.
func (s *Store) located(name string, err error) error {
	if c, ok := errors.AsType[*CorruptError](err); ok {
		c.Path = s.fs.Root() + "/" + name
	}
	return err
}

// compact folds the catalogue into a new generation.
func (s *Store) compact() error {
	old := s.log
	if err := s.begin(old.generation + 1); err != nil {
		return err
	}
	if err := old.file.Close(); err != nil {
		s.opt.Logger.Warn("closing the old metadata log failed", "err", err) // all of it is in the snapshot
	}
	s.remove(s.path(old.generation, logSuffix))
	s.remove(s.path(old.generation, snapshotSuffix))
	return nil
}

// begin makes a generation from the current snapshot and appends to its log from now on.
//
//	make <g>.log, sync, sync dir  →  write <g>.snapshot.tmp, sync, rename (commit point), sync dir
//
// A crash before the commit point leaves the older generation as it is; after it, the older one is not needed.
// An error while <g>.snapshot certainly does not exist is harmless. Any other is sticky: which generation a restart will
// find is not known then, so nothing may be appended to either.
func (s *Store) begin(generation uint64) error {
	data := encodeSnapshot(s.current.Load(), generation)
	if len(data) > maxSnapshotBytes {
		return fmt.Errorf("metadata: catalogue of %d bytes, at most %d", len(data), maxSnapshotBytes)
	}
	log, err := s.createLog(generation)
	if err != nil {
		return err
	}
	snapshot := s.path(generation, snapshotSuffix)
	if err := vfs.WriteFileAtomic(s.fs, snapshot, data); err != nil {
		err = errors.Join(err, log.file.Close())
		if _, serr := s.fs.Stat(snapshot); !isNotExist(serr) {
			return s.fail(err)
		}
		s.remove(log.file.Name())
		return err
	}
	s.log = log
	return nil
}

// createLog makes the log of a generation, durable with its name, in place of one that a crash left before its commit.
func (s *Store) createLog(generation uint64) (*logFile, error) {
	name := s.path(generation, logSuffix)
	if err := s.fs.Remove(name); err != nil && !isNotExist(err) {
		return nil, err
	}
	f, err := s.fs.Create(name)
	if err != nil {
		return nil, err
	}
	err = f.Allocate(0, reserveBytes)
	if errors.Is(err, errors.ErrUnsupported) || isNoSpace(err) {
		err = nil // a courtesy for bad times, not a condition
	}
	if err == nil {
		_, err = f.WriteAt(appendLogHeader(nil, generation), 0)
	}
	if err == nil {
		err = f.SyncData()
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		err = errors.Join(err, f.Close())
		s.remove(name)
		return nil, err
	}
	return &logFile{file: f, generation: generation, size: logHeaderSize, compactAt: s.opt.CompactBytes}, nil
}

// sweep removes what interrupted compactions left: everything of a generation that is not the current one.
func (s *Store) sweep(found generations) {
	for _, g := range found.files {
		if g != s.log.generation {
			s.remove(s.path(g, snapshotSuffix))
			s.remove(s.path(g, logSuffix))
		}
	}
	for _, name := range found.leftovers {
		s.remove(path.Join(s.dir, name))
	}
}

func (s *Store) remove(name string) {
	if err := s.fs.Remove(name); err != nil && !isNotExist(err) {
		s.opt.Logger.Warn("leftover of the metadata catalogue stayed", "path", s.fs.Root()+"/"+name, "err", err)
	}
}

func (s *Store) path(generation uint64, suffix string) string {
	return path.Join(s.dir, fmt.Sprintf("%020d%s", generation, suffix))
}

// newClusterID is a random UUID in the form of KIP-78.
func newClusterID() string {
	id := NewID()
	return id.String()
}

func validClusterID(id string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	return err == nil && len(raw) == 16
}
