package txn

import (
	"math"
	"slices"
	"strings"
	"time"
)

// State is where a transactional id stands. The numbers are those of the records, the names those that clients are told.
type State int8

// States, as Kafka numbers them.
const (
	Empty State = iota
	Ongoing
	PrepareCommit
	PrepareAbort
	CompleteCommit
	CompleteAbort
	Dead
	PrepareEpochFence
)

var stateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "Unknown"
	}
	return stateNames[s]
}

// ParseState finds a state by its name.
func ParseState(name string) (State, bool) {
	i := slices.Index(stateNames[:], name)
	return State(i), i >= 0
}

// Error is a Kafka error code.
type Error int16

// The errors of transactions.
const (
	None                     Error = 0
	CoordinatorLoading       Error = 14
	CoordinatorNotAvailable  Error = 15
	NotCoordinator           Error = 16
	InvalidRequest           Error = 42
	InvalidProducerEpoch     Error = 47
	InvalidTxnState          Error = 48
	InvalidProducerIDMapping Error = 49
	InvalidTimeout           Error = 50
	ConcurrentTransactions   Error = 51
	ProducerFenced           Error = 90
	TransactionalIDNotFound  Error = 105
	Abortable                Error = 120
)

// Values for "none".
const (
	NoProducerID = -1
	NoEpoch      = -1
)

// lastEpoch is the last epoch that clients get; the one above it fences them.
const lastEpoch = math.MaxInt16 - 1

// Partition names a partition that takes part in a transaction.
type Partition struct {
	Topic string
	Index int32
}

// Compare orders partitions by topic and index.
func (p Partition) Compare(o Partition) int {
	if c := strings.Compare(p.Topic, o.Topic); c != 0 {
		return c
	}
	return int(p.Index) - int(o.Index)
}

// Record is everything that is kept of a transactional id.
type Record struct {
	ProducerID     int64
	PreviousID     int64 // the producer id that gave way to ProducerID; NoProducerID without
	NextID         int64 // of a transaction that is being ended: the id that follows; NoProducerID: the same
	Epoch          int16
	Timeout        time.Duration
	State          State
	Partitions     []Partition // sorted
	Updated        time.Time
	Started        time.Time // zero without a transaction
	ClientProtocol int16     // 2: the client ends transactions with an epoch of their own (KIP-890)
	// LastEpoch is the epoch before the last that InitProducer raised, for a client that did not hear of it. It is not stored.
	LastEpoch int16
}

// Txn is one transactional id. Not safe for concurrent use.
type Txn struct {
	r       Record
	changed bool
}

// New makes an id that nobody has used yet.
func New(producerID int64, now time.Time) *Txn {
	return &Txn{r: Record{ProducerID: producerID, PreviousID: NoProducerID, NextID: NoProducerID, Epoch: NoEpoch, LastEpoch: NoEpoch, Updated: now}}
}

// Restore makes it as it was written.
func Restore(r Record) *Txn {
	r.LastEpoch = NoEpoch
	return &Txn{r: r}
}

// Record is the state; its Partitions must not be changed.
func (t *Txn) Record() Record { return t.r }

// Changed tells whether the last event changed what is to be written. Asking resets it.
func (t *Txn) Changed() bool {
	c := t.changed
	t.changed = false
	return c
}

// Revert goes back to a record: what was changed since could not be written.
func (t *Txn) Revert(r Record) { t.r, t.changed = r, false }

func (t *Txn) change(s State, now time.Time) {
	t.r.State, t.r.Updated, t.changed = s, now, true
}

// Ending tells that markers are being written, and whether they commit.
func (t *Txn) Ending() (commit, ending bool) {
	return t.r.State == PrepareCommit, t.r.State == PrepareCommit || t.r.State == PrepareAbort
}

func (t *Txn) exhausted() bool { return t.r.Epoch >= lastEpoch }

// Identity is a producer id with its epoch; the zero value is not none: see NoProducerID.
type Identity struct {
	ID    int64
	Epoch int16
}

// Unknown is what a client says that has no identity yet.
var Unknown = Identity{NoProducerID, NoEpoch}

// NeedsNewID tells whether InitProducer, Expire of what is TimedOut, or End in protocol 2, would use a new producer id if it came now.
func (t *Txn) NeedsNewID() bool { return t.exhausted() }

