package readpath

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// method is a way from a file to a socket. A pass opens it once and sends piece after piece.
type method struct {
	name  string
	flags int // of open
	begin func(p *path) error
	send  func(p *path, off int64, n int) error
	end   func(p *path) error
}

// path is a method at work.
type path struct {
	file, sock int
	size       int64  // of the file
	buf        []byte // aligned, as long as the largest piece
	mapping    []byte
	pipe       [2]int
}

// methods in the order of the table.
var methods = []method{
	{name: "read", send: func(p *path, off int64, n int) error {
		return p.copy(off, n, func(b []byte, off int64) (int, error) { return unix.Pread(p.file, b, off) })
	}},
	{name: "mmap", begin: func(p *path) (err error) {
		p.mapping, err = unix.Mmap(p.file, 0, int(p.size), unix.PROT_READ, unix.MAP_SHARED)
		return err
	}, send: func(p *path, off int64, n int) error { return p.write(p.mapping[off : off+int64(n)]) },
		end: func(p *path) error { return unix.Munmap(p.mapping) }},
	{name: "sendfile", send: func(p *path, off int64, n int) error {
		return whole(n, func(rest int) (int, error) { return unix.Sendfile(p.sock, p.file, &off, rest) })
	}},
	{name: "splice", begin: openPipe, send: splice, end: func(p *path) error {
		return errors.Join(unix.Close(p.pipe[0]), unix.Close(p.pipe[1]))
	}},
	{name: "direct", flags: unix.O_DIRECT, send: func(p *path, off int64, n int) error {
		return p.copy(off, n, func(b []byte, off int64) (int, error) { return unix.Pread(p.file, b, off) })
	}},
	{name: "dontcache", send: func(p *path, off int64, n int) error {
		return p.copy(off, n, func(b []byte, off int64) (int, error) {
			return unix.Preadv2(p.file, [][]byte{b}, off, unix.RWF_DONTCACHE)
		})
	}},
	{name: "dontneed", send: func(p *path, off int64, n int) error {
		err := p.copy(off, n, func(b []byte, off int64) (int, error) { return unix.Pread(p.file, b, off) })
		return errors.Join(err, unix.Fadvise(p.file, off, int64(n), unix.FADV_DONTNEED))
	}},
}

// Methods are the names of the ways.
func Methods() (names []string) {
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

func find(name string) (method, error) {
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name })
	if i < 0 {
		return method{}, fmt.Errorf("method %q: want one of %v", name, Methods())
	}
	return methods[i], nil
}

// copy reads a piece into the buffer and writes it.
func (p *path) copy(off int64, n int, read func(b []byte, off int64) (int, error)) error {
	piece := p.buf[:n]
	err := whole(n, func(rest int) (int, error) { return read(piece[n-rest:], off+int64(n-rest)) })
	if err != nil {
		return err
	}
	return p.write(piece)
}

func (p *path) write(b []byte) error {
	return whole(len(b), func(rest int) (int, error) { return unix.Write(p.sock, b[len(b)-rest:]) })
}

// whole repeats a call that may do a part until n bytes are done.
func whole(n int, call func(rest int) (int, error)) error {
	for rest := n; rest > 0; {
		done, err := call(rest)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err == nil && done == 0 {
			return io.ErrUnexpectedEOF
		}
		rest -= max(done, 0)
	}
	return nil
}

// pipeBytes is /proc/sys/fs/pipe-max-size as Linux ships it.
const pipeBytes = 1 << 20

func openPipe(p *path) error {
	if err := unix.Pipe2(p.pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(p.pipe[0]), unix.F_SETPIPE_SZ, pipeBytes)
	return err
}

func splice(p *path, off int64, n int) error {
	return whole(n, func(rest int) (int, error) {
		in, err := unix.Splice(p.file, &off, p.pipe[1], nil, min(rest, pipeBytes), unix.SPLICE_F_MOVE)
		if err != nil {
			return 0, err
		}
		err = whole(int(in), func(rest int) (int, error) {
			out, err := unix.Splice(p.pipe[0], nil, p.sock, nil, rest, unix.SPLICE_F_MOVE|unix.SPLICE_F_MORE)
			return int(out), err
		})
		return int(in), err
	})
}
