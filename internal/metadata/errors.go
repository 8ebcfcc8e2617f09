package metadata

import "errors"

// Errors of opening the catalogue.
var (
	// ErrCorrupt: bytes that were once durable no longer check out. Nothing is changed on disk; see CorruptError.
	ErrCorrupt = errors.New("metadata: corrupt")
	// ErrNewer: a file or record comes from a newer release.
	ErrNewer = errors.New("metadata: written by a newer release")
)

// Errors of changing it.
var (
	// ErrFailed: an earlier write or sync failed in a way that leaves unknown what is on disk. The store refuses every
	// further change until the process is restarted; reads of the last published snapshot go on.
	ErrFailed = errors.New("metadata: catalogue is read-only after a storage error")
	// ErrNoSpace: the disk is full. Nothing was changed; the same call may succeed once there is space.
	ErrNoSpace = errors.New("metadata: no space left for the catalogue")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("metadata: closed")

	ErrTopicExists       = errors.New("metadata: topic exists")
	ErrTopicDeleting     = errors.New("metadata: topic of this name is still being deleted")
	ErrUnknownTopic      = errors.New("metadata: unknown topic")
	ErrInvalidTopic      = errors.New("metadata: invalid topic name")
	ErrInvalidPartitions = errors.New("metadata: invalid partition count")
	ErrInvalidConfig     = errors.New("metadata: invalid config")
	ErrInvalidOverride   = errors.New("metadata: invalid override")
	ErrInvalidName       = errors.New("metadata: invalid name")
)

// CorruptError says where the catalogue is damaged. errors.Is(err, ErrCorrupt) holds.
type CorruptError struct {
	Path   string // for people: root and name
	Pos    int64  // byte position in the file
	Reason string
}

func (e *CorruptError) Error() string {
	return "metadata: corrupt: " + e.Path + " at byte " + itoa(e.Pos) + ": " + e.Reason +
		"; no file was changed: restore the file from a backup, or move the directory away to start with no topics (partition data stays where it is)"
}

// Unwrap makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }
