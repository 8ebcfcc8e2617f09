package partition

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
)

// hotwarm.go reads the tails into the page cache after a start, so that real-time readers that come back find what they have
// not read yet.

// warmStep is one read; the device's queue gives each its turn, behind all reads of readers.
const warmStep = 1 << 20

// warmAge: a log whose newest record is older was not being written when the broker stopped, or the stop was so long that
// whoever comes back lags. Nobody waits for its tail.
const warmAge = time.Hour

// warmFlow is the subject of these reads at the schedulers. Client ids of that name share it; they gain nothing by it.
var warmFlow = admission.Subject{Kind: admission.Client, Name: "lagoon-warm"}

// warmProgress is how far warming is, in bytes.
type warmProgress struct {
	total, done atomic.Int64
	running     atomic.Bool
}

// WarmProgress tells how far the warming of tails after the start is; running is false before and after.
func (s *Store) WarmProgress() (done, total int64, running bool) {
	w := &s.hot.warm
	return w.done.Load(), w.total.Load(), w.running.Load()
}

// warmRead is one range to be read. age is how old its records were when the log's newest one came.
type warmRead struct {
	log    *Log
	seg    *logSegment
	pos, n int64
	age    time.Duration
}

// warmTails finds out where the tails begin, shares the budget out as the hot windows do, and starts reading in the
// background. The marks it leaves let the hot windows keep those tails for as long as if the last record had just come.
func (s *Store) warmTails() {
	h := s.hot
	m, err := h.opt.Memory()
	if err != nil {
		return // the rounds report it
	}
	lim := hotLimits{budget: min(h.opt.WarmBytes, hotBudget(h.opt.Share, m, 0, s.opt.Pool.Stats().CapacityBytes+hotReserve)), keep: h.opt.Keep, drop: DropOff}
	logs := slices.DeleteFunc(s.Logs(), func(l *Log) bool { return l.Err() != nil })
	known := s.warmAsk(logs)
	if s.ctx.Err() != nil {
		return
	}
	p := planHot(lim, known)
	var reads []warmRead
	for i, l := range logs {
		reads = append(reads, l.warmReads(known[i], p.logs[i].from)...)
		if marks := known[i].marks; len(marks) > 1 {
			l.hot.found.Store(&marks)
		}
	}
	if len(reads) == 0 {
		return
	}
	// The oldest need first: whoever comes back goes on where it stopped.
	slices.SortStableFunc(reads, func(a, b warmRead) int { return int(b.age - a.age) })
	for _, r := range reads {
		h.warm.total.Add(r.n)
	}
	h.warm.running.Store(true)
	byDir := map[*logDir][]warmRead{}
	for _, r := range reads {
		byDir[r.seg.dir] = append(byDir[r.seg.dir], r)
	}
	began, left := s.now(), &atomic.Int64{}
	left.Store(int64(len(byDir)))
	for _, reads := range byDir {
		s.wg.Go(func() {
			s.warmAll(reads)
			if left.Add(-1) > 0 {
				return
			}
			if s.ctx.Err() == nil {
				s.opt.Logger.Info("tails warmed", "bytes", h.warm.done.Load(), "elapsed", s.now().Sub(began))
			}
			h.warm.running.Store(false)
		})
	}
}

// warmWait is how long the first plan waits until it is known where the tails begin.
const warmWait = 30 * time.Second

// warmAsk has the home directories say where the tails of their logs begin, side by side. Of logs about which that is not known in time nothing is warmed.
func (s *Store) warmAsk(logs []*Log) []hotLog {
	type answer struct {
		i     int
		known hotLog
	}
	known, byHome := make([]hotLog, len(logs)), map[*logDir][]int{}
	for i, l := range logs {
		known[i] = l.warmUnknown()
		byHome[l.home] = append(byHome[l.home], i)
	}
	answers := make(chan answer, len(logs))
	for _, list := range byHome {
		s.wg.Go(func() {
			for _, i := range list {
				if s.ctx.Err() != nil {
					return
				}
				answers <- answer{i, logs[i].warmKnown(s.hot.opt.Keep)}
			}
		})
	}
	late := time.NewTimer(warmWait)
	defer late.Stop()
	for range logs {
		select {
		case a := <-answers:
			known[a.i] = a.known
		case <-late.C:
			return known
		case <-s.ctx.Done():
			return known
		}
	}
	return known
}

