package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/admin"
	"lagoon/internal/metadata"
	"lagoon/tiering"
)

// version is set by release builds: -ldflags "-X main.version=v0.1.0".
var version = "dev"

// build is what the binary knows about itself.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	GoVersion string `json:"go_version"`
}

func buildInfo() build {
	b := build{Version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.GoVersion = info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value[:min(len(s.Value), 12)]
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version of this binary", Args: args(),
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			body, err := json.Marshal(b)
			if err != nil {
				return err
			}
			return a.show(body, "", func(bool) error {
				fmt.Fprintf(a.stdout, "lagoon %s %s %s\n", b.Version, dash(b.Commit), b.GoVersion)
				return nil
			})
		},
	}
}

func (a *app) serveCommand() *cobra.Command {
	var (
		file string
		set  []string
	)
	c := &cobra.Command{
		Use: "serve", Short: "Run the broker with a configuration file", Args: args(),
		Long: `Run the broker with a configuration file.

SIGTERM and SIGINT stop it in good order, a second one at once. SIGHUP has it read the configuration again, as lagoon config reload does.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("serve needs -c FILE; `lagoon check-config --defaults` prints one to start from, `lagoon dev` needs none")
			}
			hangup := make(chan os.Signal, 1) // before the file is read: whoever changes it and says so is heard
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			return a.serve(c.Context(), conf.LoadOptions{Path: file, Env: a.environ, Set: set}, daemonOptions{Reload: hangup})
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	c.Flags().StringArrayVar(&set, "set", nil, "override one key, as in --set storage.retention=1d; may be repeated")
	return c
}

func (a *app) devCommand() *cobra.Command {
	var (
		data        string
		set         []string
		demo        bool
		demoSeconds int
		demoBytes   string
	)
	c := &cobra.Command{
		Use: "dev", Short: "Run a broker to try things out: two tiers under ./lagoon-data, no configuration file", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			root, err := filepath.Abs(data)
			if err != nil {
				return usagef("--data %s: %w", data, err)
			}
			if demo {
				history, err := conf.ParseBytes(demoBytes)
				if err != nil || history < 64<<20 {
					return usagef("--demo-bytes %s is not a size of at least 64MiB", demoBytes)
				}
				if demoSeconds < 5 || demoSeconds > 3600 {
					return usagef("--demo-seconds must be from 5 to 3600")
				}
				return a.runDemo(c.Context(), demoOptions{root: filepath.Dir(root), length: time.Duration(demoSeconds) * time.Second, history: int64(history), set: set})
			}
			opt := conf.LoadOptions{Preset: devSettings(root), PresetName: "lagoon dev", Env: a.environ, Set: set}
			return a.serve(c.Context(), opt, daemonOptions{MakeTiers: true, Ready: func(d *daemon) { fmt.Fprint(a.stdout, devBanner(d)) }})
		},
	}
	c.Flags().StringVar(&data, "data", "lagoon-data", "directory for the tiers ssd and hdd; it is made when absent")
	c.Flags().StringArrayVar(&set, "set", nil, "override one key, as in --set storage.segment_bytes=16MiB; may be repeated")
	c.Flags().BoolVar(&demo, "demo", false, "show a backfill beside a real-time consumer, on a broker of its own beside --data that is removed afterwards")
	c.Flags().IntVar(&demoSeconds, "demo-seconds", 60, "how long the demo takes")
	c.Flags().StringVar(&demoBytes, "demo-bytes", "1GiB", "old data to replay, at most; written in a quarter of the time")
	return c
}

// devSettings make a broker that shows its ideas within minutes on a laptop: small segments that soon move on, a window
// that a short backlog already leaves.
func devSettings(root string) []string {
	return []string{
		"server.listen=localhost:9092",
		"server.auto_create_topics=true",
		"storage.segment_bytes=64MiB",
		"storage.segment_age=1h",
		"storage.tier.ssd.path=" + filepath.Join(root, "ssd"),
		"storage.tier.ssd.class=ssd",
		"storage.tier.ssd.keep=10m",
		"storage.tier.hdd.path=" + filepath.Join(root, "hdd"),
		"storage.tier.hdd.class=hdd",
		"readers.lagging_when.min_bytes=64MiB",
		"readers.lagging_when.min_age=10s",
		"tiering.interval=5s",
	}
}

func devBanner(d *daemon) string {
	e := d.endpoints()[0]
	kafka := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
	return fmt.Sprintf(`
Lagoon is running.
  bootstrap   %s
  page, API   http://%s
  data        %s

Try, in another terminal:
  echo "hello lagoon" | kcat -P -b %s -t greetings
  kcat -C -b %s -t greetings -e
  lagoon cache show

Ctrl-C stops it; the data stay.

`, kafka, d.admin.Addr(), filepath.Dir(d.cfg.Directories()[0].Path), kafka, kafka)
}

// load reads the configuration; its faults are printed one per line, and the error counts them.
func (a *app) load(opt conf.LoadOptions) (*conf.Config, error) {
	cfg, err := loadConfig(opt)
	if err != nil {
		return nil, a.configError(opt.Path, err)
	}
	return cfg, nil
}

// loadConfig reads the configuration and checks what conf leaves to those who know topic settings and tiers.
func loadConfig(opt conf.LoadOptions) (*conf.Config, error) {
	cfg, err := conf.Load(opt)
	if err != nil {
		return nil, err
	}
	if err := checkTopicDefaults(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

// checkTopicDefaults finds what is wrong with the defaults of topic settings.
func checkTopicDefaults(cfg *conf.Config) error {
	var faults conf.Problems
	fault := func(key string, err error) {
		text := strings.TrimPrefix(err.Error(), metadata.ErrInvalidConfig.Error()+": ")
		faults = append(faults, conf.Problem{Code: conf.CodeTopicDefault, Severity: conf.SeverityError, Where: cfg.Source(key), Key: key, Text: text})
	}
	rest := cfg.TopicDefaults()
	for name := range cfg.Topics {
		delete(rest, name)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Topics)) {
		err := metadata.ValidateTopicConfigs(map[string]string{name: cfg.Topics[name]}, rest)
		if err == nil && name == "lagoon.tier.policy" {
			_, err = tiering.ParsePolicy(cfg.Topics[name], tierNames(cfg))
		}
		if err != nil {
			fault("topic_defaults."+name, err)
		}
	}
	if len(faults) == 0 {
		if err := metadata.ValidateTopicConfigs(cfg.Topics, rest); err != nil {
			fault("topic_defaults", err)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func tierNames(cfg *conf.Config) []string {
	var out []string
	for _, t := range cfg.Storage.Tiers {
		out = append(out, t.Name)
	}
	return out
}

func (a *app) configError(path string, err error) error {
	var ps conf.Problems
	if !errors.As(err, &ps) {
		return usageError{err}
	}
	if len(ps) == 1 {
		return usageError{ps}
	}
	fmt.Fprintln(a.stderr, ps.Error())
	if path == "" {
		path = "the settings"
	}
	return usagef("%d faults in %s: nothing was started", len(ps), path)
}

// stopSignals end the daemon in good order. Unless it reloads the configuration a hangup is one of them, as for a JVM: a terminal that
// closes must not leave logs to be checked. Where it is ignored (nohup) it stays so.
func stopSignals(reloads bool) []os.Signal {
	if reloads || signal.Ignored(syscall.SIGHUP) {
		return []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	}
	return []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
}

// serve runs the daemon until a signal: the first of stopSignals drains, the second ends the process at once.
func (a *app) serve(ctx context.Context, load conf.LoadOptions, opt daemonOptions) error {
	cfg, err := a.load(load)
	if err != nil {
		return err
	}
	opt.Load = func() (*conf.Config, error) { return loadConfig(load) }
	opt.Recent = &recentLog{}
	log, level := newLogger(io.MultiWriter(opt.Recent, a.stderr), cfg.Log)
	opt.Level = level
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "where", w.Where, "key", w.Key, "text", w.Text, "code", w.Code)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals(opt.Reload != nil)...)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			log.Info("stopping", "signal", s.String())
			cancel()
		case <-ctx.Done():
			return
		}
		if s, ok := <-signals; ok {
			log.Error("stopped at once by a second signal: the next start checks the logs", "signal", s.String())
			os.Exit(exitFailed)
		}
	}()
	return run(ctx, cfg, log, opt)
}

func (a *app) checkConfigCommand() *cobra.Command {
	var (
		effective, defaults bool
		set                 []string
	)
	c := &cobra.Command{
		Use: "check-config FILE", Short: "Find every fault of a configuration file; exit code 2 when there is one", Args: args("[FILE]"),
		RunE: func(_ *cobra.Command, args []string) error {
			if defaults {
				fmt.Fprint(a.stdout, conf.DefaultText())
				return nil
			}
			if len(args) == 0 {
				return usagef("check-config needs a FILE")
			}
			return a.checkConfig(args[0], set, effective)
		},
	}
	c.Flags().BoolVar(&effective, "effective", false, "print the whole configuration with the origin of each value")
	c.Flags().BoolVar(&defaults, "defaults", false, "print the commented file of all keys with their defaults")
	c.Flags().StringArrayVar(&set, "set", nil, "override one key; may be repeated")
	return c
}

// checkReport is check-config's answer for programs.
type checkReport struct {
	File     string        `json:"file"`
	OK       bool          `json:"ok"`
	Problems conf.Problems `json:"problems"`
	// Values are there with --effective, as the admin API's configuration has them.
	Values []admin.ConfigValue `json:"values,omitempty"`
}

func (a *app) checkConfig(file string, set []string, effective bool) error {
	cfg, err := loadConfig(conf.LoadOptions{Path: file, Env: a.environ, Set: set})
	report := checkReport{File: file, OK: err == nil, Problems: conf.Problems{}}
	if err == nil {
		report.Problems = append(report.Problems, cfg.Warnings...)
	} else if !errors.As(err, &report.Problems) {
		return err
	}
	if effective = effective && err == nil; effective {
		report.Values = configValues(cfg)
	}
	body, jerr := json.Marshal(report)
	if jerr != nil {
		return jerr
	}
	perr := a.show(body, "problems", func(bool) error {
		for _, p := range report.Problems {
			fmt.Fprintln(a.stdout, string(p.Severity)+": "+p.String())
		}
		if effective {
			fmt.Fprint(a.stdout, cfg.Effective())
		} else if err == nil {
			fmt.Fprintf(a.stdout, "%s: ok\n", file)
		}
		return nil
	})
	if perr == nil && effective && a.output == "ndjson" {
		perr = a.printLines(body, "values")
	}
	if perr != nil {
		return perr
	}
	if err != nil {
		return usagef("%d fault(s) in %s", len(report.Problems), file)
	}
	return nil
}
