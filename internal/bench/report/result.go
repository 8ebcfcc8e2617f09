package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Format is raised when the JSON changes so that older readers would misread it.
const Format = 1

// Isolation is the result of `lagoon-bench isolation`.
type Isolation struct {
	Tool        string    `json:"tool"`
	Format      int       `json:"format"`
	Label       string    `json:"label"` // what the run is called beside others, such as "kafka 4.3.1, H"
	Started     time.Time `json:"started"`
	Interrupted bool      `json:"interrupted"` // the phases that are here are whole, others are missing

	Load      Load      `json:"load"`
	Machine   Machine   `json:"machine"`
	Device    *Device   `json:"device,omitempty"`
	Phases    []Phase   `json:"phases"`
	Medians   []Phase   `json:"medians,omitempty"` // one for each name, when the phases were repeated
	Checks    []Check   `json:"checks"`
	Groups    *Groups   `json:"groups,omitempty"` // nil: plain consumers
	Series    []Series  `json:"series"`
	Backlog   []float64 `json:"backlog_mb_per_second"` // per second since Started
	Residency []Window  `json:"residency,omitempty"`
	Notes     []string  `json:"notes,omitempty"` // what could not be measured and why
}

// Load is what was asked for.
type Load struct {
	Brokers          []string `json:"brokers"`
	LiveBytesPerSec  int64    `json:"live_bytes_per_second"`
	LivePartitions   int32    `json:"live_partitions"`
	SlowBytesPerSec  int64    `json:"slow_bytes_per_second"`
	SlowPartitions   int32    `json:"slow_partitions"`
	OldBytes         int64    `json:"old_bytes"`
	OldPartitions    int32    `json:"old_partitions"`
	RecordBytes      int      `json:"record_bytes"`
	LingerSeconds    float64  `json:"linger_seconds"`
	BehindSeconds    float64  `json:"behind_seconds"` // of the delayed reader
	BacklogRange     string   `json:"backlog_range"`  // spread or same
	BacklogMaxBytes  int32    `json:"backlog_partition_max_bytes"`
	PhaseSeconds     float64  `json:"phase_seconds"`
	SettleSeconds    float64  `json:"settle_seconds"`
	Repeats          int      `json:"repeats"`
	Groups           bool     `json:"consumer_groups,omitempty"` // every reader is a member of a group of its own
	TopicConfigs     []string `json:"topic_configs,omitempty"`
	BacklogWasReused bool     `json:"old_was_reused"`
}

// Machine is where generator, and in a laboratory the broker, run.
type Machine struct {
	CPUs        int    `json:"cpus"`
	Kernel      string `json:"kernel"`
	MemoryBytes int64  `json:"memory_bytes"`
}

// Device is what the device gives to one sequential reader with O_DIRECT and 1 MiB reads, measured in the same run.
type Device struct {
	Path     string  `json:"path"`
	Name     string  `json:"name,omitempty"` // of the block device, as in Use.Devices
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	MBPerSec float64 `json:"mb_per_second"`
}

// The roles, in the order of tables.
const (
	Ack     = "ack"
	AckSlow = "ack slow"
	Tail    = "tail"
	Delayed = "delayed"
	Mixed   = "mixed"
)

// Roles lists them.
var Roles = []string{Ack, AckSlow, Tail, Delayed, Mixed}

// Phase is one stretch of the run. Latencies are of the records that were due in it, whenever they came.
type Phase struct {
	Name           string               `json:"name"`
	Repeat         int                  `json:"repeat,omitempty"` // from 1; 0: a median, or the phases were not repeated
	FromSeconds    float64              `json:"from_seconds"`     // since Started
	ToSeconds      float64              `json:"to_seconds"`
	BacklogReaders int                  `json:"backlog_readers"`
	MixedCold      bool                 `json:"mixed_cold"` // the mixed client reads a cold partition, too
	Latency        map[string]Latency   `json:"latency"`
	Backlog        *Backlog             `json:"backlog,omitempty"`
	Recovery       map[string]*Recovery `json:"recovery,omitempty"` // after the phase's backlog stopped
	Use            Use                  `json:"use"`
}

