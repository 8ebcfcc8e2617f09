package partition

import (
	"fmt"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/segment"
)

// DirView is one log directory as DescribeLogDirs and the admin API show it.
type DirView struct {
	Name, Tier, Path        string
	Rank                    int // of the tier, 0 is the hottest
	TotalBytes, UsableBytes int64
	UsedBytes               int64 // by segments
	WrittenBytes            int64 // by migrations and compactions since the start
	MaxUsedBytes            int64
	High, Low               float64
	Keep                    time.Duration
	Full                    bool
	Err                     error // not nil: fenced
	Segments                int
	Partitions              []DirPartition
	Device                  admission.DeviceView
	Controller              *admission.ControllerView // nil: the budget is fixed
	Method                  cachectl.Method           // of bypass reads of sealed segments now
}

// DirPartition is one partition's share of a log directory.
type DirPartition struct {
	Topic     string
	Partition int32
	SizeBytes int64
	// Future: the partition is pinned here, and sealed segments with Lag offsets lie elsewhere.
	Future bool
	Lag    int64
}

// Dirs describes every log directory.
func (s *Store) Dirs() []DirView {
	out := make([]DirView, len(s.dirs))
	for i, d := range s.dirs {
		v := DirView{Name: d.name, Tier: d.spec.Tier, Path: d.spec.FS.Root(), Rank: d.rank, UsedBytes: d.used.Load(), WrittenBytes: d.written.Load(), MaxUsedBytes: d.spec.MaxUsedBytes,
			High: d.spec.High, Low: d.spec.Low, Keep: d.spec.Keep, Full: d.full.Load(), Err: d.fenced()}
		if d.lock == nil { // it does not answer
		} else if u, err := d.spec.FS.Usage(); err == nil {
			v.TotalBytes, v.UsableBytes = u.TotalBytes, u.FreeBytes
		}
		s.limitsMu.Lock()
		v.Device = d.cold.sched.Snapshot(s.now())
		s.limitsMu.Unlock()
		v.Controller = s.budgets.view(d)
		v.Method = s.methodOn(d, true)
		out[i] = v
	}
	for _, l := range s.Logs() {
		for i, share := range l.shares() {
			out[i].Segments += share.segments
			if share.listed {
				out[i].Partitions = append(out[i].Partitions, share.DirPartition)
			}
		}
	}
	return out
}

// SegmentView is one segment for people.
type SegmentView struct {
	Base, Next     segment.Offset // Next: of the active segment the log end
	File           string         // relative to the directory's root
	Tier           string
	Dir            string // the log directory's name, that of its tier where it has only one
	SizeBytes      int64
	Before         int64 // bytes of the log before it
	MaxTimestampMs int64 // -1: not known without reading
	Sealed, Active bool
	dirIndex       int
	seg            *logSegment
}

// Segments lists a partition's segments by base offset.
func (l *Log) Segments() []SegmentView {
	v := l.view.Load()
	out := make([]SegmentView, 0, len(v.segs))
	before := int64(0)
	for i, s := range v.segs {
		if s.r == nil || !s.r.Acquire() {
			continue
		}
		m := s.r.Meta()
		s.r.Release()
		sv := SegmentView{Base: s.base, Next: min(v.next(i), segment.Offset(l.end.Load())), File: s.r.LogName(), Tier: s.dir.spec.Tier, Dir: s.dir.name,
			SizeBytes: m.SizeBytes, Before: before, MaxTimestampMs: m.MaxTimestampMs, Sealed: m.Sealed,
			Active: i+1 == len(v.segs), dirIndex: s.dir.index, seg: s}
		out = append(out, sv)
		before += m.SizeBytes
	}
	return out
}

// Residency asks the kernel about [pos, pos+n) of a segment that Segments listed.
func (l *Log) Residency(sv SegmentView, pos, n int64) (cachectl.Residency, error) {
	if !sv.seg.r.Acquire() {
		return cachectl.Residency{}, fmt.Errorf("%w: segment is gone", ErrClosed)
	}
	defer sv.seg.r.Release()
	f, err := sv.seg.r.File()
	if err != nil {
		return cachectl.Residency{}, err
	}
	return l.store.opt.Cache.Residency(f, pos, n)
}

