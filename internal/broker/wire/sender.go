package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Payload is record bytes that go out as they are: a range of a file, or memory. Release is called exactly once.
type Payload interface {
	// Len is the number of bytes; the length prefix in the response promises it.
	Len() int64
	// File tells where the bytes lie in a file that sendfile can read; ok is false when there is no such file.
	File() (fd uintptr, pos int64, ok bool)
	// Bytes is the memory of a payload that lies in memory; nil when it has to be read with ReadAt.
	Bytes() []byte
	// ReadAt copies from the payload.
	ReadAt(p []byte, off int64) (int, error)
	Release()
}

// Split says that a payload's bytes go out between buf[:At] and buf[At:]. Splits are in order of At.
type Split struct {
	At      int
	Payload Payload
}

const (
	// sendfileMin is where sendfile begins to pay: below, a pread and a sendmsg that the processor's cache serves cost less
	// than switching between head and file and handing pages over one by one. Measured on loopback, in CPU-s/GiB (BenchmarkSend,
	// docs/benchmarks.md): copy 0.17 and sendfile 0.22 at 256 KiB, 0.16 and 0.16 at 512 KiB, 0.16 and 0.13 at 1 MiB, 0.15 and
	// 0.08 at 4 MiB.
	sendfileMin = 512 << 10
	// sliceBytes bounds what is handed to the kernel at once, so that the write deadline measures progress.
	sliceBytes = 1 << 20
	// progressBytes bounds what goes out under one deadline where the kernel does not tell how much of it has gone.
	progressBytes = 64 << 10
	// copyBytes is the memory that a response takes while its small payloads are on their way.
	copyBytes = 256 << 10
	// maxCopies bounds it over all connections, to 64 MiB: thousands of clients that take their time shall not cost gigabytes. Beyond it all
	// file ranges go out with sendfile, which needs none.
	maxCopies = 256
	// maxVectors is below the kernel's limit of 1024 per call.
	maxVectors = 256
	// A client that takes less than heldRate bytes a second for holdFor keeps no memory that others wait for. The rate is that below which a
	// request is not waited for then; some consumers read nothing while they work on what they have, which should seldom take so long (a guess).
	heldRate = 16 << 10
	holdFor  = 5 * time.Second
)

// Sender writes responses to one connection. Not safe for concurrent use. Sendfile and vectored writes are used on a plain
// *net.TCPConn; on anything else (TLS, a pipe) everything is copied through one buffer.
type Sender struct {
	nc      net.Conn
	raw     syscall.RawConn // nil: not a plain TCP connection
	timeout time.Duration
	sent    int64 // bytes of the current response that are out
	gather  gather

	sendfileFrom int64 // size of the smallest file range that goes out with sendfile
	copies       *copies
	holdFor      time.Duration

	splits []Split   // of the current response
	since  time.Time // of the last look at what the client has taken, or the begin; zero: not yet …
	taken  int64     // … and how much that was, valid with looked
	looked bool
}

// copies counts the responses that hold a copy buffer.
type copies struct {
	now  atomic.Int64
	most int64
}

var allCopies = &copies{most: maxCopies}

