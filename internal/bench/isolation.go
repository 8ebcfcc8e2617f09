package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
	"lagoon/internal/lab"
)

// IsolationOptions are what `lagoon-bench isolation` is asked for. Rates and sizes are of values, without what the protocol adds.
type IsolationOptions struct {
	Brokers     []string
	Label       string
	TopicPrefix string
	Replication int16 // -1: the broker's default

	LiveRate, SlowRate             int64 // bytes per second; 0: without the topic and its roles
	LivePartitions, SlowPartitions int32
	OldBytes                       int64
	OldPartitions                  int32
	RecordBytes                    int
	Linger, Behind                 time.Duration
	TopicConfigs, OldConfigs       []string // name=value; of all topics, and of old beside

	Phases          []string // base, xN, mixed, xN+mixed, after
	Repeat          int      // how often all phases are run over the same old data
	Phase, Settle   time.Duration
	RecoveryMax     time.Duration
	BacklogRange    string // spread or same
	BacklogMaxBytes int32  // per partition and fetch

	Groups                bool // every reader is the only member of a consumer group
	Reuse, Keep, FillOnly bool
	DeviceLimitFile       string
	EvictCommand          string // run through sh before each phase that reads old data
	Outside               Outside
}

// phaseSpec is one parsed phase.
type phaseSpec struct {
	name    string
	readers int
	mixed   bool
}

func (s phaseSpec) cold() bool { return s.readers > 0 || s.mixed }

// maxRepeat bounds what a typing mistake does.
const maxRepeat = 100

// maxReaders is enough to hurt anything and bounds what a typing mistake does.
const maxReaders = 256

func parsePhases(names []string) ([]phaseSpec, error) {
	var out []phaseSpec
	for _, name := range names {
		s := phaseSpec{name: name}
		for part := range strings.SplitSeq(name, "+") {
			digits, isX := strings.CutPrefix(part, "x")
			n, err := strconv.Atoi(digits)
			switch {
			case part == "mixed" && !s.mixed:
				s.mixed = true
			case isX && err == nil && n >= 1 && n <= maxReaders && s.readers == 0:
				s.readers = n
			case (part == "base" || part == "after") && part == name:
			default:
				return nil, fmt.Errorf("phase %q: use base, after, xN with N from 1 to %d, mixed, or xN+mixed", name, maxReaders)
			}
		}
		if slices.ContainsFunc(out, func(o phaseSpec) bool { return o.name == name }) {
			return nil, fmt.Errorf("phase %q twice", name)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("no phases")
	}
	return out, nil
}

// Validate names everything that is wrong with the options.
func (o *IsolationOptions) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	specs, err := parsePhases(o.Phases)
	errs = append(errs, err)
	// A phase whose load does not exist would be shown as one that harms nobody.
	bad(o.OldBytes == 0 && slices.ContainsFunc(specs, phaseSpec.cold), "--phases %s without --old-size: there is nothing to read", strings.Join(o.Phases, ","))
	bad(o.LiveRate == 0 && slices.ContainsFunc(specs, func(s phaseSpec) bool { return s.mixed }), "--phases %s without --live-rate: mixed reads live, too", strings.Join(o.Phases, ","))
	_, err = topicConfigs(slices.Concat(o.TopicConfigs, o.OldConfigs))
	errs = append(errs, err)
	bad(o.RecordBytes < valueHeader || o.RecordBytes > 512<<10, "--record-size %d: from %d bytes to 512 KiB", o.RecordBytes, valueHeader)
	bad(o.LivePartitions < 1 || o.SlowPartitions < 1 || o.OldPartitions < 1, "a topic has at least 1 partition")
	bad(o.LiveRate != 0 && o.LiveRate < int64(o.RecordBytes), "--live-rate: 0, or at least one record a second")
	bad(o.SlowRate != 0 && o.SlowRate < int64(o.RecordBytes), "--slow-rate: 0, or at least one record a second")
	bad(o.OldBytes < 0, "--old-size is negative")
	bad(o.Repeat < 1 || o.Repeat > maxRepeat, "--repeat %d: from 1 to %d", o.Repeat, maxRepeat)
	bad(o.Phase < time.Second, "--phase %v: at least 1s, since p99 is looked at by the second", o.Phase)
	bad(o.Settle < 0 || o.RecoveryMax < 0 || o.Linger < 0 || o.Behind < 0, "a duration is negative")
	bad(o.BacklogRange != "spread" && o.BacklogRange != "same", "--backlog-range %q: spread or same", o.BacklogRange)
	bad(o.BacklogMaxBytes < 1<<10, "--backlog-max-bytes %d: at least 1 KiB", o.BacklogMaxBytes)
	bad(o.FillOnly && o.OldBytes == 0, "--fill-only without --old-size")
	return errors.Join(errs...)
}

