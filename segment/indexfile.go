package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"

	"lagoon/internal/vfs"
)

// maxIndexFileBytes bounds what is read of an index file: one entry per byte position would be larger, but no segment
// (at most 2 GiB, one entry per batch, a batch has at least 61 bytes) can have more entries than this.
const maxIndexFileBytes = (maxSegmentBytes/BatchHeaderSize + 2) * timeEntrySize

// readIndexFiles loads and checks both index files of a log of logSize bytes.
// Errors: *CorruptError with the path of the bad file, also when one is missing; or the read error.
// suffix is what their names have behind them, usually nothing.
func readIndexFiles(fsys vfs.FS, dir string, base Offset, suffix string, logSize int64) (*index, error) {
	offsets, err := readIndexFile(fsys, inDir(dir, IndexName(base)+suffix))
	if err != nil {
		return nil, err
	}
	times, err := readIndexFile(fsys, inDir(dir, TimeIndexName(base)+suffix))
	if err != nil {
		return nil, err
	}
	x, err := decodeIndex(base, offsets, times, logSize)
	if fault, ok := errors.AsType[*indexFault](err); ok {
		corrupt, _ := errors.AsType[*CorruptError](fault.err)
		corrupt.Path = inDir(dir, fileName(base, fault.suffix+suffix))
		return nil, corrupt
	}
	return x, err
}

func readIndexFile(fsys vfs.FS, name string) ([]byte, error) {
	b, err := vfs.ReadFile(fsys, name, maxIndexFileBytes)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, vfs.ErrTooLarge) {
		return nil, &CorruptError{Path: name, Pos: -1, Err: err}
	}
	return b, err
}

// writeIndexFiles replaces both index files, durably.
func writeIndexFiles(fsys vfs.FS, dir, suffix string, x *index) error {
	if err := vfs.WriteFileAtomic(fsys, inDir(dir, IndexName(x.base)+suffix), x.encodeEntries(nil, 0)); err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, inDir(dir, TimeIndexName(x.base)+suffix), x.encodeTimes(nil, 0))
}

// The index checkpoint `<base>.lagoon-index` holds the index entries of the active segment in frames, each with its own
// checksum, appended unsynced. It only shortens recovery: a missing or torn one costs a longer scan. See
// docs/formats/index-checkpoint.md.
const (
	frameHeaderSize = 16 // magic, counts, checksum
	frameMagic      = 0x4c475849
)

// appendFrame appends the entries that are new since entry i and time t.
func (x *index) appendFrame(b []byte, i, t int) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, frameMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(len(x.entries)-i))
	b = binary.BigEndian.AppendUint32(b, uint32(len(x.times)-t))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = x.encodeTimes(x.encodeEntries(b, i), t)
	binary.BigEndian.PutUint32(b[start+12:], frameCRC(b[start:]))
	return b
}

func frameCRC(frame []byte) uint32 {
	crc := crc32.Checksum(frame[:12], castagnoli)
	return crc32.Update(crc, castagnoli, frame[frameHeaderSize:])
}

// decodeFrames reads the whole frames at the front of b and stops at the first that is torn or does not fit; whole: there is none.
func decodeFrames(base Offset, b []byte, logSize int64) (x *index, whole bool) {
	x = &index{base: base}
	for len(b) >= frameHeaderSize && binary.BigEndian.Uint32(b) == frameMagic {
		entries := int64(binary.BigEndian.Uint32(b[4:])) * indexEntrySize
		times := int64(binary.BigEndian.Uint32(b[8:])) * timeEntrySize
		if entries+times > int64(len(b)-frameHeaderSize) {
			break
		}
		frame := b[:frameHeaderSize+entries+times]
		if binary.BigEndian.Uint32(b[12:]) != frameCRC(frame) {
			break
		}
		e, errE := decodeEntries(frame[frameHeaderSize:frameHeaderSize+entries], x.entries, logSize)
		t, errT := decodeTimes(frame[frameHeaderSize+entries:], x.times)
		if errE != nil || errT != nil {
			break // entries of bytes that a power cut took from the log
		}
		x.entries, x.times = e, t
		b = b[len(frame):]
	}
	return x, len(b) == 0
}

// readIndexCheckpoint gives what is usable of the index checkpoint, maybe nothing; whole: all that is in the file.
func readIndexCheckpoint(fsys vfs.FS, dir string, base Offset, logSize int64) (x *index, whole bool, err error) {
	b, err := vfs.ReadFile(fsys, inDir(dir, fileName(base, indexCheckpointSuffix)), maxIndexFileBytes)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, vfs.ErrTooLarge) {
		return &index{base: base}, errors.Is(err, fs.ErrNotExist), nil
	}
	if err != nil {
		return nil, false, err
	}
	x, whole = decodeFrames(base, b, logSize)
	return x, whole, nil
}

func removeIndexCheckpoint(fsys vfs.FS, dir string, base Offset) error {
	err := fsys.Remove(inDir(dir, fileName(base, indexCheckpointSuffix)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readFull reads exactly len(p) bytes at off, or what there is up to the end of the file.
func readFull(f vfs.File, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
