package conf

// Config is the whole configuration. Load fills it; nothing changes it afterwards.
type Config struct {
	Server       Server       `toml:"server"`
	Groups       Groups       `toml:"groups"`
	Transactions Transactions `toml:"transactions"`
	Storage      Storage      `toml:"storage"`
	Readers      Readers      `toml:"readers"`
	Throttle     Throttle     `toml:"throttle"`
	Cache        Cache        `toml:"cache"`
	Tiering      Tiering      `toml:"tiering"`
	Admin        Admin        `toml:"admin"`
	// Topics are server-wide defaults of topic settings by Kafka's topic names, beside those that [storage] names. Their names and
	// values are checked by whoever knows Kafka's topic settings: see cmd/lagoon.
	Topics  map[string]string `toml:"topic_defaults"`
	Metrics Metrics           `toml:"metrics"`
	Log     Log               `toml:"log"`

	// File is the path the file layer came from, "" when there was none.
	File string `toml:"-"`
	// Warnings are the problems that do not stop a start.
	Warnings Problems `toml:"-"`

	origins  map[string]Origin
	defaults map[string]string
}

// Server is what Kafka clients see.
type Server struct {
	NodeID            int32    `toml:"node_id" kafka:"node.id broker.id"`
	Listen            []string `toml:"listen" kafka:"listeners"`
	Advertised        string   `toml:"advertised" kafka:"advertised.listeners advertised.host.name"`
	Rack              string   `toml:"rack" kafka:"broker.rack"`
	AutoCreateTopics  bool     `toml:"auto_create_topics" kafka:"auto.create.topics.enable"`
	DefaultPartitions int32    `toml:"default_partitions" kafka:"num.partitions"`
	Limits            Limits   `toml:"limits"`
}

// Limits bound what clients can make the broker hold.
type Limits struct {
	Connections      int64    `toml:"connections" kafka:"max.connections"`
	ConnectionsPerIP int64    `toml:"connections_per_ip" kafka:"max.connections.per.ip"`
	RequestBytes     Bytes    `toml:"request_bytes" kafka:"socket.request.max.bytes"`
	InflightBytes    Bytes    `toml:"inflight_bytes" kafka:"queued.max.request.bytes"`
	IdleTimeout      Duration `toml:"idle_timeout" kafka:"connections.max.idle.ms"`
}

// Groups is the policy of consumer groups and their offsets.
type Groups struct {
	OffsetsPartitions     int32    `toml:"offsets_partitions" kafka:"offsets.topic.num.partitions"`
	OffsetsRetention      Duration `toml:"offsets_retention" kafka:"offsets.retention.minutes"`
	OffsetMetadata        Bytes    `toml:"offset_metadata" kafka:"offset.metadata.max.bytes"`
	InitialRebalanceDelay Duration `toml:"initial_rebalance_delay" kafka:"group.initial.rebalance.delay.ms"`
	MinSessionTimeout     Duration `toml:"min_session_timeout" kafka:"group.min.session.timeout.ms"`
	MaxSessionTimeout     Duration `toml:"max_session_timeout" kafka:"group.max.session.timeout.ms"`
	MaxSize               int32    `toml:"max_size" kafka:"group.max.size group.consumer.max.size"`
	ConsumerSession       Duration `toml:"consumer_session_timeout" kafka:"group.consumer.session.timeout.ms"`
	ConsumerHeartbeat     Duration `toml:"consumer_heartbeat_interval" kafka:"group.consumer.heartbeat.interval.ms"`
	Memory                Bytes    `toml:"memory"`
}

// Transactions is the policy of transactional producers.
type Transactions struct {
	StatePartitions int32    `toml:"state_partitions" kafka:"transaction.state.log.num.partitions"`
	MaxTimeout      Duration `toml:"max_timeout" kafka:"transaction.max.timeout.ms"`
	IDRetention     Duration `toml:"id_retention" kafka:"transactional.id.expiration.ms"`
}

// Storage is the log: server-wide defaults of topic settings, and the tiers.
type Storage struct {
	Flush         string   `toml:"flush" kafka:"log.flush.interval.messages"`
	FlushInterval Duration `toml:"flush_interval" kafka:"log.flush.interval.ms flush.ms log.flush.scheduler.interval.ms"`
	// CommitJournal has synced acks wait for one sequential write in place of a sync of each partition's file.
	CommitJournal      bool     `toml:"commit_journal"`
	CommitJournalBytes Bytes    `toml:"commit_journal_bytes"`
	SegmentBytes       Bytes    `toml:"segment_bytes" kafka:"log.segment.bytes segment.bytes"`
	SegmentAge         Duration `toml:"segment_age" kafka:"log.roll.ms log.roll.hours segment.ms"`
	Retention          Duration `toml:"retention" unlimited:"yes" kafka:"log.retention.ms log.retention.minutes log.retention.hours retention.ms"`
	RetentionBytes     Bytes    `toml:"retention_bytes" unlimited:"yes" kafka:"log.retention.bytes retention.bytes"`
	IndexInterval      Bytes    `toml:"index_interval" kafka:"log.index.interval.bytes index.interval.bytes"`
	MaxMessageBytes    Bytes    `toml:"max_message_bytes" kafka:"message.max.bytes max.message.bytes"`
	FileDeleteDelay    Duration `toml:"file_delete_delay" kafka:"log.segment.delete.delay.ms file.delete.delay.ms"`
	Tiers              []Tier   `toml:"tier" kafka:"log.dirs log.dir"`
}

