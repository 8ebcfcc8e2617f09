package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

func TestAPIVersionsListsTheTable(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, "test-client", "1.2.3"
		resp := call[*kmsg.ApiVersionsResponse](c, req)
		if resp.ErrorCode != 0 || len(resp.ApiKeys) != len(r.b.apis) {
			t.Fatalf("v%d: error %d, %d keys", version, resp.ErrorCode, len(resp.ApiKeys))
		}
		for i, k := range resp.ApiKeys {
			if a := r.b.apis[i]; k.ApiKey != a.key || k.MinVersion != a.min || k.MaxVersion != a.max {
				t.Fatalf("v%d: %+v is not %s", version, k, a.name)
			}
		}
		if version >= 3 && (resp.FinalizedFeaturesEpoch != 0 || len(resp.FinalizedFeatures) != len(features)) ||
			len(resp.SupportedFeatures) != int(version/4)*len(features) {
			t.Fatalf("v%d: features %+v", version, resp)
		}
		finalized := map[string]int16{}
		for _, f := range resp.FinalizedFeatures {
			finalized[f.Name] = f.MaxVersionLevel
		}
		if version >= 3 && (finalized["transaction.version"] != 2 || finalized["group.version"] != 1) {
			t.Fatalf("v%d: finalized %v: clients would do without the protocols of KIP-890 and KIP-848", version, finalized)
		}
	}
	for _, a := range r.b.apis {
		if a.key == 71 || a.key == 72 {
			t.Errorf("%s is advertised: clients push their metrics as soon as it is", a.name)
		}
	}
	if p := r.b.apis[0]; p.key != 0 || p.min != 0 || p.refuseBelow != 3 {
		t.Fatalf("librdkafka before 2.11 looks for Produce v0: %+v", p)
	}
}

// KIP-511: the answer to a version we do not know is a v0 body with our range, whatever the body was.
func TestAPIVersionsTooNew(t *testing.T) {
	c := newRig(t, nil).dial()
	for _, version := range []uint16{5, 6, 99, 1<<15 - 1, 1<<16 - 1} {
		frame := []byte{0, 18, byte(version >> 8), byte(version), 0, 0, 0, 42, 0xff, 0xff, 1, 2, 3}
		c.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
		corr, body, err := c.read()
		want := []byte{0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}
		if err != nil || corr != 42 || !bytes.Equal(body, want) {
			t.Fatalf("v%d: %x, %v", version, body, err)
		}
	}
	c.versions()
}

func TestAPIVersionsRefusesBadSoftwareNames(t *testing.T) {
	c := newRig(t, nil).dial()
	for _, name := range []string{"", "-a", "a-", "a b", "a\n"} {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, name, "1"
		if resp := call[*kmsg.ApiVersionsResponse](c, req); resp.ErrorCode != kerr.InvalidRequest.Code || len(resp.ApiKeys) != 0 {
			t.Fatalf("%q: %+v", name, resp)
		}
	}
}

// What cannot be answered closes the connection, and nothing else happens.
func TestBadFramesCloseTheConnection(t *testing.T) {
	frame := func(b ...byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	header := func(key, version int16) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(key))
		b = binary.BigEndian.AppendUint16(b, uint16(version))
		return append(b, 0, 0, 0, 1, 0xff, 0xff)
	}
	for name, bad := range map[string][]byte{
		"size 0":                     {0, 0, 0, 0},
		"size below a header":        {0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0},
		"negative size":              {0xff, 0xff, 0xff, 0xff},
		"size above the limit":       {0x7f, 0xff, 0xff, 0xff},
		"no client id":               frame(0, 18, 0, 0, 0, 0, 0, 1),
		"client id longer than all":  frame(0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"unknown key":                frame(header(999, 0)...),
		"negative key":               frame(header(-1, 0)...),
		"a key between brokers":      frame(header(4, 0)...),
		"version too new":            frame(header(2, 12)...),
		"version too old":            frame(header(1, 3)...),
		"negative version":           frame(header(0, -1)...),
		"fetch cut short":            frame(append(header(1, 4), 0, 0)...),
		"produce cut short":          frame(append(header(0, 9), 0, 0)...),
		"ordinary cut short":         frame(append(header(2, 1), 0, 0)...),
		"bytes left over in produce": frame(append(header(0, 3), 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9)...),
		"20 million tags":            frame(append(header(22, 2), 0x80, 0xda, 0xc4, 0x09)...),
		"array of 2^31-1":            frame(append(header(2, 1), 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff)...),
		"body above its limit":       frame(append(header(22, 0), make([]byte, smallBody+1)...)...),
		"fetch above its limit":      frame(append(header(1, 4), make([]byte, fetchBody+1)...)...),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			other, c := r.dial(), r.dial()
			go c.nc.Write(bad) // the broker need not read all of it
			c.closed()
			other.versions()
		})
	}
}

