package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"lagoon/admission"
	"lagoon/conf"
	"lagoon/internal/admin"
)

const (
	demoLive    = "live"    // written and read in real time
	demoHistory = "history" // old data
	// demoRate and demoRecord are the real-time load: records of a kibibyte, as in the isolation tests, at a rate that leaves a laptop's
	// cores to the broker.
	demoRate   = 2000 // records per second
	demoRecord = 1 << 10
	// demoOldRecord is large, so that the backfill's client, in this process, costs little beside the broker.
	demoOldRecord = 256 << 10
	demoLeast     = 128 << 20 // of old data: each partition's part is well outside the window below
	demoFrame     = 500 * time.Millisecond
)

// demoOptions are the flags of lagoon dev --demo.
type demoOptions struct {
	root    string        // a directory for the demo's own, removed afterwards, is made in it
	length  time.Duration // of everything after the broker runs
	history int64         // bytes of old data at most
	set     []string
}

// demoSummary is what the demo found out.
type demoSummary struct {
	Complete      bool      `json:"complete"` // false: it was stopped early
	Seconds       float64   `json:"seconds"`
	HistoryBytes  int64     `json:"history_bytes"`
	BackfillBytes int64     `json:"backfill_bytes"`
	BackfillRate  float64   `json:"backfill_bytes_per_second"`
	Lanes         []string  `json:"backfill_lanes"`  // that were seen, with the way of reading
	ColdBytes     int64     `json:"cold_bytes"`      // the backfill took from the device
	LeftBytes     int64     `json:"left_bytes"`      // of history in the page cache after the backfill, more than before
	LiveDevice    int64     `json:"tail_cold_bytes"` // the tail took from the device since the phase before began
	Before        demoPhase `json:"before"`
	During        demoPhase `json:"during"`
	After         demoPhase `json:"after"`
}

// demoPhase is the real-time path in one phase. Times are from when a record was due.
type demoPhase struct {
	Records int64   `json:"records"`
	AckP50  float64 `json:"ack_p50_seconds"`
	AckP99  float64 `json:"ack_p99_seconds"`
	TailP50 float64 `json:"tail_p50_seconds"`
	TailP99 float64 `json:"tail_p99_seconds"`
}

// demo is one run.
type demo struct {
	app     *app
	opt     demoOptions
	kafka   string
	url     string
	started time.Time
	filled  time.Time

	phase   atomic.Int32 // index of phases
	mu      sync.Mutex
	ack     [4]admission.Latencies // by phase
	tail    [4]admission.Latencies
	lately  admission.Latencies // of the tail, since the last frame
	sent    atomic.Int64
	got     atomic.Int64
	written atomic.Int64 // bytes of history
	read    atomic.Int64 // bytes of history that the backfill got
	faults  chan error

	shown    demoView
	drawn    int // lines of the last frame
	terminal bool
}

// The phases.
const (
	demoFilling = iota // and the first moments of the clients
	demoBefore
	demoDuring
	demoAfter
)

// runDemo starts a broker of its own, shows it for a while, and leaves nothing behind.
func (a *app) runDemo(ctx context.Context, opt demoOptions) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp(opt.root, "lagoon-demo-")
	if err != nil {
		return fmt.Errorf("directory for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	settings := append(devSettings(dir), "server.listen=127.0.0.1:0", "server.default_partitions=4", "admin.listen=127.0.0.1:0",
		"storage.segment_bytes=16MiB", "storage.tier.ssd.keep=unlimited", "cache.hot_window_keep=1s", "readers.lagging_when.min_bytes=8MiB", "readers.lagging_when.min_age=1s",
		"log.level=error")
	load := conf.LoadOptions{Preset: settings, PresetName: "lagoon dev --demo", Env: a.environ, Set: opt.set}
	cfg, err := a.load(load)
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ready, ended := make(chan *daemon, 1), make(chan error, 1)
	go func() {
		recent := &recentLog{}
		log, level := newLogger(io.MultiWriter(recent, a.stderr), cfg.Log)
		ended <- run(life, cfg, log, daemonOptions{MakeTiers: true, Level: level, Recent: recent,
			Load: func() (*conf.Config, error) { return loadConfig(load) }, Ready: func(d *daemon) { ready <- d }})
	}()
	d := &demo{app: a, opt: opt, faults: make(chan error, 8)}
	select {
	case broker := <-ready:
		e := broker.endpoints()[0]
		d.kafka, d.url = net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))), "http://"+broker.admin.Addr().String()
	case err := <-ended:
		return err
	}
	a.admin = d.url
	summary, derr := d.run(ctx)
	end()
	if err := errors.Join(derr, <-ended); err != nil {
		return err
	}
	return d.conclude(summary)
}

