package hostile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// calm is how long a well-behaved client's round trip may take at most, and a refusal: this is not about speed (the machine and its disk run
// other tests), but waiting for the memory, the locks or the deadlines of others, 30 s, would show.
const calm = 12 * time.Second

// patience is how long a test waits for what has to come in the end.
const patience = time.Minute

// TestClaims: length prefixes that promise much. Nothing may be allocated for a promise.
func TestClaims(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	c := startCitizen(t, b, "citizen")
	c.more(20)
	t.Run("beyond the limit", func(t *testing.T) {
		m := watchMemory(t, b)
		for _, conn := range dialMany(t, b, 250) {
			if _, err := conn.Write(frame(math.MaxInt32, 0, 9, nil)); err != nil {
				continue // closed already
			}
			gone(t, conn, calm)
		}
		c.unharmed(20, calm)
		m.bounded(64 << 20)
	})
	t.Run("within the limit, idle", func(t *testing.T) {
		m := watchMemory(t, b)
		for _, conn := range dialMany(t, b, 500) {
			if _, err := conn.Write(frame(100<<20, 0, 9, make([]byte, 100))); err != nil {
				t.Fatal(err)
			}
		}
		c.unharmed(50, calm)
		m.bounded(64 << 20)
	})
	t.Run("negative, zero, tiny", func(t *testing.T) {
		for _, claim := range []int32{math.MinInt32, -1, 0, 1, 7} {
			conn := dialMany(t, b, 1)[0]
			if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, uint32(claim))); err != nil {
				t.Fatal(err)
			}
			if answer := gone(t, conn, calm); len(answer) > 0 {
				t.Errorf("claim of %d: answered with % x", claim, answer)
			}
		}
	})
}

// TestHoarders send a good part of a large frame and stop, on so many connections that all of the memory for frames is theirs.
func TestHoarders(t *testing.T) {
	const budget = 64 << 20
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"server.limits.inflight_bytes=64MiB", "server.limits.request_bytes=16MiB"}})
	c := startCitizen(t, b, "citizen")
	c.more(20)
	m := watchMemory(t, b)
	part := frame(16<<20, 0, 9, make([]byte, 1100<<10))
	var wg sync.WaitGroup
	for _, conn := range dialMany(t, b, 100) {
		wg.Go(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second)) // the broker may stop reading
			_, _ = conn.Write(part)
		})
	}
	wg.Wait()
	c.unharmed(500, calm)
	m.bounded(budget*9/8 + 16<<20 + 64<<20)
}

// TestGarbage sends noise and broken requests for every API. Each connection may be closed or answered, nothing else may happen.
func TestGarbage(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	c := startCitizen(t, b, "citizen")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	noise := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	m := watchMemory(t, b)
	send := func(p []byte) {
		t.Helper()
		conn, err := net.Dial("tcp", b.Bootstrap())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // an answer is not what is asked for
		if _, err := conn.Write(p); err == nil {
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, io.LimitReader(conn, 4<<20))
		}
	}
	for range 300 {
		send(noise(1 + r.IntN(2000)))
	}
	for key := int16(-2); key < 95; key++ {
		for _, version := range []int16{-1, 0, 1, 4, 9, 12, 99, math.MaxInt16} {
			send(whole(key, version, noise(r.IntN(300))))
			send(whole(key, version, nil))
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n"} {
		send([]byte(text))
	}
	c.unharmed(20, calm)
	m.bounded(64 << 20)
}

