package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
)

// world is a backend that changes with every frame: Status, which a frame asks first, takes a step.
type world struct {
	*admintest.Fake
	rnd *rand.Rand

	mu      sync.Mutex
	frames  int
	still   bool
	rows    []admin.CacheRow
	list    []admin.Reader
	devices []admin.Device
	next    int
}

func newWorld(seed uint64) *world {
	return &world{Fake: admintest.New(), rnd: rand.New(rand.NewPCG(seed, 1))}
}

func (w *world) step() {
	w.frames++
	if w.still {
		return
	}
	pick := func(n int) bool { return w.rnd.IntN(n) == 0 }
	if len(w.rows) == 0 || pick(3) {
		w.next++
		w.rows = append(w.rows, admin.CacheRow{CacheFigures: admin.CacheFigures{Topic: []string{"orders", `a "quoted" <topic>`, "null"}[w.next%3], Partition: int32(w.next)}, Cells: make([]byte, w.rnd.IntN(200))})
	}
	if len(w.rows) > 1 && pick(6) {
		w.rows = slices.Delete(w.rows, 0, 1)
	}
	for i := range w.rows {
		r := &w.rows[i]
		if pick(2) {
			continue
		}
		r.EndOffset += w.rnd.Int64N(3)
		if pick(5) {
			r.Cells = append(slices.Clone(r.Cells), make([]byte, w.rnd.IntN(60))...)
		}
		r.Cells = slices.Clone(r.Cells)
		r.Flags = append(slices.Clone(r.Flags), make([]byte, max(0, len(r.Cells)-len(r.Flags)))...)
		for range w.rnd.IntN(4) {
			if len(r.Cells) > 0 {
				at := w.rnd.IntN(len(r.Cells))
				r.Cells[at], r.Flags[at] = byte(w.rnd.IntN(3)*100), byte(w.rnd.IntN(2))
			}
		}
		r.SampledAt = time.Time{}
		if pick(2) {
			r.SampledAt = admintest.Now.Add(-time.Duration(w.rnd.IntN(20)) * time.Second)
		}
		r.Markers = nil
		if pick(2) {
			r.Markers = []admin.CacheMarker{{Reader: "r-1", Cell: w.rnd.IntN(100), Class: "lagging"}}
		}
	}
	w.list = nil
	for i := range w.rnd.IntN(5) {
		r := admin.Reader{ID: fmt.Sprintf("r-%d", i), Class: []string{"realtime", "lagging"}[w.rnd.IntN(2)], LagBytes: w.rnd.Int64N(100),
			Sources: admin.SourceBytes{PageCache: 7, Tiers: map[string]int64{[]string{"ssd", "hdd"}[w.rnd.IntN(2)]: w.rnd.Int64N(3)}}}
		if pick(3) {
			r.Retention = &admin.ReaderRace{CountdownSeconds: float64(w.rnd.IntN(3)), Text: "soon"}
		}
		w.list = append(w.list, r)
	}
	w.devices = []admin.Device{{Tier: "hdd", State: []string{"", "reduced"}[w.rnd.IntN(2)], Signals: []admin.Signal{{Signal: "produce", Measured: float64(w.rnd.IntN(3))}}}}
}

func (w *world) Status(ctx context.Context) (admin.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step()
	st, err := w.Fake.Status(ctx)
	st.UptimeSeconds = float64(w.frames)
	if w.still {
		st.UptimeSeconds = 0
	}
	return st, err
}

func (w *world) Cache(context.Context, admin.CacheQuery) (admin.Cache, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return admin.Cache{Method: "cachestat", Rows: slices.Clone(w.rows)}, w.Err
}

func (w *world) Readers(context.Context) ([]admin.Reader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list), w.Err
}

func (w *world) Throttle(ctx context.Context) (admin.Throttle, error) {
	t, err := w.Fake.Throttle(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Devices = slices.Clone(w.devices)
	return t, err
}

func (w *world) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frames
}

// event is one server-sent event as a client sees it.
type event struct {
	id, name, comment string
	retry             string
	data              []byte
}

func parse(t *testing.T, text string) (e event) {
	t.Helper()
	if !strings.HasSuffix(text, "\n\n") || strings.Count(text, "\n\n") != 1 {
		t.Fatalf("not one event: %q", text)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		switch name {
		case "":
			e.comment = value
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "retry":
			e.retry = value
		case "data":
			e.data = []byte(value)
		}
	}
	return e
}