// ErrInterrupted: the context ended before the last phase did.
var ErrInterrupted = errors.New("interrupted")

// runner is one run.
type runner struct {
	o       IsolationOptions
	specs   []phaseSpec
	c       *cluster
	log     io.Writer
	result  *report.Isolation
	devices []string

	begun      time.Time
	live       *stream
	slow       *stream
	readings   []*reading
	recorders  []*recorder // as in report.Roles, of the roles that take part
	late       *recorder
	groups     *groupTally           // nil: plain consumers
	at         map[string]*positions // of the live roles, with groups
	mixedCold  atomic.Bool
	mixedOld   backlog
	mixedAddr  string // of the broker that both are read from
	mixedTally *tally
	old        []oldPart
	oldLeads   map[int32]string

	mu      sync.Mutex
	readers []*tally // those that run, or ran last
	past    int64    // bytes of those before
	most    int64    // anonymous memory of the broker in this phase
	lowest  map[string]float64
	fail    context.CancelCauseFunc
	work    sync.WaitGroup
	running map[string]int // what work waits for
}

// RunIsolation runs the phases and returns what they came to. When ctx ends early the whole phases up to then are returned together
// with its error. Progress goes to log, a line each.
func RunIsolation(ctx context.Context, o IsolationOptions, log io.Writer) (result *report.Isolation, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &runner{o: o, log: log, mixedTally: &tally{}, running: map[string]int{}}
	if o.Groups {
		r.groups = &groupTally{}
	}
	r.specs, _ = parsePhases(o.Phases) // validated
	if r.devices, err = o.Outside.check(ctx); err != nil {
		return nil, err
	}
	if r.c, err = connect(ctx, o.Brokers); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.c.close(o.Keep || o.FillOnly)) }()
	// Garbage is batches, of a few MiB a second: collecting it seldom costs little memory and leaves the cores to the broker.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	r.result = &report.Isolation{Tool: "lagoon-bench isolation", Format: report.Format, Label: o.Label, Machine: machine(), Load: o.load()}
	if err := r.prepare(ctx); err != nil || o.FillOnly {
		if ctx.Err() != nil { // whatever it was that noticed first
			err = ErrInterrupted
		}
		return nil, err
	}
	err = r.run(ctx)
	r.finish(err)
	return r.result, err
}

// whole is a rate as it is produced: whole records a second.
func (o *IsolationOptions) whole(rate int64) int64 {
	return rate / int64(o.RecordBytes) * int64(o.RecordBytes)
}

func (o *IsolationOptions) load() report.Load {
	return report.Load{
		Brokers: o.Brokers, LiveBytesPerSec: o.whole(o.LiveRate), LivePartitions: o.LivePartitions, SlowBytesPerSec: o.whole(o.SlowRate), SlowPartitions: o.SlowPartitions,
		OldBytes: o.OldBytes, OldPartitions: o.OldPartitions, RecordBytes: o.RecordBytes, LingerSeconds: o.Linger.Seconds(),
		BehindSeconds: o.Behind.Seconds(), BacklogRange: o.BacklogRange, BacklogMaxBytes: o.BacklogMaxBytes, Groups: o.Groups,
		PhaseSeconds: ceilSecond(o.Phase).Seconds(), SettleSeconds: o.Settle.Seconds(), Repeats: o.Repeat, TopicConfigs: slices.Concat(o.TopicConfigs, o.OldConfigs),
	}
}

