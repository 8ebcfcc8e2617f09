package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lagoon/internal/lab"
)

// labRun is one call of `lab run`.
type labRun struct {
	labFlags
	app     *app
	root    *cobra.Command
	devices []string
	brokers []string
	flush   []string
	results string
	labels  map[string]int // how often each was used
	args    []string       // of the measurement: isolation --quick
}

func (a *app) labRunCommand() *cobra.Command {
	r := labRun{app: a}
	c := &cobra.Command{
		Use:   "run -- COMMAND [FLAGS]",
		Short: "Run a measurement on several brokers, one after another, each in a laboratory of its own",
		Long: `Run a measurement on several brokers, one after another, each in a fresh laboratory of the same kind.

COMMAND is another command of lagoon-bench, such as isolation. It is told what it can use of the laboratory (--brokers, --pid,
--data-dir, --device, --admin, --label, --json, --html), unless its flags say otherwise. At the end the results of each device stand
side by side.

On device T the backlog is first written and moved to the slow disk.`,
		Example: `  lagoon-bench lab run --device H --brokers lagoon,kafka -- isolation
  lagoon-bench lab run --device R --brokers lagoon,kafka --flush interval,sync -- isolation --quick
  lagoon-bench lab run --device S,T,H,R --brokers lagoon,kafka -- isolation --repeat 3
  lagoon-bench lab run --device S --memory 16GiB --brokers lagoon,kafka --flush sync,interval -- throughput --partitions 8,64`,
		RunE: func(c *cobra.Command, args []string) error {
			r.root, r.args = c.Root(), args
			return r.run(c.Context())
		},
	}
	r.rigFlags(c)
	c.Flags().StringSliceVar(&r.devices, "device", []string{"H"}, devicesUsage)
	r.brokerFlags(c)
	c.Flags().StringSliceVar(&r.brokers, "brokers", []string{"lagoon", "kafka"}, "lagoon, kafka")
	c.Flags().StringSliceVar(&r.flush, "flush", []string{"default"}, "default (the broker's own), sync (acks=all waits for stable storage), interval (it does not): each broker runs with each")
	c.Flags().StringVar(&r.results, "results", "lab-results", "folder for the results as JSON and HTML")
	return c
}

func (r *labRun) run(ctx context.Context) error {
	if len(r.args) == 0 {
		return usagef("say what to measure, as in: lab run --device H -- isolation --quick")
	}
	command, _, err := r.root.Find(r.args[:1])
	if err != nil || command == r.root {
		return usagef("%s is no command of lagoon-bench", r.args[0])
	}
	if command.Name() == "lab" {
		return usagef("lab run makes a laboratory for each broker: %s is not measured in one", strings.Join(r.args, " "))
	}
	for _, device := range r.devices {
		if _, err := lab.ParseDevice(strings.ToUpper(device)); err != nil {
			return usageError{err}
		}
	}
	var plan []lab.BrokerOptions
	for _, flush := range r.flush {
		for _, name := range r.brokers {
			o := r.broker
			if o.Name = name; flush != "default" {
				o.Flush = flush
			}
			if err := checkBroker(o.Name, o.Flush); err != nil {
				return err
			}
			plan = append(plan, o)
		}
	}
	r.labels = map[string]int{}
	if err := os.MkdirAll(r.results, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, r.device = range r.devices {
		errs = append(errs, r.compared(ctx, command, plan))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// compared runs the measurement on one device with each broker, and puts the results side by side.
func (r *labRun) compared(ctx context.Context, command *cobra.Command, plan []lab.BrokerOptions) error {
	var errs []error
	var files []string
	for _, o := range plan {
		m := &labMeasurement{labRun: r, command: command}
		if err := m.run(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("%s on device %s: %w", o.Name, r.device, err))
		}
		if ctx.Err() != nil {
			return errors.Join(errs...)
		}
		if _, err := os.Stat(m.result()); m.label != "" && err == nil {
			files = append(files, m.result())
		}
	}
	if len(files) > 1 && command.Flags().Lookup("brokers") != nil { // what measures brokers, compare knows
		fmt.Fprintln(r.app.stdout)
		errs = append(errs, r.self(ctx, append([]string{"compare"}, files...)))
	}
	return errors.Join(errs...)
}

// self runs a command of lagoon-bench in a process of its own: a measurement owns its process, and its processor time is its own.
func (r *labRun) self(ctx context.Context, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, exe, args...)
	c.Stdout, c.Stderr = r.app.stdout, r.app.stderr
	// It gets one SIGINT, from here, and time to take back what it made in the broker.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGINT) }
	c.WaitDelay = 30 * time.Second
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", args[0], sameCode(err))
	}
	return nil
}

