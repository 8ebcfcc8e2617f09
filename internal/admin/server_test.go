package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
)

const token = "0123456789abcdef0123456789abcdef"

type fixture struct {
	*admin.Server
	fake *admintest.Fake
	log  *bytes.Buffer
}

func newServer(t *testing.T, change func(*admin.Options)) *fixture {
	t.Helper()
	f := &fixture{fake: admintest.New(), log: &bytes.Buffer{}}
	opt := admin.Options{
		Backend: f.fake, Compat: []string{"exporter", "jmx"}, Now: func() time.Time { return admintest.Now },
		Log: slog.New(slog.NewTextHandler(f.log, nil)),
	}
	if change != nil {
		change(&opt)
	}
	s, err := admin.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	f.Server = s
	return f
}

// call sends one request straight into the handler; headers are name, value pairs.
func (f *fixture) call(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:9645/", strings.NewReader(body))
	r.Method = method // NewRequest takes CONNECT's target for a host
	// The target goes in as the wire has it; NewRequest would refuse some of our bad ones.
	u, err := r.URL.Parse("http://127.0.0.1:9645" + target)
	if err == nil {
		r.URL = u
		if raw, _, _ := strings.Cut(target, "?"); u.EscapedPath() != raw { // Parse resolved dots: put them back
			r.URL.Path, r.URL.RawPath = raw, raw
		}
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w := httptest.NewRecorder()
	f.ServeHTTP(&onceFlushed{w, cancel}, r.WithContext(ctx))
	return w
}

// onceFlushed ends a call that streams after the first event.
type onceFlushed struct {
	*httptest.ResponseRecorder
	end context.CancelFunc
}

func (w *onceFlushed) Flush() {
	w.ResponseRecorder.Flush()
	w.end()
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) admin.Problem {
	t.Helper()
	var p admin.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("status %d, body %q is no problem: %v", w.Code, w.Body, err)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if p.Status != w.Code || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") || p.Title == "" || p.Detail == "" {
		t.Errorf("incomplete problem %+v with status %d", p, w.Code)
	}
	return p
}

// fill puts names that the fake knows into a route's path.
func fill(path string) string {
	return strings.NewReplacer("{topic}", "orders", "{partition}", "3", "{tier}", "hdd", "{group}", "warehouse", "{kind}", "group", "{name}", "warehouse", "{id}", "m-81", "{profile}", "heap", "{file}", "main.js").Replace(path)
}

func TestEveryGetAnswersAndChangesNothing(t *testing.T) {
	f := newServer(t, nil)
	for _, op := range f.Operations() {
		if op.Method != http.MethodGet {
			continue
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := f.call(method, fill(op.Path), "")
			if w.Code != http.StatusOK {
				t.Errorf("%s %s: %d %s", method, op.Path, w.Code, w.Body)
			}
			if w.Body.Len() == 0 && method == http.MethodGet {
				t.Errorf("%s: empty", op.Path)
			}
			if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: not JSON: %s", op.Path, w.Body)
			}
		}
	}
	if got := f.fake.Mutations(); len(got) > 0 {
		t.Errorf("GET or HEAD changed something: %v", got)
	}
}

func TestWrongMethodsAre405WithAllow(t *testing.T) {
	f := newServer(t, nil)
	methods := map[string][]string{}
	for _, op := range f.Operations() {
		methods[op.Path] = append(methods[op.Path], op.Method)
	}
	for path, known := range methods {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
			if slices.Contains(known, method) {
				continue
			}
			w := f.call(method, fill(path), "{}", "X-HTTP-Method-Override", known[0], "X-Method-Override", known[0])
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
				continue
			}
			allow := strings.Split(w.Header().Get("Allow"), ", ")
			for _, m := range known {
				if !slices.Contains(allow, m) {
					t.Errorf("%s: Allow %v lacks %s", path, allow, m)
				}
			}
			problemOf(t, w)
		}
	}
	if got := f.fake.Mutations(); len(got) > 0 {
		t.Errorf("a wrong method changed something: %v", got)
	}
}

