package admission

import (
	"cmp"
	"slices"
	"time"
)

// DeviceView is one scheduler for people.
type DeviceView struct {
	Name           string
	BytesPerSecond int64 // budget, 0: unlimited
	TokensBytes    int64 // negative: debt; 0 when unlimited
	MaxInFlight    int
	InFlight       int
	InFlightBytes  int64
	Queued         int
	ReadBytes      int64 // granted since the start
	MigrationBytes int64
	SharedBytes    int64      // that flows got from the reads of others
	Flows          []FlowView // backlogged, in flight or lately so; reads first, then by subject
}

// FlowView is one flow on one device.
type FlowView struct {
	Flow           Subject
	Kind           RequestKind
	Weight         int
	Queued         int
	QueuedBytes    int64
	InFlight       int
	InFlightBytes  int64
	BytesPerSecond int64   // granted, over the last minute
	GrantedBytes   int64   // since it is known
	Waited         WaitsBy // until requests were started
	LimitedBy      Limit
}

// limitRecent is for how long a limit that held back the flow goes on being the answer while one of its requests happens
// to be free to go: at a cap, that is half of all moments.
const limitRecent = time.Second

// LimitedBy says what the flow's reads wait for; the zero Limit when it has none queued or nothing holds it back.
func (s *Scheduler) LimitedBy(flow Subject, now time.Time) Limit {
	s.limits.refresh(now)
	f := s.rings[KindRead].known[flow]
	if f == nil || f.queued == 0 {
		return Limit{}
	}
	e, wait := s.head(f, now)
	if e == nil || now.Sub(f.limitedAt) < limitRecent {
		limit := f.limit
		limit.Wait = wait
		return limit
	}
	return s.sharedLimit(e.req, now)
}

// sharedLimit is what holds back a request that its own caps let through.
func (s *Scheduler) sharedLimit(req Request, now time.Time) Limit {
	global, device := s.limits.global.wait(req.Bytes, now), s.device.wait(req.Bytes, now)
	tier := Limit{By: LimitTier, Name: s.cfg.Name}
	switch {
	case global > 0 || (s.limits.global.rate > 0 && now.Sub(s.globalShort) < limitRecent):
		return Limit{LimitGlobal, "", s.limits.global.rate, global, "all cold reads together are at their cap"}
	case device > 0 || (s.device.rate > 0 && now.Sub(s.deviceShort) < limitRecent):
		tier.BytesPerSecond, tier.Wait, tier.Text = s.device.rate, device, "the device's cold budget is spent"
	case s.slotsUsed() >= s.cfg.MaxInFlight:
		tier.Text = "every slot of the device is busy"
	case len(s.rings[KindRead].flows) > 1:
		tier.Text = "it is another flow's turn"
	default:
		return Limit{}
	}
	return tier
}

// Snapshot is the scheduler as it is now. What it holds is the caller's.
func (s *Scheduler) Snapshot(now time.Time) DeviceView {
	v := DeviceView{
		Name: s.cfg.Name, BytesPerSecond: s.device.rate, MaxInFlight: s.cfg.MaxInFlight,
		InFlight: s.slotsUsed() + s.inFlight[KindRefill], InFlightBytes: s.inFlightBytes, Queued: s.queued,
		ReadBytes: s.granted[KindRead], MigrationBytes: s.granted[KindMigration],
		SharedBytes: s.shared,
	}
	if s.device.rate != 0 {
		s.device.refill(now)
		v.TokensBytes = s.device.tokens
	}
	for kind := range s.rings {
		for _, f := range s.rings[kind].known {
			if f.queued > 0 || f.inFlight > 0 || now.Sub(f.lastUsed) < time.Minute {
				v.Flows = append(v.Flows, s.flowView(RequestKind(kind), f, now))
			}
		}
	}
	slices.SortFunc(v.Flows, func(a, b FlowView) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Flow.Kind, b.Flow.Kind), cmp.Compare(a.Flow.Name, b.Flow.Name))
	})
	return v
}

func (s *Scheduler) flowView(kind RequestKind, f *flow, now time.Time) FlowView {
	v := FlowView{
		Flow: f.subject, Kind: kind, Weight: int(s.limits.weight(f.subject, now)),
		Queued: f.queued, QueuedBytes: f.queuedBytes, InFlight: f.inFlight, InFlightBytes: f.inFlightBytes,
		BytesPerSecond: perSecond(f.granted.sum(s.clock.slot(now)), seriesSpan(&s.clock, f.first, now)),
		GrantedBytes:   f.granted.total, Waited: f.waited,
	}
	if kind == KindRead {
		v.LimitedBy = s.LimitedBy(f.subject, now)
	}
	return v
}
