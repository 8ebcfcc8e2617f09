package admin

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapeTimeout bounds one scrape's questions to the backend; Prometheus gives up after 10 s by default.
const scrapeTimeout = 8 * time.Second

// maxReaderSeries bounds the readers in /metrics/detailed: those furthest behind are kept.
const maxReaderSeries = 1000

// metricsHandlers makes the two scrape endpoints: a bounded number of series per topic and tier, and the long one with partitions
// and readers. Both are computed from the backend's snapshots at scrape time. What they serve goes into s.scrapes, too, without the limits.
func (s *Server) metricsHandlers() (metrics, detailed http.HandlerFunc) {
	exporter := slices.Contains(s.opt.Compat, "exporter")
	jmx := slices.Contains(s.opt.Compat, "jmx")
	s.scrapes = nil
	handler := func(collect func(*scrape)) http.HandlerFunc {
		reg := prometheus.NewRegistry()
		reg.MustRegister(&collector{s.opt.Backend, collect})
		gatherers := prometheus.Gatherers{reg}
		if s.opt.Gatherer != nil {
			gatherers = append(gatherers, s.opt.Gatherer)
		}
		opt := promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, ErrorLog: scrapeLog{s}}
		s.scrapes = append(s.scrapes, promhttp.HandlerFor(gatherers, opt))
		opt.MaxRequestsInFlight, opt.Timeout = 4, callTimeout
		return promhttp.HandlerFor(gatherers, opt).ServeHTTP
	}
	metrics = handler(func(m *scrape) {
		m.process()
		m.tiers()
		m.topics()
		m.throttle()
		if exporter {
			m.exporter()
		}
		if jmx {
			m.jmx()
		}
	})
	detailed = handler(func(m *scrape) {
		m.partitions()
		m.readers()
		m.groups()
		m.throttleWaits()
	})
	return metrics, detailed
}

type scrapeLog struct{ s *Server }

func (l scrapeLog) Println(v ...any) { l.s.opt.Log.Warn("metrics scrape had faults", "faults", v) }

// collector asks the backend at every scrape. It is unchecked (describes nothing), because what it has depends on the answers.
type collector struct {
	backend Backend
	collect func(*scrape)
}

func (*collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	m := &scrape{ctx: ctx, backend: c.backend, out: out}
	if list, err := c.backend.Topics(ctx); err == nil { // while starting there are none
		m.list = list
	}
	c.collect(m)
}

// scrape is one answer in the making.
type scrape struct {
	ctx     context.Context
	backend Backend
	out     chan<- prometheus.Metric
	list    []Topic
}

// put emits one sample; labels are name, value pairs.
func (m *scrape) put(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, strings.ToValidUTF8(labels[i+1], "?"))
	}
	m.out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
}

func (m *scrape) gauge(name, help string, value float64, labels ...string) {
	m.put(prometheus.GaugeValue, name, help, value, labels...)
}