func TestPanicClosesOneConnection(t *testing.T) {
	r := newRig(t, nil)
	row, _ := r.b.api(60)
	row.handle = func(*Broker, context.Context, *request) (kmsg.Response, error) { panic("a bug") }
	other, c := r.dial(), r.dial()
	c.send(kmsg.NewPtrDescribeClusterRequest())
	c.closed()
	other.versions()

	r.logs["orders-0"].readErr = errPanicking{}
	c = r.dial()
	c.send(fetchRequest(4, "orders", map[int32]int64{0: 0}))
	c.closed()
	other.versions()
}

// errPanicking panics when it is asked what it is: on the response goroutine.
type errPanicking struct{}

func (errPanicking) Error() string { panic("a bug") }
func (errPanicking) Is(error) bool { panic("a bug") }

// Requests are handled in order and as soon as they arrive; responses keep the order however long one takes.
func TestPipelinedResponsesKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		log := r.logs["orders-0"]
		log.manual = true
		var reqs []kmsg.Request
		for i := range 5 {
			reqs = append(reqs, produceRequest(9, -1, "orders", records(0, batch(int32(i+1), 100))), kmsg.NewPtrInitProducerIDRequest())
		}
		for _, req := range reqs {
			c.send(req)
		}
		synctest.Wait()
		if end := log.Offsets().End; end != 15 {
			t.Fatalf("log end %d: reading waited for the first response", end)
		}
		log.sync()
		next := int64(0)
		for i, req := range reqs {
			resp := c.receive(req, int32(i+1))
			p, ok := resp.(*kmsg.ProduceResponse)
			if !ok {
				continue
			}
			part := p.Topics[0].Partitions[0]
			if part.ErrorCode != 0 || part.BaseOffset != next {
				t.Fatalf("response %d: %+v, want base offset %d", i, part, next)
			}
			next += int64(i/2 + 1)
		}
	})
}

// A client that sends and does not read is not read from for ever.
func TestPipeliningIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.WriteTimeout = long })
		c := r.dial()
		sent := 0
		go func() {
			for {
				if _, err := c.nc.Write(c.frame(kmsg.NewPtrInitProducerIDRequest())); err != nil {
					return
				}
				sent++
			}
		}()
		synctest.Wait()
		if sent < maxQueuedReplies || sent > maxQueuedReplies+3 {
			t.Fatalf("%d requests were read", sent)
		}
		if used, _ := r.b.budget.usage(); used != 0 { // others wait for it
			t.Errorf("%d bytes of requests are held for a client that does not read", used)
		}
		c.nc.Close()
		synctest.Wait()
	})
}

// Responses that wait for others hold what their requests brought, or as much: requests behind a large one are not read.
func TestPipeliningOfLargeRequestsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		parked := fetchRequest(4, "orders", map[int32]int64{0: 0})
		parked.MaxWaitMillis = 300_000
		c.send(parked)
		sent := 0
		go func() {
			req := kmsg.NewPtrSyncGroupRequest()
			req.Group = "g"
			req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: "m", MemberAssignment: make([]byte, 1<<20)}}
			for {
				if _, err := c.nc.Write(c.frame(req)); err != nil {
					return
				}
				sent++
			}
		}()
		synctest.Wait()
		if sent > 2 {
			t.Errorf("%d requests of 1 MiB were read behind one that is not answered yet", sent)
		}
		c.nc.Close()
		synctest.Wait()
	})
}

