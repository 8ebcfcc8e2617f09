package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"lagoon/internal/bench"
	"lagoon/internal/bench/report"
)

const mib = 1 << 20

// outputs are where a result goes beside standard output.
type outputs struct{ json, html string }

func (a *app) isolationCommand() *cobra.Command {
	var (
		o        bench.IsolationOptions
		out      outputs
		quick    bool
		maxBytes int64
		record   int64
	)
	c := &cobra.Command{
		Use:   "isolation --brokers HOST:PORT",
		Short: "What backlog readers do to producers and real-time readers",
		Long: `What backlog readers do to producers and real-time readers.

Open loop: every record has a time at which it is due, and all latencies count from that time, however late the broker makes everything.

Topics   live   written at --live-rate, acks=all, idempotent; read by tail, its partition 0 by mixed, too
         slow   written at --slow-rate; read only by delayed, --behind later: the first reader of its bytes
         old    --old-size, filled before; read by the backlog readers at full speed
Roles    ack, ack slow   due time to acknowledgement, of live and of slow
         tail            due time to the consumer's hands
         delayed         when it is --behind old to the consumer's hands
         mixed           one consumer with a live partition and, in phases named so, an old one: its live records
Phases   base            no backlog: what ratios refer to
         x1 x4 x16 ...   that many backlog readers, one fetch in flight each
         mixed           the mixed consumer reads its old partition, too; xN+mixed: both
         after           as base

Every reader checks every record of live and slow (sequence, partition, checksum); backlog readers check that batches follow each
other, and a part of one response in 64 in full. A record that is lost, repeated, out of order or damaged makes the exit code 3.
What the broker still holds a minute after the end and a reader has not come to is not lost: it is "not read".

With --groups each reader is a member of a consumer group (classic protocol): it joins, is assigned what it reads, heartbeats every 3s and
commits its positions every 5s over a connection of its own, and leaves. A heartbeat or commit that is refused, and a rebalance, are counted.

On the broker's machine, --pid, --data-dir and --device add what it costs, --admin what Lagoon says itself. Topics and groups that the run made are
deleted at its end, also after Ctrl-C, unless --keep. Ctrl-C reports the phases that are whole.`,
		Example: `  lagoon-bench isolation --brokers localhost:9092 --quick
  lagoon-bench isolation --brokers localhost:9092 --pid $(pidof lagoon) --data-dir /srv/lagoon/ssd --admin http://127.0.0.1:9645 \
      --json lagoon.json --html lagoon.html`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.SortFlags = false
	commonFlags(f, &o.Brokers, &o.Label, &o.TopicPrefix, &o.Replication, &o.TopicConfigs)
	f.StringArrayVar(&o.OldConfigs, "old-config", nil, "topic config name=value of old only; may be repeated")
	rateFlag(f, &o.LiveRate, "live-rate", 20*mib, "rate of live; 0: without it")
	f.Int32Var(&o.LivePartitions, "live-partitions", 8, "partitions of live")
	rateFlag(f, &o.SlowRate, "slow-rate", 10*mib, "rate of slow; 0: without it")
	f.Int32Var(&o.SlowPartitions, "slow-partitions", 4, "partitions of slow")
	durationFlag(f, &o.Behind, "behind", 10*time.Second, "how far behind the delayed reader is")
	durationFlag(f, &o.Linger, "linger", 5*time.Millisecond, "how long producers gather a batch")
	sizeFlag(f, &record, "record-size", 1<<10, "value of a record")
	sizeFlag(f, &o.OldBytes, "old-size", 12<<30, "values in old")
	f.Int32Var(&o.OldPartitions, "old-partitions", 4, "partitions of old")
	f.BoolVar(&o.Reuse, "reuse", false, "use topics (and, with --groups, empty groups) that are there; old is filled up if it is too small")
	f.BoolVar(&o.FillOnly, "fill-only", false, "make and fill old, keep it, and end")
	f.BoolVar(&o.Keep, "keep", false, "do not delete topics and groups")
	f.StringSliceVar(&o.Phases, "phases", []string{"base", "x1", "x4", "x16", "mixed", "after"}, "base, xN, mixed, xN+mixed, after, in this order")
	f.IntVar(&o.Repeat, "repeat", 1, "how often to run all phases, over the same old data: medians are shown, and all values")
	durationFlag(f, &o.Phase, "phase", 30*time.Second, "length of a phase")
	durationFlag(f, &o.Settle, "settle", 5*time.Second, "before each phase, not measured; its backlog readers run")
	durationFlag(f, &o.RecoveryMax, "recovery-max", time.Minute, "after a phase's backlog stopped, how long to wait until all is as in base")
	f.StringVar(&o.BacklogRange, "backlog-range", "spread", "where backlog readers begin: spread over old, or all at the same place")
	sizeFlag(f, &maxBytes, "backlog-max-bytes", 8*mib, "per partition in one fetch of a backlog reader")
	f.BoolVar(&o.Groups, "groups", false, "consumer groups in place of plain consumers: every reader is the only member of PREFIXtail, PREFIXdelayed, PREFIXmixed, PREFIXbacklog-N")
	f.BoolVar(&quick, "quick", false, "phases of 5s, settling 2s, 3s behind, 4GiB of old in 2 partitions, phases base,x1,x4,mixed,after, unless said otherwise")
	outsideFlags(f, &o.Outside)
	f.StringVar(&o.DeviceLimitFile, "device-limit-file", "", "file to measure the device's own speed with; default: old's in --data-dir")
	f.StringVar(&o.EvictCommand, "evict-command", "", "shell command that makes old cold, before each phase that reads it (with --data-dir its files are evicted anyway)")
	out.flags(f)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if quick {
			applyQuick(f, &o)
		}
		if maxBytes > 1<<30 {
			return usagef("--backlog-max-bytes: at most 1GiB")
		}
		o.BacklogMaxBytes, o.RecordBytes = int32(maxBytes), int(min(record, 1<<30))
		if err := errors.Join(o.Validate(), writable(out.json), writable(out.html)); err != nil {
			return usageError{err}
		}
		result, err := bench.RunIsolation(c.Context(), o, a.stderr)
		if result != nil {
			err = errors.Join(err, a.isolationResult(result, out))
		}
		return err
	}
	return c
}

