package admission

import "time"

// ReaderView is one reader for people: admin API, metrics, CLI.
type ReaderView struct {
	ID       uint64
	Key      ReaderKey
	Class    Class    // Reason and Text are those of now
	Behind   bool     // class "lagging" (true) or "realtime": outside the window, whatever the state
	Position Position // as it last asked
	First    time.Time
	LastSeen time.Time

	LagRecords int64         // EndOffset - Offset: offsets, of which compaction and markers may have taken some
	LagBytes   int64         //
	LagAge     time.Duration // negative: not known
	ETA        time.Duration // until it is at the end at the speed of the last minute; 0 at the end, -1: never, or not known

	BytesPerSecond     int64           // over the last minute, all lanes
	LaneBytesPerSecond [numLanes]int64 // the same by lane
	LaneBytes          [numLanes]int64 // bytes in the last minute, by lane
	LaneBytesTotal     [numLanes]int64 // since it is known, by lane
	LastLane           Lane            //
	WaitRatio          float64         // part of the last minute that we made it wait, 0..1
	LimitedBy          Limit           // what it waited for last, if that is less than limitFresh ago
	WaitedTotal        time.Duration   //
}

// limitFresh is for how long the last wait of a reader still says what limits it.
const limitFresh = 5 * time.Second

func (r *Readers) view(rd *reader, now time.Time) ReaderView {
	v := ReaderView{
		ID: rd.id, Key: rd.key, Class: rd.class, Behind: rd.behind, Position: rd.pos, First: rd.first, LastSeen: rd.seen,
		LagRecords: max(0, rd.pos.EndOffset-rd.pos.Offset), LagBytes: rd.pos.BehindBytes, LagAge: rd.pos.BehindAge,
		ETA: rd.eta(), LastLane: rd.lastLane, WaitedTotal: time.Duration(rd.waited.total),
	}
	if rd.pos.AtEnd() {
		v.LagAge = 0
	}
	v.Class.Changed = false
	if state, reason := r.state(rd, now); state == rd.class.State {
		v.Class.Reason = reason
	}
	v.Class.Text = r.text(rd, v.Class.Reason, now)
	slot, span := r.clock.slot(now), seriesSpan(&r.clock, rd.first, now)
	for lane := range rd.lanes {
		bytes := rd.lanes[lane].sum(slot)
		v.LaneBytes[lane] = bytes
		v.LaneBytesTotal[lane] = rd.lanes[lane].total
		v.LaneBytesPerSecond[lane] = perSecond(bytes, span)
		v.BytesPerSecond += v.LaneBytesPerSecond[lane]
	}
	v.WaitRatio = min(1, float64(rd.waited.sum(slot))/float64(span))
	if !rd.held.IsZero() && now.Sub(rd.held) < limitFresh {
		v.LimitedBy = rd.limit
	}
	return v
}

func (rd *reader) eta() time.Duration {
	speed := rd.trend.closing()
	switch {
	case rd.pos.AtEnd():
		return 0
	case speed <= 0:
		return -1
	}
	seconds := float64(rd.pos.BehindBytes) / float64(speed)
	return time.Duration(min(seconds, 1e9) * float64(time.Second))
}
