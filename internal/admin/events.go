package admin

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Event is something that changed between two frames of the stream.
type Event struct {
	At   time.Time `json:"at"`   // of the frame that showed it
	Kind string    `json:"kind"` // reader, budget, tier, check, override, migration
	Text string    `json:"text"`
}

// mostEvents are kept.
const mostEvents = 100

// eventLog finds events by comparing each frame's answers with those before. The zero value is ready; not safe for concurrent use.
type eventLog struct {
	last  int // number of the newest event
	kept  []Event
	known map[string]string // what: its state in words, in the last frame
}

// events are the kept ones by number.
func (l *eventLog) events() map[string]Event {
	out := make(map[string]Event, len(l.kept))
	for i, e := range l.kept {
		out[strconv.Itoa(l.last-len(l.kept)+1+i)] = e
	}
	return out
}

// forget has the next frame be a beginning: what changed while nobody looked changed at an unknown time.
func (l *eventLog) forget() { l.known = nil }

// observe compares a frame with the one before. What had no answer keeps its last state.
func (l *eventLog) observe(now time.Time, a *answers) {
	first := l.known == nil
	was, is := l.known, map[string]string{}
	see := func(kind, what, state, text string) {
		key := kind + " " + what
		is[key] = state
		if before, known := was[key]; !first && (!known && state != "" || known && before != state) {
			l.add(Event{At: now, Kind: kind, Text: text})
		}
	}
	// keep has the states of a kind stay as they are.
	keep := func(kinds ...string) {
		for key, state := range was {
			for _, kind := range kinds {
				if len(key) > len(kind) && key[:len(kind)+1] == kind+" " {
					is[key] = state
				}
			}
		}
	}
	if a.status != nil {
		for _, c := range a.status.Checks {
			state, text := "", c.Name+": ok again"
			if !c.OK {
				state, text = "failed", c.Name+" failed: "+c.Text
			}
			see("check", c.Name, state, text)
		}
	} else {
		keep("check")
	}
	if a.readers != nil {
		for _, r := range a.readers {
			see("reader", r.ID, r.Class, fmt.Sprintf("%s is %s in %s/%d: %s", cmp.Or(r.Group, r.ClientID, r.ID), r.Class, r.Topic, r.Partition, r.ClassReason))
		}
	} else {
		keep("reader")
	}
	if a.tiers != nil {
		for _, t := range a.tiers {
			see("tier", t.Name, t.State, fmt.Sprintf("tier %s is %s", t.Name, t.State))
		}
		for _, m := range a.migrations.Migrations {
			if m.ID == "" { // put off: it is no migration yet
				continue
			}
			state := ""
			switch m.State {
			case "done", "failed", "cancelled":
				state = m.State
			}
			text := fmt.Sprintf("%s/%d, segment %d from %s to %s: %s", m.Topic, m.Partition, m.BaseOffset, m.From, m.To, m.State)
			if m.Error != "" {
				text += ": " + m.Error
			}
			see("migration", m.ID, state, text)
		}
	} else {
		keep("tier", "migration")
	}
	if a.throttle != nil {
		for _, d := range a.throttle.Devices {
			see("budget", d.Tier, d.State, fmt.Sprintf("cold budget of %s is %s: %s", d.Tier, d.State, d.Reason))
		}
		for _, o := range a.throttle.Overrides {
			see("override", string(o.Kind)+"/"+o.Name, fmt.Sprintf("%d %g %v", o.BytesPerSecond, o.Weight, o.Expires), overrideText(o))
		}
		for key := range was {
			if _, here := is[key]; !here && len(key) > 9 && key[:9] == "override " {
				l.add(Event{At: now, Kind: "override", Text: key + " has ended"})
			}
		}
	} else {
		keep("budget", "override")
	}
	l.known = is
}

// overrideText names what is set: a 0 means that it is left alone.
func overrideText(o Override) string {
	var parts []string
	if o.BytesPerSecond > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes/s", o.BytesPerSecond))
	}
	if o.Weight > 0 {
		parts = append(parts, fmt.Sprintf("weight %g", o.Weight))
	}
	return fmt.Sprintf("override of %s %s: %s", o.Kind, o.Name, strings.Join(parts, ", "))
}

func (l *eventLog) add(e Event) {
	l.last++
	l.kept = append(l.kept, e)
	l.kept = l.kept[max(0, len(l.kept)-mostEvents):]
}