// client is an open stream. Its writer hands over one event at a time, and so blocks the server while nobody takes one.
type client struct {
	t      *testing.T
	head   http.Header
	status int
	part   bytes.Buffer
	events chan string
	ended  chan struct{}
	leave  context.CancelFunc
	state  any // reassembled
}

func (c *client) Header() http.Header  { return c.head }
func (c *client) WriteHeader(code int) { c.status = code }
func (c *client) Write(p []byte) (int, error) {
	return c.part.Write(p)
}
func (c *client) Flush() {
	text := c.part.String()
	c.part.Reset()
	c.events <- text
}

// open starts a stream; query begins with "?" or is empty.
func (f *fixture) open(t *testing.T, query, resume string) *client {
	ctx, leave := context.WithCancel(t.Context())
	c := &client{t: t, head: http.Header{}, events: make(chan string), ended: make(chan struct{}), leave: leave}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9645/api/v1/stream"+query, nil)
	if resume != "" {
		r.Header.Set("Last-Event-ID", resume)
	}
	go func() {
		defer close(c.ended)
		f.ServeHTTP(c, r)
	}()
	return c
}

// next is the next event, applied to the state.
func (c *client) next() event {
	c.t.Helper()
	select {
	case text := <-c.events:
		e := parse(c.t, text)
		c.apply(e)
		return e
	case <-c.ended:
		c.t.Fatalf("the stream has ended: %d %s", c.status, c.part.String())
		return event{}
	}
}

func (c *client) apply(e event) {
	c.t.Helper()
	switch e.name {
	case "full":
		c.state = nil
		fallthrough
	case "delta":
		var patch any
		if err := json.Unmarshal(e.data, &patch); err != nil {
			c.t.Fatalf("%v in %s", err, e.data)
		}
		if e.name == "delta" && c.state == nil {
			c.t.Fatal("a delta before any frame")
		}
		c.state = merge(c.state, patch)
	}
}

// frame is the state in its own shape.
func (c *client) frame() (f admin.StreamFrame) {
	c.t.Helper()
	body, err := json.Marshal(c.state)
	if err == nil {
		err = json.Unmarshal(body, &f)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// close leaves and takes what is still on its way.
func (c *client) close() {
	c.leave()
	for {
		select {
		case <-c.events:
		case <-c.ended:
			return
		}
	}
}

// merge applies a merge patch as RFC 7396 has it in section 2.
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out, ok := target.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for name, value := range p {
		if value == nil {
			delete(out, name)
		} else {
			out[name] = merge(out[name], value)
		}
	}
	return out
}

// same compares a reassembled state with another one, and its cells and readers with those of the world.
func (c *client) same(w *world, other any) {
	c.t.Helper()
	if !reflect.DeepEqual(c.state, other) {
		a, _ := json.Marshal(c.state)
		b, _ := json.Marshal(other)
		c.t.Fatalf("reassembled\n%s\nbut the frame is\n%s", a, b)
	}
	got := c.frame()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(got.Cache.Rows) != len(w.rows) || len(got.Readers.Readers) != len(w.list) || got.Readers.Total != len(w.list) {
		c.t.Fatalf("%d rows and %d readers, want %d and %d", len(got.Cache.Rows), len(got.Readers.Readers), len(w.rows), len(w.list))
	}
	for _, r := range w.rows {
		looked := r.SampledAt
		if admintest.Now.Sub(looked) < 10*time.Second {
			looked = time.Time{}
		}
		row := got.Cache.Rows[fmt.Sprintf("%s/%d", r.Topic, r.Partition)]
		if row.Cells != len(r.Cells) || !bytes.Equal(join(row.Resident, row.Cells), r.Cells) || !bytes.Equal(join(row.Flags, len(r.Flags)), r.Flags) ||
			row.EndOffset != r.EndOffset || !row.SampledAt.Equal(looked) || row.Seen == r.SampledAt.IsZero() || len(row.Markers) != len(r.Markers) {
			c.t.Fatalf("row %+v, want %+v", row, r)
		}
	}
	for _, r := range w.list {
		if !reflect.DeepEqual(got.Readers.Readers[r.ID], r) {
			c.t.Fatalf("reader %+v, want %+v", got.Readers.Readers[r.ID], r)
		}
	}
}

func join(blocks map[string][]byte, n int) []byte {
	out := make([]byte, n)
	for name, block := range blocks {
		at, err := strconv.Atoi(name)
		if err != nil {
			panic(err)
		}
		copy(out[at*48:], block)
	}
	return out
}

func newStream(t *testing.T, w *world) *fixture {
	return newServer(t, func(o *admin.Options) { o.Backend = w })
}

// TestStreamReassembles: whatever changes, a frame and the deltas after it come to what a client gets that connects then.
func TestStreamReassembles(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(seed)
			f := newStream(t, w)
			c := f.open(t, "", "")
			if e := c.next(); e.name != "full" || e.retry != "2000" || c.head.Get("Content-Type") != "text/event-stream" || c.head.Get("Cache-Control") != "no-store" || c.head.Get("X-Accel-Buffering") != "no" {
				t.Fatalf("%+v %v", e, c.head)
			}
			deltas := 0
			for range 30 {
				if e := c.next(); e.name == "delta" {
					deltas++
				}
				late := f.open(t, "", "")
				if e := late.next(); e.name != "full" {
					t.Fatalf("first %s", e.name)
				}
				c.same(w, late.state)
				late.close()
			}
			if deltas != 30 {
				t.Errorf("%d deltas of 30 frames", deltas)
			}
			c.close()
		})
	}
}