// run goes through the phases; the clients end with it.
func (d *demo) run(ctx context.Context) (demoSummary, error) {
	out, isFile := d.app.stdout.(*os.File)
	d.terminal = isFile && term.IsTerminal(int(out.Fd())) && d.app.output == "table"
	d.started = time.Now()
	life, end := context.WithCancel(ctx)
	var clients sync.WaitGroup
	client := func(fn func(context.Context) error) {
		clients.Go(func() {
			if err := fn(life); err != nil && life.Err() == nil {
				d.faults <- err
			}
		})
	}
	defer func() { end(); clients.Wait() }()

	var s demoSummary
	d.say("writing %s of old data, to be replayed later", size(d.opt.history))
	if err := d.fill(life); err != nil || ctx.Err() != nil {
		return s, early(ctx, err)
	}
	d.filled = time.Now()
	client(d.produce)
	client(d.consume)
	// The first records pay for connections and for the topic itself: they are not counted.
	if err := d.watch(ctx, d.until(0.05)); err != nil || ctx.Err() != nil {
		return d.summary(s, false), early(ctx, err)
	}
	d.phase.Store(demoBefore)
	d.shown.tailBefore = d.shown.tailDevice
	if err := d.watch(ctx, d.until(0.25)); err != nil || ctx.Err() != nil {
		return d.summary(s, false), early(ctx, err)
	}
	before, granted := d.shown.historyResident, d.shown.granted
	d.phase.Store(demoDuring)
	began := time.Now()
	replay, stopReplay := context.WithCancel(life)
	defer stopReplay()
	client(func(context.Context) error { return d.backfill(replay) })
	err := d.watch(ctx, d.until(0.65))
	s.BackfillRate = float64(d.read.Load()) / time.Since(began).Seconds()
	stopReplay()
	d.shown.ask(ctx, d)
	s.ColdBytes = d.shown.granted - granted
	s.LeftBytes = max(0, d.shown.historyResident-before)
	if err != nil || ctx.Err() != nil {
		return d.summary(s, false), early(ctx, err)
	}
	d.phase.Store(demoAfter)
	if err := d.watch(ctx, d.until(0.75)); err != nil || ctx.Err() != nil {
		return d.summary(s, false), early(ctx, err)
	}
	return d.summary(s, true), nil
}

// early is no error where somebody stopped the demo.
func early(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// until is the moment when a share of the demo's time is over since there are old data. Writing them takes a quarter, or longer where
// the disk is slow.
func (d *demo) until(share float64) time.Time {
	return d.filled.Add(time.Duration(share * float64(d.opt.length)))
}

func (d *demo) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(d.kafka), kgo.AllowAutoTopicCreation()}, opts...)...)
}

