package admission

import (
	"fmt"
	"slices"
	"time"
)

// LimitScope is what holds a flow back. The set is closed: it is the metric label limited_by.
type LimitScope string

// The scopes.
const (
	LimitNone     LimitScope = ""
	LimitReader   LimitScope = "reader"   // cap of the group or client
	LimitTopic    LimitScope = "topic"    // cap of the topic
	LimitOverride LimitScope = "override" // any of the two, set by an operator with an override
	LimitGlobal   LimitScope = "global"   // all cold reads together
	LimitTier     LimitScope = "tier"     // the device: its rate, its slots, or the turn of other flows
)

// Scopes are all that can hold a flow back.
var Scopes = [...]LimitScope{LimitReader, LimitTopic, LimitOverride, LimitGlobal, LimitTier}

// WaitsBy is how long requests have waited, by what held them back last.
type WaitsBy [len(Scopes)]time.Duration

func (w *WaitsBy) add(by LimitScope, d time.Duration) { w[slices.Index(Scopes[:], by)] += d }

// Limit says what a flow waits for. The zero value: nothing holds it back.
type Limit struct {
	By             LimitScope
	Name           string        // subject ("group:warehouse") or device name
	BytesPerSecond int64         // 0: not a rate (slots, turns)
	Wait           time.Duration // until it could go on, 0 = not known (depends on others)
	Text           string        // constant sentence
}

// String is "tier:hdd", "override:group:warehouse", "global" or "none".
func (l Limit) String() string {
	switch {
	case l.By == LimitNone:
		return "none"
	case l.Name == "":
		return string(l.By)
	}
	return string(l.By) + ":" + l.Name
}

// Describe is the limit as a sentence with its figures. Allocates.
func (l Limit) Describe() string {
	s := l.String()
	if l.Text != "" {
		s += ": " + l.Text
	}
	if l.BytesPerSecond > 0 {
		s += fmt.Sprintf(", %s/s", Bytes(l.BytesPerSecond))
	}
	if l.Wait > 0 {
		s += fmt.Sprintf(", next in %s", l.Wait.Round(time.Millisecond))
	}
	return s
}

// Bytes renders a number of bytes as people write it: "9.1 GiB".
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 && n > -1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n), -1
	for (v >= 1024 || v <= -1024) && u < len(units)-1 {
		v /= 1024
		u++
	}
	if v == float64(int64(v)) || v >= 100 {
		return fmt.Sprintf("%.0f %ciB", v, units[u])
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}
