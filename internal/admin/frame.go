package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// frame.go makes what the event stream sends: a frame is the answers of all topics at one time, a delta what changed since the frame
// before it, as a JSON merge patch (RFC 7396). So that a merge patch is small, lists that change often are objects by key here, and a
// row's cells are cut into blocks.

// streamTopic is one of the things that a stream tells. Their order is that of the bits in a topicSet.
type streamTopic uint8

const (
	topicStatus streamTopic = iota
	topicCache
	topicReaders
	topicTiers
	topicThrottle
	topicEvents
	numTopics
)

var topicNames = [numTopics]string{"status", "cache", "readers", "tiers", "throttle", "events"}

// topicSet has a bit per streamTopic.
type topicSet uint8

const allTopics = topicSet(1<<numTopics - 1)

func (s topicSet) has(t streamTopic) bool { return s&(1<<t) != 0 }

const (
	// blockCells is the number of cells in a block: 48 bytes are 64 characters of base64 without padding.
	blockCells = 48
	// A frame has at most mostStreamCells cells, but leastCells in every row and at most mostCells.
	mostStreamCells = 64 << 10
	leastCells      = 32
	mostCells       = 512
	// mostStreamReaders are shown, those furthest behind; Classes counts all.
	mostStreamReaders = 1000
	// sampledLately is the age of a look that is not told.
	sampledLately = 10 * time.Second
	// mostHints are shown of the segments that a tier would move next.
	mostHints = 3
)

// StreamFrame is the data of a "full" event; absent topics were not asked for, or cannot be answered yet. The data of a "delta" event
// is the merge patch that makes the next one of it.
type StreamFrame struct {
	Now      time.Time      `json:"now"`
	Status   *Status        `json:"status,omitempty"`
	Cache    *StreamCache   `json:"cache,omitempty"`
	Readers  *StreamReaders `json:"readers,omitempty"`
	Tiers    *StreamTiers   `json:"tiers,omitempty"`
	Throttle *Throttle      `json:"throttle,omitempty"`
	Events   *StreamEvents  `json:"events,omitempty"`
}

// StreamCache is Cache with the rows by "topic/partition".
type StreamCache struct {
	Method string               `json:"method"`
	Rows   map[string]StreamRow `json:"rows"`
}

// StreamRow is CacheRow with the cells in blocks of 48: block "0" has the first ones. A block that is absent is all zero.
type StreamRow struct {
	CacheFigures
	// Seen tells that all of it was looked at. SampledAt is when, of the oldest part, where that is more than 10 s ago: each look at
	// each row would be news otherwise.
	Seen      bool              `json:"seen"`
	SampledAt time.Time         `json:"sampled_at,omitzero"`
	Cells     int               `json:"cells"`
	Resident  map[string][]byte `json:"resident"`
	Flags     map[string][]byte `json:"flags"`
	Tiers     []TierSpan        `json:"tiers"`
	// Markers are by reader id.
	Markers map[string]CacheMarker `json:"markers"`
}

// StreamReaders is ReaderList with the readers by id, at most those 1,000 that are furthest behind.
type StreamReaders struct {
	Total   int                   `json:"total"`
	Classes map[string]ClassTotal `json:"classes"` // of all readers
	Readers map[string]Reader     `json:"readers"`
}

// ClassTotal adds up the readers of one class.
type ClassTotal struct {
	Readers     int     `json:"readers"`
	LagSeconds  float64 `json:"lag_seconds"` // of the one furthest behind
	RateBytes   float64 `json:"rate_bytes_per_second"`
	CacheBytes  int64   `json:"page_cache_bytes_1m"` // of the last minute's bytes, those from the page cache
	DeviceBytes int64   `json:"device_bytes_1m"`     // those from devices
	RefillBytes int64   `json:"refill_bytes_1m"`     // and of these, what was read in real time
}

// StreamTiers is TierList, with at most 3 hints in each, and the migrations that are at work.
type StreamTiers struct {
	Tiers      []Tier     `json:"tiers"`
	Migrations Migrations `json:"migrations"`
}

// StreamEvents are the newest events by number, at most 100. While no stream is open nothing is noticed.
type StreamEvents struct {
	Events map[string]Event `json:"events"`
}

// movingStates are those of migrations at work.
var movingStates = []string{"prepare", "copy", "verify", "commit", "publish"}