func machine() report.Machine {
	m := report.Machine{CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if info, err := keyed("/proc/meminfo"); err == nil {
		m.MemoryBytes = info["MemTotal"] << 10
	}
	return m
}

func (r *runner) logf(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) }

func (r *runner) note(format string, args ...any) {
	r.result.Notes = append(r.result.Notes, fmt.Sprintf(format, args...))
	r.logf("note: "+format, args...)
}

func (r *runner) topic(name string) string { return r.o.TopicPrefix + name }

// prepare makes and fills the topics and measures the device.
func (r *runner) prepare(ctx context.Context) error {
	if err := r.prepareOld(ctx); err != nil || r.o.FillOnly {
		return err
	}
	if err := r.c.claim(ctx, r.o.Reuse, r.groupNames()...); err != nil {
		return err
	}
	for _, t := range []struct {
		name       string
		rate       int64
		partitions int32
	}{{"live", r.o.LiveRate, r.o.LivePartitions}, {"slow", r.o.SlowRate, r.o.SlowPartitions}} {
		if t.rate > 0 {
			if _, err := r.c.create(ctx, r.topic(t.name), t.partitions, r.o.Replication, r.o.TopicConfigs, r.o.Reuse); err != nil {
				return err
			}
		}
	}
	if r.o.LiveRate > 0 {
		if err := r.prepareMixed(ctx); err != nil {
			return err
		}
	}
	return r.measure(ctx)
}

// measure finds the device's own limit, once nothing is left to be written that filling brought: a head that writes meanwhile gives a reader
// a fraction of it, and the base phase would have the rest.
func (r *runner) measure(ctx context.Context) error {
	files, quiet := r.sealedOld, slices.Clone(r.o.Outside.DataDirs)
	if name := r.o.DeviceLimitFile; name != "" {
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("--device-limit-file: %w", err)
		}
		files, quiet = func() []string { return []string{name} }, append(quiet, name)
	}
	begun := time.Now()
	if err := writeBack(ctx, quiet); err != nil {
		return err
	}
	if took := time.Since(begun); took > time.Second {
		r.logf("waited %v for what was still to be written", took.Round(time.Second))
	}
	if len(files()) == 0 {
		r.note("the device's own limit was not measured: give --data-dir or --device-limit-file")
		return nil
	}
	d, err := measureDevice(ctx, files)
	if err != nil {
		return err
	}
	r.result.Device = d
	r.logf("device: %.0f MB/s, sequential, 1 MiB, O_DIRECT", d.MBPerSec)
	return nil
}

func (r *runner) prepareOld(ctx context.Context) error {
	if r.o.OldBytes == 0 {
		return nil
	}
	topic := r.topic("old")
	reused, err := r.c.create(ctx, topic, r.o.OldPartitions, r.o.Replication, slices.Concat(r.o.TopicConfigs, r.o.OldConfigs), r.o.Reuse)
	if err != nil {
		return err
	}
	first, end, err := r.c.offsets(ctx, topic, r.o.OldPartitions)
	if err != nil {
		return err
	}
	have := int64(0)
	for p := range first {
		have += (end[p] - first[p]) * int64(r.o.RecordBytes)
	}
	// For a little that is missing nothing is written just before the measurement.
	if missing := r.o.OldBytes - have; missing > r.o.OldBytes/20 {
		begun := time.Now()
		err := r.c.fill(ctx, topic, r.o.OldPartitions, missing, r.o.RecordBytes, func(done, size int64) {
			r.logf("filling %s: %.1f of %.1f GB, %.0f MB/s", topic, float64(done)/1e9, float64(size)/1e9, float64(done)/1e6/max(time.Since(begun).Seconds(), 0.001))
		})
		if err != nil {
			return err
		}
		reused = false
	}
	r.result.Load.BacklogWasReused = reused
	if first, end, err = r.c.offsets(ctx, topic, r.o.OldPartitions); err != nil {
		return err
	}
	for p := range first {
		// The newest eighth is left alone: a broker may well take a reader there for one that is nearly up to date.
		if to := end[p] - (end[p]-first[p])/8; to > first[p] {
			r.old = append(r.old, oldPart{partition: int32(p), from: first[p], to: to, next: first[p]})
		}
	}
	r.oldLeads, err = r.c.leaders(ctx, topic)
	return err
}

