package wire_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/broker/wire"
)

// file is a payload that is a range of a file.
type file struct {
	f        *os.File
	pos, n   int64
	hidden   bool // without a descriptor for sendfile
	readErr  error
	released int
}

func (f *file) Len() int64 { return f.n }
func (f *file) File() (uintptr, int64, bool) {
	if f.hidden {
		return 0, 0, false
	}
	return f.f.Fd(), f.pos, true
}
func (f *file) Bytes() []byte { return nil }
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.readErr != nil {
		return 0, f.readErr
	}
	return f.f.ReadAt(p, f.pos+off)
}
func (f *file) Release() { f.released++ }

func randomFile(t testing.TB, size int) (*os.File, []byte) {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	name := filepath.Join(t.TempDir(), "segment.log")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// tcpPair is a connection over loopback.
func tcpPair(t testing.TB) (server, client net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return server, client
}

// sendAll sends a response and returns what arrived.
func sendAll(t *testing.T, server, client net.Conn, buf []byte, splits []wire.Split) []byte {
	t.Helper()
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(client)
		got <- all
	}()
	s := wire.NewSender(server, time.Minute)
	err := s.Send(buf, splits)
	server.Close()
	arrived := <-got
	if err != nil {
		t.Fatal(err)
	}
	if s.Sent() != int64(len(arrived)) {
		t.Fatalf("%d bytes counted, %d arrived", s.Sent(), len(arrived))
	}
	return arrived
}

func TestSenderWritesEverythingInItsPlace(t *testing.T) {
	f, data := randomFile(t, 6<<20)
	extent := func(pos, n int64) wire.Payload { return &file{f: f, pos: pos, n: n} }
	head := bytes.Repeat([]byte("head"), 30)
	for name, payloads := range map[string][]wire.Payload{
		"nothing":         nil,
		"empty":           {extent(5, 0), &memory{}},
		"small files":     {extent(1, 100), extent(1000, 64<<10), extent(7, 200<<10), extent(9, 255<<10)},
		"one large file":  {extent(4097, 5<<20)},
		"at the border":   {extent(0, 512<<10-1), extent(1, 512<<10), extent(2, 512<<10+1)},
		"memory":          {&memory{data: data[:3<<20]}, &memory{data: data[10:11]}},
		"mixed":           {extent(3, 10), extent(0, 1<<20), &memory{data: data[5 : 2<<20]}, extent(8, 100<<10), extent(100, 300<<10), &memory{data: data[:1]}},
		"no descriptor":   {&file{f: f, pos: 11, n: 3 << 20, hidden: true}, &file{f: f, pos: 0, n: 100, hidden: true}},
		"very many small": manySmall(f, 1500),
	} {
		var buf []byte
		var splits []wire.Split
		var want []byte
		for _, p := range payloads {
			buf, want = append(buf, head...), append(want, head...)
			splits = append(splits, wire.Split{At: len(buf), Payload: p})
			content := make([]byte, p.Len())
			if n, err := p.ReadAt(content, 0); int64(n) != p.Len() && p.Len() > 0 {
				t.Fatal(err)
			}
			want = append(want, content...)
		}
		buf, want = append(buf, "tail"...), append(want, "tail"...)
		t.Run(name+"/tcp", func(t *testing.T) {
			server, client := tcpPair(t)
			if got := sendAll(t, server, client, buf, splits); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes arrived, %d expected, or they differ", len(got), len(want))
			}
		})
		t.Run(name+"/pipe", func(t *testing.T) {
			server, client := net.Pipe()
			if got := sendAll(t, server, client, buf, splits); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes arrived, %d expected, or they differ", len(got), len(want))
			}
		})
	}
}

func manySmall(f *os.File, n int) (p []wire.Payload) {
	for i := range n {
		p = append(p, &file{f: f, pos: int64(i), n: int64(i%7) * 300})
	}
	return p
}

func TestSenderReportsAFileThatIsTooShort(t *testing.T) {
	f, data := randomFile(t, 400<<10)
	for _, p := range []*file{
		{f: f, pos: 10, n: int64(len(data))},                  // sendfile
		{f: f, pos: int64(len(data)) - 10, n: 100},            // pread
		{f: f, pos: 0, n: int64(len(data)) + 1, hidden: true}, // pread in portions
	} {
		server, client := tcpPair(t)
		go io.Copy(io.Discard, client)
		err := wire.NewSender(server, time.Minute).Send([]byte("head"), []wire.Split{{At: 4, Payload: p}})
		if !errors.Is(err, wire.ErrShortFile) {
			t.Fatalf("payload %+v: %v", p, err)
		}
	}
}

func TestSenderReportsAReadError(t *testing.T) {
	f, _ := randomFile(t, 100)
	broken := errors.New("broken disk")
	server, client := tcpPair(t)
	go io.Copy(io.Discard, client)
	err := wire.NewSender(server, time.Minute).Send([]byte("head"), []wire.Split{{At: 4, Payload: &file{f: f, n: 100, readErr: broken}}})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}

// A client that reads, however slowly, is not given up.
func TestSenderWaitsForASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("slow"), 512<<10)
		server, client := net.Pipe()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for p := make([]byte, 64<<10); ; time.Sleep(10 * time.Second) {
				if _, err := io.ReadFull(client, p); err != nil {
					return
				}
			}
		}()
		for name, splits := range map[string][]wire.Split{"response": nil, "payload": {{At: 0, Payload: &memory{data: data}}}} {
			if err := wire.NewSender(server, 30*time.Second).Send(data, splits); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		server.Close()
		<-gone
	})
}

