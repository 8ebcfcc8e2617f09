package admin

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"sync"
	"time"
)

const (
	// maxProfile bounds what one profile takes in memory: it is sent when it is whole, so that who reads slowly holds nothing up.
	maxProfile = 64 << 20
	// longestProfile and longestTrace bound what somebody can switch on: a profile costs a few per cent, a trace more, and some MB a second.
	longestProfile = 60 * time.Second
	longestTrace   = 10 * time.Second
	// maxProfiles are taken at a time; they have places of their own, for they are wanted when the others are taken.
	maxProfiles = 4
	// bundleTime bounds a debug bundle, partTime each of its parts: what hangs must not keep the rest.
	bundleTime = time.Minute
	partTime   = 5 * time.Second
	// maxPart bounds one file of a bundle.
	maxPart = 16 << 20
	// manyGoroutines are listed by where they are, and not one by one with how long they have waited: that would stop all of them for long.
	manyGoroutines = 5000
)

// profiles are what the runtime keeps of its own accord.
var profiles = []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"}

// profile answers GET /debug/pprof/{profile}, for `go tool pprof` and `go tool trace`.
func (s *Server) profile(w http.ResponseWriter, c *call) error {
	name := c.params["profile"]
	timed := name == "profile" || name == "trace"
	if !timed && !slices.Contains(profiles, name) {
		return &NotFoundError{What: "profile", Name: name, Known: append([]string{"profile", "trace"}, profiles...)}
	}
	standard, longest := 30, longestProfile
	if name == "trace" {
		standard, longest = 1, longestTrace
	}
	seconds, err := c.integer("seconds", standard, 1, int(longest.Seconds()))
	if err != nil {
		return err
	}
	if !timed && c.query.Has("seconds") {
		return &InvalidError{Detail: "seconds is for profile and trace: " + name + " is what it is now"}
	}
	how, err := c.integer("debug", 0, 0, 2)
	if err != nil {
		return err
	}
	if timed && c.query.Has("debug") {
		return &InvalidError{Detail: "debug is not for profile and trace"}
	}
	select {
	case s.profiling <- struct{}{}:
		defer func() { <-s.profiling }()
	default:
		return ErrBusy
	}
	length := time.Duration(seconds) * time.Second
	out := &bounded{most: maxProfile, full: make(chan struct{})}
	switch name {
	case "profile":
		if err := pprof.StartCPUProfile(out); err != nil { // somebody takes one already
			return ErrBusy
		}
		err = out.wait(c, length)
		pprof.StopCPUProfile()
	case "trace":
		if err := trace.Start(out); err != nil {
			return ErrBusy
		}
		err = out.wait(c, length)
		trace.Stop()
	default:
		err = pprof.Lookup(name).WriteTo(out, how)
	}
	if err != nil {
		return err
	}
	kind := "application/octet-stream"
	if how > 0 {
		kind = "text/plain; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	// Not all ResponseWriters have deadlines (tests use recorders).
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bundleTime))
	_, _ = w.Write(out.Bytes()) // the caller went away: nobody is left to tell
	return nil
}

// bounded keeps what is written and tells when that is a lot.
type bounded struct {
	bytes.Buffer
	most int
	full chan struct{} // closed when there is more than most
	once sync.Once
}

// Write implements io.Writer. What comes after most is kept, too: the end of a trace belongs to it.
func (b *bounded) Write(p []byte) (int, error) {
	n, err := b.Buffer.Write(p)
	if b.Len() > b.most {
		b.once.Do(func() { close(b.full) })
	}
	return n, err
}

