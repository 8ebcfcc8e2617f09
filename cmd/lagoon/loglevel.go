package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"lagoon/internal/admin"
)

// logLevel is how much the daemon logs: what the configuration says, or what an operator has set instead, for a time or until the next
// start. Safe for concurrent use.
type logLevel struct {
	slog.LevelVar // in force

	mu         sync.Mutex
	log        *slog.Logger // obeys it
	configured slog.Level
	set        *levelOrder // nil: as configured
}

// levelOrder is an operator's word. until is zero when it holds until the next start.
type levelOrder struct {
	until  time.Time
	reason string
	timer  *time.Timer
}

// levelNamed reads one of conf's words, which whoever calls has checked.
func levelNamed(word string) (level slog.Level) {
	_ = level.UnmarshalText([]byte(word))
	return level
}

func levelWord(l slog.Level) string { return strings.ToLower(l.String()) }

// change brings a level in force. The line about it is written in any case: before less is logged, and after more is. Called with mu held.
func (l *logLevel) change(to slog.Level, attrs ...any) {
	from := l.Level()
	l.Set(min(from, to, slog.LevelInfo))
	l.log.Info("log level changed", append([]any{"from", levelWord(from), "to", levelWord(to)}, attrs...)...)
	l.Set(to)
}

// order does what an operator wants. The configured level without an end takes back what was set before.
func (l *logLevel) order(o admin.LogLevelOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	level := levelNamed(o.Level)
	attrs := []any{"reason", o.Reason, "peer", o.Peer, "request_id", o.RequestID}
	if level == l.configured && o.TTL == 0 {
		l.change(level, attrs...)
		return
	}
	set := &levelOrder{reason: o.Reason}
	l.set = set
	if o.TTL > 0 {
		set.until = time.Now().Add(o.TTL)
		set.timer = time.AfterFunc(o.TTL, func() { l.expire(set) })
		attrs = append(attrs, "until", set.until.UTC().Format(time.RFC3339))
	}
	l.change(level, attrs...)
}

// forget takes back what was set, without a change of the level. Called with mu held.
func (l *logLevel) forget() {
	if l.set != nil && l.set.timer != nil {
		l.set.timer.Stop() // one that runs already finds that it is not the one in force
	}
	l.set = nil
}

func (l *logLevel) expire(set *levelOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == set {
		l.set = nil
		l.change(l.configured, "why", "its time is over")
	}
}

// configure changes what holds when no operator has set anything.
func (l *logLevel) configure(word string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	level := levelNamed(word)
	if level == l.configured {
		return
	}
	if l.configured = level; l.set == nil {
		l.change(level, "why", "the configuration says so")
	}
}

func (l *logLevel) view() admin.LogLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := admin.LogLevel{Level: levelWord(l.Level()), Configured: levelWord(l.configured)}
	if l.set != nil {
		v.Until, v.Reason = l.set.until, l.set.reason
	}
	return v
}

// LogLevel tells how much is logged.
func (b *backend) LogLevel(context.Context) (admin.LogLevel, error) { return b.level.view(), nil }

// SetLogLevel changes how much is logged.
func (b *backend) SetLogLevel(_ context.Context, o admin.LogLevelOrder) (admin.LogLevel, error) {
	b.level.order(o)
	return b.level.view(), nil
}