// Tier is one place for segments; the list goes from hot to cold.
type Tier struct {
	Name          string   `toml:"name"`
	Path          string   `toml:"path" kafka:"log.dirs log.dir"`
	Paths         []string `toml:"paths"` // instead of Path: several directories, of disks of their own
	Class         string   `toml:"class"`
	MaxUsed       Percent  `toml:"max_used"`
	HighWatermark Percent  `toml:"high_watermark"`
	LowWatermark  Percent  `toml:"low_watermark"`
	Keep          Duration `toml:"keep" unlimited:"yes" kafka:"log.local.retention.ms local.retention.ms"`
}

// Directories are the directories of all tiers, hot to cold: each is its tier with Path naming it and without Paths.
func (c *Config) Directories() []Tier {
	var out []Tier
	for _, t := range c.Storage.Tiers {
		paths := t.Paths
		if len(paths) == 0 {
			paths = []string{t.Path}
		}
		t.Paths = nil
		for _, p := range paths {
			t.Path = p
			out = append(out, t)
		}
	}
	return out
}

// Readers says when a reader is lagging and how it is served.
type Readers struct {
	LaggingWhen LaggingWhen `toml:"lagging_when"`
	ReadMode    string      `toml:"read_mode"`
	ChunkBytes  Bytes       `toml:"chunk_bytes"`
	ChunkMemory Bytes       `toml:"chunk_memory"`
}

// LaggingWhen: both distances must be exceeded.
type LaggingWhen struct {
	MinBytes Bytes    `toml:"min_bytes"`
	MinAge   Duration `toml:"min_age"`
}

// Throttle is the budget of cold reads.
type Throttle struct {
	Mode         string    `toml:"mode"`
	ProtectP99   Duration  `toml:"protect_tail_p99"`
	Floor        Rate      `toml:"floor"`
	CatchupTotal Rate      `toml:"catchup_total" unlimited:"yes" kafka:"remote.log.manager.fetch.max.bytes.per.second"`
	PerReader    PerReader `toml:"per_reader"`
	// RetentionRace gives readers that retention is about to overtake more weight.
	RetentionRace bool `toml:"retention_race"`
	// SyncGate has the cold reads and the syncs of a rotating disk take turns.
	SyncGate bool            `toml:"sync_gate"`
	Tier     map[string]Rate `toml:"tier" unlimited:"yes"`
}

// PerReader bounds one group or client.
type PerReader struct {
	Max Rate `toml:"max" unlimited:"yes"`
}

// Cache is about what stays in the page cache, and about watching it.
type Cache struct {
	HotWindowMemory Percent  `toml:"hot_window_memory"`
	HotWindowKeep   Duration `toml:"hot_window_keep"`
	DropBehind      string   `toml:"drop_behind"`
	SampleInterval  Duration `toml:"sample_interval"`
	WarmTailOnStart Bytes    `toml:"warm_tail_on_start"`
}

// Tiering paces moves between tiers.
type Tiering struct {
	MoveMax Rate `toml:"move_max" unlimited:"yes" kafka:"remote.log.manager.copy.max.bytes.per.second"`
	// DemandHorizon 0 lets readers put off nothing.
	DemandHorizon Duration `toml:"demand_horizon"`
	Interval      Duration `toml:"interval" kafka:"remote.log.manager.task.interval.ms log.retention.check.interval.ms"`
}

// Admin is the HTTP API for operators.
type Admin struct {
	Listen    string   `toml:"listen"`
	Socket    string   `toml:"socket"`
	TokenFile string   `toml:"token_file"`
	Hosts     []string `toml:"hosts"`
}

// Metrics chooses foreign metric names to serve beside Lagoon's own.
type Metrics struct {
	Compat []string `toml:"compat"`
}

// Log is the daemon's own log.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// tierDefaults are the values of a [[storage.tier]] key that its table leaves out.
func tierDefaults() Tier {
	return Tier{Paths: []string{}, Class: "auto", MaxUsed: 0.95, HighWatermark: 0.90, LowWatermark: 0.80, Keep: Unlimited}
}
