package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"lagoon/internal/nearest"
)

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	Status      int      `json:"status"`
	Detail      string   `json:"detail"`
	Instance    string   `json:"instance"`
	Suggestions []string `json:"suggestions,omitempty"`
	RequestID   string   `json:"request_id"`
}

// httpError is an error of the HTTP layer itself.
type httpError struct {
	status      int
	kind        string // last part of the problem's type
	detail      string
	suggestions []string
}

func (e *httpError) Error() string { return e.detail }

// problem answers with err. Errors of unknown kind may hold paths and other internals: they go to the log only.
func (s *Server) problem(w http.ResponseWriter, c *call, err error) {
	e := toHTTP(err)
	if errors.Is(err, context.Canceled) && errors.Is(c.Err(), context.Canceled) { // nobody reads this
		e = &httpError{status: statusClientGone, kind: "client-gone", detail: "the caller went away"}
	}
	if e.status == http.StatusInternalServerError {
		s.opt.Log.Error("admin call failed", "method", c.r.Method, "path", c.r.URL.Path, "request_id", c.id, "err", err)
	}
	if e.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.status)
	title := strings.ReplaceAll(e.kind, "-", " ")
	p := Problem{
		Type: "urn:lagoon:problem:" + e.kind, Title: strings.ToUpper(title[:1]) + title[1:], Status: e.status, Detail: e.detail,
		Instance: c.r.URL.EscapedPath(), Suggestions: e.suggestions, RequestID: c.id,
	}
	_ = json.NewEncoder(w).Encode(p) // the caller went away: nobody is left to tell
}

// statusClientGone is nginx's, for its log: no caller sees it.
const statusClientGone = 499

func toHTTP(err error) *httpError {
	var (
		own      *httpError
		notFound *NotFoundError
		invalid  *InvalidError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &notFound):
		e := &httpError{status: http.StatusNotFound, kind: "unknown-" + strings.ReplaceAll(notFound.What, " ", "-"), detail: notFound.Error()}
		if best := nearest.Word(notFound.Name, notFound.Known); best != "" {
			e.suggestions = []string{best}
		}
		return e
	case errors.As(err, &invalid):
		return &httpError{status: http.StatusBadRequest, kind: "invalid-request", detail: invalid.Detail}
	case errors.Is(err, ErrStarting):
		return &httpError{status: http.StatusServiceUnavailable, kind: "starting", detail: ErrStarting.Error()}
	case errors.Is(err, ErrLoading):
		return &httpError{status: http.StatusServiceUnavailable, kind: "starting", detail: ErrLoading.Error()}
	case errors.Is(err, ErrBusy):
		return &httpError{status: http.StatusServiceUnavailable, kind: "busy", detail: ErrBusy.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &httpError{status: http.StatusGatewayTimeout, kind: "timeout", detail: "the call took too long and was given up"}
	default:
		return &httpError{status: http.StatusInternalServerError, kind: "internal", detail: "something went wrong: the broker's log has the details under this request id"}
	}
}

func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}
