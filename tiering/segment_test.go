package tiering_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// What segment.Writer seals passes the checks, in every shape of timestamps and with either index spacing, and what
// arrives is read by segment.OpenSealed; on a real file system, with the bypass descriptor as the reader.
func TestMigrateWhatSegmentWrites(t *testing.T) {
	for name, stamp := range map[string]func(i int) int64{
		"rising":  func(i int) int64 { return 1_700_000_000_000 + int64(i) },
		"falling": func(i int) int64 { return 1_700_000_000_000 - int64(i) },
		"equal":   func(int) int64 { return 1_700_000_000_000 },
		"none":    func(int) int64 { return -1 },
		"random":  func(i int) int64 { return 1_700_000_000_000 + int64(crc32.ChecksumIEEE([]byte{byte(i), 1})%1000) },
	} {
		for _, interval := range []int32{1, 4096} {
			t.Run(fmt.Sprint(name, interval), func(t *testing.T) {
				ssd, err := vfs.OS(t.TempDir())
				must(t, err)
				hdd, err := vfs.OS(t.TempDir())
				must(t, err)
				meta := writeSegment(t, ssd, segment.Options{IndexIntervalBytes: interval}, stamp)
				job := tiering.Job{Dir: testDir, Base: testBase, SizeBytes: meta.SizeBytes, Next: meta.Next, Dense: true,
					From: tiersOf(ssd, hdd)[0], To: tiersOf(ssd, hdd)[1]}
				e := env()
				e.Open = openDirect
				e.Publish = func(_ context.Context, job tiering.Job) error { return readSegment(job.To.FS, meta) }
				must(t, tiering.Migrate(t.Context(), job, e))
				if listing, err := segment.ListDir(ssd, testDir); err != nil || len(listing.Segments)+len(listing.Leftovers)+len(listing.OrphanIndexes) > 0 {
					t.Errorf("left in ssd: %+v, %v", listing, err)
				}
			})
		}
	}
}

// openDirect reads around the page cache where the file system can.
func openDirect(fsys vfs.FS, name string) (tiering.Reader, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	direct, err := fsys.Open(name, vfs.Direct)
	if err != nil {
		return f, nil
	}
	return directReader{File: f, direct: direct}, nil
}

// directReader reads whole pages with O_DIRECT into aligned memory and what is left over buffered.
type directReader struct {
	vfs.File
	direct vfs.File
}

func (r directReader) ReadAt(p []byte, off int64) (int, error) {
	whole := len(p) &^ 4095
	aligned := segment.ScanBuffer(whole + 4096)[:whole]
	if n, err := r.direct.ReadAt(aligned, off); n < whole {
		return n, err
	}
	copy(p, aligned)
	n, err := r.File.ReadAt(p[whole:], off+int64(whole))
	return whole + n, err
}

func (r directReader) Close() error {
	defer r.direct.Close()
	return r.File.Close()
}

func writeSegment(t *testing.T, fsys vfs.FS, opt segment.Options, stamp func(int) int64) segment.Meta {
	t.Helper()
	must(t, fsys.MkdirAll(testDir))
	cache := segment.NewFileCache(segment.FileCacheOptions{})
	w, err := segment.Create(fsys, testDir, testBase, opt, cache)
	must(t, err)
	rng := rand.New(rand.NewPCG(5, 5))
	for i, next := 0, testBase; i < 300; i++ {
		b := appendBatch(nil, next, 1+rng.IntN(5), stamp(i), make([]byte, rng.IntN(9000)))
		binary.BigEndian.PutUint32(b[12:], uint32(i/100)) // epochs rise
		h, err := segment.DecodeHeader(b)
		must(t, err)
		_, err = w.Append(b, h)
		must(t, err)
		next = h.NextOffset()
	}
	meta, err := w.Seal()
	must(t, err)
	w.Reader().Retire(nil)
	return meta
}

// readSegment opens the copy as the partition does and looks up every offset in it.
func readSegment(fsys vfs.FS, meta segment.Meta) error {
	damage := 0
	cache := segment.NewFileCache(segment.FileCacheOptions{OnCorrupt: func(*segment.CorruptError) { damage++ }})
	r, err := segment.OpenSealed(fsys, testDir, segment.Sealed{Base: meta.Base, Next: meta.Next, SizeBytes: meta.SizeBytes}, cache)
	if err != nil {
		return err
	}
	if !r.Acquire() {
		return segment.ErrClosed
	}
	defer r.Retire(nil)
	defer r.Release()
	for from := meta.Base; from < meta.Next; from++ {
		x, err := r.Find(from, 1, segment.Bound{Offset: meta.Next, Pos: meta.SizeBytes}, -1)
		if err != nil {
			return err
		}
		if x.First > from || x.Len <= 0 {
			return fmt.Errorf("find %d: %+v", from, x)
		}
	}
	if damage > 0 {
		return fmt.Errorf("%d damages reported", damage)
	}
	return nil
}
