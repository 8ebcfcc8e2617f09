package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

const (
	unitBinary = "/usr/bin/lagoon"
	unitConfig = "/etc/lagoon/lagoon.toml"
)

// unit is the text of the unit, and its settings by key.
func unit(t *testing.T) (text string, settings map[string][]string) {
	t.Helper()
	body, err := os.ReadFile(deployed("systemd", "lagoon.service"))
	if err != nil {
		t.Fatal(err)
	}
	settings = map[string][]string{}
	for line := range strings.Lines(string(body)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return string(body), settings
}

// one is a setting that must be there once.
func one(t *testing.T, settings map[string][]string, key string) string {
	t.Helper()
	if len(settings[key]) != 1 {
		t.Fatalf("%s: %q, want one", key, settings[key])
	}
	return settings[key][0]
}

// TestUnitIsSound: systemd knows all of it, and it gives the daemon little beside what it needs.
func TestUnitIsSound(t *testing.T) {
	lagoontest.Require(t, "systemd-analyze")
	text, settings := unit(t)
	path := filepath.Join(t.TempDir(), "lagoon.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, unitBinary, lagoontest.Build(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", path).CombinedOutput(); err != nil {
		t.Errorf("exposure of more than 1.5: %v\n%s", err, out)
	}
	// What the design stands on, and a general hardening would take.
	if one(t, settings, "LimitMEMLOCK") != "infinity" || !slices.Contains(settings["SystemCallFilter"], "@system-service cachestat mincore") || settings["ProcSubset"] != nil {
		t.Errorf("mlock, cachestat or /proc: %v", settings)
	}
}

// TestUnitRuns: the command lines of the unit are the binary's, with the environment of the unit; and it stops as the unit says.
func TestUnitRuns(t *testing.T) {
	_, settings := unit(t)
	dir := t.TempDir()
	here := strings.NewReplacer(unitConfig, filepath.Join(dir, "lagoon.toml"), "/run/lagoon", dir)
	args := func(key string) []string {
		binary, rest, _ := strings.Cut(here.Replace(one(t, settings, key)), " ")
		if binary != unitBinary {
			t.Fatalf("%s runs %s", key, binary)
		}
		return strings.Fields(rest)
	}
	b := lagoontest.Start(t, lagoontest.Options{Dir: dir, Args: args("ExecStart"), Env: []string{here.Replace(one(t, settings, "Environment"))}})
	if out, err := b.CLI(args("ExecStartPre")...); err != nil || !strings.Contains(out, ": ok") {
		t.Errorf("ExecStartPre: %v\n%s", err, out)
	}
	if out, err := b.CLI("--admin", "unix:"+filepath.Join(dir, "admin.sock"), "health"); err != nil {
		t.Errorf("no admin API at the socket: %v\n%s", err, out)
	}
	if got := one(t, settings, "Type"); got != "exec" {
		t.Errorf("Type=%s: systemd would wait for a word that the daemon does not say", got)
	}
	if got := one(t, settings, "ExecReload"); got != "/bin/kill -HUP $MAINPID" {
		t.Errorf("ExecReload=%s", got)
	}
	b.Signal(syscall.SIGHUP)
	if !lagoontest.Poll(time.Minute, func() bool { return strings.Contains(b.Logs(), `msg="configuration reloaded"`) }) {
		t.Errorf("a hangup is no reload")
	}
	b.Stop()
	if !strings.Contains(b.Logs(), "msg=stopped") {
		t.Errorf("it did not stop in good order")
	}
}
