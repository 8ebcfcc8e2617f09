package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peer identifies the other side of a connection.
type peer struct {
	addr  string // remote address and port, for people
	ip    string // "" when the address is not an IP (tests, unix sockets)
	host  string // the ip as Kafka shows hosts, "/10.0.0.1"
	local string // the address of this side that the client dialled
	conn  uint64 // unique in this process
}

// endpoint is an Endpoint that is being served.
type endpoint struct {
	Endpoint
	port int32 // the listener's, when Port is 0
}

// acceptor is one running Serve.
type acceptor struct{ ln net.Listener }

// ErrServing is returned by Serve after Shutdown.
var ErrServing = errors.New("broker: shut down")

// advertised is the address that the client of r should dial from now on.
func (b *Broker) advertised(r *request) (host string, port int32) {
	host, port = r.endpoint.Host, r.endpoint.Port
	if host == "" {
		host = r.peer.local
	}
	if port == 0 {
		port = r.endpoint.port
	}
	return host, port
}

// Serve accepts connections for the endpoint of that name until ctx ends or Shutdown is called, and returns nil then;
// the listener is closed on return. Connections live on until Shutdown, or until ctx ends. A listener that wraps its
// connections (TLS) works too; sendfile is used only on a plain *net.TCPConn.
func (b *Broker) Serve(ctx context.Context, name string, ln net.Listener) error {
	ep, err := b.endpoint(name, ln)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	unpace(ln)
	a := &acceptor{ln: ln}
	b.mu.Lock()
	if b.draining {
		b.mu.Unlock()
		return errors.Join(ErrServing, ln.Close())
	}
	b.closers[a] = struct{}{}
	b.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer func() {
		ln.Close()
		b.mu.Lock()
		delete(b.closers, a)
		b.mu.Unlock()
	}()
	return b.accept(ctx, ep, ln)
}

// unpace has connections to a loopback address begin with Reno. Where the system's congestion control is BBR, it paces what
// never leaves the machine, too, with a timer per packet: twice the processor time at half the speed (docs/benchmarks.md).
// It has to be the listener: a connection that began with BBR stays paced. Reno is part of every kernel, open to every user,
// and does nothing where no packet is lost. Advice: an error changes nothing.
func unpace(ln net.Listener) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return
	}
	if a, ok := tcp.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	})
}

func (b *Broker) endpoint(name string, ln net.Listener) (*endpoint, error) {
	for _, e := range b.opt.Endpoints {
		if e.Name != name {
			continue
		}
		ep := &endpoint{Endpoint: e}
		if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
			ep.port = int32(tcp.Port)
		}
		return ep, nil
	}
	return nil, fmt.Errorf("broker: no endpoint named %q in Options.Endpoints", name)
}

// accept is the loop of Serve. Running out of descriptors or memory is no reason to stop serving those who are in.
func (b *Broker) accept(ctx context.Context, ep *endpoint, ln net.Listener) error {
	const firstPause, longestPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = firstPause
			b.admit(ctx, ep, nc)
			continue
		case ctx.Err() != nil || b.isDraining() || errors.Is(err, net.ErrClosed):
			return nil
		case !shortage(err):
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		if b.noise.Allow() {
			b.log.Warn("connection could not be accepted", "listener", ep.Name, "err", err, "pause", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// shortage tells accept errors that pass from a listener that is broken.
func shortage(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTUNREACH} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// admit starts serving a connection, or closes it when one of the limits is reached.
func (b *Broker) admit(ctx context.Context, ep *endpoint, nc net.Conn) {
	c := newConn(b, ep, nc)
	if b.limits.refuses(nc, c.peer.ip) {
		b.metrics.refused.WithLabelValues("rate").Inc()
		return
	}
	b.mu.Lock()
	reason := ""
	switch {
	case b.draining:
		reason = "draining"
	case len(b.conns) >= b.opt.MaxConnections:
		reason = "total"
	case c.peer.ip != "" && b.perIP[c.peer.ip] >= b.opt.MaxConnectionsPerIP:
		reason = "per_ip"
	default:
		b.conns[c] = struct{}{}
		b.perIP[c.peer.ip]++
	}
	b.mu.Unlock()
	if reason != "" {
		b.metrics.refused.WithLabelValues(reason).Inc()
		if b.noise.Allow() {
			b.log.Warn("connection was refused", "listener", ep.Name, "peer", c.peer.addr, "limit", reason)
		}
		nc.Close()
		return
	}
	b.metrics.accepted.Inc()
	go c.serve(ctx)
}

// forget is the end of a connection.
func (b *Broker) forget(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	if b.perIP[c.peer.ip]--; b.perIP[c.peer.ip] <= 0 {
		delete(b.perIP, c.peer.ip)
	}
	if b.draining && len(b.conns) == 0 {
		close(b.drained)
	}
}

func (b *Broker) isDraining() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.draining
}

// Connections is how many client connections are open.
func (b *Broker) Connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

func (b *Broker) closeCoordinators() {
	b.txns.Close() // first: it writes markers to groups
	b.groups.Close()
}

// cutTime is for what was cut off to end. More is of no use: what does not end then waits for a device that does not answer.
const cutTime = time.Second

// Shutdown stops accepting, lets every connection finish the requests it has sent (parked fetches answer at once), and
// closes them. When ctx ends first the rest is cut off and ctx's error returned, within two seconds: requests that a device
// does not answer, and coordinators that wait for it, are left behind. Call it once the listeners' owner is
// ready to stop; it may be called again.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	if !b.draining {
		b.draining = true
		for a := range b.closers {
			a.ln.Close()
		}
		if len(b.conns) == 0 {
			close(b.drained)
		}
	}
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()

	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(c.drain)
	}
	wg.Wait()
	var err error
	select {
	case <-b.drained:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range conns {
			c.close()
		}
		select {
		case <-b.drained:
		case <-time.After(cutTime):
		}
	}
	closed := make(chan struct{})
	go func() {
		b.closeCoordinators()
		close(closed)
	}()
	select {
	case <-closed:
		return err
	case <-ctx.Done():
	}
	select {
	case <-closed:
		return err
	case <-time.After(cutTime):
		return ctx.Err()
	}
}

// identify reads a connection's two addresses.
func identify(nc net.Conn, id uint64) peer {
	p := peer{conn: id}
	if a := nc.RemoteAddr(); a != nil {
		p.addr = a.String()
		if ap, err := netip.ParseAddrPort(p.addr); err == nil {
			p.ip = ap.Addr().Unmap().WithZone("").String()
			p.host = "/" + p.ip
		}
	}
	if a := nc.LocalAddr(); a != nil {
		p.local, _, _ = net.SplitHostPort(a.String())
	}
	return p
}
