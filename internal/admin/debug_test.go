package admin_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
)

func TestProfiles(t *testing.T) {
	f := newServer(t, nil)
	for target, begins := range map[string]string{
		"heap": "\x1f\x8b", "allocs": "\x1f\x8b", "goroutine": "\x1f\x8b", "mutex": "\x1f\x8b", "block": "\x1f\x8b", "threadcreate": "\x1f\x8b",
		"goroutine?debug=1": "goroutine profile: total ", "goroutine?debug=2": "goroutine ", "profile?seconds=1": "\x1f\x8b", "trace": "go 1.",
	} {
		w := f.call("GET", "/debug/pprof/"+target, "")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), begins) {
			t.Errorf("%s: %d %.60q", target, w.Code, w.Body)
		}
		if kind := w.Header().Get("Content-Type"); strings.Contains(target, "debug") != (kind == "text/plain; charset=utf-8") {
			t.Errorf("%s: %s", target, kind)
		}
	}
	for target, want := range map[string]string{
		"haep": "unknown-profile", "heap?seconds=5": "is for profile and trace", "profile?seconds=61": "1 to 60", "profile?seconds=0": "1 to 60",
		"trace?seconds=11": "1 to 10", "trace?debug=1": "debug is not for", "heap?debug=3": "0 to 2", "heap?sec=1": "unknown-parameter", "cmdline": "unknown-profile",
	} {
		w := f.call("GET", "/debug/pprof/"+target, "")
		if p := problemOf(t, w); !strings.Contains(p.Type+p.Detail, want) {
			t.Errorf("%s: %+v, want %q", target, p, want)
		}
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	w := f.call("GET", "/debug/pprof/profile?seconds=1", "")
	pprof.StopCPUProfile()
	if problemOf(t, w); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("while another one is taken: %d", w.Code)
	}
	if n := strings.Count(f.log.String(), `msg="admin call" method=GET path=/debug/pprof/heap`); n == 0 {
		t.Errorf("who took a profile is not in the log:\n%s", f.log)
	}
}

// bundle asks for a debug bundle and gives its files.
func (f *fixture) bundle(t *testing.T) (int, map[string]string) {
	t.Helper()
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9645/api/v1/debug/bundle", nil).WithContext(t.Context()))
	if w.Code != http.StatusOK {
		return w.Code, nil
	}
	zip, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(zip); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return w.Code, files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(h.Name, "lagoon-debug-20260504T120000Z/")
		if !ok || h.Mode != 0o600 || files[name] != "" || h.ModTime.After(admintest.Now) {
			t.Errorf("file %s, mode %o, of %v", h.Name, h.Mode, h.ModTime)
		}
		files[name] = string(body)
	}
}

func TestBundle(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Now = func() time.Time { return admintest.Now.Add(700 * time.Millisecond) } })
	code, files := f.bundle(t)
	if code != http.StatusOK {
		t.Fatal(code)
	}
	for name, want := range map[string]string{
		"goroutines.txt": "admin_test.TestBundle", "heap.pprof": "\x1f\x8b", "log.txt": "level=INFO", "config.json": `"storage.segment_bytes"`, "log-level.json": `"debug"`, "status.json": `"checks"`,
		"throttle.json": `"warehouse"`, "readers.json": `"wh-loader"`, "groups.json": `"warehouse"`, "tiers.json": `"/srv/lagoon/hdd"`,
		"migrations.json": `"m-81"`, "pins.json": `"prices"`, "compactions.json": `"profiles"`, "topics.json": `"orders"`, "cache.json": `"cells"`,
		"metrics.txt": "lagoon_build_info", "metrics-detailed.txt": "lagoon_reader_lag",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s lacks %q: %.200q", name, want, files[name])
		}
		if strings.HasSuffix(name, ".json") && !json.Valid([]byte(files[name])) {
			t.Errorf("%s is not JSON: %.200s", name, files[name])
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("unexpected files: %v", files)
	}
	if !strings.Contains(f.log.String(), `msg="admin call" method=GET path=/api/v1/debug/bundle`) {
		t.Errorf("who took it is not in the log:\n%s", f.log)
	}
}

// noPins is a backend without a pin.
type noPins struct{ *admintest.Fake }

func (noPins) Pins(context.Context) ([]admin.Pin, error) { return nil, nil }

// TestBundleOfNothing: no list is null.
func TestBundleOfNothing(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Backend = noPins{admintest.New()} })
	if _, files := f.bundle(t); files["pins.json"] != "[]\n" {
		t.Errorf("no pins: %q", files["pins.json"])
	}
}

// TestBundleDespiteWhatHangs: one part hangs, for itself and in the metrics, one fails and one panics while the API has no place left. The
// others are there in time, and no second goroutine waits for what hangs already.
func TestBundleDespiteWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer(t, nil)
		release := make(chan struct{})
		var hung atomic.Int64
		f.fake.Hook = func(call string) {
			switch call {
			case "Tiers":
				hung.Add(1)
				<-release
			case "Pins":
				panic("boom")
			}
		}
		for range admin.MaxInFlight {
			go f.call("GET", "/api/v1/tiers", "")
		}
		synctest.Wait()
		if w := f.call("GET", "/api/v1/status", ""); w.Code != http.StatusServiceUnavailable {
			t.Errorf("the API has places left: %d", w.Code)
		}
		began := time.Now()
		code, files := f.bundle(t)
		if took := time.Since(began); code != http.StatusOK || took > time.Minute {
			t.Fatalf("%d after %v", code, took)
		}
		for name, want := range map[string]string{"tiers.json.error": "no answer within 5s", "pins.json.error": "panic: boom", "readers.json": "wh-loader",
			"metrics-detailed.txt": "lagoon_reader_lag", "topics.json": "orders", "goroutines.txt": "TestBundleDespiteWhatHangs"} {
			if !strings.Contains(files[name], want) {
				t.Errorf("%s lacks %q: %.200q", name, want, files[name])
			}
		}
		if _, there := files["tiers.json"]; there || files["metrics.txt.error"] == "" {
			t.Errorf("what hangs: %v, metrics %q", there, files["metrics.txt.error"])
		}
		before := hung.Load()
		if _, files = f.bundle(t); !strings.Contains(files["tiers.json.error"], "an earlier bundle still waits") {
			t.Errorf("the second bundle: %q", files["tiers.json.error"])
		}
		if hung.Load() != before {
			t.Errorf("%d more wait for what hangs", hung.Load()-before)
		}
		close(release)
		synctest.Wait()
		if _, files = f.bundle(t); !strings.Contains(files["tiers.json"], "/srv/lagoon/hdd") || files["metrics.txt.error"] != "" {
			t.Errorf("afterwards: %v", files["tiers.json.error"])
		}
	})
}

// TestOneBundleAtATime: the second caller is told to come back.
func TestOneBundleAtATime(t *testing.T) {
	f := newServer(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	f.fake.Hook = func(call string) {
		if call == "Pins" {
			close(entered)
			<-release
		}
	}
	done := make(chan int)
	go func() {
		code, _ := f.bundle(t)
		done <- code
	}()
	<-entered
	if code, _ := f.bundle(t); code != http.StatusServiceUnavailable {
		t.Errorf("the second one: %d", code)
	}
	close(release)
	if code := <-done; code != http.StatusOK {
		t.Errorf("the first one: %d", code)
	}
}
