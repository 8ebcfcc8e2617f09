package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRevertAfterRestart: after a restart of the machine a lab's folder and its images are all that is left, and they can be removed
// although the devices whose settings were changed are gone.
func TestRevertAfterRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab-1-2")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	setting := filepath.Join(t.TempDir(), "setting")
	if err := os.WriteFile(setting, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, u := range []undo{
		{Kind: "write", Path: setting, Value: "old"},
		{Kind: "write", Path: "/sys/block/loop987654/queue/read_ahead_kb", Value: "128"},
		{Kind: "unmount", Path: filepath.Join(dir, "hdd")},
		{Kind: "discard", Path: filepath.Join(dir, "hdd")},
		{Kind: "cgroup", Path: "/sys/fs/cgroup/memory/lagoon-lab-1-2"},
	} {
		if err := note(dir, u); err != nil {
			t.Fatal(err)
		}
	}
	if err := revert(dir); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is still there")
	}
	if text, err := readText(setting); text != "old" || err != nil {
		t.Errorf("a setting that is there is %q, %v", text, err)
	}
}

// TestDiskInMemoryFits: what does not fit is refused and not tried, since trying ends with the kernel killing processes.
func TestDiskInMemoryFits(t *testing.T) {
	for _, c := range []struct {
		disk, broker, available int64
		good                    bool
	}{{1 << 30, 1 << 30, 2 << 30, true}, {1<<30 + 1, 1 << 30, 2 << 30, false}, {1 << 40, 0, 2 << 30, false}} {
		if err := fits(c.disk, c.broker, c.available); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if n, err := availableMemory(); err != nil || n < 1<<20 || n > 1<<50 {
		t.Errorf("%d bytes are available, %v", n, err)
	}
}
