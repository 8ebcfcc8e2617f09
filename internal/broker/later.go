package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// promise waits for what a response depends on and makes it. It returns early when stopping is closed, with an answer, or when ctx
// ends, with any.
type promise func(ctx context.Context, stopping <-chan struct{}) kmsg.Response

// beginner does what a request asks for, in arrival order, as a handler does, and promises the response. Reading goes on
// meanwhile; responses behind it wait for their turn.
type beginner func(b *Broker, ctx context.Context, r *request) promise

// laterReply is a response that was promised.
type laterReply struct {
	in         incoming // without the frame
	finish     promise
	throttleMs int32
	asked      int // bytes of the request's body
}

func (r *laterReply) send(ctx context.Context, c *conn) error {
	resp := r.finish(ctx, c.stopping)
	if err := ctx.Err(); err != nil {
		return err // the client is gone
	}
	setThrottle(resp, r.throttleMs)
	return encodeReply(&r.in, resp, resp.IsFlexible()).send(ctx, c)
}

func (r *laterReply) ready(*conn) bool { return false }

func (r *laterReply) drop() {}

// size is about what waits with it: the response in the making, which names what the request named and takes many times its bytes.
func (r *laterReply) size() int { return 512 + decodedRatio*r.asked }

// decodedRatio is about how many bytes a byte of a request, or its response, takes decoded.
const decodedRatio = 16

// withoutFrame is in without what belongs to the frame.
func (in *incoming) withoutFrame() incoming {
	return incoming{header: in.header, api: in.api, received: in.received}
}

// answered promises what is there already.
func answered(resp kmsg.Response) promise {
	return func(context.Context, <-chan struct{}) kmsg.Response { return resp }
}

// await takes what comes on a channel, or other when the connection or the broker ends first.
func await[T any](ctx context.Context, stopping <-chan struct{}, c <-chan T, other T) T {
	select {
	case v := <-c:
		return v
	default:
	}
	select {
	case v := <-c:
		return v
	case <-stopping:
	case <-ctx.Done():
	}
	return other
}

func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }
