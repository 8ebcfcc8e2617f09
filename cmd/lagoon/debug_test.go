package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecentLog: what is kept are the newest lines, whole ones, and not much more than they take.
func TestRecentLog(t *testing.T) {
	r := &recentLog{}
	if got := r.text(); got != "" {
		t.Errorf("at first %q", got)
	}
	const n = 20000
	for i := range n {
		fmt.Fprintf(r, "line %d of a log that has many\n", i)
		if len(r.lines) > 2*mostRecent {
			t.Fatalf("%d bytes are kept", len(r.lines))
		}
	}
	got := r.text()
	if len(got) > mostRecent || len(got) < mostRecent-100 || !strings.HasPrefix(got, "line ") || !strings.HasSuffix(got, fmt.Sprintf("line %d of a log that has many\n", n-1)) {
		t.Errorf("%d bytes, from %.40q to %q", len(got), got, got[max(0, len(got)-40):])
	}
}

func TestMountOf(t *testing.T) {
	const info = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:17 / /srv rw,noatime - xfs /dev/sdb1 rw
31 30 8:17 /x /srv/a\040b rw,noatime - xfs /dev/sdb1 rw
32 22 8:17 / /srv/lagoonish rw - xfs /dev/sdb1 rw
`
	for path, want := range map[string]string{"/srv/lagoon/hdd": "30 ", "/srv/a b/hdd": "31 ", "/srv/a b": "31 ", "/elsewhere": ""} {
		if got := mountOf(info, "8:17", path); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got := mountOf(info, "8:1", "/var/lib"); !strings.HasPrefix(got, "22 ") {
		t.Errorf("on the root: %q", got)
	}
}

// TestSavedBundle: it is checked before it is called good, and overwrites nothing.
func TestSavedBundle(t *testing.T) {
	fake, url := fakeAdmin(t, nil)
	fake.Hook = func(call string) {
		if call == "Pins" {
			panic("boom")
		}
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	out, code := command(t, nil, false, "debug", "bundle", "-o", file, "--admin", url)
	if code != exitOK || !strings.Contains(out, file+": 17 files, ") || !strings.Contains(out, "not told, or not wholly: pins.json\n") {
		t.Errorf("%d %s", code, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, nil, false, "debug", "bundle", "-o", file, "--admin", url); code != exitUsage || !strings.Contains(out, "is there already") {
		t.Errorf("again: %d %s", code, out)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %v", err)
	}
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(before[:len(before)/2]) }))
	defer cut.Close()
	if out, code := command(t, nil, false, "debug", "bundle", "-o", file+"2", "--admin", cut.URL); code != exitFailed || !strings.Contains(out, "is not whole") {
		t.Errorf("half of one: %d %s", code, out)
	}
	if out, code := command(t, nil, false, "debug", "bundle", "-o", "-", "--admin", url); code != exitOK || !strings.HasPrefix(out, "\x1f\x8b") {
		t.Errorf("to a pipe: %d %.40q", code, out)
	}
	if out, code := command(t, nil, false, "debug"); code != exitUsage || !strings.Contains(out, "debug needs one of: bundle") {
		t.Errorf("%d %s", code, out)
	}
}
