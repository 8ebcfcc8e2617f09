package admission

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// CheckInvariants recomputes what Readers keeps incrementally.
func (r *Readers) CheckInvariants() error {
	flows := map[Subject]backlog{}
	for key, rd := range r.byKey {
		f := flows[key.Flow()]
		f.bytes += rd.contributes
		f.readers++
		flows[key.Flow()] = f
	}
	if len(flows) != len(r.flows) {
		return fmt.Errorf("%d flows kept, %d expected", len(r.flows), len(flows))
	}
	for sub, want := range flows {
		if got := r.flows[sub]; got == nil || *got != want {
			return fmt.Errorf("%s: backlog %+v, want %+v", sub, got, want)
		}
	}
	if r.recent.Len() != len(r.byKey) || len(r.byKey) > r.cfg.MaxReaders {
		return fmt.Errorf("%d readers, %d in the list, at most %d", len(r.byKey), r.recent.Len(), r.cfg.MaxReaders)
	}
	for e := r.recent.Front(); e != nil && e.Next() != nil; e = e.Next() {
		if e.Value.(*reader).seen.Before(e.Next().Value.(*reader).seen) {
			return fmt.Errorf("the list is not ordered by last fetch")
		}
	}
	return nil
}

// CheckInvariants recomputes the scheduler's counts from its queues.
func (s *Scheduler) CheckInvariants() error {
	queued, inFlight := 0, 0
	for kind := range s.rings {
		r := &s.rings[kind]
		if len(r.flows) > 0 && r.cur >= len(r.flows) {
			return fmt.Errorf("current flow %d of %d", r.cur, len(r.flows))
		}
		backlogged := 0
		for sub, f := range r.known {
			n := 0
			var bytes int64
			for _, st := range f.streams {
				if len(st.queue) == 0 {
					return fmt.Errorf("%s: empty stream", sub)
				}
				for _, e := range st.queue {
					n++
					bytes += e.req.Bytes
				}
			}
			if n != f.queued || bytes != f.queuedBytes {
				return fmt.Errorf("%s: %d queued with %d bytes, counted %d with %d", sub, n, bytes, f.queued, f.queuedBytes)
			}
			if n > 0 {
				backlogged++
			}
			queued += n
			inFlight += f.inFlight
		}
		if backlogged != len(r.flows) {
			return fmt.Errorf("%d flows in the ring, %d backlogged", len(r.flows), backlogged)
		}
	}
	if queued != s.queued || inFlight != s.slotsUsed() || queued+inFlight != len(s.byID) {
		return fmt.Errorf("%d queued, %d in flight, %d known; counted %d, %d", queued, inFlight, len(s.byID), s.queued, s.slotsUsed())
	}
	return nil
}

// LimitView is one cap as the tests see it.
type LimitView struct {
	By             LimitScope
	Name           string
	BytesPerSecond int64
	TokensBytes    int64 // negative: debt
	GrantedBytes   int64
}

// Snapshot returns the global caps and those of subjects that are in use, ordered by scope and name.
func (l *Limits) Snapshot(now time.Time) []LimitView {
	views := make([]LimitView, 0, len(l.capped)+2)
	add := func(by LimitScope, name string, b *bucket) {
		if b.rate != 0 {
			b.refill(now)
			views = append(views, LimitView{by, name, b.rate, b.tokens, b.taken})
		}
	}
	add(LimitGlobal, "", &l.global)
	add(LimitGlobal, "migration", &l.migration)
	for key := range l.capped {
		if b := l.bucket(key, now); b != nil {
			add(b.by, key.String(), &b.bucket)
		}
	}
	slices.SortFunc(views, func(a, b LimitView) int {
		return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Name, b.Name))
	})
	return views
}

// MedianOf is latencyMass.median of what was counted.
func MedianOf(l *Latencies) time.Duration {
	var m latencyMass
	m.add(l)
	return m.median()
}
