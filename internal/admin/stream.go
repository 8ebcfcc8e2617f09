package admin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"lagoon/internal/nearest"
)

const (
	// frameEvery is the time between two frames; after one that took long there is a rest, so that frames take a fifth of a core at most, however
	// many clients come and go.
	frameEvery = time.Second
	frameRest  = 4
	// frameTimeout bounds the questions of one frame.
	frameTimeout = 10 * time.Second
	// maxStreams bounds open streams.
	maxStreams = 16
	// heartbeat is the longest silence on a stream.
	heartbeat = 15 * time.Second
	// sendTimeout is how long one event may take to go out.
	sendTimeout = 10 * time.Second
	// retryAfter is how long a client is asked to wait before it connects again.
	retryAfter = 2 * time.Second
)

// frame is all topics at one time. It does not change but for the cache of encodings.
type frame struct {
	seq   uint64 // 1, 2, …; a frame's delta is from seq-1
	now   time.Time
	docs  [numTopics]*document // nil: no answer yet
	delta [numTopics][]byte    // merge patches, nil: unchanged
	fresh topicSet             // have no predecessor: a client that wants them needs all of the frame

	once [numTopics]sync.Once
	full [numTopics][]byte
}

// topics are those that the frame tells.
func (f *frame) topics() (s topicSet) {
	for t, d := range f.docs {
		if d != nil {
			s |= 1 << t
		}
	}
	return s
}

func (f *frame) whole(t streamTopic) []byte {
	f.once[t].Do(func() { f.full[t] = f.docs[t].full() })
	return f.full[t]
}

// event is the frame's data for a client that wants topics and has the frame with the number last; nil: nothing changed for it.
func (f *frame) event(topics topicSet, last uint64) (name string, data []byte) {
	name = "full"
	if last == f.seq-1 && last > 0 && f.fresh&topics == 0 {
		name = "delta"
	}
	data = append(data, `{"now":`...)
	now, _ := json.Marshal(f.now) // a clock's time can always be
	data = append(data, now...)
	news := name == "full"
	for t := range numTopics {
		value := f.delta[t]
		if !topics.has(t) || f.docs[t] == nil {
			continue
		}
		if name == "full" {
			value = f.whole(t)
		}
		if value == nil {
			continue
		}
		news = true
		data = append(append(append(append(data, `,"`...), topicNames[t]...), `":`...), value...)
	}
	if !news {
		return name, nil
	}
	return name, append(data, '}')
}

// streams makes frames while somebody looks, once for all who do, and hands each client the newest: one that is too slow for some of
// them misses these, and gets all of the next one. Safe for concurrent use.
type streams struct {
	backend Backend
	now     func() time.Time
	log     *slog.Logger
	boot    string // in event ids: numbers begin anew with the process
	poke    chan struct{}
	work    sync.WaitGroup

	mu      sync.Mutex
	clients int
	wants   [numTopics]int // clients by topic
	newest  *frame         // stays after the last client has gone, so that it can resume
	changed chan struct{}  // closed and replaced with newest
	end     context.CancelFunc
	ended   chan struct{} // closed by the goroutine that end ends
	closed  chan struct{}
	events  eventLog  // of the goroutine that makes frames
	rested  time.Time // the same: no frame before
}

func newStreams(opt Options) *streams {
	return &streams{backend: opt.Backend, now: opt.Now, log: opt.Log, boot: rand.Text()[:8], poke: make(chan struct{}, 1), newest: &frame{},
		changed: make(chan struct{}), closed: make(chan struct{})}
}

// subscription is one client. Not safe for concurrent use.
type subscription struct {
	topics topicSet
	after  uint64 // frames up to this one are not for it
	last   uint64 // the frame that it has, 0: none
}

// join adds a client; resume is the number of the frame that it says it has, 0 for none. The last one to leave stops the work.
func (s *streams) join(topics topicSet, resume uint64) (*subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return nil, &httpError{status: http.StatusServiceUnavailable, kind: "draining", detail: "the broker is being stopped"}
	default:
	}
	if s.clients == maxStreams {
		return nil, &httpError{status: http.StatusServiceUnavailable, kind: "too-many-streams",
			detail: fmt.Sprintf("%d streams are open, the most there may be: close a page that shows this broker, or ask /api/v1/cache and its neighbours", maxStreams)}
	}
	c := &subscription{topics: topics, after: s.newest.seq, last: resume}
	if resume > s.newest.seq {
		c.last = 0
	}
	if s.clients > 0 && topics&^s.newest.topics() == 0 && s.newest.seq > 0 && resume != s.newest.seq {
		c.after-- // the newest frame is young, and has what is wanted
	}
	s.clients++
	for t := range numTopics {
		if topics.has(t) {
			s.wants[t]++
		}
	}
	if s.clients == 1 {
		ctx, end := context.WithCancel(context.Background())
		before, ended := s.ended, make(chan struct{})
		s.end, s.ended = end, ended
		s.work.Go(func() {
			defer close(ended)
			if before != nil {
				<-before // it has been told to end
			}
			s.run(ctx)
		})
	} else if c.after == s.newest.seq {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
	return c, nil
}

