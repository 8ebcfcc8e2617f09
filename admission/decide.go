package admission

import "fmt"

// Read is what admission knows about one read of one partition when it chooses the lane.
type Read struct {
	State         State       // of the reader, from Readers.Observe
	Resident      bool        // every page of the extent is in the page cache
	ResidentRatio float64     // share of its pages, 0..1; for people only
	Sealed        bool        // the segment is sealed (an active one cannot be read with O_DIRECT); for people only
	Mode          Mode        // read_mode
	Forced        ForcedClass // lagoon.reader.class of the topic
	BudgetOK      bool        // the device takes a cold read of this flow now (asked, or granted, by its Scheduler)
	LimitedBy     Limit       // what is spent when BudgetOK is false; for people only
}

// Decision is the lane of one read and why. Text is a constant sentence; Explain adds the figures.
type Decision struct {
	Lane   Lane
	Reason Reason
	Text   string
}

var (
	decideResident  = Decision{Hot, ReasonResident, "all pages are in the page cache: served from there, whoever asks"}
	decideBuffered  = Decision{Fill, ReasonReadMode, "read_mode is buffered: everybody reads through the page cache"}
	decideForcedRT  = Decision{Fill, ReasonForcedRealtime, "lagoon.reader.class is realtime: a miss refills the page cache"}
	decideMiss      = Decision{Fill, ReasonRealtimeMiss, "a real-time reader missed: a buffered read refills the page cache"}
	decideForcedLag = Decision{Bypass, ReasonForcedLagging, "lagoon.reader.class is lagging: read past the page cache"}
	decideLagging   = Decision{Bypass, ReasonLaggingCold, "not resident and the reader is not real-time: read past the page cache"}
	decideBudget    = Decision{Defer, ReasonBudget, "the cold budget is spent: this partition waits, others are answered now"}
)

// Decide chooses the lane of one read. The first rule that fits wins:
//
//	resident                          → hot, whoever asks
//	read_mode = buffered              → fill, for everybody
//	topic forces realtime             → fill
//	reader realtime, topic not lagging→ fill
//	budget spent                      → defer
//	otherwise                         → bypass
//
// A stalled or stopped reader counts as not real-time: until it moves nothing says that it will want the pages again.
// Real-time misses are never deferred; only cold reads have a budget. Pure, no allocation.
func Decide(r Read) Decision {
	switch {
	case r.Resident:
		return decideResident
	case r.Mode == ModeBuffered:
		return decideBuffered
	case r.Forced == ForceRealtime:
		return decideForcedRT
	case r.State == Realtime && r.Forced != ForceLagging:
		return decideMiss
	case !r.BudgetOK:
		return decideBudget
	case r.Forced == ForceLagging:
		return decideForcedLag
	}
	return decideLagging
}

// Explain is the decision as a sentence with the figures of its read, for `explain fetch`. Allocates.
func (d Decision) Explain(r Read) string {
	s := fmt.Sprintf("%s (%s): %s", d.Lane, d.Reason, d.Text)
	if d.Lane != Hot {
		s += fmt.Sprintf("; %.0f%% of the pages resident, reader %s", 100*r.ResidentRatio, r.State)
	}
	switch {
	case d.Lane == Defer && r.LimitedBy.By != LimitNone:
		s += "; limited by " + r.LimitedBy.String()
	case d.Lane == Bypass && !r.Sealed:
		s += "; active segment: no direct I/O"
	}
	return s
}
