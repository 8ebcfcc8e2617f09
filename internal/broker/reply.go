package broker

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
)

// encodedReply is a response that is ready.
type encodedReply struct {
	buf      *wire.Buffer
	api      *api
	received time.Time
}

// encodeReply encodes a response with header v1 (tagged) or v0.
func encodeReply(in *incoming, resp kmsg.Response, tagged bool) *encodedReply {
	buf := wire.NewBuffer(0)
	buf.B = append(buf.B, 0, 0, 0, 0)
	buf.B = binary.BigEndian.AppendUint32(buf.B, uint32(in.header.CorrelationID))
	if tagged {
		buf.B = append(buf.B, 0)
	}
	buf.B = resp.AppendTo(buf.B)
	binary.BigEndian.PutUint32(buf.B, uint32(len(buf.B)-4))
	return &encodedReply{buf: buf, api: in.api, received: in.received}
}

// maxAnswerBytes is about how large the response about groups may get. They may be large, and a small request may name one again and again.
const maxAnswerBytes = 256 << 20

// answerRoom is what is left of it in one response.
type answerRoom struct{ bytes int }

func (b *Broker) answerRoom() *answerRoom { return &answerRoom{b.maxAnswer} }

func (a *answerRoom) left() bool { return a.bytes > 0 }

// take counts a part of the response, with strings and lists of n bytes.
func (a *answerRoom) take(n int) { a.bytes -= 64 + n }

// setThrottle tells the client for how long nothing is read from it; 0 says nothing. Versions without the field do not tell.
func setThrottle(resp kmsg.Response, ms int32) {
	if t, ok := resp.(kmsg.SetThrottleResponse); ok && ms > 0 {
		t.SetThrottle(ms)
	}
}

func (r *encodedReply) send(_ context.Context, c *conn) error {
	defer r.drop()
	err := c.out.Send(r.buf.B, nil)
	r.api.metrics.seconds.Observe(time.Since(r.received).Seconds())
	return err
}

func (r *encodedReply) ready(*conn) bool { return true }

func (r *encodedReply) drop() { r.buf.Release() }

func (r *encodedReply) size() int { return len(r.buf.B) }