// document is one topic's answer in JSON: an object, with one member that is an object of rows where the topic has rows.
type document struct {
	head []byte // an object with at least one member
	list string // name of the rows, "": none
	rows map[string][]byte
}

// full is all of the document.
func (d *document) full() []byte {
	if d.list == "" {
		return d.head
	}
	out := append(slices.Clone(d.head[:len(d.head)-1]), `,"`+d.list+`":{`...)
	for i, key := range slices.Sorted(maps.Keys(d.rows)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, key), ':')
		out = append(out, d.rows[key]...)
	}
	return append(out, '}', '}')
}

// patch is the merge patch that makes d of old, nil if they are equal. Rows are compared before they are taken apart: most stay as
// they are.
func (d *document) patch(old *document) []byte {
	head := mergePatch(old.head, d.head)
	rows := []byte(nil)
	add := func(key string, value []byte) {
		rows = append(append(appendString(append(rows, ','), key), ':'), value...)
	}
	for _, key := range slices.Sorted(maps.Keys(d.rows)) {
		was, known := old.rows[key]
		if !known {
			add(key, d.rows[key])
		} else if p := mergePatch(was, d.rows[key]); p != nil {
			add(key, p)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(old.rows)) {
		if _, here := d.rows[key]; !here {
			add(key, []byte("null"))
		}
	}
	if rows == nil {
		return head
	}
	list := append(append(appendString([]byte("{"), d.list), ':', '{'), rows[1:]...)
	list = append(list, '}', '}')
	if head == nil {
		return list
	}
	return append(append(head[:len(head)-1], ','), list[1:]...)
}

func appendString(to []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string can always be
	return append(to, text...)
}

// mergePatch is the merge patch that makes next of old, nil if it has nothing to do. Both are valid JSON; members that are null count
// as absent ones.
func mergePatch(old, next json.RawMessage) json.RawMessage {
	if bytes.Equal(old, next) {
		return nil
	}
	if len(old) == 0 || len(next) == 0 || old[0] != '{' || next[0] != '{' {
		return next
	}
	var was, is map[string]json.RawMessage
	if json.Unmarshal(old, &was) != nil || json.Unmarshal(next, &is) != nil {
		return next
	}
	out := []byte{'{'}
	add := func(key string, value json.RawMessage) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(appendString(out, key), ':'), value...)
	}
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if before, known := was[key]; !known {
			add(key, is[key])
		} else if p := mergePatch(before, is[key]); p != nil {
			add(key, p)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if _, here := is[key]; !here {
			add(key, json.RawMessage("null"))
		}
	}
	if len(out) == 1 {
		return nil
	}
	return append(out, '}')
}

func plain(v any) (*document, error) {
	head, err := json.Marshal(v)
	return &document{head: head}, err
}

