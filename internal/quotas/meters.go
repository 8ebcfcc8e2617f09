package quotas

import "time"

// MaxMeters bounds how many rates there are at once, but for one for each entity with a limit: 10,000 take about 4 MiB.
const MaxMeters = 10_000

// minSweep is how many there are before it is worth looking for those that can go.
const minSweep = 1024

// Meters holds the rates of everybody who has a limit. Not safe for concurrent use: the caller has a lock. Times may not go back.
type Meters struct {
	table   *Table
	start   time.Time
	meters  map[meterKey]*meter
	sweepAt int
	sweptMs int64
}

// meterKey is a kind of limit and who shares it. An entity with a default part is the crowd under that default that came when there were too many.
type meterKey struct {
	key    Key
	shared Entity
}

type meter struct {
	rate   rate
	pauses pauses
	tokens tokens
	limit  float64 // when it was used last
}

// NewMeters measures against a table.
func NewMeters(table *Table, now time.Time) *Meters {
	return &Meters{table: table, start: now, meters: map[meterKey]*meter{}, sweepAt: minSweep, sweptMs: -window}
}

// SetTable changes the limits; what was recorded stays.
func (m *Meters) SetTable(table *Table) { m.table = table }

// Len is how many rates are kept.
func (m *Meters) Len() int { return len(m.meters) }

// Record adds n to a client's rate and tells how long it has to wait; 0 for somebody without a limit. Nothing is recorded for n = 0.
func (m *Meters) Record(k Key, c Client, n float64, now time.Time) time.Duration {
	limit, shared, of, ok := m.table.find(k, c)
	if !ok {
		return 0
	}
	ms := m.ms(now)
	x := m.meter(meterKey{k, shared}, of, limit, ms)
	if n != 0 {
		x.rate.record(n, ms)
	}
	over := x.rate.over(limit, ms)
	if k == RequestPercentage { // Kafka's bound: a request must not cost more than it could have taken
		over = min(over, window*time.Millisecond)
	}
	if over > 0 {
		x.pauses.record(over, ms)
	}
	return over
}

// Rate is what is used of a limit per second, in the limit's unit.
type Rate struct {
	Shared    Entity // with a default part: the crowd under it that came when there were too many
	PerSecond float64
	// MeanPause is that of the last 30 to 60 s, of those who were told to wait; 0: nobody was.
	MeanPause time.Duration
}

// Rates lists the rates of a kind that are not 0, in no order; none for ControllerMutationRate, which has tokens. The caller owns the list.
func (m *Meters) Rates(k Key, now time.Time) (out []Rate) {
	ms := m.ms(now)
	for key, x := range m.meters {
		if key.key != k || x.rate.idle(ms) {
			continue
		}
		perSecond, _ := x.rate.measure(ms)
		out = append(out, Rate{key.shared, perSecond, x.pauses.mean(ms)})
	}
	return out
}

// Most is how much a client may be given at once: what all full windows bring at its limit. False for no limit.
func (m *Meters) Most(k Key, c Client) (n float64, limited bool) {
	limit, _, ok := m.table.Limit(k, c)
	return limit * (samples - 1) * window / 1000, ok
}

// Mutate takes n tokens for partitions made or deleted. A client in debt is refused when strict, and nothing is taken; otherwise it
// gets its way. wait is how long until it is out of debt.
func (m *Meters) Mutate(c Client, n float64, strict bool, now time.Time) (wait time.Duration, refused bool) {
	limit, shared, of, ok := m.table.find(ControllerMutationRate, c)
	if !ok {
		return 0, false
	}
	ms := m.ms(now)
	b := &m.meter(meterKey{ControllerMutationRate, shared}, of, limit, ms).tokens
	b.refill(limit, ms)
	if b.level < 0 && strict {
		return b.debt(limit), true
	}
	b.level -= n
	if strict { // the debt is the next request's affair
		return 0, false
	}
	return b.debt(limit), false
}

// Connect counts a new connection from an address and tells how long it has to wait, a second at most; one that waits was not counted.
func (m *Meters) Connect(ip string, now time.Time) time.Duration {
	limit, of, ok := m.table.findAddress(ip)
	if !ok {
		return 0
	}
	ms := m.ms(now)
	r := &m.meter(meterKey{ConnectionCreationRate, Entity{IP: Named(ip)}}, of, limit, ms).rate
	r.record(1, ms)
	over := min(r.over(limit, ms), window*time.Millisecond)
	if over > 0 {
		r.record(-1, ms)
	}
	return over
}

func (m *Meters) ms(now time.Time) int64 { return now.Sub(m.start).Milliseconds() }

// meter is the one of key, or when there are too many that of the crowd under the entity whose limit it is.
func (m *Meters) meter(key meterKey, of Entity, limit float64, ms int64) *meter {
	if x, ok := m.meters[key]; ok {
		x.limit = limit
		return x
	}
	if len(m.meters) >= m.sweepAt && ms-m.sweptMs >= window {
		m.sweep(ms)
	}
	if len(m.meters) >= MaxMeters {
		key.shared = of
		if x, ok := m.meters[key]; ok {
			x.limit = limit
			return x
		}
	}
	x := &meter{tokens: tokens{level: capacity(limit), lastMs: ms}, limit: limit}
	m.meters[key] = x
	return x
}

// sweep forgets the meters that are as good as new. The next one comes when there are twice as many as now, a second later at least.
func (m *Meters) sweep(ms int64) {
	for key, x := range m.meters {
		fresh := x.rate.idle(ms)
		if key.key == ControllerMutationRate {
			x.tokens.refill(x.limit, ms)
			fresh = x.tokens.level >= capacity(x.limit)
		}
		if fresh {
			delete(m.meters, key)
		}
	}
	m.sweepAt, m.sweptMs = min(max(minSweep, 2*len(m.meters)), MaxMeters), ms
}
