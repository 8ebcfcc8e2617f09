package partition

import (
	"context"
	"sync"
	"time"

	"lagoon/admission"
	"lagoon/tiering"
)

// How migrations give way to foreground work. The device queue lets reads go first; what is here keeps the steps short, and
// lets syncs and harm go first, too.
const (
	stepTime    = 50 * time.Millisecond  // what one step may hold a device: foreground work waits for less than twice that
	minStep     = 64 << 10               // below it a seek costs more than the bytes
	firstStep   = 256 << 10              // until the device's speed is known
	yieldToSync = 100 * time.Millisecond // for how long a step waits for syncs on its device: they never pause where much is produced
	yieldToHarm = time.Second            // and while the device's budget is cut: one step a second keeps a migration alive
	yieldLook   = 2 * time.Millisecond   // between two looks
	paceSmooth  = 0.8                    // weight of earlier steps in the measured speed
)

// movePace is how fast a directory's device does migrations' steps.
type movePace struct {
	mu   sync.Mutex
	rate float64 // bytes per second, 0: not known
}

// took notes a step.
func (p *movePace) took(n int64, d time.Duration) {
	if n <= 0 {
		return
	}
	rate := float64(n) / max(d, time.Microsecond).Seconds()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate > 0 && rate > p.rate { // slower counts at once, faster by and by
		rate = paceSmooth*p.rate + (1-paceSmooth)*rate
	}
	p.rate = rate
}

// step is how much the device does in stepTime, in pages of direct I/O.
func (p *movePace) step() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return firstStep
	}
	n := int64(min(p.rate*stepTime.Seconds(), tiering.ChunkBytes))
	return max(n/minStep*minStep, minStep)
}

// yield waits, for a bounded time, while d has a sync on its way or its cold budget has been cut because the real-time path was
// hurt.
func (d *logDir) yield(ctx context.Context) error {
	var timer *time.Timer
	for waited := time.Duration(0); ; waited += yieldLook {
		syncing := d.harm.syncing.running.Load() > 0 && waited < yieldToSync
		hurt := d.cold.hurt.Load() && waited < yieldToHarm
		if !syncing && !hurt {
			return nil
		}
		if timer == nil {
			timer = time.NewTimer(yieldLook)
			defer timer.Stop()
		} else {
			timer.Reset(yieldLook)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reduced tells the states of a budget in which migrations stand aside.
func reduced(s admission.ControllerState) bool {
	return s == admission.StateReduced || s == admission.StateFloor
}
