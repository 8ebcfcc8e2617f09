package partition

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lagoon/cachectl"
	"lagoon/internal/journal"
	"lagoon/segment"
)

const (
	// journalRound bounds one round: on a disk of 150 MB/s it takes 110 ms.
	journalRound = 16 << 20
	// journalPiece is what is written out of segment files between two rounds, or half as much again as the round had, if that is more: they must
	// keep up. The drive takes it into its cache at once, and the flush of the next round waits for it: 40 ms at 150 MB/s, the seek included.
	journalPiece = 4 << 20
	// journalIdle is how long something may be in the journal alone: its file is synced then, so that a start has little to replay.
	journalIdle = 10 * time.Second
	// journalPace: on a rotating disk a round takes a seek and a turn of the platter, 10 ms, whatever it carries. Rounds that would follow each
	// other at once would leave nothing to segment files and cold reads. One that carries less than journalPaced is not followed by a pause.
	journalPace  = 75 * time.Millisecond
	journalPaced = 256 << 10
)

// journalCommitter is a committer that copies what was appended, to any log of the directory, into one sequential stream and
// acknowledges that. The segment files are written and synced later, in large pieces, before their part of the journal is overwritten.
//
//	appends ─► queue ─► round ─► commit journal ─► durable bound        each round one write, whatever the number of logs
//	                               │ a file of it is full
//	                               └► pieces of segment files ─► their syncs ─► that file may be overwritten
//
// Nothing waits for a segment file, not even for its name: a start makes the file that the journal begins. Logs with a flush interval go to their
// files as ever, unless somebody relies on a record (Log.Synced).
type journalCommitter struct {
	dir     *logDir
	files   *fileCommitter
	now     func() time.Time // of the store
	opened  time.Time        // the same
	metrics *metrics
	cache   *cachectl.Cache
	turn    journalTurn

	most    int64            // bytes of a round
	j       *journal.Journal // run's
	window  uint64           // of the gate, of the last round; run's
	current map[*Log]*bound  // what the journal file that is being written holds, up to where; run's
	started time.Time        // the last round; run's
	carried int64            // its bytes; run's
	full    bool             // it could not take everything; run's
	piece   uint64           // as window, of the last piece; the filer's

	roundOnWay, pieceOnWay onWay

	mu      sync.Mutex
	change  sync.Cond // queue, older, closed, or a file sync came to its end
	queue   []*Log
	spare   []*Log          // an array for the next queue
	credit  int64           // bytes that may be written out before the next round
	turning bool            // run waits for the other journal file
	older   map[*Log]*bound // what the other journal file holds, nil when it may be overwritten
	closed  bool            // no more rounds but for what is queued
	ended   bool            // run has ended
	wg      sync.WaitGroup
}

func newJournalCommitter(s *Store, d *logDir, files *fileCommitter, j *journal.Journal) *journalCommitter {
	c := &journalCommitter{dir: d, files: files, now: s.opt.Now, opened: s.opened, metrics: s.metrics, cache: s.opt.Cache, most: roundBytes(d.spec), j: j, current: map[*Log]*bound{}}
	c.change.L = &c.mu
	c.wg.Go(c.run)
	c.wg.Go(c.fileOlder)
	return c
}

// roundBytes is journalRound, or a fourth of a journal file that is small.
func roundBytes(spec DirSpec) int64 {
	return min(journalRound, spec.JournalBytes/4/journal.Block*journal.Block)
}

// schedule implements committer. l.mu is held.
func (c *journalCommitter) schedule(l *Log) {
	if !l.journals() {
		c.files.schedule(l)
		return
	}
	c.mu.Lock()
	if !l.journalQueued {
		l.journalQueued = true
		c.queue = append(c.queue, l)
		c.change.Broadcast()
	}
	c.mu.Unlock()
}

// scheduleFile implements committer.
func (c *journalCommitter) scheduleFile(l *Log) { c.files.schedule(l) }

// journals tells whether a round takes what was appended: with a flush interval only if somebody relies on it. l.mu is held.
func (l *Log) journals() bool { return l.config().FlushInterval == 0 || l.syncDue }

