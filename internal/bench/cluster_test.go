package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatch: a broker that is gone for a while is waited for, one that is gone for good ends the run, and so does Ctrl-C, as what it is.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		away := func(from, to time.Duration) bool { return time.Since(begun) > from && time.Since(begun) < to }
		ctx, stop := watch(t.Context(), func() bool { return !away(20*time.Second, 29*time.Second) && !away(time.Minute, time.Hour) })
		defer stop()
		<-ctx.Done()
		if at := time.Since(begun); !errors.Is(context.Cause(ctx), errDead) || at < time.Minute+deadTime || at > time.Minute+deadTime+3*watchEvery {
			t.Errorf("ended after %v with %v", at, context.Cause(ctx))
		}
		parent, cancel := context.WithCancel(t.Context())
		ctx, stop = watch(parent, func() bool { return true })
		defer stop()
		cancel()
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), ErrInterrupted) {
			t.Errorf("interrupted, and it says %v", context.Cause(ctx))
		}
	})
}