// NewSender writes to nc; timeout ends a write that makes no progress.
func NewSender(nc net.Conn, timeout time.Duration) *Sender {
	s := &Sender{nc: nc, timeout: timeout, sendfileFrom: sendfileMin, copies: allCopies, holdFor: holdFor}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

// Send writes buf with the payloads in their places. It does not release them. After an error part of the response may
// be out: the connection must be closed. Errors: the connection's; ErrPayload, with a payload's read error, or ErrShortFile, which a payload
// that has a method Failed(error) is told; ErrHeld, when a payload that has a method Wanted tells that others wait for its memory.
func (s *Sender) Send(buf []byte, splits []Split) error {
	s.sent, s.splits, s.since, s.looked = 0, splits, time.Time{}, false
	defer func() { s.splits = nil }()
	g := &s.gather
	g.s = s
	defer g.close()
	at := 0
	for _, split := range splits {
		if err := g.memory(buf[at:split.At]); err != nil {
			return err
		}
		at = split.At
		if err := g.payload(split.Payload); err != nil {
			if f, ok := split.Payload.(interface{ Failed(error) }); ok && (errors.Is(err, ErrPayload) || errors.Is(err, ErrShortFile)) {
				f.Failed(err)
			}
			return err
		}
	}
	if err := g.memory(buf[at:]); err != nil {
		return err
	}
	return g.flush(false)
}

// gather collects what can go out in one call.
type gather struct {
	s     *Sender
	parts [][]byte
	few   [8][]byte // where a short list lives
	bytes int
	copy  *Buffer // nil until a payload has to be copied
}

func (g *gather) close() {
	if g.copy != nil {
		g.copy.Release()
		g.s.copies.now.Add(-1)
	}
	*g = gather{}
}

// memory adds bytes that stay valid until the next flush.
func (g *gather) memory(p []byte) error {
	for len(p) > 0 {
		if g.bytes >= sliceBytes || len(g.parts) >= maxVectors {
			if err := g.flush(true); err != nil {
				return err
			}
		}
		n := min(len(p), sliceBytes-g.bytes)
		g.add(p[:n])
		p = p[n:]
	}
	return nil
}

func (g *gather) add(p []byte) {
	if g.parts == nil {
		g.parts = g.few[:0]
	}
	g.parts = append(g.parts, p)
	g.bytes += len(p)
}

func (g *gather) payload(p Payload) error {
	n := p.Len()
	fd, pos, inFile := p.File()
	switch {
	case n == 0:
		return nil
	case p.Bytes() != nil:
		return g.memory(p.Bytes()[:n])
	case inFile && g.s.raw != nil && (n >= g.s.sendfileFrom || g.copy == nil && g.s.copies.now.Load() >= g.s.copies.most):
		if err := g.flush(true); err != nil {
			return err
		}
		return g.s.sendfile(int(fd), pos, n)
	}
	return g.copied(p, n)
}

// copied reads a payload through the copy buffer.
func (g *gather) copied(p Payload, n int64) error {
	if g.copy == nil {
		g.copy = NewBuffer(copyBytes)
		g.s.copies.now.Add(1)
	}
	for off := int64(0); off < n; {
		room := copyBytes - len(g.copy.B)
		// A flush empties the copy buffer, so it comes before the read and never between read and add. (What lies between
		// two payloads keeps the number of parts in bounds: memory.) A payload that does not fit next to the others is not
		// torn apart for what room there is.
		if room == 0 || off == 0 && int64(room) < n && room < copyBytes {
			if err := g.flush(true); err != nil {
				return err
			}
			room = copyBytes
		}
		have := len(g.copy.B)
		dst := g.copy.B[have : have+int(min(int64(room), n-off))]
		if err := readFull(p, dst, off); err != nil {
			return err
		}
		g.copy.B = g.copy.B[:have+len(dst)]
		g.add(dst)
		off += int64(len(dst))
	}
	return nil
}

func readFull(p Payload, dst []byte, off int64) error {
	for done := 0; done < len(dst); {
		n, err := p.ReadAt(dst[done:], off+int64(done))
		done += n
		switch {
		case done == len(dst):
			return nil
		case err == io.EOF, err == nil && n == 0:
			return ErrShortFile
		case err != nil:
			return fmt.Errorf("%w: %w", ErrPayload, err)
		}
	}
	return nil
}

// flush sends what was gathered; more says that the response goes on, so that the kernel need not send a short packet.
func (g *gather) flush(more bool) error {
	if len(g.parts) == 0 {
		return nil
	}
	err := g.s.write(g.parts, more)
	g.parts, g.bytes = g.parts[:0], 0
	if g.copy != nil {
		g.copy.B = g.copy.B[:0]
	}
	return err
}

// write sends parts in order and uses them up.
func (s *Sender) write(parts [][]byte, more bool) error {
	if s.raw == nil || len(parts) == 1 && !more && len(parts[0]) <= progressBytes && len(s.splits) == 0 {
		if err := s.nc.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		if s.raw == nil {
			return s.writeStream(parts)
		}
		n, err := s.nc.Write(parts[0])
		s.sent += int64(n)
		return err
	}
	flags := unix.MSG_NOSIGNAL
	if more {
		flags |= unix.MSG_MORE
	}
	for len(parts) > 0 {
		n, err := s.sendmsg(parts, flags)
		if err != nil {
			return err
		}
		if err := s.progress(int64(n)); err != nil {
			return err
		}
		for n > 0 {
			if n < len(parts[0]) {
				parts[0] = parts[0][n:]
				break
			}
			n -= len(parts[0])
			parts = parts[1:]
		}
		for len(parts) > 0 && len(parts[0]) == 0 {
			parts = parts[1:]
		}
	}
	return nil
}

// await calls send until it has made progress or failed, but for no longer than the timeout, or than the client may hold what others wait for.
func (s *Sender) await(send func(fd uintptr) (done bool)) error {
	began := time.Now()
	if s.since.IsZero() {
		s.since = began
	}
	for now, last := began, began.Add(s.timeout); ; now = time.Now() {
		until := last
		if look := now.Add(s.holdFor); len(s.splits) > 0 && look.Before(last) {
			until = look
		}
		if err := s.nc.SetWriteDeadline(until); err != nil {
			return err
		}
		err := s.raw.Write(send)
		if !errors.Is(err, os.ErrDeadlineExceeded) || until.Equal(last) {
			return err
		}
		if err := s.look(); err != nil {
			return err
		}
	}
}

// progress counts n bytes that the kernel has taken.
func (s *Sender) progress(n int64) error {
	s.sent += n
	if len(s.splits) == 0 || time.Since(s.since) < s.holdFor {
		return nil
	}
	return s.look()
}

// look is an error if the client has taken next to nothing since the last look, and others wait for the memory. What the kernel has taken says
// little: it does so in large portions, some seconds apart for a client that is slow.
func (s *Sender) look() error {
	now, queued := time.Now(), 0
	if err := s.raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return err
	}
	taken := s.sent - int64(queued) // what was queued before the response counts the same at each look
	slow := s.looked && float64(taken-s.taken) < heldRate*now.Sub(s.since).Seconds()
	s.since, s.taken, s.looked = now, taken, true
	if slow && s.wanted() {
		return ErrHeld
	}
	return nil
}

