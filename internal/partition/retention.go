package partition

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// Retain deletes what retention says may go, in every partition, for tests.
// Deletions become durable as a log start first: after a power cut some of the deleted segments may be back.
func (s *Store) Retain(now time.Time) {
	for _, g := range s.byPlace() {
		s.retain(g, now)
	}
}

// retainSoon is Retain in the background, side by side for partitions that lie in different directories.
func (s *Store) retainSoon(now time.Time) {
	for _, g := range s.byPlace() {
		if s.retaining.begin(g.place) {
			s.wg.Go(func() {
				defer s.retaining.end(g.place)
				s.retain(g, now)
			})
		}
	}
}

// retain is Retain for partitions that lie in the same directories.
func (s *Store) retain(g placedLogs, now time.Time) {
	var drops, left []drop
	for _, l := range g.logs {
		left = append(left, l.takeLeft()...)
		d, err := l.retain(now)
		if err != nil && !errors.Is(err, ErrClosed) {
			l.log.Warn("retention failed", "err", err)
		}
		if len(d.segs) > 0 {
			drops = append(drops, d)
		}
	}
	if len(drops)+len(left) == 0 {
		return
	}
	err := s.writeMarks(s.dirs[g.place.home])
	if err != nil {
		s.opt.Logger.Warn("log starts not written: segments are deleted one by one", "err", err)
	}
	for _, d := range left {
		if err != nil {
			d.leave()
		} else {
			d.discard(true)
		}
	}
	for _, d := range drops {
		d.noteLost(now)
		d.discard(err == nil)
	}
}

// drop is the oldest segments of a log, taken out of its view.
type drop struct {
	log   *Log
	segs  []*logSegment
	start segment.Offset
}