// Latency is a distribution in ms, from the scheduled time.
type Latency struct {
	Count      int64   `json:"count"`
	Unfinished int64   `json:"unfinished"` // never came; counted with the time up to the end of the run, so figures are at least that
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Max        float64 `json:"max_ms"`
	Ratio      *Ratios `json:"ratio_to_base,omitempty"` // to the base phase of the same repetition
}

// Ratios are a phase's figures divided by those of base.
type Ratios struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Backlog is what the backlog readers got.
type Backlog struct {
	Bytes       int64     `json:"bytes"`
	MBPerSec    float64   `json:"mb_per_second"`
	EachMBPerS  []float64 `json:"each_mb_per_second"`
	Spread      float64   `json:"fairness_spread"` // (largest - smallest) / mean
	OfLimit     *float64  `json:"of_device_limit,omitempty"`
	OfLeft      *float64  `json:"of_what_writes_leave,omitempty"` // of the device's limit less what was written to it meanwhile
	Gaps        int64     `json:"gaps"`                           // batches that did not follow the one before
	BadBatches  int64     `json:"bad_batches"`                    // of those checked in full, with wrong CRC
	FullChecked int64     `json:"full_checked"`                   // responses whose batches were all checked
}

// Use is what the phase cost. Absent: not measured.
type Use struct {
	GeneratorCores float64            `json:"generator_cores"`
	BrokerCores    *float64           `json:"broker_cores,omitempty"`
	BrokerCPU      *float64           `json:"broker_cpu_seconds,omitempty"`
	AnonBytes      *int64             `json:"broker_anonymous_bytes_max,omitempty"`
	ProcessRead    *int64             `json:"broker_read_bytes,omitempty"` // /proc/PID/io
	ProcessWritten *int64             `json:"broker_write_bytes,omitempty"`
	Devices        []DeviceUse        `json:"devices,omitempty"`
	ReadPerServed  *float64           `json:"disk_bytes_per_byte_served,omitempty"`
	CacheBytes     map[string]int64   `json:"page_cache_bytes,omitempty"` // by topic, at the end of the phase
	HotWindow      map[string]float64 `json:"hot_window_resident_min,omitempty"`
	RealtimeRead   *int64             `json:"realtime_bytes_from_disk,omitempty"` // for readers of the live topics, as Lagoon tells it
	RealtimeShare  *float64           `json:"realtime_share_from_disk,omitempty"` // of the bytes that they got
	Late           Latency            `json:"generator_lateness"`                 // of the generator itself: its own share of every latency
}

// DeviceUse is a block device's counters over the phase.
type DeviceUse struct {
	Name         string `json:"name"`
	ReadBytes    int64  `json:"read_bytes"`
	WrittenBytes int64  `json:"written_bytes"`
}

// Recovery is how long after the backlog stopped a role was back at base: whole seconds, the first in which its p99 was.
type Recovery struct {
	Seconds   float64 `json:"seconds"`
	Recovered bool    `json:"recovered"` // false: not within Seconds
	BoundMs   float64 `json:"bound_ms"`  // the p99 that counts as base
}

// Check is what a reader's check of every record found.
type Check struct {
	Role       string `json:"role"`
	Topic      string `json:"topic"`
	Produced   int64  `json:"produced"` // acknowledged
	Failed     int64  `json:"failed"`   // whose produce failed; may or may not be there
	Read       int64  `json:"read"`
	Lost       int64  `json:"lost"`
	NotRead    int64  `json:"not_read"` // acknowledged, still in the broker, and not read by the end of the run
	Duplicates int64  `json:"duplicates"`
	Reordered  int64  `json:"reordered"`
	Corrupt    int64  `json:"corrupt"`
}

// OK tells whether the broker kept its word.
func (c *Check) OK() bool {
	return c.Lost == 0 && c.Duplicates == 0 && c.Reordered == 0 && c.Corrupt == 0
}