// sealedOld is the files of the old topic that are no longer written, those of a partition one after the other.
func (r *runner) sealedOld() (out []string) {
	parts, err := r.o.Outside.segments(r.topic("old"))
	if err != nil {
		return nil
	}
	for p := range len(parts) {
		if names := parts[p]; len(names) > 1 {
			out = append(out, names[:len(names)-1]...)
		}
	}
	if len(out) == 0 { // one segment each: they are not written any more, either
		for p := range len(parts) {
			out = append(out, parts[p]...)
		}
	}
	return out
}

// run is everything that happens under load.
func (r *runner) run(ctx context.Context) error {
	roles, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.fail = cancel
	produce, stopProducing := context.WithCancel(roles)
	defer stopProducing()

	err := r.joinLive(roles)
	r.begun = time.Now().Truncate(time.Second).Add(time.Second) // seconds of the charts are whole ones
	r.result.Started = r.begun
	r.late = newRecorder("generator", r.begun)
	if err == nil {
		err = r.startRoles(roles, produce)
	}
	if err != nil {
		cancel(nil)
		return errors.Join(err, r.wait())
	}
	r.background("looking from outside", func() error { return r.sample(roles) })

	err = r.phases(roles)
	if cause := context.Cause(roles); cause != nil {
		err = cause
	}
	pause(roles, 10*tick) // the last record of the last phase is due a moment before its end
	stopProducing()
	if err == nil {
		r.drain(roles)
		r.askForRest(roles)
	}
	if cause := context.Cause(roles); cause != nil {
		err = cause
	}
	cancel(nil)
	if stuck := r.wait(); stuck != nil {
		return stuck
	}
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return err
}

// recorder makes one for a role.
func (r *runner) recorder(role string) *recorder {
	rec := newRecorder(role, r.begun)
	r.recorders = append(r.recorders, rec)
	return rec
}

func (r *runner) startRoles(roles, produce context.Context) error {
	var err error
	if r.o.LiveRate > 0 {
		if r.live, err = r.startStream(roles, produce, "live", r.o.LiveRate, r.o.LivePartitions, report.Ack); err != nil {
			return err
		}
	}
	if r.o.SlowRate > 0 {
		if r.slow, err = r.startStream(roles, produce, "slow", r.o.SlowRate, r.o.SlowPartitions, report.AckSlow); err != nil {
			return err
		}
	}
	if r.live != nil {
		tail := newReading(report.Tail, r.live, r.recorder(report.Tail), 0, numbered(r.o.LivePartitions)...)
		tail.at = r.at[report.Tail]
		r.readings = append(r.readings, tail)
		r.background(tail.role, func() error { return tail.tail(roles, r.o.Brokers) })
	}
	if r.slow != nil {
		delayed := newReading(report.Delayed, r.slow, r.recorder(report.Delayed), r.o.Behind, numbered(r.o.SlowPartitions)...)
		delayed.at = r.at[report.Delayed]
		r.readings = append(r.readings, delayed)
		leaders, err := r.c.leaders(roles, r.slow.topic)
		if err != nil {
			return err
		}
		for addr, parts := range byLeader(leaders) {
			r.background(delayed.role, func() error { return delayed.delayed(roles, addr, parts) })
		}
	}
	if r.live != nil {
		mixed := newReading(report.Mixed, r.live, r.recorder(report.Mixed), 0, 0)
		mixed.at, r.mixedOld.at = r.at[report.Mixed], r.at[report.Mixed]
		r.readings = append(r.readings, mixed)
		r.background(mixed.role, func() error { return mixed.mixed(roles, r.mixedAddr, 0, &r.mixedOld, &r.mixedCold) })
	}
	return nil
}

