package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
)

// command runs the CLI as main would and gives what it printed and its exit code.
func command(t *testing.T, environ []string, color bool, args ...string) (out string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdout: &stdout, stderr: &stderr, environ: environ, color: color}
	code = a.main(context.Background(), args)
	return stdout.String() + stderr.String(), code
}

func fakeAdmin(t *testing.T, change func(*admin.Options)) (*admintest.Fake, string) {
	t.Helper()
	fake := admintest.New()
	opt := admin.Options{Backend: fake, Now: func() time.Time { return admintest.Now }}
	if change != nil {
		change(&opt)
	}
	s, err := admin.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return fake, srv.URL
}

// TestGolden runs testdata/cli: each line of a case is one command against a fake daemon; what it prints, its exit code when it is not
// 0 and what it changed make the golden text. Commands: run, color, starting (the daemon answers 503).
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/cli", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			fake, url := fakeAdmin(t, nil)
			switch d.Cmd {
			case "starting":
				fake.Err = admin.ErrStarting
				fake.CheckList = []admin.Check{{Name: "log-recovery", Severity: "error", Text: "under way",
					Progress: &admin.Progress{Done: 3, Total: 12, Unit: "partitions", ETASeconds: 4}}}
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				text, code := command(t, []string{"LAGOON_ADMIN=" + url}, d.Cmd == "color", fields(strings.TrimSpace(line))...)
				out.WriteString(strings.ReplaceAll(text, url, "http://ADMIN"))
				if code != 0 {
					fmt.Fprintf(&out, "exit %d\n", code)
				}
			}
			for _, m := range fake.Mutations() {
				out.WriteString("changed: " + m + "\n")
			}
			return strings.ReplaceAll(out.String(), "\x1b", "^[")
		})
	})
}

// fields splits a command line at spaces, "…" keeping one together.
func fields(line string) []string {
	var out []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

func TestInternalErrorShowsRequestIDAndNoCause(t *testing.T) {
	fake, url := fakeAdmin(t, nil)
	fake.Err = errors.New("a secret cause")
	out, code := command(t, nil, false, "tiers", "-o", "json", "--admin", url)
	if code != exitFailed || strings.Contains(out, "secret") || strings.Count(out, "\n") != 1 || !regexp.MustCompile(`request id [A-Z0-9]{12}\n$`).MatchString(out) {
		t.Errorf("%d %q", code, out)
	}
}

func TestConnectionRefusedNamesTheRemedy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	out, code := command(t, nil, false, "tiers", "--admin", url)
	want := "lagoon: no daemon answers at " + url + ": start one with `lagoon dev` or `lagoon serve -c FILE`, or point --admin (or $LAGOON_ADMIN) at it\n"
	if code != exitFailed || out != want {
		t.Errorf("%d %q", code, out)
	}
	if out, code := command(t, nil, false, "health", "--admin", url); code != exitCheck || !strings.Contains(out, "no daemon answers") {
		t.Errorf("health: %d %q", code, out)
	}
	if out, code := command(t, nil, false, "health", "--admin", url, "--wait", "300ms"); code != exitCheck || !strings.Contains(out, "no daemon answers") {
		t.Errorf("health --wait: %d %q", code, out)
	}
}

func TestSomethingElseAnswers(t *testing.T) {
	srv := httptest.NewServer(nil) // Go's default mux: 404 page not found
	defer srv.Close()
	if out, code := command(t, nil, false, "tiers", "--admin", srv.URL); code != exitFailed || !strings.Contains(out, "this is not a Lagoon admin API") || strings.Count(out, "\n") != 1 {
		t.Errorf("%d %q", code, out)
	}
}

