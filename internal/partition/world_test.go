package partition_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// disks are the file systems of one broker: two directories in the hot tier t0 and one in the cold tier t1.
type disks []*vfs.Mem

var diskTiers = []string{"t0", "t0", "t1"}

func newDisks(seed uint64) disks {
	d := make(disks, len(diskTiers))
	for i := range d {
		d[i] = vfs.NewMem(seed + uint64(i))
	}
	return d
}

// crash gives the disks as after a power cut; d itself can be crashed again, from the same moment.
func (d disks) crash(opt vfs.CrashOptions) disks {
	next := make(disks, len(d))
	for i, m := range d {
		opt.Seed++
		next[i] = m.Crash(opt)
	}
	return next
}

// kill gives the disks as after kill -9.
func (d disks) kill() disks {
	next := make(disks, len(d))
	for i, m := range d {
		next[i] = m.Kill()
	}
	return next
}

// world is a broker without its wire: disks, a store over them, producers and consumers, and the truth about what they were
// told, which outlives crashes. It runs inside a synctest bubble. Whatever contradicts the truth goes to problems.
type world struct {
	disks    disks
	inject   func(disk int) vfs.Injector // nil: none
	trace    func(disk int, op vfs.Op)   // nil: none
	wrap     func(vfs.FS) vfs.FS         // nil: none; outermost
	change   func(*partition.Options)    // nil: none
	cache    *cachectl.Cache
	pool     *cachectl.Pool
	known    map[string]string // the catalogue's tiers
	s        *partition.Store
	topics   []*topicTruth
	problems []string
}

// topicTruth is the catalogue's word on a topic. A topic is live from before its creation until its deletion was asked for.
type topicTruth struct {
	name    string
	id      [16]byte
	cfg     partition.Config
	parts   []*partTruth
	deleted bool // asked for: the catalogue has a tombstone …
	gone    bool // … and acked
}

// partTruth is what clients know of a partition.
type partTruth struct {
	topic    *topicTruth
	index    int32
	sent     map[segment.Offset][]byte // appended, by base offset
	maybe    map[segment.Offset][]byte // Append failed: may be there or not
	written  segment.Offset            // end of what was appended
	acked    segment.Offset            // everything below is acked (acks=all)
	seen     segment.Offset            // everything below was visible to consumers
	start    segment.Offset            // acked DeleteRecords
	startMax segment.Offset            // what deletions may have moved the start to
	clients  []*client
	marked   map[segment.Offset]time.Time // delete markers, by when a compaction had met them for the first time …
	over     map[segment.Offset]bool      // … and those that had to go since
}

// client is one producer of one partition.
type client struct {
	name    string
	part    *partTruth
	idem    *producer // nil: no idempotence
	txn     bool      // its batches are parts of transactions
	n       int
	unacked []request
}

// request is one batch on its way.
type request struct {
	fresh  []byte // as the client made it
	marker bool   // what ends its transaction
	next   segment.Offset
}

func newWorld(d disks) (*world, error) {
	pool, err := cachectl.NewPool(2<<20, 256<<10)
	if err != nil {
		return nil, err
	}
	return &world{disks: d, pool: pool, known: map[string]string{}, cache: cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})}, nil
}

func (w *world) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// fork is the same truth over other disks: one of several futures of a crash.
func (w *world) fork(d disks) *world {
	f := &world{disks: d, cache: w.cache, pool: w.pool, known: maps.Clone(w.known), wrap: w.wrap, change: w.change}
	for _, t := range w.topics {
		ft := *t
		ft.parts = nil
		for _, p := range t.parts {
			fp := *p
			fp.topic, fp.sent, fp.maybe, fp.clients = &ft, map[segment.Offset][]byte{}, map[segment.Offset][]byte{}, nil
			fp.marked, fp.over = maps.Clone(p.marked), maps.Clone(p.over)
			for k, v := range p.sent {
				fp.sent[k] = v
			}
			for k, v := range p.maybe {
				fp.maybe[k] = v
			}
			for _, c := range p.clients {
				fc := *c
				fc.part, fc.unacked = &fp, slices.Clone(c.unacked)
				if c.idem != nil {
					own := *c.idem
					fc.idem = &own
				}
				fp.clients = append(fp.clients, &fc)
			}
			ft.parts = append(ft.parts, &fp)
		}
		f.topics = append(f.topics, &ft)
	}
	return f
}