func numbered(n int32) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

func (r *runner) startStream(ctx, produce context.Context, name string, rate int64, partitions int32, role string) (*stream, error) {
	s := &stream{
		topic: r.topic(name), valueBytes: r.o.RecordBytes, run: rand.Uint64(), random: newNoise(uint64(r.begun.UnixNano())),
		schedule: schedule{start: r.begun.UnixNano(), rate: rate / int64(r.o.RecordBytes), partitions: int64(partitions)},
		ack:      r.recorder(role), late: r.late,
	}
	var err error
	if _, s.first, err = r.c.offsets(ctx, s.topic, partitions); err != nil {
		return nil, err
	}
	cl, err := s.client(r.o.Brokers, r.o.Linger)
	if err != nil {
		return nil, err
	}
	r.background("producer of "+s.topic, func() error { return s.produce(ctx, produce, cl) })
	return s, nil
}

// prepareMixed chooses what the mixed client reads: live partition 0 and, when told to, an old partition of the same broker.
func (r *runner) prepareMixed(ctx context.Context) error {
	leaders, err := r.c.leaders(ctx, r.topic("live"))
	if err != nil {
		return err
	}
	r.mixedAddr = leaders[0]
	r.mixedOld = backlog{topic: r.topic("old"), maxBytes: r.o.BacklogMaxBytes, tally: r.mixedTally}
	if i := slices.IndexFunc(r.old, func(p oldPart) bool { return r.oldLeads[p.partition] == leaders[0] }); i >= 0 {
		p := r.old[i]
		p.next = p.from + (p.to-p.from)/2 // half a partition away from where backlog readers begin
		r.mixedOld.parts = []oldPart{p}
	} else if len(r.old) > 0 {
		r.note("mixed: no old partition is on the broker that leads %s/0, so its cold half is missing", r.topic("live"))
	}
	return nil
}

// startReaders starts backlog readers, as members of their groups where there are groups; stop ends them and waits.
func (r *runner) startReaders(ctx context.Context, n int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() { cancel(); running.Wait() }
	readers, at, members := make([]*tally, n), make([]*positions, n), make([]*member, 0, n)
	for i := range readers {
		readers[i] = &tally{}
		if r.groups != nil {
			m := r.member(backlogRole(i), r.oldPartitions())
			at[i], members = m.at, append(members, m)
		}
	}
	if err := r.join(ctx, members, func(m *member, run func() error) {
		running.Go(func() {
			if err := run(); err != nil {
				r.fail(fmt.Errorf("group %s: %w", m.group, explain(err)))
			}
		})
	}); err != nil {
		stop()
		return nil, err
	}
	for i := range readers {
		for addr, one := range r.reader(i, n, readers[i], at[i]) {
			running.Go(func() {
				if err := one.read(ctx, addr, clientID(backlogRole(i))); err != nil {
					r.fail(fmt.Errorf("backlog reader %d: %w", i, explain(err)))
				}
			})
		}
	}
	r.mu.Lock()
	for _, b := range r.readers {
		r.past += b.bytes.Load()
	}
	r.readers = readers
	r.mu.Unlock()
	return stop, nil
}

func (r *runner) oldPartitions() (out []topicPartition) {
	for _, p := range r.old {
		out = append(out, topicPartition{r.topic("old"), p.partition})
	}
	return out
}

