package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/sys/unix"

	"lagoon/cachectl"
	"lagoon/conf"
)

// goodMachine lacks nothing.
func goodMachine() *machine {
	return &machine{release: "6.18.2-amd64", openFiles: 1 << 20, memory: cachectl.Memory{Limit: 16 << 30, Source: "machine"}, lockable: math.MaxInt64, swappiness: 60, maxMaps: 65530, hugePages: "madvise",
		clockSynced: true, now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC),
		disks: []disk{
			{tier: conf.Tier{Name: "ssd", Path: "/srv/ssd", MaxUsed: 0.95}, class: "ssd", total: 100 << 30, free: 40 << 30, method: cachectl.MethodDirect},
			{tier: conf.Tier{Name: "hdd", Path: "/srv/hdd", MaxUsed: 0.95}, class: "hdd", total: 2000 << 30, free: 1000 << 30, method: cachectl.MethodDontCache},
		}}
}

// TestDoctorGolden runs testdata/doctor: "report WORD…" judges a machine that lacks what the words say.
func TestDoctorGolden(t *testing.T) {
	cfg, err := conf.Load(conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	datadriven.Walk(t, "testdata/doctor", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m := goodMachine()
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "old-kernel":
					m.release, m.cachestat = "4.9.0", unix.ENOSYS
				case "few-files":
					m.openFiles = 4096
				case "small-cgroup":
					m.memory = cachectl.Memory{Limit: 512 << 20, Source: "/sys/fs/cgroup/lagoon.slice"}
				case "tight-cgroup":
					m.memory = cachectl.Memory{Limit: 700 << 20, Source: "/sys/fs/cgroup/lagoon.slice"}
				case "may-not-lock":
					m.lockable = 8 << 20
				case "swaps":
					m.swap = 8 << 30
				case "tuned-wrong":
					m.maxMaps, m.hugePages, m.proactive = 1000, "always", true
				case "no-clock":
					m.clockSynced, m.now = false, time.Unix(0, 0)
				case "no-disk":
					m.disks[1].err = os.ErrNotExist
				case "no-right":
					m.disks[1].err = os.ErrPermission
				case "full":
					m.disks[0].free = 5 << 30
				case "tmpfs":
					m.disks[1].method, m.disks[1].why, m.disks[1].shared = cachectl.MethodBuffered, "direct: nothing can be dropped here", "ssd"
				default:
					t.Fatalf("unknown word %s", arg.Key)
				}
			}
			var out strings.Builder
			a := &app{stdout: &out, output: "table"}
			if d.Cmd == "json" {
				a.output = "ndjson"
			}
			if err := a.report(m.findings(cfg)); err != nil {
				out.WriteString("error: " + err.Error() + "\n")
			}
			return out.String()
		})
	})
}

// TestHostFiles reads a made-up /proc and /sys.
func TestHostFiles(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func() machine {
		var m machine
		hostFiles{root}.fill(&m)
		return m
	}
	if m := read(); m.swap != 0 || m.hugePages != "never" || m.proactive || m.swappiness != 60 {
		t.Errorf("nothing there: %+v", m)
	}
	write("/proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\nSwapTotal:      2048 kB\n")
	write("/proc/sys/vm/swappiness", "10\n")
	write("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
	write("/proc/self/status", "Name:\tlagoon\nCapEff:\t0000000000002000\n")
	if m := read(); m.swap != 2048<<10 || m.swappiness != 10 || m.hugePages != "always" || m.proactive {
		t.Errorf("%+v", m)
	}
	if n := (hostFiles{root}).mayLock(8 << 20); n != 8<<20 {
		t.Errorf("without CAP_IPC_LOCK %d bytes may be locked", n)
	}
	write("/proc/self/status", "Name:\tlagoon\nCapEff:\t0000000000004000\n")
	if n := (hostFiles{root}).mayLock(8 << 20); n != math.MaxInt64 {
		t.Errorf("with CAP_IPC_LOCK %d bytes may be locked", n)
	}
	write("/sys/kernel/mm/damon/admin/kdamonds/0/state", "on\n")
	if !read().proactive {
		t.Error("a running kdamond is not seen")
	}
}

// TestDoctorHere runs the real command: a directory that is there passes, one that is not fails with exit code 3.
func TestDoctorHere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lagoon.toml")
	text := func(path string) {
		if err := os.WriteFile(file, []byte("[[storage.tier]]\nname = \"only\"\npath = \""+path+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text(dir)
	out, code := command(t, nil, false, "doctor", "-c", file, "-o", "json")
	var answer struct{ Findings []finding }
	if err := json.Unmarshal([]byte(strings.SplitAfter(out, "\n}\n")[0]), &answer); err != nil {
		t.Fatalf("%d %v\n%s", code, err, out)
	}
	seen := map[string]bool{}
	for _, f := range answer.Findings {
		seen[f.Condition] = f.Passed
		if !f.Passed == (f.Remedy == "") {
			t.Errorf("%+v", f)
		}
	}
	if !seen["tier only"] || !seen["kernel"] || !seen["clock"] {
		t.Errorf("%d\n%s", code, out)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	text(filepath.Join(dir, "none"))
	if out, code := command(t, nil, false, "doctor", "-c", file); code != exitCheck || !strings.Contains(out, "tier only: mount its file system") {
		t.Errorf("%d\n%s", code, out)
	}
	if out, code := command(t, nil, false, "doctor", "-c", file+"x"); code != exitUsage {
		t.Errorf("%d\n%s", code, out)
	}
}