// badPaths reach a protected operation in servers that clean or unescape paths before they check them.
var badPaths = []string{
	"//api/v1/status", "/api//v1/status", "/api/v1//status", "/api/v1/status/", "/api/v1/status//", "/./api/v1/status", "/api/./v1/status",
	"/x/../api/v1/status", "/livez/../api/v1/status", "/livez/..%2fapi/v1/status", "/livez/%2e%2e/api/v1/status", "/api%2fv1%2fstatus", "/api/v1%2fstatus",
	"/%61pi/v1/status", "/API/v1/status", "/api/v1/status;x=y", "/api/v1/status%00", "/api/v1/status%20", "/api/v1/status/extra", "/api/v1/cache/evict/",
	"//api/v1/cache/evict", "/livez//api/v1/cache/evict", "/api/v1/cache/%2e/evict", "/api/v1/topics/..", "/api/v1/topics/.", "/api/v1/topics/%2e%2e",
	"/api/v1/topics/", "/api/v1/throttle/overrides/group/", "/api/v1/throttle/overrides//warehouse", "/api/v1/throttle/overrides/group/..",
	"/debug/pprof/", "/api", "/api/v1", "/api/v2/status", "/favicon.ico", "/livez/", "/livez/x", "/metrics/", "/..%2f..%2fetc/passwd", "/api/v1\\status",
}

func TestPathTricksReachNothing(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Token = token })
	for _, path := range badPaths {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			if w := f.call(method, path, `{"topic":"orders","partition":3,"dry_run":false}`); w.Code != http.StatusUnauthorized {
				t.Errorf("without token %s %s: %d %s", method, path, w.Code, w.Body)
			}
			w := f.call(method, path, `{"topic":"orders","partition":3,"dry_run":false}`, "Authorization", "Bearer "+token)
			if w.Code != http.StatusNotFound {
				t.Errorf("with token %s %s: %d %s", method, path, w.Code, w.Body)
			}
			if loc := w.Header().Get("Location"); loc != "" {
				t.Errorf("%s redirects to %s", path, loc)
			}
		}
	}
	if got := f.fake.Mutations(); len(got) > 0 {
		t.Errorf("a path trick changed something: %v", got)
	}
}

func TestTokenGuardsAllButHealthAndThePage(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Token = token })
	wrong := []string{"", "Bearer", "Bearer ", "Bearer " + token[:31], "Bearer " + token + "0", "Basic " + token, token, "Bearer\t" + token, "bearer x" + token}
	for _, op := range f.Operations() {
		for _, auth := range wrong {
			w := f.call(op.Method, fill(op.Path), "{}", "Authorization", auth)
			want := http.StatusUnauthorized
			if op.Public {
				want = http.StatusOK
			}
			if w.Code != want {
				t.Errorf("%s %s with %q: %d, want %d", op.Method, op.Path, auth, w.Code, want)
			}
			if !op.Public && w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", op.Path)
			}
		}
		if w := f.call(op.Method, fill(op.Path), "{}", "Authorization", "Bearer "+token); w.Code == http.StatusUnauthorized {
			t.Errorf("%s %s refuses the right token", op.Method, op.Path)
		}
		if op.Public && op.Mutates {
			t.Errorf("%s is public and changes something", op.Path)
		}
	}
	if public := slices.DeleteFunc(f.Operations(), func(o admin.Operation) bool { return !o.Public }); len(public) != 6 {
		t.Errorf("public are %v; only health endpoints and the page, which holds no data, may be", public)
	}
}