// reader is the i-th backlog reader of n: one connection to each broker that leads a part of the old topic.
func (r *runner) reader(i, n int, got *tally, at *positions) map[string]*backlog {
	out := map[string]*backlog{}
	for _, p := range r.old {
		addr := r.oldLeads[p.partition]
		if out[addr] == nil {
			out[addr] = &backlog{topic: r.topic("old"), maxBytes: r.o.BacklogMaxBytes, at: at, tally: got}
		}
		if r.o.BacklogRange == "spread" {
			p.next = p.from + (p.to-p.from)*int64(i)/int64(n)
		}
		out[addr].parts = append(out[addr].parts, p)
	}
	return out
}

// finish puts the result together.
func (r *runner) finish(err error) {
	r.result.Interrupted = err != nil
	end := time.Now().UnixNano()
	whole := r.begun.UnixNano() // the end of the last whole phase
	if n := len(r.result.Phases); n > 0 {
		whole += int64(r.result.Phases[n-1].ToSeconds * float64(time.Second))
	}
	// A run that is cut short owes nothing for what was due after its last whole phase.
	unfinished := func(rec *recorder, due int64) {
		if err == nil || due < whole {
			rec.unfinished(due, end)
		}
	}
	for _, s := range []*stream{r.live, r.slow} {
		if s != nil {
			s.unanswered(func(due int64) { unfinished(s.ack, due) })
			s.held(whole, func(_, due int64) { s.ack.unfinished(due, end) })
		}
	}
	for _, one := range r.readings {
		one.held(whole, func(due int64) { one.rec.unfinished(due, end) })
		c := one.check(func(due int64) { unfinished(one.rec, due) })
		if err == nil {
			r.result.Checks = append(r.result.Checks, c)
		}
	}
	for _, s := range []*stream{r.live, r.slow} {
		if s != nil && s.failures > 0 {
			r.note("%d records of %s were refused or not acknowledged in time; the first: %v", s.failures, s.topic, s.failure)
		}
	}
	for i := range r.result.Phases {
		p := &r.result.Phases[i]
		p.Latency = map[string]report.Latency{}
		for _, rec := range r.recorders {
			if rec.role == report.Mixed && len(r.mixedOld.parts) == 0 && p.MixedCold {
				continue
			}
			p.Latency[rec.role] = rec.latency(i)
		}
		p.Use.Late = r.late.latency(i)
	}
	for _, rec := range r.recorders {
		r.result.Series = append(r.result.Series, rec.series())
	}
	if r.groups != nil {
		r.result.Groups = r.groups.report()
		if why := r.groups.why(); why != "" {
			r.note("%s", why)
		}
	}
	r.result.Conclude()
	if what, on := lab.ProactiveReclaim(); on && len(r.o.Outside.DataDirs) > 0 {
		r.note("the kernel of this machine pages out by age without pressure (%s): the hot window may miss pages through nobody's fault", what)
	}
	if r.o.Outside.PID == 0 {
		r.note("processor time and memory of the broker were not measured: give --pid")
	}
	if len(r.o.Outside.DataDirs) == 0 {
		r.note("the page cache was not looked at: give --data-dir")
	}
	if r.o.Outside.Admin == "" {
		r.note("what real-time readers took from disk is not known: only Lagoon tells it (--admin); hot_window_resident shows from outside what they had to")
	}
}

// evictOld makes old data cold, as far as that can be done from here.
func (r *runner) evictOld(ctx context.Context) error {
	if r.o.EvictCommand != "" {
		if err := shell(ctx, r.o.EvictCommand); err != nil {
			return fmt.Errorf("--evict-command: %w", err)
		}
	}
	if len(r.o.Outside.DataDirs) == 0 {
		return nil
	}
	left, err := r.o.Outside.evictAll(ctx, r.topic("old"))
	if err != nil {
		return err
	}
	if left > r.o.OldBytes/100 {
		r.note("%.0f MB of %s could not be taken out of the page cache before a phase: that much of its backlog was not cold", float64(left)/1e6, r.topic("old"))
	}
	return nil
}
