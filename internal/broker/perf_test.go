package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

// clientEnv makes a copy of the test binary a client in a process of its own, so that a measurement of this process is
// one of the broker alone.
const clientEnv = "LAGOON_TEST_CLIENT"

func TestMain(m *testing.M) {
	if role := os.Getenv(clientEnv); role != "" {
		if err := clientProcess(strings.Fields(role)); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// clientProcess plays one role: "idle ADDR N" holds N connections that have each made one request; "fetch ADDR BYTES N"
// fetches N times from orders-0 at offset 0. Each line of standard input repeats the role's work, "done" is answered.
func clientProcess(role []string) error {
	n, err := strconv.Atoi(role[len(role)-1])
	if err != nil {
		return err
	}
	hello := (&client{}).frame(kmsg.NewPtrApiVersionsRequest())
	open := func() (net.Conn, error) {
		nc, err := net.Dial("tcp", role[1])
		if err == nil {
			err = exchange(nc, hello)
		}
		return nc, err
	}
	var work func() error
	switch role[0] {
	case "idle":
		var held []net.Conn // one that is dropped is closed by its finalizer
		work = func() error {
			for range n {
				nc, err := open()
				if err != nil {
					return err
				}
				held = append(held, nc)
			}
			return nil
		}
	case "fetch":
		nc, err := open()
		if err != nil {
			return err
		}
		bytes, err := strconv.Atoi(role[2])
		if err != nil {
			return err
		}
		req := fetchRequest(11, "orders", map[int32]int64{0: 0})
		req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = int32(bytes), int32(bytes)
		frame := (&client{}).frame(req)
		work = func() error {
			for range n {
				if err := exchange(nc, frame); err != nil {
					return err
				}
			}
			return nil
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := work(); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

// discardBuffer is what responses are read into; io.Discard's own buffer is small.
var discardBuffer = make([]byte, 1<<20)

// exchange sends a request and reads its response away.
func exchange(nc net.Conn, frame []byte) error {
	if _, err := nc.Write(frame); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(nc, size[:]); err != nil {
		return err
	}
	for left := int(binary.BigEndian.Uint32(size[:])); left > 0; {
		n, err := nc.Read(discardBuffer[:min(left, len(discardBuffer))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// startClient runs a role; the function returned has it work once.
func startClient(t testing.TB, role string) (work func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientEnv+"="+role)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return func() {
		t.Helper()
		if _, err := io.WriteString(in, "go\n"); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != "done" {
			t.Fatalf("client %s: %q", role, lines.Text())
		}
	}
}

// cpuSeconds is the processor time this process has used.
func cpuSeconds(t testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// anonymousBytes is the resident memory of this process without file pages.
func anonymousBytes(t testing.TB) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no RssAnon in /proc/self/status")
	return 0
}

// Ten thousand idle connections must fit into 300 MiB.
func TestIdleConnectionsAreSmall(t *testing.T) {
	connections, limit := 10_000, int64(300<<20)
	if raceEnabled || testing.Short() {
		connections, limit = 200, 300<<20
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < uint64(connections)+1000 {
		if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
			t.Fatalf("%d open files are allowed", files.Cur)
		}
		t.Skipf("%d open files are allowed", files.Cur)
	}
	r := newRig(t, func(o *Options) { o.MaxConnections, o.MaxConnectionsPerIP = connections, connections })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- r.b.Serve(r.ctx, "plain", ln) }()
	work := startClient(t, fmt.Sprintf("idle %s %d", ln.Addr(), connections))
	debug.FreeOSMemory()
	before := anonymousBytes(t)
	work()
	if n := r.b.Connections(); n != connections {
		t.Fatalf("%d connections", n)
	}
	grown := anonymousBytes(t) - before
	t.Logf("%d connections: %d MiB, %d bytes each, %d goroutines", connections, grown>>20, grown/int64(connections), runtime.NumGoroutine())
	if grown > limit {
		t.Fatalf("%d connections hold %d MiB, at most %d are allowed", connections, grown>>20, limit>>20)
	}
	if err := r.b.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

// BenchmarkHotFetch is the broker's processor time for resident data over loopback, the client in another process.
func BenchmarkHotFetch(b *testing.B) {
	w := startWireBroker(b, b.TempDir())
	ctx := context.Background()
	if _, err := adminClient(b, w).CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		b.Fatal(err)
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.DefaultProduceTopic("orders"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(64<<10))
	if err != nil {
		b.Fatal(err)
	}
	defer producer.Close()
	for range 16 << 10 {
		producer.Produce(ctx, &kgo.Record{Value: make([]byte, 1000)}, nil)
	}
	if err := producer.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{64 << 10, 256 << 10, 1 << 20, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			per := max(1, 64<<20/size)
			work := startClient(b, fmt.Sprintf("fetch %s %d %d", w.addr, size, per))
			work()
			sentBefore := w.metrics.topics.of("orders").bytesOut.Load()
			cpu := cpuSeconds(b)
			for b.Loop() {
				work()
			}
			sent := w.metrics.topics.of("orders").bytesOut.Load() - sentBefore
			b.SetBytes(sent / int64(b.N))
			b.ReportMetric((cpuSeconds(b)-cpu)/(float64(sent)/(1<<30)), "CPU-s/GiB")
		})
	}
}
