package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"lagoon/internal/bench/report"
)

// TestStuckRoleIsNamed: a role that does not end is waited for, but not for ever, and the error says which it is.
func TestStuckRoleIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &runner{log: io.Discard, running: map[string]int{}}
		stuck := make(chan struct{})
		r.background("tail", func() error { return nil })
		r.background("producer of live", func() error { <-stuck; return nil })
		if err := r.wait(); err == nil || !strings.Contains(err.Error(), "producer of live did not end") || strings.Contains(err.Error(), "tail") {
			t.Errorf("got %v", err)
		}
		close(stuck)
		if err := r.wait(); err != nil {
			t.Errorf("all have ended: %v", err)
		}
	})
}

// TestDrainSaysWhatIsMissing: what does not come within the time is in the notes, and the run goes on.
func TestDrainSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream{topic: "live", schedule: schedule{rate: 10, partitions: 2}, stopped: 10, acked: 7, ended: true, failed: make([]numbers, 2)}
		one := newReading(report.Tail, s, nil, 0, 0, 1)
		for n := range int64(5) {
			one.parts[0].see(n)
		}
		r := &runner{log: io.Discard, live: s, readings: []*reading{one}, result: &report.Isolation{}}
		r.drain(t.Context())
		want := "after 1m0s of waiting: 3 records of live are not acknowledged, tail lacks 5 records"
		if len(r.result.Notes) != 1 || r.result.Notes[0] != want {
			t.Errorf("notes %q, want %q", r.result.Notes, want)
		}
		s.acked = 10
		for n := range int64(5) {
			one.parts[1].see(n)
		}
		r.result.Notes = nil
		if r.drain(t.Context()); len(r.result.Notes) != 0 {
			t.Errorf("all is there: %q", r.result.Notes)
		}
	})
}

// TestColdBytes adds up what the readers of the live topics had from devices, whatever class they are in.
func TestColdBytes(t *testing.T) {
	answer := `{"total":3,"readers":[{"topic":"live","class":"realtime","cold_bytes_total":5},{"topic":"old","class":"lagging","cold_bytes_total":70},
		{"topic":"slow","class":"lagging","cold_bytes_total":8}]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/readers" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer s.Close()
	o := Outside{Admin: s.URL + "/"}
	if n, err := o.coldBytes(t.Context(), "live", "slow"); err != nil || n != 13 {
		t.Errorf("%d bytes, %v; want 13", n, err)
	}
	answer = "<html>"
	if _, err := o.check(t.Context()); err == nil {
		t.Error("a page is taken for the answer of Lagoon's admin API")
	}
}

func TestRepeatIsBounded(t *testing.T) {
	for repeat, good := range map[int]bool{0: false, 1: true, 3: true, maxRepeat + 1: false} {
		o := IsolationOptions{Repeat: repeat, Phases: []string{"base"}}
		err := o.Validate()
		if said := err != nil && strings.Contains(err.Error(), "--repeat"); said == good {
			t.Errorf("--repeat %d: %v", repeat, err)
		}
	}
}

func TestDeadlinesAreExplained(t *testing.T) {
	err := explain(fmt.Errorf("read tcp: %w", os.ErrDeadlineExceeded))
	if !strings.Contains(err.Error(), "did not answer within 2m0s") || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if explain(context.Canceled) != context.Canceled {
		t.Error("another error was changed")
	}
}

func TestMedianRow(t *testing.T) {
	row := func(rate, cpu string) map[string]string {
		return map[string]string{"client": "raw", "partitions": "8", "mb_per_second": rate, "broker_cpu_seconds_per_gb": cpu}
	}
	got := medianRow([]map[string]string{row("1000", "1.20"), row("90", "0.82"), row("500", "3.60")})
	want := map[string]string{"client": "raw", "partitions": "8", "mb_per_second": "500", "mb_per_second_each": "1000 90 500",
		"broker_cpu_seconds_per_gb": "1.20", "broker_cpu_seconds_per_gb_each": "1.20 0.82 3.60"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if one := medianRow([]map[string]string{row("7", "")}); !maps.Equal(one, row("7", "")) {
		t.Errorf("one row: %v", one)
	}
}

// TestMeasureDeviceWhileFilesMove: what a broker moves away meanwhile is passed over, and another file is read.
func TestMeasureDeviceWhileFilesMove(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, make([]byte, directRead+4096), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	moved, stays, never := file("moved"), file("stays"), filepath.Join(dir, "never")
	lists := 0
	list := func() []string {
		if lists++; lists == 1 {
			return []string{never, moved}
		}
		return []string{never, stays}
	}
	d, err := measureDevice(t.Context(), func() []string {
		names := list()
		_ = os.Remove(moved) // after it was listed
		return names
	})
	if err != nil || d.Path != stays || d.Bytes != directRead+4096 || d.MBPerSec <= 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := measureDevice(t.Context(), func() []string { return []string{never} }); err == nil {
		t.Error("nothing was read, and that is no error")
	}
	sizes := map[string]int64{"a": 3, "b": 1, "c": 3}
	if most := largest([]string{"a", "b", "c"}, func(name string) (uint64, int64) { return uint64(name[0] % 2), sizes[name] }); most != 'a'%2 {
		t.Errorf("device %d", most)
	}
}
