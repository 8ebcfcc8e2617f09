package partition

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// Retain deletes what retention says may go, in every partition. The background loop calls it; tests do, too.
func (s *Store) Retain(now time.Time) {
	for _, l := range s.Logs() {
		if err := l.retain(now); err != nil && !errors.Is(err, ErrClosed) {
			l.log.Warn("retention failed", "err", err)
		}
	}
}

// retain deletes whole segments from the cold end: those below the log start, and, with cleanup.policy delete, those that
// are too old or too much. Only what is durable and not the active segment goes; an active segment in which every record
// is too old is rolled, so that the next round takes it.
func (l *Log) retain(now time.Time) error {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	cfg, v, durable := l.config(), l.view.Load(), l.durable.Load().offset
	excess := int64(0)
	if cfg.Delete && cfg.RetentionBytes >= 0 {
		excess = l.SizeBytes() - cfg.RetentionBytes
	}
	n := 0
	for ; n+1 < len(v.segs); n++ {
		s, next := v.segs[n], v.segs[n+1].base
		size := v.segs[n+1].before - s.before
		tooMuch := cfg.Delete && cfg.RetentionBytes >= 0 && excess >= size
		if next > durable || next > v.start && !tooMuch && !l.expired(s, cfg, now) {
			break
		}
		excess -= size
	}
	if n+1 == len(v.segs) && l.expired(v.active(), cfg, now) {
		l.rollExpired(v.active(), cfg, now)
	}
	if n == 0 {
		return nil
	}
	return l.dropPrefix(v.segs[:n], v.segs[n].base)
}

// expired: every record of s is older than retention.ms. Time comes from the records, as in Kafka; without any it is the
// file's. A record from the future keeps its segment, as in Kafka.
func (l *Log) expired(s *logSegment, cfg *Config, now time.Time) bool {
	if !cfg.Delete || cfg.RetentionMs < 0 || !s.r.Acquire() {
		return false
	}
	defer s.r.Release()
	m := s.r.Meta()
	if m.SizeBytes == 0 {
		return false
	}
	ms, _, err := s.r.MaxTimestamp()
	if err != nil {
		return false
	}
	if ms < 0 {
		e, err := s.dir.spec.FS.Stat(s.r.LogName())
		if err != nil {
			return false
		}
		ms = e.ModTime.UnixMilli()
	}
	return now.UnixMilli()-ms > cfg.RetentionMs
}

// rollExpired starts a new active segment if active still is it.
func (l *Log) rollExpired(active *logSegment, cfg *Config, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && l.w.Base() == active.base && l.w.Size() > 0 {
		_ = l.rollLocked(cfg, now) // a failure fences or is a full disk: both are reported where they happen
	}
}

// dropPrefix takes the oldest segments out of the view and deletes their files once no reader uses them.
func (l *Log) dropPrefix(segs []*logSegment, start segment.Offset) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	v := l.view.Load()
	l.setViewLocked(v.segs[len(segs):], max(v.start, start))
	l.mu.Unlock()
	for _, s := range segs {
		l.store.metrics.deletedBytes.Add(float64(s.r.Meta().SizeBytes))
		l.log.Info("segment deleted by retention", "segment", s.base, "tier", s.dir.spec.Tier)
		l.discard(s)
	}
	return l.epochs.TruncateFromStart(start)
}

// discard deletes a segment that is in no view any more, in two steps: renamed as soon as the last reader has let go,
// unlinked file.delete.delay.ms later (or at the next start).
func (l *Log) discard(s *logSegment) {
	size := s.r.Meta().SizeBytes
	fsys, dir, base := s.dir.spec.FS, l.dir, s.base
	s.r.Retire(func() {
		s.dir.used.Add(-size)
		names := []string{segment.LogName(base), segment.IndexName(base), segment.TimeIndexName(base)}
		for _, n := range names {
			if err := fsys.Rename(dir+"/"+n, dir+"/"+n+segment.DeletedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.log.Warn("segment file not renamed for deletion", "file", n, "err", err)
			}
		}
		l.store.later(l.config().FileDeleteDelay, func() {
			for _, n := range names {
				if err := fsys.Remove(dir + "/" + n + segment.DeletedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
					l.log.Warn("deleted segment file not removed: the next start removes it", "file", n, "err", err)
				}
			}
		})
	})
}

// later runs fn after a delay unless the store closes first: whatever it would do is done at the next start then.
func (s *Store) later(delay time.Duration, fn func()) {
	if delay <= 0 {
		fn()
		return
	}
	s.wg.Go(func() {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
			fn()
		case <-s.ctx.Done():
		}
	})
}

