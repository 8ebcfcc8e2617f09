package admin

import (
	"context"
	"time"
)

// Backend is what the daemon tells the admin server. Every method may be called at any time from any goroutine, also
// before recovery ended and after drain began; methods that cannot answer yet return ErrStarting. Answers must come
// from snapshots: no log lock, no device I/O beyond cachestat, and they must be prompt while the broker is overloaded.
// Returned slices and maps belong to the caller of the method (the admin server may sort them).
//
// Errors: *NotFoundError (404), *InvalidError (400), ErrStarting, ErrLoading and ErrBusy (503); anything else becomes a 500 whose
// text goes to the log and not to the client.
type Backend interface {
	// Status describes the process.
	Status(ctx context.Context) (Status, error)
	// Checks lists the readiness checks; it never fails and never blocks.
	Checks(ctx context.Context) []Check
	// Topics lists every topic with its partitions, sorted by name.
	Topics(ctx context.Context) ([]Topic, error)
	// Segments lists the segments of one partition by base offset.
	Segments(ctx context.Context, topic string, partition int32) ([]Segment, error)
	// Cache samples the residency matrix.
	Cache(ctx context.Context, q CacheQuery) (Cache, error)
	// Readers lists all known readers.
	Readers(ctx context.Context) ([]Reader, error)
	// Groups lists all groups with the lag of their committed offsets, by id.
	Groups(ctx context.Context) ([]Group, error)
	// Tiers lists the tiers, hot to cold.
	Tiers(ctx context.Context) ([]Tier, error)
	// Throttle describes the cold budgets and the overrides in force.
	Throttle(ctx context.Context) (Throttle, error)
	// SetOverride stores o durably and applies it. o is valid: kind, name, rate and weight were checked.
	SetOverride(ctx context.Context, o Override) error
	// DeleteOverride removes an override durably; *NotFoundError when there is none.
	DeleteOverride(ctx context.Context, kind OverrideKind, name string) error
	// Migrations lists waiting, running and recently finished migrations.
	Migrations(ctx context.Context) (Migrations, error)
	// StartMigration orders one move ahead of the planned ones. *NotFoundError for a topic, partition, segment or tier that there is not;
	// *InvalidError when the segment cannot go there now.
	StartMigration(ctx context.Context, o MigrationOrder) (Migration, error)
	// CancelMigration stops a migration that waits or runs, and gives it as it was; *NotFoundError when there is none of that id.
	CancelMigration(ctx context.Context, id string) (Migration, error)
	// PauseMigrations holds all migrations up, until ResumeMigrations or a restart.
	PauseMigrations(ctx context.Context, reason string) error
	// ResumeMigrations ends a pause; without one it does nothing.
	ResumeMigrations(ctx context.Context) error
	// Pins lists the partitions that are pinned to a log directory, by topic and partition.
	Pins(ctx context.Context) ([]Pin, error)
	// Unpin takes a pin off, durably, and tells where the policy puts the segments; *NotFoundError when there is none.
	Unpin(ctx context.Context, topic string, partition int32) (Unpinned, error)
	// Compactions lists the partitions of compacted topics, the one that is due first in front.
	Compactions(ctx context.Context) (Compactions, error)
	// ExplainFetch decides one read without doing it.
	ExplainFetch(ctx context.Context, q ExplainQuery) (Explanation, error)
	// Evict drops clean pages of a range from the page cache, or with q.DryRun tells what it would drop.
	Evict(ctx context.Context, q CacheAction) (CacheActionResult, error)
	// Warm reads a range into the page cache, or with q.DryRun tells what it would read. It returns when the range is
	// resident or ctx ends; progress shows in the log.
	Warm(ctx context.Context, q CacheAction) (CacheActionResult, error)
	// Config lists the effective configuration with the origin of each value. Secrets are redacted by the backend.
	Config(ctx context.Context) (Config, error)
	// DebugParts are the files of a debug bundle that no other method gives. Their Write may hang.
	DebugParts() []DebugPart
	// ReloadConfig reads the configuration again and takes what can change at run time, all of it or on an error nothing; a dry run
	// tells what it would take. *InvalidError names all faults.
	ReloadConfig(ctx context.Context, dryRun bool) (ConfigReload, error)
	// LogLevel tells how much the daemon logs.
	LogLevel(ctx context.Context) (LogLevel, error)
	// SetLogLevel changes that, for o.TTL or until the next start, and tells how it is then. o is valid.
	SetLogLevel(ctx context.Context, o LogLevelOrder) (LogLevel, error)
}

