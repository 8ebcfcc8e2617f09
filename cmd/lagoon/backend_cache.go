package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lagoon/cachectl"
	"lagoon/internal/admin"
	"lagoon/internal/partition"
	"lagoon/segment"
)

// maxCells bounds one answer: a cell is two bytes of it, and some more on the way.
const maxCells = 1 << 20

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Cache gives one row per partition of the query, with cells from log start to end, looked at again as far as the sampler's budget goes.
func (b *backend) Cache(ctx context.Context, q admin.CacheQuery) (admin.Cache, error) {
	logs, err := b.chosen(q.Topic, q.Partition)
	if err != nil {
		return admin.Cache{}, err
	}
	cells := q.Cells
	if cells <= 0 {
		cells = 512
	}
	cells = min(cells, max(16, maxCells/max(1, len(logs))))
	readers := b.store.Readers()
	in := map[rowKey][]partition.ReaderView{}
	for _, r := range readers {
		k := rowKey{r.Key.Topic, r.Key.Partition}
		in[k] = append(in[k], r)
	}
	b.sampler.refresh(ctx, segmentsOf(logs, readers))
	out := admin.Cache{SampledAt: time.Now(), Rows: []admin.CacheRow{}}
	for _, l := range logs {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if l.Err() == nil {
			row := b.row(l, cells, q.Topic != "" && q.Partition >= 0, in[rowKey{l.Topic(), l.Partition()}])
			if row.SampledAt.Before(out.SampledAt) {
				out.SampledAt = row.SampledAt
			}
			out.Rows = append(out.Rows, row)
		}
	}
	out.Method = b.sampler.lastMethod()
	return out, nil
}