func (s *streams) leave(c *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	for t := range numTopics {
		if c.topics.has(t) {
			s.wants[t]--
		}
	}
	if s.clients == 0 {
		s.end()
	}
}

// close ends all streams and waits for the work on frames.
func (s *streams) close() {
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
		if s.end != nil {
			s.end()
		}
	}
	s.mu.Unlock()
	s.work.Wait()
}

// run makes frames until ctx ends.
func (s *streams) run(ctx context.Context) {
	s.events.forget()
	timer := time.NewTimer(time.Until(s.rested))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.poke:
			timer.Reset(time.Until(s.rested))
			continue
		case <-timer.C:
		}
		began := time.Now()
		s.make(ctx)
		took := time.Since(began)
		rest := min(frameRest*took, frameTimeout)
		s.rested = time.Now().Add(rest)
		timer.Reset(max(frameEvery-took, rest))
	}
}

// make asks the backend and publishes a frame.
func (s *streams) make(ctx context.Context) {
	s.mu.Lock()
	var wanted topicSet
	for t, n := range s.wants {
		if n > 0 {
			wanted |= 1 << t
		}
	}
	old := s.newest
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, frameTimeout)
	defer cancel()
	a := askAll(ctx, s.backend, wanted)
	if ctx.Err() != nil {
		return
	}
	next := &frame{seq: old.seq + 1, now: s.now().UTC()}
	if wanted.has(topicEvents) {
		s.events.observe(next.now, &a)
	}
	for t := range numTopics {
		if !wanted.has(t) {
			continue
		}
		doc, err := a.document(t, next.now, &s.events)
		if err != nil {
			s.log.Error("stream frame failed", "topic", topicNames[t], "err", err)
		}
		switch {
		case doc == nil || err != nil:
			next.docs[t] = old.docs[t]
		case old.docs[t] == nil:
			next.docs[t], next.fresh = doc, next.fresh|1<<t
		default:
			next.docs[t], next.delta[t] = doc, doc.patch(old.docs[t])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// next waits for a frame that the client has not seen; nil when ctx ends, when the streams are closed, or after limit.
func (s *streams) next(ctx context.Context, c *subscription, limit <-chan time.Time) (f *frame, open bool) {
	for {
		s.mu.Lock()
		f, changed := s.newest, s.changed
		s.mu.Unlock()
		select {
		case <-s.closed:
			return nil, false
		default:
		}
		if f.seq > c.after {
			c.after = f.seq
			return f, true
		}
		select {
		case <-changed:
		case <-limit:
			return nil, true
		case <-s.closed:
			return nil, false
		case <-ctx.Done():
			return nil, false
		}
	}
}

// id names a frame as a client with these topics got it.
func (s *streams) id(topics topicSet, seq uint64) string {
	return fmt.Sprintf("%s.%x.%d", s.boot, uint8(topics), seq)
}

// resumed is the number in a Last-Event-ID, 0 if it is not from here or for other topics.
func (s *streams) resumed(topics topicSet, id string) uint64 {
	number, ok := strings.CutPrefix(id, s.id(topics, 0)[:len(s.id(topics, 0))-1])
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0
	}
	return seq
}

func (c *call) topics() (topicSet, error) {
	text := c.query.Get("topics")
	if text == "" {
		return allTopics, nil
	}
	var out topicSet
	for name := range strings.SplitSeq(text, ",") {
		found := false
		for t, known := range topicNames {
			if name == known {
				out, found = out|1<<t, true
			}
		}
		if !found {
			e := &httpError{status: http.StatusBadRequest, kind: "invalid-request", detail: "topic " + quote(name) + " is not one of " + strings.Join(topicNames[:], ", ")}
			if best := nearest.Word(name, topicNames[:]); best != "" {
				e.suggestions = []string{best}
			}
			return 0, e
		}
	}
	return out, nil
}

// stream answers GET /api/v1/stream with server-sent events until the client goes away or the server is closed.
func (s *Server) stream(w http.ResponseWriter, c *call) error {
	topics, err := c.topics()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // proxies would hold events back
	if c.r.Method == http.MethodHead {
		return nil
	}
	client, err := s.streams.join(topics, s.streams.resumed(topics, c.r.Header.Get("Last-Event-ID")))
	if err != nil {
		return err
	}
	defer s.streams.leave(client)
	out := http.NewResponseController(w)
	send := func(text string) error {
		// Not all ResponseWriters have deadlines (tests use recorders).
		_ = out.SetWriteDeadline(time.Now().Add(sendTimeout))
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return out.Flush()
	}
	silence := time.NewTimer(heartbeat)
	defer silence.Stop()
	retry := fmt.Sprintf("retry: %d\n", retryAfter.Milliseconds())
	for {
		f, open := s.streams.next(c, client, silence.C)
		if !open {
			return nil
		}
		text := ": nothing new\n\n"
		if f != nil {
			name, data := f.event(topics, client.last)
			client.last = f.seq
			if data == nil {
				continue
			}
			text = fmt.Sprintf("%sid: %s\nevent: %s\ndata: %s\n\n", retry, s.streams.id(topics, f.seq), name, data)
			retry = ""
		}
		if send(text) != nil {
			return nil // the client went away: nobody is left to tell
		}
		silence.Reset(heartbeat)
	}
}
