package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// background runs f beside; an error ends the run.
func (r *runner) background(what string, f func() error) {
	r.mu.Lock()
	r.running[what]++
	r.mu.Unlock()
	r.work.Go(func() {
		err := f()
		r.mu.Lock()
		if r.running[what]--; r.running[what] == 0 {
			delete(r.running, what)
		}
		r.mu.Unlock()
		if err != nil {
			r.fail(fmt.Errorf("%s: %w", what, explain(err)))
		}
	})
}

// explain says what a deadline stands for.
func explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the broker did not answer within %v: %w", patience, err)
	}
	return err
}

// endTime is how long roles may take to end once they were told to: they only close connections.
const endTime = 30 * time.Second

// wait returns when all roles have ended, or says which have not.
func (r *runner) wait() error {
	ended := make(chan struct{})
	go func() { r.work.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-time.After(endTime):
	}
	stacks := make([]byte, 1<<20)
	r.logf("%s", stacks[:runtime.Stack(stacks, true)])
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Errorf("%s did not end within %v; where they are is said above", strings.Join(slices.Sorted(maps.Keys(r.running)), ", "), endTime)
}

// drainTime is how long after the end readers may take for what they do not have yet.
const drainTime = time.Minute

// drain gives the readers time to get everything that was acknowledged, and notes what they did not get.
func (r *runner) drain(ctx context.Context) {
	for _, one := range r.readings {
		one.draining.Store(true)
	}
	r.logf("draining for %v at most", drainTime)
	end := time.Now().Add(drainTime)
	for {
		missing := r.missing()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			r.note("after %v of waiting: %s", drainTime, missing)
			return
		}
		if !pause(ctx, 100*time.Millisecond) {
			return
		}
	}
}

// askForRest asks the broker what it holds of the streams that a reader lacks records of: who is behind has not lost them.
func (r *runner) askForRest(ctx context.Context) {
	for _, one := range r.readings {
		s := one.stream
		if one.check(nil).Lost == 0 || s.there != nil {
			continue
		}
		_, end, err := r.c.offsets(ctx, s.topic, int32(s.partitions))
		if err != nil {
			r.note("what of %s is lost and what was only not read in time is not known: %v", s.topic, err)
			continue
		}
		s.mu.Lock()
		s.there = make([]int64, len(end))
		for p := range end {
			s.there[p] = end[p] - s.first[p]
		}
		s.mu.Unlock()
	}
}

// missing says what the run still waits for, "" when there is nothing.
func (r *runner) missing() string {
	var out []string
	for _, s := range []*stream{r.live, r.slow} {
		if s == nil {
			continue
		}
		if ended, owed := s.owed(); !ended {
			out = append(out, "the producer of "+s.topic+" has not stopped")
		} else if owed > 0 {
			out = append(out, fmt.Sprintf("%d records of %s are not acknowledged", owed, s.topic))
		}
	}
	for _, one := range r.readings {
		if lost := one.check(nil).Lost; lost > 0 {
			out = append(out, fmt.Sprintf("%s lacks %d records", one.role, lost))
		}
	}
	return strings.Join(out, ", ")
}