// Floor is about where an offset lies in a segment that Segments listed, by its index alone.
func (l *Log) Floor(sv SegmentView, off segment.Offset) (int64, error) {
	if !sv.seg.r.Acquire() {
		return 0, fmt.Errorf("%w: segment is gone", ErrClosed)
	}
	defer sv.seg.r.Release()
	return sv.seg.r.Floor(off)
}

// Evict drops what is clean and resident of [pos, pos+n) of a segment; Warm brings it in. For operators; the caller
// decides what may go.
func (l *Log) Evict(sv SegmentView, pos, n int64) (cachectl.Evicted, error) {
	if !sv.seg.r.Acquire() {
		return cachectl.Evicted{}, fmt.Errorf("%w: segment is gone", ErrClosed)
	}
	defer sv.seg.r.Release()
	f, err := sv.seg.r.File()
	if err != nil {
		return cachectl.Evicted{}, err
	}
	return l.store.opt.Cache.Evict(f, pos, n)
}

// Warm starts reading [pos, pos+n) of a segment into the page cache and gives the bytes asked for.
func (l *Log) Warm(sv SegmentView, pos, n int64) (int64, error) {
	if !sv.seg.r.Acquire() {
		return 0, fmt.Errorf("%w: segment is gone", ErrClosed)
	}
	defer sv.seg.r.Release()
	f, err := sv.seg.r.File()
	if err != nil {
		return 0, err
	}
	return l.store.opt.Cache.Warm(f, pos, n)
}

// ReaderView is one reader in one partition for people.
type ReaderView struct {
	admission.ReaderView
	Peer     string
	Source   string // how its group is known
	Tier     string // where its position is
	Decision admission.Decision
	Why      string          // the decision with its figures
	Method   cachectl.Method // of its last device read, "" none
	Waiting  time.Duration   // how long its read has been queued now
	Limit    admission.Limit // what it waits for now
	Convoy   ConvoyView
}

// Readers lists every reader of every partition.
func (s *Store) Readers() []ReaderView {
	now := s.now()
	var out []ReaderView
	for _, l := range s.Logs() {
		for _, c := range l.cursors.all() {
			c.seenMu.Lock()
			v := ReaderView{Peer: c.ref.Peer, Source: c.ref.GroupSource, Decision: c.decision, Why: c.decision.Explain(c.read), Method: c.method}
			waitFrom, offset := c.waitFrom, c.offset
			c.seenMu.Unlock()
			l.convoy.mu.Lock()
			v.Convoy = l.convoy.viewLocked(c.stream)
			l.convoy.mu.Unlock()
			s.readersMu.Lock()
			rv, ok := s.readers.View(c.key, now)
			s.readersMu.Unlock()
			if !ok {
				continue
			}
			v.ReaderView = rv
			view := l.view.Load()
			seg := view.segs[max(0, view.find(offset))]
			v.Tier = seg.dir.spec.Tier
			if !waitFrom.IsZero() {
				v.Waiting = now.Sub(waitFrom)
				v.Decision.Lane, v.Decision.Reason = admission.Defer, admission.ReasonBudget
				v.Limit = seg.dir.cold.limitedBy(c.key.Flow())
			}
			out = append(out, v)
		}
	}
	return out
}

// LimitsView is every cap and weight that spans devices.
type LimitsView struct {
	Config     admission.LimitsConfig
	Configured []admission.SubjectCap
	Overrides  []admission.Override
}

// Limits lists what bounds cold reads and migrations over all devices.
func (s *Store) Limits() LimitsView {
	now := s.now()
	s.limitsMu.Lock()
	defer s.limitsMu.Unlock()
	return LimitsView{s.limits.Config(), s.limits.Configured(), s.limits.Overrides(now)}
}

// SetLimits changes the caps of all cold reads, of each flow without a cap of its own, and of migrations, at once.
// Errors: admission.ErrConfig, nothing changed.
func (s *Store) SetLimits(cfg admission.LimitsConfig) error {
	s.limitsMu.Lock()
	err := s.limits.SetConfig(cfg, s.now())
	s.limitsMu.Unlock()
	s.pumpAll()
	return err
}

// SetOverride puts an operator's word in force at once. Errors: admission.ErrOverride, admission.ErrTooManyOverrides.
func (s *Store) SetOverride(o admission.Override) error {
	s.limitsMu.Lock()
	err := s.limits.SetOverride(o, s.now())
	s.limitsMu.Unlock()
	s.pumpAll()
	return err
}