// TestStreamDeltaIsSmall: a full frame of 200 rows of 512 cells, and one in which a tail moves on.
func TestStreamDeltaIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.still = true
		for p := range 200 {
			cells := bytes.Repeat([]byte{255}, 512)
			w.rows = append(w.rows, admin.CacheRow{CacheFigures: admin.CacheFigures{Topic: "orders", Partition: int32(p)}, Cells: cells, Flags: make([]byte, 512)})
		}
		c := newStream(t, w).open(t, "?topics=cache", "")
		full := c.next()
		w.mu.Lock()
		for i := range 20 {
			w.rows[i].Cells = slices.Clone(w.rows[i].Cells)
			w.rows[i].Cells[300] = 17
			w.rows[i].EndOffset = 42
		}
		w.mu.Unlock()
		delta := c.next()
		t.Logf("full %d bytes, delta of 20 changed rows %d", len(full.data), len(delta.data))
		if delta.name != "delta" || len(delta.data) > 20*200 || len(full.data) > 200*1500 {
			t.Errorf("full %d bytes, %s of %d", len(full.data), delta.name, len(delta.data))
		}
		c.close()
	})
}

// TestSlowStreamMissesFrames: who does not take events misses some, the next one is a whole frame, and nobody else waits.
func TestSlowStreamMissesFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		f := newStream(t, w)
		slow, quick := f.open(t, "", ""), f.open(t, "", "")
		slow.next()
		for range 10 {
			quick.next() // the server blocks in slow's next event meanwhile
		}
		stuck := slow.next()
		after := slow.next()
		if stuck.name != "delta" || after.name != "full" {
			t.Errorf("%s, then %s", stuck.name, after.name)
		}
		late := f.open(t, "", "")
		late.next()
		slow.same(w, late.state)
		slow.next()
		if e := slow.next(); e.name != "delta" {
			t.Errorf("in step again, but %s", e.name)
		}
		for _, c := range []*client{slow, quick, late} {
			c.close()
		}
	})
}

// TestStreamsShareFrames: frames are made once for all clients, one a second, and none without clients.
func TestStreamsShareFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		f := newStream(t, w)
		<-time.After(time.Minute)
		if w.made() != 0 {
			t.Errorf("%d frames for nobody", w.made())
		}
		first := f.open(t, "", "")
		first.next()
		clients := []*client{first}
		for range 9 {
			c := f.open(t, "?topics=readers,status", "")
			if c.next(); len(c.state.(map[string]any)) != 3 {
				t.Errorf("topics %v", slices.Sorted(maps.Keys(c.state.(map[string]any))))
			}
			clients = append(clients, c)
		}
		before := w.made()
		for range 5 {
			for _, c := range clients {
				c.next()
			}
		}
		if n := w.made() - before; n != 5 {
			t.Errorf("%d frames for 5 events of each of 10 clients", n)
		}
		for _, c := range clients {
			c.close()
		}
		synctest.Wait()
		before = w.made()
		<-time.After(time.Minute)
		if w.made() != before {
			t.Errorf("%d frames after the last client left", w.made()-before)
		}
	})
}

