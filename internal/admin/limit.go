package admin

import (
	"net"
	"sync"
)

// limitListener accepts at most cap(free) connections at a time; those above are closed at once, so that a flood can neither
// hold descriptors nor hide behind the backlog.
type limitListener struct {
	net.Listener
	free chan struct{}
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = c.Close() // nothing was written, so nothing is lost
		}
	}
}

type limitConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitConn) Close() error {
	c.release()
	return c.Conn.Close()
}