// TestBombs: small requests that decode to much.
func TestBombs(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	c := startCitizen(t, b, "citizen")
	c.more(20)
	u32 := binary.BigEndian.AppendUint32
	uvarint := binary.AppendUvarint
	fetchHead := func() []byte { // Fetch v12 up to its topics
		p := []byte{0}                    // header tags
		p = u32(p, math.MaxUint32)        // replica
		p = u32(u32(u32(p, 0), 0), 1<<20) // wait, min, max
		p = append(p, 0)                  // isolation
		return u32(u32(p, 0), math.MaxUint32)
	}
	repeat := func(p, item []byte, n int) []byte {
		for range n {
			p = append(p, item...)
		}
		return p
	}
	for _, row := range []struct {
		name string
		bomb []byte
	}{
		{"fetch of 3,000,000 empty topics", whole(1, 12, repeat(uvarint(fetchHead(), 3_000_001), []byte{1, 1, 0}, 3_000_000))},
		{"fetch of 1,000,000 empty topics", whole(1, 12, repeat(uvarint(fetchHead(), 1_000_001), []byte{1, 1, 0}, 1_000_000))},
		{"2^31 topics that are not there", whole(3, 1, u32(nil, math.MaxInt32))},
		{"2^32 topics, compact", whole(3, 9, uvarint([]byte{0}, math.MaxUint32))},
		{"1,000,000 header tags", whole(3, 9, repeat(uvarint(nil, 1_000_000), []byte{1, 1, 0}, 1_000_000))},
		{"produce of 500,000 empty topics", whole(0, 9, repeat(uvarint([]byte{0, 0, 255, 255, 0, 0, 0, 1}, 500_001), []byte{1, 1, 0}, 500_000))},
		{"metadata of 900 KB of names", whole(3, 1, repeat(u32(nil, 300_000), []byte{0, 1, 'x'}, 300_000))},
		{"create of 80,000 topics", whole(19, 1, append(repeat(u32(nil, 80_000), []byte{0, 1, 'y', 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 60_000), 0, 0))},
		{"describe of 100,000 resources", whole(32, 0, repeat(u32(nil, 100_000), []byte{2, 0, 1, 'z', 255, 255, 255, 255}, 100_000))},
		{"offsets of 100,000 x 1 partition", whole(2, 1, repeat(u32(u32(nil, math.MaxUint32), 100_000), []byte{0, 1, 'w', 0, 0, 0, 0}, 100_000))},
	} {
		t.Run(row.name, func(t *testing.T) {
			bomb := row.bomb
			m := watchMemory(t, b)
			var wg sync.WaitGroup
			for _, conn := range dialMany(t, b, 10) {
				wg.Go(func() {
					_ = conn.SetDeadline(time.Now().Add(patience))
					if _, err := conn.Write(bomb); err == nil {
						_ = conn.(*net.TCPConn).CloseWrite()
					}
					_, _ = io.Copy(io.Discard, conn)
				})
			}
			wg.Wait()
			c.unharmed(5, calm)
			m.bounded(int64(10*len(bomb)) + 192<<20) // ten at once, and what the collector has not got to on a busy machine
		})
	}
}

// TestDawdlers: connections that say nothing, that send byte by byte, and that ask and never read.
func TestDawdlers(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"server.limits.idle_timeout=2s"}})
	c := startCitizen(t, b, "citizen")
	lagoontest.CreateTopic(t, b, "big", 1)
	cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic("big"))
	for range 32 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 500<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	m := watchMemory(t, b)
	silent := dialMany(t, b, 200)
	slow := dialMany(t, b, 200)
	deaf := dialMany(t, b, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	request := whole(3, 1, []byte{255, 255, 255, 255})
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range request {
			for _, conn := range slow {
				_, _ = conn.Write(request[i : i+1]) // closed ones have been dealt with
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	for _, conn := range deaf {
		fetch := fetchBig(1 << 20)
		for range 50 {
			_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := conn.Write(fetch); err != nil {
				break
			}
		}
	}
	c.unharmed(100, calm)
	for _, conn := range silent {
		gone(t, conn, patience)
	}
	for i, conn := range slow { // byte by byte is slow, and no fault
		if answer := gone(t, conn, patience); len(answer) == 0 {
			t.Fatalf("request %d that came byte by byte was not answered", i)
		}
	}
	m.bounded(128 << 20)
}

// fetchBig asks for topic big from its start, Fetch v4.
func fetchBig(bytes uint32) []byte {
	u32 := binary.BigEndian.AppendUint32
	p := u32(u32(u32(u32(nil, math.MaxUint32), 0), 1), bytes)
	p = append(p, 0)
	p = append(u32(p, 1), 0, 3, 'b', 'i', 'g')
	p = u32(u32(p, 1), 0)
	p = binary.BigEndian.AppendUint64(p, 0)
	return whole(1, 4, u32(p, bytes))
}

// TestDrain: SIGTERM ends a broker within 10 s whatever its clients do, with status 0, and nothing acked is lost.
func TestDrain(t *testing.T) {
	b := lagoontest.Start(t, lagoontest.Options{})
	lagoontest.CreateTopic(t, b, "drain", 4)
	lagoontest.CreateTopic(t, b, "big", 1)
	big := lagoontest.Client(t, b, kgo.DefaultProduceTopic("big"))
	for range 32 {
		if err := big.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 500<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // runs when the clients are closed, which ends their calls whatever became of the broker
	defer cancel()
	var mu sync.Mutex
	acked, many := map[string]bool{}, make(chan struct{})
	for i := range 4 {
		cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic("drain"))
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				value := fmt.Sprintf("%d/%d", i, n)
				if err := cl.ProduceSync(ctx, &kgo.Record{Value: append([]byte(value), make([]byte, 2000)...)}).FirstErr(); err == nil {
					mu.Lock()
					if acked[value] = true; len(acked) == 500 {
						close(many)
					}
					mu.Unlock()
				}
			}
		})
	}
	for range 4 {
		cl := lagoontest.Client(t, b, kgo.ConsumeTopics("drain"), kgo.FetchMaxWait(30*time.Second), kgo.FetchMinBytes(50<<20))
		wg.Go(func() {
			for ctx.Err() == nil {
				cl.PollFetches(ctx)
			}
		})
	}
	dialMany(t, b, 50)
	for _, conn := range dialMany(t, b, 20) { // half a frame
		if _, err := conn.Write(frame(1<<20, 0, 9, make([]byte, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range dialMany(t, b, 20) { // ask and never read
		for range 20 {
			_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := conn.Write(fetchBig(1 << 20)); err != nil {
				break
			}
		}
	}
	select {
	case <-many:
	case <-time.After(patience):
		t.Fatalf("fewer than 500 records acked in %v", patience)
	}
	began := time.Now()
	b.Signal(syscall.SIGTERM)
	select {
	case <-b.Exited():
	case <-time.After(patience):
	}
	took := time.Since(began)
	if took > 20*time.Second { // 10 s and what a busy machine makes of them; the clients' own deadlines are 30 s and more
		t.Errorf("the broker took %v to end", took)
	}
	if !strings.Contains(b.Logs(), "msg=stopped") {
		t.Error("the broker did not say that it stopped in order")
	}
	cancel()
	b.Restart()
	wg.Wait() // an idempotent client gives up nothing that may have been sent: its calls end when it has heard
	mu.Lock()
	defer mu.Unlock()
	found := map[string]bool{}
	cl := lagoontest.Client(t, b, kgo.ConsumeTopics("drain"))
	readCtx, done := context.WithTimeout(context.Background(), 3*time.Minute)
	defer done()
	missing := len(acked)
	for missing > 0 {
		fetches := cl.PollFetches(readCtx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d acked records are missing: %v", missing, len(acked), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			value := string(r.Value[:len(r.Value)-2000])
			if acked[value] && !found[value] {
				found[value] = true
				missing--
			}
		})
	}
	t.Logf("ended %v after SIGTERM; %d acked records are all there", took.Round(time.Millisecond), len(acked))
}
