package journal

import (
	"errors"
	"fmt"
)

var (
	// ErrFailed: a write to the journal failed, now or earlier. It is final; what was to be committed is not stable.
	ErrFailed = errors.New("journal: failed")
	// ErrVersion: a file of the journal has a format that this program does not know.
	ErrVersion = errors.New("journal: unknown format version")
	// ErrOptions: sizes that a journal cannot have.
	ErrOptions = errors.New("journal: bad options")
)

// DamageError says that rounds that were committed are not in a file any more: where, and which.
type DamageError struct {
	Path string // of the file, as people know it
	// Pos to End is the bad range, in bytes of the file; both are 0 when rounds are missing between the files.
	Pos, End int64
	// First and Next are the sequence numbers lost, half-open: equal when none is, and both 0 when they are not known.
	First, Next uint64
	Reason      string
}

func (e *DamageError) Error() string {
	s := "damaged commit journal " + e.Path
	if e.End > e.Pos {
		s += fmt.Sprintf(" at byte %d to %d", e.Pos, e.End)
	}
	if e.Next > e.First {
		s += fmt.Sprintf(" (rounds %d to %d)", e.First, e.Next-1)
	}
	return s + ": " + e.Reason
}