// DeleteOverride ends one and tells whether there was one.
func (s *Store) DeleteOverride(k admission.Kind, name string) bool {
	s.limitsMu.Lock()
	had := s.limits.DeleteOverride(k, name)
	s.limitsMu.Unlock()
	s.pumpAll()
	return had
}

// Configure sets the lasting cap and weight of a group, client or topic; the zero Cap removes them.
func (s *Store) Configure(sub admission.Subject, c admission.Cap) error {
	s.limitsMu.Lock()
	err := s.limits.Configure(sub, c)
	s.limitsMu.Unlock()
	s.pumpAll()
	return err
}

// setTopicCap follows a topic's lagoon.catchup.max.bytes.per.second.
func (s *Store) setTopicCap(topic string, bytesPerSecond int64) {
	if err := s.Configure(admission.Subject{Kind: admission.Topic, Name: topic}, admission.Cap{BytesPerSecond: bytesPerSecond}); err != nil {
		s.opt.Logger.Warn("catch-up cap of topic not usable", "topic", topic, "err", err)
	}
}

// pumpAll lets the devices see changed caps.
func (s *Store) pumpAll() {
	for _, d := range s.dirs {
		d.cold.pump()
	}
}

// Explanation is how a read would be served now.
type Explanation struct {
	Offsets  Offsets
	Segment  SegmentView
	Pos      int64 // in the segment's file
	Bytes    int64 // that one read would take
	Resident cachectl.Residency
	Known    bool // the reader is known; else it is judged as a new one
	Reader   admission.ReaderView
	Behind   int64
	Decision admission.Decision
	Why      string
	Limit    admission.Limit
	Weight   int // of the reader's flow against others
	Device   string
	Control  *admission.ControllerView // of the device's budget, nil: it is fixed
	Method   cachectl.Method           // that a bypass read would use
	Convoy   ConvoyView                // of the reader, when it is known
}

// Explain walks the decision for one read without doing it. Errors as Read.
func (l *Log) Explain(key admission.ReaderKey, from segment.Offset, maxBytes int64) (Explanation, error) {
	e := Explanation{Offsets: l.Offsets(), Pos: -1}
	if err := l.Err(); err != nil {
		return e, err
	}
	v, b, now := l.view.Load(), l.readable(), l.store.now()
	if from < v.start || from > e.Offsets.End {
		return e, fmt.Errorf("%w: %d is outside [%d, %d] of %s", ErrOffsetOutOfRange, from, v.start, e.Offsets.End, l.dir)
	}
	i := v.find(min(from, b.offset))
	for _, sv := range l.Segments() {
		if sv.seg == v.segs[max(i, 0)] {
			e.Segment = sv
		}
	}
	if e.Segment.seg == nil {
		return e, fmt.Errorf("explain %s: %w: segment is gone, ask again", l.dir, ErrClosed)
	}
	s := e.Segment.seg
	e.Device, e.Control = s.dir.name, l.store.budgets.view(s.dir)
	if from < b.offset {
		pos, err := l.Floor(e.Segment, from)
		if err != nil {
			return e, err
		}
		e.Pos, e.Bytes = pos, min(maxBytes, e.Segment.SizeBytes-pos)
		if e.Resident, err = l.Residency(e.Segment, pos, max(e.Bytes, 1)); err != nil {
			return e, err
		}
		e.Behind = l.endPos.Load() - s.before.Load() - pos
	}
	e.Reader, e.Known = l.store.viewReader(l, key, from, b, e.Behind, now)
	e.Convoy = l.convoyOf(e.Reader.Key)
	read := admission.Read{State: e.Reader.Class.State, Resident: e.Resident.Resident >= e.Resident.Pages, ResidentRatio: 1,
		Sealed: e.Segment.Sealed, Mode: l.store.opt.Mode, Forced: l.forced(), BudgetOK: true}
	if e.Resident.Pages > 0 {
		read.ResidentRatio = float64(e.Resident.Resident) / float64(e.Resident.Pages)
	}
	// Busy slots and other flows' turns are the normal queue; a wait that has a time is a spent budget.
	if e.Limit = s.dir.cold.limitedBy(key.Flow()); e.Limit.Wait > 0 {
		read.BudgetOK, read.LimitedBy = false, e.Limit
	}
	l.store.limitsMu.Lock()
	e.Weight = l.store.limits.Weight(key.Flow(), now)
	l.store.limitsMu.Unlock()
	e.Decision = admission.Decide(read)
	e.Why = e.Decision.Explain(read)
	e.Method = l.store.methodOn(s.dir, e.Segment.Sealed)
	return e, nil
}

