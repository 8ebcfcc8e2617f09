package wire_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/broker/wire"
)

// clientEnv makes a copy of the test binary the client of BenchmarkSend, so that the processor time of this process is the sender's.
const clientEnv = "LAGOON_TEST_DRAIN"

func TestMain(m *testing.M) {
	if addr := os.Getenv(clientEnv); addr != "" {
		if err := drain(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// drain asks for one response after the other and reads them away until the connection ends.
func drain(addr string) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		if _, err := nc.Write(buf[:1]); err != nil {
			return nil // the benchmark is over
		}
		if _, err := io.ReadFull(nc, buf[:4]); err != nil {
			return nil
		}
		for left := int(binary.BigEndian.Uint32(buf)); left > 0; {
			n, err := nc.Read(buf[:min(left, len(buf))])
			if err != nil {
				return err
			}
			left -= n
		}
	}
}

// startDrain gives a sender with a client in a process of its own.
func startDrain(b *testing.B) (net.Conn, *wire.Sender) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") // as the broker does on loopback
	}); controlErr != nil || err != nil {
		b.Fatal(controlErr, err)
	}
	client := exec.Command(os.Args[0])
	client.Env = append(os.Environ(), clientEnv+"="+ln.Addr().String())
	client.Stderr = os.Stderr
	if err := client.Start(); err != nil {
		b.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		nc.Close()
		if err := client.Wait(); err != nil {
			b.Error(err)
		}
	})
	return nc, wire.NewSender(nc, 10*time.Second)
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// logFile is a resident file that was written as a log is: in batches of 64 KiB.
func logFile(b *testing.B, size int) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "segment.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	batch := make([]byte, 64<<10)
	for range size / len(batch) {
		if _, err := f.Write(batch); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

// BenchmarkSend is what a response with one file range costs the sender, either way: where the two meet, sendfileMin belongs.
func BenchmarkSend(b *testing.B) {
	const size = 512 << 20
	f := logFile(b, size)
	for _, n := range []int64{16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20, 8 << 20} {
		for _, way := range []struct {
			name string
			from int64
		}{{"copy", n + 1}, {"sendfile", 0}} {
			b.Run(fmt.Sprintf("%dKiB/%s", n>>10, way.name), func(b *testing.B) {
				nc, s := startDrain(b)
				s.SendfileFrom(way.from)
				p := &file{f: f, n: n}
				splits := []wire.Split{{At: 100, Payload: p}}
				buf := make([]byte, 104)
				binary.BigEndian.PutUint32(buf, uint32(100+n))
				var ask [1]byte
				b.SetBytes(n)
				b.ReportAllocs()
				before := cpu(b)
				for b.Loop() {
					if _, err := io.ReadFull(nc, ask[:]); err != nil {
						b.Fatal(err)
					}
					if err := s.Send(buf, splits); err != nil {
						b.Fatal(err)
					}
					if p.pos += n; p.pos+n > size {
						p.pos = 0
					}
				}
				b.ReportMetric((cpu(b)-before).Seconds()/float64(n)/float64(b.N)*(1<<30), "CPU-s/GiB")
			})
		}
	}
}