// DeleteRecords moves the log start up to before (-1: the high watermark) and makes that durable before it returns the new
// log start. Errors: ErrOffsetOutOfRange when before lies above the high watermark.
func (l *Log) DeleteRecords(_ context.Context, before segment.Offset) (segment.Offset, error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	hw := l.readable().offset
	if before == -1 {
		before = hw
	}
	if before < 0 || before > hw {
		return 0, fmt.Errorf("%w: delete below %d, high watermark %d of %s", ErrOffsetOutOfRange, before, hw, l.dir)
	}
	l.mu.Lock()
	v := l.view.Load()
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	if before > v.start {
		l.setViewLocked(v.segs, before)
	}
	l.mu.Unlock()
	if err := l.store.writeCheckpoints(); err != nil {
		return 0, l.home.writeFailed("write log start", err)
	}
	if err := l.retain(l.store.now()); err != nil {
		l.log.Warn("segments below the log start not deleted yet", "err", err)
	}
	return max(before, v.start), nil
}

// Delete stops serving all partitions of a topic and removes their directories: renamed before it returns, so that the
// topic never comes back, unlinked in the background.
func (s *Store) Delete(ctx context.Context, topic string) error {
	var gone []*Log
	s.mu.Lock()
	for k, l := range s.logs {
		if k.topic == topic {
			gone = append(gone, l)
			delete(s.logs, k)
		}
	}
	s.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	errs := []error{s.migrator.CancelWhere(ctx, func(m tiering.Move) bool { return m.Topic == topic })}
	for _, l := range gone {
		errs = append(errs, l.remove())
	}
	s.setTopicCap(topic, 0)
	return errors.Join(append(errs, s.writeCheckpoints())...)
}

// remove ends the log and renames its directories.
func (l *Log) remove() error {
	l.mu.Lock()
	l.closed = true
	v := l.view.Load()
	w := l.w
	l.mu.Unlock()
	gone := fmt.Errorf("%w: %s is deleted", ErrClosed, l.dir)
	l.failed.Store(&gone)
	l.failWaiters(gone)
	l.cursors.closeAll()
	l.maintenance.Lock()
	defer l.maintenance.Unlock()

	holders := map[*logDir]bool{l.home: true}
	for _, s := range v.segs {
		holders[s.dir] = true
		if s.r == nil {
			continue
		}
		s.dir.used.Add(-s.r.Meta().SizeBytes)
		if w == nil || s.r != w.Reader() {
			s.r.Retire(func() {})
		}
	}
	if w != nil {
		_ = w.Close(false) // its bytes are about to be removed
	}
	l.home.partitions.Add(-1)
	var errs []error
	for d := range holders {
		fsys, aside := d.spec.FS, deletedDirName(l.dir, l.id)
		switch err := fsys.Rename(l.dir, aside); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, d.writeFailed("rename deleted partition", err))
		default:
			if err := fsys.SyncDir("."); err != nil {
				d.fence("sync directory", err)
				errs = append(errs, d.fenced())
				continue
			}
			l.store.later(l.config().FileDeleteDelay, func() { l.store.removeTree(fsys, aside) })
		}
	}
	return errors.Join(errs...)
}

const deletedDirSuffix = "-delete"

// deletedDirName is Kafka's form `<dir>.<id>-delete`, shortened to what a file name may be.
func deletedDirName(dir string, id [16]byte) string {
	suffix := "." + base64.RawURLEncoding.EncodeToString(id[:]) + deletedDirSuffix
	return dir[:min(len(dir), 255-len(suffix))] + suffix
}

// removeDeleted finishes the deletions that a stop interrupted.
func (s *Store) removeDeleted() error {
	for _, d := range s.dirs {
		entries, err := d.spec.FS.List(".")
		if err != nil {
			return fmt.Errorf("list %s: %w", d.spec.FS.Root(), err)
		}
		for _, e := range entries {
			if e.Dir && strings.HasSuffix(e.Name, deletedDirSuffix) && strings.Contains(e.Name, ".") {
				s.removeTree(d.spec.FS, e.Name)
			}
		}
	}
	return nil
}

// removeTree unlinks a renamed partition directory. What cannot be removed now is left to the next start.
func (s *Store) removeTree(fsys vfs.FS, dir string) {
	entries, err := fsys.List(dir)
	if err != nil {
		s.opt.Logger.Warn("deleted partition not removed", "dir", dir, "err", err)
		return
	}
	for _, e := range entries {
		if e.Dir {
			s.removeTree(fsys, dir+"/"+e.Name)
		} else if err := fsys.Remove(dir + "/" + e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opt.Logger.Warn("deleted partition's file not removed", "dir", dir, "file", e.Name, "err", err)
		}
	}
	if err := fsys.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opt.Logger.Warn("deleted partition not removed", "dir", dir, "err", err)
	}
}