// Many clients that ask and do not read hold little: when all together have enough waiting, each has one response at a time.
func TestResponsesOfAllAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.WriteTimeout = long })
		const one = 1 << 10 // more than a response takes
		r.b.maxQueued = 20 * one
		clients := make([]*client, 10)
		for i := range clients {
			clients[i] = r.dial()
			go func() {
				for {
					if _, err := clients[i].nc.Write(clients[i].frame(kmsg.NewPtrInitProducerIDRequest())); err != nil {
						return
					}
				}
			}()
			synctest.Wait()
		}
		if most := r.b.maxQueued + int64(len(clients))*one; r.b.queued.Load() > most || r.b.queued.Load() < r.b.maxQueued/2 {
			t.Errorf("%d bytes of responses wait, want %d at most", r.b.queued.Load(), most)
		}
		for _, c := range clients {
			if corr, _, err := c.read(); err != nil || corr != 1 {
				t.Fatalf("response %d, %v", corr, err)
			}
		}
		for _, c := range clients {
			c.nc.Close()
		}
		synctest.Wait()
		if n := r.b.queued.Load(); n != 0 {
			t.Errorf("%d bytes are counted when all is over", n)
		}
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.IdleTimeout = time.Minute })
		c := r.dial()
		time.Sleep(59 * time.Second)
		c.versions()
		began := time.Now()
		c.closed()
		if d := time.Since(began); d < time.Minute || d > time.Minute+time.Second {
			t.Fatalf("closed after %v", d)
		}
	})
}

func TestParkedFetchIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.IdleTimeout = time.Minute })
		c := r.dial()
		req := fetchRequest(4, "orders", map[int32]int64{0: 0})
		req.MaxWaitMillis = 150_000
		began := time.Now()
		resp := call[*kmsg.FetchResponse](c, req)
		if d := time.Since(began); d != 150*time.Second || len(resp.Topics[0].Partitions[0].RecordBatches) != 0 {
			t.Fatalf("answered after %v: %+v", d, resp)
		}
		c.versions()
	})
}

// A sender below 16 KiB/s is closed once the grace time is over; one above it is not.
func TestSlowSenders(t *testing.T) {
	for rate, dies := range map[int]bool{1 << 10: true, 32 << 10: false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.dial()
			frame := c.frame(produceRequest(9, 1, "orders", records(0, batch(1, 4<<20))))
			if dies {
				frame = frame[:256<<10]
			}
			for at := 0; at < len(frame); {
				n := min(rate, len(frame)-at)
				if _, err := c.nc.Write(frame[at : at+n]); err != nil {
					if !dies {
						t.Fatalf("at %d: %v", at, err)
					}
					return
				}
				at += n
				time.Sleep(time.Second)
			}
			if dies {
				t.Fatal("was not closed")
			}
			if _, _, err := c.read(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestHalfALengthPrefixIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRig(t, nil).dial()
		c.write([]byte{0, 0})
		began := time.Now()
		c.closed()
		if d := time.Since(began); d > 31*time.Second {
			t.Fatalf("closed after %v", d)
		}
	})
}

func TestStalledReaderIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		c.send(kmsg.NewPtrInitProducerIDRequest())
		time.Sleep(31 * time.Second)
		if n := r.b.Connections(); n != 0 {
			t.Fatalf("%d connections", n)
		}
	})
}

// addressed is a connection from an address of the test's choice.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

func TestConnectionLimits(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxConnections, o.MaxConnectionsPerIP = 3, 2 })
	connect := func(ip string) *client {
		server, nc := net.Pipe()
		t.Cleanup(func() { nc.Close() })
		r.b.admit(r.ctx, &endpoint{}, addressed{server, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}})
		return &client{t: t, nc: nc}
	}
	a := connect("10.0.0.1")
	a.versions()
	connect("::ffff:10.0.0.1").versions()
	connect("10.0.0.1").closed() // the third of this address
	connect("10.0.0.2").versions()
	connect("10.0.0.3").closed() // the fourth of all
	a.nc.Close()
	waitUntil(t, "the end of a connection", func() bool { return r.b.Connections() == 2 })
	connect("10.0.0.1").versions()
}

func TestShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		log := r.logs["orders-0"]
		log.manual = true
		idle, fetching, producing := r.dial(), r.dial(), r.dial()
		fetch := fetchRequest(4, "orders", map[int32]int64{1: 0})
		fetch.MaxWaitMillis = 3_600_000
		fetching.send(fetch)
		produce := produceRequest(9, -1, "orders", records(0, batch(1, 100)))
		produce.TimeoutMillis = 3_600_000
		producing.send(produce)
		synctest.Wait()
		began := time.Now()
		done := make(chan error)
		go func() { done <- r.b.Shutdown(context.Background()) }()
		idle.closed()
		fetching.receive(fetch, 1)
		fetching.closed()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("shut down before the last response")
		default:
		}
		log.sync()
		if resp := producing.receive(produce, 1).(*kmsg.ProduceResponse); resp.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Fatalf("%+v", resp)
		}
		producing.closed()
		if err := <-done; err != nil || time.Since(began) != 0 {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if err := r.b.Serve(context.Background(), "plain", &pipeListener{}); !errors.Is(err, ErrServing) {
			t.Fatalf("serve after shutdown: %v", err)
		}
	})
}

func TestShutdownCutsOffAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.logs["orders-0"].manual = true
		c := r.dial()
		req := produceRequest(9, -1, "orders", records(0, batch(1, 100)))
		req.TimeoutMillis = 3_600_000
		c.send(req)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		c.closed()
	})
}

// stopsInTime stops a broker that has something to wait for: it gives up soon after its deadline.
func stopsInTime(t *testing.T, b *Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Shutdown(ctx) }()
	select {
	case err := <-stopped:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10*time.Second + 2*cutTime):
		t.Error("it waits for the device")
	}
}

// A request that waits for a device that never answers does not keep the rest from being stopped.
func TestShutdownLeavesBehindWhatADeviceDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		hang := make(chan struct{})
		r.logs["orders-0"].hang = hang
		c := r.dial()
		c.send(produceRequest(9, 1, "orders", records(0, batch(1, 100))))
		synctest.Wait()
		stopsInTime(t, r.b)
		close(hang)
		c.closed()
	})
}

// hungState are logs of which that of the groups is on a device that does not answer.
type hungState struct {
	fakeLogs
	hang chan struct{}
}

func (l hungState) groupLog(int32) (groups.Log, bool) {
	<-l.hang
	return nil, false
}

// The same for a coordinator that waits for such a device, with no connection left.
func TestShutdownLeavesBehindACoordinatorThatADeviceDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meta, err := metadata.Open(vfs.NewMem(1), "lagoon-metadata", metadata.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer meta.Close()
		hang := make(chan struct{})
		b, err := newBroker(Options{Metadata: meta, Logger: slog.New(slog.DiscardHandler)}.withDefaults(), hungState{fakeLogs{}, hang})
		if err != nil {
			t.Fatal(err)
		}
		b.groups.Start(1)
		synctest.Wait()
		stopsInTime(t, b)
		close(hang)
	})
}

// pipeListener fails on purpose, then hands out pipes.
type pipeListener struct {
	errs  []error
	conns chan net.Conn
	last  error // once conns is closed
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	nc, ok := <-l.conns
	if !ok {
		return nil, l.last
	}
	return nc, nil
}

func (l *pipeListener) Close() error   { return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 9092} }

