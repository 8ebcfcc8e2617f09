package admin

import (
	"cmp"
	_ "embed"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed openapi.json
var openAPI []byte

// table lists the whole API; openapi.json describes the same operations.
func (s *Server) table() []route {
	metrics, detailed := s.metricsHandlers()
	raw := func(path string, h http.HandlerFunc, query ...string) route {
		return route{method: http.MethodGet, pattern: segments(path), query: query, raw: func(w http.ResponseWriter, c *call) error {
			h(w, c.r)
			return nil
		}}
	}
	public := func(r route) route { r.public = true; return r }
	write := func(method, path string, h func(*call) (any, error)) route {
		return route{method: method, pattern: segments(path), handle: h, mutates: true}
	}
	slow := func(r route) route { r.slow = true; return r }
	debugging := func(path string, h func(http.ResponseWriter, *call) error, query ...string) route {
		return route{method: http.MethodGet, pattern: segments(path), raw: h, query: query, lasting: true, audited: true}
	}
	explain := write(http.MethodPost, "/api/v1/explain/fetch", s.explain)
	explain.mutates = false
	return []route{
		public(route{method: http.MethodGet, pattern: segments("/"), raw: servePage, query: []string{"demo"}}),
		public(route{method: http.MethodGet, pattern: segments("/page/{file}"), raw: servePage}),
		raw("/openapi.json", serveOpenAPI),
		public(raw("/livez", s.livez, "verbose")),
		public(raw("/-/healthy", s.livez, "verbose")),
		public(raw("/readyz", s.readyz, "verbose", "exclude")),
		public(raw("/-/ready", s.readyz, "verbose", "exclude")),
		raw("/metrics", metrics),
		raw("/metrics/detailed", detailed),
		get("/api/v1/status", s.status),
		get("/api/v1/topics", s.topics, "limit"),
		get("/api/v1/topics/{topic}", s.topic),
		get("/api/v1/topics/{topic}/partitions/{partition}", s.partition),
		get("/api/v1/topics/{topic}/partitions/{partition}/segments", s.segments),
		get("/api/v1/cache", s.cache, "topic", "partition", "cells"),
		slow(write(http.MethodPost, "/api/v1/cache/evict", s.evict)),
		slow(write(http.MethodPost, "/api/v1/cache/warm", s.warm)),
		get("/api/v1/readers", s.readers, "class", "topic", "group", "sort", "limit"),
		get("/api/v1/groups", s.groups, "state", "topic", "sort", "limit"),
		get("/api/v1/groups/{group}", s.group),
		get("/api/v1/tiers", s.tiers),
		get("/api/v1/tiers/{tier}", s.tier),
		get("/api/v1/throttle", s.throttle),
		write(http.MethodPut, "/api/v1/throttle/overrides/{kind}/{name}", s.putOverride),
		write(http.MethodDelete, "/api/v1/throttle/overrides/{kind}/{name}", s.deleteOverride),
		get("/api/v1/pins", s.pins),
		write(http.MethodDelete, "/api/v1/pins/{topic}/{partition}", s.unpin),
		get("/api/v1/compactions", s.compactions),
		get("/api/v1/migrations", s.migrations),
		write(http.MethodPost, "/api/v1/migrations", s.startMigration),
		write(http.MethodPut, "/api/v1/migrations/pause", s.pauseMigrations),
		write(http.MethodDelete, "/api/v1/migrations/pause", s.resumeMigrations),
		get("/api/v1/migrations/{id}", s.migration),
		write(http.MethodDelete, "/api/v1/migrations/{id}", s.cancelMigration),
		explain,
		get("/api/v1/config", s.config),
		write(http.MethodPost, "/api/v1/config/reload", s.reloadConfig),
		get("/api/v1/log-level", s.logLevel),
		write(http.MethodPut, "/api/v1/log-level", s.setLogLevel),
		debugging("/api/v1/debug/bundle", s.bundle),
		debugging("/debug/pprof/{profile}", s.profile, "seconds", "debug"),
		{method: http.MethodGet, pattern: segments("/api/v1/stream"), raw: s.stream, query: []string{"topics"}, lasting: true},
	}
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the caller went away: nobody is left to tell
}

func (s *Server) status(c *call) (any, error) {
	st, err := s.opt.Backend.Status(c)
	st.Checks, st.PendingRestart = s.opt.Backend.Checks(c), some(st.PendingRestart, len(st.PendingRestart))
	return st, err
}

// TopicList answers GET /api/v1/topics.
type TopicList struct {
	Now    time.Time `json:"now"`
	Total  int       `json:"total"`
	Topics []Topic   `json:"topics"`
}

const maxList = 10000

func (s *Server) topics(c *call) (any, error) {
	limit, err := c.integer("limit", maxList, 1, maxList)
	if err != nil {
		return nil, err
	}
	list, err := s.allTopics(c)
	return TopicList{c.now, len(list), some(list, limit)}, err
}

// allTopics are the backend's, with empty lists and objects where it has nil.
func (s *Server) allTopics(c *call) ([]Topic, error) {
	list, err := s.opt.Backend.Topics(c)
	for i := range list {
		t := &list[i]
		t.Configs, t.Partitions = object(t.Configs), some(t.Partitions, len(t.Partitions))
		for k := range t.Partitions {
			t.Partitions[k].TierBytes = object(t.Partitions[k].TierBytes)
		}
	}
	return list, err
}

// object makes nil an empty one, so that JSON has {} and not null.
func object[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// some cuts a list and makes nil an empty one, so that JSON has [] and not null.
func some[T any](list []T, limit int) []T {
	if list == nil {
		return []T{}
	}
	return list[:min(len(list), limit)]
}

func (s *Server) findTopic(c *call) (Topic, error) {
	list, err := s.allTopics(c)
	if err != nil {
		return Topic{}, err
	}
	names := make([]string, len(list))
	for i, t := range list {
		if t.Name == c.params["topic"] {
			return t, nil
		}
		names[i] = t.Name
	}
	return Topic{}, &NotFoundError{What: "topic", Name: c.params["topic"], Known: names}
}

func (s *Server) topic(c *call) (any, error) { return s.findTopic(c) }

func (s *Server) findPartition(c *call) (Partition, error) {
	n, err := partitionNumber(c.params["partition"])
	if err != nil {
		return Partition{}, err
	}
	t, err := s.findTopic(c)
	if err != nil {
		return Partition{}, err
	}
	for _, p := range t.Partitions {
		if p.Partition == n {
			return p, nil
		}
	}
	return Partition{}, &NotFoundError{What: "partition", Name: t.Name + "/" + c.params["partition"]}
}

func (s *Server) partition(c *call) (any, error) { return s.findPartition(c) }

// SegmentList answers GET …/segments.
type SegmentList struct {
	Now      time.Time `json:"now"`
	Total    int       `json:"total"`
	Segments []Segment `json:"segments"`
}

func (s *Server) segments(c *call) (any, error) {
	p, err := s.findPartition(c)
	if err != nil {
		return nil, err
	}
	list, err := s.opt.Backend.Segments(c, c.params["topic"], p.Partition)
	return SegmentList{c.now, len(list), some(list, len(list))}, err
}

func (s *Server) cache(c *call) (any, error) {
	q := CacheQuery{Topic: c.query.Get("topic"), Partition: -1}
	var err error
	if text := c.query.Get("partition"); text != "" {
		if q.Topic == "" {
			return nil, &InvalidError{Detail: "partition needs topic"}
		}
		if q.Partition, err = partitionNumber(text); err != nil {
			return nil, err
		}
	}
	if q.Cells, err = c.integer("cells", 512, 1, 4096); err != nil {
		return nil, err
	}
	answer, err := s.opt.Backend.Cache(c, q)
	answer.Rows = some(answer.Rows, len(answer.Rows))
	for i := range answer.Rows {
		r := &answer.Rows[i]
		r.Tiers, r.Markers = some(r.Tiers, len(r.Tiers)), some(r.Markers, len(r.Markers))
	}
	return answer, err
}

// ReaderList answers GET /api/v1/readers.
type ReaderList struct {
	Now     time.Time `json:"now"`
	Total   int       `json:"total"` // before limit
	Readers []Reader  `json:"readers"`
}

var classes = []string{"realtime", "catching_up", "lagging", "stalled", "stopped"}

// readerOrder are the sort keys; each puts small before large, a "-" in front turns it round.
var readerOrder = map[string]func(a, b Reader) int{
	"lag_bytes":   func(a, b Reader) int { return cmp.Compare(a.LagBytes, b.LagBytes) },
	"lag_records": func(a, b Reader) int { return cmp.Compare(a.LagRecords, b.LagRecords) },
	"lag_seconds": func(a, b Reader) int { return cmp.Compare(a.LagSeconds, b.LagSeconds) },
	"cold_bytes":  func(a, b Reader) int { return cmp.Compare(a.ColdBytes, b.ColdBytes) },
	"rate":        func(a, b Reader) int { return cmp.Compare(a.RateBytes, b.RateBytes) },
	"group":       func(a, b Reader) int { return cmp.Compare(a.Group+"\x00"+a.ClientID, b.Group+"\x00"+b.ClientID) },
	"topic": func(a, b Reader) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.ID, b.ID))
	},
}

