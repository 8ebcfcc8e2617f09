package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures a Server.
type Options struct {
	// Listen is host:port; default 127.0.0.1:9645. Port 0 picks one (tests).
	Listen string
	// Local is a further listener whose callers need no token and send any Host: a unix socket, whose file mode says who may call. The
	// server owns it from Listen on. Nil: none.
	Local net.Listener
	// Hosts are further names that the Host header may carry, besides addresses, localhost and the listen host.
	Hosts []string
	// Token, when set, is the bearer token that every call but the health endpoints must carry. Required unless
	// Listen is loopback.
	Token string
	// Backend answers the questions. Required.
	Backend Backend
	// Gatherer feeds /metrics with what the packages registered; nil: only the admin server's own families.
	Gatherer prometheus.Gatherer
	// Compat lists foreign metric name sets to serve: exporter, jmx.
	Compat []string
	// Log gets audit and error lines; nil discards.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:9645"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate reports every fault of the options.
func (o Options) Validate() error {
	var errs []error
	if o.Backend == nil {
		errs = append(errs, errors.New("admin: Backend is nil"))
	}
	if host, _, err := net.SplitHostPort(o.Listen); err != nil {
		errs = append(errs, fmt.Errorf("admin: listen %q: %w", o.Listen, err))
	} else if !loopback(host) && o.Token == "" {
		errs = append(errs, fmt.Errorf("%w: %s can be reached from other machines", ErrUnsafeListen, o.Listen))
	}
	if o.Token != "" && len(o.Token) < minTokenBytes {
		errs = append(errs, fmt.Errorf("admin: the token has %d bytes, it needs at least %d", len(o.Token), minTokenBytes))
	}
	return errors.Join(errs...)
}

const (
	// minTokenBytes keeps guessing hopeless: 128 bits as hex would be 32, as base64 22.
	minTokenBytes = 16
	// maxInFlight bounds calls being served; the API answers from snapshots, so more would only queue on the CPU. Those that wait for
	// a device, for minutes, are counted for themselves: warming many partitions must not keep metrics from being scraped.
	maxInFlight = 32
	maxSlow     = 16
	// maxConns bounds sockets, slow and idle ones included.
	maxConns = 256
	// maxBodyBytes is far above the largest valid body (an override with a reason).
	maxBodyBytes = 64 << 10
	// callTimeout bounds one call; slowTimeout those that wait for a device (warm, evict).
	callTimeout = 15 * time.Second
	slowTimeout = 10 * time.Minute
)

// Server serves the admin API. Make it with New, then Listen and Serve.
type Server struct {
	opt      Options
	token    [sha256.Size]byte
	hosts    []string
	routes   []route
	cross    *http.CrossOriginProtection
	inFlight chan struct{}
	slow     chan struct{}
	streams  *streams
	bundles  bundles
	// profiling are the places of those who take a profile.
	profiling chan struct{}
	scrapes   []http.Handler // /metrics and /metrics/detailed, for bundles
	http      *http.Server
	listener  net.Listener
	local     net.Listener
}

// localKey marks the requests that came in by Options.Local.
type localKey struct{}

func isLocal(r *http.Request) bool { return r.Context().Value(localKey{}) != nil }

// New checks the options and makes a Server that does not listen yet.
// Errors: ErrUnsafeListen and faults of the options, joined.
func New(opt Options) (*Server, error) {
	opt = opt.withDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opt:      opt,
		token:    sha256.Sum256([]byte(opt.Token)),
		cross:    http.NewCrossOriginProtection(),
		inFlight: make(chan struct{}, maxInFlight),
		slow:     make(chan struct{}, maxSlow),
		streams:  newStreams(opt),
		bundles:  bundles{making: make(chan struct{}, 1), waiting: map[string]bool{}},

		profiling: make(chan struct{}, maxProfiles),
	}
	host, _, _ := net.SplitHostPort(opt.Listen) // Validate has parsed it
	s.hosts = append([]string{"localhost", strings.ToLower(host)}, lower(opt.Hosts)...)
	s.routes = s.table()
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout, // also of what is refused: who does not read must not hold a connection. Calls that may take longer move it.
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
		BaseContext: func(l net.Listener) context.Context {
			if s.local != nil && l == s.local {
				return context.WithValue(context.Background(), localKey{}, true)
			}
			return context.Background()
		},
	}
	return s, nil
}

// Listen binds the address. The error names the address and, when the port is taken, the remedy.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.opt.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("admin: %s is taken by another process: choose another admin.listen: %w", s.opt.Listen, err)
	}
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	s.listener = &limitListener{Listener: l, free: make(chan struct{}, maxConns)}
	if s.opt.Local != nil {
		s.local = &limitListener{Listener: s.opt.Local, free: make(chan struct{}, maxConns)}
	}
	return nil
}

// Addr is the bound address; nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve answers calls until Close; it returns nil after Close.
func (s *Server) Serve() error {
	serve := func(l net.Listener) error {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("admin: %s: %w", l.Addr(), err)
		}
		return nil
	}
	if s.local == nil {
		return serve(s.listener)
	}
	both := make(chan error, 2)
	for _, l := range []net.Listener{s.listener, s.local} {
		go func() { both <- serve(l) }()
	}
	if err := <-both; err != nil {
		return err // the other ends with Close
	}
	return <-both
}

// Close ends the event streams, stops accepting and waits for running calls until ctx ends, then cuts them off.
func (s *Server) Close(ctx context.Context) error {
	s.streams.close()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	for _, l := range []net.Listener{s.listener, s.local} {
		if l != nil {
			_ = l.Close() // Shutdown knows it only after Serve; closing it twice is harmless
		}
	}
	return err
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func lower(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(n)
	}
	return out
}

// hostAllowed accepts every literal address, because a page that a browser loaded from an attacker carries the attacker's
// name in Host, and the names that people use for this server.
func (s *Server) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && slices.Contains(s.hosts, strings.ToLower(host))
}
