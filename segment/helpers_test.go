package segment_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

const dir = "orders-3"

// batchSpec describes one batch to be built; the zero value is one record without producer.
type batchSpec struct {
	base      segment.Offset
	records   int // default 1
	valueSize int // default 10
	ms        int64
	pid       int64 // 0: none
	epoch     int16
	seq       int32
	attrs     int16
	fill      byte
	noKey     bool
}

// buildBatch encodes an uncompressed v2 batch.
func buildBatch(spec batchSpec) []byte {
	if spec.records == 0 {
		spec.records = 1
	}
	if spec.valueSize == 0 {
		spec.valueSize = 10
	}
	b := make([]byte, segment.BatchHeaderSize)
	for i := range spec.records {
		rec := []byte{0}
		rec = binary.AppendVarint(rec, 0) // timestamp delta
		rec = binary.AppendVarint(rec, int64(i))
		if spec.noKey {
			rec = binary.AppendVarint(rec, -1)
		} else {
			rec = append(binary.AppendVarint(rec, 1), 'k')
		}
		rec = binary.AppendVarint(rec, int64(spec.valueSize))
		rec = append(rec, bytes.Repeat([]byte{spec.fill}, spec.valueSize)...)
		rec = binary.AppendVarint(rec, 1)
		rec = append(binary.AppendVarint(rec, 1), 'h')
		rec = binary.AppendVarint(rec, -1)
		b = append(binary.AppendVarint(b, int64(len(rec))), rec...)
	}
	if spec.pid == 0 {
		spec.pid, spec.epoch, spec.seq = -1, -1, -1
	}
	be := binary.BigEndian
	be.PutUint64(b[0:], uint64(spec.base))
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0xffffffff)
	b[16] = 2
	be.PutUint16(b[21:], uint16(spec.attrs))
	be.PutUint32(b[23:], uint32(spec.records-1))
	be.PutUint64(b[27:], uint64(spec.ms))
	be.PutUint64(b[35:], uint64(spec.ms))
	be.PutUint64(b[43:], uint64(spec.pid))
	be.PutUint16(b[51:], uint16(spec.epoch))
	be.PutUint32(b[53:], uint32(spec.seq))
	be.PutUint32(b[57:], uint32(spec.records))
	fixCRC(b)
	return b
}

func fixCRC(b []byte) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func decode(tb testing.TB, b []byte) segment.BatchHeader {
	tb.Helper()
	return must[segment.BatchHeader](tb)(segment.DecodeHeader(b))
}

// newDir gives a memory file system with the partition directory.
func newDir(tb testing.TB) *vfs.Mem {
	tb.Helper()
	m := vfs.NewMem(1)
	check(tb, m.MkdirAll(dir))
	return m
}

// appendBatch builds the batch at the writer's next offset and appends it.
func appendBatch(tb testing.TB, w *segment.Writer, spec batchSpec) (b []byte, pos int64) {
	tb.Helper()
	spec.base = w.Next()
	b = buildBatch(spec)
	segment.AssignOffsets(b, w.Next(), 4)
	pos, err := w.Append(b, decode(tb, b))
	check(tb, err)
	return b, pos
}

func newCache() *segment.FileCache { return segment.NewFileCache(segment.FileCacheOptions{}) }

// readLog reads the whole log file.
func readLog(tb testing.TB, fs vfs.FS, base segment.Offset) []byte {
	tb.Helper()
	return must[[]byte](tb)(vfs.ReadFile(fs, dir+"/"+segment.LogName(base), 1<<30))
}

// writeFile replaces a file with content, without any care for crashes.
func writeFile(tb testing.TB, fs vfs.FS, name string, content []byte) {
	tb.Helper()
	check(tb, vfs.WriteFileAtomic(fs, name, content))
}

// unbounded lets Find read to the end of the segment.
var unbounded = segment.Bound{Offset: 1 << 60, Pos: -1}