func (s *Server) readers(c *call) (any, error) {
	limit, err := c.integer("limit", 1000, 1, maxList)
	if err != nil {
		return nil, err
	}
	var wanted []string
	if text := c.query.Get("class"); text != "" {
		for class := range strings.SplitSeq(text, ",") {
			if !slices.Contains(classes, class) {
				return nil, &InvalidError{Detail: "class " + quote(class) + " is not one of " + strings.Join(classes, ", ")}
			}
			wanted = append(wanted, class)
		}
	}
	key, descending := strings.CutPrefix(cmp.Or(c.query.Get("sort"), "-lag_bytes"), "-")
	order := readerOrder[key]
	if order == nil {
		return nil, &InvalidError{Detail: "sort " + quote(key) + " is not one of lag_bytes, lag_records, lag_seconds, cold_bytes, rate, group, topic"}
	}
	list, err := s.opt.Backend.Readers(c)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(r Reader) bool {
		return wanted != nil && !slices.Contains(wanted, r.Class) ||
			c.query.Has("topic") && r.Topic != c.query.Get("topic") ||
			c.query.Has("group") && r.Group != c.query.Get("group")
	})
	slices.SortStableFunc(list, func(a, b Reader) int {
		if descending {
			a, b = b, a
		}
		return order(a, b)
	})
	return ReaderList{c.now, len(list), some(list, limit)}, nil
}

