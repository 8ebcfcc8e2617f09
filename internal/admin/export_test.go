package admin

import (
	"errors"
	"net"
	"net/http"
	"time"
)

// Operation is a route as tests see it.
type Operation struct {
	Method, Path    string
	Query           []string
	Public, Mutates bool
	Lasting         bool
}

// Operations lists the routes.
func (s *Server) Operations() []Operation {
	var out []Operation
	for _, rt := range s.routes {
		out = append(out, Operation{rt.method, rt.path(), rt.query, rt.public, rt.mutates, rt.lasting})
	}
	return out
}

// OpenAPI is the embedded document.
var OpenAPI = openAPI

// MaxInFlight is the bound on calls.
const MaxInFlight = maxInFlight

// LimitListener wraps l so that it serves n connections at a time.
func LimitListener(l net.Listener, n int) net.Listener {
	return &limitListener{Listener: l, free: make(chan struct{}, n)}
}

// MaxStreams is the bound on open streams.
const MaxStreams = maxStreams

// ServeOn serves one listener until Close.
func (s *Server) ServeOn(l net.Listener) error {
	s.listener = l
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// OverrideEvents are the texts of what the stream tells when o is set.
func OverrideEvents(o Override) (texts []string) {
	var log eventLog
	log.observe(time.Time{}, &answers{throttle: &Throttle{}})
	log.observe(time.Time{}, &answers{throttle: &Throttle{Overrides: []Override{o}}})
	for _, e := range log.kept {
		texts = append(texts, e.Text)
	}
	return texts
}