// retain takes whole segments off the cold end: those below the log start, and, with cleanup.policy delete, those that are
// too old or too much. Only what is durable in its file and sealed goes; an active segment in which every record is too old is rolled,
// so that the next round takes it, and so is any where retention.bytes is 0.
func (l *Log) retain(now time.Time) (drop, error) {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	if err := l.Err(); err != nil {
		return drop{}, err
	}
	cfg, v, filed := l.config(), l.view.Load(), l.filed.Load().offset
	excess := int64(0)
	if cfg.Delete && cfg.RetentionBytes >= 0 {
		excess = l.SizeBytes() - cfg.RetentionBytes
	}
	n := 0
	for ; n+1 < len(v.segs); n++ {
		s, next := v.segs[n], v.segs[n+1].base
		size := s.bytes()
		tooMuch := cfg.Delete && cfg.RetentionBytes >= 0 && excess >= size
		if next > filed || !s.r.Meta().Sealed || next > v.start && !tooMuch && !l.expired(s, cfg, now) {
			break
		}
		excess -= size
	}
	if n+1 == len(v.segs) {
		active := v.active()
		if nothing := cfg.Delete && cfg.RetentionBytes == 0; nothing || l.expired(active, cfg, now) {
			l.rollExpired(active, cfg, now)
		}
	}
	if n == 0 {
		return drop{}, nil
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
	// The hint first: a segment that is young by it need not be looked into.
	if _, ms, _, known := s.r.KnownTimestamps(); known && ms >= 0 && now.UnixMilli()-ms <= cfg.RetentionMs {
		return false
	}
	defer l.store.work(s.dir)()
	ms, _, err := s.r.MaxTimestamp()
	if err != nil || ms >= 0 && now.UnixMilli()-ms <= cfg.RetentionMs {
		return false
	}
	if m.Sealed { // a damaged time index must not delete records: the log itself has the last word
		if ms, err = s.r.VerifyMaxTimestamp(); err != nil {
			return false
		}
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

// dropPrefix takes the oldest segments out of the view.
func (l *Log) dropPrefix(segs []*logSegment, start segment.Offset) (drop, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return drop{}, ErrClosed
	}
	v := l.view.Load()
	l.setViewLocked(v.segs[len(segs):], max(v.start, start))
	return drop{l, segs, start}, nil
}

// discard deletes the files once no reader uses them. recorded: the new log start is durable, and it does not matter which
// of them a power cut brings back. Else (a full disk gets space in no other way) each is durably gone before the next, so
// that what comes back continues the log; where that fails the rest is left until a log start can be written, or to the next start.
func (d drop) discard(recorded bool) {
	if d.log == nil {
		return
	}
	if !recorded && d.log.hasLeft() {
		d.leave() // what is older comes first
		return
	}
	for i, s := range d.segs {
		d.log.store.metrics.deletedBytes.Add(float64(s.r.Meta().SizeBytes))
		d.log.log.Info("segment deleted by retention", "segment", s.base, "tier", s.dir.spec.Tier)
		if gone := d.log.discard(s, !recorded); !gone && !recorded {
			drop{d.log, d.segs[i+1:], d.start}.leave()
			return
		}
	}
	if err := d.log.epochs.TruncateFromStart(d.start); err != nil {
		d.log.log.Warn("leader epochs below the log start not dropped", "err", err)
	}
}

// leave puts off what could not be discarded. Nobody finds it any more.
func (d drop) leave() {
	for _, s := range d.segs {
		s.pin.close()
	}
	d.log.maintenance.Lock()
	defer d.log.maintenance.Unlock()
	if d.log.isClosed() {
		d.release()
	} else {
		d.log.left = append(d.log.left, d) // also without segments: one before them is still there
	}
}

func (l *Log) hasLeft() bool {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	return len(l.left) > 0
}

// release gives back what is held of segments whose files stay where they are.
func (d drop) release() {
	for _, s := range d.segs {
		s.dir.used.Add(-s.r.Meta().SizeBytes)
		s.pin.close()
		s.r.Retire(func() {})
	}
}

// takeLeft gives what was put off.
func (l *Log) takeLeft() []drop {
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	left := l.left
	l.left = nil
	return left
}

// discard deletes a segment that is in no view any more, in two steps: renamed as soon as the last reader has let go,
// unlinked file.delete.delay.ms later (or at the next start). gone: the renaming is done, and durable if that was asked for.
func (l *Log) discard(s *logSegment, durably bool) (gone bool) {
	size := s.r.Meta().SizeBytes
	begun, done := make(chan struct{}), make(chan error, 1)
	s.pin.close()
	s.r.Retire(func() { // on the goroutine of the last reader, which must not wait for the device
		s.dir.used.Add(-size)
		close(begun)
		l.store.wg.Go(func() { done <- l.removeFiles(s, durably) })
	})
	select {
	case <-begun:
		return <-done == nil
	default:
		return false // a reader still has it
	}
}

// removeFiles renames the files of a discarded segment, and unlinks them later. The error is that of the first.
func (l *Log) removeFiles(s *logSegment, durably bool) (err error) {
	fsys, dir, names := s.dir.spec.FS, l.dir, segment.Files(s.base)
	err = ErrClosed
	l.onFiles(func() {
		defer l.store.work(s.dir)()
		var errs []error
		for _, n := range names {
			if err := fsys.Rename(dir+"/"+n, dir+"/"+n+segment.DeletedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if durably {
			errs = append(errs, fsys.SyncDir(dir))
		}
		if err = errors.Join(errs...); err != nil {
			l.log.Warn("segment files not renamed for deletion", "segment", s.base, "err", err)
		}
	})
	l.store.later(l.config().FileDeleteDelay, func() {
		l.onFiles(func() {
			defer l.store.work(s.dir)()
			for _, n := range names {
				if err := fsys.Remove(dir + "/" + n + segment.DeletedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
					l.log.Warn("deleted segment file not removed: the next start removes it", "file", n, "err", err)
				}
			}
		})
	})
	return err
}

// onFiles runs fn, which touches segment files by name, unless the partition is deleted: its directory goes as a whole, and
// by then its name may be another topic's.
func (l *Log) onFiles(fn func()) {
	l.filesMu.Lock()
	defer l.filesMu.Unlock()
	if !l.removed {
		fn()
	}
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
// log start. Errors: ErrOffsetOutOfRange when before lies above the high watermark; those of Synced.
func (l *Log) DeleteRecords(ctx context.Context, before segment.Offset) (segment.Offset, error) {
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
	// With a flush interval a power cut could take what is deleted here: its offsets would be given out again, below the log start.
	if err := l.Synced(ctx, before); err != nil {
		return 0, err
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
	dropped, retainErr := l.retain(l.store.now())
	err := l.store.writeMarks(l.home)
	dropped.discard(err == nil)
	if err != nil {
		return 0, l.home.writeFailed("write log start", err)
	}
	if retainErr != nil {
		l.log.Warn("segments below the log start not deleted yet", "err", retainErr)
	}
	return max(before, v.start), nil
}

// Delete stops serving all partitions of a topic and removes their directories in every tier, also those of partitions that
// are not served (what an interrupted deletion left): renamed before it returns, so that the topic never comes back,
// unlinked in the background. Those that name another id are left alone. It may be repeated. The caller makes no topic of this name meanwhile.
// It has no end while a device that holds something of the topic does not answer, and what lies elsewhere is gone by then; ErrNoAnswer is for one
// that did not at the start.
func (s *Store) Delete(ctx context.Context, topic string, id [16]byte) error {
	gone, unmade := map[int32]*Log{}, map[int32]*creation{}
	s.mu.Lock()
	for k, l := range s.logs {
		if k.topic == topic {
			gone[k.partition] = l
			delete(s.logs, k)
		}
	}
	for k, c := range s.creations {
		if k.topic == topic {
			unmade[k.partition] = c
			c.unmet = true
		}
	}
	s.mu.Unlock()
	s.setTopicCap(topic, 0)
	del := deletion{s, topic, id, gone, unmade}
	groups := del.byPlace()
	errs := sideBySide(len(groups), func(i int) error { return del.partitions(ctx, groups[i]) })
	for _, d := range s.dirs {
		if d.lock == nil && !madeSince(gone) {
			errs = errors.Join(errs, fmt.Errorf("%w: %s: what it holds of topic %s is deleted at a start at which it does", ErrNoAnswer, d.spec.FS.Root(), topic))
		}
	}
	return errs
}

// madeSince tells whether all were made after the start: a directory that did not answer then has nothing of them.
func madeSince(logs map[int32]*Log) bool {
	for _, l := range logs {
		if !l.made {
			return false
		}
	}
	return len(logs) > 0
}

// deletion is one of a topic.
type deletion struct {
	s      *Store
	topic  string
	id     [16]byte
	gone   map[int32]*Log      // partitions that were served
	unmade map[int32]*creation // whose creation has not come to its end
}

// byPlace lists the partitions, also those that are not served, apart by the directories that may hold something of them.
func (del deletion) byPlace() [][]int32 {
	in := map[int32]uint64{}
	for p, l := range del.gone {
		in[p] |= del.s.placeOf(l).dirs
	}
	for p := range del.unmade {
		in[p] |= 0
	}
	for _, d := range del.s.dirs {
		for _, p := range d.names.of(del.topic) {
			in[p] |= d.bit()
		}
	}
	byDirs := map[uint64][]int32{}
	for p, dirs := range in {
		byDirs[dirs] = append(byDirs[dirs], p)
	}
	return slices.Collect(maps.Values(byDirs))
}

// partitions deletes those that lie in the same directories.
func (del deletion) partitions(ctx context.Context, partitions []int32) error {
	s, mine := del.s, map[int32]bool{}
	for _, p := range partitions {
		mine[p] = true
	}
	err := s.migrator.CancelWhere(ctx, func(m tiering.Move) bool { return m.Topic == del.topic && mine[m.Partition] })
	for _, p := range partitions {
		if c := del.unmade[p]; c != nil {
			<-c.done
		}
		if l := del.gone[p]; l != nil {
			l.retire()
		}
	}
	return errors.Join(err, sideBySide(len(s.dirs), func(i int) error { return del.in(s.dirs[i], partitions) }))
}

// sideBySide runs fn for 0 to n-1 at once, and joins the errors.
func sideBySide(n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// retire takes the log out of service: no append, no sync, no reader, no file touched any more.
func (l *Log) retire() {
	l.mu.Lock()
	l.closed = true
	l.endDelay()
	l.mu.Unlock()
	gone := fmt.Errorf("%w: %s is deleted", ErrClosed, l.dir)
	l.failed.Store(&gone)
	if j := l.home.journal; j != nil {
		j.noteFiled() // what it has there is of no use any more
	}
	l.failWaiters(gone)
	l.cursors.closeAll()
	l.syncing.Lock() // a running sync would take its closed descriptor for a broken disk
	defer l.syncing.Unlock()
	l.maintenance.Lock()
	defer l.maintenance.Unlock()
	l.filesMu.Lock()
	l.removed = true
	l.filesMu.Unlock()
	l.mu.Lock() // now nothing changes them any more
	v, w, sealing := l.view.Load(), l.w, l.sealing
	l.sealing = nil
	l.mu.Unlock()
	for _, s := range v.segs {
		if s.r != nil {
			drop{segs: []*logSegment{s}}.release()
		}
	}
	for _, d := range l.left {
		d.release()
	}
	l.left = nil
	if w != nil {
		l.home.partitions.Add(-1)
		for _, w := range append(sealing, w) {
			_ = w.Close(false) // its bytes are about to be removed
		}
	}
}

// in renames what one log directory has of the partitions, durably, and unlinks it later.
func (del deletion) in(d *logDir, partitions []int32) error {
	s, fsys := del.s, d.spec.FS
	delays := map[string]time.Duration{}
	var tps []segment.TopicPartition
	defer func() {
		if len(tps) == 0 {
			return
		}
		if err := s.forget(d, tps...); err != nil {
			s.opt.Logger.Warn("checkpoints still name a deleted topic", "topic", del.topic, "err", err) // making it anew tries again
		}
	}()
	for _, p := range partitions {
		name := segment.PartitionDir(del.topic, p)
		if !d.names.may(name) {
			continue
		}
		if found, err := segment.ReadPartitionMetadata(fsys, name); err == nil && found != del.id {
			s.opt.Logger.Error("partition directory of another topic of the deleted one's name: left alone", "path", fsys.Root(), "dir", name)
			continue
		}
		delay := time.Duration(0)
		if l := del.gone[p]; l != nil {
			delay = l.config().FileDeleteDelay
		}
		aside := deletedDirName(name, del.id)
		s.removeTree(fsys, aside) // of an earlier deletion
		switch err := fsys.Rename(name, aside); {
		case errors.Is(err, fs.ErrNotExist): // it was never made
			d.names.forget(name)
			continue
		case err != nil:
			return d.writeFailed("rename deleted partition", err)
		}
		delays[aside] = delay
		tps = append(tps, segment.TopicPartition{Topic: del.topic, Partition: p})
	}
	if len(delays) == 0 {
		return nil
	}
	if err := fsys.SyncDir("."); err != nil {
		d.fence("sync directory", err)
		return d.fenced()
	}
	for _, tp := range tps {
		d.names.forget(segment.PartitionDir(tp.Topic, tp.Partition))
	}
	for aside, delay := range delays {
		s.later(delay, func() { s.removeTree(fsys, aside) })
	}
	return nil
}

const deletedDirSuffix = "-delete"

// deletedDirName is Kafka's form `<dir>.<id>-delete`, shortened to what a file name may be.
func deletedDirName(dir string, id [16]byte) string {
	suffix := "." + base64.RawURLEncoding.EncodeToString(id[:]) + deletedDirSuffix
	return dir[:min(len(dir), 255-len(suffix))] + suffix
}

// removeDeleted finishes the deletions that a stop interrupted.
func (s *Store) removeDeleted() {
	for _, d := range s.dirs {
		for _, name := range d.doomed {
			s.removeTree(d.spec.FS, name)
		}
		d.doomed = nil
	}
}

// removeTree unlinks a renamed partition directory. What cannot be removed now is left to the next start.
func (s *Store) removeTree(fsys vfs.FS, dir string) {
	entries, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
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
