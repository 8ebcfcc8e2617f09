package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/conf"
	"lagoon/internal/admin"
	"lagoon/internal/broker"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/tiering"
)

const (
	// drainTime is for everything between SIGTERM and the end of the process; clients get the larger part of it.
	drainTime  = 10 * time.Second
	clientTime = 5 * time.Second
	// graceTime is what a step of stop gets beyond its time: more is of no use to what waits for a disk that does not answer.
	graceTime = time.Second
	// startGrace is what a step of start gets to end in when the daemon is to stop.
	startGrace = 5 * time.Second
	// answerTime is how long a start waits for a disk.
	answerTime = 30 * time.Second
	// catalogueDir holds the metadata, in the hottest tier.
	catalogueDir = "lagoon-metadata"
	// catalogueLock is taken before anything is read: opening a catalogue may repair it.
	catalogueLock = catalogueDir + "/.lock"
)

// daemonOptions are what serve and dev do differently.
type daemonOptions struct {
	Ready     func(*daemon) // called once, when clients are served
	MakeTiers bool          // make absent tier directories; else an absent one is an error, for it may be a disk that is not mounted
	Level     *logLevel     // of the logger
	Recent    *recentLog    // what the logger has written lately
	// Load reads the configuration again. Each value of Reload asks for that; nil never does.
	Load   func() (*conf.Config, error)
	Reload <-chan os.Signal
}

// daemon is the broker with everything below it. Fields are set in the order in which start runs.
type daemon struct {
	cfg *conf.Config // that it was started with
	log *slog.Logger
	opt daemonOptions
	reg *prometheus.Registry

	started   time.Time
	listeners []net.Listener
	admin     *admin.Server
	tiers     []tier
	cache     *cachectl.Cache
	pool      *cachectl.Pool
	catalogue *metadata.Store
	store     *partition.Store
	broker    *broker.Broker
	backend   *backend

	without ablation

	config   *configuration // that it runs with
	limiting sync.Mutex     // of applyLimits

	closing sync.Mutex             // of closers
	closers []closer               // last first
	left    bool                   // a step of start was left behind: what it does still is not undone
	asked   atomic.Pointer[string] // the path of the disk that a step with a limit waits for
	serving sync.WaitGroup
	failed  chan error // a listener died
}

// tier is a configured tier and what the machine says about it.
type tier struct {
	conf.Tier
	fs     vfs.FS
	device uint64 // st_dev
	class  string // ssd or hdd; set by probeDevices
	// classFrom: configured, measured or rotational flag. measured is empty but with the second.
	classFrom string
	measured  cachectl.Device
}

// run starts the daemon, serves until ctx ends or a listener dies, and takes everything apart again within drainTime.
// What start had done before it failed is undone as well.
func run(ctx context.Context, cfg *conf.Config, log *slog.Logger, opt daemonOptions) error {
	d := &daemon{cfg: cfg, log: log, opt: opt, reg: prometheus.NewRegistry(), started: time.Now(), failed: make(chan error, 8)}
	d.config = newConfiguration(cfg)
	d.backend = &backend{config: d.config, reload: d.reload, build: buildInfo(), started: d.started, level: opt.Level, recent: opt.Recent}
	d.backend.setState("starting")
	err := d.start(ctx)
	if err == nil {
		d.backend.setState("ready")
		if opt.Ready != nil {
			opt.Ready(d)
		}
		for running := true; running; {
			select {
			case <-ctx.Done():
				running = false
			case err = <-d.failed:
				running = false
			case <-opt.Reload:
				_, _ = d.reload(ctx, false) // the log tells
			}
		}
	} else if ctx.Err() != nil {
		err = nil // stopped while it was starting: that is what was asked for
	}
	return errors.Join(err, d.stop())
}

// closer is one step of stop.
type closer struct {
	what string
	do   func(context.Context) error
}

// undo registers what stop has to do for what was just done.
func (d *daemon) undo(what string, do func(context.Context) error) {
	d.closing.Lock()
	defer d.closing.Unlock()
	if !d.left {
		d.closers = append(d.closers, closer{what, do})
	}
}

// step is one of start's.
type step struct {
	name string
	do   func(context.Context) error
	most time.Duration // for an answer of the disk at daemon.asked, without which there is no start; 0: the step has a limit of its own, or none
}