// Status answers GET /api/v1/status.
type Status struct {
	Version        string       `json:"version"`
	Commit         string       `json:"commit,omitempty"`
	GoVersion      string       `json:"go_version"`
	PID            int          `json:"pid"`
	State          string       `json:"state"` // starting, ready, draining, fenced
	StartedAt      time.Time    `json:"started_at"`
	UptimeSeconds  float64      `json:"uptime_seconds"`
	NodeID         int32        `json:"node_id"`
	ClusterID      string       `json:"cluster_id"`
	Listeners      []string     `json:"listeners"`  // Kafka, as bound
	Advertised     []string     `json:"advertised"` // what Metadata tells clients
	Topics         int          `json:"topics"`
	Partitions     int          `json:"partitions"`
	LogBytes       int64        `json:"log_bytes"`
	Readers        ReaderCounts `json:"readers"`
	Kernel         Kernel       `json:"kernel"`
	Pool           Pool         `json:"chunk_pool"`
	ConfigFile     string       `json:"config_file,omitempty"`
	ConfigDigest   string       `json:"config_digest"`          // of the effective values
	ConfigLoadedAt time.Time    `json:"config_loaded_at"`       // the start, or the last reload that was taken
	ConfigError    string       `json:"config_error,omitempty"` // of the last reload, when it was not taken
	PendingRestart []string     `json:"pending_restart"`        // keys that the configuration says otherwise since, and that are read when the broker starts
	Checks         []Check      `json:"checks"`                 // filled by the admin server
}

// ReaderCounts counts readers by state.
type ReaderCounts struct {
	Realtime   int `json:"realtime"`
	CatchingUp int `json:"catching_up"`
	Lagging    int `json:"lagging"`
	Stalled    int `json:"stalled"`
	Stopped    int `json:"stopped"`
}

// Kernel tells which page-cache interfaces are in use.
type Kernel struct {
	Release   string            `json:"release"`
	Residency string            `json:"residency"`  // cachestat, mincore, none
	ReadModes map[string]string `json:"read_modes"` // tier → method of bypass reads now in use
}

// Pool describes the bounded memory of bypass reads.
type Pool struct {
	TotalBytes int64 `json:"total_bytes"`
	UsedBytes  int64 `json:"used_bytes"`
	Waiting    int64 `json:"waiting"`
}

// Check is one readiness check. A failed check with Severity "error" makes /readyz answer 503; "warn" does not.
type Check struct {
	Name     string    `json:"name"` // log-recovery, tiers-writable, listener, drain, clock, cachestat …
	OK       bool      `json:"ok"`
	Severity string    `json:"severity"` // error, warn
	Text     string    `json:"text,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
}

// Progress of long work. Total 0 means not known yet.
type Progress struct {
	Done       int64   `json:"done"`
	Total      int64   `json:"total"`
	Unit       string  `json:"unit"` // partitions, bytes, segments
	ETASeconds float64 `json:"eta_seconds,omitempty"`
}

// Topic answers GET /api/v1/topics/{t}; in lists the partitions are there too.
type Topic struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"` // base64url, as Kafka prints it
	CreatedAt time.Time `json:"created_at"`
	Bytes     int64     `json:"bytes"`
	// Of the last cache sample, as are the three that follow.
	ResidentBytes  int64             `json:"resident_bytes"`
	DirtyBytes     int64             `json:"dirty_bytes"`
	WritebackBytes int64             `json:"writeback_bytes"`
	RefaultPages   int64             `json:"refault_pages"` // resident until lately
	Configs        map[string]string `json:"configs"`       // set on the topic, not defaults
	Partitions     []Partition       `json:"partitions"`
}

