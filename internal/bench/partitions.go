package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/bench/report"
)

// PartitionsOptions are what `lagoon-bench partitions` is asked for.
type PartitionsOptions struct {
	Brokers      []string
	Label        string
	TopicPrefix  string
	Replication  int16
	TopicConfigs []string

	Partitions   []int
	RecordBytes  int
	InFlight     int           // records that are not acknowledged yet
	Time, Settle time.Duration // of each measurement, and before it
	Keep         bool
	Outside      Outside
}

// Validate names everything that is wrong with the options.
func (o *PartitionsOptions) Validate() error {
	var errs []error
	if len(o.Partitions) == 0 {
		errs = append(errs, errors.New("--partitions is empty"))
	}
	for _, p := range o.Partitions {
		if p < 1 || p > 100_000 {
			errs = append(errs, fmt.Errorf("--partitions %d: from 1 to 100000", p))
		}
	}
	if o.RecordBytes < 1 || o.RecordBytes > 512<<10 {
		errs = append(errs, fmt.Errorf("--record-size %d: from 1 byte to 512 KiB", o.RecordBytes))
	}
	if o.InFlight < 1 || o.InFlight > 1<<20 {
		errs = append(errs, fmt.Errorf("--in-flight %d: from 1 to %d", o.InFlight, 1<<20))
	}
	if o.Time < time.Second || o.Settle < 0 {
		errs = append(errs, fmt.Errorf("--time %v: at least 1s", o.Time))
	}
	_, err := topicConfigs(o.TopicConfigs)
	return errors.Join(append(errs, err)...)
}

var partitionsColumns = []string{"partitions", "records_per_second", "ack_p50_ms", "ack_p99_ms", "ack_p999_ms", "ack_max_ms",
	"broker_cpu_seconds_per_million_records", "broker_anonymous_mib", "create_seconds"}

// RunPartitions measures one number of partitions after the other, in a closed loop: so many records are on their way at any time,
// to the partitions in turn, acks=all, idempotent, without linger. When ctx ends early, the whole ones are returned with its error.
func RunPartitions(ctx context.Context, o PartitionsOptions, log io.Writer) (result *report.Table, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close(o.Keep)) }()
	ctx, stop := c.watch(ctx)
	defer stop()
	result = &report.Table{Tool: "lagoon-bench partitions", Format: report.Format, Label: o.Label, Started: time.Now(), Machine: machine(),
		Brokers: o.Brokers, Keys: partitionsColumns[:1], Columns: partitionsColumns}
	if o.Outside.PID == 0 {
		result.Notes = append(result.Notes, "processor time and memory of the broker were not measured: give --pid")
	}
	for _, n := range o.Partitions {
		row, err := o.measure(ctx, c, n)
		if err != nil {
			result.Interrupted = true
			if ctx.Err() != nil {
				return result, context.Cause(ctx)
			}
			return result, fmt.Errorf("%d partitions: %w", n, err)
		}
		result.Rows = append(result.Rows, row)
		fmt.Fprintf(log, "%d partitions: %s records/s, ack p50 %s ms, p99 %s ms\n", n, row["records_per_second"], row["ack_p50_ms"], row["ack_p99_ms"])
	}
	return result, nil
}

func (o *PartitionsOptions) measure(ctx context.Context, c *cluster, n int) (map[string]string, error) {
	topic := fmt.Sprintf("%spartitions-%d", o.TopicPrefix, n)
	begun := time.Now()
	if _, err := c.create(ctx, topic, int32(n), o.Replication, o.TopicConfigs, false); err != nil {
		return nil, err
	}
	created := time.Since(begun)
	loop, err := o.loop(ctx, topic, n)
	if err != nil {
		return nil, err
	}
	l := summary(loop.latency)
	row := map[string]string{"partitions": fmt.Sprint(n), "create_seconds": fmt.Sprintf("%.1f", created.Seconds()),
		"records_per_second": fmt.Sprintf("%.0f", float64(loop.acked)/loop.seconds),
		"ack_p50_ms":         fmt.Sprintf("%.1f", l.P50), "ack_p99_ms": fmt.Sprintf("%.1f", l.P99),
		"ack_p999_ms": fmt.Sprintf("%.1f", l.P999), "ack_max_ms": fmt.Sprintf("%.1f", l.Max)}
	if loop.cpu != nil && loop.acked > 0 {
		row["broker_cpu_seconds_per_million_records"] = fmt.Sprintf("%.2f", loop.cpu.Seconds()/(float64(loop.acked)/1e6))
		row["broker_anonymous_mib"] = fmt.Sprintf("%.1f", float64(loop.anon)/mib)
	}
	if o.Keep {
		return row, nil
	}
	return row, c.remove(ctx, topic)
}

// closedLoop is what one measurement counted.
type closedLoop struct {
	from, to time.Time
	acked    int64                   // records that were acknowledged between them
	latency  *hdrhistogram.Histogram // of those that were sent between them, however late their acknowledgement came
	seconds  float64
	cpu      *time.Duration // of the broker
	anon     int64
}

// took takes the acknowledgement of one record.
func (c *closedLoop) took(sent, now time.Time) {
	within := func(t time.Time) bool { return !t.Before(c.from) && t.Before(c.to) }
	if within(now) {
		c.acked++
	}
	if within(sent) {
		_ = c.latency.RecordValue(min(now.Sub(sent).Microseconds(), maxLatency))
	}
}

// errOwed is a broker that answers, and refuses records for as long as they are tried: its disk is full, say.
var errOwed = fmt.Errorf("records are not acknowledged %v after they were due; the broker's log may say why", patience)

func (o *PartitionsOptions) loop(ctx context.Context, topic string, partitions int) (*closedLoop, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...), kgo.ClientID("lagoon-bench-partitions"), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(2*o.InFlight),
		kgo.ProduceRequestTimeout(patience), kgo.RequestTimeoutOverhead(patience))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, o.Settle+o.Time+patience, errOwed)
	defer cancel()
	value := make([]byte, o.RecordBytes)
	newNoise(1).fill(value, 0)
	var (
		mu     sync.Mutex
		failed error
		from   = time.Now().Add(o.Settle)
		to     = from.Add(o.Time)
		out    = &closedLoop{from: from, to: to, latency: hdrhistogram.New(1, maxLatency, 3)}
		slots  = make(chan struct{}, o.InFlight)
		before *procUse
	)
	for i := 0; ; i++ {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		sent := time.Now()
		if !sent.Before(to) {
			break
		}
		if before == nil && !sent.Before(from) && o.Outside.PID != 0 {
			u, err := readProc(o.Outside.PID)
			if err != nil {
				return nil, err
			}
			before = &u
		}
		cl.Produce(ctx, &kgo.Record{Value: value, Partition: int32(i % partitions)}, func(_ *kgo.Record, err error) {
			now := time.Now()
			mu.Lock()
			switch {
			case err != nil && failed == nil:
				failed = err
			case err == nil:
				out.took(sent, now)
			}
			mu.Unlock()
			<-slots
		})
	}
	if before != nil {
		u, err := readProc(o.Outside.PID)
		if err != nil {
			return nil, err
		}
		cpu := u.cpu - before.cpu
		out.cpu, out.anon = &cpu, u.anonBytes
	}
	out.seconds = o.Time.Seconds()
	<-slots // the one that came too late
	if err = cl.Flush(ctx); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	mu.Lock()
	defer mu.Unlock()
	return out, errors.Join(err, failed)
}
