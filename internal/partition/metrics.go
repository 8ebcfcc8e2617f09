package partition

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/compaction"
)

// metrics of the log path. Labels are bounded: tiers, lanes, states, methods; never topics or clients.
type metrics struct {
	syncSeconds    prometheus.Histogram
	journalSeconds prometheus.Histogram
	journalBytes   prometheus.Counter
	journalTurns   prometheus.Counter
	rolls          prometheus.Counter
	sealed         prometheus.Counter
	deletedBytes   prometheus.Counter
	retentionLost  prometheus.Counter
	corruptReads   prometheus.Counter
	tailColdReads  prometheus.Counter
	tailRefaulted  prometheus.Counter
	tailDelay      [numDelayCauses]prometheus.Counter
	fenced         *prometheus.GaugeVec
	dirErrors      *prometheus.CounterVec // tier, op
	servedBytes    *prometheus.CounterVec // class, lane
	coldBytes      *prometheus.CounterVec // tier, lane, method
	coldSeconds    *prometheus.HistogramVec
	transitions    *prometheus.CounterVec

	convoyChunks, convoyShared, convoyRead, convoyServed prometheus.Counter
	convoyLeaves                                         *prometheus.CounterVec
	convoyFollowers, convoyKept                          prometheus.Gauge

	compactions, compactionFailures                     prometheus.Counter
	compactionRead, compactionWritten, compactionGone   prometheus.Counter
	compactionSeconds                                   prometheus.Counter
	compactionDirty, compactionWaiting, compactionLagMs prometheus.Gauge

	byServed [admission.NumStates][4]prometheus.Counter // servedBytes without the label look-up
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lagoon_sync_seconds",
			Help: "Time of one commit: the sync of everything appended to one partition so far.", Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18), NativeHistogramBucketFactor: 1.1}),
		journalSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lagoon_commit_journal_seconds",
			Help: "Time of one round of the commit journal: one write for all partitions that wait.", Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18), NativeHistogramBucketFactor: 1.1}),
		journalBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_commit_journal_bytes_total", Help: "Bytes of records written to commit journals."}),
		journalTurns: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_commit_journal_turns_total", Help: "Times that a commit journal went on in its other file: what the first one holds then goes to the segment files."}),
		rolls:        prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_segment_rolls_total", Help: "New active segments."}),
		sealed:       prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_segment_sealed_total", Help: "Segments synced and made immutable."}),
		deletedBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_retention_deleted_bytes_total", Help: "Bytes of segments that retention deleted."}),
		retentionLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_reader_retention_lost_bytes_total",
			Help: "Bytes that retention deleted before readers at work had read them, summed over readers."}),
		corruptReads:  prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_corrupt_reads_total", Help: "Reads that met damaged data or indexes. Nothing damaged is served."}),
		tailColdReads: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_tail_cold_reads_total", Help: "Reads of real-time readers that needed a device; should be 0."}),
		tailRefaulted: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_tail_refault_bytes_total",
			Help: "Bytes read from devices for real-time readers of records appended since the start: something took them from the page cache."}),
		fenced: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lagoon_log_dir_fenced", Help: "1: the log directory is offline after a storage error."}, []string{"tier", "path"}),
		dirErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_tier_errors_total",
			Help: "Errors of the kernel for cold reads, openings of segments, and what takes a log directory offline; a full disk is none."}, []string{"tier", "op"}),
		servedBytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_fetch_bytes_total",
			Help: "Bytes handed to readers, by reader class and lane."}, []string{"class", "lane"}),
		coldBytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_cold_read_bytes_total",
			Help: "Bytes read from devices for readers, by tier, lane and method."}, []string{"tier", "lane", "method"}),
		coldSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lagoon_cold_read_seconds",
			Help: "Time of one device read, without the wait for its turn.", Buckets: prometheus.ExponentialBuckets(100e-6, 2, 18), NativeHistogramBucketFactor: 1.1}, []string{"tier"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_reader_class_transitions_total",
			Help: "Changes of readers' classes."}, []string{"from", "to"}),
		convoyChunks: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_convoy_chunks_read_total",
			Help: "Chunks read from devices that other lagging readers may share."}),
		convoyShared: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_convoy_chunks_shared_total",
			Help: "Chunks that lagging readers got from a read made for another one."}),
		convoyRead: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_convoy_read_bytes_total",
			Help: "Bytes read from devices for lagging readers, once for all who share them."}),
		convoyServed: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_convoy_served_bytes_total",
			Help: "Bytes of chunks given to lagging readers; divided by the bytes read it is what convoys save."}),
		convoyLeaves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_convoy_leaves_total",
			Help: "Times that a reader who followed another one's pass had to go on alone, by reason."}, []string{"reason"}),
		convoyFollowers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_convoy_followers",
			Help: "Lagging readers that are fed by another reader's pass now."}),
		convoyKept: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_convoy_kept_bytes",
			Help: "Chunk memory that is kept for readers close behind."}),
		compactions:        prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compactions_total", Help: "Compactions of a partition that succeeded."}),
		compactionFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compaction_failures_total", Help: "Compactions of a partition that failed; nothing is lost by one."}),
		compactionRead:     prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compaction_read_bytes_total", Help: "Bytes read for compaction."}),
		compactionWritten:  prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compaction_written_bytes_total", Help: "Bytes written by compaction."}),
		compactionGone:     prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compaction_removed_records_total", Help: "Records that compaction has removed."}),
		compactionSeconds:  prometheus.NewCounter(prometheus.CounterOpts{Name: "lagoon_compaction_seconds_total", Help: "Time that compaction was at work."}),
		compactionDirty: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_compaction_max_dirty_ratio",
			Help: "Largest share of bytes not yet compacted among the partitions of compacted topics."}),
		compactionWaiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_compaction_due_partitions", Help: "Partitions whose compaction is due."}),
		compactionLagMs: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lagoon_compaction_max_overdue_seconds",
			Help: "Longest time by which a partition exceeds its max.compaction.lag.ms."}),
	}
	for s := range m.byServed {
		for lane := range m.byServed[s] {
			m.byServed[s][lane] = m.servedBytes.WithLabelValues(admission.State(s).String(), admission.Lane(lane).String())
		}
	}
	tailDelay := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lagoon_tail_delay_seconds_total",
		Help: "Time that real-time readers waited for a device, by what else it did as it began or ended to read for them; unknown: nothing of Lagoon's."}, []string{"cause"})
	for c := range m.tailDelay {
		m.tailDelay[c] = tailDelay.WithLabelValues(delayCause(c).String())
	}
	if reg != nil {
		reg.MustRegister(m.syncSeconds, m.journalSeconds, m.journalBytes, m.journalTurns, m.rolls, m.sealed, m.deletedBytes, m.retentionLost, m.corruptReads, m.tailColdReads, m.tailRefaulted, tailDelay, m.fenced, m.dirErrors, m.servedBytes,
			m.coldBytes, m.coldSeconds, m.transitions,
			m.convoyChunks, m.convoyShared, m.convoyRead, m.convoyServed, m.convoyLeaves, m.convoyFollowers, m.convoyKept,
			m.compactions, m.compactionFailures, m.compactionRead, m.compactionWritten, m.compactionGone, m.compactionSeconds,
			m.compactionDirty, m.compactionWaiting, m.compactionLagMs)
	}
	return m
}

