package operator_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// demoSummary is what the test looks at of `lagoon dev --demo -o json`.
type demoSummary struct {
	Complete      bool     `json:"complete"`
	HistoryBytes  int64    `json:"history_bytes"`
	BackfillBytes int64    `json:"backfill_bytes"`
	BackfillRate  float64  `json:"backfill_bytes_per_second"`
	Lanes         []string `json:"backfill_lanes"`
	ColdBytes     int64    `json:"cold_bytes"`
	LeftBytes     int64    `json:"left_bytes"`
	TailCold      int64    `json:"tail_cold_bytes"`
	Before        struct {
		Records int64   `json:"records"`
		AckP99  float64 `json:"ack_p99_seconds"`
		TailP50 float64 `json:"tail_p50_seconds"`
		TailP99 float64 `json:"tail_p99_seconds"`
	} `json:"before"`
	During struct {
		Records int64   `json:"records"`
		TailP99 float64 `json:"tail_p99_seconds"`
	} `json:"during"`
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestDemo: the story that the demo tells is true: the backfill is read from the device and leaves nothing in the page cache, the tail
// is served from it. How fast all that is depends on the machine and is only logged. That the tail reads no byte from a device is
// shown by tests/isolation, in a memory group of its own: here other packages have both cores and the kernel's proactive reclaim may be
// faster than a pin (decision 9; 2 % seen). Without the page cache it is all of it.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(lagoontest.Build(t), "dev", "--demo", "--demo-seconds", "10", "--demo-bytes", "128MiB", "-o", "json")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, stderr := &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	s := decode[demoSummary](t, stdout.String())
	t.Logf("%+v", s)
	switch {
	case !s.Complete || s.HistoryBytes < 64<<20 || s.Before.Records < 100 || s.During.Records < 400:
		t.Errorf("not the whole story: %s", stdout)
	case s.BackfillBytes < 4<<20 || s.ColdBytes < s.BackfillBytes/2:
		t.Errorf("the backfill got %d bytes of %d, %d from the device", s.BackfillBytes, s.HistoryBytes, s.ColdBytes)
	case !strings.HasPrefix(strings.Join(s.Lanes, ","), "bypass by "):
		t.Errorf("the backfill was served by %v", s.Lanes)
	case s.LeftBytes > s.HistoryBytes/20:
		t.Errorf("the backfill left %d of %d bytes in the page cache", s.LeftBytes, s.HistoryBytes)
	case s.TailCold > (s.Before.Records+s.During.Records)*1024/20:
		t.Errorf("the tail read %d bytes of %d records from a device", s.TailCold, s.Before.Records+s.During.Records)
	case s.Before.TailP50 <= 0 || s.Before.TailP99 < s.Before.TailP50 || s.During.TailP99 <= 0 || s.Before.AckP99 <= 0:
		t.Errorf("latencies: %s", stdout)
	}
	nothingLeft(t, dir)
}

var shown = regexp.MustCompile(`backfill   [0-9]+ MB/s, .* so far; lagging, lane bypass by `)

// TestDemoInATerminal: the table is redrawn in place, Ctrl-C ends it in the middle, and nothing stays.
func TestDemoInATerminal(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(lagoontest.Build(t), "dev", "--demo", "--demo-seconds", "60", "--demo-bytes", "64MiB")
	cmd.Dir = dir
	p := newTerminal(t, 80, 30, cmd)
	eventually(t, 2*time.Minute, "the backfill is shown", func() bool { return shown.MatchString(p.text()) })
	defer func() {
		if text := p.text(); t.Failed() {
			t.Logf("%q", text[max(0, len(text)-3000):])
		}
	}()
	text := p.text()
	for _, want := range []string{"tail: latency p99", "history/0  [", "export LAGOON_ADMIN=http://127.0.0.1:", "\x1b["} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	p.press("\x03")
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("after Ctrl-C: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Ctrl-C did not end it")
	}
	eventually(t, time.Minute, "a summary", func() bool {
		return strings.Contains(p.text(), "REAL-TIME PATH") && strings.Contains(p.text(), "stopped after")
	})
	nothingLeft(t, dir)
}