// slowWorld takes a tenth of a second for a frame.
type slowWorld struct{ *world }

func (w slowWorld) Status(ctx context.Context) (admin.Status, error) {
	time.Sleep(100 * time.Millisecond)
	return w.world.Status(ctx)
}

// TestStreamClientsComeAndGo: frames take a fifth of the time at most, also when clients come that want what the newest does not have, or come
// when nobody else looks.
func TestStreamClientsComeAndGo(t *testing.T) {
	for _, stays := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(1)
			f := newServer(t, func(o *admin.Options) { o.Backend = slowWorld{w} })
			var stayed *client
			if stays {
				stayed = f.open(t, "?topics=status", "")
				go func() {
					for {
						select {
						case <-stayed.events:
						case <-stayed.ended:
							return
						}
					}
				}()
			}
			for i := range 300 {
				c := f.open(t, "?topics=status,"+[]string{"readers", "tiers", "throttle"}[i%3], "")
				<-time.After(10 * time.Millisecond)
				c.close()
			}
			if n := w.made(); n < 4 || n > 8 {
				t.Errorf("one stays %v: %d frames in 3 s, which take half a second each with the rest after them", stays, n)
			}
			if stays {
				stayed.close()
			}
			<-time.After(time.Minute) // a frame may be on its way
		})
	}
}

// TestStreamResumes: with its last event id a client gets the delta from there if that is the newest or the one before, however long
// nobody looked; all of it with other topics or from another process.
func TestStreamResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(3)
		f := newStream(t, w)
		c := f.open(t, "", "")
		c.next()
		id, state := c.next().id, c.state
		c.close()
		<-time.After(time.Hour)
		again := f.open(t, "", id)
		again.state = state
		if e := again.next(); e.name != "delta" {
			t.Errorf("resumed with %s", e.name)
		}
		late := f.open(t, "", "")
		late.next()
		again.same(w, late.state)
		for range 3 {
			again.next()
			late.next()
		}
		for name, bad := range map[string]string{"too old": id, "other topics": strings.Replace(id, ".3f.", ".3e.", 1), "another process": "x" + id, "from the future": id + "999", "nonsense": "x"} {
			c := f.open(t, "", bad)
			if e := c.next(); e.name != "full" {
				t.Errorf("%s: %s", name, e.name)
			}
			c.close()
		}
		again.close()
		late.close()
	})
}

// TestStreamHeartbeat: a stream without news is silent for no longer than 15 seconds.
func TestStreamHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.still = true
		c := newStream(t, w).open(t, "?topics=readers", "")
		c.next()
		began := time.Now()
		if e := c.next(); e.comment == "" || e.data != nil || time.Since(began) > 16*time.Second {
			t.Errorf("%+v after %v", e, time.Since(began))
		}
		c.close()
	})
}

func TestStreamLimitsAndFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		f := newStream(t, w)
		var clients []*client
		for range admin.MaxStreams {
			c := f.open(t, "", "")
			c.next()
			clients = append(clients, c)
		}
		more := f.call("GET", "/api/v1/stream", "")
		if p := problemOf(t, more); more.Code != 503 || p.Type != "urn:lagoon:problem:too-many-streams" || !strings.Contains(p.Detail, "16 streams") {
			t.Errorf("%d %+v", more.Code, p)
		}
		clients[3].close()
		clients[3] = f.open(t, "", "")
		clients[3].next()
		bad := f.call("GET", "/api/v1/stream?topics=cache,reader", "")
		if p := problemOf(t, bad); bad.Code != 400 || !slices.Equal(p.Suggestions, []string{"readers"}) {
			t.Errorf("%d %+v", bad.Code, p)
		}
		if w := f.call("HEAD", "/api/v1/stream", ""); w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD: %d %v", w.Code, w.Header())
		}
		// What cannot be answered stays as it was, and the stream goes on.
		was := clients[0].state.(map[string]any)
		w.mu.Lock()
		w.Err = admin.ErrStarting
		w.mu.Unlock()
		for clients[0].next().comment == "" {
		}
		if is := clients[0].state.(map[string]any); is["readers"] == nil || is["cache"] == nil || is["tiers"] == nil || !reflect.DeepEqual(is, was) {
			t.Errorf("after a fault: %v", is)
		}
		for _, c := range clients {
			c.close()
		}
	})
}

