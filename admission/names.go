package admission

import "fmt"

// Lane is how one read of one partition is served (design.md §5).
type Lane uint8

// The lanes.
const (
	Hot    Lane = iota // resident: zero-copy, whoever asks
	Fill               // buffered read that repopulates the page cache
	Bypass             // read that leaves no page behind
	Defer              // not now: budget spent
	numLanes
)

// String is the lane's word in metrics, API and log.
func (l Lane) String() string { return word(laneWords[:], int(l)) }

var laneWords = [numLanes]string{"hot", "fill", "bypass", "defer"}

// State says what a reader is doing (Burrow's words). doc.go draws the transitions.
type State uint8

// The reader states. The zero value is Realtime.
const (
	Realtime   State = iota // inside the window
	CatchingUp              // outside, and gaining on the end; or inside, but not yet for long enough
	Lagging                 // outside, and not gaining
	Stalled                 // has something to read, but its position does not move
	Stopped                 // has not asked for a long time
	numStates
)

// NumStates is the number of states, for tables that are indexed with them.
const NumStates = int(numStates)

// String is the state's word in metrics, API and log.
func (s State) String() string { return word(stateWords[:], int(s)) }

var stateWords = [numStates]string{"realtime", "catching_up", "lagging", "stalled", "stopped"}

// Reason names the rule that led to a Class or a Decision. The set is closed: reasons are metric labels.
type Reason string

// Why a reader is in its state (Class.Reason).
const (
	ReasonAtEnd            Reason = "at_end"             // nothing left to read
	ReasonWithinWindow     Reason = "within_window"      // new, or back after a stop, and inside the window
	ReasonSettled          Reason = "settled"            // came back and stayed below half of the window
	ReasonBeyondWindow     Reason = "beyond_window"      // behind by more than min_bytes and more than min_age
	ReasonBeyondMemory     Reason = "beyond_memory"      // behind by more than hot windows can keep, though younger than min_age
	ReasonFlowBeyondWindow Reason = "flow_beyond_window" // as above, but only all partitions of its group or client together
	ReasonRewound          Reason = "rewound"            // jumped back, to beyond the window
	ReasonAboveHalf        Reason = "above_half"         // inside the window again, but not below half of it
	ReasonGaining          Reason = "gaining"            // outside the window, the distance shrinks
	ReasonSettling         Reason = "settling"           // below half of the window, not yet for long enough
	ReasonNoProgress       Reason = "no_progress"        // position stands still although there is data and nobody holds it back
	ReasonNoFetch          Reason = "no_fetch"           // has not asked
)

// Why a read goes into its lane (Decision.Reason).
const (
	ReasonResident       Reason = "resident"
	ReasonReadMode       Reason = "read_mode_buffered"
	ReasonForcedRealtime Reason = "forced_realtime"
	ReasonForcedLagging  Reason = "forced_lagging"
	ReasonRealtimeMiss   Reason = "realtime_miss"
	ReasonLaggingCold    Reason = "lagging_cold"
	ReasonBudget         Reason = "budget_spent"
)

// Mode is what `read_mode` means to admission.
type Mode uint8

// The modes. The zero value is ModeAuto.
const (
	ModeAuto     Mode = iota // lagging readers bypass the cache, by whatever method
	ModeBuffered             // everybody reads through the cache: what other brokers do, for comparison
)

// String is the configuration's word for the mode. ModeAuto stands for every method that spares the cache.
func (m Mode) String() string {
	if m == ModeBuffered {
		return "buffered"
	}
	return "auto"
}

// ParseMode reads `read_mode`. auto, direct, dontcache and dropbehind differ only in method and are all ModeAuto.
// Errors: ErrUnknownName.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "auto", "direct", "dontcache", "dropbehind":
		return ModeAuto, nil
	case "buffered":
		return ModeBuffered, nil
	}
	return ModeAuto, fmt.Errorf("read_mode %q: %w: use auto, direct, dontcache, dropbehind or buffered", s, ErrUnknownName)
}

// ForcedClass is a topic's `lagoon.reader.class`.
type ForcedClass uint8

// The classes a topic can force. The zero value is ForceNone.
const (
	ForceNone     ForcedClass = iota // auto: by the reader's distance
	ForceRealtime                    // every miss of this topic refills the cache
	ForceLagging                     // no read of this topic ever fills the cache
)

// String is the configuration's word for the class.
func (c ForcedClass) String() string { return word([]string{"auto", "realtime", "lagging"}, int(c)) }

// ParseForcedClass reads `lagoon.reader.class`; "" is auto. Errors: ErrUnknownName.
func ParseForcedClass(s string) (ForcedClass, error) {
	switch s {
	case "", "auto":
		return ForceNone, nil
	case "realtime":
		return ForceRealtime, nil
	case "lagging":
		return ForceLagging, nil
	}
	return ForceNone, fmt.Errorf("lagoon.reader.class %q: %w: use auto, realtime or lagging", s, ErrUnknownName)
}

// Kind says what a cap, weight or override belongs to.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	Group Kind = iota + 1
	Client
	Topic
)

// String is the kind's word in API paths and metadata.
func (k Kind) String() string { return word([]string{"none", "group", "client", "topic"}, int(k)) }

// ParseKind reads group, client or topic. Errors: ErrUnknownName.
func ParseKind(s string) (Kind, error) {
	for k := Group; k <= Topic; k++ {
		if s == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind %q: %w: use group, client or topic", s, ErrUnknownName)
}

// Subject is one group, client or topic. A subject that shares a device with others (Group or Client) is a flow.
type Subject struct {
	Kind Kind
	Name string
}

// String is "group:warehouse".
func (s Subject) String() string { return s.Kind.String() + ":" + s.Name }

func word(words []string, i int) string {
	if i < 0 || i >= len(words) {
		return fmt.Sprintf("unknown(%d)", i)
	}
	return words[i]
}