// close implements committer.
func (c *journalCommitter) close() {
	c.mu.Lock()
	c.closed = true
	c.change.Broadcast()
	c.mu.Unlock()
	c.wg.Wait()
	c.files.close()
}

// noteFiled is called when a file sync has ended.
func (c *journalCommitter) noteFiled() {
	c.mu.Lock()
	c.change.Broadcast()
	c.mu.Unlock()
}

// run writes rounds.
func (c *journalCommitter) run() {
	for {
		logs, ok := c.next()
		if !ok {
			break
		}
		if c.j.Left() < c.most && !c.turnOver() {
			continue // fenced: the queue is dropped
		}
		c.turn.enter(journalTurnRound)
		c.beginGate(&c.window)
		c.round(logs)
		c.dir.gate.end()
		c.turn.leave()
		clear(logs)
		c.mu.Lock()
		c.spare = logs[:0]
		c.credit = max(journalPiece, c.carried*3/2)
		c.change.Broadcast()
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.ended = true
	c.change.Broadcast()
	c.mu.Unlock()
}

// next waits for logs and takes them; false: closed, and nothing is queued.
func (c *journalCommitter) next() ([]*Log, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 {
		if c.closed {
			return nil, false
		}
		c.change.Wait()
	}
	if c.dir.spec.Rotating && c.carried >= journalPaced && !c.full && !c.closed {
		c.mu.Unlock()
		time.Sleep(time.Until(c.started.Add(journalPace)))
		c.mu.Lock()
	}
	logs := c.queue
	c.queue, c.spare = c.spare, nil
	for _, l := range logs {
		l.journalQueued = false
	}
	return logs, true
}

// turnOver waits until the other file of the journal may be overwritten, and begins that. False when the directory is fenced.
func (c *journalCommitter) turnOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turning = true
	defer func() { c.turning = false }()
	c.change.Broadcast()
	for c.older != nil {
		if c.dir.fenced() != nil {
			return false
		}
		c.change.Wait()
	}
	c.j.Turn()
	c.metrics.journalTurns.Inc()
	c.older, c.current = c.current, map[*Log]*bound{}
	c.change.Broadcast()
	return true
}

// beginGate waits until a write may begin beside the cold reads of a rotating disk.
func (c *journalCommitter) beginGate(last *uint64) {
	for {
		round, wait, ok := c.dir.gate.begin(*last)
		if ok {
			*last = round
			return
		}
		time.Sleep(wait)
	}
}

// journaled is what one log has in a round: the rest of segments that were rolled, and of the active one.
type journaled struct {
	l     *Log
	parts []*segment.Writer
	from  int64           // in the first of them
	last  *segment.Writer // the active one
	end   *bound
}

// round writes one round for logs. What does not fit is queued again: first those that had nothing of this round, and the one that was cut off
// behind them. It goes on to the end that it had then, so that its acks come whatever is appended meanwhile.
func (c *journalCommitter) round(logs []*Log) {
	if c.dir.fenced() != nil {
		return
	}
	c.started, c.carried = time.Now(), 0
	c.roundOnWay.begin(c.now().Sub(c.opened)) // also what it copies may have left the page cache
	defer c.roundOnWay.end()
	c.j.Begin()
	var parts []*journaled
	var rest []*Log
	for i, l := range logs {
		p := l.journalRest
		if p == nil {
			p = l.takeUnjournaled()
		}
		if p == nil {
			continue
		}
		if err := c.fill(p); err != nil {
			c.dir.fence("read what was appended", err)
			return
		}
		parts = append(parts, p)
		if len(p.parts) > 0 {
			rest = append(slices.Clone(logs[i+1:]), l)
			break
		}
	}
	if c.carried > 0 {
		began := c.now()
		c.dir.harm.syncing.begin(began)
		err := c.j.Commit()
		ended := c.now()
		c.dir.harm.syncing.end(ended)
		if err != nil {
			c.dir.fence("commit journal", err)
			return
		}
		c.dir.harm.syncs.observe(ended.Sub(began))
		c.metrics.journalSeconds.Observe(ended.Sub(began).Seconds())
		c.metrics.journalBytes.Add(float64(c.carried))
	}
	for _, p := range parts {
		c.current[p.l] = p.end
		if len(p.parts) > 0 {
			p.l.journalRest = p
			continue
		}
		p.l.journaledIn, p.l.journaledTo = p.last, p.end.pos
		p.l.publishJournaled(p.end)
		if p.l.journalRest != nil {
			p.l.journalRest = nil
			c.goOn(p.l)
		}
	}
	if c.full = len(rest) > 0; c.full {
		c.queueFirst(rest)
	}
}