func TestUnsafeListenIsRefused(t *testing.T) {
	for listen, safe := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true, "127.9.9.9:1": true, "[::ffff:127.0.0.1]:1": true,
		"0.0.0.0:0": false, ":9645": false, "[::]:9645": false, "10.1.2.3:9645": false, "admin.example:9645": false, "localhost.evil.example:1": false,
	} {
		_, err := admin.New(admin.Options{Listen: listen, Backend: admintest.New()})
		if safe != (err == nil) || !safe && !errors.Is(err, admin.ErrUnsafeListen) {
			t.Errorf("%s: %v", listen, err)
		}
		if _, err := admin.New(admin.Options{Listen: listen, Backend: admintest.New(), Token: token}); err != nil {
			t.Errorf("%s with token: %v", listen, err)
		}
	}
	if _, err := admin.New(admin.Options{Listen: "0.0.0.0:1", Backend: admintest.New(), Token: "short"}); err == nil {
		t.Error("a short token was taken")
	}
	if _, err := admin.New(admin.Options{Listen: "nonsense"}); err == nil || !strings.Contains(err.Error(), "Backend") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("not all faults are named: %v", err)
	}
}

func TestHostHeader(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Hosts = []string{"Ops.Example"} })
	for host, ok := range map[string]bool{
		"127.0.0.1:9645": true, "localhost": true, "LOCALHOST:9645": true, "[::1]:9645": true, "ops.example:9645": true, "10.0.0.1": true,
		"evil.example": false, "evil.example:9645": false, "": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "a b": false,
	} {
		w := f.call("GET", "/api/v1/status", "", "Host", host)
		if ok != (w.Code == http.StatusOK) || !ok && w.Code != http.StatusForbidden {
			t.Errorf("Host %q: %d", host, w.Code)
		}
	}
}