func TestServe(t *testing.T) {
	r := newRig(t, nil)
	if err := r.b.Serve(r.ctx, "no such endpoint", &pipeListener{}); err == nil {
		t.Fatal("an endpoint that is not configured was served")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- r.b.Serve(r.ctx, "plain", ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &client{t: t, nc: nc}
	c.versions()
	r.logs["orders-0"].fill(t, 3, 300<<10)
	resp := call[*kmsg.FetchResponse](c, fetchRequest(12, "orders", map[int32]int64{0: 0}))
	if n := len(resp.Topics[0].Partitions[0].RecordBatches); n != 900<<10 {
		t.Fatalf("%d bytes", n)
	}
	if err := r.b.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("after shutdown: %v", err)
	}
}

func TestAcceptSurvivesShortages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		broken := errors.New("broken")
		ln := &pipeListener{conns: make(chan net.Conn), last: broken}
		for range 5 {
			ln.errs = append(ln.errs, &net.OpError{Op: "accept", Err: syscall.EMFILE})
		}
		done := make(chan error)
		go func() { done <- r.b.Serve(r.ctx, "plain", ln) }()
		server, nc := net.Pipe()
		ln.conns <- server
		(&client{t: t, nc: nc}).versions()
		nc.Close()
		close(ln.conns)
		if err := <-done; !errors.Is(err, broken) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		done := make(chan struct{})
		lease := func() *lease { return &lease{b: b, done: done, patience: 10 * time.Second} }
		first, second, third := lease(), lease(), lease()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(first.Acquire(60))
		must(second.Acquire(60)) // over the limit: the overdraft
		must(second.Acquire(1000))
		if !second.overdrawn.Load() || first.overdrawn.Load() {
			t.Fatal("the overdraft is not the second's")
		}
		got := make(chan error, 1)
		go func() { got <- third.Acquire(10) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("a third went over the limit")
		default:
		}
		second.Release(1060)
		must(<-got)
		if used, waits := b.usage(); used != 70 || waits != 1 {
			t.Fatalf("%d in use, %d waits", used, waits)
		}

		// Patience ends a wait, and what it had asked for is not counted.
		must(second.Acquire(60))
		if err := third.Acquire(50); !errors.Is(err, errBudget) {
			t.Fatalf("got %v", err)
		}
		go func() { got <- third.Acquire(50) }()
		synctest.Wait()
		close(done)
		if err := <-got; !errors.Is(err, errBudget) {
			t.Fatalf("got %v", err)
		}
		first.Release(60)
		second.Release(60)
		third.Release(10)
		if used, _ := b.usage(); used != 0 {
			t.Fatalf("%d in use", used)
		}
	})
}

// Many large frames at once end, whatever the limit: the overdraft lets one through at a time.
func TestLargeFramesPassASmallBudget(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxInFlightBytes = 1 << 20 })
	done := make(chan error)
	for range 8 {
		c := r.dial()
		frame := c.frame(produceRequest(9, 1, "orders", records(0, batch(1, 3<<20))))
		go func() {
			_, err := c.nc.Write(frame)
			if err == nil {
				_, _, err = c.read()
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if end := r.logs["orders-0"].Offsets().End; end != 8 {
		t.Fatalf("log end %d", end)
	}
}

func TestTableIsInOrderAndWhole(t *testing.T) {
	table := apiTable()
	for i, a := range table {
		if i > 0 && table[i-1].key >= a.key {
			t.Errorf("%s is out of order", a.name)
		}
		if a.name != kmsg.NameForKey(a.key) && a.name != "InitProducerId" {
			t.Errorf("key %d is called %s, not %s", a.key, kmsg.NameForKey(a.key), a.name)
		}
		ordinary := a.body != nil && (a.handle != nil) != (a.begin != nil) && a.maxBody > 0 && a.start == nil
		if own := a.start != nil && a.body == nil && a.handle == nil && a.begin == nil; ordinary == own {
			t.Errorf("%s has not exactly one way to be served", a.name)
		}
		if ordinary && (a.body().Key() != a.key || a.body().MaxVersion() < a.max) {
			t.Errorf("%s decodes %T up to v%d", a.name, a.body(), a.body().MaxVersion())
		}
		if a.min < 0 || a.max < a.min {
			t.Errorf("%s: versions %d to %d", a.name, a.min, a.max)
		}
	}
}

// cutConn is a connection whose client sends no more than so many bytes; then Read gives err.
type cutConn struct {
	net.Conn
	left int
	err  error
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, c.err
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// dialCut connects a client that sends n bytes.
func (r *rig) dialCut(n int, err error) *client {
	r.t.Helper()
	server, nc := net.Pipe()
	r.t.Cleanup(func() { nc.Close() })
	r.b.admit(r.ctx, &endpoint{Endpoint: r.b.opt.Endpoints[0]}, &cutConn{server, n, err})
	return &client{t: r.t, nc: nc}
}

// A client that shuts down its sending side gets what it has asked for, as from Kafka: a fetch that is parked at once.
func TestHalfClosedConnectionIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		log := r.logs["orders-0"]
		log.manual = true
		fetch := fetchRequest(4, "orders", map[int32]int64{1: 0})
		fetch.MaxWaitMillis = 150_000
		produce := produceRequest(9, -1, "orders", records(0, batch(1, 100)))
		sizes := client{}
		c := r.dialCut(len(sizes.frame(fetch))+len(sizes.frame(produce)), io.EOF)
		c.send(fetch)
		c.send(produce)
		began := time.Now()
		c.receive(fetch, 1)
		if d := time.Since(began); d != 0 {
			t.Errorf("a parked fetch of a client that sends nothing more took %v", d)
		}
		synctest.Wait()
		log.sync()
		if resp := c.receive(produce, 2).(*kmsg.ProduceResponse); resp.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Errorf("%+v", resp)
		}
		c.closed()
	})
}

