package bench_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

const (
	idleConnections = 10_000
	idleBound       = 300 * mib
)

// TestIdleConnections holds ten thousand connections, each of which has made a request, and then has each make another one. It takes
// about three seconds.
func TestIdleConnections(t *testing.T) {
	rss, perConn := idle(t)
	t.Logf("%d idle connections: resident memory %d MiB, %d bytes each", idleConnections, rss/mib, perConn)
	if rss > idleBound {
		t.Errorf("%d MiB, bound %d MiB", rss/mib, idleBound/mib)
	}
}

func BenchmarkIdleConnections(b *testing.B) {
	var rss, perConn int64
	for b.Loop() {
		rss, perConn = idle(b)
	}
	b.ReportMetric(float64(rss)/mib, "MiB-RSS")
	b.ReportMetric(float64(perConn), "B/conn")
	hold(b, float64(rss)/mib, idleBound/mib)
}

func idle(t testing.TB) (rss, perConn int64) {
	t.Helper()
	needFiles(t, idleConnections+200)
	limit := fmt.Sprint(idleConnections + 100)
	broker := start(t, "server.limits.connections="+limit, "server.limits.connections_per_ip="+limit)
	before := memory(t, broker.PID(), "RssAnon")
	conns := make([]net.Conn, idleConnections) // bare: the client's memory is another process's, but it is this machine's
	for i := range conns {
		c, err := net.Dial("tcp", broker.Bootstrap())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		conns[i] = c
		ask(t, i, c)
	}
	rss = memory(t, broker.PID(), "VmRSS")
	perConn = (memory(t, broker.PID(), "RssAnon") - before) / idleConnections
	for i, c := range conns {
		ask(t, i, c)
	}
	lagoontest.CreateTopic(t, broker, "after", 1) // and a new client finds its place
	return rss, perConn
}

// ask makes one request and checks its answer.
func ask(t testing.TB, i int, c net.Conn) {
	t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 2
	if _, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("idle")).AppendRequest(nil, req, int32(i))); err != nil {
		t.Fatalf("connection %d: %v", i, err)
	}
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatalf("connection %d: %v", i, err)
	}
	body := make([]byte, min(binary.BigEndian.Uint32(size[:]), 1<<16))
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatalf("connection %d: %v", i, err)
	}
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if corr := int32(binary.BigEndian.Uint32(body)); corr != int32(i) {
		t.Fatalf("connection %d: answer to request %d", i, corr)
	}
	if err := resp.ReadFrom(body[4:]); err != nil || resp.ErrorCode != 0 || len(resp.ApiKeys) == 0 {
		t.Fatalf("connection %d: %v, error %d, %d apis", i, err, resp.ErrorCode, len(resp.ApiKeys))
	}
}
