package rawkafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// serve answers one request on a loopback connection with the given frames and returns the client's side.
func serve(t *testing.T, frames ...[]byte) *Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		nc, err := ln.Accept()
		_ = ln.Close() // not sooner: that would reset a connection that waits to be accepted
		if err != nil {
			return
		}
		defer nc.Close()
		for _, f := range frames {
			var size [4]byte
			if _, err := io.ReadFull(nc, size[:]); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
				return
			}
			if _, err := nc.Write(f); err != nil {
				return
			}
		}
	}()
	c, err := Dial(ln.Addr().String(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func frame(resp kmsg.Response) []byte {
	body := resp.AppendTo([]byte{0, 0, 0, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint32(body, uint32(len(body)-4))
	return body
}

func fetchResponse(partitions ...kmsg.FetchResponseTopicPartition) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 11
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic, topic.Partitions = "t", partitions
	resp.Topics = append(resp.Topics, topic)
	return resp
}

func part(number int32, records []byte) kmsg.FetchResponseTopicPartition {
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.HighWatermark, p.LogStartOffset, p.RecordBatches = number, 1000, 5, records
	return p
}

// at sets a batch's base offset.
func at(base int64, b []byte) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(base))
	return b
}

func TestFetchManyPartitions(t *testing.T) {
	b := Batch(10, 3000, 1)
	cut := append(at(0, b), at(10, b)[:100]...)
	gap := append(at(0, b), at(20, b)...)
	c := serve(t, frame(fetchResponse(part(0, cut), part(1, gap), part(2, nil), part(3, at(90, b)))), frame(fetchResponse(part(0, at(10, b)))))
	req := FetchRequest{Wants: []Want{{"t", 0, 0, 1 << 20, false}, {"t", 1, 3, 1 << 20, true}, {"t", 2, 7, 1 << 20, true}, {"t", 3, 90, 1 << 20, true}}}
	var got []Fetched
	if err := c.Fetch(req, func(f *Fetched) error { got = append(got, *f); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 {
		t.Fatalf("%d partitions", len(got))
	}
	n := int64(len(b))
	for i, want := range []Fetched{
		{Next: 10, Bytes: n + 100, Whole: n},
		{Next: 30, Bytes: 2 * n, Whole: 2 * n, Gaps: 1},
		{Next: 7},
		{Next: 100, Bytes: n, Whole: n},
	} {
		f := got[i]
		if f.Next != want.Next || f.Bytes != want.Bytes || f.Whole != want.Whole || f.Gaps != want.Gaps || f.HighWatermark != 1000 || f.LogStart != 5 || f.Err != nil {
			t.Errorf("partition %d: %+v, want %+v", i, f, want)
		}
	}
	// What was kept is all there at the end of the response.
	if got[0].Records != nil || !bytes.Equal(got[1].Records, gap) || !bytes.Equal(got[3].Records, at(90, b)) {
		t.Errorf("kept %d, %d and %d bytes", len(got[0].Records), len(got[1].Records), len(got[3].Records))
	}
	one, err := c.FetchOne("t", 0, 10, 1<<20, 0)
	if err != nil || one.Next != 20 {
		t.Errorf("the next fetch of the connection: %+v, %v", one, err)
	}
}

// TestFetchHostile: lengths that lie are errors, not panics, and nothing is allocated for them.
func TestFetchHostile(t *testing.T) {
	whole := frame(fetchResponse(part(0, Batch(2, 50, 1))))
	for pos := 4; pos < len(whole); pos++ {
		for _, v := range []byte{0xff, 0x7f, 0x80, 0} {
			bad := bytes.Clone(whole)
			bad[pos] = v
			c := &Conn{in: newInput(bytes.NewReader(bad))}
			_ = c.receiveFetch(FetchRequest{Wants: []Want{{"t", 0, 0, 1, true}}}, func(f *Fetched) error {
				if len(f.Records) > len(whole) {
					t.Errorf("byte %d = %x: %d bytes of records", pos, v, len(f.Records))
				}
				_ = Check(f.Records)
				return Values(f.Records, func(int64, []byte) {})
			})
		}
	}
	short := serve(t, whole[:len(whole)-1])
	if err := short.Fetch(FetchRequest{}, func(*Fetched) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut off response: %v", err)
	}
}

func TestBatch(t *testing.T) {
	b := RandomBatch(3, 20, 99, func(i int, v []byte) { copy(v, bytes.Repeat([]byte{byte(i)}, len(v))) })
	two := append(at(100, b), at(103, b)...)
	if err := Check(two); err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	if err := Values(two, func(o int64, v []byte) {
		if len(v) != 20 || int64(v[0]) != (o-100)%3 {
			t.Errorf("offset %d: %x", o, v)
		}
		offsets = append(offsets, o)
	}); err != nil || len(offsets) != 6 || offsets[5] != 105 {
		t.Errorf("offsets %v, %v", offsets, err)
	}
	two[len(two)-5] ^= 1
	if err := Check(two); err == nil || !strings.Contains(err.Error(), "offset 103") {
		t.Errorf("a damaged batch: %v", err)
	}
	if err := Check(two[:70]); err == nil {
		t.Error("a cut off batch passes")
	}
}

func FuzzValues(f *testing.F) {
	f.Add(Batch(3, 20, 1))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Check(b)
		_ = Values(b, func(_ int64, v []byte) {
			if len(v) > len(b) {
				t.Error("a value longer than its batch")
			}
		})
	})
}

// TestPatience: a broker that takes the request and says nothing is given up.
func TestPatience(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if nc, err := ln.Accept(); err == nil {
			defer nc.Close()
			_, _ = io.Copy(io.Discard, nc)
		}
	}()
	c, err := Dial(ln.Addr().String(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Patience = 20 * time.Millisecond
	if _, err := c.FetchOne("t", 0, 0, 1<<20, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("fetch: %v", err)
	}
	if _, err := c.Produce("t", 0, -1, Batch(1, 10, 0)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("produce: %v", err)
	}
}