// take does one step, and leaves it behind when a disk does not answer it: nothing that it did is undone but by the end of the process, which has to
// come whatever a disk does.
func (d *daemon) take(ctx context.Context, s step) error {
	before := len(d.closers)
	done := make(chan error, 1)
	go func() { done <- s.do(ctx) }()
	var late <-chan time.Time
	if s.most > 0 {
		late = time.After(s.most)
	}
	select {
	case err := <-done:
		return err
	case <-late:
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		case <-time.After(startGrace):
		}
	}
	d.closing.Lock()
	defer d.closing.Unlock()
	d.left, d.closers = true, d.closers[:before]
	if ctx.Err() != nil {
		d.log.Error("stopped while the start waited: does every disk answer?", "step", s.name)
		return ctx.Err()
	}
	return fmt.Errorf("%s: %s does not answer: start again when its disk does", s.name, *d.asked.Load())
}

// run leaves a step behind that does not end soon after ctx: the process has to end whatever a disk does.
func (c closer) run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.do(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(graceTime):
		return fmt.Errorf("%s did not close in time: does its disk answer?", c.what)
	}
}

// start builds the daemon from the ground up. The ports come first: a taken one is found before any file is touched. The admin API
// is served before the logs are checked, so that it can tell how far that is.
func (d *daemon) start(ctx context.Context) (err error) {
	if d.without, err = parseAblation(os.Getenv(ablateEnv)); err != nil {
		return err
	}
	if d.without != (ablation{}) {
		d.log.Warn("mechanisms are left out for a measurement", "left_out", os.Getenv(ablateEnv), "by", ablateEnv)
	}
	for _, s := range []step{
		{"listen", d.listen, 0},
		{"listen for admin", d.listenAdmin, 0},
		{"open tiers", d.openTiers, answerTime},
		{"open catalogue", d.openCatalogue, answerTime},
		{"probe page cache", d.openCache, 0},
		{"open log directories", d.openStore, 0},
		{"serve admin API", d.serveAdmin, 0},
		{"load partitions", d.load, 0},
		{"serve clients", d.serveClients, 0},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.log.Debug("starting", "step", s.name)
		if err := d.take(ctx, s); err != nil {
			return err
		}
	}
	d.log.Info("ready", "listen", d.cfg.Server.Listen, "admin", d.admin.Addr().String(), "cluster", d.catalogue.Snapshot().ClusterID,
		"partitions", len(d.store.Logs()), "elapsed", time.Since(d.started).Round(time.Millisecond))
	return nil
}

// stop undoes start in reverse order. Errors do not keep the rest from being closed.
func (d *daemon) stop() error {
	begun := time.Now()
	d.backend.setState("draining")
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	d.closing.Lock()
	closers, left := d.closers, d.left
	d.closing.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i].run(ctx))
	}
	err := errors.Join(errs...)
	if err == nil && !left && d.broker != nil {
		d.log.Info("stopped", "elapsed", time.Since(begun).Round(time.Millisecond))
	}
	return err
}

func (d *daemon) listen(context.Context) error {
	for _, addr := range d.cfg.Server.Listen {
		ln, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s is taken by another process (Kafka, or another Lagoon?): stop it, or listen elsewhere with --set server.listen=HOST:PORT", addr)
		}
		if err != nil {
			return fmt.Errorf("server.listen %s: %w", addr, err)
		}
		d.listeners = append(d.listeners, ln)
		d.undo("listener", func(context.Context) error {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // the broker closes it, too
				return err
			}
			return nil
		})
	}
	return nil
}

// listenAdmin binds the admin API; calls wait until serveAdmin.
func (d *daemon) listenAdmin(context.Context) error {
	token := ""
	if d.cfg.Admin.TokenFile != "" {
		var err error
		if token, err = readToken(d.cfg.Admin.TokenFile); err != nil {
			return fmt.Errorf("admin.token_file: %w", err)
		}
	}
	d.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), ioPressure{ioPressureFile})
	if slices.Contains(d.cfg.Metrics.Compat, "jmx") {
		d.reg.MustRegister(diskIO{processIOFile})
	}
	local, err := listenSocket(d.cfg.Admin.Socket)
	if err != nil {
		return fmt.Errorf("admin.socket: %w", err)
	}
	d.undo("admin socket", func(context.Context) error {
		if local == nil {
			return nil
		}
		if err := local.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // the admin server closes it, too
			return err
		}
		return nil
	})
	d.admin, err = admin.New(admin.Options{
		Local: local, Listen: d.cfg.Admin.Listen, Hosts: d.cfg.Admin.Hosts, Token: token, Backend: d.backend, Gatherer: d.reg, Compat: d.cfg.Metrics.Compat, Log: d.log,
	})
	if err != nil {
		return err
	}
	if err := d.admin.Listen(); err != nil {
		return fmt.Errorf("%w (--set admin.listen=HOST:PORT)", err)
	}
	d.undo("admin API", func(ctx context.Context) error {
		defer d.serving.Wait()
		return d.admin.Close(ctx)
	})
	return nil
}

