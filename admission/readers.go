package admission

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"time"
)

// ReaderKey identifies one consumer's cursor in one partition. Strings are bounded by the caller; the registry keeps
// copies of its own.
type ReaderKey struct {
	Group     string // "" while not known: the client id stands for it
	Client    string
	Topic     string
	Partition int32
	Conn      uint64 // tells apart connections with the same client id and no known group; 0 otherwise
}

// Flow is the unit of fairness: the group, or the client id while the group is not known.
func (k ReaderKey) Flow() Subject {
	if k.Group != "" {
		return Subject{Group, k.Group}
	}
	return Subject{Client, k.Client}
}

// Position is where a reader stands as it asks.
type Position struct {
	Offset      int64         // the first offset it wants
	EndOffset   int64         // the offset after the last it can see
	BehindBytes int64         // bytes from its position to the end
	BehindAge   time.Duration // age of what it reads next; negative: not known, the bytes alone decide
}

// AtEnd tells that there is nothing left to read.
func (p Position) AtEnd() bool { return p.Offset >= p.EndOffset || p.BehindBytes <= 0 }

// Class is what a reader is, and by which rule. Reason and Text are of the moment when the state was entered; those of a
// ReaderView are of now.
type Class struct {
	State   State
	Reason  Reason
	Text    string
	Since   time.Time
	Changed bool // this call changed State
}

// Change is a transition that Tick made.
type Change struct {
	Key   ReaderKey
	From  State
	Class Class
}

// Readers keeps the state of every reader. Not safe for concurrent use: the caller locks. Observe, Served and Waited do
// not allocate for a known reader whose state stays; every other cost is bounded by Config.MaxReaders.
type Readers struct {
	cfg      Config
	maxBytes int64 // SetMaxBytes
	byKey    map[ReaderKey]*reader
	recent   *list.List // of *reader, the one that asked last in front
	flows    map[Subject]*backlog
	clock    seriesClock
	nextID   uint64
	dropped  int64
}

// backlog is what a flow has to read of old data, in all its partitions.
type backlog struct {
	bytes   int64
	readers int
}

type reader struct {
	id   uint64
	key  ReaderKey
	flow *backlog
	seat *list.Element // in Readers.recent

	class  Class
	pos    Position
	behind bool      // outside the window, with hysteresis
	below  time.Time // since when below half of the window while behind; zero: it is not
	why    Reason    // the rule that set behind last

	first, seen, moved, held time.Time // first and last Observe; last progress; last time that we made it wait
	contributes              int64     // its part of flow.bytes

	trend    trend
	lanes    [Defer]series // bytes by lane; nothing is served in lane defer
	waited   series        // ns
	lastLane Lane
	limit    Limit
}

// NewReaders makes an empty registry. Errors: ErrConfig.
func NewReaders(cfg Config) (*Readers, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Readers{
		cfg:    cfg.withDefaults(),
		byKey:  make(map[ReaderKey]*reader),
		recent: list.New(),
		flows:  make(map[Subject]*backlog),
	}, nil
}

// SetConfig replaces the policy; readers are judged by it when they ask next. Errors: ErrConfig, nothing changed.
func (r *Readers) SetConfig(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	r.cfg = cfg.withDefaults()
	for len(r.byKey) > r.cfg.MaxReaders {
		r.forget(r.recent.Back().Value.(*reader))
		r.dropped++
	}
	return nil
}

// SetMaxBytes says how far behind a reader can be at most and still find its bytes in memory: beyond it is outside the window,
// whatever the age. It counts as MinBytes when it is less than that; 0, as at the start: no such bound. Readers are judged by it when
// they ask next.
func (r *Readers) SetMaxBytes(n int64) {
	if n > 0 {
		n = max(n, r.cfg.MinBytes)
	}
	r.maxBytes = n
}

// MaxBytes is what SetMaxBytes came to.
func (r *Readers) MaxBytes() int64 { return r.maxBytes }

// Observe notes that a reader asks at a position, and judges it.
func (r *Readers) Observe(key ReaderKey, pos Position, now time.Time) Class {
	rd, known := r.byKey[key]
	if !known {
		rd = r.admit(key, now)
	}
	pos.BehindBytes = max(pos.BehindBytes, 0)
	resumed := !known || rd.class.State == Stopped
	rewound := !resumed && pos.Offset < rd.pos.Offset
	if resumed || pos.Offset != rd.pos.Offset || pos.AtEnd() {
		rd.moved = now
	}
	if resumed || rewound {
		rd.trend = trend{}
	}
	rd.seen = now
	r.recent.MoveToFront(rd.seat)
	rd.pos = pos
	rd.trend.add(r.clock.ns(now), pos.BehindBytes)
	r.contribute(rd)
	r.judge(rd, resumed, rewound, now)
	r.enter(rd, now, !known)
	return rd.class
}