// wait is for the time of a profile, less when it has become large.
func (b *bounded) wait(ctx context.Context, length time.Duration) error {
	t := time.NewTimer(length)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.full:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// DebugPart is one file of a debug bundle. Write may wait for what does not come back: it is left behind then, and the same part of
// a later bundle is not asked for until it has returned.
type DebugPart struct {
	Name  string
	Write func(ctx context.Context, w io.Writer) error
}

// bundles makes debug bundles, one at a time.
type bundles struct {
	making chan struct{}

	mu      sync.Mutex
	waiting map[string]bool // parts that have not returned
}

// bundle answers GET /api/v1/debug/bundle: a tar.gz with a file for each part that answers, and NAME.error for each that does not, or
// not wholly. What needs nothing of the broker comes first.
func (s *Server) bundle(w http.ResponseWriter, c *call) error {
	select {
	case s.bundles.making <- struct{}{}:
		defer func() { <-s.bundles.making }()
	default:
		return ErrBusy
	}
	ctx, cancel := context.WithTimeout(c.Context, bundleTime)
	defer cancel()
	out := http.NewResponseController(w)
	// Not all ResponseWriters have deadlines (tests use recorders).
	_ = out.SetWriteDeadline(time.Now().Add(bundleTime + callTimeout))
	dir := "lagoon-debug-" + c.now.Format("20060102T150405Z")
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("Content-Disposition", `attachment; filename="`+dir+`.tar.gz"`)
	zip := gzip.NewWriter(w)
	files := tar.NewWriter(zip)
	at := c.now.Truncate(time.Second) // tar would round it up, and find it in the future
	put := func(name string, body []byte) error {
		err := files.WriteHeader(&tar.Header{Name: dir + "/" + name, Mode: 0o600, Size: int64(len(body)), ModTime: at})
		if err == nil {
			_, err = files.Write(body)
		}
		return err
	}
	failed := []string{}
	for _, part := range s.parts() {
		body, err := s.bundles.ask(ctx, part)
		if c.Err() != nil {
			return nil // nobody is left to tell
		}
		if len(body) > 0 || err == nil {
			if put(part.Name, body) != nil {
				return nil // nobody reads on
			}
		}
		if err != nil {
			failed = append(failed, part.Name)
			if put(part.Name+".error", []byte(err.Error()+"\n")) != nil {
				return nil
			}
		}
		// What is there so far reaches the caller, whatever comes of the rest.
		if zip.Flush() != nil {
			return nil
		}
		_ = out.Flush() // not all ResponseWriters can; the next write tells whether somebody reads
	}
	c.about = []any{"failed", failed}
	if err := errors.Join(files.Close(), zip.Close()); err != nil {
		s.opt.Log.Debug("debug bundle not read to its end", "err", err)
	}
	return nil
}

// ask gets one part within its time. What it wrote before an error is given with that.
func (b *bundles) ask(ctx context.Context, part DebugPart) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("not asked: the %v of the bundle were over", bundleTime)
	}
	b.mu.Lock()
	stuck := b.waiting[part.Name]
	b.waiting[part.Name] = true
	b.mu.Unlock()
	if stuck {
		return nil, errors.New("not asked again: an earlier bundle still waits for it")
	}
	ctx, cancel := context.WithTimeout(ctx, partTime)
	type answer struct {
		body []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		defer cancel()
		out := &atMost{left: maxPart}
		err := write(ctx, part, out)
		b.mu.Lock()
		delete(b.waiting, part.Name)
		b.mu.Unlock()
		done <- answer{out.Bytes(), err}
	}()
	select {
	case a := <-done:
		return a.body, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-done: // both at once: it heeds its context
		return a.body, a.err
	default:
		return nil, fmt.Errorf("no answer within %v", partTime)
	}
}

// write runs one part; what panics must not end the broker.
func write(ctx context.Context, part DebugPart, out io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return part.Write(ctx, out)
}

// atMost is a buffer that refuses what is too much.
type atMost struct {
	bytes.Buffer
	left int
}

var errTooLarge = fmt.Errorf("cut off at %d MiB", maxPart>>20)

// Write implements io.Writer.
func (b *atMost) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	_, _ = b.Buffer.Write(p[:n]) // never fails
	if n < len(p) {
		return n, errTooLarge
	}
	return n, nil
}

// parts are the files of a bundle, those first that cannot hang.
func (s *Server) parts() []DebugPart {
	b := s.opt.Backend
	out := []DebugPart{{"goroutines.txt", goroutines}, {"heap.pprof", func(_ context.Context, w io.Writer) error { return pprof.Lookup("heap").WriteTo(w, 0) }}}
	out = append(out, b.DebugParts()...)
	return append(out,
		answered("config.json", b.Config),
		answered("log-level.json", b.LogLevel),
		answered("status.json", func(ctx context.Context) (any, error) { return s.status(&call{Context: ctx}) }),
		answered("throttle.json", b.Throttle),
		listed("readers.json", b.Readers),
		listed("groups.json", b.Groups),
		listed("tiers.json", b.Tiers),
		answered("migrations.json", b.Migrations),
		listed("pins.json", b.Pins),
		answered("compactions.json", b.Compactions),
		listed("topics.json", b.Topics),
		answered("cache.json", func(ctx context.Context) (Cache, error) { return b.Cache(ctx, CacheQuery{Partition: -1, Cells: 16}) }),
		scraped("metrics.txt", s.scrapes[0]),
		scraped("metrics-detailed.txt", s.scrapes[1]),
	)
}

// goroutines lists all of them, as well as that can be done.
func goroutines(_ context.Context, w io.Writer) error {
	how := 2
	if runtime.NumGoroutine() > manyGoroutines {
		how = 1
	}
	return pprof.Lookup("goroutine").WriteTo(w, how)
}

func answered[T any](name string, ask func(context.Context) (T, error)) DebugPart {
	return DebugPart{name, func(ctx context.Context, w io.Writer) error {
		v, err := ask(ctx)
		if err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		return e.Encode(v)
	}}
}

// listed has [] where there is nothing.
func listed[T any](name string, ask func(context.Context) ([]T, error)) DebugPart {
	return answered(name, func(ctx context.Context) ([]T, error) {
		list, err := ask(ctx)
		return some(list, len(list)), err
	})
}

func scraped(name string, metrics http.Handler) DebugPart {
	return DebugPart{name, func(ctx context.Context, w io.Writer) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		if err != nil {
			return err
		}
		page := &answerTo{w: w, header: http.Header{}}
		metrics.ServeHTTP(page, r)
		if page.err == nil && cmp.Or(page.status, http.StatusOK) != http.StatusOK {
			return fmt.Errorf("status %d", page.status)
		}
		return page.err
	}}
}

// answerTo is an http.ResponseWriter for a file.
type answerTo struct {
	w      io.Writer
	header http.Header
	status int
	err    error
}

func (a *answerTo) Header() http.Header { return a.header }

func (a *answerTo) WriteHeader(status int) { a.status = cmp.Or(a.status, status) }

func (a *answerTo) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.w.Write(p)
	a.err = err
	return n, err
}