// listenSocket binds a unix socket for its owner and group; what a killed daemon left is taken away, a living one is not. The path ""
// gives nil.
func listenSocket(path string) (net.Listener, error) {
	if path == "" {
		return nil, nil
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket: choose another path", path)
		}
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close() // nothing was said
			return nil, fmt.Errorf("%s is in use by another process: choose another path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Between bind and chmod nobody else may connect. The mask is the process's: start is the only one that makes files here.
	mask := syscall.Umask(0o117)
	ln, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("%w: does its directory exist, and may the daemon write it?", err)
	}
	return ln, nil
}

// serveAdmin completes the backend and lets it answer.
func (d *daemon) serveAdmin(context.Context) error {
	b := d.backend
	b.cache, b.pool, b.meta, b.store, b.tiers = d.cache, d.pool, d.catalogue, d.store, map[string]tier{}
	for i, dir := range d.store.Dirs() { // in the order in which they were given
		b.tiers[dir.Name] = d.tiers[i]
	}
	var bound []string
	for _, ln := range d.listeners {
		bound = append(bound, ln.Addr().String())
	}
	b.bound.Store(&bound)
	for _, e := range d.endpoints() {
		b.advertised = append(b.advertised, net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
	}
	b.sampler = newSampler(func() []sampled { return segmentsOf(d.store.Logs(), d.store.Readers()) }, d.cfg.Cache.SampleInterval.Std(), time.Now)
	if err := b.sampler.register(d.reg); err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	sampled := make(chan struct{})
	go func() { defer close(sampled); b.sampler.run(ctx) }()
	d.serving.Go(func() {
		if err := d.admin.Serve(); err != nil {
			d.failed <- err
		}
	})
	// The store is closed before the admin API is: it tells that the daemon drains, from what the store still knows.
	d.undo("residency sampler", func(context.Context) error {
		end()
		select {
		case <-sampled:
		case <-time.After(graceTime): // it looks at a disk that does not answer, and may go on: the others need the time
		}
		return nil
	})
	return nil
}

func (d *daemon) openTiers(context.Context) error {
	var errs []error
	for _, t := range d.cfg.Directories() {
		d.asked.Store(&t.Path)
		if d.opt.MakeTiers {
			if err := os.MkdirAll(t.Path, 0o700); err != nil {
				errs = append(errs, fmt.Errorf("tier %s: %w", t.Name, err))
				continue
			}
		}
		root, err := vfs.OS(t.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("tier %s: %s does not exist: mount its file system, or make the directory if the tier is new", t.Name, t.Path))
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("tier %s: %w", t.Name, err))
			continue
		}
		d.tiers = append(d.tiers, tier{Tier: t, fs: root, device: deviceOf(t.Path)})
		d.log.Info("tier opened", "tier", t.Name, "path", t.Path)
	}
	return errors.Join(errs...)
}

// openCatalogue takes the lock of the whole broker and reads the catalogue. A catalogue is made only where nothing speaks against
// it: a colder tier that has an owner means that the hottest tier is not the one that was there.
func (d *daemon) openCatalogue(context.Context) error {
	hot := d.tiers[0].fs
	d.asked.Store(&d.tiers[0].Path)
	if _, err := hot.Stat(catalogueDir); errors.Is(err, fs.ErrNotExist) {
		for _, t := range d.tiers[1:] {
			if _, err := t.fs.Stat(tiering.IdentityFile); err == nil {
				return fmt.Errorf("tier %s: %s holds no catalogue (%s), but tier %s at %s was used before: mount the file system of tier %s, or correct its path",
					d.tiers[0].Name, hot.Root(), catalogueDir, t.Name, t.fs.Root(), d.tiers[0].Name)
			}
		}
	}
	if err := hot.MkdirAll(catalogueDir); err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	lock, err := hot.Lock(catalogueLock)
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%s is in use by another Lagoon: stop it, or give this one other tiers", hot.Root())
	}
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	// Together: the lock of a catalogue that does not close goes with the process.
	d.undo("catalogue", func(context.Context) error {
		var err error
		if d.catalogue != nil {
			err = d.catalogue.Close()
		}
		return errors.Join(err, lock.Close())
	})
	d.catalogue, err = metadata.Open(hot, catalogueDir, metadata.Options{Logger: d.log, OnChange: d.catalogueChanged})
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	return nil
}

