package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"lagoon/internal/bench/report"
	"lagoon/internal/rawkafka"
)

// ThroughputOptions are what `lagoon-bench throughput` is asked for.
type ThroughputOptions struct {
	Brokers      []string
	Label        string
	TopicPrefix  string
	Replication  int16
	TopicConfigs []string

	Clients     []string // raw, franz
	Modes       []string // produce, consume, catchup
	Partitions  []int
	BatchSizes  []int64 // bytes of values in a batch
	RecordBytes int
	Bytes       int64         // written and read at least in each measurement
	Least       time.Duration // each measurement takes at least
	Acks        int           // -1 or 1
	Repeat      int           // of each case, with a topic of its own each time
	Keep        bool
	Outside     Outside
}

// Validate names everything that is wrong with the options.
func (o *ThroughputOptions) Validate() error {
	var errs []error
	for _, c := range o.Clients {
		if c != "raw" && c != "franz" {
			errs = append(errs, fmt.Errorf("--clients %q: raw or franz", c))
		}
	}
	for _, m := range o.Modes {
		if m != "produce" && m != "consume" && m != "catchup" {
			errs = append(errs, fmt.Errorf("--modes %q: produce, consume or catchup", m))
		}
	}
	for _, p := range o.Partitions {
		if p < 1 || p > 10_000 {
			errs = append(errs, fmt.Errorf("--partitions %d: from 1 to 10000", p))
		}
	}
	for _, b := range o.BatchSizes {
		if b < int64(o.RecordBytes) || b > 1<<20 {
			errs = append(errs, fmt.Errorf("--batch-sizes %d: from one record to 1 MiB", b))
		}
	}
	if len(o.Clients) == 0 || len(o.Modes) == 0 || len(o.Partitions) == 0 || len(o.BatchSizes) == 0 {
		errs = append(errs, errors.New("nothing to measure: a list is empty"))
	}
	if o.RecordBytes < 1 || o.RecordBytes > 512<<10 {
		errs = append(errs, fmt.Errorf("--record-size %d: from 1 byte to 512 KiB", o.RecordBytes))
	}
	if o.Bytes < 1 || o.Least < 0 {
		errs = append(errs, errors.New("--bytes and --least are at least something"))
	}
	if o.Repeat < 1 || o.Repeat > maxRepeat {
		errs = append(errs, fmt.Errorf("--repeat %d: from 1 to %d", o.Repeat, maxRepeat))
	}
	if o.Acks != -1 && o.Acks != 1 {
		errs = append(errs, fmt.Errorf("--acks %d: -1 (all) or 1", o.Acks))
	}
	_, err := topicConfigs(o.TopicConfigs)
	return errors.Join(append(errs, err)...)
}

// throughputColumns are what is measured; the first throughputKeys of them say of what.
var throughputColumns = []string{"client", "mode", "partitions", "batch_bytes", "mb_per_second", "mb_per_second_each",
	"broker_cpu_seconds_per_gb", "broker_cpu_seconds_per_gb_each", "client_cpu_seconds_per_gb", "broker_anonymous_mib_max", "disk_bytes_per_byte"}

const throughputKeys = 4

// RunThroughput measures one case after the other. When ctx ends early, the whole ones are returned with its error.
func RunThroughput(ctx context.Context, o ThroughputOptions, log io.Writer) (result *report.Table, err error) {
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
	t := &throughput{o: o, c: c, log: log, result: &report.Table{Tool: "lagoon-bench throughput", Format: report.Format, Label: o.Label,
		Started: time.Now(), Machine: machine(), Brokers: o.Brokers, Keys: throughputColumns[:throughputKeys], Columns: throughputColumns}}
	if o.Repeat == 1 { // there is nothing but the figure
		t.result.Columns = slices.DeleteFunc(slices.Clone(throughputColumns), func(c string) bool { return strings.HasSuffix(c, "_each") })
	}
	if t.devices, err = o.Outside.check(ctx); err != nil {
		return nil, err
	}
	if o.Outside.PID == 0 {
		t.result.Notes = append(t.result.Notes, "processor time and memory of the broker were not measured: give --pid")
	}
	for _, partitions := range o.Partitions {
		for _, size := range o.BatchSizes {
			if err := t.topic(ctx, partitions, size); err != nil {
				t.result.Interrupted = true
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				return t.result, err
			}
		}
	}
	return t.result, nil
}