// Partition is one row of a topic. Offsets are record offsets below 2^53.
type Partition struct {
	Partition        int32            `json:"partition"`
	StartOffset      int64            `json:"start_offset"`
	EndOffset        int64            `json:"end_offset"`
	HighWatermark    int64            `json:"high_watermark"`
	LeaderEpoch      int32            `json:"leader_epoch"`
	Segments         int              `json:"segments"`
	Bytes            int64            `json:"bytes"`
	TierBytes        map[string]int64 `json:"tier_bytes"` // bytes by tier
	ResidentBytes    int64            `json:"resident_bytes"`
	DirtyBytes       int64            `json:"dirty_bytes"`
	WritebackBytes   int64            `json:"writeback_bytes"`
	RefaultPages     int64            `json:"refault_pages"`
	HotWindowBytes   int64            `json:"hot_window_bytes"`
	PinnedBytes      int64            `json:"pinned_bytes"`
	HotWindowSeconds float64          `json:"hot_window_seconds"`
	Readers          int              `json:"readers"`
	Error            string           `json:"error,omitempty"` // why it serves nothing, e.g. fenced
	BytesIn          int64            `json:"bytes_in_total"`  // since start
	BytesOut         int64            `json:"bytes_out_total"`
	RecordsIn        int64            `json:"records_in_total"`
}

// Segment is one .log file.
type Segment struct {
	BaseOffset      int64     `json:"base_offset"`
	NextOffset      int64     `json:"next_offset"`
	File            string    `json:"file"` // name relative to the tier's root
	Tier            string    `json:"tier"`
	State           string    `json:"state"` // active, sealed, migrating
	Bytes           int64     `json:"bytes"`
	ResidentBytes   int64     `json:"resident_bytes"`
	DirtyBytes      int64     `json:"dirty_bytes"`
	MaxTimestamp    time.Time `json:"max_timestamp,omitzero"`     // absent: not known without reading
	ReadersRealtime []string  `json:"readers_realtime,omitempty"` // reader ids positioned in it
	ReadersLagging  []string  `json:"readers_lagging,omitempty"`
}

// CacheQuery asks for the residency matrix. Topic "" is all topics, Partition -1 all partitions; Cells per row, 1..4096.
type CacheQuery struct {
	Topic     string
	Partition int32
	Cells     int
}

// Cache answers GET /api/v1/cache.
type Cache struct {
	SampledAt time.Time  `json:"sampled_at,omitzero"` // of the oldest row; absent: not all was looked at yet
	Method    string     `json:"method"`              // cachestat, mincore, none
	Rows      []CacheRow `json:"rows"`
}

// What a byte of CacheRow.Flags says about its cell.
const (
	CellDirty     = 1 // holds pages that are not on the device yet
	CellWriteback = 2 // holds pages that are being written
	CellRefault   = 4 // held pages until lately that the kernel has evicted
)

// CacheFigures are of one partition, from log start to end.
type CacheFigures struct {
	Topic          string `json:"topic"`
	Partition      int32  `json:"partition"`
	StartOffset    int64  `json:"start_offset"`
	EndOffset      int64  `json:"end_offset"`
	Bytes          int64  `json:"bytes"`
	CellBytes      int64  `json:"cell_bytes"`
	ResidentBytes  int64  `json:"resident_bytes"`
	DirtyBytes     int64  `json:"dirty_bytes"`
	WritebackBytes int64  `json:"writeback_bytes"`
	RefaultPages   int64  `json:"refault_pages"` // recently evicted (cachestat)
}

// CacheRow is the residency of one partition from log start to end, cut into cells of CellBytes.
type CacheRow struct {
	CacheFigures
	SampledAt time.Time     `json:"sampled_at,omitzero"` // of the oldest part; absent: not all was looked at yet
	Cells     []byte        `json:"cells"`               // base64 in JSON: one byte per cell, 0..255 = share resident
	Flags     []byte        `json:"flags"`               // base64 in JSON: one byte per cell, the sum of Cell… bits
	Tiers     []TierSpan    `json:"tiers"`
	Markers   []CacheMarker `json:"markers"`
	// Segments is filled when one partition was asked for, for tables.
	Segments []CacheSegment `json:"segments,omitempty"`
}