// open starts the broker as the daemon does: claim the tiers, load what the catalogue names, finish deletions.
func (w *world) open() error {
	if err := w.openOnly(); err != nil {
		return err
	}
	s := w.s
	var specs []partition.TopicSpec
	for _, t := range w.topics {
		if !t.deleted {
			specs = append(specs, partition.TopicSpec{Topic: t.name, ID: t.id, Partitions: int32(len(t.parts)), Config: t.cfg})
		}
	}
	if err := s.Load(context.Background(), specs); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, t := range w.topics {
		if t.deleted && !t.gone {
			if err := w.finishDelete(t); err != nil {
				return fmt.Errorf("finish the deletion of %s: %w", t.name, err)
			}
		}
	}
	synctest.Wait()
	return nil
}

// openOnly claims the tiers and loads nothing.
func (w *world) openOnly() error {
	opt := partition.Options{Cache: w.cache, Pool: w.pool, ClusterID: "c", KnownTiers: w.known,
		RememberTier:      func(name, uuid string) error { w.known[name] = uuid; return nil },
		RetentionInterval: 1000 * time.Hour, PlanInterval: 1000 * time.Hour, Readers: admission.Config{MinBytes: 1 << 10, MinAge: time.Nanosecond}}
	for i, m := range w.disks {
		var fsys vfs.FS = m
		if w.inject != nil {
			fsys = vfs.WithFaults(fsys, w.inject(i))
		}
		if w.trace != nil {
			fsys = vfs.WithTrace(fsys, func(op vfs.Op) { w.trace(i, op) })
		}
		if w.wrap != nil {
			fsys = w.wrap(fsys)
		}
		opt.Dirs = append(opt.Dirs, partition.DirSpec{Tier: diskTiers[i], FS: fsys, ReserveBytes: 1, SyncWorkers: 2})
	}
	if w.change != nil {
		w.change(&opt)
	}
	s, err := partition.Open(opt)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	w.s = s
	return nil
}

// abandon ends the store as kill -9 would.
func (w *world) abandon() {
	if w.s != nil {
		w.s.Abandon()
		w.s = nil
	}
}

func (w *world) close() error {
	err := w.s.Close(context.Background())
	w.s = nil
	return err
}

// create makes a topic: first in the catalogue, then its partitions.
func (w *world) create(name string, id byte, partitions int, cfg partition.Config) (*topicTruth, error) {
	t := &topicTruth{name: name, id: [16]byte{id}, cfg: cfg}
	for i := range partitions {
		t.parts = append(t.parts, &partTruth{topic: t, index: int32(i), sent: map[segment.Offset][]byte{}, maybe: map[segment.Offset][]byte{},
			marked: map[segment.Offset]time.Time{}, over: map[segment.Offset]bool{}})
	}
	w.topics = append(w.topics, t)
	for i := range partitions {
		if _, err := w.s.Create(context.Background(), name, t.id, int32(i), cfg); err != nil {
			return t, err
		}
	}
	return t, nil
}

// drop deletes a topic: first a tombstone in the catalogue, then the directories.
func (w *world) drop(t *topicTruth) error {
	t.deleted = true
	return w.finishDelete(t)
}

func (w *world) finishDelete(t *topicTruth) error {
	if err := w.s.Delete(context.Background(), t.name, t.id); err != nil {
		return err
	}
	t.gone = true
	return nil
}

// topic finds one that is not deleted.
func (w *world) topic(name string) *topicTruth {
	for _, t := range w.topics {
		if t.name == name && !t.deleted {
			return t
		}
	}
	return nil
}

func (w *world) log(p *partTruth) (*partition.Log, error) {
	l, ok := w.s.Log(p.topic.name, p.index)
	if !ok {
		return nil, fmt.Errorf("%s is not served", p.name())
	}
	return l, nil
}

func (p *partTruth) name() string { return fmt.Sprintf("%s-%d", p.topic.name, p.index) }

func (p *partTruth) client(name string, idempotent int64) *client {
	c := &client{name: name, part: p}
	if idempotent > 0 {
		c.idem = &producer{id: idempotent}
	}
	p.clients = append(p.clients, c)
	return c
}