func TestToken(t *testing.T) {
	const secret = "0123456789abcdef"
	_, url := fakeAdmin(t, func(o *admin.Options) { o.Token = secret })
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, nil, false, "tiers", "--admin", url); code != exitFailed || !strings.Contains(out, "--token-file") {
		t.Errorf("without: %d %q", code, out)
	}
	if out, code := command(t, []string{"LAGOON_TOKEN_FILE=" + file}, false, "tiers", "--admin", url); code != exitOK {
		t.Errorf("with: %d %q", code, out)
	}
	if out, code := command(t, nil, false, "health", "--admin", url); code != exitOK {
		t.Errorf("health needs no token: %d %q", code, out)
	}
	// As an editor of Windows writes it, with a remark below.
	if err := os.WriteFile(file, []byte(secret+"\r\nfor the operators\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, nil, false, "tiers", "--admin", url, "--token-file", file); code != exitOK {
		t.Errorf("with CRLF: %d %q", code, out)
	}
	if out, code := command(t, nil, false, "tiers", "--admin", url, "--token-file", file+"x"); code != exitFailed || !strings.Contains(out, "no such file") {
		t.Errorf("missing file: %d %q", code, out)
	}
	// It says nothing of the daemon: a check that could not be made is not one that says no.
	for _, wait := range [][]string{nil, {"--wait", "1m"}} {
		out, code := command(t, nil, false, append([]string{"health", "--admin", url, "--token-file", file + "x"}, wait...)...)
		if code != exitFailed || !strings.Contains(out, "no such file") {
			t.Errorf("health %v with a missing file: %d %q", wait, code, out)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.toml", "[server]\nrack = \"a\"\n")
	bad := write("bad.toml", "[server]\nrak = \"a\"\n[storage]\nretention = 7\n")
	out, code := command(t, nil, false, "check-config", good)
	if code != exitOK || out != good+": ok\n" {
		t.Errorf("%d %q", code, out)
	}
	out, code = command(t, nil, false, "check-config", bad)
	want := `error: bad.toml:2:1: server.rak: unknown key; did you mean server.rack? [LC002]
error: bad.toml:4:13: storage.retention: must be a time with its unit in quotes, as in "10s", not the number 7 [LC003]
lagoon: 2 fault(s) in ` + bad + "\n"
	if code != exitUsage || out != want {
		t.Errorf("%d %s", code, out)
	}
	topics := write("topics.toml", "[topic_defaults]\ncleanup.polcy = \"compact\"\nlagoon.tier.policy = \"nvme:1h\"\nlocal.retention.ms = \"soon\"\n")
	out, code = command(t, nil, false, "check-config", topics)
	for _, want := range []string{"topics.toml:2: topic_defaults.cleanup.polcy: Unknown topic config name: cleanup.polcy (did you mean cleanup.policy?) [LC032]\n",
		"topics.toml:3: topic_defaults.lagoon.tier.policy: ", "topics.toml:4: topic_defaults.local.retention.ms: Invalid value soon", "3 fault(s)"} {
		if code != exitUsage || !strings.Contains(out, want) {
			t.Errorf("%d %q in\n%s", code, want, out)
		}
	}
	out, code = command(t, nil, false, "check-config", bad, "-o", "ndjson")
	if code != exitUsage || strings.Count(out, `"code":"LC00`) != 2 {
		t.Errorf("%d %s", code, out)
	}
	out, code = command(t, []string{"LAGOON_SERVER__RACK=b"}, false, "check-config", good, "--effective", "--set", "log.level=debug")
	if code != exitOK || !strings.Contains(out, `# env LAGOON_SERVER__RACK`) || !strings.Contains(out, `# --set log.level=debug`) {
		t.Errorf("%d %s", code, out)
	}
	// Programs are told no less than people.
	out, code = command(t, []string{"LAGOON_SERVER__RACK=b"}, false, "check-config", good, "--effective", "-o", "json")
	var report checkReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || len(report.Values) < 50 ||
		!slices.Contains(report.Values, admin.ConfigValue{Key: "server.rack", Value: `"b"`, Default: `""`, Source: "env LAGOON_SERVER__RACK", NeedsRestart: true}) {
		t.Errorf("%d %v %s", code, err, out)
	}
	out, code = command(t, nil, false, "check-config", good, "--effective", "-o", "ndjson")
	if code != exitOK || strings.Count(out, "\n") != len(report.Values) {
		t.Errorf("%d, %d lines for %d values", code, strings.Count(out, "\n"), len(report.Values))
	}
	out, code = command(t, nil, false, "check-config", good, "-o", "json")
	if code != exitOK || strings.Contains(out, "values") {
		t.Errorf("%d %s", code, out)
	}
	out, code = command(t, nil, false, "check-config", "--defaults")
	if code != exitOK || !strings.Contains(out, "[[storage.tier]]") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := command(t, nil, false, "serve", "-c", bad); code != exitUsage || !strings.Contains(out, "2 faults in "+bad) {
		t.Errorf("serve: %d %s", code, out)
	}
	if out, code := command(t, nil, false, "serve", "-c", filepath.Join(dir, "none")); code != exitUsage || strings.Count(out, "\n") != 1 {
		t.Errorf("serve without file: %d %s", code, out)
	}
	if out, code := command(t, nil, false, "serve"); code != exitUsage || !strings.Contains(out, "-c FILE") {
		t.Errorf("serve: %d %s", code, out)
	}
}

func TestHumanNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", -1: "-", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 10 << 20: "10MiB", 1<<40 + 1<<39: "1.5TiB", 1 << 62: "4096PiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{-1: "-", 0: "0s", 0.08: "80ms", 12.4: "12s", 752: "12m32s", 3600: "1h", 11130: "3h6m", 93600: "1d2h", 86400 * 9: "9d"} {
		if got := span(s); got != want {
			t.Errorf("span(%g) = %s, want %s", s, got, want)
		}
	}
	if got := bar([]byte{0, 1, 64, 128, 254, 255}); got != "[ ▁▂▄▇█]" {
		t.Errorf("bar %s", got)
	}
	if got := clean("a\x1b[31mb\u009bc\n"); got != "a?[31mb?c?" {
		t.Errorf("clean %q", got)
	}
}