// segmentsOf lists what there is to look at. Busy are the active segment and those in which a reader is.
func segmentsOf(logs []*partition.Log, readers []partition.ReaderView) []sampled {
	at := map[rowKey][]int64{}
	for _, r := range readers {
		k := rowKey{r.Key.Topic, r.Key.Partition}
		at[k] = append(at[k], r.Position.Offset)
	}
	var out []sampled
	for _, l := range logs {
		if l.Err() != nil {
			continue
		}
		row := rowKey{l.Topic(), l.Partition()}
		for _, sv := range l.Segments() {
			if sv.SizeBytes == 0 {
				continue
			}
			c := sampled{key: segmentKey{sv.Dir, sv.File}, row: row, size: sv.SizeBytes, busy: sv.Active || !sv.Sealed,
				stat: func(pos, n int64) (cachectl.Residency, error) { return l.Residency(sv, pos, n) }}
			for _, off := range at[row] {
				c.busy = c.busy || off >= int64(sv.Base) && off < int64(sv.Next)
			}
			out = append(out, c)
		}
	}
	return out
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

// row is one partition as a line of cells; readers are those in it.
func (b *backend) row(l *partition.Log, cells int, segments bool, readers []partition.ReaderView) admin.CacheRow {
	o := l.Offsets()
	row := admin.CacheRow{SampledAt: time.Now(),
		CacheFigures: admin.CacheFigures{Topic: l.Topic(), Partition: l.Partition(), StartOffset: int64(o.LogStart), EndOffset: int64(o.End)}}
	svs := l.Segments()
	for _, sv := range svs {
		row.Bytes += sv.SizeBytes
	}
	line := newCellRow(row.Bytes, cells)
	row.CellBytes = line.cell
	for _, sv := range svs {
		sample, _ := b.sampler.of(segmentKey{sv.Dir, sv.File}) // zero: not looked at yet
		if sv.SizeBytes > 0 && sample.at.Before(row.SampledAt) {
			row.SampledAt = sample.at
		}
		g := sample.grid
		row.ResidentBytes += g.resident
		row.DirtyBytes += g.dirty
		row.WritebackBytes += g.writeback
		row.RefaultPages += g.refault
		line.add(sv.Before, sample.size, g)
		if grown := sv.SizeBytes - sample.size; sv.Active && !sample.at.IsZero() && grown > 0 {
			// What was appended since the look went through the page cache.
			line.fill(sv.Before+sample.size, grown)
			row.ResidentBytes += grown
		}
		first, next := int(sv.Before/line.cell), min(len(line.flags), int((sv.Before+sv.SizeBytes+line.cell-1)/line.cell))
		if k := len(row.Tiers); k > 0 && row.Tiers[k-1].Tier == sv.Tier {
			row.Tiers[k-1].Next = next
		} else if next > first {
			row.Tiers = append(row.Tiers, admin.TierSpan{First: first, Next: next, Tier: sv.Tier})
		}
		if segments {
			own := newCellRow(sv.SizeBytes, max(1, next-first))
			own.add(0, sample.size, g)
			row.Segments = append(row.Segments, admin.CacheSegment{File: sv.File, Tier: sv.Tier, Bytes: sv.SizeBytes, ResidentBytes: g.resident, Cells: own.cells()})
		}
	}
	row.Cells, row.Flags = line.cells(), line.flags
	mark(&row, svs, readers)
	return row
}

// mark puts the readers where they are.
func mark(row *admin.CacheRow, svs []partition.SegmentView, readers []partition.ReaderView) {
	for _, r := range readers {
		if len(row.Cells) == 0 {
			return
		}
		at := max(0, row.Bytes-r.LagBytes)
		class := r.Class.State.String()
		row.Markers = append(row.Markers, admin.CacheMarker{Reader: readerID(r), Name: readerName(r), Cell: int(min(int64(len(row.Cells)-1), at/row.CellBytes)),
			Class: class, LagSeconds: seconds(r.LagAge)})
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
func (b *backend) Evict(ctx context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return b.act(ctx, q, func(l *partition.Log, sp byteRange, res *admin.CacheActionResult) error {
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

// warmStep is read between two looks at whether anybody still waits: a second of a slow disk.
const warmStep = 64 << 20

// Warm reads a range into the page cache, until ctx ends.
func (b *backend) Warm(ctx context.Context, q admin.CacheAction) (admin.CacheActionResult, error) {
	return b.act(ctx, q, func(l *partition.Log, sp byteRange, res *admin.CacheActionResult) error {
		if q.DryRun {
			res.WouldChange = append(res.WouldChange, fmt.Sprintf("warm %s [%d, %d)", sp.sv.File, sp.pos, sp.pos+sp.len))
			return nil
		}
		for end := sp.pos + sp.len; sp.pos < end; sp.pos += warmStep {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := l.Warm(sp.sv, sp.pos, min(warmStep, end-sp.pos)); err != nil {
				return err
			}
		}
		return nil
	})
}

// hotFrom is the position, in bytes from the log's start, from which on the hot window of a partition begins, or what a
// real-time reader has still to read; the log's size when there is neither.
func (b *backend) hotFrom(l *partition.Log) int64 {
	size := l.SizeBytes()
	if hot := l.HotWindow(); hot.Bytes > 0 {
		return min(size, hot.From)
	}
	from := size
	for _, r := range b.store.Readers() {
		if r.Key.Topic == l.Topic() && r.Key.Partition == l.Partition() && r.Class.State.String() == "realtime" {
			from = min(from, max(0, size-r.LagBytes))
		}
	}
	return from
}

// act applies one action to every span of the range and measures before and after. What moves or is deleted meanwhile is left out.
func (b *backend) act(ctx context.Context, q admin.CacheAction, do func(*partition.Log, byteRange, *admin.CacheActionResult) error) (admin.CacheActionResult, error) {
	var res admin.CacheActionResult
	gone := 0
	logs, err := b.chosen(q.Topic, q.Partition)
	if err != nil {
		return res, err
	}
	for _, l := range logs {
		from, to := segment.Offset(max(q.From, 0)), segment.Offset(q.To)
		if q.To < 0 {
			to = -1
		}
		if q.LastSeconds > 0 {
			at, err := l.OffsetForTime(ctx, time.Now().Add(-time.Duration(q.LastSeconds*float64(time.Second))).UnixMilli())
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
			if ctx.Err() != nil {
				return res, ctx.Err()
			}
			before, err := l.Residency(sp.sv, sp.pos, sp.len)
			if err == nil {
				err = do(l, sp, &res)
			}
			after := before
			if err == nil && !q.DryRun {
				b.sampler.forget(rowKey{l.Topic(), l.Partition()})
				after, err = l.Residency(sp.sv, sp.pos, sp.len)
			}
			if errors.Is(err, partition.ErrClosed) && l.Err() == nil {
				gone++
				continue
			}
			if err != nil {
				return res, err
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
	if gone > 0 {
		res.Note = strings.TrimPrefix(res.Note+"; ", "; ") + fmt.Sprintf("%d segment(s) left out: they were moved or deleted meanwhile", gone)
	}
	return res, nil
}