// CacheSegment is the residency of one segment.
type CacheSegment struct {
	File          string   `json:"file"`
	Tier          string   `json:"tier"`
	Bytes         int64    `json:"bytes"`
	ResidentBytes int64    `json:"resident_bytes"`
	Cells         []byte   `json:"cells"`
	Markers       []string `json:"markers,omitempty"` // reader ids in it
}

// TierSpan says that cells [First, Next) lie in Tier.
type TierSpan struct {
	First int    `json:"first"`
	Next  int    `json:"next"`
	Tier  string `json:"tier"`
}

// CacheMarker is a reader's place in a row.
type CacheMarker struct {
	Reader     string  `json:"reader"` // Reader.ID
	Name       string  `json:"name"`   // group or client, for people
	Cell       int     `json:"cell"`
	Class      string  `json:"class"`
	LagSeconds float64 `json:"lag_seconds"`
}

// Reader is one consumer's cursor in one partition.
type Reader struct {
	ID          string         `json:"id"`
	ClientID    string         `json:"client_id"`
	Group       string         `json:"group"`        // "" while unknown
	GroupSource string         `json:"group_source"` // how Group is known: assignment, commit, none (Fetch carries no group id)
	Peer        string         `json:"peer"`
	Topic       string         `json:"topic"`
	Partition   int32          `json:"partition"`
	Class       string         `json:"class"` // realtime, catching_up, lagging, stalled, stopped
	ClassReason string         `json:"class_reason"`
	ClassSince  time.Time      `json:"class_since"`
	FetchOffset int64          `json:"fetch_offset"`
	EndOffset   int64          `json:"end_offset"`
	LagRecords  int64          `json:"lag_records"`
	LagBytes    int64          `json:"lag_bytes"`
	LagSeconds  float64        `json:"lag_seconds"` // -1: not known
	ETASeconds  float64        `json:"eta_seconds"` // -1: not known or not catching up
	Tier        string         `json:"tier"`        // where the cursor is
	Lane        string         `json:"lane"`        // of the last read: hot, fill, bypass, defer
	IOMode      string         `json:"io_mode"`     // sendfile, buffered, direct, dontcache, dropbehind
	RateBytes   float64        `json:"rate_bytes_per_second"`
	Sources     SourceBytes    `json:"source_bytes_1m"`
	ColdBytes   int64          `json:"cold_bytes_total"`
	Throttle    ReaderThrottle `json:"throttle"`
	Retention   *ReaderRace    `json:"retention_race,omitempty"` // only while retention is about to overtake its flow in this topic
}

// Group is one consumer group and how far its committed offsets are behind. Sums are over its partitions; seconds are those of the worst
// that is known, -1 when it is behind and of none it is known.
type Group struct {
	Group        string           `json:"group"`
	Type         string           `json:"type"`  // classic, consumer (KIP-848)
	State        string           `json:"state"` // as Kafka names it
	ProtocolType string           `json:"protocol_type"`
	Members      int              `json:"members"`
	LagRecords   int64            `json:"lag_records"`
	LagBytes     int64            `json:"lag_bytes"`
	LagSeconds   float64          `json:"lag_seconds"`
	ETASeconds   float64          `json:"eta_seconds"` // -1: not known, or never at the present rate
	Partitions   []GroupPartition `json:"partitions"`
}

// GroupPartition is one partition of a group: one that it has an offset of, or a member for.
type GroupPartition struct {
	Topic           string  `json:"topic"`
	Partition       int32   `json:"partition"`
	CommittedOffset int64   `json:"committed_offset"` // -1: none
	EndOffset       int64   `json:"end_offset"`
	LagRecords      int64   `json:"lag_records"` // -1 without an offset
	LagBytes        int64   `json:"lag_bytes"`   // about, to the next index entry; -1 without an offset
	LagSeconds      float64 `json:"lag_seconds"` // since the next unread record was appended; 0: none; -1: not known
	ETASeconds      float64 `json:"eta_seconds"` // -1: not known, or never at the present rate
	ClientID        string  `json:"client_id"`   // of the member that reads it, "" for nobody
	Host            string  `json:"host"`
}