// send appends one batch of records records; it is unacked until ack.
func (w *world) send(c *client, records, size int) error {
	if err := w.ended(c); err != nil {
		return err
	}
	var b []byte
	if !c.part.topic.cfg.Compact {
		b = batch(fmt.Sprintf("%s/%s/%d", c.part.name(), c.name, c.n), records, size, c.idem, time.Now().UnixMilli())
	} else {
		var err error
		if b, err = c.keyedBatch(records, size); err != nil {
			return err
		}
	}
	c.n++
	if c.idem != nil {
		c.idem.seq += int32(records)
	}
	c.unacked = append(c.unacked, request{fresh: b})
	return w.append(c, len(c.unacked)-1)
}

// append hands in the i-th unacked batch of c.
func (w *world) append(c *client, i int) error {
	p := c.part
	l, err := w.log(p)
	if err != nil {
		return err
	}
	b := bytes.Clone(c.unacked[i].fresh)
	req := partition.AppendRequest{Records: b, Internal: c.unacked[i].marker}
	if c.txn && !req.Internal {
		req.Guard, _ = l.GuardTxn(c.idem.id, c.idem.epoch)
	}
	a, err := l.Append(context.Background(), req)
	if err != nil {
		if h, bad := segment.DecodeHeader(b); bad == nil {
			p.maybe[h.BaseOffset] = b
		}
		return err
	}
	c.unacked[i].next = a.Next
	if a.Duplicate {
		if got, ok := p.sent[a.Base]; !ok || !bytes.Equal(got[segment.BatchHeaderSize:], b[segment.BatchHeaderSize:]) {
			w.problem("%s: batch of %s is called a duplicate of offset %d, where another one is", p.name(), c.name, a.Base)
		}
		return nil
	}
	if a.Base != p.written && w.problems == nil {
		w.problem("%s: append at %d, the log ends at %d", p.name(), a.Base, p.written)
	}
	p.sent[a.Base] = b
	p.written = a.Next
	return nil
}