func TestCrossOriginMutationIsRefused(t *testing.T) {
	f := newServer(t, nil)
	body := `{"topic":"orders","partition":3,"dry_run":false}`
	for name, tc := range map[string]struct {
		headers []string
		want    int
	}{
		"a page elsewhere":      {[]string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"an old browser":        {[]string{"Origin", "http://evil.example"}, http.StatusForbidden},
		"a form (no preflight)": {[]string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType},
		"a form, urlencoded":    {[]string{"Content-Type", "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
		"our own page":          {[]string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		"curl":                  {nil, http.StatusOK},
	} {
		if w := f.call("POST", "/api/v1/cache/evict", body, tc.headers...); w.Code != tc.want {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, tc.want, w.Body)
		}
	}
	if got := f.fake.Mutations(); len(got) != 2 {
		t.Errorf("mutations %v, want the last two", got)
	}
}

func TestBadRequests(t *testing.T) {
	f := newServer(t, nil)
	for _, tc := range []struct {
		method, target, body string
		status               int
		kind, detail         string
		suggestion           string
	}{
		{"GET", "/api/v1/statsu", "", 404, "unknown-path", "openapi.json", "/api/v1/status"},
		{"GET", "/api/v1/readers?clas=lagging", "", 400, "unknown-parameter", `"clas"`, "class"},
		{"GET", "/api/v1/status?x=1", "", 400, "unknown-parameter", "known are pretty", ""},
		{"GET", "/livez?x=1", "", 400, "unknown-parameter", "", ""},
		{"GET", "/metrics?match=1", "", 400, "unknown-parameter", "", ""},
		{"GET", "/api/v1/readers?class=laging", "", 400, "invalid-request", "realtime, catching_up", ""},
		{"GET", "/api/v1/readers?sort=x", "", 400, "invalid-request", "lag_bytes", ""},
		{"GET", "/api/v1/readers?limit=0", "", 400, "invalid-request", "limit must be", ""},
		{"GET", "/api/v1/readers?limit=1&limit=2", "", 400, "invalid-request", "twice", ""},
		{"GET", "/api/v1/readers?a=%zz", "", 400, "invalid-request", "query string", ""},
		{"GET", "/api/v1/cache?cells=99999999999", "", 400, "invalid-request", "cells must be", ""},
		{"GET", "/api/v1/cache?partition=1", "", 400, "invalid-request", "needs topic", ""},
		{"GET", "/api/v1/cache?topic=ordrs", "", 404, "unknown-topic", `"ordrs"`, "orders"},
		{"GET", "/api/v1/topics/ordesr", "", 404, "unknown-topic", `"ordesr"`, "orders"},
		{"GET", "/api/v1/topics/a%2f..%2fb", "", 404, "unknown-topic", "", ""},
		{"GET", "/api/v1/topics/orders/partitions/9", "", 404, "unknown-partition", "orders/9", ""},
		{"GET", "/api/v1/topics/orders/partitions/-1", "", 400, "invalid-request", "not a partition number", ""},
		{"GET", "/api/v1/topics/orders/partitions/99999999999/segments", "", 400, "invalid-request", "not a partition number", ""},
		{"GET", "/api/v1/tiers/hhd", "", 404, "unknown-tier", "", "hdd"},
		{"GET", "/api/v1/migrations/m-1", "", 404, "unknown-migration", "", ""},
		{"DELETE", "/api/v1/migrations/m-8", "", 404, "unknown-migration", "", "m-81"},
		{"POST", "/api/v1/migrations", `{"topic":"orders","partition":3,"base_offset":0,"to":"hd"}`, 404, "unknown-tier", "", "hdd"},
		{"POST", "/api/v1/migrations", `{"topic":"orders","base_offset":-1,"to":"hdd"}`, 400, "invalid-request", "base_offset", ""},
		{"POST", "/api/v1/migrations", `{"topic":"orders"}`, 400, "invalid-request", "name a tier", ""},
		{"PUT", "/api/v1/migrations/pause", `{"why":"x"}`, 400, "invalid-request", "cannot be read", ""},
		{"DELETE", "/api/v1/throttle/overrides/group/warehous", "", 404, "unknown-override", "", "warehouse"},
		{"DELETE", "/api/v1/pins/orders/4", "", 404, "unknown-pin", "", "orders/3"},
		{"DELETE", "/api/v1/pins/orders/x", "", 400, "invalid-request", "not a partition number", ""},
		{"DELETE", "/api/v1/throttle/overrides/grp/warehouse", "", 400, "invalid-request", "group, client or topic", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", "", 415, "content-type", "application/json", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", "{", 400, "invalid-request", "cannot be read", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", " ", 400, "invalid-request", "empty", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", "{}{}", 400, "invalid-request", "more than one", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"rate":1}`, 400, "invalid-request", `unknown field "rate"`, ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{}`, 400, "invalid-request", "give bytes_per_second, weight", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"bytes_per_second":-1}`, 400, "invalid-request", "bytes_per_second", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"bytes_per_second":16383,"dry_run":true}`, 400, "invalid-request", "at least 16384", ""},
		{"PUT", "/api/v1/throttle/overrides/topic/x", `{"weight":2,"dry_run":true}`, 400, "invalid-request", "cap the topic", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"bytes_per_second":1e30}`, 400, "invalid-request", "", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"weight":1000}`, 400, "invalid-request", "weight", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"weight":1,"ttl_seconds":1e300}`, 400, "invalid-request", "ttl_seconds", ""},
		{"PUT", "/api/v1/throttle/overrides/group/a%0ab", `{"weight":1}`, 400, "invalid-request", "printable", ""},
		{"PUT", "/api/v1/throttle/overrides/group/" + strings.Repeat("x", 256), `{"weight":1}`, 400, "invalid-request", "255", ""},
		{"PUT", "/api/v1/throttle/overrides/group/x", `{"reason":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "body-too-large", "64 KiB", ""},
		{"POST", "/api/v1/config/reload", `{"path":"/etc/passwd"}`, 400, "invalid-request", `unknown field "path"`, ""},
		{"PUT", "/api/v1/log-level", `{"level":"trace"}`, 400, "invalid-request", "debug, info, warn, error", ""},
		{"PUT", "/api/v1/log-level", `{"level":"DEBUG"}`, 400, "invalid-request", "debug, info, warn, error", ""},
		{"PUT", "/api/v1/log-level", `{"level":"debug","ttl_seconds":-1}`, 400, "invalid-request", "ttl_seconds", ""},
		{"PUT", "/api/v1/log-level", `{"level":"debug","ttl_seconds":1e300}`, 400, "invalid-request", "ttl_seconds", ""},
		{"PUT", "/api/v1/log-level", `{"level":"debug","ttl":"10m"}`, 400, "invalid-request", `unknown field "ttl"`, ""},
		{"POST", "/api/v1/cache/evict", `{"partition":3}`, 400, "invalid-request", "topic", ""},
		{"POST", "/api/v1/cache/evict", `{"topic":"orders"}`, 400, "invalid-request", "partition", ""},
		{"POST", "/api/v1/cache/warm", `{"topic":"orders","partition":3,"from":9,"to":3}`, 400, "invalid-request", "not above", ""},
		{"POST", "/api/v1/cache/warm", `{"topic":"orders","partition":3,"from":9,"last_seconds":3}`, 400, "invalid-request", "without from", ""},
		{"POST", "/api/v1/cache/warm", `{"topic":"ordres","partition":3}`, 404, "unknown-topic", "", "orders"},
		{"POST", "/api/v1/explain/fetch", `{"topic":"orders","partition":-1}`, 400, "invalid-request", "partition", ""},
		{"POST", "/api/v1/explain/fetch", `{"topic":"orders","offset":-1}`, 400, "invalid-request", "offset", ""},
		{"POST", "/api/v1/explain/fetch", `{"topic":"orders","max_bytes":99999999999}`, 400, "invalid-request", "max_bytes", ""},
	} {
		w := f.call(tc.method, tc.target, tc.body)
		name := fmt.Sprintf("%s %.80s %.60s", tc.method, tc.target, tc.body)
		if w.Code != tc.status {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, tc.status)
			continue
		}
		p := problemOf(t, w)
		if p.Type != "urn:lagoon:problem:"+tc.kind || !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("%s: %+v, want %s and %q", name, p, tc.kind, tc.detail)
		}
		if tc.suggestion != "" && !slices.Equal(p.Suggestions, []string{tc.suggestion}) {
			t.Errorf("%s: suggestions %q, want %q", name, p.Suggestions, tc.suggestion)
		}
	}
	if got := f.fake.Mutations(); len(got) > 0 {
		t.Errorf("a refused request changed something: %v", got)
	}
}

