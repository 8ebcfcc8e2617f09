package conf_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"lagoon/conf"
)

// TestScenarios runs testdata/*: each case is a file, its environment and flags, and what Load makes of it.
//
//	load [env=(A=b,…)] [set=(a.b=c,…)]   problems, warnings, or ok
//	effective …                          the printed configuration
//	changed …                            only what differs from the defaults
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			opt := conf.LoadOptions{}
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "env":
					opt.Env = arg.Vals
				case "set":
					opt.Set = arg.Vals
				case "preset":
					opt.Preset, opt.PresetName = arg.Vals, "lagoon dev"
				default:
					t.Fatalf("unknown argument %s", arg.Key)
				}
			}
			c, err := conf.Parse("lagoon.toml", d.Input, opt)
			if err != nil {
				var ps conf.Problems
				if !errors.As(err, &ps) {
					t.Fatalf("error %T is not Problems", err)
				}
				return err.Error() + "\n"
			}
			var out strings.Builder
			for _, w := range c.Warnings {
				out.WriteString("warning: " + w.String() + "\n")
			}
			switch d.Cmd {
			case "load":
				out.WriteString("ok\n")
			case "effective":
				out.WriteString(c.Effective())
			case "changed":
				for _, v := range c.Values() {
					if v.Source != "default" {
						out.WriteString(v.Key + " = " + v.Value + " (" + v.Source + ", default " + v.Default + ")\n")
					}
				}
			}
			return out.String()
		})
	})
}

func TestEffectiveLoadsToTheSame(t *testing.T) {
	text := `
[server]
listen = ["0.0.0.0:9092", "[::1]:9093"]
advertised = "broker.example:9092"
rack = "a \"quoted\" \\ rack\twith\u0001control"
[storage]
retention = "1h30m"
retention_bytes = "1500MB"
[topic_defaults]
cleanup.policy = "compact"
"message.timestamp.type" = "LogAppendTime"
[[storage.tier]]
name = "only"
path = "/srv/a b"
max_used = "33.3%"
high_watermark = "12.5%"
low_watermark = "0.1%"
[throttle]
mode = "fixed"
tier.only = "3MB/s"
`
	a, err := conf.Parse("a.toml", text, conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := conf.Parse("b.toml", a.Effective(), conf.LoadOptions{})
	if err != nil {
		t.Fatalf("effective text does not load: %v\n%s", err, a.Effective())
	}
	if a.Digest() != b.Digest() {
		t.Errorf("digest changed from %s to %s", a.Digest(), b.Digest())
	}
	opt := cmp.Comparer(func(x, y conf.Config) bool { return x.Digest() == y.Digest() })
	if diff := cmp.Diff(a.Storage, b.Storage, opt); diff != "" {
		t.Error(diff)
	}
	if got := b.Storage.Tiers[0].MaxUsed.String(); got != "33.3%" {
		t.Errorf("max_used %s", got)
	}
}

func TestDefaultFileIsTheDefault(t *testing.T) {
	bare, err := conf.Load(conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := conf.Parse("default.toml", conf.DefaultText(), conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if bare.Digest() != file.Digest() {
		t.Error("loading the shipped file changes a value")
	}
	// Every key must stand in the file: a key that it leaves out would have the zero value as its default.
	for _, v := range file.Values() {
		if v.Source == "default" {
			t.Errorf("%s is not in default.toml", v.Key)
		}
	}
	if len(bare.Warnings) > 0 {
		t.Errorf("warnings about the defaults: %v", bare.Warnings)
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", 200<<10)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.toml"): "no such file",
		dir:                             "not a regular file",
		big:                             "larger than 256KiB",
	} {
		_, err := conf.Load(conf.LoadOptions{Path: path})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// A pipe is read, as of a shell's <(…), and holds up nobody: neither one without a writer nor one whose writer comes to no end.
func TestPipes(t *testing.T) {
	if _, err := conf.Load(conf.LoadOptions{Path: "/dev/zero"}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/zero: %v", err)
	}
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := conf.Load(conf.LoadOptions{Path: path}); err == nil || !strings.Contains(err.Error(), "nobody wrote to") {
		t.Errorf("without a writer: %v", err)
	}
	for _, tc := range []struct{ text, want string }{
		{"[server]\nrack = \"a\"\n", ""},
		{strings.Repeat("#\n", 200<<10), "larger than 256KiB"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = w.WriteString(tc.text) // nobody reads all of what is too large
			_ = w.Close()
		}()
		c, err := conf.Load(conf.LoadOptions{Path: fmt.Sprintf("/proc/self/fd/%d", r.Fd())})
		if tc.want == "" && (err != nil || c.Server.Rack != "a") || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("pipe with %d bytes: %v", len(tc.text), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		<-written
	}
	conf.ShortenPipeTime(50 * time.Millisecond)
	defer conf.ShortenPipeTime(time.Minute)
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("[server]\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conf.Load(conf.LoadOptions{Path: path}); err == nil || !strings.Contains(err.Error(), "did not come to an end") {
		t.Errorf("with a writer that stays: %v", err)
	}
}

func TestLoadNamesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(path, []byte("[server]\nnode_id = -4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := conf.Load(conf.LoadOptions{Path: path})
	if want := "x.toml:2:1: server.node_id: -4 is outside 0 to 2147483647 [LC005]"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(conf.DefaultText())
	f.Add("[[storage.tier]]\nname='a'\npath='/a'\n[storage]\nx={y=[1,{z=\"\"\"a\"b\"\"\"}]}")
	f.Add("storage.tier = [{name=\"a\", path=\"/b\"}]\nlog.segment.bytes = 5")
	f.Add("a.\"b.c\".'d' = 1979-05-27T07:32:00Z # x")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := conf.Parse("f.toml", text, conf.LoadOptions{})
		if err != nil {
			var ps conf.Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("untyped or empty error %v", err)
			}
			return
		}
		again, err := conf.Parse("g.toml", c.Effective(), conf.LoadOptions{})
		if err != nil {
			t.Fatalf("effective text does not load: %v\n%s", err, c.Effective())
		}
		if again.Digest() != c.Digest() {
			t.Fatalf("digest changed\n%s", c.Effective())
		}
	})
}

func TestTopicDefaults(t *testing.T) {
	c, err := conf.Parse("x.toml", "[storage]\nretention = \"unlimited\"\nsegment_bytes = \"64MiB\"\nflush = \"interval\"\nflush_interval = \"200ms\"", conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"segment.bytes": "67108864", "segment.ms": "604800000", "retention.ms": "-1", "retention.bytes": "-1", "index.interval.bytes": "4096",
		"max.message.bytes": "1048588", "file.delete.delay.ms": "60000", "lagoon.flush": "interval", "lagoon.flush.interval.ms": "200",
	}
	if diff := cmp.Diff(want, c.TopicDefaults()); diff != "" {
		t.Error(diff)
	}
}

// TestDefaultsOfTiers: what a tier leaves out has its default, which is not that of the tier in its place in default.toml.
func TestDefaultsOfTiers(t *testing.T) {
	c, err := conf.Parse("x.toml", "[[storage.tier]]\nname = \"only\"\npath = \"/data\"\n", conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range c.Values() {
		if v.Source == "default" && v.Value != v.Default {
			t.Errorf("%s is %s by default, and its default is %s", v.Key, v.Value, v.Default)
		}
	}
}
