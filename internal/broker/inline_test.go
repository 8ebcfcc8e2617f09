package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"lagoon/internal/partition"
)

// dialTCP connects over loopback, where the reader may send ready responses itself.
func (r *rig) dialTCP() *client {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.b.Serve(r.ctx, "plain", ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		nc.Close()
		ln.Close()
		if err := <-served; err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	if err := nc.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		r.t.Fatal(err)
	}
	return &client{t: r.t, nc: nc}
}

// stackLog notes which goroutine reads it: the connection's reader or its response goroutine.
type stackLog struct {
	*fakeLog
	reads chan string
}

func (l *stackLog) Read(req partition.ReadRequest) (readResult, error) {
	stack := make([]byte, 16<<10)
	stack = stack[:runtime.Stack(stack, false)]
	where := "response goroutine"
	if strings.Contains(string(stack), "readLoop") {
		where = "reader"
	}
	l.reads <- where
	return l.fakeLog.Read(req)
}

type stackLogs struct{ log0 partitionLog }

func (stackLogs) disconnected(uint64) {}

func (s stackLogs) log(string, int32) (partitionLog, bool) { return s.log0, true }

// A fetch whose records are there is answered by the reader, one that has to wait is not: what comes after it is read.
func TestReadyFetchIsAnsweredByTheReader(t *testing.T) {
	r := newRig(t, nil)
	log := &stackLog{r.logs["orders-0"], make(chan string, 100)}
	r.b.logs = stackLogs{log}
	log.fill(t, 1, 1000)
	c := r.dialTCP()
	ready := fetchRequest(11, "orders", map[int32]int64{0: 0})
	resp := call[*kmsg.FetchResponse](c, ready)
	if n := len(resp.Topics[0].Partitions[0].RecordBatches); n == 0 {
		t.Fatal("no records")
	}
	if where := <-log.reads; where != "reader" || len(log.reads) > 0 {
		t.Fatalf("read by the %s, and %d times more", where, len(log.reads))
	}

	// At the end: it parks. The produce behind it is read, and ends its wait.
	parked := fetchRequest(11, "orders", map[int32]int64{0: int64(log.end())})
	parked.MaxWaitMillis = 60_000
	c.send(parked)
	first := c.corr
	if where := <-log.reads; where != "reader" {
		t.Fatalf("first look by the %s", where)
	}
	if where := <-log.reads; where != "response goroutine" {
		t.Fatalf("second look by the %s", where)
	}
	produce := produceRequest(9, 1, "orders", records(0, batch(1, 100)))
	c.send(produce)
	fetched := c.receive(parked, first).(*kmsg.FetchResponse)
	if n := len(fetched.Topics[0].Partitions[0].RecordBatches); n == 0 {
		t.Fatal("the parked fetch was answered without records")
	}
	c.receive(produce, first+1)
}

// goneLogs notes which connections have ended.
type goneLogs struct {
	stackLogs
	gone chan uint64
}

func (g goneLogs) disconnected(conn uint64) { g.gone <- conn }

// connLog notes the connection of its reader.
type connLog struct {
	*fakeLog
	conns chan uint64
}

func (l *connLog) Read(req partition.ReadRequest) (readResult, error) {
	l.conns <- req.Reader.Conn
	return l.fakeLog.Read(req)
}

// What was read ahead for a consumer goes with its connection: also while one of its fetches waits.
func TestTheEndOfAConnectionIsTold(t *testing.T) {
	r := newRig(t, nil)
	log := &connLog{r.logs["orders-0"], make(chan uint64, 100)}
	g := goneLogs{stackLogs{log}, make(chan uint64, 10)}
	r.b.logs = g
	stays, goes := r.dialTCP(), r.dialTCP()
	log.fill(t, 1, 1000)
	call[*kmsg.FetchResponse](stays, fetchRequest(11, "orders", map[int32]int64{0: 0}))
	other := <-log.conns
	parked := fetchRequest(11, "orders", map[int32]int64{0: int64(log.end())})
	parked.MaxWaitMillis = 60_000
	goes.send(parked)
	conn := <-log.conns
	<-log.conns // it parks
	goes.nc.Close()
	if told := <-g.gone; told != conn || told == other {
		t.Errorf("connection %d was told, %d has ended, %d has not", told, conn, other)
	}
	if len(g.gone) > 0 {
		t.Errorf("connection %d, too", <-g.gone)
	}
}

// panicLog panics on the reader goroutine, in the first look.
type panicLog struct{ *fakeLog }

func (panicLog) Read(partition.ReadRequest) (readResult, error) { panic("a bug") }

func TestPanicOnTheReaderClosesOneConnection(t *testing.T) {
	r := newRig(t, nil)
	r.b.logs = stackLogs{panicLog{r.logs["orders-0"]}}
	c, other := r.dialTCP(), r.dialTCP()
	c.send(fetchRequest(11, "orders", map[int32]int64{0: 0}))
	if _, err := c.nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("got %v", err)
	}
	other.versions()
}

// A client that reads nothing holds up its own requests and nobody else; it is cut off after the write timeout.
func TestUnreadResponseEndsInTheWriteTimeout(t *testing.T) {
	r := newRig(t, func(o *Options) { o.WriteTimeout = time.Second }) // others are answered in time on a busy machine, too
	r.logs["orders-0"].fill(t, 24, 1<<20)
	c := r.dialTCP()
	if err := c.nc.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	req := fetchRequest(11, "orders", map[int32]int64{0: 0})
	req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 1<<30, 1<<30
	c.send(req)
	waitUntil(t, "the fetch to be read", func() bool { return r.logs["orders-0"].readCount() > 0 }) // before it nobody may be connected yet
	waitUntil(t, "the connection to be cut", func() bool { return r.b.Connections() == 0 })
	r.dialTCP().versions()
}

// waitUntil polls: what it waits for has no event that a test could see.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Connections to a loopback address are not paced, whatever the system's congestion control.
func TestLoopbackIsNotPaced(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	unpace(ln)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	raw, err := server.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if controlErr := raw.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, os.NewSyscallError("getsockopt", err))
	}
	if name = strings.TrimRight(name, "\x00"); name != "reno" {
		t.Fatalf("congestion control %q", name)
	}
}
