package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"lagoon/internal/nearest"
)

// route is one operation. The table of them is the whole API: what is not in it is refused.
type route struct {
	method  string   // GET serves HEAD too
	pattern []string // segments; {name} is a parameter
	query   []string // allowed query parameters, beside pretty
	public  bool     // no token needed
	mutates bool     // audited
	slow    bool     // may wait for a device
	lasting bool     // has its own limits of number and time: it is no call among the others
	audited bool     // leaves an audit line although it changes nothing
	handle  func(*call) (any, error)
	raw     func(http.ResponseWriter, *call) error // instead of handle: writes its own answer, unless it fails
}

// call is one request on its way through a handler.
type call struct {
	context.Context
	r      *http.Request
	params map[string]string
	query  url.Values
	id     string
	now    time.Time
	about  []any // of the body, for the audit line
}

func get(path string, handle func(*call) (any, error), query ...string) route {
	return route{method: http.MethodGet, pattern: segments(path), handle: handle, query: query}
}

func segments(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

func (rt route) path() string { return "/" + strings.Join(rt.pattern, "/") }

// match compares a raw (still escaped) path segment by segment. Literal segments must be equal as they were sent; parameters are
// unescaped one by one, so an escaped slash stays inside its segment. Empty and dot segments match nothing.
func (rt route) match(raw []string) (map[string]string, bool) {
	if len(raw) != len(rt.pattern) {
		return nil, false
	}
	var params map[string]string
	for i, want := range rt.pattern {
		if !strings.HasPrefix(want, "{") {
			if raw[i] != want {
				return nil, false
			}
			continue
		}
		val, err := url.PathUnescape(raw[i])
		if err != nil || val == "" || val == "." || val == ".." {
			return nil, false
		}
		if params == nil {
			params = map[string]string{}
		}
		params[strings.Trim(want, "{}")] = val
	}
	return params, true
}

// find returns the route and its parameters, or the methods that the path knows.
func (s *Server) find(r *http.Request) (rt *route, params map[string]string, allow []string) {
	raw := segments(r.URL.EscapedPath())
	var pattern []string // the first that matches is the path's: literal segments stand in the table before parameters
	for i := range s.routes {
		p, ok := s.routes[i].match(raw)
		if !ok || pattern != nil && !slices.Equal(pattern, s.routes[i].pattern) {
			continue
		}
		pattern = s.routes[i].pattern
		m := s.routes[i].method
		if m == r.Method || m == http.MethodGet && r.Method == http.MethodHead {
			return &s.routes[i], p, nil
		}
		if allow = append(allow, m); m == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	return nil, nil, allow
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Context: r.Context(), r: r, id: rand.Text()[:12], now: s.opt.Now().UTC()}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", c.id)
	defer func() {
		if p := recover(); p != nil {
			s.opt.Log.Error("admin handler panicked", "path", r.URL.Path, "request_id", c.id, "panic", p, "stack", string(debug.Stack()))
			s.problem(w, c, errors.New("panic"))
		}
	}()
	if !isLocal(r) && !s.hostAllowed(r.Host) {
		s.problem(w, c, &httpError{status: http.StatusForbidden, kind: "host-not-allowed",
			detail: "the Host header names neither an address nor an allowed host: add it to admin.hosts"})
		return
	}
	rt, params, allow := s.find(r)
	if (rt == nil || !rt.public) && !s.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="lagoon"`)
		s.problem(w, c, &httpError{status: http.StatusUnauthorized, kind: "unauthorized",
			detail: "this call needs the header Authorization: Bearer TOKEN, with the token of admin.token_file"})
		return
	}
	if rt == nil {
		s.noRoute(w, c, allow)
		return
	}
	c.params = params
	s.serve(w, c, rt)
}

func (s *Server) noRoute(w http.ResponseWriter, c *call, allow []string) {
	if len(allow) > 0 {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.problem(w, c, &httpError{status: http.StatusMethodNotAllowed, kind: "method-not-allowed",
			detail: c.r.Method + " is not possible here: use " + strings.Join(allow, " or ")})
		return
	}
	var paths []string
	for _, rt := range s.routes {
		paths = append(paths, rt.path())
	}
	e := &httpError{status: http.StatusNotFound, kind: "unknown-path", detail: "no such path: see /openapi.json for all of them"}
	if best := nearest.Word(c.r.URL.Path, paths); best != "" {
		e.suggestions = []string{best}
	}
	s.problem(w, c, e)
}

// authorized compares hashes, so that neither length nor prefix of the token shows in the time it takes.
func (s *Server) authorized(r *http.Request) bool {
	if s.opt.Token == "" || isLocal(r) {
		return true // without a token it listens on loopback only: New has checked
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], s.token[:]) == 1
}

// serve runs one matched call.
func (s *Server) serve(w http.ResponseWriter, c *call, rt *route) {
	if !rt.public && !rt.lasting {
		places := s.inFlight
		if rt.slow {
			places = s.slow
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			s.problem(w, c, ErrBusy)
			return
		}
	}
	if rt.method != http.MethodGet {
		if err := s.cross.Check(c.r); err != nil {
			s.problem(w, c, &httpError{status: http.StatusForbidden, kind: "cross-origin", detail: "a browser sent this from another site: " + err.Error()})
			return
		}
	}
	if err := c.parseQuery(rt); err != nil {
		s.problem(w, c, err)
		return
	}
	if rt.lasting {
		err := rt.raw(w, c)
		if rt.audited {
			s.audit(c, nil, err)
		}
		if err != nil {
			s.problem(w, c, err)
		}
		return
	}
	limit := callTimeout
	if rt.slow {
		limit = slowTimeout
	}
	// Not all ResponseWriters have deadlines (tests use recorders); the context ends the work in any case.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + callTimeout))
	ctx, cancel := context.WithTimeout(c.Context, limit)
	defer cancel()
	c.Context = ctx
	c.r = c.r.WithContext(ctx)
	c.r.Body = http.MaxBytesReader(w, c.r.Body, maxBodyBytes)
	if rt.raw != nil {
		if err := rt.raw(w, c); err != nil {
			s.problem(w, c, err)
		}
		return
	}
	answer, err := rt.handle(c)
	if rt.mutates {
		s.audit(c, answer, err)
	}
	if err != nil {
		s.problem(w, c, err)
		return
	}
	if err := c.write(w, answer); err != nil {
		s.problem(w, c, err)
	}
}

func (s *Server) audit(c *call, answer any, err error) {
	attrs := append([]any{"method", c.r.Method, "path", c.r.URL.Path, "peer", c.r.RemoteAddr, "request_id", c.id}, c.about...)
	if a, ok := answer.(interface{ auditAttrs() []any }); ok {
		attrs = append(attrs, a.auditAttrs()...)
	}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	s.opt.Log.Info("admin call", attrs...)
}

// parseQuery refuses what the route does not know: a misspelt filter must not look like an empty answer.
func (c *call) parseQuery(rt *route) error {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return &InvalidError{Detail: "the query string cannot be read: " + err.Error()}
	}
	known := append([]string{"pretty"}, rt.query...)
	for name, vals := range q {
		if !slices.Contains(known, name) {
			e := &httpError{status: http.StatusBadRequest, kind: "unknown-parameter", detail: "unknown query parameter " + quote(name)}
			if best := nearest.Word(name, known); best != "" {
				e.suggestions = []string{best}
			} else {
				e.detail += "; known are " + strings.Join(known, ", ")
			}
			return e
		}
		if len(vals) > 1 {
			return &InvalidError{Detail: "the query parameter " + name + " is given twice"}
		}
	}
	c.query = q
	return nil
}

// integer reads a number within [least, most] from the query.
func (c *call) integer(name string, standard, least, most int) (int, error) {
	text := c.query.Get(name)
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, &InvalidError{Detail: name + " must be a whole number from " + strconv.Itoa(least) + " to " + strconv.Itoa(most)}
	}
	return n, nil
}

// partition reads a partition number from a path or query value.
func partitionNumber(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, &InvalidError{Detail: quote(text) + " is not a partition number"}
	}
	return int32(n), nil
}

// body decodes the request's JSON into dst, strictly.
func (c *call) body(dst any) error {
	if kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &httpError{status: http.StatusUnsupportedMediaType, kind: "content-type", detail: "the body must be JSON, with Content-Type: application/json"}
	}
	d := json.NewDecoder(c.r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return &httpError{status: http.StatusRequestEntityTooLarge, kind: "body-too-large", detail: "the body is larger than 64 KiB"}
		}
		if errors.Is(err, io.EOF) {
			return &InvalidError{Detail: "the body is empty: send a JSON object"}
		}
		return &InvalidError{Detail: "the body cannot be read: " + strings.TrimPrefix(err.Error(), "json: ")}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &InvalidError{Detail: "the body holds more than one JSON value"}
	}
	return nil
}

// write answers with JSON; on error nothing was sent.
func (c *call) write(w http.ResponseWriter, answer any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if _, pretty := c.query["pretty"]; pretty {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(answer); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out.Bytes()) // the caller went away: nobody is left to tell
	return nil
}