func (m *metrics) served(class admission.State, lane admission.Lane, n int64) {
	m.byServed[class][lane].Add(float64(n))
}

func (m *metrics) coldRead(tier string, method cachectl.Method, lane admission.Lane, n int64, d time.Duration) {
	m.coldBytes.WithLabelValues(tier, lane.String(), string(method)).Add(float64(n))
	m.coldSeconds.WithLabelValues(tier).Observe(d.Seconds())
}

func (m *metrics) tailDelayed(cause delayCause, d time.Duration) {
	m.tailDelay[cause].Add(max(0, d.Seconds()))
}

func (m *metrics) classChanges(changes []admission.Change) {
	for _, c := range changes {
		m.transitions.WithLabelValues(c.From.String(), c.Class.State.String()).Inc()
	}
}

func (m *metrics) convoyLeft(why LeaveReason) { m.convoyLeaves.WithLabelValues(string(why)).Inc() }

// compacted takes in how a compaction has ended.
func (m *metrics) compacted(r CompactionResult) {
	m.compactionSeconds.Add(r.Elapsed.Seconds())
	if r.Err != nil {
		m.compactionFailures.Inc()
		return
	}
	m.compactions.Inc()
	m.compactionGone.Add(float64(r.Records - r.Kept))
}

// compactionDue takes in what there is to compact.
func (m *metrics) compactionDue(works []compaction.Work) {
	due, ratio, overdue := 0, 0.0, int64(0)
	for _, w := range works {
		ratio, overdue = max(ratio, w.Ratio), max(overdue, w.OverdueMs)
		if w.Due {
			due++
		}
	}
	m.compactionWaiting.Set(float64(due))
	m.compactionDirty.Set(ratio)
	m.compactionLagMs.Set(float64(overdue) / 1000)
}
