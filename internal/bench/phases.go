package bench

import (
	"context"
	"math"
	"os/exec"
	"slices"
	"time"

	"lagoon/internal/bench/report"
)

// counters are the running totals at one moment; a phase is the difference of two.
type counters struct {
	at      time.Time
	own     time.Duration
	proc    *procUse
	devices []report.DeviceUse
	live    *int64  // bytes that readers of the live topics had from devices
	served  []int64 // by backlog reader
	mixed   int64
}

func (r *runner) count(ctx context.Context) counters {
	c := counters{at: time.Now(), own: ownCPU(), mixed: r.mixedTally.bytes.Load()}
	if pid := r.o.Outside.PID; pid != 0 {
		if u, err := readProc(pid); err == nil {
			c.proc = &u
		}
	}
	for _, name := range r.devices {
		if d, err := readDevice(name); err == nil {
			c.devices = append(c.devices, d)
		}
	}
	r.mu.Lock()
	for _, b := range r.readers {
		c.served = append(c.served, b.bytes.Load())
	}
	r.mu.Unlock()
	// Last: a broker under load takes its time to answer, and what is served meanwhile is not in at.
	if r.o.Outside.Admin != "" {
		if n, err := r.o.Outside.coldBytes(ctx, r.topic("live"), r.topic("slow")); err == nil {
			c.live = &n
		}
	}
	return c
}

// until waits for a moment of the run.
func until(ctx context.Context, at time.Time) bool { return pause(ctx, time.Until(at)) }

