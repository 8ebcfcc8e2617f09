package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lagoon/internal/broker/wire"
)

const (
	// maxQueuedReplies bounds the pipelining of one connection: the reader waits when that many responses are owed.
	maxQueuedReplies = 128
	// maxQueuedBytes bounds the encoded responses that wait behind a slow one; a single larger response is let in.
	maxQueuedBytes = 1 << 20
	// maxAllQueuedBytes is about how much all connections together have waiting; beyond it each has one response at a time. Thousands of
	// clients that ask and do not read would else hold gigabytes.
	maxAllQueuedBytes = 64 << 20
	// minBytesPerSecond is what a frame must arrive with once RequestTimeout has passed.
	minBytesPerSecond = 16 << 10
	// stallWindow is how long a frame may stand still while others wait for the memory it holds.
	stallWindow = 2 * time.Second
	maxClientID = 256
)

// errDrained ends a connection's reader at shutdown.
var errDrained = errors.New("broker: draining")

// reply is one response in the making. Replies of a connection are sent in the order of their requests.
type reply interface {
	// send waits for what the response depends on and writes it. It owns what the reply holds and gives it back.
	send(ctx context.Context, c *conn) error
	// ready reports whether send will wait for nothing but the client. Called at most once, before send, on the reader goroutine
	// while no other response is owed; what it finds out is for send to use.
	ready(c *conn) bool
	// drop gives back what the reply holds, in place of send, when the connection is gone.
	drop()
	// size is the memory the reply holds while it waits for its turn.
	size() int
}

// starter begins a request whose response comes later: it decodes the body, does what must happen in arrival order, and
// hands a reply to conn.enqueue (or none). It owns frame and releases it. An error closes the connection.
type starter func(c *conn, ctx context.Context, in *incoming) error

// incoming is a request of an API with its own codec.
type incoming struct {
	header   wire.Header
	api      *api
	body     []byte // aliases frame
	frame    *wire.Frame
	received time.Time
}

// conn is one client connection: a reader goroutine decodes requests and runs their handlers in order; responses that are
// ready at once and those that wait go through one queue, which a second goroutine empties for as long as there is
// something in it. So a parked fetch delays the responses after it, as in Kafka, and does not delay reading. A client that
// sends one request at a time is spared the second goroutine where the response is ready: the reader sends it, for there is
// nothing to read meanwhile (handing over to another thread costs as much as a response of 64 KiB: docs/benchmarks.md).
type conn struct {
	b        *Broker
	nc       net.Conn
	out      *wire.Sender // response goroutine only
	peer     peer
	endpoint *endpoint
	lease    lease

	done      chan struct{} // closed by close
	closeOnce sync.Once
	stopping  chan struct{} // closed by drain: parked fetches answer now
	stopOnce  sync.Once

	// reader goroutine only
	frames     wire.FrameReader
	frameStart time.Time // zero between frames
	lastFrame  time.Time
	frameBytes int64
	// What arrived of the frame lately, and how long that was waited for; see stalled.
	windowBytes int64
	windowTime  time.Duration
	clientID    string // changed with mu held, for explain

	mu       sync.Mutex
	room     sync.Cond // the queue got shorter, or closed
	queue    []reply   // reply 0 is being sent
	store    [2]reply  // where a short queue lives
	queued   int       // sum of sizes
	sending  bool      // a response goroutine runs
	closed   bool
	idleFrom time.Time // when the last response went out
	loop     func()    // sendLoop with the connection's context; one closure for all its runs

	// response goroutine only
	waits waitCtx

	mutedUntil atomic.Int64 // nothing is read before; since Broker.started, in ns; 0: not muted
}

func newConn(b *Broker, ep *endpoint, nc net.Conn) *conn {
	c := &conn{
		b: b, nc: nc, endpoint: ep,
		peer:     identify(nc, b.nextConn.Add(1)),
		done:     make(chan struct{}),
		stopping: make(chan struct{}),
		idleFrom: time.Now(),
	}
	c.room.L = &c.mu
	c.lease = lease{b: b.budget, done: c.done, patience: b.opt.RequestTimeout}
	c.frames.Init(c, b.opt.MaxRequestBytes, &c.lease)
	c.out = wire.NewSender(nc, b.opt.WriteTimeout)
	return c
}

