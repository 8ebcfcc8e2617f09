package broker

import (
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/quotas"
)

// anonymous is the user of connections without authentication, as in Kafka.
const anonymous = "ANONYMOUS"

// maxHeld bounds the refused connections that are kept open for their throttle time, so that the client does not dial again at once.
const maxHeld = 1000

// limiter measures clients against their quotas. As long as nobody has a quota of a kind, asking for it costs one load.
type limiter struct {
	table   atomic.Pointer[quotas.Table]
	metrics *metrics
	held    atomic.Int64

	mu     sync.Mutex
	meters *quotas.Meters
}

func newLimiter(all map[quotas.Entity]map[string]float64, m *metrics) *limiter {
	table := quotas.NewTable(all)
	l := &limiter{metrics: m, meters: quotas.NewMeters(table, time.Now())}
	l.table.Store(table)
	return l
}

// set changes the limits; the caller sees to the order.
func (l *limiter) set(all map[quotas.Entity]map[string]float64) {
	table := quotas.NewTable(all)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meters.SetTable(table)
	l.table.Store(table)
}

// record adds n to a client's rate and tells how long the client has to wait. n = 0 only asks.
func (l *limiter) record(k quotas.Key, c quotas.Client, n float64) time.Duration {
	if !l.table.Load().Any(k) {
		return 0
	}
	l.mu.Lock()
	wait := l.meters.Record(k, c, n, time.Now())
	l.mu.Unlock()
	return l.counted(k, wait)
}

// most is what a client may be given at once, at least a byte; other when it has no limit.
func (l *limiter) most(k quotas.Key, c quotas.Client, other int64) int64 {
	if !l.table.Load().Any(k) {
		return other
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, limited := l.meters.Most(k, c); limited && n < float64(other) {
		return max(int64(n), 1)
	}
	return other
}

// mutate takes n partitions from a client's controller_mutation_rate; see quotas.Meters.Mutate.
func (l *limiter) mutate(c quotas.Client, n int32, strict bool) (wait time.Duration, refused bool) {
	if !l.table.Load().Any(quotas.ControllerMutationRate) {
		return 0, false
	}
	l.mu.Lock()
	wait, refused = l.meters.Mutate(c, float64(n), strict, time.Now())
	l.mu.Unlock()
	return l.counted(quotas.ControllerMutationRate, wait), refused
}

func (l *limiter) counted(k quotas.Key, wait time.Duration) time.Duration {
	if wait > 0 {
		l.metrics.throttled[k].Inc()
		l.metrics.throttleSeconds[k].Add(wait.Seconds())
	}
	return wait
}

// refuses reports whether a new connection comes too soon after others of its address. It is closed when it has waited.
func (l *limiter) refuses(nc net.Conn, ip string) bool {
	if ip == "" || !l.table.Load().Any(quotas.ConnectionCreationRate) {
		return false
	}
	l.mu.Lock()
	wait := l.counted(quotas.ConnectionCreationRate, l.meters.Connect(ip, time.Now()))
	l.mu.Unlock()
	switch {
	case wait == 0:
		return false
	case l.held.Add(1) > maxHeld:
		l.held.Add(-1)
		nc.Close()
	default:
		time.AfterFunc(wait, func() {
			l.held.Add(-1)
			nc.Close()
		})
	}
	return true
}

// meterCount is how many rates are kept.
func (l *limiter) meterCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meters.Len()
}

// mutate charges a request for partitions it makes or deletes: THROTTLING_QUOTA_EXCEEDED when it is strict and the client is in
// debt (KIP-599). What it has to wait for is told with the response.
func (b *Broker) mutate(r *request, n int32, strict bool) error {
	wait, refused := b.limits.mutate(clientOf(r.clientID), n, strict)
	r.throttle = max(r.throttle, wait)
	if refused {
		return errMutationQuota
	}
	return nil
}

// client is who the connection's quotas are looked up for. Reader goroutine only.
func (c *conn) client() quotas.Client { return clientOf(c.clientID) }

func clientOf(id string) quotas.Client { return quotas.Client{User: anonymous, ClientID: id} }

// spent charges a client for the time that a request took and tells how long it has to wait.
func (l *limiter) spent(c quotas.Client, took time.Duration) time.Duration {
	return l.record(quotas.RequestPercentage, c, took.Seconds()*100)
}

// mute has the connection read nothing more for a time, beginning now (KIP-219), and gives that time as responses tell it.
func (c *conn) mute(wait time.Duration) (ms int32) {
	if wait <= 0 {
		return 0
	}
	until := int64(time.Since(c.b.started) + wait)
	for {
		old := c.mutedUntil.Load()
		if old >= until || c.mutedUntil.CompareAndSwap(old, until) {
			return int32(min(max(wait.Milliseconds(), 1), math.MaxInt32))
		}
	}
}

// waitMuted returns when the connection may be read again, or must end. As in Kafka, one that is muted for longer than the idle timeout is
// idle: what comes after it over another connection is measured like all else of the client.
func (c *conn) waitMuted() error {
	for {
		until := c.mutedUntil.Load()
		if until == 0 {
			return nil
		}
		rest := time.Duration(until) - time.Since(c.b.started)
		if rest <= 0 {
			c.mutedUntil.CompareAndSwap(until, 0)
			continue
		}
		c.mu.Lock()
		left := time.Until(c.idleStart().Add(c.b.opt.IdleTimeout))
		c.mu.Unlock()
		if left <= 0 {
			return errIdle
		}
		timer := time.NewTimer(min(rest, left))
		select {
		case <-timer.C:
		case <-c.stopping:
			timer.Stop()
			return errDrained
		case <-c.done:
			timer.Stop()
			return net.ErrClosed
		}
	}
}