// openCache prepares the page cache; partition.Open probes how cold reads of each tier can leave it alone.
func (d *daemon) openCache(context.Context) (err error) {
	d.probeDevices()
	d.cache = cachectl.New(cachectl.LinuxKernel(), cachectl.Options{
		ReadMode: cachectl.ReadMode(d.cfg.Readers.ReadMode), Logger: d.log, Registerer: d.reg,
	})
	// A direct read may need one page more at each end than what it is asked for.
	chunk, n := int64(d.cfg.Readers.ChunkBytes)+2*cachectl.PageSize, int64(d.cfg.Readers.ChunkMemory/d.cfg.Readers.ChunkBytes)
	if d.pool, err = cachectl.NewPool(n*chunk, chunk); err != nil {
		return err
	}
	d.undo("chunk memory", func(context.Context) error { d.pool.Close(); return nil })
	return d.pool.Register(d.reg)
}

func (d *daemon) openStore(context.Context) error {
	mode, err := admission.ParseMode(d.cfg.Readers.ReadMode)
	if err != nil {
		return err
	}
	snap := d.catalogue.Snapshot()
	dirs, err := d.dirSpecs()
	if err != nil {
		return err
	}
	d.store, err = partition.Open(partition.Options{
		Dirs: dirs, ClusterID: snap.ClusterID, KnownTiers: snap.Tiers, RememberTier: d.catalogue.SetTier,
		Cache: d.cache, Pool: d.pool, Mode: mode, Readers: readersConfig(d.cfg), Limits: limitsConfig(d.cfg, snap), Caps: subjectCaps(snap), Overrides: admissionOverrides(snap, time.Now()), RetentionRace: d.cfg.Throttle.RetentionRace, SyncGate: d.cfg.Throttle.SyncGate,
		RetentionInterval: d.cfg.Tiering.Interval.Std(), PlanInterval: d.cfg.Tiering.Interval.Std(), DemandHorizon: d.cfg.Tiering.DemandHorizon.Std(),
		Adaptive: d.adaptive(), Hot: hotConfig(d.cfg), Alone: d.without.convoys,
		Logger: d.log, Registerer: d.reg,
	})
	if err != nil {
		return err
	}
	d.undo("log directories", d.store.Close)
	return nil
}

func (d *daemon) load(ctx context.Context) error {
	defer every(5*time.Second, func() {
		p := d.store.Progress()
		d.log.Info("recovering logs", "done", p.Done, "partitions", p.Partitions, "scanned_bytes", p.ScannedBytes)
	})()
	specs, err := broker.TopicSpecs(d.catalogue.Snapshot(), d.cfg.TopicDefaults(), d.cfg.Server.NodeID)
	if err != nil {
		return err
	}
	if err := d.store.Load(ctx, specs); err != nil {
		return err
	}
	if p := d.store.Progress(); p.ScannedBytes > 0 {
		d.log.Info("recovered logs after an unclean stop", "partitions", p.Partitions, "scanned_bytes", p.ScannedBytes, "cut_bytes", p.CutBytes)
	}
	for _, name := range d.store.Unknown() {
		d.log.Warn("directory left alone: the catalogue does not know it", "dir", name)
	}
	return nil
}

// every calls fn at the interval until the function it returns is called.
func every(interval time.Duration, fn func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				fn()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func (d *daemon) serveClients(ctx context.Context) (err error) {
	if d.broker, err = broker.New(d.brokerOptions()); err != nil {
		return err
	}
	if err := d.broker.FinishDeletions(ctx); err != nil {
		d.log.Warn("deleted topics left for the next start", "err", err)
	}
	d.backend.server.Store(d.broker)
	// Connections outlive ctx: Shutdown lets them finish.
	life, cut := context.WithCancel(context.Background())
	for i, ln := range d.listeners {
		d.serving.Go(func() {
			if err := d.broker.Serve(life, endpointName(i), ln); err != nil && !errors.Is(err, broker.ErrServing) {
				d.failed <- fmt.Errorf("listener %s: %w", ln.Addr(), err)
			}
		})
	}
	d.undo("connections", func(ctx context.Context) error {
		defer cut()
		ctx, cancel := context.WithTimeout(ctx, clientTime)
		defer cancel()
		if err := d.broker.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		} else if err != nil {
			d.log.Warn("connections cut off: they did not finish in time", "after", clientTime)
		}
		return nil
	})
	return nil
}