// serve runs the connection until it ends and cleans up after it.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	c.queue = c.store[:0]
	c.loop = func() { c.sendLoop(ctx) }
	err := c.readLoop(ctx)
	if errors.Is(err, io.EOF) {
		c.drain() // it may have shut down its own side only, and wait for what it has asked for
	}
	if errors.Is(err, errDrained) || errors.Is(err, io.EOF) {
		c.waitSent()
	}
	c.close()
	cancel()
	c.waitSent()
	c.b.logs.disconnected(c.peer.conn)
	c.b.forget(c)
	c.explain(err)
}

// explain logs and counts why a connection was closed by this side; the ends that clients choose are not news.
func (c *conn) explain(err error) {
	reason := ""
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errDrained), errors.Is(err, errIdle):
		return
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return // it went without waiting for the rest, or in the middle of a frame
	case errors.Is(err, wire.ErrPayload), errors.Is(err, wire.ErrShortFile):
		reason = "read"
	case errors.Is(err, errPanic):
		reason = "panic"
	case errors.Is(err, wire.ErrFrameSize):
		reason = "frame"
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooMany), errors.Is(err, errBodySize):
		reason = "malformed"
	case errors.Is(err, errUnknownAPI), errors.Is(err, errVersion):
		reason = "unsupported"
	case errors.Is(err, errBudget), errors.Is(err, errStalled), errors.Is(err, wire.ErrHeld):
		reason = "memory"
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "slow"
	default:
		reason = "other"
	}
	c.b.metrics.closed.WithLabelValues(reason).Inc()
	c.mu.Lock()
	clientID := c.clientID
	c.mu.Unlock()
	if reason == "other" {
		c.b.log.Debug("connection was closed", "peer", c.peer.addr, "client_id", clientID, "err", err)
	} else if c.b.noise.Allow() {
		c.b.log.Warn("connection was closed", "peer", c.peer.addr, "client_id", clientID, "err", err)
	}
}

// close cuts the connection; safe from any goroutine and more than once.
func (c *conn) close() {
	c.closeOnce.Do(func() {
		close(c.done)
		c.nc.Close()
		c.waits.cancel()
		c.mu.Lock()
		c.closed = true
		c.room.Broadcast()
		c.mu.Unlock()
	})
}

// drain lets the connection finish what it has read and close itself.
func (c *conn) drain() {
	c.stopOnce.Do(func() {
		close(c.stopping)
		c.nc.SetReadDeadline(time.Unix(1, 0))
	})
}

func (c *conn) draining() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

// errIdle ends a connection that nobody used for the idle timeout.
var errIdle = errors.New("broker: idle")

// Read is the frame reader's source: it sets the deadline that fits what is being read, and gives a frame up that does not
// go on arriving while others wait for memory.
func (c *conn) Read(p []byte) (int, error) {
	for {
		now := time.Now()
		deadline, inFrame := c.readDeadline(now)
		until := deadline
		if look := now.Add(stallWindow); inFrame && look.Before(until) {
			until = look
		}
		if err := c.nc.SetReadDeadline(until); err != nil {
			return 0, err
		}
		if c.draining() { // drain's deadline may have been overwritten just now
			return 0, errDrained
		}
		n, err := c.nc.Read(p)
		c.frameBytes += int64(n)
		if inFrame && c.stalled(int64(n), time.Since(now)) {
			return n, errStalled
		}
		if n > 0 || !inFrame || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(deadline) {
			return n, err
		}
	}
}

// readDeadline is by when something has to arrive, and whether it is the rest of a frame.
func (c *conn) readDeadline(now time.Time) (deadline time.Time, inFrame bool) {
	switch {
	case c.frameStart.IsZero() && !c.frames.Started():
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.idleStart().Add(c.b.opt.IdleTimeout), false
	case c.frameStart.IsZero():
		return now.Add(c.b.opt.RequestTimeout), false
	}
	start := c.frameStart.Add(c.lease.waited) // for memory: not the client's doing
	if c.lease.overdrawn.Load() {
		return start.Add(c.b.opt.RequestTimeout), true
	}
	return start.Add(c.b.opt.RequestTimeout + time.Duration(c.frameBytes)*(time.Second/minBytesPerSecond)), true
}

