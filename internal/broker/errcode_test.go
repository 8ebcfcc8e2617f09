package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// What the disk says is a storage error: clients retry it. UNKNOWN_SERVER_ERROR ends a Java consumer.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  int16
		known bool
	}{
		{nil, 0, true},
		{&fs.PathError{Op: "read", Path: "/a", Err: syscall.EIO}, kerr.KafkaStorageError.Code, true},
		{fmt.Errorf("open segment: %w", &fs.PathError{Op: "open", Path: "/a", Err: syscall.EMFILE}), kerr.KafkaStorageError.Code, true},
		{fmt.Errorf("%w: sync: %w", partition.ErrFenced, syscall.EIO), kerr.KafkaStorageError.Code, true},
		{fmt.Errorf("%w: /a", partition.ErrDiskFull), kerr.KafkaStorageError.Code, true},
		{&segment.CorruptError{Path: "a"}, kerr.KafkaStorageError.Code, true},
		{fmt.Errorf("x: %w", partition.ErrOffsetOutOfRange), kerr.OffsetOutOfRange.Code, true},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), kerr.RequestTimedOut.Code, true},
		{errors.New("surprise"), kerr.UnknownServerError.Code, false},
	} {
		if got, known := codeOf(c.err); got != c.want || known != c.known {
			t.Errorf("%v: code %d, known %t; want %d, %t", c.err, got, known, c.want, c.known)
		}
	}
}