// Served notes bytes that a reader got in a lane; bytes are ignored in lane Defer, which notes that we made it wait.
// Unknown readers are ignored.
func (r *Readers) Served(key ReaderKey, lane Lane, bytes int64, now time.Time) {
	rd, ok := r.byKey[key]
	if !ok || lane >= numLanes {
		return
	}
	rd.lastLane = lane
	if lane == Defer {
		rd.held = now
		return
	}
	rd.lanes[lane].add(r.clock.slot(now), max(bytes, 0))
}

// Waited notes that we made a reader wait for d until now, and for what. Unknown readers are ignored.
func (r *Readers) Waited(key ReaderKey, d time.Duration, by Limit, now time.Time) {
	rd, ok := r.byKey[key]
	if !ok || d < 0 {
		return
	}
	rd.held = now
	rd.limit = by
	rd.waited.add(r.clock.slot(now), int64(d))
}

// Tick finds the readers that went silent: stalled, stopped, forgotten. Call it every second or so. It costs nothing for
// readers that asked lately. The slice is the caller's, nil if nothing changed.
func (r *Readers) Tick(now time.Time) []Change {
	var changes []Change
	for e := r.recent.Back(); e != nil; {
		rd := e.Value.(*reader)
		if now.Sub(rd.seen) < r.cfg.StallAfter {
			break // the list is ordered by seen
		}
		e = e.Prev()
		if now.Sub(rd.seen) >= r.cfg.ForgetAfter {
			r.forget(rd)
			continue
		}
		from := rd.class.State
		if r.enter(rd, now, false); rd.class.Changed {
			changes = append(changes, Change{rd.key, from, rd.class})
		}
	}
	return changes
}

// Len is the number of readers known; dropped counts those that MaxReaders pushed out.
func (r *Readers) Len() (known int, dropped int64) { return len(r.byKey), r.dropped }

// Snapshot returns every reader, ordered by topic, partition, flow, client and id. The slice is the caller's.
func (r *Readers) Snapshot(now time.Time) []ReaderView {
	views := make([]ReaderView, 0, len(r.byKey))
	for _, rd := range r.byKey {
		views = append(views, r.view(rd, now))
	}
	slices.SortFunc(views, func(a, b ReaderView) int {
		return cmp.Or(cmp.Compare(a.Key.Topic, b.Key.Topic), cmp.Compare(a.Key.Partition, b.Key.Partition),
			cmp.Compare(a.Key.Group, b.Key.Group), cmp.Compare(a.Key.Client, b.Key.Client), cmp.Compare(a.ID, b.ID))
	})
	return views
}

// View returns one reader.
func (r *Readers) View(key ReaderKey, now time.Time) (ReaderView, bool) {
	rd, ok := r.byKey[key]
	if !ok {
		return ReaderView{}, false
	}
	return r.view(rd, now), true
}

func (r *Readers) admit(key ReaderKey, now time.Time) *reader {
	for len(r.byKey) >= r.cfg.MaxReaders {
		r.forget(r.recent.Back().Value.(*reader))
		r.dropped++
	}
	// The key's strings may be parts of a request frame that is about to be reused.
	key.Group, key.Client, key.Topic = strings.Clone(key.Group), strings.Clone(key.Client), strings.Clone(key.Topic)
	flow := r.flows[key.Flow()]
	if flow == nil {
		flow = &backlog{}
		r.flows[key.Flow()] = flow
	}
	flow.readers++
	r.nextID++
	rd := &reader{id: r.nextID, key: key, flow: flow, first: now, seen: now, moved: now}
	rd.seat = r.recent.PushFront(rd)
	r.byKey[key] = rd
	return rd
}

func (r *Readers) forget(rd *reader) {
	rd.flow.bytes -= rd.contributes
	if rd.flow.readers--; rd.flow.readers == 0 {
		delete(r.flows, rd.key.Flow())
	}
	r.recent.Remove(rd.seat)
	delete(r.byKey, rd.key)
}