// ack waits until everything that c has sent is acked. In interval mode it means nothing.
func (w *world) ack(c *client) error {
	l, err := w.log(c.part)
	if err != nil || len(c.unacked) == 0 {
		return err
	}
	next := c.unacked[len(c.unacked)-1].next
	if next == 0 {
		return errNotAppended
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Durable(ctx, next); err != nil {
		return err
	}
	if c.part.topic.cfg.FlushInterval == 0 {
		c.part.acked = max(c.part.acked, next)
	}
	c.unacked = nil
	return nil
}

// trim is DeleteRecords.
func (w *world) trim(p *partTruth, before segment.Offset) error {
	l, err := w.log(p)
	if err != nil {
		return err
	}
	p.startMax = max(p.startMax, before)
	if p.topic.cfg.RetentionBytes >= 0 { // retention goes along
		p.startMax = max(p.startMax, p.written)
	}
	start, err := l.DeleteRecords(context.Background(), before)
	if err != nil {
		return err
	}
	p.start = max(p.start, start)
	return nil
}

// retain runs retention, which may delete whatever is durable.
func (w *world) retain(p *partTruth) {
	p.startMax = max(p.startMax, p.written)
	w.s.Retain(time.Now())
}

// migrate moves every sealed segment of p to the cold tier, waits, and tells how many went.
func (w *world) migrate(p *partTruth) (moved int, err error) {
	l, err := w.log(p)
	if err != nil {
		return 0, err
	}
	before := map[segment.Offset]bool{}
	for _, sv := range l.Segments() {
		before[sv.Base] = sv.Sealed && sv.Tier == "t0"
	}
	if err := w.submitMoves(p); err != nil {
		return 0, err
	}
	synctest.Wait()
	for _, sv := range l.Segments() {
		if before[sv.Base] && sv.Tier == "t1" {
			moved++
		}
	}
	return moved, nil
}

// submitMoves has every sealed segment of p moved to the cold tier. One may be on its way: it waits for a compaction, or for work in the
// foreground.
func (w *world) submitMoves(p *partTruth) error {
	l, err := w.log(p)
	if err != nil {
		return err
	}
	for _, sv := range l.Segments() {
		if sv.Sealed && sv.Tier == "t0" {
			move := tiering.Move{Topic: p.topic.name, Partition: p.index, Base: sv.Base, SizeBytes: sv.SizeBytes, From: "t0", To: "t1"}
			if _, err := w.s.Migrator().Submit(move); err != nil && !errors.Is(err, tiering.ErrMoving) {
				return err
			}
		}
	}
	return nil
}

// found is one batch that a consumer read.
type foundBatch struct {
	h    segment.BatchHeader
	data []byte
}

// read consumes [from, high watermark) and checks framing, checksums and, but where compaction makes gaps, density.
func (w *world) read(p *partTruth, from segment.Offset, maxBytes int64) (out []foundBatch, hw segment.Offset, err error) {
	hw, err = w.consume(p, from, maxBytes, false, func(f foundBatch, _ []partition.AbortedTxn, _ bool) error {
		if f.h.BaseOffset > from && !p.topic.cfg.Compact {
			return fmt.Errorf("gap, the next batch begins at %d", f.h.BaseOffset)
		}
		out = append(out, f)
		from = f.h.NextOffset()
		return nil
	})
	return out, hw, err
}

// consume gives the batches from the one that holds from up to end to fn: the high watermark, or the last stable offset for a reader of
// committed records, with the aborted transactions that came along with their chunk; first: it is the chunk's first one.
func (w *world) consume(p *partTruth, from segment.Offset, maxBytes int64, committed bool, fn func(f foundBatch, aborted []partition.AbortedTxn, first bool) error) (end segment.Offset, err error) {
	l, err := w.log(p)
	if err != nil {
		return 0, err
	}
	ref := partition.ReaderRef{ClientID: fmt.Sprintf("reader-%d", from)}
	for {
		watch := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: maxBytes, MustServe: true, Committed: committed, Watch: watch})
		if err != nil {
			watch.Close()
			return end, fmt.Errorf("read %s at %d: %w", p.name(), from, err)
		}
		end = res.Offsets.HighWatermark
		if committed {
			end = res.Offsets.LastStable
		}
		if from >= end {
			watch.Close()
			return end, nil
		}
		if res.Chunk == nil {
			select {
			case <-watch.C():
			case <-time.After(30 * time.Second):
				watch.Close()
				return end, fmt.Errorf("read %s at %d: nothing came", p.name(), from)
			}
			watch.Close()
			continue
		}
		watch.Close()
		data := make([]byte, res.Chunk.Len())
		_, err = res.Chunk.ReadAt(data, 0)
		res.Chunk.Release()
		if err != nil {
			return end, fmt.Errorf("read %s at %d: %w", p.name(), from, err)
		}
		for first := true; len(data) > 0; first = false {
			h, err := segment.DecodeHeader(data)
			if err != nil {
				return end, fmt.Errorf("read %s at %d: %w", p.name(), from, err)
			}
			b := data[:h.SizeBytes()]
			data = data[h.SizeBytes():]
			if got := crc32.Checksum(b[21:], castagnoli); got != h.CRC {
				return end, fmt.Errorf("read %s at %d: served a batch with a wrong checksum at %d", p.name(), from, h.BaseOffset)
			}
			if h.NextOffset() > end {
				return end, fmt.Errorf("read %s at %d: served a batch up to %d, and everything ends at %d", p.name(), from, h.NextOffset(), end)
			}
			if h.LastOffset() < from {
				continue
			}
			if err := fn(foundBatch{h, b}, res.Aborted, first); err != nil {
				return end, fmt.Errorf("read %s at %d: %w", p.name(), from, err)
			}
			from = h.NextOffset()
		}
	}
}

// readAll is a consumer that reads everything and remembers what it saw.
func (w *world) readAll() {
	for _, t := range w.topics {
		if t.deleted {
			continue
		}
		for _, p := range t.parts {
			l, err := w.log(p)
			if err != nil || l.Err() != nil {
				continue
			}
			all, hw, err := w.read(p, l.Offsets().LogStart, 4000)
			if err != nil {
				if !w.expected(err) {
					w.problem("%v", err)
				}
				continue
			}
			w.compare(p, all)
			if t.cfg.FlushInterval == 0 {
				p.seen = max(p.seen, hw)
			}
		}
	}
}

// expected tells errors that an injected fault or power cut explains.
func (w *world) expected(err error) bool {
	return w.inject != nil && (errors.Is(err, vfs.ErrPowerCut) || errors.Is(err, partition.ErrFenced) || errors.Is(err, partition.ErrClosed) ||
		errors.Is(err, errInjected))
}