// A client that does not read is given up after the timeout, whatever is being sent.
func TestSenderGivesUpOnAStalledClient(t *testing.T) {
	f, data := randomFile(t, 32<<20)
	for name, p := range map[string]wire.Payload{"sendfile": &file{f: f, n: int64(len(data))}, "memory": &memory{data: data}} {
		t.Run(name, func(t *testing.T) {
			server, _ := tcpPair(t)
			err := wire.NewSender(server, 50*time.Millisecond).Send([]byte("head"), []wire.Split{{At: 4, Payload: p}})
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// watched is a file range that tells when it is copied.
type watched struct {
	file
	copied chan struct{}
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	select {
	case w.copied <- struct{}{}:
	default:
	}
	return w.file.ReadAt(p, off)
}

// Clients that take their time hold a bounded number of copy buffers: what is sent beside them needs none.
func TestSlowClientsHoldFewCopies(t *testing.T) {
	f, data := randomFile(t, 400<<10)
	var senders []*wire.Sender
	var servers, clients []net.Conn
	for i := range 3 {
		server, client := tcpPair(t)
		if i < 2 {
			if err := errors.Join(server.(*net.TCPConn).SetWriteBuffer(4<<10), client.(*net.TCPConn).SetReadBuffer(4<<10)); err != nil {
				t.Fatal(err)
			}
		}
		senders, servers, clients = append(senders, wire.NewSender(server, time.Minute)), append(servers, server), append(clients, client)
	}
	wire.MostCopies(2, senders...)
	sent := make(chan error, 3)
	send := func(i int) *watched {
		p := &watched{file{f: f, n: int64(len(data))}, make(chan struct{}, 1)}
		go func() { sent <- senders[i].Send([]byte("head"), []wire.Split{{At: 4, Payload: p}}) }()
		return p
	}
	for i := range 2 {
		<-send(i).copied // nobody reads: it does not end
	}
	third := send(2)
	got := make([]byte, 4+len(data))
	if _, err := io.ReadFull(clients[2], got); err != nil || !bytes.Equal(got[4:], data) {
		t.Fatalf("%v, or it differs", err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if len(third.copied) > 0 {
		t.Error("a third response took a copy buffer")
	}
	servers[0].Close()
	if err := <-sent; err == nil {
		t.Fatal("sent to a closed connection")
	}
	senders[2].SendfileFrom(1 << 40)
	fourth := send(2)
	if _, err := io.ReadFull(clients[2], got); err != nil || !bytes.Equal(got[4:], data) {
		t.Fatalf("%v, or it differs", err)
	}
	if err := <-sent; err != nil || len(fourth.copied) == 0 {
		t.Errorf("%v: a buffer was given back, and not taken", err)
	}
	servers[1].Close()
	<-sent
}

// toldFile is a payload that hears of its read error.
type toldFile struct {
	file
	told error
}

func (f *toldFile) Failed(err error) { f.told = err }

// A payload hears that it could not be read, and nothing of what a client does.
func TestAPayloadHearsOfItsReadError(t *testing.T) {
	f, data := randomFile(t, 1000)
	for name, row := range map[string]struct {
		p    file
		want error
	}{
		"error": {file{f: f, n: 100, readErr: unix.EIO}, wire.ErrPayload},
		"short": {file{f: f, n: int64(len(data)) + 1}, wire.ErrShortFile},
		"gone":  {file{f: f, n: 100}, nil},
	} {
		server, client := tcpPair(t)
		if name == "gone" {
			server.Close()
		}
		go io.Copy(io.Discard, client)
		p := &toldFile{file: row.p}
		err := wire.NewSender(server, time.Minute).Send([]byte("head"), []wire.Split{{At: 4, Payload: p}})
		if err == nil || row.want == nil && p.told != nil || row.want != nil && (!errors.Is(err, row.want) || p.told == nil) {
			t.Errorf("%s: %v, the payload was told %v", name, err, p.told)
		}
	}
}

// held is a payload in memory that others may wait for.
type held struct {
	memory
	wanted bool
}

func (h *held) Wanted() bool { return h.wanted }

// A client that has stopped reading keeps no memory that others wait for; one that reads keeps it until all is out.
func TestSenderHoldsNoMemoryThatOthersWaitFor(t *testing.T) {
	data := bytes.Repeat([]byte("held"), 8<<20)
	for _, reads := range []bool{false, true} {
		server, client := tcpPair(t)
		s := wire.NewSender(server, time.Hour)
		s.HoldFor(20 * time.Millisecond)
		if reads {
			s.HoldFor(20 * time.Second)
			go io.Copy(io.Discard, client)
		}
		sent := make(chan error, 1)
		go func() {
			sent <- s.Send([]byte("head"), []wire.Split{{At: 4, Payload: &held{memory{data: data}, true}}})
		}()
		select {
		case err := <-sent:
			if reads && err != nil || !reads && !errors.Is(err, wire.ErrHeld) {
				t.Errorf("reads %v: %v", reads, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the response keeps its memory")
		}
	}
}
