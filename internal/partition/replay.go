package partition

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// openJournal replays what an earlier run has left in a directory's commit journal, and begins a new one if there is to be one. files is the
// directory's committer.
func (s *Store) openJournal(d *logDir, files *fileCommitter) error {
	c := s.checkpoints[d]
	if err := s.replayJournal(d, c.saved, !c.doubtful); err != nil {
		return err
	}
	if d.spec.JournalBytes == 0 {
		return s.removeJournal(d)
	}
	opt := journal.Options{Bytes: d.spec.JournalBytes / journal.Block * journal.Block, MaxRound: int(roundBytes(d.spec)), Cache: s.opt.Cache}
	j, err := journal.Open(d.spec.FS, opt)
	if err != nil {
		return fmt.Errorf("log directory %s: %w", d.spec.FS.Root(), err)
	}
	d.journal = newJournalCommitter(s, d, files, j)
	d.commit = d.journal
	return nil
}

// dropJournal is openJournal for a directory that is not of the hottest tier, or not any more: no log commits there.
func (s *Store) dropJournal(d *logDir) error {
	if err := s.replayJournal(d, marks{}, false); err != nil {
		return err
	}
	return s.removeJournal(d)
}

func (s *Store) removeJournal(d *logDir) error {
	if err := journal.Remove(d.spec.FS); err != nil {
		return fmt.Errorf("log directory %s: %w", d.spec.FS.Root(), err)
	}
	return nil
}

// replayJournal brings what a directory's commit journal holds into the segment files, stable, before any of them is opened. m is what the
// directory's checkpoints say; trusted: all of them could be read. Errors name the file: those of the file system, and journal.ErrVersion.
func (s *Store) replayJournal(d *logDir, m marks, trusted bool) error {
	r := replayer{fs: d.spec.FS, log: s.opt.Logger, marks: m, trusted: trusted, dirs: map[string]*replayDir{}, files: map[string]vfs.File{}}
	res, err := journal.Replay(r.fs, r.apply)
	if err == nil {
		err = r.sync()
	}
	r.close()
	if err != nil {
		return fmt.Errorf("log directory %s: replay of the commit journal: %w", r.fs.Root(), err)
	}
	for _, e := range res.Damaged { // the segment files are checked as well, and tell what is missing
		r.log.Error("commit journal damaged: what it held there may be missing from segment files", "path", r.fs.Root(), "err", e)
	}
	if res.Rounds > 0 {
		r.log.Info("commit journal replayed", "path", r.fs.Root(), "rounds", res.Rounds, "bytes", res.Bytes, "written_bytes", r.written, "skipped", r.skipped)
	}
	return nil
}

// closeJournal ends the journal of d, if it has one, when all logs are closed. clean: everything is in the segment files, and nothing
// is to be replayed.
func (s *Store) closeJournal(d *logDir, clean bool) error {
	if d.journal == nil {
		return nil
	}
	j, err := d.journal.j, error(nil)
	if clean && d.fenced() == nil {
		err = j.Reset()
	}
	return errors.Join(err, j.Close())
}

// replayer writes entries of a journal to segment files, also those that a file seems to hold: after a failed sync, which made an earlier run
// end, the bytes are in the page cache, and no later sync writes them.
type replayer struct {
	fs    vfs.FS
	log   *slog.Logger
	marks marks
	// trusted: the marks are all that was saved.
	trusted bool
	dirs    map[string]*replayDir
	files   map[string]vfs.File // written to; at most replayFiles

	written int64 // bytes
	skipped int64 // entries
}

// replayFiles bounds the open files of a replay.
const replayFiles = 256

// replayDir is a partition directory of the entries; nil when it is not there.
type replayDir struct {
	id   [16]byte
	segs map[segment.Offset]bool // without an index file: never sealed
	last segment.Offset
	due  bool // files in it were written to: their names may not be durable either, whoever made them
}

// apply writes one entry. Left out is what the segment files hold for sure, or what nobody wants: entries below the recovery point, which
// files were synced up to, and compacted perhaps; entries of topics that are deleted, and of segments that are.
// A segment that the entry begins is made, if it is newer than all others, or at or above the recovery point, and not deleted: its name was not
// durable yet. Whatever removes a segment has the recovery point written first.
func (r *replayer) apply(e journal.Entry, data []byte) error {
	topic, partition, ok := segment.ParsePartitionDir(e.Dir)
	base, tp := segment.Offset(e.Base), segment.TopicPartition{Topic: topic, Partition: partition}
	dir, err := r.dir(e.Dir, ok)
	if err != nil {
		return err
	}
	point, known := r.marks.points[tp]
	if dir == nil || dir.id != e.TopicID || known && segment.Offset(e.Next) <= point {
		r.skipped++
		return nil
	}
	name := e.Dir + "/" + segment.LogName(base)
	open, there := dir.segs[base]
	switch {
	case !there && e.Pos == 0 && segment.Offset(e.Next) > r.marks.starts[tp] && (base > dir.last || r.trusted && base >= point):
		if err := r.create(name); err != nil {
			return err
		}
		dir.segs[base], dir.last = true, max(dir.last, base)
	case !there, !known && !open && base != dir.last: // deleted; or sealed, and so synced
		r.skipped++
		return nil
	}
	f, err := r.file(name)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	if e.Pos > size {
		r.log.Error("segment file shorter than the commit journal says it was: restore it from a copy; the journal's part of it is written where it belongs",
			"path", r.fs.Root(), "segment", f.Name(), "size", size, "pos", e.Pos)
	}
	dir.due = true
	if _, err := f.WriteAt(data, e.Pos); err != nil {
		return err
	}
	r.written += int64(len(data))
	return nil
}

// dir looks at a partition directory once.
func (r *replayer) dir(name string, valid bool) (*replayDir, error) {
	d, seen := r.dirs[name]
	if seen || !valid {
		return d, nil
	}
	id, err := segment.ReadPartitionMetadata(r.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		r.dirs[name] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	listing, err := segment.ListDir(r.fs, name)
	if err != nil {
		return nil, err
	}
	d = &replayDir{id: id, segs: map[segment.Offset]bool{}, last: -1}
	for _, s := range listing.Segments {
		_, err := r.fs.Stat(name + "/" + segment.IndexName(s.Base))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		d.segs[s.Base] = errors.Is(err, fs.ErrNotExist)
		d.last = s.Base
	}
	r.dirs[name] = d
	return d, nil
}

// create makes an empty segment file.
func (r *replayer) create(name string) error {
	f, err := r.fs.Create(name)
	if err != nil {
		return err
	}
	return f.Close()
}

func (r *replayer) file(name string) (vfs.File, error) {
	if f := r.files[name]; f != nil {
		return f, nil
	}
	if len(r.files) == replayFiles {
		if err := r.sync(); err != nil {
			return nil, err
		}
		r.close()
	}
	f, err := r.fs.Open(name, vfs.ReadWrite)
	if err == nil {
		r.files[name] = f
	}
	return f, err
}

// sync makes stable what was written, with the files' names: the journal is overwritten next.
func (r *replayer) sync() error {
	for _, f := range r.files {
		if err := f.SyncData(); err != nil {
			return err
		}
	}
	for name, dir := range r.dirs {
		if dir == nil || !dir.due {
			continue
		}
		if err := r.fs.SyncDir(name); err != nil {
			return err
		}
		dir.due = false
	}
	return nil
}

func (r *replayer) close() {
	for _, f := range r.files {
		_ = f.Close() // synced
	}
	clear(r.files)
}
