package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/admin"
)

// TestTopGolden runs testdata/top: "frame width=80 height=24" draws the fake daemon's figures. many=N adds N readers, miss lets a
// real-time reader read from a device, hot has pinned windows, race lets retention overtake a group, endless adds a reader that will not catch up, broken is a daemon in trouble, empty one without readers.
func TestTopGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/top", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			_, url := fakeAdmin(t, nil)
			data, err := (&top{app: &app{admin: url}, sort: "-lag_bytes", rows: 1000}).ask(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			width, height := 80, 24
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "width":
					arg.Scan(t, 0, &width)
				case "height":
					arg.Scan(t, 0, &height)
				case "many":
					n := 0
					arg.Scan(t, 0, &n)
					for i := range n {
						data.Readers = append(data.Readers, admin.Reader{ClientID: fmt.Sprintf("client-%d", i), Topic: "a.topic.with.a.very.long.name.indeed", Class: "realtime"})
					}
					data.Total += n
				case "miss":
					for i := range data.Readers {
						data.Readers[i].Sources.Tiers = map[string]int64{"hdd": 3 << 20}
					}
				case "broken":
					data.Status.State = "fenced"
					data.Status.Checks[1].OK, data.Status.Checks[1].Text = false, "sync failed: input/output error"
					data.Tiers[1].State = "fenced"
				case "hot":
					data.Status.Checks = append(data.Status.Checks, admin.Check{Name: "hot-windows", OK: true, Severity: "warn",
						Text: "2GiB pinned of 2GiB planned, budget 7GiB, 600 s of tail"})
				case "race":
					data.Readers[0].Retention = &admin.ReaderRace{CountdownSeconds: 95, LossBytes: 3 << 30}
					data.Readers = append(data.Readers, data.Readers[0]) // another partition of the same group
					data.Total++
				case "endless":
					data.Readers = append(data.Readers, admin.Reader{ClientID: "hopeless", Topic: "orders", Class: "lagging", ETASeconds: -1})
					data.Total++
				case "empty":
					data.Readers, data.Total = nil, 0
				default:
					t.Fatalf("unknown argument %s", arg.Key)
				}
			}
			var out strings.Builder
			lines := frame(data, width, height)
			if height > 0 && len(lines) > height {
				t.Errorf("%d lines, want at most %d", len(lines), height)
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l.text); n > width {
					t.Errorf("%d columns: %s", n, l.text)
				}
				out.WriteString(l.text + "\n")
			}
			return out.String()
		})
	})
}

func TestTopKeys(t *testing.T) {
	p := &top{sort: "-lag_bytes"}
	for _, c := range []struct {
		key     byte
		want    string
		refresh bool
	}{{'r', "-rate", true}, {'r', "rate", true}, {'r', "-rate", true}, {'g', "group", true}, {'g', "-group", true}, {'x', "-group", false},
		{'l', "-lag_bytes", true}, {' ', "-lag_bytes", false}, {' ', "-lag_bytes", true}} {
		if refresh := p.press(c.key); p.sort != c.want || refresh != c.refresh {
			t.Errorf("after %q: by %s, refresh %v, want %s, %v", c.key, p.sort, refresh, c.want, c.refresh)
		}
	}
}

// The head is about all readers, however few are shown.
func TestTopHeadKnowsReadersThatAreNotShown(t *testing.T) {
	_, url := fakeAdmin(t, nil)
	data, err := (&top{app: &app{admin: url}, sort: "-lag_bytes", rows: 1}).ask(t.Context())
	if err != nil || len(data.Readers) != 1 || data.Total != 2 {
		t.Fatalf("%d of %d readers, %v", len(data.Readers), data.Total, err)
	}
	if got := frame(data, 100, 0)[1].text; got != "real-time  1 reader, 21MiB/s, 0s behind at most; all from the page cache" {
		t.Error(got)
	}
}

// A daemon that hangs does not keep anybody in top, and no key is lost.
func TestTopEndsWhileItAsks(t *testing.T) {
	for _, key := range []byte{'q', 3} {
		asked := make(chan struct{}, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
		}))
		keys := make(chan byte)
		go func() {
			<-asked
			keys <- 'l'
			keys <- key
		}()
		if _, _, quit, err := (&top{app: &app{admin: srv.URL}, sort: "-lag_bytes", rows: 1}).refresh(t.Context(), keys); !quit || err != nil {
			t.Errorf("key %d: quit %v, %v", key, quit, err)
		}
		srv.Close()
	}
	fake, url := fakeAdmin(t, nil)
	keys := make(chan byte)
	fake.Hook = func(call string) {
		if call == "Throttle" {
			keys <- 'r'
			keys <- 'g'
		}
	}
	d, typed, quit, err := (&top{app: &app{admin: url}, sort: "-lag_bytes", rows: 1}).refresh(t.Context(), keys)
	if quit || err != nil || d.Total != 2 || string(typed) != "rg" {
		t.Errorf("%d readers, typed %q, quit %v, %v", d.Total, typed, quit, err)
	}
}
