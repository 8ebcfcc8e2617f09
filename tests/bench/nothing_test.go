package bench_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lagoon/internal/rawkafka"
)

// yesMan in the environment makes this binary a server that answers every heartbeat with a yes.
const yesMan = "LAGOON_BENCH_YES_MAN"

func TestMain(m *testing.M) {
	if os.Getenv(yesMan) != "" {
		if err := sayYes(); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// nothing is the heartbeats of 10,000 members answered by a server of Go that does nothing else: one read, one write, no look at the request, no
// deadline. It is the share of Go, TCP and the loopback device, which delivers to the receiver within the sender's write.
func nothing(b *testing.B) {
	needFiles(b, beatingGroups*beatingMembers+200)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), yesMan+"=1"), os.Stderr
	in, err := cmd.StdinPipe() // its end is the server's
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		b.Fatal(err)
	}
	all := make([]*groupMember, beatingGroups*beatingMembers)
	for i := range all {
		conn, err := rawkafka.Dial(addr, fmt.Sprint("beat-", i))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		all[i] = &groupMember{conn: conn, group: fmt.Sprint("beat-", i/beatingMembers), id: fmt.Sprint("member-", i)}
	}
	beat(b, all, cmd.Process.Pid)
}

// sayYes answers heartbeats of version 3 until standard input ends. Its address is its first line.
func sayYes() error {
	// Reno as with Lagoon: where the system's congestion control paces, it does so on the loopback device, too.
	reno := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := reno.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = ln.Close()
	}()
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer nc.Close()
			buf := make([]byte, 512)
			for {
				// A frame that small comes at once: the client writes it so, and sends no other before the answer. Size, key and version come first.
				n, err := nc.Read(buf)
				if err != nil || n < 12 {
					return
				}
				var yes [14]byte // size, correlation id, throttle time 0, error code 0
				binary.BigEndian.PutUint32(yes[:], 10)
				copy(yes[4:], buf[8:12])
				if _, err := nc.Write(yes[:]); err != nil {
					return
				}
			}
		}()
	}
}
