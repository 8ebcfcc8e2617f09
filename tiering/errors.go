package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"lagoon/segment"
)

// Errors of identity, all matched with errors.Is.
var (
	// ErrTierMissing: the catalogue knows this tier, but its directory does not hold it: not mounted, or another disk.
	ErrTierMissing = errors.New("tiering: tier is missing")
	// ErrTierForeign: the directory holds a tier of another cluster, of another name, or another copy.
	ErrTierForeign = errors.New("tiering: directory belongs to another tier")
)

// Errors of migrations.
var (
	// ErrGone: the segment is no longer where the move says, or its partition is closed; the move is dropped silently.
	ErrGone = errors.New("tiering: segment is gone")
	// ErrOccupied: the target already has a segment of this name, or a directory of another topic.
	ErrOccupied = errors.New("tiering: target is occupied")
	// ErrMoving: the segment that Migrator.Submit is to move is on its way already.
	ErrMoving = errors.New("tiering: segment is being moved already")
	// ErrHung: a directory that the move needs has not answered another one for a while (Migrator.Hung); the move is put back.
	ErrHung = errors.New("tiering: log directory does not answer")
	// ErrCancelled: the migration was cancelled by a person or by Migrator.CancelWhere.
	ErrCancelled = errors.New("tiering: migration cancelled")
)

// Step names one step of a migration, in order; doc.go has the crash table.
type Step string

// The steps of Migrate.
const (
	StepPrepare Step = "prepare" // directory, partition.metadata, leftovers of an earlier attempt
	StepCopy    Step = "copy"    // source to temporary names, batches verified on the way, synced
	StepVerify  Step = "verify"  // target read back against what was written, indexes against the batches
	StepCommit  Step = "commit"  // renames and directory syncs; the .log's name is the commit point
	StepPublish Step = "publish" // readers switch to the new copy
)

// StepError tells which step of a migration failed and in which tier the fault lies.
type StepError struct {
	Step Step
	Tier string
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s in tier %s: %v", e.Step, e.Tier, e.Err) }

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// SourceCorrupt tells whether err says that the source copy of job's segment is damaged, as opposed to the new one.
func SourceCorrupt(err error, from string) (*segment.CorruptError, bool) {
	var step *StepError
	var corrupt *segment.CorruptError
	if errors.As(err, &step) && step.Tier == from && errors.As(err, &corrupt) {
		return corrupt, true
	}
	return nil, false
}

// The kinds of failures, as metric labels.
const (
	failedCorrupt  = "corrupt"
	failedOccupied = "occupied"
	failedNoSpace  = "no_space"
	failedPublish  = "publish"
	failedIO       = "io"
	failedOther    = "other"
)

// failureKind is the bounded label under which a failure is counted.
func failureKind(err error) string {
	var corrupt *segment.CorruptError
	var step *StepError
	switch {
	case errors.As(err, &corrupt):
		return failedCorrupt
	case errors.Is(err, ErrOccupied):
		return failedOccupied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return failedNoSpace
	case errors.As(err, &step) && step.Step == StepPublish:
		return failedPublish
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return failedIO
	default:
		return failedOther
	}
}