// ReaderRace is a group or client that reads a topic, against retention. Figures are those of the flow in the topic.
type ReaderRace struct {
	CountdownSeconds float64 `json:"countdown_seconds"` // until something that it has not read is deleted, at its present rate; -1: it keeps ahead
	LossBytes        int64   `json:"loss_bytes"`        // at its present rate
	LostAnywayBytes  int64   `json:"lost_anyway_bytes"` // with all that it can get
	NeededBytes      int64   `json:"needed_bytes_per_second"`
	Weight           float64 `json:"weight"` // now, boost included
	Text             string  `json:"text"`
}

// SourceBytes says where the bytes of the last minute came from.
type SourceBytes struct {
	PageCache int64            `json:"page_cache"`
	Tiers     map[string]int64 `json:"tiers"`  // device reads by tier
	Refill    int64            `json:"refill"` // of these, what it read in real time: misses, in the page cache since
}

// ReaderThrottle says what holds a reader back.
type ReaderThrottle struct {
	LimitedBy        string  `json:"limited_by"` // "", tier:hdd, group:x, topic:x, client:x, total
	LimitBytes       int64   `json:"limit_bytes_per_second"`
	WaitRatio        float64 `json:"wait_ratio_1m"`
	NextGrantSeconds float64 `json:"next_grant_seconds"`
	Override         string  `json:"override"` // "" or kind/name
}

// Tier answers GET /api/v1/tiers/{name}.
type Tier struct {
	Name            string     `json:"name"`
	Path            string     `json:"path"`
	UUID            string     `json:"uuid"`
	Class           string     `json:"class"`                       // ssd, hdd
	ClassFrom       string     `json:"class_from"`                  // configured, measured, rotational flag
	SeekSeconds     float64    `json:"seek_seconds"`                // measured: median of random 4 KiB reads; 0: not measured
	SequentialBytes int64      `json:"sequential_bytes_per_second"` // measured; 0: not measured
	State           string     `json:"state"`                       // ok, fenced, missing, full
	Error           string     `json:"error,omitempty"`
	CapacityBytes   int64      `json:"capacity_bytes"`
	FreeBytes       int64      `json:"free_bytes"`
	UsedBytes       int64      `json:"used_bytes"` // by Lagoon's files
	MaxUsedBytes    int64      `json:"max_used_bytes"`
	HighWatermark   float64    `json:"high_watermark_ratio"`
	LowWatermark    float64    `json:"low_watermark_ratio"`
	KeepSeconds     float64    `json:"keep_seconds"` // 0: no age rule
	Segments        int        `json:"segments"`
	ResidentBytes   int64      `json:"resident_bytes"`
	ReadMode        string     `json:"read_mode"` // bypass method in use
	LimitBytes      int64      `json:"limit_bytes_per_second"`
	ReadBytesTotal  int64      `json:"read_bytes_total"`  // cold reads from the device
	WriteBytesTotal int64      `json:"write_bytes_total"` // by migrations and compactions; appends are not counted
	QueuedReads     int        `json:"queued_reads"`
	NextToMove      []MoveHint `json:"next_to_move"`
}

// MayUseBytes is what Lagoon's files may come to in the tier, of which watermarks are shares: up to max_used, less what others have taken.
func (t Tier) MayUseBytes() int64 {
	all := t.UsedBytes + t.FreeBytes
	if t.MaxUsedBytes > 0 {
		all = min(all, t.MaxUsedBytes)
	}
	return all
}

// MoveHint is a segment that the planner would move next.
type MoveHint struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Base      int64  `json:"base_offset"`
	Bytes     int64  `json:"bytes"`
	To        string `json:"to"`
	Reason    string `json:"reason"`
}

// Throttle answers GET /api/v1/throttle.
type Throttle struct {
	Mode           string     `json:"mode"`                           // adaptive, fixed, off
	TotalBytes     int64      `json:"catchup_total_bytes_per_second"` // in force: a dynamic broker config beats the file
	PerReaderBytes int64      `json:"per_reader_max_bytes_per_second"`
	Devices        []Device   `json:"devices"`
	Flows          []Flow     `json:"flows"`
	Caps           []Cap      `json:"caps"` // lasting: configs of groups and topics
	Overrides      []Override `json:"overrides"`
}