// GroupList answers GET /api/v1/groups.
type GroupList struct {
	Now    time.Time `json:"now"`
	Total  int       `json:"total"` // before limit
	Groups []Group   `json:"groups"`
}

// groupOrder are the sort keys; each puts small before large, a "-" in front turns it round.
var groupOrder = map[string]func(a, b Group) int{
	"group":       func(a, b Group) int { return cmp.Compare(a.Group, b.Group) },
	"lag_records": func(a, b Group) int { return cmp.Compare(a.LagRecords, b.LagRecords) },
	"lag_bytes":   func(a, b Group) int { return cmp.Compare(a.LagBytes, b.LagBytes) },
	"lag_seconds": func(a, b Group) int { return cmp.Compare(a.LagSeconds, b.LagSeconds) },
}

func (s *Server) groups(c *call) (any, error) {
	limit, err := c.integer("limit", 1000, 1, maxList)
	if err != nil {
		return nil, err
	}
	key, descending := strings.CutPrefix(cmp.Or(c.query.Get("sort"), "group"), "-")
	order := groupOrder[key]
	if order == nil {
		return nil, &InvalidError{Detail: "sort " + quote(key) + " is not one of group, lag_records, lag_bytes, lag_seconds"}
	}
	list, err := s.opt.Backend.Groups(c)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(g Group) bool {
		return c.query.Has("state") && !strings.EqualFold(g.State, c.query.Get("state")) ||
			c.query.Has("topic") && !slices.ContainsFunc(g.Partitions, func(p GroupPartition) bool { return p.Topic == c.query.Get("topic") })
	})
	slices.SortStableFunc(list, func(a, b Group) int {
		if descending {
			a, b = b, a
		}
		return order(a, b)
	})
	return GroupList{c.now, len(list), some(list, limit)}, nil
}