// fill writes old data until there is enough of it, or a quarter of the time is over and there is enough to tell something, and takes
// it out of the page cache.
func (d *demo) fill(ctx context.Context) error {
	cl, err := d.client(kgo.ClientID("history-writer"), kgo.DefaultProduceTopic(demoHistory), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(1<<20), kgo.MaxBufferedRecords(64), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	value := noise(demoOldRecord)
	var first atomic.Pointer[error]
	limit := d.started.Add(d.opt.length / 4)
	for first.Load() == nil && ctx.Err() == nil {
		if n := d.written.Load(); n >= d.opt.history || n >= demoLeast && time.Now().After(limit) {
			break
		}
		d.written.Add(demoOldRecord)
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if p := first.Load(); p != nil {
		return fmt.Errorf("writing old data: %w", *p)
	}
	return d.makeOld(ctx)
}

// makeOld takes the old data out of the page cache, as if it had been written long ago. What is still being written to the device stays
// until it is, so it may take more than one turn.
func (d *demo) makeOld(ctx context.Context) error {
	dry := false
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 25 {
		var left int64
		for p := range int32(4) {
			in := admin.ActionBody{Topic: demoHistory, Partition: p, DryRun: &dry, Reason: "lagoon dev --demo: as if it were old"}
			body, err := d.app.ask(ctx, http.MethodPost, "/api/v1/cache/evict", nil, in)
			if err != nil {
				return err
			}
			res, err := decode[admin.CacheActionResult](body)
			if err != nil {
				return err
			}
			left += res.ResidentAfter
		}
		if left < d.written.Load()/50 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil // the summary tells what was read from where
}

// noise cannot be compressed.
func noise(n int) []byte {
	out := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(out[i:], rand.Uint64())
	}
	return out
}

// produce writes records when they are due, however long earlier ones take. A record holds the time when it was due.
func (d *demo) produce(ctx context.Context) error {
	cl, err := d.client(kgo.ClientID("checkout"), kgo.DefaultProduceTopic(demoLive), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(2*time.Millisecond), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	filler := noise(demoRecord)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for n := int64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for ; ; n++ {
				due := begin.Add(time.Duration(n) * time.Second / demoRate)
				if due.After(now) {
					break
				}
				value := append(binary.BigEndian.AppendUint64(make([]byte, 0, demoRecord), uint64(due.UnixNano())), filler[8:]...)
				d.sent.Add(1)
				cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
					switch {
					case err == nil:
						d.count(&d.ack, due)
					case ctx.Err() == nil:
						d.fault(fmt.Errorf("producer: %w", err))
					}
				})
			}
		}
	}
}

func (d *demo) fault(err error) {
	select {
	case d.faults <- err:
	default: // one is enough
	}
}

func (d *demo) count(to *[4]admission.Latencies, due time.Time) {
	took := time.Since(due)
	d.mu.Lock()
	defer d.mu.Unlock()
	to[d.phase.Load()].Add(took, 1)
	if to == &d.tail {
		d.lately.Add(took, 1)
	}
}

// consume is the tail.
func (d *demo) consume(ctx context.Context) error {
	cl, err := d.client(kgo.ClientID("fraud-check"), kgo.ConsumeTopics(demoLive), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("tail: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if len(r.Value) != demoRecord {
				d.fault(fmt.Errorf("tail: a record of %d bytes at %d", len(r.Value), r.Offset))
				return
			}
			d.got.Add(1)
			d.count(&d.tail, time.Unix(0, int64(binary.BigEndian.Uint64(r.Value))))
		})
	}
}

// backfill reads history from the beginning to the end at full speed, again and again.
func (d *demo) backfill(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.replay(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("backfill: %w", err)
		}
	}
	return nil
}

func (d *demo) replay(ctx context.Context) error {
	cl, err := d.client(kgo.ClientID("backfill"), kgo.ConsumeTopics(demoHistory), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	for left := d.written.Load(); left > 0; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left -= int64(len(r.Value))
			d.read.Add(int64(len(r.Value)))
		})
	}
	return nil
}

// quantile is the time below which a share of them lies, in seconds; 0 without any.
func quantile(l *admission.Latencies, share float64) float64 {
	total := l.Total()
	if total == 0 {
		return 0
	}
	var below int64
	for i, n := range l {
		if below += int64(n); float64(below) >= share*float64(total) {
			return admission.LatencyBound(i).Seconds()
		}
	}
	return 0
}

func (d *demo) phaseFigures(phase int) demoPhase {
	d.mu.Lock()
	defer d.mu.Unlock()
	ack, tail := &d.ack[phase], &d.tail[phase]
	return demoPhase{tail.Total(), quantile(ack, 0.5), quantile(ack, 0.99), quantile(tail, 0.5), quantile(tail, 0.99)}
}

func (d *demo) summary(s demoSummary, complete bool) demoSummary {
	s.Complete, s.Seconds = complete, time.Since(d.started).Seconds()
	s.HistoryBytes, s.BackfillBytes = d.written.Load(), d.read.Load()
	s.Before, s.During, s.After = d.phaseFigures(demoBefore), d.phaseFigures(demoDuring), d.phaseFigures(demoAfter)
	s.Lanes, s.LiveDevice = d.shown.lanes(), d.shown.tailCold()
	return s
}

func (d *demo) say(format string, args ...any) {
	if d.app.output == "table" {
		fmt.Fprintf(d.app.stdout, format+"\n", args...)
	}
}

// conclude prints what was seen.
func (d *demo) conclude(s demoSummary) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return d.app.show(body, "", func(bool) error { return d.app.printDemo(s) })
}