// convoyOf is the convoy of a reader; zero when it has no cursor here.
func (l *Log) convoyOf(key admission.ReaderKey) ConvoyView {
	for _, c := range l.cursors.all() {
		if c.key == key {
			l.convoy.mu.Lock()
			defer l.convoy.mu.Unlock()
			return l.convoy.viewLocked(c.stream)
		}
	}
	return ConvoyView{}
}

// viewReader finds the reader, by its key or by its group alone, or judges a new one at that position.
func (s *Store) viewReader(l *Log, key admission.ReaderKey, from segment.Offset, b *bound, behind int64, now time.Time) (admission.ReaderView, bool) {
	s.readersMu.Lock()
	defer s.readersMu.Unlock()
	for _, v := range s.readers.Snapshot(now) {
		k := v.Key
		if k.Topic == key.Topic && k.Partition == key.Partition && k.Group == key.Group && (k.Client == key.Client || key.Client == "" && key.Group != "") {
			return v, true
		}
	}
	age := l.behindAge(from, now)
	fresh, err := admission.NewReaders(s.opt.Readers)
	if err != nil {
		return admission.ReaderView{}, false
	}
	fresh.SetMaxBytes(s.readers.MaxBytes())
	fresh.Observe(key, admission.Position{Offset: int64(from), EndOffset: int64(b.offset), BehindBytes: behind, BehindAge: age}, now)
	v, _ := fresh.View(key, now)
	return v, false
}

// methodOn is what bypass reads in a directory use now: the best of its file system's ladder that suits the segment.
func (s *Store) methodOn(d *logDir, sealed bool) cachectl.Method {
	for _, l := range s.opt.Cache.Ladders() {
		if l.Device != d.device {
			continue
		}
		for _, r := range l.Rungs {
			if r.Usable && (sealed || r.Method != cachectl.MethodDirect) {
				return r.Method
			}
		}
	}
	return cachectl.MethodBuffered
}

// Lag is how far an offset is behind the end of what readers see.
type Lag struct {
	EndOffset segment.Offset
	Records   int64
	Bytes     int64         // about: to the next entry of the index
	Age       time.Duration // since the record at the offset was appended, or was due where the log delivers late; negative: not known, for a record of before the last start that is young
}

// LagOf tells about an offset, whether or not somebody reads there. It asks no device for data, and for an index a second at most.
func (l *Log) LagOf(from segment.Offset) Lag {
	o := l.Offsets()
	from = max(from, o.LogStart) // what was deleted is not left to read
	lag := Lag{EndOffset: o.HighWatermark, Records: max(0, int64(o.HighWatermark-from))}
	if lag.Records == 0 {
		return lag
	}
	lag.Age = l.behindAge(from, l.store.now())
	if delay := l.config().DeliveryDelayMs; delay > 0 && lag.Age > 0 {
		lag.Age = max(0, lag.Age-time.Duration(delay)*time.Millisecond)
	}
	segments := l.Segments()
	for i, sv := range segments {
		if from >= sv.Next && i+1 < len(segments) {
			continue
		}
		at := l.floorSoon(sv, from)
		lag.Bytes = max(0, l.seenEnd(segments)-sv.Before-at)
		break
	}
	return lag
}

// seenEnd is the end of what readers see, in bytes from the first of segments: the log's end, but of one that delivers late.
func (l *Log) seenEnd(segments []SegmentView) int64 {
	last := segments[len(segments)-1]
	end := last.Before + last.SizeBytes
	if l.due.Load() == nil {
		return end
	}
	b := l.readable()
	for _, sv := range segments {
		if sv.Base == b.base {
			end = min(end, sv.Before+b.pos)
		}
	}
	return end
}

// floorSoon is Floor, and where the index is not in memory and does not come soon the segment's first byte.
func (l *Log) floorSoon(sv SegmentView, off segment.Offset) int64 {
	if off <= sv.Base {
		return 0
	}
	if !sv.seg.r.Indexed() {
		l.store.ask(questions{sv.seg.dir: {func() { _, _ = l.Floor(sv, off) }}}) // it stays in memory for a while
		if !sv.seg.r.Indexed() {
			return 0
		}
	}
	at, err := l.Floor(sv, off)
	if err != nil {
		return 0
	}
	return at
}
