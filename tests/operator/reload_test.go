package operator_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/admin"
	"lagoon/tests/internal/lagoontest"
)

// rewrite changes the broker's configuration file.
func rewrite(t *testing.T, b *lagoontest.Broker, pairs ...string) {
	t.Helper()
	name := filepath.Join(b.Dir(), "lagoon.toml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	next := strings.NewReplacer(pairs...).Replace(string(text))
	if next == string(text) {
		t.Fatalf("%q is not in\n%s", pairs, text)
	}
	if err := os.WriteFile(name, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
}

// retentionOf is what Kafka's tools are told of a topic.
func retentionOf(t *testing.T, b *lagoontest.Broker, topic string) string {
	t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{"retention.ms"}
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(t.Context(), lagoontest.Client(t, b))
	if err != nil || len(resp.Resources[0].Configs) != 1 {
		t.Fatalf("%+v, %v", resp, err)
	}
	return *resp.Resources[0].Configs[0].Value
}

// TestReload: what can change at run time is in force, the rest is told to wait for a restart; a file with a fault changes nothing.
func TestReload(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Config: `
[server.limits]
connections = 5000
[storage]
retention = "7d"
[throttle]
catchup_total = "100MiB/s"
[log]
level = "info"
`})
	fill(t, b, "orders", 1)
	if out := run(t, b, 0, "config", "reload"); out != "nothing differs from what is in force\n" {
		t.Errorf("nothing was changed: %s", out)
	}
	rewrite(t, b, `"7d"`, `"2d"`, `"100MiB/s"`, `"50MiB/s"`, "connections = 5000", "connections = 6000", `"info"`, `"debug"`)
	was := decode[admin.Status](t, run(t, b, 0, "status", "-o", "json"))
	dry := run(t, b, 0, "config", "reload", "--dry-run")
	for _, want := range []string{`would change storage.retention = "2d" (now "7d"; lagoon.toml:5)`, `would change throttle.catchup_total = "50MiB/s"`,
		`would change log.level = "debug"`, `needs a restart: server.limits.connections = 6000 (now 5000; lagoon.toml:3)`} {
		if !strings.Contains(dry, want+"\n") && !strings.Contains(dry, want+" (") {
			t.Errorf("%s is not in\n%s", want, dry)
		}
	}
	if got := retentionOf(t, b, "orders"); got != "604800000" {
		t.Errorf("after a dry run retention is %s", got)
	}

	r := decode[admin.ConfigReload](t, run(t, b, 0, "config", "reload", "--reason", "test", "-o", "json"))
	if !r.Applied || len(r.Changed) != 3 || len(r.PendingRestart) != 1 || r.PendingRestart[0].Key != "server.limits.connections" {
		t.Errorf("reload: %+v", r)
	}
	inForce := func(retention, cap, level, pending string) {
		t.Helper()
		st := decode[admin.Status](t, run(t, b, 0, "status", "-o", "json"))
		if got := strings.Join(st.PendingRestart, " "); got != pending {
			t.Errorf("needs a restart: %q, want %q", got, pending)
		}
		if got := retentionOf(t, b, "orders"); got != retention {
			t.Errorf("retention %s, want %s", got, retention)
		}
		if out := run(t, b, 0, "throttle", "ls"); !strings.Contains(out, "all cold reads "+cap+";") {
			t.Errorf("no cap of %s in\n%s", cap, out)
		}
		if out := run(t, b, 0, "log-level"); out != "log level "+level+", as configured\n" {
			t.Errorf("%s", out)
		}
	}
	inForce("172800000", "50MiB/s", "debug", "server.limits.connections")
	if st := decode[admin.Status](t, run(t, b, 0, "status", "-o", "json")); st.ConfigDigest == was.ConfigDigest || st.ConfigDigest != r.Digest || !st.ConfigLoadedAt.After(was.ConfigLoadedAt) {
		t.Errorf("was %s, is %+v", was.ConfigDigest, st)
	}
	values := map[string]admin.ConfigValue{}
	for _, v := range decode[admin.Config](t, b.Get("/api/v1/config", nil)).Values {
		values[v.Key] = v
	}
	if v := values["storage.retention"]; v.Value != `"2d"` || v.Source != "lagoon.toml:5" || v.NeedsRestart {
		t.Errorf("%+v", v)
	}
	if v := values["server.limits.connections"]; v.Value != "5000" || !v.NeedsRestart {
		t.Errorf("%+v", v)
	}
	for _, want := range []string{`msg="configuration changed" key=storage.retention from="\"7d\"" to="\"2d\"" source=lagoon.toml:5`,
		`msg="configuration differs, but needs a restart" key=server.limits.connections`, `msg="admin call" method=POST path=/api/v1/config/reload`} {
		if !strings.Contains(b.Logs(), want) {
			t.Errorf("%s is not in the log:\n%s", want, b.Logs())
		}
	}

	// One fault, and nothing of it is taken.
	rewrite(t, b, `"2d"`, `"1d"`, "connections = 6000", "connections = 0")
	if out := run(t, b, 2, "config", "reload"); !strings.Contains(out, "lagoon.toml:3") || !strings.Contains(out, "server.limits.connections") {
		t.Errorf("a fault: %s", out)
	}
	inForce("172800000", "50MiB/s", "debug", "server.limits.connections")
	if out := run(t, b, 0, "status"); !strings.Contains(out, "not reloaded") || !strings.Contains(out, "needs restart") {
		t.Errorf("status:\n%s", out)
	}
	if out := b.Get("/metrics", nil); !strings.Contains(out, "lagoon_config_last_reload_successful 0\n") || !strings.Contains(out, "lagoon_config_pending_restart 1\n") {
		t.Error("the refused reload is in no metric")
	}

	// A hangup does the same. The file is as it was at the start in what needs a restart: nothing waits any more.
	rewrite(t, b, "connections = 0", "connections = 5000", `"50MiB/s"`, `"unlimited"`, `"debug"`, `"warn"`)
	b.Signal(syscall.SIGHUP)
	eventually(t, time.Minute, "the hangup is heard", func() bool {
		return strings.Contains(b.Get("/metrics", nil), "lagoon_config_last_reload_successful 1\n")
	})
	inForce("86400000", "-", "warn", "")
	b.Restart()
	inForce("86400000", "-", "warn", "")
}
