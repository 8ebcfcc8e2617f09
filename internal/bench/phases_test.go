package bench

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
	"lagoon/internal/lab"
)

// TestHotWindowIsOfItsPhase: what the next phase's backlog does before that one begins is not this one's.
func TestHotWindowIsOfItsPhase(t *testing.T) {
	dir := onDisk(t)
	name := aFile(t, true, dir, "live-0", "0.log")
	r := &runner{result: &report.Isolation{}, begun: time.Now(), lowest: map[string]float64{}, o: IsolationOptions{LiveRate: mib, LivePartitions: 1,
		SlowPartitions: 1, Behind: time.Second, Outside: Outside{DataDirs: []string{dir}}}}
	look := func() {
		t.Helper()
		if err := r.sampleCache(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	var p report.Phase
	look()
	r.use(&p, counters{at: r.begun}, counters{at: r.begun.Add(time.Second)})
	if p.Use.HotWindow["live"] != 1 {
		t.Fatalf("what was just written is not resident: %v", p.Use.HotWindow)
	}
	if err := lab.Evict(name); err != nil {
		t.Fatal(err)
	}
	if look(); p.Use.HotWindow["live"] != 1 {
		t.Errorf("the hot window of a phase that has ended is %v", p.Use.HotWindow)
	}
}

// TestCountersAreOfOneMoment: bytes that a broker serves while it answers the admin API are not of the moment before.
func TestCountersAreOfOneMoment(t *testing.T) {
	reader := &tally{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reader.bytes.Add(1000)
		_, _ = io.WriteString(w, `{"total":0,"readers":[]}`)
	}))
	defer s.Close()
	r := &runner{o: IsolationOptions{Outside: Outside{Admin: s.URL}}, mixedTally: &tally{}, readers: []*tally{reader}}
	if c := r.count(t.Context()); len(c.served) != 1 || c.served[0] != 0 || c.live == nil {
		t.Errorf("%+v", c)
	}
}

// TestChartLosesNothing: looks that come a little early or late are in the chart, each once.
func TestChartLosesNothing(t *testing.T) {
	reader := &tally{}
	r := &runner{result: &report.Isolation{}, begun: time.Unix(1000, 0), mixedTally: &tally{}, readers: []*tally{reader}}
	last := int64(0)
	for _, at := range []float64{0.501, 1.499, 2.501, 3.499, 4.5} {
		reader.bytes.Add(1e6)
		last = r.sampleBacklog(r.begun.Add(time.Duration(at*float64(time.Second))), last)
	}
	sum := 0.0
	for _, rate := range r.result.Backlog {
		sum += rate
	}
	if sum != 5 {
		t.Errorf("5 MB came, the chart has %v", r.result.Backlog)
	}
}

// TestLoadIsWhatIsDone: the report says how long phases are, which are whole seconds, and how much is produced, which is whole records a second.
func TestLoadIsWhatIsDone(t *testing.T) {
	o := IsolationOptions{Phase: 2400 * time.Millisecond, RecordBytes: 400 << 10, LiveRate: mib, SlowRate: 800 << 10}
	if l := o.load(); l.PhaseSeconds != 3 || l.LiveBytesPerSec != 800<<10 || l.SlowBytesPerSec != 800<<10 {
		t.Errorf("phases of %v s, %d and %d bytes/s", l.PhaseSeconds, l.LiveBytesPerSec, l.SlowBytesPerSec)
	}
}

// TestEvictCommandEnds with the run, also when the shell leaves something behind that still has its output.
func TestEvictCommandEnds(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	if err := unix.Mkfifo(said, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- shell(ctx, "sleep 60 & echo $! >"+said+"; wait") }()
	text, err := os.ReadFile(said) // waits for it
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Error(err)
	} else {
		defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	}
	begun := time.Now()
	cancel()
	if err := <-ended; err == nil || time.Since(begun) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}
