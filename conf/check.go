package conf

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker collects contradictions; every one is reported, none stops the others.
type checker struct {
	c        *Config
	problems *Problems
}

func check(c *Config, problems *Problems) {
	k := &checker{c, problems}
	k.server()
	k.limits()
	k.groups()
	k.transactions()
	k.storage()
	k.tiers()
	k.readers()
	k.throttle()
	k.rest()
	k.admin()
	k.topics()
}

// inStorage are the topic settings that [storage] has a key for: one way to say a thing.
var inStorage = map[string]string{
	"segment.bytes": "segment_bytes", "segment.ms": "segment_age", "retention.ms": "retention", "retention.bytes": "retention_bytes",
	"index.interval.bytes": "index_interval", "max.message.bytes": "max_message_bytes", "file.delete.delay.ms": "file_delete_delay",
	"lagoon.flush": "flush", "lagoon.flush.interval.ms": "flush_interval",
}

func (k *checker) topics() {
	for _, name := range slices.Sorted(maps.Keys(k.c.Topics)) {
		if key, ok := inStorage[name]; ok {
			k.fail(codeUnknownKey, "topic_defaults."+name, "is storage.%s here: set that", key)
		}
	}
}

func (k *checker) add(severity Severity, code, key, format string, args ...any) {
	o := k.c.origins[key]
	if o.Where == "" { // the key was left out: show its table
		o = k.c.origins[key[:strings.LastIndexByte(key, '.')]]
	}
	p := Problem{
		Code: code, Severity: severity, Where: o.Where, Key: key, Text: fmt.Sprintf(format, args...),
		line: o.line, col: o.col, layer: o.Layer,
	}
	if o.line > 0 {
		p.Where = fmt.Sprintf("%s:%d", o.Where, o.col)
	}
	if p.Where == "" {
		p.Where = "default"
	}
	*k.problems = append(*k.problems, p)
}

func (k *checker) fail(code, key, format string, args ...any) {
	k.add(SeverityError, code, key, format, args...)
}

func (k *checker) warn(code, key, format string, args ...any) {
	k.add(SeverityWarn, code, key, format, args...)
}

// isSet tells whether a key was set above the defaults.
func (k *checker) isSet(key string) bool { return k.c.origins[key].Layer > layerDefault }

func (k *checker) number(key string, got, least, most int64) {
	if got < least || got > most {
		k.fail(codeRange, key, "%d is outside %d to %d", got, least, most)
	}
}

func (k *checker) size(key string, got, least, most Bytes) {
	if got != Unlimited && (got < least || got > most) {
		k.fail(codeRange, key, "%s is outside %s to %s", got, least, most)
	}
}

func (k *checker) span(key string, got Duration, least, most time.Duration) {
	if got != Unlimited && (got.Std() < least || got.Std() > most) {
		k.fail(codeRange, key, "%s is outside %s to %s", got, Duration(least), Duration(most))
	}
}

func (k *checker) rate(key string, got, least Rate) {
	if got != Unlimited && got < least {
		k.fail(codeRange, key, "%s is less than %s", got, least)
	}
	if got != Unlimited && got > mostRate {
		k.fail(codeRange, key, "%s is more than %s, which no device gives", got, mostRate)
	}
}

// mostRate is well within what budgets are counted in.
const mostRate Rate = 1 << 40

func (k *checker) word(key, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		k.fail(codeValue, key, "%s", oneOf(got, allowed))
	}
}

const year = 365 * 24 * time.Hour

func (k *checker) server() {
	s := &k.c.Server
	k.number("server.node_id", int64(s.NodeID), 0, math.MaxInt32)
	k.number("server.default_partitions", int64(s.DefaultPartitions), 1, 10000)
	if len(s.Rack) > 255 {
		k.fail(codeRange, "server.rack", "is longer than 255 bytes")
	}
	if len(s.Listen) == 0 {
		k.fail(codeListen, "server.listen", `is empty: name at least one address, as in ["127.0.0.1:9092"]`)
	}
	seen := map[string]string{}
	for _, addr := range s.Listen {
		k.address(codeListen, "server.listen", addr)
		k.distinct(seen, "server.listen", addr)
	}
	k.distinct(seen, "admin.listen", k.c.Admin.Listen)
	k.advertised()
}