// Groups is what the readers' consumer groups did over the whole run.
type Groups struct {
	Groups      int     `json:"groups"`
	Heartbeats  int64   `json:"heartbeats"` // answered well, as are Commits
	Commits     int64   `json:"commits"`
	SlowestMs   float64 `json:"slowest_commit_ms"`
	Refused     int64   `json:"refused"`    // heartbeats, commits and leaves that were refused, or not answered
	Rebalances  int64   `json:"rebalances"` // joins beyond the one with which a reader begins
	FirstReason string  `json:"first_reason,omitempty"`
}

// Series is a role's latency by the second in which records were due.
type Series struct {
	Role   string  `json:"role"`
	Points []Point `json:"points"`
}

// Point is one second.
type Point struct {
	Second int     `json:"second"` // since Started
	Count  int64   `json:"count"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

// Window is one look at the page cache.
type Window struct {
	Second   int                `json:"second"`
	Resident map[string]float64 `json:"hot_window_resident"` // share by topic: of the newest bytes, as far back as the delayed reader is
	Bytes    map[string]int64   `json:"page_cache_bytes"`    // by topic
}

// base is the phase that the ratios of a repetition refer to, nil when there is none.
func (r *Isolation) base(repeat int) *Phase {
	i := slices.IndexFunc(r.Phases, func(p Phase) bool { return p.Name == "base" && p.Repeat == repeat })
	if i < 0 {
		return nil
	}
	return &r.Phases[i]
}

// Conclude fills in what follows from the measurements: ratios, shares and medians.
func (r *Isolation) Conclude() {
	for i := range r.Phases {
		p := &r.Phases[i]
		r.shares(p)
		base := r.base(p.Repeat)
		if base == nil || p.Name == base.Name {
			continue
		}
		for role, l := range p.Latency {
			if b, ok := base.Latency[role]; ok && b.Count > 0 && l.Count > 0 {
				l.Ratio = &Ratios{P50: ratio(l.P50, b.P50), P99: ratio(l.P99, b.P99), P999: ratio(l.P999, b.P999), Max: ratio(l.Max, b.Max)}
				p.Latency[role] = l
			}
		}
	}
	r.Medians = medians(r.Phases)
}

// shares says what part of the device the backlog got, and what part of their bytes real-time readers got from it.
func (r *Isolation) shares(p *Phase) {
	seconds := p.ToSeconds - p.FromSeconds
	if b := p.Backlog; b != nil && r.Device != nil {
		share := b.MBPerSec / r.Device.MBPerSec
		b.OfLimit = &share
		for _, d := range p.Use.Devices {
			if left := r.Device.MBPerSec - float64(d.WrittenBytes)/1e6/seconds; d.Name == r.Device.Name && left > 0 {
				share := b.MBPerSec / left
				b.OfLeft = &share
			}
		}
	}
	got := int64(0)
	for _, role := range []string{Tail, Delayed, Mixed} {
		got += p.Latency[role].Count * int64(r.Load.RecordBytes)
	}
	if read := p.Use.RealtimeRead; read != nil && got > 0 {
		share := float64(*read) / float64(got)
		p.Use.RealtimeShare = &share
	}
}

// floorMs keeps ratios finite: no broker answers faster.
const floorMs = 0.01

func ratio(a, b float64) float64 { return max(a, floorMs) / max(b, floorMs) }

// backlogCheck adds up what backlog readers found.
func (r *Isolation) backlogCheck() (gaps, bad, checked int64) {
	for _, p := range r.Phases {
		if g := p.Backlog; g != nil {
			gaps, bad, checked = gaps+g.Gaps, bad+g.BadBatches, checked+g.FullChecked
		}
	}
	return gaps, bad, checked
}

// Whole tells whether every check held.
func (r *Isolation) Whole() bool {
	gaps, bad, _ := r.backlogCheck()
	return gaps == 0 && bad == 0 && !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK() })
}

// ParseIsolation reads a result back.
func ParseIsolation(data []byte) (*Isolation, error) {
	r := &Isolation{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("no result of lagoon-bench isolation: %w", err)
	}
	if r.Tool != "lagoon-bench isolation" {
		return nil, fmt.Errorf("no result of lagoon-bench isolation: its tool is %q", r.Tool)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("a result of format %d; this lagoon-bench reads %d", r.Format, Format)
	}
	return r, nil
}
