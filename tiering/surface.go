package tiering

import (
	"context"
	"log/slog"
	"time"

	"lagoon/internal/vfs"
	"lagoon/segment"

	"github.com/prometheus/client_golang/prometheus"
)

// ---- signatures published ahead of their bodies; this file disappears as they are written ----

// Migrate moves one sealed segment to a colder tier. nil: published, and its old copy handed to Env.Retire.
func Migrate(ctx context.Context, job Job, env Env) error { panic("pending") }

// RemoveSegment takes a segment's files out of one tier: rename to .deleted, unlink, sync the directory. Idempotent.
func RemoveSegment(fs vfs.FS, dir string, base segment.Offset) error { panic("pending") }

// Swept is what Sweep did in one partition directory. Names are "tier: path".
type Swept struct {
	Removed     []string // leftovers of migrations and deletions, orphaned indexes
	Duplicates  []string // hotter copies removed, the colder one being complete
	Quarantined []string // colder copies set aside because they differ from the hotter one
}

// Sweep clears what a crash left in one partition directory of all tiers (hot to cold), before anyone opens it.
func Sweep(tiers []Tier, dir string) (Swept, error) { panic("pending") }

// Identity is the content of a tier's `lagoon.tier`.
type Identity struct {
	Tier      string
	UUID      string
	ClusterID string
	Created   bool // by this call
}

// Claim checks or writes the identity of a tier's directory. knownUUID is what the catalogue has, "" for a new tier.
func Claim(fs vfs.FS, name, clusterID, knownUUID string) (Identity, error) { panic("pending") }

// Options configure a Migrator.
type Options struct {
	Tiers []Tier // hot to cold
	// Prepare looks the segment up and gives what Migrate needs; ErrGone drops the move. Called once per attempt.
	Prepare      func(ctx context.Context, m Move) (Job, Env, error)
	Events       Events
	Logger       *slog.Logger          // nil: discard
	Registerer   prometheus.Registerer // nil: no metrics
	MinBackoff   time.Duration         // default 5 s
	MaxBackoff   time.Duration         // default 10 min
	HoldDuration time.Duration         // default 1 h: how long a cancelled segment is left alone
}

// Events tells of migrations; nil fields are skipped. Called from the migration's goroutine: be quick.
type Events struct {
	Begin   func(Move)
	End     func(Move, Outcome)
	Removed func(Move, error) // old copy removed, or not
	Corrupt func(Move, *segment.CorruptError)
}

// Outcome is how one attempt ended.
type Outcome struct {
	Elapsed time.Duration
	Err     error // nil: moved
}

// Migrator runs moves: one at a time per target device, with retries.
type Migrator struct{}

// NewMigrator checks opt and registers metrics.
func NewMigrator(opt Options) (*Migrator, error) { panic("pending") }

// Run executes moves until ctx ends; call it once.
func (m *Migrator) Run(ctx context.Context) error { panic("pending") }

// Mark fills MovingTo and Held of a snapshot from what is running, ordered or held.
func (m *Migrator) Mark(s *Snapshot) { panic("pending") }

// Offer replaces the planned moves that have not started by plan.
func (m *Migrator) Offer(plan []Move) { panic("pending") }

// Submit orders one move by hand, ahead of planned ones, and gives its id.
func (m *Migrator) Submit(move Move) (uint64, error) { panic("pending") }

// Cancel stops or drops one move; false: no such id.
func (m *Migrator) Cancel(id uint64, reason string) bool { panic("pending") }

// CancelWhere drops matching moves and waits until the running ones among them have cleaned up.
func (m *Migrator) CancelWhere(ctx context.Context, match func(Move) bool) error { panic("pending") }

// Pause stops all migrations at the next chunk; Resume lets them go on.
func (m *Migrator) Pause(reason string) { panic("pending") }

// Resume ends a Pause.
func (m *Migrator) Resume() { panic("pending") }

// Snapshot lists running, waiting and recently ended migrations.
func (m *Migrator) Snapshot() Status { panic("pending") }

// State of one migration.
type State string

// The states.
const (
	StateQueued    State = "queued"
	StateRunning   State = "running"
	StateBackoff   State = "backoff"
	StateDone      State = "done"
	StateFailed    State = "failed" // not tried again until a restart
	StateCancelled State = "cancelled"
)

// Status is the whole picture for the admin API.
type Status struct {
	Paused       bool
	PauseReason  string
	BacklogBytes int64 // of queued and running moves
	Migrations   []View
}

// View is one migration.
type View struct {
	ID             uint64
	Move           Move
	State          State
	Step           Step // while running
	DoneBytes      int64
	TotalBytes     int64 // copied once and read back once: about 2 × SizeBytes
	BytesPerSecond float64
	ETA            time.Duration // 0 = unknown
	Attempts       int
	Queued         time.Time
	Started, Ended time.Time // zero: not yet
	NextTry        time.Time // in backoff
	Error          string    // of the last attempt
}