type throughput struct {
	o       ThroughputOptions
	c       *cluster
	log     io.Writer
	result  *report.Table
	devices []string
}

// loadCase is one topic under one client.
type loadCase struct {
	client     string
	topic      string
	partitions int
	size       int64
	batch      []byte
	leaders    map[int32]string
}

// throughputModes are in the order in which they follow each other: what is consumed was produced before.
var throughputModes = []string{"produce", "consume", "catchup"}

// topic measures every client and mode with one number of partitions and one batch size.
func (t *throughput) topic(ctx context.Context, partitions int, size int64) error {
	for _, client := range t.o.Clients {
		rows := map[string][]map[string]string{} // by mode
		for range t.o.Repeat {
			if err := t.once(ctx, client, partitions, size, rows); err != nil {
				return err
			}
		}
		for _, mode := range throughputModes {
			if len(rows[mode]) > 0 {
				t.result.Rows = append(t.result.Rows, medianRow(rows[mode]))
			}
		}
	}
	return nil
}

// once measures every mode of one client on a topic of their own.
func (t *throughput) once(ctx context.Context, client string, partitions int, size int64, rows map[string][]map[string]string) error {
	l := &loadCase{client: client, topic: fmt.Sprintf("%sthroughput-%s-%d-%d", t.o.TopicPrefix, client, partitions, size), partitions: partitions, size: size}
	if _, err := t.c.create(ctx, l.topic, int32(partitions), t.o.Replication, t.o.TopicConfigs, false); err != nil {
		return err
	}
	var err error
	if l.leaders, err = t.c.leaders(ctx, l.topic); err != nil {
		return err
	}
	random := newNoise(uint64(size))
	l.batch = rawkafka.RandomBatch(int(size)/t.o.RecordBytes, t.o.RecordBytes, time.Now().UnixMilli(), func(i int, v []byte) { random.fill(v, int64(i)) })
	for _, mode := range throughputModes {
		wanted := slices.Contains(t.o.Modes, mode)
		if !wanted && mode != "produce" {
			continue
		}
		row, err := t.measure(ctx, l, mode)
		if err != nil {
			return fmt.Errorf("%s with %s, %d partitions, batches of %d bytes: %w", mode, client, partitions, size, err)
		}
		if wanted {
			rows[mode] = append(rows[mode], row)
			fmt.Fprintf(t.log, "%s %s, %d partitions, batches of %d bytes: %s MB/s\n", client, mode, partitions, size, row["mb_per_second"])
		}
	}
	if t.o.Keep {
		return nil
	}
	return t.c.remove(ctx, l.topic)
}