func TestMutationsAreDryFirstAndAudited(t *testing.T) {
	f := newServer(t, nil)
	dry := f.call("POST", "/api/v1/cache/evict", `{"topic":"orders","partition":3}`)
	var r admin.CacheActionResult
	if err := json.Unmarshal(dry.Body.Bytes(), &r); err != nil || r.Applied || len(r.WouldChange) == 0 {
		t.Errorf("dry run answered %s, %v", dry.Body, err)
	}
	f.call("POST", "/api/v1/cache/warm", `{"topic":"orders","partition":3,"last_seconds":600,"dry_run":false,"reason":"deploy"}`)
	f.call("PUT", "/api/v1/throttle/overrides/group/a%2Fb", `{"bytes_per_second":20971520,"ttl_seconds":3600,"reason":"night"}`)
	f.call("PUT", "/api/v1/throttle/overrides/topic/x", `{"bytes_per_second":16384,"dry_run":true}`)
	f.call("DELETE", "/api/v1/throttle/overrides/group/warehouse", "")
	f.call("POST", "/api/v1/migrations", `{"topic":"orders","partition":3,"base_offset":40000,"to":"hdd","reason":"room"}`)
	f.call("DELETE", "/api/v1/migrations/m-81", "")
	f.call("PUT", "/api/v1/migrations/pause", `{"reason":"backup"}`)
	f.call("DELETE", "/api/v1/migrations/pause", "")
	f.call("PUT", "/api/v1/log-level", `{"level":"debug","ttl_seconds":600,"reason":"slow fetches"}`)
	f.call("POST", "/api/v1/config/reload", `{"dry_run":true}`)
	f.call("POST", "/api/v1/config/reload", `{"reason":"new caps"}`)
	want := []string{
		`warm orders/3 [-1, -1) last 600s "deploy"`,
		`set group/a/b 20971520 weight 0 expires true "night"`,
		`delete group/warehouse`,
		`move orders/3@40000 to hdd "room"`,
		`cancel m-81`,
		`pause migrations "backup"`,
		`resume migrations`,
		`log level debug for 10m0s "slow fetches"`,
		`reload config`,
	}
	if got := f.fake.Mutations(); !slices.Equal(got, want) {
		t.Errorf("mutations\n%q, want\n%q", got, want)
	}
	if n := strings.Count(f.log.String(), `msg="admin call"`); n != 12 {
		t.Errorf("%d audit lines, want 12:\n%s", n, f.log)
	}
	for _, part := range []string{"applied=false", "applied=true", "name=a/b", "reason=night", "bytes_per_second=20971520", "peer=",
		`dry_run=false reason="new caps" applied=true changed=[throttle.catchup_total] pending_restart=[server.listen]`, `path=/api/v1/log-level`, `level=debug configured=info reason="slow fetches" until=2026-05-04T12:10:00Z`,
		"path=/api/v1/cache/warm", "topic=orders partition=3 from=-1 to=-1 last_seconds=600 reason=deploy"} {
		if !strings.Contains(f.log.String(), part) {
			t.Errorf("audit lacks %s:\n%s", part, f.log)
		}
	}
}