func (s *Server) group(c *call) (any, error) {
	list, err := s.opt.Backend.Groups(c)
	if err != nil {
		return nil, err
	}
	e := &NotFoundError{What: "group", Name: c.params["group"]}
	for _, g := range list {
		if g.Group == e.Name {
			return g, nil
		}
		e.Known = append(e.Known, g.Group)
	}
	return nil, e
}

// TierList answers GET /api/v1/tiers.
type TierList struct {
	Now   time.Time `json:"now"`
	Total int       `json:"total"`
	Tiers []Tier    `json:"tiers"`
}

func (s *Server) tiers(c *call) (any, error) {
	list, err := s.allTiers(c)
	return TierList{c.now, len(list), some(list, len(list))}, err
}

func (s *Server) allTiers(c *call) ([]Tier, error) {
	list, err := s.opt.Backend.Tiers(c)
	for i := range list {
		list[i].NextToMove = some(list[i].NextToMove, len(list[i].NextToMove))
	}
	return list, err
}

func (s *Server) tier(c *call) (any, error) {
	list, err := s.allTiers(c)
	if err != nil {
		return nil, err
	}
	e := &NotFoundError{What: "tier", Name: c.params["tier"]}
	for _, t := range list {
		if t.Name == e.Name {
			return t, nil
		}
		e.Known = append(e.Known, t.Name)
	}
	return nil, e
}

func (s *Server) throttle(c *call) (any, error) {
	t, err := s.opt.Backend.Throttle(c)
	t.Devices, t.Flows = some(t.Devices, len(t.Devices)), some(t.Flows, len(t.Flows))
	t.Overrides = some(t.Overrides, len(t.Overrides))
	return t, err
}

// OverrideBody is the body of PUT /api/v1/throttle/overrides/{kind}/{name}.
type OverrideBody struct {
	BytesPerSecond int64   `json:"bytes_per_second"`
	Weight         float64 `json:"weight"`
	TTLSeconds     float64 `json:"ttl_seconds"` // 0: for ever
	Reason         string  `json:"reason"`
	DryRun         bool    `json:"dry_run"`
}

// OverrideResult answers PUT and DELETE of an override.
type OverrideResult struct {
	Applied     bool     `json:"applied"`
	WouldChange []string `json:"would_change"`
	Override    Override `json:"override"`
}

func (r OverrideResult) auditAttrs() []any {
	return []any{"applied", r.Applied, "kind", string(r.Override.Kind), "name", r.Override.Name,
		"bytes_per_second", r.Override.BytesPerSecond, "weight", r.Override.Weight, "reason", r.Override.Reason}
}

const (
	minOverrideRate = 16 << 10                  // admission's smallest cap
	maxTTL          = 10 * 365 * 24 * time.Hour // far enough, and far from overflow
)

