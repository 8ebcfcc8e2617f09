package admission

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of overrides and configured caps.
const (
	// MinCapBytesPerSecond is the smallest cap. It is as good as a pause, and yet a 4 MiB chunk passes within minutes, so
	// that a consumer neither hangs for ever nor holds chunk memory.
	MinCapBytesPerSecond = 16 << 10
	// DefaultWeight and MaxWeight follow systemd's IOWeight, which operators know.
	DefaultWeight = 100
	MaxWeight     = 10_000
	// MaxOverrides bounds the set; more than this is a script gone wild.
	MaxOverrides = 10_000
	maxNameBytes = 32 << 10 // Kafka's strings are int16-sized
)

// Override is an operator's temporary word on one group, client or topic. It beats what is configured.
type Override struct {
	Kind           Kind
	Name           string
	BytesPerSecond int64     // cap on cold reads over all devices; 0: leaves the cap as it is
	Weight         int       // share of a saturated device, DefaultWeight = 100; 0: leaves it; not for topics
	Expires        time.Time // zero: until deleted
	Reason         string    // free text for people
}

// Subject is what the override is about.
func (o Override) Subject() Subject { return Subject{o.Kind, o.Name} }

// Validate checks an override as it is set at time now. Errors: ErrOverride with field and remedy.
func (o Override) Validate(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("override %s: %w: %s", o.Subject(), ErrOverride, fmt.Sprintf(format, args...))
	}
	switch {
	case o.Kind < Group || o.Kind > Topic:
		return bad("kind must be group, client or topic")
	case o.Name == "" || len(o.Name) > maxNameBytes:
		return bad("name must have 1 to %d bytes", maxNameBytes)
	case len(o.Reason) > maxNameBytes:
		return bad("reason is longer than %d bytes", maxNameBytes)
	case o.BytesPerSecond == 0 && o.Weight == 0:
		return bad("set bytes_per_second or weight, or delete the override")
	case !o.Expires.IsZero() && !o.Expires.After(now):
		return bad("expires at %s, which is past", o.Expires.Format(time.RFC3339))
	}
	if err := (Cap{o.BytesPerSecond, o.Weight}).validate(o.Kind); err != nil {
		return bad("%s", err)
	}
	return nil
}

// Cap is a configured cap and weight; zero fields mean "not set".
type Cap struct {
	BytesPerSecond int64
	Weight         int
}

func (c Cap) validate(k Kind) error {
	switch {
	case c.BytesPerSecond != 0 && c.BytesPerSecond < MinCapBytesPerSecond:
		return fmt.Errorf("bytes_per_second %d is below %d, the smallest cap", c.BytesPerSecond, MinCapBytesPerSecond)
	case c.Weight < 0 || c.Weight > MaxWeight:
		return fmt.Errorf("weight %d is not in 1..%d", c.Weight, MaxWeight)
	case c.Weight != 0 && k == Topic:
		return fmt.Errorf("weight is for groups and clients; cap the topic instead")
	}
	return nil
}

// Overrides is a bounded set of overrides, one per subject, that forgets the expired. The zero value is empty and ready.
// Not safe for concurrent use.
type Overrides struct {
	set        map[Subject]Override
	nextExpiry time.Time // no override expires before; zero: none expires. May be early after a delete
}

// Set adds or replaces the override of its subject. Errors: ErrOverride, ErrTooManyOverrides; the set is then unchanged.
func (s *Overrides) Set(o Override, now time.Time) error {
	if err := o.Validate(now); err != nil {
		return err
	}
	s.expire(now)
	if _, had := s.set[o.Subject()]; !had && len(s.set) >= MaxOverrides {
		return fmt.Errorf("override %s: %w (%d)", o.Subject(), ErrTooManyOverrides, MaxOverrides)
	}
	if s.set == nil {
		s.set = make(map[Subject]Override)
	}
	s.set[o.Subject()] = o
	s.nextExpiry = earlier(s.nextExpiry, o.Expires)
	return nil
}

// Delete removes the override of a subject and tells whether there was one.
func (s *Overrides) Delete(k Kind, name string) bool {
	if _, ok := s.set[Subject{k, name}]; !ok {
		return false
	}
	delete(s.set, Subject{k, name})
	return true
}

// Get returns the override of a subject that is in force at now.
func (s *Overrides) Get(sub Subject, now time.Time) (Override, bool) {
	o, ok := s.set[sub]
	if !ok || o.expired(now) {
		return Override{}, false
	}
	return o, true
}

// List returns the overrides in force at now, ordered by kind and name. The slice is the caller's.
func (s *Overrides) List(now time.Time) []Override {
	list := make([]Override, 0, len(s.set))
	for _, o := range s.set {
		if !o.expired(now) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Override) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func (o Override) expired(now time.Time) bool { return !o.Expires.IsZero() && !now.Before(o.Expires) }

// expire drops what has expired and tells whether it looked; it costs one comparison while nothing is due.
func (s *Overrides) expire(now time.Time) bool {
	if s.nextExpiry.IsZero() || now.Before(s.nextExpiry) {
		return false
	}
	s.nextExpiry = time.Time{}
	for k, o := range s.set {
		if o.expired(now) {
			delete(s.set, k)
			continue
		}
		s.nextExpiry = earlier(s.nextExpiry, o.Expires)
	}
	return true
}

// untilEnd is wait, or less when an override ends before: what was waited for may be there then.
func (s *Overrides) untilEnd(wait time.Duration, now time.Time) time.Duration {
	if s.nextExpiry.IsZero() {
		return wait
	}
	return min(wait, max(s.nextExpiry.Sub(now), 1))
}

// earlier is the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
