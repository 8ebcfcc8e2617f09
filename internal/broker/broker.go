package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"lagoon/internal/broker/wire"
	"lagoon/internal/groups"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/transactions"
	"lagoon/segment"
)

// Endpoint is one listener as clients know it. Serve connects it with a net.Listener by Name.
type Endpoint struct {
	Name string // unique, for logs and metrics, such as "plain"
	// Host and Port are what Metadata answers to clients that came in here. An empty Host means the local address of the
	// client's own connection, port 0 the listener's port: right for one machine, wrong behind a NAT.
	Host string
	Port int32
}

// ServerConfig is one server setting as DescribeConfigs(BROKER) shows it.
type ServerConfig struct {
	Name      string // Kafka's name where there is one
	Value     string
	Default   bool // false: set in the configuration file or at the command line
	Sensitive bool // the value is withheld
	Type      int8 // Kafka's ConfigType: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password
	Doc       string
}

// Options configure a Broker. Zero values stand for the defaults named at each field.
type Options struct {
	NodeID    int32
	Rack      string // "" is answered as null
	Endpoints []Endpoint

	Store    *partition.Store // required
	Metadata *metadata.Store  // required
	Logger   *slog.Logger     // required
	// Registerer takes the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer
	// MetricsJMX also exports the per-topic counters under the names that JMX exporter dashboards know.
	MetricsJMX bool

	MaxRequestBytes     int32         // one frame; default 100 MiB (socket.request.max.bytes), 1 KiB to 1 GiB
	MaxInFlightBytes    int64         // request frames in memory, all connections together; default 256 MiB
	MaxConnections      int           // default 10,000
	MaxConnectionsPerIP int           // default 1,000
	IdleTimeout         time.Duration // a connection without a request; default 10 min (connections.max.idle.ms)
	RequestTimeout      time.Duration // grace for one frame to arrive, then 16 KiB/s at least; default 30 s
	WriteTimeout        time.Duration // a response that makes no progress; default 30 s

	MaxFetchBytes int32 // one Fetch response; default 55 MiB (fetch.max.bytes)
	FetchSessions int   // default 1,000 (max.incremental.fetch.session.cache.slots); -1 for none

	// WholeFetches has a fetch wait for those of its partitions whose bytes are on their way from a device, as if it could not be
	// split. It is there to measure what splitting is for.
	WholeFetches bool

	AutoCreateTopics  bool
	DefaultPartitions int32 // of created topics that do not say; default 1
	// Groups is the policy of consumer groups; the fields that connect it are the broker's to fill. OffsetsPartitions is how many
	// partitions the internal topic gets when it is made; default 50 (offsets.topic.num.partitions).
	Groups            groups.Options
	OffsetsPartitions int32
	// Transactions is the policy of transactions; the fields that connect it are the broker's to fill. TransactionsPartitions is how many
	// partitions the internal topic gets when it is made; default 50 (transaction.state.log.num.partitions).
	Transactions           transactions.Options
	TransactionsPartitions int32
	// TopicDefaults are the server's defaults of topic configuration, by Kafka's topic names ("retention.ms").
	TopicDefaults map[string]string
	// ServerConfigs lists what DescribeConfigs(BROKER) answers; nil for nothing.
	ServerConfigs func() []ServerConfig
}

func (o Options) withDefaults() Options {
	setDefault(&o.MaxRequestBytes, 100<<20)
	setDefault(&o.MaxInFlightBytes, 256<<20)
	setDefault(&o.MaxConnections, 10_000)
	setDefault(&o.MaxConnectionsPerIP, 1_000)
	setDefault(&o.IdleTimeout, 10*time.Minute)
	setDefault(&o.RequestTimeout, 30*time.Second)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.MaxFetchBytes, 55<<20)
	setDefault(&o.FetchSessions, 1_000)
	setDefault(&o.DefaultPartitions, 1)
	setDefault(&o.OffsetsPartitions, 50)
	setDefault(&o.TransactionsPartitions, 50)
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate names every fault at once.
func (o Options) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("broker options: "+format, args...))
		}
	}
	need(o.Store != nil, "Store is required")
	need(o.Metadata != nil, "Metadata is required")
	need(o.Logger != nil, "Logger is required")
	need(o.NodeID >= 0, "NodeID %d is negative", o.NodeID)
	need(o.MaxRequestBytes >= 1<<10 && o.MaxRequestBytes <= 1<<30, "MaxRequestBytes %d is not between 1 KiB and 1 GiB", o.MaxRequestBytes)
	need(o.MaxInFlightBytes >= 1<<20, "MaxInFlightBytes %d is below 1 MiB", o.MaxInFlightBytes)
	need(o.MaxConnections > 0, "MaxConnections %d is not positive", o.MaxConnections)
	need(o.MaxConnectionsPerIP > 0, "MaxConnectionsPerIP %d is not positive", o.MaxConnectionsPerIP)
	need(o.IdleTimeout > 0 && o.RequestTimeout > 0 && o.WriteTimeout > 0, "timeouts must be positive")
	need(o.MaxFetchBytes >= 1<<10 && o.MaxFetchBytes <= 1<<30, "MaxFetchBytes %d is not between 1 KiB and 1 GiB", o.MaxFetchBytes)
	need(o.FetchSessions >= -1, "FetchSessions %d is below -1", o.FetchSessions)
	need(o.DefaultPartitions > 0, "DefaultPartitions %d is not positive", o.DefaultPartitions)
	need(o.OffsetsPartitions > 0, "OffsetsPartitions %d is not positive", o.OffsetsPartitions)
	need(o.TransactionsPartitions > 0, "TransactionsPartitions %d is not positive", o.TransactionsPartitions)
	seen := map[string]bool{}
	for _, e := range o.Endpoints {
		need(e.Name != "" && !seen[e.Name], "endpoint name %q is empty or used twice", e.Name)
		need(e.Port >= 0 && e.Port <= 65535, "endpoint %s: port %d is not between 0 and 65535", e.Name, e.Port)
		seen[e.Name] = true
	}
	return errors.Join(faults...)
}

