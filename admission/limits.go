package admission

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Limits holds every cap and weight that spans devices: the global ones, those configured for a group, client or topic,
// and the overrides on top. One Limits is shared by all Schedulers, under one lock of the caller. Not safe for
// concurrent use.
type Limits struct {
	cfg        LimitsConfig
	configured map[Subject]Cap
	overrides  Overrides
	capped     map[capKey]*capBucket
	global     bucket // reads
	migration  bucket
	boosts     map[Subject]int64 // weights of flows that race retention, kept by Races
	gen        uint64            // changes whenever an answer "blocked until" may have become wrong
	sweepAt    int
}

// capKey tells a subject's own cap from the default one that it has as a flow: a client's own cap holds for it as a flow and
// inside groups together, the default only for it as a flow.
type capKey struct {
	Subject
	byDefault bool
}

// capBucket is the bucket of one subject, with the generation in which its rate was looked up.
type capBucket struct {
	bucket
	by  LimitScope
	gen uint64
}

// NewLimits makes the caps. Errors: ErrConfig.
func NewLimits(cfg LimitsConfig, now time.Time) (*Limits, error) {
	l := &Limits{configured: make(map[Subject]Cap), capped: make(map[capKey]*capBucket), sweepAt: minSweep}
	return l, l.SetConfig(cfg, now)
}

// SetConfig changes the global caps; buckets keep their debts. Errors: ErrConfig, nothing changed.
func (l *Limits) SetConfig(cfg LimitsConfig, now time.Time) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	l.cfg = cfg
	l.global.setRate(cfg.GlobalBytesPerSecond, burstOf(cfg.GlobalBytesPerSecond), now)
	l.migration.setRate(cfg.MigrationBytesPerSecond, burstOf(cfg.MigrationBytesPerSecond), now)
	l.gen++
	return nil
}

// Configure sets the lasting cap and weight of a subject (`lagoon.catchup.max.bytes.per.second`, `…weight`); the zero
// Cap removes them. The caller bounds how many there are (one per configured topic or group). Errors: ErrConfig.
func (l *Limits) Configure(sub Subject, c Cap) error {
	if sub.Kind < Group || sub.Kind > Topic || sub.Name == "" {
		return fmt.Errorf("%w: cap of %q: want a group, client or topic with a name", ErrConfig, sub.String())
	}
	if err := c.validate(sub.Kind); err != nil {
		return fmt.Errorf("%w: cap of %s: %w", ErrConfig, sub, err)
	}
	if l.gen++; c == (Cap{}) {
		delete(l.configured, sub)
		return nil
	}
	l.configured[sub] = c
	return nil
}

// Config is what SetConfig was given.
func (l *Limits) Config() LimitsConfig { return l.cfg }

// SubjectCap is the lasting cap of one subject.
type SubjectCap struct {
	Subject
	Cap
}

// Configured lists the lasting caps, ordered by kind and name. The slice is the caller's.
func (l *Limits) Configured() []SubjectCap {
	list := make([]SubjectCap, 0, len(l.configured))
	for sub, c := range l.configured {
		list = append(list, SubjectCap{sub, c})
	}
	slices.SortFunc(list, func(a, b SubjectCap) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// SetOverride adds or replaces an override, in force at once. Errors: ErrOverride, ErrTooManyOverrides.
func (l *Limits) SetOverride(o Override, now time.Time) error {
	l.gen++
	return l.overrides.Set(o, now)
}

// DeleteOverride removes one and tells whether there was one.
func (l *Limits) DeleteOverride(k Kind, name string) bool {
	l.gen++
	return l.overrides.Delete(k, name)
}

// Overrides lists those in force at now, ordered by kind and name.
func (l *Limits) Overrides(now time.Time) []Override { return l.overrides.List(now) }

// refresh drops expired overrides. Every Scheduler call starts with it.
func (l *Limits) refresh(now time.Time) {
	if l.overrides.expire(now) {
		l.gen++
	}
}

// Weight is a flow's share against others at a device now, DefaultWeight where nobody set one.
func (l *Limits) Weight(flow Subject, now time.Time) int {
	l.refresh(now)
	return int(l.weight(flow, now))
}

// weight is the flow's share, and the only place that knows: its own weight, or what Races boosts it to.
func (l *Limits) weight(flow Subject, now time.Time) int64 {
	return max(l.ownWeight(flow, now), l.boosts[flow])
}

// ownWeight is what people set.
func (l *Limits) ownWeight(flow Subject, now time.Time) int64 {
	w := DefaultWeight
	if c, ok := l.configured[flow]; ok && c.Weight != 0 {
		w = c.Weight
	}
	if o, ok := l.overrides.Get(flow, now); ok && o.Weight != 0 {
		w = o.Weight
	}
	return int64(w)
}

// flowCap is the lower of the caps on all that one flow reads, 0 if there is none.
func (l *Limits) flowCap(flow Subject, now time.Time) int64 {
	own, _ := l.rateOf(flow, now)
	if own == 0 {
		own = l.cfg.FlowBytesPerSecond
	}
	return lower(own, l.cfg.GlobalBytesPerSecond)
}

// readerCap is the lower of the caps on what one reader reads that are not its flow's: those of its topic and its client id.
func (l *Limits) readerCap(k ReaderKey, now time.Time) int64 {
	ofTopic, _ := l.rateOf(Subject{Topic, k.Topic}, now)
	ofClient, _ := l.rateOf(Subject{Client, k.Client}, now)
	return lower(ofTopic, ofClient)
}

// lower is the lower of two rates of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// rateOf is the subject's own cap, 0 if it has none, and where it comes from.
func (l *Limits) rateOf(sub Subject, now time.Time) (int64, LimitScope) {
	if o, ok := l.overrides.Get(sub, now); ok && o.BytesPerSecond != 0 {
		return o.BytesPerSecond, LimitOverride
	}
	if sub.Kind == Topic {
		return l.configured[sub].BytesPerSecond, LimitTopic
	}
	return l.configured[sub].BytesPerSecond, LimitReader
}

// bucketOf is the bucket that holds for the subject, nil when it has no cap.
func (l *Limits) bucketOf(sub Subject, isFlow bool, now time.Time) *capBucket {
	if sub.Name == "" && !isFlow {
		return nil
	}
	if b := l.bucket(capKey{sub, false}, now); b != nil || !isFlow {
		return b
	}
	return l.bucket(capKey{sub, true}, now)
}

func (l *Limits) bucket(key capKey, now time.Time) *capBucket {
	b := l.capped[key]
	if b != nil && b.gen == l.gen {
		return b.orNil()
	}
	rate, by := l.cfg.FlowBytesPerSecond, LimitReader
	if !key.byDefault {
		rate, by = l.rateOf(key.Subject, now)
	}
	if b == nil {
		if rate == 0 {
			return nil
		}
		l.sweep(now)
		b = &capBucket{}
		l.capped[key] = b
	}
	if b.by, b.gen = by, l.gen; b.rate != rate {
		b.setRate(rate, burstOf(rate), now)
	}
	return b.orNil()
}

func (b *capBucket) orNil() *capBucket {
	if b.rate == 0 {
		return nil
	}
	return b
}

const minSweep = 1024

// sweep forgets buckets that are as good as new. What stays has passed bytes in the last moments, and the devices bound
// how many can have.
func (l *Limits) sweep(now time.Time) {
	if len(l.capped) < l.sweepAt {
		return
	}
	for sub, b := range l.capped {
		if b.full(now) {
			delete(l.capped, sub)
		}
	}
	l.sweepAt = max(minSweep, 2*len(l.capped))
}
