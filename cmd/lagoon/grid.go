package main

import (
	"bytes"

	"lagoon/cachectl"
	"lagoon/internal/admin"
)

const (
	pageSize = cachectl.PageSize
	// gridUnit is the finest cell of a large segment: 2 GiB are at most 2,048 cells.
	gridUnit = 1 << 20
	// gridLeast is the number of cells below which a small segment gets finer ones.
	gridLeast = 64
)

// grid is one segment's residency in cells of unit bytes.
type grid struct {
	unit                       int64
	cells                      []byte // share resident, see share
	flags                      []byte // admin.Cell… bits
	resident, dirty, writeback int64  // bytes
	refault                    int64  // pages that were resident until lately
}

func (g grid) equal(o grid) bool {
	return g.unit == o.unit && bytes.Equal(g.cells, o.cells) && bytes.Equal(g.flags, o.flags)
}

// pageBytes turns pages into bytes; the last page of a file is only partly its own.
func pageBytes(pages, most int64) int64 { return min(pages*pageSize, most) }

// unitFor is the cell size for a segment: one mebibyte, less for small ones, a power of two and a whole number of pages.
func unitFor(size int64) int64 {
	unit := int64(gridUnit)
	for unit > pageSize && unit*gridLeast > size {
		unit /= 2
	}
	return unit
}

// look finds a segment's grid. It asks about the whole first and halves only what is neither all resident nor all absent, so that an
// unmixed segment is one question, however large.
func look(size int64, stat func(pos, n int64) (cachectl.Residency, error)) (g grid, method string, err error) {
	g.unit = unitFor(size)
	n := int((size + g.unit - 1) / g.unit)
	g.cells, g.flags = make([]byte, n), make([]byte, n)
	var walk func(first, next int) error
	walk = func(first, next int) error {
		pos := int64(first) * g.unit
		length := min(int64(next)*g.unit, size) - pos
		r, err := stat(pos, length)
		if err != nil {
			return err
		}
		method = r.Method
		plain := r.Dirty == 0 && r.Writeback == 0 && r.RecentlyEvicted == 0 && (r.Resident == 0 || r.Resident >= r.Pages)
		if next-first > 1 && !plain {
			half := first + (next-first)/2
			if err := walk(first, half); err != nil {
				return err
			}
			return walk(half, next)
		}
		resident := pageBytes(r.Resident, length)
		var flag byte
		if r.Dirty > 0 {
			flag |= admin.CellDirty
		}
		if r.Writeback > 0 {
			flag |= admin.CellWriteback
		}
		if r.RecentlyEvicted > 0 {
			flag |= admin.CellRefault
		}
		for i := first; i < next; i++ {
			g.cells[i], g.flags[i] = share(resident, length), flag
		}
		g.resident += resident
		g.dirty += pageBytes(r.Dirty, length)
		g.writeback += pageBytes(r.Writeback, length)
		g.refault += r.RecentlyEvicted
		return nil
	}
	if n == 0 {
		return g, "", nil
	}
	return g, method, walk(0, n)
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

// unshare is the ratio that share stands for.
func unshare(c byte) float64 {
	switch c {
	case 0:
		return 0
	case 255:
		return 1
	}
	return float64(c) / 255
}

// cellRow is a run of bytes cut into cells, filled from grids that are cut otherwise.
type cellRow struct {
	cell     int64 // bytes
	bytes    int64
	resident []float64
	flags    []byte
}

// newCellRow cuts bytes into at most cells cells of whole pages.
func newCellRow(bytes int64, cells int) *cellRow {
	r := &cellRow{bytes: bytes, cell: max(pageSize, (bytes+int64(cells)-1)/int64(cells))}
	r.cell = (r.cell + pageSize - 1) / pageSize * pageSize
	n := int((bytes + r.cell - 1) / r.cell)
	r.resident, r.flags = make([]float64, n), make([]byte, n)
	return r
}

// add spreads a grid that covers [from, from+size) of the row over the row's cells.
func (r *cellRow) add(from, size int64, g grid) {
	for i, c := range g.cells {
		pos := int64(i) * g.unit
		end := min(pos+g.unit, size)
		ratio := unshare(c)
		for at := from + pos; at < from+end; {
			cell := at / r.cell
			if cell >= int64(len(r.resident)) {
				return // the log grew since it was measured
			}
			step := min((cell+1)*r.cell, from+end) - at
			r.resident[cell] += ratio * float64(step)
			r.flags[cell] |= g.flags[i]
			at += step
		}
	}
}

// fill takes [from, from+size) of the row for resident.
func (r *cellRow) fill(from, size int64) {
	for at := from; at < from+size; {
		cell := at / r.cell
		step := min((cell+1)*r.cell, from+size) - at
		r.resident[cell] += float64(step)
		at += step
	}
}

// cells gives each cell's share.
func (r *cellRow) cells() []byte {
	out := make([]byte, len(r.resident))
	for i, bytes := range r.resident {
		total := min(r.cell, r.bytes-int64(i)*r.cell)
		out[i] = share(int64(bytes+0.5), total)
	}
	return out
}