// wanted tells whether others wait for memory that the response holds.
func (s *Sender) wanted() bool {
	for _, split := range s.splits {
		if p, ok := split.Payload.(interface{ Wanted() bool }); ok && p.Wanted() {
			return true
		}
	}
	return false
}

func (s *Sender) sendmsg(parts [][]byte, flags int) (n int, err error) {
	var sysErr error
	err = s.await(func(fd uintptr) bool {
		for {
			n, sysErr = unix.SendmsgBuffers(int(fd), parts, nil, nil, flags)
			if sysErr != unix.EINTR {
				return sysErr != unix.EAGAIN
			}
		}
	})
	if err == nil && sysErr != nil {
		err = fmt.Errorf("sendmsg: %w", sysErr)
	}
	return n, err
}

// writeStream joins short parts, for connections that turn every write into a record or packet of its own.
func (s *Sender) writeStream(parts [][]byte) error {
	const join = 16 << 10
	joined := NewBuffer(join)
	defer joined.Release()
	put := func(p []byte) error {
		for len(p) > 0 {
			n, err := s.nc.Write(p[:min(len(p), progressBytes)])
			s.sent += int64(n)
			if err != nil {
				return err
			}
			if err := s.nc.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
				return err
			}
			p = p[n:]
		}
		return nil
	}
	for i, p := range parts {
		if len(p) <= join-len(joined.B) {
			joined.B = append(joined.B, p...)
			if i < len(parts)-1 {
				continue
			}
			p = nil
		}
		if len(joined.B) > 0 {
			if err := put(joined.B); err != nil {
				return err
			}
			joined.B = joined.B[:0]
		}
		if len(p) > 0 {
			if err := put(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendfile sends n bytes of fd from pos on. The position is explicit: one descriptor serves all connections.
func (s *Sender) sendfile(fd int, pos, n int64) error {
	for n > 0 {
		var done int
		var sysErr error
		err := s.await(func(sock uintptr) bool {
			for {
				done, sysErr = unix.Sendfile(int(sock), fd, &pos, int(min(n, sliceBytes)))
				if sysErr != unix.EINTR {
					return sysErr != unix.EAGAIN
				}
			}
		})
		switch {
		case err != nil:
			return err
		case ofFile(sysErr):
			return fmt.Errorf("%w: sendfile: %w", ErrPayload, sysErr)
		case sysErr != nil:
			return fmt.Errorf("sendfile: %w", sysErr)
		case done == 0:
			return ErrShortFile
		}
		n -= int64(done)
		if err := s.progress(int64(done)); err != nil {
			return err
		}
	}
	return nil
}

// ofFile tells an error of sendfile that the file gave from one that the connection did.
func ofFile(err error) bool {
	switch err {
	case unix.EIO, unix.EINVAL, unix.ESTALE, unix.EUCLEAN, unix.EBADMSG:
		return true
	}
	return false
}

// Plain reports whether the connection is plain TCP, whose kernel buffers take what the other side has not read yet.
func (s *Sender) Plain() bool { return s.raw != nil }

// Sent is how many bytes of the last response went out.
func (s *Sender) Sent() int64 { return s.sent }