// stalled books n bytes that took some time to arrive, and tells whether too few did lately while others wait for memory. Only
// the time spent waiting for the client counts.
func (c *conn) stalled(n int64, took time.Duration) bool {
	c.windowBytes += n
	c.windowTime += took
	if c.windowTime < stallWindow {
		return false
	}
	slow := took >= stallWindow || c.windowBytes*int64(time.Second) < minBytesPerSecond*int64(c.windowTime)
	c.windowBytes, c.windowTime = 0, 0
	return slow && c.b.budget.pressed()
}

// next waits for a frame.
func (c *conn) next() (wire.Frame, error) {
	c.frameStart = time.Time{}
	for {
		size, err := c.frames.Size()
		if err == nil {
			if err := c.waitMuted(); err != nil {
				return wire.Frame{}, err
			}
			c.lastFrame = time.Now()
			c.frameStart, c.frameBytes = c.lastFrame, 0
			c.windowBytes, c.windowTime = 0, 0
			c.lease.waited = 0
			return c.frames.Body(size)
		}
		switch {
		case c.draining():
			return wire.Frame{}, errDrained
		case !errors.Is(err, os.ErrDeadlineExceeded) || c.frames.Started():
			return wire.Frame{}, err
		case c.idle():
			return wire.Frame{}, errIdle
		}
	}
}

// idle reports whether the idle timeout has passed since the last request and response, with none owed.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.idleStart()) >= c.b.opt.IdleTimeout
}

// idleStart is when the connection fell idle: now, while a response is owed. The caller holds mu.
func (c *conn) idleStart() time.Time {
	switch {
	case len(c.queue) > 0:
		return time.Now()
	case c.idleFrom.Before(c.lastFrame):
		return c.lastFrame
	}
	return c.idleFrom
}

var (
	errPanic      = errors.New("broker: panic while serving a request")
	errUnknownAPI = errors.New("broker: unknown api key")
	errVersion    = errors.New("broker: unsupported api version")
	errBodySize   = errors.New("broker: request larger than its api allows")
)

func (c *conn) readLoop(ctx context.Context) (err error) {
	for {
		frame, err := c.next()
		if err != nil {
			return err
		}
		if err := c.handle(ctx, &frame); err != nil {
			return err
		}
	}
}

