package tiering

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Policy is a topic's tier policy: the tiers in which its sealed segments may lie, hot to cold, and how old data may get
// in each. The zero value allows every tier. Policies are immutable and comparable by String.
type Policy struct {
	stages []stage
}

type stage struct {
	tier string
	keep time.Duration // < 0: not given, the topic's local retention or the tier's keep decides
}

// maxAge bounds ages so that sums of times cannot overflow; 100 years in practice means for ever.
const maxAge = 100 * 365 * 24 * time.Hour

// ParsePolicy reads a `lagoon.tier.policy`: tiers hot to cold, separated by commas, each with an optional age after a
// colon: "ssd:1h,hdd" keeps data for an hour in ssd and then in hdd; "ssd" alone pins it. Ages are measured from the
// record's timestamp, so they must not shrink from left to right. The empty string allows every tier.
// tiers are the names that exist, hot to cold. Errors say what is wrong and what would be right.
func ParsePolicy(text string, tiers []string) (Policy, error) {
	if strings.TrimSpace(text) == "" {
		return Policy{}, nil
	}
	var p Policy
	last, lastAge := -1, time.Duration(0)
	for part := range strings.SplitSeq(text, ",") {
		st, err := parseStage(part)
		if err != nil {
			return Policy{}, fmt.Errorf("tier policy %q: %w", text, err)
		}
		i := slices.Index(tiers, st.tier)
		switch {
		case i < 0:
			return Policy{}, fmt.Errorf("tier policy %q: no tier %q; tiers are %s", text, st.tier, strings.Join(tiers, ", "))
		case i == last || slices.ContainsFunc(p.stages, func(s stage) bool { return s.tier == st.tier }):
			return Policy{}, fmt.Errorf("tier policy %q: tier %s twice", text, st.tier)
		case i < last:
			return Policy{}, fmt.Errorf("tier policy %q: %s is hotter than %s; the order is hot to cold: %s",
				text, st.tier, tiers[last], strings.Join(tiers, ", "))
		case st.keep >= 0 && st.keep < lastAge:
			return Policy{}, fmt.Errorf("tier policy %q: age of %s is below that of a hotter tier; ages count from the record's timestamp",
				text, st.tier)
		}
		if st.keep >= 0 {
			lastAge = st.keep
		}
		last = i
		p.stages = append(p.stages, st)
	}
	if end := p.stages[len(p.stages)-1]; end.keep >= 0 {
		return Policy{}, fmt.Errorf("tier policy %q: %s is the last tier and cannot have an age; retention.ms ends it", text, end.tier)
	}
	return p, nil
}

func parseStage(text string) (stage, error) {
	name, age, aged := strings.Cut(text, ":")
	st := stage{tier: strings.TrimSpace(name), keep: -1}
	if st.tier == "" {
		return stage{}, fmt.Errorf("a tier name is empty; write for example \"ssd:1h,hdd\"")
	}
	if !aged {
		return st, nil
	}
	keep, err := parseAge(strings.TrimSpace(age))
	if err != nil {
		return stage{}, err
	}
	st.keep = keep
	return st, nil
}

// parseAge is time.ParseDuration with days.
func parseAge(text string) (time.Duration, error) {
	var age time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("age %q: want a whole number of days, for example 7d", text)
		}
		age = time.Duration(n) * 24 * time.Hour
	} else {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("age %q: want a number with a unit, for example 90m, 6h or 7d", text)
		}
		age = d
	}
	if age < 0 || age > maxAge {
		return 0, fmt.Errorf("age %q: want 0 to 36500d", text)
	}
	return age, nil
}

// String writes the policy as ParsePolicy reads it.
func (p Policy) String() string {
	var b strings.Builder
	for i, st := range p.stages {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(st.tier)
		if st.keep >= 0 {
			b.WriteString(":" + ageText(st.keep))
		}
	}
	return b.String()
}

// Pinned tells whether the policy names a single tier.
func (p Policy) Pinned() bool { return len(p.stages) == 1 }

// allows tells whether segments may lie in a tier.
func (p Policy) allows(tier string) bool {
	return len(p.stages) == 0 || slices.ContainsFunc(p.stages, func(s stage) bool { return s.tier == tier })
}

// ageText writes a duration as people say it: 7d, 6h, 90m, 1h0m5s.
func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "0s"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	default:
		return d.String()
	}
}
