package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// rss is the resident memory of a process in bytes, page cache not included: anonymous pages only.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

// memory watches how far a broker's memory grows.
type memory struct {
	t     *testing.T
	start int64
	peak  int64
	stop  chan struct{}
	done  sync.WaitGroup
}

func watchMemory(t *testing.T, b *lagoontest.Broker) *memory {
	t.Helper()
	m := &memory{t: t, start: rss(t, b.PID()), stop: make(chan struct{})}
	m.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.peak = max(m.peak, rss(t, b.PID()))
			}
		}
	})
	return m
}

// bounded ends the watch and fails when memory grew by more.
func (m *memory) bounded(limit int64) {
	m.t.Helper()
	close(m.stop)
	m.done.Wait()
	grown := m.peak - m.start
	if grown > limit {
		m.t.Errorf("memory grew by %d MiB, allowed are %d", grown>>20, limit>>20)
	}
	m.t.Logf("memory grew by %d MiB from %d MiB", max(grown, 0)>>20, m.start>>20)
}

// citizen is a client that behaves: it produces a record and reads it back, again and again, and takes the time.
type citizen struct {
	t      *testing.T
	cl     *kgo.Client
	stop   context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	trips  []time.Duration
	broken error
	news   chan struct{} // one is in it when there are more trips
}

func startCitizen(t *testing.T, b *lagoontest.Broker, topic string) *citizen {
	t.Helper()
	lagoontest.CreateTopic(t, b, topic, 1)
	c := &citizen{t: t, news: make(chan struct{}, 1)}
	c.cl = lagoontest.Client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.DefaultProduceTopic(topic), kgo.ClientID("citizen"), kgo.KeepRetryableFetchErrors())
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			err := c.trip(ctx, fmt.Sprint(i))
			if ctx.Err() != nil {
				return
			}
			c.mu.Lock()
			c.trips = append(c.trips, time.Since(began))
			if err != nil && c.broken == nil {
				c.broken = err
			}
			c.mu.Unlock()
			select {
			case c.news <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() { cancel(); c.done.Wait() })
	return c
}

func (c *citizen) trip(ctx context.Context, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := c.cl.ProduceSync(ctx, &kgo.Record{Value: []byte(value)}).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	for {
		fetches := c.cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		for _, r := range fetches.Records() {
			if string(r.Value) != value {
				return fmt.Errorf("read %q, written was %q", r.Value, value)
			}
			return nil
		}
	}
}

// more waits for n more round trips and gives them.
func (c *citizen) more(n int) []time.Duration {
	c.t.Helper()
	c.mu.Lock()
	from := len(c.trips)
	c.mu.Unlock()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		got, broken := slices.Clone(c.trips[from:]), c.broken
		c.mu.Unlock()
		switch {
		case broken != nil:
			c.t.Fatalf("the well-behaved client noticed: %v", broken)
		case len(got) >= n:
			return got
		}
		select {
		case <-c.news:
		case <-deadline.C:
			c.t.Fatalf("the well-behaved client made %d round trips in 3 minutes", len(got))
		}
	}
}

// unharmed: round trips go on, and none takes longer than limit.
func (c *citizen) unharmed(n int, limit time.Duration) {
	c.t.Helper()
	trips := c.more(n)
	slices.Sort(trips)
	if worst := trips[len(trips)-1]; worst > limit {
		c.t.Errorf("a well-behaved client's round trip took %v (median %v), allowed are %v", worst, trips[len(trips)/2], limit)
	}
	c.t.Logf("round trips of the well-behaved client: median %v, longest %v of %d", trips[len(trips)/2], trips[len(trips)-1], len(trips))
}

// dialMany opens n connections that are closed with the test.
func dialMany(t *testing.T, b *lagoontest.Broker, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", b.Bootstrap())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns[i] = c
		t.Cleanup(func() { _ = c.Close() })
	}
	return conns
}

// frame is a length prefix and a request header of version 1, which all old requests have.
func frame(claim int32, key, version int16, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(claim))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7) // correlation id
	b = binary.BigEndian.AppendUint16(b, 3)
	b = append(b, "bad"...)
	return append(b, body...)
}

// whole is frame with the right claim.
func whole(key, version int16, body []byte) []byte {
	b := frame(0, key, version, body)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// gone waits until the broker has closed the connection; what it answered before is given.
func gone(t *testing.T, c net.Conn, limit time.Duration) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	_, err := io.Copy(&answer, io.LimitReader(c, 1<<20))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open after %v", limit)
	}
	return answer.Bytes()
}