func TestReadersFilterAndSort(t *testing.T) {
	f := newServer(t, nil)
	for query, want := range map[string][]string{
		"":                         {"r-17", "r-2"}, // furthest behind first
		"?sort=lag_bytes":          {"r-2", "r-17"},
		"?sort=-rate":              {"r-2", "r-17"},
		"?class=lagging":           {"r-17"},
		"?class=lagging,realtime":  {"r-17", "r-2"},
		"?class=stopped":           {},
		"?group=warehouse":         {"r-17"},
		"?topic=other":             {},
		"?limit=1":                 {"r-17"},
		"?sort=-cold_bytes&pretty": {"r-17", "r-2"},
	} {
		w := f.call("GET", "/api/v1/readers"+query, "")
		var list admin.ReaderList
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || list.Readers == nil {
			t.Fatalf("%s: %s, %v", query, w.Body, err)
		}
		got := []string{}
		for _, r := range list.Readers {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}

func TestErrorsOfTheBackend(t *testing.T) {
	f := newServer(t, nil)
	for _, tc := range []struct {
		err    error
		status int
	}{
		{admin.ErrStarting, 503}, {admin.ErrLoading, 503}, {fmt.Errorf("x: %w", admin.ErrBusy), 503}, {context.DeadlineExceeded, 504},
		{errors.New("open /secret/path: permission denied"), 500}, {&admin.InvalidError{Detail: "no"}, 400},
	} {
		f.fake.Err = tc.err
		w := f.call("GET", "/api/v1/tiers", "")
		if w.Code != tc.status {
			t.Errorf("%v: %d", tc.err, w.Code)
		}
		problemOf(t, w)
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("internals leaked: %s", w.Body)
		}
		if (tc.status == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%v: Retry-After %q", tc.err, w.Header().Get("Retry-After"))
		}
	}
	if !strings.Contains(f.log.String(), "/secret/path") {
		t.Error("the log does not have the cause")
	}
	f.fake.Err, f.fake.Hook = nil, func(string) { panic("boom") }
	if w := f.call("GET", "/api/v1/tiers", ""); w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("after a panic: %d %s", w.Code, w.Body)
	}
}

func TestHealth(t *testing.T) {
	f := newServer(t, nil)
	body := func(target string) (int, string) {
		w := f.call("GET", target, "")
		return w.Code, w.Body.String()
	}
	if code, text := body("/readyz"); code != 200 || text != "ready\n" {
		t.Errorf("%d %q", code, text)
	}
	want := "[+] log-recovery ok: 12 partitions\n[+] tiers-writable ok\n[!] cachestat warning: mincore is used instead\nready\n"
	if code, text := body("/readyz?verbose"); code != 200 || text != want {
		t.Errorf("%d %q", code, text)
	}
	f.fake.CheckList[0] = admin.Check{Name: "log-recovery", Severity: "error", Text: "under way", Progress: &admin.Progress{Done: 3, Total: 12, Unit: "partitions", ETASeconds: 4}}
	if code, text := body("/-/ready"); code != 503 || !strings.HasPrefix(text, "[-] log-recovery failed: under way (3 of 12 partitions, about 4 s left)\n") {
		t.Errorf("%d %q", code, text)
	}
	if code, text := body("/readyz?exclude=log-recovery"); code != 200 || !strings.Contains(text, "ready") {
		t.Errorf("%d %q", code, text)
	}
	f.fake.Err = admin.ErrStarting
	if code, _ := body("/livez"); code != 200 {
		t.Errorf("livez %d while starting", code)
	}
}