// medianRow has the median of each figure by itself, and all values of the two that are looked at most.
func medianRow(rows []map[string]string) map[string]string {
	out := maps.Clone(rows[0])
	if len(rows) == 1 {
		return out
	}
	for _, figure := range throughputColumns[throughputKeys:] {
		var texts []string
		var values []float64
		for _, row := range rows {
			if v, err := strconv.ParseFloat(row[figure], 64); err == nil {
				texts, values = append(texts, row[figure]), append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		if slices.Contains(throughputColumns, figure+"_each") {
			out[figure+"_each"] = strings.Join(texts, " ")
		}
		slices.Sort(values)
		// The lower of two middle ones: a value that was measured.
		i := slices.IndexFunc(texts, func(s string) bool { v, _ := strconv.ParseFloat(s, 64); return v == values[(len(values)-1)/2] })
		out[figure] = texts[i]
	}
	return out
}

// cool takes a case's topic out of the page cache and notes what stays.
func (t *throughput) cool(ctx context.Context, l *loadCase) error {
	left, err := t.o.Outside.evictAll(ctx, l.topic)
	if err == nil && left > t.o.Bytes/100 {
		t.result.Notes = append(t.result.Notes, fmt.Sprintf("%.0f MB of %s could not be taken out of the page cache before catchup: that much of it was not cold", float64(left)/1e6, l.topic))
	}
	return err
}

// measure runs one case.
func (t *throughput) measure(ctx context.Context, l *loadCase, mode string) (map[string]string, error) {
	if mode == "catchup" && len(t.o.Outside.DataDirs) > 0 {
		if err := t.cool(ctx, l); err != nil {
			return nil, err
		}
	}
	var bytes int64
	before, begun := t.counters(), time.Now()
	top := t.peak(ctx)
	var err error
	switch {
	case mode == "produce" && l.client == "raw":
		bytes, err = t.rawProduce(ctx, l)
	case mode == "produce":
		bytes, err = t.franzProduce(ctx, l)
	case l.client == "raw":
		bytes, err = t.rawConsume(ctx, l, mode == "catchup")
	default:
		bytes, err = t.franzConsume(ctx, l, mode == "catchup")
	}
	seconds, after := time.Since(begun).Seconds(), t.counters()
	anon := top()
	if err != nil {
		return nil, err
	}
	row := map[string]string{"client": l.client, "mode": mode, "partitions": fmt.Sprint(l.partitions), "batch_bytes": fmt.Sprint(l.size),
		"mb_per_second":             fmt.Sprintf("%.0f", float64(bytes)/1e6/seconds),
		"client_cpu_seconds_per_gb": fmt.Sprintf("%.2f", (after.own-before.own).Seconds()/(float64(bytes)/1e9))}
	if before.proc != nil && after.proc != nil {
		row["broker_cpu_seconds_per_gb"] = fmt.Sprintf("%.2f", (after.proc.cpu-before.proc.cpu).Seconds()/(float64(bytes)/1e9))
		row["broker_anonymous_mib_max"] = fmt.Sprintf("%.1f", float64(max(anon, after.proc.anonBytes))/mib)
	}
	if len(after.devices) > 0 && len(after.devices) == len(before.devices) {
		moved := int64(0)
		for i := range after.devices {
			moved += after.devices[i].ReadBytes - before.devices[i].ReadBytes
			if mode == "produce" {
				moved += after.devices[i].WrittenBytes - before.devices[i].WrittenBytes
			}
		}
		row["disk_bytes_per_byte"] = fmt.Sprintf("%.2f", float64(moved)/float64(bytes))
	}
	return row, nil
}

const mib = 1 << 20

func (t *throughput) counters() counters {
	c := counters{own: ownCPU()}
	if t.o.Outside.PID != 0 {
		if u, err := readProc(t.o.Outside.PID); err == nil {
			c.proc = &u
		}
	}
	for _, name := range t.devices {
		if d, err := readDevice(name); err == nil {
			c.devices = append(c.devices, d)
		}
	}
	return c
}

// peak watches the broker's anonymous memory until it is asked for the largest sample.
func (t *throughput) peak(ctx context.Context) func() int64 {
	if t.o.Outside.PID == 0 {
		return func() int64 { return 0 }
	}
	ctx, cancel := context.WithCancel(ctx)
	top, done := int64(0), make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, 200*time.Millisecond) {
			if u, err := readProc(t.o.Outside.PID); err == nil {
				top = max(top, u.anonBytes)
			}
		}
	}()
	return func() int64 { cancel(); <-done; return top }
}

// enough tells whether a measurement has had its bytes and its time.
func (t *throughput) enough(bytes int64, begun time.Time) bool {
	return bytes >= t.o.Bytes && time.Since(begun) >= t.o.Least
}

const (
	connections = 8 // at most, each with its share of the partitions
	inFlight    = 5 // requests on a connection, as the Java producer
)

// spread runs f on min(partitions, connections) connections for each broker, each with the partitions that are its own.
func (l *loadCase) spread(ctx context.Context, f func(ctx context.Context, c *rawkafka.Conn, partitions []int32) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for addr, parts := range byLeader(l.leaders) {
		n := min(len(parts), connections)
		for i := range n {
			var own []int32
			for j := i; j < len(parts); j += n {
				own = append(own, parts[j])
			}
			g.Go(func() error {
				c, hangUp, err := dial(ctx, addr, fmt.Sprintf("lagoon-bench-%d", i))
				if err != nil {
					return err
				}
				defer hangUp()
				return f(ctx, c, own)
			})
		}
	}
	return g.Wait()
}

func (t *throughput) rawProduce(ctx context.Context, l *loadCase) (int64, error) {
	var acked atomic.Int64
	begun := time.Now()
	err := l.spread(ctx, func(ctx context.Context, c *rawkafka.Conn, partitions []int32) error {
		for i, owed := 0, 0; ; i++ {
			more := ctx.Err() == nil && !t.enough(acked.Load(), begun)
			if !more && owed == 0 {
				return ctx.Err()
			}
			if more {
				if err := c.SendProduce(l.topic, partitions[i%len(partitions)], int16(t.o.Acks), l.batch); err != nil {
					return err
				}
				if owed++; owed < inFlight {
					continue
				}
			}
			if _, err := c.ReceiveProduce(); err != nil {
				return err
			}
			owed--
			acked.Add(int64(len(l.batch)))
		}
	})
	return acked.Load(), err
}