// phases runs them one after the other.
func (r *runner) phases(ctx context.Context) error {
	warm := r.o.Settle
	if r.slow != nil {
		warm += r.o.Behind
	}
	r.logf("warming up for %v", warm)
	if !until(ctx, r.begun.Add(warm)) {
		return context.Cause(ctx)
	}
	for n := range r.o.Repeat {
		for _, s := range r.specs {
			if err := r.phase(ctx, s, n+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// phase is one phase of the repeat-th time.
func (r *runner) phase(ctx context.Context, s phaseSpec, repeat int) error {
	stop := func() {}
	if s.cold() {
		if err := r.evictOld(ctx); err != nil {
			return err
		}
		stopReaders, err := r.startReaders(ctx, s.readers)
		if err != nil {
			return err
		}
		r.mixedCold.Store(s.mixed)
		stop = func() { r.mixedCold.Store(false); stopReaders() }
	}
	defer stop()
	from := r.begun.Add(ceilSecond(time.Since(r.begun) + r.o.Settle))
	to := from.Add(ceilSecond(r.o.Phase))
	if r.o.Repeat > 1 {
		r.logf("repetition %d of %d", repeat, r.o.Repeat)
	}
	r.logf("phase %s: from second %.0f to %.0f", s.name, from.Sub(r.begun).Seconds(), to.Sub(r.begun).Seconds())
	for _, rec := range slices.Concat(r.recorders, []*recorder{r.late}) {
		rec.phase(from, to)
	}
	if !until(ctx, from) {
		return context.Cause(ctx)
	}
	r.mu.Lock()
	r.most, r.lowest = 0, map[string]float64{}
	r.mu.Unlock()
	before := r.count(ctx)
	if !until(ctx, to) {
		return context.Cause(ctx)
	}
	after := r.count(ctx)
	stop()
	if len(r.o.Outside.DataDirs) > 0 { // at least one look in every phase, and one before the next evicts
		if err := r.sampleCache(to); err != nil {
			return err
		}
	}
	p := report.Phase{Name: s.name, FromSeconds: from.Sub(r.begun).Seconds(), ToSeconds: to.Sub(r.begun).Seconds(), BacklogReaders: s.readers, MixedCold: s.mixed}
	if r.o.Repeat > 1 {
		p.Repeat = repeat
	}
	r.use(&p, before, after)
	if s.cold() {
		r.backlogOf(&p, before, after)
		p.Recovery = r.recovery(ctx, to)
	}
	r.result.Phases = append(r.result.Phases, p)
	return context.Cause(ctx)
}

func ceilSecond(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

func (r *runner) use(p *report.Phase, a, b counters) {
	seconds := b.at.Sub(a.at).Seconds()
	u := &p.Use
	u.GeneratorCores = (b.own - a.own).Seconds() / seconds
	if a.proc != nil && b.proc != nil {
		cpu := (b.proc.cpu - a.proc.cpu).Seconds()
		cores, read, written := cpu/seconds, b.proc.readBytes-a.proc.readBytes, b.proc.writtenBytes-a.proc.writtenBytes
		u.BrokerCPU, u.BrokerCores, u.ProcessRead, u.ProcessWritten = &cpu, &cores, &read, &written
		r.mu.Lock()
		most := max(r.most, b.proc.anonBytes)
		r.mu.Unlock()
		u.AnonBytes = &most
	}
	for i, d := range b.devices {
		if i < len(a.devices) {
			u.Devices = append(u.Devices, report.DeviceUse{Name: d.Name, ReadBytes: d.ReadBytes - a.devices[i].ReadBytes, WrittenBytes: d.WrittenBytes - a.devices[i].WrittenBytes})
		}
	}
	if a.live != nil && b.live != nil {
		n := *b.live - *a.live
		u.RealtimeRead = &n
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lowest) > 0 {
		u.HotWindow = r.lowest
	}
	r.lowest = nil // what is seen up to the next phase, whose backlog begins before it, is in none
	if n := len(r.result.Residency); n > 0 {
		u.CacheBytes = r.result.Residency[n-1].Bytes
	}
}

func (r *runner) backlogOf(p *report.Phase, a, b counters) {
	seconds := b.at.Sub(a.at).Seconds()
	out := &report.Backlog{EachMBPerS: []float64{}}
	lowest, highest := math.Inf(1), 0.0
	for i, n := range b.served {
		rate := float64(n-a.served[i]) / 1e6 / seconds
		out.Bytes += n - a.served[i]
		out.EachMBPerS = append(out.EachMBPerS, rate)
		lowest, highest = min(lowest, rate), max(highest, rate)
	}
	if p.MixedCold {
		out.Bytes += b.mixed - a.mixed
	}
	out.MBPerSec = float64(out.Bytes) / 1e6 / seconds
	if n := float64(len(b.served)); n > 1 && highest > 0 {
		mean := 0.0
		for _, rate := range out.EachMBPerS {
			mean += rate / n
		}
		out.Spread = (highest - lowest) / mean
	}
	r.mu.Lock()
	for _, one := range slices.Concat(r.readers, []*tally{r.mixedTally}) {
		out.Gaps += one.gaps.Swap(0)
		out.BadBatches += one.bad.Swap(0)
		out.FullChecked += one.checked.Swap(0)
	}
	r.mu.Unlock()
	p.Backlog = out
	if read, ok := diskRead(&p.Use); ok && out.Bytes > 0 {
		per := float64(read) / float64(out.Bytes)
		p.Use.ReadPerServed = &per
	}
}

// diskRead is what all devices read, or, when they are not known, what the process made them read.
func diskRead(u *report.Use) (sum int64, known bool) {
	for _, d := range u.Devices {
		sum += d.ReadBytes
	}
	if len(u.Devices) > 0 {
		return sum, true
	}
	if u.ProcessRead != nil {
		return *u.ProcessRead, true
	}
	return 0, false
}

const (
	// A second is back at base when its p99 is no worse than the worst second of base, or than base by a tenth and 1 ms: single
	// seconds spread more than a phase.
	recoveryRatio = 1.1
	recoverySlack = 1.0
	recoveryLook  = 100 * time.Millisecond
)

// recovery waits until every role has had a second as in base after the backlog stopped, and tells which.
func (r *runner) recovery(ctx context.Context, stopped time.Time) map[string]*report.Recovery {
	bounds := r.baseBounds()
	if len(bounds) == 0 {
		return nil
	}
	first := int(stopped.Sub(r.begun).Seconds())
	out := map[string]*report.Recovery{}
	for {
		for role, bound := range bounds {
			if out[role] != nil {
				continue
			}
			if second, ok := r.recovered(role, bound, first); ok {
				out[role] = &report.Recovery{Seconds: float64(second - first), Recovered: true, BoundMs: bound}
			}
		}
		if len(out) == len(bounds) {
			return out
		}
		if time.Since(stopped) > r.o.RecoveryMax || !pause(ctx, recoveryLook) {
			for role, bound := range bounds {
				if out[role] == nil {
					out[role] = &report.Recovery{Seconds: time.Since(stopped).Seconds(), BoundMs: bound}
				}
			}
			return out
		}
	}
}

func (r *runner) role(name string) *recorder {
	for _, rec := range r.recorders {
		if rec.role == name {
			return rec
		}
	}
	return nil
}

// baseBounds is the p99 by role that counts as undisturbed, of the last base phase; none when no base phase has been.
func (r *runner) baseBounds() map[string]float64 {
	out := map[string]float64{}
	for i, p := range r.result.Phases {
		if p.Name != "base" {
			continue
		}
		for _, rec := range r.recorders {
			bound := rec.latency(i).P99*recoveryRatio + recoverySlack
			for second := int(p.FromSeconds); second < int(p.ToSeconds); second++ {
				if point, ok := rec.second(second); ok {
					bound = max(bound, point.P99)
				}
			}
			out[rec.role] = bound
		}
	}
	return out
}

// recovered finds the first second, from one on, that is over, complete, and as in base.
func (r *runner) recovered(role string, bound float64, from int) (int, bool) {
	rec := r.role(role)
	for second := from; float64(second+1) <= time.Since(r.begun).Seconds(); second++ {
		point, ok := rec.second(second)
		// A hundredth may still be on its way: that is what p99 leaves out.
		if ok && float64(point.Count) >= 0.99*r.perSecond(role) && point.P99 <= bound {
			return second, true
		}
	}
	return 0, false
}

// perSecond is how many records of a role are due each second.
func (r *runner) perSecond(role string) float64 {
	switch role {
	case report.Ack, report.Tail:
		return float64(r.live.rate)
	case report.Mixed:
		return float64(r.live.rate / r.live.partitions)
	default:
		return float64(r.slow.rate)
	}
}

// sample looks at everything once a second; at the page cache so seldom that it takes at most 1 % of a core.
func (r *runner) sample(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var last int64
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			last = r.sampleBacklog(now, last)
			if pid := r.o.Outside.PID; pid != 0 {
				u, err := readProc(pid)
				if err != nil {
					return err // the broker has gone
				}
				r.mu.Lock()
				r.most = max(r.most, u.anonBytes)
				r.mu.Unlock()
			}
			if len(r.o.Outside.DataDirs) > 0 && now.After(next) {
				if err := r.sampleCache(now); err != nil {
					return err
				}
				next = now.Add(100 * time.Since(now))
			}
		}
	}
}

// sampleBacklog adds the last second's MB/s to the chart.
func (r *runner) sampleBacklog(now time.Time, last int64) int64 {
	second := int(math.Round(now.Sub(r.begun).Seconds()))
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.mixedTally.bytes.Load() + r.past
	for _, b := range r.readers {
		total += b.bytes.Load()
	}
	// What has come up to now came in the second before.
	if second--; second >= 0 && second < maxSeconds {
		for len(r.result.Backlog) <= second {
			r.result.Backlog = append(r.result.Backlog, 0)
		}
		r.result.Backlog[second] += float64(total-last) / 1e6 // two looks may fall into one second
	}
	return total
}

func (r *runner) sampleCache(now time.Time) error {
	w := report.Window{Second: int(now.Sub(r.begun).Seconds()), Resident: map[string]float64{}, Bytes: map[string]int64{}}
	for _, t := range []struct {
		name       string
		rate       int64
		partitions int32
	}{{"live", r.o.LiveRate, r.o.LivePartitions}, {"slow", r.o.SlowRate, r.o.SlowPartitions}, {"old", 0, 1}} {
		window := int64(float64(t.rate)*r.o.Behind.Seconds()) / int64(t.partitions)
		all, newest, err := r.o.Outside.look(r.topic(t.name), window)
		if err != nil {
			return err
		}
		w.Bytes[t.name] = all.Bytes()
		if newest.Total > 0 {
			w.Resident[t.name] = newest.Ratio()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Residency = append(r.result.Residency, w)
	for name, share := range w.Resident {
		if low, ok := r.lowest[name]; r.lowest != nil && (!ok || share < low) {
			r.lowest[name] = share
		}
	}
	return nil
}

// shell runs an operator's command.
func shell(ctx context.Context, command string) error {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.WaitDelay = time.Second // what the shell had started has its output still open
	out, err := c.CombinedOutput()
	if err != nil && len(out) > 0 {
		return &commandError{err, string(out)}
	}
	return err
}

type commandError struct {
	err    error
	output string
}

func (e *commandError) Error() string { return e.err.Error() + ": " + e.output }
func (e *commandError) Unwrap() error { return e.err }