func (m *scrape) counter(name, help string, value float64, labels ...string) {
	m.put(prometheus.CounterValue, name, help, value, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *scrape) process() {
	for _, c := range m.backend.Checks(m.ctx) {
		m.gauge("lagoon_check_ok", "1 when the readiness check passes.", truth(c.OK), "check", c.Name)
		if c.Progress != nil {
			m.gauge("lagoon_check_progress_done", "Progress of long work, in its own unit.", float64(c.Progress.Done), "check", c.Name)
			m.gauge("lagoon_check_progress_total", "What the long work comes to; 0 while unknown.", float64(c.Progress.Total), "check", c.Name)
		}
	}
	st, err := m.backend.Status(m.ctx)
	if err != nil {
		return
	}
	m.gauge("lagoon_build_info", "Version of the daemon.", 1, "version", st.Version, "commit", st.Commit, "go_version", st.GoVersion)
	m.gauge("lagoon_start_time_seconds", "Unix time of the start.", float64(st.StartedAt.UnixMilli())/1000)
	m.gauge("lagoon_config_info", "Digest of the effective configuration.", 1, "digest", st.ConfigDigest)
	m.gauge("lagoon_config_last_reload_successful", "1 unless the last reload of the configuration was refused.", truth(st.ConfigError == ""))
	m.gauge("lagoon_config_last_reload_success_timestamp_seconds", "Unix time of the start, or of the last reload that was taken.", float64(st.ConfigLoadedAt.UnixMilli())/1000)
	m.gauge("lagoon_config_pending_restart", "Keys that the configuration says otherwise since, and that need a restart.", float64(len(st.PendingRestart)))
	for tier, mode := range st.Kernel.ReadModes {
		m.gauge("lagoon_tier_read_mode_info", "Method of bypass reads in use.", 1, "tier", tier, "mode", mode)
	}
	m.readerCounts()
}

func (m *scrape) readerCounts() {
	list, err := m.backend.Readers(m.ctx)
	if err != nil {
		return
	}
	count := map[[2]string]int{}
	for _, r := range list {
		count[[2]string{r.Topic, r.Class}]++
	}
	for k, n := range count {
		m.gauge("lagoon_readers", "Readers by state.", float64(n), "topic", k[0], "class", k[1])
	}
}

func (m *scrape) tiers() {
	list, err := m.backend.Tiers(m.ctx)
	if err != nil {
		return
	}
	for _, t := range list {
		m.gauge("lagoon_tier_up", "1 unless the tier is fenced or missing.", truth(t.State == "ok" || t.State == "full"), "tier", t.Name)
		m.gauge("lagoon_tier_capacity_bytes", "Size of the tier's file system.", float64(t.CapacityBytes), "tier", t.Name)
		m.gauge("lagoon_tier_free_bytes", "Free space of the tier's file system.", float64(t.FreeBytes), "tier", t.Name)
		m.gauge("lagoon_tier_used_bytes", "Bytes of Lagoon's files.", float64(t.UsedBytes), "tier", t.Name)
		m.gauge("lagoon_tier_limit_bytes", "What Lagoon's files may come to: max_used of the file system, less what others have taken. Watermarks are shares of it.",
			float64(t.MayUseBytes()), "tier", t.Name)
		m.gauge("lagoon_tier_segments", "Segments.", float64(t.Segments), "tier", t.Name)
		m.gauge("lagoon_tier_watermark_ratio", "Fill level at which segments start and stop moving.", t.HighWatermark, "tier", t.Name, "level", "high")
		m.gauge("lagoon_tier_watermark_ratio", "Fill level at which segments start and stop moving.", t.LowWatermark, "tier", t.Name, "level", "low")
		m.counter("lagoon_tier_cold_read_bytes_total", "Bytes that bypass reads took from the device.", float64(t.ReadBytesTotal), "tier", t.Name)
		m.gauge("lagoon_throttle_queue_readers", "Cold reads waiting for their turn.", float64(t.QueuedReads), "tier", t.Name)
	}
}

func (m *scrape) topics() {
	for _, t := range m.list {
		tiers := map[string]int64{}
		for _, p := range t.Partitions {
			for tier, n := range p.TierBytes {
				tiers[tier] += n
			}
		}
		for tier, n := range tiers {
			m.gauge("lagoon_topic_bytes", "Bytes of log.", float64(n), "topic", t.Name, "tier", tier)
		}
		m.gauge("lagoon_cache_resident_bytes", "Bytes of log in the page cache, of the last sample.", float64(t.ResidentBytes), "topic", t.Name)
		m.gauge("lagoon_cache_dirty_bytes", "Bytes of log in the page cache that are not on the device yet, of the last sample.", float64(t.DirtyBytes), "topic", t.Name)
		m.gauge("lagoon_cache_writeback_bytes", "Bytes of log that are being written to the device, of the last sample.", float64(t.WritebackBytes), "topic", t.Name)
		m.gauge("lagoon_cache_recently_evicted_pages", "Pages of log that the kernel has evicted lately, of the last sample.", float64(t.RefaultPages), "topic", t.Name)
	}
}

func (m *scrape) throttle() {
	t, err := m.backend.Throttle(m.ctx)
	if err != nil {
		return
	}
	const help = "Limits in force; series without a limit are left out."
	if t.TotalBytes > 0 {
		m.gauge("lagoon_throttle_limit_bytes_per_second", help, float64(t.TotalBytes), "scope", "total", "name", "")
	}
	for _, d := range t.Devices {
		if d.LimitBytes > 0 {
			m.gauge("lagoon_throttle_limit_bytes_per_second", help, float64(d.LimitBytes), "scope", "tier", "name", d.Tier)
			m.gauge("lagoon_throttle_tokens_bytes", "Budget left.", float64(d.TokensBytes), "tier", d.Tier)
		}
		m.counter("lagoon_throttle_granted_bytes_total", "Cold bytes granted.", float64(d.GrantedBytes), "tier", d.Tier)
	}
	for _, o := range t.Overrides {
		if o.BytesPerSecond > 0 {
			m.gauge("lagoon_throttle_limit_bytes_per_second", help, float64(o.BytesPerSecond), "scope", string(o.Kind), "name", o.Name)
		}
	}
}

// eachPartition visits all partitions with their labels.
func (m *scrape) eachPartition(fn func(t Topic, p Partition, labels []string)) {
	for _, t := range m.list {
		for _, p := range t.Partitions {
			fn(t, p, []string{"topic", t.Name, "partition", strconv.Itoa(int(p.Partition))})
		}
	}
}

func (m *scrape) partitions() {
	m.eachPartition(func(_ Topic, p Partition, l []string) {
		m.gauge("lagoon_partition_start_offset", "First offset.", float64(p.StartOffset), l...)
		m.gauge("lagoon_partition_end_offset", "Next offset to be assigned.", float64(p.EndOffset), l...)
		m.gauge("lagoon_partition_high_watermark", "First offset that consumers do not see.", float64(p.HighWatermark), l...)
		m.gauge("lagoon_partition_bytes", "Bytes of log.", float64(p.Bytes), l...)
		m.gauge("lagoon_partition_resident_bytes", "Bytes in the page cache, of the last sample.", float64(p.ResidentBytes), l...)
		m.gauge("lagoon_partition_segments", "Segments.", float64(p.Segments), l...)
		m.gauge("lagoon_partition_hot_window_bytes", "Newest bytes that are kept in the page cache for real-time readers.", float64(p.HotWindowBytes), l...)
		m.gauge("lagoon_cache_resident_tail_seconds", "Age back to which the newest records are pinned in the page cache; 0: none are.", p.HotWindowSeconds, l...)
		m.counter("lagoon_partition_bytes_in_total", "Bytes appended since the start.", float64(p.BytesIn), l...)
		m.counter("lagoon_partition_bytes_out_total", "Bytes read since the start.", float64(p.BytesOut), l...)
		m.counter("lagoon_partition_records_in_total", "Records appended since the start.", float64(p.RecordsIn), l...)
	})
}

func (m *scrape) readers() {
	list, err := m.backend.Readers(m.ctx)
	if err != nil {
		return
	}
	slices.SortStableFunc(list, func(a, b Reader) int { return cmp.Compare(b.LagBytes, a.LagBytes) })
	seen := map[[4]string]bool{}
	left := 0
	for _, r := range list {
		// One series per name: of two cursors with the same names the one further behind came first.
		key := [4]string{r.Group, r.ClientID, r.Topic, strconv.Itoa(int(r.Partition))}
		if seen[key] {
			continue
		}
		if len(seen) == maxReaderSeries {
			left++
			continue
		}
		seen[key] = true
		l := []string{"group", key[0], "client_id", key[1], "topic", key[2], "partition", key[3]}
		m.gauge("lagoon_reader_lag_records", "Records behind the end.", float64(r.LagRecords), l...)
		m.gauge("lagoon_reader_lag_bytes", "Bytes behind the end.", float64(r.LagBytes), l...)
		if r.LagSeconds >= 0 { // else it is not known
			m.gauge("lagoon_reader_lag_seconds", "Age of the next record to read.", r.LagSeconds, l...)
		}
		if r.ETASeconds >= 0 {
			m.gauge("lagoon_reader_eta_seconds", "Time until the reader has caught up.", r.ETASeconds, l...)
		}
		m.gauge("lagoon_reader_rate_bytes_per_second", "Bytes served per second.", r.RateBytes, l...)
		m.gauge("lagoon_reader_throttle_wait_ratio", "Share of the last minute spent waiting for budget.", r.Throttle.WaitRatio, l...)
	}
	m.gauge("lagoon_metrics_dropped_readers", "Readers left out because there are too many.", float64(left))
}

// throttleWaits tells who waited for cold reads, and for what; those who waited longest are kept.
func (m *scrape) throttleWaits() {
	t, err := m.backend.Throttle(m.ctx)
	if err != nil {
		return
	}
	left := 0
	for _, f := range furthest(t.Flows, &left, func(f Flow) float64 { return f.WaitSeconds }) {
		group, client := strings.TrimPrefix(f.Name, "group:"), ""
		if name, found := strings.CutPrefix(f.Name, "client:"); found {
			group, client = "", name
		}
		for by, seconds := range f.WaitBy {
			m.counter("lagoon_throttle_wait_seconds_total", "Time that cold reads and migrations have waited until they were started, by what held them back last.",
				seconds, "group", group, "client_id", client, "limited_by", by)
		}
	}
	m.gauge("lagoon_metrics_dropped_throttle_flows", "Groups and clients that lagoon_throttle_wait_seconds_total leaves out because there are too many.", float64(left))
}

// groups tells the lag of committed offsets by group and topic; those furthest behind are kept.
func (m *scrape) groups() {
	list, err := m.backend.Groups(m.ctx)
	if err != nil {
		return
	}
	type series struct {
		group, topic   string
		records, bytes int64
		seconds, eta   float64
		unknown        bool // how long, of some that it is behind in
	}
	var all []series
	for _, g := range list {
		from := len(all)
		for _, p := range g.Partitions { // by topic
			if n := len(all); n == from || all[n-1].topic != p.Topic {
				all = append(all, series{group: g.Group, topic: p.Topic})
			}
			t := &all[len(all)-1]
			t.records, t.bytes, t.seconds = t.records+max(0, p.LagRecords), t.bytes+max(0, p.LagBytes), max(t.seconds, p.LagSeconds)
			t.unknown = t.unknown || p.LagRecords > 0 && p.LagSeconds < 0
			if t.eta = max(t.eta, p.ETASeconds); p.ETASeconds < 0 {
				t.eta = math.Inf(1)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, t := range all[:min(len(all), maxReaderSeries)] {
		l := []string{"group", t.group, "topic", t.topic}
		m.gauge("lagoon_group_lag_records", "Records from the committed offsets to the end.", float64(t.records), l...)
		m.gauge("lagoon_group_lag_bytes", "Bytes from the committed offsets to the end, about.", float64(t.bytes), l...)
		if t.seconds > 0 || !t.unknown {
			m.gauge("lagoon_group_lag_seconds", "Time since the next unread record was appended, or was due where it is delivered late, of the worst partition of which it is known.", t.seconds, l...)
		}
		m.gauge("lagoon_group_eta_seconds", "Time until the group has caught up at its present rate; +Inf: never, or not known.", t.eta, l...)
	}
	m.gauge("lagoon_metrics_dropped_groups", "Groups and topics left out because there are too many.", float64(max(0, len(all)-maxReaderSeries)))
}