const consumeMaxBytes = 1 << 20 // of a partition in one fetch, the default of the Java consumer

func (t *throughput) rawConsume(ctx context.Context, l *loadCase, once bool) (int64, error) {
	var got atomic.Int64
	begun := time.Now()
	err := l.spread(ctx, func(ctx context.Context, c *rawkafka.Conn, partitions []int32) error {
		next := make(map[int32]int64, len(partitions))
		for turn := 0; len(partitions) > 0; turn++ {
			if !once && t.enough(got.Load(), begun) {
				return nil
			}
			req := rawkafka.FetchRequest{MaxWait: maxWait}
			for i := range partitions {
				p := partitions[(i+turn)%len(partitions)]
				req.Wants = append(req.Wants, rawkafka.Want{Topic: l.topic, Partition: p, Offset: next[p], MaxBytes: consumeMaxBytes})
			}
			var through []int32
			err := c.Fetch(req, func(f *rawkafka.Fetched) error {
				got.Add(f.Whole)
				if next[f.Partition] = f.Next; f.Next >= f.HighWatermark {
					next[f.Partition] = 0
					through = append(through, f.Partition)
				}
				return f.Err
			})
			if err != nil {
				return err
			}
			if once {
				partitions = slices.DeleteFunc(partitions, func(p int32) bool { return slices.Contains(through, p) })
			}
		}
		return nil
	})
	return got.Load(), err
}

func (t *throughput) franzProduce(ctx context.Context, l *loadCase) (int64, error) {
	acks := map[int]kgo.Acks{-1: kgo.AllISRAcks(), 1: kgo.LeaderAck()}[t.o.Acks]
	opts := []kgo.Opt{kgo.SeedBrokers(t.o.Brokers...), kgo.ClientID("lagoon-bench-franz"), kgo.DefaultProduceTopic(l.topic),
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(int(l.size), false, false, nil)),
		kgo.RequiredAcks(acks), kgo.ProducerBatchMaxBytes(int32(l.size + 4096)), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(buffered)}
	if t.o.Acks != -1 {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	var acked atomic.Int64
	ctx, fail := context.WithCancelCause(ctx) // what is refused for good once is refused again: nothing would ever be enough
	defer fail(nil)
	values := make([]byte, mib+t.o.RecordBytes)
	newNoise(1).fill(values, 0)
	begun := time.Now()
	for i := 0; ctx.Err() == nil && !t.enough(acked.Load(), begun); i++ {
		from := i * 1031 % mib
		cl.Produce(ctx, &kgo.Record{Value: values[from : from+t.o.RecordBytes]}, func(r *kgo.Record, err error) {
			if err != nil {
				fail(err)
				return
			}
			acked.Add(int64(len(r.Value)))
		})
	}
	err = cl.Flush(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return 0, cause
	}
	return acked.Load(), err
}

func (t *throughput) franzConsume(ctx context.Context, l *loadCase, once bool) (got int64, err error) {
	_, end, err := t.c.offsets(ctx, l.topic, int32(l.partitions))
	if err != nil {
		return 0, err
	}
	total := int64(0)
	from := map[int32]kgo.Offset{}
	for p, n := range end {
		total += n
		from[int32(p)] = kgo.NewOffset().AtStart()
	}
	for begun := time.Now(); ; {
		cl, err := kgo.NewClient(kgo.SeedBrokers(t.o.Brokers...), kgo.ClientID("lagoon-bench-franz"),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: from}), kgo.FetchMaxPartitionBytes(consumeMaxBytes))
		if err != nil {
			return got, err
		}
		for n := int64(0); n < total; {
			fetches := cl.PollFetches(ctx)
			if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
				cl.Close()
				return got, err
			}
			fetches.EachRecord(func(r *kgo.Record) { n++; got += int64(len(r.Value)) })
			if !once && t.enough(got, begun) {
				break
			}
		}
		cl.Close()
		if once || t.enough(got, begun) {
			return got, nil
		}
	}
}