// Device is one tier's cold budget.
type Device struct {
	Tier         string  `json:"tier"`
	LimitBytes   int64   `json:"limit_bytes_per_second"` // 0: unlimited
	TokensBytes  int64   `json:"tokens_bytes"`
	GrantedBytes int64   `json:"granted_bytes_total"`
	InFlight     int     `json:"in_flight"`
	Queued       int     `json:"queued"`
	UsedBytes    float64 `json:"used_bytes_per_second"`
	// State, Reason and Signals are empty unless the budget is adaptive.
	State   string   `json:"state,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Signals []Signal `json:"signals,omitempty"`
}

// Signal is one kind of harm that an adaptive budget watches for.
type Signal struct {
	Signal      string   `json:"signal"` // produce, sync, fetch, device, sched, cpu, miss, evicted
	Unit        string   `json:"unit"`   // seconds, ratio, per_second
	Undisturbed *float64 `json:"undisturbed"`
	Limit       *float64 `json:"limit"` // what it may reach; null, as undisturbed, while it is not known
	Measured    float64  `json:"measured"`
	Cuts        int64    `json:"cuts_total"` // of the budget, for this signal
}

// Flow is one fairness unit (group or client) that has read cold bytes lately.
type Flow struct {
	Name         string  `json:"name"`
	Weight       float64 `json:"weight"`
	GrantedBytes int64   `json:"granted_bytes_total"`
	RateBytes    float64 `json:"rate_bytes_per_second"`
	WaitSeconds  float64 `json:"wait_seconds_total"`
	// WaitBy is WaitSeconds by what held the requests back last: reader, topic, override, global, tier.
	WaitBy    map[string]float64 `json:"wait_seconds_by_limit"`
	Queued    int                `json:"queued"`
	LimitedBy string             `json:"limited_by"`
}

// Cap is what the configs of a group or topic set, as with kafka-configs. An override goes first.
type Cap struct {
	Kind           OverrideKind `json:"kind"`
	Name           string       `json:"name"`
	BytesPerSecond int64        `json:"bytes_per_second"` // 0: no cap
	Weight         float64      `json:"weight,omitempty"` // 0: the default weight of 1
}

// OverrideKind says what an override is about.
type OverrideKind string

// The kinds of override.
const (
	OverrideGroup  OverrideKind = "group"
	OverrideClient OverrideKind = "client"
	OverrideTopic  OverrideKind = "topic"
)

// Override is an operator's exception. BytesPerSecond 0 means no cap of its own, Weight 0 means the default 1; at least
// one of them is set. A zero Expires never expires.
type Override struct {
	Kind           OverrideKind `json:"kind"`
	Name           string       `json:"name"`
	BytesPerSecond int64        `json:"bytes_per_second"`
	Weight         float64      `json:"weight,omitempty"`
	Expires        time.Time    `json:"expires,omitzero"`
	Reason         string       `json:"reason,omitempty"`
	SetAt          time.Time    `json:"set_at,omitzero"`
}

// Migrations answers GET /api/v1/migrations.
type Migrations struct {
	State        string      `json:"state"` // running, idle, paused
	PausedReason string      `json:"paused_reason,omitempty"`
	LimitBytes   int64       `json:"limit_bytes_per_second"`
	BacklogBytes int64       `json:"backlog_bytes"`
	MovedBytes   int64       `json:"moved_bytes_total"` // since start
	Moved        int64       `json:"moved_segments_total"`
	Failed       int64       `json:"failed_total"`
	Waiting      int         `json:"waiting"` // not started, of which Migrations may hold the first
	PutOff       int         `json:"put_off"` // due, but a reader is about to read them, or pinned where there is no room; Migrations may hold the first
	PutOffBytes  int64       `json:"put_off_bytes"`
	Migrations   []Migration `json:"migrations"`
}

// MigrationOrder is the body of POST /api/v1/migrations: one sealed segment is to go to a colder tier.
type MigrationOrder struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	BaseOffset int64  `json:"base_offset"`
	To         string `json:"to"` // tier
	Reason     string `json:"reason"`
}

// MigrationPause answers PUT and DELETE of /api/v1/migrations/pause.
type MigrationPause struct {
	Paused bool   `json:"paused"`
	Reason string `json:"reason"`
}

// Pin is a partition whose sealed segments an operator wants in one log directory, and how far that is.
type Pin struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Dir       string `json:"dir"` // log directory: its tier, and a number from the tier's second one on
	Tier      string `json:"tier,omitempty"`
	Path      string `json:"path,omitempty"`
	State     string `json:"state"`            // in_place, moving, waiting, missing (no log directory has that name)
	Segments  int    `json:"segments_to_move"` // sealed ones that lie elsewhere
	Bytes     int64  `json:"bytes_to_move"`    // of those
	Reason    string `json:"reason,omitempty"` // of waiting
}

// Unpinned answers DELETE of a pin.
type Unpinned struct {
	Pin Pin `json:"pin"` // that was taken off
	// PolicyBytes is where the policy puts the sealed segments as they are now, in bytes by tier.
	PolicyBytes map[string]int64 `json:"policy_bytes"`
}

// Migration is one segment's way to another tier.
type Migration struct {
	ID         string    `json:"id"`
	Topic      string    `json:"topic"`
	Partition  int32     `json:"partition"`
	BaseOffset int64     `json:"base_offset"`
	From       string    `json:"from"`
	To         string    `json:"to"`
	State      string    `json:"state"` // queued, put_off, prepare, copy, verify, commit, publish, backoff, done, failed, cancelled
	Reason     string    `json:"reason"`
	Bytes      int64     `json:"bytes"`
	DoneBytes  int64     `json:"done_bytes"`
	ETASeconds float64   `json:"eta_seconds"` // -1: not known
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Error      string    `json:"error,omitempty"`
}

// Compactions answers GET /api/v1/compactions.
type Compactions struct {
	State      string       `json:"state"` // running, idle
	Due        int          `json:"due"`
	Partitions []Compaction `json:"partitions"`
}

// Compaction is where one partition of a compacted topic stands, and how its last compaction ended.
type Compaction struct {
	Topic          string  `json:"topic"`
	Partition      int32   `json:"partition"`
	State          string  `json:"state"`           // keys, rewrite (under way), due, waiting, failed
	Reason         string  `json:"reason"`          // why it is due, or not
	CleanedTo      int64   `json:"cleaned_to"`      // everything below is compacted
	CleanableTo    int64   `json:"cleanable_to"`    // what lies above must not be compacted yet
	CleanBytes     int64   `json:"clean_bytes"`     // below cleaned_to
	DirtyBytes     int64   `json:"dirty_bytes"`     // between the two
	DirtyRatio     float64 `json:"dirty_ratio"`     // dirty / (clean + dirty)
	OverdueSeconds float64 `json:"overdue_seconds"` // by how much max.compaction.lag.ms is exceeded
	// Of the run under way.
	StartedAt  time.Time `json:"started_at,omitzero"`
	DoneBytes  int64     `json:"done_bytes"`
	TotalBytes int64     `json:"total_bytes"`
	// Of the last one.
	FinishedAt        time.Time `json:"finished_at,omitzero"`
	ElapsedSeconds    float64   `json:"elapsed_seconds"`
	ReadBytes         int64     `json:"read_bytes"`
	KeptBytes         int64     `json:"kept_bytes"`
	ReadRecords       int64     `json:"read_records"`
	KeptRecords       int64     `json:"kept_records"`
	RecordsWithoutKey int64     `json:"records_without_key"` // dropped: a compacted topic cannot hold them
	UnreadableBatches int64     `json:"unreadable_batches"`  // kept as they are
	Error             string    `json:"error,omitempty"`
}

// ExplainQuery asks how one read would be served. Empty Client and Group mean a reader that nobody knows.
type ExplainQuery struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	MaxBytes  int64  `json:"max_bytes"` // 0: 1 MiB
	Client    string `json:"client"`
	Group     string `json:"group"`
}

// Explanation answers POST /api/v1/explain/fetch: the decision chain in order, then its outcome.
type Explanation struct {
	Now     time.Time     `json:"now"`
	Query   ExplainQuery  `json:"query"`
	Steps   []ExplainStep `json:"steps"`
	Lane    string        `json:"lane"` // hot, fill, bypass, defer; "" when nothing can be read
	Reason  string        `json:"reason"`
	IOMode  string        `json:"io_mode"`
	Bytes   int64         `json:"bytes"`
	Expect  string        `json:"expect"` // expected cost in words
	WaitSec float64       `json:"wait_seconds"`
}

// ExplainStep is one link: position → segment → tier → residency → class → lane → method → budget → cost. Text is for people; Facts hold
// what it was derived from (numbers, thresholds), with units in the key.
type ExplainStep struct {
	Step  string         `json:"step"`
	Text  string         `json:"text"`
	Facts map[string]any `json:"facts,omitempty"`
}

// CacheAction is a range to evict or warm. Offsets are half-open; To -1 is the log end, From -1 the log start. LastSeconds, when
// not 0, replaces From: the records of the last so many seconds.
type CacheAction struct {
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	From        int64   `json:"from"`
	To          int64   `json:"to"`
	LastSeconds float64 `json:"last_seconds,omitempty"`
	DryRun      bool    `json:"dry_run"`
	Reason      string  `json:"reason"`
}

// CacheActionResult tells what was, or would be, done.
type CacheActionResult struct {
	Applied        bool     `json:"applied"`
	WouldChange    []string `json:"would_change"` // one line per segment range, when Applied is false
	Segments       int      `json:"segments"`
	Bytes          int64    `json:"bytes"` // size of the range
	ResidentBefore int64    `json:"resident_before_bytes"`
	ResidentAfter  int64    `json:"resident_after_bytes"` // equal to before in a dry run
	KeptHot        int64    `json:"kept_hot_bytes"`       // left alone because a real-time reader needs them
	DirtyBytes     int64    `json:"dirty_bytes"`          // could not be dropped: not yet written back
	Note           string   `json:"note,omitempty"`
}

// Config answers GET /api/v1/config.
type Config struct {
	File           string         `json:"file"`
	Digest         string         `json:"digest"`
	Values         []ConfigValue  `json:"values"`
	PendingRestart []ConfigChange `json:"pending_restart"` // since the last reload
}

// ConfigReload answers POST /api/v1/config/reload.
type ConfigReload struct {
	Applied        bool           `json:"applied"` // false in a dry run
	Digest         string         `json:"digest"`  // of the effective values, with the changes
	Changed        []ConfigChange `json:"changed"`
	PendingRestart []ConfigChange `json:"pending_restart"` // differ, but are read when the broker starts
}

// ConfigChange is a key and its new value, as TOML. "" is no value.
type ConfigChange struct {
	Key    string `json:"key"`
	From   string `json:"from"`
	To     string `json:"to"`
	Source string `json:"source"` // default, lagoon.toml:12, env LAGOON_…, --set
}

// ConfigValue is one effective setting.
type ConfigValue struct {
	Key          string `json:"key"`
	Value        string `json:"value"`
	Default      string `json:"default"`
	Source       string `json:"source"`        // default, lagoon.toml:12, env LAGOON_…, --set
	NeedsRestart bool   `json:"needs_restart"` // to change it
}

// LogLevel answers GET and PUT of /api/v1/log-level.
type LogLevel struct {
	Level      string    `json:"level"`            // in force: debug, info, warn, error
	Configured string    `json:"configured"`       // holds from the next start on, or from until
	Until      time.Time `json:"until,omitzero"`   // absent: as configured, or set until the next start
	Reason     string    `json:"reason,omitempty"` // of whoever has set it
}

// LogLevelOrder is what an operator wants of the log. TTL 0 is until the next start. Peer and RequestID say who asked, for the line that
// the change leaves in a log which may not show the audit line any more.
type LogLevelOrder struct {
	Level     string
	TTL       time.Duration
	Reason    string
	Peer      string
	RequestID string
}
