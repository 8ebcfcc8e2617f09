package rawkafka

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Want is one partition of a fetch.
type Want struct {
	Topic     string
	Partition int32
	Offset    int64
	MaxBytes  int32
	Keep      bool // give the records to the caller; otherwise only batch headers are looked at
}

// FetchRequest is one fetch, without a session.
type FetchRequest struct {
	Wants    []Want // those of one topic side by side
	MaxWait  time.Duration
	MinBytes int32 // 0: 1
	MaxBytes int32 // of the whole response; 0: 50 MiB, the Java consumer's
}

// Fetched is one partition's part of a response.
type Fetched struct {
	Topic         string
	Partition     int32
	Err           error // what the broker said about this partition, a *kerr.Error
	Bytes         int64 // of records, with a last batch that was cut off
	Whole         int64 // of whole batches
	Next          int64 // offset after the last whole batch, or the asked one
	HighWatermark int64
	LogStart      int64
	Gaps          int    // batches that did not begin where the one before ended, or the asked offset lies
	Records       []byte // whole batches, with Keep; the connection's until its next call
}

// Fetch asks and calls fn for each partition of the response in its order. An error of fn ends the reading: the connection is of
// no use then.
func (c *Conn) Fetch(req FetchRequest, fn func(*Fetched) error) error {
	if err := c.Send(req.kmsg()); err != nil {
		return err
	}
	return c.receiveFetch(req, fn)
}

// FetchOne is Fetch of one partition, with the broker's error for it as an error.
func (c *Conn) FetchOne(topic string, partition int32, offset int64, maxBytes int32, maxWait time.Duration) (out Fetched, err error) {
	out.Next = offset
	req := FetchRequest{Wants: []Want{{Topic: topic, Partition: partition, Offset: offset, MaxBytes: maxBytes}}, MaxWait: maxWait, MaxBytes: maxBytes}
	err = c.Fetch(req, func(f *Fetched) error {
		out = *f
		return f.Err
	})
	return out, err
}

func (r *FetchRequest) kmsg() *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 11, int32(r.MaxWait.Milliseconds()), max(r.MinBytes, 1), r.MaxBytes
	if req.MaxBytes == 0 {
		req.MaxBytes = 50 << 20
	}
	req.SessionID, req.SessionEpoch = 0, -1
	for _, w := range r.Wants {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != w.Topic {
			t := kmsg.NewFetchRequestTopic()
			t.Topic = w.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = w.Partition, w.Offset, w.MaxBytes, -1
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return req
}

// response is the rest of a frame that is being read.
type response struct {
	in   *input
	left int64
	err  error // the first one; everything after it reads zeros
}

var zeros [lookahead]byte

func (r *response) take(n int) []byte {
	if r.err == nil && (n < 0 || int64(n) > r.left) {
		r.err = fmt.Errorf("rawkafka: %d bytes wanted of %d", n, r.left)
	}
	if r.err == nil {
		var b []byte
		if b, r.err = r.in.take(n); r.err == nil {
			r.left -= int64(n)
			return b
		}
	}
	return zeros[:min(max(n, 0), len(zeros))]
}

func (r *response) drop(n int64) {
	if r.err == nil && (n < 0 || n > r.left) {
		r.err = fmt.Errorf("rawkafka: %d bytes to skip of %d", n, r.left)
	}
	if r.err == nil {
		r.err = r.in.drop(n)
		r.left -= n
	}
}

func (r *response) int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *response) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }
func (r *response) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

// count reads the length of an array whose elements take at least size bytes; -1 is none.
func (r *response) count(size int64) int {
	n := r.int32()
	if r.err == nil && int64(n)*size > r.left {
		r.err = fmt.Errorf("rawkafka: an array of %d where %d bytes are left", n, r.left)
	}
	if r.err != nil {
		return 0
	}
	return int(max(n, 0))
}