// sameCode has what a command ended with decide what this one ends with.
func sameCode(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		switch exit.ExitCode() {
		case exitUsage:
			return usageError{err}
		case exitCheck:
			return checkError{err}
		}
	}
	return err
}

// labMeasurement is the measurement of one broker.
type labMeasurement struct {
	*labRun
	command *cobra.Command
	label   string // once the broker runs
}

// name gives the measurement a label that no other of this call has, and removes the result that an earlier call left under it: it is not
// this one's, however this one ends.
func (m *labMeasurement) name(label string) error {
	if m.labels[label]++; m.labels[label] > 1 {
		label = fmt.Sprintf("%s %d", label, m.labels[label])
	}
	m.label = label
	for _, name := range []string{m.result(), m.page()} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// page is the result as HTML.
func (m *labMeasurement) page() string { return strings.TrimSuffix(m.result(), ".json") + ".html" }

func (m *labMeasurement) result() string {
	return filepath.Join(m.results, strings.ReplaceAll(m.label, " ", "-")+"-"+m.args[0]+".json")
}

func (m *labMeasurement) run(ctx context.Context, o lab.BrokerOptions) (err error) {
	l, rig, err := m.rig(ctx, m.app.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	b, err := rig.Start(ctx, o)
	if err != nil {
		return err
	}
	s := stateOf(rig, b)
	if err := m.name(strings.Join([]string{s.Broker, s.Device, s.Flush}, " ")); err != nil {
		return err
	}
	fmt.Fprintf(m.app.stdout, "\n== %s\n", m.label)
	s.text(m.app.stdout, rig.Device.Explain())
	args := append(slices.Clone(m.args), m.told(s)...)
	if rig.Device == lab.TwoTiers && m.has("fill-only") {
		if args, err = m.fillSlow(ctx, rig, b, args); err != nil {
			return err
		}
	}
	err = m.self(ctx, args)
	select {
	case <-b.Exited():
		err = errors.Join(err, fmt.Errorf("the broker has ended; the end of its log:\n%s", b.Tail(20)))
	default:
	}
	return err
}

// told are the flags by which the measurement learns what it can use.
func (m *labMeasurement) told(s labState) (args []string) {
	var data, devices []string
	for _, d := range s.Disks {
		devices = append(devices, filepath.Base(d.Device))
		data = append(data, d.Data)
	}
	for _, f := range []struct{ name, value string }{
		{"brokers", s.Bootstrap},
		{"label", m.label},
		{"pid", strconv.Itoa(s.PID)},
		{"data-dir", strings.Join(data, ",")},
		{"device", strings.Join(devices, ",")},
		{"admin", s.Admin},
		{"json", m.result()},
		{"html", m.page()},
	} {
		if f.value != "" && m.has(f.name) && !m.said(f.name) {
			args = append(args, "--"+f.name+"="+f.value)
		}
	}
	return args
}

// has tells whether the measurement knows a flag, said whether the caller used it.
func (m *labMeasurement) has(flag string) bool { return m.command.Flags().Lookup(flag) != nil }

func (m *labMeasurement) said(flag string) bool {
	return slices.ContainsFunc(m.args, func(a string) bool { return a == "--"+flag || strings.HasPrefix(a, "--"+flag+"=") })
}

// fillSlow writes the backlog, waits until it lies on the slow disk, and returns how the measurement uses it. Small segments leave
// little of it in the active ones, which stay.
func (m *labMeasurement) fillSlow(ctx context.Context, rig *lab.Rig, b *lab.Broker, args []string) ([]string, error) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsWhitelist.UnknownFlags = true
	prefix := flags.String("topic-prefix", m.command.Flags().Lookup("topic-prefix").DefValue, "")
	if err := flags.Parse(m.args[1:]); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return nil, err
	}
	for topic, tier := range map[string]int{"live": 0, "slow": 0, "old": 1} {
		if err := rig.Place(ctx, b, *prefix+topic, tier); err != nil {
			return nil, err
		}
	}
	fill := append(slices.Clone(args), "--fill-only", "--old-config=segment.bytes="+strconv.Itoa(64<<20))
	if b.Name == "lagoon" {
		fill = append(fill, "--old-config=local.retention.ms=1000")
	}
	if err := m.self(ctx, fill); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := rig.WaitPlaced(ctx, b, *prefix+"old"); err != nil {
		return nil, err
	}
	fmt.Fprintf(m.app.stderr, "the backlog lies on the slow disk after %v\n", time.Since(began).Round(time.Second))
	return append(args, "--reuse"), nil
}
