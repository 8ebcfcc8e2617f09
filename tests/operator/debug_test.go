package operator_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lagoon/internal/admin"
	"lagoon/tests/internal/lagoontest"
)

// TestLogLevelAtRunTime: the daemon logs more while an operator wants it, tells so, and goes back by itself.
func TestLogLevelAtRunTime(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"log.level=warn"}})
	if out := run(t, b, 0, "log-level"); out != "log level warn, as configured\n" {
		t.Errorf("at first: %s", out)
	}
	fill(t, b, "before", 1)
	if strings.Contains(b.Logs(), "level=INFO") {
		t.Fatalf("more than configured:\n%s", b.Logs())
	}
	l := decode[admin.LogLevel](t, run(t, b, 0, "log-level", "debug", "--ttl", "1h", "--reason", "test", "-o", "json"))
	if left := time.Until(l.Until); l.Level != "debug" || l.Configured != "warn" || left < 50*time.Minute || left > time.Hour {
		t.Errorf("for an hour: %+v", l)
	}
	run(t, b, 0, "migrations", "pause", "--reason", "seen by the audit")
	for _, want := range []string{`msg="log level changed" from=warn to=debug reason=test`, `msg="admin call" method=PUT path=/api/v1/log-level`, `reason="seen by the audit"`} {
		if !strings.Contains(b.Logs(), want) {
			t.Errorf("%s is not in\n%s", want, b.Logs())
		}
	}
	run(t, b, 0, "log-level", "info", "--ttl", "1s")
	eventually(t, time.Minute, "back to the configured level", func() bool {
		return run(t, b, 0, "log-level") == "log level warn, as configured\n"
	})
	if !strings.Contains(b.Logs(), `msg="log level changed" from=info to=warn why="its time is over"`) {
		t.Errorf("the end is not in\n%s", b.Logs())
	}
	run(t, b, 2, "log-level", "loud")
	run(t, b, 0, "log-level", "error")
	b.Restart()
	if out := run(t, b, 0, "log-level"); out != "log level warn, as configured\n" {
		t.Errorf("after a restart: %s", out)
	}
}

// TestDebugBundle: all that a running broker tells is in one file, without its secrets; profiles need the token as all else does.
func TestDebugBundle(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Readiness needs no token.
	b := lagoontest.Start(t, lagoontest.Options{Dir: dir, Set: []string{"admin.token_file=" + token}})
	fill(t, b, "orders", 10)
	run(t, b, 1, "debug", "bundle", "-o", filepath.Join(dir, "refused.tar.gz"))
	file := filepath.Join(dir, "bundle.tar.gz")
	if out := run(t, b, 0, "debug", "bundle", "-o", file, "--token-file", token); strings.Contains(out, "not told") || !strings.HasPrefix(out, file+": ") {
		t.Errorf("%s", out)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(zip); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[path.Base(path.Dir(h.Name))+"/"+path.Base(h.Name)] = string(body)
		if strings.Contains(string(body), secret) {
			t.Errorf("%s holds the token", h.Name)
		}
	}
	for name, want := range map[string]string{"log.txt": "msg=ready", "goroutines.txt": "(*Server).bundle", "metrics.txt": "lagoon_build_info", "topics.json": `"orders"`,
		"cache.json": `"orders"`, "config.json": `"admin.token_file"`, "kernel/facts.json": `"may_lock_bytes"`, "kernel/meminfo": "MemTotal", "kernel/dir-ssd.json": b.TierPath("ssd")} {
		found := false
		for at, body := range files {
			found = found || (at == name || strings.HasPrefix(path.Dir(at), "lagoon-debug-") && path.Base(at) == name) && strings.Contains(body, want)
		}
		if !found {
			t.Errorf("no %s with %q", name, want)
		}
	}
	profile := func(what, auth string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.Admin()+"/debug/pprof/"+what, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", auth)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, _ := profile("heap", ""); code != http.StatusUnauthorized {
		t.Errorf("a profile without the token: %d", code)
	}
	for _, what := range []string{"heap", "profile?seconds=1"} {
		if code, body := profile(what, "Bearer "+secret); code != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") {
			t.Errorf("%s: %d %.60q", what, code, body)
		}
	}
}