func outsideFlags(f *pflag.FlagSet, o *bench.Outside) {
	f.IntVar(&o.PID, "pid", 0, "process id of the broker on this machine: its processor time, memory and I/O")
	f.StringSliceVar(&o.DataDirs, "data-dir", nil, "where the broker keeps TOPIC-PARTITION folders on this machine, one per tier: page cache, device, eviction of old")
	f.StringSliceVar(&o.Devices, "device", nil, "block devices to watch, such as loop3; default: those of --data-dir")
	f.StringVar(&o.Admin, "admin", "", "URL of Lagoon's admin API")
}

// applyQuick sets what the caller did not.
func applyQuick(f *pflag.FlagSet, o *bench.IsolationOptions) {
	set := func(name string, apply func()) {
		if !f.Changed(name) {
			apply()
		}
	}
	set("phase", func() { o.Phase = 5 * time.Second })
	set("settle", func() { o.Settle = 2 * time.Second })
	set("behind", func() { o.Behind = 3 * time.Second })
	set("recovery-max", func() { o.RecoveryMax = 10 * time.Second })
	set("old-size", func() { o.OldBytes = 4 << 30 })
	set("old-partitions", func() { o.OldPartitions = 2 })
	set("phases", func() { o.Phases = []string{"base", "x1", "x4", "mixed", "after"} })
}

func (out *outputs) flags(f *pflag.FlagSet) {
	f.StringVar(&out.json, "json", "", "file for the result as JSON")
	f.StringVar(&out.html, "html", "", "file for the result as one self-contained page")
}

// isolationResult prints and writes a result.
func (a *app) isolationResult(r *report.Isolation, out outputs) error {
	errs := []error{r.Text(a.stdout)}
	if out.json != "" {
		errs = append(errs, writeJSON(out.json, r))
	}
	if out.html != "" {
		errs = append(errs, writeHTML(out.html, r))
	}
	if !r.Whole() {
		errs = append(errs, checkError{errors.New("the broker lost, repeated, reordered or damaged records: see the table")})
	}
	return errors.Join(errs...)
}

// writable tells early that a result could not be written at the end, which may be hours away. "" is none.
func writable(name string) error {
	if name == "" {
		return nil
	}
	err := unix.Access(name, unix.W_OK)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Access(filepath.Dir(name), unix.W_OK)
	} else if info, statErr := os.Stat(name); statErr == nil && info.IsDir() {
		err = unix.EISDIR
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, err)
	}
	return nil
}

func writeHTML(name string, runs ...*report.Isolation) error {
	var page strings.Builder
	if err := report.HTML(&page, runs...); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(page.String()), 0o644)
}

func writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}
