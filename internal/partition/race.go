package partition

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/segment"
)

// Bounds of the watch on retention, which runs once a second.
const (
	maxRacers   = 256            // readers looked at, those whose data go first
	maxSegments = 512            // of one reader's way
	raceAhead   = 24 * time.Hour // deadlines later than this are not looked at: no backlog needs an earlier start
	maxRaceRows = 20             // of lagoon_reader_retention_race_seconds
	maxLostRows = 10             // log lines about what one retention took from the readers of one partition
	growSmooth  = 30 * time.Second
)

// growth is how fast a log gets longer: what retention.bytes deletes by.
type growth struct {
	pos  int64
	at   time.Time
	rate float64 // bytes per second
}

func (g *growth) note(pos int64, now time.Time) {
	if g.at.IsZero() || pos < g.pos {
		*g = growth{pos: pos, at: now}
		return
	}
	dt := now.Sub(g.at).Seconds()
	if dt <= 0 {
		return
	}
	keep := math.Exp(-dt / growSmooth.Seconds())
	if g.rate == 0 {
		keep = 0
	}
	g.rate = keep*g.rate + (1-keep)*float64(pos-g.pos)/dt
	g.pos, g.at = pos, now
}

// race lets admission see which readers retention is about to overtake, and says so once per race.
func (s *Store) race(now time.Time) {
	s.racing.Lock()
	defer s.racing.Unlock()
	q := questions{}
	racers := s.racers(now, q)
	if len(q) > 0 {
		s.ask(q)
		racers = s.racers(now, questions{}) // what has not been answered is asked again next time
	}
	s.limitsMu.Lock()
	devices := make([]admission.DeviceView, len(s.dirs))
	for i, d := range s.dirs {
		devices[i] = d.cold.sched.Snapshot(now)
	}
	events := s.races.Tick(racers, devices, now)
	s.limitsMu.Unlock()
	for _, e := range events {
		attrs := []any{"reader", e.Flow.String(), "topic", e.Topic, "partition", e.Partition, "text", e.Flow.String() + " " + e.Text}
		switch {
		case e.Over:
			s.opt.Logger.Info("retention race over", append(attrs, "elapsed", now.Sub(e.Since))...)
		default:
			s.opt.Logger.Warn("retention race: data will be deleted before they are read", append(attrs, "countdown", e.Countdown,
				"loss_bytes", e.LossBytes, "lost_anyway_bytes", e.LostAnyway)...)
		}
	}
}

// racers lists the readers at work that have deadlines, those with the first ones. What is not known for that comes to q.
func (s *Store) racers(now time.Time, q questions) []admission.Racer {
	s.readersMu.Lock()
	views := s.readers.Snapshot(now)
	s.readersMu.Unlock()
	type runner struct {
		view  admission.ReaderView
		log   *Log
		first time.Duration
	}
	var runners []runner
	grown := map[*Log]bool{}
	for _, v := range views {
		if v.Position.AtEnd() || v.Class.State == admission.Stalled || v.Class.State == admission.Stopped {
			continue
		}
		l, ok := s.Log(v.Key.Topic, v.Key.Partition)
		if !ok || l.Err() != nil || !l.config().Delete {
			continue
		}
		if !grown[l] {
			grown[l] = true
			l.grow.note(l.endPos.Load(), now)
		}
		if d := l.deadlines(segment.Offset(v.Position.Offset), now, 1, q); len(d) > 0 {
			runners = append(runners, runner{v, l, d[0].In})
		}
	}
	slices.SortFunc(runners, func(a, b runner) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.view.ID, b.view.ID)) })
	var out []admission.Racer
	for _, r := range runners[:min(len(runners), maxRacers)] {
		off := segment.Offset(r.view.Position.Offset)
		x := admission.Racer{Key: r.view.Key, Device: r.log.deviceAt(off), Deadlines: r.log.deadlines(off, now, maxSegments, q)}
		for _, n := range r.view.LaneBytesTotal {
			x.ReadBytes += n
		}
		out = append(out, x)
	}
	return out
}

// deviceAt names the device that a read at off goes to.
func (l *Log) deviceAt(off segment.Offset) string {
	v := l.view.Load()
	return v.segs[max(0, v.find(off))].dir.spec.Device.Name
}