// goOn has the next round take what was appended to l while several rounds took what was there before.
func (c *journalCommitter) goOn(l *Log) {
	l.mu.Lock()
	if l.journals() {
		c.schedule(l)
	}
	l.mu.Unlock()
}

// queueFirst puts logs before all that wait.
func (c *journalCommitter) queueFirst(logs []*Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := slices.Clone(logs)
	for _, l := range logs {
		l.journalQueued = true
	}
	for _, l := range c.queue {
		if !slices.Contains(logs, l) {
			queue = append(queue, l)
		}
	}
	c.queue = queue
}

// fill copies what fits into the round, and leaves the rest in p.
func (c *journalCommitter) fill(p *journaled) error {
	for len(p.parts) > 0 {
		w := p.parts[0]
		n, err := c.copy(p, w)
		if err != nil {
			return fmt.Errorf("%s at %d: %w", p.l.dir, p.from, err)
		}
		if p.from += n; p.from < c.endOf(p, w) {
			return nil
		}
		p.parts, p.from = p.parts[1:], 0
	}
	return nil
}

// endOf is how far a round has to take w.
func (c *journalCommitter) endOf(p *journaled, w *segment.Writer) int64 {
	if w == p.last {
		return p.end.pos
	}
	return w.Size() // rolled: it does not grow
}

// copy copies the next bytes of one segment.
func (c *journalCommitter) copy(p *journaled, w *segment.Writer) (int64, error) {
	rest := c.endOf(p, w) - p.from
	r := w.Reader()
	if !r.Acquire() { // retired: the topic is deleted
		return rest, nil
	}
	defer r.Release()
	n := min(rest, int64(c.j.Room()))
	if n <= 0 {
		return 0, nil
	}
	next := w.Next()
	if w == p.last {
		next = p.end.offset
	}
	f, err := r.File()
	if errors.Is(err, segment.ErrSuperseded) { // compacted, so it was sealed
		return rest, nil
	}
	if err != nil {
		return 0, err
	}
	b := c.j.Add(journal.Entry{Dir: p.l.dir, TopicID: p.l.id, Base: int64(w.Base()), Pos: p.from, Next: int64(next), Bytes: int(n)})
	if _, err := f.ReadAt(b, p.from); err != nil {
		return 0, err
	}
	c.carried += n
	return n, nil
}

// takeUnjournaled gives what a round has to take of the log; nil when that is nothing.
func (l *Log) takeUnjournaled() *journaled {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.Err() != nil || !l.journals() { // its topic was given an interval meanwhile: the change has the file synced
		return nil
	}
	l.syncDue = false
	if !l.unsyncedAt.IsZero() {
		if l.journalSince.IsZero() {
			l.journalSince = l.unsyncedAt
		}
		l.unsyncedAt = time.Time{}
	}
	p := &journaled{l: l, parts: append(slices.Clone(l.sealing), l.w), last: l.w, end: l.endBound()}
	if i := slices.Index(p.parts, l.journaledIn); i >= 0 {
		p.parts, p.from = p.parts[i:], l.journaledTo
	}
	if filed := l.filed.Load(); filed.base == p.parts[0].Base() {
		p.from = max(p.from, filed.pos)
	}
	return p
}

// publishJournaled is called when everything below end is in the journal or in its file.
func (l *Log) publishJournaled(end *bound) {
	l.publishDurable(end)
	if !l.journalSince.IsZero() {
		l.home.harm.produce.observe(l.store.now().Sub(l.journalSince))
		l.journalSince = time.Time{}
	}
}

