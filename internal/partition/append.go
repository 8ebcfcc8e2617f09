package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lagoon/internal/records"
	"lagoon/segment"
)

// snapshotEveryBytes is how much may be appended before the producers are saved again: a bound on the headers that an
// unclean start has to read (64 MiB are 40 ms of sequential reading on an SSD, half a second on a disk).
const snapshotEveryBytes = 64 << 20

// Append writes one batch at the end of the log and returns after the write, in call order per log; Durable tells when
// the batch is on stable storage. A duplicate of a remembered batch is not written again: its first offsets come back.
// Errors: those of segment.ValidateBatch, ProducerState.Check, CheckMarker and CheckEpochPerTxn, segment.ErrInvalidTxnState for a transactional batch
// without a guard (see GuardTxn), segment.ErrFull for a batch larger than a segment may be, ErrFenced, ErrDiskFull, ErrClosed.
func (l *Log) Append(_ context.Context, req AppendRequest) (Appended, error) {
	cfg, now := l.config(), l.store.now()
	nowMs := now.UnixMilli()
	limit := max(cfg.MaxMessageBytes, 1) // 0 lets nothing in
	if req.Internal {
		limit = 0 // a transaction must be able to end
	}
	h, err := segment.ValidateBatch(req.Records, segment.Limits{
		MaxBatchBytes:        limit,
		NowMs:                nowMs,
		Window:               !cfg.LogAppendTime && !req.Internal,
		TimestampBeforeMaxMs: cfg.TimestampBeforeMaxMs,
		TimestampAfterMaxMs:  cfg.TimestampAfterMaxMs,
		AllowControl:         req.Internal,
		RequireKey:           cfg.Compact,
	})
	if err != nil {
		return Appended{}, err
	}
	if h.SizeBytes() > int64(cfg.SegmentBytes) && !req.Internal {
		return Appended{}, fmt.Errorf("%w: a batch of %d bytes does not fit into a segment of %d", segment.ErrFull, h.SizeBytes(), cfg.SegmentBytes)
	}
	if cfg.Compact && h.Compression() != segment.CompressionNone {
		if err := requireKeys(h, req.Records); err != nil {
			return Appended{}, err
		}
	}
	if err := l.Err(); err != nil {
		return Appended{}, err
	}
	var marker segment.Marker
	if h.IsControl() {
		if marker, err = segment.ParseMarker(req.Records); err != nil {
			return Appended{}, err
		}
	}
	if l.home.full.Load() && !req.Internal {
		return Appended{}, fmt.Errorf("%w: %s", ErrDiskFull, l.home.spec.FS.Root())
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Appended{}, ErrClosed
	}
	verdict, err := l.producers.Check(h)
	if err != nil {
		return Appended{}, err
	}
	start := l.view.Load().start
	if verdict.Kind == segment.Duplicate {
		a := Appended{Base: verdict.Base, Next: verdict.Last + 1, LogAppendTimeMs: -1, LogStart: start, Duplicate: true}
		if cfg.LogAppendTime {
			a.LogAppendTimeMs = verdict.TimestampMs
		}
		return a, nil
	}
	if err := l.checkTxnLocked(h, marker, req); err != nil {
		return Appended{}, err
	}
	l.appendOnWay.begin(now.Sub(l.store.opened))
	defer l.appendOnWay.end()
	if l.mustRoll(h, cfg, now) {
		if err := l.rollLocked(cfg, now); err != nil {
			return Appended{}, err
		}
	}
	base := l.w.Next()
	segment.AssignOffsets(req.Records, base, l.epoch())
	appendTime := int64(-1)
	if cfg.LogAppendTime {
		appendTime = nowMs
		segment.SetLogAppendTime(req.Records, nowMs)
	}
	if h, err = segment.DecodeHeader(req.Records); err != nil {
		return Appended{}, err
	}
	l.ages.note(base, now)
	var before *bound
	if l.delivery.on {
		before = l.endBound()
	}
	if _, err := l.w.Append(req.Records, h); err != nil {
		return Appended{}, l.home.writerFailed("append", l.w, err)
	}
	var ended segment.AbortedTxn
	endedOne := false
	if h.IsControl() {
		ended, endedOne = l.producers.Finish(h, marker, base, l.store.steadyMs())
	} else {
		l.producers.Update(h, base, l.store.steadyMs())
	}
	if h.IsTransactional() {
		l.noteTxnLocked(h, marker, ended, endedOne)
	}
	l.sinceSnapshot += h.SizeBytes()
	l.endPos.Add(h.SizeBytes())
	l.end.Store(int64(h.NextOffset()))
	l.home.used.Add(h.SizeBytes())
	l.bytesIn.Add(h.SizeBytes())
	l.recordsIn.Add(int64(h.Count))
	if before != nil {
		l.delayAppendedLocked(before, l.store.steadyMs())
	}
	if cfg.FlushInterval > 0 {
		l.written.Store(l.endBound())
		if l.unstable.Load() != noTxn {
			l.settleLocked()
		}
		l.wakeReaders(l.readable().offset)
		if l.w.Size()-l.writtenBack >= l.home.writeBackStep() {
			l.home.commit.scheduleFile(l)
		}
		l.home.harm.produce.observe(l.store.now().Sub(now))
	} else {
		if l.unsyncedAt.IsZero() {
			l.unsyncedAt = now
		}
		l.home.commit.schedule(l)
	}
	return Appended{Base: base, Next: h.NextOffset(), LogAppendTimeMs: appendTime, LogStart: start}, nil
}

