package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lagoon/conf"
	"lagoon/internal/admin"
)

// topKeys are the sort orders that a key chooses while top runs.
var topKeys = []struct {
	key  byte
	sort string
}{{'l', "-lag_bytes"}, {'a', "-lag_seconds"}, {'r', "-rate"}, {'c', "-cold_bytes"}, {'g', "group"}, {'t', "topic"}}

// topData is everything of one frame.
type topData struct {
	Now      time.Time      `json:"now"`
	Status   admin.Status   `json:"status"`
	Throttle admin.Throttle `json:"throttle"`
	Tiers    []admin.Tier   `json:"tiers"`
	Total    int            `json:"total"`
	Readers  []admin.Reader `json:"readers"`
	realtime []admin.Reader // all of them, where Readers has not all; else nil
}

func (a *app) topCommand() *cobra.Command {
	var (
		interval string
		sort     string
		rows     int
		once     bool
	)
	c := &cobra.Command{
		Use: "top", Short: "Readers, budgets and the health of the real-time path, live", Args: args(),
		Long: `Readers, budgets and the health of the real-time path, live.

While it runs: l, a, r, c, g, t sort by lag in bytes, age, rate, cold bytes, group or topic (again: the other way round),
space stops and goes on, q ends it. Where the output is no terminal, a frame is printed every interval.`,
		RunE: func(c *cobra.Command, _ []string) error {
			every, err := conf.ParseDuration(interval)
			if err != nil || every.Std() < 100*time.Millisecond {
				return usagef("--interval %s is not a time of at least 100ms, like 2s", interval)
			}
			if rows < 1 || rows > 10000 {
				return usagef("--rows must be from 1 to 10000")
			}
			t := &top{app: a, sort: sort, rows: rows, every: every.Std()}
			return t.run(c.Context(), once)
		},
	}
	f := c.Flags()
	f.StringVarP(&interval, "interval", "n", "2s", "time between two frames")
	f.StringVar(&sort, "sort", "-lag_bytes", "lag_bytes, lag_records, lag_seconds, cold_bytes, rate, group or topic; - in front for largest first")
	f.IntVar(&rows, "rows", 1000, "readers at most")
	f.BoolVar(&once, "once", false, "print one frame and end")
	return c
}

// top is one run of the command.
type top struct {
	app   *app
	sort  string
	rows  int
	every time.Duration
	still bool
}

// ask collects a frame's figures.
func (t *top) ask(ctx context.Context) (d topData, err error) {
	get := func(path string, q url.Values, into any) {
		if err != nil {
			return
		}
		var body []byte
		if body, err = t.app.ask(ctx, http.MethodGet, path, q, nil); err == nil {
			if jerr := json.Unmarshal(body, into); jerr != nil {
				err = errors.New("the answer of " + path + " cannot be read: " + jerr.Error())
			}
		}
	}
	var readers admin.ReaderList
	var tiers admin.TierList
	get("/api/v1/readers", url.Values{"sort": {t.sort}, "limit": {strconv.Itoa(t.rows)}}, &readers)
	if len(readers.Readers) < readers.Total { // the head is about all of them
		var all admin.ReaderList
		get("/api/v1/readers", url.Values{"class": {"realtime"}, "limit": {"10000"}}, &all)
		d.realtime = all.Readers
	}
	get("/api/v1/status", nil, &d.Status)
	get("/api/v1/throttle", nil, &d.Throttle)
	get("/api/v1/tiers", nil, &tiers)
	d.Now, d.Total, d.Readers, d.Tiers = readers.Now, readers.Total, readers.Readers, tiers.Tiers
	return d, err
}