// fileOlder brings what the other journal file holds into the segment files.
func (c *journalCommitter) fileOlder() {
	for {
		c.mu.Lock()
		for c.older == nil && !c.ended {
			c.change.Wait()
		}
		older, ended := c.older, c.ended
		c.mu.Unlock()
		if ended {
			return // the shutdown syncs all files
		}
		c.file(older)
		logs := slices.Collect(maps.Keys(older))
		c.mu.Lock()
		for !c.ended && slices.ContainsFunc(logs, func(l *Log) bool { return !l.isFiled(older[l].offset) }) && c.dir.fenced() == nil {
			c.change.Wait()
		}
		if c.dir.fenced() == nil {
			c.older = nil
		}
		c.change.Broadcast()
		stop := c.ended || c.dir.fenced() != nil
		c.mu.Unlock()
		if stop {
			return
		}
	}
}

// filing is what the segment file of a log has to get: from where its bytes are not durable there, and to where.
type filing struct {
	l    *Log
	w    *segment.Writer
	from int64
	end  *bound
}

// file brings logs up to some bound each into their segment files: first all bytes, in pieces, then the syncs. What was appended behind the
// bounds is no part of it, so one commit of the file system's journal has the metadata of all files: that of the first sync. The others
// find nothing left to do. (ext4: what is appended to a block that was written out changes the size on disk, and makes a sync of the file
// wait for the next commit. The bounds lie some seconds back, where no block grows any more.)
// Logs that have rolled go the way of all files.
func (c *journalCommitter) file(older map[*Log]*bound) {
	logs := slices.SortedFunc(maps.Keys(older), func(a, b *Log) int { return cmp.Compare(a.dir, b.dir) })
	var todo []filing
	for _, l := range logs {
		if f, ok := l.beginFiling(older[l]); ok {
			todo = append(todo, f)
			if err := c.writePieces(f); err != nil {
				f.w.Fail(err)
				c.dir.fence("write", err)
				return
			}
		}
	}
	c.beginGate(&c.piece)
	var err error
	if len(todo) > 0 {
		err = todo[0].sync()
	}
	var g errgroup.Group
	g.SetLimit(filingSyncs)
	for i := 1; i < len(todo) && err == nil; i++ {
		g.Go(todo[i].sync)
	}
	err = errors.Join(err, g.Wait())
	c.dir.gate.end()
	if err != nil {
		c.dir.fence("sync", err)
		return
	}
	for _, l := range logs {
		l.saveSnapshotIfDue()
	}
}

// filingSyncs is how many files are synced at a time.
const filingSyncs = 16

// beginFiling is false when there is nothing to do, or the file is synced by the files' committer.
func (l *Log) beginFiling(end *bound) (filing, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	filed := l.filed.Load()
	if l.closed || l.Err() != nil || filed.offset >= end.offset {
		return filing{}, false
	}
	if len(l.sealing) > 0 || filed.base != l.w.Base() || end.base != filed.base {
		l.flushDue = true
		l.home.commit.scheduleFile(l)
		return filing{}, false
	}
	l.flushedAt = l.store.now()
	return filing{l, l.w, filed.pos, end}, true
}

// saveSnapshotIfDue saves the producers as they were when a snapshot was due, once all up to then is in the segment file: what a snapshot
// covers may move to another tier.
func (l *Log) saveSnapshotIfDue() {
	l.syncing.Lock() // a deletion waits
	defer l.syncing.Unlock()
	l.mu.Lock()
	if l.closed || l.Err() != nil || len(l.sealing) > 0 {
		l.mu.Unlock() // sealing takes its own
		return
	}
	if l.snapshotWaits == nil {
		l.snapshotWaits = l.takeSnapshotLocked()
	}
	s, w := l.snapshotWaits, l.w
	if s == nil || l.filed.Load().offset < s.at {
		l.mu.Unlock()
		return
	}
	l.snapshotWaits = nil
	l.mu.Unlock()
	if int64(s.at) > l.snapshotAt.Load() {
		l.saveSnapshot(s, w)
	}
}

