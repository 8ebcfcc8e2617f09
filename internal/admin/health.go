package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// livez answers as long as the process can serve HTTP: restarting it would not help with anything else.
func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.URL.Query().Has("verbose") {
		fmt.Fprintln(w, "[+] http ok")
	}
	fmt.Fprintln(w, "ok")
}

// readyz runs the checks. ?verbose prints each, ?exclude=a,b leaves some out. A failed warning does not make it 503.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	exclude := strings.Split(r.URL.Query().Get("exclude"), ",")
	ready := true
	var out strings.Builder
	for _, c := range s.opt.Backend.Checks(r.Context()) {
		if slices.Contains(exclude, c.Name) {
			fmt.Fprintf(&out, "[ ] %s excluded\n", c.Name)
			continue
		}
		out.WriteString(c.line())
		ready = ready && (c.OK || c.Severity == "warn")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	verdict := "ready"
	if !ready {
		verdict = "not ready"
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// What is wrong is shown without ?verbose as well: probes log the body.
	if !ready || r.URL.Query().Has("verbose") {
		fmt.Fprint(w, out.String())
	}
	fmt.Fprintln(w, verdict)
}

func (c Check) line() string {
	mark, state := "[+]", "ok"
	switch {
	case !c.OK && c.Severity == "warn":
		mark, state = "[!]", "warning"
	case !c.OK:
		mark, state = "[-]", "failed"
	}
	line := fmt.Sprintf("%s %s %s", mark, c.Name, state)
	if c.Text != "" {
		line += ": " + strings.ReplaceAll(c.Text, "\n", " ")
	}
	if p := c.Progress; p != nil {
		line += fmt.Sprintf(" (%d of %d %s", p.Done, p.Total, p.Unit)
		if p.ETASeconds > 0 {
			line += fmt.Sprintf(", about %.0f s left", p.ETASeconds)
		}
		line += ")"
	}
	return line + "\n"
}