// warmUnknown is a log of whose tail nothing is known.
func (l *Log) warmUnknown() hotLog {
	end := l.endPos.Load()
	return hotLog{start: l.view.Load().segs[0].before.Load(), end: end, reader: -1, wanted: true, marks: []hotMark{{end, 0}}}
}

// warmKnown finds the positions at which the last keep of the log, and parts of it, begin, by the records' own time.
func (l *Log) warmKnown(keep time.Duration) hotLog {
	k := l.warmUnknown()
	last, err := l.MaxTimestamp(l.store.ctx)
	if err != nil || last.TimestampMs < 0 || l.store.now().Sub(time.UnixMilli(last.TimestampMs)) >= warmAge {
		return k
	}
	k.marks = nil
	for _, part := range []int64{8, 4, 2, 1} {
		age := keep * time.Duration(part) / 8
		at, err := l.OffsetForTime(l.store.ctx, last.TimestampMs-age.Milliseconds())
		if err != nil || at.Offset < 0 {
			continue
		}
		if pos := l.distancePos(nil, at.Offset); len(k.marks) == 0 || pos >= k.marks[len(k.marks)-1].end {
			k.marks = append(k.marks, hotMark{pos, age})
		}
	}
	k.marks = append(k.marks, hotMark{k.end, 0})
	return k
}

// warmReads cuts [from, end) into reads.
func (l *Log) warmReads(k hotLog, from int64) (out []warmRead) {
	v := l.view.Load()
	for i, s := range v.segs {
		begin, segEnd := v.span(i, k.end)
		for at := max(from, begin); at < segEnd; {
			pos := at - begin
			n := min(warmStep-pos%warmStep, segEnd-at)
			age := time.Duration(0)
			for _, m := range k.marks { // oldest first
				if m.end <= at {
					age = m.age
				}
			}
			out = append(out, warmRead{l, s, pos, n, age})
			at += n
		}
	}
	return out
}

// warmAll reads what lies in one directory.
func (s *Store) warmAll(reads []warmRead) {
	w := &s.hot.warm
	logged := s.now()
	for _, r := range reads {
		if s.ctx.Err() != nil {
			return
		}
		if err := s.warmOne(s.ctx, r); err != nil && s.ctx.Err() == nil {
			r.log.log.Warn("tail not warmed", "pos", r.pos, "err", err)
		}
		w.done.Add(r.n)
		if now := s.now(); now.Sub(logged) >= 5*time.Second {
			logged = now
			s.opt.Logger.Info("warming tails", "done_bytes", w.done.Load(), "bytes", w.total.Load())
		}
	}
}

// warmOne reads one range through the page cache, when it is its turn, unless it is there.
func (s *Store) warmOne(ctx context.Context, r warmRead) error {
	if !r.seg.r.Acquire() {
		return nil
	}
	defer r.seg.r.Release()
	f, err := r.seg.r.File()
	if err != nil {
		return err
	}
	if there, err := s.opt.Cache.Resident(f, r.pos, r.n); err != nil || there {
		return err
	}
	done, err := r.seg.dir.cold.hold(ctx, admission.Request{Kind: admission.KindMigration, Flow: warmFlow, Topic: r.log.topic,
		Client: warmFlow.Name, Bytes: r.n, Position: r.pos})
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.opt.Cache.Warm(f, r.pos, r.n); err != nil {
		return err
	}
	lastPage := make([]byte, min(r.n, cachectl.PageSize))
	_, err = f.ReadAt(lastPage, r.pos+r.n-int64(len(lastPage))) // until the device is done
	return err
}