// TestSuggestedNamesDoNotSteerTheTerminal: a group's name is what a client says it is, and may be suggested.
func TestSuggestedNamesDoNotSteerTheTerminal(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"detail":"no group \"ware\"","suggestions":["ware\u001b]0;owned\u0007"]}`)
	}))
	defer srv.Close()
	out, code := command(t, nil, false, "groups", "ware", "--admin", srv.URL)
	if code != exitFailed || strings.ContainsAny(out, "\x1b\x07") || !strings.Contains(out, "did you mean ware?]0;owned??") {
		t.Errorf("%d %q", code, out)
	}
}

// TestUsedIsWhatMovesAtIsAShareOf: watermarks are shares of what Lagoon may have, not of a disk that others fill.
func TestUsedIsWhatMovesAtIsAShareOf(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		tier admin.Tier
		want string
	}{
		{admin.Tier{CapacityBytes: 100 * gib, FreeBytes: 30 * gib, UsedBytes: 10 * gib, MaxUsedBytes: 95 * gib}, "25%"}, // others have 60 GiB
		{admin.Tier{CapacityBytes: 100 * gib, FreeBytes: 55 * gib, UsedBytes: 45 * gib, MaxUsedBytes: 50 * gib}, "90%"},
		{admin.Tier{CapacityBytes: 100 * gib, FreeBytes: 60 * gib, UsedBytes: 40 * gib}, "40%"},
	} {
		body, err := json.Marshal(admin.TierList{Tiers: []admin.Tier{tc.tier}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := (&app{stdout: &out}).printTiers(body, false); err != nil || !strings.Contains(out.String(), "  "+tc.want+"  ") {
			t.Errorf("%v, want %s in\n%s", err, tc.want, &out)
		}
	}
}

// TestListsForProgramsAreWhole: what people would not read is not cut off for programs, and not without a word.
func TestListsForProgramsAreWhole(t *testing.T) {
	for list, line := range map[string]string{"readers": `{"id":"r-1"}`, "groups": `{"group":"g"}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := 1000
			if r.FormValue("limit") == "10000" {
				n = 10000
			}
			fmt.Fprintf(w, `{"total":10007,%q:[%s]}`, list, strings.TrimSuffix(strings.Repeat(line+",", n), ","))
		}))
		out, code := command(t, nil, false, list, "-o", "ndjson", "--admin", srv.URL)
		if n := strings.Count(out, line+"\n"); code != exitOK || n != 10000 || !strings.HasSuffix(out, "lagoon: 7 more are left out\n") {
			t.Errorf("%s: exit %d, %d lines, at the end %q", list, code, n, out[max(0, len(out)-80):])
		}
		srv.Close()
	}
}
