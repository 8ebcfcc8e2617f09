package rawkafka

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// lookahead is how much is read beyond what is asked for. It is small because most of what comes is dropped, and bytes that
// are dropped in the kernel cost no copy.
const lookahead = 1 << 10

// input is the receiving side of a connection: small pieces are buffered, large ones are read in place or dropped.
type input struct {
	nc       io.Reader
	raw      syscall.RawConn // nil: not a TCP socket
	buf      []byte
	from, to int // unread part of buf
}

func newInput(nc io.Reader) input {
	in := input{nc: nc, buf: make([]byte, 4*lookahead)}
	if tcp, ok := nc.(*net.TCPConn); ok {
		in.raw, _ = tcp.SyscallConn() // without it bytes are read and dropped
	}
	return in
}

// take returns the next n bytes, n ≤ lookahead; they are good until the next call.
func (in *input) take(n int) ([]byte, error) {
	if n < 0 || n > lookahead {
		return nil, fmt.Errorf("rawkafka: a field of %d bytes", n)
	}
	if have := in.to - in.from; have < n {
		copy(in.buf, in.buf[in.from:in.to])
		got, err := io.ReadAtLeast(in.nc, in.buf[have:have+lookahead], n-have)
		in.from, in.to = 0, have+got
		if err != nil {
			return nil, eof(err)
		}
	}
	b := in.buf[in.from : in.from+n]
	in.from += n
	return b, nil
}

// full fills p.
func (in *input) full(p []byte) error {
	n := copy(p, in.buf[in.from:in.to])
	in.from += n
	_, err := io.ReadFull(in.nc, p[n:])
	return eof(err)
}

// drop discards n bytes.
func (in *input) drop(n int64) error {
	have := min(int64(in.to-in.from), n)
	in.from += int(have)
	n -= have
	for n > 0 {
		if in.raw == nil {
			_, err := io.CopyN(io.Discard, in.nc, n)
			return eof(err)
		}
		got, err := in.truncate(n)
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// sink is where the kernel is told to put bytes that it then does not copy.
var sink = make([]byte, 1<<20)

// truncate has the kernel drop up to n received bytes: with MSG_TRUNC a TCP socket copies nothing (tcp(7)).
func (in *input) truncate(n int64) (got int64, err error) {
	var failed error
	err = in.raw.Read(func(fd uintptr) bool {
		for {
			var k int
			k, _, failed = unix.Recvfrom(int(fd), sink[:min(n, int64(len(sink)))], unix.MSG_TRUNC)
			got = int64(k)
			switch {
			case errors.Is(failed, unix.EINTR):
			case errors.Is(failed, unix.EAGAIN):
				failed = nil
				return false
			default:
				return true
			}
		}
	})
	if err == nil {
		err = failed
	}
	if err == nil && got <= 0 {
		err = io.ErrUnexpectedEOF
	}
	return max(got, 0), err
}

// eof: a connection that ends where bytes are owed is an error.
func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