func TestOverloadAnswers503AndHealthStays(t *testing.T) {
	f := newServer(t, nil)
	release := make(chan struct{})
	entered := make(chan struct{}, admin.MaxInFlight)
	f.fake.Hook = func(call string) {
		if call == "Tiers" {
			entered <- struct{}{}
			<-release
		}
	}
	var wg sync.WaitGroup
	for range admin.MaxInFlight {
		wg.Go(func() { f.call("GET", "/api/v1/tiers", "") })
	}
	for range admin.MaxInFlight {
		<-entered
	}
	if w := f.call("GET", "/api/v1/status", ""); w.Code != 503 {
		t.Errorf("overloaded: %d", w.Code)
	}
	if w := f.call("GET", "/readyz", ""); w.Code != 200 {
		t.Errorf("health while overloaded: %d", w.Code)
	}
	close(release)
	wg.Wait()
	if w := f.call("GET", "/api/v1/status", ""); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestOverTheWire(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Listen = "127.0.0.1:0" })
	if err := f.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Serve() }()
	addr := f.Addr().String()

	resp, err := http.Get("http://" + addr + "/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || !json.Valid(body) {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	for name, tc := range map[string]struct{ request, want string }{
		"huge header":         {"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"no host":             {"GET /api/v1/status HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"absolute form":       {"GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 403"},
		"asterisk":            {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200"}, // answered by net/http itself, without us
		"double slash":        {"GET //api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404"},
		"not http":            {"\x00\x00\x00\x10\x00\x12\x00\x03\r\n\r\n", "HTTP/1.1 400"},
		"two content lengths": {"POST /api/v1/cache/evict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 400"},
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, tc.request) }()
		head := make([]byte, 12)
		if _, err := io.ReadFull(c, head); err != nil || string(head) != tc.want {
			t.Errorf("%s: %q %v, want %s", name, head, err, tc.want)
		}
		_ = c.Close()
	}
	second, err := admin.New(admin.Options{Listen: addr, Backend: f.fake})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Listen(); err == nil || !strings.Contains(err.Error(), "taken by another process") {
		t.Errorf("a taken port: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
}

func TestLimitListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := admin.LimitListener(inner, 1)
	defer l.Close()
	conns := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			conns <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first := <-conns
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a connection above the limit was kept")
	}
	_ = first.Close()
	_ = first.Close() // must not free the place twice
	dial()
	<-conns
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("closing twice freed two places")
	}
}

// TestAuditTellsWhatFailed: what was not done is not told as applied, and what it was about is told all the same.
func TestAuditTellsWhatFailed(t *testing.T) {
	f := newServer(t, nil)
	f.fake.Err = errors.New("disk full")
	f.call("PUT", "/api/v1/throttle/overrides/group/x", `{"bytes_per_second":20971520}`)
	f.call("DELETE", "/api/v1/throttle/overrides/group/warehouse", "")
	f.call("POST", "/api/v1/cache/evict", `{"topic":"orders","partition":3,"dry_run":false,"reason":"why"}`)
	var audit []string
	for line := range strings.Lines(f.log.String()) {
		if strings.Contains(line, `msg="admin call"`) {
			audit = append(audit, line)
		}
	}
	if len(audit) != 3 || strings.Contains(strings.Join(audit, ""), "applied=true") || !strings.Contains(audit[2], "topic=orders") || !strings.Contains(audit[2], "reason=why") {
		t.Errorf("audit lines %q", audit)
	}
}

