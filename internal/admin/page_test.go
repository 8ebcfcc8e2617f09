package admin_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lagoon/internal/admin"
)

// TestPageIsServedWhole: everything that the page refers to is its own and is there; nothing is inline, and nothing comes from elsewhere.
func TestPageIsServedWhole(t *testing.T) {
	f := newServer(t, func(o *admin.Options) { o.Token = token })
	types := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
		".sse": "text/event-stream; charset=utf-8"}
	refers := regexp.MustCompile(`(?:src|href)="([^"#]+)"|from "\./([^"]+)"|fetch\("([^"]+)"\)`)
	seen := map[string]bool{}
	var load func(path, ext string)
	load = func(path, ext string) {
		if seen[path] {
			return
		}
		seen[path] = true
		w := f.call("GET", path, "")
		body := w.Body.String()
		if w.Code != 200 || body == "" || w.Header().Get("Content-Type") != types[ext] || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
			w.Header().Get("X-Frame-Options") != "DENY" || !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'self';") {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
		if ext == ".sse" {
			return
		}
		for _, bad := range []string{"<style", "style=\"", "onclick=\"", "eval(", "innerHTML", "'unsafe", token} {
			if strings.Contains(body, bad) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
		if at := strings.Index(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "://"); at >= 0 {
			t.Errorf("%s refers to another place", path)
		}
		for _, m := range refers.FindAllStringSubmatch(body, -1) {
			name := strings.TrimPrefix(m[1]+m[2]+m[3], "page/")
			if name == "openapi.json" {
				continue
			}
			load("/page/"+name, filepath.Ext(name))
		}
	}
	load("/", ".html")
	files, err := os.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !seen["/page/"+file.Name()] && file.Name() != "index.html" {
			t.Errorf("page/%s is not used", file.Name())
		}
	}
	if w := f.call("GET", "/page/none.js", ""); w.Code != 404 {
		t.Errorf("a file that is not there: %d", w.Code)
	}
}

// TestRecordingIsAStream: the recorded stream holds what the page of today reads.
func TestRecordingIsAStream(t *testing.T) {
	body, err := os.ReadFile("page/demo.sse")
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t}
	frames := 0
	for part := range strings.SplitSeq(strings.TrimSuffix(string(body), "\n\n"), "\n\n") {
		e := parse(t, part+"\n\n")
		if frames == 0 != (e.name == "full") {
			t.Fatalf("event %d is %q", frames, e.name)
		}
		frames++
		c.apply(e)
	}
	got := c.frame()
	if frames < 20 || len(body) > 300<<10 || got.Cache == nil || len(got.Cache.Rows) < 4 || got.Readers == nil || len(got.Readers.Readers) < 4 || got.Tiers == nil || got.Throttle == nil {
		t.Errorf("%d frames, %d bytes, %+v", frames, len(body), got)
	}
	if strings.Contains(string(body), "/tmp") || strings.Contains(string(body), "/root") {
		t.Error("the recording names a directory of the machine that it was made on")
	}
}