func withRows[T any](v any, list string, rows map[string]T) (*document, error) {
	d, err := plain(v)
	if err != nil {
		return nil, err
	}
	// The list itself is in v as null or {}: it is put in row by row.
	var head map[string]json.RawMessage
	if err := json.Unmarshal(d.head, &head); err != nil {
		return nil, err
	}
	delete(head, list)
	if d.head, err = json.Marshal(head); err != nil {
		return nil, err
	}
	d.list, d.rows = list, make(map[string][]byte, len(rows))
	for key, row := range rows {
		if d.rows[key], err = json.Marshal(row); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// cellsFor is how many cells a row has when there are so many partitions: a power of two, so that it seldom changes.
func cellsFor(partitions int) int {
	cells := mostCells
	for cells > leastCells && cells*partitions > mostStreamCells {
		cells /= 2
	}
	return cells
}

// blocks cuts cells, leaving out what is all zero.
func blocks(cells []byte) map[string][]byte {
	out := map[string][]byte{}
	i := 0
	for block := range slices.Chunk(cells, blockCells) {
		if slices.ContainsFunc(block, func(b byte) bool { return b != 0 }) {
			out[strconv.Itoa(i)] = block
		}
		i++
	}
	return out
}

// answers are what the backend said for one frame; nil: not asked, or no answer.
type answers struct {
	status     *Status
	cache      *Cache
	readers    []Reader
	tiers      []Tier
	migrations *Migrations
	throttle   *Throttle
}

// askAll asks what the topics need. An answer that fails is absent: the page shows the rest.
func askAll(ctx context.Context, b Backend, topics topicSet) answers {
	var a answers
	// Events are found by looking at the others; the cells of a row depend on how many partitions there are.
	if st, err := b.Status(ctx); err == nil {
		st.Checks = b.Checks(ctx)
		a.status = &st
	}
	if topics.has(topicCache) && a.status != nil {
		if c, err := b.Cache(ctx, CacheQuery{Partition: -1, Cells: cellsFor(a.status.Partitions)}); err == nil {
			a.cache = &c
		}
	}
	if topics.has(topicReaders) || topics.has(topicEvents) {
		if list, err := b.Readers(ctx); err == nil {
			a.readers = some(list, len(list))
		}
	}
	if topics.has(topicTiers) || topics.has(topicEvents) {
		list, err := b.Tiers(ctx)
		m, merr := b.Migrations(ctx)
		if err == nil && merr == nil {
			m.Migrations = some(m.Migrations, len(m.Migrations))
			a.tiers, a.migrations = some(list, len(list)), &m
		}
	}
	if topics.has(topicThrottle) || topics.has(topicEvents) {
		if t, err := b.Throttle(ctx); err == nil {
			t.Devices, t.Flows = some(t.Devices, len(t.Devices)), some(t.Flows, len(t.Flows))
			t.Caps, t.Overrides = some(t.Caps, len(t.Caps)), some(t.Overrides, len(t.Overrides))
			a.throttle = &t
		}
	}
	return a
}

// document is one topic's, nil without an answer.
func (a *answers) document(t streamTopic, now time.Time, log *eventLog) (*document, error) {
	switch {
	case t == topicStatus && a.status != nil:
		return plain(a.status)
	case t == topicCache && a.cache != nil:
		rows := make(map[string]StreamRow, len(a.cache.Rows))
		for _, r := range a.cache.Rows {
			rows[r.Topic+"/"+strconv.Itoa(int(r.Partition))] = streamRow(r, now)
		}
		return withRows(StreamCache{Method: a.cache.Method}, "rows", rows)
	case t == topicReaders && a.readers != nil:
		return readersDocument(a.readers)
	case t == topicTiers && a.tiers != nil:
		m := *a.migrations
		m.Migrations = slices.DeleteFunc(slices.Clone(m.Migrations), func(m Migration) bool { return !slices.Contains(movingStates, m.State) })
		tiers := slices.Clone(a.tiers)
		for i := range tiers {
			tiers[i].NextToMove = some(tiers[i].NextToMove, mostHints)
		}
		return plain(StreamTiers{Tiers: tiers, Migrations: m})
	case t == topicThrottle && a.throttle != nil:
		return plain(a.throttle)
	case t == topicEvents:
		return plain(StreamEvents{Events: log.events()})
	}
	return nil, nil
}

func streamRow(r CacheRow, now time.Time) StreamRow {
	seen, at := !r.SampledAt.IsZero(), r.SampledAt
	if now.Sub(at) < sampledLately {
		at = time.Time{}
	}
	markers := make(map[string]CacheMarker, len(r.Markers))
	for _, m := range r.Markers {
		markers[m.Reader] = m
	}
	return StreamRow{CacheFigures: r.CacheFigures, Seen: seen, SampledAt: at,
		Cells: len(r.Cells), Resident: blocks(r.Cells), Flags: blocks(r.Flags), Tiers: some(r.Tiers, len(r.Tiers)), Markers: markers}
}

func readersDocument(list []Reader) (*document, error) {
	out := StreamReaders{Total: len(list), Classes: map[string]ClassTotal{}}
	for _, r := range list {
		c := out.Classes[r.Class]
		c.Readers++
		c.LagSeconds = max(c.LagSeconds, r.LagSeconds)
		c.RateBytes += r.RateBytes
		c.CacheBytes += r.Sources.PageCache
		for _, n := range r.Sources.Tiers {
			c.DeviceBytes += n
		}
		c.RefillBytes += r.Sources.Refill
		out.Classes[r.Class] = c
	}
	slices.SortStableFunc(list, func(a, b Reader) int { return cmp.Compare(b.LagBytes, a.LagBytes) })
	rows := make(map[string]Reader, min(len(list), mostStreamReaders))
	for _, r := range list[:min(len(list), mostStreamReaders)] {
		rows[r.ID] = r
	}
	return withRows(out, "readers", rows)
}
