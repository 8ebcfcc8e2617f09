package wire

import "errors"

// Errors of what a client sent. Each ends the connection: after it the stream has no known frame border.
var (
	// ErrFrameSize: a length prefix below the smallest request or above the limit.
	ErrFrameSize = errors.New("wire: frame size out of bounds")
	// ErrMalformed: a header or body that does not parse, or has bytes left over.
	ErrMalformed = errors.New("wire: malformed request")
	// ErrTooMany: an array or tag section with more entries than any real client sends.
	ErrTooMany = errors.New("wire: too many entries in one request")
)

// ErrPayload: records could not be read while they were sent. The response is already partly sent; the connection must go.
var ErrPayload = errors.New("wire: payload could not be read")

// ErrHeld: the client has stopped taking a response whose memory others wait for. The response is already partly sent; the connection must go.
var ErrHeld = errors.New("wire: client does not take a response whose memory others wait for")

// ErrShortFile: a payload's file ended before its length. The response is already partly sent; the connection must go.
var ErrShortFile = errors.New("wire: file shorter than the promised payload")