// recovered turns a panic into an error that closes this connection only.
func (c *conn) recovered(err *error, doing string) {
	if p := recover(); p != nil {
		c.b.log.Error("request handling panicked", "doing", doing, "peer", c.peer.addr, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = fmt.Errorf("%w: %s: %v", errPanic, doing, p)
	}
}

// handle serves one frame as far as it can be served in arrival order, and releases it.
func (c *conn) handle(ctx context.Context, frame *wire.Frame) (err error) {
	owned := true
	defer func() {
		if owned {
			frame.Release()
		}
	}()
	defer c.recovered(&err, "request")
	header, rest, err := wire.ParseHeader(frame.Bytes())
	if err != nil {
		return err
	}
	row, ok := c.b.api(header.Key)
	if !ok {
		return fmt.Errorf("%w %d", errUnknownAPI, header.Key)
	}
	c.identifyClient(header.ClientID)
	in := incoming{header: header, api: row, body: rest, frame: frame, received: time.Now()}
	row.metrics.requests.Inc()
	if header.Version < row.min || header.Version > row.max {
		if row.key == apiVersionsKey {
			reply := c.b.versionsTooNew(&in)
			owned = false
			frame.Release()
			return c.enqueue(reply)
		}
		return fmt.Errorf("%w: %s v%d, served are v%d to v%d", errVersion, row.name, header.Version, row.min, row.max)
	}
	if row.start != nil {
		owned = false // the starter releases it, also when it panics
		return row.start(c, ctx, &in)
	}
	reply, err := c.ordinary(ctx, &in)
	if err != nil {
		return err
	}
	owned = false
	frame.Release() // before the wait for a client that does not read its responses: others need the memory
	return c.enqueue(reply)
}

// ordinary decodes, handles and encodes a request of an API that has no path of its own. The reply does not alias the frame.
func (c *conn) ordinary(ctx context.Context, in *incoming) (reply, error) {
	body := in.api.body()
	body.SetVersion(in.header.Version)
	if body.IsFlexible() {
		rest, err := wire.SkipHeaderTags(in.body)
		if err != nil {
			return nil, err
		}
		in.body = rest
	}
	if len(in.body) > int(in.api.maxBody) {
		return nil, fmt.Errorf("%w: %s with %d bytes, allowed are %d", errBodySize, in.api.name, len(in.body), in.api.maxBody)
	}
	if err := body.ReadFrom(in.body); err != nil {
		return nil, fmt.Errorf("%w: %s v%d: %w", wire.ErrMalformed, in.api.name, in.header.Version, err)
	}
	r := &request{version: in.header.Version, clientID: c.clientID, peer: c.peer, endpoint: c.endpoint, received: in.received, body: body}
	if in.api.begin != nil {
		later := &laterReply{in: in.withoutFrame(), finish: in.api.begin(c.b, ctx, r), asked: len(in.body)}
		later.throttleMs = c.mute(max(r.throttle, c.b.limits.spent(c.client(), time.Since(in.received))))
		return later, nil
	}
	resp, err := in.api.handle(c.b, ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s v%d: %w", in.api.name, in.header.Version, err)
	}
	setThrottle(resp, c.mute(max(r.throttle, c.b.limits.spent(c.client(), time.Since(in.received)))))
	return encodeReply(in, resp, resp.IsFlexible() && in.api.key != apiVersionsKey), nil
}

// identifyClient keeps the client id as a string for as long as it does not change; it is bounded and printable.
func (c *conn) identifyClient(id []byte) {
	id = id[:min(len(id), maxClientID)]
	if c.clientID != string(id) {
		c.mu.Lock()
		c.clientID = strings.ToValidUTF8(string(id), "?")
		c.mu.Unlock()
	}
}

// sendsHere reports whether the reader may send a reply itself: nothing else is owed, nothing more has arrived, and the
// kernel buffers what the client does not read at once.
func (c *conn) sendsHere(r reply) (ready bool, err error) {
	c.mu.Lock()
	owed := c.sending || c.closed
	c.mu.Unlock()
	if owed || c.frames.Started() || !c.out.Plain() {
		return false, nil
	}
	defer c.recovered(&err, "response")
	return r.ready(c), nil
}

// enqueue hands a reply over in order and waits while the client owes the reading of too many.
func (c *conn) enqueue(r reply) error {
	here, err := c.sendsHere(r)
	if err != nil {
		r.drop()
		return err
	}
	c.mu.Lock()
	for !c.closed && (len(c.queue) >= maxQueuedReplies || len(c.queue) > 0 && (c.queued+r.size() > maxQueuedBytes || c.b.queued.Load()+int64(r.size()) > c.b.maxQueued)) {
		c.room.Wait()
	}
	if c.closed {
		c.mu.Unlock()
		r.drop()
		return net.ErrClosed
	}
	c.queue = append(c.queue, r)
	c.queued += r.size()
	c.b.queued.Add(int64(r.size()))
	start := !c.sending
	c.sending = true
	c.mu.Unlock()
	switch {
	case start && here:
		c.loop() // only this goroutine adds to the queue: it ends after this reply
	case start:
		go c.loop()
	}
	return nil
}

// sendLoop sends queued replies until there are none; enqueue starts the next one.
func (c *conn) sendLoop(ctx context.Context) {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.sending = false
			c.queue = c.store[:0]
			c.idleFrom = time.Now()
			c.room.Broadcast()
			c.mu.Unlock()
			return
		}
		r, closed := c.queue[0], c.closed
		size := r.size()
		c.mu.Unlock()
		if closed {
			r.drop()
		} else if err := c.sendOne(ctx, r); err != nil {
			c.explain(err)
			c.close()
		}
		c.mu.Lock()
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.queued -= size
		c.b.queued.Add(-int64(size))
		c.room.Signal()
		c.mu.Unlock()
	}
}

func (c *conn) sendOne(ctx context.Context, r reply) (err error) {
	defer c.recovered(&err, "response")
	return r.send(ctx, c)
}

// waitSent waits until no response is owed any more (all are dropped once the connection is closed).
func (c *conn) waitSent() {
	c.mu.Lock()
	for c.sending {
		c.room.Wait()
	}
	c.mu.Unlock()
}