// TestStreamEndsWithTheServer: Close ends streams at once and refuses new ones; a stream outlasts the limits of other calls until then.
func TestStreamEndsWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		f := newStream(t, w)
		pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- f.ServeOn(pipes) }()
		here, there := net.Pipe()
		pipes.conns <- there
		if _, err := io.WriteString(here, "GET /api/v1/stream?topics=status HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(here), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		lines := bufio.NewScanner(resp.Body)
		began, events := time.Now(), 0
		for events < 100 && lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				events++
			}
		}
		if events < 100 || time.Since(began) < 90*time.Second {
			t.Fatalf("%d events in %v: %v", events, time.Since(began), lines.Err())
		}
		rest := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, resp.Body)
			rest <- err
		}()
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-rest; err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("ended %v after Close: %v", time.Since(began), err)
		}
		<-served
		if w := f.call("GET", "/api/v1/stream", ""); w.Code != 503 {
			t.Errorf("after Close: %d", w.Code)
		}
		_ = here.Close()
	})
}

// pipeListener hands out what the test puts in.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestStreamEvents: what changes between frames is told once; what changed while nobody looked is not.
func TestStreamEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.still = true
		set := func(class, device string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.list = []admin.Reader{{ID: "r-1", ClientID: "wh", Topic: "orders", Class: class, ClassReason: "because"}}
			w.devices = []admin.Device{{Tier: "hdd", State: device, Reason: "it hurt"}}
		}
		texts := func(c *client) (out []string) {
			f := c.frame()
			for _, n := range slices.Sorted(maps.Keys(f.Events.Events)) {
				out = append(out, f.Events.Events[n].Kind+": "+f.Events.Events[n].Text)
			}
			return out
		}
		set("realtime", "free")
		f := newStream(t, w)
		c := f.open(t, "?topics=events", "")
		if c.next(); len(texts(c)) != 0 {
			t.Errorf("at the beginning: %q", texts(c))
		}
		set("lagging", "free")
		c.next()
		set("lagging", "reduced")
		c.next()
		want := []string{"reader: wh is lagging in orders/0: because", "budget: cold budget of hdd is reduced: it hurt"}
		if got := texts(c); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		c.close()
		set("realtime", "free")
		c = f.open(t, "?topics=events", "")
		if c.next(); !slices.Equal(texts(c), want) {
			t.Errorf("afterwards %q", texts(c))
		}
		c.close()
	})
}

// TestEventOfAnOverride: what an override leaves alone is not told as 0 bytes a second.
func TestEventOfAnOverride(t *testing.T) {
	for _, tc := range []struct {
		o    admin.Override
		want string
	}{
		{admin.Override{Kind: "group", Name: "billing", Weight: 4}, "override of group billing: weight 4"},
		{admin.Override{Kind: "topic", Name: "orders", BytesPerSecond: 1 << 20}, "override of topic orders: 1048576 bytes/s"},
		{admin.Override{Kind: "client", Name: "wh", BytesPerSecond: 1 << 20, Weight: 0.5}, "override of client wh: 1048576 bytes/s, weight 0.5"},
	} {
		if got := admin.OverrideEvents(tc.o); !slices.Equal(got, []string{tc.want}) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// closingConn tells when the server closes it.
type closingConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestWhoDoesNotReadIsCutOff: a caller that asks for what it may not have, or for nothing, and does not read the answer loses its
// connection; there are not many.
func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	for _, request := range []string{"GET /nothing HTTP/1.1", "GET /api/v1/status HTTP/1.1", "OPTIONS * HTTP/1.1"} {
		synctest.Test(t, func(t *testing.T) {
			f := newServer(t, func(o *admin.Options) { o.Token = token })
			pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
			served := make(chan error, 1)
			go func() { served <- f.ServeOn(pipes) }()
			here, there := net.Pipe() // without a buffer: an answer waits for its reader
			conn := &closingConn{Conn: there, closed: make(chan struct{})}
			pipes.conns <- conn
			if _, err := io.WriteString(here, request+"\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-conn.closed
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%s: cut off after %v", request, took)
			}
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
			<-served
			_ = here.Close()
		})
	}
}