// receiveFetch reads a version 11 response.
func (c *Conn) receiveFetch(req FetchRequest, fn func(*Fetched) error) error {
	if c.kept = c.kept[:0]; cap(c.kept) > keepStep {
		c.kept = nil // what is seldom needed is not held
	}
	r := response{in: &c.in, left: 4}
	if r.left = int64(r.int32()); r.left > maxResponse {
		return fmt.Errorf("rawkafka: response of %d bytes", r.left)
	}
	r.drop(4 + 4) // correlation id, throttle time
	if err := kerr.ErrorForCode(r.int16()); err != nil {
		return err
	}
	r.drop(4) // session
	for range r.count(6) {
		topic := string(r.take(int(r.int16())))
		for range r.count(42) {
			f := Fetched{Topic: topic, Partition: r.int32()}
			f.Err = kerr.ErrorForCode(r.int16())
			f.HighWatermark = r.int64()
			r.drop(8) // last stable offset
			f.LogStart = r.int64()
			r.drop(16 * int64(r.count(16))) // aborted transactions
			r.drop(4)                       // preferred replica
			f.Bytes = int64(max(r.int32(), 0))
			want := req.want(topic, f.Partition)
			f.Next = want.Offset
			if r.err == nil && f.Bytes > r.left {
				r.err = fmt.Errorf("rawkafka: %d bytes of records where %d are left", f.Bytes, r.left)
			}
			if want.Keep {
				c.keep(&r, &f)
			} else {
				walk(&r, &f)
			}
			if r.err != nil {
				return r.err
			}
			if err := fn(&f); err != nil {
				return err
			}
		}
	}
	r.drop(r.left)
	return r.err
}

// want finds what was asked for; a broker that answers what nobody asked is measured as it is.
func (r *FetchRequest) want(topic string, partition int32) Want {
	for _, w := range r.Wants {
		if w.Partition == partition && w.Topic == topic {
			return w
		}
	}
	return Want{}
}

// walk looks at the batch headers and drops the rest.
func walk(r *response, f *Fetched) {
	for rest := f.Bytes; rest > 0 && r.err == nil; {
		if rest < HeaderBytes {
			r.drop(rest)
			return
		}
		size := f.header(r.take(HeaderBytes), rest)
		if size < HeaderBytes {
			r.drop(rest - HeaderBytes)
			return
		}
		r.drop(size - HeaderBytes)
		rest -= size
	}
}

// header takes a batch's header into account and returns the batch's size, 0 when it is not whole.
func (f *Fetched) header(b []byte, rest int64) int64 {
	base, size := int64(binary.BigEndian.Uint64(b)), int64(int32(binary.BigEndian.Uint32(b[8:])))+12
	last := base + int64(int32(binary.BigEndian.Uint32(b[23:])))
	if size < HeaderBytes || size > rest {
		return 0 // cut off: asked for again
	}
	if base > f.Next || last < f.Next || base < f.Next && f.Whole > 0 { // the asked offset may lie inside the first batch
		f.Gaps++
	}
	f.Next = max(f.Next, last+1)
	f.Whole += size
	return size
}

// keepStep is how much is allocated before the bytes for it have come.
const keepStep = 1 << 20

// keep reads the records into the connection's buffer, behind those that were kept before.
func (c *Conn) keep(r *response, f *Fetched) {
	from := len(c.kept)
	for left := f.Bytes; left > 0 && r.err == nil; {
		n := int(min(left, keepStep))
		c.kept = slices.Grow(c.kept, n) // what f.Records of before point to stays as it is
		r.err = r.in.full(c.kept[len(c.kept) : len(c.kept)+n])
		c.kept = c.kept[:len(c.kept)+n]
		left -= int64(n)
	}
	if r.err != nil {
		return
	}
	b := c.kept[from:]
	r.left -= f.Bytes
	whole := int64(0)
	for f.Bytes-whole >= HeaderBytes {
		size := f.header(b[whole:], f.Bytes-whole)
		if size == 0 {
			break
		}
		whole += size
	}
	f.Records = b[:whole]
}
