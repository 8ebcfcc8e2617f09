package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lagoon/conf"
	"lagoon/internal/bench"
	"lagoon/internal/bench/report"
)

func (a *app) throughputCommand() *cobra.Command {
	var (
		o      bench.ThroughputOptions
		record int64
		sizes  []string
		out    string
	)
	c := &cobra.Command{
		Use:   "throughput --brokers HOST:PORT",
		Short: "Produce, hot consume and catch-up: MB/s and processor time per GB",
		Long: `Produce, hot consume and catch-up as fast as it goes: MB/s, and with --pid processor seconds of the broker per GB.

Clients  raw       prebuilt batches, 5 requests in flight on each of at most 8 connections; consumed bytes are counted and dropped
         franz     franz-go, with what that costs: a client as others use it
Modes    produce   acks as --acks says
         consume   what was just written, again and again: hot
         catchup   all of it once, taken out of the page cache before if --data-dir is given

Each case has a topic of its own, which is deleted after it unless --keep.`,
		Example: "  lagoon-bench throughput --brokers localhost:9092 --pid $(pidof lagoon) --partitions 1,8,64 --batch-sizes 16KiB,64KiB",
		Args:    cobra.NoArgs,
	}
	f := c.Flags()
	f.SortFlags = false
	commonFlags(f, &o.Brokers, &o.Label, &o.TopicPrefix, &o.Replication, &o.TopicConfigs)
	f.StringSliceVar(&o.Clients, "clients", []string{"raw", "franz"}, "raw, franz")
	f.StringSliceVar(&o.Modes, "modes", []string{"produce", "consume", "catchup"}, "produce, consume, catchup")
	f.IntSliceVar(&o.Partitions, "partitions", []int{1, 8, 64}, "partitions of a topic")
	f.StringSliceVar(&sizes, "batch-sizes", []string{"64KiB"}, "values in a batch, with units")
	sizeFlag(f, &record, "record-size", 1<<10, "value of a record")
	sizeFlag(f, &o.Bytes, "bytes", 2_000_000_000, "to move at least in each measurement")
	durationFlag(f, &o.Least, "least", 3*time.Second, "time of a measurement of produce and consume, at least")
	f.IntVar(&o.Repeat, "repeat", 1, "how often to measure each case: medians are shown, and all values")
	f.IntVar(&o.Acks, "acks", -1, "-1 (all) or 1")
	f.BoolVar(&o.Keep, "keep", false, "do not delete topics")
	outsideFlags(f, &o.Outside)
	f.StringVar(&out, "json", "", "file for the result as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, s := range sizes {
			n, err := conf.ParseBytes(s)
			if err != nil {
				return usagef("--batch-sizes: %w", err)
			}
			o.BatchSizes = append(o.BatchSizes, int64(n))
		}
		o.RecordBytes = int(min(record, 1<<30))
		if err := errors.Join(o.Validate(), writable(out)); err != nil {
			return usageError{err}
		}
		result, err := bench.RunThroughput(c.Context(), o, a.stderr)
		return errors.Join(err, a.tableResult(result, out))
	}
	return c
}

func (a *app) partitionsCommand() *cobra.Command {
	var (
		o      bench.PartitionsOptions
		record int64
		out    string
	)
	c := &cobra.Command{
		Use:   "partitions --brokers HOST:PORT",
		Short: "Acknowledged records per second over 1 to 10,000 partitions",
		Long: `Acknowledged records per second over 1 to 10,000 partitions, in a closed loop: --in-flight records are on their way at any
time, to the partitions in turn, from one franz-go client with acks=all, idempotent, without linger.

Whether an acknowledged record is on stable storage is the broker's matter: --topic-config flush.messages=1 for Apache Kafka,
lagoon.flush=interval for the opposite with Lagoon.`,
		Example: `  lagoon-bench partitions --brokers localhost:9092
  lagoon-bench partitions --brokers localhost:9092 --partitions 1,1000 --topic-config lagoon.flush=interval`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.SortFlags = false
	commonFlags(f, &o.Brokers, &o.Label, &o.TopicPrefix, &o.Replication, &o.TopicConfigs)
	f.IntSliceVar(&o.Partitions, "partitions", []int{1, 100, 1000, 5000, 10000}, "partitions of a topic")
	sizeFlag(f, &record, "record-size", 512, "value of a record")
	f.IntVar(&o.InFlight, "in-flight", 2048, "records on their way at any time")
	durationFlag(f, &o.Time, "time", 10*time.Second, "of each measurement")
	durationFlag(f, &o.Settle, "settle", 3*time.Second, "before each measurement, under load")
	f.BoolVar(&o.Keep, "keep", false, "do not delete topics")
	f.IntVar(&o.Outside.PID, "pid", 0, "process id of the broker on this machine: its processor time and memory")
	f.StringVar(&out, "json", "", "file for the result as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.RecordBytes = int(min(record, 1<<30))
		if err := errors.Join(o.Validate(), writable(out)); err != nil {
			return usageError{err}
		}
		result, err := bench.RunPartitions(c.Context(), o, a.stderr)
		return errors.Join(err, a.tableResult(result, out))
	}
	return c
}

// commonFlags are those of every command that makes topics.
func commonFlags(f *pflag.FlagSet, brokers *[]string, label, prefix *string, replication *int16, configs *[]string) {
	f.StringSliceVar(brokers, "brokers", nil, "host:port of one or more brokers (no TLS, no authentication)")
	f.StringVar(label, "label", "", "what this run is called beside others")
	f.StringVar(prefix, "topic-prefix", "bench-", "before the topics' names")
	f.Int16Var(replication, "replication", -1, "replication factor of the topics; -1: the broker's default")
	f.StringArrayVar(configs, "topic-config", nil, "topic config name=value; may be repeated")
}

// tableResult prints and writes what there is of a result.
func (a *app) tableResult(t *report.Table, file string) error {
	if t == nil {
		return nil
	}
	err := t.Text(a.stdout)
	if file != "" {
		err = errors.Join(err, writeJSON(file, t))
	}
	return err
}
