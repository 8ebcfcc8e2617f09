package partition

import (
	"fmt"
	"maps"
	"sync"

	"lagoon/segment"
)

// marks are what a log directory's checkpoint files say: up to where each log is durable, where it starts, and up to where it was
// compacted.
type marks struct {
	points, starts, cleaned map[segment.TopicPartition]segment.Offset
}

func (m marks) clone() marks {
	return marks{maps.Clone(m.points), maps.Clone(m.starts), maps.Clone(m.cleaned)}
}

// checkpoints are the marks of one directory in the hottest tier. Each has a lock of its own: it is held while the files are written, which a
// disk may not answer.
type checkpoints struct {
	mu    sync.Mutex
	saved marks // in the files, so that an idle broker writes nothing
	// unserved is what the last run left for partitions that this one does not serve: not loaded yet, offline, or of no
	// known topic. It stays in the files until the partition is deleted.
	unserved marks
	doubtful bool // a write failed: what the files hold is not known
}

// checkpoint writes recovery points and log starts of a home directory in the background; failing costs recovery time only.
func (s *Store) checkpoint(d *logDir) {
	if d.fenced() != nil {
		return
	}
	for _, l := range s.logsOf(d) {
		l.checkpointIndex()
	}
	d.gate.between()
	if err := s.writeMarks(d); err != nil {
		s.opt.Logger.Warn("checkpoints not written: the next unclean start reads more", "err", err)
	}
}

// writeMarks brings the checkpoint files of a home directory up to date. Errors: ErrFenced; those of the file system.
func (s *Store) writeMarks(d *logDir) error {
	c := s.checkpoints[d]
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.writeMarksLocked(d, c)
}

func (s *Store) writeMarksLocked(d *logDir, c *checkpoints) error {
	if err := d.fenced(); err != nil {
		return err
	}
	now := c.unserved.clone()
	for _, l := range s.logsOf(d) {
		if l.failed.Load() != nil {
			continue
		}
		tp := l.key()
		now.points[tp] = l.filed.Load().offset // what is in the commit journal alone is replayed
		// A start that segments imply is written too: after a power cut segments that were deleted may be back, all or some.
		if start := l.view.Load().start; start > 0 {
			now.starts[tp] = start
		} else {
			delete(now.starts, tp)
		}
		if cleaned := l.compact.cleaned.Load(); cleaned > 0 || l.compact.begun.Load() {
			now.cleaned[tp] = segment.Offset(cleaned)
		}
	}
	write := func(name string, saved *map[segment.TopicPartition]segment.Offset, now map[segment.TopicPartition]segment.Offset) error {
		if !c.doubtful && maps.Equal(*saved, now) {
			return nil
		}
		end := s.work(d)
		err := segment.WriteCheckpoint(d.spec.FS, name, now)
		end()
		if err != nil {
			c.doubtful = true
			return fmt.Errorf("log directory %s: %w", d.spec.FS.Root(), err)
		}
		*saved = now
		return nil
	}
	if err := write(segment.LogStartFile, &c.saved.starts, now.starts); err != nil {
		return err
	}
	if err := write(segment.RecoveryPointFile, &c.saved.points, now.points); err != nil {
		return err
	}
	if err := write(segment.CleanerFile, &c.saved.cleaned, now.cleaned); err != nil {
		return err
	}
	c.doubtful = false
	return nil
}

// remember gives what the last run left for a partition whose home is d. compacted: a compaction had begun.
func (s *Store) remember(d *logDir, tp segment.TopicPartition) (point, start, cleaned segment.Offset, compacted bool) {
	c := s.checkpoints[d]
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.unserved
	cleaned, compacted = m.cleaned[tp]
	return m.points[tp], m.starts[tp], cleaned, compacted
}

// forget takes partitions that are deleted, or about to be made in d, out of memory and files there. A later partition of the same
// name must find nothing of them in its home: neither begin at their start nor be trusted up to their recovery point.
func (s *Store) forget(d *logDir, tps ...segment.TopicPartition) error {
	c := s.checkpoints[d]
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stale := c.doubtful
	for _, tp := range tps {
		delete(c.unserved.points, tp)
		delete(c.unserved.starts, tp)
		delete(c.unserved.cleaned, tp)
		_, point := c.saved.points[tp]
		_, start := c.saved.starts[tp]
		_, cleaned := c.saved.cleaned[tp]
		stale = stale || point || start || cleaned
	}
	if !stale {
		return nil
	}
	return s.writeMarksLocked(d, c)
}

// key names the log in checkpoints.
func (l *Log) key() segment.TopicPartition {
	return segment.TopicPartition{Topic: l.topic, Partition: l.partition}
}

// indexCheckpointBytes is how much may be appended before the active segment's index is written out again: what an unclean
// start has to walk over, header by header, below the recovery point.
const indexCheckpointBytes = 32 << 20

// checkpointIndex saves the active segment's index now and then, so that recovery need not walk the segment from its start.
func (l *Log) checkpointIndex() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.Err() != nil || l.w.Size()-l.indexSaved < indexCheckpointBytes {
		return
	}
	l.indexSaved = l.w.Size()
	if err := l.w.CheckpointIndex(); err != nil {
		l.log.Warn("index checkpoint not written: the next unclean start reads more", "err", err)
	}
}