// TestCallerWhoGoesAwayIsNoFault: a Ctrl-C of `lagoon cache warm` is not an error of the broker.
func TestCallerWhoGoesAwayIsNoFault(t *testing.T) {
	f := newServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	f.fake.Hook = func(string) { cancel() }
	f.fake.Err = context.Canceled
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9645/api/v1/tiers", nil)
	f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	if strings.Contains(f.log.String(), "level=ERROR") {
		t.Errorf("log:\n%s", f.log)
	}
	// Something else that was cancelled is one.
	f.fake.Hook = nil
	if w := f.call("GET", "/api/v1/tiers", ""); w.Code != 500 || !strings.Contains(f.log.String(), "level=ERROR") {
		t.Errorf("%d, log:\n%s", w.Code, f.log)
	}
}

// TestSlowCallsDoNotShutOutTheOthers: who warms many partitions at once still sees metrics.
func TestSlowCallsDoNotShutOutTheOthers(t *testing.T) {
	f := newServer(t, nil)
	release, events := make(chan struct{}), make(chan struct{}, 2*admin.MaxInFlight)
	f.fake.Hook = func(call string) {
		if call == "warm" {
			events <- struct{}{}
			<-release
		}
	}
	var wg sync.WaitGroup
	for range admin.MaxInFlight {
		wg.Go(func() {
			if w := f.call("POST", "/api/v1/cache/warm", `{"topic":"orders","partition":3,"dry_run":false}`); w.Code == http.StatusServiceUnavailable {
				events <- struct{}{}
			}
		})
	}
	for range admin.MaxInFlight { // each waits for its device, or was turned away
		<-events
	}
	if w := f.call("GET", "/metrics", ""); w.Code != http.StatusOK {
		t.Errorf("metrics meanwhile: %d %s", w.Code, w.Body)
	}
	close(release)
	wg.Wait()
}

// bare is a backend that has nil where there is nothing.
type bare struct{ *admintest.Fake }

func (bare) Topics(context.Context) ([]admin.Topic, error) {
	return []admin.Topic{{Name: "orders", Partitions: []admin.Partition{{Error: "being created or deleted"}}}, {Name: "none"}}, nil
}
func (bare) Tiers(context.Context) ([]admin.Tier, error) { return []admin.Tier{{Name: "ssd"}}, nil }
func (bare) Cache(context.Context, admin.CacheQuery) (admin.Cache, error) {
	return admin.Cache{Rows: []admin.CacheRow{{Cells: []byte{}, Flags: []byte{}}}}, nil
}
func (bare) Segments(context.Context, string, int32) ([]admin.Segment, error) {
	return []admin.Segment{{State: "active"}}, nil
}

// TestNothingIsAnEmptyList: the contract has lists and objects, and times that are some time.
func TestNothingIsAnEmptyList(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Backend = bare{admintest.New()} })
	for _, path := range []string{"/api/v1/topics", "/api/v1/topics/none", "/api/v1/tiers", "/api/v1/tiers/ssd", "/api/v1/cache", "/api/v1/topics/orders/partitions/0/segments"} {
		body := f.call("GET", path, "").Body.String()
		if strings.Contains(body, "null") {
			t.Errorf("%s: %s", path, body)
		}
		if rest := strings.ReplaceAll(body, `"created_at":"0001-01-01`, ""); strings.Contains(rest, "0001-01-01") {
			t.Errorf("%s tells of the year 1: %s", path, body)
		}
	}
}

// notANumber is a backend with a ratio of nothing to nothing.
type notANumber struct{ *admintest.Fake }

func (notANumber) Tiers(context.Context) ([]admin.Tier, error) {
	return []admin.Tier{{Name: "ssd", SeekSeconds: math.NaN()}}, nil
}

// TestAnswerThatIsNoJSON: it is a fault that is told, not an empty answer.
func TestAnswerThatIsNoJSON(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Backend = notANumber{admintest.New()} })
	w := f.call("GET", "/api/v1/tiers", "")
	if problemOf(t, w); w.Code != http.StatusInternalServerError || !strings.Contains(f.log.String(), "unsupported value: NaN") {
		t.Errorf("%d %q, log:\n%s", w.Code, w.Body, f.log)
	}
}
