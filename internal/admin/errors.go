package admin

import (
	"errors"
	"fmt"
)

// Errors that a Backend may return, beside the two types below.
var (
	// ErrStarting: the daemon cannot answer yet; 503 with Retry-After.
	ErrStarting = errors.New("the broker is still starting: see /readyz?verbose for progress")
	// ErrLoading: not all groups are known yet; 503 with Retry-After.
	ErrLoading = errors.New("consumer groups are being loaded: try again in a moment")
	// ErrBusy: too much of this is going on already; 503 with Retry-After.
	ErrBusy = errors.New("busy: try again in a moment")
)

// NotFoundError says that a named thing does not exist. Known, when given, are the names that do; the client gets the
// nearest ones as suggestions.
type NotFoundError struct {
	What  string // topic, partition, segment, tier, override, migration, pin
	Name  string
	Known []string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("no %s %q", e.What, e.Name) }

// InvalidError says that a request is well-formed but makes no sense. Detail names culprit and remedy.
type InvalidError struct{ Detail string }

func (e *InvalidError) Error() string { return e.Detail }

// ErrUnsafeListen: a non-loopback admin listener without authentication.
var ErrUnsafeListen = errors.New("admin: a listener outside loopback needs admin.auth")