// errNotAppended: the client has a batch that no append took.
var errNotAppended = errors.New("nothing to wait for")

var errInjected = errors.New("injected")

// compare checks what was read against what was sent.
func (w *world) compare(p *partTruth, all []foundBatch) {
	for _, f := range all {
		sent, ok := p.sent[f.h.BaseOffset]
		switch {
		case ok && bytes.Equal(sent, f.data):
		case p.topic.cfg.Compact && rewritten(sent, f): // verifyKeys looks at its records
		case !ok || f.h.BaseOffset >= max(p.acked, p.seen):
			if maybe, ok := p.maybe[f.h.BaseOffset]; ok && bytes.Equal(maybe, f.data) {
				continue
			}
			w.problem("%s: a batch at %d that nobody sent", p.name(), f.h.BaseOffset)
		default:
			w.problem("%s: the batch at %d changed", p.name(), f.h.BaseOffset)
		}
	}
}

// verify checks every promise after a restart, and takes what was lost (rightly) out of the truth.
func (w *world) verify() {
	for _, t := range w.topics {
		if t.deleted {
			continue
		}
		for _, p := range t.parts {
			w.verifyPartition(p)
		}
	}
	w.verifyFiles()
}

func (w *world) verifyPartition(p *partTruth) {
	l, err := w.log(p)
	if err == nil {
		err = l.Err()
	}
	if err != nil {
		w.problem("%s is offline after the restart: %v", p.name(), err)
		return
	}
	o := l.Offsets()
	switch {
	case o.LogStart < p.start:
		w.problem("%s: log start moved back to %d behind the acked deletion below %d", p.name(), o.LogStart, p.start)
	case o.LogStart > p.startMax:
		w.problem("%s: log start %d, nothing above %d was ever deleted", p.name(), o.LogStart, p.startMax)
	case o.HighWatermark < p.acked:
		w.problem("%s: acked records lost: high watermark %d, acked below %d", p.name(), o.HighWatermark, p.acked)
	case o.HighWatermark < p.seen:
		w.problem("%s: records that a consumer saw are gone: high watermark %d, seen below %d", p.name(), o.HighWatermark, p.seen)
	case o.End != o.HighWatermark:
		w.problem("%s: high watermark %d and end %d differ after a restart", p.name(), o.HighWatermark, o.End)
	}
	all, hw, err := w.read(p, o.LogStart, 1<<20)
	if err != nil {
		w.problem("%v", err)
		return
	}
	w.compare(p, all)
	p.written, p.seen, p.acked = hw, max(p.seen, hw), max(p.acked, hw) // recovery has synced all of it
	if p.topic.cfg.FlushInterval > 0 {
		p.acked, p.seen = 0, 0
	}
	for base := range p.sent {
		if base >= hw {
			delete(p.sent, base)
		}
	}
	clear(p.maybe)
	for _, f := range all {
		if _, known := p.sent[f.h.BaseOffset]; !known || !p.topic.cfg.Compact {
			p.sent[f.h.BaseOffset] = f.data
		}
	}
	w.verifyOrder(p, all)
	if p.topic.cfg.Compact {
		w.verifyKeys(p)
	}
}

// verifyOrder: each producer's batches in the order it sent them, an idempotent producer's without gap or repetition.
func (w *world) verifyOrder(p *partTruth, all []foundBatch) {
	if p.topic.cfg.Compact { // what is left has gaps; verifyKeys looks at it
		return
	}
	next := map[int64]int32{}
	lastPlain := map[string]int{}
	for _, f := range all {
		if id := f.h.ProducerID; id >= 0 {
			if want, known := next[id]; known && f.h.BaseSequence != want {
				w.problem("%s: producer %d has sequence %d at offset %d, want %d", p.name(), id, f.h.BaseSequence, f.h.BaseOffset, want)
			}
			next[id] = f.h.BaseSequence + f.h.LastOffsetDelta + 1
			continue
		}
		if p.topic.cfg.FlushInterval > 0 {
			continue // a suffix may be lost, and the client does not know
		}
		name, n := tagOf(p, f.data)
		if last, known := lastPlain[name]; known && n > last+1 {
			w.problem("%s: %s/%d at offset %d comes after %d", p.name(), name, n, f.h.BaseOffset, last)
		} else {
			lastPlain[name] = max(n, last)
		}
	}
}

