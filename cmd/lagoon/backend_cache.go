package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"lagoon/internal/admin"
	"lagoon/internal/partition"
	"lagoon/segment"
)

const pageSize = 4096

// maxCells bounds the kernel calls of one request: 100,000 cells of a mebibyte take 40 ms with large folios, and a
// second or two with small ones (measured).
const maxCells = 100_000

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// pageBytes turns pages into bytes; the last page of a file is only partly its own.
func pageBytes(pages, most int64) int64 { return min(pages*pageSize, most) }

// resident is one file's share of the page cache.
type resident struct{ resident, dirty int64 }

// residencySample is one look at all segments.
type residencySample struct {
	at     time.Time
	method string
	files  map[string]resident // by tier-relative file name
	tiers  map[string]int64
}

func (s *residencySample) of(file string) resident { return s.files[file] }

// sampler looks at the residency of all segments now and then, within one percent of a core.
type sampler struct {
	store   *partition.Store
	every   time.Duration
	current atomic.Pointer[residencySample]
}

func newSampler(store *partition.Store, every time.Duration) *sampler {
	s := &sampler{store: store, every: every}
	s.current.Store(&residencySample{method: "none", files: map[string]resident{}, tiers: map[string]int64{}})
	return s
}

func (s *sampler) last() *residencySample { return s.current.Load() }
func (s *sampler) method() string         { return s.last().method }