// InitProducer gives a client its identity and fences the one before. who is what the client believes to be (KIP-360), Unknown when it
// begins. newID is a fresh producer id if NeedsNewID, and is not used otherwise. A transaction that is open is aborted: the answer is
// then ConcurrentTransactions, and the client asks again.
func (t *Txn) InitProducer(who Identity, timeout time.Duration, newID int64, now time.Time) (Identity, Error) {
	known := t.r.Epoch == NoEpoch || who.ID == t.r.ProducerID || who.ID == t.r.PreviousID && who.Epoch >= lastEpoch
	if who != Unknown && !known {
		return Unknown, ProducerFenced
	}
	switch t.r.State {
	case PrepareCommit, PrepareAbort:
		return Unknown, ConcurrentTransactions
	case Ongoing:
		if who != Unknown && who != t.identity() {
			return Unknown, ProducerFenced
		}
		t.fence(newID, now)
		return Unknown, ConcurrentTransactions
	}
	switch {
	case t.r.Epoch == NoEpoch:
		t.r.Epoch, t.r.LastEpoch = 0, NoEpoch
	case t.exhausted() && (who == Unknown || who == t.identity()):
		t.r.PreviousID, t.r.ProducerID, t.r.LastEpoch, t.r.Epoch = t.r.ProducerID, newID, t.r.Epoch, 0
		if who == Unknown {
			t.r.LastEpoch = NoEpoch
		}
	case who == Unknown:
		t.r.Epoch, t.r.LastEpoch = t.r.Epoch+1, NoEpoch
	case who.Epoch == t.r.Epoch && who.ID == t.r.ProducerID:
		t.r.Epoch, t.r.LastEpoch = t.r.Epoch+1, who.Epoch
	case t.r.LastEpoch != NoEpoch && who.Epoch == t.r.LastEpoch: // it did not hear the answer
	default:
		return Unknown, ProducerFenced
	}
	t.r.Timeout, t.r.Partitions, t.r.Started, t.r.NextID = timeout, nil, time.Time{}, NoProducerID
	t.change(Empty, now)
	return t.identity(), None
}

func (t *Txn) identity() Identity { return Identity{t.r.ProducerID, t.r.Epoch} }

// fence prepares an abort that the client has not asked for. As in Kafka since 4.1 it is like the client's own End of protocol 2, whatever
// its protocol is: who hears of it when it aborts, as a client does that was too slow, goes on with the epoch that followed.
func (t *Txn) fence(nextID int64, now time.Time) {
	t.bump(nextID)
	t.r.ClientProtocol = 2
	t.prepare(false, now)
}

// owned checks who asks.
func (t *Txn) owned(who Identity) Error {
	switch {
	case who.ID != t.r.ProducerID:
		return InvalidProducerIDMapping
	case who.Epoch != t.r.Epoch || who.Epoch > lastEpoch: // the one above the last was given to nobody, and has none after it
		return ProducerFenced
	}
	return None
}

// mayWrite says whether who may take part in a transaction now. Who was fenced hears so while the abort is being carried out, too.
func (t *Txn) mayWrite(who Identity) Error {
	if _, ending := t.Ending(); ending && who == t.Next() {
		return ConcurrentTransactions // it is ahead of the markers
	}
	return t.owned(who)
}

// AddPartitions makes partitions part of the transaction, which begins with the first. protocol is the client's.
func (t *Txn) AddPartitions(who Identity, parts []Partition, protocol int16, now time.Time) Error {
	if err := t.mayWrite(who); err != None {
		return err
	}
	var fresh []Partition
	for _, p := range parts {
		if t.r.State != Ongoing || !t.Has(p) {
			fresh = append(fresh, p)
		}
	}
	if t.r.State == Ongoing && len(fresh) == 0 {
		return None
	}
	if t.r.State != Ongoing {
		t.r.Partitions, t.r.Started = nil, now
	}
	t.r.Partitions = append(slices.Clone(t.r.Partitions), fresh...)
	slices.SortFunc(t.r.Partitions, Partition.Compare)
	t.r.Partitions = slices.Compact(t.r.Partitions)
	t.r.ClientProtocol = protocol
	t.change(Ongoing, now)
	return None
}

// Has tells whether a partition is part of the transaction.
func (t *Txn) Has(p Partition) bool {
	_, ok := slices.BinarySearchFunc(t.r.Partitions, p, Partition.Compare)
	return ok
}

// Verify tells whether the producer may write to p: a client of protocol 1 has added it before.
func (t *Txn) Verify(who Identity, p Partition) Error {
	if err := t.mayWrite(who); err != None {
		return err
	}
	if t.r.State != Ongoing || !t.Has(p) {
		return Abortable
	}
	return None
}