// deadlines predicts when retention takes the sealed segments from the one that holds off on, up to n of them. Retention deletes
// from the front: a segment goes no earlier than those before it. By time that is retention.ms after its newest record; by
// size it is when the log has grown by what is missing, at the rate at which it grows. What may go now has a time of 0 or
// less, although it may stay for up to a retention interval.
func (l *Log) deadlines(off segment.Offset, now time.Time, n int, q questions) (out []admission.Deadline) {
	cfg, v := l.config(), l.view.Load()
	if !cfg.Delete || cfg.RetentionMs < 0 && cfg.RetentionBytes < 0 {
		return nil
	}
	at, excess := l.distancePos(nil, off), l.SizeBytes()-cfg.RetentionBytes
	in, first := time.Duration(math.MinInt64), max(0, v.find(off))
	gone := int64(0) // when retention has taken segment i
	for _, s := range v.segs[:first] {
		gone += s.bytes()
	}
	for i := first; i+1 < len(v.segs) && len(out) < n; i++ {
		_, end := v.span(i, math.MaxInt64)
		gone += v.segs[i].bytes()
		goes := raceAhead + 1
		if cfg.RetentionMs >= 0 {
			goes = min(goes, v.segs[i].expiresIn(cfg.RetentionMs, now, q))
		}
		if cfg.RetentionBytes >= 0 {
			goes = min(goes, l.grow.until(gone-excess))
		}
		if in = max(in, goes); in > raceAhead {
			break
		}
		if end > at {
			out = append(out, admission.Deadline{Bytes: end - at, In: in})
		}
	}
	return out
}

// until is the time in which the log grows by n bytes.
func (g *growth) until(n int64) time.Duration {
	switch {
	case n <= 0:
		return 0
	case g.rate <= 0:
		return raceAhead + 1
	}
	return time.Duration(min(float64(n)/g.rate, (raceAhead+time.Second).Seconds()) * float64(time.Second))
}

// expiresIn is the time until retention.ms has passed since the newest record; a segment that has none, or of which that is not known, is
// taken to stay.
func (s *logSegment) expiresIn(retentionMs int64, now time.Time, q questions) time.Duration {
	if !s.r.Acquire() {
		return 0 // it is gone already
	}
	defer s.r.Release()
	_, ms, _, known := s.r.KnownTimestamps()
	if !known {
		q[s.dir] = append(q[s.dir], s.learnTimes)
	}
	if ms < 0 {
		return raceAhead + 1
	}
	left := ms - now.UnixMilli() // both far from overflow: a timestamp is checked when it comes in
	if retentionMs > raceAhead.Milliseconds()-left {
		return raceAhead + 1
	}
	return time.Duration(left+retentionMs) * time.Millisecond
}

// Races lists the readers that retention is about to overtake, most urgent first.
func (s *Store) Races() []admission.RaceView {
	s.limitsMu.Lock()
	defer s.limitsMu.Unlock()
	return s.races.Snapshot()
}

// noteLost counts what a deletion took from readers at work, and says whose it was. The segments are out of the view and not yet
// released.
func (d drop) noteLost(now time.Time) {
	l, s := d.log, d.log.store
	rows := 0
	for _, c := range l.cursors.all() {
		s.readersMu.Lock()
		v, ok := s.readers.View(c.key, now)
		s.readersMu.Unlock()
		off := segment.Offset(v.Position.Offset)
		if !ok || v.Class.State == admission.Stopped || off >= d.start || v.Position.AtEnd() {
			continue
		}
		lost := d.unread(off)
		s.metrics.retentionLost.Add(float64(lost))
		if rows++; rows <= maxLostRows {
			l.log.Warn("retention deleted data that a reader had not read: raise retention, or give the reader more weight",
				"reader", c.key.Flow().String(), "offset", off, "log_start", d.start, "lost_bytes", lost)
		}
	}
}

// unread is how much of the dropped segments lies at or behind off.
func (d drop) unread(off segment.Offset) (n int64) {
	for i, s := range d.segs {
		next := d.start
		if i+1 < len(d.segs) {
			next = d.segs[i+1].base
		}
		if off >= next {
			continue
		}
		n += s.r.Meta().SizeBytes
		if off > s.base && s.r.Acquire() {
			if s.r.Ready() {
				if pos, err := s.r.Floor(off); err == nil {
					n -= pos
				}
			}
			s.r.Release()
		}
	}
	return n
}

// raceCollector exports the countdowns of the most urgent races.
type raceCollector struct{ store *Store }

var descRace = prometheus.NewDesc("lagoon_reader_retention_race_seconds",
	"Time until retention deletes something that the reader has not read, at its present rate; the most urgent readers only.",
	[]string{"group", "client_id", "topic"}, nil)

// Describe implements prometheus.Collector.
func (c raceCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descRace }

// Collect implements prometheus.Collector.
func (c raceCollector) Collect(ch chan<- prometheus.Metric) {
	seen := map[[3]string]bool{}
	for _, v := range c.store.Races() {
		labels := [3]string{2: v.Topic}
		i := 0
		if v.Flow.Kind == admission.Client {
			i = 1
		}
		labels[i] = strings.ToValidUTF8(v.Flow.Name, "?") // names are clients' choice
		if v.Countdown < 0 || seen[labels] || len(seen) == maxRaceRows {
			continue
		}
		seen[labels] = true
		ch <- prometheus.MustNewConstMetric(descRace, prometheus.GaugeValue, v.Countdown.Seconds(), labels[:]...)
	}
}