// writePieces writes the bytes out.
func (c *journalCommitter) writePieces(f filing) error {
	r := f.w.Reader()
	if !r.Acquire() { // the topic is deleted
		return nil
	}
	defer r.Release()
	f.l.pinUnsynced(f.end)
	for from := f.from; from < f.end.pos && c.dir.fenced() == nil; {
		n := c.awaitCredit(f.end.pos - from)
		if err := c.writePiece(r, from, n); err != nil {
			return err
		}
		from += n
	}
	f.l.mu.Lock()
	if f.l.w == f.w {
		f.l.writtenBack = max(f.l.writtenBack, f.end.pos)
	}
	f.l.mu.Unlock()
	return nil
}

// sync makes what was written part of the file.
func (f filing) sync() error {
	l := f.l
	if !l.syncing.TryLock() { // the files' committer is at it, or a deletion: it rolled, and that sync does all
		l.mu.Lock()
		l.flushDue = true
		l.home.commit.scheduleFile(l)
		l.mu.Unlock()
		return nil
	}
	defer l.syncing.Unlock()
	l.mu.Lock()
	gone := l.closed || l.home.fenced() != nil
	l.mu.Unlock()
	if gone {
		return nil
	}
	l.commitOnWay.begin(l.store.now().Sub(l.store.opened))
	defer l.commitOnWay.end()
	if err := f.w.SyncRange(f.from, f.end.pos); err != nil {
		return err
	}
	if f.end.offset > l.filed.Load().offset {
		l.filed.Store(f.end)
	}
	l.publishDurable(f.end)
	return nil
}

// awaitCredit waits until up to n bytes may be written out, and tells how many: what has been written since the last round is in the drive's
// cache, and the next flush waits for all of it. Nobody waits when no round is to come.
func (c *journalCommitter) awaitCredit(n int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.credit <= 0 && len(c.queue) > 0 && !c.turning && !c.ended && c.dir.fenced() == nil {
		c.change.Wait()
	}
	if n > journalPiece*3/2 {
		n = journalPiece
	}
	c.credit -= n
	return n
}

// writePiece writes [from, from+n) out when it is its turn. The caller has acquired r.
func (c *journalCommitter) writePiece(r *segment.Reader, from, n int64) error {
	f, err := r.File()
	if errors.Is(err, segment.ErrSuperseded) { // compacted, so it was sealed
		return nil
	}
	if err != nil {
		return err
	}
	for {
		c.turn.enter(journalTurnPiece)
		round, wait, ok := c.dir.gate.begin(c.piece)
		if ok {
			c.piece = round
			break
		}
		c.turn.leave()
		time.Sleep(wait)
	}
	defer c.turn.leave()
	defer c.dir.gate.end()
	c.pieceOnWay.begin(c.now().Sub(c.opened))
	defer c.pieceOnWay.end()
	return c.cache.WriteOut(f, from, n)
}

// isFiled tells whether everything below next is in the segment files, or the log is gone.
func (l *Log) isFiled(next segment.Offset) bool {
	return l.filed.Load().offset >= next || l.failed.Load() != nil
}

// journalTurn has the journal's rounds and the pieces of segment files take turns at the disk: side by side each would cost the other a
// seek, and a round would wait for a queue full of pieces.
type journalTurn struct {
	mu    sync.Mutex
	free  sync.Cond
	busy  bool
	last  journalTurnOf
	waits [2]int
}

type journalTurnOf uint8

const (
	journalTurnRound journalTurnOf = iota
	journalTurnPiece
)

// enter waits for the disk. Of two who wait the one comes first whose kind did not come last.
func (t *journalTurn) enter(kind journalTurnOf) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free.L == nil {
		t.free.L = &t.mu
	}
	t.waits[kind]++
	for t.busy || t.last == kind && t.waits[1-kind] > 0 {
		t.free.Wait()
	}
	t.waits[kind]--
	t.busy, t.last = true, kind
}

func (t *journalTurn) leave() {
	t.mu.Lock()
	t.busy = false
	t.free.Broadcast()
	t.mu.Unlock()
}
