package admin

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures a Server.
type Options struct {
	// Listen is host:port; default 127.0.0.1:9645. Port 0 picks one (tests).
	Listen string
	// Hosts are further names that the Host header may carry, besides loopback names and the listen address.
	Hosts []string
	// Token, when set, is the bearer token every call but the health endpoints must carry. Required unless Listen is loopback.
	Token string
	// Backend answers the questions. Required.
	Backend Backend
	// Gatherer feeds /metrics with what the packages registered; nil means only the admin server's own families.
	Gatherer prometheus.Gatherer
	// Compat lists foreign metric name sets to serve: exporter, jmx.
	Compat []string
	// Log gets audit and error lines; nil discards.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// New checks the options and makes a Server that does not listen yet.
//
//	func New(opt Options) (*Server, error)
//	func (s *Server) Listen() error                      // binds; clear error when the port is taken
//	func (s *Server) Addr() net.Addr
//	func (s *Server) Serve() error                       // until Close; nil after Close
//	func (s *Server) Close(ctx context.Context) error    // drains
//	func (s *Server) Handler() http.Handler