func (s *Server) putOverride(c *call) (any, error) {
	o, err := c.override()
	if err != nil {
		return nil, err
	}
	var b OverrideBody
	if err := c.body(&b); err != nil {
		return nil, err
	}
	switch {
	case b.BytesPerSecond < 0 || b.BytesPerSecond > 0 && b.BytesPerSecond < minOverrideRate:
		return nil, &InvalidError{Detail: "bytes_per_second must be 0 (no cap) or at least 16384"}
	case math.IsNaN(b.Weight) || b.Weight != 0 && (b.Weight < 0.01 || b.Weight > 100):
		return nil, &InvalidError{Detail: "weight must be from 0.01 to 100; 1 is the standard"}
	case b.Weight != 0 && o.Kind == OverrideTopic:
		return nil, &InvalidError{Detail: "weight is for groups and clients; cap the topic instead"}
	case b.BytesPerSecond == 0 && b.Weight == 0:
		return nil, &InvalidError{Detail: "give bytes_per_second, weight, or both"}
	case math.IsNaN(b.TTLSeconds) || b.TTLSeconds < 0 || b.TTLSeconds > maxTTL.Seconds():
		return nil, &InvalidError{Detail: "ttl_seconds must be from 0 (for ever) to ten years"}
	case len(b.Reason) > 500:
		return nil, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	o.BytesPerSecond, o.Weight, o.Reason, o.SetAt = b.BytesPerSecond, b.Weight, b.Reason, c.now
	if b.TTLSeconds > 0 {
		o.Expires = c.now.Add(time.Duration(b.TTLSeconds * float64(time.Second)))
	}
	if b.DryRun {
		return OverrideResult{WouldChange: []string{"set " + string(o.Kind) + "/" + o.Name}, Override: o}, nil
	}
	err = s.opt.Backend.SetOverride(c, o)
	return OverrideResult{Applied: err == nil, WouldChange: []string{}, Override: o}, err
}

func (s *Server) deleteOverride(c *call) (any, error) {
	o, err := c.override()
	if err != nil {
		return nil, err
	}
	err = s.opt.Backend.DeleteOverride(c, o.Kind, o.Name)
	return OverrideResult{Applied: err == nil, WouldChange: []string{}, Override: o}, err
}

// override reads kind and name from the path. Groups and clients are named by other people: anything printable is fine.
func (c *call) override() (Override, error) {
	o := Override{Kind: OverrideKind(c.params["kind"]), Name: c.params["name"]}
	if !slices.Contains([]OverrideKind{OverrideGroup, OverrideClient, OverrideTopic}, o.Kind) {
		return o, &InvalidError{Detail: quote(string(o.Kind)) + " is not a kind of override: use group, client or topic"}
	}
	if len(o.Name) > 255 || !utf8.ValidString(o.Name) || strings.ContainsFunc(o.Name, unicode.IsControl) {
		return o, &InvalidError{Detail: "the name must be printable and at most 255 bytes"}
	}
	return o, nil
}

// PinList answers GET /api/v1/pins.
type PinList struct {
	Now   time.Time `json:"now"`
	Total int       `json:"total"`
	Pins  []Pin     `json:"pins"`
}

func (s *Server) pins(c *call) (any, error) {
	list, err := s.opt.Backend.Pins(c)
	return PinList{c.now, len(list), some(list, len(list))}, err
}

func (s *Server) unpin(c *call) (any, error) {
	n, err := partitionNumber(c.params["partition"])
	if err != nil {
		return nil, err
	}
	return s.opt.Backend.Unpin(c, c.params["topic"], n)
}

func (u Unpinned) auditAttrs() []any {
	return []any{"topic", u.Pin.Topic, "partition", u.Pin.Partition, "dir", u.Pin.Dir}
}

func (s *Server) compactions(c *call) (any, error) {
	m, err := s.opt.Backend.Compactions(c)
	m.Partitions = some(m.Partitions, len(m.Partitions))
	return m, err
}

func (s *Server) migrations(c *call) (any, error) {
	m, err := s.opt.Backend.Migrations(c)
	m.Migrations = some(m.Migrations, len(m.Migrations))
	return m, err
}

func (s *Server) migration(c *call) (any, error) {
	m, err := s.opt.Backend.Migrations(c)
	if err != nil {
		return nil, err
	}
	for _, one := range m.Migrations {
		if one.ID == c.params["id"] {
			return one, nil
		}
	}
	return nil, &NotFoundError{What: "migration", Name: c.params["id"]}
}

func (s *Server) startMigration(c *call) (any, error) {
	var o MigrationOrder
	if err := c.body(&o); err != nil {
		return nil, err
	}
	switch {
	case o.Topic == "" || len(o.Topic) > 249:
		return nil, &InvalidError{Detail: "topic is missing or too long"}
	case o.Partition < 0:
		return nil, &InvalidError{Detail: "partition is negative"}
	case o.BaseOffset < 0:
		return nil, &InvalidError{Detail: "base_offset is negative"}
	case o.To == "":
		return nil, &InvalidError{Detail: "to is missing: name a tier"}
	case len(o.Reason) > 500:
		return nil, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	return s.opt.Backend.StartMigration(c, o)
}

func (s *Server) cancelMigration(c *call) (any, error) {
	return s.opt.Backend.CancelMigration(c, c.params["id"])
}

func (m Migration) auditAttrs() []any {
	return []any{"id", m.ID, "topic", m.Topic, "partition", m.Partition, "base_offset", m.BaseOffset, "to", m.To, "reason", m.Reason}
}

// MigrationPauseBody is the body of PUT /api/v1/migrations/pause.
type MigrationPauseBody struct {
	Reason string `json:"reason"`
}

func (s *Server) pauseMigrations(c *call) (any, error) {
	var b MigrationPauseBody
	if err := c.body(&b); err != nil {
		return nil, err
	}
	if len(b.Reason) > 500 {
		return nil, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	return MigrationPause{Paused: true, Reason: b.Reason}, s.opt.Backend.PauseMigrations(c, b.Reason)
}

func (s *Server) resumeMigrations(c *call) (any, error) {
	return MigrationPause{}, s.opt.Backend.ResumeMigrations(c)
}

func (p MigrationPause) auditAttrs() []any { return []any{"paused", p.Paused, "reason", p.Reason} }

func (s *Server) explain(c *call) (any, error) {
	var q ExplainQuery
	if err := c.body(&q); err != nil {
		return nil, err
	}
	switch {
	case q.Topic == "" || len(q.Topic) > 249:
		return nil, &InvalidError{Detail: "topic is missing or too long"}
	case q.Partition < 0:
		return nil, &InvalidError{Detail: "partition is negative"}
	case q.Offset < 0:
		return nil, &InvalidError{Detail: "offset is negative"}
	case q.MaxBytes < 0 || q.MaxBytes > 1<<30:
		return nil, &InvalidError{Detail: "max_bytes must be from 0 (1 MiB) to 1 GiB"}
	case len(q.Client) > 255 || len(q.Group) > 255:
		return nil, &InvalidError{Detail: "client and group are at most 255 bytes"}
	}
	if q.MaxBytes == 0 {
		q.MaxBytes = 1 << 20
	}
	return s.opt.Backend.ExplainFetch(c, q)
}

// ActionBody is the body of POST /api/v1/cache/evict and warm.
type ActionBody struct {
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	From        *int64  `json:"from"`         // default: the log start
	To          *int64  `json:"to"`           // default: the log end
	LastSeconds float64 `json:"last_seconds"` // instead of from
	DryRun      *bool   `json:"dry_run"`      // default: true
	Reason      string  `json:"reason"`
}

func (r CacheActionResult) auditAttrs() []any {
	return []any{"applied", r.Applied, "segments", r.Segments, "bytes", r.Bytes}
}

func (c *call) action() (CacheAction, error) {
	b := ActionBody{Partition: -1}
	if err := c.body(&b); err != nil {
		return CacheAction{}, err
	}
	a := CacheAction{Topic: b.Topic, Partition: b.Partition, From: -1, To: -1, LastSeconds: b.LastSeconds, DryRun: true, Reason: b.Reason}
	if b.From != nil {
		a.From = *b.From
	}
	if b.To != nil {
		a.To = *b.To
	}
	if b.DryRun != nil {
		a.DryRun = *b.DryRun
	}
	switch {
	case a.Topic == "" || len(a.Topic) > 249:
		return a, &InvalidError{Detail: "topic is missing or too long"}
	case a.Partition < 0:
		return a, &InvalidError{Detail: "partition is missing or negative"}
	case a.From < -1 || a.To < -1 || a.To >= 0 && a.From > a.To:
		return a, &InvalidError{Detail: "from and to must be offsets, from not above to"}
	case math.IsNaN(a.LastSeconds) || a.LastSeconds < 0 || a.LastSeconds > maxTTL.Seconds() || a.LastSeconds > 0 && a.From >= 0:
		return a, &InvalidError{Detail: "last_seconds must be positive and goes without from"}
	case len(a.Reason) > 500:
		return a, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	c.about = []any{"topic", a.Topic, "partition", a.Partition, "from", a.From, "to", a.To, "last_seconds", a.LastSeconds, "reason", a.Reason}
	return a, nil
}

func (s *Server) evict(c *call) (any, error) {
	a, err := c.action()
	if err != nil {
		return nil, err
	}
	r, err := s.opt.Backend.Evict(c, a)
	r.WouldChange = some(r.WouldChange, len(r.WouldChange))
	return r, err
}

func (s *Server) warm(c *call) (any, error) {
	a, err := c.action()
	if err != nil {
		return nil, err
	}
	r, err := s.opt.Backend.Warm(c, a)
	r.WouldChange = some(r.WouldChange, len(r.WouldChange))
	return r, err
}

func (s *Server) config(c *call) (any, error) {
	cfg, err := s.opt.Backend.Config(c)
	cfg.Values, cfg.PendingRestart = some(cfg.Values, len(cfg.Values)), some(cfg.PendingRestart, len(cfg.PendingRestart))
	return cfg, err
}

// ConfigReloadBody is the body of POST /api/v1/config/reload. No path: what is read is what the broker was started with.
type ConfigReloadBody struct {
	DryRun bool   `json:"dry_run"`
	Reason string `json:"reason"`
}

func (s *Server) reloadConfig(c *call) (any, error) {
	var b ConfigReloadBody
	if err := c.body(&b); err != nil {
		return nil, err
	}
	if len(b.Reason) > 500 {
		return nil, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	c.about = []any{"dry_run", b.DryRun, "reason", b.Reason}
	r, err := s.opt.Backend.ReloadConfig(c, b.DryRun)
	r.Changed, r.PendingRestart = some(r.Changed, len(r.Changed)), some(r.PendingRestart, len(r.PendingRestart))
	return r, err
}

func (r ConfigReload) auditAttrs() []any {
	keys := func(list []ConfigChange) []string {
		out := []string{}
		for _, c := range list {
			out = append(out, c.Key)
		}
		return out
	}
	return []any{"applied", r.Applied, "changed", keys(r.Changed), "pending_restart", keys(r.PendingRestart)}
}

func (s *Server) logLevel(c *call) (any, error) { return s.opt.Backend.LogLevel(c) }

// LogLevelBody is the body of PUT /api/v1/log-level.
type LogLevelBody struct {
	Level      string  `json:"level"`
	TTLSeconds float64 `json:"ttl_seconds"` // 0: until the next start
	Reason     string  `json:"reason"`
}

var logLevels = []string{"debug", "info", "warn", "error"}

func (s *Server) setLogLevel(c *call) (any, error) {
	var b LogLevelBody
	if err := c.body(&b); err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(logLevels, b.Level):
		return nil, &InvalidError{Detail: "level " + quote(b.Level) + " is not one of " + strings.Join(logLevels, ", ")}
	case math.IsNaN(b.TTLSeconds) || b.TTLSeconds < 0 || b.TTLSeconds > maxTTL.Seconds():
		return nil, &InvalidError{Detail: "ttl_seconds must be from 0 (until the next start) to ten years"}
	case len(b.Reason) > 500:
		return nil, &InvalidError{Detail: "reason is longer than 500 bytes"}
	}
	return s.opt.Backend.SetLogLevel(c, LogLevelOrder{Level: b.Level, TTL: time.Duration(b.TTLSeconds * float64(time.Second)), Reason: b.Reason,
		Peer: c.r.RemoteAddr, RequestID: c.id})
}

func (l LogLevel) auditAttrs() []any {
	attrs := []any{"level", l.Level, "configured", l.Configured, "reason", l.Reason}
	if !l.Until.IsZero() {
		attrs = append(attrs, "until", l.Until.Format(time.RFC3339))
	}
	return attrs
}