// End prepares the end of the transaction that the client has open. nextID is a fresh producer id if NeedsNewID and the protocol is 2.
// The answer is None when it is prepared, or was ended so before. In protocol 2 the client goes on as Next.
func (t *Txn) End(who Identity, commit bool, protocol int16, nextID int64, now time.Time) Error {
	if protocol >= 2 {
		return t.endBumping(who, commit, nextID, now)
	}
	if err := t.owned(who); err != None {
		return err
	}
	switch t.r.State {
	case Ongoing:
		t.prepare(commit, now)
		return None
	case CompleteCommit, CompleteAbort:
		if commit == (t.r.State == CompleteCommit) {
			return None
		}
	case PrepareCommit, PrepareAbort:
		if commit == (t.r.State == PrepareCommit) {
			return ConcurrentTransactions
		}
	}
	return InvalidTxnState
}

// endBumping is End of protocol 2. A client that asks again after its epoch was raised is known by the epoch before.
func (t *Txn) endBumping(who Identity, commit bool, nextID int64, now time.Time) Error {
	bumped := t.r.ClientProtocol >= 2
	overflowed := bumped && t.r.PreviousID == who.ID && who.Epoch == lastEpoch && t.r.Epoch == 0
	retry := overflowed || bumped && who.ID == t.r.ProducerID && t.r.Epoch == who.Epoch+1
	_, ending := t.Ending()
	if ending && who == t.Next() {
		return ConcurrentTransactions // it has heard that the transaction before is decided, and is ahead of the markers
	}
	if who.ID != t.r.ProducerID && !overflowed {
		return InvalidProducerIDMapping
	}
	current := who == t.identity() && who.Epoch <= lastEpoch
	switch t.r.State {
	case Ongoing:
		if !current {
			return ProducerFenced
		}
		t.r.ClientProtocol = 2
		t.bump(nextID)
		t.prepare(commit, now)
		return None
	case PrepareCommit, PrepareAbort:
		switch {
		case !retry:
			return ProducerFenced
		case commit == (t.r.State == PrepareCommit):
			return ConcurrentTransactions
		}
		return InvalidTxnState
	case CompleteCommit, CompleteAbort:
		if retry && commit == (t.r.State == CompleteCommit) {
			return None
		}
		if !retry && !current {
			return ProducerFenced
		}
		if retry || commit {
			return InvalidTxnState
		}
	default:
		if !current {
			return ProducerFenced
		}
		if commit {
			return InvalidTxnState
		}
	}
	// An abort without a partition: what the client sent may still be on its way.
	t.bump(nextID)
	t.r.Partitions, t.r.Started, t.r.ClientProtocol = nil, now, 2
	t.prepare(false, now)
	return None
}

func (t *Txn) bump(nextID int64) {
	if t.exhausted() {
		t.r.NextID = nextID
	}
	t.r.LastEpoch, t.r.Epoch = t.r.Epoch, t.r.Epoch+1
}

func (t *Txn) prepare(commit bool, now time.Time) {
	s := PrepareAbort
	if commit {
		s = PrepareCommit
	}
	t.change(s, now)
}

// Next is what the client is told to go on as after End.
func (t *Txn) Next() Identity {
	if _, ending := t.Ending(); ending && t.r.NextID != NoProducerID {
		return Identity{t.r.NextID, 0}
	}
	return t.identity()
}

// Complete ends what was prepared: all markers are durable.
func (t *Txn) Complete(now time.Time) {
	commit, ending := t.Ending()
	if !ending {
		return
	}
	if t.r.NextID != NoProducerID {
		t.r.PreviousID, t.r.ProducerID, t.r.Epoch, t.r.NextID = t.r.ProducerID, t.r.NextID, 0, NoProducerID
	}
	t.r.Partitions = nil
	s := CompleteAbort
	if commit {
		s = CompleteCommit
	}
	t.change(s, now)
}

// TimedOut tells whether a transaction has been open for longer than its timeout.
func (t *Txn) TimedOut(now time.Time) bool {
	return t.r.State == Ongoing && now.Sub(t.r.Started) >= t.r.Timeout
}

// Expire aborts a transaction that is TimedOut, and kills an id that nobody has used for retention. nextID is a fresh producer id if
// the transaction NeedsNewID.
func (t *Txn) Expire(now time.Time, retention time.Duration, nextID int64) {
	switch t.r.State {
	case Ongoing:
		if t.TimedOut(now) {
			t.fence(nextID, now)
		}
	case Empty, CompleteCommit, CompleteAbort:
		if now.Sub(t.r.Updated) >= retention {
			t.change(Dead, now)
		}
	}
}
