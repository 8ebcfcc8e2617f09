package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"syscall"

	"lagoon/internal/vfs"
)

// The log of one generation, big-endian (docs: doc.go):
//
//	header  magic "LGNMLOG\x01" | generation u64 | CRC32C of the 16 bytes before
//	frame   length u32 of the payload | CRC32C u32 of sequence and payload and length | sequence u64 | payload (one record)
//
// Sequences rise by one from the snapshot's version.
const (
	logMagic        = "LGNMLOG\x01"
	logHeaderSize   = 20
	frameHeaderSize = 16
	// maxPayload bounds what a damaged length can make us read; a record with every limit used up stays below it.
	maxPayload = 32 << 20
	// maxLogBytes bounds the memory of reading a log back. Compaction starts far below.
	maxLogBytes = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLogHeader(b []byte, generation uint64) []byte {
	at := len(b)
	b = append(b, logMagic...)
	b = binary.BigEndian.AppendUint64(b, generation)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

func appendFrame(b []byte, seq uint64, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, frameCRC(uint32(len(payload)), seq, payload))
	b = binary.BigEndian.AppendUint64(b, seq)
	return append(b, payload...)
}

func frameCRC(length uint32, seq uint64, payload []byte) uint32 {
	var head [12]byte
	binary.BigEndian.PutUint32(head[0:], length)
	binary.BigEndian.PutUint64(head[4:], seq)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload)
}

// readFrame checks the frame at the start of b. The payload aliases b.
func readFrame(b []byte) (seq uint64, payload []byte, size int, ok bool) {
	if len(b) < frameHeaderSize {
		return 0, nil, 0, false
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > maxPayload || int64(n) > int64(len(b)-frameHeaderSize) {
		return 0, nil, 0, false
	}
	seq = binary.BigEndian.Uint64(b[8:])
	payload = b[frameHeaderSize : frameHeaderSize+int(n)]
	if frameCRC(n, seq, payload) != binary.BigEndian.Uint32(b[4:]) {
		return 0, nil, 0, false
	}
	return seq, payload, frameHeaderSize + int(n), true
}

// logContent is what a log file's bytes come to.
type logContent struct {
	records []record
	size    int64 // bytes up to the end of the last whole frame
	torn    int64 // bytes after it that do not form a frame: a write that a crash interrupted
}

// parseLog reads the bytes of the log of one generation whose snapshot has version base.
//
// A tail that is not a whole frame is torn: each frame is synced before the next is written, so a crash can damage the
// last one only. A bad frame with a good one of a later sequence behind it is damage to durable bytes: *CorruptError,
// with Path left to the caller. So is a frame that checks out and makes no sense.
func parseLog(b []byte, generation, base uint64) (logContent, error) {
	if len(b) < logHeaderSize || !bytes.Equal(b[:logHeaderSize], appendLogHeader(nil, generation)) {
		return logContent{}, &CorruptError{Reason: "bad header" + headerHint(b)}
	}
	out := logContent{size: logHeaderSize}
	for seq := base + 1; int(out.size) < len(b); seq++ {
		got, payload, size, ok := readFrame(b[out.size:])
		if !ok {
			if pos, found := findFrame(b, int(out.size), seq-1); found {
				return logContent{}, &CorruptError{Pos: out.size, Reason: fmt.Sprintf("bad record before a good one at byte %d", pos)}
			}
			out.torn = int64(len(b)) - out.size
			break
		}
		if got != seq {
			return logContent{}, &CorruptError{Pos: out.size, Reason: fmt.Sprintf("record %d where %d belongs", got, seq)}
		}
		rec, err := decodeRecord(payload)
		if err != nil {
			if errors.Is(err, ErrNewer) {
				return logContent{}, err
			}
			return logContent{}, &CorruptError{Pos: out.size, Reason: err.Error()}
		}
		out.records = append(out.records, rec)
		out.size += int64(size)
	}
	return out, nil
}

// headerHint says more about a bad header that is whole.
func headerHint(b []byte) string {
	if len(b) < logHeaderSize || crc32.Checksum(b[:16], castagnoli) != binary.BigEndian.Uint32(b[16:]) {
		return ""
	}
	return fmt.Sprintf(" (magic %q, generation %d)", b[:8], binary.BigEndian.Uint64(b[8:]))
}

// findFrame looks for a whole frame with a sequence above after that starts behind from. The sequence must be one the file has
// room for, which keeps the checksums that have to be computed few.
func findFrame(b []byte, from int, after uint64) (pos int, ok bool) {
	limit := after + uint64(len(b)/frameHeaderSize) + 1
	for pos = from + 1; pos+frameHeaderSize < len(b); pos++ {
		if seq := binary.BigEndian.Uint64(b[pos+8:]); seq <= after || seq > limit {
			continue
		}
		if _, _, _, ok := readFrame(b[pos:]); ok {
			return pos, true
		}
	}
	return 0, false
}

// logFile is the log being appended to. It has one owner, Store.mu.
type logFile struct {
	file       vfs.File
	generation uint64
	size       int64 // end of the last durable frame
	compactAt  int64
	syncFailed bool
}

// append writes one frame at the end and makes it durable. On error the size stays.
func (l *logFile) append(frame []byte) error {
	if l.size+int64(len(frame)) > maxLogBytes {
		return fmt.Errorf("metadata log of %d bytes cannot grow before it was compacted: %w", l.size, syscall.ENOSPC)
	}
	if _, err := l.file.WriteAt(frame, l.size); err != nil {
		return err
	}
	if err := l.file.SyncData(); err != nil {
		l.syncFailed = true
		return err
	}
	l.size += int64(len(frame))
	return nil
}
