package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/lab"
)

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "lab", Short: "Slow disks, little memory and brokers in them, on this machine",
		Long: `Slow disks, little memory and brokers in them, on this machine. It needs root, loop devices and a temporary directory on a
disk (LAGOON_LAB_DIR, else TMPDIR or /tmp). Everything that is made is noted first, and is taken back at the end, after Ctrl-C,
and, should the program be killed, by a process that outlives it or by the next lab command. One laboratory runs at a time.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q (see %s --help)", args[0], c.CommandPath(), c.CommandPath())
			}
			return c.Help()
		},
	}
	c.AddCommand(a.labUpCommand(), a.labDownCommand(), a.labMeasureCommand(), a.labRunCommand())
	return c
}

// labFlags are what a laboratory is made of.
type labFlags struct {
	device string
	bytes  int64
	slow   int64 // of the slow disk, if its image lies in memory
	memory int64
	broker lab.BrokerOptions
	json   bool
}

const devicesUsage = "S (ssd), T (ssd and slow disk as two tiers), H (one disk of 150 MB/s, 200 requests/s), R (one simulated hard disk)"

// deviceFlag adds the flag of which one device it is.
func (f *labFlags) deviceFlag(c *cobra.Command) {
	c.Flags().StringVar(&f.device, "device", "H", devicesUsage)
}

// rigFlags adds the flags of how large everything is.
func (f *labFlags) rigFlags(c *cobra.Command) {
	sizeFlag(c.Flags(), &f.bytes, "disk-size", 24<<30, "of each disk; it is reserved in the laboratory's directory")
	sizeFlag(c.Flags(), &f.slow, "slow-disk-in-memory", 0, "of the slow disk of T, H and R, whose image then lies in memory: it shares nothing with the machine's disk")
	sizeFlag(c.Flags(), &f.memory, "memory", 2<<30, "of the broker, page cache included; dirty limits of the machine are set to 20 and 10 % of it")
}

// brokerFlags adds the flags of how a broker is started.
func (f *labFlags) brokerFlags(c *cobra.Command) {
	c.Flags().StringVar(&f.broker.Binary, "lagoon-binary", "", "Lagoon's program; without it, it is built from the source folder that this is called in")
	c.Flags().StringVar(&f.broker.KafkaLibs, "kafka-libs", "", "folder of Apache Kafka's jars (default where .ci/install puts them: "+lab.KafkaLibs()+")")
	c.Flags().StringArrayVar(&f.broker.Set, "set", nil, "further key=value of the broker's configuration; may be repeated")
}

func (f *labFlags) rig(ctx context.Context, log io.Writer) (*lab.Lab, *lab.Rig, error) {
	device, err := lab.ParseDevice(strings.ToUpper(f.device))
	if err != nil {
		return nil, nil, usageError{err}
	}
	if err := f.sizes(); err != nil {
		return nil, nil, err
	}
	l, err := lab.Open(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	if err = l.Claim(); err == nil {
		var r *lab.Rig
		if r, err = l.Rig(lab.RigOptions{Device: device, Bytes: f.bytes, SlowInMemory: f.slow, Memory: f.memory}); err == nil {
			return l, r, nil
		}
	}
	return nil, nil, errors.Join(err, l.Close())
}

// leastSize is the least that a file system or a broker can live in.
const leastSize = 32 * mib

// sizes names those of which nothing can be made, before anything is.
func (f *labFlags) sizes() error {
	for _, s := range []struct {
		name  string
		bytes int64
	}{{"disk-size", f.bytes}, {"memory", f.memory}, {"slow-disk-in-memory", f.slow}} {
		if s.bytes < leastSize && (s.name != "slow-disk-in-memory" || s.bytes != 0) {
			return usagef("--%s %v: at least %v", s.name, conf.Bytes(s.bytes), conf.Bytes(leastSize))
		}
	}
	return nil
}

// labState is what is told of a laboratory with a broker in it.
type labState struct {
	Broker      string    `json:"broker"`
	Flush       string    `json:"flush"`
	Bootstrap   string    `json:"bootstrap"`
	Admin       string    `json:"admin,omitempty"`
	PID         int       `json:"pid"`
	Device      string    `json:"device"`
	Disks       []labDisk `json:"disks"`
	MemoryBytes int64     `json:"memory_bytes"`
	Cgroup      string    `json:"cgroup_procs"`
	Config      string    `json:"config"`
	Log         string    `json:"log"`
}

type labDisk struct {
	Tier   string `json:"tier"`
	Device string `json:"device"`
	Data   string `json:"data"`
	Memory bool   `json:"in_memory,omitempty"`
}

func stateOf(r *lab.Rig, b *lab.Broker) labState {
	s := labState{
		Broker: b.Name, Flush: b.Flush, Bootstrap: b.Bootstrap, Admin: b.Admin, PID: b.PID, Device: string(r.Device),
		MemoryBytes: r.Memory, Cgroup: r.Group.Procs(), Config: b.Config, Log: b.Log,
	}
	for _, t := range r.Tiers {
		s.Disks = append(s.Disks, labDisk{Tier: t.Name, Device: t.Disk.Device(), Data: t.Data(), Memory: t.Disk.InMemory()})
	}
	return s
}

func (s labState) text(w io.Writer, explain string) {
	fmt.Fprintf(w, "%s on device %s (%s)\n", s.Broker, s.Device, explain)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "  %s\t%s\n", name, value)
		}
	}
	row("bootstrap", s.Bootstrap)
	row("admin", s.Admin)
	row("pid", fmt.Sprint(s.PID))
	row("flush", map[string]string{"sync": "sync: acks=all waits for stable storage", "interval": "interval: acks=all does not wait for stable storage"}[s.Flush])
	row("memory", fmt.Sprintf("%d MiB (%s)", s.MemoryBytes>>20, s.Cgroup))
	for _, d := range s.Disks {
		where := d.Device + "  " + d.Data
		if d.Memory {
			where += "  (its bytes lie in memory)"
		}
		row("disk "+d.Tier, where)
	}
	row("config", s.Config)
	row("log", s.Log)
	_ = t.Flush()
}

func (a *app) labUpCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use: "up", Short: "Start a broker in a laboratory, and stay until Ctrl-C", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.labUp(c.Context(), &f) },
	}
	f.deviceFlag(c)
	f.rigFlags(c)
	f.brokerFlags(c)
	c.Flags().StringVar(&f.broker.Name, "broker", "lagoon", "lagoon or kafka (Apache Kafka 4.3.1, one KRaft node, heap 512 MiB, its default settings)")
	c.Flags().StringVar(&f.broker.Flush, "flush", "", "sync (acks=all waits for stable storage) or interval (it does not); default: the broker's own, sync for lagoon, interval for kafka")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object instead of text")
	return c
}

func (a *app) labUp(ctx context.Context, f *labFlags) (err error) {
	if err := checkBroker(f.broker.Name, f.broker.Flush); err != nil {
		return err
	}
	l, r, err := f.rig(ctx, a.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	b, err := r.Start(ctx, f.broker)
	if err != nil {
		return err
	}
	s := stateOf(r, b)
	if f.json {
		if err := json.NewEncoder(a.stdout).Encode(s); err != nil {
			return err
		}
	} else {
		s.text(a.stdout, r.Device.Explain())
		fmt.Fprintln(a.stdout, "Ctrl-C, or `lagoon-bench lab down`, takes everything down.")
	}
	select {
	case <-ctx.Done():
		return nil
	case <-b.Exited():
		return fmt.Errorf("%s has ended; the end of its log:\n%s", b.Name, b.Tail(20))
	}
}

func checkBroker(name, flush string) error {
	if name != "lagoon" && name != "kafka" {
		return usagef("broker %q: want lagoon or kafka", name)
	}
	if flush != "" && flush != "sync" && flush != "interval" {
		return usagef("flush %q: want sync or interval", flush)
	}
	return nil
}

func (a *app) labDownCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "down", Short: "End the laboratory that runs, and take back whatever killed ones left", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), wait)
			defer cancel()
			all, err := lab.Down(ctx, a.stderr)
			if err != nil {
				return err
			}
			var errs []error
			for _, r := range all {
				if r.Err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", r.Dir, r.Err))
					continue
				}
				fmt.Fprintf(a.stdout, "%s is taken down\n", r.Dir)
			}
			if len(all) == 0 {
				fmt.Fprintln(a.stdout, "there is no laboratory")
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for a running laboratory to end")
	return c
}

func (a *app) labMeasureCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use: "measure", Short: "What the disks of a device give to plain readers and writers", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			l, r, err := f.rig(c.Context(), a.stderr)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Close()) }()
			return labMeasure(a.stdout, r, f.json)
		},
	}
	f.deviceFlag(c)
	f.rigFlags(c)
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object per disk instead of text")
	return c
}

func labMeasure(out io.Writer, r *lab.Rig, asJSON bool) error {
	for _, tier := range r.Tiers {
		limits, err := tier.Disk.Measure(r.Group)
		if err != nil {
			return err
		}
		if asJSON {
			row := struct {
				Device string `json:"device"`
				Tier   string `json:"tier"`
				lab.Limits
			}{string(r.Device), tier.Name, limits}
			if err := json.NewEncoder(out).Encode(row); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "device %s, disk %s\n", r.Device, tier.Name)
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "sequential direct 1 MiB, 1 / 4 streams\t%.0f / %.0f MB/s\t\n", limits.Direct1, limits.Direct4)
		fmt.Fprintf(t, "buffered 64 KiB, 1 / 4 streams\t%.0f / %.0f MB/s\t\n", limits.Buffered1, limits.Buffered4)
		fmt.Fprintf(t, "random direct 4 KiB\t%.0f reads/s\t\n", limits.Random)
		fmt.Fprintf(t, "sequential direct write 1 MiB\t%.0f MB/s\t\n", limits.Write)
		fmt.Fprintf(t, "append 4 KiB and fdatasync\t%.0f /s\t\n", limits.Sync)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}