// closings are the connections closed by the broker, by reason.
func closings(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for key, n := range gathered(t, reg) {
		if reason, ok := strings.CutPrefix(key, "lagoon_broker_connections_closed_total{reason="); ok {
			out[strings.TrimSuffix(reason, "}")] = n
		}
	}
	return out
}

// What clients do to their connections is not counted as what the broker does.
func TestConnectionsThatClientsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		r := newRig(t, func(o *Options) { o.Registerer = reg })
		r.dialCut(0, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)})
		c := r.dialCut(30, io.EOF) // in the middle of a frame
		c.write(c.frame(produceRequest(9, 1, "orders", records(0, batch(1, 100))))[:30])
		gone := r.dial()
		gone.send(kmsg.NewPtrInitProducerIDRequest())
		synctest.Wait()
		gone.nc.Close() // with a response on its way
		synctest.Wait()
		if n := r.b.Connections(); n != 0 {
			t.Fatalf("%d connections", n)
		}
		if got := closings(t, reg); len(got) != 0 {
			t.Errorf("closed by the broker: %v", got)
		}
	})
}

// brokenLog has records that cannot be read when they are sent.
type brokenLog struct{ *fakeLog }

type brokenPayload struct{ *lent }

func (brokenPayload) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

func (l brokenLog) Read(req partition.ReadRequest) (readResult, error) {
	res, err := l.fakeLog.Read(req)
	if res.Records != nil {
		res.Records = brokenPayload{res.Records.(*lent)}
	}
	return res, err
}

// A disk that fails under a response is told as such: in the log, and among the reasons for which connections were closed.
func TestReadErrorWhileSendingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, lines := prometheus.NewRegistry(), new(bytes.Buffer)
		r := newRig(t, func(o *Options) {
			o.Registerer, o.Logger = reg, slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		r.logs["orders-0"].fill(t, 1, 100)
		r.b.logs = stackLogs{brokenLog{r.logs["orders-0"]}}
		c := r.dial()
		c.send(fetchRequest(4, "orders", map[int32]int64{0: 0}))
		c.closed()
		synctest.Wait()
		if got := closings(t, reg); got["read"] != 1 || len(got) != 1 || !strings.Contains(lines.String(), syscall.EIO.Error()) {
			t.Errorf("closed by the broker: %v; log: %s", got, lines)
		}
	})
}

// A connection may change its client id while a response of the one before fails.
func TestClientIDChangesWhileAResponseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		c.send(kmsg.NewPtrInitProducerIDRequest())
		other := kmsg.NewRequestFormatter(kmsg.FormatterClientID("other"))
		c.write(other.AppendRequest(nil, kmsg.NewPtrInitProducerIDRequest(), 2))
		time.Sleep(31 * time.Second) // the write timeout
		if n := r.b.Connections(); n != 0 {
			t.Fatalf("%d connections", n)
		}
	})
}

// A request that names many more partitions than there are takes many times its bytes while it is answered: it is refused. One that names
// some that are not there is not.
func TestRequestsThatNameTooMuch(t *testing.T) {
	const few, many = 9_000, 20_000
	r := newRig(t, nil)
	fetch := func(n int32) kmsg.Request {
		req := fetchRequest(4, "orders", map[int32]int64{0: 0})
		for p := range n {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition = 5 + p
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, part)
		}
		return req
	}
	produce := func(n int32) kmsg.Request {
		req := produceRequest(3, 1, "orders")
		for p := range n {
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, records(5+p, nil))
		}
		return req
	}
	for name, request := range map[string]func(n int32) kmsg.Request{"fetch": fetch, "produce": produce} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			if err := c.nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			req := request(few)
			frame := c.frame(req)
			go func() { _, _ = c.nc.Write(frame) }()
			c.receive(req, c.corr)
			frame = c.frame(request(many))
			go func() { _, _ = c.nc.Write(frame) }()
			c.closed()
		})
	}
}
