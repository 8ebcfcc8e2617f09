package admission

import (
	"math/bits"
	"time"
)

// bucket is a token bucket in integers, so that it is exact and the same everywhere: refilled with rate bytes per second
// up to burst, kept with the fraction of a byte that was earned. Time is passed in.
//
// A request needs min(size, burst) tokens and takes its whole size, so a request larger than the burst gets through and
// leaves a debt. Over any time t a bucket lets pass at most rate·t + max(burst, largest request).
type bucket struct {
	rate   int64 // 0: unlimited
	burst  int64
	tokens int64  // below zero: debt
	frac   uint64 // of a byte, in 1e-9
	last   time.Time
	taken  int64 // total, which tests compare
}

const nsPerSecond = uint64(time.Second)

// maxWait bounds what a caller is told to wait; it asks again then.
const maxWait = time.Hour

// burstOf is the default burst of a cap, 400 ms: long enough to bridge late timers and what a hard disk has begun to read (turns of
// others need not be bridged, see ring), short enough that ten seconds at the cap stay within 5 % of it.
func burstOf(rate int64) int64 { return max(min(rate, 1<<60)*2/5, 1) }

// setRate changes rate and burst from now on. Debt stays, tokens above the new burst are lost; a bucket that was
// unlimited starts full.
func (b *bucket) setRate(rate, burst int64, now time.Time) {
	b.refill(now)
	if b.rate == 0 {
		b.tokens = burst
	}
	b.rate, b.burst, b.frac = rate, burst, 0
	b.tokens = min(b.tokens, burst)
}

func (b *bucket) refill(now time.Time) {
	elapsed := now.Sub(b.last)
	if b.last.IsZero() || b.rate == 0 {
		b.last = now
		return
	}
	if elapsed <= 0 {
		return
	}
	b.last = now
	hi, lo := bits.Mul64(uint64(b.rate), uint64(elapsed))
	lo, carry := bits.Add64(lo, b.frac, 0)
	hi += carry
	if hi >= nsPerSecond { // the quotient would not fit: far more than any burst
		b.tokens, b.frac = b.burst, 0
		return
	}
	earned, frac := bits.Div64(hi, lo, nsPerSecond)
	if earned >= uint64(b.burst-b.tokens) {
		b.tokens, b.frac = b.burst, 0
		return
	}
	b.tokens += int64(earned)
	b.frac = frac
}

// wait is the time until n bytes may pass, 0 for now.
func (b *bucket) wait(n int64, now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.refill(now)
	need := min(n, b.burst) - b.tokens
	if need <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(need), nsPerSecond)
	lo, borrow := bits.Sub64(lo, b.frac, 0)
	hi -= borrow
	lo, carry := bits.Add64(lo, uint64(b.rate)-1, 0) // round up: at the end of the wait the tokens are there
	hi += carry
	if hi >= uint64(b.rate) {
		return maxWait
	}
	ns, _ := bits.Div64(hi, lo, uint64(b.rate))
	ahead := max(0, b.last.Sub(now)) // the caller's clock went back: nothing is earned until it catches up
	return min(time.Duration(min(ns, uint64(maxWait)))+ahead, maxWait)
}

// take charges n bytes, or gives them back when n is negative.
func (b *bucket) take(n int64, now time.Time) {
	b.taken += n
	if b.rate == 0 {
		return
	}
	b.refill(now)
	b.tokens = min(b.tokens-n, b.burst)
}

// fullIn tells whether the bucket will be full after d, if nothing is taken.
func (b *bucket) fullIn(d time.Duration, now time.Time) bool {
	b.refill(now)
	return b.rate != 0 && float64(b.tokens)+float64(b.rate)*d.Seconds() >= float64(b.burst)
}

// full tells that the bucket is as good as a new one.
func (b *bucket) full(now time.Time) bool {
	b.refill(now)
	return b.rate == 0 || b.tokens >= b.burst
}