// distinct refuses two listeners that would fight for a port.
func (k *checker) distinct(seen map[string]string, key, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "0" {
		return
	}
	for other, otherKey := range seen {
		h, p, _ := net.SplitHostPort(other)
		if p == port && (sameHost(h, host) || wildcard(h) || wildcard(host)) {
			k.fail(codeTwoListens, key, "%s and %s (%s) are the same port", addr, other, otherKey)
			return
		}
	}
	seen[addr] = key
}

// sameHost tells whether two hosts are one address. Which loopback address localhost is depends on the machine.
func sameHost(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap()
	}
	return a == b || loopback(a) && loopback(b)
}

func (k *checker) advertised() {
	s := &k.c.Server
	for i, addr := range s.Listen {
		host, _, err := net.SplitHostPort(addr)
		switch {
		case err != nil || !wildcard(host):
		case i > 0: // its clients are told what it listens on
			k.fail(codeAdvertised, "server.listen",
				"%s is no address that clients can be told, and server.advertised is for the first one: put it first, or write an address", addr)
		case s.Advertised == "":
			k.fail(codeAdvertised, "server.listen",
				"%s is no address that clients can be told: set server.advertised, as in \"broker1.example:9092\"", addr)
		}
	}
	if s.Advertised == "" {
		return
	}
	if !k.address(codeAdvertised, "server.advertised", s.Advertised) {
		return
	}
	host, port, _ := net.SplitHostPort(s.Advertised)
	if wildcard(host) {
		k.fail(codeAdvertised, "server.advertised", "%s is not an address that clients can connect to: write a host name or an address", s.Advertised)
	}
	if port == "0" {
		k.fail(codeAdvertised, "server.advertised", "needs a port")
	}
}

func (k *checker) address(code, key, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		k.fail(code, key, "%s is not host:port", clip(addr))
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		k.fail(code, key, "%s: the port must be a number up to 65535", clip(addr))
		return false
	}
	if len(host) > 253 || strings.ContainsAny(host, " /\\@?#\x00\n\r\t") {
		k.fail(code, key, "%s: %s is not a host name or an address", clip(addr), clip(host))
		return false
	}
	return true
}

func wildcard(host string) bool {
	if host == "" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (k *checker) limits() {
	l := &k.c.Server.Limits
	k.number("server.limits.connections", l.Connections, 1, 1_000_000)
	k.number("server.limits.connections_per_ip", l.ConnectionsPerIP, 1, 1_000_000)
	k.size("server.limits.request_bytes", l.RequestBytes, 64<<10, math.MaxInt32)
	k.size("server.limits.inflight_bytes", l.InflightBytes, 1<<20, 1<<40)
	k.span("server.limits.idle_timeout", l.IdleTimeout, time.Second, year)
	if l.InflightBytes < l.RequestBytes {
		k.fail(codeSizes, "server.limits.inflight_bytes", "%s is less than server.limits.request_bytes %s: the largest request could never be received",
			l.InflightBytes, l.RequestBytes)
	}
}

func (k *checker) transactions() {
	t := &k.c.Transactions
	k.number("transactions.state_partitions", int64(t.StatePartitions), 1, 10000)
	k.span("transactions.max_timeout", t.MaxTimeout, time.Second, 24*time.Hour)
	k.span("transactions.id_retention", t.IDRetention, time.Minute, 100*year)
}

func (k *checker) groups() {
	g := &k.c.Groups
	k.number("groups.offsets_partitions", int64(g.OffsetsPartitions), 1, 10000)
	k.span("groups.offsets_retention", g.OffsetsRetention, time.Minute, 100*year)
	k.size("groups.offset_metadata", g.OffsetMetadata, 1, 32<<10-1)
	k.span("groups.initial_rebalance_delay", g.InitialRebalanceDelay, 0, time.Hour)
	k.span("groups.min_session_timeout", g.MinSessionTimeout, time.Millisecond, 24*time.Hour)
	k.span("groups.max_session_timeout", g.MaxSessionTimeout, time.Millisecond, 24*time.Hour)
	if g.MinSessionTimeout > g.MaxSessionTimeout {
		k.fail(codeSizes, "groups.min_session_timeout", "%s is longer than groups.max_session_timeout %s: no member could join", g.MinSessionTimeout, g.MaxSessionTimeout)
	}
	k.number("groups.max_size", int64(g.MaxSize), 1, math.MaxInt32)
	k.span("groups.consumer_session_timeout", g.ConsumerSession, 100*time.Millisecond, time.Hour)
	k.span("groups.consumer_heartbeat_interval", g.ConsumerHeartbeat, 50*time.Millisecond, time.Minute)
	if 2*g.ConsumerHeartbeat > g.ConsumerSession {
		k.fail(codeSizes, "groups.consumer_heartbeat_interval", "%s is more than half of groups.consumer_session_timeout %s: members would be lost between heartbeats",
			g.ConsumerHeartbeat, g.ConsumerSession)
	}
	k.size("groups.memory", g.Memory, 1<<20, 1<<40)
}

func (k *checker) storage() {
	s := &k.c.Storage
	k.word("storage.flush", s.Flush, "sync", "interval")
	k.size("storage.commit_journal_bytes", s.CommitJournalBytes, 16<<20, 4<<30)
	if !s.CommitJournal && k.isSet("storage.commit_journal_bytes") {
		k.warn(codeUnusedValue, "storage.commit_journal_bytes", "has no effect while storage.commit_journal is false")
	}
	k.span("storage.flush_interval", s.FlushInterval, time.Millisecond, time.Hour)
	if s.Flush == "sync" && k.isSet("storage.flush_interval") {
		k.warn(codeUnusedValue, "storage.flush_interval", `has no effect while storage.flush is "sync", except for topics that opt out`)
	}
	k.size("storage.segment_bytes", s.SegmentBytes, 1<<20, math.MaxInt32)
	k.span("storage.segment_age", s.SegmentAge, time.Second, 100*year)
	k.span("storage.retention", s.Retention, time.Second, 100*year)
	k.size("storage.retention_bytes", s.RetentionBytes, 1, math.MaxInt64)
	k.size("storage.index_interval", s.IndexInterval, 1, 1<<30)
	k.size("storage.max_message_bytes", s.MaxMessageBytes, 1<<10, math.MaxInt32)
	k.span("storage.file_delete_delay", s.FileDeleteDelay, 0, 24*time.Hour)
	if s.MaxMessageBytes > k.c.Server.Limits.RequestBytes {
		k.fail(codeSizes, "storage.max_message_bytes", "%s does not fit into server.limits.request_bytes %s", s.MaxMessageBytes, k.c.Server.Limits.RequestBytes)
	}
	if s.MaxMessageBytes > s.SegmentBytes {
		k.fail(codeSizes, "storage.max_message_bytes", "%s does not fit into storage.segment_bytes %s", s.MaxMessageBytes, s.SegmentBytes)
	}
	if s.RetentionBytes != Unlimited && s.RetentionBytes < s.SegmentBytes {
		k.warn(codeSizes, "storage.retention_bytes", "%s is less than storage.segment_bytes %s: at least one whole segment is always kept", s.RetentionBytes, s.SegmentBytes)
	}
	if s.Retention != Unlimited && s.SegmentAge > s.Retention {
		k.warn(codeSizes, "storage.segment_age", "%s is longer than storage.retention %s: quiet partitions keep records longer than retention says", s.SegmentAge, s.Retention)
	}
}

var tierName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// maxTiers bounds per-tier metrics and tables; three are known to make sense (ssd, hdd, object store).
const maxTiers = 8

func (k *checker) tiers() {
	tiers := k.c.Storage.Tiers
	if len(tiers) == 0 {
		k.fail(codeNoTier, "storage.tier", "no tier: add at least one [[storage.tier]] with name and path")
	}
	if len(tiers) > maxTiers {
		k.fail(codeNoTier, "storage.tier", "%d tiers are more than %d", len(tiers), maxTiers)
		return
	}
	names := map[string]bool{}
	for i, t := range tiers {
		key := fmt.Sprintf("storage.tier[%d].", i)
		switch {
		case t.Name == "":
			k.fail(codeTierName, key+"name", "is missing")
		case !tierName.MatchString(t.Name):
			k.fail(codeTierName, key+"name", "%s must be small letters, digits and -, at most 32, beginning with a letter", clip(t.Name))
		case names[t.Name]:
			k.fail(codeTierName, key+"name", "%q is the name of another tier already", t.Name)
		}
		names[t.Name] = true
		k.word(key+"class", t.Class, "auto", "ssd", "hdd")
		k.tierPath(key, i, t)
		k.tierLevels(key, t)
		k.tierKeep(key, i, t)
	}
}

// maxPaths bounds the directories of a tier; more disks than that sit behind one controller or one file system.
const maxPaths = 64

// tierPath checks the directories of a tier, each against all before it.
func (k *checker) tierPath(key string, i int, t Tier) {
	if len(t.Paths) == 0 {
		k.directory(key+"path", i, t.Path, nil)
		return
	}
	if t.Path != "" {
		k.fail(codeTierPath, key+"paths", "path names %s as well: set either path, for one directory, or paths", clip(t.Path))
	}
	if len(t.Paths) > maxPaths {
		k.fail(codeTierPath, key+"paths", "%d directories are more than %d", len(t.Paths), maxPaths)
		return
	}
	for j, p := range t.Paths {
		k.directory(key+"paths", i, p, t.Paths[:j])
	}
}

// directory checks one directory of the tier with index i against the tiers before and those before it in its own.
func (k *checker) directory(key string, i int, path string, own []string) {
	switch {
	case path == "":
		k.fail(codeTierPath, key, "is missing: name the directory of this tier")
		return
	case strings.ContainsRune(path, 0) || len(path) > 4000:
		k.fail(codeTierPath, key, "%s is not a path", clip(path))
		return
	case !filepath.IsAbs(path):
		k.fail(codeTierPath, key, "%s is relative: write the whole path, beginning with /", clip(path))
		return
	case filepath.Clean(path) == "/":
		k.fail(codeTierPath, key, "is the root directory: name a directory of its own")
		return
	}
	against := func(other, whose string) {
		a, b := filepath.Clean(path), filepath.Clean(other)
		switch {
		case !filepath.IsAbs(other):
		case a == b:
			k.fail(codeTierPath, key, "%s is the path of %s already", path, whose)
		case strings.HasPrefix(a, b+"/"), strings.HasPrefix(b, a+"/"):
			k.fail(codeTierNested, key, "%s and %s (%s) lie one within the other: give each its own directory", path, other, whose)
		}
	}
	for j, tier := range k.c.Storage.Tiers[:i] {
		if len(tier.Paths) == 0 {
			against(tier.Path, fmt.Sprintf("tier %q (storage.tier[%d])", tier.Name, j))
		}
		for _, p := range tier.Paths {
			against(p, fmt.Sprintf("tier %q (storage.tier[%d])", tier.Name, j))
		}
	}
	for _, p := range own {
		against(p, "this tier")
	}
}

func (k *checker) tierLevels(key string, t Tier) {
	if t.MaxUsed <= 0 {
		k.fail(codeRange, key+"max_used", "must be more than 0%%")
	}
	if t.LowWatermark >= t.HighWatermark {
		k.fail(codeTierLevels, key+"low_watermark", "%s must be below high_watermark %s", t.LowWatermark, t.HighWatermark)
	}
}

func (k *checker) tierKeep(key string, i int, t Tier) {
	tiers, retention := k.c.Storage.Tiers, k.c.Storage.Retention
	if i == len(tiers)-1 {
		if t.Keep != Unlimited {
			k.fail(codeTierLast, key+"keep", `%s: there is no tier after the last one; write "unlimited" and limit the log with storage.retention`, t.Keep)
		}
		return
	}
	if t.Keep == Unlimited {
		return
	}
	if t.Keep.Std() < time.Second {
		k.fail(codeRange, key+"keep", "%s is less than 1s", t.Keep)
	}
	if retention != Unlimited && t.Keep > retention {
		k.fail(codeTierKeep, key+"keep", "%s is longer than storage.retention %s: nothing would ever reach tier %q", t.Keep, retention, tiers[i+1].Name)
	}
	if i > 0 && tiers[i-1].Keep != Unlimited && t.Keep <= tiers[i-1].Keep {
		k.fail(codeTierKeep, key+"keep", "%s is not longer than the %s of tier %q before it: ages count from the newest record", t.Keep, tiers[i-1].Keep, tiers[i-1].Name)
	}
}

func (k *checker) readers() {
	r := &k.c.Readers
	k.word("readers.read_mode", r.ReadMode, "auto", "direct", "dontcache", "dropbehind", "buffered")
	if r.ReadMode == "buffered" {
		k.warn(codeUnusedValue, "readers.read_mode", `"buffered" lets lagging readers evict everyone's pages: use it for comparison only`)
	}
	k.size("readers.lagging_when.min_bytes", r.LaggingWhen.MinBytes, 1, 1<<60)
	k.span("readers.lagging_when.min_age", r.LaggingWhen.MinAge, time.Millisecond, year)
	k.size("readers.chunk_bytes", r.ChunkBytes, 256<<10, 64<<20)
	if r.ChunkBytes%4096 != 0 {
		k.fail(codePool, "readers.chunk_bytes", "%s is not a multiple of 4KiB", r.ChunkBytes)
	}
	k.size("readers.chunk_memory", r.ChunkMemory, 1<<20, 1<<40)
	if r.ChunkMemory < 4*r.ChunkBytes {
		k.fail(codePool, "readers.chunk_memory", "%s holds fewer than 4 chunks of readers.chunk_bytes %s: cold reads would wait for each other", r.ChunkMemory, r.ChunkBytes)
	}
}

func (k *checker) throttle() {
	t := &k.c.Throttle
	const least = 64 << 10
	k.word("throttle.mode", t.Mode, "adaptive", "fixed", "off")
	k.span("throttle.protect_tail_p99", t.ProtectP99, 0, time.Minute)
	k.rate("throttle.floor", t.Floor, least)
	if t.Mode != "adaptive" {
		for _, key := range []string{"throttle.protect_tail_p99", "throttle.floor"} {
			if k.isSet(key) {
				k.warn(codeUnusedValue, key, `has no effect unless throttle.mode is "adaptive"`)
			}
		}
	}
	k.rate("throttle.catchup_total", t.CatchupTotal, least)
	k.rate("throttle.per_reader.max", t.PerReader.Max, least)
	limits := []string{"throttle.catchup_total", "throttle.per_reader.max"}
	for _, name := range slices.Sorted(maps.Keys(t.Tier)) {
		rate := t.Tier[name]
		key := "throttle.tier." + name
		limits = append(limits, key)
		k.rate(key, rate, least)
		if !slices.Contains(tierNames(k.c), name) {
			k.fail(codeThrottle, key, "there is no tier %q; there is %s", name, strings.Join(tierNames(k.c), ", "))
		}
		if t.Mode == "adaptive" && rate != Unlimited && rate < t.Floor {
			k.warn(codeThrottle, key, "%s is less than throttle.floor %s: the tier's budget is this, always", rate, t.Floor)
		}
	}
	if t.Mode == "off" {
		for _, key := range limits {
			if k.isSet(key) {
				k.warn(codeUnusedValue, key, `has no effect while throttle.mode is "off"`)
			}
		}
	}
	if t.CatchupTotal != Unlimited && t.PerReader.Max > t.CatchupTotal {
		k.warn(codeThrottle, "throttle.per_reader.max", "%s is more than throttle.catchup_total %s", t.PerReader.Max, t.CatchupTotal)
	}
	if t.Mode == "adaptive" && t.CatchupTotal != Unlimited && t.Floor > t.CatchupTotal {
		k.warn(codeThrottle, "throttle.floor", "%s is more than throttle.catchup_total %s: all tiers together get no more than that, whatever their floors", t.Floor, t.CatchupTotal)
	}
}

func (k *checker) rest() {
	if k.c.Cache.HotWindowMemory > 0.8 {
		k.fail(codeRange, "cache.hot_window_memory", "%s is more than 80%%: what is locked cannot be taken back, and the process is killed when the rest is short", k.c.Cache.HotWindowMemory)
	}
	k.span("cache.hot_window_keep", k.c.Cache.HotWindowKeep, time.Second, time.Hour)
	k.word("cache.drop_behind", k.c.Cache.DropBehind, "auto", "on", "off")
	if k.c.Cache.HotWindowMemory == 0 && k.isSet("cache.drop_behind") && k.c.Cache.DropBehind != "off" {
		k.warn(codeUnusedValue, "cache.drop_behind", "has no effect while cache.hot_window_memory is 0%%: what may be dropped is not known")
	}
	k.span("cache.sample_interval", k.c.Cache.SampleInterval, 100*time.Millisecond, time.Hour)
	k.size("cache.warm_tail_on_start", k.c.Cache.WarmTailOnStart, 0, 1<<50)
	k.rate("tiering.move_max", k.c.Tiering.MoveMax, 1<<20)
	k.span("tiering.demand_horizon", k.c.Tiering.DemandHorizon, 0, 24*time.Hour)
	k.span("tiering.interval", k.c.Tiering.Interval, 100*time.Millisecond, 24*time.Hour)
	for _, name := range k.c.Metrics.Compat {
		k.word("metrics.compat", name, "exporter", "jmx")
	}
	k.word("log.level", k.c.Log.Level, "debug", "info", "warn", "error")
	k.word("log.format", k.c.Log.Format, "text", "json")
}

// maxSocketPath is what fits into sockaddr_un (unix(7)), with its final zero.
const maxSocketPath = 107

func (k *checker) admin() {
	a := &k.c.Admin
	if k.address(codeListen, "admin.listen", a.Listen) {
		if host, _, _ := net.SplitHostPort(a.Listen); !loopback(host) && a.TokenFile == "" {
			k.fail(codeAdminOpen, "admin.listen",
				"%s can be reached from other machines: set admin.token_file, or listen on 127.0.0.1", a.Listen)
		}
	}
	switch {
	case a.Socket == "":
	case !filepath.IsAbs(a.Socket) || filepath.Clean(a.Socket) == "/":
		k.fail(codeValue, "admin.socket", "%s is relative: write the whole path, as in \"/run/lagoon/admin.sock\"", clip(a.Socket))
	case len(a.Socket) > maxSocketPath || strings.ContainsRune(a.Socket, 0):
		k.fail(codeValue, "admin.socket", "%s is longer than the %d bytes that a unix socket's path may have", clip(a.Socket), maxSocketPath)
	}
	if a.TokenFile != "" && !filepath.IsAbs(a.TokenFile) {
		k.fail(codeValue, "admin.token_file", "%s is relative: write the whole path, beginning with /", clip(a.TokenFile))
	}
	for _, host := range a.Hosts {
		if host == "" || strings.ContainsAny(host, " /\\@:?#*\n") {
			k.fail(codeValue, "admin.hosts", "%s is not a host name (write it without port)", clip(host))
		}
	}
}