// tagOf takes client and number out of a batch of p that send made.
func tagOf(p *partTruth, b []byte) (name string, n int) {
	prefix := p.name() + "/"
	at := bytes.Index(b, []byte(prefix))
	if at < 0 {
		return "", 0 // compare has told of it
	}
	parts := strings.SplitN(string(b[at+len(prefix):min(len(b), at+len(prefix)+60)])+"//", "/", 3)
	_, _ = fmt.Sscan(parts[1], &n)
	return parts[0], n
}

// verifyFiles: one copy of each segment, nothing half written, half copied or half deleted, and no deleted topic.
func (w *world) verifyFiles() {
	copies := map[string]int{}
	for i, m := range w.disks {
		entries, err := m.List(".")
		if err != nil {
			w.problem("list disk %d: %v", i, err)
			return
		}
		for _, e := range entries {
			topic, _, isPartition := segment.ParsePartitionDir(e.Name)
			switch {
			case strings.HasSuffix(e.Name, ".tmp") || strings.HasSuffix(e.Name, "-delete"):
				w.problem("leftover %s on disk %d", e.Name, i)
			case e.Dir && isPartition && w.topic(topic) == nil:
				w.problem("deleted topic is back: %s on disk %d", e.Name, i)
			case e.Dir && isPartition:
				w.verifyDir(i, e.Name, copies)
			}
		}
	}
	for name, n := range copies {
		if n != 1 {
			w.problem("%d copies of %s", n, name)
		}
	}
}

func (w *world) verifyDir(disk int, dir string, copies map[string]int) {
	entries, err := w.disks[disk].List(dir)
	if err != nil {
		w.problem("list %s on disk %d: %v", dir, disk, err)
	}
	for _, e := range entries {
		for _, suffix := range []string{segment.TmpSuffix, segment.MigratingSuffix, segment.DeletedSuffix, segment.CleanedSuffix, segment.SwapSuffix} {
			if strings.HasSuffix(e.Name, suffix) {
				w.problem("leftover %s/%s on disk %d", dir, e.Name, disk)
			}
		}
		if strings.HasSuffix(e.Name, ".log") {
			copies[dir+"/"+e.Name]++
		}
	}
}

// retry is what clients do after a broken connection: they send again what was not acked, and go on.
func (w *world) retry() {
	for _, t := range w.topics {
		if t.deleted {
			continue
		}
		for _, p := range t.parts {
			for _, c := range p.clients {
				for i := range c.unacked {
					if err := w.append(c, i); err != nil {
						w.problem("%s: retry of %s: %v", p.name(), c.name, err)
						return
					}
				}
				err := w.ack(c)
				if err == nil {
					err = w.send(c, 1, 300)
				}
				if err == nil {
					err = w.ack(c)
				}
				if err != nil {
					w.problem("%s: go on with %s: %v", p.name(), c.name, err)
					return
				}
			}
			w.verifyComplete(p)
		}
	}
}

// verifyComplete: after the retries nothing that an idempotent producer ever sent is missing or there twice.
func (w *world) verifyComplete(p *partTruth) {
	l, err := w.log(p)
	if err != nil {
		w.problem("%v", err)
		return
	}
	all, _, err := w.read(p, l.Offsets().LogStart, 1<<20)
	if err != nil {
		w.problem("%v", err)
		return
	}
	w.compare(p, all)
	w.verifyOrder(p, all)
	last := map[int64]int32{}
	for _, f := range all {
		if !f.h.IsControl() {
			last[f.h.ProducerID] = f.h.BaseSequence + f.h.LastOffsetDelta + 1
		}
	}
	for _, c := range p.clients {
		if c.idem != nil && last[c.idem.id] != c.idem.seq {
			w.problem("%s: %s has sent up to sequence %d, the log holds up to %d", p.name(), c.name, c.idem.seq, last[c.idem.id])
		}
	}
}

// sortedBases are the batches of the truth, for models that need them in order.
func (p *partTruth) sortedBases() []segment.Offset {
	out := make([]segment.Offset, 0, len(p.sent))
	for base := range p.sent {
		out = append(out, base)
	}
	slices.SortFunc(out, cmp.Compare[segment.Offset])
	return out
}