// Broker answers the Kafka protocol. Methods are safe for concurrent use.
type Broker struct {
	opt      Options
	log      *slog.Logger
	logs     logs
	meta     *metadata.Store
	apis     []api // sorted by key
	metrics  *metrics
	budget   *budget
	sessions *sessionCache
	ids      producerIDs
	groups   *groups.Coordinator
	limits   *limiter
	started  time.Time
	txns     *transactions.Coordinator
	defaults atomic.Pointer[map[string]string] // Options.TopicDefaults, or what SetTopicDefaults has put in their place

	maxAnswer int   // maxAnswerBytes, but in tests
	maxQueued int64 // maxAllQueuedBytes, but in tests
	queued    atomic.Int64

	// noise bounds the log lines that hostile or broken clients can cause.
	noise *rate.Limiter

	purgeMu sync.Mutex
	purges  map[metadata.ID]*purging // deleted topics of which something is left

	nextConn atomic.Uint64
	mu       sync.Mutex
	conns    map[*conn]struct{}
	perIP    map[string]int
	closers  map[*acceptor]struct{}
	draining bool
	drained  chan struct{} // closed when draining and the last connection is gone
}

// New makes a broker that serves nothing yet.
func New(opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	return newBroker(opt, storeLogs{opt.Store})
}

func newBroker(opt Options, l logs) (*Broker, error) {
	m, err := newMetrics(opt.Registerer, opt.MetricsJMX)
	if err != nil {
		return nil, fmt.Errorf("broker metrics: %w", err)
	}
	b := &Broker{
		opt:       opt,
		log:       opt.Logger,
		logs:      l,
		meta:      opt.Metadata,
		apis:      apiTable(),
		metrics:   m,
		budget:    newBudget(opt.MaxInFlightBytes),
		noise:     rate.NewLimiter(10, 50),
		maxAnswer: maxAnswerBytes,
		maxQueued: maxAllQueuedBytes,
		purges:    map[metadata.ID]*purging{},
		conns:     map[*conn]struct{}{},
		perIP:     map[string]int{},
		closers:   map[*acceptor]struct{}{},
		drained:   make(chan struct{}),
	}
	b.started = time.Now()
	b.defaults.Store(&opt.TopicDefaults)
	b.limits = newLimiter(b.meta.Snapshot().Quotas, m)
	b.sessions = newSessionCache(opt.FetchSessions, m)
	if b.groups, err = b.newGroups(); err != nil {
		return nil, err
	}
	if b.txns, err = b.newTransactions(); err != nil {
		return nil, err
	}
	if t, ok := b.meta.Snapshot().Topic(groups.Topic); ok {
		b.groups.Start(t.Partitions)
	}
	if t, ok := b.meta.Snapshot().Topic(transactions.Topic); ok {
		b.txns.Start(t.Partitions)
	}
	for i := range b.apis {
		b.apis[i].metrics = m.api(b.apis[i].name)
	}
	if err := m.watch(b); err != nil {
		return nil, fmt.Errorf("broker metrics: %w", err)
	}
	return b, nil
}

// offset is short for what half of the signatures here name.
type offset = segment.Offset

// partitionLog is what the handlers need of one partition; a storeLog is the real one.
type partitionLog interface {
	ID() [16]byte // of the topic
	Err() error   // why it is offline, or nil
	Append(ctx context.Context, r partition.AppendRequest) (partition.Appended, error)
	Durable(ctx context.Context, next offset) error
	Synced(ctx context.Context, next offset) error
	Producers() []segment.ProducerView
	txnLog
	Read(r partition.ReadRequest) (readResult, error)
	Offsets() partition.Offsets
	OffsetForTime(ctx context.Context, ms int64) (partition.TimestampOffset, error)
	MaxTimestamp(ctx context.Context) (partition.TimestampOffset, error)
	TieredOffsets() (latestTiered, earliestPending offset)
	EndOffsetForEpoch(epoch int32) (int32, offset)
}

// readResult is a partition.ReadResult whose records may be any payload, for tests without a disk.
type readResult struct {
	Offsets partition.Offsets
	Records wire.Payload // nil: nothing now
	Pending bool
	More    bool // as Live: see partition.ReadResult
	Live    bool
	Aborted []partition.AbortedTxn
}

// logs finds partitions; the real one is a partition.Store.
type logs interface {
	log(topic string, partition int32) (partitionLog, bool)
	// disconnected tells that a connection has ended and nobody reads for it any more.
	disconnected(conn uint64)
}

type storeLogs struct{ store *partition.Store }

func (s storeLogs) log(topic string, partition int32) (partitionLog, bool) {
	l, ok := s.store.Log(topic, partition)
	return storeLog{l}, ok
}

func (s storeLogs) disconnected(conn uint64) { s.store.Disconnected(conn) }

type storeLog struct{ *partition.Log }

func (l storeLog) Read(r partition.ReadRequest) (readResult, error) {
	res, err := l.Log.Read(r)
	out := readResult{Offsets: res.Offsets, Pending: res.Pending, More: res.More, Live: res.Live, Aborted: res.Aborted}
	if res.Chunk != nil {
		out.Records = res.Chunk
	}
	return out, err
}