// run samples until ctx ends. A sweep that took t is followed by a pause of at least 99 t.
func (s *sampler) run(ctx context.Context) {
	for {
		began := time.Now()
		s.sweep(ctx)
		pause := time.NewTimer(max(s.every, 99*time.Since(began)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

func (s *sampler) sweep(ctx context.Context) {
	next := &residencySample{at: time.Now(), method: "none", files: map[string]resident{}, tiers: map[string]int64{}}
	for _, l := range s.store.Logs() {
		if ctx.Err() != nil {
			return
		}
		if l.Err() != nil {
			continue
		}
		for _, sv := range l.Segments() {
			if sv.SizeBytes == 0 {
				continue
			}
			r, err := l.Residency(sv, 0, sv.SizeBytes)
			if err != nil {
				continue
			}
			next.method = r.Method
			next.files[sv.File] = resident{pageBytes(r.Resident, sv.SizeBytes), pageBytes(r.Dirty, sv.SizeBytes)}
			next.tiers[sv.Tier] += pageBytes(r.Resident, sv.SizeBytes)
		}
	}
	s.current.Store(next)
}

// Cache asks the kernel now for the partitions of the query: one row per partition, cells from log start to log end.
func (b *backend) Cache(ctx context.Context, q admin.CacheQuery) (admin.Cache, error) {
	logs, err := b.chosen(q.Topic, q.Partition)
	if err != nil {
		return admin.Cache{}, err
	}
	cells := q.Cells
	if cells <= 0 {
		cells = 512
	}
	cells = max(16, min(cells, maxCells/max(1, len(logs))))
	out := admin.Cache{SampledAt: time.Now(), Method: b.sampler.method(), Rows: []admin.CacheRow{}}
	readers := b.store.Readers()
	for _, l := range logs {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if l.Err() == nil {
			out.Rows = append(out.Rows, b.row(l, cells, q.Topic != "", readers, &out.Method))
		}
	}
	return out, nil
}

// chosen is the partition, the topic's partitions, or all.
func (b *backend) chosen(topic string, number int32) ([]*partition.Log, error) {
	if topic == "" {
		return b.store.Logs(), nil
	}
	if number >= 0 {
		l, err := b.log(topic, number)
		return []*partition.Log{l}, err
	}
	if _, err := b.log(topic, 0); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(b.store.Logs(), func(l *partition.Log) bool { return l.Topic() != topic }), nil
}

// row is one partition as a line of cells.
func (b *backend) row(l *partition.Log, cells int, segments bool, readers []partition.ReaderView, method *string) admin.CacheRow {
	o := l.Offsets()
	row := admin.CacheRow{Topic: l.Topic(), Partition: l.Partition(), StartOffset: int64(o.LogStart), EndOffset: int64(o.End)}
	svs := l.Segments()
	for _, sv := range svs {
		row.Bytes += sv.SizeBytes
	}
	row.CellBytes = max(pageSize, (row.Bytes+int64(cells)-1)/int64(cells))
	row.CellBytes = (row.CellBytes + pageSize - 1) / pageSize * pageSize
	n := int((row.Bytes + row.CellBytes - 1) / row.CellBytes)
	residentOf := make([]int64, n)
	for _, sv := range svs {
		first := int(sv.Before / row.CellBytes)
		var cs admin.CacheSegment
		for pos := int64(0); pos < sv.SizeBytes; {
			cell := int((sv.Before + pos) / row.CellBytes)
			step := min(sv.SizeBytes-pos, (int64(cell)+1)*row.CellBytes-sv.Before-pos)
			if r, err := l.Residency(sv, pos, step); err == nil {
				bytes := pageBytes(r.Resident, step)
				*method = r.Method
				row.ResidentBytes += bytes
				row.DirtyBytes += pageBytes(r.Dirty, step)
				row.RefaultPages += r.RecentlyEvicted
				residentOf[min(cell, n-1)] += bytes
				cs.ResidentBytes += bytes
				cs.Cells = append(cs.Cells, share(bytes, step))
			}
			pos += step
		}
		next := min(n, int((sv.Before+sv.SizeBytes+row.CellBytes-1)/row.CellBytes))
		if k := len(row.Tiers); k > 0 && row.Tiers[k-1].Tier == sv.Tier {
			row.Tiers[k-1].Next = next
		} else if next > first {
			row.Tiers = append(row.Tiers, admin.TierSpan{First: first, Next: next, Tier: sv.Tier})
		}
		if segments {
			cs.File, cs.Tier, cs.Bytes = sv.File, sv.Tier, sv.SizeBytes
			row.Segments = append(row.Segments, cs)
		}
	}
	row.Cells = make([]byte, n)
	for i, bytes := range residentOf {
		row.Cells[i] = share(bytes, min(row.CellBytes, row.Bytes-int64(i)*row.CellBytes))
	}
	b.mark(l, &row, svs, readers)
	return row
}

// share is resident/total as 0..255, where anything above nothing shows and anything below all does.
func share(bytes, total int64) byte {
	switch {
	case bytes <= 0 || total <= 0:
		return 0
	case bytes >= total:
		return 255
	}
	return byte(1 + bytes*253/total)
}

// mark puts the readers where they are.
func (b *backend) mark(l *partition.Log, row *admin.CacheRow, svs []partition.SegmentView, readers []partition.ReaderView) {
	for _, r := range readers {
		if r.Key.Topic != l.Topic() || r.Key.Partition != l.Partition() || len(row.Cells) == 0 {
			continue
		}
		at := max(0, row.Bytes-r.LagBytes)
		class := "realtime"
		if r.Behind {
			class = "lagging"
		}
		row.Markers = append(row.Markers, admin.CacheMarker{Reader: readerID(r), Name: readerName(r), Cell: int(min(int64(len(row.Cells)-1), at/row.CellBytes)),
			Class: class, LagSeconds: r.LagAge.Seconds()})
		for i, sv := range svs {
			if i < len(row.Segments) && at >= sv.Before && (at < sv.Before+sv.SizeBytes || sv.Active) {
				row.Segments[i].Markers = append(row.Segments[i].Markers, readerID(r))
			}
		}
	}
}

// byteRange is a byte range of one segment.
type byteRange struct {
	sv       partition.SegmentView
	pos, len int64
}

// ranges turns an offset range into byte ranges, by the indexes alone.
func ranges(l *partition.Log, from, to segment.Offset) ([]byteRange, error) {
	var out []byteRange
	for _, sv := range l.Segments() {
		if sv.Next <= from || to >= 0 && sv.Base >= to || sv.SizeBytes == 0 {
			continue
		}
		sp := byteRange{sv: sv, len: sv.SizeBytes}
		if sv.Base < from {
			pos, err := l.Floor(sv, from)
			if err != nil {
				return nil, err
			}
			sp.pos, sp.len = pos, sv.SizeBytes-pos
		}
		if to >= 0 && sv.Next > to {
			end, err := l.Floor(sv, to)
			if err != nil {
				return nil, err
			}
			sp.len = end - sp.pos
		}
		if sp.len > 0 {
			out = append(out, sp)
		}
	}
	return out, nil
}

// Evict drops clean pages of a range, but never of the hot window while the partition has a real-time reader.
func (b *backend) Evict(_ context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return b.act(q, func(l *partition.Log, sp byteRange, res *admin.CacheActionResult) error {
		keep := b.hotFrom(l)
		if end := keep - sp.sv.Before; sp.pos+sp.len > end {
			cut := sp.pos + sp.len - max(end, sp.pos)
			res.KeptHot += cut
			sp.len -= cut
		}
		if sp.len <= 0 {
			return nil
		}
		if q.DryRun {
			res.WouldChange = append(res.WouldChange, fmt.Sprintf("evict %s [%d, %d)", sp.sv.File, sp.pos, sp.pos+sp.len))
			return nil
		}
		e, err := l.Evict(sp.sv, sp.pos, sp.len)
		res.DirtyBytes += e.DirtyPages * pageSize
		return err
	})
}

// Warm reads a range into the page cache.
func (b *backend) Warm(_ context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return b.act(q, func(l *partition.Log, sp byteRange, res *admin.CacheActionResult) error {
		if q.DryRun {
			res.WouldChange = append(res.WouldChange, fmt.Sprintf("warm %s [%d, %d)", sp.sv.File, sp.pos, sp.pos+sp.len))
			return nil
		}
		_, err := l.Warm(sp.sv, sp.pos, sp.len)
		return err
	})
}

// hotFrom is the position, in bytes from the log's start, from which on the hot window of a partition with real-time
// readers begins; the log's size when it has none.
func (b *backend) hotFrom(l *partition.Log) int64 {
	size := l.SizeBytes()
	for _, r := range b.store.Readers() {
		if r.Key.Topic == l.Topic() && r.Key.Partition == l.Partition() && r.Class.State.String() == "realtime" {
			return max(0, size-max(int64(b.cfg.Readers.HotWindow), r.LagBytes))
		}
	}
	return size
}

// act applies one action to every span of the range and measures before and after.
func (b *backend) act(q admin.CacheAction, do func(*partition.Log, byteRange, *admin.CacheActionResult) error) (admin.CacheActionResult, error) {
	var res admin.CacheActionResult
	logs, err := b.chosen(q.Topic, q.Partition)
	if err != nil {
		return res, err
	}
	for _, l := range logs {
		from, to := segment.Offset(max(q.From, 0)), segment.Offset(q.To)
		if q.To <= 0 {
			to = -1
		}
		if q.LastSeconds > 0 {
			at, err := l.OffsetForTime(context.Background(), time.Now().Add(-time.Duration(q.LastSeconds*float64(time.Second))).UnixMilli())
			if err != nil {
				return res, err
			}
			if from = at.Offset; from < 0 {
				continue // nothing that young
			}
		}
		list, err := ranges(l, from, to)
		if err != nil {
			return res, err
		}
		for _, sp := range list {
			before, err := l.Residency(sp.sv, sp.pos, sp.len)
			if err != nil {
				return res, err
			}
			if err := do(l, sp, &res); err != nil {
				return res, err
			}
			after := before
			if !q.DryRun {
				if after, err = l.Residency(sp.sv, sp.pos, sp.len); err != nil {
					return res, err
				}
			}
			res.Segments++
			res.Bytes += sp.len
			res.ResidentBefore += pageBytes(before.Resident, sp.len)
			res.ResidentAfter += pageBytes(after.Resident, sp.len)
		}
	}
	res.Applied = !q.DryRun
	if res.DirtyBytes > 0 {
		res.Note = "dirty pages cannot be dropped: write-back was started, call again"
	}
	return res, nil
}