func (t *top) run(ctx context.Context, once bool) error {
	d, err := t.ask(ctx)
	if err != nil {
		return err
	}
	out, isFile := t.app.stdout.(*os.File)
	live := isFile && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(os.Stdin.Fd())) && !once && t.app.output == "table"
	if live {
		return t.live(ctx, out, d)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	width, err := strconv.Atoi(t.app.getenv("COLUMNS", "100"))
	if err != nil {
		width = 100
	}
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		body, err := json.Marshal(d)
		if err != nil {
			return err
		}
		err = t.app.show(body, "readers", func(wide bool) error {
			if wide {
				width = 1000
			}
			return t.write(t.app.stdout, frame(d, width, 0), "\n")
		})
		if err != nil || once {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if d, err = t.ask(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// write prints a frame's lines, in colour where that is wanted.
func (t *top) write(w io.Writer, lines []frameLine, end string) error {
	var out strings.Builder
	for _, l := range lines {
		if l.color != "" && t.app.color && !t.app.noColor {
			out.WriteString(l.color + l.text + reset + end)
		} else {
			out.WriteString(l.text + end)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// live redraws the terminal until q, Ctrl-C or a signal, and leaves it as it was.
func (t *top) live(ctx context.Context, out *os.File, d topData) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	stdin := int(os.Stdin.Fd())
	state, err := term.MakeRaw(stdin)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, term.Restore(stdin, state))
	}()
	// Alternate screen, no cursor, no line wrap; and back.
	if _, err := io.WriteString(out, "\x1b[?1049h\x1b[?25l\x1b[?7l"); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(out, "\x1b[?7h\x1b[?25h\x1b[?1049l") }() // a terminal that is gone needs no restoring

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	keys := make(chan byte)
	go func() { // ends with the process: a read of a terminal cannot be called off
		buf := make([]byte, 1)
		for {
			if n, err := os.Stdin.Read(buf); n == 0 || err != nil {
				close(keys)
				return
			}
			select {
			case keys <- buf[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	fault := ""
	var typed []byte // while figures were asked for
	for {
		if err := t.draw(out, d, fault); err != nil {
			return err
		}
		refresh := true
		if len(typed) > 0 {
			refresh, typed = t.press(typed[0]), typed[1:]
		} else {
			select {
			case <-ctx.Done():
				return nil
			case <-resized:
				continue
			case key, open := <-keys:
				if !open || ends(key) {
					return nil
				}
				refresh = t.press(key)
			case <-tick.C:
				refresh = !t.still
			}
		}
		if !refresh {
			continue
		}
		next, more, quit, err := t.refresh(ctx, keys)
		typed = append(typed, more...)
		switch {
		case quit:
			return nil
		case err == nil:
			d, fault = next, ""
		default:
			fault = err.Error()
		}
	}
}

// ends tells whether a key ends top: q, or Ctrl-C, which is a key in a raw terminal.
func ends(key byte) bool { return key == 'q' || key == 3 }

// refresh asks for a frame's figures. A daemon that does not answer must not keep anybody from leaving; other keys that are typed
// meanwhile are given back.
func (t *top) refresh(ctx context.Context, keys <-chan byte) (d topData, typed []byte, quit bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d, err = t.ask(ctx)
	}()
	for {
		select {
		case <-done:
			return d, typed, false, err
		case key, open := <-keys:
			if !open || ends(key) {
				cancel()
				<-done
				return d, nil, true, nil
			}
			typed = append(typed, key)
		}
	}
}

// press follows a key and tells whether the figures have to be asked for again.
func (t *top) press(key byte) bool {
	if key == ' ' {
		t.still = !t.still
		return !t.still
	}
	i := slices.IndexFunc(topKeys, func(k struct {
		key  byte
		sort string
	}) bool {
		return k.key == key
	})
	if i < 0 {
		return false
	}
	chosen, bare := topKeys[i].sort, strings.TrimPrefix(topKeys[i].sort, "-")
	switch {
	case t.sort != chosen:
		t.sort = chosen
	case chosen == bare:
		t.sort = "-" + bare
	default:
		t.sort = bare
	}
	return true
}

func (t *top) draw(out *os.File, d topData, fault string) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width < 20 || height < 5 {
		width, height = 80, 24
	}
	lines := frame(d, width, height-1)
	foot := "by " + t.sort + "   sort: l lag  a age  r rate  c cold  g group  t topic   space: stop   q: end"
	if t.still {
		foot = "stopped: space goes on   q: end"
	}
	if fault != "" {
		lines = lines[:min(len(lines), height-2)]
		lines = append(lines, frameLine{cut(clean(fault), width), red})
	}
	for len(lines) < height-1 {
		lines = append(lines, frameLine{})
	}
	lines = append(lines[:height-1], frameLine{cut(foot, width), bold})
	for i := range lines {
		lines[i].text += "\x1b[K" // what an earlier frame left on the line
	}
	var buf strings.Builder
	buf.WriteString("\x1b[H")
	if err := t.write(&buf, lines, "\r\n"); err != nil {
		return err
	}
	_, err = io.WriteString(out, strings.TrimSuffix(buf.String(), "\r\n"))
	return err
}