// checkTxnLocked: markers come from the newest coordinator, and a batch that opens a transaction has been announced to it.
func (l *Log) checkTxnLocked(h segment.BatchHeader, m segment.Marker, req AppendRequest) error {
	if req.EpochPerTxn {
		if err := l.producers.CheckEpochPerTxn(h); err != nil {
			return err
		}
	}
	switch {
	case h.IsControl():
		return l.producers.CheckMarker(h, m)
	case h.IsTransactional() && !l.producers.TxnOpen(h.ProducerID, h.ProducerEpoch) && (req.Guard == 0 || l.guards[h.ProducerID].TxnGuard != req.Guard):
		return fmt.Errorf("%w: producer %d has no open transaction with %s", segment.ErrInvalidTxnState, h.ProducerID, l.dir)
	}
	return nil
}

// requireKeys unpacks the batch of a compacted topic, record by record: without a key, or unreadable, none could ever be compacted.
func requireKeys(h segment.BatchHeader, batch []byte) error {
	const most = 100 // indexes in the answer
	refused := segment.RecordsError{Reason: "no key, and the topic is compacted", Err: segment.ErrInvalidRecord}
	i := int32(0)
	err := records.Each(h, batch, func(r records.Record) bool {
		if r.Key == nil {
			refused.Indexes = append(refused.Indexes, i)
		}
		i++
		return len(refused.Indexes) < most
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", segment.ErrInvalidRecord, err)
	case len(refused.Indexes) > 0:
		return &refused
	}
	return nil
}

// mustRoll: the active segment is full (by size or by index), too old, or cannot hold the batch, whose offsets are not assigned yet.
func (l *Log) mustRoll(h segment.BatchHeader, cfg *Config, now time.Time) bool {
	h.BaseOffset = l.w.Next() // it may be too far from the segment's first offset for an index
	if !l.w.Fits(h) {
		return true
	}
	if l.w.Size() == 0 {
		return false
	}
	if l.w.Size()+h.SizeBytes() > int64(cfg.SegmentBytes) {
		return true
	}
	// Kafka rolls by the batches' own time as soon as it runs ahead, and by the clock otherwise.
	if cfg.SegmentMs <= 0 {
		return false
	}
	if cfg.LogAppendTime {
		h.MaxTimestamp = now.UnixMilli() // as it will be; what the client says may be anything
	}
	first := l.w.FirstTimestamp()
	return first >= 0 && h.MaxTimestamp-first > cfg.SegmentMs || now.Sub(l.rolledAt).Milliseconds() > cfg.SegmentMs
}

// rollLocked starts a new active segment at the end of the log. The old one is synced and sealed by the next commit, so
// that no append waits for a sync here.
func (l *Log) rollLocked(cfg *Config, now time.Time) error {
	next := l.w.Next()
	w, err := segment.Create(l.home.spec.FS, l.dir, next, cfg.segmentOptions(l.home), l.store.files)
	if err != nil {
		return l.home.writeFailed("roll segment", err)
	}
	v := l.view.Load()
	segs := append(v.segs[:len(v.segs):len(v.segs)], newLogSegment(w.Reader(), l.home, next, l.endPos.Load()))
	l.sealing = append(l.sealing, l.w)
	l.w, l.rolledAt, l.snapshotDue, l.writtenBack, l.indexSaved = w, now, true, 0, 0
	l.setViewLocked(segs, v.start)
	l.home.commit.scheduleFile(l)
	l.store.metrics.rolls.Inc()
	return nil
}

// sealOne syncs and seals a rolled segment and takes it off the list. When only its index files found no space, or no descriptor, the log
// is durable all the same: the segment stays on the list and tick asks again. Called by the committer.
func (l *Log) sealOne(w *segment.Writer) error {
	if _, err := w.Seal(); err != nil {
		if err := l.home.writerFailed("seal segment", w, err); !errors.Is(err, ErrDiskFull) && !passing(err) {
			return err
		}
		return w.SyncData()
	}
	l.mu.Lock()
	l.sealing = slices.DeleteFunc(l.sealing, func(x *segment.Writer) bool { return x == w })
	l.mu.Unlock()
	l.store.segmentSealed()
	return nil
}

// writeBackStep is how much a log with a flush interval has unwritten before it begins to write, so that dirty pages do not pile up
// and are clean when they have to go. On a rotating disk every step costs a seek.
func (d *logDir) writeBackStep() int64 {
	if d.spec.Rotating {
		return 8 << 20
	}
	return 1 << 20
}

// pendingSnapshot is a copy of the producers at one offset, to be saved once the log is durable up to it.
type pendingSnapshot struct {
	state *segment.ProducerState
	at    segment.Offset
}

// takeSnapshotLocked copies the producers when enough was appended since the last time, or a segment was rolled. A log
// without producers has snapshots too: they say that no segment below them need be read for any.
func (l *Log) takeSnapshotLocked() *pendingSnapshot {
	if !l.snapshotDue && l.sinceSnapshot < snapshotEveryBytes {
		return nil
	}
	l.sinceSnapshot, l.snapshotDue = 0, false
	s := &pendingSnapshot{state: l.producers.Clone(), at: l.w.Next()}
	s.state.Shift(l.store.aheadMs())
	return s
}

// saveSnapshot writes a snapshot and drops all but the newest two. Failing costs recovery time, never data: segments above
// the newest snapshot stay in the hottest tier, where the next start reads them. tick tries again.
// The aborted transactions below it come first, for it says that they need not be looked for: those of w here, those of older segments
// when they were sealed.
func (l *Log) saveSnapshot(s *pendingSnapshot, w *segment.Writer) {
	l.mu.Lock()
	unsealed := len(l.sealing) > 0 && l.sealing[0].Base() < w.Base()
	l.mu.Unlock()
	err := error(nil)
	if unsealed {
		err = fmt.Errorf("%w: an older segment is not sealed", ErrDiskFull)
	} else if err = w.SaveAborted(s.at); err == nil {
		err = s.state.Save(l.home.spec.FS, l.dir, s.at)
	}
	if err != nil {
		l.log.Warn("producer snapshot not written: the next unclean start reads more", "offset", s.at, "err", err)
		l.mu.Lock()
		l.snapshotDue = true
		l.mu.Unlock()
		return
	}
	l.snapshotAt.Store(int64(s.at))
	l.dropOldSnapshots()
	l.store.wakePlanner() // what it covers may move now
	l.store.mayCompactNow(l)
}

// dropOldSnapshots keeps the newest two: one to use, one in case it is damaged.
func (l *Log) dropOldSnapshots() {
	listing, err := segment.ListDir(l.home.spec.FS, l.dir)
	if err != nil || len(listing.Snapshots) <= 2 {
		return
	}
	oldestKept := listing.Snapshots[len(listing.Snapshots)-2]
	if err := segment.RemoveSnapshots(l.home.spec.FS, l.dir, func(o segment.Offset) bool { return o < oldestKept }); err != nil {
		l.log.Warn("old producer snapshots not removed", "err", err)
	}
}

// rotatingPreallocate is the largest step in which a file on a rotating disk gets its space. Files that grow side by side lie on the
// disk in pieces of that size, and each piece costs whoever reads it a seek of 10 ms: 2 % of the time that a disk of 150 MB/s takes for
// it, in place of 9 % with 16 MiB (docs/benchmarks.md).
const rotatingPreallocate = 64 << 20

// segmentOptions are the parts of a topic's configuration that the segment files need in d, as near as files can be: Kafka takes an
// index of 4 bytes, and an interval of 0 for an entry per batch.
func (c *Config) segmentOptions(d *logDir) segment.Options {
	o := segment.Options{SegmentBytes: c.SegmentBytes, IndexIntervalBytes: max(c.IndexIntervalBytes, 1), IndexBytes: max(c.SegmentIndexBytes, segment.MinIndexBytes)}
	if d.spec.Rotating {
		o.PreallocateBytes = rotatingPreallocate
	}
	return o
}
